//! The machine against a model that knows what was told and what was promised.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const IN_FLIGHT_MAX: usize = 3;

#[derive(Default)]
struct Told {
    flushed: bool,
    receipts: [bool; 2],
    /// Ended without a receipt since the cloud's state changed.
    tried: [bool; 2],
}

struct Model {
    bench: Bench,
    roles: Roles,
    sealed: u64,
    pending: BTreeMap<SegmentId, Told>,
    in_flight: BTreeSet<(CloudId, SegmentId)>,
    /// Cancelled attempts that may still answer.
    late: Vec<(CloudId, SegmentId)>,
    proposals: BTreeMap<SegmentId, ([bool; 2], Epoch)>,
}

fn picked<T: Clone>(from: impl IntoIterator<Item = T>, pick: u8) -> Option<T> {
    let all: Vec<T> = from.into_iter().collect();
    (!all.is_empty()).then(|| all[usize::from(pick) % all.len()].clone())
}

impl Model {
    fn new(seed: u64) -> Self {
        let settings = Settings { puts_in_flight_max: IN_FLIGHT_MAX, ..Settings::default() };
        let roles = roles(1, A, [Healthy, Healthy]);
        let mut bench = Bench::with(settings, roles.clone());
        bench.random = SeededRandom::new(seed);
        let (pending, in_flight, late, proposals) = Default::default();
        Self { bench, roles, sealed: 0, pending, in_flight, late, proposals }
    }

    fn state(&self, cloud: CloudId) -> CloudState {
        self.roles.cloud(cloud).state
    }

    /// Tells the machine, and checks every order against what is known.
    fn say(&mut self, input: Input) {
        let accepted = match input {
            Input::Proposed { segment, end: ProposalEnd::Accepted } => Some(segment),
            _ => None,
        };
        for output in self.bench.say(input) {
            match output {
                Output::Put { cloud, segment, .. } => self.check_put(cloud, segment),
                Output::Cancel { cloud, segment } => {
                    assert!(self.in_flight.remove(&(cloud, segment)), "only what is under way is cancelled");
                    assert!(self.state(cloud) == Failed || accepted == Some(segment));
                    self.late.push((cloud, segment));
                }
                Output::Propose { segment, copies, epoch, .. } => {
                    let told = &self.pending[&segment];
                    assert!(told.flushed);
                    assert_eq!(copies, told.receipts, "a copy is what gave a receipt");
                    let required = CloudId::BOTH.into_iter().filter(|cloud| self.state(*cloud) == Healthy);
                    assert!(required.into_iter().all(|cloud| copies[cloud.index()]));
                    assert_eq!(epoch, self.roles.epoch);
                    assert_eq!(self.proposals.insert(segment, (copies, epoch)), None, "one proposal at a time");
                }
                Output::Release { segment } => {
                    assert_eq!(accepted, Some(segment), "only what is on record is released");
                    assert!(self.pending.remove(&segment).is_some(), "only once");
                }
            }
        }
        assert!(self.bench.mirror.pending().eq(self.pending.keys().copied()));
    }

    fn check_put(&mut self, cloud: CloudId, segment: SegmentId) {
        assert_ne!(self.state(cloud), Failed, "nothing is put to a failed cloud");
        assert!(!self.pending[&segment].receipts[cloud.index()]);
        // No older one that was never tried is passed over.
        let older = self.pending.range(..segment).filter(|(older, told)| {
            let waits = !told.receipts[cloud.index()] && !told.tried[cloud.index()];
            waits && !self.in_flight.contains(&(cloud, **older)) && !self.proposals.contains_key(older)
        });
        assert_eq!(older.count(), 0, "put of {segment:?} to cloud {cloud}");
        assert!(self.in_flight.insert((cloud, segment)), "one attempt at a time");
        assert!(self.in_flight.iter().filter(|(at, _)| *at == cloud).count() <= IN_FLIGHT_MAX);
    }

    fn seal(&mut self, flushed: bool) {
        self.sealed += 1;
        let (number, id) = (self.sealed, segment(self.sealed));
        self.pending.insert(id, Told { flushed, ..Told::default() });
        self.say(Input::Sealed { segment: id, bytes: 100, md5: md5(number), flushed });
    }

    fn flush(&mut self, segment: SegmentId) {
        self.pending.get_mut(&segment).expect("it is pending").flushed = true;
        self.say(Input::Flushed { segment });
    }

    fn end_put(&mut self, (cloud, segment): (CloudId, SegmentId), end: PutEnd) {
        let was_under_way = self.in_flight.remove(&(cloud, segment));
        if let Some(told) = self.pending.get_mut(&segment) {
            told.receipts[cloud.index()] |= end == PutEnd::Receipt;
            told.tried[cloud.index()] |= was_under_way && end != PutEnd::Receipt;
        }
        self.say(Input::Put { cloud, segment, end });
    }

