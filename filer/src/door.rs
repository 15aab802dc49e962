//! The one door: how a filer changes the CloudFS, and how it makes sure that it sees every earlier change.
//!
//! A client's change must not be answered before its outcome is known. A client that is told to ask again later does so
//! as a new call: its second REMOVE would take away what somebody has made since, its second CREATE would find its own
//! file. So [`Door::carry_out`] refuses before it proposes, when this filer knows that it has no majority; once the
//! operation may have reached a log, it is asked for under the same ticket until its answer comes, however long a
//! partition lasts. How many operations may be between these two is bounded, and those that wait for long are shown.
//!
//! What a filer proposes of itself ([`Door::propose`]) may be proposed anew: the rules of the state machine see to that.
//!
//! Owns: the operation's envelope (who, when), its deadline, the operations without an outcome. Does not own: the log
//! (`mesh::consensus`) and the operation's meaning (`storage::cloudfs`).

use mesh::{
    FilerId,
    clock::Clock,
    consensus::{Consensus, Ticket, api::ProposeError},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use storage::cloudfs::{Answer, Op, OpBody, OpError, decode_answer, decode_op, encode_op};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

/// How far ahead of the clock an operation's time may be for the sake of what clients were shown, in nanoseconds.
pub const SHOWN_AHEAD_NS_MAX: u64 = 60_000_000_000;
/// Pause before an operation without an outcome is asked for again, when the last question was refused at once.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// The replicated log, as the filer uses it.
#[async_trait::async_trait]
pub trait Replica: Send + Sync + 'static {
    /// The identity of an operation that is to be applied once.
    fn ticket(&self) -> Ticket;
    /// Proposes the ticket's operation; the answer comes when it is applied here.
    async fn propose_as(&self, ticket: &Ticket, op: Vec<u8>, deadline: Duration) -> Result<Vec<u8>, ProposeError>;
    /// Returns when the local tables hold everything that was acknowledged anywhere before.
    async fn barrier(&self, deadline: Duration) -> Result<(), ProposeError>;
    /// `Err` when this filer knows that nothing can be agreed now, such as without a majority. `Ok` is no promise.
    fn check_majority(&self) -> Result<(), ProposeError>;
    /// Returns when [`Replica::check_majority`] would give an error, with that error.
    async fn majority_lost(&self) -> ProposeError;
    /// Returns when [`Replica::check_majority`] would give none.
    async fn majority_found(&self);
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

    fn check_majority(&self) -> Result<(), ProposeError> {
        Consensus::check_majority(self)
    }

    async fn majority_lost(&self) -> ProposeError {
        Consensus::majority_lost(self).await
    }

    async fn majority_found(&self) {
        Consensus::majority_found(self).await
    }
}

/// Why an operation was not carried out.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum DoorError {
    /// The state machine refused it; nothing changed.
    #[error(transparent)]
    Refused(#[from] OpError),
    /// It was given to nobody, and never will be: it changes nothing.
    #[error("nothing was changed: {0}")]
    NotProposed(ProposeError),
    /// As many operations as may be wait for their outcome; this one was not proposed.
    #[error("nothing was changed: {in_flight} changes of this filer wait to be agreed, which is its limit")]
    Busy { in_flight: usize },
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

    /// Whether it may have reached a log.
    pub fn was_proposed(&self) -> bool {
        self.ticket.was_handed_over()
    }
}

/// Clients' operations that are under way.
struct UnderWay {
    slots: Semaphore,
    slots_max: usize,
    /// Since when those are without an outcome whose first deadline has passed, by a number of their own.
    undecided: Mutex<(u64, BTreeMap<u64, Instant>)>,
}

/// Clients' operations whose outcome is not known after their first deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Undecided {
    pub operations: usize,
    /// How long the oldest of them has been under way.
    pub oldest_ms: Option<u64>,
}

/// An entry of [`UnderWay::undecided`] as long as it lives.
struct Noted<'a> {
    under_way: &'a UnderWay,
    number: u64,
}

impl UnderWay {
    fn undecided(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Instant>)> {
        self.undecided.lock().expect("no holder of the undecided operations panics")
    }

    fn note(&self, since: Instant) -> Noted<'_> {
        let mut undecided = self.undecided();
        let number = undecided.0;
        undecided.0 += 1;
        undecided.1.insert(number, since);
        Noted { under_way: self, number }
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.under_way.undecided().1.remove(&self.number);
    }
}

