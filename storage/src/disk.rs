//! A filer's own disk as an effect: files of one directory, appended, synced, read, removed.

mod memory;
mod readable;

pub use memory::MemoryDisk;
pub use readable::{Readable, SECTOR_BYTES};

use bytes::Bytes;

/// A disk operation failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DiskError {
    /// The file is not there.
    #[error("no file {file}")]
    NotFound { file: String },
    /// What was read is not what was written.
    #[error("reading {file}: {why}")]
    Damaged { file: String, why: String },
    /// The medium has lost a part of what was to be read. The rest of the file may be readable: [`Readable`].
    #[error("reading {file}: {why}")]
    Unreadable { file: String, why: String },
    /// No room is left.
    #[error("{attempted} {file}: the disk is full")]
    Full { attempted: &'static str, file: String },
    /// Anything else.
    #[error("{attempted} {file}: {why}")]
    Failed { attempted: &'static str, file: String, why: String },
}

/// A file as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFile {
    pub name: String,
    pub bytes: u64,
}

/// Says what is wrong with bytes that were read.
pub type Check = Box<dyn FnOnce(&Bytes) -> Result<(), String> + Send>;

/// The files of one directory. Names are plain file names.
#[async_trait::async_trait]
pub trait Disk: Send + Sync + 'static {
    /// Writes `parts` one behind the other at `offset` of a file, which is made when missing. Not yet durable.
    async fn write(&self, file: &str, offset: u64, parts: Vec<Bytes>) -> Result<(), DiskError>;

    /// Returns when everything written to the file before, and its name, survive a power loss. Once it failed, whether or
    /// not anybody waited for it, it fails until the file is replaced by another one or removed.
    async fn sync(&self, file: &str) -> Result<(), DiskError>;

    /// Reads up to `len` bytes at `offset`; fewer at the file's end.
    async fn read(&self, file: &str, offset: u64, len: usize) -> Result<Bytes, DiskError>;

    /// As [`Disk::read`], but what `check` finds wrong is [`DiskError::Damaged`]. It runs where it holds up nobody else.
    async fn read_checked(&self, file: &str, offset: u64, len: usize, check: Check) -> Result<Bytes, DiskError> {
        checked(file, self.read(file, offset, len).await?, check)
    }

    /// Cuts the file to `bytes`.
    async fn truncate(&self, file: &str, bytes: u64) -> Result<(), DiskError>;

    /// Renames a file over whatever had the new name.
    async fn rename(&self, file: &str, to: &str) -> Result<(), DiskError>;

    /// Removes a file; one that is not there counts as removed.
    async fn remove(&self, file: &str) -> Result<(), DiskError>;

    /// All files, in order of name.
    async fn list(&self) -> Result<Vec<DiskFile>, DiskError>;
}

fn checked(file: &str, bytes: Bytes, check: Check) -> Result<Bytes, DiskError> {
    match check(&bytes) {
        Ok(()) => Ok(bytes),
        Err(why) => Err(DiskError::Damaged { file: file.into(), why }),
    }
}

/// Whether a name is that of a plain file: no path, no dots alone, at most 255 bytes.
pub fn is_file_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= 255 && !name.contains(['/', '\0'])
}

/// What every disk must do, without power losses. It needs an empty directory and leaves one.
///
/// # Panics
/// When the disk does not conform: it is a test.
#[cfg(test)]
pub(crate) async fn conformance(disk: &dyn Disk) {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    let names = |files: Vec<DiskFile>| files.into_iter().map(|file| (file.name, file.bytes)).collect::<Vec<_>>();

    disk.write("b", 0, vec![bytes("hel"), bytes(""), bytes("lo")]).await.expect("write");
    disk.write("b", 5, vec![bytes(", world")]).await.expect("append");
    disk.write("b", 0, vec![bytes("J")]).await.expect("overwrite");
    disk.sync("b").await.expect("sync");
    assert_eq!(disk.read("b", 0, 100).await.expect("read"), "Jello, world");
    assert_eq!(disk.read("b", 7, 3).await.expect("read"), "wor");
    assert_eq!(disk.read("b", 10, 3).await.expect("a short read at the end"), "ld");
    assert_eq!(disk.read("b", 12, 3).await.expect("read behind the end"), "");
    assert_eq!(disk.read("b", 1 << 40, usize::MAX).await.expect("read far behind the end"), "");

    let check = |wanted: &'static str| -> Check {
        Box::new(move |read| if read == wanted { Ok(()) } else { Err(format!("{read:?}")) })
    };
    assert_eq!(disk.read_checked("b", 7, 3, check("wor")).await.expect("it is right"), "wor");
    let wrong = disk.read_checked("b", 7, 3, check("World")).await;
    assert!(matches!(wrong, Err(DiskError::Damaged { .. })), "{wrong:?}");
    let missing = disk.read_checked("none", 0, 1, check("")).await;
    assert!(matches!(missing, Err(DiskError::NotFound { .. })), "{missing:?}");

    disk.write("a", 3, vec![bytes("x")]).await.expect("write behind the end");
    assert_eq!(disk.read("a", 0, 9).await.expect("read"), "\0\0\0x");
    disk.truncate("b", 5).await.expect("truncate");
    assert_eq!(names(disk.list().await.expect("list")), [("a".into(), 4), ("b".into(), 5)]);
    disk.write("b", 6, vec![bytes("!")]).await.expect("write");
    assert_eq!(disk.read("b", 0, 9).await.expect("read"), "Jello\0!");

    disk.rename("b", "a").await.expect("rename over a file");
    assert_eq!(disk.read("a", 0, 9).await.expect("read"), "Jello\0!");
    disk.write("a", 0, vec![bytes("C")]).await.expect("write after a rename");
    disk.sync("a").await.expect("sync after a rename");
    assert_eq!(names(disk.list().await.expect("list")), [("a".into(), 7)]);
    disk.write("b", 0, vec![bytes("other")]).await.expect("the old name is free");
    assert_eq!(disk.read("a", 0, 9).await.expect("read"), "Cello\0!");

    for missing in [
        disk.sync("none").await.err(),
        disk.read("none", 0, 1).await.err(),
        disk.truncate("none", 0).await.err(),
        disk.rename("none", "a").await.err(),
    ] {
        assert!(matches!(missing, Some(DiskError::NotFound { .. })), "{missing:?}");
    }
    for name in ["", ".", "..", "a/b", "/a", "a\0b"] {
        let refused = disk.write(name, 0, vec![bytes("x")]).await;
        assert!(matches!(refused, Err(DiskError::Failed { .. })), "{name:?}");
        let refused = disk.rename("a", name).await;
        assert!(matches!(refused, Err(DiskError::Failed { .. })), "{name:?}");
    }
    disk.remove("a").await.expect("remove");
    disk.remove("a").await.expect("remove again");
    disk.write("a", 0, vec![]).await.expect("an empty file");
    assert_eq!(disk.read("a", 0, 9).await.expect("read"), "");
    disk.remove("a").await.expect("remove");
    disk.remove("b").await.expect("remove");
    assert_eq!(disk.list().await.expect("list"), []);
}
