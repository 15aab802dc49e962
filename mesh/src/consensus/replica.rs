//! A filer's replica: the engine with its log, state, network and tasks, started and stopped as one.

use super::{
    api::{ConsensusStatus, ProposeError, StartError, StateMachine},
    barrier::Gate,
    engine::{self, Metrics, Raft},
    forward::{self, Forwarded},
    heartbeat,
    log::{LogStore, meta_record, read_meta},
    machine::Machine,
    members,
    network::Network,
    propose::Tickets,
    runtime::{Env, Watcher},
    service::Replies,
    settings::Settings,
    shared::Shared,
    snapshot::Arrivals,
    standing::Standings,
};
use crate::{
    FilerId,
    clock::Random,
    kv::{Batch, Durability, Kv, META},
    peers::{Member, Peers, Service},
};
use openraft::async_runtime::WatchReceiver;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Notify, Semaphore, mpsc};

const SESSION_KEY: &[u8] = b"consensus/session";

/// A filer's replica of the log and the state. A clone is another handle to the same replica.
#[derive(Clone)]
pub struct Consensus {
    pub(super) core: Arc<Core>,
}

/// What the parts of a replica work with.
pub struct Core {
    pub me: FilerId,
    pub settings: Arc<Settings>,
    pub env: Env,
    pub peers: Arc<dyn Peers>,
    pub shared: Arc<Shared>,
    pub raft: Raft,
    pub tickets: Tickets,
    /// Room for proposals of this filer.
    pub slots: Semaphore,
    pub forwards: mpsc::Sender<Forwarded>,
    pub gate: Gate,
    pub arrivals: Arrivals,
    pub standings: Standings,
    /// A change of the members is between its two steps, and this filer leads.
    pub unfinished: Notify,
}

/// Sees that something about a replica has changed.
pub struct Changes(Watcher<u64>);

impl Changes {
    /// Waits for the next change since the last one seen here. Changes that come together are seen as one.
    pub async fn next(&mut self) {
        if !self.0.wait().await {
            // The replica is gone, so nothing changes any more.
            std::future::pending().await
        }
    }
}

impl Consensus {
    /// Starts the replica of filer `me` on the tables `kv`: empty ones, which then wait for
    /// [`bootstrap`](Self::bootstrap) or to be added elsewhere, or those of an earlier run.
    ///
    /// `machine` gives meaning to operations, `peers` carries calls to the other filers (which answer them with
    /// their own [`handler`](Self::handler)), and `random` determines every draw.
    pub async fn start(
        settings: Settings,
        me: FilerId,
        kv: Arc<dyn Kv>,
        machine: Arc<dyn StateMachine>,
        peers: Arc<dyn Peers>,
        random: Arc<dyn Random>,
    ) -> Result<Consensus, StartError> {
        settings.check().map_err(StartError::Settings)?;
        let config = engine::config(&settings).map_err(StartError::Settings)?;
        let settings = Arc::new(settings);
        let env = Env::new(random, settings.spawning);
        let shared = Arc::new(Shared::new());
        // First of all: behind this write, nothing of an earlier run is still on its way to the tables.
        let session = next_session(&*kv).await?;
        let log = LogStore::open(kv.clone(), &settings, &env)?;
        let machine = Machine::open(kv.clone(), machine, shared.clone(), &settings)?;
        let members = machine.members();
        if !members.is_empty() {
            peers.set_members(members);
        }
        let arrivals = Arrivals::new(kv, settings.snapshot_bytes_max, 2 * settings.snapshot_deadline());
        arrivals.begin().await?;
        let network =
            Network { peers: peers.clone(), shared: shared.clone(), settings: settings.clone(), env: env.clone() };
        let raft = env.scope(Raft::build(me, config, network, log, machine)).await;
        let raft = raft.map_err(|e| StartError::Engine(e.to_string()))?;
        let (forwards, forwarded) = mpsc::channel(settings.proposals_in_flight_max);
        let core = Arc::new(Core {
            me,
            tickets: Tickets::new(me, session),
            slots: Semaphore::new(settings.proposals_in_flight_max),
            forwards,
            gate: Gate::default(),
            arrivals,
            standings: Standings::default(),
            unfinished: Notify::new(),
            settings,
            env: env.clone(),
            peers,
            shared,
            raft,
        });
        env.enter(|| core.raft.run());
        // An answer means that the engine has told what it found in the tables.
        let ready = core.raft.with_raft_state(|_| ()).await;
        ready.map_err(|e| StartError::Engine(e.to_string()))?;
        // Nobody else's word is needed, so it does not wait until it would be time to stand for election.
        if core.look(|metrics| metrics.membership_config.membership().voter_ids().eq([me])) {
            let elected = core.raft.trigger().elect(false).await;
            elected.map_err(|e| StartError::Engine(e.to_string()))?;
        }
        env.spawn(forward::run(core.clone(), forwarded));
        env.spawn(follow(core.clone()));
        env.spawn(heartbeat::send(core.clone()));
        env.spawn(members::finish(core.clone()));
        Ok(Consensus { core })
    }

