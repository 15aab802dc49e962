//! Where the bytes of files lie: writes lay extents over older ones, cuts take them away.
//!
//! An older extent that a newer one covers in part is trimmed or split, so that extents of a file never overlap.
//! What each segment gains and loses is summed up first and set off once, at the end of the operation: a segment that
//! loses its last byte and gets another in the same operation never dies in between.
//!
//! No operation takes away more than [`Limits::extents_per_op_max`]: a file's end that has more is cut off and left for
//! the reaping (`orphans`), and a write over more is refused, so that its filer brings it in parts.

use super::{
    applying::{Applying, Stop, invalid},
    keys::{self, ExtentRow, OrphanRow},
    leaving::is_leaving,
    ops::{Answer, OpError},
    read::{self, PAGE_ROWS, damaged},
    types::*,
};
use crate::ids::SegmentId;
use std::{collections::BTreeMap, ops::Range};

/// What segments gain and lose in live bytes.
#[derive(Default)]
pub(super) struct Balance(BTreeMap<SegmentId, (u64, u64)>);

impl Balance {
    fn gain(&mut self, extent: &Extent) {
        self.0.entry(extent.segment).or_default().0 += u64::from(extent.len);
    }

    pub(super) fn lose(&mut self, extent: &Extent) {
        self.0.entry(extent.segment).or_default().1 += u64::from(extent.len);
    }
}

fn check_extent(extent: &Extent) -> Result<(), OpError> {
    let ends_in_file = extent.offset.checked_add(u64::from(extent.len)).is_some_and(|end| end <= FILE_BYTES_MAX);
    let ends_in_frame = extent.skip.checked_add(extent.len).is_some();
    let ends_in_object = extent.frame_at.checked_add(extent.frame_len).is_some();
    if extent.len > 0 && extent.frame_len > 0 && ends_in_file && ends_in_frame && ends_in_object {
        Ok(())
    } else {
        Err(invalid(format!("the extent of {} bytes at {}", extent.len, extent.offset)))
    }
}

/// Whether anything of the file may lie where this extent goes. Nothing lies behind a file's end but what is cut off.
fn lies_over(extent: &Extent, file: &Attr, has_orphans: bool) -> bool {
    extent.offset < file.bytes || has_orphans
}

/// One extent for two that follow each other in the file and in the same frame.
fn merged(left: &Extent, right: &Extent) -> Option<Extent> {
    let frame = |e: &Extent| (e.segment, e.frame_at, e.frame_len);
    let follows = left.end() == right.offset && left.skip.checked_add(left.len) == Some(right.skip);
    let len = left.len.checked_add(right.len)?;
    (frame(left) == frame(right) && follows).then_some(Extent { len, ..*left })
}

impl Applying<'_, '_> {
    pub(super) fn write(
        &mut self,
        file: Handle,
        extents: Vec<Extent>,
        mtime_ns: u64,
        clears_set_id: bool,
    ) -> Result<Answer, Stop> {
        let before = self.node(file).and_then(|attr| match attr.kind {
            NodeKind::File => Ok(attr),
            _ => Err(OpError::Stale.into()),
        })?;
        let mut new_segments = BTreeMap::new();
        for extent in &extents {
            check_extent(extent)?;
            if let std::collections::btree_map::Entry::Vacant(slot) = new_segments.entry(extent.segment) {
                slot.insert(self.check_writable(extent.segment)?);
            }
        }
        let mut after = before.clone();
        if extents.is_empty() {
            return Ok(Answer::Node { before: Some(before), after, dir_before: None, dir_after: None });
        }
        let orphan = read::orphan(self, file.ino)?;
        self.check_overwritable(&before, &extents, orphan.is_some())?;
        for (&id, _) in new_segments.iter().filter(|(_, is_new)| **is_new) {
            self.add_segment(id, &Segment { live_bytes: 0, object: None, dead_since_ns: None });
        }
        let mut balance = Balance::default();
        for extent in &extents {
            if lies_over(extent, &after, orphan.is_some()) {
                self.carve(file.ino, extent.offset..extent.end(), &mut balance)?;
            }
            self.lay(file.ino, extent, orphan.as_ref())?;
            balance.gain(extent);
            after.bytes = after.bytes.max(extent.end());
        }
        self.settle(balance)?;
        // The word of a write may come after a later one's, so the time does not go back, unless it was set by hand
        // to one that is still to come.
        let written_ns = mtime_ns.min(self.now_ns);
        after.mtime_ns = if before.mtime_ns <= self.now_ns { before.mtime_ns.max(written_ns) } else { written_ns };
        after.ctime_ns = self.now_ns;
        if clears_set_id {
            after.clear_set_id();
        }
        self.put_attr(&after);
        Ok(Answer::Node { before: Some(before), after, dir_before: None, dir_after: None })
    }

