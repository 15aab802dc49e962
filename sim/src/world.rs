//! All sites, their network and the clouds: what lasts over the runs of their filers, who is there, who was lost.

pub mod clock;
pub mod clouds;
pub mod damage;
pub mod disk;
pub mod network;
pub mod power;
mod runs;
pub mod settings;
pub mod tables;
mod wants;
pub mod watch;

use crate::{
    coverage::Coverage,
    dice::Dice,
    plan::Plan,
    recording::{Recording, Wait},
    trace::Trace,
};
use clock::{SimClock, right_ns};
use clouds::{Md5s, SimCloud};
use damage::Damage;
use filer::filer::{Filer, Settings};
use futures::future::LocalBoxFuture;
use mesh::{FilerId, kv::MemoryKv, peers::Member};
use network::Network;
use power::Power;
use settings::settings;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use storage::{
    cloudfs::{Extent, read},
    disk::MemoryDisk,
    ids::CloudId,
};
use tables::DiskPace;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, timeout},
};
use wants::Wants;
use watch::Watch;

/// The number of the CloudFS.
pub const CLOUDFS: u64 = 0xc10d;
/// How long a client's call may take at a filer that has power once the world is healed, in milliseconds. Before, a change
/// that may have been agreed waits for its outcome as long as the filer has no majority.
const CALL_MS_MAX: u64 = 180_000;

/// The site lost power before it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

type Job = LocalBoxFuture<'static, ()>;

/// A site: what lasts, and the run of its filer.
pub struct Site {
    pub id: FilerId,
    pub tables: MemoryKv,
    pub files: MemoryDisk,
    pub clock: Arc<SimClock>,
    pub pace: Arc<DiskPace>,
    /// What its disk has damaged in its staging.
    pub damage: Damage,
    /// How many bytes its files may have, by faults.
    bytes_max: Wants<u64>,
    power: Power,
    filer: Option<Filer>,
    jobs: Option<mpsc::UnboundedSender<Job>>,
    runs: u64,
    /// How long it stays without power at the next crash, in milliseconds.
    down_ms: u64,
    /// Effects after which the next start ends too.
    again_after: Option<u64>,
    fate: Fate,
    /// Told when it is lost.
    lost: Rc<Notify>,
}

/// Whether a site comes back after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Lives,
    /// Its disk is gone, and it is still a member.
    Lost,
    Removed,
}

impl Site {
    /// How often its filer was started.
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// Nothing is wrong with it any more, and its next start goes well.
    pub fn heal(&mut self) {
        self.again_after = None;
        self.power.keep_on();
        self.pace.heal();
        self.clock.heal();
        self.bytes_max.clear();
        self.files.set_bytes_max(None);
    }

    /// A fault leaves its disk room for so many bytes more, or room enough.
    pub fn leave_room(&mut self, number: u64, left_bytes: Option<u64>) {
        let used_bytes = self.files.used_bytes();
        self.bytes_max.set(number, left_bytes.map(|left| used_bytes + left));
        self.files.set_bytes_max(self.bytes_max.all().into_iter().min());
    }
}

/// The world of one run.
pub struct World {
    pub plan: Plan,
    pub settings: Settings,
    pub trace: Trace,
    pub coverage: Coverage,
    pub recording: Recording,
    pub watch: Watch,
    pub network: Network,
    /// The preferred primary first.
    pub clouds: [SimCloud; 2],
    sites: RefCell<Vec<Site>>,
    start: Instant,
    dice: Dice,
    /// No fault happens any more, and what was wrong is mended.
    pub healed: Cell<bool>,
    /// When that was, in virtual milliseconds.
    pub healed_ms: Cell<Option<u64>>,
    /// How far any tables were that a crash has taken back, by their newest time.
    rolled_back_ns: Cell<u64>,
}

fn member(id: FilerId) -> Member {
    Member { name: format!("site{}", id.0), address: format!("10.0.0.{}:7000", id.0) }
}

