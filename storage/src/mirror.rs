//! From a sealed segment to its release: puts to both clouds at once, receipts, the proposal, the release.
//!
//! Owns: which segment is put where and when, and when a segment may be released. Does not own: the attempt itself
//! (`cloud`), the failure counts (`health`), the rule that accepts a release (`cloudfs`).
//!
//! ```text
//! Sealed -> Put to every cloud that is not failed -> receipts -> Propose (under the epoch) -> accepted -> Release
//!                    ^  back-off, same piece  |                     | refused: look at the new roles
//! ```

mod puts;

use crate::{
    backoff::{Backoff, due::Due},
    cloudfs::{CloudState, Roles},
    ids::{CloudId, Epoch, Md5, SegmentId},
};
use mesh::clock::Random;
use puts::Puts;
use std::collections::{BTreeMap, BTreeSet};

/// Limits of the mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Puts under way at one time to one cloud.
    pub puts_in_flight_max: usize,
    /// Waits between two attempts at one piece.
    pub attempt_backoff: Backoff,
    /// Wait after an unanswered proposal, in milliseconds.
    pub propose_again_ms: u64,
    /// Within this time after it was begun a put arrives, or it never does, in milliseconds. What was mended is not put before: a
    /// put of what it was earlier could arrive behind it, and its receipt would be for something else than the cloud has.
    pub put_arrives_ms_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            puts_in_flight_max: 8,
            attempt_backoff: Backoff { ms_min: 20, ms_max: 1000 },
            propose_again_ms: 500,
            put_arrives_ms_max: 1_800_000,
        }
    }
}

/// How a put ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutEnd {
    /// With a receipt.
    Receipt,
    /// The attempt failed.
    Failed,
    /// It was not attempted: the roles say that this cloud has failed, or too many wait for their turn at it.
    NotTried,
}

/// How a proposal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposalEnd {
    /// The segment is on record.
    Accepted,
    /// The roles have changed: judge again.
    Refused,
    /// No answer: ask again later.
    Unanswered,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A segment is sealed and synced in staging. `flushed`: whatever refers to it is on record already.
    Sealed {
        segment: SegmentId,
        bytes: u64,
        md5: Md5,
        flushed: bool,
    },
    /// A pending segment was damaged before any cloud had it, and mended: this is what is to be put now.
    Mended {
        segment: SegmentId,
        bytes: u64,
        md5: Md5,
    },
    /// The cloud has lost a pending segment behind its receipt, which proves nothing any more.
    Lost {
        cloud: CloudId,
        segment: SegmentId,
    },
    /// Whatever refers to it is on record.
    Flushed {
        segment: SegmentId,
    },
    Roles(Roles),
    Put {
        cloud: CloudId,
        segment: SegmentId,
        end: PutEnd,
    },
    Proposed {
        segment: SegmentId,
        end: ProposalEnd,
    },
    /// The deadline passed.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Attempt one put.
    Put { cloud: CloudId, segment: SegmentId, md5: Md5 },
    /// Give up an attempt under way: its cloud has failed, or its miss is on record. It may answer all the same.
    Cancel { cloud: CloudId, segment: SegmentId },
    /// Propose that it is stored.
    Propose { segment: SegmentId, bytes: u64, md5: Md5, copies: [bool; 2], epoch: Epoch },
    /// It may be evicted from the filer's disk.
    Release { segment: SegmentId },
}

#[derive(Clone, Copy, Debug, Default)]
struct Attempts {
    receipt: bool,
    in_flight: bool,
    failures: u32,
    /// Not to be tried before.
    at_ms: u64,
    /// Failed at least once since the cloud began to resync.
    missed: bool,
}

impl Attempts {
    fn waits(&self) -> bool {
        !self.receipt && !self.in_flight
    }
}

#[derive(Debug)]
struct Pending {
    bytes: u64,
    md5: Md5,
    flushed: bool,
    clouds: [Attempts; 2],
    /// No put is begun before.
    puts_from_ms: u64,
    proposing: bool,
    propose_at_ms: u64,
}

/// The machine.
#[derive(Debug)]
pub struct Mirror {
    settings: Settings,
    roles: Option<Roles>,
    /// In the order sealed: segments of one filer are numbered in that order.
    pending: BTreeMap<SegmentId, Pending>,
    puts: [Puts; 2],
    /// What is complete, and when it is to be proposed.
    proposals: Due<SegmentId>,
}

impl Mirror {
    /// A mirror with nothing to do.
    pub fn new(settings: Settings) -> Self {
        let (roles, pending, puts, proposals) = Default::default();
        Self { settings, roles, pending, puts, proposals }
    }

