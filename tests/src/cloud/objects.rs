//! The objects a test cloud holds: an index in memory, and bodies in memory or in files.
//!
//! A put is written aside while its MD5 is computed, then published in one step, so no reader ever sees half of it and
//! a process killed at any moment leaves either the old object or the new one. Data is not synced to the disk: this
//! cloud outlives its process, not a power cut.
//!
//! Owns: the index, the files, preconditions. Does not own: the protocol (`protocol`) and its faults (`door`).

mod incoming;
mod names;
mod reader;

pub(super) use incoming::Incoming;
pub(super) use reader::Reader;

use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

/// Folder for puts on their way in; no bucket's name begins with a dot.
const INCOMING: &str = ".incoming";

/// Where objects are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// In this process, gone with it.
    Memory,
    /// As files below this folder, found again after a restart.
    Directory(PathBuf),
}

/// What is known of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub key: String,
    pub bytes: u64,
    /// MD5 of what was put (not of what rots there since).
    pub md5: [u8; 16],
    pub modified: SystemTime,
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What must hold of the key for a put to be accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Precondition {
    #[default]
    None,
    /// No object has this key.
    Absent,
    /// An object with any checksum has this key.
    Present,
    /// The object has this MD5, in hex.
    Md5(String),
}

/// Why an object could not be stored, read or found.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    #[error("no bucket {0}")]
    NoBucket(String),
    #[error("no object {0}")]
    NoObject(String),
    #[error("object {0}: the precondition does not hold")]
    Precondition(String),
    #[error("object {0}: a part of the key is too long for a file name")]
    KeyTooLong(String),
    #[error("object {key}: {attempted}")]
    Disk {
        key: String,
        attempted: &'static str,
        #[source]
        source: io::Error,
    },
}

struct Stored {
    facts: Facts,
    body: StoredBody,
}

enum StoredBody {
    Memory(Bytes),
    File(PathBuf),
}

/// One page of a listing.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) objects: Vec<Facts>,
    /// What the keys share up to the delimiter.
    pub(super) prefixes: Vec<String>,
    /// Where the next page begins, if one follows: behind this key.
    pub(super) next: Option<String>,
}

type Bucket = BTreeMap<String, Stored>;

/// All objects of one test cloud. Every method may block on the disk for a moment.
pub struct Objects {
    home: Home,
    buckets: Mutex<BTreeMap<String, Bucket>>,
    incoming: AtomicU64,
    changed: tokio::sync::Notify,
}

