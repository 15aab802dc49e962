//! The shell of `storage::resync`, and the sweep of dead segments: both change what is in the clouds by the record. The
//! leader's sweep reaps cut-off extents too, from which segments die.

use super::{
    Alarm, MAILBOX_MESSAGES_MAX, RolesChanged, Stopwatch,
    connector::{AttemptError, ConnectorActor, Delete, GetObject, Put},
};
use crate::door::{Door, DoorError};
use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, MessageResult, WrapFuture};
use bytes::Bytes;
use futures::StreamExt;
use mesh::{FilerId, clock::Random, kv::Kv};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use storage::{
    cache::DiskCache,
    cloudfs::{CloudState, Miss, MissKind, Object, OpBody, read},
    grace::Grace,
    ids::{CloudId, Epoch, Md5, SegmentId},
    resync::{Input, Output, Progress, Resync, Settings},
    staging::Staging,
};

/// Who is live, and who leads.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct MeshChanged {
    pub live: Vec<FilerId>,
    pub leader: Option<FilerId>,
}

/// How far are the resyncs?
#[derive(Message)]
#[rtype(result = "[Progress; 2]")]
pub struct Progresses;

/// Limits of the sweep of dead segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SweepSettings {
    /// How long a segment stays in the clouds after nothing refers to it, in milliseconds. Longer than any put can
    /// be under way, so that none arrives behind its delete.
    pub grace_ms: u64,
    /// Wait between two sweeps, in milliseconds.
    pub every_ms: u64,
    /// Segments deleted in one sweep.
    pub segments_max: usize,
    /// Steps of reaping in one sweep, one after another.
    pub reaps_max: usize,
}

impl Default for SweepSettings {
    fn default() -> Self {
        Self { grace_ms: 600_000, every_ms: 1000, segments_max: 256, reaps_max: 64 }
    }
}

/// Deletes under way at one time.
const DELETES_IN_FLIGHT_MAX: usize = 16;

/// What copies and deletes need.
#[derive(Clone)]
pub struct Tools {
    pub kv: Arc<dyn Kv>,
    pub door: Door,
    pub staging: Arc<Staging>,
    pub cache: Arc<DiskCache>,
    pub connectors: [Addr<ConnectorActor>; 2],
}

/// The actor.
pub struct ResyncActor {
    machine: Resync,
    tools: Tools,
    sweep: SweepSettings,
    grace: Arc<Mutex<Grace>>,
    leads: bool,
    me: FilerId,
    random: Arc<dyn Random>,
    watch: Stopwatch,
    alarm: Alarm,
}

impl ResyncActor {
    /// A filer's part in draining the missed-write log.
    pub fn new(me: FilerId, settings: Settings, sweep: SweepSettings, tools: Tools, random: Arc<dyn Random>) -> Self {
        let (machine, grace) = (Resync::new(me, settings), Arc::new(Mutex::new(Grace::new(sweep.grace_ms))));
        let (watch, alarm) = (Stopwatch::start(), Alarm::default());
        Self { machine, tools, sweep, grace, leads: false, me, random, watch, alarm }
    }

