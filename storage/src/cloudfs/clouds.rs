//! Roles and states of the two clouds: which one serves reads, which must give receipts, and who may change that.
//!
//! ```text
//!               Trip               StartResync: every live filer reaches it
//!   healthy ----------->  failed  -----------------------------------------> resyncing
//!      ^                     ^                                                 |   |
//!      |                     '---------------------- Trip ---------------------'   |
//!      '-------------------------- FinishResync: nothing is missed ----------------'
//! ```
//!
//! Every change raises the epoch by one and is kept as a [`Decision`]. The active cloud is healthy and has missed
//! nothing, always: whatever would break that is refused.

use super::{
    applying::{Applying, Stop, invalid},
    keys,
    ops::{Answer, BY_OPERATOR, OpError},
    read::{self, damaged},
    types::*,
};
use crate::ids::{CloudId, Epoch};
use mesh::{FilerId, words::counted};
use std::collections::BTreeMap;

/// A state as a word in a sentence.
fn word(state: CloudState) -> &'static str {
    match state {
        CloudState::Healthy => "healthy",
        CloudState::Failed => "failed",
        CloudState::Resyncing => "resyncing",
    }
}

/// The beginning of a text, at most [`TEXT_BYTES_MAX`] long.
fn shortened(mut text: String) -> String {
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text.truncate(end);
    text
}

/// Why a cloud cannot be active, as a sentence; `None` when it can.
fn why_not_active(roles: &Roles, cloud: CloudId) -> Option<String> {
    let status = roles.cloud(cloud);
    let pieces = status.missed_puts + status.missed_deletes;
    let missing = match (status.missed_puts, status.missed_deletes) {
        (0, 0) => "has missed nothing yet".to_string(),
        (puts, 0) => format!("misses {}", counted(puts, "piece")),
        (puts, deletes) => format!("misses {} and {}", counted(puts, "piece"), counted(deletes, "delete")),
    };
    let fit = status.state == CloudState::Healthy && pieces == 0;
    (!fit).then(|| format!("cloud {cloud} is {} and {missing}", word(status.state)))
}

/// How many filers see a cloud failing under these roles; each counts once, by its last ballot.
fn seen_failing_by(ballots: &[Ballot], cloud: CloudId, epoch: Epoch) -> u64 {
    let by_filer: BTreeMap<FilerId, bool> = ballots
        .iter()
        .filter(|ballot| ballot.epoch == epoch)
        .map(|ballot| (ballot.filer, ballot.views[cloud.index()]))
        .map(|(filer, view)| (filer, view.reachable == Some(false) || view.failures > 0 || view.slow))
        .collect();
    by_filer.values().filter(|failing| **failing).count() as u64
}

impl Applying<'_, '_> {
    /// The roles, if `epoch` is still theirs.
    pub(super) fn roles_at(&self, epoch: Epoch) -> Result<Roles, Stop> {
        let roles = read::roles(self)?.ok_or_else(|| damaged("the roles of the clouds are missing"))?;
        if roles.epoch == epoch {
            Ok(roles)
        } else {
            Err(OpError::StaleEpoch { got: epoch, current: roles.epoch }.into())
        }
    }

    pub(super) fn put_roles(&mut self, roles: &Roles) {
        self.put(keys::roles(), roles);
    }

    fn record(&mut self, decision: &Decision) {
        let number = self.counters.next_decision;
        self.counters.next_decision += 1;
        self.put(keys::decision(number), decision);
        if let Some(oldest) = number.checked_sub(DECISIONS_KEPT_MAX as u64) {
            self.txn.delete(keys::decision(oldest));
        }
    }

    /// Brings new roles or states into force: the next epoch, and a decision on record.
    fn decide(&mut self, mut roles: Roles, cloud: CloudId, text: String, ballots: Vec<Ballot>) -> Answer {
        roles.epoch.0 += 1;
        for status in &mut roles.clouds {
            status.reached_by.clear();
        }
        let (epoch, at_ns, filer) = (roles.epoch, self.now_ns, self.filer);
        self.record(&Decision { epoch, at_ns, filer, cloud, text, ballots, carried: true });
        self.put_roles(&roles);
        Answer::Roles(roles)
    }

