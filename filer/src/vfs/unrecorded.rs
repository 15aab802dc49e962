//! A file's data that was written here and is not on record yet.
//!
//! Writers of a file share its gate while they append and note what they appended; whoever records the file takes the
//! gate alone for a moment. So whatever was appended to a segment before the segment was closed is noted before the
//! file's flush for that segment looks.
//!
//! Owns: the two layers, pending and recording, and what clients see of them. Does not own: how they get on record
//! (`recording`).

use super::{layers::Layer, recording::Step};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};
use storage::cloudfs::{Attr, Extent, Handle};
use tokio::sync::RwLock;

/// Files remembered before those without unrecorded data are looked for.
const SWEEP_FILES_MIN: usize = 64;

/// All files with unrecorded data.
#[derive(Default)]
pub struct UnrecordedFiles {
    files: Mutex<Files>,
    sums: Arc<Sums>,
}

/// Over all files.
#[derive(Default)]
struct Sums {
    extents: AtomicUsize,
    /// Notes so far.
    notes: AtomicU64,
}

#[derive(Default)]
struct Files {
    by_handle: BTreeMap<Handle, Arc<Unrecorded>>,
    sweep_at: usize,
}

#[derive(Default)]
struct Layers {
    /// Written since the last recording began.
    pending: Layer,
    /// Whether somebody without privileges wrote some of it.
    pending_clears_set_id: bool,
    /// Being recorded.
    recording: Layer,
    recording_clears_set_id: bool,
    /// When the newest of it was written, nanoseconds since the Unix epoch.
    mtime_ns: u64,
    /// How often data went from here to the record.
    recordings: u64,
    /// How often data was refused by the record, and dropped.
    refusals: u64,
    /// Number of the last note, among those of all files; 0 before the first.
    newest_note: u64,
}

/// The unrecorded data of one file.
pub struct Unrecorded {
    layers: Mutex<Layers>,
    /// Shared by writers, taken alone to begin a recording.
    pub gate: RwLock<()>,
    /// One recording at a time; the operations that it has proposed, or will, and whose answers are not known.
    pub turn: tokio::sync::Mutex<VecDeque<Step>>,
    sums: Arc<Sums>,
}

/// A note, and the file's attributes just before and after it.
pub struct Noted {
    pub before: Attr,
    pub after: Attr,
    pub number: u64,
    /// Of the attributes on record that both are made of.
    pub recorded_ctime_ns: u64,
    /// What was refused before it.
    pub refusals: u64,
}

/// What a recording began with.
pub struct Begun {
    pub extents: Vec<Extent>,
    pub mtime_ns: u64,
    pub clears_set_id: bool,
    pub newest_note: u64,
}

impl UnrecordedFiles {
    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().expect("no holder of the unrecorded files panics")
    }

    /// The file's unrecorded data, if it has any.
    pub fn get(&self, file: Handle) -> Option<Arc<Unrecorded>> {
        self.lock().by_handle.get(&file).cloned()
    }

    /// The file's unrecorded data, made when there is none.
    pub fn of(&self, file: Handle) -> Arc<Unrecorded> {
        let mut files = self.lock();
        if files.by_handle.len() >= files.sweep_at.max(SWEEP_FILES_MIN) {
            // Those whose last holder could not tell that it was the last.
            files.by_handle.retain(|_, unrecorded| Arc::strong_count(unrecorded) > 1 || !unrecorded.is_empty());
            files.sweep_at = 2 * files.by_handle.len();
        }
        let new = || {
            let (layers, gate, turn) = Default::default();
            Arc::new(Unrecorded { layers, gate, turn, sums: self.sums.clone() })
        };
        files.by_handle.entry(file).or_insert_with(new).clone()
    }

    /// How many extents all files together have.
    pub fn extents(&self) -> usize {
        self.sums.extents.load(Relaxed)
    }

    /// Forgets a file whose last data is on record.
    pub fn forget(&self, file: Handle, unrecorded: &Arc<Unrecorded>) {
        let mut files = self.lock();
        // Two handles are this map's and the caller's; a third is a writer's that is about to note something.
        if unrecorded.is_empty() && Arc::strong_count(unrecorded) <= 2 {
            files.by_handle.remove(&file);
        }
    }
}

impl Layers {
    fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.recording.is_empty()
    }

    /// Shows the attributes on record as they will be.
    fn show(&self, attr: &mut Attr) {
        if self.is_empty() {
            return;
        }
        attr.bytes = attr.bytes.max(self.pending.end()).max(self.recording.end());
        attr.mtime_ns = attr.mtime_ns.max(self.mtime_ns);
        attr.ctime_ns = attr.ctime_ns.max(self.mtime_ns);
        if self.pending_clears_set_id || self.recording_clears_set_id {
            attr.clear_set_id();
        }
    }
}

