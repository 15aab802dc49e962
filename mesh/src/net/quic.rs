//! The mesh over QUIC: what the rest of the filer holds.
//!
//! Owns: the socket, the sessions and the tasks that keep them. Does not own: the list of members and of the removed,
//! which are given; nor the services, which answer peers' calls.
//!
//! A filer with a good certificate that is not in the list (yet) may open a session and call: one that is being added
//! must hear its first call before it knows the list. It is the set of the removed, and that of revoked certificates,
//! that shut a filer out; what a filer may say that is no member (yet) its services decide.

use super::{
    dial, frame,
    hello::{self, Hello, Speaker},
    identity::Identity,
    roster::{Admitted, Roster},
    serve,
    session::{Close, PeerCertificate, Session},
    settings::{MeshSettings, SettingsError},
    stats::{Counts, MeshStats},
    tls::Tls,
};
use crate::{
    FilerId,
    clock::Random,
    peers::{CallError, Channel, Member, Message, PeerStatus, Peers, Services},
};
use quinn::{Endpoint, EndpointConfig, TokioRuntime, TransportConfig, VarInt, crypto::rustls::QuicServerConfig};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::RangeInclusive,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore},
    time::{Instant, sleep, timeout_at},
};

/// Memory for calls is counted in pieces of this many bytes.
pub(super) const CALL_BYTES_UNIT: usize = 1 << 10;
/// Longest wait for connections and handlers to end when the mesh is closed, in milliseconds.
const CLOSE_MS_MAX: u64 = 3_000;
/// What a filer is told whose session ends since the list of members lacks it.
const NOT_MEMBER: &str = "this filer is not in the list of members";
/// What a removed filer is told.
const REMOVED: &str = "this filer was removed from the CloudFS";
/// What a filer is told whose certificate was revoked.
const REVOKED: &str = "this filer's certificate was revoked; have a new one signed";

/// Why the mesh could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings contradict each other.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The port could not be taken.
    #[error(
        "the mesh cannot listen at UDP {listen}: {source}. Is another filer running, or the address not this host's?"
    )]
    Listen { listen: SocketAddr, source: std::io::Error },
    /// TLS could not be set up from the identity.
    #[error("TLS cannot be set up with this filer's identity: {0}")]
    Tls(String),
}

/// The peers of a filer, over QUIC.
pub struct QuicMesh {
    pub(super) shared: Arc<Shared>,
}

/// What the tasks of the mesh share.
pub(super) struct Shared {
    pub settings: MeshSettings,
    pub tls: Arc<Tls>,
    pub endpoint: Endpoint,
    pub server: quinn::ServerConfig,
    pub transport: Arc<TransportConfig>,
    pub hello: Hello,
    pub roster: Roster,
    pub counts: Arc<Counts>,
    pub random: Arc<dyn Random>,
    pub handshakes: Arc<Semaphore>,
    pub consensus_memory: Semaphore,
    pub filer_memory: Semaphore,
    pub consensus_handlers: Semaphore,
    pub filer_handlers: Semaphore,
    services: Mutex<Option<Services>>,
    runtime: Handle,
}

impl Shared {
    /// What answers peers' calls, once it is known.
    pub fn services(&self) -> Option<Services> {
        self.services.lock().expect("no holder panics").clone()
    }
}

fn transport(settings: &MeshSettings) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = VarInt::from_u64(settings.idle_ms_max).expect("the settings limit it");
    let calls = VarInt::from_u32(settings.calls_per_peer_max);
    // The connection's window is never the narrow place: streams that wait for a handler cannot hold up the others.
    let window = u64::from(settings.stream_window_bytes) * u64::from(settings.calls_per_peer_max);
    transport
        .keep_alive_interval(Some(Duration::from_millis(settings.keep_alive_ms)))
        .max_idle_timeout(Some(idle.into()))
        .max_concurrent_bidi_streams(calls)
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(settings.stream_window_bytes))
        .receive_window(VarInt::from_u64(window).expect("the settings limit it"))
        .send_window(settings.send_window_bytes);
    transport
}

impl QuicMesh {
    /// Listens at `listen` (UDP; port 0 takes a free one) and is ready to be dialled and to dial. Until
    /// [`QuicMesh::set_services`] is called, peers' calls are refused as "starting".
    ///
    /// Must be called within a tokio runtime; the mesh's tasks run there until [`QuicMesh::close`], or until it is
    /// dropped.
    pub fn start(
        settings: MeshSettings,
        identity: Identity,
        listen: SocketAddr,
        random: Arc<dyn Random>,
    ) -> Result<Self, StartError> {
        Self::start_speaking(settings, identity, listen, random, hello::VERSIONS)
    }

