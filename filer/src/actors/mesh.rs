//! The shell of consensus: carries decisions to the log, and tells every actor what has been decided, who leads and who
//! is live.

use super::{
    MAILBOX_MESSAGES_MAX, RolesChanged,
    connector::ConnectorActor,
    health::{CastBallot, HealthActor, Leads},
    mirror::MirrorActor,
    resync::{MeshChanged, ResyncActor},
};
use crate::{
    cloud_names::{called, in_words},
    door::{Door, DoorError},
    roles::CurrentRoles,
    wire::{self, FilerCall, FilerReply},
};
use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, MessageResult, ResponseFuture};
use mesh::{FilerId, consensus::Consensus, kv::Kv, peers::Peers};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use storage::{
    cloudfs::{Answer, CloudState, Decision, OpBody, Roles, read},
    ids::{CloudId, Epoch},
};
use tokio::sync::Notify;

/// Limits of the mesh's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A peer that was heard from within this time is live, in milliseconds.
    pub live_ms: u64,
    /// How long a ballot is waited for, in milliseconds.
    pub ballot_ms: u64,
    /// How often liveness and leadership are looked at, in milliseconds.
    pub look_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { live_ms: 10_000, ballot_ms: 1000, look_ms: 250 }
    }
}

/// Decisions that are looked through for the log when the roles have changed, refused ones too: whoever was away for more of
/// them hears of the last.
const DECISIONS_TOLD_MAX: usize = 32;

/// Have the mesh decide this. A trip's ballots are gathered first.
#[derive(Message)]
#[rtype(result = "Result<Answer, DoorError>")]
pub struct Decide(pub OpBody);

/// Other roles may have been agreed: look at them.
#[derive(Message)]
#[rtype(result = "()")]
struct LookAtRoles;

/// Whom to tell.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct Wire {
    pub connectors: [Addr<ConnectorActor>; 2],
    pub health: Addr<HealthActor>,
    pub mirror: Addr<MirrorActor>,
    pub resync: Addr<ResyncActor>,
}

/// Which filers are live, this one too?
#[derive(Message)]
#[rtype(result = "Vec<FilerId>")]
pub struct Live;

/// The actor.
pub struct MeshActor {
    me: FilerId,
    settings: Settings,
    consensus: Consensus,
    peers: Arc<dyn Peers>,
    kv: Arc<dyn Kv>,
    door: Door,
    roles: CurrentRoles,
    /// Told when other roles may be visible.
    roles_changed: Arc<Notify>,
    wire: Option<Wire>,
    told: Option<MeshChanged>,
    /// Whether most voters were live at the last look. False before they first were.
    had_majority: bool,
}

impl MeshActor {
    /// The mesh as this filer takes part in it.
    #[expect(clippy::too_many_arguments, reason = "one place wires a filer, and names each part")]
    pub fn new(
        me: FilerId,
        settings: Settings,
        consensus: Consensus,
        peers: Arc<dyn Peers>,
        kv: Arc<dyn Kv>,
        door: Door,
        roles: CurrentRoles,
        roles_changed: Arc<Notify>,
    ) -> Self {
        Self {
            me,
            settings,
            consensus,
            peers,
            kv,
            door,
            roles,
            roles_changed,
            wire: None,
            told: None,
            had_majority: false,
        }
    }

    fn live(&self) -> Vec<FilerId> {
        let heard = |peer: &mesh::peers::PeerStatus| peer.heard_ms_ago.is_some_and(|ms| ms <= self.settings.live_ms);
        let voters = self.consensus.voters();
        let peers = self.peers.status().into_iter().filter(|peer| heard(peer) && voters.contains(&peer.id));
        let mut live: Vec<_> = peers.map(|peer| peer.id).chain([self.me]).collect();
        live.sort();
        live
    }

