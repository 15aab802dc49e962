//! What the site shows its operator, and does for it.

use super::{Renewal, greeting::Greetings, removed};
use crate::{
    actors::{
        connector::Probe,
        health::Views,
        mesh::Decide,
        mirror::Receipts,
        resync::{Deletes, Progresses},
    },
    admin::{
        Extra, FileRow, Page, Refusal, SegmentRow, Status, Steering,
        status::{
            Cache, Certificate, Cloud, Dead, DecisionRow, ExtentRow, Failing, FilerName, Peer, Resync, RevokedRow,
            Role, Serving, Staging, Task,
        },
    },
    config::Config,
    door::DoorError,
    filer::{Filer, RemovalError},
    nfs::Counters,
    wire::{self, FilerCall, FilerReply},
};
use mesh::{
    FilerId,
    consensus::{MembershipError, ProposeError, Revoked, RevokedList},
    kv::KvRead,
    net::{MeshStats, QuicMesh},
    peers::Peers,
    words::{counted, span},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};
use storage::{
    cloudfs::{Answer, Attr, BY_OPERATOR, CloudState, Copy, NodeKind, OpBody, Roles, leaving, read},
    health::Streak,
    ids::{CloudId, Epoch, SegmentId},
};

/// Decisions on the first page.
const DECISIONS_SHOWN_MAX: usize = 10;
/// How long a change of the members, or of who is shut out, may take.
const CHANGE_MAX: Duration = Duration::from_secs(15);
/// How long a peer may take to say with which certificate it serves.
const CERTIFICATE_MAX: Duration = Duration::from_secs(5);

/// The site as its operator's door sees it.
pub struct Site {
    filer: Filer,
    mesh: Arc<QuicMesh>,
    renewal: Arc<Mutex<Renewal>>,
    greetings: Arc<Greetings>,
    config: Config,
    nfs: Option<Arc<Counters>>,
}

/// A change of the members that was not made, for the operator.
fn refusal(error: MembershipError) -> Refusal {
    kind_of(&error)(error.to_string())
}

fn kind_of(error: &MembershipError) -> fn(String) -> Refusal {
    match error {
        MembershipError::Unknown(_) => Refusal::NotFound,
        MembershipError::AlreadyStarted
        | MembershipError::Removed(_)
        | MembershipError::LastVoter(_)
        | MembershipError::Taken { .. } => Refusal::Rules,
        MembershipError::Malformed(_) => Refusal::Request,
        MembershipError::NotCaughtUp { .. } => Refusal::Later,
        MembershipError::Propose(error) => match error {
            ProposeError::NoMajority { .. } => Refusal::Later,
            ProposeError::NotMember => Refusal::Rules,
            ProposeError::TooLarge { .. } | ProposeError::Stopped(_) => Refusal::Failed,
        },
    }
}

/// The same of an operation.
fn kind_of_door(error: &DoorError) -> fn(String) -> Refusal {
    match error {
        DoorError::Refused(_) => Refusal::Rules,
        DoorError::Unanswered(_) | DoorError::NotProposed(_) | DoorError::Busy { .. } => Refusal::Later,
        DoorError::Unreadable(_) => Refusal::Failed,
    }
}

