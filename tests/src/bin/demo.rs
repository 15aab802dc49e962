//! Shows the main job with real parts: three filers, two clouds, a failure and back. See `tests::demo`.

use clap::Parser;
use std::{path::PathBuf, process::ExitCode};
use tests::demo::{self, Options};
use tokio::signal::unix::{SignalKind, signal};

/// Shows one file system at three sites, in two clouds, through a cloud's failure and back.
///
/// Starts two clouds (S3) and three filers (ams, nyc, sgp) on this machine, copies a tree into ams over NFSv3, reads it
/// at nyc and sgp, kills the active cloud under clients at work, starts it again, and proves at the end that every file
/// is right at every site and can be rebuilt from each cloud alone. Nothing outside of a new temporary directory is
/// changed.
#[derive(Parser)]
#[command(name = "demo", version, max_term_width = 100, after_help = HELP)]
struct Arguments {
    /// The tree to copy, all of it but links and special files; it is only read. Without it, this repository's sources
    #[arg(long, value_name = "PATH")]
    dir: Option<PathBuf>,
    /// Leave everything running at the end, and print how to look around
    #[arg(long)]
    keep: bool,
    /// Seed of the made files and of what clients do
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

const HELP: &str = "\
Examples:
  demo                         this repository's files, completed to 1,000 and one of 256 MiB
  demo --dir /usr/share/doc    a tree of yours
  demo --keep                  leave clouds and filers running to look around
  make demo DIR=/usr/share/doc

Exit codes:
  0    every proof passed
  1    a proof failed, or it did not come so far; what ran is kept for a look
  2    wrong usage
  130  interrupted; everything that was started is ended";

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let options = Options { dir: arguments.dir, keep: arguments.keep, seed: arguments.seed };
    let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = signals else {
        eprintln!("demo: signals cannot be caught");
        return ExitCode::FAILURE;
    };
    let told = tokio::select! {
        biased;
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        _ = hangup.recv() => None,
        told = demo::run(&options) => Some(told),
    };
    match told {
        Some(Ok(true)) => ExitCode::SUCCESS,
        Some(Ok(false)) => {
            eprintln!("demo: FAILED: see PROOFS above");
            ExitCode::FAILURE
        }
        Some(Err(error)) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
        None => {
            eprintln!("\ndemo: interrupted; clouds and filers are ended");
            ExitCode::from(130)
        }
    }
}
