//! The shell of `storage::mirror`: sealed segments go in; puts, releases and evictable files come out.
//!
//! A body that the local disk has damaged is no failure of a cloud. It is restored from a cloud that has given its receipt
//! already; where none has, it is mended: what is left of it is put, and what is lost says so.

use super::{
    Alarm, MAILBOX_MESSAGES_MAX, RolesChanged, Stopwatch,
    connector::{AttemptError, ConnectorActor, GetObject, Put},
};
use crate::{
    cloud_names::called,
    door::{Door, DoorError},
};
use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, MessageResult, WrapFuture};
use mesh::clock::Random;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use storage::{
    cache::DiskCache,
    cloudfs::{OpBody, OpError},
    ids::{CloudId, Md5, SegmentId},
    mirror::{Input, Mirror, Output, ProposalEnd, PutEnd, Settings},
    staging::{Staging, StagingError, staging_file},
};

/// A segment is sealed and synced.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct SegmentSealed {
    pub segment: SegmentId,
    pub bytes: u64,
    pub md5: Md5,
    /// Whether all that refers to it is on record.
    pub flushed: bool,
}

/// All that refers to a sealed segment is on record.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct SegmentFlushed(pub SegmentId);

/// Which clouds have given receipts for the segments that are sealed and not released?
#[derive(Message)]
#[rtype(result = "BTreeMap<SegmentId, [bool; 2]>")]
pub struct Receipts;

/// The actor.
pub struct MirrorActor {
    machine: Mirror,
    /// Segments that are being restored or mended.
    mending: BTreeSet<SegmentId>,
    staging: Arc<Staging>,
    cache: Arc<DiskCache>,
    door: Door,
    connectors: [Addr<ConnectorActor>; 2],
    random: Arc<dyn Random>,
    watch: Stopwatch,
    alarm: Alarm,
}

impl MirrorActor {
    /// A mirror of this staging to these clouds.
    pub fn new(
        settings: Settings,
        staging: Arc<Staging>,
        cache: Arc<DiskCache>,
        door: Door,
        connectors: [Addr<ConnectorActor>; 2],
        random: Arc<dyn Random>,
    ) -> Self {
        let (machine, watch, alarm) = (Mirror::new(settings), Stopwatch::start(), Alarm::default());
        let mending = BTreeSet::new();
        Self { machine, mending, staging, cache, door, connectors, random, watch, alarm }
    }

    fn feed(&mut self, ctx: &mut Context<Self>, input: Input) {
        for output in self.machine.handle(self.watch.now_ms(), &*self.random, input) {
            self.perform(ctx, output);
        }
        self.alarm.set(self.watch, self.machine.deadline_ms(), ctx, |actor, ctx| {
            actor.alarm.rang();
            actor.feed(ctx, Input::Tick);
        });
    }

    fn perform(&mut self, ctx: &mut Context<Self>, output: Output) {
        match output {
            Output::Put { cloud, segment, md5 } => self.put(ctx, cloud, segment, md5),
            // The connector has given it up already, when it heard of the new roles.
            Output::Cancel { .. } => {}
            Output::Propose { segment, bytes, md5, copies, epoch } => {
                let door = self.door.clone();
                let proposed = async move { door.propose(OpBody::Stored { segment, bytes, md5, copies, epoch }).await };
                let ended = proposed.into_actor(self).map(move |result, actor, ctx| {
                    let end = match result {
                        Ok(_) => ProposalEnd::Accepted,
                        Err(DoorError::Refused(OpError::StaleEpoch { .. } | OpError::ReceiptMissing { .. })) => {
                            ProposalEnd::Refused
                        }
                        Err(error) => {
                            tracing::warn!(%segment, %error, "the segment's copies are not on record yet");
                            ProposalEnd::Unanswered
                        }
                    };
                    actor.feed(ctx, Input::Proposed { segment, end });
                });
                ctx.spawn(ended);
            }
            Output::Release { segment } => {
                let (staging, cache) = (self.staging.clone(), self.cache.clone());
                ctx.spawn(async move { release(&staging, &cache, segment).await }.into_actor(self));
            }
        }
    }

