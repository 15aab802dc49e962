//! A filer's own durable copy of what is not yet released.
//!
//! Clients' bytes go to the open segment: memory at once, its file soon after, and certainly before [`Staging::sync`]
//! returns, which many callers share. A full segment, or one that is old enough, is sealed: it gets index and footer, is
//! synced, and never changes again; [`Staging::next_closed`] hands it on. Only [`Staging::release`] makes it evictable.
//! After a crash [`Staging::recover`] keeps every whole frame, cuts a torn tail, and seals what was open.
//!
//! Disks go bad. Whatever is read back is checked before it goes to a cloud; a damaged frame costs itself alone, is told
//! by name, and reads as lost from then on, while the rest of its segment is protected as ever ([`Staging::mend`]). A sector
//! that cannot be read is damage too.
//!
//! Every call may be given up at any of its waits: what was packed stays packed, and what was closed stays to be handed on.
//! A file whose sync failed is replaced by a new one with all of the segment.
//!
//! Owns: the files of unreleased segments, their order, the bounds on their bytes on disk and in memory. Does not own:
//! what refers to them (`cloudfs`), where they go (`mirror`), released copies (`cache`).

mod mending;
mod recover;
mod state;
mod writing;

use crate::{
    cloudfs::{Extent, Handle},
    disk::{Disk, DiskError},
    ids::{Md5, SegmentId},
    segment::{Header, Packer, Sealed, check_object},
};
use bytes::Bytes;
use mesh::{FilerId, clock::Clock, words::span};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

pub use recover::{RecoverError, Recovered};
use state::{Duty, Entry, State};

/// Limits of staging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Length of a segment's object, index included, at which it is sealed, in bytes. Its last frame may reach beyond.
    pub segment_bytes_max: u64,
    /// File data of one frame, in bytes.
    pub frame_bytes_max: usize,
    /// Age at which an open segment is sealed though it is not full, in milliseconds.
    pub seal_after_ms: u64,
    /// Time without a further byte after which an open segment that is worth a put of its own is sealed, in milliseconds; so
    /// is the smaller one that was opened within this time behind it, as the end of the same burst.
    pub seal_idle_ms: u64,
    /// The same while no other segment waits for its receipts, in milliseconds: clouds that have nothing to do may begin.
    pub seal_idle_alone_ms: u64,
    /// Bytes from which on a segment is worth a put of its own.
    pub seal_idle_bytes_min: u64,
    /// Bytes from which on an open segment is sealed at once while no other waits for its receipts: clouds that are quicker
    /// than the writers need not wait for a full one.
    pub seal_ahead_bytes_min: u64,
    /// Unreleased bytes on disk at which writers wait.
    pub bytes_max: u64,
    /// Bytes not yet written to disk at which a writer writes them itself before it adds more.
    pub unwritten_bytes_max: u64,
    /// Bytes of sealed segments that are kept in memory too, for their puts. Beyond it a writer syncs sealed segments
    /// itself before it adds more.
    pub memory_bytes_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            segment_bytes_max: 8 << 20,
            frame_bytes_max: 1 << 20,
            seal_after_ms: 1000,
            seal_idle_ms: 20,
            seal_idle_alone_ms: 5,
            seal_idle_bytes_min: Self::worth_a_put(8 << 20),
            seal_ahead_bytes_min: Self::worth_no_wait(8 << 20),
            bytes_max: 16 << 30,
            unwritten_bytes_max: 4 << 20,
            memory_bytes_max: 64 << 20,
        }
    }
}

impl Settings {
    /// What makes a segment worth a put of its own, where nothing else is said of segments of this length.
    pub fn worth_a_put(segment_bytes_max: u64) -> u64 {
        segment_bytes_max / 8
    }

    /// What makes one go ahead while no other is on its way, likewise.
    pub fn worth_no_wait(segment_bytes_max: u64) -> u64 {
        segment_bytes_max / 2
    }

    /// The same limits for segments of another length.
    pub fn with_segments(self, bytes_max: u64) -> Self {
        Self {
            segment_bytes_max: bytes_max,
            seal_idle_bytes_min: Self::worth_a_put(bytes_max),
            seal_ahead_bytes_min: Self::worth_no_wait(bytes_max),
            ..self
        }
    }
}

