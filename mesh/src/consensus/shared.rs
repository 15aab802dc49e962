//! What the parts of a replica tell each other: how far it has applied, who was removed, whether it has stopped.

use super::{
    api::ProposeError,
    revoked::{Revoked, RevokedList},
    runtime::{Watcher, WatcherSender, watch_channel},
};
use crate::FilerId;
use openraft::async_runtime::WatchSender;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// After such a silence a sign of a majority is news. Shorter than any time after which somebody waits for one.
const MAJORITY_NEWS: Duration = Duration::from_millis(500);

/// Told by one part, seen by the others.
pub struct Shared {
    state: Mutex<State>,
    changes: WatcherSender<u64>,
    /// Changes of who belongs to the CloudFS, and of whether the replica goes on: far fewer.
    belonging: WatcherSender<u64>,
}

struct State {
    applied: u64,
    /// Who waits for which index; the number tells waiters for the same index apart.
    waiters: BTreeMap<(u64, u64), oneshot::Sender<()>>,
    waiters_ever: u64,
    removed: BTreeSet<FilerId>,
    revoked: RevokedList,
    dismissed: bool,
    stopped: Option<String>,
    /// The leader last heard from, and when.
    heard: Option<(FilerId, Instant)>,
    /// The last sign of a majority; at first, the start.
    majority_at: Instant,
}

fn raise(watched: &WatcherSender<u64>) {
    watched.send_if_modified(|changes| {
        *changes += 1;
        true
    });
}

impl Shared {
    pub fn new() -> Self {
        let state = State {
            applied: 0,
            waiters: BTreeMap::new(),
            waiters_ever: 0,
            removed: BTreeSet::new(),
            revoked: RevokedList::default(),
            dismissed: false,
            stopped: None,
            heard: None,
            majority_at: Instant::now(),
        };
        Self { state: Mutex::new(state), changes: watch_channel(0).0, belonging: watch_channel(0).0 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no access to the replica's shared state panics")
    }

    /// Something that others may wait for has changed.
    pub fn touch(&self) {
        raise(&self.changes);
    }

    /// Who belongs to the CloudFS has changed, or whether the replica goes on.
    pub fn touch_belonging(&self) {
        raise(&self.belonging);
        self.touch();
    }

    /// Sees the changes from now on.
    pub fn changes(&self) -> Watcher<u64> {
        self.changes.subscribe()
    }

    /// Sees from now on the changes of who belongs to the CloudFS, and of whether the replica goes on.
    pub fn belonging(&self) -> Watcher<u64> {
        self.belonging.subscribe()
    }

    /// The tables show the state up to `index`.
    pub fn set_applied(&self, index: u64) {
        {
            let mut state = self.state();
            state.applied = state.applied.max(index);
            let later = state.waiters.split_off(&(index.saturating_add(1), 0));
            for (_, waiter) in std::mem::replace(&mut state.waiters, later) {
                // One that gave up needs no answer.
                let _ = waiter.send(());
            }
        }
        self.touch();
    }

    pub fn applied(&self) -> u64 {
        self.state().applied
    }

    /// Waits until the tables show the state up to `index`.
    pub async fn wait_applied(&self, index: u64) -> Result<(), ProposeError> {
        let reached = {
            let mut state = self.state();
            if let Some(why) = &state.stopped {
                return Err(ProposeError::Stopped(why.clone()));
            }
            if state.applied >= index {
                return Ok(());
            }
            let (waiter, reached) = oneshot::channel();
            state.waiters_ever += 1;
            let number = state.waiters_ever;
            state.waiters.insert((index, number), waiter);
            reached
        };
        match reached.await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.stopped().err().unwrap_or_else(|| ProposeError::Stopped("it was shut down".into()))),
        }
    }

    /// The replica goes no further; the first reason is kept.
    pub fn stop(&self, why: impl Into<String>) {
        {
            let mut state = self.state();
            state.stopped.get_or_insert(why.into());
            state.waiters.clear();
        }
        self.touch_belonging();
    }

    /// `Err` when the replica goes no further.
    pub fn stopped(&self) -> Result<(), ProposeError> {
        match &self.state().stopped {
            Some(why) => Err(ProposeError::Stopped(why.clone())),
            None => Ok(()),
        }
    }

    pub fn set_removed(&self, removed: BTreeSet<FilerId>) {
        self.state().removed = removed;
        self.touch_belonging();
    }

    pub fn add_removed(&self, id: FilerId) {
        self.state().removed.insert(id);
        self.touch_belonging();
    }

    pub fn removed(&self) -> BTreeSet<FilerId> {
        self.state().removed.clone()
    }

    pub fn set_revoked(&self, revoked: RevokedList) {
        self.state().revoked = revoked;
        self.touch_belonging();
    }

    pub fn add_revoked(&self, revoked: Revoked) {
        self.state().revoked.entry(revoked.serial.clone()).or_insert(revoked);
        self.touch_belonging();
    }

    pub fn revoked(&self) -> RevokedList {
        self.state().revoked.clone()
    }

    /// A peer says that this filer was removed.
    pub fn dismiss(&self) {
        let news = !std::mem::replace(&mut self.state().dismissed, true);
        if news {
            self.touch_belonging();
        }
    }

    /// Whether a peer has said that this filer was removed.
    pub fn is_dismissed(&self) -> bool {
        self.state().dismissed
    }

    pub fn is_removed(&self, id: FilerId) -> bool {
        self.state().removed.contains(&id)
    }

    /// A leader spoke to this filer now.
    pub fn hear(&self, leader: FilerId) {
        self.state().heard = Some((leader, Instant::now()));
        self.note_majority(Instant::now());
    }

    /// There was a sign of a majority at that time.
    pub fn note_majority(&self, at: Instant) {
        let news = {
            let mut state = self.state();
            let silent = at.saturating_duration_since(state.majority_at);
            state.majority_at = state.majority_at.max(at);
            silent >= MAJORITY_NEWS
        };
        if news {
            self.touch();
        }
    }

    /// The last sign of a majority; before the first one, the start.
    pub fn majority_at(&self) -> Instant {
        self.state().majority_at
    }

    pub fn heard(&self) -> Option<(FilerId, Instant)> {
        self.state().heard
    }
}
