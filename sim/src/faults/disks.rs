//! Disks that go bad: bits flip, sectors cannot be read any more.

use crate::{dice::Dice, world::World};
use mesh::FilerId;
use std::ops::Range;
use storage::disk::{Disk, DiskFile, MemoryDisk, SECTOR_BYTES};

/// Which of a filer's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Segments that are in no cloud yet: what only this disk has may be lost.
    Staging,
    /// Copies of what the clouds have: nothing may be lost.
    Cache,
}

impl Part {
    fn has(self, file: &DiskFile) -> bool {
        match self {
            Self::Staging => file.name.ends_with(".seg"),
            Self::Cache => !file.name.contains(".seg"),
        }
    }
}

/// Flips bits.
pub async fn flip(world: &World, id: FilerId, number: u64, part: Part, bits: u64) {
    let dice = Dice::of(world.plan.seed, &format!("flips {number}"));
    let hit = if part == Part::Staging { "staging bits flipped" } else { "cache bits flipped" };
    damage(world, id, part, hit, &dice, bits, |disk, file, at| {
        disk.flip(&file.name, at as usize, dice.below(8) as u8).then_some(at..at + 1)
    })
    .await;
}

/// Makes sectors unreadable, for as long as their files are there.
pub async fn make_unreadable(world: &World, id: FilerId, number: u64, part: Part, sectors: u64) {
    let dice = Dice::of(world.plan.seed, &format!("sectors {number}"));
    let hit = if part == Part::Staging { "staging sectors unreadable" } else { "cache sectors unreadable" };
    damage(world, id, part, hit, &dice, sectors, |disk, file, at| {
        let from = at - at % SECTOR_BYTES as u64;
        disk.make_unreadable(&file.name, at as usize).then_some(from..from + SECTOR_BYTES as u64)
    })
    .await;
}

/// Does so much harm to some of the files that are there now. `harm` gets a file and a place in it, and gives the bytes that
/// are not what they were.
async fn damage(
    world: &World,
    id: FilerId,
    part: Part,
    hit: &'static str,
    dice: &Dice,
    times: u64,
    harm: impl Fn(&MemoryDisk, &DiskFile, u64) -> Option<Range<u64>>,
) {
    let disk = world.at(id, |site| site.files.clone());
    let mut there = disk.list().await.unwrap_or_default();
    there.retain(|file| file.bytes > 0 && part.has(file));
    for _ in 0..if there.is_empty() { 0 } else { times } {
        let file = dice.pick(&there);
        let Some(bytes) = harm(&disk, file, dice.below(file.bytes)) else {
            continue;
        };
        world.coverage.hit(hit);
        if part == Part::Staging {
            world.at(id, |site| site.damage.note(&file.name, bytes));
        }
    }
}
