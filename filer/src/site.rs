//! A site for real: its configuration, directory, sockets and signals around a [`Filer`](crate::filer::Filer).
//!
//! Owns: opening what the filer works with, in an order in which a wrong setting changes nothing; the doors; the end.
//! Does not own: the filer (`filer`), the doors' words (`admin`, `nfs`).

mod far;
mod greeting;
mod ports;
mod removed;
mod renewal;
mod settings;
mod steering;

use crate::{
    admin::{AdminSocket, MetricsDoor, TokenDoor},
    cloud_names,
    config::{Config, SiteDir},
    filer::{Filer, OWNER_KEY, Who, World, check_owner},
    nfs::{NfsServer, SecretSource},
};
use anyhow::Context;
use greeting::{Greetings, greet_clouds};
use mesh::{
    FilerId,
    clock::{Clock, Random, SeededRandom},
    consensus::RevokedList,
    kv::META,
    net::{Identity, QuicMesh},
    peers::Member,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, UNIX_EPOCH},
};
use steering::Site;
use storage::{
    clouds,
    files::DirDisk,
    ids::CloudId,
    rocks::{RocksKv, RocksSettings},
};
use tokio::{sync::Notify, task::LocalSet};

pub(crate) use ports::{unavailable, unavailable_to_all};
pub(crate) use renewal::Renewal;

/// The machine's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "carries out `Clock` on the machine's clock")]
    fn wall_ns(&self) -> u64 {
        // Before 1970 reads as 1970; the state machine keeps times from running backwards.
        UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64)
    }
}

/// A generator that the operating system seeds, with as many bits as a key has: the CloudFS's secret comes from it.
#[expect(clippy::disallowed_methods, reason = "seeds `Random` from the operating system")]
fn random() -> anyhow::Result<Arc<dyn Random>> {
    use std::io::Read;
    let mut seed = [0; 32];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut seed));
    read.context("drawing a random number from /dev/urandom")?;
    Ok(Arc::new(SeededRandom::from_bytes(seed)))
}

/// How long the doors may take to finish calls at the end.
const END_MAX: Duration = Duration::from_secs(10);

/// Serves a site until SIGTERM or SIGINT. Needs a multi-threaded tokio runtime; the actors live on this thread.
pub async fn serve(config: Config, dir: SiteDir) -> anyhow::Result<()> {
    LocalSet::new().run_until(serve_here(config, dir)).await
}

#[expect(clippy::disallowed_methods, reason = "a site's tables lie in a real directory")]
async fn serve_here(config: Config, dir: SiteDir) -> anyhow::Result<()> {
    cloud_names::tell(CloudId::BOTH.map(|cloud| config.clouds.entry(cloud).name.clone()));
    let site = dir.site()?;
    // Before its files are read: no change of them is missed.
    let renewal = Arc::new(Mutex::new(Renewal::of(dir.identity())));
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
        let open = clouds::open(&settings::of_cloud(&config, cloud), &entry.name);
        opened.push(open.with_context(|| format!("cloud {}", entry.name))?);
    }
    let clouds = [opened[0].clone(), opened[1].clone()];
    // First of the doors: it also tells whether a filer serves this site already.
    let admin = AdminSocket::bind(&config.admin.socket)?;
    let taken = unavailable(&config);
    anyhow::ensure!(taken.is_empty(), "this filer cannot serve here:\n  {}", taken.join("\n  "));
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
    let random = random()?;
    let mesh = QuicMesh::start(config.mesh.transport.clone(), identity, config.mesh.listen, random.clone())?;
    let mesh = Arc::new(mesh);

    let world = World { kv, disk, clouds, peers: mesh.clone(), clock: Arc::new(SystemClock), random };
    let (filer, recovered) = Filer::start(who, world, settings::of(&config)).await?;
    dir.note_served()?;
    // Before anybody is answered.
    let mut outside = Outside::default();
    outside.tell(&filer, &mesh);
    mesh.set_services(filer.services.clone());
    tracing::info!(filer = %site.filer, name = %config.name, mesh = %config.mesh.listen, "the filer is up");
    let fs: Arc<dyn crate::fs::FileSystem> = filer.vfs.clone();
    let nfs = match config.nfs.listen {
        Some(listen) => {
            let limits = settings::of_nfs(&config.nfs);
            let kv = filer.world.kv.clone();
            let secret: SecretSource = Arc::new(move || {
                let read = storage::cloudfs::door_secret(&*kv);
                read.unwrap_or_else(|error| {
                    tracing::error!(%error, "the secret of the doors cannot be read");
                    None
                })
            });
            Some(NfsServer::start(limits, config.nfs.exports.clone(), (site.cloudfs, secret), fs, listen).await?)
        }
        None => None,
    };
    let counters = nfs.as_ref().map(NfsServer::counters);
    let greetings = Arc::new(Greetings::default());
    let site =
        Arc::new(Site::new(filer.clone(), mesh.clone(), renewal.clone(), greetings.clone(), config.clone(), counters));
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
    greet_clouds(&greetings, &filer, &config);
    let living = filer.clone();
    tokio::task::spawn_local(async move { living.run(recovered).await });
    tokio::task::spawn_local(keep_out(outside, filer.clone(), mesh.clone()));
    let look_ms = config.mesh.removal_look_every_ms;
    tokio::task::spawn_local(removed::watch(filer.who.me, filer.consensus.clone(), mesh.clone(), look_ms));
    tokio::task::spawn_local(renew_certificate(mesh.clone(), renewal));
    tokio::task::spawn_local(far::watch(mesh.clone(), config.mesh.election_ms_min));
    tokio::task::spawn_local(watch_certificate(mesh.clone(), config.mesh.certificate_warn_ms));

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
    let mut changes = filer.consensus.belonging();
    loop {
        // It may have stopped while the doors were opened.
        if let Some(why) = filer.consensus.stopped() {
            anyhow::bail!("the replicated log stopped, so the filer can't go on: {why}");
        }
        tokio::select! {
            biased;
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            () = changes.next() => {}
        }
    }
}

