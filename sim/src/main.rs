//! The command line of the simulator.

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use sim::{
    coverage,
    plan::{Plan, SCENES},
    run::{Outcome, run},
    trace::moment,
};
use std::{
    collections::BTreeMap,
    io::{BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

/// Runs whole filers in one process, on virtual time, from a seed: finds bugs before users do.
#[derive(Parser)]
#[command(
    after_help = "Examples:\n  sim run --seeds 1..500\n  sim run --seeds 1..100 --scene clouds --minutes 5\n  sim replay 17 --trace run.txt"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds.
    Run {
        /// Such as 1..500 (the last one included) or 7.
        #[arg(long, default_value = "1..20", value_parser = seeds)]
        seeds: (u64, u64),
        /// Runs at one time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        #[command(flatten)]
        what: What,
    },
    /// Runs one seed again, and shows the end of its trace.
    Replay {
        seed: u64,
        /// Writes the whole trace there.
        #[arg(long)]
        trace: Option<PathBuf>,
        #[command(flatten)]
        what: What,
    },
    /// Lists the scenes.
    Scenes,
}

#[derive(clap::Args, Clone)]
struct What {
    /// What may go wrong: see `sim scenes`.
    #[arg(long, default_value = "mixed")]
    scene: String,
    /// How many filers: a number, or a range from which each seed draws.
    #[arg(long, default_value = "3..5", value_parser = seeds)]
    filers: (u64, u64),
    /// Virtual minutes in which faults happen.
    #[arg(long, default_value_t = 2)]
    minutes: u64,
}

impl What {
    fn plan(&self, seed: u64) -> Plan {
        Plan::draw(seed, &self.scene, self.filers, self.minutes)
    }

    fn replay(&self, seed: u64) -> String {
        let (from, to) = self.filers;
        format!("sim replay {seed} --scene {} --filers {from}..{to} --minutes {}", self.scene, self.minutes)
    }
}

/// A number, or two with `..` between.
fn seeds(text: &str) -> Result<(u64, u64), String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("\"{text}\" is no number"));
    match text.split_once("..") {
        Some((from, to)) => match (number(from)?, number(to)?) {
            (from, to) if from <= to => Ok((from, to)),
            _ => Err(format!("\"{text}\" has nothing in it")),
        },
        None => number(text).map(|one| (one, one)),
    }
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Run { seeds, jobs, what } => many(seeds, jobs, &what),
        Command::Replay { seed, trace, what } => again(seed, trace, &what),
        Command::Scenes => {
            for (name, text) in SCENES {
                println!("{name:<12}{text}");
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn check(what: &What) -> anyhow::Result<()> {
    let known = SCENES.iter().any(|(name, _)| *name == what.scene);
    ensure!(known, "there is no scene {}: sim scenes lists them", what.scene);
    ensure!((1..=9).contains(&what.filers.0) && what.filers.1 <= 9, "1 to 9 filers can be simulated");
    ensure!((1..=24 * 60).contains(&what.minutes), "1 minute to a day can be simulated");
    Ok(())
}

fn many((from, to): (u64, u64), jobs: usize, what: &What) -> anyhow::Result<ExitCode> {
    check(what)?;
    let bar = ProgressBar::new(to - from + 1);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} seeds, {per_sec}, {eta} left {msg}")?);
    let (next, begun) = (AtomicU64::new(from), Instant::now());
    let outcomes: Mutex<BTreeMap<u64, Outcome>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed > to {
                        return;
                    }
                    let outcome = run(what.plan(seed), None);
                    if let Some(violation) = &outcome.violation {
                        bar.suspend(|| println!("seed {seed}: {violation}\n  {}", what.replay(seed)));
                    }
                    outcomes.lock().expect("no run panics here").insert(seed, outcome);
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let outcomes = outcomes.into_inner().expect("no run panics here");
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for outcome in outcomes.values() {
        for (name, count) in &outcome.coverage {
            *totals.entry(name).or_default() += count;
        }
    }
    for name in coverage::NAMES {
        println!("{:>12}  {name}", totals.get(name).copied().unwrap_or(0));
    }
    let failed = outcomes.values().filter(|outcome| outcome.violation.is_some()).count();
    let (virtual_s, real_s) = (
        outcomes.values().map(|outcome| outcome.virtual_ms).sum::<u64>() as f64 / 1000.0,
        begun.elapsed().as_secs_f64(),
    );
    let cores = jobs.clamp(1, std::thread::available_parallelism().map_or(1, usize::from)) as f64;
    println!(
        "{virtual_s:.0} virtual seconds in {real_s:.1} s: {:.0} a second and core, {:.2} seeds a second",
        virtual_s / real_s / cores,
        outcomes.len() as f64 / real_s
    );
    println!("{} passed, {failed} failed", outcomes.len() - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn again(seed: u64, trace: Option<PathBuf>, what: &What) -> anyhow::Result<ExitCode> {
    check(what)?;
    let out: Option<Box<dyn Write + Send>> = match &trace {
        Some(path) => {
            let file = std::fs::File::create(path).with_context(|| format!("making {}", path.display()))?;
            Some(Box::new(BufWriter::new(file)))
        }
        None => None,
    };
    let outcome = run(what.plan(seed), out);
    if outcome.violation.is_some() {
        outcome.last.iter().for_each(|line| println!("{line}"));
    }
    println!("trace {:016x}, {} lines, {} virtual time", outcome.hash, outcome.lines, moment(outcome.virtual_ms));
    match outcome.violation {
        Some(violation) => {
            println!("seed {seed}: {violation}");
            Ok(ExitCode::FAILURE)
        }
        None => Ok(ExitCode::SUCCESS),
    }
}
