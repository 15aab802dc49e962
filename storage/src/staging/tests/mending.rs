//! Damage: flipped bits, sectors that cannot be read, files cut short. It costs the damaged frames alone.

use super::{BOOT_SETTINGS, CLOUDFS, FILES, ME, NoClock, append, disk::FaultyDisk, noise, open, read, reopen};
use crate::{
    cloudfs::Extent,
    disk::{Disk, MemoryDisk},
    ids::{Md5, SegmentId},
    segment::{FrameError, decode_frame},
    staging::{Closed, Settings, Staging, StagingError, staging_file},
};
use std::sync::Arc;

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
                let (body, _) = staging.body(closed.segment).await.expect("what it says of itself is right");
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

/// Found by seed 16 of the scene `mended-while-put`: the filer did not start.
#[tokio::test(start_paused = true)]
async fn a_segment_with_a_damaged_header_and_no_whole_frame_is_known_by_what_else_is_right_in_it() {
    for sealed in [true, false] {
        let disk = MemoryDisk::new();
        let staging = open(disk.clone(), Settings { memory_bytes_max: 0, ..BOOT_SETTINGS }).await;
        let (first, second) = (append(&staging, "first").await, append(&staging, "second").await);
        if sealed {
            staging.next_closed().await;
        }
        staging.sync(first.segment).await.expect("the disk works");
        for at in [2, first.frame_at + first.frame_len - 1, second.frame_at + second.frame_len - 1] {
            flip(&disk, first.segment, at);
        }
        let (staging, recovered) = reopen(&disk, 2).await.expect("index and marks of frames say whose it is");
        assert_eq!((recovered.len(), recovered[0].damaged.len()), (1, 2), "sealed: {sealed}");
        assert_eq!((read(&staging, &first).await, read(&staging, &second).await), (None, None));
    }
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
    assert!(md5 != closed.md5 && bytes == closed.bytes);
    let (body, is) = staging.body(closed.segment).await.expect("it is mended");
    assert_eq!((Md5::of(&body), is), (md5, md5));
    assert_eq!(read(&staging, &first).await.as_deref(), Some(&b"first"[..]));
    assert_eq!((read(&staging, &second).await, staging.status().damaged_frames), (None, 1));
    staging.check();
    // The same file cut short, as by a file system's own repair.
    disk.truncate(&staging_file(closed.segment), second.frame_at.into()).await.expect("it is there");
    let body = staging.body(closed.segment).await;
    assert!(matches!(body, Err(StagingError::Damaged { .. })), "{body:?}");
    let (md5, bytes) = staging.mend(closed.segment).await.expect("a frame is left");
    assert_eq!(read(&staging, &first).await.as_deref(), Some(&b"first"[..]));
    assert_eq!((read(&staging, &second).await, staging.status().damaged_frames), (None, 2), "the rest is told as lost");
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
            let (body, _) = staging.body(segment).await.expect("what it says of itself is right");
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
    let (body, _) = staging.body(closed.segment).await.expect("it is in memory");
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
    let (right, _) = staging.body(closed.segment).await.expect("it is right");
    flip(&disk, closed.segment, second.frame_at + 58);
    staging.restore(closed.segment, right.clone(), closed.md5).await.expect("there is room");
    assert_eq!(staging.body(closed.segment).await.expect("it is right"), (right, closed.md5));
    staging.check();
    disk.crash();
    let (staging, recovered) = reopen(&disk, 2).await.expect("it is ours");
    assert_eq!((recovered[0].md5, recovered[0].damaged.len()), (closed.md5, 0), "restored durably");
    assert_eq!(read(&staging, &second).await.as_deref(), Some(&b"second"[..]));
}

