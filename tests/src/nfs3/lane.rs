//! One connection: calls go out as they come, answers are matched by their numbers. It connects when it is first used,
//! and again after it broke.

use super::Options;
use bytes::{Bytes, BytesMut};
use nfs3_types::{
    rpc::{
        RPC_VERSION_2, accept_stat_data, auth_unix, call_body, fragment_header, msg_body, opaque_auth, reply_body,
        rpc_msg,
    },
    xdr_codec::{Pack, Unpack},
};
use std::{
    collections::BTreeMap,
    hash::{BuildHasher, Hasher},
    net::SocketAddr,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter},
    net::{TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::{mpsc, oneshot},
    task::{JoinHandle, yield_now},
};

/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// What is read, or written, in one go, in bytes.
const GATHERED_BYTES: usize = 64 << 10;

/// Calls that wait to be sent.
const CALLS_WAITING_MAX: usize = 64;

/// A program and its version.
pub(super) type Program = (u32, u32);

// Servers remember answers by client and number: the numbers of two runs must not be the same.
static XID: LazyLock<AtomicU32> =
    LazyLock::new(|| AtomicU32::new(std::hash::RandomState::new().build_hasher().finish() as u32));

/// A number for a call, that no other call of this process has.
pub(super) fn xid_next() -> u32 {
    XID.fetch_add(1, Relaxed)
}

#[derive(Debug)]
pub(super) enum LaneError {
    /// RPC does not accept the call; it would not the next time either.
    Refused(String),
    /// The connection is not there, or no more.
    Broken(String),
}

type Waiting = Arc<Mutex<BTreeMap<u32, oneshot::Sender<Bytes>>>>;

struct Live {
    calls: mpsc::Sender<Bytes>,
    waiting: Waiting,
    tasks: [JoinHandle<()>; 2],
}

impl Live {
    fn is_over(&self) -> bool {
        self.tasks.iter().any(JoinHandle::is_finished)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        // Those who wait learn of the end by this.
        self.waiting.lock().expect("no holder of the waiting calls panics").clear();
    }
}

/// A connection that comes back.
pub(super) struct Lane {
    server: SocketAddr,
    credentials: opaque_auth<'static>,
    live: tokio::sync::Mutex<Option<Live>>,
    hung_up: std::sync::atomic::AtomicBool,
}

impl Lane {
    pub fn new(options: &Options) -> Self {
        let user = auth_unix { uid: options.uid, gid: options.gid, ..auth_unix::default() };
        Self {
            server: options.server,
            credentials: opaque_auth::auth_unix(&user),
            live: tokio::sync::Mutex::default(),
            hung_up: false.into(),
        }
    }

    /// Closes the connection before its next call.
    pub fn hang_up(&self) {
        self.hung_up.store(true, Relaxed);
    }

    /// Sends a call and waits for its result.
    pub async fn ask(&self, xid: u32, (prog, vers): Program, proc: u32, arguments: &[u8]) -> Result<Bytes, LaneError> {
        let body = call_body {
            rpcvers: RPC_VERSION_2,
            prog,
            vers,
            proc,
            cred: self.credentials.borrow(),
            verf: opaque_auth::default(),
        };
        let message = rpc_msg { xid, body: msg_body::CALL(body) };
        let len = message.packed_size() + arguments.len();
        let mut record = Vec::with_capacity(4 + len);
        record.extend(fragment_header::new(len as u32, true).into_xdr_buf());
        message.pack(&mut record).map_err(|e| LaneError::Refused(e.to_string()))?;
        record.extend_from_slice(arguments);

        let broken = |why: &str| LaneError::Broken(why.into());
        let (calls, answer) = self.enter(xid).await?;
        calls.send(record.into()).await.map_err(|_| broken("the connection ended"))?;
        let answer = answer.await.map_err(|_| broken("the connection ended"))?;
        result_of(answer)
    }

