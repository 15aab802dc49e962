//! Fetches under way: one of a frame, however many wait for it.
//!
//! A fetch is a task of its own, so that the waiter that goes away does not take the others' fetch along. However it ends,
//! by a panic too, nobody joins it any more: whoever comes behind it begins anew.

use super::{FramePlace, ReadError};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};
use storage::ids::SegmentId;

/// A frame.
pub(super) type Place = (SegmentId, FramePlace);
/// The end of a fetch, for as many as wait for it.
pub(super) type Fetch = Shared<BoxFuture<'static, Result<(), ReadError>>>;

#[derive(Default)]
struct State {
    /// By every frame that they fetch; the number tells them apart.
    fetches: BTreeMap<Place, (u64, Fetch)>,
    next: u64,
}

/// The fetches. A clone is another handle.
#[derive(Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<State>>);

/// A fetch that is under way, until it is dropped.
struct Entry {
    under_way: UnderWay,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.under_way.state().fetches.retain(|_, (number, _)| *number != self.number);
    }
}

impl UnderWay {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder of the fetches panics")
    }

    /// Whether a frame is being fetched.
    pub fn has(&self, place: &Place) -> bool {
        self.state().fetches.contains_key(place)
    }

    /// The fetch that is under way for the first of these places, or a new one of all of them; and whether it is new.
    pub fn begin_or_join(
        &self,
        places: &[Place],
        fetch: impl Future<Output = Result<(), ReadError>> + Send + 'static,
    ) -> (Fetch, bool) {
        let mut state = self.state();
        if let Some((_, fetch)) = places.first().and_then(|first| state.fetches.get(first)) {
            return (fetch.clone(), false);
        }
        let (under_way, number) = (self.clone(), state.next);
        state.next += 1;
        let task = tokio::spawn(async move {
            let _entry = Entry { under_way, number };
            fetch.await
        });
        let ended = task.map(|end| end.unwrap_or_else(|e| Err(ReadError::Local(e.to_string()))));
        let fetch: Fetch = ended.boxed().shared();
        for place in places {
            state.fetches.entry(*place).or_insert_with(|| (number, fetch.clone()));
        }
        (fetch, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::FilerId;
    use std::time::Duration;

    fn place(at: u32) -> Place {
        let segment = SegmentId { filer: FilerId(1), number: 1 };
        (segment, FramePlace { at, len: 100, offset: 0 })
    }

    async fn a_while() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn one_fetch_serves_all_who_come_while_it_is_under_way_and_nobody_behind_it() {
        let under_way = UnderWay::default();
        let (first, own) = under_way.begin_or_join(&[place(0), place(100)], async {
            a_while().await;
            Ok(())
        });
        assert!(own && under_way.has(&place(0)) && under_way.has(&place(100)));
        let (joined, own) = under_way.begin_or_join(&[place(100)], async { unreachable!("it is under way") });
        assert!(!own);
        // Those who wait go away: it is fetched all the same.
        drop((first, joined));
        a_while().await;
        a_while().await;
        assert!(!under_way.has(&place(0)) && !under_way.has(&place(100)));
        let (next, own) = under_way.begin_or_join(&[place(100)], async { Ok(()) });
        assert_eq!((next.await, own), (Ok(()), true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_that_panics_wakes_its_waiters_and_keeps_nobody_from_trying_again() {
        let under_way = UnderWay::default();
        let (first, _) = under_way.begin_or_join(&[place(0), place(100)], async {
            a_while().await;
            panic!("a fault of the program")
        });
        let (joined, own) = under_way.begin_or_join(&[place(100)], async { unreachable!("it is under way") });
        assert!(!own);
        for waiter in [first, joined] {
            let ended = tokio::time::timeout(Duration::from_secs(60), waiter).await.expect("it has ended");
            assert!(matches!(ended, Err(ReadError::Local(_))), "{ended:?}");
        }
        for at in [0, 100] {
            let (again, own) = under_way.begin_or_join(&[place(at)], async { Ok(()) });
            assert!(own, "what has ended is not joined");
            assert_eq!(again.await, Ok(()));
        }
    }
}
