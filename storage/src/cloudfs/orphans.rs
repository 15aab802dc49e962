//! The ends of large files: cut off at once, reaped in steps.
//!
//! A file may have millions of extents, and no operation may be long: every filer applies one after another. So a file's
//! end with more than [`Limits::extents_per_op_max`](super::Limits::extents_per_op_max) of them is only noted as cut off, with the cut's number. Extents
//! carry the number that the next cut was to have when they were laid: those of before the cut and behind its place are
//! not part of the file any more, whatever becomes of it; those laid there later are.
//!
//! ```text
//!   few extents: Remove, Rename, SetAttr, Create take them away
//!   many:        the same operations note a cut --> Reap --> Reap --> ... --> nothing is left: the note goes
//! ```
//!
//! A cut-off extent keeps its segment alive until it is reaped or written over. The leader asks for the steps, as it
//! does for deletes; each begins where the last one ended, whoever asked.

use super::{
    applying::{Applying, Stop},
    extents::Balance,
    keys::{self, Cut, OrphanRow},
    ops::{Answer, OpError},
    read,
};

impl Applying<'_, '_> {
    /// Takes away what a file has from `bytes` on.
    pub(super) fn cut(&mut self, ino: u64, bytes: u64) -> Result<(), Stop> {
        let extents_max = self.limits.extents_per_op_max;
        let few = read::extents_from(self, ino, bytes..u64::MAX, extents_max + 1)?.len() <= extents_max;
        let known = read::orphan(self, ino)?;
        let had_cuts = known.is_some();
        let OrphanRow { mut cuts, mut reaped_to } = known.unwrap_or(OrphanRow { cuts: Vec::new(), reaped_to: bytes });
        cuts.retain(|cut| cut.from < bytes);
        let mut balance = Balance::default();
        if few {
            self.carve(ino, bytes..u64::MAX, &mut balance)?;
        } else {
            if cuts.len() >= self.limits.cuts_pending_max {
                return Err(OpError::Reaping { cuts: cuts.len() }.into());
            }
            self.trim(ino, &(bytes..u64::MAX), &mut balance)?;
            cuts.push(Cut { from: bytes, number: self.counters.next_cut });
            self.counters.next_cut += 1;
            reaped_to = reaped_to.min(bytes);
        }
        self.settle(balance)?;
        self.put_orphan(ino, had_cuts, OrphanRow { cuts, reaped_to });
        Ok(())
    }

    /// Takes away the next extents that are cut off from an inode.
    pub(super) fn reap(&mut self, ino: u64) -> Result<Answer, Stop> {
        let Some(mut orphan) = read::orphan(self, ino)? else {
            return Ok(Answer::Done);
        };
        let extents_max = self.limits.extents_per_op_max;
        let rows = read::extents_from(self, ino, orphan.reaped_to..u64::MAX, extents_max)?;
        let mut balance = Balance::default();
        for row in rows.iter().filter(|row| orphan.has(row)) {
            balance.lose(&row.extent);
            self.txn.delete(keys::extent(ino, row.extent.offset));
        }
        self.settle(balance)?;
        match rows.last() {
            Some(last) if rows.len() == extents_max => orphan.reaped_to = last.extent.end(),
            _ => orphan.cuts.clear(),
        }
        self.put_orphan(ino, true, orphan);
        Ok(Answer::Done)
    }

    /// Writes what is still to be reaped of an inode, or that nothing is.
    fn put_orphan(&mut self, ino: u64, had_cuts: bool, orphan: OrphanRow) {
        let orphans = &mut self.counters.totals.orphans;
        match (had_cuts, orphan.cuts.is_empty()) {
            (false, true) => return,
            (true, true) => *orphans -= 1,
            (false, false) => *orphans += 1,
            (true, false) => {}
        }
        if orphan.cuts.is_empty() {
            self.txn.delete(keys::orphan(ino));
        } else {
            self.put(keys::orphan(ino), &orphan);
        }
    }
}
