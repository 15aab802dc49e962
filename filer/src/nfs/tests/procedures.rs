//! Every NFS procedure, and how it fails.

use super::client::{Client, Site, at, user};
use nfs3_types::nfs3::*;
use nfs3_types::xdr_codec::{Opaque, Void};
use std::sync::atomic::Ordering;

async fn open() -> (Site, Client, nfs_fh3) {
    let site = Site::open().await;
    let mut client = site.client().await;
    let root = client.mount("/").await.expect("exported");
    (site, client, root)
}

fn mode(mode: u32) -> sattr3 {
    sattr3 { mode: set_mode3::Some(mode), ..sattr3::default() }
}

async fn create(client: &mut Client, dir: &nfs_fh3, name: &str, how: createhow3) -> CREATE3res {
    client.nfs(NFS_PROGRAM::NFSPROC3_CREATE, &CREATE3args { where_: at(dir, name), how }).await
}

async fn write(client: &mut Client, file: &nfs_fh3, offset: u64, data: &[u8], stable: stable_how) -> WRITE3res {
    let count = u32::try_from(data.len()).expect("short");
    let args = WRITE3args { file: file.clone(), offset, count, stable, data: Opaque::borrowed(data) };
    client.nfs(NFS_PROGRAM::NFSPROC3_WRITE, &args).await
}

async fn read(client: &mut Client, file: &nfs_fh3, offset: u64, count: u32) -> READ3res<'static> {
    client.nfs(NFS_PROGRAM::NFSPROC3_READ, &READ3args { file: file.clone(), offset, count }).await
}

async fn lookup(client: &mut Client, dir: &nfs_fh3, name: &str) -> LOOKUP3res {
    client.nfs(NFS_PROGRAM::NFSPROC3_LOOKUP, &LOOKUP3args { what: at(dir, name) }).await
}

/// The status and what it carries.
fn failed<T, E>(result: Nfs3Result<T, E>) -> (nfsstat3, E) {
    match result {
        Nfs3Result::Ok(_) => panic!("no failure"),
        Nfs3Result::Err(failure) => failure,
    }
}

/// A change with both sides, which differ in their ctime.
fn assert_changed(wcc: wcc_data) {
    let (before, after) = (wcc.before.unwrap(), wcc.after.unwrap());
    assert!(after.ctime.nseconds > before.ctime.nseconds || after.ctime.seconds > before.ctime.seconds);
}

#[tokio::test]
async fn data_is_written_committed_and_read() {
    let (site, mut client, root) = open().await;
    let made = create(&mut client, &root, "f", createhow3::UNCHECKED(mode(0o640))).await.unwrap();
    assert_eq!(made.obj_attributes.unwrap().mode, 0o640);
    assert_changed(made.dir_wcc);
    let file = made.obj.unwrap();

    let written = write(&mut client, &file, 3, b"hello", stable_how::UNSTABLE).await.unwrap();
    assert_eq!((written.count, written.committed), (5, stable_how::UNSTABLE));
    assert_eq!(written.verf.0, 0x1122_3344_5566_7788u64.to_be_bytes());
    assert_eq!(written.file_wcc.after.clone().unwrap().size, 8);
    assert_changed(written.file_wcc);
    let written = write(&mut client, &file, 8, b"!", stable_how::FILE_SYNC).await.unwrap();
    assert_eq!(written.committed, stable_how::FILE_SYNC);

    site.memory.verifier.store(9, Ordering::SeqCst);
    let args = COMMIT3args { file: file.clone(), offset: 0, count: 0 };
    let committed: COMMIT3res = client.nfs(NFS_PROGRAM::NFSPROC3_COMMIT, &args).await;
    let committed = committed.unwrap();
    assert_eq!(committed.verf.0, 9u64.to_be_bytes());
    assert_eq!(committed.file_wcc.after.unwrap().size, 9);

    let got = read(&mut client, &file, 2, 5).await.unwrap();
    assert_eq!((&got.data[..], got.count, got.eof), (&b"\0hell"[..], 5, false));
    let got = read(&mut client, &file, 7, 100).await.unwrap();
    assert_eq!((&got.data[..], got.count, got.eof), (&b"o!"[..], 2, true));
    assert_eq!(got.file_attributes.unwrap().size, 9);
    let got = read(&mut client, &file, 99, 1).await.unwrap();
    assert_eq!((got.count, got.eof), (0, true));

    // Lengths of all paddings.
    for len in 0..9 {
        let data: Vec<u8> = (0..len).collect();
        write(&mut client, &file, 0, &data, stable_how::DATA_SYNC).await.unwrap();
        assert_eq!(read(&mut client, &file, 0, u32::from(len)).await.unwrap().data.to_vec(), data);
    }
    let stats = site.server.stats();
    assert_eq!((stats.written_bytes, stats.calls["write"], stats.calls["commit"]), (6 + 36, 11, 1));
}

