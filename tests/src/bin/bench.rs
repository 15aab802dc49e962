//! Speed and memory of a filer, as ratios of what was measured side by side in the same run on the same machine.
//!
//! A filer with two clouds takes data over NFS until both clouds have given their receipts; the same bytes go straight to
//! the same two cloud servers, at once, through the same client library. Absolute numbers are printed for the reader;
//! only the ratios mean something elsewhere. The filer has the settings that it has when nobody sets any.
//!
//! Small files are compared with the servers beside the filer, where both ways are bound by the processor, each way with as
//! many under way as suits it best; and with each of the clouds' answers as late as one from afar is. That last ratio says
//! how much a client's calls under way at one time can make up for the distance, and has no target.
//!
//! Each way begins with a quiet disk: what came before has reached it, and falls into nobody's time.
//!
//! A target that is missed is an exit code of 1, and so is a run in which anything failed on the way: numbers of a filer
//! that had to try again say nothing.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Parser;
use futures::{StreamExt, TryStreamExt, stream};
use std::{
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use storage::{
    cloud::Cloud,
    cloudfs::CloudState,
    ids::{CloudId, Md5},
};
use tests::{
    cloud::{CloudProcess, Effect, Fault, On, RemoteCloud},
    mesh_of_filers::{CloudPlace, MeshOfFilers, Plan},
    nfs3::Nfs3,
    process::temp_dir,
    sites::log_tail,
};
use tokio::{
    process::Command,
    time::{sleep, timeout},
};

const MIB: usize = 1 << 20;
/// What a filer puts at one time, in bytes and in number: the straight puts do the same.
const SEGMENT_BYTES: usize = 8 * MIB;
const PUTS_IN_FLIGHT: usize = 16;
/// Small files, and small puts, under way at one time: those of one busy client, and of several.
const SMALL_IN_FLIGHT: [usize; 2] = [64, 256];
/// How late an answer of a cloud from afar is at least, in milliseconds, however small the request, and how many are under way
/// meanwhile.
const AWAY: (u64, usize) = (40, 256);
/// Of a small file, in bytes.
const SMALL_BYTES: usize = 4096;
/// What the memory's file is written in, in bytes.
const PIECE_BYTES: usize = 16 * MIB;
const CLOUDS_WITHIN: Duration = Duration::from_secs(900);
const QUIET_WITHIN: Duration = Duration::from_secs(300);
/// What the disk must have room for besides the large files, in MiB.
const ROOM_MIB_MIN: u64 = 2048;
/// How often it is looked whether they have.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Speed of a large file through NFS until both clouds have it, of the speed of straight puts, at least.
const LARGE_RATIO_MIN: f64 = 0.6;
/// Small files a second through NFS until both clouds have them, of straight puts a second, at least.
const SMALL_RATIO_MIN: f64 = 2.0;
/// Resident memory besides the cache's setting, at most, in MiB.
const MEMORY_MIB_MAX: usize = 400;

/// Measures a filer against straight puts to its clouds.
///
/// Exit codes: 0 every target is met, 1 one is missed or the run failed, 2 wrong usage.
#[derive(Parser)]
struct Arguments {
    /// Size of the large file, in MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    large_mib: u32,
    /// Number of small files, of 4 KiB each
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    small_files: u32,
    /// Size of the file during which memory is watched, in MiB
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(16..))]
    memory_mib: u32,
    /// Rounds of large files, of small ones two for each and one more; each ratio is the median of theirs
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("bench: a target is missed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every target is met.
async fn run(arguments: Arguments) -> Result<bool> {
    let folder = temp_dir("bench-clouds")?;
    check_room(&arguments, folder.path()).await?;
    let a = CloudProcess::start("a", folder.path(), "bench").await?;
    let b = CloudProcess::start("b", folder.path(), "bench").await?;
    let places = [CloudPlace::s3("a", &a, folder.path())?, CloudPlace::s3("b", &b, folder.path())?];
    let mesh = MeshOfFilers::start(Plan::as_shipped("bench", places).sites(&["ams"])).await?;
    let mut bench = Bench::start(mesh, [a.remote(), b.remote()]).await?;
    let rounds = arguments.rounds as usize;
    let mut met = bench.large(arguments.large_mib as usize, rounds).await?;
    let small_rounds = small_rounds(rounds as u64) as usize;
    met &= bench.small(arguments.small_files as usize, small_rounds).await?;
    bench.small_away(arguments.small_files as usize, small_rounds).await?;
    met &= bench.memory(arguments.memory_mib as usize).await?;
    Ok(met)
}

/// Rounds of small files for so many of large ones: they are short, and differ more.
fn small_rounds(rounds: u64) -> u64 {
    2 * rounds + 1
}

/// Makes sure that the disk has room for everything: what a filer that has none left makes of it says nothing.
async fn check_room(arguments: &Arguments, folder: &Path) -> Result<()> {
    let [large, memory, rounds] = [arguments.large_mib, arguments.memory_mib, arguments.rounds].map(u64::from);
    // Each is in two clouds and in the filer's cache; what is put straight is in two, large files for one round.
    let small = small_rounds(rounds) * (1 + SMALL_IN_FLIGHT.len() as u64) * u64::from(arguments.small_files);
    let small = small * (3 + 2) * SMALL_BYTES as u64 / MIB as u64;
    let needed = (3 * rounds + 2) * large + small + 3 * memory + ROOM_MIB_MIN;
    let output = Command::new("df").args(["--output=avail", "-BM"]).arg(folder).output().await.context("running df")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let free = said.lines().nth(1).and_then(|line| line.trim().trim_end_matches('M').parse::<u64>().ok());
    let free = free.with_context(|| format!("df says: {said}"))?;
    ensure!(
        free >= needed,
        "{} has {free} MiB free, and {needed} MiB are needed: make room, or have TMPDIR name another disk",
        folder.display()
    );
    Ok(())
}

/// Small files a second.
#[derive(Clone, Copy, Default)]
struct Rates {
    through: f64,
    straight: f64,
}

impl Rates {
    fn ratio(self) -> f64 {
        self.through / self.straight
    }
}

/// A filer, a client of it, and its clouds.
struct Bench {
    mesh: MeshOfFilers,
    nfs: Nfs3,
    clouds: [Arc<dyn Cloud>; 2],
    remotes: [RemoteCloud; 2],
}

impl Bench {
    async fn start(mesh: MeshOfFilers, remotes: [RemoteCloud; 2]) -> Result<Self> {
        let nfs = mesh.sites[0].mount().await?;
        let clouds = [mesh.sites[0].cloud(CloudId::A)?, mesh.sites[0].cloud(CloudId::B)?];
        Ok(Self { mesh, nfs, clouds, remotes })
    }

    /// One large file.
    async fn large(&self, mib: usize, rounds: usize) -> Result<bool> {
        println!("{mib} MiB, until both clouds have them");
        let (mut ratios, root) = (vec![], self.nfs.root());
        for round in 0..rounds {
            let (data, name) = (noise(mib * MIB, round as u64), format!("large-{round}"));
            quiet_disk().await?;
            let straight = self.straight_large(&data, round).await?;
            self.remove_straight_large(data.len(), round).await?;
            quiet_disk().await?;
            let start = Instant::now();
            self.nfs.put(&name, &data).await?;
            self.until_in_clouds().await?;
            let through = start.elapsed();
            self.nfs.remove(&root, &name).await?;
            let speed = |took: Duration| mib as f64 / took.as_secs_f64();
            println!("  through NFS {:.0} MiB/s, straight to both clouds {:.0} MiB/s", speed(through), speed(straight));
            ratios.push(speed(through) / speed(straight));
        }
        Ok(report("speed through NFS, of the speed of straight puts", median(&mut ratios), LARGE_RATIO_MIN))
    }

    /// Many small files.
    async fn small(&self, files: usize, rounds: usize) -> Result<bool> {
        println!("{files} files of 4 KiB, until both clouds have them");
        let mut ratios = vec![];
        for round in 0..rounds {
            let mut best = Rates::default();
            for in_flight in SMALL_IN_FLIGHT {
                let rates = self.small_rates(files, in_flight, &format!("small-{in_flight}-{round}"), round).await?;
                best = Rates { through: best.through.max(rates.through), straight: best.straight.max(rates.straight) };
            }
            ratios.push(best.ratio());
        }
        let what = "files a second through NFS, of straight puts a second, each at its best";
        Ok(report(what, median(&mut ratios), SMALL_RATIO_MIN))
    }

    /// Many small files, with clouds that are far away.
    async fn small_away(&self, files: usize, rounds: usize) -> Result<()> {
        let (away_ms, in_flight) = AWAY;
        println!("{files} files of 4 KiB, until both clouds have them; answers of the clouds {away_ms} ms late");
        for remote in &self.remotes {
            remote.add(&Fault::new(On::Any, Effect::Slowly).delay_ms(away_ms)).await?;
        }
        let mut ratios = vec![];
        for round in 0..rounds {
            ratios.push(self.small_rates(files, in_flight, &format!("away-{round}"), round).await?.ratio());
        }
        println!("  files a second through NFS, of straight puts a second: {:.2}", median(&mut ratios));
        for remote in &self.remotes {
            remote.heal().await?;
        }
        Ok(())
    }

    /// How fast small files go through NFS and straight, so many of them under way. Either way comes first in every other
    /// round.
    async fn small_rates(&self, files: usize, in_flight: usize, name: &str, round: usize) -> Result<Rates> {
        let (straight, (written, through)) = if round.is_multiple_of(2) {
            let straight = self.straight_small(files, in_flight, name).await?;
            (straight, self.through_small(files, in_flight, name).await?)
        } else {
            let through = self.through_small(files, in_flight, name).await?;
            (self.straight_small(files, in_flight, name).await?, through)
        };
        let rate = |took: Duration| files as f64 / took.as_secs_f64();
        let rates = Rates { through: rate(through), straight: rate(straight) };
        println!(
            "  {in_flight} under way: through NFS {:.0} files/s (written in {} ms, in the clouds {} ms later), straight puts {:.0}/s: {:.2}",
            rates.through,
            written.as_millis(),
            (through - written).as_millis(),
            rates.straight,
            rates.ratio()
        );
        Ok(rates)
    }

    /// How long it takes to write small files, and until both clouds have them.
    async fn through_small(&self, files: usize, in_flight: usize, name: &str) -> Result<(Duration, Duration)> {
        quiet_disk().await?;
        let start = Instant::now();
        self.small_files(files, in_flight, name).await?;
        let written = start.elapsed();
        self.until_in_clouds().await?;
        Ok((written, start.elapsed()))
    }

    /// Resident memory while a huge file passes.
    async fn memory(&mut self, mib: usize) -> Result<bool> {
        println!("a file of {mib} MiB, written, read, and in both clouds");
        let cache_bytes = self.mesh.sites[0].config()?.cache.memory_bytes_max;
        let pid = self.mesh.sites[0].process()?.id();
        forget_peak(pid)?;
        let file = self.nfs.create(&self.nfs.root(), "huge").await?;
        let piece = noise(PIECE_BYTES, 99);
        for at in (0..mib * MIB).step_by(PIECE_BYTES) {
            self.nfs.write_at(&file, at as u64, &piece[..PIECE_BYTES.min(mib * MIB - at)]).await?;
        }
        let read = self.nfs.read_each(&file, |_| {}).await?;
        ensure!(read == (mib * MIB) as u64, "{read} bytes were read of {mib} MiB");
        self.until_in_clouds().await?;
        let (peak, limit) = (peak_bytes(pid)?, (MEMORY_MIB_MAX * MIB) as u64 + cache_bytes);
        println!("  peak resident memory {} MiB, cache setting {} MiB", peak >> 20, cache_bytes >> 20);
        Ok(report("limit (400 MiB and the cache), of the peak", limit as f64 / peak as f64, 1.0))
    }

    async fn straight_large(&self, data: &Bytes, round: usize) -> Result<Duration> {
        let start = Instant::now();
        stream::iter((0..data.len()).step_by(SEGMENT_BYTES))
            .map(|at| {
                let body = data.slice(at..data.len().min(at + SEGMENT_BYTES));
                // A task each, so that the hashing uses every core, as the filer's own work may.
                let (clouds, key) = (self.clouds.clone(), large_key(round, at));
                async move { tokio::spawn(async move { put_both(&clouds, key, body).await }).await? }
            })
            .buffer_unordered(PUTS_IN_FLIGHT)
            .try_collect::<()>()
            .await?;
        Ok(start.elapsed())
    }

    /// Takes away what was put straight: a disk has room for one round of it.
    async fn remove_straight_large(&self, bytes: usize, round: usize) -> Result<()> {
        for at in (0..bytes).step_by(SEGMENT_BYTES) {
            for cloud in &self.clouds {
                cloud.delete(&large_key(round, at)).await?;
            }
        }
        Ok(())
    }

    async fn straight_small(&self, files: usize, in_flight: usize, name: &str) -> Result<Duration> {
        let body = noise(SMALL_BYTES, 1);
        quiet_disk().await?;
        let start = Instant::now();
        stream::iter(0..files)
            .map(|n| {
                let (clouds, body) = (self.clouds.clone(), body.clone());
                let key = format!("straight/{name}-{n}");
                async move { tokio::spawn(async move { put_both(&clouds, key, body).await }).await? }
            })
            .buffer_unordered(in_flight)
            .try_collect::<()>()
            .await?;
        Ok(start.elapsed())
    }

    async fn small_files(&self, files: usize, in_flight: usize, name: &str) -> Result<()> {
        let dir = self.nfs.mkdir(&self.nfs.root(), name).await?;
        let body = noise(SMALL_BYTES, 1);
        stream::iter(0..files)
            .map(|n| {
                let (nfs, dir, body) = (self.nfs.clone(), dir.clone(), body.clone());
                async move {
                    let put = tokio::spawn(async move { nfs.put_in(&dir, &format!("{n}"), &body).await });
                    anyhow::Ok(put.await??)
                }
            })
            .buffer_unordered(in_flight)
            .try_collect::<()>()
            .await
            .context("writing small files")
    }

    /// Waits until every segment has its receipts of both clouds on record, and makes sure that nothing failed on the way.
    async fn until_in_clouds(&self) -> Result<()> {
        let (admin, deadline) = (self.mesh.sites[0].admin(), Instant::now() + CLOUDS_WITHIN);
        let status = loop {
            let status = admin.status().await.with_context(|| log_tail(&self.mesh.sites[0].log()))?;
            if status.staging.segments == 0 {
                break status;
            }
            ensure!(Instant::now() < deadline, "staging is not empty after {CLOUDS_WITHIN:?}: {:?}", status.staging);
            sleep(LOOK_EVERY).await;
        };
        ensure!(status.epoch == 1, "a cloud failed while it was measured: {:?}", status.decisions);
        for cloud in &status.clouds {
            let whole = cloud.state == CloudState::Healthy && cloud.missed_puts + cloud.missed_deletes == 0;
            ensure!(whole && cloud.failures_total == 0, "a cloud was not well while it was measured: {cloud:?}");
        }
        Ok(())
    }
}

fn large_key(round: usize, at: usize) -> String {
    format!("straight/large-{round}-{at}")
}

/// Prints a ratio; whether it is as wanted.
fn report(what: &str, ratio: f64, wanted: f64) -> bool {
    let met = ratio >= wanted;
    println!("  {what}: {ratio:.2} (wanted: at least {wanted}){}", if met { "" } else { "  MISSED" });
    met
}

fn median(ratios: &mut [f64]) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// Bytes that do not compress, the same for the same seed.
fn noise(bytes: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut data = Vec::with_capacity(bytes + 8);
    while data.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(bytes);
    data.into()
}

async fn put_both(clouds: &[Arc<dyn Cloud>; 2], key: String, body: Bytes) -> Result<()> {
    // As a filer does: one MD5, both clouds at the same time.
    let md5 = Md5::of(&body);
    futures::try_join!(clouds[0].put(&key, body.clone(), md5), clouds[1].put(&key, body, md5))?;
    Ok(())
}

/// Waits until the kernel has written to the disk whatever waits for that.
async fn quiet_disk() -> Result<()> {
    let synced = timeout(QUIET_WITHIN, Command::new("sync").kill_on_drop(true).status()).await;
    let status = synced.with_context(|| format!("the disk is not quiet after {QUIET_WITHIN:?}"))?;
    ensure!(status.context("running sync")?.success(), "sync failed");
    Ok(())
}

/// Starts the kernel's record of a process's peak resident memory anew (proc(5), `clear_refs`).
fn forget_peak(pid: u32) -> Result<()> {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").context("resetting the peak of resident memory")
}

fn peak_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in /proc")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib << 10)
}
