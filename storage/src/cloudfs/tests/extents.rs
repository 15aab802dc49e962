use super::*;
use std::ops::Range;

fn at(bench: &Bench, file: Handle, range: Range<u64>) -> Vec<(u64, u32, u64, u32)> {
    let found = read::extents(&bench.kv, file.ino, range).expect("memory does not fail");
    found.iter().map(|e| (e.offset, e.len, e.segment.number, e.skip)).collect()
}

fn all(bench: &Bench, file: Handle) -> Vec<(u64, u32, u64, u32)> {
    at(bench, file, 0..u64::MAX)
}

fn live(bench: &Bench, number: u64) -> u64 {
    bench.segment(seg(number)).expect("the segment is on record").live_bytes
}

#[test]
fn a_newer_write_trims_splits_and_removes_older_ones() {
    let mut bench = Bench::new();
    let file = bench.file(ROOT, "f");
    bench.ok(write(file, &[extent(0, 100, seg(1))]));
    bench.ok(write(file, &[extent(30, 20, seg(2))]));
    assert_eq!(all(&bench, file), [(0, 30, 1, 0), (30, 20, 2, 0), (50, 50, 1, 50)], "a split");
    assert_eq!((live(&bench, 1), live(&bench, 2)), (80, 20));
    bench.ok(write(file, &[extent(20, 20, seg(3))]));
    assert_eq!(all(&bench, file), [(0, 20, 1, 0), (20, 20, 3, 0), (40, 10, 2, 10), (50, 50, 1, 50)]);
    bench.ok(write(file, &[extent(20, 40, seg(4))]));
    assert_eq!(all(&bench, file), [(0, 20, 1, 0), (20, 40, 4, 0), (60, 40, 1, 60)]);
    assert_eq!((live(&bench, 1), live(&bench, 2), live(&bench, 3), live(&bench, 4)), (60, 0, 0, 40));
    bench.ok(write(file, &[extent(20, 40, seg(5))]));
    assert_eq!((live(&bench, 4), live(&bench, 5)), (0, 40), "the very same place");
    assert_eq!(bench.attr(file).bytes, 100);
    assert_eq!(bench.totals().live_bytes, 100);
}

#[test]
fn extents_are_found_from_within_clipped_and_with_holes_between() {
    let mut bench = Bench::new();
    let file = bench.file(ROOT, "f");
    bench.ok(write(file, &[extent(10, 10, seg(1)), extent(40, 10, seg(2))]));
    assert_eq!(bench.attr(file).bytes, 50);
    assert_eq!(at(&bench, file, 15..45), [(15, 5, 1, 5), (40, 5, 2, 0)]);
    assert_eq!(at(&bench, file, 12..14), [(12, 2, 1, 2)]);
    assert_eq!(at(&bench, file, 20..40), []);
    assert_eq!(at(&bench, file, 0..10), []);
    assert_eq!(at(&bench, file, 50..90), []);
    assert_eq!(at(&bench, file, 45..45), []);
    let empty = Range { start: 45, end: 12 };
    assert_eq!(at(&bench, file, empty), []);
}

#[test]
fn cuts_and_extensions() {
    let mut bench = Bench::new();
    let file = bench.file(ROOT, "f");
    bench.ok(write(file, &[extent(0, 50, seg(1)), extent(50, 50, seg(2))]));
    bench.ok(resize(file, 30));
    assert_eq!(all(&bench, file), [(0, 30, 1, 0)]);
    assert_eq!((live(&bench, 1), live(&bench, 2)), (30, 0));
    assert_eq!((bench.attr(file).mtime_ns, bench.attr(file).ctime_ns), (bench.wall_ns, bench.wall_ns));
    bench.ok(resize(file, 200));
    assert_eq!((all(&bench, file), bench.attr(file).bytes), (vec![(0, 30, 1, 0)], 200), "a hole");
    bench.ok(resize(file, 0));
    assert_eq!((all(&bench, file), live(&bench, 1)), (vec![], 0));
}

#[test]
fn later_extents_of_one_write_win_over_earlier_ones() {
    let mut bench = Bench::new();
    let file = bench.file(ROOT, "f");
    bench.ok(write(file, &[extent(0, 30, seg(1)), extent(10, 10, seg(2)), extent(0, 15, seg(3))]));
    assert_eq!(all(&bench, file), [(0, 15, 3, 0), (15, 5, 2, 5), (20, 10, 1, 20)]);
    assert_eq!((live(&bench, 1), live(&bench, 2), live(&bench, 3)), (10, 5, 15));
}

#[test]
fn neighbours_of_one_frame_become_one_extent() {
    let mut bench = Bench::new();
    let file = bench.file(ROOT, "f");
    let next = |offset, skip| Extent { skip, ..extent(offset, 10, seg(1)) };
    bench.ok(write(file, &[next(0, 0), next(10, 10)]));
    bench.ok(write(file, &[next(20, 20), next(30, 50), Extent { frame_at: 7, ..next(40, 60) }]));
    assert_eq!(all(&bench, file), [(0, 30, 1, 0), (30, 10, 1, 50), (40, 10, 1, 60)]);
    assert_eq!(live(&bench, 1), 50);
}

