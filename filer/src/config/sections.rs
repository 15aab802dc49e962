//! The sections of the settings: their values, defaults and what each is for.
//!
//! Every number has its unit in its name here, and beside it in the file. The sentences stand in the example file.

use super::{
    form::Form,
    kinds::{Address, AddressOrOff, Bytes, Choice, FilePath, Maybe, Millis, Text, count, text},
};
use mesh::net::MeshSettings as Transport;
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::PathBuf};
use storage::{
    cloudfs::TripPolicy,
    segment::{FRAME_BYTES_MAX, SEGMENT_BYTES_MAX},
};
use tracing_subscriber::filter::LevelFilter;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// `[mesh]`: how this filer and its peers talk and agree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeshSettings {
    /// Where peers' sessions (QUIC, over UDP) are accepted.
    pub listen: SocketAddr,
    /// `host:port` under which peers reach this filer.
    pub advertise: String,
    /// How often the leader says that it leads, in milliseconds.
    pub heartbeat_ms: u64,
    /// Silence of the leader after which a filer stands for election: at least this, in milliseconds,
    pub election_ms_min: u64,
    /// and at most this.
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
    pub(super) fn form(&mut self, form: &mut Form<'_, '_>) {
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
        let doc = "How often the leader of the replicated log says that it leads.";
        form.set("heartbeat", doc, Millis(10..=10 * SECOND), &mut self.heartbeat_ms);
        let doc = "A leader silent for this long is replaced; each filer draws its patience from this range.";
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

/// How a cloud that is healthy again gets its role back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failback {
    /// As soon as it is healthy.
    #[default]
    Auto,
    /// When the operator says so.
    Manual,
}

/// `[health]`: when a cloud has failed, and when it is back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSettings {
    pub failures_to_trip: u32,
    pub failures_to_warn: u32,
    pub works_again_after_ms: u64,
    pub attempt_backoff_ms_min: u64,
    pub attempt_backoff_ms_max: u64,
    pub brown_out_latency_ms: u64,
    pub brown_out_bytes_per_s: u64,
    pub brown_out_after_ms: u64,
    pub probe_backoff_ms_min: u64,
    pub probe_backoff_ms_max: u64,
    pub start_probe_every_ms: u64,
    pub trip_policy: TripPolicy,
    pub failback: Failback,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            failures_to_trip: 160,
            failures_to_warn: 8,
            works_again_after_ms: 5 * MINUTE,
            attempt_backoff_ms_min: 10,
            attempt_backoff_ms_max: SECOND,
            brown_out_latency_ms: 10 * SECOND,
            brown_out_bytes_per_s: 256 * KIB,
            brown_out_after_ms: MINUTE,
            probe_backoff_ms_min: SECOND,
            probe_backoff_ms_max: 30 * SECOND,
            start_probe_every_ms: 10 * SECOND,
            trip_policy: TripPolicy::Any,
            failback: Failback::Auto,
        }
    }
}

impl HealthSettings {
    pub(super) fn form(&mut self, form: &mut Form<'_, '_>) {
        form.set(
            "failures_to_trip",
            "Consecutive failures on one piece of data after which a cloud has failed.",
            count(1..=1_000_000),
            &mut self.failures_to_trip,
        );
        form.set(
            "failures_to_warn",
            "Consecutive failures on one piece of data after which the log warns that a cloud is failing, before it has failed.",
            count(1..=1_000_000),
            &mut self.failures_to_warn,
        );
        form.set(
            "works_again_after",
            "The log says that it works again when none has failed so often for this long: what fails now and then is told once.",
            Millis(0..=DAY),
            &mut self.works_again_after_ms,
        );
        form.set(
            "attempt_backoff_min",
            "Pause before another attempt on a piece; it doubles with each failure, with jitter, up to attempt_backoff_max.",
            Millis(1..=MINUTE),
            &mut self.attempt_backoff_ms_min,
        );
        form.set("attempt_backoff_max", "", Millis(1..=10 * MINUTE), &mut self.attempt_backoff_ms_max);
        form.set(
            "brown_out_latency",
            "A cloud whose answers take longer than this, and than their bytes need, for brown_out_after, has failed too.",
            Millis(10..=10 * MINUTE),
            &mut self.brown_out_latency_ms,
        );
        form.set(
            "brown_out_bytes_per_s",
            "How long bytes need is reckoned at this many per second: the least throughput to a cloud that counts as healthy.",
            Bytes(KIB..=GIB),
            &mut self.brown_out_bytes_per_s,
        );
        form.set("brown_out_after", "", Millis(100..=DAY), &mut self.brown_out_after_ms);
        form.set(
            "probe_backoff_min",
            "A failed cloud is probed: the pause doubles from this to probe_backoff_max.",
            Millis(10..=HOUR),
            &mut self.probe_backoff_ms_min,
        );
        form.set("probe_backoff_max", "", Millis(10..=DAY), &mut self.probe_backoff_ms_max);
        form.set(
            "start_probe_every",
            "From the start on each cloud is probed this often, until it has taken and given data once.",
            Millis(10..=DAY),
            &mut self.start_probe_every_ms,
        );
        form.set(
            "trip_policy",
            "Whose finding carries: \"any\" (one filer's moves the CloudFS) or \"majority\" (most filers must see it too).",
            Choice(&[("any", TripPolicy::Any), ("majority", TripPolicy::Majority)]),
            &mut self.trip_policy,
        );
        form.set(
            "failback",
            "When the primary cloud is healthy again: \"auto\" makes it active at once, \"manual\" waits for filer cloud failback.",
            Choice(&[("auto", Failback::Auto), ("manual", Failback::Manual)]),
            &mut self.failback,
        );
    }
}

