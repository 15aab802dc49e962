//! One cloud's connector: every attempt at that cloud passes here, is made once, and is told to `health` once.
//!
//! A cloud that the mesh holds for failed is sent nothing but probes: attempts under way are given up when it fails, and
//! new ones are not tried. A refusal to try is never told as a failure.

use super::{
    MAILBOX_MESSAGES_MAX, RolesChanged,
    health::{Attempted, HealthActor},
};
use actix::{Actor, Addr, Context, Handler, Message, ResponseFuture};
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc};
use storage::{
    cloud::{Cloud, CloudError, PROBE, Receipt},
    cloudfs::CloudState,
    ids::{CloudId, Md5, SegmentId},
    segment::{FrameError, decode_frame},
};
use tokio::{task::AbortHandle, time::Instant};

/// Why an attempt gave nothing.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AttemptError {
    /// The mesh holds this cloud for failed, so it was not tried (or given up).
    #[error("cloud {0} has failed and is not tried")]
    NotTried(CloudId),
    /// The attempt failed.
    #[error("cloud {cloud}: {source}")]
    Failed { cloud: CloudId, source: CloudError },
    /// The cloud gave what is on record, and that has lost the frame: no copy anywhere has it. No failure of the cloud.
    #[error("segment {segment} holds no whole frame at byte {at}, in the clouds as on record: {why}")]
    Lost { segment: SegmentId, at: u32, why: String },
    /// The body to put is not what its MD5 says: this filer has damaged it. No failure of the cloud.
    #[error("segment {segment} is damaged on this filer: {why}")]
    Damaged { segment: SegmentId, why: String },
}

/// Put a whole segment.
#[derive(Message)]
#[rtype(result = "Result<Receipt, AttemptError>")]
pub struct Put {
    pub segment: SegmentId,
    pub body: Bytes,
    pub md5: Md5,
}

/// Read frames that lie one behind the other, each `(at, len)` in the segment's object; the answer has them decoded.
#[derive(Message)]
#[rtype(result = "Result<Vec<(Bytes, Bytes)>, AttemptError>")]
pub struct GetFrames {
    pub segment: SegmentId,
    pub frames: Vec<(u32, u32)>,
    /// Length of the object on record, in bytes, and its MD5: they tell a cloud's mistake from data that is lost.
    pub bytes: u64,
    pub md5: Md5,
}

/// Read whatever a cloud holds of a segment that is not on record; `None` when it holds nothing.
#[derive(Message)]
#[rtype(result = "Result<Option<Bytes>, AttemptError>")]
pub struct FindObject {
    pub segment: SegmentId,
}

/// Read a whole object, whose MD5 is on record.
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
    under_way: BTreeMap<u64, AbortHandle>,
    next: u64,
}

impl ConnectorActor {
    /// A connector to `cloud`.
    pub fn new(id: CloudId, cloud: Arc<dyn Cloud>, health: Addr<HealthActor>) -> Self {
        Self { id, cloud, health, failed: false, under_way: BTreeMap::new(), next: 0 }
    }

    /// Makes one attempt, unless the cloud has failed, and tells `health` how it went.
    fn attempt<T, F>(&mut self, piece: SegmentId, attempt: F) -> ResponseFuture<Result<T, AttemptError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, CloudError>> + Send + 'static,
    {
        let (cloud, health) = (self.id, self.health.clone());
        if self.failed {
            return Box::pin(async move { Err(AttemptError::NotTried(cloud)) });
        }
        self.under_way.retain(|_, task| !task.is_finished());
        let start = Instant::now();
        // A task of its own: it goes on when the asker has gone, so that its end is always counted.
        let task = tokio::spawn(async move {
            let result = attempt.await;
            let failed = result.as_ref().err().map(ToString::to_string);
            let took_ms = start.elapsed().as_millis() as u64;
            health.do_send(Attempted { cloud, piece: Some(piece), failed, took_ms });
            result
        });
        self.next += 1;
        self.under_way.insert(self.next, task.abort_handle());
        Box::pin(async move {
            match task.await {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(source)) => Err(AttemptError::Failed { cloud, source }),
                Err(error) if error.is_cancelled() => Err(AttemptError::NotTried(cloud)),
                Err(error) => {
                    let (attempted, why) = (format!("attempt at segment {piece}"), error.to_string());
                    Err(AttemptError::Failed { cloud, source: CloudError::Failed { attempted, why } })
                }
            }
        })
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
            for task in std::mem::take(&mut self.under_way).into_values() {
                task.abort();
            }
        }
    }
}

