//! A [`Disk`] in memory that can crash, for tests and the simulator.
//!
//! Until a file is synced, a crash takes back every write to it and the change of its name. Removals, and renames of
//! files that were synced before, last from the next sync of any file on, as those of real directories do.

use super::{Disk, DiskError, DiskFile, SECTOR_BYTES, is_file_name};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

/// Files in memory. A clone is another handle to the same files.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The names now, and those a crash leaves.
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Whether a name was given, changed or taken away since the last sync.
    names_changed: bool,
    files: BTreeMap<u64, Stored>,
    next_file: u64,
    bytes_max: Option<u64>,
    syncs: u64,
}

#[derive(Default)]
struct Stored {
    bytes: Vec<u8>,
    /// What takes back the changes since the last sync, oldest first.
    undo: Vec<Undo>,
    /// Bytes that cannot be read, whatever is written there.
    unreadable: BTreeSet<usize>,
}

/// Puts `bytes` back at `offset`, after which the file is `len` long.
struct Undo {
    offset: usize,
    bytes: Vec<u8>,
    len: usize,
}

impl Stored {
    /// Changes the file to `len` bytes with `part` at `offset`, in a way that can be taken back.
    fn change(&mut self, offset: usize, part: &[u8], len: usize) {
        let old_len = self.bytes.len();
        let kept_from = offset.min(len).min(old_len);
        let kept_to = if len < old_len { old_len } else { (offset + part.len()).clamp(kept_from, old_len) };
        self.undo.push(Undo { offset: kept_from, bytes: self.bytes[kept_from..kept_to].to_vec(), len: old_len });
        self.bytes.resize(len, 0);
        self.bytes[offset..offset + part.len()].copy_from_slice(part);
    }

