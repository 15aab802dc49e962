//! Reading the state: the same functions over a change that is being made and over the tables as they stand.
//!
//! Tables in use change between two reads of them, whenever an operation is applied. So a function that reads more than
//! once takes a view that stands still ([`StandsStill`]), and so does whoever calls several that must agree.
//!
//! Every list is bounded by the caller's `limit` and goes on behind the last item of the page before. Readers take
//! inode numbers; whoever holds a client's handle uses [`node`], which checks the generation.

use super::{
    keys::{self, CookieRow, Counters, ExtentRow, MissRow, NameRow, OrphanRow, ROW_VERSION},
    types::*,
};
use crate::ids::{CloudId, SegmentId};
use bytes::Bytes;
use mesh::{
    kv::{self, Kv, KvError, KvRead, MemoryKv, Pair, STATE, Txn},
    record,
};
use serde::de::DeserializeOwned;
use std::ops::{Bound, Range};

/// How many rows one step of an endless scan reads.
pub(super) const PAGE_ROWS: usize = 1024;

/// A view of the replicated state.
pub trait StateRead {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError>;

    /// Up to `limit` pairs of `range` in key order, or from its end backwards.
    fn scan(&self, range: kv::Range<'_>, limit: usize, backwards: bool) -> Result<Vec<Pair>, KvError>;
}

/// A view that nothing changes between two reads of it: [`Kv::view`], or a change that is being made.
pub trait StandsStill: StateRead {}

impl StandsStill for Txn<'_> {}
impl StandsStill for dyn KvRead + '_ {}
/// For tests and the simulator, which write nothing meanwhile.
impl StandsStill for MemoryKv {}

impl StateRead for Txn<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Txn::get(self, key)
    }

    fn scan(&self, range: kv::Range<'_>, limit: usize, backwards: bool) -> Result<Vec<Pair>, KvError> {
        Txn::scan(self, range, limit, backwards)
    }
}

/// The table [`STATE`] of what [`KvRead`] shows.
macro_rules! state_table_of {
    ($($view:ty),*) => {$(
        impl StateRead for $view {
            fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
                KvRead::get(self, STATE, key)
            }

            fn scan(&self, range: kv::Range<'_>, limit: usize, backwards: bool) -> Result<Vec<Pair>, KvError> {
                KvRead::scan(self, STATE, range, limit, backwards)
            }
        }
    )*};
}
state_table_of!(dyn KvRead + '_, dyn Kv + '_, MemoryKv);

/// The state is not what operations leave behind: this replica is damaged.
pub(super) fn damaged(why: impl Into<String>) -> KvError {
    KvError { attempted: "reading", table: STATE.0, why: why.into() }
}

pub(super) fn decode_row<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, KvError> {
    record::decode(ROW_VERSION, value).map_err(|e| damaged(format!("the row {key:02x?}: {e}")))
}

pub(super) fn row<T: DeserializeOwned, R: StateRead + ?Sized>(kv: &R, key: &[u8]) -> Result<Option<T>, KvError> {
    kv.get(key)?.map(|value| decode_row(key, &value)).transpose()
}

