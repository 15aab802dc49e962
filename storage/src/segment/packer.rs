//! Packs frames into a segment and hashes it on the way: one MD5 per byte, however many clouds.

use super::{FOOTER_BYTES, FOOTER_MAGIC, FrameHead, Header, INDEX_ENTRY_BYTES, encode_frame, survey::index_checksum};
use crate::{
    cloudfs::{Extent, Handle},
    ids::{Md5, SegmentId},
};
use bytes::{Bytes, BytesMut};
use md5::Digest;

/// A segment that is still being written.
pub struct Packer {
    header: Header,
    md5: md5::Md5,
    parts: Vec<Bytes>,
    bytes: u64,
    index: BytesMut,
    frames: u32,
}

/// What one call added: where the new data lies, and the bytes to append to the segment's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    pub extent: Extent,
    /// Where `parts` go in the segment, in bytes.
    pub at: u64,
    pub parts: Vec<Bytes>,
}

/// A finished segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    pub segment: SegmentId,
    pub md5: Md5,
    /// The whole object.
    pub body: Bytes,
    /// Where the last part (index and footer) begins: the part that sealing added.
    pub tail_at: u64,
}

impl Packer {
    /// An empty segment, and its first bytes.
    pub fn new(header: Header) -> (Self, Bytes) {
        let first = Bytes::copy_from_slice(&header.to_bytes());
        let mut packer =
            Self { header, md5: md5::Md5::new(), parts: Vec::new(), bytes: 0, index: BytesMut::new(), frames: 0 };
        packer.push(first.clone());
        (packer, first)
    }

    fn push(&mut self, part: Bytes) {
        self.md5.update(&part);
        self.bytes += part.len() as u64;
        self.parts.push(part);
    }

    /// The segment's name.
    pub fn segment(&self) -> SegmentId {
        self.header.segment
    }

    /// Length of the object if it were sealed now, in bytes.
    pub fn sealed_bytes(&self) -> u64 {
        self.bytes + (self.index.len() + FOOTER_BYTES) as u64
    }

    /// Appends one frame. `data` is not empty and at most a frame's limit.
    pub fn pack(&mut self, file: Handle, offset: u64, wall_ns: u64, data: Bytes) -> Packed {
        let at = self.bytes;
        let len = data.len() as u32;
        let place = self.header.place(at as usize);
        let (head, payload) = encode_frame(place, file, offset, wall_ns, data);
        let frame_len = (head.len() + payload.len()) as u32;
        self.index_frame(frame_len, len, file, offset, wall_ns);
        self.push(head.clone());
        self.push(payload.clone());
        let segment = self.segment();
        let extent = Extent { offset, len, segment, frame_at: at as u32, frame_len, skip: 0 };
        Packed { extent, at, parts: vec![head, payload] }
    }

    /// Up to `len` bytes of the segment from `at`, as they stand in its file; `None` beyond what is packed.
    pub fn read(&self, at: u64, len: usize) -> Option<Bytes> {
        if at.checked_add(len as u64).is_none_or(|end| end > self.bytes) {
            return None;
        }
        let mut skip = at;
        let mut read = BytesMut::with_capacity(len);
        for part in &self.parts {
            let part_len = part.len() as u64;
            if skip >= part_len {
                skip -= part_len;
                continue;
            }
            let take = (part.len() - skip as usize).min(len - read.len());
            if read.is_empty() && take == len {
                return Some(part.slice(skip as usize..skip as usize + take));
            }
            read.extend_from_slice(&part[skip as usize..skip as usize + take]);
            skip = 0;
            if read.len() == len {
                break;
            }
        }
        Some(read.freeze())
    }

    /// Adds index and footer.
    pub fn seal(mut self) -> Sealed {
        let tail_at = self.bytes;
        let mut footer = [0; FOOTER_BYTES];
        footer[..8].copy_from_slice(FOOTER_MAGIC);
        footer[8..12].copy_from_slice(&(tail_at as u32).to_le_bytes());
        footer[12..16].copy_from_slice(&self.frames.to_le_bytes());
        debug_assert_eq!(self.index.len(), self.frames as usize * INDEX_ENTRY_BYTES);
        let sum = index_checksum(&self.header, &self.index, &footer);
        footer[20..24].copy_from_slice(&sum.to_le_bytes());
        let index = std::mem::take(&mut self.index).freeze();
        self.push(index);
        self.push(Bytes::copy_from_slice(&footer));
        let mut body = BytesMut::with_capacity(self.bytes as usize);
        for part in &self.parts {
            body.extend_from_slice(part);
        }
        let segment = self.segment();
        Sealed { segment, md5: Md5(self.md5.finalize().into()), body: body.freeze(), tail_at }
    }

    fn index_frame(&mut self, frame_len: u32, raw_bytes: u32, file: Handle, offset: u64, wall_ns: u64) {
        self.index.extend_from_slice(&(self.bytes as u32).to_le_bytes());
        self.index.extend_from_slice(&frame_len.to_le_bytes());
        self.index.extend_from_slice(&raw_bytes.to_le_bytes());
        self.index.extend_from_slice(&file.generation.to_le_bytes());
        self.index.extend_from_slice(&file.ino.to_le_bytes());
        self.index.extend_from_slice(&offset.to_le_bytes());
        self.index.extend_from_slice(&wall_ns.to_le_bytes());
        self.frames += 1;
    }

    /// Appends a frame as it stands in a file: `parts` are all of it.
    pub(super) fn take(&mut self, head: &FrameHead, parts: impl IntoIterator<Item = Bytes>) {
        self.index_frame(head.frame_bytes() as u32, head.raw_bytes, head.file, head.offset, head.wall_ns);
        parts.into_iter().for_each(|part| self.push(part));
    }
}
