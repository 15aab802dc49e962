//! Listeners and connections.

use super::admission::{Held, Kind, Room, Share};
use super::decode::Malformed;
use super::dispatch::{Request, SHORT_REPLY_BYTES, Service};
use super::exports::{BadExport, Export, Exports};
use super::handle::SecretSource;
use super::record::{Arrived, Outgoing, RecordError, RecordReader, write_replies};
use super::replay::CallKey;
use super::rpc::{Call, Message, Reply};
use super::settings::NfsSettings;
use super::stats::{Counters, NfsStats, count};
use crate::fs::FileSystem;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};

/// How often calls that have ended are looked for while their client sends none.
const ENDED_LOOK: Duration = Duration::from_secs(1);

/// Pause after a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE_MS: u64 = 100;

/// Why the NFS door does not open.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("NFS settings: {why}")]
    Settings { why: String },
    #[error(transparent)]
    Export(#[from] BadExport),
    #[error("listening for NFS on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// A running NFS server. Dropped, it stops without waiting for calls at work.
pub struct NfsServer {
    address: SocketAddr,
    counters: Arc<Counters>,
    stop: watch::Sender<bool>,
    listeners: Vec<JoinHandle<()>>,
}

impl NfsServer {
    /// Listens, and serves the tree to the exports' clients. `cloudfs` is the id of the CloudFS, part of every handle,
    /// and `secret` gives what handles are sealed with.
    #[expect(clippy::disallowed_methods, reason = "the NFS door is real: nothing here is simulated")]
    pub async fn start(
        settings: NfsSettings,
        exports: Vec<Export>,
        (cloudfs, secret): (u64, SecretSource),
        fs: Arc<dyn FileSystem>,
        listen: SocketAddr,
    ) -> Result<Self, StartError> {
        settings.check().map_err(|why| StartError::Settings { why })?;
        let exports = Exports::new(exports)?;
        let mut sockets = Vec::new();
        for address in std::iter::once(listen).chain(settings.extra_listen.iter().copied()) {
            let socket = TcpListener::bind(address).await;
            sockets.push(socket.map_err(|source| StartError::Listen { address, source })?);
        }
        let address = sockets[0].local_addr().map_err(|source| StartError::Listen { address: listen, source })?;
        let counters = Arc::new(Counters::default());
        let door = Arc::new(Door {
            connections: Arc::new(Semaphore::new(settings.connections_max as usize)),
            room: Room::new(&settings, counters.clone()),
            service: Service::new(settings, exports, (cloudfs, secret), fs, counters.clone(), address.port()),
        });
        let (stop, stopped) = watch::channel(false);
        let listeners = sockets.into_iter().map(|socket| tokio::spawn(accept(door.clone(), socket, stopped.clone())));
        let listeners = listeners.collect();
        tracing::info!(%address, "serving NFS");
        Ok(Self { address, counters, stop, listeners })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The counters of this moment.
    pub fn stats(&self) -> NfsStats {
        self.counters.snapshot()
    }

    /// The running counters, to be kept by whoever shows them.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Stops listening and reading, and waits for the calls at work and their replies, up to `shutdown_ms_max`.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        for listener in std::mem::take(&mut self.listeners) {
            if let Err(error) = listener.await {
                tracing::error!(%error, "an NFS listener failed");
            }
        }
    }
}

struct Door {
    service: Service,
    connections: Arc<Semaphore>,
    room: Arc<Room>,
}

type Stop = watch::Receiver<bool>;

/// Returns when the server stops, or is dropped.
async fn stopped(stop: &mut Stop) {
    // An error says that the server is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn accept(door: Arc<Door>, socket: TcpListener, mut stop: Stop) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = socket.accept() => accepted,
        };
        let counters = &door.service.counters;
        match accepted {
            Ok((stream, peer)) => match door.connections.clone().try_acquire_owned() {
                Ok(permit) => {
                    connections.spawn(connection(door.clone(), stream, peer, stop.clone(), permit));
                }
                Err(_) => {
                    count(&counters.connections_refused);
                    tracing::warn!(client = %peer, "refused: too many NFS connections");
                }
            },
            Err(error) => {
                tracing::warn!(%error, "accepting an NFS connection");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
    }
    drop(socket);
    let deadline = Duration::from_millis(door.service.settings.shutdown_ms_max);
    let drained = tokio::time::timeout(deadline, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(connections = connections.len(), "NFS calls at work were cut off");
    }
}

