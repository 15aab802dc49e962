//! Limits of the NFS door.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Bytes of a WRITE call that are not data: record of RPC head, credentials, handle and lengths, generously.
pub const CALL_HEAD_BYTES_MAX: u32 = 4096;

/// Least room for calls about names and attributes, in bytes.
const METADATA_BYTES_MIN: u64 = 128 << 10;

/// What an operator may set. The defaults fit a server of a few gigabytes of memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NfsSettings {
    /// Further addresses where all programs answer too, such as 111 for the port mapper and 20048 for MOUNT.
    pub extra_listen: Vec<SocketAddr>,
    /// Most data of one READ.
    pub read_bytes_max: u32,
    /// What clients are told to ask for.
    pub read_bytes_preferred: u32,
    /// Most data of one WRITE; what a longer one brings beyond it is not written (RFC 1813, 3.3.7).
    pub write_bytes_max: u32,
    /// What clients are told to send.
    pub write_bytes_preferred: u32,
    /// Most bytes of one READDIR or READDIRPLUS answer.
    pub directory_bytes_max: u32,
    /// What clients are told to ask for.
    pub directory_bytes_preferred: u32,
    /// Longest record from a client. A longer one closes its connection.
    pub record_bytes_max: u32,
    /// Calls of one kind (reads, writes, changes, looks) of one connection at work at the same time.
    pub calls_in_flight_max: u32,
    /// Bytes of reads and directory listings, answers included, held for all connections together.
    pub read_bytes_in_flight_max: u64,
    /// Bytes of writes and commits held for all connections together.
    pub write_bytes_in_flight_max: u64,
    /// Bytes of calls that change names and attributes held for all connections together, and as many again of calls
    /// that look at them.
    pub metadata_bytes_in_flight_max: u64,
    /// Bytes of one kind held for one connection.
    pub connection_bytes_in_flight_max: u64,
    /// How long a call waits for room, its connection unread, before its client is told to ask later, in milliseconds.
    pub admission_ms_max: u64,
    /// How long a client may take to send one long record for which it was given room, in milliseconds.
    pub record_ms_max: u64,
    /// Connections at the same time; a further one is closed at once.
    pub connections_max: u32,
    /// A connection without a whole call for so long, and with none at work, is closed.
    pub idle_ms_max: u64,
    /// A client that takes no byte of its answers for so long is cut off.
    pub reply_stall_ms_max: u64,
    /// How long a shutdown waits for calls at work.
    pub shutdown_ms_max: u64,
    /// Answers kept for repeated calls that change names or attributes, and as many again for repeated WRITEs.
    pub replay_entries_max: usize,
    /// Bytes of answers kept for repeated calls of each.
    pub replay_bytes_max: usize,
    /// How long an answer is kept for repeated calls.
    pub replay_ms_max: u64,
    /// Mounts remembered for MOUNT's DUMP (for people alone; nothing depends on it).
    pub mounts_max: usize,
}

impl Default for NfsSettings {
    fn default() -> Self {
        Self {
            extra_listen: Vec::new(),
            read_bytes_max: 1 << 20,
            read_bytes_preferred: 1 << 20,
            write_bytes_max: 1 << 20,
            write_bytes_preferred: 1 << 20,
            directory_bytes_max: 1 << 20,
            directory_bytes_preferred: 64 << 10,
            record_bytes_max: (2 << 20) + CALL_HEAD_BYTES_MAX,
            calls_in_flight_max: 64,
            read_bytes_in_flight_max: 96 << 20,
            write_bytes_in_flight_max: 64 << 20,
            metadata_bytes_in_flight_max: 8 << 20,
            connection_bytes_in_flight_max: 32 << 20,
            admission_ms_max: 3_000,
            record_ms_max: 60_000,
            connections_max: 1024,
            idle_ms_max: 360_000,
            reply_stall_ms_max: 60_000,
            shutdown_ms_max: 10_000,
            replay_entries_max: 16_384,
            replay_bytes_max: 16 << 20,
            replay_ms_max: 120_000,
            mounts_max: 4096,
        }
    }
}

impl NfsSettings {
    /// Says what is wrong with the settings, if anything is.
    pub fn check(&self) -> Result<(), String> {
        const TRANSFER_BYTES_MAX: u32 = 64 << 20;
        const TRANSFER_BYTES_MIN: u32 = 4096;
        let within = |name: &str, value: u32| {
            if (TRANSFER_BYTES_MIN..=TRANSFER_BYTES_MAX).contains(&value) {
                Ok(())
            } else {
                Err(format!("{name} is {value}, must be {TRANSFER_BYTES_MIN} to {TRANSFER_BYTES_MAX}"))
            }
        };
        within("read_bytes_max", self.read_bytes_max)?;
        within("write_bytes_max", self.write_bytes_max)?;
        within("directory_bytes_max", self.directory_bytes_max)?;
        let ordered = |name: &str, preferred: u32, max: u32| {
            if preferred > 0 && preferred <= max {
                Ok(())
            } else {
                Err(format!("{name} is {preferred}, must be 1 to {max}"))
            }
        };
        ordered("read_bytes_preferred", self.read_bytes_preferred, self.read_bytes_max)?;
        ordered("write_bytes_preferred", self.write_bytes_preferred, self.write_bytes_max)?;
        ordered("directory_bytes_preferred", self.directory_bytes_preferred, self.directory_bytes_max)?;
        if self.record_bytes_max < self.write_bytes_max + CALL_HEAD_BYTES_MAX {
            return Err(format!(
                "record_bytes_max is {}, must be write_bytes_max and {CALL_HEAD_BYTES_MAX} more",
                self.record_bytes_max
            ));
        }
        if self.calls_in_flight_max == 0 || self.connections_max == 0 || self.replay_entries_max == 0 {
            return Err("calls_in_flight_max, connections_max and replay_entries_max must be at least 1".into());
        }
        let (record, read) =
            (u64::from(self.record_bytes_max), u64::from(self.read_bytes_max.max(self.directory_bytes_max)));
        let rooms = [
            ("read_bytes_in_flight_max", self.read_bytes_in_flight_max, read),
            ("write_bytes_in_flight_max", self.write_bytes_in_flight_max, record),
            ("metadata_bytes_in_flight_max", self.metadata_bytes_in_flight_max, METADATA_BYTES_MIN),
            ("connection_bytes_in_flight_max", self.connection_bytes_in_flight_max, record.max(read)),
        ];
        for (name, value, min) in rooms {
            if value < min {
                return Err(format!("{name} is {value}, must be {min} at least: one call with its answer"));
            }
        }
        Ok(())
    }
}
