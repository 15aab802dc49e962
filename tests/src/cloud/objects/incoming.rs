//! A put's body on its way in: hashed once, while it is written aside.

use bytes::Bytes;
use md5::{Digest, Md5};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Memory reserved ahead for a body whose client tells its length, at most.
const RESERVED_BYTES_MAX: u64 = 64 << 20;

/// Bytes collected before the disk is bothered.
const WRITE_BYTES: usize = 1 << 20;

/// A body being received. Dropped before `finish`, it leaves nothing behind.
pub(in super::super) struct Incoming {
    md5: Md5,
    bytes: u64,
    buffer: Vec<u8>,
    aside: Option<(File, Aside)>,
}

/// A whole body, not yet published.
pub(in super::super) struct Received {
    pub(in super::super) bytes: u64,
    pub(in super::super) md5: [u8; 16],
    pub(super) body: Body,
}

pub(super) enum Body {
    Memory(Bytes),
    File(Aside),
}

/// A file that is deleted unless it is published.
pub(super) struct Aside(Option<PathBuf>);

impl Aside {
    /// Moves the file to its name, making the folders on the way when they are missing.
    pub(super) fn publish(mut self, to: &Path) -> io::Result<()> {
        let from = self.0.as_ref().expect("published at most once");
        match fs::rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(to.parent().expect("objects live in a bucket's folder"))?;
                fs::rename(from, to)?;
            }
            other => other?,
        }
        self.0 = None;
        Ok(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(?path, %error, "an unfinished put was not removed; the next start does it");
        }
    }
}

impl Incoming {
    pub(super) fn in_memory(bytes: Option<u64>) -> Self {
        let reserved = usize::try_from(bytes.unwrap_or(0).min(RESERVED_BYTES_MAX)).expect("a small number");
        Self { md5: Md5::new(), bytes: 0, buffer: Vec::with_capacity(reserved), aside: None }
    }

    pub(super) fn in_file(path: PathBuf) -> io::Result<Self> {
        let file = File::create_new(&path)?;
        Ok(Self { md5: Md5::new(), bytes: 0, buffer: Vec::new(), aside: Some((file, Aside(Some(path)))) })
    }

    /// Takes the next bytes. Blocks for files.
    pub(in super::super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.md5.update(bytes);
        self.bytes += bytes.len() as u64;
        match &mut self.aside {
            // Big pieces go straight to the file.
            Some((file, _)) if self.buffer.is_empty() && bytes.len() >= WRITE_BYTES => file.write_all(bytes)?,
            _ => self.buffer.extend_from_slice(bytes),
        }
        if let Some((file, _)) = &mut self.aside
            && self.buffer.len() >= WRITE_BYTES
        {
            file.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// The body is whole.
    pub(in super::super) fn finish(self) -> io::Result<Received> {
        let body = match self.aside {
            Some((mut file, aside)) => {
                file.write_all(&self.buffer)?;
                Body::File(aside)
            }
            None => Body::Memory(self.buffer.into()),
        };
        Ok(Received { bytes: self.bytes, md5: self.md5.finalize().into(), body })
    }
}
