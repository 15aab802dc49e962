//! Records on a byte stream (RFC 5531, section 11): fragments in, whole records out; replies written whole.
//!
//! A short record is read at once. Of a long one only the head is read at first: whoever reads the stream finds room for
//! it before the rest is taken into memory, or has it skipped.

use super::rpc::{Checksum, Reply};
use super::stats::Counters;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use nfs3_types::rpc::fragment_header;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Records up to this size are short: slices of one buffer. Longer ones get their own, so that a payload kept for a while
/// holds little more than itself.
const INBOX_BYTES: usize = 32 << 10;
/// Least room for one read from the socket.
const READ_BYTES_MIN: usize = 4 << 10;
/// Most fragments of one record. Real clients send one.
const FRAGMENTS_MAX: usize = 4096;
/// What is shown of a long record before it is read: xid, message type, RPC version, program, version, procedure.
const LONG_HEAD_BYTES: usize = 24;
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
    #[error("a record that is no RPC call, or one as long as no other call than WRITE is")]
    NoCall,
    #[error("a record that was not sent within {after_ms} ms")]
    TooSlow { after_ms: u64 },
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived {
    /// A short record, whole.
    Whole(Bytes),
    /// A long record; [`RecordReader::read_long`] or [`RecordReader::skip_long`] comes next.
    Long {
        head: Bytes,
        /// Memory that it may take.
        bytes_max: usize,
    },
}

/// A record of which a part was read.
#[derive(Default)]
struct Partial {
    whole: BytesMut,
    /// Fragments so far, the current one included.
    fragments: usize,
    /// Bytes of the current fragment that are still in the stream.
    left: usize,
    /// Whether the current fragment is the last.
    last: bool,
}

/// Reads records.
pub struct RecordReader<R> {
    input: R,
    inbox: BytesMut,
    record_bytes_max: usize,
    /// The long record whose head was shown.
    long: Option<Partial>,
}

impl<R: AsyncRead + Unpin> RecordReader<R> {
    pub fn new(input: R, record_bytes_max: usize) -> Self {
        Self { input, inbox: BytesMut::new(), record_bytes_max, long: None }
    }

    /// The next record, or the head of a long one; `None` at the end of the stream. Dropping the future half-way loses
    /// what it has read.
    pub async fn next(&mut self) -> Result<Option<Arrived>, RecordError> {
        let mut record = Partial::default();
        loop {
            if !self.fragment(&mut record).await? {
                return Ok(None);
            }
            if record.whole.len() + record.left > INBOX_BYTES {
                return self.show_head(record).await.map(Some);
            }
            self.gather(&mut record).await?;
            if record.last {
                return Ok(Some(Arrived::Whole(record.whole.freeze())));
            }
        }
    }

    /// The long record whose head was shown, whole.
    pub async fn read_long(&mut self) -> Result<Bytes, RecordError> {
        let mut record = self.long.take().expect("the head of a long record was shown");
        loop {
            self.gather(&mut record).await?;
            if record.last {
                return Ok(record.whole.freeze());
            }
            if !self.fragment(&mut record).await? {
                return Err(RecordError::Truncated);
            }
        }
    }

    /// Goes on behind the long record whose head was shown, keeping nothing of it but its checksum.
    pub async fn skip_long(&mut self) -> Result<u64, RecordError> {
        let mut record = self.long.take().expect("the head of a long record was shown");
        let head = std::mem::take(&mut record.whole);
        let (mut skipped, mut checksum) = (head.len(), Checksum::default());
        checksum.add(&head);
        loop {
            skipped += record.left;
            while record.left > 0 {
                let step = record.left.min(INBOX_BYTES);
                checksum.add(&self.take(step).await?.ok_or(RecordError::Truncated)?);
                record.left -= step;
            }
            if record.last {
                return Ok(checksum.finish());
            }
            if !self.fragment(&mut record).await? {
                return Err(RecordError::Truncated);
            }
            if record.left > self.record_bytes_max - skipped {
                return Err(RecordError::TooLong { max: self.record_bytes_max });
            }
        }
    }

    /// Reads the mark of a record's next fragment; `false` at the end of the stream, before a record.
    async fn fragment(&mut self, record: &mut Partial) -> Result<bool, RecordError> {
        if record.fragments == FRAGMENTS_MAX {
            return Err(RecordError::TooManyFragments);
        }
        let Some(mark) = self.take(4).await? else {
            let at_a_boundary = record.fragments == 0 && self.inbox.is_empty();
            return if at_a_boundary { Ok(false) } else { Err(RecordError::Truncated) };
        };
        let mark = fragment_header::from([mark[0], mark[1], mark[2], mark[3]]);
        record.fragments += 1;
        record.left = mark.fragment_length() as usize;
        record.last = mark.eof();
        if record.left > self.record_bytes_max - record.whole.len() {
            return Err(RecordError::TooLong { max: self.record_bytes_max });
        }
        Ok(true)
    }

