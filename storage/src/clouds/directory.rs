//! A directory as a [`Cloud`]: each object is a file, whole and durable or not there.
//!
//! ```text
//! put: .filermesh-incoming/N  write -> fsync -> read back, hash -> (still wanted?) rename to its name -> fsync its directory
//! ```
//!
//! The folder for incoming files is also the mark that the directory is the right one: when it is gone (a mount that
//! was lost), a missing file is a failure and not an absent object.
//!
//! Calls of the operating system wait for as long as a dead mount likes. Each is made on a thread of its own, a bounded
//! number at a time, and nobody waits for it beyond its deadline. A put that goes on behind its deadline, or when its cloud has
//! failed meanwhile, ends before the rename: its segment may have been deleted since, and would be there again for ever.

#![expect(clippy::disallowed_methods, reason = "a cloud that is a real directory")]

use super::{
    DirectorySettings, Limits, OpenError,
    puts::{Puts, within},
};
use crate::{
    cloud::{Cloud, CloudError, Listed, Page, Proof, Receipt},
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
        mpsc,
    },
    time::Duration,
};
use tokio::sync::Semaphore;

const INCOMING: &str = ".filermesh-incoming";
/// The longest name of an object, in bytes, as S3 has it.
const KEY_BYTES_MAX: usize = 1_024;
const PAGE_OBJECTS_MAX: usize = 1_000;
/// Incoming files that are older than this were left by a crash.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// Objects in a directory.
pub(super) struct Directory {
    inner: Arc<Inner>,
    name: String,
    limits: Limits,
    puts: Puts,
    /// One for each call; who makes a call has one until it returns.
    turns: Arc<Semaphore>,
}

struct Inner {
    /// As the operator named it: it is never made.
    path: PathBuf,
    root: PathBuf,
    incoming: PathBuf,
    next: AtomicU64,
    /// The folder for incoming files was seen or made.
    ready: AtomicBool,
}

/// Whether somebody still waits for a call.
#[derive(Clone, Default)]
struct Wanted(Arc<AtomicBool>);

/// The one who waits: gone at the deadline, and when the attempt is dropped.
struct Waiting(Wanted);

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
enum Trouble {
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

impl Directory {
    /// Where the objects are.
    fn root(settings: &DirectorySettings) -> Result<PathBuf, OpenError> {
        let prefix = settings.prefix.trim_matches('/');
        if !prefix.is_empty() && !is_key(prefix) {
            return Err(OpenError::Setting { name: "prefix", why: format!("{prefix:?} is no path below a directory") });
        }
        Ok(if prefix.is_empty() { settings.path.clone() } else { settings.path.join(prefix) })
    }

    /// Checks the settings and the directory; gives where the objects are. Makes nothing.
    pub fn check(settings: &DirectorySettings, name: &str) -> Result<PathBuf, OpenError> {
        let (root, path) = (Self::root(settings)?, settings.path.clone());
        let wrong = |source| OpenError::Path { cloud: name.into(), path: path.clone(), source };
        let found = fs::metadata(&path).map_err(wrong)?;
        if !found.is_dir() {
            return Err(wrong(ErrorKind::NotADirectory.into()));
        }
        Ok(root)
    }

    pub fn open(settings: &DirectorySettings, name: &str) -> Result<Self, OpenError> {
        let root = Self::root(settings)?;
        let (incoming, path) = (root.join(INCOMING), settings.path.clone());
        let inner = Arc::new(Inner { path, root, incoming, next: AtomicU64::new(0), ready: AtomicBool::new(false) });
        let turns = Arc::new(Semaphore::new(settings.calls_in_flight_max.clamp(1, Semaphore::MAX_PERMITS)));
        let (limits, puts) = (settings.limits.clone(), Puts::default());
        let opened = Self { inner, name: name.into(), limits, puts, turns };
        opened.prepare()?;
        Ok(opened)
    }

