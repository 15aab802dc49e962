//! A mesh of filers that form one CloudFS, with settings under which whatever takes time by design takes little.
//!
//! ```text
//! Plan (sites, clouds, settings) ──▶ MeshOfFilers ── sites::Site, each a process
//!                                          └── clouds: whatever their `CloudPlace`s name
//! ```
//!
//! Waits are for something that the filers say of themselves, with a deadline; what they said last is in the error.
//!
//! Owns: which sites there are, waiting for all of them. Does not own: a site (`sites`), the clouds (`cloud`,
//! `azurite`), what clients do (`nfs3`, `nfs_client`), whether the data is right (`proof`).

mod place;
mod two_clouds;
mod writer;

pub use place::CloudPlace;
pub use two_clouds::{TwoClouds, held, segment_puts};
pub use writer::Writer;

use crate::{
    process::temp_dir,
    proof::{self, Contents},
    sites::Site,
    wires::{self, Wires},
};
use ::filer::admin::Status;
use anyhow::{Context, Result, ensure};
use std::{path::Path, time::Duration};
use storage::cloudfs::CloudState;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Longest time for anything that a mesh is to do by itself, on a machine that is busy with other tests too.
pub const SOON: Duration = Duration::from_secs(90);

/// The number of failures that trips a cloud stays what it is.
const QUICK: &[&str] = &[
    "health.attempt_backoff_min=1 ms",
    "health.attempt_backoff_max=20 ms",
    "health.probe_backoff_min=50 ms",
    "health.probe_backoff_max=200 ms",
    "health.works_again_after=1 s",
    "segments.seal_after=100 ms",
    // The shortest with `QUICK_CLOUD`: twice the longest put.
    "segments.delete_grace=10 s",
    "mesh.heartbeat=100 ms",
    "mesh.election_min=600 ms",
    "mesh.election_max=1200 ms",
    "mesh.keep_alive=300 ms",
    "mesh.idle_max=2 s",
    "mesh.dial_max=1 s",
    "mesh.redial_max=500 ms",
    "cache.memory_bytes_max=64 MiB",
];

/// Of a cloud, where its place says nothing else.
const QUICK_CLOUD: &[(&str, &str)] = &[("request_timeout", "3 s"), ("time_per_mib", "250 ms")];

/// What kind of mesh.
#[derive(Clone, Debug)]
pub struct Plan {
    name: String,
    sites: Vec<String>,
    clouds: [CloudPlace; 2],
    set: Vec<String>,
    wired: bool,
}

impl Plan {
    /// Three sites, `ams`, `nyc` and `sgp`, with quick settings; the preferred primary cloud first.
    pub fn new(name: &str, clouds: [CloudPlace; 2]) -> Self {
        let mut set: Vec<String> = QUICK.iter().map(ToString::to_string).collect();
        for (cloud, place) in ["primary", "secondary"].iter().zip(&clouds) {
            let unsaid = QUICK_CLOUD.iter().filter(|(key, _)| !place.flag().contains(key));
            set.extend(unsaid.map(|(key, value)| format!("clouds.{cloud}.{key}={value}")));
        }
        Self { name: name.into(), sites: ["ams", "nyc", "sgp"].map(String::from).into(), clouds, set, wired: false }
    }

    /// The same with the settings that a filer has when nobody sets any.
    pub fn as_shipped(name: &str, clouds: [CloudPlace; 2]) -> Self {
        Self { set: vec![], ..Self::new(name, clouds) }
    }

    /// These sites; the first one makes the CloudFS.
    pub fn sites(self, sites: &[&str]) -> Self {
        Self { sites: sites.iter().map(ToString::to_string).collect(), ..self }
    }

    /// A setting of every site, such as `segments.seal_after=1 s`; the last one of a name counts.
    pub fn set(mut self, setting: &str) -> Self {
        self.set.push(setting.into());
        self
    }

    /// With wires between the filers that a test can cut: see [`MeshOfFilers::wires`].
    pub fn wired(self) -> Self {
        Self { wired: true, ..self }
    }
}

/// Filers that form one CloudFS. Dropped, they are killed.
pub struct MeshOfFilers {
    /// In the order of the plan.
    pub sites: Vec<Site>,
    plan: Plan,
    wires: Wires,
    folder: TempDir,
}

impl MeshOfFilers {
    /// Makes and starts every site, and waits until all agree and both clouds are healthy.
    pub async fn start(plan: Plan) -> Result<Self> {
        let mesh = Self::start_filers(plan).await?;
        mesh.until_all_well().await?;
        Ok(mesh)
    }

