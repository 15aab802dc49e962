//! A filer's tables in RocksDB.
//!
//! One thread writes. It drains a bounded queue into batches, one sync for all those of a batch that must survive a power
//! loss. What need not waits for no sync that comes behind it:
//!
//! ```text
//! write(a, Buffered) -.            [a]     one batch           -> answers a
//! write(b, Synced)   --+-> queue ->
//! write(c, Buffered) --|           [b c d] one batch, one sync -> answers b, c, d
//! write(d, Synced)   -'
//! ```
//!
//! A failed write stops all later ones: what is there after a crash is always a prefix of what was written.
//!
//! Owns: the directory, its format, the order of writes. Does not own: what the tables mean (`mesh::kv`).

mod open;
#[cfg(test)]
mod tests;

pub use open::OpenError;

use bytes::Bytes;
use mesh::kv::{
    ARRIVING, Batch, Change,
    Durability::{self, Buffered, Synced},
    Kv, KvError, KvRead, LOG, META, Pair, Range, STATE, Table,
};
use rocksdb::{DB, ReadOptions, SnapshotWithThreadMode, WriteBatch, WriteOptions};
use serde::{Deserialize, Serialize};
use std::{
    ops::Bound,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

/// All tables, each a column family.
const TABLES: [Table; 4] = [LOG, META, STATE, ARRIVING];
/// Where META says whether the families of `STATE` and `ARRIVING` have changed places: one byte, 1 when they have.
const SWAPPED_KEY: &[u8] = b"swapped";
/// The most that is written in one batch, in bytes; what waits beyond it comes with the next.
const GROUP_BYTES_MAX: usize = 16 << 20;

/// What RocksDB may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RocksSettings {
    /// Memory for blocks that were read, in bytes.
    pub block_cache_bytes: usize,
    /// Memory for writes that are not yet in tables, over all column families, in bytes.
    pub write_buffer_bytes: usize,
    /// Files kept open.
    pub open_files_max: u32,
    /// Writes that wait; more make their callers wait.
    pub waiting_writes_max: usize,
}

impl Default for RocksSettings {
    fn default() -> Self {
        Self {
            block_cache_bytes: 64 << 20,
            write_buffer_bytes: 32 << 20,
            open_files_max: 512,
            waiting_writes_max: 4_096,
        }
    }
}

/// The tables of one filer, in a directory.
pub struct RocksKv {
    db: Arc<DB>,
    /// Of every look at one key as the tables are now.
    looking: ReadOptions,
    swaps: Arc<Swaps>,
    queue: Option<mpsc::Sender<Waiting>>,
    writer: Option<JoinHandle<()>>,
    groups: Arc<AtomicU64>,
}

/// How often `STATE` and `ARRIVING` have changed places, as far as readers are concerned; begins with 0 or 1, by what
/// the directory says.
#[derive(Default)]
struct Swaps(AtomicU64);

impl Swaps {
    /// Reads by `read`, which is told the swaps so far. Again where they changed meanwhile: what was the state is cleared
    /// behind a swap, and a reader that was under way would find it empty.
    fn steady<T>(&self, mut read: impl FnMut(u64) -> T) -> T {
        loop {
            let before = self.0.load(Ordering::Acquire);
            let found = read(before);
            if self.0.load(Ordering::Acquire) == before {
                return found;
            }
        }
    }
}

/// The table whose family holds `table` after so many swaps.
fn place_of(table: Table, swaps: u64) -> Table {
    match (swaps % 2, table) {
        (1, STATE) => ARRIVING,
        (1, ARRIVING) => STATE,
        _ => table,
    }
}

struct Waiting {
    batch: Batch,
    durability: Durability,
    done: Answer,
}

type Answer = oneshot::Sender<Result<(), KvError>>;

impl RocksKv {
    /// The value of `key` in the tables in `dir`, which are only read: for a look before they are opened. `None` also
    /// where there are no tables yet.
    pub fn look(dir: impl AsRef<Path>, table: Table, key: &[u8]) -> Result<Option<Bytes>, OpenError> {
        Ok(open::look(dir.as_ref(), table, key)?.map(Bytes::from))
    }

    /// Opens the tables in `dir`, which is made when missing.
    ///
    /// # Errors
    /// A directory of a newer format or with tables of another program is refused and left as it was.
    #[expect(clippy::disallowed_methods, reason = "the writer has a thread of its own")]
    pub fn open(dir: impl AsRef<Path>, settings: &RocksSettings) -> Result<Arc<Self>, OpenError> {
        let dir = dir.as_ref();
        let db = Arc::new(open::open(dir, settings)?);
        let (queue, waiting) = mpsc::channel(settings.waiting_writes_max.max(1));
        let groups = Arc::new(AtomicU64::new(0));
        let looking = ReadOptions::default();
        let swapped = get(&db, &looking, META, SWAPPED_KEY)
            .map_err(|error| OpenError::Unreadable { dir: dir.into(), source: error })?;
        let swaps = Arc::new(Swaps(AtomicU64::new(u64::from(swapped.is_some_and(|value| value[..] == [1])))));
        let writer = Writer {
            db: Arc::clone(&db),
            groups: Arc::clone(&groups),
            swaps_ahead: swaps.0.load(Ordering::Acquire),
            swaps: Arc::clone(&swaps),
            failed: None,
        };
        let writer = std::thread::Builder::new()
            .name("rocks-writer".into())
            .spawn(move || writer.run(waiting))
            .map_err(|source| OpenError::Directory { dir: dir.into(), source })?;
        Ok(Arc::new(Self { db, looking, swaps, queue: Some(queue), writer: Some(writer), groups }))
    }

