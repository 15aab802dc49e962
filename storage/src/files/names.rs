//! The files of a directory: which are open, and which names are durable.
//!
//! Owns: open files, a bounded number; renames and removals, and the sync of the directory behind them; files whose sync
//! failed. Does not own: what is in them (`content`), threads and turns.

use crate::disk::{DiskFile, is_file_name};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

/// Files kept open; the one that was not used for longest is closed first.
const OPEN_FILES_MAX: usize = 256;

/// The directory, with the files that are open and the names that are not durable yet.
pub(super) struct Inner {
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
    /// The files of a directory that is open and locked.
    pub fn new(path: PathBuf, directory: File) -> Self {
        Self {
            path,
            directory,
            open: Mutex::default(),
            // A run before this one may have left names unsynced.
            names_changed: AtomicU64::new(1),
            names_synced: Mutex::new(0),
            broken: Mutex::default(),
        }
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        if is_file_name(name) {
            return Ok(self.path.join(name));
        }
        Err(io::Error::new(ErrorKind::InvalidInput, "no plain file name"))
    }

    /// The open file of this name. The lock is held while opening: whoever renames or removes comes before or after.
    pub fn file(&self, name: &str, make: bool) -> io::Result<Arc<File>> {
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

    /// Makes a file and its name durable.
    pub fn sync(&self, name: &str) -> io::Result<()> {
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

    /// Renames a file, durably.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
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

    /// Removes a file. One that is not there counts as removed.
    pub fn remove(&self, name: &str) -> io::Result<()> {
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

    /// All files, in order of name.
    pub fn list(&self) -> io::Result<Vec<DiskFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{disk::Disk, files::DirDisk};
    use bytes::Bytes;

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
}
