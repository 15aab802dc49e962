//! Exactly once: the answers of recent requests, kept in the replicated state beside the application's own.
//!
//! A filer numbers its requests, and its starts (sessions). The first entry of a request that is applied leaves the
//! answer in a row; later entries of the same request find it and give the same answer, whoever leads by then. With
//! each request its filer says below which number nobody waits any more: those rows go, and the bound stays, so that
//! an entry that was under way for long is recognised as given up. A newer session ends the older ones.
//!
//! All rows are in table STATE, below the reserved first byte `0x00`:
//!
//! | key | value |
//! |---|---|
//! | `00 01` filer | the filer's [`Floor`] |
//! | `00 02` filer session number | the answer |
//! | `00 03` filer | empty: the filer was removed |
//!
//! Numbers are 8 bytes, big-endian.

use super::engine::Request;
use crate::{
    FilerId,
    kv::{KvError, KvRead, STATE, Txn, borrow_range, prefix_range},
    record,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, ops::Bound};

/// Format version of the rows.
const VERSION: u8 = 1;
const FLOOR: [u8; 2] = [0, 1];
const ANSWER: [u8; 2] = [0, 2];
const REMOVED: [u8; 2] = [0, 3];

/// Most rows that a request deletes one by one without looking which of them exist.
const BLIND_DELETES_MAX: u64 = 4096;

/// Below this, a filer's requests are given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Floor {
    session: u64,
    done_below: u64,
}

/// The floor of a filer that was removed.
const GONE: Floor = Floor { session: u64::MAX, done_below: u64::MAX };

/// What is known of a request before it is applied.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing: it is to be applied.
    New,
    /// It was applied, with this answer.
    Answered(Bytes),
    /// It was given up.
    Expired,
}

fn key(prefix: [u8; 2], numbers: &[u64]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    numbers.iter().for_each(|number| key.extend_from_slice(&number.to_be_bytes()));
    key
}

fn unreadable(why: record::RecordError) -> KvError {
    KvError { attempted: "reading a request's row in", table: STATE.0, why: why.to_string() }
}

fn floor(txn: &Txn<'_>, filer: FilerId) -> Result<Floor, KvError> {
    match txn.get(&key(FLOOR, &[filer.0]))? {
        Some(row) => record::decode(VERSION, &row).map_err(unreadable),
        None => Ok(Floor::default()),
    }
}

fn set_floor(txn: &mut Txn<'_>, filer: FilerId, floor: Floor) {
    txn.put(key(FLOOR, &[filer.0]), record::encode(VERSION, &floor));
}

/// Deletes the answers in a range of keys.
fn drop_range(txn: &mut Txn<'_>, from: Vec<u8>, to: Bound<Vec<u8>>) -> Result<(), KvError> {
    let rows = txn.scan(borrow_range(&(Bound::Included(from), to)), usize::MAX, false)?;
    rows.into_iter().for_each(|(key, _)| txn.delete(key));
    Ok(())
}

/// Takes note of a request whose turn has come: moves its filer's floor, drops the answers below, and tells whether
/// it is to be applied.
pub fn begin(txn: &mut Txn<'_>, request: &Request) -> Result<Seen, KvError> {
    let filer = request.filer;
    let old = floor(txn, filer)?;
    if request.session < old.session || old == GONE {
        return Ok(Seen::Expired);
    }
    let new = match request.session == old.session {
        true => old.max(Floor { session: old.session, done_below: request.done_below }),
        false => Floor { session: request.session, done_below: request.done_below },
    };
    if new.session > old.session {
        drop_range(txn, key(ANSWER, &[filer.0]), Bound::Excluded(key(ANSWER, &[filer.0, new.session])))?;
    } else if new.done_below - old.done_below <= BLIND_DELETES_MAX {
        (old.done_below..new.done_below).for_each(|number| txn.delete(key(ANSWER, &[filer.0, new.session, number])));
    } else {
        let from = key(ANSWER, &[filer.0, new.session, old.done_below]);
        drop_range(txn, from, Bound::Excluded(key(ANSWER, &[filer.0, new.session, new.done_below])))?;
    }
    if new != old {
        set_floor(txn, filer, new);
    }
    if request.number < new.done_below {
        return Ok(Seen::Expired);
    }
    match txn.get(&key(ANSWER, &[filer.0, request.session, request.number]))? {
        Some(answer) => Ok(Seen::Answered(answer)),
        None => Ok(Seen::New),
    }
}

