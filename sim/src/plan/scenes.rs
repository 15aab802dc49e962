//! The scenes: which faults a seed draws from, and those whose faults are told one by one.

use super::{Fault, Plan, What, draw::YEAR_MS};
use crate::world::clouds::Trouble;

/// A family of faults, with how often it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Clouds,
    Crashes,
    Network,
    Operators,
    Disks,
    Clocks,
    Members,
}

/// How a scene gets its faults.
pub enum Faults {
    /// Drawn from these families, one as often as it stands there; the mean time between two of them, in milliseconds, is
    /// one of `every_ms`.
    Drawn { families: &'static [Family], every_ms: &'static [u64] },
    /// Told.
    Told(fn(&mut Plan)),
}

/// A scene.
pub struct Scene {
    pub name: &'static str,
    /// A line that says what happens.
    pub text: &'static str,
    pub faults: Faults,
    /// What must have happened at the end, as coverage counts it: otherwise the scene has shown nothing.
    pub shows: &'static [&'static str],
}

/// The longest that a client may wait for an answer where links are bad or leaders die, and a majority of filers is there, in
/// milliseconds: an election and several round trips, behind what others wait for.
const ANSWERED_MS_MAX: u64 = 15_000;

use Family::{Clocks, Clouds, Crashes, Disks, Members, Network, Operators};