    /// Prepares the directory, or finds out why it cannot be. One that does not answer in time is no reason not to start:
    /// it is prepared by the first call that it answers.
    fn prepare(&self) -> Result<(), OpenError> {
        let (told, heard) = mpsc::sync_channel(1);
        let inner = self.inner.clone();
        std::thread::spawn(move || {
            // Nobody listens any more when it took too long.
            let _ = told.send(inner.prepare());
        });
        let after_ms = self.limits.connect_timeout_ms;
        match heard.recv_timeout(Duration::from_millis(after_ms)) {
            Ok(prepared) => prepared.map_err(|source| {
                let (cloud, path) = (self.name.clone(), self.inner.path.clone());
                OpenError::Path { cloud, path, source }
            }),
            Err(_) => {
                let path = self.inner.path.display();
                tracing::error!(cloud = %self.name, %path, after_ms, "the directory does not answer; it is tried at every call");
                Ok(())
            }
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        doing: &str,
        key: &str,
        bytes: u64,
        work: impl FnOnce(&Inner, &Wanted) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, CloudError> {
        self.run_within(doing, key, || self.limits.deadline(bytes), work).await
    }

    async fn run_within<T: Send + 'static>(
        &self,
        doing: &str,
        key: &str,
        deadline: impl Fn() -> Duration + Send,
        work: impl FnOnce(&Inner, &Wanted) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, CloudError> {
        let attempted = format!("cloud {}: {doing} {key}", self.name);
        let wanted = Wanted::default();
        let _waiting = Waiting(wanted.clone());
        let inner = Arc::clone(&self.inner);
        let blocking = move || {
            inner.prepare().map_err(Trouble::Io)?;
            work(&inner, &wanted).map_err(|trouble| match trouble {
                // A directory that is gone as a whole keeps its objects out of reach; it does not lack them.
                Trouble::Missing if !inner.incoming.is_dir() => Trouble::Io(io::Error::other("the directory is gone")),
                trouble => trouble,
            })
        };
        let turns = Arc::clone(&self.turns);
        let task = async move {
            let turn = turns.acquire_owned().await.expect("this semaphore is never closed");
            let call = move || {
                let done = blocking();
                drop(turn);
                done
            };
            tokio::task::spawn_blocking(call).await
        };
        match within(deadline, task).await {
            Err(after_ms) => Err(CloudError::TimedOut { attempted, after_ms }),
            Ok(Err(join)) => Err(CloudError::Failed { attempted, why: join.to_string() }),
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(trouble))) => Err(match trouble {
                Trouble::Missing => CloudError::NotFound { key: key.into() },
                Trouble::Corrupt { expected, got } => CloudError::Corrupt { key: key.into(), expected, got },
                Trouble::Io(err) if err.kind() == ErrorKind::PermissionDenied => {
                    CloudError::Denied { attempted, why: err.to_string() }
                }
                Trouble::Io(err) => CloudError::Failed { attempted, why: err.to_string() },
            }),
        }
    }
}

/// Whether `key` names a file below the root and nothing else.
fn is_key(key: &str) -> bool {
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
    /// Makes sure once that the directory is there and has its folder for incoming files.
    fn prepare(&self) -> io::Result<()> {
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

    fn put(&self, key: &str, body: &[u8], md5: Md5, wanted: &Wanted) -> Result<Receipt, Trouble> {
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
    fn open_object(&self, key: &str) -> Result<(File, u64), Trouble> {
        let file = File::open(self.path(key)?)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(Trouble::Missing);
        }
        Ok((file, found.len()))
    }

    fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes, Trouble> {
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

    fn delete(&self, key: &str) -> Result<(), Trouble> {
        let path = self.path(key)?;
        match fs::remove_file(&path) {
            Err(err) if err.kind() == ErrorKind::IsADirectory => Ok(()),
            removed => Ok(removed.and_then(|()| sync_parent(&path))?),
        }
    }

    /// Collects one object more than a page holds from the directory `at`, whose keys begin with `above`.
    fn list(&self, at: &Path, above: &str, walk: &Walk<'_>, found: &mut Vec<Listed>) -> Result<(), Trouble> {
        let entries = match fs::read_dir(at) {
            Err(err) if err.kind() == ErrorKind::NotFound && at != self.root => return Ok(()),
            entries => entries?,
        };
        // Whole keys are in order when a directory sorts as its name with the slash.
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let (Ok(name), Ok(kind)) = (entry.file_name().into_string(), entry.file_type()) else { continue };
            if kind.is_dir() && (!above.is_empty() || name != INCOMING) {
                names.push((format!("{above}{name}/"), entry.path(), true));
            } else if kind.is_file() {
                names.push((format!("{above}{name}"), entry.path(), false));
            }
        }
        names.sort();
        for (key, path, is_directory) in names {
            if found.len() > PAGE_OBJECTS_MAX {
                break;
            }
            if is_directory {
                if walk.enters(&key) {
                    self.list(&path, &key, walk, found)?;
                }
            } else if walk.takes(&key) {
                // One that was deleted a moment ago is not listed.
                if let Ok(file) = fs::symlink_metadata(&path) {
                    found.push(Listed { key, bytes: file.len(), md5: None });
                }
            }
        }
        Ok(())
    }
}

/// What a listing wants.
struct Walk<'a> {
    prefix: &'a str,
    after: Option<&'a str>,
}

impl Walk<'_> {
    fn takes(&self, key: &str) -> bool {
        key.starts_with(self.prefix) && self.after.is_none_or(|after| key > after)
    }

