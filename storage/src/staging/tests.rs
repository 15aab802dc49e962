//! Tests of staging, by what they are about; and what they share: small limits, a clock that stands, short ways to append
//! and to read.

use super::*;
use crate::{disk::MemoryDisk, segment::decode_frame};

mod disk;
mod mending;
mod random;
mod reading;
mod recovery;
mod room;
mod sealing;
mod writing;

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
    seal_idle_alone_ms: 1000,
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
