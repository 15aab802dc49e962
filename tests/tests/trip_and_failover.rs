//! How many failures it takes, and what follows: one filer's trip moves the whole CloudFS, and it comes back.

use tests::{
    cloud::{Effect, Fault, On, Operation, Outcome, RemoteCloud},
    mesh_of_filers::{MeshOfFilers, Plan, SOON, TwoClouds, segment_puts},
    proof,
};

/// Failures that trip a cloud.
const LIMIT: u64 = 160;

const REFUSED: Effect = Effect::Status { status: 503, happened: false };

/// Attempts to put this segment, and how many of them failed.
async fn puts_of(cloud: &RemoteCloud, after: u64, key: &str) -> (u64, u64) {
    let log = cloud.log(after).await.unwrap();
    let puts: Vec<_> = segment_puts(&log).filter(|entry| entry.key == key).collect();
    let failed = puts.iter().filter(|entry| entry.outcome == Outcome::Answered(503)).count();
    (puts.len() as u64, failed as u64)
}

/// The number of the cloud's last request.
async fn mark(cloud: &RemoteCloud) -> u64 {
    cloud.counters().await.unwrap().requests
}

/// The counts are about one piece of data, and about consecutive failures: 159 and a success, or 80 on each of two
/// pieces, move nothing. 160 on one piece do: every filer is on the new epoch with the other cloud, the failed cloud is
/// sent nothing but probes, and when it answers it gets what it missed, and its role back.
#[tokio::test(flavor = "multi_thread")]
async fn exactly_160_failures_on_one_piece_move_the_cloudfs_and_it_comes_back() {
    let clouds = TwoClouds::start().await.unwrap();
    let mesh = MeshOfFilers::start(Plan::new("trip", clouds.places().unwrap())).await.unwrap();
    let (ams, east, west) = (&mesh.sites[0], clouds.east.remote(), clouds.west.remote());
    let client = ams.mount().await.unwrap();
    let mut files = std::collections::BTreeMap::new();
    let mut put = async |name: &str, data: &[u8]| {
        client.put(name, data).await.unwrap();
        files.insert(name.to_string(), data.to_vec());
    };
    let released = async || {
        ams.until("all is released", SOON, |status| status.staging.segments == 0).await.unwrap();
    };
    let epoch = mesh.epoch().await.unwrap();

    // 159, then a success.
    let before = mark(&east).await;
    east.add(&Fault::new(On::Put, REFUSED).prefix("segments/").times(LIMIT - 1)).await.unwrap();
    put("a", b"159 failures").await;
    released().await;
    let log = east.log(before).await.unwrap();
    let key = segment_puts(&log).next().unwrap().key.clone();
    assert_eq!(puts_of(&east, before, &key).await, (LIMIT, LIMIT - 1));
    assert_eq!(mesh.epoch().await.unwrap(), epoch, "a success ends the count");
    ams.until_logged(&["WARN", "the cloud is failing", "cloud=east", "failures=8", "trips_at=160"], SOON)
        .await
        .unwrap();
    ams.until_logged(&["INFO", "the cloud works again", "cloud=east"], SOON).await.unwrap();

    // 80 on one piece and 80 on another, at the same time.
    let number = u64::from_str_radix(key.rsplit_once('/').unwrap().1, 16).unwrap();
    let next = [1, 2].map(|n| format!("{}/{:016x}", key.rsplit_once('/').unwrap().0, number + n));
    let before = mark(&east).await;
    for key in &next {
        east.add(&Fault::new(On::Put, REFUSED).key(key).times(LIMIT / 2)).await.unwrap();
    }
    put("b", b"80 failures").await;
    let failing = |status: &::filer::admin::Status| {
        status.clouds[0].failing.is_some_and(|failing| failing.failures > 0 && failing.trips_at == LIMIT as u32)
    };
    ams.until("the segment is sealed and tried, and its failures are on show", SOON, failing).await.unwrap();
    put("c", b"80 more").await;
    released().await;
    for key in &next {
        assert_eq!(puts_of(&east, before, key).await, (LIMIT / 2 + 1, LIMIT / 2));
    }
    let log = east.log(before).await.unwrap();
    let first_end = segment_puts(&log).filter(|put| put.key == next[0]).last().unwrap().number;
    assert!(segment_puts(&log).find(|put| put.key == next[1]).unwrap().number < first_end, "both were tried at once");
    assert_eq!(mesh.epoch().await.unwrap(), epoch, "failures of different pieces do not add up");

    // 160 on one piece. Probes fail as well, so that the cloud stays away.
    let before = mark(&east).await;
    let probes = east.add(&Fault::new(On::Any, Effect::Denied).prefix("probes/")).await.unwrap();
    east.add(&Fault::new(On::Put, REFUSED).prefix("segments/").times(LIMIT)).await.unwrap();
    put("d", b"160 failures").await;
    mesh.until_all("west is active", |status| status.epoch == epoch + 1 && status.active == "west").await.unwrap();
    let log = east.log(before).await.unwrap();
    let key = segment_puts(&log).next().unwrap().key.clone();
    assert_eq!(puts_of(&east, before, &key).await.1, LIMIT);
    let decision = &ams.admin().decisions().await.unwrap()[0];
    assert!(decision.carried && decision.text.contains("160 consecutive failures"), "{decision:?}");
    assert_eq!((decision.filer.as_str(), decision.ballots.len()), ("ams", 3), "{decision:?}");
    let told =
        ["WARN", "roles of the clouds have changed", "by=ams", "cloud east has failed (160 consecutive failures"];
    for site in &mesh.sites {
        site.until_logged(&told, SOON).await.unwrap();
    }

    // While it is away, it is sent nothing but probes.
    let before = mark(&east).await;
    for site in &mesh.sites {
        let name = format!("from-{}", site.name());
        site.mount().await.unwrap().put(&name, name.as_bytes()).await.unwrap();
        files.insert(name.clone(), name.into_bytes());
        site.until("it is released without the failed cloud", SOON, |status| status.staging.segments == 0)
            .await
            .unwrap();
    }
    proof::site_reads_right(&mesh.sites[2], &proof::contents(&files)).await.unwrap();
    let log = east.log(before).await.unwrap();
    let others: Vec<_> = log.iter().filter(|entry| !entry.key.starts_with("probes/")).collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(!log.is_empty(), "a failed cloud is probed");
    let status = ams.status().await.unwrap();
    assert!(!status.absorbs_failure && status.clouds[0].missed_puts >= 4, "{status:?}");

    // When it answers again: what it missed is copied, and it is active again.
    let before = mark(&west).await;
    east.remove(probes).await.unwrap();
    mesh.until_all_well().await.unwrap();
    let rows = proof::clouds_hold_the_record(ams).await.unwrap();
    assert!(rows.len() >= 7, "{rows:?}");
    let wanted = proof::contents(&files);
    proof::each_cloud_is_enough(ams, &wanted).await.unwrap();
    for site in &mesh.sites {
        proof::site_reads_right(site, &wanted).await.unwrap();
    }
    let deletes = west.log(before).await.unwrap().iter().filter(|e| e.operation == Operation::Delete).count();
    assert_eq!(deletes, 0, "a resync takes nothing from the cloud that was right");
}
