//! What is to happen in a run: drawn from its seed, before it begins.

use crate::{dice::Dice, world::clouds::Trouble};
use serde::{Deserialize, Serialize};

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// Calls of one filer to another do not arrive.
    OneWayCut {
        from: u64,
        to: u64,
    },
    /// These filers and the others do not reach each other.
    Partition {
        side: Vec<u64>,
    },
    /// One filer comes and goes.
    Flapping {
        filer: u64,
        every_ms: u64,
    },
    /// Every way to and from a filer is slow.
    SlowLink {
        filer: u64,
        delay_ms: u64,
        bytes_per_s: u64,
    },
    /// Every way loses and repeats.
    Lossy {
        lost_per_mille: u64,
        twice_per_mille: u64,
        jitter_ms: u64,
    },
    /// Cloud 0 or 1 is in trouble.
    Cloud {
        cloud: usize,
        trouble: Trouble,
    },
    /// Both clouds are out.
    BothOut,
    /// A cloud loses an object that it has given a receipt for.
    LoseObject {
        cloud: usize,
    },
    /// A filer loses power; at one of its effects, where that is said, and once more in its recovery.
    Crash {
        filer: u64,
        down_ms: u64,
        at_effect: Option<u64>,
        again_after: Option<u64>,
    },
    /// A filer's disk takes long to sync.
    SlowSync {
        filer: u64,
        ms: u64,
    },
    /// A filer's clock is off.
    ClockOff {
        filer: u64,
        ms: i64,
    },
    /// An operator wants the other cloud active, or the preferred one.
    Failover {
        filer: u64,
    },
    Failback {
        filer: u64,
    },
}

/// Something that goes wrong, when and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub at_ms: u64,
    pub for_ms: u64,
    pub what: What,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub seed: u64,
    pub scene: String,
    pub filers: u64,
    pub clients_per_site: u64,
    /// How long faults happen; then the world heals.
    pub storm_ms: u64,
    /// Mean time between two operations of a client.
    pub think_ms: u64,
    pub faults: Vec<Fault>,
}

/// The scenes: a name, a line, and the faults that may be drawn.
pub const SCENES: &[(&str, &str)] = &[
    ("mixed", "everything that can go wrong, at random"),
    ("calm", "nothing goes wrong"),
    ("clouds", "troubles of clouds alone: outages, slowness, errors, late puts, wrong answers"),
    ("crashes", "filers lose power, at effects and in recoveries, while clouds come and go"),
    ("network", "cuts, partitions, flapping and lossy links, while clouds come and go"),
    ("operators", "operators fail over and back at bad moments, while clouds come and go"),
];

impl Plan {
    /// The plan that a seed determines.
    pub fn draw(seed: u64, scene: &str, filers: (u64, u64), minutes: u64) -> Self {
        let dice = Dice::of(seed, "plan");
        let filers = dice.between(filers.0, filers.1);
        let storm_ms = minutes * 60_000;
        let mut plan = Self {
            seed,
            scene: scene.into(),
            filers,
            clients_per_site: dice.between(1, 2),
            storm_ms,
            think_ms: *dice.pick(&[200, 500, 1_000]),
            faults: Vec::new(),
        };
        if scene == "calm" {
            return plan;
        }
        let every_ms = *dice.pick(&[4_000, 10_000, 20_000]);
        let mut at_ms = dice.around(every_ms);
        while at_ms < storm_ms {
            let what = plan.what(&dice);
            let longest_ms = *dice.pick(&[300, 3_000, 20_000, 90_000]);
            plan.faults.push(Fault { at_ms, for_ms: dice.around(longest_ms).max(50), what });
            at_ms += dice.around(every_ms).max(20);
        }
        plan
    }

    fn what(&self, dice: &Dice) -> What {
        let kinds: &[u64] = match self.scene.as_str() {
            "clouds" => &[0],
            "crashes" => &[0, 1, 1],
            "network" => &[0, 2, 2],
            "operators" => &[0, 3],
            _ => &[0, 0, 1, 1, 2, 2, 3, 4],
        };
        match dice.pick(kinds) {
            0 => cloud_fault(self.filers, dice),
            1 => self.crash(dice),
            2 => self.network_fault(dice),
            3 if dice.per_mille(500) => What::Failover { filer: self.a_filer(dice) },
            3 => What::Failback { filer: self.a_filer(dice) },
            _ if dice.per_mille(500) => What::SlowSync { filer: self.a_filer(dice), ms: dice.between(20, 2_000) },
            _ => What::ClockOff { filer: self.a_filer(dice), ms: dice.between(0, 20_000) as i64 - 10_000 },
        }
    }

    fn a_filer(&self, dice: &Dice) -> u64 {
        dice.between(1, self.filers)
    }

    fn crash(&self, dice: &Dice) -> What {
        let at_effect = dice.per_mille(600).then(|| dice.below(40));
        let again_after = dice.per_mille(250).then(|| dice.below(30));
        What::Crash { filer: self.a_filer(dice), down_ms: dice.around(8_000), at_effect, again_after }
    }

    fn network_fault(&self, dice: &Dice) -> What {
        let (filer, other) = (self.a_filer(dice), self.a_filer(dice));
        match dice.below(6) {
            0 if filer != other => What::OneWayCut { from: filer, to: other },
            1 | 2 => What::Partition { side: (1..=self.filers).filter(|_| dice.per_mille(400)).collect() },
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

fn cloud_fault(filers: u64, dice: &Dice) -> What {
    let per_mille = *dice.pick(&[20, 200, 600, 1000]);
    let trouble = match dice.below(15) {
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
        13 => Trouble::Truncated { per_mille },
        _ => Trouble::Flipped { per_mille: per_mille / 4 },
    };
    match dice.below(12) {
        0 => What::BothOut,
        1 => What::LoseObject { cloud: dice.below(2) as usize },
        _ => What::Cloud { cloud: dice.below(2) as usize, trouble },
    }
}
