//! `[segments]`: the pieces that go to the clouds.

use super::{DAY, HOUR, KIB, MIB, SECOND};
use crate::config::{
    form::Form,
    kinds::{Bytes, Millis, count},
};
use serde::{Deserialize, Serialize};
use storage::segment::{FRAME_BYTES_MAX, SEGMENT_BYTES_MAX};

/// `[segments]`: the pieces that go to the clouds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentSettings {
    pub bytes_max: u64,
    pub seal_after_ms: u64,
    pub seal_idle_ms: u64,
    pub seal_idle_alone_ms: u64,
    pub seal_idle_bytes_min: u64,
    pub seal_ahead_bytes_min: u64,
    /// To each cloud.
    pub puts_in_flight_max: u32,
    pub frame_bytes_max: u64,
    pub delete_grace_ms: u64,
}

impl Default for SegmentSettings {
    fn default() -> Self {
        Self {
            bytes_max: 8 * MIB,
            seal_after_ms: SECOND,
            seal_idle_ms: 20,
            seal_idle_alone_ms: Self::idle_alone_ms(20),
            seal_idle_bytes_min: Self::worth_a_put(8 * MIB),
            seal_ahead_bytes_min: Self::worth_no_wait(8 * MIB),
            puts_in_flight_max: 16,
            frame_bytes_max: MIB,
            delete_grace_ms: HOUR,
        }
    }
}

impl SegmentSettings {
    /// How long one waits for more while it is alone, where nothing else is said.
    pub(in crate::config) fn idle_alone_ms(seal_idle_ms: u64) -> u64 {
        seal_idle_ms.min(5)
    }

    /// What makes a segment worth a put of its own, where nothing else is said of those of this size.
    pub(in crate::config) fn worth_a_put(bytes_max: u64) -> u64 {
        storage::staging::Settings::worth_a_put(bytes_max)
    }

    /// What makes it go ahead while nothing else is on its way.
    pub(in crate::config) fn worth_no_wait(bytes_max: u64) -> u64 {
        storage::staging::Settings::worth_no_wait(bytes_max)
    }

    pub(in crate::config) fn form(&mut self, form: &mut Form<'_, '_>) {
        form.set(
            "bytes_max",
            "A segment of this size is sealed and put.",
            Bytes(64 * KIB..=SEGMENT_BYTES_MAX),
            &mut self.bytes_max,
        );
        form.set(
            "seal_after",
            "A segment is sealed this long after its first byte, however small it is.",
            Millis(10..=HOUR),
            &mut self.seal_after_ms,
        );
        form.set(
            "seal_idle",
            "A segment of at least seal_idle_bytes_min is sealed when nothing was added for so long, and so is the smaller\none that follows it.",
            Millis(1..=HOUR),
            &mut self.seal_idle_ms,
        );
        if form.reads() {
            self.seal_idle_alone_ms = Self::idle_alone_ms(self.seal_idle_ms);
        }
        form.set(
            "seal_idle_alone",
            "The same for a segment of at least seal_idle_bytes_min, while no other is on its way to the clouds; never longer than\nseal_idle; 5 ms where nothing else is said.",
            Millis(1..=HOUR),
            &mut self.seal_idle_alone_ms,
        );
        if form.reads() {
            self.seal_idle_bytes_min = Self::worth_a_put(self.bytes_max);
            self.seal_ahead_bytes_min = Self::worth_no_wait(self.bytes_max);
        }
        form.set(
            "seal_idle_bytes_min",
            "What is worth a put of its own; an eighth of bytes_max where nothing else is said.",
            Bytes(0..=SEGMENT_BYTES_MAX),
            &mut self.seal_idle_bytes_min,
        );
        form.set(
            "seal_ahead_bytes_min",
            "From here on a segment is sealed at once while no other is on its way to the clouds; half of bytes_max where nothing\nelse is said. With the value of bytes_max none is: fewer puts, and data is in the clouds later.",
            Bytes(0..=SEGMENT_BYTES_MAX),
            &mut self.seal_ahead_bytes_min,
        );
        form.set("puts_in_flight_max", "Puts at once, to each cloud.", count(1..=1_024), &mut self.puts_in_flight_max);
        form.set(
            "frame_bytes_max",
            "Largest piece of a file under one checksum.",
            Bytes(4 * KIB..=FRAME_BYTES_MAX),
            &mut self.frame_bytes_max,
        );
        form.set(
            "delete_grace",
            "A segment to which no file refers stays in the clouds for this long, for puts and readers that are under way: at\nleast twice the longest put, and no put may take longer than half of it. The leader's setting counts, so give all filers\nthe same.",
            Millis(SECOND..=365 * DAY),
            &mut self.delete_grace_ms,
        );
    }
}
