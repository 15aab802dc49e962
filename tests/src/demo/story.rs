//! The story, step by step.

use super::{
    copying::{copy_in, read_back},
    model::{Expected, Model},
    proofs,
    screen::{Screen, Unit, bytes, speed, time},
    source::{Origin, Random, Source},
    stage::{CLOUDS, SITES, Stage},
    summary::Summary,
    watch::{Decided, Watch, brief},
    writers::{Done, Writer},
};
use crate::nfs3::{Nfs3, Stall};
use anyhow::{Context, Result, ensure};
use filer::admin::{
    Status,
    status::{Cloud, Role},
};
use futures::future::try_join_all;
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use storage::cloudfs::CloudState;
use tokio::{task::JoinSet, time::sleep};

/// How long clients work before the cloud is killed, so that it dies in the middle of their work.
const WORK_BEFORE: Duration = Duration::from_secs(2);
/// How long they work in the outage, after the trip.
const WORK_IN_OUTAGE: Duration = Duration::from_secs(15);
/// And after the failback.
const WORK_AFTER: Duration = Duration::from_secs(2);
/// Of a file at each site that is deleted in the outage, in bytes: it fills whole segments.
const SCRATCH_BYTES: usize = 24 << 20;
/// How often the resync is told of.
const RESYNC_TOLD_EVERY: Duration = Duration::from_millis(400);
/// Longest time from the kill until all filers are on the new epoch.
const TRIP_WITHIN: Duration = Duration::from_secs(120);
/// Longest time from the cloud's return to the failback.
const FAILBACK_WITHIN: Duration = Duration::from_secs(300);
/// Longest time until everything is in both clouds.
const SETTLED_WITHIN: Duration = Duration::from_secs(180);

/// The demo under way. Dropped, everything it started is ended.
pub struct Story {
    pub stage: Stage,
    pub folder: PathBuf,
    screen: Screen,
    source: Source,
    seed: u64,
    watch: Watch,
    nfs: Vec<Nfs3>,
    began: Instant,
}

/// What came of the failure.
struct Failure {
    killed: Instant,
    trip: Decided,
    started_again: Instant,
}

impl Story {
    /// Gathers the tree, and starts clouds and filers.
    pub async fn begin(screen: &Screen, from: &Origin, folder: &Path, seed: u64) -> Result<Self> {
        let began = Instant::now();
        screen.part("1. A tree of files");
        let (from, scratch) = (from.clone(), folder.to_path_buf());
        let gather = move || Source::gather(&from.dir, from.leave_out, &scratch, seed);
        let source = tokio::task::spawn_blocking(gather).await??;
        let (files, total) = (source.files.len(), bytes(source.bytes()));
        screen.say(format!("{files} files, {total} ({} of them made for the demo)", source.made));
        if let Some(left_out) = source.left_out_words() {
            screen.say(format!("left out: {left_out}"));
        }

        screen.part("2. Two clouds and three filers");
        let stage = Stage::build(folder, screen).await?;
        let watch = Watch::start(&stage.sites, screen);
        let nfs = try_join_all(stage.sites.iter().map(|site| site.mount())).await?;
        let (screen, folder) = (screen.clone(), folder.to_path_buf());
        Ok(Self { stage, folder, screen, source, seed, watch, nfs, began })
    }

    /// Tells the story to its end.
    pub async fn tell(&mut self) -> Result<Summary> {
        let model = self.copy().await?;
        let (model, changes, failure, longest) = self.fail_and_return(model).await?;
        self.settle().await?;

        self.screen.part("7. Proofs");
        let wanted = tokio::task::spawn_blocking(move || model.expected()).await??;
        let proofs = proofs::all(&self.stage, &wanted, &self.screen).await;
        self.summary(&wanted, proofs, changes, failure, longest).await
    }

    /// Leaves all processes running.
    pub fn leave(self) {
        self.stage.leave();
    }

    async fn copy(&self) -> Result<Model> {
        self.screen.part("3. The tree is copied into ams, and read at nyc and sgp");
        let start = Instant::now();
        let model = copy_in(&self.nfs[0], &self.source, &self.screen).await?;
        let (total, took) = (self.source.bytes(), start.elapsed());
        self.screen.say(format!(
            "{} files, {} copied in {} ({})",
            model.files.len(),
            bytes(total),
            time(took),
            speed(total, took)
        ));
        let wanted = model.expected()?;
        let start = Instant::now();
        let others = SITES.iter().zip(&self.nfs).skip(1);
        let read = try_join_all(others.map(|(site, nfs)| read_back(nfs, site, &wanted, &self.screen))).await?;
        let (total, took) = (read.iter().sum(), start.elapsed());
        self.screen.say(format!(
            "read at nyc and sgp in {} ({}): every SHA-256 is the original's",
            time(took),
            speed(total, took)
        ));
        let protected = |status: &Status| status.staging.segments == 0;
        let bar = self.screen.bar("into both clouds", Unit::Things("segments"), 0);
        let mut most = 0;
        self.watch
            .until("all data is in both clouds", SETTLED_WITHIN, protected, |all| {
                let left: u64 = all.iter().map(|status| status.staging.segments).sum();
                most = left.max(most);
                bar.set(most - left, most);
            })
            .await?;
        self.screen.say("all of it is in both clouds, each segment proved by its MD5");
        Ok(model)
    }

