//! After healing the missed-write log is empty, both clouds are equal, and each alone rebuilds everything.
//!
//! Why it matters: a failover is safe because it makes no difference which cloud is read.
//!
//! What a disk has damaged before any cloud had it may be lost. Then the object says so: it is a right segment, and a frame of
//! it that is lost has a lost frame in its place, or lay behind the end of what was left. So much right code does whatever the
//! damage was, a flipped bit or a sector: whole frames stay where they are, and what is put has passed all its checksums.

use crate::world::{CLOUDFS, clouds::SimCloud};
use bytes::Bytes;
use mesh::{FilerId, kv::MemoryKv};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};
use storage::{
    cloudfs::{Attr, Extent, NodeKind, read},
    ids::{CloudId, Md5, SegmentId},
    segment::{Found, FrameState, Header, decode_frame, survey},
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
        let place = place_of(&extent);
        let frame = match object.get(place.clone()).map(|raw| decode_frame(&object.slice_ref(raw))) {
            Some(Ok(frame)) => frame,
            _ if may_be_lost(&extent) && says_lost(extent.segment, &object, &place) => return Ok(None),
            Some(Err(error)) => return Err(wrong(error.to_string())),
            None => return Err(wrong(format!("no frame at {}", place.start))),
        };
        let (skip, len, at) = (extent.skip as usize, extent.len as usize, extent.offset as usize);
        let piece = frame.data.get(skip..skip + len).ok_or_else(|| wrong("its frame is too short".into()))?;
        data[at..at + len].copy_from_slice(piece);
    }
    Ok(Some(data))
}

/// Where an extent's frame lies in its object, in bytes.
fn place_of(extent: &Extent) -> Range<usize> {
    let at = extent.frame_at as usize;
    at..at + extent.frame_len as usize
}

/// Whether a segment's object says itself that the frame of this place is lost. A lost frame need not begin there: where nothing
/// was left that says where frames begin, it takes the place of several.
fn says_lost(segment: SegmentId, object: &[u8], place: &Range<usize>) -> bool {
    let survey = survey(&Header { cloudfs: CLOUDFS, segment }, object);
    let lies_there = |frame: &Found| frame.range.start < place.end && place.start < frame.range.end;
    let mut lost = survey.frames.iter().filter(|frame| frame.state == FrameState::Lost);
    survey.sealed && (place.end > survey.frames_end || lost.any(lies_there))
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::{
        cloudfs::Handle,
        segment::{Packer, mend},
    };

    #[test]
    fn a_segment_that_was_mended_says_which_frames_it_lacks() {
        let segment = SegmentId { filer: FilerId(1), number: 7 };
        let header = Header { cloudfs: CLOUDFS, segment };
        let (mut packer, _) = Packer::new(header);
        let places = [1_u8, 2, 3].map(|number| {
            let (file, data) = (Handle { ino: 5, generation: 1 }, Bytes::from(vec![number; 900]));
            place_of(&packer.pack(file, 900 * u64::from(number), 1, data).extent)
        });
        let whole = packer.seal().body;
        let lost = |object: &[u8]| places.each_ref().map(|place| says_lost(segment, object, place));
        assert_eq!(lost(&whole), [false; 3]);
        let mut flipped = whole.to_vec();
        flipped[places[1].end - 1] ^= 1;
        assert_eq!(lost(&flipped), [false; 3], "it is damaged, and nothing says so");
        let mended = mend(header, &Bytes::from(flipped)).expect("other frames are whole");
        assert_eq!(lost(&mended.sealed.body), [false, true, false]);
        let torn = whole.slice(..places[2].end - 1);
        let mended = mend(header, &torn).expect("other frames are whole");
        assert_eq!(lost(&mended.sealed.body), [false, false, true]);
    }
}