/// Up to `limit` pairs whose keys begin with `prefix`; only those behind `after`, where given.
pub(super) fn page<R: StateRead + ?Sized>(
    kv: &R,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Pair>, KvError> {
    let (first, end) = kv::prefix_range(prefix);
    let first = after.map_or(first, |after| Bound::Excluded(after.to_vec()));
    kv.scan(kv::borrow_range(&(first, end)), limit, false)
}

fn segment_of(key: &[u8]) -> Result<SegmentId, KvError> {
    keys::segment_at_end(key).ok_or_else(|| damaged(format!("the key {key:02x?} names no segment")))
}

pub(super) fn number_of(key: &[u8], at: usize) -> Result<u64, KvError> {
    keys::number_at(key, at).ok_or_else(|| damaged(format!("the key {key:02x?} is too short")))
}

/// The attributes of an inode.
pub fn attr<R: StateRead + ?Sized>(kv: &R, ino: u64) -> Result<Option<Attr>, KvError> {
    row(kv, &keys::inode(ino))
}

/// The attributes of the object that a handle means; `None` when it is gone (the handle is stale).
pub fn node<R: StateRead + ?Sized>(kv: &R, handle: Handle) -> Result<Option<Attr>, KvError> {
    Ok(attr(kv, handle.ino)?.filter(|attr| attr.handle == handle))
}

/// Which inode a name in a directory stands for. `.` and `..` are not names: see [`parent`].
pub fn lookup<R: StateRead + ?Sized>(kv: &R, dir: u64, name: &[u8]) -> Result<Option<u64>, KvError> {
    Ok(name_row(kv, dir, name)?.map(|row| row.ino))
}

pub(super) fn name_row<R: StateRead + ?Sized>(kv: &R, dir: u64, name: &[u8]) -> Result<Option<NameRow>, KvError> {
    row(kv, &keys::name(dir, name))
}

/// The directory that a directory lies in (the root lies in itself); `None` for anything else.
pub fn parent<R: StateRead + ?Sized>(kv: &R, dir: u64) -> Result<Option<u64>, KvError> {
    Ok(attr(kv, dir)?.and_then(|attr| match attr.kind {
        NodeKind::Directory { parent } => Some(parent),
        _ => None,
    }))
}

/// The names from the root to a directory; `None` when it is no directory. The root's list is empty.
pub fn path_of<R: StandsStill + ?Sized>(kv: &R, dir: u64) -> Result<Option<Vec<Vec<u8>>>, KvError> {
    let mut names = Vec::new();
    let mut at = dir;
    let depth_max = totals(kv)?.inodes;
    while at != ROOT.ino {
        let (Some(up), Some(name)) = (parent(kv, at)?, row(kv, &keys::place(at))?) else {
            return Ok(None);
        };
        names.push(name);
        at = up;
        if names.len() as u64 > depth_max {
            return Err(damaged(format!("directory {dir} does not hang from the root")));
        }
    }
    names.reverse();
    Ok(Some(names))
}

/// A name in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    pub name: Vec<u8>,
    /// Where to go on behind it; at least 3, so that 1 and 2 can be `.` and `..`. Stays while the name stays.
    pub cookie: u64,
    pub ino: u64,
}

/// Up to `limit` names of a directory behind `after_cookie` (0: from the start), in order of cookie.
pub fn readdir<R: StateRead + ?Sized>(
    kv: &R,
    dir: u64,
    after_cookie: u64,
    limit: usize,
) -> Result<Vec<DirEntry>, KvError> {
    let prefix = keys::prefix(keys::COOKIES, &dir.to_be_bytes());
    let rows = page(kv, &prefix, Some(&keys::cookie(dir, after_cookie)), limit)?;
    rows.into_iter()
        .map(|(key, value)| {
            let CookieRow { name, ino } = decode_row(&key, &value)?;
            Ok(DirEntry { name, cookie: number_of(&key, 9)?, ino })
        })
        .collect()
}

/// Names in the tree behind `after`, in order of directory and name: `(directory, name, inode)`.
pub fn names<R: StateRead + ?Sized>(
    kv: &R,
    after: Option<(u64, &[u8])>,
    limit: usize,
) -> Result<Vec<(u64, Vec<u8>, u64)>, KvError> {
    let after = after.map(|(dir, name)| keys::name(dir, name));
    let rows = page(kv, &keys::prefix(keys::NAMES, &[]), after.as_deref(), limit)?;
    rows.into_iter()
        .map(|(key, value)| {
            let row: NameRow = decode_row(&key, &value)?;
            Ok((number_of(&key, 1)?, key[9..].to_vec(), row.ino))
        })
        .collect()
}

/// The extents that hold data of `range`, in order of offset and clipped to it. What lies between them is a hole and
/// reads as zeros; so does what lies between the last of them and the file's end.
pub fn extents<R: StandsStill + ?Sized>(kv: &R, ino: u64, range: Range<u64>) -> Result<Vec<Extent>, KvError> {
    first_extents(kv, ino, range, usize::MAX)
}

