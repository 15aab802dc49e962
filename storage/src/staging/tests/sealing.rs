//! When a segment is sealed, and that it is handed on once.

use super::{BOOT_SETTINGS, FILES, append, noise, open};
use crate::{disk::MemoryDisk, ids::Md5, staging::Settings};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_segment_is_closed_when_full_or_old_and_handed_on_once() {
    let staging = open(MemoryDisk::new(), BOOT_SETTINGS).await;
    staging.append(FILES[0], 0, noise(1900)).await.expect("there is room");
    let extents = staging.append(FILES[1], 0, noise(300)).await.expect("there is room");
    let full = staging.next_closed().await;
    assert_eq!(full.files, BTreeSet::from([FILES[0], FILES[1]]));
    assert_eq!(extents[0].segment, full.segment);
    assert_ne!(extents[1].segment, full.segment, "the next frame goes to the next segment");
    let start = Instant::now();
    let old = staging.next_closed().await;
    assert_eq!((start.elapsed().as_millis(), old.segment), (1000, extents[1].segment));
    assert!(tokio::time::timeout(Duration::from_secs(60), staging.next_closed()).await.is_err(), "nothing is open");
    for closed in [full, old] {
        staging.finish(closed.segment).await.expect("the disk works");
        let (body, _) = staging.body(closed.segment).await.expect("it is here");
        assert_eq!((Md5::of(&body), body.len() as u64), (closed.md5, closed.bytes));
    }
}

/// Many small files are in the clouds soon after the last one; a file now and then makes no segment of its own.
#[tokio::test(start_paused = true)]
async fn a_segment_that_is_worth_a_put_is_closed_when_nothing_is_added_any_more() {
    for (bytes, seal_idle_bytes_min, closed_ms) in
        [(100, 375, 1000), (600, 375, 30 + 50), (600, 2000, 1000), (100, 0, 30 + 50)]
    {
        let settings = Settings { seal_idle_ms: 50, seal_idle_bytes_min, ..BOOT_SETTINGS };
        let staging = Arc::new(open(MemoryDisk::new(), settings).await);
        let start = Instant::now();
        let waiting = tokio::spawn({
            let staging = staging.clone();
            async move { staging.next_closed().await }
        });
        staging.append(FILES[0], 0, noise(bytes)).await.expect("there is room");
        tokio::time::sleep(Duration::from_millis(30)).await;
        append(&staging, "more").await;
        waiting.await.expect("it does not panic");
        assert_eq!(start.elapsed().as_millis(), closed_ms, "{bytes} bytes, {seal_idle_bytes_min} are worth a put");
    }
}

/// The end of a burst goes with it; what comes now and then is gathered.
#[tokio::test(start_paused = true)]
async fn one_small_segment_follows_a_large_one_soon() {
    let settings = Settings { seal_idle_ms: 50, seal_idle_bytes_min: 2000, ..BOOT_SETTINGS };
    let staging = open(MemoryDisk::new(), settings).await;
    for (pause_ms, bytes, waited_ms) in
        [(0, 100, 1000), (0, 2000, 50), (40, 100, 50), (0, 100, 1000), (0, 2000, 50), (50, 100, 1000), (0, 100, 1000)]
    {
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        let start = Instant::now();
        staging.append(FILES[0], 0, noise(bytes)).await.expect("there is room");
        staging.next_closed().await;
        assert_eq!(start.elapsed().as_millis(), waited_ms, "{bytes} bytes after {pause_ms} ms");
    }
    // As full ones have it whose last bytes find no room.
    staging.append(FILES[0], 0, noise(3100)).await.expect("there is room");
    let start = Instant::now();
    staging.next_closed().await;
    assert_eq!(start.elapsed().as_millis(), 0);
    let rest = staging.next_closed().await;
    assert!(rest.bytes < 2000 && start.elapsed().as_millis() == 50, "{rest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_segment_waits_less_for_more_while_no_other_is_on_its_way() {
    let settings = Settings { seal_after_ms: 60_000, seal_idle_ms: 50, seal_idle_alone_ms: 10, ..BOOT_SETTINGS };
    let staging = Arc::new(open(MemoryDisk::new(), settings).await);
    let next = || {
        let staging = staging.clone();
        tokio::spawn(async move { (staging.next_closed().await, Instant::now()) })
    };
    let start = Instant::now();
    staging.append(FILES[0], 0, noise(400)).await.expect("there is room");
    let (first, at) = next().await.expect("it does not panic");
    assert_eq!((at - start).as_millis(), 10, "it is alone");

    staging.append(FILES[0], 400, noise(400)).await.expect("there is room");
    let (second, at) = next().await.expect("it does not panic");
    assert_eq!((at - start).as_millis(), 10 + 50, "the first one is on its way");

    staging.append(FILES[0], 800, noise(400)).await.expect("there is room");
    let waiting = next();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waiting.is_finished(), "two are on their way");
    for closed in [first, second] {
        staging.finish(closed.segment).await.expect("the disk works");
        assert!(staging.release(closed.segment).await.is_some());
    }
    let (_, at) = waiting.await.expect("it does not panic");
    assert_eq!((at - start).as_millis(), 60 + 20, "it is alone, and has waited long enough");
}