    /// Tells everybody when the roles have changed.
    fn look_at_roles(&self) {
        let Some(wire) = &self.wire else {
            return;
        };
        match read::roles(&*self.kv) {
            Ok(Some(roles)) => {
                let before = self.roles.get();
                if self.roles.set(roles.clone()) {
                    if before.as_ref().map(|roles| roles.epoch) != Some(roles.epoch) {
                        self.tell(before.as_ref(), &roles);
                    }
                    for connector in &wire.connectors {
                        connector.do_send(RolesChanged(roles.clone()));
                    }
                    wire.health.do_send(RolesChanged(roles.clone()));
                    wire.mirror.do_send(RolesChanged(roles.clone()));
                    wire.resync.do_send(RolesChanged(roles));
                }
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "the roles cannot be read"),
        }
    }

    /// Says in the log what was decided about the clouds, by whom and why. That a cloud has failed, or is not the active one any
    /// more, is a warning at every filer, whoever asked for it.
    fn tell(&self, before: Option<&Roles>, now: &Roles) {
        let decided = before.map_or_else(Vec::new, |before| self.decided(before.epoch, now.epoch));
        if decided.is_empty() {
            let states = CloudId::BOTH.map(|cloud| (called(cloud), now.cloud(cloud).state));
            tracing::info!(epoch = %now.epoch, active = %called(now.active), ?states, "the roles of the clouds");
        }
        let is_setback = before.is_some_and(|before| is_setback(before, now));
        let members = self.consensus.status();
        let members: BTreeMap<_, _> = members.voters.into_iter().chain(members.learners).collect();
        for Decision { epoch, filer, text, .. } in decided {
            let by = members.get(&filer).map_or_else(|| filer.to_string(), |member| member.name.clone());
            let why = in_words(&text);
            if is_setback {
                tracing::warn!(%epoch, %by, %why, "the roles of the clouds have changed");
            } else {
                tracing::info!(%epoch, %by, %why, "the roles of the clouds have changed");
            }
        }
    }

    /// What was decided behind one epoch up to another, the oldest first.
    fn decided(&self, behind: Epoch, upto: Epoch) -> Vec<Decision> {
        let mut decided = read::decisions(&*self.kv, DECISIONS_TOLD_MAX).unwrap_or_else(|error| {
            tracing::error!(%error, "past decisions cannot be read");
            Vec::new()
        });
        decided.retain(|decision| decision.carried && decision.epoch > behind && decision.epoch <= upto);
        decided.reverse();
        decided
    }

    /// Tells everybody when somebody else leads, is live, or is so no more.
    fn look_at_mesh(&mut self) {
        let Some(wire) = &self.wire else {
            return;
        };
        let now = MeshChanged { live: self.live(), leader: self.consensus.leader() };
        let changed = self.told.as_ref().is_none_or(|told| told.live != now.live || told.leader != now.leader);
        if changed {
            tracing::info!(live = ?now.live, leader = ?now.leader, "the mesh changed");
            let leads = now.leader == Some(self.me);
            wire.health.do_send(Leads(leads.then(|| now.live.clone())));
            wire.resync.do_send(now.clone());
            self.tell_of_majority(&now.live);
            self.told = Some(now);
        }
    }

    /// Says in the log when most voters are out of reach, and when they are back.
    fn tell_of_majority(&mut self, live: &[FilerId]) {
        let voters = self.consensus.voters();
        let reached = voters.iter().filter(|voter| live.contains(voter)).count();
        let has_majority = 2 * reached > voters.len();
        let (voters, had_majority) = (voters.len(), std::mem::replace(&mut self.had_majority, has_majority));
        match (had_majority, has_majority) {
            (true, false) => {
                tracing::error!(reached, voters, "no majority of the filers is in reach: whatever needs one waits");
            }
            (false, true) if self.told.is_some() => {
                tracing::info!(reached, voters, "a majority of the filers is in reach")
            }
            _ => {}
        }
    }

    fn look(&mut self) {
        self.look_at_roles();
        self.look_at_mesh();
    }
}

