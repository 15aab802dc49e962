use super::*;
use mesh::clock::SeededRandom;

mod ballots;
mod news;
mod pace;
mod table;
mod world;

const ME: FilerId = FilerId(1);
const FILERS: [FilerId; 3] = [ME, FilerId(2), FilerId(3)];

fn piece(number: u64) -> SegmentId {
    SegmentId { filer: ME, number }
}

/// Roles in which cloud A is preferred, nothing is missed and no filer reaches a failed cloud.
fn roles(epoch: u64, active: CloudId, states: [CloudState; 2]) -> Roles {
    Roles::new(Epoch(epoch), active, CloudId::A, states, 0)
}

fn healthy() -> Roles {
    roles(1, CloudId::A, [CloudState::Healthy; 2])
}

/// Cloud A has failed, cloud B is active.
fn a_failed() -> Roles {
    roles(2, CloudId::B, [CloudState::Failed, CloudState::Healthy])
}

fn reached_by(mut roles: Roles, filers: &[FilerId]) -> Roles {
    roles.clouds[0].reached_by = filers.to_vec();
    roles
}

/// One filer's machine on virtual time.
struct Bench {
    now_ms: u64,
    random: SeededRandom,
    health: Health,
}

impl Bench {
    fn new(roles: Roles) -> Self {
        Self::with(Settings::default(), roles)
    }

    fn with(settings: Settings, roles: Roles) -> Self {
        let mut bench = Self { now_ms: 1_000_000, random: SeededRandom::new(7), health: Health::new(ME, settings) };
        assert_eq!(bench.say(Input::Roles(roles)), []);
        bench
    }

    fn say(&mut self, input: Input) -> Vec<Output> {
        self.health.handle(self.now_ms, &self.random, input)
    }

    fn later(&mut self, wait_ms: u64) -> Vec<Output> {
        self.now_ms += wait_ms;
        self.say(Input::Tick)
    }

    /// Ticks at the machine's own deadline.
    fn next(&mut self) -> Vec<Output> {
        self.now_ms = self.health.deadline_ms().expect("something is to come").max(self.now_ms);
        self.say(Input::Tick)
    }

    fn attempted(
        &mut self,
        cloud: CloudId,
        piece: Option<SegmentId>,
        failed: Option<&str>,
        took_ms: u64,
    ) -> Vec<Output> {
        let attempt = Attempt { piece, failed: failed.map(Into::into), took_ms, bytes: 0 };
        self.say(Input::Attempted { cloud, attempt })
    }

    fn fail(&mut self, cloud: CloudId, number: u64) -> Vec<Output> {
        self.attempted(cloud, Some(piece(number)), Some("connection reset"), 5)
    }

    /// Fails `times` times, which must have no consequence.
    fn fail_quietly(&mut self, cloud: CloudId, number: u64, times: u32) {
        for _ in 0..times {
            assert_eq!(self.fail(cloud, number), []);
        }
    }

    fn succeed(&mut self, cloud: CloudId, number: u64, took_ms: u64) -> Vec<Output> {
        self.attempted(cloud, Some(piece(number)), None, took_ms)
    }

    fn probed(&mut self, cloud: CloudId, ok: bool) -> Vec<Output> {
        self.say(Input::Probed { cloud, failed: (!ok).then(|| "refused".to_string()) })
    }

    fn answered(&mut self, cloud: CloudId, accepted: bool) -> Vec<Output> {
        self.say(Input::Answered { cloud, refused: (!accepted).then(|| "not now".to_string()) })
    }

    fn leads(&mut self) -> Vec<Output> {
        self.say(Input::Leads(Some(FILERS.to_vec())))
    }
}

fn is_trip(outputs: &[Output], of: CloudId, under: u64) -> bool {
    matches!(outputs, [Output::Trip { cloud, epoch, .. }] if *cloud == of && *epoch == Epoch(under))
}

#[test]
fn a_success_after_159_failures_sets_the_count_back() {
    let mut bench = Bench::new(healthy());
    bench.fail_quietly(CloudId::A, 1, 159);
    assert_eq!(bench.health.failures_of(CloudId::A, piece(1)), 159);
    assert_eq!(bench.succeed(CloudId::A, 1, 5), []);
    assert_eq!(bench.health.failures_of(CloudId::A, piece(1)), 0);
    bench.fail_quietly(CloudId::A, 1, 159);
    assert_eq!(bench.health.failures(CloudId::A), (318, Some("connection reset")));
}

