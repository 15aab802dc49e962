//! What each command does.

#![expect(clippy::disallowed_methods, reason = "the program around the runs: files, threads, real time")]

pub mod run;

use crate::What;
use anyhow::{Context, bail};
use sim::{
    diff::parting,
    plan::Plan,
    report::page,
    run::{How, Outcome},
    shrink as shrinking,
    trace::moment,
};
use std::{
    fs::File,
    io::{BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Which run: that of a seed, or that of a plan in a file.
#[derive(clap::Args, Clone)]
pub struct Which {
    #[arg(required_unless_present = "plan", conflicts_with = "plan")]
    seed: Option<u64>,
    /// A plan's file, as `sim shrink` writes it, instead of a seed.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scene", "filers", "minutes"])]
    plan: Option<PathBuf>,
    #[command(flatten)]
    what: What,
}

impl Which {
    fn plan(&self) -> anyhow::Result<Plan> {
        match (&self.plan, self.seed) {
            (Some(path), _) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
                Plan::parse(&text).map_err(|why| anyhow::anyhow!("{}: {why}", path.display()))
            }
            (None, Some(seed)) => Ok(self.what.plan(seed)),
            (None, None) => bail!("a seed or a plan is needed"),
        }
    }
}

impl What {
    fn plan(&self, seed: u64) -> Plan {
        Plan::draw(seed, &self.scene, self.filers, self.minutes)
    }

    /// The line that runs a seed again.
    fn replay(&self, seed: u64) -> String {
        let (from, to) = self.filers;
        format!("sim replay {seed} --scene {} --filers {from}..{to} --minutes {}", self.scene, self.minutes)
    }
}

/// A number, or two with `..` between, the last one included.
pub fn range(text: &str) -> Result<(u64, u64), String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("\"{text}\" is no number"));
    match text.split_once("..") {
        Some((from, to)) => match (number(from)?, number(to.trim_start_matches('='))?) {
            (from, to) if from <= to => Ok((from, to)),
            _ => Err(format!("\"{text}\" has nothing in it")),
        },
        None => number(text).map(|one| (one, one)),
    }
}

fn verdict(outcome: &Outcome) -> ExitCode {
    match &outcome.violation {
        Some(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn made(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("making {}", path.display()))
}

/// Runs one plan again.
pub fn replay(which: &Which, until_s: Option<u64>, trace: Option<&Path>) -> anyhow::Result<ExitCode> {
    let out = trace.map(made).transpose()?;
    let trace = out.map(|file| Box::new(BufWriter::new(file)) as Box<dyn Write + Send>);
    let how = How { trace, until_ms: until_s.map(|seconds| seconds.saturating_mul(1000)) };
    let outcome = sim::run::run(which.plan()?, how);
    if outcome.violation.is_some() || until_s.is_some() {
        outcome.last.iter().for_each(|line| println!("{line}"));
    }
    println!("trace {:016x}, {} lines, {} virtual time", outcome.hash, outcome.lines, moment(outcome.virtual_ms));
    if outcome.violation.is_none() {
        println!("every invariant held");
    }
    Ok(verdict(&outcome))
}

/// Makes a failing run smaller.
pub fn shrink(which: &Which, output: &Path) -> anyhow::Result<ExitCode> {
    let plan = which.plan()?;
    let first = sim::run::run(plan.clone(), How::default());
    let Some(violation) = first.violation else {
        println!("this run passes: there is nothing to shrink");
        return Ok(ExitCode::SUCCESS);
    };
    println!("{violation}");
    let size = |plan: &Plan| {
        format!(
            "{} faults, {} filers with {} clients each, a storm of {}",
            plan.faults.len(),
            plan.filers,
            plan.clients_per_site,
            moment(plan.storm_ms)
        )
    };
    println!("from {}", size(&plan));
    let mut runs = 0;
    let bar = indicatif::ProgressBar::new_spinner();
    let small = shrinking::shrink(plan, &mut |plan: &Plan| {
        runs += 1;
        bar.set_message(format!("run {runs}: {}", size(plan)));
        bar.tick();
        let outcome = sim::run::run(plan.clone(), How::default());
        outcome.violation.is_some_and(|found| found.invariant == violation.invariant)
    });
    bar.finish_and_clear();
    println!("to {}, after {runs} runs", size(&small));
    made(output)?.write_all(small.text().as_bytes()).with_context(|| format!("writing {}", output.display()))?;
    println!("sim replay --plan {}", output.display());
    Ok(ExitCode::SUCCESS)
}

/// Writes the page of a run.
pub fn report(which: &Which, output: &Path) -> anyhow::Result<ExitCode> {
    let plan = which.plan()?;
    let outcome = sim::run::run(plan.clone(), How::default());
    let text = page(&plan, &outcome)?;
    made(output)?.write_all(text.as_bytes()).with_context(|| format!("writing {}", output.display()))?;
    println!("{} shows it", output.display());
    Ok(verdict(&outcome))
}

/// Shows where two traces part.
pub fn diff(a: &Path, b: &Path) -> anyhow::Result<ExitCode> {
    let opened =
        |path: &Path| File::open(path).map(BufReader::new).with_context(|| format!("opening {}", path.display()));
    let Some(parting) = parting(opened(a)?, opened(b)?)? else {
        println!("both traces are the same");
        return Ok(ExitCode::SUCCESS);
    };
    println!("they part at line {}:", parting.line);
    parting.before.iter().for_each(|line| println!("    {line}"));
    for (sign, lines) in [('-', &parting.a), ('+', &parting.b)] {
        lines.iter().for_each(|line| println!("  {sign} {line}"));
        if lines.is_empty() {
            println!("  {sign} (it ends here)");
        }
    }
    Ok(ExitCode::FAILURE)
}
