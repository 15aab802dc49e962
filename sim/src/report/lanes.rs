//! Lanes: what each cloud and each filer was, what was wrong with it, and the events that matter.

use super::{LEFT_PX, Scale, TIME_PX, round, told_ms};
use crate::{
    recording::{Band, Lane, Mark, Sample, Stall},
    run::Outcome,
};
use mesh::FilerId;
use serde::Serialize;
use std::collections::BTreeSet;
use storage::{cloudfs::CloudState, ids::CloudId};

/// Height of a lane's state, of a row of faults, and the space between two lanes, in pixels.
const STATE_PX: f64 = 18.0;
const FAULT_PX: f64 = 14.0;
const SPACE_PX: f64 = 14.0;
/// Rows of faults in one lane; more share the last one.
const FAULT_ROWS_MAX: usize = 10;
/// About how wide a letter is.
const LETTER_PX: f64 = 6.2;
/// Room for the numbers of marks, about how wide one of their digits is, and where none stands any more.
const TOP_PX: f64 = 24.0;
const DIGIT_PX: f64 = 6.0;
const END_PX: f64 = LEFT_PX + TIME_PX + 16.0;

#[derive(Serialize)]
pub struct Rect {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    class: &'static str,
    /// Written into it, as far as it fits.
    text: String,
    title: String,
}

#[derive(Serialize)]
pub struct Row {
    name: String,
    y: f64,
    height: f64,
    rects: Vec<Rect>,
}

#[derive(Serialize)]
pub struct Flag {
    x: f64,
    /// Where its number stands: beside that of the one before, where they are close.
    number_x: f64,
    number: usize,
    kind: &'static str,
    title: String,
}

#[derive(Serialize)]
pub struct Lanes {
    rows: Vec<Row>,
    flags: Vec<Flag>,
    height: f64,
}

/// Where something is, in words.
pub fn place(lane: Lane) -> String {
    match lane {
        Lane::World => "mesh".into(),
        Lane::Filer(id) => format!("filer {}", id.0),
        Lane::Cloud(id) => format!("cloud {}", id.to_string().to_uppercase()),
    }
}

/// What kind of event a mark is, for its colour.
pub fn kind(text: &str) -> &'static str {
    match text {
        text if text.starts_with("VIOLATION") => "violation",
        text if text.starts_with("epoch") => "decision",
        text if text.starts_with("the faults end") => "mended",
        _ => "fault",
    }
}

/// What a stretch of time was, for one lane.
struct State {
    from_ms: u64,
    to_ms: u64,
    class: &'static str,
    text: String,
}

