//! A real directory as a [`Disk`].
//!
//! Owns: open files, what is durable when, and a lock that keeps a second process out. Files are read and written on
//! threads for blocking work, a bounded number at a time. A new name is durable once the directory is synced, which
//! the first sync of the file does.

#![expect(clippy::disallowed_methods, reason = "carries out `Disk` on a real directory")]

use crate::disk::{Check, Disk, DiskError, DiskFile, is_file_name};
use bytes::Bytes;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, IoSlice},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Semaphore;

/// Files kept open; the one that was not used for longest is closed first.
const OPEN_FILES_MAX: usize = 256;
/// Disk operations at a time; more wait their turn.
const OPERATIONS_MAX: usize = 32;
/// Parts in one vectored write, as Linux allows.
const PARTS_MAX: usize = 1_024;

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

struct Inner {
    path: PathBuf,
    /// Held open for its lock and its syncs.
    directory: File,
    open: Mutex<OpenFiles>,
    /// Counts changes of names.
    names_changed: AtomicU64,
    /// The count that is durable. Held while the directory is synced, so that nobody runs ahead of it.
    names_synced: Mutex<u64>,
    /// Files whose sync failed. The kernel may have dropped what it could not write, so that another sync of the same
    /// file would succeed and prove nothing.
    broken: Mutex<BTreeSet<String>>,
}

#[derive(Default)]
struct OpenFiles {
    files: BTreeMap<String, OpenFile>,
    uses: u64,
}

struct OpenFile {
    file: Arc<File>,
    used: u64,
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
        let inner = Inner {
            path: path.clone(),
            directory,
            open: Mutex::default(),
            names_changed: AtomicU64::new(0),
            // A run before this one may have left names unsynced.
            names_synced: Mutex::new(0),
            broken: Mutex::default(),
        };
        inner.names_changed.store(1, Ordering::Relaxed);
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

/// A read of an open file failed. What only a part of it has to do with is told apart from all else.
fn read_error(file: &str, err: &io::Error) -> DiskError {
    match err.raw_os_error() {
        Some(errno) if errno == Errno::IO.raw_os_error() => {
            DiskError::Unreadable { file: file.to_owned(), why: err.to_string() }
        }
        _ => disk_error("reading", file, err),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

impl OpenFiles {
    fn find(&mut self, name: &str) -> Option<Arc<File>> {
        self.uses += 1;
        let open = self.files.get_mut(name)?;
        open.used = self.uses;
        Some(Arc::clone(&open.file))
    }

    fn keep(&mut self, name: &str, file: Arc<File>) {
        if self.files.len() >= OPEN_FILES_MAX {
            let oldest = self.files.iter().min_by_key(|(_, open)| open.used).map(|(name, _)| name.clone());
            self.files.remove(&oldest.unwrap_or_default());
        }
        self.files.insert(name.to_owned(), OpenFile { file, used: self.uses });
    }
}

impl Inner {
    fn path(&self, name: &str) -> io::Result<PathBuf> {
        if is_file_name(name) {
            return Ok(self.path.join(name));
        }
        Err(io::Error::new(ErrorKind::InvalidInput, "no plain file name"))
    }

    /// The open file of this name. The lock is held while opening: whoever renames or removes comes before or after.
    fn file(&self, name: &str, make: bool) -> io::Result<Arc<File>> {
        let path = self.path(name)?;
        let mut open = lock(&self.open);
        if let Some(file) = open.find(name) {
            return Ok(file);
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        let file = match options.open(&path) {
            Err(err) if make && err.kind() == ErrorKind::NotFound => {
                let made = options.create_new(true).open(&path)?;
                self.names_changed.fetch_add(1, Ordering::Relaxed);
                made
            }
            opened => opened?,
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "no regular file"));
        }
        let file = Arc::new(file);
        open.keep(name, Arc::clone(&file));
        Ok(file)
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut synced = lock(&self.names_synced);
        let changed = self.names_changed.load(Ordering::Relaxed);
        if *synced < changed {
            self.directory.sync_all()?;
            *synced = changed;
        }
        Ok(())
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let file = self.file(name, false)?;
        if lock(&self.broken).contains(name) {
            return Err(io::Error::other("an earlier sync failed, and what was written before it may be lost"));
        }
        if let Err(err) = file.sync_data() {
            lock(&self.broken).insert(name.to_owned());
            return Err(err);
        }
        self.sync_names()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (path, target) = (self.path(from)?, self.path(to)?);
        {
            let mut open = lock(&self.open);
            fs::rename(path, target)?;
            open.files.remove(to);
            if let Some(file) = open.files.remove(from) {
                open.files.insert(to.to_owned(), file);
            }
            self.names_changed.fetch_add(1, Ordering::Relaxed);
        }
        {
            let mut broken = lock(&self.broken);
            broken.remove(to);
            if broken.remove(from) {
                broken.insert(to.to_owned());
            }
        }
        self.sync_names()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let path = self.path(name)?;
        let mut open = lock(&self.open);
        open.files.remove(name);
        match fs::remove_file(path) {
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(()),
            removed => removed?,
        }
        self.names_changed.fetch_add(1, Ordering::Relaxed);
        lock(&self.broken).remove(name);
        Ok(())
    }
}

/// Writes all parts, however few bytes the kernel takes at a time.
fn write_all(file: &File, mut offset: u64, parts: &[Bytes]) -> io::Result<()> {
    for parts in parts.chunks(PARTS_MAX) {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut left = slices.as_mut_slice();
        // Parts that are empty are stepped over, so that a write of nothing is not taken for a full disk.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match rustix::io::pwritev(file, left, offset) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(())
}

/// Reads up to `len` bytes; fewer only at the file's end.
fn read_some(file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
    let there = file.metadata()?.len().saturating_sub(offset);
    let mut bytes = vec![0; len.min(usize::try_from(there).unwrap_or(usize::MAX))];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    bytes.truncate(filled);
    Ok(bytes.into())
}

fn list(path: &Path) -> io::Result<Vec<DiskFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        match (entry.file_name().into_string(), entry.metadata()) {
            (Ok(name), Ok(found)) if found.is_file() => files.push(DiskFile { name, bytes: found.len() }),
            // Removed a moment ago, or nothing that this disk wrote.
            _ => {}
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
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
        self.run("listing", ".", |inner, _| list(&inner.path)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    async fn more_files_than_are_kept_open() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::open(dir.path()).unwrap();
        let files = OPEN_FILES_MAX + 40;
        for i in 0..files {
            disk.write(&format!("{i:04}"), 0, vec![Bytes::from(i.to_string())]).await.unwrap();
        }
        assert_eq!(lock(&disk.inner.open).files.len(), OPEN_FILES_MAX);
        for i in 0..files {
            assert_eq!(disk.read(&format!("{i:04}"), 0, 9).await.unwrap(), i.to_string());
        }
        assert_eq!(disk.list().await.unwrap().len(), files);
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
