//! What the demo plays on: two clouds and three sites, each a process of its own.

use super::screen::{Screen, time};
use crate::{
    cloud::CloudProcess,
    sites::{Site, cloud_flag, log_tail, until_whole},
};
use anyhow::Result;
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// The clouds, the preferred primary first.
pub const CLOUDS: [&str; 2] = ["alpha", "beta"];
/// The sites, the first one first.
pub const SITES: [&str; 3] = ["ams", "nyc", "sgp"];
/// Their bucket.
pub const BUCKET: &str = "files";

/// Longest time until all filers are members.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);

/// Under these, what takes minutes by design takes seconds; how many failures trip a cloud stays as it is.
const SETTINGS: [&str; 10] = [
    "health.attempt_backoff_max=50 ms",
    "health.probe_backoff_min=200 ms",
    "health.probe_backoff_max=1 s",
    "clouds.primary.request_timeout=3 s",
    "clouds.primary.time_per_mib=500 ms",
    "clouds.secondary.request_timeout=3 s",
    "clouds.secondary.time_per_mib=500 ms",
    // Twice as long as a put of the largest segment may take.
    "segments.delete_grace=14 s",
    "staging.bytes_max=4 GiB",
    "cache.memory_bytes_max=64 MiB",
];

/// Clouds and sites. Dropped, all their processes are killed.
pub struct Stage {
    pub clouds: [CloudProcess; 2],
    pub sites: Vec<Site>,
}

impl Stage {
    /// Starts everything below `folder`, and waits until it is one CloudFS.
    pub async fn build(folder: &Path, screen: &Screen) -> Result<Self> {
        let start = Instant::now();
        let mut clouds = [
            CloudProcess::start(CLOUDS[0], folder, BUCKET).await?,
            CloudProcess::start(CLOUDS[1], folder, BUCKET).await?,
        ];
        for (name, cloud) in CLOUDS.iter().zip(&mut clouds) {
            screen.say(format!("cloud {name} (S3) listens on {}, process {}", cloud.url(), cloud.process().id()));
        }
        let flags = [cloud_flag(&clouds[0], CLOUDS[0], folder)?, cloud_flag(&clouds[1], CLOUDS[1], folder)?];
        let mut first = Site::first(folder, SITES[0], [&flags[0], &flags[1]], &SETTINGS).await?;
        first.start().await?;
        told(&mut first, "makes the CloudFS and the mesh's certificate authority", screen)?;
        let mut sites = vec![first];
        for name in &SITES[1..] {
            let mut site = Site::joining(folder, name, &sites[0], &SETTINGS).await?;
            site.start().await?;
            told(&mut site, "joins, with a certificate signed at ams", screen)?;
            sites.push(site);
        }
        until_whole(&sites, WHOLE_WITHIN).await?;
        screen.say(format!("all three are members and agree ({})", time(start.elapsed())));
        Ok(Self { clouds, sites })
    }

    /// Process ids by name.
    pub fn processes(&mut self) -> Result<Vec<(String, u32)>> {
        let mut ids = Vec::new();
        for (name, cloud) in CLOUDS.iter().zip(&mut self.clouds) {
            ids.push((format!("cloud {name}"), cloud.process().id()));
        }
        for site in &mut self.sites {
            let name = site.name().to_string();
            ids.push((format!("filer {name}"), site.process()?.id()));
        }
        Ok(ids)
    }

    /// Leaves all processes running.
    pub fn leave(self) {
        self.clouds.into_iter().for_each(std::mem::forget);
        self.sites.into_iter().for_each(std::mem::forget);
    }
}

fn told(site: &mut Site, what: &str, screen: &Screen) -> Result<()> {
    let id = site.process()?.id();
    screen.say(format!("filer {} {what}: NFS on {}, process {id}", site.name(), site.nfs()));
    Ok(())
}

/// The ends of the logs of all that ran below `folder`.
pub fn log_tails(folder: &Path) -> String {
    let logs = SITES.iter().chain(&CLOUDS).map(|name| folder.join(format!("{name}.log")));
    logs.map(|log| log_tail(&log)).collect::<Vec<_>>().join("\n")
}
