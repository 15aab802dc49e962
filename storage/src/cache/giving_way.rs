//! A disk on which the cache gives way to whoever writes.

use super::DiskCache;
use crate::disk::{Check, Disk, DiskError, DiskFile};
use bytes::Bytes;
use std::sync::{Arc, OnceLock};

/// The disk that staging and cache share, as staging sees it: a write that finds it full evicts from the cache and is tried
/// again. It fails only when nothing evictable is left.
pub struct GivingWay {
    disk: Arc<dyn Disk>,
    cache: OnceLock<Arc<DiskCache>>,
}

impl GivingWay {
    /// The disk, for as long as there is no cache on it.
    pub fn new(disk: Arc<dyn Disk>) -> Arc<Self> {
        Arc::new(Self { disk, cache: OnceLock::new() })
    }

    /// From here on this cache gives way. It writes to the disk itself, not through this.
    pub fn set_cache(&self, cache: Arc<DiskCache>) {
        self.cache.get_or_init(|| cache);
    }
}

#[async_trait::async_trait]
impl Disk for GivingWay {
    async fn write(&self, file: &str, offset: u64, parts: Vec<Bytes>) -> Result<(), DiskError> {
        let bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
        loop {
            let full = match self.disk.write(file, offset, parts.clone()).await {
                Err(full @ DiskError::Full { .. }) => full,
                written => return written,
            };
            let freed = match self.cache.get() {
                Some(cache) => cache.give_way(bytes).await,
                None => 0,
            };
            if freed == 0 {
                return Err(full);
            }
            tracing::debug!(file, bytes, freed, "the disk is full, and the cache has given way");
        }
    }

    async fn sync(&self, file: &str) -> Result<(), DiskError> {
        self.disk.sync(file).await
    }

    async fn read(&self, file: &str, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        self.disk.read(file, offset, len).await
    }

    async fn read_checked(&self, file: &str, offset: u64, len: usize, check: Check) -> Result<Bytes, DiskError> {
        self.disk.read_checked(file, offset, len, check).await
    }

    async fn truncate(&self, file: &str, bytes: u64) -> Result<(), DiskError> {
        self.disk.truncate(file, bytes).await
    }

    async fn rename(&self, file: &str, to: &str) -> Result<(), DiskError> {
        self.disk.rename(file, to).await
    }

    async fn remove(&self, file: &str) -> Result<(), DiskError> {
        self.disk.remove(file).await
    }

    async fn list(&self) -> Result<Vec<DiskFile>, DiskError> {
        self.disk.list().await
    }
}
