//! Failures are counted once per attempt, and a trip has its reason.
//!
//! Why it matters: a count that runs ahead moves a whole CloudFS for nothing, one that lags keeps it on a dead cloud; and a
//! filer that counts its own refusals keeps a cloud out for ever.

use mesh::FilerId;
use std::collections::BTreeMap;
use storage::ids::CloudId;

#[derive(Default)]
struct Counts {
    failed: u64,
    /// Answers that were wrong, so that whoever checks them counts a failure.
    flipped: u64,
    /// Consecutive failures, by object.
    in_a_row: BTreeMap<String, u64>,
    /// Most of them, ever.
    most_in_a_row: u64,
    slowest_ms: u64,
}

/// The check.
#[derive(Default)]
pub struct CountedOnce {
    by_filer: BTreeMap<(FilerId, CloudId), Counts>,
}

impl CountedOnce {
    /// A filer begins anew, and counts from 0.
    pub fn forget(&mut self, filer: FilerId) {
        self.by_filer.retain(|(known, _), _| *known != filer);
    }

    /// An attempt ended, and its filer knows.
    pub fn ended(&mut self, filer: FilerId, cloud: CloudId, key: &str, failed: bool, flipped: bool, took_ms: u64) {
        if key.starts_with("probes/") {
            return;
        }
        let counts = self.by_filer.entry((filer, cloud)).or_default();
        counts.failed += u64::from(failed);
        counts.flipped += u64::from(flipped && !failed);
        counts.slowest_ms = counts.slowest_ms.max(took_ms);
        if failed || flipped {
            let in_a_row = counts.in_a_row.entry(key.into()).or_insert(0);
            *in_a_row += 1;
            counts.most_in_a_row = counts.most_in_a_row.max(*in_a_row);
        } else {
            counts.in_a_row.remove(key);
        }
    }

    /// A filer says how often its attempts failed.
    pub fn compare(&self, filer: FilerId, cloud: CloudId, failures_total: u64) -> Result<(), String> {
        let (failed, flipped) = match self.by_filer.get(&(filer, cloud)) {
            Some(counts) => (counts.failed, counts.flipped),
            None => (0, 0),
        };
        if (failed..=failed + flipped).contains(&failures_total) {
            return Ok(());
        }
        Err(format!(
            "filer {filer} has counted {failures_total} failures of cloud {cloud}, which failed {failed} times and gave {flipped} wrong answers"
        ))
    }

    /// A filer's trip of a cloud carried.
    pub fn tripped(&self, filer: FilerId, cloud: CloudId, why: &str, failures_to_trip: u64) -> Result<(), String> {
        let Some(counts) = self.by_filer.get(&(filer, cloud)) else {
            // It has begun anew since it asked.
            return Ok(());
        };
        let by_count = why.contains("consecutive failures") && counts.most_in_a_row >= failures_to_trip;
        let by_slowness = why.contains("every answer took");
        if by_count || by_slowness {
            return Ok(());
        }
        Err(format!(
            "filer {filer} tripped cloud {cloud} ({why}), and no object failed more than {} times in a row",
            counts.most_in_a_row
        ))
    }
}