impl World {
    /// A world with all sites of the plan, none of them started.
    pub fn new(plan: Plan, trace: Trace) -> Rc<Self> {
        let (coverage, recording, seed) = (Coverage::default(), Recording::default(), plan.seed);
        let settings = settings(&plan);
        let watch = Watch::new(trace.clone(), coverage.clone(), recording.clone(), &settings.health);
        let md5s = Md5s::default();
        let cloud = |id: CloudId| {
            let dice = Dice::of(seed, &format!("cloud {id}"));
            SimCloud::new(id, dice, md5s.clone(), trace.clone(), coverage.clone(), watch.clone())
        };
        let world = Rc::new(Self {
            settings,
            network: Network::new(Dice::of(seed, "network"), trace.clone(), coverage.clone()),
            clouds: CloudId::BOTH.map(cloud),
            sites: RefCell::default(),
            start: Instant::now(),
            dice: Dice::of(seed, "world"),
            healed: Cell::new(false),
            healed_ms: Cell::new(None),
            rolled_back_ns: Cell::new(0),
            plan,
            trace,
            coverage,
            recording,
            watch,
        });
        for _ in 0..world.plan.filers {
            world.add_site();
        }
        world
    }

    /// Adds a site, whose filer is not started yet; gives its id, which no other site has or had.
    pub fn add_site(&self) -> FilerId {
        let mut sites = self.sites.borrow_mut();
        let skew_ms = self.plan.skews_ms.get(sites.len()).copied().unwrap_or(0);
        if skew_ms != 0 {
            self.coverage.hit("clock skews");
        }
        let id = FilerId(sites.len() as u64 + 1);
        sites.push(Site {
            id,
            tables: MemoryKv::default(),
            files: MemoryDisk::default(),
            clock: Arc::new(SimClock::new(self.start, skew_ms)),
            pace: Arc::default(),
            damage: Damage::default(),
            bytes_max: Wants::default(),
            power: Power::default(),
            filer: None,
            jobs: None,
            runs: 0,
            down_ms: 0,
            again_after: None,
            fate: Fate::Lives,
            lost: Rc::default(),
        });
        id
    }

    /// The ids of all sites that are not lost.
    pub fn ids(&self) -> Vec<FilerId> {
        self.sites.borrow().iter().filter(|site| site.fate == Fate::Lives).map(|site| site.id).collect()
    }

    /// Whether a site may be lost now: the others are a majority, whichever entry about the members lasts, and every other loss
    /// was got over, as one is lost at a time.
    pub fn may_lose(&self, id: FilerId) -> bool {
        let running = self.filers();
        let left: BTreeSet<FilerId> = self.ids().into_iter().filter(|other| *other != id).collect();
        let holds =
            |voters: &BTreeSet<FilerId>| voters.contains(&id) && 2 * voters.intersection(&left).count() > voters.len();
        let goes_on = |filer: &Filer| {
            let majorities_of = filer.consensus.status().majorities_of;
            !majorities_of.is_empty() && majorities_of.iter().all(holds)
        };
        let mourns = self.sites.borrow().iter().any(|site| site.fate == Fate::Lost);
        !mourns && !running.is_empty() && running.iter().all(goes_on)
    }

    /// Ends a site for ever.
    pub fn lose(&self, id: FilerId) {
        self.at(id, |site| {
            site.fate = Fate::Lost;
            site.power.cut();
            site.lost.notify_waiters();
        });
    }

    /// The mesh has got over the loss of a site.
    pub fn removed(&self, id: FilerId) {
        self.at(id, |site| site.fate = Fate::Removed);
    }

    /// Whether a site is lost.
    pub fn is_lost(&self, id: FilerId) -> bool {
        self.at(id, |site| site.fate != Fate::Lives)
    }

    /// Whether a site's disk has damaged anything in its staging.
    pub fn has_bad_disk(&self, id: FilerId) -> bool {
        self.at(id, |site| !site.damage.is_empty())
    }

    /// Whether the frame that an extent refers to lay, before any cloud had it, where a disk was damaged.
    pub fn may_be_lost(&self, extent: &Extent) -> bool {
        let frame = extent.frame_at.into()..u64::from(extent.frame_at) + u64::from(extent.frame_len);
        self.at(extent.segment.filer, |site| site.damage.touches(extent.segment, &frame))
    }

    /// The sites that are lost.
    pub fn lost_ids(&self) -> BTreeSet<FilerId> {
        self.sites.borrow().iter().filter(|site| site.fate != Fate::Lives).map(|site| site.id).collect()
    }

