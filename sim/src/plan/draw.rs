//! Drawing a plan from a seed.

use super::{
    Fault, PLAN_VERSION, PUT_ARRIVES_MS, Plan, What,
    scenes::{Family, Faults, Scene},
};
use crate::{dice::Dice, world::clouds::Trouble};

/// How far clocks of sites are off all the time, in milliseconds: by far less than what grace periods allow for.
pub const SKEW_MS_MAX: u64 = 3_000;
/// How far a clock that jumps a little is off, in milliseconds.
pub const SMALL_JUMP_MS_MAX: i64 = 10_000;
/// A year, in milliseconds: how far a clock is off that is off by far.
pub const YEAR_MS: i64 = 365 * 24 * 3_600_000;
/// Filers added, and lost for ever, in one run.
const ADDED_MAX: usize = 3;
const LOST_MAX: usize = 2;

impl Plan {
    /// The plan that a seed determines: its number of filers is within `filers`, its storm lasts `minutes`, or as long as
    /// a scene needs whose faults are told.
    ///
    /// # Panics
    /// When there is no scene of this name.
    pub fn draw(seed: u64, scene: &str, filers: (u64, u64), minutes: u64) -> Self {
        let faults = &Scene::named(scene).unwrap_or_else(|| panic!("there is no scene {scene}")).faults;
        let dice = Dice::of(seed, "plan");
        let filers = dice.between(filers.0, filers.1);
        let mut plan = Self {
            version: PLAN_VERSION,
            seed,
            scene: scene.into(),
            filers,
            clients_per_site: dice.between(1, 2),
            storm_ms: if matches!(faults, Faults::Told(_)) { 0 } else { minutes * 60_000 },
            think_ms: *dice.pick(&[200, 500, 1_000]),
            operations_max: None,
            failures_to_trip: 160,
            rarely: 1,
            read_back_ms: 0,
            put_arrives_ms: PUT_ARRIVES_MS,
            answered_ms_max: None,
            skews_ms: Vec::new(),
            faults: Vec::new(),
        };
        match faults {
            Faults::Told(tell) => tell(&mut plan),
            Faults::Drawn { families: [], .. } => {}
            Faults::Drawn { families, every_ms } => {
                // Fewer failures to a trip bring more failovers into a run.
                plan.failures_to_trip = *dice.pick(&[160, 160, 40, 12]);
                if dice.per_mille(250) {
                    plan.read_back_ms = dice.between(100, 800);
                }
                if dice.per_mille(300) {
                    let skew = |_| dice.below(2 * SKEW_MS_MAX) as i64 - SKEW_MS_MAX as i64;
                    plan.skews_ms = (0..filers).map(skew).collect();
                }
                plan.storm(&dice, families, *dice.pick(every_ms));
            }
        }
        plan
    }

    fn storm(&mut self, dice: &Dice, families: &[Family], every_ms: u64) {
        let mut at_ms = dice.around(every_ms);
        while at_ms < self.storm_ms {
            let mut what = self.what(*dice.pick(families), dice);
            if what == What::Add && self.how_often(&what) >= ADDED_MAX
                || matches!(what, What::Lose { .. }) && self.how_often(&what) >= LOST_MAX
            {
                what = self.crash(dice);
            }
            let longest_ms = *dice.pick(&[300, 3_000, 20_000, 90_000]);
            // Some wait for a bad moment.
            let in_resync_ms = dice.per_mille(80).then(|| dice.below(5_000));
            self.faults.push(Fault { at_ms, for_ms: dice.around(longest_ms).max(50), what, in_resync_ms });
            at_ms += dice.around(every_ms).max(20);
        }
    }

    fn what(&self, family: Family, dice: &Dice) -> What {
        let filer = self.a_filer(dice);
        match family {
            Family::Clouds => cloud_fault(self.filers_by_then(), dice),
            Family::Crashes => self.crash(dice),
            Family::Network => self.network_fault(dice),
            Family::Operators if dice.per_mille(500) => What::Failover { filer },
            Family::Operators => What::Failback { filer },
            Family::Disks => match dice.below(4) {
                0 => What::SlowSync { filer, ms: dice.between(20, 2_000) },
                1 => What::FullDisk { filer, left_bytes: dice.below(200_000) },
                2 if dice.per_mille(600) => What::FlipCache { filer, bits: dice.between(1, 40) },
                2 => What::FlipStaging { filer, bits: dice.between(1, 4) },
                _ if dice.per_mille(600) => What::UnreadableCache { filer, sectors: dice.between(1, 20) },
                _ => What::UnreadableStaging { filer, sectors: dice.between(1, 4) },
            },
            // The time is agreed against one clock that is wrong by far, not against several.
            Family::Clocks => match clock_off_ms(dice) {
                ms if ms.abs() > SMALL_JUMP_MS_MAX => What::ClockOff { filer: 1 + self.seed % self.filers, ms },
                ms => What::ClockOff { filer, ms },
            },
            Family::Members if dice.per_mille(400) => What::Lose { filer },
            Family::Members => What::Add,
        }
    }

