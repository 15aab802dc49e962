use super::mesh::*;
use crate::{
    FilerId,
    consensus::{MembershipError, ProposeError, Settings},
    kv::MemoryKv,
};
use std::collections::BTreeSet;
use tokio::time::{sleep, timeout};

#[tokio::test(start_paused = true)]
async fn a_fourth_filer_joins_and_another_leaves_for_good() {
    let (mesh, mut filers) =
        mesh_of(3, Settings { snapshot_every_entries: 30, log_entries_kept: 5, ..settings() }).await;
    for n in 0..100 {
        filers[n % 3].count("x").await;
    }
    filers.push(start(&mesh, 4, MemoryKv::default(), settings()).await);
    let asks = filers[..3].iter().find(|f| f.consensus.status().leader != Some(f.id)).expect("two do not lead");
    asks.consensus.add_member(FilerId(4), member(4), MINUTE).await.expect("all can be reached");
    asks.consensus.add_member(FilerId(4), member(4), MINUTE).await.expect("asking again is harmless");
    assert_eq!(filers[3].count("x").await, 101);
    let all: Vec<_> = filers.iter().collect();
    agree(&all).await;
    assert_eq!(filers[3].consensus.status().voters.len(), 4);

    let leaver = *all.iter().find(|f| f.consensus.status().leader != Some(f.id)).expect("three do not lead");
    let others: Vec<_> = filers.iter().filter(|filer| filer.id != leaver.id).collect();
    others[0].consensus.remove_member(leaver.id, MINUTE).await.expect("all can be reached");
    others[0].consensus.remove_member(leaver.id, MINUTE).await.expect("asking again is harmless");
    for filer in &others {
        filer.until(|status| status.voters.len() == 3 && status.removed.contains(&leaver.id)).await;
        let reached = filer.end.members.lock().expect("no test holds it").clone();
        assert!(!reached.contains_key(&leaver.id));
    }
    assert_eq!(leaver.consensus.propose(b"x".to_vec(), SECOND).await, Err(ProposeError::NotMember));
    let back = others[1].consensus.add_member(leaver.id, member(4), MINUTE).await;
    assert_eq!(back, Err(MembershipError::Removed(leaver.id)));
    let term = others[0].consensus.status().term;
    sleep(MINUTE).await;
    assert_eq!(others[0].consensus.status().term, term, "the one that left disturbs nobody");
    assert_eq!(others[2].count("x").await, 102);
    agree(&others).await;
}

/// Adds or removes a filer, and waits no longer once that is between its two steps.
async fn leave_halfway(lead: &Filer, add: bool, id: u64) {
    let asks = lead.consensus.clone();
    let asked = tokio::spawn(async move {
        match add {
            true => asks.add_member(FilerId(id), member(id), MINUTE).await,
            false => asks.remove_member(FilerId(id), MINUTE).await,
        }
    });
    let mut changes = lead.consensus.changes();
    let halfway = async {
        while lead.consensus.status().majorities_of.len() < 2 {
            changes.next().await;
        }
    };
    timeout(MINUTE, halfway).await.expect("a change takes two steps");
    asked.abort();
    assert!(asked.await.is_err_and(|e| e.is_cancelled()), "it is not done yet");
}

/// Seed 27100798 of the simulator: two of three filers were left and had no majority, for ever.
#[tokio::test(start_paused = true)]
async fn a_change_that_nobody_waits_for_any_more_is_finished() {
    let (mesh, mut filers) = mesh_of(2, settings()).await;
    let settled = async |filers: &[&Filer]| {
        let all: BTreeSet<_> = filers.iter().map(|filer| filer.id).collect();
        for filer in filers {
            let status = filer.until(|status| status.majorities_of == BTreeSet::from([all.clone()])).await;
            assert_eq!(status.learners.keys().next(), None, "who was removed is no member");
            filer.until(|_| filer.consensus.votes_as(&member(filer.id.0))).await;
        }
    };
    for added in [3, 4] {
        filers.push(start(&mesh, added, MemoryKv::default(), settings()).await);
        leave_halfway(leader(&filers.iter().collect::<Vec<_>>()).await, true, added).await;
        settled(&filers.iter().collect::<Vec<_>>()).await;
    }
    // One that follows, then the one that leads.
    let mut left: Vec<&Filer> = filers.iter().collect();
    let lead = leader(&left).await;
    let follower = left.iter().position(|filer| filer.id != lead.id).expect("three follow");
    leave_halfway(lead, false, left.remove(follower).id.0).await;
    settled(&left).await;
    leave_halfway(lead, false, lead.id.0).await;
    left.retain(|filer| filer.id != lead.id);
    settled(&left).await;
    assert_eq!(left[0].count("x").await, 1);
}

