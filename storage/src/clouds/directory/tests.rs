//! A directory as a cloud: names, crashes, and mounts that are lost or hang.

use super::{
    files::{INCOMING, STALE},
    *,
};
use futures::FutureExt;
use std::{
    fs::{File, OpenOptions},
    path::Path,
};

fn directory(at: &Path) -> Directory {
    let settings = DirectorySettings { prefix: "fs/one".into(), ..DirectorySettings::new(at) };
    Directory::open(&settings, "a").unwrap()
}

#[tokio::test]
async fn no_key_leads_out_of_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = directory(dir.path());
    fs::write(dir.path().join("outside"), b"secret").unwrap();
    let incoming = format!("{INCOMING}/x");
    for key in ["../outside", "a/../../../outside", "/etc/passwd", "", "a//b", "a/", ".", "a/./b", "a\0b", &incoming] {
        let body = Bytes::from_static(b"x");
        assert!(matches!(cloud.get(key, 0..1).await, Err(CloudError::Failed { .. })), "{key:?}");
        assert!(matches!(cloud.put(key, body.clone(), Md5::of(&body)).await, Err(CloudError::Failed { .. })));
        assert!(matches!(cloud.delete(key).await, Err(CloudError::Failed { .. })));
    }
}

#[tokio::test]
async fn a_lost_mount_is_a_failure_and_not_an_empty_cloud() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = directory(dir.path());
    let body = Bytes::from_static(b"x");
    cloud.put("a/b", body.clone(), Md5::of(&body)).await.unwrap();
    fs::rename(dir.path().join("fs"), dir.path().join("away")).unwrap();
    assert!(matches!(cloud.get("a/b", 0..1).await, Err(CloudError::Failed { .. })));
    assert!(matches!(cloud.delete("a/b").await, Err(CloudError::Failed { .. })));
    assert!(matches!(cloud.list("", None).await, Err(CloudError::Failed { .. })));
    assert!(matches!(cloud.put("a/c", body.clone(), Md5::of(&body)).await, Err(CloudError::Failed { .. })));
}

#[tokio::test]
async fn a_missing_directory_is_not_made_and_is_used_once_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = (dir.path().join("absent"), dir.path().join("file"));
    let cloud = Directory::open(&DirectorySettings::new(path.clone()), "a").unwrap();
    let (body, md5) = (Bytes::from_static(b"body"), Md5::of(b"body"));
    assert!(matches!(cloud.put("a", body.clone(), md5).await, Err(CloudError::Failed { .. })));
    assert!(!path.exists());
    std::fs::create_dir(&path).unwrap();
    cloud.put("a", body, md5).await.unwrap();

    std::fs::write(&file, "").unwrap();
    assert!(matches!(Directory::open(&DirectorySettings::new(file), "a"), Err(OpenError::Path { .. })));
}

#[tokio::test]
async fn listings_are_in_order_of_whole_keys() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = directory(dir.path());
    let keys = ["a-b", "a.b", "a/b", "a/b.c/d", "a/b0", "a0", "b"];
    for key in keys {
        cloud.put(key, Bytes::new(), Md5::of(b"")).await.unwrap();
    }
    let listed = |page: Page| page.objects.into_iter().map(|object| object.key).collect::<Vec<_>>();
    assert_eq!(listed(cloud.list("", None).await.unwrap()), keys);
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(listed(cloud.list("", Some(key)).await.unwrap()), keys[index + 1..], "after {key}");
    }
    assert_eq!(listed(cloud.list("a/b", None).await.unwrap()), ["a/b", "a/b.c/d", "a/b0"]);
    assert_eq!(listed(cloud.list("a/", Some("a/b.c/")).await.unwrap()), ["a/b.c/d", "a/b0"]);
}

#[tokio::test]
async fn what_a_crash_left_is_removed_when_it_is_old() {
    let dir = tempfile::tempdir().unwrap();
    drop(directory(dir.path()));
    let incoming = dir.path().join("fs/one").join(INCOMING);
    fs::write(incoming.join("young"), b"x").unwrap();
    let old = File::create(incoming.join("old")).unwrap();
    let long_ago = old.metadata().unwrap().modified().unwrap() - 2 * STALE;
    old.set_modified(long_ago).unwrap();
    drop(directory(dir.path()));
    assert!(incoming.join("young").exists() && !incoming.join("old").exists());
}

