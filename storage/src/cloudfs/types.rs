//! What the state holds.

use crate::ids::{CloudId, Epoch, Md5, SegmentId};
use mesh::FilerId;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Longest name in a directory, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest target of a symbolic link, in bytes.
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// Largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;
/// Most links of an inode, and so most directories in a directory.
pub const LINKS_MAX: u32 = i32::MAX as u32;
/// The size that a directory shows, in bytes.
pub const DIRECTORY_BYTES: u64 = 4096;

/// An inode and its generation: the same at every site, for the life of the file. Inode numbers are never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Handle {
    pub ino: u64,
    pub generation: u32,
}

/// The root directory.
pub const ROOT: Handle = Handle { ino: 1, generation: 1 };

/// What an inode is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeKind {
    File,
    /// `parent` is the directory it lies in (the root's own parent is the root).
    Directory {
        parent: u64,
    },
    Symlink {
        target: Vec<u8>,
    },
    Fifo,
    Socket,
    BlockDevice {
        major: u32,
        minor: u32,
    },
    CharacterDevice {
        major: u32,
        minor: u32,
    },
}

/// A new inode that is not a regular file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NewNode {
    Directory,
    Symlink { target: Vec<u8> },
    Fifo,
    Socket,
    BlockDevice { major: u32, minor: u32 },
    CharacterDevice { major: u32, minor: u32 },
}

/// Attributes of an inode. Times are nanoseconds since the Unix epoch, sizes bytes, `mode` permission bits alone (07777).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attr {
    pub handle: Handle,
    pub kind: NodeKind,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub bytes: u64,
    pub atime_ns: u64,
    pub mtime_ns: u64,
    pub ctime_ns: u64,
    /// The verifier of an exclusive create, until the first setattr.
    pub create_verifier: Option<u64>,
}

/// Set-user-id and set-group-id.
pub const SET_ID_BITS: u32 = 0o6000;

impl Attr {
    /// Takes the set-user-id and set-group-id bits away, as POSIX asks for when somebody without privileges changes the
    /// content or the owner: nobody may put a program of his own into another's hands. A directory keeps them, as they
    /// run nothing there.
    pub fn clear_set_id(&mut self) {
        if !self.kind.is_directory() {
            self.mode &= !SET_ID_BITS;
        }
    }
}

/// One time of a [`Times`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetTime {
    #[default]
    Keep,
    /// The operation's own time.
    Now,
    To {
        ns: u64,
    },
}

/// Times to set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    pub atime: SetTime,
    pub mtime: SetTime,
}

/// Where a piece of file data lies: `len` bytes of the file at `offset` are the bytes at `skip` of one decoded frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Of the file, in bytes.
    pub offset: u64,
    /// In bytes, at least 1.
    pub len: u32,
    pub segment: SegmentId,
    /// Where the frame begins in the segment's object, in bytes.
    pub frame_at: u32,
    /// The frame's length in the object, with its header, in bytes.
    pub frame_len: u32,
    /// Where the data begins in the decoded frame, in bytes.
    pub skip: u32,
}

impl NodeKind {
    pub fn is_directory(&self) -> bool {
        matches!(self, NodeKind::Directory { .. })
    }
}

impl Extent {
    /// The first byte of the file behind it.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.len))
    }

    /// The part of it that lies in `range` of the file; `None` when nothing does.
    pub fn clipped(&self, range: Range<u64>) -> Option<Extent> {
        let start = self.offset.max(range.start);
        let end = self.end().min(range.end);
        let len = u32::try_from(end.checked_sub(start)?).ok().filter(|&len| len > 0)?;
        let cut = u32::try_from(start - self.offset).expect("no more is cut off than its length");
        Some(Extent { offset: start, len, skip: self.skip + cut, ..*self })
    }
}

/// One cloud's copy of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Copy {
    /// The cloud gave its receipt.
    Stored,
    /// The cloud has missed it; a row of the missed-write log says so.
    Missed,
}

/// What a segment's object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    pub bytes: u64,
    pub md5: Md5,
    /// By [`CloudId::index`].
    pub copies: [Copy; 2],
}

/// A segment on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Bytes of extents that refer to it, cut-off ones too until they are reaped.
    pub live_bytes: u64,
    /// `None` until it is released: its data is in its filer's staging alone.
    pub object: Option<Object>,
    /// When nothing referred to it any more (nanoseconds since the Unix epoch); only while `live_bytes` is 0.
    pub dead_since_ns: Option<u64>,
}

