//! Surveys a segment's bytes: which frames are whole, where it is damaged, where its good part ends.
//!
//! A sealed segment's index says where its frames are. Without one they are looked for: one behind the other, and where one
//! is damaged, from the next place on that is marked as the beginning of a frame of this segment at that very offset. So
//! a damaged frame costs itself alone. The last one has none behind it, and one that says it is longer than what is left looks
//! like the torn end of a write: whether a flipped bit of its length does that, its checksum tells.

use super::{
    Codec, FOOTER_BYTES, FOOTER_MAGIC, FRAME_HEADER_BYTES, FrameHead, HEADER_BYTES, Header, INDEX_ENTRY_BYTES,
    frame::{FRAME_MAGIC, check_frame, right_length},
    read_u32, read_u64,
};
use crate::cloudfs::Handle;
use std::ops::Range;

/// Why bytes are not a segment.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SurveyError {
    #[error("{bytes} bytes are too few for a segment")]
    Short { bytes: u64 },
    #[error("it is no segment")]
    Foreign,
    #[error("the segment has format version {found}, and this program reads version {known}")]
    Version { found: u16, known: u16 },
    #[error("the {what} at byte {at} is damaged")]
    Damaged { what: &'static str, at: u64 },
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameState {
    /// Its checksum is right.
    Whole,
    /// It would be, but for one wrong bit of its length; range and head are right here.
    WrongLength,
    /// It is a lost frame: the damage was noticed and marked before.
    Lost,
    /// It is damaged, and nothing says so yet.
    Damaged,
}

/// A frame that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub range: Range<usize>,
    pub state: FrameState,
    /// What it says of itself. Of a damaged one: what the index says, or its own header, which may be wrong too.
    pub head: Option<FrameHead>,
}

/// What a segment's file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// One behind the other from the header on.
    pub frames: Vec<Found>,
    /// Where they end, in bytes. Behind it are index and footer, or what a crash left of a write.
    pub frames_end: usize,
    /// Whether index and footer are there and right.
    pub sealed: bool,
}

/// Fewest bytes of a frame.
const FRAME_BYTES_MIN: usize = FRAME_HEADER_BYTES + 1;
/// Bits of a frame's mark that may be wrong where a frame is known to begin: random bytes differ in half of 64.
const WRONG_BITS_MAX: u32 = 2;

/// Surveys the file of the segment that has this header, whatever its own first bytes say.
pub fn survey(header: &Header, bytes: &[u8]) -> Survey {
    survey_around(header, bytes, &[])
}

/// As [`survey`], of a file of which these parts could not be read and are zeroes here: what has no mark there is no torn
/// end, but was written once.
pub(super) fn survey_around(header: &Header, bytes: &[u8], lost: &[Range<usize>]) -> Survey {
    if let Some(frames) = index_of(header, bytes) {
        let frames_end = frames.last().map_or(HEADER_BYTES, |frame| frame.range.end);
        return Survey { frames, frames_end, sealed: true };
    }
    let (mut at, mut frames) = (HEADER_BYTES.min(bytes.len()), Vec::new());
    while at < bytes.len() {
        let frame = whole_at(header, bytes, at)
            .or_else(|| of_wrong_length_at(header, bytes, at))
            .or_else(|| damaged_at(header, bytes, at))
            .or_else(|| lost_at(bytes, at, frames.len(), lost));
        let Some(frame) = frame else {
            break;
        };
        at = frame.range.end;
        frames.push(frame);
    }
    Survey { frames, frames_end: at, sealed: false }
}

/// Checks a whole object, every byte of it.
pub fn check_object(header: &Header, bytes: &[u8]) -> Result<(), SurveyError> {
    let damaged = |what, at: usize| Err(SurveyError::Damaged { what, at: at as u64 });
    if header.wrong_bits(bytes) != Some(0) {
        return damaged("header", 0);
    }
    let Some(frames) = index_of(header, bytes) else {
        return damaged("index", bytes.len().saturating_sub(FOOTER_BYTES));
    };
    let is_wrong = |frame: &&Found| matches!(frame.state, FrameState::Damaged | FrameState::WrongLength);
    match frames.iter().find(is_wrong) {
        Some(frame) => damaged("frame", frame.range.start),
        None => Ok(()),
    }
}

/// The frame that begins at `at`, if it is whole and at its place.
fn whole_at(header: &Header, bytes: &[u8], at: usize) -> Option<Found> {
    let head = check_frame(bytes.get(at..)?).ok().filter(|head| head.place == header.place(at))?;
    let state = if head.codec == Codec::Lost { FrameState::Lost } else { FrameState::Whole };
    Some(Found { range: at..at + head.frame_bytes(), state, head: Some(head) })
}

