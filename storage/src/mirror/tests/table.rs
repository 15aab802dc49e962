//! Every state of a segment at a cloud has an answer to every input: here they all are.
//!
//! The segment is number 1 and the cloud is A. Cloud B is healthy, and where the segment is known it has given its receipt, so
//! that what happens depends on cloud A alone.

use super::*;
use crate::state_table::{self, Row};

/// What happens.
const INPUTS: [&str; 15] = [
    "sealed",
    "flushed",
    "receipt",
    "failed",
    "not tried",
    "accepted",
    "refused",
    "unanswered",
    "now healthy",
    "now resyncing",
    "now failed",
    "tick at once",
    "tick later",
    "mended",
    "lost",
];

/// State, then what follows each input: `put` and `cancel` at cloud A, `put b` at cloud B, `propose` with cloud A's copy and
/// `miss` without it, `release`; `-` nothing.
#[rustfmt::skip]
const TABLE: &[Row<15>] = &[
    //                              sealed        flushed    receipt    failed  not tried accepted          refused  unanswered now healthy now resyncing now failed      at once  later       mended        lost
    ("healthy: unknown",           ["put, put b", "-",       "-",       "-",    "-",      "-",              "-",     "-",       "-",        "-",          "-",            "-",     "-",         "-",          "-"]),
    ("healthy: under way",         ["-",          "-",       "propose", "-",    "-",      "cancel, release","-",     "-",       "-",        "-",          "cancel, miss", "-",     "-",         "put b",      "-"]),
    ("healthy: waits",             ["-",          "-",       "propose", "-",    "-",      "release",        "-",     "-",       "-",        "put",        "miss",         "-",     "put",       "put, put b", "-"]),
    ("healthy: not flushed",       ["-",          "propose", "-",       "-",    "-",      "release",        "-",     "-",       "-",        "-",          "-",            "-",     "-",         "put, put b", "put"]),
    ("healthy: proposing",         ["-",          "-",       "-",       "-",    "-",      "release",        "-",     "-",       "-",        "-",          "-",            "-",     "-",         "-",          "-"]),
    ("healthy: refused",           ["-",          "-",       "-",       "-",    "-",      "release",        "-",     "-",       "-",        "-",          "-",            "-",     "propose",   "put, put b", "put"]),
    ("healthy: released",          ["put, put b", "-",       "-",       "-",    "-",      "-",              "-",     "-",       "-",        "-",          "-",            "-",     "-",         "-",          "-"]),
    ("resyncing: unknown",         ["put, put b", "-",       "-",       "-",    "-",      "-",              "-",     "-",       "-",        "-",          "-",            "-",     "-",         "-",          "-"]),
    ("resyncing: under way",       ["-",          "-",       "propose", "miss", "-",      "cancel, release","-",     "-",       "-",        "-",          "cancel, miss", "-",     "-",         "put b",      "-"]),
    ("resyncing: waits, not tried",["-",          "-",       "propose", "-",    "-",      "release",        "-",     "-",       "put",      "-",          "miss",         "-",     "put",       "put, put b", "-"]),
    ("resyncing: failed, proposing",["-",         "-",       "-",       "-",    "-",      "release",        "-",     "-",       "-",        "-",          "-",            "-",     "-",         "-",          "-"]),
    ("resyncing: failed, refused", ["-",          "-",       "-",       "-",    "-",      "release",        "-",     "-",       "put",      "-",          "-",            "-",     "put, miss", "put, put b", "-"]),
    ("failed: unknown",            ["put b",      "-",       "-",       "-",    "-",      "-",              "-",     "-",       "-",        "-",          "-",            "-",     "-",         "-",          "-"]),
    ("failed: not flushed",        ["-",          "miss",    "-",       "-",    "-",      "release",        "-",     "-",       "put",      "put",        "-",            "-",     "-",         "put b",      "-"]),
    ("failed: proposing",          ["-",          "-",       "-",       "-",    "-",      "release",        "-",     "-",       "-",        "-",          "-",            "-",     "-",         "-",          "-"]),
    ("failed: refused",            ["-",          "-",       "-",       "-",    "-",      "release",        "-",     "-",       "put",      "put",        "-",            "-",     "miss",      "put b",      "-"]),
];

