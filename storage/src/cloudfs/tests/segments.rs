use super::*;

const BOTH: [bool; 2] = [true, true];
const ONLY_A: [bool; 2] = [true, false];
const ONLY_B: [bool; 2] = [false, true];

fn deleted(segment: SegmentId, done: [bool; 2], epoch: Epoch) -> OpBody {
    OpBody::Deleted { segment, done, epoch }
}

fn repaired(segment: SegmentId, kind: MissKind, epoch: Epoch) -> OpBody {
    OpBody::Repaired { cloud: CloudId::B, segment, kind, epoch }
}

fn reached(cloud: CloudId, epoch: Epoch) -> OpBody {
    OpBody::Reached { cloud, epoch, reached: true }
}

/// A CloudFS with one file of 10 bytes in segment 1.
fn with_file() -> (Bench, Handle) {
    let mut bench = Bench::new();
    let file = bench.file(ROOT, "f");
    bench.ok(write(file, &[extent(0, 10, seg(1))]));
    (bench, file)
}

fn copies(bench: &Bench, number: u64) -> [Copy; 2] {
    bench.segment(seg(number)).and_then(|segment| segment.object).expect("the segment is released").copies
}

fn dead(bench: &Bench) -> Vec<SegmentId> {
    let found = read::dead_segments(&bench.kv, u64::MAX, 100).expect("memory does not fail");
    found.into_iter().map(|(id, _)| id).collect()
}

#[test]
fn healthy_clouds_must_both_give_receipts_under_the_current_epoch() {
    let (mut bench, _) = with_file();
    let stale = OpError::StaleEpoch { got: Epoch(0), current: Epoch(1) };
    assert_eq!(bench.err(stored(seg(1), BOTH, Epoch(0))), stale);
    for (copies, cloud) in [(ONLY_A, CloudId::B), (ONLY_B, CloudId::A), ([false; 2], CloudId::A)] {
        let missing = OpError::ReceiptMissing { cloud, state: CloudState::Healthy };
        assert_eq!(bench.err(stored(seg(1), copies, Epoch(1))), missing);
    }
    assert_eq!(bench.segment(seg(1)).and_then(|segment| segment.object), None, "not released");
    bench.ok(stored(seg(1), BOTH, Epoch(1)));
    assert_eq!(copies(&bench, 1), [Copy::Stored; 2]);
    bench.ok(stored(seg(1), BOTH, Epoch(1)));
    let other = OpBody::Stored { segment: seg(1), bytes: 1_000, md5: md5_of(seg(2)), copies: BOTH, epoch: Epoch(1) };
    assert!(matches!(bench.err(other), OpError::Invalid(_)));
}

#[test]
fn a_failed_cloud_may_be_left_out_and_its_miss_is_recorded_with_the_release() {
    let (mut bench, _) = with_file();
    bench.fail_standby();
    let missing = OpError::ReceiptMissing { cloud: CloudId::A, state: CloudState::Healthy };
    assert_eq!(bench.err(stored(seg(1), ONLY_B, Epoch(2))), missing);
    bench.ok(stored(seg(1), ONLY_A, Epoch(2)));
    let since_ns = bench.wall_ns;
    assert_eq!(copies(&bench, 1), [Copy::Stored, Copy::Missed]);
    let row = Miss { cloud: CloudId::B, segment: seg(1), kind: MissKind::Put, since_ns };
    assert_eq!(bench.missed(CloudId::B), [row]);
    assert_eq!(read::oldest_miss(&bench.kv, CloudId::B).expect("memory"), Some(row));
    assert_eq!(read::oldest_miss(&bench.kv, CloudId::A).expect("memory"), None);
    assert_eq!(bench.roles().clouds[1].missed_puts, 1);
    bench.ok(stored(seg(1), ONLY_A, Epoch(2)));
    assert_eq!(bench.missed(CloudId::B).len(), 1, "said again");
    bench.ok(stored(seg(1), BOTH, Epoch(2)));
    assert_eq!((copies(&bench, 1), bench.missed(CloudId::B)), ([Copy::Stored; 2], vec![]), "a receipt that came late");
}

