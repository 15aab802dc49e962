//! S3, Azure and Google Cloud Storage as [`Cloud`]s.

use super::{
    Limits, OpenError,
    azure::Deleter,
    failure::cloud_error,
    receipt::{Protocol, answered_md5, azure_listed_md5s, is_encrypted_by_key, tag_md5},
    transfers::{Transfer, Transfers, within},
    wire::{Exchange, Seen},
};
use crate::{
    cloud::{Cloud, CloudError, Listed, Page, Proof, Receipt},
    ids::Md5,
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    GetOptions, GetRange, ObjectStore, PutOptions,
    list::{PaginatedListOptions, PaginatedListStore},
    path::Path,
};
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Objects in one page of a listing.
const PAGE_OBJECTS_MAX: usize = 1_000;
/// Pages that are read to fill one of ours, for servers that do not start behind `after`.
const PAGES_MAX: usize = 10_000;
/// Bodies from this size on are hashed on a thread of their own, in bytes.
const HASH_APART_BYTES: usize = 256 << 10;

pub(super) trait Store: ObjectStore + PaginatedListStore {}
impl<T: ObjectStore + PaginatedListStore> Store for T {}

/// An object store over HTTP.
pub(super) struct Objects {
    name: String,
    protocol: Protocol,
    store: Box<dyn Store>,
    /// Empty, or ends in `/`.
    prefix: String,
    limits: Limits,
    puts: Transfers,
    gets: Transfers,
    /// Whether an answer showed that tags of this bucket are no MD5s.
    tags_are_opaque: AtomicBool,
    /// How to delete, where the client does not delete one object by one request.
    pub(super) deleter: Option<Deleter>,
}

impl Objects {
    pub fn new(
        name: &str,
        protocol: Protocol,
        store: Box<dyn Store>,
        prefix: &str,
        limits: &Limits,
    ) -> Result<Self, OpenError> {
        let prefix = match prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        if let Err(err) = Path::parse(&prefix) {
            return Err(OpenError::Setting { name: "prefix", why: err.to_string() });
        }
        let tags_are_opaque = AtomicBool::new(limits.always_read_back);
        let (name, limits) = (name.to_owned(), limits.clone());
        let (puts, gets) = Default::default();
        Ok(Self { name, protocol, store, prefix, limits, puts, gets, tags_are_opaque, deleter: None })
    }

    fn attempted(&self, doing: &str, key: &str) -> String {
        format!("cloud {}: {doing} {key}", self.name)
    }

    fn path(&self, attempted: &str, key: &str) -> Result<Path, CloudError> {
        let full = format!("{}{key}", self.prefix);
        match Path::parse(&full) {
            Ok(path) if path.as_ref() == full && !key.is_empty() => Ok(path),
            _ => Err(CloudError::Failed { attempted: attempted.into(), why: "no name for an object".into() }),
        }
    }