    /// What answers the calls of peers on the consensus channel.
    pub fn handler(&self) -> Arc<dyn Service> {
        Arc::new(Replies(self.core.clone()))
    }

    /// What the replica knows now.
    pub fn status(&self) -> ConsensusStatus {
        let core = &*self.core;
        let leader = core.live_leader();
        let majority_ms_ago = core.majority_ago().map(|ago| ago.as_millis() as u64);
        let (applied, removed, revoked) = (core.shared.applied(), core.shared.removed(), core.shared.revoked());
        core.look(|metrics| {
            let membership = metrics.membership_config.membership();
            let node = |id: FilerId| membership.get_node(&id).map(|member| (id, member.clone()));
            ConsensusStatus {
                term: metrics.current_term,
                leader,
                applied,
                last_log: metrics.last_log_index.unwrap_or(0),
                voters: membership.voter_ids().filter_map(node).collect(),
                majorities_of: majorities_of(metrics),
                learners: membership.learner_ids().filter_map(node).collect(),
                majority_ms_ago,
                removed,
                revoked,
            }
        })
    }

    /// The leader, if it was heard from lately: as in the status, without the rest.
    pub fn leader(&self) -> Option<FilerId> {
        self.core.live_leader()
    }

    /// The members that vote: as in the status, without the rest.
    pub fn voters(&self) -> BTreeSet<FilerId> {
        self.core.look(|metrics| metrics.membership_config.membership().voter_ids().collect())
    }

    /// Whether this filer votes under this name and address, by the newest entry about the members that it knows and by the
    /// newest that no change of leader takes back.
    pub fn votes_as(&self, member: &Member) -> bool {
        let me = self.core.me;
        self.core.look(|metrics| {
            [&metrics.membership_config, &metrics.committed_membership_config].into_iter().all(|config| {
                let voter = config.membership().voter_ids().any(|voter| voter == me);
                voter && config.get_node(&me) == Some(member)
            })
        })
    }

    /// Why the replica goes no further; `None` while it runs.
    pub fn stopped(&self) -> Option<String> {
        match self.core.shared.stopped() {
            Err(ProposeError::Stopped(why)) => Some(why),
            _ => None,
        }
    }

    /// Sees every change of the replica from now on: its leader, its members, how far it has applied.
    pub fn changes(&self) -> Changes {
        Changes(self.core.shared.changes())
    }

    /// Sees from now on whenever the members, the removed filers or the revoked certificates change, or the replica stops.
    pub fn belonging(&self) -> Changes {
        Changes(self.core.shared.belonging())
    }

    /// Waits until something about the replica changes after the call. To miss nothing between a look and the wait,
    /// use [`changes`](Self::changes).
    pub async fn changed(&self) {
        self.changes().next().await
    }

    /// Stops the replica and ends all its tasks; what waits for it is refused.
    pub async fn shutdown(&self) {
        self.core.shared.stop("it was shut down");
        if let Err(error) = self.core.raft.shutdown().await {
            tracing::warn!(%error, "the engine of the replicated log ended badly");
        }
        self.core.env.abort_all();
    }
}

impl Core {
    /// A look at the engine's state, as last told; a short one, since the engine waits for its end.
    pub fn look<T>(&self, look: impl FnOnce(&Metrics) -> T) -> T {
        look(&self.raft.metrics().borrow_watched())
    }

