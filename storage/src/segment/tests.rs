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
    let found = survey(&header(), &sealed.body);
    assert!(found.sealed && found.frames.iter().all(|frame| frame.state == FrameState::Whole));
    assert_eq!((found.frames.len(), found.frames_end as u64), (3, sealed.tail_at));
    assert_eq!(check_object(&header(), &sealed.body), Ok(()));
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
    assert_eq!(Header::read(&bytes), Err(SurveyError::Version { found: 9, known: SEGMENT_VERSION }));
    assert_eq!(Header::read(&[0; HEADER_BYTES]), Err(SurveyError::Foreign));
    assert_eq!(Header::read(b"FMSEG"), Err(SurveyError::Short { bytes: 5 }));
    let mut flipped = header().to_bytes();
    flipped[20] ^= 1;
    assert_eq!(Header::read(&flipped), Err(SurveyError::Damaged { what: "header", at: 0 }));
}

#[test]
fn an_index_is_right_for_its_own_segment_alone() {
    let (_, sealed) = packed(&[vec![1; 100], vec![2; 100]]);
    let others = [
        Header { cloudfs: 43, ..header() },
        Header { segment: SegmentId { filer: FilerId(0xabd), ..header().segment }, ..header() },
        Header { segment: SegmentId { number: 6, ..header().segment }, ..header() },
    ];
    for other in others {
        assert!(!survey(&other, &sealed.body).sealed, "{other:?}");
    }
}

/// A client may store a file that is full of frames: a copy of some filer's staging. None of them is ever taken for the
/// segment's own, wherever the search for the next frame leads.
#[test]
fn frames_that_clients_stored_as_data_are_none_of_the_segment() {
    let noise =
        |seed: u32| (0..300u32).map(|i| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let pieces: Vec<Vec<u8>> = (0..4).map(noise).collect();
    let of_other = {
        let segment = SegmentId { filer: FilerId(1), number: 7 };
        let (mut packer, _) = Packer::new(Header { cloudfs: 42, segment });
        pieces.iter().for_each(|piece| drop(packer.pack(FILE, 0, 9, Bytes::from(piece.clone()))));
        packer.seal().body
    };
    // The same frames that this segment begins with, as if a client had read the filer's disk.
    let own = packed(&pieces).1.body;
    for stored in [of_other, own] {
        let mut all = pieces.clone();
        all.extend([stored.to_vec(), b"the last".to_vec()]);
        let (packed, sealed) = packed(&all);
        let holder = packed[4].extent;
        for unsealed in [sealed.body.slice(..sealed.tail_at as usize), sealed.body.clone()] {
            let mut bytes = unsealed.to_vec();
            // Its header is gone, so that the search goes through its data.
            bytes[holder.frame_at as usize..][..20].fill(0xee);
            let mended = mend(header(), &bytes.into()).expect("frames are left");
            let found = survey(&header(), &mended.sealed.body);
            let whole: Vec<_> = found.frames.iter().filter(|frame| frame.state == FrameState::Whole).collect();
            assert_eq!(whole.len(), 5);
            assert_eq!(whole[4].range.start, packed[5].extent.frame_at as usize);
            assert_eq!(mended.damaged.len(), 1);
            let range = u64::from(holder.frame_at)..u64::from(holder.frame_at + holder.frame_len);
            assert_eq!(mended.damaged[0].range, range);
        }
    }
}

#[test]
fn a_lost_frame_says_what_it_was() {
    let pieces: Vec<Vec<u8>> = (1..4u8).map(|i| vec![i; 100]).collect();
    let (all, sealed) = packed(&pieces);
    let lost = all[1].extent;
    let (from, to) = (lost.frame_at as usize, (lost.frame_at + lost.frame_len) as usize);
    for at in [from + 20, from + 60, to - 1] {
        let mut bytes = sealed.body.to_vec();
        bytes[at] ^= 4;
        assert_eq!(
            check_object(&header(), &bytes),
            Err(SurveyError::Damaged { what: "frame", at: u64::from(lost.frame_at) })
        );
        let mended = mend(header(), &bytes.into()).expect("frames are left");
        let (file, place) = mended.damaged[0].file.clone().expect("the index says so");
        assert_eq!((file, place), (FILE, 100..200));
        assert!(!mended.tail, "the index is right as it is");
        let frame = decode_frame(&mended.sealed.body.slice(from..to));
        assert_eq!(frame, Err(FrameError::Lost { bytes: 100, file: FILE, offset: 100 }));
        assert_eq!(check_object(&header(), &mended.sealed.body), Ok(()), "the object is right, and says what it lacks");
        assert_eq!(mended.oldest_wall_ns, Some(9));
    }
}

/// Found by reading: a flip that made the only frame longer than its file was taken for the torn end of a write, and the
/// segment, though its frame was acknowledged, for one that never had any.
#[test]
fn a_flipped_bit_of_a_frames_length_is_set_right() {
    for pieces in [vec![vec![7; 100]], vec![vec![7; 5000]], vec![vec![1; 300], vec![2; 90], vec![3; 400]]] {
        let (all, sealed) = packed(&pieces);
        let open = sealed.body.slice(..sealed.tail_at as usize);
        let lengths = all.iter().flat_map(|packed| frame::LENGTH.map(|at| packed.extent.frame_at as usize + at));
        for (at, bit) in lengths.flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            for file in [&open, &sealed.body] {
                let mut bytes = file.to_vec();
                bytes[at] ^= 1 << bit;
                assert!(check_object(&header(), &bytes).is_err(), "as it is, it is wrong");
                let mended = mend(header(), &bytes.clone().into()).expect("its frames are there");
                assert_eq!(mended.sealed.body, sealed.body, "byte {at}, bit {bit}");
                assert_eq!((mended.lengths_set_right, mended.lost_frames, mended.cut_bytes), (1, 0, 0));
                write_in_part(&mut bytes, &mended, usize::MAX - 1, 0);
                assert_eq!(bytes, sealed.body);
            }
        }
        // What is torn in truth has no such bit.
        let torn = mend(header(), &open.slice(..open.len() - 1));
        assert_eq!(torn.map_or(0, |mended| mended.lengths_set_right), 0);
    }
}

