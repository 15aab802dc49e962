//! The door in front of the protocol: knows what each request asks for, writes it down, and carries out faults.

mod bodies;

use super::faults::{Effect, Fault, Faults, Operation};
use super::journal::{Journal, Ticket};
use super::objects::Objects;
use super::protocol::Etags;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use s3s::service::S3Service;
use s3s::{Body, HttpError};
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Longest list of keys to delete, in bytes.
const DELETE_BODY_BYTES_MAX: usize = 2 << 20;

/// Longest body of a put that is stored late, in bytes.
const LATE_BODY_BYTES_MAX: usize = 256 << 20;

/// What a request asks for.
struct Asked {
    operation: Operation,
    bucket: String,
    keys: Vec<String>,
}

/// The connection a request came by: its server resets it when told.
#[derive(Default)]
pub(super) struct Line {
    pub(super) reset: Notify,
}

pub(super) struct Door {
    pub(super) s3: S3Service,
    pub(super) faults: Arc<Faults>,
    pub(super) journal: Arc<Journal>,
    pub(super) objects: Arc<Objects>,
    /// Stores and losses yet to happen; they end with the cloud.
    pub(super) later: Mutex<JoinSet<()>>,
}

impl Door {
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        line: Arc<Line>,
    ) -> Result<Response<Body>, HttpError> {
        let (mut asked, declared) = (asked(request.method(), request.uri()), length(request.headers()));
        let mut request = request.map(Body::from);
        if asked.operation == Operation::Delete && asked.keys.is_empty() {
            let (head, body) = request.into_parts();
            let body = Limited::new(body, DELETE_BODY_BYTES_MAX).collect().await.map_err(HttpError::new)?.to_bytes();
            asked.keys = keys_to_delete(&body);
            request = Request::from_parts(head, Body::from(body));
        }
        let met = self.faults.meet(asked.operation, &asked.keys);
        let fault = met.as_ref().map(|(id, _)| *id);
        let bytes = if asked.operation == Operation::Put { declared } else { 0 };
        let ticket = self.journal.arrived(asked.operation, &asked.bucket, &asked.keys, bytes, fault);
        match met {
            Some((_, fault)) => self.fail(fault, asked, request, ticket, &line).await,
            None => close(self.s3.call(request).await, ticket),
        }
    }

    /// Carries out a fault.
    async fn fail(
        self: &Arc<Self>,
        fault: Fault,
        asked: Asked,
        mut request: Request<Body>,
        ticket: Ticket,
        line: &Line,
    ) -> Result<Response<Body>, HttpError> {
        sleep(Duration::from_millis(fault.delay_ms)).await;
        let is_get = asked.operation == Operation::Get;
        let answer = match fault.effect {
            Effect::Slowly => self.s3.call(request).await,
            Effect::Status { status, happened } => self.refuse(request, status, happened).await,
            Effect::Denied => self.refuse(request, 403, false).await,
            Effect::Reset { happened } => {
                if happened {
                    self.s3.call(request).await?;
                }
                ticket.reset();
                line.reset.notify_one();
                return pending().await;
            }
            Effect::HangBefore => {
                // Taken whole, so that the client is seen to go away.
                discard(request).await?;
                return pending().await;
            }
            Effect::HangAfter { answer_after_ms } => {
                let answer = self.s3.call(request).await;
                match answer_after_ms {
                    Some(after_ms) => sleep(Duration::from_millis(after_ms)).await,
                    None => pending().await,
                }
                answer
            }
            Effect::LatePut { store_after_ms, status } => {
                let (head, body) = request.into_parts();
                let body = Limited::new(body, LATE_BODY_BYTES_MAX).collect().await.map_err(HttpError::new)?;
                let (door, request) = (self.clone(), Request::from_parts(head, Body::from(body.to_bytes())));
                self.later(store_after_ms, async move {
                    if let Err(error) = door.s3.call(request).await {
                        tracing::warn!(?error, "a late put was not stored");
                    }
                });
                match status {
                    Some(status) => Ok(refusal(status)),
                    None => pending().await,
                }
            }
            Effect::WrongEtag | Effect::OpaqueEtag => {
                let etags = if fault.effect == Effect::WrongEtag { Etags::Wrong } else { Etags::Opaque };
                request.extensions_mut().insert(etags);
                self.s3.call(request).await
            }
            Effect::Truncate { keep_bytes, honest } if is_get => {
                let mut answer = self.s3.call(request).await?;
                if answer.status().is_success() {
                    if honest {
                        let told = length(answer.headers()).min(keep_bytes);
                        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(told));
                    }
                    answer = answer.map(|body| bodies::cut(body, keep_bytes));
                }
                Ok(answer)
            }
            Effect::FlipBit { bit } if is_get => {
                let answer = self.s3.call(request).await?;
                let whole = answer.status().is_success();
                Ok(if whole { answer.map(|body| bodies::flipped(body, bit)) } else { answer })
            }
            Effect::Truncate { .. } | Effect::FlipBit { .. } => self.s3.call(request).await,
            Effect::Lose { after_ms } => {
                let answer = self.s3.call(request).await?;
                if asked.operation == Operation::Put && answer.status().is_success() {
                    self.lose(asked, after_ms);
                }
                Ok(answer)
            }
            Effect::Slow { bytes_per_s } => {
                if asked.operation == Operation::Put {
                    request = request.map(|body| bodies::paced(body, bytes_per_s));
                }
                let answer = self.s3.call(request).await?;
                Ok(answer.map(|body| bodies::paced(body, bytes_per_s)))
            }
        };
        close(answer, ticket)
    }

    /// Takes the whole request and answers it with an error, so that the client surely reads it.
    async fn refuse(&self, request: Request<Body>, status: u16, happened: bool) -> Result<Response<Body>, HttpError> {
        if happened {
            self.s3.call(request).await?;
        } else {
            discard(request).await?;
        }
        Ok(refusal(status))
    }

    fn lose(self: &Arc<Self>, asked: Asked, after_ms: u64) {
        let door = self.clone();
        let lose = move || {
            for key in &asked.keys {
                if let Err(error) = door.objects.remove(&asked.bucket, key) {
                    tracing::warn!(%error, "an object was not lost");
                }
            }
        };
        match after_ms {
            0 => lose(),
            _ => self.later(after_ms, async move { lose() }),
        }
    }

    /// What has not happened by now never will.
    pub(super) fn forget_later(&self) {
        self.later.lock().expect("no holder of this lock panics").abort_all();
    }

    fn later(&self, after_ms: u64, work: impl Future<Output = ()> + Send + 'static) {
        let mut later = self.later.lock().expect("no holder of this lock panics");
        while later.try_join_next().is_some() {}
        later.spawn(async move {
            sleep(Duration::from_millis(after_ms)).await;
            work.await;
        });
    }
}

