//! What staging knows of its segments.

use super::{Closed, Settings};
use crate::{
    cloudfs::Handle,
    ids::{Md5, SegmentId},
    segment::{Damage, Packer},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// A segment.
pub(super) struct Entry {
    pub packer: Option<Packer>,
    /// The whole object, while it is kept in memory.
    pub body: Option<Bytes>,
    /// Of the whole object, once it is closed.
    pub md5: Option<Md5>,
    pub bytes: u64,
    /// Files with data in it, while it is open.
    pub files: BTreeSet<Handle>,
    pub opened: Instant,
    /// Whether it was opened right behind one that was worth a put: what comes now is the rest of the same burst.
    pub is_rest: bool,
    /// When bytes were added last.
    pub appended: Instant,
    pub since_wall_ns: u64,
    pub unwritten: VecDeque<Bytes>,
    pub unwritten_bytes: u64,
    pub written_bytes: u64,
    pub synced_bytes: u64,
    /// A sync of its file failed: no later one of that file proves anything.
    pub failed: bool,
    /// It was found damaged, and nobody has said yet that no cloud has it as it was.
    pub doubtful: bool,
    /// What its file holds is not what its MD5 says, or may not be, until it is replaced.
    pub wrong: bool,
    /// Where damage of it was told since, in bytes.
    pub told: BTreeSet<u64>,
    /// One writer to a file at a time; its waiters share the sync that it makes.
    pub turn: Arc<tokio::sync::Mutex<()>>,
}

impl Entry {
    /// When it is to be closed, if nothing is added meanwhile. `alone`: no other segment waits for its receipts.
    fn due(&self, settings: &Settings, alone: bool) -> Instant {
        let old = self.opened + Duration::from_millis(settings.seal_after_ms);
        let idle_ms = match self.bytes {
            bytes if alone && bytes >= settings.seal_ahead_bytes_min => 0,
            bytes if bytes < settings.seal_idle_bytes_min && !self.is_rest => return old,
            bytes if bytes < settings.seal_idle_bytes_min || !alone => settings.seal_idle_ms,
            _ => settings.seal_idle_alone_ms.min(settings.seal_idle_ms),
        };
        old.min(self.appended + Duration::from_millis(idle_ms))
    }
}

impl State {
    /// When the open segment is to be closed, if nothing is added meanwhile.
    pub fn due(&self, settings: &Settings) -> Option<Instant> {
        Some(self.entries[&self.open?].due(settings, self.is_alone()))
    }

    /// Whether there is an open segment, and nothing else is on its way to the clouds.
    pub fn is_alone(&self) -> bool {
        self.open.is_some() && self.entries.len() == 1
    }
}

/// All of them, and their sums.
#[derive(Default)]
pub(super) struct State {
    pub open: Option<SegmentId>,
    pub next_number: u64,
    pub entries: BTreeMap<SegmentId, Entry>,
    /// Closed, and not yet handed on.
    pub closed: VecDeque<Closed>,
    /// When the last one was closed, if it was worth a put of its own.
    pub worthy_closed: Option<Instant>,
    /// Bytes in `unwritten` of all entries.
    pub unwritten_bytes: u64,
    /// Bytes in `body` of all entries.
    pub memory_bytes: u64,
    pub bytes: u64,
    /// Bytes that writers were admitted with and have not appended yet.
    pub admitted_bytes: u64,
    /// Frames that were found damaged, and their bytes.
    pub damaged_frames: u64,
    pub damaged_bytes: u64,
}

impl State {
    /// What a writer must do before it adds more.
    pub fn duty(&self, settings: &Settings) -> Option<Duty> {
        if self.unwritten_bytes >= settings.unwritten_bytes_max.max(1) {
            let unwritten = self.entries.iter().rev().find(|(_, entry)| entry.unwritten_bytes > 0);
            return unwritten.map(|(segment, _)| Duty::Write(*segment));
        }
        let over = self.memory_bytes > settings.memory_bytes_max;
        let unsynced = || {
            let mut newest_first = self.entries.iter().rev();
            newest_first.find(|(_, entry)| entry.body.is_some() && entry.synced_bytes < entry.bytes)
        };
        over.then(unsynced).flatten().map(|(segment, _)| Duty::Finish(*segment))
    }

    /// A segment was found damaged, and its file may be any mix of what it was and what it will be until [`State::is_now`].
    pub fn found_wrong(&mut self, segment: SegmentId, damaged: &[Damage]) -> Option<&Entry> {
        let entry = self.entries.get_mut(&segment)?;
        entry.wrong = true;
        let new: Vec<_> = damaged.iter().filter(|damage| entry.told.insert(damage.range.start)).cloned().collect();
        self.note_damage(segment, &new);
        self.entries.get(&segment)
    }

    /// Notes damage, and tells it by name.
    pub fn note_damage(&mut self, segment: SegmentId, damaged: &[Damage]) {
        for damage in damaged {
            self.damaged_frames += 1;
            self.damaged_bytes += damage.range.end - damage.range.start;
            tracing::error!(
                %segment,
                "the disk has damaged {damage} of a staged segment: they are lost, unless a cloud has them; the rest of it is kept"
            );
        }
    }

    /// A segment's file is now, durably, of this MD5 and length. What the memory had of it may be what was wrong.
    pub fn is_now(&mut self, segment: SegmentId, md5: Md5, bytes: u64) -> Option<&mut Entry> {
        self.drop_body(segment);
        let entry = self.entries.get_mut(&segment)?;
        let (before, unwritten) = (entry.bytes, std::mem::take(&mut entry.unwritten_bytes));
        entry.unwritten.clear();
        (entry.md5, entry.bytes) = (Some(md5), bytes);
        (entry.written_bytes, entry.synced_bytes, entry.failed) = (bytes, bytes, false);
        (entry.wrong, entry.told) = (false, BTreeSet::new());
        self.unwritten_bytes -= unwritten;
        self.bytes = self.bytes - before + bytes;
        Some(entry)
    }

    pub fn drop_body(&mut self, segment: SegmentId) {
        if let Some(body) = self.entries.get_mut(&segment).and_then(|entry| entry.body.take()) {
            self.memory_bytes -= body.len() as u64;
        }
    }
}

/// What a writer must do before it adds more.
pub(super) enum Duty {
    Write(SegmentId),
    Finish(SegmentId),
}
