//! A test cloud as a child process: it can be killed and started again with what it held.

use super::faults::Fault;
use super::remote::RemoteCloud;
use crate::process::{Launch, Process, own_binary};
use anyhow::Result;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// How long it may take to listen.
const START_WITHIN: Duration = Duration::from_secs(30);

/// How long it may take to end when asked.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// A test cloud in a process of its own, with an admin port. Dropped, it is killed.
#[derive(Debug)]
pub struct CloudProcess {
    launch: Launch,
    process: Process,
    addr: SocketAddr,
    admin: SocketAddr,
    bucket: String,
}

impl CloudProcess {
    /// The key pair its clients sign with.
    pub const ACCESS_KEY: &str = "test-access-key";
    pub const SECRET_KEY: &str = "test-secret-key";

    /// Starts it on free ports, with its objects and its output below `folder`.
    pub async fn start(name: &str, folder: &Path, bucket: &str) -> Result<Self> {
        let launch = Launch::new(name, own_binary("test-cloud")?, folder.join(format!("{name}.log")))
            .args(["--access-key", Self::ACCESS_KEY, "--secret-key", Self::SECRET_KEY, "--bucket", bucket, "--dir"])
            .arg(folder.join(name));
        let (process, addr, admin) = begin(&launch.clone().args(["--admin", "127.0.0.1:0"])).await?;
        Ok(Self { launch, process, addr, admin, bucket: bucket.into() })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The endpoint for S3 clients, which must put the bucket in the path.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Its faults, counters and objects. Faults and counters begin anew when it is started again.
    pub fn remote(&self) -> RemoteCloud {
        RemoteCloud::new(self.admin)
    }

    /// The process, to pause or look at.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Kills it without warning: connections to it are refused from here on.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill().map(drop)
    }

    /// Asks it to end, and waits.
    pub async fn stop(&mut self) -> Result<()> {
        let status = self.process.terminate(STOP_WITHIN).await?;
        anyhow::ensure!(status.success(), "the cloud ended with {status}");
        Ok(())
    }

    /// Starts it again after its end, on the same ports.
    pub async fn start_again(&mut self) -> Result<()> {
        self.start_again_with(&[]).await
    }

    /// Starts it again with faults that are on before its first request, in this order.
    pub async fn start_again_with(&mut self, faults: &[Fault]) -> Result<()> {
        let (addr, admin) = (self.addr.to_string(), self.admin.to_string());
        let mut launch = self.launch.clone().args(["--listen", &addr, "--admin", &admin]);
        for fault in faults {
            launch = launch.arg("--fault").arg(serde_json::to_string(fault)?);
        }
        (self.process, self.addr, self.admin) = begin(&launch).await?;
        Ok(())
    }
}

async fn begin(launch: &Launch) -> Result<(Process, SocketAddr, SocketAddr)> {
    let mut process = launch.start()?;
    let addr = process.address("listening on ", START_WITHIN).await?;
    let admin = process.address("admin on ", START_WITHIN).await?;
    Ok((process, addr, admin))
}
