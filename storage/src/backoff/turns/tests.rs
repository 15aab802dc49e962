use super::*;
use mesh::{FilerId, clock::SeededRandom};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn piece(number: u64) -> SegmentId {
    SegmentId { filer: FilerId(1), number }
}

/// The machine on virtual time.
struct Bench {
    now_ms: u64,
    random: SeededRandom,
    turns: Turns,
    next: u64,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        Self { now_ms: 1_000, random: SeededRandom::new(7), turns: Turns::new(settings), next: 0 }
    }

    fn say(&mut self, input: Input) -> Vec<Output> {
        self.turns.handle(self.now_ms, &self.random, input)
    }

    /// Asks for piece 1; gives the number of the ask, and what follows.
    fn ask(&mut self, joins: bool) -> (u64, Vec<Output>) {
        self.next += 1;
        (self.next, self.say(Input::Asked { ask: self.next, piece: piece(1), joins }))
    }

    fn ended(&mut self, ask: u64, failed: bool) -> Vec<Output> {
        self.say(Input::Ended { ask, failed })
    }

    /// Ticks at the machine's own deadline; gives how long that was away.
    fn next(&mut self) -> (u64, Vec<Output>) {
        let deadline_ms = self.turns.deadline_ms().expect("something waits");
        let waited_ms = deadline_ms.saturating_sub(self.now_ms);
        self.now_ms = self.now_ms.max(deadline_ms);
        (waited_ms, self.say(Input::Tick))
    }
}

fn begin(ask: u64) -> Vec<Output> {
    vec![Output::Begin { ask }]
}

#[test]
fn a_piece_that_works_is_tried_by_a_few_at_once_and_others_follow() {
    let mut bench = Bench::new(Settings::default());
    for number in 1..=4 {
        assert_eq!(bench.ask(true), (number, begin(number)));
    }
    assert_eq!(bench.ask(true).1, []);
    assert_eq!(bench.ask(false).1, []);
    assert_eq!(bench.ended(3, false), begin(5));
    assert_eq!(bench.ended(1, false), begin(6));
    for ask in [2, 4, 5, 6] {
        assert_eq!(bench.ended(ask, false), []);
    }
    assert!(bench.turns.pieces.is_empty(), "nothing is to be remembered");
    assert_eq!(bench.turns.deadline_ms(), None);
}

/// One client's large read asks for many frames of one segment: that must not be as many failures in one moment.
#[test]
fn many_that_ask_at_once_make_few_failures_and_then_one_after_each_wait() {
    let mut bench = Bench::new(Settings::default());
    let mut attempts = 0;
    let asks: Vec<u64> = (0..200).map(|_| bench.ask(true).0).collect();
    let mut joined = BTreeSet::new();
    for ask in &asks[..4] {
        attempts += 1;
        for output in bench.ended(*ask, true) {
            let Output::Join { ask, with } = output else { panic!("nothing begins before its wait is over") };
            assert_eq!(with, asks[0], "the first failure is shared by all who wait");
            joined.insert(ask);
        }
    }
    assert_eq!(joined, asks[4..].iter().copied().collect());
    assert_eq!(bench.turns.failures_of(piece(1)), 4);
    // All of them ask again, and again: the piece is tried by one at a time, up to a second apart.
    let started_ms = bench.now_ms;
    while bench.turns.failures_of(piece(1)) < 160 {
        let asks: Vec<u64> = (0..196).map(|_| bench.ask(true).0).collect();
        let (waited_ms, outputs) = bench.next();
        assert!(waited_ms <= 1000);
        assert_eq!(outputs, begin(asks[0]));
        attempts += 1;
        assert_eq!(bench.ended(asks[0], true).len(), 195);
    }
    assert_eq!(attempts, 160, "each attempt is one failure");
    assert!(bench.now_ms - started_ms > 75_000, "160 failures in a row take a while: {started_ms}..{}", bench.now_ms);
}

#[test]
fn a_success_lets_all_who_wait_try() {
    let mut bench = Bench::new(Settings::default());
    bench.ask(true);
    bench.ended(1, true);
    for _ in 2..=4 {
        assert_eq!(bench.ask(true).1, []);
    }
    assert_eq!(bench.next().1, begin(2));
    assert_eq!(bench.ended(2, false), [Output::Begin { ask: 3 }, Output::Begin { ask: 4 }]);
    assert_eq!(bench.turns.failures_of(piece(1)), 0);
}

#[test]
fn who_does_not_join_waits_for_its_turn_and_gets_it() {
    let mut bench = Bench::new(Settings::default());
    bench.ask(true);
    bench.ended(1, true);
    assert_eq!(bench.ask(true).1, []);
    assert_eq!(bench.ask(false).1, []);
    assert_eq!(bench.ask(true).1, []);
    assert_eq!(bench.next().1, begin(2));
    assert_eq!(bench.ended(2, true), [Output::Join { ask: 4, with: 2 }], "a put has no use for a read's failure");
    assert_eq!(bench.ask(true).1, []);
    assert_eq!(bench.next().1, [Output::Begin { ask: 3 }, Output::Begin { ask: 5 }], "a read does not wait for a put");
    assert_eq!(bench.ask(true).1, []);
    assert_eq!(bench.ended(3, true), [], "and has no use for its failure");
    assert_eq!(bench.ended(5, true), [Output::Join { ask: 6, with: 5 }]);
}

