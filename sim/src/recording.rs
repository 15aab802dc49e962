//! What people want to see of a run: faults, states, events and amounts over time.
//!
//! It is kept in every run, so that a run that is looked at is the very run that failed.

use mesh::FilerId;
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard};
use storage::{cloudfs::CloudState, ids::CloudId};

/// Most entries of one kind that are kept: a run of a day has not more.
const ENTRIES_MAX: usize = 200_000;

/// Where something is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    World,
    Filer(FilerId),
    Cloud(CloudId),
}

/// Something with a beginning and an end.
#[derive(Clone, Debug)]
pub struct Band {
    pub lane: Lane,
    pub from_ms: u64,
    pub to_ms: u64,
    pub text: String,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Mark {
    pub lane: Lane,
    pub at_ms: u64,
    pub text: String,
}

/// A client's call that took long.
#[derive(Clone, Copy, Debug)]
pub struct Stall {
    pub site: FilerId,
    pub from_ms: u64,
    pub to_ms: u64,
}

/// A filer at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FilerNow {
    pub staged_bytes: u64,
    /// Age of the oldest byte that is in no cloud yet; 0: there is none.
    pub unprotected_ms: u64,
    /// The epoch that it knows.
    pub epoch: u64,
    /// Whether it follows a leader, or leads.
    pub leader: Option<u64>,
}

/// A cloud at a moment, as the newest tables have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloudNow {
    pub state: CloudState,
    pub active: bool,
    /// Rows of its missed-write log.
    pub missed: u64,
}

/// A moment.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at_ms: u64,
    /// Those that run.
    pub filers: Vec<(FilerId, FilerNow)>,
    pub clouds: Option<[CloudNow; 2]>,
}

/// Everything that was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub faults: Vec<Band>,
    pub marks: Vec<Mark>,
    pub stalls: Vec<Stall>,
    pub samples: Vec<Sample>,
}

/// The recording of a run. A clone is another handle.
#[derive(Clone, Default)]
pub struct Recording(Arc<Mutex<Seen>>);

fn keep<T>(all: &mut Vec<T>, one: T) {
    if all.len() < ENTRIES_MAX {
        all.push(one);
    }
}

impl Recording {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("no holder of the recording panics")
    }

    /// A fault begins, and lasts for so long; 0: it is a matter of a moment.
    pub fn fault(&self, lane: Lane, at_ms: u64, for_ms: u64, text: String) {
        let mut seen = self.seen();
        match for_ms {
            0 => keep(&mut seen.marks, Mark { lane, at_ms, text }),
            _ => keep(&mut seen.faults, Band { lane, from_ms: at_ms, to_ms: at_ms + for_ms, text }),
        }
    }

    /// Something happened.
    pub fn mark(&self, lane: Lane, at_ms: u64, text: String) {
        keep(&mut self.seen().marks, Mark { lane, at_ms, text });
    }

    /// A client waited.
    pub fn stall(&self, stall: Stall) {
        keep(&mut self.seen().stalls, stall);
    }

    /// A moment was looked at.
    pub fn sample(&self, sample: Sample) {
        keep(&mut self.seen().samples, sample);
    }

    /// What was seen. Faults end when all is mended, at `mended_ms`.
    pub fn take(&self, mended_ms: Option<u64>) -> Seen {
        let mut seen = std::mem::take(&mut *self.seen());
        if let Some(mended_ms) = mended_ms {
            seen.faults.iter_mut().for_each(|band| band.to_ms = band.to_ms.min(mended_ms.max(band.from_ms)));
        }
        seen
    }
}
