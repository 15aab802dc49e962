//! The cache's time-keeper: has the open segment closed when it is old enough, and carries closed segments to the mirror.

use super::{
    MAILBOX_MESSAGES_MAX,
    mirror::{MirrorActor, SegmentFlushed, SegmentSealed},
};
use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, WrapFuture};
use std::{sync::Arc, time::Duration};
use storage::{
    cloudfs::Handle,
    staging::{Closed, Staging},
};

/// A segment was closed: make it durable, have it put, and have all that refers to it put on record.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct SegmentClosed(pub Closed);

/// Puts a file's written data on record.
#[async_trait::async_trait]
pub trait Flush: Send + Sync + 'static {
    /// Returns when everything of this file that was appended before is on record, or never will be.
    async fn flush_until_recorded(&self, file: Handle);
}

/// Files flushed at one time.
const FLUSHES_IN_FLIGHT_MAX: usize = 64;
/// Wait after staging's disk failed.
const DISK_AGAIN: Duration = Duration::from_millis(500);

/// The actor.
pub struct CacheActor {
    staging: Arc<Staging>,
    mirror: Addr<MirrorActor>,
    flush: Arc<dyn Flush>,
}

impl CacheActor {
    /// The time-keeper of this staging.
    pub fn new(staging: Arc<Staging>, mirror: Addr<MirrorActor>, flush: Arc<dyn Flush>) -> Self {
        Self { staging, mirror, flush }
    }
}

impl Actor for CacheActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_MESSAGES_MAX);
        let (staging, me) = (self.staging.clone(), ctx.address());
        let keep_time = async move {
            loop {
                me.do_send(SegmentClosed(staging.next_closed().await));
            }
        };
        ctx.spawn(keep_time.into_actor(self));
    }
}

impl Handler<SegmentClosed> for CacheActor {
    type Result = ();

    fn handle(&mut self, SegmentClosed(closed): SegmentClosed, ctx: &mut Self::Context) {
        let (staging, mirror, flush) = (self.staging.clone(), self.mirror.clone(), self.flush.clone());
        let carry = async move {
            let Closed { segment, md5, bytes, files } = closed;
            // Durable before any put: what is in a cloud never differs from what a crash leaves in staging.
            while let Err(error) = staging.finish(segment).await {
                tracing::error!(%segment, %error, "a closed segment cannot be made durable");
                tokio::time::sleep(DISK_AGAIN).await;
            }
            mirror.do_send(SegmentSealed { segment, bytes, md5, flushed: false });
            let flushes = files.into_iter().map(|file| flush.flush_until_recorded(file));
            futures::StreamExt::collect::<()>(futures::StreamExt::buffer_unordered(
                futures::stream::iter(flushes),
                FLUSHES_IN_FLIGHT_MAX,
            ))
            .await;
            mirror.do_send(SegmentFlushed(segment));
        };
        ctx.spawn(carry.into_actor(self));
    }
}
