//! There is one active cloud per epoch, agreed by all; and who trips a cloud has seen it fail under the very roles that the trip
//! changes.
//!
//! Why it matters: if two filers held different clouds for active, one would read from a cloud that lacks what the other
//! released; and a trip of yesterday fails a cloud that the mesh has judged anew since.

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
    /// The same in words for people.
    pub told: String,
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
        let told = told(&events, &agreed, before);
        self.by_epoch.insert(roles.epoch.0, agreed);
        Ok(Some(News { events: events.into_iter().map(|(event, _)| event).collect(), told }))
    }
}

/// What an epoch brought, and the cloud that each of it is about.
fn events(before: &Agreed, now: &Agreed) -> Vec<(&'static str, CloudId)> {
    let mut events = Vec::new();
    let moved = before.active != now.active;
    let mut failed = false;
    for cloud in CloudId::BOTH {
        match (before.states[cloud.index()], now.states[cloud.index()]) {
            (CloudState::Healthy | CloudState::Resyncing, CloudState::Failed) => {
                failed = true;
                events.push(("trips", cloud));
                events.push((if moved { "failovers" } else { "standby failures" }, cloud));
                if before.states[cloud.index()] == CloudState::Resyncing {
                    events.push(("failures in a resync", cloud));
                }
            }
            (CloudState::Failed, CloudState::Resyncing) => events.push(("resyncs", cloud)),
            (CloudState::Resyncing, CloudState::Healthy) => events.push(("resyncs finished", cloud)),
            _ => {}
        }
    }
    if moved && !failed {
        events.push((if now.active == now.preferred { "failbacks" } else { "operator failovers" }, now.active));
    }
    events
}

fn told(events: &[(&'static str, CloudId)], now: &Agreed, before: Option<&Agreed>) -> String {
    let named = |cloud: CloudId| format!("cloud {}", cloud.to_string().to_uppercase());
    let active = named(now.active);
    let one = |(event, cloud): &(&str, CloudId)| {
        let cloud = named(*cloud);
        match *event {
            "trips" => Some(format!("{cloud} has failed")),
            "failovers" => Some(format!("all move to {active}")),
            "failures in a resync" => Some("while it got what it had missed".into()),
            "resyncs" => Some(format!("{cloud} is back, and gets what it has missed")),
            "resyncs finished" => Some(format!("{cloud} has got all that it had missed")),
            "failbacks" => Some(format!("all go back to {active}, which is preferred")),
            "operator failovers" => Some(format!("an operator moves all to {active}")),
            _ => None,
        }
    };
    let all: Vec<String> = events.iter().filter_map(one).collect();
    match (before, all.is_empty()) {
        (None, _) => format!("the file system begins, {active} is active"),
        (Some(_), true) => format!("who holds which role is settled anew, {active} stays active"),
        (Some(before), false) if before.active == now.active => format!("{}; {active} stays active", all.join(", ")),
        (Some(_), false) => all.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CloudState::{Failed, Healthy, Resyncing};
    use storage::ids::CloudId::{A, B};

    #[test]
    fn epochs_are_told_in_words() {
        let agreed = |active, states| Agreed { active, preferred: A, states };
        let told = |before: Agreed, now: Agreed| told(&events(&before, &now), &now, Some(&before));
        let well = agreed(A, [Healthy; 2]);
        assert_eq!(told(well, agreed(B, [Failed, Healthy])), "cloud A has failed, all move to cloud B");
        assert_eq!(told(well, agreed(A, [Healthy, Failed])), "cloud B has failed; cloud A stays active");
        assert_eq!(
            told(agreed(B, [Failed, Healthy]), agreed(B, [Resyncing, Healthy])),
            "cloud A is back, and gets what it has missed; cloud B stays active"
        );
        assert_eq!(
            told(agreed(B, [Resyncing, Healthy]), agreed(B, [Failed, Healthy])),
            "cloud A has failed, while it got what it had missed; cloud B stays active"
        );
        assert_eq!(told(agreed(B, [Healthy; 2]), well), "all go back to cloud A, which is preferred");
        assert_eq!(told(well, agreed(B, [Healthy; 2])), "an operator moves all to cloud B");
    }
}
