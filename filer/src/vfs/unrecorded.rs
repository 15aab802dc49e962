//! A file's data that was written here and is not on record yet, and the one way in which it gets there.
//!
//! Writers of a file share its gate while they append and note what they appended; whoever records the file takes the
//! gate alone for a moment. So whatever was appended to a segment before the segment was closed is noted before the
//! file's flush for that segment looks.
//!
//! ```text
//! note -> pending -- gate alone --> recording -- synced --> operations in order, each applied once -> on record
//! ```
//!
//! A caller may go away, or get no answer, at any of these steps: who comes next goes on where it stopped. Operations
//! that were proposed are asked for again and never proposed anew, since between their first application and a second
//! one another site may have written to the same place.

use super::{Vfs, layers::Layer};
use crate::{
    door::{DoorError, Once},
    fs::FsError,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use storage::{
    cloudfs::{Attr, Extent, Handle, OpBody, OpError},
    ids::SegmentId,
};
use tokio::sync::RwLock;

/// Files remembered before those without unrecorded data are looked for.
const SWEEP_FILES_MIN: usize = 64;

/// The extents of an operation as those of two, which together write the same; `None` for what has no parts.
fn in_parts(extents: &[Extent]) -> Option<[Vec<Extent>; 2]> {
    match extents {
        [] => None,
        [one] => {
            let middle = one.offset + u64::from(one.len / 2);
            Some([vec![one.clipped(0..middle)?], vec![one.clipped(middle..u64::MAX)?]])
        }
        several => {
            let (first, second) = several.split_at(several.len() / 2);
            Some([first.to_vec(), second.to_vec()])
        }
    }
}

/// All files with unrecorded data.
#[derive(Default)]
pub struct UnrecordedFiles {
    files: Mutex<Files>,
    /// Extents of all of them.
    extents: Arc<AtomicUsize>,
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
    /// Being recorded.
    recording: Layer,
    /// When the newest of it was written, nanoseconds since the Unix epoch.
    mtime_ns: u64,
    /// How often data went from here to the record.
    recordings: u64,
}

/// The unrecorded data of one file.
pub struct Unrecorded {
    layers: Mutex<Layers>,
    /// Shared by writers, taken alone to begin a recording.
    pub gate: RwLock<()>,
    /// One recording at a time; the operations that it has proposed, or will, and whose answers are not known.
    turn: tokio::sync::Mutex<VecDeque<Once>>,
    /// Extents of all files.
    extents: Arc<AtomicUsize>,
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
            Arc::new(Unrecorded { layers, gate, turn, extents: self.extents.clone() })
        };
        files.by_handle.entry(file).or_insert_with(new).clone()
    }

    /// How many extents all files together have.
    pub fn extents(&self) -> usize {
        self.extents.load(Relaxed)
    }

    fn forget(&self, file: Handle, unrecorded: &Arc<Unrecorded>) {
        let mut files = self.lock();
        // Two handles are this map's and the caller's; a third is a writer's that is about to note something.
        if unrecorded.is_empty() && Arc::strong_count(unrecorded) <= 2 {
            files.by_handle.remove(&file);
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
        self.extents.fetch_add(layers.pending.len() + layers.recording.len(), Relaxed);
        self.extents.fetch_sub(before, Relaxed);
        changed
    }

    /// Notes extents that were appended; the gate is held.
    pub fn note(&self, extents: &[Extent], wall_ns: u64) {
        self.change(|layers| {
            for extent in extents {
                layers.pending.insert(*extent);
            }
            layers.mtime_ns = layers.mtime_ns.max(wall_ns);
        });
    }

    /// How often data went from here to the record.
    pub fn recordings(&self) -> u64 {
        self.lock().recordings
    }

    /// Shows the file's attributes as they will be. `recordings` were counted before those on record were read: `false`
    /// when they have changed since, so that data may be in neither.
    pub fn show(&self, attr: &mut Attr, recordings: u64) -> bool {
        let layers = self.lock();
        if layers.recordings != recordings {
            return false;
        }
        if !(layers.pending.is_empty() && layers.recording.is_empty()) {
            attr.bytes = attr.bytes.max(layers.pending.end()).max(layers.recording.end());
            attr.mtime_ns = attr.mtime_ns.max(layers.mtime_ns);
            attr.ctime_ns = attr.ctime_ns.max(layers.mtime_ns);
        }
        true
    }

    /// What lies over the recorded extents in a range.
    pub fn within(&self, range: std::ops::Range<u64>) -> Layer {
        let layers = self.lock();
        let mut over = Layer::default();
        for extent in layers.recording.within(range.clone()).chain(layers.pending.within(range)) {
            over.insert(extent);
        }
        over
    }

    fn is_empty(&self) -> bool {
        let layers = self.lock();
        layers.pending.is_empty() && layers.recording.is_empty()
    }

    fn begin(&self) -> (Vec<Extent>, u64) {
        self.change(|layers| {
            let pending = std::mem::take(&mut layers.pending);
            // What an earlier recording could not sync goes along, below what was written since.
            layers.recording.cover(&pending);
            (layers.recording.extents().copied().collect(), layers.mtime_ns)
        })
    }

    fn recorded(&self) {
        self.change(|layers| {
            layers.recording = Layer::default();
            layers.recordings += 1;
        });
    }

    fn give_up(&self) {
        self.change(|layers| *layers = Layers { recordings: layers.recordings + 1, ..Layers::default() });
    }
}