    /// Makes and starts every site, and waits until all are members. Of the clouds nothing is asked.
    pub async fn start_filers(plan: Plan) -> Result<Self> {
        let folder = temp_dir(&plan.name)?;
        let mut mesh = Self { sites: vec![], plan, wires: Wires::default(), folder };
        for name in mesh.plan.sites.clone() {
            let site = mesh.make(&name).await?;
            mesh.sites.push(site);
            mesh.sites.last_mut().context("a site was just added")?.start().await?;
            if mesh.sites.len() == 1 {
                mesh.sites[0].until("the CloudFS is made", SOON, |status| status.epoch > 0).await?;
            }
        }
        mesh.until_whole().await?;
        Ok(mesh)
    }

    /// Makes one more site, which is to join; it is not started.
    pub async fn make(&mut self, name: &str) -> Result<Site> {
        let (folder, [a, b]) = (self.folder.path(), &self.plan.clouds);
        let wire = if self.plan.wired { Some(wires::loose().await?) } else { None };
        let advertise = wire.as_ref().map(|wire| format!("mesh.advertise={}", wire.addr()));
        let set: Vec<&str> = self.plan.set.iter().chain(&advertise).map(String::as_str).collect();
        let site = match self.sites.first() {
            None => Site::first(folder, name, [a.flag(), b.flag()], &set).await?,
            Some(first) => Site::joining(folder, name, first, &set).await?,
        };
        if let Some(wire) = wire {
            self.wires.lead(wire, site.mesh());
        }
        Ok(site)
    }

    /// The wires between the filers, where the plan has them.
    pub fn wires(&self) -> &Wires {
        &self.wires
    }

    /// Where everything of this mesh lies.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The sites whose filers run.
    pub fn running(&self) -> impl Iterator<Item = &Site> {
        self.sites.iter().filter(|site| site.is_started())
    }

    /// Waits until every running filer sees every running filer as a member, connected, and a majority.
    pub async fn until_whole(&self) -> Result<()> {
        let running: Vec<_> = self.running().map(|site| site.name().to_string()).collect();
        self.until_all("all filers are members and connected", |status| {
            let here = |name: &String| {
                status.peers.iter().any(|peer| peer.name == *name && peer.voter && (peer.this || peer.connected))
            };
            status.epoch > 0 && status.has_majority && running.iter().all(here)
        })
        .await
    }

    /// Waits until every running filer says so of itself.
    pub async fn until_all(&self, what: &str, holds: impl Fn(&Status) -> bool) -> Result<()> {
        for site in self.running() {
            site.until(what, SOON, &holds).await?;
        }
        Ok(())
    }

    /// Waits until both clouds are healthy and miss nothing, the preferred one is active, and nothing is staged anywhere.
    pub async fn until_all_well(&self) -> Result<()> {
        self.until_all("all is well", is_well).await
    }

    /// Waits until all is well and no segment is on record that nothing refers to: the sweep has been everywhere.
    pub async fn until_swept(&self) -> Result<()> {
        let deadline = Instant::now() + SOON;
        loop {
            self.until_all_well().await?;
            let rows = self.running().next().context("no filer runs")?.segments().await?;
            let dead: Vec<_> = rows.iter().filter(|row| row.live_bytes == 0).collect();
            if dead.is_empty() {
                // A miss that came with the last delete is made good as well.
                return self.until_all_well().await;
            }
            ensure!(Instant::now() < deadline, "not swept within {SOON:?}: {dead:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Proves that nothing is wrong with the data, once all is well: every running site reads these files and no
    /// others, both clouds list exactly what is on record, and each cloud alone is enough to rebuild every file.
    pub async fn prove(&self, wanted: &Contents) -> Result<()> {
        self.until_swept().await?;
        for site in self.running() {
            proof::site_reads_right(site, wanted).await?;
        }
        let first = self.running().next().context("no filer runs")?;
        proof::clouds_hold_the_record(first).await?;
        proof::each_cloud_is_enough(first, wanted).await
    }

    /// The epoch, which all running filers must have seen.
    pub async fn epoch(&self) -> Result<u64> {
        let mut epochs = vec![];
        for site in self.running() {
            epochs.push(site.status().await?.epoch);
        }
        ensure!(epochs.windows(2).all(|pair| pair[0] == pair[1]), "the filers have seen the epochs {epochs:?}");
        epochs.first().copied().context("no filer runs")
    }
}

/// Whether both clouds are healthy and miss nothing, the preferred one is active, and nothing is staged here.
pub fn is_well(status: &Status) -> bool {
    let whole = |cloud: &::filer::admin::status::Cloud| {
        cloud.state == CloudState::Healthy && cloud.missed_puts + cloud.missed_deletes == 0
    };
    let whole = status.clouds.len() == 2 && status.clouds.iter().all(whole);
    whole && status.active == status.preferred && status.staging.segments == 0
}

impl Drop for MeshOfFilers {
    fn drop(&mut self) {
        // A test that failed shows what the filers were doing.
        if std::thread::panicking() {
            for site in &self.sites {
                eprintln!("{}", site.log_tail());
            }
        }
    }
}
