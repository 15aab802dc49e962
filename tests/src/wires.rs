//! The wires between filers: every datagram of the mesh passes one, so that a test can cut a filer off from its peers, or
//! make them far, while its clients, its clouds and the test itself reach it as ever.
//!
//! ```text
//! filer a ── its mesh socket ──▶ front of b's wire ▶ a socket for a ──▶ filer b
//!            (advertised as b)   └─ answers go back the same way ─┘
//! ```
//!
//! Owns: sockets, who is cut off, how long a way takes. Does not own: which address a filer advertises (`mesh_of_filers`).

use anyhow::{Context, Result};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// Largest datagram, in bytes.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// Datagrams that are on one way at one time; more are lost, as in a router.
const ON_THE_WAY_MAX: usize = 16_384;

/// The wires of one mesh. Dropped, all of them are gone.
#[derive(Default)]
pub struct Wires {
    cuts: Arc<Cuts>,
    wires: JoinSet<()>,
}

/// Who is cut off, what that has cost, and how long each way takes.
#[derive(Default)]
struct Cuts {
    /// By the filers' mesh sockets.
    cut_off: Mutex<BTreeSet<SocketAddr>>,
    lost: AtomicU64,
    way_ms: AtomicU64,
}

impl Cuts {
    fn cut_off(&self) -> MutexGuard<'_, BTreeSet<SocketAddr>> {
        self.cut_off.lock().expect("no holder of this lock panics")
    }

    /// Whether a datagram between these two passes; one that does not is counted.
    fn pass(&self, one: SocketAddr, other: SocketAddr) -> bool {
        let cut_off = self.cut_off();
        let passes = !cut_off.contains(&one) && !cut_off.contains(&other);
        self.lost.fetch_add(u64::from(!passes), Relaxed);
        passes
    }

    /// Sends a datagram off: it arrives when its way is over.
    fn send(&self, way: &mpsc::Sender<(Instant, Vec<u8>)>, datagram: &[u8]) {
        let due = Instant::now() + Duration::from_millis(self.way_ms.load(Relaxed));
        if way.try_send((due, datagram.to_vec())).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

/// A wire that leads nowhere yet.
pub struct Loose {
    front: UdpSocket,
    addr: SocketAddr,
}

impl Loose {
    /// What its filer is to advertise.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// A wire for a filer that is yet to be made.
pub async fn loose() -> Result<Loose> {
    let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.context("opening a wire")?;
    let addr = front.local_addr().context("opening a wire")?;
    Ok(Loose { front, addr })
}

impl Wires {
    /// Leads a wire to the filer whose mesh socket is at `to`.
    pub fn lead(&mut self, wire: Loose, to: SocketAddr) {
        let wire = Wire { front: Arc::new(wire.front), to, cuts: self.cuts.clone() };
        self.wires.spawn(async move {
            if let Err(error) = wire.carry().await {
                tracing::warn!(%to, ?error, "a wire is broken");
            }
        });
    }

    /// Cuts the filer whose mesh socket is at `filer` off: whatever it sends or is sent is lost from here on.
    pub fn cut_off(&self, filer: SocketAddr) {
        self.cuts.cut_off().insert(filer);
    }

    /// From here on each way between two filers takes so long, in milliseconds; at first, as long as it takes.
    pub fn set_way_ms(&self, way_ms: u64) {
        self.cuts.way_ms.store(way_ms, Relaxed);
    }

    /// Mends all wires.
    pub fn mend(&self) {
        self.cuts.cut_off().clear();
    }

    /// Datagrams that were lost on cut wires.
    pub fn lost(&self) -> u64 {
        self.cuts.lost.load(Relaxed)
    }
}

struct Wire {
    front: Arc<UdpSocket>,
    to: SocketAddr,
    cuts: Arc<Cuts>,
}

impl Wire {
    async fn carry(self) -> Result<()> {
        // By the peer's own mesh socket; a filer listens and dials with one and the same.
        let mut ways = BTreeMap::new();
        let mut tasks = JoinSet::new();
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let (len, from) = self.front.recv_from(&mut datagram).await.context("receiving from a peer")?;
            let way = match ways.entry(from) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(self.open(from, &mut tasks).await?),
            };
            if self.cuts.pass(from, self.to) {
                self.cuts.send(way, &datagram[..len]);
            }
        }
    }

    /// The way from a peer, with that of the answers.
    async fn open(&self, from: SocketAddr, tasks: &mut JoinSet<()>) -> Result<mpsc::Sender<(Instant, Vec<u8>)>> {
        let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.context("opening the way back")?;
        back.connect(self.to).await.context("opening the way back")?;
        let back = Arc::new(back);
        let ((way, taken), (answers, answered)) = (mpsc::channel(ON_THE_WAY_MAX), mpsc::channel(ON_THE_WAY_MAX));
        tasks.spawn(arrive(taken, back.clone(), self.to));
        tasks.spawn(arrive(answered, self.front.clone(), from));
        tasks.spawn(answer(back, answers, (from, self.to), self.cuts.clone()));
        Ok(way)
    }
}

/// Hands over what is on a way, each datagram when it is due.
async fn arrive(mut taken: mpsc::Receiver<(Instant, Vec<u8>)>, socket: Arc<UdpSocket>, to: SocketAddr) {
    while let Some((due, datagram)) = taken.recv().await {
        sleep_until(due).await;
        // A filer that is not there refuses datagrams; to its peers they are lost.
        let _ = socket.send_to(&datagram, to).await;
    }
}

async fn answer(
    back: Arc<UdpSocket>,
    answers: mpsc::Sender<(Instant, Vec<u8>)>,
    (peer, filer): (SocketAddr, SocketAddr),
    cuts: Arc<Cuts>,
) {
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // An error tells of a datagram that the filer refused, since it is not there.
        if let Ok(len) = back.recv(&mut datagram).await
            && cuts.pass(peer, filer)
        {
            cuts.send(&answers, &datagram[..len]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn datagrams_go_both_ways_until_one_end_is_cut_off() {
        let socket = async || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (a, b, mut wires) = (socket().await, socket().await, Wires::default());
        let wire = loose().await.unwrap();
        let front = wire.addr();
        wires.lead(wire, b.local_addr().unwrap());
        let mut got = [0; 8];
        a.send_to(b"there", front).await.unwrap();
        let (len, from) = b.recv_from(&mut got).await.unwrap();
        assert_eq!(&got[..len], b"there");
        b.send_to(b"back", from).await.unwrap();
        assert_eq!(a.recv_from(&mut got).await.unwrap(), (4, front));
        for (cuts, end) in [&a, &b].into_iter().enumerate() {
            wires.cut_off(end.local_addr().unwrap());
            a.send_to(b"lost", front).await.unwrap();
            b.send_to(b"lost", from).await.unwrap();
            while wires.lost() < 2 * (cuts as u64 + 1) {
                tokio::task::yield_now().await;
            }
            wires.mend();
            a.send_to(b"again", front).await.unwrap();
            assert_eq!(b.recv_from(&mut got).await.unwrap().0, 5);
            b.send_to(b"again", from).await.unwrap();
            assert_eq!(a.recv_from(&mut got).await.unwrap().0, 5);
        }
        wires.set_way_ms(50);
        let begun = Instant::now();
        for sent in [b"one", b"two"] {
            a.send_to(sent, front).await.unwrap();
        }
        for sent in [b"one", b"two"] {
            let (len, _) = b.recv_from(&mut got).await.unwrap();
            assert_eq!(&got[..len], sent);
        }
        assert!(begun.elapsed() >= Duration::from_millis(50));
    }
}
