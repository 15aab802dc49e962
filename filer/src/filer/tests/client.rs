//! A client's view of a site: the file system by short words.

use super::world::Site;
use crate::fs::{Caller, CreateHow, DirEntry, FileSystem, FsError, SetAttr, Stable};
use bytes::Bytes;
use storage::cloudfs::{Attr, Handle, NewNode, ROOT};

/// Longest read of one call, in bytes.
const READ_BYTES_MAX: u32 = 1 << 20;

pub fn user(uid: u32) -> Caller {
    Caller { uid, gid: uid, groups: Vec::new(), client: None }
}

/// A user at a site.
pub struct Client<'a> {
    site: &'a Site,
    caller: Caller,
}

impl Site {
    /// A user of this site.
    pub fn user(&self, uid: u32) -> Client<'_> {
        Client { site: self, caller: user(uid) }
    }

    /// The user that most tests are.
    pub fn client(&self) -> Client<'_> {
        self.user(1000)
    }
}

/// A call of the file system by this client.
macro_rules! call {
    ($self:ident, |$vfs:ident, $caller:ident| $call:expr) => {{
        let $caller = $self.caller.clone();
        $self
            .site
            .call(async move |filer: crate::filer::Filer| {
                let $vfs = &filer.vfs;
                $call.await
            })
            .await
    }};
}

impl Client<'_> {
    pub async fn create_with(&self, dir: Handle, name: &str, set: SetAttr, how: CreateHow) -> Result<Attr, FsError> {
        let name = name.to_owned();
        call!(self, |vfs, caller| vfs.create(&caller, dir, name.as_bytes(), set, how)).map(|made| made.attr)
    }

    /// Makes an empty file in the root, or uses the one that is there.
    pub async fn create(&self, name: &str) -> Handle {
        let set = SetAttr { mode: Some(0o644), ..SetAttr::default() };
        self.create_with(ROOT, name, set, CreateHow::Unchecked).await.expect("a new file").handle
    }

    pub async fn mkdir(&self, dir: Handle, name: &str) -> Result<Handle, FsError> {
        let (name, set) = (name.to_owned(), SetAttr { mode: Some(0o755), ..SetAttr::default() });
        let made = call!(self, |vfs, caller| vfs.make(&caller, dir, name.as_bytes(), NewNode::Directory, set));
        made.map(|made| made.attr.handle)
    }

    pub async fn write_as(&self, file: Handle, at: u64, data: Bytes, stable: Stable) -> Result<(), FsError> {
        call!(self, |vfs, caller| vfs.write(&caller, file, at, data, stable)).map(|_| ())
    }

    /// An unstable write.
    pub async fn write(&self, file: Handle, at: u64, data: impl Into<Bytes>) {
        self.write_as(file, at, data.into(), Stable::Unstable).await.expect("a write");
    }

    pub async fn try_commit(&self, file: Handle) -> Result<(), FsError> {
        call!(self, |vfs, caller| vfs.commit(&caller, file)).map(|_| ())
    }

    pub async fn commit(&self, file: Handle) {
        self.try_commit(file).await.expect("a commit");
    }

    /// Makes a file with this content and closes it.
    pub async fn store(&self, name: &str, data: impl Into<Bytes>) -> Handle {
        let file = self.create(name).await;
        self.write(file, 0, data).await;
        self.commit(file).await;
        file
    }

    pub async fn read(&self, file: Handle, at: u64, len: u32) -> Result<Bytes, FsError> {
        call!(self, |vfs, caller| vfs.read(&caller, file, at, len)).map(|read| read.data)
    }

    /// The whole content, read as a new open does: attributes first.
    pub async fn read_all(&self, file: Handle) -> Result<Bytes, FsError> {
        let bytes = self.getattr(file).await?.bytes;
        let mut whole = Vec::new();
        while (whole.len() as u64) < bytes {
            let data = self.read(file, whole.len() as u64, READ_BYTES_MAX).await?;
            assert!(!data.is_empty(), "a read before the end gives something");
            whole.extend_from_slice(&data);
        }
        Ok(whole.into())
    }

    pub async fn getattr(&self, file: Handle) -> Result<Attr, FsError> {
        call!(self, |vfs, caller| vfs.getattr(&caller, file))
    }

    pub async fn setattr(&self, file: Handle, set: SetAttr) -> Result<(), FsError> {
        call!(self, |vfs, caller| vfs.setattr(&caller, file, set, None)).map(|_| ())
    }

    pub async fn truncate(&self, file: Handle, bytes: u64) -> Result<(), FsError> {
        self.setattr(file, SetAttr { bytes: Some(bytes), ..SetAttr::default() }).await
    }

    pub async fn lookup(&self, dir: Handle, name: &str) -> Result<Attr, FsError> {
        let name = name.to_owned();
        call!(self, |vfs, caller| vfs.lookup(&caller, dir, name.as_bytes()))
    }

    pub async fn remove(&self, dir: Handle, name: &str) -> Result<(), FsError> {
        let name = name.to_owned();
        call!(self, |vfs, caller| vfs.remove(&caller, dir, name.as_bytes())).map(|_| ())
    }

    pub async fn rename(&self, from: (Handle, &str), to: (Handle, &str)) -> Result<(), FsError> {
        let ((from_dir, from), (to_dir, to)) = ((from.0, from.1.to_owned()), (to.0, to.1.to_owned()));
        call!(self, |vfs, caller| vfs.rename(&caller, (from_dir, from.as_bytes()), (to_dir, to.as_bytes()))).map(|_| ())
    }

    /// A page of a directory, and whether it is the last.
    pub async fn page(&self, dir: Handle, cookie: u64, entries_max: usize) -> Result<(Vec<DirEntry>, bool), FsError> {
        call!(self, |vfs, caller| vfs.readdir(&caller, dir, cookie, entries_max, true))
            .map(|page| (page.entries, page.end))
    }
}