    /// Segments that are sealed and not yet released.
    pub fn pending(&self) -> impl Iterator<Item = SegmentId> + '_ {
        self.pending.keys().copied()
    }

    /// Which clouds have given a receipt for a pending segment.
    pub fn receipts(&self, segment: SegmentId) -> Option<[bool; 2]> {
        Some(self.pending.get(&segment)?.clouds.map(|cloud| cloud.receipt))
    }

    /// The MD5 of a pending segment.
    pub fn md5(&self, segment: SegmentId) -> Option<Md5> {
        Some(self.pending.get(&segment)?.md5)
    }

    /// Which clouds a pending segment is being put to.
    pub fn under_way(&self, segment: SegmentId) -> Option<[bool; 2]> {
        Some(self.pending.get(&segment)?.clouds.map(|cloud| cloud.in_flight))
    }

    /// When to call again with [`Input::Tick`].
    pub fn deadline_ms(&self) -> Option<u64> {
        let roles = self.roles.as_ref()?;
        // What waits for an answer, or for room, has no time of its own.
        let with_room = CloudId::BOTH.into_iter().filter(|cloud| self.room(roles, *cloud) > 0);
        let puts = with_room.filter_map(|cloud| self.puts[cloud.index()].next_ms());
        puts.chain(self.proposals.first_ms()).min()
    }

    /// How many more puts to a cloud may be begun.
    fn room(&self, roles: &Roles, cloud: CloudId) -> usize {
        if roles.cloud(cloud).state == CloudState::Failed {
            return 0;
        }
        self.settings.puts_in_flight_max.saturating_sub(self.puts[cloud.index()].under_way())
    }

    /// Notes what a segment waits for: to be called whenever it, or what the roles ask of it, has changed.
    fn note(&mut self, segment: SegmentId) {
        // What is being proposed is not put meanwhile.
        let pending = self.pending.get(&segment);
        let idle = pending.filter(|pending| !pending.proposing);
        for (cloud, puts) in self.puts.iter_mut().enumerate() {
            let in_flight = pending.is_some_and(|pending| pending.clouds[cloud].in_flight);
            let waits = idle.filter(|pending| pending.clouds[cloud].waits());
            puts.set(segment, in_flight, waits.map(|pending| pending.clouds[cloud].at_ms.max(pending.puts_from_ms)));
        }
        let is_complete = |pending: &&Pending| self.roles.as_ref().is_some_and(|roles| complete(roles, pending));
        let propose = idle.filter(|pending| pending.flushed).filter(is_complete);
        self.proposals.set(segment, propose.map(|pending| pending.propose_at_ms));
    }

    /// Takes an input, gives what to do.
    pub fn handle(&mut self, now_ms: u64, random: &dyn Random, input: Input) -> Vec<Output> {
        let mut outputs = Vec::new();
        match input {
            Input::Sealed { segment, bytes, md5, flushed } => {
                let clouds = [Attempts { at_ms: now_ms, ..Attempts::default() }; 2];
                let pending =
                    Pending { bytes, md5, flushed, clouds, puts_from_ms: now_ms, proposing: false, propose_at_ms: 0 };
                self.pending.entry(segment).or_insert(pending);
                self.note(segment);
            }
            Input::Mended { segment, bytes, md5 } => {
                if let Some(pending) = self.pending.get_mut(&segment).filter(|pending| pending.md5 != md5) {
                    // A receipt proves what it was given for, and nothing of what takes its place.
                    let clouds =
                        pending.clouds.map(|cloud| Attempts { receipt: false, missed: false, at_ms: now_ms, ..cloud });
                    (pending.bytes, pending.md5, pending.clouds) = (bytes, md5, clouds);
                    pending.puts_from_ms = now_ms.saturating_add(self.settings.put_arrives_ms_max);
                    self.note(segment);
                }
            }
            Input::Lost { cloud, segment } => {
                let receipt = |pending: &&mut Pending| pending.clouds[cloud.index()].receipt;
                if let Some(pending) = self.pending.get_mut(&segment).filter(receipt) {
                    let attempts = &mut pending.clouds[cloud.index()];
                    (attempts.receipt, attempts.at_ms) = (false, now_ms);
                    self.note(segment);
                }
            }
            Input::Flushed { segment } => {
                if let Some(pending) = self.pending.get_mut(&segment) {
                    pending.flushed = true;
                    self.note(segment);
                }
            }
            Input::Roles(roles) => self.roles_changed(roles, &mut outputs),
            Input::Put { cloud, segment, end } => self.put_ended(now_ms, random, cloud, segment, end),
            Input::Proposed { segment, end } => self.proposed(now_ms, segment, end, &mut outputs),
            Input::Tick => {}
        }
        self.orders(now_ms, &mut outputs);
        outputs
    }

    fn roles_changed(&mut self, roles: Roles, outputs: &mut Vec<Output>) {
        let mut changed = false;
        for cloud in CloudId::BOTH {
            let state = roles.cloud(cloud).state;
            if self.roles.as_ref().is_some_and(|old| old.cloud(cloud).state == state) {
                continue;
            }
            changed = true;
            for (segment, pending) in &mut self.pending {
                let attempts = &mut pending.clouds[cloud.index()];
                if attempts.in_flight && state == CloudState::Failed {
                    outputs.push(Output::Cancel { cloud, segment: *segment });
                    attempts.in_flight = false;
                }
                *attempts =
                    Attempts { receipt: attempts.receipt, in_flight: attempts.in_flight, ..Attempts::default() };
            }
        }
        self.roles = Some(roles);
        if changed {
            self.pending.keys().copied().collect::<Vec<_>>().into_iter().for_each(|segment| self.note(segment));
        }
    }

    fn put_ended(&mut self, now_ms: u64, random: &dyn Random, cloud: CloudId, segment: SegmentId, end: PutEnd) {
        let Some(pending) = self.pending.get_mut(&segment) else {
            return;
        };
        let attempts = &mut pending.clouds[cloud.index()];
        let was_in_flight = std::mem::take(&mut attempts.in_flight);
        match end {
            // A cloud that proves it has it, has it, however late.
            PutEnd::Receipt => attempts.receipt = true,
            // A cancelled attempt says nothing of the state that the cloud is in now.
            _ if !was_in_flight => {}
            PutEnd::Failed => {
                attempts.failures = attempts.failures.saturating_add(1);
                attempts.missed = true;
                attempts.at_ms = now_ms + self.settings.attempt_backoff.wait_ms(attempts.failures, random);
            }
            PutEnd::NotTried => attempts.at_ms = now_ms + self.settings.attempt_backoff.ms_max,
        }
        self.note(segment);
    }

    fn proposed(&mut self, now_ms: u64, segment: SegmentId, end: ProposalEnd, outputs: &mut Vec<Output>) {
        let Some(pending) = self.pending.get_mut(&segment) else {
            return;
        };
        pending.proposing = false;
        match end {
            ProposalEnd::Accepted => {
                for cloud in CloudId::BOTH {
                    if pending.clouds[cloud.index()].in_flight {
                        outputs.push(Output::Cancel { cloud, segment });
                    }
                }
                self.pending.remove(&segment);
                outputs.push(Output::Release { segment });
            }
            // A refusal that is not followed by new roles must not spin.
            ProposalEnd::Refused | ProposalEnd::Unanswered => {
                pending.propose_at_ms = now_ms + self.settings.propose_again_ms;
            }
        }
        self.note(segment);
    }

    fn orders(&mut self, now_ms: u64, outputs: &mut Vec<Output>) {
        let Some(epoch) = self.roles.as_ref().map(|roles| roles.epoch) else {
            return;
        };
        for cloud in CloudId::BOTH {
            self.puts[cloud.index()].ripen(now_ms);
            while self.roles.as_ref().is_some_and(|roles| self.room(roles, cloud) > 0) {
                let Some(segment) = self.puts[cloud.index()].next() else {
                    break;
                };
                let pending = self.pending.get_mut(&segment).expect("what is due is pending");
                pending.clouds[cloud.index()].in_flight = true;
                outputs.push(Output::Put { cloud, segment, md5: pending.md5 });
                self.note(segment);
            }
        }
        let due: BTreeSet<SegmentId> = self.proposals.until(now_ms).map(|(segment, _)| segment).collect();
        for segment in due {
            let pending = self.pending.get_mut(&segment).expect("what is due is pending");
            pending.proposing = true;
            pending.propose_at_ms = 0;
            let (bytes, md5, copies) = (pending.bytes, pending.md5, pending.clouds.map(|cloud| cloud.receipt));
            outputs.push(Output::Propose { segment, bytes, md5, copies, epoch });
            self.note(segment);
        }
    }
}

/// Whether nothing more is to be had for a segment under these roles.
fn complete(roles: &Roles, pending: &Pending) -> bool {
    let enough = CloudId::BOTH.into_iter().all(|cloud| {
        let attempts = pending.clouds[cloud.index()];
        match roles.cloud(cloud).state {
            CloudState::Healthy => attempts.receipt,
            CloudState::Resyncing => attempts.receipt || attempts.missed,
            CloudState::Failed => true,
        }
    });
    enough && pending.clouds.iter().any(|cloud| cloud.receipt)
}

#[cfg(test)]
mod tests;
