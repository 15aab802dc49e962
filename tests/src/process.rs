//! Processes for tests and the demo: started, watched, killed.
//!
//! A child stays in the process group of its parent, so that an interrupt at the terminal reaches it as well; it is
//! killed by its process id when its handle is dropped. Its output goes straight into a file: nothing is lost when the
//! parent is busy, and a failed test can show it.
//!
//! Owns: one child, its output, waiting with a deadline. Does not own: what the child is (`azurite`, the filer).

mod places;

pub use places::{free_port, free_udp_port, own_binary, temp_dir};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep};

/// Pause between two looks at a child, its output or its ports.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// How much of the output an error shows, in bytes.
const SHOWN_BYTES_MAX: usize = 4_000;

/// How to start a child. Clone it to start the same one again.
#[derive(Clone, Debug)]
pub struct Launch {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    output: PathBuf,
}

impl Launch {
    /// `name` is for error texts; output is appended to the file `output`.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            arguments: vec![],
            environment: vec![],
            folder: None,
            output: output.into(),
        }
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().into());
        self
    }

    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_os_string()));
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().into(), value.as_ref().into()));
        self
    }

    /// The working directory.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Starts it.
    pub fn start(&self) -> Result<Process> {
        let attempted = || format!("starting {} ({})", self.name, self.program.display());
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.output)
            .with_context(attempted)
            .with_context(|| format!("opening {}", self.output.display()))?;
        let from = output.metadata().with_context(attempted)?.len();
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(output.try_clone().with_context(attempted)?).stderr(output);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let child = command.spawn().with_context(attempted)?;
        Ok(Process { name: self.name.clone(), child, output: self.output.clone(), from })
    }
}

/// A running child. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: PathBuf,
    /// Where its output begins in the file.
    from: u64,
}

impl Process {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file its output goes to.
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// What it has printed since it was started, on standard output and standard error.
    pub fn text(&self) -> Result<String> {
        let mut bytes = Vec::new();
        let mut file = File::open(&self.output).with_context(|| format!("opening {}", self.output.display()))?;
        file.seek(SeekFrom::Start(self.from)).context("seeking to a child's output")?;
        file.read_to_end(&mut bytes).with_context(|| format!("reading {}", self.output.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits for a whole line that contains `part`, and returns the line. Fails at once if the child ends first.
    pub async fn line(&mut self, part: &str, within: Duration) -> Result<String> {
        self.until(&format!("a line with {part:?}"), within, async |process| {
            let text = process.text()?;
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            Ok(whole.lines().find(|line| line.contains(part)).map(String::from))
        })
        .await
    }

    /// Waits for a whole line that begins with `label` and reads the rest of it as an address.
    pub async fn address(&mut self, label: &str, within: Duration) -> Result<SocketAddr> {
        let line = self.line(label, within).await?;
        let (_, address) = line.split_once(label).expect("the line contains it");
        address.trim().parse().with_context(|| format!("{}: no address in {line:?}", self.name))
    }

    /// Waits until connections to this port are accepted.
    pub async fn tcp_port(&mut self, port: SocketAddr, within: Duration) -> Result<()> {
        self.until(&format!("port {port}"), within, async |_| Ok(TcpStream::connect(port).await.ok().map(drop))).await
    }

    /// Waits until connections to this socket are accepted.
    pub async fn unix_socket(&mut self, path: &Path, within: Duration) -> Result<()> {
        let wanted = format!("socket {}", path.display());
        self.until(&wanted, within, async |_| Ok(UnixStream::connect(path).await.ok().map(drop))).await
    }

    /// Whether it has not ended yet.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.status()?.is_none())
    }

    /// Kills it without warning (SIGKILL) and waits for its end.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill().with_context(|| format!("killing {}", self.name))?;
        self.child.wait().with_context(|| format!("waiting for {}", self.name))
    }

    /// Asks it to end (SIGTERM) and waits. Out of time it is an error, and the child is still there.
    pub async fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.ended(within).await
    }

