//! Names: finding, making, moving and removing them.

use super::decode::{Decoder, Malformed};
use super::dispatch::{Place, Request, Service};
use super::exports::Export;
use super::rpc::Body;
use super::status::status_of;
use crate::fs::{Caller, CreateHow, FsError, Made, NAME_BYTES_MAX, SYMLINK_BYTES_MAX, SetAttr};
use nfs3_types::nfs3::{
    CREATE3resok, LINK3resfail, LINK3resok, LOOKUP3resok, REMOVE3resok, RENAME3resfail, RENAME3resok, ftype3, nfsstat3,
    post_op_attr, post_op_fh3, wcc_data,
};
use storage::cloudfs::{Handle, NewNode};

/// What a name is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Find,
    Make,
    Remove,
    RemoveDirectory,
    Rename,
}

/// Refuses names that no directory can hold, and changes of `.` and `..` (RFC 1813, 3.3.8 to 3.3.15).
fn check(name: &[u8], purpose: Purpose) -> Result<(), FsError> {
    let invalid = |why: &str| Err(FsError::Invalid(why.into()));
    match name {
        b"" if purpose == Purpose::Find => Err(FsError::NoEntry),
        b"" => invalid("an empty name"),
        b"." | b".." => match purpose {
            Purpose::Find => Ok(()),
            Purpose::Make => Err(FsError::Exists),
            Purpose::RemoveDirectory if name == b".." => Err(FsError::Exists),
            _ => invalid("a change of . or .."),
        },
        _ if name.len() > NAME_BYTES_MAX => Err(FsError::NameTooLong),
        _ if name.contains(&b'/') || name.contains(&0) => invalid("a name with / or NUL"),
        _ => Ok(()),
    }
}

impl Service {
    pub async fn lookup(&self, request: &Request, mut arguments: Decoder) -> Result<Body, Malformed> {
        let (handle, name) = arguments.place()?;
        let dir = match self.place(request, &handle) {
            Ok(dir) => dir,
            Err(status) => return Ok(Body::failed(status, &post_op_attr::None)),
        };
        let find = async {
            check(&name, Purpose::Find)?;
            let stay = &name[..] == b".." && self.is_export_root(&dir).await?;
            let name: &[u8] = if stay { b"." } else { &name };
            let found = self.fs.lookup(&dir.caller, dir.file, name).await?;
            if name == b".." && !self.lies_within(dir.export, found.handle).await? {
                return Err(FsError::Stale);
            }
            Ok(found)
        };
        let (found, dir_attributes) = tokio::join!(find, self.post_op_now(&dir));
        Ok(match found {
            Ok(attr) => Body::ok(&LOOKUP3resok {
                object: self.handle(dir.export, attr.handle),
                obj_attributes: self.post_op(&attr),
                dir_attributes,
            }),
            Err(error) => Body::failed(status_of(&error), &dir_attributes),
        })
    }

    /// Whether a place is where its export begins: `..` does not lead out of it.
    async fn is_export_root(&self, dir: &Place<'_>) -> Result<bool, FsError> {
        if dir.export.is_root() {
            return Ok(false);
        }
        Ok(self.walk(dir.export.names()).await? == dir.file)
    }

    /// Whether a directory is, or lies below, the one where its export begins. One that was renamed out of it does not.
    async fn lies_within(&self, export: &Export, dir: Handle) -> Result<bool, FsError> {
        if export.is_root() {
            return Ok(true);
        }
        let anyone = Caller { uid: 0, gid: 0, groups: Vec::new(), client: None };
        let (top, mut at) = (self.walk(export.names()).await?, dir);
        while at != top && at != self.fs.root() {
            at = self.fs.lookup(&anyone, at, b"..").await?.handle;
        }
        Ok(at == top)
    }

    pub async fn create(&self, request: &Request, mut arguments: Decoder) -> Result<Body, Malformed> {
        let (handle, name) = arguments.place()?;
        let (how, set) = match arguments.u32()? {
            0 => (CreateHow::Unchecked, arguments.set_attr()?),
            1 => (CreateHow::Guarded, arguments.set_attr()?),
            2 => (CreateHow::Exclusive { verifier: arguments.u64()? }, SetAttr::default()),
            _ => return Err(Malformed),
        };
        let dir = match self.place_to_change(request, &handle) {
            Ok(dir) => dir,
            Err(status) => return Ok(Body::failed(status, &wcc_data::default())),
        };
        let made = match check(&name, Purpose::Make) {
            Ok(()) => self.fs.create(&dir.caller, dir.file, &name, set, how).await,
            Err(error) => Err(error),
        };
        Ok(self.made(&dir, made).await)
    }

