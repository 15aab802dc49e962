//! The shell of `storage::mirror`: sealed segments go in; puts, releases and evictable files come out.
//!
//! A body that the local disk has damaged is no failure of a cloud. It is restored from a cloud that has given its receipt
//! already, unless that says again and again that it has it no more. Where none has, it is mended: what is left of it is put,
//! and what is lost says so; but first each cloud is asked whether an unanswered put of what it was has arrived.

use super::{
    Alarm, MAILBOX_MESSAGES_MAX, RolesChanged, Stopwatch,
    connector::{AttemptError, ConnectorActor, FindObject, GetObject, Put},
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
    cloud::CloudError,
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
    /// Segments of which a part is lost.
    mended: BTreeMap<SegmentId, Before>,
    /// How often the cloud that has given a receipt said that it does not have the segment any more.
    wrong_answers: BTreeMap<SegmentId, u32>,
    /// After how many times a cloud is believed that.
    wrong_answers_max: u32,
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
        wrong_answers_max: u32,
    ) -> Self {
        let (machine, watch, alarm) = (Mirror::new(settings), Stopwatch::start(), Alarm::default());
        let (mending, mended, wrong_answers) = Default::default();
        Self {
            machine,
            mending,
            mended,
            wrong_answers,
            wrong_answers_max,
            staging,
            cache,
            door,
            connectors,
            random,
            watch,
            alarm,
        }
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
                self.mended.remove(&segment);
                self.wrong_answers.remove(&segment);
                let (staging, cache) = (self.staging.clone(), self.cache.clone());
                ctx.spawn(async move { release(&staging, &cache, segment).await }.into_actor(self));
            }
        }
    }

    fn put(&mut self, ctx: &mut Context<Self>, cloud: CloudId, segment: SegmentId, md5: Md5) {
        let (staging, connector) = (self.staging.clone(), self.connectors[cloud.index()].clone());
        let is_being_mended = self.mending.contains(&segment);
        let may_be_there = |before: &&Before| before.wrong_answers[cloud.index()] < self.wrong_answers_max;
        let before = self.mended.get(&segment).filter(may_be_there).map(|before| before.md5);
        let attempt = async move {
            if is_being_mended {
                // A bad disk may take long over it.
                return Ok(End::Put(PutEnd::NotTried));
            }
            if let Some(before) = before {
                return Ok(End::Found(find(&connector, &staging, segment, before).await));
            }
            let (body, is) = staging.body(segment).await?;
            if is != md5 {
                // Mended meanwhile: the machine is about to hear of it.
                return Ok(End::Put(PutEnd::NotTried));
            }
            match connector.send(Put { segment, body, md5 }).await {
                Ok(Ok(_)) => Ok(End::Put(PutEnd::Receipt)),
                Ok(Err(AttemptError::Damaged { why, .. })) => {
                    // A body that was read has passed its checksums: it went bad in memory.
                    staging.distrust_memory(segment);
                    Err(StagingError::Damaged { segment, why })
                }
                Ok(Err(AttemptError::NotTried(_) | AttemptError::Crowded(_) | AttemptError::Lost { .. })) | Err(_) => {
                    Ok(End::Put(PutEnd::NotTried))
                }
                Ok(Err(error @ AttemptError::Failed { .. })) => {
                    tracing::debug!(%segment, %error, "a put failed");
                    Ok(End::Put(PutEnd::Failed))
                }
            }
        };
        let ended = attempt.into_actor(self).map(move |end: Result<End, StagingError>, actor: &mut Self, ctx| {
            let end = match end {
                // A receipt for what was mended since proves nothing of what it is now.
                Ok(End::Put(PutEnd::Receipt)) if actor.machine.md5(segment) != Some(md5) => PutEnd::NotTried,
                Ok(End::Put(end)) => end,
                Ok(End::Found(found)) => {
                    actor.found(ctx, cloud, segment, found);
                    // The put's turn comes.
                    PutEnd::NotTried
                }
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
                return staging.mend(segment).await.map(Some).map_err(|e| NotRepaired::from(e.to_string()));
            };
            let bytes = staging.bytes(segment).ok_or_else(|| "it was released meanwhile".to_string())?;
            let object = connector.send(GetObject { segment, bytes, md5 }).await.map_err(|e| e.to_string())?;
            let body = object.map_err(|error| NotRepaired { is_answer: says_lost(&error), why: error.to_string() })?;
            staging.restore(segment, body, md5).await.map_err(|e| e.to_string())?;
            tracing::warn!(%segment, cloud = %called(other), "a damaged staged segment was restored from a cloud");
            Ok(None)
        };
        let ended = repair.into_actor(self).map(
            move |end: Result<Option<(Md5, u64)>, NotRepaired>, actor: &mut Self, ctx: &mut Context<Self>| {
                actor.mending.remove(&segment);
                match end {
                    Ok(Some((left, bytes))) => {
                        // Not where it was released meanwhile, or is another one by now.
                        if left != md5 && actor.machine.md5(segment) == Some(md5) {
                            actor.mended.entry(segment).or_insert(Before { md5, wrong_answers: [0; 2] });
                        }
                        actor.feed(ctx, Input::Mended { segment, bytes, md5: left });
                    }
                    Ok(None) => drop(actor.wrong_answers.remove(&segment)),
                    Err(NotRepaired { why, is_answer }) => {
                        tracing::error!(%segment, why, "a damaged staged segment cannot be repaired yet");
                        if is_answer {
                            actor.is_not_there(ctx, other, segment);
                        }
                    }
                }
            },
        );
        ctx.spawn(ended);
    }

    /// The cloud that has given its receipt for a segment says that it does not have it any more. When it has said so often
    /// enough its receipt counts no more: what is left here is all there is.
    fn is_not_there(&mut self, ctx: &mut Context<Self>, cloud: CloudId, segment: SegmentId) {
        if self.machine.md5(segment).is_none() {
            return;
        }
        let answers = self.wrong_answers.entry(segment).or_default();
        *answers += 1;
        if *answers >= self.wrong_answers_max {
            self.wrong_answers.remove(&segment);
            tracing::error!(%segment, cloud = %called(cloud), "the cloud has lost a segment behind its receipt, and it is damaged here");
            self.feed(ctx, Input::Lost { cloud, segment });
        }
    }

    /// What a cloud has of a segment that was damaged here.
    fn found(&mut self, ctx: &mut Context<Self>, cloud: CloudId, segment: SegmentId, found: Find) {
        let Some(before) = self.mended.get_mut(&segment) else {
            return;
        };
        let wrong_answers = &mut before.wrong_answers[cloud.index()];
        match found {
            Find::Whole { bytes } => {
                let md5 = before.md5;
                tracing::warn!(%segment, cloud = %called(cloud), "a segment that was mended is whole again: a put of before it was damaged has arrived");
                self.mended.remove(&segment);
                self.feed(ctx, Input::Mended { segment, bytes, md5 });
            }
            Find::Absent => *wrong_answers = self.wrong_answers_max,
            Find::Wrong => *wrong_answers += 1,
            Find::Unknown => {}
        }
    }
}

