//! READDIR and READDIRPLUS within the client's byte limits.

use super::client::{Client, Site, packed};
use nfs3_types::nfs3::*;
use nfs3_types::xdr_codec::Pack;
use std::collections::BTreeSet;
use storage::cloudfs::ROOT;

const FILES: usize = 1100;

async fn full_site() -> (Site, Client, nfs_fh3) {
    let site = Site::open().await;
    let big = site.memory.add_directory(ROOT, "big", 0o755);
    for index in 0..FILES {
        // Names of 1 to 40 bytes, so that padding and limits meet in all ways.
        site.memory.add_directory(big, &format!("{index:x}{}", "n".repeat(index % 37)), 0o700);
    }
    let mut client = site.client().await;
    let dir = client.mount("/big").await.expect("exported");
    (site, client, dir)
}

async fn readdir(
    client: &mut Client,
    dir: &nfs_fh3,
    cookie: u64,
    cookieverf: cookieverf3,
    count: u32,
) -> READDIR3res<'static> {
    let args = READDIR3args { dir: dir.clone(), cookie, cookieverf, count };
    client.nfs(NFS_PROGRAM::NFSPROC3_READDIR, &args).await
}

async fn readdirplus(
    client: &mut Client,
    dir: &nfs_fh3,
    cookie: u64,
    cookieverf: cookieverf3,
    counts: (u32, u32),
) -> READDIRPLUS3res<'static> {
    let args = READDIRPLUS3args { dir: dir.clone(), cookie, cookieverf, dircount: counts.0, maxcount: counts.1 };
    client.nfs(NFS_PROGRAM::NFSPROC3_READDIRPLUS, &args).await
}

#[tokio::test]
async fn readdir_pages_hold_all_entries_once_and_are_as_full_as_can_be() {
    let (_site, mut client, dir) = full_site().await;
    for count in [180, 512, 1000, 8192, 1 << 20] {
        let (mut names, mut cookie, mut verifier) = (BTreeSet::new(), 0, cookieverf3::default());
        let mut full: Option<usize> = None;
        loop {
            let page = readdir(&mut client, &dir, cookie, verifier, count).await.unwrap();
            let bytes = page.packed_size();
            assert!(bytes <= count as usize && !page.reply.entries.is_empty());
            if let Some(full) = full {
                // The first entry of this page did not fit the page before.
                assert!(full + 4 + page.reply.entries.0[0].packed_size() > count as usize);
            }
            verifier = page.cookieverf;
            for entry in &page.reply.entries.0 {
                assert!(entry.cookie > cookie && names.insert(entry.name.0.to_vec()));
                cookie = entry.cookie;
            }
            if page.reply.eof {
                break;
            }
            full = Some(bytes);
        }
        assert_eq!(names.len(), FILES + 2);
    }
}

#[tokio::test]
async fn readdirplus_pages_honour_both_limits() {
    let (_site, mut client, dir) = full_site().await;
    for (dircount, maxcount) in [(0, 340), (200, 4096), (512, 1 << 20), (8192, 2000), (1 << 20, 1 << 20)] {
        let (mut names, mut cookie, mut verifier) = (BTreeSet::new(), 0, cookieverf3::default());
        let mut full: Option<(usize, usize)> = None;
        loop {
            let page = readdirplus(&mut client, &dir, cookie, verifier, (dircount, maxcount)).await.unwrap();
            let dir_bytes = |entry: &entryplus3<'_>| 4 + 8 + packed(&entry.name).len() + 8;
            let listed: usize = page.reply.entries.0.iter().map(dir_bytes).sum();
            let limit = if dircount == 0 { u32::MAX } else { dircount } as usize;
            assert!(listed <= limit && page.packed_size() <= maxcount as usize && !page.reply.entries.is_empty());
            if let Some((listed, bytes)) = full {
                let next = &page.reply.entries.0[0];
                assert!(listed + dir_bytes(next) > limit || bytes + 4 + next.packed_size() > maxcount as usize);
            }
            verifier = page.cookieverf;
            for entry in &page.reply.entries.0 {
                assert!(entry.cookie > cookie && names.insert(entry.name.0.to_vec()));
                let attr = entry.name_attributes.clone().unwrap();
                assert_eq!((attr.fileid, entry.name_handle.is_some()), (entry.fileid, true));
                cookie = entry.cookie;
            }
            if page.reply.eof {
                break;
            }
            full = Some((listed, page.packed_size()));
        }
        assert_eq!(names.len(), FILES + 2);
    }
}

#[tokio::test]
async fn limits_below_one_entry_are_too_small() {
    let (_site, mut client, dir) = full_site().await;
    let none = cookieverf3::default();
    // 104 bytes without an entry; "." takes 28 more, or 172 with attributes and handle.
    for (count, fits) in [(0, false), (104, false), (131, false), (132, true)] {
        match readdir(&mut client, &dir, 0, none, count).await {
            READDIR3res::Ok(page) => assert!(fits && page.reply.entries.0.len() == 1),
            READDIR3res::Err((status, _)) => assert!(!fits && status == nfsstat3::NFS3ERR_TOOSMALL),
        }
    }
    for (counts, fits) in
        [((0, 0), false), ((0, 275), false), ((0, 276), true), ((27, 4096), false), ((28, 4096), true)]
    {
        match readdirplus(&mut client, &dir, 0, none, counts).await {
            READDIRPLUS3res::Ok(page) => assert!(fits && page.reply.entries.0.len() == 1),
            READDIRPLUS3res::Err((status, _)) => assert!(!fits && status == nfsstat3::NFS3ERR_TOOSMALL),
        }
    }
}

#[tokio::test]
async fn cookies_go_on_behind_removed_entries_and_wrong_ones_are_refused() {
    let (_site, mut client, dir) = full_site().await;
    let page = readdir(&mut client, &dir, 0, cookieverf3::default(), 1000).await.unwrap();
    let [.., before, last] = &page.reply.entries.0[..] else { panic!("a full page") };
    let object = diropargs3 { dir: dir.clone(), name: last.name.clone() };
    let removed: RMDIR3res = client.nfs(NFS_PROGRAM::NFSPROC3_RMDIR, &RMDIR3args { object }).await;
    removed.unwrap();
    let next = readdir(&mut client, &dir, last.cookie, page.cookieverf, 1000).await.unwrap();
    let same = readdir(&mut client, &dir, before.cookie, page.cookieverf, 1000).await.unwrap();
    assert_eq!(next.reply.entries.0, same.reply.entries.0);

    let wrong = cookieverf3(*b"whatever");
    let refused = readdir(&mut client, &dir, last.cookie, wrong, 1000).await;
    assert!(matches!(refused, READDIR3res::Err((nfsstat3::NFS3ERR_BAD_COOKIE, _))));
    let refused = readdirplus(&mut client, &dir, u64::MAX, page.cookieverf, (0, 1000)).await;
    assert!(matches!(refused, READDIRPLUS3res::Err((nfsstat3::NFS3ERR_BAD_COOKIE, _))));
    // The tree numbers its entries from 3, and the directory itself was the first.
    let end = readdir(&mut client, &dir, FILES as u64 + 3, page.cookieverf, 200).await.unwrap();
    assert!(end.reply.eof && end.reply.entries.is_empty());
}