    /// Whether keys that begin with `above` may be wanted.
    fn enters(&self, above: &str) -> bool {
        let in_prefix = above.starts_with(self.prefix) || self.prefix.starts_with(above);
        in_prefix && self.after.is_none_or(|after| above > after || after.starts_with(above))
    }
}

#[async_trait::async_trait]
impl Cloud for Directory {
    async fn put(&self, key: &str, body: Bytes, md5: Md5) -> Result<Receipt, CloudError> {
        let name = key.to_owned();
        let put = self.puts.begin(body.len() as u64);
        let work = move |inner: &Inner, wanted: &Wanted| inner.put(&name, &body, md5, wanted);
        self.run_within("putting", key, || put.deadline(&self.limits), work).await
    }

    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes, CloudError> {
        let (name, bytes) = (key.to_owned(), range.end.saturating_sub(range.start));
        self.run("getting", key, bytes, move |inner, _| inner.get(&name, range)).await
    }

    async fn head(&self, key: &str) -> Result<Listed, CloudError> {
        let name = key.to_owned();
        let bytes = self.run("looking at", key, 0, move |inner, _| Ok(inner.open_object(&name)?.1)).await?;
        Ok(Listed { key: key.into(), bytes, md5: None })
    }

    async fn delete(&self, key: &str) -> Result<(), CloudError> {
        let name = key.to_owned();
        match self.run("deleting", key, 0, move |inner, _| inner.delete(&name)).await {
            Err(CloudError::NotFound { .. }) => Ok(()),
            deleted => deleted,
        }
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, CloudError> {
        let (wanted, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.run("listing", prefix, 1 << 20, move |inner, _| {
            let walk = Walk { prefix: &wanted, after: after.as_deref() };
            let mut objects = Vec::new();
            inner.list(&inner.root, "", &walk, &mut objects)?;
            let more = objects.len() > PAGE_OBJECTS_MAX;
            objects.truncate(PAGE_OBJECTS_MAX);
            Ok(Page { objects, more })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn directory(at: &Path) -> Directory {
        let settings = DirectorySettings { prefix: "fs/one".into(), ..DirectorySettings::new(at) };
        Directory::open(&settings, "a").unwrap()
    }

    #[tokio::test]
    async fn no_key_leads_out_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let cloud = directory(dir.path());
        fs::write(dir.path().join("outside"), b"secret").unwrap();
        let incoming = format!("{INCOMING}/x");
        for key in
            ["../outside", "a/../../../outside", "/etc/passwd", "", "a//b", "a/", ".", "a/./b", "a\0b", &incoming]
        {
            let body = Bytes::from_static(b"x");
            assert!(matches!(cloud.get(key, 0..1).await, Err(CloudError::Failed { .. })), "{key:?}");
            assert!(matches!(cloud.put(key, body.clone(), Md5::of(&body)).await, Err(CloudError::Failed { .. })));
            assert!(matches!(cloud.delete(key).await, Err(CloudError::Failed { .. })));
        }
    }

    #[tokio::test]
    async fn a_lost_mount_is_a_failure_and_not_an_empty_cloud() {
        let dir = tempfile::tempdir().unwrap();
        let cloud = directory(dir.path());
        let body = Bytes::from_static(b"x");
        cloud.put("a/b", body.clone(), Md5::of(&body)).await.unwrap();
        fs::rename(dir.path().join("fs"), dir.path().join("away")).unwrap();
        assert!(matches!(cloud.get("a/b", 0..1).await, Err(CloudError::Failed { .. })));
        assert!(matches!(cloud.delete("a/b").await, Err(CloudError::Failed { .. })));
        assert!(matches!(cloud.list("", None).await, Err(CloudError::Failed { .. })));
        assert!(matches!(cloud.put("a/c", body.clone(), Md5::of(&body)).await, Err(CloudError::Failed { .. })));
    }

    #[tokio::test]
    async fn a_missing_directory_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("absent");
        assert!(matches!(Directory::open(&DirectorySettings::new(path), "a"), Err(OpenError::Path { .. })));
    }

    #[tokio::test]
    async fn listings_are_in_order_of_whole_keys() {
        let dir = tempfile::tempdir().unwrap();
        let cloud = directory(dir.path());
        let keys = ["a-b", "a.b", "a/b", "a/b.c/d", "a/b0", "a0", "b"];
        for key in keys {
            cloud.put(key, Bytes::new(), Md5::of(b"")).await.unwrap();
        }
        let listed = |page: Page| page.objects.into_iter().map(|object| object.key).collect::<Vec<_>>();
        assert_eq!(listed(cloud.list("", None).await.unwrap()), keys);
        for (index, key) in keys.iter().enumerate() {
            assert_eq!(listed(cloud.list("", Some(key)).await.unwrap()), keys[index + 1..], "after {key}");
        }
        assert_eq!(listed(cloud.list("a/b", None).await.unwrap()), ["a/b", "a/b.c/d", "a/b0"]);
        assert_eq!(listed(cloud.list("a/", Some("a/b.c/")).await.unwrap()), ["a/b.c/d", "a/b0"]);
    }

    #[tokio::test]
    async fn what_a_crash_left_is_removed_when_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        drop(directory(dir.path()));
        let incoming = dir.path().join("fs/one").join(INCOMING);
        fs::write(incoming.join("young"), b"x").unwrap();
        let old = File::create(incoming.join("old")).unwrap();
        let long_ago = old.metadata().unwrap().modified().unwrap() - 2 * STALE;
        old.set_modified(long_ago).unwrap();
        drop(directory(dir.path()));
        assert!(incoming.join("young").exists() && !incoming.join("old").exists());
    }

    /// A dead mount that comes back carries out what was asked of it long ago: a put whose segment was deleted since.
    #[tokio::test(start_paused = true)]
    async fn a_put_that_was_given_up_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cloud = directory(dir.path());
        // Large, so that it is still being written when it is given up a moment later.
        let body = Bytes::from(vec![7; 32 << 20]);
        let md5 = Md5::of(&body);
        let begin = |key| {
            let mut put = Box::pin(cloud.put(key, body.clone(), md5));
            assert!(put.as_mut().now_or_never().is_none());
            put
        };
        let all = cloud.turns.available_permits() as u32;
        let put = begin("late");
        tokio::time::advance(cloud.limits.deadline(body.len() as u64)).await;
        assert!(matches!(put.await, Err(CloudError::TimedOut { .. })));
        // As when the cloud has failed meanwhile.
        drop(begin("dropped"));
        drop(cloud.turns.acquire_many(all).await.unwrap());
        assert_eq!(cloud.list("", None).await.unwrap().objects, []);
        let left = fs::read_dir(dir.path().join("fs/one").join(INCOMING)).unwrap().count();
        assert_eq!(left, 0, "nor does it stay among the incoming");
        cloud.put("late", Bytes::new(), Md5::of(b"")).await.unwrap();
    }

    /// A FIFO that nobody writes to hangs whoever opens it, as a dead mount does.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_mount_that_hangs_takes_a_bounded_number_of_threads_and_every_call_has_its_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { request_timeout_ms: 200, ms_per_mib: 0, ..Limits::default() };
        let settings = DirectorySettings { calls_in_flight_max: 3, limits, ..DirectorySettings::new(dir.path()) };
        let cloud = Arc::new(Directory::open(&settings, "a").unwrap());
        let fifo = dir.path().join("hangs");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let calls = (0..10).map(|_| {
            let cloud = cloud.clone();
            tokio::spawn(async move { cloud.get("hangs", 0..1).await })
        });
        for call in futures::future::join_all(calls).await {
            let answer = call.unwrap();
            assert!(matches!(answer, Err(CloudError::TimedOut { after_ms: 200, .. })), "{answer:?}");
        }
        assert_eq!(cloud.turns.available_permits(), 0, "three calls hang, and no more were begun");
        // Once it answers, all is as before: whoever opened it is let go.
        drop(OpenOptions::new().write(true).open(&fifo).unwrap());
        drop(cloud.turns.acquire_many(3).await.unwrap());
        let body = Bytes::from_static(b"x");
        cloud.put("a", body.clone(), Md5::of(&body)).await.unwrap();
    }
}
