//! Settings, directories and credentials that are wrong: said plainly, and nothing is touched.

use anyhow::Result;
use mesh::{
    FilerId,
    kv::{Batch, Durability, Kv, META},
};
use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
};
use storage::{
    cloudfs::CloudState,
    ids::SegmentId,
    rocks::{RocksKv, RocksSettings},
    segment::{Header, SEGMENT_VERSION},
};
use tests::{
    mesh_of_filers::{CloudPlace, MeshOfFilers, Plan, SOON, TwoClouds},
    process::temp_dir,
    proof::contents,
    sites::{Site, said},
};

/// The bytes of every file below a folder, but for RocksDB's own log of what it did.
fn bytes_below(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_path_buf()]);
    while let Some(here) = folders.pop() {
        for entry in fs::read_dir(&here)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("LOG")) {
                found.insert(path.clone(), fs::read(&path)?);
            }
        }
    }
    Ok(found)
}

/// Two directories as clouds, below `folder`.
fn directories(folder: &Path) -> [CloudPlace; 2] {
    ["one", "two"].map(|name| {
        let place = folder.join(name);
        fs::create_dir_all(&place).expect("the folder is this test's own");
        CloudPlace::directory(&place)
    })
}

/// Unknown keys, wrong units, one bucket for both clouds, missing credentials, a name used twice: all of them are listed
/// with their lines, at check and at start, with exit code 2; and nothing is started or made.
#[tokio::test]
async fn every_problem_of_the_settings_is_listed_with_its_line_and_nothing_is_started() {
    let folder = temp_dir("settings").unwrap();
    let dir = folder.path().join("ams");
    let dir = dir.to_str().unwrap();
    said(["init", "ams", "--dir", dir]).await.unwrap().done().unwrap();
    let path = folder.path().join("ams/filer.toml");
    let text = r#"name = "ams"
colour = "red"
[clouds.primary]
kind = "s3"
name = "one"
bucket = "files"
[clouds.secondary]
kind = "s3"
name = "one"
bucket = "files"
access_key_id = "x"
[segments]
seal_after = 5
bytes_max = "8 MiBB"
"#;
    fs::write(&path, text).unwrap();
    let before = bytes_below(folder.path()).unwrap();
    for command in [&["check-config", "--dir", dir], &["serve", "--dir", dir]] {
        let said = said(command).await.unwrap();
        assert_eq!(said.code, Some(2), "{command:?}: {said:?}");
        for (line, what) in [
            (2, "colour"),
            (3, "clouds.primary has no credentials"),
            (11, "clouds.secondary.secret_access_key is missing"),
            (9, "clouds.secondary.name"),
            (10, "clouds.secondary.bucket is the same place"),
            (13, "segments.seal_after"),
            (14, "segments.bytes_max"),
        ] {
            let told = said.err.lines().any(|told| told.contains(&format!("line {line}: ")) && told.contains(what));
            assert!(told, "{command:?} does not tell of {what} in line {line}:\n{}", said.err);
        }
        assert_eq!(bytes_below(folder.path()).unwrap(), before, "{command:?} changed something");
    }
    // Nobody is there to be asked; that the settings are wrong is said too, and is no reason not to ask.
    let asked = said(["status", "--dir", dir]).await.unwrap();
    assert_eq!(asked.code, Some(4), "no filer runs: {asked:?}");
    assert!(asked.err.contains("filer.toml has 7 problems, which filer check-config lists"), "{asked:?}");
    // Credentials that are named and not there: at the lines that name them.
    let named = text
        .replace("colour = \"red\"\n", "")
        .replace("bucket = \"files\"\n[clouds.secondary]", "bucket = \"others\"\naccess_key_id_env = \"FILER_TEST_NOT_SET\"\nsecret_access_key_env = \"FILER_TEST_NOT_SET\"\n[clouds.secondary]")
        .replace("access_key_id = \"x\"", "access_key_id = \"x\"\nsecret_access_key_file = \"not-there\"")
        .replace("name = \"one\"\nbucket = \"files\"\naccess", "name = \"two\"\nbucket = \"files\"\naccess")
        .replace("[segments]\nseal_after = 5\nbytes_max = \"8 MiBB\"\n", "");
    fs::write(&path, named).unwrap();
    for command in [&["check-config", "--dir", dir], &["serve", "--dir", dir]] {
        let said = said(command).await.unwrap();
        assert_eq!(said.code, Some(2), "{command:?}: {said:?}");
        for (line, what) in [(6, "FILER_TEST_NOT_SET"), (7, "FILER_TEST_NOT_SET"), (13, "not-there")] {
            let told = said.err.lines().any(|told| told.contains(&format!("line {line}: ")) && told.contains(what));
            assert!(told, "{command:?} does not tell of {what} in line {line}:\n{}", said.err);
        }
    }
    let missing = folder.path().join("nothing");
    let said = said(["status", "--dir", missing.to_str().unwrap()]).await.unwrap();
    assert_eq!(said.code, Some(2), "a directory that is no site: {said:?}");
}

