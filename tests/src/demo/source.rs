//! The tree that the demo copies: a real directory, completed to enough files and one large enough.

use anyhow::{Context, Result, ensure};
use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

/// The tree has at least so many files.
pub const FILES_MIN: usize = 1_000;
/// And one file of at least so many bytes.
pub const LARGE_BYTES: u64 = 256 << 20;
/// Directories of this repository that are left out: what is built or fetched, and what git keeps. Of a tree that a user
/// names nothing is left out for its name, but for that of the made files.
const NO_SOURCES: [&str; 3] = ["target", ".git", "node_modules"];
/// Directories left out that are named.
const LEFT_OUT_SHOWN_MAX: usize = 5;
/// Made files are of up to so many bytes.
const MADE_BYTES_MAX: u64 = 24 << 10;
/// Where made files lie in the tree.
const MADE: &str = "made-by-demo";

/// Where the tree comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    pub dir: PathBuf,
    /// Names of directories that are not copied.
    pub leave_out: &'static [&'static str],
}

/// A file of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Below the root of the tree.
    pub path: String,
    pub local: PathBuf,
    pub bytes: u64,
    /// Whether the demo made it, so that it may be used as it likes.
    pub made: bool,
}

/// The tree.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// In order of path.
    pub files: Vec<SourceFile>,
    /// Files left out: special ones, symbolic links, and names that are no UTF-8.
    pub skipped: usize,
    /// Directories left out for their names, by path.
    pub left_out: Vec<String>,
    pub made: usize,
}

impl Source {
    /// The files below `dir`, without directories of the names `leave_out`, completed by made ones, which are put into
    /// `scratch`.
    pub fn gather(dir: &Path, leave_out: &[&str], scratch: &Path, seed: u64) -> Result<Self> {
        let mut source = Self::default();
        source.scan(dir, String::new(), leave_out)?;
        let mut random = Random(seed);
        let (folder, found) = (scratch.join(MADE), source.files.len());
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        if !source.files.iter().any(|file| file.bytes >= LARGE_BYTES) {
            source.make(&folder, "large.bin", LARGE_BYTES, &mut random)?;
        }
        for number in 0..FILES_MIN.saturating_sub(source.files.len()) {
            let len = random.next() % MADE_BYTES_MAX;
            source.make(&folder, &format!("small-{number:04}.bin"), len, &mut random)?;
        }
        source.made = source.files.len() - found;
        source.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(source)
    }

    fn make(&mut self, folder: &Path, name: &str, bytes: u64, random: &mut Random) -> Result<()> {
        let local = folder.join(name);
        let writing = || format!("writing {}", local.display());
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&local).with_context(writing)?);
        let mut left = bytes;
        while left > 0 {
            let word = random.next().to_le_bytes();
            let part = left.min(8) as usize;
            file.write_all(&word[..part]).with_context(writing)?;
            left -= part as u64;
        }
        file.flush().with_context(writing)?;
        self.files.push(SourceFile { path: format!("{MADE}/{name}"), local, bytes, made: true });
        Ok(())
    }

    fn scan(&mut self, dir: &Path, at: String, leave_out: &[&str]) -> Result<()> {
        let reading = || format!("reading {}", dir.display());
        for entry in fs::read_dir(dir).with_context(reading)? {
            let entry = entry.with_context(reading)?;
            let kind = entry.file_type().with_context(reading)?;
            let Ok(name) = entry.file_name().into_string() else {
                self.skipped += 1;
                continue;
            };
            let path = if at.is_empty() { name.clone() } else { format!("{at}/{name}") };
            if kind.is_dir() {
                if leave_out.contains(&&*name) || path == MADE {
                    self.left_out.push(path);
                } else {
                    self.scan(&entry.path(), path, leave_out)?;
                }
            } else if kind.is_file() {
                // A file that vanished since it was listed is none.
                if let Ok(meta) = entry.metadata() {
                    self.files.push(SourceFile { path, local: entry.path(), bytes: meta.len(), made: false });
                }
            } else {
                self.skipped += 1;
            }
        }
        Ok(())
    }

    /// What was left out of the tree, for people; nothing if nothing was.
    pub fn left_out_words(&self) -> Option<String> {
        let shown = &self.left_out[..self.left_out.len().min(LEFT_OUT_SHOWN_MAX)];
        let mut parts: Vec<String> = shown.iter().map(|path| format!("directory {path}")).collect();
        if self.left_out.len() > shown.len() {
            parts.push(format!("{} more directories of such names", self.left_out.len() - shown.len()));
        }
        if self.skipped > 0 {
            parts.push(format!("{} files that are links, special or named otherwise than in UTF-8", self.skipped));
        }
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// All its bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

impl Origin {
    /// What is copied when nothing is named: this repository, where it was built, or else the current directory.
    pub fn this_repository() -> Result<Self> {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let dir = if built.join("Cargo.toml").is_file() { built } else { PathBuf::from(".") };
        let dir = dir.canonicalize().with_context(|| format!("finding {}", dir.display()))?;
        Ok(Self { dir, leave_out: &NO_SOURCES })
    }

    /// A directory that somebody named: all of it.
    pub fn named(dir: &Path) -> Result<Self> {
        let found = dir.canonicalize().with_context(|| format!("--dir {}", dir.display()))?;
        ensure!(found.is_dir(), "--dir {}: this is no directory", dir.display());
        Ok(Self { dir: found, leave_out: &[] })
    }
}

/// A small seeded generator (SplitMix64): the same seed makes the same files and changes.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// So many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(len);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_completed_and_what_is_left_out_is_named() {
        let (dir, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for path in ["a/b", "target", "a/.git", MADE] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        for path in ["a/b/own", "target/built", "a/.git/kept", "made-by-demo/by-another-run"] {
            fs::write(dir.path().join(path), b"data").unwrap();
        }
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        // Sparse, so that the test need not make the large file.
        File::create(dir.path().join("large")).unwrap().set_len(LARGE_BYTES).unwrap();
        let own = |source: &Source| {
            let own = source.files.iter().filter(|file| !file.made);
            own.map(|file| file.path.clone()).collect::<Vec<_>>()
        };
        let mut source = Source::gather(dir.path(), &NO_SOURCES, scratch.path(), 1).unwrap();
        assert_eq!(own(&source), ["a/b/own", "large"]);
        source.left_out.sort();
        assert_eq!(source.left_out, ["a/.git", MADE, "target"]);
        assert_eq!((source.files.len(), source.made, source.skipped), (FILES_MIN, FILES_MIN - 2, 1));
        assert!(source.files.iter().all(|file| fs::metadata(&file.local).unwrap().len() == file.bytes));

        let source = Source::gather(dir.path(), &[], scratch.path(), 1).unwrap();
        assert_eq!(own(&source), ["a/.git/kept", "a/b/own", "large", "target/built"]);
        assert_eq!(source.left_out, [MADE]);
        let words = source.left_out_words().unwrap();
        assert_eq!(words, "directory made-by-demo, 1 files that are links, special or named otherwise than in UTF-8");
    }
}
