//! The procedures of NFS, one call each.

use super::{Attempt, Attr, Entry, Fh, Nfs3, Nfs3Error, Shared};
use bytes::Bytes;
use nfs3_types::{
    mount::{self, MOUNT_PROGRAM, dirpath, mountres3, mountstat3},
    nfs3::{self, *},
    xdr_codec::{Opaque, Pack, Unpack},
};
use std::sync::atomic::Ordering::Relaxed;

const NFS: (u32, u32) = (nfs3::PROGRAM, nfs3::VERSION);

/// Most bytes of a READDIRPLUS answer.
const DIRECTORY_BYTES_MAX: u32 = 512 << 10;

/// The export's handle.
pub(super) async fn mount(shared: &Shared) -> Result<Fh, Nfs3Error> {
    let export = shared.options.export.clone();
    let path = dirpath(Opaque::borrowed(export.as_bytes()));
    let procedure = (MOUNT_PROGRAM::MOUNTPROC3_MNT as u32, "MNT");
    shared
        .call((mount::PROGRAM, mount::VERSION), procedure, &path, |answer: mountres3<'static>| match answer {
            mountres3::Ok(ok) => Ok(Attempt::Done(Fh { data: Opaque::owned(ok.fhandle.0.into_owned()) })),
            // MOUNT has no word for "later".
            mountres3::Err(status @ mountstat3::MNT3ERR_SERVERFAULT) => Ok(Attempt::Later(status.to_string())),
            mountres3::Err(status) => Err(Nfs3Error::Mount { export: export.clone(), why: status.to_string() }),
        })
        .await
}

fn at<'a>(dir: &Fh, name: &'a str) -> diropargs3<'a> {
    diropargs3 { dir: dir.clone(), name: filename3(Opaque::borrowed(name.as_bytes())) }
}