fn bench_in(state: &str) -> Bench {
    let (cloud, state) = state.split_once(": ").expect("a cloud's state and a segment's");
    let cloud = match cloud {
        "healthy" => Healthy,
        "resyncing" => Resyncing,
        "failed" => Failed,
        other => panic!("no state {other}"),
    };
    // Cloud B is active whatever A is, so that only A's state matters.
    let mut bench = Bench::with(Settings::default(), roles(1, B, [cloud, Healthy]));
    if state == "unknown" {
        return bench;
    }
    let flushed = state != "not flushed";
    bench.say(Input::Sealed { segment: segment(1), bytes: 100, md5: md5(1), flushed });
    bench.ended(B, 1, PutEnd::Receipt);
    match state {
        "under way" | "proposing" if cloud == Failed => {}
        "under way" => {}
        "waits" => drop(bench.ended(A, 1, PutEnd::Failed)),
        "waits, not tried" => drop(bench.ended(A, 1, PutEnd::NotTried)),
        "not flushed" if cloud == Failed => {}
        "not flushed" | "proposing" => drop(bench.ended(A, 1, PutEnd::Receipt)),
        "refused" if cloud == Failed => drop(bench.proposed(1, ProposalEnd::Refused)),
        "refused" => {
            bench.ended(A, 1, PutEnd::Receipt);
            bench.proposed(1, ProposalEnd::Refused);
        }
        "released" => {
            bench.ended(A, 1, PutEnd::Receipt);
            bench.proposed(1, ProposalEnd::Accepted);
        }
        "failed, proposing" => drop(bench.ended(A, 1, PutEnd::Failed)),
        "failed, refused" => {
            // What is due by then waits as well.
            bench.ended(A, 1, PutEnd::Failed);
            bench.proposed(1, ProposalEnd::Refused);
        }
        other => panic!("no state {other}"),
    }
    bench
}

fn say(bench: &mut Bench, input: &str) -> Vec<Output> {
    match input {
        "sealed" => bench.seal(1),
        "flushed" => bench.say(Input::Flushed { segment: segment(1) }),
        "receipt" => bench.ended(A, 1, PutEnd::Receipt),
        "failed" => bench.ended(A, 1, PutEnd::Failed),
        "not tried" => bench.ended(A, 1, PutEnd::NotTried),
        "accepted" => bench.proposed(1, ProposalEnd::Accepted),
        "refused" => bench.proposed(1, ProposalEnd::Refused),
        "unanswered" => bench.proposed(1, ProposalEnd::Unanswered),
        "now healthy" => bench.roles(2, B, [Healthy, Healthy]),
        "now resyncing" => bench.roles(2, B, [Resyncing, Healthy]),
        "now failed" => bench.roles(2, B, [Failed, Healthy]),
        "tick at once" => bench.say(Input::Tick),
        "tick later" => {
            bench.now_ms += 3_600_000;
            bench.say(Input::Tick)
        }
        // What a bad disk has left of it is another object: both clouds are to have that.
        "mended" => {
            assert_eq!(bench.say(Input::Mended { segment: segment(1), bytes: 100, md5: md5(2) }), []);
            // Once no put of what it was can arrive any more.
            bench.now_ms += Settings::default().put_arrives_ms_max;
            bench.say(Input::Tick)
        }
        "lost" => bench.say(Input::Lost { cloud: A, segment: segment(1) }),
        other => panic!("no input {other}"),
    }
}

fn word(output: &Output) -> &'static str {
    match output {
        Output::Put { cloud: A, .. } => "put",
        Output::Put { cloud: B, .. } => "put b",
        Output::Cancel { cloud: A, .. } => "cancel",
        Output::Cancel { cloud: B, .. } => "cancel b",
        Output::Propose { copies: [true, true], .. } => "propose",
        Output::Propose { copies: [false, true], .. } => "miss",
        Output::Propose { .. } => "propose without b",
        Output::Release { .. } => "release",
    }
}

#[test]
fn every_state_has_its_answer_to_every_input() {
    state_table::check(&INPUTS, TABLE, |state, input| say(&mut bench_in(state), input).iter().map(word).collect());
}