    fn feed(&mut self, ctx: &mut Context<Self>, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for output in self.machine.handle(self.watch.now_ms(), &*self.random, input) {
                match output {
                    Output::Look { cloud, after, limit } => inputs.push(self.look(cloud, after, limit)),
                    Output::Repair { miss, epoch } => self.repair(ctx, miss, epoch),
                }
            }
        }
        self.alarm.set(self.watch, self.machine.deadline_ms(), ctx, |actor, ctx| {
            actor.alarm.rang();
            actor.feed(ctx, Input::Tick);
        });
    }

    fn look(&self, cloud: CloudId, after: Option<SegmentId>, limit: usize) -> Input {
        match read::missed(&*self.tools.kv, cloud, after, limit) {
            Ok(rows) => {
                let more = rows.len() == limit;
                Input::Rows { cloud, rows, more }
            }
            Err(error) => {
                tracing::error!(%cloud, %error, "the missed-write log cannot be read");
                Input::Rows { cloud, rows: Vec::new(), more: false }
            }
        }
    }

    fn repair(&mut self, ctx: &mut Context<Self>, miss: Miss, epoch: Epoch) {
        let (tools, grace, watch) = (self.tools.clone(), self.grace.clone(), self.watch);
        let is_time_to_copy = move |since_ns| {
            grace.lock().expect("no holder of the grace period panics").is_time_to_copy(watch.now_ms(), since_ns)
        };
        let Miss { cloud, segment, kind, .. } = miss;
        let ended = async move { tools.repair(miss, epoch, is_time_to_copy).await }.into_actor(self).map(
            move |result, actor, ctx| match result {
                Ok(bytes) => actor.feed(ctx, Input::Done { cloud, segment, bytes }),
                Err(error @ RepairError::Dying) => {
                    tracing::debug!(%cloud, %segment, %error);
                    actor.feed(ctx, Input::Failed { cloud, segment });
                }
                Err(error) => {
                    tracing::warn!(%cloud, %segment, ?kind, %error, "a missed write could not be made good yet");
                    actor.feed(ctx, Input::Failed { cloud, segment });
                }
            },
        );
        ctx.spawn(ended);
    }

    /// Notes the agreed time; what has been dead since before the answer may be deleted.
    fn look_at_time(&self) -> u64 {
        let now_ms = self.watch.now_ms();
        let mut grace = self.grace.lock().expect("no holder of the grace period panics");
        match read::newest_ns(&*self.tools.kv) {
            Ok(newest_ns) => grace.note(now_ms, newest_ns),
            Err(error) => tracing::error!(%error, "the agreed time cannot be read"),
        }
        grace.before_ns(now_ms)
    }

    fn sweep_later(&self, ctx: &mut Context<Self>) {
        ctx.run_later(Duration::from_millis(self.sweep.every_ms), |actor, ctx| {
            let (tools, sweep) = (actor.tools.clone(), actor.sweep.clone());
            // Whoever leads next has watched as well.
            let before_ns = actor.look_at_time();
            let leads = actor.leads;
            let swept = async move {
                if leads {
                    futures::join!(tools.reap(&sweep), tools.sweep(before_ns, &sweep));
                }
            };
            ctx.spawn(swept.into_actor(actor).map(|(), actor, ctx| actor.sweep_later(ctx)));
        });
    }
}

