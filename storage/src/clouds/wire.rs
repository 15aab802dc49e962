//! The wire between the object store client and HTTP: sees every attempt as it really happens.
//!
//! The client's own results hide what matters here: the headers of an answer, the status and body of a refusal, the
//! kind of a broken connection. Each call runs inside an [`Exchange`], which adds Content-MD5 to its put and keeps
//! what came back. Answers that are held in memory have a limit.

use super::receipt::content_md5;
use crate::ids::Md5;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use mesh::words::chain;
use object_store::{
    ClientOptions,
    azure::{AzureAuthorizer, AzureCredential},
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
        ReqwestConnector,
    },
};
use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

/// The most that is read of a refusal's text, in bytes. The rest is left.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// The longest answer that is held whole (listings, answers to puts), in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;

tokio::task_local! {
    static EXCHANGE: Arc<Exchange>;
}

/// One call: what to add to its request, and what came back.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// The MD5 a put announces.
    put_md5: Option<Md5>,
    /// Whether a good answer's body is left to the caller as it comes, instead of being held whole.
    streams: bool,
    /// The bytes that a get asks for.
    range: Option<Range<u64>>,
    seen: Mutex<Seen>,
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub answer: Option<Answer>,
    /// Why there was no answer, or no whole one.
    pub failure: Option<(HttpErrorKind, String)>,
    /// The size of an object that is too short for the range asked for.
    pub short: Option<u64>,
}

/// A server's answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Empty when the body was streamed.
    pub body: Bytes,
}

impl Exchange {
    pub fn putting(md5: Md5) -> Self {
        Self { put_md5: Some(md5), ..Self::default() }
    }

    pub fn looking() -> Self {
        Self { streams: true, ..Self::default() }
    }

    pub fn getting(range: Range<u64>) -> Self {
        Self { streams: true, range: Some(range), ..Self::default() }
    }

    /// Runs `work` as this exchange.
    pub async fn run<T>(self: &Arc<Self>, work: impl Future<Output = T>) -> T {
        EXCHANGE.scope(Arc::clone(self), work).await
    }

    /// What came back so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().expect("no holder of this lock panics").clone()
    }

    fn note(&self, answer: Option<Answer>, failure: Option<&HttpError>) {
        let failure = failure.map(|err| (err.kind(), chain(err)));
        *self.seen.lock().expect("no holder of this lock panics") = Seen { answer, failure, short: None };
    }

    /// Compares the answer to a get with what was asked for.
    fn check_range(&self, parts: &mut http::response::Parts) -> Result<(), HttpError> {
        let (Some(range), Some(total)) = (&self.range, total_bytes(parts)) else { return Ok(()) };
        if total < range.end {
            self.seen.lock().expect("no holder of this lock panics").short = Some(total);
            let why = std::io::Error::other(format!("the object has only {total} bytes"));
            return Err(HttpError::new(HttpErrorKind::Decode, why));
        }
        // Some servers give a range without calling the answer one, or leave a range of the whole object unsaid.
        let is_range = parts.headers.contains_key(header::CONTENT_RANGE);
        if parts.status == StatusCode::OK && (is_range || *range == (0..total)) {
            parts.status = StatusCode::PARTIAL_CONTENT;
            let value = HeaderValue::from_str(&format!("bytes 0-{}/{total}", total - 1));
            parts.headers.entry(header::CONTENT_RANGE).or_insert(value.expect("digits are plain ASCII"));
        }
        Ok(())
    }
}

/// Makes the HTTP client of an object store, with the exchange in between.
#[derive(Debug, Default)]
pub(super) struct Connector {
    /// Account and key of Azure's SharedKey, whose signatures cover Content-MD5.
    pub shared_key: Option<(String, Arc<AzureCredential>)>,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Wire { client, shared_key: self.shared_key.clone() }))
    }
}

#[derive(Debug)]
struct Wire {
    client: HttpClient,
    shared_key: Option<(String, Arc<AzureCredential>)>,
}

impl Wire {
    fn announce(&self, request: &mut HttpRequest, md5: Md5) -> Result<(), HttpError> {
        let value = HeaderValue::from_str(&content_md5(md5)).expect("base64 is plain ASCII");
        request.headers_mut().insert(HeaderName::from_static("content-md5"), value);
        if let Some((account, credential)) = &self.shared_key {
            request.headers_mut().remove(header::AUTHORIZATION);
            AzureAuthorizer::new(credential, account)
                .try_authorize(request)
                .map_err(|err| HttpError::new(HttpErrorKind::Unknown, err))?;
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl HttpService for Wire {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let exchange = EXCHANGE.try_with(Arc::clone).unwrap_or_default();
        let puts = request.method() == Method::PUT;
        if let Some(md5) = exchange.put_md5.filter(|_| puts) {
            self.announce(&mut request, md5)?;
        }
        let (mut parts, body) = match self.client.execute(request).await {
            Ok(response) => response.into_parts(),
            Err(err) => {
                exchange.note(None, Some(&err));
                return Err(err);
            }
        };
        let mut answer = Answer { status: parts.status, headers: parts.headers.clone(), body: Bytes::new() };
        // The client takes a put without a tag for a failed one, although the object is there and can be read back.
        if puts && parts.status.is_success() && !parts.headers.contains_key(header::ETAG) {
            parts.headers.insert(header::ETAG, HeaderValue::from_static("-"));
        }
        if exchange.streams && parts.status.is_success() {
            exchange.note(Some(answer), None);
            exchange.check_range(&mut parts)?;
            return Ok(HttpResponse::from_parts(parts, body));
        }
        match hold(body, parts.status.is_success()).await {
            Ok(body) => {
                answer.body = body.clone();
                exchange.note(Some(answer), None);
                Ok(HttpResponse::from_parts(parts, body.into()))
            }
            Err(err) => {
                exchange.note(Some(answer), Some(&err));
                Err(err)
            }
        }
    }
}

/// The size of the whole object, as the answer to a get tells it.
fn total_bytes(parts: &http::response::Parts) -> Option<u64> {
    let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    match text(header::CONTENT_RANGE) {
        Some(range) => range.rsplit_once('/')?.1.parse().ok(),
        None if parts.status == StatusCode::OK => text(header::CONTENT_LENGTH)?.parse().ok(),
        None => None,
    }
}

/// Reads a body into memory: a good one whole or not at all, a refusal's as far as the limit.
async fn hold(body: HttpResponseBody, good: bool) -> Result<Bytes, HttpError> {
    let limit = if good { ANSWER_BYTES_MAX } else { REFUSAL_BYTES_MAX };
    let (mut stream, mut held) = (body.bytes_stream(), BytesMut::new());
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        let room = limit - held.len();
        if chunk.len() > room {
            if good {
                let why = std::io::Error::other(format!("the answer is longer than {limit} bytes"));
                return Err(HttpError::new(HttpErrorKind::Decode, why));
            }
            held.extend_from_slice(&chunk[..room]);
            break;
        }
        held.extend_from_slice(&chunk);
    }
    Ok(held.freeze())
}