/// Why bytes were not staged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StagingError {
    /// Unreleased bytes stayed at the limit until the deadline.
    #[error("staging holds {bytes} unreleased bytes of {bytes_max}, and nothing was released within {}", span(*waited_ms))]
    Full { bytes: u64, bytes_max: u64, waited_ms: u64 },
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The segment is not in staging.
    #[error("segment {0} is not in staging")]
    Gone(SegmentId),
    /// What the disk gave back of it is not what was written.
    #[error("staged segment {segment} is damaged on this filer's disk: {why}")]
    Damaged { segment: SegmentId, why: String },
}

/// What staging holds, for people and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StagingStatus {
    /// Unreleased bytes.
    pub bytes: u64,
    /// Unreleased segments, the open one included.
    pub segments: u64,
    /// Bytes of segments that are kept in memory, beside the open one's: until they are on the disk, and longer where there is room.
    pub memory_bytes: u64,
    /// When the oldest unreleased byte was written, nanoseconds since the Unix epoch.
    pub oldest_wall_ns: Option<u64>,
    /// Frames that the disk had damaged, noticed since the start, and their bytes.
    pub damaged_frames: u64,
    pub damaged_bytes: u64,
}

/// A segment that was just closed for writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    pub segment: SegmentId,
    pub md5: Md5,
    pub bytes: u64,
    /// Files with data in it.
    pub files: BTreeSet<Handle>,
}

/// Room in staging for a writer's bytes, until it is dropped.
pub struct Admission<'a> {
    staging: &'a Staging,
    bytes: u64,
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        self.staging.lock().admitted_bytes -= self.bytes;
        self.staging.room.notify_waiters();
    }
}

/// The staging of one filer.
pub struct Staging {
    me: FilerId,
    cloudfs: u64,
    settings: Settings,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    room: Notify,
    /// The open segment may be due earlier than it was, or was closed.
    turned: Notify,
}

/// The file of a segment in staging.
pub fn staging_file(segment: SegmentId) -> String {
    format!("{:016x}-{:016x}.seg", segment.filer.0, segment.number)
}

fn found_damaged(segment: SegmentId) -> StagingError {
    StagingError::Damaged { segment, why: "it was found so, and is not mended yet".into() }
}

