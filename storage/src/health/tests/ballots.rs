//! What a filer says of both clouds when it is asked.

use super::*;

const NOTHING: CloudView = CloudView { reachable: None, failures: 0, slow: false };

impl Bench {
    fn ballot(&self) -> Ballot {
        self.health.ballot(self.now_ms).expect("it knows the roles")
    }
}

#[test]
fn who_knows_no_roles_has_no_ballot() {
    assert_eq!(Health::new(ME, Settings::default()).ballot(5), None);
    assert_eq!(Bench::new(healthy()).ballot(), Ballot { filer: ME, epoch: Epoch(1), views: [NOTHING; 2] });
}

/// A read was given up hours ago: its count must not help to trip a cloud today.
#[test]
fn what_was_seen_long_ago_is_on_no_ballot() {
    let mut bench = Bench::new(healthy());
    bench.fail_quietly(CloudId::A, 1, 100);
    bench.now_ms += 20_000;
    bench.fail_quietly(CloudId::A, 2, 3);
    assert_eq!(bench.ballot().views[0], CloudView { reachable: Some(false), failures: 100, slow: false });
    bench.now_ms += 10_001;
    assert_eq!(bench.ballot().views[0].failures, 3, "piece 1 has not been tried for 30 s");
    bench.now_ms += 20_000;
    assert_eq!(bench.ballot().views[0], NOTHING);
    assert_eq!(bench.health.views()[0].failures, 100, "it is on show all the same");
    bench.fail_quietly(CloudId::A, 1, 1);
    assert_eq!(bench.ballot().views[0].failures, 101, "and counts on");
}

#[test]
fn slowness_is_on_the_ballot_while_it_lasts() {
    let mut bench = Bench::new(healthy());
    bench.succeed(CloudId::B, 1, 20_000);
    assert_eq!(bench.ballot().views[1], CloudView { reachable: Some(true), failures: 0, slow: true });
    bench.succeed(CloudId::B, 1, 20);
    assert!(!bench.ballot().views[1].slow);
    bench.succeed(CloudId::B, 1, 20_000);
    bench.now_ms += 30_001;
    assert_eq!(bench.ballot().views[1], NOTHING);
}

#[test]
fn a_ballot_is_of_the_epoch_of_its_views() {
    let mut bench = Bench::new(healthy());
    bench.fail_quietly(CloudId::A, 1, 50);
    bench.say(Input::Roles(a_failed()));
    assert_eq!(bench.ballot(), Ballot { filer: ME, epoch: Epoch(2), views: [NOTHING; 2] }, "judged since");
}

/// Filers with nothing to do must look before they can agree.
#[test]
fn who_is_asked_looks_at_what_it_has_not_seen_lately() {
    let mut bench = Bench::new(healthy());
    let probe = |cloud| Output::Probe { cloud };
    assert_eq!(bench.say(Input::BallotAsked), [probe(CloudId::A), probe(CloudId::B)]);
    assert_eq!(bench.say(Input::BallotAsked), [], "it is looking");
    assert_eq!(bench.probed(CloudId::A, false), []);
    assert_eq!(bench.probed(CloudId::B, true), []);
    let views = bench.ballot().views.map(|view| view.reachable);
    assert_eq!(views, [Some(false), Some(true)]);
    assert_eq!(bench.health.failures(CloudId::A).0, 0, "a probe is no attempt");
    assert_eq!(bench.say(Input::BallotAsked), [], "it has seen both");
    bench.now_ms += 15_001;
    assert_eq!(bench.succeed(CloudId::B, 1, 5), []);
    assert_eq!(bench.say(Input::BallotAsked), [probe(CloudId::A)]);
    assert_eq!(bench.health.deadline_ms(), None);
}

/// A look that began before the cloud failed says nothing of whether it is back.
#[test]
fn an_answer_to_a_probe_of_before_does_not_count() {
    let mut bench = Bench::new(healthy());
    bench.say(Input::BallotAsked);
    assert_eq!(bench.say(Input::Roles(a_failed())), []);
    bench.now_ms += 5_000;
    assert_eq!(bench.probed(CloudId::A, true), [Output::Probe { cloud: CloudId::A }], "and not reached");
    assert_eq!(bench.probed(CloudId::A, true).len(), 1);
}
