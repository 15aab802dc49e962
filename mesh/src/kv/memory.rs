//! Tables in memory that can crash, for tests and the simulator.
//!
//! What was written since the last synced write can be taken back, newest batch first: a crash leaves a prefix of the
//! batches, as it does with real tables.

use super::{ARRIVING, Batch, Change, Durability, Kv, KvError, KvRead, Pair, Range, STATE, Table, is_empty_range};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
};

/// A view shares the rows; the next write to a table that is still viewed copies it.
type Tables = BTreeMap<Table, Arc<BTreeMap<Bytes, Bytes>>>;

/// Tables in memory. A clone is another handle to the same tables.
#[derive(Clone, Default)]
pub struct MemoryKv {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    tables: Tables,
    /// Batches written so far.
    written: u64,
    /// What takes back each batch that is not durable yet, oldest first, with its number.
    undo: VecDeque<(u64, Vec<Undo>)>,
}

/// Takes back one change.
enum Undo {
    /// Gives a row what it held before: `None` when it was not there.
    Restore { table: Table, key: Bytes, old: Option<Bytes> },
    /// Swaps the state and the arriving one again.
    SwapState,
}

struct MemoryView(Tables);

impl State {
    fn rows(&mut self, table: Table) -> &mut BTreeMap<Bytes, Bytes> {
        Arc::make_mut(self.tables.entry(table).or_default())
    }

    /// Makes a change; gives what takes it back.
    fn change(&mut self, change: Change, undo: &mut Vec<Undo>) {
        match change {
            Change::Put { table, key, value } => {
                let key = Bytes::from(key);
                let old = self.rows(table).insert(key.clone(), value.into());
                undo.push(Undo::Restore { table, key, old });
            }
            Change::Delete { table, key } => {
                if let Some((key, old)) = self.rows(table).remove_entry(&key[..]) {
                    undo.push(Undo::Restore { table, key, old: Some(old) });
                }
            }
            Change::SwapState => {
                self.swap_state();
                undo.push(Undo::SwapState);
            }
            Change::DeleteRange { table, from, to } => {
                if from >= to {
                    return;
                }
                let rows = self.rows(table);
                let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
                let keys: Vec<Bytes> = rows.range::<[u8], _>(range).map(|(key, _)| key.clone()).collect();
                for key in keys {
                    let old = rows.remove(&key);
                    undo.push(Undo::Restore { table, key, old });
                }
            }
        }
    }

    fn swap_state(&mut self) {
        let (state, arrived) = (self.tables.remove(&STATE), self.tables.remove(&ARRIVING));
        self.tables.extend(state.map(|rows| (ARRIVING, rows)));
        self.tables.extend(arrived.map(|rows| (STATE, rows)));
    }

    fn take_back(&mut self, undo: Undo) {
        match undo {
            Undo::Restore { table, key, old: Some(value) } => {
                self.rows(table).insert(key, value);
            }
            Undo::Restore { table, key, old: None } => {
                self.rows(table).remove(&key);
            }
            Undo::SwapState => self.swap_state(),
        }
    }

    fn write(&mut self, batch: Batch) {
        let mut undo = Vec::new();
        batch.0.into_iter().for_each(|change| self.change(change, &mut undo));
        undo.reverse();
        self.written += 1;
        self.undo.push_back((self.written, undo));
    }

    fn sync(&mut self, up_to: u64) {
        while self.undo.front().is_some_and(|(number, _)| *number <= up_to) {
            self.undo.pop_front();
        }
    }
}

impl MemoryKv {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no table access panics")
    }

    /// Writes a batch that a crash may take back; gives its number.
    pub fn write_unsynced(&self, batch: Batch) -> u64 {
        let mut state = self.lock();
        state.write(batch);
        state.written
    }

    /// Makes every batch up to this number durable.
    pub fn sync(&self, up_to: u64) {
        self.lock().sync(up_to);
    }

    /// Loses power. Of the batches that are not durable, `keep` says how many last: the oldest ones.
    pub fn crash(&self, keep: impl FnOnce(usize) -> usize) {
        let mut state = self.lock();
        let kept = keep(state.undo.len()).min(state.undo.len());
        let lost = state.undo.split_off(kept);
        for (_, undo) in lost.into_iter().rev() {
            undo.into_iter().for_each(|undo| state.take_back(undo));
        }
        // What lasted is on the disk.
        state.undo.clear();
    }
}

