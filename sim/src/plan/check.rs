//! What a plan from a file may say: nobody made sure of it when it was written by hand.

use super::{Fault, PLAN_VERSION, Plan, Scene, What};
use crate::world::clouds::Trouble;

/// The longest time of a plan, in milliseconds: a year.
const TIME_MS_MAX: u64 = 365 * 86_400_000;
/// Effects after which a crash may come.
const EFFECTS_MAX: u64 = 1_000_000_000;
/// How far a clock may be off, in milliseconds: a century.
const CLOCK_OFF_MS_MAX: u64 = 100 * TIME_MS_MAX;

impl Plan {
    /// Whether it can be carried out.
    ///
    /// # Errors
    /// Says what is wrong, and where.
    pub fn check(&self) -> Result<(), String> {
        if self.version != PLAN_VERSION {
            return Err(format!("it is a plan of version {}, and this is for version {PLAN_VERSION}", self.version));
        }
        if Scene::named(&self.scene).is_none() {
            return Err(format!("there is no scene \"{}\": `sim scenes` lists them", self.scene));
        }
        if !(1..=9).contains(&self.filers) || !(1..=16).contains(&self.clients_per_site) {
            return Err("1 to 9 filers with 1 to 16 clients each can be simulated".into());
        }
        within("storm_ms", self.storm_ms, 0, TIME_MS_MAX)?;
        within("think_ms", self.think_ms, 1, TIME_MS_MAX)?;
        within("read_back_ms", self.read_back_ms, 0, TIME_MS_MAX)?;
        // What is dead is kept twice as long, and swept before a run is over.
        within("put_arrives_ms", self.put_arrives_ms, 1_000, 600_000)?;
        within("answered_ms_max", self.answered_ms_max.unwrap_or(1), 1, TIME_MS_MAX)?;
        within("failures_to_trip", self.failures_to_trip.into(), 1, u32::MAX.into())?;
        within("rarely", self.rarely.into(), 1, 1_000)?;
        for skew_ms in &self.skews_ms {
            within("skews_ms, whatever its sign", skew_ms.unsigned_abs(), 0, CLOCK_OFF_MS_MAX)?;
        }
        let mut faults = self.faults.iter().enumerate();
        faults.try_for_each(|(number, fault)| self.check_fault(fault).map_err(|why| format!("faults[{number}]: {why}")))
    }

    fn check_fault(&self, Fault { at_ms, for_ms, what, in_resync_ms }: &Fault) -> Result<(), String> {
        within("at_ms, which must be before storm_ms,", *at_ms, 0, self.storm_ms.saturating_sub(1))?;
        within("for_ms", *for_ms, 0, TIME_MS_MAX)?;
        within("in_resync_ms", in_resync_ms.unwrap_or(0), 0, TIME_MS_MAX)?;
        let added = self.faults.iter().filter(|fault| fault.what == What::Add).count() as u64;
        for filer in what.filers() {
            within("a filer's number", filer, 1, self.filers + added)?;
        }
        match what {
            What::Cloud { cloud, trouble } => {
                within("cloud", *cloud as u64, 0, 1)?;
                check_trouble(*trouble)
            }
            What::OneWayCut { from, to } if from == to => Err(format!("from and to are both {from}")),
            What::LoseObject { cloud } => within("cloud", *cloud as u64, 0, 1),
            What::BothOut { second, later_ms, back_earlier_ms } => {
                within("second", *second as u64, 0, 1)?;
                within("later_ms", *later_ms, 0, TIME_MS_MAX)?;
                within("back_earlier_ms, whatever its sign", back_earlier_ms.unsigned_abs(), 0, TIME_MS_MAX)
            }
            What::Flapping { every_ms, .. } => within("every_ms", *every_ms, 1, TIME_MS_MAX),
            What::SlowLink { delay_ms, .. } => within("delay_ms", *delay_ms, 0, TIME_MS_MAX),
            What::Lossy { lost_per_mille, twice_per_mille, jitter_ms } => {
                within("lost_per_mille", *lost_per_mille, 0, 1_000)?;
                within("twice_per_mille", *twice_per_mille, 0, 1_000)?;
                within("jitter_ms", *jitter_ms, 0, TIME_MS_MAX)
            }
            What::Crash { down_ms, at_effect, again_after, .. } => {
                within("down_ms", *down_ms, 0, TIME_MS_MAX)?;
                within("at_effect", at_effect.unwrap_or(0), 0, EFFECTS_MAX)?;
                within("again_after", again_after.unwrap_or(0), 0, EFFECTS_MAX)
            }
            What::CrashAtSync { down_ms, syncs, .. } => {
                within("down_ms", *down_ms, 0, TIME_MS_MAX)?;
                within("syncs", *syncs, 0, EFFECTS_MAX)
            }
            What::CrashLeader { down_ms } => within("down_ms", *down_ms, 0, TIME_MS_MAX),
            What::SlowSync { ms, .. } => within("ms", *ms, 0, TIME_MS_MAX),
            What::FullDisk { left_bytes, .. } => within("left_bytes", *left_bytes, 0, 1 << 40),
            What::FlipCache { bits, .. } | What::FlipStaging { bits, .. } => within("bits", *bits, 0, 100_000),
            What::UnreadableCache { sectors, .. } | What::UnreadableStaging { sectors, .. } => {
                within("sectors", *sectors, 0, 100_000)
            }
            What::ClockOff { ms, .. } => within("ms, whatever its sign", ms.unsigned_abs(), 0, CLOCK_OFF_MS_MAX),
            What::OneWayCut { .. }
            | What::Partition { .. }
            | What::Lose { .. }
            | What::Add
            | What::Failover { .. }
            | What::Failback { .. } => Ok(()),
        }
    }
}

