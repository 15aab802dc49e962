use super::*;
use crate::cloudfs::MissKind;
use CloudState::*;
use mesh::clock::SeededRandom;

mod random;
mod table;
mod world;
use world::World;

const A: CloudId = CloudId::A;
const FILERS: [FilerId; 3] = [FilerId(1), FilerId(2), FilerId(3)];

fn segment(filer: u64, number: u64) -> SegmentId {
    SegmentId { filer: FilerId(filer), number }
}

fn missed_put(filer: u64, number: u64) -> Miss {
    Miss { cloud: A, segment: segment(filer, number), kind: MissKind::Put, since_ns: 0 }
}

/// Cloud B is active and healthy.
fn roles(epoch: u64, state: CloudState) -> Roles {
    Roles::new(Epoch(epoch), CloudId::B, A, [state, Healthy], 0)
}

#[test]
fn each_filer_drains_what_it_packed_and_the_leader_what_the_dead_packed() {
    // Filer 9 has died; filer 2 leads.
    let mut world = World::new(Settings::default(), &FILERS, Some(FILERS[1]));
    for filer in [1, 2, 3, 9] {
        world.miss(filer, 0..100);
    }
    world.start(1);
    world.run_for(60_000);
    assert!(world.log.is_empty());
    for (row, by) in &world.repaired_by {
        let expected = if row.filer == FilerId(9) { FILERS[1] } else { row.filer };
        assert_eq!(by, &[expected], "{row:?}");
    }
    assert_eq!(FILERS.map(|filer| world.progress(filer).rows_done), [100, 200, 100]);
}

#[test]
fn a_long_log_is_drained_in_pages_within_the_bounds() {
    let mut world = World::new(Settings::default(), &FILERS[..1], None);
    world.miss(1, 0..5_000);
    world.start(1);
    world.run_for(100 * 5_000 / 8 + 1_000);
    assert!(world.log.is_empty());
    let progress = world.progress(FILERS[0]);
    assert_eq!((progress.rows_done, progress.bytes_done, progress.failures), (5_000, 50_000, 0));
    assert_eq!(progress.since_ms, Some(World::STARTED_MS));
    let site = &world.sites[&FILERS[0]];
    assert_eq!((site.most_held, site.most_under_way), (1024, 8), "both bounds are used");
    assert!((5..200).contains(&site.looks_made), "{} looks", site.looks_made);
    // An empty log is looked at now and then.
    let looks_made = site.looks_made;
    world.run_for(10_000);
    assert_eq!(world.sites[&FILERS[0]].looks_made - looks_made, 20);
}

#[test]
fn rows_of_others_are_passed_over_without_being_held() {
    let mut world = World::new(Settings::default(), &FILERS[..1], None);
    world.live(&FILERS, None);
    world.miss(1, 0..10);
    world.miss(3, 0..30_000);
    world.start(1);
    world.run_for(5_000);
    assert_eq!(world.log.len(), 30_000);
    let site = &world.sites[&FILERS[0]];
    assert!(site.most_held <= 10);
    assert!(site.looks_made <= 24, "{} looks at a log of which one page is this filer's", site.looks_made);
}

#[test]
fn a_row_that_fails_holds_up_no_other_and_is_tried_until_it_is_done() {
    let mut world = World::new(Settings { rows_in_flight_max: 1, ..Settings::default() }, &FILERS[..1], None);
    world.miss(1, 0..100);
    world.broken.insert(segment(1, 0));
    world.start(1);
    world.run_for(60_000);
    assert!(world.log.keys().eq([&segment(1, 0)]));
    // Days later it is still tried, every few seconds.
    let tried = world.progress(FILERS[0]).failures;
    world.run_for(3 * 24 * 3_600_000);
    let tries = world.progress(FILERS[0]).failures - tried;
    assert!((50_000..105_000).contains(&tries), "{tries} tries in three days");
    world.broken.clear();
    world.run_for(6_000);
    assert!(world.log.is_empty());
    assert_eq!(world.progress(FILERS[0]).rows_done, 100);
}

