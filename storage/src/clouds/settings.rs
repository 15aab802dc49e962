//! How a cloud is reached, as the operator writes it.
//!
//! Owns: the settings of each kind of cloud, and their defaults. Does not own: where secrets come from (`secrets`), what is
//! done with any of it.

use super::Secret;
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// One cloud.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CloudSettings {
    S3(S3Settings),
    Azure(AzureSettings),
    Gcs(GcsSettings),
    Directory(DirectorySettings),
}

impl CloudSettings {
    /// How long one attempt may take, and how it is proved.
    pub fn limits(&self) -> &Limits {
        match self {
            Self::S3(s3) => &s3.limits,
            Self::Azure(azure) => &azure.limits,
            Self::Gcs(gcs) => &gcs.limits,
            Self::Directory(directory) => &directory.limits,
        }
    }

    /// The same, to be changed.
    pub fn limits_mut(&mut self) -> &mut Limits {
        match self {
            Self::S3(s3) => &mut s3.limits,
            Self::Azure(azure) => &mut azure.limits,
            Self::Gcs(gcs) => &mut gcs.limits,
            Self::Directory(directory) => &mut directory.limits,
        }
    }

    /// Where the objects are, in words for logs and the console; without secrets.
    pub fn place(&self) -> String {
        let under = |place: String, prefix: &str| match prefix.trim_matches('/') {
            "" => place,
            prefix => format!("{place}/{prefix}"),
        };
        match self {
            Self::S3(s3) => under(format!("s3://{}", s3.bucket), &s3.prefix),
            Self::Azure(azure) => under(format!("azure://{}/{}", azure.account, azure.container), &azure.prefix),
            Self::Gcs(gcs) => under(format!("gs://{}", gcs.bucket), &gcs.prefix),
            Self::Directory(directory) => under(directory.path.display().to_string(), &directory.prefix),
        }
    }

    /// The same settings without the secrets themselves, to be shown.
    pub fn redacted(&self) -> Self {
        let mut settings = self.clone();
        let secrets = match &mut settings {
            Self::S3(s3) => vec![&mut s3.secret_access_key, &mut s3.session_token],
            Self::Azure(azure) => vec![&mut azure.access_key, &mut azure.sas],
            Self::Gcs(_) | Self::Directory(_) => vec![],
        };
        for secret in secrets.into_iter().flatten() {
            *secret = Secret("(redacted)".into());
        }
        settings
    }
}

/// An S3 bucket, or one of a store that speaks S3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Settings {
    pub bucket: String,
    /// Objects lie below this prefix.
    #[serde(default)]
    pub prefix: String,
    /// Such as `https://s3.example.org`; AWS itself when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    #[serde(default = "S3Settings::default_region")]
    pub region: String,
    /// Without a key the machine's own role is used, as AWS instances have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id_env: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key_env: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key_file: Option<PathBuf>,
    /// The third part of temporary credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<Secret>,
    /// Lets `http://` endpoints pass; for tests and closed networks.
    #[serde(default)]
    pub allow_http: bool,
    /// Puts the bucket's name into the host name instead of the path.
    #[serde(default)]
    pub virtual_hosted: bool,
    /// Leaves the body out of the signature and its hashing to TLS and Content-MD5: spares processor time.
    #[serde(default)]
    pub unsigned_payload: bool,
    /// A file of certificates (PEM) to trust besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    #[serde(default)]
    pub limits: Limits,
}

impl S3Settings {
    fn default_region() -> String {
        "us-east-1".into()
    }
}

/// A container of Azure Blob Storage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AzureSettings {
    pub account: String,
    pub container: String,
    /// Objects lie below this prefix.
    #[serde(default)]
    pub prefix: String,
    /// The account's address, such as `http://127.0.0.1:10000/devstoreaccount1`; Azure itself when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The account's key, in base64. Without key and SAS the machine's own identity is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_env: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_file: Option<PathBuf>,
    /// A shared access signature, as the query string that Azure shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sas: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sas_env: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sas_file: Option<PathBuf>,
    /// Lets `http://` endpoints pass; for tests and closed networks.
    #[serde(default)]
    pub allow_http: bool,
    /// A file of certificates (PEM) to trust besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    #[serde(default)]
    pub limits: Limits,
}