impl Vfs {
    /// Makes everything written to the file before durable in staging, and puts it on record: other sites see it.
    pub(super) async fn record(&self, file: Handle) -> Result<(), FsError> {
        let Some(unrecorded) = self.unrecorded.get(file) else {
            return Ok(());
        };
        let recorded = self.record_in_turn(file, &unrecorded).await;
        self.unrecorded.forget(file, &unrecorded);
        recorded
    }

    async fn record_in_turn(&self, file: Handle, unrecorded: &Unrecorded) -> Result<(), FsError> {
        let mut operations = unrecorded.turn.lock().await;
        // What an earlier caller left behind.
        self.carry_out(unrecorded, &mut operations).await?;
        let (extents, mtime_ns) = {
            let _gate = unrecorded.gate.write().await;
            unrecorded.begin()
        };
        let segments: BTreeSet<SegmentId> = extents.iter().map(|extent| extent.segment).collect();
        for segment in segments {
            self.staging.sync(segment).await?;
        }
        operations.extend(
            extents
                .chunks(self.settings.extents_max)
                .map(|extents| self.door.once(OpBody::Write { file, extents: extents.to_vec(), mtime_ns })),
        );
        self.carry_out(unrecorded, &mut operations).await
    }

    /// Carries out the operations of a recording, in order.
    async fn carry_out(&self, unrecorded: &Unrecorded, operations: &mut VecDeque<Once>) -> Result<(), FsError> {
        if operations.is_empty() {
            return Ok(());
        }
        while let Some(operation) = operations.front() {
            match self.door.ask(operation).await {
                Ok(_) => {
                    operations.pop_front();
                }
                Err(DoorError::Refused(error @ OpError::TooManyExtents { .. })) => {
                    // Nothing of it was applied: it comes again in parts, in its place.
                    let OpBody::Write { file, extents, mtime_ns } = operation.body() else {
                        return Err(error.into());
                    };
                    let parts = in_parts(&extents).ok_or(error)?;
                    operations.pop_front();
                    for extents in parts.into_iter().rev() {
                        operations.push_front(self.door.once(OpBody::Write { file, extents, mtime_ns }));
                    }
                }
                Err(DoorError::Refused(error)) => {
                    operations.clear();
                    if error == OpError::Stale {
                        // The file is gone, and its data with it.
                        unrecorded.give_up();
                    }
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
        unrecorded.recorded();
        Ok(())
    }
}
