//! A run as one self-contained page: lanes for clouds and filers over time, amounts as curves, events as a list.
//!
//! Owns: where everything stands on the page. Does not own: what is shown (`recording`), the page's markup
//! (`report/page.html`).

mod curves;
mod lanes;

use crate::{
    plan::{Plan, Scene},
    recording::STALL_MS_MIN,
    run::Outcome,
};
use serde::Serialize;

/// Width of the part of the page that shows time, in pixels.
const TIME_PX: f64 = 1040.0;
/// Left of it stand the names of lanes and scales.
const LEFT_PX: f64 = 130.0;
/// Moments written below the lanes, at most.
const TICKS_MAX: u64 = 12;
/// Samples further apart than this belong to two stretches, in milliseconds, where a run is looked at as often as usual.
const GAP_MS: u64 = 2_500;

/// Where a moment stands.
#[derive(Clone, Copy)]
struct Scale {
    end_ms: u64,
    /// Samples further apart than this belong to two stretches.
    gap_ms: u64,
}

impl Scale {
    fn x(self, at_ms: u64) -> f64 {
        let share = at_ms.min(self.end_ms) as f64 / self.end_ms.max(1) as f64;
        round(LEFT_PX + TIME_PX * share)
    }

    /// A moment in words for people.
    fn moment(self, ms: u64) -> String {
        match self.end_ms {
            0..HOUR_MS => crate::trace::moment(ms),
            _ => moment_of(ms, self.end_ms),
        }
    }

    fn ticks(self) -> Vec<Tick> {
        let steps_s: [u64; 12] = [1, 5, 10, 30, 60, 120, 300, 600, 1800, 7200, 21_600, 86_400];
        let step_ms = steps_s.into_iter().map(|s| s * 1000).find(|step| self.end_ms / step <= TICKS_MAX);
        let step_ms = step_ms.unwrap_or(self.end_ms / TICKS_MAX).max(1);
        let tick = |number: u64| Tick { x: self.x(number * step_ms), text: moment_of(number * step_ms, self.end_ms) };
        (0..=self.end_ms / step_ms).map(tick).collect()
    }
}

fn round(px: f64) -> f64 {
    (px * 10.0).round() / 10.0
}

#[derive(Serialize)]
struct Tick {
    x: f64,
    text: String,
}

/// A moment of a run that lasts until `end_ms`, to the second: minutes and seconds, or days, hours and minutes too.
fn moment_of(ms: u64, end_ms: u64) -> String {
    let s = ms / 1000;
    match end_ms {
        0..HOUR_MS => format!("{}:{:02}", s / 60, s % 60),
        HOUR_MS..DAY_MS => format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60),
        _ => format!("{} d {:02}:{:02}", s / 86_400, s / 3600 % 24, s / 60 % 60),
    }
}

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// A number on top of the page.
#[derive(Serialize)]
struct Figure {
    value: String,
    text: &'static str,
}

#[derive(Serialize)]
struct Event {
    /// That of its flag; none of a fault that lasts, which has a bar.
    number: Option<usize>,
    at_ms: u64,
    moment: String,
    place: String,
    text: String,
    kind: &'static str,
}

#[derive(Serialize)]
struct Page<'a> {
    scene: String,
    /// The file of a plan that was not drawn from the seed as it is.
    source: Option<&'a str>,
    seed: u64,
    text: &'static str,
    violation: Option<String>,
    failures_to_trip: u32,
    figures: Vec<Figure>,
    left: f64,
    width: f64,
    lanes: lanes::Lanes,
    curves: Vec<curves::Curve>,
    ticks: Vec<Tick>,
    events: Vec<Event>,
    happened: Vec<(&'static str, u64)>,
    never: Vec<&'static str>,
    plan: String,
}

/// The page of a run; of that of a plan in a file, `source` is the file.
///
/// # Errors
/// When the page's template does not fit what it is given.
pub fn page(plan: &Plan, source: Option<&str>, outcome: &Outcome) -> Result<String, minijinja::Error> {
    let scale = Scale { end_ms: outcome.virtual_ms.max(1), gap_ms: GAP_MS * u64::from(plan.rarely.max(1)) };
    let mut marks = outcome.seen.marks.clone();
    marks.sort_by_key(|mark| mark.at_ms);
    let event = |(number, mark): (usize, &crate::recording::Mark)| Event {
        number: Some(number + 1),
        at_ms: mark.at_ms,
        moment: scale.moment(mark.at_ms),
        place: lanes::place(mark.lane),
        text: mark.text.clone(),
        kind: lanes::kind(&mark.text),
    };
    let fault = |fault: &crate::recording::Band| Event {
        number: None,
        at_ms: fault.from_ms,
        moment: scale.moment(fault.from_ms),
        place: lanes::place(fault.lane),
        text: format!("{}, for {}", fault.text, told_ms(fault.to_ms - fault.from_ms)),
        kind: "",
    };
    let mut events: Vec<Event> = marks.iter().enumerate().map(event).collect();
    events.extend(outcome.seen.faults.iter().map(fault));
    events.sort_by_key(|event| event.at_ms);
    let (happened, never): (Vec<_>, Vec<_>) = outcome.coverage.iter().copied().partition(|(_, count)| *count > 0);
    let page = Page {
        scene: plan.scene.clone(),
        source,
        seed: plan.seed,
        text: Scene::named(&plan.scene).map_or("", |scene| scene.text),
        violation: outcome.violation.as_ref().map(ToString::to_string),
        failures_to_trip: plan.failures_to_trip,
        figures: figures(plan, outcome),
        left: LEFT_PX,
        width: LEFT_PX + TIME_PX + 20.0,
        lanes: lanes::lanes(scale, outcome, &marks),
        curves: curves::curves(scale, outcome),
        ticks: scale.ticks(),
        events,
        happened,
        never: never.into_iter().map(|(name, _)| name).collect(),
        plan: plan.text(),
    };
    let mut templates = minijinja::Environment::new();
    templates.add_template("page.html", include_str!("report/page.html"))?;
    templates.get_template("page.html")?.render(minijinja::value::Serde(page))
}

