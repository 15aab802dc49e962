//! What the invariants see of a run while it goes on, and what is wrong first.

use crate::{
    coverage::Coverage,
    invariants::{
        AttemptId, CountedOnce, Ended, OneActive, ProbesOnly, SLOW, active_is_consistent, right_put, tripped_in_time,
    },
    recording::{Lane, Recording},
    trace::{Trace, moment},
};
use mesh::{FilerId, kv::MemoryKv};
use serde::{Deserialize, Serialize};
use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering::Relaxed},
};
use storage::{
    cloudfs::{Roles, read},
    health::Settings,
    ids::{CloudId, Md5},
};
use tokio::sync::Notify;

/// An invariant does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    pub invariant: String,
    pub what: String,
    /// Virtual milliseconds since the run began.
    pub at_ms: u64,
}

impl Violation {
    /// Whether another run fails as this one does. A panic is told with its place first, and is another one elsewhere.
    pub fn is_like(&self, other: &Self) -> bool {
        let place = |violation: &Self| violation.what.split_once(": ").map(|(place, _)| place.to_string());
        self.invariant == other.invariant && (self.invariant != "nothing panics" || place(self) == place(other))
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}: {}", self.invariant, moment(self.at_ms), self.what)
    }
}

#[derive(Default)]
struct Checks {
    one_active: OneActive,
    probes_only: ProbesOnly,
    counted_once: CountedOnce,
}

struct State {
    checks: Mutex<Checks>,
    violation: Mutex<Option<Violation>>,
    violated: AtomicBool,
    ended: Notify,
}

/// The watch of a run. A clone is another handle.
#[derive(Clone)]
pub struct Watch {
    state: Arc<State>,
    trace: Trace,
    coverage: Coverage,
    recording: Recording,
    /// Consecutive failures that trip a cloud.
    failures_to_trip: u64,
    /// Answers that take so long are slow, in milliseconds.
    slow_ms: u64,
}

impl Watch {
    /// A watch that has seen nothing yet.
    pub fn new(trace: Trace, coverage: Coverage, recording: Recording, health: &Settings) -> Self {
        let (checks, violation, violated, ended) = Default::default();
        let state = Arc::new(State { checks, violation, violated, ended });
        Self {
            state,
            trace,
            coverage,
            recording,
            failures_to_trip: health.failures_to_trip.into(),
            slow_ms: health.slow_ms,
        }
    }

