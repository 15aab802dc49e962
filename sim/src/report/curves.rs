//! Curves: bytes in staging, rows of the missed-write log, ages of unprotected bytes.

use super::{Scale, round};
use crate::{
    recording::{Lane, Sample},
    run::Outcome,
};
use mesh::FilerId;
use serde::Serialize;
use std::collections::BTreeSet;
use storage::ids::CloudId;

/// Height of a curve, in pixels.
const HEIGHT_PX: f64 = 90.0;
/// Colours that the page has for lines.
const COLOURS: usize = 7;

#[derive(Serialize)]
pub struct Line {
    name: String,
    colour: usize,
    /// Stretches without a gap, each as the points of a polyline.
    pieces: Vec<String>,
    most: String,
}

#[derive(Serialize)]
pub struct Curve {
    title: &'static str,
    text: &'static str,
    most: String,
    height: f64,
    lines: Vec<Line>,
}

type Points = Vec<(u64, u64)>;

fn line(scale: Scale, name: String, colour: usize, points: &Points, most: u64, told: fn(u64) -> String) -> Line {
    let y = |value: u64| round(HEIGHT_PX - (HEIGHT_PX - 4.0) * value as f64 / most.max(1) as f64);
    let mut pieces: Vec<String> = Vec::new();
    let mut before: Option<u64> = None;
    let mut drawn = String::new();
    for (at_ms, value) in points {
        let point = format!("{},{}", scale.x(*at_ms), y(*value));
        match (pieces.last_mut(), before) {
            (Some(piece), Some(last)) if at_ms - last <= scale.gap_ms => {
                // Of a long run many moments are one point.
                if point != drawn {
                    piece.push(' ');
                    piece.push_str(&point);
                }
            }
            _ => pieces.push(point.clone()),
        }
        drawn = point;
        before = Some(*at_ms);
    }
    let own = points.iter().map(|(_, value)| *value).max().unwrap_or(0);
    Line { name, colour: colour % COLOURS, pieces, most: told(own) }
}

fn curve(
    scale: Scale,
    (title, text): (&'static str, &'static str),
    told: fn(u64) -> String,
    lines: Vec<(String, Points)>,
) -> Curve {
    let most = lines.iter().flat_map(|(_, points)| points.iter().map(|(_, value)| *value)).max().unwrap_or(0);
    let drawn = |(colour, (name, points)): (usize, (String, Points))| line(scale, name, colour, &points, most, told);
    Curve {
        title,
        text,
        most: told(most),
        height: HEIGHT_PX,
        lines: lines.into_iter().enumerate().map(drawn).collect(),
    }
}

fn bytes(value: u64) -> String {
    match value {
        0..10_240 => format!("{value} B"),
        _ => format!("{:.0} KiB", value as f64 / 1024.0),
    }
}

/// All curves of a run.
pub fn curves(scale: Scale, outcome: &Outcome) -> Vec<Curve> {
    let samples = &outcome.seen.samples;
    let filers: BTreeSet<FilerId> = samples.iter().flat_map(|sample| sample.filers.iter().map(|(id, _)| *id)).collect();
    let of_filers = |value: fn(&crate::recording::FilerNow) -> u64| -> Vec<(String, Points)> {
        let points = |id: FilerId| {
            let at = |sample: &Sample| {
                let (_, now) = sample.filers.iter().find(|(known, _)| *known == id)?;
                Some((sample.at_ms, value(now)))
            };
            (super::lanes::place(Lane::Filer(id)), samples.iter().filter_map(at).collect())
        };
        filers.iter().map(|id| points(*id)).collect()
    };
    let missed = |cloud: CloudId| {
        let at = |sample: &Sample| Some((sample.at_ms, sample.clouds?[cloud.index()].missed));
        (super::lanes::place(Lane::Cloud(cloud)), samples.iter().filter_map(at).collect())
    };
    vec![
        curve(
            scale,
            ("bytes staged", "written by clients and not yet released: only the filer's own disk has them for sure"),
            bytes,
            of_filers(|now| now.staged_bytes),
        ),
        curve(
            scale,
            (
                "oldest unprotected byte",
                "age of the oldest byte that is not released: not yet in every cloud that must have it, or on record as missed",
            ),
            super::told_ms,
            of_filers(|now| now.unprotected_ms),
        ),
        curve(
            scale,
            ("missed-write log", "puts and deletes that a cloud has missed, to be made up for when it is back"),
            |rows| format!("{rows} rows"),
            CloudId::BOTH.map(missed).into(),
        ),
    ]
}