/// How often the end of the certificate is looked at.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(6 * 60 * 60);

/// How long a certificate that ends at this second is still valid, in milliseconds; 0 when it has ended.
fn certificate_left_ms(not_after_s: i64) -> u64 {
    let end_ns = u64::try_from(not_after_s).unwrap_or(0).saturating_mul(1_000_000_000);
    end_ns.saturating_sub(SystemClock.wall_ns()) / 1_000_000
}

/// Says some times a day that this filer's certificate ends soon, or has ended.
async fn watch_certificate(mesh: Arc<QuicMesh>, warn_ms: u64) {
    loop {
        let identity = mesh.identity();
        let (serial, left_ms) = (identity.serial(), certificate_left_ms(identity.not_after_s()));
        let days = left_ms / 86_400_000;
        if left_ms == 0 {
            tracing::error!(serial, "this filer's certificate has ended, and peers refuse it: renew it (filer renew)");
        } else if left_ms <= warn_ms {
            tracing::warn!(serial, days, "this filer's certificate ends soon: renew it (filer renew)");
        }
        tokio::time::sleep(CERTIFICATE_LOOK).await;
    }
}

/// How often a renewed certificate is looked for, where nobody says that there is one (`filer renew` does).
const RENEWAL_LOOK: Duration = Duration::from_secs(5);

/// Takes renewed certificates into use.
async fn renew_certificate(mesh: Arc<QuicMesh>, renewal: Arc<Mutex<Renewal>>) {
    loop {
        tokio::time::sleep(RENEWAL_LOOK).await;
        renewal.lock().expect("no look at the certificate panics").take(&mesh);
    }
}

/// Who is kept from coming in.
#[derive(Default)]
struct Outside {
    removed: BTreeSet<FilerId>,
    revoked: RevokedList,
}

impl Outside {
    /// Tells the mesh who is to be kept out, as of now.
    fn tell(&mut self, filer: &Filer, mesh: &QuicMesh) {
        let status = filer.consensus.status();
        // A filer on its way out is still needed for the majority that lets it go.
        let members = |id: &FilerId| status.voters.contains_key(id) || status.learners.contains_key(id);
        let removed: BTreeSet<_> = status.removed.iter().copied().filter(|id| !members(id)).collect();
        if removed != self.removed {
            mesh.set_removed(removed.clone());
            self.removed = removed;
        }
        if status.revoked != self.revoked {
            if status.revoked.contains_key(mesh.identity().serial()) {
                tracing::error!("this filer's certificate was revoked, and peers refuse it: renew it (filer renew)");
            }
            mesh.set_revoked(status.revoked.keys().cloned().collect());
            self.revoked = status.revoked;
        }
    }
}

/// Keeps filers that were removed from the CloudFS, and revoked certificates, from coming in.
async fn keep_out(mut outside: Outside, filer: Filer, mesh: Arc<QuicMesh>) {
    let mut changes = filer.consensus.belonging();
    loop {
        outside.tell(&filer, &mesh);
        changes.next().await;
    }
}
