//! A failed cloud is sent nothing but probes.
//!
//! Why it matters: what is put into a cloud that is held for failed is neither required nor on record, so that it would be
//! litter or, worse, counted as a copy; and a cloud in trouble recovers sooner when it is left alone.

use mesh::FilerId;
use std::collections::BTreeMap;
use storage::{
    cloudfs::{CloudState, Roles},
    ids::CloudId,
};

/// How long a filer may take to hear of its own tables, in milliseconds.
const TO_HEAR_MS_MAX: u64 = 300;

/// The check.
#[derive(Default)]
pub struct ProbesOnly {
    /// Since when a filer's own tables say that a cloud has failed.
    failed_since: BTreeMap<(FilerId, CloudId), u64>,
}

impl ProbesOnly {
    /// A filer has these roles.
    pub fn roles(&mut self, now_ms: u64, filer: FilerId, roles: &Roles) {
        for cloud in CloudId::BOTH {
            if roles.cloud(cloud).state == CloudState::Failed {
                self.failed_since.entry((filer, cloud)).or_insert(now_ms);
            } else {
                self.failed_since.remove(&(filer, cloud));
            }
        }
    }

    /// A filer begins anew.
    pub fn forget(&mut self, filer: FilerId) {
        self.failed_since.retain(|(known, _), _| *known != filer);
    }

    /// A filer sends something.
    pub fn called(&self, now_ms: u64, filer: FilerId, cloud: CloudId, key: &str) -> Result<(), String> {
        match self.failed_since.get(&(filer, cloud)) {
            Some(since_ms) if !key.starts_with("probes/") && now_ms > since_ms + TO_HEAR_MS_MAX => Err(format!(
                "filer {filer} calls cloud {cloud} for {key}, and knows for {} ms that it has failed",
                now_ms - since_ms
            )),
            _ => Ok(()),
        }
    }
}
