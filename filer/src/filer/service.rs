//! What a filer answers its peers.

use crate::{
    actors::health::{CastBallot, HealthActor},
    roles::CurrentRoles,
    wire::{FilerCall, FilerReply, Report, WIRE_VERSION},
};
use actix::Addr;
use bytes::Bytes;
use mesh::{
    clock::Clock,
    consensus::Consensus,
    peers::{BODY_BYTES_MAX, Message, PeerName, Peers, Service},
    record,
};
use std::{sync::Arc, time::Duration};
use storage::{cache::DiskCache, staging::Staging};

pub struct FilerService {
    pub consensus: Consensus,
    pub staging: Arc<Staging>,
    pub cache: Arc<DiskCache>,
    pub health: Addr<HealthActor>,
    pub roles: CurrentRoles,
    pub clock: Arc<dyn Clock>,
    pub peers: Arc<dyn Peers>,
    pub deadline: Duration,
}

#[async_trait::async_trait]
impl Service for FilerService {
    async fn handle(&self, from: &PeerName, call: Message) -> Result<Message, String> {
        let call = record::decode(WIRE_VERSION, &call.head).map_err(|e| e.to_string())?;
        let (reply, body) = self.answer(from, call).await?;
        Ok(Message { head: record::encode(WIRE_VERSION, &reply).into(), body })
    }
}

impl FilerService {
    /// Refuses a call that its caller has no standing for: a filer that is no member (yet, or any more) may ask to be let
    /// in, under the name that its certificate has, and nothing else.
    fn check_standing(&self, from: &PeerName, call: &FilerCall) -> Result<(), String> {
        let status = self.consensus.status();
        if status.removed.contains(&from.id) {
            return Err(format!("filer {} ({}) was removed from the CloudFS", from.id, from.name));
        }
        match call {
            FilerCall::Join { member } if member.name != from.name => Err(format!(
                "filer {} asks to join as {:?}, and its certificate is for {:?}: the settings must have that name",
                from.id, member.name, from.name
            )),
            FilerCall::Join { .. } => Ok(()),
            FilerCall::Ballot | FilerCall::ReadSegment { .. } | FilerCall::Report | FilerCall::Certificate => {
                let member = status.voters.contains_key(&from.id) || status.learners.contains_key(&from.id);
                let why = || format!("filer {} ({}) is no member of the CloudFS here", from.id, from.name);
                if member { Ok(()) } else { Err(why()) }
            }
        }
    }

    async fn answer(&self, from: &PeerName, call: FilerCall) -> Result<(FilerReply, Bytes), String> {
        if let Err(why) = self.check_standing(from, &call) {
            // A member that this filer does not know yet asks again; a stranger must not fill the log.
            tracing::debug!(filer = %from.id, name = %from.name, %why, "refused a peer's call");
            return Err(why);
        }
        match call {
            FilerCall::Ballot => {
                let ballot = self.health.send(CastBallot).await.map_err(|e| e.to_string())?;
                let ballot = ballot.ok_or("the clouds' roles are not known here yet")?;
                Ok((FilerReply::Ballot(ballot), Bytes::new()))
            }
            FilerCall::ReadSegment { segment, at, len } => {
                let len = len as usize;
                if len > BODY_BYTES_MAX {
                    return Err(format!("{len} bytes are more than an answer holds ({BODY_BYTES_MAX})"));
                }
                if self.staging.is_doubtful(segment) {
                    return Err(format!("segment {segment} was found damaged, and is being looked for in the clouds"));
                }
                let staged = self.staging.read(segment, at, len).await.map_err(|e| e.to_string())?;
                let bytes = match staged {
                    Some(bytes) => Some(bytes),
                    None => self.cache.read(segment, at, len).await,
                };
                let bytes = bytes.ok_or_else(|| format!("segment {segment} is no longer here"))?;
                Ok((FilerReply::Segment, bytes))
            }
            FilerCall::Report => {
                let status = self.staging.status();
                let age_ms = |wall_ns: u64| self.clock.wall_ns().saturating_sub(wall_ns) / 1_000_000;
                let report = Report {
                    staged_bytes: status.bytes,
                    oldest_unprotected_ms: status.oldest_wall_ns.map(age_ms),
                    epoch: self.roles.get().map_or(0, |roles| roles.epoch.0),
                    version: env!("CARGO_PKG_VERSION").into(),
                };
                Ok((FilerReply::Report(report), Bytes::new()))
            }
            FilerCall::Join { member } => {
                tracing::info!(filer = %from.id, name = %member.name, address = %member.address, "a filer asks to join");
                self.consensus.add_member(from.id, member, self.deadline).await.map_err(|e| e.to_string())?;
                Ok((FilerReply::Joined, Bytes::new()))
            }
            FilerCall::Certificate => {
                let serial = self.peers.certificate().ok_or("this filer serves without a certificate")?;
                Ok((FilerReply::Certificate { serial }, Bytes::new()))
            }
        }
    }
}
