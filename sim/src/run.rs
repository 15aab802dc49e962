//! One run: a world is made, clients work while faults happen, everything is mended, and what must hold is checked.

use crate::{
    clients, entropy, faults,
    invariants::{
        WELL_MAX, agreed_time, answered_in_time, comes_about, each_cloud_rebuilds, listed_alike, released_is_held,
        replicas_alike, tree_is_a_tree, within_bounds,
    },
    plan::{Plan, Scene},
    recording::{CloudNow, FilerNow, Sample, Seen},
    trace::Trace,
    world::{World, watch::Violation},
};
use filer::actors::health::Views;
use mesh::FilerId;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Once,
    time::Duration,
};
use storage::{
    cloudfs::{CloudState, read},
    ids::CloudId,
};
use tokio::{
    task::LocalSet,
    time::{sleep, timeout},
};

/// Time between two looks at what must always hold.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// What is wrong where a run has not shown what its scene is for.
pub const SHOWS: &str = "a scene shows what it is for";
/// More than wrong clocks make of the agreed time that jump a little, in seconds.
const MUCH_AHEAD_S: u64 = 60;
/// How long filers may take to agree on every row once they have applied the same entries: looks, and the time between two.
const AGREE_LOOKS: usize = 100;
const AGREE_EVERY: Duration = Duration::from_millis(50);
/// Time between two moments of the recording.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Filers that a scene needs to show what it is for.
const FILERS_OF_SCENES: u64 = 3;
/// Stack of a run's thread, in bytes.
const STACK_BYTES: usize = 16 << 20;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub violation: Option<Violation>,
    pub hash: u64,
    pub lines: u64,
    /// It went on to its end, and what must hold then was looked at.
    pub complete: bool,
    /// Why the trace could not be written.
    pub trace_failed: Option<String>,
    pub virtual_ms: u64,
    pub coverage: Vec<(&'static str, u64)>,
    /// The last lines of its trace.
    pub last: Vec<String>,
    /// What people want to see of it.
    pub seen: Seen,
}

/// How a plan is carried out.
#[derive(Default)]
pub struct How {
    /// Where the trace is written to.
    pub trace: Option<Box<dyn Write + Send>>,
    /// Virtual milliseconds after which the run ends, whatever is open then.
    pub until_ms: Option<u64>,
}

thread_local!(static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) });

/// Keeps the first panic of each thread, its place first: those of tasks are swallowed by their runtime.
fn watch_panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let place = panic.location().map_or_else(|| "an unknown place".into(), ToString::to_string);
            let said = panic.payload_as_str().unwrap_or("no message").replace('\n', " ");
            PANICKED.with_borrow_mut(|first| {
                first.get_or_insert_with(|| format!("{place}: {said}"));
            });
            report(panic);
        }));
    });
}

