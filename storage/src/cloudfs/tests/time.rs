use super::*;
use crate::cloudfs::time::{AHEAD_NS_MAX, SILENT_MS_MAX};

const SGP: FilerId = FilerId(0xc);
const MINUTE_MS: u64 = 60_000;
const MINUTE_NS: u64 = 60_000_000_000;
const YEAR_NS: u64 = 365 * 24 * 60 * MINUTE_NS;

/// Filers that show their clocks.
struct Clocks(Bench);

impl Clocks {
    fn show(&mut self, filer: FilerId, wall_ns: u64, since_ms: u64) -> u64 {
        self.0.filer = filer;
        // The bench adds these.
        self.0.wall_ns = wall_ns - 10;
        self.0.ok(OpBody::Clock { since_ms });
        self.newest_ns()
    }

    /// A filer changes something.
    fn touch(&mut self, filer: FilerId, wall_ns: u64) {
        self.0.filer = filer;
        self.0.wall_ns = wall_ns - 10;
        self.0.ok(OpBody::SetAttr { file: ROOT, change: AttrChange::default(), guard_ctime_ns: None });
    }

    fn newest_ns(&self) -> u64 {
        read::newest_ns(&self.0.kv).expect("memory does not fail")
    }
}

/// Two filers that agree on the time.
fn agreed() -> (Clocks, u64) {
    let mut clocks = Clocks(Bench::new());
    let now_ns = 50 * YEAR_NS;
    assert_eq!(clocks.show(AMS, now_ns, 0), now_ns);
    clocks.show(NYC, now_ns, 0);
    (clocks, now_ns)
}

#[test]
fn one_clock_that_is_years_ahead_does_not_make_the_time() {
    let (mut clocks, mut now_ns) = agreed();
    for _ in 0..1_000 {
        now_ns += MINUTE_NS;
        let right = clocks.show(NYC, now_ns, MINUTE_MS);
        assert!(right >= now_ns && right <= now_ns + AHEAD_NS_MAX);
        let wrong = clocks.show(AMS, now_ns + 10 * YEAR_NS, MINUTE_MS);
        assert!(wrong <= now_ns + AHEAD_NS_MAX, "ahead by {} ns", wrong - now_ns);
    }
    // Put right, all is right.
    now_ns += AHEAD_NS_MAX + MINUTE_NS;
    assert_eq!(clocks.show(NYC, now_ns, MINUTE_MS), now_ns);
    now_ns += MINUTE_NS;
    assert_eq!(clocks.show(AMS, now_ns, MINUTE_MS), now_ns);
}

#[test]
fn a_fast_clock_does_not_make_the_time() {
    let (mut clocks, now_ns) = agreed();
    for n in 0..1_000 {
        let at_ns = clocks.show(AMS, now_ns + n * MINUTE_NS, 0);
        // Each operation is later than the one before, if only by a nanosecond.
        assert!(at_ns <= now_ns + AHEAD_NS_MAX + 1_000);
    }
}

#[test]
fn time_that_all_clocks_agree_on_is_believed_after_an_outage() {
    let (mut clocks, before_ns) = agreed();
    let now_ns = before_ns + YEAR_NS;
    assert_eq!(clocks.show(AMS, now_ns, 0), before_ns + AHEAD_NS_MAX, "nobody confirms it yet");
    assert_eq!(clocks.show(NYC, now_ns, 0), now_ns);
    assert_eq!(clocks.show(AMS, now_ns + 1_000, 0), now_ns + 1_000);
}

#[test]
fn a_clock_that_is_behind_does_not_stop_the_time() {
    let (mut clocks, now_ns) = agreed();
    for minute in 1..100 {
        let then_ns = now_ns + minute * MINUTE_NS;
        clocks.show(NYC, then_ns - YEAR_NS, MINUTE_MS);
        assert_eq!(clocks.show(AMS, then_ns, MINUTE_MS), then_ns);
    }
}

#[test]
fn a_filer_that_is_gone_does_not_stop_the_time() {
    let (mut clocks, now_ns) = agreed();
    // NYC says nothing any more; AMS is the only filer left.
    for minute in 1..100 {
        let then_ns = now_ns + minute * MINUTE_NS;
        assert_eq!(clocks.show(AMS, then_ns, MINUTE_MS), then_ns);
    }
    // Coming back, its clock counts again.
    let then_ns = now_ns + 100 * MINUTE_NS;
    clocks.show(NYC, then_ns, 0);
    assert_eq!(clocks.show(AMS, then_ns + YEAR_NS, MINUTE_MS), then_ns + AHEAD_NS_MAX);
}

