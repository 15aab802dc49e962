//! Surveys a segment's bytes: is it whole, is it torn, and what is in it.

use super::{FOOTER_BYTES, FOOTER_MAGIC, FrameHead, HEADER_BYTES, Header, INDEX_ENTRY_BYTES, decode_frame, read_u32};
use bytes::Bytes;
use std::ops::Range;

/// Why bytes are not a segment.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SurveyError {
    #[error("{bytes} bytes are too few for a segment")]
    Short { bytes: u64 },
    #[error("it is no segment")]
    Foreign,
    #[error("the segment has format version {found}, and this program reads up to {known}")]
    Newer { found: u16, known: u16 },
    #[error("the {what} at byte {at} is damaged")]
    Damaged { what: &'static str, at: u64 },
}

/// What a segment's file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    pub header: Header,
    /// Its good part ends here, in bytes: header and whole frames; all of a sealed one.
    pub good_bytes: u64,
    /// Whether index and footer are there and right.
    pub sealed: bool,
    /// The whole ones.
    pub frames: Vec<(FrameHead, Range<usize>)>,
}

/// The whole frames from the header on, each checked, up to the first that is not right.
pub fn frames_of(bytes: &Bytes) -> Vec<(FrameHead, Range<usize>)> {
    let mut at = HEADER_BYTES;
    let mut frames = Vec::new();
    while at < bytes.len() {
        match decode_frame(&bytes.slice(at..)) {
            Ok(frame) => {
                let end = at + frame.head.frame_bytes();
                frames.push((frame.head, at..end));
                at = end;
            }
            Err(_) => break,
        }
    }
    frames
}

/// Surveys a segment's file. A torn tail is not an error: `good_bytes` says where it begins. In a sealed segment, frames
/// behind a damaged one are found by its index.
pub fn survey(bytes: &Bytes) -> Result<Survey, SurveyError> {
    let header = Header::read(bytes)?;
    if let Some(index) = index_of(bytes) {
        let whole = |range: &Range<usize>| decode_frame(&bytes.slice(range.clone())).ok();
        let frames = index.into_iter().filter_map(|range| Some((whole(&range)?.head, range))).collect();
        return Ok(Survey { header, good_bytes: bytes.len() as u64, sealed: true, frames });
    }
    let frames = frames_of(bytes);
    let end = frames.last().map_or(HEADER_BYTES, |(_, range)| range.end);
    Ok(Survey { header, good_bytes: end as u64, sealed: false, frames })
}

/// Where the frames lie, by the index; `None` unless index and footer are there and right.
fn index_of(bytes: &Bytes) -> Option<Vec<Range<usize>>> {
    let footer_at = bytes.len().checked_sub(FOOTER_BYTES)?;
    let footer = &bytes[footer_at..];
    let (index_at, frames) = (read_u32(footer, 8) as usize, read_u32(footer, 12) as usize);
    let index = bytes.get(HEADER_BYTES.max(index_at)..footer_at)?;
    let right = &footer[..8] == FOOTER_MAGIC
        && index_at >= HEADER_BYTES
        && index.len() == frames.checked_mul(INDEX_ENTRY_BYTES)?
        && read_u32(footer, 16) == crc32c::crc32c_append(crc32c::crc32c(index), &footer[..16]);
    let mut at = HEADER_BYTES;
    let mut ranges = Vec::new();
    for entry in index.chunks_exact(INDEX_ENTRY_BYTES).filter(|_| right) {
        let (start, end) = (read_u32(entry, 0) as usize, read_u32(entry, 0) as usize + read_u32(entry, 4) as usize);
        if start != at || end <= start {
            return None;
        }
        ranges.push(start..end);
        at = end;
    }
    (right && at == index_at).then_some(ranges)
}