#[test]
fn many_rows_that_fail_slowly_hold_up_no_other() {
    let mut world = World::new(Settings::default(), &FILERS[..1], None);
    world.attempt_ms = 30_000;
    world.miss(1, 0..200);
    world.broken.extend((0..40).map(|number| segment(1, number)));
    world.start(1);
    world.run_for(3 * 3_600_000);
    assert_eq!(world.log.len(), 40, "the others are done");
    // Half of the attempts are for the oldest, so that their failures are counted to the trip soon.
    let tries = |number| world.tries[&segment(1, number)].len();
    let oldest = (0..8).map(tries).min().expect("there are eight");
    assert!(oldest >= 100, "{oldest} tries");
    assert!((0..40).all(|number| tries(number) > 20), "{:?}", (0..40).map(tries).collect::<Vec<_>>());
}

#[test]
fn more_failing_rows_than_are_held_hold_up_no_other() {
    let settings = Settings { rows_held_max: 16, rows_failing_max: 20, ..Settings::default() };
    let mut world = World::new(settings, &FILERS[..1], None);
    world.miss(1, 0..300);
    world.broken.extend((0..100).map(|number| segment(1, 3 * number)));
    world.start(1);
    world.run_for(600_000);
    assert_eq!(world.log.len(), 100);
    let tries: Vec<usize> = (0..100).map(|number| world.tries[&segment(1, 3 * number)].len()).collect();
    assert!(tries.iter().all(|tries| *tries >= 10), "none is skipped: {tries:?}");
    assert!(tries.iter().all(|tries| *tries <= 250), "none is tried in a tight loop: {tries:?}");
    world.broken.clear();
    world.run_for(60_000);
    assert!(world.log.is_empty());
}

/// A row that fails beside a backlog lost its wait, and was tried again as soon as the log was read again.
#[test]
fn a_row_that_fails_beside_a_long_backlog_keeps_its_wait() {
    let settings = Settings { rows_held_max: 16, ..Settings::default() };
    let mut world = World::new(settings, &FILERS[..1], None);
    world.attempt_ms = 1_000;
    world.miss(1, 0..2_000);
    world.broken.insert(segment(1, 0));
    world.start(1);
    world.run_for(120_000);
    assert!(world.log.len() > 500, "the backlog lasted");
    let tries = &world.tries[&segment(1, 0)];
    assert!((15..40).contains(&tries.len()), "{tries:?}");
    for (failures, pair) in tries.windows(2).enumerate() {
        let waited_ms = pair[1] - pair[0] - 1_000;
        let least_ms = (50 << failures.min(7)).min(5_000) / 2;
        assert!(waited_ms >= least_ms, "{waited_ms} ms after {} failures", failures + 1);
    }
    world.run_for(300_000);
    assert!(world.log.keys().eq([&segment(1, 0)]));
}

#[test]
fn when_the_leader_dies_the_next_one_takes_over() {
    let mut world = World::new(Settings::default(), &FILERS, Some(FILERS[0]));
    world.miss(1, 0..1_000);
    world.miss(2, 0..1_000);
    world.miss(9, 0..1_000);
    world.start(1);
    world.run_for(2_000);
    assert!(world.log.len() > 1_500, "it is in the middle");
    world.sites.remove(&FILERS[0]);
    world.live(&FILERS[1..], Some(FILERS[2]));
    world.run_for(60_000);
    assert!(world.log.is_empty());
    for (row, by) in &world.repaired_by {
        assert!(row.filer != FILERS[1] || *by == [FILERS[1]], "{row:?} by {by:?}");
        assert!(row.filer == FILERS[1] || !by.contains(&FILERS[1]), "{row:?} by {by:?}");
    }
}

#[test]
fn a_leader_that_is_deposed_leaves_the_dead_ones_rows_to_the_next() {
    let mut world = World::new(Settings::default(), &FILERS, Some(FILERS[0]));
    world.miss(9, 0..1_000);
    world.start(1);
    world.run_for(1_000);
    world.live(&FILERS, Some(FILERS[1]));
    // What is under way is finished, nothing else is begun.
    let by_first = |world: &World| world.repaired_by.values().filter(|by| by.contains(&FILERS[0])).count();
    let before = by_first(&world);
    world.run_for(60_000);
    assert!(world.log.is_empty());
    assert!((before..=before + 8).contains(&by_first(&world)));
}

