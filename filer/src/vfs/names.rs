//! Names and attributes: checks of who may, then one operation.

use super::{Vfs, errors::before, permissions};
use crate::door::DoorError;
use crate::fs::{
    Caller, Changed, CreateHow, DirEntry, DirPage, FsError, Made, NAME_BYTES_MAX, SYMLINK_BYTES_MAX, SetAttr,
};
use bytes::Bytes;
use storage::cloudfs::{
    Answer, Attr, AttrChange, Handle, NewNode, NodeKind, OnExisting, OpBody, OpError, ROOT, SetTime, read,
};

/// Modes of new objects whose caller names none.
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;
/// Cookies of the two entries that every directory has.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;
/// How often a name is looked up, when what it stood for is gone before its attributes are read.
const LOOKS_MAX: usize = 16;

fn check_name(name: &[u8]) -> Result<(), FsError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(FsError::NameTooLong);
    }
    if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
        return Err(FsError::Invalid("a name is not empty and has no slash and no NUL".into()));
    }
    Ok(())
}

fn check_new_name(name: &[u8]) -> Result<(), FsError> {
    check_name(name)?;
    if name == b"." || name == b".." { Err(FsError::Exists) } else { Ok(()) }
}

fn made(answer: Answer) -> Result<Made, FsError> {
    match answer {
        Answer::Node { after, dir_before, dir_after, .. } => {
            let directory = Changed { before: dir_before.as_ref().map(before), after: dir_after };
            Ok(Made { attr: after, directory })
        }
        other => Err(unexpected(&other)),
    }
}

fn unexpected(answer: &Answer) -> FsError {
    FsError::Io(format!("the operation gave an answer of another kind: {answer:?}"))
}

impl Vfs {
    async fn directory(&self, dir: Handle) -> Result<Attr, FsError> {
        let attr = self.attr_or_surely_stale(dir).await?;
        if attr.kind.is_directory() { Ok(attr) } else { Err(FsError::NotDirectory) }
    }

    fn entry(&self, dir: Handle, name: &[u8]) -> Result<Option<Attr>, FsError> {
        for _ in 0..LOOKS_MAX {
            match read::lookup(&*self.kv, dir.ino, name)? {
                None => return Ok(None),
                Some(ino) => match self.by_ino(ino) {
                    // It was removed or replaced between the two looks: what does the name stand for now?
                    Err(FsError::Stale) => {}
                    found => return found.map(Some),
                },
            }
        }
        Err(FsError::Later("the name changes faster than it can be looked up".into()))
    }

    /// The directory that a directory lies in.
    fn parent(&self, dir: Handle) -> Result<Attr, FsError> {
        for _ in 0..LOOKS_MAX {
            let NodeKind::Directory { parent } = self.attr(dir)?.kind else {
                return Err(FsError::NotDirectory);
            };
            match self.by_ino(parent) {
                // The directory was moved, and where it lay was removed, between the two looks.
                Err(FsError::Stale) => {}
                found => return found,
            }
        }
        Err(FsError::Later("the directory moves faster than it can be looked up".into()))
    }

    /// As [`Vfs::entry`], but that there is none is believed of the newest state alone.
    async fn entry_or_surely_none(&self, dir: Handle, name: &[u8]) -> Result<Option<Attr>, FsError> {
        match self.entry(dir, name)? {
            None => {
                self.fresh().await?;
                self.entry(dir, name)
            }
            found => Ok(found),
        }
    }

    fn by_ino(&self, ino: u64) -> Result<Attr, FsError> {
        let handle = read::attr(&*self.kv, ino)?.ok_or(FsError::Stale)?.handle;
        self.attr(handle)
    }

    pub(super) async fn find(&self, caller: &Caller, dir: Handle, name: &[u8]) -> Result<Attr, FsError> {
        check_name(name)?;
        self.fresh().await?;
        let attr = self.directory(dir).await?;
        permissions::check_search(caller, &attr)?;
        match name {
            b"." => Ok(attr),
            b".." => self.parent(dir),
            _ => self.entry(dir, name)?.ok_or(FsError::NoEntry),
        }
    }

    pub(super) fn link_target(&self, file: Handle) -> Result<(Bytes, Attr), FsError> {
        let attr = self.attr(file)?;
        match &attr.kind {
            NodeKind::Symlink { target } => Ok((Bytes::copy_from_slice(target), attr)),
            _ => Err(FsError::Invalid("it is no symbolic link".into())),
        }
    }