    pub async fn mkdir(&self, request: &Request, mut arguments: Decoder) -> Result<Body, Malformed> {
        let ((handle, name), set) = (arguments.place()?, arguments.set_attr()?);
        Ok(self.make(request, &handle, &name, Ok(NewNode::Directory), set).await)
    }

    pub async fn symlink(&self, request: &Request, mut arguments: Decoder) -> Result<Body, Malformed> {
        let ((handle, name), set, target) = (arguments.place()?, arguments.set_attr()?, arguments.opaque()?);
        let node = if target.len() > SYMLINK_BYTES_MAX {
            Err(FsError::NameTooLong)
        } else if target.is_empty() || target.contains(&0) {
            Err(FsError::Invalid("an empty target, or one with NUL".into()))
        } else {
            Ok(NewNode::Symlink { target: target.to_vec() })
        };
        Ok(self.make(request, &handle, &name, node, set).await)
    }

    pub async fn mknod(&self, request: &Request, mut arguments: Decoder) -> Result<Body, Malformed> {
        let (handle, name) = arguments.place()?;
        let kind = arguments.u32()?;
        if !(ftype3::NF3REG as u32..=ftype3::NF3FIFO as u32).contains(&kind) {
            return Err(Malformed);
        }
        let is = |wanted: ftype3| kind == wanted as u32;
        let (node, set) = if is(ftype3::NF3CHR) || is(ftype3::NF3BLK) {
            let (set, major, minor) = (arguments.set_attr()?, arguments.u32()?, arguments.u32()?);
            let character = is(ftype3::NF3CHR);
            let device = |major, minor| match character {
                true => NewNode::CharacterDevice { major, minor },
                false => NewNode::BlockDevice { major, minor },
            };
            (device(major, minor), set)
        } else if is(ftype3::NF3SOCK) {
            (NewNode::Socket, arguments.set_attr()?)
        } else if is(ftype3::NF3FIFO) {
            (NewNode::Fifo, arguments.set_attr()?)
        } else {
            // Files, directories and links have procedures of their own.
            let status = self.place_to_change(request, &handle).err().unwrap_or(nfsstat3::NFS3ERR_BADTYPE);
            return Ok(Body::failed(status, &wcc_data::default()));
        };
        Ok(self.make(request, &handle, &name, Ok(node), set).await)
    }

    async fn make(
        &self,
        request: &Request,
        handle: &[u8],
        name: &[u8],
        node: Result<NewNode, FsError>,
        set: SetAttr,
    ) -> Body {
        let dir = match self.place_to_change(request, handle) {
            Ok(dir) => dir,
            Err(status) => return Body::failed(status, &wcc_data::default()),
        };
        let made = match check(name, Purpose::Make).and(node) {
            Ok(node) => self.fs.make(&dir.caller, dir.file, name, node, set).await,
            Err(error) => Err(error),
        };
        self.made(&dir, made).await
    }

    /// The result of CREATE, MKDIR, SYMLINK and MKNOD: all have the same form.
    async fn made(&self, dir: &Place<'_>, made: Result<Made, FsError>) -> Body {
        match made {
            Ok(made) => Body::ok(&CREATE3resok {
                obj: post_op_fh3::Some(self.handle(dir.export, made.attr.handle)),
                obj_attributes: self.post_op(&made.attr),
                dir_wcc: self.wcc(&made.directory),
            }),
            Err(error) => self.change_failed_at(dir, &error).await,
        }
    }

    pub async fn remove(&self, request: &Request, arguments: Decoder) -> Result<Body, Malformed> {
        self.unlink(request, arguments, Purpose::Remove).await
    }

    pub async fn rmdir(&self, request: &Request, arguments: Decoder) -> Result<Body, Malformed> {
        self.unlink(request, arguments, Purpose::RemoveDirectory).await
    }

    async fn unlink(&self, request: &Request, mut arguments: Decoder, purpose: Purpose) -> Result<Body, Malformed> {
        let (handle, name) = arguments.place()?;
        let dir = match self.place_to_change(request, &handle) {
            Ok(dir) => dir,
            Err(status) => return Ok(Body::failed(status, &wcc_data::default())),
        };
        let changed = match check(&name, purpose) {
            Ok(()) if purpose == Purpose::RemoveDirectory => self.fs.rmdir(&dir.caller, dir.file, &name).await,
            Ok(()) => self.fs.remove(&dir.caller, dir.file, &name).await,
            Err(error) => Err(error),
        };
        Ok(match changed {
            Ok(changed) => Body::ok(&REMOVE3resok { dir_wcc: self.wcc(&changed) }),
            Err(error) => self.change_failed_at(&dir, &error).await,
        })
    }