    pub(super) fn start_speaking(
        settings: MeshSettings,
        identity: Identity,
        listen: SocketAddr,
        random: Arc<dyn Random>,
        versions: RangeInclusive<u16>,
    ) -> Result<Self, StartError> {
        settings.validate()?;
        let counts = Arc::new(Counts::default());
        let me = Speaker {
            cloudfs: identity.cloudfs().into(),
            filer: identity.id(),
            name: identity.name().into(),
            boot: random.next_u64(),
        };
        let tls = Tls::new(identity, counts.clone()).map_err(StartError::Tls)?;
        let transport = Arc::new(transport(&settings));
        // Each connection is accepted with a configuration of its own; this one is for what comes before.
        let (config, _) = tls.server(listen).map_err(|e| StartError::Tls(e.to_string()))?;
        let crypto = QuicServerConfig::try_from(config).map_err(|e| StartError::Tls(e.to_string()))?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        server.transport_config(transport.clone()).max_incoming(settings.handshakes_max);

        let unable = |source| StartError::Listen { listen, source };
        #[expect(clippy::disallowed_methods, reason = "sessions are real: nothing here is simulated")]
        let socket = std::net::UdpSocket::bind(listen).map_err(unable)?;
        let config = EndpointConfig::default();
        let endpoint = Endpoint::new(config, Some(server.clone()), socket, Arc::new(TokioRuntime)).map_err(unable)?;
        let shared = Arc::new(Shared {
            roster: Roster::new(me.filer, Duration::from_millis(settings.twin_ms)),
            handshakes: Arc::new(Semaphore::new(settings.handshakes_max)),
            consensus_memory: Semaphore::new(settings.call_bytes_max / 4 / CALL_BYTES_UNIT),
            filer_memory: Semaphore::new(settings.call_bytes_max / 4 * 3 / CALL_BYTES_UNIT),
            consensus_handlers: Semaphore::new(settings.consensus_handlers_max),
            filer_handlers: Semaphore::new(settings.filer_handlers_max),
            hello: Hello { versions, speaker: Some(me) },
            services: Mutex::default(),
            runtime: Handle::current(),
            settings,
            tls,
            endpoint,
            server,
            transport,
            counts,
            random,
        });
        tokio::spawn(serve::door(shared.clone()));
        Ok(Self { shared })
    }

    /// What answers peers' calls from now on.
    pub fn set_services(&self, services: Services) {
        *self.shared.services.lock().expect("no holder panics") = Some(services);
    }

    /// Replaces the set of filers that were removed from the CloudFS: their sessions end and their certificates are
    /// refused.
    pub fn set_removed(&self, removed: BTreeSet<FilerId>) {
        // First, so that a session that is being opened meanwhile is found by one of the two looks.
        self.shared.tls.set_removed(removed.clone());
        for session in self.shared.roster.sessions_where(|session| removed.contains(&session.peer.id)) {
            Close::Removed.end(&session.conn, REMOVED);
        }
    }

    /// Replaces the list of certificates, by serial number, that are refused before their end: sessions that stand by
    /// them end.
    pub fn set_revoked(&self, revoked: BTreeSet<String>) {
        self.shared.tls.set_revoked(revoked.clone());
        for session in self.shared.roster.sessions_where(|session| revoked.contains(&session.certificate.serial)) {
            Close::Revoked.end(&session.conn, REVOKED);
        }
    }

    /// Who this filer is.
    pub fn identity(&self) -> Arc<Identity> {
        self.shared.tls.identity()
    }

    /// Takes another certificate of this filer into use. Sessions that stand keep the old one until they end. An error
    /// says in what it is not this filer's; then nothing has changed.
    pub fn renew(&self, identity: Identity) -> Result<(), String> {
        self.shared.tls.renew(identity)
    }

    /// The names of the peers that refuse this filer as one that was removed from the CloudFS, by their last word: it
    /// holds until a session with them stands again.
    pub fn removed_by(&self) -> Vec<String> {
        self.shared.roster.removed_by()
    }

    /// By which certificate each peer stands with which there is a session. One that was renewed since shows the new one in
    /// its next session.
    pub fn certificates(&self) -> BTreeMap<FilerId, PeerCertificate> {
        self.shared.roster.certificates()
    }

    /// Where the mesh listens.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// What was counted since the start.
    pub fn stats(&self) -> MeshStats {
        self.shared.counts.snapshot(self.shared.roster.up())
    }

    /// Ends all sessions and waits until peers were told and no handler runs any more; at most some seconds.
    pub async fn close(&self) {
        self.shut();
        let shared = &self.shared;
        let (consensus, filer) = (shared.settings.consensus_handlers_max, shared.settings.filer_handlers_max);
        let until = Instant::now() + Duration::from_millis(CLOSE_MS_MAX);
        let all = async {
            // Whoever holds every permit is alone.
            let _consensus = shared.consensus_handlers.acquire_many(consensus as u32).await;
            let _filer = shared.filer_handlers.acquire_many(filer as u32).await;
            shared.endpoint.wait_idle().await;
        };
        if timeout_at(until, all).await.is_err() {
            tracing::warn!(ms = CLOSE_MS_MAX, "the mesh did not come to rest in time; peers will notice by themselves");
        }
    }

