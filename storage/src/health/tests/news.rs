//! What people see and are told of a cloud that fails and has not failed yet.

use super::*;

impl Bench {
    fn streak(&self, cloud: CloudId) -> Option<Streak> {
        self.health.streak(self.now_ms, cloud)
    }

    /// What people know of each cloud: whether it fails, and since when it does so no more.
    pub(super) fn told(&self) -> [(bool, Option<u64>); 2] {
        self.health.clouds.each_ref().map(|watch| (watch.told, watch.calm_since_ms))
    }
}

fn fails_of(news: &[News]) -> Option<(CloudId, u32, &str)> {
    match news {
        [News::Fails { cloud, streak, why }] => Some((*cloud, streak.failures, &why[..])),
        _ => None,
    }
}

#[test]
fn a_streak_is_on_show_from_its_first_failure_to_the_success() {
    let mut bench = Bench::new(healthy());
    assert_eq!(bench.streak(CloudId::A), None);
    bench.fail_quietly(CloudId::A, 1, 1);
    bench.fail_quietly(CloudId::A, 2, 1);
    bench.now_ms += 72_000;
    bench.fail_quietly(CloudId::A, 1, 86);
    bench.now_ms += 500;
    let streak = Streak { piece: piece(1), failures: 87, first_ms_ago: 72_500, last_ms_ago: 500, pieces: 2 };
    assert_eq!((bench.streak(CloudId::A), bench.streak(CloudId::B)), (Some(streak), None));
    bench.now_ms += 3_600_000;
    assert_eq!(bench.streak(CloudId::A).map(|streak| streak.failures), Some(87), "nothing has worked since");
    bench.succeed(CloudId::A, 2, 5);
    assert_eq!(bench.streak(CloudId::A), None, "nobody tries piece 1 any more, and the cloud works");
    bench.fail_quietly(CloudId::A, 1, 1);
    assert_eq!(bench.streak(CloudId::A).map(|streak| streak.failures), Some(88), "it counts on");
    bench.succeed(CloudId::A, 1, 5);
    assert_eq!(bench.streak(CloudId::A), None);
}

/// One object that is bad, while all others come and go.
#[test]
fn a_piece_that_is_tried_fails_whatever_succeeds_beside_it() {
    let mut bench = Bench::new(healthy());
    for round in 1..=20 {
        bench.now_ms += 1_000;
        bench.fail_quietly(CloudId::A, 1, 1);
        bench.succeed(CloudId::A, 2, 5);
        assert_eq!(bench.streak(CloudId::A).map(|streak| streak.failures), Some(round));
    }
    assert_eq!(fails_of(&bench.health.take_news()), Some((CloudId::A, 8, "connection reset")));
}

#[test]
fn people_are_told_once_that_a_cloud_fails_and_once_that_it_works_again() {
    let mut bench = Bench::new(healthy());
    for _ in 0..2 {
        bench.fail_quietly(CloudId::A, 1, 7);
        bench.fail_quietly(CloudId::A, 2, 7);
        assert_eq!(bench.health.take_news(), [], "it may pass");
        bench.fail_quietly(CloudId::A, 1, 1);
        assert_eq!(fails_of(&bench.health.take_news()), Some((CloudId::A, 8, "connection reset")));
        bench.fail_quietly(CloudId::A, 1, 100);
        bench.fail_quietly(CloudId::A, 2, 100);
        bench.succeed(CloudId::A, 1, 5);
        assert_eq!(bench.health.take_news(), [], "piece 2 fails still");
        bench.succeed(CloudId::A, 2, 5);
        assert_eq!((bench.streak(CloudId::A), bench.health.take_news()), (None, vec![]), "it may begin again");
        let calm_ms = bench.now_ms;
        assert_eq!(bench.next(), []);
        assert_eq!(bench.now_ms - calm_ms, 300_000);
        assert_eq!(bench.health.take_news(), [News::Works { cloud: CloudId::A }]);
        bench.succeed(CloudId::A, 2, 5);
        assert_eq!((bench.health.take_news(), bench.health.deadline_ms()), (vec![], None));
    }
}

/// For an hour, with a success after every twenty failures.
#[test]
fn of_a_piece_that_fails_now_and_then_people_are_told_once() {
    let mut bench = Bench::new(healthy());
    let mut news = Vec::new();
    for _ in 0..60 {
        bench.fail_quietly(CloudId::A, 1, 20);
        bench.succeed(CloudId::A, 1, 5);
        bench.later(60_000);
        news.extend(bench.health.take_news());
    }
    assert_eq!(fails_of(&news), Some((CloudId::A, 8, "connection reset")));
    bench.fail_quietly(CloudId::A, 1, 7);
    bench.succeed(CloudId::A, 1, 5);
    bench.later(239_999);
    assert_eq!(bench.health.take_news(), [], "a few failures neither begin it anew nor end it");
    bench.later(1);
    assert_eq!(bench.health.take_news(), [News::Works { cloud: CloudId::A }]);
}

/// What failed is tried no more, and after something else has worked nobody asks for anything until the next morning.
#[test]
fn a_failure_after_a_quiet_night_is_told_though_the_last_one_was_given_up() {
    let mut bench = Bench::new(healthy());
    bench.fail_quietly(CloudId::A, 1, 8);
    assert_eq!(fails_of(&bench.health.take_news()), Some((CloudId::A, 8, "connection reset")));
    bench.now_ms += 1_000;
    bench.succeed(CloudId::A, 2, 5);
    let (worked_ms, mut news) = (bench.now_ms, vec![]);
    while bench.health.deadline_ms().is_some() {
        assert_eq!(bench.next(), []);
        news.extend(bench.health.take_news());
    }
    assert_eq!(news, [News::Works { cloud: CloudId::A }]);
    assert!(bench.now_ms - worked_ms < 360_000, "{} ms", bench.now_ms - worked_ms);
    bench.now_ms += 8 * 3_600_000;
    bench.fail_quietly(CloudId::A, 3, 8);
    assert_eq!(fails_of(&bench.health.take_news()), Some((CloudId::A, 8, "connection reset")));
}

#[test]
fn how_many_failures_are_told_is_a_setting() {
    let mut bench = Bench::with(Settings { failures_to_warn: 1, ..Settings::default() }, healthy());
    bench.fail_quietly(CloudId::B, 1, 1);
    assert_eq!(fails_of(&bench.health.take_news()), Some((CloudId::B, 1, "connection reset")));
}

/// The trip and the new roles are in the log themselves.
#[test]
fn of_a_cloud_that_has_failed_nothing_more_is_told_or_shown() {
    let mut bench = Bench::new(healthy());
    bench.fail_quietly(CloudId::A, 1, 100);
    assert_eq!(bench.health.take_news().len(), 1);
    bench.say(Input::Roles(a_failed()));
    bench.fail_quietly(CloudId::A, 1, 100);
    assert_eq!((bench.streak(CloudId::A), bench.health.take_news()), (None, vec![]));
    bench.say(Input::Roles(roles(3, CloudId::B, [CloudState::Resyncing, CloudState::Healthy])));
    assert_eq!((bench.streak(CloudId::A), bench.health.take_news()), (None, vec![]));
    bench.fail_quietly(CloudId::A, 1, 8);
    assert_eq!(fails_of(&bench.health.take_news()), Some((CloudId::A, 8, "connection reset")), "it is tried again");
}
