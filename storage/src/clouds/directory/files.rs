//! Objects as files: one call of each kind, as it is made on a thread of its own.
//!
//! Owns: what is made durable in which order, names that lead nowhere else, what a crash leaves. Does not own: threads,
//! deadlines, and what a failure is to be called.

use crate::{
    cloud::{Proof, Receipt},
    ids::Md5,
};
use bytes::Bytes;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// The folder for incoming files.
pub(super) const INCOMING: &str = ".filermesh-incoming";
/// The longest name of an object, in bytes, as S3 has it.
const KEY_BYTES_MAX: usize = 1_024;
/// Incoming files that are older than this were left by a crash.
pub(super) const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// The files that objects are.
pub(super) struct Inner {
    /// As the operator named it: it is never made.
    pub path: PathBuf,
    pub root: PathBuf,
    pub incoming: PathBuf,
    next: AtomicU64,
    /// The folder for incoming files was seen or made.
    ready: AtomicBool,
}

/// Whether somebody still waits for a call.
#[derive(Clone, Default)]
pub(super) struct Wanted(Arc<AtomicBool>);

/// The one who waits: gone at the deadline, and when the attempt is dropped.
pub(super) struct Waiting(pub Wanted);

impl Wanted {
    fn is_given_up(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Waiting(Wanted(given_up)) = self;
        given_up.store(true, Ordering::Release);
    }
}

/// Why a blocking step failed, before it has words for the caller.
pub(super) enum Trouble {
    Missing,
    Corrupt { expected: String, got: String },
    Io(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(err: io::Error) -> Self {
        match err.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Trouble::Missing,
            _ => Trouble::Io(err),
        }
    }
}

/// Whether `key` names a file below the root and nothing else.
pub(super) fn is_key(key: &str) -> bool {
    let part_is_plain = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= 255 && !part.contains('\0');
    key.len() <= KEY_BYTES_MAX && key.split('/').all(part_is_plain) && key.split('/').next() != Some(INCOMING)
}

/// Makes a directory and those above it, each durable in the one that holds it.
fn make_directories(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => sync_parent(path),
        Err(err) if err.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(err) if err.kind() == ErrorKind::NotFound => match path.parent() {
            Some(parent) => {
                make_directories(parent)?;
                match fs::create_dir(path) {
                    Err(err) if err.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
                    made => made.and_then(|()| sync_parent(path)),
                }
            }
            None => Err(err),
        },
        Err(err) => Err(err),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

impl Inner {
    /// Objects below `root`, in the directory `path`.
    pub fn new(path: PathBuf, root: PathBuf) -> Self {
        let incoming = root.join(INCOMING);
        Self { path, root, incoming, next: AtomicU64::new(0), ready: AtomicBool::new(false) }
    }

    /// Makes sure once that the directory is there and has its folder for incoming files.
    pub fn prepare(&self) -> io::Result<()> {
        if self.ready.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !fs::metadata(&self.path)?.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        make_directories(&self.incoming)?;
        self.remove_stale()?;
        self.ready.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn path(&self, key: &str) -> Result<PathBuf, Trouble> {
        if is_key(key) {
            return Ok(self.root.join(key));
        }
        Err(Trouble::Io(io::Error::new(ErrorKind::InvalidInput, "no name for an object")))
    }

    /// A new file nobody else writes, also when other filers use the same directory.
    fn incoming_file(&self) -> io::Result<(PathBuf, File)> {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = self.incoming.join(format!("{}-{number}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Err(err) if err.kind() == ErrorKind::AlreadyExists => continue,
                opened => return opened.map(|file| (path, file)),
            }
        }
    }

    /// Removes what a crash left. Ages are measured by the directory's own clock: another machine may keep it.
    fn remove_stale(&self) -> io::Result<()> {
        let (path, file) = self.incoming_file()?;
        let now = file.metadata()?.modified()?;
        fs::remove_file(path)?;
        for entry in fs::read_dir(&self.incoming)? {
            let entry = entry?;
            let written = entry.metadata().and_then(|found| found.modified());
            if written.is_ok_and(|written| now.duration_since(written).is_ok_and(|age| age > STALE)) {
                tracing::info!(file = %entry.path().display(), "removing what an interrupted put left");
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    pub fn put(&self, key: &str, body: &[u8], md5: Md5, wanted: &Wanted) -> Result<Receipt, Trouble> {
        let target = self.path(key)?;
        let (path, mut file) = self.incoming_file()?;
        let stored = (|| {
            file.write_all(body)?;
            file.sync_all()?;
            // Dropped from memory, so that what is hashed is what the disk holds.
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
            let mut back = Vec::with_capacity(body.len());
            File::open(&path)?.read_to_end(&mut back)?;
            let got = Md5::of(&back);
            if got != md5 {
                return Err(Trouble::Corrupt { expected: md5.to_string(), got: got.to_string() });
            }
            if let Some(parent) = target.parent() {
                make_directories(parent)?;
            }
            if wanted.is_given_up() {
                return Err(Trouble::Io(io::Error::other("nobody waits for it any more")));
            }
            fs::rename(&path, &target)?;
            sync_parent(&target)?;
            Ok(Receipt { md5, bytes: body.len() as u64, proof: Proof::ReadBack })
        })();
        if stored.is_err() {
            let _ = fs::remove_file(&path);
        }
        stored
    }

    /// A file that is an object; directories are none.
    pub fn open_object(&self, key: &str) -> Result<(File, u64), Trouble> {
        let file = File::open(self.path(key)?)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(Trouble::Missing);
        }
        Ok((file, found.len()))
    }

    pub fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes, Trouble> {
        let (file, bytes) = self.open_object(key)?;
        if range.start >= range.end {
            return Ok(Bytes::new());
        }
        if range.end > bytes {
            let expected = format!("at least {} bytes", range.end);
            return Err(Trouble::Corrupt { expected, got: format!("{bytes} bytes") });
        }
        let mut body = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut body, range.start)?;
        Ok(body.into())
    }

    pub fn delete(&self, key: &str) -> Result<(), Trouble> {
        let path = self.path(key)?;
        match fs::remove_file(&path) {
            Err(err) if err.kind() == ErrorKind::IsADirectory => Ok(()),
            removed => Ok(removed.and_then(|()| sync_parent(&path))?),
        }
    }
}
