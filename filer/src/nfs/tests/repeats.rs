//! Repeated calls get the first answer.

use super::client::{Client, Site, at, record, unpacked, unsquashed, xid_next};
use crate::nfs::NfsSettings;
use nfs3_types::nfs3::{self, *};
use nfs3_types::xdr_codec::Pack;
use std::sync::atomic::Ordering;

const NFS: (u32, u32) = (nfs3::PROGRAM, nfs3::VERSION);

async fn make_file(client: &mut Client, root: &nfs_fh3, name: &str) {
    let how = createhow3::GUARDED(sattr3::default());
    let made: CREATE3res = client.nfs(NFS_PROGRAM::NFSPROC3_CREATE, &CREATE3args { where_: at(root, name), how }).await;
    made.unwrap();
}

async fn twice(client: &mut Client, procedure: NFS_PROGRAM, arguments: &impl Pack) -> (Vec<u8>, Vec<u8>) {
    let call = record(&client.call(xid_next(), NFS, procedure as u32, arguments));
    let mut results = Vec::new();
    for _ in 0..2 {
        client.send(&call).await;
        results.push(client.receive().await.1.expect("accepted"));
    }
    let second = results.pop().expect("two");
    (results.pop().expect("two"), second)
}

#[tokio::test]
async fn a_repeated_change_says_what_the_first_said() {
    let site = Site::open().await;
    let mut client = site.client().await;
    let root = client.mount("/").await.expect("exported");
    make_file(&mut client, &root, "a").await;
    let rename = RENAME3args { from: at(&root, "a"), to: at(&root, "b") };
    let (first, second) = twice(&mut client, NFS_PROGRAM::NFSPROC3_RENAME, &rename).await;
    assert!(matches!(unpacked(&first), RENAME3res::Ok(_)));
    assert_eq!(first, second);
    let remove = REMOVE3args { object: at(&root, "b") };
    let (first, second) = twice(&mut client, NFS_PROGRAM::NFSPROC3_REMOVE, &remove).await;
    assert!(matches!(unpacked(&first), REMOVE3res::Ok(_)));
    assert_eq!(first, second);
    assert_eq!(site.server.stats().repeated_calls, 2);
    // The same call under a new xid is a new call.
    let again: REMOVE3res = client.nfs(NFS_PROGRAM::NFSPROC3_REMOVE, &remove).await;
    assert!(matches!(again, REMOVE3res::Err((nfsstat3::NFS3ERR_NOENT, _))));
    // Another call under an old xid, too.
    let xid = xid_next();
    for name in ["x", "y"] {
        let how = createhow3::GUARDED(sattr3::default());
        let create = CREATE3args { where_: at(&root, name), how };
        client.send(&record(&client.call(xid, NFS, NFS_PROGRAM::NFSPROC3_CREATE as u32, &create))).await;
        let made: CREATE3res = unpacked(&client.receive().await.1.expect("accepted"));
        made.unwrap();
    }
}

#[tokio::test]
async fn a_repetition_over_a_new_connection_waits_for_the_first() {
    let site = Site::open().await;
    let mut client = site.client().await;
    let root = client.mount("/").await.expect("exported");
    make_file(&mut client, &root, "a").await;
    site.memory.hold_removes.store(true, Ordering::SeqCst);
    let remove = REMOVE3args { object: at(&root, "a") };
    let call = record(&client.call(xid_next(), NFS, NFS_PROGRAM::NFSPROC3_REMOVE as u32, &remove));
    client.send(&call).await;
    site.memory.removes_held.notified().await;
    // The client loses its connection while the call is at work.
    drop(client);
    let mut client = site.client().await;
    client.send(&call).await;
    // A second run would need a second permit.
    site.memory.let_removes_go.add_permits(1);
    let removed: REMOVE3res = unpacked(&client.receive().await.1.expect("accepted"));
    removed.unwrap();
    assert_eq!(site.memory.removes.load(Ordering::SeqCst), 1);
    assert_eq!(site.server.stats().repeated_calls, 1);
}

/// A client that was told to ask later does so as a new call; a late repetition of the old one must change nothing.
#[tokio::test]
async fn an_answer_to_ask_later_is_kept_and_the_call_never_runs() {
    let site = Site::open().await;
    let mut client = site.client().await;
    let root = client.mount("/").await.expect("exported");
    make_file(&mut client, &root, "a").await;
    let remove = REMOVE3args { object: at(&root, "a") };
    let call = record(&client.call(xid_next(), NFS, NFS_PROGRAM::NFSPROC3_REMOVE as u32, &remove));
    site.memory.later.store(true, Ordering::SeqCst);
    client.send(&call).await;
    let later: REMOVE3res = unpacked(&client.receive().await.1.expect("accepted"));
    assert!(matches!(later, REMOVE3res::Err((nfsstat3::NFS3ERR_JUKEBOX, _))));
    site.memory.later.store(false, Ordering::SeqCst);
    client.send(&call).await;
    let later: REMOVE3res = unpacked(&client.receive().await.1.expect("accepted"));
    assert!(matches!(later, REMOVE3res::Err((nfsstat3::NFS3ERR_JUKEBOX, _))));
    assert!(site.memory.content("a").is_some());
    let removed: REMOVE3res = client.nfs(NFS_PROGRAM::NFSPROC3_REMOVE, &remove).await;
    removed.unwrap();
}

/// A call without an outcome stays at work for as long as it takes; its repetitions must not pile up meanwhile.
#[tokio::test]
async fn of_many_repetitions_one_waits_and_is_answered() {
    let settings = NfsSettings { calls_in_flight_max: 3, ..NfsSettings::default() };
    let site = Site::with(settings, vec![unsquashed("/")]).await;
    let mut client = site.client().await;
    let root = client.mount("/").await.expect("exported");
    make_file(&mut client, &root, "a").await;
    site.memory.hold_removes.store(true, Ordering::SeqCst);
    let remove = REMOVE3args { object: at(&root, "a") };
    let xid = xid_next();
    let call = record(&client.call(xid, NFS, NFS_PROGRAM::NFSPROC3_REMOVE as u32, &remove));
    client.send(&call).await;
    site.memory.removes_held.notified().await;
    for _ in 0..20 {
        client.send(&call).await;
    }
    // Others find their way between them.
    make_file(&mut client, &root, "b").await;
    site.memory.let_removes_go.add_permits(1);
    for _ in 0..2 {
        let (answered, result) = client.receive().await;
        assert_eq!(answered, xid);
        unpacked::<REMOVE3res>(&result.expect("accepted")).unwrap();
    }
    assert_eq!(site.memory.removes.load(Ordering::SeqCst), 1);
    assert_eq!(site.server.stats().repeated_calls, 20);
}