#[test]
fn a_filer_that_comes_back_gets_its_rows_back() {
    let mut world = World::new(Settings::default(), &FILERS, Some(FILERS[0]));
    let third = world.sites.remove(&FILERS[2]).expect("it is there");
    world.live(&FILERS[..2], Some(FILERS[0]));
    world.miss(3, 0..1_000);
    world.start(1);
    world.run_for(1_000);
    world.sites.insert(FILERS[2], third);
    world.live(&FILERS, Some(FILERS[0]));
    world.start(1);
    world.run_for(60_000);
    assert!(world.log.is_empty());
    assert!(world.repaired_by.values().filter(|by| by.contains(&FILERS[0])).count() < 100);
}

#[test]
fn a_cloud_that_fails_again_is_left_alone_until_it_is_back() {
    let mut world = World::new(Settings::default(), &FILERS[..1], None);
    world.miss(1, 0..1_000);
    world.start(1);
    world.run_for(1_000);
    let done = world.progress(FILERS[0]).rows_done;
    assert!((1..1_000).contains(&done));

    world.roles(roles(2, Failed));
    assert_eq!(world.sites[&FILERS[0]].resync.deadline_ms(), None);
    let dropped = &world.sites[&FILERS[0]].resync.drains[0];
    assert!(dropped.rows.is_empty() && !dropped.looking);
    assert_eq!(world.progress(FILERS[0]), Progress { since_ms: None, rows_done: done, ..world.progress(FILERS[0]) });
    // Late answers have no consequence.
    world.run_for(60_000);
    let late = vec![missed_put(1, 999)];
    world.say(FILERS[0], Input::Rows { cloud: A, rows: late, more: true });
    world.say(FILERS[0], Input::Done { cloud: A, segment: segment(1, 999), bytes: 10 });
    world.say(FILERS[0], Input::Failed { cloud: A, segment: segment(1, 999) });
    assert_eq!(world.progress(FILERS[0]).rows_done, done);
    assert_eq!(world.sites[&FILERS[0]].resync.deadline_ms(), None);

    let left = world.log.len() as u64;
    world.start(3);
    world.run_for(60_000);
    assert!(world.log.is_empty());
    assert_eq!(world.progress(FILERS[0]).rows_done, left, "counted from the new beginning");
    world.roles(roles(4, Healthy));
    let finished = world.progress(FILERS[0]);
    assert_eq!((finished.rows_done, finished.since_ms), (left, None), "it stays on show");
}

#[test]
fn repairs_carry_the_epoch_of_today() {
    let random = SeededRandom::new(1);
    let mut resync = Resync::new(FILERS[0], Settings::default());
    let looks = resync.handle(0, &random, Input::Roles(roles(1, Resyncing)));
    assert_eq!(looks, [Output::Look { cloud: A, after: None, limit: 1024 }]);
    let rows = vec![missed_put(1, 1)];
    let repairs = resync.handle(0, &random, Input::Rows { cloud: A, rows, more: false });
    assert_eq!(repairs, [Output::Repair { miss: missed_put(1, 1), epoch: Epoch(1) }]);
    assert_eq!(resync.handle(1, &random, Input::Roles(roles(2, Resyncing))), []);
    resync.handle(1, &random, Input::Failed { cloud: A, segment: segment(1, 1) });
    let repairs = resync.handle(100, &random, Input::Tick);
    assert_eq!(repairs, [Output::Repair { miss: missed_put(1, 1), epoch: Epoch(2) }]);
}

#[test]
fn a_missed_put_that_became_a_missed_delete_is_carried_out_as_one() {
    let mut world = World::new(Settings::default(), &FILERS[..1], None);
    world.miss(1, 0..10);
    world.broken.insert(segment(1, 5));
    world.start(1);
    world.run_for(10_000);
    // The segment is gone, so its put can never succeed; the row says what is missed now.
    world.log.insert(segment(1, 5), Miss { kind: MissKind::Delete, ..missed_put(1, 5) });
    world.broken_puts_only = true;
    world.run_for(10_000);
    assert!(world.log.is_empty());
}

#[test]
fn a_row_without_a_successor_begins_the_next_pass() {
    let mut world = World::new(Settings::default(), &FILERS[..1], None);
    world.start(1);
    // A page that says that more follows, and is empty, is not followed by another look at once.
    world.sites.get_mut(&FILERS[0]).expect("it is there").looks.clear();
    world.say(FILERS[0], Input::Rows { cloud: A, rows: Vec::new(), more: true });
    assert_eq!(world.sites[&FILERS[0]].resync.deadline_ms(), Some(world.now_ms + 500));
    world.miss(1, 0..3);
    world.run_for(1_000);
    assert!(world.log.is_empty());
}
