//! A session: one connection with a peer whose certificate and greeting were believed.
//!
//! Owns: calling over the connection, and the words for how it ended. Does not own: which of two connections is used
//! (`roster`), nor answering the peer's calls (`serve`).

use super::{
    frame::{self, AnswerHeader, CallHeader, FrameError, FrameWriter, STREAM_DEADLINE},
    hello::Agreed,
    identity::PeerName,
    settings::MeshSettings,
    stats::Counts,
    tls,
};
use crate::peers::{CallError, Channel, Message};
use quinn::{Connection, ConnectionError, ReadError, VarInt, WriteError};
use std::{sync::Mutex, time::Duration};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

/// Why this side ends a connection; the number travels with the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// The filer is stopping.
    Stopping = 0,
    /// Both sides dialled at once; the other connection stays.
    Twin = 1,
    /// A newer connection with the same peer stands.
    Replaced = 2,
    /// The peer is not in the list of members.
    NotMember = 3,
    /// The peer was removed from the CloudFS.
    Removed = 4,
    /// The peer's greeting was refused.
    Greeting = 5,
    /// A frame broke the format.
    Malformed = 6,
    /// A frame was above a limit.
    TooLarge = 7,
    /// The peer's certificate was revoked.
    Revoked = 8,
}

impl Close {
    /// Ends `conn` for this reason.
    pub fn end(self, conn: &Connection, words: &str) {
        let mut cut = words.len().min(WORDS_BYTES_MAX);
        while !words.is_char_boundary(cut) {
            cut -= 1;
        }
        conn.close(VarInt::from_u32(self as u32), &words.as_bytes()[..cut]);
    }
}

/// Longest words that go with the end of a connection, in bytes: they must fit one packet.
const WORDS_BYTES_MAX: usize = 600;

/// The certificate that a peer has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// Its last second, since the Unix epoch.
    pub not_after_s: i64,
}

/// Who stands at the other end of a connection, and by which certificate.
pub struct Holder {
    pub peer: PeerName,
    pub certificate: PeerCertificate,
}

/// One connection with a peer.
pub struct Session {
    pub peer: PeerName,
    pub certificate: PeerCertificate,
    pub agreed: Agreed,
    pub conn: Connection,
    /// Whether this filer dialled it.
    pub dialled: bool,
    pub opened: Instant,
    heard: Mutex<Heard>,
    /// Room for calls to the peer's filer; what the connection allows beyond it is kept for the replicated log.
    filer_calls: Semaphore,
}

struct Heard {
    datagrams: u64,
    at: Instant,
}

impl Session {
    pub fn new(holder: Holder, agreed: Agreed, conn: Connection, dialled: bool, settings: &MeshSettings) -> Self {
        let opened = Instant::now();
        let kept = settings.calls_per_peer_max / 4;
        let filer_calls = Semaphore::new((settings.calls_per_peer_max - kept) as usize);
        let heard = Mutex::new(Heard { datagrams: 0, at: opened });
        let Holder { peer, certificate } = holder;
        Self { peer, certificate, agreed, conn, dialled, opened, heard, filer_calls }
    }

    /// Whether the connection has not ended.
    pub fn stands(&self) -> bool {
        self.conn.close_reason().is_none()
    }

    /// Looks whether anything came from the peer since the last look, and gives the moment of the last sign of life.
    pub fn heard(&self) -> Instant {
        let datagrams = self.conn.stats().udp_rx.datagrams;
        let mut heard = self.heard.lock().expect("no holder panics");
        if heard.datagrams != datagrams {
            *heard = Heard { datagrams, at: Instant::now() };
        }
        heard.at
    }

