//! How a run is read from afar: from its origin filer while no cloud has it, then from a cloud.

use super::{FramePlace, ReadError, Reader, Run, WrongFrame};
use crate::{
    actors::connector::{AttemptError, GetFrames},
    cloud_names::called,
    wire::{self, FilerCall, FilerReply},
};
use bytes::Bytes;
use mesh::{FilerId, consensus::removed_key, kv::STATE};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use storage::{
    cloudfs::{CloudState, Copy, Object, read},
    ids::{CloudId, SegmentId},
};
use tokio::time::Instant;

impl Reader {
    pub(super) async fn fetch_once(self: &Arc<Self>, run: &Run) -> Result<(), ReadError> {
        let (start, mut failures) = (Instant::now(), 0u32);
        let suspected = self.parts.roles.get().is_some_and(|roles| self.is_suspect(roles.active, run.segment));
        let mut active_failures = if suspected { self.settings.fallback_after } else { 0 };
        loop {
            let last = match self.attempt(run, &mut active_failures).await? {
                Ok(frames) => {
                    for (place, raw) in run.frames.iter().zip(frames) {
                        // One is decoded at a time: together they may be far larger than what was read.
                        if let Ok(data) = place.check(self.header(run.segment), run.file, &raw) {
                            self.parts.frames.insert(run.segment, place.at, apart(&raw, data));
                        }
                        self.parts.disk_cache.keep(run.segment, u64::from(place.at), raw).await;
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
    ) -> Result<Result<Vec<Bytes>, String>, ReadError> {
        let segment = run.segment;
        // Looked up first: whatever a removed filer has said of its segments is on record by then.
        let origin_left = segment.filer != self.parts.me && self.was_removed(segment.filer)?;
        let row = read::segment(&*self.parts.kv, segment).map_err(|e| ReadError::Local(e.to_string()))?;
        let Some(row) = row else {
            return Err(ReadError::Gone { segment });
        };
        let Some(object) = row.object else {
            if origin_left {
                let why = format!("filer {} alone had it, and was removed", segment.filer);
                return Err(ReadError::Lost { segment, why });
            }
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
        let get = self.get_frames(run, &object);
        match self.parts.connectors[cloud.index()].send(get).await {
            Ok(Ok(frames)) => {
                self.stats.cloud_reads.fetch_add(1, Relaxed);
                if from_standby {
                    self.stats.fallback_reads.fetch_add(1, Relaxed);
                    self.suspect(roles.active, run, &object);
                }
                Ok(Ok(frames))
            }
            Ok(Err(error @ AttemptError::Failed { in_a_row, .. })) => {
                if cloud == roles.active {
                    // Others may have asked for this piece, and it may have failed them, before this read began.
                    *active_failures = active_failures.saturating_add(1).max(in_a_row);
                } else {
                    // The standby's turn is over; the active one is asked again.
                    *active_failures = 0;
                }
                Ok(Err(error.to_string()))
            }
            // What is on record has lost it: the other cloud has the very same.
            Ok(Err(AttemptError::Lost { why, .. })) => Err(ReadError::Lost { segment, why }),
            Ok(Err(error @ (AttemptError::NotTried(_) | AttemptError::Crowded(_) | AttemptError::Damaged { .. }))) => {
                Ok(Err(error.to_string()))
            }
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    fn was_removed(&self, filer: FilerId) -> Result<bool, ReadError> {
        let row = self.parts.kv.get(STATE, &removed_key(filer)).map_err(|e| ReadError::Local(e.to_string()))?;
        Ok(row.is_some())
    }

    /// The order to read a run's frames from a cloud.
    pub(super) fn get_frames(&self, run: &Run, object: &Object) -> GetFrames {
        let Object { bytes, md5, .. } = *object;
        GetFrames { of: self.header(run.segment), file: run.file, frames: run.frames.clone(), bytes, md5 }
    }

    /// Asks the filer that wrote it, where no cloud has it yet. The outer error is final: only its origin has it, and has
    /// lost it.
    async fn ask_origin(&self, run: &Run) -> Result<Result<Vec<Bytes>, String>, ReadError> {
        let (segment, origin) = (run.segment, run.segment.filer);
        let deadline = Duration::from_millis(self.settings.origin_ms_max);
        let mut frames = Vec::new();
        for place in &run.frames {
            let raw = if origin == self.parts.me {
                self.staged_for_sure(segment, place).await
            } else {
                let call = FilerCall::ReadSegment { segment, at: u64::from(place.at), len: place.len };
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
            match place.check(self.header(segment), run.file, &raw) {
                Ok(_) => frames.push(raw),
                Err(WrongFrame::Lost(lost)) => return Err(ReadError::Lost { segment, why: lost.to_string() }),
                Err(wrong) => return Ok(Err(format!("from filer {origin}: {wrong}"))),
            }
        }
        self.stats.origin_reads.fetch_add(1, Relaxed);
        Ok(Ok(frames))
    }

    /// A frame of this filer's own that is in no cloud, as its staging has it.
    async fn staged_for_sure(&self, segment: SegmentId, place: &FramePlace) -> Result<Bytes, String> {
        if self.parts.staging.is_doubtful(segment) {
            return Err("it was found damaged, and is being looked for in the clouds".into());
        }
        let staged = self.parts.staging.read(segment, u64::from(place.at), place.len as usize).await;
        // Released a moment ago: the record will say so at the next look.
        staged.map_err(|e| e.to_string())?.ok_or_else(|| "it is neither in staging nor on record as released".into())
    }
}

/// The data of a frame in memory of its own: one that is a part of what was read with it would keep all of that.
fn apart(raw: &Bytes, data: Bytes) -> Bytes {
    if raw.as_ptr_range().contains(&data.as_ptr()) { Bytes::copy_from_slice(&data) } else { data }
}

fn copies(object: &Object) -> String {
    let place = |cloud: CloudId| match object.copies[cloud.index()] {
        Copy::Stored => format!("cloud {} has it", called(cloud)),
        Copy::Missed => format!("cloud {} missed it", called(cloud)),
    };
    format!("{}, {}", place(CloudId::A), place(CloudId::B))
}
