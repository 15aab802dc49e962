//! How bytes of a file are found: open segment, staging, cache, origin filer, active cloud, and at last the standby.
//!
//! Reads of a cloud use the active one alone, since egress costs money. A piece that fails there a few times is read from
//! the standby, which is always right: released means that both hold it. The active cloud is still asked for that piece
//! in the background, so that a cloud that fails only reads trips too.
//!
//! Owns: the order of the places, one fetch for many waiters, fallback. Does not own: the places themselves.

mod places;
mod repair;

use crate::{
    actors::connector::{AttemptError, ConnectorActor, GetFrames},
    roles::CurrentRoles,
    wire::{self, FilerCall, FilerReply},
};
use actix::Addr;
use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use mesh::{FilerId, clock::Random, kv::Kv, peers::Peers};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicU64, atomic::Ordering::Relaxed},
    time::Duration,
};
use storage::{
    backoff::Backoff,
    cache::{DiskCache, FrameCache},
    cloudfs::{CloudState, Copy, Extent, Object, read},
    ids::{CloudId, SegmentId},
    segment::{FrameError, decode_frame},
    staging::Staging,
};
use tokio::time::Instant;

pub use places::{Run, runs};

/// Limits of reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Failures of the active cloud on one read before the standby is asked.
    pub fallback_after: u32,
    /// Waits between two attempts.
    pub attempt_backoff: Backoff,
    /// How long a read goes on trying, in milliseconds; then the client is told to ask again.
    pub read_ms_max: u64,
    /// How long the origin filer is waited for, in milliseconds.
    pub origin_ms_max: u64,
    /// Frames read by one request to a cloud, in bytes.
    pub run_bytes_max: u32,
    /// Bytes read ahead of a sequential reader.
    pub read_ahead_bytes: u64,
    /// Runs read ahead at one time.
    pub read_aheads_max: usize,
    /// Pieces that the active cloud is still asked for after a fallback, at one time.
    pub suspects_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            fallback_after: 3,
            attempt_backoff: Backoff { ms_min: 20, ms_max: 1000 },
            read_ms_max: 20_000,
            origin_ms_max: 5_000,
            run_bytes_max: 4 << 20,
            read_ahead_bytes: 8 << 20,
            read_aheads_max: 4,
            suspects_max: 4,
        }
    }
}

/// Why a piece cannot be read now.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReadError {
    /// Every place that should have it failed until the deadline.
    #[error("segment {segment} could not be read within {waited_ms} ms: {last}")]
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
    pub kv: Arc<dyn Kv>,
    pub staging: Arc<Staging>,
    pub disk_cache: Arc<DiskCache>,
    pub frames: FrameCache,
    pub connectors: [Addr<ConnectorActor>; 2],
    pub peers: Arc<dyn Peers>,
    pub roles: CurrentRoles,
    pub random: Arc<dyn Random>,
}

/// A frame's place: its segment, where it begins, how long it is.
type Place = (SegmentId, u32, u32);
type Fetch = Shared<BoxFuture<'static, Result<(), ReadError>>>;

/// The reader of one filer.
pub struct Reader {
    parts: Parts,
    settings: Settings,
    /// By every frame of their runs; the number tells them apart.
    under_way: Mutex<BTreeMap<Place, (u64, Fetch)>>,
    fetches: AtomicU64,
    suspects: Mutex<BTreeSet<(CloudId, SegmentId)>>,
    ahead: tokio::sync::Semaphore,
    pub stats: ReadStats,
}

impl Reader {
    /// A reader of these places.
    pub fn new(parts: Parts, settings: Settings) -> Arc<Self> {
        let ahead = tokio::sync::Semaphore::new(settings.read_aheads_max);
        let (under_way, fetches, suspects, stats) = Default::default();
        Arc::new(Self { parts, settings, under_way, fetches, suspects, ahead, stats })
    }

    /// How far to read ahead of a sequential reader, in bytes.
    pub fn read_ahead_bytes(&self) -> u64 {
        self.settings.read_ahead_bytes
    }