/// A time for people.
fn told_ms(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..120_000 => format!("{:.1} s", ms as f64 / 1000.0),
        120_000..HOUR_MS => format!("{:.1} min", ms as f64 / 60_000.0),
        HOUR_MS..DAY_MS => format!("{:.1} h", ms as f64 / HOUR_MS as f64),
        _ => format!("{:.1} days", ms as f64 / DAY_MS as f64),
    }
}

fn figures(plan: &Plan, outcome: &Outcome) -> Vec<Figure> {
    let seen = &outcome.seen;
    let counted = |name: &str| outcome.coverage.iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| *count);
    let longest_ms = seen.stalls.iter().map(|stall| stall.to_ms - stall.from_ms).max();
    let longest = longest_ms.map_or_else(|| format!("under {} s", STALL_MS_MIN / 1000), told_ms);
    let samples = || seen.samples.iter().flat_map(|sample| &sample.filers);
    let unprotected_ms = samples().map(|(_, now)| now.unprotected_ms).max().unwrap_or(0);
    vec![
        Figure { value: plan.filers.to_string(), text: "filers at the beginning" },
        Figure { value: told_ms(outcome.virtual_ms), text: "of virtual time" },
        Figure { value: counted("operations").to_string(), text: "operations of clients" },
        Figure { value: counted("trips").to_string(), text: "trips of a cloud" },
        Figure { value: (counted("failovers") + counted("operator failovers")).to_string(), text: "failovers" },
        Figure { value: counted("crashes").to_string(), text: "crashes of filers" },
        Figure {
            value: counted("files lost with their filer").to_string(),
            text: "files lost with the only disk that had a part",
        },
        Figure { value: longest, text: "longest wait of a client" },
        Figure { value: told_ms(unprotected_ms), text: "greatest age of a byte not released" },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{How, run};

    #[test]
    fn a_page_shows_the_run_and_loads_nothing() {
        let plan = Plan::draw(1, "cut-off-trip", (3, 3), 1);
        let outcome = run(plan.clone(), How::default());
        let page = page(&plan, None, &outcome).expect("the template fits");
        for wanted in ["cloud A", "cloud B", "filer 1", "filer 3", "partition", "staged", "the faults end here"] {
            assert!(page.contains(wanted), "{wanted} is not on the page");
        }
        assert!(!page.contains("http://") && !page.contains("https://"), "the page refers to something outside of it");
    }

    #[test]
    fn the_page_of_a_plan_in_a_file_does_not_pass_for_that_of_a_seed() {
        let plan = Plan { storm_ms: 1_000, ..Plan::draw(1, "calm", (3, 3), 1) };
        let outcome = run(plan.clone(), How::default());
        let page = page(&plan, Some("small.json"), &outcome).expect("the template fits");
        assert!(page.contains("<h1>Plan “small.json”"), "the page does not name its plan");
    }

    #[test]
    fn long_times_are_told_in_hours_and_days() {
        assert_eq!((moment_of(61_000, 90_000).as_str(), moment_of(61_000, HOUR_MS).as_str()), ("1:01", "0:01:01"));
        assert_eq!(moment_of(DAY_MS + HOUR_MS + 60_000, 2 * DAY_MS), "1 d 01:01");
        assert_eq!((told_ms(2 * HOUR_MS).as_str(), told_ms(36 * HOUR_MS).as_str()), ("2.0 h", "1.5 days"));
    }

    #[test]
    fn moments_are_few_and_even() {
        for end_ms in [1, 999, 59_000, 700_000, 86_400_000] {
            let ticks = Scale { end_ms, gap_ms: GAP_MS }.ticks();
            assert!((1..=TICKS_MAX as usize + 1).contains(&ticks.len()), "{end_ms}: {}", ticks.len());
        }
    }
}
