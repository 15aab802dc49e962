//! One frame: a header, and a piece of a file's data, raw or compressed.
//!
//! A frame knows its place: the header carries a tag of its segment and its offset there, under the checksum. So a frame
//! that is found by looking for one is the segment's own, and not one that a client stored as data.
//!
//! Where a disk has damaged a frame, a lost frame takes its place: same length, a checksum that is right, and no data. It
//! says for good that what was here is gone, so that nobody takes a reading error for a failing cloud. The damaged bytes
//! stay behind its header, for people.

use super::{read_u32, read_u64};
use crate::cloudfs::Handle;
use bytes::Bytes;
use std::ops::Range;

/// Length of a frame's header, in bytes.
pub const FRAME_HEADER_BYTES: usize = 56;

pub(super) const FRAME_MAGIC: &[u8; 4] = b"FRM1";

/// Where a frame's header says how long its payload is.
pub(super) const LENGTH: Range<usize> = 8..12;

/// How a frame's payload is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    Raw,
    Lz4,
    /// It is lost: the payload is what a disk left of it.
    Lost,
    /// One of a newer filer.
    Other(u8),
}

impl Codec {
    fn id(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Lz4 => 1,
            Self::Lost => 2,
            Self::Other(id) => id,
        }
    }

    fn of(id: u8) -> Self {
        match id {
            0 => Self::Raw,
            1 => Self::Lz4,
            2 => Self::Lost,
            other => Self::Other(other),
        }
    }
}

/// What a frame's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    pub codec: Codec,
    /// The key that the payload is encrypted with; 0: none.
    pub key: u8,
    /// Length of the payload in the segment, in bytes.
    pub stored_bytes: u32,
    /// Length of the data, in bytes.
    pub raw_bytes: u32,
    /// The file it belongs to.
    pub file: Handle,
    /// Its place in the file, in bytes.
    pub offset: u64,
    /// When it was written, nanoseconds since the Unix epoch.
    pub wall_ns: u64,
    /// The tag of its place, see [`super::Header::place`].
    pub place: u32,
}

/// A decoded frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub head: FrameHead,
    pub data: Bytes,
}

/// Why bytes are not a frame.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    #[error("a frame of {need} bytes has only {have}")]
    Short { need: usize, have: usize },
    #[error("no frame begins here")]
    NoFrame,
    #[error("the frame's checksum is {got:08x}, and {expected:08x} is on record")]
    Checksum { expected: u32, got: u32 },
    #[error("the frame's codec {0} is unknown: it was written by a newer filer")]
    Codec(u8),
    #[error("the frame is encrypted with key {0}, which this filer does not have")]
    Key(u8),
    #[error("the frame does not decompress: {0}")]
    Decompress(String),
    #[error("its {bytes} bytes (of inode {}, at byte {offset}) were lost to a damaged disk before any cloud had them", .file.ino)]
    Lost { bytes: u32, file: Handle, offset: u64 },
}

/// A frame's header and payload. Compressed when that saves at least an eighth. `place`: the tag of where it will stand.
pub fn encode_frame(place: u32, file: Handle, offset: u64, wall_ns: u64, data: Bytes) -> (Bytes, Bytes) {
    let (codec, payload) = match compress(&data) {
        Some(smaller) => (Codec::Lz4, Bytes::from(smaller)),
        None => (Codec::Raw, data.clone()),
    };
    let (stored_bytes, raw_bytes) = (payload.len() as u32, data.len() as u32);
    let head = FrameHead { codec, key: 0, stored_bytes, raw_bytes, file, offset, wall_ns, place };
    (head.to_bytes(&payload), payload)
}

/// Compressing below this many bytes saves nothing worth the work.
const COMPRESS_BYTES_MIN: usize = 256;
/// How much of a frame is tried before the whole of it.
const SAMPLE_BYTES: usize = 16 << 10;

fn compress(data: &[u8]) -> Option<Vec<u8>> {
    if data.len() < COMPRESS_BYTES_MIN {
        return None;
    }
    let worth = |smaller: usize, whole: usize| smaller < whole - whole / 8;
    // A sample from the middle spares most of the work on data that is compressed already.
    if data.len() > 4 * SAMPLE_BYTES {
        let middle = data.len() / 2;
        let sample = &data[middle..middle + SAMPLE_BYTES];
        if !worth(lz4_flex::block::compress(sample).len(), SAMPLE_BYTES) {
            return None;
        }
    }
    let smaller = lz4_flex::block::compress(data);
    worth(smaller.len(), data.len()).then_some(smaller)
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&head[..52]), payload)
}

impl FrameHead {
    /// Reads a header and the payload's checksum; the payload is not looked at.
    pub fn read(bytes: &[u8]) -> Result<(Self, u32), FrameError> {
        let head = Self::of(bytes).ok_or(FrameError::Short { need: FRAME_HEADER_BYTES, have: bytes.len() })?;
        if &bytes[..4] != FRAME_MAGIC {
            return Err(FrameError::NoFrame);
        }
        Ok((head, read_u32(bytes, 52)))
    }

