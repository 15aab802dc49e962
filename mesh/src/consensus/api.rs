//! What the rest of the product sees of consensus; the engine (openraft) stays behind this module.

use super::revoked::RevokedList;
use crate::{
    FilerId,
    kv::{KvError, Txn},
    peers::Member,
    words::span,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What the log's operations mean. Applied at every filer, in the same order, with the same results.
///
/// The state is the table [`STATE`](crate::kv::STATE). Keys whose first byte is `0x00` belong to the replicated log
/// itself (answers of recent requests, removed filers): operations neither read nor write them, and every key of
/// theirs begins with a byte of at least `0x01`.
pub trait StateMachine: Send + Sync + 'static {
    /// Applies one operation, which filer `from` proposed, to the state and gives its answer. Must depend on the
    /// arguments alone. An `Err` means that the tables failed: the filer stops rather than diverge.
    fn apply(&self, txn: &mut Txn<'_>, from: FilerId, op: &[u8]) -> Result<Vec<u8>, KvError>;

    /// Told after the state up to `index` is visible in the tables (`snapshot`: it was replaced as a whole).
    fn applied(&self, index: u64, snapshot: bool);
}

/// Why an operation has no answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProposeError {
    /// No majority could be reached before the deadline. The operation may still be applied later, unless its ticket
    /// says that it was never handed over; proposing it again as the same request is harmless.
    #[error("no majority of the filers has answered for {}", span(*after_ms))]
    NoMajority { after_ms: u64 },
    /// The operation is too large for the log.
    #[error("an operation of {bytes} bytes is above the limit of {bytes_max}")]
    TooLarge { bytes: usize, bytes_max: usize },
    /// This filer's replica has stopped, and why.
    #[error("this filer's replica has stopped: {0}")]
    Stopped(String),
    /// This filer is not a member (not yet, or no longer).
    #[error("this filer is not a member of the CloudFS")]
    NotMember,
}

/// What a filer's replica knows now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsensusStatus {
    pub term: u64,
    /// The leader, where one is known and was heard from recently.
    pub leader: Option<FilerId>,
    /// Index of the last operation applied here.
    pub applied: u64,
    /// Index of the last entry in this filer's log.
    pub last_log: u64,
    /// Voting members.
    pub voters: BTreeMap<FilerId, Member>,
    /// The sets of voters of each of which a majority must agree, by the members that are certain and by those that are about
    /// to be: one, or more while the members change (joint consensus, section 6 of the Raft paper).
    pub majorities_of: BTreeSet<BTreeSet<FilerId>>,
    /// Members that only learn (being added).
    pub learners: BTreeMap<FilerId, Member>,
    /// Milliseconds since a majority was last known to stand behind the leader; only the leader knows it.
    pub majority_ms_ago: Option<u64>,
    /// Filers that were removed; their ids are never used again.
    pub removed: BTreeSet<FilerId>,
    /// Certificates that are refused before their end.
    pub revoked: RevokedList,
}

/// Why a replica did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting contradicts another one or a limit.
    #[error("the consensus settings cannot be used: {0}")]
    Settings(String),
    /// The tables failed.
    #[error("while reading the replica's tables")]
    Tables(#[from] KvError),
    /// A record in the tables cannot be read.
    #[error("the record {what} of the replica cannot be read")]
    Record {
        what: &'static str,
        #[source]
        source: crate::record::RecordError,
    },
    /// The engine found the tables in a state that it cannot continue from.
    #[error("the replica's log cannot be continued: {0}")]
    Engine(String),
}

/// Why the members were not changed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum MembershipError {
    /// The first filer of a CloudFS starts with empty tables; this one has a log already.
    #[error("this filer belongs to a CloudFS already")]
    AlreadyStarted,
    /// The id belonged to a filer that was removed.
    #[error("filer {0} was removed; its id is never used again")]
    Removed(FilerId),
    /// The filer has never been a member.
    #[error("filer {0} is not a member")]
    Unknown(FilerId),
    /// Somebody has to remain.
    #[error("filer {0} is the last member that votes")]
    LastVoter(FilerId),
    /// Names tell filers apart for people, and addresses for the mesh.
    #[error("filer {by} has the {what} {value:?} already: give each filer one of its own")]
    Taken { what: String, value: String, by: FilerId },
    /// Its name or address is none, or what is to be revoked is no certificate.
    #[error("{0}")]
    Malformed(String),
    /// It was added, but did not receive the log in time. Adding it again continues.
    #[error("filer {id} is added but has not caught up within {}; adding it again continues", span(*after_ms))]
    NotCaughtUp { id: FilerId, after_ms: u64 },
    /// As for any change of the CloudFS. The members may still change later; asking again is harmless.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}