/// The copy of a whole segment over a thin link, or one that hangs.
#[test]
fn a_client_does_not_wait_for_a_copy_of_what_has_failed() {
    let mut bench = Bench::new(Settings::default());
    bench.ask(false);
    bench.ended(1, true);
    assert_eq!(bench.ask(false).1, []);
    assert_eq!(bench.next().1, begin(2));
    assert_eq!(bench.ask(false).1, [], "another copy waits");
    assert_eq!(bench.ask(true).1, begin(4));
    assert_eq!(bench.ask(true).1, [], "another read too");
    assert_eq!(bench.ended(4, false), [Output::Begin { ask: 3 }, Output::Begin { ask: 5 }], "the piece can be read");
}

#[test]
fn pieces_do_not_wait_for_each_other() {
    let mut bench = Bench::new(Settings::default());
    bench.ask(false);
    bench.ended(1, true);
    assert_eq!(bench.ask(false).1, []);
    assert_eq!(bench.say(Input::Asked { ask: 100, piece: piece(2), joins: false }), begin(100));
}

#[test]
fn who_waits_is_bounded_and_the_refused_one_is_told() {
    let mut bench = Bench::new(Settings { waiting_max: 3, ..Settings::default() });
    bench.ask(true);
    bench.ended(1, true);
    for _ in 2..=4 {
        assert_eq!(bench.ask(true).1, []);
    }
    assert_eq!(bench.ask(true), (5, vec![Output::Refuse { ask: 5 }]));
    assert_eq!(bench.next().1, begin(2));
    assert_eq!(bench.ask(true).1, []);
}

#[test]
fn remembered_pieces_are_bounded_and_the_least_failed_is_forgotten() {
    let mut bench = Bench::new(Settings { pieces_max: 10, ..Settings::default() });
    for _ in 0..3 {
        let ask = bench.ask(false).0;
        if bench.turns.deadline_ms().is_some() {
            bench.next();
        }
        bench.ended(ask, true);
    }
    for number in 2..1000 {
        bench.say(Input::Asked { ask: 10_000 + number, piece: piece(number), joins: false });
        bench.ended(10_000 + number, true);
        assert!(bench.turns.pieces.len() <= 10);
    }
    assert_eq!(bench.turns.failures_of(piece(1)), 3);
}

#[test]
fn after_clearing_late_ends_have_no_consequence() {
    let mut bench = Bench::new(Settings::default());
    bench.ask(true);
    bench.ask(true);
    bench.turns.clear();
    assert_eq!(bench.ended(1, true), []);
    assert_eq!(bench.ended(2, false), []);
    assert_eq!((bench.turns.failures_of(piece(1)), bench.turns.deadline_ms()), (0, None));
    assert_eq!(bench.ask(true), (3, begin(3)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is asked and however it ends: everyone is answered once, a failing piece is tried by one at a time (and a
    /// reader beside another) and not before its wait is over, and the deadline is never one at which nothing happens.
    #[test]
    fn everyone_is_answered_once(turns in prop::collection::vec((0_u8..5, 0_u64..3, any::<bool>(), 0_u64..300), 1..200)) {
        let mut bench = Bench::new(Settings { attempts_per_piece_max: 3, waiting_max: 20, ..Settings::default() });
        let (mut open, mut under_way) = (BTreeSet::new(), BTreeMap::<u64, u64>::new());
        let (mut of, mut joins) = (BTreeMap::new(), BTreeSet::new());
        let ends = turns.len() as u64 * 4;
        for (kind, number, yes, wait_ms) in turns.into_iter().chain((0..ends).map(|_| (4, 0, false, 1000))) {
            bench.now_ms += wait_ms;
            let ended = under_way.keys().next().copied();
            let outputs = match (kind, ended) {
                (0 | 1, _) => {
                    bench.next += 1;
                    open.insert(bench.next);
                    of.insert(bench.next, number);
                    joins.extend(yes.then_some(bench.next));
                    bench.say(Input::Asked { ask: bench.next, piece: piece(number), joins: yes })
                }
                (_, Some(ask)) => {
                    under_way.remove(&ask);
                    bench.ended(ask, yes)
                }
                _ => bench.say(Input::Tick),
            };
            let ticked = bench.say(Input::Tick);
            for output in outputs.into_iter().chain(ticked) {
                let (Output::Begin { ask } | Output::Join { ask, .. } | Output::Refuse { ask }) = output;
                prop_assert!(open.remove(&ask), "{ask} is answered twice");
                if let Output::Begin { ask } = output {
                    let id = of[&ask];
                    let others: Vec<u64> =
                        under_way.iter().filter(|(_, other)| **other == id).map(|(other, _)| *other).collect();
                    prop_assert!(others.len() < 3);
                    let beside = joins.contains(&ask) && others.len() == 1 && !joins.contains(&others[0]);
                    prop_assert!(bench.turns.failures_of(piece(id)) == 0 || others.is_empty() || beside);
                    under_way.insert(ask, id);
                }
            }
            if let Some(deadline_ms) = bench.turns.deadline_ms().filter(|deadline_ms| *deadline_ms <= bench.now_ms) {
                prop_assert!(false, "due at {deadline_ms} ms, and it is {} ms", bench.now_ms);
            }
        }
        prop_assert!(open.is_empty() && under_way.is_empty(), "{open:?} {under_way:?}");
    }
}
