//! What a filer says of itself and its CloudFS: one family of words for the admin door, `filer status` and tests.
//!
//! Ages are in milliseconds (`.._ms`, `.._ms_ago`), sizes in bytes. A field that nobody knows is left out.

use serde::{Deserialize, Serialize};
use storage::cloudfs::CloudState;

/// The first page.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    pub filer: FilerName,
    /// The CloudFS's id, in hexadecimal.
    pub cloudfs: String,
    /// Version of the program.
    pub version: String,
    /// Milliseconds since this filer started.
    pub up_ms: u64,
    /// Number of the agreement on the clouds' roles.
    pub epoch: u64,
    /// Name of the active cloud.
    pub active: String,
    /// Name of the cloud that the operator configured as primary.
    pub preferred: String,
    /// Whether one more cloud may fail without harm.
    pub absorbs_failure: bool,
    /// Why not, for people.
    pub why_not: Option<String>,
    /// Whether the replicated log has a majority, as far as this filer can see.
    pub has_majority: bool,
    /// Milliseconds since a majority was last known.
    pub majority_ms_ago: Option<u64>,
    /// The leader's name.
    pub leader: Option<String>,
    pub term: u64,
    /// Last operation applied here.
    pub applied: u64,
    /// Every filer, this one first.
    pub peers: Vec<Peer>,
    /// That this filer was removed from the CloudFS and what is to be done, for people. As far as it has heard.
    pub removed: Option<String>,
    /// Ids of all filers that were removed: neither they nor their names come back.
    pub removed_filers: Vec<String>,
    /// Certificates that are refused before their end.
    pub revoked: Vec<RevokedRow>,
    /// This filer's own certificate.
    pub certificate: Certificate,
    /// Both clouds, the preferred one first.
    pub clouds: Vec<Cloud>,
    pub dead: Dead,
    pub staging: Staging,
    pub serving: Serving,
    pub cache: Cache,
    /// Parts of the filer that run by themselves.
    pub tasks: Vec<Task>,
    /// The last decisions on the clouds, newest first.
    pub decisions: Vec<DecisionRow>,
}

/// A filer's id and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FilerName {
    /// In hexadecimal, as logs have it.
    pub id: String,
    pub name: String,
}

/// A filer of the CloudFS, as this one sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peer {
    pub id: String,
    pub name: String,
    /// `host:port` of its mesh door.
    pub address: String,
    /// Whether it is this filer.
    pub this: bool,
    pub leader: bool,
    /// Whether it votes; one that is being added does not yet.
    pub voter: bool,
    /// Whether it is being removed, and takes no more writes.
    pub leaving: bool,
    /// Whether a session stands.
    pub connected: bool,
    /// Milliseconds since anything was heard from it.
    pub heard_ms_ago: Option<u64>,
    /// Round-trip time, in microseconds.
    pub rtt_us: Option<u64>,
    /// Whether that is more than half of `mesh.election_min`, within which filers must answer each other: raise it.
    pub far: bool,
    /// Why there is no session.
    pub last_error: Option<String>,
    /// What it said it holds in staging.
    pub staged_bytes: Option<u64>,
    /// Age of its oldest byte that is in staging alone.
    pub oldest_unprotected_ms: Option<u64>,
    /// The epoch that it has seen.
    pub epoch: Option<u64>,
    /// Version of its program.
    pub version: Option<String>,
    /// The certificate that it shows: this filer's own, or that of the session that stands with the peer. One that was renewed
    /// since shows the new one in its next session.
    pub certificate: Option<Certificate>,
}

/// A certificate that is refused before its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RevokedRow {
    /// In hexadecimal.
    pub serial: String,
    pub filer: FilerName,
}

/// A filer's certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Certificate {
    /// In hexadecimal.
    pub serial: String,
    /// How long it is still valid; 0 when it has ended.
    pub left_ms: u64,
    /// Whether it ends soon (`mesh.certificate_warn`), or has: renew it.
    pub ends_soon: bool,
    /// Whether it was revoked: filers refuse it. As far as this one has heard.
    pub revoked: bool,
}

/// A cloud's role today.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    Active,
    #[default]
    Standby,
}

/// One of the two clouds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cloud {
    pub name: String,
    /// `s3`, `azure`, `gcs` or `directory`.
    pub kind: String,
    /// Where it is, without credentials.
    #[serde(default)]
    pub place: String,
    pub state: CloudState,
    pub role: Role,
    /// How long it has been in this state.
    #[serde(default)]
    pub since_ms_ago: u64,
    /// Why it is not healthy.
    #[serde(default)]
    pub why: Option<String>,
    /// An operator made it active in the preferred one's place: until `filer cloud failback`, or until it fails, the
    /// preferred one does not become active by itself.
    #[serde(default)]
    pub held_by_operator: bool,
    /// What fails at it now, as this filer sees, while it has not failed.
    #[serde(default)]
    pub failing: Option<Failing>,
    /// Most consecutive failures on one piece of data, now.
    #[serde(default)]
    pub failures_now: u32,
    /// Failures since this filer started.
    #[serde(default)]
    pub failures_total: u64,
    /// Rows of its missed-write log.
    #[serde(default)]
    pub missed_puts: u64,
    #[serde(default)]
    pub missed_deletes: u64,
    /// Age of the oldest of them.
    #[serde(default)]
    pub oldest_miss_ms: Option<u64>,
    /// Age of this filer's oldest byte that the cloud does not hold, and that is not on record as missed.
    #[serde(default)]
    pub oldest_unprotected_ms: Option<u64>,
    /// Filers that reach it while it is failed.
    #[serde(default)]
    pub reached_by: Vec<String>,
    /// While it is resyncing, and this filer drains its log.
    #[serde(default)]
    pub resync: Option<Resync>,
}