impl Handler<Put> for ConnectorActor {
    type Result = ResponseFuture<Result<Receipt, AttemptError>>;

    fn handle(&mut self, Put { segment, body, md5 }: Put, _ctx: &mut Self::Context) -> Self::Result {
        let cloud = self.cloud.clone();
        let put = self.attempt(segment, async move {
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

/// Cuts a run of frames and decodes them. What leaves a cloud is checked before anybody believes it.
fn decode_run(run: &Bytes, frames: &[(u32, u32)]) -> Result<Vec<(Bytes, Bytes)>, (u32, FrameError)> {
    let start = frames.first().map_or(0, |first| first.0);
    let cut = |&(at, len): &(u32, u32)| {
        let from = (at.saturating_sub(start) as usize).min(run.len());
        let raw = run.slice(from..(from + len as usize).min(run.len()));
        let frame = decode_frame(&raw).map_err(|e| (at, e))?;
        Ok((raw, frame.data))
    };
    frames.iter().map(cut).collect()
}

impl Handler<GetFrames> for ConnectorActor {
    type Result = ResponseFuture<Result<Vec<(Bytes, Bytes)>, AttemptError>>;

    fn handle(&mut self, get: GetFrames, _ctx: &mut Self::Context) -> Self::Result {
        let GetFrames { segment, frames, bytes, md5 } = get;
        let end = |(at, len): &(u32, u32)| u64::from(*at) + u64::from(*len);
        // Behind the end of the object on record no cloud has anything.
        if let Some((at, _)) = frames.iter().find(|frame| end(frame) > bytes).copied() {
            let why = format!("it has {bytes} bytes");
            return Box::pin(async move { Err(AttemptError::Lost { segment, at, why }) });
        }
        let (Some(first), Some(last)) = (frames.first().copied(), frames.last().copied()) else {
            return Box::pin(async move { Ok(Vec::new()) });
        };
        let cloud = self.cloud.clone();
        let got = self.attempt(segment, async move {
            let run = cloud.get(&segment.key(), u64::from(first.0)..end(&last)).await?;
            let (at, wrong) = match decode_run(&run, &frames) {
                Ok(frames) => return Ok(Ok(frames)),
                Err((at, lost @ FrameError::Lost { .. })) => return Ok(Err((at, lost.to_string()))),
                Err(wrong) => wrong,
            };
            // The cloud has given something wrong, or that is what was put: the whole object tells.
            let whole = cloud.get(&segment.key(), 0..bytes).await?;
            if Md5::of(&whole) == md5 {
                let run = whole.slice(first.0 as usize..end(&last) as usize);
                if let Err((at, lost)) = decode_run(&run, &frames) {
                    return Ok(Err((at, lost.to_string())));
                }
            }
            let (expected, got) = (format!("a frame at byte {at}"), wrong.to_string());
            Err(CloudError::Corrupt { key: segment.key(), expected, got })
        });
        Box::pin(async move { got.await?.map_err(|(at, why)| AttemptError::Lost { segment, at, why }) })
    }
}

impl Handler<FindObject> for ConnectorActor {
    type Result = ResponseFuture<Result<Option<Bytes>, AttemptError>>;

    fn handle(&mut self, FindObject { segment }: FindObject, _ctx: &mut Self::Context) -> Self::Result {
        let cloud = self.cloud.clone();
        self.attempt(segment, async move {
            match cloud.head(&segment.key()).await {
                Err(CloudError::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
                Ok(listed) => Ok(Some(cloud.get(&segment.key(), 0..listed.bytes).await?)),
            }
        })
    }
}

impl Handler<GetObject> for ConnectorActor {
    type Result = ResponseFuture<Result<Bytes, AttemptError>>;

    fn handle(&mut self, GetObject { segment, bytes, md5 }: GetObject, _ctx: &mut Self::Context) -> Self::Result {
        let cloud = self.cloud.clone();
        self.attempt(segment, async move {
            let body = cloud.get(&segment.key(), 0..bytes).await?;
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

    fn handle(&mut self, Delete { segment }: Delete, _ctx: &mut Self::Context) -> Self::Result {
        let cloud = self.cloud.clone();
        self.attempt(segment, async move { cloud.delete(&segment.key()).await })
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
