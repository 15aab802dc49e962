//! Several filers that drain one log on virtual time, and keep within their bounds.

use super::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

pub struct Site {
    pub resync: Resync,
    random: SeededRandom,
    settings: Settings,
    pub looks: Vec<(Option<SegmentId>, usize)>,
    /// What is under way, and when it ends.
    repairs: BTreeMap<SegmentId, (u64, Miss)>,
    pub looks_made: u64,
    /// Rows that have not failed, and that have.
    pub most_held: usize,
    pub most_failing: usize,
    pub most_under_way: usize,
}

pub struct World {
    pub now_ms: u64,
    pub sites: BTreeMap<FilerId, Site>,
    /// Cloud A's missed-write log.
    pub log: BTreeMap<SegmentId, Miss>,
    pub repaired_by: BTreeMap<SegmentId, Vec<FilerId>>,
    /// When each row was tried.
    pub tries: BTreeMap<SegmentId, Vec<u64>>,
    /// Rows whose repair fails.
    pub broken: BTreeSet<SegmentId>,
    pub broken_puts_only: bool,
    /// How long one repair takes.
    pub attempt_ms: u64,
}

impl World {
    pub const STARTED_MS: u64 = 1_000_000;

    pub fn new(settings: Settings, filers: &[FilerId], leader: Option<FilerId>) -> Self {
        let site = |filer: &FilerId| Site {
            resync: Resync::new(*filer, settings.clone()),
            random: SeededRandom::new(filer.0),
            settings: settings.clone(),
            looks: Vec::new(),
            repairs: BTreeMap::new(),
            looks_made: 0,
            most_held: 0,
            most_failing: 0,
            most_under_way: 0,
        };
        let mut world = Self {
            now_ms: Self::STARTED_MS,
            sites: filers.iter().map(|filer| (*filer, site(filer))).collect(),
            log: BTreeMap::new(),
            repaired_by: BTreeMap::new(),
            tries: BTreeMap::new(),
            broken: BTreeSet::new(),
            broken_puts_only: false,
            attempt_ms: 100,
        };
        world.live(filers, leader);
        world
    }

    pub fn miss(&mut self, filer: u64, numbers: Range<u64>) {
        self.log.extend(numbers.map(|number| (segment(filer, number), missed_put(filer, number))));
    }

    fn say_all(&mut self, input: Input) {
        for filer in self.sites.keys().copied().collect::<Vec<_>>() {
            self.say(filer, input.clone());
        }
    }

    pub fn live(&mut self, live: &[FilerId], leader: Option<FilerId>) {
        self.say_all(Input::Mesh { live: live.to_vec(), leader });
    }

    /// What is under way then is lost.
    pub fn roles(&mut self, roles: Roles) {
        if roles.cloud(A).state != Resyncing {
            for site in self.sites.values_mut() {
                site.repairs.clear();
                site.looks.clear();
            }
        }
        self.say_all(Input::Roles(roles));
    }

    /// Cloud A is back.
    pub fn start(&mut self, epoch: u64) {
        self.roles(roles(epoch, Resyncing));
    }

    pub fn progress(&self, filer: FilerId) -> Progress {
        self.sites[&filer].resync.progress(A)
    }

    /// Tells a filer's machine, and checks what it orders.
    pub fn say(&mut self, filer: FilerId, input: Input) {
        let (now_ms, attempt_ms) = (self.now_ms, self.attempt_ms);
        let site = self.sites.get_mut(&filer).expect("this filer is there");
        for output in site.resync.handle(now_ms, &site.random, input) {
            match output {
                Output::Look { cloud, after, limit } => {
                    assert_eq!((cloud, site.looks.len()), (A, 0), "one look at a time");
                    assert!(limit > 0 && limit + site.resync.drains[0].counts().fresh <= site.settings.rows_held_max);
                    site.looks.push((after, limit));
                    site.looks_made += 1;
                }
                Output::Repair { miss, .. } => {
                    self.tries.entry(miss.segment).or_default().push(now_ms);
                    let twice = site.repairs.insert(miss.segment, (now_ms + attempt_ms, miss));
                    assert_eq!(twice, None, "one repair of a row at a time");
                }
            }
        }
        let (held, fresh) = (site.resync.drains[0].rows.len(), site.resync.drains[0].counts().fresh);
        site.most_held = site.most_held.max(fresh);
        site.most_failing = site.most_failing.max(held - fresh);
        assert!(site.most_failing <= site.settings.rows_failing_max);
        site.most_under_way = site.most_under_way.max(site.repairs.len());
        assert!(site.most_held <= site.settings.rows_held_max);
        assert!(site.most_under_way <= site.settings.rows_in_flight_max);
        assert!(site.resync.deadline_ms().is_none_or(|deadline_ms| deadline_ms > now_ms), "what is due has been done");
    }

    fn answer_look(&mut self, filer: FilerId) -> bool {
        let Some((after, limit)) = self.sites.get_mut(&filer).and_then(|site| site.looks.pop()) else {
            return false;
        };
        let behind = self.log.values().filter(|miss| after.is_none_or(|after| miss.segment > after));
        let rows: Vec<Miss> = behind.clone().take(limit).copied().collect();
        let more = behind.count() > rows.len();
        self.say(filer, Input::Rows { cloud: A, rows, more });
        true
    }

    fn end_repair(&mut self, filer: FilerId) -> bool {
        let site = self.sites.get_mut(&filer).expect("this filer is there");
        let ended = site.repairs.values().find(|(ends_ms, _)| *ends_ms <= self.now_ms).map(|(_, miss)| *miss);
        let Some(miss) = ended else {
            return false;
        };
        let segment = miss.segment;
        site.repairs.remove(&segment);
        let works = self.broken_puts_only && miss.kind == MissKind::Delete;
        if self.broken.contains(&segment) && !works {
            self.say(filer, Input::Failed { cloud: A, segment });
            return true;
        }
        // A row that says something else by now stays.
        if self.log.get(&segment).is_some_and(|row| row.kind == miss.kind) {
            self.log.remove(&segment);
            self.repaired_by.entry(segment).or_default().push(filer);
        }
        self.say(filer, Input::Done { cloud: A, segment, bytes: 10 });
        true
    }

    /// When something happens next at a filer.
    fn next_ms(&self, site: &Site) -> Option<u64> {
        let look = (!site.looks.is_empty()).then_some(self.now_ms);
        let repair = site.repairs.values().map(|(ends_ms, _)| *ends_ms).min();
        look.into_iter().chain(repair).chain(site.resync.deadline_ms()).min()
    }

    pub fn run_for(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        while let Some(next_ms) = self.sites.values().filter_map(|site| self.next_ms(site)).min() {
            if next_ms > until_ms {
                break;
            }
            self.now_ms = self.now_ms.max(next_ms);
            for filer in self.sites.keys().copied().collect::<Vec<_>>() {
                while self.answer_look(filer) || self.end_repair(filer) {}
                if self.sites[&filer].resync.deadline_ms().is_some_and(|deadline_ms| deadline_ms <= self.now_ms) {
                    self.say(filer, Input::Tick);
                }
            }
        }
        self.now_ms = until_ms;
    }
}