/// The first `limit` of [`extents`], with a range and a limit that are not empty.
pub fn first_extents<R: StandsStill + ?Sized>(
    kv: &R,
    ino: u64,
    range: Range<u64>,
    limit: usize,
) -> Result<Vec<Extent>, KvError> {
    if range.is_empty() {
        return Ok(Vec::new());
    }
    let orphan = orphan(kv, ino)?;
    let is_cut_off = |row: &ExtentRow| orphan.as_ref().is_some_and(|orphan| orphan.has(row));
    let mut found = Vec::new();
    let mut show = |rows: &[ExtentRow]| {
        let shown = rows.iter().filter(|row| !is_cut_off(row));
        let shown = shown.filter_map(|row| row.extent.clipped(range.clone()));
        let room = limit - found.len();
        found.extend(shown.take(room));
        found.len() == limit
    };
    let mut enough = show(extent_before(kv, ino, range.start)?.as_slice());
    let mut from = range.start;
    while !enough {
        let page = extents_from(kv, ino, from..range.end, PAGE_ROWS)?;
        enough = show(&page);
        match page.last() {
            Some(last) if page.len() == PAGE_ROWS => from = last.extent.end(),
            _ => break,
        }
    }
    Ok(found)
}

/// The last extent that begins before `offset`: as extents do not overlap, the only one that can reach over it.
pub(super) fn extent_before<R: StateRead + ?Sized>(
    kv: &R,
    ino: u64,
    offset: u64,
) -> Result<Option<ExtentRow>, KvError> {
    let first = keys::extent(ino, offset.saturating_sub(u64::from(u32::MAX)));
    let rows = kv.scan((Bound::Included(&first[..]), Bound::Excluded(&keys::extent(ino, offset)[..])), 1, true)?;
    rows.first().map(|(key, value)| decode_row(key, value)).transpose()
}

/// The first `limit` extents that begin in `range`, whole.
pub(super) fn extents_from<R: StateRead + ?Sized>(
    kv: &R,
    ino: u64,
    range: Range<u64>,
    limit: usize,
) -> Result<Vec<ExtentRow>, KvError> {
    let (start, end) = (keys::extent(ino, range.start), keys::extent(ino, range.end));
    let rows = kv.scan((Bound::Included(&start[..]), Bound::Excluded(&end[..])), limit, false)?;
    rows.into_iter().map(|(key, value)| decode_row(&key, &value)).collect()
}

/// What of a file is cut off and still to be reaped.
pub(super) fn orphan<R: StateRead + ?Sized>(kv: &R, ino: u64) -> Result<Option<OrphanRow>, KvError> {
    row(kv, &keys::orphan(ino))
}

/// Up to `limit` inodes behind `after_ino` (0: from the start) of which extents are still to be reaped; the inodes
/// themselves may be gone.
pub fn orphans<R: StateRead + ?Sized>(kv: &R, after_ino: u64, limit: usize) -> Result<Vec<u64>, KvError> {
    let rows = page(kv, &[keys::ORPHANS], Some(&keys::orphan(after_ino)), limit)?;
    rows.into_iter().map(|(key, _)| number_of(&key, 1)).collect()
}

/// A segment on record.
pub fn segment<R: StateRead + ?Sized>(kv: &R, id: SegmentId) -> Result<Option<Segment>, KvError> {
    row(kv, &keys::segment(id))
}

/// Up to `limit` segments behind `after`, in order of id.
pub fn segments<R: StateRead + ?Sized>(
    kv: &R,
    after: Option<SegmentId>,
    limit: usize,
) -> Result<Vec<(SegmentId, Segment)>, KvError> {
    let after = after.map(keys::segment);
    let rows = page(kv, &[keys::SEGMENTS], after.as_deref(), limit)?;
    rows.into_iter().map(|(key, value)| Ok((segment_of(&key)?, decode_row(&key, &value)?))).collect()
}

/// Up to `limit` segments that have been dead since before `before_ns`, with that time, longest dead first.
pub fn dead_segments<R: StateRead + ?Sized>(
    kv: &R,
    before_ns: u64,
    limit: usize,
) -> Result<Vec<(SegmentId, u64)>, KvError> {
    let (first, end) = ([keys::DEAD], keys::prefix(keys::DEAD, &before_ns.to_be_bytes()));
    let rows = kv.scan((Bound::Included(&first[..]), Bound::Excluded(&end[..])), limit, false)?;
    rows.into_iter().map(|(key, _)| Ok((segment_of(&key)?, number_of(&key, 1)?))).collect()
}

