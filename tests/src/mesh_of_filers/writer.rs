//! A client that works at one site, whatever happens to the filers, and knows what each of its files must hold.
//!
//! Its files are its own, so every operation has one right outcome. The model is changed when an operation is
//! acknowledged. A filer that dies may have done what it did not acknowledge: the operation is asked for again, and that
//! it is done already counts as done.

use crate::{
    nfs3::{Fh, Nfs3, Nfs3Error},
    sites::Site,
};
use anyhow::{Context, Result, ensure};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

/// Files that one writer has at a time.
const FILES_MAX: usize = 24;

/// Largest piece written at once, in bytes: usually, and one time in sixteen.
const PIECE_BYTES_MAX: (u64, u64) = (48 << 10, 700 << 10);

/// Largest file that is appended to, in bytes.
const FILE_BYTES_MAX: usize = 2 << 20;

/// A client with a directory and a model of what is in it.
pub struct Writer {
    site: String,
    nfs: Nfs3,
    other: Nfs3,
    dir: Fh,
    /// By name in its directory.
    files: BTreeMap<String, Vec<u8>>,
    random: u64,
    named: u64,
    steps: u64,
}

impl Writer {
    /// A writer at `site`, with a directory named so. Now and then it reads at `other` what it just wrote.
    pub async fn start(site: &Site, other: &Site, seed: u64) -> Result<Self> {
        let (nfs, other) = (site.mount().await?, other.mount().await?);
        let dir = nfs.make_dirs(site.name()).await?;
        let files = BTreeMap::new();
        Ok(Self { site: site.name().into(), nfs, other, dir, files, random: seed, named: 0, steps: 0 })
    }

    /// Works until it is told to stop.
    pub async fn run(mut self, stop: &AtomicBool) -> Result<Self> {
        while !stop.load(Relaxed) {
            self.step().await.with_context(|| format!("the client at {}, step {}", self.site, self.steps))?;
        }
        Ok(self)
    }

    /// What must be there, by path from the export's directory.
    pub fn files(&self) -> impl Iterator<Item = (String, Vec<u8>)> + '_ {
        self.files.iter().map(|(name, data)| (format!("{}/{name}", self.site), data.clone()))
    }

    /// Operations that were acknowledged.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    fn draw(&mut self, below: u64) -> u64 {
        // Splitmix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % below.max(1)
    }

    fn data(&mut self) -> Vec<u8> {
        let most = if self.draw(16) == 0 { PIECE_BYTES_MAX.1 } else { PIECE_BYTES_MAX.0 };
        let words = self.draw(most) as usize / 8 + 1;
        (0..words).flat_map(|_| self.draw(u64::MAX).to_le_bytes()).collect()
    }

    fn pick(&mut self) -> Option<String> {
        let count = self.files.len() as u64;
        (count > 0).then(|| self.draw(count)).and_then(|at| self.files.keys().nth(at as usize).cloned())
    }

    fn fresh(&mut self) -> String {
        self.named += 1;
        format!("file-{:05}", self.named)
    }

    /// One operation, to its acknowledgement.
    pub async fn step(&mut self) -> Result<()> {
        let picked = self.pick();
        match (self.draw(16), picked) {
            (0..6, _) | (_, None) if self.files.len() < FILES_MAX => {
                let name = self.fresh();
                self.put(name).await?;
            }
            (0..9, Some(name)) => self.put(name).await?,
            (9..11, Some(name)) => self.append(name).await?,
            (11, Some(name)) => self.rename(name).await?,
            (12 | 13, Some(name)) => {
                self.remove(&name).await?;
                if self.draw(2) == 0 {
                    self.put(name).await?;
                }
            }
            (_, Some(name)) => self.compare(&name).await?,
            (_, None) => {}
        }
        self.steps += 1;
        Ok(())
    }

    async fn put(&mut self, name: String) -> Result<()> {
        let data = self.data();
        self.nfs.put_in(&self.dir, &name, &data).await.with_context(|| format!("writing {name}"))?;
        self.files.insert(name, data);
        Ok(())
    }

    async fn append(&mut self, name: String) -> Result<()> {
        let data = self.data();
        let (file, _) = self.nfs.lookup(&self.dir, &name).await.with_context(|| format!("looking for {name}"))?;
        let held = self.files.get_mut(&name).context("a name was picked from the model")?;
        if held.len() + data.len() <= FILE_BYTES_MAX {
            let end = held.len() as u64;
            self.nfs.write_at(&file, end, &data).await.with_context(|| format!("appending to {name}"))?;
            held.extend(data);
        }
        Ok(())
    }

    async fn rename(&mut self, name: String) -> Result<()> {
        // Half of the time over a file that is there.
        let to = match self.pick().filter(|other| *other != name) {
            Some(other) if self.draw(2) == 0 => other,
            _ => self.fresh(),
        };
        done_already(self.nfs.rename((&self.dir, &name), (&self.dir, &to)).await)
            .with_context(|| format!("renaming {name} to {to}"))?;
        let data = self.files.remove(&name).context("a name was picked from the model")?;
        self.files.insert(to, data);
        Ok(())
    }

    async fn remove(&mut self, name: &str) -> Result<()> {
        done_already(self.nfs.remove(&self.dir, name).await).with_context(|| format!("removing {name}"))?;
        self.files.remove(name);
        Ok(())
    }

    async fn compare(&mut self, name: &str) -> Result<()> {
        let got = self.other.get(&format!("{}/{name}", self.site)).await;
        let got = got.with_context(|| format!("reading {name} at another site"))?;
        let wanted = &self.files[name];
        ensure!(got == wanted[..], "{name} has {} bytes that are not the {} it should have", got.len(), wanted.len());
        Ok(())
    }
}

/// A name that is gone was taken away by the first attempt, whose answer a dying filer kept.
fn done_already(result: Result<(), Nfs3Error>) -> Result<(), Nfs3Error> {
    match result {
        Err(error) if error.is_missing() => Ok(()),
        other => other,
    }
}
