//! Which dead segments are deleted from the clouds next.
//!
//! Owns: the order and pace of the deletes. Does not own: which segments are dead (`cloudfs`), nor the deletes themselves. A
//! segment whose delete fails waits, longer each time, and lets the others go first: a bucket with a retention policy must
//! not be asked 256 times a second for the same, nor keep the segments dead that it would give up. Should more fail than are
//! remembered, the rest waits for one of those to go.

use crate::{backoff::Backoff, ids::SegmentId};
use mesh::clock::Random;
use std::collections::{BTreeMap, BTreeSet};

/// Limits of the sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a segment stays in the clouds after nothing refers to it, in milliseconds. Longer than any put can
    /// be under way, so that none arrives behind its delete.
    pub grace_ms: u64,
    /// Wait between two sweeps, and between two rounds of reaping, in milliseconds.
    pub every_ms: u64,
    /// Segments deleted in one sweep.
    pub segments_max: usize,
    /// Steps of reaping cut-off extents in one round, one after another.
    pub reaps_max: usize,
    /// Segments whose deletes have failed and whose waits are remembered.
    pub failing_max: usize,
    /// Waits between two attempts to delete one segment.
    pub attempt_backoff: Backoff,
    /// The same, of one that a cloud refuses to delete: it may do so for months.
    pub refused_backoff: Backoff,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            grace_ms: 600_000,
            every_ms: 1000,
            segments_max: 256,
            reaps_max: 64,
            failing_max: 4096,
            attempt_backoff: Backoff { ms_min: 1000, ms_max: 60_000 },
            refused_backoff: Backoff { ms_min: 1000, ms_max: 900_000 },
        }
    }
}

/// How a delete ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Deleted,
    Failed,
    /// A cloud has understood, and will not.
    Refused,
}

/// The machine.
#[derive(Debug)]
pub struct Sweep {
    settings: Settings,
    /// Failures in a row, and when it may be tried again.
    failing: BTreeMap<SegmentId, (u32, u64)>,
}

