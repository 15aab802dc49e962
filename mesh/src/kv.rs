//! Ordered tables of bytes: RocksDB in production, [`MemoryKv`] in tests and in the simulator.
//!
//! Writes are atomic by batch and ordered: after a crash a prefix of the batches written is there, and every batch
//! up to the last one that was asked to be durable.
//!
//! [`Txn`] is how replicated operations read and write: an overlay over a table that becomes one batch.

mod memory;

pub use memory::MemoryKv;

use bytes::Bytes;
use std::{collections::BTreeMap, ops::Bound, sync::Arc};

/// A named table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(pub &'static str);

/// The consensus log: entries by index.
pub const LOG: Table = Table("log");
/// Small records of a filer: vote, membership, boot count, who the directory belongs to.
pub const META: Table = Table("meta");
/// The replicated state.
pub const STATE: Table = Table("state");

/// A replicated state that arrives from a peer, until it takes the place of [`STATE`].
pub const ARRIVING: Table = Table("arriving");

/// A table failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{attempted} table {table}: {why}")]
pub struct KvError {
    /// Such as `reading` or `writing`.
    pub attempted: &'static str,
    pub table: &'static str,
    pub why: String,
}

/// A key and its value.
pub type Pair = (Bytes, Bytes);

/// A range of keys.
pub type Range<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// One change of a batch, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Put {
        table: Table,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    Delete {
        table: Table,
        key: Vec<u8>,
    },
    /// Deletes every key in `from..to`.
    DeleteRange {
        table: Table,
        from: Vec<u8>,
        to: Vec<u8>,
    },
    /// What [`ARRIVING`] has is [`STATE`] from here on, and the other way round. Takes no time, however much they have.
    SwapState,
}

/// Changes that happen together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch(pub Vec<Change>);

impl Batch {
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.0.push(Change::Put { table, key: key.into(), value: value.into() });
    }

    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.0.push(Change::Delete { table, key: key.into() });
    }

    pub fn delete_range(&mut self, table: Table, from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) {
        self.0.push(Change::DeleteRange { table, from: from.into(), to: to.into() });
    }

    pub fn swap_state(&mut self) {
        self.0.push(Change::SwapState);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// When a write is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When it is visible; a crash may lose it, and then everything written after it too.
    Buffered,
    /// When it, and all before it, survive a power loss.
    Synced,
}

/// What can be read: the tables now, or a view of them that stands still.
pub trait KvRead: Send + Sync {
    /// The value of `key`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError>;

    /// Up to `limit` pairs of `range` in key order, or from its end backwards.
    fn scan(&self, table: Table, range: Range<'_>, limit: usize, backwards: bool) -> Result<Vec<Pair>, KvError>;
}

/// The tables of one filer.
#[async_trait::async_trait]
pub trait Kv: KvRead + 'static {
    /// Writes a batch. Batches written one after another keep their order, whatever their durability. One whose caller goes
    /// away may be written all the same; who waits for a later one, which may be empty, sees it then or never.
    async fn write(&self, batch: Batch, durability: Durability) -> Result<(), KvError>;

    /// A view that later writes do not change. Cheap while it is short: it keeps old rows for as long as it lives.
    fn view(&self) -> Arc<dyn KvRead>;
}

/// The range of all keys that begin with `prefix`: from it to the first key behind them.
pub fn prefix_range(prefix: &[u8]) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return (Bound::Included(prefix.to_vec()), Bound::Excluded(end));
        }
    }
    (Bound::Included(prefix.to_vec()), Bound::Unbounded)
}

/// Borrows an owned range.
pub fn borrow_range(range: &(Bound<Vec<u8>>, Bound<Vec<u8>>)) -> Range<'_> {
    (range.0.as_ref().map(Vec::as_slice), range.1.as_ref().map(Vec::as_slice))
}

/// Most rows that one step of [`Txn::scan`] reads from the table below.
const SCAN_PAGE_ROWS_MAX: usize = 1024;

/// A change to one table that is not yet written: reads see it over the table below.
pub struct Txn<'a> {
    below: &'a dyn KvRead,
    table: Table,
    over: BTreeMap<Vec<u8>, Option<Bytes>>,
}

impl<'a> Txn<'a> {
    /// An empty change over `table` as `below` shows it.
    pub fn new(below: &'a dyn KvRead, table: Table) -> Self {
        Self { below, table, over: BTreeMap::new() }
    }

