//! Staging after a crash: every whole frame is kept, a torn tail is cut, what was open is sealed.
//!
//! A file is a segment's of this filer when its header says so, or, where that is damaged, when its name does and its index
//! or the mark of a frame in it does. Anything else is foreign, and then nothing is touched.

use super::{
    Entry, Settings, Staging, State,
    mending::{apply, tell_set_right},
    staging_file,
    writing::replace_file,
};
use crate::{
    disk::{Disk, DiskError, DiskFile, Readable},
    ids::{Md5, SegmentId},
    segment::{Damage, HEADER_BYTES, Header, SurveyError, mend_around, survey},
};
use mesh::{FilerId, clock::Clock};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex},
};
use tokio::{sync::Notify, time::Instant};

/// Why staging cannot be used. It is left as it was found.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RecoverError {
    #[error(
        "staging file {file}: {source}; nothing was changed; let the version that wrote it serve until it has staged nothing"
    )]
    Version { file: String, source: SurveyError },
    #[error(
        "staging file {file} is no segment of this filer, or its disk has destroyed it; nothing was changed; move it out of this directory to start without what it held"
    )]
    Unknown { file: String },
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    pub segment: SegmentId,
    pub md5: Md5,
    pub bytes: u64,
    /// Bytes cut from its end, where a crash tore a write.
    pub cut_bytes: u64,
    /// Frames that the disk has damaged, found now.
    pub damaged: Vec<Damage>,
    /// Frames that read as lost, found now or before. If there are any, and a cloud has the segment as it was, that one
    /// is right.
    pub lost_frames: u64,
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
            check_owner(&*disk, file, me, cloudfs).await?;
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
            state.next_number = state.next_number.max(segment.number + 1);
            if let Some((found, entry)) = recover_one(&*disk, &*clock, header, file.bytes as usize).await? {
                state.bytes += entry.bytes;
                state.unwritten_bytes += entry.unwritten_bytes;
                state.memory_bytes += entry.body.as_ref().map_or(0, |body| body.len() as u64);
                state.note_damage(segment, &found.damaged);
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

async fn check_owner(disk: &dyn Disk, found: &DiskFile, me: FilerId, cloudfs: u64) -> Result<(), RecoverError> {
    let file = found.name.as_str();
    let head = Readable::read(disk, file, HEADER_BYTES).await?.bytes;
    let source = match Header::read(&head) {
        Ok(header) if header.cloudfs != cloudfs || header.segment.filer != me => {
            let (filer, cloudfs) = (header.segment.filer, header.cloudfs);
            return Err(RecoverError::Foreign { file: file.into(), filer, cloudfs });
        }
        Ok(header) if segment_of(file, me) == Some(header.segment) => return Ok(()),
        Ok(_) => return Err(RecoverError::Misnamed { file: file.into() }),
        Err(source) => source,
    };
    let unknown = || RecoverError::Unknown { file: file.into() };
    let header = |segment| Header { cloudfs, segment };
    let named = segment_of(file, me).map(header);
    let damaged = match source {
        // The crash came before the first sync, or the disk has damaged it: its name says whose it is.
        SurveyError::Short { .. } | SurveyError::Damaged { .. } => false,
        // Blocks that were allocated and never written read as zeroes; so does here what cannot be read.
        SurveyError::Foreign if head.iter().all(|byte| *byte == 0) => false,
        SurveyError::Foreign => true,
        // Another version's header is right in itself, and so differs by more than its version.
        SurveyError::Version { .. } => {
            let wrong_bits = named.and_then(|header| header.wrong_bits(&head));
            if wrong_bits.is_none_or(|bits| bits > WRONG_BITS_MAX) {
                return Err(RecoverError::Version { file: file.into(), source });
            }
            true
        }
    };
    match named {
        None if damaged => Err(unknown()),
        None => Err(RecoverError::Misnamed { file: file.into() }),
        Some(header) if damaged => {
            let read = Readable::read(disk, file, found.bytes as usize).await?;
            let frames = survey(&header, &read.bytes).frames;
            // An index is right for this segment alone, and the mark of a frame for its place in it.
            let own = frames.iter().any(|frame| frame.head.is_some());
            own.then_some(()).ok_or_else(unknown)
        }
        Some(_) => Ok(()),
    }
}

/// Bits by which a damaged header differs from a right one, where it looks like that of another version. Two right ones
/// differ by more.
const WRONG_BITS_MAX: u32 = 2;

/// How often a file is read anew that can be read in part, now here and now there.
const READS_MAX: u32 = 3;

async fn recover_one(
    disk: &dyn Disk,
    clock: &dyn Clock,
    header: Header,
    len: usize,
) -> Result<Option<(Recovered, Entry)>, RecoverError> {
    for _ in 0..READS_MAX {
        let read = Readable::read(disk, &staging_file(header.segment), len).await?;
        match recover_read(disk, clock, header, read).await? {
            Attempt::Recovered(recovered) => return Ok(Some(*recovered)),
            Attempt::Removed => return Ok(None),
            Attempt::ReadAgain => {}
        }
    }
    let why = "its disk comes and goes".into();
    Err(DiskError::Failed { attempted: "reading", file: staging_file(header.segment), why }.into())
}

/// What came of one reading of a staged file.
enum Attempt {
    Recovered(Box<(Recovered, Entry)>),
    /// It held nothing that was ever acknowledged.
    Removed,
    /// What could not be read can be read by now.
    ReadAgain,
}

async fn recover_read(
    disk: &dyn Disk,
    clock: &dyn Clock,
    header: Header,
    Readable { bytes, lost }: Readable,
) -> Result<Attempt, RecoverError> {
    let (segment, file) = (header.segment, staging_file(header.segment));
    if !lost.is_empty() {
        tracing::error!(%segment, file, bytes = ?lost, "the disk cannot read these bytes of a staged segment any more");
    }
    let Some(mended) = mend_around(header, &bytes, &lost) else {
        // Not even its first frame was written whole, so that no sync of it was ever acknowledged; or the disk has damaged more
        // of it than tells that from a torn write.
        tracing::warn!(%segment, file, bytes = bytes.len(), "a staged segment holds no whole frame, as after a crash, and is removed");
        disk.remove(&file).await?;
        return Ok(Attempt::Removed);
    };
    let written_bytes = if lost.is_empty() {
        // Where nothing is to be mended, this makes sure of what the last run wrote and did not sync.
        apply(disk, &file, &mended).await?
    } else {
        match replace_file(disk, segment, mended.sealed.body.clone(), &lost).await {
            Ok(true) => mended.sealed.body.len() as u64,
            Ok(false) => return Ok(Attempt::ReadAgain),
            Err(DiskError::Full { .. }) => 0,
            Err(error) => return Err(error.into()),
        }
    };
    tell_set_right(segment, &mended);
    let (sealed, cut_bytes, damaged, lost_frames) =
        (mended.sealed, mended.cut_bytes, mended.damaged, mended.lost_frames);
    if cut_bytes > 0 {
        tracing::warn!(%segment, cut_bytes, from = sealed.tail_at, "the end of a staged segment is torn, and cut");
    }
    let (md5, bytes) = (sealed.md5, sealed.body.len() as u64);
    let unwritten = (written_bytes < bytes).then_some(sealed.body);
    let entry = Entry {
        packer: None,
        unwritten: unwritten.iter().map(|body| body.slice(written_bytes as usize..)).collect::<VecDeque<_>>(),
        unwritten_bytes: bytes - written_bytes,
        body: unwritten,
        md5: Some(md5),
        bytes,
        files: BTreeSet::new(),
        opened: Instant::now(),
        is_rest: false,
        appended: Instant::now(),
        since_wall_ns: mended.oldest_wall_ns.unwrap_or_else(|| clock.wall_ns()),
        written_bytes,
        synced_bytes: written_bytes,
        // What cannot be read is replaced, and not written to.
        failed: !lost.is_empty() && written_bytes < bytes,
        doubtful: lost_frames > 0,
        wrong: false,
        told: BTreeSet::new(),
        turn: Arc::default(),
    };
    Ok(Attempt::Recovered(Box::new((Recovered { segment, md5, bytes, cut_bytes, damaged, lost_frames }, entry))))
}
