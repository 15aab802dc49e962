//! Every state of a row has an answer to every input: here they all are.
//!
//! The row is number 1 of this filer, or of filer 2, which is alive or dead; the cloud is A. The machine may look at its log at
//! any time, so that only what becomes of the row counts, and whether the log is looked at.

use super::*;
use crate::state_table::{self, Row};

const INPUTS: [&str; 12] = [
    "rows with it",
    "rows with its delete",
    "rows without it",
    "rows, and more",
    "done",
    "failed",
    "now resyncing",
    "now failed",
    "now healthy",
    "filer 2 dies, this one leads",
    "another leads",
    "tick later",
];

/// State, then what follows each input: `put` or `delete` the row is carried out, `look`; `-` nothing.
#[rustfmt::skip]
const TABLE: &[Row<12>] = &[
    //                            with it  its delete without  and more done   failed resyncing failed healthy dies     another  later
    ("healthy",                  ["-",     "-",       "-",     "-",     "-",   "-",   "look",   "-",   "-",    "-",     "-",     "-"]),
    ("failed",                   ["-",     "-",       "-",     "-",     "-",   "-",   "look",   "-",   "-",    "-",     "-",     "-"]),
    ("looking",                  ["put",   "delete",  "-",     "look",  "-",   "-",   "-",      "-",   "-",    "-",     "-",     "-"]),
    ("looked, nothing there",    ["-",     "-",       "-",     "-",     "-",   "-",   "-",      "-",   "-",    "-",     "-",     "look"]),
    ("under way",                ["-",     "-",       "-",     "-",     "-",   "-",   "-",      "-",   "-",    "-",     "-",     "look"]),
    ("under way, looking",       ["-",     "-",       "-",     "look",  "-",   "-",   "-",      "-",   "-",    "-",     "-",     "-"]),
    ("waits",                    ["-",     "-",       "-",     "-",     "-",   "-",   "-",      "-",   "-",    "-",     "-",     "look, put"]),
    ("waits, looking",           ["-",     "-",       "-",     "look",  "-",   "-",   "-",      "-",   "-",    "-",     "-",     "put"]),
    ("waits for room",           ["-",     "-",       "-",     "-",     "-",   "-",   "-",      "-",   "-",    "-",     "-",     "look"]),
    ("another's, looking",       ["-",     "-",       "-",     "look",  "-",   "-",   "-",      "-",   "-",    "-",     "-",     "-"]),
    ("a dead one's, looking",    ["put",   "delete",  "-",     "look, put", "-",   "-",   "-",      "-",   "-",    "-",     "-",     "-"]),
    ("a dead one's, under way",  ["-",     "-",       "-",     "-",     "-",   "-",   "-",      "-",   "-",    "-",     "-",     "look"]),
    ("a dead one's, waits",      ["-",     "-",       "-",     "-",     "-",   "-",   "-",      "-",   "-",    "-",     "-",     "look, put"]),
];

struct Bench {
    now_ms: u64,
    random: SeededRandom,
    resync: Resync,
    /// Whose the row is.
    of: u64,
}

impl Bench {
    fn say(&mut self, input: Input) -> Vec<Output> {
        let outputs = self.resync.handle(self.now_ms, &self.random, input);
        let deadline_ms = self.resync.deadline_ms();
        assert!(deadline_ms.is_none_or(|deadline_ms| deadline_ms > self.now_ms), "what is due has been done");
        outputs
    }

    fn rows(&mut self, rows: Vec<Miss>, more: bool) -> Vec<Output> {
        self.say(Input::Rows { cloud: A, rows, more })
    }

    fn row(&self) -> Miss {
        missed_put(self.of, 1)
    }

    fn fail(&mut self) -> Vec<Output> {
        self.say(Input::Failed { cloud: A, segment: self.row().segment })
    }
}

fn bench_in(state: &str) -> Bench {
    let of = if state.contains("one's") || state.contains("another's") { 2 } else { 1 };
    let settings = Settings { rows_in_flight_max: 1, ..Settings::default() };
    let mut bench = Bench { now_ms: 1_000, random: SeededRandom::new(1), resync: Resync::new(FILERS[0], settings), of };
    let (live, leader) =
        if state.starts_with("a dead one's") { (&FILERS[..1], FILERS[0]) } else { (&FILERS[..2], FILERS[1]) };
    bench.say(Input::Mesh { live: live.to_vec(), leader: Some(leader) });
    let state = state.rsplit_once("'s, ").map_or(state, |(_, state)| state);
    match state {
        "healthy" => drop(bench.say(Input::Roles(roles(1, Healthy)))),
        "failed" => drop(bench.say(Input::Roles(roles(1, Failed)))),
        _ => drop(bench.say(Input::Roles(roles(1, Resyncing)))),
    }
    let row = bench.row();
    match state {
        "healthy" | "failed" | "looking" => {}
        "looked, nothing there" => drop(bench.rows(Vec::new(), false)),
        "under way" => drop(bench.rows(vec![row], false)),
        "under way, looking" => drop(bench.rows(vec![row], true)),
        "waits" => {
            bench.rows(vec![row], false);
            bench.fail();
        }
        "waits, looking" => {
            bench.rows(vec![row], true);
            bench.fail();
        }
        "waits for room" => drop(bench.rows(vec![missed_put(1, 0), row], false)),
        other => panic!("no state {other}"),
    }
    bench
}

fn say(bench: &mut Bench, input: &str) -> Vec<Output> {
    let row = bench.row();
    let segment = row.segment;
    match input {
        "rows with it" => bench.rows(vec![row], false),
        "rows with its delete" => bench.rows(vec![Miss { kind: MissKind::Delete, ..row }], false),
        "rows without it" => bench.rows(Vec::new(), false),
        // Another's, and this filer's where all others are dead.
        "rows, and more" => bench.rows(vec![missed_put(3, 1)], true),
        "done" => bench.say(Input::Done { cloud: A, segment, bytes: 1 }),
        "failed" => bench.fail(),
        "now resyncing" => bench.say(Input::Roles(roles(2, Resyncing))),
        "now failed" => bench.say(Input::Roles(roles(2, Failed))),
        "now healthy" => bench.say(Input::Roles(roles(2, Healthy))),
        "filer 2 dies, this one leads" => bench.say(Input::Mesh { live: vec![FILERS[0]], leader: Some(FILERS[0]) }),
        "another leads" => bench.say(Input::Mesh { live: FILERS.to_vec(), leader: Some(FILERS[2]) }),
        "tick later" => {
            bench.now_ms += 3_600_000;
            bench.say(Input::Tick)
        }
        other => panic!("no input {other}"),
    }
}

fn word(output: &Output) -> &'static str {
    match output {
        Output::Look { .. } => "look",
        Output::Repair { miss: Miss { kind: MissKind::Put, .. }, .. } => "put",
        Output::Repair { miss: Miss { kind: MissKind::Delete, .. }, .. } => "delete",
    }
}

#[test]
fn every_state_has_its_answer_to_every_input() {
    state_table::check(&INPUTS, TABLE, |state, input| say(&mut bench_in(state), input).iter().map(word).collect());
}
