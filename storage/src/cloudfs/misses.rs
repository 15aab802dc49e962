//! The missed-write log: one row for each cloud and segment, with the last thing that the cloud has missed of it.
//!
//! While a segment is on record, its row is a missed put, and the segment's copy there is [`Copy::Missed`]. Once the
//! segment is forgotten, its row is a missed delete. The counts in the clouds' status are those of the rows.
//!
//! A missed put ends with the cloud's receipt alone, or with its segment. A missed delete may also end as litter: where the
//! cloud refuses it, the segment is on record again, as a dead one.

use super::{
    applying::{Applying, Stop},
    keys::{self, MissRow},
    ops::Answer,
    read::{self, damaged},
    types::*,
};
use crate::ids::{CloudId, Epoch, SegmentId};
use mesh::kv::KvError;

fn count(roles: &mut Roles, cloud: CloudId, kind: MissKind) -> &mut u64 {
    let status = &mut roles.clouds[cloud.index()];
    match kind {
        MissKind::Put => &mut status.missed_puts,
        MissKind::Delete => &mut status.missed_deletes,
    }
}

impl Applying<'_, '_> {
    /// Whether any cloud's log has a row for a segment.
    pub(super) fn is_missed_anywhere(&self, segment: SegmentId) -> Result<bool, KvError> {
        for cloud in CloudId::BOTH {
            if read::miss(self, cloud, segment)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes a row of a cloud's log. One that replaces another keeps its age.
    pub(super) fn put_miss(
        &mut self,
        roles: &mut Roles,
        cloud: CloudId,
        segment: SegmentId,
        kind: MissKind,
    ) -> Result<(), Stop> {
        let since_ns = match read::miss(self, cloud, segment)? {
            Some(old) => {
                *count(roles, cloud, old.kind) -= 1;
                old.since_ns
            }
            None => {
                self.put(keys::miss_age(cloud, self.now_ns, segment), &());
                self.now_ns
            }
        };
        *count(roles, cloud, kind) += 1;
        self.put(keys::miss(cloud, segment), &MissRow { kind, since_ns });
        Ok(())
    }

    /// Removes a segment's row from a cloud's log, if there is one.
    pub(super) fn drop_miss(&mut self, roles: &mut Roles, cloud: CloudId, segment: SegmentId) -> Result<(), Stop> {
        if let Some(old) = read::miss(self, cloud, segment)? {
            *count(roles, cloud, old.kind) -= 1;
            self.txn.delete(keys::miss(cloud, segment));
            self.txn.delete(keys::miss_age(cloud, old.since_ns, segment));
        }
        Ok(())
    }

    pub(super) fn repaired(
        &mut self,
        cloud: CloudId,
        id: SegmentId,
        kind: MissKind,
        epoch: Epoch,
    ) -> Result<Answer, Stop> {
        let mut roles = self.roles_at(epoch)?;
        // A row of another kind came after the repair was begun, and is still to be done.
        if read::miss(self, cloud, id)?.is_none_or(|row| row.kind != kind) {
            return Ok(Answer::Done);
        }
        if kind == MissKind::Put {
            let missing = || damaged(format!("the missed put of {id} has no segment"));
            let mut segment = read::segment(self, id)?.ok_or_else(missing)?;
            segment.object.as_mut().ok_or_else(missing)?.copies[cloud.index()] = Copy::Stored;
            self.put(keys::segment(id), &segment);
        }
        self.drop_miss(&mut roles, cloud, id)?;
        self.put_roles(&roles);
        Ok(Answer::Done)
    }
}