/// All scenes.
pub const SCENES: &[Scene] = &[
    drawn(
        "mixed",
        "everything that can go wrong, at random",
        &[Clouds, Clouds, Clouds, Crashes, Crashes, Network, Network, Operators, Disks, Clocks, Members],
        &[4_000, 10_000, 20_000],
    ),
    drawn(
        "chaos",
        "everything that can go wrong, most of the time",
        &[Clouds, Clouds, Crashes, Network, Operators, Disks, Clocks, Members],
        &[1_500, 3_000],
    ),
    drawn("calm", "nothing goes wrong", &[], &[1_000]),
    drawn(
        "clouds",
        "troubles of clouds alone: outages, slowness, errors, late puts, wrong answers",
        &[Clouds],
        &[4_000, 10_000, 20_000],
    ),
    drawn(
        "crashes",
        "filers lose power, at effects and in recoveries, while clouds come and go",
        &[Clouds, Crashes, Crashes],
        &[4_000, 10_000, 20_000],
    ),
    drawn(
        "network",
        "cuts, partitions, flapping and lossy links, while clouds come and go",
        &[Clouds, Network, Network],
        &[4_000, 10_000, 20_000],
    ),
    drawn(
        "operators",
        "operators fail over and back at bad moments, while clouds come and go",
        &[Clouds, Operators],
        &[4_000, 10_000, 20_000],
    ),
    drawn(
        "members",
        "filers are added, and lost for ever with their disks, while filers crash",
        &[Members, Members, Crashes, Clouds],
        &[10_000, 20_000],
    ),
    drawn(
        "disks",
        "full and slow disks, flipped bits, sectors that cannot be read, clocks that are wrong, crashes",
        &[Disks, Disks, Clocks, Crashes, Clouds],
        &[4_000, 10_000],
    ),
    told(
        "failover",
        "the active cloud is out for four minutes: trip, failover, resync, failback",
        &["failovers", "resyncs finished", "failbacks"],
        |plan| {
            plan.cloud(20_000, 240_000, 0, Trouble::Outage);
        },
    ),
    told(
        "days",
        "the active cloud is out for two days, while clients do a little every few minutes",
        &["failovers", "resyncs finished", "failbacks"],
        |plan| {
            (plan.think_ms, plan.rarely) = (240_000, 60);
            plan.cloud(1_800_000, 2 * 86_400_000, 0, Trouble::Outage);
        },
    ),
    told(
        "both-out",
        "both clouds go, and come back in the order in which they went",
        &["both clouds out", "one of both clouds back first", "refused trips"],
        |plan| {
            plan.fault(10_000, 300_000, What::BothOut { second: 1, later_ms: 20_000, back_earlier_ms: -30_000 });
        },
    ),
    told(
        "both-out-other-order",
        "both clouds go, and the one that went last comes back first",
        &["both clouds out", "one of both clouds back first"],
        |plan| {
            plan.fault(10_000, 300_000, What::BothOut { second: 0, later_ms: 20_000, back_earlier_ms: 60_000 });
        },
    ),
    told(
        "resync-interrupted",
        "the leader dies again and again while a cloud is resynced, and that cloud fails once more",
        &["crashes of the leader in a resync", "failures in a resync", "resyncs finished"],
        |plan| {
            (plan.think_ms, plan.failures_to_trip) = (500, 20);
            plan.cloud(5_000, 60_000, 0, Trouble::Outage);
            // A resync takes a while then.
            plan.cloud(65_000, 140_000, 0, Trouble::Slow { ms: 1_500 });
            plan.in_resync(65_000, 0, 80_000, What::Cloud { cloud: 0, trouble: Trouble::Outage });
            for later_ms in [0, 4_000, 8_000] {
                plan.in_resync(150_000, later_ms, 0, What::CrashLeader { down_ms: 2_000 });
            }
        },
    ),
    told(
        "crashes-in-an-outage",
        "filers lose power one after another while the active cloud is out, and misses are logged and made good",
        &["failovers", "crashes at an effect", "resyncs finished"],
        |plan| {
            plan.failures_to_trip = 20;
            plan.cloud(5_000, 120_000, 0, Trouble::Outage);
            for number in 0..24 {
                let what = What::Crash {
                    filer: 1 + number % plan.filers,
                    down_ms: 1_500,
                    at_effect: Some(number),
                    again_after: None,
                };
                plan.fault(30_000 + 4_000 * number, 0, what);
            }
        },
    ),
    told(
        "standby-lost-object",
        "the active cloud fails after the standby has lost an object",
        &["objects lost", "failovers"],
        |plan| {
            plan.failures_to_trip = 20;
            plan.fault(15_000, 0, What::LoseObject { cloud: 1 });
            plan.cloud(20_000, 90_000, 0, Trouble::Outage);
        },
    ),
    told(
        "brown-out",
        "the active cloud answers after half a minute, without any error",
        &["failovers", "resyncs finished", "failbacks"],
        |plan| {
            plan.cloud(5_000, 400_000, 0, Trouble::Slow { ms: 30_000 });
        },
    ),
    told(
        "unforeseen",
        "every call of the active cloud gets an answer that no one has foreseen",
        &["failovers", "resyncs finished", "failbacks"],
        |plan| {
            plan.cloud(5_000, 300_000, 0, Trouble::Unforeseen { per_mille: 1000 });
        },
    ),
    told(
        "bad-shard",
        "the active cloud fails for one object in four, always the same ones, and serves the others",
        &["failovers", "failbacks"],
        |plan| plan.cloud(5_000, 300_000, 0, Trouble::Shard { one_in: 4 }),
    ),
    told(
        "cut-off-trip",
        "a filer that is cut off from its peers sees the active cloud fail, and moves nobody",
        &["partitions", "reasons to trip"],
        |plan| {
            (plan.clients_per_site, plan.think_ms, plan.failures_to_trip) = (2, 200, 20);
            // What it has staged when it is cut off is what it goes on to put.
            plan.cloud(8_000, 80_000, 0, Trouble::CutFrom { filer: 1 });
            plan.fault(10_000, 95_000, What::Partition { side: vec![1] });
        },
    ),
    told(
        "moves-while-voting",
        "operators move the CloudFS while filers vote on slow links whether a cloud has failed: a trip counts under the roles that it saw, or not at all",
        &["trips", "operator failovers", "failbacks"],
        |plan| {
            (plan.clients_per_site, plan.think_ms, plan.failures_to_trip) = (2, 200, 5);
            for filer in 1..=plan.filers {
                plan.fault(1_000, 50_000, What::SlowLink { filer, delay_ms: 300, bytes_per_s: 2_000_000 });
            }
            for from_ms in [5_000, 35_000] {
                plan.cloud(from_ms, 10_000, 0, Trouble::Outage);
                for number in 0..8 {
                    let what = What::Failover { filer: 1 + number % plan.filers };
                    plan.fault(from_ms + 600 + 1_200 * number, 0, what);
                }
            }
            // They may have been too quick for any trip.
            plan.cloud(65_000, 20_000, 0, Trouble::Outage);
        },
    ),
    told(
        "slow-links",
        "for a minute, all answers between filers take longer than the pause between two signs of life: every client is answered in time nonetheless",
        &["slow links"],
        |plan| {
            (plan.think_ms, plan.answered_ms_max) = (2_000, Some(ANSWERED_MS_MAX));
            for filer in 1..=plan.filers {
                plan.fault(5_000, 60_000, What::SlowLink { filer, delay_ms: 300, bytes_per_s: 2_000_000 });
            }
        },
    ),
    told(
        "leaders-away",
        "the leader dies every twelve seconds, and is back soon: every client is answered in time nonetheless, those of the leader's site behind its start",
        &["crashes of the leader"],
        |plan| {
            (plan.think_ms, plan.answered_ms_max) = (500, Some(ANSWERED_MS_MAX));
            for number in 0..10 {
                plan.fault(3_000 + 12_000 * number, 0, What::CrashLeader { down_ms: 1_000 });
            }
        },
    ),
    told("late-puts", "puts of an old epoch arrive after the failover", &["late puts", "failovers"], |plan| {
        plan.failures_to_trip = 20;
        plan.cloud(3_000, 30_000, 0, Trouble::Late { per_mille: 700, ms: 40_000 });
        plan.cloud(20_000, 60_000, 0, Trouble::Outage);
    }),
    told(
        "puts-minutes-late",
        "puts arrive up to four minutes late, when what they hold is long dead, or was put again: nothing is written over, and nothing is left",
        &["late puts", "failovers", "resyncs finished"],
        |plan| {
            (plan.failures_to_trip, plan.put_arrives_ms) = (20, 300_000);
            plan.cloud(3_000, 50_000, 0, Trouble::Late { per_mille: 500, ms: 240_000 });
            plan.cloud(20_000, 60_000, 0, Trouble::Outage);
        },
    ),
    told(
        "late-puts-of-the-damaged",
        "puts arrive late, of segments that were damaged and mended meanwhile: none takes the place of what is on record",
        &["late puts", "staging sectors unreadable", "crashes"],
        |plan| {
            (plan.clients_per_site, plan.think_ms, plan.failures_to_trip) = (2, 200, 20);
            plan.cloud(3_000, 95_000, 0, Trouble::Late { per_mille: 500, ms: 40_000 });
            // No other copy is there to restore anything from.
            plan.cloud(3_000, 95_000, 1, Trouble::Outage);
            for number in 0..9 {
                let (filer, at_ms) = (1 + number % plan.filers, 10_000 + 9_000 * number);
                // Bad sectors make a start slow.
                let harm = match number {
                    0..3 => What::UnreadableStaging { filer, sectors: 6 },
                    _ => What::FlipStaging { filer, bits: 12 },
                };
                plan.fault(at_ms, 0, harm);
                let crash = What::Crash { filer, down_ms: 500, at_effect: None, again_after: None };
                plan.fault(at_ms + 200, 0, crash);
            }
        },
    ),
    told(
        "mended-while-put",
        "staged segments are damaged and mended on slow disks, while clouds take one put in ten: no cloud gets a body under the MD5 of another body",
        &["staged frames lost at a put", "slow syncs"],
        |plan| {
            (plan.clients_per_site, plan.think_ms) = (2, 200);
            for cloud in [0, 1] {
                plan.cloud(2_000, 115_000, cloud, Trouble::Errors { per_mille: 900 });
            }
            for number in 0..15 {
                let (filer, at_ms) = (1 + number % plan.filers, 10_000 + 6_500 * number);
                // What it has staged is on its disk alone then, and is damaged behind the look of its start.
                plan.fault(at_ms, 0, What::Crash { filer, down_ms: 100, at_effect: None, again_after: None });
                plan.fault(at_ms + 1_000, 2_800, What::SlowSync { filer, ms: 1_500 });
                let harm = match number % 2 {
                    0 => What::UnreadableStaging { filer, sectors: 3 },
                    _ => What::FlipStaging { filer, bits: 8 },
                };
                plan.fault(at_ms + 1_000, 0, harm);
            }
        },
    ),
    told(
        "filer-lost-in-an-outage",
        "a filer is lost for ever while no cloud answers: files of which only it had a part are removed by an operator, and nothing else is lost",
        &["both clouds out", "filers lost", "files lost with their filer"],
        |plan| {
            // So many that the lost filer has a part of some file, whatever they do.
            (plan.clients_per_site, plan.think_ms) = (4, 200);
            plan.fault(5_000, 60_000, What::BothOut { second: 1, later_ms: 1_000, back_earlier_ms: -5_000 });
            plan.fault(30_000, 0, What::Lose { filer: plan.filers });
        },
    ),
    told(
        "leader-away-while-adding",
        "a third filer is added, and the leader is away from between the two steps of that on: they are finished nonetheless, and then one of the first two may be lost",
        &["filers added", "crashes of the leader", "filers lost"],
        |plan| {
            // Two are left, of which the one that was asked to add first rarely leads.
            let one_of_two = (plan.filers - 1).max(1);
            for filer in 1..one_of_two {
                plan.fault(3_000 + 8_000 * (filer - 1), 0, What::Lose { filer });
            }
            let added_ms = 6_000 + 8_000 * (one_of_two - 1);
            for filer in one_of_two..=plan.filers {
                let slow = What::SlowLink { filer, delay_ms: 300, bytes_per_s: 2_000_000 };
                plan.fault(added_ms - 2_000, 11_000, slow);
            }
            plan.fault(added_ms, 0, What::Add);
            // Down for longer than anybody waits for an answer to a wish to join.
            plan.fault(added_ms + 1_800, 0, What::CrashLeader { down_ms: 8_000 });
            plan.fault(added_ms + 20_000, 0, What::Lose { filer: one_of_two });
        },
    ),
    told(
        "wrong-clocks",
        "the clocks of two filers are ten years ahead, in turn: the time that all agree on is never more than some minutes ahead",
        &["agreed time much ahead"],
        |plan| {
            (plan.clients_per_site, plan.think_ms) = (2, 200);
            for number in 0..12 {
                let wrong = What::ClockOff { filer: 1 + number % plan.filers.min(2), ms: 10 * YEAR_MS };
                plan.fault(5_000 + 9_000 * number, 5_000, wrong);
            }
        },
    ),
    told(
        "bad-sectors",
        "while both clouds are out, sectors of staging cannot be read any more, and filers crash: that costs what lay there alone",
        &["both clouds out", "staging sectors unreadable"],
        |plan| {
            (plan.clients_per_site, plan.think_ms) = (2, 200);
            plan.fault(5_000, 100_000, What::BothOut { second: 1, later_ms: 1_000, back_earlier_ms: -5_000 });
            for (number, filer) in (1..=plan.filers).enumerate() {
                let at_ms = 30_000 + 10_000 * number as u64;
                plan.fault(at_ms, 0, What::UnreadableStaging { filer, sectors: 6 });
                let what = What::Crash { filer, down_ms: 2_000, at_effect: None, again_after: None };
                plan.fault(at_ms + 3_000, 0, what);
            }
        },
    ),
    told(
        "new-handle-elsewhere",
        "names are made and looked up at all sites over lossy links: a replica that lags must not call a new handle stale",
        &["lossy links"],
        |plan| {
            (plan.think_ms, plan.answered_ms_max) = (200, Some(ANSWERED_MS_MAX));
            plan.fault(1_000, 115_000, What::Lossy { lost_per_mille: 150, twice_per_mille: 50, jitter_ms: 300 });
        },
    ),
    told(
        "reads-behind-a-crash",
        "filers with slow disks lose power and start cut off, and whoever has closed a file reads on: a crash takes nothing from them",
        &["tables rolled back", "reads behind a crash", "partitions", "slow links"],
        |plan| {
            (plan.clients_per_site, plan.think_ms, plan.read_back_ms) = (3, 200, 600);
            for number in 0..12 {
                let (filer, at_ms) = (1 + number % plan.filers, 5_000 + 5_000 * number);
                // What is applied while a sync takes long is in no table that lasts, and its clients have their answers.
                plan.fault(at_ms, 2_050, What::SlowSync { filer, ms: 400 });
                let crash = What::Crash { filer, down_ms: 100, at_effect: None, again_after: None };
                plan.fault(at_ms + 2_000, 0, crash);
                // It has it from the others again, later.
                let away = match number % 2 {
                    0 => What::Partition { side: vec![filer] },
                    _ => What::SlowLink { filer, delay_ms: 400, bytes_per_s: 200_000 },
                };
                plan.fault(at_ms + 2_000, 2_500, away);
            }
        },
    ),
    told(
        "damaged-on-the-way",
        "the active cloud damages reads on their way and puts for good, and the standby is resynced from it: no right copy is put again",
        &["flipped reads", "truncated reads", "wrong MD5s", "fallback reads", "resyncs finished"],
        |plan| {
            // Far more than damage makes in a row: the active cloud must not trip, or nobody would repair it.
            (plan.clients_per_site, plan.think_ms, plan.failures_to_trip) = (2, 200, 40);
            let flipped = Trouble::Flipped { per_mille: 500 };
            for trouble in [flipped, Trouble::Truncated { per_mille: 100 }, Trouble::WrongMd5 { per_mille: 600 }] {
                plan.cloud(5_000, 85_000, 0, trouble);
            }
            plan.cloud(30_000, 35_000, 1, Trouble::Outage);
            plan.cloud(60_000, 30_000, 1, Trouble::WrongMd5 { per_mille: 300 });
        },
    ),
];

