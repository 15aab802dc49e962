//! The state as a whole: how it is cut into pieces for a filer that was away too long, and put together there.
//!
//! The sender reads a view that stands still, one piece at a time, so a snapshot costs it no memory. The receiver writes
//! each piece to table ARRIVING, so it costs no memory there either; when all are there, ARRIVING and STATE change places
//! in one step, and what was the state is cleared. At any crash a filer has the old state or the new one, and no reader of
//! its tables sees a mixture.
//!
//! ```text
//!   piece 0, 1, .. n-1 --> ARRIVING    last piece --> Arrived --> engine installs --> SwapState --> ARRIVING is cleared
//!                                                    (while it lives, no other snapshot arrives)
//! ```

use super::engine::{LogId, SnapshotMeta, StoredMembership};
use crate::{
    FilerId,
    kv::{ARRIVING, Batch, Durability, Kv, KvError, KvRead, Pair, STATE},
    record,
};
use bytes::Bytes;
use std::{ops::Bound, sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::Instant,
};

/// Format version of a piece's body.
const VERSION: u8 = 1;
/// Keys read at a time.
const PAGE_KEYS: usize = 256;

/// What the engine hands around as a snapshot.
pub enum SnapshotData {
    /// Only that it could be made: the state is kept in the tables, so nothing is stored twice.
    Promise,
    /// The state as it stands at the sender.
    View(Arc<dyn KvRead>),
    /// The state as it arrived from a peer.
    Arrived(Arrived),
}

/// One piece, as the sender cuts it.
pub struct Piece {
    pub body: Bytes,
    pub checksum: u32,
    /// Whether the state ends with it.
    pub last: bool,
}

/// Cuts a view of the state into pieces.
pub struct Cutter {
    view: Arc<dyn KvRead>,
    /// The last key that was read.
    behind: Bound<Bytes>,
    /// Read, but not yet in a piece.
    waiting: std::vec::IntoIter<Pair>,
    piece_bytes: usize,
}

impl Cutter {
    pub fn new(view: Arc<dyn KvRead>, piece_bytes: usize) -> Self {
        Self { view, behind: Bound::Unbounded, waiting: Vec::new().into_iter(), piece_bytes }
    }

    /// The next piece.
    pub fn next(&mut self) -> Result<Piece, KvError> {
        let mut pairs: Vec<Pair> = Vec::new();
        let mut bytes = 0;
        let mut last = false;
        while bytes < self.piece_bytes {
            let Some((key, value)) = self.waiting.next() else {
                let from = self.behind.as_ref().map(|key| &key[..]);
                let page = self.view.scan(STATE, (from, Bound::Unbounded), PAGE_KEYS, false)?;
                let Some((newest, _)) = page.last() else {
                    last = true;
                    break;
                };
                self.behind = Bound::Excluded(newest.clone());
                self.waiting = page.into_iter();
                continue;
            };
            bytes += key.len() + value.len();
            pairs.push((key, value));
        }
        let body = Bytes::from(record::encode(VERSION, &pairs));
        Ok(Piece { checksum: crc32c::crc32c(&body), body, last })
    }
}

/// Where a snapshot arrives, at most one at a time: a newer one replaces an older, unless that has arrived as a whole.
pub struct Arrivals {
    kv: Arc<dyn Kv>,
    slot: Arc<Mutex<Slot>>,
    bytes_max: u64,
    /// One whose next piece takes longer than this is forgotten.
    patience: Duration,
}

/// What is known of table ARRIVING.
#[derive(Default)]
struct Slot {
    arriving: Option<Arriving>,
    /// Whether something may be in it.
    used: bool,
}

/// How far a snapshot has arrived.
struct Arriving {
    from: FilerId,
    transfer: u64,
    pieces: u64,
    bytes: u64,
    heard: Instant,
}

/// Table ARRIVING holds a whole state. Nothing else is written to it while this lives.
pub struct Arrived {
    _held: OwnedMutexGuard<Slot>,
}

