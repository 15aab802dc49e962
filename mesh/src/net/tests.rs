//! Whole meshes on loopback: what they say to each other, whom they refuse, and what they survive.

mod calls;
mod refusals;
mod sessions;

use super::{
    Identity, MeshCa, MeshSettings, QuicMesh,
    identity::tests::{Stopped, identity},
};
use crate::{
    FilerId,
    clock::SeededRandom,
    peers::{CallError, Channel, Member, Message, PeerName, Peers, Service, Services},
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};
use tokio::sync::mpsc;

/// Longer than any healthy call takes, however busy the machine.
const LONG: Duration = Duration::from_secs(30);

/// The wall clock of this host, as certificates need it.
#[expect(clippy::disallowed_methods, reason = "rustls judges certificates by the machine's clock")]
fn now() -> Stopped {
    Stopped(UNIX_EPOCH.elapsed().expect("after 1970").as_secs())
}

fn ca() -> MeshCa {
    MeshCa::create("prod", &now()).expect("ca")
}

fn filer(ca: &MeshCa, id: u64) -> Identity {
    identity(ca, id, &format!("site{id}"), 30, &now())
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

fn quick() -> MeshSettings {
    MeshSettings { redial_ms_min: 10, redial_ms_max: 100, twin_ms: 1_500, ..MeshSettings::default() }
}

/// Answers with the caller's id, its own label and the call's body; refuses "refuse"; never answers "hang".
struct Echo {
    label: &'static str,
    /// Told when a hanging call starts (true) and when it is dropped (false).
    hanging: mpsc::UnboundedSender<bool>,
}

struct Hanging(mpsc::UnboundedSender<bool>);

impl Drop for Hanging {
    fn drop(&mut self) {
        // Nobody listens once the test is over.
        let _ = self.0.send(false);
    }
}

#[async_trait::async_trait]
impl Service for Echo {
    async fn handle(&self, from: &PeerName, call: Message) -> Result<Message, String> {
        match &*call.head {
            b"refuse" => Err("it is not the time".into()),
            b"oversize" => Ok(Message { head: call.head, body: vec![0; crate::peers::BODY_BYTES_MAX + 1].into() }),
            b"panic" => panic!("a handler may panic"),
            b"hang" => {
                let _dropped = Hanging(self.hanging.clone());
                let _ = self.hanging.send(true);
                std::future::pending().await
            }
            _ => Ok(Message { head: format!("{} {}", self.label, from.id).into(), body: call.body }),
        }
    }
}

/// A mesh with an echo behind it.
struct Site {
    mesh: QuicMesh,
    hanging: mpsc::UnboundedReceiver<bool>,
}

impl Site {
    fn start(identity: Identity, settings: MeshSettings) -> Self {
        Self::start_at(identity, settings, any_port(), "echo")
    }

    fn start_at(identity: Identity, settings: MeshSettings, listen: SocketAddr, label: &'static str) -> Self {
        let random = Arc::new(SeededRandom::new(seed()));
        Self::serving(QuicMesh::start(settings, identity, listen, random).expect("started"), label)
    }

    fn serving(mesh: QuicMesh, label: &'static str) -> Self {
        let (sender, hanging) = mpsc::unbounded_channel();
        let echo = |label| Arc::new(Echo { label, hanging: sender.clone() });
        mesh.set_services(Services { consensus: echo("log"), filer: echo(label) });
        Self { mesh, hanging }
    }

    fn id(&self) -> FilerId {
        self.mesh.identity().id()
    }

    fn member(&self) -> (FilerId, Member) {
        let address = self.mesh.local_addr().expect("bound").to_string();
        (self.id(), Member { name: self.mesh.identity().name().into(), address })
    }

    fn knows(&self, others: &[&Site]) {
        self.mesh.set_members(others.iter().map(|o| o.member()).collect::<BTreeMap<_, _>>());
    }

    async fn says(&self, to: FilerId, head: &'static str, body: Bytes) -> Result<Message, CallError> {
        let head = Bytes::from_static(head.as_bytes());
        self.mesh.call(to, Channel::Filer, Message { head, body }, LONG).await
    }

    /// The words of the failure of a call to `to`.
    async fn fails(&self, to: FilerId) -> String {
        self.says(to, "x", Bytes::new()).await.expect_err("no session").to_string()
    }

    fn last_error(&self, of: FilerId) -> Option<String> {
        self.mesh.status().into_iter().find(|s| s.id == of).and_then(|s| s.last_error)
    }
}

/// Waits for what must come sooner or later; a test that waits in vain fails instead of hanging.
async fn comes<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(2 * LONG, what).await.expect("it never came")
}

/// Another seed for every mesh: two with the same one would look like one process.
fn seed() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// Two sites, of which only the first dials.
fn pair() -> (Site, Site) {
    let ca = ca();
    let (a, b) = (Site::start(filer(&ca, 1), quick()), Site::start(filer(&ca, 2), quick()));
    a.knows(&[&b]);
    (a, b)
}