impl Objects {
    /// Opens what is kept at `home`, without the remains of unfinished puts.
    pub(super) fn open(home: Home) -> io::Result<Self> {
        let mut buckets = BTreeMap::new();
        if let Home::Directory(folder) = &home {
            let aside = folder.join(INCOMING);
            match fs::remove_dir_all(&aside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => fs::create_dir_all(&aside)?,
            }
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let name = entry.file_name().into_string().unwrap_or_default();
                if entry.file_type()?.is_dir() && !name.is_empty() && !name.starts_with('.') {
                    let mut bucket = Bucket::new();
                    load(&entry.path(), &entry.path(), &mut bucket)?;
                    buckets.insert(name, bucket);
                }
            }
        }
        Ok(Self {
            home,
            buckets: Mutex::new(buckets),
            incoming: AtomicU64::new(0),
            changed: tokio::sync::Notify::new(),
        })
    }

    /// Creates a bucket; whether it is new.
    pub fn create_bucket(&self, bucket: &str) -> io::Result<bool> {
        let mut buckets = self.buckets();
        if buckets.contains_key(bucket) {
            return Ok(false);
        }
        if let Home::Directory(folder) = &self.home {
            fs::create_dir_all(folder.join(bucket))?;
        }
        buckets.insert(bucket.into(), Bucket::new());
        Ok(true)
    }

    /// The names of all buckets.
    pub fn bucket_names(&self) -> Vec<String> {
        self.buckets().keys().cloned().collect()
    }

    /// Every object of `bucket` whose key begins with `prefix`, in order of key.
    pub fn all(&self, bucket: &str, prefix: &str) -> Vec<Facts> {
        let page = self.list(bucket, prefix, None, None, usize::MAX);
        page.map(|page| page.objects).unwrap_or_default()
    }

    /// What is known of one object.
    pub fn facts(&self, bucket: &str, key: &str) -> Result<Facts, ObjectsError> {
        let buckets = self.buckets();
        Ok(find(&buckets, bucket, key)?.facts.clone())
    }

    /// The whole body of one object, as it is stored now.
    pub fn body(&self, bucket: &str, key: &str) -> Result<Bytes, ObjectsError> {
        let (facts, reader) = self.reader(bucket, key)?;
        let len = usize::try_from(facts.bytes).expect("objects fit in memory");
        reader.read(0, len).map_err(|source| disk(key, "reading", source))
    }

    /// Removes an object; whether there was one.
    pub fn remove(&self, bucket: &str, key: &str) -> Result<bool, ObjectsError> {
        let mut buckets = self.buckets();
        let bucket = buckets.get_mut(bucket).ok_or_else(|| ObjectsError::NoBucket(bucket.into()))?;
        let removed = bucket.remove(key);
        if let Some(Stored { body: StoredBody::File(path), .. }) = &removed {
            fs::remove_file(path).map_err(|source| disk(key, "deleting its file", source))?;
        }
        drop(buckets);
        self.changed.notify_waiters();
        Ok(removed.is_some())
    }

    /// Turns over one bit of a stored body (`bit` counts from its start, modulo its length) and leaves the recorded
    /// MD5 as it was: data that rots where it lies.
    pub fn rot(&self, bucket: &str, key: &str, bit: u64) -> Result<(), ObjectsError> {
        let mut body = self.body(bucket, key)?.to_vec();
        if body.is_empty() {
            return Ok(());
        }
        let at = usize::try_from(bit / 8 % body.len() as u64).expect("less than a length");
        body[at] ^= 1 << (bit % 8);
        let mut buckets = self.buckets();
        let bucket = buckets.get_mut(bucket).ok_or_else(|| ObjectsError::NoBucket(bucket.into()))?;
        let stored = bucket.get_mut(key).ok_or_else(|| ObjectsError::NoObject(key.into()))?;
        match &mut stored.body {
            StoredBody::Memory(stored) => *stored = body.into(),
            StoredBody::File(path) => {
                fs::write(path, &body).map_err(|source| disk(key, "damaging its file", source))?
            }
        }
        Ok(())
    }

    /// Returns once `holds` is true of the objects. Give it a deadline with `tokio::time::timeout`.
    pub async fn until(&self, mut holds: impl FnMut(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that a change right behind it is not missed.
            changed.as_mut().enable();
            if holds(self) {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn reader(&self, bucket: &str, key: &str) -> Result<(Facts, Reader), ObjectsError> {
        let buckets = self.buckets();
        let stored = find(&buckets, bucket, key)?;
        // Opened under the lock, so that no replacement can delete the file in between.
        let reader = match &stored.body {
            StoredBody::Memory(body) => Reader::Memory(body.clone()),
            StoredBody::File(path) => {
                Reader::File(Arc::new(File::open(path).map_err(|source| disk(key, "opening its file", source))?))
            }
        };
        Ok((stored.facts.clone(), reader))
    }

    /// Up to `limit` entries behind `after`, with keys that share a part up to `delimiter` told once as a prefix.
    pub(super) fn list(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, ObjectsError> {
        let buckets = self.buckets();
        let bucket = buckets.get(bucket).ok_or_else(|| ObjectsError::NoBucket(bucket.into()))?;
        let mut page = Page::default();
        let mut from = match after.filter(|after| *after >= prefix) {
            Some(after) => Bound::Excluded(after.to_string()),
            None => Bound::Included(prefix.to_string()),
        };
        let mut last = None;
        while let Some((key, stored)) = bucket.range((from, Bound::Unbounded)).next() {
            if !key.starts_with(prefix) {
                break;
            }
            if page.objects.len() + page.prefixes.len() == limit {
                page.next = last;
                break;
            }
            let shared = delimiter.filter(|delimiter| !delimiter.is_empty()).and_then(|delimiter| {
                let end = key[prefix.len()..].find(delimiter)?;
                Some(&key[..prefix.len() + end + delimiter.len()])
            });
            let behind = match shared {
                Some(shared) => {
                    page.prefixes.push(shared.into());
                    format!("{shared}\u{10FFFF}")
                }
                None => {
                    page.objects.push(stored.facts.clone());
                    key.clone()
                }
            };
            last = Some(behind.clone());
            from = Bound::Excluded(behind);
        }
        Ok(page)
    }

    /// A place for a put's body, `bytes` long if known.
    pub(super) fn incoming(&self, bytes: Option<u64>) -> io::Result<Incoming> {
        match &self.home {
            Home::Memory => Ok(Incoming::in_memory(bytes)),
            Home::Directory(folder) => {
                let number = self.incoming.fetch_add(1, Ordering::Relaxed);
                Incoming::in_file(folder.join(INCOMING).join(number.to_string()))
            }
        }
    }

    /// Publishes a received body under `key`, in one step.
    pub(super) fn publish(
        &self,
        bucket: &str,
        key: &str,
        received: incoming::Received,
        precondition: &Precondition,
    ) -> Result<Facts, ObjectsError> {
        let mut buckets = self.buckets();
        let objects = buckets.get_mut(bucket).ok_or_else(|| ObjectsError::NoBucket(bucket.into()))?;
        let old = objects.get(key);
        let holds = match (precondition, old) {
            (Precondition::None, _) | (Precondition::Absent, None) | (Precondition::Present, Some(_)) => true,
            (Precondition::Md5(md5), Some(old)) => hex(&old.facts.md5) == *md5,
            (Precondition::Absent, Some(_)) | (Precondition::Present | Precondition::Md5(_), None) => false,
        };
        if !holds {
            return Err(ObjectsError::Precondition(key.into()));
        }
        let facts = Facts { key: key.into(), bytes: received.bytes, md5: received.md5, modified: SystemTime::now() };
        let body = match (&self.home, received.body) {
            (Home::Directory(folder), incoming::Body::File(aside)) => {
                let name = names::file_of(key, &facts.md5).ok_or_else(|| ObjectsError::KeyTooLong(key.into()))?;
                let path = folder.join(bucket).join(name);
                aside.publish(&path).map_err(|source| disk(key, "renaming its file", source))?;
                StoredBody::File(path)
            }
            (_, incoming::Body::Memory(body)) => StoredBody::Memory(body),
            (Home::Memory, incoming::Body::File(_)) => unreachable!("a body is received where it will be kept"),
        };
        let replaced = objects.insert(key.into(), Stored { facts: facts.clone(), body });
        if let (Some(StoredBody::File(old)), Some(StoredBody::File(new))) =
            (replaced.map(|old| old.body), objects.get(key).map(|new| &new.body))
            && old != *new
        {
            fs::remove_file(&old).map_err(|source| disk(key, "deleting the file it replaces", source))?;
        }
        drop(buckets);
        self.changed.notify_waiters();
        Ok(facts)
    }

    fn buckets(&self) -> MutexGuard<'_, BTreeMap<String, Bucket>> {
        self.buckets.lock().expect("no holder of this lock panics")
    }
}

fn find<'a>(buckets: &'a BTreeMap<String, Bucket>, bucket: &str, key: &str) -> Result<&'a Stored, ObjectsError> {
    let bucket = buckets.get(bucket).ok_or_else(|| ObjectsError::NoBucket(bucket.into()))?;
    bucket.get(key).ok_or_else(|| ObjectsError::NoObject(key.into()))
}