/// Counts a connection, or call, as long as it lives.
struct Alive<'a>(&'a AtomicU64);

impl<'a> Alive<'a> {
    fn count(counter: &'a AtomicU64) -> Self {
        count(counter);
        Self(counter)
    }
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn connection(door: Arc<Door>, stream: TcpStream, peer: SocketAddr, mut stop: Stop, _slot: OwnedSemaphorePermit) {
    let counters = door.service.counters.clone();
    let _alive = Alive::count(&counters.connections_now);
    count(&counters.connections_total);
    let client = peer.ip().to_canonical();
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%client, %error, "setting TCP_NODELAY");
    }
    let settings = &door.service.settings;
    let (input, output) = stream.into_split();
    let (replies, outbox) = mpsc::channel::<Outgoing<Option<Held>>>(settings.calls_in_flight_max as usize);
    let stall_max = Duration::from_millis(settings.reply_stall_ms_max);
    let mut writer = JoinSet::new();
    let written = counters.clone();
    writer.spawn(async move { write_replies(output, outbox, stall_max, &written).await });

    let mut connection = Connection {
        door: door.clone(),
        client,
        reader: RecordReader::new(input, settings.record_bytes_max as usize),
        calls: JoinSet::new(),
        call_failed: Arc::default(),
        share: door.room.share(),
        replies,
    };
    tokio::select! {
        biased;
        () = stopped(&mut stop) => {}
        Some(ended) = writer.join_next() => {
            if let Ok(Err(error)) = ended {
                tracing::debug!(%client, %error, "writing replies");
            }
        }
        () = connection.serve() => {}
    }
    // Calls that were begun are finished, whether or not the client still listens.
    let Connection { mut calls, replies, .. } = connection;
    drop(replies);
    while calls.join_next().await.is_some() {}
    while writer.join_next().await.is_some() {}
}

struct Connection<R> {
    door: Arc<Door>,
    client: IpAddr,
    reader: RecordReader<R>,
    calls: JoinSet<()>,
    /// Told when a call ends by a panic.
    call_failed: Arc<Notify>,
    share: Share,
    replies: mpsc::Sender<Outgoing<Option<Held>>>,
}

/// Goes with a call, and tells when it panics.
struct TellsPanic(Arc<Notify>);

impl Drop for TellsPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.notify_one();
        }
    }
}

impl<R: tokio::io::AsyncRead + Unpin> Connection<R> {
    /// Reads calls and sets them to work, until the client leaves or must.
    async fn serve(&mut self) {
        let client = self.client;
        let counters = self.door.service.counters.clone();
        loop {
            match self.next_call().await {
                Ok(Some(())) => {}
                Ok(None) => return,
                Err(
                    error @ (RecordError::TooLong { .. }
                    | RecordError::TooManyFragments
                    | RecordError::TooSlow { .. }
                    | RecordError::NoCall),
                ) => {
                    count(&counters.garbage_closed);
                    tracing::info!(%client, %error, "closing an NFS connection");
                    return;
                }
                Err(error) => {
                    tracing::debug!(%client, %error, "an NFS connection ended");
                    return;
                }
            }
        }
    }

