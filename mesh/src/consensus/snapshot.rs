//! The state as a whole: how it is cut into pieces for a filer that was away too long, and put together there.
//!
//! The sender reads a view that stands still, one piece at a time, so a snapshot costs it no memory. The receiver
//! keeps the pieces as the changes they will be, up to a limit, and writes all of them as one batch: at any crash it
//! has the old state or the new one, and no reader of its tables sees a mixture.

use super::engine::{LogId, SnapshotMeta, StoredMembership};
use crate::{
    FilerId,
    kv::{Batch, Change, KvError, KvRead, Pair, STATE},
    record,
};
use bytes::Bytes;
use std::{
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::time::Instant;

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
    Received(Vec<Change>),
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

/// Where a snapshot arrives, at most one at a time: a newer one replaces an older.
pub struct Arrivals {
    arriving: Mutex<Option<Arriving>>,
    bytes_max: usize,
    /// One whose next piece takes longer than this is forgotten.
    patience: Duration,
}

struct Arriving {
    from: FilerId,
    transfer: u64,
    pieces: u64,
    bytes: usize,
    changes: Vec<Change>,
    heard: Instant,
}

/// Why a piece was not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PieceError {
    #[error("piece {number} of a snapshot is damaged")]
    Damaged { number: u64 },
    #[error("piece {number} of a snapshot is not the one that is waited for")]
    OutOfOrder { number: u64 },
    #[error("the snapshot is larger than the limit of {bytes_max} bytes")]
    TooLarge { bytes_max: usize },
}

impl Arrivals {
    pub fn new(bytes_max: usize, patience: Duration) -> Self {
        Self { arriving: Mutex::new(None), bytes_max, patience }
    }

    fn arriving(&self) -> MutexGuard<'_, Option<Arriving>> {
        self.arriving.lock().expect("no access to an arriving snapshot panics")
    }

    /// Forgets a snapshot that has stopped to arrive.
    pub fn tidy(&self) {
        self.arriving().take_if(|arriving| arriving.heard.elapsed() > self.patience);
    }

    /// Takes the piece `number` (from 0) of a transfer; the whole state, when it was the last one.
    pub fn take(
        &self,
        from: FilerId,
        transfer: u64,
        number: u64,
        body: &Bytes,
        checksum: u32,
        last: bool,
    ) -> Result<Option<Vec<Change>>, PieceError> {
        if crc32c::crc32c(body) != checksum {
            return Err(PieceError::Damaged { number });
        }
        let pairs: Vec<Pair> = record::decode(VERSION, body).map_err(|_| PieceError::Damaged { number })?;
        let mut slot = self.arriving();
        if number == 0 {
            let (bytes, changes) = (0, Vec::new());
            *slot = Some(Arriving { from, transfer, pieces: 0, bytes, changes, heard: Instant::now() });
        }
        let expected = |a: &&mut Arriving| a.from == from && a.transfer == transfer && a.pieces == number;
        let arriving = slot.as_mut().filter(expected).ok_or(PieceError::OutOfOrder { number })?;
        arriving.pieces += 1;
        arriving.heard = Instant::now();
        arriving.bytes += pairs.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        if arriving.bytes > self.bytes_max {
            *slot = None;
            return Err(PieceError::TooLarge { bytes_max: self.bytes_max });
        }
        let put = |(key, value): Pair| Change::Put { table: STATE, key: key.into(), value: value.into() };
        arriving.changes.extend(pairs.into_iter().map(put));
        Ok(if last { slot.take().map(|arriving| arriving.changes) } else { None })
    }
}

/// The batch that puts `state` in the place of whatever `kv` has.
pub fn replacement(kv: &dyn KvRead, state: Vec<Change>) -> Result<Batch, KvError> {
    let mut batch = Batch::default();
    let newest = kv.scan(STATE, (Bound::Unbounded, Bound::Unbounded), 1, true)?;
    if let Some((key, _)) = newest.first() {
        let mut behind = key.to_vec();
        behind.push(0);
        batch.delete_range(STATE, Vec::new(), behind);
    }
    batch.0.extend(state);
    Ok(batch)
}