    /// A cloud dies under clients at work, and comes back.
    async fn fail_and_return(&mut self, model: Model) -> Result<(Model, u64, Failure, (String, Stall))> {
        self.screen.part(&format!(
            "4. Clients at all three sites write, overwrite, rename and delete; cloud {} is killed",
            CLOUDS[0]
        ));
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(Done::default()));
        self.put_scratch().await?;
        let mut writers = self.writers(model, &stop, &done);
        self.work(&mut writers, WORK_BEFORE).await?;
        for nfs in &self.nfs {
            nfs.take_longest();
        }

        let before = self.watch.latest().iter().map(|status| status.epoch).max().unwrap_or_default();
        let process = self.stage.clouds[0].process().id();
        self.stage.clouds[0].kill()?;
        let killed = Instant::now();
        self.screen.say(format!("kill -9 {process}: cloud {} is gone; it was active, of epoch {before}", CLOUDS[0]));
        let moved = |status: &Status| status.epoch > before && status.active == CLOUDS[1];
        self.beside(&mut writers, self.watch.until("every filer moved to the standby", TRIP_WITHIN, moved, |_| {}))
            .await?;
        let trip = self.decided(before + 1)?;
        self.screen.say(format!("tripped {} after the kill; clients went on meanwhile", time(trip.at - killed)));

        self.screen.part("5. The outage: everything goes on, what the cloud misses is on record");
        self.beside(&mut writers, self.delete_scratch()).await?;
        self.work(&mut writers, WORK_IN_OUTAGE).await?;
        self.screen.say(done.words());
        self.screen.say(self.watch.latest().iter().map(brief).collect::<Vec<_>>().join("\n"));

        self.screen.part(&format!("6. Cloud {} starts again: resync, failback", CLOUDS[0]));
        self.stage.clouds[0].start_again().await?;
        let started_again = Instant::now();
        let process = self.stage.clouds[0].process().id();
        self.screen.say(format!("cloud {} is back, process {process}; clients still work", CLOUDS[0]));
        let bar = self.screen.bar("resync", Unit::Things("rows"), 1);
        let (watch, mut last) = (&self.watch, None::<Instant>);
        let back = watch.until("the first cloud is healthy and active", FAILBACK_WITHIN, is_back, |all| {
            let clouds = || all.iter().filter_map(cloud);
            let (left, repaired) = (clouds().map(missed).max().unwrap_or_default(), watch.repaired(CLOUDS[0]));
            bar.set(repaired.rows, repaired.rows + left);
            let resyncing = clouds().any(|cloud| cloud.state == CloudState::Resyncing);
            if resyncing && last.is_none_or(|last| last.elapsed() >= RESYNC_TOLD_EVERY) {
                last = Some(Instant::now());
                let (done, size) = (repaired.rows, bytes(repaired.bytes));
                self.screen.say(format!("  resync: {left} rows left, {done} done, {size} copied"));
            }
        });
        self.beside(&mut writers, back).await?;
        drop(bar);
        self.screen.say(format!("failback is done, {} after its return", time(started_again.elapsed())));
        self.work(&mut writers, WORK_AFTER).await?;

