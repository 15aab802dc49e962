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

mod files;
mod listing;
#[cfg(test)]
mod tests;

use super::{
    DirectorySettings, Limits, OpenError,
    transfers::{Transfers, within},
};
use crate::{
    cloud::{Cloud, CloudError, Listed, Page, Receipt},
    ids::Md5,
};
use bytes::Bytes;
use files::{Inner, Trouble, Waiting, Wanted, is_key};
use std::{
    fs,
    io::{self, ErrorKind},
    ops::Range,
    path::PathBuf,
    sync::{Arc, mpsc},
    time::Duration,
};
use tokio::sync::Semaphore;

/// Objects in a directory.
pub(super) struct Directory {
    inner: Arc<Inner>,
    name: String,
    limits: Limits,
    puts: Transfers,
    gets: Transfers,
    /// One for each call; who makes a call has one until it returns.
    turns: Arc<Semaphore>,
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

    /// What is wrong with the settings, and with the directory. Makes nothing.
    pub fn check(settings: &DirectorySettings, name: &str) -> Vec<OpenError> {
        let found = match fs::metadata(&settings.path) {
            Ok(found) if found.is_dir() => None,
            Ok(_) => Some(ErrorKind::NotADirectory.into()),
            Err(source) => Some(source),
        };
        let wrong = |source| OpenError::Path { cloud: name.into(), name: "path", path: settings.path.clone(), source };
        Self::root(settings).err().into_iter().chain(found.map(wrong)).collect()
    }

    pub fn open(settings: &DirectorySettings, name: &str) -> Result<Self, OpenError> {
        let root = Self::root(settings)?;
        let inner = Arc::new(Inner::new(settings.path.clone(), root));
        let turns = Arc::new(Semaphore::new(settings.calls_in_flight_max.clamp(1, Semaphore::MAX_PERMITS)));
        let (puts, gets) = Default::default();
        let opened = Self { inner, name: name.into(), limits: settings.limits.clone(), puts, gets, turns };
        opened.prepare()?;
        Ok(opened)
    }

    /// Prepares the directory, or finds out why it cannot be. One that is not there, or does not answer in time, is no reason
    /// not to start, being a cloud that is out: it is prepared by the first call that finds it.
    fn prepare(&self) -> Result<(), OpenError> {
        let (told, heard) = mpsc::sync_channel(1);
        let inner = self.inner.clone();
        std::thread::spawn(move || {
            // Nobody listens any more when it took too long.
            let _ = told.send(inner.prepare());
        });
        let after_ms = self.limits.connect_timeout_ms;
        match heard.recv_timeout(Duration::from_millis(after_ms)) {
            Ok(Err(source)) if source.kind() == ErrorKind::NotFound => {
                let path = self.inner.path.display();
                tracing::error!(cloud = %self.name, %path, "the directory is not there; it is looked for at every call");
                Ok(())
            }
            Ok(prepared) => prepared.map_err(|source| {
                let (cloud, path) = (self.name.clone(), self.inner.path.clone());
                OpenError::Path { cloud, name: "path", path, source }
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
        let _counted = self.gets.begin(bytes);
        self.run("getting", key, bytes, move |inner, _| inner.get(&name, range)).await
    }

    async fn get_whole(&self, key: &str, bytes: u64) -> Result<Bytes, CloudError> {
        let (name, under_way) = (key.to_owned(), self.gets.begin(bytes));
        let work = move |inner: &Inner, _: &Wanted| inner.get(&name, 0..bytes);
        self.run_within("getting", key, || under_way.deadline(&self.limits), work).await
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
        self.run("listing", prefix, 1 << 20, move |inner, _| inner.page(&wanted, after.as_deref())).await
    }
}