/// Carries out a plan, on a thread of its own.
#[expect(clippy::disallowed_methods, reason = "a run has a thread of its own, so that its seed is all it starts from")]
pub fn run(plan: Plan, how: How) -> Outcome {
    watch_panics();
    let name = format!("seed {}", plan.seed);
    let thread = std::thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(move || {
        entropy::seed_thread(plan.seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O needs nothing of the system");
        let set = LocalSet::new();
        let outcome = catch_unwind(AssertUnwindSafe(|| set.block_on(&runtime, whole(plan, how))));
        // Tasks of filers may not outlive their runtime.
        drop(set);
        drop(runtime);
        outcome.unwrap_or_else(|_| panicked())
    });
    thread.expect("the system gives a thread").join().expect("a panic of the run is caught")
}

/// What came of a run that panicked itself, and none of its tasks.
fn panicked() -> Outcome {
    let what = PANICKED.take().unwrap_or_default();
    Outcome {
        violation: Some(Violation { invariant: "nothing panics".into(), what, at_ms: 0 }),
        hash: 0,
        lines: 0,
        complete: false,
        trace_failed: None,
        virtual_ms: 0,
        coverage: Vec::new(),
        last: Vec::new(),
        seen: Seen::default(),
    }
}

async fn whole(plan: Plan, How { trace, until_ms }: How) -> Outcome {
    let trace = Trace::new(trace);
    let end = async {
        match until_ms {
            Some(ms) => sleep(Duration::from_millis(ms)).await,
            None => std::future::pending().await,
        }
    };
    let world = World::new(plan, trace.clone());
    let complete = tokio::select! {
        biased;
        () = world.watch.violated() => false,
        () = end => false,
        () = story(&world) => true,
    };
    nothing_panicked(&world);
    let trace_failed = trace.flush().err().map(|error| error.to_string());
    let (hash, lines) = trace.hash();
    Outcome {
        violation: world.watch.violation(),
        hash,
        lines,
        complete,
        trace_failed,
        virtual_ms: trace.now_ms(),
        coverage: world.coverage.all(),
        last: trace.last(),
        seen: world.recording.take(trace.now_ms(), world.healed_ms.get()),
    }
}

/// A task that panics is gone, and nobody else would say so.
pub fn nothing_panicked(world: &World) {
    if let Some(panic) = PANICKED.take() {
        world.watch.violate("nothing panics", panic);
    }
}

/// Says what is wrong, if anything is.
fn judge<T>(world: &World, invariant: &str, verdict: Result<T, String>) -> Option<T> {
    verdict.map_err(|what| world.watch.violate(invariant, what)).ok()
}

/// Waits for something that must come about once the world is mended.
async fn in_time<T>(world: &World, what: &str, wait: impl Future<Output = T>) -> Option<T> {
    let end = comes_about(what, wait).await;
    judge(world, "progress", end.map_err(|why| format!("{why}: {}", describe(world))))
}

fn describe(world: &World) -> String {
    let one = |id: FilerId| match world.filer(id) {
        None => format!("{id} is down"),
        Some(filer) => {
            let (staging, log) = (filer.staging.status(), filer.consensus.status());
            let roles = filer.roles.get().map(|roles| {
                (roles.epoch, roles.active, roles.clouds.map(|c| (c.state, c.missed_puts, c.missed_deletes)))
            });
            format!(
                "{id}: {staging:?}, leader {:?}, majorities of {:?}, applied {}, {roles:?}",
                log.leader, log.majorities_of, log.applied
            )
        }
    };
    let tables = world.newest_tables();
    let (totals, agreed_ns) = (read::totals(&tables).unwrap_or_default(), read::newest_ns(&tables).unwrap_or(0));
    let filers = world.ids().into_iter().map(one).collect::<Vec<_>>().join("; ");
    format!("{totals:?}, agreed time {agreed_ns}; {filers}")
}

async fn until(world: &World, what: &str, so: impl Fn(&World) -> bool) {
    let wait = async {
        while !so(world) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    in_time(world, what, wait).await;
}

/// Looks for panics from the beginning on.
async fn look_for_panics(world: Rc<World>) {
    loop {
        sleep(LOOK_EVERY).await;
        nothing_panicked(&world);
    }
}

async fn story(world: &Rc<World>) {
    tokio::task::spawn_local(look_for_panics(world.clone()));
    let sampling = tokio::task::spawn_local(sample(world.clone()));
    for id in world.ids() {
        world.start(id);
        until(world, "a filer becomes a member", |world| {
            world
                .filer(id)
                .is_some_and(|filer| filer.consensus.status().voters.contains_key(&id) && filer.roles.get().is_some())
        })
        .await;
    }
    let Some(shared) = judge(world, "progress", clients::prepare(world).await) else {
        return;
    };
    let looking = tokio::task::spawn_local(look(world.clone()));
    let (mending, storming, storm_shared) = (world.clone(), world.clone(), shared.clone());
    let storm = tokio::task::spawn_local(async move {
        faults::storm(storming, storm_shared).await;
        faults::heal(&mending);
    });
    let working = async {
        clients::work(world, &shared).await;
    };
    let storm_max = Duration::from_millis(world.plan.storm_ms) + WELL_MAX;
    let worked = timeout(storm_max, working).await;
    judge(world, "progress", worked.map_err(|_| format!("clients do not finish: {}", describe(world))));
    let _ = storm.await;
    well(world).await;
    if let Some(audited) = in_time(world, "all files are read", clients::audit(world, &shared)).await {
        judge(world, "reads give what was written", audited);
    }
    for site in world.ids() {
        in_time(world, "all names are looked at", shared.audit_names(world, site)).await;
    }
    // What the audit's reads found to be damaged is put again, and what is dead is swept.
    until(world, "everything dead is swept and nothing is missed", |world| {
        let tables = world.newest_tables();
        let totals = read::totals(&tables).unwrap_or_default();
        let roles = read::roles(&tables).ok().flatten();
        totals.dead_segments == 0
            && totals.orphans == 0
            && roles.is_some_and(|roles| roles.clouds.iter().all(|c| c.missed_puts + c.missed_deletes == 0))
    })
    .await;
    well(world).await;
    looking.abort();
    sampling.abort();
    all_agree(world).await;
    check_at_the_end(world, &shared).await;
}

/// Waits until both clouds are healthy, the preferred one is active, nothing is staged, and all agree, and vote.
async fn well(world: &Rc<World>) {
    let wait = async {
        loop {
            let filers = world.filers();
            let all_up = filers.len() == world.ids().len();
            let clouds_well = filers.iter().all(|filer| {
                filer.roles.get().is_some_and(|roles| {
                    let healthy = |cloud: CloudId| roles.cloud(cloud).state == CloudState::Healthy;
                    CloudId::BOTH.into_iter().all(healthy) && roles.active == roles.preferred
                })
            });
            let held = filers.iter().find_map(|filer| filer.roles.get().filter(|roles| roles.held_by_operator));
            if held.is_some() && all_up {
                // What an operator has moved, an operator moves back.
                faults::operate(world, filers[0].who.me, true).await;
            }
            let drained = filers.iter().all(|filer| filer.staging.status().segments == 0);
            let all = BTreeSet::from([world.ids().into_iter().collect::<BTreeSet<FilerId>>()]);
            let all_vote = || filers.iter().all(|filer| filer.consensus.status().majorities_of == all);
            let agree = || {
                let mut applied = filers.iter().map(|filer| filer.consensus.status().applied);
                let first = applied.next();
                applied.all(|applied| Some(applied) == first)
            };
            if all_up && !world.is_mourning() && clouds_well && drained && agree() && all_vote() {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    in_time(world, "all is well", wait).await;
}

/// Each filer has the same tables.
async fn all_agree(world: &World) {
    let mut last = Ok(());
    for _ in 0..AGREE_LOOKS {
        let tables = |id: FilerId| (id, world.at(id, |site| site.tables.clone()));
        let replicas: Vec<_> = world.ids().into_iter().map(tables).collect();
        last = replicas_alike(&replicas);
        if last.is_ok() {
            return;
        }
        sleep(AGREE_EVERY).await;
    }
    judge(world, "all filers agree", last);
}

/// Keeps what people want to see.
async fn sample(world: Rc<World>) {
    // By filer, the time by its clock at which its oldest unprotected byte was written, and when that was seen first: its clock
    // may jump.
    let mut oldest = BTreeMap::new();
    loop {
        sleep(SAMPLE_EVERY * world.plan.rarely.max(1)).await;
        let now_ms = world.trace.now_ms();
        let filer = |filer: filer::filer::Filer| {
            let staging = filer.staging.status();
            let known =
                oldest.get(&filer.who.me).copied().filter(|(wall_ns, _)| Some(*wall_ns) == staging.oldest_wall_ns);
            let seen_ms = known.map_or(now_ms, |(_, seen_ms)| seen_ms);
            match staging.oldest_wall_ns {
                Some(wall_ns) => oldest.insert(filer.who.me, (wall_ns, seen_ms)),
                None => oldest.remove(&filer.who.me),
            };
            let now = FilerNow {
                staged_bytes: staging.bytes,
                unprotected_ms: now_ms - seen_ms,
                epoch: filer.roles.get().map_or(0, |roles| roles.epoch.0),
                leader: filer.consensus.leader().map(|leader| leader.0),
            };
            (filer.who.me, now)
        };
        let roles = read::roles(&world.newest_tables()).ok().flatten();
        let clouds = roles.map(|roles| {
            CloudId::BOTH.map(|cloud| {
                let status = roles.cloud(cloud);
                let missed = status.missed_puts + status.missed_deletes;
                CloudNow { state: status.state, active: roles.active == cloud, missed }
            })
        });
        let filers = world.filers().into_iter().map(filer).collect();
        let (at_ms, starting) = (world.trace.now_ms(), world.starting());
        world.recording.sample(Sample { at_ms, filers, starting, clouds });
    }
}

/// Looks at what must hold at every moment.
async fn look(world: Rc<World>) {
    // By filer and run, the damaged frames that it had found in its staging at the last look.
    let mut damaged = BTreeMap::new();
    loop {
        sleep(LOOK_EVERY * world.plan.rarely.max(1)).await;
        let longest = world.recording.longest_wait(world.trace.now_ms());
        judge(&world, "progress", answered_in_time(longest, world.plan.answered_ms_max));
        let tables = world.newest_tables();
        judge(&world, "the tree is a tree", tree_is_a_tree(&tables));
        let agreed = agreed_time(&tables, world.right_ns(), &world.plan);
        if judge(&world, "the agreed time is led astray by no clock", agreed) > Some(MUCH_AHEAD_S) {
            world.coverage.hit("agreed time much ahead");
        }
        let held = released_is_held(&tables, &world.clouds, &world.disks(), world.is_behind());
        judge(&world, "what is released is held", held);
        for filer in world.filers() {
            judge(&world, "limits are kept", within_bounds(&filer, &world.settings));
            let (run, found) = (world.at(filer.who.me, |site| site.runs()), filer.staging.status().damaged_frames);
            // Those of its start are not among them.
            let before = damaged.insert((filer.who.me, run), found).unwrap_or(found);
            world.coverage.add("staged frames lost at a put", found - before);
        }
    }
}

async fn check_at_the_end(world: &Rc<World>, shared: &clients::Shared) {
    judge(
        world,
        "progress",
        answered_in_time(world.recording.longest_wait(world.trace.now_ms()), world.plan.answered_ms_max),
    );
    let lost = world.lost_ids();
    let tables = world.newest_tables();
    judge(world, "what is released is held", released_is_held(&tables, &world.clouds, &world.disks(), false));
    judge(world, "both clouds are equal", listed_alike(&tables, &world.clouds, &lost));
    let rebuilt = each_cloud_rebuilds(&tables, &world.clouds, |extent| world.may_be_lost(extent));
    if let Some(files) = judge(world, "each cloud rebuilds everything", rebuilt) {
        for file in shared.files().iter().filter(|file| !file.removed.get()) {
            let ino = file.handle.ino;
            let Some(content) = files.get(&ino).map_or(Some(&[][..]), Option::as_deref) else {
                world.coverage.hit("files with a lost part");
                continue;
            };
            let checked = file.check_at_rest(content);
            judge(world, "each cloud rebuilds everything", checked.map_err(|why| format!("inode {ino}: {why}")));
        }
    }
    let decisions = read::decisions(&tables, usize::MAX).unwrap_or_default();
    let refused = decisions.iter().filter(|decision| !decision.carried);
    world.coverage.add("refused trips", refused.count() as u64);
    for id in world.ids() {
        world.at(id, |site| {
            judge(world, "the tree is a tree", tree_is_a_tree(&site.tables).map_err(|why| format!("at {id}: {why}")))
        });
        let stats = world.filer(id).map(|filer| filer.reader.clone());
        if let Some(reader) = stats {
            use std::sync::atomic::Ordering::Relaxed;
            world.coverage.add("fallback reads", reader.stats.fallback_reads.load(Relaxed));
            world.coverage.add("copies repaired", reader.stats.repaired.load(Relaxed));
            world.coverage.add("damaged copies noticed", reader.stats.damaged.load(Relaxed));
        }
        let views = world.call(id, async move |filer| filer.actors.health.send(Views).await).await;
        if let Ok(Ok(views)) = views {
            for cloud in CloudId::BOTH {
                world.watch.counted(id, cloud, views[cloud.index()].failures_total);
            }
        }
    }
    let happened = world.coverage.all();
    // What was changed or made smaller need not show it any more, nor need fewer filers than scenes are made for.
    let Plan { seed, filers, scene, .. } = &world.plan;
    let is_whole = *filers >= FILERS_OF_SCENES && world.plan == Plan::draw(*seed, scene, (*filers, *filers), 1);
    for wanted in Scene::named(&world.plan.scene).map_or(&[][..], |scene| scene.shows) {
        let missing = happened.iter().any(|(name, count)| name == wanted && *count == 0);
        if missing && is_whole {
            world.watch.violate(SHOWS, format!("this one had no {wanted}"));
        }
    }
    world.trace.note("END", format_args!("after {} ms", world.trace.now_ms()));
}
