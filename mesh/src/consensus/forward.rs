//! Forwarding: proposals of a filer that does not lead travel to the leader together.
//!
//! One task drains what waits into a call, and has several calls under way. Whoever waits for a command decides
//! itself whether to try again.

use super::{
    engine::Command,
    propose::Attempt,
    replica::Core,
    wire::{AskError, Call, Proposed, Reply, ask},
};
use bytes::Bytes;
use std::sync::Arc;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::Instant,
};

/// A command on its way to the leader.
pub struct Forwarded {
    pub command: Command,
    pub until: Instant,
    pub reply: oneshot::Sender<Attempt>,
}

/// Forwards whatever comes.
pub async fn run(core: Arc<Core>, mut queue: mpsc::Receiver<Forwarded>) {
    let calls = Arc::new(Semaphore::new(core.settings.forward_calls_max));
    let mut left_over = None;
    loop {
        let first = match left_over.take() {
            Some(first) => first,
            None => match queue.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        let Ok(permit) = calls.clone().acquire_owned().await else { return };
        let mut bytes = first.command.bytes();
        let mut batch = vec![first];
        while batch.len() < core.settings.forward_ops_max {
            let Ok(next) = queue.try_recv() else { break };
            // Whoever waited for it has given up.
            if next.reply.is_closed() {
                continue;
            }
            bytes += next.command.bytes();
            if bytes > core.settings.append_bytes_max {
                left_over = Some(next);
                break;
            }
            batch.push(next);
        }
        let core = core.clone();
        core.env.clone().spawn(async move {
            carry(&core, batch).await;
            drop(permit);
        });
    }
}

/// One call, and its answers to those who wait. Who is not answered tries again.
async fn carry(core: &Core, batch: Vec<Forwarded>) {
    let Some(leader) = core.leader().filter(|leader| *leader != core.me) else { return };
    let now = Instant::now();
    let longest = batch.iter().map(|forwarded| forwarded.until.saturating_duration_since(now)).max();
    // A leader that is silent for longer is asked again, or its successor is.
    let within = longest.unwrap_or_default().min(2 * core.settings.lease());
    let (commands, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|f| (f.command, f.reply)).unzip();
    let call = Call::Propose { commands, within_ms: within.as_millis() as u64 };
    let results = match ask(&*core.peers, leader, &call, Bytes::new(), within).await {
        Ok(Reply::Propose(results)) => results,
        Ok(_) => return,
        Err(AskError::Removed) => return core.shared.dismiss(),
        Err(error) => {
            tracing::debug!(%leader, %error, "forwarded operations have no answer yet");
            return;
        }
    };
    for (reply, result) in replies.into_iter().zip(results) {
        let attempt = match result {
            Proposed::Applied { index, outcome } => Attempt::Applied { index, outcome },
            Proposed::NotLeader | Proposed::Stopped => Attempt::Again,
        };
        // One that gave up needs no answer.
        let _ = reply.send(attempt);
    }
}
