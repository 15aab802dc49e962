//! Who belongs to the CloudFS: the first filer, those added later, those that left for good.
//!
//! A filer is added in steps that each survive a crash of whoever carries them out: it learns, catches up, then
//! votes. It is removed in two: first its removal is recorded as an entry that it still receives, so it knows; then
//! it is taken out of the members. Asking again continues where an earlier attempt ended.

use super::{
    api::{MembershipError, ProposeError},
    engine::{Command, Metrics},
    propose::Attempt,
    replica::{Consensus, Core},
    revoked::Revoked,
    wire::{AskError, Call, Change, Changed, Reply, ask},
};
use crate::{FilerId, peers::Member};
use bytes::Bytes;
use openraft::{
    ChangeMembers,
    errors::{ClientWriteError, InitializeError, RaftError},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, timeout, timeout_at};

/// Longest name of a filer, in bytes.
const NAME_BYTES_MAX: usize = 63;
/// Longest address of a filer, in bytes: a host's name and a port.
const ADDRESS_BYTES_MAX: usize = 262;

/// What one step gave.
enum Step {
    /// It is in force as of this index.
    Done(u64),
    /// Look again, and take the next step.
    Next,
    /// Something else is under way; look again after a pause.
    Wait,
    Ended(Changed),
}

impl Consensus {
    /// Founds a CloudFS with this filer as its first member, and returns when it leads. Refused if its tables hold a
    /// log already.
    pub async fn bootstrap(&self, me: Member) -> Result<(), MembershipError> {
        let members = BTreeMap::from([(self.core.me, me)]);
        match self.core.raft.initialize(members).await {
            Ok(()) => {
                // A filer alone needs nobody's vote, so only its disk is waited for.
                let deadline = 10 * self.core.settings.lease();
                match timeout(deadline, self.core.leads()).await {
                    Ok(result) => Ok(result?),
                    Err(_) => Err(self.core.no_majority(deadline).into()),
                }
            }
            Err(RaftError::APIError(InitializeError::NotAllowed(_) | InitializeError::NotInMembers(_))) => {
                Err(MembershipError::AlreadyStarted)
            }
            Err(RaftError::Fatal(error)) => Err(self.core.engine_ended(&error).into()),
        }
    }

    /// Makes filer `id` a member that votes, once it has caught up; or records its new name and address. Can be
    /// asked of any member, and again.
    pub async fn add_member(&self, id: FilerId, member: Member, deadline: Duration) -> Result<(), MembershipError> {
        self.change(Change::Add(id, member), deadline).await
    }

    /// Removes filer `id` for good: its id is never used again. Can be asked of any member, and again.
    pub async fn remove_member(&self, id: FilerId, deadline: Duration) -> Result<(), MembershipError> {
        self.change(Change::Remove(id), deadline).await
    }

    /// Has every filer refuse a certificate from now on, also one whose holder is no member (yet). Can be asked of any
    /// member, and again.
    pub async fn revoke(&self, certificate: Revoked, deadline: Duration) -> Result<(), MembershipError> {
        self.change(Change::Revoke(certificate), deadline).await
    }

    /// The filers that were removed.
    pub fn removed(&self) -> BTreeSet<FilerId> {
        self.core.shared.removed()
    }

    /// Asks the leader, if it is this filer, to hand over to `to`. Returns before it happens, if it does.
    pub async fn transfer_leader(&self, to: FilerId) -> Result<(), ProposeError> {
        self.core.raft.trigger().transfer_leader(to).await.map_err(|e| self.core.engine_ended(&e))
    }

    async fn change(&self, change: Change, deadline: Duration) -> Result<(), MembershipError> {
        let core = &self.core;
        core.check_member()?;
        let until = Instant::now() + deadline;
        let leaves = change == Change::Remove(core.me);
        let changed = async {
            let index = core.change_somewhere(change, until).await?;
            if !leaves {
                core.shared.wait_applied(index).await?;
            }
            Ok(())
        };
        timeout_at(until, changed).await.unwrap_or_else(|_| Err(core.no_majority(deadline).into()))
    }
}

impl Core {
    /// Has the leader carry out a change, through changes of leader.
    async fn change_somewhere(self: &Arc<Self>, change: Change, until: Instant) -> Result<u64, MembershipError> {
        let mut attempts = 0;
        loop {
            self.shared.stopped()?;
            let changed = match self.leader() {
                Some(leader) if leader == self.me => self.change_here(change.clone(), until).await,
                Some(leader) => {
                    let within = until.saturating_duration_since(Instant::now());
                    let call = Call::Change { change: change.clone(), within_ms: within.as_millis() as u64 };
                    match ask(&*self.peers, leader, &call, Bytes::new(), within).await {
                        Ok(Reply::Change(changed)) => changed,
                        Err(AskError::Removed) => {
                            self.shared.dismiss();
                            return Err(ProposeError::NotMember.into());
                        }
                        Ok(_) | Err(_) => Changed::NotLeader,
                    }
                }
                None => Changed::NotLeader,
            };
            match changed {
                Changed::Done(index) => return Ok(index),
                Changed::Refused(error) => return Err(error),
                Changed::NotLeader => self.pause(attempts).await,
            }
            attempts += 1;
        }
    }

