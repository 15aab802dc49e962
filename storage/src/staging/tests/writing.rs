//! Syncs: many share one, one that fails is made good, and whoever waits for one may go away.

use super::{BOOT_SETTINGS, FILES, append, disk::FaultyDisk, noise, open, read, reopen};
use crate::{
    disk::{Disk, DiskError},
    staging::{Settings, StagingError},
};
use bytes::Bytes;
use futures::future::join_all;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

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