    /// Reads the rest of the current fragment.
    async fn gather(&mut self, record: &mut Partial) -> Result<(), RecordError> {
        let fragment = self.take(std::mem::take(&mut record.left)).await?.ok_or(RecordError::Truncated)?;
        if record.whole.is_empty() {
            record.whole = fragment;
        } else {
            record.whole.extend_from_slice(&fragment);
        }
        Ok(())
    }

    async fn show_head(&mut self, record: Partial) -> Result<Arrived, RecordError> {
        let known = record.whole.len().min(LONG_HEAD_BYTES);
        let missing = (LONG_HEAD_BYTES - known).min(record.left);
        if !self.fill(missing).await? {
            return Err(RecordError::Truncated);
        }
        let head = [&record.whole[..known], &self.inbox[..missing]].concat().into();
        let bytes_max = if record.last { record.whole.len() + record.left } else { self.record_bytes_max };
        self.long = Some(record);
        Ok(Arrived::Long { head, bytes_max })
    }

    /// Reads until the inbox holds `len` bytes; `false` where the stream ends before them.
    async fn fill(&mut self, len: usize) -> io::Result<bool> {
        while self.inbox.len() < len {
            let room = self.inbox.capacity() - self.inbox.len();
            if room < READ_BYTES_MIN.max(len - self.inbox.len()) {
                self.inbox.reserve(INBOX_BYTES);
            }
            if self.input.read_buf(&mut self.inbox).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next `len` bytes; `None` where the stream ends before them.
    async fn take(&mut self, len: usize) -> io::Result<Option<BytesMut>> {
        if len <= INBOX_BYTES {
            return Ok(self.fill(len).await?.then(|| self.inbox.split_to(len)));
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
        // Calls that are about to be answered go along.
        tokio::task::yield_now().await;
        while batch.len() < REPLIES_GATHERED_MAX
            && let Ok(more) = replies.try_recv()
        {
            batch.push(more);
        }
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
        records_but(stream, max, &[]).await
    }

    /// As [`records`]; `skips` says which of the long ones are skipped.
    async fn records_but(stream: &[u8], max: usize, skips: &[bool]) -> (Vec<Bytes>, Result<(), RecordError>) {
        let mut skips = skips.iter().copied();
        let mut reader = RecordReader::new(stream, max);
        let mut all = Vec::new();
        loop {
            let record = match reader.next().await {
                Ok(Some(Arrived::Whole(record))) => Ok(Some(record)),
                Ok(Some(Arrived::Long { head, bytes_max })) => {
                    assert!(head.len() == LONG_HEAD_BYTES && (INBOX_BYTES + 1..=max).contains(&bytes_max));
                    match skips.next() {
                        Some(true) => reader.skip_long().await.map(|_| Some(Bytes::from_static(b"skipped"))),
                        _ => reader.read_long().await.map(Some),
                    }
                }
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            match record {
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
    async fn a_long_record_is_skipped_without_being_held() {
        let long = vec![7; 3 * INBOX_BYTES];
        let stream = [
            fragment(b"one", true),
            fragment(&long, true),
            fragment(&long[..100], false),
            fragment(&long[..2 * INBOX_BYTES], false),
            fragment(&long[..5], true),
            fragment(&long, true),
            fragment(b"two", true),
        ]
        .concat();
        let (all, end) = records_but(&stream, long.len(), &[true, true, false]).await;
        end.expect("a clean end");
        assert_eq!(all, [&b"one"[..], b"skipped", b"skipped", &long, b"two"]);
        let beyond = [fragment(&long, false), fragment(b"1", true)].concat();
        let (_, end) = records_but(&beyond, long.len(), &[true]).await;
        assert!(matches!(end, Err(RecordError::TooLong { .. })));
        let (_, end) = records_but(&fragment(&long, true)[..long.len()], long.len(), &[true]).await;
        assert!(matches!(end, Err(RecordError::Truncated)));
    }

    #[tokio::test]
    async fn a_skipped_record_has_the_checksum_of_one_that_is_read() {
        let long: Vec<u8> = (0..3 * INBOX_BYTES).map(|at| (at % 251) as u8).collect();
        let mut expected = Checksum::default();
        expected.add(&long);
        let in_three = [fragment(&long[..100], false), fragment(&long[100..200], false), fragment(&long[200..], true)];
        for stream in [fragment(&long, true), in_three.concat()] {
            let mut reader = RecordReader::new(&stream[..], long.len());
            assert!(matches!(reader.next().await, Ok(Some(Arrived::Long { .. }))));
            assert_eq!(reader.skip_long().await.expect("readable"), expected.finish());
        }
    }

    #[tokio::test]
    async fn nothing_of_a_long_record_is_in_memory_before_it_is_asked_for() {
        let stream = fragment(&vec![7; 1 << 20], true);
        let mut reader = RecordReader::new(&stream[..], 1 << 20);
        let arrived = reader.next().await.expect("readable");
        assert_eq!(arrived, Some(Arrived::Long { head: vec![7; LONG_HEAD_BYTES].into(), bytes_max: 1 << 20 }));
        assert!(reader.inbox.capacity() <= 2 * INBOX_BYTES);
        assert_eq!(reader.read_long().await.expect("readable").len(), 1 << 20);
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
