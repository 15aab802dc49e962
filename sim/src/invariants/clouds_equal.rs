//! After healing the missed-write log is empty, both clouds are equal, and each alone rebuilds everything.
//!
//! Why it matters: a failover is safe because it makes no difference which cloud is read.

use crate::world::clouds::SimCloud;
use bytes::Bytes;
use mesh::{FilerId, kv::MemoryKv};
use std::collections::{BTreeMap, BTreeSet};
use storage::{
    cloudfs::{Attr, Extent, NodeKind, read},
    ids::{CloudId, Md5, SegmentId},
    segment::decode_frame,
};

/// Both clouds list the segments on record, with their MD5s, and no others. What a filer that was lost for ever had put and
/// not told of may be there too.
pub fn listed_alike(tables: &MemoryKv, clouds: &[SimCloud; 2], lost: &BTreeSet<FilerId>) -> Result<(), String> {
    let rows = read::segments(tables, None, usize::MAX).map_err(|e| e.to_string())?;
    let mut on_record: BTreeMap<String, Md5> = BTreeMap::new();
    for (id, row) in rows {
        let object = row.object.ok_or_else(|| format!("segment {id} is not released"))?;
        on_record.insert(id.key(), object.md5);
    }
    for cloud in CloudId::BOTH {
        let there = &clouds[cloud.index()];
        let missed = read::missed(tables, cloud, None, 1).map_err(|e| e.to_string())?;
        if let Some(miss) = missed.first() {
            return Err(format!("cloud {cloud} still misses {miss:?}"));
        }
        let mut held = there.segments();
        for (key, md5) in &on_record {
            let got = held.remove(key);
            if got != Some(*md5) && !there.has_lost(key) {
                return Err(format!("cloud {cloud} has {key} as {got:?}, and on record is {md5}"));
            }
        }
        let of_lost = |key: &str| SegmentId::from_key(key).is_some_and(|id| lost.contains(&id.filer));
        if let Some(litter) = held.keys().find(|key| !of_lost(key)) {
            return Err(format!("cloud {cloud} has {litter}, which is not on record"));
        }
    }
    Ok(())
}

/// The files that each cloud alone gives, by inode, with the record of their extents; none where a part of it is lost, which
/// only a frame may be that lay where a disk was damaged. What a cloud has lost and was not given again is taken from the
/// other one.
pub fn each_cloud_rebuilds(
    tables: &MemoryKv,
    clouds: &[SimCloud; 2],
    may_be_lost: impl Fn(&Extent) -> bool,
) -> Result<BTreeMap<u64, Option<Vec<u8>>>, String> {
    let mut files = BTreeMap::new();
    for attr in read::files(tables, 0, usize::MAX).map_err(|e| e.to_string())? {
        if attr.kind != NodeKind::File {
            continue;
        }
        let [a, b] = [CloudId::A, CloudId::B].map(|from| rebuilt(tables, clouds, from, &attr, &may_be_lost));
        let [a, b] = [a?, b?];
        if a != b {
            return Err(format!("inode {} differs between the clouds", attr.handle.ino));
        }
        files.insert(attr.handle.ino, a);
    }
    Ok(files)
}

fn rebuilt(
    tables: &MemoryKv,
    clouds: &[SimCloud; 2],
    from: CloudId,
    attr: &Attr,
    may_be_lost: &impl Fn(&Extent) -> bool,
) -> Result<Option<Vec<u8>>, String> {
    let mut data = vec![0; attr.bytes as usize];
    let extents = read::extents(tables, attr.handle.ino, 0..attr.bytes).map_err(|e| e.to_string())?;
    for extent in extents {
        let key = extent.segment.key();
        let lost = clouds[from.index()].has_lost(&key);
        let there = &clouds[if lost { from.other() } else { from }.index()];
        let wrong = |why: String| format!("inode {} from cloud {from}: {key}: {why}", attr.handle.ino);
        let object: Bytes = there.object(&key).ok_or_else(|| wrong("it is not there".into()))?;
        let (at, len) = (extent.frame_at as usize, extent.frame_len as usize);
        let raw = object.get(at..at + len).ok_or_else(|| wrong(format!("no frame at {at}")))?;
        let frame = match decode_frame(&Bytes::copy_from_slice(raw)) {
            // It says that it is lost, or is a part of what does, where nothing was left that says where frames began.
            Err(_) if may_be_lost(&extent) => return Ok(None),
            frame => frame.map_err(|e| wrong(e.to_string()))?,
        };
        let (skip, len, at) = (extent.skip as usize, extent.len as usize, extent.offset as usize);
        let piece = frame.data.get(skip..skip + len).ok_or_else(|| wrong("its frame is too short".into()))?;
        data[at..at + len].copy_from_slice(piece);
    }
    Ok(Some(data))
}
