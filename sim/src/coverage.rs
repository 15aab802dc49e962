//! What happened in a run, by name. A scene that never happened is shown as 0, not hidden.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// Everything that is counted.
pub const NAMES: &[&str] = &[
    "operations",
    "unknown outcomes",
    "reads verified",
    "bytes verified",
    "names verified",
    "files written by another site",
    "files renamed",
    "files removed",
    "reasons to trip",
    "trips",
    "trips for slowness",
    "failovers",
    "refused trips",
    "standby failures",
    "resyncs",
    "resyncs finished",
    "failures in a resync",
    "failbacks",
    "operator failovers",
    "operator failbacks",
    "operator refusals",
    "crashes",
    "crashes at an effect",
    "crashes in a sync",
    "crashes in a recovery",
    "crashes of the leader",
    "crashes of the leader in a resync",
    "filers lost",
    "files lost with their filer",
    "filers added",
    "partitions",
    "one-way cuts",
    "flapping links",
    "slow links",
    "lossy links",
    "duplicated calls",
    "cloud outages",
    "both clouds out",
    "one of both clouds back first",
    "brown-outs",
    "5xx answers",
    "throttled answers",
    "unforeseen answers",
    "calls of a bad shard",
    "reset connections",
    "timeouts, put happened",
    "timeouts, put lost",
    "timeouts of other calls",
    "late puts",
    "wrong MD5s",
    "truncated reads",
    "flipped reads",
    "objects lost",
    "cloud cut off from one site",
    "credentials revoked",
    "torn writes",
    "tables rolled back",
    "reads behind a crash",
    "slow syncs",
    "full disks",
    "writes without room",
    "staging bits flipped",
    "staging sectors unreadable",
    "staged frames lost at a put",
    "files with a lost part",
    "cache bits flipped",
    "cache sectors unreadable",
    "clock skews",
    "clock jumps",
    "agreed time much ahead",
    "fallback reads",
    "faults not carried out",
    "copies repaired",
    "damaged copies noticed",
];

/// The counters of a run. A clone is another handle.
#[derive(Clone)]
pub struct Coverage(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Default for Coverage {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(NAMES.iter().map(|name| (*name, 0)).collect())))
    }
}

impl Coverage {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.0.lock().expect("no counter panics")
    }

    /// Counts one more.
    pub fn hit(&self, name: &'static str) {
        self.add(name, 1);
    }

    /// Counts so many more.
    ///
    /// # Panics
    /// When the name is not in [`NAMES`].
    pub fn add(&self, name: &'static str, more: u64) {
        let mut counters = self.lock();
        *counters.get_mut(name).unwrap_or_else(|| panic!("{name} is not among the names of what is counted")) += more;
    }

    /// All counters, in the order of [`NAMES`].
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        let counters = self.lock();
        NAMES.iter().map(|name| (*name, counters[name])).collect()
    }
}
