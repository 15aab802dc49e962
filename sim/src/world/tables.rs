//! A filer's tables: in memory, with the time that a sync takes, and with what a crash does to what was not synced.

use super::{power::Power, wants::Wants, watch::Watch};
use crate::dice::Dice;
use bytes::Bytes;
use mesh::{
    FilerId,
    kv::{Batch, Durability, Kv, KvError, KvRead, MemoryKv, Pair, Range, Table},
};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

/// What a site's disk is like now, for its tables and its files.
#[derive(Default)]
pub struct DiskPace {
    /// Longer than usual by so many milliseconds, for each sync: the most that a fault wants.
    slow_ms: Wants<u64>,
}

impl DiskPace {
    /// A fault makes each sync longer by up to so many milliseconds, or takes that back.
    pub fn set_slow_ms(&self, number: u64, slow_ms: Option<u64>) {
        self.slow_ms.set(number, slow_ms);
    }

    /// No sync is longer than usual.
    pub fn heal(&self) {
        self.slow_ms.clear();
    }

    /// How long this sync takes.
    pub fn sync_ms(&self, dice: &Dice) -> u64 {
        let slow_ms = self.slow_ms.all().into_iter().max().unwrap_or(0);
        dice.below(2) + if slow_ms > 0 { dice.between(slow_ms / 2, slow_ms) } else { 0 }
    }
}

/// The tables during one run of their filer.
pub struct SimKv {
    pub me: FilerId,
    pub tables: MemoryKv,
    pub power: Power,
    pub pace: Arc<DiskPace>,
    pub dice: Dice,
    pub watch: Watch,
}

impl KvRead for SimKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.tables.get(table, key)
    }

    fn scan(&self, table: Table, range: Range<'_>, limit: usize, backwards: bool) -> Result<Vec<Pair>, KvError> {
        self.tables.scan(table, range, limit, backwards)
    }
}

#[async_trait::async_trait]
impl Kv for SimKv {
    async fn write(&self, batch: Batch, durability: Durability) -> Result<(), KvError> {
        self.power.needed().await;
        let number = self.tables.write_unsynced(batch);
        self.watch.tables_changed(self.me, &self.tables);
        if durability == Durability::Synced {
            sleep(Duration::from_millis(self.pace.sync_ms(&self.dice))).await;
            self.power.needed().await;
            self.tables.sync(number);
        }
        self.power.needed().await;
        Ok(())
    }

    fn view(&self) -> Arc<dyn KvRead> {
        self.tables.view()
    }
}