/// A bucket of Google Cloud Storage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GcsSettings {
    pub bucket: String,
    /// Objects lie below this prefix.
    #[serde(default)]
    pub prefix: String,
    /// Google itself when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The service account's key file. Without one the machine's own identity is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_path: Option<PathBuf>,
    /// Sends requests unsigned: for emulators, which check nothing.
    #[serde(default)]
    pub anonymous: bool,
    /// Lets `http://` endpoints pass; for tests and closed networks.
    #[serde(default)]
    pub allow_http: bool,
    /// A file of certificates (PEM) to trust besides the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    #[serde(default)]
    pub limits: Limits,
}

/// A directory, local or mounted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectorySettings {
    /// Must exist: a mount that is missing must not look like an empty cloud.
    pub path: PathBuf,
    /// Objects lie below this prefix.
    #[serde(default)]
    pub prefix: String,
    /// Calls of the operating system at one time, each of which holds a thread until it returns: a mount that hangs takes so
    /// many and no more.
    #[serde(default = "DirectorySettings::default_calls_in_flight_max")]
    pub calls_in_flight_max: usize,
    #[serde(default)]
    pub limits: Limits,
}

impl DirectorySettings {
    /// This directory, with the defaults of everything else.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let (prefix, limits) = Default::default();
        Self { path: path.into(), prefix, calls_in_flight_max: Self::default_calls_in_flight_max(), limits }
    }

    fn default_calls_in_flight_max() -> usize {
        32
    }
}

/// How long one attempt may take, and how it is proved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// To connect, in milliseconds.
    pub connect_timeout_ms: u64,
    /// For a whole attempt with an empty body, in milliseconds.
    pub request_timeout_ms: u64,
    /// Added for each MiB of body, begun or whole, in milliseconds. All puts under way share the link, so that a put has the
    /// time for the bodies of all of them; a get of a whole object has it for all gets.
    pub ms_per_mib: u64,
    /// For a put, or a get of a whole object, that shares its link, in milliseconds; a single one always has the time for its own
    /// body.
    pub put_ms_max: u64,
    /// Idle connections that are kept.
    pub idle_connections_max: usize,
    /// Reads every object back after its put, although the cloud answers with a checksum: for stores whose answers
    /// look like an MD5 and are none.
    pub always_read_back: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 5_000,
            request_timeout_ms: 10_000,
            ms_per_mib: 5_000,
            put_ms_max: 1_800_000,
            idle_connections_max: 64,
            always_read_back: false,
        }
    }
}

impl Limits {
    /// The time one attempt with `bytes` of body may take.
    pub fn deadline(&self, bytes: u64) -> Duration {
        let by_size = bytes.div_ceil(1 << 20).saturating_mul(self.ms_per_mib);
        Duration::from_millis(self.request_timeout_ms.saturating_add(by_size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_and_redacted_show_no_secret() {
        let settings = CloudSettings::S3(S3Settings {
            bucket: "b".into(),
            prefix: "/fs/".into(),
            endpoint: None,
            region: "r".into(),
            access_key_id: Some("id".into()),
            access_key_id_env: None,
            access_key_id_file: None,
            secret_access_key: Some(Secret("hush".into())),
            secret_access_key_env: None,
            secret_access_key_file: None,
            session_token: Some(Secret("hush".into())),
            allow_http: false,
            virtual_hosted: false,
            unsigned_payload: false,
            ca_file: None,
            limits: Limits::default(),
        });
        assert!(!format!("{settings:?} {:?}", settings.redacted()).contains("hush"));
        assert_eq!(settings.place(), "s3://b/fs");
        let CloudSettings::S3(s3) = settings.redacted() else { panic!("still S3") };
        assert_eq!(s3.secret_access_key, Some(Secret("(redacted)".into())));
    }

    #[test]
    fn deadlines_grow_with_the_body() {
        let limits = Limits { request_timeout_ms: 1_000, ms_per_mib: 100, ..Limits::default() };
        assert_eq!(limits.deadline(0).as_millis(), 1_000);
        assert_eq!(limits.deadline(1).as_millis(), 1_100);
        assert_eq!(limits.deadline(8 << 20).as_millis(), 1_800);
        assert_eq!(limits.deadline(u64::MAX).as_millis(), 1_000 + ((1 << 44) * 100));
    }
}