/// Keeps the answer of a request that was applied.
pub fn keep(txn: &mut Txn<'_>, request: &Request, answer: Bytes) {
    txn.put(key(ANSWER, &[request.filer.0, request.session, request.number]), answer);
}

/// The filer leaves for good: whatever it still asks has expired.
pub fn remove(txn: &mut Txn<'_>, filer: FilerId) -> Result<(), KvError> {
    let (_, to) = prefix_range(&key(ANSWER, &[filer.0]));
    drop_range(txn, key(ANSWER, &[filer.0]), to)?;
    set_floor(txn, filer, GONE);
    txn.put(removed_key(filer), Bytes::new());
    Ok(())
}

/// The filers that were removed.
pub fn removed(kv: &dyn KvRead) -> Result<BTreeSet<FilerId>, KvError> {
    let rows = kv.scan(STATE, borrow_range(&prefix_range(&REMOVED)), usize::MAX, false)?;
    let id = |key: &Bytes| key.get(2..10).and_then(|id| id.try_into().ok()).map(u64::from_be_bytes).map(FilerId);
    Ok(rows.iter().filter_map(|(key, _)| id(key)).collect())
}

/// The key, in table STATE, of the row that is there when a filer was removed. For state machines, whose own rules may
/// depend on it.
pub fn removed_key(filer: FilerId) -> Vec<u8> {
    key(REMOVED, &[filer.0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::MemoryKv;

    fn request(session: u64, number: u64, done_below: u64) -> Request {
        Request { filer: FilerId(7), session, number, done_below }
    }

    fn apply(txn: &mut Txn<'_>, request: Request, answer: &'static str) -> Seen {
        let seen = begin(txn, &request).expect("memory does not fail");
        if seen == Seen::New {
            keep(txn, &request, answer.into());
        }
        seen
    }

    #[test]
    fn a_request_is_applied_once_and_never_after_it_was_given_up() {
        let kv = MemoryKv::default();
        let mut txn = Txn::new(&kv, STATE);
        assert_eq!(apply(&mut txn, request(1, 0, 0), "a"), Seen::New);
        assert_eq!(apply(&mut txn, request(1, 1, 0), "b"), Seen::New);
        assert_eq!(apply(&mut txn, request(1, 0, 0), "again"), Seen::Answered("a".into()));
        assert_eq!(apply(&mut txn, request(1, 2, 1), "c"), Seen::New);
        assert_eq!(apply(&mut txn, request(1, 0, 0), "again"), Seen::Expired);
        assert_eq!(apply(&mut txn, request(1, 1, 0), "again"), Seen::Answered("b".into()));
        assert_eq!(apply(&mut txn, request(1, 9_000, 9_000), "far"), Seen::New);
        assert_eq!(apply(&mut txn, request(2, 0, 0), "newer session"), Seen::New);
        assert_eq!(apply(&mut txn, request(1, 9_001, 0), "older session"), Seen::Expired);
        let rows = txn.scan(borrow_range(&prefix_range(&ANSWER)), usize::MAX, false).expect("memory does not fail");
        assert_eq!(rows.len(), 1, "only the answer that may still be asked for is kept");
    }

    #[test]
    fn a_removed_filer_asks_in_vain() {
        let kv = MemoryKv::default();
        let mut txn = Txn::new(&kv, STATE);
        apply(&mut txn, request(1, 0, 0), "a");
        remove(&mut txn, FilerId(7)).expect("memory does not fail");
        assert_eq!(apply(&mut txn, request(2, 0, 0), "b"), Seen::Expired);
        assert_eq!(apply(&mut txn, request(u64::MAX, u64::MAX, 0), "b"), Seen::Expired, "even with odd numbers");
        let rows = txn.scan(borrow_range(&prefix_range(&ANSWER)), usize::MAX, false).expect("memory does not fail");
        assert_eq!(rows, Vec::new());
    }
}
