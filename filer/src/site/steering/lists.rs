//! Lists of what is on record, a page at a time: segments, files with their extents, decisions on the clouds.
//!
//! Owns: the rows, and where the next page begins. Does not own: the record (`cloudfs::read`), the rows' form
//! (`admin::status`).

use super::{Site, failed, name_in};
use crate::admin::{
    FileRow, Page, Refusal, SegmentRow,
    status::{DecisionRow, ExtentRow},
};
use mesh::{FilerId, kv::KvRead, words::counted};
use storage::{
    cloudfs::{Attr, Copy, Decision, Extent, NodeKind, Object, Segment, read},
    ids::{CloudId, SegmentId},
};

impl Site {
    /// Segments behind `after` (the `next` of an earlier page), at most `limit`.
    pub(super) fn segment_rows(&self, after: Option<String>, limit: usize) -> Result<Page<SegmentRow>, Refusal> {
        let after = match after {
            Some(key) => {
                Some(SegmentId::from_key(&key).ok_or_else(|| Refusal::Request(format!("{key} is no segment's key")))?)
            }
            None => None,
        };
        let rows = read::segments(&*self.filer.world.kv, after, limit).map_err(failed)?;
        let next = (rows.len() == limit).then(|| rows.last().map(|(id, _)| id.key())).flatten();
        let with = |object: &Object, copy: Copy| {
            let clouds = CloudId::BOTH.into_iter().filter(|cloud| object.copies[cloud.index()] == copy);
            clouds.map(|cloud| self.cloud_name(cloud).to_string()).collect::<Vec<_>>()
        };
        let row = |(id, row): (SegmentId, Segment)| SegmentRow {
            segment: id.to_string(),
            key: id.key(),
            live_bytes: row.live_bytes,
            bytes: row.object.map(|object| object.bytes),
            md5: row.object.map(|object| object.md5.to_string()),
            stored: row.object.map_or(vec![], |object| with(&object, Copy::Stored)),
            missed: row.object.map_or(vec![], |object| with(&object, Copy::Missed)),
        };
        Ok(Page { rows: rows.into_iter().map(row).collect(), next })
    }

    /// Files behind `after` (the `next` of an earlier page), at most `limit`.
    pub(super) fn file_rows(&self, after: Option<String>, limit: usize) -> Result<Page<FileRow>, Refusal> {
        let view = self.filer.world.kv.view();
        let after = after.as_deref().map(place_of).transpose()?;
        let rows = read::names(&*view, after.as_ref().map(|(dir, name)| (*dir, &name[..])), limit).map_err(failed)?;
        let full = rows.len() == limit;
        let next = rows.last().filter(|_| full).map(|(dir, name, _)| place_text(*dir, name));
        let mut found = Vec::new();
        for (dir, name, ino) in rows {
            let Some(attr) = read::attr(&*view, ino).map_err(failed)?.filter(|attr| attr.kind == NodeKind::File) else {
                continue;
            };
            let above = read::path_of(&*view, dir).map_err(failed)?.unwrap_or_default();
            let parts = above.iter().chain([&name]).map(|part| String::from_utf8_lossy(part));
            let path: String = parts.map(|part| format!("/{part}")).collect();
            found.push(self.file_row(&*view, &attr, path)?);
        }
        Ok(Page { rows: found, next })
    }

    fn file_row(&self, view: &dyn KvRead, attr: &Attr, path: String) -> Result<FileRow, Refusal> {
        let extents = read::extents(view, attr.handle.ino, 0..attr.bytes).map_err(failed)?;
        let row = |extent: &Extent| ExtentRow {
            offset: extent.offset,
            len: extent.len.into(),
            segment: extent.segment.to_string(),
            key: extent.segment.key(),
            frame_at: extent.frame_at.into(),
            frame_len: extent.frame_len.into(),
            skip: extent.skip.into(),
        };
        Ok(FileRow { ino: attr.handle.ino, path, bytes: attr.bytes, extents: extents.iter().map(row).collect() })
    }

    /// The last `limit` decisions, newest first.
    pub(super) fn decision_rows(&self, limit: usize) -> Result<Vec<DecisionRow>, Refusal> {
        let names = self.names();
        let name = |filer: FilerId| name_in(&names, filer);
        let decisions = read::decisions(&*self.filer.world.kv, limit).map_err(failed)?;
        let row = |decision: Decision| DecisionRow {
            epoch: decision.epoch.0,
            ms_ago: self.filer.ms_since(decision.at_ns),
            filer: name(decision.filer),
            text: self.named(&decision.text),
            carried: decision.carried,
            ballots: decision
                .ballots
                .iter()
                .map(|ballot| {
                    let view = |cloud: CloudId| {
                        let view = ballot.views[cloud.index()];
                        let reachable = match view.reachable {
                            Some(true) => "reachable",
                            Some(false) => "unreachable",
                            None => "not tried",
                        };
                        format!("{} {reachable}, {}", self.cloud_name(cloud), counted(view.failures.into(), "failure"))
                    };
                    format!("{}: {}; {}", name(ballot.filer), view(CloudId::A), view(CloudId::B))
                })
                .collect(),
        };
        Ok(decisions.into_iter().map(row).collect())
    }
}

/// A name's place in the tree, as `after` of a page has it.
fn place_text(dir: u64, name: &[u8]) -> String {
    let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{dir}-{name}")
}

fn place_of(text: &str) -> Result<(u64, Vec<u8>), Refusal> {
    let parse = || {
        let (dir, name) = text.split_once('-')?;
        let pairs = name.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        Some((dir.parse().ok()?, pairs.map(byte).collect::<Option<Vec<u8>>>()?))
    };
    parse().ok_or_else(|| Refusal::Request(format!("{text} is no `next` of a page of files")))
}