/// The frame that begins at `at`, if it is at its place, and right but for one bit of its length. A lost one is damaged anew.
fn of_wrong_length_at(header: &Header, bytes: &[u8], at: usize) -> Option<Found> {
    let head = right_length(bytes.get(at..)?, header.place(at))?;
    let state = if head.codec == Codec::Lost { FrameState::Damaged } else { FrameState::WrongLength };
    Some(Found { range: at..at + head.frame_bytes(), state, head: Some(head) })
}

/// The damaged frame that begins at `at`: up to the next one, or as long as its header says. `None` where what is left is
/// the torn end of a write, or a damaged index.
fn damaged_at(header: &Header, bytes: &[u8], at: usize) -> Option<Found> {
    let rest = &bytes[at..];
    let marked = FrameHead::wrong_bits(rest, header.place(at)).is_some_and(|bits| bits <= WRONG_BITS_MAX);
    let head = FrameHead::of(rest).filter(|_| marked);
    let end = match next_mark(header, bytes, at + FRAME_BYTES_MIN) {
        Some(next) => next,
        None => at + head?.frame_bytes(),
    };
    let long_enough = (at + FRAME_BYTES_MIN..=bytes.len()).contains(&end);
    long_enough.then_some(Found { range: at..end, state: FrameState::Damaged, head })
}

/// What begins at `at` and runs to the file's end where a part of that is lost; `None` where it is index and footer, which
/// can be made anew. Where that cannot be told, because frames are lost too, they count as lost with them.
fn lost_at(bytes: &[u8], at: usize, frames: usize, lost: &[Range<usize>]) -> Option<Found> {
    let rest = &bytes[at..];
    let footer = rest.len().checked_sub(FOOTER_BYTES).map(|footer_at| &rest[footer_at..]);
    let named_by_footer =
        footer.is_some_and(|footer| &footer[..8] == FOOTER_MAGIC && read_u32(footer, 8) as usize == at);
    let is_tail = named_by_footer || rest.len() == frames * INDEX_ENTRY_BYTES + FOOTER_BYTES;
    let is_lost = rest.len() >= FRAME_BYTES_MIN && lost.iter().any(|lost| lost.end > at);
    (is_lost && !is_tail).then_some(Found { range: at..bytes.len(), state: FrameState::Damaged, head: None })
}

/// The next place from `from` on that is marked as the beginning of a frame of this segment.
fn next_mark(header: &Header, bytes: &[u8], from: usize) -> Option<usize> {
    let windows = bytes.get(from..)?.windows(FRAME_MAGIC.len()).enumerate();
    let mut magics = windows.filter(|(_, window)| window == FRAME_MAGIC).map(|(skip, _)| from + skip);
    magics.find(|at| FrameHead::wrong_bits(&bytes[*at..], header.place(*at)) == Some(0))
}

/// The checksum of index and footer, which ties them to their segment.
pub(super) fn index_checksum(header: &Header, index: &[u8], footer: &[u8; FOOTER_BYTES]) -> u32 {
    let sum = crc32c::crc32c_append(header.sum(), index);
    crc32c::crc32c_append(sum, &footer[..20])
}

/// The frames by the index; `None` unless index and footer are there and right.
fn index_of(header: &Header, bytes: &[u8]) -> Option<Vec<Found>> {
    let footer_at = bytes.len().checked_sub(FOOTER_BYTES)?;
    let footer: &[u8; FOOTER_BYTES] = bytes[footer_at..].try_into().ok()?;
    let (index_at, frames) = (read_u32(footer, 8) as usize, read_u32(footer, 12) as usize);
    let index = bytes.get(HEADER_BYTES.max(index_at)..footer_at)?;
    let right = &footer[..8] == FOOTER_MAGIC
        && index_at >= HEADER_BYTES
        && index.len() == frames.checked_mul(INDEX_ENTRY_BYTES)?
        && read_u32(footer, 20) == index_checksum(header, index, footer);
    let (mut at, mut found) = (HEADER_BYTES, Vec::new());
    for entry in index.chunks_exact(INDEX_ENTRY_BYTES).filter(|_| right) {
        let (start, len) = (read_u32(entry, 0) as usize, read_u32(entry, 4) as usize);
        let end = start + len;
        if start != at || len < FRAME_BYTES_MIN || end > index_at {
            return None;
        }
        let damaged = || {
            let head = FrameHead {
                codec: Codec::Lost,
                key: 0,
                stored_bytes: (len - FRAME_HEADER_BYTES) as u32,
                raw_bytes: read_u32(entry, 8),
                file: Handle { ino: read_u64(entry, 16), generation: read_u32(entry, 12) },
                offset: read_u64(entry, 24),
                wall_ns: read_u64(entry, 32),
                place: header.place(start),
            };
            Found { range: start..end, state: FrameState::Damaged, head: Some(head) }
        };
        let frames = &bytes[..index_at];
        let frame = whole_at(header, frames, start).or_else(|| of_wrong_length_at(header, frames, start));
        found.push(frame.filter(|frame| frame.range.end == end).unwrap_or_else(damaged));
        at = end;
    }
    (right && at == index_at).then_some(found)
}
