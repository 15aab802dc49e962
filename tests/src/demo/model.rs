//! What every file must hold now: the demo's own record, changed only by acknowledged operations.

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// A SHA-256.
pub type Sum = [u8; 32];

/// What one file must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Data with this checksum.
    Known { bytes: u64, sha256: Sum },
    /// This data.
    Held(Vec<u8>),
    /// What a local file of the demo's own holds.
    Local(PathBuf),
}

impl Content {
    /// Changes bytes in the middle or behind the end. False where the content is only known by its checksum.
    pub fn patch(&mut self, offset: u64, data: &[u8]) -> Result<bool> {
        match self {
            Self::Known { .. } => return Ok(false),
            Self::Held(held) => {
                let (at, end) = (offset as usize, offset as usize + data.len());
                if held.len() < end {
                    held.resize(end, 0);
                }
                held[at..end].copy_from_slice(data);
            }
            Self::Local(path) => {
                let file = File::options().write(true).open(&*path);
                let file = file.with_context(|| format!("opening {}", path.display()))?;
                file.write_all_at(data, offset).with_context(|| format!("writing {}", path.display()))?;
            }
        }
        Ok(true)
    }

    /// Its length and checksum.
    pub fn sum(&self) -> Result<(u64, Sum)> {
        Ok(match self {
            Self::Known { bytes, sha256 } => (*bytes, *sha256),
            Self::Held(data) => (data.len() as u64, Sha256::digest(data).into()),
            Self::Local(path) => sum_of(path)?,
        })
    }
}

/// Length and checksum of a local file.
pub fn sum_of(path: &Path) -> Result<(u64, Sum)> {
    let reading = || format!("reading {}", path.display());
    let mut file = File::open(path).with_context(reading)?;
    let (mut bytes, mut hash, mut piece) = (0, Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece).with_context(reading)? {
            0 => return Ok((bytes, hash.finalize().into())),
            n => {
                bytes += n as u64;
                hash.update(&piece[..n]);
            }
        }
    }
}

/// Files by their paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub files: BTreeMap<String, Content>,
}

/// What every file must hold at the end: by path, its length and checksum.
pub type Expected = BTreeMap<String, (u64, Sum)>;

impl Model {
    /// Lengths and checksums of all files.
    pub fn expected(&self) -> Result<Expected> {
        self.files.iter().map(|(path, content)| Ok((path.clone(), content.sum()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_lengthen_and_leave_zeros_in_holes() {
        let folder = tempfile::tempdir().unwrap();
        let local = folder.path().join("local");
        std::fs::write(&local, b"abc").unwrap();
        let (mut held, mut file) = (Content::Held(b"abc".to_vec()), Content::Local(local));
        for (offset, data) in [(1, &b"XY"[..]), (5, b"end"), (0, b"")] {
            assert!(held.patch(offset, data).unwrap() && file.patch(offset, data).unwrap());
        }
        assert_eq!(held, Content::Held(b"aXY\0\0end".to_vec()));
        assert_eq!(held.sum().unwrap(), file.sum().unwrap());
        let mut known = Content::Known { bytes: 8, sha256: held.sum().unwrap().1 };
        assert!(!known.patch(0, b"x").unwrap());
        assert_eq!(known.sum().unwrap(), held.sum().unwrap());
    }
}
