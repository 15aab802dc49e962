//! Room: who waits for it and for how long, what is refused, how much is in memory, what gives way to a writer.

use super::{BOOT_SETTINGS, CLOUDFS, FILES, ME, NoClock, append, noise, open, read, reopen};
use crate::{
    cache::{DiskCache, GivingWay},
    disk::{DiskError, MemoryDisk},
    ids::{Md5, SegmentId},
    staging::{Settings, Staging, StagingError},
};
use futures::future::join_all;
use mesh::FilerId;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn admission_waits_for_a_release_and_gives_up_at_its_deadline() {
    let settings = Settings { bytes_max: 3000, ..BOOT_SETTINGS };
    let staging = Arc::new(open(MemoryDisk::new(), settings).await);
    let wait_max = Duration::from_secs(10);
    {
        let _room = staging.admit(2000, wait_max).await.expect("it is empty");
        staging.append(FILES[0], 0, noise(2000)).await.expect("there is room");
    }
    let closed = staging.next_closed().await;
    staging.finish(closed.segment).await.expect("the disk works");
    let start = Instant::now();
    let refused = staging.admit(2000, wait_max).await.err();
    assert!(
        matches!(refused, Some(StagingError::Full { bytes_max: 3000, waited_ms: 10_000, .. })),
        "{refused:?} after {:?}",
        start.elapsed()
    );
    let waiting = tokio::spawn({
        let staging = staging.clone();
        async move { staging.admit(2000, wait_max).await.map(|_| Instant::now()) }
    });
    tokio::time::sleep(Duration::from_secs(3)).await;
    let released = Instant::now();
    staging.release(closed.segment).await.expect("it is here");
    assert_eq!(waiting.await.expect("it does not panic").expect("there is room now"), released);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_room_are_not_all_let_in_at_once() {
    let staging = Arc::new(open(MemoryDisk::new(), Settings { bytes_max: 3000, ..BOOT_SETTINGS }).await);
    let first = staging.admit(2500, Duration::ZERO).await.expect("it is empty");
    let waiting = (0..4).map(|_| {
        let staging = staging.clone();
        async move { staging.admit(1400, Duration::from_secs(1)).await.map(std::mem::forget).is_ok() }
    });
    let waiting = join_all(waiting);
    let (let_in, ()) = tokio::join!(waiting, async { drop(first) });
    assert_eq!(let_in.into_iter().filter(|let_in| *let_in).count(), 2);
    assert_eq!(staging.lock().admitted_bytes, 2800);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_what_it_cannot_take_without_growing_and_goes_on_when_there_is_room() {
    let disk = MemoryDisk::new();
    let staging = open(disk.clone(), BOOT_SETTINGS).await;
    let safe = append(&staging, "safe").await;
    staging.sync(safe.segment).await.expect("there is room");
    disk.set_bytes_max(Some(disk.used_bytes()));
    let mut taken = 0;
    for _ in 0..100 {
        match staging.append(FILES[0], 0, noise(200)).await {
            Ok(_) => taken += 1,
            Err(error) => assert!(matches!(error, StagingError::Disk(DiskError::Full { .. })), "{error}"),
        }
        staging.check();
    }
    assert!(taken < 5, "{taken} pieces were taken into memory");
    assert!(staging.sync(safe.segment).await.is_err());
    disk.set_bytes_max(None);
    let more = append(&staging, "more").await;
    staging.sync(more.segment).await.expect("there is room");
    disk.crash();
    let (staging, _) = reopen(&disk, 2).await.expect("it is ours");
    assert_eq!(read(&staging, &safe).await.as_deref(), Some(&b"safe"[..]));
    assert_eq!(read(&staging, &more).await.as_deref(), Some(&b"more"[..]));
}

#[tokio::test(start_paused = true)]
async fn bodies_in_memory_stay_within_their_bound() {
    let disk = MemoryDisk::new();
    let staging = open(disk.clone(), BOOT_SETTINGS).await;
    let mut closed = Vec::new();
    for _ in 0..30 {
        staging.append(FILES[0], 0, noise(2000)).await.expect("there is room");
        closed.push(staging.next_closed().await);
        staging.check();
    }
    for closed in closed {
        staging.finish(closed.segment).await.expect("the disk works");
        let (body, _) = staging.body(closed.segment).await.expect("in memory or not");
        assert_eq!(Md5::of(&body), closed.md5);
    }
    assert!(staging.lock().memory_bytes <= BOOT_SETTINGS.memory_bytes_max);
}

#[tokio::test(start_paused = true)]
async fn what_evictable_copies_take_is_room_for_a_writer() {
    let disk = MemoryDisk::new();
    let giving_way = GivingWay::new(Arc::new(disk.clone()));
    let clock = Arc::new(NoClock);
    let staging = Staging::recover(ME, CLOUDFS, 1, BOOT_SETTINGS, giving_way.clone(), clock).await;
    let staging = staging.expect("the disk is empty").0;
    let cache = DiskCache::open(Arc::new(disk.clone()), &Default::default()).await.expect("the disk works");
    let cache = Arc::new(cache);
    giving_way.set_cache(cache.clone());
    for number in 0..10 {
        cache.keep(SegmentId { filer: FilerId(9), number }, 0, noise(1000)).await;
    }
    disk.set_bytes_max(Some(disk.used_bytes() + 100));
    for round in 0..6 {
        let extents = staging.append(FILES[0], round * 900, noise(900)).await.expect("the cache gives way");
        staging.sync(extents.last().expect("it has data").segment).await.expect("the cache gives way");
    }
    assert!((1..4000).contains(&cache.bytes()), "{} bytes are still cached", cache.bytes());
    let full = loop {
        match staging.append(FILES[0], 0, noise(900)).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(full, StagingError::Disk(DiskError::Full { .. })), "{full}");
    assert_eq!(cache.bytes(), 0, "nothing evictable is left when a writer is refused");
}