/// A dead mount that comes back carries out what was asked of it long ago: a put whose segment was deleted since.
#[tokio::test(start_paused = true)]
async fn a_put_that_was_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cloud = directory(dir.path());
    // Large, so that it is still being written when it is given up a moment later.
    let body = Bytes::from(vec![7; 32 << 20]);
    let md5 = Md5::of(&body);
    let begin = |key| {
        let mut put = Box::pin(cloud.put(key, body.clone(), md5));
        assert!(put.as_mut().now_or_never().is_none());
        put
    };
    let all = cloud.turns.available_permits() as u32;
    let put = begin("late");
    tokio::time::advance(cloud.limits.deadline(body.len() as u64)).await;
    assert!(matches!(put.await, Err(CloudError::TimedOut { .. })));
    // As when the cloud has failed meanwhile.
    drop(begin("dropped"));
    drop(cloud.turns.acquire_many(all).await.unwrap());
    assert_eq!(cloud.list("", None).await.unwrap().objects, []);
    let left = fs::read_dir(dir.path().join("fs/one").join(INCOMING)).unwrap().count();
    assert_eq!(left, 0, "nor does it stay among the incoming");
    cloud.put("late", Bytes::new(), Md5::of(b"")).await.unwrap();
}

/// A FIFO that nobody writes to hangs whoever opens it, as a dead mount does.
fn fifo(path: &Path) {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
}

/// What a resync reads shares the downlink, with what clients read too. A client that waits for its read waits no longer.
#[tokio::test(start_paused = true)]
async fn gets_of_whole_objects_share_their_deadline_and_other_gets_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { request_timeout_ms: 1_000, ms_per_mib: 1_000, ..Limits::default() };
    let settings = DirectorySettings { calls_in_flight_max: 1, limits, ..DirectorySettings::new(dir.path()) };
    let cloud = Directory::open(&settings, "a").unwrap();
    let hangs = dir.path().join("hangs");
    fifo(&hangs);
    let mut gets = vec![
        cloud.get_whole("hangs", 1 << 20),
        cloud.get_whole("hangs", 2 << 20),
        // Of a client.
        cloud.get("hangs", 0..1 << 20),
    ];
    assert!(gets.iter_mut().all(|get| get.now_or_never().is_none()));
    tokio::time::advance(Duration::from_secs(2)).await;
    let answer = gets.pop().unwrap().await;
    assert!(matches!(answer, Err(CloudError::TimedOut { after_ms: 2_000, .. })), "{answer:?}");
    tokio::time::advance(Duration::from_secs(3)).await;
    for get in gets {
        let answer = get.await;
        assert!(matches!(answer, Err(CloudError::TimedOut { after_ms: 5_000, .. })), "{answer:?}");
    }
    // The one that hangs is let go.
    drop(OpenOptions::new().write(true).open(&hangs).unwrap());
    drop(cloud.turns.acquire().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_hangs_takes_a_bounded_number_of_threads_and_every_call_has_its_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { request_timeout_ms: 200, ms_per_mib: 0, ..Limits::default() };
    let settings = DirectorySettings { calls_in_flight_max: 3, limits, ..DirectorySettings::new(dir.path()) };
    let cloud = Arc::new(Directory::open(&settings, "a").unwrap());
    let hangs = dir.path().join("hangs");
    fifo(&hangs);
    let calls = (0..10).map(|_| {
        let cloud = cloud.clone();
        tokio::spawn(async move { cloud.get("hangs", 0..1).await })
    });
    for call in futures::future::join_all(calls).await {
        let answer = call.unwrap();
        assert!(matches!(answer, Err(CloudError::TimedOut { after_ms: 200, .. })), "{answer:?}");
    }
    assert_eq!(cloud.turns.available_permits(), 0, "three calls hang, and no more were begun");
    // Once it answers, all is as before: whoever opened it is let go.
    drop(OpenOptions::new().write(true).open(&hangs).unwrap());
    drop(cloud.turns.acquire_many(3).await.unwrap());
    let body = Bytes::from_static(b"x");
    cloud.put("a", body.clone(), Md5::of(&body)).await.unwrap();
}
