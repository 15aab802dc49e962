//! What people want to see of a run: faults, states, events and amounts over time.
//!
//! It is kept in every run, so that a run that is looked at is the very run that failed.

use crate::trace::Trace;
use mesh::FilerId;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};
use storage::{cloudfs::CloudState, ids::CloudId};

/// Most entries of one kind that are kept: a run of a day has not more.
const ENTRIES_MAX: usize = 200_000;

/// A client that waits so long is shown, in milliseconds.
pub const STALL_MS_MIN: u64 = 1_000;

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

/// A client waited long.
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
    /// Those that start.
    pub starting: Vec<FilerId>,
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

#[derive(Default)]
struct Kept {
    seen: Seen,
    /// Clients that wait, and since when.
    waiting: BTreeMap<u64, (FilerId, u64)>,
    next_wait: u64,
    /// The longest time that a client has waited.
    longest: Option<Stall>,
}

/// The recording of a run. A clone is another handle.
#[derive(Clone, Default)]
pub struct Recording(Arc<Mutex<Kept>>);

/// A client waits for as long as this lives.
pub struct Wait {
    recording: Recording,
    trace: Trace,
    number: u64,
}

impl Drop for Wait {
    fn drop(&mut self) {
        let to_ms = self.trace.now_ms();
        let mut kept = self.recording.kept();
        if let Some((site, from_ms)) = kept.waiting.remove(&self.number) {
            kept.seen.waited(site, from_ms, to_ms);
            if kept.longest.is_none_or(|longest| to_ms - from_ms > longest.to_ms - longest.from_ms) {
                kept.longest = Some(Stall { site, from_ms, to_ms });
            }
        }
    }
}

impl Seen {
    fn waited(&mut self, site: FilerId, from_ms: u64, to_ms: u64) {
        if to_ms - from_ms >= STALL_MS_MIN {
            keep(&mut self.stalls, Stall { site, from_ms, to_ms });
        }
    }
}

fn keep<T>(all: &mut Vec<T>, one: T) {
    if all.len() < ENTRIES_MAX {
        all.push(one);
    }
}

impl Recording {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().expect("no holder of the recording panics")
    }

    /// A fault begins, and lasts for so long; 0: it is a matter of a moment.
    pub fn fault(&self, lane: Lane, at_ms: u64, for_ms: u64, text: String) {
        let seen = &mut self.kept().seen;
        match for_ms {
            0 => keep(&mut seen.marks, Mark { lane, at_ms, text }),
            _ => keep(&mut seen.faults, Band { lane, from_ms: at_ms, to_ms: at_ms + for_ms, text }),
        }
    }

    /// Something happened.
    pub fn mark(&self, lane: Lane, at_ms: u64, text: String) {
        keep(&mut self.kept().seen.marks, Mark { lane, at_ms, text });
    }

    /// A client begins to wait.
    pub fn wait(&self, trace: &Trace, site: FilerId) -> Wait {
        let mut kept = self.kept();
        kept.next_wait += 1;
        let number = kept.next_wait;
        kept.waiting.insert(number, (site, trace.now_ms()));
        Wait { recording: self.clone(), trace: trace.clone(), number }
    }

    /// The longest time that a client has waited for an answer, or waits for one now.
    pub fn longest_wait(&self, now_ms: u64) -> Option<Stall> {
        let kept = self.kept();
        let waiting =
            kept.waiting.values().map(|(site, from_ms)| Stall { site: *site, from_ms: *from_ms, to_ms: now_ms });
        waiting.chain(kept.longest).max_by_key(|wait| wait.to_ms - wait.from_ms)
    }

    /// A moment was looked at.
    pub fn sample(&self, sample: Sample) {
        keep(&mut self.kept().seen.samples, sample);
    }

    /// What was seen until `now_ms`. Faults end when all is mended, at `mended_ms`.
    pub fn take(&self, now_ms: u64, mended_ms: Option<u64>) -> Seen {
        let Kept { mut seen, waiting, .. } = std::mem::take(&mut *self.kept());
        waiting.into_values().for_each(|(site, from_ms)| seen.waited(site, from_ms, now_ms));
        if let Some(mended_ms) = mended_ms {
            seen.faults.iter_mut().for_each(|band| band.to_ms = band.to_ms.min(mended_ms.max(band.from_ms)));
        }
        seen
    }
}
