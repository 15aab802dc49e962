//! The same seed gives the same run, in whatever process; and seeds pass: those that are always run, and fresh ones.

#![expect(clippy::disallowed_methods, reason = "runs are started from outside, on threads and in processes")]

use mimalloc::MiMalloc;
use sim::{
    plan::{Faults, Plan, SCENES},
    run::{How, run},
};
use std::{
    process::Command,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// As in the simulator's program.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Fresh seeds that are run when nothing else is said.
const FRESH_SEEDS: u64 = 12;
/// Runs at one time.
const JOBS: usize = 2;

/// Does something for each of these, on several threads; panics as they do.
fn each<T: Sync>(all: &[T], what: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Relaxed)) {
                    what(one);
                }
            });
        }
    });
}

/// What a process of its own says of a seed's trace.
fn trace_of(seed: u64, scene: &str) -> String {
    let seed = seed.to_string();
    let arguments = ["replay", &seed, "--scene", scene, "--minutes", "1", "--filers", "3..5"];
    let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments).output().expect("the simulator starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let line = said.lines().find(|line| line.starts_with("trace "));
    line.unwrap_or_else(|| panic!("it tells its trace: {said}")).to_string()
}

#[test]
fn the_same_seed_gives_the_same_trace_in_every_process() {
    let scenes = ["mixed", "chaos", "crashes", "network", "clouds", "disks", "members"];
    let seeds: Vec<(u64, &str)> = (1..=21).map(|seed| (seed, scenes[seed as usize % scenes.len()])).collect();
    each(&seeds, |(seed, scene)| {
        let first = trace_of(*seed, scene);
        for _ in 0..2 {
            assert_eq!(trace_of(*seed, scene), first, "seed {seed} of {scene}");
        }
    });
}

fn passes(seed: u64, scene: &str, (filers_min, filers_max): (u64, u64), minutes: u64) {
    let outcome = run(Plan::draw(seed, scene, (filers_min, filers_max), minutes), How::default());
    let last = || outcome.last.join("\n");
    let is_told = SCENES.iter().any(|known| known.name == scene && matches!(known.faults, Faults::Told(_)));
    let how_long = if is_told { String::new() } else { format!(" --minutes {minutes}") };
    assert_eq!(
        outcome.violation,
        None,
        "cargo run -p sim -- replay {seed} --scene {scene} --filers {filers_min}..{filers_max}{how_long}\n{}",
        last()
    );
}

#[test]
fn seeds_that_are_always_run_pass() {
    let drawn = SCENES.iter().filter(|scene| matches!(scene.faults, Faults::Drawn { .. }));
    let seeds: Vec<(u64, &str)> = drawn.flat_map(|scene| (1..=3).map(|seed| (seed, scene.name))).collect();
    each(&seeds, |(seed, scene)| passes(*seed, scene, (3, 5), 1));
}

#[test]
fn scenes_that_tell_their_faults_pass() {
    let told = SCENES.iter().filter(|scene| matches!(scene.faults, Faults::Told(_)));
    // Those that last days are for `make soak`.
    let told = told.filter(|scene| Plan::draw(1, scene.name, (3, 5), 1).rarely == 1);
    // The second seed's clients are many and quick: with more filers it takes as long as all others together.
    let runs = |name| [(1, name, (3, 5)), (2, name, (3, 3))];
    let seeds: Vec<(u64, &str, (u64, u64))> = told.flat_map(|scene| runs(scene.name)).collect();
    each(&seeds, |(seed, scene, filers)| passes(*seed, scene, *filers, 1));
}

/// Nobody contradicts the only filer of a CloudFS: what its clock has shown is the time, also when it is put right.
#[test]
fn a_sole_filer_whose_clock_was_wrong_goes_on() {
    each(&[1, 2], |seed| passes(*seed, "wrong-clocks", (1, 1), 1));
}

/// Other seeds each time: `FILERMESH_SEEDS` says how many. A failure prints the line that runs it again.
#[test]
fn fresh_seeds_pass() {
    let since = std::time::UNIX_EPOCH.elapsed();
    let first = since.map_or(0, |since| since.as_secs()) * 1000;
    let count = std::env::var("FILERMESH_SEEDS").ok().map(|text| text.parse().expect("FILERMESH_SEEDS is a number"));
    let seeds: Vec<u64> = (first..first + count.unwrap_or(FRESH_SEEDS)).collect();
    println!("seeds from {first} on");
    each(&seeds, |seed| passes(*seed, "mixed", (3, 5), 2));
}
