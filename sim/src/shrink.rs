//! Making a failing run smaller: fewer faults, filers, clients and operations, as long as the same invariant fails.
//!
//! Delta debugging (Zeller and Hildebrandt, 2002) over the faults, then one simplification at a time, until none helps.

use crate::plan::{Fault, Plan, What};

/// Tells whether a plan still fails as the first one did.
pub trait Fails {
    fn fails(&mut self, plan: &Plan) -> bool;
}

impl<F: FnMut(&Plan) -> bool> Fails for F {
    fn fails(&mut self, plan: &Plan) -> bool {
        self(plan)
    }
}

/// The smallest plan that was found to fail. `plan` fails. What could not be carried out, as when a filer is not added that
/// something happens to, is none.
pub fn shrink(mut plan: Plan, test: &mut impl Fails) -> Plan {
    let test = &mut |plan: &Plan| plan.check().is_ok() && test.fails(plan);
    loop {
        let before = plan.clone();
        plan = fewer_faults(plan, test);
        for simpler in SIMPLER {
            while let Some(next) = simpler(&plan).filter(|next| *next != plan && test.fails(next)) {
                plan = next;
            }
        }
        plan = simpler_faults(plan, test);
        if plan == before {
            return plan;
        }
    }
}

/// Leaves out as many faults as it can.
fn fewer_faults(mut plan: Plan, test: &mut impl Fails) -> Plan {
    let mut parts = 2;
    while !plan.faults.is_empty() {
        let size = plan.faults.len().div_ceil(parts);
        let without = (0..plan.faults.len()).step_by(size).find_map(|from| {
            let mut fewer = plan.clone();
            fewer.faults.drain(from..(from + size).min(fewer.faults.len()));
            test.fails(&fewer).then_some(fewer)
        });
        match without {
            Some(fewer) => {
                plan = fewer;
                parts = parts.saturating_sub(1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(plan.faults.len()),
        }
    }
    plan
}

type Simpler = fn(&Plan) -> Option<Plan>;

/// Ways to make a whole plan simpler; each may be tried again and again.
const SIMPLER: &[Simpler] = &[
    |plan| {
        // The storm ends with its last fault.
        let lasts_to = |fault: &Fault| fault.at_ms + fault.for_ms + fault.what.longer_ms();
        let end_ms = plan.faults.iter().map(lasts_to).max().unwrap_or(0) + 1_000;
        (end_ms < plan.storm_ms).then(|| Plan { storm_ms: end_ms, ..plan.clone() })
    },
    |plan| {
        let shorter = (plan.storm_ms * 3 / 4).max(1_000);
        let mut next = Plan { storm_ms: shorter, ..plan.clone() };
        next.faults.retain(|fault| fault.at_ms < shorter);
        Some(next)
    },
    |plan| {
        let highest = plan.faults.iter().flat_map(|fault| fault.what.filers()).max().unwrap_or(1);
        let filers = plan.filers - 1;
        (filers >= highest.max(1)).then(|| Plan { filers, ..plan.clone() })
    },
    |plan| {
        // The highest filer goes, with what happens to it.
        let (filers, gone) = (plan.filers.saturating_sub(1), plan.filers);
        let mut next = Plan { filers, ..plan.clone() };
        next.faults.retain(|fault| !fault.what.filers().contains(&gone));
        (filers >= 1).then_some(next)
    },
    |plan| (plan.clients_per_site > 1).then(|| Plan { clients_per_site: plan.clients_per_site - 1, ..plan.clone() }),
    |plan| (!plan.skews_ms.is_empty()).then(|| Plan { skews_ms: Vec::new(), ..plan.clone() }),
    |plan| {
        let fewer = plan.operations_max.map_or(1024, |max| max * 3 / 4);
        (plan.operations_max != Some(fewer)).then(|| Plan { operations_max: Some(fewer), ..plan.clone() })
    },
];

/// Makes each fault simpler: a shorter one, a crash at a moment instead of at an effect.
fn simpler_faults(mut plan: Plan, test: &mut impl Fails) -> Plan {
    for number in 0..plan.faults.len() {
        let shorter = |plan: &mut Plan| plan.faults[number].for_ms /= 2;
        let once = |plan: &mut Plan| {
            if let What::Crash { again_after, .. } = &mut plan.faults[number].what {
                *again_after = None;
            }
        };
        let at_once = |plan: &mut Plan| {
            if let What::Crash { at_effect, .. } = &mut plan.faults[number].what {
                *at_effect = None;
            }
        };
        let at_any_moment = |plan: &mut Plan| {
            let what = &mut plan.faults[number].what;
            if let What::CrashAtSync { filer, down_ms, .. } = *what {
                *what = What::Crash { filer, down_ms, at_effect: None, again_after: None };
            }
        };
        for change in [&shorter as &dyn Fn(&mut Plan), &once, &at_once, &at_any_moment] {
            loop {
                let mut next = plan.clone();
                change(&mut next);
                if next == plan || !test.fails(&next) {
                    break;
                }
                plan = next;
            }
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_makes_a_run_fail_is_left() {
        let plan = Plan::draw(11, "mixed", (5, 5), 20);
        let needed: Vec<_> =
            plan.faults.iter().filter(|fault| matches!(fault.what, What::Crash { .. })).cloned().collect();
        let needed = [needed[0].clone(), needed[1].clone()];
        let same = |fault: &crate::plan::Fault, needed: &crate::plan::Fault| match (&fault.what, &needed.what) {
            (What::Crash { filer, .. }, What::Crash { filer: of, .. }) => filer == of && fault.at_ms == needed.at_ms,
            _ => false,
        };
        let mut runs = 0;
        let small = shrink(plan, &mut |plan: &Plan| {
            runs += 1;
            needed.iter().all(|needed| plan.faults.iter().any(|fault| same(fault, needed)))
        });
        assert_eq!(small.faults.len(), 2);
        assert!(small.faults.iter().all(|fault| fault.for_ms == 0));
        assert!(
            small
                .faults
                .iter()
                .all(|fault| matches!(fault.what, What::Crash { at_effect: None, again_after: None, .. }))
        );
        assert_eq!((small.clients_per_site, small.operations_max), (1, Some(0)));
        assert!(runs < 500, "{runs} runs");
    }

    #[test]
    fn what_happens_to_an_added_filer_does_not_outlive_its_adding() {
        let mut plan = Plan::draw(3, "calm", (3, 3), 1);
        let crash = What::Crash { filer: 4, down_ms: 9, at_effect: None, again_after: None };
        for (at_ms, what) in [(1_000, What::Add), (9_000, crash)] {
            plan.faults.push(Fault { at_ms, for_ms: 0, what, in_resync_ms: None });
        }
        let small = shrink(plan, &mut |plan: &Plan| !plan.faults.is_empty());
        assert_eq!((small.check(), small.faults.len()), (Ok(()), 1));
    }

    #[test]
    fn a_plan_that_always_fails_shrinks_to_nothing() {
        let small = shrink(Plan::draw(3, "chaos", (7, 7), 10), &mut |_: &Plan| true);
        assert_eq!((small.faults.len(), small.filers, small.storm_ms), (0, 1, 1_000));
    }
}