fn disk(key: &str, attempted: &'static str, source: io::Error) -> ObjectsError {
    ObjectsError::Disk { key: key.into(), attempted, source }
}

/// Finds the objects below `folder`. Of two files for one key (killed while replacing) the younger one stays.
fn load(root: &Path, folder: &Path, bucket: &mut Bucket) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, about) = (entry.path(), entry.metadata()?);
        if about.is_dir() {
            load(root, &path, bucket)?;
            continue;
        }
        let below = path.strip_prefix(root).expect("found below the root");
        let Some((key, md5)) = names::key_of(below) else {
            tracing::warn!(?path, "not an object of this cloud: left alone");
            continue;
        };
        let facts = Facts { key: key.clone(), bytes: about.len(), md5, modified: about.modified()? };
        let (stays, goes) = match bucket.remove(&key) {
            Some(other) if other.facts.modified > facts.modified => (other, Some(path)),
            Some(other) => {
                let StoredBody::File(older) = other.body else { unreachable!("only files are loaded") };
                (Stored { facts, body: StoredBody::File(path) }, Some(older))
            }
            None => (Stored { facts, body: StoredBody::File(path) }, None),
        };
        if let Some(goes) = goes {
            fs::remove_file(goes)?;
        }
        bucket.insert(key, stays);
    }
    Ok(())
}