    /// Refuses a trip and keeps that on record, once for each filer, cloud and epoch.
    fn refuse_trip(&mut self, roles: &Roles, cloud: CloudId, why: String, ballots: Vec<Ballot>) -> Result<Stop, Stop> {
        let (epoch, at_ns, filer) = (roles.epoch, self.now_ns, self.filer);
        let known = read::decisions(self, DECISIONS_KEPT_MAX)?
            .iter()
            .take_while(|past| past.epoch == epoch)
            .any(|past| !past.carried && past.cloud == cloud && past.filer == filer);
        let error = OpError::Refused(why.clone());
        if known {
            return Ok(Stop::Refused(error));
        }
        self.record(&Decision { epoch, at_ns, filer, cloud, text: why, ballots, carried: false });
        Ok(Stop::Recorded(error))
    }

    fn set_state(&self, roles: &mut Roles, cloud: CloudId, state: CloudState, why: Option<String>) {
        let status = &mut roles.clouds[cloud.index()];
        (status.state, status.since_ns, status.why) = (state, self.now_ns, why);
    }

    pub(super) fn format(&mut self, preferred: CloudId) -> Result<Answer, Stop> {
        let now = self.now_ns;
        let root = Attr {
            handle: ROOT,
            kind: NodeKind::Directory { parent: ROOT.ino },
            // Like /tmp: doors squash root, so that anybody must be able to begin a tree of their own.
            mode: 0o1777,
            nlink: 2,
            uid: 0,
            gid: 0,
            bytes: DIRECTORY_BYTES,
            atime_ns: now,
            mtime_ns: now,
            ctime_ns: now,
            create_verifier: None,
        };
        self.put_attr(&root);
        let roles = Roles::new(Epoch(1), preferred, preferred, [CloudState::Healthy; 2], now);
        self.put_roles(&roles);
        Ok(Answer::Roles(roles))
    }

    /// `majority_of`: how many voters there are, where most of them must see the cloud failing. A voter that gave no ballot
    /// does not see it.
    pub(super) fn trip(
        &mut self,
        cloud: CloudId,
        epoch: Epoch,
        why: String,
        ballots: Vec<Ballot>,
        majority_of: Option<u64>,
    ) -> Result<Answer, Stop> {
        let mut roles = self.roles_at(epoch)?;
        if ballots.len() > BALLOTS_MAX {
            return Err(invalid(format!("more than {BALLOTS_MAX} ballots")).into());
        }
        if roles.cloud(cloud).state == CloudState::Failed {
            return Err(OpError::Refused(format!("cloud {cloud} has failed already")).into());
        }
        let why = shortened(why);
        if let Some(voters) = majority_of {
            let seen_by = seen_failing_by(&ballots, cloud, epoch);
            // Never fewer voters than have voted: a count that is too low must not make a majority of a minority.
            if seen_by * 2 <= voters.max(ballots.len() as u64) {
                let text =
                    format!("cloud {cloud} tripped ({why}), but only {seen_by} of {voters} filers see it failing");
                return Err(self.refuse_trip(&roles, cloud, text, ballots)?);
            }
        }
        let other = cloud.other();
        let is_active = roles.active == cloud;
        if let Some(reason) = why_not_active(&roles, other).filter(|_| is_active) {
            let text = format!(
                "cloud {cloud} tripped ({why}), but {reason}: a CloudFS never moves to a cloud that is not consistent"
            );
            return Err(self.refuse_trip(&roles, cloud, text, ballots)?);
        }
        let text = if is_active {
            roles.active = other;
            roles.held_by_operator = false;
            format!("cloud {cloud} has failed ({why}); cloud {other} is active now")
        } else {
            format!("standby cloud {cloud} has failed ({why}); what it misses is logged")
        };
        self.set_state(&mut roles, cloud, CloudState::Failed, Some(why));
        Ok(self.decide(roles, cloud, text, ballots))
    }

