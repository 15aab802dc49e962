//! Memory, staging and queues stay within their settings.
//!
//! Why it matters: a filer that grows in an outage dies in it, with what only it has.

use filer::filer::{Filer, Settings};

/// Checks one running filer.
pub fn within_bounds(filer: &Filer, settings: &Settings) -> Result<(), String> {
    let staging = filer.staging.status();
    // Headers, indexes and footers come on top of the data that was admitted.
    let staging_max = settings.staging.bytes_max + 2 * settings.staging.segment_bytes_max;
    // Whoever writes when it is full waits for the disk, with one write in hand; what a start could not mend on a full disk stays
    // in memory besides.
    let memory_max = settings.staging.memory_bytes_max
        + settings.staging.unwritten_bytes_max
        + 8 * settings.staging.segment_bytes_max;
    let checks = [
        ("bytes in staging", staging.bytes, staging_max),
        ("bytes of staging in memory", staging.memory_bytes, memory_max),
        ("unrecorded extents", filer.vfs.unrecorded_extents() as u64, 2 * settings.vfs.unrecorded_extents_max as u64),
        ("bytes of cached frames", filer.reader.memory_bytes(), settings.cache.memory_bytes_max),
        ("bytes of the disk cache", filer.disk_cache.bytes(), settings.cache.disk_bytes_max),
    ];
    match checks.into_iter().find(|(_, value, max)| value > max) {
        Some((what, value, max)) => Err(format!("filer {} has {value} {what}, and {max} are allowed", filer.who.me)),
        None => Ok(()),
    }
}
