//! The runs of a site's filer: its start, the cut of its power, what that leaves, and the start after it.
//!
//! A run ends when its power is cut; a supervisor then ends its tasks, takes back what was not synced, and starts the filer
//! again after a while.

use super::{
    CLOUDFS, Job, World, clouds::SimCloud, disk::SimDisk, member, network::Arrived, power::Power, tables::SimKv,
};
use crate::{dice::Dice, recording::Lane};
use filer::filer::{Filer, Who, World as Effects};
use mesh::{
    FilerId,
    clock::SeededRandom,
    peers::{Channel, PeerName},
    words::chain,
};
use std::{rc::Rc, sync::Arc, time::Duration};
use storage::cloudfs::read;
use tokio::{
    sync::mpsc,
    task::LocalSet,
    time::{Instant, sleep},
};

impl World {
    /// Starts a site's filer, and watches over its power.
    pub fn start(self: &Rc<Self>, id: FilerId) {
        let power = Power::default();
        let others: Vec<FilerId> = self.ids().into_iter().filter(|other| *other != id).collect();
        let known = others.into_iter().map(|other| (other, member(other))).collect();
        let who = Who { me: id, cloudfs: CLOUDFS, member: member(id), first: id == FilerId(1), known };
        self.watch.filer_started(id);
        let (jobs, to_do) = mpsc::unbounded_channel();
        let (effects, run) = self.at(id, |site| {
            site.runs += 1;
            site.power = power.clone();
            site.jobs = Some(jobs);
            if let Some(effects) = site.again_after.take() {
                power.cut_after(effects);
            }
            let dice = |part: &str| Dice::of(self.plan.seed, &format!("{part} of {id}, run {}", site.runs));
            let tables = SimKv {
                me: id,
                tables: site.tables.clone(),
                power: power.clone(),
                pace: site.pace.clone(),
                dice: dice("tables"),
                watch: self.watch.clone(),
            };
            let disk = SimDisk {
                me: id,
                files: site.files.clone(),
                power: power.clone(),
                pace: site.pace.clone(),
                dice: dice("disk"),
                trace: self.trace.clone(),
            };
            let cloud = |cloud: &SimCloud| -> Arc<dyn storage::cloud::Cloud> { Arc::new(cloud.end(id, power.clone())) };
            let effects = Effects {
                kv: Arc::new(tables),
                disk: Arc::new(disk),
                clouds: self.clouds.each_ref().map(cloud),
                peers: Arc::new(self.network.end(id, power.clone())),
                clock: site.clock.clone(),
                random: Arc::new(SeededRandom::new(dice("filer").next())),
            };
            (effects, site.runs)
        });
        self.trace.note(id, format_args!("starts, run {run}"));
        let (settings, arrived) = (self.settings.clone(), self.network.open_door(id));
        let (set, world) = (LocalSet::new(), Rc::downgrade(self));
        set.spawn_local(async move {
            let (filer, recovered) = match Filer::start(who, effects, settings).await {
                Ok(started) => started,
                Err(error) => {
                    if let Some(world) = world.upgrade() {
                        world.watch.violate("a filer starts on what lasts", format!("filer {id}: {}", chain(&error)));
                    }
                    return;
                }
            };
            tokio::task::spawn_local(answer(filer.clone(), arrived));
            tokio::task::spawn_local(work(to_do));
            if let Some(world) = world.upgrade() {
                world.at(id, |site| site.filer = Some(filer.clone()));
                world.trace.note(id, format_args!("is up"));
            }
            drop(world);
            filer.run(recovered).await;
        });
        let tasks = tokio::task::spawn_local(set);
        let world = self.clone();
        tokio::task::spawn_local(async move {
            power.gone().await;
            tasks.abort();
            let _ = tasks.await;
            world.power_lost(id).await;
        });
    }

    /// What a crash leaves, and the start after it.
    async fn power_lost(self: Rc<Self>, id: FilerId) {
        self.coverage.hit("crashes");
        self.network.close_door(id);
        let down_ms = self.at(id, |site| {
            let (at_an_effect, in_a_sync) = site.power.was_cut_at();
            let where_it_was = [
                (site.filer.is_none(), "crashes in a recovery"),
                (at_an_effect, "crashes at an effect"),
                (in_a_sync, "crashes in a sync"),
            ];
            where_it_was.iter().filter(|(so, _)| *so).for_each(|(_, name)| self.coverage.hit(name));
            (site.filer, site.jobs) = (None, None);
            let newest_ns = read::newest_ns(&site.tables).unwrap_or(0);
            self.rolled_back_ns.set(self.rolled_back_ns.get().max(newest_ns));
            let (mut torn, mut rolled_back) = (0, 0);
            site.files.crash_torn(|changes| {
                let kept = self.dice.below(changes as u64 + 1) as usize;
                torn += u64::from(kept < changes);
                (kept, self.dice.below(9000) as usize)
            });
            site.tables.crash(|batches| {
                let kept = self.dice.below(batches as u64 + 1);
                rolled_back += batches as u64 - kept;
                kept as usize
            });
            self.coverage.add("torn writes", torn);
            self.coverage.add("tables rolled back", rolled_back);
            site.down_ms
        });
        if self.is_lost(id) {
            self.trace.note(id, format_args!("is lost"));
            return;
        }
        self.trace.note(id, format_args!("has no power for {down_ms} ms"));
        let off_ms = self.trace.now_ms();
        // Once the world is healed, power is back soon.
        let end = Instant::now() + Duration::from_millis(down_ms);
        while Instant::now() < end && !self.healed.get() {
            sleep(Duration::from_millis(100)).await;
            if self.is_lost(id) {
                return;
            }
        }
        self.recording.fault(Lane::Filer(id), off_ms, self.trace.now_ms() - off_ms, "no power".into());
        self.start(id);
    }

    /// Cuts a site's power for so long, in the middle of the sync of a file that comes so many from now.
    pub fn crash_at_sync(&self, id: FilerId, down_ms: u64, syncs: u64) {
        self.at(id, |site| {
            site.down_ms = down_ms;
            site.power.cut_after_syncs(syncs);
        });
    }

    /// Cuts a site's power for so long; now, or at the effect that comes so many from now.
    pub fn crash(&self, id: FilerId, down_ms: u64, at_effect: Option<u64>, again_after: Option<u64>) {
        self.at(id, |site| {
            (site.down_ms, site.again_after) = (down_ms, again_after);
            match at_effect {
                Some(effects) => site.power.cut_after(effects),
                None => site.power.cut(),
            }
        });
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
async fn work(mut jobs: mpsc::UnboundedReceiver<Job>) {
    while let Some(job) = jobs.recv().await {
        tokio::task::spawn_local(job);
    }
}
