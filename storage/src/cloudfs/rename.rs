//! Rename: one step that takes a name away, gives another, and may replace what had it.
//!
//! | what moves | what has the new name | outcome |
//! |---|---|---|
//! | anything | nothing | moved |
//! | anything | the same inode | nothing happens, and that is success |
//! | a directory | an empty directory | replaced |
//! | a directory | a directory with names | not empty |
//! | a directory | anything else | not a directory |
//! | anything else | a directory | is a directory |
//! | anything else | anything else | replaced |
//! | a directory | a place in itself | invalid |

use super::{
    applying::{Applying, Stop, check_name, invalid},
    ops::{Answer, OpError},
    read::{self, damaged},
    types::*,
};

impl Applying<'_, '_> {
    pub(super) fn rename(
        &mut self,
        from_dir: Handle,
        from_name: &[u8],
        to_dir: Handle,
        to_name: &[u8],
    ) -> Result<Answer, Stop> {
        let from_before = self.directory(from_dir)?;
        let to_before = self.directory(to_dir)?;
        check_name(from_name)?;
        check_name(to_name)?;
        let (from_row, mut moved) = self.named(&from_before, from_name)?.ok_or(OpError::NoEntry)?;
        let replaced = self.named(&to_before, to_name)?;
        if replaced.as_ref().is_some_and(|(row, _)| row.ino == from_row.ino) {
            let (from_after, to_after) = (from_before.clone(), to_before.clone());
            return Ok(Answer::Dirs { from_before, from_after, to_before, to_after });
        }
        let moves_directory = moved.kind.is_directory();
        if moves_directory {
            self.check_not_inside(from_row.ino, to_dir.ino)?;
        }
        if let Some((_, target)) = &replaced {
            self.check_replaceable(moves_directory, target)?;
        }
        let same_dir = from_dir == to_dir;
        let adds_link = moves_directory && replaced.is_none() && !same_dir;
        if adds_link && to_before.nlink >= LINKS_MAX {
            return Err(OpError::TooManyLinks.into());
        }

        self.remove_name(from_dir.ino, from_name, from_row);
        let replaces = replaced.is_some();
        if let Some((row, target)) = replaced {
            self.remove_name(to_dir.ino, to_name, row);
            if target.kind.is_directory() { self.free_inode(&target)? } else { self.unlink(target)? }
        }
        self.add_name(to_dir.ino, to_name, &moved);
        if moves_directory {
            moved.kind = NodeKind::Directory { parent: to_dir.ino };
        }
        moved.ctime_ns = self.now_ns;
        self.put_attr(&moved);

        let mut from_after = from_before.clone();
        self.touch(&mut from_after);
        // A directory that replaces another in place takes one link from it; one that comes from elsewhere brings the
        // link that the replaced one had.
        if moves_directory && (!same_dir || replaces) {
            from_after.nlink -= 1;
        }
        let to_after = if same_dir {
            from_after.clone()
        } else {
            let mut to_after = to_before.clone();
            self.touch(&mut to_after);
            to_after.nlink += u32::from(adds_link);
            self.put_attr(&to_after);
            to_after
        };
        self.put_attr(&from_after);
        Ok(Answer::Dirs { from_before, from_after, to_before, to_after })
    }

    /// Refuses to move directory `moved` to a place in itself.
    fn check_not_inside(&self, moved: u64, to_dir: u64) -> Result<(), Stop> {
        let mut at = to_dir;
        while at != ROOT.ino {
            if at == moved {
                return Err(invalid("a directory cannot move into itself").into());
            }
            at = read::parent(self, at)?.ok_or_else(|| damaged(format!("directory {at} has no parent")))?;
        }
        Ok(())
    }

    fn check_replaceable(&self, moves_directory: bool, target: &Attr) -> Result<(), Stop> {
        match (moves_directory, target.kind.is_directory()) {
            (true, false) => Err(OpError::NotDirectory.into()),
            (false, true) => Err(OpError::IsDirectory.into()),
            (true, true) if !self.is_empty(target.handle.ino)? => Err(OpError::NotEmpty.into()),
            _ => Ok(()),
        }
    }
}
