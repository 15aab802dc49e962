//! What arrives late: filers that were away, puts of an epoch that is over.

use std::collections::BTreeMap;
use storage::cloudfs::CloudState;
use tests::{
    cloud::{Effect, Fault, On},
    mesh_of_filers::{MeshOfFilers, Plan, SOON, TwoClouds},
    proof::contents,
};

/// A filer that is killed in the middle of a resync comes back with the missed-write log of that moment. By then another
/// filer has drained it, and some of it is deleted again: it must not copy that, since nobody would ever delete it.
#[tokio::test(flavor = "multi_thread")]
async fn a_filer_that_was_away_copies_nothing_that_is_gone_by_now() {
    let mut clouds = TwoClouds::start().await.unwrap();
    let mut mesh = MeshOfFilers::start(Plan::new("late", clouds.places().unwrap())).await.unwrap();
    let mut files = BTreeMap::from([("kept".to_string(), b"kept".to_vec())]);
    let client = mesh.sites[0].mount().await.unwrap();
    client.put("kept", b"kept").await.unwrap();
    clouds.east.kill().unwrap();
    let names: Vec<_> = (0..40).map(|n| format!("file-{n}")).collect();
    for name in &names {
        mesh.sites[2].mount().await.unwrap().put(name, name.as_bytes()).await.unwrap();
    }
    let missed = |status: &::filer::admin::Status| status.clouds[0].missed_puts > 0 && status.staging.segments == 0;
    mesh.sites[2].until("its data is on record as missed", SOON, missed).await.unwrap();

    let prefix = format!("segments/{}/", mesh.sites[2].filer_id().unwrap());
    let refused = Effect::Status { status: 503, happened: false };
    clouds.east.start_again_with(&[Fault::new(On::Put, refused).prefix(prefix)]).await.unwrap();
    let east = clouds.east.remote();
    let resyncing = |status: &::filer::admin::Status| status.clouds[0].state == CloudState::Resyncing;
    mesh.sites[2].until("it resyncs", SOON, resyncing).await.unwrap();
    mesh.sites[2].kill().unwrap();
    east.heal().await.unwrap();
    mesh.until_all_well().await.unwrap();
    for name in &names {
        let (dir, _) = client.walk("").await.unwrap();
        client.remove(&dir, name).await.unwrap();
    }
    mesh.until_swept().await.unwrap();

    mesh.sites[2].start().await.unwrap();
    mesh.until_whole().await.unwrap();
    client.put("later", b"later").await.unwrap();
    files.insert("later".into(), b"later".to_vec());
    mesh.prove(&contents(&files)).await.unwrap();
}

/// Scene 4. A put whose answer was lost is carried out by the cloud when that has failed, the CloudFS has moved, and the
/// segment is deleted: it counts for nothing, and when the cloud is back nothing is left of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_put_of_the_old_epoch_that_arrives_late_leaves_no_litter() {
    let clouds = TwoClouds::start().await.unwrap();
    let [east, west] = clouds.places().unwrap();
    let places = [east.set("request_timeout", "500 ms"), west];
    let mesh = MeshOfFilers::start(Plan::new("old", places)).await.unwrap();
    let east = clouds.east.remote();
    let client = mesh.sites[0].mount().await.unwrap();
    let (refused, late) =
        (Effect::Status { status: 503, happened: false }, Effect::LatePut { store_after_ms: 6_000, status: Some(503) });
    east.add(&Fault::new(On::Put, late).prefix("segments/").times(1)).await.unwrap();
    east.add(&Fault::new(On::Any, refused)).await.unwrap();
    client.put("gone", b"deleted while its put is still under way").await.unwrap();
    let moved = |status: &::filer::admin::Status| status.active == "west" && status.staging.segments == 0;
    mesh.until_all("the CloudFS has moved, and the segment is released", moved).await.unwrap();
    let segments = mesh.sites[0].segments().await.unwrap();
    assert_eq!(segments.len(), 1);
    assert_eq!((&segments[0].stored[..], &segments[0].missed[..]), (&["west".into()][..], &["east".into()][..]));
    client.put("kept", b"kept").await.unwrap();
    let (dir, _) = client.walk("").await.unwrap();
    client.remove(&dir, "gone").await.unwrap();

    let key = segments[0].key.clone();
    let bucket = clouds.east.bucket();
    let deadline = tokio::time::Instant::now() + SOON;
    while east.objects(bucket, &key).await.unwrap().is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "the late put never happens");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let row = mesh.sites[1].segments().await.unwrap().into_iter().find(|row| row.key == key);
    assert!(row.is_none_or(|row| row.stored == ["west"]), "it counts for nothing");
    east.heal().await.unwrap();
    mesh.prove(&contents(&BTreeMap::from([("kept".to_string(), b"kept".to_vec())]))).await.unwrap();
    assert!(east.objects(bucket, &key).await.unwrap().is_empty());
}
