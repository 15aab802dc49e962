//! The read cache: what is in the clouds anyway, kept near for as long as there is room.
//!
//! Two levels, each with a limit in bytes and the least recently used evicted first: decoded frames in memory, and on
//! disk whole segments that were released here and ranges that were read from a cloud. Whatever is read from disk is
//! checked by its frame's checksum before it is believed; a copy that is wrong is dropped and fetched again.
//!
//! The cache lives on the disk of staging, and gives way to it: no writer is refused for want of room that an evictable
//! copy takes ([`GivingWay`]).
//!
//! Owns: evictable copies. Does not own: unreleased data (`staging`), fetching (the filer's reader).

mod frames;
mod giving_way;

use crate::{
    disk::{Disk, DiskError, DiskFile},
    ids::SegmentId,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::sync::Notify;

pub use frames::FrameCache;
pub use giving_way::GivingWay;

/// Limits of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes on disk.
    pub disk_bytes_max: u64,
    /// Decoded bytes in memory.
    pub memory_bytes_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { disk_bytes_max: 16 << 30, memory_bytes_max: 128 << 20 }
    }
}

/// One segment's copy on disk.
#[derive(Debug)]
struct Kept {
    /// The ranges that are there, by start; a whole segment is one range from 0.
    ranges: BTreeMap<u64, u64>,
    bytes: u64,
    used: u64,
    /// Writes to the file that are under way: it is not evicted meanwhile.
    writing: u32,
    whole: bool,
    file: String,
}

#[derive(Default)]
struct State {
    segments: BTreeMap<SegmentId, Kept>,
    by_use: BTreeMap<u64, SegmentId>,
    bytes: u64,
    clock: u64,
    /// Copies are numbered, and each has a file of its own: who removes an older copy's file, or still writes to it, does
    /// nothing to a newer one.
    next_copy: u64,
    /// Files that nobody needs and that could not be removed yet.
    litter: VecDeque<String>,
    /// Writers for whom room is being made: nothing more is kept meanwhile.
    giving_way: u32,
}

/// The disk level of the cache.
pub struct DiskCache {
    disk: Arc<dyn Disk>,
    bytes_max: u64,
    state: Mutex<State>,
    /// A write to a copy has ended.
    written: Notify,
}

/// Useless files whose removal is tried in one go.
const LITTER_AT_ONCE_MAX: usize = 16;
const WHOLE: &str = ".cache";
const PART: &str = ".part";

/// The copy that a file is: its segment and number.
fn copy_of(file: &str, ending: &str) -> Option<(SegmentId, u64)> {
    let (name, copy) = file.strip_suffix(ending)?.split_once('.')?;
    let segment = SegmentId::from_key(&format!("segments/{}", name.replacen('-', "/", 1)))?;
    let copy = u64::from_str_radix(copy, 16).ok().filter(|copy| *copy < u64::MAX)?;
    Some((segment, copy))
}

impl State {
    fn name_file(&mut self, segment: SegmentId, ending: &str) -> String {
        let copy = self.next_copy;
        self.next_copy += 1;
        format!("{:016x}-{:016x}.{copy:x}{ending}", segment.filer.0, segment.number)
    }

    fn touch(&mut self, segment: SegmentId) {
        self.clock += 1;
        let now = self.clock;
        if let Some(kept) = self.segments.get_mut(&segment) {
            self.by_use.remove(&kept.used);
            kept.used = now;
            self.by_use.insert(now, segment);
        }
    }

    fn forget(&mut self, segment: SegmentId) -> Option<Kept> {
        let kept = self.segments.remove(&segment)?;
        self.by_use.remove(&kept.used);
        self.bytes -= kept.bytes;
        Some(kept)
    }

    /// Puts a copy in the place of an older one; gives that one's file.
    fn insert(&mut self, segment: SegmentId, kept: Kept) -> Option<String> {
        let old = self.forget(segment);
        self.bytes += kept.bytes;
        self.segments.insert(segment, kept);
        self.touch(segment);
        old.map(|old| old.file)
    }

    /// The copy of a segment, if it is (still) the one with this file.
    fn copy(&mut self, segment: SegmentId, file: &str) -> Option<&mut Kept> {
        self.segments.get_mut(&segment).filter(|kept| kept.file == file)
    }
}