impl Unrecorded {
    fn lock(&self) -> MutexGuard<'_, Layers> {
        self.layers.lock().expect("no holder of a file's layers panics")
    }

    /// Changes the layers, and the sum of all files with them.
    fn change<T>(&self, change: impl FnOnce(&mut Layers) -> T) -> T {
        let mut layers = self.lock();
        let before = layers.pending.len() + layers.recording.len();
        let changed = change(&mut layers);
        self.sums.extents.fetch_add(layers.pending.len() + layers.recording.len(), Relaxed);
        self.sums.extents.fetch_sub(before, Relaxed);
        changed
    }

    /// Notes extents that were appended; the gate is held. `recordings` were counted before `on_record` was read: `None`
    /// when they have changed since, and nothing was noted. `clears_set_id`: the writer has no privileges.
    pub fn note(
        &self,
        extents: &[Extent],
        wall_ns: u64,
        clears_set_id: bool,
        on_record: &Attr,
        recordings: u64,
    ) -> Option<Noted> {
        self.change(|layers| {
            if layers.recordings != recordings {
                return None;
            }
            let mut before = on_record.clone();
            layers.show(&mut before);
            for extent in extents {
                layers.pending.insert(*extent);
            }
            layers.pending_clears_set_id |= clears_set_id;
            // Later than what clients were shown, or they would not see the change.
            layers.mtime_ns = wall_ns.max(before.ctime_ns.saturating_add(1));
            layers.newest_note = self.sums.notes.fetch_add(1, Relaxed) + 1;
            let mut after = on_record.clone();
            layers.show(&mut after);
            let (number, refusals) = (layers.newest_note, layers.refusals);
            Some(Noted { before, after, number, recorded_ctime_ns: on_record.ctime_ns, refusals })
        })
    }

    /// How often data went from here to the record.
    pub fn recordings(&self) -> u64 {
        self.lock().recordings
    }

    /// How often data was refused by the record, and dropped.
    pub fn refusals(&self) -> u64 {
        self.lock().refusals
    }

    /// Shows the file's attributes as they will be, and gives the number of the last note. `recordings` were counted
    /// before those on record were read: `None` when they have changed since, so that data may be in neither.
    pub fn show(&self, attr: &mut Attr, recordings: u64) -> Option<u64> {
        let layers = self.lock();
        if layers.recordings != recordings {
            return None;
        }
        layers.show(attr);
        Some(layers.newest_note)
    }

    /// As [`Unrecorded::show`], and gives what lies over the recorded extents in a range: up to where there are `limit`
    /// extents.
    pub fn show_data(
        &self,
        attr: &mut Attr,
        recordings: u64,
        mut range: Range<u64>,
        limit: usize,
    ) -> Option<(Layer, Range<u64>)> {
        let layers = self.lock();
        if layers.recordings != recordings {
            return None;
        }
        layers.show(attr);
        let mut over = Layer::default();
        for layer in [&layers.recording, &layers.pending] {
            let mut last = None;
            for (at, extent) in layer.within(range.clone()).take(limit).enumerate() {
                over.insert(extent);
                last = (at + 1 == limit).then_some(extent.end());
            }
            range.end = last.unwrap_or(range.end);
        }
        Some((over, range))
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Begins a recording of everything noted so far; the gate is held alone, and no operation of an earlier one is left.
    pub fn begin(&self) -> Begun {
        self.change(|layers| {
            let pending = std::mem::take(&mut layers.pending);
            // What an earlier recording could not sync goes along, below what was written since.
            layers.recording.cover(&pending);
            layers.recording_clears_set_id |= std::mem::take(&mut layers.pending_clears_set_id);
            Begun {
                extents: layers.recording.extents().copied().collect(),
                mtime_ns: layers.mtime_ns,
                clears_set_id: layers.recording_clears_set_id,
                newest_note: layers.newest_note,
            }
        })
    }

    /// What the recording has within `range` leaves: it is on record, or was refused.
    pub fn settle(&self, range: Range<u64>, refused: bool) {
        self.change(|layers| {
            layers.recording.cut(range);
            layers.recording_clears_set_id &= !layers.recording.is_empty();
            layers.recordings += 1;
            layers.refusals += u64::from(refused);
        });
    }

    /// The file is gone, and its data with it.
    pub fn give_up(&self) {
        self.change(|layers| {
            let Layers { recordings, refusals, newest_note, .. } = *layers;
            *layers = Layers { recordings: recordings + 1, refusals, newest_note, ..Layers::default() };
        });
    }
}