/// A view's state as changes.
pub fn changes_of(view: Arc<dyn KvRead>, piece_bytes: usize) -> Result<Vec<Change>, KvError> {
    let mut cutter = Cutter::new(view, piece_bytes);
    let arrivals = Arrivals::new(usize::MAX, Duration::MAX);
    let mut number = 0;
    loop {
        let piece = cutter.next()?;
        let taken = arrivals.take(FilerId(0), 0, number, &piece.body, piece.checksum, piece.last);
        if let Some(changes) = taken.expect("a piece just cut is whole and in order") {
            return Ok(changes);
        }
        number += 1;
    }
}

/// What a snapshot of the state after `applied` says about itself.
pub fn meta(applied: LogId, membership: StoredMembership) -> SnapshotMeta {
    SnapshotMeta { last_log_id: Some(applied), last_membership: membership }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Durability, Kv, MemoryKv};

    fn numbered(count: u32) -> Batch {
        let mut batch = Batch::default();
        (0..count).for_each(|n| batch.put(STATE, n.to_be_bytes(), vec![n as u8; 100]));
        batch
    }

    #[tokio::test]
    async fn a_state_arrives_in_pieces_and_replaces_another() {
        let (sender, receiver) = (MemoryKv::default(), MemoryKv::default());
        sender.write(numbered(1_000), Durability::Synced).await.expect("memory does not fail");
        receiver.write(numbered(2_000), Durability::Synced).await.expect("memory does not fail");
        let mut cutter = Cutter::new(sender.view(), 3_000);
        let arrivals = Arrivals::new(1 << 20, Duration::from_secs(1));
        let mut number = 0;
        let state = loop {
            let piece = cutter.next().expect("memory does not fail");
            assert!(piece.body.len() < 8_000);
            let taken = arrivals.take(FilerId(1), 5, number, &piece.body, piece.checksum, piece.last);
            if let Some(state) = taken.expect("the piece is whole") {
                break state;
            }
            number += 1;
        };
        assert!(number > 10);
        let batch = replacement(&receiver, state).expect("memory does not fail");
        receiver.write(batch, Durability::Synced).await.expect("memory does not fail");
        let all = |kv: &MemoryKv| kv.scan(STATE, (Bound::Unbounded, Bound::Unbounded), usize::MAX, false);
        assert_eq!(all(&receiver).expect("memory does not fail"), all(&sender).expect("memory does not fail"));
    }

    #[tokio::test]
    async fn damaged_strange_and_endless_pieces_are_refused() {
        let kv = MemoryKv::default();
        kv.write(numbered(100), Durability::Synced).await.expect("memory does not fail");
        let mut cutter = Cutter::new(kv.view(), 1_000);
        let piece = cutter.next().expect("memory does not fail");
        let arrivals = Arrivals::new(1_500, Duration::from_secs(1));
        let take =
            |transfer, number, checksum| arrivals.take(FilerId(1), transfer, number, &piece.body, checksum, false);
        assert_eq!(take(5, 0, piece.checksum ^ 1), Err(PieceError::Damaged { number: 0 }));
        assert_eq!(take(5, 1, piece.checksum), Err(PieceError::OutOfOrder { number: 1 }));
        assert_eq!(take(5, 0, piece.checksum), Ok(None));
        assert_eq!(take(6, 1, piece.checksum), Err(PieceError::OutOfOrder { number: 1 }));
        assert_eq!(take(5, 1, piece.checksum), Err(PieceError::TooLarge { bytes_max: 1_500 }));
        assert_eq!(take(5, 2, piece.checksum), Err(PieceError::OutOfOrder { number: 2 }));
    }
}
