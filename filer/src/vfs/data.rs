//! Reading and writing of file data.

use super::{
    Look, Vfs, errors,
    layers::Layer,
    permissions,
    recording::Recorded,
    unrecorded::{Noted, Unrecorded},
};
use crate::{
    fs::{Caller, Changed, FILE_BYTES_MAX, FileSystem, FsError, ReadData, Stable, Written},
    reading::ReadError,
};
use bytes::Bytes;
use std::{collections::BTreeMap, ops::Range, time::Duration};
use storage::cloudfs::{Attr, Extent, Handle, NodeKind, read};

/// Where sequential readers will go on, the latest ones.
pub struct Readers {
    next: BTreeMap<Handle, (u64, u64)>,
    clock: u64,
    max: usize,
}

impl Readers {
    /// Remembers at most `max` readers.
    pub fn new(max: usize) -> Self {
        Self { next: BTreeMap::new(), clock: 0, max }
    }

    /// Notes a read; tells whether it goes on where the last one ended.
    fn note(&mut self, file: Handle, range: &Range<u64>) -> bool {
        self.clock += 1;
        if self.next.len() >= self.max && !self.next.contains_key(&file) {
            let oldest = self.next.iter().min_by_key(|(_, (_, at))| *at).map(|(file, _)| *file);
            oldest.and_then(|oldest| self.next.remove(&oldest));
        }
        let last = self.next.insert(file, (range.end, self.clock));
        range.start == 0 || last.is_some_and(|(next, _)| next == range.start)
    }
}

/// How often a read looks for the file's data, when what it found is gone before it is read.
const LOOKS_MAX: usize = 4;

/// Extents of which a read is made, from each of: the record, what is being recorded, what was written since. A read over
/// more of them gives less than was asked for, and its client goes on from there.
const EXTENTS_MAX: usize = 8192;

/// A range of a file at one moment.
struct Content {
    attr: Attr,
    /// What was asked for, up to the file's end, or as far as its extents go.
    range: Range<u64>,
    /// All of it that is no hole, in order.
    extents: Vec<Extent>,
}

#[derive(Debug, thiserror::Error)]
enum ReadFailure {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Other(#[from] FsError),
}

impl From<ReadFailure> for FsError {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Read(error) => error.into(),
            ReadFailure::Other(error) => error,
        }
    }
}

fn check_file(attr: &Attr) -> Result<(), FsError> {
    match attr.kind {
        NodeKind::File => Ok(()),
        NodeKind::Directory { .. } => Err(FsError::IsDirectory),
        _ => Err(FsError::Invalid("it is no regular file".into())),
    }
}

impl Vfs {
    pub(super) async fn read_data(
        &self,
        caller: &Caller,
        file: Handle,
        offset: u64,
        len: u32,
    ) -> Result<ReadData, FsError> {
        for _ in 1..LOOKS_MAX {
            match self.read_once(caller, file, offset, len).await {
                // Cut off or written over, and deleted, since its place was looked up.
                Err(ReadFailure::Read(ReadError::Gone { .. })) => {}
                read => return Ok(read?),
            }
        }
        Ok(self.read_once(caller, file, offset, len).await?)
    }

    async fn read_once(&self, caller: &Caller, file: Handle, offset: u64, len: u32) -> Result<ReadData, ReadFailure> {
        let wanted = offset..offset.saturating_add(len.into());
        let Content { attr, range, extents } = match self.content(file, wanted.clone()) {
            Err(FsError::Stale) => {
                self.fresh().await?;
                self.content(file, wanted)?
            }
            known => known?,
        };
        check_file(&attr)?;
        permissions::check_read(caller, &attr)?;
        let end = range.end;
        if range.is_empty() {
            return Ok(ReadData { data: Bytes::new(), end_of_file: offset >= attr.bytes, attr });
        }
        if self.readers.lock().expect("no holder of the readers panics").note(file, &range) {
            self.read_ahead(file, end, attr.bytes);
        }
        let data = self.reader.data(file, &range, &extents).await?;
        Ok(ReadData { data, end_of_file: end >= attr.bytes, attr })
    }

