use super::*;
use CloudState::*;
use mesh::{FilerId, clock::SeededRandom};

mod model;
mod table;

const A: CloudId = CloudId::A;
const B: CloudId = CloudId::B;

fn segment(number: u64) -> SegmentId {
    SegmentId { filer: FilerId(1), number }
}

fn md5(number: u64) -> Md5 {
    Md5([number as u8; 16])
}

fn roles(epoch: u64, active: CloudId, states: [CloudState; 2]) -> Roles {
    Roles::new(Epoch(epoch), active, A, states, 0)
}

fn put(cloud: CloudId, number: u64) -> Output {
    Output::Put { cloud, segment: segment(number), md5: md5(number) }
}

fn cancel(cloud: CloudId, number: u64) -> Output {
    Output::Cancel { cloud, segment: segment(number) }
}

fn propose(number: u64, copies: [bool; 2], epoch: u64) -> Output {
    Output::Propose { segment: segment(number), bytes: 100, md5: md5(number), copies, epoch: Epoch(epoch) }
}

/// One filer's machine on virtual time.
struct Bench {
    now_ms: u64,
    random: SeededRandom,
    mirror: Mirror,
}

impl Bench {
    fn new(states: [CloudState; 2]) -> Self {
        Self::with(Settings::default(), roles(1, if states[0] == Healthy { A } else { B }, states))
    }

    fn with(settings: Settings, roles: Roles) -> Self {
        let mut bench = Self { now_ms: 1_000_000, random: SeededRandom::new(7), mirror: Mirror::new(settings) };
        assert_eq!(bench.say(Input::Roles(roles)), []);
        bench
    }

    fn say(&mut self, input: Input) -> Vec<Output> {
        let outputs = self.mirror.handle(self.now_ms, &self.random, input);
        let deadline_ms = self.mirror.deadline_ms();
        assert!(deadline_ms.is_none_or(|deadline_ms| deadline_ms > self.now_ms), "what is due has been done");
        outputs
    }

    fn roles(&mut self, epoch: u64, active: CloudId, states: [CloudState; 2]) -> Vec<Output> {
        self.say(Input::Roles(roles(epoch, active, states)))
    }

    fn seal(&mut self, number: u64) -> Vec<Output> {
        self.say(Input::Sealed { segment: segment(number), bytes: 100, md5: md5(number), flushed: true })
    }

    fn ended(&mut self, cloud: CloudId, number: u64, end: PutEnd) -> Vec<Output> {
        self.say(Input::Put { cloud, segment: segment(number), end })
    }

    fn proposed(&mut self, number: u64, end: ProposalEnd) -> Vec<Output> {
        self.say(Input::Proposed { segment: segment(number), end })
    }

    /// Ticks at the machine's own deadline, which must have a consequence.
    fn next(&mut self) -> Vec<Output> {
        self.now_ms = self.mirror.deadline_ms().expect("something is to come");
        let outputs = self.say(Input::Tick);
        assert!(!outputs.is_empty(), "nothing came of the deadline at {} ms", self.now_ms);
        outputs
    }
}

#[test]
fn a_segment_goes_to_both_clouds_and_is_released_when_that_is_on_record() {
    let mut bench = Bench::new([Healthy, Healthy]);
    assert_eq!(bench.seal(1), [put(A, 1), put(B, 1)]);
    assert_eq!(bench.seal(1), [], "it is known");
    assert_eq!(bench.ended(B, 1, PutEnd::Receipt), [], "a healthy cloud's receipt is missing");
    assert_eq!(bench.mirror.receipts(segment(1)), Some([false, true]));
    assert_eq!(bench.ended(A, 1, PutEnd::Receipt), [propose(1, [true, true], 1)]);
    assert_eq!(bench.mirror.deadline_ms(), None);
    assert_eq!(bench.proposed(1, ProposalEnd::Accepted), [Output::Release { segment: segment(1) }]);
    assert_eq!(bench.mirror.pending().count(), 0);
    assert_eq!(bench.mirror.receipts(segment(1)), None);
}

