//! Replies to calls that clients repeat.
//!
//! A client that heard no answer sends its call again, perhaps over a new connection. A second REMOVE would say "no such
//! file" of what the first one removed, and a second WRITE that comes late would lie over what its client has written since;
//! so the answers to calls that change something are kept for a while, and a repeated call gets the first answer, whatever
//! it is: a client that was told to ask again later does so as a new call, so the old one must not run any more. A
//! repetition of a call that is still at work waits for it, as long as no newer repetition does: the client listens where it
//! asked last.
//!
//! Owns: the answers, bounded in number, bytes and age. Does not own: what makes a call repeatable.

use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// What makes two calls the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallKey {
    pub client: IpAddr,
    pub xid: u32,
    pub procedure: u32,
    /// Of the whole call.
    pub checksum: u64,
}

/// What an entry costs besides its answer, in bytes, roughly.
const ENTRY_BYTES: usize = 192;

enum Entry {
    /// Repetitions that wait are few.
    AtWork(Option<Repeated>),
    Answered {
        reply: Bytes,
        at: Instant,
    },
}

/// A call that was repeated while it is at work.
#[derive(Default)]
struct Repeated {
    reply: watch::Sender<Option<Bytes>>,
    /// The number of the newest repetition.
    newest: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    entries: BTreeMap<CallKey, Entry>,
    /// Answered entries, the oldest first.
    order: VecDeque<CallKey>,
    bytes: usize,
}

/// The cache of replies.
pub struct Replays {
    kept: Mutex<Kept>,
    entries_max: usize,
    bytes_max: usize,
    age_max: Duration,
}

/// The right to answer a call first. Dropped without an answer, it lets a repetition try again.
pub struct Ticket<'a> {
    replays: &'a Replays,
    key: CallKey,
    answered: bool,
}

/// Who a call is.
pub enum Claim<'a> {
    First(Ticket<'a>),
    /// A repetition, and the first one's reply.
    Repeated(Bytes),
    /// A repetition that a newer one has replaced: it gets no reply.
    Replaced,
}

impl Replays {
    pub fn new(entries_max: usize, bytes_max: usize, age_max: Duration) -> Self {
        Self { kept: Mutex::default(), entries_max, bytes_max, age_max }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the same call is at work, and nobody else does.
    pub async fn claim(&self, key: CallKey) -> Claim<'_> {
        loop {
            let (mut reply, mut newest, number) = {
                let mut kept = self.kept();
                kept.forget(Instant::now(), self.age_max, self.entries_max, self.bytes_max);
                match kept.entries.get_mut(&key) {
                    Some(Entry::Answered { reply, .. }) => return Claim::Repeated(reply.clone()),
                    Some(Entry::AtWork(repeated)) => {
                        let Repeated { reply, newest } = repeated.get_or_insert_default();
                        newest.send_modify(|number| *number += 1);
                        let number = *newest.borrow();
                        (reply.subscribe(), newest.subscribe(), number)
                    }
                    None => {
                        kept.entries.insert(key, Entry::AtWork(None));
                        return Claim::First(Ticket { replays: self, key, answered: false });
                    }
                }
            };
            tokio::select! {
                biased;
                answered = reply.wait_for(Option::is_some) => {
                    if let Ok(reply) = answered && let Some(reply) = reply.clone() {
                        return Claim::Repeated(reply);
                    }
                }
                Ok(_) = newest.wait_for(|newest| *newest != number) => return Claim::Replaced,
            }
        }
    }

    /// A call that is not to be run at all gets `reply`, and so do its repetitions; one that was run gets its own reply.
    /// `None`: it is at work, and will be answered.
    pub fn turn_away(&self, key: CallKey, reply: Bytes) -> Option<Bytes> {
        let now = Instant::now();
        let mut kept = self.kept();
        kept.forget(now, self.age_max, self.entries_max, self.bytes_max);
        match kept.entries.get(&key) {
            Some(Entry::Answered { reply, .. }) => Some(reply.clone()),
            Some(Entry::AtWork(_)) => None,
            None => {
                kept.keep(key, reply.clone(), now);
                Some(reply)
            }
        }
    }

    /// How many calls are kept or at work.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.kept().entries.len()
    }
}

impl Kept {
    /// Keeps a reply; who waits for it.
    fn keep(&mut self, key: CallKey, reply: Bytes, now: Instant) -> Option<Repeated> {
        self.bytes += reply.len() + ENTRY_BYTES;
        let before = self.entries.insert(key, Entry::Answered { reply, at: now });
        self.order.push_back(key);
        match before {
            Some(Entry::AtWork(repeated)) => repeated,
            _ => None,
        }
    }

    fn forget(&mut self, now: Instant, age_max: Duration, entries_max: usize, bytes_max: usize) {
        while let Some(oldest) = self.order.front() {
            let Some(Entry::Answered { reply, at }) = self.entries.get(oldest) else {
                unreachable!("the order names answered entries alone");
            };
            let full = self.order.len() > entries_max || self.bytes > bytes_max;
            if !full && now.saturating_duration_since(*at) <= age_max {
                return;
            }
            self.bytes -= reply.len() + ENTRY_BYTES;
            self.entries.remove(oldest);
            self.order.pop_front();
        }
    }
}