    /// The engine's state, as last told.
    pub fn metrics(&self) -> Metrics {
        self.look(Metrics::clone)
    }

    /// The leader that the engine would turn to.
    pub fn leader(&self) -> Option<FilerId> {
        self.look(|metrics| metrics.current_leader)
    }

    /// The leader, if it was heard from lately.
    fn live_leader(&self) -> Option<FilerId> {
        let lease = self.settings.lease();
        let leader = self.leader()?;
        let is_live = if leader == self.me {
            self.majority_ago().is_some_and(|ago| ago <= lease)
        } else {
            self.shared.heard().is_some_and(|(heard, at)| heard == leader && at.elapsed() <= lease)
        };
        is_live.then_some(leader)
    }

    /// How long ago a majority last answered this filer, if it leads.
    fn majority_ago(&self) -> Option<Duration> {
        self.look(|metrics| {
            let mut voters = metrics.membership_config.membership().voter_ids();
            match metrics.state.is_leader() {
                false => None,
                true if voters.all(|voter| voter == self.me) => Some(Duration::ZERO),
                true => metrics.last_quorum_acked.as_ref().map(|at| at.0.elapsed()),
            }
        })
    }

    /// Whether the replica runs and is a member's.
    pub fn check_member(&self) -> Result<(), ProposeError> {
        self.shared.stopped()?;
        let known = self.look(|metrics| metrics.membership_config.get_node(&self.me).is_some());
        if known && !self.shared.is_dismissed() && !self.shared.is_removed(self.me) {
            Ok(())
        } else {
            Err(ProposeError::NotMember)
        }
    }

    /// The engine has ended.
    pub fn engine_ended(&self, error: &dyn std::fmt::Display) -> ProposeError {
        self.shared.stop(error.to_string());
        self.shared.stopped().err().unwrap_or_else(|| ProposeError::Stopped(error.to_string()))
    }

    /// A pause before another attempt: between half of it and all of it, doubling from 10 ms to 200 ms.
    pub async fn pause(&self, attempt: u32) {
        let longest_ms = (10u64 << attempt.min(5)).min(200);
        let ms = longest_ms / 2 + self.env.draw() % (longest_ms / 2 + 1);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// The sets of voters of each of which a majority must agree, whichever entry about the members lasts.
fn majorities_of(metrics: &Metrics) -> BTreeSet<BTreeSet<FilerId>> {
    let configs = [&metrics.membership_config, &metrics.committed_membership_config];
    configs.into_iter().flat_map(|config| config.membership().get_joint_config().clone()).collect()
}

/// Raises the session durably.
async fn next_session(kv: &dyn Kv) -> Result<u64, StartError> {
    let session = read_meta::<u64>(kv, SESSION_KEY, "session")?.unwrap_or(0) + 1;
    let mut batch = Batch::default();
    batch.put(META, SESSION_KEY, meta_record(&session));
    kv.write(batch, Durability::Synced).await?;
    Ok(session)
}

/// Passes on what the engine tells about itself: to the peers who is a member, to waiters that something changed, and what is
/// to be finished.
async fn follow(core: Arc<Core>) {
    let mut metrics = core.raft.metrics();
    let mut known = BTreeMap::new();
    loop {
        let (changed, running, acknowledged, unfinished) = {
            let now = metrics.borrow_and_update();
            let members = || now.membership_config.nodes();
            let changed = members().next().is_some() && !members().eq(&known);
            if changed {
                known = members().map(|(id, member)| (*id, member.clone())).collect();
            }
            let acknowledged = now.last_quorum_acked.as_ref().filter(|_| now.state.is_leader()).map(|at| at.0);
            (changed, now.running_state.clone(), acknowledged, members::is_mine_to_finish(&now))
        };
        if unfinished {
            core.unfinished.notify_one();
        }
        if let Some(at) = acknowledged {
            core.shared.note_majority(at);
        }
        if changed {
            core.peers.set_members(known.clone());
            core.shared.touch_belonging();
        }
        if let Err(error) = running {
            core.engine_ended(&error);
            return;
        }
        core.shared.touch();
        if !metrics.wait().await {
            core.engine_ended(&"the engine has ended");
            return;
        }
    }
}
