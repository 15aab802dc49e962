//! Group commit: one task drains the orders that wait into one batch, and syncs once for all of them.

use super::{LOG, Log, LogFailure, PURGED_KEY, VOTE_KEY, key};
use crate::{
    consensus::{engine::Types, runtime::Env},
    kv::{Batch, Durability, META},
};
use bytes::Bytes;
use openraft::storage::IOFlushed;
use std::{io, sync::Arc};
use tokio::sync::{mpsc, oneshot};

/// Orders that may wait; whoever brings one more waits itself.
const QUEUE_ORDERS_MAX: usize = 1024;

/// One change of the log, in the engine's order.
pub(super) enum Order {
    /// The vote's record.
    Vote(Bytes),
    /// Entries' records by index.
    Append(Vec<(u64, Bytes)>),
    /// Drops the entries from this index on.
    Truncate(u64),
    /// Drops the entries up to this index; the record of where the log begins then.
    Purge(u64, Bytes),
}

struct Queued {
    number: u64,
    order: Order,
    done: Option<IOFlushed<Types>>,
    waiter: Option<oneshot::Sender<Result<(), LogFailure>>>,
}

/// The queue's entrance.
pub(super) struct Writer {
    queue: mpsc::Sender<Queued>,
}

fn stopped() -> io::Error {
    io::Error::other("the log's writer has ended")
}

impl Writer {
    /// Starts the writer of `log`; batches end behind `write_bytes_max` bytes.
    pub(super) fn start(log: Arc<Log>, write_bytes_max: usize, env: &Env) -> Self {
        let (queue, orders) = mpsc::channel(QUEUE_ORDERS_MAX);
        env.spawn(run(log, orders, write_bytes_max));
        Self { queue }
    }

    /// Queues an order; `done` is told when it is on disk.
    pub(super) async fn queue(&self, number: u64, order: Order, done: Option<IOFlushed<Types>>) -> io::Result<()> {
        self.queue.send(Queued { number, order, done, waiter: None }).await.map_err(|_| stopped())
    }

    /// Queues an order and waits until it is on disk.
    pub(super) async fn write(&self, number: u64, order: Order) -> io::Result<()> {
        let (waiter, written) = oneshot::channel();
        let queued = Queued { number, order, done: None, waiter: Some(waiter) };
        self.queue.send(queued).await.map_err(|_| stopped())?;
        written.await.map_err(|_| stopped())?.map_err(io::Error::other)
    }
}

impl Order {
    fn bytes(&self) -> usize {
        match self {
            Order::Append(records) => records.iter().map(|(_, record)| record.len()).sum(),
            Order::Vote(_) | Order::Truncate(_) | Order::Purge(..) => 0,
        }
    }

    /// Whether somebody relies on it after a crash. A purge may be lost: its entries are then purged again.
    fn needs_sync(&self) -> bool {
        !matches!(self, Order::Purge(..))
    }

    fn add_to(&self, batch: &mut Batch) {
        match self {
            Order::Vote(record) => batch.put(META, VOTE_KEY, record.to_vec()),
            Order::Append(records) => {
                for (index, record) in records {
                    batch.put(LOG, key(*index), record.to_vec());
                }
            }
            Order::Truncate(from) => {
                batch.delete_range(LOG, key(*from), key(u64::MAX));
            }
            Order::Purge(upto, record) => {
                batch.delete_range(LOG, key(0), key(upto.saturating_add(1)));
                batch.put(META, PURGED_KEY, record.to_vec());
            }
        }
    }
}

async fn run(log: Arc<Log>, mut orders: mpsc::Receiver<Queued>, write_bytes_max: usize) {
    while let Some(first) = orders.recv().await {
        let mut bytes = first.order.bytes();
        let mut round = vec![first];
        while bytes < write_bytes_max {
            let Ok(next) = orders.try_recv() else { break };
            bytes += next.order.bytes();
            round.push(next);
        }
        let mut batch = Batch::default();
        round.iter().for_each(|queued| queued.order.add_to(&mut batch));
        let durability = match round.iter().any(|queued| queued.order.needs_sync()) {
            true => Durability::Synced,
            false => Durability::Buffered,
        };
        let result = log.kv.write(batch, durability).await.map_err(LogFailure::from);
        if result.is_ok() {
            log.written(round.last().map_or(0, |queued| queued.number));
        }
        for queued in round {
            if let Some(done) = queued.done {
                done.io_completed(result.clone().map_err(io::Error::other));
            }
            if let Some(waiter) = queued.waiter {
                // A waiter that is gone needs no answer.
                let _ = waiter.send(result.clone());
            }
        }
        if let Err(error) = result {
            tracing::error!(%error, "the replicated log ends here");
            return;
        }
    }
}