#[test]
fn the_oldest_miss_is_the_oldest_and_not_the_first_by_name() {
    let mut bench = Bench::new();
    let file = bench.file(ROOT, "f");
    bench.fail_standby();
    for number in [7, 3, 5] {
        bench.ok(write(file, &[extent(number * 100, 10, seg(number))]));
        bench.ok(stored(seg(number), ONLY_A, Epoch(2)));
    }
    let oldest = |bench: &Bench| read::oldest_miss(&bench.kv, CloudId::B).expect("memory").map(|row| row.segment);
    assert_eq!(oldest(&bench), Some(seg(7)));
    bench.ok(repaired(seg(7), MissKind::Put, Epoch(2)));
    assert_eq!(oldest(&bench), Some(seg(3)));
    let page = read::missed(&bench.kv, CloudId::B, Some(seg(3)), 10).expect("memory");
    assert_eq!(page.len(), 1);
    let segments = read::segments(&bench.kv, Some(seg(3)), 10).expect("memory");
    assert_eq!(segments.iter().map(|(id, _)| id.number).collect::<Vec<_>>(), [5, 7]);
}

#[test]
fn the_last_byte_gone_makes_a_segment_dead_for_good() {
    let (mut bench, file) = with_file();
    bench.ok(stored(seg(1), BOTH, Epoch(1)));
    bench.ok(write(file, &[extent(0, 5, seg(2))]));
    assert_eq!(dead(&bench), []);
    bench.ok(write(file, &[extent(0, 10, seg(2))]));
    let since_ns = bench.wall_ns;
    assert_eq!(bench.segment(seg(1)).and_then(|segment| segment.dead_since_ns), Some(since_ns));
    assert_eq!(dead(&bench), [seg(1)]);
    assert_eq!(read::dead_segments(&bench.kv, since_ns, 10).expect("memory"), [], "not before its time");
    assert_eq!(read::dead_segments(&bench.kv, since_ns + 1, 10).expect("memory"), [(seg(1), since_ns)]);
    assert!(matches!(bench.err(write(file, &[extent(0, 5, seg(1))])), OpError::Invalid(_)));
    assert_eq!(bench.totals(), Totals { inodes: 2, live_bytes: 10, segments: 2, dead_segments: 1, orphans: 0 });
    bench.ok(deleted(seg(1), BOTH, Epoch(1)));
    assert_eq!((bench.segment(seg(1)), dead(&bench)), (None, vec![]));
    assert_eq!(bench.err(deleted(seg(1), BOTH, Epoch(1))), OpError::NoSegment(seg(1)));
}

#[test]
fn a_segment_that_nothing_refers_to_is_dead_when_it_is_stored() {
    let (mut bench, _) = with_file();
    bench.ok(remove(ROOT, "f"));
    assert_eq!(dead(&bench), [], "it has no object to delete");
    bench.ok(stored(seg(1), BOTH, Epoch(1)));
    bench.ok(stored(seg(9), BOTH, Epoch(1)));
    assert_eq!(dead(&bench), [seg(1), seg(9)], "the second was not even on record");
}

#[test]
fn only_what_was_never_put_and_nothing_refers_to_is_abandoned() {
    let (mut bench, file) = with_file();
    let abandon = |number| OpBody::Abandon { segment: seg(number) };
    assert_eq!(bench.err(abandon(1)), OpError::NoSegment(seg(1)), "a file refers to it");
    assert_eq!(bench.err(abandon(2)), OpError::NoSegment(seg(2)), "not on record");
    bench.ok(write(file, &[extent(0, 10, seg(2))]));
    bench.filer = NYC;
    assert!(matches!(bench.err(abandon(1)), OpError::Invalid(_)), "another filer's");
    bench.filer = AMS;
    bench.ok(abandon(1));
    assert_eq!(bench.segment(seg(1)), None);
    bench.ok(stored(seg(2), BOTH, Epoch(1)));
    bench.ok(remove(ROOT, "f"));
    assert_eq!(bench.err(abandon(2)), OpError::NoSegment(seg(2)), "it has objects");
}

