//! The shell of `storage::resync`, the sweep of dead segments, and the repair of copies that a cloud has lost: all change
//! what is in the clouds by the record. The leader reaps cut-off extents too, from which segments die: in a loop of its own,
//! as it needs no cloud, and whoever cuts files waits for it.

use super::{
    Alarm, MAILBOX_MESSAGES_MAX, RolesChanged, Stopwatch,
    connector::{AttemptError, ConnectorActor, Delete, GetObject, Put},
};
use crate::door::{Door, DoorError};
use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, MessageResult, ResponseFuture, WrapFuture,
};
use bytes::Bytes;
use futures::StreamExt;
use mesh::{
    FilerId,
    clock::Random,
    kv::{Kv, KvError, KvRead},
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use storage::{
    cache::DiskCache,
    cloudfs::{CloudState, Copy, Miss, MissKind, Object, OpBody, Segment, read},
    grace::Grace,
    ids::{CloudId, Epoch, Md5, SegmentId},
    resync::{
        Input, Output, Progress, Resync, Settings,
        sweep::{Ended, Sweep},
    },
    staging::Staging,
};

pub use storage::resync::sweep::Settings as SweepSettings;

/// Who is live, and who leads.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct MeshChanged {
    pub live: Vec<FilerId>,
    pub leader: Option<FilerId>,
}

/// Put a segment again into a cloud that has lost or damaged its copy.
#[derive(Message)]
#[rtype(result = "Result<(), NotPut>")]
pub struct PutAgain {
    pub cloud: CloudId,
    pub segment: SegmentId,
}

