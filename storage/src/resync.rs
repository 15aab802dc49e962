//! Drains the missed-write log into a cloud that is back.
//!
//! Owns: the order and pace of one filer's part of the draining. Does not own: the log (`cloudfs`), nor when a resync
//! begins and ends (`health` asks, `cloudfs` decides). Each row belongs to the filer that packed its segment, while
//! that filer lives, and otherwise to the leader; two filers doing the same row do no harm.
//!
//! A row that fails waits, longer each time, and takes no room from the others: it holds up none, and is never skipped.
//! The waits of so many failing rows are remembered; should there be more, the rest is left to the next pass over the log,
//! which begins a longest wait later, so that no row is ever tried in a tight loop. A row's age is the log's.

pub mod sweep;

use crate::{
    backoff::Backoff,
    cloudfs::{CloudState, Miss, Roles},
    ids::{CloudId, Epoch, SegmentId},
};
use mesh::{FilerId, clock::Random};
use std::collections::BTreeMap;

/// Limits of a resync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Rows under way at one time for one cloud.
    pub rows_in_flight_max: usize,
    /// Rows held in memory for one cloud that have not failed; between half of it and the whole are asked for at a time.
    pub rows_held_max: usize,
    /// Rows that have failed whose waits are remembered, for one cloud.
    pub rows_failing_max: usize,
    /// Waits between two attempts at one row.
    pub attempt_backoff: Backoff,
    /// Wait before an empty or finished log is looked at again, in milliseconds.
    pub look_again_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rows_in_flight_max: 8,
            rows_held_max: 1024,
            rows_failing_max: 4096,
            attempt_backoff: Backoff { ms_min: 50, ms_max: 5_000 },
            look_again_ms: 500,
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Roles(Roles),
    /// Which filers are live, and who leads.
    Mesh {
        live: Vec<FilerId>,
        leader: Option<FilerId>,
    },
    /// The log's rows behind the place asked for; `more`: others follow.
    Rows {
        cloud: CloudId,
        rows: Vec<Miss>,
        more: bool,
    },
    /// A row was carried out and is off the log (or was found off it already); `bytes` were copied for it.
    Done {
        cloud: CloudId,
        segment: SegmentId,
        bytes: u64,
    },
    /// It was not.
    Failed {
        cloud: CloudId,
        segment: SegmentId,
    },
    /// The deadline passed.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Read up to `limit` rows of a cloud's log behind `after`.
    Look { cloud: CloudId, after: Option<SegmentId>, limit: usize },
    /// Carry out a row and propose that it is done.
    Repair { miss: Miss, epoch: Epoch },
}

/// How far a cloud's resync is, at this filer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub rows_done: u64,
    pub bytes_done: u64,
    /// Failed attempts.
    pub failures: u64,
    /// When it began, in the machine's time; `None` when none is under way.
    pub since_ms: Option<u64>,
}

#[derive(Debug)]
struct Row {
    miss: Miss,
    in_flight: bool,
    failures: u32,
    at_ms: u64,
}

#[derive(Debug, Default)]
struct Drain {
    rows: BTreeMap<SegmentId, Row>,
    looking: bool,
    look_at_ms: u64,
    after: Option<SegmentId>,
    /// The next pass must not begin before: it would meet a row too soon that failed and for which there was no room.
    pass_at_ms: u64,
    /// Whether the next row is the one due for the longest time, or the first in order.
    longest_due_next: bool,
    progress: Progress,
}

/// How many of the rows held are what.
#[derive(Default)]
struct Counts {
    /// Have not failed.
    fresh: usize,
    in_flight: usize,
}

impl Drain {
    fn counts(&self) -> Counts {
        self.rows.values().fold(Counts::default(), |counts, row| Counts {
            fresh: counts.fresh + usize::from(row.failures == 0),
            in_flight: counts.in_flight + usize::from(row.in_flight),
        })
    }
}

/// The machine.
#[derive(Debug)]
pub struct Resync {
    me: FilerId,
    settings: Settings,
    roles: Option<Roles>,
    live: Vec<FilerId>,
    leader: Option<FilerId>,
    drains: [Drain; 2],
}

impl Resync {
    /// A resync with nothing to do.
    pub fn new(me: FilerId, settings: Settings) -> Self {
        Self { me, settings, roles: None, live: vec![me], leader: None, drains: Default::default() }
    }

    /// How far a cloud's resync is, at this filer.
    pub fn progress(&self, cloud: CloudId) -> Progress {
        self.drains[cloud.index()].progress
    }

    /// When to call again with [`Input::Tick`].
    pub fn deadline_ms(&self) -> Option<u64> {
        let roles = self.roles.as_ref()?;
        let due = |cloud: CloudId| {
            let drain = &self.drains[cloud.index()];
            let counts = drain.counts();
            let may_look = !drain.looking && counts.fresh <= self.settings.rows_held_max / 2;
            let look = may_look.then_some(drain.look_at_ms);
            // A row for which there is no room has no time of its own.
            let has_room = self.room(&counts) > 0;
            let rows = has_room.then(|| drain.rows.values().filter(|row| !row.in_flight).map(|row| row.at_ms));
            rows.into_iter().flatten().chain(look).min()
        };
        CloudId::BOTH
            .into_iter()
            .filter(|cloud| roles.cloud(*cloud).state == CloudState::Resyncing)
            .filter_map(due)
            .min()
    }

    /// How many more rows may be begun.
    fn room(&self, counts: &Counts) -> usize {
        self.settings.rows_in_flight_max.saturating_sub(counts.in_flight)
    }