    fn checks(&self) -> MutexGuard<'_, Checks> {
        self.state.checks.lock().expect("no check panics")
    }

    /// Says that an invariant does not hold. The first word counts.
    pub fn violate(&self, invariant: &str, what: String) {
        let at_ms = self.trace.now_ms();
        self.trace.note("VIOLATION", format_args!("{invariant}: {what}"));
        self.recording.mark(Lane::World, at_ms, format!("VIOLATION: {invariant}: {what}"));
        let mut violation = self.state.violation.lock().expect("no holder of the violation panics");
        if violation.is_none() {
            *violation = Some(Violation { invariant: invariant.into(), what, at_ms });
            self.state.violated.store(true, Relaxed);
            self.state.ended.notify_one();
        }
    }

    fn judge(&self, invariant: &str, verdict: Result<(), String>) {
        if let Err(what) = verdict {
            self.violate(invariant, what);
        }
    }

    /// Whether something is wrong already.
    pub fn is_violated(&self) -> bool {
        self.state.violated.load(Relaxed)
    }

    /// What is wrong.
    pub fn violation(&self) -> Option<Violation> {
        self.state.violation.lock().expect("no holder of the violation panics").clone()
    }

    /// Returns when something is wrong. For one waiter.
    pub async fn violated(&self) {
        self.state.ended.notified().await;
    }

    /// A filer's tables were written.
    pub fn tables_changed(&self, filer: FilerId, tables: &MemoryKv) {
        let Ok(Some(roles)) = read::roles(tables) else {
            return;
        };
        let now_ms = self.trace.now_ms();
        self.judge("never on an inconsistent cloud", active_is_consistent(filer, &roles));
        let mut checks = self.checks();
        checks.probes_only.roles(now_ms, filer, &roles);
        let verdict = checks.one_active.roles(filer, &roles);
        drop(checks);
        match verdict {
            Ok(Some(news)) => {
                news.events.iter().for_each(|event| self.coverage.hit(event));
                self.trace.note(filer, format_args!("epoch {}", roles.epoch));
                self.recording.mark(Lane::World, now_ms, decided(tables, &roles, &news.told));
                if news.events.contains(&"trips") {
                    self.check_reason(tables, &roles);
                }
            }
            Ok(None) => {}
            Err(what) => self.violate("one active cloud", what),
        }
        self.checks().counted_once.roles(now_ms, filer, &roles);
    }

    /// A filer begins a run: what it knew before is not what it knows now.
    pub fn filer_started(&self, filer: FilerId) {
        let mut checks = self.checks();
        checks.probes_only.forget(filer);
        checks.counted_once.forget(filer);
    }

    /// A filer sends a cloud something.
    pub fn cloud_called(&self, filer: FilerId, cloud: CloudId, (key, of_piece): (&str, bool), attempt: AttemptId) {
        let now_ms = self.trace.now_ms();
        self.checks().counted_once.called(now_ms, filer, cloud, (key, of_piece), attempt);
        let verdict = self.checks().probes_only.called(now_ms, filer, cloud, key);
        self.judge("a failed cloud is sent nothing but probes", verdict);
    }

    /// A filer's call to a cloud ended, and it has heard so.
    pub fn call_ended(&self, filer: FilerId, cloud: CloudId, ended: &Ended<'_>) {
        let in_a_row = self.checks().counted_once.ended(self.trace.now_ms(), filer, cloud, ended);
        if in_a_row == self.failures_to_trip && ended.failed {
            self.coverage.hit("reasons to trip");
        }
    }

    /// A filer's put arrived, with this MD5 and with a body of that one.
    pub fn put_arrived(&self, filer: FilerId, cloud: CloudId, key: &str, expected: Md5, got: Md5) {
        self.judge("what is put is what its MD5 says", right_put(filer, cloud, key, expected, got));
    }

    /// What a filer says of itself: how often its attempts failed.
    pub fn counted(&self, filer: FilerId, cloud: CloudId, failures_total: u64) {
        let verdict = self.checks().counted_once.compare(filer, cloud, failures_total);
        self.judge("failures are counted once", verdict);
    }

    /// A trip carried: its filer must have seen what it says, and under the roles of then.
    fn check_reason(&self, tables: &MemoryKv, roles: &Roles) {
        let decisions = read::decisions(tables, 8).unwrap_or_default();
        let trip = decisions.into_iter().find(|past| past.carried && past.epoch == roles.epoch);
        let Some(trip) = trip else {
            return self.violate("failures are counted once", format!("epoch {} has no decision", roles.epoch));
        };
        if trip.text.contains(SLOW) {
            self.coverage.hit("trips for slowness");
        }
        self.judge("one active cloud", tripped_in_time(&trip));
        let verdict = self.checks().counted_once.tripped(
            trip.filer,
            trip.cloud,
            &trip.text,
            (self.failures_to_trip, self.slow_ms),
        );
        self.judge("failures are counted once", verdict);
    }
}

/// A new epoch in words for people.
fn decided(tables: &MemoryKv, roles: &Roles, told: &str) -> String {
    let decisions = read::decisions(tables, 8).unwrap_or_default();
    let why = decisions.into_iter().find(|past| past.carried && past.epoch == roles.epoch);
    let why = why.map(|past| format!(" (filer {}: {})", past.filer.0, past.text)).unwrap_or_default();
    format!("epoch {}: {told}{why}", roles.epoch)
}
