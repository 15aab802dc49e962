//! Filers that are about to be removed.
//!
//! With a removed filer goes what only its staging has, and a client must not be told that such data is safe. So its
//! writes end before anybody looks whether it alone holds data: from [`OpBody::Leave`](super::OpBody::Leave) on, no file
//! may refer to more of its staging, and what it alone holds only gets less.
//!
//! ```text
//!   stays --Leave--> leaving --it holds nothing alone--> removed, by the log itself
//!     ^                 |
//!     '------Stay-------'  it alone holds a segment still, or nobody wants to remove it any more
//! ```
//!
//! Several operators may be at it. Whoever finds that the filer holds data alone has it stay and names a segment: one that it
//! still holds alone, so that nobody can have found meanwhile that it may go.

use super::{
    applying::{Applying, Stop},
    keys,
    ops::{Answer, OpError},
    read::{self, StateRead},
    types::Segment,
};
use crate::ids::SegmentId;
use mesh::{FilerId, kv::KvError};
use std::collections::BTreeSet;

impl Segment {
    /// Whether files refer to it, and its filer's staging alone has it.
    pub fn is_held_alone(&self) -> bool {
        self.object.is_none() && self.live_bytes > 0
    }
}

/// Whether a filer is about to be removed, and takes no more writes.
pub fn is_leaving<R: StateRead + ?Sized>(kv: &R, filer: FilerId) -> Result<bool, KvError> {
    Ok(kv.get(&keys::leaving(filer))?.is_some())
}

/// All filers of which that is so, those too that were removed.
pub fn leaving<R: StateRead + ?Sized>(kv: &R) -> Result<BTreeSet<FilerId>, KvError> {
    let rows = read::page(kv, &[keys::LEAVING], None, usize::MAX)?;
    rows.iter().map(|(key, _)| read::number_of(key, 1).map(FilerId)).collect()
}

impl Applying<'_, '_> {
    pub(super) fn leave(&mut self, filer: FilerId) -> Result<Answer, Stop> {
        self.put(keys::leaving(filer), &());
        Ok(Answer::Done)
    }

    pub(super) fn stay(&mut self, filer: FilerId, alone_with: Option<SegmentId>) -> Result<Answer, Stop> {
        if let Some(id) = alone_with {
            let segment = read::segment(self, id)?.filter(|segment| id.filer == filer && segment.is_held_alone());
            segment.ok_or(OpError::NoSegment(id))?;
        }
        self.txn.delete(keys::leaving(filer));
        Ok(Answer::Done)
    }
}
