//! A site is made with all it needs, or nothing is written; its settings are checked.

use super::{Desk, filer, mode};
use crate::cli::{Serve, site_of};
use mesh::net::Identity;
use std::path::Path;
use storage::clouds::CloudSettings;

#[test]
fn the_first_site_has_all_it_needs_and_is_never_overwritten() {
    let desk = Desk::new();
    let dir = desk.site("ams");
    let (code, said) = filer(&[
        "init",
        "ams",
        "--dir",
        &desk.path("ams"),
        "--set",
        "segments.seal_after=250 ms",
        "--set",
        "health.failures_to_trip=5",
        "--metrics",
        "off",
    ]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("filer serve --dir"), "{said}");

    let site = dir.site().unwrap();
    assert!(site.first && site.cloudfs != 0 && site.peers.is_empty());
    assert!((1..=u64::from(u32::MAX)).contains(&site.filer.0));
    let identity = Identity::load(&dir.identity()).unwrap();
    assert_eq!((identity.id(), identity.name(), identity.cloudfs()), (site.filer, "ams", site.cloudfs_text().as_str()));
    let (config, _) = site_of(&Serve { dir: None, config: Some(dir.config_path()) }).unwrap();
    assert_eq!((config.segments.seal_after_ms, config.health.failures_to_trip, config.metrics.listen), (250, 5, None));
    for entry in [&config.clouds.primary, &config.clouds.secondary] {
        let CloudSettings::Directory(directory) = &entry.settings else { panic!("a directory") };
        assert_eq!(mode(&directory.path), 0o700);
    }
    for folder in [dir.root(), &dir.identity(), &dir.authority(), &config.data_dir] {
        assert_eq!(mode(folder), 0o700, "{}", folder.display());
    }
    for file in [dir.config_path(), dir.site_path(), dir.identity().join("filer.key"), dir.authority().join("ca.key")] {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }

    let before = std::fs::read_to_string(dir.config_path()).unwrap();
    assert!(
        before.contains("\nseal_after = \"250 ms\"\n") && before.contains("\n#bytes_max = \"8 MiB\"\n"),
        "{before}"
    );
    for line in [&["init", "ams", "--dir"][..], &["init", "lon", "--join", "--dir"]] {
        let (code, said) = filer(&[line, &[&desk.path("ams")]].concat());
        assert!(code == 3 && said.contains("nothing is overwritten"), "{code} {said}");
    }
    assert_eq!(std::fs::read_to_string(dir.config_path()).unwrap(), before);
    let (code, said) = filer(&["check-config", "--dir", &desk.path("ams")]);
    assert!(code == 0 && said.contains("is good: filer ams, clouds a"), "{code} {said}");
}

#[test]
fn wrong_settings_write_nothing() {
    let desk = Desk::new();
    let d = desk.path("x");
    for (line, part) in [
        (&["init", "a/b", "--dir", &d][..], "cannot name a filer"),
        (&["init", "ams", "--dir", &d, "--set", "segments.seal_after=1"], "has no unit"),
        (&["init", "ams", "--dir", &d, "--set", "segments.seal_afer=1 s"], "did you mean seal_after?"),
        (&["init", "ams", "--dir", &d, "--set", "seal_after"], "has no ="),
        (&["init", "ams", "--dir", &d, "--set", "name=lon"], "a site has one name"),
        (&["init", "ams", "--dir", &d, "--set", "name.x=1"], "name is a setting and no section"),
        (&["init", "ams", "--dir", &d, "--listen", "0.0.0.0:7400"], "mesh.advertise is missing"),
        (&["init", "ams", "--dir", &d, "--cloud-a", "dir:/c", "--cloud-b", "dir:/c"], "one failure would take both"),
        (&["init", "ams", "--dir", &d, "--cloud-a", "ftp://x", "--cloud-b", "dir:/c"], "is of no known kind"),
        (&["init", "ams", "--dir", &d, "--cloud-a", "azure://acc", "--cloud-b", "dir:/c"], "names no container"),
        (&["init", "ams", "--dir", &d, "--cloud-a", "s3://files", "--cloud-b", "dir:/c"], "has no credentials"),
        (
            &["init", "ams", "--dir", &d, "--cloud-a", "s3://My Files?machine_role=true", "--cloud-b", "dir:/c"],
            "clouds.primary.bucket \"My Files\" has a sign or a space that no name has",
        ),
        (
            &["init", "ams", "--dir", &d, "--cloud-a", "dir:/c", "--cloud-b", "azure://acc/Files?machine_role=true"],
            "clouds.secondary.container \"Files\" cannot name a container; use 3 to 63 lower-case letters",
        ),
    ] {
        let (code, said) = filer(line);
        assert!(code == 2 && said.contains(part), "{line:?}: {code} {said}");
        assert!(!said.contains("filer.toml"), "there is none yet: {said}");
        assert!(!Path::new(&d).exists(), "{line:?}");
    }
}

