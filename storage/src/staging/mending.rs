//! Staged segments that the disk has damaged: mended with what is left, or restored from where they are right.

use super::{Staging, StagingError, staging_file};
use crate::{
    disk::{Disk, DiskError, Readable},
    ids::{Md5, SegmentId},
    segment::{Mended, mend_around},
};
use bytes::Bytes;

/// Makes a file what it was mended to. Gives the bytes from its start on that are so: fewer than all when the disk is full.
/// Full is what a disk gets by not releasing, and a filer that does not start releases nothing.
pub(super) async fn apply(disk: &dyn Disk, file: &str, mended: &Mended) -> Result<u64, DiskError> {
    for (at, bytes) in &mended.patches {
        match disk.write(file, *at, vec![bytes.clone()]).await {
            // It is found damaged by the next start too.
            Err(DiskError::Full { .. }) => return Ok(0),
            written => written?,
        }
    }
    let (tail_at, body) = (mended.sealed.tail_at, &mended.sealed.body);
    let mut right = body.len() as u64;
    if mended.tail {
        disk.truncate(file, tail_at).await?;
        match disk.write(file, tail_at, vec![body.slice(tail_at as usize..)]).await {
            // Index and footer say nothing that the frames do not say.
            Err(DiskError::Full { .. }) => right = tail_at,
            written => written?,
        }
    }
    disk.sync(file).await?;
    Ok(right)
}

/// Says that a disk has flipped bits that were set right: it may go on to flip others.
pub(super) fn tell_set_right(segment: SegmentId, mended: &Mended) {
    let frames = mended.lengths_set_right;
    if frames > 0 {
        tracing::warn!(%segment, frames, "the disk has flipped bits of a staged segment; by its checksums they are set right");
    }
}

impl Staging {
    /// Makes the best of a segment that the disk has damaged, where no cloud has it: its whole frames stay, the others
    /// read as lost. Gives its new MD5 and length in bytes.
    pub async fn mend(&self, segment: SegmentId) -> Result<(Md5, u64), StagingError> {
        let gone = || StagingError::Gone(segment);
        let (turn, bytes) =
            self.lock().entries.get(&segment).map(|entry| (entry.turn.clone(), entry.bytes)).ok_or_else(gone)?;
        let _turn = turn.lock().await;
        let file = staging_file(segment);
        let Readable { bytes: read, lost } = Readable::read(&*self.disk, &file, bytes as usize).await?;
        let nothing = || StagingError::Damaged { segment, why: "no frame of it is left".into() };
        let mended = mend_around(self.header(segment), &read, &lost).ok_or_else(nothing)?;
        tell_set_right(segment, &mended);
        self.lock().found_wrong(segment, &mended.damaged).ok_or_else(gone)?;
        let (md5, bytes) = (mended.sealed.md5, mended.sealed.body.len() as u64);
        // What cannot be read is not made readable by what is written beside it.
        let in_place = lost.is_empty()
            && match apply(&*self.disk, &file, &mended).await {
                Ok(right) if right < bytes => return Err(DiskError::Full { attempted: "mending", file }.into()),
                Ok(_) => true,
                Err(error) => {
                    tracing::warn!(%segment, %error, "a damaged staged segment is not mended in its file, and gets a new one");
                    false
                }
            };
        if !in_place {
            self.replace_file(segment, mended.sealed.body).await?;
        }
        self.lock().is_now(segment, md5, bytes).ok_or_else(gone)?;
        Ok((md5, bytes))
    }

    /// Puts the right bytes, from a cloud, in the place of a damaged segment's. `md5` is theirs.
    pub async fn restore(&self, segment: SegmentId, body: Bytes, md5: Md5) -> Result<(), StagingError> {
        let gone = || StagingError::Gone(segment);
        let turn = self.lock().entries.get(&segment).ok_or_else(gone)?.turn.clone();
        let _turn = turn.lock().await;
        let bytes = body.len() as u64;
        self.lock().found_wrong(segment, &[]).ok_or_else(gone)?;
        self.replace_file(segment, body).await?;
        let mut state = self.lock();
        state.is_now(segment, md5, bytes).ok_or_else(gone)?.doubtful = false;
        Ok(())
    }

    /// Whether a segment was found damaged at the start, and it is not known yet whether a cloud has it as it was.
    pub fn is_doubtful(&self, segment: SegmentId) -> bool {
        self.lock().entries.get(&segment).is_some_and(|entry| entry.doubtful)
    }

    /// No cloud has the segment as it was: what it says is lost, is lost.
    pub fn settle(&self, segment: SegmentId) {
        if let Some(entry) = self.lock().entries.get_mut(&segment) {
            entry.doubtful = false;
        }
    }
}
