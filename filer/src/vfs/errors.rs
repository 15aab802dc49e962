//! What failures below mean to a client.

use crate::{
    door::DoorError,
    fs::{Before, FsError},
    reading::ReadError,
};
use mesh::{consensus::api::ProposeError, kv::KvError};
use storage::{
    cloudfs::{Attr, OpError},
    disk::DiskError,
    staging::StagingError,
};

impl From<KvError> for FsError {
    fn from(error: KvError) -> Self {
        tracing::error!(%error, "the local tables fail");
        FsError::Io(error.to_string())
    }
}

impl From<OpError> for FsError {
    fn from(error: OpError) -> Self {
        match error {
            OpError::Stale => FsError::Stale,
            OpError::NoEntry => FsError::NoEntry,
            OpError::Exists => FsError::Exists,
            OpError::NotDirectory => FsError::NotDirectory,
            OpError::IsDirectory => FsError::IsDirectory,
            OpError::NotEmpty => FsError::NotEmpty,
            OpError::NotSync => FsError::NotSync,
            OpError::TooManyLinks => FsError::TooManyLinks,
            OpError::Invalid(why) => FsError::Invalid(why),
            error @ (OpError::TooManyExtents { .. } | OpError::Reaping { .. } | OpError::Leaving(_)) => {
                FsError::Later(error.to_string())
            }
            OpError::Format(why) => FsError::Later(format!("the CloudFS is {why}")),
            error @ (OpError::StaleEpoch { .. }
            | OpError::ReceiptMissing { .. }
            | OpError::Refused(_)
            | OpError::NoSegment(_)
            | OpError::Unreadable(_)) => FsError::Io(error.to_string()),
        }
    }
}

impl From<DoorError> for FsError {
    fn from(error: DoorError) -> Self {
        match error {
            DoorError::Refused(error) => error.into(),
            DoorError::Unanswered(ProposeError::TooLarge { .. })
            | DoorError::NotProposed(ProposeError::TooLarge { .. }) => FsError::Invalid(error.to_string()),
            // Clients' changes are carried out to their outcome, so that this is about reads and recordings alone.
            DoorError::Unanswered(_) | DoorError::NotProposed(_) | DoorError::Busy { .. } => {
                FsError::Later(error.to_string())
            }
            DoorError::Unreadable(why) => FsError::Io(why),
        }
    }
}

impl From<StagingError> for FsError {
    fn from(error: StagingError) -> Self {
        match error {
            StagingError::Full { .. } => FsError::Later(error.to_string()),
            StagingError::Disk(DiskError::Full { .. }) => FsError::NoSpace(error.to_string()),
            StagingError::Disk(_) | StagingError::Gone(_) | StagingError::Damaged { .. } => {
                tracing::error!(%error, "staging fails");
                FsError::Io(error.to_string())
            }
        }
    }
}

impl From<ReadError> for FsError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Later { .. } | ReadError::Gone { .. } => FsError::Later(error.to_string()),
            ReadError::Lost { .. } | ReadError::Local(_) => {
                tracing::error!(%error, "a read fails");
                FsError::Io(error.to_string())
            }
        }
    }
}

/// Attributes before a change.
pub fn before(attr: &Attr) -> Before {
    Before { bytes: attr.bytes, mtime_ns: attr.mtime_ns, ctime_ns: attr.ctime_ns }
}
