//! One cloud's connector: every attempt at that cloud passes here, is made once, and is told to `health` once.
//!
//! A cloud that the mesh holds for failed is sent nothing but probes: attempts under way are given up when it fails, and
//! new ones are not tried. A refusal to try is never told as a failure. When an attempt at a piece that fails may begin is
//! the word of `storage::backoff::turns`; one that shares another's failure was not made, and is not told.

mod attempts;

use super::{Alarm, MAILBOX_MESSAGES_MAX, RolesChanged, Stopwatch, health::HealthActor};
use crate::{
    cloud_names::{at_cloud, called},
    reading::{FramePlace, WrongFrame},
};
use actix::{Actor, Addr, Context, Handler, Message, ResponseFuture};
use attempts::{Asked, Kind, What};
use bytes::Bytes;
use mesh::clock::Random;
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};
use storage::{
    backoff::turns::{Settings, Turns},
    cloud::{Cloud, CloudError, PROBE, Receipt},
    cloudfs::{CloudState, Handle},
    ids::{CloudId, Md5, SegmentId},
    segment::{Header, OBJECT_BYTES_MAX, check_object},
};

/// Why an attempt gave nothing.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AttemptError {
    /// The mesh holds this cloud for failed, so it was not tried (or given up).
    #[error("cloud {} has failed and is not tried", called(*.0))]
    NotTried(CloudId),
    /// Too many wait for their turn already.
    #[error("cloud {} was not tried: too many wait for their turn", called(*.0))]
    Crowded(CloudId),
    /// The attempt failed, or another's did that this one was waiting for; the piece has failed `in_a_row` times now.
    #[error("{}", at_cloud(*cloud, source))]
    Failed { cloud: CloudId, source: CloudError, in_a_row: u32 },
    /// The cloud gave what is on record, and that has lost the frame: no copy anywhere has it. No failure of the cloud.
    #[error("segment {segment} holds no whole frame at byte {at}, in the clouds as on record: {why}")]
    Lost { segment: SegmentId, at: u32, why: String },
    /// The body to put is not what its MD5 says: this filer has damaged it. No failure of the cloud.
    #[error("segment {segment} is damaged on this filer: {why}")]
    Damaged { segment: SegmentId, why: String },
}

impl AttemptError {
    /// Whether the cloud has understood, and refuses.
    pub fn is_refusal(&self) -> bool {
        matches!(self, AttemptError::Failed { source, .. } if source.is_refusal())
    }
}

/// Put a whole segment.
#[derive(Message)]
#[rtype(result = "Result<Receipt, AttemptError>")]
pub struct Put {
    pub segment: SegmentId,
    pub body: Bytes,
    pub md5: Md5,
}

/// Read frames of a file that lie one behind the other in the segment's object; the answer has them checked, as they are
/// stored: decoded, all of them together may take many times as much.
#[derive(Message)]
#[rtype(result = "Result<Vec<Bytes>, AttemptError>")]
pub struct GetFrames {
    /// The segment, and what its frames are tagged with.
    pub of: Header,
    pub file: Handle,
    pub frames: Vec<FramePlace>,
    /// Length of the object on record, in bytes, and its MD5: they tell a cloud's mistake from data that is lost.
    pub bytes: u64,
    pub md5: Md5,
}

/// Read whatever a cloud holds of a segment that is not on record; `None` when it holds nothing, or what is longer than
/// any segment. What comes and does not pass its checksums is a failure: nobody puts such a thing, so it was damaged there
/// or on its way.
#[derive(Message)]
#[rtype(result = "Result<Option<Bytes>, AttemptError>")]
pub struct FindObject {
    /// The segment, and what its frames are tagged with.
    pub of: Header,
}

/// Read a whole object, whose MD5 is on record, for a copy of it; no client may wait for that.
#[derive(Message)]
#[rtype(result = "Result<Bytes, AttemptError>")]
pub struct GetObject {
    pub segment: SegmentId,
    pub bytes: u64,
    pub md5: Md5,
}

/// Delete an object.
#[derive(Message)]
#[rtype(result = "Result<(), AttemptError>")]
pub struct Delete {
    pub segment: SegmentId,
}

/// Find out whether the cloud takes and gives data, whatever the mesh holds of it.
#[derive(Message)]
#[rtype(result = "Result<(), CloudError>")]
pub struct Probe {
    /// Makes the probe's object this filer's own.
    pub filer: mesh::FilerId,
}

