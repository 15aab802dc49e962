//! How bytes of a file are found: open segment, staging, cache, origin filer, active cloud, and at last the standby.
//!
//! Reads of a cloud use the active one alone, since egress costs money. A piece that failed there a few times in a row,
//! whoever asked, is read from the standby, which is always right: released means that both hold it. The active cloud is
//! still asked for that piece in the background, so that a cloud that fails only reads trips too; while it is, other reads
//! of the piece begin at the standby.
//!
//! Owns: the order of the places, one fetch for many waiters, fallback, memory for frames. Does not own: the places themselves.

mod afar;
mod pieces;
mod places;
mod repair;
mod under_way;

use crate::{
    actors::{connector::ConnectorActor, resync::ResyncActor},
    roles::CurrentRoles,
};
use actix::Addr;
use bytes::Bytes;
use mesh::{FilerId, clock::Random, kv::Kv, peers::Peers, words::span};
use pieces::Rooms;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, atomic::AtomicU64, atomic::Ordering::Relaxed},
};
use storage::{
    backoff::Backoff,
    cache::{DiskCache, FrameCache},
    cloudfs::{Extent, Handle},
    disk::DiskError,
    ids::{CloudId, SegmentId},
    segment::Header,
    staging::{Staging, StagingError},
};
use under_way::{Place, UnderWay};

pub use places::{FramePlace, Run, WrongFrame, runs};

/// Limits of reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Failures in a row of the active cloud on one piece before the standby is asked.
    pub fallback_after: u32,
    /// Waits between two attempts.
    pub attempt_backoff: Backoff,
    /// How long a read goes on trying, in milliseconds; then the client is told to ask again.
    pub read_ms_max: u64,
    /// How long the origin filer is waited for, in milliseconds.
    pub origin_ms_max: u64,
    /// Frames read by one request to a cloud, or by one read at a time, as they are stored, in bytes.
    pub run_bytes_max: u32,
    /// Frames that all reads under way are being made of, as they are stored, in bytes; as much again for those on their
    /// way from afar.
    pub frame_bytes_in_flight_max: u64,
    /// Bytes read ahead of a sequential reader.
    pub read_ahead_bytes: u64,
    /// Runs read ahead at one time.
    pub read_aheads_max: usize,
    /// Pieces that the active cloud is still asked for after a fallback, at one time.
    pub suspects_max: usize,
    /// How long it is asked for one of them, in milliseconds. Longer than the failures that trip a cloud take.
    pub suspect_ms_max: u64,
    /// How often a piece that it lacks is put there again within that time.
    pub repairs_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            fallback_after: 3,
            attempt_backoff: Backoff { ms_min: 20, ms_max: 1000 },
            read_ms_max: 20_000,
            origin_ms_max: 5_000,
            run_bytes_max: 4 << 20,
            frame_bytes_in_flight_max: 96 << 20,
            read_ahead_bytes: 8 << 20,
            read_aheads_max: 4,
            suspects_max: 4,
            suspect_ms_max: 600_000,
            repairs_max: 3,
        }
    }
}

/// Why a piece cannot be read now.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReadError {
    /// Every place that should have it failed until the deadline.
    #[error("segment {segment} could not be read within {}: {last}", span(*waited_ms))]
    Later { segment: SegmentId, waited_ms: u64, last: String },
    /// Nothing refers to it any more: its place is to be looked up again.
    #[error("segment {segment} is not on record (any more)")]
    Gone { segment: SegmentId },
    /// No place is left that could have it.
    #[error("segment {segment} is lost: {why}")]
    Lost { segment: SegmentId, why: String },
    /// A local table or disk failed.
    #[error("{0}")]
    Local(String),
}

/// Counters of reading.
#[derive(Debug, Default)]
pub struct ReadStats {
    pub memory_hits: AtomicU64,
    pub disk_hits: AtomicU64,
    pub origin_reads: AtomicU64,
    pub cloud_reads: AtomicU64,
    pub fallback_reads: AtomicU64,
    /// Copies on this filer's disk that failed their checksum.
    pub damaged: AtomicU64,
    /// Objects that a cloud had lost or damaged, and that were put there again from the other one.
    pub repaired: AtomicU64,
}

/// What a reader needs.
pub struct Parts {
    pub me: FilerId,
    /// The number of the CloudFS, which its frames are tagged with.
    pub cloudfs: u64,
    pub kv: Arc<dyn Kv>,
    pub staging: Arc<Staging>,
    pub disk_cache: Arc<DiskCache>,
    pub frames: FrameCache,
    pub connectors: [Addr<ConnectorActor>; 2],
    pub peers: Arc<dyn Peers>,
    pub roles: CurrentRoles,
    pub resync: Addr<ResyncActor>,
    pub random: Arc<dyn Random>,
}

