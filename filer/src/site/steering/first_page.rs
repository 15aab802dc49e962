//! The first page: how the CloudFS is, as this filer sees it, and whether one more cloud may fail without harm; with the
//! numbers that monitoring gets beside it.
//!
//! Owns: what is on the page, from where. Does not own: its form (`admin::status`), how it is printed (`cli::page`).

use super::{Site, name_in};
use crate::{
    actors::{
        health::Views,
        mirror::Receipts,
        resync::{Deletes, Progresses},
    },
    admin::{
        Extra, Status,
        status::{
            Cache, Certificate, Cloud, Dead, Failing, FilerName, Peer, Resync, RevokedRow, Role, Serving, Staging, Task,
        },
    },
    site::{certificate_left_ms, far::is_far, removed},
    wire,
};
use mesh::{
    FilerId,
    consensus::{Revoked, RevokedList},
    net::MeshStats,
    peers::Peers,
    words::{counted, span},
};
use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed};
use storage::{
    cloudfs::{CloudState, Roles, leaving, read},
    health::Streak,
    ids::{CloudId, SegmentId},
};

/// Decisions on the first page.
const DECISIONS_SHOWN_MAX: usize = 10;

impl Site {
    /// As [`Steering::status`](crate::admin::Steering::status) says.
    pub(super) async fn first_page(&self) -> Status {
        let consensus = self.filer.consensus.status();
        let removed = removed::words(self.filer.who.me, &consensus, &self.mesh.removed_by());
        let names = self.names();
        let staging = self.filer.staging.status();
        let stats = &self.filer.reader.stats;
        let alive = |name: &str, alive: bool| Task {
            name: name.into(),
            state: if alive { "running" } else { "stopped" }.into(),
            since_ms: self.filer.up_ms(),
        };
        let actors = &self.filer.actors;
        let mut status = Status {
            filer: FilerName { id: self.filer.who.me.to_string(), name: self.config.name.clone() },
            cloudfs: format!("{:016x}", self.filer.who.cloudfs),
            version: env!("CARGO_PKG_VERSION").into(),
            up_ms: self.filer.up_ms(),
            has_majority: consensus.leader.is_some(),
            majority_ms_ago: consensus.majority_ms_ago,
            leader: consensus.leader.map(|id| name_in(&names, id)),
            term: consensus.term,
            applied: consensus.applied,
            peers: self.peers(),
            removed,
            removed_filers: consensus.removed.iter().map(FilerId::to_string).collect(),
            certificate: self.certificate(&consensus.revoked),
            revoked: consensus.revoked.into_values().map(revoked_row).collect(),
            dead: self.dead().await,
            staging: Staging {
                bytes: staging.bytes,
                bytes_max: self.filer.staging.bytes_max(),
                segments: staging.segments,
                oldest_unprotected_ms: staging.oldest_wall_ns.map(|ns| self.filer.ms_since(ns)),
            },
            serving: self.serving(),
            cache: Cache {
                memory_bytes: self.filer.reader.memory_bytes(),
                disk_bytes: self.filer.disk_cache.bytes(),
                hits: stats.memory_hits.load(Relaxed) + stats.disk_hits.load(Relaxed),
                misses: stats.cloud_reads.load(Relaxed) + stats.origin_reads.load(Relaxed),
                fallback_reads: stats.fallback_reads.load(Relaxed),
            },
            tasks: vec![
                alive("cache", actors.cache.connected()),
                alive(&format!("connector {}", self.cloud_name(CloudId::A)), actors.connectors[0].connected()),
                alive(&format!("connector {}", self.cloud_name(CloudId::B)), actors.connectors[1].connected()),
                alive("health", actors.health.connected()),
                alive("mirror", actors.mirror.connected()),
                alive("resync", actors.resync.connected()),
                alive("mesh", actors.mesh.connected()),
                alive("replicated log", self.filer.consensus.stopped().is_none()),
            ],
            ..Status::default()
        };
        if let Some(roles) = self.filer.roles.get() {
            status.epoch = roles.epoch.0;
            status.active = self.cloud_name(roles.active).into();
            status.preferred = self.cloud_name(roles.preferred).into();
            status.clouds = self.clouds(&roles).await;
            let doubts = || doubt(&status.clouds, &status.peers, self.config.health.failures_to_warn);
            status.why_not = self.why_not(&roles, status.has_majority).or_else(doubts);
            status.absorbs_failure = status.why_not.is_none();
            status.decisions = self.decision_rows(DECISIONS_SHOWN_MAX).unwrap_or_default();
        } else {
            status.why_not = Some("the CloudFS's roles are not known yet".into());
        }
        status
    }