    /// How many groups were written, each with at most one sync.
    pub fn groups(&self) -> u64 {
        self.groups.load(Ordering::Relaxed)
    }
}

impl Drop for RocksKv {
    fn drop(&mut self) {
        // The writer ends when the queue is closed and empty; then nothing holds the database but views.
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the thread that writes to RocksDB panicked");
        }
    }
}

/// Writes that become one batch.
#[derive(Default)]
struct Group {
    changes: WriteBatch,
    synced: bool,
    /// Where each begins, for errors, and who waits for it.
    writes: Vec<(Table, Answer)>,
}

impl Group {
    fn has_place_for(&self, durability: Durability) -> bool {
        self.synced || self.writes.is_empty() || durability == Buffered
    }
}

struct Writer {
    db: Arc<DB>,
    groups: Arc<AtomicU64>,
    swaps: Arc<Swaps>,
    /// Those of batches that are being gathered too.
    swaps_ahead: u64,
    failed: Option<String>,
}

impl Writer {
    fn run(mut self, mut waiting: mpsc::Receiver<Waiting>) {
        let mut next = None;
        while let Some(first) = next.take().or_else(|| waiting.blocking_recv()) {
            let group;
            (group, next) = self.gather(first, || waiting.try_recv().ok());
            let written = self.write(group.changes, group.synced);
            for (table, done) in group.writes {
                let answer = written.clone().map_err(|why| KvError { attempted: "writing", table: table.0, why });
                // Whoever no longer waits does not need the answer.
                let _ = done.send(answer);
            }
        }
    }

    /// Gathers what waits into one batch; what waits first of that which is not in it. What need not be synced does not wait
    /// for a sync that comes behind it.
    fn gather(&mut self, first: Waiting, mut take: impl FnMut() -> Option<Waiting>) -> (Group, Option<Waiting>) {
        let mut group = Group::default();
        let mut next = Some(first);
        while let Some(write) = next.take_if(|write| group.has_place_for(write.durability)) {
            self.append(&mut group.changes, &write.batch);
            group.synced |= write.durability == Synced;
            group.writes.push((write.batch.0.first().map_or(STATE, table_of), write.done));
            next = if group.changes.size_in_bytes() < GROUP_BYTES_MAX { take() } else { None };
        }
        (group, next)
    }

    fn append(&mut self, changes: &mut WriteBatch, batch: &Batch) {
        for change in &batch.0 {
            let family = family(&self.db, place_of(table_of(change), self.swaps_ahead))
                .expect("the table was looked up before it was queued");
            match change {
                Change::Put { key, value, .. } => changes.put_cf(family, key, value),
                Change::Delete { key, .. } => changes.delete_cf(family, key),
                // RocksDB takes an empty range for a mistake.
                Change::DeleteRange { from, to, .. } if from >= to => {}
                Change::DeleteRange { from, to, .. } => changes.delete_range_cf(family, from, to),
                Change::SwapState => {
                    self.swaps_ahead += 1;
                    changes.put_cf(family, SWAPPED_KEY, [(self.swaps_ahead % 2) as u8]);
                }
            }
        }
    }

    fn write(&mut self, changes: WriteBatch, synced: bool) -> Result<(), String> {
        if let Some(why) = &self.failed {
            return Err(format!("an earlier write failed, and none may follow it: {why}"));
        }
        let written = if changes.is_empty() {
            // Nothing to write may still mean: make durable what was written before.
            if synced { self.db.flush_wal(true) } else { Ok(()) }
        } else {
            let mut options = WriteOptions::default();
            options.set_sync(synced);
            self.db.write_opt(changes, &options)
        };
        self.groups.fetch_add(1, Ordering::Relaxed);
        if written.is_ok() {
            self.swaps.0.store(self.swaps_ahead, Ordering::Release);
        }
        written.map_err(|err| self.failed.insert(err.to_string()).clone())
    }
}

fn table_of(change: &Change) -> Table {
    match change {
        Change::Put { table, .. } | Change::Delete { table, .. } | Change::DeleteRange { table, .. } => *table,
        // That is where it is noted.
        Change::SwapState => META,
    }
}

fn family(db: &DB, table: Table) -> Option<&rocksdb::ColumnFamily> {
    db.cf_handle(table.0)
}

