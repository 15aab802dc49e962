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
    door::{Door, DoorError},
    roles::CurrentRoles,
    wire::{self, FilerCall, FilerReply},
};
use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, MessageResult, ResponseFuture};
use mesh::{FilerId, consensus::Consensus, kv::Kv, peers::Peers};
use std::{sync::Arc, time::Duration};
use storage::cloudfs::{Answer, OpBody, read};
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

/// Have the mesh decide this. A trip's ballots are gathered first.
#[derive(Message)]
#[rtype(result = "Result<Answer, DoorError>")]
pub struct Decide(pub OpBody);

/// Operations were applied: look at what they have changed.
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
    /// Told after operations were applied.
    applied: Arc<Notify>,
    wire: Option<Wire>,
    told: Option<MeshChanged>,
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
        applied: Arc<Notify>,
    ) -> Self {
        Self { me, settings, consensus, peers, kv, door, roles, applied, wire: None, told: None }
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
                        let states = roles.clouds.each_ref().map(|cloud| cloud.state);
                        tracing::info!(epoch = %roles.epoch, active = %roles.active, ?states, "new roles");
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
            self.told = Some(now);
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
        let (applied, me) = (self.applied.clone(), ctx.address().downgrade());
        actix::spawn(async move {
            loop {
                applied.notified().await;
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
