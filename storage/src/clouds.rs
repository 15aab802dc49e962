//! Real clouds: object stores over HTTP, and directories.
//!
//! A put is proved by what the cloud answers: S3 and GCS tell the MD5 they computed, Azure sends it back as
//! Content-MD5. Where an answer proves nothing (encrypted buckets, opaque tags, directories) the object is read back
//! and hashed here. Nothing is retried: a call is one attempt on the wire, so that failures are counted where they
//! happen.
//!
//! Owns: protocols, deadlines, receipts, and what each store's failures mean. Does not own: when to try again
//! (`health`), which cloud to use (`cloudfs`).

mod azure;
mod build;
pub mod conformance;
mod directory;
mod failure;
mod objects;
mod receipt;
mod secrets;
pub mod settings;
#[cfg(test)]
mod tests;
mod transfers;
mod wire;

pub use secrets::Secret;
pub use settings::{AzureSettings, CloudSettings, DirectorySettings, GcsSettings, Limits, S3Settings};

use crate::cloud::Cloud;
use std::{path::PathBuf, sync::Arc};

/// A cloud cannot be used as configured. Nothing was sent to it yet.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A secret cannot be had from where the settings say it is.
    #[error("setting {name}: {why}")]
    Secret { name: &'static str, why: String },
    /// A setting does not make sense.
    #[error("setting {name}: {why}")]
    Setting { name: &'static str, why: String },
    /// The object store's client refuses the settings.
    #[error("cloud {cloud}: the client refuses these settings")]
    Client { cloud: String, source: object_store::Error },
    /// A file or directory of the settings is not usable.
    #[error("cloud {cloud}: {path}")]
    Path { cloud: String, path: PathBuf, source: std::io::Error },
}

/// Why a cloud cannot be used as far as this machine can tell, as [`open`] would find it: of secrets everything, of all else
/// the first thing. Makes and changes nothing.
pub fn check(settings: &CloudSettings, name: &str) -> Vec<OpenError> {
    let missing = settings.missing_secrets();
    if !missing.is_empty() {
        return missing;
    }
    let checked = match settings {
        CloudSettings::Directory(directory) => directory::Directory::check(directory, name).map(drop),
        other => open(other, name).map(drop),
    };
    checked.err().into_iter().collect()
}

/// Makes a cloud ready for use. `name` stands in its errors, such as `a`. Connects only when first called.
pub fn open(settings: &CloudSettings, name: &str) -> Result<Arc<dyn Cloud>, OpenError> {
    Ok(match settings {
        CloudSettings::S3(s3) => Arc::new(objects::Objects::s3(s3, name)?),
        CloudSettings::Azure(azure) => Arc::new(objects::Objects::azure(azure, name)?),
        CloudSettings::Gcs(gcs) => Arc::new(objects::Objects::gcs(gcs, name)?),
        CloudSettings::Directory(directory) => Arc::new(directory::Directory::open(directory, name)?),
    })
}
