//! The replica's log: entries by index in table LOG, the vote and where the log begins in table META.
//!
//! What the engine appends is at once in memory, where followers and the state machine find it, and queued for the
//! [`writer`], which gathers whatever waits into one synced batch. An entry stays in memory at least until it is on
//! disk; recent ones stay longer. So a reader takes the newest part from memory and what is older from the table:
//!
//! ```text
//!   purged            first in memory       last
//!     |--- table LOG ------|---- memory -----|
//! ```
//!
//! Owns: LOG, and the records `consensus/vote` and `consensus/purged` of META. Does not own: which entries are right.

mod writer;

use super::{
    api::StartError,
    engine::{Entry, LogId, Types, Vote},
    runtime::Env,
    settings::Settings,
};
use crate::{
    kv::{Kv, KvError, KvRead, LOG, META, Range},
    record::{self, RecordError},
};
use bytes::Bytes;
use openraft::{
    EntryPayload, LogState, RaftLogReader,
    base::BoxStream,
    entry::RaftEntry,
    storage::{IOFlushed, RaftLogStorage},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard},
};
use writer::{Order, Writer};

/// Format version of the log's records.
const VERSION: u8 = 1;
const VOTE_KEY: &[u8] = b"consensus/vote";
const PURGED_KEY: &[u8] = b"consensus/purged";
/// Entries read from the table at a time.
const PAGE_ENTRIES: u64 = 64;

/// The log, as the engine writes it.
pub struct LogStore {
    log: Arc<Log>,
    writer: Writer,
}

/// The log, as followers and the state machine read it.
#[derive(Clone)]
pub struct LogReader(Arc<Log>);

struct Log {
    kv: Arc<dyn Kv>,
    tail: Mutex<Tail>,
    cache_bytes_max: usize,
    read_bytes_max: usize,
}

/// What is known without reading the table.
struct Tail {
    /// The newest entries, without a gap up to `last`.
    recent: BTreeMap<u64, Recent>,
    recent_bytes: usize,
    /// Orders to the writer so far, and how many of them are on disk.
    ordered: u64,
    written: u64,
    last: Option<LogId>,
    purged: Option<LogId>,
    vote: Option<Vote>,
}

struct Recent {
    entry: Entry,
    bytes: usize,
    /// The order that writes it.
    order: u64,
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

fn gap(index: u64) -> io::Error {
    io::Error::other(format!("entry {index} is missing in the log"))
}

fn key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

fn entry_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(command) => command.bytes() + 32,
        EntryPayload::Blank => 32,
        EntryPayload::Membership(_) => 512,
    }
}

/// Reads a record of META.
pub(super) fn read_meta<T: DeserializeOwned>(
    kv: &dyn KvRead,
    key: &[u8],
    what: &'static str,
) -> Result<Option<T>, StartError> {
    match kv.get(META, key)? {
        Some(bytes) => record::decode(VERSION, &bytes).map(Some).map_err(|source| StartError::Record { what, source }),
        None => Ok(None),
    }
}

/// The bytes of a record of META.
pub(super) fn meta_record<T: Serialize>(value: &T) -> Vec<u8> {
    record::encode(VERSION, value)
}

impl LogStore {
    /// The log as the tables hold it.
    pub fn open(kv: Arc<dyn Kv>, settings: &Settings, env: &Env) -> Result<Self, StartError> {
        let vote = read_meta(&*kv, VOTE_KEY, "vote")?;
        let purged: Option<LogId> = read_meta(&*kv, PURGED_KEY, "purged")?;
        let newest = kv.scan(LOG, (Bound::Unbounded, Bound::Unbounded), 1, true)?;
        let last = match newest.first() {
            Some((_, bytes)) => {
                let entry: Entry = record::decode(VERSION, bytes)
                    .map_err(|source| StartError::Record { what: "last entry", source })?;
                Some(entry.log_id)
            }
            None => None,
        };
        let tail = Tail {
            recent: BTreeMap::new(),
            recent_bytes: 0,
            ordered: 0,
            written: 0,
            last: last.max(purged),
            purged,
            vote,
        };
        let log = Arc::new(Log {
            kv,
            tail: Mutex::new(tail),
            cache_bytes_max: settings.log_cache_bytes_max,
            read_bytes_max: settings.append_bytes_max,
        });
        let writer = Writer::start(log.clone(), settings.write_bytes_max, env);
        Ok(Self { log, writer })
    }
}