#[test]
fn nothing_is_put_before_the_roles_are_known() {
    let mut bench = Bench { now_ms: 0, random: SeededRandom::new(1), mirror: Mirror::new(Settings::default()) };
    assert_eq!(bench.seal(1), []);
    assert_eq!(bench.mirror.deadline_ms(), None);
    assert_eq!(bench.roles(1, A, [Healthy, Failed]), [put(A, 1)]);
}

#[test]
fn nothing_is_proposed_before_what_refers_to_it_is_on_record() {
    let mut bench = Bench::new([Healthy, Healthy]);
    bench.say(Input::Sealed { segment: segment(1), bytes: 100, md5: md5(1), flushed: false });
    assert_eq!(bench.ended(A, 1, PutEnd::Receipt), []);
    assert_eq!(bench.ended(B, 1, PutEnd::Receipt), []);
    assert_eq!(bench.mirror.deadline_ms(), None);
    assert_eq!(bench.say(Input::Flushed { segment: segment(9) }), []);
    assert_eq!(bench.say(Input::Flushed { segment: segment(1) }), [propose(1, [true, true], 1)]);
}

#[test]
fn the_oldest_go_first_and_no_more_than_allowed_are_under_way() {
    let mut bench =
        Bench::with(Settings { puts_in_flight_max: 2, ..Settings::default() }, roles(1, A, [Healthy, Failed]));
    assert_eq!(bench.seal(1), [put(A, 1)]);
    assert_eq!(bench.seal(2), [put(A, 2)]);
    for number in 3..100 {
        assert_eq!(bench.seal(number), []);
    }
    // There is no room: nothing to wake up for.
    assert_eq!(bench.mirror.deadline_ms(), None);
    assert_eq!(bench.ended(A, 2, PutEnd::Receipt), [put(A, 3), propose(2, [true, false], 1)]);
    // One that fails makes room for the next, and comes again after its wait.
    assert_eq!(bench.ended(A, 1, PutEnd::Failed), [put(A, 4)]);
    bench.now_ms += 20;
    assert_eq!(bench.ended(A, 3, PutEnd::Receipt)[0], put(A, 1));
}

#[test]
fn a_failing_put_is_tried_for_days_with_a_growing_wait() {
    let mut bench = Bench::new([Healthy, Failed]);
    bench.seal(1);
    for failures in 1..200_000_u32 {
        let failed_ms = bench.now_ms;
        assert_eq!(bench.ended(A, 1, PutEnd::Failed), []);
        assert_eq!(bench.next(), [put(A, 1)]);
        let most_ms = (20 << (failures - 1).min(6)).min(1000);
        assert!((most_ms / 2..=most_ms).contains(&(bench.now_ms - failed_ms)));
    }
    assert_eq!(bench.ended(A, 1, PutEnd::Receipt), [propose(1, [true, false], 1)]);
}

#[test]
fn a_put_that_was_not_tried_is_no_miss() {
    let mut bench = Bench::new([Resyncing, Healthy]);
    bench.seal(1);
    bench.ended(B, 1, PutEnd::Receipt);
    let ended_ms = bench.now_ms;
    assert_eq!(bench.ended(A, 1, PutEnd::NotTried), []);
    assert_eq!(bench.next(), [put(A, 1)]);
    assert_eq!(bench.now_ms - ended_ms, 1000);
}

