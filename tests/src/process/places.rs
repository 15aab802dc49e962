//! Places for tests: free ports, folders that vanish, and our own programs.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Mutex;
use tempfile::TempDir;

/// When this variable is set, folders of tests stay for a look.
const KEEP: &str = "FILERMESH_TEST_KEEP";

/// Tries for a port that was not given out before.
const PORT_TRIES_MAX: usize = 1_000;

/// Ports given out by this process; none is given twice.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A TCP port on 127.0.0.1 that nobody listens on at this moment.
pub fn free_port() -> Result<u16> {
    fresh(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port()))
}

/// A UDP port on 127.0.0.1 that nobody has at this moment.
pub fn free_udp_port() -> Result<u16> {
    fresh(|| Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port()))
}

fn fresh(any: impl Fn() -> Result<u16>) -> Result<u16> {
    let mut given = GIVEN.lock().expect("no holder of this lock panics");
    for _ in 0..PORT_TRIES_MAX {
        let port = any().context("looking for a free port")?;
        if given.insert(port) {
            return Ok(port);
        }
    }
    anyhow::bail!("no port is left that this process was not given before")
}

/// A new folder that is deleted with its handle, unless `FILERMESH_TEST_KEEP` is set.
pub fn temp_dir(name: &str) -> Result<TempDir> {
    let prefix = format!("filermesh-{name}-");
    let mut folder = tempfile::Builder::new().prefix(&prefix).tempdir().context("making a folder for a test")?;
    if std::env::var_os(KEEP).is_some() {
        folder.disable_cleanup(true);
        eprintln!("kept: {}", folder.path().display());
    }
    Ok(folder)
}

/// One of this workspace's own programs, built into the folder that the caller was built into.
pub fn own_binary(name: &str) -> Result<PathBuf> {
    let me = std::env::current_exe().context("asking for the own program")?;
    let folders = me.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    let found = folders.into_iter().find(|program| program.is_file());
    let found = found.with_context(|| format!("no program {name} beside {}: `make test` builds it", me.display()))?;
    ensure!(found != me, "{name} would start itself");
    Ok(found)
}
