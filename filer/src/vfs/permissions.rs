//! Who may do what: the mode bits of POSIX, for a caller that its door has squashed already.

use crate::fs::{Caller, FsError, access};
use storage::cloudfs::Attr;

const READ: u32 = 4;
const WRITE: u32 = 2;
const EXECUTE: u32 = 1;
/// In a directory with this bit only an owner takes names away.
pub const STICKY: u32 = 0o1000;

fn is_root(caller: &Caller) -> bool {
    caller.uid == 0
}

/// Whether a file that the caller changes loses its set-user-id and set-group-id bits: all but root have to be kept from
/// putting a program of their own into another's hands. The owner is no exception, as on other systems.
pub fn clears_set_id(caller: &Caller) -> bool {
    !is_root(caller)
}

/// Whether the caller belongs to a group.
pub fn in_group(caller: &Caller, gid: u32) -> bool {
    caller.gid == gid || caller.groups.contains(&gid)
}

fn has(caller: &Caller, attr: &Attr, wanted: u32) -> bool {
    if is_root(caller) {
        // Root runs only what somebody may run.
        return wanted & EXECUTE == 0 || attr.kind.is_directory() || attr.mode & 0o111 != 0;
    }
    let shift = if caller.uid == attr.uid {
        6
    } else if in_group(caller, attr.gid) {
        3
    } else {
        0
    };
    attr.mode >> shift & wanted == wanted
}

/// The [`access`] bits that the caller has.
pub fn granted(caller: &Caller, attr: &Attr) -> u32 {
    let mut granted = 0;
    if has(caller, attr, READ) {
        granted |= access::READ;
    }
    if has(caller, attr, WRITE) {
        granted |= access::MODIFY | access::EXTEND;
        if attr.kind.is_directory() {
            granted |= access::DELETE;
        }
    }
    if has(caller, attr, EXECUTE) {
        granted |= if attr.kind.is_directory() { access::LOOKUP } else { access::EXECUTE };
    }
    granted
}

fn allowed(yes: bool) -> Result<(), FsError> {
    if yes { Ok(()) } else { Err(FsError::Access) }
}

/// Whether data may be read. An owner may always, as its client checked the mode when it opened the file (RFC 1813, 4.4);
/// whoever may execute may read too, as that is how a program is loaded.
pub fn check_read(caller: &Caller, attr: &Attr) -> Result<(), FsError> {
    allowed(caller.uid == attr.uid || has(caller, attr, READ) || has(caller, attr, EXECUTE))
}

/// Whether data may be written. An owner may always, for the same reason.
pub fn check_write(caller: &Caller, attr: &Attr) -> Result<(), FsError> {
    allowed(caller.uid == attr.uid || has(caller, attr, WRITE))
}

/// Whether names in a directory may be looked up.
pub fn check_search(caller: &Caller, dir: &Attr) -> Result<(), FsError> {
    allowed(has(caller, dir, EXECUTE))
}

/// Whether a directory may be listed.
pub fn check_list(caller: &Caller, dir: &Attr) -> Result<(), FsError> {
    allowed(has(caller, dir, READ))
}

/// Whether names may be added to a directory.
pub fn check_add(caller: &Caller, dir: &Attr) -> Result<(), FsError> {
    allowed(has(caller, dir, WRITE) && has(caller, dir, EXECUTE))
}

/// Whether a name may be taken from a directory: in a sticky one, by the owner of either alone.
pub fn check_remove(caller: &Caller, dir: &Attr, entry: Option<&Attr>) -> Result<(), FsError> {
    check_add(caller, dir)?;
    let owner = entry.is_none_or(|entry| entry.uid == caller.uid) || dir.uid == caller.uid || is_root(caller);
    if dir.mode & STICKY != 0 && !owner { Err(FsError::NotOwner) } else { Ok(()) }
}

/// Whether the caller may change what only an owner may.
pub fn check_owner(caller: &Caller, attr: &Attr) -> Result<(), FsError> {
    if is_root(caller) || caller.uid == attr.uid { Ok(()) } else { Err(FsError::NotOwner) }
}

/// Whether the caller may give a file to `uid` and `gid`: root may, and an owner may give it to a group of its own.
pub fn check_give(caller: &Caller, attr: &Attr, uid: Option<u32>, gid: Option<u32>) -> Result<(), FsError> {
    let same_user = uid.is_none_or(|uid| uid == attr.uid);
    let own_group = gid.is_none_or(|gid| gid == attr.gid || in_group(caller, gid));
    if is_root(caller) || same_user && own_group && caller.uid == attr.uid { Ok(()) } else { Err(FsError::NotOwner) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::cloudfs::{Handle, NodeKind};

    fn file(mode: u32) -> Attr {
        let handle = Handle { ino: 2, generation: 1 };
        let (uid, gid) = (10, 20);
        let kind = NodeKind::File;
        Attr {
            handle,
            kind,
            mode,
            nlink: 1,
            uid,
            gid,
            bytes: 0,
            atime_ns: 0,
            mtime_ns: 0,
            ctime_ns: 0,
            create_verifier: None,
        }
    }

    fn user(uid: u32, gid: u32, groups: &[u32]) -> Caller {
        Caller { uid, gid, groups: groups.to_vec(), client: None }
    }

    #[test]
    fn owner_group_and_others_have_their_own_bits() {
        let granted = |uid, gid, groups: &[u32], mode| granted(&user(uid, gid, groups), &file(mode));
        let write = access::MODIFY | access::EXTEND;
        assert_eq!(granted(10, 1, &[], 0o640), access::READ | write);
        assert_eq!(granted(11, 20, &[], 0o640), access::READ);
        assert_eq!(granted(11, 1, &[5, 20], 0o640), access::READ);
        assert_eq!(granted(11, 1, &[], 0o640), 0);
        assert_eq!(granted(0, 0, &[], 0o000), access::READ | write, "root, but nobody may execute");
        assert_eq!(granted(0, 0, &[], 0o100), access::READ | write | access::EXECUTE);
        assert_eq!(granted(10, 20, &[], 0o077), 0, "an owner is not one of the others");
    }

    #[test]
    fn a_sticky_directory_lets_owners_remove() {
        let mut dir = file(0o1777);
        dir.kind = NodeKind::Directory { parent: 1 };
        let entry = Attr { uid: 30, ..file(0o644) };
        assert_eq!(check_remove(&user(31, 1, &[]), &dir, Some(&entry)), Err(FsError::NotOwner));
        for owner in [0, 10, 30] {
            assert_eq!(check_remove(&user(owner, 1, &[]), &dir, Some(&entry)), Ok(()));
        }
        assert_eq!(check_remove(&user(31, 1, &[]), &Attr { mode: 0o755, ..dir }, Some(&entry)), Err(FsError::Access));
    }

    #[test]
    fn only_root_gives_files_away() {
        let attr = file(0o644);
        assert_eq!(check_give(&user(10, 1, &[7]), &attr, None, Some(7)), Ok(()));
        assert_eq!(check_give(&user(10, 1, &[7]), &attr, None, Some(8)), Err(FsError::NotOwner));
        assert_eq!(check_give(&user(10, 1, &[7]), &attr, Some(11), None), Err(FsError::NotOwner));
        assert_eq!(check_give(&user(0, 0, &[]), &attr, Some(11), Some(8)), Ok(()));
    }
}
