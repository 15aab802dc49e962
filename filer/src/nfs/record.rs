//! Records on a byte stream (RFC 5531, section 11): fragments in, whole records out; replies written whole.

use super::rpc::Reply;
use super::stats::Counters;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use nfs3_types::rpc::fragment_header;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Records up to this size are slices of one buffer; longer ones get their own, so that a payload kept for a while
/// holds little more than itself.
const INBOX_BYTES: usize = 32 << 10;
/// Least room for one read from the socket.
const READ_BYTES_MIN: usize = 4 << 10;
/// Most fragments of one record. Real clients send one.
const FRAGMENTS_MAX: usize = 4096;
/// Most replies gathered for one write.
const REPLIES_GATHERED_MAX: usize = 32;

/// Why a stream of records ended.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("reading a record: {0}")]
    Read(#[from] io::Error),
    #[error("the stream ended inside a record")]
    Truncated,
    #[error("a record of more than {max} bytes")]
    TooLong { max: usize },
    #[error("a record of more than {FRAGMENTS_MAX} fragments")]
    TooManyFragments,
}

/// Reads records.
pub struct RecordReader<R> {
    input: R,
    inbox: BytesMut,
    record_bytes_max: usize,
}

impl<R: AsyncRead + Unpin> RecordReader<R> {
    pub fn new(input: R, record_bytes_max: usize) -> Self {
        Self { input, inbox: BytesMut::new(), record_bytes_max }
    }

    /// The next record; `None` at the end of the stream. Dropping the future half-way loses what it has read.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RecordError> {
        let mut whole = BytesMut::new();
        for fragment_index in 0..FRAGMENTS_MAX {
            let Some(head) = self.take(4).await? else {
                let at_a_boundary = fragment_index == 0 && self.inbox.is_empty();
                return if at_a_boundary { Ok(None) } else { Err(RecordError::Truncated) };
            };
            let head = fragment_header::from([head[0], head[1], head[2], head[3]]);
            let len = head.fragment_length() as usize;
            if len > self.record_bytes_max - whole.len() {
                return Err(RecordError::TooLong { max: self.record_bytes_max });
            }
            let fragment = self.take(len).await?.ok_or(RecordError::Truncated)?;
            if whole.is_empty() {
                whole = fragment;
            } else {
                whole.extend_from_slice(&fragment);
            }
            if head.eof() {
                return Ok(Some(whole.freeze()));
            }
        }
        Err(RecordError::TooManyFragments)
    }

    /// The next `len` bytes; `None` where the stream ends before them.
    async fn take(&mut self, len: usize) -> io::Result<Option<BytesMut>> {
        if len <= INBOX_BYTES {
            while self.inbox.len() < len {
                let room = self.inbox.capacity() - self.inbox.len();
                if room < READ_BYTES_MIN.max(len - self.inbox.len()) {
                    self.inbox.reserve(INBOX_BYTES);
                }
                if self.input.read_buf(&mut self.inbox).await? == 0 {
                    return Ok(None);
                }
            }
            return Ok(Some(self.inbox.split_to(len)));
        }
        let mut own = BytesMut::with_capacity(len);
        let ready = self.inbox.len().min(len);
        own.extend_from_slice(&self.inbox.split_to(ready));
        while own.len() < len {
            let missing = len - own.len();
            if self.input.read_buf(&mut (&mut own).limit(missing)).await? == 0 {
                return Ok(None);
            }
        }
        Ok(Some(own))
    }
}

/// A reply on its way out; what it holds is given back once it is written.
pub struct Outgoing<H> {
    pub reply: Reply,
    pub _held: H,
}

/// Writes replies until the channel ends. Several replies go out in one vectored write.
pub async fn write_replies<W: AsyncWrite + Unpin, H>(
    mut output: W,
    mut replies: mpsc::Receiver<Outgoing<H>>,
    stall_max: Duration,
    counters: &Counters,
) -> io::Result<()> {
    let mut batch = Vec::with_capacity(REPLIES_GATHERED_MAX);
    while replies.recv_many(&mut batch, REPLIES_GATHERED_MAX).await > 0 {
        let mut chunks = VecDeque::with_capacity(3 * batch.len());
        for Outgoing { reply, .. } in &batch {
            let parts = [&reply.head, &reply.data, &reply.padding];
            chunks.extend(parts.into_iter().filter(|part| !part.is_empty()).cloned());
        }
        write_all(&mut output, chunks, stall_max, counters).await?;
        batch.clear();
    }
    output.shutdown().await
}

