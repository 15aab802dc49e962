use super::*;
use crate::cloudfs::Handle;
use crate::ids::Md5;
use bytes::Bytes;
use proptest::prelude::*;

const FILE: Handle = Handle { ino: 7, generation: 1 };

fn header() -> Header {
    Header { cloudfs: 42, segment: SegmentId { filer: FilerId(0xabc), number: 1 << 32 | 5 } }
}

fn packed(pieces: &[Vec<u8>]) -> (Vec<Packed>, Sealed) {
    let (mut packer, _) = Packer::new(header());
    let mut offset = 0;
    let mut all = Vec::new();
    for piece in pieces {
        all.push(packer.pack(FILE, offset, 9, Bytes::from(piece.clone())));
        offset += piece.len() as u64;
    }
    (all, packer.seal())
}

#[test]
fn a_sealed_segment_surveys_whole_and_every_frame_reads_alone() {
    let pieces = vec![
        vec![1; 5000],
        b"small".to_vec(),
        (0..70_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
    ];
    let (all, sealed) = packed(&pieces);
    assert_eq!(sealed.md5, Md5::of(&sealed.body), "hashed on the way");
    let survey = survey(&sealed.body).expect("a segment");
    assert!(survey.sealed);
    assert_eq!((survey.header, survey.frames.len()), (header(), 3));
    for (packed, piece) in all.iter().zip(&pieces) {
        let extent = packed.extent;
        let at = extent.frame_at as usize;
        let frame = decode_frame(&sealed.body.slice(at..at + extent.frame_len as usize)).expect("a frame");
        assert_eq!(&frame.data[..], &piece[..]);
        assert_eq!((frame.head.file, frame.head.offset), (FILE, extent.offset));
    }
    assert!(all[0].extent.frame_len < 1000, "a run of one byte is compressed");
}

#[test]
fn a_header_of_a_newer_version_or_of_something_else_is_refused() {
    let mut bytes = header().to_bytes();
    bytes[6] = 9;
    assert_eq!(Header::read(&bytes), Err(SurveyError::Newer { found: 9, known: SEGMENT_VERSION }));
    assert_eq!(Header::read(&[0; HEADER_BYTES]), Err(SurveyError::Foreign));
    assert_eq!(Header::read(b"FMSEG"), Err(SurveyError::Short { bytes: 5 }));
    let mut flipped = header().to_bytes();
    flipped[20] ^= 1;
    assert_eq!(Header::read(&flipped), Err(SurveyError::Damaged { what: "header", at: 0 }));
}

proptest! {
    /// A torn file keeps exactly the frames that are whole, and resuming seals it to a right segment.
    #[test]
    fn a_torn_tail_is_cut_and_whole_frames_stay(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..400), 1..8),
        cut in 0.0f64..1.0,
    ) {
        let (all, sealed) = packed(&pieces);
        let torn = sealed.body.slice(..HEADER_BYTES + ((sealed.body.len() - HEADER_BYTES) as f64 * cut) as usize);
        let found = survey(&torn).expect("the header is whole");
        let whole = all.iter().filter(|p| p.extent.frame_at as usize + p.extent.frame_len as usize <= torn.len()).count();
        prop_assert_eq!(found.frames.len(), whole);
        prop_assert!(!found.sealed);
        let resumed = Packer::resume(found.header, &torn.slice(..found.good_bytes as usize)).seal();
        prop_assert_eq!(resumed.md5, Md5::of(&resumed.body));
        let again = survey(&resumed.body).expect("a segment");
        prop_assert!(again.sealed);
        prop_assert_eq!(again.frames.len(), whole);
    }

    /// Every flipped bit of a frame is noticed.
    #[test]
    fn a_flipped_bit_is_noticed(piece in prop::collection::vec(any::<u8>(), 1..600), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (all, sealed) = packed(&[piece]);
        let start = all[0].extent.frame_at as usize;
        let mut frame = sealed.body[start..start + all[0].extent.frame_len as usize].to_vec();
        let at = at.index(frame.len());
        frame[at] ^= 1 << bit;
        prop_assert!(decode_frame(&Bytes::from(frame)).is_err());
    }

    /// Reading an open segment gives the very bytes that go to its file.
    #[test]
    fn an_open_segment_reads_as_its_file(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..6), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let (mut packer, first) = Packer::new(header());
        let mut file = first.to_vec();
        for piece in pieces {
            for part in packer.pack(FILE, 0, 0, piece.into()).parts {
                file.extend_from_slice(&part);
            }
        }
        let (mut from, mut to) = (a.index(file.len()), b.index(file.len()));
        if from > to {
            std::mem::swap(&mut from, &mut to);
        }
        prop_assert_eq!(&packer.read(from as u64, to - from).expect("packed")[..], &file[from..to]);
        prop_assert_eq!(packer.read(from as u64, file.len()).is_some(), from == 0);
    }
}
