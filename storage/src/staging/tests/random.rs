//! Any order of appends, syncs, closes, releases, failures and power cuts: what was acknowledged is there.

use super::{BOOT_SETTINGS, CLOUDFS, FILES, ME, NoClock, disk::FaultyDisk};
use crate::cloudfs::Extent;
use crate::{
    disk::Disk,
    ids::{Md5, SegmentId},
    segment::{Header, check_object, decode_frame},
    staging::{Recovered, Staging, staging_file},
};
use bytes::Bytes;
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

const HEADER_BYTES: u64 = crate::segment::HEADER_BYTES as u64;

#[derive(Clone, Debug)]
enum Action {
    Append {
        file: usize,
        bytes: usize,
        compressible: bool,
    },
    /// Syncs the segment of the newest append.
    Sync,
    Close,
    /// Finishes the next closed segment.
    Finish,
    /// Releases the oldest finished segment.
    Release,
    Crash {
        kept: u8,
        flip: bool,
        /// The disk flips a bit: of which file, where (in parts of 65,536), which one.
        rot: Option<(u8, u16, u8)>,
    },
    /// The power goes in the middle of what comes next.
    CutPower {
        operations: u64,
    },
    FailSyncs,
    FullDisk,
    EmptyDisk,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        8 => (0..FILES.len(), 1usize..600, any::<bool>())
            .prop_map(|(file, bytes, compressible)| Action::Append { file, bytes, compressible }),
        4 => Just(Action::Sync),
        1 => Just(Action::Close),
        2 => Just(Action::Finish),
        1 => Just(Action::Release),
        2 => (any::<u8>(), any::<bool>(), prop::option::of(any::<(u8, u16, u8)>()))
            .prop_map(|(kept, flip, rot)| Action::Crash { kept, flip, rot }),
        1 => (0u64..6).prop_map(|operations| Action::CutPower { operations }),
        1 => Just(Action::FailSyncs),
        1 => Just(Action::FullDisk),
        2 => Just(Action::EmptyDisk),
    ];
    prop::collection::vec(action, 1..60)
}

struct Piece {
    extent: Extent,
    data: Bytes,
    acknowledged: bool,
}

struct Run {
    disk: FaultyDisk,
    staging: Staging,
    boot: u32,
    pieces: Vec<Piece>,
    finished: BTreeMap<SegmentId, (Md5, u64)>,
    used: BTreeSet<SegmentId>,
    written: u64,
}

