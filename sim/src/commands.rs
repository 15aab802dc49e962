//! What each command does.

#![expect(clippy::disallowed_methods, reason = "the program around the runs: files, threads, real time")]

pub mod output;
pub mod run;

use crate::What;
use anyhow::{Context, bail};
use output::{can_write, say, write};
use sim::{
    diff::parting,
    plan::{Faults, Plan, Scene},
    report::page,
    run::{How, Outcome, SHOWS},
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
    /// A seed, as `sim run` names it; or else --plan FILE.
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
                let text = std::fs::read_to_string(path).with_context(|| cannot("read", path))?;
                Plan::parse(&text).map_err(|why| anyhow::anyhow!("{}: {why}", path.display()))
            }
            (None, Some(seed)) => self.what.checked().map(|what| what.plan(seed)),
            (None, None) => bail!("a seed or a plan is needed"),
        }
    }
}

/// How a user begins a line that starts this program: as this run was started.
fn program() -> &'static str {
    if std::env::var_os("CARGO").is_some() { "cargo run -p sim --" } else { "sim" }
}

/// Virtual minutes in which faults happen, where nothing is said.
const MINUTES: u64 = 10;

impl What {
    /// # Errors
    /// When it is told how long, of a scene that says so itself.
    fn checked(&self) -> anyhow::Result<&Self> {
        let is_told = Scene::named(&self.scene).is_some_and(|scene| matches!(scene.faults, Faults::Told(_)));
        if is_told && self.minutes.is_some() {
            bail!(
                "scene {} tells its faults one by one, and lasts as long as they do: leave --minutes out",
                self.scene
            );
        }
        Ok(self)
    }

    fn plan(&self, seed: u64) -> Plan {
        Plan::draw(seed, &self.scene, self.filers, self.minutes.unwrap_or(MINUTES))
    }

    /// The line that runs a seed again.
    fn replay(&self, seed: u64) -> String {
        let (from, to) = self.filers;
        let minutes = self.minutes.map(|minutes| format!(" --minutes {minutes}")).unwrap_or_default();
        format!("{} replay {seed} --scene {} --filers {from}..{to}{minutes}", program(), self.scene)
    }
}

/// A number, or two with `..` between, the last one included.
pub fn range(text: &str) -> Result<(u64, u64), String> {
    let number = |part: &str| {
        part.parse::<u64>()
            .map_err(|_| format!("\"{text}\" is no number, and no range such as 1..20, last one included"))
    };
    match text.split_once("..") {
        Some((from, to)) => match (number(from)?, number(to.trim_start_matches('='))?) {
            (from, to) if from <= to => Ok((from, to)),
            _ => Err(format!("in \"{text}\" the first is greater than the last")),
        },
        None => number(text).map(|one| (one, one)),
    }
}

/// A moment as it is told, in milliseconds: seconds or minutes and seconds, with up to three places behind the point.
pub fn moment_ms(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is no moment: 90, 1:30 and 01:30.250 are");
    let (minutes, seconds, seconds_max) = match text.split_once(':') {
        Some((minutes, seconds)) => (minutes, seconds, 59),
        None => ("0", text, u64::MAX),
    };
    let (seconds, thousandths) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = |digits: &str| digits.parse().ok().filter(|_: &u64| is_number(digits)).ok_or_else(wrong);
    if !(1..=3).contains(&thousandths.len()) {
        return Err(wrong());
    }
    let (minutes, seconds, rest_ms) = (number(minutes)?, number(seconds)?, number(&format!("{thousandths:0<3}"))?);
    if seconds > seconds_max {
        return Err(wrong());
    }
    let whole_s = minutes.checked_mul(60).and_then(|s| s.checked_add(seconds));
    whole_s.and_then(|s| s.checked_mul(1000)).and_then(|ms| ms.checked_add(rest_ms)).ok_or_else(wrong)
}

fn cannot(what: &str, path: &Path) -> String {
    format!("cannot {what} {}", path.display())
}

