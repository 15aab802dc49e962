//! The other end of the admin socket: what the commands use.

use super::{FileRow, Page, Refusal, SegmentRow, Status, routes::Done, status::DecisionRow};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use mesh::{FilerId, words::span};
use serde::de::DeserializeOwned;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::net::UnixStream;

/// Longest time to be let in.
const CONNECT_MS_MAX: u64 = 2_000;
/// Longest time for an answer that only tells.
const READ_MS_MAX: u64 = 12_000;
/// Longest time for something to be done.
const DO_MS_MAX: u64 = 65_000;
/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is behind the socket.
    #[error("no filer answers at {} (start it with: filer serve)", socket.display())]
    Unreachable { socket: PathBuf, source: std::io::Error },
    /// Whoever was there went away before the whole answer had come.
    #[error("the filer at {} went away before it had answered; what was asked of it may have been done", socket.display())]
    WentAway { socket: PathBuf, source: BoxError },
    /// The filer is there and says nothing.
    #[error("the filer at {} gave no answer within {}", socket.display(), span(*after_ms))]
    TimedOut { socket: PathBuf, after_ms: u64 },
    /// Whoever is there speaks otherwise.
    #[error("the filer's answer at {} cannot be used: {what}", socket.display())]
    Answer { socket: PathBuf, what: String },
    /// The filer refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A caller of one filer's admin socket.
#[derive(Clone, Debug)]
pub struct AdminClient {
    socket: PathBuf,
}

impl AdminClient {
    /// Calls the filer behind `socket`.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.into() }
    }

    /// The first page.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// Makes the cloud of this name, or letter, active; `anyway`: though it does not take and give data now.
    pub async fn failover(&self, cloud: &str, anyway: bool) -> Result<String, ClientError> {
        self.tell(&format!("/v1/clouds/{}/failover?anyway={anyway}", escaped(cloud))).await
    }

    /// Makes the preferred cloud active.
    pub async fn failback(&self, anyway: bool) -> Result<String, ClientError> {
        self.tell(&format!("/v1/clouds/failback?anyway={anyway}")).await
    }

    /// Takes a filer out of the CloudFS.
    pub async fn remove_peer(&self, name: &str) -> Result<String, ClientError> {
        self.tell(&format!("/v1/peers/{}/remove", escaped(name))).await
    }

    /// Lets a filer go on whose removal was begun.
    pub async fn keep_peer(&self, name: &str) -> Result<String, ClientError> {
        self.tell(&format!("/v1/peers/{}/keep", escaped(name))).await
    }

    /// Has every filer refuse a certificate.
    pub async fn revoke(&self, filer: FilerId, name: &str, serial: &str) -> Result<String, ClientError> {
        self.tell(&format!("/v1/certificates/{filer}/{}/{}/revoke", escaped(name), escaped(serial))).await
    }

    /// Has the filer take the certificate with this serial number, which is in place, into use.
    pub async fn use_certificate(&self, serial: &str) -> Result<String, ClientError> {
        self.tell(&format!("/v1/certificate/{}/use", escaped(serial))).await
    }

    /// The serial number of the certificate with which a filer serves now.
    pub async fn certificate_of(&self, filer: FilerId) -> Result<String, ClientError> {
        self.get(&format!("/v1/peers/{filer}/certificate")).await
    }

    /// A page of segments.
    pub async fn segments(&self, after: Option<&str>, limit: usize) -> Result<Page<SegmentRow>, ClientError> {
        self.get(&page_of("/v1/segments", after, limit)).await
    }

    /// A page of files.
    pub async fn files(&self, after: Option<&str>, limit: usize) -> Result<Page<FileRow>, ClientError> {
        self.get(&page_of("/v1/files", after, limit)).await
    }

    /// The last decisions on the clouds.
    pub async fn decisions(&self) -> Result<Vec<DecisionRow>, ClientError> {
        self.get("/v1/decisions").await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, READ_MS_MAX).await
    }

    async fn tell(&self, path: &str) -> Result<String, ClientError> {
        self.call::<Done>(Method::POST, path, DO_MS_MAX).await.map(|done| done.done)
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, ms_max: u64) -> Result<T, ClientError> {
        let timed_out = |after_ms| ClientError::TimedOut { socket: self.socket.clone(), after_ms };
        let stream = tokio::time::timeout(Duration::from_millis(CONNECT_MS_MAX), UnixStream::connect(&self.socket))
            .await
            .map_err(|_| timed_out(CONNECT_MS_MAX))?
            .map_err(|source| ClientError::Unreachable { socket: self.socket.clone(), source })?;
        let answered = tokio::time::timeout(Duration::from_millis(ms_max), exchange(stream, method, path)).await;
        let (status, body) = answered.map_err(|_| timed_out(ms_max))?.map_err(|source| self.broken(source))?;
        if !status.is_success() {
            let refusal = serde_json::from_slice::<Refusal>(&body);
            return Err(refusal.map_or_else(|_| self.unusable(format!("status {status}")), ClientError::Refused));
        }
        serde_json::from_slice(&body).map_err(|e| self.unusable(e.to_string()))
    }

    /// An exchange that did not end well: what came was no HTTP, or too much of it; otherwise whoever was there is gone.
    fn broken(&self, source: BoxError) -> ClientError {
        let no_http = source.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
        if no_http || source.is::<LengthLimitError>() {
            self.unusable(source.to_string())
        } else {
            ClientError::WentAway { socket: self.socket.clone(), source }
        }
    }

    fn unusable(&self, what: String) -> ClientError {
        ClientError::Answer { socket: self.socket.clone(), what }
    }
}

/// One request on a fresh connection.
async fn exchange(stream: UnixStream, method: Method, path: &str) -> Result<(StatusCode, Bytes), BoxError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "filer")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?;
        Ok::<_, BoxError>((status, body.to_bytes()))
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        ended = &mut connection => ended?,
    }
    // The connection is done; what it brought is still to be read.
    answer.await
}

fn page_of(path: &str, after: Option<&str>, limit: usize) -> String {
    match after {
        Some(after) => format!("{path}?limit={limit}&after={}", escaped(after)),
        None => format!("{path}?limit={limit}"),
    }
}

/// `text` as a part of a path or a query.
fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