    /// Whether a segment that a write refers to is new; refuses one that no file may refer to, or none any more: with its
    /// object on record all that refers to it is on record, and what comes later is a mistake or a ghost.
    fn check_writable(&self, id: SegmentId) -> Result<bool, Stop> {
        if is_leaving(self, id.filer)? {
            return Err(OpError::Leaving(id.filer).into());
        }
        match read::segment(self, id)? {
            Some(segment) if segment.dead_since_ns.is_some() => Err(invalid(format!("segment {id} is dead")).into()),
            Some(segment) if segment.object.is_some() => Err(invalid(format!("segment {id} is stored already")).into()),
            Some(_) => Ok(false),
            None if id.filer != self.filer => {
                Err(invalid(format!("segment {id} of another filer is not on record")).into())
            }
            None if self.is_missed_anywhere(id)? => Err(invalid(format!("segment {id} was deleted")).into()),
            None => Ok(true),
        }
    }

    /// Refuses a write that would take away too many extents.
    fn check_overwritable(&self, file: &Attr, extents: &[Extent], has_orphans: bool) -> Result<(), Stop> {
        let extents_max = self.limits.extents_per_op_max;
        let mut room = extents_max;
        for extent in extents {
            if lies_over(extent, file, has_orphans) {
                let found = read::extents_from(self, file.handle.ino, extent.offset..extent.end(), room + 1)?.len();
                room = room.checked_sub(found).ok_or(OpError::TooManyExtents { extents_max })?;
            }
        }
        Ok(())
    }

    /// Takes `range` out of a file's extents: those within go, those that reach into it are trimmed.
    pub(super) fn carve(&mut self, ino: u64, range: Range<u64>, balance: &mut Balance) -> Result<(), Stop> {
        self.trim(ino, &range, balance)?;
        let mut from = range.start;
        loop {
            let page = read::extents_from(self, ino, from..range.end, PAGE_ROWS)?;
            for row in &page {
                self.carve_one(ino, row, &range, balance);
            }
            match page.last() {
                Some(last) if page.len() == PAGE_ROWS => from = last.extent.end(),
                _ => return Ok(()),
            }
        }
    }

    /// Takes `range` out of the extent that begins before it, where it reaches into it.
    pub(super) fn trim(&mut self, ino: u64, range: &Range<u64>, balance: &mut Balance) -> Result<(), Stop> {
        if let Some(first) = read::extent_before(self, ino, range.start)? {
            self.carve_one(ino, &first, range, balance);
        }
        Ok(())
    }

    /// Takes `range` out of one extent. What is left of it is as old as it was.
    fn carve_one(&mut self, ino: u64, row: &ExtentRow, range: &Range<u64>, balance: &mut Balance) {
        let extent = &row.extent;
        let Some(lost) = extent.clipped(range.clone()) else {
            return;
        };
        balance.lose(&lost);
        match extent.clipped(0..range.start) {
            Some(left) => self.put(keys::extent(ino, left.offset), &ExtentRow { extent: left, ..*row }),
            None => self.txn.delete(keys::extent(ino, extent.offset)),
        }
        if let Some(right) = extent.clipped(range.end..u64::MAX) {
            self.put(keys::extent(ino, right.offset), &ExtentRow { extent: right, ..*row });
        }
    }

    /// Puts an extent where nothing lies any more, as part of the one before it where they belong together.
    fn lay(&mut self, ino: u64, extent: &Extent, orphan: Option<&OrphanRow>) -> Result<(), Stop> {
        let before = read::extent_before(self, ino, extent.offset)?;
        let before = before.filter(|row| orphan.is_none_or(|orphan| !orphan.has(row)));
        let extent = before.and_then(|left| merged(&left.extent, extent)).unwrap_or(*extent);
        self.put(keys::extent(ino, extent.offset), &ExtentRow { extent, next_cut: self.counters.next_cut });
        Ok(())
    }

    /// Sets off what the segments gained and lost. One that nothing refers to any more is dead, if it has an object.
    pub(super) fn settle(&mut self, balance: Balance) -> Result<(), Stop> {
        for (id, (gained, lost)) in balance.0 {
            let mut segment = read::segment(self, id)?.ok_or_else(|| damaged(format!("segment {id} is missing")))?;
            let live = |bytes: u64| (bytes + gained).checked_sub(lost);
            let totals = &mut self.counters.totals;
            let (Some(of_segment), Some(of_all)) = (live(segment.live_bytes), live(totals.live_bytes)) else {
                return Err(damaged(format!("segment {id} loses more bytes than it has")).into());
            };
            totals.live_bytes = of_all;
            segment.live_bytes = of_segment;
            self.bury_if_unused(id, &mut segment);
            self.put(keys::segment(id), &segment);
        }
        Ok(())
    }
}