fn reading(table: Table, why: impl ToString) -> KvError {
    KvError { attempted: "reading", table: table.0, why: why.to_string() }
}

fn get(db: &DB, options: &ReadOptions, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
    let family = family(db, table).ok_or_else(|| reading(table, "no such table"))?;
    let found = db.get_pinned_cf_opt(family, key, options).map_err(|err| reading(table, err))?;
    Ok(found.map(|value| Bytes::copy_from_slice(&value)))
}

/// Reads a range with options made anew, which are told its ends.
fn scan(
    db: &DB,
    mut options: ReadOptions,
    table: Table,
    (from, to): Range<'_>,
    limit: usize,
    backwards: bool,
) -> Result<Vec<Pair>, KvError> {
    let family = family(db, table).ok_or_else(|| reading(table, "no such table"))?;
    // Half-open: the key right behind `key` is `key` with a zero byte.
    let behind = |key: &[u8]| [key, &[0]].concat();
    let from = match from {
        Bound::Included(key) => key.to_vec(),
        Bound::Excluded(key) => behind(key),
        Bound::Unbounded => Vec::new(),
    };
    let to = match to {
        Bound::Included(key) => Some(behind(key)),
        Bound::Excluded(key) => Some(key.to_vec()),
        Bound::Unbounded => None,
    };
    if limit == 0 || to.as_ref().is_some_and(|to| from >= *to) {
        return Ok(Vec::new());
    }
    options.set_iterate_lower_bound(from);
    if let Some(to) = to {
        options.set_iterate_upper_bound(to);
    }
    let mut pairs = Vec::new();
    let mut iterator = db.raw_iterator_cf_opt(family, options);
    if backwards {
        iterator.seek_to_last();
    } else {
        iterator.seek_to_first();
    }
    while let Some((key, value)) = iterator.item() {
        pairs.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        if pairs.len() >= limit {
            break;
        }
        if backwards {
            iterator.prev();
        } else {
            iterator.next();
        }
    }
    iterator.status().map_err(|err| reading(table, err))?;
    Ok(pairs)
}

impl KvRead for RocksKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.swaps.steady(|swaps| get(&self.db, &self.looking, place_of(table, swaps), key))
    }

    fn scan(&self, table: Table, range: Range<'_>, limit: usize, backwards: bool) -> Result<Vec<Pair>, KvError> {
        self.swaps
            .steady(|swaps| scan(&self.db, ReadOptions::default(), place_of(table, swaps), range, limit, backwards))
    }
}

#[async_trait::async_trait]
impl Kv for RocksKv {
    async fn write(&self, batch: Batch, durability: Durability) -> Result<(), KvError> {
        let first = batch.0.first().map_or(STATE, table_of);
        let writing = |table: Table, why: &str| KvError { attempted: "writing", table: table.0, why: why.into() };
        if let Some(unknown) = batch.0.iter().map(table_of).find(|table| family(&self.db, *table).is_none()) {
            return Err(writing(unknown, "no such table"));
        }
        let (done, answer) = oneshot::channel();
        let queue = self.queue.as_ref().expect("the queue is closed by drop alone");
        let stopped = || writing(first, "the thread that writes has stopped");
        // Taken into the queue at once where there is room: who calls first is first, even among futures polled together.
        match queue.try_send(Waiting { batch, durability, done }) {
            Ok(()) => {}
            Err(TrySendError::Full(waiting)) => queue.send(waiting).await.map_err(|_| stopped())?,
            Err(TrySendError::Closed(_)) => return Err(stopped()),
        }
        answer.await.map_err(|_| stopped())?
    }

    fn view(&self) -> Arc<dyn KvRead> {
        Arc::new(self.swaps.steady(|swaps| RocksView::new(Arc::clone(&self.db), swaps)))
    }
}

/// The tables as they were. Keeps the database open, and old data on the disk, as long as it lives.
struct RocksView {
    /// Declared before the database it borrows from, and so dropped before it.
    snapshot: SnapshotWithThreadMode<'static, DB>,
    db: Arc<DB>,
    swaps: u64,
}

impl RocksView {
    fn new(db: Arc<DB>, swaps: u64) -> Self {
        // SAFETY: the reference stays valid as long as the snapshot lives: the database does not move, being behind an
        // Arc of which this view keeps a share, and that share is dropped after the snapshot.
        let held: &'static DB = unsafe { &*Arc::as_ptr(&db) };
        Self { snapshot: held.snapshot(), db, swaps }
    }

    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot);
        options
    }
}

impl KvRead for RocksView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        get(&self.db, &self.options(), place_of(table, self.swaps), key)
    }

    fn scan(&self, table: Table, range: Range<'_>, limit: usize, backwards: bool) -> Result<Vec<Pair>, KvError> {
        scan(&self.db, self.options(), place_of(table, self.swaps), range, limit, backwards)
    }
}
