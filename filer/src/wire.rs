//! What filers say to each other beside the replicated log.

use bytes::Bytes;
use mesh::{
    FilerId,
    peers::{CallError, Channel, Member, Message, Peers},
    record,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use storage::{cloudfs::Ballot, ids::SegmentId};

/// Format version of these messages.
pub const WIRE_VERSION: u8 = 2;

/// A call to a filer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilerCall {
    /// What have you seen of both clouds lately?
    Ballot,
    /// The bytes of a segment that is not in a cloud yet: `len` bytes from `at`, in the answer's body.
    ReadSegment { segment: SegmentId, at: u64, len: u32 },
    /// How are you?
    Report,
    /// Let me in: my certificate says that I may.
    Join { member: Member },
    /// With which certificate do you serve?
    Certificate,
}

/// An answer of a filer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilerReply {
    Ballot(Ballot),
    /// The body has the bytes.
    Segment,
    Report(Report),
    Joined,
    /// Its serial number.
    Certificate {
        serial: String,
    },
}

/// How a filer is, for its peers' status pages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Bytes in staging that are not released.
    pub staged_bytes: u64,
    /// Age of the oldest byte that is not yet in every cloud that must hold it, in milliseconds.
    pub oldest_unprotected_ms: Option<u64>,
    /// The epoch it has seen.
    pub epoch: u64,
    /// Version of its program.
    pub version: String,
}

/// Calls a peer.
pub async fn call(
    peers: &dyn Peers,
    to: FilerId,
    call: &FilerCall,
    deadline: Duration,
) -> Result<(FilerReply, Bytes), CallError> {
    let message = Message { head: record::encode(WIRE_VERSION, call).into(), body: Bytes::new() };
    let answer = peers.call(to, Channel::Filer, message, deadline).await?;
    let reply = record::decode(WIRE_VERSION, &answer.head)
        .map_err(|e| CallError::Refused { to, why: format!("its answer cannot be read: {e}") })?;
    Ok((reply, answer.body))
}
