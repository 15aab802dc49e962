//! A cloud as the machines see it: one attempt per call, and a receipt that proves a put.
//!
//! Owns: the trait, receipts, the kinds of failure. Does not own: retries and failure counts (`health`), roles
//! (`cloudfs`), real protocols (`clouds`, behind the feature `io`).

use crate::ids::Md5;
use bytes::Bytes;
use mesh::words::span;
use std::ops::Range;

/// How a put was proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The cloud's own answer carried the MD5 it computed.
    Answer,
    /// The answer proved nothing, so the object was read back and hashed here.
    ReadBack,
}

/// A cloud's proof that it holds an object: the MD5 it computed equals ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub md5: Md5,
    pub bytes: u64,
    pub proof: Proof,
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name below the CloudFS's prefix.
    pub key: String,
    pub bytes: u64,
    /// The MD5, where the cloud's listing tells it.
    pub md5: Option<Md5>,
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In order of key.
    pub objects: Vec<Listed>,
    /// Whether objects may follow behind the last of these.
    pub more: bool,
}

/// Why an attempt failed. Every kind counts towards the trip; the kind is for people and for the fallback.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CloudError {
    /// The cloud has no such object.
    #[error("no object {key}")]
    NotFound { key: String },
    /// What the cloud holds or sent is not what was put.
    #[error("object {key}: expected {expected}, got {got}")]
    Corrupt { key: String, expected: String, got: String },
    /// The cloud will not: our credentials do not reach so far, or a policy keeps what is there.
    #[error("{attempted}: access denied: {why}")]
    Denied { attempted: String, why: String },
    /// No whole answer came in time; a put may have happened all the same.
    #[error("{attempted}: no answer within {}", span(*after_ms))]
    TimedOut { attempted: String, after_ms: u64 },
    /// Anything else: retried like the known ones.
    #[error("{attempted}: {why}")]
    Failed { attempted: String, why: String },
}

impl CloudError {
    /// Whether the cloud has understood, and refuses: an honest answer, and the same until somebody changes its settings.
    pub fn is_refusal(&self) -> bool {
        matches!(self, CloudError::Denied { .. })
    }
}

/// What a probe writes: a line that says what it is, with its format version.
pub const PROBE: &[u8] = b"filermesh probe, format 1\n";

/// One cloud. Every call is exactly one attempt and has a deadline of its own.
#[async_trait::async_trait]
pub trait Cloud: Send + Sync + 'static {
    /// Puts a whole object by a single put, and proves it.
    async fn put(&self, key: &str, body: Bytes, md5: Md5) -> Result<Receipt, CloudError>;

    /// Reads `range` of an object: exactly that many bytes, or an error.
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes, CloudError>;

    /// Reads an object of so many bytes, to be kept elsewhere. No client waits for it, so it may take as long as all that
    /// comes from this cloud at that time needs, where other reads have a deadline by their own bytes.
    async fn get_whole(&self, key: &str, bytes: u64) -> Result<Bytes, CloudError> {
        self.get(key, 0..bytes).await
    }

    /// Size and, where the cloud tells it, MD5 of an object.
    async fn head(&self, key: &str) -> Result<Listed, CloudError>;

    /// Deletes an object. One that is not there counts as deleted.
    async fn delete(&self, key: &str) -> Result<(), CloudError>;

    /// Up to 1,000 objects below `prefix` whose keys are greater than `after`.
    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, CloudError>;

    /// Shows that the cloud takes and gives data: writes a small object, reads it back and compares.
    async fn probe(&self, key: &str, body: Bytes) -> Result<(), CloudError> {
        let md5 = Md5::of(&body);
        self.put(key, body.clone(), md5).await?;
        let back = self.get(key, 0..body.len() as u64).await?;
        if back != body {
            let (expected, got) = (md5.to_string(), Md5::of(&back).to_string());
            return Err(CloudError::Corrupt { key: key.into(), expected, got });
        }
        Ok(())
    }
}