    /// Whether a row is this filer's to carry out.
    fn is_mine(&self, miss: &Miss) -> bool {
        let origin = miss.segment.filer;
        origin == self.me || self.leader == Some(self.me) && !self.live.contains(&origin)
    }

    /// Takes an input, gives what to do.
    pub fn handle(&mut self, now_ms: u64, random: &dyn Random, input: Input) -> Vec<Output> {
        match input {
            Input::Roles(roles) => self.roles_changed(now_ms, roles),
            Input::Mesh { live, leader } => {
                (self.live, self.leader) = (live, leader);
                for cloud in CloudId::BOTH {
                    let mut rows = std::mem::take(&mut self.drains[cloud.index()].rows);
                    rows.retain(|_, row| row.in_flight || self.is_mine(&row.miss));
                    self.drains[cloud.index()].rows = rows;
                }
            }
            Input::Rows { cloud, rows, more } => self.rows(now_ms, cloud, rows, more),
            Input::Done { cloud, segment, bytes } => {
                let drain = &mut self.drains[cloud.index()];
                if drain.rows.remove(&segment).is_some() {
                    drain.progress.rows_done += 1;
                    drain.progress.bytes_done += bytes;
                }
            }
            Input::Failed { cloud, segment } => self.failed(now_ms, random, cloud, segment),
            Input::Tick => {}
        }
        self.orders(now_ms)
    }

    fn failed(&mut self, now_ms: u64, random: &dyn Random, cloud: CloudId, segment: SegmentId) {
        let Settings { attempt_backoff, rows_failing_max, .. } = self.settings;
        let drain = &mut self.drains[cloud.index()];
        let failing = drain.rows.len() - drain.counts().fresh;
        let Some(row) = drain.rows.get_mut(&segment).filter(|row| row.in_flight) else {
            return;
        };
        drain.progress.failures += 1;
        if row.failures == 0 && failing >= rows_failing_max {
            drain.rows.remove(&segment);
            drain.pass_at_ms = now_ms + attempt_backoff.ms_max;
            if drain.after.is_none() && !drain.looking {
                drain.look_at_ms = drain.look_at_ms.max(drain.pass_at_ms);
            }
            return;
        }
        row.in_flight = false;
        row.failures = row.failures.saturating_add(1);
        row.at_ms = now_ms + attempt_backoff.wait_ms(row.failures, random);
    }

    fn roles_changed(&mut self, now_ms: u64, roles: Roles) {
        for cloud in CloudId::BOTH {
            let state = roles.cloud(cloud).state;
            if self.roles.as_ref().is_some_and(|old| old.cloud(cloud).state == state) {
                continue;
            }
            let resyncing = state == CloudState::Resyncing;
            let drain = &mut self.drains[cloud.index()];
            // What a finished resync did stays on show until the next one.
            let progress = if resyncing { Progress::default() } else { drain.progress };
            *drain = Drain { progress, look_at_ms: now_ms, ..Drain::default() };
            drain.progress.since_ms = resyncing.then_some(now_ms);
        }
        self.roles = Some(roles);
    }

    fn rows(&mut self, now_ms: u64, cloud: CloudId, mut rows: Vec<Miss>, mut more: bool) {
        let drain = &self.drains[cloud.index()];
        if !drain.looking {
            return;
        }
        let room = self.settings.rows_held_max.saturating_sub(drain.counts().fresh);
        more = more && !rows.is_empty() || rows.len() > room;
        rows.truncate(room);
        let last = rows.last().filter(|_| more).copied();
        let after = last.map(|miss| {
            // Rows are in order of filer: those of one that drains its own need not be read.
            let number = if self.is_mine(&miss) { miss.segment.number } else { u64::MAX };
            SegmentId { number, ..miss.segment }
        });
        rows.retain(|miss| self.is_mine(miss));
        let again_ms = now_ms + self.settings.look_again_ms;
        let drain = &mut self.drains[cloud.index()];
        (drain.looking, drain.after) = (false, after);
        for miss in rows {
            let row = Row { miss, in_flight: false, failures: 0, at_ms: now_ms };
            // What a segment's row says may have changed: its put became a delete.
            drain.rows.entry(miss.segment).or_insert(row).miss = miss;
        }
        drain.look_at_ms = if more { now_ms } else { again_ms.max(drain.pass_at_ms) };
    }

    fn orders(&mut self, now_ms: u64) -> Vec<Output> {
        let Some(roles) = &self.roles else {
            return Vec::new();
        };
        let mut outputs = Vec::new();
        for cloud in CloudId::BOTH.into_iter().filter(|cloud| roles.cloud(*cloud).state == CloudState::Resyncing) {
            let counts = self.drains[cloud.index()].counts();
            let room = self.room(&counts);
            let drain = &mut self.drains[cloud.index()];
            if !drain.looking && now_ms >= drain.look_at_ms && counts.fresh <= self.settings.rows_held_max / 2 {
                drain.looking = true;
                let limit = self.settings.rows_held_max - counts.fresh;
                outputs.push(Output::Look { cloud, after: drain.after, limit });
            }
            for _ in 0..room {
                let mut due = drain.rows.values_mut().filter(|row| !row.in_flight && now_ms >= row.at_ms);
                // The first in order half of the time: one that keeps failing reaches the count that trips the cloud,
                // however many wait. The others go by turns, so that none waits for ever behind those that fail.
                let next = if drain.longest_due_next { due.min_by_key(|row| row.at_ms) } else { due.next() };
                let Some(row) = next else {
                    break;
                };
                row.in_flight = true;
                drain.longest_due_next = !drain.longest_due_next;
                outputs.push(Output::Repair { miss: row.miss, epoch: roles.epoch });
            }
        }
        outputs
    }
}

#[cfg(test)]
mod tests;