#[test]
fn the_160th_failure_on_one_piece_trips_once() {
    let mut bench = Bench::new(healthy());
    bench.fail_quietly(CloudId::A, 1, 159);
    let outputs = bench.fail(CloudId::A, 1);
    let why = format!("160 consecutive failures on segment {}, the last: connection reset", piece(1));
    assert_eq!(outputs, [Output::Trip { cloud: CloudId::A, epoch: Epoch(1), why }]);
    bench.fail_quietly(CloudId::A, 1, 500);
    assert_eq!(bench.health.deadline_ms(), None);
}

#[test]
fn failures_of_different_pieces_and_clouds_do_not_add_up() {
    let mut bench = Bench::new(healthy());
    bench.fail_quietly(CloudId::A, 1, 80);
    bench.fail_quietly(CloudId::A, 2, 80);
    bench.fail_quietly(CloudId::B, 1, 159);
    assert_eq!(bench.health.views().map(|view| view.failures), [80, 159]);
    // Attempts without a piece (a listing) are counted for people alone.
    for _ in 0..1000 {
        assert_eq!(bench.attempted(CloudId::A, None, Some("denied"), 5), []);
    }
    assert_eq!(bench.health.failures(CloudId::A), (1160, Some("denied")));
    assert_eq!(bench.health.views()[0].reachable, Some(false));
    bench.succeed(CloudId::A, 9, 5);
    bench.attempted(CloudId::A, None, Some("denied"), 5);
    assert_eq!(bench.health.views()[0].reachable, Some(true), "they say nothing of the pieces");
}

#[test]
fn a_success_on_one_piece_leaves_the_count_of_another() {
    let mut bench = Bench::new(healthy());
    for _ in 0..159 {
        bench.fail_quietly(CloudId::A, 1, 1);
        bench.fail_quietly(CloudId::A, 2, 1);
        assert_eq!(bench.succeed(CloudId::A, 3, 5), []);
        assert_eq!(bench.succeed(CloudId::B, 1, 5), []);
    }
    assert_eq!(bench.succeed(CloudId::A, 2, 5), []);
    bench.fail_quietly(CloudId::A, 2, 1);
    assert!(is_trip(&bench.fail(CloudId::A, 1), CloudId::A, 1));
}

#[test]
fn a_refused_trip_is_asked_again_while_the_piece_fails_but_not_spun() {
    let mut bench = Bench::new(healthy());
    let mut trips_ms = Vec::new();
    for _ in 0..1000 {
        bench.now_ms += 100;
        if !bench.fail(CloudId::A, 1).is_empty() {
            trips_ms.push(bench.now_ms);
            assert_eq!(bench.answered(CloudId::A, false), [], "not at once");
        }
    }
    assert_eq!(trips_ms.len(), 17, "every 5 s of the 84 that the piece failed at the limit");
    assert!(trips_ms.windows(2).all(|pair| pair[1] - pair[0] == 5_000));
}

#[test]
fn a_trip_that_got_no_answer_is_asked_again_at_the_deadline() {
    let mut bench = Bench::new(healthy());
    bench.fail_quietly(CloudId::A, 1, 159);
    assert!(is_trip(&bench.fail(CloudId::A, 1), CloudId::A, 1));
    bench.answered(CloudId::A, false);
    bench.fail_quietly(CloudId::A, 1, 1);
    let asked_ms = bench.now_ms;
    assert!(is_trip(&bench.next(), CloudId::A, 1));
    assert_eq!(bench.now_ms - asked_ms, 5_000);
}

