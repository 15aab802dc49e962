//! Bodies that end early, arrive damaged, or flow slowly.

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use http_body_util::{BodyDataStream, StreamBody};
use hyper::body::Frame;
use s3s::{Body, StdError};
use std::time::Duration;
use tokio::time::sleep;

/// A slow body flows in this many pieces a second.
const PIECES_PER_S: u64 = 20;

fn chunks(body: Body) -> BoxStream<'static, Result<Bytes, StdError>> {
    BodyDataStream::new(body).boxed()
}

fn body(chunks: impl futures::Stream<Item = Result<Bytes, StdError>> + Send + 'static) -> Body {
    Body::http_body_unsync(StreamBody::new(chunks.map_ok(Frame::data)))
}

/// The first `keep_bytes` of it.
pub(super) fn cut(whole: Body, keep_bytes: u64) -> Body {
    let mut left = usize::try_from(keep_bytes).unwrap_or(usize::MAX);
    body(chunks(whole).map_ok(move |chunk| {
        let chunk = chunk.slice(..chunk.len().min(left));
        left -= chunk.len();
        chunk
    }))
}

/// With one bit turned over.
pub(super) fn flipped(whole: Body, bit: u64) -> Body {
    let mut at = Some(bit / 8);
    body(chunks(whole).map_ok(move |chunk| {
        let len = chunk.len() as u64;
        match at {
            Some(byte) if byte < len => {
                at = None;
                let mut damaged = chunk.to_vec();
                damaged[usize::try_from(byte).expect("less than a length")] ^= 1 << (bit % 8);
                damaged.into()
            }
            other => {
                at = other.map(|byte| byte - len);
                chunk
            }
        }
    }))
}

/// At this speed.
pub(super) fn paced(whole: Body, bytes_per_s: u64) -> Body {
    let bytes_per_s = bytes_per_s.max(1);
    let piece = usize::try_from((bytes_per_s / PIECES_PER_S).max(1)).unwrap_or(usize::MAX);
    body(stream::try_unfold((chunks(whole), Bytes::new()), move |(mut chunks, mut rest)| async move {
        while rest.is_empty() {
            match chunks.try_next().await? {
                Some(chunk) => rest = chunk,
                None => return Ok(None),
            }
        }
        let next = rest.split_to(piece.min(rest.len()));
        sleep(Duration::from_secs(1).mul_f64(next.len() as f64 / bytes_per_s as f64)).await;
        Ok(Some((next, (chunks, rest))))
    }))
}
