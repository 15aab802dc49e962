//! Where frames lie, which frames one request can read together, and whether what came is the frame that was meant.

use bytes::Bytes;
use storage::{
    cloudfs::{Extent, Handle},
    ids::SegmentId,
    segment::{Frame, FrameError, FrameHead, Header, decode_frame},
};

/// A frame's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FramePlace {
    /// Where it begins in its segment's object, in bytes.
    pub at: u32,
    /// Its length there, with its header, in bytes.
    pub len: u32,
    /// Where its data begins in the file, in bytes.
    pub offset: u64,
}

/// Why bytes are not the frame that was asked for.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum WrongFrame {
    #[error(transparent)]
    Damaged(FrameError),
    /// It is the frame, and says that its data is lost.
    #[error(transparent)]
    Lost(FrameError),
    /// It is whole, but another one: right bytes of a wrong place are as wrong as any.
    #[error("{got}, and on record is {expected}")]
    Other { expected: String, got: String },
}

impl FramePlace {
    /// The place of the frame that has an extent's data.
    pub fn of(extent: &Extent) -> Self {
        // On a damaged record, this is the place of no frame.
        let offset = extent.offset.wrapping_sub(extent.skip.into());
        Self { at: extent.frame_at, len: extent.frame_len, offset }
    }

    /// The first byte behind it in its object.
    pub fn end(&self) -> u64 {
        u64::from(self.at) + u64::from(self.len)
    }

    /// The frame's data, if `raw` is that frame of the segment `of`: whole, of this place and length there, of this file,
    /// and of this place in it.
    pub fn check(&self, of: Header, file: Handle, raw: &Bytes) -> Result<Bytes, WrongFrame> {
        let is_here = |head: &FrameHead| head.place == of.place(self.at as usize);
        let Frame { head, data } = match decode_frame(raw) {
            Ok(frame) => frame,
            // It need not know whose data it had, but it knows its place: another's loss is none of this one.
            Err(lost @ FrameError::Lost { .. }) => {
                return Err(match FrameHead::read(raw) {
                    Ok((head, _)) if is_here(&head) => WrongFrame::Lost(lost),
                    Ok((head, _)) => self.other(file, &head, false),
                    Err(error) => WrongFrame::Damaged(error),
                });
            }
            Err(error) => return Err(WrongFrame::Damaged(error)),
        };
        let is_here = is_here(&head);
        let is_asked = head.file == file && head.offset == self.offset && head.frame_bytes() == self.len as usize;
        if is_here && is_asked { Ok(data) } else { Err(self.other(file, &head, is_here)) }
    }

    fn other(&self, file: Handle, head: &FrameHead, is_here: bool) -> WrongFrame {
        let name = |file: Handle, offset: u64, bytes: u64| {
            format!(
                "a frame of {bytes} bytes, of offset {offset} of inode {}, generation {}",
                file.ino, file.generation
            )
        };
        let of = if is_here { "" } else { ", of another segment or another place there" };
        let expected = name(file, self.offset, self.len.into());
        WrongFrame::Other { expected, got: name(head.file, head.offset, head.frame_bytes() as u64) + of }
    }
}

/// Frames of one file in one segment that lie one behind the other in its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub segment: SegmentId,
    pub file: Handle,
    /// Never empty.
    pub frames: Vec<FramePlace>,
}

