//! Calls of one kind that wait keep no other kind from being answered, and none takes memory before it has room.

use super::client::{Client, Site, at, record, unpacked, unsquashed, xid_next};
use crate::nfs::NfsSettings;
use nfs3_types::nfs3::{self, *};
use nfs3_types::xdr_codec::{Opaque, Pack};
use std::sync::atomic::Ordering;

const NFS: (u32, u32) = (nfs3::PROGRAM, nfs3::VERSION);

async fn make_file(client: &mut Client, root: &nfs_fh3, name: &str) -> nfs_fh3 {
    let how = createhow3::GUARDED(sattr3::default());
    let made: CREATE3res = client.nfs(NFS_PROGRAM::NFSPROC3_CREATE, &CREATE3args { where_: at(root, name), how }).await;
    match made.unwrap().obj {
        post_op_fh3::Some(file) => file,
        post_op_fh3::None => panic!("a new file has a handle"),
    }
}

fn write_of(file: &nfs_fh3, bytes: usize) -> WRITE3args<'static> {
    let data = Opaque::owned(vec![7; bytes]);
    WRITE3args { file: file.clone(), offset: 0, count: bytes as u32, stable: stable_how::UNSTABLE, data }
}

async fn begin(client: &mut Client, procedure: NFS_PROGRAM, arguments: &impl Pack) -> u32 {
    let xid = xid_next();
    let call = client.call(xid, NFS, procedure as u32, arguments);
    client.send(&record(&call)).await;
    xid
}

/// Reads wait for a dead cloud, on the connection that all of a client's calls share.
#[tokio::test]
async fn reads_that_wait_keep_nobody_from_writing_changing_and_looking() {
    let settings = NfsSettings { calls_in_flight_max: 2, admission_ms_max: 20, ..NfsSettings::default() };
    let site = Site::with(settings, vec![unsquashed("/")]).await;
    let mut client = site.client().await;
    let root = client.mount("/").await.expect("exported");
    let file = make_file(&mut client, &root, "a").await;
    site.memory.reads.on.store(true, Ordering::SeqCst);
    let read = READ3args { file: file.clone(), offset: 0, count: 1 << 20 };
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(begin(&mut client, NFS_PROGRAM::NFSPROC3_READ, &read).await);
        site.memory.reads.held.notified().await;
    }
    for _ in 0..10 {
        let later: READ3res = client.nfs(NFS_PROGRAM::NFSPROC3_READ, &read).await;
        assert!(matches!(later, READ3res::Err((nfsstat3::NFS3ERR_JUKEBOX, _))));
    }
    let written: WRITE3res = client.nfs(NFS_PROGRAM::NFSPROC3_WRITE, &write_of(&file, 100_000)).await;
    assert_eq!(written.unwrap().count, 100_000);
    let found: GETATTR3res = client.nfs(NFS_PROGRAM::NFSPROC3_GETATTR, &GETATTR3args { object: file.clone() }).await;
    found.unwrap();
    make_file(&mut client, &root, "b").await;
    let stats = site.server.stats();
    assert_eq!(stats.turned_away["read"], 10);
    assert!(stats.bytes_in_flight["read"] >= 2 << 20, "{stats:?}");
    site.memory.reads.go.add_permits(2);
    for _ in 0..2 {
        let (xid, result) = client.receive().await;
        assert!(held.contains(&xid));
        unpacked::<READ3res>(&result.expect("accepted")).unwrap();
    }
    site.memory.reads.on.store(false, Ordering::SeqCst);
    let read: READ3res = client.nfs(NFS_PROGRAM::NFSPROC3_READ, &read).await;
    assert_eq!(read.unwrap().count, 100_000, "there is room again");
}

/// One client's writes fill the room for all; another's is told to come later before its data is taken.
#[tokio::test]
async fn a_long_write_without_room_is_told_to_come_later_and_its_connection_goes_on() {
    let settings = NfsSettings {
        write_bytes_in_flight_max: 4 << 20,
        connection_bytes_in_flight_max: 4 << 20,
        admission_ms_max: 20,
        ..NfsSettings::default()
    };
    let site = Site::with(settings, vec![unsquashed("/")]).await;
    let (mut first, mut second) = (site.client().await, site.client().await);
    let root = first.mount("/").await.expect("exported");
    let file = make_file(&mut first, &root, "a").await;
    site.memory.writes.on.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        begin(&mut first, NFS_PROGRAM::NFSPROC3_WRITE, &write_of(&file, 1 << 20)).await;
        site.memory.writes.held.notified().await;
    }
    for _ in 0..3 {
        let later: WRITE3res = second.nfs(NFS_PROGRAM::NFSPROC3_WRITE, &write_of(&file, 1 << 20)).await;
        assert!(matches!(later, WRITE3res::Err((nfsstat3::NFS3ERR_JUKEBOX, _))));
        let found: GETATTR3res =
            second.nfs(NFS_PROGRAM::NFSPROC3_GETATTR, &GETATTR3args { object: root.clone() }).await;
        found.unwrap();
    }
    assert_eq!(site.server.stats().turned_away["write"], 3);
    site.memory.writes.go.add_permits(4);
    for _ in 0..3 {
        unpacked::<WRITE3res>(&first.receive().await.1.expect("accepted")).unwrap();
    }
    let written: WRITE3res = second.nfs(NFS_PROGRAM::NFSPROC3_WRITE, &write_of(&file, 1 << 20)).await;
    assert_eq!(written.unwrap().count, 1 << 20);
    assert_eq!(site.server.stats().bytes_in_flight["write"], 0);
}

/// Changes that wait for their outcome fill their own room alone, and one that was turned away never runs.
#[tokio::test]
async fn changes_that_wait_keep_nobody_from_looking_and_one_turned_away_never_runs() {
    let settings = NfsSettings { calls_in_flight_max: 1, admission_ms_max: 20, ..NfsSettings::default() };
    let site = Site::with(settings, vec![unsquashed("/")]).await;
    let mut client = site.client().await;
    let root = client.mount("/").await.expect("exported");
    make_file(&mut client, &root, "a").await;
    site.memory.hold_removes.store(true, Ordering::SeqCst);
    let waits = begin(&mut client, NFS_PROGRAM::NFSPROC3_REMOVE, &REMOVE3args { object: at(&root, "a") }).await;
    site.memory.removes_held.notified().await;
    let create = CREATE3args { where_: at(&root, "b"), how: createhow3::GUARDED(sattr3::default()) };
    let call = record(&client.call(xid_next(), NFS, NFS_PROGRAM::NFSPROC3_CREATE as u32, &create));
    client.send(&call).await;
    let later: CREATE3res = unpacked(&client.receive().await.1.expect("accepted"));
    assert!(matches!(later, CREATE3res::Err((nfsstat3::NFS3ERR_JUKEBOX, _))));
    let found: GETATTR3res = client.nfs(NFS_PROGRAM::NFSPROC3_GETATTR, &GETATTR3args { object: root.clone() }).await;
    found.unwrap();
    site.memory.let_removes_go.add_permits(1);
    let (xid, removed) = client.receive().await;
    assert_eq!(xid, waits);
    unpacked::<REMOVE3res>(&removed.expect("accepted")).unwrap();
    // A repetition that was under way when the client was told.
    client.send(&call).await;
    let later: CREATE3res = unpacked(&client.receive().await.1.expect("accepted"));
    assert!(matches!(later, CREATE3res::Err((nfsstat3::NFS3ERR_JUKEBOX, _))));
    assert!(site.memory.content("b").is_none());
    make_file(&mut client, &root, "b").await;
}