#[tokio::test]
async fn transfers_are_cut_at_their_settings() {
    let (_site, mut client, root) = open().await;
    let file = create(&mut client, &root, "f", createhow3::UNCHECKED(mode(0o600))).await.unwrap().obj.unwrap();
    let data: Vec<u8> = (0..(1 << 20) + 4096).map(|byte: u32| byte as u8).collect();
    let written = write(&mut client, &file, 0, &data, stable_how::UNSTABLE).await.unwrap();
    assert_eq!(written.count, 1 << 20);
    write(&mut client, &file, 1 << 20, &data[1 << 20..], stable_how::UNSTABLE).await.unwrap();
    let got = read(&mut client, &file, 0, u32::MAX).await.unwrap();
    assert_eq!((got.count, got.eof), (1 << 20, false));
    assert!(got.data[..] == data[..1 << 20]);
}

#[tokio::test]
async fn writes_and_reads_fail_with_attributes() {
    let (_site, mut client, root) = open().await;
    let file = create(&mut client, &root, "f", createhow3::UNCHECKED(mode(0o600))).await.unwrap().obj.unwrap();
    let (status, fail) = failed(write(&mut client, &file, 1 << 44, b"x", stable_how::UNSTABLE).await);
    assert_eq!((status, fail.file_wcc.after.is_some()), (nfsstat3::NFS3ERR_FBIG, true));
    let (status, _) = failed(write(&mut client, &file, u64::MAX, b"x", stable_how::UNSTABLE).await);
    assert_eq!(status, nfsstat3::NFS3ERR_FBIG);
    let args = WRITE3args {
        file: file.clone(),
        offset: 0,
        count: 2,
        stable: stable_how::UNSTABLE,
        data: Opaque::borrowed(b"x"),
    };
    let (status, _) = failed::<WRITE3resok, WRITE3resfail>(client.nfs(NFS_PROGRAM::NFSPROC3_WRITE, &args).await);
    assert_eq!(status, nfsstat3::NFS3ERR_INVAL);
    let (status, fail) = failed(read(&mut client, &root, 0, 1).await);
    assert_eq!((status, fail.file_attributes.is_some()), (nfsstat3::NFS3ERR_ISDIR, true));
    client.credentials = user(5, vec![]);
    assert_eq!(failed(read(&mut client, &file, 0, 1).await).0, nfsstat3::NFS3ERR_ACCES);
    assert_eq!(failed(write(&mut client, &file, 0, b"x", stable_how::UNSTABLE).await).0, nfsstat3::NFS3ERR_ACCES);
}

