//! Answers to the calls of peers.

use super::{
    engine::{Command, SnapshotMeta, Vote},
    propose::Attempt,
    replica::Core,
    snapshot::{Arrived, SnapshotData},
    wire::{Call, Changed, PieceHead, Proposed, Reply, read_call, write_reply},
};
use crate::{
    FilerId,
    peers::{Message, PeerName, Service},
};
use bytes::Bytes;
use openraft::{
    Snapshot,
    raft::{AppendEntriesResponse, SnapshotResponse},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};

/// Longest that a peer may have this filer wait on its behalf.
const WITHIN_MAX: Duration = Duration::from_secs(600);

/// The replica, as its peers see it.
pub struct Replies(pub Arc<Core>);

#[async_trait::async_trait]
impl Service for Replies {
    async fn handle(&self, from: &PeerName, call: Message) -> Result<Message, String> {
        let from = from.id;
        let core = self.0.clone();
        core.shared.stopped().map_err(|e| e.to_string())?;
        core.arrivals.tidy().await.map_err(|e| e.to_string())?;
        let question = read_call(&call).map_err(|e| e.to_string())?;
        let reply = core.env.scope(core.reply(from, question, call.body)).await?;
        Ok(write_reply(&reply))
    }
}

fn until(within_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(within_ms).min(WITHIN_MAX)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Core {
    async fn reply(self: &Arc<Self>, from: FilerId, call: Call, body: Bytes) -> Result<Reply, String> {
        // A filer that was removed neither stands for election nor has a say, but while it is on its way out it may
        // still lead, and then its entries count.
        let asks = !matches!(call, Call::Append(_) | Call::Piece(_) | Call::Transfer(_));
        if asks && self.shared.is_removed(from) {
            return Ok(Reply::Removed);
        }
        self.check_standing(from, &call).await?;
        match call {
            Call::Append(rpc) => {
                let response = self.raft.append_entries(rpc).await.map_err(text)?;
                if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
                    self.shared.hear(from);
                }
                Ok(Reply::Append(response))
            }
            Call::Vote(rpc) => self.raft.vote(rpc).await.map(Reply::Vote).map_err(text),
            Call::PreVote(rpc) => self.raft.pre_vote(rpc).await.map(Reply::PreVote).map_err(text),
            Call::Transfer(rpc) => self.raft.handle_transfer_leader(rpc).await.map(Reply::Transfer).map_err(text),
            Call::Piece(head) => self.take_piece(from, head, &body).await.map(Reply::Piece),
            Call::Propose { commands, within_ms } => self.propose_for(from, commands, until(within_ms)).await,
            Call::ReadIndex { within_ms } => {
                Ok(Reply::ReadIndex(self.read_index_for(Duration::from_millis(within_ms).min(WITHIN_MAX)).await))
            }
            Call::Change { change, within_ms } => {
                let changed = timeout_at(until(within_ms), self.change_here(change, until(within_ms))).await;
                Ok(Reply::Change(changed.unwrap_or(Changed::NotLeader)))
            }
            Call::IsMember(id) => Ok(Reply::IsMember(self.knows(id, false) && !self.shared.is_removed(id))),
        }
    }

    async fn propose_for(
        self: &Arc<Self>,
        from: FilerId,
        commands: Vec<Command>,
        until: Instant,
    ) -> Result<Reply, String> {
        if commands.len() > self.settings.forward_ops_max.max(1 << 16) {
            return Err(format!("{} operations in one call are too many", commands.len()));
        }
        let bytes_max = self.settings.op_bytes_max;
        for command in &commands {
            match command {
                Command::Op(request, op) if request.filer == from && op.len() <= bytes_max => (),
                other => return Err(format!("filer {from} may not propose: {other}")),
            }
        }
        if self.leader() != Some(self.me) {
            return Ok(Reply::Propose(vec![Proposed::NotLeader; commands.len()]));
        }
        let write = |command| async {
            match timeout_at(until, self.write(command)).await {
                Ok(Attempt::Applied { index, outcome }) => Proposed::Applied { index, outcome },
                Ok(Attempt::Again) | Err(_) => Proposed::NotLeader,
                Ok(Attempt::Failed(_)) => Proposed::Stopped,
            }
        };
        Ok(Reply::Propose(futures::future::join_all(commands.into_iter().map(write)).await))
    }

    async fn take_piece(
        &self,
        from: FilerId,
        head: PieceHead,
        body: &Bytes,
    ) -> Result<Option<SnapshotResponse<super::engine::Types>>, String> {
        let PieceHead { vote, meta, transfer, number, checksum, last } = head;
        match self.arrivals.take(from, transfer, number, body, checksum, last).await.map_err(text)? {
            Some(arrived) => self.install(vote, meta, arrived).await.map(Some),
            None => Ok(None),
        }
    }

    async fn install(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        arrived: Arrived,
    ) -> Result<SnapshotResponse<super::engine::Types>, String> {
        let snapshot = Snapshot { meta, snapshot: SnapshotData::Arrived(arrived) };
        self.raft.install_full_snapshot(vote, snapshot).await.map_err(text)
    }
}
