//! Clouds that answer wrongly: receipts that prove nothing, answers that never come, bodies that are not what was put.

use std::{collections::BTreeMap, time::Duration};
use tests::{
    cloud::{Effect, Fault, On, Operation, Outcome},
    mesh_of_filers::{MeshOfFilers, Plan, SOON, TwoClouds, segment_puts},
    proof::contents,
};

/// Scenes 10 and 11, and the put that times out and still happens. Every wrong answer is a failure that is counted and
/// tried again; what is at last called safe is in both clouds, once and right.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_receipts_and_lost_answers_are_counted_and_nothing_is_lost() {
    let clouds = TwoClouds::start().await.unwrap();
    let [east_place, west_place] = clouds.places().unwrap();
    let quick = ["request_timeout", "time_per_mib"].into_iter().fold(east_place, |place, key| place.set(key, "500 ms"));
    let plan = Plan::new("receipts", [quick, west_place]).sites(&["ams"]);
    let mesh = MeshOfFilers::start(plan).await.unwrap();
    let (ams, east, west) = (&mesh.sites[0], clouds.east.remote(), clouds.west.remote());
    let client = ams.mount().await.unwrap();
    let mut files = BTreeMap::new();
    let mut put = async |name: &str| {
        let data = name.repeat(3_000).into_bytes();
        client.put(name, &data).await.unwrap();
        files.insert(name.to_string(), data);
        ams.until("it is released", SOON, |status| status.staging.segments == 0).await.unwrap();
    };
    let failures = async || ams.status().await.unwrap().clouds[0].failures_total;

    // A receipt for something else.
    east.add(&Fault::new(On::Put, Effect::WrongEtag).prefix("segments/").times(5)).await.unwrap();
    put("a wrong MD5").await;
    assert_eq!(failures().await, 5);

    // The answer is lost, the put has happened: it is tried again, and is there once.
    let effect = Effect::HangAfter { answer_after_ms: None };
    east.add(&Fault::new(On::Put, effect).prefix("segments/").times(2)).await.unwrap();
    put("an answer that never comes").await;
    assert_eq!(failures().await, 7);

    // The answer is lost, and the put happens when another has long been acknowledged.
    let effect = Effect::LatePut { store_after_ms: 1_500, status: None };
    east.add(&Fault::new(On::Put, effect).prefix("segments/").times(1)).await.unwrap();
    put("a put that is late").await;
    assert_eq!(failures().await, 8);

    // The connection breaks, before and after the put.
    for happened in [false, true] {
        east.add(&Fault::new(On::Put, Effect::Reset { happened }).prefix("segments/").times(3)).await.unwrap();
        put(&format!("a broken connection, {happened}")).await;
    }
    assert_eq!(failures().await, 14);

    // A receipt that is no MD5 at all: read back, and proved by that.
    let mark = west.counters().await.unwrap().requests;
    west.add(&Fault::new(On::Any, Effect::OpaqueEtag).prefix("segments/")).await.unwrap();
    put("no MD5 at all").await;
    let log = west.log(mark).await.unwrap();
    let (puts, key): (Vec<_>, _) = (segment_puts(&log).collect(), &segment_puts(&log).next().unwrap().key);
    assert_eq!(puts.len(), 1, "a receipt that proves nothing is no failure: {puts:?}");
    let read_back = |entry: &&tests::cloud::Entry| entry.operation == Operation::Get && entry.key == *key;
    let back = log.iter().find(read_back).expect("it was read back");
    assert!(matches!(back.outcome, Outcome::Answered(200 | 206)) && back.bytes == puts[0].bytes, "{back:?}");
    west.heal().await.unwrap();

    assert_eq!(mesh.epoch().await.unwrap(), 1, "none of it came near 160 failures on one piece");
    mesh.prove(&contents(&files)).await.unwrap();
}

/// Scene 10 for reads: a body that ends too early, or has one bit turned over, is never given to a client. It is counted
/// as a failure, tried again, and read from the other cloud when the active one keeps sending it; and the active one is
/// still used when it is right again.
#[tokio::test(flavor = "multi_thread")]
async fn broken_bodies_never_reach_a_client() {
    let clouds = TwoClouds::start().await.unwrap();
    let plan = Plan::new("bodies", clouds.places().unwrap()).sites(&["ams", "nyc"]).set("cache.read_ahead=0 B");
    let mesh = MeshOfFilers::start(plan).await.unwrap();
    let (ams, nyc, east) = (&mesh.sites[0], &mesh.sites[1], clouds.east.remote());
    let (client, reader) = (ams.mount().await.unwrap(), nyc.mount().await.unwrap());
    let mut files = BTreeMap::new();
    for n in 0..4u32 {
        let data: Vec<u8> = (0..200_000u32).map(|at| (at.wrapping_mul(2_654_435_761 + 2 * n) >> 11) as u8).collect();
        client.put(&format!("file-{n}"), &data).await.unwrap();
        files.insert(format!("file-{n}"), data);
        ams.until("it is released", SOON, |status| status.staging.segments == 0).await.unwrap();
    }
    let read = async |name: &str, fault: Effect, times: u64| {
        let before = nyc.status().await.unwrap();
        let id = east.add(&Fault::new(On::Get, fault.clone()).prefix("segments/").times(times)).await.unwrap();
        assert!(reader.get(name).await.unwrap() == files[name][..], "{name} is read right in spite of {fault:?}");
        // Where the fault has met its number of requests it is gone already.
        let _ = east.remove(id).await;
        let after = nyc.status().await.unwrap();
        (
            after.clouds[0].failures_total - before.clouds[0].failures_total,
            after.cache.fallback_reads - before.cache.fallback_reads,
        )
    };
    let (failed, fallbacks) = read("file-0", Effect::Truncate { keep_bytes: 1_000, honest: false }, 2).await;
    assert_eq!((failed, fallbacks), (2, 0), "two attempts, then a good one");
    let (failed, fallbacks) = read("file-1", Effect::FlipBit { bit: 77_777 }, 1).await;
    assert_eq!((failed, fallbacks), (1, 0));
    let (failed, fallbacks) = read("file-2", Effect::FlipBit { bit: 3 }, 20).await;
    assert!(
        failed >= 3 && fallbacks >= 1,
        "it was read from the other cloud: {failed} failures, {fallbacks} fallbacks"
    );
    let answered = |status: &::filer::admin::Status| status.clouds[0].failures_now == 0;
    nyc.until("the piece was read from the active cloud at last", SOON, answered).await.unwrap();
    let (failed, fallbacks) = read("file-3", Effect::Truncate { keep_bytes: 1_000, honest: true }, 2).await;
    assert_eq!((failed, fallbacks), (2, 0), "the active cloud is used again");
    assert_eq!(mesh.epoch().await.unwrap(), 1);
    nyc.until("nothing is wrong", Duration::from_secs(1) + SOON, |status| status.absorbs_failure).await.unwrap();
    mesh.prove(&contents(&files)).await.unwrap();
}
