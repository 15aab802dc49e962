//! What a filer has seen of one cloud: failures in a row of each piece, and spells of slow answers.

use super::{Output, Settings};
use crate::{cloudfs::CloudView, ids::SegmentId};
use mesh::words::span;
use std::{collections::BTreeMap, ops::Range};

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The piece of data it was for; `None`: one that is counted for people alone, as it says nothing of any piece, nor of
    /// the cloud's pace.
    pub piece: Option<SegmentId>,
    /// Why it failed, where it did.
    pub failed: Option<String>,
    /// In milliseconds.
    pub took_ms: u64,
    /// What it had to move, and whatever was under way beside it, for they share the link; in bytes.
    pub bytes: u64,
}

/// Failures in a row of the piece that has failed most of those that fail still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streak {
    pub piece: SegmentId,
    /// In a row.
    pub failures: u32,
    /// How long ago the first of them was, and the last, in milliseconds.
    pub first_ms_ago: u64,
    pub last_ms_ago: u64,
    /// How many pieces fail still.
    pub pieces: usize,
}

/// A piece that fails.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failing {
    /// Failures in a row.
    pub count: u32,
    pub first_ms: u64,
    pub last_ms: u64,
}

#[derive(Debug, Default)]
pub(super) struct Watch {
    pub failures: BTreeMap<SegmentId, Failing>,
    pub failures_total: u64,
    pub last_failure: Option<String>,
    /// Whether the last attempt or probe succeeded, until the roles change.
    pub reachable: Option<bool>,
    /// When that was.
    pub seen_ms: Option<u64>,
    /// When an attempt at a piece last succeeded, until the roles change.
    pub succeeded_ms: Option<u64>,
    /// People were told that it fails, and not yet that it works again.
    pub told: bool,
    /// Since when none has failed so often any more that people would be told, where they were.
    pub calm_since_ms: Option<u64>,
    /// From the beginning of the first to the end of the last attempt, while every answer was slow.
    pub slow_ms: Option<Range<u64>>,
    /// An attempt has shown that the cloud is to trip, and since then none has succeeded and no trip was refused under
    /// these roles. A piece that nobody tries any more keeps its count, but must not trip a cloud that is well again.
    pub trips: bool,
    /// A decision was asked for and has no answer yet.
    pub asking: bool,
    /// What was asked last, and when the same may be asked again.
    pub asked: Option<Output>,
    pub ask_at_ms: u64,
    pub probing: bool,
    /// The probe under way was begun when the cloud was in another state: its answer says nothing of today.
    pub probe_is_old: bool,
    /// A ballot was asked for, and the cloud has not been looked at lately.
    pub look: bool,
    pub probe_at_ms: u64,
    pub probe_failures: u32,
    /// What the last probe of this failed cloud said.
    pub probe_ok: Option<bool>,
}

impl Watch {
    /// What was seen since `since_ms`.
    pub fn view(&self, since_ms: u64) -> CloudView {
        let lately = self.failures.values().filter(|failing| failing.last_ms >= since_ms);
        CloudView {
            slow: self.slow_ms.as_ref().is_some_and(|spell| spell.end >= since_ms),
            reachable: self.reachable.filter(|_| self.seen_ms.is_some_and(|seen_ms| seen_ms >= since_ms)),
            failures: lately.map(|failing| failing.count).max().unwrap_or(0),
        }
    }

    pub fn saw(&mut self, now_ms: u64, reachable: bool) {
        (self.reachable, self.seen_ms) = (Some(reachable), Some(now_ms));
    }

    /// The piece that failed most.
    pub fn worst(&self) -> Option<SegmentId> {
        self.failures.iter().max_by_key(|(_, failing)| failing.count).map(|(piece, _)| *piece)
    }

    /// What fails still: a piece that was tried since `since_ms`, or after which nothing has succeeded. A piece that nobody
    /// tries any more keeps its count, but says nothing of a cloud that works.
    pub fn streak(&self, now_ms: u64, since_ms: u64) -> Option<Streak> {
        let nothing_since = |ms: u64| self.succeeded_ms.is_none_or(|succeeded_ms| succeeded_ms < ms);
        let still = |failing: &Failing| failing.last_ms >= since_ms || nothing_since(failing.last_ms);
        let failing: Vec<_> = self.failures.iter().filter(|(_, failing)| still(failing)).collect();
        let pieces = failing.len();
        let (piece, worst) = failing.into_iter().max_by_key(|(_, failing)| failing.count)?;
        Some(Streak {
            piece: *piece,
            failures: worst.count,
            first_ms_ago: now_ms.saturating_sub(worst.first_ms),
            last_ms_ago: now_ms.saturating_sub(worst.last_ms),
            pieces,
        })
    }

