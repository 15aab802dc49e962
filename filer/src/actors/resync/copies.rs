//! How what a cloud lacks gets there: a row of the missed-write log is carried out, a copy that was lost or damaged is put
//! again. Both look at the record behind a barrier before they put, and again when they have the body.
//!
//! Owns: whether a copy is still wanted when it is put. Does not own: which row, and when (`storage::resync`).

use super::{NotPut, RepairError, Tools};
use crate::{
    actors::connector::{Delete, GetObject, Put},
    cloud_names::called,
};
use bytes::Bytes;
use mesh::kv::{KvError, KvRead};
use storage::{
    cloudfs::{CloudState, Copy, Miss, MissKind, Object, OpBody, Segment, read},
    ids::{CloudId, Epoch, Md5, SegmentId},
};

impl Tools {
    /// Carries out a row of the missed-write log; gives the bytes copied. `is_time_to_copy` judges by the time since
    /// which a segment is dead.
    pub(super) async fn repair(
        &self,
        miss: Miss,
        epoch: Epoch,
        is_time_to_copy: impl Fn(u64) -> bool,
    ) -> Result<u64, RepairError> {
        let Miss { cloud, segment, .. } = miss;
        // The row may have become a delete, or be gone, since it was read.
        let (miss, row) = self.missed(cloud, segment).await?;
        let (kind, bytes) = match miss {
            None => return Ok(0),
            Some(Miss { kind: MissKind::Delete, .. }) => {
                match self.connectors[cloud.index()].send(Delete { segment }).await? {
                    Err(error) if error.is_refusal() => {
                        // It keeps litter, as it may while it is healthy: that must not keep it from becoming so.
                        tracing::info!(cloud = %called(cloud), %segment, %error, "the cloud refuses to delete what is dead");
                        self.door.propose(OpBody::Kept { cloud, segment, epoch }).await?;
                        return Ok(0);
                    }
                    deleted => deleted?,
                }
                (MissKind::Delete, 0)
            }
            Some(Miss { kind: MissKind::Put, .. }) => {
                let Some(row) = row else {
                    return Ok(0);
                };
                // The sweep may delete it at any moment from the end of the grace period on, and a copy must not arrive
                // behind that: one half of the period is for copies to begin, the other for them to end.
                let is_dying = |row: &Segment| row.dead_since_ns.is_some_and(|since_ns| !is_time_to_copy(since_ns));
                if is_dying(&row) {
                    return Err(RepairError::Dying);
                }
                let Some(Object { bytes, md5, .. }) = row.object else {
                    return Ok(0);
                };
                let body = self.object(cloud.other(), segment, bytes, md5).await?;
                // That may have taken half of the period, and the row may have become another one meanwhile.
                let (miss, row) = self.missed(cloud, segment).await?;
                if !miss.is_some_and(|miss| miss.kind == MissKind::Put) {
                    return Ok(0);
                }
                if row.is_none_or(|row| is_dying(&row)) {
                    return Err(RepairError::Dying);
                }
                self.connectors[cloud.index()].send(Put { segment, body, md5 }).await??;
                (MissKind::Put, bytes)
            }
        };
        self.door.propose(OpBody::Repaired { cloud, segment, kind, epoch }).await?;
        Ok(bytes)
    }

    /// What the record says of a segment that a cloud missed. Behind a barrier: tables of a filer that was away show rows of
    /// long ago, and a copy of what was deleted since would stay in the cloud for ever.
    async fn missed(&self, cloud: CloudId, segment: SegmentId) -> Result<(Option<Miss>, Option<Segment>), RepairError> {
        self.door.barrier().await?;
        let view = self.kv.view();
        Ok((read::miss(&*view, cloud, segment)?, read::segment(&*view, segment)?))
    }

    /// A whole object: from this filer's disk where it is there and right, otherwise from a cloud.
    async fn object(&self, from: CloudId, segment: SegmentId, bytes: u64, md5: Md5) -> Result<Bytes, RepairError> {
        if let Ok((body, is)) = self.staging.body(segment).await
            && is == md5
        {
            return Ok(body);
        }
        if let Some(body) = self.cache.read(segment, 0, bytes as usize).await {
            if Md5::of(&body) == md5 {
                return Ok(body);
            }
            tracing::warn!(%segment, "a cached segment is damaged and dropped");
            self.cache.drop_segment(segment).await;
        }
        Ok(self.connectors[from.index()].send(GetObject { segment, bytes, md5 }).await??)
    }

    /// Puts an object again into a cloud that has lost or damaged it.
    pub(super) async fn put_again(&self, cloud: CloudId, segment: SegmentId) -> Result<(), NotPut> {
        // The tables of a filer that was away show segments that have been deleted since.
        self.door.barrier().await?;
        let Object { bytes, md5, .. } = self.belongs(cloud, segment)?;
        let body = self.connectors[cloud.other().index()].send(GetObject { segment, bytes, md5 }).await??;
        // Reading it took a while. What dies from here on is deleted after the grace period, which no put outlasts.
        self.door.barrier().await?;
        self.belongs(cloud, segment)?;
        self.connectors[cloud.index()].send(Put { segment, body, md5 }).await??;
        Ok(())
    }

    /// The object to put into a cloud, if it belongs there by this filer's tables.
    fn belongs(&self, cloud: CloudId, segment: SegmentId) -> Result<Object, NotPut> {
        let view = self.kv.view();
        let object = still_needed(&*view, segment)?.ok_or(NotPut::Gone)?;
        let roles = read::roles(&*view)?.ok_or(NotPut::NotHealthy)?;
        // What a failed or resyncing cloud misses is on record, and is the resync's.
        if object.copies[cloud.index()] != Copy::Stored || roles.cloud(cloud).state != CloudState::Healthy {
            return Err(NotPut::NotHealthy);
        }
        let other = cloud.other();
        if object.copies[other.index()] != Copy::Stored || roles.cloud(other).state == CloudState::Failed {
            return Err(NotPut::NoSource);
        }
        Ok(object)
    }
}

/// What a segment's object is, if anything refers to it.
pub fn still_needed(kv: &dyn KvRead, segment: SegmentId) -> Result<Option<Object>, KvError> {
    let row = read::segment(kv, segment)?;
    Ok(row.filter(|row| row.dead_since_ns.is_none()).and_then(|row| row.object))
}
