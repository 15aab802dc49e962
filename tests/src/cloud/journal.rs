//! What was asked of the cloud: counters since its start, and a log of the last requests.
//!
//! A request is counted when it arrives, so one that never gets an answer is seen as well. Its outcome is on record
//! before the answer leaves.

use super::faults::{Keys, Operation};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not yet ended.
    UnderWay,
    /// Answered with this HTTP status.
    Answered(u16),
    /// The connection was reset on purpose.
    Reset,
    /// The client went away first.
    Abandoned,
}

impl Outcome {
    /// The name in counters: a status such as `200`, or a word.
    pub fn name(self) -> String {
        match self {
            Self::UnderWay => "under_way".into(),
            Self::Answered(status) => status.to_string(),
            Self::Reset => "reset".into(),
            Self::Abandoned => "abandoned".into(),
        }
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// 1 for the first request since the start.
    pub number: u64,
    /// When it came, in milliseconds since the start.
    pub at_ms: u64,
    pub operation: Operation,
    pub bucket: String,
    /// The object; for a listing its prefix; for a delete of many objects the first of them.
    pub key: String,
    /// How many objects it is about.
    pub keys: u64,
    /// Length of the body: the client's for puts, ours for all else.
    pub bytes: u64,
    pub outcome: Outcome,
    /// The fault that met it.
    pub fault: Option<u64>,
}

/// Requests since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// All of them.
    pub requests: u64,
    /// By operation.
    pub by_operation: BTreeMap<Operation, u64>,
    /// By operation and outcome (see [`Outcome::name`]); those under way are in none.
    pub by_outcome: BTreeMap<Operation, BTreeMap<String, u64>>,
    /// Bytes of puts, and bytes given to gets, as far as they were answered.
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Counters {
    /// Requests for this operation.
    pub fn of(&self, operation: Operation) -> u64 {
        self.by_operation.get(&operation).copied().unwrap_or(0)
    }

    /// Requests for this operation that ended so.
    pub fn ended(&self, operation: Operation, outcome: Outcome) -> u64 {
        self.by_outcome.get(&operation).and_then(|by| by.get(&outcome.name())).copied().unwrap_or(0)
    }
}

/// Counters and log of one cloud.
pub struct Journal {
    started: Instant,
    entries_max: usize,
    book: Mutex<Book>,
    changed: tokio::sync::Notify,
}

#[derive(Default)]
struct Book {
    counters: Counters,
    log: VecDeque<Entry>,
}

impl Journal {
    pub(super) fn new(entries_max: usize) -> Self {
        Self { started: Instant::now(), entries_max, book: Mutex::default(), changed: tokio::sync::Notify::new() }
    }

    /// The counters of this moment.
    pub fn counters(&self) -> Counters {
        self.book().counters.clone()
    }

    /// The last requests whose number is greater than `after`, oldest first.
    pub fn log(&self, after: u64) -> Vec<Entry> {
        self.book().log.iter().filter(|entry| entry.number > after).cloned().collect()
    }

    /// The number of the latest request: a mark to look behind later.
    pub fn mark(&self) -> u64 {
        self.book().counters.requests
    }

    /// How many requests behind `after` were for this operation (none: any) and for such a key, as far as the log goes.
    pub fn count(&self, after: u64, operation: Option<Operation>, keys: &Keys) -> usize {
        let meets = |entry: &&Entry| {
            operation.is_none_or(|operation| operation == entry.operation)
                && keys.meets(std::slice::from_ref(&entry.key))
        };
        self.log(after).iter().filter(meets).count()
    }

    /// Returns once `holds` is true of the counters. Give it a deadline with `tokio::time::timeout`.
    pub async fn until(&self, mut holds: impl FnMut(&Counters) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that a change right behind it is not missed.
            changed.as_mut().enable();
            if holds(&self.book().counters) {
                return;
            }
            changed.await;
        }
    }