    /// Carries out a change as the leader, step by step.
    pub async fn change_here(self: &Arc<Self>, change: Change, until: Instant) -> Changed {
        let began = Instant::now();
        let mut attempts = 0;
        loop {
            let metrics = self.metrics();
            if !metrics.state.is_leader() {
                return Changed::NotLeader;
            }
            let step = match &change {
                _ if is_unfinished(&metrics) => self.finish_step().await,
                Change::Add(id, member) => self.add_step(&metrics, *id, member, began, until).await,
                Change::Remove(id) => self.remove_step(&metrics, *id).await,
                Change::Revoke(certificate) => self.revoke_step(certificate).await,
            };
            match step {
                Step::Done(index) => return Changed::Done(index),
                Step::Ended(changed) => return changed,
                Step::Next => attempts = 0,
                Step::Wait => {
                    self.pause(attempts).await;
                    attempts += 1;
                }
            }
        }
    }

    async fn add_step(&self, metrics: &Metrics, id: FilerId, member: &Member, began: Instant, until: Instant) -> Step {
        if self.shared.is_removed(id) {
            return Step::Ended(Changed::Refused(MembershipError::Removed(id)));
        }
        let membership = metrics.membership_config.membership();
        if let Some(refused) = why_not_called(membership.nodes(), id, member) {
            return Step::Ended(Changed::Refused(refused));
        }
        match membership.get_node(&id) {
            None => self.take(ChangeMembers::AddNodes(BTreeMap::from([(id, member.clone())])), true).await,
            Some(known) if known != member => {
                self.take(ChangeMembers::SetNodes(BTreeMap::from([(id, member.clone())])), true).await
            }
            Some(_) if membership.voter_ids().any(|voter| voter == id) => settled(metrics),
            Some(_) => {
                let after_ms = until.saturating_duration_since(began).as_millis() as u64;
                // Answered a little early, so that the answer still reaches whoever asked.
                let soon = until - until.saturating_duration_since(began) / 10;
                match timeout_at(soon, self.caught_up(id)).await {
                    Ok(true) => self.take(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true).await,
                    Ok(false) => Step::Wait,
                    Err(_) => Step::Ended(Changed::Refused(MembershipError::NotCaughtUp { id, after_ms })),
                }
            }
        }
    }

    async fn remove_step(&self, metrics: &Metrics, id: FilerId) -> Step {
        let membership = metrics.membership_config.membership();
        let removed = self.shared.is_removed(id);
        if membership.get_node(&id).is_none() {
            return match removed {
                true => settled(metrics),
                false => Step::Ended(Changed::Refused(MembershipError::Unknown(id))),
            };
        }
        let voters: BTreeSet<FilerId> = membership.voter_ids().collect();
        if voters == BTreeSet::from([id]) {
            return Step::Ended(Changed::Refused(MembershipError::LastVoter(id)));
        }
        if !removed {
            return match self.write(Command::Remove(id)).await {
                Attempt::Applied { index, .. } => {
                    self.let_know(id, index).await;
                    Step::Next
                }
                Attempt::Again => Step::Wait,
                Attempt::Failed(error) => Step::Ended(Changed::Refused(error.into())),
            };
        }
        if voters.contains(&id) {
            self.take(ChangeMembers::RemoveVoters(BTreeSet::from([id])), false).await
        } else {
            self.take(ChangeMembers::RemoveNodes(BTreeSet::from([id])), false).await
        }
    }

    async fn revoke_step(&self, certificate: &Revoked) -> Step {
        if let Some(fault) = certificate.fault() {
            return Step::Ended(Changed::Refused(MembershipError::Malformed(fault)));
        }
        match self.write(Command::Revoke(certificate.clone())).await {
            Attempt::Applied { index, .. } => Step::Done(index),
            Attempt::Again => Step::Wait,
            Attempt::Failed(error) => Step::Ended(Changed::Refused(error.into())),
        }
    }

    /// The second step of a change that was left behind its first: the voters are those that it wanted, and whom it took the
    /// vote from is no member any more.
    async fn finish_step(&self) -> Step {
        self.take(ChangeMembers::AddVoterIds(BTreeSet::new()), false).await
    }