#[tokio::test(start_paused = true)]
async fn two_of_three_are_a_majority_though_nobody_waited_for_the_third() {
    let (mesh, mut filers) = mesh_of(2, settings()).await;
    filers.push(start(&mesh, 3, MemoryKv::default(), settings()).await);
    let lead = leader(&filers.iter().collect::<Vec<_>>()).await;
    leave_halfway(lead, true, 3).await;
    filers[2].until(|status| status.majorities_of.len() == 1 && status.voters.len() == 3).await;
    mesh.cut(lead.id.0);
    let others: Vec<_> = filers.iter().filter(|filer| filer.id != lead.id).collect();
    assert_eq!(others[0].count("x").await, 1);
}

/// A filer that was moved there and back must not take the address for settled that an older entry says.
#[tokio::test(start_paused = true)]
async fn a_filer_votes_as_what_the_newest_entry_says() {
    let (mesh, filers) = mesh_of(2, settings()).await;
    let lead = leader(&filers.iter().collect::<Vec<_>>()).await;
    let other = filers.iter().find(|filer| filer.id != lead.id).expect("one follows");
    assert!(lead.consensus.votes_as(&member(lead.id.0)));
    mesh.cut(other.id.0);
    let moved = crate::peers::Member { name: "moved".into(), address: "10.9.9.9:7000".into() };
    lead.consensus.add_member(lead.id, moved.clone(), SECOND).await.expect_err("nobody agrees");
    assert!(!lead.consensus.votes_as(&moved), "it is not certain");
    assert!(!lead.consensus.votes_as(&member(lead.id.0)), "nor is that it stays so");
    mesh.heal();
    lead.until(|_| lead.consensus.votes_as(&moved)).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_can_be_removed() {
    let (_mesh, filers) = mesh_of(3, settings()).await;
    let all: Vec<_> = filers.iter().collect();
    let lead = leader(&all).await;
    lead.consensus.remove_member(lead.id, MINUTE).await.expect("all can be reached");
    let others: Vec<_> = filers.iter().filter(|filer| filer.id != lead.id).collect();
    leader(&others).await;
    assert_eq!(others[0].count("x").await, 1);
    assert_eq!(others[1].count("x").await, 2);
    assert_eq!(others[0].consensus.status().voters.len(), 2);
    assert_eq!(lead.consensus.propose(b"x".to_vec(), SECOND).await, Err(ProposeError::NotMember));
}

#[tokio::test(start_paused = true)]
async fn a_filer_that_cannot_be_reached_can_be_removed_and_learns_of_it() {
    let (mesh, filers) = mesh_of(3, settings()).await;
    let all: Vec<_> = filers.iter().collect();
    let lead = leader(&all).await;
    let away = *all.iter().find(|filer| filer.id != lead.id).expect("two do not lead");
    mesh.cut(away.id.0);
    lead.consensus.remove_member(away.id, MINUTE).await.expect("a majority can be reached");
    mesh.heal();
    away.consensus.barrier(MINUTE).await.expect_err("it was removed");
    assert_eq!(away.consensus.propose(b"x".to_vec(), SECOND).await, Err(ProposeError::NotMember));
}

#[tokio::test(start_paused = true)]
async fn a_filer_moves_to_another_address() {
    let (_mesh, filers) = mesh_of(3, settings()).await;
    let moved = crate::peers::Member { name: "site3".into(), address: "10.9.9.9:7000".into() };
    filers[1].consensus.add_member(FilerId(3), moved.clone(), MINUTE).await.expect("all can be reached");
    for filer in &filers {
        filer.until(|status| status.voters.get(&FilerId(3)) == Some(&moved)).await;
        let known = filer.end.members.lock().expect("no test holds it").get(&FilerId(3)).cloned();
        assert_eq!(known, Some(moved.clone()));
    }
}

#[tokio::test(start_paused = true)]
async fn impossible_changes_are_refused() {
    let (mesh, filers) = mesh_of(1, settings()).await;
    let one = &filers[0].consensus;
    assert_eq!(one.remove_member(FilerId(1), MINUTE).await, Err(MembershipError::LastVoter(FilerId(1))));
    assert_eq!(one.remove_member(FilerId(5), MINUTE).await, Err(MembershipError::Unknown(FilerId(5))));
    let absent = one.add_member(FilerId(5), member(5), 10 * SECOND).await;
    assert_eq!(absent, Err(MembershipError::NotCaughtUp { id: FilerId(5), after_ms: 10_000 }));
    assert_eq!(filers[0].count("x").await, 1, "a filer that is being added does not count for the majority");
    let five = start(&mesh, 5, MemoryKv::default(), settings()).await;
    one.add_member(FilerId(5), member(5), MINUTE).await.expect("now it can be reached");
    assert_eq!(five.count("x").await, 2);
    let refused = five.consensus.bootstrap(member(5)).await;
    assert_eq!(refused, Err(MembershipError::AlreadyStarted));
}