/// A read was given up after its trip had been refused: hours later the cloud must not be tripped for it.
#[test]
fn a_refused_trip_is_not_asked_again_without_a_further_failure() {
    let mut bench = Bench::new(roles(1, CloudId::A, [CloudState::Healthy, CloudState::Failed]));
    bench.fail_quietly(CloudId::A, 1, 159);
    assert!(is_trip(&bench.fail(CloudId::A, 1), CloudId::A, 1));
    bench.answered(CloudId::A, false);
    // Another piece got through before it was time to ask again.
    bench.fail_quietly(CloudId::A, 2, 160);
    assert_eq!(bench.succeed(CloudId::A, 2, 5), []);
    for number in 2..1000 {
        bench.now_ms += 10_000;
        let trips = bench.succeed(CloudId::A, number, 5).into_iter().filter(|out| matches!(out, Output::Trip { .. }));
        assert_eq!(trips.count(), 0);
    }
    assert_eq!(bench.say(Input::Roles(roles(2, CloudId::A, [CloudState::Healthy; 2]))), []);
    assert!(is_trip(&bench.fail(CloudId::A, 1), CloudId::A, 2), "but it is when the piece fails again");
}

#[test]
fn an_accepted_decision_is_not_asked_twice_while_the_roles_are_on_their_way() {
    let mut bench = Bench::new(healthy());
    bench.fail_quietly(CloudId::A, 1, 159);
    assert!(is_trip(&bench.fail(CloudId::A, 1), CloudId::A, 1));
    assert_eq!(bench.answered(CloudId::A, true), []);
    assert_eq!(bench.fail(CloudId::A, 1), []);
    assert_eq!(bench.say(Input::Roles(a_failed())), []);
}

#[test]
fn a_trip_under_a_stale_epoch_is_asked_again_under_the_new_one() {
    let mut bench = Bench::new(healthy());
    bench.fail_quietly(CloudId::A, 1, 159);
    assert!(is_trip(&bench.fail(CloudId::A, 1), CloudId::A, 1));
    // Either order of the answer and the roles.
    assert_eq!(bench.say(Input::Roles(roles(2, CloudId::A, [CloudState::Healthy; 2]))), []);
    assert!(is_trip(&bench.answered(CloudId::A, false), CloudId::A, 2));
    assert_eq!(bench.answered(CloudId::A, false), []);
    assert_eq!(bench.say(Input::Roles(roles(3, CloudId::A, [CloudState::Healthy; 2]))), []);
    assert!(is_trip(&bench.fail(CloudId::A, 1), CloudId::A, 3));
}

#[test]
fn failures_on_a_cloud_that_has_failed_do_not_trip_it_again() {
    let mut bench = Bench::new(healthy());
    bench.fail_quietly(CloudId::A, 1, 159);
    bench.fail(CloudId::A, 1);
    bench.say(Input::Roles(a_failed()));
    bench.answered(CloudId::A, true);
    bench.fail_quietly(CloudId::A, 1, 1000);
    // Resync begins: what failed before says nothing of the cloud of today.
    bench.say(Input::Roles(roles(3, CloudId::B, [CloudState::Resyncing, CloudState::Healthy])));
    bench.fail_quietly(CloudId::A, 1, 159);
    assert!(is_trip(&bench.fail(CloudId::A, 1), CloudId::A, 3));
}

#[test]
fn who_was_away_while_a_cloud_was_judged_anew_counts_anew() {
    let mut bench = Bench::new(healthy());
    bench.fail_quietly(CloudId::A, 1, 159);
    // It failed, was resynced and got its role back meanwhile: all that is heard is the end of it.
    assert_eq!(bench.say(Input::Roles(roles(5, CloudId::A, [CloudState::Healthy; 2]))), []);
    bench.fail_quietly(CloudId::A, 1, 159);
    assert!(is_trip(&bench.fail(CloudId::A, 1), CloudId::A, 5));
}

