//! How what nothing refers to goes: cut-off extents are reaped, what removed filers left behind is called dead, and dead
//! segments are deleted from the clouds.
//!
//! Owns: what is asked of the clouds and of the record, one step at a time. Does not own: which dead segments, and when
//! (`storage::resync::sweep`, `storage::grace`), what is dead (`storage::cloudfs`).

use super::{RepairError, Tools};
use crate::actors::connector::Delete;
use futures::StreamExt;
use mesh::FilerId;
use storage::{
    cloudfs::{CloudState, OpBody, read},
    ids::{CloudId, SegmentId},
};

/// Deletes under way at one time.
const DELETES_IN_FLIGHT_MAX: usize = 16;

impl Tools {
    /// Has the next cut-off extents taken away, of one file after another.
    pub(super) async fn reap(&self, reaps_max: usize) {
        let mut after_ino = 0;
        for _ in 0..reaps_max {
            let next = |after_ino| read::orphans(&*self.kv, after_ino, 1).map(|found| found.first().copied());
            let ino = match next(after_ino).and_then(|found| found.map_or_else(|| next(0), |ino| Ok(Some(ino)))) {
                Ok(Some(ino)) => ino,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "cut-off extents cannot be looked up");
                    return;
                }
            };
            after_ino = ino;
            if let Err(error) = self.door.propose(OpBody::Reap { ino }).await {
                tracing::debug!(ino, %error, "cut-off extents are not reaped yet");
                return;
            }
        }
    }

    /// Has the next segments that removed filers left behind, and that nothing refers to, called dead: the first
    /// `rows_max` rows behind `upto`. Gives how far it came; `None`: at the end.
    pub(super) async fn bury(&self, upto: Option<SegmentId>, rows_max: usize) -> Option<SegmentId> {
        let removed = match mesh::consensus::removed(&*self.kv) {
            Ok(removed) => removed,
            Err(error) => {
                tracing::error!(%error, "removed filers cannot be looked up");
                return upto;
            }
        };
        let filer = removed.range(upto.map_or(FilerId(0), |upto| upto.filer)..).next().copied()?;
        let after = upto.filter(|upto| upto.filer == filer).unwrap_or(SegmentId { filer, number: 0 });
        let rows = match read::segments(&*self.kv, Some(after), rows_max) {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(%error, "segments of removed filers cannot be looked up");
                return upto;
            }
        };
        let own = rows.iter().take_while(|(id, _)| id.filer == filer);
        for (segment, row) in own.clone() {
            let left = row.live_bytes == 0 && row.object.is_none() && row.dead_since_ns.is_none();
            if left && let Err(error) = self.door.propose(OpBody::Bury { segment: *segment }).await {
                tracing::debug!(%segment, %error, "what a removed filer left is not called dead yet");
            }
        }
        match own.last() {
            Some((last, _)) if rows.len() == rows_max => Some(*last),
            // The next filer's turn.
            _ => Some(SegmentId { filer: FilerId(filer.0.checked_add(1)?), number: 0 }),
        }
    }

    /// Deletes these dead segments; tells how that went.
    pub(super) async fn sweep(&self, dead: Vec<SegmentId>) -> Vec<(SegmentId, Result<(), RepairError>)> {
        let deletes = dead.into_iter().map(|segment| async move { (segment, self.delete(segment).await) });
        futures::stream::iter(deletes).buffer_unordered(DELETES_IN_FLIGHT_MAX).collect().await
    }

    async fn delete(&self, segment: SegmentId) -> Result<(), RepairError> {
        let Some(roles) = read::roles(&*self.kv)? else {
            return Ok(());
        };
        let (mut done, mut failed) = ([false; 2], None);
        // What one keeps is no reason for the other to keep it.
        for cloud in CloudId::BOTH {
            let state = roles.cloud(cloud).state;
            if state == CloudState::Failed {
                continue;
            }
            match self.connectors[cloud.index()].send(Delete { segment }).await? {
                Ok(()) => done[cloud.index()] = true,
                Err(error) if state == CloudState::Healthy => failed = Some(error),
                // A row of what a resyncing cloud refuses would only be written to be taken off again. But one that is
                // there, of a put that nobody needs any more, must go.
                Err(error) if error.is_refusal() && read::miss(&*self.kv, cloud, segment)?.is_none() => {
                    failed = Some(error);
                }
                Err(_) => {}
            }
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        self.door.propose(OpBody::Deleted { segment, done, epoch: roles.epoch }).await?;
        self.cache.drop_segment(segment).await;
        Ok(())
    }
}
