//! The shell of `storage::health`: every attempt goes in, probes and wishes to the mesh come out.

use super::{
    Alarm, MAILBOX_MESSAGES_MAX, RolesChanged, Stopwatch,
    connector::{ConnectorActor, Probe},
    mesh::{Decide, MeshActor},
};
use crate::cloud_names::{called, in_words};
use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, MessageResult, WrapFuture};
use mesh::{FilerId, clock::Random, words::span};
use std::sync::Arc;
use storage::{
    cloudfs::{Ballot, CloudView, OpBody},
    health::{Attempt, Health, Input, News, Output, Settings, Streak},
    ids::CloudId,
};

/// One attempt at a cloud ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Attempted {
    pub cloud: CloudId,
    pub attempt: Attempt,
}

/// This filer leads and these are live, or it does not lead.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Leads(pub Option<Vec<FilerId>>);

/// Whom to tell: connectors, and the mesh.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Wire {
    pub connectors: [Addr<ConnectorActor>; 2],
    pub mesh: Addr<MeshActor>,
}

/// What does this filer see of both clouds?
#[derive(Message)]
#[rtype(result = "[CloudHealth; 2]")]
pub struct Views;

/// Cast this filer's ballot; `None` while it knows no roles. What it has not looked at lately it looks at meanwhile, for
/// the next ballot: else no majority could be had of filers that have nothing to do.
#[derive(Message)]
#[rtype(result = "Option<Ballot>")]
pub struct CastBallot;

/// What this filer sees of a cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudHealth {
    pub view: CloudView,
    /// Failed attempts since the start.
    pub failures_total: u64,
    pub last_failure: Option<String>,
    /// What fails now.
    pub streak: Option<Streak>,
}

/// The actor.
pub struct HealthActor {
    me: FilerId,
    machine: Health,
    settings: Settings,
    random: Arc<dyn Random>,
    watch: Stopwatch,
    alarm: Alarm,
    wire: Option<Wire>,
}

impl HealthActor {
    /// A filer's judgement of its clouds.
    pub fn new(me: FilerId, settings: Settings, random: Arc<dyn Random>) -> Self {
        let machine = Health::new(me, settings.clone());
        Self { me, machine, settings, random, watch: Stopwatch::start(), alarm: Alarm::default(), wire: None }
    }

    fn feed(&mut self, ctx: &mut Context<Self>, input: Input) {
        for output in self.machine.handle(self.watch.now_ms(), &*self.random, input) {
            self.perform(ctx, output);
        }
        for news in self.machine.take_news() {
            self.tell(&news);
        }
        self.alarm.set(self.watch, self.machine.deadline_ms(), ctx, |actor, ctx| {
            actor.alarm.rang();
            actor.feed(ctx, Input::Tick);
        });
    }

    fn tell(&self, news: &News) {
        match news {
            News::Fails { cloud, streak, why } => {
                let (segment, failures, trips_at) = (streak.piece, streak.failures, self.settings.failures_to_trip);
                tracing::warn!(cloud = %called(*cloud), %segment, failures, trips_at, %why, "the cloud is failing");
            }
            News::Works { cloud } => {
                let quiet_for = span(self.settings.works_again_ms);
                tracing::info!(cloud = %called(*cloud), %quiet_for, "the cloud works again");
            }
        }
    }

    fn perform(&mut self, ctx: &mut Context<Self>, output: Output) {
        let Some(wire) = &self.wire else {
            return;
        };
        let (cloud, decide) = match output {
            Output::Probe { cloud } => {
                let probe = wire.connectors[cloud.index()].send(Probe { filer: self.me });
                let (started_ms, slow_ms) = (self.watch.now_ms(), self.settings.slow_ms);
                let ended = probe.into_actor(self).map(move |result, actor: &mut Self, ctx| {
                    let took_ms = actor.watch.now_ms() - started_ms;
                    let failed = match result {
                        // A cloud that failed since it was slow is not back while it is.
                        Ok(Ok(())) if took_ms >= slow_ms => Some(format!("a probe took {}", span(took_ms))),
                        Ok(Ok(())) => None,
                        Ok(Err(error)) => Some(error.to_string()),
                        Err(error) => Some(error.to_string()),
                    };
                    actor.feed(ctx, Input::Probed { cloud, failed });
                });
                ctx.spawn(ended);
                return;
            }
            Output::Trip { cloud, epoch, why } => {
                tracing::warn!(cloud = %called(cloud), %epoch, %why, "this filer trips the cloud");
                let policy = self.settings.trip_policy;
                // The mesh's actor knows the voters and gathers their ballots.
                (cloud, OpBody::Trip { cloud, epoch, why, ballots: Vec::new(), voters: 0, policy })
            }
            Output::Reached { cloud, epoch, reached } => (cloud, OpBody::Reached { cloud, epoch, reached }),
            Output::StartResync { cloud, epoch, live } => (cloud, OpBody::StartResync { cloud, epoch, live }),
            Output::FinishResync { cloud, epoch } => (cloud, OpBody::FinishResync { cloud, epoch }),
            Output::Failback { to, epoch } => (to, OpBody::Activate { to, epoch, by: "auto".into() }),
        };
        let answered = wire.mesh.send(Decide(decide)).into_actor(self).map(move |result, actor, ctx| {
            let refused = match result {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(why) = refused.as_deref().map(in_words) {
                tracing::info!(cloud = %called(cloud), %why, "a wish about the cloud was not granted");
            }
            actor.feed(ctx, Input::Answered { cloud, refused });
        });
        ctx.spawn(answered);
    }
}

impl Actor for HealthActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_MESSAGES_MAX);
    }
}

impl Handler<Wire> for HealthActor {
    type Result = ();

    fn handle(&mut self, wire: Wire, _ctx: &mut Self::Context) {
        self.wire = Some(wire);
    }
}

impl Handler<Attempted> for HealthActor {
    type Result = ();

    fn handle(&mut self, Attempted { cloud, attempt }: Attempted, ctx: &mut Self::Context) {
        self.feed(ctx, Input::Attempted { cloud, attempt });
    }
}

impl Handler<RolesChanged> for HealthActor {
    type Result = ();

    fn handle(&mut self, RolesChanged(roles): RolesChanged, ctx: &mut Self::Context) {
        self.feed(ctx, Input::Roles(roles));
    }
}

impl Handler<Leads> for HealthActor {
    type Result = ();

    fn handle(&mut self, Leads(live): Leads, ctx: &mut Self::Context) {
        self.feed(ctx, Input::Leads(live));
    }
}

impl Handler<CastBallot> for HealthActor {
    type Result = Option<Ballot>;

    fn handle(&mut self, _: CastBallot, ctx: &mut Self::Context) -> Self::Result {
        let ballot = self.machine.ballot(self.watch.now_ms());
        self.feed(ctx, Input::BallotAsked);
        ballot
    }
}

impl Handler<Views> for HealthActor {
    type Result = MessageResult<Views>;

    fn handle(&mut self, _: Views, _ctx: &mut Self::Context) -> Self::Result {
        let (views, now_ms) = (self.machine.views(), self.watch.now_ms());
        MessageResult(CloudId::BOTH.map(|cloud| {
            let (failures_total, last_failure) = self.machine.failures(cloud);
            CloudHealth {
                view: views[cloud.index()],
                failures_total,
                last_failure: last_failure.map(Into::into),
                streak: self.machine.streak(now_ms, cloud),
            }
        }))
    }
}
