//! Who may come in, what garbage does, and what an operator can tell a filer to do.

use anyhow::Result;
use mesh::{
    FilerId,
    clock::Clock,
    net::{MeshCa, identity},
};
use std::{collections::BTreeMap, fs, path::Path, time::Duration};
use tests::{
    mesh_of_filers::{CloudPlace, MeshOfFilers, Plan, SOON},
    process::temp_dir,
    proof::contents,
    sites::Site,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{Instant, sleep, timeout},
};

const DAY_NS: u64 = 86_400 * 1_000_000_000;

/// Two directories as clouds, below `folder`.
fn directories(folder: &Path) -> [CloudPlace; 2] {
    ["one", "two"].map(|name| {
        let place = folder.join(name);
        fs::create_dir_all(&place).expect("the folder is this test's own");
        CloudPlace::directory(&place)
    })
}

/// Waits until a number of a site's metrics page is at least so large.
async fn until_metric(site: &Site, name: &str, least: f64) -> Result<()> {
    let deadline = Instant::now() + SOON;
    loop {
        let value = site.metric(name).await?;
        if value >= least {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "{name} of {} is {value}, not {least}", site.name());
        sleep(Duration::from_millis(25)).await;
    }
}

/// A time at which certificates were signed that have ended by now.
struct TenDaysAgo;

impl Clock for TenDaysAgo {
    fn wall_ns(&self) -> u64 {
        filer::site::SystemClock.wall_ns() - 10 * DAY_NS
    }
}

/// Replaces a site's certificate by one that ended nine days ago.
fn make_expired(site: &Site, first: &Site) -> Result<()> {
    let folder = site.dir().join("identity");
    let csr = fs::read_to_string(site.dir().join(format!("{}.csr", site.name())))?;
    let id = FilerId(u64::from_str_radix(&site.filer_id()?, 16)?);
    let expired = MeshCa::load(&first.dir().join("authority"))?.sign(&csr, id, 1, &TenDaysAgo)?;
    Ok(fs::write(folder.join(identity::CERTIFICATE_FILE), expired)?)
}

/// A filer of another CloudFS, one whose certificate has expired and one that was removed are refused, counted and
/// logged; the mesh takes no notice of them.
#[tokio::test(flavor = "multi_thread")]
async fn foreign_expired_and_removed_filers_are_refused() {
    let folder = temp_dir("doors").unwrap();
    let mut mesh = MeshOfFilers::start(Plan::new("doors", directories(folder.path()))).await.unwrap();
    let refused = "filer_mesh_refused_certificates";

    // Of another CloudFS, told to find its peers here.
    let other = temp_dir("foreign").unwrap();
    let clouds = directories(other.path());
    let flags = [clouds[0].flag(), clouds[1].flag()];
    let mut eve = Site::first(other.path(), "eve", flags, &[]).await.unwrap();
    let paper = eve.dir().join("site.toml");
    let peer = format!(
        "\n[[peers]]\nid = \"{}\"\nname = \"ams\"\naddress = \"{}\"\n",
        mesh.sites[0].filer_id().unwrap(),
        mesh.sites[0].mesh()
    );
    let text = fs::read_to_string(&paper).unwrap().replace("first = true", "first = false").replace("peers = []\n", "");
    fs::write(&paper, text + &peer).unwrap();
    eve.start().await.unwrap();
    eve.until_logged(&["refused a peer's certificate", "oreign"], SOON).await.unwrap();
    assert!(!eve.status().await.unwrap().has_majority);
    eve.kill().unwrap();

    // Expired.
    let mut late = mesh.make("late").await.unwrap();
    make_expired(&late, &mesh.sites[0]).unwrap();
    let before = mesh.sites[0].metric(refused).await.unwrap();
    late.start().await.unwrap();
    mesh.sites[0].until_logged(&["refused a peer's certificate", "xpired"], SOON).await.unwrap();
    until_metric(&mesh.sites[0], refused, before + 1.0).await.unwrap();
    late.kill().unwrap();

    // Removed, by the operator at another site.
    let said = mesh.sites[0].command(&["peers", "remove", "nobody"]).await.unwrap();
    assert_eq!(said.code, Some(2), "{said:?}");
    let said = mesh.sites[0].command(&["peers", "remove", "sgp"]).await.unwrap().done().unwrap();
    assert!(said.out.contains("sgp") && said.out.contains("removed"), "{said:?}");
    let before = mesh.sites[0].metric(refused).await.unwrap();
    mesh.sites[2].kill().unwrap();
    mesh.sites[2].start().await.unwrap();
    until_metric(&mesh.sites[0], refused, before + 1.0).await.unwrap();
    mesh.sites[0].until_logged(&["refused a peer's certificate", "emoved"], SOON).await.unwrap();
    assert!(!mesh.sites[2].status().await.unwrap().has_majority);
    mesh.sites[2].kill().unwrap();

    let status = mesh.sites[1].status().await.unwrap();
    let mut names: Vec<_> = status.peers.iter().map(|peer| peer.name.as_str()).collect();
    names.sort();
    assert_eq!(names, ["ams", "nyc"]);
    let files = BTreeMap::from([("a".to_string(), b"two are a majority of two".to_vec())]);
    mesh.sites[0].mount().await.unwrap().put("a", &files["a"]).await.unwrap();
    mesh.prove(&contents(&files)).await.unwrap();
}

