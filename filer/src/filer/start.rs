//! The order of a start: whose tables are these, what did the last run leave (`recovered`), who listens to whom; then
//! joining.

use super::{Actors, Filer, Settings, StartError, Who, World, service::FilerService};
use crate::{
    actors::{
        cache::CacheActor,
        connector::ConnectorActor,
        health::{self, HealthActor},
        mesh::{self as mesh_actor, MeshActor},
        mirror::MirrorActor,
        resync::{ResyncActor, Tools},
    },
    door::{Door, DoorError},
    reading::{Parts, Reader},
    roles::CurrentRoles,
    vfs::Vfs,
    wire::{self, FilerCall, FilerReply},
};
use actix::Actor;
use mesh::{
    FilerId,
    consensus::Consensus,
    kv::{Batch, Durability, Kv, META},
    peers::Services,
    record,
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use storage::{
    cache::{DiskCache, FrameCache, GivingWay},
    cloudfs::{CloudFs, DoorSecret, OpBody, OpError, door_secret},
    ids::CloudId,
    staging::{Recovered, Staging},
};
use tokio::{sync::Notify, time::Instant};

/// Where the tables say whose they are, in [`META`].
pub const OWNER_KEY: &[u8] = b"filer/owner";
const BOOT_KEY: &[u8] = b"filer/boot";
const RECORD_VERSION: u8 = 1;

/// Checks that the record under [`OWNER_KEY`] names this filer.
pub fn check_owner(owner: &[u8], who: &Who) -> Result<(), StartError> {
    let (found_cloudfs, found): (u64, FilerId) =
        record::decode(RECORD_VERSION, owner).map_err(StartError::OwnerRecord)?;
    if (found_cloudfs, found) != (who.cloudfs, who.me) {
        return Err(StartError::Owner { found, found_cloudfs, me: who.me, cloudfs: who.cloudfs });
    }
    Ok(())
}

/// Checks whose tables these are and raises the boot count; gives the new count. It is at least the wall clock's seconds,
/// so that the segments of a filer whose tables were lost never get the names of its earlier ones.
async fn take_tables(kv: &dyn Kv, who: &Who, wall_ns: u64) -> Result<u32, StartError> {
    let read = |key: &[u8]| kv.get(META, key);
    if let Some(owner) = read(OWNER_KEY)? {
        check_owner(&owner, who)?;
    }
    let last = match read(BOOT_KEY)? {
        Some(boot) => record::decode::<u32>(RECORD_VERSION, &boot).map_err(StartError::OwnerRecord)?,
        None => 0,
    };
    let seconds = u32::try_from(wall_ns / 1_000_000_000).unwrap_or(0);
    let boot = last.saturating_add(1).max(seconds);
    let mut batch = Batch::default();
    batch.put(META, OWNER_KEY, record::encode(RECORD_VERSION, &(who.cloudfs, who.me)));
    batch.put(META, BOOT_KEY, record::encode(RECORD_VERSION, &boot));
    kv.write(batch, Durability::Synced).await?;
    Ok(boot)
}

impl Filer {
    /// Starts a filer on the current thread's `LocalSet`. It answers peers once its [`Filer::services`] are given to
    /// them, and becomes a member by [`Filer::run`].
    pub async fn start(who: Who, world: World, settings: Settings) -> Result<(Self, Vec<Recovered>), StartError> {
        let boot = take_tables(&*world.kv, &who, world.clock.wall_ns()).await?;
        let Settings {
            consensus,
            staging,
            cache,
            health,
            turns,
            mirror,
            resync,
            sweep,
            reading,
            vfs,
            mesh,
            operations,
            steps,
        } = settings;
        let (disk, clock, random) = (world.disk.clone(), world.clock.clone(), world.random.clone());
        let giving_way = GivingWay::new(disk.clone());
        let (staging, recovered) =
            Staging::recover(who.me, who.cloudfs, boot, staging, giving_way.clone(), clock.clone()).await?;
        let staging = Arc::new(staging);
        let disk_cache = Arc::new(DiskCache::open(disk, &cache).await?);
        giving_way.set_cache(disk_cache.clone());

        let roles_changed = Arc::new(Notify::new());
        let tell = roles_changed.clone();
        let machine = Arc::new(CloudFs::new(Arc::new(move || tell.notify_one()), operations));
        let consensus =
            Consensus::start(consensus, who.me, world.kv.clone(), machine, world.peers.clone(), random.clone()).await?;
        let deadline = Duration::from_millis(steps.operation_ms_max);
        let put_arrives = Duration::from_millis(mirror.put_arrives_ms_max);
        let door = Door::new(who.me, Arc::new(consensus.clone()), clock.clone(), deadline, steps.changes_in_flight_max);
        let roles = CurrentRoles::default();

        let health = HealthActor::new(who.me, health, random.clone()).start();
        let connectors = CloudId::BOTH.map(|cloud| {
            let (effect, health, random) = (world.clouds[cloud.index()].clone(), health.clone(), random.clone());
            ConnectorActor::new(cloud, effect, turns.clone(), health, random).start()
        });
        let mirror = MirrorActor::new(
            mirror,
            staging.clone(),
            disk_cache.clone(),
            door.clone(),
            connectors.clone(),
            random.clone(),
            steps.wrong_answers_max,
        )
        .start();
        let tools = Tools {
            kv: world.kv.clone(),
            door: door.clone(),
            staging: staging.clone(),
            cache: disk_cache.clone(),
            connectors: connectors.clone(),
        };
        let resync = ResyncActor::new(who.me, resync, sweep, tools, random.clone()).start();
        let mesh = MeshActor::new(
            who.me,
            mesh,
            consensus.clone(),
            world.peers.clone(),
            world.kv.clone(),
            door.clone(),
            roles.clone(),
            roles_changed,
        )
        .start();
        let parts = Parts {
            me: who.me,
            cloudfs: who.cloudfs,
            kv: world.kv.clone(),
            staging: staging.clone(),
            disk_cache: disk_cache.clone(),
            frames: FrameCache::new(cache.memory_bytes_max),
            connectors: connectors.clone(),
            peers: world.peers.clone(),
            roles: roles.clone(),
            resync: resync.clone(),
            random: random.clone(),
        };
        let reader = Reader::new(parts, reading);
        // The boot count makes it differ from every earlier run's: what is unstable is lost with a run.
        let verifier = who.me.0 << 32 ^ u64::from(boot);
        let vfs = Vfs::new(door.clone(), world.kv.clone(), staging.clone(), reader.clone(), vfs, verifier);
        let vfs = Arc::new(vfs);
        let cache = CacheActor::new(staging.clone(), mirror.clone(), vfs.clone()).start();

        health.do_send(health::Wire { connectors: connectors.clone(), mesh: mesh.clone() });
        mesh.do_send(mesh_actor::Wire {
            connectors: connectors.clone(),
            health: health.clone(),
            mirror: mirror.clone(),
            resync: resync.clone(),
        });
        let filer_service = FilerService {
            consensus: consensus.clone(),
            staging: staging.clone(),
            cache: disk_cache.clone(),
            health: health.clone(),
            roles: roles.clone(),
            clock,
            peers: world.peers.clone(),
            deadline,
        };
        let services = Services { consensus: consensus.handler(), filer: Arc::new(filer_service) };
        let actors = Actors { connectors, health, mirror, resync, mesh, cache };
        let (who, reports, started) = (Arc::new(who), Arc::new(Mutex::default()), Instant::now());
        let filer = Self {
            who,
            world,
            consensus,
            door,
            roles,
            staging,
            disk_cache,
            reader,
            vfs,
            actors,
            services,
            reports,
            steps,
            started,
            last_puts_end: started + put_arrives,
        };
        Ok((filer, recovered))
    }

    /// What a filer does by itself beside its actors: becomes a member, judges what it recovered, and then asks its
    /// peers for their news and shows them its clock for ever.
    pub async fn run(&self, recovered: Vec<Recovered>) {
        self.become_member().await;
        self.have_a_secret().await;
        let doubtful = self.judge(recovered).await;
        let asking = async {
            loop {
                self.ask_peers().await;
                tokio::time::sleep(Duration::from_millis(self.steps.reports_every_ms)).await;
            }
        };
        futures::join!(self.find_damaged(doubtful), asking, self.show_clock());
    }

    /// Shows this filer's clock to the others for ever, so that no clock alone makes the time.
    async fn show_clock(&self) {
        let mut shown: Option<Instant> = None;
        loop {
            let since_ms = shown.map_or(0, |shown| shown.elapsed().as_millis() as u64);
            match self.door.propose(OpBody::Clock { since_ms }).await {
                // By now it is applied: what is said to have passed since is never more than has.
                Ok(_) => shown = Some(Instant::now()),
                Err(error) => tracing::debug!(%error, "this filer's clock is not shown yet"),
            }
            tokio::time::sleep(Duration::from_millis(self.steps.clock_every_ms)).await;
        }
    }

    pub(super) async fn pause(&self) {
        tokio::time::sleep(Duration::from_millis(self.steps.again_ms)).await;
    }

    async fn become_member(&self) {
        if self.who.first {
            if let Err(error) = self.consensus.bootstrap(self.who.member.clone()).await {
                tracing::debug!(%error, "the CloudFS is there already");
            }
            let format = OpBody::Format { cloudfs: self.who.cloudfs, preferred: CloudId::A };
            while let Err(error) = self.door.propose(format.clone()).await {
                if let DoorError::Refused(OpError::Format(_)) = error {
                    break;
                }
                tracing::info!(%error, "waiting for the replicated log");
                self.pause().await;
            }
        } else if self.consensus.status().voters.is_empty() {
            // An empty replica knows nobody: its peers come from the site's own papers.
            self.world.peers.set_members(self.who.known.clone());
        }
        let deadline = Duration::from_millis(self.steps.operation_ms_max);
        while !self.consensus.votes_as(&self.who.member) {
            if self.consensus.status().voters.contains_key(&self.who.me) {
                // Its address or name has changed, or that it votes may still be taken back.
                if let Err(error) = self.consensus.add_member(self.who.me, self.who.member.clone(), deadline).await {
                    tracing::info!(%error, "it is not settled yet that this filer is a member with its name and address");
                }
                self.pause().await;
                continue;
            }
            let peers: Vec<_> = self.world.peers.status().into_iter().map(|peer| peer.id).collect();
            for peer in peers {
                let call = FilerCall::Join { member: self.who.member.clone() };
                match wire::call(&*self.world.peers, peer, &call, deadline).await {
                    Ok((FilerReply::Joined, _)) => break,
                    Ok(_) => tracing::warn!(%peer, "the peer answered something else to a wish to join"),
                    Err(error) => tracing::info!(%error, "not let in yet"),
                }
            }
            self.pause().await;
        }
    }

    /// Sees to it that the CloudFS has the secret that its doors seal with: the first that is offered stays.
    async fn have_a_secret(&self) {
        loop {
            match door_secret(&*self.world.kv) {
                Ok(Some(_)) => return,
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "the secret of the doors cannot be read"),
            }
            // It may be on its way from a peer.
            let asked = match self.door.barrier().await {
                Ok(()) if matches!(door_secret(&*self.world.kv), Ok(None)) => {
                    let secret = DoorSecret::draw(&*self.world.random);
                    self.door.propose(OpBody::KeepSecret { secret }).await.map(drop)
                }
                seen => seen,
            };
            if let Err(error) = asked {
                tracing::info!(%error, "the doors wait for the CloudFS's secret");
                self.pause().await;
            }
        }
    }

    async fn ask_peers(&self) {
        let connected = self.world.peers.status().into_iter().filter(|peer| peer.connected).map(|peer| peer.id);
        let deadline = Duration::from_millis(self.steps.reports_every_ms);
        let asked = connected.map(|peer| async move {
            (peer, wire::call(&*self.world.peers, peer, &FilerCall::Report, deadline).await)
        });
        for (peer, answer) in futures::future::join_all(asked).await {
            if let Ok((FilerReply::Report(report), _)) = answer {
                let mut reports = self.reports.lock().expect("no holder of the reports panics");
                reports.insert(peer, (report, Instant::now()));
            }
        }
    }
}