#[tokio::test]
async fn creates_differ_by_how() {
    let (site, mut client, root) = open().await;
    let exclusive = |byte| createhow3::EXCLUSIVE(createverf3([byte; 8]));
    let first = create(&mut client, &root, "f", exclusive(1)).await.unwrap().obj.unwrap();
    // The same create, come again: the same file, whatever its xid.
    assert_eq!(create(&mut client, &root, "f", exclusive(1)).await.unwrap().obj.unwrap(), first);
    assert_eq!(failed(create(&mut client, &root, "f", exclusive(2)).await).0, nfsstat3::NFS3ERR_EXIST);
    let (status, fail) = failed(create(&mut client, &root, "f", createhow3::GUARDED(mode(0o600))).await);
    assert_eq!((status, fail.dir_wcc.after.is_some()), (nfsstat3::NFS3ERR_EXIST, true));
    write(&mut client, &first, 0, b"data", stable_how::UNSTABLE).await.unwrap();
    let truncate = createhow3::UNCHECKED(sattr3 { size: set_size3::Some(0), ..sattr3::default() });
    let again = create(&mut client, &root, "f", truncate).await.unwrap();
    assert_eq!((again.obj.unwrap(), again.obj_attributes.unwrap().size), (first, 0));
    for (name, status) in
        [("..", nfsstat3::NFS3ERR_EXIST), ("", nfsstat3::NFS3ERR_INVAL), ("a/b", nfsstat3::NFS3ERR_INVAL)]
    {
        assert_eq!(failed(create(&mut client, &root, name, exclusive(3)).await).0, status);
    }
    let long = "n".repeat(256);
    assert_eq!(failed(create(&mut client, &root, &long, exclusive(3)).await).0, nfsstat3::NFS3ERR_NAMETOOLONG);
    create(&mut client, &root, &long[1..], exclusive(3)).await.unwrap();
    assert_eq!(site.server.stats().errors["NFS3ERR_EXIST"], 3);
}

#[tokio::test]
async fn attributes_are_read_and_set() {
    let (_site, mut client, root) = open().await;
    let file = create(&mut client, &root, "f", createhow3::UNCHECKED(mode(0o600))).await.unwrap().obj.unwrap();
    let mtime = nfstime3 { seconds: 1_700_000_000, nseconds: 999_999_999 };
    let new_attributes = sattr3 {
        mode: set_mode3::Some(0o100_4755),
        uid: set_uid3::Some(5),
        gid: set_gid3::Some(6),
        size: set_size3::Some(10),
        atime: set_atime::SET_TO_SERVER_TIME,
        mtime: set_mtime::SET_TO_CLIENT_TIME(mtime),
    };
    let args = SETATTR3args { object: file.clone(), new_attributes, guard: sattrguard3::None };
    let set: SETATTR3res = client.nfs(NFS_PROGRAM::NFSPROC3_SETATTR, &args).await;
    assert_changed(set.unwrap().obj_wcc);
    let attr: GETATTR3res = client.nfs(NFS_PROGRAM::NFSPROC3_GETATTR, &GETATTR3args { object: file.clone() }).await;
    let attr = attr.unwrap().obj_attributes;
    assert_eq!((attr.type_, attr.mode, attr.uid, attr.gid, attr.size), (ftype3::NF3REG, 0o4755, 5, 6, 10));
    assert_eq!((attr.mtime, attr.fsid, attr.nlink), (mtime, super::client::CLOUDFS, 1));

    let guarded =
        |ctime| SETATTR3args { object: file.clone(), new_attributes: mode(0o600), guard: sattrguard3::Some(ctime) };
    let set: SETATTR3res = client.nfs(NFS_PROGRAM::NFSPROC3_SETATTR, &guarded(mtime)).await;
    let (status, fail) = failed(set);
    assert_eq!((status, fail.obj_wcc.after.is_some()), (nfsstat3::NFS3ERR_NOT_SYNC, true));
    let set: SETATTR3res = client.nfs(NFS_PROGRAM::NFSPROC3_SETATTR, &guarded(attr.ctime)).await;
    set.unwrap();

    client.credentials = user(9, vec![6]);
    let args = SETATTR3args { object: file.clone(), new_attributes: mode(0o777), guard: sattrguard3::None };
    assert_eq!(
        failed::<SETATTR3resok, SETATTR3resfail>(client.nfs(NFS_PROGRAM::NFSPROC3_SETATTR, &args).await).0,
        nfsstat3::NFS3ERR_PERM
    );
    let access: ACCESS3res =
        client.nfs(NFS_PROGRAM::NFSPROC3_ACCESS, &ACCESS3args { object: file, access: u32::MAX }).await;
    assert_eq!(access.unwrap().access, 0);
    let access: ACCESS3res = client
        .nfs(NFS_PROGRAM::NFSPROC3_ACCESS, &ACCESS3args { object: root, access: ACCESS3_READ | ACCESS3_LOOKUP })
        .await;
    assert_eq!(access.unwrap().access, ACCESS3_READ | ACCESS3_LOOKUP);
}

