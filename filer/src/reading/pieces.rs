//! What a read is made of, taken piece by piece.
//!
//! What is left of a frame may be a few bytes, and reading them takes all of it: so a read over many frames could take
//! hundreds of times its length in memory. It takes them in batches instead, bounded in number and in bytes as they are
//! stored. Of a frame that is much larger than what is wanted of it that is copied out, at once, so that of compressed frames
//! hardly more than one is decoded at a time. All reads under way share the room for what their batches take.
//!
//! ```text
//! extents -> batch -- room --> near: memory, staging, cache --> parts
//!                              else, room for what comes from afar --> fetched in runs --> near again --> parts
//! ```
//!
//! A read holds room while one batch is taken, and nothing that it waits for with it needs room of the same kind.

use super::{FramePlace, ReadError, Reader, Run, runs};
use bytes::{Bytes, BytesMut};
use futures::future::try_join_all;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};
use storage::{
    cloudfs::{Extent, Handle},
    ids::SegmentId,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

/// Frames of one batch.
const FRAMES_MAX: usize = 256;
/// Extents of one batch.
const EXTENTS_MAX: usize = 1024;
/// Unit in which room is counted, in bytes.
const PERMIT_BYTES: u64 = 1024;

/// Room for frames as they are stored.
pub(super) struct Rooms {
    near: Semaphore,
    /// Of its own, so that reads that wait for a dead cloud keep no others from what is here.
    afar: Semaphore,
    permits_max: u32,
}

impl Rooms {
    pub fn new(bytes_max: u64) -> Self {
        let permits_max = u32::try_from(bytes_max / PERMIT_BYTES).unwrap_or(u32::MAX).max(1);
        let room = || Semaphore::new(permits_max as usize);
        Self { near: room(), afar: room(), permits_max }
    }
}

/// The extents of a batch by the frames that have their data.
type Frames<'a> = BTreeMap<(SegmentId, FramePlace), Vec<&'a Extent>>;

fn stored_bytes<'a>(frames: impl IntoIterator<Item = &'a (SegmentId, FramePlace)>) -> u64 {
    frames.into_iter().map(|(_, place)| u64::from(place.len)).sum()
}

/// How many of these extents are taken at a time.
fn batch_len(extents: &[Extent], bytes_max: u64) -> usize {
    let (mut frames, mut bytes) = (BTreeSet::new(), 0);
    for (at, extent) in extents.iter().enumerate().take(EXTENTS_MAX) {
        if frames.insert((extent.segment, extent.frame_at)) {
            bytes += u64::from(extent.frame_len);
        }
        if at > 0 && (frames.len() > FRAMES_MAX || bytes > bytes_max) {
            return at;
        }
    }
    extents.len().min(EXTENTS_MAX)
}

/// The part of a decoded frame that an extent is. It keeps no frame that is much larger than itself.
fn part(extent: &Extent, frame: &Bytes) -> Result<Bytes, ReadError> {
    let (from, to) = (extent.skip as usize, extent.skip as usize + extent.len as usize);
    if to > frame.len() {
        let (at, has) = (extent.frame_at, frame.len());
        let why = format!("its frame at byte {at} has {has} bytes, and {to} are on record");
        return Err(ReadError::Lost { segment: extent.segment, why });
    }
    let is_most = 2 * (to - from) >= frame.len();
    Ok(if is_most { frame.slice(from..to) } else { Bytes::copy_from_slice(&frame[from..to]) })
}

impl Reader {
    /// The bytes of a range of a file, of which `extents` are all that is no hole, in order.
    pub async fn data(
        self: &Arc<Self>,
        file: Handle,
        range: &Range<u64>,
        extents: &[Extent],
    ) -> Result<Bytes, ReadError> {
        if let [extent] = extents
            && (extent.offset, extent.end()) == (range.start, range.end)
        {
            let piece = self.pieces(file, extents).await?.remove(0).1;
            // A sealed segment in staging is in memory as a whole, and a part of it would keep that there.
            let staged = self.parts.staging.holds(extent.segment);
            return Ok(if staged { Bytes::copy_from_slice(&piece) } else { piece });
        }
        let mut data = BytesMut::zeroed((range.end - range.start) as usize);
        let mut left = extents;
        while !left.is_empty() {
            let (batch, rest) = left.split_at(batch_len(left, self.settings.run_bytes_max.into()));
            for (offset, piece) in self.pieces(file, batch).await? {
                let at = (offset - range.start) as usize;
                data[at..at + piece.len()].copy_from_slice(&piece);
            }
            left = rest;
        }
        Ok(data.freeze())
    }

