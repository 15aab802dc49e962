//! Running many seeds.

#![expect(clippy::disallowed_types, reason = "how fast runs are is measured in real time")]

use super::{output::say, range};
use crate::What;
use indicatif::{ProgressBar, ProgressStyle};
use sim::{
    coverage,
    run::{How, Outcome},
};
use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Exit code of a program that a user has stopped: that of SIGINT.
const STOPPED: u8 = 130;

/// Failures that are told once more behind what happened, where the first word of them has left the screen.
const FAILURES_TOLD_AGAIN: usize = 10;

/// Which seeds are run, and how.
#[derive(clap::Args)]
pub struct Run {
    /// Such as 1..500 (the last one included) or 7.
    #[arg(long, default_value = "1..20", value_parser = range)]
    seeds: (u64, u64),
    /// Runs at one time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=256))]
    jobs: u64,
    /// Begins no further seed after so many minutes of real time.
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    stop_after: Option<u64>,
    /// Fails when a core makes fewer virtual seconds than this in a second.
    #[arg(long, value_name = "VIRTUAL_SECONDS", value_parser = speed)]
    speed_min: Option<f64>,
    /// Ends at the first failure.
    #[arg(long)]
    first: bool,
    #[command(flatten)]
    what: What,
}

#[derive(Default)]
struct Totals {
    coverage: BTreeMap<&'static str, u64>,
    virtual_ms: u64,
    passed: u64,
    failed: u64,
    /// The first of the seeds that failed, with what was wrong.
    failures: Vec<String>,
}

impl Totals {
    fn add(&mut self, outcome: &Outcome) {
        for (name, count) in &outcome.coverage {
            *self.coverage.entry(name).or_default() += count;
        }
        self.virtual_ms += outcome.virtual_ms;
        *if outcome.violation.is_some() { &mut self.failed } else { &mut self.passed } += 1;
    }
}

/// Whether a user stops the program. The first time the runs under way go on to their end, the second time nothing does.
fn told_to_stop(bar: &ProgressBar) -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let (told, bar) = (stop.clone(), bar.clone());
    ctrlc::set_handler(move || {
        if told.swap(true, Relaxed) {
            std::process::exit(STOPPED.into());
        }
        bar.suspend(|| eprintln!("stops when the runs under way have ended; at once if it is told again"));
    })?;
    Ok(stop)
}

/// Runs them; fails when one of them fails.
pub fn many(run: &Run) -> anyhow::Result<ExitCode> {
    run.what.checked()?;
    let (from, to) = run.seeds;
    let bar = ProgressBar::new((to - from).saturating_add(1));
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} seeds, {per_sec}, {eta} left {msg}")?);
    let (next, begun, has_failed) = (AtomicU64::new(0), Instant::now(), AtomicBool::new(false));
    let stop = told_to_stop(&bar)?;
    let is_over = || stop.load(Relaxed) || run.first && has_failed.load(Relaxed);
    let end = run.stop_after.map(|minutes| Duration::from_secs(60 * minutes));
    let totals: Mutex<Totals> = Mutex::default();
    let locked = || -> MutexGuard<'_, Totals> { totals.lock().expect("no run panics here") };
    std::thread::scope(|scope| {
        for _ in 0..run.jobs {
            scope.spawn(|| {
                while !is_over() && end.is_none_or(|end| begun.elapsed() < end) {
                    let number = next.fetch_add(1, Relaxed);
                    if number > to - from {
                        return;
                    }
                    let seed = from + number;
                    let outcome = sim::run::run(run.what.plan(seed), How::default());
                    let mut totals = locked();
                    totals.add(&outcome);
                    if let Some(violation) = &outcome.violation {
                        let failure = format!("seed {seed}: {violation}\n  {}", run.what.replay(seed));
                        bar.suspend(|| say!("{failure}"));
                        if totals.failures.len() < FAILURES_TOLD_AGAIN {
                            totals.failures.push(failure);
                        }
                        has_failed.store(true, Relaxed);
                    }
                    bar.inc(1);
                    bar.set_message(told(speed_of(&totals, begun, run.jobs)));
                }
            });
        }
    });
    bar.finish_and_clear();
    let totals = totals.into_inner().expect("no run panics here");
    for name in coverage::NAMES {
        say!("{:>12}  {name}", totals.coverage.get(name).copied().unwrap_or(0));
    }
    let speed = speed_of(&totals, begun, run.jobs);
    let (seeds, real_s) = (totals.passed + totals.failed, begun.elapsed().as_secs_f64());
    say!(
        "{:.0} virtual seconds in {real_s:.1} s: {}, {:.2} seeds a second",
        totals.virtual_ms as f64 / 1000.0,
        told(speed),
        seeds as f64 / real_s
    );
    if !totals.failures.is_empty() {
        say!("failed, as told above:");
        totals.failures.iter().for_each(|failure| say!("{failure}"));
    }
    let left = (to - from).saturating_add(1) - seeds;
    let not_run = if left > 0 { format!(", {left} not run") } else { String::new() };
    say!("{} passed, {} failed{not_run}", totals.passed, totals.failed);
    let too_slow = run.speed_min.filter(|wanted| speed < *wanted);
    if let Some(wanted) = too_slow {
        say!("at least {} are wanted: MISSED", told(wanted));
    }
    let is_well = totals.failed == 0 && too_slow.is_none();
    Ok(match stop.load(Relaxed) {
        _ if !is_well => ExitCode::FAILURE,
        true => STOPPED.into(),
        false => ExitCode::SUCCESS,
    })
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().map_err(|e| format!("\"{text}\": {e}"))?;
    if f64::is_finite(speed) && speed >= 0.0 { Ok(speed) } else { Err(format!("\"{text}\" is no speed")) }
}

/// Virtual seconds that a core made in a real second.
fn speed_of(totals: &Totals, begun: Instant, jobs: u64) -> f64 {
    let cores = jobs.min(std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64)) as f64;
    totals.virtual_ms as f64 / 1000.0 / begun.elapsed().as_secs_f64() / cores
}

fn told(speed: f64) -> String {
    format!("{speed:.0} virtual seconds a second and core")
}
