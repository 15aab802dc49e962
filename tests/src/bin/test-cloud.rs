//! The test cloud as a process of its own.
//!
//! Prints `listening on ADDRESS`, and with `--admin` before that `admin on ADDRESS`; ends cleanly on SIGTERM or SIGINT.

use anyhow::{Context, Result};
use clap::Parser;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use tests::cloud::{Fault, Home, LOG_ENTRIES_MAX, Options, TestCloud};
use tokio::signal::unix::{SignalKind, signal};

/// A small S3 server for tests, with faults to order.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Keep objects as files below this folder.
    #[arg(long, required_unless_present = "memory")]
    dir: Option<PathBuf>,
    /// Keep objects in memory.
    #[arg(long, conflicts_with = "dir")]
    memory: bool,
    /// Where S3 clients connect (port 0: a free one).
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where faults are ordered (port 0: a free one).
    #[arg(long)]
    admin: Option<SocketAddr>,
    /// The key pair that clients sign with.
    #[arg(long)]
    access_key: String,
    #[arg(long)]
    secret_key: String,
    /// A bucket to create if it is missing; can be given more than once.
    #[arg(long = "bucket")]
    buckets: Vec<String>,
    /// Requests the log remembers.
    #[arg(long, default_value_t = LOG_ENTRIES_MAX)]
    log_entries_max: usize,
    /// A fault that is on from the start, as JSON; can be given more than once.
    #[arg(long = "fault", value_parser = fault)]
    faults: Vec<Fault>,
}

fn fault(json: &str) -> Result<Fault, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let given = Arguments::parse();
    // Asked for first, so that a signal right behind the line below is already heard.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let home = given.dir.map_or(Home::Memory, Home::Directory);
    let cloud = TestCloud::start(Options {
        home,
        listen: given.listen,
        admin: given.admin,
        access_key: given.access_key,
        secret_key: given.secret_key,
        buckets: given.buckets,
        log_entries_max: given.log_entries_max,
        faults: given.faults,
    })
    .await?;
    let mut out = std::io::stdout();
    if let Some(admin) = cloud.admin_addr() {
        writeln!(out, "admin on {admin}").context("telling where the admin port is")?;
    }
    writeln!(out, "listening on {}", cloud.addr()).context("telling where the port is")?;
    out.flush().context("telling where the port is")?;
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    cloud.stop().await;
    Ok(())
}
