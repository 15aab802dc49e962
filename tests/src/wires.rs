//! The wires between filers: every datagram of the mesh passes one, so that a test can cut a filer off from its peers
//! while its clients, its clouds and the test itself still reach it.
//!
//! ```text
//! filer a ── its mesh socket ──▶ front of b's wire ▶ a socket for a ──▶ filer b
//!            (advertised as b)   └─ answers go back the same way ─┘
//! ```
//!
//! Owns: sockets, who is cut off. Does not own: which address a filer advertises (`mesh_of_filers`).

use anyhow::{Context, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::{net::UdpSocket, task::JoinSet};

/// Largest datagram, in bytes.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;

/// The wires of one mesh. Dropped, all of them are gone.
#[derive(Default)]
pub struct Wires {
    cuts: Arc<Cuts>,
    wires: JoinSet<()>,
}

/// Who is cut off, and what that has cost.
#[derive(Default)]
struct Cuts {
    /// By the filers' mesh sockets.
    cut_off: Mutex<BTreeSet<SocketAddr>>,
    lost: AtomicU64,
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
        let mut backs = BTreeMap::<SocketAddr, Arc<UdpSocket>>::new();
        let mut answers = JoinSet::new();
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let (len, from) = self.front.recv_from(&mut datagram).await.context("receiving from a peer")?;
            let back = match backs.get(&from) {
                Some(back) => back.clone(),
                None => {
                    let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.context("opening the way back")?;
                    back.connect(self.to).await.context("opening the way back")?;
                    let back = Arc::new(back);
                    answers.spawn(answer(back.clone(), self.front.clone(), (from, self.to), self.cuts.clone()));
                    backs.insert(from, back.clone());
                    back
                }
            };
            if self.cuts.pass(from, self.to) {
                // A filer that is not there refuses datagrams; to its peers they are lost.
                let _ = back.send(&datagram[..len]).await;
            }
        }
    }
}

async fn answer(back: Arc<UdpSocket>, front: Arc<UdpSocket>, (peer, filer): (SocketAddr, SocketAddr), cuts: Arc<Cuts>) {
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // An error tells of a datagram that the filer refused, since it is not there.
        if let Ok(len) = back.recv(&mut datagram).await
            && cuts.pass(peer, filer)
        {
            let _ = front.send_to(&datagram[..len], peer).await;
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
    }
}
