//! What a client sees while another site's operation is applied between two looks at the tables.

use super::{files::noise, world::World};
use crate::fs::Stable;
use bytes::Bytes;
use mesh::kv::{Batch, Durability, Kv, KvError, KvRead, MemoryKv, Pair, Range, STATE, Table};
use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex},
};
use storage::cloudfs::Handle;

/// A batch that is written right before a chosen look at the state. A clone is the same.
#[derive(Clone, Default)]
pub struct Between(Arc<Mutex<Option<(usize, Batch)>>>);

impl Between {
    /// Before the look of this number from now on, counted from 1.
    fn plan(&self, look: usize, batch: Batch) {
        *self.0.lock().expect("no test panics inside") = Some((look, batch));
    }

    fn look(&self, tables: &MemoryKv) {
        let mut planned = self.0.lock().expect("no test panics inside");
        if let Some((left, _)) = planned.as_mut() {
            *left -= 1;
        }
        if let Some((_, batch)) = planned.take_if(|(left, _)| *left == 0) {
            tables.write_unsynced(batch);
        }
    }
}

/// Tables that change between two looks at them.
pub struct Changing {
    pub tables: MemoryKv,
    pub between: Between,
}

impl KvRead for Changing {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        if table == STATE {
            self.between.look(&self.tables);
        }
        self.tables.get(table, key)
    }

    fn scan(&self, table: Table, range: Range<'_>, limit: usize, backwards: bool) -> Result<Vec<Pair>, KvError> {
        if table == STATE {
            self.between.look(&self.tables);
        }
        self.tables.scan(table, range, limit, backwards)
    }
}

#[async_trait::async_trait]
impl Kv for Changing {
    async fn write(&self, batch: Batch, durability: Durability) -> Result<(), KvError> {
        self.tables.write(batch, durability).await
    }

    fn view(&self) -> Arc<dyn KvRead> {
        self.between.look(&self.tables);
        self.tables.view()
    }
}

type Rows = BTreeMap<Bytes, Bytes>;

fn rows(tables: &MemoryKv) -> Rows {
    let all = (Bound::Unbounded, Bound::Unbounded);
    tables.scan(STATE, all, usize::MAX, false).expect("memory does not fail").into_iter().collect()
}

/// What makes `to` of `from`.
fn change(from: &Rows, to: &Rows) -> Batch {
    let mut batch = Batch::default();
    from.keys().filter(|key| !to.contains_key(*key)).for_each(|key| batch.delete(STATE, key.to_vec()));
    let changed = to.iter().filter(|(key, value)| from.get(*key) != Some(*value));
    changed.for_each(|(key, value)| batch.put(STATE, key.to_vec(), value.to_vec()));
    batch
}

/// Reads the second hundred bytes of a file of two extents, each time with `operation` applied before another look:
/// what is read is what was there before it, or `after`.
fn applied_between_looks(after: &Bytes, operation: impl AsyncFn(&World, Handle)) {
    World::run(1, async |world| {
        let site = world.site(0);
        let file = site.client().create("a").await;
        for part in 0..2 {
            let written = site.client().write_as(file, part * 100, noise(part, 100), Stable::FileSync).await;
            written.expect("a write");
        }
        let old = rows(&site.kv);
        operation(&*world, file).await;
        let new = rows(&site.kv);
        for look in 1..12 {
            site.kv.write_unsynced(change(&rows(&site.kv), &old));
            site.between.plan(look, change(&old, &new));
            let read = site.client().read(file, 100, 100).await.expect("the data is here");
            assert!(read == noise(1, 100) || read == *after, "before look {look}: {read:?}");
        }
        site.between.plan(1, change(&old, &new));
        site.client().read(file, 100, 100).await.expect("the data is here");
    });
}

#[test]
fn what_is_applied_between_two_looks_makes_no_hole() {
    applied_between_looks(&noise(2, 150).slice(50..), async |world, file| {
        // The row of this one extent lies before what is read, and the rows that were there are gone.
        let written = world.site(0).client().write_as(file, 50, noise(2, 150), Stable::FileSync).await;
        written.expect("a write");
    });
}

#[test]
fn what_is_cut_off_between_two_looks_is_not_read_as_zeros() {
    applied_between_looks(&Bytes::new(), async |world, file| {
        world.site(0).client().truncate(file, 0).await.expect("an open with O_TRUNC");
    });
}