    pub async fn rename(&self, request: &Request, mut arguments: Decoder) -> Result<Body, Malformed> {
        let ((from_handle, from_name), (to_handle, to_name)) = (arguments.place()?, arguments.place()?);
        let places = self.place_to_change(request, &from_handle);
        let places = places.and_then(|from| Ok((from, self.place_to_change(request, &to_handle)?)));
        let (from, to) = match places {
            Ok((from, to)) if from.export.id() == to.export.id() => (from, to),
            Ok(_) => return Ok(Body::failed(nfsstat3::NFS3ERR_XDEV, &RENAME3resfail::default())),
            Err(status) => return Ok(Body::failed(status, &RENAME3resfail::default())),
        };
        let renamed = match check(&from_name, Purpose::Rename).and(check(&to_name, Purpose::Rename)) {
            Ok(()) => self.fs.rename(&from.caller, (from.file, &from_name), (to.file, &to_name)).await,
            Err(error) => Err(error),
        };
        Ok(match renamed {
            Ok((from, to)) => Body::ok(&RENAME3resok { fromdir_wcc: self.wcc(&from), todir_wcc: self.wcc(&to) }),
            Err(error) => {
                let (fromdir_wcc, todir_wcc) = tokio::join!(self.wcc_at(&from, &error), self.wcc_at(&to, &error));
                Body::failed(status_of(&error), &RENAME3resfail { fromdir_wcc, todir_wcc })
            }
        })
    }

    pub async fn link(&self, request: &Request, mut arguments: Decoder) -> Result<Body, Malformed> {
        let (file_handle, (dir_handle, name)) = (arguments.handle()?, arguments.place()?);
        let failed = |status: nfsstat3| {
            let nothing = LINK3resfail { file_attributes: post_op_attr::None, linkdir_wcc: wcc_data::default() };
            Ok(Body::failed(status, &nothing))
        };
        let places = self.place_to_change(request, &file_handle);
        let places = places.and_then(|file| Ok((file, self.place_to_change(request, &dir_handle)?)));
        let (file, dir) = match places {
            Ok((file, dir)) if file.export.id() == dir.export.id() => (file, dir),
            Ok(_) => return failed(nfsstat3::NFS3ERR_XDEV),
            Err(status) => return failed(status),
        };
        let linked = match check(&name, Purpose::Make) {
            Ok(()) => self.fs.link(&file.caller, file.file, dir.file, &name).await,
            Err(error) => Err(error),
        };
        Ok(match linked {
            Ok(made) => Body::ok(&LINK3resok {
                file_attributes: self.post_op(&made.attr),
                linkdir_wcc: self.wcc(&made.directory),
            }),
            Err(error) => {
                let (file_attributes, linkdir_wcc) =
                    tokio::join!(self.post_op_at(&file, &error), self.wcc_at(&dir, &error));
                Body::failed(status_of(&error), &LINK3resfail { file_attributes, linkdir_wcc })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_by_purpose() {
        let status = |name: &[u8], purpose| check(name, purpose).map_err(|error| status_of(&error));
        assert_eq!(status(&[b'a'; 255], Purpose::Make), Ok(()));
        assert_eq!(status(&[b'a'; 256], Purpose::Make), Err(nfsstat3::NFS3ERR_NAMETOOLONG));
        assert_eq!(status(b"a/b", Purpose::Find), Err(nfsstat3::NFS3ERR_INVAL));
        assert_eq!(status(b"a\0", Purpose::Find), Err(nfsstat3::NFS3ERR_INVAL));
        assert_eq!(status(b"", Purpose::Find), Err(nfsstat3::NFS3ERR_NOENT));
        assert_eq!(status(b"..", Purpose::Find), Ok(()));
        assert_eq!(status(b"..", Purpose::Make), Err(nfsstat3::NFS3ERR_EXIST));
        assert_eq!(status(b".", Purpose::RemoveDirectory), Err(nfsstat3::NFS3ERR_INVAL));
        assert_eq!(status(b"..", Purpose::RemoveDirectory), Err(nfsstat3::NFS3ERR_EXIST));
        assert_eq!(status(b".", Purpose::Rename), Err(nfsstat3::NFS3ERR_INVAL));
    }
}