#[test]
fn a_filer_that_was_away_for_long_does_not_call_the_others_silent() {
    let (mut clocks, now_ns) = agreed();
    clocks.show(AMS, now_ns + YEAR_NS, 10 * SILENT_MS_MAX);
    assert!(clocks.show(AMS, now_ns + YEAR_NS, 0) <= now_ns + AHEAD_NS_MAX + 10);
    // Nor does one that starts again and again.
    for _ in 0..100 {
        assert!(clocks.show(AMS, now_ns + YEAR_NS, 0) <= now_ns + AHEAD_NS_MAX + 200);
    }
}

#[test]
fn the_only_filer_is_believed() {
    let mut clocks = Clocks(Bench::new());
    assert_eq!(clocks.show(AMS, YEAR_NS, 0), YEAR_NS);
    assert_eq!(clocks.show(AMS, 2 * YEAR_NS, 0), 2 * YEAR_NS);
}

#[test]
fn two_of_three_clocks_make_the_time() {
    let (mut clocks, now_ns) = agreed();
    clocks.show(SGP, now_ns - YEAR_NS, 0);
    let then_ns = now_ns + MINUTE_NS;
    assert_eq!(clocks.show(AMS, then_ns, MINUTE_MS), then_ns);
    assert_eq!(clocks.show(NYC, then_ns + YEAR_NS, MINUTE_MS), then_ns + AHEAD_NS_MAX);
}

#[test]
fn what_happens_has_the_agreed_time() {
    let (mut clocks, now_ns) = agreed();
    let bench = &mut clocks.0;
    (bench.filer, bench.wall_ns) = (AMS, now_ns + YEAR_NS);
    let file = bench.file(ROOT, "f");
    let (extents, mtime_ns) = (vec![extent(0, 10, seg(1))], now_ns + YEAR_NS);
    bench.ok(OpBody::Write { file, extents, mtime_ns, clears_set_id: false });
    let attr = bench.attr(file);
    assert!(attr.mtime_ns <= now_ns + AHEAD_NS_MAX + 100 && attr.ctime_ns <= now_ns + AHEAD_NS_MAX + 100);
    bench.ok(stored(seg(1), [true, true], Epoch(1)));
    bench.ok(remove(ROOT, "f"));
    let since_ns = bench.segment(seg(1)).and_then(|segment| segment.dead_since_ns).expect("it is dead");
    assert!(since_ns <= now_ns + AHEAD_NS_MAX + 100);
}

#[test]
fn the_time_goes_on_behind_the_only_clock_that_was_years_ahead_and_was_put_right() {
    let mut clocks = Clocks(Bench::new());
    let right_ns = 50 * YEAR_NS;
    let wrong_ns = clocks.show(AMS, right_ns + 10 * YEAR_NS, 0);
    assert_eq!(wrong_ns, right_ns + 10 * YEAR_NS, "nobody knows better");
    let half_as_fast = |minutes: u64, passed_ns: u64| {
        let half_ns = minutes * MINUTE_NS / 2;
        assert!((half_ns..half_ns + 1_000).contains(&passed_ns), "{passed_ns} ns in {minutes} minutes");
    };
    for minute in 1..=10 {
        let shown = clocks.show(AMS, right_ns + minute * MINUTE_NS, MINUTE_MS);
        half_as_fast(minute, shown - wrong_ns);
    }
    // With others, whose clocks are as far behind, it goes no faster.
    let before_ns = clocks.newest_ns();
    for minute in 11..=20 {
        for filer in [NYC, SGP, AMS] {
            clocks.show(filer, right_ns + minute * MINUTE_NS, MINUTE_MS);
        }
    }
    half_as_fast(10, clocks.newest_ns() - before_ns);
}