impl Ticket<'_> {
    /// Keeps the reply for repetitions, and gives it to those that wait.
    pub fn answer(mut self, reply: Bytes) {
        self.answered = true;
        let repeated = {
            let (replays, now) = (self.replays, Instant::now());
            let mut kept = replays.kept();
            let repeated = kept.keep(self.key, reply.clone(), now);
            kept.forget(now, replays.age_max, replays.entries_max, replays.bytes_max);
            repeated
        };
        if let Some(repeated) = repeated {
            repeated.reply.send_replace(Some(reply));
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.replays.kept().entries.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(xid: u32) -> CallKey {
        CallKey { client: IpAddr::from([10, 0, 0, 1]), xid, procedure: 12, checksum: 1 }
    }

    async fn first(replays: &Replays, key: CallKey) -> Ticket<'_> {
        match replays.claim(key).await {
            Claim::First(ticket) => ticket,
            Claim::Repeated(reply) => panic!("repeated: {reply:?}"),
            Claim::Replaced => panic!("replaced"),
        }
    }

    async fn repeated(replays: &Replays, key: CallKey) -> Bytes {
        match replays.claim(key).await {
            Claim::Repeated(reply) => reply,
            Claim::First(_) | Claim::Replaced => panic!("not kept"),
        }
    }

    #[tokio::test]
    async fn a_repetition_gets_the_first_reply() {
        let replays = Replays::new(4, 4096, Duration::from_secs(60));
        first(&replays, key(1)).await.answer(Bytes::from_static(b"one"));
        assert_eq!(repeated(&replays, key(1)).await, "one");
        // Another call under the same xid is another call.
        drop(first(&replays, CallKey { checksum: 2, ..key(1) }).await);
        drop(first(&replays, CallKey { client: IpAddr::from([10, 0, 0, 2]), ..key(1) }).await);
    }

    #[tokio::test]
    async fn a_repetition_waits_for_the_first() {
        let replays = Replays::new(4, 4096, Duration::from_secs(60));
        let ticket = first(&replays, key(1)).await;
        let waits = repeated(&replays, key(1));
        let answers = async {
            tokio::task::yield_now().await;
            ticket.answer(Bytes::from_static(b"one"));
        };
        assert_eq!(tokio::join!(waits, answers).0, "one");
    }

    #[tokio::test]
    async fn one_repetition_waits_and_a_newer_one_replaces_it() {
        let replays = Replays::new(4, 4096, Duration::from_secs(60));
        let ticket = first(&replays, key(1)).await;
        let older = replays.claim(key(1));
        let newer = async {
            tokio::task::yield_now().await;
            repeated(&replays, key(1)).await
        };
        let answers = async {
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
            ticket.answer(Bytes::from_static(b"one"));
        };
        let (older, newer, ()) = tokio::join!(older, newer, answers);
        assert!(matches!(older, Claim::Replaced));
        assert_eq!(newer, "one");
    }

    #[tokio::test]
    async fn a_call_that_was_turned_away_is_never_run() {
        let replays = Replays::new(4, 4096, Duration::from_secs(60));
        let later = Bytes::from_static(b"later");
        assert_eq!(replays.turn_away(key(1), later.clone()), Some(later.clone()));
        assert_eq!(repeated(&replays, key(1)).await, "later");
        first(&replays, key(2)).await.answer(Bytes::from_static(b"done"));
        assert_eq!(replays.turn_away(key(2), later.clone()), Some(Bytes::from_static(b"done")));
        let _at_work = first(&replays, key(3)).await;
        assert_eq!(replays.turn_away(key(3), later), None);
    }

    #[tokio::test]
    async fn a_first_that_gives_up_lets_a_repetition_be_first() {
        let replays = Replays::new(4, 4096, Duration::from_secs(60));
        let ticket = first(&replays, key(1)).await;
        let next = first(&replays, key(1));
        let gives_up = async {
            tokio::task::yield_now().await;
            drop(ticket);
        };
        let (next, ()) = tokio::join!(next, gives_up);
        drop(next);
        assert_eq!(replays.len(), 0);
    }

    #[tokio::test]
    async fn number_bytes_and_age_are_bounded() {
        let replays = Replays::new(4, 1 << 20, Duration::from_secs(60));
        for xid in 0..10 {
            first(&replays, key(xid)).await.answer(Bytes::from_static(b"reply"));
        }
        assert_eq!(replays.len(), 4);
        drop(first(&replays, key(5)).await);
        repeated(&replays, key(6)).await;

        let replays = Replays::new(100, 3 * (ENTRY_BYTES + 5), Duration::from_secs(60));
        for xid in 0..10 {
            first(&replays, key(xid)).await.answer(Bytes::from_static(b"reply"));
        }
        assert_eq!(replays.len(), 3);

        let mut kept = Kept::default();
        let now = Instant::now();
        kept.entries.insert(key(1), Entry::Answered { reply: Bytes::new(), at: now });
        kept.order.push_back(key(1));
        kept.bytes = ENTRY_BYTES;
        kept.forget(now + Duration::from_secs(60), Duration::from_secs(60), 4, 4096);
        assert_eq!(kept.entries.len(), 1);
        kept.forget(now + Duration::from_secs(61), Duration::from_secs(60), 4, 4096);
        assert_eq!((kept.entries.len(), kept.bytes), (0, 0));
    }
}
