//! How new what clients see is.
//!
//! A look at names and attributes waits until the local tables hold everything acknowledged anywhere before, which an
//! index read confirms. Other calls are as new as the last look, and after a start as new as everything acknowledged before
//! it: a crash may have taken from the tables what this filer's own clients were told. Two settings allow less, and neither
//! passes for it:
//!
//! - *stale reads*: a look may be as old as an age that the setting states. The age counts from the moment before which
//!   everything acknowledged is known to be in the local tables, that is, when the last index read that passed was asked.
//!   Hearing the leader is not enough: this filer may still be catching up with it, or be cut off together with it.
//! - *read-only without a majority*: once this filer knows that it has none, looks are answered with what is here. They
//!   are counted and shown as maybe old, and the log says when that begins and ends. A filer that has a majority and is
//!   catching up does not answer so.

use super::{Vfs, WithoutMajority};
use crate::fs::FsError;
use std::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

/// What is known of the local tables' age.
#[derive(Default)]
pub struct Freshness(Mutex<State>);

#[derive(Default)]
struct State {
    /// Everything acknowledged before then is here.
    confirmed: Option<Instant>,
    /// Whether the last look was answered without a majority.
    old: bool,
    old_answers: u64,
}

/// How new what clients see is, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FreshnessStatus {
    /// Milliseconds since the moment before which everything acknowledged is known to be here.
    pub confirmed_ms_ago: Option<u64>,
    /// Whether clients are served what is here without a majority, so that it may be old.
    pub may_be_old: bool,
    /// Looks answered so, since this filer started.
    pub old_answers: u64,
}

impl Freshness {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder of the freshness panics")
    }

    fn was_ever_confirmed(&self) -> bool {
        self.state().confirmed.is_some()
    }

    fn is_within(&self, ms_max: u64) -> bool {
        self.state().confirmed.is_some_and(|at| at.elapsed().as_millis() <= u128::from(ms_max))
    }

    /// An index read that was asked at that time has passed.
    fn confirm(&self, asked: Instant) {
        let was_old = {
            let mut state = self.state();
            state.confirmed = state.confirmed.max(Some(asked));
            std::mem::take(&mut state.old)
        };
        if was_old {
            tracing::info!("a majority answers again: what clients see is new");
        }
    }

    /// A look is answered without a majority.
    fn answer_old(&self) {
        let (news, confirmed) = {
            let mut state = self.state();
            state.old_answers += 1;
            (!std::mem::replace(&mut state.old, true), state.confirmed)
        };
        if news {
            let confirmed_ms_ago = confirmed.map(|at| at.elapsed().as_millis() as u64);
            tracing::warn!(?confirmed_ms_ago, "no majority: clients read what is here, which may be old; changes wait");
        }
    }

    fn status(&self) -> FreshnessStatus {
        let state = self.state();
        FreshnessStatus {
            confirmed_ms_ago: state.confirmed.map(|at| at.elapsed().as_millis() as u64),
            may_be_old: state.old,
            old_answers: state.old_answers,
        }
    }
}

impl Vfs {
    /// Waits until the local tables are as new as anything acknowledged before, or as the settings allow.
    pub(super) async fn fresh(&self) -> Result<(), FsError> {
        let asked = Instant::now();
        if self.settings.stale_ms_max.is_some_and(|ms_max| self.freshness.is_within(ms_max)) {
            return Ok(());
        }
        let passed = match self.settings.without_majority {
            WithoutMajority::Wait => self.door.barrier().await,
            WithoutMajority::ReadOnly => self.door.barrier_while_majority().await,
        };
        match passed {
            Ok(()) => {
                self.freshness.confirm(asked);
                Ok(())
            }
            Err(_) if self.settings.without_majority == WithoutMajority::ReadOnly && self.door.knows_no_majority() => {
                self.freshness.answer_old();
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the local tables have what they had when this filer was stopped.
    pub(super) async fn caught_up(&self) -> Result<(), FsError> {
        if self.freshness.was_ever_confirmed() { Ok(()) } else { self.fresh().await }
    }

    /// How new what clients see is.
    pub fn freshness(&self) -> FreshnessStatus {
        self.freshness.status()
    }
}