        stop.store(true, Relaxed);
        let mut whole = Model::default();
        while let Some(ended) = writers.join_next().await {
            whole.files.extend(ended.context("a client panicked")??.files);
        }
        self.screen.say(format!("clients end: {}", done.words()));
        let stalls = SITES.iter().zip(&self.nfs).map(|(site, nfs)| (site.to_string(), nfs.take_longest()));
        let longest = stalls.max_by_key(|(_, stall)| stall.ms).context("there are sites")?;
        Ok((whole, done.changes(), Failure { killed, trip, started_again }, longest))
    }

    /// Writes data that is deleted in the outage, enough to fill segments: their deletes are what the cloud misses too.
    async fn put_scratch(&self) -> Result<()> {
        let mut random = Random(self.seed);
        for nfs in &self.nfs {
            let data = random.bytes(SCRATCH_BYTES);
            nfs.put_in(&nfs.root(), &scratch(nfs), &data).await.context("writing what will be deleted")?;
        }
        let what = bytes((self.nfs.len() * SCRATCH_BYTES) as u64);
        self.screen.say(format!("{what} are written besides, to be deleted while the cloud is away"));
        Ok(())
    }

    async fn delete_scratch(&self) -> Result<()> {
        for nfs in &self.nfs {
            nfs.remove(&nfs.root(), &scratch(nfs)).await.context("deleting in the outage")?;
        }
        Ok(())
    }

    /// One writer at each site, each with its share of the tree.
    fn writers(&self, model: Model, stop: &Arc<AtomicBool>, done: &Arc<Done>) -> JoinSet<Result<Model>> {
        let mut shares: Vec<Model> = SITES.iter().map(|_| Model::default()).collect();
        for (number, (path, content)) in model.files.into_iter().enumerate() {
            shares[number % SITES.len()].files.insert(path, content);
        }
        let mut writers = JoinSet::new();
        for (number, share) in shares.into_iter().enumerate() {
            let all = SITES.iter().zip(&self.nfs).enumerate();
            let others =
                all.filter(|(other, _)| *other != number).map(|(_, (name, nfs))| (name.to_string(), nfs.clone()));
            let seed = self.seed ^ (number as u64 + 1) << 32;
            let writer =
                Writer::new(SITES[number], self.nfs[number].clone(), others.collect(), share, seed, done.clone());
            writers.spawn(writer.run(stop.clone()));
        }
        writers
    }

    /// Lets the clients work for a while.
    async fn work(&self, writers: &mut JoinSet<Result<Model>>, length: Duration) -> Result<()> {
        self.beside(writers, async {
            sleep(length).await;
            Ok(())
        })
        .await
    }

    /// Does something while the clients work; fails as soon as one of them does.
    async fn beside<T>(
        &self,
        writers: &mut JoinSet<Result<Model>>,
        doing: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            Some(ended) = writers.join_next() => {
                ended.context("a client panicked")??;
                anyhow::bail!("a client ended by itself");
            }
            done = doing => done,
        }
    }

    /// The decision that began this epoch.
    fn decided(&self, epoch: u64) -> Result<Decided> {
        let decisions = self.watch.decisions().into_iter();
        let mut found = decisions.filter(|decided| decided.row.carried && decided.row.epoch == epoch);
        found.next().with_context(|| format!("no decision is known of epoch {epoch}"))
    }

    async fn settle(&self) -> Result<()> {
        let safe = |status: &Status| {
            status.staging.segments == 0
                && status.clouds.iter().all(|cloud| cloud.state == CloudState::Healthy && missed(cloud) == 0)
        };
        self.watch
            .until("both clouds are healthy and miss nothing, staging is empty", SETTLED_WITHIN, safe, |_| {})
            .await?;
        self.screen.say("both clouds are healthy, the missed-write log and staging are empty");
        Ok(())
    }

    async fn summary(
        &self,
        wanted: &Expected,
        proofs: Vec<proofs::Proof>,
        changes: u64,
        failure: Failure,
        longest: (String, Stall),
    ) -> Result<Summary> {
        let epoch = failure.trip.row.epoch;
        let (last_filer, last) = self.watch.last_on(epoch).context("every filer reached the new epoch")?;
        // The last three decisions, whatever came before: the resync begins, the cloud is healthy, failback.
        let carried: Vec<Decided> = self.watch.decisions().into_iter().filter(|decided| decided.row.carried).collect();
        let [.., began, healthy, back] = &carried[..] else {
            anyhow::bail!("fewer decisions are known than were made: {carried:?}");
        };
        ensure!(began.at <= healthy.at, "the resync ended before it began");
        let calls = self.nfs.iter().map(Nfs3::calls);
        Ok(Summary {
            files: self.source.files.len(),
            bytes: self.source.bytes(),
            files_at_end: wanted.len(),
            bytes_at_end: wanted.values().map(|(bytes, _)| bytes).sum(),
            written_bytes: calls.clone().map(|calls| calls.written_bytes).sum(),
            read_bytes: calls.map(|calls| calls.read_bytes).sum(),
            changes,
            kill_to_trip: failure.trip.at - failure.killed,
            trip_to_last: last.saturating_duration_since(failure.trip.at),
            last_filer,
            longest,
            repaired: self.watch.repaired(CLOUDS[0]),
            resync: healthy.at - began.at,
            failback: back.at.saturating_duration_since(failure.started_again),
            segments: self.stage.sites[0].segments().await?.len(),
            proofs,
            took: self.began.elapsed(),
        })
    }
}

fn scratch(nfs: &Nfs3) -> String {
    format!("scratch-{}.bin", nfs.options().server.port())
}

fn cloud(status: &Status) -> Option<&Cloud> {
    status.clouds.iter().find(|cloud| cloud.name == CLOUDS[0])
}

fn missed(cloud: &Cloud) -> u64 {
    cloud.missed_puts + cloud.missed_deletes
}

fn is_back(status: &Status) -> bool {
    cloud(status).is_some_and(|cloud| cloud.state == CloudState::Healthy && cloud.role == Role::Active)
}
