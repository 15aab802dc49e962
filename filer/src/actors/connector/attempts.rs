//! How an attempt at a cloud waits for its turn, is made in a task of its own, and is told to `health` with what it moved.

use super::{AttemptError, ConnectorActor};
use crate::actors::health::Attempted;
use actix::{ActorFutureExt, AsyncContext, Context, ResponseFuture, WrapFuture};
use futures::FutureExt;
use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use storage::{
    backoff::turns::{Input, Output},
    cloud::CloudError,
    health::Attempt,
    ids::SegmentId,
};
use tokio::{sync::oneshot, task::AbortHandle, time::Instant};

/// What an attempt is.
#[derive(Clone, Copy)]
pub struct What {
    pub segment: SegmentId,
    /// Of its body, in bytes, as far as known before.
    pub bytes: u64,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of frames, for a client: another's failure serves it as well as one of its own.
    Frames,
    /// Of a whole object, put or read: it waits for a turn of its own.
    Whole,
    /// It counts for people alone, however it ends and however long it takes. A cloud that takes and gives data, and refuses
    /// deletes or lets them hang (a permission was taken, a retention policy was set), is whole: what it keeps is litter. To
    /// trip it would cost the CloudFS its second copy for nothing; and as probes ask what a trip asks, puts and gets, it
    /// would come back, and trip again, for ever.
    Delete,
}

/// An attempt that waits for its turn or is under way.
pub struct Asked {
    what: What,
    /// Says what becomes of it, until that is said.
    go: Option<oneshot::Sender<Go>>,
    task: AbortHandle,
    /// All bytes that were moved or given up before it began.
    moved_bytes: u64,
}

/// What becomes of an attempt that waits.
enum Go {
    Begin,
    Join { source: CloudError, in_a_row: u32 },
    Refused,
}

/// How an attempt's task ended.
enum End<T> {
    Tried { result: Result<T, CloudError>, took_ms: u64, more_bytes: u64 },
    Answered(AttemptError),
}

impl ConnectorActor {
    /// Makes one attempt when it is its turn, unless the cloud has failed, and tells `health` how it went.
    pub(super) fn attempt<T, F>(
        &mut self,
        ctx: &mut Context<Self>,
        what: What,
        attempt: F,
    ) -> ResponseFuture<Result<T, AttemptError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, CloudError>> + Send + 'static,
    {
        self.attempt_of_more(ctx, what, |_| attempt)
    }

    /// As [`ConnectorActor::attempt`], of one that finds out under way how many more bytes it moves, and adds them up.
    pub(super) fn attempt_of_more<T, F>(
        &mut self,
        ctx: &mut Context<Self>,
        what: What,
        attempt: impl FnOnce(Arc<AtomicU64>) -> F,
    ) -> ResponseFuture<Result<T, AttemptError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, CloudError>> + Send + 'static,
    {
        let more_bytes = Arc::new(AtomicU64::new(0));
        let attempt = attempt(more_bytes.clone());
        let cloud = self.id;
        if self.failed {
            return Box::pin(async move { Err(AttemptError::NotTried(cloud)) });
        }
        let (go, may_go) = oneshot::channel();
        let (answer, answered) = oneshot::channel();
        // A task of its own: it goes on when the asker has gone, so that its end is always counted.
        let task = tokio::spawn(async move {
            match may_go.await {
                Ok(Go::Begin) => {}
                Ok(Go::Join { source, in_a_row }) => {
                    return End::Answered(AttemptError::Failed { cloud, source, in_a_row });
                }
                Ok(Go::Refused) => return End::Answered(AttemptError::Crowded(cloud)),
                Err(_) => return End::Answered(AttemptError::NotTried(cloud)),
            }
            let start = Instant::now();
            // Whatever goes wrong in a cloud's client is one failed attempt.
            let result = AssertUnwindSafe(attempt).catch_unwind().await.unwrap_or_else(|_| {
                let attempted = format!("attempt at segment {}", what.segment);
                Err(CloudError::Failed { attempted, why: "it panicked".into() })
            });
            let took_ms = start.elapsed().as_millis() as u64;
            End::Tried { result, took_ms, more_bytes: more_bytes.load(Relaxed) }
        });
        self.next += 1;
        let ask = self.next;
        self.asked.insert(ask, Asked { what, go: Some(go), task: task.abort_handle(), moved_bytes: 0 });
        let ended = task.into_actor(self).map(move |end, actor: &mut Self, ctx: &mut Context<Self>| {
            let result = match end {
                Ok(End::Tried { result: Ok(value), took_ms, more_bytes }) => {
                    actor.tried(ctx, ask, what, None, took_ms, more_bytes);
                    Ok(value)
                }
                Ok(End::Tried { result: Err(source), took_ms, more_bytes }) => {
                    let in_a_row = actor.tried(ctx, ask, what, Some(&source), took_ms, more_bytes);
                    Err(AttemptError::Failed { cloud, source, in_a_row })
                }
                Ok(End::Answered(error)) => {
                    actor.asked.remove(&ask);
                    Err(error)
                }
                // Given up.
                Err(_) => Err(AttemptError::NotTried(cloud)),
            };
            // Nobody may wait any more.
            let _ = answer.send(result);
        });
        ctx.spawn(ended);
        self.feed(ctx, Input::Asked { ask, piece: what.segment, joins: what.kind == Kind::Frames }, None);
        Box::pin(async move { answered.await.unwrap_or(Err(AttemptError::NotTried(cloud))) })
    }