    fn how_often(&self, what: &What) -> usize {
        let same = |fault: &&Fault| std::mem::discriminant(&fault.what) == std::mem::discriminant(what);
        self.faults.iter().filter(same).count()
    }

    /// How many filers there may be by then: those that are added are hurt too.
    fn filers_by_then(&self) -> u64 {
        self.filers + self.how_often(&What::Add) as u64
    }

    fn a_filer(&self, dice: &Dice) -> u64 {
        dice.between(1, self.filers_by_then())
    }

    fn crash(&self, dice: &Dice) -> What {
        let at_effect = dice.per_mille(600).then(|| dice.below(40));
        let again_after = dice.per_mille(250).then(|| dice.below(30));
        let (filer, down_ms) = (self.a_filer(dice), dice.around(8_000));
        match dice.below(1000) {
            0..150 => return What::CrashLeader { down_ms },
            150..300 => return What::CrashAtSync { filer, down_ms, syncs: dice.below(10) },
            _ => {}
        }
        What::Crash { filer, down_ms, at_effect, again_after }
    }

    fn network_fault(&self, dice: &Dice) -> What {
        let (filer, other) = (self.a_filer(dice), self.a_filer(dice));
        match dice.below(6) {
            0 if filer != other => What::OneWayCut { from: filer, to: other },
            1 | 2 => {
                let all = self.filers_by_then();
                let side: Vec<u64> = (1..=all).filter(|_| dice.per_mille(400)).collect();
                let parts_some = (1..all).contains(&(side.len() as u64));
                What::Partition { side: if parts_some { side } else { vec![filer] } }
            }
            3 => What::Flapping { filer, every_ms: dice.between(100, 4_000) },
            4 => What::SlowLink { filer, delay_ms: dice.between(20, 400), bytes_per_s: dice.between(20_000, 500_000) },
            _ => What::Lossy {
                lost_per_mille: dice.between(5, 200),
                twice_per_mille: dice.between(0, 100),
                jitter_ms: dice.between(0, 300),
            },
        }
    }
}

/// How far a clock is off: mostly a little, sometimes by years in either direction.
fn clock_off_ms(dice: &Dice) -> i64 {
    match dice.below(6) {
        0 => 10 * YEAR_MS,
        1 => -10 * YEAR_MS,
        _ => dice.between(0, 2 * SMALL_JUMP_MS_MAX as u64) as i64 - SMALL_JUMP_MS_MAX,
    }
}

fn cloud_fault(filers: u64, dice: &Dice) -> What {
    let per_mille = *dice.pick(&[20, 200, 600, 1000]);
    let trouble = match dice.below(17) {
        0..=2 => Trouble::Outage,
        3 => Trouble::CutFrom { filer: dice.between(1, filers) },
        4 => Trouble::Denied,
        5 => Trouble::Slow { ms: *dice.pick(&[200, 3_000, 30_000]) },
        6 => Trouble::Errors { per_mille },
        7 => Trouble::Throttled { per_mille },
        8 => Trouble::Resets { per_mille },
        9 => Trouble::TimeoutsHappened { per_mille: per_mille / 4 },
        10 => Trouble::TimeoutsLost { per_mille: per_mille / 4 },
        // Well within half of the grace period of deletes, as settings must keep it.
        11 => Trouble::Late { per_mille: per_mille / 2, ms: 40_000 },
        12 => Trouble::WrongMd5 { per_mille },
        13 => Trouble::Unforeseen { per_mille },
        14 => Trouble::Shard { one_in: dice.between(2, 30) },
        15 => Trouble::Truncated { per_mille },
        _ => Trouble::Flipped { per_mille: per_mille / 4 },
    };
    let cloud = dice.below(2) as usize;
    match dice.below(12) {
        0 => What::BothOut {
            second: cloud,
            later_ms: dice.around(5_000),
            back_earlier_ms: dice.around(20_000) as i64 - 10_000,
        },
        1 => What::LoseObject { cloud },
        _ => What::Cloud { cloud, trouble },
    }
}