    /// Decoded bytes held in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.parts.frames.bytes()
    }

    /// The data of an extent.
    pub async fn extent(self: &Arc<Self>, extent: &Extent) -> Result<Bytes, ReadError> {
        let place = (extent.segment, extent.frame_at, extent.frame_len);
        let start = Instant::now();
        loop {
            if let Some(frame) = self.near(place).await? {
                let (from, to) = (extent.skip as usize, extent.skip as usize + extent.len as usize);
                if to > frame.len() {
                    return Err(ReadError::Lost {
                        segment: extent.segment,
                        why: format!(
                            "its frame at byte {} has {} bytes, and {to} are on record",
                            extent.frame_at,
                            frame.len()
                        ),
                    });
                }
                return Ok(frame.slice(from..to));
            }
            let run = Run { segment: extent.segment, frames: vec![(extent.frame_at, extent.frame_len)] };
            self.fetch(run).await?;
            if start.elapsed() > Duration::from_millis(2 * self.settings.read_ms_max) {
                let waited_ms = start.elapsed().as_millis() as u64;
                let last = "what was fetched was evicted before it was read".into();
                return Err(ReadError::Later { segment: extent.segment, waited_ms, last });
            }
        }
    }

    /// Reads what these extents need into the cache, as far as there is room for reading ahead. Waits for nothing.
    pub fn ahead(self: &Arc<Self>, extents: &[Extent]) {
        let wanted = |extent: &&Extent| {
            let known = self.parts.frames.has(extent.segment, extent.frame_at);
            let place = (extent.segment, extent.frame_at, extent.frame_len);
            !known && !self.fetches().contains_key(&place) && !self.parts.staging.holds(extent.segment)
        };
        let wanted: Vec<Extent> = extents.iter().filter(wanted).copied().collect();
        for run in runs(&wanted, self.settings.run_bytes_max) {
            let this = self.clone();
            tokio::spawn(async move {
                let Ok(_permit) = this.ahead.try_acquire() else {
                    return;
                };
                let place = (run.segment, run.frames[0].0, run.frames[0].1);
                if matches!(this.near(place).await, Ok(None))
                    && let Err(error) = this.fetch(run).await
                {
                    tracing::debug!(%error, "reading ahead failed");
                }
            });
        }
    }

    /// The frame, where this filer has it: memory, staging, cache.
    async fn near(&self, (segment, at, len): Place) -> Result<Option<Bytes>, ReadError> {
        if let Some(frame) = self.parts.frames.get(segment, at) {
            self.stats.memory_hits.fetch_add(1, Relaxed);
            return Ok(Some(frame));
        }
        let staged = self.parts.staging.read(segment, u64::from(at), len as usize).await;
        if let Some(raw) = staged.map_err(|e| ReadError::Local(e.to_string()))? {
            match decode_frame(&raw) {
                Ok(frame) => return Ok(Some(frame.data)),
                // Damaged here, or known as lost, it may yet be whole in a cloud.
                Err(error) => self.damaged("staging", segment, &error),
            }
        }
        if let Some(raw) = self.parts.disk_cache.read(segment, u64::from(at), len as usize).await {
            match decode_frame(&raw) {
                Ok(frame) => {
                    self.stats.disk_hits.fetch_add(1, Relaxed);
                    self.parts.frames.insert(segment, at, frame.data.clone());
                    return Ok(Some(frame.data));
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

    fn fetches(&self) -> MutexGuard<'_, BTreeMap<Place, (u64, Fetch)>> {
        self.under_way.lock().expect("no holder of the fetches panics")
    }

    /// Reads a run from afar into the cache: one fetch of a frame, however many wait for it.
    async fn fetch(self: &Arc<Self>, run: Run) -> Result<(), ReadError> {
        loop {
            let (fetch, own) = self.begin_or_join(&run);
            match fetch.await {
                // Perhaps another frame of the run that was joined is lost, and not this one.
                Err(ReadError::Lost { .. }) if !own => {}
                ended => return ended,
            }
        }
    }

    /// The fetch of a run that is under way, or a new one; and whether it is new.
    fn begin_or_join(self: &Arc<Self>, run: &Run) -> (Fetch, bool) {
        let places: Vec<Place> = run.frames.iter().map(|(at, len)| (run.segment, *at, *len)).collect();
        let mut under_way = self.fetches();
        if let Some((_, fetch)) = under_way.get(&places[0]) {
            return (fetch.clone(), false);
        }
        let number = self.fetches.fetch_add(1, Relaxed);
        let (this, run) = (self.clone(), run.clone());
        // A task of its own, so that the waiter that goes away does not take the others' fetch along.
        let task = tokio::spawn(async move {
            let result = this.fetch_once(&run).await;
            this.fetches().retain(|_, (other, _)| *other != number);
            result
        });
        let ended = task.map(|end| end.unwrap_or_else(|e| Err(ReadError::Local(e.to_string()))));
        let fetch: Fetch = ended.boxed().shared();
        for place in places {
            under_way.entry(place).or_insert_with(|| (number, fetch.clone()));
        }
        (fetch, true)
    }

    async fn fetch_once(self: &Arc<Self>, run: &Run) -> Result<(), ReadError> {
        let (start, mut failures, mut active_failures) = (Instant::now(), 0u32, 0u32);
        loop {
            let last = match self.attempt(run, &mut active_failures).await? {
                Ok(frames) => {
                    for (&(at, _), (raw, data)) in run.frames.iter().zip(frames) {
                        self.parts.frames.insert(run.segment, at, apart(&raw, data));
                        self.parts.disk_cache.keep(run.segment, u64::from(at), raw).await;
                    }
                    return Ok(());
                }
                Err(last) => last,
            };
            failures += 1;
            let waited_ms = start.elapsed().as_millis() as u64;
            if waited_ms >= self.settings.read_ms_max {
                return Err(ReadError::Later { segment: run.segment, waited_ms, last });
            }
            let wait_ms = self.settings.attempt_backoff.wait_ms(failures, &*self.parts.random);
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
    }

    /// One attempt at the place that should have it now. The outer error is final; the inner one is worth another try.
    async fn attempt(
        self: &Arc<Self>,
        run: &Run,
        active_failures: &mut u32,
    ) -> Result<Result<Vec<(Bytes, Bytes)>, String>, ReadError> {
        let segment = run.segment;
        let row = read::segment(&*self.parts.kv, segment).map_err(|e| ReadError::Local(e.to_string()))?;
        let Some(row) = row else {
            return Err(ReadError::Gone { segment });
        };
        let Some(object) = row.object else {
            return self.ask_origin(run).await;
        };
        let Some(roles) = self.parts.roles.get() else {
            return Ok(Err("the clouds' roles are not known yet".into()));
        };
        let has = |cloud: CloudId| object.copies[cloud.index()] == Copy::Stored;
        let usable = |cloud: CloudId| has(cloud) && roles.cloud(cloud).state != CloudState::Failed;
        let standby = roles.standby();
        let from_standby =
            usable(standby) && (!usable(roles.active) || *active_failures >= self.settings.fallback_after);
        let cloud = if from_standby { standby } else { roles.active };
        if !usable(cloud) {
            return Ok(Err(format!("no cloud that has it is in service ({})", copies(&object))));
        }
        let Object { bytes, md5, .. } = object;
        let get = GetFrames { segment, frames: run.frames.clone(), bytes, md5 };
        match self.parts.connectors[cloud.index()].send(get).await {
            Ok(Ok(frames)) => {
                self.stats.cloud_reads.fetch_add(1, Relaxed);
                if from_standby {
                    self.stats.fallback_reads.fetch_add(1, Relaxed);
                    self.suspect(roles.active, run, &object);
                }
                Ok(Ok(frames))
            }
            Ok(Err(error @ AttemptError::Failed { .. })) => {
                if cloud == roles.active {
                    *active_failures += 1;
                } else {
                    // The standby's turn is over; the active one is asked again.
                    *active_failures = 0;
                }
                Ok(Err(error.to_string()))
            }
            // What is on record has lost it: the other cloud has the very same.
            Ok(Err(AttemptError::Lost { why, .. })) => Err(ReadError::Lost { segment, why }),
            Ok(Err(error @ (AttemptError::NotTried(_) | AttemptError::Damaged { .. }))) => Ok(Err(error.to_string())),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    /// Asks the filer that wrote it, where no cloud has it yet. The outer error is final: only its origin has it, and has
    /// lost it.
    async fn ask_origin(&self, run: &Run) -> Result<Result<Vec<(Bytes, Bytes)>, String>, ReadError> {
        let (segment, origin) = (run.segment, run.segment.filer);
        let deadline = Duration::from_millis(self.settings.origin_ms_max);
        let mut frames = Vec::new();
        for &(at, len) in &run.frames {
            let raw = if origin == self.parts.me {
                self.staged_for_sure(segment, at, len).await
            } else {
                let call = FilerCall::ReadSegment { segment, at: u64::from(at), len };
                match wire::call(&*self.parts.peers, origin, &call, deadline).await {
                    Ok((FilerReply::Segment, raw)) => Ok(raw),
                    Ok(_) => Err(format!("filer {origin} answered something else")),
                    Err(error) => Err(error.to_string()),
                }
            };
            let raw = match raw {
                Ok(raw) => raw,
                Err(why) => return Ok(Err(why)),
            };
            match decode_frame(&raw) {
                Ok(frame) => frames.push((raw, frame.data)),
                Err(lost @ FrameError::Lost { .. }) => {
                    return Err(ReadError::Lost { segment, why: lost.to_string() });
                }
                Err(wrong) => return Ok(Err(format!("from filer {origin}: {wrong}"))),
            }
        }
        self.stats.origin_reads.fetch_add(1, Relaxed);
        Ok(Ok(frames))
    }

    /// A frame of this filer's own that is in no cloud, as its staging has it.
    async fn staged_for_sure(&self, segment: SegmentId, at: u32, len: u32) -> Result<Bytes, String> {
        if self.parts.staging.is_doubtful(segment) {
            return Err("it was found damaged, and is being looked for in the clouds".into());
        }
        let staged = self.parts.staging.read(segment, u64::from(at), len as usize).await.map_err(|e| e.to_string())?;
        // Released a moment ago: the record will say so at the next look.
        staged.ok_or_else(|| "it is neither in staging nor on record as released".into())
    }
}

/// The data of a frame in memory of its own: one that is a part of what was read with it would keep all of that.
fn apart(raw: &Bytes, data: Bytes) -> Bytes {
    if raw.as_ptr_range().contains(&data.as_ptr()) { Bytes::copy_from_slice(&data) } else { data }
}

fn copies(object: &Object) -> String {
    let place = |cloud: CloudId| match object.copies[cloud.index()] {
        Copy::Stored => format!("cloud {cloud} has it"),
        Copy::Missed => format!("cloud {cloud} missed it"),
    };
    format!("{}, {}", place(CloudId::A), place(CloudId::B))
}
