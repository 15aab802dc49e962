//! Speed and memory of a filer, as ratios of what was measured side by side in the same run on the same machine.
//!
//! A filer with two clouds takes data over NFS until both clouds have given their receipts; the same bytes go straight to
//! the same two cloud servers, at once, through the same client library. Absolute numbers are printed for the reader;
//! only the ratios mean something elsewhere.

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Parser;
use futures::{StreamExt, TryStreamExt, stream};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use storage::{
    cloud::Cloud,
    ids::{CloudId, Md5},
};
use tests::{
    cloud::CloudProcess,
    mesh_of_filers::{CloudPlace, MeshOfFilers, Plan},
    nfs3::Nfs3,
    process::temp_dir,
};

const MIB: usize = 1 << 20;
/// What a filer puts at one time, in bytes and in number: the straight puts do the same.
const SEGMENT_BYTES: usize = 8 * MIB;
const PUTS_IN_FLIGHT: usize = 16;
/// Small files and small puts under way at one time.
const SMALL_IN_FLIGHT: usize = 64;
const CLOUDS_WITHIN: Duration = Duration::from_secs(900);

/// Measures a filer against straight puts to its clouds.
#[derive(Parser)]
struct Arguments {
    /// Size of the large file, in MiB
    #[arg(long, default_value_t = 1024)]
    large_mib: usize,
    /// Number of small files, of 4 KiB each
    #[arg(long, default_value_t = 2000)]
    small_files: usize,
    /// Size of the file during which memory is watched, in MiB
    #[arg(long, default_value_t = 4096)]
    memory_mib: usize,
    /// Rounds of each comparison; the ratio is of the medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let folder = temp_dir("bench-clouds")?;
    let a = CloudProcess::start("a", folder.path(), "bench").await?;
    let b = CloudProcess::start("b", folder.path(), "bench").await?;
    let places = [CloudPlace::s3("a", &a, folder.path())?, CloudPlace::s3("b", &b, folder.path())?];
    let plan = Plan::new("bench", places)
        .sites(&["ams"])
        .set("segments.seal_after=100 ms")
        .set("segments.puts_in_flight_max=16");
    let mut mesh = MeshOfFilers::start(plan).await?;
    let nfs = mesh.sites[0].mount().await?;
    let clouds = [mesh.sites[0].cloud(CloudId::A)?, mesh.sites[0].cloud(CloudId::B)?];

    let (mut through, mut straight) = (Vec::new(), Vec::new());
    for round in 0..arguments.rounds {
        let data = noise(arguments.large_mib * MIB, round as u64);
        straight.push(straight_large(&clouds, &data, round).await?);
        let start = Instant::now();
        nfs.put(&format!("large-{round}"), &data).await?;
        until_in_clouds(&mut mesh).await?;
        through.push(start.elapsed());
        nfs.remove(&nfs.root(), &format!("large-{round}")).await?;
    }
    let (through, straight) = (median(&mut through), median(&mut straight));
    println!("{} MiB, until both clouds have it", arguments.large_mib);
    println!("  through NFS {:.2} s, straight to both clouds {:.2} s", through.as_secs_f64(), straight.as_secs_f64());
    report("  speed through NFS, of the speed of straight puts", straight.as_secs_f64() / through.as_secs_f64(), 0.6);

    let (mut through, mut straight) = (Vec::new(), Vec::new());
    for round in 0..arguments.rounds {
        straight.push(straight_small(&clouds, arguments.small_files, round).await?);
        let start = Instant::now();
        small_files(&nfs, arguments.small_files, round).await?;
        until_in_clouds(&mut mesh).await?;
        through.push(start.elapsed());
    }
    let (through, straight) = (median(&mut through), median(&mut straight));
    let rate = |took: Duration| arguments.small_files as f64 / took.as_secs_f64();
    println!("{} files of 4 KiB, until both clouds have them", arguments.small_files);
    println!("  through NFS {:.0} files/s, straight puts {:.0} a second", rate(through), rate(straight));
    report("  files a second through NFS, of straight puts", rate(through) / rate(straight), 2.0);

    drop(nfs);
    let nfs = mesh.sites[0].mount().await?;
    let cache_bytes = mesh.sites[0].config()?.cache.memory_bytes_max;
    let pid = mesh.sites[0].process()?.id();
    forget_peak(pid)?;
    let file = nfs.create(&nfs.root(), "huge").await?;
    let piece = noise(64 * MIB, 99);
    for at in (0..arguments.memory_mib / 64).map(|n| (n * 64 * MIB) as u64) {
        nfs.write_at(&file, at, &piece).await?;
    }
    nfs.read_each(&file, |_| {}).await?;
    until_in_clouds(&mut mesh).await?;
    let peak = peak_bytes(pid)?;
    let limit = (400 * MIB) as u64 + cache_bytes;
    println!("a file of {} MiB, written and read", arguments.memory_mib);
    println!("  peak resident memory {} MiB, cache setting {} MiB", peak >> 20, cache_bytes >> 20);
    report("  limit (400 MiB and the cache), of the peak", limit as f64 / peak as f64, 1.0);
    Ok(())
}

fn report(what: &str, ratio: f64, wanted: f64) {
    println!("{what}: {ratio:.2} (wanted: at least {wanted}){}", if ratio < wanted { "  MISSED" } else { "" });
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
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

async fn straight_large(clouds: &[Arc<dyn Cloud>; 2], data: &Bytes, round: usize) -> Result<Duration> {
    let start = Instant::now();
    stream::iter((0..data.len()).step_by(SEGMENT_BYTES))
        .map(|at| {
            let body = data.slice(at..data.len().min(at + SEGMENT_BYTES));
            // A task each, so that the hashing uses every core, as the filer's own work may.
            let (clouds, key) = (clouds.clone(), format!("straight/large-{round}-{at}"));
            async move { tokio::spawn(async move { put_both(&clouds, key, body).await }).await? }
        })
        .buffer_unordered(PUTS_IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    Ok(start.elapsed())
}

async fn straight_small(clouds: &[Arc<dyn Cloud>; 2], files: usize, round: usize) -> Result<Duration> {
    let body = noise(4096, round as u64);
    let start = Instant::now();
    stream::iter(0..files)
        .map(|n| {
            let (clouds, body) = (clouds.clone(), body.clone());
            let key = format!("straight/small-{round}-{n}");
            async move { tokio::spawn(async move { put_both(&clouds, key, body).await }).await? }
        })
        .buffer_unordered(SMALL_IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    Ok(start.elapsed())
}

async fn small_files(nfs: &Nfs3, files: usize, round: usize) -> Result<()> {
    let dir = nfs.mkdir(&nfs.root(), &format!("small-{round}")).await?;
    let body = noise(4096, round as u64);
    stream::iter(0..files)
        .map(|n| {
            let (nfs, dir, body) = (nfs.clone(), dir.clone(), body.clone());
            async move {
                let put = tokio::spawn(async move { nfs.put_in(&dir, &format!("{n}"), &body).await });
                anyhow::Ok(put.await??)
            }
        })
        .buffer_unordered(SMALL_IN_FLIGHT)
        .try_collect::<()>()
        .await
        .context("writing small files")
}

/// Waits until nothing is left in staging: every segment has its receipts of both clouds on record.
async fn until_in_clouds(mesh: &mut MeshOfFilers) -> Result<()> {
    let empty = |status: &filer::admin::Status| status.staging.segments == 0;
    mesh.sites[0].until("staging is empty", CLOUDS_WITHIN, empty).await.map(drop)
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
