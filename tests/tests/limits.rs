//! A full staging disk, and clouds that answer too slowly or not at all.

use std::{collections::BTreeMap, time::Duration};
use storage::cloudfs::CloudState;
use tests::{
    cloud::{Effect, Fault, On, Outcome},
    mesh_of_filers::{MeshOfFilers, Plan, SOON, TwoClouds, segment_puts},
    nfs3::{Nfs3, Options},
    proof::contents,
};
use tokio::time::Instant;

/// Bytes that do not compress.
fn noise(seed: u64, len: u64) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    (0..len / 32).flat_map(|block| Sha256::digest((seed << 32 | block).to_le_bytes())).collect()
}

/// With both clouds refusing everything, staging fills up to its limit. Then writers wait, and are told to come back
/// later; what was acknowledged before is there, is read meanwhile, and reaches both clouds when they take data again.
#[tokio::test(flavor = "multi_thread")]
async fn when_staging_is_full_writers_wait_and_nothing_acknowledged_is_lost() {
    let clouds = TwoClouds::start().await.unwrap();
    let plan = Plan::new("full", clouds.places().unwrap())
        .sites(&["ams"])
        .set("staging.bytes_max=16 MiB")
        .set("staging.wait_max=500 ms")
        .set("segments.bytes_max=1 MiB")
        .set("segments.frame_bytes_max=256 KiB");
    let mesh = MeshOfFilers::start(plan).await.unwrap();
    let ams = &mesh.sites[0];
    for cloud in [&clouds.east, &clouds.west] {
        cloud.remote().add(&Fault::new(On::Any, Effect::Status { status: 503, happened: false })).await.unwrap();
    }
    let impatient = Options { call_within: Duration::from_secs(3), ..Options::new(ams.nfs()) };
    let client = Nfs3::mount(impatient).await.unwrap();
    let mut files = BTreeMap::new();
    let refused = loop {
        let name = format!("file-{}", files.len());
        let data = noise(files.len() as u64, 700_000);
        match client.put(&name, &data).await {
            Ok(()) => files.insert(name, data),
            Err(error) => break (name, error),
        };
        assert!(files.len() < 100, "16 MiB of staging hold no more than that");
    };
    assert!(files.len() >= 10, "{} files fit: {}", files.len(), refused.1);
    // Until it gave up the client was told to come back later, again and again.
    assert!(refused.1.to_string().contains("no result within"), "{}", refused.1);
    assert!(
        ams.metric("filer_nfs_errors").await.unwrap() >= 2.0 && client.calls().retries >= 2,
        "{:?}",
        client.calls()
    );
    for (name, data) in &files {
        assert!(client.get(name).await.unwrap() == data[..], "{name} is read while staging is full");
    }
    let staging = ams.status().await.unwrap().staging;
    assert!(staging.bytes <= staging.bytes_max && staging.oldest_unprotected_ms.is_some(), "{staging:?}");

    for cloud in [&clouds.east, &clouds.west] {
        cloud.remote().heal().await.unwrap();
    }
    // The writer that was turned away comes back. Its last call may still be waiting for room, and would be carried out
    // in the midst of this: with its file gone it finds nothing to write to.
    let patient = ams.mount().await.unwrap();
    patient.remove(&patient.root(), &refused.0).await.unwrap();
    patient.put(&refused.0, b"now there is room").await.unwrap();
    files.insert(refused.0, b"now there is room".to_vec());
    mesh.prove(&contents(&files)).await.unwrap();
}