/// The door of one filer. A clone is another handle.
#[derive(Clone)]
pub struct Door {
    me: FilerId,
    replica: Arc<dyn Replica>,
    clock: Arc<dyn Clock>,
    deadline: Duration,
    under_way: Arc<UnderWay>,
}

impl Door {
    /// A door that waits at most `deadline` for an answer at a time, with at most `changes_in_flight_max` changes of
    /// clients under way.
    pub fn new(
        me: FilerId,
        replica: Arc<dyn Replica>,
        clock: Arc<dyn Clock>,
        deadline: Duration,
        changes_in_flight_max: usize,
    ) -> Self {
        let under_way = UnderWay {
            slots: Semaphore::new(changes_in_flight_max),
            slots_max: changes_in_flight_max,
            undecided: Mutex::default(),
        };
        Self { me, replica, clock, deadline, under_way: Arc::new(under_way) }
    }

    /// Proposes an operation that may be proposed anew, should it have no answer.
    pub async fn propose(&self, body: OpBody) -> Result<Answer, DoorError> {
        self.ask(&self.once(body, 0)).await
    }

    /// Carries out an operation of a client to its outcome: it was applied, refused, or is certain never to take effect.
    /// Never [`DoorError::Unanswered`]; instead it takes as long as there is no majority.
    pub async fn carry_out(&self, body: OpBody) -> Result<Answer, DoorError> {
        let begun = Instant::now();
        let admitted = async {
            self.replica.majority_found().await;
            self.under_way.slots.acquire().await.expect("the slots are never closed")
        };
        let Ok(_slot) = timeout(self.deadline, admitted).await else {
            self.replica.check_majority().map_err(DoorError::NotProposed)?;
            return Err(DoorError::Busy { in_flight: self.under_way.slots_max });
        };
        let once = self.once(body, 0);
        let mut noted = None;
        loop {
            let asked = Instant::now();
            match self.ask(&once).await {
                Err(DoorError::Unanswered(error)) if !once.ticket.was_handed_over() => {
                    return Err(DoorError::NotProposed(error));
                }
                Err(DoorError::Unanswered(error)) => {
                    if noted.is_none() {
                        tracing::warn!(%error, "a change has no outcome yet: its client gets no answer before it has");
                        noted = Some(self.under_way.note(begun));
                    }
                    if asked.elapsed() < self.deadline {
                        sleep(ASK_AGAIN).await;
                    }
                }
                outcome => {
                    if noted.is_some() {
                        tracing::info!(after_ms = begun.elapsed().as_millis() as u64, "the change has its outcome");
                    }
                    return outcome;
                }
            }
        }
    }

    /// An operation for which [`Door::ask`] may be called again when it has no answer. Its time is not before
    /// `not_before_ns`, nanoseconds since the Unix epoch, such as a time that clients were shown already; unless that is
    /// so far ahead that it was shown by a clock which was wrong then: its word must not outlive it.
    pub fn once(&self, body: OpBody, not_before_ns: u64) -> Once {
        let now_ns = self.clock.wall_ns();
        let is_near = not_before_ns <= now_ns.saturating_add(SHOWN_AHEAD_NS_MAX);
        let op = Op { filer: self.me, wall_ns: if is_near { now_ns.max(not_before_ns) } else { now_ns }, body };
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

    /// As [`Door::barrier`], but gives up as soon as this filer knows that it has no majority.
    pub async fn barrier_while_majority(&self) -> Result<(), DoorError> {
        tokio::select! {
            biased;
            lost = self.replica.majority_lost() => Err(lost.into()),
            passed = self.barrier() => passed,
        }
    }

    /// Whether this filer knows that it has no majority.
    pub fn knows_no_majority(&self) -> bool {
        matches!(self.replica.check_majority(), Err(ProposeError::NoMajority { .. }))
    }

    /// Clients' operations whose outcome has been unknown for long.
    pub fn undecided(&self) -> Undecided {
        let undecided = self.under_way.undecided();
        let oldest = undecided.1.values().min();
        let oldest_ms = oldest.map(|since| since.elapsed().as_millis() as u64);
        Undecided { operations: undecided.1.len(), oldest_ms }
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
