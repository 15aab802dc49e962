//! One filer, whole: its actors, its file system and its services, over the world it is given.
//!
//! [`World`] has every effect (tables, disk, clouds, peers, clock, randomness). Production gives real ones; the simulator
//! gives its own under these very parts.
//!
//! Owns: the wiring, the order of a start, what a filer does with itself by the hour (joining, recovered segments, news
//! of its peers). Does not own: sockets, configuration and signals (`site`).

mod recovered;
mod removal;
mod service;
mod start;
#[cfg(test)]
mod tests;

pub use removal::RemovalError;
pub use start::{OWNER_KEY, check_owner};

use crate::{
    actors::{
        cache::CacheActor,
        connector::ConnectorActor,
        health::HealthActor,
        mesh::MeshActor,
        mirror::MirrorActor,
        resync::{ResyncActor, SweepSettings},
    },
    door::Door,
    reading::{self, Reader},
    roles::CurrentRoles,
    vfs::{self, Vfs},
    wire::Report,
};
use actix::Addr;
use mesh::{
    FilerId,
    clock::{Clock, Random},
    consensus::{self, Consensus},
    kv::Kv,
    peers::{Member, Peers, Services},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use storage::{
    backoff::{Backoff, turns},
    cache::{self, DiskCache},
    cloud::Cloud,
    cloudfs::Limits,
    disk::{Disk, DiskError},
    health, mirror, resync,
    staging::{self, RecoverError, Staging},
};
use tokio::time::Instant;

/// Everything that a filer touches.
#[derive(Clone)]
pub struct World {
    pub kv: Arc<dyn Kv>,
    /// Staging and cache.
    pub disk: Arc<dyn Disk>,
    /// By [`storage::ids::CloudId::index`]: the preferred primary first.
    pub clouds: [Arc<dyn Cloud>; 2],
    pub peers: Arc<dyn Peers>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
}

/// Who a filer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    pub me: FilerId,
    pub cloudfs: u64,
    /// Its name, and where peers reach it.
    pub member: Member,
    /// Whether it makes the CloudFS when there is none.
    pub first: bool,
    /// Peers to ask to be let in.
    pub known: BTreeMap<FilerId, Member>,
}

/// Every limit of a filer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub consensus: consensus::Settings,
    pub staging: staging::Settings,
    pub cache: cache::Settings,
    pub health: health::Settings,
    /// Of the attempts at each cloud.
    pub turns: turns::Settings,
    pub mirror: mirror::Settings,
    pub resync: resync::Settings,
    pub sweep: SweepSettings,
    pub reading: reading::Settings,
    pub vfs: vfs::Settings,
    pub mesh: crate::actors::mesh::Settings,
    /// The same at every filer of a CloudFS.
    pub operations: Limits,
    pub steps: Steps,
}

/// Deadlines and intervals of a filer's own steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps {
    /// How long an operation waits for its answer at a time, in milliseconds.
    pub operation_ms_max: u64,
    /// Changes of clients under way at once, those that wait for their outcome in a partition included; others are told
    /// to ask later.
    pub changes_in_flight_max: usize,
    /// Wait between two attempts to make or join the CloudFS, or to judge recovered segments, in milliseconds.
    pub again_ms: u64,
    /// How often a cloud may give something wrong, or nothing, in place of a segment that is damaged here, before its copy
    /// counts as damaged or lost too. Fewer than the failures that trip a cloud.
    pub wrong_answers_max: u32,
    /// Waits behind such answers, besides [`Steps::again_ms`].
    pub wrong_answer_backoff: Backoff,
    /// How often peers are asked for their news, in milliseconds.
    pub reports_every_ms: u64,
    /// How often this filer shows its clock to the others, in milliseconds: some times within
    /// [`SILENT_MS_MAX`](storage::cloudfs::time::SILENT_MS_MAX).
    pub clock_every_ms: u64,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            operation_ms_max: 10_000,
            changes_in_flight_max: 512,
            again_ms: 500,
            wrong_answers_max: 8,
            wrong_answer_backoff: Backoff { ms_min: 500, ms_max: 30_000 },
            reports_every_ms: 2_000,
            clock_every_ms: 60_000,
        }
    }
}

/// Why a filer does not start. What it found is left as it was.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "the tables belong to filer {found} of CloudFS {found_cloudfs:016x}, and this is filer {me} of CloudFS {cloudfs:016x}: give every filer a data directory of its own"
    )]
    Owner { found: FilerId, found_cloudfs: u64, me: FilerId, cloudfs: u64 },
    #[error("the record of who owns the tables cannot be read: {0}")]
    OwnerRecord(mesh::record::RecordError),
    #[error(transparent)]
    Table(#[from] mesh::kv::KvError),
    #[error("staging cannot be used")]
    Staging(#[from] RecoverError),
    #[error("the cache cannot be opened")]
    Cache(#[from] DiskError),
    #[error("the replicated log does not start")]
    Consensus(#[from] consensus::StartError),
}

/// The addresses of a filer's actors.
#[derive(Clone)]
pub struct Actors {
    pub connectors: [Addr<ConnectorActor>; 2],
    pub health: Addr<HealthActor>,
    pub mirror: Addr<MirrorActor>,
    pub resync: Addr<ResyncActor>,
    pub mesh: Addr<MeshActor>,
    pub cache: Addr<CacheActor>,
}

/// What a peer said of itself, and when.
pub type Reports = BTreeMap<FilerId, (Report, Instant)>;

/// A running filer. A clone is another handle.
#[derive(Clone)]
pub struct Filer {
    pub who: Arc<Who>,
    pub world: World,
    pub consensus: Consensus,
    pub door: Door,
    pub roles: CurrentRoles,
    pub staging: Arc<Staging>,
    pub disk_cache: Arc<DiskCache>,
    pub reader: Arc<Reader>,
    pub vfs: Arc<Vfs>,
    pub actors: Actors,
    /// What answers peers' calls.
    pub services: Services,
    pub reports: Arc<Mutex<Reports>>,
    steps: Steps,
    started: Instant,
    /// From then on no put of the last run can arrive any more.
    last_puts_end: Instant,
}

impl Filer {
    /// Milliseconds since it started.
    pub fn up_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Age of a moment of wall time, in milliseconds.
    pub fn ms_since(&self, wall_ns: u64) -> u64 {
        self.world.clock.wall_ns().saturating_sub(wall_ns) / 1_000_000
    }
}
