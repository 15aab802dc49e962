//! Directories, page by page: READDIR and READDIRPLUS.
//!
//! A client names the most bytes it takes. They are counted exactly, XDR overhead included, as RFC 1813 says (3.3.16 and
//! 3.3.17). Cookies are the file system's own and never change, so the cookie verifier is a constant.

use super::decode::{Decoder, Malformed};
use super::dispatch::{Place, Request, Service};
use super::rpc::Body;
use super::status::status_of;
use crate::fs::{DirEntry, FsError};
use nfs3_types::nfs3::{
    READDIR3resok, READDIRPLUS3resok, cookieverf3, dirlist3, dirlistplus3, entry3, entryplus3, filename3, nfsstat3,
    post_op_attr, post_op_fh3,
};
use nfs3_types::xdr_codec::{List, Opaque, Pack};
use storage::cloudfs::Attr;

/// The one cookie verifier.
const COOKIE_VERIFIER: cookieverf3 = cookieverf3(*b"steadfst");
/// Length of `READDIR3resok` and `READDIRPLUS3resok` with attributes but without an entry, in bytes:
/// attributes, verifier, end of list, end of directory.
const EMPTY_BYTES: usize = (4 + 84) + 8 + 4 + 4;
/// Length of an entry with an ordinary name, in bytes: how many are asked for at a time follows from it.
const ENTRY_BYTES_USUAL: usize = 4 + 8 + 4 + 16 + 8;
/// The same with attributes and handle.
const ENTRY_PLUS_BYTES_USUAL: usize = ENTRY_BYTES_USUAL + (4 + 84) + (4 + 4 + 28);

/// Entries that fit, and the directory they are of.
struct Page<T> {
    entries: Vec<T>,
    end: bool,
    attr: Attr,
}

/// Why there is no page.
enum NoPage {
    Failed(FsError),
    TooSmall,
}

/// What a page may hold, in bytes.
struct Budget {
    /// Names, ids and cookies.
    names: usize,
    /// The whole result.
    all: usize,
}

impl Budget {
    fn take(&mut self, names: usize, all: usize) -> bool {
        match (self.names.checked_sub(names), self.all.checked_sub(all)) {
            (Some(names), Some(all)) => {
                *self = Self { names, all };
                true
            }
            _ => false,
        }
    }
}

fn name_of(entry: &DirEntry) -> filename3<'static> {
    filename3(Opaque::owned(entry.name.to_vec()))
}

fn plain(entry: &DirEntry) -> entry3<'static> {
    entry3 { fileid: entry.ino, name: name_of(entry), cookie: entry.cookie }
}

impl Service {
    pub async fn readdir(&self, request: &Request, mut arguments: Decoder) -> Result<Body, Malformed> {
        let (handle, cookie, verifier) = (arguments.handle()?, arguments.u64()?, arguments.u64()?);
        let count = arguments.u32()?.min(self.settings.directory_bytes_max) as usize;
        let dir = match self.place(request, &handle) {
            Ok(dir) => dir,
            Err(status) => return Ok(Body::failed(status, &post_op_attr::None)),
        };
        let budget = Budget { names: usize::MAX, all: count };
        let page = self.page(&dir, cookie, verifier, budget, false, |entry| {
            let entry = plain(entry);
            let bytes = 4 + entry.packed_size();
            (entry, bytes, bytes)
        });
        Ok(match page.await {
            Ok(page) => Body::ok(&READDIR3resok {
                dir_attributes: self.post_op(&page.attr),
                cookieverf: COOKIE_VERIFIER,
                reply: dirlist3 { entries: List(page.entries), eof: page.end },
            }),
            Err(why) => self.no_page(&dir, why).await,
        })
    }

    pub async fn readdirplus(&self, request: &Request, mut arguments: Decoder) -> Result<Body, Malformed> {
        let (handle, cookie, verifier) = (arguments.handle()?, arguments.u64()?, arguments.u64()?);
        let names = arguments.u32()? as usize;
        let all = arguments.u32()?.min(self.settings.directory_bytes_max) as usize;
        let dir = match self.place(request, &handle) {
            Ok(dir) => dir,
            Err(status) => return Ok(Body::failed(status, &post_op_attr::None)),
        };
        // Clients that do not care for the first limit send 0.
        let budget = Budget { names: if names == 0 { usize::MAX } else { names }, all };
        let page = self.page(&dir, cookie, verifier, budget, true, |entry| {
            let names = 4 + plain(entry).packed_size();
            let entry = self.plus(&dir, entry);
            let all = 4 + entry.packed_size();
            (entry, names, all)
        });
        Ok(match page.await {
            Ok(page) => Body::ok(&READDIRPLUS3resok {
                dir_attributes: self.post_op(&page.attr),
                cookieverf: COOKIE_VERIFIER,
                reply: dirlistplus3 { entries: List(page.entries), eof: page.end },
            }),
            Err(why) => self.no_page(&dir, why).await,
        })
    }

    fn plus(&self, dir: &Place<'_>, entry: &DirEntry) -> entryplus3<'static> {
        // What lies above the export is not shown: `..` of its first directory would be that.
        let hidden = &entry.name[..] == b".." && !dir.export.is_root();
        let attr = entry.attr.as_ref().filter(|_| !hidden);
        entryplus3 {
            fileid: entry.ino,
            name: name_of(entry),
            cookie: entry.cookie,
            name_attributes: attr.map_or(post_op_attr::None, |attr| self.post_op(attr)),
            name_handle: attr.map_or(post_op_fh3::None, |attr| post_op_fh3::Some(self.handle(dir.export, attr.handle))),
        }
    }

    /// As many entries behind the cookie as fit. `form` gives an entry's form on the wire and its bytes.
    async fn page<T: Send>(
        &self,
        dir: &Place<'_>,
        mut cookie: u64,
        verifier: u64,
        mut budget: Budget,
        with_attributes: bool,
        form: impl Fn(&DirEntry) -> (T, usize, usize) + Send,
    ) -> Result<Page<T>, NoPage> {
        let known = verifier == u64::from_be_bytes(COOKIE_VERIFIER.0) || verifier == 0;
        if cookie != 0 && !known {
            return Err(NoPage::Failed(FsError::BadCookie));
        }
        if !budget.take(0, EMPTY_BYTES) {
            return Err(NoPage::TooSmall);
        }
        let usual = if with_attributes { ENTRY_PLUS_BYTES_USUAL } else { ENTRY_BYTES_USUAL };
        let mut entries = Vec::new();
        loop {
            let entries_max = budget.all / usual + 1;
            let page = self.fs.readdir(&dir.caller, dir.file, cookie, entries_max, with_attributes).await;
            let page = page.map_err(NoPage::Failed)?;
            let stuck = page.entries.is_empty() && !page.end;
            for entry in &page.entries {
                let (entry_on_wire, names, all) = form(entry);
                if !budget.take(names, all) {
                    if entries.is_empty() {
                        return Err(NoPage::TooSmall);
                    }
                    return Ok(Page { entries, end: false, attr: page.attr });
                }
                entries.push(entry_on_wire);
                cookie = entry.cookie;
            }
            if page.end || stuck {
                return Ok(Page { entries, end: page.end, attr: page.attr });
            }
        }
    }

    async fn no_page(&self, dir: &Place<'_>, why: NoPage) -> Body {
        match why {
            NoPage::TooSmall => Body::failed(nfsstat3::NFS3ERR_TOOSMALL, &self.post_op_now(dir).await),
            NoPage::Failed(error) => Body::failed(status_of(&error), &self.post_op_at(dir, &error).await),
        }
    }
}