    /// Takes back the changes since the last sync but for the `kept` oldest ones, and but for the first `torn_bytes` that
    /// the next one wrote.
    fn crash(&mut self, kept: usize, torn_bytes: usize) {
        let mut torn = None;
        while self.undo.len() > kept {
            let Some(Undo { offset, bytes, len }) = self.undo.pop() else {
                break;
            };
            if self.undo.len() == kept && torn_bytes > 0 {
                let end = offset.saturating_add(torn_bytes).min(self.bytes.len());
                torn = self.bytes.get(offset..end).map(|written| (offset, written.to_vec()));
            }
            self.bytes.resize(len, 0);
            self.bytes[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
        if let Some((offset, written)) = torn {
            self.bytes.resize(self.bytes.len().max(offset + written.len()), 0);
            self.bytes[offset..offset + written.len()].copy_from_slice(&written);
        }
        self.undo.clear();
    }
}

impl State {
    fn find(&mut self, file: &str) -> Result<&mut Stored, DiskError> {
        let missing = || DiskError::NotFound { file: file.into() };
        let number = self.names.get(file).ok_or_else(missing)?;
        Ok(self.files.get_mut(number).expect("every name has its file"))
    }

    /// Bytes of the files that have a name now.
    fn used_bytes(&self) -> u64 {
        self.names.values().map(|number| self.files[number].bytes.len() as u64).sum()
    }

    /// Whether there is no room for so many bytes more.
    fn is_full_for(&self, more: u64) -> bool {
        self.bytes_max.is_some_and(|bytes_max| self.used_bytes() + more > bytes_max)
    }

    fn drop_nameless(&mut self) {
        let named: BTreeSet<u64> = self.names.values().chain(self.durable_names.values()).copied().collect();
        self.files.retain(|number, _| named.contains(number));
    }

    /// A file lost a name: it is gone unless a crash may give it back.
    fn lost_its_name(&mut self, number: u64) {
        self.names_changed = true;
        if !self.names.values().chain(self.durable_names.values()).any(|named| *named == number) {
            self.files.remove(&number);
        }
    }
}

impl MemoryDisk {
    /// An empty disk without a limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses power: what was not synced is gone.
    pub fn crash(&self) {
        let mut state = self.state();
        state.names = state.durable_names.clone();
        state.drop_nameless();
        state.files.values_mut().for_each(|stored| stored.crash(0, 0));
    }

    /// Loses power in the middle of writing: of each file's changes since its last sync, `keep` says how many of so many
    /// lasted, and how many bytes of the next one.
    pub fn crash_torn(&self, mut keep: impl FnMut(usize) -> (usize, usize)) {
        let mut state = self.state();
        state.names = state.durable_names.clone();
        state.drop_nameless();
        for stored in state.files.values_mut() {
            let (kept, torn_bytes) = keep(stored.undo.len());
            stored.crash(kept, torn_bytes);
        }
    }

    /// Flips a bit of a file, as a bad disk does; `false` when there is no such byte.
    pub fn flip(&self, file: &str, at: usize, bit: u8) -> bool {
        let mut state = self.state();
        let byte = state.find(file).ok().and_then(|stored| stored.bytes.get_mut(at));
        byte.map(|byte| *byte ^= 1 << (bit % 8)).is_some()
    }

    /// Makes the sector of a byte of a file unreadable, for as long as the file is there; `false` when there is no such byte.
    pub fn make_unreadable(&self, file: &str, at: usize) -> bool {
        let mut state = self.state();
        let stored = state.find(file).ok().filter(|stored| at < stored.bytes.len());
        stored.map(|stored| stored.unreadable.insert(at)).is_some()
    }

    /// Makes all files readable again.
    pub fn make_readable(&self) {
        self.state().files.values_mut().for_each(|stored| stored.unreadable.clear());
    }

    /// Lets the files together hold at most this many bytes; more is [`DiskError::Full`].
    pub fn set_bytes_max(&self, bytes_max: Option<u64>) {
        self.state().bytes_max = bytes_max;
    }

    /// Bytes of all files now.
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// Whether a file is there.
    pub fn has(&self, file: &str) -> bool {
        self.state().names.contains_key(file)
    }

    /// How often a file was synced.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

fn named(attempted: &'static str, file: &str) -> Result<(), DiskError> {
    if is_file_name(file) {
        return Ok(());
    }
    Err(DiskError::Failed { attempted, file: file.into(), why: "no plain file name".into() })
}

fn place(attempted: &'static str, file: &str, offset: u64, len: u64) -> Result<(usize, usize), DiskError> {
    let end =
        offset.checked_add(len).and_then(|end| usize::try_from(end).ok()).filter(|end| *end < isize::MAX as usize);
    match end {
        Some(end) => Ok((end - len as usize, end)),
        None => Err(DiskError::Failed { attempted, file: file.into(), why: format!("no offset {offset}") }),
    }
}

#[async_trait::async_trait]
impl Disk for MemoryDisk {
    async fn write(&self, file: &str, offset: u64, parts: Vec<Bytes>) -> Result<(), DiskError> {
        named("writing", file)?;
        let whole = parts.concat();
        let (start, end) = place("writing", file, offset, whole.len() as u64)?;
        let mut state = self.state();
        let len = state.find(file).map_or(0, |stored| stored.bytes.len());
        if state.is_full_for(end.saturating_sub(len) as u64) {
            return Err(DiskError::Full { attempted: "writing", file: file.into() });
        }
        if !state.names.contains_key(file) {
            let number = state.next_file;
            state.next_file += 1;
            state.names.insert(file.into(), number);
            state.names_changed = true;
            state.files.insert(number, Stored::default());
        }
        state.find(file)?.change(start, &whole, len.max(end));
        Ok(())
    }

    async fn sync(&self, file: &str) -> Result<(), DiskError> {
        let mut state = self.state();
        state.find(file)?.undo.clear();
        state.syncs += 1;
        let number = state.names[file];
        if !state.names_changed && state.durable_names.get(file) == Some(&number) {
            return Ok(());
        }
        state.names_changed = false;
        let State { names, durable_names, .. } = &mut *state;
        let durable: BTreeSet<u64> = durable_names.values().copied().chain([number]).collect();
        // A name that went to a file that is not synced yet still stands for the file that had it before.
        durable_names.retain(|name, _| names.get(name).is_some_and(|named| !durable.contains(named)));
        let moved = names.iter().filter(|(_, named)| durable.contains(named));
        durable_names.extend(moved.map(|(name, named)| (name.clone(), *named)));
        state.drop_nameless();
        Ok(())
    }

    async fn read(&self, file: &str, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        let mut state = self.state();
        let Stored { bytes, unreadable, .. } = state.find(file)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = start.saturating_add(len).min(bytes.len());
        // A sector is readable as a whole or not at all.
        let sectors = start / SECTOR_BYTES * SECTOR_BYTES..end.next_multiple_of(SECTOR_BYTES);
        if start < end && unreadable.range(sectors).next().is_some() {
            return Err(DiskError::Unreadable { file: file.into(), why: "a bad sector".into() });
        }
        Ok(Bytes::copy_from_slice(&bytes[start..end]))
    }

    async fn truncate(&self, file: &str, bytes: u64) -> Result<(), DiskError> {
        let (_, len) = place("truncating", file, bytes, 0)?;
        let mut state = self.state();
        let more = len.saturating_sub(state.find(file)?.bytes.len()) as u64;
        if more > 0 && state.is_full_for(more) {
            return Err(DiskError::Full { attempted: "truncating", file: file.into() });
        }
        let stored = state.find(file)?;
        stored.change(len.min(stored.bytes.len()), &[], len);
        Ok(())
    }

    async fn rename(&self, file: &str, to: &str) -> Result<(), DiskError> {
        named("renaming", to)?;
        let mut state = self.state();
        state.find(file)?;
        if let Some(number) = state.names.remove(file) {
            state.names_changed = true;
            if let Some(replaced) = state.names.insert(to.into(), number) {
                state.lost_its_name(replaced);
            }
        }
        Ok(())
    }

    async fn remove(&self, file: &str) -> Result<(), DiskError> {
        let mut state = self.state();
        if let Some(number) = state.names.remove(file) {
            state.lost_its_name(number);
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<DiskFile>, DiskError> {
        let state = self.state();
        let file = |(name, number): (&String, &u64)| DiskFile {
            name: name.clone(),
            bytes: state.files[number].bytes.len() as u64,
        };
        Ok(state.names.iter().map(file).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn write(disk: &MemoryDisk, file: &str, offset: u64, bytes: &'static [u8]) {
        disk.write(file, offset, vec![Bytes::from_static(bytes)]).await.unwrap();
    }

    async fn content(disk: &MemoryDisk, file: &str) -> Option<Vec<u8>> {
        disk.read(file, 0, usize::MAX).await.ok().map(|bytes| bytes.to_vec())
    }

    #[tokio::test]
    async fn it_is_a_disk() {
        crate::disk::conformance(&MemoryDisk::new()).await;
    }

    #[tokio::test]
    async fn a_crash_takes_back_what_was_not_synced() {
        let disk = MemoryDisk::new();
        write(&disk, "a", 0, b"hello").await;
        disk.sync("a").await.unwrap();
        write(&disk, "a", 3, b"p me, world").await;
        write(&disk, "a", 1, b"EL").await;
        disk.truncate("a", 2).await.unwrap();
        write(&disk, "a", 6, b"!").await;
        write(&disk, "b", 0, b"new").await;
        disk.crash();
        assert_eq!(content(&disk, "a").await.unwrap(), b"hello");
        assert_eq!(content(&disk, "b").await, None);
    }

    #[tokio::test]
    async fn a_torn_write_lasts_in_part() {
        let disk = MemoryDisk::new();
        write(&disk, "a", 0, b"hello").await;
        disk.sync("a").await.unwrap();
        write(&disk, "a", 5, b", world").await;
        write(&disk, "a", 12, b" and more").await;
        disk.crash_torn(|unsynced| {
            assert_eq!(unsynced, 2);
            (1, 4)
        });
        assert_eq!(content(&disk, "a").await.unwrap(), b"hello, world and");
        write(&disk, "a", 0, b"J").await;
        disk.crash();
        assert_eq!(content(&disk, "a").await.unwrap(), b"hello, world and", "what lasted once is durable");
        assert!(disk.flip("a", 0, 1) && !disk.flip("a", 99, 0) && !disk.flip("b", 0, 0));
        assert_eq!(content(&disk, "a").await.unwrap()[0], b'h' ^ 2);
    }

    #[tokio::test]
    async fn names_change_durably_with_a_sync() {
        let disk = MemoryDisk::new();
        write(&disk, "a.part", 0, b"whole").await;
        disk.sync("a.part").await.unwrap();
        disk.rename("a.part", "a").await.unwrap();
        disk.crash();
        assert_eq!(content(&disk, "a.part").await.unwrap(), b"whole");
        disk.rename("a.part", "a").await.unwrap();
        disk.sync("a").await.unwrap();
        disk.crash();
        assert_eq!((content(&disk, "a.part").await, content(&disk, "a").await.unwrap()), (None, b"whole".to_vec()));
        disk.remove("a").await.unwrap();
        disk.crash();
        assert!(content(&disk, "a").await.is_some(), "a removal that nothing made durable");
        disk.remove("a").await.unwrap();
        write(&disk, "b", 0, b"x").await;
        disk.sync("b").await.unwrap();
        disk.crash();
        assert_eq!(content(&disk, "a").await, None);
        disk.rename("b", "c").await.unwrap();
        write(&disk, "d", 0, b"y").await;
        write(&disk, "e", 0, b"unsynced").await;
        disk.sync("d").await.unwrap();
        disk.rename("e", "c").await.unwrap();
        disk.sync("d").await.unwrap();
        disk.crash();
        assert_eq!((content(&disk, "b").await, content(&disk, "c").await.unwrap()), (None, b"x".to_vec()));
    }

    #[tokio::test]
    async fn a_full_disk_takes_nothing_more_until_something_is_removed() {
        let disk = MemoryDisk::new();
        disk.set_bytes_max(Some(8));
        write(&disk, "a", 0, b"12345678").await;
        write(&disk, "a", 0, b"over").await;
        let more = disk.write("b", 0, vec![Bytes::from_static(b"x")]).await;
        assert!(matches!(more, Err(DiskError::Full { .. })));
        disk.remove("a").await.unwrap();
        write(&disk, "b", 0, b"x").await;
        assert_eq!(disk.used_bytes(), 1);
    }
}
