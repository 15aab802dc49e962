//! The agreed time is led astray by no clock.
//!
//! Why it matters: what is dead is deleted after a grace period by the agreed time. Were it years ahead for a moment, everything
//! dead would be deleted at once, under readers and before late puts; and as it never runs backwards, files would show it for years.

use crate::plan::{Plan, SKEW_MS_MAX, SMALL_JUMP_MS_MAX, What};
use filer::door::SHOWN_AHEAD_NS_MAX;
use mesh::kv::MemoryKv;
use std::ops::Range;
use storage::cloudfs::{
    read,
    time::{AHEAD_NS_MAX, SILENT_MS_MAX},
};

/// Within this time a filer shows its clock whose clients rest no longer than [`BUSY_THINK_MS_MAX`], in milliseconds: with
/// nearly each change of theirs. Then nobody goes by what it showed before.
const BUSY_SHOWS_MS_MAX: u64 = 4_000;
/// How long busy clients rest, in milliseconds.
const BUSY_THINK_MS_MAX: u64 = 200;
/// The same for any filer that is there, and for how long others go by the word of one that is not, in milliseconds: longer
/// than all of its silence, which is measured in steps of a minute.
const SHOWS_MS_MAX: u64 = 2 * SILENT_MS_MAX;

/// Checks the newest tables, at the right time; gives by how many seconds they are ahead of it. The time of one filer alone is
/// its clock's.
pub fn agreed_time(tables: &MemoryKv, right_ns: u64, plan: &Plan) -> Result<u64, String> {
    let ahead_ns = read::newest_ns(tables).map_err(|e| e.to_string())?.saturating_sub(right_ns);
    let wrong_ns = (SMALL_JUMP_MS_MAX.unsigned_abs() + SKEW_MS_MAX) * 1_000_000;
    let ahead_s = ahead_ns / 1_000_000_000;
    if ahead_ns <= AHEAD_NS_MAX + SHOWN_AHEAD_NS_MAX + wrong_ns || plan.filers < 2 || !may_be_agreed(plan) {
        return Ok(ahead_s);
    }
    Err(format!("it is {ahead_s} s ahead, and no more than one clock was wrong at a time"))
}

/// Whether never two clocks are far ahead, nor heard to be so, at one time: whoever is right could not be told then.
fn may_be_agreed(plan: &Plan) -> bool {
    let mut far: Vec<(u64, Range<u64>)> = Vec::new();
    let mut is_busy = plan.operations_max.is_none() && plan.think_ms <= BUSY_THINK_MS_MAX;
    for fault in &plan.faults {
        match fault.what {
            // Nobody knows when.
            What::ClockOff { ms, .. } if ms.abs() > SMALL_JUMP_MS_MAX && fault.in_resync_ms.is_some() => return false,
            // One that is far behind has no say against one that is ahead.
            What::ClockOff { filer, ms } if ms.abs() > SMALL_JUMP_MS_MAX => {
                far.push((filer, fault.at_ms..fault.at_ms + fault.for_ms));
            }
            // Whoever leads may be heard by the others and not hear them: it is alone with its clock.
            What::OneWayCut { .. } if fault.for_ms > SILENT_MS_MAX => return false,
            // It may keep a filer from saying anything.
            _ => is_busy = false,
        }
    }
    let heard_ms = if is_busy { BUSY_SHOWS_MS_MAX } else { SHOWS_MS_MAX };
    let apart = |a: &Range<u64>, b: &Range<u64>| a.end + heard_ms <= b.start || b.end + heard_ms <= a.start;
    let each_alone = far.iter().all(|(a, a_at)| far.iter().all(|(b, b_at)| a == b || apart(a_at, b_at)));
    each_alone && plan.skews_ms.iter().all(|ms| ms.unsigned_abs() <= SKEW_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Fault;

    #[test]
    fn two_clocks_that_are_wrong_together_excuse_the_time() {
        let wrong = |filer| What::ClockOff { filer, ms: SMALL_JUMP_MS_MAX + 1 };
        let off = |filer, at_ms| Fault { at_ms, for_ms: 1_000, what: wrong(filer), in_resync_ms: None };
        let crash = What::Crash { filer: 1, down_ms: 9, at_effect: None, again_after: None };
        let crash = Fault { at_ms: 0, for_ms: 0, what: crash, in_resync_ms: None };
        for (faults, think_ms, may) in [
            (vec![off(1, 0), off(1, 500), off(2, 5_500)], 200, true),
            (vec![off(1, 0), off(2, 5_500)], 500, false),
            (vec![off(1, 0), off(2, 4_999)], 200, false),
            (vec![off(2, 4_999), off(1, 0)], 200, false),
            (vec![off(1, 0), off(2, 5_500), crash.clone()], 200, false),
            (vec![off(1, 0), off(2, 500_000), crash], 500, true),
        ] {
            let plan = Plan { faults: faults.clone(), think_ms, ..Plan::draw(1, "calm", (3, 3), 1) };
            assert_eq!(may_be_agreed(&plan), may, "{faults:?}");
        }
    }
}
