//! Which segment is put next to a cloud.

use crate::{backoff::due::Due, ids::SegmentId};
use std::collections::BTreeSet;

/// The puts to one cloud.
#[derive(Debug, Default)]
pub struct Puts {
    in_flight: BTreeSet<SegmentId>,
    /// Those that wait for their time, and those that wait for room alone.
    later: Due<SegmentId>,
    due: Due<SegmentId>,
    /// Whether the next one is that of the segment due for the longest time, or the oldest segment's.
    longest_due_next: bool,
}

impl Puts {
    /// A segment is `in_flight`, or may be put from `from_ms` on, or neither.
    pub fn set(&mut self, segment: SegmentId, in_flight: bool, from_ms: Option<u64>) {
        if in_flight {
            self.in_flight.insert(segment);
        } else {
            self.in_flight.remove(&segment);
        }
        self.due.set(segment, None);
        self.later.set(segment, from_ms);
    }

    /// How many are under way.
    pub fn under_way(&self) -> usize {
        self.in_flight.len()
    }

    /// When the next of those comes due that were not due at the last [`Puts::ripen`].
    pub fn next_ms(&self) -> Option<u64> {
        self.later.first_ms()
    }

    /// Moves what has come due.
    pub fn ripen(&mut self, now_ms: u64) {
        let ripe: Vec<(SegmentId, u64)> = self.later.until(now_ms).collect();
        for (segment, from_ms) in ripe {
            self.later.set(segment, None);
            self.due.set(segment, Some(from_ms));
        }
    }

    /// The next one to begin. Every second one is the oldest's: one that keeps failing reaches the count that trips the
    /// cloud, however many wait. The others go by turns, so that none waits for ever behind those that fail.
    pub fn next(&mut self) -> Option<SegmentId> {
        let next = if self.longest_due_next { self.due.earliest() } else { self.due.lowest() }?;
        self.longest_due_next = !self.longest_due_next;
        Some(next)
    }
}