/// Why a copy is not put again.
#[derive(Debug, thiserror::Error)]
pub enum NotPut {
    /// Nothing refers to the segment any more: no cloud needs it.
    #[error("nothing refers to it any more")]
    Gone,
    #[error("the cloud is not healthy, or has missed it, which is on record")]
    NotHealthy,
    #[error("no other cloud can give it")]
    NoSource,
    #[error(transparent)]
    Attempt(#[from] AttemptError),
    #[error(transparent)]
    Door(#[from] DoorError),
    #[error(transparent)]
    Table(#[from] KvError),
    #[error("the filer is stopping")]
    Stopping(#[from] actix::MailboxError),
}

/// How far are the resyncs?
#[derive(Message)]
#[rtype(result = "[Progress; 2]")]
pub struct Progresses;

/// Which dead segments are not deleted as their deletes fail? Only whoever leads knows of any.
#[derive(Message)]
#[rtype(result = "Undeleted")]
pub struct Deletes;

/// Dead segments whose deletes have failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undeleted {
    pub segments: usize,
    /// Why the last one did.
    pub why: Option<String>,
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
    sweep: Sweep,
    sweep_settings: SweepSettings,
    /// Why a delete failed last.
    undeleted_why: Option<String>,
    grace: Arc<Mutex<Grace>>,
    /// The segment of a removed filer that was looked at last.
    buried_upto: Option<SegmentId>,
    tools: Tools,
    leads: bool,
    me: FilerId,
    random: Arc<dyn Random>,
    watch: Stopwatch,
    alarm: Alarm,
}

impl ResyncActor {
    /// A filer's part in draining the missed-write log.
    pub fn new(me: FilerId, settings: Settings, sweep: SweepSettings, tools: Tools, random: Arc<dyn Random>) -> Self {
        let (machine, sweep_settings) = (Resync::new(me, settings), sweep);
        let grace = Arc::new(Mutex::new(Grace::new(sweep_settings.grace_ms)));
        let (sweep, watch, alarm) = (Sweep::new(sweep_settings.clone()), Stopwatch::start(), Alarm::default());
        Self {
            machine,
            sweep,
            sweep_settings,
            undeleted_why: None,
            grace,
            buried_upto: None,
            tools,
            leads: false,
            me,
            random,
            watch,
            alarm,
        }
    }

    fn feed(&mut self, ctx: &mut Context<Self>, input: Input) {
        for output in self.machine.handle(self.watch.now_ms(), &*self.random, input) {
            match output {
                Output::Look { cloud, after, limit } => {
                    // Others have their turn between two pages: a log may be long, and all of a page another filer's.
                    let turn = tokio::task::yield_now().into_actor(self);
                    ctx.spawn(turn.map(move |(), actor, ctx| {
                        let rows = actor.look(cloud, after, limit);
                        actor.feed(ctx, rows);
                    }));
                }
                Output::Repair { miss, epoch } => self.repair(ctx, miss, epoch),
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

    /// Notes the agreed time, as whoever leads next must have done; what has been dead since before the answer may be deleted.
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
        ctx.run_later(Duration::from_millis(self.sweep_settings.every_ms), |actor, ctx| {
            let before_ns = actor.look_at_time();
            let chosen = if actor.leads { actor.choose(before_ns) } else { Vec::new() };
            let tools = actor.tools.clone();
            let swept = async move { tools.sweep(chosen).await };
            ctx.spawn(swept.into_actor(actor).map(|ended, actor, ctx| {
                actor.swept(ended);
                actor.sweep_later(ctx);
            }));
        });
    }

    fn reap_later(&self, ctx: &mut Context<Self>) {
        ctx.run_later(Duration::from_millis(self.sweep_settings.every_ms), |actor, ctx| {
            // Deletes may hang, and the time goes on.
            actor.look_at_time();
            let (tools, leads, upto) = (actor.tools.clone(), actor.leads, actor.buried_upto);
            let SweepSettings { reaps_max, segments_max, .. } = actor.sweep_settings;
            let reaped = async move {
                if !leads {
                    return None;
                }
                futures::join!(tools.reap(reaps_max), tools.bury(upto, segments_max)).1
            };
            ctx.spawn(reaped.into_actor(actor).map(|upto, actor, ctx| {
                actor.buried_upto = upto;
                actor.reap_later(ctx);
            }));
        });
    }

    /// Segments that nothing has referred to for the grace period, being dead since before `before_ns`, and whose turn it is.
    fn choose(&mut self, before_ns: u64) -> Vec<SegmentId> {
        match read::dead_segments(&*self.tools.kv, before_ns, self.sweep.rows_max()) {
            Ok(dead) => {
                let dead: Vec<_> = dead.into_iter().map(|(segment, _)| segment).collect();
                self.sweep.choose(self.watch.now_ms(), &dead)
            }
            Err(error) => {
                tracing::error!(%error, "dead segments cannot be looked up");
                Vec::new()
            }
        }
    }

    fn swept(&mut self, ended: Vec<(SegmentId, Result<(), RepairError>)>) {
        let now_ms = self.watch.now_ms();
        let mut last = None;
        for (segment, result) in ended {
            let ended = match &result {
                Ok(()) => Ended::Deleted,
                Err(RepairError::Attempt(error)) if error.is_refusal() => Ended::Refused,
                Err(_) => Ended::Failed,
            };
            self.sweep.ended(now_ms, &*self.random, segment, ended);
            last = result.err().map(|error| (segment, error)).or(last);
        }
        if let Some((segment, error)) = last {
            let failing = self.sweep.failing();
            tracing::warn!(failing, %segment, %error, "dead segments are not deleted yet; this one failed last");
            self.undeleted_why = Some(error.to_string());
        }
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
    Table(#[from] KvError),
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
        // The row may have become a delete, or be gone, since it was read.
        let (miss, row) = self.missed(cloud, segment).await?;
        let (kind, bytes) = match miss {
            None => return Ok(0),
            Some(Miss { kind: MissKind::Delete, .. }) => {
                match self.connectors[cloud.index()].send(Delete { segment }).await? {
                    Err(error) if error.is_refusal() => {
                        // It keeps litter, as it may while it is healthy: that must not keep it from becoming so.
                        tracing::info!(%cloud, %segment, %error, "the cloud refuses to delete what is dead");
                        self.door.propose(OpBody::Kept { cloud, segment, epoch }).await?;
                        return Ok(0);
                    }
                    deleted => deleted?,
                }
                (MissKind::Delete, 0)
            }
            Some(Miss { kind: MissKind::Put, .. }) => {
                let Some(row) = row else {
                    return Ok(0);
                };
                // The sweep may delete it at any moment from the end of the grace period on, and a copy must not arrive
                // behind that: one half of the period is for copies to begin, the other for them to end.
                let is_dying = |row: &Segment| row.dead_since_ns.is_some_and(|since_ns| !is_time_to_copy(since_ns));
                if is_dying(&row) {
                    return Err(RepairError::Dying);
                }
                let Some(Object { bytes, md5, .. }) = row.object else {
                    return Ok(0);
                };
                let body = self.object(cloud.other(), segment, bytes, md5).await?;
                // That may have taken half of the period, and the row may have become another one meanwhile.
                let (miss, row) = self.missed(cloud, segment).await?;
                if !miss.is_some_and(|miss| miss.kind == MissKind::Put) {
                    return Ok(0);
                }
                if row.is_none_or(|row| is_dying(&row)) {
                    return Err(RepairError::Dying);
                }
                self.connectors[cloud.index()].send(Put { segment, body, md5 }).await??;
                (MissKind::Put, bytes)
            }
        };
        self.door.propose(OpBody::Repaired { cloud, segment, kind, epoch }).await?;
        Ok(bytes)
    }

    /// What the record says of a segment that a cloud missed. Behind a barrier: tables of a filer that was away show rows of
    /// long ago, and a copy of what was deleted since would stay in the cloud for ever.
    async fn missed(&self, cloud: CloudId, segment: SegmentId) -> Result<(Option<Miss>, Option<Segment>), RepairError> {
        self.door.barrier().await?;
        let view = self.kv.view();
        Ok((read::miss(&*view, cloud, segment)?, read::segment(&*view, segment)?))
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

    /// Puts an object again into a cloud that has lost or damaged it.
    async fn put_again(&self, cloud: CloudId, segment: SegmentId) -> Result<(), NotPut> {
        // The tables of a filer that was away show segments that have been deleted since.
        self.door.barrier().await?;
        let Object { bytes, md5, .. } = self.belongs(cloud, segment)?;
        let body = self.connectors[cloud.other().index()].send(GetObject { segment, bytes, md5 }).await??;
        // Reading it took a while. What dies from here on is deleted after the grace period, which no put outlasts.
        self.door.barrier().await?;
        self.belongs(cloud, segment)?;
        self.connectors[cloud.index()].send(Put { segment, body, md5 }).await??;
        Ok(())
    }

    /// The object to put into a cloud, if it belongs there by this filer's tables.
    fn belongs(&self, cloud: CloudId, segment: SegmentId) -> Result<Object, NotPut> {
        let view = self.kv.view();
        let object = still_needed(&*view, segment)?.ok_or(NotPut::Gone)?;
        let roles = read::roles(&*view)?.ok_or(NotPut::NotHealthy)?;
        // What a failed or resyncing cloud misses is on record, and is the resync's.
        if object.copies[cloud.index()] != Copy::Stored || roles.cloud(cloud).state != CloudState::Healthy {
            return Err(NotPut::NotHealthy);
        }
        let other = cloud.other();
        if object.copies[other.index()] != Copy::Stored || roles.cloud(other).state == CloudState::Failed {
            return Err(NotPut::NoSource);
        }
        Ok(object)
    }

    /// Has the next cut-off extents taken away, of one file after another.
    async fn reap(&self, reaps_max: usize) {
        let mut after_ino = 0;
        for _ in 0..reaps_max {
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

    /// Has the next segments that removed filers left behind, and that nothing refers to, called dead: the first
    /// `rows_max` rows behind `upto`. Gives how far it came; `None`: at the end.
    async fn bury(&self, upto: Option<SegmentId>, rows_max: usize) -> Option<SegmentId> {
        let removed = match mesh::consensus::removed(&*self.kv) {
            Ok(removed) => removed,
            Err(error) => {
                tracing::error!(%error, "removed filers cannot be looked up");
                return upto;
            }
        };
        let filer = removed.range(upto.map_or(FilerId(0), |upto| upto.filer)..).next().copied()?;
        let after = upto.filter(|upto| upto.filer == filer).unwrap_or(SegmentId { filer, number: 0 });
        let rows = match read::segments(&*self.kv, Some(after), rows_max) {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(%error, "segments of removed filers cannot be looked up");
                return upto;
            }
        };
        let own = rows.iter().take_while(|(id, _)| id.filer == filer);
        for (segment, row) in own.clone() {
            let left = row.live_bytes == 0 && row.object.is_none() && row.dead_since_ns.is_none();
            if left && let Err(error) = self.door.propose(OpBody::Bury { segment: *segment }).await {
                tracing::debug!(%segment, %error, "what a removed filer left is not called dead yet");
            }
        }
        match own.last() {
            Some((last, _)) if rows.len() == rows_max => Some(*last),
            // The next filer's turn.
            _ => Some(SegmentId { filer: FilerId(filer.0.checked_add(1)?), number: 0 }),
        }
    }

    /// Deletes these dead segments; tells how that went.
    async fn sweep(&self, dead: Vec<SegmentId>) -> Vec<(SegmentId, Result<(), RepairError>)> {
        let deletes = dead.into_iter().map(|segment| async move { (segment, self.delete(segment).await) });
        futures::stream::iter(deletes).buffer_unordered(DELETES_IN_FLIGHT_MAX).collect().await
    }

    async fn delete(&self, segment: SegmentId) -> Result<(), RepairError> {
        let Some(roles) = read::roles(&*self.kv)? else {
            return Ok(());
        };
        let (mut done, mut failed) = ([false; 2], None);
        // What one keeps is no reason for the other to keep it.
        for cloud in CloudId::BOTH {
            let state = roles.cloud(cloud).state;
            if state == CloudState::Failed {
                continue;
            }
            match self.connectors[cloud.index()].send(Delete { segment }).await? {
                Ok(()) => done[cloud.index()] = true,
                Err(error) if state == CloudState::Healthy => failed = Some(error),
                // A row of what a resyncing cloud refuses would only be written to be taken off again. But one that is
                // there, of a put that nobody needs any more, must go.
                Err(error) if error.is_refusal() && read::miss(&*self.kv, cloud, segment)?.is_none() => {
                    failed = Some(error);
                }
                Err(_) => {}
            }
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        self.door.propose(OpBody::Deleted { segment, done, epoch: roles.epoch }).await?;
        self.cache.drop_segment(segment).await;
        Ok(())
    }
}

/// What a segment's object is, if anything refers to it.
pub fn still_needed(kv: &dyn KvRead, segment: SegmentId) -> Result<Option<Object>, KvError> {
    let row = read::segment(kv, segment)?;
    Ok(row.filter(|row| row.dead_since_ns.is_none()).and_then(|row| row.object))
}

impl Actor for ResyncActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_MESSAGES_MAX);
        self.sweep_later(ctx);
        self.reap_later(ctx);
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

impl Handler<PutAgain> for ResyncActor {
    type Result = ResponseFuture<Result<(), NotPut>>;

    fn handle(&mut self, PutAgain { cloud, segment }: PutAgain, _ctx: &mut Self::Context) -> Self::Result {
        let tools = self.tools.clone();
        Box::pin(async move { tools.put_again(cloud, segment).await })
    }
}

impl Handler<Progresses> for ResyncActor {
    type Result = MessageResult<Progresses>;

    fn handle(&mut self, _: Progresses, _ctx: &mut Self::Context) -> Self::Result {
        MessageResult(CloudId::BOTH.map(|cloud| self.machine.progress(cloud)))
    }
}

impl Handler<Deletes> for ResyncActor {
    type Result = MessageResult<Deletes>;

    fn handle(&mut self, _: Deletes, _ctx: &mut Self::Context) -> Self::Result {
        let segments = if self.leads { self.sweep.failing() } else { 0 };
        MessageResult(Undeleted { segments, why: self.undeleted_why.clone().filter(|_| segments > 0) })
    }
}