#[tokio::test]
async fn names_are_looked_up() {
    let (_site, mut client, root) = open().await;
    let made = create(&mut client, &root, "f", createhow3::UNCHECKED(mode(0o600))).await.unwrap();
    let file = made.obj.unwrap();
    let found = lookup(&mut client, &root, "f").await.unwrap();
    assert_eq!(found.object, file);
    assert_eq!(found.dir_attributes.unwrap().type_, ftype3::NF3DIR);
    assert_eq!(found.obj_attributes.unwrap().fileid, made.obj_attributes.unwrap().fileid);
    assert_eq!(lookup(&mut client, &root, "..").await.unwrap().object, root);
    let (status, fail) = failed(lookup(&mut client, &root, "none").await);
    assert_eq!((status, fail.dir_attributes.is_some()), (nfsstat3::NFS3ERR_NOENT, true));
    assert_eq!(failed(lookup(&mut client, &file, "x").await).0, nfsstat3::NFS3ERR_NOTDIR);
}

#[tokio::test]
async fn links_devices_and_directories_are_made() {
    let (_site, mut client, root) = open().await;
    let args = MKDIR3args { where_: at(&root, "d"), attributes: mode(0o750) };
    let made: MKDIR3res = client.nfs(NFS_PROGRAM::NFSPROC3_MKDIR, &args).await;
    let made = made.unwrap();
    assert_eq!(made.obj_attributes.unwrap().type_, ftype3::NF3DIR);
    assert_changed(made.dir_wcc);
    let dir = made.obj.unwrap();

    let symlink = |name: &'static str, target: Vec<u8>| SYMLINK3args {
        where_: at(&dir, name),
        symlink: symlinkdata3 { symlink_attributes: mode(0o777), symlink_data: target.into() },
    };
    let made: SYMLINK3res = client.nfs(NFS_PROGRAM::NFSPROC3_SYMLINK, &symlink("s", b"../target".to_vec())).await;
    let link = made.unwrap().obj.unwrap();
    let target: READLINK3res<'_> = client.nfs(NFS_PROGRAM::NFSPROC3_READLINK, &READLINK3args { symlink: link }).await;
    let target = target.unwrap();
    assert_eq!(target.data.as_ref(), b"../target");
    assert_eq!(target.symlink_attributes.unwrap().type_, ftype3::NF3LNK);
    let made: SYMLINK3res = client.nfs(NFS_PROGRAM::NFSPROC3_SYMLINK, &symlink("l", vec![b'x'; 4097])).await;
    assert_eq!(failed(made).0, nfsstat3::NFS3ERR_NAMETOOLONG);
    let target: READLINK3res<'_> =
        client.nfs(NFS_PROGRAM::NFSPROC3_READLINK, &READLINK3args { symlink: dir.clone() }).await;
    assert_eq!(failed(target).0, nfsstat3::NFS3ERR_INVAL);

    let device = || devicedata3 { dev_attributes: mode(0o600), spec: specdata3 { specdata1: 8, specdata2: 1 } };
    for (name, what, type_) in [
        ("chr", mknoddata3::NF3CHR(device()), ftype3::NF3CHR),
        ("blk", mknoddata3::NF3BLK(device()), ftype3::NF3BLK),
        ("sock", mknoddata3::NF3SOCK(mode(0o600)), ftype3::NF3SOCK),
        ("fifo", mknoddata3::NF3FIFO(mode(0o600)), ftype3::NF3FIFO),
    ] {
        let args = MKNOD3args { where_: at(&dir, name), what };
        let made: MKNOD3res = client.nfs(NFS_PROGRAM::NFSPROC3_MKNOD, &args).await;
        let attr = made.unwrap().obj_attributes.unwrap();
        let expected = if name.len() == 3 { (8, 1) } else { (0, 0) };
        assert_eq!((attr.type_, attr.rdev.specdata1, attr.rdev.specdata2), (type_, expected.0, expected.1));
    }
    // MKNOD of a directory: a handle, a name and the type alone.
    let args = entry_of_type(&dir, "x", ftype3::NF3DIR);
    let made: MKNOD3res = client.nfs(NFS_PROGRAM::NFSPROC3_MKNOD, &args).await;
    assert_eq!(failed(made).0, nfsstat3::NFS3ERR_BADTYPE);
}

