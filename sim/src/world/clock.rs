//! A filer's wall clock: virtual time, with a skew and with jumps of its own.

use mesh::clock::Clock;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
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
    off_ms: AtomicI64,
}

impl SimClock {
    /// A clock that is always ahead by `skew_ms` milliseconds.
    pub fn new(start: Instant, skew_ms: i64) -> Self {
        Self { start, skew_ms, off_ms: AtomicI64::new(0) }
    }

    /// Sets how far it has jumped ahead, in milliseconds.
    pub fn set_off_ms(&self, off_ms: i64) {
        self.off_ms.store(off_ms, Relaxed);
    }
}

impl Clock for SimClock {
    fn wall_ns(&self) -> u64 {
        right_ns(self.start).saturating_add_signed((self.skew_ms + self.off_ms.load(Relaxed)) * 1_000_000)
    }
}