    /// What `wanted` of the file is made of: recorded extents, with unrecorded ones over them; all as of one moment.
    fn content(&self, file: Handle, wanted: Range<u64>) -> Result<Content, FsError> {
        loop {
            // As in a look at the attributes: counted before the view is taken, and nothing may have left the layers until
            // they are read. So what is in neither was written later.
            let unrecorded = self.unrecorded.get(file).map(|unrecorded| (unrecorded.recordings(), unrecorded));
            let view = self.kv.view();
            let mut attr = read::node(&*view, file)?.ok_or(FsError::Stale)?;
            let (mut over, mut range) = (Layer::default(), wanted.clone());
            if let Some((recordings, unrecorded)) = unrecorded {
                match unrecorded.show_data(&mut attr, recordings, range, EXTENTS_MAX) {
                    Some(shown) => (over, range) = shown,
                    None => continue,
                }
            }
            range.end = range.end.min(attr.bytes);
            let recorded = read::first_extents(&*view, file.ino, range.clone(), EXTENTS_MAX)?;
            if let Some(last) = recorded.last().filter(|_| recorded.len() == EXTENTS_MAX) {
                range.end = last.end();
            }
            if over.is_empty() {
                return Ok(Content { attr, range, extents: recorded });
            }
            let mut layer = Layer::default();
            for extent in &recorded {
                layer.insert(*extent);
            }
            layer.cover(&over);
            let extents = layer.within(range.clone()).collect();
            return Ok(Content { attr, range, extents });
        }
    }

    fn read_ahead(&self, file: Handle, from: u64, file_bytes: u64) {
        let to = from.saturating_add(self.reader.read_ahead_bytes()).min(file_bytes);
        // Whoever reads on there is told what is wrong.
        if from < to
            && let Ok(content) = self.content(file, from..to)
        {
            self.reader.ahead(file, &content.extents);
        }
    }

    /// Keeps what is not on record yet within its bound: each extent takes memory until then.
    async fn limit_unrecorded(&self, file: Handle) -> Result<(), FsError> {
        let extents_max = self.settings.unrecorded_extents_max;
        if self.unrecorded.extents() < extents_max {
            return Ok(());
        }
        self.record(file).await?;
        match self.unrecorded.extents() {
            extents if extents < extents_max => Ok(()),
            extents => Err(FsError::Later(format!("{extents} written pieces are not on record yet"))),
        }
    }

    pub(super) async fn write_data(
        &self,
        caller: &Caller,
        file: Handle,
        offset: u64,
        data: Bytes,
        stable: Stable,
    ) -> Result<Written, FsError> {
        let attr = self.attr_or_surely_stale(file).await?;
        check_file(&attr)?;
        permissions::check_write(caller, &attr)?;
        self.check_stays()?;
        let bytes = data.len() as u32;
        if offset.saturating_add(bytes.into()) > FILE_BYTES_MAX {
            return Err(FsError::TooLarge);
        }
        // Before the data is noted: if it is dropped later, the verifier changes after this.
        let verifier = self.write_verifier();
        let written = |stable, change| Ok(Written { bytes, stable, change, verifier });
        if bytes == 0 {
            let found = self.look(file)?;
            let recorded = if stable == Stable::Unstable { Recorded::default() } else { self.record(file).await? };
            return written(stable, self.change_since(&found, &recorded)?);
        }
        let wait_max = Duration::from_millis(self.settings.room_ms_max);
        self.limit_unrecorded(file).await?;
        // Kept until it is on record, where that is asked for: what is refused meanwhile is counted there.
        let unrecorded = self.unrecorded.of(file);
        let Noted { before, after, number, recorded_ctime_ns, refusals } = {
            // Before the gate: who waits for room must not hold up the recording that leads to a release.
            let _room = self.staging.admit(bytes.into(), wait_max).await?;
            let _gate = unrecorded.gate.read().await;
            let extents = self.staging.append(file, offset, data).await?;
            self.note(caller, file, &unrecorded, &extents)?
        };
        if stable == Stable::Unstable {
            return written(stable, Changed { before: Some(errors::before(&before)), after: Some(after) });
        }
        let found = Look { attr: before, recorded_ctime_ns, newest_note: number };
        let recorded = self.record_all(file, &unrecorded, refusals).await?;
        written(Stable::FileSync, self.change_since(&found, &recorded)?)
    }

    /// Notes appended extents over what is on record now.
    fn note(
        &self,
        caller: &Caller,
        file: Handle,
        unrecorded: &Unrecorded,
        extents: &[Extent],
    ) -> Result<Noted, FsError> {
        loop {
            let recordings = unrecorded.recordings();
            let on_record = read::node(&*self.kv, file)?.ok_or(FsError::Stale)?;
            let clears_set_id = permissions::clears_set_id(caller);
            let noted = unrecorded.note(extents, self.door.wall_ns(), clears_set_id, &on_record, recordings);
            if let Some(noted) = noted {
                return Ok(noted);
            }
        }
    }
}