#[derive(nfs3_types::xdr_codec::XdrCodec)]
struct TypeOnly<'a> {
    place: diropargs3<'a>,
    type_: ftype3,
}

fn entry_of_type<'a>(dir: &nfs_fh3, name: &'a str, type_: ftype3) -> TypeOnly<'a> {
    TypeOnly { place: at(dir, name), type_ }
}

#[tokio::test]
async fn names_are_linked_renamed_and_removed() {
    let (_site, mut client, root) = open().await;
    let file = create(&mut client, &root, "f", createhow3::UNCHECKED(mode(0o600))).await.unwrap().obj.unwrap();
    let args = MKDIR3args { where_: at(&root, "d"), attributes: mode(0o750) };
    let made: MKDIR3res = client.nfs(NFS_PROGRAM::NFSPROC3_MKDIR, &args).await;
    let dir = made.unwrap().obj.unwrap();

    let link = |file: &nfs_fh3, name| LINK3args { file: file.clone(), link: at(&dir, name) };
    let linked: LINK3res = client.nfs(NFS_PROGRAM::NFSPROC3_LINK, &link(&file, "g")).await;
    let linked = linked.unwrap();
    assert_eq!(linked.file_attributes.unwrap().nlink, 2);
    assert_changed(linked.linkdir_wcc);
    let again: LINK3res = client.nfs(NFS_PROGRAM::NFSPROC3_LINK, &link(&file, "g")).await;
    let (status, fail) = failed(again);
    assert_eq!(status, nfsstat3::NFS3ERR_EXIST);
    assert!(fail.file_attributes.is_some() && fail.linkdir_wcc.after.is_some());

    let rename = |from, to| RENAME3args { from: at(&root, from), to: at(&dir, to) };
    let renamed: RENAME3res = client.nfs(NFS_PROGRAM::NFSPROC3_RENAME, &rename("f", "h")).await;
    let renamed = renamed.unwrap();
    assert_changed(renamed.fromdir_wcc);
    assert_changed(renamed.todir_wcc);
    assert_eq!(lookup(&mut client, &dir, "h").await.unwrap().object, file);
    let renamed: RENAME3res = client.nfs(NFS_PROGRAM::NFSPROC3_RENAME, &rename("f", "h")).await;
    let (status, fail) = failed(renamed);
    assert_eq!(status, nfsstat3::NFS3ERR_NOENT);
    assert!(fail.fromdir_wcc.after.is_some() && fail.todir_wcc.after.is_some());
    let renamed: RENAME3res = client.nfs(NFS_PROGRAM::NFSPROC3_RENAME, &rename(".", "h")).await;
    assert_eq!(failed(renamed).0, nfsstat3::NFS3ERR_INVAL);

    let remove = |dir: &nfs_fh3, name| REMOVE3args { object: at(dir, name) };
    let rmdir = |dir: &nfs_fh3, name| RMDIR3args { object: at(dir, name) };
    let removed: REMOVE3res = client.nfs(NFS_PROGRAM::NFSPROC3_REMOVE, &remove(&root, "d")).await;
    assert_eq!(failed(removed).0, nfsstat3::NFS3ERR_ISDIR);
    let removed: RMDIR3res = client.nfs(NFS_PROGRAM::NFSPROC3_RMDIR, &rmdir(&root, "d")).await;
    let (status, fail) = failed(removed);
    assert_eq!((status, fail.dir_wcc.after.is_some()), (nfsstat3::NFS3ERR_NOTEMPTY, true));
    let removed: RMDIR3res = client.nfs(NFS_PROGRAM::NFSPROC3_RMDIR, &rmdir(&dir, "h")).await;
    assert_eq!(failed(removed).0, nfsstat3::NFS3ERR_NOTDIR);
    for name in ["g", "h"] {
        let removed: REMOVE3res = client.nfs(NFS_PROGRAM::NFSPROC3_REMOVE, &remove(&dir, name)).await;
        assert_changed(removed.unwrap().dir_wcc);
    }
    let removed: RMDIR3res = client.nfs(NFS_PROGRAM::NFSPROC3_RMDIR, &rmdir(&root, "d")).await;
    assert_changed(removed.unwrap().dir_wcc);
    let gone: GETATTR3res = client.nfs(NFS_PROGRAM::NFSPROC3_GETATTR, &GETATTR3args { object: file }).await;
    assert_eq!(failed(gone).0, nfsstat3::NFS3ERR_STALE);
}

