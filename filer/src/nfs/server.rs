//! Listeners and connections.

use super::dispatch::{Request, Service};
use super::exports::{BadExport, Export, Exports};
use super::record::{Outgoing, RecordError, RecordReader, write_replies};
use super::rpc::{Call, Message, Reply};
use super::settings::NfsSettings;
use super::stats::{Counters, NfsStats, count};
use crate::fs::FileSystem;
use bytes::Bytes;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

/// Pause after a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE_MS: u64 = 100;
/// Unit of the bound on bytes in flight.
const PERMIT_BYTES: u64 = 1024;

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
    /// Listens, and serves the tree to the exports' clients. `cloudfs` is the id of the CloudFS, part of every handle.
    pub async fn start(
        settings: NfsSettings,
        exports: Vec<Export>,
        cloudfs: u64,
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
            bytes_in_flight: Arc::new(Semaphore::new(permits(settings.bytes_in_flight_max) as usize)),
            service: Service::new(settings, exports, cloudfs, fs, counters.clone(), address.port()),
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
    bytes_in_flight: Arc<Semaphore>,
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

/// What a call holds until its reply is written.
type Held = (OwnedSemaphorePermit, OwnedSemaphorePermit);

async fn connection(door: Arc<Door>, stream: TcpStream, peer: SocketAddr, mut stop: Stop, _slot: OwnedSemaphorePermit) {
    let counters = door.service.counters.clone();
    let _alive = Alive::count(&counters.connections_now);
    count(&counters.connections_total);
    let client = peer.ip().to_canonical();
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%client, %error, "setting TCP_NODELAY");
    }
    let settings = &door.service.settings;
    let calls_max = settings.calls_in_flight_max as usize;
    let (input, output) = stream.into_split();
    let (replies, outbox) = mpsc::channel::<Outgoing<Held>>(calls_max);
    let stall_max = Duration::from_millis(settings.reply_stall_ms_max);
    let mut writer = JoinSet::new();
    let written = counters.clone();
    writer.spawn(async move { write_replies(output, outbox, stall_max, &written).await });

    let mut connection = Connection {
        door: door.clone(),
        client,
        reader: RecordReader::new(input, settings.record_bytes_max as usize),
        calls: JoinSet::new(),
        slots: Arc::new(Semaphore::new(calls_max)),
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
    slots: Arc<Semaphore>,
    replies: mpsc::Sender<Outgoing<Held>>,
}

impl<R: tokio::io::AsyncRead + Unpin> Connection<R> {
    /// Reads calls and sets them to work, until the client leaves or must.
    async fn serve(&mut self) {
        let client = self.client;
        let counters = self.door.service.counters.clone();
        loop {
            let slot = self.slots.clone().acquire_owned().await.expect("slots are never closed");
            let record = match self.next_record().await {
                Ok(Some(record)) => record,
                Ok(None) => return,
                Err(error @ (RecordError::TooLong { .. } | RecordError::TooManyFragments)) => {
                    count(&counters.garbage_closed);
                    tracing::info!(%client, %error, "closing an NFS connection");
                    return;
                }
                Err(error) => {
                    tracing::debug!(%client, %error, "an NFS connection ended");
                    return;
                }
            };
            counters.bytes_in.fetch_add(record.len() as u64 + 4, Ordering::Relaxed);
            let Ok(message) = Call::read(record) else {
                count(&counters.garbage_closed);
                tracing::info!(%client, "closing an NFS connection that does not speak RPC");
                return;
            };
            let bytes = self.bytes_of(&message);
            let held = (slot, bytes.await);
            let (door, replies) = (self.door.clone(), self.replies.clone());
            self.calls.spawn(async move {
                let reply = reply(&door.service, message, client).await;
                // An error says that the client is gone.
                let _ = replies.send(Outgoing { reply, _held: held }).await;
            });
        }
    }

    /// Room for a call and its reply.
    fn bytes_of(&self, message: &Message) -> impl Future<Output = OwnedSemaphorePermit> + use<R> {
        let settings = &self.door.service.settings;
        let bytes = match message {
            Message::Refused(reply) => reply.bytes() as u64,
            Message::Call(call) => call.bytes as u64 + call.reply_bytes_max(settings),
        };
        let (all, wanted) = (permits(settings.bytes_in_flight_max), permits(bytes));
        let bytes_in_flight = self.door.bytes_in_flight.clone();
        async move { bytes_in_flight.acquire_many_owned(wanted.min(all)).await.expect("bytes are never closed") }
    }

    /// The next record; `None` when the client is gone, or idle for too long.
    async fn next_record(&mut self) -> Result<Option<Bytes>, RecordError> {
        let idle_max = Duration::from_millis(self.door.service.settings.idle_ms_max);
        let mut next = pin!(self.reader.next());
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.calls.join_next() => {
                    if let Err(error) = ended {
                        // The client would wait for its answer for ever; over a new connection it asks again.
                        tracing::error!(client = %self.client, %error, "an NFS call failed");
                        return Ok(None);
                    }
                }
                record = &mut next => return record,
                () = tokio::time::sleep(idle_max) => {
                    if self.calls.is_empty() {
                        count(&self.door.service.counters.idle_closed);
                        tracing::debug!(client = %self.client, "closing an idle NFS connection");
                        return Ok(None);
                    }
                }
            }
        }
    }
}

async fn reply(service: &Service, message: Message, client: IpAddr) -> Reply {
    match message {
        Message::Refused(reply) => {
            count(&service.counters.refused_calls);
            reply
        }
        Message::Call(call) => {
            let _alive = Alive::count(&service.counters.calls_in_flight);
            service.reply(&Request { call, client }).await
        }
    }
}

fn permits(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX)
}