/// Joins moments that are alike into stretches.
fn stretches(scale: Scale, samples: &[Sample], of: impl Fn(&Sample) -> Option<(&'static str, String)>) -> Vec<State> {
    let mut states: Vec<State> = Vec::new();
    for sample in samples {
        let Some((class, text)) = of(sample) else {
            continue;
        };
        match states.last_mut() {
            Some(last) if last.class == class && last.text == text && sample.at_ms - last.to_ms <= scale.gap_ms => {
                last.to_ms = sample.at_ms;
            }
            last => {
                if let Some(last) = last
                    && sample.at_ms - last.to_ms <= scale.gap_ms
                {
                    last.to_ms = sample.at_ms;
                }
                states.push(State { from_ms: sample.at_ms, to_ms: sample.at_ms, class, text });
            }
        }
    }
    states
}

fn cloud_state(sample: &Sample, cloud: CloudId) -> Option<(&'static str, String)> {
    let now = sample.clouds?[cloud.index()];
    let (class, state) = match now.state {
        CloudState::Healthy => ("healthy", "healthy"),
        CloudState::Failed => ("failed", "failed"),
        CloudState::Resyncing => ("resyncing", "resyncing"),
    };
    let active = now.active && now.state == CloudState::Healthy;
    Some(if active { ("active", "active".into()) } else { (class, format!("standby, {state}")) })
}

fn filer_state(sample: &Sample, filer: FilerId) -> Option<(&'static str, String)> {
    if sample.starting.contains(&filer) {
        return Some(("starts", "starts".into()));
    }
    let (_, now) = sample.filers.iter().find(|(id, _)| *id == filer)?;
    Some(match now.leader {
        Some(leader) if leader == filer.0 => ("leads", format!("leads, epoch {}", now.epoch)),
        Some(_) => ("follows", format!("epoch {}", now.epoch)),
        None => ("alone", "knows no leader".into()),
    })
}

fn rect(scale: Scale, (from_ms, to_ms): (u64, u64), (y, height): (f64, f64), class: &'static str, text: &str) -> Rect {
    let (x, end) = (scale.x(from_ms), scale.x(to_ms));
    let width = (end - x).max(2.0);
    let letters = ((width - 6.0) / LETTER_PX).max(0.0) as usize;
    let fits: String = match text.chars().count() {
        count if count <= letters => text.into(),
        _ if letters >= 4 => text.chars().take(letters - 1).chain(['…']).collect(),
        _ => String::new(),
    };
    let [from, to] = [from_ms, to_ms].map(|ms| scale.moment(ms));
    let title = format!("{text} ({}, from {from} to {to})", told_ms(to_ms - from_ms));
    Rect { x, y, width: round(width), height, class, text: fits, title }
}

/// The times at which any client waits.
fn joined<'a>(stalls: impl Iterator<Item = &'a Stall>) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = stalls.map(|stall| (stall.from_ms, stall.to_ms)).collect();
    all.sort_unstable();
    all.dedup_by(|(from_ms, to_ms), (_, end_ms)| {
        let joins = *from_ms <= *end_ms;
        if joins {
            *end_ms = (*end_ms).max(*to_ms);
        }
        joins
    });
    all
}

/// Gives each of the bands a row in which nothing else is at that time.
fn rows_of(bands: &[&Band]) -> Vec<usize> {
    let mut ends: Vec<u64> = Vec::new();
    let row = |band: &&Band| {
        let free = ends.iter().position(|end| *end <= band.from_ms);
        let row = free.unwrap_or(ends.len()).min(FAULT_ROWS_MAX - 1);
        if row == ends.len() {
            ends.push(0);
        }
        ends[row] = ends[row].max(band.to_ms);
        row
    };
    bands.iter().map(row).collect()
}

/// All lanes of a run. `marks` are in the order of their numbers.
pub fn lanes(scale: Scale, outcome: &Outcome, marks: &[Mark]) -> Lanes {
    let seen = &outcome.seen;
    let mut filers: BTreeSet<FilerId> = seen.samples.iter().flat_map(|s| s.filers.iter().map(|(id, _)| *id)).collect();
    filers.extend(seen.faults.iter().filter_map(|band| if let Lane::Filer(id) = band.lane { Some(id) } else { None }));
    let mut all: Vec<Lane> = CloudId::BOTH.map(Lane::Cloud).to_vec();
    all.extend(filers.into_iter().map(Lane::Filer));
    all.push(Lane::World);
    let (mut rows, mut y) = (Vec::new(), TOP_PX);
    for lane in all {
        let (mut rects, top) = (Vec::new(), y);
        let states = match lane {
            Lane::Cloud(id) => stretches(scale, &seen.samples, |sample| cloud_state(sample, id)),
            Lane::Filer(id) => stretches(scale, &seen.samples, |sample| filer_state(sample, id)),
            Lane::World => Vec::new(),
        };
        for State { from_ms, to_ms, class, text } in states {
            rects.push(rect(scale, (from_ms, to_ms), (y, STATE_PX), class, &text));
        }
        if lane != Lane::World {
            y += STATE_PX + 1.0;
        }
        let mut bands: Vec<&Band> = seen.faults.iter().filter(|band| band.lane == lane).collect();
        bands.sort_by_key(|band| band.from_ms);
        let of_band = rows_of(&bands);
        for (band, row) in bands.iter().zip(&of_band) {
            let place = (y + FAULT_PX * *row as f64, FAULT_PX - 1.0);
            let class = if band.text == "no power" { "down" } else { "fault" };
            rects.push(rect(scale, (band.from_ms, band.to_ms), place, class, &band.text));
        }
        y += FAULT_PX * of_band.iter().max().map_or(0.0, |row| *row as f64 + 1.0);
        if let Lane::Filer(id) = lane {
            let stalls = joined(seen.stalls.iter().filter(|stall| stall.site == id));
            for (from_ms, to_ms) in &stalls {
                let drawn = rect(scale, (*from_ms, *to_ms), (y, 5.0), "stall", "a client waits");
                // There is no room for letters.
                rects.push(Rect { text: String::new(), ..drawn });
            }
            y += if stalls.is_empty() { 0.0 } else { 6.0 };
        }
        if y > top {
            rows.push(Row { name: place(lane), y: top, height: y - top, rects });
            y += SPACE_PX;
        }
    }
    let flag = |(number, mark): (usize, &Mark)| {
        let x = scale.x(mark.at_ms);
        let title = format!("{} {}: {}", scale.moment(mark.at_ms), place(mark.lane), mark.text);
        Flag { x, number_x: x, number: number + 1, kind: kind(&mark.text), title }
    };
    let mut flags: Vec<Flag> = marks.iter().enumerate().map(flag).collect();
    spread_numbers(&mut flags);
    Lanes { rows, flags, height: y }
}