#[tokio::test]
async fn the_file_system_describes_itself() {
    let (_site, mut client, root) = open().await;
    let _: Void = client.nfs(NFS_PROGRAM::NFSPROC3_NULL, &Void).await;
    let info: FSINFO3res = client.nfs(NFS_PROGRAM::NFSPROC3_FSINFO, &FSINFO3args { fsroot: root.clone() }).await;
    let info = info.unwrap();
    assert_eq!((info.rtmax, info.wtmax, info.rtpref, info.wtpref), (1 << 20, 1 << 20, 1 << 20, 1 << 20));
    assert_eq!(info.properties, FSF3_LINK | FSF3_SYMLINK | FSF3_HOMOGENEOUS | FSF3_CANSETTIME);
    assert_eq!(info.time_delta, nfstime3 { seconds: 0, nseconds: 1 });
    let stat: FSSTAT3res = client.nfs(NFS_PROGRAM::NFSPROC3_FSSTAT, &FSSTAT3args { fsroot: root.clone() }).await;
    let stat = stat.unwrap();
    assert_eq!((stat.tbytes, stat.abytes, stat.ffiles), (1 << 50, 1 << 49, 1 << 39));
    let conf: PATHCONF3res = client.nfs(NFS_PROGRAM::NFSPROC3_PATHCONF, &PATHCONF3args { object: root }).await;
    let conf = conf.unwrap();
    assert!(conf.name_max == 255 && conf.no_trunc && conf.chown_restricted && !conf.case_insensitive);
}

#[tokio::test]
async fn later_is_jukebox_everywhere() {
    let (site, mut client, root) = open().await;
    let file = create(&mut client, &root, "f", createhow3::UNCHECKED(mode(0o600))).await.unwrap().obj.unwrap();
    site.memory.later.store(true, Ordering::SeqCst);
    let (status, fail) = failed(read(&mut client, &file, 0, 1).await);
    assert_eq!((status, fail.file_attributes.is_none()), (nfsstat3::NFS3ERR_JUKEBOX, true));
    assert_eq!(failed(write(&mut client, &file, 0, b"x", stable_how::UNSTABLE).await).0, nfsstat3::NFS3ERR_JUKEBOX);
    assert_eq!(failed(lookup(&mut client, &root, "f").await).0, nfsstat3::NFS3ERR_JUKEBOX);
    let info: FSINFO3res = client.nfs(NFS_PROGRAM::NFSPROC3_FSINFO, &FSINFO3args { fsroot: root }).await;
    assert_eq!(failed(info).0, nfsstat3::NFS3ERR_JUKEBOX);
}
