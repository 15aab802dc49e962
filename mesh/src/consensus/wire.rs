//! What replicas say to each other, as versioned records in the head of a call; a snapshot's bytes are its body.

use super::{
    api::MembershipError,
    engine::{Command, Outcome, SnapshotMeta, Types, Vote},
    revoked::Revoked,
};
use crate::{
    FilerId,
    peers::{CallError, Channel, Member, Message, Peers},
    record::{self, RecordError},
};
use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Format version of calls and answers.
const VERSION: u8 = 2;

/// A question to a replica.
#[derive(Debug, Serialize, Deserialize)]
pub enum Call {
    /// Entries, or a sign of life, from the leader.
    Append(AppendEntriesRequest<Types>),
    /// For whom do you vote?
    Vote(VoteRequest<Types>),
    /// Would you vote for me, if I stood?
    PreVote(VoteRequest<Types>),
    /// The leader hands over.
    Transfer(TransferLeaderRequest<Types>),
    /// A piece of a snapshot; its bytes are the body.
    Piece(PieceHead),
    /// Put these into the log, and answer each when it is applied.
    Propose {
        commands: Vec<Command>,
        /// How long the answer is waited for, in milliseconds.
        within_ms: u64,
    },
    /// Up to where must I have applied, to have seen everything acknowledged before now?
    ReadIndex { within_ms: u64 },
    /// Change the members.
    Change { change: Change, within_ms: u64 },
    /// Do you know this filer as a member?
    IsMember(FilerId),
}

/// What goes with a piece of a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub struct PieceHead {
    pub vote: Vote,
    pub meta: SnapshotMeta,
    /// Tells transfers apart.
    pub transfer: u64,
    /// From 0.
    pub number: u64,
    /// CRC-32C of the body.
    pub checksum: u32,
    pub last: bool,
}

/// A change of the members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    Add(FilerId, Member),
    Remove(FilerId),
    Revoke(Revoked),
}

/// The answer to the [`Call`] of the same name.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    PreVote(VoteResponse<Types>),
    Transfer(TransferLeaderResponse<Types>),
    /// The piece was taken; with the last one, what became of the snapshot.
    Piece(Option<SnapshotResponse<Types>>),
    Propose(Vec<Proposed>),
    ReadIndex(ReadIndex),
    Change(Changed),
    IsMember(bool),
    /// The caller was removed.
    Removed,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proposed {
    /// It is applied at the leader.
    Applied { index: u64, outcome: Outcome },
    /// Not the leader, or no longer: it may have been applied or not.
    NotLeader,
    /// The replica there has stopped.
    Stopped,
}

/// Whether the answerer may say up to where to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadIndex {
    Upto(u64),
    NotLeader,
}

/// What became of a change of the members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Changed {
    /// It is in force; as of this index.
    Done(u64),
    Refused(MembershipError),
    NotLeader,
}

/// Why a question has no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the answer cannot be read")]
    Record(#[from] RecordError),
    #[error("the answer is one to another question")]
    Mismatch,
    #[error("this filer was removed")]
    Removed,
}

/// Asks a peer.
pub async fn ask(
    peers: &dyn Peers,
    to: FilerId,
    call: &Call,
    body: Bytes,
    deadline: Duration,
) -> Result<Reply, AskError> {
    let message = Message { head: record::encode(VERSION, call).into(), body };
    let answer = peers.call(to, Channel::Consensus, message, deadline).await?;
    match record::decode(VERSION, &answer.head)? {
        Reply::Removed => Err(AskError::Removed),
        reply => Ok(reply),
    }
}

/// Reads a question.
pub fn read_call(message: &Message) -> Result<Call, RecordError> {
    record::decode(VERSION, &message.head)
}

/// Writes an answer.
pub fn write_reply(reply: &Reply) -> Message {
    Message { head: record::encode(VERSION, reply).into(), body: Bytes::new() }
}