    /// Takes one step in the log.
    async fn take(&self, change: ChangeMembers<FilerId, Member>, retain: bool) -> Step {
        match self.raft.change_membership(change, retain).await {
            Ok(_) => Step::Next,
            Err(RaftError::Fatal(error)) => Step::Ended(Changed::Refused(self.engine_ended(&error).into())),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_))) => {
                Step::Wait
            }
            Err(RaftError::APIError(error)) => {
                tracing::debug!(%error, "a change of the members has to wait");
                Step::Wait
            }
        }
    }

    /// Waits until this filer leads and knows the members for certain.
    async fn leads(&self) -> Result<(), ProposeError> {
        let mut metrics = self.raft.metrics();
        loop {
            let now = self.metrics();
            if now.state.is_leader() && now.committed_membership_config.get_node(&self.me).is_some() {
                return Ok(());
            }
            if !metrics.wait().await {
                return Err(self.engine_ended(&"the engine has ended"));
            }
        }
    }

    /// Waits until a learner is close enough to the end of the log; `false` if this filer no longer leads.
    async fn caught_up(&self, id: FilerId) -> bool {
        let mut metrics = self.raft.metrics();
        loop {
            let now = self.metrics();
            let Some(followers) = now.replication else { return false };
            let matched = followers.get(&id).copied().flatten().map(|log_id| log_id.index());
            let near = self.settings.append_entries_max;
            if matched.is_some_and(|index| index + near >= now.last_log_index.unwrap_or(0)) {
                return true;
            }
            if !metrics.wait().await {
                return false;
            }
        }
    }

    /// Gives a filer that leaves the time to receive the entry that says so, if it can be reached at all.
    async fn let_know(&self, id: FilerId, index: u64) {
        if id == self.me {
            return;
        }
        let mut metrics = self.raft.metrics();
        let received = async {
            loop {
                let now = self.metrics();
                let Some(followers) = now.replication else { return };
                let matched = followers.get(&id).copied().flatten().map(|log_id| log_id.index());
                if matched >= Some(index) || !metrics.wait().await {
                    return;
                }
            }
        };
        if timeout(self.settings.lease(), received).await.is_ok() {
            // With the next sign of life it learns that the entry is committed.
            tokio::time::sleep(Duration::from_millis(2 * self.settings.heartbeat_ms)).await;
        }
    }
}

/// Why a filer may not have this name or this address; `members` are those that there are.
fn why_not_called<'a>(
    members: impl Iterator<Item = (&'a FilerId, &'a Member)>,
    id: FilerId,
    member: &Member,
) -> Option<MembershipError> {
    let (name, address) = (&member.name, &member.address);
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Some(MembershipError::Malformed(format!("{name:?} is no name of a filer")));
    }
    let split = address.rsplit_once(':').filter(|(host, _)| !host.is_empty() && address.len() <= ADDRESS_BYTES_MAX);
    if split.and_then(|(_, port)| port.parse::<u16>().ok()).is_none_or(|port| port == 0) {
        return Some(MembershipError::Malformed(format!("{address:?} is no address of a filer, as host:port")));
    }
    let mut others = members.filter(|(other, _)| **other != id);
    others.find_map(|(by, other)| {
        let taken =
            |what: &str, value: &str| MembershipError::Taken { what: what.into(), value: value.into(), by: *by };
        if other.name == *name {
            Some(taken("name", name))
        } else if other.address == *address {
            Some(taken("address", address))
        } else {
            None
        }
    })
}

/// Finishes, while this filer leads, changes of the members that were left between their two steps.
///
/// Whoever asked for a change takes both steps, unless it dies or its time is over, and it may be that nobody asks again: a
/// filer that was to be added takes part by then. Two sets of voters must agree until it is finished, so the loss of one filer of
/// two old ones would end the CloudFS although two of three are left.
pub async fn finish(core: Arc<Core>) {
    let mut attempts = 0;
    loop {
        core.unfinished.notified().await;
        // Whoever asked is rarely gone.
        tokio::time::sleep(Duration::from_millis(2 * core.settings.heartbeat_ms)).await;
        while core.look(is_mine_to_finish) {
            match timeout(core.settings.lease(), core.finish_step()).await {
                Ok(Step::Ended(_)) => return,
                Ok(Step::Wait) => {
                    core.pause(attempts).await;
                    attempts += 1;
                }
                Ok(_) => {
                    tracing::info!("a change of the members that was left behind its first step is finished");
                    attempts = 0;
                }
                // It may be in the log by now: the next look tells.
                Err(_) => {}
            }
        }
    }
}

/// Whether this filer leads, and a change is to be finished.
pub fn is_mine_to_finish(metrics: &Metrics) -> bool {
    metrics.state.is_leader() && is_unfinished(metrics)
}

/// Whether a change is between its two steps, both of whose majorities are needed until it is finished.
fn is_unfinished(metrics: &Metrics) -> bool {
    let committed = metrics.committed_membership_config.log_id() == metrics.membership_config.log_id();
    committed && metrics.membership_config.get_joint_config().len() > 1
}

/// Done, if the members known here are committed.
fn settled(metrics: &Metrics) -> Step {
    let log_id = *metrics.membership_config.log_id();
    if *metrics.committed_membership_config.log_id() == log_id && !is_unfinished(metrics) {
        Step::Done(log_id.map_or(0, |log_id| log_id.index()))
    } else {
        Step::Wait
    }
}