/// Why a piece was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PieceError {
    #[error("piece {number} of a snapshot is damaged")]
    Damaged { number: u64 },
    #[error("piece {number} of a snapshot is not the one that is waited for")]
    OutOfOrder { number: u64 },
    #[error(
        "the snapshot is larger than mesh.snapshot_bytes_max, {bytes_max} bytes; raise that setting of the filer it is for"
    )]
    TooLarge { bytes_max: u64 },
    #[error("another piece of a snapshot is being written, or a snapshot is being installed")]
    Busy,
    #[error(transparent)]
    Table(#[from] KvError),
}

/// The change that clears table ARRIVING of what is visible in it.
pub fn clearing(kv: &dyn KvRead) -> Result<Batch, KvError> {
    let mut batch = Batch::default();
    let newest = kv.scan(ARRIVING, (Bound::Unbounded, Bound::Unbounded), 1, true)?;
    if let Some((key, _)) = newest.first() {
        let mut behind = key.to_vec();
        behind.push(0);
        batch.delete_range(ARRIVING, Vec::new(), behind);
    }
    Ok(batch)
}

impl Arrivals {
    /// Takes snapshots of at most `bytes_max` bytes of keys and values.
    pub fn new(kv: Arc<dyn Kv>, bytes_max: u64, patience: Duration) -> Self {
        Self { kv, slot: Arc::default(), bytes_max, patience }
    }

    async fn clear(&self, slot: &mut Slot) -> Result<(), KvError> {
        slot.arriving = None;
        // A piece whose call was given up may still be written. Writes keep their order: behind this one it is visible,
        // and the newest key is the last that there is.
        self.kv.write(Batch::default(), Durability::Buffered).await?;
        self.kv.write(clearing(&*self.kv)?, Durability::Buffered).await?;
        slot.used = false;
        Ok(())
    }

    /// Clears away what an earlier run left.
    pub async fn begin(&self) -> Result<(), KvError> {
        let mut slot = self.slot.lock().await;
        self.clear(&mut slot).await
    }

    /// Forgets a snapshot that has stopped to arrive, and what was not or is no longer needed of one.
    pub async fn tidy(&self) -> Result<(), KvError> {
        let Ok(mut slot) = self.slot.try_lock() else { return Ok(()) };
        let still_arrives = slot.arriving.as_ref().is_some_and(|arriving| arriving.heard.elapsed() <= self.patience);
        if still_arrives || !slot.used { Ok(()) } else { self.clear(&mut slot).await }
    }

    /// Takes the piece `number` (from 0) of a transfer; the whole state, when it was the last one.
    pub async fn take(
        &self,
        from: FilerId,
        transfer: u64,
        number: u64,
        body: &Bytes,
        checksum: u32,
        last: bool,
    ) -> Result<Option<Arrived>, PieceError> {
        if crc32c::crc32c(body) != checksum {
            return Err(PieceError::Damaged { number });
        }
        let pairs: Vec<Pair> = record::decode(VERSION, body).map_err(|_| PieceError::Damaged { number })?;
        let mut slot = self.slot.clone().try_lock_owned().map_err(|_| PieceError::Busy)?;
        if number == 0 {
            self.clear(&mut slot).await?;
            slot.used = true;
            slot.arriving = Some(Arriving { from, transfer, pieces: 0, bytes: 0, heard: Instant::now() });
        }
        let expected = |a: &&mut Arriving| a.from == from && a.transfer == transfer && a.pieces == number;
        let arriving = slot.arriving.as_mut().filter(expected).ok_or(PieceError::OutOfOrder { number })?;
        arriving.bytes += pairs.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>();
        if arriving.bytes > self.bytes_max {
            self.clear(&mut slot).await?;
            return Err(PieceError::TooLarge { bytes_max: self.bytes_max });
        }
        let mut batch = Batch::default();
        pairs.into_iter().for_each(|(key, value)| batch.put(ARRIVING, key, value));
        self.kv.write(batch, Durability::Buffered).await?;
        // Counted when it is written: a call that was given up meanwhile leaves a transfer that takes no next piece.
        arriving.pieces += 1;
        arriving.heard = Instant::now();
        Ok(last.then(|| {
            slot.arriving = None;
            Arrived { _held: slot }
        }))
    }
}