    pub(super) async fn change_attributes(
        &self,
        caller: &Caller,
        file: Handle,
        set: SetAttr,
        guard_ctime_ns: Option<u64>,
    ) -> Result<Changed, FsError> {
        // Who may is judged by the newest attributes, not by those of a replica that was away.
        self.fresh().await?;
        let attr = self.attr(file)?;
        let SetAttr { mut mode, uid, gid, bytes, times } = set;
        // At the change itself, so that no change of the mode slips in between.
        let clears_set_id = permissions::clears_set_id(caller) && (uid.is_some() || gid.is_some() || bytes.is_some());
        if let Some(wanted) = &mut mode {
            permissions::check_owner(caller, &attr)?;
            *wanted &= 0o7777;
            // Who is not of the file's group may not have it run as that group.
            if caller.uid != 0 && !permissions::in_group(caller, attr.gid) {
                *wanted &= !0o2000;
            }
        }
        if uid.is_some() || gid.is_some() {
            permissions::check_give(caller, &attr, uid, gid)?;
        }
        let explicit = |time: &SetTime| matches!(time, SetTime::To { .. });
        let now = |time: &SetTime| matches!(time, SetTime::Now);
        if explicit(&times.atime) || explicit(&times.mtime) {
            permissions::check_owner(caller, &attr)?;
        } else if now(&times.atime) || now(&times.mtime) {
            permissions::check_owner(caller, &attr).or_else(|_| permissions::check_write(caller, &attr))?;
        }
        if bytes.is_some() {
            match attr.kind {
                NodeKind::File => permissions::check_write(caller, &attr)?,
                NodeKind::Directory { .. } => return Err(FsError::IsDirectory),
                _ => return Err(FsError::Invalid("it has no size to set".into())),
            }
            if bytes > Some(crate::fs::FILE_BYTES_MAX) {
                return Err(FsError::TooLarge);
            }
        }
        // What was written before comes before the new size and times on record, too.
        self.record(file).await?;
        let change = AttrChange { mode, uid, gid, bytes, times, clears_set_id };
        match self.door.carry_out(OpBody::SetAttr { file, change, guard_ctime_ns }).await? {
            Answer::Node { before: old, after, .. } => {
                Ok(Changed { before: old.as_ref().map(before), after: Some(after) })
            }
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn create_file(
        &self,
        caller: &Caller,
        dir: Handle,
        name: &[u8],
        set: SetAttr,
        how: CreateHow,
    ) -> Result<Made, FsError> {
        check_new_name(name)?;
        if set.bytes.is_some() {
            // What is cut must be the file that has this name now.
            self.fresh().await?;
        }
        loop {
            let dir_attr = self.directory(dir).await?;
            permissions::check_search(caller, &dir_attr)?;
            let entry = self.entry(dir, name)?;
            match &entry {
                Some(entry) if how == CreateHow::Unchecked && set.bytes.is_some() => {
                    permissions::check_write(caller, entry)?;
                    self.record(entry.handle).await?;
                }
                Some(_) => {}
                None => permissions::check_add(caller, &dir_attr)?,
            }
            let existing = match how {
                CreateHow::Unchecked if entry.is_some() => OnExisting::Use,
                // A file that another site has made meanwhile is not cut before it is known who may.
                CreateHow::Unchecked | CreateHow::Guarded => OnExisting::Refuse,
                CreateHow::Exclusive { verifier } => OnExisting::SameVerifier(verifier),
            };
            let (uid, gid) = self.owner_of_new(caller, &set)?;
            let mode = set.mode.unwrap_or(FILE_MODE) & 0o7777;
            let (name, times, bytes) = (name.to_vec(), set.times, set.bytes);
            let clears_set_id = permissions::clears_set_id(caller);
            let create = OpBody::Create { dir, name, mode, uid, gid, times, bytes, existing, clears_set_id };
            match self.door.carry_out(create).await {
                // It is in the local tables by now.
                Err(DoorError::Refused(OpError::Exists)) if how == CreateHow::Unchecked && entry.is_none() => {}
                answer => return made(answer?),
            }
        }
    }

    fn owner_of_new(&self, caller: &Caller, set: &SetAttr) -> Result<(u32, u32), FsError> {
        let (uid, gid) = (set.uid.unwrap_or(caller.uid), set.gid.unwrap_or(caller.gid));
        let own = uid == caller.uid && permissions::in_group(caller, gid);
        if caller.uid == 0 || own { Ok((uid, gid)) } else { Err(FsError::NotOwner) }
    }

    pub(super) async fn make_node(
        &self,
        caller: &Caller,
        dir: Handle,
        name: &[u8],
        node: NewNode,
        set: SetAttr,
    ) -> Result<Made, FsError> {
        check_new_name(name)?;
        permissions::check_add(caller, &self.directory(dir).await?)?;
        let mode = match &node {
            NewNode::Directory => set.mode.unwrap_or(DIRECTORY_MODE),
            NewNode::Symlink { target } if target.is_empty() || target.len() > SYMLINK_BYTES_MAX => {
                return Err(FsError::NameTooLong);
            }
            NewNode::Symlink { .. } => 0o777,
            NewNode::BlockDevice { .. } | NewNode::CharacterDevice { .. } if caller.uid != 0 => {
                return Err(FsError::NotOwner);
            }
            _ => set.mode.unwrap_or(FILE_MODE),
        };
        let (uid, gid) = self.owner_of_new(caller, &set)?;
        let (name, mode, times) = (name.to_vec(), mode & 0o7777, set.times);
        made(self.door.carry_out(OpBody::Make { dir, name, node, mode, uid, gid, times }).await?)
    }

    pub(super) async fn remove_name(
        &self,
        caller: &Caller,
        dir: Handle,
        name: &[u8],
        directory: bool,
    ) -> Result<Changed, FsError> {
        check_name(name)?;
        if name == b"." || name == b".." {
            return Err(FsError::Invalid("these names stay".into()));
        }
        let entry = self.entry_or_surely_none(dir, name).await?;
        permissions::check_remove(caller, &self.directory(dir).await?, entry.as_ref())?;
        let name = name.to_vec();
        let body = if directory { OpBody::RemoveDir { dir, name } } else { OpBody::Remove { dir, name } };
        match self.door.carry_out(body).await? {
            Answer::Dir { before: old, after } => Ok(Changed { before: Some(before(&old)), after: Some(after) }),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn rename_entry(
        &self,
        caller: &Caller,
        (from_dir, from_name): (Handle, &[u8]),
        (to_dir, to_name): (Handle, &[u8]),
    ) -> Result<(Changed, Changed), FsError> {
        for name in [from_name, to_name] {
            check_name(name)?;
            if name == b"." || name == b".." {
                return Err(FsError::Invalid("these names stay".into()));
            }
        }
        let (from_attr, to_attr) = (self.directory(from_dir).await?, self.directory(to_dir).await?);
        let from = self.entry_or_surely_none(from_dir, from_name).await?;
        permissions::check_remove(caller, &from_attr, from.as_ref())?;
        // In a sticky directory it matters whose file is replaced.
        let sticky = to_attr.mode & permissions::STICKY != 0;
        let replaced =
            if sticky { self.entry_or_surely_none(to_dir, to_name).await? } else { self.entry(to_dir, to_name)? };
        match replaced {
            Some(replaced) => permissions::check_remove(caller, &to_attr, Some(&replaced))?,
            None => permissions::check_add(caller, &to_attr)?,
        }
        let (from_name, to_name) = (from_name.to_vec(), to_name.to_vec());
        match self.door.carry_out(OpBody::Rename { from_dir, from_name, to_dir, to_name }).await? {
            Answer::Dirs { from_before, from_after, to_before, to_after } => Ok((
                Changed { before: Some(before(&from_before)), after: Some(from_after) },
                Changed { before: Some(before(&to_before)), after: Some(to_after) },
            )),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn link_file(
        &self,
        caller: &Caller,
        file: Handle,
        dir: Handle,
        name: &[u8],
    ) -> Result<Made, FsError> {
        check_new_name(name)?;
        permissions::check_add(caller, &self.directory(dir).await?)?;
        made(self.door.carry_out(OpBody::Link { file, dir, name: name.to_vec() }).await?)
    }

    pub(super) async fn read_directory(
        &self,
        caller: &Caller,
        dir: Handle,
        cookie: u64,
        entries_max: usize,
        with_attributes: bool,
    ) -> Result<DirPage, FsError> {
        self.fresh().await?;
        let attr = self.directory(dir).await?;
        permissions::check_list(caller, &attr)?;
        let NodeKind::Directory { parent } = attr.kind else {
            return Err(FsError::NotDirectory);
        };
        let parent = if dir == ROOT { ROOT.ino } else { parent };
        let with = |ino: u64| if with_attributes { self.by_ino(ino).ok() } else { None };
        let mut entries = Vec::new();
        for (at, name, ino) in [(DOT, &b"."[..], dir.ino), (DOT_DOT, b"..", parent)] {
            if cookie < at && entries.len() < entries_max {
                entries.push(DirEntry { name: Bytes::from_static(name), cookie: at, ino, attr: with(ino) });
            }
        }
        let room = entries_max.saturating_sub(entries.len());
        // One more than there is room for, to know whether this is the end.
        let rows = read::readdir(&*self.kv, dir.ino, cookie.max(DOT_DOT), room + 1)?;
        let end = rows.len() <= room;
        entries.extend(rows.into_iter().take(room).map(|row| {
            let attr = with(row.ino);
            DirEntry { name: row.name.into(), cookie: row.cookie, ino: row.ino, attr }
        }));
        Ok(DirPage { entries, end, attr })
    }
}
