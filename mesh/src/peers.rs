//! How a filer reaches its peers, as a trait: QUIC in production, a simulated network in the simulator.

use crate::{FilerId, words::span};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Largest head of a call or an answer, in bytes.
pub const HEAD_BYTES_MAX: usize = 4 << 20;
/// Largest body of a call or an answer, in bytes.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// Who of a filer a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Channel {
    /// The replicated log.
    Consensus,
    /// The filer itself.
    Filer,
}

/// One call or one answer: a small head (a versioned record, see [`crate::record`]) and a raw body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub head: Bytes,
    pub body: Bytes,
}

/// Why a call has no answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CallError {
    /// No filer of that id is known.
    #[error("filer {0} is not a member of this mesh")]
    Unknown(FilerId),
    /// No session, or it broke before the answer came: the call may have been carried out.
    #[error("filer {to} cannot be reached: {why}")]
    Unreachable { to: FilerId, why: String },
    /// The deadline passed: the call may have been carried out.
    #[error("filer {to} gave no answer within {}", span(*after_ms))]
    TimedOut { to: FilerId, after_ms: u64 },
    /// The peer answered that it won't.
    #[error("filer {to} refused the call: {why}")]
    Refused { to: FilerId, why: String },
}

/// Where a member of the mesh is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Member {
    /// The site's name.
    pub name: String,
    /// `host:port` of its mesh door.
    pub address: String,
}

/// What this filer knows of a peer's session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    pub id: FilerId,
    pub name: String,
    pub address: String,
    /// Whether a session stands.
    pub connected: bool,
    /// Milliseconds since anything was heard from it; `None` before the first time.
    pub heard_ms_ago: Option<u64>,
    /// Round-trip time, in microseconds; `None` before the first measurement.
    pub rtt_us: Option<u64>,
    /// Why the last attempt at a session failed, while none stands.
    pub last_error: Option<String>,
}

/// The peers of a filer.
#[async_trait::async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Calls `to` and waits for its answer, at most `deadline`.
    async fn call(
        &self,
        to: FilerId,
        channel: Channel,
        call: Message,
        deadline: Duration,
    ) -> Result<Message, CallError>;

    /// Replaces the list of members (this filer's own entry is ignored). Sessions with others than these end.
    fn set_members(&self, members: BTreeMap<FilerId, Member>);

    /// Every member but this filer, in order of id.
    fn status(&self) -> Vec<PeerStatus>;

    /// Serial number of the certificate that this filer shows from its next session on, where it has one.
    fn certificate(&self) -> Option<String> {
        None
    }
}

/// Who a peer is, by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerName {
    pub id: FilerId,
    pub name: String,
}

/// A certificate's serial number as it is written everywhere: hexadecimal digits, without zeros in front.
pub fn serial_text(serial: &[u8]) -> String {
    let digits: String = serial.iter().map(|byte| format!("{byte:02x}")).collect();
    match digits.trim_start_matches('0') {
        "" => "0".into(),
        text => text.into(),
    }
}

/// What answers the calls of peers.
#[async_trait::async_trait]
pub trait Service: Send + Sync + 'static {
    /// Answers one call of the peer whose certificate says `from`, or says why not.
    async fn handle(&self, from: &PeerName, call: Message) -> Result<Message, String>;
}

/// The services of a filer, by channel.
#[derive(Clone)]
pub struct Services {
    pub consensus: Arc<dyn Service>,
    pub filer: Arc<dyn Service>,
}
