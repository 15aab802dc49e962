//! One operation while it is being applied: its time, its proposer, and the rows that it reads and writes.
//!
//! Operations check everything first and write afterwards, so a refused one has written nothing. The counters are
//! written last, and by those operations alone that were not refused.

use super::{
    keys::{self, CookieRow, Counters, NameRow, ROW_VERSION},
    ops::OpError,
    read::{self, StateRead, damaged},
    types::*,
};
use bytes::Bytes;
use mesh::{
    FilerId,
    kv::{self, KvError, Pair, Txn},
    record,
};
use serde::Serialize;

/// Why an operation was not carried out.
pub(super) enum Stop {
    /// It is refused and changes nothing.
    Refused(OpError),
    /// It is refused, and the refusal is kept on record.
    Recorded(OpError),
    /// The tables failed.
    Broken(KvError),
}

impl From<OpError> for Stop {
    fn from(error: OpError) -> Self {
        Stop::Refused(error)
    }
}

impl From<KvError> for Stop {
    fn from(error: KvError) -> Self {
        Stop::Broken(error)
    }
}

pub(super) fn invalid(why: impl Into<String>) -> OpError {
    OpError::Invalid(why.into())
}

/// An operation's view of the state, and its change to it.
pub(super) struct Applying<'a, 't> {
    pub txn: &'a mut Txn<'t>,
    /// Who proposed the operation.
    pub filer: FilerId,
    /// The operation's time: never before any earlier operation's, in nanoseconds since the Unix epoch.
    pub now_ns: u64,
    pub limits: Limits,
    pub counters: Counters,
}

impl StateRead for Applying<'_, '_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.txn.get(key)
    }

    fn scan(&self, range: kv::Range<'_>, limit: usize, backwards: bool) -> Result<Vec<Pair>, KvError> {
        self.txn.scan(range, limit, backwards)
    }
}

impl Applying<'_, '_> {
    pub fn put<T: Serialize>(&mut self, key: Vec<u8>, row: &T) {
        self.txn.put(key, record::encode(ROW_VERSION, row));
    }

    pub fn put_attr(&mut self, attr: &Attr) {
        self.put(keys::inode(attr.handle.ino), attr);
    }

    /// Writes the counters; called once, at the end.
    pub fn finish(&mut self) {
        self.counters.newest_ns = self.now_ns;
        let row = record::encode(ROW_VERSION, &self.counters);
        self.txn.put(keys::counters(), row);
    }

    /// The object that a client's handle means.
    pub fn node(&self, handle: Handle) -> Result<Attr, Stop> {
        Ok(read::node(self, handle)?.ok_or(OpError::Stale)?)
    }

    /// The directory that a client's handle means.
    pub fn directory(&self, handle: Handle) -> Result<Attr, Stop> {
        let attr = self.node(handle)?;
        if attr.kind.is_directory() { Ok(attr) } else { Err(OpError::NotDirectory.into()) }
    }

    /// The object that a name stands for.
    pub fn named(&self, dir: &Attr, name: &[u8]) -> Result<Option<(NameRow, Attr)>, Stop> {
        let Some(row) = read::name_row(self, dir.handle.ino, name)? else {
            return Ok(None);
        };
        Ok(Some((row, self.inode(row.ino)?)))
    }

    /// An inode that other rows say is there.
    pub fn inode(&self, ino: u64) -> Result<Attr, Stop> {
        Ok(read::attr(self, ino)?.ok_or_else(|| damaged(format!("inode {ino} is missing")))?)
    }

    /// Writes a new name into a directory.
    pub fn add_name(&mut self, dir: u64, name: &[u8], target: &Attr) {
        let ino = target.handle.ino;
        let cookie = self.counters.next_cookie;
        self.counters.next_cookie += 1;
        self.put(keys::name(dir, name), &NameRow { ino, cookie });
        self.put(keys::cookie(dir, cookie), &CookieRow { name: name.to_vec(), ino });
        if target.kind.is_directory() {
            self.put(keys::place(ino), &name.to_vec());
        }
    }

    /// Removes a name from a directory.
    pub fn remove_name(&mut self, dir: u64, name: &[u8], row: NameRow) {
        self.txn.delete(keys::name(dir, name));
        self.txn.delete(keys::cookie(dir, row.cookie));
    }

    /// Removes an inode and all that belongs to it; the extents of a large file become orphans.
    pub fn free_inode(&mut self, attr: &Attr) -> Result<(), Stop> {
        let ino = attr.handle.ino;
        match attr.kind {
            NodeKind::File => self.cut(ino, 0)?,
            NodeKind::Directory { .. } => self.txn.delete(keys::place(ino)),
            _ => {}
        }
        self.txn.delete(keys::inode(ino));
        self.counters.totals.inodes -= 1;
        Ok(())
    }

    /// Whether a directory has no names.
    pub fn is_empty(&self, dir: u64) -> Result<bool, Stop> {
        Ok(read::readdir(self, dir, 0, 1)?.is_empty())
    }

    /// Marks a directory's content as changed now.
    pub fn touch(&self, dir: &mut Attr) {
        dir.mtime_ns = self.now_ns;
        dir.ctime_ns = self.now_ns;
    }
}

/// Refuses what cannot be a name.
pub(super) fn check_name(name: &[u8]) -> Result<(), OpError> {
    match name {
        b"" => Err(invalid("an empty name")),
        b"." | b".." => Err(invalid("a name that stands for a directory itself")),
        _ if name.len() > NAME_BYTES_MAX => Err(invalid(format!("a name of more than {NAME_BYTES_MAX} bytes"))),
        _ if name.iter().any(|&byte| byte == b'/' || byte == 0) => Err(invalid("a name with a slash or a zero byte")),
        _ => Ok(()),
    }
}
