//! A disk for tests that fails on purpose: power cuts in the middle, torn tails, syncs that fail.

use crate::disk::{Disk, DiskError, DiskFile, MemoryDisk};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

/// A [`MemoryDisk`] with faults. A clone is another handle.
#[derive(Clone, Default)]
pub struct FaultyDisk {
    pub inner: MemoryDisk,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Default)]
struct Faults {
    /// Operations until the power goes.
    operations_left: Option<u64>,
    syncs_to_pass: u32,
    syncs_to_fail: u32,
    broken: BTreeSet<String>,
    /// Length of each file at its last good sync.
    synced_bytes: BTreeMap<String, u64>,
}

fn no_power(file: &str) -> DiskError {
    DiskError::Failed { attempted: "using", file: file.into(), why: "the power is off".into() }
}

impl FaultyDisk {
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().expect("no test holds it")
    }

    /// Nothing happens any more after so many operations.
    pub fn cut_power_after(&self, operations: u64) {
        self.faults().operations_left = Some(operations);
    }

    /// Fails so many syncs from now on, and then every one of the same file until it is replaced.
    pub fn fail_syncs(&self, count: u32) {
        self.fail_syncs_after(0, count);
    }

    /// The same, behind so many that succeed.
    pub fn fail_syncs_after(&self, passed: u32, count: u32) {
        let mut faults = self.faults();
        (faults.syncs_to_pass, faults.syncs_to_fail) = (passed, count);
    }

    /// Loses power: of each file's unsynced bytes, `kept` of 256 parts survive, with a flipped bit where `flip` says.
    pub async fn crash(&self, kept: u8, flip: bool) {
        let synced = std::mem::take(&mut self.faults().synced_bytes);
        *self.faults() = Faults::default();
        let files = self.inner.list().await.expect("memory does not fail");
        let mut torn = Vec::new();
        for file in &files {
            if let Some(synced) = synced.get(&file.name).filter(|synced| **synced < file.bytes) {
                let tail_bytes = (file.bytes - synced) * u64::from(kept) / 256;
                let tail = self.inner.read(&file.name, *synced, tail_bytes as usize).await.expect("it is there");
                let mut tail = tail.to_vec();
                if let Some(byte) = tail.last_mut().filter(|_| flip) {
                    *byte ^= 0x10;
                }
                torn.push((file.name.clone(), *synced, tail));
            }
        }
        self.inner.crash();
        for (file, at, tail) in torn {
            // A name that came with a replacement may not have lasted.
            let there = self.inner.read(&file, 0, 1).await.is_ok();
            // Files whose removal did not last may have taken the room.
            if there && self.inner.write(&file, at, vec![tail.into()]).await.is_ok() {
                self.inner.sync(&file).await.expect("memory does not fail");
            }
        }
        for file in self.inner.list().await.expect("memory does not fail") {
            self.faults().synced_bytes.insert(file.name, file.bytes);
        }
    }

    fn step(&self, file: &str) -> Result<(), DiskError> {
        match &mut self.faults().operations_left {
            Some(0) => Err(no_power(file)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl Disk for FaultyDisk {
    async fn write(&self, file: &str, offset: u64, parts: Vec<Bytes>) -> Result<(), DiskError> {
        self.step(file)?;
        // Others run while a disk works.
        tokio::task::yield_now().await;
        self.inner.write(file, offset, parts).await
    }

    async fn sync(&self, file: &str) -> Result<(), DiskError> {
        self.step(file)?;
        tokio::task::yield_now().await;
        {
            let mut faults = self.faults();
            if faults.syncs_to_pass > 0 {
                faults.syncs_to_pass -= 1;
            } else if faults.syncs_to_fail > 0 {
                faults.syncs_to_fail -= 1;
                faults.broken.insert(file.into());
            }
            if faults.broken.contains(file) {
                return Err(DiskError::Failed { attempted: "syncing", file: file.into(), why: "a bad block".into() });
            }
        }
        self.inner.sync(file).await?;
        let bytes = self.inner.read(file, 0, usize::MAX).await?.len() as u64;
        self.faults().synced_bytes.insert(file.into(), bytes);
        Ok(())
    }

    async fn read(&self, file: &str, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        self.step(file)?;
        self.inner.read(file, offset, len).await
    }

    async fn truncate(&self, file: &str, bytes: u64) -> Result<(), DiskError> {
        self.step(file)?;
        self.inner.truncate(file, bytes).await
    }

    async fn rename(&self, file: &str, to: &str) -> Result<(), DiskError> {
        self.step(file)?;
        self.inner.rename(file, to).await?;
        let mut faults = self.faults();
        faults.broken.remove(to);
        if faults.broken.remove(file) {
            faults.broken.insert(to.into());
        }
        let synced = faults.synced_bytes.remove(file).unwrap_or(0);
        faults.synced_bytes.insert(to.into(), synced);
        Ok(())
    }

    async fn remove(&self, file: &str) -> Result<(), DiskError> {
        self.step(file)?;
        self.inner.remove(file).await?;
        let mut faults = self.faults();
        faults.broken.remove(file);
        faults.synced_bytes.remove(file);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<DiskFile>, DiskError> {
        self.step("")?;
        self.inner.list().await
    }
}