fn check_trouble(trouble: Trouble) -> Result<(), String> {
    match trouble {
        Trouble::Slow { ms } => within("ms", ms, 0, TIME_MS_MAX),
        Trouble::Late { per_mille, ms } => {
            within("per_mille", per_mille, 0, 1_000)?;
            within("ms", ms, 0, TIME_MS_MAX)
        }
        Trouble::Shard { one_in } => within("one_in", one_in, 1, u64::MAX),
        Trouble::Errors { per_mille }
        | Trouble::Throttled { per_mille }
        | Trouble::Unforeseen { per_mille }
        | Trouble::Resets { per_mille }
        | Trouble::TimeoutsHappened { per_mille }
        | Trouble::TimeoutsLost { per_mille }
        | Trouble::WrongMd5 { per_mille }
        | Trouble::Truncated { per_mille }
        | Trouble::Flipped { per_mille } => within("per_mille", per_mille, 0, 1_000),
        Trouble::Outage | Trouble::CutFrom { .. } | Trouble::Denied => Ok(()),
    }
}

fn within(what: &str, value: u64, least: u64, most: u64) -> Result<(), String> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(format!("{what} is {value}, and may be {least} to {most}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_carried_out_is_refused_with_its_place() {
        let refused = |change: &dyn Fn(&mut Plan)| {
            let mut plan = Plan::draw(1, "both-out", (3, 3), 1);
            change(&mut plan);
            Plan::parse(&plan.text()).err().unwrap_or_default()
        };
        let fault = |what: What| move |plan: &mut Plan| plan.faults[0].what = what.clone();
        assert_eq!(refused(&|_| {}), "");
        assert!(refused(&|plan| plan.scene = "storm".into()).contains("sim scenes"));
        assert!(refused(&|plan| plan.storm_ms = u64::MAX).contains("storm_ms"));
        assert!(
            refused(&|plan| plan.storm_ms = 9_999)
                .contains("faults[0]: at_ms, which must be before storm_ms, is 10000")
        );
        assert!(refused(&fault(What::OneWayCut { from: 2, to: 2 })).contains("from and to are both 2"));
        let trouble = What::Cloud { cloud: 7, trouble: Trouble::Outage };
        assert_eq!(refused(&fault(trouble)), "faults[0]: cloud is 7, and may be 0 to 1");
        let second = What::BothOut { second: 5, later_ms: 0, back_earlier_ms: 0 };
        assert!(refused(&fault(second)).contains("second is 5"));
        assert!(refused(&fault(What::Flapping { filer: 1, every_ms: 0 })).contains("every_ms is 0"));
        assert!(refused(&fault(What::Failover { filer: 99 })).contains("a filer's number is 99, and may be 1 to 3"));
    }
}
