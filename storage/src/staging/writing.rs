//! How a segment's bytes get to its file and are made durable, and what is done when that fails.

use super::{Staging, StagingError, staging_file};
use crate::{
    disk::{Disk, DiskError, SECTOR_BYTES},
    ids::SegmentId,
};
use bytes::Bytes;
use std::ops::Range;
use tokio::task::yield_now;

/// The file that is to take its place.
fn replacement_file(segment: SegmentId) -> String {
    format!("{}.new", staging_file(segment))
}

/// Puts a new, durable file in the place of the segment's. `lost`: what of the old one could not be read. Gives `false`, and
/// leaves it as it is, where any of that can be read by now: a disk that was away for a moment has lost nothing.
pub(super) async fn replace_file(
    disk: &dyn Disk,
    segment: SegmentId,
    whole: Bytes,
    lost: &[Range<usize>],
) -> Result<bool, DiskError> {
    let (file, new) = (staging_file(segment), replacement_file(segment));
    disk.remove(&new).await?;
    let written = async {
        disk.write(&new, 0, vec![whole]).await?;
        // It is there then, at least for this one.
        disk.sync(&new).await?;
        let is_needed = is_lost_still(disk, &file, lost).await?;
        if is_needed {
            disk.rename(&new, &file).await?;
        }
        Ok(is_needed)
    };
    let written = written.await;
    if !matches!(written, Ok(true)) {
        // What a full disk took of it is in the way of everything else.
        if let Err(error) = disk.remove(&new).await {
            tracing::warn!(%segment, %error, "a half-written replacement could not be removed");
        }
        return written;
    }
    disk.sync(&file).await?;
    Ok(true)
}

/// Tries at each part of a file that could not be read: a bad sector may take its disk half a minute.
const TRIES_MAX: usize = 16;

/// Whether nothing in these parts of a file can be read.
async fn is_lost_still(disk: &dyn Disk, file: &str, lost: &[Range<usize>]) -> Result<bool, DiskError> {
    for part in lost {
        let sectors = part.len().div_ceil(SECTOR_BYTES);
        for at in (part.start..part.end).step_by(SECTOR_BYTES * sectors.div_ceil(TRIES_MAX)) {
            match disk.read(file, at as u64, SECTOR_BYTES.min(part.end - at)).await {
                Err(DiskError::Unreadable { .. } | DiskError::NotFound { .. }) => {}
                // It ends before.
                Ok(read) if read.is_empty() => {}
                Ok(_) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(true)
}

impl Staging {
    /// Makes a closed segment durable. From here on it may be put.
    pub async fn finish(&self, segment: SegmentId) -> Result<(), StagingError> {
        self.sync(segment).await?;
        let mut state = self.lock();
        if state.memory_bytes > self.settings.memory_bytes_max {
            state.drop_body(segment);
        }
        Ok(())
    }

    /// Returns when all that was appended to the segment before is durable. One that is released is.
    pub async fn sync(&self, segment: SegmentId) -> Result<(), StagingError> {
        let (turn, target) = match self.lock().entries.get(&segment) {
            Some(entry) if entry.synced_bytes < entry.bytes => (entry.turn.clone(), entry.bytes),
            _ => return Ok(()),
        };
        let _turn = turn.lock().await;
        let failed = match self.lock().entries.get(&segment) {
            Some(entry) if entry.synced_bytes < target => entry.failed,
            _ => return Ok(()),
        };
        if failed {
            return self.replace_in_turn(segment).await;
        }
        // Whoever is ready to append does so before: one sync for them all.
        yield_now().await;
        let written = self.write_in_turn(segment).await?;
        let synced = self.disk.sync(&staging_file(segment)).await;
        if let Some(entry) = self.lock().entries.get_mut(&segment) {
            entry.failed = synced.is_err();
            synced?;
            entry.synced_bytes = entry.synced_bytes.max(written);
        }
        Ok(())
    }

    /// Writes the segment to a new file, which takes the place of one whose sync failed.
    async fn replace_in_turn(&self, segment: SegmentId) -> Result<(), StagingError> {
        let (whole, count) = {
            let state = self.lock();
            let Some(entry) = state.entries.get(&segment) else {
                return Ok(());
            };
            let packed = entry.packer.as_ref().and_then(|packer| packer.read(0, entry.bytes as usize));
            // A body leaves the memory only when all of it is synced.
            let whole = packed.or_else(|| entry.body.clone()).expect("what is not synced is in memory");
            (whole, entry.unwritten.len())
        };
        let bytes = whole.len() as u64;
        self.replace_file(segment, whole).await?;
        let mut state = self.lock();
        if let Some(entry) = state.entries.get_mut(&segment) {
            let written: u64 = entry.unwritten.drain(..count).map(|part| part.len() as u64).sum();
            entry.unwritten_bytes -= written;
            (entry.written_bytes, entry.synced_bytes, entry.failed) = (bytes, bytes, false);
            state.unwritten_bytes -= written;
        }
        Ok(())
    }

    /// As [`replace_file`]. The caller has the segment's turn.
    pub(super) async fn replace_file(&self, segment: SegmentId, whole: Bytes) -> Result<(), DiskError> {
        replace_file(&*self.disk, segment, whole, &[]).await.map(drop)
    }

    pub(super) async fn write(&self, segment: SegmentId) -> Result<(), StagingError> {
        let turn = self.lock().entries.get(&segment).map(|entry| entry.turn.clone());
        if let Some(turn) = turn {
            let _turn = turn.lock().await;
            self.write_in_turn(segment).await?;
        }
        Ok(())
    }

    /// Writes what is not yet in the segment's file; gives how many bytes the file has then.
    async fn write_in_turn(&self, segment: SegmentId) -> Result<u64, StagingError> {
        let (at, parts) = match self.lock().entries.get_mut(&segment) {
            Some(entry) => (entry.written_bytes, entry.unwritten.iter().cloned().collect::<Vec<_>>()),
            // Released, so there is nothing to write.
            None => return Ok(0),
        };
        let count = parts.len();
        let bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
        if count > 0 {
            self.disk.write(&staging_file(segment), at, parts).await?;
        }
        let mut state = self.lock();
        if let Some(entry) = state.entries.get_mut(&segment) {
            entry.unwritten.drain(..count);
            entry.unwritten_bytes -= bytes;
            entry.written_bytes += bytes;
            state.unwritten_bytes -= bytes;
        }
        Ok(at + bytes)
    }
}
