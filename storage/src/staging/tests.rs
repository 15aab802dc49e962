use super::*;
use crate::{
    cache::{DiskCache, GivingWay},
    disk::MemoryDisk,
    segment::{FrameError, decode_frame},
};
use disk::FaultyDisk;
use futures::future::join_all;

mod disk;
mod random;

const ME: FilerId = FilerId(0xf1);
const CLOUDFS: u64 = 0xc10d;
const FILES: [Handle; 3] =
    [Handle { ino: 2, generation: 1 }, Handle { ino: 3, generation: 1 }, Handle { ino: 4, generation: 1 }];
/// Small limits, so that all of them are met.
const BOOT_SETTINGS: Settings = Settings {
    segment_bytes_max: 3000,
    frame_bytes_max: 256,
    seal_after_ms: 1000,
    seal_idle_ms: 1000,
    seal_idle_bytes_min: 375,
    seal_ahead_bytes_min: 1 << 20,
    bytes_max: 1 << 20,
    unwritten_bytes_max: 700,
    memory_bytes_max: 4000,
};

struct NoClock;

impl Clock for NoClock {
    fn wall_ns(&self) -> u64 {
        7
    }
}

impl Staging {
    /// The sums are those of their parts, and the bounds hold.
    fn check(&self) {
        let state = self.lock();
        let sum = |part: fn(&Entry) -> u64| state.entries.values().map(part).sum::<u64>();
        assert_eq!(state.bytes, sum(|entry| entry.bytes));
        assert_eq!(state.unwritten_bytes, sum(|entry| entry.unwritten_bytes));
        assert_eq!(state.unwritten_bytes, sum(|entry| entry.unwritten.iter().map(|part| part.len() as u64).sum()));
        assert_eq!(state.memory_bytes, sum(|entry| entry.body.as_ref().map_or(0, |body| body.len() as u64)));
        let largest = 2 * (self.settings.frame_bytes_max as u64 + self.settings.segment_bytes_max);
        assert!(state.unwritten_bytes <= self.settings.unwritten_bytes_max + largest, "{}", state.unwritten_bytes);
        assert!(state.memory_bytes <= self.settings.memory_bytes_max + largest, "{}", state.memory_bytes);
    }
}

async fn open(disk: impl Disk, settings: Settings) -> Staging {
    let opened = Staging::recover(ME, CLOUDFS, 1, settings, Arc::new(disk), Arc::new(NoClock)).await;
    opened.expect("the disk is empty").0
}

async fn reopen(disk: &MemoryDisk, boot: u32) -> Result<(Staging, Vec<Recovered>), RecoverError> {
    Staging::recover(ME, CLOUDFS, boot, BOOT_SETTINGS, Arc::new(disk.clone()), Arc::new(NoClock)).await
}

/// Appends; the extent of the one frame.
async fn append(staging: &Staging, text: &str) -> Extent {
    let extents = staging.append(FILES[0], 0, Bytes::copy_from_slice(text.as_bytes())).await.expect("there is room");
    assert_eq!(extents.len(), 1);
    extents[0]
}

async fn read(staging: &Staging, extent: &Extent) -> Option<Bytes> {
    let read = staging.read(extent.segment, extent.frame_at.into(), extent.frame_len as usize).await;
    Some(decode_frame(&read.expect("the disk works")?).ok()?.data)
}

