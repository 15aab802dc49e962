//! How slow is slow: the judgement of one attempt, by its time and its bytes.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// The cloud is slow.
    Slow,
    /// Nothing of its pace.
    Nothing,
    /// It is quick: a spell of slow answers is over.
    Quick,
}
use Says::*;

const MIB: u64 = 1 << 20;

/// Milliseconds, bytes, whether it succeeded, and what that says. With 10 s and 256 KiB/s, 8 MiB may take 42 s.
const TABLE: [(u64, u64, bool, Says); 20] = [
    (0, 0, true, Quick),
    (9_999, 0, true, Quick),
    (9_999, 0, false, Nothing),
    (10_000, 0, true, Slow),
    (10_000, 0, false, Slow),
    (10_003, 1024, true, Slow),
    (10_002, 1024, true, Nothing),
    // 8 MiB over a link of 10 Mbit/s, then of 2 Mbit/s.
    (7_000, 8 * MIB, true, Quick),
    (7_000, 8 * MIB, false, Nothing),
    (9_999, 8 * MIB, true, Quick),
    (10_000, 8 * MIB, true, Nothing),
    (41_999, 8 * MIB, true, Nothing),
    (41_999, 8 * MIB, false, Nothing),
    (42_000, 8 * MIB, true, Slow),
    (42_000, 8 * MIB, false, Slow),
    // Sixteen of them at once, each of which is told what all have to move.
    (110_000, 128 * MIB, true, Nothing),
    (521_999, 128 * MIB, true, Nothing),
    (522_000, 128 * MIB, true, Slow),
    (u64::MAX / 2, 0, true, Slow),
    (1 << 40, u64::MAX, true, Nothing),
];

/// What an attempt says, by what follows from it: a spell that goes on trips, one that is over begins anew.
fn says(took_ms: u64, bytes: u64, succeeded: bool) -> Says {
    let attempt = |piece_number, succeeded: bool, took_ms, bytes| {
        let failed = (!succeeded).then(|| "reset".to_string());
        let attempt = Attempt { piece: Some(piece(piece_number)), failed, took_ms, bytes };
        Input::Attempted { cloud: CloudId::A, attempt }
    };
    let bench = || {
        let mut bench = Bench::with(Settings { slow_for_ms: u64::MAX, ..Settings::default() }, healthy());
        bench.now_ms = u64::MAX / 2;
        bench
    };
    let is_slow = |bench: &Bench| bench.health.views()[0].slow;
    let mut before = bench();
    before.say(attempt(1, succeeded, took_ms, bytes));
    if is_slow(&before) {
        return Slow;
    }
    let mut within = bench();
    within.say(attempt(1, true, 20_000, 0));
    assert!(is_slow(&within));
    within.say(attempt(2, succeeded, took_ms, bytes));
    if is_slow(&within) { Nothing } else { Quick }
}

#[test]
fn every_time_and_size_has_its_judgement() {
    for (took_ms, bytes, succeeded, expected) in TABLE {
        let got = says(took_ms, bytes, succeeded);
        assert_eq!(got, expected, "{took_ms} ms for {bytes} bytes, succeeded: {succeeded}");
    }
}

/// An uplink of 4 Mbit/s, always busy with whole segments: its clouds are well.
#[test]
fn a_thin_uplink_is_no_brown_out() {
    let mut bench = Bench::new(healthy());
    for number in 0..1000 {
        bench.now_ms += 17_000;
        let attempt = Attempt { piece: Some(piece(number)), failed: None, took_ms: 17_000, bytes: 8 * MIB };
        assert_eq!(bench.say(Input::Attempted { cloud: CloudId::A, attempt }), []);
    }
}

/// Big bodies that say nothing do not hide that every small one is slow.
#[test]
fn a_brown_out_is_seen_among_big_bodies() {
    let mut bench = Bench::new(healthy());
    let mut trips = 0;
    for number in 0..5 {
        for bytes in [8 * MIB, 1000] {
            bench.now_ms += 15_000;
            let attempt = Attempt { piece: Some(piece(number)), failed: None, took_ms: 30_000, bytes };
            trips += bench.say(Input::Attempted { cloud: CloudId::A, attempt }).len();
        }
    }
    assert_eq!(trips, 1);
}

/// Deletes are told so: a cloud that lets them hang and takes and gives data is whole.
#[test]
fn what_is_counted_for_people_alone_is_no_brown_out() {
    let mut bench = Bench::new(healthy());
    for failed in [Some("no answer within 10000 ms"), None] {
        for _ in 0..30 {
            bench.now_ms += 10_000;
            assert_eq!(bench.attempted(CloudId::A, None, failed, 10_000), []);
        }
        assert_eq!(bench.health.views()[0], CloudView { reachable: None, failures: 0, slow: false });
    }
}