/// `[segments]`: the pieces that go to the clouds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentSettings {
    pub bytes_max: u64,
    pub seal_after_ms: u64,
    pub seal_idle_ms: u64,
    pub seal_idle_bytes_min: u64,
    pub seal_ahead_bytes_min: u64,
    /// To each cloud.
    pub puts_in_flight_max: u32,
    pub frame_bytes_max: u64,
    pub delete_grace_ms: u64,
}

impl Default for SegmentSettings {
    fn default() -> Self {
        Self {
            bytes_max: 8 * MIB,
            seal_after_ms: SECOND,
            seal_idle_ms: 20,
            seal_idle_bytes_min: Self::worth_a_put(8 * MIB),
            seal_ahead_bytes_min: Self::worth_no_wait(8 * MIB),
            puts_in_flight_max: 16,
            frame_bytes_max: MIB,
            delete_grace_ms: HOUR,
        }
    }
}

impl SegmentSettings {
    /// What makes a segment worth a put of its own, where nothing else is said of those of this size.
    pub(super) fn worth_a_put(bytes_max: u64) -> u64 {
        storage::staging::Settings::worth_a_put(bytes_max)
    }

    /// What makes it go ahead while nothing else is on its way.
    pub(super) fn worth_no_wait(bytes_max: u64) -> u64 {
        storage::staging::Settings::worth_no_wait(bytes_max)
    }

    pub(super) fn form(&mut self, form: &mut Form<'_, '_>) {
        form.set(
            "bytes_max",
            "A segment of this size is sealed and put.",
            Bytes(64 * KIB..=SEGMENT_BYTES_MAX),
            &mut self.bytes_max,
        );
        form.set(
            "seal_after",
            "A segment is sealed this long after its first byte, however small it is.",
            Millis(10..=HOUR),
            &mut self.seal_after_ms,
        );
        form.set(
            "seal_idle",
            "A segment of at least seal_idle_bytes_min is sealed when nothing was added for so long.",
            Millis(1..=HOUR),
            &mut self.seal_idle_ms,
        );
        if form.reads() {
            self.seal_idle_bytes_min = Self::worth_a_put(self.bytes_max);
            self.seal_ahead_bytes_min = Self::worth_no_wait(self.bytes_max);
        }
        form.set(
            "seal_idle_bytes_min",
            "What is worth a put of its own; an eighth of bytes_max where nothing else is said.",
            Bytes(0..=SEGMENT_BYTES_MAX),
            &mut self.seal_idle_bytes_min,
        );
        form.set(
            "seal_ahead_bytes_min",
            "From here on a segment is sealed at once while no other is on its way to the clouds; half of bytes_max where nothing\nelse is said. With the value of bytes_max none is: fewer puts, and data is in the clouds later.",
            Bytes(0..=SEGMENT_BYTES_MAX),
            &mut self.seal_ahead_bytes_min,
        );
        form.set("puts_in_flight_max", "Puts at once, to each cloud.", count(1..=1_024), &mut self.puts_in_flight_max);
        form.set(
            "frame_bytes_max",
            "Largest piece of a file under one checksum.",
            Bytes(4 * KIB..=FRAME_BYTES_MAX),
            &mut self.frame_bytes_max,
        );
        form.set(
            "delete_grace",
            "A segment to which no file refers stays in the clouds for this long, for puts and readers that are under way: at\nleast twice the longest put, and no put may take longer than half of it. The leader's setting counts, so give all filers\nthe same.",
            Millis(SECOND..=365 * DAY),
            &mut self.delete_grace_ms,
        );
    }
}

/// `[staging]`: what is not yet in the clouds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagingSettings {
    pub bytes_max: u64,
    pub wait_ms_max: u64,
}

impl Default for StagingSettings {
    fn default() -> Self {
        Self { bytes_max: 10 * GIB, wait_ms_max: 30 * SECOND }
    }
}

