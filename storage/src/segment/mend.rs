//! Makes a sealed segment of what a crash or a bad disk has left of one.
//!
//! Whole frames stay where they are, since extents name their places. A wrong bit of a frame's length that its checksum tells is
//! set right. A damaged frame gets the header of a lost one, so that the segment says itself what it lacks; a torn end is cut;
//! header, index and footer are written anew from what is known. Where no frame is damaged, the result is the very segment that
//! was, or would have been, sealed: the index repeats the frames. What is left by giving up between any two of the writes, or by a
//! crash that has taken back any of them, mends to the same.

use super::{
    Codec, FRAME_HEADER_BYTES, FrameHead, FrameState, Header, Packer, Sealed,
    frame::LENGTH,
    survey::{Found, survey_around},
};
use crate::{cloudfs::Handle, ids::Md5};
use bytes::Bytes;
use std::ops::Range;

/// A damaged frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where in the segment, in bytes.
    pub range: Range<u64>,
    /// The file that it belonged to, and its place there, in bytes; as far as known.
    pub file: Option<(Handle, Range<u64>)>,
}

/// A segment that was mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    pub sealed: Sealed,
    /// What to write over the file's own bytes, each with its offset. None of it makes the file longer.
    pub patches: Vec<(u64, Bytes)>,
    /// Whether the file is to be cut at `sealed.tail_at`, and index and footer written there.
    pub tail: bool,
    /// Bytes behind the last frame that are no right index: a torn end.
    pub cut_bytes: u64,
    /// What was found damaged now. What was marked as lost before is not told again.
    pub damaged: Vec<Damage>,
    /// How many frames are lost, now and before.
    pub lost_frames: u64,
    /// Frames that are whole again, as a wrong bit of their length was set right.
    pub lengths_set_right: u64,
    /// When the oldest frame was written, nanoseconds since the Unix epoch.
    pub oldest_wall_ns: Option<u64>,
}

/// Mends what a file holds of the segment that has this header. `None` where no frame was ever wholly written to it.
pub fn mend(header: Header, bytes: &Bytes) -> Option<Mended> {
    mend_around(header, bytes, &[])
}

/// As [`mend`], of a file of which these parts could not be read and are zeroes here.
pub fn mend_around(header: Header, bytes: &Bytes, lost: &[Range<usize>]) -> Option<Mended> {
    let found = survey_around(&header, bytes, lost);
    if found.frames.is_empty() {
        return None;
    }
    let is_whole = |frame: &&Found| matches!(frame.state, FrameState::Whole | FrameState::WrongLength);
    let whole = found.frames.iter().filter(is_whole);
    let oldest_wall_ns = whole.filter_map(|frame| Some(frame.head?.wall_ns)).min();
    let (segment, tail_at) = (header.segment, found.frames_end as u64);
    let header_is_right = header.wrong_bits(bytes) == Some(0);
    let count = |state| found.frames.iter().filter(|frame| frame.state == state).count() as u64;
    let lost_frames = count(FrameState::Lost) + count(FrameState::Damaged);
    let lengths_set_right = count(FrameState::WrongLength);
    if found.sealed && header_is_right && count(FrameState::Damaged) + lengths_set_right == 0 {
        let sealed = Sealed { segment, md5: Md5::of(bytes), body: bytes.clone(), tail_at };
        let (patches, damaged) = Default::default();
        let (tail, cut_bytes) = (false, 0);
        return Some(Mended {
            sealed,
            patches,
            tail,
            cut_bytes,
            damaged,
            lost_frames,
            lengths_set_right,
            oldest_wall_ns,
        });
    }
    let (mut patches, mut damaged) = (Vec::new(), Vec::new());
    if !header_is_right {
        patches.push((0, Bytes::copy_from_slice(&header.to_bytes())));
    }
    let (mut packer, _) = Packer::new(header);
    for frame in &found.frames {
        let range = frame.range.clone();
        match (frame.state, &frame.head) {
            (FrameState::Whole | FrameState::Lost, Some(head)) => packer.take(head, [bytes.slice(range)]),
            (FrameState::WrongLength, Some(head)) => {
                let right = Bytes::copy_from_slice(&head.stored_bytes.to_le_bytes());
                let [before, behind] = [range.start..range.start + LENGTH.start, range.start + LENGTH.end..range.end];
                patches.push((before.end as u64, right.clone()));
                packer.take(head, [bytes.slice(before), right, bytes.slice(behind)]);
            }
            _ => {
                let payload = bytes.slice(range.start + FRAME_HEADER_BYTES..range.end);
                let head = lost_head(&header, frame);
                let head_bytes = head.to_bytes(&payload);
                damaged.push(Damage::of(frame));
                patches.push((range.start as u64, head_bytes.clone()));
                packer.take(&head, [head_bytes, payload]);
            }
        }
    }
    let cut_bytes = if found.sealed { 0 } else { (bytes.len() - found.frames_end) as u64 };
    let (sealed, tail) = (packer.seal(), !found.sealed);
    Some(Mended { sealed, patches, tail, cut_bytes, damaged, lost_frames, lengths_set_right, oldest_wall_ns })
}

/// The header that says that a frame is lost.
fn lost_head(header: &Header, frame: &Found) -> FrameHead {
    let unknown = Handle { ino: 0, generation: 0 };
    let (raw_bytes, file, offset, wall_ns) =
        frame.head.map_or((0, unknown, 0, 0), |head| (head.raw_bytes, head.file, head.offset, head.wall_ns));
    let stored_bytes = (frame.range.len() - FRAME_HEADER_BYTES) as u32;
    let place = header.place(frame.range.start);
    FrameHead { codec: Codec::Lost, key: 0, stored_bytes, raw_bytes, file, offset, wall_ns, place }
}

impl Damage {
    fn of(Found { range, head, .. }: &Found) -> Self {
        let place = |head: &FrameHead| (head.file, head.offset..head.offset.saturating_add(head.raw_bytes.into()));
        Self { range: range.start as u64..range.end as u64, file: head.as_ref().map(place) }
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bytes {} to {}", self.range.start, self.range.end)?;
        match &self.file {
            Some((file, at)) => write!(f, " (bytes {} to {} of inode {})", at.start, at.end, file.ino),
            None => write!(f, " (of a file that is not known)"),
        }
    }
}