    /// Halts it (SIGSTOP): alive, silent, its connections open.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits for its end.
    pub async fn ended(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.status()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} did not end within {within:?}\n{}", self.name, self.shown());
            }
            sleep(LOOK_AGAIN_AFTER).await;
        }
    }

    async fn until<T>(
        &mut self,
        wanted: &str,
        within: Duration,
        mut look: impl AsyncFnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + within;
        loop {
            // Asked first: what it printed before its end counts.
            let ended = self.status()?;
            if let Some(found) = look(self).await? {
                return Ok(found);
            }
            if let Some(status) = ended {
                bail!("{} ended ({status}) without {wanted}\n{}", self.name, self.shown());
            }
            if Instant::now() >= deadline {
                bail!("{} has not shown {wanted} within {within:?}\n{}", self.name, self.shown());
            }
            sleep(LOOK_AGAIN_AFTER).await;
        }
    }

    fn status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("asking whether {} has ended", self.name))
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        // A child that was waited for has given its id back to the system: never signal that.
        if let Some(status) = self.status()? {
            bail!("{} has already ended ({status})\n{}", self.name, self.shown());
        }
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw).expect("children have positive ids");
        kill_process(id, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// The end of its output, for error texts.
    fn shown(&self) -> String {
        let text = self.text().unwrap_or_default();
        let from = text.len().saturating_sub(SHOWN_BYTES_MAX);
        let from = (from..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
        format!("--- {} ---\n{}", self.output.display(), &text[from..])
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended long ago; then there is nothing to kill.
        if let Err(error) = self.kill() {
            tracing::debug!(%error, "a child was gone already");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> (tempfile::TempDir, Launch) {
        let folder = temp_dir("process").unwrap();
        let launch = Launch::new("shell", "/bin/sh", folder.path().join("output")).arg("-c").arg(script);
        (folder, launch)
    }

    #[tokio::test]
    async fn lines_are_awaited_and_an_early_end_is_told_with_the_output() {
        let (_folder, launch) = shell("echo begun; echo address 127.0.0.1:77; echo unhappy >&2; exit 3");
        let mut process = launch.start().unwrap();
        assert_eq!(process.line("beg", SOON).await.unwrap(), "begun");
        assert_eq!(process.address("address ", SOON).await.unwrap(), "127.0.0.1:77".parse().unwrap());
        let error = process.line("never", SOON).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("unhappy"), "{error}");
        assert!(process.terminate(SOON).await.is_err());
        // The second start sees its own output alone.
        let again = launch.arg("-").start().unwrap();
        drop(again);
    }

    #[tokio::test]
    async fn children_end_by_signal_and_with_their_handle() {
        let (_folder, launch) = shell("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done");
        let mut process = launch.start().unwrap();
        process.line("ready", SOON).await.unwrap();
        assert!(process.terminate(SOON).await.unwrap().success());
        assert!(process.text().unwrap().contains("bye"));

        let mut process = launch.start().unwrap();
        assert!(process.line("never", Duration::from_millis(1)).await.is_err());
        process.line("ready", SOON).await.unwrap();
        process.pause().unwrap();
        process.resume().unwrap();
        assert!(!process.kill().unwrap().success());

        let process = launch.start().unwrap();
        let folder = PathBuf::from(format!("/proc/{}", process.id()));
        assert!(folder.exists());
        drop(process);
        assert!(!folder.exists());
    }

    #[tokio::test]
    async fn ports_are_awaited() {
        let (folder, launch) = shell("sleep 60");
        let mut process = launch.start().unwrap();
        let port = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
        assert!(process.tcp_port(port, Duration::from_millis(1)).await.is_err());
        let _listener = tokio::net::TcpListener::bind(port).await.unwrap();
        process.tcp_port(port, SOON).await.unwrap();
        let path = folder.path().join("socket");
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        process.unix_socket(&path, SOON).await.unwrap();
    }
}
