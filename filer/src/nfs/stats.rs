//! What the NFS door counts.

use super::admission::KINDS;
use nfs3_types::nfs3::nfsstat3;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// NFS procedures by number.
pub const PROCEDURES: [&str; 22] = [
    "null",
    "getattr",
    "setattr",
    "lookup",
    "access",
    "readlink",
    "read",
    "write",
    "create",
    "mkdir",
    "symlink",
    "mknod",
    "remove",
    "rmdir",
    "rename",
    "link",
    "readdir",
    "readdirplus",
    "fsstat",
    "fsinfo",
    "pathconf",
    "commit",
];

/// Upper bounds of the latency buckets, in microseconds; a last bucket has none.
pub const LATENCY_BOUNDS_US: [u64; 11] =
    [100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000];

/// Procedures of similar cost.
pub const CLASSES: [&str; 5] = ["attributes", "read", "write", "names", "directories"];

fn class_of(procedure: usize) -> usize {
    match PROCEDURES[procedure] {
        "read" | "readlink" => 1,
        "write" | "commit" => 2,
        "create" | "mkdir" | "symlink" | "mknod" | "remove" | "rmdir" | "rename" | "link" | "setattr" => 3,
        "readdir" | "readdirplus" => 4,
        _ => 0,
    }
}

/// Errors that NFS has, in the order of their numbers.
const STATUSES: [nfsstat3; 29] = [
    nfsstat3::NFS3_OK,
    nfsstat3::NFS3ERR_PERM,
    nfsstat3::NFS3ERR_NOENT,
    nfsstat3::NFS3ERR_IO,
    nfsstat3::NFS3ERR_NXIO,
    nfsstat3::NFS3ERR_ACCES,
    nfsstat3::NFS3ERR_EXIST,
    nfsstat3::NFS3ERR_XDEV,
    nfsstat3::NFS3ERR_NODEV,
    nfsstat3::NFS3ERR_NOTDIR,
    nfsstat3::NFS3ERR_ISDIR,
    nfsstat3::NFS3ERR_INVAL,
    nfsstat3::NFS3ERR_FBIG,
    nfsstat3::NFS3ERR_NOSPC,
    nfsstat3::NFS3ERR_ROFS,
    nfsstat3::NFS3ERR_MLINK,
    nfsstat3::NFS3ERR_NAMETOOLONG,
    nfsstat3::NFS3ERR_NOTEMPTY,
    nfsstat3::NFS3ERR_DQUOT,
    nfsstat3::NFS3ERR_STALE,
    nfsstat3::NFS3ERR_REMOTE,
    nfsstat3::NFS3ERR_BADHANDLE,
    nfsstat3::NFS3ERR_NOT_SYNC,
    nfsstat3::NFS3ERR_BAD_COOKIE,
    nfsstat3::NFS3ERR_NOTSUPP,
    nfsstat3::NFS3ERR_TOOSMALL,
    nfsstat3::NFS3ERR_SERVERFAULT,
    nfsstat3::NFS3ERR_BADTYPE,
    nfsstat3::NFS3ERR_JUKEBOX,
];

/// Calls by how long they took.
#[derive(Debug, Default)]
struct Latency {
    buckets: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    us_total: AtomicU64,
}