    fn shut(&self) {
        // Members first: their diallers end, and nothing is dialled again.
        self.shared.roster.set_members(BTreeMap::new());
        self.shared.services.lock().expect("no holder panics").take();
        self.shared.endpoint.close(VarInt::from_u32(Close::Stopping as u32), b"the filer is stopping");
    }
}

impl Drop for QuicMesh {
    fn drop(&mut self) {
        self.shut();
    }
}

/// Takes a session into use; `wanted` is the bell of the dialler that opened it, if one did.
pub(super) fn admit(shared: &Arc<Shared>, session: Session, wanted: Option<&Arc<Notify>>) {
    let session = Arc::new(session);
    let peer = session.peer.clone();
    let Some(Admitted { replaced, retire }) = shared.roster.admit(&session, wanted) else {
        return Close::NotMember.end(&session.conn, NOT_MEMBER);
    };
    for old in replaced {
        Close::Replaced.end(&old.conn, "a newer session with this filer stands");
    }
    shared.counts.sessions_opened.one();
    let (at, dialled) = (session.conn.remote_address(), session.dialled);
    tracing::info!(peer = %peer.id, name = %peer.name, %at, dialled, version = session.agreed.version, "a session stands");
    // The sets may have changed since the certificate was checked.
    if shared.tls.is_removed(peer.id) {
        Close::Removed.end(&session.conn, REMOVED);
    }
    if shared.tls.is_revoked(&session.certificate.serial) {
        Close::Revoked.end(&session.conn, REVOKED);
    }
    if let Some(twin) = retire {
        let shared = shared.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = twin.conn.closed() => return,
                _ = sleep(Duration::from_millis(shared.settings.twin_ms)) => {}
            }
            if shared.roster.has_twin(&twin) {
                Close::Twin.end(&twin.conn, "the other one of two sessions stays");
            }
        });
    }
    tokio::spawn(serve::attend(shared.clone(), session));
}

impl Shared {
    /// The session with `to`, waiting for one to be opened where none stands.
    async fn session(&self, to: FilerId, deadline: Instant) -> Result<Arc<Session>, CallError> {
        let mut failures = None;
        loop {
            let waiting = match self.roster.session(to) {
                None => return Err(CallError::Unknown(to)),
                Some(Ok(session)) => return Ok(session),
                Some(Err(waiting)) => waiting,
            };
            let last = || waiting.last_error.clone().unwrap_or_else(|| "no session stands yet".into());
            if waiting.failures > *failures.get_or_insert(waiting.failures) {
                return Err(CallError::Unreachable { to, why: last() });
            }
            self.roster.want(to);
            let mut changed = waiting.changed.clone();
            if timeout_at(deadline, changed.changed()).await.is_err() {
                return Err(CallError::Unreachable { to, why: last() });
            }
        }
    }
}

#[async_trait::async_trait]
impl Peers for QuicMesh {
    async fn call(
        &self,
        to: FilerId,
        channel: Channel,
        call: Message,
        deadline: Duration,
    ) -> Result<Message, CallError> {
        let shared = &self.shared;
        let until = Instant::now() + deadline;
        shared.counts.calls.one();
        let answer = async {
            if let Err(e) = frame::check_lengths(call.head.len(), call.body.len()) {
                return Err(CallError::Refused { to, why: format!("the call cannot be sent: {e}") });
            }
            let session = shared.session(to, until).await?;
            let left = until.saturating_duration_since(Instant::now());
            session.call(channel, call, left, &shared.counts).await
        };
        let answer = answer.await.map_err(|e| match e {
            // The caller knows the deadline that it gave, not what was left of it.
            CallError::TimedOut { to, .. } => CallError::TimedOut { to, after_ms: deadline.as_millis() as u64 },
            e => e,
        });
        if answer.is_err() {
            shared.counts.calls_failed.one();
        }
        answer
    }

    fn set_members(&self, members: BTreeMap<FilerId, Member>) {
        let changed = self.shared.roster.set_members(members);
        for session in changed.ended {
            Close::NotMember.end(&session.conn, NOT_MEMBER);
        }
        for (id, wanted) in changed.added {
            self.shared.runtime.spawn(dial::keep(self.shared.clone(), id, wanted));
        }
    }

    fn status(&self) -> Vec<PeerStatus> {
        self.shared.roster.status()
    }

    fn certificate(&self) -> Option<String> {
        Some(self.identity().serial().to_owned())
    }
}
