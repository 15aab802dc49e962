//! The limits and times of the mesh.

use super::frame::HEADER_BYTES_MAX;
use crate::peers::{BODY_BYTES_MAX, HEAD_BYTES_MAX};
use serde::{Deserialize, Serialize};

/// Limits and times of the mesh. Units are in the names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MeshSettings {
    /// A connection on which nothing was sent for this long sends a sign of life.
    pub keep_alive_ms: u64,
    /// A connection from which nothing was heard for this long is given up.
    pub idle_ms_max: u64,
    /// How often a session looks whether anything was heard from its peer.
    pub heard_sample_ms: u64,
    /// Longest time for one attempt at a session: name lookup, connection, greeting.
    pub dial_ms_max: u64,
    /// First pause between two attempts; it doubles with each failure, with jitter.
    pub redial_ms_min: u64,
    /// Longest pause between two attempts.
    pub redial_ms_max: u64,
    /// How long two connections that both sides opened at the same time live side by side before one is closed.
    pub twin_ms: u64,
    /// Longest time a handler may take, whatever deadline its caller names.
    pub call_ms_max: u64,
    /// Calls in flight to one peer, each way. A quarter of them is kept for the replicated log.
    pub calls_per_peer_max: u32,
    /// Handlers at work for the replicated log, for all peers.
    pub consensus_handlers_max: usize,
    /// Handlers at work for the filer itself, for all peers.
    pub filer_handlers_max: usize,
    /// Bytes of peers' calls held in memory at once. A quarter of them is kept for the replicated log.
    pub call_bytes_max: usize,
    /// Connections from peers that are being opened at once.
    pub handshakes_max: usize,
    /// Bytes in flight on one stream before its reader must have read.
    pub stream_window_bytes: u32,
    /// Bytes sent to one peer and not yet acknowledged.
    pub send_window_bytes: u64,
}

impl Default for MeshSettings {
    fn default() -> Self {
        Self {
            keep_alive_ms: 1_000,
            idle_ms_max: 6_000,
            heard_sample_ms: 500,
            dial_ms_max: 3_000,
            redial_ms_min: 100,
            redial_ms_max: 5_000,
            twin_ms: 5_000,
            call_ms_max: 120_000,
            calls_per_peer_max: 128,
            consensus_handlers_max: 256,
            filer_handlers_max: 256,
            call_bytes_max: 256 << 20,
            handshakes_max: 64,
            stream_window_bytes: 2 << 20,
            send_window_bytes: 64 << 20,
        }
    }
}

/// Settings that contradict each other.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the mesh setting {setting} is {found}, and must be {must}")]
pub struct SettingsError {
    pub setting: &'static str,
    pub found: u64,
    pub must: String,
}

impl MeshSettings {
    /// Checks every setting.
    pub fn validate(&self) -> Result<(), SettingsError> {
        // The log's quarter must hold the largest call.
        let call_bytes = 4 * (HEADER_BYTES_MAX + HEAD_BYTES_MAX + BODY_BYTES_MAX) as u64;
        let rules: [(&'static str, u64, u64, u64); 15] = [
            ("keep_alive_ms", self.keep_alive_ms, 10, self.idle_ms_max / 2),
            ("idle_ms_max", self.idle_ms_max, 20, 600_000),
            ("heard_sample_ms", self.heard_sample_ms, 10, 60_000),
            ("dial_ms_max", self.dial_ms_max, 10, 600_000),
            ("redial_ms_min", self.redial_ms_min, 1, self.redial_ms_max),
            ("redial_ms_max", self.redial_ms_max, 1, 600_000),
            ("twin_ms", self.twin_ms, 1, 600_000),
            ("call_ms_max", self.call_ms_max, 1, 3_600_000),
            ("calls_per_peer_max", self.calls_per_peer_max.into(), 4, 4_096),
            ("consensus_handlers_max", self.consensus_handlers_max as u64, 1, 65_536),
            ("filer_handlers_max", self.filer_handlers_max as u64, 1, 65_536),
            ("call_bytes_max", self.call_bytes_max as u64, call_bytes, 1 << 40),
            ("handshakes_max", self.handshakes_max as u64, 1, 65_536),
            ("stream_window_bytes", self.stream_window_bytes.into(), 64 << 10, 1 << 30),
            ("send_window_bytes", self.send_window_bytes, 64 << 10, 1 << 34),
        ];
        for (setting, found, min, max) in rules {
            if !(min..=max).contains(&found) {
                return Err(SettingsError { setting, found, must: format!("from {min} to {max}") });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_and_a_contradiction_is_named() {
        assert_eq!(MeshSettings::default().validate(), Ok(()));
        let wrong = MeshSettings { keep_alive_ms: 10_000, ..MeshSettings::default() };
        let said = wrong.validate().expect_err("beyond the idle time").to_string();
        assert_eq!(said, "the mesh setting keep_alive_ms is 10000, and must be from 10 to 3000");
    }
}