impl Sweep {
    /// A sweep in which nothing has failed yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, failing: BTreeMap::new() }
    }

    /// How many dead segments to look up, so that those that wait hide no other.
    pub fn rows_max(&self) -> usize {
        self.settings.segments_max + self.failing.len()
    }

    /// Segments whose deletes have failed.
    pub fn failing(&self) -> usize {
        self.failing.len()
    }

    /// Which of the dead segments (oldest first, from [`Sweep::rows_max`] looked up) to delete now.
    pub fn choose(&mut self, now_ms: u64, dead: &[SegmentId]) -> Vec<SegmentId> {
        // What is not among them any more was deleted by another filer that led.
        let listed: BTreeSet<_> = dead.iter().collect();
        self.failing.retain(|segment, _| listed.contains(segment));
        // One that fails must wait as well.
        let mut room = self.settings.failing_max.saturating_sub(self.failing.len());
        let may_be_tried = |segment: &&SegmentId| match self.failing.get(segment) {
            Some((_, at_ms)) => *at_ms <= now_ms,
            None => {
                let has_room = room > 0;
                room = room.saturating_sub(1);
                has_room
            }
        };
        dead.iter().filter(may_be_tried).take(self.settings.segments_max).copied().collect()
    }

    /// A delete ended.
    pub fn ended(&mut self, now_ms: u64, random: &dyn Random, segment: SegmentId, ended: Ended) {
        let backoff = match ended {
            Ended::Deleted => {
                self.failing.remove(&segment);
                return;
            }
            Ended::Failed => self.settings.attempt_backoff,
            Ended::Refused => self.settings.refused_backoff,
        };
        let failures = self.failing.get(&segment).map_or(0, |(failures, _)| *failures).saturating_add(1);
        if self.failing.len() >= self.settings.failing_max && !self.failing.contains_key(&segment) {
            // The one that is due first is met again soonest, and remembered again if it still fails.
            let first = self.failing.iter().min_by_key(|(_, (_, at_ms))| *at_ms).map(|(segment, _)| *segment);
            first.and_then(|first| self.failing.remove(&first));
        }
        let at_ms = now_ms + backoff.wait_ms(failures, random);
        self.failing.insert(segment, (failures, at_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::{FilerId, clock::SeededRandom};

    fn segment(number: u64) -> SegmentId {
        SegmentId { filer: FilerId(1), number }
    }

    /// Thousands of segments that a retention policy keeps, before one that can go.
    #[test]
    fn segments_whose_deletes_fail_hide_no_other_and_are_tried_at_growing_waits() {
        let mut sweep = Sweep::new(Settings { segments_max: 10, failing_max: 100, ..Settings::default() });
        let random = SeededRandom::new(1);
        let mut dead: Vec<_> = (0..40).map(segment).collect();
        let mut tries = BTreeMap::new();
        for now_ms in (0..3_600_000).step_by(1000) {
            let listed: Vec<_> = dead.iter().take(sweep.rows_max()).copied().collect();
            let chosen = sweep.choose(now_ms, &listed);
            assert!(chosen.len() <= 10);
            for segment in chosen {
                *tries.entry(segment).or_insert(0) += 1;
                let failed = segment.number < 30;
                sweep.ended(now_ms, &random, segment, if failed { Ended::Failed } else { Ended::Deleted });
                if !failed {
                    dead.retain(|other| *other != segment);
                }
            }
        }
        assert_eq!(dead, (0..30).map(segment).collect::<Vec<_>>());
        for number in 0..40 {
            let tried = tries[&segment(number)];
            let expected = if number < 30 { 50..140 } else { 1..2 };
            assert!(expected.contains(&tried), "segment {number}: {tried} tries in an hour");
        }
    }

    /// A day of a cloud that refuses all deletes, with more dead segments than waits are remembered of; then it gives in.
    #[test]
    fn a_cloud_that_refuses_is_asked_ever_less_often_however_much_is_dead() {
        let mut sweep = Sweep::new(Settings { segments_max: 10, failing_max: 100, ..Settings::default() });
        let random = SeededRandom::new(1);
        let mut dead: Vec<_> = (0..1000).map(segment).collect();
        let day_ms = 86_400_000;
        let (mut tries, mut tries_in_the_last_hour) = (BTreeMap::new(), 0);
        for now_ms in (0..day_ms).step_by(1000) {
            for segment in sweep.choose(now_ms, &dead[..sweep.rows_max()]) {
                *tries.entry(segment).or_insert(0) += 1;
                tries_in_the_last_hour += u64::from(now_ms >= day_ms - 3_600_000);
                sweep.ended(now_ms, &random, segment, Ended::Refused);
            }
        }
        assert!(tries.values().all(|tries| *tries < 150), "{tries:?}");
        assert!(
            tries_in_the_last_hour <= 100 * 8,
            "{tries_in_the_last_hour}, of a hundred at a quarter of an hour's wait"
        );
        for now_ms in (day_ms..day_ms + 1_800_000).step_by(1000) {
            let listed = dead.len().min(sweep.rows_max());
            for segment in sweep.choose(now_ms, &dead[..listed]) {
                sweep.ended(now_ms, &random, segment, Ended::Deleted);
                dead.retain(|other| *other != segment);
            }
        }
        assert_eq!((dead.len(), sweep.failing()), (0, 0));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_ends_with_the_segment() {
        let mut sweep = Sweep::new(Settings { failing_max: 10, ..Settings::default() });
        let random = SeededRandom::new(1);
        for number in 0..1000 {
            sweep.ended(number, &random, segment(number), Ended::Failed);
            assert!(sweep.failing() <= 10);
        }
        assert_eq!(sweep.choose(1_000_000, &[segment(999)]), [segment(999)]);
        assert_eq!(sweep.failing(), 1);
        sweep.ended(1_000_000, &random, segment(999), Ended::Deleted);
        assert_eq!(sweep.failing(), 0);
    }
}
