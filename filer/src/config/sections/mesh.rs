//! `[mesh]`: how this filer and its peers talk and agree.

use super::{DAY, GIB, HOUR, MIB, MINUTE, SECOND, TIB};
use crate::config::{
    form::Form,
    kinds::{Address, Bytes, Millis, Text, count},
};
use mesh::net::MeshSettings as Transport;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// `[mesh]`: how this filer and its peers talk and agree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeshSettings {
    /// Where peers' sessions (QUIC, over UDP) are accepted.
    pub listen: SocketAddr,
    /// `host:port` under which peers reach this filer.
    pub advertise: String,
    /// How often the leader says that it leads, in milliseconds.
    pub heartbeat_ms: u64,
    /// The longest that an answer between two filers may take, in milliseconds; and the least that a filer waits for the
    /// leader beyond the time below.
    pub election_ms_min: u64,
    /// For how long the leader's silence is borne, in milliseconds; and the most that a filer waits beyond that.
    pub election_ms_max: u64,
    /// Largest replicated state that this filer takes from a peer, in bytes.
    pub snapshot_bytes_max: u64,
    /// This filer's certificate is said to end soon when it is valid for less than this, in milliseconds.
    pub certificate_warn_ms: u64,
    /// How often it is looked whether this filer was removed from the CloudFS, in milliseconds.
    pub removal_look_every_ms: u64,
    /// Sessions.
    pub transport: Transport,
}

impl Default for MeshSettings {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 7400));
        Self {
            listen,
            advertise: listen.to_string(),
            heartbeat_ms: 250,
            election_ms_min: 1_000,
            election_ms_max: 2_000,
            snapshot_bytes_max: 64 * GIB,
            certificate_warn_ms: 30 * DAY,
            removal_look_every_ms: SECOND,
            transport: Transport::default(),
        }
    }
}

impl MeshSettings {
    pub(in crate::config) fn form(&mut self, form: &mut Form<'_, '_>) {
        form.set("listen", "Where peers' sessions (QUIC, over UDP) are accepted.", Address, &mut self.listen);
        if form.reads() {
            self.advertise = self.listen.to_string();
        }
        form.set(
            "advertise",
            "host:port under which peers reach this filer. Needed where listen names no single address.",
            Text(host_and_port),
            &mut self.advertise,
        );
        if form.reads() && !form.has("advertise") && self.listen.ip().is_unspecified() {
            let listen = self.listen;
            form.problem_beside(
                "listen",
                "advertise",
                format!("is missing: listen = \"{listen}\" names no single address; add advertise = \"host:port\" as peers reach it"),
            );
        }
        let doc = "How often the leader of the replicated log says that it leads; to a filer that answers more slowly, when it has answered.";
        form.set("heartbeat", doc, Millis(10..=10 * SECOND), &mut self.heartbeat_ms);
        let doc = "Answers between filers must come within election_min: let it be twice the longest round trip between two sites, or more,\nat all of them. A leader that is silent for election_max, and for a time more that each filer draws between both, is replaced.";
        form.set("election_min", doc, Millis(50..=MINUTE), &mut self.election_ms_min);
        form.set("election_max", "", Millis(50..=2 * MINUTE), &mut self.election_ms_max);
        form.set(
            "snapshot_bytes_max",
            "Largest replicated state (names, attributes, places of data) that this filer takes from a peer, when it was away\nfor long or is new; it needs the same room in data_dir besides.",
            Bytes(MIB..=16 * TIB),
            &mut self.snapshot_bytes_max,
        );
        let doc =
            "A certificate that is valid for less than this is warned of: in the log, by filer status, in the metrics.";
        form.set("certificate_warn", doc, Millis(0..=10 * 365 * DAY), &mut self.certificate_warn_ms);
        let doc = "How often this filer looks whether it was removed from the CloudFS, to say so in its log.";
        form.set("removal_look_every", doc, Millis(10..=HOUR), &mut self.removal_look_every_ms);
        let t = &mut self.transport;
        form.set(
            "keep_alive",
            "A quiet session sends a sign of life this often.",
            Millis(10..=MINUTE),
            &mut t.keep_alive_ms,
        );
        form.set(
            "idle_max",
            "A session from which nothing was heard for this long is given up.",
            Millis(20..=10 * MINUTE),
            &mut t.idle_ms_max,
        );
        form.set(
            "dial_max",
            "Longest time for one attempt at a session.",
            Millis(10..=10 * MINUTE),
            &mut t.dial_ms_max,
        );
        form.set(
            "redial_min",
            "Pause between attempts; it doubles with each failure, up to redial_max.",
            Millis(1..=10 * MINUTE),
            &mut t.redial_ms_min,
        );
        form.set("redial_max", "", Millis(1..=10 * MINUTE), &mut t.redial_ms_max);
        form.set("call_max", "Longest time for a peer's call.", Millis(SECOND..=HOUR), &mut t.call_ms_max);
        form.set("calls_per_peer_max", "Calls in flight to one peer.", count(4..=4_096), &mut t.calls_per_peer_max);
    }
}

fn host_and_port(text: &str) -> Result<(), String> {
    let split = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let port = split.and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_none_or(|port| port == 0) {
        return Err(format!(
            "\"{text}\" is not host:port; write it as peers reach it, such as \"ams.example.org:7400\""
        ));
    }
    if text.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified()) {
        return Err(format!(
            "\"{text}\" is where one listens, and no address that leads here; write it as peers reach it, such as \"ams.example.org:7400\""
        ));
    }
    Ok(())
}