    /// From when on nothing that has failed so often is part of a [`Watch::streak`] of the last `lately_ms` any more, if
    /// nobody tries it; `None` while nothing has succeeded after one of them.
    pub fn untried_from_ms(&self, failures: u32, lately_ms: u64) -> Option<u64> {
        let mut often = self.failures.values().filter(|failing| failing.count >= failures);
        often.try_fold(0, |from_ms, failing| {
            let has_worked = self.succeeded_ms.is_some_and(|succeeded_ms| succeeded_ms >= failing.last_ms);
            has_worked.then(|| from_ms.max(failing.last_ms.saturating_add(lately_ms).saturating_add(1)))
        })
    }

    pub fn attempted(&mut self, now_ms: u64, settings: &Settings, attempt: Attempt) {
        let Attempt { piece, failed, took_ms, bytes } = attempt;
        let succeeded = failed.is_none();
        if let Some(why) = failed {
            self.failures_total += 1;
            self.last_failure = Some(why);
        }
        let Some(piece) = piece else {
            return;
        };
        self.saw(now_ms, succeeded);
        if succeeded {
            self.failures.remove(&piece);
        } else {
            self.count(now_ms, settings, piece);
        }
        self.succeeded_ms = if succeeded { Some(now_ms) } else { self.succeeded_ms };
        self.pace(now_ms, settings, succeeded, took_ms, bytes);
        let shown = self.reason_to_trip(settings, Some(piece)).is_some();
        self.trips = shown || self.trips && !succeeded;
    }

    fn count(&mut self, now_ms: u64, settings: &Settings, piece: SegmentId) {
        if self.failures.len() >= settings.pieces_max && !self.failures.contains_key(&piece) {
            let least = self.failures.iter().min_by_key(|(_, failing)| failing.count).map(|(piece, _)| *piece);
            least.and_then(|least| self.failures.remove(&least));
        }
        let failing = self.failures.entry(piece).or_insert(Failing { count: 0, first_ms: now_ms, last_ms: now_ms });
        (failing.count, failing.last_ms) = (failing.count.saturating_add(1), now_ms);
    }

    /// Judges how long an attempt took.
    ///
    /// | it took | that says |
    /// |---|---|
    /// | less than `slow_ms`, and it succeeded | the cloud is quick: a spell of slow answers is over |
    /// | less than `slow_ms`, and it failed | nothing: a quick failure says nothing of the pace |
    /// | more, but no more than its bytes take besides | nothing: the link may be thin |
    /// | more than that | slow; no answer in time is as slow as one that came late |
    fn pace(&mut self, now_ms: u64, settings: &Settings, succeeded: bool, took_ms: u64, bytes: u64) {
        let Settings { slow_ms, slow_for_ms, bytes_per_s_min, .. } = *settings;
        let bytes_ms = bytes.saturating_mul(1000) / bytes_per_s_min.max(1);
        if took_ms >= slow_ms.saturating_add(bytes_ms) {
            let begun_ms = now_ms.saturating_sub(took_ms);
            let spell = self.slow_ms.take().filter(|spell| begun_ms < spell.end.saturating_add(slow_for_ms));
            self.slow_ms = Some(spell.map_or(begun_ms, |spell| spell.start)..now_ms);
        } else if succeeded && took_ms < slow_ms {
            self.slow_ms = None;
        }
    }

    /// Why the cloud is to trip, from the failures of a piece or from slow answers.
    pub fn reason_to_trip(&self, settings: &Settings, piece: Option<SegmentId>) -> Option<String> {
        let failing = piece.and_then(|piece| Some((piece, self.failures.get(&piece)?.count)));
        if let Some((piece, count)) = failing.filter(|(_, count)| *count >= settings.failures_to_trip) {
            let last = self.last_failure.as_deref().unwrap_or("unknown");
            return Some(format!("{count} consecutive failures on segment {piece}, the last: {last}"));
        }
        let slow_for_ms = self.slow_ms.as_ref().map(|spell| spell.end - spell.start)?;
        (slow_for_ms >= settings.slow_for_ms).then(|| {
            let (slow, slow_for) = (span(settings.slow_ms), span(slow_for_ms));
            format!("every answer took more than {slow}, and than its bytes need, for {slow_for}")
        })
    }
}
