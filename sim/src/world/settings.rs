//! The settings of simulated filers: limits that a run of some minutes meets.

use crate::plan::Plan;
use filer::filer::{Settings, Steps};
use mesh::consensus::{self, Spawning};
use storage::{cloudfs::Limits, health, mirror, staging};

/// File data of one frame, in bytes.
pub const FRAME_BYTES_MAX: usize = 8 << 10;
/// Extents that one operation may take away.
pub const EXTENTS_PER_OP_MAX: usize = 8;
/// How long a cloud may give slow answers alone until it trips, in milliseconds, where few failures trip it too.
const SLOW_FOR_MS: u64 = 20_000;

/// Limits that make a run meet them.
pub fn settings(plan: &Plan) -> Settings {
    let usual = consensus::Settings::default();
    let (rarely, health) = (u64::from(plan.rarely.max(1)), health::Settings::default());
    Settings {
        consensus: consensus::Settings {
            spawning: Spawning::Local,
            heartbeat_ms: usual.heartbeat_ms * rarely,
            election_timeout_ms_min: usual.election_timeout_ms_min * rarely,
            election_timeout_ms_max: usual.election_timeout_ms_max * rarely,
            snapshot_every_entries: 400,
            log_entries_kept: 100,
            ..usual
        },
        staging: staging::Settings {
            frame_bytes_max: FRAME_BYTES_MAX,
            unwritten_bytes_max: 64 << 10,
            bytes_max: 4 << 20,
            memory_bytes_max: 256 << 10,
            ..staging::Settings::default().with_segments(64 << 10)
        },
        cache: storage::cache::Settings { disk_bytes_max: 1 << 20, memory_bytes_max: 256 << 10 },
        health: health::Settings {
            failures_to_trip: plan.failures_to_trip,
            slow_for_ms: if plan.failures_to_trip < health.failures_to_trip { SLOW_FOR_MS } else { health.slow_for_ms },
            ..health
        },
        sweep: filer::actors::resync::SweepSettings { grace_ms: 2 * plan.put_arrives_ms, ..Default::default() },
        mirror: mirror::Settings { put_arrives_ms_max: plan.put_arrives_ms, ..Default::default() },
        operations: Limits { extents_per_op_max: EXTENTS_PER_OP_MAX, cuts_pending_max: 2 },
        steps: Steps { operation_ms_max: 5_000, ..Steps::default() },
        ..Settings::default()
    }
}
