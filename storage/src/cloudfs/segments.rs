//! The life of a segment.
//!
//! ```text
//!   Write of its filer                Stored (receipts)             last byte gone              Deleted
//!  --------------------> in staging --------------------> released ----------------> dead ---------------> forgotten
//!                            |                               (Stored of one that nothing refers to is dead at once)
//!                            |-- Abandon (nothing refers to it) ---------------------------------------------^
//!                            '-- Bury (the same, and its filer was removed) ---------> dead
//!
//!   forgotten, its delete missed by a cloud --Kept (the cloud refuses it)--> dead
//! ```
//!
//! Released means: every cloud holds it, or its miss is on record. The check against the clouds' states and the row
//! of the missed-write log are part of the same operation, so nothing is ever between the two. Dead is final.

use super::{
    applying::{Applying, Stop, invalid},
    keys,
    ops::{Answer, OpError},
    read::{self, StateRead},
    types::*,
};
use crate::ids::{CloudId, Epoch, Md5, SegmentId};

impl Applying<'_, '_> {
    pub(super) fn add_segment(&mut self, id: SegmentId, segment: &Segment) {
        self.counters.totals.segments += 1;
        self.put(keys::segment(id), segment);
    }

    /// Marks a segment as dead, if it has an object and nothing refers to it.
    pub(super) fn bury_if_unused(&mut self, id: SegmentId, segment: &mut Segment) {
        if segment.live_bytes == 0 && segment.object.is_some() && segment.dead_since_ns.is_none() {
            self.kill(id, segment);
        }
    }

    fn kill(&mut self, id: SegmentId, segment: &mut Segment) {
        segment.dead_since_ns = Some(self.now_ns);
        self.counters.totals.dead_segments += 1;
        self.put(keys::dead(self.now_ns, id), &());
    }

    fn forget_segment(&mut self, id: SegmentId, segment: &Segment) {
        self.txn.delete(keys::segment(id));
        self.counters.totals.segments -= 1;
        if let Some(since_ns) = segment.dead_since_ns {
            self.txn.delete(keys::dead(since_ns, id));
            self.counters.totals.dead_segments -= 1;
        }
    }

    /// Refuses an operation that leaves out a cloud which is not allowed to be left out.
    fn check_receipts(roles: &Roles, got: [bool; 2]) -> Result<(), OpError> {
        // The active cloud first: it is always healthy, so at least one receipt is always required.
        for cloud in [roles.active, roles.standby()] {
            let state = roles.cloud(cloud).state;
            if !got[cloud.index()] && state == CloudState::Healthy {
                return Err(OpError::ReceiptMissing { cloud, state });
            }
        }
        Ok(())
    }

    pub(super) fn stored(
        &mut self,
        id: SegmentId,
        bytes: u64,
        md5: Md5,
        copies: [bool; 2],
        epoch: Epoch,
    ) -> Result<Answer, Stop> {
        let mut roles = self.roles_at(epoch)?;
        let known = read::segment(self, id)?;
        let is_new = known.is_none();
        let mut segment = known.unwrap_or(Segment { live_bytes: 0, object: None, dead_since_ns: None });
        let mut object = match segment.object {
            Some(object) if object.md5 != md5 || object.bytes != bytes => {
                return Err(invalid(format!("segment {id} is on record with other content")).into());
            }
            Some(object) => object,
            None => {
                Self::check_receipts(&roles, copies)?;
                let copies = copies.map(|stored| if stored { Copy::Stored } else { Copy::Missed });
                Object { bytes, md5, copies }
            }
        };
        for cloud in CloudId::BOTH {
            if copies[cloud.index()] {
                object.copies[cloud.index()] = Copy::Stored;
                self.drop_miss(&mut roles, cloud, id)?;
            } else if segment.object.is_none() {
                self.put_miss(&mut roles, cloud, id, MissKind::Put)?;
            }
        }
        segment.object = Some(object);
        self.bury_if_unused(id, &mut segment);
        if is_new {
            self.add_segment(id, &segment);
        } else {
            self.put(keys::segment(id), &segment);
        }
        self.put_roles(&roles);
        Ok(Answer::Done)
    }

    pub(super) fn abandon(&mut self, id: SegmentId) -> Result<Answer, Stop> {
        let segment = read::segment(self, id)?.ok_or(OpError::NoSegment(id))?;
        if id.filer != self.filer {
            return Err(invalid(format!("segment {id} is another filer's")).into());
        }
        if segment.live_bytes > 0 || segment.object.is_some() {
            return Err(OpError::NoSegment(id).into());
        }
        self.forget_segment(id, &segment);
        Ok(Answer::Done)
    }

    pub(super) fn bury(&mut self, id: SegmentId) -> Result<Answer, Stop> {
        let mut segment = read::segment(self, id)?.ok_or(OpError::NoSegment(id))?;
        if self.get(&mesh::consensus::removed_key(id.filer))?.is_none() {
            let why = format!("filer {} was not removed: what it has staged is its own", id.filer);
            return Err(OpError::Refused(why).into());
        }
        if segment.live_bytes > 0 || segment.object.is_some() || segment.dead_since_ns.is_some() {
            return Err(OpError::NoSegment(id).into());
        }
        self.kill(id, &mut segment);
        self.put(keys::segment(id), &segment);
        Ok(Answer::Done)
    }

    pub(super) fn deleted(&mut self, id: SegmentId, done: [bool; 2], epoch: Epoch) -> Result<Answer, Stop> {
        let mut roles = self.roles_at(epoch)?;
        let segment =
            read::segment(self, id)?.filter(|segment| segment.dead_since_ns.is_some()).ok_or(OpError::NoSegment(id))?;
        Self::check_receipts(&roles, done)?;
        for cloud in CloudId::BOTH {
            if done[cloud.index()] {
                self.drop_miss(&mut roles, cloud, id)?;
            } else {
                self.put_miss(&mut roles, cloud, id, MissKind::Delete)?;
            }
        }
        self.forget_segment(id, &segment);
        self.put_roles(&roles);
        Ok(Answer::Done)
    }

    pub(super) fn kept(&mut self, cloud: CloudId, id: SegmentId, epoch: Epoch) -> Result<Answer, Stop> {
        let mut roles = self.roles_at(epoch)?;
        // Its row may have become a put meanwhile, which a cloud never gets rid of by refusing anything.
        if read::miss(self, cloud, id)?.is_none_or(|row| row.kind != MissKind::Delete) {
            return Ok(Answer::Done);
        }
        // The sweep asks both clouds.
        for cloud in CloudId::BOTH {
            self.drop_miss(&mut roles, cloud, id)?;
        }
        let mut segment = Segment { live_bytes: 0, object: None, dead_since_ns: None };
        self.kill(id, &mut segment);
        self.add_segment(id, &segment);
        self.put_roles(&roles);
        Ok(Answer::Done)
    }
}