/// Tables or staging of another filer, or of a newer format, are refused with a sentence, and stay as they are.
#[tokio::test(flavor = "multi_thread")]
async fn directories_of_another_filer_or_a_newer_format_are_refused_untouched() {
    let folder = temp_dir("foreign").unwrap();
    let plan = Plan::new("foreign", directories(folder.path())).sites(&["ams", "nyc"]);
    let mut mesh = MeshOfFilers::start(plan).await.unwrap();
    mesh.sites[0].mount().await.unwrap().put("a", b"a").await.unwrap();
    mesh.until_all_well().await.unwrap();
    for site in &mut mesh.sites {
        assert!(site.stop().await.unwrap().success());
    }
    let [ams, nyc] = &mut mesh.sites[..] else { panic!("the plan has two sites") };
    let refused = async |site: &mut Site, untouched: &Path, words: &[&str]| {
        let before = bytes_below(untouched).unwrap();
        let (code, told) = site.start_in_vain().await.unwrap();
        assert_eq!(code, Some(1), "{told}");
        for word in words {
            assert!(told.contains(word), "not told: {word}\n{told}");
        }
        assert!(bytes_below(untouched).unwrap() == before, "{} was changed:\n{told}", untouched.display());
    };

    // Tables of nyc at ams.
    let (mine, aside) = (ams.dir().join("data/state"), folder.path().join("aside"));
    fs::rename(&mine, &aside).unwrap();
    fs::rename(nyc.dir().join("data/state"), &mine).unwrap();
    refused(ams, &mine, &["the tables belong to filer", nyc.filer_id().unwrap().trim_start_matches('0')]).await;
    fs::rename(&mine, nyc.dir().join("data/state")).unwrap();
    fs::rename(&aside, &mine).unwrap();

    // Staging of another filer, and of a newer format.
    let cloudfs = u64::from_str_radix(&ams.cloudfs().unwrap(), 16).unwrap();
    let segment = SegmentId { filer: FilerId(0x1234_5678), number: 1 << 32 };
    let staged = ams.dir().join(format!("data/segments/{:016x}-{:016x}.seg", segment.filer.0, segment.number));
    let segments = ams.dir().join("data/segments");
    fs::write(&staged, Header { cloudfs, segment }.to_bytes()).unwrap();
    refused(ams, &segments, &["belongs to filer 12345678", "nothing was changed"]).await;
    fs::remove_file(&staged).unwrap();
    let filer = FilerId(u64::from_str_radix(&ams.filer_id().unwrap(), 16).unwrap());
    let segment = SegmentId { filer, ..segment };
    let staged = segments.join(format!("{:016x}-{:016x}.seg", segment.filer.0, segment.number));
    let mut header = Header { cloudfs, segment }.to_bytes();
    header[6..8].copy_from_slice(&(SEGMENT_VERSION + 1).to_le_bytes());
    fs::write(&staged, header).unwrap();
    let version = format!("format version {}", SEGMENT_VERSION + 1);
    refused(ams, &segments, &[&version, "nothing was changed"]).await;
    fs::remove_file(&staged).unwrap();

    // Tables of a newer format.
    let kv = RocksKv::open(nyc.dir().join("data/state"), &RocksSettings::default()).unwrap();
    let mut batch = Batch::default();
    batch.put(META, b"format", 2u32.to_be_bytes().to_vec());
    kv.write(batch, Durability::Synced).await.unwrap();
    drop(kv);
    let tables = nyc.dir().join("data/state");
    refused(nyc, &tables, &["have format 2", "a newer filer wrote them"]).await;

    // With everything in its own place again, the filer that was refused serves what it had.
    ams.start().await.unwrap();
    let status = ams.status().await.unwrap();
    assert!(!status.has_majority, "nyc is away: {status:?}");
}