/// The counters as they run.
#[derive(Debug, Default)]
pub struct Counters {
    calls: [AtomicU64; PROCEDURES.len()],
    statuses: [AtomicU64; STATUSES.len()],
    latency: [Latency; CLASSES.len()],
    latency_us_max: AtomicU64,
    pub(super) mount_calls: AtomicU64,
    pub(super) portmap_calls: AtomicU64,
    pub(super) refused_calls: AtomicU64,
    pub(super) refused_clients: AtomicU64,
    pub(super) bad_handles: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) read_bytes: AtomicU64,
    pub(super) written_bytes: AtomicU64,
    pub(super) connections_now: AtomicU64,
    pub(super) connections_total: AtomicU64,
    pub(super) connections_refused: AtomicU64,
    pub(super) garbage_closed: AtomicU64,
    pub(super) idle_closed: AtomicU64,
    pub(super) repeated_calls: AtomicU64,
    pub(super) calls_in_flight: AtomicU64,
    /// By kind, see `admission`.
    pub(super) bytes_in_flight: [AtomicU64; KINDS.len()],
    pub(super) turned_away: [AtomicU64; KINDS.len()],
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    /// A finished NFS call. `procedure` is below `PROCEDURES.len()`.
    pub(super) fn finished(&self, procedure: usize, status: nfsstat3, took: Duration) {
        count(&self.calls[procedure]);
        let status = STATUSES.iter().position(|known| *known == status).expect("all statuses are listed");
        count(&self.statuses[status]);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let latency = &self.latency[class_of(procedure)];
        count(&latency.buckets[LATENCY_BOUNDS_US.partition_point(|bound| *bound < us)]);
        latency.us_total.fetch_add(us, Ordering::Relaxed);
        self.latency_us_max.fetch_max(us, Ordering::Relaxed);
    }

    /// The counters of this moment.
    pub fn snapshot(&self) -> NfsStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let latency = CLASSES.iter().zip(&self.latency).map(|(class, latency)| {
            let buckets = std::array::from_fn(|index| get(&latency.buckets[index]));
            (*class, Histogram { buckets, us_total: get(&latency.us_total) })
        });
        let errors =
            STATUSES.iter().zip(&self.statuses).skip(1).map(|(status, calls)| (status.to_string(), get(calls)));
        NfsStats {
            calls: PROCEDURES.iter().copied().zip(self.calls.iter().map(get)).collect(),
            errors: errors.filter(|(_, calls)| *calls > 0).collect(),
            latency: latency.collect(),
            latency_us_max: get(&self.latency_us_max),
            mount_calls: get(&self.mount_calls),
            portmap_calls: get(&self.portmap_calls),
            refused_calls: get(&self.refused_calls),
            refused_clients: get(&self.refused_clients),
            bad_handles: get(&self.bad_handles),
            bytes_in: get(&self.bytes_in),
            bytes_out: get(&self.bytes_out),
            read_bytes: get(&self.read_bytes),
            written_bytes: get(&self.written_bytes),
            connections_now: get(&self.connections_now),
            connections_total: get(&self.connections_total),
            connections_refused: get(&self.connections_refused),
            garbage_closed: get(&self.garbage_closed),
            idle_closed: get(&self.idle_closed),
            repeated_calls: get(&self.repeated_calls),
            calls_in_flight: get(&self.calls_in_flight),
            bytes_in_flight: KINDS.iter().copied().zip(self.bytes_in_flight.iter().map(get)).collect(),
            turned_away: KINDS.iter().copied().zip(self.turned_away.iter().map(get)).collect(),
        }
    }
}

/// How long the calls of a class took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Histogram {
    /// Calls by [`LATENCY_BOUNDS_US`], the last one without a bound; not cumulative.
    pub buckets: [u64; LATENCY_BOUNDS_US.len() + 1],
    /// All together, in microseconds.
    pub us_total: u64,
}

/// What was counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NfsStats {
    /// NFS calls by procedure.
    pub calls: BTreeMap<&'static str, u64>,
    /// NFS calls that failed, by status, such as `NFS3ERR_NOENT`.
    pub errors: BTreeMap<String, u64>,
    /// By class of procedures ([`CLASSES`]).
    pub latency: BTreeMap<&'static str, Histogram>,
    /// The longest call, in microseconds.
    pub latency_us_max: u64,
    pub mount_calls: u64,
    pub portmap_calls: u64,
    /// Calls refused by RPC itself: unknown programs, versions or procedures, bad credentials or arguments.
    pub refused_calls: u64,
    /// Calls and mounts refused since the export is not for the client's network.
    pub refused_clients: u64,
    /// Calls with a handle that this CloudFS never gave out: made up, damaged, or of another CloudFS.
    pub bad_handles: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Data of READ.
    pub read_bytes: u64,
    /// Data of WRITE.
    pub written_bytes: u64,
    pub connections_now: u64,
    pub connections_total: u64,
    /// Connections closed at once, since there were too many.
    pub connections_refused: u64,
    /// Connections closed since they sent no RPC, or too long a record.
    pub garbage_closed: u64,
    pub idle_closed: u64,
    /// Repeated calls that got the reply of the first.
    pub repeated_calls: u64,
    pub calls_in_flight: u64,
    /// Bytes of calls and answers held now, by kind: `read`, `write`, `change`, `look`.
    pub bytes_in_flight: BTreeMap<&'static str, u64>,
    /// Calls told to ask later since there was no room for their kind.
    pub turned_away: BTreeMap<&'static str, u64>,
}