fn scan_tables(tables: &Tables, table: Table, range: Range<'_>, limit: usize, backwards: bool) -> Vec<Pair> {
    let Some(table) = tables.get(&table).filter(|_| !is_empty_range(range)) else {
        return Vec::new();
    };
    let pairs = table.range::<[u8], _>(range).map(|(k, v)| (k.clone(), v.clone()));
    if backwards { pairs.rev().take(limit).collect() } else { pairs.take(limit).collect() }
}

impl KvRead for MemoryView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.0.get(&table).and_then(|t| t.get(key)).cloned())
    }

    fn scan(&self, table: Table, range: Range<'_>, limit: usize, backwards: bool) -> Result<Vec<Pair>, KvError> {
        Ok(scan_tables(&self.0, table, range, limit, backwards))
    }
}

impl KvRead for MemoryKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.lock().tables.get(&table).and_then(|t| t.get(key)).cloned())
    }

    fn scan(&self, table: Table, range: Range<'_>, limit: usize, backwards: bool) -> Result<Vec<Pair>, KvError> {
        Ok(scan_tables(&self.lock().tables, table, range, limit, backwards))
    }
}

#[async_trait::async_trait]
impl Kv for MemoryKv {
    async fn write(&self, batch: Batch, durability: Durability) -> Result<(), KvError> {
        let mut state = self.lock();
        state.write(batch);
        if durability == Durability::Synced {
            let written = state.written;
            state.sync(written);
        }
        Ok(())
    }

    fn view(&self) -> Arc<dyn KvRead> {
        Arc::new(MemoryView(self.lock().tables.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: u8, value: u8) -> Batch {
        let mut batch = Batch::default();
        batch.put(STATE, [key], [value]);
        batch
    }

    fn value(kv: &MemoryKv, key: u8) -> Option<u8> {
        kv.get(STATE, &[key]).expect("memory does not fail").map(|value| value[0])
    }

    #[tokio::test]
    async fn a_crash_leaves_a_prefix_and_all_that_was_synced() {
        let kv = MemoryKv::default();
        kv.write(put(1, 1), Durability::Buffered).await.expect("memory does not fail");
        kv.write(put(2, 1), Durability::Synced).await.expect("memory does not fail");
        kv.write(put(1, 2), Durability::Buffered).await.expect("memory does not fail");
        let mut range = put(2, 2);
        range.delete_range(STATE, [0], [9]);
        range.put(STATE, [3], [3]);
        kv.write(range, Durability::Buffered).await.expect("memory does not fail");
        assert_eq!((value(&kv, 1), value(&kv, 2), value(&kv, 3)), (None, None, Some(3)));
        kv.crash(|unsynced| {
            assert_eq!(unsynced, 2);
            1
        });
        assert_eq!((value(&kv, 1), value(&kv, 2), value(&kv, 3)), (Some(2), Some(1), None));
        kv.crash(|unsynced| unsynced);
        assert_eq!(value(&kv, 1), Some(2), "what lasted once is durable");
    }

    #[tokio::test]
    async fn a_swap_is_undone_with_its_batch() {
        let kv = MemoryKv::default();
        kv.write(put(1, 1), Durability::Synced).await.expect("memory does not fail");
        let view = kv.view();
        let mut batch = Batch::default();
        batch.put(ARRIVING, [2], [2]);
        batch.swap_state();
        batch.put(STATE, [3], [3]);
        kv.write(batch, Durability::Buffered).await.expect("memory does not fail");
        assert_eq!((value(&kv, 1), value(&kv, 2), value(&kv, 3)), (None, Some(2), Some(3)));
        assert_eq!(kv.get(ARRIVING, &[1]).expect("memory does not fail").map(|value| value[0]), Some(1));
        assert!(view.get(STATE, &[1]).expect("memory does not fail").is_some());
        kv.crash(|_| 0);
        assert_eq!((value(&kv, 1), value(&kv, 2), value(&kv, 3)), (Some(1), None, None));
    }

    #[test]
    fn a_sync_covers_what_was_written_before_it() {
        let kv = MemoryKv::default();
        let first = kv.write_unsynced(put(1, 1));
        kv.write_unsynced(put(1, 2));
        kv.sync(first);
        kv.crash(|_| 0);
        assert_eq!(value(&kv, 1), Some(1));
    }
}