    /// Numbers for monitoring beside those of the page.
    pub(super) fn numbers(&self) -> Vec<Extra> {
        let (stats, staging) = (&self.filer.reader.stats, self.filer.staging.status());
        let mut extra: Vec<Extra> = vec![
            ("damaged_copies", "Local copies that failed their checksum", stats.damaged.load(Relaxed) as f64),
            (
                "staging_damaged_frames",
                "Pieces in staging that the disk was found to have damaged",
                staging.damaged_frames as f64,
            ),
            ("staging_damaged_bytes", "Bytes of such pieces", staging.damaged_bytes as f64),
            (
                "origin_reads",
                "Reads answered by the filer that wrote the data",
                stats.origin_reads.load(Relaxed) as f64,
            ),
            ("cloud_reads", "Reads of a cloud", stats.cloud_reads.load(Relaxed) as f64),
        ];
        extra.extend(mesh_numbers(&self.mesh.stats()));
        if let Some(nfs) = &self.nfs {
            extra.extend(nfs.snapshot().numbers());
        }
        extra
    }

    fn peers(&self) -> Vec<Peer> {
        let status = self.filer.consensus.status();
        let sessions: BTreeMap<_, _> = self.mesh.status().into_iter().map(|peer| (peer.id, peer)).collect();
        let reports = self.filer.reports.lock().expect("no holder of the reports panics").clone();
        let me = self.filer.who.me;
        let staging = self.filer.staging.status();
        let leaving = leaving(&*self.filer.world.kv).unwrap_or_default();
        let members = status.voters.iter().map(|member| (member, true));
        let mut peers: Vec<_> = members
            .chain(status.learners.iter().map(|member| (member, false)))
            .map(|((id, member), voter)| {
                let (this, session, report) = (*id == me, sessions.get(id), reports.get(id));
                Peer {
                    id: id.to_string(),
                    name: member.name.clone(),
                    address: member.address.clone(),
                    this,
                    leader: status.leader == Some(*id),
                    voter,
                    leaving: leaving.contains(id),
                    connected: this || session.is_some_and(|session| session.connected),
                    heard_ms_ago: if this { Some(0) } else { session.and_then(|session| session.heard_ms_ago) },
                    rtt_us: session.and_then(|session| session.rtt_us),
                    far: is_far(session.and_then(|session| session.rtt_us), self.config.mesh.election_ms_min),
                    last_error: session.and_then(|session| session.last_error.clone()),
                    staged_bytes: if this { Some(staging.bytes) } else { report.map(|(r, _)| r.staged_bytes) },
                    oldest_unprotected_ms: if this {
                        staging.oldest_wall_ns.map(|ns| self.filer.ms_since(ns))
                    } else {
                        let aged = |(report, at): &(wire::Report, tokio::time::Instant)| {
                            report.oldest_unprotected_ms.map(|ms| ms + at.elapsed().as_millis() as u64)
                        };
                        report.and_then(aged)
                    },
                    epoch: if this {
                        self.filer.roles.get().map(|roles| roles.epoch.0)
                    } else {
                        report.map(|(report, _)| report.epoch)
                    },
                    version: if this {
                        Some(env!("CARGO_PKG_VERSION").into())
                    } else {
                        report.map(|(report, _)| report.version.clone())
                    },
                    certificate: self.certificate_of_session(*id, &status.revoked),
                }
            })
            .collect();
        peers.sort_by_key(|peer| !peer.this);
        peers
    }

    fn serving(&self) -> Serving {
        let (freshness, undecided) = (self.filer.vfs.freshness(), self.filer.door.undecided());
        Serving {
            may_be_old: freshness.may_be_old,
            old_answers: freshness.old_answers,
            confirmed_ms_ago: freshness.confirmed_ms_ago,
            undecided_changes: undecided.operations as u64,
            oldest_undecided_ms: undecided.oldest_ms,
        }
    }

    async fn dead(&self) -> Dead {
        let totals = read::totals(&*self.filer.world.kv).unwrap_or_default();
        let undeleted = self.filer.actors.resync.send(Deletes).await.unwrap_or_default();
        let why = undeleted.why.map(|why| self.named(&why));
        Dead { segments: totals.dead_segments, undeleted: undeleted.segments as u64, why }
    }

    fn certificate(&self, revoked: &RevokedList) -> Certificate {
        let identity = self.mesh.identity();
        self.certificate_row(identity.serial(), identity.not_after_s(), revoked)
    }

