//! The one door: every change of the state is one of these operations.

use super::{secret::DoorSecret, types::*};
use crate::ids::{CloudId, Epoch, Md5, SegmentId};
use mesh::FilerId;
use serde::{Deserialize, Serialize};

/// Who an operator's [`OpBody::Activate`] is by.
pub const BY_OPERATOR: &str = "operator";

/// Newest format version of an operation's record.
pub const OP_VERSION: u8 = 3;

/// An operation as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// Who proposes it.
    pub filer: FilerId,
    /// The proposer's wall clock, nanoseconds since the Unix epoch. Applied times never run backwards, and one clock
    /// alone cannot bring them far ahead.
    pub wall_ns: u64,
    pub body: OpBody,
}

/// Attributes to set on an inode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttrChange {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub bytes: Option<u64>,
    pub times: Times,
    /// Takes the set-user-id and set-group-id bits from what is no directory, unless `mode` is set: whoever has no
    /// privileges changes its size or owner.
    pub clears_set_id: bool,
}

/// What a new file does about an existing name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnExisting {
    /// Use the file (applying `bytes` of the attributes, where given).
    Use,
    /// Fail with [`OpError::Exists`].
    Refuse,
    /// Use it if it was made with this verifier.
    SameVerifier(u64),
}

/// The operations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpBody {
    // --- the tree -------------------------------------------------------------------------------------------------
    /// Makes a regular file.
    Create {
        dir: Handle,
        name: Vec<u8>,
        mode: u32,
        uid: u32,
        gid: u32,
        times: Times,
        bytes: Option<u64>,
        existing: OnExisting,
        /// As [`AttrChange::clears_set_id`], for an existing file that gets a size.
        clears_set_id: bool,
    },
    /// Makes anything else.
    Make { dir: Handle, name: Vec<u8>, node: NewNode, mode: u32, uid: u32, gid: u32, times: Times },
    /// Changes attributes; a new size cuts or extends (by a hole).
    SetAttr { file: Handle, change: AttrChange, guard_ctime_ns: Option<u64> },
    /// Makes written data visible. The extents lie in segments of the proposing filer that are not stored yet. Data
    /// beyond the end extends the file. `mtime_ns`: when the last of it was written. `clears_set_id`: somebody without privileges wrote some of
    /// it, so the file loses its set-user-id and set-group-id bits.
    Write { file: Handle, extents: Vec<Extent>, mtime_ns: u64, clears_set_id: bool },
    /// Gives a file another name.
    Link { file: Handle, dir: Handle, name: Vec<u8> },
    /// Removes a name of anything but a directory.
    Remove { dir: Handle, name: Vec<u8> },
    /// Removes an empty directory.
    RemoveDir { dir: Handle, name: Vec<u8> },
    /// Renames, replacing what POSIX lets it replace.
    Rename { from_dir: Handle, from_name: Vec<u8>, to_dir: Handle, to_name: Vec<u8> },
    /// Takes away the next of the extents that are cut off from inode `ino`, which may be gone. Asked for until none
    /// is left; harmless then, and when several filers ask.
    Reap { ino: u64 },

    // --- segments -------------------------------------------------------------------------------------------------
    /// The origin's word that a sealed segment is in the clouds: `copies` says which gave a receipt, under `epoch`.
    Stored { segment: SegmentId, bytes: u64, md5: Md5, copies: [bool; 2], epoch: Epoch },
    /// Nothing refers to a segment of the proposing filer, and it was never put anywhere: forget it.
    Abandon { segment: SegmentId },
    /// Nothing refers to a segment of a filer that was removed before it said where it had put it: dead from here on, so
    /// that whatever of it is in a cloud is deleted.
    Bury { segment: SegmentId },
    /// A dead segment's object was deleted; `done` says in which clouds, under `epoch`.
    Deleted { segment: SegmentId, done: [bool; 2], epoch: Epoch },

    // --- clouds ---------------------------------------------------------------------------------------------------
    /// First operation of a CloudFS.
    Format { cloudfs: u64, preferred: CloudId },
    /// A filer shows its clock, as it does every now and then. `since_ms`: the time since the last one of the same run
    /// was answered, by a clock that does not jump; 0 for the first.
    Clock { since_ms: u64 },
    /// A filer finds that a cloud has failed, at the epoch it sees, with the ballots it could gather (its own first) of
    /// the mesh's `voters`.
    Trip { cloud: CloudId, epoch: Epoch, why: String, ballots: Vec<Ballot>, voters: u64, policy: TripPolicy },
    /// The proposing filer's probes of a failed cloud began to succeed (or to fail again).
    Reached { cloud: CloudId, epoch: Epoch, reached: bool },
    /// Every live filer reaches the failed cloud: start to resync it. `live` are the filers that must have said so.
    StartResync { cloud: CloudId, epoch: Epoch, live: Vec<FilerId> },
    /// A row of the missed-write log is done: the cloud gave its receipt (MD5 as on record), or deleted the object.
    Repaired { cloud: CloudId, segment: SegmentId, kind: MissKind, epoch: Epoch },
    /// Ends a resync, if the cloud's log is empty.
    FinishResync { cloud: CloudId, epoch: Epoch },
    /// Makes `to` the active cloud: a failback (to the preferred) or an operator's failover. Refused unless `to` is
    /// healthy. `by`: for the record, such as `auto` or `operator`.
    Activate { to: CloudId, epoch: Epoch, by: String },

    // --- doors ----------------------------------------------------------------------------------------------------
    /// What the doors are to seal their handles with, if there is nothing yet: the first one offered stays.
    KeepSecret { secret: DoorSecret },

    // --- since version 3 (records tell operations by their number: a new one goes to the end) ---------------------
    /// A cloud refuses to delete what a row of its missed-write log says: the segment is dead as before, for the sweep to
    /// try again. What the cloud keeps is litter, on record as that, and no reason to hold it for behind.
    Kept { cloud: CloudId, segment: SegmentId, epoch: Epoch },

    // --- filers ---------------------------------------------------------------------------------------------------
    /// Filer `leaver` is to be removed: no file may refer to more of its staging from here on. Asked for again it changes
    /// nothing.
    Leave { leaver: FilerId },
    /// It stays after all. `alone_with`: only if it still alone holds this segment of its own, so that nobody has found
    /// meanwhile that it may go; `None`: nobody is removing it any more.
    Stay { leaver: FilerId, alone_with: Option<SegmentId> },
}

