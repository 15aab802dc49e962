//! What is proved at the end: every site reads every file right, both clouds hold exactly what is on record, and each
//! cloud alone is enough to rebuild every file.

use super::{
    copying::{compare, read_back},
    model::Expected,
    screen::{Screen, Unit, bytes, time},
    stage::Stage,
};
use crate::{proof, sites::Site};
use anyhow::{Context, Result, bail, ensure};
use filer::admin::{FileRow, SegmentRow};
use futures::{StreamExt, TryStreamExt, stream};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use storage::{
    cloud::Cloud,
    ids::{CloudId, Md5},
};
use tokio::time::sleep;

/// Longest time until what no file refers to is gone from both clouds.
const SWEPT_WITHIN: Duration = Duration::from_secs(120);
/// Pause between two looks at the record.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Files that are rebuilt at the same time.
const FILES_AT_ONCE: usize = 16;
/// Keys that an error names.
const KEYS_SHOWN_MAX: usize = 5;
/// Objects with which filers try a cloud: they are no data.
const PROBES: &str = "probes/";

/// A proof, and how it ended: in words, or what is wrong and where.
pub struct Proof {
    pub what: String,
    pub result: Result<String>,
}

/// Key, size in bytes and MD5 of objects.
type Objects = BTreeMap<String, (u64, String)>;

/// Does all proofs, also when one of them fails.
pub async fn all(stage: &Stage, wanted: &Expected, screen: &Screen) -> Vec<Proof> {
    let mut proofs = Vec::new();
    let mut note = |what: String, start: Instant, result: Result<String>| {
        match &result {
            Ok(how) => screen.say(format!("PASSED {what}: {how} ({})", time(start.elapsed()))),
            Err(error) => screen.say(format!("FAILED {what}: {error:#}")),
        }
        proofs.push(Proof { what, result });
    };
    let start = Instant::now();
    let reading = futures::future::join_all(stage.sites.iter().map(|site| async move {
        let nfs = site.mount().await?;
        let read = read_back(&nfs, site.name(), wanted, screen).await?;
        anyhow::Ok(format!("{} files, {}", wanted.len(), bytes(read)))
    }));
    for (site, result) in stage.sites.iter().zip(reading.await) {
        note(format!("{} reads every file right", site.name()), start, result);
    }
    let start = Instant::now();
    note("both clouds hold exactly what is on record".into(), start, held(stage, screen).await);
    for cloud in CloudId::BOTH {
        let start = Instant::now();
        let name = super::stage::CLOUDS[cloud.index()];
        let result = rebuilt(&stage.sites[0], cloud, name, wanted, screen).await;
        note(format!("every file is rebuilt right from cloud {name} alone"), start, result);
    }
    proofs
}

/// The segments on record once dead ones are swept: the same at every site.
async fn record(stage: &Stage) -> Result<Vec<SegmentRow>> {
    let rows = stage.sites[0].segments().await?;
    let unfinished: Vec<&SegmentRow> =
        rows.iter().filter(|row| row.live_bytes == 0 || row.md5.is_none() || row.stored.len() < 2).collect();
    if let Some(row) = unfinished.first() {
        bail!("{} segments are not in both clouds, or dead and not swept yet, such as {row:?}", unfinished.len());
    }
    for site in &stage.sites[1..] {
        ensure!(
            site.segments().await? == rows,
            "{} has another record of segments than {}",
            site.name(),
            stage.sites[0].name()
        );
    }
    Ok(rows)
}

async fn listed(cloud: &dyn Cloud) -> Result<Objects> {
    let (mut found, mut after) = (Objects::new(), None::<String>);
    loop {
        let page = cloud.list("", after.as_deref()).await?;
        after = page.objects.last().map(|object| object.key.clone());
        for object in page.objects.into_iter().filter(|object| !object.key.starts_with(PROBES)) {
            let md5 = match object.md5 {
                Some(md5) => md5,
                None => Md5::of(&cloud.get(&object.key, 0..object.bytes).await?),
            };
            found.insert(object.key, (object.bytes, md5.to_string()));
        }
        if !page.more {
            return Ok(found);
        }
    }
}

fn same(name: &str, wanted: &Objects, got: &Objects) -> Result<()> {
    let lacks: Vec<_> = wanted.keys().filter(|key| !got.contains_key(*key)).take(KEYS_SHOWN_MAX).collect();
    ensure!(lacks.is_empty(), "cloud {name} lacks {lacks:?}");
    let orphans: Vec<_> = got.keys().filter(|key| !wanted.contains_key(*key)).take(KEYS_SHOWN_MAX).collect();
    ensure!(orphans.is_empty(), "cloud {name} holds {orphans:?}, which are not on record");
    let other = wanted.iter().find(|(key, object)| got.get(*key) != Some(object));
    if let Some((key, object)) = other {
        bail!("cloud {name} holds {key} as {:?}, and on record is {object:?}", got.get(key));
    }
    Ok(())
}

async fn held_now(stage: &Stage) -> Result<String> {
    let rows = record(stage).await?;
    let on_record = |row: &SegmentRow| Some((row.key.clone(), (row.bytes?, row.md5.clone()?)));
    let wanted: Objects = rows.iter().filter_map(on_record).collect();
    for id in CloudId::BOTH {
        let name = super::stage::CLOUDS[id.index()];
        let got = listed(&*stage.sites[0].cloud(id)?).await.with_context(|| format!("listing cloud {name}"))?;
        same(name, &wanted, &got)?;
    }
    let total = wanted.values().map(|(bytes, _)| bytes).sum();
    Ok(format!("{} segments, {}; same keys, sizes, MD5s", wanted.len(), bytes(total)))
}

/// Both clouds list what is on record, and nothing else; waits for the sweep of what is dead.
async fn held(stage: &Stage, screen: &Screen) -> Result<String> {
    let deadline = Instant::now() + SWEPT_WITHIN;
    let mut told = false;
    loop {
        match held_now(stage).await {
            Err(error) if Instant::now() < deadline => {
                if !told {
                    screen.say(format!("  waiting for the sweep of deleted data: {error:#}"));
                    told = true;
                }
                sleep(LOOK_AGAIN_AFTER).await;
            }
            result => return result,
        }
    }
}

async fn rebuilt(site: &Site, cloud: CloudId, name: &str, wanted: &Expected, screen: &Screen) -> Result<String> {
    let files = site.files().await?;
    let opened = site.cloud(cloud)?;
    let total = files.iter().map(|file| file.bytes).sum();
    let bar = screen.bar(&format!("rebuilding from {name}"), Unit::Bytes, total);
    let (opened, bar) = (&*opened, &bar);
    let got: Expected = stream::iter(files)
        .map(|file: FileRow| async move {
            let content = proof::rebuilt(opened, &file).await.with_context(|| format!("rebuilding {}", file.path))?;
            bar.add(content.bytes);
            anyhow::Ok((file.path.trim_start_matches('/').to_string(), (content.bytes, content.sha256)))
        })
        .buffer_unordered(FILES_AT_ONCE)
        .try_collect()
        .await?;
    compare(wanted, &got)?;
    Ok(format!("{} files, {}", got.len(), bytes(total)))
}