    /// The data of each of a file's extents, which are one batch, and its place in the file.
    async fn pieces(self: &Arc<Self>, file: Handle, extents: &[Extent]) -> Result<Vec<(u64, Bytes)>, ReadError> {
        let mut frames = Frames::new();
        for extent in extents {
            frames.entry((extent.segment, FramePlace::of(extent))).or_default().push(extent);
        }
        let near = {
            let _room = self.room(&self.rooms.near, stored_bytes(frames.keys()), extents).await?;
            let near = frames.iter().map(|(frame, extents)| self.parts_near(file, frame, extents));
            try_join_all(near).await?
        };
        let mut pieces = Vec::with_capacity(extents.len());
        let mut far = Frames::new();
        for ((frame, extents), near) in frames.into_iter().zip(near) {
            match near {
                Some(parts) => pieces.extend(parts),
                None => drop(far.insert(frame, extents)),
            }
        }
        if far.is_empty() {
            return Ok(pieces);
        }
        let _room = self.room(&self.rooms.afar, stored_bytes(far.keys()), extents).await?;
        // What lies together is fetched together.
        let first: Vec<Extent> = far.values().map(|extents| *extents[0]).collect();
        let runs = runs(file, &first, self.settings.run_bytes_max);
        try_join_all(runs.into_iter().map(|run| self.fetch(run))).await?;
        for (frame, extents) in &far {
            pieces.extend(self.parts_from_afar(file, frame, extents).await?);
        }
        Ok(pieces)
    }

    /// Room for so many bytes of the frames of a batch.
    async fn room<'a>(
        &self,
        room: &'a Semaphore,
        bytes: u64,
        batch: &[Extent],
    ) -> Result<SemaphorePermit<'a>, ReadError> {
        // What is larger than all of it takes all of it.
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX).min(self.rooms.permits_max);
        let waited_ms = self.settings.read_ms_max;
        match timeout(Duration::from_millis(waited_ms), room.acquire_many(permits)).await {
            Ok(permit) => Ok(permit.expect("room is never closed")),
            Err(_) => {
                let last = "other reads take all the memory for frames".into();
                Err(ReadError::Later { segment: batch[0].segment, waited_ms, last })
            }
        }
    }

    /// The parts of a frame that extents are, where this filer has it.
    async fn parts_near(
        &self,
        file: Handle,
        (segment, place): &(SegmentId, FramePlace),
        extents: &[&Extent],
    ) -> Result<Option<Vec<(u64, Bytes)>>, ReadError> {
        let Some(frame) = self.near(*segment, file, *place).await? else {
            return Ok(None);
        };
        let parts = extents.iter().map(|extent| part(extent, &frame).map(|part| (extent.offset, part)));
        parts.collect::<Result<_, _>>().map(Some)
    }

    /// The same of a frame that was fetched, and is again if it is gone.
    async fn parts_from_afar(
        self: &Arc<Self>,
        file: Handle,
        frame: &(SegmentId, FramePlace),
        extents: &[&Extent],
    ) -> Result<Vec<(u64, Bytes)>, ReadError> {
        let ((segment, place), start) = (*frame, Instant::now());
        loop {
            if let Some(parts) = self.parts_near(file, frame, extents).await? {
                return Ok(parts);
            }
            self.fetch(Run { segment, file, frames: vec![place] }).await?;
            if start.elapsed() > Duration::from_millis(2 * self.settings.read_ms_max) {
                let waited_ms = start.elapsed().as_millis() as u64;
                let last = "what was fetched was evicted before it was read".into();
                return Err(ReadError::Later { segment, waited_ms, last });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::FilerId;

    fn extent(number: u64, frame_at: u32, frame_len: u32) -> Extent {
        let segment = SegmentId { filer: FilerId(1), number };
        Extent { offset: 0, len: 1, segment, frame_at, frame_len, skip: 0 }
    }

    #[test]
    fn a_batch_is_bounded_by_bytes_frames_and_extents_and_is_never_empty() {
        let len = |extents: &[Extent]| batch_len(extents, 1000);
        assert_eq!(len(&[extent(1, 0, 5000), extent(1, 5000, 1)]), 1, "a frame that is larger comes alone");
        assert_eq!(len(&[extent(1, 0, 500), extent(1, 500, 500), extent(1, 1000, 1)]), 2);
        assert_eq!(len(&[extent(1, 0, 900), extent(2, 0, 100), extent(1, 0, 900)]), 3, "each frame counts once");
        let many = |number: u32| (0..number).map(|at| extent(1, at, 1)).collect::<Vec<_>>();
        assert_eq!((len(&many(10)), len(&many(300))), (10, FRAMES_MAX));
        assert_eq!(len(&vec![extent(1, 0, 1); 5000]), EXTENTS_MAX);
    }

    #[test]
    fn a_small_part_keeps_no_large_frame() {
        let frame = Bytes::from(vec![7; 1000]);
        let mut extent = extent(1, 0, 100);
        extent.len = 400;
        let is_slice = |part: &Bytes| frame.as_ptr_range().contains(&part.as_ptr());
        assert!(!is_slice(&part(&extent, &frame).expect("it is in the frame")));
        extent.len = 500;
        assert!(is_slice(&part(&extent, &frame).expect("it is in the frame")));
        extent.skip = 501;
        assert!(matches!(part(&extent, &frame), Err(ReadError::Lost { .. })));
    }
}