    /// A cloud has lost what it gave a receipt for.
    fn lose(&mut self, (cloud, segment): (CloudId, SegmentId)) {
        let told = self.pending.get_mut(&segment).expect("it is pending");
        // It has had its turn, and waits anew for the next.
        (told.receipts[cloud.index()], told.tried[cloud.index()]) = (false, true);
        self.say(Input::Lost { cloud, segment });
    }

    /// A cancelled attempt answers all the same; it cannot be told from one that was begun since.
    fn end_late(&mut self, at: (CloudId, SegmentId), end: PutEnd) {
        let first = self.late.iter().position(|late| *late == at).expect("it was picked from these");
        self.late.remove(first);
        if self.in_flight.contains(&at) {
            self.late.push(at);
        }
        self.end_put(at, end);
    }

    /// The vote: by the rules of the CloudFS, or no answer.
    fn end_proposal(&mut self, segment: SegmentId, answers: bool) {
        let (copies, epoch) = self.proposals.remove(&segment).expect("it was picked from these");
        let enough = CloudId::BOTH.into_iter().all(|cloud| copies[cloud.index()] || self.state(cloud) != Healthy);
        let end = match (answers, epoch == self.roles.epoch && enough) {
            (false, _) => ProposalEnd::Unanswered,
            (true, true) => ProposalEnd::Accepted,
            (true, false) => ProposalEnd::Refused,
        };
        self.say(Input::Proposed { segment, end });
    }

    fn change_roles(&mut self, active: CloudId, standby: CloudState) {
        let states = if active == A { [Healthy, standby] } else { [standby, Healthy] };
        let changed = CloudId::BOTH.map(|cloud| states[cloud.index()] != self.state(cloud));
        for told in self.pending.values_mut() {
            told.tried = [0, 1].map(|cloud| told.tried[cloud] && !changed[cloud]);
        }
        self.roles = roles(self.roles.epoch.0 + 1, active, states);
        self.say(Input::Roles(self.roles.clone()));
    }

    fn tick_at_deadline(&mut self) -> bool {
        let Some(deadline_ms) = self.bench.mirror.deadline_ms() else {
            return false;
        };
        self.bench.now_ms = deadline_ms;
        self.say(Input::Tick);
        true
    }

    fn turn(&mut self, (kind, pick, outcome): (u8, u8, u8)) {
        let end = [PutEnd::Receipt, PutEnd::Failed, PutEnd::NotTried][usize::from(outcome) % 3];
        match kind {
            0 | 1 => self.seal(outcome % 2 == 0),
            2 => {
                let waiting = self.pending.iter().filter(|(_, told)| !told.flushed).map(|(segment, _)| *segment);
                if let Some(segment) = picked(waiting, pick) {
                    self.flush(segment);
                }
            }
            3..=5 => {
                if let Some(at) = picked(self.in_flight.iter().copied(), pick) {
                    self.end_put(at, end);
                }
            }
            6 => {
                if let Some(at) = picked(self.late.iter().copied(), pick) {
                    self.end_late(at, end);
                }
            }
            7 => {
                if let Some(segment) = picked(self.proposals.keys().copied(), pick) {
                    self.end_proposal(segment, outcome != 0);
                }
            }
            8 => self.change_roles(
                CloudId::BOTH[usize::from(pick) % 2],
                [Healthy, Failed, Resyncing][usize::from(outcome) % 3],
            ),
            9 => {
                let cloud = CloudId::BOTH[usize::from(outcome) % 2];
                let stored = self.pending.iter().filter(|(_, told)| told.receipts[cloud.index()]);
                if let Some(segment) = picked(stored.map(|(segment, _)| *segment), pick) {
                    self.lose((cloud, segment));
                }
            }
            _ => drop(self.tick_at_deadline()),
        }
    }

    /// Everything is well from now on; gives whether all was released.
    fn settle(&mut self) -> bool {
        self.change_roles(A, Healthy);
        self.pending.keys().copied().collect::<Vec<_>>().into_iter().for_each(|segment| self.flush(segment));
        for _ in 0..10 * (self.sealed + 10) {
            if let Some(at) = picked(self.in_flight.iter().copied(), 0) {
                self.end_put(at, PutEnd::Receipt);
            } else if let Some(segment) = picked(self.proposals.keys().copied(), 0) {
                self.end_proposal(segment, true);
            } else if !self.tick_at_deadline() {
                break;
            }
        }
        self.pending.is_empty()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order, nothing is promised that is not so, and all is released in the end.
    #[test]
    fn nothing_is_released_too_early_and_all_is_in_the_end(
        seed: u64,
        turns in prop::collection::vec((0_u8..13, any::<u8>(), any::<u8>(), 0_u64..1500), 1..300),
    ) {
        let mut model = Model::new(seed);
        for (kind, pick, outcome, wait_ms) in turns {
            model.bench.now_ms += wait_ms * u64::from(outcome % 2);
            model.turn((kind, pick, outcome));
        }
        prop_assert!(model.settle(), "pending: {:?}", model.bench.mirror);
    }
}
