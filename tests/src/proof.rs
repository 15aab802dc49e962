//! Proofs about data: every site reads it right, both clouds list what is on record, and every file is rebuilt right
//! from each cloud alone.
//!
//! What a file should hold is kept as its length and SHA-256, so that trees of any size can be proved.

use crate::{nfs3::Nfs3, sites::Site};
use ::filer::admin::{FileRow, SegmentRow};
use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use storage::{cloud::Cloud, ids::CloudId, segment::decode_frame};

/// Files that are read at the same time.
const FILES_AT_ONCE: usize = 8;

/// A file's length in bytes and its SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub bytes: u64,
    pub sha256: [u8; 32],
}

impl Content {
    /// Of these bytes.
    pub fn of(data: &[u8]) -> Self {
        Self { bytes: data.len() as u64, sha256: Sha256::digest(data).into() }
    }
}

/// What should be there, by path from the export's directory, without a leading `/`.
pub type Contents = BTreeMap<String, Content>;

/// The contents of files in memory.
pub fn contents(files: &BTreeMap<String, Vec<u8>>) -> Contents {
    files.iter().map(|(path, data)| (path.clone(), Content::of(data))).collect()
}

fn compare(place: &str, wanted: &Contents, got: &Contents) -> Result<()> {
    for (path, content) in wanted {
        match got.get(path) {
            None => bail!("{place}: {path} is missing"),
            Some(got) if got == content => {}
            Some(got) => {
                bail!("{place}: {path} has {} bytes that are not the {} it should have", got.bytes, content.bytes)
            }
        }
    }
    let more: Vec<_> = got.keys().filter(|path| !wanted.contains_key(*path)).collect();
    ensure!(more.is_empty(), "{place}: {more:?} should not be there");
    Ok(())
}

/// Reads every file that a client finds.
pub async fn read_all(client: &Nfs3) -> Result<Contents> {
    let files = client.tree("").await?;
    let read = |(path, entry): (String, crate::nfs3::Entry)| async move {
        let mut hash = Sha256::new();
        let bytes = client.read_each(&entry.handle, |piece| hash.update(piece)).await;
        let bytes = bytes.with_context(|| format!("reading {path}"))?;
        anyhow::Ok((path, Content { bytes, sha256: hash.finalize().into() }))
    };
    stream::iter(files).map(read).buffer_unordered(FILES_AT_ONCE).try_collect().await
}

/// A client of this site finds exactly these files, and reads them right.
pub async fn site_reads_right(site: &Site, wanted: &Contents) -> Result<()> {
    let got = read_all(&site.mount().await?).await.with_context(|| format!("at {}", site.name()))?;
    compare(site.name(), wanted, &got)
}

/// The keys below `segments/` in a cloud, with the MD5s that its listing (or, where that tells none, its object) has.
async fn listed(cloud: &dyn Cloud) -> Result<BTreeMap<String, (u64, String)>> {
    let (mut found, mut after) = (BTreeMap::new(), None::<String>);
    loop {
        let page = cloud.list("segments/", after.as_deref()).await?;
        after = page.objects.last().map(|object| object.key.clone());
        for object in page.objects {
            let md5 = match object.md5 {
                Some(md5) => md5,
                None => storage::ids::Md5::of(&cloud.get(&object.key, 0..object.bytes).await?),
            };
            found.insert(object.key, (object.bytes, md5.to_string()));
        }
        if !page.more {
            return Ok(found);
        }
    }
}

/// Both clouds list the segments on record, with the sizes and MD5s on record, and nothing else. The segments.
pub async fn clouds_hold_the_record(site: &Site) -> Result<Vec<SegmentRow>> {
    let rows = site.segments().await?;
    for id in CloudId::BOTH {
        let mut held = listed(&*site.cloud(id)?).await.with_context(|| format!("listing cloud {id}"))?;
        for row in &rows {
            let (Some(bytes), Some(md5)) = (row.bytes, &row.md5) else {
                bail!("segment {} is on record and not released", row.segment);
            };
            match held.remove(&row.key) {
                Some(held) => ensure!(
                    held == (bytes, md5.clone()),
                    "cloud {id} holds {} as {held:?}, and on record are {bytes} bytes with {md5}",
                    row.key
                ),
                None => bail!("cloud {id} lacks {}", row.key),
            }
            ensure!(row.missed.is_empty(), "segment {} is on record as missed by {:?}", row.segment, row.missed);
        }
        ensure!(held.is_empty(), "cloud {id} holds what is not on record: {:?}", held.keys());
    }
    Ok(rows)
}

/// A file's bytes, from one cloud's objects and the record of its extents.
pub async fn rebuilt(cloud: &dyn Cloud, file: &FileRow) -> Result<Content> {
    let mut hash = Sha256::new();
    let mut at = 0;
    let zeros = |from: u64, to: u64, hash: &mut Sha256| {
        let mut left = to - from;
        while left > 0 {
            let piece = left.min(1 << 16);
            hash.update(vec![0; piece as usize]);
            left -= piece;
        }
    };
    let mut extents = file.extents.clone();
    extents.sort_by_key(|extent| extent.offset);
    for extent in &extents {
        ensure!(extent.offset >= at, "{}: extents overlap at byte {}", file.path, extent.offset);
        zeros(at, extent.offset, &mut hash);
        let raw = cloud.get(&extent.key, extent.frame_at..extent.frame_at + extent.frame_len).await?;
        let frame = decode_frame(&raw).with_context(|| format!("{}: frame at {}", extent.key, extent.frame_at))?;
        let (from, to) = (extent.skip as usize, (extent.skip + extent.len) as usize);
        ensure!(to <= frame.data.len(), "{}: a frame is shorter than its extent", extent.key);
        hash.update(&frame.data[from..to]);
        at = extent.offset + extent.len;
    }
    ensure!(at <= file.bytes, "{}: extents reach beyond its end", file.path);
    zeros(at, file.bytes, &mut hash);
    Ok(Content { bytes: file.bytes, sha256: hash.finalize().into() })
}

/// Every file is rebuilt right from each cloud alone, with the record of its extents.
pub async fn each_cloud_is_enough(site: &Site, wanted: &Contents) -> Result<()> {
    let files = site.files().await?;
    for id in CloudId::BOTH {
        let cloud = site.cloud(id)?;
        let rebuild = |file: FileRow| {
            let cloud = cloud.clone();
            async move {
                let content =
                    rebuilt(&*cloud, &file).await.with_context(|| format!("{} from cloud {id}", file.path))?;
                anyhow::Ok((file.path.trim_start_matches('/').to_string(), content))
            }
        };
        let got: Contents =
            stream::iter(files.clone()).map(rebuild).buffer_unordered(FILES_AT_ONCE).try_collect().await?;
        compare(&format!("from cloud {id} alone"), wanted, &got)?;
    }
    Ok(())
}