/// Found by a review: the length of a lost frame was set right, and the frame counted as whole.
#[test]
fn a_lost_frame_of_wrong_length_is_lost_still() {
    let (all, sealed) = packed(&[vec![1; 100], vec![2; 100]]);
    let (last, len) = (all[1].extent.frame_at as usize, all[1].extent.frame_len as usize);
    let mut bytes = sealed.body.to_vec();
    bytes[last + len - 1] ^= 1;
    let lost = mend(header(), &bytes.into()).expect("a frame is left").sealed;
    for file in [lost.body.slice(..lost.tail_at as usize), lost.body.clone()] {
        let mut bytes = file.to_vec();
        bytes[last + frame::LENGTH.start + 1] ^= 4;
        assert!(check_object(&header(), &bytes).is_err());
        let mended = mend(header(), &bytes.into()).expect("a frame is left");
        assert_eq!((mended.sealed.body, mended.lost_frames, mended.lengths_set_right), (lost.body.clone(), 1, 0));
    }
}

/// Writes what mending wants written, as far as `upto` of the steps, and the step after that in part.
fn write_in_part(file: &mut Vec<u8>, mended: &Mended, upto: usize, torn: usize) {
    let tail_at = mended.sealed.tail_at as usize;
    let mut steps: Vec<(usize, &[u8])> = mended.patches.iter().map(|(at, part)| (*at as usize, &part[..])).collect();
    let patches = steps.len();
    if mended.tail {
        steps.push((tail_at, &mended.sealed.body[tail_at..]));
    }
    for (step, (at, part)) in steps.into_iter().enumerate().take(upto + 1) {
        let part = if step == upto { &part[..torn.min(part.len())] } else { part };
        if step == patches {
            file.truncate(tail_at);
            file.extend_from_slice(part);
        } else {
            file[at..at + part.len()].copy_from_slice(part);
        }
    }
}

/// Writes some of what mending wants written, as a crash leaves it that takes back what was not synced, in whatever order.
fn write_some(file: &mut Vec<u8>, mended: &Mended, which: u8) {
    let is_left = |step: usize| which >> (step % 8) & 1 == 1;
    for (_, (at, part)) in mended.patches.iter().enumerate().filter(|(step, _)| is_left(*step)) {
        file[*at as usize..*at as usize + part.len()].copy_from_slice(part);
    }
    if mended.tail && is_left(mended.patches.len()) {
        file.truncate(mended.sealed.tail_at as usize);
        file.extend_from_slice(&mended.sealed.body[mended.sealed.tail_at as usize..]);
    }
}