    /// One attempt with a deadline for `bytes` of body, or that of what shares the link and that it is a part of.
    async fn call<T>(
        &self,
        attempted: &str,
        key: &str,
        (bytes, shared): (u64, Option<&Transfer>),
        exchange: Exchange,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> Result<(T, Seen), CloudError> {
        let exchange = Arc::new(exchange);
        let deadline = || shared.map_or_else(|| self.limits.deadline(bytes), |shared| shared.deadline(&self.limits));
        match within(deadline, exchange.run(work)).await {
            Ok(Ok(done)) => {
                let seen = exchange.seen();
                if seen.answer.as_ref().is_some_and(|answer| is_encrypted_by_key(&answer.headers)) {
                    self.tags_are_opaque.store(true, Ordering::Relaxed);
                }
                Ok((done, seen))
            }
            Ok(Err(err)) => Err(cloud_error(attempted, key, self.limits.connect_timeout_ms, &exchange.seen(), &err)),
            Err(after_ms) => Err(CloudError::TimedOut { attempted: attempted.into(), after_ms }),
        }
    }

    /// The bytes of a range that is not empty, and the size of the whole object.
    async fn fetch(
        &self,
        attempted: &str,
        key: &str,
        range: Range<u64>,
        shared: Option<&Transfer>,
    ) -> Result<(Bytes, u64), CloudError> {
        let path = self.path(attempted, key)?;
        let len = range.end - range.start;
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let work = async {
            let found = self.store.get_opts(&path, options).await?;
            let total = found.meta.size;
            let mut stream = found.into_stream();
            // Most bodies of some size come in many pieces; never more is held than was asked for.
            let mut body = BytesMut::new();
            while let Some(piece) = stream.try_next().await? {
                if (body.len() + piece.len()) as u64 > len {
                    body.clear();
                    break;
                }
                if body.is_empty() {
                    body.reserve(len as usize);
                }
                body.extend_from_slice(&piece);
            }
            Ok((body.freeze(), total))
        };
        let ((body, total), _) = self.call(attempted, key, (len, shared), Exchange::getting(range), work).await?;
        if body.len() as u64 != len {
            let (expected, got) = (format!("{len} bytes"), format!("{} of {total} bytes", body.len()));
            return Err(CloudError::Corrupt { key: key.into(), expected, got });
        }
        Ok((body, total))
    }

    async fn read_back(&self, key: &str, bytes: u64, put: &Transfer) -> Result<Md5, CloudError> {
        let attempted = self.attempted("reading back", key);
        let (body, total) = match bytes {
            0 => (Bytes::new(), self.head(key).await?.bytes),
            _ => self.fetch(&attempted, key, 0..bytes, Some(put)).await?,
        };
        if total != bytes {
            let (expected, got) = (format!("{bytes} bytes"), format!("{total} bytes"));
            return Err(CloudError::Corrupt { key: key.into(), expected, got });
        }
        Ok(digest(body).await)
    }

    /// The MD5s that a listing's answer tells besides tags.
    fn listed_md5(&self, seen: &Seen) -> impl Fn(&str, Option<&str>) -> Option<Md5> + use<> {
        let by_name = match (&seen.answer, self.protocol) {
            (Some(answer), Protocol::Azure) => azure_listed_md5s(&String::from_utf8_lossy(&answer.body)),
            _ => Default::default(),
        };
        let (protocol, opaque) = (self.protocol, self.tags_are_opaque.load(Ordering::Relaxed));
        move |full: &str, tag: Option<&str>| match protocol {
            _ if opaque => None,
            Protocol::Azure => by_name.get(full).copied(),
            Protocol::S3 | Protocol::Gcs => tag.and_then(tag_md5),
        }
    }
}

#[async_trait::async_trait]
impl Cloud for Objects {
    async fn put(&self, key: &str, body: Bytes, md5: Md5) -> Result<Receipt, CloudError> {
        let attempted = self.attempted("putting", key);
        let path = self.path(&attempted, key)?;
        let bytes = body.len() as u64;
        let under_way = self.puts.begin(bytes);
        let work = self.store.put_opts(&path, body.into(), PutOptions::default());
        let (_, seen) = self.call(&attempted, key, (bytes, Some(&under_way)), Exchange::putting(md5), work).await?;
        let answered = seen.answer.as_ref().and_then(|answer| answered_md5(self.protocol, &answer.headers));
        let (got, proof) = match answered.filter(|_| !self.limits.always_read_back) {
            Some(got) => (got, Proof::Answer),
            None => (self.read_back(key, bytes, &under_way).await?, Proof::ReadBack),
        };
        if got != md5 {
            return Err(CloudError::Corrupt { key: key.into(), expected: md5.to_string(), got: got.to_string() });
        }
        Ok(Receipt { md5, bytes, proof })
    }

    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes, CloudError> {
        if range.start >= range.end {
            // HTTP knows no empty range: what is left to say is whether the object is there.
            return self.head(key).await.map(|_| Bytes::new());
        }
        let attempted = self.attempted("getting", key);
        let _counted = self.gets.begin(range.end - range.start);
        Ok(self.fetch(&attempted, key, range, None).await?.0)
    }

