use super::*;

/// Few enough to be met.
const TIGHT: Limits = Limits { extents_per_op_max: 4, cuts_pending_max: 2 };

/// A file of `count` extents of 10 bytes, each of a segment of its own that is stored, with holes of 10 bytes between.
fn with_extents(count: u64) -> (Bench, Handle) {
    let mut bench = Bench::within(TIGHT);
    let file = bench.file(ROOT, "f");
    for n in 0..count {
        bench.ok(write(file, &[extent(n * 20, 10, seg(n))]));
        bench.ok(stored(seg(n), [true, true], Epoch(1)));
    }
    (bench, file)
}

fn shown(bench: &Bench, file: Handle) -> Vec<(u64, u32, u64)> {
    let found = read::extents(&bench.kv, file.ino, 0..u64::MAX).expect("memory does not fail");
    found.iter().map(|e| (e.offset, e.len, e.segment.number)).collect()
}

fn live_bytes(bench: &Bench) -> u64 {
    bench.totals().live_bytes
}

fn dead(bench: &Bench) -> u64 {
    bench.totals().dead_segments
}

/// How many rows an operation changes.
fn rows_changed(bench: &Bench, body: OpBody) -> usize {
    let mut txn = Txn::new(&bench.kv, STATE);
    let op = Op { filer: bench.filer, wall_ns: bench.wall_ns, body };
    apply_op(&mut txn, &op, TIGHT).expect("memory does not fail").expect("it is not refused");
    txn.into_batch().0.len()
}

#[test]
fn a_large_file_is_removed_at_once_and_reaped_in_steps() {
    let (mut bench, file) = with_extents(11);
    assert!(rows_changed(&bench, remove(ROOT, "f")) < 10, "no more than for a small one");
    bench.ok(remove(ROOT, "f"));
    assert!(!bench.exists(file));
    assert_eq!((bench.orphans(), bench.totals().orphans), (vec![file.ino], 1));
    assert_eq!((live_bytes(&bench), dead(&bench)), (110, 0), "its segments live on");
    for (live, dead_segments) in [(70, 4), (30, 8), (0, 11)] {
        bench.ok(OpBody::Reap { ino: file.ino });
        assert_eq!((live_bytes(&bench), dead(&bench)), (live, dead_segments));
    }
    assert_eq!((bench.orphans(), bench.totals().orphans), (vec![], 0));
    assert_eq!(bench.ok(OpBody::Reap { ino: file.ino }), Answer::Done, "asked once more");
    assert_eq!(bench.ok(OpBody::Reap { ino: 12_345 }), Answer::Done);
    assert_eq!(bench.segment(seg(0)).and_then(|segment| segment.dead_since_ns).map(|ns| ns > 0), Some(true));
}

#[test]
fn every_way_to_lose_a_large_file_leaves_an_orphan() {
    for way in ["rename over", "create over", "set_attr"] {
        let (mut bench, file) = with_extents(9);
        bench.file(ROOT, "g");
        match way {
            "rename over" => bench.ok(rename(ROOT, "g", ROOT, "f")),
            "create over" => bench.ok(create_as(ROOT, "f", OnExisting::Use, Some(0))),
            _ => bench.ok(resize(file, 0)),
        };
        assert_eq!(bench.orphans(), [file.ino], "{way}");
        assert_eq!(bench.reap_all(), 3, "{way}");
        assert_eq!((live_bytes(&bench), dead(&bench)), (0, 9), "{way}");
    }
}

#[test]
fn what_was_cut_off_never_comes_back() {
    let (mut bench, file) = with_extents(10);
    bench.ok(resize(file, 25));
    let kept = vec![(0, 10, 0), (20, 5, 1)];
    assert_eq!((shown(&bench, file), bench.attr(file).bytes), (kept.clone(), 25));
    bench.ok(resize(file, 1_000));
    assert_eq!((shown(&bench, file), bench.attr(file).bytes), (kept, 1_000), "a hole");
    // Written among, over and behind what is not reaped yet.
    bench.ok(write(file, &[extent(45, 10, seg(50)), extent(500, 10, seg(50))]));
    let expected = vec![(0, 10, 0), (20, 5, 1), (45, 10, 50), (500, 10, 50)];
    assert_eq!(shown(&bench, file), expected);
    while !bench.orphans().is_empty() {
        bench.ok(OpBody::Reap { ino: file.ino });
        assert_eq!(shown(&bench, file), expected, "at every step");
    }
    assert_eq!(live_bytes(&bench), 35);
}