/// Whoever lists the processes of a machine reads their command lines, and shells keep them.
#[test]
fn a_secret_in_the_place_of_a_cloud_is_refused_and_not_repeated() {
    let desk = Desk::new();
    let d = desk.path("x");
    for (cloud, part, advice) in [
        ("s3://AKIA:hush@files/prefix", "user:password@ before its place", "secret_access_key_env=NAME"),
        ("s3://AKIA:hush/and@files", "user:password@ before its place", "secret_access_key_env=NAME"),
        (
            "s3://files?access_key_id=id&secret_access_key=hush",
            "secret_access_key=.. behind",
            "secret_access_key_env=NAME",
        ),
        ("s3://files?region=x&session_token=hush", "session_token=.. behind", "secret_access_key_env=NAME"),
        (
            "s3://files?endpoint=https%3A%2F%2Fid%3Ahush%40host",
            "user:password@ in endpoint",
            "secret_access_key_env=NAME",
        ),
        ("azure://account/files?sv=2024&sig=hush", "sig=.. behind", "access_key_env=NAME (or sas_env=NAME)"),
        ("azure://account/files?sas=hush", "sas=.. behind", "access_key_env=NAME (or sas_env=NAME)"),
        ("gs://files?key=hush", "key=.. behind", "service_account_path=FILE"),
        ("https://id:hush@host/files", "user:password@ before its place", "environment variables"),
        ("AKIA:hush@files", "user:password@ before its place", "environment variables"),
        (
            "azure://DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=hush==",
            "a connection string",
            "access_key_env=NAME (or sas_env=NAME)",
        ),
        ("AccountName=acc;AccountKey=hush==", "a connection string", "environment variables"),
        (
            "BlobEndpoint=https://acc.blob.core.windows.net/;SharedAccessSignature=sv=2024&sig=hush",
            "a connection string",
            "environment variables",
        ),
    ] {
        for (flag, other) in [("--cloud-a", "--cloud-b"), ("--cloud-b", "--cloud-a")] {
            let (code, said) = filer(&["init", "ams", "--dir", &d, flag, cloud, other, "dir:/c"]);
            assert!(code == 2 && said.contains(flag) && said.contains(part) && said.contains(advice), "{code} {said}");
            assert!(!said.contains("hush") && !Path::new(&d).exists(), "{said}");
        }
    }
}

#[test]
fn a_secret_among_settings_of_the_command_line_is_refused_and_not_repeated() {
    let desk = Desk::new();
    let d = desk.path("x");
    for (set, secret) in [
        ("clouds.primary.secret_access_key=hush", "clouds.primary.secret_access_key"),
        ("clouds.primary.session_token = hush", "clouds.primary.session_token"),
        ("clouds.secondary.access_key=\"hush\"", "clouds.secondary.access_key"),
        ("clouds.secondary={ kind = \"azure\", sas = \"hush\" }", "clouds.secondary.sas"),
        ("clouds={ secondary = { access_key = \"hush\" } }", "clouds.secondary.access_key"),
    ] {
        let (code, said) = filer(&["init", "ams", "--dir", &d, "--set", set]);
        let is_told =
            said.contains(&format!("--set gives {secret}, which is a secret")) && said.contains("(.._env=NAME)");
        assert!(code == 2 && is_told && !said.contains("hush"), "{set}: {code} {said}");
        assert!(!Path::new(&d).exists(), "{set}");
    }
    // What says where a secret is may be set.
    let (first, second) = ("s3://files?access_key_id_env=ID", format!("dir:{}", desk.path("store")));
    let line = ["init", "ams", "--dir", &d, "--cloud-a", first, "--cloud-b", &second];
    let more = ["--set", "clouds.primary.secret_access_key_env=KEY", "--set", "admin.token_file=admin.token"];
    let (code, said) = filer(&[&line[..], &more].concat());
    assert_eq!(code, 0, "{said}");
}

#[test]
fn every_environment_variable_that_a_cloud_lacks_is_listed() {
    let desk = Desk::new();
    let d = desk.path("ams");
    let first = "s3://files?access_key_id_env=FILERMESH_NO_ID&secret_access_key_env=FILERMESH_NO_SECRET";
    let second = "azure://account/files?access_key_env=FILERMESH_NO_KEY";
    assert_eq!(filer(&["init", "ams", "--dir", &d, "--cloud-a", first, "--cloud-b", second]).0, 0);
    let (code, said) = filer(&["check-config", "--dir", &d]);
    let names = ["FILERMESH_NO_ID", "FILERMESH_NO_SECRET", "FILERMESH_NO_KEY"];
    assert!(code == 2 && said.contains("3 problems") && names.iter().all(|name| said.contains(name)), "{code} {said}");
}

#[test]
fn clouds_are_read_from_the_command_line() {
    let desk = Desk::new();
    let (code, said) = filer(&[
        "init",
        "ams",
        "--dir",
        &desk.path("ams"),
        "--cloud-a",
        "s3://files/deep/prefix?region=eu-west-1&endpoint=http://127.0.0.1:9000&allow_http=true&access_key_id=12345&secret_access_key_env=KEY&name=big%20one",
        "--cloud-b",
        "azure://account/container?access_key_env=AZURE",
    ]);
    assert_eq!(code, 0, "{said}");
    let config = desk.site("ams").config().unwrap();
    let CloudSettings::S3(s3) = &config.clouds.primary.settings else { panic!("S3") };
    assert_eq!((s3.bucket.as_str(), s3.prefix.as_str(), s3.region.as_str()), ("files", "deep/prefix", "eu-west-1"));
    assert_eq!((s3.access_key_id.as_deref(), s3.allow_http), (Some("12345"), true));
    assert_eq!((config.clouds.primary.name.as_str(), config.clouds.secondary.name.as_str()), ("big one", "b"));
    assert!(matches!(&config.clouds.secondary.settings, CloudSettings::Azure(azure) if azure.container == "container"));
}

#[test]
fn checking_the_settings_makes_nothing() {
    let desk = Desk::new();
    assert_eq!(filer(&["init", "ams", "--dir", &desk.path("ams")]).0, 0);
    let everything = || {
        let mut seen = vec![];
        let mut folders = vec![desk.0.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
                seen.push((entry.path(), entry.metadata().unwrap().modified().unwrap()));
            }
        }
        seen.sort();
        seen
    };
    let before = everything();
    assert_eq!(filer(&["check-config", "--dir", &desk.path("ams")]).0, 0);
    assert_eq!(everything(), before);
}