#[test]
fn a_right_clock_has_its_say_again_where_the_time_was_an_hour_ahead() {
    let mut clocks = Clocks(Bench::new());
    let right_ns = 50 * YEAR_NS;
    clocks.show(AMS, right_ns + 60 * MINUTE_NS, 0);
    let makes_the_time = |minute: &u64| {
        let now_ns = right_ns + minute * MINUTE_NS;
        clocks.show(AMS, now_ns, MINUTE_MS) == now_ns
    };
    // It comes nearer by half a minute a minute, up to ten minutes, and then the time waits for it.
    let minute = (1..=180).find(makes_the_time).expect("it makes the time again");
    assert!((108..=111).contains(&minute), "after {minute} minutes");
    let now_ns = right_ns + (minute + 1) * MINUTE_NS;
    let wrong = clocks.show(NYC, now_ns + 10 * YEAR_NS, 0);
    assert_eq!(wrong, now_ns - MINUTE_NS + AHEAD_NS_MAX, "what it has shown contradicts one that is wrong");
}

/// A CloudFS whose only filer's clock was years ahead, and the right time.
fn years_ahead() -> (Clocks, u64) {
    let mut clocks = Clocks(Bench::new());
    let right_ns = 50 * YEAR_NS;
    clocks.show(AMS, right_ns + 10 * YEAR_NS, 0);
    (clocks, right_ns)
}

/// By how much the time goes on in an hour in which `order` show their clocks once a minute, all of them years behind.
/// `is_busy`: each changes something before every word of another.
fn passed_in_an_hour(order: &[u64], is_busy: bool) -> u64 {
    let (mut clocks, right_ns) = years_ahead();
    let apart_ns = MINUTE_NS / order.len() as u64;
    let mut before_ns = clocks.newest_ns();
    for minute in 1..=63 {
        for (place, filer) in order.iter().enumerate() {
            let wall_ns = right_ns + minute * MINUTE_NS + place as u64 * apart_ns;
            for other in order.iter().filter(|_| is_busy) {
                clocks.touch(FilerId(*other), wall_ns - 1_000);
            }
            clocks.show(FilerId(*filer), wall_ns, if minute == 1 { 0 } else { MINUTE_MS });
        }
        // In the first minutes some are not known yet, and the one that was wrong may be gone.
        if minute == 3 {
            before_ns = clocks.newest_ns();
        }
    }
    clocks.newest_ns() - before_ns
}

#[test]
fn any_number_of_filers_in_any_order_makes_the_time_go_on_half_as_fast() {
    for count in [1, 2, 3, 6, 7, 8, 9, 16, 70] {
        let up: Vec<u64> = (10..10 + count).collect();
        let down: Vec<u64> = up.iter().rev().copied().collect();
        let mixed: Vec<u64> = (0..count).map(|n| 10 + n * 11 % count).collect();
        for order in [up, down, mixed] {
            for is_busy in [false, count < 10] {
                let passed_ns = passed_in_an_hour(&order, is_busy);
                let half = 29 * MINUTE_NS..=31 * MINUTE_NS;
                assert!(half.contains(&passed_ns), "{passed_ns} ns in an hour of {order:?}, busy: {is_busy}");
            }
        }
    }
}

#[test]
fn filers_that_start_again_and_again_do_not_stop_the_time_behind_a_clock_that_was_wrong() {
    for restarting in [AMS, NYC, SGP] {
        let (mut clocks, right_ns) = years_ahead();
        let before_ns = clocks.newest_ns();
        for minute in 1..=60 {
            for filer in [AMS, NYC, SGP] {
                let since_ms = if filer == restarting || minute == 1 { 0 } else { MINUTE_MS };
                clocks.show(filer, right_ns + minute * MINUTE_NS, since_ms);
            }
        }
        let passed_ns = clocks.newest_ns() - before_ns;
        assert!((28 * MINUTE_NS..=30 * MINUTE_NS).contains(&passed_ns), "{passed_ns} ns beside {restarting}");
    }
}

#[test]
fn the_time_goes_on_by_half_of_what_a_filer_says_has_passed() {
    let (mut clocks, right_ns) = years_ahead();
    // What is longer than a minute may have been spent elsewhere.
    for (since_ms, by_ns) in
        [(0, 1), (1, 500_000), (1_500, 750_000_000), (u64::MAX, MINUTE_NS / 2), (MINUTE_MS, MINUTE_NS / 2)]
    {
        let before_ns = clocks.newest_ns();
        let passed_ns = clocks.show(AMS, right_ns, since_ms) - before_ns;
        assert!((by_ns..=by_ns + 1).contains(&passed_ns), "{passed_ns} ns for {since_ms} ms");
    }
}