/// So many of something, in words.
fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn verdict(outcome: &Outcome) -> ExitCode {
    match &outcome.violation {
        Some(violation) => {
            say!("{violation}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

/// Runs one plan again.
pub fn replay(which: &Which, until_ms: Option<u64>, trace: Option<&Path>) -> anyhow::Result<ExitCode> {
    let plan = which.plan()?;
    let out = trace.map(|path| File::create(path).with_context(|| cannot("write", path))).transpose()?;
    let out = out.map(|file| Box::new(BufWriter::new(file)) as Box<dyn Write + Send>);
    let how = How { trace: out, until_ms };
    let outcome = sim::run::run(plan, how);
    if outcome.violation.is_some() || until_ms.is_some() {
        outcome.last.iter().for_each(|line| say!("{line}"));
    }
    let left_out = outcome.coverage.iter().find(|(name, _)| *name == "faults not carried out");
    if let Some((_, count)) = left_out.filter(|(_, count)| *count > 0) {
        say!("{} of the plan not carried out, as FAULT lines of the trace tell", counted(*count, "fault"));
    }
    say!("trace {:016x}, {} lines, {} virtual time", outcome.hash, outcome.lines, moment(outcome.virtual_ms));
    match &outcome.violation {
        None if outcome.complete => say!("every invariant held"),
        None => say!("stopped there: nothing was wrong until then, and what must hold at the end was not looked at"),
        Some(_) => {}
    }
    let verdict = verdict(&outcome);
    match (trace, &outcome.trace_failed) {
        (Some(path), Some(why)) => bail!("{}: {why}; the trace there is not whole", cannot("write", path)),
        _ => Ok(verdict),
    }
}

/// Makes a failing run smaller.
pub fn shrink(which: &Which, output: &Path) -> anyhow::Result<ExitCode> {
    let plan = which.plan()?;
    can_write(output)?;
    let first = sim::run::run(plan.clone(), How::default());
    let Some(violation) = first.violation else {
        say!("this run passes: there is nothing to make smaller, and {} was not written", output.display());
        return Ok(ExitCode::FAILURE);
    };
    say!("{violation}");
    if violation.invariant == SHOWS {
        say!(
            "with fewer faults it would show less: there is nothing to make smaller, and {} was not written",
            output.display()
        );
        return Ok(ExitCode::FAILURE);
    }
    let size = |plan: &Plan| {
        format!(
            "{}, {} with {} each, faults for {}",
            counted(plan.faults.len() as u64, "fault"),
            counted(plan.filers, "filer"),
            counted(plan.clients_per_site, "client"),
            moment(plan.storm_ms)
        )
    };
    say!("from {}", size(&plan));
    let mut runs = 0;
    let bar = indicatif::ProgressBar::new_spinner();
    let small = shrinking::shrink(plan, &mut |plan: &Plan| {
        runs += 1;
        bar.set_message(format!("run {runs}: {}", size(plan)));
        bar.tick();
        let outcome = sim::run::run(plan.clone(), How::default());
        outcome.violation.is_some_and(|found| found.is_like(&violation))
    });
    bar.finish_and_clear();
    say!("to {}, after {runs} runs", size(&small));
    if let Err(error) = write(output, &small.text()) {
        // It took long to find.
        say!("{}", small.text());
        return Err(error);
    }
    say!("{} replay --plan {}", program(), output.display());
    Ok(ExitCode::SUCCESS)
}

/// Writes the plan that a seed draws.
pub fn plan(seed: u64, what: &What, output: Option<&Path>) -> anyhow::Result<ExitCode> {
    let text = what.checked()?.plan(seed).text();
    match output {
        Some(path) => {
            write(path, &text)?;
            say!("{} replay --plan {}", program(), path.display());
        }
        None => say!("{}", text.trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the page of a run.
pub fn report(which: &Which, output: &Path) -> anyhow::Result<ExitCode> {
    let plan = which.plan()?;
    can_write(output)?;
    let outcome = sim::run::run(plan.clone(), How::default());
    let source = which.plan.as_deref().map(|path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy());
    write(output, &page(&plan, source.as_deref(), &outcome)?)?;
    say!("{} shows it", output.display());
    Ok(verdict(&outcome))
}

/// Shows where two traces part.
pub fn diff(a: &Path, b: &Path) -> anyhow::Result<ExitCode> {
    let opened = |path: &Path| File::open(path).map(BufReader::new).with_context(|| cannot("read", path));
    for path in [a, b] {
        if path.is_dir() {
            bail!("{} is a directory, and no trace", path.display());
        }
    }
    let both = || format!("cannot read {} or {} as a trace", a.display(), b.display());
    let Some(parting) = parting(opened(a)?, opened(b)?).with_context(both)? else {
        let is_empty = |path: &Path| path.metadata().is_ok_and(|found| found.is_file() && found.len() == 0);
        say!("{}", if is_empty(a) { "both traces are empty" } else { "both traces are the same" });
        return Ok(ExitCode::SUCCESS);
    };
    say!("they part at line {}:", parting.line);
    parting.before.iter().for_each(|line| say!("    {line}"));
    for (sign, lines) in [('-', &parting.a), ('+', &parting.b)] {
        lines.iter().for_each(|line| say!("  {sign} {line}"));
        if lines.is_empty() {
            say!("  {sign} (it ends here)");
        }
    }
    Ok(ExitCode::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_is_said_of_scenes_that_do_not_say_so_themselves() {
        let what = |scene: &str, minutes| What { scene: scene.into(), filers: (3, 3), minutes };
        assert!(what("failover", Some(2)).checked().is_err_and(|why| why.to_string().contains("leave --minutes out")));
        assert!(what("failover", None).checked().is_ok());
        assert_eq!(what("mixed", Some(2)).plan(1).storm_ms, 120_000);
        assert!(what("mixed", Some(2)).replay(1).ends_with(" replay 1 --scene mixed --filers 3..3 --minutes 2"));
        assert!(what("mixed", None).replay(1).ends_with(" replay 1 --scene mixed --filers 3..3"));
    }

    #[test]
    fn moments_are_read_as_they_are_told() {
        let told = |text| moment_ms(text).ok();
        assert_eq!(
            (told("90"), told("1:30"), told("01:30.250"), told("0.5")),
            (Some(90_000), Some(90_000), Some(90_250), Some(500))
        );
        for wrong in ["", "+5", "1.+5", "1:", ":5", "1:30.", "1:60", "1.2345", "-1", "1:2:3", "18446744073709551615"] {
            assert_eq!(told(wrong), None, "{wrong}");
        }
    }
}
