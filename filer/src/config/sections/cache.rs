//! `[cache]`: what was read from the clouds.

use super::{GIB, MIB, TIB};
use crate::config::{form::Form, kinds::Bytes};
use serde::{Deserialize, Serialize};

/// `[cache]`: what was read from the clouds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheSettings {
    pub disk_bytes_max: u64,
    pub memory_bytes_max: u64,
    pub frame_bytes_in_flight_max: u64,
    pub read_ahead_bytes: u64,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            disk_bytes_max: 10 * GIB,
            memory_bytes_max: 256 * MIB,
            frame_bytes_in_flight_max: 96 * MIB,
            read_ahead_bytes: 8 * MIB,
        }
    }
}

impl CacheSettings {
    pub(in crate::config) fn form(&mut self, form: &mut Form<'_, '_>) {
        let doc = "Disk for data read from the clouds, besides staging.";
        form.set("disk_bytes_max", doc, Bytes(0..=1_024 * TIB), &mut self.disk_bytes_max);
        let doc = "Memory for data read from the clouds.";
        form.set("memory_bytes_max", doc, Bytes(MIB..=16 * TIB), &mut self.memory_bytes_max);
        let doc = "Memory for frames that reads under way are made of, as they are stored, and as much again for those that come from\nafar. Without room a read waits.";
        form.set("frame_bytes_in_flight_max", doc, Bytes(8 * MIB..=TIB), &mut self.frame_bytes_in_flight_max);
        let doc = "How far ahead of a sequential reader data is fetched; \"0 B\" fetches only what was asked for.";
        form.set("read_ahead", doc, Bytes(0..=GIB), &mut self.read_ahead_bytes);
    }
}