    /// What the first bytes say, if they are a frame's header.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..FRAME_HEADER_BYTES)?;
        Some(Self {
            codec: Codec::of(head[4]),
            key: head[5],
            stored_bytes: read_u32(head, 8),
            raw_bytes: read_u32(head, 12),
            file: Handle { ino: read_u64(head, 16), generation: read_u32(head, 24) },
            offset: read_u64(head, 32),
            wall_ns: read_u64(head, 40),
            place: read_u32(head, 48),
        })
    }

    /// The header's bytes, with the checksum of itself and its payload.
    pub(super) fn to_bytes(self, payload: &[u8]) -> Bytes {
        let mut head = [0; FRAME_HEADER_BYTES];
        head[..4].copy_from_slice(FRAME_MAGIC);
        head[4] = self.codec.id();
        head[5] = self.key;
        head[LENGTH].copy_from_slice(&self.stored_bytes.to_le_bytes());
        head[12..16].copy_from_slice(&self.raw_bytes.to_le_bytes());
        head[16..24].copy_from_slice(&self.file.ino.to_le_bytes());
        head[24..28].copy_from_slice(&self.file.generation.to_le_bytes());
        head[32..40].copy_from_slice(&self.offset.to_le_bytes());
        head[40..48].copy_from_slice(&self.wall_ns.to_le_bytes());
        head[48..52].copy_from_slice(&self.place.to_le_bytes());
        let sum = checksum(&head, payload);
        head[52..56].copy_from_slice(&sum.to_le_bytes());
        Bytes::copy_from_slice(&head)
    }

    /// How many bits of what marks the beginning of a frame at `place` are wrong at the start of `bytes`.
    pub(super) fn wrong_bits(bytes: &[u8], place: u32) -> Option<u32> {
        let head = bytes.get(..FRAME_HEADER_BYTES)?;
        let magic = u32::from_le_bytes(*FRAME_MAGIC) ^ read_u32(head, 0);
        Some(magic.count_ones() + (read_u32(head, 48) ^ place).count_ones())
    }

    /// Length of the whole frame in its segment, in bytes.
    pub fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.stored_bytes as usize
    }
}

/// Largest data of one frame, in bytes: a bound on what a damaged header can make a reader allocate.
const RAW_BYTES_MAX: u32 = 64 << 20;

/// Checks the frame at the start of `bytes` against its checksum, whatever its codec and key are. What follows it is
/// ignored.
pub(super) fn check_frame(bytes: &[u8]) -> Result<FrameHead, FrameError> {
    let (head, expected) = FrameHead::read(bytes)?;
    let need = head.frame_bytes();
    let payload = bytes.get(FRAME_HEADER_BYTES..need).ok_or(FrameError::Short { need, have: bytes.len() })?;
    match checksum(&bytes[..FRAME_HEADER_BYTES], payload) {
        got if got == expected => Ok(head),
        got => Err(FrameError::Checksum { expected, got }),
    }
}

/// The right header of the frame at the start of `bytes`, if it belongs at `place` and one wrong bit of its length is all that is
/// wrong with it. What follows it is ignored.
pub(super) fn right_length(bytes: &[u8], place: u32) -> Option<FrameHead> {
    let (head, expected) = FrameHead::read(bytes).ok().filter(|(head, _)| head.place == place)?;
    let may_be = |head: &FrameHead| match head.codec {
        Codec::Raw => head.stored_bytes == head.raw_bytes,
        Codec::Lz4 => head.stored_bytes < head.raw_bytes,
        Codec::Lost | Codec::Other(_) => true,
    };
    let others = (0..u32::BITS).map(|bit| FrameHead { stored_bytes: head.stored_bytes ^ (1 << bit), ..head });
    others.filter(may_be).find(|right| {
        let Some(payload) = bytes.get(FRAME_HEADER_BYTES..right.frame_bytes()) else {
            return false;
        };
        let mut header = [0; FRAME_HEADER_BYTES];
        header.copy_from_slice(&bytes[..FRAME_HEADER_BYTES]);
        header[LENGTH].copy_from_slice(&right.stored_bytes.to_le_bytes());
        checksum(&header, payload) == expected
    })
}

/// Reads, checks and decodes the frame at the start of `bytes`. What follows it is ignored.
pub fn decode_frame(bytes: &Bytes) -> Result<Frame, FrameError> {
    let head = check_frame(bytes)?;
    let payload = bytes.slice(FRAME_HEADER_BYTES..head.frame_bytes());
    if head.key != 0 {
        return Err(FrameError::Key(head.key));
    }
    let data = match head.codec {
        Codec::Lost => {
            return Err(FrameError::Lost { bytes: head.raw_bytes, file: head.file, offset: head.offset });
        }
        Codec::Other(id) => return Err(FrameError::Codec(id)),
        Codec::Raw if head.raw_bytes == head.stored_bytes => payload,
        Codec::Raw => return Err(FrameError::Decompress("a raw frame of two lengths".into())),
        Codec::Lz4 if head.raw_bytes > RAW_BYTES_MAX => {
            return Err(FrameError::Decompress(format!("{} bytes are too many for a frame", head.raw_bytes)));
        }
        Codec::Lz4 => lz4_flex::block::decompress(&payload, head.raw_bytes as usize)
            .map_err(|e| FrameError::Decompress(e.to_string()))?
            .into(),
    };
    if data.len() != head.raw_bytes as usize {
        return Err(FrameError::Decompress(format!("{} bytes of {}", data.len(), head.raw_bytes)));
    }
    Ok(Frame { head, data })
}