impl Run {
    async fn start() -> Self {
        let disk = FaultyDisk::default();
        let (staging, _) = recover(&disk, 1).await;
        let (pieces, finished, used) = Default::default();
        Self { disk, staging, boot: 1, pieces, finished, used, written: 0 }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Append { file, bytes, compressible } => {
                self.written += 1;
                let (number, offset) = (self.written, self.written * 1000);
                let byte = |at: usize| if compressible { number } else { ((number + at as u64) * 2_654_435_761) >> 7 };
                let data: Bytes = (0..bytes).map(|at| byte(at) as u8).collect();
                let Ok(extents) = self.staging.append(FILES[file], offset, data.clone()).await else {
                    return;
                };
                for extent in extents {
                    let from = (extent.offset - offset) as usize;
                    let data = data.slice(from..from + extent.len as usize);
                    self.pieces.push(Piece { extent, data, acknowledged: false });
                }
            }
            Action::Sync => {
                let Some(segment) = self.pieces.last().map(|piece| piece.extent.segment) else {
                    return;
                };
                if self.staging.sync(segment).await.is_ok() {
                    self.acknowledge(segment);
                }
            }
            Action::Close => self.staging.close(&mut self.staging.lock()),
            Action::Finish => {
                let next = tokio::time::timeout(std::time::Duration::ZERO, self.staging.next_closed()).await;
                if let Ok(closed) = next
                    && self.staging.finish(closed.segment).await.is_ok()
                {
                    self.acknowledge(closed.segment);
                    self.finished.insert(closed.segment, (closed.md5, closed.bytes));
                }
            }
            Action::Release => {
                if let Some((segment, (_, bytes))) = self.finished.pop_first() {
                    assert_eq!(self.staging.release(segment).await, Some(bytes));
                    self.pieces.retain(|piece| piece.extent.segment != segment);
                    self.disk.inner.remove(&staging_file(segment)).await.expect("memory does not fail");
                }
            }
            Action::Crash { kept, flip, rot } => self.crash(kept, flip, rot).await,
            Action::CutPower { operations } => {
                self.disk.cut_power_after(operations);
                return;
            }
            Action::FailSyncs => self.disk.fail_syncs(1),
            Action::FullDisk => self.disk.inner.set_bytes_max(Some(self.disk.inner.used_bytes() + 100)),
            Action::EmptyDisk => self.disk.inner.set_bytes_max(None),
        }
        self.staging.check();
        self.read_all(false).await;
    }

    fn acknowledge(&mut self, segment: SegmentId) {
        self.pieces
            .iter_mut()
            .filter(|piece| piece.extent.segment == segment)
            .for_each(|piece| piece.acknowledged = true);
    }

    /// Flips a bit of a file, behind its header: nobody acknowledges the frame that it hits any more.
    async fn rot(&mut self, (file, at, bit): (u8, u16, u8)) {
        let files = self.disk.inner.list().await.expect("memory does not fail");
        let old: Vec<_> =
            files.iter().filter(|file| file.name.ends_with(".seg") && file.bytes > HEADER_BYTES).collect();
        let Some(file) = old.get(usize::from(file) % old.len().max(1)) else {
            return;
        };
        let at = HEADER_BYTES + (file.bytes - HEADER_BYTES) * u64::from(at) / 65_536;
        assert!(self.disk.inner.flip(&file.name, at as usize, bit));
        for Piece { extent, acknowledged, .. } in &mut self.pieces {
            let frame = u64::from(extent.frame_at)..u64::from(extent.frame_at) + u64::from(extent.frame_len);
            if staging_file(extent.segment) == file.name && frame.contains(&at) {
                *acknowledged = false;
            }
        }
        self.finished.retain(|segment, _| staging_file(*segment) != file.name);
    }

    async fn crash(&mut self, kept: u8, flip: bool, mut rot: Option<(u8, u16, u8)>) {
        self.used.extend(self.pieces.iter().map(|piece| piece.extent.segment));
        let mut tries = 0;
        let recovered = loop {
            self.disk.crash(kept, flip).await;
            if let Some(rot) = rot.take() {
                self.rot(rot).await;
            }
            self.boot += 1;
            if tries < 2 {
                // The power goes again, in the middle of the recovery.
                self.disk.cut_power_after(u64::from(kept) % 13);
            }
            tries += 1;
            let clock = Arc::new(NoClock);
            let opened =
                Staging::recover(ME, CLOUDFS, self.boot, BOOT_SETTINGS, Arc::new(self.disk.clone()), clock).await;
            match opened {
                Ok((staging, recovered)) => {
                    self.disk.cut_power_after(u64::MAX);
                    self.staging = staging;
                    break recovered;
                }
                Err(error) => assert!(tries <= 2, "recovery fails without a reason: {error}"),
            }
        };
        for (segment, sealed) in &self.finished {
            let found = recovered.iter().find(|found| found.segment == *segment);
            assert_eq!(found.map(|found| (found.md5, found.bytes)), Some(*sealed), "a sealed segment changed");
        }
        self.finished.clear();
        self.read_all(true).await;
        for Recovered { segment, md5, bytes, .. } in recovered {
            let (body, is) = self.staging.body(segment).await.expect("it was recovered");
            assert_eq!((Md5::of(&body), is, body.len() as u64), (md5, md5, bytes));
            assert_eq!(check_object(&Header { cloudfs: CLOUDFS, segment }, &body), Ok(()));
            self.used.insert(segment);
            self.finished.insert(segment, (md5, bytes));
        }
        let new = self.staging.append(FILES[0], 0, Bytes::from_static(b"new")).await;
        for extent in new.unwrap_or_default() {
            assert!(!self.used.contains(&extent.segment), "segment {} is used twice", extent.segment);
            self.pieces.push(Piece { extent, data: Bytes::from_static(b"new"), acknowledged: false });
        }
    }

    /// Every piece reads back; after a crash, those that nobody acknowledged may be gone, but are never wrong.
    async fn read_all(&mut self, after_crash: bool) {
        self.disk.cut_power_after(u64::MAX);
        let mut gone = BTreeSet::new();
        for (at, Piece { extent, data, acknowledged }) in self.pieces.iter().enumerate() {
            let len = extent.frame_len as usize;
            let raw = self.staging.read(extent.segment, extent.frame_at.into(), len).await.expect("the disk works");
            let frame = raw.and_then(|raw| decode_frame(&raw).ok());
            match frame {
                Some(frame) => assert_eq!(frame.data, *data),
                None if after_crash && !acknowledged => {
                    gone.insert(at);
                }
                None => panic!("{extent:?} is lost"),
            }
        }
        let mut at = 0;
        self.pieces.retain(|_| {
            at += 1;
            !gone.contains(&(at - 1))
        });
        // What a recovery kept is synced.
        if after_crash {
            self.pieces.iter_mut().for_each(|piece| piece.acknowledged = true);
        }
    }
}

async fn recover(disk: &FaultyDisk, boot: u32) -> (Staging, Vec<Recovered>) {
    let opened = Staging::recover(ME, CLOUDFS, boot, BOOT_SETTINGS, Arc::new(disk.clone()), Arc::new(NoClock)).await;
    opened.expect("the disk is well")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2048, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_is_there_after_any_crash(actions in actions()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let mut run = Run::start().await;
            for action in actions {
                run.act(action).await;
            }
            run.disk.inner.set_bytes_max(None);
            run.crash(128, true, None).await;
        });
    }
}
