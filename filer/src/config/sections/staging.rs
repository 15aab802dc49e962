//! `[staging]`: what is not yet in the clouds.

use super::{GIB, HOUR, MIB, SECOND, TIB};
use crate::config::{
    form::Form,
    kinds::{Bytes, Millis},
};
use serde::{Deserialize, Serialize};

/// `[staging]`: what is not yet in the clouds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagingSettings {
    pub bytes_max: u64,
    pub wait_ms_max: u64,
}

impl Default for StagingSettings {
    fn default() -> Self {
        Self { bytes_max: 10 * GIB, wait_ms_max: 30 * SECOND }
    }
}

impl StagingSettings {
    pub(in crate::config) fn form(&mut self, form: &mut Form<'_, '_>) {
        form.set(
            "bytes_max",
            "Disk for data that is not yet in the clouds. When it is full, writers wait.",
            Bytes(16 * MIB..=1_024 * TIB),
            &mut self.bytes_max,
        );
        form.set(
            "wait_max",
            "How long a writer waits for room before it is told so.",
            Millis(0..=HOUR),
            &mut self.wait_ms_max,
        );
    }
}
