//! Files, directories and their names: what a client's create, mkdir, setattr, link, remove and rmdir do.

use super::{
    applying::{Applying, Stop, check_name, invalid},
    ops::{Answer, AttrChange, OnExisting, OpError},
    types::*,
};

/// Permission bits with set-user-id, set-group-id and sticky.
const MODE_BITS: u32 = 0o7777;
/// Set-group-id: what a directory with it holds inherits its group.
const SET_GROUP_ID: u32 = 0o2000;
/// Inodes are never used twice, so one generation serves them all.
const GENERATION: u32 = 1;

/// Attributes that a client gives a new inode.
pub(super) struct Owner {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub times: Times,
}

impl SetTime {
    /// The time after it, where it was `old` and the operation's time is `now_ns`.
    fn of(self, old_ns: u64, now_ns: u64) -> u64 {
        match self {
            SetTime::Keep => old_ns,
            SetTime::Now => now_ns,
            SetTime::To { ns } => ns,
        }
    }
}

fn check_size(bytes: u64) -> Result<(), OpError> {
    if bytes <= FILE_BYTES_MAX { Ok(()) } else { Err(invalid(format!("a file of {bytes} bytes"))) }
}

impl Applying<'_, '_> {
    /// The attributes of a new inode in `dir`. Under a set-group-id directory the group is the directory's, and new
    /// directories are set-group-id too.
    fn new_attr(&mut self, dir: &Attr, kind: NodeKind, bytes: u64, owner: Owner) -> Attr {
        let ino = self.counters.next_ino;
        self.counters.next_ino += 1;
        self.counters.totals.inodes += 1;
        let inherits = dir.mode & SET_GROUP_ID != 0;
        let is_directory = kind.is_directory();
        let inherited_bits = if inherits && is_directory { SET_GROUP_ID } else { 0 };
        Attr {
            handle: Handle { ino, generation: GENERATION },
            kind,
            mode: (owner.mode & MODE_BITS) | inherited_bits,
            nlink: if is_directory { 2 } else { 1 },
            uid: owner.uid,
            gid: if inherits { dir.gid } else { owner.gid },
            bytes,
            atime_ns: owner.times.atime.of(self.now_ns, self.now_ns),
            mtime_ns: owner.times.mtime.of(self.now_ns, self.now_ns),
            ctime_ns: self.now_ns,
            create_verifier: None,
        }
    }

    /// Writes a new inode and its name, and answers both.
    fn place_new(&mut self, dir_before: Attr, name: &[u8], after: Attr) -> Answer {
        let mut dir_after = dir_before.clone();
        if after.kind.is_directory() {
            dir_after.nlink += 1;
        }
        self.touch(&mut dir_after);
        self.add_name(dir_before.handle.ino, name, &after);
        self.put_attr(&after);
        self.put_attr(&dir_after);
        Answer::Node { before: None, after, dir_before: Some(dir_before), dir_after: Some(dir_after) }
    }

    pub(super) fn create(
        &mut self,
        dir: Handle,
        name: &[u8],
        owner: Owner,
        bytes: Option<u64>,
        (existing, clears_set_id): (OnExisting, bool),
    ) -> Result<Answer, Stop> {
        let dir = self.directory(dir)?;
        check_name(name)?;
        check_size(bytes.unwrap_or(0))?;
        if let Some((_, before)) = self.named(&dir, name)? {
            return self.create_over(before, bytes, existing, clears_set_id);
        }
        let mut after = self.new_attr(&dir, NodeKind::File, bytes.unwrap_or(0), owner);
        if let OnExisting::SameVerifier(verifier) = existing {
            after.create_verifier = Some(verifier);
        }
        Ok(self.place_new(dir, name, after))
    }

    /// A create whose name is taken. The directory does not change.
    fn create_over(
        &mut self,
        before: Attr,
        bytes: Option<u64>,
        existing: OnExisting,
        clears_set_id: bool,
    ) -> Result<Answer, Stop> {
        let is_file = before.kind == NodeKind::File;
        match existing {
            OnExisting::Use if before.kind.is_directory() => Err(OpError::IsDirectory.into()),
            OnExisting::Use if is_file => {
                let mut after = before.clone();
                if let Some(bytes) = bytes {
                    self.resize(&mut after, bytes)?;
                    if clears_set_id {
                        after.clear_set_id();
                    }
                    self.put_attr(&after);
                }
                Ok(Answer::Node { before: Some(before), after, dir_before: None, dir_after: None })
            }
            OnExisting::SameVerifier(verifier) if is_file && before.create_verifier == Some(verifier) => {
                let after = before.clone();
                Ok(Answer::Node { before: Some(before), after, dir_before: None, dir_after: None })
            }
            _ => Err(OpError::Exists.into()),
        }
    }