/// Three days of a dead cloud, whose probes take anything from a moment to half a minute.
#[test]
fn probes_go_on_for_days_one_at_a_time_with_a_growing_wait() {
    let mut bench = Bench::new(a_failed());
    let (started_ms, mut waits_ms) = (bench.now_ms, Vec::new());
    while bench.now_ms < started_ms + 3 * 24 * 3_600_000 {
        let idle_since_ms = bench.now_ms;
        assert_eq!(bench.next(), [Output::Probe { cloud: CloudId::A }]);
        waits_ms.push(bench.now_ms - idle_since_ms);
        assert_eq!(bench.health.deadline_ms(), None, "one at a time");
        assert_eq!(bench.later(bench.random.next_u64() % 30_000), []);
        assert_eq!(bench.probed(CloudId::A, false), []);
    }
    assert_eq!(waits_ms[0], 500);
    for (failures, wait_ms) in waits_ms.iter().enumerate().skip(1) {
        let most_ms = (500 << (failures - 1).min(5)).min(15_000);
        assert!((most_ms / 2..=most_ms).contains(wait_ms), "{wait_ms} ms after {failures} failed probes");
    }
    // It is back: noticed at the next probe, and from then on it is watched closely.
    bench.next();
    assert_eq!(bench.probed(CloudId::A, true).len(), 1);
    let answered_ms = bench.now_ms;
    assert_eq!(bench.next(), [Output::Probe { cloud: CloudId::A }]);
    assert!(bench.now_ms - answered_ms <= 500);
}

#[test]
fn what_a_probe_sees_is_told_when_it_changes() {
    let mut bench = Bench::new(a_failed());
    let reached = |reached| Output::Reached { cloud: CloudId::A, epoch: Epoch(2), reached };
    assert_eq!(bench.probed(CloudId::A, false), [], "nobody believes otherwise");
    assert_eq!(bench.probed(CloudId::A, true), [reached(true)]);
    bench.say(Input::Roles(reached_by(a_failed(), &[ME])));
    assert_eq!(bench.answered(CloudId::A, true), []);
    assert_eq!(bench.probed(CloudId::A, true), [], "known");
    assert_eq!(bench.probed(CloudId::A, false), [reached(false)]);
    bench.say(Input::Roles(a_failed()));
    assert_eq!(bench.answered(CloudId::A, true), []);
    // A new epoch forgets who reaches it; what was seen is told again without a new probe.
    bench.probed(CloudId::A, true);
    bench.answered(CloudId::A, true);
    let mut next = a_failed();
    next.epoch = Epoch(3);
    let outputs = bench.say(Input::Roles(next));
    assert_eq!(outputs, [Output::Reached { cloud: CloudId::A, epoch: Epoch(3), reached: true }]);
}

#[test]
fn resync_starts_at_the_leader_when_every_live_filer_reaches_the_cloud() {
    let start = |live: &[FilerId]| Output::StartResync { cloud: CloudId::A, epoch: Epoch(2), live: live.to_vec() };
    let mut bench = Bench::new(a_failed());
    bench.probed(CloudId::A, true);
    bench.say(Input::Roles(reached_by(a_failed(), &FILERS)));
    assert_eq!(bench.answered(CloudId::A, true), [], "it does not lead");
    assert_eq!(bench.leads(), [start(&FILERS)]);
    assert_eq!(bench.leads(), [], "asked already");

    let mut bench = Bench::new(a_failed());
    bench.leads();
    bench.probed(CloudId::A, true);
    assert_eq!(bench.answered(CloudId::A, true), []);
    assert_eq!(bench.say(Input::Roles(reached_by(a_failed(), &FILERS[..2]))), [], "one does not reach it");
    let outputs = bench.say(Input::Leads(Some(FILERS[..2].to_vec())));
    assert_eq!(outputs, [start(&FILERS[..2])], "that one is no longer live");
}

#[test]
fn resync_does_not_start_before_this_filers_own_probe_has_succeeded() {
    // What is on record of this filer is from before its restart.
    let mut bench = Bench::new(reached_by(a_failed(), &FILERS));
    assert_eq!(bench.leads(), []);
    assert_eq!(bench.say(Input::Leads(Some(Vec::new()))), []);
    assert_eq!(bench.probed(CloudId::A, true).len(), 1);
}

#[test]
fn resync_ends_when_both_counts_are_zero() {
    let mut resyncing = roles(3, CloudId::B, [CloudState::Resyncing, CloudState::Healthy]);
    let mut bench = Bench::new(resyncing.clone());
    for (puts, deletes) in [(2, 1), (0, 1), (1, 0)] {
        (resyncing.clouds[0].missed_puts, resyncing.clouds[0].missed_deletes) = (puts, deletes);
        assert_eq!(bench.say(Input::Roles(resyncing.clone())), []);
        assert_eq!(bench.leads(), []);
    }
    resyncing.clouds[0].missed_puts = 0;
    let outputs = bench.say(Input::Roles(resyncing.clone()));
    assert_eq!(outputs, [Output::FinishResync { cloud: CloudId::A, epoch: Epoch(3) }]);
    bench.say(Input::Leads(None));
    assert_eq!(bench.answered(CloudId::A, false), []);
    assert_eq!(bench.later(60_000), [], "another leads now");
}