impl Staging {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the staging state panics")
    }

    /// The header of a segment of this staging.
    pub fn header(&self, segment: SegmentId) -> Header {
        Header { cloudfs: self.cloudfs, segment }
    }

    /// Waits until there is room for `bytes` more, at most `wait_max`. The room is the caller's until it drops the answer,
    /// which it does after its [`Staging::append`].
    pub async fn admit(&self, bytes: u64, wait_max: Duration) -> Result<Admission<'_>, StagingError> {
        let start = Instant::now();
        loop {
            let released = self.room.notified();
            let held = {
                let mut state = self.lock();
                let held = state.bytes.saturating_add(state.admitted_bytes);
                if held.saturating_add(bytes) <= self.settings.bytes_max {
                    state.admitted_bytes += bytes;
                    return Ok(Admission { staging: self, bytes });
                }
                held
            };
            let left = wait_max.saturating_sub(start.elapsed());
            if left.is_zero() || tokio::time::timeout(left, released).await.is_err() {
                let waited_ms = start.elapsed().as_millis() as u64;
                return Err(StagingError::Full { bytes: held, bytes_max: self.settings.bytes_max, waited_ms });
            }
        }
    }

    /// Appends a file's data to the open segment. The answer's extents refer to bytes that are in memory only, until
    /// [`Staging::sync`]. After an error nothing refers to what was packed before it.
    pub async fn append(&self, file: Handle, offset: u64, data: Bytes) -> Result<Vec<Extent>, StagingError> {
        let (mut extents, mut at) = (Vec::new(), 0);
        let wall_ns = self.clock.wall_ns();
        while at < data.len() {
            let piece = data.slice(at..data.len().min(at + self.settings.frame_bytes_max));
            let piece_bytes = piece.len();
            extents.push(loop {
                match self.pack(file, offset + at as u64, wall_ns, &piece) {
                    Ok(extent) => break extent,
                    Err(Duty::Write(segment)) => self.write(segment).await?,
                    Err(Duty::Finish(segment)) => self.finish(segment).await?,
                }
            });
            at += piece_bytes;
        }
        Ok(extents)
    }

    fn pack(&self, file: Handle, offset: u64, wall_ns: u64, piece: &Bytes) -> Result<Extent, Duty> {
        let mut state = self.lock();
        if let Some(duty) = state.duty(&self.settings) {
            return Err(duty);
        }
        let segment = match state.open {
            Some(segment) => segment,
            None => self.open(&mut state, wall_ns),
        };
        let entry = state.entries.get_mut(&segment).expect("the open segment has an entry");
        let packer = entry.packer.as_mut().expect("the open segment has a packer");
        let packed = packer.pack(file, offset, wall_ns, piece.clone());
        let full = packer.sealed_bytes() >= self.settings.segment_bytes_max;
        entry.files.insert(file);
        let added: u64 = packed.parts.iter().map(|part| part.len() as u64).sum();
        entry.unwritten.extend(packed.parts);
        entry.unwritten_bytes += added;
        let reaches = |bytes_min| entry.bytes < bytes_min && entry.bytes + added >= bytes_min;
        let is_due_sooner = reaches(self.settings.seal_idle_bytes_min) || reaches(self.settings.seal_ahead_bytes_min);
        entry.bytes += added;
        entry.appended = Instant::now();
        state.unwritten_bytes += added;
        state.bytes += added;
        if full {
            self.close(&mut state);
        } else if is_due_sooner {
            self.turned.notify_one();
        }
        Ok(packed.extent)
    }

    fn open(&self, state: &mut State, wall_ns: u64) -> SegmentId {
        let segment = SegmentId { filer: self.me, number: state.next_number };
        state.next_number += 1;
        let (packer, first) = Packer::new(self.header(segment));
        let (bytes, now) = (first.len() as u64, Instant::now());
        let burst_ms = Duration::from_millis(self.settings.seal_idle_ms);
        let entry = Entry {
            packer: Some(packer),
            body: None,
            md5: None,
            bytes,
            files: BTreeSet::new(),
            opened: now,
            is_rest: state.worthy_closed.is_some_and(|closed| now < closed + burst_ms),
            appended: now,
            since_wall_ns: wall_ns,
            unwritten: VecDeque::from([first]),
            unwritten_bytes: bytes,
            written_bytes: 0,
            synced_bytes: 0,
            failed: false,
            doubtful: false,
            wrong: false,
            told: BTreeSet::new(),
            turn: Arc::default(),
        };
        state.unwritten_bytes += bytes;
        state.bytes += bytes;
        state.entries.insert(segment, entry);
        state.open = Some(segment);
        self.turned.notify_one();
        segment
    }

    /// Closes the open segment, if there is one: nothing is added to it any more.
    fn close(&self, state: &mut State) {
        let Some(segment) = state.open.take() else {
            return;
        };
        let entry = state.entries.get_mut(&segment).expect("the open segment has an entry");
        let Sealed { md5, body, tail_at, .. } = entry.packer.take().expect("the open segment has a packer").seal();
        let tail = body.slice(tail_at as usize..);
        let added = tail.len() as u64;
        entry.unwritten_bytes += added;
        entry.unwritten.push_back(tail);
        entry.bytes += added;
        entry.md5 = Some(md5);
        let worthy_bytes = self.settings.seal_idle_bytes_min.min(self.settings.seal_ahead_bytes_min);
        state.worthy_closed = (entry.bytes >= worthy_bytes).then(Instant::now);
        let closed = Closed { segment, md5, bytes: entry.bytes, files: std::mem::take(&mut entry.files) };
        state.memory_bytes += body.len() as u64;
        entry.body = Some(body);
        state.unwritten_bytes += added;
        state.bytes += added;
        state.closed.push_back(closed);
        self.turned.notify_one();
    }

    /// The next segment that was closed: because it is full, or, by this very call, because it is as old, or was left alone for
    /// as long, as the settings want, or is worth it while the clouds have nothing to do. It must be handed to [`Staging::finish`]. Meant for one caller at a time.
    pub async fn next_closed(&self) -> Closed {
        loop {
            let due = {
                let mut state = self.lock();
                let due = state.due(&self.settings);
                if due.is_some_and(|due| Instant::now() >= due) {
                    self.close(&mut state);
                }
                if let Some(closed) = state.closed.pop_front() {
                    return closed;
                }
                due
            };
            let turned = self.turned.notified();
            match due {
                // In time or not: the next look decides.
                Some(due) => drop(tokio::time::timeout_at(due, turned).await),
                None => turned.await,
            }
        }
    }

    /// Up to `len` bytes of a segment from `at`; `None` when it is not in staging.
    pub async fn read(&self, segment: SegmentId, at: u64, len: usize) -> Result<Option<Bytes>, StagingError> {
        {
            let state = self.lock();
            let Some(entry) = state.entries.get(&segment) else {
                return Ok(None);
            };
            if let Some(packer) = &entry.packer {
                return Ok(packer.read(at, len));
            }
            if let Some(body) = &entry.body {
                let start = usize::try_from(at).unwrap_or(usize::MAX).min(body.len());
                return Ok(Some(body.slice(start..start.saturating_add(len).min(body.len()))));
            }
        }
        match self.disk.read(&staging_file(segment), at, len).await {
            // Released between the look and the read: the cache has it now.
            Err(DiskError::NotFound { .. }) => Ok(None),
            read => Ok(Some(read?)),
        }
    }

    /// The whole object of a sealed segment, and its MD5. One that comes from the disk has passed its checksums.
    pub async fn body(&self, segment: SegmentId) -> Result<(Bytes, Md5), StagingError> {
        let gone = || StagingError::Gone(segment);
        let turn = match self.lock().entries.get(&segment) {
            Some(Entry { body: Some(body), md5: Some(md5), .. }) => return Ok((body.clone(), *md5)),
            // A bad disk may take long to say so: who would wait for it meanwhile does not.
            Some(Entry { wrong: true, .. }) => return Err(found_damaged(segment)),
            Some(Entry { md5: Some(_), turn, .. }) => turn.clone(),
            _ => return Err(gone()),
        };
        // Whoever replaces a damaged segment has its new file some time before its new MD5.
        let _turn = turn.lock().await;
        let (bytes, md5) = match self.lock().entries.get(&segment) {
            // Nor does who has waited ask it again.
            Some(Entry { wrong: true, .. }) => return Err(found_damaged(segment)),
            Some(Entry { md5: Some(md5), bytes, .. }) => (*bytes, *md5),
            _ => return Err(gone()),
        };
        let (file, header) = (staging_file(segment), self.header(segment));
        let check = move |read: &Bytes| match read.len() as u64 {
            len if len == bytes => check_object(&header, read).map_err(|e| e.to_string()),
            len => Err(format!("it has {len} bytes of {bytes}")),
        };
        match self.disk.read_checked(&file, 0, bytes as usize, Box::new(check)).await {
            Err(DiskError::Damaged { why, .. } | DiskError::Unreadable { why, .. }) => {
                self.lock().found_wrong(segment, &[]).ok_or_else(gone)?;
                Err(StagingError::Damaged { segment, why })
            }
            Err(error @ DiskError::NotFound { .. }) => {
                self.lock().found_wrong(segment, &[]).ok_or_else(gone)?;
                Err(StagingError::Damaged { segment, why: error.to_string() })
            }
            read => Ok((read?, md5)),
        }
    }

    /// The length of a segment so far, in bytes.
    pub fn bytes(&self, segment: SegmentId) -> Option<u64> {
        Some(self.lock().entries.get(&segment)?.bytes)
    }

    /// Whether a segment is in staging.
    pub fn holds(&self, segment: SegmentId) -> bool {
        self.lock().entries.contains_key(&segment)
    }

    /// Hands a segment over: it is released, and its file (of this many bytes) belongs to the caller.
    pub async fn release(&self, segment: SegmentId) -> Option<u64> {
        let turn = {
            let state = self.lock();
            state.entries.get(&segment).filter(|_| state.open != Some(segment))?.turn.clone()
        };
        // A write under way would make the file again behind the caller's back.
        let _turn = turn.lock().await;
        let mut state = self.lock();
        let entry = state.entries.remove(&segment)?;
        state.bytes -= entry.bytes;
        state.unwritten_bytes -= entry.unwritten_bytes;
        state.memory_bytes -= entry.body.map_or(0, |body| body.len() as u64);
        if state.is_alone() {
            self.turned.notify_one();
        }
        drop(state);
        self.room.notify_waiters();
        Some(entry.bytes)
    }

    /// What staging holds.
    pub fn status(&self) -> StagingStatus {
        let state = self.lock();
        StagingStatus {
            bytes: state.bytes,
            segments: state.entries.len() as u64,
            memory_bytes: state.memory_bytes,
            oldest_wall_ns: state.entries.values().map(|entry| entry.since_wall_ns).min(),
            damaged_frames: state.damaged_frames,
            damaged_bytes: state.damaged_bytes,
        }
    }

    /// Every unreleased segment and when its oldest byte was written, nanoseconds since the Unix epoch.
    pub fn unreleased(&self) -> Vec<(SegmentId, u64)> {
        self.lock().entries.iter().map(|(segment, entry)| (*segment, entry.since_wall_ns)).collect()
    }

    /// The limit on unreleased bytes.
    pub fn bytes_max(&self) -> u64 {
        self.settings.bytes_max
    }
}

#[cfg(test)]
mod tests;