#[test]
fn pieces_that_always_fail_hold_up_no_other() {
    let mut bench = Bench::new([Healthy, Failed]);
    (1..=200).for_each(|number| drop(bench.seal(number)));
    // Each attempt takes half a minute, longer than any wait. Segments 1 to 20 never get through.
    let mut attempts = BTreeMap::new();
    let mut under_way: Vec<u64> = (1..=8).collect();
    for _ in 0..200 {
        bench.now_ms += 30_000;
        let mut outputs = Vec::new();
        for number in std::mem::take(&mut under_way) {
            let end = if number <= 20 { PutEnd::Failed } else { PutEnd::Receipt };
            outputs.extend(bench.ended(A, number, end));
        }
        while under_way.len() < 8 && bench.mirror.deadline_ms().is_some() || !outputs.is_empty() {
            for output in outputs.drain(..) {
                if let Output::Put { segment, .. } = output {
                    *attempts.entry(segment.number).or_insert(0) += 1;
                    under_way.push(segment.number);
                }
            }
            if under_way.len() < 8 && bench.mirror.deadline_ms().is_some() {
                outputs = bench.next();
            }
        }
    }
    for number in 1..=200 {
        let receipt = bench.mirror.receipts(segment(number)).expect("nothing is accepted here")[0];
        assert_eq!(receipt, number > 20, "segment {number}");
    }
    // Half of the attempts are for the oldest, so that their failures are counted to the trip soon.
    assert!((1..=8).all(|number| attempts[&number] >= 80), "{attempts:?}");
    assert!((9..=20).all(|number| attempts[&number] >= 20), "{attempts:?}");
}

#[test]
fn when_a_cloud_fails_its_puts_are_cancelled_and_its_miss_goes_on_record() {
    let mut bench = Bench::new([Healthy, Healthy]);
    bench.seal(1);
    bench.seal(2);
    bench.ended(B, 1, PutEnd::Receipt);
    assert_eq!(bench.roles(2, B, [Failed, Healthy]), [cancel(A, 1), cancel(A, 2), propose(1, [false, true], 2)]);
    assert_eq!(bench.ended(B, 2, PutEnd::Receipt), [propose(2, [false, true], 2)]);
    assert_eq!(bench.seal(3), [put(B, 3)]);
    assert_eq!(bench.mirror.deadline_ms(), None);
}

#[test]
fn a_late_receipt_is_a_copy_and_any_other_late_answer_is_nothing() {
    let mut bench = Bench::new([Healthy, Healthy]);
    bench.seal(1);
    bench.seal(2);
    bench.roles(2, B, [Failed, Healthy]);
    assert_eq!(bench.ended(A, 1, PutEnd::Receipt), []);
    assert_eq!(bench.ended(A, 2, PutEnd::Failed), []);
    assert_eq!(bench.ended(B, 1, PutEnd::Receipt), [propose(1, [true, true], 2)], "the cloud does hold it");
    bench.proposed(1, ProposalEnd::Accepted);
    for end in [PutEnd::Receipt, PutEnd::Failed, PutEnd::NotTried] {
        assert_eq!(bench.ended(A, 1, end), [], "it is released");
    }
    assert_eq!(bench.proposed(1, ProposalEnd::Refused), []);
    assert_eq!(bench.proposed(1, ProposalEnd::Accepted), []);
    // What failed before the resync says nothing of the resync.
    bench.ended(B, 2, PutEnd::Receipt);
    bench.proposed(2, ProposalEnd::Refused);
    assert_eq!(bench.roles(3, B, [Resyncing, Healthy]), [put(A, 2)]);
}

#[test]
fn a_late_failure_while_there_is_no_room_is_no_miss_of_the_resync() {
    let settings = Settings { puts_in_flight_max: 1, ..Settings::default() };
    let mut bench = Bench::with(settings, roles(1, B, [Resyncing, Healthy]));
    bench.seal(1);
    bench.ended(B, 1, PutEnd::Receipt);
    bench.seal(2);
    bench.ended(B, 2, PutEnd::Receipt);
    assert_eq!(bench.ended(A, 2, PutEnd::Failed), [], "it was never begun");
    assert_eq!(bench.ended(A, 1, PutEnd::Failed), [put(A, 2), propose(1, [false, true], 1)]);
}

