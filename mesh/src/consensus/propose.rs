//! Proposing: one operation's way into the log, through changes of leader, to its answer.

use super::{
    api::ProposeError,
    engine::{Command, Outcome, Request},
    forward::Forwarded,
    replica::{Consensus, Core},
};
use crate::FilerId;
use bytes::Bytes;
use openraft::errors::RaftError;
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

/// The numbers of this filer's requests.
pub struct Tickets {
    filer: FilerId,
    session: u64,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    numbers: BTreeSet<u64>,
}

/// The identity of one operation: proposed any number of times with the same ticket, it is applied once. Dropping the
/// ticket says that nobody will ask again; the operation may then still be applied, or never be.
pub struct Ticket {
    core: Arc<Core>,
    number: u64,
    /// Whether the operation was ever given to a log, here or elsewhere.
    handed_over: AtomicBool,
}

impl Ticket {
    /// Whether the operation may have been applied, or may be yet. `false`: it was never given to anybody, so that
    /// after the ticket is dropped it is certain that it never takes effect.
    pub fn was_handed_over(&self) -> bool {
        self.handed_over.load(Ordering::Acquire)
    }
}

impl Tickets {
    pub fn new(filer: FilerId, session: u64) -> Self {
        Self { filer, session, open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().expect("no access to the tickets panics")
    }

    fn issue(&self) -> u64 {
        let mut open = self.open();
        let number = open.next;
        open.next += 1;
        open.numbers.insert(number);
        number
    }

    fn close(&self, number: u64) {
        self.open().numbers.remove(&number);
    }

    fn request(&self, number: u64) -> Request {
        let open = self.open();
        let done_below = open.numbers.first().copied().unwrap_or(open.next);
        Request { filer: self.filer, session: self.session, number, done_below }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.core.tickets.close(self.number);
    }
}

/// What one attempt gave.
pub enum Attempt {
    Applied {
        index: u64,
        outcome: Outcome,
    },
    /// Nobody took it, or it is not known whether somebody did.
    Again,
    Failed(ProposeError),
}

impl Consensus {
    /// A ticket for one operation; see [`propose_as`](Self::propose_as).
    pub fn ticket(&self) -> Ticket {
        let number = self.core.tickets.issue();
        Ticket { number, core: self.core.clone(), handed_over: AtomicBool::new(false) }
    }

    /// Has `op` applied at every filer, exactly once, and gives the state machine's answer, when this filer's own
    /// tables show the result. Waits at most `deadline`, and then doesn't know whether it was or will be applied.
    ///
    /// Any number of proposals may be under way; beyond `proposals_in_flight_max` they wait.
    pub async fn propose(&self, op: Vec<u8>, deadline: Duration) -> Result<Vec<u8>, ProposeError> {
        self.propose_as(&self.ticket(), op, deadline).await
    }

    /// As [`propose`](Self::propose), but several calls with the same ticket (and the same `op`) are one operation:
    /// after a deadline has passed, the caller can ask again for the answer without doing it twice.
    pub async fn propose_as(&self, ticket: &Ticket, op: Vec<u8>, deadline: Duration) -> Result<Vec<u8>, ProposeError> {
        let core = &self.core;
        let bytes_max = core.settings.op_bytes_max;
        if op.len() > bytes_max {
            return Err(ProposeError::TooLarge { bytes: op.len(), bytes_max });
        }
        core.check_member()?;
        let op = Bytes::from(op);
        let until = Instant::now() + deadline;
        let carried_out = async {
            let _slot = core.slots.acquire().await.map_err(|_| ProposeError::Stopped("it was shut down".into()))?;
            let (index, outcome) = core.carry_out(ticket, &op, until).await?;
            core.shared.wait_applied(index).await?;
            match outcome {
                Outcome::Answer(answer) => Ok(answer.into()),
                Outcome::Nothing | Outcome::Expired => Err(core
                    .check_member()
                    .err()
                    .unwrap_or_else(|| ProposeError::Stopped("a newer run of this filer has taken its place".into()))),
            }
        };
        match timeout_at(until, carried_out).await {
            Ok(result) => result,
            Err(_) => Err(core.no_majority(deadline)),
        }
    }
}

impl Core {
    /// The deadline has passed.
    pub fn no_majority(&self, deadline: Duration) -> ProposeError {
        let stopped = self.shared.stopped().err();
        stopped.unwrap_or(ProposeError::NoMajority { after_ms: deadline.as_millis() as u64 })
    }

    /// Attempts until the operation is applied at the leader.
    async fn carry_out(&self, ticket: &Ticket, op: &Bytes, until: Instant) -> Result<(u64, Outcome), ProposeError> {
        let mut attempts = 0;
        loop {
            self.check_member()?;
            let command = Command::Op(self.tickets.request(ticket.number), op.clone());
            let attempt = match self.leader() {
                None => Attempt::Again,
                Some(leader) => {
                    ticket.handed_over.store(true, Ordering::Release);
                    if leader == self.me { self.write(command).await } else { self.forward(command, until).await }
                }
            };
            match attempt {
                Attempt::Applied { index, outcome } => return Ok((index, outcome)),
                Attempt::Again => self.pause(attempts).await,
                Attempt::Failed(error) => return Err(error),
            }
            attempts += 1;
        }
    }

    /// Puts a command into the log here, if this filer leads, and waits until it is applied.
    pub async fn write(&self, command: Command) -> Attempt {
        match self.raft.client_write(command).await {
            Ok(written) => Attempt::Applied { index: written.log_id.index(), outcome: written.data },
            Err(RaftError::APIError(_)) => Attempt::Again,
            Err(RaftError::Fatal(error)) => Attempt::Failed(self.engine_ended(&error)),
        }
    }

    /// Gives a command to the task that forwards to the leader.
    async fn forward(&self, command: Command, until: Instant) -> Attempt {
        let (reply, answer) = oneshot::channel();
        if self.forwards.send(Forwarded { command, until, reply }).await.is_err() {
            return Attempt::Again;
        }
        answer.await.unwrap_or(Attempt::Again)
    }
}