#[test]
fn a_clock_ten_minutes_behind_has_its_say_and_one_that_is_further_behind_has_none() {
    let second_ns = 1_000_000_000;
    for (behind_s, by_ns) in [(598, 1), (602, MINUTE_NS / 2)] {
        let mut clocks = Clocks(Bench::new());
        let ahead_ns = 50 * YEAR_NS;
        clocks.show(AMS, ahead_ns, 0);
        let passed_ns = clocks.show(AMS, ahead_ns - behind_s * second_ns, MINUTE_MS) - ahead_ns;
        assert!((by_ns..=by_ns + 1).contains(&passed_ns), "{passed_ns} ns at {behind_s} s");
    }
}

#[test]
fn one_clock_that_is_right_makes_the_time_whatever_the_others_show() {
    let (mut clocks, now_ns) = agreed();
    for minute in 1..=60 {
        let then_ns = now_ns + minute * MINUTE_NS;
        for wrong in [AMS, SGP] {
            clocks.show(wrong, then_ns - YEAR_NS, MINUTE_MS);
        }
        assert_eq!(clocks.show(NYC, then_ns, MINUTE_MS), then_ns);
    }
}

#[test]
fn a_filer_counts_as_silent_after_four_minutes_however_many_others_there_are() {
    for others in [2, 5, 8] {
        let (mut clocks, now_ns) = agreed();
        // Two that are right say nothing any more. They contradict one that is ahead, and all others are too far behind to.
        let filers: Vec<FilerId> = (0..others).map(|n| FilerId(100 + n)).collect();
        let mut contradicted = 0;
        for minute in 0..10 {
            let since_ms = if minute == 0 { 0 } else { MINUTE_MS };
            if clocks.show(filers[0], now_ns + YEAR_NS, since_ms) < now_ns + YEAR_NS {
                contradicted = minute;
            }
            for behind in &filers[1..] {
                clocks.show(*behind, now_ns - YEAR_NS, since_ms);
            }
        }
        assert!((4..=5).contains(&contradicted), "{contradicted} minutes beside {others}");
    }
}

#[test]
fn the_time_goes_on_behind_the_latest_that_a_clock_can_show() {
    let mut clocks = Clocks(Bench::new());
    let latest_ns = clocks.show(AMS, u64::MAX, 0);
    let now_ns = 50 * YEAR_NS;
    for minute in 1..=10 {
        clocks.show(AMS, now_ns + minute * MINUTE_NS, MINUTE_MS);
    }
    assert!(clocks.newest_ns() >= latest_ns + 5 * MINUTE_NS);
}

#[test]
fn a_filer_that_shows_no_clock_and_changes_files_has_its_say() {
    let (mut clocks, now_ns) = agreed();
    for second in 1..=600 {
        let then_ns = now_ns + second * MINUTE_NS / 60;
        clocks.touch(NYC, then_ns);
        // In the same moment the other one's clock is years ahead.
        let wrong_ns = then_ns + 10 * YEAR_NS;
        if second % 60 == 0 {
            clocks.show(AMS, wrong_ns, MINUTE_MS);
        }
        clocks.touch(AMS, wrong_ns);
        assert!(clocks.newest_ns() <= then_ns + AHEAD_NS_MAX + 1_000, "in second {second}");
    }
}

#[test]
fn the_filers_that_are_left_make_the_time_when_ten_are_lost_at_once() {
    let mut clocks = Clocks(Bench::new());
    let now_ns = 50 * YEAR_NS;
    let [lost, left] = [10..20, 20..31].map(|numbers| numbers.map(FilerId));
    for filer in lost.chain(left.clone()) {
        clocks.show(filer, now_ns, 0);
    }
    let mut then_ns = now_ns;
    for minute in 1..=60 {
        then_ns = now_ns + minute * MINUTE_NS;
        for filer in left.clone() {
            clocks.show(filer, then_ns, MINUTE_MS);
        }
    }
    let newest_ns = clocks.newest_ns();
    assert!((then_ns..then_ns + 1_000).contains(&newest_ns), "{newest_ns} instead of {then_ns}");
}
