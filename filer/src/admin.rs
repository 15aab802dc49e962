//! The operator's door: what a filer says of itself, and the few things it can be told to do.
//!
//! ```text
//! filer status ──▶ client ──▶ Unix socket (0600) ─┐
//! curl + token ─────────────▶ loopback port ──────┼─▶ routes ──▶ Steering (the site)
//! Prometheus ───────────────▶ metrics port ───────┘
//! ```
//!
//! Owns: the listeners, who may come in, the routes, the words of the answers. Does not own: what is answered and done
//! (behind [`Steering`]).

pub mod client;
mod doors;
pub mod metrics;
mod routes;
pub mod status;
#[cfg(test)]
pub(crate) mod tests;

pub use client::{AdminClient, ClientError};
pub(crate) use doors::check_token_file;
pub use doors::{AdminSocket, DoorError, MetricsDoor, TokenDoor};
pub use metrics::{Extra, metrics_text};
pub use status::{FileRow, Page, SegmentRow, Status};

use mesh::FilerId;
use serde::{Deserialize, Serialize};
use status::DecisionRow;

/// Rows of a list in one answer, at most.
pub const ROWS_MAX: usize = 1_000;
/// Rows of a list in one answer, where the caller names no number.
pub const ROWS_DEFAULT: usize = 100;

/// Why something was not done.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "refusal", content = "why", rename_all = "kebab-case")]
pub enum Refusal {
    /// The rules of the CloudFS forbid it, such as a failover to a cloud that misses something.
    #[error("{0}")]
    Rules(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense.
    #[error("{0}")]
    Request(String),
    /// Not now: most filers cannot be reached, or the deadline passed. It may still be done later.
    #[error("{0}")]
    Later(String),
    /// It was tried, and failed.
    #[error("{0}")]
    Failed(String),
}

/// What the site lets its operator see and do.
#[async_trait::async_trait]
pub trait Steering: Send + Sync + 'static {
    /// The first page. Must answer from memory: it is asked each second, and by monitoring.
    async fn status(&self) -> Status;

    /// Numbers for monitoring beside those of [`Steering::status`].
    async fn extra_metrics(&self) -> Vec<Extra> {
        vec![]
    }

    /// Makes the cloud of this name, or letter, active; one that does not take and give data now only if it is meant `anyway`.
    /// Answers what was done.
    async fn failover(&self, cloud: &str, anyway: bool) -> Result<String, Refusal>;

    /// As [`Steering::failover`], to the preferred cloud.
    async fn failback(&self, anyway: bool) -> Result<String, Refusal>;

    /// Takes the filer of this name out of the CloudFS. Answers what was done.
    async fn remove_peer(&self, name: &str) -> Result<String, Refusal>;

    /// Lets the filer of this name go on, whose removal was begun and not ended. Answers what was done.
    async fn keep_peer(&self, name: &str) -> Result<String, Refusal>;

    /// Has every filer refuse the certificate with this serial number, which the filer `filer`, called `name`, holds.
    /// Answers what was done.
    async fn revoke(&self, filer: FilerId, name: &str, serial: &str) -> Result<String, Refusal>;

    /// Takes the certificate with this serial number, which was put in place of this filer's, into use now. Answers what
    /// was done, when it is.
    async fn use_certificate(&self, serial: &str) -> Result<String, Refusal>;

    /// The serial number of the certificate with which a filer serves now, as it says itself.
    async fn certificate_of(&self, filer: FilerId) -> Result<String, Refusal>;

    /// Segments on record behind `after` (the `next` of an earlier page), at most `limit`.
    async fn segments(&self, after: Option<String>, limit: usize) -> Result<Page<SegmentRow>, Refusal>;

    /// Files on record behind `after` (the `next` of an earlier page), at most `limit`.
    async fn files(&self, after: Option<String>, limit: usize) -> Result<Page<FileRow>, Refusal>;

    /// The last decisions on the clouds, newest first.
    async fn decisions(&self) -> Result<Vec<DecisionRow>, Refusal>;
}