/// Why a row was not carried out.
#[derive(Debug, thiserror::Error)]
enum RepairError {
    #[error(transparent)]
    Attempt(#[from] AttemptError),
    #[error(transparent)]
    Door(#[from] DoorError),
    #[error(transparent)]
    Table(#[from] mesh::kv::KvError),
    #[error("nothing has referred to it for long, and its delete is near")]
    Dying,
    #[error("the filer is stopping")]
    Stopping(#[from] actix::MailboxError),
}

impl Tools {
    /// Carries out a row of the missed-write log; gives the bytes copied. `is_time_to_copy` judges by the time since
    /// which a segment is dead.
    async fn repair(
        &self,
        miss: Miss,
        epoch: Epoch,
        is_time_to_copy: impl Fn(u64) -> bool,
    ) -> Result<u64, RepairError> {
        let Miss { cloud, segment, .. } = miss;
        // Look again: the row may have become a delete, or be gone, since it was read. Behind a barrier: tables of a filer
        // that was away show rows of long ago, and a copy of what was deleted since would stay in the cloud for ever.
        self.door.barrier().await?;
        let (kind, bytes) = match read::miss(&*self.kv, cloud, segment)? {
            None => return Ok(0),
            Some(Miss { kind: MissKind::Delete, .. }) => {
                self.connectors[cloud.index()].send(Delete { segment }).await??;
                (MissKind::Delete, 0)
            }
            Some(Miss { kind: MissKind::Put, .. }) => {
                let Some(row) = read::segment(&*self.kv, segment)? else {
                    return Ok(0);
                };
                // The sweep may delete it at any moment from the end of the grace period on, and a copy must not arrive
                // behind that: one half of the period is for copies to begin, the other for them to end.
                if row.dead_since_ns.is_some_and(|since_ns| !is_time_to_copy(since_ns)) {
                    return Err(RepairError::Dying);
                }
                let Some(Object { bytes, md5, .. }) = row.object else {
                    return Ok(0);
                };
                let body = self.object(cloud.other(), segment, bytes, md5).await?;
                self.connectors[cloud.index()].send(Put { segment, body, md5 }).await??;
                (MissKind::Put, bytes)
            }
        };
        self.door.propose(OpBody::Repaired { cloud, segment, kind, epoch }).await?;
        Ok(bytes)
    }

    /// A whole object: from this filer's disk where it is there and right, otherwise from a cloud.
    async fn object(&self, from: CloudId, segment: SegmentId, bytes: u64, md5: Md5) -> Result<Bytes, RepairError> {
        if self.staging.md5(segment) == Some(md5)
            && let Ok(body) = self.staging.body(segment).await
        {
            return Ok(body);
        }
        if let Some(body) = self.cache.read(segment, 0, bytes as usize).await {
            if Md5::of(&body) == md5 {
                return Ok(body);
            }
            tracing::warn!(%segment, "a cached segment is damaged and dropped");
            self.cache.drop_segment(segment).await;
        }
        Ok(self.connectors[from.index()].send(GetObject { segment, bytes, md5 }).await??)
    }

    /// Has the next cut-off extents taken away, of one file after another.
    async fn reap(&self, settings: &SweepSettings) {
        let mut after_ino = 0;
        for _ in 0..settings.reaps_max {
            let next = |after_ino| read::orphans(&*self.kv, after_ino, 1).map(|found| found.first().copied());
            let ino = match next(after_ino).and_then(|found| found.map_or_else(|| next(0), |ino| Ok(Some(ino)))) {
                Ok(Some(ino)) => ino,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "cut-off extents cannot be looked up");
                    return;
                }
            };
            after_ino = ino;
            if let Err(error) = self.door.propose(OpBody::Reap { ino }).await {
                tracing::debug!(ino, %error, "cut-off extents are not reaped yet");
                return;
            }
        }
    }

    /// Deletes segments that nothing has referred to for the grace period: those dead since before `before_ns`.
    async fn sweep(&self, before_ns: u64, settings: &SweepSettings) {
        let dead = match read::dead_segments(&*self.kv, before_ns, settings.segments_max) {
            Ok(dead) => dead,
            Err(error) => {
                tracing::error!(%error, "dead segments cannot be looked up");
                return;
            }
        };
        let deletes = dead.into_iter().map(|(segment, _)| async move {
            if let Err(error) = self.delete(segment).await {
                tracing::debug!(%segment, %error, "a dead segment is not deleted yet");
            }
        });
        futures::stream::iter(deletes).buffer_unordered(DELETES_IN_FLIGHT_MAX).collect::<()>().await;
    }

    async fn delete(&self, segment: SegmentId) -> Result<(), RepairError> {
        let Some(roles) = read::roles(&*self.kv)? else {
            return Ok(());
        };
        let mut done = [false; 2];
        for cloud in CloudId::BOTH {
            if roles.cloud(cloud).state != CloudState::Failed {
                done[cloud.index()] = match self.connectors[cloud.index()].send(Delete { segment }).await? {
                    Ok(()) => true,
                    Err(error) if roles.cloud(cloud).state == CloudState::Healthy => return Err(error.into()),
                    Err(_) => false,
                };
            }
        }
        self.door.propose(OpBody::Deleted { segment, done, epoch: roles.epoch }).await?;
        self.cache.drop_segment(segment).await;
        Ok(())
    }
}

impl Actor for ResyncActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_MESSAGES_MAX);
        self.sweep_later(ctx);
    }
}

impl Handler<RolesChanged> for ResyncActor {
    type Result = ();

    fn handle(&mut self, RolesChanged(roles): RolesChanged, ctx: &mut Self::Context) {
        self.feed(ctx, Input::Roles(roles));
    }
}

impl Handler<MeshChanged> for ResyncActor {
    type Result = ();

    fn handle(&mut self, MeshChanged { live, leader }: MeshChanged, ctx: &mut Self::Context) {
        self.leads = leader == Some(self.me);
        self.feed(ctx, Input::Mesh { live, leader });
    }
}

impl Handler<Progresses> for ResyncActor {
    type Result = MessageResult<Progresses>;

    fn handle(&mut self, _: Progresses, _ctx: &mut Self::Context) -> Self::Result {
        MessageResult(CloudId::BOTH.map(|cloud| self.machine.progress(cloud)))
    }
}