/// What a snapshot of the state after `applied` says about itself.
pub fn meta(applied: LogId, membership: StoredMembership) -> SnapshotMeta {
    SnapshotMeta { last_log_id: Some(applied), last_membership: membership }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{MemoryKv, Range, Table};
    use tokio::sync::{mpsc, oneshot};

    const SECOND: Duration = Duration::from_secs(1);

    fn numbered(count: u32) -> Batch {
        let mut batch = Batch::default();
        (0..count).for_each(|n| batch.put(STATE, n.to_be_bytes(), vec![n as u8; 100]));
        batch
    }

    async fn with_numbers(count: u32) -> MemoryKv {
        let kv = MemoryKv::default();
        kv.write(numbered(count), Durability::Synced).await.expect("memory does not fail");
        kv
    }

    type Queued = (Batch, oneshot::Sender<Result<(), KvError>>);

    /// Tables whose writes are queued at once and made one after another, whether or not anybody waits for them, unless
    /// they are held up.
    struct Queueing {
        tables: MemoryKv,
        queue: mpsc::UnboundedSender<Queued>,
        hold_up: Arc<Mutex<()>>,
    }

    impl Queueing {
        fn new(tables: MemoryKv) -> Self {
            let (queue, mut queued) = mpsc::unbounded_channel::<Queued>();
            let (hold_up, writes_to) = (Arc::new(Mutex::new(())), tables.clone());
            let held_up = hold_up.clone();
            tokio::spawn(async move {
                while let Some((batch, done)) = queued.recv().await {
                    drop(held_up.lock().await);
                    let _ = done.send(writes_to.write(batch, Durability::Buffered).await);
                }
            });
            Self { tables, queue, hold_up }
        }
    }

    impl KvRead for Queueing {
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
            self.tables.get(table, key)
        }

        fn scan(&self, table: Table, range: Range<'_>, limit: usize, backwards: bool) -> Result<Vec<Pair>, KvError> {
            self.tables.scan(table, range, limit, backwards)
        }
    }

    #[async_trait::async_trait]
    impl Kv for Queueing {
        async fn write(&self, batch: Batch, _: Durability) -> Result<(), KvError> {
            let (done, answer) = oneshot::channel();
            assert!(self.queue.send((batch, done)).is_ok(), "the writer lives as long as the queue");
            answer.await.expect("every write is answered")
        }

        fn view(&self) -> Arc<dyn KvRead> {
            self.tables.view()
        }
    }

    fn rows(kv: &MemoryKv, table: Table) -> Vec<Pair> {
        kv.scan(table, (Bound::Unbounded, Bound::Unbounded), usize::MAX, false).expect("memory does not fail")
    }

    #[tokio::test]
    async fn a_state_arrives_in_pieces_and_replaces_another() {
        let (sender, receiver) = (with_numbers(1_000).await, with_numbers(2_000).await);
        let mut cutter = Cutter::new(sender.view(), 3_000);
        let arrivals = Arrivals::new(Arc::new(receiver.clone()), 1 << 20, SECOND);
        let mut number = 0;
        let arrived = loop {
            let piece = cutter.next().expect("memory does not fail");
            assert!(piece.body.len() < 8_000);
            let taken = arrivals.take(FilerId(1), 5, number, &piece.body, piece.checksum, piece.last).await;
            if let Some(arrived) = taken.expect("the piece is whole") {
                break arrived;
            }
            assert_eq!(rows(&receiver, STATE).len(), 2_000, "nothing is replaced yet");
            number += 1;
        };
        assert!(number > 10);
        let piece = Cutter::new(sender.view(), 3_000).next().expect("memory does not fail");
        let other = arrivals.take(FilerId(2), 6, 0, &piece.body, piece.checksum, false).await;
        assert!(matches!(other, Err(PieceError::Busy)), "not over one that is to be installed");
        let mut batch = Batch::default();
        batch.swap_state();
        receiver.write(batch, Durability::Synced).await.expect("memory does not fail");
        assert_eq!(rows(&receiver, STATE), rows(&sender, STATE));
        drop(arrived);
        arrivals.tidy().await.expect("memory does not fail");
        assert_eq!(rows(&receiver, ARRIVING), []);
    }

    #[tokio::test]
    async fn damaged_strange_and_endless_pieces_are_refused() {
        let kv = with_numbers(100).await;
        let mut cutter = Cutter::new(kv.view(), 1_000);
        let piece = cutter.next().expect("memory does not fail");
        let arrivals = Arrivals::new(Arc::new(MemoryKv::default()), 1_500, SECOND);
        let take = async |transfer, number, checksum| {
            let taken = arrivals.take(FilerId(1), transfer, number, &piece.body, checksum, false).await;
            taken.map(|arrived| arrived.is_some()).map_err(|error| error.to_string())
        };
        let out_of_order = |number| Err::<bool, _>(PieceError::OutOfOrder { number }.to_string());
        assert_eq!(take(5, 0, piece.checksum ^ 1).await, Err(PieceError::Damaged { number: 0 }.to_string()));
        assert_eq!(take(5, 1, piece.checksum).await, out_of_order(1));
        assert_eq!(take(5, 0, piece.checksum).await, Ok(false));
        assert_eq!(take(6, 1, piece.checksum).await, out_of_order(1));
        assert_eq!(take(5, 1, piece.checksum).await, Err(PieceError::TooLarge { bytes_max: 1_500 }.to_string()));
        assert_eq!(take(5, 2, piece.checksum).await, out_of_order(2));
        assert_eq!(take(7, 0, piece.checksum).await, Ok(false), "another one may come");
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_that_stops_to_arrive_is_forgotten_and_leaves_nothing() {
        let (sender, receiver) = (with_numbers(100).await, MemoryKv::default());
        let piece = Cutter::new(sender.view(), 1_000).next().expect("memory does not fail");
        let arrivals = Arrivals::new(Arc::new(receiver.clone()), 1 << 20, SECOND);
        let taken = arrivals.take(FilerId(1), 5, 0, &piece.body, piece.checksum, false).await;
        assert!(matches!(taken, Ok(None)));
        arrivals.tidy().await.expect("memory does not fail");
        assert!(!rows(&receiver, ARRIVING).is_empty(), "the next piece may still come");
        tokio::time::sleep(2 * SECOND).await;
        arrivals.tidy().await.expect("memory does not fail");
        assert_eq!(rows(&receiver, ARRIVING), []);
        let late = arrivals.take(FilerId(1), 5, 1, &piece.body, piece.checksum, false).await;
        assert!(matches!(late, Err(PieceError::OutOfOrder { number: 1 })));
    }

    /// Its write was queued already, and what clears the table must reach behind it.
    #[tokio::test]
    async fn a_piece_that_was_given_up_is_cleared_with_the_others() {
        let (long, short, receiver) = (with_numbers(100).await, with_numbers(3).await, MemoryKv::default());
        let kv = Arc::new(Queueing::new(receiver.clone()));
        let arrivals = Arrivals::new(kv.clone(), 1 << 20, SECOND);
        let mut cutter = Cutter::new(long.view(), 1_000);
        let mut next = || cutter.next().expect("memory does not fail");
        let (first, second) = (next(), next());
        let taken = arrivals.take(FilerId(1), 5, 0, &first.body, first.checksum, false).await;
        assert!(matches!(taken, Ok(None)));
        let held_up = kv.hold_up.lock().await;
        let mut given_up = Box::pin(arrivals.take(FilerId(1), 5, 1, &second.body, second.checksum, false));
        assert!(futures::poll!(given_up.as_mut()).is_pending());
        drop(given_up);
        let whole = Cutter::new(short.view(), 1_000).next().expect("memory does not fail");
        let mut other = Box::pin(arrivals.take(FilerId(2), 7, 0, &whole.body, whole.checksum, true));
        assert!(futures::poll!(other.as_mut()).is_pending());
        drop(held_up);
        assert!(matches!(other.await, Ok(Some(_))));
        assert_eq!(rows(&receiver, ARRIVING), rows(&short, STATE));
    }
}