impl NfsStats {
    /// The sums, each with its name and meaning, for monitoring.
    pub fn numbers(&self) -> Vec<(&'static str, &'static str, f64)> {
        let calls: u64 = self.calls.values().sum();
        let errors: u64 = self.errors.values().sum();
        let of = |kinds: &BTreeMap<&'static str, u64>, kind: &str| kinds.get(kind).copied().unwrap_or(0) as f64;
        let (held, turned_away) = (|kind| of(&self.bytes_in_flight, kind), |kind| of(&self.turned_away, kind));
        vec![
            ("nfs_calls", "NFS calls answered", calls as f64),
            ("nfs_errors", "NFS calls answered with an error", errors as f64),
            ("nfs_refused_calls", "Calls refused by RPC itself", self.refused_calls as f64),
            ("nfs_refused_clients", "Calls of clients that no export admits", self.refused_clients as f64),
            ("nfs_bad_handles", "Calls with handles that this CloudFS never gave out", self.bad_handles as f64),
            ("nfs_read_bytes", "Data of READ", self.read_bytes as f64),
            ("nfs_written_bytes", "Data of WRITE", self.written_bytes as f64),
            ("nfs_connections", "Connections open now", self.connections_now as f64),
            ("nfs_garbage_connections", "Connections closed since they sent no RPC", self.garbage_closed as f64),
            ("nfs_repeated_calls", "Repeated calls that got the first one's reply", self.repeated_calls as f64),
            ("nfs_calls_in_flight", "Calls at work now", self.calls_in_flight as f64),
            ("nfs_read_bytes_in_flight", "Bytes held for reads and listings", held("read")),
            ("nfs_write_bytes_in_flight", "Bytes held for writes and commits", held("write")),
            ("nfs_change_bytes_in_flight", "Bytes held for changes of names and attributes", held("change")),
            ("nfs_look_bytes_in_flight", "Bytes held for looks at names and attributes", held("look")),
            ("nfs_reads_turned_away", "Reads told to ask later for want of room", turned_away("read")),
            ("nfs_writes_turned_away", "Writes told to ask later for want of room", turned_away("write")),
            ("nfs_changes_turned_away", "Changes told to ask later for want of room", turned_away("change")),
            ("nfs_looks_turned_away", "Looks told to ask later for want of room", turned_away("look")),
            ("nfs_longest_call_seconds", "The longest call", self.latency_us_max as f64 / 1e6),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_procedure_status_and_latency() {
        let counters = Counters::default();
        counters.finished(6, nfsstat3::NFS3_OK, Duration::from_micros(100));
        counters.finished(6, nfsstat3::NFS3ERR_STALE, Duration::from_micros(101));
        counters.finished(14, nfsstat3::NFS3ERR_JUKEBOX, Duration::from_secs(100));
        let stats = counters.snapshot();
        assert_eq!((stats.calls["read"], stats.calls["rename"], stats.calls["null"]), (2, 1, 0));
        let errors = BTreeMap::from([("NFS3ERR_STALE".to_owned(), 1), ("NFS3ERR_JUKEBOX".to_owned(), 1)]);
        assert_eq!(stats.errors, errors);
        assert_eq!(stats.latency["read"].buckets[..3], [1, 1, 0]);
        assert_eq!(stats.latency["names"].buckets[LATENCY_BOUNDS_US.len()], 1);
        assert_eq!((stats.latency["read"].us_total, stats.latency_us_max), (201, 100_000_000));
    }
}