impl Actor for MeshActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_MESSAGES_MAX);
        let (roles_changed, me) = (self.roles_changed.clone(), ctx.address().downgrade());
        actix::spawn(async move {
            loop {
                roles_changed.notified().await;
                let Some(actor) = me.upgrade() else {
                    return;
                };
                if actor.send(LookAtRoles).await.is_err() {
                    return;
                }
            }
        });
        ctx.run_interval(Duration::from_millis(self.settings.look_ms), |actor, _| actor.look());
    }
}

impl Handler<Wire> for MeshActor {
    type Result = ();

    fn handle(&mut self, wire: Wire, _ctx: &mut Self::Context) {
        self.wire = Some(wire);
        self.look();
    }
}

impl Handler<LookAtRoles> for MeshActor {
    type Result = ();

    fn handle(&mut self, _: LookAtRoles, _ctx: &mut Self::Context) {
        self.look_at_roles();
    }
}

impl Handler<Live> for MeshActor {
    type Result = MessageResult<Live>;

    fn handle(&mut self, _: Live, _ctx: &mut Self::Context) -> Self::Result {
        MessageResult(self.live())
    }
}

impl Handler<Decide> for MeshActor {
    type Result = ResponseFuture<Result<Answer, DoorError>>;

    fn handle(&mut self, Decide(mut body): Decide, _ctx: &mut Self::Context) -> Self::Result {
        let (door, peers, health) = (self.door.clone(), self.peers.clone(), self.wire.clone().map(|wire| wire.health));
        let (me, deadline) = (self.me, Duration::from_millis(self.settings.ballot_ms));
        let members = self.consensus.voters();
        let asked = |peer: &mesh::peers::PeerStatus| peer.connected && peer.id != me && members.contains(&peer.id);
        let others: Vec<_> = self.peers.status().into_iter().filter(asked).map(|peer| peer.id).collect();
        Box::pin(async move {
            if let OpBody::Trip { ballots, voters, .. } = &mut body {
                *voters = members.len() as u64;
                if let Some(Ok(Some(ballot))) =
                    futures::future::OptionFuture::from(health.map(|health| health.send(CastBallot))).await
                {
                    ballots.push(ballot);
                }
                let asked = others.iter().map(|peer| wire::call(&*peers, *peer, &FilerCall::Ballot, deadline));
                for (peer, answer) in others.iter().zip(futures::future::join_all(asked).await) {
                    match answer {
                        Ok((FilerReply::Ballot(ballot), _)) if ballot.filer == *peer => ballots.push(ballot),
                        Ok(_) => tracing::warn!(%peer, "the peer gave no ballot of its own"),
                        Err(error) => tracing::info!(%peer, %error, "no ballot"),
                    }
                }
            }
            door.propose(body).await
        })
    }
}

/// Whether a cloud has failed between these two, or the CloudFS has moved away from the cloud that its operator prefers.
fn is_setback(before: &Roles, now: &Roles) -> bool {
    let has_failed = |cloud: CloudId| {
        now.cloud(cloud).state == CloudState::Failed && before.cloud(cloud).state != CloudState::Failed
    };
    let has_moved = now.active != before.active && now.active != now.preferred;
    has_moved || CloudId::BOTH.into_iter().any(has_failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use CloudId::{A, B};
    use CloudState::{Failed, Healthy, Resyncing};

    #[test]
    fn a_failure_and_a_failover_are_warned_of_and_the_way_back_is_not() {
        let roles = |active, states| Roles::new(Epoch(1), active, A, states, 0);
        let well = roles(A, [Healthy; 2]);
        for (before, now, is) in [
            (&well, roles(B, [Failed, Healthy]), true),
            (&well, roles(A, [Healthy, Failed]), true),
            (&well, roles(B, [Healthy; 2]), true),
            (&roles(B, [Failed, Healthy]), roles(B, [Resyncing, Healthy]), false),
            (&roles(B, [Resyncing, Healthy]), roles(B, [Failed, Healthy]), true),
            (&roles(B, [Resyncing, Healthy]), roles(B, [Healthy; 2]), false),
            (&roles(B, [Healthy; 2]), well.clone(), false),
        ] {
            assert_eq!(is_setback(before, &now), is, "{before:?} -> {now:?}");
        }
    }
}