#[test]
fn a_segment_that_loses_and_gains_in_one_write_lives_on() {
    let mut bench = Bench::new();
    let file = bench.file(ROOT, "f");
    bench.ok(write(file, &[extent(0, 10, seg(1))]));
    bench.ok(write(file, &[extent(0, 10, seg(2)), extent(20, 10, seg(1))]));
    bench.ok(write(file, &[extent(0, 40, seg(1))]));
    assert_eq!(live(&bench, 1), 40);
    bench.ok(stored(seg(1), [true, true], Epoch(1)));
    assert_eq!(bench.segment(seg(1)).and_then(|segment| segment.dead_since_ns), None);
}

#[test]
fn what_is_stored_gets_no_more_extents() {
    let mut bench = Bench::new();
    let file = bench.file(ROOT, "f");
    bench.ok(write(file, &[extent(0, 10, seg(1))]));
    bench.ok(stored(seg(1), [true, true], Epoch(1)));
    let OpError::Invalid(why) = bench.err(write(file, &[extent(10, 10, seg(2)), extent(20, 10, seg(1))])) else {
        panic!("refused");
    };
    assert!(why.contains("stored already"), "{why}");
    assert_eq!((all(&bench, file), live(&bench, 1)), (vec![(0, 10, 1, 0)], 10));
    assert_eq!(bench.segment(seg(2)), None, "a write is refused whole");
}

#[test]
fn writes_that_cannot_be_are_refused_whole() {
    let mut bench = Bench::new();
    let file = bench.file(ROOT, "f");
    let good = extent(0, 10, seg(1));
    let foreign = SegmentId { filer: NYC, number: 1 };
    for bad in [
        Extent { len: 0, ..good },
        Extent { frame_len: 0, ..good },
        Extent { offset: FILE_BYTES_MAX - 5, ..good },
        Extent { offset: u64::MAX, ..good },
        Extent { skip: u32::MAX, ..good },
        Extent { frame_at: u32::MAX, ..good },
        Extent { segment: foreign, ..good },
    ] {
        assert!(matches!(bench.err(write(file, &[good, bad])), OpError::Invalid(_)), "{bad:?}");
    }
    assert_eq!(bench.err(write(ROOT, &[good])), OpError::Stale);
    bench.filer = NYC;
    bench.ok(write(file, &[Extent { segment: foreign, ..good }]));
    bench.filer = AMS;
    bench.ok(write(file, &[Extent { segment: foreign, offset: 10, ..good }]));
    let before = bench.attr(file);
    bench.ok(write(file, &[]));
    assert_eq!(bench.attr(file), before, "nothing written, nothing changed");
    bench.ok(remove(ROOT, "f"));
    assert_eq!(bench.err(write(file, &[good])), OpError::Stale);
}

#[test]
fn the_time_of_a_write_is_when_it_was_written() {
    let mut bench = Bench::new();
    let file = bench.file(ROOT, "f");
    let made_ns = bench.wall_ns;
    let write_at = |mtime_ns| {
        let extents = vec![extent(0, 10, seg(1))];
        OpBody::Write { file, extents, mtime_ns, clears_set_id: false }
    };
    bench.wall_ns = 100_000;
    bench.ok(write_at(90_000));
    assert_eq!((bench.attr(file).mtime_ns, bench.attr(file).ctime_ns), (90_000, bench.wall_ns));
    bench.ok(write_at(made_ns));
    assert_eq!(bench.attr(file).mtime_ns, 90_000, "an older write whose word came late");
    bench.ok(write_at(u64::MAX));
    assert_eq!(bench.attr(file).mtime_ns, bench.wall_ns);
    let times = Times { mtime: SetTime::To { ns: 1 << 60 }, ..Times::default() };
    let change = AttrChange { times, ..AttrChange::default() };
    bench.ok(OpBody::SetAttr { file, change, guard_ctime_ns: None });
    bench.ok(write_at(100_500));
    assert_eq!(bench.attr(file).mtime_ns, bench.wall_ns.min(100_500), "a time set to the future does not stay");
}

#[test]
fn a_file_of_thousands_of_extents_is_cut_and_removed() {
    let mut bench = Bench::new();
    let file = bench.file(ROOT, "f");
    let mib = 1u32 << 20;
    let extents: Vec<Extent> = (0..4096u64)
        .map(|n| Extent { frame_at: (n % 8) as u32 * mib, ..extent(n * u64::from(mib), mib, seg(n / 8)) })
        .collect();
    bench.ok(write(file, &extents));
    assert_eq!((bench.attr(file).bytes, bench.totals().live_bytes), (4 << 30, 4 << 30));
    assert_eq!(all(&bench, file).len(), 4096);
    bench.ok(resize(file, (3 << 30) + 5));
    assert_eq!((all(&bench, file).len(), bench.totals().live_bytes), (3073, (3 << 30) + 5));
    bench.ok(remove(ROOT, "f"));
    assert_eq!((all(&bench, file).len(), bench.totals().live_bytes), (0, 0));
}
