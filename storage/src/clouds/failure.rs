//! What a failed call means.

use super::{
    receipt::element,
    wire::{Answer, Seen},
};
use crate::cloud::CloudError;
use http::StatusCode;
use mesh::words::chain;
use object_store::client::HttpErrorKind;

/// The longest reason that is kept of a server's text, in characters.
const WHY_CHARS_MAX: usize = 300;

/// Says what `err` means for the object `key`, given what was seen on the wire.
pub(super) fn cloud_error(
    attempted: &str,
    key: &str,
    connect_timeout_ms: u64,
    seen: &Seen,
    err: &object_store::Error,
) -> CloudError {
    let attempted = attempted.to_owned();
    let too_short = |got: String| CloudError::Corrupt { key: key.into(), expected: "the range asked for".into(), got };
    if let Some(total) = seen.short {
        return too_short(format!("an object of {total} bytes"));
    }
    if let Some((kind, why)) = &seen.failure {
        return match kind {
            HttpErrorKind::Timeout => CloudError::TimedOut { attempted, after_ms: connect_timeout_ms },
            _ => CloudError::Failed { attempted, why: shorten(why) },
        };
    }
    let Some(answer) = seen.answer.as_ref().filter(|answer| !answer.status.is_success()) else {
        return match err {
            object_store::Error::NotFound { .. } => CloudError::NotFound { key: key.into() },
            _ => CloudError::Failed { attempted, why: shorten(&chain(err)) },
        };
    };
    let code = code(answer);
    let why = shorten(&reason(answer));
    match answer.status {
        // An object is missing, not the whole bucket: what is kept in a missing bucket is not deleted but unreachable.
        StatusCode::NOT_FOUND if !names_a_missing_bucket(&code) => CloudError::NotFound { key: key.into() },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => CloudError::Denied { attempted, why },
        // What S3 and GCS call forbidden, Azure calls a conflict.
        StatusCode::CONFLICT if is_kept_by_a_policy(&code) => CloudError::Denied { attempted, why },
        StatusCode::RANGE_NOT_SATISFIABLE => too_short("a shorter object".into()),
        StatusCode::BAD_REQUEST if matches!(code.as_str(), "BadDigest" | "Md5Mismatch") => {
            CloudError::Corrupt { key: key.into(), expected: "the announced MD5".into(), got: why }
        }
        _ => CloudError::Failed { attempted, why },
    }
}

fn names_a_missing_bucket(code: &str) -> bool {
    matches!(code, "NoSuchBucket" | "ContainerNotFound" | "AccountNotFound" | "ResourceNotFound")
}

/// Retention and legal holds of Azure, such as `BlobImmutableDueToPolicy`.
fn is_kept_by_a_policy(code: &str) -> bool {
    code.contains("Immutable")
}

/// The server's own name for its refusal, or nothing.
fn code(answer: &Answer) -> String {
    let header = answer.headers.get("x-ms-error-code").and_then(|code| code.to_str().ok());
    let body = String::from_utf8_lossy(&answer.body);
    header.or_else(|| element(&body, "Code")).unwrap_or_default().to_owned()
}

fn reason(answer: &Answer) -> String {
    let body = String::from_utf8_lossy(&answer.body);
    let (code, message) = (code(answer), element(&body, "Message").unwrap_or_default());
    let text = match (code.is_empty(), message.is_empty()) {
        (true, true) => body.trim(),
        _ => message,
    };
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let parts = [answer.status.to_string(), code, text];
    parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(": ")
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(WHY_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