#[test]
fn the_preferred_primary_gets_its_role_back() {
    let back = roles(4, CloudId::B, [CloudState::Healthy; 2]);
    let mut bench = Bench::new(back.clone());
    assert_eq!(bench.leads(), [Output::Failback { to: CloudId::A, epoch: Epoch(4) }]);
    assert_eq!(bench.say(Input::Roles(roles(5, CloudId::A, [CloudState::Healthy; 2]))), []);
    assert_eq!(bench.answered(CloudId::A, true), []);

    let held = Roles { held_by_operator: true, ..back.clone() };
    assert_eq!(Bench::new(held).leads(), [], "an operator wants it so");

    let mut bench = Bench::with(Settings { failback_auto: false, ..Settings::default() }, back);
    assert_eq!(bench.leads(), []);
    assert_eq!(bench.health.deadline_ms(), None);
}

#[test]
fn a_cloud_that_answers_slowly_for_too_long_trips() {
    let mut bench = Bench::new(healthy());
    for _ in 0..3 {
        bench.now_ms += 30_000;
        assert_eq!(bench.succeed(CloudId::A, 1, 30_000), []);
    }
    bench.now_ms += 1;
    assert_eq!(bench.succeed(CloudId::A, 2, 9_999), [], "one fast answer ends the spell");
    for _ in 0..3 {
        bench.now_ms += 30_000;
        assert_eq!(bench.succeed(CloudId::A, 1, 30_000), []);
    }
    bench.fail_quietly(CloudId::A, 1, 1);
    bench.now_ms += 30_000;
    let outputs = bench.succeed(CloudId::A, 1, 30_000);
    let why = "every answer took more than 10 s, and than its bytes need, for 2 min".to_string();
    assert_eq!(outputs, [Output::Trip { cloud: CloudId::A, epoch: Epoch(1), why }]);
}

/// Lesson 9: a cloud that accepts connections and never answers in time.
#[test]
fn a_cloud_that_gives_no_answer_in_time_for_too_long_trips() {
    let mut bench = Bench::new(healthy());
    let timed_out = |bench: &mut Bench, number| {
        bench.now_ms += 15_000;
        bench.attempted(CloudId::A, Some(piece(number)), Some("no answer within 15000 ms"), 15_000)
    };
    for number in 0..7 {
        assert_eq!(timed_out(&mut bench, number), []);
        // A quick failure in between is no fast answer.
        bench.fail_quietly(CloudId::A, 99, 1);
    }
    assert!(is_trip(&timed_out(&mut bench, 8), CloudId::A, 1), "after two minutes, not after 160 of them");
}

#[test]
fn silence_after_a_slow_answer_is_no_brown_out() {
    let mut bench = Bench::new(healthy());
    for _ in 0..10 {
        bench.now_ms += 600_000;
        assert_eq!(bench.later(0), [], "no answer at all says nothing");
        assert_eq!(bench.succeed(CloudId::A, 1, 30_000), [], "too far apart to be one spell");
    }
}

#[test]
fn the_counted_pieces_are_bounded_and_the_least_failed_is_forgotten() {
    let mut bench = Bench::with(Settings { pieces_max: 10, ..Settings::default() }, healthy());
    bench.fail_quietly(CloudId::A, 500, 159);
    for number in 0..10_000 {
        bench.fail_quietly(CloudId::A, number, 1 + u32::from(number == 500));
        assert!(bench.health.clouds[0].failures.len() <= 10);
        if number == 499 {
            assert_eq!(bench.health.failures_of(CloudId::A, piece(500)), 159);
            assert_eq!(bench.succeed(CloudId::A, 500, 1), []);
            bench.fail_quietly(CloudId::A, 500, 157);
        }
    }
    assert!(is_trip(&bench.fail(CloudId::A, 500), CloudId::A, 1));
}
