//! What `filer sign` hands to a new site: one file with its certificate, the authority's, and what it must know.
//!
//! The file is TOML, with the certificates as PEM in it, so that tools that look for PEM find them. It holds no secret.

use super::CliError;
use crate::config::{CloudsSettings, SitePeer};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Version of the form.
const BUNDLE_VERSION: u32 = 1;

/// The file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bundle {
    version: u32,
    /// The new site's name.
    pub name: String,
    /// The new filer's id, in hexadecimal.
    pub filer: String,
    /// The CloudFS's id, in hexadecimal.
    pub cloudfs: String,
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub ca: String,
    /// Filers that the new one can ask to be let in.
    pub peers: Vec<SitePeer>,
    /// Without secrets.
    pub clouds: CloudsSettings,
}

impl Bundle {
    pub fn new(
        (name, filer, cloudfs): (&str, mesh::FilerId, String),
        (certificate, ca): (String, String),
        peers: Vec<SitePeer>,
        clouds: &CloudsSettings,
    ) -> Self {
        let clouds =
            CloudsSettings { primary: clouds.primary.without_secrets(), secondary: clouds.secondary.without_secrets() };
        let (name, filer) = (name.to_string(), filer.to_string());
        Self { version: BUNDLE_VERSION, name, filer, cloudfs, certificate, ca, peers, clouds }
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        let name = &self.name;
        let text = toml::to_string_pretty(self).expect("plain data has a TOML form");
        format!(
            "# The certificate of the filer {name}, and what it needs to join its CloudFS. It holds no secret.\n\
             # At the new site: filer init {name} --dir DIR --certificate FILE; at one that renews: filer renew --dir DIR --certificate FILE\n{text}"
        )
    }

    /// Reads the file's text.
    pub fn read(text: &str, path: &Path) -> Result<Self, CliError> {
        let refused =
            |what: String| CliError::Usage(format!("{} is not what filer sign makes: {what}", path.display()));
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| refused(e.message().into()))?;
        match table.get("version").and_then(toml::Value::as_integer) {
            Some(version) if version == i64::from(BUNDLE_VERSION) => {}
            Some(version) => {
                return Err(refused(format!("it has version {version}, and this program reads {BUNDLE_VERSION}")));
            }
            None => return Err(refused("it has no version".into())),
        }
        table.try_into().map_err(|e: toml::de::Error| refused(e.message().into()))
    }
}