#[test]
fn what_a_removed_filer_had_staged_is_buried_when_nothing_refers_to_it() {
    let (mut bench, file) = with_file();
    let bury = |number| OpBody::Bury { segment: seg(number) };
    bench.ok(write(file, &[extent(0, 5, seg(2))]));
    assert!(matches!(bench.err(bury(1)), OpError::Refused(_)), "its filer is a member");
    let mut removed = mesh::kv::Batch::default();
    removed.put(STATE, mesh::consensus::removed_key(AMS), Vec::new());
    block_on(bench.kv.write(removed, Durability::Buffered)).expect("memory does not fail");
    bench.filer = NYC;
    assert_eq!(bench.err(bury(1)), OpError::NoSegment(seg(1)), "a file refers to it");
    assert_eq!(bench.err(bury(7)), OpError::NoSegment(seg(7)), "not on record");
    bench.ok(remove(ROOT, "f"));
    bench.ok(bury(1));
    assert_eq!(bench.err(bury(1)), OpError::NoSegment(seg(1)), "it is dead already");
    assert_eq!(dead(&bench), [seg(1)], "what it may have put is deleted like any other");
    bench.ok(deleted(seg(1), BOTH, Epoch(1)));
    assert_eq!(bench.segment(seg(1)), None);
}

#[test]
fn a_missed_put_becomes_a_missed_delete_of_the_same_age() {
    let (mut bench, file) = with_file();
    bench.fail_standby();
    bench.ok(stored(seg(1), ONLY_A, Epoch(2)));
    let since_ns = bench.wall_ns;
    assert_eq!(bench.err(deleted(seg(1), BOTH, Epoch(2))), OpError::NoSegment(seg(1)), "not dead");
    bench.ok(remove(ROOT, "f"));
    let stale = OpError::StaleEpoch { got: Epoch(1), current: Epoch(2) };
    assert_eq!(bench.err(deleted(seg(1), BOTH, Epoch(1))), stale);
    let missing = OpError::ReceiptMissing { cloud: CloudId::A, state: CloudState::Healthy };
    assert_eq!(bench.err(deleted(seg(1), ONLY_B, Epoch(2))), missing);
    bench.ok(deleted(seg(1), ONLY_A, Epoch(2)));
    assert_eq!(bench.segment(seg(1)), None);
    let row = Miss { cloud: CloudId::B, segment: seg(1), kind: MissKind::Delete, since_ns };
    assert_eq!(bench.missed(CloudId::B), [row]);
    let status = &bench.roles().clouds[1];
    assert_eq!((status.missed_puts, status.missed_deletes), (0, 1));
    bench.ok(repaired(seg(1), MissKind::Put, Epoch(2)));
    assert_eq!(bench.missed(CloudId::B), [row], "a put that was under way does not count as the delete");
    let again = bench.file(ROOT, "g");
    assert!(matches!(bench.err(write(again, &[extent(0, 1, seg(1))])), OpError::Invalid(_)), "it was deleted");
    // A word that was said twice: the object may be there again, so it is deleted once more.
    bench.ok(stored(seg(1), ONLY_A, Epoch(2)));
    assert_eq!((dead(&bench), bench.missed(CloudId::B)[0].kind), (vec![seg(1)], MissKind::Put));
    bench.ok(deleted(seg(1), ONLY_A, Epoch(2)));
    bench.ok(repaired(seg(1), MissKind::Delete, Epoch(2)));
    assert_eq!(bench.missed(CloudId::B), []);
    assert!(!bench.exists(file));
}

/// Litter is on record as a dead segment, and the cloud that keeps it lacks nothing.
#[test]
fn what_a_cloud_refuses_to_delete_is_dead_again_and_no_longer_missed() {
    let (mut bench, _) = with_file();
    let kept = |number, epoch| OpBody::Kept { cloud: CloudId::B, segment: seg(number), epoch };
    bench.ok(stored(seg(1), BOTH, Epoch(1)));
    bench.fail_standby();
    let other = bench.file(ROOT, "g");
    bench.ok(write(other, &[extent(0, 10, seg(2))]));
    bench.ok(stored(seg(2), ONLY_A, Epoch(2)));
    bench.ok(remove(ROOT, "f"));
    bench.ok(deleted(seg(1), ONLY_A, Epoch(2)));
    bench.ok(reached(CloudId::B, Epoch(2)));
    bench.ok(OpBody::StartResync { cloud: CloudId::B, epoch: Epoch(2), live: vec![AMS] });
    let stale = OpError::StaleEpoch { got: Epoch(2), current: Epoch(3) };
    assert_eq!(bench.err(kept(1, Epoch(2))), stale);
    bench.ok(kept(2, Epoch(3)));
    let put = bench.missed(CloudId::B).iter().filter(|miss| miss.kind == MissKind::Put).count();
    assert_eq!((put, dead(&bench)), (1, vec![]), "a put ends with a receipt alone");
    bench.ok(kept(1, Epoch(3)));
    let since_ns = Some(bench.wall_ns);
    let again = Segment { live_bytes: 0, object: None, dead_since_ns: since_ns };
    assert_eq!((bench.segment(seg(1)), dead(&bench)), (Some(again), vec![seg(1)]), "and its grace begins anew");
    bench.ok(kept(1, Epoch(3)));
    assert_eq!(dead(&bench), [seg(1)], "said again");
    assert!(matches!(bench.err(write(other, &[extent(0, 1, seg(1))])), OpError::Invalid(_)), "dead is final");
    let finish = OpBody::FinishResync { cloud: CloudId::B, epoch: Epoch(3) };
    assert!(matches!(bench.err(finish.clone()), OpError::Refused(_)), "the put is missed");
    bench.ok(repaired(seg(2), MissKind::Put, Epoch(3)));
    bench.ok(finish);
    assert_eq!(bench.roles().clouds[1].state, CloudState::Healthy);
    let missing = OpError::ReceiptMissing { cloud: CloudId::B, state: CloudState::Healthy };
    assert_eq!(bench.err(deleted(seg(1), ONLY_A, Epoch(4))), missing);
    bench.ok(deleted(seg(1), BOTH, Epoch(4)));
    assert_eq!((bench.segment(seg(1)), dead(&bench)), (None, vec![]));
}