    /// This filer's own certificate, or the one that a peer has shown with which a session stands.
    fn certificate_of_session(&self, filer: FilerId, revoked: &RevokedList) -> Option<Certificate> {
        if filer == self.filer.who.me {
            return Some(self.certificate(revoked));
        }
        let shown = self.mesh.certificates().remove(&filer)?;
        Some(self.certificate_row(&shown.serial, shown.not_after_s, revoked))
    }

    fn certificate_row(&self, serial: &str, not_after_s: i64, revoked: &RevokedList) -> Certificate {
        let left_ms = certificate_left_ms(not_after_s);
        let ends_soon = left_ms <= self.config.mesh.certificate_warn_ms;
        Certificate { serial: serial.into(), left_ms, ends_soon, revoked: revoked.contains_key(serial) }
    }

    async fn clouds(&self, roles: &Roles) -> Vec<Cloud> {
        let health = self.filer.actors.health.send(Views).await.ok();
        let progress = self.filer.actors.resync.send(Progresses).await.ok();
        let receipts = self.filer.actors.mirror.send(Receipts).await.unwrap_or_default();
        let unreleased = self.filer.staging.unreleased();
        let names = self.names();
        let order = [roles.preferred, roles.preferred.other()];
        let show = |cloud: CloudId| {
            let (status, entry) = (roles.cloud(cloud), self.config.clouds.entry(cloud));
            let role = if roles.active == cloud { Role::Active } else { Role::Standby };
            let mut shown = Cloud::new(&entry.name, entry.kind(), role);
            shown.place = entry.settings.place();
            shown.state = status.state;
            shown.since_ms_ago = self.filer.ms_since(status.since_ns);
            shown.why = status.why.clone();
            shown.held_by_operator = roles.held_by_operator && roles.active == cloud;
            shown.missed_puts = status.missed_puts;
            shown.missed_deletes = status.missed_deletes;
            let oldest = read::oldest_miss(&*self.filer.world.kv.view(), cloud).ok().flatten();
            shown.oldest_miss_ms = oldest.map(|miss| self.filer.ms_since(miss.since_ns));
            let lacks = |segment: &SegmentId| !receipts.get(segment).is_some_and(|given| given[cloud.index()]);
            let unprotected = unreleased.iter().filter(|(segment, _)| lacks(segment)).map(|(_, ns)| *ns).min();
            shown.oldest_unprotected_ms = unprotected.map(|ns| self.filer.ms_since(ns));
            shown.reached_by = status.reached_by.iter().map(|filer| name_in(&names, *filer)).collect();
            if let Some(health) = &health {
                let seen = &health[cloud.index()];
                shown.failing = seen.streak.map(|streak| failing(streak, self.config.health.failures_to_trip));
                shown.failures_now = seen.view.failures;
                shown.failures_total = seen.failures_total;
                if status.state != CloudState::Healthy || seen.streak.is_some() {
                    shown.why = shown.why.or_else(|| seen.last_failure.clone());
                }
            }
            shown.why = shown.why.or_else(|| self.greetings.why(cloud));
            if let Some(progress) = progress.filter(|_| status.state == CloudState::Resyncing) {
                let progress = progress[cloud.index()];
                shown.resync = Some(Resync {
                    rows_left: status.missed_puts + status.missed_deletes,
                    rows_done: progress.rows_done,
                    bytes_done: progress.bytes_done,
                    since_ms: shown.since_ms_ago,
                });
            }
            shown
        };
        order.map(show).into()
    }

    /// Whether one more cloud may fail without harm, or why not.
    fn why_not(&self, roles: &Roles, has_majority: bool) -> Option<String> {
        let standby = roles.standby();
        let (name, status) = (self.cloud_name(standby), roles.cloud(standby));
        let active = roles.cloud(roles.active);
        if !has_majority {
            Some("this filer sees no majority of the filers, so nothing can be decided".into())
        } else if active.state != CloudState::Healthy {
            Some(format!("the active cloud {} is {}", self.cloud_name(roles.active), state_word(active.state)))
        } else if status.state != CloudState::Healthy {
            let missing = status.missed_puts + status.missed_deletes;
            Some(format!("cloud {name} is {} and lacks {}", state_word(status.state), counted(missing, "change")))
        } else {
            None
        }
    }
}

