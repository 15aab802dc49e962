//! One HTTP request to a server on this machine, for the ports that tests steer.

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a request may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub body: Bytes,
}

/// Sends a request on a connection of its own and returns the answer, whatever its status.
pub async fn request(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, String)],
    body: impl Into<Bytes>,
) -> Result<Answer> {
    let mut request = Request::builder().method(method).uri(path);
    request = request.header(HOST, to.to_string()).header(CONNECTION, "close");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(Full::new(body.into())).with_context(|| format!("{method} {path}"))?;
    let exchange = async {
        let stream = TcpStream::connect(to).await.context("connecting")?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.context("connecting")?;
        let connection = tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await.context("sending")?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
        connection.abort();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    };
    let answer = timeout(ANSWER_WITHIN, exchange).await.context("no answer in time").and_then(|answer| answer);
    answer.with_context(|| format!("{method} http://{to}{path}"))
}