    /// Makes room for an answer on a live connection.
    async fn enter(&self, xid: u32) -> Result<(mpsc::Sender<Bytes>, oneshot::Receiver<Bytes>), LaneError> {
        let mut live = self.live.lock().await;
        if self.hung_up.swap(false, Relaxed) || live.as_ref().is_some_and(Live::is_over) {
            *live = None;
        }
        if live.is_none() {
            *live = Some(connect(self.server).await.map_err(|e| LaneError::Broken(format!("connecting: {e}")))?);
        }
        let live = live.as_ref().expect("it was just made");
        let (tell, answer) = oneshot::channel();
        live.waiting.lock().expect("no holder of the waiting calls panics").insert(xid, tell);
        Ok((live.calls.clone(), answer))
    }
}

async fn connect(server: SocketAddr) -> std::io::Result<Live> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    let (calls, outgoing) = mpsc::channel(CALLS_WAITING_MAX);
    let waiting = Waiting::default();
    let answers = waiting.clone();
    let reading = tokio::spawn(async move {
        if let Err(error) = receive(reader, &answers).await {
            tracing::debug!(%error, "an NFS connection ended");
        }
        answers.lock().expect("no holder of the waiting calls panics").clear();
    });
    Ok(Live { calls, waiting, tasks: [reading, tokio::spawn(send(writer, outgoing))] })
}

/// Sends calls as they come; those that are ready together go together, as the kernel's client has them do.
async fn send(writer: OwnedWriteHalf, mut outgoing: mpsc::Receiver<Bytes>) {
    let mut writer = BufWriter::with_capacity(GATHERED_BYTES, writer);
    while let Some(record) = outgoing.recv().await {
        let sent = async {
            writer.write_all(&record).await?;
            yield_now().await;
            while let Ok(record) = outgoing.try_recv() {
                writer.write_all(&record).await?;
            }
            writer.flush().await
        };
        if sent.await.is_err() {
            // The reader sees the end as well, and tells who waits.
            return;
        }
    }
}

async fn receive(reader: OwnedReadHalf, waiting: &Waiting) -> std::io::Result<()> {
    let mut reader = BufReader::with_capacity(GATHERED_BYTES, reader);
    loop {
        let mut record = BytesMut::new();
        loop {
            let mut mark = [0; 4];
            reader.read_exact(&mut mark).await?;
            let mark = fragment_header::from(mark);
            let (at, len) = (record.len(), mark.fragment_length() as usize);
            if at + len > ANSWER_BYTES_MAX {
                return Err(std::io::Error::other("an answer is too long"));
            }
            record.resize(at + len, 0);
            reader.read_exact(&mut record[at..]).await?;
            if mark.eof() {
                break;
            }
        }
        let Some(xid) = record.first_chunk().map(|xid| u32::from_be_bytes(*xid)) else {
            return Err(std::io::Error::other("an answer is too short"));
        };
        let teller = waiting.lock().expect("no holder of the waiting calls panics").remove(&xid);
        // Nobody waits any more for what was given up.
        if let Some(teller) = teller {
            let _ = teller.send(record.freeze());
        }
    }
}

fn result_of(answer: Bytes) -> Result<Bytes, LaneError> {
    let refused = |what: String| Err(LaneError::Refused(what));
    let mut rest = &answer[..];
    let message = match rpc_msg::unpack(&mut rest) {
        Ok((message, _)) => message,
        Err(error) => return refused(format!("no RPC answer: {error}")),
    };
    let at = answer.len() - rest.len();
    match message.body {
        msg_body::REPLY(reply_body::MSG_ACCEPTED(accepted)) => match accepted.reply_data {
            accept_stat_data::SUCCESS => Ok(answer.slice(at..)),
            accept_stat_data::SYSTEM_ERR => Err(LaneError::Broken("the server's system error".into())),
            other => refused(format!("not accepted: {other:?}")),
        },
        msg_body::REPLY(reply_body::MSG_DENIED(denied)) => refused(format!("denied: {denied:?}")),
        msg_body::CALL(_) => refused("a call came instead of an answer".into()),
    }
}