/// The state of a cloud, agreed by all filers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloudState {
    /// Its copy is required for release.
    Healthy,
    /// Not tried; what it misses is logged; probed.
    Failed,
    /// Back: puts are tried, misses are copied.
    Resyncing,
}

/// A cloud's agreed state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudStatus {
    pub state: CloudState,
    /// Since when, in nanoseconds since the Unix epoch.
    pub since_ns: u64,
    /// Why it is not healthy, for people.
    pub why: Option<String>,
    /// Filers whose last probe of this failed cloud succeeded, in order of id.
    pub reached_by: Vec<FilerId>,
    /// Rows of the missed-write log: puts, then deletes.
    pub missed_puts: u64,
    pub missed_deletes: u64,
}

impl CloudStatus {
    /// In this state since then, and without anything missed.
    pub fn new(state: CloudState, since_ns: u64) -> Self {
        Self { state, since_ns, why: None, reached_by: Vec::new(), missed_puts: 0, missed_deletes: 0 }
    }
}

/// Roles and states of both clouds: a function of the epoch, but for `reached_by` and the counts of misses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    pub epoch: Epoch,
    /// Reads use this one.
    pub active: CloudId,
    /// What the operator configured as primary.
    pub preferred: CloudId,
    /// An operator moved the CloudFS away from the preferred cloud: no failback by itself until an operator moves it
    /// back, or a trip does.
    pub held_by_operator: bool,
    pub clouds: [CloudStatus; 2],
}

impl Roles {
    /// Both clouds are in their states since then; nothing is missed, and no operator holds anything.
    pub fn new(epoch: Epoch, active: CloudId, preferred: CloudId, states: [CloudState; 2], since_ns: u64) -> Self {
        let clouds = states.map(|state| CloudStatus::new(state, since_ns));
        Self { epoch, active, preferred, held_by_operator: false, clouds }
    }

    /// The status of one cloud.
    pub fn cloud(&self, cloud: CloudId) -> &CloudStatus {
        &self.clouds[cloud.index()]
    }

    /// The cloud that is not active.
    pub fn standby(&self) -> CloudId {
        self.active.other()
    }
}

/// What a cloud has missed of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MissKind {
    Put,
    Delete,
}

/// A row of the missed-write log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Miss {
    pub cloud: CloudId,
    pub segment: SegmentId,
    pub kind: MissKind,
    pub since_ns: u64,
}

/// What one filer sees of one cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudView {
    /// Whether its last attempt succeeded; `None` when it made none lately.
    pub reachable: Option<bool>,
    /// Most consecutive failures on one piece.
    pub failures: u32,
    /// Whether its answers are slow.
    pub slow: bool,
}

/// A peer's answer to a trip: what it has seen of both clouds lately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    pub filer: FilerId,
    /// Under which epoch it has seen that: one of another epoch is about other roles or states, and counts for nothing.
    pub epoch: Epoch,
    pub views: [CloudView; 2],
}

/// Whose trip carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TripPolicy {
    /// One filer's.
    #[default]
    Any,
    /// Most voters of the mesh must see the cloud failing too, lately and in the same epoch.
    Majority,
}

/// Most ballots of a trip.
pub const BALLOTS_MAX: usize = 1024;
/// Longest text that an operation may bring along for people, in bytes.
pub const TEXT_BYTES_MAX: usize = 1024;

/// A past decision on the clouds, for people; the newest [`DECISIONS_KEPT_MAX`] are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub epoch: Epoch,
    pub at_ns: u64,
    /// Who proposed it.
    pub filer: FilerId,
    /// The cloud that it is about.
    pub cloud: CloudId,
    pub text: String,
    /// The ballots, for a trip.
    pub ballots: Vec<Ballot>,
    /// Whether it was carried, or refused.
    pub carried: bool,
}

/// How many decisions are kept.
pub const DECISIONS_KEPT_MAX: usize = 256;

/// How much one operation may do at a time. Part of what operations mean, so the same at every filer of a CloudFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Extents that one operation takes away or looks through, besides those that it brings. A file's end with more is
    /// cut off at once and reaped in steps; a write over more is refused, and comes again in parts.
    pub extents_per_op_max: usize,
    /// Cuts of one file that are still to be reaped; a further one waits for the reaping, if it does not replace them.
    pub cuts_pending_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { extents_per_op_max: 4096, cuts_pending_max: 64 }
    }
}

/// Totals of the CloudFS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub inodes: u64,
    /// Bytes of file data that extents refer to, cut-off ones too until they are reaped.
    pub live_bytes: u64,
    pub segments: u64,
    pub dead_segments: u64,
    /// Files, removed ones too, of which cut-off extents are still to be reaped.
    pub orphans: u64,
}