impl Nfs3 {
    async fn nfs<T: Unpack, E: Unpack>(
        &self,
        procedure: (NFS_PROGRAM, &'static str),
        about: &str,
        arguments: &impl Pack,
    ) -> Result<T, Nfs3Error> {
        let (number, name) = (procedure.0 as u32, procedure.1);
        self.shared
            .call(NFS, (number, name), arguments, |answer: Nfs3Result<T, E>| match answer {
                Nfs3Result::Ok(ok) => Ok(Attempt::Done(ok)),
                Nfs3Result::Err((status @ nfsstat3::NFS3ERR_JUKEBOX, _)) => Ok(Attempt::Later(status.to_string())),
                Nfs3Result::Err((status, _)) => Err(Nfs3Error::Status { attempted: format!("{name} {about}"), status }),
            })
            .await
    }

    fn made(&self, what: &str, handle: post_op_fh3) -> Result<Fh, Nfs3Error> {
        match handle {
            Nfs3Option::Some(handle) => Ok(handle),
            Nfs3Option::None => Err(Nfs3Error::Protocol { attempted: what.into(), what: "no handle came back".into() }),
        }
    }

    /// A file's attributes.
    pub async fn getattr(&self, file: &Fh) -> Result<Attr, Nfs3Error> {
        let procedure = (NFS_PROGRAM::NFSPROC3_GETATTR, "GETATTR");
        let arguments = GETATTR3args { object: file.clone() };
        let ok: GETATTR3resok = self.nfs::<_, nfs3_types::xdr_codec::Void>(procedure, "", &arguments).await?;
        Ok(ok.obj_attributes)
    }

    /// Sets attributes.
    pub async fn setattr(&self, file: &Fh, new_attributes: sattr3) -> Result<(), Nfs3Error> {
        let procedure = (NFS_PROGRAM::NFSPROC3_SETATTR, "SETATTR");
        let arguments = SETATTR3args { object: file.clone(), new_attributes, guard: Nfs3Option::None };
        self.nfs::<SETATTR3resok, SETATTR3resfail>(procedure, "", &arguments).await.map(drop)
    }

    /// Cuts a file, or lengthens it with zeros.
    pub async fn truncate(&self, file: &Fh, bytes: u64) -> Result<(), Nfs3Error> {
        self.setattr(file, sattr3 { size: Nfs3Option::Some(bytes), ..sattr3::default() }).await
    }

    /// What a name stands for.
    pub async fn lookup(&self, dir: &Fh, name: &str) -> Result<(Fh, Attr), Nfs3Error> {
        let procedure = (NFS_PROGRAM::NFSPROC3_LOOKUP, "LOOKUP");
        let ok: LOOKUP3resok =
            self.nfs::<_, LOOKUP3resfail>(procedure, name, &LOOKUP3args { what: at(dir, name) }).await?;
        let attr = match ok.obj_attributes {
            Nfs3Option::Some(attr) => attr,
            Nfs3Option::None => self.getattr(&ok.object).await?,
        };
        Ok((ok.object, attr))
    }

    /// Makes a file, or opens the one that is there (and leaves its content).
    pub async fn create(&self, dir: &Fh, name: &str) -> Result<Fh, Nfs3Error> {
        self.open(dir, name).await.map(|(file, _)| file)
    }

    /// Makes a file, in whichever way.
    pub async fn create_as(&self, dir: &Fh, name: &str, how: createhow3) -> Result<Fh, Nfs3Error> {
        self.call_create(dir, name, how).await.map(|(file, _)| file)
    }

    /// As [`Nfs3::create`], with the file's attributes then.
    pub async fn open(&self, dir: &Fh, name: &str) -> Result<(Fh, Attr), Nfs3Error> {
        let how = createhow3::UNCHECKED(sattr3 { mode: Nfs3Option::Some(0o644), ..sattr3::default() });
        match self.call_create(dir, name, how).await? {
            (file, Nfs3Option::Some(attr)) => Ok((file, attr)),
            (file, Nfs3Option::None) => self.getattr(&file).await.map(|attr| (file, attr)),
        }
    }

    async fn call_create(&self, dir: &Fh, name: &str, how: createhow3) -> Result<(Fh, post_op_attr), Nfs3Error> {
        let procedure = (NFS_PROGRAM::NFSPROC3_CREATE, "CREATE");
        let arguments = CREATE3args { where_: at(dir, name), how };
        let ok: CREATE3resok = self.nfs::<_, CREATE3resfail>(procedure, name, &arguments).await?;
        Ok((self.made("CREATE", ok.obj)?, ok.obj_attributes))
    }

    /// Makes a directory.
    pub async fn mkdir(&self, dir: &Fh, name: &str) -> Result<Fh, Nfs3Error> {
        let procedure = (NFS_PROGRAM::NFSPROC3_MKDIR, "MKDIR");
        let attributes = sattr3 { mode: Nfs3Option::Some(0o755), ..sattr3::default() };
        let ok: MKDIR3resok =
            self.nfs::<_, MKDIR3resfail>(procedure, name, &MKDIR3args { where_: at(dir, name), attributes }).await?;
        self.made("MKDIR", ok.obj)
    }

    /// Takes a name of a file away.
    pub async fn remove(&self, dir: &Fh, name: &str) -> Result<(), Nfs3Error> {
        let procedure = (NFS_PROGRAM::NFSPROC3_REMOVE, "REMOVE");
        self.nfs::<REMOVE3resok, REMOVE3resfail>(procedure, name, &REMOVE3args { object: at(dir, name) })
            .await
            .map(drop)
    }

    /// Takes an empty directory away.
    pub async fn rmdir(&self, dir: &Fh, name: &str) -> Result<(), Nfs3Error> {
        let procedure = (NFS_PROGRAM::NFSPROC3_RMDIR, "RMDIR");
        // A failure and a success of RMDIR look like those of REMOVE.
        self.nfs::<REMOVE3resok, REMOVE3resfail>(procedure, name, &RMDIR3args { object: at(dir, name) }).await.map(drop)
    }

    /// Gives a file another name, which may be another file's until then.
    pub async fn rename(&self, from: (&Fh, &str), to: (&Fh, &str)) -> Result<(), Nfs3Error> {
        let procedure = (NFS_PROGRAM::NFSPROC3_RENAME, "RENAME");
        let arguments = RENAME3args { from: at(from.0, from.1), to: at(to.0, to.1) };
        self.nfs::<RENAME3resok, RENAME3resfail>(procedure, from.1, &arguments).await.map(drop)
    }

    /// Writes up to [`super::PIECE_BYTES`] bytes, at least as durably as said; the number that the server took, and its
    /// verifier.
    pub async fn write(
        &self,
        file: &Fh,
        offset: u64,
        data: &[u8],
        stable: stable_how,
    ) -> Result<(usize, writeverf3), Nfs3Error> {
        let procedure = (NFS_PROGRAM::NFSPROC3_WRITE, "WRITE");
        let count = data.len() as u32;
        let arguments = WRITE3args { file: file.clone(), offset, count, stable, data: Opaque::borrowed(data) };
        let ok: WRITE3resok = self.nfs::<_, WRITE3resfail>(procedure, "", &arguments).await?;
        if (ok.committed as u32) < stable as u32 {
            let what = format!("written as {:?}, where {stable:?} was asked for", ok.committed);
            return Err(Nfs3Error::Protocol { attempted: procedure.1.into(), what });
        }
        self.shared.counted.written_bytes.fetch_add(ok.count.into(), Relaxed);
        Ok((ok.count as usize, ok.verf))
    }

    /// Makes unstable writes of a file durable; the server's verifier.
    pub async fn commit(&self, file: &Fh) -> Result<writeverf3, Nfs3Error> {
        let procedure = (NFS_PROGRAM::NFSPROC3_COMMIT, "COMMIT");
        let arguments = COMMIT3args { file: file.clone(), offset: 0, count: 0 };
        let ok: COMMIT3resok = self.nfs::<_, COMMIT3resfail>(procedure, "", &arguments).await?;
        Ok(ok.verf)
    }

    /// Reads up to `len` bytes, and whether the file ends with them.
    pub async fn read(&self, file: &Fh, offset: u64, len: usize) -> Result<(Bytes, bool), Nfs3Error> {
        let procedure = (NFS_PROGRAM::NFSPROC3_READ, "READ");
        let arguments = READ3args { file: file.clone(), offset, count: len as u32 };
        let ok: READ3resok<'static> = self.nfs::<_, READ3resfail>(procedure, "", &arguments).await?;
        self.shared.counted.read_bytes.fetch_add(ok.count.into(), Relaxed);
        Ok((ok.data.into_owned().into(), ok.eof))
    }

    /// Everything in a directory, without `.` and `..`, in order of name.
    pub async fn readdirplus(&self, dir: &Fh) -> Result<Vec<Entry>, Nfs3Error> {
        let procedure = (NFS_PROGRAM::NFSPROC3_READDIRPLUS, "READDIRPLUS");
        let (mut cookie, mut cookieverf, mut found) = (0, cookieverf3::default(), Vec::new());
        loop {
            let (dircount, maxcount) = (DIRECTORY_BYTES_MAX, DIRECTORY_BYTES_MAX);
            let arguments = READDIRPLUS3args { dir: dir.clone(), cookie, cookieverf, dircount, maxcount };
            let ok: READDIRPLUS3resok<'static> = self.nfs::<_, READDIRPLUS3resfail>(procedure, "", &arguments).await?;
            cookieverf = ok.cookieverf;
            let page = ok.reply.entries.into_inner();
            let stuck = page.is_empty() && !ok.reply.eof;
            if stuck {
                let what = "an empty page that is not the last".into();
                return Err(Nfs3Error::Protocol { attempted: "READDIRPLUS".into(), what });
            }
            for entry in page {
                cookie = entry.cookie;
                let name = String::from_utf8_lossy(entry.name.as_ref()).into_owned();
                if matches!(&*name, "." | "..") {
                    continue;
                }
                let (handle, attr) = match (entry.name_handle, entry.name_attributes) {
                    (Nfs3Option::Some(handle), Nfs3Option::Some(attr)) => (handle, attr),
                    _ => self.lookup(dir, &name).await?,
                };
                found.push(Entry { name, handle, attr });
            }
            if ok.reply.eof {
                found.sort_by(|a, b| a.name.cmp(&b.name));
                return Ok(found);
            }
        }
    }
}
