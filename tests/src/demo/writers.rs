//! Clients at work at every site: they create, overwrite, patch, append, cut, rename and delete files, and read at
//! another site what they just wrote.
//!
//! Every writer has files of its own, so that what each file must hold is known exactly: the model is changed when an
//! operation is acknowledged, and an operation that fails ends the demo.

use super::{
    model::{Content, Model},
    source::Random,
};
use crate::nfs3::{Fh, Nfs3};
use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::sleep;

/// Files that are never replaced or moved whole are larger than this, in bytes.
const REPLACED_BYTES_MAX: u64 = 16 << 20;
/// Data that one writer keeps in memory; then it makes small files alone.
const HELD_BYTES_MAX: usize = 96 << 20;
/// Longest pause between two operations.
const PAUSE_MS_MAX: usize = 40;

/// What the writers did, together.
#[derive(Debug, Default)]
pub struct Done {
    pub created: AtomicU64,
    pub overwritten: AtomicU64,
    pub patched: AtomicU64,
    pub renamed: AtomicU64,
    pub deleted: AtomicU64,
    /// Files read at another site right after they were written here.
    pub compared: AtomicU64,
    pub bytes: AtomicU64,
}

impl Done {
    /// All changes.
    pub fn changes(&self) -> u64 {
        [&self.created, &self.overwritten, &self.patched, &self.renamed, &self.deleted]
            .map(|n| n.load(Relaxed))
            .iter()
            .sum()
    }

    /// In words.
    pub fn words(&self) -> String {
        let [created, overwritten, patched, renamed, deleted, compared] =
            [&self.created, &self.overwritten, &self.patched, &self.renamed, &self.deleted, &self.compared]
                .map(|n| n.load(Relaxed));
        format!(
            "{created} created, {overwritten} overwritten, {patched} patched or cut, {renamed} renamed, {deleted} deleted; \
             {compared} compared at another site"
        )
    }
}

/// A client at one site, with its files.
pub struct Writer {
    site: String,
    nfs: Nfs3,
    /// The other sites.
    others: Vec<(String, Nfs3)>,
    model: Model,
    dirs: BTreeMap<String, Fh>,
    random: Random,
    number: u64,
    done: Arc<Done>,
    held_bytes: usize,
}

impl Writer {
    /// A writer that may do with the files of `model` what it likes.
    pub fn new(site: &str, nfs: Nfs3, others: Vec<(String, Nfs3)>, model: Model, seed: u64, done: Arc<Done>) -> Self {
        let (site, random) = (site.to_string(), Random(seed));
        Self { site, nfs, others, model, dirs: BTreeMap::new(), random, number: 0, done, held_bytes: 0 }
    }

    /// Works until it is told to stop; gives its files back.
    pub async fn run(mut self, stop: Arc<AtomicBool>) -> Result<Model> {
        let home = self.home();
        let made = self.nfs.make_dirs(&home).await.with_context(|| format!("{}: making {home}", self.site))?;
        self.dirs.insert(home, made);
        while !stop.load(Relaxed) {
            self.step().await.with_context(|| format!("a client at {}", self.site))?;
            sleep(Duration::from_millis(self.random.below(PAUSE_MS_MAX) as u64)).await;
        }
        Ok(self.model)
    }

    fn home(&self) -> String {
        format!("work/{}", self.site)
    }

    async fn step(&mut self) -> Result<()> {
        match self.random.below(100) {
            0..30 => self.create().await,
            30..48 => self.overwrite().await,
            48..66 => self.patch().await,
            66..76 => self.rename().await,
            76..86 => self.delete().await,
            _ => self.compare().await,
        }
    }

