//! Attributes: their form on the wire, and the procedures that are about them alone.

use super::decode::{Decoder, Malformed};
use super::dispatch::{Place, Request, Service};
use super::rpc::Body;
use super::status::status_of;
use crate::fs::{Before, Changed, FILE_BYTES_MAX, FsError, NAME_BYTES_MAX, access};
use nfs3_types::nfs3::{
    ACCESS3resok, FSF3_CANSETTIME, FSF3_HOMOGENEOUS, FSF3_LINK, FSF3_SYMLINK, FSINFO3resok, FSSTAT3resok,
    GETATTR3resok, PATHCONF3resok, SETATTR3resok, fattr3, ftype3, nfsstat3, nfstime3, post_op_attr, pre_op_attr,
    specdata3, wcc_attr, wcc_data,
};
use nfs3_types::xdr_codec::Void;
use storage::cloudfs::{Attr, NodeKind};

/// What reads and writes should be multiples of, in bytes.
const TRANSFER_MULTIPLE_BYTES: u32 = 4096;
/// Most links of a file that clients are told of (the trait answers where it stops).
const LINKS_MAX: u32 = 65_000;
const NS_PER_S: u64 = 1_000_000_000;

/// Nanoseconds since the Unix epoch as seconds and nanoseconds; times past 2106 stay at its end.
pub fn time_of(ns: u64) -> nfstime3 {
    let nseconds = u32::try_from(ns % NS_PER_S).expect("a remainder of 10^9 fits 32 bits");
    nfstime3 { seconds: u32::try_from(ns / NS_PER_S).unwrap_or(u32::MAX), nseconds }
}

fn before_of(before: Before) -> pre_op_attr {
    let Before { bytes, mtime_ns, ctime_ns } = before;
    pre_op_attr::Some(wcc_attr { size: bytes, mtime: time_of(mtime_ns), ctime: time_of(ctime_ns) })
}

impl Service {
    pub fn fattr(&self, attr: &Attr) -> fattr3 {
        let mut rdev = specdata3::default();
        let type_ = match &attr.kind {
            NodeKind::File => ftype3::NF3REG,
            NodeKind::Directory { .. } => ftype3::NF3DIR,
            NodeKind::Symlink { .. } => ftype3::NF3LNK,
            NodeKind::Fifo => ftype3::NF3FIFO,
            NodeKind::Socket => ftype3::NF3SOCK,
            NodeKind::BlockDevice { major, minor } => {
                rdev = specdata3 { specdata1: *major, specdata2: *minor };
                ftype3::NF3BLK
            }
            NodeKind::CharacterDevice { major, minor } => {
                rdev = specdata3 { specdata1: *major, specdata2: *minor };
                ftype3::NF3CHR
            }
        };
        fattr3 {
            type_,
            mode: attr.mode & 0o7777,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            size: attr.bytes,
            used: attr.bytes,
            rdev,
            fsid: self.cloudfs,
            fileid: attr.handle.ino,
            atime: time_of(attr.atime_ns),
            mtime: time_of(attr.mtime_ns),
            ctime: time_of(attr.ctime_ns),
        }
    }

    pub fn post_op(&self, attr: &Attr) -> post_op_attr {
        post_op_attr::Some(self.fattr(attr))
    }

    /// An object's change, where it is known.
    pub fn wcc(&self, changed: &Changed) -> wcc_data {
        wcc_data {
            before: changed.before.map_or(pre_op_attr::None, before_of),
            after: changed.after.as_ref().map_or(post_op_attr::None, |attr| self.post_op(attr)),
        }
    }

    /// The attributes of a place where a call failed.
    pub async fn post_op_at(&self, place: &Place<'_>, error: &FsError) -> post_op_attr {
        match error {
            // A second question would wait as long, or fail the same way.
            FsError::Later(_) | FsError::Stale => post_op_attr::None,
            _ => self.post_op_now(place).await,
        }
    }

    /// The attributes of a place, if they can be had.
    pub async fn post_op_now(&self, place: &Place<'_>) -> post_op_attr {
        match self.fs.getattr(&place.caller, place.file).await {
            Ok(attr) => self.post_op(&attr),
            Err(_) => post_op_attr::None,
        }
    }

    /// The attributes of a place where a change failed.
    pub async fn wcc_at(&self, place: &Place<'_>, error: &FsError) -> wcc_data {
        wcc_data { before: pre_op_attr::None, after: self.post_op_at(place, error).await }
    }

    /// A failure that carries the attributes of a place.
    pub async fn failed_at(&self, place: &Place<'_>, error: &FsError) -> Body {
        Body::failed(status_of(error), &self.post_op_at(place, error).await)
    }

    /// A failed change of a place.
    pub async fn change_failed_at(&self, place: &Place<'_>, error: &FsError) -> Body {
        Body::failed(status_of(error), &self.wcc_at(place, error).await)
    }

