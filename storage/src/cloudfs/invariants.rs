//! What is true of the state after every operation, as a check of the whole of it.
//!
//! It reads everything and holds much of it in memory: for tests, the simulator and an operator's own check of a
//! replica, not for the running file system.

use super::{
    keys::{self, CookieRow, Counters, ExtentRow, MissRow, NameRow, OrphanRow},
    read::{self, PAGE_ROWS, decode_row},
    types::*,
};
use crate::ids::{CloudId, SegmentId};
use bytes::Bytes;
use mesh::kv::{KvError, KvRead, STATE};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

/// Checks the whole replicated state; the text names the first thing that is wrong with it.
pub fn check_invariants(kv: &dyn KvRead) -> Result<(), String> {
    let Some(counters) = read::counters(kv).map_err(told)? else {
        let first = [keys::INODES];
        let rows = kv.scan(STATE, (Bound::Included(&first[..]), Bound::Unbounded), 1, false).map_err(told)?;
        return ensure(rows.is_empty(), || format!("there is no CloudFS, but the key {:02x?}", rows[0].0));
    };
    let inodes = inodes(kv)?;
    let highest = inodes.keys().next_back().copied().unwrap_or(0);
    ensure(highest < counters.next_ino, || format!("inode {highest} would be handed out again"))?;
    ensure(counters.totals.inodes == inodes.len() as u64, || {
        format!("totals say {} inodes, and there are {}", counters.totals.inodes, inodes.len())
    })?;
    invariant_names_make_one_tree(kv, &inodes, counters.next_cookie)?;
    let orphans = invariant_orphans_are_cut_off(kv, &inodes, &counters)?;
    let live = invariant_extents_fit_their_files(kv, &inodes, &orphans, counters.next_cut)?;
    ensure(counters.totals.live_bytes == live.values().sum::<u64>(), || "the total of live bytes is wrong".into())?;
    let segments = invariant_segments_count_their_bytes(kv, &live, &counters.totals)?;
    let roles = read::roles(kv).map_err(told)?.ok_or("the roles of the clouds are missing")?;
    for cloud in CloudId::BOTH {
        invariant_misses_match(kv, &roles, cloud, &segments)?;
    }
    invariant_active_cloud_is_consistent(&roles)?;
    invariant_decisions_are_in_order(kv, &roles)
}

