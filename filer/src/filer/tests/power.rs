//! What a filer touches, for as long as it has power: behind a crash nothing happens any more, whatever task is left.

use bytes::Bytes;
use mesh::{
    FilerId,
    kv::{Batch, Durability, Kv, KvError, KvRead, Pair, Range, Table},
    peers::{CallError, Channel, Member, Message, PeerStatus, Peers},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use storage::{
    cloud::{Cloud, CloudError, Listed, Page, Receipt},
    disk::{Disk, DiskError, DiskFile},
    ids::Md5,
};
use tokio::time::sleep;

/// The power of one run of one filer. A clone is the same.
#[derive(Clone, Default)]
pub struct Power(Arc<AtomicBool>);

impl Power {
    /// Ends the run.
    pub fn cut(&self) {
        self.0.store(true, Relaxed);
    }

    fn is_cut(&self) -> bool {
        self.0.load(Relaxed)
    }

    async fn needed(&self) {
        if self.is_cut() {
            std::future::pending().await
        }
    }
}

/// An effect that needs power.
pub struct Powered<T> {
    pub power: Power,
    pub effect: T,
}

impl<T: KvRead> KvRead for Powered<T> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.effect.get(table, key)
    }

    fn scan(&self, table: Table, range: Range<'_>, limit: usize, backwards: bool) -> Result<Vec<Pair>, KvError> {
        self.effect.scan(table, range, limit, backwards)
    }
}

#[async_trait::async_trait]
impl<T: Kv> Kv for Powered<T> {
    async fn write(&self, batch: Batch, durability: Durability) -> Result<(), KvError> {
        self.power.needed().await;
        self.effect.write(batch, durability).await
    }

    fn view(&self) -> Arc<dyn KvRead> {
        self.effect.view()
    }
}

#[async_trait::async_trait]
impl<T: Disk> Disk for Powered<T> {
    async fn write(&self, file: &str, offset: u64, parts: Vec<Bytes>) -> Result<(), DiskError> {
        self.power.needed().await;
        self.effect.write(file, offset, parts).await
    }

    async fn sync(&self, file: &str) -> Result<(), DiskError> {
        // Others run while a disk works.
        tokio::task::yield_now().await;
        self.power.needed().await;
        self.effect.sync(file).await
    }

    async fn read(&self, file: &str, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        self.power.needed().await;
        let read = self.effect.read(file, offset, len).await;
        if matches!(read, Err(DiskError::Unreadable { .. })) {
            // A bad sector is tried again and again: longer than the mirror waits between two tries.
            sleep(Duration::from_secs(2)).await;
        }
        read
    }

    async fn truncate(&self, file: &str, bytes: u64) -> Result<(), DiskError> {
        self.power.needed().await;
        self.effect.truncate(file, bytes).await
    }

    async fn rename(&self, file: &str, to: &str) -> Result<(), DiskError> {
        self.power.needed().await;
        self.effect.rename(file, to).await
    }

    async fn remove(&self, file: &str) -> Result<(), DiskError> {
        self.power.needed().await;
        self.effect.remove(file).await
    }

    async fn list(&self) -> Result<Vec<DiskFile>, DiskError> {
        self.effect.list().await
    }
}

#[async_trait::async_trait]
impl<T: Cloud> Cloud for Powered<T> {
    async fn put(&self, key: &str, body: Bytes, md5: Md5) -> Result<Receipt, CloudError> {
        self.power.needed().await;
        self.effect.put(key, body, md5).await
    }

    async fn get(&self, key: &str, range: std::ops::Range<u64>) -> Result<Bytes, CloudError> {
        self.power.needed().await;
        self.effect.get(key, range).await
    }

    async fn head(&self, key: &str) -> Result<Listed, CloudError> {
        self.power.needed().await;
        self.effect.head(key).await
    }

    async fn delete(&self, key: &str) -> Result<(), CloudError> {
        self.power.needed().await;
        self.effect.delete(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, CloudError> {
        self.power.needed().await;
        self.effect.list(prefix, after).await
    }
}

#[async_trait::async_trait]
impl<T: Peers> Peers for Powered<T> {
    async fn call(
        &self,
        to: FilerId,
        channel: Channel,
        call: Message,
        deadline: Duration,
    ) -> Result<Message, CallError> {
        self.power.needed().await;
        self.effect.call(to, channel, call, deadline).await
    }

    fn set_members(&self, members: BTreeMap<FilerId, Member>) {
        self.effect.set_members(members);
    }

    fn status(&self) -> Vec<PeerStatus> {
        self.effect.status()
    }
}
