//! How a call and its answer look on their stream.
//!
//! ```text
//! length of the header (2 bytes, little endian) | header (a record) | head | body | end of stream
//! ```
//!
//! The header says how long head and body are, so every length is checked before a byte of memory is set aside.
//! Head and body are handed to QUIC as they are, without a copy.

use crate::{
    peers::{BODY_BYTES_MAX, Channel, HEAD_BYTES_MAX, Message},
    record,
};
use bytes::{Bytes, BytesMut};
use quinn::{ReadError, ReadExactError, RecvStream, SendStream, VarInt, WriteError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Largest header of a frame, in bytes.
pub const HEADER_BYTES_MAX: usize = 256;
/// Longest text of a refusal, in bytes; longer ones are cut.
pub const REFUSAL_BYTES_MAX: usize = 4 << 10;

/// A stream's reader or writer lost interest: the call's future was dropped.
pub const STREAM_DROPPED: VarInt = VarInt::from_u32(1);
/// A stream's deadline passed.
pub const STREAM_DEADLINE: VarInt = VarInt::from_u32(2);

/// What stands before a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallHeader {
    pub channel: Channel,
    pub head_len: u32,
    pub body_len: u32,
    /// How long the caller waits, from the moment of sending.
    pub deadline_ms: u64,
}

/// What stands before an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerHeader {
    /// Whether the head is not an answer but the words of a refusal.
    pub refused: bool,
    pub head_len: u32,
    pub body_len: u32,
}

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A length above its limit: the connection must end.
    #[error("a frame's {part} of {bytes} bytes is above the limit of {bytes_max}")]
    TooLarge { part: &'static str, bytes: usize, bytes_max: usize },
    /// Not what the format says: the connection must end.
    #[error("a frame is malformed: {0}")]
    Malformed(String),
    /// The stream ended early by the peer's wish, or with its connection.
    #[error("the stream broke: {0}")]
    Stream(#[from] ReadError),
}

impl From<ReadExactError> for FrameError {
    fn from(e: ReadExactError) -> Self {
        match e {
            ReadExactError::FinishedEarly(_) => Self::Malformed("it ends early".into()),
            ReadExactError::ReadError(e) => Self::Stream(e),
        }
    }
}

/// The limits of one message: `Err` names the part that is above its own.
pub fn check_lengths(head_len: usize, body_len: usize) -> Result<(), FrameError> {
    for (part, bytes, bytes_max) in [("head", head_len, HEAD_BYTES_MAX), ("body", body_len, BODY_BYTES_MAX)] {
        if bytes > bytes_max {
            return Err(FrameError::TooLarge { part, bytes, bytes_max });
        }
    }
    Ok(())
}

/// A header in its wire form, with its length before it.
pub fn encode_header<H: Serialize>(version: u8, header: &H) -> Bytes {
    let record = record::encode(version, header);
    debug_assert!(record.len() <= HEADER_BYTES_MAX);
    let mut wire = (record.len() as u16).to_le_bytes().to_vec();
    wire.extend(record);
    wire.into()
}

/// Reads a header that was written in at most version `known`.
pub async fn read_header<H: DeserializeOwned>(recv: &mut RecvStream, known: u8) -> Result<H, FrameError> {
    let mut len = [0; 2];
    recv.read_exact(&mut len).await?;
    let bytes = usize::from(u16::from_le_bytes(len));
    if bytes > HEADER_BYTES_MAX {
        return Err(FrameError::TooLarge { part: "header", bytes, bytes_max: HEADER_BYTES_MAX });
    }
    let mut buffer = [0; HEADER_BYTES_MAX];
    let header = &mut buffer[..bytes];
    recv.read_exact(header).await?;
    record::decode(known, header).map_err(|e| FrameError::Malformed(e.to_string()))
}

/// Reads head and body, whose lengths were checked, and the end of the stream behind them.
pub async fn read_message(recv: &mut RecvStream, head_len: usize, body_len: usize) -> Result<Message, FrameError> {
    let head = read_bytes(recv, head_len).await?;
    let body = read_bytes(recv, body_len).await?;
    match recv.read_chunk(1, true).await? {
        None => Ok(Message { head, body }),
        Some(_) => Err(FrameError::Malformed("bytes follow its end".into())),
    }
}

async fn read_bytes(recv: &mut RecvStream, len: usize) -> Result<Bytes, FrameError> {
    let early = || FrameError::Malformed("it ends early".into());
    if len == 0 {
        return Ok(Bytes::new());
    }
    let first = recv.read_chunk(len, true).await?.ok_or_else(early)?.bytes;
    if first.len() == len {
        return Ok(first);
    }
    let mut all = BytesMut::with_capacity(len);
    all.extend_from_slice(&first);
    while all.len() < len {
        all.extend_from_slice(&recv.read_chunk(len - all.len(), true).await?.ok_or_else(early)?.bytes);
    }
    Ok(all.freeze())
}

/// A stream to write one frame to. Dropped before its end, it tells the peer so, instead of looking complete.
pub struct FrameWriter {
    send: SendStream,
    finished: bool,
}

impl FrameWriter {
    pub fn new(send: SendStream) -> Self {
        Self { send, finished: false }
    }

    /// The stream itself.
    pub fn stream(&self) -> &SendStream {
        &self.send
    }

    /// Writes the whole frame and ends the stream.
    pub async fn write(&mut self, header: Bytes, message: Message) -> Result<(), WriteError> {
        self.send.write_all_chunks(&mut [header, message.head, message.body]).await?;
        self.finished = true;
        // The peer may have stopped the stream meanwhile; its answer will tell.
        let _ = self.send.finish();
        Ok(())
    }

    /// Gives the stream up, with a reason for the peer.
    pub fn reset(&mut self, code: VarInt) {
        if !self.finished {
            self.finished = true;
            // An error means that the stream has ended already.
            let _ = self.send.reset(code);
        }
    }
}

impl Drop for FrameWriter {
    fn drop(&mut self) {
        self.reset(STREAM_DROPPED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_fit_and_limits_hold() {
        let header =
            CallHeader { channel: Channel::Filer, head_len: u32::MAX, body_len: u32::MAX, deadline_ms: u64::MAX };
        let wire = encode_header(1, &header);
        assert!(wire.len() <= 2 + HEADER_BYTES_MAX);
        assert_eq!(record::decode(1, &wire[2..]), Ok(header));
        assert!(check_lengths(HEAD_BYTES_MAX, BODY_BYTES_MAX).is_ok());
        let said = check_lengths(0, BODY_BYTES_MAX + 1).expect_err("above the limit").to_string();
        assert_eq!(said, "a frame's body of 16777217 bytes is above the limit of 16777216");
    }
}
