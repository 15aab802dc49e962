//! Who may say what: strangers with a good certificate, members in each other's names, and leaders not heard of yet.

use super::mesh::*;
use crate::{
    FilerId,
    consensus::{
        MembershipError, Revoked, Settings,
        engine::{Command, Request, Vote},
        wire::{AskError, Call, Change, Reply, ask},
    },
    kv::MemoryKv,
    peers::{CallError, Member},
};
use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, VoteRequest};

/// What came of a call by filer `by` to filer 1.
async fn says(by: &Filer, call: Call) -> Result<Reply, String> {
    match ask(&*by.end, FilerId(1), &call, Bytes::new(), MINUTE).await {
        Ok(reply) => Ok(reply),
        Err(AskError::Call(CallError::Refused { why, .. })) => Err(why),
        Err(other) => panic!("{other}"),
    }
}

fn vote(term: u64, of: u64) -> Vote {
    Vote::new(term, FilerId(of))
}

fn append(term: u64, of: u64) -> Call {
    let vote = Vote::new_committed(term, FilerId(of));
    Call::Append(AppendEntriesRequest { vote, prev_log_id: None, entries: vec![], leader_commit: None })
}

fn operation(of: u64) -> Command {
    let request = Request { filer: FilerId(of), session: 1, number: 1, done_below: 0 };
    Command::Op(request, Bytes::from_static(b"x"))
}

#[tokio::test(start_paused = true)]
async fn a_filer_that_is_no_member_has_no_say() {
    let (mesh, filers) = mesh_of(3, settings()).await;
    let stranger = start(&mesh, 9, MemoryKv::default(), settings()).await;
    crate::peers::Peers::set_members(&*stranger.end, (1..=3).map(|id| (FilerId(id), member(id))).collect());
    let before = filers[0].consensus.status();
    let within_ms = 1_000;
    for call in [
        append(99, 9),
        Call::Vote(VoteRequest::new(vote(99, 9), None)),
        Call::PreVote(VoteRequest::new(vote(99, 9), None)),
        Call::Propose { commands: vec![operation(9)], within_ms },
        Call::ReadIndex { within_ms },
        Call::Change { change: Change::Add(FilerId(9), member(9)), within_ms },
        Call::Change { change: Change::Remove(FilerId(2)), within_ms },
    ] {
        let shown = format!("{call:?}");
        let why = says(&stranger, call).await.expect_err(&shown);
        assert!(why.contains("filer 00000009 is not a member"), "{shown}: {why}");
    }
    assert!(matches!(says(&stranger, Call::IsMember(FilerId(2))).await, Ok(Reply::IsMember(true))));
    assert!(matches!(says(&stranger, Call::IsMember(FilerId(9))).await, Ok(Reply::IsMember(false))));
    let after = filers[0].consensus.status();
    assert_eq!((after.term, after.voters.len()), (before.term, 3), "it disturbed nobody");
    assert_eq!(filers[0].count("x").await, 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_speaks_in_anothers_name() {
    let (_mesh, filers) = mesh_of(3, settings()).await;
    let within_ms = 1_000;
    for call in [append(99, 3), Call::Vote(VoteRequest::new(vote(99, 3), None))] {
        let why = says(&filers[1], call).await.expect_err("in the name of 3");
        assert!(why.contains("filer 00000002 speaks in the name of filer 00000003"), "{why}");
    }
    let commands = vec![operation(3)];
    let why = says(&filers[1], Call::Propose { commands, within_ms }).await.expect_err("in the name of 3");
    assert!(why.contains("filer 00000002 may not propose"), "{why}");
    let commands = vec![Command::Remove(FilerId(3))];
    assert!(says(&filers[1], Call::Propose { commands, within_ms }).await.is_err(), "no operation of the application");
}

#[tokio::test(start_paused = true)]
async fn a_filer_that_was_away_believes_a_leader_that_joined_meanwhile() {
    let (mesh, mut filers) = mesh_of(3, settings()).await;
    mesh.cut(3);
    filers.push(start(&mesh, 4, MemoryKv::default(), settings()).await);
    filers[0].consensus.add_member(FilerId(4), member(4), MINUTE).await.expect("a majority can be reached");
    loop {
        let present: Vec<_> = filers.iter().filter(|filer| filer.id != FilerId(3)).collect();
        let lead = leader(&present).await;
        if lead.id == FilerId(4) {
            break;
        }
        lead.consensus.transfer_leader(FilerId(4)).await.expect("it leads");
        tokio::time::sleep(SECOND).await;
    }
    mesh.heal();
    filers[2].until(|status| status.leader == Some(FilerId(4)) && status.voters.len() == 4).await;
    assert_eq!(filers[2].count("x").await, 1);
}

#[tokio::test(start_paused = true)]
async fn names_and_addresses_tell_filers_apart() {
    let (mesh, filers) = mesh_of(2, settings()).await;
    let _three = start(&mesh, 3, MemoryKv::default(), settings()).await;
    let add = async |name: &str, address: &str| {
        let member = Member { name: name.into(), address: address.into() };
        filers[1].consensus.add_member(FilerId(3), member, MINUTE).await
    };
    let taken = |what: &str, value: &str, by| {
        Err(MembershipError::Taken { what: what.into(), value: value.into(), by: FilerId(by) })
    };
    assert_eq!(add("site1", "10.0.0.3:7000").await, taken("name", "site1", 1));
    assert_eq!(add("site3", "10.0.0.2:7000").await, taken("address", "10.0.0.2:7000", 2));
    for (name, address) in
        [("", "a:1"), ("site3", ""), ("site3", ":1"), ("site3", "a:0"), ("site3", "a"), ("site3", "a:x")]
    {
        let refused = add(name, address).await;
        assert!(matches!(refused, Err(MembershipError::Malformed(_))), "{name:?} {address:?}: {refused:?}");
    }
    assert_eq!(add("site3", "10.0.0.3:7000").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_revoked_certificate_is_known_everywhere_and_for_ever() {
    let settings = Settings { snapshot_every_entries: 30, log_entries_kept: 5, ..settings() };
    let (mesh, mut filers) = mesh_of(3, settings.clone()).await;
    let revoked = Revoked { serial: "4f00".into(), filer: FilerId(0x77), name: "lost".into() };
    for filer in &filers {
        filer.consensus.revoke(revoked.clone(), MINUTE).await.expect("asking again is harmless");
    }
    for serial in ["", "xyz", "4F", &"0".repeat(41)] {
        let wrong = Revoked { serial: serial.into(), ..revoked.clone() };
        let refused = filers[0].consensus.revoke(wrong, MINUTE).await;
        assert!(matches!(refused, Err(MembershipError::Malformed(_))), "{serial}: {refused:?}");
    }
    for _ in 0..60 {
        filers[0].count("x").await;
    }
    // A new filer learns of it by a snapshot.
    filers.push(start(&mesh, 4, MemoryKv::default(), settings.clone()).await);
    filers[0].consensus.add_member(FilerId(4), member(4), MINUTE).await.expect("all can be reached");
    for filer in &filers {
        let status = filer.until(|status| !status.revoked.is_empty()).await;
        assert_eq!(status.revoked, [(revoked.serial.clone(), revoked.clone())].into());
    }
    let last = filers.pop().expect("there are four");
    last.consensus.shutdown().await;
    let again = start(&mesh, 4, last.kv.clone(), settings).await;
    assert_eq!(again.consensus.status().revoked.len(), 1, "it survives a restart");
}