/// The same of the removal of a filer, by its name.
fn not_removed(name: &str, error: RemovalError) -> Refusal {
    let halted = |why: String| {
        format!(
            "{why}; filer {name} may take no writes until it is removed (filer peers remove {name}) or told to go on (filer peers keep {name})"
        )
    };
    match error {
        RemovalError::Alone { segments, bytes, .. } => Refusal::Rules(format!(
            "filer {name} alone holds {} of files (in {}) that no cloud has yet: start it and wait until its staging is empty (filer status), or remove those files first",
            counted(bytes, "byte"),
            counted(segments, "segment")
        )),
        RemovalError::Refused(error) => refusal(error),
        RemovalError::Unfinished { source, .. } => kind_of(&source)(halted(source.to_string())),
        RemovalError::Ending { source, .. } | RemovalError::Halted { source, .. } => {
            kind_of_door(&source)(halted(source.to_string()))
        }
        RemovalError::Table(error) => Refusal::Failed(halted(error.to_string())),
    }
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

/// The cloud that an operator names, as lists of clouds show it or by its letter; a name counts first.
fn cloud_called(called: &str, names: [&str; 2]) -> Result<CloudId, Refusal> {
    let named = CloudId::BOTH.into_iter().find(|cloud| names[cloud.index()] == called);
    let lettered = || CloudId::BOTH.into_iter().find(|cloud| cloud.to_string() == called);
    named.or_else(lettered).ok_or_else(|| {
        let [a, b] = names;
        Refusal::NotFound(format!("no cloud is called {called}; the clouds are {a} (a) and {b} (b)"))
    })
}

/// That a cloud was made active; `held_from`: the preferred cloud, which does not become active by itself now.
fn activated(active: &str, epoch: Epoch, held_from: Option<&str>) -> String {
    let held = held_from.map_or(String::new(), |preferred| {
        format!("; {preferred} does not become active by itself until you ask for it (filer cloud failback), or {active} fails")
    });
    format!("cloud {active} is active, epoch {epoch}{held}")
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

fn failed(error: impl std::fmt::Display) -> Refusal {
    Refusal::Failed(error.to_string())
}

impl Site {
    pub fn new(
        filer: Filer,
        mesh: Arc<QuicMesh>,
        renewal: Arc<Mutex<Renewal>>,
        greetings: Arc<Greetings>,
        config: Config,
        nfs: Option<Arc<Counters>>,
    ) -> Self {
        Self { filer, mesh, renewal, greetings, config, nfs }
    }

    fn cloud_name(&self, cloud: CloudId) -> &str {
        &self.config.clouds.entry(cloud).name
    }

    fn names(&self) -> BTreeMap<FilerId, String> {
        let status = self.filer.consensus.status();
        let members = status.voters.into_iter().chain(status.learners);
        members.map(|(id, member)| (id, member.name)).collect()
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
        let left_ms = super::certificate_left_ms(identity.not_after_s());
        let ends_soon = left_ms <= self.config.mesh.certificate_warn_ms;
        let revoked = revoked.contains_key(identity.serial());
        Certificate { serial: identity.serial().into(), left_ms, ends_soon, revoked }
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
            let name = |filer: &FilerId| names.get(filer).cloned().unwrap_or_else(|| filer.to_string());
            shown.reached_by = status.reached_by.iter().map(name).collect();
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

    async fn decide(&self, body: OpBody) -> Result<Roles, Refusal> {
        let answer = self.filer.actors.mesh.send(Decide(body)).await.map_err(failed)?;
        match answer {
            Ok(Answer::Roles(roles)) => Ok(roles),
            Ok(other) => Err(failed(format!("an answer of another kind: {other:?}"))),
            Err(DoorError::Refused(error)) => Err(Refusal::Rules(self.named(&error.to_string()))),
            Err(error) => Err(kind_of_door(&error)(error.to_string())),
        }
    }

    /// Makes a cloud active, by the operator's wish; unless it is meant `anyway`, only one that takes and gives data now.
    async fn activate(&self, to: CloudId, anyway: bool) -> Result<String, Refusal> {
        let roles = self.roles()?;
        // What the rules refuse is refused by their words.
        let may_move = roles.active != to && roles.cloud(to).state == CloudState::Healthy;
        if may_move && !anyway {
            let probe = Probe { filer: self.filer.who.me };
            if let Err(error) = self.filer.actors.connectors[to.index()].send(probe).await.map_err(failed)? {
                return Err(Refusal::Rules(format!(
                    "cloud {} does not take and give data now, as this filer sees: {error}. --anyway moves to it all the same",
                    self.cloud_name(to)
                )));
            }
        }
        let epoch = roles.epoch;
        let roles = self.decide(OpBody::Activate { to, epoch, by: BY_OPERATOR.into() }).await?;
        let [active, preferred] = [roles.active, roles.preferred].map(|cloud| self.cloud_name(cloud));
        Ok(activated(active, roles.epoch, roles.held_by_operator.then_some(preferred)))
    }

    /// The words of the state machine, with the operator's names for the clouds.
    fn named(&self, text: &str) -> String {
        let name = |text: String, cloud: CloudId| {
            text.replace(&format!("cloud {cloud} "), &format!("cloud {} ", self.cloud_name(cloud)))
        };
        CloudId::BOTH.into_iter().fold(text.to_string(), name)
    }

    fn roles(&self) -> Result<Roles, Refusal> {
        self.filer.roles.get().ok_or_else(|| Refusal::Later("the roles are not known yet".into()))
    }

    fn decision_rows(&self, limit: usize) -> Result<Vec<DecisionRow>, Refusal> {
        let names = self.names();
        let name = |filer: FilerId| names.get(&filer).cloned().unwrap_or_else(|| filer.to_string());
        let decisions = read::decisions(&*self.filer.world.kv, limit).map_err(failed)?;
        let row = |decision: storage::cloudfs::Decision| DecisionRow {
            epoch: decision.epoch.0,
            ms_ago: self.filer.ms_since(decision.at_ns),
            filer: name(decision.filer),
            text: self.named(&decision.text),
            carried: decision.carried,
            ballots: decision
                .ballots
                .iter()
                .map(|ballot| {
                    let view = |cloud: CloudId| {
                        let view = ballot.views[cloud.index()];
                        let reachable = match view.reachable {
                            Some(true) => "reachable",
                            Some(false) => "unreachable",
                            None => "not tried",
                        };
                        format!("{} {reachable}, {}", self.cloud_name(cloud), counted(view.failures.into(), "failure"))
                    };
                    format!("{}: {}; {}", name(ballot.filer), view(CloudId::A), view(CloudId::B))
                })
                .collect(),
        };
        Ok(decisions.into_iter().map(row).collect())
    }

    /// The filer that an operator names, or gives the id of.
    fn filer_called(&self, name: &str) -> Result<(FilerId, String), Refusal> {
        let mut named = self.names().into_iter().filter(|(id, n)| n == name || id.to_string() == name);
        match (named.next(), named.next()) {
            (None, _) => Err(Refusal::NotFound(format!("no filer is called {name}; see `filer peers`"))),
            (Some(one), None) => Ok(one),
            _ => Err(Refusal::Request(format!("several filers are called {name}; give the id"))),
        }
    }

    fn file_row(&self, view: &dyn KvRead, attr: &Attr, path: String) -> Result<FileRow, Refusal> {
        let extents = read::extents(view, attr.handle.ino, 0..attr.bytes).map_err(failed)?;
        let row = |extent: &storage::cloudfs::Extent| ExtentRow {
            offset: extent.offset,
            len: extent.len.into(),
            segment: extent.segment.to_string(),
            key: extent.segment.key(),
            frame_at: extent.frame_at.into(),
            frame_len: extent.frame_len.into(),
            skip: extent.skip.into(),
        };
        Ok(FileRow { ino: attr.handle.ino, path, bytes: attr.bytes, extents: extents.iter().map(row).collect() })
    }
}

/// A name's place in the tree, as `after` of a page has it.
fn place_text(dir: u64, name: &[u8]) -> String {
    let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{dir}-{name}")
}

fn place_of(text: &str) -> Result<(u64, Vec<u8>), Refusal> {
    let parse = || {
        let (dir, name) = text.split_once('-')?;
        let pairs = name.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        Some((dir.parse().ok()?, pairs.map(byte).collect::<Option<Vec<u8>>>()?))
    };
    parse().ok_or_else(|| Refusal::Request(format!("{text} is no `next` of a page of files")))
}

fn revoked_row(revoked: Revoked) -> RevokedRow {
    RevokedRow { serial: revoked.serial, filer: FilerName { id: revoked.filer.to_string(), name: revoked.name } }
}

fn state_word(state: CloudState) -> &'static str {
    match state {
        CloudState::Healthy => "healthy",
        CloudState::Failed => "failed",
        CloudState::Resyncing => "resyncing",
    }
}

#[async_trait::async_trait]
impl Steering for Site {
    async fn status(&self) -> Status {
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
            leader: consensus.leader.map(|id| names.get(&id).cloned().unwrap_or_else(|| id.to_string())),
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
                alive("connector a", actors.connectors[0].connected()),
                alive("connector b", actors.connectors[1].connected()),
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

    async fn extra_metrics(&self) -> Vec<Extra> {
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

    async fn failover(&self, cloud: &str, anyway: bool) -> Result<String, Refusal> {
        let to = cloud_called(cloud, CloudId::BOTH.map(|cloud| self.cloud_name(cloud)))?;
        self.activate(to, anyway).await
    }

    async fn failback(&self, anyway: bool) -> Result<String, Refusal> {
        let to = self.roles()?.preferred;
        self.activate(to, anyway).await
    }

    async fn remove_peer(&self, name: &str) -> Result<String, Refusal> {
        let (id, name) = self.filer_called(name)?;
        if id == self.filer.who.me {
            return Err(Refusal::Request("a filer is removed at another filer, not at itself".into()));
        }
        // A task of its own: an operator who goes away must not leave that filer without writes.
        let filer = self.filer.clone();
        let removal = tokio::spawn(async move { filer.remove_filer(id, CHANGE_MAX).await });
        removal.await.map_err(failed)?.map_err(|error| not_removed(&name, error))?;
        Ok(format!("filer {name} ({id}) is removed; its certificate is refused from now on"))
    }

    async fn keep_peer(&self, name: &str) -> Result<String, Refusal> {
        let (id, name) = self.filer_called(name)?;
        self.filer.keep_filer(id).await.map_err(|error| kind_of_door(&error)(error.to_string()))?;
        Ok(format!("filer {name} ({id}) is not being removed; it takes writes"))
    }

    async fn revoke(&self, filer: FilerId, name: &str, serial: &str) -> Result<String, Refusal> {
        let revoked = Revoked { serial: serial.into(), filer, name: name.into() };
        self.filer.consensus.revoke(revoked, CHANGE_MAX).await.map_err(refusal)?;
        Ok(format!("certificate {serial} of {name} ({filer}) is refused by every filer from now on"))
    }

    async fn use_certificate(&self, serial: &str) -> Result<String, Refusal> {
        self.renewal.lock().expect("no look at the certificate panics").take(&self.mesh);
        let identity = self.mesh.identity();
        if identity.serial() != serial {
            let shown = identity.serial();
            return Err(failed(format!(
                "the filer serves with certificate {shown}, and not with {serial}: see its log"
            )));
        }
        Ok(format!("the filer serves with certificate {serial} from now on"))
    }

    async fn certificate_of(&self, filer: FilerId) -> Result<String, Refusal> {
        if filer == self.filer.who.me {
            return Ok(self.mesh.identity().serial().into());
        }
        match wire::call(&*self.mesh, filer, &FilerCall::Certificate, CERTIFICATE_MAX).await {
            Ok((FilerReply::Certificate { serial }, _)) => Ok(serial),
            Ok(_) => Err(failed(format!("filer {filer} answers something else"))),
            Err(error) => Err(Refusal::Later(error.to_string())),
        }
    }

    async fn segments(&self, after: Option<String>, limit: usize) -> Result<Page<SegmentRow>, Refusal> {
        let after = match after {
            Some(key) => {
                Some(SegmentId::from_key(&key).ok_or_else(|| Refusal::Request(format!("{key} is no segment's key")))?)
            }
            None => None,
        };
        let rows = read::segments(&*self.filer.world.kv, after, limit).map_err(failed)?;
        let next = (rows.len() == limit).then(|| rows.last().map(|(id, _)| id.key())).flatten();
        let with = |object: &storage::cloudfs::Object, copy: Copy| {
            let clouds = CloudId::BOTH.into_iter().filter(|cloud| object.copies[cloud.index()] == copy);
            clouds.map(|cloud| self.cloud_name(cloud).to_string()).collect::<Vec<_>>()
        };
        let row = |(id, row): (SegmentId, storage::cloudfs::Segment)| SegmentRow {
            segment: id.to_string(),
            key: id.key(),
            live_bytes: row.live_bytes,
            bytes: row.object.map(|object| object.bytes),
            md5: row.object.map(|object| object.md5.to_string()),
            stored: row.object.map_or(vec![], |object| with(&object, Copy::Stored)),
            missed: row.object.map_or(vec![], |object| with(&object, Copy::Missed)),
        };
        Ok(Page { rows: rows.into_iter().map(row).collect(), next })
    }

    async fn files(&self, after: Option<String>, limit: usize) -> Result<Page<FileRow>, Refusal> {
        let view = self.filer.world.kv.view();
        let after = after.as_deref().map(place_of).transpose()?;
        let rows = read::names(&*view, after.as_ref().map(|(dir, name)| (*dir, &name[..])), limit).map_err(failed)?;
        let full = rows.len() == limit;
        let next = rows.last().filter(|_| full).map(|(dir, name, _)| place_text(*dir, name));
        let mut found = Vec::new();
        for (dir, name, ino) in rows {
            let Some(attr) = read::attr(&*view, ino).map_err(failed)?.filter(|attr| attr.kind == NodeKind::File) else {
                continue;
            };
            let above = read::path_of(&*view, dir).map_err(failed)?.unwrap_or_default();
            let parts = above.iter().chain([&name]).map(|part| String::from_utf8_lossy(part));
            let path: String = parts.map(|part| format!("/{part}")).collect();
            found.push(self.file_row(&*view, &attr, path)?);
        }
        Ok(Page { rows: found, next })
    }

    async fn decisions(&self) -> Result<Vec<DecisionRow>, Refusal> {
        self.decision_rows(storage::cloudfs::DECISIONS_KEPT_MAX)
    }
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

    #[test]
    fn a_cloud_is_called_by_its_name_or_its_letter() {
        let names = ["aws", "azure"];
        for (called, cloud) in [("aws", CloudId::A), ("a", CloudId::A), ("azure", CloudId::B), ("b", CloudId::B)] {
            assert_eq!(cloud_called(called, names), Ok(cloud), "{called}");
        }
        assert_eq!(cloud_called("a", ["b", "a"]), Ok(CloudId::B), "a name counts first");
        for wrong in ["gcs", "AWS", "", "c"] {
            let refused = cloud_called(wrong, names).unwrap_err();
            let known = "the clouds are aws (a) and azure (b)";
            assert!(matches!(&refused, Refusal::NotFound(why) if why.contains(known)), "{refused}");
        }
    }

    #[test]
    fn who_moves_away_from_the_preferred_cloud_is_told_how_to_go_back() {
        assert_eq!(activated("aws", Epoch(3), None), "cloud aws is active, epoch 3");
        let told = activated("azure", Epoch(2), Some("aws"));
        assert!(told.starts_with("cloud azure is active, epoch 2; aws does not become active by itself"), "{told}");
        assert!(told.contains("filer cloud failback"), "{told}");
    }

    #[test]
    fn a_filer_that_was_not_removed_is_told_of_by_what_is_to_be_done() {
        let filer = FilerId(7);
        let told = |error| not_removed("fra", error);
        let alone = told(RemovalError::Alone { filer, segments: 2, bytes: 9 });
        assert!(matches!(&alone, Refusal::Rules(why) if why.contains("fra alone holds 9 bytes")), "{alone}");
        let refused = told(RemovalError::Refused(MembershipError::LastVoter(filer)));
        assert!(matches!(&refused, Refusal::Rules(why) if !why.contains("keep")), "it goes on: {refused}");
        let no_majority = || ProposeError::NoMajority { after_ms: 1 };
        for halted in [
            RemovalError::Ending { filer, source: DoorError::Unanswered(no_majority()) },
            RemovalError::Halted { filer, source: DoorError::NotProposed(no_majority()) },
            RemovalError::Unfinished { filer, source: MembershipError::Propose(no_majority()) },
        ] {
            let halted = told(halted);
            assert!(matches!(&halted, Refusal::Later(why) if why.contains("filer peers keep fra")), "{halted}");
        }
    }

    #[test]
    fn a_change_that_was_not_made_is_told_by_its_kind() {
        let id = FilerId(7);
        assert!(matches!(refusal(MembershipError::Unknown(id)), Refusal::NotFound(_)));
        assert!(matches!(refusal(MembershipError::LastVoter(id)), Refusal::Rules(_)));
        assert!(matches!(refusal(MembershipError::Malformed("x".into())), Refusal::Request(_)));
        let later = |error: ProposeError| refusal(MembershipError::Propose(error));
        assert!(matches!(later(ProposeError::NoMajority { after_ms: 1 }), Refusal::Later(_)));
        assert!(matches!(later(ProposeError::Stopped("it broke".into())), Refusal::Failed(_)));
    }
}
