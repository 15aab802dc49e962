//! A resync that is cut short: the filer that leads dies in the middle of it, and the cloud fails again in the middle of it.

use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use storage::cloudfs::CloudState;
use tests::{
    cloud::Outcome,
    mesh_of_filers::{MeshOfFilers, Plan, SOON, TwoClouds, held, segment_puts},
    proof::{contents, site_reads_right},
    sites::Site,
};

/// Files of each site before the failure, and in the outage.
const FILES: usize = 4;

/// Puts that a held resync lets through.
const THROUGH: u64 = 3;

/// What must be there, by path.
type Files = BTreeMap<String, Vec<u8>>;

/// Writes a file at this site, into a segment that no other file is in.
async fn put(site: &Site, name: &str, files: &mut Files) -> Result<()> {
    let data = format!("{name}, written at {}\n", site.name()).repeat(500).into_bytes();
    site.mount().await?.put(name, &data).await?;
    files.insert(name.into(), data);
    site.until("it is released", SOON, |status| status.staging.segments == 0).await.map(drop)
}

async fn remove(site: &Site, name: &str, files: &mut Files) -> Result<()> {
    let client = site.mount().await?;
    client.remove(&client.root(), name).await?;
    ensure!(files.remove(name).is_some(), "{name} was there");
    Ok(())
}

/// Scene 6. The log outlives the filer that leads: another one leads on, and the log lacks nothing of what was missed.
/// A cloud that fails again in the middle of its resync is failed again, and never active before it has everything;
/// what it got already is not put again.
#[tokio::test(flavor = "multi_thread")]
async fn a_resync_outlives_the_filer_that_leads_and_another_failure_of_its_cloud() {
    let mut clouds = TwoClouds::start().await.unwrap();
    let mut mesh = MeshOfFilers::start(Plan::new("resync", clouds.places().unwrap())).await.unwrap();
    let mut files = Files::new();
    for site in &mesh.sites {
        for n in 0..FILES {
            put(site, &format!("{}-before-{n}", site.name()), &mut files).await.unwrap();
        }
    }
    mesh.until_all_well().await.unwrap();

    // The active cloud dies; each site writes and deletes, and all of that is on record as missed.
    clouds.east.kill().unwrap();
    for (at, site) in mesh.sites.iter().enumerate() {
        for n in 0..FILES {
            put(site, &format!("{}-outage-{n}", site.name()), &mut files).await.unwrap();
        }
        remove(site, &format!("{}-before-0", mesh.sites[(at + 1) % 3].name()), &mut files).await.unwrap();
    }
    let rows = (3 * FILES as u64, 3);
    let missed = |status: &::filer::admin::Status| {
        let east = &status.clouds[0];
        status.active == "west" && (east.missed_puts, east.missed_deletes) == rows
    };
    mesh.until_all("every put and delete is on record as missed", missed).await.unwrap();

    // It is back, and its resync is held when some of it is done. The filer that leads dies.
    clouds.east.start_again_with(&held(THROUGH)).await.unwrap();
    let held_at = |left: u64| {
        move |status: &::filer::admin::Status| {
            let east = &status.clouds[0];
            status.active == "west" && east.state == CloudState::Resyncing && east.missed_puts == left
        }
    };
    let left = rows.0 - THROUGH;
    mesh.until_all("the resync is held in its middle", held_at(left)).await.unwrap();
    let leader = mesh.sites[0].status().await.unwrap().leader.expect("a mesh that is whole has a leader");
    let leads = mesh.sites.iter().position(|site| site.name() == leader).expect("the leader is one of them");
    mesh.sites[leads].kill().unwrap();
    let leads_on = |status: &::filer::admin::Status| status.leader.as_ref().is_some_and(|name| *name != leader);
    mesh.until_all("another filer leads", |status| status.has_majority && leads_on(status)).await.unwrap();
    mesh.until_all("the resync is under way as before", held_at(left)).await.unwrap();
    for site in mesh.running() {
        site_reads_right(site, &contents(&files)).await.unwrap();
    }
    let log = clouds.east.remote().log(0).await.unwrap();
    let done: Vec<_> = segment_puts(&log).filter(|entry| entry.outcome == Outcome::Answered(200)).collect();
    assert_eq!(done.len() as u64, THROUGH, "{done:?}");
    let done: Vec<_> = done.into_iter().map(|entry| entry.key.clone()).collect();

    // The cloud fails again. Somebody writes meanwhile, so that the failure is noticed by puts as well.
    let epoch = mesh.epoch().await.unwrap();
    clouds.east.kill().unwrap();
    let alive = (leads + 1) % 3;
    put(&mesh.sites[alive], "in the second outage", &mut files).await.unwrap();
    let failed_again = |status: &::filer::admin::Status| {
        let east = &status.clouds[0];
        status.epoch > epoch
            && status.active == "west"
            && east.state == CloudState::Failed
            && east.missed_puts == left + 1
    };
    mesh.until_all("the cloud has failed again, and the log lacks nothing", failed_again).await.unwrap();

    // The dead filer is back in the middle of the second resync, which the others began without it.
    clouds.east.start_again_with(&held(0)).await.unwrap();
    mesh.until_all("the second resync is held", held_at(left + 1)).await.unwrap();
    mesh.sites[leads].start().await.unwrap();
    mesh.until_whole().await.unwrap();
    mesh.until_all("the second resync is under way as before", held_at(left + 1)).await.unwrap();
    clouds.east.remote().heal().await.unwrap();
    mesh.prove(&contents(&files)).await.unwrap();
    let log = clouds.east.remote().log(0).await.unwrap();
    let again: Vec<_> = segment_puts(&log).filter(|entry| done.contains(&entry.key)).collect();
    assert!(again.is_empty(), "what it had already was put again: {again:?}");
    let status = mesh.sites[leads].until("it can take another failure", SOON, |s| s.absorbs_failure).await.unwrap();
    assert_eq!(status.active, "east");
}