/// A filer that has served and finds none of its tables does not begin anew: with the names of its old segments it would
/// write over them in both clouds, and the first site would make a second CloudFS.
#[tokio::test(flavor = "multi_thread")]
async fn a_filer_whose_tables_are_gone_does_not_begin_anew() {
    let folder = temp_dir("gone").unwrap();
    let plan = Plan::new("gone", directories(folder.path())).sites(&["ams"]);
    let mut mesh = MeshOfFilers::start(plan).await.unwrap();
    let files = BTreeMap::from([("a".to_string(), b"the only copy".to_vec())]);
    mesh.sites[0].mount().await.unwrap().put("a", &files["a"]).await.unwrap();
    mesh.until_all_well().await.unwrap();
    let ams = &mut mesh.sites[0];
    assert!(ams.stop().await.unwrap().success());
    let (data, aside) = (ams.dir().join("data"), folder.path().join("aside"));
    fs::rename(&data, &aside).unwrap();
    let (code, told) = ams.start_in_vain().await.unwrap();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("though it has served before") && told.contains("filer peers remove ams"), "{told}");
    assert!(!data.join("state").exists(), "nothing is made in its place");
    let _ = fs::remove_dir_all(&data);
    fs::rename(&aside, &data).unwrap();
    ams.start().await.unwrap();
    mesh.prove(&contents(&files)).await.unwrap();
}

/// Ports that other programs have end the start before anything is opened, and are told all at once, each with its setting.
#[tokio::test(flavor = "multi_thread")]
async fn ports_that_are_taken_are_told_with_their_settings() {
    let folder = temp_dir("ports").unwrap();
    let plan = Plan::new("ports", directories(folder.path())).sites(&["ams"]);
    let mut mesh = MeshOfFilers::start(plan).await.unwrap();
    let ams = &mut mesh.sites[0];
    assert!(ams.stop().await.unwrap().success());
    let taken = (UdpSocket::bind(ams.mesh()).unwrap(), TcpListener::bind(ams.metrics()).unwrap());
    let (code, told) = ams.start_in_vain().await.unwrap();
    assert_eq!(code, Some(1), "{told}");
    for (setting, address) in [("mesh.listen", ams.mesh()), ("metrics.listen", ams.metrics())] {
        let words = format!("{setting} = \"{address}\" is in use: another program of this host");
        assert!(told.contains(&words), "not told: {words}\n{told}");
    }
    drop(taken);
    ams.start().await.unwrap();
}

/// A cloud that refuses the credentials is told of at once, with its name and why; the filer runs, the cloud trips like
/// any that fails, and what clients write is kept in the other one, and copied when the credentials are right.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_told_of_at_the_start_and_treated_as_a_failure() {
    let (clouds, folder) = (TwoClouds::start().await.unwrap(), temp_dir("credentials").unwrap());
    let [east, _] = clouds.places().unwrap();
    let (url, bucket) = (clouds.west.url(), clouds.west.bucket());
    let west = CloudPlace::s3_at(
        "west",
        &url,
        bucket,
        (tests::cloud::CloudProcess::ACCESS_KEY, "not the secret"),
        folder.path(),
    )
    .unwrap();
    let plan = Plan::new("credentials", [east, west]).sites(&["ams"]);
    let mut mesh = MeshOfFilers::start_filers(plan).await.unwrap();
    let log = fs::read_to_string(mesh.sites[0].log()).unwrap();
    let told = log.lines().find(|line| line.contains("the cloud does not take and give data")).unwrap_or_default();
    assert!(told.contains("west") && told.contains("ERROR") && told.contains("denied"), "{log}");

    let client = mesh.sites[0].mount().await.unwrap();
    let files = BTreeMap::from([("a".to_string(), b"kept in the other one".to_vec())]);
    client.put("a", &files["a"]).await.unwrap();
    let failed = |status: &::filer::admin::Status| {
        status.clouds[1].state == CloudState::Failed && status.staging.segments == 0 && status.clouds[1].missed_puts > 0
    };
    let status = mesh.sites[0].until("the cloud has failed", SOON, failed).await.unwrap();
    assert!(status.clouds[1].why.as_ref().is_some_and(|why| why.contains("denied")), "{:?}", status.clouds[1]);

    assert!(mesh.sites[0].stop().await.unwrap().success());
    fs::write(folder.path().join("west.secret"), tests::cloud::CloudProcess::SECRET_KEY).unwrap();
    mesh.sites[0].start().await.unwrap();
    mesh.prove(&contents(&files)).await.unwrap();
}