    pub(super) fn make(&mut self, dir: Handle, name: &[u8], node: NewNode, owner: Owner) -> Result<Answer, Stop> {
        let dir = self.directory(dir)?;
        check_name(name)?;
        if self.named(&dir, name)?.is_some() {
            return Err(OpError::Exists.into());
        }
        let (kind, bytes) = match node {
            NewNode::Directory if dir.nlink >= LINKS_MAX => return Err(OpError::TooManyLinks.into()),
            NewNode::Directory => (NodeKind::Directory { parent: dir.handle.ino }, DIRECTORY_BYTES),
            NewNode::Symlink { target } => {
                if target.is_empty() || target.len() > SYMLINK_BYTES_MAX || target.contains(&0) {
                    return Err(invalid("the target of the symbolic link").into());
                }
                let bytes = target.len() as u64;
                (NodeKind::Symlink { target }, bytes)
            }
            NewNode::Fifo => (NodeKind::Fifo, 0),
            NewNode::Socket => (NodeKind::Socket, 0),
            NewNode::BlockDevice { major, minor } => (NodeKind::BlockDevice { major, minor }, 0),
            NewNode::CharacterDevice { major, minor } => (NodeKind::CharacterDevice { major, minor }, 0),
        };
        let after = self.new_attr(&dir, kind, bytes, owner);
        Ok(self.place_new(dir, name, after))
    }

    pub(super) fn set_attr(
        &mut self,
        file: Handle,
        change: AttrChange,
        guard_ctime_ns: Option<u64>,
    ) -> Result<Answer, Stop> {
        let before = self.node(file)?;
        if guard_ctime_ns.is_some_and(|guard| guard != before.ctime_ns) {
            return Err(OpError::NotSync.into());
        }
        let mut after = before.clone();
        if let Some(bytes) = change.bytes {
            match before.kind {
                NodeKind::File => check_size(bytes)?,
                NodeKind::Directory { .. } => return Err(OpError::IsDirectory.into()),
                _ => return Err(invalid("a size for what is not a regular file").into()),
            }
            self.resize(&mut after, bytes)?;
        }
        match change.mode {
            Some(mode) => after.mode = mode & MODE_BITS,
            None if change.clears_set_id => after.clear_set_id(),
            None => {}
        }
        after.uid = change.uid.unwrap_or(after.uid);
        after.gid = change.gid.unwrap_or(after.gid);
        after.atime_ns = change.times.atime.of(after.atime_ns, self.now_ns);
        after.mtime_ns = change.times.mtime.of(after.mtime_ns, self.now_ns);
        after.create_verifier = None;
        if change != AttrChange::default() {
            after.ctime_ns = self.now_ns;
        }
        self.put_attr(&after);
        Ok(Answer::Node { before: Some(before), after, dir_before: None, dir_after: None })
    }

    /// Gives a file another size: what is cut off is gone, what is added is a hole.
    fn resize(&mut self, file: &mut Attr, bytes: u64) -> Result<(), Stop> {
        if bytes < file.bytes {
            self.cut(file.handle.ino, bytes)?;
        }
        file.bytes = bytes;
        file.mtime_ns = self.now_ns;
        file.ctime_ns = self.now_ns;
        Ok(())
    }

    pub(super) fn link(&mut self, file: Handle, dir: Handle, name: &[u8]) -> Result<Answer, Stop> {
        let dir_before = self.directory(dir)?;
        let before = self.node(file)?;
        check_name(name)?;
        if before.kind.is_directory() {
            return Err(OpError::IsDirectory.into());
        }
        if self.named(&dir_before, name)?.is_some() {
            return Err(OpError::Exists.into());
        }
        if before.nlink >= LINKS_MAX {
            return Err(OpError::TooManyLinks.into());
        }
        let (mut after, mut dir_after) = (before.clone(), dir_before.clone());
        after.nlink += 1;
        after.ctime_ns = self.now_ns;
        self.touch(&mut dir_after);
        self.add_name(dir.ino, name, &after);
        self.put_attr(&after);
        self.put_attr(&dir_after);
        Ok(Answer::Node { before: Some(before), after, dir_before: Some(dir_before), dir_after: Some(dir_after) })
    }

    pub(super) fn remove(&mut self, dir: Handle, name: &[u8]) -> Result<Answer, Stop> {
        let before = self.directory(dir)?;
        check_name(name)?;
        let (row, target) = self.named(&before, name)?.ok_or(OpError::NoEntry)?;
        if target.kind.is_directory() {
            return Err(OpError::IsDirectory.into());
        }
        let mut after = before.clone();
        self.touch(&mut after);
        self.remove_name(dir.ino, name, row);
        self.unlink(target)?;
        self.put_attr(&after);
        Ok(Answer::Dir { before, after })
    }

    /// Takes one link from what is not a directory; the last one takes the inode with it.
    pub(super) fn unlink(&mut self, mut target: Attr) -> Result<(), Stop> {
        target.nlink -= 1;
        if target.nlink == 0 {
            return self.free_inode(&target);
        }
        target.ctime_ns = self.now_ns;
        self.put_attr(&target);
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, dir: Handle, name: &[u8]) -> Result<Answer, Stop> {
        let before = self.directory(dir)?;
        check_name(name)?;
        let (row, target) = self.named(&before, name)?.ok_or(OpError::NoEntry)?;
        if !target.kind.is_directory() {
            return Err(OpError::NotDirectory.into());
        }
        if !self.is_empty(target.handle.ino)? {
            return Err(OpError::NotEmpty.into());
        }
        let mut after = before.clone();
        after.nlink -= 1;
        self.touch(&mut after);
        self.remove_name(dir.ino, name, row);
        self.free_inode(&target)?;
        self.put_attr(&after);
        Ok(Answer::Dir { before, after })
    }
}