/// Random bytes: they do not compress.
fn noise(len: usize) -> Bytes {
    let byte = |at: u64| {
        let mixed = (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as u8
    };
    (0..len as u64).map(byte).collect()
}

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
        let body = staging.body(closed.segment).await.expect("it is here");
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
async fn many_syncs_at_once_share_few_of_the_disk() {
    let slow = FaultyDisk::default();
    let staging = Arc::new(
        open(slow.clone(), Settings { segment_bytes_max: 1 << 20, seal_idle_bytes_min: 1 << 17, ..BOOT_SETTINGS })
            .await,
    );
    let clients = (0..100u64).map(|client| {
        let staging = staging.clone();
        tokio::spawn(async move {
            let data = Bytes::copy_from_slice(&client.to_be_bytes());
            let extents = staging.append(FILES[0], client * 8, data).await.expect("there is room");
            staging.sync(extents[0].segment).await.expect("the disk works");
            extents[0]
        })
    });
    let extents = join_all(clients).await;
    assert!(slow.inner.syncs() <= 4, "{} syncs for 100 clients", slow.inner.syncs());
    slow.inner.crash();
    let (staging, _) = reopen(&slow.inner, 2).await.expect("it is ours");
    for (client, extent) in extents.into_iter().enumerate() {
        let data = read(&staging, &extent.expect("it does not panic")).await.expect("it was acknowledged");
        assert_eq!(data[..], (client as u64).to_be_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_fails_is_made_good_by_a_new_file() {
    let disk = FaultyDisk::default();
    let staging = open(disk.clone(), BOOT_SETTINGS).await;
    let first = append(&staging, "first").await;
    staging.sync(first.segment).await.expect("the disk works");
    let second = append(&staging, "second").await;
    disk.fail_syncs(1);
    assert!(matches!(staging.sync(first.segment).await, Err(StagingError::Disk(DiskError::Failed { .. }))));
    let third = append(&staging, "third").await;
    staging.sync(first.segment).await.expect("the new file is well");
    disk.inner.crash();
    let (staging, _) = reopen(&disk.inner, 2).await.expect("it is ours");
    for (extent, text) in [(first, "first"), (second, "second"), (third, "third")] {
        assert_eq!(read(&staging, &extent).await.as_deref(), Some(text.as_bytes()));
    }
    assert_eq!(disk.inner.list().await.expect("memory does not fail").len(), 1, "no litter");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_leaves_everything_in_order() {
    let disk = FaultyDisk::default();
    let staging = open(disk.clone(), BOOT_SETTINGS).await;
    // Each future is dropped at its first wait, whatever it is.
    for round in 0..40 {
        let data = noise(500 + round);
        let mut appending = Box::pin(staging.append(FILES[0], 0, data));
        let _ = futures::poll!(&mut appending);
        drop(appending);
        let segment = staging.lock().entries.keys().next_back().copied().expect("something was appended");
        let mut syncing = Box::pin(staging.sync(segment));
        let _ = futures::poll!(&mut syncing);
        drop(syncing);
        staging.check();
    }
    let kept = append(&staging, "kept").await;
    staging.sync(kept.segment).await.expect("the disk works");
    let mut handed_on = BTreeSet::new();
    while let Ok(closed) = tokio::time::timeout(Duration::from_secs(5), staging.next_closed()).await {
        staging.finish(closed.segment).await.expect("the disk works");
        handed_on.insert(closed.segment);
    }
    let held: BTreeSet<_> = staging.unreleased().into_iter().map(|(segment, _)| segment).collect();
    assert_eq!(handed_on, held, "every closed segment is handed on");
    disk.inner.crash();
    let (staging, recovered) = reopen(&disk.inner, 2).await.expect("it is ours");
    assert_eq!(recovered.len(), handed_on.len());
    assert_eq!(read(&staging, &kept).await.as_deref(), Some(&b"kept"[..]));
}

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
async fn a_filer_starts_on_a_full_disk_and_hands_over_what_it_has() {
    let disk = MemoryDisk::new();
    let staging = open(disk.clone(), BOOT_SETTINGS).await;
    let safe = append(&staging, "safe").await;
    staging.sync(safe.segment).await.expect("there is room");
    disk.set_bytes_max(Some(disk.used_bytes()));
    let mut known = None;
    for boot in 2..5 {
        disk.crash();
        let (staging, recovered) = reopen(&disk, boot).await.expect("a full disk stops nobody");
        let found = recovered[0].clone();
        assert_eq!(*known.get_or_insert(found.clone()), found, "the same at every start");
        let body = staging.body(safe.segment).await.expect("it is here");
        assert_eq!((Md5::of(&body), body.len() as u64), (found.md5, found.bytes));
        assert_eq!(read(&staging, &safe).await.as_deref(), Some(&b"safe"[..]));
        staging.check();
        assert_eq!(staging.release(safe.segment).await, Some(found.bytes));
        staging.check();
    }
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
        let body = staging.body(closed.segment).await.expect("in memory or not");
        assert_eq!(Md5::of(&body), closed.md5);
    }
    assert!(staging.lock().memory_bytes <= BOOT_SETTINGS.memory_bytes_max);
}

#[tokio::test(start_paused = true)]
async fn a_read_beside_a_release_gives_the_bytes_or_nothing() {
    let staging = open(MemoryDisk::new(), Settings { memory_bytes_max: 0, ..BOOT_SETTINGS }).await;
    let extent = append(&staging, "here").await;
    let closed = staging.next_closed().await;
    staging.finish(closed.segment).await.expect("the disk works");
    assert_eq!(read(&staging, &extent).await.as_deref(), Some(&b"here"[..]), "from the disk");
    // The cache takes the file while a read of it is on its way.
    let disk = staging.disk.clone();
    let file = staging_file(closed.segment);
    staging.release(closed.segment).await.expect("it is here");
    disk.rename(&file, "elsewhere").await.expect("it is there");
    assert_eq!(read(&staging, &extent).await, None);
    assert!(matches!(staging.body(closed.segment).await, Err(StagingError::Gone(_))));
    staging.sync(closed.segment).await.expect("what is released is durable");
}

#[tokio::test(start_paused = true)]
async fn reads_beyond_what_is_there_are_no_errors_whatever_is_asked() {
    let staging = open(MemoryDisk::new(), BOOT_SETTINGS).await;
    let open_one = append(&staging, "open").await.segment;
    assert_eq!(staging.read(open_one, u64::MAX, usize::MAX).await.expect("no error"), None);
    let closed = staging.next_closed().await.segment;
    for (at, len) in [(u64::MAX, 10), (u64::MAX, usize::MAX), (0, usize::MAX), (10_000, 10)] {
        let read = staging.read(closed, at, len).await.expect("no error").expect("it is here");
        assert_eq!(read.is_empty(), at > 0);
    }
    assert!(staging.release(open_one).await.is_some(), "closed by now");
}

#[tokio::test(start_paused = true)]
async fn files_of_others_are_refused_untouched() {
    let header = |cloudfs, filer, number| {
        let segment = SegmentId { filer, number };
        let (mut packer, _) = Packer::new(Header { cloudfs, segment });
        packer.pack(FILES[0], 0, 0, noise(100));
        packer.seal().body
    };
    let name = |filer, number| staging_file(SegmentId { filer, number });
    let newer = {
        let mut bytes = header(CLOUDFS, ME, 1).to_vec();
        bytes[6] = 99;
        Bytes::from(bytes)
    };
    let torn = header(CLOUDFS, ME, 0).slice(..150);
    for (file, bytes, why) in [
        (name(FilerId(2), 1), header(CLOUDFS, FilerId(2), 1), "belongs to filer"),
        (name(ME, 1), header(CLOUDFS + 1, ME, 1), "belongs to filer"),
        (name(ME, 1), newer, "newer"),
        (name(ME, 1), Bytes::from_static(b"something else that is longer than a segment's header"), "no segment"),
        (name(ME, 2), header(CLOUDFS, ME, 1), "does not have the name"),
        ("notes.seg".into(), Bytes::from_static(b"short"), "does not have the name"),
        (name(FilerId(2), 7), Bytes::new(), "does not have the name"),
    ] {
        let disk = MemoryDisk::new();
        disk.write(&name(ME, 0), 0, vec![torn.clone()]).await.expect("there is room");
        disk.write(&file, 0, vec![bytes.clone()]).await.expect("there is room");
        let refused = reopen(&disk, 9).await.err().expect("it is foreign").to_string();
        assert!(refused.contains(why) || why == "newer" && refused.contains("version 99"), "{file}: {refused}");
        assert_eq!(disk.read(&file, 0, usize::MAX).await.expect("it is there"), bytes);
        assert_eq!(disk.read(&name(ME, 0), 0, usize::MAX).await.expect("it is there"), torn, "nothing was changed");
    }
}

/// Three frames in a closed segment that is on disk alone.
async fn three_frames(disk: &MemoryDisk) -> (Staging, [Extent; 3], Closed) {
    let staging = open(disk.clone(), Settings { memory_bytes_max: 0, ..BOOT_SETTINGS }).await;
    let extents = [append(&staging, "first").await, append(&staging, "second").await, append(&staging, "third").await];
    let closed = staging.next_closed().await;
    staging.finish(closed.segment).await.expect("the disk works");
    (staging, extents, closed)
}

fn flip(disk: &MemoryDisk, segment: SegmentId, at: u32) {
    assert!(disk.flip(&staging_file(segment), at as usize, 3));
}

#[tokio::test(start_paused = true)]
async fn one_flipped_bit_costs_one_frame_whether_sealed_or_not() {
    for sealed in [true, false] {
        for at in [0, 20, 56, 60] {
            let disk = MemoryDisk::new();
            let (_, [first, second, third], closed) = three_frames(&disk).await;
            if !sealed {
                let end = u64::from(third.frame_at + third.frame_len);
                disk.truncate(&staging_file(closed.segment), end).await.expect("it is there");
            }
            flip(&disk, closed.segment, second.frame_at + at);
            for boot in 2..4 {
                let (staging, recovered) = reopen(&disk, boot).await.expect("it is ours");
                assert_eq!((recovered[0].bytes, recovered[0].cut_bytes), (closed.bytes, 0));
                let damaged: Vec<_> = recovered[0].damaged.iter().map(|damage| damage.range.clone()).collect();
                let range = u64::from(second.frame_at)..u64::from(third.frame_at);
                assert_eq!(damaged, if boot == 2 { vec![range] } else { vec![] }, "told once");
                assert!(staging.is_doubtful(closed.segment), "until somebody has looked in the clouds");
                assert_eq!(staging.status().damaged_frames, u64::from(boot == 2));
                assert_eq!(read(&staging, &first).await.as_deref(), Some(&b"first"[..]));
                assert_eq!(read(&staging, &third).await.as_deref(), Some(&b"third"[..]));
                let raw = staging.read(second.segment, second.frame_at.into(), second.frame_len as usize).await;
                let frame = decode_frame(&raw.expect("the disk works").expect("it is here"));
                assert!(matches!(frame, Err(FrameError::Lost { .. })), "{frame:?}");
                let body = staging.body(closed.segment).await.expect("what it says of itself is right");
                assert_eq!(Md5::of(&body), recovered[0].md5);
                disk.crash();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_segment_of_one_damaged_frame_is_kept_and_says_so() {
    let disk = MemoryDisk::new();
    let staging = open(disk.clone(), BOOT_SETTINGS).await;
    let only = append(&staging, "only").await;
    staging.sync(only.segment).await.expect("the disk works");
    flip(&disk, only.segment, only.frame_at + only.frame_len - 1);
    let (staging, recovered) = reopen(&disk, 2).await.expect("it is ours");
    assert_eq!((recovered.len(), recovered[0].damaged.len()), (1, 1));
    assert!(staging.holds(only.segment));
    assert_eq!(read(&staging, &only).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_header_or_index_is_written_again() {
    let disk = MemoryDisk::new();
    let (_, extents, closed) = three_frames(&disk).await;
    // Magic, version, CloudFS, checksum; then index and footer.
    for at in [2, 6, 9, 38, closed.bytes as u32 - 30, closed.bytes as u32 - 10, closed.bytes as u32 - 1] {
        flip(&disk, closed.segment, at);
        let (staging, recovered) = reopen(&disk, 2).await.expect("its name and its frames say whose it is");
        assert_eq!((recovered[0].md5, recovered[0].bytes), (closed.md5, closed.bytes), "mended at byte {at}");
        assert!(recovered[0].damaged.is_empty() && !staging.is_doubtful(closed.segment));
        staging.body(closed.segment).await.expect("it is right");
        assert_eq!(read(&staging, &extents[2]).await.as_deref(), Some(&b"third"[..]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_went_bad_on_disk_is_noticed_and_what_is_left_of_it_is_mended() {
    let disk = MemoryDisk::new();
    let (staging, [first, second, _], closed) = three_frames(&disk).await;
    staging.body(closed.segment).await.expect("it is right");
    flip(&disk, closed.segment, second.frame_at + 58);
    let body = staging.body(closed.segment).await;
    assert!(matches!(body, Err(StagingError::Damaged { .. })), "no cloud gets damaged data: {body:?}");
    let (md5, bytes) = staging.mend(closed.segment).await.expect("two frames are left");
    assert!(md5 != closed.md5 && bytes == closed.bytes && staging.md5(closed.segment) == Some(md5));
    let body = staging.body(closed.segment).await.expect("it is mended");
    assert_eq!(Md5::of(&body), md5);
    assert_eq!(read(&staging, &first).await.as_deref(), Some(&b"first"[..]));
    assert_eq!((read(&staging, &second).await, staging.status().damaged_frames), (None, 1));
    staging.check();
    // The same file cut short, as by a file system's own repair.
    disk.truncate(&staging_file(closed.segment), second.frame_at.into()).await.expect("it is there");
    let body = staging.body(closed.segment).await;
    assert!(matches!(body, Err(StagingError::Damaged { .. })), "{body:?}");
    let (md5, bytes) = staging.mend(closed.segment).await.expect("a frame is left");
    assert!(bytes < closed.bytes);
    staging.check();
    disk.crash();
    let (_, recovered) = reopen(&disk, 2).await.expect("it is ours");
    assert_eq!((recovered[0].md5, recovered[0].bytes), (md5, bytes), "mended durably");
}

/// Sectors that cannot be read, by what they hold; and which of three frames, of three sectors each, that costs.
#[tokio::test(start_paused = true)]
async fn a_sector_that_cannot_be_read_costs_what_it_covers_and_the_start_goes_on() {
    let settings = Settings {
        segment_bytes_max: 1 << 20,
        seal_idle_bytes_min: 1 << 17,
        frame_bytes_max: 3 << 12,
        ..BOOT_SETTINGS
    };
    for (bad, sealed, lost) in [
        (vec![5 << 12], true, vec![1]),
        (vec![5 << 12], false, vec![1]),
        // The header of the segment, with that of the first frame.
        (vec![0], true, vec![0]),
        (vec![0], false, vec![0]),
        // The end: of the last frame alone, or with index and footer.
        (vec![8 << 12], false, vec![2]),
        (vec![9 << 12], true, vec![2]),
        (vec![9 << 12], false, vec![2]),
        // Two frames meet here.
        (vec![3 << 12], true, vec![0, 1]),
        (vec![0, 9 << 12], true, vec![0, 2]),
        ((0..10).map(|sector| sector << 12).collect(), true, vec![0, 1, 2]),
        ((0..10).map(|sector| sector << 12).collect(), false, vec![0, 1, 2]),
    ] {
        let disk = MemoryDisk::new();
        let staging = open(disk.clone(), settings.clone()).await;
        let mut extents = Vec::new();
        for file in FILES {
            extents.extend(staging.append(file, 0, noise(3 << 12)).await.expect("there is room"));
        }
        let segment = extents[0].segment;
        if sealed {
            staging.next_closed().await;
        }
        staging.sync(segment).await.expect("the disk works");
        drop(staging);
        for at in &bad {
            assert!(disk.make_unreadable(&staging_file(segment), *at), "{at}");
        }
        for boot in 2..4 {
            let case = format!("{bad:?}, sealed: {sealed}, boot {boot}");
            let (staging, recovered) = reopen(&disk, boot).await.expect("the rest of it can be read");
            assert_eq!((recovered.len(), recovered[0].segment), (1, segment), "{case}");
            assert_eq!(!recovered[0].damaged.is_empty(), boot == 2, "told once: {case}");
            assert!(staging.is_doubtful(segment), "{case}");
            for (number, extent) in extents.iter().enumerate() {
                let found = read(&staging, extent).await;
                assert_eq!(found, (!lost.contains(&number)).then(|| noise(3 << 12)), "frame {number}: {case}");
            }
            let body = staging.body(segment).await.expect("what it says of itself is right");
            assert_eq!(Md5::of(&body), recovered[0].md5, "{case}");
            disk.crash();
        }
    }
}

/// Index and footer say nothing that the frames do not say.
#[tokio::test(start_paused = true)]
async fn an_index_that_cannot_be_read_costs_nothing() {
    let settings = Settings {
        segment_bytes_max: 1 << 20,
        seal_idle_bytes_min: 1 << 17,
        frame_bytes_max: 4096 - 96,
        ..BOOT_SETTINGS
    };
    let disk = MemoryDisk::new();
    let staging = open(disk.clone(), settings).await;
    // Header and one frame are a sector.
    staging.append(FILES[0], 0, noise(4096 - 96)).await.expect("there is room");
    let closed = staging.next_closed().await;
    staging.finish(closed.segment).await.expect("the disk works");
    assert!(disk.make_unreadable(&staging_file(closed.segment), 4096));
    let (staging, recovered) = reopen(&disk, 2).await.expect("the frame can be read");
    assert_eq!((recovered[0].md5, recovered[0].lost_frames), (closed.md5, 0));
    staging.body(closed.segment).await.expect("it is written anew");
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_cannot_be_read_is_kept_in_memory_while_the_disk_is_full() {
    let disk = MemoryDisk::new();
    let (staging, _, closed) = three_frames(&disk).await;
    drop(staging);
    assert!(disk.make_unreadable(&staging_file(closed.segment), 0));
    disk.set_bytes_max(Some(closed.bytes + 10));
    let (staging, recovered) = reopen(&disk, 2).await.expect("a full disk keeps no filer from starting");
    assert_eq!(recovered[0].lost_frames, 1, "all that is in the sector");
    let body = staging.body(closed.segment).await.expect("it is in memory");
    assert_eq!(Md5::of(&body), recovered[0].md5);
    staging.check();
    disk.set_bytes_max(None);
    staging.finish(closed.segment).await.expect("there is room");
    staging.check();
    disk.crash();
    let (_, again) = reopen(&disk, 3).await.expect("it is ours");
    assert_eq!(again[0].md5, recovered[0].md5);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_segment_is_restored_from_where_it_is_right() {
    let disk = MemoryDisk::new();
    let (staging, [_, second, _], closed) = three_frames(&disk).await;
    let right = staging.body(closed.segment).await.expect("it is right");
    flip(&disk, closed.segment, second.frame_at + 58);
    staging.restore(closed.segment, right.clone(), closed.md5).await.expect("there is room");
    assert_eq!(staging.body(closed.segment).await.expect("it is right"), right);
    staging.check();
    disk.crash();
    let (staging, recovered) = reopen(&disk, 2).await.expect("it is ours");
    assert_eq!((recovered[0].md5, recovered[0].damaged.len()), (closed.md5, 0), "restored durably");
    assert_eq!(read(&staging, &second).await.as_deref(), Some(&b"second"[..]));
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

#[tokio::test(start_paused = true)]
async fn a_power_cut_between_any_two_steps_from_sealing_to_removal_loses_nothing() {
    for (operations, kept) in (0..12).flat_map(|operations| [0, 100, 255].map(|kept| (operations, kept))) {
        let disk = FaultyDisk::default();
        let staging = open(disk.clone(), BOOT_SETTINGS).await;
        let cache = DiskCache::open(Arc::new(disk.clone()), &Default::default()).await.expect("the disk works");
        let extent = append(&staging, "kept").await;
        staging.sync(extent.segment).await.expect("the disk works");
        append(&staging, "not acknowledged").await;
        disk.cut_power_after(operations);
        let closed = staging.next_closed().await;
        if staging.finish(closed.segment).await.is_ok() {
            let bytes = staging.release(closed.segment).await.expect("it is here");
            cache.adopt(closed.segment, &staging_file(closed.segment), bytes).await;
            // Makes the change of its name durable, or finds no power.
            let _ = append(&staging, "next").await;
            let _ = staging.sync(staging.unreleased()[0].0).await;
        }
        disk.crash(kept, true).await;
        let (staging, recovered) = reopen(&disk.inner, 2).await.expect("it is ours");
        let cache = DiskCache::open(Arc::new(disk.inner.clone()), &Default::default()).await.expect("the disk works");
        let (at, len) = (u64::from(extent.frame_at), extent.frame_len as usize);
        let raw = match staging.read(extent.segment, at, len).await.expect("the disk works") {
            Some(raw) => raw,
            None => cache.read(extent.segment, at, len).await.expect("in one of them"),
        };
        assert_eq!(decode_frame(&raw).expect("it is whole").data, "kept", "after {operations} operations");
        assert!(recovered.iter().all(|found| found.damaged.is_empty()), "a torn write is no damage");
    }
}