#[test]
fn a_resync_from_trip_to_failback() {
    let (mut bench, file) = with_file();
    bench.ok(stored(seg(1), BOTH, Epoch(1)));
    bench.ok(trip(CloudId::A, Epoch(1)));
    let roles = bench.roles();
    assert_eq!((roles.active, roles.clouds[0].state, roles.epoch), (CloudId::B, CloudState::Failed, Epoch(2)));
    bench.ok(write(file, &[extent(10, 10, seg(2))]));
    bench.ok(stored(seg(2), ONLY_B, Epoch(2)));
    let stale = OpError::StaleEpoch { got: Epoch(1), current: Epoch(2) };
    assert_eq!(bench.err(trip(CloudId::A, Epoch(1))), stale, "a second filer's trip of the same failure");
    let start = |epoch, live: &[FilerId]| OpBody::StartResync { cloud: CloudId::A, epoch, live: live.to_vec() };
    bench.ok(reached(CloudId::A, Epoch(2)));
    let OpError::Refused(why) = bench.err(start(Epoch(2), &[AMS, NYC])) else { panic!("refused") };
    assert!(why.contains(&NYC.to_string()) && !why.contains(&AMS.to_string()), "{why}");
    bench.filer = NYC;
    assert!(matches!(bench.err(start(Epoch(2), &[AMS])), OpError::Refused(_)), "the proposer does not reach it");
    bench.ok(reached(CloudId::A, Epoch(2)));
    bench.ok(OpBody::Reached { cloud: CloudId::A, epoch: Epoch(2), reached: false });
    assert!(matches!(bench.err(start(Epoch(2), &[AMS, NYC])), OpError::Refused(_)));
    bench.ok(reached(CloudId::A, Epoch(2)));
    bench.ok(start(Epoch(2), &[AMS, NYC]));
    assert_eq!(bench.roles().clouds[0].state, CloudState::Resyncing);
    assert_eq!(bench.roles().clouds[0].reached_by, []);
    let activate = |epoch| OpBody::Activate { to: CloudId::A, epoch, by: "auto".into() };
    assert!(matches!(bench.err(activate(Epoch(3))), OpError::Refused(_)));
    let finish = OpBody::FinishResync { cloud: CloudId::A, epoch: Epoch(3) };
    let OpError::Refused(why) = bench.err(finish.clone()) else { panic!("refused") };
    assert!(why.contains("1 puts"), "{why}");
    let put = OpBody::Repaired { cloud: CloudId::A, segment: seg(2), kind: MissKind::Put, epoch: Epoch(3) };
    bench.ok(put);
    bench.ok(finish);
    bench.ok(activate(Epoch(4)));
    let roles = bench.roles();
    assert_eq!((roles.active, roles.epoch), (CloudId::A, Epoch(5)));
    assert!(roles.clouds.iter().all(|status| status.state == CloudState::Healthy && status.why.is_none()));
    let epochs: Vec<u64> = bench.decisions().iter().map(|past| past.epoch.0).collect();
    assert_eq!(epochs, [5, 4, 3, 2], "newest first");
    assert!(bench.decisions().iter().all(|past| past.carried));
}
