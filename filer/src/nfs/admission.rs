//! Who may be at work: room for calls and their replies, by kind.
//!
//! Each kind of call has room of its own, so that reads that wait for a dead cloud keep nobody from writing, nor changes
//! that wait for a majority anybody from looking. Room is counted in bytes for all clients together, and in bytes and calls
//! for each connection, so that one client does not take it all. A call holds its room from before it is read (where it
//! is long) until its reply is written.
//!
//! A call for which there is no room waits a while, and its connection is not read meanwhile; then it is turned away
//! (NFS3ERR_JUKEBOX). Further calls of that kind on that connection are turned away at once until one finds room, so that
//! what comes behind them is held up once and not each time.
//!
//! Owns: the room, and who holds it. Does not own: how a call that was turned away is answered (`dispatch`).

use super::settings::NfsSettings;
use super::stats::{Counters, count};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Unit in which bytes are counted.
const PERMIT_BYTES: u64 = 1024;

/// What a call asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Data and listings of directories.
    Read,
    /// Data to write, and commits.
    Write,
    /// Changes of names and attributes.
    Change,
    /// Anything else: names, attributes, mounts.
    Look,
}

/// The kinds, by number.
pub const KINDS: [&str; 4] = ["read", "write", "change", "look"];

/// Room by kind.
type ByKind = [Arc<Semaphore>; KINDS.len()];

fn permits(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX)
}

fn bytes_max(settings: &NfsSettings) -> [u64; KINDS.len()] {
    let metadata = settings.metadata_bytes_in_flight_max;
    [settings.read_bytes_in_flight_max, settings.write_bytes_in_flight_max, metadata, metadata]
}

fn room(bytes: [u64; KINDS.len()]) -> ByKind {
    bytes.map(|bytes| Arc::new(Semaphore::new(permits(bytes) as usize)))
}

/// The room of all clients together.
pub struct Room {
    bytes: ByKind,
    bytes_max: [u64; KINDS.len()],
    connection_bytes_max: u64,
    calls_max: usize,
    wait_max: Duration,
    counters: Arc<Counters>,
}

/// One connection's share of it.
pub struct Share {
    room: Arc<Room>,
    calls: ByKind,
    bytes: ByKind,
    /// Whether the last call of a kind waited in vain.
    stuck: [bool; KINDS.len()],
}

/// The room of one call, given back when it is dropped.
pub struct Held {
    _permits: [OwnedSemaphorePermit; 3],
    kind: Kind,
    bytes: u64,
    counters: Arc<Counters>,
}

impl Room {
    pub fn new(settings: &NfsSettings, counters: Arc<Counters>) -> Arc<Self> {
        let bytes_max = bytes_max(settings);
        Arc::new(Self {
            bytes: room(bytes_max),
            bytes_max,
            connection_bytes_max: settings.connection_bytes_in_flight_max,
            calls_max: settings.calls_in_flight_max as usize,
            wait_max: Duration::from_millis(settings.admission_ms_max),
            counters,
        })
    }

    /// The share of a new connection.
    pub fn share(self: &Arc<Self>) -> Share {
        Share {
            calls: std::array::from_fn(|_| Arc::new(Semaphore::new(self.calls_max))),
            bytes: room([self.connection_bytes_max; KINDS.len()]),
            stuck: [false; KINDS.len()],
            room: self.clone(),
        }
    }
}

impl Share {
    /// Room for one call of `bytes`, its reply included; `None` when there is none for too long.
    pub async fn admit(&mut self, kind: Kind, bytes: u64) -> Option<Held> {
        let at = kind as usize;
        let counters = self.room.counters.clone();
        // What is larger than a whole share or room takes all of it.
        let of_connection = permits(bytes.min(self.room.connection_bytes_max));
        let of_all = permits(bytes.min(self.room.bytes_max[at]));
        let (calls, connection, all) = (self.calls[at].clone(), self.bytes[at].clone(), self.room.bytes[at].clone());
        let wait = async {
            const OPEN: &str = "room is never closed";
            [
                calls.acquire_owned().await.expect(OPEN),
                connection.acquire_many_owned(of_connection).await.expect(OPEN),
                all.acquire_many_owned(of_all).await.expect(OPEN),
            ]
        };
        let wait_max = if self.stuck[at] { Duration::ZERO } else { self.room.wait_max };
        let permits = tokio::time::timeout(wait_max, wait).await.ok();
        self.stuck[at] = permits.is_none();
        match permits {
            Some(permits) => {
                counters.bytes_in_flight[at].fetch_add(bytes, Ordering::Relaxed);
                Some(Held { _permits: permits, kind, bytes, counters })
            }
            None => {
                count(&counters.turned_away[at]);
                None
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.counters.bytes_in_flight[self.kind as usize].fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(settings: NfsSettings) -> (Arc<Room>, Arc<Counters>, Share) {
        let counters = Arc::new(Counters::default());
        let room = Room::new(&settings, counters.clone());
        let share = room.share();
        (room, counters, share)
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_has_room_of_its_own() {
        let settings = NfsSettings { read_bytes_in_flight_max: 4 << 20, ..NfsSettings::default() };
        let (room, counters, mut first) = share(settings);
        let mut second = room.share();
        let held = first.admit(Kind::Read, 3 << 20).await.expect("there is room");
        assert!(second.admit(Kind::Read, 2 << 20).await.is_none(), "the room is everybody's");
        for kind in [Kind::Write, Kind::Change, Kind::Look] {
            second.admit(kind, 1 << 20).await.expect("reads take nothing of it");
        }
        assert_eq!(counters.snapshot().bytes_in_flight["read"], 3 << 20);
        assert_eq!(counters.snapshot().turned_away["read"], 1);
        drop(held);
        assert!(second.admit(Kind::Read, 64 << 20).await.is_some(), "more than there is takes all");
        assert_eq!(counters.snapshot().bytes_in_flight["read"], 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_does_not_take_the_room_of_others() {
        let settings = NfsSettings { connection_bytes_in_flight_max: 4 << 20, ..NfsSettings::default() };
        let (room, _, mut greedy) = share(settings);
        let held = greedy.admit(Kind::Write, 4 << 20).await.expect("there is room");
        assert!(greedy.admit(Kind::Write, 1024).await.is_none());
        assert!(room.share().admit(Kind::Write, 4 << 20).await.is_some());
        drop(held);
        assert!(greedy.admit(Kind::Write, 1024).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_first_of_those_in_vain_waits() {
        let settings = NfsSettings { calls_in_flight_max: 1, admission_ms_max: 500, ..NfsSettings::default() };
        let (_, _, mut share) = share(settings);
        let held = share.admit(Kind::Read, 10).await.expect("there is room");
        let begun = tokio::time::Instant::now();
        for _ in 0..100 {
            assert!(share.admit(Kind::Read, 10).await.is_none());
        }
        assert_eq!(begun.elapsed(), Duration::from_millis(500));
        drop(held);
        let held = share.admit(Kind::Read, 10).await.expect("there is room again");
        let (waits, ()) = tokio::join!(share.admit(Kind::Read, 10), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            drop(held);
        });
        assert!(waits.is_some(), "and waiting is worth it again");
    }
}