/// The reader of one filer.
pub struct Reader {
    parts: Parts,
    settings: Settings,
    under_way: UnderWay,
    suspects: Mutex<BTreeSet<(CloudId, SegmentId)>>,
    ahead: tokio::sync::Semaphore,
    rooms: Rooms,
    pub stats: ReadStats,
}

impl Reader {
    /// A reader of these places.
    pub fn new(parts: Parts, settings: Settings) -> Arc<Self> {
        let ahead = tokio::sync::Semaphore::new(settings.read_aheads_max);
        let rooms = Rooms::new(settings.frame_bytes_in_flight_max);
        let (under_way, suspects, stats) = Default::default();
        Arc::new(Self { parts, settings, under_way, suspects, ahead, rooms, stats })
    }

    /// How far to read ahead of a sequential reader, in bytes.
    pub fn read_ahead_bytes(&self) -> u64 {
        self.settings.read_ahead_bytes
    }

    /// Decoded bytes held in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.parts.frames.bytes()
    }

    /// What a segment's frames are tagged with.
    fn header(&self, segment: SegmentId) -> Header {
        Header { cloudfs: self.parts.cloudfs, segment }
    }

    /// Reads what these extents of a file need into the cache, as far as there is room for reading ahead. Waits for nothing.
    pub fn ahead(self: &Arc<Self>, file: Handle, extents: &[Extent]) {
        let wanted = |extent: &&Extent| {
            let known = self.parts.frames.has(extent.segment, extent.frame_at);
            !known
                && !self.under_way.has(&(extent.segment, FramePlace::of(extent)))
                && !self.parts.staging.holds(extent.segment)
        };
        let wanted: Vec<Extent> = extents.iter().filter(wanted).copied().collect();
        for run in runs(file, &wanted, self.settings.run_bytes_max) {
            let this = self.clone();
            tokio::spawn(async move {
                let Ok(_permit) = this.ahead.try_acquire() else {
                    return;
                };
                if matches!(this.near(run.segment, run.file, run.frames[0]).await, Ok(None))
                    && let Err(error) = this.fetch(run).await
                {
                    tracing::debug!(%error, "reading ahead failed");
                }
            });
        }
    }

    /// The frame, where this filer has it: memory, staging, cache.
    async fn near(&self, segment: SegmentId, file: Handle, place: FramePlace) -> Result<Option<Bytes>, ReadError> {
        let (at, len) = (place.at, place.len as usize);
        if let Some(frame) = self.parts.frames.get(segment, at) {
            self.stats.memory_hits.fetch_add(1, Relaxed);
            return Ok(Some(frame));
        }
        match self.parts.staging.read(segment, u64::from(at), len).await {
            Ok(None) => {}
            Ok(Some(raw)) => match place.check(self.header(segment), file, &raw) {
                Ok(data) => return Ok(Some(data)),
                // Damaged here, or known as lost, it may yet be whole in a cloud.
                Err(error) => self.damaged("staging", segment, &error),
            },
            Err(StagingError::Disk(error @ DiskError::Unreadable { .. })) => self.damaged("staging", segment, &error),
            Err(error) => return Err(ReadError::Local(error.to_string())),
        }
        if let Some(raw) = self.parts.disk_cache.read(segment, u64::from(at), len).await {
            match place.check(self.header(segment), file, &raw) {
                Ok(data) => {
                    self.stats.disk_hits.fetch_add(1, Relaxed);
                    self.parts.frames.insert(segment, at, data.clone());
                    return Ok(Some(data));
                }
                Err(error) => {
                    self.damaged("the cache", segment, &error);
                    self.parts.disk_cache.drop_segment(segment).await;
                }
            }
        }
        Ok(None)
    }

    fn damaged(&self, place: &str, segment: SegmentId, error: &dyn std::fmt::Display) {
        self.stats.damaged.fetch_add(1, Relaxed);
        tracing::warn!(%segment, %error, "a copy in {place} is damaged");
    }

    /// Reads a run from afar into the cache: one fetch of a frame, however many wait for it.
    async fn fetch(self: &Arc<Self>, run: Run) -> Result<(), ReadError> {
        let places: Vec<Place> = run.frames.iter().map(|place| (run.segment, *place)).collect();
        loop {
            let (this, run) = (self.clone(), run.clone());
            let (fetch, own) = self.under_way.begin_or_join(&places, async move { this.fetch_once(&run).await });
            match fetch.await {
                // Perhaps another frame of the run that was joined is lost, and not this one; or that fetch broke off.
                Err(ReadError::Lost { .. } | ReadError::Local(_)) if !own => {}
                ended => return ended,
            }
        }
    }
}