/// Up to `limit` rows of a cloud's missed-write log behind `after`, in order of segment.
pub fn missed<R: StateRead + ?Sized>(
    kv: &R,
    cloud: CloudId,
    after: Option<SegmentId>,
    limit: usize,
) -> Result<Vec<Miss>, KvError> {
    let after = after.map(|after| keys::miss(cloud, after));
    let rows = page(kv, &keys::prefix(keys::MISSES, &[cloud.index() as u8]), after.as_deref(), limit)?;
    rows.into_iter()
        .map(|(key, value)| {
            let MissRow { kind, since_ns } = decode_row(&key, &value)?;
            Ok(Miss { cloud, segment: segment_of(&key)?, kind, since_ns })
        })
        .collect()
}

/// The row of a cloud's missed-write log for one segment.
pub fn miss<R: StateRead + ?Sized>(kv: &R, cloud: CloudId, segment: SegmentId) -> Result<Option<Miss>, KvError> {
    let found: Option<MissRow> = row(kv, &keys::miss(cloud, segment))?;
    Ok(found.map(|MissRow { kind, since_ns }| Miss { cloud, segment, kind, since_ns }))
}

/// The oldest row of a cloud's missed-write log.
pub fn oldest_miss<R: StandsStill + ?Sized>(kv: &R, cloud: CloudId) -> Result<Option<Miss>, KvError> {
    let rows = page(kv, &keys::prefix(keys::MISS_AGES, &[cloud.index() as u8]), None, 1)?;
    let Some((key, _)) = rows.first() else {
        return Ok(None);
    };
    let found = miss(kv, cloud, segment_of(key)?)?;
    found.map(Some).ok_or_else(|| damaged(format!("the key {key:02x?} has no row in the missed-write log")))
}

/// Roles and states of the clouds; `None` before the CloudFS is formatted.
pub fn roles<R: StateRead + ?Sized>(kv: &R) -> Result<Option<Roles>, KvError> {
    row(kv, &keys::roles())
}

pub(super) fn counters<R: StateRead + ?Sized>(kv: &R) -> Result<Option<Counters>, KvError> {
    row(kv, &keys::counters())
}

/// The number that the CloudFS was formatted with; `None` before.
pub fn cloudfs_number<R: StateRead + ?Sized>(kv: &R) -> Result<Option<u64>, KvError> {
    Ok(counters(kv)?.map(|counters| counters.cloudfs))
}

/// The newest time that any operation had, in nanoseconds since the Unix epoch; 0 before the first.
pub fn newest_ns<R: StateRead + ?Sized>(kv: &R) -> Result<u64, KvError> {
    Ok(counters(kv)?.map_or(0, |counters| counters.newest_ns))
}

/// Sums over the whole CloudFS.
pub fn totals<R: StateRead + ?Sized>(kv: &R) -> Result<Totals, KvError> {
    Ok(counters(kv)?.map(|counters| counters.totals).unwrap_or_default())
}

/// The newest decisions on the clouds, newest first, at most `limit`.
pub fn decisions<R: StateRead + ?Sized>(kv: &R, limit: usize) -> Result<Vec<Decision>, KvError> {
    let range = kv::prefix_range(&[keys::DECISIONS]);
    let rows = kv.scan(kv::borrow_range(&range), limit, true)?;
    rows.into_iter().map(|(key, value)| decode_row(&key, &value)).collect()
}

/// Up to `limit` inodes behind `after_ino` (0: from the start), of every kind, in order of number.
pub fn files<R: StateRead + ?Sized>(kv: &R, after_ino: u64, limit: usize) -> Result<Vec<Attr>, KvError> {
    let rows = page(kv, &[keys::INODES], Some(&keys::inode(after_ino)), limit)?;
    rows.into_iter().map(|(key, value)| decode_row(&key, &value)).collect()
}
