//! Staging after a crash: every whole frame is kept, a torn tail is cut, what was open is sealed.

use super::{Entry, Settings, Staging, State, staging_file};
use crate::{
    disk::{Disk, DiskError},
    ids::{Md5, SegmentId},
    segment::{HEADER_BYTES, Header, Packer, SurveyError, survey},
};
use bytes::Bytes;
use mesh::{FilerId, clock::Clock};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex},
};
use tokio::{sync::Notify, time::Instant};

/// Why staging cannot be used. It is left as it was found.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("staging file {file}: {source}; nothing was changed")]
    Segment { file: String, source: SurveyError },
    #[error(
        "staging file {file} belongs to filer {filer} of CloudFS {cloudfs:016x}, not to this one; nothing was changed"
    )]
    Foreign { file: String, filer: FilerId, cloudfs: u64 },
    #[error("staging file {file} does not have the name of a segment of this filer that it holds; nothing was changed")]
    Misnamed { file: String },
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// A sealed segment that was found in staging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    pub segment: SegmentId,
    pub md5: Md5,
    pub bytes: u64,
    /// Bytes cut from a torn tail; none of them was ever synced.
    pub cut_bytes: u64,
}

impl Staging {
    /// Opens staging as the last run left it. `boot` is this run's number, greater than any before: segments of
    /// different runs never share a name.
    pub async fn recover(
        me: FilerId,
        cloudfs: u64,
        boot: u32,
        settings: Settings,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Vec<Recovered>), RecoverError> {
        let all = disk.list().await?;
        let files: Vec<_> = all.iter().filter(|file| file.name.ends_with(".seg")).collect();
        // First look at all of them: a foreign file means that nothing here may be touched.
        for file in &files {
            let head = disk.read(&file.name, 0, HEADER_BYTES).await?;
            check_owner(&file.name, &head, me, cloudfs)?;
        }
        for file in &all {
            if file.name.strip_suffix(".new").is_some_and(|file| segment_of(file, me).is_some()) {
                // A replacement that was not finished: the file that it was for is still there.
                disk.remove(&file.name).await?;
            }
        }
        let mut state = State { next_number: u64::from(boot) << 32, ..State::default() };
        let mut recovered = Vec::new();
        for file in files {
            let segment = segment_of(&file.name, me).ok_or(RecoverError::Misnamed { file: file.name.clone() })?;
            let header = Header { cloudfs, segment };
            let bytes = disk.read(&file.name, 0, file.bytes as usize).await?;
            state.next_number = state.next_number.max(segment.number + 1);
            if let Some((found, entry)) = recover_one(&*disk, &*clock, header, bytes).await? {
                state.bytes += entry.bytes;
                state.unwritten_bytes += entry.unwritten_bytes;
                state.memory_bytes += entry.body.as_ref().map_or(0, |body| body.len() as u64);
                state.entries.insert(segment, entry);
                recovered.push(found);
            }
        }
        let (room, turned, state) = (Notify::new(), Notify::new(), Mutex::new(state));
        Ok((Self { me, cloudfs, settings, disk, clock, state, room, turned }, recovered))
    }
}

/// The segment of this filer whose staging file has this name.
fn segment_of(file: &str, me: FilerId) -> Option<SegmentId> {
    let segment = SegmentId::from_key(&format!("segments/{}", file.strip_suffix(".seg")?.replacen('-', "/", 1)))?;
    (segment.filer == me && segment.number < u64::MAX && staging_file(segment) == file).then_some(segment)
}

fn check_owner(file: &str, head: &Bytes, me: FilerId, cloudfs: u64) -> Result<(), RecoverError> {
    match Header::read(head) {
        Ok(header) if header.cloudfs != cloudfs || header.segment.filer != me => {
            let (filer, cloudfs) = (header.segment.filer, header.cloudfs);
            return Err(RecoverError::Foreign { file: file.into(), filer, cloudfs });
        }
        Ok(header) if segment_of(file, me) == Some(header.segment) => return Ok(()),
        Ok(_) => return Err(RecoverError::Misnamed { file: file.into() }),
        // The crash came before the first sync, or the disk has damaged it: its name says whose it is.
        Err(SurveyError::Short { .. } | SurveyError::Damaged { .. }) => {}
        // Blocks that were allocated and never written read as zeroes.
        Err(SurveyError::Foreign) if head.iter().all(|byte| *byte == 0) => {}
        Err(source) => return Err(RecoverError::Segment { file: file.into(), source }),
    }
    segment_of(file, me).map(|_| ()).ok_or(RecoverError::Misnamed { file: file.into() })
}

/// The file's bytes under the header that they should have: frames behind a damaged one are not lost with it.
fn with_header(header: Header, bytes: Bytes) -> (Bytes, bool) {
    if bytes.len() < HEADER_BYTES || Header::read(&bytes).is_ok() {
        return (bytes, false);
    }
    ([&header.to_bytes()[..], &bytes[HEADER_BYTES..]].concat().into(), true)
}

async fn recover_one(
    disk: &dyn Disk,
    clock: &dyn Clock,
    header: Header,
    bytes: Bytes,
) -> Result<Option<(Recovered, Entry)>, RecoverError> {
    let (segment, file) = (header.segment, staging_file(header.segment));
    let (bytes, mended) = with_header(header, bytes);
    let found = match survey(&bytes) {
        Ok(found) if found.sealed || !found.frames.is_empty() => found,
        // Not even its first frame is whole, so no sync of it was ever acknowledged.
        _ => {
            disk.remove(&file).await?;
            return Ok(None);
        }
    };
    if mended {
        tracing::warn!(%segment, "a staged segment's header was damaged and is written again");
        disk.write(&file, 0, vec![bytes.slice(..HEADER_BYTES)]).await?;
    }
    let cut_bytes = bytes.len() as u64 - found.good_bytes;
    let mut unwritten = None;
    let (md5, bytes) = if found.sealed {
        (Md5::of(&bytes), bytes.len() as u64)
    } else {
        let sealed = Packer::resume(found.header, &bytes.slice(..found.good_bytes as usize)).seal();
        disk.truncate(&file, found.good_bytes).await?;
        match disk.write(&file, sealed.tail_at, vec![sealed.body.slice(sealed.tail_at as usize..)]).await {
            Ok(()) => {}
            // The tail says nothing that the frames do not say. Full is what a disk gets by not releasing, and a filer
            // that does not start releases nothing.
            Err(DiskError::Full { .. }) => unwritten = Some(sealed.body.clone()),
            Err(error) => return Err(error.into()),
        }
        (sealed.md5, sealed.body.len() as u64)
    };
    disk.sync(&file).await?;
    let written_bytes = if unwritten.is_some() { found.good_bytes } else { bytes };
    let entry = Entry {
        packer: None,
        unwritten: unwritten.iter().map(|body| body.slice(found.good_bytes as usize..)).collect::<VecDeque<_>>(),
        unwritten_bytes: bytes - written_bytes,
        body: unwritten,
        md5: Some(md5),
        bytes,
        files: BTreeSet::new(),
        opened: Instant::now(),
        since_wall_ns: found.frames.iter().map(|(head, _)| head.wall_ns).min().unwrap_or_else(|| clock.wall_ns()),
        written_bytes,
        synced_bytes: written_bytes,
        failed: false,
        turn: Arc::default(),
    };
    Ok(Some((Recovered { segment, md5, bytes, cut_bytes }, entry)))
}
