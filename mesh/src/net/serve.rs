//! The mesh door: taking peers' connections, and answering their calls.
//!
//! ```text
//! datagram ─▶ QUIC ─▶ [handshakes_max] ─▶ TLS checks ─▶ greeting ─▶ session ─▶ streams ─▶ [call_bytes_max] ─▶ [handlers] ─▶ service
//! ```
//!
//! Every stage has its bound and every call its deadline; the replicated log has memory and handlers of its own, so that
//! bulk data cannot keep a heartbeat waiting. A handler is dropped when its deadline passes, when its
//! caller gives up, or when the connection ends.

use super::{
    dial,
    frame::{self, AnswerHeader, CallHeader, FrameError, FrameWriter, REFUSAL_BYTES_MAX, STREAM_DEADLINE},
    hello::{Agreed, Hello},
    identity::PeerName,
    quic::{self, Shared},
    session::{Close, Session, describe, says_removed},
};
use crate::peers::{Channel, Message};
use quinn::{Connection, Incoming, RecvStream, SendStream, crypto::rustls::QuicServerConfig};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, timeout, timeout_at};

/// Takes connections until the endpoint is closed.
pub async fn door(shared: Arc<Shared>) {
    while let Some(incoming) = shared.endpoint.accept().await {
        let Ok(permit) = shared.handshakes.clone().try_acquire_owned() else {
            shared.counts.refused_busy.one();
            incoming.refuse();
            continue;
        };
        // Under load a peer must first prove that it receives at the address it claims.
        let crowded = shared.handshakes.available_permits() < shared.settings.handshakes_max / 2;
        if crowded && incoming.may_retry() {
            // It fails only where no retry is allowed; the check above excludes that, and dropping it refuses it.
            let _ = incoming.retry();
            continue;
        }
        let shared = shared.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let (from, dial_ms_max) = (incoming.remote_address(), shared.settings.dial_ms_max);
            match timeout(Duration::from_millis(dial_ms_max), open(&shared, incoming)).await {
                Ok(Ok(session)) => quic::admit(&shared, session, None),
                Ok(Err(Refused { why, is_news: true })) => tracing::warn!(%from, %why, "turned a connection away"),
                Ok(Err(Refused { why, is_news: false })) => tracing::debug!(%from, %why, "turned a connection away"),
                Err(_) => tracing::debug!(%from, dial_ms_max, "a connection was not opened in time"),
            }
        });
    }
}

/// Why a connection is turned away.
struct Refused {
    why: String,
    /// Whether nobody has said so yet.
    is_news: bool,
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self { why, is_news: true }
    }
}

async fn open(shared: &Arc<Shared>, incoming: Incoming) -> Result<Session, Refused> {
    let (config, verdict) =
        shared.tls.server(incoming.remote_address()).map_err(|e| format!("TLS cannot be set up: {e}"))?;
    let crypto = QuicServerConfig::try_from(config).map_err(|e| format!("TLS cannot be set up: {e}"))?;
    let mut config = shared.server.clone();
    config.crypto = Arc::new(crypto);
    let connecting = incoming.accept_with(Arc::new(config)).map_err(|e| describe(&e))?;
    let conn = connecting.await.map_err(|e| {
        dial::count_missing(shared, &e);
        let refused = verdict.refused().map(|why| Refused { why: why.into(), is_news: false });
        refused.unwrap_or_else(|| describe(&e).into())
    })?;
    let holder = dial::who(&conn)?;
    match greet(&shared.hello, &conn, &holder.peer).await {
        Ok(agreed) => Ok(Session::new(holder, agreed, conn, false, &shared.settings)),
        Err(why) => {
            if conn.close_reason().is_none() {
                shared.counts.refused_greetings.one();
                Close::Greeting.end(&conn, &why);
            }
            let peer = &holder.peer;
            let is_news = shared.roster.failed(peer.id, &why, false);
            Err(Refused { why: format!("filer {} ({}): {why}", peer.id, peer.name), is_news })
        }
    }
}

async fn greet(ours: &Hello, conn: &Connection, peer: &PeerName) -> Result<Agreed, String> {
    let lost = |e: String| conn.close_reason().map_or(e, |e| describe(&e));
    let (mut send, mut recv) = conn.accept_bi().await.map_err(|e| describe(&e))?;
    let theirs = Hello::read(&mut recv).await.map_err(|e| lost(e.to_string()))?;
    let agreed = ours.judge(&theirs, peer)?;
    ours.write(&mut send).await.map_err(|e| lost(e.to_string()))?;
    Ok(agreed)
}

