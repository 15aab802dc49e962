//! Whole filers in one process, on virtual time: each with its own tasks, tables and disk, between two clouds.
//!
//! A site can lose power at any moment: its tasks end where they are, its disk forgets what was not synced, and it can
//! be started again on what is left.

use super::{
    clouds::MemoryCloud,
    looks::{Between, Changing},
    network::{Arrived, Network},
    power::{Power, Powered},
};
use crate::filer::{self, Filer, Settings, Steps, Who};
use futures::future::LocalBoxFuture;
use mesh::{
    FilerId,
    clock::{Clock, SeededRandom},
    consensus::{self, Spawning},
    kv::{KvRead, MemoryKv, STATE},
    peers::{Channel, Member, PeerName},
};
use std::{collections::BTreeMap, ops::Bound, sync::Arc, time::Duration};
use storage::{
    cloudfs::{CloudState, Roles, check_invariants, read},
    disk::MemoryDisk,
    ids::CloudId,
    mirror, staging,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, LocalSet},
    time::{Instant, sleep},
};

const CLOUDFS: u64 = 0xc10d;
/// 2026-01-01, in nanoseconds since the Unix epoch.
const START_WALL_NS: u64 = 1_767_225_600_000_000_000;
/// How long anything may take that a test waits for, in virtual time.
const WAIT_MAX: Duration = Duration::from_secs(1800);

/// Wall time that goes as virtual time does.
struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn wall_ns(&self) -> u64 {
        START_WALL_NS + self.0.elapsed().as_nanos() as u64
    }
}

/// All sites, their network and the clouds.
pub struct World {
    pub network: Network,
    /// The preferred primary first.
    pub clouds: [MemoryCloud; 2],
    pub sites: Vec<Site>,
    clock: Arc<VirtualClock>,
    settings: Settings,
}

/// A site: what lasts, and the run of its filer.
pub struct Site {
    pub id: FilerId,
    pub kv: MemoryKv,
    pub disk: MemoryDisk,
    /// What is applied between two looks at its tables.
    pub between: Between,
    run: Option<Run>,
    runs: u64,
}

struct Run {
    filer: Filer,
    power: Power,
    tasks: JoinHandle<()>,
    jobs: mpsc::UnboundedSender<LocalBoxFuture<'static, ()>>,
}

/// Within this time a put arrives, or never does.
const PUT_ARRIVES_MS_MAX: u64 = 20_000;

/// Limits that make a test meet them.
pub fn settings() -> Settings {
    Settings {
        consensus: consensus::Settings { spawning: Spawning::Local, ..Default::default() },
        staging: staging::Settings {
            frame_bytes_max: 8 << 10,
            unwritten_bytes_max: 32 << 10,
            ..staging::Settings::default().with_segments(64 << 10)
        },
        mirror: mirror::Settings { put_arrives_ms_max: PUT_ARRIVES_MS_MAX, ..Default::default() },
        steps: Steps { operation_ms_max: 5_000, ..Steps::default() },
        ..Settings::default()
    }
}

fn member(id: FilerId) -> Member {
    Member { name: format!("site{}", id.0), address: format!("10.0.0.{}:7000", id.0) }
}

impl World {
    /// Runs a test with so many sites, all of them members of one CloudFS.
    pub fn run(sites: u64, test: impl AsyncFnOnce(&mut World)) {
        Self::run_with(sites, settings(), test);
    }

    /// As [`World::run`], with other limits.
    pub fn run_with(sites: u64, settings: Settings, test: impl AsyncFnOnce(&mut World)) {
        super::panics::watch();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O needs nothing of the system");
        LocalSet::new().block_on(&runtime, async {
            let mut world = World {
                network: Network::default(),
                clouds: Default::default(),
                sites: Vec::new(),
                clock: Arc::new(VirtualClock(Instant::now())),
                settings,
            };
            for number in 1..=sites {
                let (kv, disk, between) = Default::default();
                world.sites.push(Site { id: FilerId(number), kv, disk, between, run: None, runs: 0 });
                world.start(number as usize - 1).await;
                world.until("the site is a member", |world| world.is_member(number as usize - 1)).await;
            }
            test(&mut world).await;
            world.check();
            // The tasks of a filer may not outlive its runtime.
            (0..world.sites.len()).for_each(|site| world.end(site));
        });
        drop(runtime);
        super::panics::none_since();
    }