/// Found by seed 611403590 of the mixed scene: while the new file of a damaged segment was synced, a put got what is left of
/// it with the MD5 of what it was, and the clouds refused it.
#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_body_while_it_is_mended_gets_the_new_one_with_its_own_md5() {
    for is_unreadable in [false, true] {
        // Its syncs let others run.
        let disk = FaultyDisk::default();
        let (staging, closed) = with_damage(&disk, is_unreadable).await;
        let turn = staging.lock().entries[&closed.segment].turn.clone();
        let held = turn.lock().await;
        let (mended, put, ()) = tokio::join!(
            biased;
            staging.mend(closed.segment),
            staging.body(closed.segment),
            async move { drop(held) }
        );
        let (md5, bytes) = mended.expect("there is room");
        let (body, is) = put.expect("it is mended");
        assert_eq!((Md5::of(&body), is, body.len() as u64), (md5, md5, bytes), "unreadable: {is_unreadable}");
        assert_ne!(md5, closed.md5);
        // Who comes later does not wait for a disk that may take long.
        assert!(disk.inner.flip(&staging_file(closed.segment), 1 << 12, 1));
        assert!(matches!(staging.body(closed.segment).await, Err(StagingError::Damaged { .. })));
        let (mended, put) = tokio::join!(biased; staging.mend(closed.segment), staging.body(closed.segment));
        assert!(matches!(put, Err(StagingError::Damaged { .. })), "{put:?}");
        mended.expect("there is room");
        staging.body(closed.segment).await.expect("it is mended");
    }
}

/// A closed segment of three frames, on disk alone; a sector of the second one cannot be read, or a bit of it is flipped.
async fn with_damage(disk: &FaultyDisk, is_unreadable: bool) -> (Staging, Closed) {
    let settings =
        Settings { segment_bytes_max: 1 << 20, frame_bytes_max: 3 << 12, memory_bytes_max: 0, ..BOOT_SETTINGS };
    let staging = open(disk.clone(), settings).await;
    for file in FILES {
        staging.append(file, 0, noise(3 << 12)).await.expect("there is room");
    }
    let closed = staging.next_closed().await;
    staging.finish(closed.segment).await.expect("the disk works");
    if is_unreadable {
        assert!(disk.inner.make_unreadable(&staging_file(closed.segment), 5 << 12));
    } else {
        flip(&disk.inner, closed.segment, 5 << 12);
    }
    (staging, closed)
}

/// Wherever a replacement breaks off, nobody gets what is left of a segment with the MD5 of what it was.
#[tokio::test(start_paused = true)]
async fn a_mend_that_breaks_off_leaves_no_body_under_the_md5_of_another() {
    for is_unreadable in [false, true] {
        for passed in 0..3 {
            let disk = FaultyDisk::default();
            let (staging, closed) = with_damage(&disk, is_unreadable).await;
            disk.fail_syncs_after(passed, 1);
            let first = staging.mend(closed.segment).await;
            if first.is_err() {
                let body = staging.body(closed.segment).await;
                assert!(matches!(body, Err(StagingError::Damaged { .. })), "{body:?}");
            }
            let (md5, bytes) = staging.mend(closed.segment).await.expect("the disk works again, in a new file or not");
            let (body, is) = staging.body(closed.segment).await.expect("it is mended");
            let case = format!("unreadable: {is_unreadable}, {passed} syncs, {first:?}");
            assert_eq!((Md5::of(&body), is, body.len() as u64), (md5, md5, bytes), "{case}");
            assert_eq!(staging.status().damaged_frames, 1, "told once: {case}");
            staging.check();
        }
    }
}

/// A bad disk may try a sector for half a minute: it is not asked by each that waits.
#[tokio::test(start_paused = true)]
async fn what_was_found_damaged_is_not_read_again_before_it_is_mended() {
    let disk = FaultyDisk::default();
    let (staging, closed) = with_damage(&disk, true).await;
    let (first, second) = tokio::join!(staging.body(closed.segment), staging.body(closed.segment));
    assert!(matches!((first, second), (Err(StagingError::Damaged { .. }), Err(StagingError::Damaged { .. }))));
    disk.inner.make_readable();
    assert!(staging.body(closed.segment).await.is_err(), "it says so without a read");
    assert_eq!(staging.mend(closed.segment).await.expect("nothing is wrong with it now"), (closed.md5, closed.bytes));
    assert_eq!(staging.body(closed.segment).await.expect("it is right").1, closed.md5);
}