    /// An attempt was made: counts it, and gives how often its piece has failed in a row now.
    fn tried(
        &mut self,
        ctx: &mut Context<Self>,
        ask: u64,
        what: What,
        failed: Option<&CloudError>,
        took_ms: u64,
        more_bytes: u64,
    ) -> u32 {
        let mut bytes = what.bytes;
        if let Some(Asked { moved_bytes, .. }) = self.asked.remove(&ask) {
            bytes = self.begun_bytes - moved_bytes;
            self.moving_bytes -= what.bytes;
        }
        let piece = (what.kind != Kind::Delete).then_some(what.segment);
        let bytes = bytes.saturating_add(more_bytes);
        let attempt = Attempt { piece, failed: failed.map(ToString::to_string), took_ms, bytes };
        self.health.do_send(Attempted { cloud: self.id, attempt });
        self.feed(ctx, Input::Ended { ask, failed: failed.is_some() }, failed);
        self.turns.failures_of(what.segment)
    }

    /// Tells the machine, and carries out what it orders. `failure`: of the attempt that ended just now.
    fn feed(&mut self, ctx: &mut Context<Self>, input: Input, failure: Option<&CloudError>) {
        for output in self.turns.handle(self.watch.now_ms(), &*self.random, input) {
            let (Output::Begin { ask } | Output::Join { ask, .. } | Output::Refuse { ask }) = output;
            let Some(asked) = self.asked.get_mut(&ask) else {
                continue;
            };
            let go = match (output, failure) {
                (Output::Begin { .. }, _) => {
                    asked.moved_bytes = self.begun_bytes - self.moving_bytes;
                    self.begun_bytes += asked.what.bytes;
                    self.moving_bytes += asked.what.bytes;
                    Go::Begin
                }
                (Output::Join { .. }, Some(source)) => {
                    Go::Join { source: source.clone(), in_a_row: self.turns.failures_of(asked.what.segment) }
                }
                (Output::Join { .. }, None) | (Output::Refuse { .. }, _) => Go::Refused,
            };
            if let Some(sender) = asked.go.take() {
                // The task waits for it, or was given up.
                let _ = sender.send(go);
            }
        }
        self.alarm.set(self.watch, self.turns.deadline_ms(), ctx, |actor, ctx| {
            actor.alarm.rang();
            actor.feed(ctx, Input::Tick, None);
        });
    }

    /// Gives up all that waits or is under way.
    pub(super) fn give_up(&mut self) {
        for asked in std::mem::take(&mut self.asked).into_values() {
            asked.task.abort();
        }
        self.turns.clear();
        self.moving_bytes = 0;
    }
}