/// Of a frame, before its codec.
const MAGIC_BYTES: usize = 4;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1024, ..ProptestConfig::default() })]

    /// Whatever is torn off the end and whatever bits are flipped: every whole frame survives at its place, nothing else
    /// appears, and giving up at any step of mending changes nothing of the outcome.
    #[test]
    fn whole_frames_survive_and_nothing_else_appears(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..400), 1..8),
        is_sealed in any::<bool>(),
        cut in prop_oneof![Just(1.0f64), 0.0f64..1.0],
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 0..6),
        (upto, torn, which) in (0usize..8, 0usize..80, any::<u8>()),
    ) {
        let (all, sealed) = packed(&pieces);
        let whole_file = if is_sealed { sealed.body.clone() } else { sealed.body.slice(..sealed.tail_at as usize) };
        let mut file = whole_file[..(whole_file.len() as f64 * cut) as usize].to_vec();
        let mut flipped = std::collections::BTreeMap::new();
        for (at, bit) in flips {
            if !file.is_empty() {
                *flipped.entry(at.index(file.len())).or_insert(0u8) ^= 1 << bit;
            }
        }
        flipped.iter().for_each(|(at, bits)| file[*at] ^= bits);
        let range = |packed: &Packed| {
            let at = packed.extent.frame_at as usize;
            at..at + packed.extent.frame_len as usize
        };
        let is_whole = |packed: &Packed| {
            range(packed).end <= file.len() && flipped.range(range(packed)).all(|(_, bits)| *bits == 0)
        };
        // One flipped bit of its length, and nothing else: the checksum tells which.
        let may_be_right = |packed: &Packed| {
            let mut bits = flipped.range(range(packed)).filter(|(_, bits)| **bits != 0);
            let (first, second) = (bits.next(), bits.next());
            let in_length = first.is_some_and(|(at, bits)| {
                bits.count_ones() == 1 && frame::LENGTH.contains(&(at - range(packed).start))
            });
            range(packed).end <= file.len() && in_length && second.is_none()
        };
        let whole: Vec<_> = all.iter().filter(|packed| is_whole(packed)).map(range).collect();
        let right: Vec<_> = all.iter().filter(|packed| is_whole(packed) || may_be_right(packed)).map(range).collect();
        let Some(mended) = mend(header(), &file.clone().into()) else {
            prop_assert!(whole.is_empty());
            return Ok(());
        };
        let body = &mended.sealed.body;
        prop_assert_eq!(mended.sealed.md5, Md5::of(body));
        prop_assert_eq!(check_object(&header(), body), Ok(()));
        let found = survey(&header(), body).frames.into_iter();
        let found: Vec<_> = found.filter(|frame| frame.state == FrameState::Whole).map(|frame| frame.range).collect();
        prop_assert!(whole.iter().all(|range| found.contains(range)));
        prop_assert!(found.iter().all(|range| right.contains(range)));
        for (packed, piece) in all.iter().zip(&pieces) {
            let read = body.get(range(packed)).map(|raw| decode_frame(&Bytes::copy_from_slice(raw)));
            match read {
                Some(Ok(frame)) if is_whole(packed) || may_be_right(packed) => prop_assert_eq!(&frame.data[..], &piece[..]),
                Some(Ok(_)) => prop_assert!(false, "a damaged frame reads"),
                Some(Err(_)) | None => prop_assert!(!is_whole(packed)),
            }
        }
        if is_sealed && cut == 1.0 && whole.len() == all.len() {
            prop_assert_eq!(body, &sealed.body, "what no frame has lost is as it was");
        }
        let mut partly = file.clone();
        write_in_part(&mut partly, &mended, upto, torn);
        let again = mend(header(), &partly.into()).expect("it had frames before").sealed.body;
        if again != *body {
            // Up to its codec the header of a lost frame is that of a whole one: a torn write of it may give back what a flip
            // has taken there. Then the frame is whole again, and right.
            prop_assert!(torn <= MAGIC_BYTES, "another outcome after a torn write of {} bytes", torn);
            for (packed, piece) in all.iter().zip(&pieces) {
                match again.get(range(packed)).map(|raw| decode_frame(&Bytes::copy_from_slice(raw))) {
                    Some(Ok(frame)) => prop_assert_eq!(&frame.data[..], &piece[..]),
                    Some(Err(_)) | None => prop_assert!(!is_whole(packed)),
                }
            }
        }
        let mut some = file.clone();
        write_some(&mut some, &mended, which);
        prop_assert_eq!(&mend(header(), &some.into()).expect("it had frames before").sealed.body, body);
        let mut wholly = file;
        write_in_part(&mut wholly, &mended, usize::MAX - 1, 0);
        prop_assert_eq!(&wholly[..], &body[..]);
        let last = mend(header(), &wholly.into()).expect("it had frames before");
        prop_assert!(last.patches.is_empty() && !last.tail && last.damaged.is_empty() && last.cut_bytes == 0);
    }

    /// No byte of a sealed segment is without its checksum.
    #[test]
    fn any_flipped_bit_of_an_object_is_noticed(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..6),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut bytes = packed(&pieces).1.body.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(check_object(&header(), &bytes).is_err(), "byte {} of {}", at, bytes.len());
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
