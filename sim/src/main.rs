//! The command line of the simulator.

mod commands;

use clap::{Parser, Subcommand};
use commands::{Which, output::say, range};
use mimalloc::MiMalloc;
use sim::plan::{SCENES, Scene};
use std::{path::PathBuf, process::ExitCode};

/// As in a filer, and because many seeds are many allocations.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Runs whole filers in one process, on virtual time, from a seed: finds bugs before users do.
#[derive(Parser)]
#[command(
    version,
    after_help = "Ends with 0 when all is well, 1 when a run failed or traces part, 2 when something could not be read, written or\nrun.\n\nExamples:\n  sim run --seeds 1..500\n  sim run --seeds 1..100 --scene clouds --minutes 5\n  sim replay 17 --until 90 --trace run.txt\n  sim shrink 17 -o small.json && sim replay --plan small.json\n  sim report 17 -o run.html\n  sim plan 17 -o mine.json && sim report --plan mine.json -o mine.html"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds; prints what happened in them, and each failure with the line that runs it again.
    Run(commands::run::Run),
    /// Runs one seed again: the very same run. Tells its trace's hash, what is wrong, and the last lines before that.
    Replay {
        #[command(flatten)]
        which: Which,
        /// Ends the run at this moment of virtual time: seconds, or minutes and seconds as in a trace (90, 1:30, 01:30.250).
        #[arg(long, value_name = "MOMENT", value_parser = commands::moment_ms)]
        until: Option<u64>,
        /// Writes the whole trace there: a line for each effect, with its virtual time and who had it, such as
        /// "00:12.034 00000001 calls 00000002 Consensus 18" (filer 1 sends filer 2 a call of 18 bytes).
        #[arg(long, value_name = "FILE")]
        trace: Option<PathBuf>,
    },
    /// Shows what is to happen in a seed's run: a plan, to be changed by hand and run with `sim replay --plan`.
    #[command(after_help = PLAN_HELP)]
    Plan {
        /// A seed, as `sim run` names it.
        seed: u64,
        #[command(flatten)]
        what: What,
        /// Where the plan goes, instead of to standard output.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Makes a failing run smaller, and writes its plan to a file.
    Shrink {
        #[command(flatten)]
        which: Which,
        /// Where the smaller plan goes.
        #[arg(short, long, value_name = "FILE", default_value = "plan.json")]
        output: PathBuf,
    },
    /// Writes a page that shows a run: states, faults, amounts and events over time.
    Report {
        #[command(flatten)]
        which: Which,
        /// Where the page goes.
        #[arg(short, long, value_name = "FILE", default_value = "run.html")]
        output: PathBuf,
    },
    /// Shows where two traces part.
    Diff {
        /// A trace, as `sim replay --trace` writes it.
        a: PathBuf,
        /// Another one.
        b: PathBuf,
    },
    /// Lists the scenes.
    Scenes,
}

/// Exit code where nothing could be run: as for arguments that are wrong. A run that failed ends with 1.
const NOT_RUN: u8 = 2;

/// What the fields of a plan mean, for those who change one.
const PLAN_HELP: &str = "A plan is JSON:
  filers, clients_per_site  how many filers, numbered from 1, and clients at each
  storm_ms                  how long faults happen; then the world is mended
  think_ms                  mean time between two operations of a client
  operations_max            operations after which a client rests; null: it works until the world is mended
  failures_to_trip          consecutive failures that trip a cloud
  rarely                    how many times as rarely as usual leaders tell that they live, and the run is looked at
  read_back_ms              how long a client goes on reading a file that it has closed
  put_arrives_ms            how late a put may arrive at most
  answered_ms_max           the longest that a client may wait for an answer; away: nothing is promised
  skews_ms                  how far each filer's clock is ahead all the time
  faults                    each with
    at_ms, for_ms           when it begins, in virtual milliseconds since clients began, and how long it lasts
    in_resync_ms            it waits from then on until a cloud is resynced, and so much longer; away: it does not wait
    what                    what goes wrong; clouds are 0 (A, the preferred one) and 1 (B); a crash with at_effect comes at
                            that one of the filer's effects from then on, and with again_after once more, at that effect of
                            its recovery
sim/src/plan.rs and sim/src/world/clouds/trouble.rs tell everything that can go wrong.";

#[derive(clap::Args, Clone)]
pub struct What {
    /// What may go wrong: see `sim scenes`.
    #[arg(long, default_value = "mixed", value_parser = scene)]
    scene: String,
    /// How many filers: a number, or a range from which each seed draws. That a scene shows what it is for is wanted of
    /// three and more.
    #[arg(long, default_value = "3..7", value_parser = filers)]
    filers: (u64, u64),
    /// Virtual minutes in which faults happen, 10 where nothing is said; not for a scene that tells its faults one by one,
    /// which lasts as long as they do.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=24 * 60))]
    minutes: Option<u64>,
}

fn scene(name: &str) -> Result<String, String> {
    match Scene::named(name) {
        Some(scene) => Ok(scene.name.into()),
        None => Err("there is no such scene: `sim scenes` lists them".into()),
    }
}

fn filers(text: &str) -> Result<(u64, u64), String> {
    match range(text)? {
        (from, to) if from >= 1 && to <= 9 => Ok((from, to)),
        _ => Err("1 to 9 filers can be simulated".into()),
    }
}

fn main() -> ExitCode {
    carry_out(Cli::parse().command).unwrap_or_else(|error| {
        eprintln!("Error: {error:#}");
        ExitCode::from(NOT_RUN)
    })
}

fn carry_out(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(run) => commands::run::many(&run),
        Command::Replay { which, until, trace } => commands::replay(&which, until, trace.as_deref()),
        Command::Plan { seed, what, output } => commands::plan(seed, &what, output.as_deref()),
        Command::Shrink { which, output } => commands::shrink(&which, &output),
        Command::Report { which, output } => commands::report(&which, &output),
        Command::Diff { a, b } => commands::diff(&a, &b),
        Command::Scenes => {
            let longest = SCENES.iter().map(|scene| scene.name.len()).max().unwrap_or(0);
            for scene in SCENES {
                say!("{:<longest$}  {}", scene.name, scene.text);
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bad_arguments_are_refused_with_a_reason() {
        let refused = |arguments: &[&str]| {
            let all = ["sim", "run"].iter().chain(arguments);
            Cli::try_parse_from(all).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(refused(&["--scene", "storm"]).contains("sim scenes"));
        assert!(refused(&["--filers", "3..12"]).contains("1 to 9"));
        assert!(refused(&["--seeds", "9..3"]).contains("greater than the last"));
        assert!(refused(&["--minutes", "0"]).contains("1..=1440"));
        assert_eq!(refused(&["--seeds", "3..9"]), "");
        for which in [&["17", "--scene", "calm"][..], &["--plan", "mine.json"]] {
            let replay = ["sim", "replay"].iter().chain(which);
            assert!(Cli::try_parse_from(replay).is_ok(), "{which:?}");
        }
        for which in [&[][..], &["17", "--plan", "mine.json"], &["--plan", "mine.json", "--scene", "calm"]] {
            let replay = ["sim", "replay"].iter().chain(which);
            assert!(Cli::try_parse_from(replay).is_err(), "{which:?}");
        }
    }
}
