//! A real directory as a [`Disk`].
//!
//! Owns: open files, what is durable when (`names`), and a lock that keeps a second process out. Files are read and written
//! (`content`) on threads for blocking work, a bounded number at a time. A new name is durable once the directory is synced,
//! which the first sync of the file does.

#![expect(clippy::disallowed_methods, reason = "carries out `Disk` on a real directory")]

mod content;
mod names;

use crate::disk::{Check, Disk, DiskError, DiskFile};
use bytes::Bytes;
use content::{read_some, write_all};
use names::Inner;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use std::{
    fs::{DirBuilder, File},
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    sync::Arc,
};
use tokio::sync::Semaphore;

/// Disk operations at a time; more wait their turn.
const OPERATIONS_MAX: usize = 32;

/// A directory cannot be used as a disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be made, read or locked.
    #[error("directory {path}")]
    Directory { path: PathBuf, source: io::Error },
    /// Another process uses it.
    #[error("directory {path} is in use by another process")]
    InUse { path: PathBuf },
}

/// The files of one directory.
pub struct DirDisk {
    inner: Arc<Inner>,
    turns: Arc<Semaphore>,
}

impl DirDisk {
    /// Opens a directory, which is made when missing, and locks it against other processes.
    pub fn open(path: impl Into<PathBuf>) -> Result<Arc<Self>, OpenError> {
        let path = path.into();
        let wrong = |source| OpenError::Directory { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(wrong)?;
        let directory = File::open(&path).map_err(wrong)?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(OpenError::InUse { path }),
            locked => locked.map_err(|errno| wrong(errno.into()))?,
        }
        if let Some(parent) = path.canonicalize().map_err(wrong)?.parent() {
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(wrong)?;
        }
        let inner = Inner::new(path, directory);
        Ok(Arc::new(Self { inner: Arc::new(inner), turns: Arc::new(Semaphore::new(OPERATIONS_MAX)) }))
    }

    async fn run<T: Send + 'static>(
        &self,
        attempted: &'static str,
        file: &str,
        work: impl FnOnce(&Inner, &str) -> io::Result<T> + Send + 'static,
    ) -> Result<T, DiskError> {
        let name = file.to_owned();
        let turn = Arc::clone(&self.turns).acquire_owned().await.expect("this semaphore is never closed");
        let inner = Arc::clone(&self.inner);
        let task = tokio::task::spawn_blocking(move || {
            let done = work(&inner, &name);
            drop(turn);
            done
        });
        let done = task.await.unwrap_or_else(|join| Err(io::Error::other(join)));
        done.map_err(|err| disk_error(attempted, file, &err))
    }
}

fn disk_error(attempted: &'static str, file: &str, err: &io::Error) -> DiskError {
    let file = file.to_owned();
    match err.kind() {
        ErrorKind::NotFound => DiskError::NotFound { file },
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => DiskError::Full { attempted, file },
        _ => DiskError::Failed { attempted, file, why: err.to_string() },
    }
}

/// What a part of a file that cannot be read is called: by the medium, and by file systems with checksums of their own.
const UNREADABLE: [Errno; 4] = [Errno::IO, Errno::BADMSG, Errno::NODATA, Errno::UCLEAN];

/// A read of an open file failed. What only a part of it has to do with is told apart from all else.
fn read_error(file: &str, err: &io::Error) -> DiskError {
    match err.raw_os_error() {
        Some(errno) if UNREADABLE.iter().any(|known| known.raw_os_error() == errno) => {
            DiskError::Unreadable { file: file.to_owned(), why: err.to_string() }
        }
        _ => disk_error("reading", file, err),
    }
}

#[async_trait::async_trait]
impl Disk for DirDisk {
    async fn write(&self, file: &str, offset: u64, parts: Vec<Bytes>) -> Result<(), DiskError> {
        self.run("writing", file, move |inner, name| write_all(&*inner.file(name, true)?, offset, &parts)).await
    }

    async fn sync(&self, file: &str) -> Result<(), DiskError> {
        self.run("syncing", file, Inner::sync).await
    }

    async fn read(&self, file: &str, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        let read = self.run("reading", file, move |inner, name| {
            let open = inner.file(name, false)?;
            Ok(read_some(&open, offset, len))
        });
        read.await?.map_err(|err| read_error(file, &err))
    }