/// A cloud whose every answer is slow for long enough fails like one that gives errors, stays so while its probes are
/// slow, and comes back when it is quick again.
#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_that_answers_too_slowly_for_too_long_trips() {
    let clouds = TwoClouds::start().await.unwrap();
    let plan = Plan::new("slow", clouds.places().unwrap())
        .set("health.brown_out_latency=400 ms")
        .set("health.brown_out_after=1500 ms");
    let mesh = MeshOfFilers::start(plan).await.unwrap();
    let (ams, east) = (&mesh.sites[0], clouds.east.remote());
    let epoch = mesh.epoch().await.unwrap();
    let client = ams.mount().await.unwrap();
    let mut files = BTreeMap::new();
    east.add(&Fault::new(On::Any, Effect::Slowly).delay_ms(500)).await.unwrap();
    let deadline = Instant::now() + SOON;
    while ams.status().await.unwrap().epoch == epoch {
        assert!(Instant::now() < deadline, "not tripped within {SOON:?}");
        let name = format!("file-{}", files.len());
        client.put(&name, name.as_bytes()).await.unwrap();
        files.insert(name.clone(), name.into_bytes());
        ams.until("it is released", SOON, |status| status.staging.segments == 0).await.unwrap();
    }
    let failed =
        |status: &::filer::admin::Status| status.active == "west" && status.clouds[0].state == CloudState::Failed;
    mesh.until_all("the CloudFS has moved", failed).await.unwrap();
    let decision = &ams.admin().decisions().await.unwrap()[0];
    assert!(decision.text.contains("more than 400 ms"), "{decision:?}");

    // Its probes succeed, but slowly: it is not taken back for that.
    let counted = east.counters().await.unwrap().requests;
    let probed = Instant::now() + SOON;
    while east.counters().await.unwrap().requests < counted + 12 {
        assert!(Instant::now() < probed, "a failed cloud is probed");
        let status = ams.status().await.unwrap();
        assert_eq!((status.epoch, status.clouds[0].state), (epoch + 1, CloudState::Failed), "{status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    east.heal().await.unwrap();
    mesh.prove(&contents(&files)).await.unwrap();
}

/// Scene 9 without any answer. A cloud that takes every request and answers none gives no error of its own, so that 160 of
/// them would take for ever: it trips for being slow, long before the count. Clients hear nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_that_never_answers_trips_long_before_the_count() {
    let clouds = TwoClouds::start().await.unwrap();
    let [east, west] = clouds.places().unwrap();
    let impatient = east.set("request_timeout", "1 s");
    let plan =
        Plan::new("silent", [impatient, west]).set("health.brown_out_latency=500 ms").set("health.brown_out_after=3 s");
    let mesh = MeshOfFilers::start(plan).await.unwrap();
    let (ams, nyc, east) = (&mesh.sites[0], &mesh.sites[1], clouds.east.remote());
    let client = ams.mount().await.unwrap();
    let mut files = BTreeMap::new();
    let mut put = async |name: &str| {
        client.put(name, name.as_bytes()).await.unwrap();
        files.insert(name.to_string(), name.as_bytes().to_vec());
    };
    put("before").await;
    mesh.until_all_well().await.unwrap();
    let (epoch, mark) = (mesh.epoch().await.unwrap(), east.counters().await.unwrap().requests);

    east.add(&Fault::new(On::Any, Effect::HangBefore)).await.unwrap();
    put("written meanwhile").await;
    // Not in any cache of this site: its cloud does not answer, the other one does.
    assert_eq!(nyc.mount().await.unwrap().get("before").await.unwrap(), b"before"[..]);
    let failed = |status: &::filer::admin::Status| {
        status.epoch == epoch + 1 && status.active == "west" && status.clouds[0].state == CloudState::Failed
    };
    mesh.until_all("the CloudFS has moved", failed).await.unwrap();
    let decision = &ams.admin().decisions().await.unwrap()[0];
    assert!(decision.carried && decision.text.contains("more than 500 ms"), "{decision:?}");
    let mut attempts = BTreeMap::<_, u32>::new();
    for put in segment_puts(&east.log(mark).await.unwrap()) {
        assert!(matches!(put.outcome, Outcome::Abandoned | Outcome::UnderWay), "{put:?}");
        *attempts.entry(put.key.clone()).or_default() += 1;
    }
    assert!(attempts.values().all(|attempts| *attempts < 80), "a piece was tried too often: {attempts:?}");
    put("written in the outage").await;
    let logged = |status: &::filer::admin::Status| status.clouds[0].missed_puts == 2 && status.staging.segments == 0;
    ams.until("what it lacks is on record", SOON, logged).await.unwrap();

    // Its probes have no answer either: it stays failed.
    let (probed, deadline) = (east.counters().await.unwrap().requests + 6, Instant::now() + SOON);
    while east.counters().await.unwrap().requests < probed {
        assert!(Instant::now() < deadline, "a failed cloud is probed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(failed(&ams.status().await.unwrap()));
    east.heal().await.unwrap();
    mesh.prove(&contents(&files)).await.unwrap();
}
