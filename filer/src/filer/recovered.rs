//! What the last run left in staging: released, handed to the mirror, or, where it is damaged, looked for in the clouds.

use super::Filer;
use crate::{
    actors::{
        connector::{AttemptError, FindObject},
        mirror::{SegmentSealed, release},
    },
    cloud_names::called,
};
use bytes::Bytes;
use mesh::words::span;
use std::time::Duration;
use storage::{
    cloud::CloudError,
    cloudfs::{CloudState, read},
    ids::{CloudId, Md5, SegmentId},
    segment::{FrameState, Header, survey},
    staging::{Recovered, staging_file},
};
use tokio::time::{Instant, sleep_until};

impl Filer {
    /// Releases recovered segments that are on record as stored already, and hands the others to the mirror, but for the
    /// damaged ones, which it gives back.
    pub(super) async fn judge(&self, recovered: Vec<Recovered>) -> Vec<(SegmentId, Md5, u64)> {
        let mut doubtful = Vec::new();
        if recovered.is_empty() {
            return doubtful;
        }
        while let Err(error) = self.door.barrier().await {
            tracing::info!(%error, "recovered segments wait for the replicated log");
            self.pause().await;
        }
        for Recovered { segment, md5, bytes, cut_bytes, lost_frames, .. } in recovered {
            let row = loop {
                match read::segment(&*self.world.kv, segment) {
                    Ok(row) => break row,
                    Err(error) => tracing::error!(%segment, %error, "a recovered segment waits for the local tables"),
                }
                self.pause().await;
            };
            let object = row.and_then(|row| row.object);
            let stored = object.map(|object| (object.md5, object.bytes) == (md5, bytes));
            tracing::info!(%segment, bytes, cut_bytes, lost_frames, ?stored, "recovered a segment");
            match stored {
                Some(true) => release(&self.staging, &self.disk_cache, segment).await,
                Some(false) => {
                    // The clouds have proved that they hold it; what the disk gave back is something else.
                    tracing::error!(%segment, %md5, "a staged segment is damaged and dropped: the clouds have it");
                    self.staging.release(segment).await;
                    self.disk_cache.discard(&staging_file(segment)).await;
                }
                None if lost_frames == 0 => {
                    self.actors.mirror.do_send(SegmentSealed { segment, bytes, md5, flushed: true });
                }
                None => doubtful.push((segment, md5, bytes)),
            }
        }
        doubtful
    }

    /// Looks in the clouds for recovered segments that are damaged here and not on record: the last run may have ended
    /// between a put and its word. Where one is found whole, it is right; otherwise what is left here is put, once no put of
    /// the last run can arrive any more. One that arrived behind it would take its place, and not be what is on record; one
    /// that arrives before has saved what the disk lost.
    pub(super) async fn find_damaged(&self, doubtful: Vec<(SegmentId, Md5, u64)>) {
        let mut left = Vec::new();
        for (segment, md5, bytes) in doubtful {
            match self.restored(segment).await {
                Some((md5, bytes)) => self.actors.mirror.do_send(SegmentSealed { segment, bytes, md5, flushed: true }),
                None => left.push((segment, md5, bytes)),
            }
            self.staging.settle(segment);
        }
        if left.is_empty() {
            return;
        }
        let wait = span(self.last_puts_end.duration_since(Instant::now()).as_millis() as u64);
        tracing::warn!(segments = left.len(), %wait, "what is left of damaged segments is put when no earlier put of them can arrive any more");
        sleep_until(self.last_puts_end).await;
        for (segment, md5, bytes) in left {
            let (md5, bytes) = self.restored(segment).await.unwrap_or((md5, bytes));
            self.actors.mirror.do_send(SegmentSealed { segment, bytes, md5, flushed: true });
        }
    }

    /// Restores a damaged segment from a cloud; `None` when neither has it whole.
    async fn restored(&self, segment: SegmentId) -> Option<(Md5, u64)> {
        for cloud in CloudId::BOTH {
            if let Some(found) = self.restore_from(cloud, segment).await {
                return Some(found);
            }
        }
        None
    }

    /// Restores a damaged segment from this cloud; `None` when it does not have it whole. It says so itself, or what it gives
    /// is wrong again and again: a single answer may have been damaged on its way.
    async fn restore_from(&self, cloud: CloudId, segment: SegmentId) -> Option<(Md5, u64)> {
        let of = Header { cloudfs: self.who.cloudfs, segment };
        let is_lost_in_part =
            |body: &Bytes| survey(&of, body).frames.iter().any(|frame| frame.state != FrameState::Whole);
        let mut wrong_answers = 0;
        loop {
            match self.actors.connectors[cloud.index()].send(FindObject { of }).await {
                Ok(Ok(None)) => return None,
                // It was damaged before that cloud got it.
                Ok(Ok(Some(body))) if is_lost_in_part(&body) => return None,
                Ok(Ok(Some(body))) => {
                    let (md5, bytes) = (Md5::of(&body), body.len() as u64);
                    match self.staging.restore(segment, body, md5).await {
                        Ok(()) => {
                            tracing::warn!(%segment, cloud = %called(cloud), "a damaged staged segment was restored from a cloud");
                            return Some((md5, bytes));
                        }
                        Err(error) => tracing::error!(%segment, %error, "a damaged staged segment is not restored yet"),
                    }
                }
                // What it has is written over by its resync anyway.
                Ok(Err(AttemptError::NotTried(_))) if self.roles.state(cloud) == Some(CloudState::Failed) => {
                    return None;
                }
                Ok(Err(AttemptError::Failed { source: error @ CloudError::Corrupt { .. }, .. })) => {
                    wrong_answers += 1;
                    if wrong_answers >= self.steps.wrong_answers_max {
                        tracing::error!(%segment, cloud = %called(cloud), wrong_answers, %error, "the cloud's copy of a damaged segment is damaged too");
                        return None;
                    }
                    tracing::warn!(%segment, cloud = %called(cloud), wrong_answers, %error, "what a cloud gave of a damaged segment is wrong, and asked for again");
                    let wait_ms = self.steps.wrong_answer_backoff.wait_ms(wrong_answers, &*self.world.random);
                    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                }
                Ok(Err(error)) => tracing::info!(%segment, %error, "a damaged segment is looked for in the clouds"),
                // The filer stops.
                Err(_) => std::future::pending().await,
            }
            self.pause().await;
        }
    }
}
