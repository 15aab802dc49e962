//! `[consistency]`: how fresh what clients see must be, and what is done without a majority.

use super::{HOUR, SECOND};
use crate::config::{
    form::Form,
    kinds::{Choice, Millis},
};
use serde::{Deserialize, Serialize};

/// How fresh what a client sees must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reads {
    /// What any earlier close at any site made visible is seen.
    #[default]
    Strict,
    /// What any close at any site made visible up to `stale_within_ms` ago is seen.
    Stale,
}

/// What a filer does that lost the majority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WithoutMajority {
    /// Clients wait.
    #[default]
    Wait,
    /// It serves what it has, read-only, and says that it may be old.
    ReadOnly,
}

/// `[consistency]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsistencySettings {
    pub reads: Reads,
    pub stale_within_ms: u64,
    pub without_majority: WithoutMajority,
}

impl Default for ConsistencySettings {
    fn default() -> Self {
        Self { reads: Reads::Strict, stale_within_ms: 2 * SECOND, without_majority: WithoutMajority::Wait }
    }
}

impl ConsistencySettings {
    pub(in crate::config) fn form(&mut self, form: &mut Form<'_, '_>) {
        form.set(
            "reads",
            "\"strict\": an open sees what any earlier close at any site made visible. \"stale\": what is seen may be as old as\nstale_within.",
            Choice(&[("strict", Reads::Strict), ("stale", Reads::Stale)]),
            &mut self.reads,
        );
        form.set(
            "stale_within",
            "The greatest age, with reads = \"stale\".",
            Millis(1..=HOUR),
            &mut self.stale_within_ms,
        );
        form.set(
            "without_majority",
            "While most filers cannot be reached: \"wait\" (clients wait) or \"read-only\" (what is here is served, and may be old).",
            Choice(&[("wait", WithoutMajority::Wait), ("read-only", WithoutMajority::ReadOnly)]),
            &mut self.without_majority,
        );
    }
}