/// Clouds that have nothing to do get what is worth a put at once; those that are slow, or away, get full segments.
#[tokio::test(start_paused = true)]
async fn a_segment_goes_ahead_while_no_other_is_on_its_way() {
    let settings = Settings { seal_ahead_bytes_min: 600, seal_after_ms: 60_000, seal_idle_ms: 60_000, ..BOOT_SETTINGS };
    let staging = Arc::new(open(MemoryDisk::new(), settings).await);
    let next = || {
        let staging = staging.clone();
        tokio::spawn(async move { (staging.next_closed().await, Instant::now()) })
    };
    let start = Instant::now();
    let waiting = next();
    staging.append(FILES[0], 0, noise(300)).await.expect("there is room");
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(!waiting.is_finished(), "300 bytes are not worth it");
    staging.append(FILES[0], 300, noise(300)).await.expect("there is room");
    let (first, at) = waiting.await.expect("it does not panic");
    assert_eq!((at - start).as_millis(), 10);

    let waiting = next();
    staging.finish(first.segment).await.expect("the disk works");
    staging.append(FILES[0], 600, noise(900)).await.expect("there is room");
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(!waiting.is_finished(), "the first one is on its way");
    assert!(staging.release(first.segment).await.is_some());
    let (second, at) = waiting.await.expect("it does not panic");
    assert_eq!((at - start).as_millis(), 20);
    assert!(second.bytes > 900 && second.bytes < 3000, "{second:?}");
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_an_old_segment_ends_early_when_another_becomes_full() {
    let staging = Arc::new(open(MemoryDisk::new(), BOOT_SETTINGS).await);
    append(&staging, "first").await;
    let waiting = tokio::spawn({
        let staging = staging.clone();
        async move { staging.next_closed().await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let start = Instant::now();
    staging.append(FILES[0], 0, noise(3000)).await.expect("there is room");
    waiting.await.expect("it does not panic");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn many_small_frames_fill_a_segment_too() {
    let staging = open(MemoryDisk::new(), BOOT_SETTINGS).await;
    let mut appended = 0;
    let closed = loop {
        append(&staging, "x").await;
        appended += 1;
        let closed = tokio::time::timeout(Duration::ZERO, staging.next_closed()).await;
        if let Ok(closed) = closed {
            break closed;
        }
    };
    let frame_bytes = 56 + 1 + 40;
    assert!(closed.bytes < BOOT_SETTINGS.segment_bytes_max + frame_bytes, "{} bytes", closed.bytes);
    assert_eq!(appended, (BOOT_SETTINGS.segment_bytes_max - 64).div_ceil(frame_bytes));
}