/// Why one more cloud may not fail without harm, though the record has both healthy: what this filer sees of the clouds, and
/// of filers that it does not reach.
fn doubt(clouds: &[Cloud], peers: &[Peer], failures_to_warn: u32) -> Option<String> {
    let of_cloud = |cloud: &Cloud| match (&cloud.failing, &cloud.why) {
        (Some(failing), _) if failing.failures >= failures_to_warn => Some(format!(
            "cloud {} is failing: {} in a row of one piece of data, for {}",
            cloud.name,
            counted(failing.failures.into(), "failure"),
            span(failing.since_ms_ago)
        )),
        (None, Some(why)) => Some(format!("cloud {} has not taken and given data yet: {why}", cloud.name)),
        _ => None,
    };
    let of_peer = |peer: &Peer| {
        let bytes = peer.staged_bytes.filter(|bytes| *bytes > 0 && !peer.connected)?;
        Some(format!(
            "filer {} is not reached, and said last that it holds {} that are not in both clouds",
            peer.name,
            counted(bytes, "byte")
        ))
    };
    clouds.iter().find_map(of_cloud).or_else(|| peers.iter().find_map(of_peer))
}

/// What fails at a cloud, for people.
fn failing(streak: Streak, trips_at: u32) -> Failing {
    Failing {
        failures: streak.failures,
        trips_at,
        since_ms_ago: streak.first_ms_ago,
        last_ms_ago: streak.last_ms_ago,
        pieces: streak.pieces as u64,
    }
}

fn state_word(state: CloudState) -> &'static str {
    match state {
        CloudState::Healthy => "healthy",
        CloudState::Failed => "failed",
        CloudState::Resyncing => "resyncing",
    }
}

fn revoked_row(revoked: Revoked) -> RevokedRow {
    RevokedRow { serial: revoked.serial, filer: FilerName { id: revoked.filer.to_string(), name: revoked.name } }
}

/// What the mesh counts, for monitoring.
fn mesh_numbers(mesh: &MeshStats) -> Vec<Extra> {
    vec![
        ("mesh_sessions", "Peers with which a session stands", mesh.sessions as f64),
        ("mesh_failed_dials", "Attempts at a session that failed", mesh.dials_failed as f64),
        ("mesh_refused_certificates", "Certificates of peers that were refused", mesh.refused.total() as f64),
        ("mesh_refused_revoked", "Revoked certificates among them", mesh.refused.revoked as f64),
        ("mesh_refused_greetings", "Peers refused for their version, CloudFS or name", mesh.refused_greetings as f64),
        ("mesh_refused_busy", "Connections refused as too many were being opened", mesh.refused_busy as f64),
        ("mesh_malformed_frames", "Frames from peers that were malformed", mesh.malformed_frames as f64),
        ("mesh_sent_bytes", "Bytes sent to peers", mesh.bytes_out as f64),
        ("mesh_received_bytes", "Bytes received from peers", mesh.bytes_in as f64),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_the_mesh_door_are_told_to_monitoring() {
        let mut mesh = MeshStats { refused_greetings: 3, refused_busy: 4, dials_failed: 5, ..MeshStats::default() };
        (mesh.refused.foreign, mesh.refused.revoked, mesh.refused.missing) = (1, 2, 6);
        let numbers: BTreeMap<_, _> = mesh_numbers(&mesh).into_iter().map(|(name, _, value)| (name, value)).collect();
        for (name, value) in [
            ("mesh_refused_greetings", 3.0),
            ("mesh_refused_busy", 4.0),
            ("mesh_failed_dials", 5.0),
            ("mesh_refused_certificates", 9.0),
            ("mesh_refused_revoked", 2.0),
        ] {
            assert_eq!(numbers.get(name), Some(&value), "{name}");
        }
    }

    #[test]
    fn a_cloud_that_fails_or_a_filer_that_is_away_with_data_is_a_doubt() {
        let cloud = |failures, why: Option<&str>| {
            let failing = (failures > 0).then_some(Failing { failures, since_ms_ago: 23_000, ..Failing::default() });
            Cloud { failing, why: why.map(Into::into), ..Cloud::new("aws", "s3", Role::Active) }
        };
        let peer =
            |connected, bytes| Peer { name: "fra".into(), connected, staged_bytes: Some(bytes), ..Peer::default() };
        assert_eq!(doubt(&[cloud(0, None)], &[peer(true, 9), peer(false, 0)], 8), None);
        assert_eq!(doubt(&[cloud(7, Some("503"))], &[], 8), None, "now and then a call fails");
        let why = doubt(&[cloud(0, None), cloud(34, Some("503"))], &[], 8);
        assert_eq!(why.as_deref(), Some("cloud aws is failing: 34 failures in a row of one piece of data, for 23 s"));
        let why = doubt(&[cloud(0, Some("403 Forbidden"))], &[], 8);
        assert_eq!(why.as_deref(), Some("cloud aws has not taken and given data yet: 403 Forbidden"));
        let why = doubt(&[cloud(0, None)], &[peer(false, 3_000_000)], 8).unwrap();
        assert!(why.starts_with("filer fra is not reached, and said last that it holds 3000000 bytes"), "{why}");
    }
}