impl StagingSettings {
    pub(super) fn form(&mut self, form: &mut Form<'_, '_>) {
        form.set(
            "bytes_max",
            "Disk for data that is not yet in the clouds. When it is full, writers wait.",
            Bytes(16 * MIB..=1_024 * TIB),
            &mut self.bytes_max,
        );
        form.set(
            "wait_max",
            "How long a writer waits for room before it is told so.",
            Millis(0..=HOUR),
            &mut self.wait_ms_max,
        );
    }
}

/// `[cache]`: what was read from the clouds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheSettings {
    pub disk_bytes_max: u64,
    pub memory_bytes_max: u64,
    pub frame_bytes_in_flight_max: u64,
    pub read_ahead_bytes: u64,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            disk_bytes_max: 10 * GIB,
            memory_bytes_max: 256 * MIB,
            frame_bytes_in_flight_max: 96 * MIB,
            read_ahead_bytes: 8 * MIB,
        }
    }
}

impl CacheSettings {
    pub(super) fn form(&mut self, form: &mut Form<'_, '_>) {
        let doc = "Disk for data read from the clouds, besides staging.";
        form.set("disk_bytes_max", doc, Bytes(0..=1_024 * TIB), &mut self.disk_bytes_max);
        let doc = "Memory for data read from the clouds.";
        form.set("memory_bytes_max", doc, Bytes(MIB..=16 * TIB), &mut self.memory_bytes_max);
        let doc = "Memory for frames that reads under way are made of, as they are stored, and as much again for those that come from\nafar. Without room a read waits.";
        form.set("frame_bytes_in_flight_max", doc, Bytes(8 * MIB..=TIB), &mut self.frame_bytes_in_flight_max);
        let doc = "How far ahead of a sequential reader data is fetched; \"0 B\" fetches only what was asked for.";
        form.set("read_ahead", doc, Bytes(0..=GIB), &mut self.read_ahead_bytes);
    }
}

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
    pub(super) fn form(&mut self, form: &mut Form<'_, '_>) {
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

/// `[admin]`: the door of the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminSettings {
    /// A Unix socket for the filer's own user.
    pub socket: PathBuf,
    /// A loopback address, besides.
    pub listen: Option<SocketAddr>,
    /// Holds the token that callers of `listen` must show.
    pub token_file: Option<PathBuf>,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { socket: "admin.sock".into(), listen: None, token_file: None }
    }
}

impl AdminSettings {
    pub(super) fn form(&mut self, form: &mut Form<'_, '_>) {
        let doc = "The Unix socket (mode 0600) through which filer status and the other commands talk to this filer.";
        form.set("socket", doc, FilePath, &mut self.socket);
        let doc = "A loopback address that serves the same, or \"off\". Callers must show the token of token_file.";
        form.set("listen", doc, AddressOrOff, &mut self.listen);
        let doc = "A file of mode 0600 with a token of 16 or more characters.";
        form.set("token_file", doc, Maybe(FilePath, "\"admin.token\""), &mut self.token_file);
    }
}

/// `[metrics]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsSettings {
    pub listen: Option<SocketAddr>,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], 7480))) }
    }
}

impl MetricsSettings {
    pub(super) fn form(&mut self, form: &mut Form<'_, '_>) {
        let doc = "Serves /metrics (Prometheus) and /healthz without a password; \"off\" serves neither.";
        form.set("listen", doc, AddressOrOff, &mut self.listen);
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// `[log]`: to the standard error output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSettings {
    /// As `tracing_subscriber::EnvFilter` reads it.
    pub filter: String,
    pub format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { filter: "info,openraft=error".into(), format: LogFormat::Text }
    }
}

impl LogSettings {
    pub(super) fn form(&mut self, form: &mut Form<'_, '_>) {
        let doc =
            "How much is logged: error, warn, info, debug or trace; also for one part, such as \"info,storage=debug\".";
        let filter = Text(|filter| {
            let parsed = tracing_subscriber::EnvFilter::try_new(filter).map(drop);
            // A misspelt level would be taken for a part of the program, and silence all others.
            let no_level = |word: &&str| !word.contains(['=', '[']) && word.parse::<LevelFilter>().is_err();
            let words: Vec<String> =
                filter.split(',').map(str::trim).filter(no_level).map(|word| format!("\"{word}\"")).collect();
            let misspelt = match &words[..] {
                [] => Ok(()),
                [word] => Err(format!("{word} is no level; write error, warn, info, debug or trace, or PART=LEVEL")),
                _ => Err(format!(
                    "{} are no levels; write error, warn, info, debug or trace, or PART=LEVEL",
                    words.join(" and ")
                )),
            };
            text().0(filter)
                .and(misspelt)
                .and(parsed.map_err(|e| format!("\"{filter}\" is no log filter ({e}); write such as \"info\"")))
        });
        form.set("filter", doc, filter, &mut self.filter);
        let formats = Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);
        form.set("format", "\"text\" for people or \"json\" for machines.", formats, &mut self.format);
    }
}
