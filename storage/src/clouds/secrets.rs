//! Secrets, and where they come from: the settings, an environment variable or a file; exactly one of the three.
//!
//! Owns: reading them, and never showing them. Does not own: what they open.

use super::{AzureSettings, CloudSettings, OpenError, S3Settings};
use serde::{Deserialize, Serialize};
use std::{env::VarError, fmt, path::PathBuf};

/// A secret. It is written to files as it is, and never shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(redacted)")
    }
}

/// The places a secret (or an id that goes with it) may come from.
pub(super) struct Source<'a> {
    /// The setting's name, such as `secret_access_key`.
    pub name: &'static str,
    pub value: Option<&'a str>,
    pub env: Option<&'a str>,
    pub file: Option<&'a PathBuf>,
}

impl S3Settings {
    pub(super) fn id(&self) -> Source<'_> {
        Source {
            name: "access_key_id",
            value: self.access_key_id.as_deref(),
            env: self.access_key_id_env.as_deref(),
            file: self.access_key_id_file.as_ref(),
        }
    }

    pub(super) fn secret(&self) -> Source<'_> {
        Source {
            name: "secret_access_key",
            value: self.secret_access_key.as_ref().map(|secret| secret.0.as_str()),
            env: self.secret_access_key_env.as_deref(),
            file: self.secret_access_key_file.as_ref(),
        }
    }
}

impl AzureSettings {
    pub(super) fn key(&self) -> Source<'_> {
        Source {
            name: "access_key",
            value: self.access_key.as_ref().map(|key| key.0.as_str()),
            env: self.access_key_env.as_deref(),
            file: self.access_key_file.as_ref(),
        }
    }

    pub(super) fn signature(&self) -> Source<'_> {
        Source {
            name: "sas",
            value: self.sas.as_ref().map(|sas| sas.0.as_str()),
            env: self.sas_env.as_deref(),
            file: self.sas_file.as_ref(),
        }
    }
}

impl CloudSettings {
    /// Why secrets cannot be had from where the settings say they are: every one of them.
    pub(super) fn missing_secrets(&self) -> Vec<OpenError> {
        let sources = match self {
            Self::S3(s3) => vec![s3.id(), s3.secret()],
            Self::Azure(azure) => vec![azure.key(), azure.signature()],
            Self::Gcs(_) | Self::Directory(_) => vec![],
        };
        sources.iter().filter_map(|source| source.resolve().err()).collect()
    }
}

