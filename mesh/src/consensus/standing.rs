//! Who may say what to a replica. A certificate lets a filer call; what it may say depends on whether it is a member.
//!
//! | call | of whom |
//! |---|---|
//! | entries, a snapshot, a hand-over | the leader that the call names: a member, or one that a member vouches for |
//! | a vote, or a wish for one | the candidate that the call names: likewise |
//! | operations, reading | a member, one that is being added too; operations are the caller's own |
//! | a change of the members | a member that votes, for itself or for a filer that asked it to be let in |
//! | whether a filer is a member | any filer |
//!
//! A replica that was away may not know today's leader yet: it joined after the last entry here. So a replica that does
//! not know a caller asks the members that it does know, and believes the first that says yes; the answer is kept for
//! a moment. A replica that knows nobody, as it is being added, hears any filer of its CloudFS: nothing but the
//! authority's word stands for anyone there.

use super::{
    engine::Vote,
    replica::Core,
    wire::{Call, Reply, ask},
};
use crate::FilerId;
use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use std::collections::BTreeMap;
use tokio::{sync::Mutex, time::Instant};

/// Filers whose standing is kept at the same time; each has a certificate of the CloudFS.
const ASKED_MAX: usize = 256;

/// What members last said of filers that this replica does not know.
#[derive(Default)]
pub struct Standings(Mutex<BTreeMap<FilerId, Standing>>);

struct Standing {
    member: bool,
    asked: Instant,
}

/// What a call wants its caller to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// The leader, or the candidate, of this vote.
    Leader(FilerId),
    Member,
    Voter,
    Anyone,
}

fn of(vote: &Vote) -> Wanted {
    Wanted::Leader(vote.leader_id.node_id)
}

fn wanted(call: &Call) -> Wanted {
    match call {
        Call::Append(rpc) => of(&rpc.vote),
        Call::Vote(rpc) | Call::PreVote(rpc) => of(&rpc.vote),
        Call::Transfer(rpc) => of(rpc.from_leader()),
        Call::Piece(head) => of(&head.vote),
        Call::Propose { .. } | Call::ReadIndex { .. } => Wanted::Member,
        Call::Change { .. } => Wanted::Voter,
        Call::IsMember(_) => Wanted::Anyone,
    }
}

impl Core {
    /// Refuses a call that its caller has no standing for.
    pub async fn check_standing(&self, from: FilerId, call: &Call) -> Result<(), String> {
        let holds = match wanted(call) {
            Wanted::Anyone => true,
            Wanted::Voter => self.knows(from, true),
            Wanted::Member => self.knows(from, false),
            Wanted::Leader(named) if named != from => {
                return Err(format!("filer {from} speaks in the name of filer {named}"));
            }
            Wanted::Leader(_) => self.may_lead(from) || self.is_vouched_for(from).await,
        };
        if holds {
            return Ok(());
        }
        tracing::debug!(%from, "refused a call to the replicated log: its filer is no member");
        Err(format!("filer {from} is not a member of the CloudFS as filer {} knows it", self.me))
    }

    /// Whether this replica's log has the filer among the members, or among those that vote.
    pub fn knows(&self, id: FilerId, votes: bool) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        // The newest list, and the one that is agreed on: a filer on its way out is in the latter.
        [&metrics.membership_config, &metrics.committed_membership_config].iter().any(|config| {
            let membership = config.membership();
            if votes { membership.voter_ids().any(|voter| voter == id) } else { membership.get_node(&id).is_some() }
        })
    }

    /// Whether the filer can lead as far as this replica knows. One that it has accepted as leader is so for its term.
    fn may_lead(&self, id: FilerId) -> bool {
        let metrics = self.raft.metrics();
        let (nobody, accepted) = {
            let metrics = metrics.borrow_watched();
            let vote = &metrics.vote;
            (metrics.membership_config.nodes().next().is_none(), vote.committed && vote.leader_id.node_id == id)
        };
        nobody || accepted || self.knows(id, false)
    }

    /// Whether a member that this replica knows says that the filer is one.
    async fn is_vouched_for(&self, id: FilerId) -> bool {
        // One question at a time; those who come meanwhile find its answer.
        let mut standings = self.standings.0.lock().await;
        let recent = |standing: &Standing| standing.asked.elapsed() <= self.settings.lease();
        if let Some(standing) = standings.get(&id).filter(|standing| recent(standing)) {
            return standing.member;
        }
        standings.retain(|_, standing| recent(standing));
        if standings.len() >= ASKED_MAX {
            return false;
        }
        let known: Vec<FilerId> = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let nodes = metrics.membership_config.nodes().map(|(known, _)| *known);
            nodes.filter(|known| *known != self.me && *known != id).collect()
        };
        let asked = known.into_iter().map(|known| {
            Box::pin(async move {
                let (question, deadline) = (Call::IsMember(id), self.settings.call_deadline());
                match ask(&*self.peers, known, &question, Bytes::new(), deadline).await {
                    Ok(Reply::IsMember(true)) => Ok(known),
                    _ => Err(()),
                }
            })
        });
        let asked: Vec<_> = asked.collect();
        let by = if asked.is_empty() { None } else { futures::future::select_ok(asked).await.ok() };
        match by {
            Some((by, _)) => {
                tracing::info!(filer = %id, %by, "a member vouches for a filer that is not known here yet")
            }
            None => {
                tracing::warn!(filer = %id, "refused: a filer that no member knows speaks as a leader or candidate")
            }
        }
        standings.insert(id, Standing { member: by.is_some(), asked: Instant::now() });
        by.is_some()
    }
}