/// The actor.
pub struct ConnectorActor {
    id: CloudId,
    cloud: Arc<dyn Cloud>,
    health: Addr<HealthActor>,
    failed: bool,
    turns: Turns,
    asked: BTreeMap<u64, Asked>,
    next: u64,
    /// Bytes of all attempts that were ever begun, and of those under way.
    begun_bytes: u64,
    moving_bytes: u64,
    random: Arc<dyn Random>,
    watch: Stopwatch,
    alarm: Alarm,
}

impl ConnectorActor {
    /// A connector to `cloud`.
    pub fn new(
        id: CloudId,
        cloud: Arc<dyn Cloud>,
        settings: Settings,
        health: Addr<HealthActor>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            id,
            cloud,
            health,
            failed: false,
            turns: Turns::new(settings),
            asked: BTreeMap::new(),
            next: 0,
            begun_bytes: 0,
            moving_bytes: 0,
            random,
            watch: Stopwatch::start(),
            alarm: Alarm::default(),
        }
    }
}

impl Actor for ConnectorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_MESSAGES_MAX);
    }
}

impl Handler<RolesChanged> for ConnectorActor {
    type Result = ();

    fn handle(&mut self, RolesChanged(roles): RolesChanged, _ctx: &mut Self::Context) {
        self.failed = roles.cloud(self.id).state == CloudState::Failed;
        if self.failed {
            self.give_up();
        }
    }
}

impl Handler<Put> for ConnectorActor {
    type Result = ResponseFuture<Result<Receipt, AttemptError>>;

    fn handle(&mut self, Put { segment, body, md5 }: Put, ctx: &mut Self::Context) -> Self::Result {
        let (cloud, what) = (self.cloud.clone(), What { segment, bytes: body.len() as u64, kind: Kind::Whole });
        let put = self.attempt(ctx, what, async move {
            match cloud.put(&segment.key(), body.clone(), md5).await {
                // Who is wrong, the cloud or the body? Asked only here: a body is hashed once, when it is packed.
                Err(error @ CloudError::Corrupt { .. }) => match Md5::of(&body) {
                    got if got == md5 => Err(error),
                    got => Ok(Err(got)),
                },
                put => put.map(Ok),
            }
        });
        Box::pin(async move {
            put.await?
                .map_err(|got| AttemptError::Damaged { segment, why: format!("its MD5 is {got} and should be {md5}") })
        })
    }
}

/// Cuts a run of frames and checks them. What leaves a cloud is checked before anybody believes it.
fn check_run(of: Header, file: Handle, frames: &[FramePlace], run: &Bytes) -> Result<Vec<Bytes>, (u32, WrongFrame)> {
    let start = frames.first().map_or(0, |first| first.at);
    let cut = |place: &FramePlace| {
        let from = (place.at.saturating_sub(start) as usize).min(run.len());
        let raw = run.slice(from..from.saturating_add(place.len as usize).min(run.len()));
        place.check(of, file, &raw).map_err(|wrong| (place.at, wrong))?;
        Ok(raw)
    };
    frames.iter().map(cut).collect()
}

impl Handler<GetFrames> for ConnectorActor {
    type Result = ResponseFuture<Result<Vec<Bytes>, AttemptError>>;

