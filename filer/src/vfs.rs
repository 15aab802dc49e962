//! The file system: the CloudFS as the doors see it, made of the replicated state, this filer's staging and its reader.
//!
//! Names and attributes are the replicated state's: a look at them waits until the local tables hold everything that
//! was acknowledged anywhere before (close-to-open), a change is an operation. Data that clients wrote here is in staging
//! and lies over the recorded extents until it is recorded itself: at a COMMIT, or when its segment is closed.
//!
//! Owns: permissions, the order of a file's writes and records. Does not own: the rules of the tree (`storage::cloudfs`),
//! where data lies (`storage::staging`, `reading`), any protocol.

mod data;
mod errors;
mod freshness;
mod layers;
mod names;
mod permissions;
mod recording;
mod unrecorded;

pub use freshness::FreshnessStatus;

use crate::{
    actors::cache::Flush,
    door::Door,
    fs::{Caller, Changed, CreateHow, DirPage, FileSystem, FsError, Made, ReadData, Room, SetAttr, Stable, Written},
    reading::Reader,
};
use bytes::Bytes;
use mesh::kv::Kv;
use recording::Recorded;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use storage::{
    cloudfs::{Attr, Handle, NewNode, ROOT, read},
    staging::Staging,
};
use unrecorded::UnrecordedFiles;

/// What a filer does for its clients while it has no majority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WithoutMajority {
    /// They wait (NFS: JUKEBOX).
    #[default]
    Wait,
    /// They read what this filer has, which may be old, as soon as it knows that it has none; changes wait.
    ReadOnly,
}

/// Settings of the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a write waits for room in staging, in milliseconds.
    pub room_ms_max: u64,
    pub without_majority: WithoutMajority,
    /// Names and attributes may be as old as this, in milliseconds; `None`: never older than anything acknowledged
    /// before.
    pub stale_ms_max: Option<u64>,
    /// Extents recorded by one operation.
    pub extents_max: usize,
    /// Extents of all files that are written here and not on record yet; more wait for a recording.
    pub unrecorded_extents_max: usize,
    /// Room that is shown to clients, in bytes: clouds have no end of their own.
    pub room_bytes: u64,
    /// Sequential readers that are remembered.
    pub readers_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            room_ms_max: 15_000,
            without_majority: WithoutMajority::Wait,
            stale_ms_max: None,
            extents_max: 2048,
            unrecorded_extents_max: 1 << 20,
            room_bytes: 1 << 50,
            readers_max: 1024,
        }
    }
}

/// The file system of one filer.
pub struct Vfs {
    door: Door,
    kv: Arc<dyn Kv>,
    staging: Arc<Staging>,
    reader: Arc<Reader>,
    settings: Settings,
    verifier: AtomicU64,
    freshness: freshness::Freshness,
    unrecorded: UnrecordedFiles,
    readers: Mutex<data::Readers>,
}

impl Vfs {
    /// The file system over these parts. `verifier` differs from every earlier run's.
    pub fn new(
        door: Door,
        kv: Arc<dyn Kv>,
        staging: Arc<Staging>,
        reader: Arc<Reader>,
        settings: Settings,
        verifier: u64,
    ) -> Self {
        let readers = Mutex::new(data::Readers::new(settings.readers_max));
        let (verifier, freshness, unrecorded) = (AtomicU64::new(verifier), Default::default(), Default::default());
        Self { door, kv, staging, reader, settings, verifier, freshness, unrecorded, readers }
    }

    /// Extents of all files that are written here and not on record yet.
    pub fn unrecorded_extents(&self) -> usize {
        self.unrecorded.extents()
    }

    /// Unstable writes under the verifier so far may be gone: clients write them again.
    fn change_verifier(&self) {
        // The lower half is the number of this run, which the next one's must differ from.
        self.verifier.fetch_add(1 << 32, Ordering::SeqCst);
    }

    /// As [`Vfs::attr`], but that a handle is stale is believed of the newest state alone: another site may have made the file
    /// a moment ago.
    async fn attr_or_surely_stale(&self, file: Handle) -> Result<Attr, FsError> {
        match self.attr(file) {
            Err(FsError::Stale) => {
                self.fresh().await?;
                self.attr(file)
            }
            known => known,
        }
    }

    /// The attributes on record, with what was written here and is not recorded yet.
    fn attr(&self, file: Handle) -> Result<Attr, FsError> {
        Ok(self.look(file)?.attr)
    }

    fn look(&self, file: Handle) -> Result<Look, FsError> {
        loop {
            // Counted first: what goes on record between the two looks must not be missed by both.
            let unrecorded = self.unrecorded.get(file).map(|unrecorded| (unrecorded.recordings(), unrecorded));
            let mut attr = read::node(&*self.kv, file)?.ok_or(FsError::Stale)?;
            let recorded_ctime_ns = attr.ctime_ns;
            let newest_note = match unrecorded {
                None => Some(0),
                Some((recordings, unrecorded)) => unrecorded.show(&mut attr, recordings),
            };
            if let Some(newest_note) = newest_note {
                return Ok(Look { attr, recorded_ctime_ns, newest_note });
            }
        }
    }

