//! The engine's types, filled in with this product's: what an entry of the log carries, and what applying it gives.

use super::{revoked::Revoked, runtime::Tokio, settings::Settings};
use crate::{FilerId, peers::Member};
use bytes::Bytes;
use openraft::{Config, SnapshotPolicy, alias};
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};

openraft::declare_raft_types!(
    /// The engine's type parameters.
    pub Types:
        D = Command,
        R = Outcome,
        NodeId = FilerId,
        Node = Member,
        AsyncRuntime = Tokio,
);

pub type Entry = alias::EntryOf<Types>;
pub type LogId = alias::LogIdOf<Types>;
pub type Vote = alias::VoteOf<Types>;
pub type StoredMembership = alias::StoredMembershipOf<Types>;
pub type SnapshotMeta = alias::SnapshotMetaOf<Types>;
pub type Raft = openraft::Raft<Types, super::machine::Machine>;
pub type Metrics = openraft::RaftMetrics<Types>;

/// What an entry of the log orders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// An operation of the application, at most once for each request.
    Op(Request, Bytes),
    /// The filer leaves for good.
    Remove(FilerId),
    /// This certificate is refused from now on.
    Revoke(Revoked),
}

/// Who asks, and which of its questions this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub filer: FilerId,
    /// Raised with every start of the filer.
    pub session: u64,
    /// Unique in the session.
    pub number: u64,
    /// Nobody waits any more for the answers to the session's requests below this one.
    pub done_below: u64,
}

/// What applying an entry gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Not an operation of the application.
    Nothing,
    /// The application's answer.
    Answer(Bytes),
    /// Not applied: the request was given up, or its session has ended, before the entry's turn came.
    Expired,
}

impl Command {
    /// About how many bytes it takes in a record.
    pub fn bytes(&self) -> usize {
        match self {
            Command::Op(_, op) => op.len() + 48,
            Command::Remove(_) => 16,
            Command::Revoke(revoked) => revoked.serial.len() + revoked.name.len() + 16,
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Op(request, op) => {
                write!(f, "op of {} bytes, request {}.{}.{}", op.len(), request.filer, request.session, request.number)
            }
            Command::Remove(id) => write!(f, "remove {id}"),
            Command::Revoke(revoked) => write!(f, "revoke certificate {} of {}", revoked.serial, revoked.filer),
        }
    }
}

/// The engine's configuration.
pub fn config(settings: &Settings) -> Result<Arc<Config>, String> {
    let config = Config {
        cluster_name: "cloudfs".into(),
        // How long an answer to a sign of life may take. The replica has them sent itself, more often (`heartbeat`): else a
        // leader would hear no majority where a round trip takes longer than the pause between two of them.
        enable_heartbeat: false,
        heartbeat_interval: settings.answer_ms_max(),
        election_timeout_min: settings.election_timeout_ms_min,
        election_timeout_max: settings.election_timeout_ms_max,
        install_snapshot_timeout: settings.snapshot_timeout_ms,
        max_payload_entries: settings.append_entries_max,
        max_append_entries: Some(settings.append_entries_max),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(settings.snapshot_every_entries),
        max_in_snapshot_log_to_keep: settings.log_entries_kept,
        purge_batch_size: 1,
        removed_leader_step_down: openraft::StepDownPolicy::After(settings.heartbeat_ms),
        enable_pre_vote: Some(true),
        // The state is written without waiting for the disk, so a leader that was away must ask the others what is
        // committed before it leads again.
        enable_leader_restore: Some(false),
        backoff: "100ms 200ms ..1s".into(),
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|e| e.to_string())
}
