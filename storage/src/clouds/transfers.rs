//! The bodies under way to a cloud, or from it: they share its link, so how long one may take depends on all of them.
//!
//! A deadline that is shared grows with the most that was to be moved that way at one time while its body was under way. Who
//! begins later counts too, as the link is shared from then on; what ended before does not, or a put that hangs beside quick
//! ones would never end. Puts have such deadlines, and gets of whole objects, for which nobody waits. A client waits for other
//! gets: they count, and have deadlines by their own bytes.
//!
//! Owns: who shares the link. Does not own: the attempts, nor how many are begun (`mirror`, `resync`).

use super::Limits;
use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// The bodies that go one way. A clone is another handle.
#[derive(Clone, Default)]
pub(super) struct Transfers(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Bytes of all that are under way.
    bytes: u64,
    /// By each of them: the most of these bytes since it began.
    most_bytes: BTreeMap<u64, u64>,
    next: u64,
}

/// A body under way, until it is dropped.
pub(super) struct Transfer {
    all: Transfers,
    number: u64,
    bytes: u64,
}

impl Transfers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder of the transfers panics")
    }

    /// Counts a body of so many bytes.
    pub fn begin(&self, bytes: u64) -> Transfer {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.bytes = state.bytes.saturating_add(bytes);
        let all = state.bytes;
        state.most_bytes.insert(number, all);
        state.most_bytes.values_mut().for_each(|most| *most = all.max(*most));
        Transfer { all: self.clone(), number, bytes }
    }
}

impl Transfer {
    /// How long it may take when it shares the link, as it looks now.
    pub fn deadline(&self, limits: &Limits) -> Duration {
        let shared = self.all.state().most_bytes[&self.number];
        let most = Duration::from_millis(limits.put_ms_max);
        limits.deadline(shared).min(most).max(limits.deadline(self.bytes))
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let mut state = self.all.state();
        state.bytes = state.bytes.saturating_sub(self.bytes);
        state.most_bytes.remove(&self.number);
    }
}

/// Waits for the end of `work`, at most until a deadline that may grow meanwhile; gives that one, in milliseconds, when it
/// has passed.
pub(super) async fn within<T>(deadline: impl Fn() -> Duration, work: impl Future<Output = T>) -> Result<T, u64> {
    let (start, mut work) = (Instant::now(), pin!(work));
    loop {
        let after = deadline();
        match timeout(after.saturating_sub(start.elapsed()), work.as_mut()).await {
            Ok(done) => return Ok(done),
            Err(_) if deadline() > after => {}
            Err(_) => return Err(after.as_millis() as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::join_all;
    use tokio::time::sleep;

    const SEGMENT_BYTES: u64 = 8 << 20;

    /// A put of a segment that would take so long; gives after how many seconds it ended, and whether it was in time.
    async fn put(puts: &Transfers, limits: &Limits, takes_s: u64) -> (u64, bool) {
        let start = Instant::now();
        let put = puts.begin(SEGMENT_BYTES);
        let ended = within(|| put.deadline(limits), sleep(Duration::from_secs(takes_s))).await;
        (start.elapsed().as_secs(), ended.is_ok())
    }

    /// 10 Mbit/s for 128 MiB: every one of them takes all of the time.
    #[tokio::test(start_paused = true)]
    async fn segments_that_share_a_thin_uplink_are_all_put_in_time() {
        let (puts, limits) = (Transfers::default(), Limits::default());
        let ended = join_all((0..16).map(|_| put(&puts, &limits, 107))).await;
        assert_eq!(ended, [(107, true); 16]);
        assert_eq!(put(&puts, &limits, 51).await, (50, false), "one that has the link for itself");
    }

    #[tokio::test(start_paused = true)]
    async fn a_put_that_hangs_ends_by_what_was_under_way_at_one_time_however_much_went_by() {
        let (puts, limits) = (Transfers::default(), Limits::default());
        let quick = async {
            for _ in 0..1000 {
                put(&puts, &limits, 1).await;
            }
        };
        let (hangs, ()) = futures::join!(put(&puts, &limits, 1_000_000), quick);
        assert_eq!(hangs, (10 + 2 * 8 * 5, false));
    }

    /// A delete must come behind every put, so the deadline has a limit; one put alone has its own time in any case.
    #[tokio::test(start_paused = true)]
    async fn no_put_may_take_longer_than_the_longest() {
        let puts = Transfers::default();
        for (put_ms_max, ends_s) in [(90_000, 90), (1_000, 50)] {
            let limits = Limits { put_ms_max, ..Limits::default() };
            let ended = join_all((0..16).map(|_| put(&puts, &limits, 1_000_000))).await;
            assert_eq!(ended, [(ends_s, false); 16]);
        }
    }
}
