//! The power of one run of one filer: when it is cut, nothing that the filer still does has any effect.
//!
//! It can be cut at a moment, or at one of the filer's effects, counted: just before it, or when it has happened and
//! nobody has heard of it yet.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};
use tokio::sync::Notify;

struct State {
    cut: AtomicBool,
    effects: AtomicU64,
    cut_at: AtomicU64,
    gone: Notify,
}

/// The power. A clone is the same.
#[derive(Clone)]
pub struct Power(Arc<State>);

impl Default for Power {
    fn default() -> Self {
        let (cut, effects) = Default::default();
        Self(Arc::new(State { cut, effects, cut_at: AtomicU64::new(u64::MAX), gone: Notify::new() }))
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
        if self.0.effects.fetch_add(1, Relaxed) == self.0.cut_at.load(Relaxed) {
            self.cut();
        }
        if self.is_cut() {
            std::future::pending().await
        }
    }
}
