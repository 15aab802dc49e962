//! Filers killed without warning, in the middle of writing, of a failover and of a resync.

use anyhow::{Context, Result};
use futures::future::try_join_all;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use storage::cloudfs::CloudState;
use tests::{
    mesh_of_filers::{MeshOfFilers, Plan, SOON, TwoClouds, Writer, held},
    proof::contents,
};

/// How many rounds, where the environment does not say. Three: each filer dies once in each phase.
const ROUNDS: usize = 3;

/// The environment's word for it.
const ROUNDS_VARIABLE: &str = "FILERMESH_ROUNDS";

/// Kills a filer and starts it again.
async fn crash(mesh: &mut MeshOfFilers, at: usize) -> Result<()> {
    let site = &mut mesh.sites[at];
    site.kill().with_context(|| format!("killing {}", site.name()))?;
    site.start().await.with_context(|| format!("starting {} after it was killed", site.name()))
}

/// Clients at all sites write, and read at other sites what they wrote, while one filer is killed in the middle of
/// writing, one in the middle of a failover, one in the middle of the resync, each round another one in each place.
/// Everything that was acknowledged reads back right at every site, and is in both clouds, after every round.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_acknowledged_survives_filers_that_are_killed() {
    let rounds = std::env::var(ROUNDS_VARIABLE).map_or(ROUNDS, |text| text.parse().expect("a number of rounds"));
    let mut clouds = TwoClouds::start().await.unwrap();
    let mut mesh = MeshOfFilers::start(Plan::new("crashes", clouds.places().unwrap())).await.unwrap();
    let mut writers = vec![];
    for at in 0..3 {
        writers.push(Writer::start(&mesh.sites[at], &mesh.sites[(at + 1) % 3], at as u64).await.unwrap());
    }
    for round in 0..rounds {
        let stop = Arc::new(AtomicBool::new(false));
        let work = writers.drain(..).map(|writer| {
            let stop = stop.clone();
            tokio::spawn(async move { writer.run(&stop).await })
        });
        let work: Vec<_> = work.collect();
        play(&mut mesh, &mut clouds, round).await.unwrap_or_else(|error| panic!("round {round}: {error:#}"));
        stop.store(true, Relaxed);
        let ended = try_join_all(work).await.expect("a writer does not panic");
        writers = ended.into_iter().map(|writer| writer.unwrap_or_else(|e| panic!("round {round}: {e:#}"))).collect();
        let files: BTreeMap<_, _> = writers.iter().flat_map(|writer| writer.files().collect::<Vec<_>>()).collect();
        if let Err(error) = mesh.prove(&contents(&files)).await {
            panic!("round {round}: {}", clouds.asked_about(&error).await);
        }
        let steps: u64 = writers.iter().map(Writer::steps).sum();
        println!("round {round}: {steps} operations so far, {} files, all right", files.len());
    }
}

async fn play(mesh: &mut MeshOfFilers, clouds: &mut TwoClouds, round: usize) -> Result<()> {
    let victims = [round % 3, (round + 1) % 3, (round + 2) % 3];
    let east_is = |status: &::filer::admin::Status, state| status.clouds.first().is_some_and(|c| c.state == state);

    // In the middle of writing.
    mesh.sites[victims[0]].until("something is staged", SOON, |status| status.staging.segments > 0).await?;
    crash(mesh, victims[0]).await?;

    // In the middle of a failover: it has seen failures, and the mesh has not decided yet.
    mesh.until_all("this filer takes part again", |status| status.has_majority && status.epoch > 0).await?;
    clouds.east.kill()?;
    let failing = |status: &::filer::admin::Status| {
        status.clouds.first().is_some_and(|cloud| cloud.failures_now > 20) || east_is(status, CloudState::Failed)
    };
    mesh.sites[victims[1]].until("it sees the cloud failing", SOON, failing).await?;
    crash(mesh, victims[1]).await?;
    mesh.until_all("the other cloud is active", |status| {
        status.active == "west" && east_is(status, CloudState::Failed)
    })
    .await?;

    // In the middle of the resync, which is held: it is neither done nor given up when the filer dies in it.
    clouds.east.start_again_with(&held(2)).await?;
    let under_way =
        |status: &::filer::admin::Status| east_is(status, CloudState::Resyncing) && status.clouds[0].missed_puts > 0;
    mesh.sites[victims[2]].until("the resync is under way", SOON, under_way).await?;
    crash(mesh, victims[2]).await?;
    mesh.until_all("the resync is still under way", under_way).await?;
    clouds.east.remote().heal().await?;
    mesh.until_all("the cloud that failed is active again", |status| {
        status.active == "east" && east_is(status, CloudState::Healthy)
    })
    .await
}
