//! Whether this filer has a majority, as far as it can know.
//!
//! Signs of a majority are: a leader's entries or signs of life; at the leader, the answers of most filers; an index
//! read that was confirmed. A filer without any of them for `majority_known_lost_after` *knows* that it has none: by then
//! a majority would have elected a leader, and it would have been heard. The same is known when index reads have failed
//! for so long, however alive the leader sounds: it may be cut off together with this filer.

use super::{
    api::ProposeError,
    replica::{Consensus, Core},
};
use std::time::Duration;
use tokio::time::{Instant, sleep};

impl Consensus {
    /// `Err` when this filer knows that nothing can be agreed or confirmed now: it has no majority (and for how long),
    /// it is no member, or its replica has stopped. `Ok` is no promise.
    pub fn check_majority(&self) -> Result<(), ProposeError> {
        let core = &self.core;
        core.check_member()?;
        let without = core.without_majority();
        if without < core.settings.majority_known_lost_after() {
            return Ok(());
        }
        Err(ProposeError::NoMajority { after_ms: without.as_millis() as u64 })
    }

    /// Returns when this filer knows that nothing can be agreed, and why.
    pub async fn majority_lost(&self) -> ProposeError {
        let core = &self.core;
        let mut changes = self.changes();
        loop {
            if let Err(error) = self.check_majority() {
                return error;
            }
            // Not known before then, unless the replica stops or is removed.
            let left = core.settings.majority_known_lost_after().saturating_sub(core.without_majority());
            tokio::select! {
                biased;
                () = sleep(left) => {}
                () = changes.next() => {}
            }
        }
    }

    /// Returns when this filer does not know (any more) that nothing can be agreed.
    pub async fn majority_found(&self) {
        let mut changes = self.changes();
        while self.check_majority().is_err() {
            changes.next().await;
        }
    }
}

impl Core {
    /// How long ago the last sign of a majority was, or how long index reads have been failing, if that is longer.
    fn without_majority(&self) -> Duration {
        let (alone, acknowledged) = self.look(|metrics| {
            let leads = metrics.state.is_leader();
            let mut voters = metrics.membership_config.membership().voter_ids();
            let acknowledged = metrics.last_quorum_acked.as_ref().filter(|_| leads).map(|at| at.0);
            (leads && voters.all(|voter| voter == self.me), acknowledged)
        });
        if alone {
            return Duration::ZERO;
        }
        let last = acknowledged.into_iter().chain([self.shared.majority_at()]).max();
        let silent = last.map_or(Duration::ZERO, |at| at.elapsed());
        silent.max(self.gate.failing_since().map_or(Duration::ZERO, |since: Instant| since.elapsed()))
    }
}