    async fn read_checked(&self, file: &str, offset: u64, len: usize, check: Check) -> Result<Bytes, DiskError> {
        let read = self.run("reading", file, move |inner, name| {
            let open = inner.file(name, false)?;
            Ok(read_some(&open, offset, len).map(|read| {
                let wrong = check(&read).err();
                (read, wrong)
            }))
        });
        let (read, wrong) = read.await?.map_err(|err| read_error(file, &err))?;
        wrong.map_or(Ok(read), |why| Err(DiskError::Damaged { file: file.to_owned(), why }))
    }

    async fn truncate(&self, file: &str, bytes: u64) -> Result<(), DiskError> {
        self.run("truncating", file, move |inner, name| inner.file(name, false)?.set_len(bytes)).await
    }

    async fn rename(&self, file: &str, to: &str) -> Result<(), DiskError> {
        let to = to.to_owned();
        self.run("renaming", file, move |inner, name| inner.rename(name, &to)).await
    }

    async fn remove(&self, file: &str) -> Result<(), DiskError> {
        self.run("removing", file, Inner::remove).await
    }

    async fn list(&self) -> Result<Vec<DiskFile>, DiskError> {
        self.run("listing", ".", |inner, _| inner.list()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, OpenOptions};

    #[tokio::test]
    async fn it_is_a_disk() {
        let dir = tempfile::tempdir().unwrap();
        crate::disk::conformance(&*DirDisk::open(dir.path().join("new/staging")).unwrap()).await;
    }

    #[tokio::test]
    async fn files_outlive_the_disk_and_a_second_opener_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::open(dir.path()).unwrap();
        disk.write("a", 0, vec![Bytes::from_static(b"kept")]).await.unwrap();
        disk.sync("a").await.unwrap();
        assert!(matches!(DirDisk::open(dir.path()), Err(OpenError::InUse { .. })));
        drop(disk);
        let disk = DirDisk::open(dir.path()).unwrap();
        assert_eq!(disk.read("a", 0, 9).await.unwrap(), "kept");
    }

    #[tokio::test]
    async fn a_torn_file_reads_short() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::open(dir.path()).unwrap();
        disk.write("a", 0, vec![Bytes::from(vec![7; 10_000])]).await.unwrap();
        OpenOptions::new().write(true).open(dir.path().join("a")).unwrap().set_len(4_097).unwrap();
        assert_eq!(disk.read("a", 4_090, 100).await.unwrap(), vec![7; 7]);
        assert_eq!(disk.read("a", 5_000, 100).await.unwrap(), "");
    }

    #[test]
    fn what_the_medium_has_lost_is_told_apart_from_what_cannot_be_opened() {
        let lost = io::Error::from_raw_os_error(Errno::IO.raw_os_error());
        assert!(matches!(read_error("a", &lost), DiskError::Unreadable { .. }));
        assert!(matches!(disk_error("reading", "a", &lost), DiskError::Failed { .. }));
        assert!(matches!(read_error("a", &ErrorKind::PermissionDenied.into()), DiskError::Failed { .. }));
    }

    #[tokio::test]
    async fn very_many_parts_are_written_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::open(dir.path()).unwrap();
        let parts: Vec<Bytes> = (0..5_000u32).map(|i| Bytes::from(i.to_string().repeat((i % 3) as usize))).collect();
        disk.write("a", 3, parts.clone()).await.unwrap();
        let whole = disk.read("a", 3, usize::MAX).await.unwrap();
        assert_eq!(whole, parts.concat());
    }

    /// `/dev/full` takes nothing: the error every full disk gives.
    #[tokio::test]
    async fn a_full_disk_says_so() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let err = write_all(&full, 0, &[Bytes::from_static(b"x")]).unwrap_err();
        assert!(matches!(disk_error("writing", "a", &err), DiskError::Full { .. }), "{err}");
    }

    #[tokio::test]
    async fn directories_and_links_to_nowhere_are_no_files() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::open(dir.path()).unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        assert!(matches!(disk.read("d", 0, 1).await, Err(DiskError::Failed { .. })));
        assert!(matches!(disk.remove("d").await, Err(DiskError::Failed { .. })));
        assert_eq!(disk.list().await.unwrap(), []);
    }
}
