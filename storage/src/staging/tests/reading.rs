//! What is read back, whatever is asked and whatever happens beside it.

use super::{BOOT_SETTINGS, append, open, read};
use crate::{
    disk::MemoryDisk,
    staging::{Settings, StagingError, staging_file},
};

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
