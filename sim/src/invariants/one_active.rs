//! There is one active cloud per epoch, agreed by all, and it is consistent; and who trips a cloud has seen it fail under
//! the very roles that the trip changes.
//!
//! Why it matters: if two filers held different clouds for active, one would read from a cloud that lacks what the other
//! released; a CloudFS on a cloud that has missed something serves yesterday's files; and a trip of yesterday fails a cloud
//! that the mesh has judged anew since.

use mesh::FilerId;
use std::collections::BTreeMap;
use storage::{
    cloudfs::{CloudState, Decision, Roles},
    ids::CloudId,
};

/// What must be the same at every filer in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Agreed {
    active: CloudId,
    preferred: CloudId,
    states: [CloudState; 2],
}

/// An epoch that nobody had seen.
pub struct News {
    /// What it brought, as coverage counts it.
    pub events: Vec<&'static str>,
}

/// Whether the filer whose trip carried had seen the cloud fail in the epoch that the trip ended.
pub fn tripped_in_time(trip: &Decision) -> Result<(), String> {
    match trip.ballots.iter().find(|ballot| ballot.filer == trip.filer) {
        Some(ballot) if ballot.epoch.0 + 1 != trip.epoch.0 => Err(format!(
            "filer {} saw cloud {} fail in epoch {}, and its trip has begun epoch {}",
            trip.filer, trip.cloud, ballot.epoch, trip.epoch
        )),
        _ => Ok(()),
    }
}

/// The check.
#[derive(Default)]
pub struct OneActive {
    by_epoch: BTreeMap<u64, Agreed>,
}

impl OneActive {
    /// A filer has these roles.
    pub fn roles(&mut self, filer: FilerId, roles: &Roles) -> Result<Option<News>, String> {
        let active = roles.cloud(roles.active);
        let missed = active.missed_puts + active.missed_deletes;
        if active.state != CloudState::Healthy || missed > 0 {
            return Err(format!(
                "filer {filer}, epoch {}: the active cloud {} is {:?} and misses {missed}",
                roles.epoch, roles.active, active.state
            ));
        }
        let states = roles.clouds.each_ref().map(|cloud| cloud.state);
        let agreed = Agreed { active: roles.active, preferred: roles.preferred, states };
        if let Some(known) = self.by_epoch.get(&roles.epoch.0) {
            if *known != agreed {
                return Err(format!("epoch {} is {agreed:?} at filer {filer}, and {known:?} at another", roles.epoch));
            }
            return Ok(None);
        }
        let before = roles.epoch.0.checked_sub(1).and_then(|epoch| self.by_epoch.get(&epoch));
        let events = before.map(|before| events(before, &agreed)).unwrap_or_default();
        self.by_epoch.insert(roles.epoch.0, agreed);
        Ok(Some(News { events }))
    }
}

fn events(before: &Agreed, now: &Agreed) -> Vec<&'static str> {
    let mut events = Vec::new();
    let moved = before.active != now.active;
    let mut failed = false;
    for cloud in CloudId::BOTH.map(CloudId::index) {
        match (before.states[cloud], now.states[cloud]) {
            (CloudState::Healthy | CloudState::Resyncing, CloudState::Failed) => {
                failed = true;
                events.push("trips");
                events.push(if moved { "failovers" } else { "standby failures" });
                if before.states[cloud] == CloudState::Resyncing {
                    events.push("failures in a resync");
                }
            }
            (CloudState::Failed, CloudState::Resyncing) => events.push("resyncs"),
            (CloudState::Resyncing, CloudState::Healthy) => events.push("resyncs finished"),
            _ => {}
        }
    }
    if moved && !failed {
        events.push(if now.active == now.preferred { "failbacks" } else { "operator failovers" });
    }
    events
}