/// What a segment was before it was damaged.
struct Before {
    md5: Md5,
    /// How often each cloud that was asked for it gave something wrong. It is asked until it has done so as often as it takes,
    /// or says that it has nothing.
    wrong_answers: [u32; 2],
}

/// How a put ended.
enum End {
    Put(PutEnd),
    /// The cloud was asked first for what the segment was before it was damaged.
    Found(Find),
}

/// What a cloud has of a segment that was damaged here.
enum Find {
    /// All of it, and so has staging now.
    Whole { bytes: u64 },
    /// Nothing, or something else.
    Absent,
    /// Something that is wrong, or what it gave was damaged on its way.
    Wrong,
    /// It has not said.
    Unknown,
}

/// Why a damaged segment is as it was.
struct NotRepaired {
    why: String,
    /// The cloud has answered: it does not have what its receipt was for.
    is_answer: bool,
}

impl From<String> for NotRepaired {
    fn from(why: String) -> Self {
        Self { why, is_answer: false }
    }
}

/// Whether a cloud says that it does not have an object as it was put.
fn says_lost(error: &AttemptError) -> bool {
    let AttemptError::Failed { source, .. } = error else {
        return false;
    };
    matches!(source, CloudError::NotFound { .. } | CloudError::Corrupt { .. })
}

/// Looks in a cloud for what a segment was before it was damaged here: a put without an answer may have arrived. Where it is
/// there, staging gets it back.
async fn find(connector: &Addr<ConnectorActor>, staging: &Staging, segment: SegmentId, before: Md5) -> Find {
    match connector.send(FindObject { of: staging.header(segment) }).await {
        Ok(Ok(Some(body))) if Md5::of(&body) == before => {
            let bytes = body.len() as u64;
            match staging.restore(segment, body, before).await {
                Ok(()) => Find::Whole { bytes },
                Err(error) => {
                    tracing::error!(%segment, %error, "a damaged staged segment is not restored yet");
                    Find::Unknown
                }
            }
        }
        Ok(Ok(_)) => Find::Absent,
        Ok(Err(error)) if says_lost(&error) => Find::Wrong,
        Ok(Err(_)) | Err(_) => Find::Unknown,
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
