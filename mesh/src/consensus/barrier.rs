//! Barriers: up to where a filer must have applied, to have seen everything acknowledged anywhere before.
//!
//! The leader knows, once a majority has confirmed that it still leads. Callers share its word: one question is under
//! way, those who come meanwhile wait for the next one, which begins after all of them asked.

use super::{
    api::ProposeError,
    replica::{Consensus, Core},
    wire::{AskError, Call, ReadIndex, Reply, ask},
};
use crate::FilerId;
use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use openraft::{LinearizerOption, async_runtime::WatchReceiver, errors::RaftError};
use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout, timeout_at},
};

/// Where callers wait for the next question.
#[derive(Default)]
pub struct Gate(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    callers: Vec<Caller>,
    /// Whether a task is asking.
    asking: bool,
    /// Since when every question failed; asked on until one is answered, so that this is known to be over.
    failing_since: Option<Instant>,
}

struct Caller {
    until: Instant,
    reply: oneshot::Sender<Result<u64, ProposeError>>,
}

enum Asked {
    Upto(u64),
    Again,
    Failed(ProposeError),
}

impl Gate {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().expect("no access to the gate panics")
    }

    /// Since when no question was answered; `None` while they are, or nobody asks.
    pub fn failing_since(&self) -> Option<Instant> {
        self.waiting().failing_since
    }
}

impl Consensus {
    /// When it returns, this filer's tables contain everything that was acknowledged anywhere before the call; the
    /// index up to which they do. Waits at most `deadline`.
    pub async fn barrier(&self, deadline: Duration) -> Result<u64, ProposeError> {
        let core = &self.core;
        core.check_member()?;
        let until = Instant::now() + deadline;
        let passed = async {
            let index = core.read_index(until).await?;
            core.shared.wait_applied(index).await?;
            Ok(index)
        };
        timeout_at(until, passed).await.unwrap_or_else(|_| Err(core.no_majority(deadline)))
    }
}

impl Core {
    /// The leader's word, shared with whoever else asks.
    pub async fn read_index(self: &Arc<Self>, until: Instant) -> Result<u64, ProposeError> {
        let (reply, answer) = oneshot::channel();
        let idle = {
            let mut waiting = self.gate.waiting();
            waiting.callers.push(Caller { until, reply });
            !std::mem::replace(&mut waiting.asking, true)
        };
        if idle {
            self.env.spawn(ask_for_all(self.clone()));
        }
        answer.await.unwrap_or_else(|_| Err(ProposeError::Stopped("it was shut down".into())))
    }

    /// One question.
    async fn ask_once(&self, within: Duration) -> Asked {
        if let Err(error) = self.shared.stopped() {
            return Asked::Failed(error);
        }
        match self.leader() {
            Some(leader) if leader == self.me => self.ask_here(within).await,
            Some(leader) => tokio::select! {
                biased;
                answer = self.ask_there(leader, within) => answer,
                // Its successor answers sooner than it does.
                () = self.leads_no_more(leader) => Asked::Again,
            },
            None => Asked::Again,
        }
    }

    /// The leader's word, by whichever of several calls brings it first: one that has no answer yet when an answer is due may
    /// be lost, and may be on a long way, so the next one goes beside it.
    async fn ask_there(&self, leader: FilerId, within: Duration) -> Asked {
        let until = Instant::now() + within;
        let one = || async {
            let within = until.saturating_duration_since(Instant::now());
            let call = Call::ReadIndex { within_ms: within.as_millis() as u64 };
            ask(&*self.peers, leader, &call, Bytes::new(), within).await
        };
        let mut calls = FuturesUnordered::from_iter([one()]);
        loop {
            let answer = tokio::select! {
                biased;
                answer = calls.next() => answer,
                () = sleep(self.settings.call_deadline()) => {
                    calls.push(one());
                    continue;
                }
            };
            return match answer {
                Some(Ok(Reply::ReadIndex(ReadIndex::Upto(index)))) => Asked::Upto(index),
                Some(Err(AskError::Removed)) => {
                    self.shared.dismiss();
                    Asked::Failed(ProposeError::NotMember)
                }
                Some(Ok(_) | Err(_)) | None => Asked::Again,
            };
        }
    }

    /// One question of the leader to a majority.
    async fn ask_here(&self, within: Duration) -> Asked {
        // By a sign of life that is sent behind the question, for which the engine waits as long as we do.
        let option = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(within);
        match timeout(within, self.raft.get_read_linearizer(option)).await {
            Ok(Ok(word)) => Asked::Upto(word.read_log_id().index()),
            Ok(Err(RaftError::Fatal(error))) => Asked::Failed(self.engine_ended(&error)),
            Ok(Err(RaftError::APIError(_))) | Err(_) => Asked::Again,
        }
    }

    /// A peer's question, for all who ask there: it does not wait behind those of others, whose way may be as long again.
    pub async fn read_index_for(&self, within: Duration) -> ReadIndex {
        let now = Instant::now();
        match self.ask_here(within).await {
            Asked::Upto(index) => {
                self.shared.note_majority(now);
                ReadIndex::Upto(index)
            }
            Asked::Again | Asked::Failed(_) => ReadIndex::NotLeader,
        }
    }

    /// Returns when this filer would turn to another leader, or to none.
    async fn leads_no_more(&self, leader: FilerId) {
        let mut metrics = self.raft.server_metrics();
        while metrics.borrow_and_update().current_leader == Some(leader) && metrics.wait().await {}
    }
}

/// Asks until nobody waits and the last question was answered.
async fn ask_for_all(core: Arc<Core>) {
    let mut callers: Vec<Caller> = Vec::new();
    let mut attempts = 0;
    loop {
        let now = Instant::now();
        {
            let mut waiting = core.gate.waiting();
            callers.append(&mut waiting.callers);
            callers.retain(|caller| caller.until > now && !caller.reply.is_closed());
            if callers.is_empty() && waiting.failing_since.is_none() {
                waiting.asking = false;
                return;
            }
        }
        let within = match callers.iter().map(|caller| caller.until).max() {
            Some(longest) => longest.saturating_duration_since(now).min(core.settings.question_deadline()),
            None => core.settings.question_deadline(),
        };
        let answer = match core.ask_once(within).await {
            Asked::Upto(index) => {
                core.shared.note_majority(now);
                Ok(index)
            }
            Asked::Failed(error) => Err(error),
            Asked::Again => {
                core.gate.waiting().failing_since.get_or_insert(now);
                core.pause(attempts).await;
                attempts += 1;
                continue;
            }
        };
        attempts = 0;
        if core.gate.waiting().failing_since.take().is_some() {
            core.shared.touch();
        }
        for caller in callers.drain(..) {
            // One that gave up needs no answer.
            let _ = caller.reply.send(answer.clone());
        }
    }
}