    pub async fn getattr(&self, request: &Request, mut arguments: Decoder) -> Result<Body, Malformed> {
        let file = match self.place(request, &arguments.handle()?) {
            Ok(file) => file,
            Err(status) => return Ok(Body::failed(status, &Void)),
        };
        Ok(match self.fs.getattr(&file.caller, file.file).await {
            Ok(attr) => Body::ok(&GETATTR3resok { obj_attributes: self.fattr(&attr) }),
            Err(error) => Body::failed(status_of(&error), &Void),
        })
    }

    pub async fn setattr(&self, request: &Request, mut arguments: Decoder) -> Result<Body, Malformed> {
        let (handle, set, guard) = (arguments.handle()?, arguments.set_attr()?, arguments.guard_ns()?);
        let file = match self.place_to_change(request, &handle) {
            Ok(file) => file,
            Err(status) => return Ok(Body::failed(status, &wcc_data::default())),
        };
        Ok(match self.fs.setattr(&file.caller, file.file, set, guard).await {
            Ok(changed) => Body::ok(&SETATTR3resok { obj_wcc: self.wcc(&changed) }),
            Err(error) => self.change_failed_at(&file, &error).await,
        })
    }

    pub async fn access(&self, request: &Request, mut arguments: Decoder) -> Result<Body, Malformed> {
        let (handle, mut wanted) = (arguments.handle()?, arguments.u32()?);
        let file = match self.place(request, &handle) {
            Ok(file) => file,
            Err(status) => return Ok(Body::failed(status, &post_op_attr::None)),
        };
        wanted &= access::READ | access::LOOKUP | access::MODIFY | access::EXTEND | access::DELETE | access::EXECUTE;
        if file.export.read_only {
            wanted &= !(access::MODIFY | access::EXTEND | access::DELETE);
        }
        Ok(match self.fs.access(&file.caller, file.file, wanted).await {
            Ok((granted, attr)) => {
                Body::ok(&ACCESS3resok { obj_attributes: self.post_op(&attr), access: granted & wanted })
            }
            Err(error) => self.failed_at(&file, &error).await,
        })
    }

    pub async fn fsstat(&self, request: &Request, mut arguments: Decoder) -> Result<Body, Malformed> {
        let file = match self.place(request, &arguments.handle()?) {
            Ok(file) => file,
            Err(status) => return Ok(Body::failed(status, &post_op_attr::None)),
        };
        Ok(match self.fs.room(&file.caller, file.file).await {
            Ok((room, attr)) => Body::ok(&FSSTAT3resok {
                obj_attributes: self.post_op(&attr),
                tbytes: room.bytes_total,
                fbytes: room.bytes_free,
                abytes: room.bytes_free,
                tfiles: room.files_total,
                ffiles: room.files_free,
                afiles: room.files_free,
                invarsec: 0,
            }),
            Err(error) => self.failed_at(&file, &error).await,
        })
    }

    pub async fn fsinfo(&self, request: &Request, mut arguments: Decoder) -> Result<Body, Malformed> {
        let attr = match self.attr_of(request, &arguments.handle()?).await {
            Ok(attr) => attr,
            Err(status) => return Ok(Body::failed(status, &post_op_attr::None)),
        };
        Ok(Body::ok(&FSINFO3resok {
            obj_attributes: self.post_op(&attr),
            rtmax: self.settings.read_bytes_max,
            rtpref: self.settings.read_bytes_preferred,
            rtmult: TRANSFER_MULTIPLE_BYTES,
            wtmax: self.settings.write_bytes_max,
            wtpref: self.settings.write_bytes_preferred,
            wtmult: TRANSFER_MULTIPLE_BYTES,
            dtpref: self.settings.directory_bytes_preferred,
            maxfilesize: FILE_BYTES_MAX,
            time_delta: nfstime3 { seconds: 0, nseconds: 1 },
            properties: FSF3_LINK | FSF3_SYMLINK | FSF3_HOMOGENEOUS | FSF3_CANSETTIME,
        }))
    }

    pub async fn pathconf(&self, request: &Request, mut arguments: Decoder) -> Result<Body, Malformed> {
        let attr = match self.attr_of(request, &arguments.handle()?).await {
            Ok(attr) => attr,
            Err(status) => return Ok(Body::failed(status, &post_op_attr::None)),
        };
        Ok(Body::ok(&PATHCONF3resok {
            obj_attributes: self.post_op(&attr),
            linkmax: LINKS_MAX,
            name_max: u32::try_from(NAME_BYTES_MAX).expect("the longest name is short"),
            no_trunc: true,
            chown_restricted: true,
            case_insensitive: false,
            case_preserving: true,
        }))
    }

    async fn attr_of(&self, request: &Request, handle: &[u8]) -> Result<Attr, nfsstat3> {
        let place = self.place(request, handle)?;
        self.fs.getattr(&place.caller, place.file).await.map_err(|error| status_of(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_and_end_in_2106() {
        assert_eq!(time_of(7_000_000_005), nfstime3 { seconds: 7, nseconds: 5 });
        assert_eq!(time_of(u64::MAX).seconds, u32::MAX);
    }
}