/// Lives as long as the session: takes its streams, watches its signs of life, and says why it ended.
pub async fn attend(shared: Arc<Shared>, session: Arc<Session>) {
    let mut sample = tokio::time::interval(Duration::from_millis(shared.settings.heard_sample_ms));
    sample.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let e = loop {
        tokio::select! {
            biased;
            stream = session.conn.accept_bi() => match stream {
                // The connection's limit on open streams bounds these tasks.
                Ok((send, recv)) => drop(tokio::spawn(answer(shared.clone(), session.clone(), send, recv))),
                Err(e) => break e,
            },
            _ = sample.tick() => drop(session.heard()),
        }
    };
    let why = describe(&e);
    if says_removed(&e) {
        shared.roster.says_removed(session.peer.id);
    }
    tracing::info!(peer = %session.peer.id, name = %session.peer.name, %why, "a session ended");
    shared.roster.ended(&session, why);
}

async fn answer(shared: Arc<Shared>, session: Arc<Session>, send: SendStream, mut recv: RecvStream) {
    let started = Instant::now();
    let ms_max = shared.settings.call_ms_max;
    let version = session.agreed.version;
    let mut writer = FrameWriter::new(send);
    let header = async {
        let header: CallHeader = frame::read_header(&mut recv, version).await?;
        frame::check_lengths(header.head_len as usize, header.body_len as usize)?;
        Ok::<_, FrameError>(header)
    };
    let header = match timeout(Duration::from_millis(ms_max), header).await {
        Ok(Ok(header)) => header,
        Ok(Err(e)) => return session.end_for(&e, &shared.counts),
        Err(_) => return writer.reset(STREAM_DEADLINE),
    };
    if header.channel == Channel::Consensus {
        // As in a call: ahead of bulk data. An error means that the stream has ended.
        let _ = writer.stream().set_priority(1);
    }
    let deadline = started + Duration::from_millis(header.deadline_ms.min(ms_max));
    let gone = writer.stream().stopped();
    let handled = tokio::select! {
        biased;
        handled = timeout_at(deadline, handle(&shared, &session, header, &mut recv)) => handled,
        _ = gone => return shared.counts.calls_dropped.one(),
    };
    let answer = match handled {
        Ok(Ok(answer)) => answer,
        Ok(Err(e)) => {
            shared.counts.calls_dropped.one();
            return session.end_for(&e, &shared.counts);
        }
        Err(_) => {
            shared.counts.calls_dropped.one();
            return writer.reset(STREAM_DEADLINE);
        }
    };
    let (refused, message) = within_limits(answer);
    let (head_len, body_len) = (message.head.len() as u32, message.body.len() as u32);
    let header = frame::encode_header(version, &AnswerHeader { refused, head_len, body_len });
    match timeout_at(deadline, writer.write(header, message)).await {
        Ok(Ok(())) => {
            shared.counts.calls_served.one();
            shared.counts.bytes_out.add(u64::from(head_len) + u64::from(body_len));
        }
        Ok(Err(_)) => shared.counts.calls_dropped.one(),
        Err(_) => {
            shared.counts.calls_dropped.one();
            writer.reset(STREAM_DEADLINE);
        }
    }
}

/// Reads the rest of the call and has it handled. The inner result is the service's own.
async fn handle(
    shared: &Shared,
    session: &Session,
    header: CallHeader,
    recv: &mut RecvStream,
) -> Result<Result<Message, String>, FrameError> {
    const OPEN: &str = "the semaphores are never closed";
    let (head_len, body_len) = (header.head_len as usize, header.body_len as usize);
    let bytes = u32::try_from((head_len + body_len).div_ceil(quic::CALL_BYTES_UNIT)).expect("both are limited");
    let (memory, handlers) = match header.channel {
        Channel::Consensus => (&shared.consensus_memory, &shared.consensus_handlers),
        Channel::Filer => (&shared.filer_memory, &shared.filer_handlers),
    };
    let _memory = memory.acquire_many(bytes).await.expect(OPEN);
    let call = frame::read_message(recv, head_len, body_len).await?;
    shared.counts.bytes_in.add((head_len + body_len) as u64);
    let _handler = handlers.acquire().await.expect(OPEN);
    let Some(services) = shared.services() else {
        return Ok(Err("the filer is starting or stopping".into()));
    };
    let service = match header.channel {
        Channel::Consensus => services.consensus,
        Channel::Filer => services.filer,
    };
    Ok(service.handle(&session.peer, call).await)
}

/// The answer as it can be sent: `true` with the words of a refusal.
fn within_limits(answer: Result<Message, String>) -> (bool, Message) {
    let refusal = match answer {
        Ok(message) => match frame::check_lengths(message.head.len(), message.body.len()) {
            Ok(()) => return (false, message),
            Err(e) => format!("the answer cannot be sent: {e}"),
        },
        Err(why) => why,
    };
    let mut cut = refusal.len().min(REFUSAL_BYTES_MAX);
    while !refusal.is_char_boundary(cut) {
        cut -= 1;
    }
    (true, Message { head: refusal.as_bytes()[..cut].to_vec().into(), body: Default::default() })
}
