//! A filer's files: in memory, with the time that they take and the power they need.

use super::{power::Power, tables::DiskPace};
use crate::{dice::Dice, trace::Trace};
use bytes::Bytes;
use mesh::FilerId;
use std::{sync::Arc, time::Duration};
use storage::disk::{Disk, DiskError, DiskFile, MemoryDisk};
use tokio::time::sleep;

/// How long a disk tries to read a bad sector before it says so, in milliseconds.
const UNREADABLE_MS_MAX: u64 = 2_000;

/// The files during one run of their filer.
pub struct SimDisk {
    pub me: FilerId,
    pub files: MemoryDisk,
    pub power: Power,
    pub pace: Arc<DiskPace>,
    pub dice: Dice,
    pub trace: Trace,
}

#[async_trait::async_trait]
impl Disk for SimDisk {
    async fn write(&self, file: &str, offset: u64, parts: Vec<Bytes>) -> Result<(), DiskError> {
        self.power.needed().await;
        let result = self.files.write(file, offset, parts).await;
        self.power.needed().await;
        result
    }

    async fn sync(&self, file: &str) -> Result<(), DiskError> {
        self.power.needed().await;
        sleep(Duration::from_millis(self.pace.sync_ms(&self.dice))).await;
        self.power.needed_by_sync().await;
        let result = self.files.sync(file).await;
        self.trace.note(self.me, format_args!("synced {file}"));
        self.power.needed().await;
        result
    }

    async fn read(&self, file: &str, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        self.power.needed().await;
        let read = self.files.read(file, offset, len).await;
        if matches!(read, Err(DiskError::Unreadable { .. })) {
            sleep(Duration::from_millis(self.dice.between(UNREADABLE_MS_MAX / 10, UNREADABLE_MS_MAX))).await;
            self.power.needed().await;
        }
        read
    }

    async fn truncate(&self, file: &str, bytes: u64) -> Result<(), DiskError> {
        self.power.needed().await;
        let result = self.files.truncate(file, bytes).await;
        self.power.needed().await;
        result
    }

    async fn rename(&self, file: &str, to: &str) -> Result<(), DiskError> {
        self.power.needed().await;
        let result = self.files.rename(file, to).await;
        self.power.needed().await;
        result
    }

    async fn remove(&self, file: &str) -> Result<(), DiskError> {
        self.power.needed().await;
        let result = self.files.remove(file).await;
        self.power.needed().await;
        result
    }

    async fn list(&self) -> Result<Vec<DiskFile>, DiskError> {
        self.power.needed().await;
        self.files.list().await
    }
}
