//! How much memory a thread holds, and what a read costs of it.

use super::{
    client::user,
    world::{World, settings},
};
use crate::{
    filer::Settings,
    fs::{FileSystem, Stable},
};
use bytes::Bytes;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};
use storage::{cache, cloudfs::Handle, staging};

thread_local! {
    /// Bytes that this thread holds, and the most since a test asked.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// The system's memory, counted for each thread. A test's filers run on one thread.
struct Counted;

#[global_allocator]
static COUNTED: Counted = Counted;

fn count(bytes: isize) {
    // A thread that ends has no count any more.
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        held.set((now + bytes, most.max(now + bytes)));
    });
}

// SAFETY: all is the system's; counting allocates nothing.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes as isize - layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

/// The most bytes that this thread comes to hold during `work`, beyond what it held before.
async fn most_held<T>(work: impl Future<Output = T>) -> (T, usize) {
    let before = HELD.get().0;
    HELD.set((before, before));
    let done = work.await;
    (done, (HELD.get().1 - before) as usize)
}

const MIB: usize = 1 << 20;

/// Frames as large as they get, and little memory for them.
fn large_frames() -> Settings {
    Settings {
        staging: staging::Settings::default(),
        cache: cache::Settings { memory_bytes_max: MIB as u64, ..Default::default() },
        ..settings()
    }
}

/// A file of a mebibyte whose every 4 KiB are what is left of a frame of a mebibyte that compresses to almost nothing.
async fn shingles(world: &World) -> Handle {
    let client = world.site(0).client();
    let file = client.create("a").await;
    for at in 0..MIB as u64 / 4096 {
        client.write_as(file, at * 4096, Bytes::from(vec![0; MIB]), Stable::Unstable).await.expect("a write");
    }
    client.commit(file).await;
    file
}

#[test]
fn a_read_over_many_large_frames_stays_within_its_room() {
    World::run_with(2, large_frames(), async |world| {
        let file = shingles(world).await;
        for place in ["staging", "the cache", "a cloud"] {
            if place == "the cache" {
                world.settled().await;
            }
            let site = world.site(if place == "a cloud" { 1 } else { 0 });
            let read = site.call(async move |filer| {
                let reader = user(1000);
                let reads = (0..2).map(|_| filer.vfs.read(&reader, file, 0, MIB as u32));
                most_held(futures::future::join_all(reads)).await
            });
            let (reads, most) = read.await;
            for read in reads {
                assert!(read.expect("the data is there").data == vec![0; MIB]);
            }
            // The answers, what they are made of, one decoded frame, and what the caches keep.
            assert!(most < 16 * MIB, "from {place}: {most} bytes for two reads of a mebibyte");
        }
    });
}

#[test]
fn a_short_answer_does_not_hold_a_large_frame() {
    World::run_with(1, large_frames(), async |world| {
        let file = shingles(world).await;
        world.settled().await;
        let held = world.site(0).call(async move |filer| {
            let before = HELD.get().0;
            let mut answers = Vec::new();
            for at in 0..64 {
                let read = filer.vfs.read(&user(1000), file, at * 4096, 4096).await;
                answers.push(read.expect("the data is there").data);
            }
            (HELD.get().0 - before, answers).0
        });
        assert!(held.await < 8 * MIB as isize);
    });
}

#[test]
fn a_read_over_very_many_extents_gives_their_beginning_and_its_client_goes_on() {
    World::run_with(1, large_frames(), async |world| {
        let client = world.site(0).client();
        let file = client.create("a").await;
        let mut expected = Vec::new();
        for at in 0..9000u64 {
            client.write(file, 2 * at, vec![at as u8 | 1]).await;
            expected.extend([at as u8 | 1, 0]);
        }
        expected.pop();
        for place in ["what is not on record", "the record"] {
            let beginning = client.read(file, 0, MIB as u32).await.expect("the data is there");
            assert!(beginning.len() < expected.len() && expected.starts_with(&beginning), "of {place}");
            assert!(client.read_all(file).await.expect("the data is there") == expected, "of {place}");
            client.commit(file).await;
        }
    });
}