    /// A file's change by a call that found it as `found` and then `recorded` it. The attributes before it are left out
    /// when somebody else has changed the file meanwhile: clients would take that change for the caller's own, and keep
    /// what they have cached (RFC 1813, 2.3.8).
    fn change_since(&self, found: &Look, recorded: &Recorded) -> Result<Changed, FsError> {
        let now = self.look(found.attr.handle)?;
        let alone = now.newest_note <= found.newest_note
            && recorded.is_all_between(found.recorded_ctime_ns, now.recorded_ctime_ns, found.newest_note);
        Ok(Changed { before: alone.then(|| errors::before(&found.attr)), after: Some(now.attr) })
    }
}

/// A file as this site's clients see it, and what that is made of.
struct Look {
    attr: Attr,
    /// Of the attributes on record.
    recorded_ctime_ns: u64,
    /// Number of the last note of written data; 0: there is none that is not on record.
    newest_note: u64,
}

#[async_trait::async_trait]
impl Flush for Vfs {
    async fn flush_until_recorded(&self, file: Handle) {
        loop {
            match self.record(file).await {
                Ok(_) | Err(FsError::Stale) => return,
                Err(error) => {
                    tracing::warn!(ino = file.ino, %error, "written data is not on record yet");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }
}

#[async_trait::async_trait]
impl FileSystem for Vfs {
    fn root(&self) -> Handle {
        ROOT
    }

    fn write_verifier(&self) -> u64 {
        self.verifier.load(Ordering::SeqCst)
    }

    async fn getattr(&self, _caller: &Caller, file: Handle) -> Result<Attr, FsError> {
        self.fresh().await?;
        self.attr(file)
    }

    async fn setattr(
        &self,
        caller: &Caller,
        file: Handle,
        set: SetAttr,
        guard_ctime_ns: Option<u64>,
    ) -> Result<Changed, FsError> {
        self.change_attributes(caller, file, set, guard_ctime_ns).await
    }

    async fn lookup(&self, caller: &Caller, dir: Handle, name: &[u8]) -> Result<Attr, FsError> {
        self.find(caller, dir, name).await
    }

    async fn access(&self, caller: &Caller, file: Handle, wanted: u32) -> Result<(u32, Attr), FsError> {
        self.fresh().await?;
        let attr = self.attr(file)?;
        Ok((permissions::granted(caller, &attr) & wanted, attr))
    }

    async fn readlink(&self, _caller: &Caller, file: Handle) -> Result<(Bytes, Attr), FsError> {
        self.fresh().await?;
        self.link_target(file)
    }

    async fn read(&self, caller: &Caller, file: Handle, offset: u64, len: u32) -> Result<ReadData, FsError> {
        self.caught_up().await?;
        self.read_data(caller, file, offset, len).await
    }

    async fn write(
        &self,
        caller: &Caller,
        file: Handle,
        offset: u64,
        data: Bytes,
        stable: Stable,
    ) -> Result<Written, FsError> {
        self.caught_up().await?;
        self.write_data(caller, file, offset, data, stable).await
    }

    async fn commit(&self, caller: &Caller, file: Handle) -> Result<Changed, FsError> {
        self.caught_up().await?;
        permissions::check_write(caller, &self.attr_or_surely_stale(file).await?)?;
        let found = self.look(file)?;
        let recorded = self.record(file).await?;
        self.change_since(&found, &recorded)
    }

    async fn create(
        &self,
        caller: &Caller,
        dir: Handle,
        name: &[u8],
        set: SetAttr,
        how: CreateHow,
    ) -> Result<Made, FsError> {
        self.caught_up().await?;
        self.create_file(caller, dir, name, set, how).await
    }

    async fn make(
        &self,
        caller: &Caller,
        dir: Handle,
        name: &[u8],
        node: NewNode,
        set: SetAttr,
    ) -> Result<Made, FsError> {
        self.caught_up().await?;
        self.make_node(caller, dir, name, node, set).await
    }

    async fn remove(&self, caller: &Caller, dir: Handle, name: &[u8]) -> Result<Changed, FsError> {
        self.caught_up().await?;
        self.remove_name(caller, dir, name, false).await
    }

    async fn rmdir(&self, caller: &Caller, dir: Handle, name: &[u8]) -> Result<Changed, FsError> {
        self.caught_up().await?;
        self.remove_name(caller, dir, name, true).await
    }

    async fn rename(
        &self,
        caller: &Caller,
        from: (Handle, &[u8]),
        to: (Handle, &[u8]),
    ) -> Result<(Changed, Changed), FsError> {
        self.caught_up().await?;
        self.rename_entry(caller, from, to).await
    }

    async fn link(&self, caller: &Caller, file: Handle, dir: Handle, name: &[u8]) -> Result<Made, FsError> {
        self.caught_up().await?;
        self.link_file(caller, file, dir, name).await
    }

    async fn readdir(
        &self,
        caller: &Caller,
        dir: Handle,
        cookie: u64,
        entries_max: usize,
        with_attributes: bool,
    ) -> Result<DirPage, FsError> {
        self.read_directory(caller, dir, cookie, entries_max, with_attributes).await
    }

    async fn room(&self, _caller: &Caller, file: Handle) -> Result<(Room, Attr), FsError> {
        self.caught_up().await?;
        let attr = self.attr_or_surely_stale(file).await?;
        let totals = read::totals(&*self.kv)?;
        let bytes_total = self.settings.room_bytes;
        let room = Room {
            bytes_total,
            bytes_free: bytes_total.saturating_sub(totals.live_bytes),
            files_total: u32::MAX.into(),
            files_free: u64::from(u32::MAX).saturating_sub(totals.inodes),
        };
        Ok((room, attr))
    }
}
