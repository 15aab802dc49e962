//! Filers as processes: sites made by `filer init`, let in by `filer sign`, served by `filer serve`, as an operator
//! would do it.
//!
//! Owns: a site's directory, its ports, its process. Does not own: clouds (`cloud`), clients (`nfs3`, `nfs_client`).

mod asking;

pub use asking::{Said, said};

use crate::{
    cloud::CloudProcess,
    nfs3::{Nfs3, Options},
    process::{Launch, Process, free_port, free_udp_port, own_binary},
};
use anyhow::{Context, Result, bail, ensure};
use filer::admin::{AdminClient, Status};
use std::{
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};

/// Longest time for one command of the filer.
const COMMAND_WITHIN: Duration = Duration::from_secs(60);

/// How long a filer may take until its admin door answers.
const START_WITHIN: Duration = Duration::from_secs(60);

/// How long it may take to end when asked.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// Pause between two looks at a filer.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// How much of a log an error shows, in lines.
const LOG_LINES_SHOWN: usize = 25;

/// A cloud in the words of `filer init`, for a test cloud. The secret is put into a file in `folder`.
pub fn cloud_flag(cloud: &CloudProcess, name: &str, folder: &Path) -> Result<String> {
    let secret = folder.join(format!("{name}.secret"));
    fs::write(&secret, CloudProcess::SECRET_KEY).with_context(|| format!("writing {}", secret.display()))?;
    let (bucket, url, key) = (cloud.bucket(), cloud.url(), CloudProcess::ACCESS_KEY);
    let secret = secret.display();
    Ok(format!(
        "s3://{bucket}?name={name}&endpoint={url}&allow_http=true&access_key_id={key}&secret_access_key_file={secret}"
    ))
}

/// A site: its directory, and its filer while that runs. Dropped, the filer is killed.
#[derive(Debug)]
pub struct Site {
    name: String,
    dir: PathBuf,
    nfs: SocketAddr,
    mesh: SocketAddr,
    metrics: SocketAddr,
    launch: Launch,
    process: Option<Process>,
}

impl Site {
    /// Makes the first site of a new CloudFS below `folder`. Clouds are flags of `filer init`, settings are `KEY=VALUE`.
    pub async fn first(folder: &Path, name: &str, clouds: [&str; 2], settings: &[&str]) -> Result<Self> {
        let site = Self::planned(folder, name)?;
        site.run(&["init", name, "--cloud-a", clouds[0], "--cloud-b", clouds[1]], settings).await?;
        Ok(site)
    }

    /// Makes a site that joins the CloudFS of `first`.
    pub async fn joining(folder: &Path, name: &str, first: &Self, settings: &[&str]) -> Result<Self> {
        let site = Self::planned(folder, name)?;
        let (request, answer) = (site.dir.join(format!("{name}.csr")), site.dir.join(format!("{name}.pem")));
        filer(["init", name, "--join", "--dir"].map(OsStr::new).into_iter().chain([site.dir.as_os_str()])).await?;
        let sign = [OsStr::new("sign"), request.as_os_str(), OsStr::new("--dir"), first.dir.as_os_str()];
        filer(sign.into_iter().chain([OsStr::new("--output"), answer.as_os_str()])).await?;
        let answer = answer.to_str().context("a path that is no UTF-8")?;
        site.run(&["init", name, "--certificate", answer], settings).await?;
        Ok(site)
    }

    fn planned(folder: &Path, name: &str) -> Result<Self> {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let dir = folder.join(name);
        let launch = Launch::new(name, own_binary("filer")?, folder.join(format!("{name}.log")));
        let launch = launch.args(["serve", "--dir"]).arg(&dir).env("NO_COLOR", "1");
        Ok(Self {
            name: name.into(),
            dir,
            nfs: at(free_port()?),
            mesh: at(free_udp_port()?),
            metrics: at(free_port()?),
            launch,
            process: None,
        })
    }