    /// Calls the peer and waits for its answer, at most `deadline`.
    pub async fn call(
        &self,
        channel: Channel,
        call: Message,
        deadline: Duration,
        counts: &Counts,
    ) -> Result<Message, CallError> {
        match timeout(deadline, self.exchange(channel, call, deadline, counts)).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::TimedOut { to: self.peer.id, after_ms: deadline.as_millis() as u64 }),
        }
    }

    async fn exchange(
        &self,
        channel: Channel,
        call: Message,
        deadline: Duration,
        counts: &Counts,
    ) -> Result<Message, CallError> {
        let to = self.peer.id;
        let started = Instant::now();
        let _room = match channel {
            Channel::Filer => Some(self.filer_calls.acquire().await.expect("the semaphore is never closed")),
            Channel::Consensus => None,
        };
        let (send, mut recv) = self.conn.open_bi().await.map_err(|e| self.unreachable(describe(&e)))?;
        if channel == Channel::Consensus {
            // A heartbeat must not queue behind megabytes of file data. An error means that the stream has ended.
            let _ = send.set_priority(1);
        }
        let mut writer = FrameWriter::new(send);
        let (head_len, body_len) = (call.head.len() as u32, call.body.len() as u32);
        let deadline_ms = deadline.saturating_sub(started.elapsed()).as_millis().max(1) as u64;
        let header = CallHeader { channel, head_len, body_len, deadline_ms };
        let header = frame::encode_header(self.agreed.version, &header);
        counts.bytes_out.add(u64::from(head_len) + u64::from(body_len));
        match writer.write(header, call).await {
            Ok(()) => {}
            // The peer may have answered (refused) before it read everything: the answer decides.
            Err(WriteError::Stopped(_)) => {}
            Err(WriteError::ConnectionLost(e)) => return Err(self.unreachable(describe(&e))),
            Err(e) => return Err(self.unreachable(e.to_string())),
        }
        let answer = async {
            let header: AnswerHeader = frame::read_header(&mut recv, self.agreed.version).await?;
            let (head_len, body_len) = (header.head_len as usize, header.body_len as usize);
            frame::check_lengths(head_len, body_len)?;
            Ok((header.refused, frame::read_message(&mut recv, head_len, body_len).await?))
        };
        match answer.await {
            Ok((refused, message)) => {
                counts.bytes_in.add((message.head.len() + message.body.len()) as u64);
                if refused {
                    let why = String::from_utf8_lossy(&message.head).into_owned();
                    return Err(CallError::Refused { to, why });
                }
                Ok(message)
            }
            Err(FrameError::Stream(ReadError::Reset(code))) if code == STREAM_DEADLINE => {
                Err(CallError::TimedOut { to, after_ms: deadline.as_millis() as u64 })
            }
            Err(FrameError::Stream(ReadError::Reset(_))) => Err(self.unreachable("the peer dropped the call".into())),
            Err(FrameError::Stream(ReadError::ConnectionLost(e))) => Err(self.unreachable(describe(&e))),
            Err(e) => {
                self.end_for(&e, counts);
                Err(self.unreachable(e.to_string()))
            }
        }
    }

    fn unreachable(&self, why: String) -> CallError {
        CallError::Unreachable { to: self.peer.id, why }
    }

    /// Ends the connection where a frame of the peer broke the rules.
    pub fn end_for(&self, e: &FrameError, counts: &Counts) {
        let close = match e {
            FrameError::Stream(_) => return,
            FrameError::Malformed(_) => Close::Malformed,
            FrameError::TooLarge { .. } => Close::TooLarge,
        };
        counts.malformed_frames.one();
        let from = self.conn.remote_address();
        tracing::warn!(peer = %self.peer.id, name = %self.peer.name, %from, error = %e, "ended a session for a bad frame");
        close.end(&self.conn, &e.to_string());
    }
}

/// Whether the peer ended the connection, or refused it, as it holds this filer for removed from the CloudFS.
pub fn says_removed(e: &ConnectionError) -> bool {
    match e {
        ConnectionError::ApplicationClosed(close) => close.error_code == VarInt::from_u32(Close::Removed as u32),
        ConnectionError::ConnectionClosed(close) => tls::says_removed(close.error_code.into()),
        _ => false,
    }
}

/// Why a connection ended, in words.
pub fn describe(e: &ConnectionError) -> String {
    match e {
        ConnectionError::ApplicationClosed(close) => {
            let words: String = String::from_utf8_lossy(&close.reason).chars().filter(|c| !c.is_control()).collect();
            if words.is_empty() {
                return "the peer ended the session".into();
            }
            format!("the peer ended the session: {words}")
        }
        ConnectionError::ConnectionClosed(close) => match tls::explain_alert(close.error_code.into()) {
            Some(words) => words.into(),
            None => format!("the peer broke the connection off: {close}"),
        },
        ConnectionError::TransportError(e) => format!("the connection failed: {e}"),
        ConnectionError::VersionMismatch => "the peer speaks another version of QUIC".into(),
        ConnectionError::Reset => "the peer no longer knows the connection (it restarted)".into(),
        ConnectionError::TimedOut => "nothing is heard from the peer any more".into(),
        ConnectionError::LocallyClosed => "this filer ended the session".into(),
        ConnectionError::CidsExhausted => "no connection id is left".into(),
    }
}