impl OpBody {
    /// The format version whose readers know this operation. An older program stops at a newer one, instead of going on
    /// without it.
    pub fn version(&self) -> u8 {
        match self {
            OpBody::Kept { .. } | OpBody::Leave { .. } | OpBody::Stay { .. } => 3,
            _ => 2,
        }
    }
}

/// What an operation answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Done.
    Done,
    /// The object and (where one was changed) its directory, before and after.
    Node { before: Option<Attr>, after: Attr, dir_before: Option<Attr>, dir_after: Option<Attr> },
    /// A directory was changed.
    Dir { before: Attr, after: Attr },
    /// Both directories of a rename.
    Dirs { from_before: Attr, from_after: Attr, to_before: Attr, to_after: Attr },
    /// The roles after it: of a format, a trip, a word on reaching a cloud, a resync's start and end, an activation.
    Roles(Roles),
}

/// Why an operation changed nothing. Refusals are part of the replicated history: every filer sees the same.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpError {
    #[error("stale handle")]
    Stale,
    #[error("no such entry")]
    NoEntry,
    #[error("entry exists")]
    Exists,
    #[error("not a directory")]
    NotDirectory,
    #[error("is a directory")]
    IsDirectory,
    #[error("directory not empty")]
    NotEmpty,
    #[error("the file changed meanwhile")]
    NotSync,
    #[error("too many links")]
    TooManyLinks,
    #[error("invalid argument: {0}")]
    Invalid(String),
    /// A write lies over too many older extents: write it in parts.
    #[error("the write lies over more than {extents_max} older extents; write it in parts")]
    TooManyExtents { extents_max: usize },
    /// Earlier cuts of the file are still to be reaped: try again.
    #[error("{cuts} cuts of the file are still to be reaped; try again")]
    Reaping { cuts: usize },
    /// The roles have changed since: look again.
    #[error("epoch {got} is not the current epoch {current}")]
    StaleEpoch { got: Epoch, current: Epoch },
    /// A required receipt is missing.
    #[error("cloud {cloud} is {state:?}, so its receipt is required")]
    ReceiptMissing { cloud: CloudId, state: CloudState },
    /// A decision that the rules forbid; the text says why, for people.
    #[error("refused: {0}")]
    Refused(String),
    /// No such segment, or not in a state for this.
    #[error("segment {0} is not on record for this")]
    NoSegment(SegmentId),
    /// The operation's record cannot be read by this program.
    #[error("unreadable operation: {0}")]
    Unreadable(String),
    /// The CloudFS is not formatted, or is already.
    #[error("the CloudFS is {0}")]
    Format(String),
    /// The filer is being removed, so that nothing may be in its staging alone: write elsewhere, or later, if it stays.
    #[error("filer {0} is being removed and takes no more writes")]
    Leaving(FilerId),
}

impl OpError {
    /// The format version whose readers know this refusal.
    pub fn version(&self) -> u8 {
        match self {
            OpError::Leaving(_) => 3,
            _ => 2,
        }
    }
}