    async fn run(&self, command: &[&str], settings: &[&str]) -> Result<String> {
        let (mesh, nfs, metrics) = (self.mesh.to_string(), self.nfs.to_string(), self.metrics.to_string());
        let mut arguments: Vec<&OsStr> = command.iter().map(OsStr::new).collect();
        arguments.extend([OsStr::new("--dir"), self.dir.as_os_str()]);
        arguments.extend(["--listen", &mesh, "--nfs", &nfs, "--metrics", &metrics].map(OsStr::new));
        for setting in settings {
            arguments.extend(["--set", setting].map(OsStr::new));
        }
        filer(arguments.into_iter()).await
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its filer's log.
    pub fn log(&self) -> PathBuf {
        self.dir.with_file_name(format!("{}.log", self.name))
    }

    /// Where NFS is served.
    pub fn nfs(&self) -> SocketAddr {
        self.nfs
    }

    /// Where metrics are served.
    pub fn metrics(&self) -> SocketAddr {
        self.metrics
    }

    /// Starts its filer, and waits until its admin door answers.
    pub async fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{} is running already", self.name);
        let mut process = self.launch.start()?;
        process.unix_socket(&self.socket(), START_WITHIN).await?;
        self.process = Some(process);
        self.until("answers", START_WITHIN, |_| true).await.map(drop)
    }

    /// Starts its filer with this in its environment, such as a log filter, from now on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.launch = self.launch.clone().env(name, value);
    }

    /// Its filer's process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("{} is not running", self.name))
    }

    /// Kills its filer without warning.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().with_context(|| format!("{} is not running", self.name))?;
        process.kill().map(drop)
    }

    /// Asks its filer to end, and waits.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        let mut process = self.process.take().with_context(|| format!("{} is not running", self.name))?;
        process.terminate(STOP_WITHIN).await
    }

    /// Its filer's admin socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }

    /// A client of its admin door.
    pub fn admin(&self) -> AdminClient {
        AdminClient::new(&self.socket())
    }

    /// What its filer says of itself.
    pub async fn status(&self) -> Result<Status> {
        self.admin().status().await.with_context(|| format!("asking {} for its status", self.name))
    }

    /// Mounts its export `/`.
    pub async fn mount(&self) -> Result<Nfs3> {
        Nfs3::mount(Options::new(self.nfs)).await.with_context(|| format!("mounting {}", self.name))
    }

    /// Waits until its status is as `wanted` says; gives that status.
    pub async fn until(&self, what: &str, within: Duration, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
        let deadline = Instant::now() + within;
        loop {
            let status = self.admin().status().await;
            match status {
                Ok(status) if wanted(&status) => return Ok(status),
                other if Instant::now() >= deadline => {
                    let seen = match other {
                        Ok(status) => format!("{status:#?}"),
                        Err(error) => error.to_string(),
                    };
                    bail!("{}: not \"{what}\" within {within:?}; {seen}\n{}", self.name, self.log_tail());
                }
                _ => sleep(LOOK_AGAIN_AFTER).await,
            }
        }
    }

    /// The end of its filer's log.
    pub fn log_tail(&self) -> String {
        log_tail(&self.log())
    }
}

/// The end of a log, for error texts.
pub fn log_tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
    format!("--- the end of {} ---\n{}", log.display(), shown.join("\n"))
}

/// Waits until every one of these sites sees all of them as voting, connected members, and a majority.
pub async fn until_whole(sites: &[Site], within: Duration) -> Result<()> {
    let whole = |status: &Status| {
        let here = |peer: &filer::admin::status::Peer| peer.voter && (peer.this || peer.connected);
        status.has_majority
            && !status.active.is_empty()
            && status.peers.len() == sites.len()
            && status.peers.iter().all(here)
    };
    for site in sites {
        site.until("all filers are members, and there is a majority", within, whole).await?;
    }
    Ok(())
}

/// Runs a command of the filer that ends by itself; what it printed.
pub async fn filer<'a>(arguments: impl Iterator<Item = &'a OsStr>) -> Result<String> {
    let arguments: Vec<&OsStr> = arguments.collect();
    let attempted = || format!("filer {}", arguments.join(OsStr::new(" ")).to_string_lossy());
    let mut command = Command::new(own_binary("filer")?);
    command.args(&arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(COMMAND_WITHIN, command.output()).await;
    let output = output.with_context(|| format!("{}: no end in time", attempted()))?.with_context(attempted)?;
    let (out, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}: {}\n{out}{told}", attempted(), output.status);
    Ok(out.into_owned())
}