    fn handle(&mut self, get: GetFrames, ctx: &mut Self::Context) -> Self::Result {
        let GetFrames { of, file, frames, bytes, md5 } = get;
        let segment = of.segment;
        // Behind the end of the object on record no cloud has anything.
        if let Some(at) = frames.iter().find(|frame| frame.end() > bytes).map(|frame| frame.at) {
            let why = format!("it has {bytes} bytes");
            return Box::pin(async move { Err(AttemptError::Lost { segment, at, why }) });
        }
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
            return Box::pin(async { Ok(Vec::new()) });
        };
        let (start, end) = (u64::from(first.at), last.end());
        let what = What { segment, bytes: end.saturating_sub(start), kind: Kind::Frames };
        let cloud = self.cloud.clone();
        let got = self.attempt_of_more(ctx, what, |more_bytes| async move {
            let run = cloud.get(&segment.key(), start..end).await?;
            let (at, wrong) = match check_run(of, file, &frames, &run) {
                Ok(frames) => return Ok(Ok(frames)),
                Err((at, lost @ WrongFrame::Lost(_))) => return Ok(Err((at, lost.to_string()))),
                Err(wrong) => wrong,
            };
            // The cloud has given something wrong, or that is what was put: the whole object tells.
            more_bytes.fetch_add(bytes, Relaxed);
            let whole = cloud.get(&segment.key(), 0..bytes).await?;
            let whole_md5 = Md5::of(&whole);
            if whole_md5 != md5 {
                let (expected, got) = (md5.to_string(), whole_md5.to_string());
                return Err(CloudError::Corrupt { key: segment.key(), expected, got });
            }
            let run = whole.slice(start as usize..end as usize);
            if let Err((at, lost)) = check_run(of, file, &frames, &run) {
                return Ok(Err((at, lost.to_string())));
            }
            // It was damaged on its way.
            let (expected, got) = (format!("a frame at byte {at}"), wrong.to_string());
            Err(CloudError::Corrupt { key: segment.key(), expected, got })
        });
        Box::pin(async move { got.await?.map_err(|(at, why)| AttemptError::Lost { segment, at, why }) })
    }
}

/// Checks an object whose MD5 is not on record, by what the cloud says of it and by what it says of itself.
fn check_found(of: Header, body: &Bytes, listed: Option<Md5>) -> Result<(), CloudError> {
    let got = Md5::of(body);
    let expected = match (listed, check_object(&of, body)) {
        (Some(md5), _) if md5 != got => md5.to_string(),
        (_, Err(wrong)) => format!("a whole segment ({wrong})"),
        (_, Ok(())) => return Ok(()),
    };
    Err(CloudError::Corrupt { key: of.segment.key(), expected, got: got.to_string() })
}

impl Handler<FindObject> for ConnectorActor {
    type Result = ResponseFuture<Result<Option<Bytes>, AttemptError>>;

    fn handle(&mut self, FindObject { of }: FindObject, ctx: &mut Self::Context) -> Self::Result {
        let segment = of.segment;
        let (cloud, what) = (self.cloud.clone(), What { segment, bytes: 0, kind: Kind::Whole });
        self.attempt_of_more(ctx, what, |more_bytes| async move {
            match cloud.head(&segment.key()).await {
                // That is an answer.
                Err(CloudError::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
                // So is this: no filer has put that. A length is believed only as far as there is memory for it.
                Ok(listed) if listed.bytes > OBJECT_BYTES_MAX => Ok(None),
                Ok(listed) => {
                    more_bytes.fetch_add(listed.bytes, Relaxed);
                    let body = cloud.get(&segment.key(), 0..listed.bytes).await?;
                    check_found(of, &body, listed.md5)?;
                    Ok(Some(body))
                }
            }
        })
    }
}

impl Handler<GetObject> for ConnectorActor {
    type Result = ResponseFuture<Result<Bytes, AttemptError>>;

    fn handle(&mut self, GetObject { segment, bytes, md5 }: GetObject, ctx: &mut Self::Context) -> Self::Result {
        let (cloud, what) = (self.cloud.clone(), What { segment, bytes, kind: Kind::Whole });
        self.attempt(ctx, what, async move {
            let body = cloud.get_whole(&segment.key(), bytes).await?;
            let got = Md5::of(&body);
            if got != md5 {
                let (expected, got) = (md5.to_string(), got.to_string());
                return Err(CloudError::Corrupt { key: segment.key(), expected, got });
            }
            Ok(body)
        })
    }
}

impl Handler<Delete> for ConnectorActor {
    type Result = ResponseFuture<Result<(), AttemptError>>;

    fn handle(&mut self, Delete { segment }: Delete, ctx: &mut Self::Context) -> Self::Result {
        let (cloud, what) = (self.cloud.clone(), What { segment, bytes: 0, kind: Kind::Delete });
        self.attempt(ctx, what, async move { cloud.delete(&segment.key()).await })
    }
}

impl Handler<Probe> for ConnectorActor {
    type Result = ResponseFuture<Result<(), CloudError>>;

    fn handle(&mut self, Probe { filer }: Probe, _ctx: &mut Self::Context) -> Self::Result {
        let cloud = self.cloud.clone();
        let body = Bytes::from_static(PROBE);
        Box::pin(async move { cloud.probe(&format!("probes/{:016x}", filer.0), body).await })
    }
}

#[cfg(test)]
mod tests;
