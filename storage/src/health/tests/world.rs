//! The machine of a leader in a small world: clouds that come and go, a vote that refuses or does not answer.

use super::*;
use proptest::prelude::*;

const TRIP_AT: u32 = 10;

/// What is under way for a cloud.
#[derive(Default)]
struct UnderWay {
    probe_ends_ms: Option<u64>,
    asked: Option<(u64, Output)>,
    attempt_ends_ms: u64,
}

struct World {
    bench: Bench,
    roles: Roles,
    up: [bool; 2],
    under_way: [UnderWay; 2],
    /// One decision in so many gets no answer.
    unanswered_one_in: u64,
    orders: u64,
}

impl World {
    fn new(seed: u64, unanswered_one_in: u64) -> Self {
        let mut bench = Bench::with(Settings { failures_to_trip: TRIP_AT, ..Settings::default() }, healthy());
        bench.random = SeededRandom::new(seed);
        bench.leads();
        let under_way = Default::default();
        Self { bench, roles: healthy(), up: [true; 2], under_way, unanswered_one_in, orders: 0 }
    }

    fn say(&mut self, input: Input) {
        for output in self.bench.say(input) {
            self.orders += 1;
            let (cloud, is_probe) = match &output {
                Output::Probe { cloud } => (*cloud, true),
                Output::Trip { cloud, .. } | Output::Reached { cloud, .. } => (*cloud, false),
                Output::StartResync { cloud, .. } | Output::FinishResync { cloud, .. } => (*cloud, false),
                Output::Failback { to, .. } => (*to, false),
            };
            let ends_ms = self.bench.now_ms + self.bench.random.next_u64() % 300;
            let slot = &mut self.under_way[cloud.index()];
            if is_probe {
                let known = self.bench.health.roles.as_ref().expect("it was told the roles");
                assert_eq!(known.cloud(cloud).state, CloudState::Failed);
                assert_eq!(slot.probe_ends_ms.replace(ends_ms), None, "one probe at a time");
            } else {
                assert_eq!(slot.asked.replace((ends_ms, output)), None, "one question at a time");
            }
        }
    }

    /// The vote, by the rules of the CloudFS.
    fn decide(&mut self, order: &Output) -> Result<(), String> {
        let other_fit = |roles: &Roles, cloud: CloudId| roles.cloud(cloud.other()).state == CloudState::Healthy;
        let mut next = self.roles.clone();
        match order {
            Output::Trip { epoch, .. } | Output::Reached { epoch, .. } if *epoch != next.epoch => {
                return Err("stale".into());
            }
            Output::Trip { cloud, .. } => {
                if next.active == *cloud && !other_fit(&next, *cloud) {
                    return Err("not consistent".into());
                }
                next.active = if next.active == *cloud { cloud.other() } else { next.active };
                next.clouds[cloud.index()].state = CloudState::Failed;
            }
            Output::Reached { cloud, reached, .. } => {
                next.clouds[cloud.index()].reached_by = if *reached { FILERS.to_vec() } else { Vec::new() };
                self.roles = next;
                return Ok(());
            }
            Output::StartResync { cloud, epoch, live } => {
                assert_eq!(*live, FILERS);
                let status = &mut next.clouds[cloud.index()];
                if status.reached_by.is_empty() || *epoch != next.epoch {
                    return Err("not reached".into());
                }
                (status.state, status.missed_puts) = (CloudState::Resyncing, 5);
            }
            Output::FinishResync { cloud, epoch } => {
                assert!(next.cloud(*cloud).missed_puts == 0 || *epoch != next.epoch);
                if next.cloud(*cloud).state != CloudState::Resyncing || *epoch != next.epoch {
                    return Err("stale".into());
                }
                next.clouds[cloud.index()].state = CloudState::Healthy;
            }
            Output::Failback { to, epoch } => {
                if next.cloud(*to).state != CloudState::Healthy || *epoch != next.epoch {
                    return Err("stale".into());
                }
                next.active = *to;
            }
            Output::Probe { .. } => unreachable!("a probe needs no vote"),
        }
        next.epoch.0 += 1;
        next.clouds.iter_mut().for_each(|status| status.reached_by.clear());
        self.roles = next;
        Ok(())
    }

    fn end_question(&mut self, cloud: CloudId, order: &Output) {
        let answers = !self.bench.random.next_u64().is_multiple_of(self.unanswered_one_in);
        let refused = if answers { self.decide(order).err() } else { Some("no answer".to_string()) };
        // The word of the new roles may come before the answer, or behind it.
        let roles_first = self.bench.random.next_u64().is_multiple_of(2);
        if roles_first {
            self.say(Input::Roles(self.roles.clone()));
        }
        self.say(Input::Answered { cloud, refused });
        if !roles_first {
            self.say(Input::Roles(self.roles.clone()));
        }
    }