#[test]
fn a_refused_proposal_is_judged_again_under_the_new_roles() {
    let mut bench = Bench::new([Failed, Healthy]);
    bench.seal(1);
    assert_eq!(bench.ended(B, 1, PutEnd::Receipt), [propose(1, [false, true], 1)]);
    // Cloud A is back before the proposal is applied: its epoch is stale.
    assert_eq!(bench.roles(2, B, [Resyncing, Healthy]), []);
    assert_eq!(bench.proposed(1, ProposalEnd::Refused), [put(A, 1)]);
    bench.now_ms += 200;
    assert_eq!(bench.ended(A, 1, PutEnd::Receipt), [], "a refusal is not followed at once");
    assert_eq!(bench.next(), [propose(1, [true, true], 2)]);
}

#[test]
fn a_refusal_leads_to_a_put_to_a_cloud_that_is_healthy_now() {
    let mut bench = Bench::new([Resyncing, Healthy]);
    bench.seal(1);
    bench.ended(A, 1, PutEnd::Failed);
    assert_eq!(bench.ended(B, 1, PutEnd::Receipt), [propose(1, [false, true], 1)]);
    assert_eq!(bench.roles(2, B, [Healthy, Healthy]), []);
    assert_eq!(bench.proposed(1, ProposalEnd::Refused), [put(A, 1)]);
    bench.now_ms += 10_000;
    assert_eq!(bench.say(Input::Tick), [], "its receipt is required again");
    assert_eq!(bench.ended(A, 1, PutEnd::Receipt), [propose(1, [true, true], 2)]);
}

#[test]
fn an_unanswered_proposal_is_repeated_after_a_wait() {
    let mut bench = Bench::new([Healthy, Failed]);
    bench.seal(1);
    bench.ended(A, 1, PutEnd::Receipt);
    let asked_ms = bench.now_ms;
    for _ in 0..1000 {
        assert_eq!(bench.proposed(1, ProposalEnd::Unanswered), []);
        assert_eq!(bench.next(), [propose(1, [true, false], 1)]);
    }
    assert_eq!(bench.now_ms - asked_ms, 500_000);
}

#[test]
fn a_put_that_a_resyncing_cloud_fails_is_proposed_as_missed() {
    let mut bench = Bench::new([Resyncing, Healthy]);
    assert_eq!(bench.seal(1), [put(A, 1), put(B, 1)]);
    assert_eq!(bench.ended(B, 1, PutEnd::Receipt), [], "the other is being tried");
    assert_eq!(bench.ended(A, 1, PutEnd::Failed), [propose(1, [false, true], 1)]);
    // It is not tried while that is decided, not even when the wait is over.
    assert_eq!(bench.mirror.deadline_ms(), None);
    bench.now_ms += 60_000;
    assert_eq!(bench.say(Input::Tick), []);
    assert_eq!(bench.proposed(1, ProposalEnd::Accepted), [Output::Release { segment: segment(1) }]);
}

#[test]
fn a_miss_of_one_resync_is_no_miss_of_the_next() {
    let mut bench = Bench::new([Resyncing, Healthy]);
    bench.seal(1);
    bench.ended(A, 1, PutEnd::Failed);
    assert_eq!(bench.roles(2, B, [Failed, Healthy]), []);
    assert_eq!(bench.roles(3, B, [Resyncing, Healthy]), [put(A, 1)]);
    assert_eq!(bench.ended(B, 1, PutEnd::Receipt), []);
    assert_eq!(bench.ended(A, 1, PutEnd::Receipt), [propose(1, [true, true], 3)]);
}

#[test]
fn a_put_under_way_is_given_up_when_its_miss_is_on_record() {
    let mut bench = Bench::new([Resyncing, Healthy]);
    bench.seal(1);
    bench.ended(A, 1, PutEnd::Failed);
    assert_eq!(bench.next(), [put(A, 1)], "the other cloud is not ready, so there is time for another try");
    assert_eq!(bench.ended(B, 1, PutEnd::Receipt), [propose(1, [false, true], 1)]);
    let released = [cancel(A, 1), Output::Release { segment: segment(1) }];
    assert_eq!(bench.proposed(1, ProposalEnd::Accepted), released);
    assert_eq!(bench.ended(A, 1, PutEnd::Receipt), []);
}
