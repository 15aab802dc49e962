//! What the authority has signed: one file for each name, in `authority/issued`.
//!
//! A name belongs to one filer for ever; its file says which, and which certificates it got. It is written before an
//! answer leaves, and as a whole, so that a signing that was cut off can simply be done again.

use super::{CliError, init::read_text};
use crate::config::{
    SiteDir, SiteError,
    site_dir::{make_dir, write_new, write_over},
};
use mesh::{FilerId, net::identity};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Version of the form.
const VERSION: u32 = 1;

/// What was signed under one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Issued {
    version: u32,
    pub name: String,
    /// In hexadecimal.
    filer: String,
    /// The oldest first.
    #[serde(default)]
    pub certificates: Vec<IssuedCertificate>,
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IssuedCertificate {
    /// Its number, in hexadecimal.
    pub serial: String,
    /// SHA-256 of its public key, in hexadecimal.
    pub key: String,
    /// Its last second, since the Unix epoch.
    pub ends_s: i64,
    #[serde(default)]
    pub revoked: bool,
}

impl IssuedCertificate {
    /// What the record keeps of a certificate (PEM) that the authority has just signed.
    pub fn of(certificate: &str) -> Result<Self, CliError> {
        let unfit = |what: String| CliError::Identity(mesh::net::IdentityError::Request { what });
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|e| unfit(e.to_string()))?;
        let key = ring::digest::digest(&ring::digest::SHA256, &identity::public_key(&der).map_err(unfit)?);
        Ok(Self {
            serial: identity::serial(&der).map_err(unfit)?,
            key: key.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
            ends_s: identity::validity_s(&der).map_err(unfit)?.1,
            revoked: false,
        })
    }
}

fn folder(dir: &SiteDir) -> PathBuf {
    dir.authority().join("issued")
}

impl Issued {
    /// The record of a name that has none yet.
    pub fn new(name: &str, filer: FilerId) -> Self {
        Self { version: VERSION, name: name.into(), filer: filer.to_string(), certificates: vec![] }
    }

    /// Whose name it is.
    pub fn filer(&self) -> FilerId {
        self.filer.parse().expect("it was checked when it was read, or written from an id")
    }

    /// What was signed under `name`; `None` where nothing was.
    pub fn find(dir: &SiteDir, name: &str) -> Result<Option<Self>, CliError> {
        let path = folder(dir).join(name);
        if path.exists() { Self::read(&path).map(Some) } else { Ok(None) }
    }

    /// Everything that was ever signed.
    pub fn all(dir: &SiteDir) -> Result<Vec<Self>, CliError> {
        let path = folder(dir);
        if !path.exists() {
            return Ok(vec![]);
        }
        let unreadable = |source| SiteError::File { path: path.clone(), done: "read", source };
        let mut all = vec![];
        for entry in std::fs::read_dir(&path).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            // A copy that was cut off while it was written.
            if path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b".")) {
                all.push(Self::read(&path)?);
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    fn read(path: &Path) -> Result<Self, CliError> {
        let unfit = |what: String| SiteError::Content { path: path.into(), what };
        let issued: Self = toml::from_str(&read_text(path)?).map_err(|e| unfit(e.message().into()))?;
        if issued.version != VERSION {
            return Err(unfit(format!("it has version {}, and this program reads {VERSION}", issued.version)).into());
        }
        match issued.filer.parse::<FilerId>() {
            Ok(id) if id.0 != 0 => Ok(issued),
            _ => Err(unfit("its filer's id is none; restore the file from a copy".into()).into()),
        }
    }

    /// Writes the record: as a new one (`first`, refused if the name has one meanwhile), or over the one before.
    pub fn write(&self, dir: &SiteDir, first: bool) -> Result<(), CliError> {
        make_dir(&folder(dir))?;
        let path = folder(dir).join(&self.name);
        let text = toml::to_string(self).expect("plain data has a TOML form");
        if first {
            write_new(&path, &text, 0o600)?
        } else {
            write_over(&path, &text, 0o600)?
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_a_foreign_one_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = SiteDir::new(root.path()).unwrap();
        assert_eq!(Issued::find(&dir, "fra").unwrap(), None);
        assert_eq!(Issued::all(&dir).unwrap(), []);
        let mut issued = Issued::new("fra", FilerId(0x2b));
        issued.write(&dir, true).unwrap();
        assert!(issued.write(&dir, true).is_err(), "a name is taken once");
        let serial = "4f00".to_string();
        issued.certificates.push(IssuedCertificate { serial, key: "00".into(), ends_s: 7, revoked: true });
        issued.write(&dir, false).unwrap();
        assert_eq!(Issued::find(&dir, "fra").unwrap(), Some(issued.clone()));
        assert_eq!((Issued::all(&dir).unwrap(), issued.filer()), (vec![issued], FilerId(0x2b)));
        let path = folder(&dir).join("fra");
        for wrong in
            ["0000002b\n", "version = 9\nname = \"fra\"\nfiler = \"2b\"", "version = 1\nname = \"a\"\nfiler = \"x\""]
        {
            std::fs::write(&path, wrong).unwrap();
            assert!(matches!(Issued::find(&dir, "fra"), Err(CliError::Site(SiteError::Content { .. }))), "{wrong}");
        }
    }
}