    /// Starts the filer of a site on what its site has.
    pub async fn start(&mut self, site: usize) {
        let others: Vec<FilerId> = self.sites.iter().map(|site| site.id).collect();
        let Site { id, kv, disk, between, runs, .. } = &mut self.sites[site];
        *runs += 1;
        let (power, me) = (Power::default(), *id);
        let known = others.into_iter().filter(|other| *other != me).map(|other| (other, member(other))).collect();
        let who = Who { me, cloudfs: CLOUDFS, member: member(me), first: me == FilerId(1), known };
        let cloud = |cloud: &MemoryCloud| -> Arc<dyn storage::cloud::Cloud> {
            Arc::new(Powered { power: power.clone(), effect: cloud.clone() })
        };
        let tables = Changing { tables: kv.clone(), between: between.clone() };
        let world = filer::World {
            kv: Arc::new(Powered { power: power.clone(), effect: tables }),
            disk: Arc::new(Powered { power: power.clone(), effect: disk.clone() }),
            clouds: self.clouds.each_ref().map(cloud),
            peers: Arc::new(Powered { power: power.clone(), effect: self.network.end(me) }),
            clock: self.clock.clone(),
            random: Arc::new(SeededRandom::new(me.0 * 1000 + *runs)),
        };
        let (settings, arrived) = (self.settings.clone(), self.network.open_door(me));
        let (jobs, to_do) = mpsc::unbounded_channel();
        let (started, start) = oneshot::channel();
        let set = LocalSet::new();
        set.spawn_local(async move {
            let (filer, recovered) = Filer::start(who, world, settings).await.expect("what lasts is usable");
            tokio::task::spawn_local(answer(filer.clone(), arrived));
            tokio::task::spawn_local(work(to_do));
            let _ = started.send(filer.clone());
            filer.run(recovered).await;
        });
        let tasks = tokio::task::spawn_local(set);
        let filer = start.await.expect("the filer starts");
        self.sites[site].run = Some(Run { filer, power, tasks, jobs });
    }

    fn end(&mut self, site: usize) {
        let Some(Run { power, tasks, .. }) = self.sites[site].run.take() else {
            return;
        };
        power.cut();
        tasks.abort();
    }

    /// Cuts the power of a site: its filer ends where it is, its disk forgets what was not synced.
    pub async fn crash(&mut self, site: usize) {
        self.end(site);
        // Let the tasks end.
        tokio::task::yield_now().await;
        self.sites[site].disk.crash();
    }

    /// Crashes and starts a site.
    pub async fn restart(&mut self, site: usize) {
        self.crash(site).await;
        self.start(site).await;
    }

    /// The site of that index.
    pub fn site(&self, site: usize) -> &Site {
        &self.sites[site]
    }

    /// Cuts a site off from all others.
    pub fn cut_off(&self, site: usize) {
        let me = self.sites[site].id;
        self.sites.iter().filter(|other| other.id != me).for_each(|other| self.network.cut(me, other.id));
    }

