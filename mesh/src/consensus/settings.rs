//! What an operator can set about the replicated log, and the limits that follow.

use super::runtime::Spawning;
use crate::peers::{BODY_BYTES_MAX, HEAD_BYTES_MAX};
use std::time::Duration;

/// Room in a call's head for everything but the operations, in bytes.
const HEAD_RESERVE_BYTES: usize = 256 << 10;

/// Settings of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How often a leader tells the others that it lives, in milliseconds; to a peer whose answer takes longer, as soon as
    /// it has answered.
    pub heartbeat_ms: u64,
    /// Deadline of the engine's calls to a peer, in milliseconds: a round trip between any two filers must take less. Also the
    /// shortest time that a filer draws, as told below.
    pub election_timeout_ms_min: u64,
    /// For how long after a majority was last heard from a leader takes proposals, and the others stand by it, in
    /// milliseconds; one that hears nothing for a time more that it draws, from the shortest to this, stands for election.
    /// At least twice the shortest, so that an answer that took all its time is still news.
    pub election_timeout_ms_max: u64,
    /// A snapshot is taken, and the log behind it dropped, after so many entries.
    pub snapshot_every_entries: u64,
    /// So many entries are kept behind a snapshot, for filers that were away briefly, and for those that take a snapshot:
    /// it must arrive before so many more entries are there, or the next one is due already.
    pub log_entries_kept: u64,
    /// Largest operation, in bytes.
    pub op_bytes_max: usize,
    /// Most entries in one call to a follower.
    pub append_entries_max: u64,
    /// Most bytes of entries in one call to a follower (one entry is always sent), and in one pass of applying.
    pub append_bytes_max: usize,
    /// Rows of the state that one batch of applied entries changes before the next one begins: what the last entry of a
    /// batch changes comes on top.
    pub apply_rows_max: usize,
    /// Bytes of entries gathered into one synced write, at most, before others wait for the next one.
    pub write_bytes_max: usize,
    /// Bytes of recent entries kept in memory for followers and for applying.
    pub log_cache_bytes_max: usize,
    /// Size of a piece of a snapshot on the wire, in bytes.
    pub snapshot_chunk_bytes: usize,
    /// Largest snapshot that this filer receives, in bytes of keys and values: it takes so much of the disk, besides the
    /// state that it replaces.
    pub snapshot_bytes_max: u64,
    /// How long one piece of a snapshot, and its installation, may take, in milliseconds.
    pub snapshot_timeout_ms: u64,
    /// Operations of this filer that are under way at the same time; others wait.
    pub proposals_in_flight_max: usize,
    /// Operations forwarded to the leader in one call, at most.
    pub forward_ops_max: usize,
    /// Calls with forwarded operations under way at the same time.
    pub forward_calls_max: usize,
    /// How the replica's tasks are started.
    pub spawning: Spawning,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat_ms: 250,
            election_timeout_ms_min: 1_000,
            election_timeout_ms_max: 2_000,
            snapshot_every_entries: 50_000,
            log_entries_kept: 200_000,
            op_bytes_max: 1 << 20,
            append_entries_max: 4_096,
            append_bytes_max: 1 << 20,
            apply_rows_max: 16_384,
            write_bytes_max: 4 << 20,
            log_cache_bytes_max: 32 << 20,
            snapshot_chunk_bytes: 4 << 20,
            snapshot_bytes_max: 64 << 30,
            snapshot_timeout_ms: 30_000,
            proposals_in_flight_max: 1_024,
            forward_ops_max: 256,
            forward_calls_max: 8,
            spawning: Spawning::Runtime,
        }
    }
}

impl Settings {
    /// The first contradiction, in words.
    pub(super) fn check(&self) -> Result<(), String> {
        let entry_bytes_max = HEAD_BYTES_MAX - HEAD_RESERVE_BYTES;
        let rules = [
            (self.heartbeat_ms > 0, "heartbeat_ms must be above 0".to_string()),
            (
                self.election_timeout_ms_min > self.heartbeat_ms,
                "election_timeout_ms_min must be above heartbeat_ms".to_string(),
            ),
            (
                self.election_timeout_ms_max / 2 >= self.election_timeout_ms_min,
                "election_timeout_ms_max must be at least twice election_timeout_ms_min".to_string(),
            ),
            (self.snapshot_every_entries > 0, "snapshot_every_entries must be above 0".to_string()),
            (self.apply_rows_max > 0, "apply_rows_max must be above 0".to_string()),
            (self.append_entries_max > 0, "append_entries_max must be above 0".to_string()),
            (
                self.op_bytes_max > 0 && self.op_bytes_max.saturating_add(self.append_bytes_max) <= entry_bytes_max,
                format!("op_bytes_max and append_bytes_max together must be within {entry_bytes_max}"),
            ),
            (
                self.snapshot_chunk_bytes > 0
                    && self.snapshot_chunk_bytes.saturating_add(self.op_bytes_max) <= BODY_BYTES_MAX / 2,
                format!("snapshot_chunk_bytes and op_bytes_max together must be within {}", BODY_BYTES_MAX / 2),
            ),
            (self.proposals_in_flight_max > 0, "proposals_in_flight_max must be above 0".to_string()),
            (self.forward_ops_max > 0, "forward_ops_max must be above 0".to_string()),
            (self.forward_calls_max > 0, "forward_calls_max must be above 0".to_string()),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, why)| Err(why))
    }

    /// Deadline of the engine's calls to a peer.
    pub(super) fn call_deadline(&self) -> Duration {
        Duration::from_millis(self.election_timeout_ms_min)
    }

    /// How long the answer to a sign of life may take, in milliseconds: as long as that to any other call of the engine, which
    /// wants less than the silence after which a filer stands for election.
    pub(super) fn answer_ms_max(&self) -> u64 {
        self.election_timeout_ms_min - 1
    }

    /// Deadline of one question for an index read: the way to the leader, and its own question to a majority, behind a sign of
    /// life that is not answered yet.
    pub(super) fn question_deadline(&self) -> Duration {
        3 * self.call_deadline()
    }

    /// For how long a word from the leader, or from a majority, counts as recent.
    pub(super) fn lease(&self) -> Duration {
        Duration::from_millis(self.election_timeout_ms_max)
    }

    /// Without a sign of a majority for so long, a filer knows that it has none. By then the last lease was over, the most
    /// patient filer has stood for election, and it was asked for, held and told: less than three answers.
    pub(super) fn majority_known_lost_after(&self) -> Duration {
        2 * self.lease() + 3 * self.call_deadline()
    }

    /// Deadline of one piece of a snapshot.
    pub(super) fn snapshot_deadline(&self) -> Duration {
        Duration::from_millis(self.snapshot_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_named() {
        assert_eq!(Settings::default().check(), Ok(()));
        let late = Settings { heartbeat_ms: 1_000, ..Settings::default() };
        assert!(late.check().is_err_and(|why| why.contains("heartbeat_ms")));
        let narrow = Settings { election_timeout_ms_max: 1_999, ..Settings::default() };
        assert!(narrow.check().is_err_and(|why| why.contains("election_timeout_ms_max")));
        let huge = Settings { op_bytes_max: 8 << 20, ..Settings::default() };
        assert!(huge.check().is_err_and(|why| why.contains("op_bytes_max")));
    }
}
