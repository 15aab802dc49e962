//! An error that nobody has seen before is treated as the known ones are.

use std::collections::BTreeMap;
use storage::cloudfs::CloudState;
use tests::{
    cloud::{Effect, Fault, On, Outcome},
    mesh_of_filers::{MeshOfFilers, Plan, SOON, TwoClouds, segment_puts},
    proof::{contents, site_reads_right},
};
use tokio::time::{Instant, sleep};

/// A status that no store gives.
const UNFORESEEN: u16 = 418;

/// Failures that trip a cloud.
const LIMIT: usize = 160;

/// Probes of a failed cloud, at least: several of each filer.
const PROBES: u64 = 12;

/// Scene 7, for the active cloud and then for the standby. Every call of one cloud is answered with a status that no store
/// gives. The call is tried again and again, the status is shown, nothing is released meanwhile or skipped, the cloud
/// trips by count and not before, stays failed while its probes are answered so, and has everything when it is well.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_nobody_has_seen_before_is_retried_shown_and_never_skipped() {
    let clouds = TwoClouds::start().await.unwrap();
    let mesh = MeshOfFilers::start(Plan::new("unforeseen", clouds.places().unwrap())).await.unwrap();
    let ams = &mesh.sites[0];
    let client = ams.mount().await.unwrap();
    let mut files = BTreeMap::new();
    for (at, cloud) in [&clouds.east, &clouds.west].into_iter().enumerate() {
        let name = ["east", "west"][at];
        let mut put = async |what: &str| {
            let path = format!("{what}, {name}");
            client.put(&path, path.as_bytes()).await.unwrap();
            files.insert(path.clone(), path.into_bytes());
        };
        for what in ["kept", "deleted"] {
            put(what).await;
            ams.until("it is released", SOON, |status| status.staging.segments == 0).await.unwrap();
        }
        mesh.until_all_well().await.unwrap();
        let (epoch, before) = (mesh.epoch().await.unwrap(), cloud.remote().counters().await.unwrap().requests);

        let effect = Effect::Status { status: UNFORESEEN, happened: false };
        cloud.remote().add(&Fault::new(On::Any, effect)).await.unwrap();
        put("written meanwhile").await;
        let shown = |status: &::filer::admin::Status| {
            let cloud = &status.clouds[at];
            cloud.failures_total > 0 && cloud.why.as_ref().is_some_and(|why| why.contains(&UNFORESEEN.to_string()))
        };
        ams.until("the status is shown", SOON, shown).await.unwrap();

        let failed = |status: &::filer::admin::Status| {
            let cloud = &status.clouds[at];
            status.epoch == epoch + 1 && cloud.state == CloudState::Failed && status.active != name
        };
        mesh.until_all("the cloud has tripped", failed).await.unwrap();
        let decision = &ams.admin().decisions().await.unwrap()[0];
        let words = ["160 consecutive failures", &UNFORESEEN.to_string()];
        assert!(decision.carried && words.iter().all(|word| decision.text.contains(word)), "{decision:?}");
        let log = cloud.remote().log(before).await.unwrap();
        let key = &segment_puts(&log).next().expect("it was tried").key;
        let puts: Vec<_> = segment_puts(&log).filter(|put| put.key == *key).map(|put| put.outcome).collect();
        // Further ones may be made while the mesh decides.
        assert!(puts.len() >= LIMIT, "{} attempts were counted as {LIMIT}", puts.len());
        assert_eq!(puts, vec![Outcome::Answered(UNFORESEEN); puts.len()], "none was skipped");

        let logged =
            |status: &::filer::admin::Status| status.clouds[at].missed_puts == 1 && status.staging.segments == 0;
        ams.until("what it lacks is on record", SOON, logged).await.unwrap();
        let (dir, _) = client.walk("").await.unwrap();
        client.remove(&dir, &format!("deleted, {name}")).await.unwrap();
        files.remove(&format!("deleted, {name}"));
        let logged = |status: &::filer::admin::Status| status.clouds[at].missed_deletes == 1;
        ams.until("a delete that it misses is on record too", SOON, logged).await.unwrap();
        for site in &mesh.sites {
            site_reads_right(site, &contents(&files)).await.unwrap();
        }
        let (probed, deadline) = (cloud.remote().counters().await.unwrap().requests + PROBES, Instant::now() + SOON);
        while cloud.remote().counters().await.unwrap().requests < probed {
            assert!(Instant::now() < deadline, "a failed cloud is probed, whatever it answers");
            sleep(std::time::Duration::from_millis(50)).await;
        }
        let status = ams.status().await.unwrap();
        assert!(failed(&status) && !status.absorbs_failure && shown(&status), "{status:?}");
        assert!(status.tasks.iter().all(|task| task.state == "running"), "{:?}", status.tasks);

        cloud.remote().heal().await.unwrap();
        mesh.prove(&contents(&files)).await.unwrap();
        ams.until("it can take another failure", SOON, |status| status.absorbs_failure).await.unwrap();
    }
}
