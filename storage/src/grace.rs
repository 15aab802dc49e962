//! The grace period of dead segments: when it has passed, without trust in any wall clock.
//!
//! Segments are dead since a time that all filers have agreed on. It runs with their clocks, within bounds, so it may run
//! ahead of the real time a little, and stand still while nobody says anything. So two things must be true:
//! - by the agreed time, the period has passed. Between two operations the agreed time goes on as this filer's clock
//!   that does not jump does;
//! - this filer has itself seen the segment dead for the whole period, or for [`WATCHED_MS_MAX`] of a longer one, by that
//!   same clock. It notes from time to time which agreed time it had seen by then: whatever has been dead since before
//!   that time was dead at that moment.
//!
//! A filer that was just started has seen nothing, and waits.
//!
//! Owns: these notes. Does not own: which segments are dead (`cloudfs`), their deletion.

use std::collections::VecDeque;

/// How long a filer watches a dead segment itself, at most, in milliseconds; of a longer period the rest is the agreed
/// time's alone, so that it does not begin anew with every start.
pub const WATCHED_MS_MAX: u64 = 3_600_000;
/// Notes within the time watched.
const NOTES: u64 = 32;
const NS_PER_MS: u64 = 1_000_000;

/// What a filer has seen of the agreed time. Its own time is milliseconds of a clock that does not jump.
#[derive(Clone, Debug)]
pub struct Grace {
    grace_ms: u64,
    /// When the newest agreed time was seen first, and it.
    newest: Option<(u64, u64)>,
    /// Earlier moments, oldest first, and the agreed time by then.
    notes: VecDeque<(u64, u64)>,
}

impl Grace {
    /// A filer that has seen nothing yet. `grace_ms`: the grace period.
    pub fn new(grace_ms: u64) -> Self {
        Self { grace_ms, newest: None, notes: VecDeque::new() }
    }

    fn watched_ms(&self) -> u64 {
        self.grace_ms.min(WATCHED_MS_MAX)
    }

    /// Notes that the newest operation here has the agreed time `newest_ns`.
    pub fn note(&mut self, now_ms: u64, newest_ns: u64) {
        if self.newest.is_none_or(|(_, known_ns)| newest_ns > known_ns) {
            self.newest = Some((now_ms, newest_ns));
        }
        let every_ms = self.watched_ms() / NOTES;
        if self.notes.back().is_none_or(|(noted_ms, _)| now_ms >= noted_ms + every_ms) {
            self.notes.push_back((now_ms, newest_ns));
        }
        // Of those that are old enough, the last one says all.
        while self.notes.get(1).is_some_and(|(noted_ms, _)| noted_ms + self.watched_ms() <= now_ms) {
            self.notes.pop_front();
        }
    }

    /// The agreed time now, as far as this filer can tell; 0 before the first note.
    pub fn agreed_ns(&self, now_ms: u64) -> u64 {
        self.newest.map_or(0, |(seen_ms, ns)| ns.saturating_add(now_ms.saturating_sub(seen_ms) * NS_PER_MS))
    }

    /// What has been dead since before this agreed time may be deleted.
    pub fn before_ns(&self, now_ms: u64) -> u64 {
        let watched = self.notes.front().filter(|(noted_ms, _)| noted_ms + self.watched_ms() <= now_ms);
        let watched_ns = watched.map_or(0, |(_, agreed_ns)| agreed_ns.saturating_add(1));
        let passed_ns = self.agreed_ns(now_ms).saturating_sub(self.grace_ms.saturating_mul(NS_PER_MS));
        watched_ns.min(passed_ns)
    }

    /// Whether a copy of a segment dead since `since_ns` may still be begun: its delete is at least half of the period
    /// away, which is for copies to end in.
    pub fn is_time_to_copy(&self, now_ms: u64, since_ns: u64) -> bool {
        self.agreed_ns(now_ms) < since_ns.saturating_add(self.grace_ms.saturating_mul(NS_PER_MS / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const DAY_MS: u64 = 24 * HOUR_MS;
    /// Some agreed time.
    const START_NS: u64 = 1_000 * DAY_MS * NS_PER_MS;

    fn at(ms: u64) -> u64 {
        START_NS + ms * NS_PER_MS
    }

    #[test]
    fn a_period_has_passed_when_it_was_watched_and_not_before() {
        let mut grace = Grace::new(HOUR_MS);
        assert_eq!(grace.before_ns(5), 0, "nothing is known yet");
        for ms in 0..=HOUR_MS / 1_000 {
            grace.note(ms * 1_000, at(ms * 1_000));
            assert!(grace.before_ns(ms * 1_000) <= at(0), "at {ms} s");
        }
        assert_eq!(grace.before_ns(HOUR_MS), at(0));
        assert_eq!(grace.before_ns(HOUR_MS - 1), 0);
    }

    #[test]
    fn an_agreed_time_that_runs_ahead_deletes_nothing_early() {
        let mut grace = Grace::new(HOUR_MS);
        grace.note(0, at(0));
        // Dead at once, and then the time jumps by years.
        grace.note(1_000, at(1_000 * DAY_MS));
        assert_eq!(grace.before_ns(HOUR_MS - 1), 0);
        grace.note(HOUR_MS, at(1_000 * DAY_MS + 1));
        assert_eq!(grace.before_ns(HOUR_MS), at(0) + 1, "what was dead at the first note was dead for an hour");
    }

    #[test]
    fn an_agreed_time_that_stands_still_goes_on_here() {
        let mut grace = Grace::new(10_000);
        for second in 0..=20 {
            grace.note(second * 1_000, at(0));
        }
        assert_eq!(grace.agreed_ns(20_000), at(20_000));
        assert_eq!(grace.before_ns(20_000), at(0) + 1);
        assert!(grace.is_time_to_copy(4_999, at(0)) && !grace.is_time_to_copy(5_000, at(0)));
    }

    #[test]
    fn a_long_period_outlives_starts_and_its_end_is_watched() {
        let mut grace = Grace::new(30 * DAY_MS);
        // Started 40 days after the death of a segment, and one day after that of another.
        grace.note(0, at(40 * DAY_MS));
        assert_eq!(grace.before_ns(HOUR_MS - 1), 0);
        let before_ns = grace.before_ns(HOUR_MS);
        assert!(before_ns > at(0) && before_ns < at(39 * DAY_MS));
    }

    #[test]
    fn notes_are_few() {
        let mut grace = Grace::new(365 * DAY_MS);
        for second in 0..100_000 {
            grace.note(second * 1_000, at(second * 1_000));
            assert!(grace.notes.len() as u64 <= NOTES + 2);
        }
    }
}
