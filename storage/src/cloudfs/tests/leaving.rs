use super::*;
use mesh::record::{self, RecordError};

const LEAVE: OpBody = OpBody::Leave { leaver: AMS };
const WANTED: OpBody = OpBody::Stay { leaver: AMS, alone_with: None };

fn holds(segment: SegmentId) -> OpBody {
    OpBody::Stay { leaver: AMS, alone_with: Some(segment) }
}

fn leavers(bench: &Bench) -> Vec<FilerId> {
    leaving(&bench.kv).expect("memory does not fail").into_iter().collect()
}

/// A CloudFS with one file of 10 bytes in segment 1.
fn with_file() -> (Bench, Handle) {
    let mut bench = Bench::new();
    let file = bench.file(ROOT, "f");
    bench.ok(write(file, &[extent(0, 10, seg(1))]));
    (bench, file)
}

#[test]
fn what_a_leaving_filer_alone_holds_only_gets_less() {
    let (mut bench, file) = with_file();
    bench.filer = NYC;
    bench.ok(LEAVE);
    bench.ok(LEAVE);
    assert_eq!((leavers(&bench), is_leaving(&bench.kv, NYC).expect("memory")), (vec![AMS], false));
    let more = [write(file, &[extent(10, 10, seg(1))]), write(file, &[extent(10, 10, seg(2))])];
    // Not by another filer either: the segment is on record.
    assert_eq!(bench.err(more[0].clone()), OpError::Leaving(AMS));
    bench.filer = AMS;
    for write in more {
        assert_eq!(bench.err(write), OpError::Leaving(AMS));
    }
    assert_eq!(bench.attr(file).bytes, 10, "nothing of it is seen");
    // It says where it has put what it has, changes the tree, and takes away.
    bench.ok(stored(seg(1), [true, true], bench.roles().epoch));
    bench.ok(mkdir(ROOT, "d"));
    bench.ok(remove(ROOT, "f"));
    // Others write as ever.
    bench.filer = NYC;
    let file = bench.file(ROOT, "g");
    bench.ok(write(file, &[extent(0, 10, SegmentId { filer: NYC, number: 1 })]));
}

#[test]
fn a_filer_stays_while_it_holds_data_alone_or_when_nobody_removes_it_any_more() {
    let (mut bench, file) = with_file();
    bench.ok(write(file, &[extent(10, 10, SegmentId { filer: AMS, number: 2 })]));
    bench.filer = NYC;
    bench.ok(LEAVE);
    bench.ok(stored(seg(1), [true, true], bench.roles().epoch));
    for held in [seg(1), seg(3), SegmentId { filer: NYC, number: 2 }] {
        assert_eq!(bench.err(holds(held)), OpError::NoSegment(held), "whoever looked later may have found nothing");
    }
    assert_eq!(leavers(&bench), [AMS]);
    bench.ok(holds(seg(2)));
    assert_eq!(leavers(&bench), []);
    bench.ok(LEAVE);
    bench.ok(WANTED);
    bench.ok(WANTED);
    assert_eq!(leavers(&bench), []);
    bench.filer = AMS;
    bench.ok(write(file, &[extent(20, 10, seg(2))]));
}

#[test]
fn an_older_program_reads_all_but_what_it_does_not_know_and_stops_there() {
    let op = |body| encode_op(&Op { filer: AMS, wall_ns: 1, body });
    let known = 2;
    assert!(record::decode::<Op>(known, &op(mkdir(ROOT, "d"))).is_ok());
    for newer in [LEAVE, WANTED] {
        let read = record::decode::<Op>(known, &op(newer));
        assert!(matches!(read, Err(RecordError::Newer { found: 3, .. })), "{read:?}");
    }
}
