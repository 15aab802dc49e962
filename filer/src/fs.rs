//! A file system as its doors (NFS, FUSE) see it.
//!
//! Owns: the words of the doors: handles, attributes, callers, errors. Does not own: how a file is kept (`vfs`),
//! nor any protocol. Every call is made on behalf of a [`Caller`], already squashed by its door; permissions are
//! checked behind this trait.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use storage::cloudfs::{Attr, Handle, NewNode, Times};

/// Who asks: a user at a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// The client's address; `None` for a local door.
    pub client: Option<IpAddr>,
}

/// Why a call failed, in the terms of POSIX.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FsError {
    #[error("not the owner")]
    NotOwner,
    #[error("no such file or directory")]
    NoEntry,
    #[error("input/output error: {0}")]
    Io(String),
    #[error("permission denied")]
    Access,
    #[error("file exists")]
    Exists,
    #[error("not a directory")]
    NotDirectory,
    #[error("is a directory")]
    IsDirectory,
    #[error("invalid argument: {0}")]
    Invalid(String),
    #[error("file too large")]
    TooLarge,
    /// The staging disk (or the clouds) stayed full until the deadline.
    #[error("no space left: {0}")]
    NoSpace(String),
    #[error("read-only file system")]
    ReadOnly,
    #[error("too many links")]
    TooManyLinks,
    #[error("name too long")]
    NameTooLong,
    #[error("directory not empty")]
    NotEmpty,
    /// The handle names nothing (any more).
    #[error("stale handle")]
    Stale,
    #[error("not supported: {0}")]
    NotSupported(String),
    /// A guarded change found the file changed meanwhile (NFS3ERR_NOT_SYNC).
    #[error("the file changed meanwhile")]
    NotSync,
    /// A directory cookie that this directory never gave out.
    #[error("bad directory cookie")]
    BadCookie,
    /// Wait and ask again: the mesh has no majority, or staging is full for the moment (NFS3ERR_JUKEBOX, EAGAIN).
    #[error("try again later: {0}")]
    Later(String),
}

/// What a write promises when it is answered (RFC 1813, 3.3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stable {
    /// Nothing before a COMMIT.
    Unstable,
    /// The data and what is needed to read it back.
    DataSync,
    /// Data and all attributes.
    FileSync,
}

/// Attributes before a change, for weak cache consistency (RFC 1813, 2.3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    pub bytes: u64,
    pub mtime_ns: u64,
    pub ctime_ns: u64,
}

/// A changed object: before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub before: Option<Before>,
    pub after: Option<Attr>,
}

/// A new, or found, object and its directory's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub attr: Attr,
    pub directory: Changed,
}

/// The data of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadData {
    pub data: Bytes,
    pub end_of_file: bool,
    pub attr: Attr,
}

/// A written range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub bytes: u32,
    pub stable: Stable,
    pub change: Changed,
    /// The write verifier from before the data was taken: under a later one it may be gone.
    pub verifier: u64,
}

/// How an existing name is met by [`FileSystem::create`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CreateHow {
    /// An existing file is used as it is (its size set, where attributes say so).
    Unchecked,
    /// An existing name is an error.
    Guarded,
    /// An existing file made with the same verifier is this very call, repeated (RFC 1813, 3.3.8).
    Exclusive { verifier: u64 },
}

/// Attributes to set; `None` leaves one as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub bytes: Option<u64>,
    pub times: Times,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    pub name: Bytes,
    /// Where to go on behind this entry. Stable for the life of the entry, at every filer.
    pub cookie: u64,
    pub ino: u64,
    /// Filled where attributes were asked for.
    pub attr: Option<Attr>,
}

/// A page of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirPage {
    pub entries: Vec<DirEntry>,
    pub end: bool,
    pub attr: Attr,
}

/// Room, in bytes and files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub bytes_total: u64,
    pub bytes_free: u64,
    pub files_total: u64,
    pub files_free: u64,
}

