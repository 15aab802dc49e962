//! A real NFSv3 client: the tools of libnfs (`nfs-cp`, `nfs-cat`, `nfs-ls`), which need no mount and no root.
//!
//! Each call is a new client: it mounts, does one thing, and leaves.

use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// How long one call may take unless told otherwise.
pub const CALL_WITHIN: Duration = Duration::from_secs(60);

/// What `nfs-ls` tells of a file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    /// Such as `-rw-r--r--`.
    pub mode: String,
    pub links: u64,
    pub uid: u32,
    pub gid: u32,
    pub bytes: u64,
}

impl Listed {
    pub fn is_folder(&self) -> bool {
        self.mode.starts_with('d')
    }
}

/// A client of one export.
#[derive(Clone, Debug)]
pub struct NfsClient {
    server: SocketAddr,
    mount_port: u16,
    export: String,
    user: Option<(u32, u32)>,
    within: Duration,
}

impl NfsClient {
    /// For an NFS and MOUNT server on one port; `export` such as `/export`.
    pub fn new(server: SocketAddr, export: impl Into<String>) -> Self {
        Self { server, mount_port: server.port(), export: export.into(), user: None, within: CALL_WITHIN }
    }

    /// With MOUNT on another port.
    pub fn mount_port(self, mount_port: u16) -> Self {
        Self { mount_port, ..self }
    }

    /// As this user and group.
    pub fn user(self, uid: u32, gid: u32) -> Self {
        Self { user: Some((uid, gid)), ..self }
    }

    /// With another deadline for each call.
    pub fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    /// The URL that libnfs understands for this path below the export.
    pub fn url(&self, path: &str) -> String {
        let (host, port, mount_port) = (self.server.ip(), self.server.port(), self.mount_port);
        let (export, path) = (self.export.trim_end_matches('/'), path.trim_start_matches('/'));
        // The tools mount the directory above a file, and have no name for that of one right below "/" but this.
        let export = if export.is_empty() && !path.is_empty() && !path.contains('/') { "/" } else { export };
        let user = self.user.map_or(String::new(), |(uid, gid)| format!("&uid={uid}&gid={gid}"));
        format!("nfs://{host}{export}/{path}?nfsport={port}&mountport={mount_port}&version=3{user}")
    }

    /// Copies a local file to the server, by its name there.
    pub async fn put(&self, local: &Path, path: &str) -> Result<()> {
        self.run("nfs-cp", [local.as_os_str(), OsStr::new(&self.url(path))]).await.map(drop)
    }

    /// Copies a file of the server to a local one.
    pub async fn get(&self, path: &str, local: &Path) -> Result<()> {
        self.run("nfs-cp", [OsStr::new(&self.url(path)), local.as_os_str()]).await.map(drop)
    }

    /// The whole content of a file.
    pub async fn cat(&self, path: &str) -> Result<Vec<u8>> {
        Ok(self.run("nfs-cat", [OsStr::new(&self.url(path))]).await?.stdout)
    }

    /// What is in a folder, in order of name, without `.` and `..`.
    pub async fn ls(&self, path: &str) -> Result<Vec<Listed>> {
        let output = self.run("nfs-ls", [OsStr::new(&self.url(path))]).await?;
        let text = String::from_utf8(output.stdout).context("nfs-ls printed no UTF-8")?;
        let mut listed = text.lines().map(listed).collect::<Result<Vec<_>>>()?;
        listed.retain(|listed| !matches!(&*listed.name, "." | ".."));
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    async fn run<const N: usize>(&self, program: &str, arguments: [&OsStr; N]) -> Result<Output> {
        let attempted = format!("{program} {arguments:?}");
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let output = match timeout(self.within, command.output()).await {
            Ok(output) => output.with_context(|| format!("{attempted} (Debian package libnfs-utils)"))?,
            Err(_) => bail!("{attempted}: no end within {:?}", self.within),
        };
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{attempted}: {} {told}", output.status);
        Ok(output)
    }
}

/// A line of `nfs-ls`: mode, links, user, group, size, and the name, which may have spaces.
fn listed(line: &str) -> Result<Listed> {
    let mut rest = line;
    let mut word = || {
        rest = rest.trim_start();
        let (word, behind) = rest.split_once(' ').with_context(|| format!("nfs-ls printed {line:?}"))?;
        rest = behind;
        anyhow::Ok(word)
    };
    let number = |word: &str| word.parse::<u64>().with_context(|| format!("nfs-ls printed {line:?}"));
    let (mode, links) = (word()?.to_string(), number(word()?)?);
    let (uid, gid) = (number(word()?)?, number(word()?)?);
    let bytes = number(word()?)?;
    let (uid, gid) = (u32::try_from(uid).context("reading a user id")?, u32::try_from(gid).context("a group id")?);
    Ok(Listed { name: rest.to_string(), mode, links, uid, gid, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::free_port;

    #[test]
    fn lines_of_nfs_ls_are_read() {
        let file = listed("-rwxr-xr-x  1  1000  1000           13 foo 123.copy").unwrap();
        let wanted = Listed {
            name: "foo 123.copy".into(),
            mode: "-rwxr-xr-x".into(),
            links: 1,
            uid: 1000,
            gid: 1000,
            bytes: 13,
        };
        assert_eq!(file, wanted);
        assert!(!file.is_folder());
        assert!(listed("drwxr-xr-x  3     0     0         4096 sub").unwrap().is_folder());
        assert!(listed("hello").is_err());
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_an_error() {
        let server = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
        let client = NfsClient::new(server, "/export/").user(5, 6);
        let port = server.port();
        let url = format!("nfs://127.0.0.1/export/a/b?nfsport={port}&mountport={port}&version=3&uid=5&gid=6");
        assert_eq!(client.url("/a/b"), url);
        let error = client.cat("a").await.unwrap_err().to_string();
        assert!(error.contains("nfs-cat"), "{error}");
        assert!(client.ls("").await.is_err());
    }
}
