//! The shell of `storage::resync`, the sweep of dead segments, and the repair of copies that a cloud has lost: all change
//! what is in the clouds by the record. The leader reaps cut-off extents too, from which segments die: in a loop of its own,
//! as it needs no cloud, and whoever cuts files waits for it.
//!
//! Owns: when something is begun, and what comes of its end. Does not own: how it is carried out (`copies`, `dead`).

mod copies;
mod dead;

use super::{
    Alarm, MAILBOX_MESSAGES_MAX, RolesChanged, Stopwatch,
    connector::{AttemptError, ConnectorActor},
};
use crate::{
    cloud_names::{called, in_words},
    door::{Door, DoorError},
};
use actix::{
    Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, MessageResult, ResponseFuture, WrapFuture,
};
use mesh::{
    FilerId,
    clock::Random,
    kv::{Kv, KvError},
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use storage::{
    cache::DiskCache,
    cloudfs::{Miss, read},
    grace::Grace,
    ids::{CloudId, Epoch, SegmentId},
    resync::{
        Input, Output, Progress, Resync, Settings,
        sweep::{Ended, Sweep},
    },
    staging::Staging,
};

pub use copies::still_needed;
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
                tracing::error!(cloud = %called(cloud), %error, "the missed-write log cannot be read");
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
                    tracing::debug!(cloud = %called(cloud), %segment, %error);
                    actor.feed(ctx, Input::Failed { cloud, segment });
                }
                Err(error) => {
                    let error = in_words(&error.to_string());
                    tracing::warn!(cloud = %called(cloud), %segment, ?kind, %error, "a missed write could not be made good yet");
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
