//! The CloudFS is never moved to an inconsistent cloud, and never stays on one: the active cloud is healthy and misses nothing.
//!
//! Why it matters: a CloudFS on a cloud that has missed something serves yesterday's files, and calls them today's.

use mesh::FilerId;
use storage::cloudfs::{CloudState, Roles};

/// Checks the roles that a filer has.
pub fn active_is_consistent(filer: FilerId, roles: &Roles) -> Result<(), String> {
    let active = roles.cloud(roles.active);
    let missed = active.missed_puts + active.missed_deletes;
    if active.state == CloudState::Healthy && missed == 0 {
        return Ok(());
    }
    Err(format!(
        "filer {filer}, epoch {}: the active cloud {} is {:?} and misses {missed}",
        roles.epoch, roles.active, active.state
    ))
}