/// Moves the numbers that are shown apart: none stands over another, and the last ones not beyond the end.
fn spread_numbers(flags: &mut [Flag]) {
    let half_px = |flag: &Flag| DIGIT_PX * (flag.number.to_string().len() as f64 + 1.0) / 2.0;
    let mut free_px = 0.0_f64;
    for flag in flags.iter_mut().filter(|flag| flag.kind != "fault") {
        flag.number_x = flag.x.max(free_px + half_px(flag));
        free_px = flag.number_x + half_px(flag);
    }
    let mut end_px = END_PX;
    for flag in flags.iter_mut().rev().filter(|flag| flag.kind != "fault") {
        flag.number_x = round(flag.number_x.min(end_px - half_px(flag)));
        end_px = flag.number_x - half_px(flag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_at_one_time_have_rows_of_their_own() {
        let band = |from_ms, to_ms| Band { lane: Lane::World, from_ms, to_ms, text: String::new() };
        let bands = [band(0, 10), band(5, 20), band(10, 15), band(12, 13)];
        assert_eq!(rows_of(&bands.iter().collect::<Vec<_>>()), [0, 1, 0, 2]);
    }

    #[test]
    fn no_number_stands_over_another_or_beyond_the_end() {
        let flag = |(number, x)| Flag { x, number_x: x, number, kind: "decision", title: String::new() };
        let mut flags: Vec<Flag> =
            [200.0, 201.0, 600.0, END_PX, END_PX, END_PX].into_iter().enumerate().map(flag).collect();
        spread_numbers(&mut flags);
        assert!(flags.windows(2).all(|pair| pair[1].number_x - pair[0].number_x >= 2.0 * DIGIT_PX));
        assert!(flags.iter().all(|flag| flag.number_x < END_PX));
        assert_eq!((flags[0].number_x, flags[2].number_x), (200.0, 600.0));
    }

    #[test]
    fn waits_at_one_time_are_one() {
        let stall = |from_ms, to_ms| Stall { site: FilerId(1), from_ms, to_ms };
        let stalls = [stall(5, 9), stall(1, 3), stall(8, 12), stall(6, 7)];
        assert_eq!(joined(stalls.iter()), [(1, 3), (5, 12)]);
    }

    #[test]
    fn a_text_that_does_not_fit_is_cut() {
        let scale = Scale { end_ms: 1_000, gap_ms: 1_000 };
        let text = |to_ms| rect(scale, (0, to_ms), (0.0, 1.0), "", "the credentials are refused").text;
        assert_eq!(text(1_000), "the credentials are refused");
        assert!(text(80).ends_with('…'));
        assert_eq!(text(10), "");
    }
}
