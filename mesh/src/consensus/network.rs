//! The engine's calls to its peers.

use super::{
    engine::{SnapshotMeta, Types, Vote},
    runtime::Env,
    settings::Settings,
    shared::Shared,
    snapshot::{Cutter, SnapshotData},
    wire::{AskError, Call, PieceHead, Reply, ask},
};
use crate::{FilerId, peers::Member, peers::Peers};
use bytes::Bytes;
use openraft::{
    RaftNetworkFactory, RaftNetworkV2,
    alias::SnapshotOf,
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
        VoteRequest, VoteResponse,
    },
};
use std::{future::Future, pin::pin, sync::Arc, time::Duration};

/// Makes the links to peers.
#[derive(Clone)]
pub struct Network {
    pub peers: Arc<dyn Peers>,
    pub shared: Arc<Shared>,
    pub settings: Arc<Settings>,
    pub env: Env,
}

/// The way to one peer.
pub struct Link {
    network: Network,
    to: FilerId,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: FilerId, _node: &Member) -> Link {
        Link { network: self.clone(), to: target }
    }
}

fn unreachable(error: &AskError) -> Unreachable<Types> {
    Unreachable::new(error)
}

impl Link {
    async fn ask(&self, call: &Call, body: Bytes, deadline: Duration) -> Result<Reply, AskError> {
        let reply = ask(&*self.network.peers, self.to, call, body, deadline).await;
        if let Err(AskError::Removed) = reply {
            self.network.shared.dismiss();
        }
        reply
    }

    async fn ask_shortly(&self, call: &Call) -> Result<Reply, AskError> {
        self.ask(call, Bytes::new(), self.network.settings.call_deadline()).await
    }

    async fn send_pieces(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        mut cutter: Cutter,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let transfer = self.network.env.draw();
        let deadline = self.network.settings.snapshot_deadline();
        let mut number = 0;
        loop {
            let piece = cutter.next().map_err(|e| Unreachable::new(&e))?;
            let (checksum, last) = (piece.checksum, piece.last);
            let head = PieceHead { vote, meta: meta.clone(), transfer, number, checksum, last };
            let reply = self.ask(&Call::Piece(head), piece.body, deadline).await;
            match reply.map_err(|e| unreachable(&e))? {
                Reply::Piece(Some(response)) => return Ok(response),
                Reply::Piece(None) if !last => number += 1,
                _ => return Err(unreachable(&AskError::Mismatch).into()),
            }
        }
    }
}

/// The answer of the right kind.
macro_rules! expect_reply {
    ($reply:expr, $kind:path) => {
        match $reply.await {
            Ok($kind(answer)) => Ok(answer),
            Ok(_) => Err(RPCError::Unreachable(unreachable(&AskError::Mismatch))),
            Err(error) => Err(RPCError::Unreachable(unreachable(&error))),
        }
    };
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        expect_reply!(self.ask_shortly(&Call::Append(rpc)), Reply::Append)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        expect_reply!(self.ask_shortly(&Call::Vote(rpc)), Reply::Vote)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        _option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        expect_reply!(self.ask_shortly(&Call::PreVote(rpc)), Reply::PreVote)
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        expect_reply!(self.ask_shortly(&Call::Transfer(req)), Reply::Transfer)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Types, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let SnapshotData::View(view) = snapshot.snapshot else {
            return Err(Unreachable::from_string("the snapshot to send holds no state").into());
        };
        let cutter = Cutter::new(view, self.network.settings.snapshot_chunk_bytes);
        let send = pin!(self.send_pieces(vote, snapshot.meta, cutter));
        tokio::select! {
            biased;
            closed = pin!(cancel) => Err(closed.into()),
            sent = send => sent,
        }
    }
}
