//! The same seed gives the same run, in whatever process; and the seeds that are always run pass.

use sim::{plan::Plan, run::run};
use std::process::Command;

/// What a process of its own says of a seed's trace.
fn trace_of(seed: u64, scene: &str) -> String {
    let seed = seed.to_string();
    let arguments = ["replay", &seed, "--scene", scene, "--minutes", "1"];
    let output = Command::new(env!("CARGO_BIN_EXE_sim")).args(arguments).output().expect("the simulator starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let line = said.lines().find(|line| line.starts_with("trace "));
    line.unwrap_or_else(|| panic!("it tells its trace: {said}")).to_string()
}

#[test]
fn the_same_seed_gives_the_same_trace_in_every_process() {
    for (seed, scene) in [(1, "mixed"), (2, "mixed"), (3, "mixed"), (4, "crashes"), (5, "network"), (6, "clouds")] {
        let first = trace_of(seed, scene);
        assert_eq!(trace_of(seed, scene), first, "seed {seed} of {scene}");
        assert_eq!(trace_of(seed, scene), first, "seed {seed} of {scene}");
    }
}

#[test]
fn seeds_that_are_always_run_pass() {
    for scene in ["calm", "mixed", "clouds", "crashes", "network", "operators"] {
        for seed in 1..=3 {
            let outcome = run(Plan::draw(seed, scene, (3, 5), 1), None);
            assert_eq!(outcome.violation, None, "seed {seed} of {scene}:\n{}", outcome.last.join("\n"));
        }
    }
}