    /// The value of `key` as this change leaves it.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        match self.over.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.below.get(self.table, key),
        }
    }

    /// Puts `value` at `key`.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Bytes>) {
        self.over.insert(key.into(), Some(value.into()));
    }

    /// Removes `key`.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.over.insert(key.into(), None);
    }

    /// Up to `limit` pairs of `range` in key order (or backwards), as this change leaves them. Reads about as many
    /// rows as it gives and skips, however large the change is.
    pub fn scan(&self, range: Range<'_>, limit: usize, backwards: bool) -> Result<Vec<Pair>, KvError> {
        let mut found = Vec::new();
        if is_empty_range(range) || limit == 0 {
            return Ok(found);
        }
        let changed = self.over.range::<[u8], _>(range);
        let changed: Box<dyn Iterator<Item = (&Vec<u8>, &Option<Bytes>)>> =
            if backwards { Box::new(changed.rev()) } else { Box::new(changed) };
        let mut changed = changed.peekable();
        let mut last: Option<Bytes> = None;
        let mut page_rows = limit.min(SCAN_PAGE_ROWS_MAX);
        loop {
            let rest = match (&last, backwards) {
                (None, _) => range,
                (Some(last), false) => (Bound::Excluded(&last[..]), range.1),
                (Some(last), true) => (range.0, Bound::Excluded(&last[..])),
            };
            let page = if is_empty_range(rest) {
                Vec::new()
            } else {
                self.below.scan(self.table, rest, page_rows, backwards)?
            };
            let complete = page.len() < page_rows;
            last = page.last().map(|(key, _)| key.clone());
            for (key, value) in page {
                let comes_before = |over: &[u8]| if backwards { *over > key[..] } else { *over < key[..] };
                while let Some((over, value)) = changed.next_if(|(over, _)| comes_before(over)) {
                    found.extend(value.clone().map(|value| (Bytes::copy_from_slice(over), value)));
                    if found.len() == limit {
                        return Ok(found);
                    }
                }
                match changed.next_if(|(over, _)| over[..] == key[..]) {
                    Some((_, value)) => found.extend(value.clone().map(|value| (key, value))),
                    None => found.push((key, value)),
                }
                if found.len() == limit {
                    return Ok(found);
                }
            }
            if complete {
                let added = changed.filter_map(|(key, value)| Some((Bytes::copy_from_slice(key), value.clone()?)));
                found.extend(added.take(limit - found.len()));
                return Ok(found);
            }
            // Everything of a page may have been removed by this change: take longer steps.
            page_rows = (page_rows * 2).min(SCAN_PAGE_ROWS_MAX);
        }
    }

    /// Whether this change puts or removes `key`.
    pub fn changes(&self, key: &[u8]) -> bool {
        self.over.contains_key(key)
    }

    /// How many rows this change puts or removes.
    pub fn rows(&self) -> usize {
        self.over.len()
    }

    /// Takes back everything, as if it had never been changed.
    pub fn clear(&mut self) {
        self.over.clear();
    }

    /// Keeps a copy of the change so far, to return to with [`Txn::restore`].
    pub fn save(&self) -> BTreeMap<Vec<u8>, Option<Bytes>> {
        self.over.clone()
    }

    /// Goes back to a saved change.
    pub fn restore(&mut self, saved: BTreeMap<Vec<u8>, Option<Bytes>>) {
        self.over = saved;
    }

    /// The change as a batch.
    pub fn into_batch(self) -> Batch {
        let table = self.table;
        let change = |(key, value): (Vec<u8>, Option<Bytes>)| match value {
            Some(value) => Change::Put { table, key, value: value.to_vec() },
            None => Change::Delete { table, key },
        };
        Batch(self.over.into_iter().map(change).collect())
    }
}

fn is_empty_range((from, to): Range<'_>) -> bool {
    match (from, to) {
        (Bound::Included(a), Bound::Included(b)) => a > b,
        (Bound::Included(a), Bound::Excluded(b))
        | (Bound::Excluded(a), Bound::Included(b))
        | (Bound::Excluded(a), Bound::Excluded(b)) => a >= b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bound(kind: u8, key: &[u8]) -> Bound<&[u8]> {
        match kind {
            0 => Bound::Included(key),
            1 => Bound::Excluded(key),
            _ => Bound::Unbounded,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_change_scans_like_the_table_that_it_becomes(
            below in prop::collection::btree_map(0..40u8, any::<u8>(), 0..40),
            changes in prop::collection::vec((0..40u8, any::<Option<u8>>()), 0..40),
            (from, from_kind, to, to_kind) in (0..40u8, 0..3u8, 0..40u8, 0..3u8),
            limit in 0..12usize,
            backwards in any::<bool>(),
        ) {
            let kv = MemoryKv::default();
            let mut batch = Batch::default();
            below.iter().for_each(|(key, value)| batch.put(STATE, [*key], [*value]));
            futures::executor::block_on(kv.write(batch, Durability::Buffered)).expect("memory does not fail");
            let mut txn = Txn::new(&kv, STATE);
            for (key, value) in changes {
                match value {
                    Some(value) => txn.put([key], vec![value]),
                    None => txn.delete([key]),
                }
            }
            let (from, to) = ([from], [to]);
            let range = (bound(from_kind, &from), bound(to_kind, &to));
            let scanned = txn.scan(range, limit, backwards).expect("memory does not fail");
            let batch = txn.into_batch();
            futures::executor::block_on(kv.write(batch, Durability::Buffered)).expect("memory does not fail");
            prop_assert_eq!(scanned, kv.scan(STATE, range, limit, backwards).expect("memory does not fail"));
        }
    }
}
