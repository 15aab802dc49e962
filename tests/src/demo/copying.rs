//! Trees through NFS: copied in at one site, read back at another.

use super::{
    model::{Content, Expected, Model, Sum},
    screen::{Bar, Screen, Unit},
    source::{Source, SourceFile},
};
use crate::nfs3::{Entry, Fh, Nfs3};
use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// Files that are copied or read at the same time.
const FILES_AT_ONCE: usize = 16;

/// Files up to this size are read once, so that what is copied and what is remembered are the same, in bytes.
const AT_ONE_GO_BYTES_MAX: u64 = 16 << 20;

/// Differences that an error names.
const DIFFERENCES_SHOWN_MAX: usize = 5;

/// Copies a tree to the export's directory; what must be there now.
pub async fn copy_in(nfs: &Nfs3, source: &Source, screen: &Screen) -> Result<Model> {
    let mut dirs = BTreeMap::from([(String::new(), nfs.root())]);
    let paths: BTreeSet<&str> = source.files.iter().filter_map(|file| Some(file.path.rsplit_once('/')?.0)).collect();
    for path in paths {
        let mut at = String::new();
        for name in path.split('/') {
            let next = if at.is_empty() { name.to_string() } else { format!("{at}/{name}") };
            if !dirs.contains_key(&next) {
                let made = nfs.mkdir(&dirs[&at], name).await.with_context(|| format!("making directory {next}"))?;
                dirs.insert(next.clone(), made);
            }
            at = next;
        }
    }
    let bar = screen.bar("copying into ams", Unit::Bytes, source.bytes());
    let (dirs, bar) = (&dirs, &bar);
    // The largest first: the small ones go beside them.
    let mut files: Vec<&SourceFile> = source.files.iter().collect();
    files.sort_by_key(|file| std::cmp::Reverse(file.bytes));
    let copied = stream::iter(files)
        .map(|file| async move {
            let (dir, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
            let content = copy(nfs, &dirs[dir], name, file, bar).await;
            anyhow::Ok((file.path.clone(), content.with_context(|| format!("copying {}", file.local.display()))?))
        })
        .buffer_unordered(FILES_AT_ONCE)
        .try_collect()
        .await?;
    Ok(Model { files: copied })
}

async fn copy(nfs: &Nfs3, dir: &Fh, name: &str, file: &SourceFile, bar: &Bar) -> Result<Content> {
    if file.bytes <= AT_ONE_GO_BYTES_MAX {
        let data = fs::read(&file.local)?;
        nfs.put_in(dir, name, &data).await?;
        bar.add(data.len() as u64);
        return Ok(Content::Known { bytes: data.len() as u64, sha256: Sha256::digest(&data).into() });
    }
    let local = file.local.clone();
    let before = tokio::task::spawn_blocking(move || super::model::sum_of(&local)).await??;
    nfs.put_file(dir, name, &file.local, |bytes| bar.add(bytes)).await?;
    if file.made {
        return Ok(Content::Local(file.local.clone()));
    }
    let after = super::model::sum_of(&file.local)?;
    ensure!(before == after, "the file changed while it was copied; run the demo on a tree at rest");
    Ok(Content::Known { bytes: after.0, sha256: after.1 })
}

/// Reads every file at a site, and compares all of them with what they must hold. The number of bytes read.
pub async fn read_back(nfs: &Nfs3, site: &str, wanted: &Expected, screen: &Screen) -> Result<u64> {
    let bar = screen.bar(&format!("reading at {site}"), Unit::Bytes, wanted.values().map(|(bytes, _)| bytes).sum());
    let bar = &bar;
    let tree = nfs.tree("").await.with_context(|| format!("listing the tree at {site}"))?;
    let got: Expected = stream::iter(tree)
        .map(|(path, entry)| async move {
            let sum = sum_of(nfs, &entry, bar).await.with_context(|| format!("reading {path} at {site}"))?;
            anyhow::Ok((path, sum))
        })
        .buffer_unordered(FILES_AT_ONCE)
        .try_collect()
        .await?;
    compare(wanted, &got).with_context(|| format!("at {site}"))?;
    Ok(got.values().map(|(bytes, _)| bytes).sum())
}

async fn sum_of(nfs: &Nfs3, entry: &Entry, bar: &Bar) -> Result<(u64, Sum)> {
    let mut hash = Sha256::new();
    let bytes = nfs.read_each(&entry.handle, |piece| {
        hash.update(piece);
        bar.add(piece.len() as u64);
    });
    Ok((bytes.await?, hash.finalize().into()))
}

/// Compares files with what they must hold, and names what differs.
pub fn compare(wanted: &Expected, got: &Expected) -> Result<()> {
    let missing = wanted.keys().filter(|path| !got.contains_key(*path)).map(|path| format!("{path} is missing"));
    let more = got.keys().filter(|path| !wanted.contains_key(*path)).map(|path| format!("{path} should not be there"));
    let wrong = wanted.iter().filter_map(|(path, wanted)| {
        let got = got.get(path).filter(|got| *got != wanted)?;
        Some(format!("{path} has {} bytes, which are not the {} that it should hold", got.0, wanted.0))
    });
    let differences: Vec<String> = missing.chain(more).chain(wrong).collect();
    let shown = &differences[..differences.len().min(DIFFERENCES_SHOWN_MAX)];
    ensure!(differences.is_empty(), "{} files are not right: {}", differences.len(), shown.join("; "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_differs_is_named() {
        let sum = |data: &[u8]| Content::Held(data.into()).sum().unwrap();
        let wanted = Expected::from([("a".into(), sum(b"1")), ("b".into(), sum(b"2")), ("c".into(), sum(b"3"))]);
        compare(&wanted, &wanted).unwrap();
        let got = Expected::from([("a".into(), sum(b"1")), ("b".into(), sum(b"two")), ("d".into(), sum(b"4"))]);
        let error = compare(&wanted, &got).unwrap_err().to_string();
        for named in ["3 files", "c is missing", "d should not be there", "b has 3 bytes"] {
            assert!(error.contains(named), "{error}");
        }
    }
}
