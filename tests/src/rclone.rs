//! rclone's S3 server: a cloud of another maker than ours, over a directory.
//!
//! It is installed by `make test` (pip, into the cache folder). Its ETags are MD5s, and it refuses a body that is not
//! what its Content-MD5 says with 400, and stores nothing then.

use crate::process::{Launch, Process, free_port};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where pip put it, in place of `~/.cache/filermesh/pip`.
const PIP_FOLDER: &str = "FILERMESH_PIP";

/// The program below pip's folder.
const PROGRAM: &str = "bin/rclone";

/// How long it may take to listen.
const START_WITHIN: Duration = Duration::from_secs(30);

/// A running `rclone serve s3`. Dropped, it is killed.
pub struct Rclone {
    launch: Launch,
    process: Process,
    addr: SocketAddr,
    bucket: String,
}

/// Finds the installed program.
pub fn locate() -> Result<PathBuf> {
    let folder = match std::env::var_os(PIP_FOLDER) {
        Some(folder) => PathBuf::from(folder),
        None => {
            let home = std::env::var_os("HOME").context("no HOME to look for rclone in")?;
            PathBuf::from(home).join(".cache/filermesh/pip")
        }
    };
    let program = folder.join(PROGRAM);
    ensure!(program.is_file(), "rclone is not installed ({} is missing): `make test` installs it", program.display());
    Ok(program)
}

impl Rclone {
    /// The key pair its clients sign with; it wants 16 characters or more of each.
    pub const ACCESS_KEY: &str = "rclone-access-key";
    pub const SECRET_KEY: &str = "rclone-secret-key";

    /// Starts it on a free port, with its objects and its output below `folder`, and one bucket.
    pub async fn start(folder: &Path, bucket: &str) -> Result<Self> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let root = folder.join("rclone");
        // A bucket is a directory of its root.
        fs::create_dir_all(root.join(bucket)).with_context(|| format!("making bucket {bucket}"))?;
        let launch = Launch::new("rclone", locate()?, folder.join("rclone.log"))
            // Without any settings of whoever runs the tests.
            .args(["serve", "s3", "--config", "", "--addr", &addr.to_string()])
            .args(["--auth-key", &format!("{},{}", Self::ACCESS_KEY, Self::SECRET_KEY)])
            // An object is on the disk when it is acknowledged; and a directory stays when its last object is deleted,
            // or a put of that moment would find none.
            .args(["--vfs-cache-mode", "off", "--no-cleanup"])
            .arg(root);
        let process = begin(&launch, addr).await?;
        Ok(Self { launch, process, addr, bucket: bucket.into() })
    }

    /// Starts it again after its end, on the same port.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process = begin(&self.launch, self.addr).await?;
        Ok(())
    }

    /// Kills it without warning: connections to it are refused from here on.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill().map(drop)
    }

    /// The endpoint for S3 clients, which must put the bucket in the path.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn bucket(&self) -> &str {
        &self.bucket
    }
}

async fn begin(launch: &Launch, addr: SocketAddr) -> Result<Process> {
    let mut process = launch.start()?;
    process.tcp_port(addr, START_WITHIN).await?;
    Ok(process)
}
