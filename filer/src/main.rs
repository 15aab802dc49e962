//! The program `filer`.

use clap::Parser;
use filer::cli::{self, Cli, CliError, Command, Serve};
use mesh::words::chain;
use mimalloc::MiMalloc;
use std::process::ExitCode;

/// Every call of a client allocates on one thread and frees on another, which costs the system's allocator a fifth of a
/// filer's time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(site) => serve(&site),
        other => cli::run(other, &mut std::io::stdout().lock()).map_err(anyhow::Error::from),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.downcast_ref::<CliError>().is_some_and(CliError::reader_left) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("filer: {}", chain(e.as_ref()));
            cli::exit_code(e.as_ref())
        }
    }
}

/// Serves the site until it is told to stop.
fn serve(site: &Serve) -> anyhow::Result<()> {
    let (config, site_dir) = cli::site_of(site)?;
    cli::start_log(&config.log);
    // A filer that has broken one of its own invariants must not go on with a part of it missing. What it acknowledged
    // is on disk; started again, it goes on from there.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(filer::site::serve(config, site_dir))
}