/// A write to a copy's file.
struct Writing<'a> {
    cache: &'a DiskCache,
    segment: SegmentId,
    file: String,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if let Some(kept) = self.cache.lock().copy(self.segment, &self.file) {
            kept.writing -= 1;
        }
        self.cache.written.notify_waiters();
    }
}

/// Room is being made for a writer, until it is dropped.
struct MakingRoom<'a>(&'a DiskCache);

impl Drop for MakingRoom<'_> {
    fn drop(&mut self) {
        self.0.lock().giving_way -= 1;
    }
}

impl DiskCache {
    /// Opens the cache as the last run left it: whole segments stay, ranges (whose map was in memory) go.
    pub async fn open(disk: Arc<dyn Disk>, settings: &Settings) -> Result<Self, DiskError> {
        let cache = Self { disk, bytes_max: settings.disk_bytes_max, state: Mutex::default(), written: Notify::new() };
        let mut useless = Vec::new();
        for DiskFile { name, bytes } in cache.disk.list().await? {
            let mut state = cache.lock();
            if let Some((segment, copy)) = copy_of(&name, WHOLE) {
                state.next_copy = state.next_copy.max(copy + 1);
                useless.extend(state.insert(segment, Kept::whole(name, bytes)));
            } else if let Some((_, copy)) = copy_of(&name, PART) {
                state.next_copy = state.next_copy.max(copy + 1);
                useless.push(name);
            }
        }
        for file in useless {
            cache.disk.remove(&file).await?;
        }
        cache.evict().await;
        Ok(cache)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the cache state panics")
    }

    /// Takes over a released segment's file from staging, where it is called `file`: keeps it, or removes it.
    pub async fn adopt(&self, segment: SegmentId, file: &str, bytes: u64) {
        if bytes > self.bytes_max {
            return self.discard(file).await;
        }
        let own = self.lock().name_file(segment, WHOLE);
        if let Err(error) = self.disk.rename(file, &own).await {
            tracing::warn!(%segment, %error, "a released segment could not be kept in the cache");
            return self.discard(file).await;
        }
        let old = self.lock().insert(segment, Kept::whole(own, bytes));
        if let Some(old) = old {
            self.discard(&old).await;
        }
        self.evict().await;
    }

    /// Removes a file that nobody needs any more; where that fails, it is tried again later.
    pub async fn discard(&self, file: &str) {
        // On the list first: the caller may go away while it waits.
        self.lock().litter.push_back(file.into());
        match self.disk.remove(file).await {
            Ok(()) => self.lock().litter.retain(|other| other != file),
            Err(error) => tracing::warn!(file, %error, "a file that nobody needs is removed later"),
        }
    }

    /// Tries again to remove what could not be removed, a few files at a time, in turn.
    async fn clear_litter(&self) {
        let some: Vec<String> = {
            let mut state = self.lock();
            let litter = &mut state.litter;
            let count = litter.len().min(LITTER_AT_ONCE_MAX);
            litter.rotate_left(count);
            litter.iter().rev().take(count).cloned().collect()
        };
        for file in some {
            match self.disk.remove(&file).await {
                Ok(()) => self.lock().litter.retain(|other| *other != file),
                Err(error) => tracing::debug!(file, %error, "a file that nobody needs is removed later"),
            }
        }
    }

    /// The bytes of `at..at + len` of a segment, where all of them are here.
    pub async fn read(&self, segment: SegmentId, at: u64, len: usize) -> Option<Bytes> {
        let file = {
            let mut state = self.lock();
            let kept = state.segments.get(&segment)?;
            if !covers(&kept.ranges, at, at.checked_add(len as u64)?) {
                return None;
            }
            let file = kept.file.clone();
            state.touch(segment);
            file
        };
        let read = self.disk.read(&file, at, len).await;
        // Dropped meanwhile, its file may have been made again by a write under way, with nothing in this place.
        let still = self.lock().copy(segment, &file).is_some();
        // If not, or if the disk fails: the clouds have it.
        read.ok().filter(|bytes| still && bytes.len() == len)
    }