fn told(error: KvError) -> String {
    error.to_string()
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

/// Hands every row of a family to `visit`.
fn walk(kv: &dyn KvRead, family: u8, mut visit: impl FnMut(&[u8], &Bytes) -> Result<(), String>) -> Result<(), String> {
    let mut after: Option<Bytes> = None;
    loop {
        let rows = read::page(kv, &[family], after.as_deref(), PAGE_ROWS).map_err(told)?;
        rows.iter().try_for_each(|(key, value)| visit(key, value))?;
        match rows.last() {
            Some((key, _)) => after = Some(key.clone()),
            None => return Ok(()),
        }
    }
}

fn number(key: &[u8], at: usize) -> Result<u64, String> {
    keys::number_at(key, at).ok_or_else(|| format!("the key {key:02x?} is too short"))
}

fn segment_in(key: &[u8]) -> Result<SegmentId, String> {
    keys::segment_at_end(key).ok_or_else(|| format!("the key {key:02x?} names no segment"))
}

fn inodes(kv: &dyn KvRead) -> Result<BTreeMap<u64, Attr>, String> {
    let mut inodes = BTreeMap::new();
    walk(kv, keys::INODES, |key, value| {
        let attr: Attr = decode_row(key, value).map_err(told)?;
        ensure(attr.handle.ino == number(key, 1)?, || format!("the inode at {key:02x?} has another number"))?;
        inodes.insert(attr.handle.ino, attr);
        Ok(())
    })?;
    Ok(inodes)
}

/// Names and cookies are each other's mirror; every inode has as many names as it has links; directories hang
/// together, each from one name, up to the root.
fn invariant_names_make_one_tree(
    kv: &dyn KvRead,
    inodes: &BTreeMap<u64, Attr>,
    next_cookie: u64,
) -> Result<(), String> {
    let (mut links, mut subdirs) = (BTreeMap::<u64, u32>::new(), BTreeMap::<u64, u32>::new());
    let (mut names, mut cookies, mut places) = (0u64, 0u64, 0u64);
    let mut children = BTreeMap::<u64, Vec<u64>>::new();
    walk(kv, keys::NAMES, |key, value| {
        let (dir, name) = (number(key, 1)?, &key[9..]);
        let row: NameRow = decode_row(key, value).map_err(told)?;
        let shown = || format!("name {:?} of directory {dir}", String::from_utf8_lossy(name));
        let target = inodes.get(&row.ino).ok_or_else(|| format!("{} has no inode {}", shown(), row.ino))?;
        let is_in_directory = inodes.get(&dir).is_some_and(|attr| attr.kind.is_directory());
        ensure(is_in_directory, || format!("{}: there is no such directory", shown()))?;
        ensure((3..next_cookie).contains(&row.cookie), || format!("{} has cookie {}", shown(), row.cookie))?;
        let mirror: Option<CookieRow> = read::row(kv, &keys::cookie(dir, row.cookie)).map_err(told)?;
        ensure(mirror == Some(CookieRow { name: name.to_vec(), ino: row.ino }), || {
            format!("{} has cookie {}, which says {mirror:?}", shown(), row.cookie)
        })?;
        if let NodeKind::Directory { parent } = target.kind {
            ensure(parent == dir, || format!("{} says that its parent is {parent}", shown()))?;
            let place: Option<Vec<u8>> = read::row(kv, &keys::place(row.ino)).map_err(told)?;
            ensure(place.as_deref() == Some(name), || format!("{} says that its name is {place:?}", shown()))?;
            *subdirs.entry(dir).or_default() += 1;
            children.entry(dir).or_default().push(row.ino);
        }
        *links.entry(row.ino).or_default() += 1;
        names += 1;
        Ok(())
    })?;
    walk(kv, keys::COOKIES, |_, _| {
        cookies += 1;
        Ok(())
    })?;
    walk(kv, keys::PLACES, |_, _| {
        places += 1;
        Ok(())
    })?;
    ensure(names == cookies, || format!("{names} names have {cookies} cookies"))?;
    let directories = inodes.values().filter(|attr| attr.kind.is_directory()).count() as u64;
    ensure(places + 1 == directories, || format!("{directories} directories lie at {places} places"))?;
    for (ino, attr) in inodes {
        let links = links.get(ino).copied().unwrap_or(0);
        if attr.kind.is_directory() {
            let expected = 2 + subdirs.get(ino).copied().unwrap_or(0);
            ensure(attr.nlink == expected, || format!("directory {ino} has nlink {}, not {expected}", attr.nlink))?;
            let expected = u32::from(*ino != ROOT.ino);
            ensure(links == expected, || format!("directory {ino} has {links} names, not {expected}"))?;
        } else {
            ensure(links > 0 && attr.nlink == links, || format!("inode {ino}: nlink {}, {links} names", attr.nlink))?;
        }
    }
    let mut reached = BTreeSet::new();
    let mut next = vec![ROOT.ino];
    while let Some(dir) = next.pop() {
        reached.insert(dir);
        next.extend(children.remove(&dir).unwrap_or_default());
    }
    ensure(reached.len() as u64 == directories, || format!("{} of {directories} are under the root", reached.len()))
}

/// Cuts are in order, their numbers were handed out, and those of an inode that is gone have all of it.
fn invariant_orphans_are_cut_off(
    kv: &dyn KvRead,
    inodes: &BTreeMap<u64, Attr>,
    counters: &Counters,
) -> Result<BTreeMap<u64, OrphanRow>, String> {
    let mut orphans = BTreeMap::new();
    walk(kv, keys::ORPHANS, |key, value| {
        let ino = number(key, 1)?;
        let row: OrphanRow = decode_row(key, value).map_err(told)?;
        let rises = row.cuts.windows(2).all(|pair| pair[0].from < pair[1].from && pair[0].number < pair[1].number);
        let newest = row.cuts.last().ok_or_else(|| format!("nothing is cut off from inode {ino}, but noted"))?;
        ensure(rises && newest.number < counters.next_cut, || format!("the cuts of inode {ino} are {row:?}"))?;
        match inodes.get(&ino).map(|attr| &attr.kind) {
            Some(NodeKind::File) => {}
            Some(other) => return Err(format!("inode {ino} is {other:?}, and something is cut off from it")),
            None => ensure(row.cuts[0].from == 0, || format!("inode {ino} is gone, and not all of it: {row:?}"))?,
        }
        orphans.insert(ino, row);
        Ok(())
    })?;
    let (counted, found) = (counters.totals.orphans, orphans.len() as u64);
    ensure(counted == found, || format!("totals say {counted} orphans, and there are {found}"))?;
    Ok(orphans)
}

/// Extents of a file do not overlap, end before it does, and belong to a file; or they are cut off and not reaped yet.
/// Answers the live bytes by segment.
fn invariant_extents_fit_their_files(
    kv: &dyn KvRead,
    inodes: &BTreeMap<u64, Attr>,
    orphans: &BTreeMap<u64, OrphanRow>,
    next_cut: u64,
) -> Result<BTreeMap<SegmentId, u64>, String> {
    let mut live = BTreeMap::<SegmentId, u64>::new();
    let mut last = (0u64, 0u64);
    walk(kv, keys::EXTENTS, |key, value| {
        let (ino, offset) = (number(key, 1)?, number(key, 9)?);
        let row: ExtentRow = decode_row(key, value).map_err(told)?;
        let extent = row.extent;
        let shown = || format!("the extent at {offset} of inode {ino}");
        ensure(extent.offset == offset && extent.len > 0, || format!("{} is {extent:?}", shown()))?;
        ensure(row.next_cut <= next_cut, || format!("{} is of after cut {}", shown(), row.next_cut))?;
        ensure(last.0 != ino || last.1 <= offset, || format!("{} overlaps the one before", shown()))?;
        last = (ino, extent.end());
        *live.entry(extent.segment).or_default() += u64::from(extent.len);
        if let Some(orphan) = orphans.get(&ino).filter(|orphan| orphan.has(&row)) {
            return ensure(orphan.reaped_to <= offset, || format!("{} was left by the reaping", shown()));
        }
        let file = inodes.get(&ino).filter(|attr| attr.kind == NodeKind::File);
        let file = file.ok_or_else(|| format!("{} belongs to no file", shown()))?;
        ensure(extent.end() <= file.bytes, || format!("{} ends behind {} bytes", shown(), file.bytes))
    })?;
    Ok(live)
}

/// Live bytes are those of the extents; what has an object and no live bytes is dead, and what is dead has no live bytes
/// and is listed as such.
fn invariant_segments_count_their_bytes(
    kv: &dyn KvRead,
    live: &BTreeMap<SegmentId, u64>,
    totals: &Totals,
) -> Result<BTreeMap<SegmentId, Segment>, String> {
    let mut segments = BTreeMap::new();
    let mut dead = BTreeSet::new();
    walk(kv, keys::SEGMENTS, |key, value| {
        let id = segment_in(key)?;
        let segment: Segment = decode_row(key, value).map_err(told)?;
        let bytes = live.get(&id).copied().unwrap_or(0);
        ensure(segment.live_bytes == bytes, || format!("segment {id} counts {}, not {bytes}", segment.live_bytes))?;
        let (unused, dead_now) = (segment.live_bytes == 0, segment.dead_since_ns.is_some());
        let right = dead_now == (unused && segment.object.is_some()) || dead_now && unused;
        ensure(right, || format!("segment {id} is {segment:?}"))?;
        dead.extend(segment.dead_since_ns.map(|since_ns| (since_ns, id)));
        segments.insert(id, segment);
        Ok(())
    })?;
    if let Some(id) = live.keys().find(|id| !segments.contains_key(id)) {
        return Err(format!("segment {id} has live bytes, and is not on record"));
    }
    let mut listed = BTreeSet::new();
    walk(kv, keys::DEAD, |key, _| {
        listed.insert((number(key, 1)?, segment_in(key)?));
        Ok(())
    })?;
    ensure(dead == listed, || format!("dead segments are {dead:?}, and listed are {listed:?}"))?;
    let counted = (totals.segments, totals.dead_segments);
    let found = (segments.len() as u64, dead.len() as u64);
    ensure(counted == found, || format!("totals of segments and dead ones are {counted:?}, and found are {found:?}"))?;
    Ok(segments)
}

/// A copy that a cloud has missed has a row in its log, and a row of a segment on record is such a copy; the counts
/// and the order by age are those of the rows.
fn invariant_misses_match(
    kv: &dyn KvRead,
    roles: &Roles,
    cloud: CloudId,
    segments: &BTreeMap<SegmentId, Segment>,
) -> Result<(), String> {
    let part = cloud.index() as u8;
    let (mut puts, mut deletes) = (BTreeSet::new(), 0u64);
    let (mut ages, mut listed) = (BTreeSet::new(), BTreeSet::new());
    walk(kv, keys::MISSES, |key, value| {
        if key.get(1) != Some(&part) {
            return Ok(());
        }
        let id = segment_in(key)?;
        let row: MissRow = decode_row(key, value).map_err(told)?;
        ages.insert((row.since_ns, id));
        match row.kind {
            MissKind::Put => {
                puts.insert(id);
            }
            MissKind::Delete => {
                deletes += 1;
                let is_known = segments.contains_key(&id);
                ensure(!is_known, || format!("segment {id} is on record, and its delete is missed by cloud {cloud}"))?;
            }
        }
        Ok(())
    })?;
    let of_segments: BTreeSet<SegmentId> = segments
        .iter()
        .filter(|(_, segment)| segment.object.is_some_and(|object| object.copies[cloud.index()] == Copy::Missed))
        .map(|(id, _)| *id)
        .collect();
    ensure(puts == of_segments, || format!("cloud {cloud} missed {of_segments:?}, and its log has {puts:?}"))?;
    walk(kv, keys::MISS_AGES, |key, _| {
        if key.get(1) == Some(&part) {
            listed.insert((number(key, 2)?, segment_in(key)?));
        }
        Ok(())
    })?;
    ensure(ages == listed, || format!("misses of cloud {cloud} are {ages:?}, and listed are {listed:?}"))?;
    let status = roles.cloud(cloud);
    let counted = (status.missed_puts, status.missed_deletes);
    let found = (puts.len() as u64, deletes);
    ensure(counted == found, || format!("cloud {cloud} counts {counted:?} missed puts and deletes, not {found:?}"))
}

/// Reads go to a cloud that has everything.
fn invariant_active_cloud_is_consistent(roles: &Roles) -> Result<(), String> {
    let state = roles.cloud(roles.active).state;
    ensure(state == CloudState::Healthy, || format!("the active cloud {} is {state:?}", roles.active))?;
    for cloud in CloudId::BOTH {
        let status = roles.cloud(cloud);
        let missed = status.missed_puts + status.missed_deletes;
        ensure(status.state != CloudState::Healthy || missed == 0, || {
            format!("cloud {cloud} is healthy, and has missed {missed}")
        })?;
        ensure(status.state == CloudState::Failed || status.reached_by.is_empty(), || {
            format!("cloud {cloud} is {:?}, and reached by {:?}", status.state, status.reached_by)
        })?;
        let is_sorted = status.reached_by.windows(2).all(|pair| pair[0] < pair[1]);
        ensure(is_sorted, || format!("cloud {cloud} is reached by {:?}", status.reached_by))?;
    }
    Ok(())
}

fn invariant_decisions_are_in_order(kv: &dyn KvRead, roles: &Roles) -> Result<(), String> {
    let decisions = read::decisions(kv, DECISIONS_KEPT_MAX + 1).map_err(told)?;
    ensure(decisions.len() <= DECISIONS_KEPT_MAX, || "too many decisions are kept".into())?;
    let epochs: Vec<_> = std::iter::once(roles.epoch).chain(decisions.iter().map(|past| past.epoch)).collect();
    ensure(epochs.windows(2).all(|pair| pair[0] >= pair[1]), || format!("decisions have epochs {epochs:?}"))
}
