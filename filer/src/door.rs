//! The one door: how a filer changes the CloudFS, and how it makes sure that it sees every earlier change.
//!
//! Owns: the operation's envelope (who, when) and its deadline. Does not own: the log (`mesh::consensus`) and the
//! operation's meaning (`storage::cloudfs`).

use mesh::{
    FilerId,
    clock::Clock,
    consensus::{Consensus, Ticket, api::ProposeError},
};
use std::{sync::Arc, time::Duration};
use storage::cloudfs::{Answer, Op, OpBody, OpError, decode_answer, decode_op, encode_op};

/// The replicated log, as the filer uses it.
#[async_trait::async_trait]
pub trait Replica: Send + Sync + 'static {
    /// The identity of an operation that is to be applied once.
    fn ticket(&self) -> Ticket;
    /// Proposes the ticket's operation; the answer comes when it is applied here.
    async fn propose_as(&self, ticket: &Ticket, op: Vec<u8>, deadline: Duration) -> Result<Vec<u8>, ProposeError>;
    /// Returns when the local tables hold everything that was acknowledged anywhere before.
    async fn barrier(&self, deadline: Duration) -> Result<(), ProposeError>;
    /// Milliseconds since the leader was heard from (0 at the leader itself, while it has a majority).
    fn leader_heard_ms_ago(&self) -> Option<u64>;
}

#[async_trait::async_trait]
impl Replica for Consensus {
    fn ticket(&self) -> Ticket {
        Consensus::ticket(self)
    }

    async fn propose_as(&self, ticket: &Ticket, op: Vec<u8>, deadline: Duration) -> Result<Vec<u8>, ProposeError> {
        Consensus::propose_as(self, ticket, op, deadline).await
    }

    async fn barrier(&self, deadline: Duration) -> Result<(), ProposeError> {
        Consensus::barrier(self, deadline).await.map(|_| ())
    }

    fn leader_heard_ms_ago(&self) -> Option<u64> {
        Consensus::leader_heard_ms_ago(self)
    }
}

/// Why an operation was not carried out.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum DoorError {
    /// The state machine refused it; nothing changed.
    #[error(transparent)]
    Refused(#[from] OpError),
    /// It has no answer; it may still be applied.
    #[error(transparent)]
    Unanswered(#[from] ProposeError),
    /// The answer is of a newer filer.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
}

/// One operation, which is applied once, however often it is asked for.
pub struct Once {
    ticket: Ticket,
    op: Vec<u8>,
}

impl Once {
    /// The operation.
    pub fn body(&self) -> OpBody {
        decode_op(&self.op).expect("it was encoded here").body
    }
}

/// The door of one filer. A clone is another handle.
#[derive(Clone)]
pub struct Door {
    me: FilerId,
    replica: Arc<dyn Replica>,
    clock: Arc<dyn Clock>,
    deadline: Duration,
}

impl Door {
    /// A door whose operations wait at most `deadline` for their answer.
    pub fn new(me: FilerId, replica: Arc<dyn Replica>, clock: Arc<dyn Clock>, deadline: Duration) -> Self {
        Self { me, replica, clock, deadline }
    }

    /// Carries out an operation.
    pub async fn propose(&self, body: OpBody) -> Result<Answer, DoorError> {
        self.ask(&self.once(body)).await
    }

    /// An operation for which [`Door::ask`] may be called again when it has no answer.
    pub fn once(&self, body: OpBody) -> Once {
        let op = Op { filer: self.me, wall_ns: self.clock.wall_ns(), body };
        Once { ticket: self.replica.ticket(), op: encode_op(&op) }
    }

    /// Carries out an operation, or gets its answer if it was carried out already.
    pub async fn ask(&self, once: &Once) -> Result<Answer, DoorError> {
        let answer = self.replica.propose_as(&once.ticket, once.op.clone(), self.deadline).await?;
        let answer = decode_answer(&answer).map_err(|e| DoorError::Unreadable(e.to_string()))?;
        Ok(answer?)
    }

    /// Waits until the local tables hold everything acknowledged anywhere before this call.
    pub async fn barrier(&self) -> Result<(), DoorError> {
        Ok(self.replica.barrier(self.deadline).await?)
    }

    /// Milliseconds since the leader of the replicated log was heard from.
    pub fn leader_heard_ms_ago(&self) -> Option<u64> {
        self.replica.leader_heard_ms_ago()
    }

    /// This filer.
    pub fn me(&self) -> FilerId {
        self.me
    }

    /// Wall time, nanoseconds since the Unix epoch.
    pub fn wall_ns(&self) -> u64 {
        self.clock.wall_ns()
    }
}