impl Cloud {
    /// A healthy cloud that nothing has happened to.
    pub fn new(name: &str, kind: &str, role: Role) -> Self {
        Self {
            name: name.into(),
            kind: kind.into(),
            place: String::new(),
            state: CloudState::Healthy,
            role,
            since_ms_ago: 0,
            why: None,
            held_by_operator: false,
            failing: None,
            failures_now: 0,
            failures_total: 0,
            missed_puts: 0,
            missed_deletes: 0,
            oldest_miss_ms: None,
            oldest_unprotected_ms: None,
            reached_by: vec![],
            resync: None,
        }
    }
}

/// Failures in a row of the piece of data that has failed most at a cloud.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failing {
    /// In a row.
    pub failures: u32,
    /// With how many of them the cloud has failed (`health.failures_to_trip`).
    pub trips_at: u32,
    /// How long ago the first of them was, and the last.
    pub since_ms_ago: u64,
    pub last_ms_ago: u64,
    /// How many pieces fail.
    pub pieces: u64,
}

/// How far a resync is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resync {
    pub rows_left: u64,
    /// Done by this filer, since it began.
    pub rows_done: u64,
    pub bytes_done: u64,
    /// How long it has been going on.
    pub since_ms: u64,
}

/// Segments that nothing refers to any more and that are still on record: they are deleted from the clouds after a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dead {
    pub segments: u64,
    /// Those of them whose deletes fail, as the leader knows: litter, until the cloud deletes them.
    pub undeleted: u64,
    /// Why the last delete failed.
    pub why: Option<String>,
}

/// This filer's staging.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Staging {
    pub bytes: u64,
    pub bytes_max: u64,
    pub segments: u64,
    /// Age of the oldest byte that is here alone.
    pub oldest_unprotected_ms: Option<u64>,
}

/// What this filer's clients see, and what they wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Serving {
    /// Whether clients are served what is here without a majority, so that it may be old.
    pub may_be_old: bool,
    /// Looks at names and attributes answered so, since the start.
    pub old_answers: u64,
    /// Milliseconds since the moment before which everything acknowledged at any site is known to be seen here.
    pub confirmed_ms_ago: Option<u64>,
    /// Changes that may have been made or not, so that their clients get no answer before that is known.
    pub undecided_changes: u64,
    /// How long the oldest of them has been under way.
    pub oldest_undecided_ms: Option<u64>,
}

/// This filer's read cache, since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cache {
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub hits: u64,
    pub misses: u64,
    /// Reads that went to the standby cloud, since the active one failed them.
    pub fallback_reads: u64,
}

/// A part of the filer that runs by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Task {
    pub name: String,
    /// In words, such as `running`.
    pub state: String,
    /// How long it has been so.
    pub since_ms: u64,
}

/// A decision on the clouds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DecisionRow {
    pub epoch: u64,
    pub ms_ago: u64,
    /// Name (or id) of the filer that proposed it.
    pub filer: String,
    pub text: String,
    /// Whether it was carried, or refused.
    pub carried: bool,
    /// Ballots of a trip, in words.
    pub ballots: Vec<String>,
}

/// A segment on record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SegmentRow {
    /// As logs have it.
    pub segment: String,
    /// The name of its object, below the CloudFS's prefix.
    pub key: String,
    /// Of files that refer to it.
    pub live_bytes: u64,
    /// Of its object; none until it is released.
    pub bytes: Option<u64>,
    /// Of its object, in hexadecimal.
    pub md5: Option<String>,
    /// Names of the clouds that gave a receipt.
    pub stored: Vec<String>,
    /// Names of the clouds that missed it.
    pub missed: Vec<String>,
}

/// A file on record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileRow {
    pub ino: u64,
    /// One of its names; bytes that are no UTF-8 are shown as U+FFFD.
    pub path: String,
    pub bytes: u64,
    pub extents: Vec<ExtentRow>,
}

/// A piece of a file: `len` bytes at `offset` are the bytes at `skip` of one decoded frame of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExtentRow {
    /// In the file, in bytes.
    pub offset: u64,
    /// In bytes.
    pub len: u64,
    /// As logs have it.
    pub segment: String,
    /// The name of the segment's object, below the CloudFS's prefix.
    pub key: String,
    /// Where the frame begins in the object, in bytes.
    pub frame_at: u64,
    /// The frame's length in the object, in bytes.
    pub frame_len: u64,
    /// Where the data begins in the decoded frame, in bytes.
    pub skip: u64,
}

/// A part of a long list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    pub rows: Vec<T>,
    /// What to pass as `after` for the next page; `None` at the end.
    pub next: Option<String>,
}
