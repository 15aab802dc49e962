//! A site for real: its configuration, directory, sockets and signals around a [`Filer`](crate::filer::Filer).
//!
//! Owns: opening what the filer works with, in an order in which a wrong setting changes nothing; the doors; the end.
//! Does not own: the filer (`filer`), the doors' words (`admin`, `nfs`).

mod settings;
mod steering;

use crate::{
    admin::{AdminSocket, MetricsDoor, TokenDoor},
    config::{Config, SiteDir},
    filer::{Filer, OWNER_KEY, Who, World, check_owner},
    nfs::NfsServer,
};
use anyhow::Context;
use mesh::{
    clock::{Clock, Random, SeededRandom},
    kv::META,
    net::{Identity, QuicMesh},
    peers::Member,
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use steering::Site;
use storage::{
    clouds,
    files::DirDisk,
    ids::CloudId,
    rocks::{RocksKv, RocksSettings},
};
use tokio::{sync::Notify, task::LocalSet};

/// The machine's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall_ns(&self) -> u64 {
        // Before 1970 reads as 1970; the state machine keeps times from running backwards.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
    }
}

/// A generator that differs from start to start.
fn random() -> Arc<dyn Random> {
    use std::hash::{BuildHasher, Hasher};
    // The standard library draws its hasher's keys from the operating system.
    let drawn = std::collections::hash_map::RandomState::new().build_hasher().finish();
    Arc::new(SeededRandom::new(drawn ^ SystemClock.wall_ns()))
}

/// How long the doors may take to finish calls at the end.
const END_MAX: Duration = Duration::from_secs(10);

/// Serves a site until SIGTERM or SIGINT. Needs a multi-threaded tokio runtime; the actors live on this thread.
pub async fn serve(config: Config, dir: SiteDir) -> anyhow::Result<()> {
    LocalSet::new().run_until(serve_here(config, dir)).await
}