/// The frames of a file's `extents`, put together into runs of at most `bytes_max` (or one frame).
pub fn runs(file: Handle, extents: &[Extent], bytes_max: u32) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for extent in extents {
        let frame = FramePlace::of(extent);
        if let Some(run) = runs.last_mut().filter(|run| run.segment == extent.segment) {
            let (first, last) = (run.frames[0], run.frames[run.frames.len() - 1]);
            if last == frame {
                continue;
            }
            if last.end() == u64::from(frame.at) && frame.end() - u64::from(first.at) <= u64::from(bytes_max) {
                run.frames.push(frame);
                continue;
            }
        }
        runs.push(Run { segment: extent.segment, file, frames: vec![frame] });
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::FilerId;
    use storage::segment::{FRAME_HEADER_BYTES, Packer, encode_frame, mend};

    const FILE: Handle = Handle { ino: 7, generation: 1 };

    fn segment(number: u64) -> SegmentId {
        SegmentId { filer: FilerId(1), number }
    }

    #[test]
    fn neighbours_are_read_together_up_to_the_limit() {
        let extent = |frame_at: u32, skip: u32| Extent {
            offset: u64::from(skip),
            len: 1,
            segment: segment(1),
            frame_at,
            frame_len: 100,
            skip,
        };
        let extents = [extent(0, 0), extent(0, 50), extent(100, 0), extent(200, 0), extent(500, 0)];
        let found = runs(FILE, &extents, 250);
        let frames: Vec<_> =
            found.iter().map(|run| run.frames.iter().map(|frame| frame.at).collect::<Vec<_>>()).collect();
        assert_eq!(frames, [vec![0, 100], vec![200], vec![500]]);
    }

    const AT: u32 = 40;

    fn header(cloudfs: u64, filer: u64, number: u64) -> Header {
        Header { cloudfs, segment: SegmentId { filer: FilerId(filer), number } }
    }

    /// A cloud, or what stands in front of it, answers with a right frame of another place.
    #[test]
    fn a_whole_frame_of_another_place_is_a_wrong_frame() {
        let data = Bytes::from_static(b"the same data everywhere");
        let raw = |of: Header, at: u32, file: Handle, offset: u64| -> Bytes {
            let (head, payload) = encode_frame(of.place(at as usize), file, offset, 5, data.clone());
            [head, payload].concat().into()
        };
        let of = header(9, 1, 1);
        let right = raw(of, AT, FILE, 4096);
        let place = FramePlace { at: AT, len: right.len() as u32, offset: 4096 };
        assert_eq!(place.check(of, FILE, &right), Ok(data.clone()));
        for (what, wrong) in [
            ("another segment", raw(header(9, 1, 2), AT, FILE, 4096)),
            ("another filer", raw(header(9, 2, 1), AT, FILE, 4096)),
            ("another CloudFS", raw(header(8, 1, 1), AT, FILE, 4096)),
            ("another place in its segment", raw(of, AT + 80, FILE, 4096)),
            ("another inode", raw(of, AT, Handle { ino: 8, generation: 1 }, 4096)),
            ("another generation", raw(of, AT, Handle { ino: 7, generation: 2 }, 4096)),
            ("another offset", raw(of, AT, FILE, 0)),
        ] {
            let got = place.check(of, FILE, &wrong);
            assert!(matches!(got, Err(WrongFrame::Other { .. })), "{what}: {got:?}");
        }
        let longer = FramePlace { len: place.len + 1, ..place };
        assert!(matches!(longer.check(of, FILE, &right), Err(WrongFrame::Other { .. })));
        assert!(matches!(place.check(of, FILE, &right.slice(..30)), Err(WrongFrame::Damaged(_))));
    }

    /// The frame of a segment of one frame that a bad disk has damaged, as it is put.
    fn lost(of: Header) -> Bytes {
        let (mut packer, first) = Packer::new(of);
        let packed = packer.pack(FILE, 4096, 5, Bytes::from_static(b"what nobody will read again"));
        let end = first.len() + packed.extent.frame_len as usize;
        let mut body = packer.seal().body.to_vec();
        body[first.len() + FRAME_HEADER_BYTES] ^= 1;
        let mended = mend(of, &body.into()).expect("a frame was there");
        assert_eq!((mended.lost_frames, first.len()), (1, AT as usize));
        mended.sealed.body.slice(first.len()..end)
    }

    /// What is lost is told from what a cloud gave wrong, by the frame of that very place alone.
    #[test]
    fn a_lost_frame_is_lost_at_its_own_place_alone() {
        let of = header(9, 1, 1);
        let raw = lost(of);
        let place = FramePlace { at: AT, len: raw.len() as u32, offset: 4096 };
        assert!(matches!(place.check(of, FILE, &raw), Err(WrongFrame::Lost(FrameError::Lost { .. }))));
        for elsewhere in [header(9, 1, 2), header(9, 2, 1), header(8, 1, 1)] {
            assert!(matches!(place.check(elsewhere, FILE, &raw), Err(WrongFrame::Other { .. })), "{elsewhere:?}");
        }
        let behind = FramePlace { at: AT + 80, ..place };
        assert!(matches!(behind.check(of, FILE, &raw), Err(WrongFrame::Other { .. })));
        let mut damaged = raw.to_vec();
        damaged[50] ^= 1;
        assert!(matches!(place.check(of, FILE, &damaged.into()), Err(WrongFrame::Damaged(_))));
    }
}