    fn put(&mut self, ctx: &mut Context<Self>, cloud: CloudId, segment: SegmentId, md5: Md5) {
        let (staging, connector) = (self.staging.clone(), self.connectors[cloud.index()].clone());
        let attempt = async move {
            let (body, is) = staging.body(segment).await?;
            if is != md5 {
                // Mended meanwhile: the machine is about to hear of it.
                return Ok(PutEnd::NotTried);
            }
            match connector.send(Put { segment, body, md5 }).await {
                Ok(Ok(_)) => Ok(PutEnd::Receipt),
                Ok(Err(AttemptError::Damaged { why, .. })) => Err(StagingError::Damaged { segment, why }),
                Ok(Err(AttemptError::NotTried(_) | AttemptError::Crowded(_) | AttemptError::Lost { .. })) | Err(_) => {
                    Ok(PutEnd::NotTried)
                }
                Ok(Err(error @ AttemptError::Failed { .. })) => {
                    tracing::debug!(%segment, %error, "a put failed");
                    Ok(PutEnd::Failed)
                }
            }
        };
        let ended = attempt.into_actor(self).map(move |end: Result<PutEnd, StagingError>, actor: &mut Self, ctx| {
            let end = match end {
                // A receipt for what was mended since proves nothing of what it is now.
                Ok(PutEnd::Receipt) if actor.machine.md5(segment) != Some(md5) => PutEnd::NotTried,
                Ok(end) => end,
                Err(error) => {
                    // The cloud was not asked, or rightly refused: this is no failure of the cloud.
                    tracing::error!(%segment, %error, "a staged segment cannot be put");
                    if matches!(error, StagingError::Damaged { .. }) {
                        actor.repair(ctx, cloud, segment, md5);
                    }
                    PutEnd::NotTried
                }
            };
            actor.feed(ctx, Input::Put { cloud, segment, end });
        });
        ctx.spawn(ended);
    }

    /// Makes a segment whole again that turned out damaged at a put to `cloud`, from the other cloud if that has it.
    fn repair(&mut self, ctx: &mut Context<Self>, cloud: CloudId, segment: SegmentId, md5: Md5) {
        let (other, staging) = (cloud.other(), self.staging.clone());
        let (Some(receipts), Some(under_way)) = (self.machine.receipts(segment), self.machine.under_way(segment))
        else {
            return;
        };
        // A put under way to the other cloud took the segment when it was whole, perhaps: its end decides.
        if under_way[other.index()] || self.machine.md5(segment) != Some(md5) || !self.mending.insert(segment) {
            return;
        }
        let connector = receipts[other.index()].then(|| self.connectors[other.index()].clone());
        let repair = async move {
            let Some(connector) = connector else {
                return staging.mend(segment).await.map(Some).map_err(|e| e.to_string());
            };
            let bytes = staging.bytes(segment).ok_or("it was released meanwhile")?;
            let object = connector.send(GetObject { segment, bytes, md5 }).await.map_err(|e| e.to_string())?;
            let body = object.map_err(|e| e.to_string())?;
            staging.restore(segment, body, md5).await.map_err(|e| e.to_string())?;
            tracing::warn!(%segment, cloud = %called(other), "a damaged staged segment was restored from a cloud");
            Ok(None)
        };
        let ended = repair.into_actor(self).map(
            move |end: Result<Option<(Md5, u64)>, String>, actor: &mut Self, ctx: &mut Context<Self>| {
                actor.mending.remove(&segment);
                match end {
                    Ok(Some((md5, bytes))) => actor.feed(ctx, Input::Mended { segment, bytes, md5 }),
                    Ok(None) => {}
                    Err(why) => tracing::error!(%segment, why, "a damaged staged segment cannot be repaired yet"),
                }
            },
        );
        ctx.spawn(ended);
    }
}

/// Moves a released segment's file from staging to the cache. A reader always finds it in one of them, or in a cloud.
pub async fn release(staging: &Staging, cache: &DiskCache, segment: SegmentId) {
    if let Some(bytes) = staging.release(segment).await {
        cache.adopt(segment, &staging_file(segment), bytes).await;
    }
}

impl Actor for MirrorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_MESSAGES_MAX);
    }
}

impl Handler<SegmentSealed> for MirrorActor {
    type Result = ();

    fn handle(&mut self, sealed: SegmentSealed, ctx: &mut Self::Context) {
        let SegmentSealed { segment, bytes, md5, flushed } = sealed;
        self.feed(ctx, Input::Sealed { segment, bytes, md5, flushed });
    }
}

impl Handler<SegmentFlushed> for MirrorActor {
    type Result = ();

    fn handle(&mut self, SegmentFlushed(segment): SegmentFlushed, ctx: &mut Self::Context) {
        self.feed(ctx, Input::Flushed { segment });
    }
}

impl Handler<RolesChanged> for MirrorActor {
    type Result = ();

    fn handle(&mut self, RolesChanged(roles): RolesChanged, ctx: &mut Self::Context) {
        self.feed(ctx, Input::Roles(roles));
    }
}

impl Handler<Receipts> for MirrorActor {
    type Result = MessageResult<Receipts>;

    fn handle(&mut self, _: Receipts, _ctx: &mut Self::Context) -> Self::Result {
        let pending = self.machine.pending();
        MessageResult(pending.filter_map(|segment| Some((segment, self.machine.receipts(segment)?))).collect())
    }
}