/// What a caller wants to do (RFC 1813, 3.3.4), as a set of bits.
pub mod access {
    pub const READ: u32 = 0x01;
    pub const LOOKUP: u32 = 0x02;
    pub const MODIFY: u32 = 0x04;
    pub const EXTEND: u32 = 0x08;
    pub const DELETE: u32 = 0x10;
    pub const EXECUTE: u32 = 0x20;
}

/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest target of a symbolic link, in bytes.
pub const SYMLINK_BYTES_MAX: usize = 4096;
/// Largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 44;

/// A tree of files.
#[async_trait::async_trait]
pub trait FileSystem: Send + Sync + 'static {
    /// The root directory.
    fn root(&self) -> Handle;
    /// Changes with each start of this filer, and when written data had to be dropped: an unstable write under another
    /// verifier may be gone.
    fn write_verifier(&self) -> u64;
    async fn getattr(&self, caller: &Caller, file: Handle) -> Result<Attr, FsError>;
    /// `guard_ctime_ns`: fail with [`FsError::NotSync`] unless the file's ctime is this.
    async fn setattr(
        &self,
        caller: &Caller,
        file: Handle,
        set: SetAttr,
        guard_ctime_ns: Option<u64>,
    ) -> Result<Changed, FsError>;
    /// `.` and `..` work too.
    async fn lookup(&self, caller: &Caller, dir: Handle, name: &[u8]) -> Result<Attr, FsError>;
    /// Which of the wanted [`access`] bits the caller has, and the attributes.
    async fn access(&self, caller: &Caller, file: Handle, wanted: u32) -> Result<(u32, Attr), FsError>;
    async fn readlink(&self, caller: &Caller, file: Handle) -> Result<(Bytes, Attr), FsError>;
    /// Up to `len` bytes. Less may come before the file's end, but never nothing.
    async fn read(&self, caller: &Caller, file: Handle, offset: u64, len: u32) -> Result<ReadData, FsError>;
    async fn write(
        &self,
        caller: &Caller,
        file: Handle,
        offset: u64,
        data: Bytes,
        stable: Stable,
    ) -> Result<Written, FsError>;
    /// Makes what was written to the file durable and visible at every site (the whole file, whatever the range).
    async fn commit(&self, caller: &Caller, file: Handle) -> Result<Changed, FsError>;
    async fn create(
        &self,
        caller: &Caller,
        dir: Handle,
        name: &[u8],
        set: SetAttr,
        how: CreateHow,
    ) -> Result<Made, FsError>;
    /// Directories, symbolic links, FIFOs, sockets and devices.
    async fn make(
        &self,
        caller: &Caller,
        dir: Handle,
        name: &[u8],
        node: NewNode,
        set: SetAttr,
    ) -> Result<Made, FsError>;
    async fn remove(&self, caller: &Caller, dir: Handle, name: &[u8]) -> Result<Changed, FsError>;
    async fn rmdir(&self, caller: &Caller, dir: Handle, name: &[u8]) -> Result<Changed, FsError>;
    /// Changes of both directories, `from` first.
    async fn rename(
        &self,
        caller: &Caller,
        from: (Handle, &[u8]),
        to: (Handle, &[u8]),
    ) -> Result<(Changed, Changed), FsError>;
    /// The file's new attributes and the directory's change.
    async fn link(&self, caller: &Caller, file: Handle, dir: Handle, name: &[u8]) -> Result<Made, FsError>;
    /// Entries behind `cookie` (0: from the start), at most `entries_max`. `.` and `..` are included.
    async fn readdir(
        &self,
        caller: &Caller,
        dir: Handle,
        cookie: u64,
        entries_max: usize,
        with_attributes: bool,
    ) -> Result<DirPage, FsError>;
    async fn room(&self, caller: &Caller, file: Handle) -> Result<(Room, Attr), FsError>;
}