    /// The right time, in nanoseconds since the Unix epoch.
    pub fn right_ns(&self) -> u64 {
        right_ns(self.start)
    }

    /// Whether a lost filer is still to be removed by its operator.
    pub fn is_mourning(&self) -> bool {
        self.sites.borrow().iter().any(|site| site.fate == Fate::Lost)
    }

    /// Returns when a site is lost.
    pub async fn lost(&self, id: FilerId) {
        let lost = self.at(id, |site| site.lost.clone());
        let told = lost.notified();
        if !self.is_lost(id) {
            told.await;
        }
    }

    /// Something of a site.
    pub fn at<T>(&self, id: FilerId, look: impl FnOnce(&mut Site) -> T) -> T {
        let mut sites = self.sites.borrow_mut();
        look(sites.iter_mut().find(|site| site.id == id).expect("the site is of this world"))
    }

    /// The filer of a site, while it runs.
    pub fn filer(&self, id: FilerId) -> Option<Filer> {
        self.at(id, |site| site.filer.clone().filter(|_| !site.power.is_cut()))
    }

    /// All running filers.
    pub fn filers(&self) -> Vec<Filer> {
        self.ids().into_iter().filter_map(|id| self.filer(id)).collect()
    }

    /// Filers that have power and are not up yet.
    pub fn starting(&self) -> Vec<FilerId> {
        let sites = self.sites.borrow();
        let starts = |site: &&Site| site.fate == Fate::Lives && site.jobs.is_some() && site.filer.is_none();
        sites.iter().filter(starts).map(|site| site.id).collect()
    }

    /// The tables that are the furthest, of all sites that are not lost.
    pub fn newest_tables(&self) -> MemoryKv {
        let sites = self.sites.borrow();
        let living = sites.iter().filter(|site| site.fate == Fate::Lives);
        let newest = living.max_by_key(|site| read::newest_ns(&site.tables).unwrap_or(0));
        newest.expect("a world has sites").tables.clone()
    }

    /// Whether a crash has taken back what no tables have again yet: it is in the logs, and waits for a majority. Right code
    /// gets there: what is agreed is in synced logs, and a filer acts on it (it lets go of what is released) when its tables
    /// say so, which are synced no sooner than with the next entry of its log.
    pub fn is_behind(&self) -> bool {
        read::newest_ns(&self.newest_tables()).unwrap_or(0) < self.rolled_back_ns.get()
    }

    /// The disks of all sites that are not lost.
    pub fn disks(&self) -> BTreeMap<FilerId, MemoryDisk> {
        let sites = self.sites.borrow();
        sites.iter().filter(|site| site.fate == Fate::Lives).map(|site| (site.id, site.files.clone())).collect()
    }

    /// How long the world has been healed, in virtual milliseconds.
    fn healed_for_ms(&self) -> u64 {
        self.healed_ms.get().map_or(0, |healed_ms| self.trace.now_ms() - healed_ms)
    }

    /// A client at a site begins to wait for an answer.
    pub fn waits(&self, site: FilerId) -> Wait {
        self.recording.wait(&self.trace, site)
    }

    /// A client's call at a site, among its filer's own tasks.
    pub async fn call<T: 'static>(&self, id: FilerId, call: impl AsyncFnOnce(Filer) -> T + 'static) -> Result<T, Gone> {
        let (answer, mut answered) = oneshot::channel();
        let filer = self.filer(id).ok_or(Gone)?;
        let job: Job = Box::pin(async move {
            let _ = answer.send(call(filer).await);
        });
        let jobs = self.at(id, |site| site.jobs.clone()).ok_or(Gone)?;
        jobs.send(job).map_err(|_| Gone)?;
        loop {
            match timeout(Duration::from_millis(CALL_MS_MAX), &mut answered).await {
                // An answer that comes with the cut of the power is lost with it.
                Ok(Ok(value)) if !self.at(id, |site| site.power.is_cut()) => return Ok(value),
                Ok(_) => return Err(Gone),
                Err(_) if self.healed_for_ms() < CALL_MS_MAX => {}
                Err(_) => {
                    self.watch.violate("every wait has a deadline", format!("a call at filer {id} hangs"));
                    return Err(Gone);
                }
            }
        }
    }
}