    /// Lets 100 ms pass.
    fn step(&mut self) {
        self.bench.now_ms += 100;
        let now_ms = self.bench.now_ms;
        for cloud in CloudId::BOTH {
            let up = self.up[cloud.index()];
            let slot = &mut self.under_way[cloud.index()];
            let probe_ended = slot.probe_ends_ms.take_if(|ends_ms| *ends_ms <= now_ms).is_some();
            let asked = slot.asked.take_if(|(ends_ms, _)| *ends_ms <= now_ms);
            if probe_ended {
                self.say(Input::Probed { cloud, failed: (!up).then(|| "down".into()) });
            }
            if let Some((_, order)) = asked {
                self.end_question(cloud, &order);
            }
            if self.roles.cloud(cloud).state != CloudState::Failed
                && self.under_way[cloud.index()].attempt_ends_ms <= now_ms
            {
                self.under_way[cloud.index()].attempt_ends_ms = now_ms + 500;
                let failed = (!up).then(|| "down".to_string());
                let attempt = Attempt { piece: Some(piece(1)), failed, took_ms: 5, bytes: 0 };
                self.say(Input::Attempted { cloud, attempt });
                let status = &mut self.roles.clouds[cloud.index()];
                if self.up == [true; 2] && status.missed_puts > 0 {
                    status.missed_puts -= 1;
                    self.say(Input::Roles(self.roles.clone()));
                }
            }
        }
        // At its deadline the machine always gets on.
        for turn in 0.. {
            let Some(deadline_ms) = self.bench.health.deadline_ms().filter(|deadline_ms| *deadline_ms <= now_ms) else {
                break;
            };
            assert!(turn < 4, "busy at {deadline_ms} ms, {now_ms} ms");
            let orders = self.orders;
            let told = self.bench.told();
            self.say(Input::Tick);
            assert!(
                self.bench.told() != told || self.orders > orders,
                "nothing came of the deadline at {deadline_ms} ms"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Outages of either or both clouds, of any length and in any order, end with both healthy and the roles as configured.
    #[test]
    fn every_outage_ends_in_recovery(
        seed: u64,
        unanswered_one_in in 2_u64..20,
        outages in prop::collection::vec((any::<[bool; 2]>(), 1_u64..2_000), 0..12),
    ) {
        let mut world = World::new(seed, unanswered_one_in);
        for (up, steps) in outages {
            world.up = up;
            (0..steps).for_each(|_| world.step());
        }
        world.up = [true; 2];
        (0..3_000).for_each(|_| world.step());
        prop_assert_eq!(world.roles.active, CloudId::A);
        for cloud in CloudId::BOTH {
            prop_assert_eq!(world.roles.cloud(cloud).state, CloudState::Healthy);
        }
        // Nothing is left to do or to ask.
        let orders = world.orders;
        (0..600).for_each(|_| world.step());
        prop_assert_eq!(world.orders, orders);
    }

    /// Whatever it is told, in any order, the deadline is never one at which nothing happens.
    #[test]
    fn the_deadline_is_never_a_busy_loop(
        seed: u64,
        inputs in prop::collection::vec((0_u8..9, any::<[bool; 2]>(), 0_u8..3, 0_u64..20_000), 1..200),
    ) {
        let mut bench = Bench::with(Settings { failures_to_trip: 3, ..Settings::default() }, healthy());
        bench.random = SeededRandom::new(seed);
        let mut epoch = 1;
        for (kind, [first, second], state, wait_ms) in inputs {
            bench.now_ms += wait_ms;
            let cloud = if first { CloudId::A } else { CloudId::B };
            let states = [CloudState::Healthy, CloudState::Failed, CloudState::Resyncing];
            let failed = second.then(|| "down".to_string());
            bench.say(match kind {
                0 | 1 => {
                    let attempt = Attempt { piece: Some(piece(1)), failed, took_ms: wait_ms, bytes: wait_ms };
                    Input::Attempted { cloud, attempt }
                }
                2 => Input::Probed { cloud, failed },
                3 => {
                    epoch += u64::from(second);
                    let states = [states[usize::from(state)], CloudState::Healthy];
                    Input::Roles(reached_by(roles(epoch, cloud.other(), states), &FILERS))
                }
                4 => Input::Leads(first.then(|| FILERS[..usize::from(state) + 1].to_vec())),
                5 | 6 => Input::Answered { cloud, refused: failed },
                7 => Input::BallotAsked,
                _ => Input::Tick,
            });
            if let Some(deadline_ms) = bench.health.deadline_ms() {
                bench.now_ms = bench.now_ms.max(deadline_ms);
                let told = bench.told();
                let outputs = bench.say(Input::Tick);
                prop_assert!(!outputs.is_empty() || bench.told() != told);
                prop_assert!(bench.health.deadline_ms().is_none_or(|next_ms| next_ms > bench.now_ms));
            }
        }
    }
}