    /// Waits until something is so.
    pub async fn until(&self, what: &str, so: impl Fn(&World) -> bool) {
        let start = Instant::now();
        while !so(self) {
            assert!(start.elapsed() < WAIT_MAX, "it never came about that {what}: {}", self.describe());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until every written byte of every living site is released, and all agree.
    pub async fn settled(&self) {
        self.until("everything is released, and all agree", |world| {
            let living = || world.sites.iter().filter(|site| site.run.is_some());
            living().all(|site| site.filer().staging.status().segments == 0) && {
                let mut applied = living().map(|site| site.filer().consensus.status().applied);
                let first = applied.next();
                applied.all(|applied| Some(applied) == first)
            }
        })
        .await;
    }

    /// Waits until both clouds are healthy again and the preferred one is active.
    pub async fn healthy(&self) {
        self.until("both clouds are healthy and the preferred one is active", |world| {
            let fit = |roles: Roles| {
                let healthy = |cloud: CloudId| roles.cloud(cloud).state == CloudState::Healthy;
                CloudId::BOTH.into_iter().all(healthy) && roles.active == roles.preferred
            };
            world.sites.iter().filter(|site| site.run.is_some()).all(|site| site.roles().is_some_and(fit))
        })
        .await;
    }

    fn is_member(&self, site: usize) -> bool {
        let site = &self.sites[site];
        site.filer().consensus.status().voters.contains_key(&site.id) && site.filer().roles.get().is_some()
    }

    fn describe(&self) -> String {
        let site = |site: &Site| match &site.run {
            None => format!("{}: down", site.id),
            Some(run) => format!(
                "{}: {:?}, {:?}, {:?}",
                site.id,
                run.filer.staging.status(),
                run.filer.consensus.status(),
                site.roles()
            ),
        };
        self.sites.iter().map(site).collect::<Vec<_>>().join("\n")
    }

    /// What is always true, and that all who have applied as much have the same.
    pub fn check(&self) {
        let mut states = BTreeMap::new();
        for site in &self.sites {
            check_invariants(&site.kv).unwrap_or_else(|why| panic!("filer {}: {why}", site.id));
            let all = (Bound::Included(&[1u8][..]), Bound::Unbounded);
            let state = site.kv.scan(STATE, all, usize::MAX, false).expect("memory does not fail");
            let newest = read::newest_ns(&site.kv).expect("memory does not fail");
            let first = states.entry(newest).or_insert_with(|| state.clone());
            assert!(*first == state, "two filers disagree at {newest}");
        }
    }
}

impl Site {
    /// The running filer.
    pub fn filer(&self) -> &Filer {
        &self.run.as_ref().expect("the site has power").filer
    }

    /// The roles as this site's tables have them.
    pub fn roles(&self) -> Option<Roles> {
        read::roles(&self.kv).expect("memory does not fail")
    }

    /// Begins a client's call among the filer's own tasks. It ends with them; dropping the answer leaves it running.
    pub fn begin<T: 'static>(&self, call: impl AsyncFnOnce(Filer) -> T + 'static) -> oneshot::Receiver<T> {
        let run = self.run.as_ref().expect("the site has power");
        let (filer, (answer, answered)) = (run.filer.clone(), oneshot::channel());
        let job = Box::pin(async move {
            let _ = answer.send(call(filer).await);
        });
        assert!(run.jobs.send(job).is_ok(), "the site has power");
        answered
    }

    /// Carries out a client's call.
    ///
    /// # Panics
    /// When the site loses power meanwhile.
    pub async fn call<T: 'static>(&self, call: impl AsyncFnOnce(Filer) -> T + 'static) -> T {
        self.begin(call).await.expect("the site keeps its power")
    }
}

/// Answers peers' calls, each in a task of its own.
async fn answer(filer: Filer, mut arrived: mpsc::UnboundedReceiver<Arrived>) {
    while let Some(Arrived { from, channel, call, answer }) = arrived.recv().await {
        let service = match channel {
            Channel::Consensus => filer.services.consensus.clone(),
            Channel::Filer => filer.services.filer.clone(),
        };
        tokio::task::spawn_local(async move {
            let from = PeerName { id: from, name: member(from).name };
            let _ = answer.send(service.handle(&from, call).await);
        });
    }
}

/// Carries out clients' calls, each in a task of its own.
async fn work(mut jobs: mpsc::UnboundedReceiver<LocalBoxFuture<'static, ()>>) {
    while let Some(job) = jobs.recv().await {
        tokio::task::spawn_local(job);
    }
}