    /// A request came. The ticket records its end.
    pub(super) fn arrived(
        self: &Arc<Self>,
        operation: Operation,
        bucket: &str,
        keys: &[String],
        bytes: u64,
        fault: Option<u64>,
    ) -> Ticket {
        let at_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut book = self.book();
        book.counters.requests += 1;
        *book.counters.by_operation.entry(operation).or_default() += 1;
        let number = book.counters.requests;
        let key = keys.first().cloned().unwrap_or_default();
        let (bucket, keys, outcome) = (bucket.to_string(), keys.len() as u64, Outcome::UnderWay);
        book.log.push_back(Entry { number, at_ms, operation, bucket, key, keys, bytes, outcome, fault });
        while book.log.len() > self.entries_max {
            book.log.pop_front();
        }
        drop(book);
        self.changed.notify_waiters();
        Ticket { journal: self.clone(), number, operation, bytes, open: true }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no holder of this lock panics")
    }
}

/// A request under way. Dropped without an end, it counts as abandoned by its client.
pub(super) struct Ticket {
    journal: Arc<Journal>,
    number: u64,
    operation: Operation,
    bytes: u64,
    open: bool,
}

impl Ticket {
    /// An answer leaves with this status; for gets and the like, with a body of `bytes_out`.
    pub(super) fn answered(mut self, status: u16, bytes_out: u64) {
        if self.operation != Operation::Put {
            self.bytes = bytes_out;
        }
        self.end(Outcome::Answered(status));
    }

    pub(super) fn reset(mut self) {
        self.end(Outcome::Reset);
    }

    fn end(&mut self, outcome: Outcome) {
        self.open = false;
        let mut book = self.journal.book();
        let by_outcome = book.counters.by_outcome.entry(self.operation).or_default();
        *by_outcome.entry(outcome.name()).or_default() += 1;
        if let Outcome::Answered(200..=299) = outcome {
            match self.operation {
                Operation::Put => book.counters.bytes_in += self.bytes,
                Operation::Get => book.counters.bytes_out += self.bytes,
                _ => {}
            }
        }
        // Numbers in the log have no gaps, so the place is known from the first one.
        if let Some(first) = book.log.front().map(|entry| entry.number)
            && let Some(place) = self.number.checked_sub(first)
        {
            let place = usize::try_from(place).expect("an index into the log");
            let entry = book.log.get_mut(place).expect("numbers in the log have no gaps");
            (entry.outcome, entry.bytes) = (outcome, self.bytes);
        }
        drop(book);
        self.journal.changed.notify_waiters();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.open {
            self.end(Outcome::Abandoned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_when_they_come_and_again_when_they_end() {
        let journal = Arc::new(Journal::new(2));
        let key = |name: &str| vec![name.to_string()];
        let first = journal.arrived(Operation::Put, "b", &key("a"), 7, None);
        let second = journal.arrived(Operation::Get, "b", &key("a"), 0, Some(3));
        assert_eq!(journal.counters().requests, 2);
        assert!(journal.counters().by_outcome.is_empty());
        let mark = journal.mark();
        let third = journal.arrived(Operation::Put, "b", &key("c"), 9, None);
        assert_eq!(journal.log(0).iter().map(|entry| entry.number).collect::<Vec<_>>(), [2, 3]);
        first.answered(200, 0);
        second.answered(206, 5);
        drop(third);
        let counters = journal.counters();
        assert_eq!((counters.bytes_in, counters.bytes_out), (7, 5));
        assert_eq!(counters.ended(Operation::Put, Outcome::Answered(200)), 1);
        assert_eq!(counters.ended(Operation::Put, Outcome::Abandoned), 1);
        assert_eq!(journal.count(mark, Some(Operation::Put), &Keys::All), 1);
        assert_eq!(journal.count(0, None, &Keys::Exact("a".into())), 1);
        assert_eq!(journal.log(0)[0].outcome, Outcome::Answered(206));
    }
}