async fn write_all<W: AsyncWrite + Unpin>(
    output: &mut W,
    mut chunks: VecDeque<Bytes>,
    stall_max: Duration,
    counters: &Counters,
) -> io::Result<()> {
    while !chunks.is_empty() {
        let slices: Vec<IoSlice<'_>> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
        let mut written = match tokio::time::timeout(stall_max, output.write_vectored(&slices)).await {
            Ok(written) => written?,
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no answers")),
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        counters.bytes_out.fetch_add(written as u64, Ordering::Relaxed);
        while let Some(front) = chunks.front_mut() {
            if written < front.len() {
                front.advance(written);
                break;
            }
            written -= front.len();
            chunks.pop_front();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(data: &[u8], last: bool) -> Vec<u8> {
        let len = u32::try_from(data.len()).expect("short");
        [&fragment_header::new(len, last).into_xdr_buf(), data].concat()
    }

    async fn records(stream: &[u8], max: usize) -> (Vec<Bytes>, Result<(), RecordError>) {
        let mut reader = RecordReader::new(stream, max);
        let mut all = Vec::new();
        loop {
            match reader.next().await {
                Ok(Some(record)) => all.push(record),
                Ok(None) => return (all, Ok(())),
                Err(error) => return (all, Err(error)),
            }
        }
    }

    #[tokio::test]
    async fn fragments_become_records() {
        let long = vec![7; 3 * INBOX_BYTES];
        let stream = [
            fragment(b"one", true),
            fragment(b"", false),
            fragment(b"t", false),
            fragment(b"wo", true),
            fragment(&long, true),
            fragment(&long[..INBOX_BYTES + 1], false),
            fragment(&long[..1], true),
            fragment(b"", true),
        ]
        .concat();
        let (all, end) = records(&stream, long.len()).await;
        end.expect("a clean end");
        let expected: [&[u8]; 5] = [b"one", b"two", &long, &long[..INBOX_BYTES + 2], b""];
        assert_eq!(all, expected);
    }

    #[tokio::test]
    async fn bounds_hold_over_all_fragments() {
        let (all, end) = records(&[fragment(b"12345", false), fragment(b"67", true)].concat(), 6).await;
        assert!(all.is_empty() && matches!(end, Err(RecordError::TooLong { max: 6 })));
        let (_, end) = records(&fragment(b"", false).repeat(FRAGMENTS_MAX + 1), 6).await;
        assert!(matches!(end, Err(RecordError::TooManyFragments)));
        for cut in [1, 4, 6] {
            let (_, end) = records(&fragment(b"1234", true)[..cut], 6).await;
            assert!(matches!(end, Err(RecordError::Truncated)), "{cut}");
        }
    }

    #[tokio::test]
    async fn replies_are_written_whole_and_in_order() {
        let (sender, receiver) = mpsc::channel(8);
        for text in ["abc", "d"] {
            let reply = Reply {
                head: Bytes::from_static(b"head"),
                data: Bytes::from_static(text.as_bytes()),
                padding: Bytes::from_static(&[0]),
            };
            sender.send(Outgoing { reply, _held: () }).await.expect("open");
        }
        drop(sender);
        // A pipe of 3 bytes makes every write a partial one.
        let (near, mut far) = tokio::io::duplex(3);
        let counters = Counters::default();
        let read = async {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.expect("readable");
            all
        };
        let (written, all) = tokio::join!(write_replies(near, receiver, Duration::from_secs(60), &counters), read);
        written.expect("written");
        assert_eq!(all, b"headabc\0headd\0");
        assert_eq!(counters.bytes_out.load(Ordering::Relaxed), 14);
    }
}
