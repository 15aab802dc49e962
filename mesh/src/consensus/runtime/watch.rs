//! A watched value: many see its newest state, none sees every state.
//!
//! Waiters wake in the order in which they began to wait, so that a run is the same from the same seed.

use openraft::async_runtime::{RecvError, Watch, WatchReceiver, WatchSender, watch::SendError};
use std::{
    ops::Deref,
    sync::{
        Arc, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::sync::Notify;

/// The engine's watch channels.
pub struct FairWatch;

struct Shared<T> {
    value: RwLock<T>,
    /// Raised with every change, under the value's lock.
    version: AtomicU64,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    changed: Notify,
}

/// Changes the value.
pub struct WatcherSender<T>(Arc<Shared<T>>);

/// Sees the value, and waits for it to change.
pub struct Watcher<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// A look at the value, which holds its lock.
pub struct Watched<'a, T>(RwLockReadGuard<'a, T>);

/// A new watched value.
pub fn channel<T>(init: T) -> (WatcherSender<T>, Watcher<T>) {
    let shared = Arc::new(Shared {
        value: RwLock::new(init),
        version: AtomicU64::new(0),
        senders: AtomicUsize::new(1),
        receivers: AtomicUsize::new(1),
        changed: Notify::new(),
    });
    (WatcherSender(shared.clone()), Watcher { shared, seen: 0 })
}

impl<T> Deref for Watched<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Shared<T> {
    fn borrow(&self) -> Watched<'_, T> {
        Watched(self.value.read().expect("no watched value's change panics"))
    }

    fn modify(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let modified = {
            let mut value = self.value.write().expect("no watched value's change panics");
            let modified = modify(&mut value);
            if modified {
                self.version.fetch_add(1, Ordering::SeqCst);
            }
            modified
        };
        if modified {
            self.changed.notify_waiters();
        }
        modified
    }
}

impl<T> Watcher<T> {
    /// Waits until the value was changed since it was last looked at here; `false`: nobody can change it any more.
    pub async fn wait(&mut self) -> bool {
        loop {
            // Made before the check, so that a change between the check and the wait wakes it.
            let changed = self.shared.changed.notified();
            let version = self.shared.version.load(Ordering::SeqCst);
            if version != self.seen {
                self.seen = version;
                return true;
            }
            if self.shared.senders.load(Ordering::SeqCst) == 0 {
                return false;
            }
            changed.await;
        }
    }

    fn twin(&self, seen: u64) -> Self {
        self.shared.receivers.fetch_add(1, Ordering::SeqCst);
        Self { shared: self.shared.clone(), seen }
    }
}

impl<T> Clone for Watcher<T> {
    fn clone(&self) -> Self {
        self.twin(self.seen)
    }
}

impl<T> Drop for Watcher<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<T> Clone for WatcherSender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::SeqCst);
        Self(self.0.clone())
    }
}

impl<T> Drop for WatcherSender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

impl Watch for FairWatch {
    type Sender<T: Send + Sync> = WatcherSender<T>;
    type Receiver<T: Send + Sync> = Watcher<T>;
    type Ref<'a, T: Send + 'a> = Watched<'a, T>;

    fn channel<T: Send + Sync>(init: T) -> (WatcherSender<T>, Watcher<T>) {
        channel(init)
    }
}

impl<T: Send + Sync> WatchSender<FairWatch, T> for WatcherSender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.receivers.load(Ordering::SeqCst) == 0 {
            return Err(SendError(value));
        }
        self.0.modify(|current| {
            *current = value;
            true
        });
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        self.0.modify(modify)
    }

    fn borrow_watched(&self) -> Watched<'_, T> {
        self.0.borrow()
    }

    fn subscribe(&self) -> Watcher<T> {
        self.0.receivers.fetch_add(1, Ordering::SeqCst);
        Watcher { shared: self.0.clone(), seen: self.0.version.load(Ordering::SeqCst) }
    }
}

impl<T: Send + Sync> WatchReceiver<FairWatch, T> for Watcher<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        if self.wait().await { Ok(()) } else { Err(RecvError(())) }
    }

    fn borrow_watched(&self) -> Watched<'_, T> {
        self.shared.borrow()
    }

    fn borrow_and_update(&mut self) -> Watched<'_, T> {
        let value = self.shared.borrow();
        // Under the lock, so that the version is the one of the value seen.
        self.seen = self.shared.version.load(Ordering::SeqCst);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watcher_sees_the_newest_value_and_the_end() {
        let (sender, mut watcher) = channel(0);
        assert!(!sender.send_if_modified(|_| false));
        sender.send(1).expect("a watcher is there");
        sender.send(2).expect("a watcher is there");
        assert!(watcher.wait().await);
        assert_eq!(*watcher.borrow_watched(), 2);
        let mut late = sender.subscribe();
        let (woken, ()) = tokio::join!(late.wait(), async { sender.send(3).expect("a watcher is there") });
        assert!(woken);
        assert_eq!(*watcher.borrow_and_update(), 3);
        drop(sender);
        assert!(!watcher.wait().await);
        assert!(!late.wait().await);
    }
}