async fn serve_here(config: Config, dir: SiteDir) -> anyhow::Result<()> {
    let site = dir.site()?;
    let identity = Identity::load(&dir.identity())?;
    anyhow::ensure!(
        identity.id() == site.filer && identity.cloudfs() == site.cloudfs_text(),
        "the certificate in {} is of filer {} in CloudFS {}, and {} names filer {} in CloudFS {}: they belong to two sites",
        dir.identity().display(),
        identity.id(),
        identity.cloudfs(),
        dir.site_path().display(),
        site.filer,
        site.cloudfs_text(),
    );
    let mut opened = Vec::new();
    for cloud in CloudId::BOTH {
        let entry = config.clouds.entry(cloud);
        let open = clouds::open(&entry.settings, &entry.name);
        opened.push(open.with_context(|| format!("cloud {}", entry.name))?);
    }
    let clouds = [opened[0].clone(), opened[1].clone()];
    // First of the doors: it also tells whether a filer serves this site already.
    let admin = AdminSocket::bind(&config.admin.socket)?;
    let address = config.mesh.advertise.clone();
    let who = Who {
        me: site.filer,
        cloudfs: site.cloudfs,
        member: Member { name: config.name.clone(), address },
        first: site.first,
        known: site.members(),
    };
    let state = config.data_dir.join("state");
    // Looked at before they are opened for writing: the tables of another filer stay as they are.
    let owner = if state.is_dir() { RocksKv::look(&state, META, OWNER_KEY)? } else { None };
    match owner {
        Some(owner) => check_owner(&owner, &who)?,
        None if dir.has_served() => anyhow::bail!(
            "{} has none of this filer's tables, though it has served before: mount or restore its data directory. If it is lost for good, remove this filer from another site (filer peers remove {}) and join anew under another name",
            state.display(),
            config.name,
        ),
        None => std::fs::create_dir_all(&state).with_context(|| format!("making {}", state.display()))?,
    }
    let kv = RocksKv::open(&state, &RocksSettings::default())?;
    let disk = DirDisk::open(config.data_dir.join("segments"))?;
    let random = random();
    let mesh = QuicMesh::start(config.mesh.transport.clone(), identity, config.mesh.listen, random.clone())?;
    let mesh = Arc::new(mesh);

    let world = World { kv, disk, clouds, peers: mesh.clone(), clock: Arc::new(SystemClock), random };
    let (filer, recovered) = Filer::start(who, world, settings::of(&config)).await?;
    dir.note_served()?;
    mesh.set_services(filer.services.clone());
    tracing::info!(filer = %site.filer, name = %config.name, mesh = %config.mesh.listen, "the filer is up");
    let fs: Arc<dyn crate::fs::FileSystem> = filer.vfs.clone();
    let nfs = match config.nfs.listen {
        Some(listen) => {
            let limits = settings::of_nfs(&config.nfs);
            Some(NfsServer::start(limits, config.nfs.exports.clone(), site.cloudfs, fs, listen).await?)
        }
        None => None,
    };
    let counters = nfs.as_ref().map(NfsServer::counters);
    let site = Arc::new(Site::new(filer.clone(), mesh.clone(), config.clone(), counters));
    let stop = Arc::new(Notify::new());
    let stopped = |stop: &Arc<Notify>| {
        let stop = stop.clone();
        async move { stop.notified().await }
    };
    let mut doors = tokio::task::JoinSet::new();
    doors.spawn(admin.serve(site.clone(), stopped(&stop)));
    if let (Some(listen), Some(token)) = (config.admin.listen, &config.admin.token_file) {
        doors.spawn(TokenDoor::bind(listen, token).await?.serve(site.clone(), stopped(&stop)));
    }
    if let Some(listen) = config.metrics.listen {
        doors.spawn(MetricsDoor::bind(listen).await?.serve(site.clone(), stopped(&stop)));
    }
    drop(site);

    // Only now, as every door is open: a port in use ends the start before anything was agreed.
    greet_clouds(&filer, &config);
    let living = filer.clone();
    tokio::task::spawn_local(async move { living.run(recovered).await });
    tokio::task::spawn_local(keep_out_the_removed(filer.clone(), mesh.clone()));

    end_of(&filer).await?;
    tracing::info!("stopping");
    if let Some(nfs) = nfs {
        nfs.shutdown().await;
    }
    stop.notify_waiters();
    if tokio::time::timeout(END_MAX, doors.join_all()).await.is_err() {
        tracing::warn!("a door did not close in time");
    }
    filer.consensus.shutdown().await;
    mesh.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// Waits for a signal, or for the replica to stop by itself (which is an error).
async fn end_of(filer: &Filer) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut changes = filer.consensus.changes();
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            () = changes.next() => {
                if let Some(why) = filer.consensus.stopped() {
                    anyhow::bail!("the replicated log stopped, so the filer can't go on: {why}");
                }
            }
        }
    }
}

/// Tries each cloud once, so that wrong credentials or addresses are said plainly at the start. Whether a cloud has
/// failed is judged as ever.
fn greet_clouds(filer: &Filer, config: &Config) {
    for cloud in CloudId::BOTH {
        let (entry, client) = (config.clouds.entry(cloud), filer.world.clouds[cloud.index()].clone());
        let (name, place, me) = (entry.name.clone(), entry.settings.place(), filer.who.me);
        tokio::spawn(async move {
            let body = bytes::Bytes::from_static(b"filermesh probe\n");
            match client.probe(&format!("probes/{:016x}", me.0), body).await {
                Ok(()) => tracing::info!(cloud = %name, %place, "the cloud takes and gives data"),
                Err(error) => tracing::error!(
                    cloud = %name, %place, %error,
                    "the cloud does not take and give data: check its section of the configuration; writes stay in staging until it does, or until it is tripped"
                ),
            }
        });
    }
}

/// Keeps filers that were removed from the CloudFS from coming in.
async fn keep_out_the_removed(filer: Filer, mesh: Arc<QuicMesh>) {
    let mut changes = filer.consensus.changes();
    let mut known = std::collections::BTreeSet::new();
    loop {
        let status = filer.consensus.status();
        // A filer on its way out is still needed for the majority that lets it go.
        let members = |id: &mesh::FilerId| status.voters.contains_key(id) || status.learners.contains_key(id);
        let removed: std::collections::BTreeSet<_> = status.removed.iter().copied().filter(|id| !members(id)).collect();
        if removed != known {
            mesh.set_removed(removed.clone());
            known = removed;
        }
        changes.next().await;
    }
}