    fn count(&self, counter: impl Fn(&Done) -> &AtomicU64, bytes: usize) {
        counter(&self.done).fetch_add(1, Relaxed);
        self.done.bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// One of its files that `fits`.
    fn pick(&mut self, fits: impl Fn(&Content) -> bool) -> Option<String> {
        let fitting: Vec<_> =
            self.model.files.iter().filter(|(_, content)| fits(content)).map(|(path, _)| path).collect();
        (!fitting.is_empty()).then(|| fitting[self.random.below(fitting.len())].clone())
    }

    fn data(&mut self) -> Vec<u8> {
        let largest = match self.random.below(20) {
            _ if self.held_bytes > HELD_BYTES_MAX => 8 << 10,
            0 => 4 << 20,
            1..5 => 512 << 10,
            _ => 48 << 10,
        };
        let len = self.random.below(largest);
        self.held_bytes += len;
        self.random.bytes(len)
    }

    async fn place<'a>(&mut self, path: &'a str) -> Result<(Fh, &'a str)> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        if let Some(handle) = self.dirs.get(dir) {
            return Ok((handle.clone(), name));
        }
        let (handle, _) = self.nfs.walk(dir).await.with_context(|| format!("looking for {dir}"))?;
        self.dirs.insert(dir.into(), handle.clone());
        Ok((handle, name))
    }

    fn fresh_path(&mut self, word: &str) -> String {
        self.number += 1;
        format!("{}/{word}-{:05}", self.home(), self.number)
    }

    async fn put(&mut self, path: String) -> Result<usize> {
        let data = self.data();
        let (dir, name) = self.place(&path).await?;
        self.nfs.put_in(&dir, name, &data).await.with_context(|| format!("writing {path}"))?;
        let bytes = data.len();
        self.model.files.insert(path, Content::Held(data));
        Ok(bytes)
    }

    async fn create(&mut self) -> Result<()> {
        let path = self.fresh_path("new");
        let bytes = self.put(path).await?;
        self.count(|done| &done.created, bytes);
        Ok(())
    }

    async fn overwrite(&mut self) -> Result<()> {
        let Some(path) = self.pick(replaceable) else { return Ok(()) };
        let bytes = self.put(path).await?;
        self.count(|done| &done.overwritten, bytes);
        Ok(())
    }

    async fn patch(&mut self) -> Result<()> {
        let Some(path) = self.pick(|content| !matches!(content, Content::Known { .. })) else { return Ok(()) };
        let (dir, name) = self.place(&path).await?;
        let (file, attr) = self.nfs.lookup(&dir, name).await.with_context(|| format!("looking for {path}"))?;
        let what = self.random.below(4);
        let mut bytes = 0;
        let content = self.model.files.get_mut(&path).with_context(|| format!("{path} in the model"))?;
        if let (Content::Held(held), 0) = (&mut *content, what) {
            held.truncate(self.random.below(held.len() + 1));
            self.nfs.truncate(&file, held.len() as u64).await.with_context(|| format!("cutting {path}"))?;
        } else {
            // At the end, or anywhere; now and then behind the end, which leaves a hole.
            let offset = match what {
                1 => attr.size,
                2 if attr.size < REPLACED_BYTES_MAX => attr.size + self.random.next() % (64 << 10),
                _ => self.random.next() % (attr.size + 1),
            };
            let len = self.random.below(if attr.size > REPLACED_BYTES_MAX { 2 << 20 } else { 32 << 10 });
            let data = self.random.bytes(len);
            bytes = data.len();
            if !data.is_empty() {
                self.nfs.write_at(&file, offset, &data).await.with_context(|| format!("patching {path}"))?;
                ensure!(content.patch(offset, &data)?, "{path} cannot be patched");
            }
        }
        self.count(|done| &done.patched, bytes);
        Ok(())
    }

    async fn rename(&mut self) -> Result<()> {
        let Some(from) = self.pick(replaceable) else { return Ok(()) };
        // Sometimes over a file that is there already.
        let to = match self.random.below(4) {
            0 => self.pick(replaceable).filter(|to| *to != from),
            _ => None,
        };
        let to = to.unwrap_or_else(|| self.fresh_path("moved"));
        let ((from_dir, from_name), (to_dir, to_name)) = (self.place(&from).await?, self.place(&to).await?);
        let renamed = self.nfs.rename((&from_dir, from_name), (&to_dir, to_name)).await;
        renamed.with_context(|| format!("renaming {from} to {to}"))?;
        let content = self.model.files.remove(&from).with_context(|| format!("{from} in the model"))?;
        self.model.files.insert(to, content);
        self.count(|done| &done.renamed, 0);
        Ok(())
    }

    async fn delete(&mut self) -> Result<()> {
        let Some(path) = self.pick(replaceable) else { return Ok(()) };
        let (dir, name) = self.place(&path).await?;
        self.nfs.remove(&dir, name).await.with_context(|| format!("deleting {path}"))?;
        self.model.files.remove(&path);
        self.count(|done| &done.deleted, 0);
        Ok(())
    }

    /// What is acknowledged here is seen everywhere.
    async fn compare(&mut self) -> Result<()> {
        let Some(path) = self.pick(|content| matches!(content, Content::Held(_))) else { return Ok(()) };
        let (site, nfs) = &self.others[self.random.below(self.others.len())];
        let got = nfs.get(&path).await.with_context(|| format!("reading {path} at {site}"))?;
        let Some(Content::Held(wanted)) = self.model.files.get(&path) else { return Ok(()) };
        ensure!(
            got == wanted[..],
            "{path}, written at {} and read at {site}: {} bytes came, which are not the {} that were written",
            self.site,
            got.len(),
            wanted.len()
        );
        self.count(|done| &done.compared, 0);
        Ok(())
    }
}

fn replaceable(content: &Content) -> bool {
    match content {
        Content::Known { bytes, .. } => *bytes <= REPLACED_BYTES_MAX,
        Content::Held(_) => true,
        Content::Local(_) => false,
    }
}