    /// Keeps a range that was read from elsewhere. Failing to keep it loses nothing.
    pub async fn keep(&self, segment: SegmentId, at: u64, bytes: Bytes) {
        let Some(end) = at.checked_add(bytes.len() as u64).filter(|end| *end > at) else {
            return;
        };
        let Some(writing) = self.begin_to_write(segment, at, end) else {
            return;
        };
        let wrote = self.disk.write(&writing.file, at, vec![bytes]).await;
        let file = writing.file.clone();
        let is_current = {
            let mut guard = self.lock();
            let state = &mut *guard;
            match state.segments.get_mut(&segment).filter(|kept| kept.file == file) {
                Some(kept) if wrote.is_ok() => {
                    let added = insert_range(&mut kept.ranges, at, end);
                    kept.bytes += added;
                    state.bytes += added;
                    state.touch(segment);
                    true
                }
                // The write that made the copy has failed: there is nothing in it.
                Some(kept) if kept.ranges.is_empty() && kept.writing == 1 => {
                    state.forget(segment);
                    false
                }
                current => current.is_some(),
            }
        };
        drop(writing);
        if !is_current {
            // Dropped or replaced meanwhile, but this write may have come after the removal of the file.
            self.discard(&file).await;
        }
        self.evict().await;
    }

    fn begin_to_write(&self, segment: SegmentId, at: u64, end: u64) -> Option<Writing<'_>> {
        let mut state = self.lock();
        if end - at > self.bytes_max || state.giving_way > 0 {
            return None;
        }
        if !state.segments.contains_key(&segment) {
            let file = state.name_file(segment, PART);
            state.insert(segment, Kept { ranges: BTreeMap::new(), bytes: 0, used: 0, writing: 0, whole: false, file });
        }
        let kept = state.segments.get_mut(&segment).expect("it was put there if it was not");
        if kept.whole || covers(&kept.ranges, at, end) {
            return None;
        }
        kept.writing += 1;
        Some(Writing { cache: self, segment, file: kept.file.clone() })
    }

    /// Drops a segment's copy: it is wrong, or nobody needs it.
    pub async fn drop_segment(&self, segment: SegmentId) {
        let kept = self.lock().forget(segment);
        if let Some(kept) = kept {
            self.discard(&kept.file).await;
        }
    }

    /// The copy that was not used for longest and that nobody writes to, forgotten: its file and length in bytes.
    fn forget_oldest(&self) -> Option<(String, u64)> {
        let mut state = self.lock();
        let idle = state.by_use.values().find(|segment| state.segments[*segment].writing == 0).copied()?;
        state.forget(idle).map(|kept| (kept.file, kept.bytes))
    }

    async fn evict(&self) {
        while self.bytes() > self.bytes_max {
            let Some((file, _)) = self.forget_oldest() else {
                return;
            };
            self.discard(&file).await;
        }
        self.clear_litter().await;
    }

    /// Evicts copies, whatever the limit says, until `bytes` more can be written elsewhere. Gives how many bytes went;
    /// none when nothing is left to evict.
    async fn give_way(&self, bytes: u64) -> u64 {
        self.lock().giving_way += 1;
        let _making_room = MakingRoom(self);
        let mut freed = 0;
        while freed < bytes.max(1) {
            let written = self.written.notified();
            match self.forget_oldest() {
                Some((file, bytes)) => {
                    self.discard(&file).await;
                    freed += bytes;
                }
                // What is being written now can be evicted in a moment.
                None if freed == 0 && !self.lock().segments.is_empty() => written.await,
                None => break,
            }
        }
        freed
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }
}

impl Kept {
    fn whole(file: String, bytes: u64) -> Self {
        Self { ranges: BTreeMap::from([(0, bytes)]), bytes, used: 0, writing: 0, whole: true, file }
    }
}

/// Whether all of `at..end` is in one of the ranges.
fn covers(ranges: &BTreeMap<u64, u64>, at: u64, end: u64) -> bool {
    ranges.range(..=at).next_back().is_some_and(|(_, stop)| *stop >= end)
}

/// Adds `at..end` to disjoint ranges; gives how many bytes are new.
fn insert_range(ranges: &mut BTreeMap<u64, u64>, at: u64, end: u64) -> u64 {
    let (mut from, mut to, mut had) = (at, end, 0);
    let touching: Vec<_> = ranges.range(..=end).rev().take_while(|(_, e)| **e >= at).map(|(s, e)| (*s, *e)).collect();
    for (start, stop) in touching {
        ranges.remove(&start);
        had += stop - start;
        from = from.min(start);
        to = to.max(stop);
    }
    ranges.insert(from, to);
    to - from - had
}

#[cfg(test)]
mod tests;