impl Source<'_> {
    /// The setting that holds the secret, or says where it is.
    pub fn setting(&self) -> String {
        match (self.env, self.file) {
            (Some(_), _) => format!("{}_env", self.name),
            (None, Some(_)) => format!("{}_file", self.name),
            (None, None) => self.name.into(),
        }
    }

    /// The secret, if any place is given.
    #[expect(clippy::disallowed_methods, reason = "secrets come from outside")]
    pub fn resolve(&self) -> Result<Option<String>, OpenError> {
        let name = self.name;
        let wrong = |why: String| OpenError::Secret { name: self.setting(), why };
        let (found, place) = match (self.value, self.env, self.file) {
            (None, None, None) => return Ok(None),
            (Some(value), None, None) => (value.to_owned(), "it".into()),
            (None, Some(variable), None) => {
                let place = format!("the environment variable {variable}");
                let found = std::env::var(variable).map_err(|err| match err {
                    VarError::NotPresent => wrong(format!("{place} is not set")),
                    // What it holds may be the secret.
                    VarError::NotUnicode(_) => wrong(format!("{place} holds what is no text")),
                })?;
                (found, place)
            }
            (None, None, Some(path)) => {
                let place = format!("the file {}", path.display());
                let found = std::fs::read_to_string(path).map_err(|err| wrong(format!("{place}: {err}")))?;
                (found.trim_end_matches(['\r', '\n']).to_owned(), place)
            }
            _ => return Err(wrong(format!("give only one of {name}, {name}_env and {name}_file"))),
        };
        if found.is_empty() {
            return Err(wrong(format!("{place} is empty")));
        }
        Ok(Some(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn source<'a>(value: Option<&'a str>, env: Option<&'a str>, file: Option<&'a PathBuf>) -> Source<'a> {
        Source { name: "secret_access_key", value, env, file }
    }

    #[test]
    fn a_secret_comes_from_exactly_one_place() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"from-file\n").unwrap();
        let path = file.path().to_path_buf();
        assert_eq!(source(None, None, None).resolve().unwrap(), None);
        assert_eq!(source(Some("plain"), None, None).resolve().unwrap().as_deref(), Some("plain"));
        assert_eq!(source(None, None, Some(&path)).resolve().unwrap().as_deref(), Some("from-file"));
        assert!(source(None, Some("PATH"), None).resolve().unwrap().is_some());
        let two = source(Some("plain"), None, Some(&path)).resolve().unwrap_err().to_string();
        assert!(two.contains("only one of secret_access_key"), "{two}");
        let unset = source(None, Some("FILERMESH_NO_SUCH_VARIABLE"), None).resolve().unwrap_err().to_string();
        assert!(unset.contains("FILERMESH_NO_SUCH_VARIABLE"), "{unset}");
        assert!(source(Some(""), None, None).resolve().is_err());
        let settings = |source: Source<'_>| source.resolve().unwrap_err().setting().map(str::to_owned);
        assert_eq!(settings(source(Some(""), None, None)).as_deref(), Some("secret_access_key"));
        let unset = source(None, Some("FILERMESH_NO_SUCH_VARIABLE"), None);
        assert_eq!(settings(unset).as_deref(), Some("secret_access_key_env"));
        let absent = PathBuf::from("/nowhere/at/all");
        assert_eq!(settings(source(None, None, Some(&absent))).as_deref(), Some("secret_access_key_file"));
    }

    #[test]
    fn every_secret_that_cannot_be_had_is_told() {
        let mut settings: CloudSettings = serde_json::from_str(
            r#"{"kind": "s3", "bucket": "b", "access_key_id_env": "FILERMESH_NO_ID", "secret_access_key_env": "FILERMESH_NO_KEY"}"#,
        )
        .unwrap();
        let missing = |settings: &CloudSettings| -> Vec<String> {
            settings.missing_secrets().iter().map(OpenError::to_string).collect()
        };
        let told = missing(&settings);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("FILERMESH_NO_ID") && told[1].contains("FILERMESH_NO_KEY"), "{told:?}");
        let CloudSettings::S3(s3) = &mut settings else { panic!("S3") };
        (s3.access_key_id, s3.access_key_id_env) = (Some("id".into()), None);
        assert_eq!(missing(&settings).len(), 1);
    }

    #[test]
    fn files_that_cannot_be_read_are_told_beside_secrets_by_their_settings() {
        let dir = tempfile::tempdir().unwrap();
        let told = |json: String| -> Vec<String> {
            let settings: CloudSettings = serde_json::from_str(&json).unwrap();
            let found = super::super::check(&settings, "a");
            found.iter().map(|error| error.setting().unwrap_or("none").to_owned()).collect()
        };
        let absent = dir.path().join("absent").display().to_string();
        let azure = format!(
            r#"{{"kind": "azure", "account": "acc", "container": "files", "access_key_env": "FILERMESH_NO_KEY", "ca_file": "{absent}"}}"#
        );
        assert_eq!(told(azure), ["access_key_env", "ca_file"]);
        let gcs = format!(r#"{{"kind": "gcs", "bucket": "files", "service_account_path": "{absent}"}}"#);
        assert_eq!(told(gcs), ["service_account_path"]);
        let directory = format!(r#"{{"kind": "directory", "path": "{absent}", "prefix": "../up"}}"#);
        assert_eq!(told(directory), ["prefix", "path"]);
        let no_key = r#"{"kind": "azure", "account": "acc", "container": "files", "access_key": "no base64"}"#;
        assert_eq!(told(no_key.into()), ["access_key"]);
    }
}