/// Takes the whole request and forgets it.
async fn discard(request: Request<Body>) -> Result<(), HttpError> {
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        frame.map_err(HttpError::new)?;
    }
    Ok(())
}

/// Writes the answer down before it leaves.
fn close(answer: Result<Response<Body>, HttpError>, ticket: Ticket) -> Result<Response<Body>, HttpError> {
    let answer = answer?;
    ticket.answered(answer.status().as_u16(), length(answer.headers()));
    Ok(answer)
}

fn length(headers: &hyper::HeaderMap) -> u64 {
    headers.get(CONTENT_LENGTH).and_then(|text| text.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// An error as S3 tells it.
fn refusal(status: u16) -> Response<Body> {
    let code = match status {
        403 => "InvalidAccessKeyId",
        429 => "TooManyRequests",
        503 => "SlowDown",
        _ => "InternalError",
    };
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{code}</Message></Error>"
    );
    let mut answer = Response::new(Body::from(Bytes::from(text)));
    *answer.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    answer
}

/// What a request asks for, from its first line alone.
fn asked(method: &Method, uri: &Uri) -> Asked {
    let path = decoded(uri.path().trim_start_matches('/'), false);
    let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
    let query: Vec<(String, String)> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name, true), decoded(value, true)))
        .collect();
    let value = |name: &str| query.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let part = value("uploads").or(value("uploadId")).is_some();
    let operation = match (method.as_str(), bucket.is_empty(), key.is_empty()) {
        ("PUT", false, false) if !part => Operation::Put,
        ("GET", false, false) if !part => Operation::Get,
        ("HEAD", false, false) => Operation::Head,
        ("DELETE", false, false) if !part => Operation::Delete,
        ("POST", false, true) if value("delete").is_some() => Operation::Delete,
        ("GET", false, true) if value("list-type").is_some() => Operation::List,
        _ => Operation::Other,
    };
    let keys = match operation {
        Operation::List => vec![value("prefix").unwrap_or_default()],
        Operation::Delete if key.is_empty() => vec![],
        _ => vec![key.to_string()],
    };
    Asked { operation, bucket: bucket.into(), keys }
}

/// Text out of a URL.
fn decoded(text: &str, plus_is_space: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let coded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (byte, coded) {
            (b'%', Some(coded)) => {
                bytes.push(coded);
                rest = &behind[2..];
                continue;
            }
            (b'+', _) if plus_is_space => bytes.push(b' '),
            _ => bytes.push(byte),
        }
        rest = behind;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The keys in the body of a delete of many objects.
fn keys_to_delete(body: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(body);
    let mut keys = Vec::new();
    let mut rest = &*text;
    while let Some((_, behind)) = rest.split_once("<Key>")
        && let Some((key, behind)) = behind.split_once("</Key>")
    {
        let marks = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
        keys.push(marks.iter().fold(key.to_string(), |key, (coded, plain)| key.replace(coded, plain)));
        rest = behind;
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_understood() {
        let cases = [
            ("PUT", "/b/a/b%20c", Operation::Put, "a/b c"),
            ("GET", "/b/a", Operation::Get, "a"),
            ("GET", "/b?list-type=2&prefix=x%2Fy+z", Operation::List, "x/y z"),
            ("GET", "/b/?list-type=2", Operation::List, ""),
            ("HEAD", "/b/a", Operation::Head, "a"),
            ("DELETE", "/b/a", Operation::Delete, "a"),
            ("PUT", "/b", Operation::Other, ""),
            ("POST", "/b/a?uploads", Operation::Other, "a"),
            ("PUT", "/b/a?uploadId=1&partNumber=1", Operation::Other, "a"),
        ];
        for (method, uri, operation, key) in cases {
            let asked = asked(&method.parse().unwrap(), &uri.parse().unwrap());
            assert_eq!((asked.operation, &*asked.bucket, &*asked.keys[0]), (operation, "b", key), "{method} {uri}");
        }
        let many = b"<Delete><Object><Key>a&amp;lt;</Key></Object><Object><Key>b</Key></Object></Delete>";
        assert_eq!(keys_to_delete(many), ["a&lt;", "b"]);
    }
}