/// Whatever is sent to the NFS port and to the mesh's, the sender alone has the damage: its connection is closed and
/// counted, and clients and peers go on.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_nfs_and_quic_ports_harms_nobody_else() {
    let folder = temp_dir("garbage").unwrap();
    let plan = Plan::new("garbage", directories(folder.path())).sites(&["ams", "nyc"]);
    let mesh = MeshOfFilers::start(plan).await.unwrap();
    let (ams, nyc) = (&mesh.sites[0], &mesh.sites[1]);
    let (client, other) = (ams.mount().await.unwrap(), nyc.mount().await.unwrap());
    let mut files = BTreeMap::new();
    let noise: Vec<u8> = (0..4_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let sent: [(&str, &[u8]); 4] = [
        ("a record that is too long", &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
        ("a record that says nothing", &[0x80, 0, 0, 4, 1, 2, 3, 4]),
        ("another protocol", b"GET / HTTP/1.1\r\nHost: filer\r\n\r\n"),
        ("noise", &noise),
    ];
    for (at, (what, bytes)) in sent.into_iter().enumerate() {
        let mut stream = TcpStream::connect(ams.nfs()).await.unwrap();
        // The other end may hang up before all of it is sent.
        let _ = stream.write_all(bytes).await;
        let mut answer = vec![];
        let closed = timeout(SOON, stream.read_to_end(&mut answer)).await;
        assert!(closed.is_ok(), "{what}: the connection stays open");
        until_metric(ams, "filer_nfs_garbage_connections", at as f64 + 1.0).await.unwrap();
        let name = format!("behind {what}");
        client.put(&name, name.as_bytes()).await.unwrap();
        files.insert(name.clone(), name.into_bytes());
    }
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for (len, first) in [(1, 0x40), (20, 0xc0), (1_200, 0xff), (1_400, 0x00), (9_000, 0xc3)] {
        let mut datagram = noise[..len].to_vec();
        datagram[0] = first;
        for _ in 0..50 {
            socket.send_to(&datagram, ams.mesh()).await.unwrap();
        }
    }
    other.put("over the mesh", b"and back").await.unwrap();
    files.insert("over the mesh".into(), b"and back".to_vec());
    mesh.until_whole().await.unwrap();
    mesh.prove(&contents(&files)).await.unwrap();
    assert_eq!(mesh.epoch().await.unwrap(), 1);
}

/// An operator's commands, with the exit codes that scripts rely on: done, refused by the rules, no filer.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_moves_the_cloudfs_and_scripts_can_tell_what_happened() {
    let folder = temp_dir("operator").unwrap();
    let plan = Plan::new("operator", directories(folder.path())).sites(&["ams", "nyc"]);
    let mut mesh = MeshOfFilers::start(plan).await.unwrap();
    let [ams, nyc] = &mut mesh.sites[..] else { panic!("the plan has two sites") };
    let said = nyc.command(&["cloud", "list"]).await.unwrap().done().unwrap();
    assert!(said.out.contains('a') && said.out.contains('b') && said.out.contains("healthy"), "{said:?}");
    let said = nyc.command(&["cloud", "failback"]).await.unwrap();
    assert_eq!(said.code, Some(3), "it is active already: {said:?}");
    assert!(said.err.contains("active already"), "{said:?}");

    let said = nyc.command(&["cloud", "failover", "z"]).await.unwrap();
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("the clouds are a (a) and b (b)"), "{said:?}");
    let said = nyc.command(&["cloud", "failover", "a"]).await.unwrap();
    assert_eq!((said.code, said.err.contains("cloud a is active already")), (Some(3), true), "{said:?}");

    let said = nyc.command(&["cloud", "failover", "b"]).await.unwrap().done().unwrap();
    assert!(said.out.contains("cloud b is active") && said.out.contains("filer cloud failback"), "{said:?}");
    let said = nyc.command(&["cloud", "failover", "b"]).await.unwrap();
    assert_eq!(said.code, Some(3), "it does not move back: {said:?}");
    ams.until("the other cloud is active", SOON, |status| status.active == "b").await.unwrap();
    ams.until_logged(&["WARN", "by=nyc", "cloud b is active now (by operator)"], SOON).await.unwrap();
    // What an operator wanted stays, though the preferred one is healthy.
    ams.mount().await.unwrap().put("a", b"a").await.unwrap();
    let status = ams.until("it is released", SOON, |status| status.staging.segments == 0).await.unwrap();
    assert_eq!((status.active.as_str(), status.absorbs_failure), ("b", true));
    let said = ams.command(&["status", "--json"]).await.unwrap().done().unwrap();
    let told: ::filer::admin::Status = serde_json::from_str(&said.out).unwrap();
    assert_eq!((told.active.as_str(), told.decisions[0].filer.as_str()), ("b", "nyc"));
    let held: Vec<_> = told.clouds.iter().map(|cloud| (cloud.name.as_str(), cloud.held_by_operator)).collect();
    assert_eq!(held, [("a", false), ("b", true)]);
    let said = ams.command(&["cloud", "list"]).await.unwrap().done().unwrap();
    assert!(said.out.contains("held active by an operator"), "{said:?}");

    let said = ams.command(&["cloud", "failback"]).await.unwrap().done().unwrap();
    assert!(said.out.contains("cloud a is active") && !said.out.contains("by itself"), "{said:?}");
    nyc.until("the preferred cloud is active", SOON, |status| status.active == "a").await.unwrap();
    let said = ams.command(&["peers"]).await.unwrap().done().unwrap();
    assert!(said.out.contains("ams") && said.out.contains("nyc"), "{said:?}");
    assert!(nyc.stop().await.unwrap().success());
    for command in [&["status"][..], &["cloud", "failover", "b"], &["peers"]] {
        assert_eq!(nyc.command(command).await.unwrap().code, Some(4), "no filer answers {command:?}");
    }
    // Alone, ams has no majority: it is told so within its deadline, and nothing has changed.
    let said = ams.command(&["cloud", "failover", "b"]).await.unwrap();
    assert_eq!(said.code, Some(5), "{said:?}");
    assert_eq!(ams.status().await.unwrap().active, "a");
}
