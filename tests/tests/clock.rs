//! A filer's wall clock jumps, as when a time server corrects it or lies to it.

use std::collections::BTreeMap;
use tests::{
    mesh_of_filers::{MeshOfFilers, Plan, SOON, TwoClouds},
    nfs3::{Attr, Nfs3},
    proof::{contents, site_reads_right},
    wall_clock::WallClock,
};

/// How far it jumps, in seconds: as far as signatures of requests to S3 stay good.
const JUMP_S: i64 = 600;

async fn attr(client: &Nfs3, name: &str) -> Attr {
    client.walk(name).await.unwrap().1
}

/// Scene 13. One filer's clock jumps ahead, then back by twice that, in the middle of an outage too, and is behind when
/// the filer dies and starts again. No cloud trips for it, no file's change goes unseen, no name of a segment is used
/// twice, and everything that was acknowledged is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_moves_nothing_and_loses_nothing() {
    let mut clouds = TwoClouds::start().await.unwrap();
    let mut mesh = MeshOfFilers::start(Plan::new("clock", clouds.places().unwrap())).await.unwrap();
    let (at, other) = (1, 2);
    let folder = mesh.folder().to_path_buf();
    let clock = WallClock::of(&mut mesh.sites[at], &folder).unwrap();
    assert!(mesh.sites[at].stop().await.unwrap().success());
    mesh.sites[at].start().await.unwrap();
    mesh.until_all_well().await.unwrap();
    mesh.until_whole().await.unwrap();
    let epoch = mesh.epoch().await.unwrap();
    let (client, reader) = (mesh.sites[at].mount().await.unwrap(), mesh.sites[other].mount().await.unwrap());
    let mut files = BTreeMap::new();
    let mut written = vec![];
    let mut put = async |name: &str, data: &str| {
        client.put(name, data.as_bytes()).await.unwrap();
        files.insert(name.to_string(), data.as_bytes().to_vec());
        assert_eq!(reader.get(name).await.unwrap(), data.as_bytes(), "it is seen at another site at once");
        written.push(attr(&reader, name).await);
    };
    put("file", "before").await;
    clock.move_by(JUMP_S).unwrap();
    put("file", "ahead").await;
    clock.move_by(-JUMP_S).unwrap();
    put("file", "behind").await;
    put("other", "made behind").await;
    // The jump was real, but one clock alone brings the time at most five minutes ahead; and the record's times never run
    // back: a client that compares them sees every change.
    let mtimes: Vec<_> = written.iter().map(|attr| (attr.mtime.seconds, attr.mtime.nseconds)).collect();
    let ahead_s = i64::from(mtimes[1].0) - i64::from(mtimes[0].0);
    assert!((240..=360).contains(&ahead_s) && ahead_s < JUMP_S, "{mtimes:?}");
    assert!(mtimes.windows(2).all(|pair| pair[0] < pair[1]), "{mtimes:?}");
    mesh.until_all_well().await.unwrap();
    assert_eq!(mesh.epoch().await.unwrap(), epoch, "nothing moved");

    // Behind, in an outage: what is missed is on record, and its age is no nonsense.
    clouds.east.kill().unwrap();
    let client = mesh.sites[at].mount().await.unwrap();
    client.put("in the outage", b"in the outage").await.unwrap();
    files.insert("in the outage".into(), b"in the outage".to_vec());
    let missed = |status: &::filer::admin::Status| status.clouds[0].missed_puts > 0 && status.staging.segments == 0;
    mesh.until_all("the miss is on record", missed).await.unwrap();
    clock.move_by(JUMP_S).unwrap();
    client.put("ahead in the outage", b"ahead in the outage").await.unwrap();
    files.insert("ahead in the outage".into(), b"ahead in the outage".to_vec());
    clock.move_by(-JUMP_S).unwrap();
    mesh.sites[at].kill().unwrap();
    mesh.sites[at].start().await.unwrap();
    mesh.until_whole().await.unwrap();
    for site in &mesh.sites {
        site_reads_right(site, &contents(&files)).await.unwrap();
    }
    clouds.east.start_again().await.unwrap();
    mesh.prove(&contents(&files)).await.unwrap();
    mesh.sites[at].until("it can take another failure", SOON, |status| status.absorbs_failure).await.unwrap();
}
