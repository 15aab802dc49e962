use super::mesh::*;
use crate::consensus::{ProposeError, Settings};
use std::time::Duration;
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn a_filer_that_is_cut_off_knows_it_and_knows_when_it_is_over() {
    let (mesh, filers) = mesh_of(3, settings()).await;
    let all: Vec<_> = filers.iter().collect();
    let leads = leader(&all).await.id;
    let follows = filers.iter().find(|filer| filer.id != leads).expect("two do not lead").id;
    for cut in [follows, leads] {
        let filer = filers.iter().find(|filer| filer.id == cut).expect("it is one of them");
        filer.count("x").await;
        assert_eq!(filer.consensus.check_majority(), Ok(()));
        mesh.cut(cut.0);
        let begun = Instant::now();
        assert!(matches!(filer.consensus.majority_lost().await, ProposeError::NoMajority { .. }));
        assert!(begun.elapsed() <= settings().majority_known_lost_after() + SECOND, "it took {:?}", begun.elapsed());
        for other in filers.iter().filter(|other| other.id != cut) {
            other.count("x").await;
            assert_eq!(other.consensus.check_majority(), Ok(()), "the others have one");
        }
        sleep(MINUTE).await;
        assert!(filer.consensus.check_majority().is_err());
        mesh.heal();
        filer.consensus.majority_found().await;
        filer.count("x").await;
        agree(&all).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_filer_alone_is_its_own_majority() {
    let (_mesh, filers) = mesh_of(1, settings()).await;
    sleep(MINUTE).await;
    assert_eq!(filers[0].consensus.check_majority(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_together_with_the_leader_knows_it_by_its_reads() {
    let (mesh, filers) = mesh_of(5, settings()).await;
    let all: Vec<_> = filers.iter().collect();
    let leads = leader(&all).await.id;
    let follows = filers.iter().find(|filer| filer.id != leads).expect("four do not lead");
    filers.iter().filter(|filer| ![leads, follows.id].contains(&filer.id)).for_each(|filer| mesh.cut(filer.id.0));
    assert!(follows.consensus.barrier(20 * SECOND).await.is_err());
    assert!(matches!(follows.consensus.check_majority(), Err(ProposeError::NoMajority { .. })));
    mesh.heal();
    // Nobody asks, and yet it is known.
    follows.consensus.majority_found().await;
    agree(&all).await;
}

#[tokio::test(start_paused = true)]
async fn a_ticket_says_whether_its_operation_was_given_to_anybody() {
    let (mesh, filers) = mesh_of(3, Settings { proposals_in_flight_max: 1, ..settings() }).await;
    let all: Vec<_> = filers.iter().collect();
    let lead = leader(&all).await;
    let asks = filers.iter().find(|filer| filer.id != lead.id).expect("two do not lead");
    let (given, waits) = (asks.consensus.ticket(), asks.consensus.ticket());
    mesh.deafen(asks.id.0);
    let (lost, refused) = tokio::join!(
        asks.consensus.propose_as(&given, b"given".to_vec(), 2 * SECOND),
        // The other one's place is not free before this one gives up.
        asks.consensus.propose_as(&waits, b"waits".to_vec(), SECOND),
    );
    assert!(matches!((lost, refused), (Err(ProposeError::NoMajority { .. }), Err(ProposeError::NoMajority { .. }))));
    assert!(given.was_handed_over() && !waits.was_handed_over());
    assert_eq!((lead.local("given"), lead.local("waits")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn filers_whose_answers_take_longer_than_the_pause_between_signs_of_life_go_on() {
    let (mesh, filers) = mesh_of(5, settings()).await;
    let all: Vec<_> = filers.iter().collect();
    let lead = leader(&all).await;
    // Round trips of 900 ms; signs of life every 250 ms, and answers within a second.
    mesh.slow_down(Duration::from_millis(449));
    sleep(MINUTE).await;
    let term = lead.consensus.status().term;
    for round in 1..=10 {
        // Nothing else is replicated meanwhile, whose answers would be signs of a majority.
        sleep(10 * SECOND).await;
        for filer in &all {
            assert_eq!(filer.consensus.check_majority(), Ok(()), "filer {}", filer.id);
            filer.consensus.barrier(5 * SECOND).await.expect("a majority answers");
        }
        let follower = all.iter().find(|filer| filer.id != lead.id).expect("four follow");
        for filer in [lead, *follower] {
            let op = filer.id.to_string().into_bytes();
            let answer = filer.consensus.propose(op, 5 * SECOND).await.expect("a majority answers");
            assert_eq!(answer, u64::to_be_bytes(round));
        }
    }
    assert_eq!(lead.consensus.status().term, term, "nobody stood for election");
    // They elect, too, and nobody believes meanwhile that there is no majority.
    mesh.cut(lead.id.0);
    let left: Vec<_> = all.iter().copied().filter(|filer| filer.id != lead.id).collect();
    for filer in &left {
        tokio::select! {
            biased;
            _ = filer.until(|status| status.leader.is_some_and(|leader| leader != lead.id)) => {}
            error = filer.consensus.majority_lost() => panic!("filer {}: {error}", filer.id),
        }
    }
    left[0].count("y").await;
    mesh.heal();
    agree(&all).await;
}

#[tokio::test(start_paused = true)]
async fn a_question_to_a_leader_that_is_gone_goes_to_its_successor_at_once() {
    let (mesh, filers) = mesh_of(3, settings()).await;
    let all: Vec<_> = filers.iter().collect();
    let gone = leader(&all).await;
    let left: Vec<_> = all.iter().copied().filter(|filer| filer.id != gone.id).collect();
    mesh.cut(gone.id.0);
    let elected = async {
        left[0].until(|status| status.leader.is_some_and(|leader| leader != gone.id)).await;
        Instant::now()
    };
    let asked = left.iter().map(|filer| async {
        filer.consensus.barrier(MINUTE).await.expect("two of three are left");
        Instant::now()
    });
    let (elected, answered) = tokio::join!(elected, futures::future::join_all(asked));
    for at in answered {
        assert!(at <= elected + SECOND, "answered {:?} behind the election", at - elected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_question_holds_up_nobody_for_longer_than_an_answer_may_take() {
    let (mesh, filers) = mesh_of(3, settings()).await;
    let all: Vec<_> = filers.iter().collect();
    let lead = leader(&all).await;
    let asks = filers.iter().find(|filer| filer.id != lead.id).expect("two do not lead");
    mesh.deafen(asks.id.0);
    let begun = Instant::now();
    let healed = async {
        sleep(Duration::from_millis(100)).await;
        mesh.heal();
    };
    let (passed, ()) = tokio::join!(asks.consensus.barrier(MINUTE), healed);
    passed.expect("the second question is answered");
    let took = begun.elapsed();
    assert!(took <= settings().call_deadline() + SECOND / 10, "it took {took:?}");
}