    /// Reads the next call, once there is room for it, and sets it to work, or turns it away; `None` at the end.
    async fn next_call(&mut self) -> Result<Option<()>, RecordError> {
        let door = self.door.clone();
        let (service, settings) = (&door.service, &door.service.settings);
        let (record, held) = match self.next_record().await? {
            None => return Ok(None),
            Some(Arrived::Whole(record)) => (record, None),
            Some(Arrived::Long { head, bytes_max }) => {
                let xid = Call::xid_of_write(&head).ok_or(RecordError::NoCall)?;
                let held = self.share.admit(Kind::Write, bytes_max as u64 + SHORT_REPLY_BYTES).await;
                let after_ms = settings.record_ms_max;
                let too_slow = RecordError::TooSlow { after_ms };
                let deadline = Duration::from_millis(after_ms);
                if held.is_none() {
                    let checksum = timeout(deadline, self.reader.skip_long()).await.map_err(|_| too_slow)??;
                    self.turn_away(service.write_turned_away(self.client, xid, checksum)).await;
                    return Ok(Some(()));
                }
                (timeout(deadline, self.reader.read_long()).await.map_err(|_| too_slow)??, held)
            }
        };
        service.counters.bytes_in.fetch_add(record.len() as u64 + 4, Ordering::Relaxed);
        let call = match Call::read(record).map_err(|Malformed| RecordError::NoCall)? {
            Message::Call(call) => call,
            Message::Refused(reply) => {
                count(&service.counters.refused_calls);
                self.send(reply).await;
                return Ok(Some(()));
            }
        };
        let held = match held {
            Some(held) => Some(held),
            None => self.share.admit(call.kind(), call.bytes as u64 + call.reply_bytes_max(settings)).await,
        };
        let request = Request { call, client: self.client };
        let Some(held) = held else {
            self.turn_away(service.turned_away(&request)).await;
            return Ok(Some(()));
        };
        let replies = self.replies.clone();
        self.set_to_work(async move {
            let _alive = Alive::count(&door.service.counters.calls_in_flight);
            if let Some(reply) = door.service.reply(&request).await {
                // An error says that the client is gone.
                let _ = replies.send(Outgoing { reply, _held: Some(held) }).await;
            }
        });
        Ok(Some(()))
    }

    /// Answers a call that there is no room for: at once, or as soon as the same call, which is at work, is answered.
    async fn turn_away(&mut self, reply: Result<Reply, CallKey>) {
        let key = match reply {
            Ok(reply) => return self.send(reply).await,
            Err(key) => key,
        };
        // They do not pile up: of all repetitions of a call one waits.
        let (door, replies) = (self.door.clone(), self.replies.clone());
        self.set_to_work(async move {
            if let Some(reply) = door.service.awaited(key).await {
                // An error says that the client is gone.
                let _ = replies.send(Outgoing { reply, _held: None }).await;
            }
        });
    }

    /// Runs a call beside all others.
    fn set_to_work(&mut self, call: impl Future<Output = ()> + Send + 'static) {
        let tells_panic = TellsPanic(self.call_failed.clone());
        // In a box: a task is moved as a whole a few times while it begins and ends, and this one is large.
        let call = Box::pin(call);
        self.calls.spawn(async move {
            let _tells_panic = tells_panic;
            call.await;
        });
    }

    /// Sends a reply that took no work. While the client takes none, its connection is not read further.
    async fn send(&self, reply: Reply) {
        // An error says that the client is gone.
        let _ = self.replies.send(Outgoing { reply, _held: None }).await;
    }

    /// The next record; `None` when the client is gone, or idle for too long.
    async fn next_record(&mut self) -> Result<Option<Arrived>, RecordError> {
        let idle_max = Duration::from_millis(self.door.service.settings.idle_ms_max);
        let mut next = pin!(self.reader.next());
        let mut idle_since = Instant::now();
        loop {
            // Calls that have ended: that alone wakes nobody here.
            while self.calls.try_join_next().is_some() {
                idle_since = Instant::now();
            }
            let idle_left = idle_max.saturating_sub(idle_since.elapsed());
            let wait = if self.calls.is_empty() { idle_left } else { ENDED_LOOK.min(idle_max) };
            tokio::select! {
                biased;
                () = self.call_failed.notified() => {
                    // The client would wait for its answer for ever; over a new connection it asks again.
                    tracing::error!(client = %self.client, "an NFS call failed");
                    return Ok(None);
                }
                record = &mut next => return record,
                () = tokio::time::sleep(wait) => {
                    if self.calls.is_empty() && idle_since.elapsed() >= idle_max {
                        count(&self.door.service.counters.idle_closed);
                        tracing::debug!(client = %self.client, "closing an idle NFS connection");
                        return Ok(None);
                    }
                }
            }
        }
    }
}
