//! Staged segments that the disk has damaged: mended with what is left, or restored from where they are right.

use super::{Staging, StagingError, staging_file, writing::replace_file};
use crate::{
    disk::{Disk, DiskError, Readable},
    ids::{Md5, SegmentId},
    segment::{Mended, mend_around},
};
use bytes::{Bytes, BytesMut};

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

/// What can be read of the file of a sealed segment of this length. What is not there is lost.
async fn read_sealed(disk: &dyn Disk, file: &str, len: usize) -> Result<Readable, DiskError> {
    let Readable { bytes, mut lost } = match Readable::read(disk, file, len).await {
        Err(DiskError::NotFound { .. }) => Readable { bytes: Bytes::new(), lost: Vec::new() },
        read => read?,
    };
    if bytes.len() == len {
        return Ok(Readable { bytes, lost });
    }
    lost.push(bytes.len()..len);
    let mut padded = BytesMut::from(&bytes[..]);
    padded.resize(len, 0);
    Ok(Readable { bytes: padded.freeze(), lost })
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
        let turn = self.lock().entries.get(&segment).ok_or_else(gone)?.turn.clone();
        let _turn = turn.lock().await;
        let bytes = self.lock().found_wrong(segment, &[]).ok_or_else(gone)?.bytes;
        let file = staging_file(segment);
        let Readable { bytes: read, lost } = read_sealed(&*self.disk, &file, bytes as usize).await?;
        // Its end was written and synced, so that nothing there is torn.
        let end = read.len().saturating_sub(1)..read.len();
        let nothing = || StagingError::Damaged { segment, why: "no frame of it is left".into() };
        let mended = mend_around(self.header(segment), &read, &[&lost[..], &[end]].concat()).ok_or_else(nothing)?;
        tell_set_right(segment, &mended);
        if lost.is_empty() {
            // Half of it done, the frames say that they were lost before.
            self.lock().found_wrong(segment, &mended.damaged).ok_or_else(gone)?;
        }
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
            match replace_file(&*self.disk, segment, mended.sealed.body, &lost).await {
                Ok(true) => drop(self.lock().found_wrong(segment, &mended.damaged)),
                Ok(false) => {
                    let why = "a part of it can be read again that could not".into();
                    return Err(DiskError::Failed { attempted: "mending", file, why }.into());
                }
                Err(error @ DiskError::Full { .. }) => return Err(error.into()),
                Err(error) => {
                    // It may have its place.
                    self.lock().found_wrong(segment, &mended.damaged);
                    return Err(error.into());
                }
            }
        }
        self.lock().is_now(segment, md5, bytes).ok_or_else(gone)?;
        self.room.notify_waiters();
        Ok((md5, bytes))
    }

    /// What the memory has of a segment is not what its MD5 says: its file has it.
    pub fn distrust_memory(&self, segment: SegmentId) {
        let mut state = self.lock();
        if state.entries.get(&segment).is_some_and(|entry| entry.synced_bytes == entry.bytes) {
            state.drop_body(segment);
        }
    }

    /// Puts the right bytes, from a cloud, in the place of a damaged segment's. `md5` is theirs.
    pub async fn restore(&self, segment: SegmentId, body: Bytes, md5: Md5) -> Result<(), StagingError> {
        let gone = || StagingError::Gone(segment);
        let turn = self.lock().entries.get(&segment).ok_or_else(gone)?.turn.clone();
        let _turn = turn.lock().await;
        let bytes = body.len() as u64;
        let was_wrong = self.lock().entries.get(&segment).ok_or_else(gone)?.wrong;
        self.lock().found_wrong(segment, &[]).ok_or_else(gone)?;
        if let Err(error) = self.replace_file(segment, body).await {
            if let (DiskError::Full { .. }, Some(entry)) = (&error, self.lock().entries.get_mut(&segment)) {
                // Nothing was changed.
                entry.wrong = was_wrong;
            }
            return Err(error.into());
        }
        let mut state = self.lock();
        state.is_now(segment, md5, bytes).ok_or_else(gone)?.doubtful = false;
        drop(state);
        self.room.notify_waiters();
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
