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
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// A cloud cannot be used as configured. Nothing was sent to it yet.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A secret cannot be had from where the settings say it is. `name` is the setting that says so, such as
    /// `access_key_env`.
    #[error("setting {name}: {why}")]
    Secret { name: String, why: String },
    /// A setting does not make sense.
    #[error("setting {name}: {why}")]
    Setting { name: &'static str, why: String },
    /// The object store's client refuses the settings.
    #[error("cloud {cloud}: the client refuses these settings")]
    Client { cloud: String, source: object_store::Error },
    /// A file or directory that the setting `name` names is not usable.
    #[error("cloud {cloud}: {path}")]
    Path { cloud: String, name: &'static str, path: PathBuf, source: std::io::Error },
}

impl OpenError {
    /// The setting to look at, such as `ca_file`; `None` where it may be any.
    pub fn setting(&self) -> Option<&str> {
        match self {
            Self::Secret { name, .. } => Some(name),
            Self::Setting { name, .. } | Self::Path { name, .. } => Some(name),
            Self::Client { .. } => None,
        }
    }
}

/// Why a cloud cannot be used as far as this machine can tell, as [`open`] would find it: everything that is [`missing`], or
/// else the first thing that its client refuses. Makes and changes nothing.
pub fn check(settings: &CloudSettings, name: &str) -> Vec<OpenError> {
    let missing = missing(settings, name);
    match settings {
        CloudSettings::Directory(_) => missing,
        other if missing.is_empty() => open(other, name).map(drop).err().into_iter().collect(),
        _ => missing,
    }
}

/// All that the settings name on this machine, secrets, files and a directory, and that is not there or cannot be read.
pub fn missing(settings: &CloudSettings, name: &str) -> Vec<OpenError> {
    let mut found = settings.missing_secrets();
    let files = match settings {
        CloudSettings::S3(s3) => vec![("ca_file", &s3.ca_file)],
        CloudSettings::Azure(azure) => vec![("ca_file", &azure.ca_file)],
        CloudSettings::Gcs(gcs) => {
            vec![("service_account_path", &gcs.service_account_path), ("ca_file", &gcs.ca_file)]
        }
        CloudSettings::Directory(directory) => {
            found.extend(directory::Directory::check(directory, name));
            vec![]
        }
    };
    found.extend(files.into_iter().filter_map(|(setting, path)| unreadable(setting, path.as_ref()?, name)));
    found
}

/// Why a file of the settings cannot be read, if so.
#[expect(clippy::disallowed_methods, reason = "certificates and keys that the operator names lie in files")]
fn unreadable(setting: &'static str, path: &Path, cloud: &str) -> Option<OpenError> {
    let source = std::fs::read(path).err()?;
    Some(OpenError::Path { cloud: cloud.into(), name: setting, path: path.into(), source })
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
