//! Where everything lies in the table of the replicated state.
//!
//! A key is one byte that names its family, then numbers in big-endian, so that keys sort as what they name; only a
//! file's name stands at the end as it is. Every value is a versioned record ([`mesh::record`]). Families begin at
//! 0x01: keys that begin with 0x00 belong to consensus.
//!
//! | family | key | value |
//! |---|---|---|
//! | 0x01 inodes | ino | [`Attr`](super::Attr) |
//! | 0x02 names | directory, name | [`NameRow`]: the inode, and the name's cookie |
//! | 0x03 cookies | directory, cookie | [`CookieRow`]: the name and the inode; the order of listings |
//! | 0x04 places | directory's ino | the directory's own name in its parent (the root has none) |
//! | 0x05 extents | ino, offset | [`ExtentRow`]; extents of a file never overlap, holes have no row |
//! | 0x06 segments | segment | [`Segment`](super::Segment) |
//! | 0x07 dead segments | dead since, segment | nothing |
//! | 0x08 misses | cloud, segment | [`MissRow`]: kind, and since when |
//! | 0x09 misses by age | cloud, since, segment | nothing |
//! | 0x0a roles | | [`Roles`](super::Roles) |
//! | 0x0b counters | | [`Counters`] |
//! | 0x0c decisions | number | [`Decision`](super::Decision) |
//! | 0x0d orphans | ino | [`OrphanRow`]: what of the file's extents is cut off, and is still to be reaped |
//! | 0x0e leaving filers | filer | nothing; stays when the filer is removed |
//! | 0x20 secret of the doors | | [`DoorSecret`](super::DoorSecret) |

use super::{
    time::Heard,
    types::{Extent, MissKind, Totals},
};
use crate::ids::{CloudId, SegmentId};
use mesh::FilerId;
use serde::{Deserialize, Serialize};

/// Format version of every row of the state.
pub(super) const ROW_VERSION: u8 = 2;

pub(super) const INODES: u8 = 0x01;
pub(super) const NAMES: u8 = 0x02;
pub(super) const COOKIES: u8 = 0x03;
pub(super) const PLACES: u8 = 0x04;
pub(super) const EXTENTS: u8 = 0x05;
pub(super) const SEGMENTS: u8 = 0x06;
pub(super) const DEAD: u8 = 0x07;
pub(super) const MISSES: u8 = 0x08;
pub(super) const MISS_AGES: u8 = 0x09;
pub(super) const ROLES: u8 = 0x0a;
pub(super) const COUNTERS: u8 = 0x0b;
pub(super) const DECISIONS: u8 = 0x0c;
pub(super) const ORPHANS: u8 = 0x0d;
pub(super) const LEAVING: u8 = 0x0e;
pub(super) const DOOR_SECRET: u8 = 0x20;

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NameRow {
    pub ino: u64,
    pub cookie: u64,
}

/// The other way round: what stands at a cookie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CookieRow {
    pub name: Vec<u8>,
    pub ino: u64,
}

/// An extent, and when it was laid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ExtentRow {
    pub extent: Extent,
    /// The number that the next cut was to have: cuts of at least this number are later than the extent.
    pub next_cut: u64,
}

/// A file's end that was taken away all at once, while its extents are still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cut {
    /// The first byte that was taken away.
    pub from: u64,
    /// Cuts are numbered in their order, over all files.
    pub number: u64,
}

/// What of a file (which may be gone) is cut off and is still to be reaped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OrphanRow {
    /// In their order. One that begins before earlier ones says all that they say, and takes their place: so from each
    /// to the next, both fields rise.
    pub cuts: Vec<Cut>,
    /// Extents that begin before this byte of the file are reaped.
    pub reaped_to: u64,
}

impl OrphanRow {
    /// Whether an extent is cut off: it lies behind a cut that is later than it.
    pub fn has(&self, row: &ExtentRow) -> bool {
        let behind = self.cuts.partition_point(|cut| cut.from <= row.extent.offset);
        // The latest of the cuts that it lies behind.
        self.cuts[..behind].last().is_some_and(|cut| cut.number >= row.next_cut)
    }
}

/// A row of the missed-write log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MissRow {
    pub kind: MissKind,
    pub since_ns: u64,
}

/// Numbers that are handed out once, and sums that are kept up to date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counters {
    /// The number that the CloudFS was formatted with.
    pub cloudfs: u64,
    pub next_ino: u64,
    pub next_cookie: u64,
    pub next_decision: u64,
    pub next_cut: u64,
    /// The newest time that any operation had, in nanoseconds since the Unix epoch.
    pub newest_ns: u64,
    /// What filers' clocks showed lately.
    pub clocks: Vec<Heard>,
    pub totals: Totals,
}

/// A family's key: its byte, then the parts.
fn key(family: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(family);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

pub(super) fn inode(ino: u64) -> Vec<u8> {
    key(INODES, &[&ino.to_be_bytes()])
}

pub(super) fn name(dir: u64, name: &[u8]) -> Vec<u8> {
    key(NAMES, &[&dir.to_be_bytes(), name])
}

pub(super) fn cookie(dir: u64, cookie: u64) -> Vec<u8> {
    key(COOKIES, &[&dir.to_be_bytes(), &cookie.to_be_bytes()])
}

pub(super) fn place(dir: u64) -> Vec<u8> {
    key(PLACES, &[&dir.to_be_bytes()])
}

pub(super) fn extent(ino: u64, offset: u64) -> Vec<u8> {
    key(EXTENTS, &[&ino.to_be_bytes(), &offset.to_be_bytes()])
}

pub(super) fn segment(id: SegmentId) -> Vec<u8> {
    key(SEGMENTS, &[&id.to_bytes()])
}

pub(super) fn dead(since_ns: u64, id: SegmentId) -> Vec<u8> {
    key(DEAD, &[&since_ns.to_be_bytes(), &id.to_bytes()])
}

pub(super) fn miss(cloud: CloudId, id: SegmentId) -> Vec<u8> {
    key(MISSES, &[&[cloud.index() as u8], &id.to_bytes()])
}

pub(super) fn miss_age(cloud: CloudId, since_ns: u64, id: SegmentId) -> Vec<u8> {
    key(MISS_AGES, &[&[cloud.index() as u8], &since_ns.to_be_bytes(), &id.to_bytes()])
}

pub(super) fn roles() -> Vec<u8> {
    key(ROLES, &[])
}

pub(super) fn counters() -> Vec<u8> {
    key(COUNTERS, &[])
}

pub(super) fn decision(number: u64) -> Vec<u8> {
    key(DECISIONS, &[&number.to_be_bytes()])
}

pub(super) fn orphan(ino: u64) -> Vec<u8> {
    key(ORPHANS, &[&ino.to_be_bytes()])
}

pub(super) fn leaving(filer: FilerId) -> Vec<u8> {
    key(LEAVING, &[&filer.0.to_be_bytes()])
}

pub(super) fn door_secret() -> Vec<u8> {
    key(DOOR_SECRET, &[])
}

/// All keys of a family that continue with `part`.
pub(super) fn prefix(family: u8, part: &[u8]) -> Vec<u8> {
    key(family, &[part])
}

/// The big-endian number at `at` of a key.
pub(super) fn number_at(key: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(at..at + 8)?.try_into().ok()?))
}

/// The segment that ends a key.
pub(super) fn segment_at_end(key: &[u8]) -> Option<SegmentId> {
    SegmentId::from_bytes(key.get(key.len().checked_sub(16)?..)?)
}