    async fn get_whole(&self, key: &str, bytes: u64) -> Result<Bytes, CloudError> {
        if bytes == 0 {
            return self.get(key, 0..0).await;
        }
        let attempted = self.attempted("getting", key);
        let under_way = self.gets.begin(bytes);
        Ok(self.fetch(&attempted, key, 0..bytes, Some(&under_way)).await?.0)
    }

    async fn head(&self, key: &str) -> Result<Listed, CloudError> {
        let attempted = self.attempted("looking at", key);
        let path = self.path(&attempted, key)?;
        let options = GetOptions { head: true, ..GetOptions::default() };
        let work = async { Ok(self.store.get_opts(&path, options).await?.meta.size) };
        let (bytes, seen) = self.call(&attempted, key, (0, None), Exchange::looking(), work).await?;
        let told = seen.answer.as_ref().and_then(|answer| answered_md5(self.protocol, &answer.headers));
        Ok(Listed { key: key.into(), bytes, md5: told.filter(|_| !self.limits.always_read_back) })
    }

    async fn delete(&self, key: &str) -> Result<(), CloudError> {
        let attempted = self.attempted("deleting", key);
        let path = self.path(&attempted, key)?;
        let work = async {
            if let Some(deleter) = &self.deleter {
                return deleter.delete(&path).await;
            }
            let one = stream::once(async { Ok(path) }).boxed();
            self.store.delete_stream(one).try_for_each(async |_| Ok(())).await
        };
        match self.call(&attempted, key, (0, None), Exchange::default(), work).await {
            Ok(_) | Err(CloudError::NotFound { .. }) => Ok(()),
            Err(err) => Err(err),
        }
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, CloudError> {
        let attempted = self.attempted("listing", prefix);
        let wanted = format!("{}{prefix}", self.prefix);
        let after = after.map(|after| format!("{}{after}", self.prefix));
        // The client drops an Azure object whose whole name is the prefix, so the server is asked for a little more.
        let mut asked = wanted.clone();
        if self.protocol == Protocol::Azure && !asked.ends_with('/') {
            asked.pop();
        }
        let mut page = Page { objects: Vec::new(), more: true };
        let mut token = None;
        for _ in 0..PAGES_MAX {
            let options = PaginatedListOptions {
                offset: after.clone(),
                max_keys: Some(PAGE_OBJECTS_MAX),
                page_token: token.take(),
                ..PaginatedListOptions::default()
            };
            let asked = Some(asked.as_str()).filter(|asked| !asked.is_empty());
            let work = self.store.list_paginated(asked, options);
            let (found, seen) = self.call(&attempted, prefix, (1 << 20, None), Exchange::default(), work).await?;
            let md5 = self.listed_md5(&seen);
            for object in found.result.objects {
                let full = object.location.as_ref();
                if !full.starts_with(&wanted) || after.as_deref().is_some_and(|after| full <= after) {
                    continue;
                }
                let key = full[self.prefix.len()..].to_owned();
                page.objects.push(Listed { key, bytes: object.size, md5: md5(full, object.e_tag.as_deref()) });
            }
            token = found.page_token;
            page.more = token.is_some();
            if !page.more || !page.objects.is_empty() {
                break;
            }
        }
        page.objects.sort_by(|a, b| a.key.cmp(&b.key));
        page.objects.dedup_by(|a, b| a.key == b.key);
        if page.objects.len() > PAGE_OBJECTS_MAX {
            page.objects.truncate(PAGE_OBJECTS_MAX);
            page.more = true;
        }
        Ok(page)
    }
}

#[expect(clippy::disallowed_methods, reason = "real clouds are called on a runtime with threads")]
async fn digest(body: Bytes) -> Md5 {
    if body.len() < HASH_APART_BYTES {
        return Md5::of(&body);
    }
    tokio::task::spawn_blocking(move || Md5::of(&body)).await.expect("hashing neither panics nor is cancelled")
}
