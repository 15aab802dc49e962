use super::mesh::*;
use crate::{
    FilerId,
    consensus::{ProposeError, Settings},
    kv::MemoryKv,
};
use futures::future::join_all;
use std::{sync::atomic::Ordering, time::Duration};
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn three_filers_elect_and_apply_what_each_proposes() {
    let (_mesh, filers) = mesh_of(3, settings()).await;
    let [a, b, c] = &filers[..] else { panic!("three were started") };
    for round in 1..=5u64 {
        for (place, filer) in filers.iter().enumerate() {
            let expected = (round - 1) * 3 + place as u64 + 1;
            assert_eq!(filer.count("x").await, expected);
            assert_eq!(filer.local("x"), expected, "a filer reads its own writes");
        }
    }
    agree(&[a, b, c]).await;
    for filer in &filers {
        let status = filer.consensus.status();
        assert_eq!(status.voters.keys().copied().collect::<Vec<_>>(), [1, 2, 3].map(FilerId));
        assert!(status.leader.is_some());
        assert_eq!(filer.machine.applied.load(Ordering::SeqCst), status.applied);
        assert_eq!(filer.end.members.lock().expect("no test holds it").len(), 3);
    }
    assert!(leader(&[a, b, c]).await.consensus.status().majority_ms_ago.is_some());
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_proposals_share_their_way() {
    let (mesh, filers) = mesh_of(3, Settings { proposals_in_flight_max: 300, ..settings() }).await;
    let calls_before = mesh.calls();
    for filer in &filers {
        let names: Vec<String> = (0..512).map(|n| format!("{}-{n}", filer.id)).collect();
        let began = Instant::now();
        let counts = join_all(names.iter().map(|name| filer.count(name))).await;
        assert!(counts.iter().all(|count| *count == 1));
        assert!(began.elapsed() < SECOND, "512 took {:?}", began.elapsed());
    }
    assert!(mesh.calls() - calls_before < 700, "{} calls for 1,536 operations", mesh.calls() - calls_before);
    let all: Vec<_> = filers.iter().collect();
    agree(&all).await;
    filers[0].count("last").await;
    filers[1].count("last").await;
    filers[2].count("last").await;
    agree(&all).await;
    assert!(filers[0].answers() <= 3, "answers nobody waits for are dropped: {}", filers[0].answers());
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for_again_and_nothing_is_applied_twice() {
    let (mesh, filers) = mesh_of(3, settings()).await;
    let all: Vec<_> = filers.iter().collect();
    let lead = leader(&all).await;
    let asks = filers.iter().find(|filer| filer.id != lead.id).expect("two do not lead");
    mesh.deafen(asks.id.0);
    let ticket = asks.consensus.ticket();
    let lost = asks.consensus.propose_as(&ticket, b"x".to_vec(), 3 * SECOND).await;
    assert_eq!(lost, Err(ProposeError::NoMajority { after_ms: 3_000 }));
    assert_eq!(lead.local("x"), 1, "it was applied all the same");
    mesh.heal();
    let answer = asks.consensus.propose_as(&ticket, b"x".to_vec(), MINUTE).await.expect("all is healed");
    assert_eq!(answer, 1u64.to_be_bytes());
    assert_eq!(asks.count("x").await, 2);
    agree(&all).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_survives_a_change_of_leader_exactly_once() {
    let (mesh, filers) = mesh_of(3, settings()).await;
    let all: Vec<_> = filers.iter().collect();
    let lead = leader(&all).await;
    let asks = filers.iter().find(|filer| filer.id != lead.id).expect("two do not lead");
    let (counts, ()) = tokio::join!(join_all((0..50).map(|_| asks.count("x"))), async {
        sleep(Duration::from_millis(2)).await;
        mesh.cut(lead.id.0);
    });
    let mut counts = counts;
    counts.sort();
    assert_eq!(counts, (1..=50).collect::<Vec<u64>>());
    mesh.heal();
    agree(&all).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_cut_off_waits_while_the_others_go_on() {
    let (mesh, filers) = mesh_of(3, settings()).await;
    let all: Vec<_> = filers.iter().collect();
    let old = leader(&all).await;
    let others: Vec<_> = filers.iter().filter(|filer| filer.id != old.id).collect();
    old.count("x").await;
    mesh.cut(old.id.0);
    let alone = old.consensus.propose(b"x".to_vec(), 5 * SECOND).await;
    assert_eq!(alone, Err(ProposeError::NoMajority { after_ms: 5_000 }));
    assert_eq!(old.consensus.barrier(SECOND).await, Err(ProposeError::NoMajority { after_ms: 1_000 }));
    assert_eq!(old.consensus.status().leader, None, "a leader without a majority is none");
    for n in 1..=20 {
        assert_eq!(others[n % 2].count("y").await, n as u64);
    }
    assert_eq!(old.local("y"), 0);
    mesh.heal();
    old.consensus.barrier(MINUTE).await.expect("all is healed");
    assert_eq!(old.local("y"), 20);
    assert!(old.local("x") <= 2);
    agree(&all).await;
}

#[tokio::test(start_paused = true)]
async fn a_barrier_sees_what_others_were_told() {
    let (_mesh, filers) = mesh_of(3, settings()).await;
    for n in 1..=20u64 {
        filers[n as usize % 3].count("x").await;
        let reader = &filers[(n as usize + 1) % 3];
        reader.consensus.barrier(MINUTE).await.expect("a majority can be reached");
        assert!(reader.local("x") >= n);
    }
}

#[tokio::test(start_paused = true)]
async fn barriers_that_come_together_share_their_questions() {
    let (mesh, filers) = mesh_of(3, settings()).await;
    sleep(SECOND).await;
    let began = (mesh.calls(), Instant::now());
    let passed = join_all(filers.iter().flat_map(|f| (0..200).map(|_| f.consensus.barrier(MINUTE)))).await;
    assert!(passed.iter().all(Result::is_ok));
    assert!(began.1.elapsed() < SECOND / 2);
    assert!(mesh.calls() - began.0 < 40, "{} calls for 600 barriers", mesh.calls() - began.0);
}

#[tokio::test(start_paused = true)]
async fn a_filer_that_belongs_to_nobody_says_so() {
    let mesh = Mesh::default();
    let lone = start(&mesh, 9, MemoryKv::default(), settings()).await;
    assert_eq!(lone.consensus.propose(b"x".to_vec(), SECOND).await, Err(ProposeError::NotMember));
    assert_eq!(lone.consensus.barrier(SECOND).await, Err(ProposeError::NotMember));
    lone.consensus.bootstrap(member(9)).await.expect("the tables are empty");
    lone.until(|status| status.leader == Some(FilerId(9))).await;
    assert_eq!(lone.count("x").await, 1);
    let large = lone.consensus.propose(vec![0; (1 << 20) + 1], SECOND).await;
    assert_eq!(large, Err(ProposeError::TooLarge { bytes: (1 << 20) + 1, bytes_max: 1 << 20 }));
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_tables_fail_stops_and_says_why() {
    let mesh = Mesh::default();
    let poison = Counters { poison: Some(b"poison".to_vec()), ..Counters::default() };
    let filer = start_with(&mesh, 1, MemoryKv::default(), settings(), poison).await;
    filer.consensus.bootstrap(member(1)).await.expect("the tables are empty");
    filer.until(|status| status.leader.is_some()).await;
    assert_eq!(filer.count("x").await, 1);
    let Err(ProposeError::Stopped(why)) = filer.consensus.propose(b"poison".to_vec(), MINUTE).await else {
        panic!("the tables failed")
    };
    assert!(why.contains("the disk is gone"), "{why}");
    assert!(filer.consensus.stopped().is_some());
    assert!(matches!(filer.consensus.propose(b"x".to_vec(), SECOND).await, Err(ProposeError::Stopped(_))));
}
