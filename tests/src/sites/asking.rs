//! What a test asks of a site beside its status: whole lists, single metrics, its clouds, its commands.

use super::{LOOK_AGAIN_AFTER, Site};
use crate::{http, nfs_client::NfsClient, process::own_binary};
use ::filer::{
    admin::{FileRow, SegmentRow},
    config::{Config, SiteDir},
};
use anyhow::{Context, Result, ensure};
use std::{ffi::OsStr, process::Stdio, sync::Arc, time::Duration};
use storage::{cloud::Cloud, ids::CloudId};
use tokio::time::{Instant, sleep, timeout};

/// How long a command, or a filer that is to end by itself, may take.
const ENDED_WITHIN: Duration = Duration::from_secs(60);

/// Rows of a list that are asked for at a time.
const ROWS: usize = 500;

/// What a command said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    /// The same, if it ended well.
    pub fn done(self) -> Result<Self> {
        ensure!(self.code == Some(0), "exit code {:?}\n{}{}", self.code, self.out, self.err);
        Ok(self)
    }
}

/// Runs the program `filer` with these arguments to its end, whatever that is.
pub async fn said<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<Said> {
    let mut command = tokio::process::Command::new(own_binary("filer")?);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let attempted = format!("{command:?}");
    let output = timeout(ENDED_WITHIN, command.output()).await;
    let output = output.with_context(|| format!("{attempted}: no end within {ENDED_WITHIN:?}"))?;
    let output = output.with_context(|| attempted)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
}

impl Site {
    /// Whether its filer was started and not ended by us since.
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// Where it talks to its peers (UDP).
    pub fn mesh(&self) -> std::net::SocketAddr {
        self.mesh
    }

    /// Starts its filer, which is expected to end by itself, and waits for that; its exit code and what it logged.
    pub async fn start_in_vain(&mut self) -> Result<(Option<i32>, String)> {
        let mut process = self.launch.start()?;
        let status = process.ended(ENDED_WITHIN).await?;
        Ok((status.code(), process.text()?))
    }

    /// Its settings.
    pub fn config(&self) -> Result<Config> {
        Ok(SiteDir::new(&self.dir)?.config()?)
    }

    /// Its filer's id, in hexadecimal as object names have it.
    pub fn filer_id(&self) -> Result<String> {
        Ok(format!("{:016x}", SiteDir::new(&self.dir)?.site()?.filer.0))
    }

    /// Its CloudFS's id, in hexadecimal.
    pub fn cloudfs(&self) -> Result<String> {
        Ok(SiteDir::new(&self.dir)?.site()?.cloudfs_text())
    }

    /// A cloud, through the product's own connector, with this site's settings.
    pub fn cloud(&self, cloud: CloudId) -> Result<Arc<dyn Cloud>> {
        let config = self.config()?;
        let entry = config.clouds.entry(cloud);
        Ok(storage::clouds::open(&entry.settings, &entry.name)?)
    }

    /// The tools of libnfs.
    pub fn libnfs(&self) -> NfsClient {
        NfsClient::new(self.nfs, "/").user(1000, 1000)
    }

    /// Runs a command about this site: `filer ARGUMENTS --dir DIR`.
    pub async fn command(&self, arguments: &[&str]) -> Result<Said> {
        let dir = self.dir.display().to_string();
        said(arguments.iter().copied().chain(["--dir", &dir])).await
    }

    /// A number of its metrics page, such as `filermesh_epoch`.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let answer = http::request(self.metrics, "GET", "/metrics", &[], "").await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = line.with_context(|| format!("no {name} on the metrics page of {}:\n{text}", self.name))?;
        value.trim().parse().with_context(|| format!("{name} is {value}"))
    }

    /// Waits until its filer has logged a line with all of these words.
    pub async fn until_logged(&self, words: &[&str], within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let log =
                std::fs::read_to_string(self.log()).with_context(|| format!("reading the log of {}", self.name))?;
            if log.lines().any(|line| words.iter().all(|word| line.contains(word))) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{} has not logged {words:?}\n{}", self.name, self.log_tail());
            sleep(LOOK_AGAIN_AFTER).await;
        }
    }

    /// All segments on record.
    pub async fn segments(&self) -> Result<Vec<SegmentRow>> {
        let (admin, mut all, mut after) = (self.admin(), vec![], None::<String>);
        loop {
            let page = admin.segments(after.as_deref(), ROWS).await?;
            all.extend(page.rows);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
    }

    /// All files on record.
    pub async fn files(&self) -> Result<Vec<FileRow>> {
        let (admin, mut all, mut after) = (self.admin(), vec![], None::<String>);
        loop {
            let page = admin.files(after.as_deref(), ROWS).await?;
            all.extend(page.rows);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
    }
}
