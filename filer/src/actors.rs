//! The actors of a filer: each a thin shell over a machine of `storage`. The crate `actix` is named here alone.
//!
//! | actor | machine | it tells |
//! |---|---|---|
//! | `connector`, one per cloud | none: one attempt per message | `health`: every attempt |
//! | `health` | `storage::health` | `mesh`: trips and other wishes |
//! | `mirror` | `storage::mirror` | `connector`: puts; the door: releases |
//! | `resync` | `storage::resync` | `connector`: copies and deletes; the door: repairs |
//! | `cache` | `storage::{staging, cache}` | `mirror`: sealed segments |
//! | `mesh` | `mesh::consensus` | all: new roles, who leads, who is live |
//!
//! The way of the data itself does not pass through mailboxes: it goes through `vfs`, `reading` and `storage::staging`.

pub mod cache;
pub mod connector;
pub mod health;
pub mod mesh;
pub mod mirror;
pub mod resync;

use actix::{Actor, AsyncContext, Context, Message, SpawnHandle};
use std::time::Duration;
use storage::cloudfs::Roles;
use tokio::time::Instant;

/// Messages that an actor's mailbox holds.
pub const MAILBOX_MESSAGES_MAX: usize = 1024;

/// The agreed roles are these now.
#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
pub struct RolesChanged(pub Roles);

/// Time for machines: milliseconds since their actor started.
#[derive(Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts at 0.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}

/// The one alarm of an actor, set to its machine's next deadline.
#[derive(Default)]
pub struct Alarm {
    set: Option<(u64, SpawnHandle)>,
}

impl Alarm {
    /// Sets the alarm to `deadline_ms`; `ring` is called then.
    pub fn set<A: Actor<Context = Context<A>>>(
        &mut self,
        watch: Stopwatch,
        deadline_ms: Option<u64>,
        ctx: &mut Context<A>,
        ring: impl FnOnce(&mut A, &mut Context<A>) + 'static,
    ) {
        if self.set.map(|(at, _)| at) == deadline_ms {
            return;
        }
        if let Some((_, handle)) = self.set.take() {
            ctx.cancel_future(handle);
        }
        if let Some(at) = deadline_ms {
            // At least a millisecond: a machine whose deadline has passed must not starve its mailbox.
            let wait = Duration::from_millis(at.saturating_sub(watch.now_ms()).max(1));
            self.set = Some((at, ctx.run_later(wait, ring)));
        }
    }

    /// Says that the alarm rang.
    pub fn rang(&mut self) {
        self.set = None;
    }
}
