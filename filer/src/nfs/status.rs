//! Errors of the file system in NFS's words.

use crate::fs::FsError;
use nfs3_types::mount::mountstat3;
use nfs3_types::nfs3::nfsstat3;

/// What a client hears.
pub fn status_of(error: &FsError) -> nfsstat3 {
    match error {
        FsError::NotOwner => nfsstat3::NFS3ERR_PERM,
        FsError::NoEntry => nfsstat3::NFS3ERR_NOENT,
        FsError::Io(why) => {
            tracing::warn!(why, "a client is told of an input/output error");
            nfsstat3::NFS3ERR_IO
        }
        FsError::Access => nfsstat3::NFS3ERR_ACCES,
        FsError::Exists => nfsstat3::NFS3ERR_EXIST,
        FsError::NotDirectory => nfsstat3::NFS3ERR_NOTDIR,
        FsError::IsDirectory => nfsstat3::NFS3ERR_ISDIR,
        FsError::Invalid(_) => nfsstat3::NFS3ERR_INVAL,
        FsError::TooLarge => nfsstat3::NFS3ERR_FBIG,
        FsError::NoSpace(why) => {
            tracing::warn!(why, "a client is told that no space is left");
            nfsstat3::NFS3ERR_NOSPC
        }
        FsError::ReadOnly => nfsstat3::NFS3ERR_ROFS,
        FsError::TooManyLinks => nfsstat3::NFS3ERR_MLINK,
        FsError::NameTooLong => nfsstat3::NFS3ERR_NAMETOOLONG,
        FsError::NotEmpty => nfsstat3::NFS3ERR_NOTEMPTY,
        FsError::Stale => nfsstat3::NFS3ERR_STALE,
        FsError::NotSupported(_) => nfsstat3::NFS3ERR_NOTSUPP,
        FsError::NotSync => nfsstat3::NFS3ERR_NOT_SYNC,
        FsError::BadCookie => nfsstat3::NFS3ERR_BAD_COOKIE,
        FsError::Later(why) => {
            tracing::debug!(why, "a client is told to ask again later");
            nfsstat3::NFS3ERR_JUKEBOX
        }
    }
}

/// What a client that mounts hears.
pub fn mount_status_of(error: &FsError) -> mountstat3 {
    match error {
        FsError::NotOwner => mountstat3::MNT3ERR_PERM,
        FsError::NoEntry | FsError::Stale => mountstat3::MNT3ERR_NOENT,
        FsError::Access => mountstat3::MNT3ERR_ACCES,
        FsError::NotDirectory => mountstat3::MNT3ERR_NOTDIR,
        FsError::Invalid(_) => mountstat3::MNT3ERR_INVAL,
        FsError::NameTooLong => mountstat3::MNT3ERR_NAMETOOLONG,
        FsError::NotSupported(_) => mountstat3::MNT3ERR_NOTSUPP,
        FsError::Io(_) => mountstat3::MNT3ERR_IO,
        // MOUNT has no word for "later"; clients try a server fault again.
        _ => mountstat3::MNT3ERR_SERVERFAULT,
    }
}
