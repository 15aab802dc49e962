use super::mesh::*;
use crate::{
    FilerId,
    consensus::{ProposeError, Settings},
    kv::{KvRead, LOG},
};
use std::{ops::Bound, sync::atomic::Ordering};

fn small_log() -> Settings {
    Settings { snapshot_every_entries: 50, log_entries_kept: 10, ..settings() }
}

#[tokio::test(start_paused = true)]
async fn a_filer_away_beyond_the_kept_log_catches_up_by_snapshot() {
    let (mesh, filers) = mesh_of(3, small_log()).await;
    let all: Vec<_> = filers.iter().collect();
    let away = *all.iter().find(|f| f.consensus.status().leader != Some(f.id)).expect("two do not lead");
    let here: Vec<_> = filers.iter().filter(|filer| filer.id != away.id).collect();
    away.count("gone by then").await;
    mesh.cut(away.id.0);
    for n in 0..300 {
        here[n % 2].count(&format!("name {}", n % 70)).await;
    }
    // The leader keeps what it is about to send until the peer is known to be away.
    tokio::time::sleep(10 * SECOND).await;
    for filer in &here {
        let log = filer.kv.scan(LOG, (Bound::Unbounded, Bound::Unbounded), usize::MAX, false);
        let kept = log.expect("memory does not fail").len();
        assert!(kept < 100, "the log is dropped behind snapshots, but has {kept} entries");
    }
    mesh.heal();
    away.consensus.barrier(MINUTE).await.expect("all is healed");
    assert_eq!(away.local("name 0"), 5);
    assert_eq!(away.machine.snapshots.load(Ordering::SeqCst), 1);
    agree(&all).await;
    assert_eq!(away.count("name 0").await, 6);
    agree(&all).await;
}

#[tokio::test(start_paused = true)]
async fn filers_restart_from_their_tables() {
    let (mesh, filers) = mesh_of(3, small_log()).await;
    for n in 0..120 {
        filers[n % 3].count("x").await;
    }
    let mut again = Vec::new();
    for filer in &filers {
        filer.consensus.shutdown().await;
        let refused = filer.consensus.propose(b"x".to_vec(), SECOND).await;
        assert!(matches!(refused, Err(ProposeError::Stopped(_))));
    }
    for filer in filers {
        again.push(start(&mesh, filer.id.0, filer.kv.clone(), small_log()).await);
    }
    let all: Vec<_> = again.iter().collect();
    leader(&all).await;
    for (n, filer) in again.iter().enumerate() {
        assert_eq!(filer.consensus.status().voters.len(), 3);
        assert_eq!(filer.count("x").await, 121 + n as u64, "request numbers begin anew without confusion");
    }
    agree(&all).await;
}

#[tokio::test(start_paused = true)]
async fn one_filer_restarts_while_the_others_go_on() {
    let (mesh, mut filers) = mesh_of(3, settings()).await;
    for round in 0..6u64 {
        let place = round as usize % 3;
        filers[place].consensus.shutdown().await;
        let kv = filers[place].kv.clone();
        assert_eq!(filers[(place + 1) % 3].count("x").await, 2 * round + 1);
        filers[place] = start(&mesh, place as u64 + 1, kv, settings()).await;
        assert_eq!(filers[place].count("x").await, 2 * round + 2);
    }
    let all: Vec<_> = filers.iter().collect();
    agree(&all).await;
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_filer_comes_back_without_unseating_the_leader() {
    let (mesh, filers) = mesh_of(3, settings()).await;
    let all: Vec<_> = filers.iter().collect();
    let lead = leader(&all).await;
    let away = *all.iter().find(|filer| filer.id != lead.id).expect("two do not lead");
    let term = lead.consensus.status().term;
    mesh.cut(away.id.0);
    tokio::time::sleep(MINUTE).await;
    mesh.heal();
    away.until(|status| status.leader == Some(lead.id)).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(lead.consensus.status().term, term);
    assert_eq!(lead.consensus.status().leader, Some(lead.id));
}

#[tokio::test(start_paused = true)]
async fn a_leader_hands_over_when_asked() {
    let (_mesh, filers) = mesh_of(3, settings()).await;
    let all: Vec<_> = filers.iter().collect();
    let lead = leader(&all).await;
    let heir = *all.iter().find(|filer| filer.id != lead.id).expect("two do not lead");
    agree(&all).await;
    lead.consensus.transfer_leader(heir.id).await.expect("it runs");
    heir.until(|status| status.leader == Some(heir.id)).await;
    assert_eq!(lead.count("x").await, 1);
}

#[tokio::test(start_paused = true)]
async fn only_one_filer_founds_a_cloudfs_and_only_once() {
    let (mesh, filers) = mesh_of(1, settings()).await;
    filers[0].until(|status| status.leader == Some(FilerId(1))).await;
    filers[0].consensus.bootstrap(member(1)).await.expect_err("it has a log");
    filers[0].consensus.shutdown().await;
    let again = start(&mesh, 1, filers[0].kv.clone(), settings()).await;
    again.consensus.bootstrap(member(1)).await.expect_err("it has a log");
}
