//! A segment: file data of one filer, packed in the order written, immutable once sealed.
//!
//! Owns: the bytes of a segment, in staging as in a cloud. Does not own: where segments are kept (`staging`, `cloud`),
//! nor who refers to them (`cloudfs`).
//!
//! ```text
//! header | frame | frame | ... | index | footer
//! ```
//!
//! A frame is one piece of one file with a checksum of its own, so that any frame can be read, checked and believed
//! alone; it names its inode and offset, so that files can be rebuilt from segments. The index repeats what the frames'
//! headers say, so that a whole object can be surveyed by one read of its end. Integers are little-endian.
//!
//! The checksums of header, frames and index cover every byte of a sealed segment: what passes them all is right.

mod frame;
mod mend;
mod packer;
mod survey;

pub use frame::{Codec, FRAME_HEADER_BYTES, Frame, FrameError, FrameHead, decode_frame, encode_frame};
pub use mend::{Damage, Mended, mend, mend_around};
pub use packer::{Packed, Packer, Sealed};
pub use survey::{Found, FrameState, Survey, SurveyError, check_object, survey};

use crate::ids::SegmentId;
use mesh::FilerId;

/// Version of the format.
pub const SEGMENT_VERSION: u16 = 3;
/// Length of a segment's header, in bytes.
pub const HEADER_BYTES: usize = 40;
/// Length of its footer, in bytes.
pub const FOOTER_BYTES: usize = 24;
/// Length of one entry of its index, in bytes.
pub const INDEX_ENTRY_BYTES: usize = 40;
/// The largest length at which a filer's settings may have a segment sealed, in bytes.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// The largest frame that a filer's settings may ask for, in bytes of data.
pub const FRAME_BYTES_MAX: u64 = 8 << 20;
/// The longest object that a segment can be, whatever its filer's settings were, in bytes: the largest frame may begin
/// right before the length at which it is sealed.
pub const OBJECT_BYTES_MAX: u64 = SEGMENT_BYTES_MAX + FRAME_BYTES_MAX + (FRAME_HEADER_BYTES + INDEX_ENTRY_BYTES) as u64;

const MAGIC: &[u8; 6] = b"FMSEG\n";
const FOOTER_MAGIC: &[u8; 8] = b"FMSEGEND";

/// The first bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub cloudfs: u64,
    pub segment: SegmentId,
}

impl Header {
    /// Its bytes.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..6].copy_from_slice(MAGIC);
        bytes[6..8].copy_from_slice(&SEGMENT_VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.cloudfs.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.segment.filer.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.segment.number.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..36]);
        bytes[36..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// A checksum of all that it says, which ties to it what is said beside it. Without its own checksum: one over what ends
    /// with its checksum is the same for all.
    fn sum(&self) -> u32 {
        crc32c::crc32c(&self.to_bytes()[..36])
    }

    /// The tag of a frame that begins at byte `at` of this segment.
    pub fn place(&self, at: usize) -> u32 {
        crc32c::crc32c_append(self.sum(), &(at as u64).to_le_bytes())
    }

    /// How many bits of the header at the start of `bytes` differ from those of this one; `None` when it is not all there.
    pub fn wrong_bits(&self, bytes: &[u8]) -> Option<u32> {
        let found = bytes.get(..HEADER_BYTES)?;
        Some(self.to_bytes().iter().zip(found).map(|(a, b)| (a ^ b).count_ones()).sum())
    }

    /// The header at the start of `bytes`.
    pub fn read(bytes: &[u8]) -> Result<Self, SurveyError> {
        let head = bytes.get(..HEADER_BYTES).ok_or(SurveyError::Short { bytes: bytes.len() as u64 })?;
        if &head[..6] != MAGIC {
            return Err(SurveyError::Foreign);
        }
        let version = u16::from_le_bytes([head[6], head[7]]);
        if version != SEGMENT_VERSION {
            return Err(SurveyError::Version { found: version, known: SEGMENT_VERSION });
        }
        if crc32c::crc32c(&head[..36]).to_le_bytes() != head[36..40] {
            return Err(SurveyError::Damaged { what: "header", at: 0 });
        }
        let filer = FilerId(read_u64(head, 16));
        Ok(Self { cloudfs: read_u64(head, 8), segment: SegmentId { filer, number: read_u64(head, 24) } })
    }
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests;