impl Log {
    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().expect("no access to the log's tail panics")
    }

    /// Entries of `from..to` that the log has, in order, without a gap; stops early behind `bytes_max`, never empty
    /// then.
    fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        loop {
            let before = self.ends();
            let entries = self.try_read(from, to, bytes_max);
            // The table is read without a lock: what looks like a gap may be the work of a purge or a truncation.
            if entries.is_ok() || self.ends() == before {
                return entries;
            }
        }
    }

    fn ends(&self) -> (Option<LogId>, Option<LogId>) {
        let tail = self.tail();
        (tail.purged, tail.last)
    }

    fn try_read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let (from, in_memory_from, mut recent, to) = {
            let tail = self.tail();
            let kept_from = tail.purged.map_or(0, |id| id.index() + 1);
            let end = tail.last.map_or(0, |id| id.index() + 1);
            let (from, to) = (from.max(kept_from), to.min(end));
            if from >= to {
                return Ok(Vec::new());
            }
            let in_memory_from = tail.recent.keys().next().map_or(to, |&index| index.min(to));
            let mut bytes = 0;
            let mut recent = Vec::new();
            let first = from.max(in_memory_from);
            for (expected, (&index, held)) in (first..).zip(tail.recent.range(first..to)) {
                if bytes > bytes_max {
                    break;
                }
                if index != expected {
                    return Err(gap(expected));
                }
                bytes += held.bytes;
                recent.push(held.entry.clone());
            }
            (from, in_memory_from, recent, to)
        };
        if from >= in_memory_from {
            return Ok(recent);
        }
        let table_to = in_memory_from.min(to);
        let mut entries: Vec<Entry> = Vec::new();
        let (mut next, mut bytes) = (from, 0);
        while next < table_to && bytes <= bytes_max {
            let limit = (table_to - next).min(PAGE_ENTRIES);
            let (low, high) = (key(next), key(table_to));
            let range: Range<'_> = (Bound::Included(&low), Bound::Excluded(&high));
            let page = self.kv.scan(LOG, range, limit as usize, false).map_err(failed)?;
            if page.is_empty() {
                break;
            }
            for (_, value) in page {
                if bytes > bytes_max {
                    break;
                }
                let entry: Entry = record::decode(VERSION, &value).map_err(failed)?;
                let index = entry.log_id.index();
                if index != next {
                    return Err(gap(next));
                }
                bytes += entry_bytes(&entry);
                next = index + 1;
                entries.push(entry);
            }
        }
        if next == table_to {
            entries.append(&mut recent);
        } else if bytes <= bytes_max {
            return Err(gap(next));
        }
        Ok(entries)
    }

    /// What an order has to write is on disk.
    fn written(&self, order: u64) {
        let mut tail = self.tail();
        tail.written = tail.written.max(order);
        tail.evict(self.cache_bytes_max);
    }
}

impl Tail {
    fn order(&mut self) -> u64 {
        self.ordered += 1;
        self.ordered
    }

    fn evict(&mut self, bytes_max: usize) {
        while self.recent_bytes > bytes_max {
            match self.recent.first_entry() {
                Some(oldest) if oldest.get().order <= self.written => self.recent_bytes -= oldest.remove().bytes,
                _ => break,
            }
        }
    }

    fn drop_recent(&mut self, keep: impl Fn(u64) -> bool) {
        let bytes = &mut self.recent_bytes;
        self.recent.retain(|&index, held| {
            let kept = keep(index);
            if !kept {
                *bytes -= held.bytes;
            }
            kept
        });
    }
}

/// The bounds of an index range as `from..to`.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(&index) => index,
        Bound::Excluded(&index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(&index) => index.saturating_add(1),
        Bound::Excluded(&index) => index,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<Types> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (from, to) = bounds(&range);
        self.0.read(from, to, usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.0.tail().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.0.read(start, end, self.0.read_bytes_max)
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl futures::Stream<Item = io::Result<Entry>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        // Who asks for a stream applies it, and takes its end for the end of the range: whatever of it the log does not
        // have must be an error, be it purged, not there yet, or lost.
        let (from, to) = bounds(&range);
        let log = self.0.clone();
        let pages = futures::stream::unfold((log, from), move |(log, next)| async move {
            if next >= to {
                return None;
            }
            let page = log.read(next, to, log.read_bytes_max).and_then(|entries| match entries.first() {
                Some(first) if first.log_id.index() == next => Ok(entries),
                _ => Err(gap(next)),
            });
            let behind = match &page {
                Ok(entries) => entries.last().map_or(to, |entry| entry.log_id.index() + 1),
                Err(_) => to,
            };
            let items = match page {
                Ok(entries) => entries.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            Some((futures::stream::iter(items), (log, behind)))
        });
        let entries: BoxStream<'static, io::Result<Entry>> = Box::pin(futures::StreamExt::flatten(pages));
        entries
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (from, to) = bounds(&range);
        self.log.read(from, to, usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.log.tail().vote)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let tail = self.log.tail();
        Ok(LogState { last_purged_log_id: tail.purged, last_log_id: tail.last })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader(self.log.clone())
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let order = self.log.tail().order();
        self.writer.write(order, Order::Vote(meta_record(vote).into())).await?;
        self.log.tail().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let (order, records) = {
            let mut tail = self.log.tail();
            let order = tail.order();
            let mut records: Vec<(u64, Bytes)> = Vec::new();
            for entry in entries {
                let bytes = record::encode(VERSION, &entry);
                tail.last = Some(entry.log_id);
                tail.recent_bytes += bytes.len();
                let recent = Recent { bytes: bytes.len(), order, entry };
                let index = recent.entry.index();
                records.push((index, bytes.into()));
                tail.recent.insert(index, recent);
            }
            (order, records)
        };
        self.writer.queue(order, Order::Append(records), Some(callback)).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let first_dropped = last_log_id.map_or(0, |id| id.index() + 1);
        let order = {
            let mut tail = self.log.tail();
            tail.drop_recent(|index| index < first_dropped);
            tail.last = last_log_id.max(tail.purged);
            tail.order()
        };
        self.writer.write(order, Order::Truncate(first_dropped)).await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let order = {
            let mut tail = self.log.tail();
            tail.purged = tail.purged.max(Some(log_id));
            tail.last = tail.last.max(Some(log_id));
            tail.drop_recent(|index| index > log_id.index());
            tail.order()
        };
        self.writer.write(order, Order::Purge(log_id.index(), meta_record(&log_id).into())).await
    }
}

impl From<KvError> for LogFailure {
    fn from(error: KvError) -> Self {
        Self(error.to_string())
    }
}

impl From<RecordError> for LogFailure {
    fn from(error: RecordError) -> Self {
        Self(error.to_string())
    }
}

/// Why the log could not be written; the same for all that waited for the batch.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the log was not written: {0}")]
struct LogFailure(String);

#[cfg(test)]
mod tests;