/// The end of a closed segment was written: nothing there is a torn write.
#[tokio::test(start_paused = true)]
async fn whatever_is_gone_of_a_closed_segment_is_told_and_reads_as_lost() {
    for (what, lost) in [("the file", 3), ("all of its bytes", 3), ("the last frame and the index", 1)] {
        let disk = MemoryDisk::new();
        let (staging, extents, closed) = three_frames(&disk).await;
        let (file, [first, _, third]) = (staging_file(closed.segment), extents);
        match what {
            "the file" => disk.remove(&file).await.expect("it is there"),
            "all of its bytes" => disk.truncate(&file, 0).await.expect("it is there"),
            _ => {
                // More bits of its mark than a frame is known by, and one of the index.
                (0..3).for_each(|at| flip(&disk, closed.segment, third.frame_at + at));
                flip(&disk, closed.segment, closed.bytes as u32 - 1);
            }
        }
        assert!(matches!(staging.body(closed.segment).await, Err(StagingError::Damaged { .. })), "{what}");
        let (md5, _) = staging.mend(closed.segment).await.expect("there is room");
        assert_ne!(md5, closed.md5, "{what}");
        let (body, is) = staging.body(closed.segment).await.expect("it is mended");
        assert_eq!((Md5::of(&body), is), (md5, md5), "{what}");
        assert_eq!(read(&staging, &first).await.is_none(), lost == 3, "{what}");
        assert_eq!((read(&staging, &third).await, staging.status().damaged_frames), (None, 1), "{what}");
        staging.check();
        disk.crash();
        let (_, recovered) = reopen(&disk, 2).await.expect("it is ours");
        assert_eq!((recovered[0].md5, recovered[0].lost_frames), (md5, 1), "{what}");
    }
}

/// A cable, a controller that begins anew: nothing can be read for a moment, and nothing is lost.
#[tokio::test(start_paused = true)]
async fn a_disk_that_was_away_for_a_moment_has_lost_nothing() {
    for at_a_start in [false, true] {
        let disk = FaultyDisk::default();
        let (mut staging, closed) = with_damage(&disk, true).await;
        (0..closed.bytes).step_by(4096).for_each(|at| {
            assert!(disk.inner.make_unreadable(&staging_file(closed.segment), at as usize));
        });
        // It comes back while the new file is synced.
        let back = async { disk.inner.make_readable() };
        if at_a_start {
            drop(staging);
            let opened = Staging::recover(ME, CLOUDFS, 2, BOOT_SETTINGS, Arc::new(disk.clone()), Arc::new(NoClock));
            let (opened, ()) = tokio::join!(biased; opened, back);
            staging = opened.expect("it is ours").0;
        } else {
            assert!(staging.body(closed.segment).await.is_err());
            let (mended, ()) = tokio::join!(biased; staging.mend(closed.segment), back);
            mended.expect_err("it is read again first");
            assert_eq!(staging.mend(closed.segment).await.expect("it is right"), (closed.md5, closed.bytes));
        }
        assert_eq!(staging.body(closed.segment).await.expect("it is right").1, closed.md5, "at a start: {at_a_start}");
        assert_eq!(staging.status().damaged_frames, 0, "at a start: {at_a_start}");
        staging.check();
    }
}

#[tokio::test(start_paused = true)]
async fn what_went_bad_in_memory_is_mended_from_the_disk() {
    let disk = MemoryDisk::new();
    let staging = open(disk.clone(), BOOT_SETTINGS).await;
    let extent = append(&staging, "right on disk").await;
    let closed = staging.next_closed().await;
    staging.finish(closed.segment).await.expect("the disk works");
    let mut wrong = staging.body(closed.segment).await.expect("it is here").0.to_vec();
    wrong[extent.frame_at as usize + 60] ^= 1;
    staging.lock().entries.get_mut(&closed.segment).expect("it is here").body = Some(wrong.into());
    staging.distrust_memory(closed.segment);
    assert_eq!(staging.body(closed.segment).await.expect("the disk is right").1, closed.md5);
    assert_eq!(staging.mend(closed.segment).await.expect("the disk is right"), (closed.md5, closed.bytes));
    let (body, md5) = staging.body(closed.segment).await.expect("it is here");
    assert_eq!((Md5::of(&body), md5), (closed.md5, closed.md5));
    staging.check();
}
