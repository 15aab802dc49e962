//! The sections of the settings: their values, defaults and what each is for.
//!
//! Every number has its unit in its name here, and beside it in the file. The sentences stand in the example file.
//!
//! Each section has a file of its own here; `[clouds]` and `[nfs]`, which hold more than values, lie beside.

mod admin;
mod cache;
mod consistency;
mod health;
mod log;
mod mesh;
mod metrics;
mod segments;
mod staging;

pub use self::{
    admin::AdminSettings,
    cache::CacheSettings,
    consistency::{ConsistencySettings, Reads, WithoutMajority},
    health::{Failback, HealthSettings},
    log::{LogFormat, LogSettings},
    mesh::MeshSettings,
    metrics::MetricsSettings,
    segments::SegmentSettings,
    staging::StagingSettings,
};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
