//! The power of one run of one filer: when it is cut, nothing that the filer still does has any effect.
//!
//! It can be cut at a moment, or at one of the filer's effects, counted: just before it, or when it has happened and
//! nobody has heard of it yet; or in the middle of a sync of a file, when a part of what was written may have come to the disk.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};
use tokio::sync::Notify;

struct State {
    cut: AtomicBool,
    cut_at_an_effect: AtomicBool,
    cut_in_a_sync: AtomicBool,
    effects: AtomicU64,
    cut_at: AtomicU64,
    syncs: AtomicU64,
    cut_at_sync: AtomicU64,
    gone: Notify,
}

/// The power. A clone is the same.
#[derive(Clone)]
pub struct Power(Arc<State>);

impl Default for Power {
    fn default() -> Self {
        let (cut, cut_at_an_effect, cut_in_a_sync, effects, syncs) = Default::default();
        let [cut_at, cut_at_sync] = [(); 2].map(|()| AtomicU64::new(u64::MAX));
        let gone = Notify::new();
        Self(Arc::new(State { cut, cut_at_an_effect, cut_in_a_sync, effects, cut_at, syncs, cut_at_sync, gone }))
    }
}

impl Power {
    /// Ends the run.
    pub fn cut(&self) {
        self.0.cut.store(true, Relaxed);
        self.0.gone.notify_one();
    }

    /// Ends the run at the effect that comes so many from now.
    pub fn cut_after(&self, effects: u64) {
        self.0.cut_at.store(self.0.effects.load(Relaxed) + effects, Relaxed);
    }

    /// Ends the run in the middle of the sync of a file that comes so many from now.
    pub fn cut_after_syncs(&self, syncs: u64) {
        self.0.cut_at_sync.store(self.0.syncs.load(Relaxed) + syncs, Relaxed);
    }

    /// In the middle of a sync of a file: goes no further once the power is cut.
    pub async fn needed_by_sync(&self) {
        if self.0.syncs.fetch_add(1, Relaxed) == self.0.cut_at_sync.load(Relaxed) && !self.is_cut() {
            self.0.cut_in_a_sync.store(true, Relaxed);
            self.cut();
        }
        self.needed().await;
    }

    /// Takes back a cut that was to come at an effect or a sync.
    pub fn keep_on(&self) {
        self.0.cut_at.store(u64::MAX, Relaxed);
        self.0.cut_at_sync.store(u64::MAX, Relaxed);
    }

    /// Whether it was cut at an effect that was counted, and whether in a sync.
    pub fn was_cut_at(&self) -> (bool, bool) {
        (self.0.cut_at_an_effect.load(Relaxed), self.0.cut_in_a_sync.load(Relaxed))
    }

    /// Whether it was cut.
    pub fn is_cut(&self) -> bool {
        self.0.cut.load(Relaxed)
    }

    /// Returns when it was cut. For one waiter.
    pub async fn gone(&self) {
        self.0.gone.notified().await;
    }

    /// Before and after each effect: goes no further once the power is cut.
    pub async fn needed(&self) {
        if self.0.effects.fetch_add(1, Relaxed) == self.0.cut_at.load(Relaxed) && !self.is_cut() {
            self.0.cut_at_an_effect.store(true, Relaxed);
            self.cut();
        }
        if self.is_cut() {
            std::future::pending().await
        }
    }
}