#[test]
fn a_write_does_not_grow_a_neighbour_that_is_cut_off() {
    let (mut bench, file) = with_extents(0);
    let next = |n: u64| Extent { skip: n as u32 * 10, frame_at: (n % 2) as u32, ..extent(n * 10, 10, seg(1)) };
    for n in 0..8 {
        bench.ok(write(file, &[next(n)]));
    }
    bench.ok(resize(file, 5));
    assert_eq!(bench.orphans(), [file.ino]);
    let follows = Extent { offset: 80, skip: 80, frame_at: 1, ..next(7) };
    bench.ok(write(file, &[follows]));
    let expected = vec![(0, 5, 1), (80, 10, 1)];
    assert_eq!(shown(&bench, file), expected);
    bench.reap_all();
    assert_eq!((shown(&bench, file), live_bytes(&bench)), (expected, 15));
}

#[test]
fn cuts_behind_cuts_wait_for_the_reaping_when_they_are_too_many() {
    let (mut bench, file) = with_extents(20);
    let cut = |bench: &mut Bench, bytes| {
        bench.ok(resize(file, 1_000));
        bench.apply(resize(file, bytes))
    };
    assert!(cut(&mut bench, 10).is_ok());
    assert!(cut(&mut bench, 30).is_ok(), "more lies behind it than one operation takes");
    assert_eq!(cut(&mut bench, 50), Err(OpError::Reaping { cuts: 2 }));
    assert_eq!(bench.attr(file).bytes, 1_000, "a refused cut changes nothing");
    assert!(cut(&mut bench, 20).is_ok(), "in the place of the later one");
    assert!(cut(&mut bench, 350).is_ok(), "little lies behind it");
    bench.ok(OpBody::Reap { ino: file.ino });
    bench.ok(OpBody::Reap { ino: file.ino });
    assert!(cut(&mut bench, 5).is_ok(), "in the place of all");
    bench.reap_all();
    assert_eq!((shown(&bench, file), live_bytes(&bench)), (vec![(0, 5, 0)], 5));
    assert!(cut(&mut bench, 50).is_ok());
}

#[test]
fn a_cut_before_what_is_reaped_already_is_reaped_from_its_place() {
    let (mut bench, file) = with_extents(20);
    bench.ok(resize(file, 200));
    bench.ok(OpBody::Reap { ino: file.ino });
    bench.ok(resize(file, 20));
    assert_eq!(shown(&bench, file), [(0, 10, 0)]);
    bench.ok(remove(ROOT, "f"));
    bench.reap_all();
    assert_eq!((live_bytes(&bench), dead(&bench)), (0, 20));
}

#[test]
fn a_write_over_too_many_extents_is_refused_and_works_in_parts() {
    let (mut bench, file) = with_extents(10);
    let before = shown(&bench, file);
    let large = extent(0, 200, seg(50));
    assert_eq!(bench.err(write(file, &[large])), OpError::TooManyExtents { extents_max: 4 });
    let (left, right) = (extent(0, 20, seg(50)), extent(180, 10, seg(50)));
    assert_eq!(bench.err(write(file, &[left, large, right])), OpError::TooManyExtents { extents_max: 4 });
    assert_eq!((shown(&bench, file), bench.segment(seg(50))), (before, None));
    for part in 0..4 {
        bench.ok(write(file, &[large.clipped(part * 50..(part + 1) * 50).expect("it has bytes there")]));
    }
    assert_eq!((shown(&bench, file), live_bytes(&bench), dead(&bench)), (vec![(0, 200, 50)], 200, 10));
    // What is cut off lies in the way of a write as well, also behind the file's end.
    let (mut bench, file) = with_extents(10);
    bench.ok(resize(file, 0));
    assert_eq!(bench.err(write(file, &[large])), OpError::TooManyExtents { extents_max: 4 });
    bench.reap_all();
    bench.ok(write(file, &[large]));
}
