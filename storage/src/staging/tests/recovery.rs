//! What a start finds: its own, on a full disk too and behind any power cut, and never another's.

use super::{BOOT_SETTINGS, CLOUDFS, FILES, ME, append, disk::FaultyDisk, noise, open, read, reopen};
use crate::{
    cache::DiskCache,
    disk::{Disk, MemoryDisk},
    ids::{Md5, SegmentId},
    segment::{Header, Packer, decode_frame},
    staging::staging_file,
};
use bytes::Bytes;
use mesh::FilerId;
use std::sync::Arc;

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
        let (body, _) = staging.body(safe.segment).await.expect("it is here");
        assert_eq!((Md5::of(&body), body.len() as u64), (found.md5, found.bytes));
        assert_eq!(read(&staging, &safe).await.as_deref(), Some(&b"safe"[..]));
        staging.check();
        assert_eq!(staging.release(safe.segment).await, Some(found.bytes));
        staging.check();
    }
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
        let sum = crc32c::crc32c(&bytes[..36]);
        bytes[36..40].copy_from_slice(&sum.to_le_bytes());
        Bytes::from(bytes)
    };
    let torn = header(CLOUDFS, ME, 0).slice(..150);
    for (file, bytes, why) in [
        (name(FilerId(2), 1), header(CLOUDFS, FilerId(2), 1), "belongs to filer"),
        (name(ME, 1), header(CLOUDFS + 1, ME, 1), "belongs to filer"),
        (name(ME, 1), newer, "newer"),
        (
            name(ME, 1),
            Bytes::from_static(b"something else that is longer than a segment's header"),
            "is no segment of this filer",
        ),
        (name(ME, 2), header(CLOUDFS, ME, 1), "does not have the name"),
        ("notes.seg".into(), Bytes::from_static(b"short"), "does not have the name"),
        (name(FilerId(2), 7), Bytes::new(), "does not have the name"),
    ] {
        let disk = MemoryDisk::new();
        disk.write(&name(ME, 0), 0, vec![torn.clone()]).await.expect("there is room");
        disk.write(&file, 0, vec![bytes.clone()]).await.expect("there is room");
        let refused = reopen(&disk, 9).await.err().expect("it is foreign").to_string();
        assert!(why != "is no segment of this filer" || refused.contains("move it out"), "{refused}");
        assert!(refused.contains(why) || why == "newer" && refused.contains("version 99"), "{file}: {refused}");
        assert_eq!(disk.read(&file, 0, usize::MAX).await.expect("it is there"), bytes);
        assert_eq!(disk.read(&name(ME, 0), 0, usize::MAX).await.expect("it is there"), torn, "nothing was changed");
    }
}