const fn drawn(name: &'static str, text: &'static str, families: &'static [Family], every_ms: &'static [u64]) -> Scene {
    Scene { name, text, faults: Faults::Drawn { families, every_ms }, shows: &[] }
}

const fn told(name: &'static str, text: &'static str, shows: &'static [&'static str], faults: fn(&mut Plan)) -> Scene {
    Scene { name, text, faults: Faults::Told(faults), shows }
}

impl Scene {
    /// The scene of a name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SCENES.iter().find(|scene| scene.name == name)
    }
}

impl Plan {
    /// Adds a fault; the storm lasts until a while after it.
    fn fault(&mut self, at_ms: u64, for_ms: u64, what: What) {
        self.storm_ms = self.storm_ms.max(at_ms + for_ms + what.longer_ms() + 10_000);
        self.faults.push(Fault { at_ms, for_ms, what, in_resync_ms: None });
    }

    /// The same, so long behind the beginning of a resync.
    fn in_resync(&mut self, at_ms: u64, later_ms: u64, for_ms: u64, what: What) {
        self.fault(at_ms, later_ms + for_ms, what);
        let fault = self.faults.last_mut().expect("it was just added");
        (fault.for_ms, fault.in_resync_ms) = (for_ms, Some(later_ms));
    }

    fn cloud(&mut self, at_ms: u64, for_ms: u64, cloud: usize, trouble: Trouble) {
        self.fault(at_ms, for_ms, What::Cloud { cloud, trouble });
    }
}
