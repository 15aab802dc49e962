//! A filer's wall clock: virtual time, with a skew and with jumps of its own.

use super::wants::Wants;
use mesh::clock::Clock;
use tokio::time::Instant;

/// 2026-01-01, in nanoseconds since the Unix epoch.
const START_WALL_NS: u64 = 1_767_225_600_000_000_000;

/// What a clock shows that is right and was started then, in nanoseconds since the Unix epoch.
pub fn right_ns(start: Instant) -> u64 {
    START_WALL_NS + start.elapsed().as_nanos() as u64
}

/// The clock of one site.
pub struct SimClock {
    start: Instant,
    skew_ms: i64,
    /// How far faults have made it jump ahead; that with the highest number counts.
    off_ms: Wants<i64>,
}

impl SimClock {
    /// A clock that is always ahead by `skew_ms` milliseconds.
    pub fn new(start: Instant, skew_ms: i64) -> Self {
        Self { start, skew_ms, off_ms: Wants::default() }
    }

    /// A fault makes it jump ahead by so many milliseconds, or takes that back.
    pub fn set_off_ms(&self, number: u64, off_ms: Option<i64>) {
        self.off_ms.set(number, off_ms);
    }

    /// No fault makes it jump any more.
    pub fn heal(&self) {
        self.off_ms.clear();
    }
}

impl Clock for SimClock {
    fn wall_ns(&self) -> u64 {
        let off_ms = self.off_ms.all().pop().unwrap_or(0);
        right_ns(self.start).saturating_add_signed((self.skew_ms + off_ms) * 1_000_000)
    }
}
