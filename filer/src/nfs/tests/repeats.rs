//! Repeated calls get the first answer.

use super::client::{Client, Site, at, record, unpacked, unsquashed, xid_next};
use crate::nfs::NfsSettings;
use nfs3_types::nfs3::{self, *};
use nfs3_types::xdr_codec::{Opaque, Pack};
use std::sync::atomic::Ordering;
use std::time::Duration;

const NFS: (u32, u32) = (nfs3::PROGRAM, nfs3::VERSION);

async fn make_file(client: &mut Client, root: &nfs_fh3, name: &str) -> nfs_fh3 {
    let how = createhow3::GUARDED(sattr3::default());
    let made: CREATE3res = client.nfs(NFS_PROGRAM::NFSPROC3_CREATE, &CREATE3args { where_: at(root, name), how }).await;
    match made.unwrap().obj {
        post_op_fh3::Some(file) => file,
        post_op_fh3::None => panic!("a new file has a handle"),
    }
}

fn write_of(file: &nfs_fh3, byte: u8, bytes: usize) -> WRITE3args<'static> {
    let data = Opaque::owned(vec![byte; bytes]);
    WRITE3args { file: file.clone(), offset: 0, count: bytes as u32, stable: stable_how::UNSTABLE, data }
}

/// Waits until no call is at work.
async fn idle(site: &Site) {
    while site.server.stats().calls_in_flight > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
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

/// A write waits for room in staging while its client, over a new connection, has it done, and writes anew.
#[tokio::test]
async fn a_repeated_write_never_runs_behind_a_later_one() {
    let site = Site::open().await;
    let mut client = site.client().await;
    let root = client.mount("/").await.expect("exported");
    let file = make_file(&mut client, &root, "a").await;
    let xid = xid_next();
    let call = record(&client.call(xid, NFS, NFS_PROGRAM::NFSPROC3_WRITE as u32, &write_of(&file, b'A', 100)));
    site.memory.writes.on.store(true, Ordering::SeqCst);
    client.send(&call).await;
    site.memory.writes.held.notified().await;
    // From here on there is room for whoever asks; the first one is a moment late.
    site.memory.writes.on.store(false, Ordering::SeqCst);
    drop(client);
    let mut client = site.client().await;
    client.send(&call).await;
    let early = tokio::time::timeout(Duration::from_millis(200), client.receive()).await;
    assert!(early.is_err(), "it has an answer while the first is at work");
    site.memory.writes.go.add_permits(1);
    let (answered, written) = client.receive().await;
    assert_eq!(answered, xid);
    let written = written.expect("accepted");
    unpacked::<WRITE3res>(&written).unwrap();
    let later: WRITE3res = client.nfs(NFS_PROGRAM::NFSPROC3_WRITE, &write_of(&file, b'B', 100)).await;
    later.unwrap();
    // One that was under way in a connection that nobody listens to any more.
    let mut late = site.client().await;
    late.send(&call).await;
    assert_eq!(late.receive().await.1.expect("accepted"), written);
    idle(&site).await;
    assert_eq!(site.memory.content("a").expect("it is there").1, [b'B'; 100]);
    assert_eq!(site.server.stats().repeated_calls, 2);
}

/// A client that was told to ask later does so as a new call; what it sent before, short or too long to be read without
/// room, must not run behind that.
#[tokio::test]
async fn a_write_that_was_turned_away_never_runs() {
    let settings = NfsSettings { calls_in_flight_max: 1, admission_ms_max: 20, ..NfsSettings::default() };
    for bytes in [100, 100_000] {
        let site = Site::with(settings.clone(), vec![unsquashed("/")]).await;
        let mut client = site.client().await;
        let root = client.mount("/").await.expect("exported");
        let (file, other) = (make_file(&mut client, &root, "a").await, make_file(&mut client, &root, "b").await);
        site.memory.writes.on.store(true, Ordering::SeqCst);
        let write = |xid: u32, args: &WRITE3args<'_>, client: &Client| {
            record(&client.call(xid, NFS, NFS_PROGRAM::NFSPROC3_WRITE as u32, args))
        };
        let takes_the_room = write(xid_next(), &write_of(&other, b'B', 100), &client);
        client.send(&takes_the_room).await;
        site.memory.writes.held.notified().await;
        let call = write(xid_next(), &write_of(&file, b'A', bytes), &client);
        client.send(&call).await;
        let later = unpacked(&client.receive().await.1.expect("accepted"));
        assert!(matches!(later, WRITE3res::Err((nfsstat3::NFS3ERR_JUKEBOX, _))));
        site.memory.writes.on.store(false, Ordering::SeqCst);
        site.memory.writes.go.add_permits(1);
        unpacked::<WRITE3res>(&client.receive().await.1.expect("accepted")).unwrap();
        client.send(&call).await;
        let later = unpacked(&client.receive().await.1.expect("accepted"));
        assert!(matches!(later, WRITE3res::Err((nfsstat3::NFS3ERR_JUKEBOX, _))), "{bytes} bytes: {later:?}");
        idle(&site).await;
        assert!(site.memory.content("a").expect("it is there").1.is_empty());
        let written: WRITE3res = client.nfs(NFS_PROGRAM::NFSPROC3_WRITE, &write_of(&file, b'A', bytes)).await;
        written.unwrap();
    }
}

/// Were it told to ask later, its client would write anew, and the one at work could run behind that.
#[tokio::test]
async fn a_repetition_without_room_waits_for_the_write_at_work() {
    let settings = NfsSettings { calls_in_flight_max: 1, admission_ms_max: 20, ..NfsSettings::default() };
    for bytes in [100, 100_000] {
        let site = Site::with(settings.clone(), vec![unsquashed("/")]).await;
        let (mut first, mut second) = (site.client().await, site.client().await);
        let root = first.mount("/").await.expect("exported");
        let (file, other) = (make_file(&mut first, &root, "a").await, make_file(&mut first, &root, "b").await);
        site.memory.writes.on.store(true, Ordering::SeqCst);
        let xid = xid_next();
        let call = record(&first.call(xid, NFS, NFS_PROGRAM::NFSPROC3_WRITE as u32, &write_of(&file, b'A', bytes)));
        first.send(&call).await;
        site.memory.writes.held.notified().await;
        let takes_the_room =
            second.call(xid_next(), NFS, NFS_PROGRAM::NFSPROC3_WRITE as u32, &write_of(&other, b'B', 100));
        second.send(&record(&takes_the_room)).await;
        site.memory.writes.held.notified().await;
        second.send(&call).await;
        let early = tokio::time::timeout(Duration::from_millis(200), second.receive()).await;
        assert!(early.is_err(), "{bytes} bytes: it has an answer while the first is at work");
        site.memory.writes.go.add_permits(1);
        let (answered, written) = second.receive().await;
        assert_eq!(answered, xid);
        unpacked::<WRITE3res>(&written.expect("accepted")).unwrap();
        site.memory.writes.go.add_permits(1);
    }
}