    pub(super) fn reached(&mut self, cloud: CloudId, epoch: Epoch, reached: bool) -> Result<Answer, Stop> {
        let mut roles = self.roles_at(epoch)?;
        let status = &mut roles.clouds[cloud.index()];
        if status.state != CloudState::Failed {
            return Err(OpError::Refused(format!("cloud {cloud} is {}, not failed", word(status.state))).into());
        }
        match status.reached_by.binary_search(&self.filer) {
            Err(at) if reached => status.reached_by.insert(at, self.filer),
            Ok(at) if !reached => {
                status.reached_by.remove(at);
            }
            _ => {}
        }
        self.put_roles(&roles);
        Ok(Answer::Roles(roles))
    }

    pub(super) fn start_resync(&mut self, cloud: CloudId, epoch: Epoch, live: &[FilerId]) -> Result<Answer, Stop> {
        let mut roles = self.roles_at(epoch)?;
        let status = roles.cloud(cloud);
        if status.state != CloudState::Failed {
            return Err(OpError::Refused(format!("cloud {cloud} is {}, not failed", word(status.state))).into());
        }
        // The proposer is alive, whether or not it counted itself.
        let missing: Vec<String> = std::iter::once(&self.filer)
            .chain(live.iter().filter(|filer| **filer != self.filer))
            .filter(|filer| status.reached_by.binary_search(filer).is_err())
            .map(FilerId::to_string)
            .collect();
        if !missing.is_empty() {
            let text = format!("cloud {cloud} is not reached by filer {}", missing.join(", "));
            return Err(OpError::Refused(shortened(text)).into());
        }
        let (puts, deletes) = (counted(status.missed_puts, "put"), counted(status.missed_deletes, "delete"));
        let why = format!("{puts} and {deletes} are copied back");
        let text = format!("every live filer reaches cloud {cloud} again; {why}");
        self.set_state(&mut roles, cloud, CloudState::Resyncing, Some(why));
        Ok(self.decide(roles, cloud, text, Vec::new()))
    }

    pub(super) fn finish_resync(&mut self, cloud: CloudId, epoch: Epoch) -> Result<Answer, Stop> {
        let mut roles = self.roles_at(epoch)?;
        let status = roles.cloud(cloud);
        if status.state != CloudState::Resyncing {
            return Err(OpError::Refused(format!("cloud {cloud} is {}, not resyncing", word(status.state))).into());
        }
        if status.missed_puts + status.missed_deletes > 0 {
            let (puts, deletes) = (status.missed_puts, status.missed_deletes);
            let text = format!("cloud {cloud} still misses {puts} puts and {deletes} deletes");
            return Err(OpError::Refused(text).into());
        }
        if !read::missed(self, cloud, None, 1)?.is_empty() {
            return Err(damaged(format!("cloud {cloud} has rows in its missed-write log, but none are counted")).into());
        }
        self.set_state(&mut roles, cloud, CloudState::Healthy, None);
        Ok(self.decide(roles, cloud, format!("cloud {cloud} has everything again and is healthy"), Vec::new()))
    }

    pub(super) fn activate(&mut self, to: CloudId, epoch: Epoch, by: String) -> Result<Answer, Stop> {
        let mut roles = self.roles_at(epoch)?;
        if roles.active == to {
            return Err(OpError::Refused(format!("cloud {to} is active already")).into());
        }
        if let Some(reason) = why_not_active(&roles, to) {
            return Err(OpError::Refused(format!("cloud {to} cannot become active: {reason}")).into());
        }
        roles.active = to;
        roles.held_by_operator = by == BY_OPERATOR && to != roles.preferred;
        let text = format!("cloud {to} is active now (by {})", shortened(by));
        Ok(self.decide(roles, to, text, Vec::new()))
    }
}
