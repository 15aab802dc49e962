//! Who a filer is: its certificate, and the authority of its CloudFS that signs it.
//!
//! Every CloudFS has an authority of its own, made once. A new filer makes a key that never leaves it and a request;
//! the authority answers with a certificate that carries the filer's id and its name, and that fact is what peers
//! believe. The CloudFS's id stands in the authority's name, so that a certificate of another CloudFS is recognised
//! as such instead of being just "unknown".
//!
//! ```text
//! authority's folder: ca.pem  ca.key(0600)
//! filer's folder:     ca.pem  filer.pem  filer.key(0600)  (filer.csr, filer.key.next(0600))
//! ```
//!
//! Owns: keys, requests, certificates and their files. Does not own: the id's choice, nor who was removed.

#![expect(clippy::disallowed_methods, reason = "an identity is files in a site's directory")]

mod ca;
mod files;
mod names;
#[cfg(test)]
pub(in crate::net) mod tests;

pub use crate::peers::PeerName;
pub use ca::{MeshCa, SigningRequest};
pub use names::{cloudfs_of, peer_name, public_key, serial, server_name, validity_s};
pub(in crate::net) use names::{issuer, subject};

use crate::FilerId;
use rustls::{RootCertStore, pki_types as pki, server::ParsedCertificate, sign::CertifiedKey};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The authority's certificate, in the authority's folder and in every filer's.
pub const CA_CERTIFICATE_FILE: &str = "ca.pem";
/// The authority's key.
pub const CA_KEY_FILE: &str = "ca.key";
/// A filer's certificate.
pub const CERTIFICATE_FILE: &str = "filer.pem";
/// A filer's key.
pub const KEY_FILE: &str = "filer.key";
/// A filer's key to be, from the request for a certificate with a new key until that certificate is in place.
pub const NEXT_KEY_FILE: &str = "filer.key.next";
/// A filer's request for a certificate.
pub const REQUEST_FILE: &str = "filer.csr";

/// What is wrong with an identity, a request or an authority.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file could not be read.
    #[error("{} cannot be read: {source}. {todo}", path.display())]
    Read { path: PathBuf, source: std::io::Error, todo: &'static str },
    /// A file could not be written.
    #[error("{} cannot be written: {source}. {todo}", path.display())]
    Write { path: PathBuf, source: std::io::Error, todo: &'static str },
    /// A file's content does not fit.
    #[error("{} does not fit: {what}. {todo}", path.display())]
    Content { path: PathBuf, what: String, todo: &'static str },
    /// A key and a certificate of two requests.
    #[error(
        "{} is not the key of {}: they belong to two requests. Put back the one of them that was replaced, or have a certificate made for this key (filer renew)",
        key.display(),
        certificate.display()
    )]
    WrongKey { key: PathBuf, certificate: PathBuf },
    /// A CloudFS id that cannot stand in a certificate.
    #[error("{id:?} cannot be the id of a CloudFS: use 1 to 40 letters, digits, '.', '_' and '-'")]
    CloudFs { id: String },
    /// A filer's name that cannot stand in a certificate.
    #[error("{name:?} cannot be the name of a filer: use 1 to 63 letters, digits, '.', '_' and '-'")]
    Name { name: String },
    /// A request that cannot be signed.
    #[error("the signing request was refused: {what}. Make a new one at the filer that is to join")]
    Request { what: String },
    /// The life asked for a certificate is out of range.
    #[error("a certificate cannot be valid for {days} days: choose 1 to {days_max}")]
    Validity { days: u32, days_max: u32 },
    /// The cryptography library failed.
    #[error(
        "{doing} failed: {what}. This is a fault of the program or of its random numbers; try again, then report it"
    )]
    Crypto { doing: &'static str, what: String },
}

/// Who this filer is, with the proof.
#[derive(Clone)]
pub struct Identity {
    id: FilerId,
    name: String,
    cloudfs: String,
    serial: String,
    not_after_s: i64,
    ca: pki::CertificateDer<'static>,
    certified: Arc<CertifiedKey>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} {:?} of CloudFS {:?})", self.id, self.name, self.cloudfs)
    }
}

impl Identity {
    /// Reads `ca.pem`, `filer.pem` and `filer.key` from `folder` and checks that the three belong together.
    ///
    /// An expired certificate is read without complaint: the filer can still serve what it has, and peers say clearly
    /// why they refuse it; see [`Identity::not_after_s`].
    pub fn load(folder: &Path) -> Result<Self, IdentityError> {
        const COPY: &str = "Copy ca.pem and filer.pem here from where the request was signed";
        const AGAIN: &str = "Make a new request at this filer, have it signed, and put the answer here as filer.pem";
        let (ca_path, ca_pem) = files::read(folder, CA_CERTIFICATE_FILE, COPY)?;
        let (chain_path, chain_pem) = files::read(folder, CERTIFICATE_FILE, COPY)?;
        let (key_path, key_pem) = files::read(folder, KEY_FILE, AGAIN)?;
        files::warn_if_others_can_read(&key_path);

        let unfit = |path: &Path, todo| {
            let path = path.to_owned();
            move |what: String| IdentityError::Content { path, what, todo }
        };
        let ca = files::certificate(&ca_pem).map_err(unfit(&ca_path, COPY))?;
        let cloudfs = names::cloudfs_of(&ca).map_err(unfit(&ca_path, COPY))?;
        let chain = files::certificates(&chain_pem).map_err(unfit(&chain_path, COPY))?;
        let leaf = chain.first().expect("a chain that was read has a certificate");
        let name = names::peer_name(leaf).map_err(unfit(&chain_path, AGAIN))?;
        let (not_before_s, not_after_s) = names::validity_s(leaf).map_err(unfit(&chain_path, AGAIN))?;
        signed_by(&ca, leaf, &chain[1..], not_before_s).map_err(unfit(&chain_path, AGAIN))?;
        let serial = names::serial(leaf).map_err(unfit(&chain_path, AGAIN))?;
        let certify = |pem: &str, path: &Path| {
            let key = files::key(pem).map_err(unfit(path, AGAIN))?;
            CertifiedKey::from_der(chain.clone(), key, &super::tls::provider()).map_err(|e| match e {
                rustls::Error::InconsistentKeys(_) => {
                    IdentityError::WrongKey { key: path.to_owned(), certificate: chain_path.clone() }
                }
                e => unfit(path, AGAIN)(format!("it cannot be the key of {CERTIFICATE_FILE}: {e}")),
            })
        };
        // A renewal with a new key puts the certificate in place first, then the key.
        let next = files::read(folder, NEXT_KEY_FILE, AGAIN).ok();
        let certified = match (certify(&key_pem, &key_path), next) {
            (Err(e), Some((next_path, next_pem))) => certify(&next_pem, &next_path).map_err(|_| e)?,
            (certified, _) => certified?,
        };
        let certified = Arc::new(certified);
        Ok(Self { id: name.id, name: name.name, cloudfs, serial, not_after_s, ca, certified })
    }

    /// Finishes a renewal that was cut off between its certificate and its key; harmless otherwise.
    pub fn settle(folder: &Path) -> Result<(), IdentityError> {
        const AGAIN: &str = "Make a new request at this filer, have it signed, and put the answer here as filer.pem";
        if !folder.join(NEXT_KEY_FILE).exists() {
            return Ok(());
        }
        let (_, chain) = files::read(folder, CERTIFICATE_FILE, AGAIN)?;
        let (next_path, next) = files::read(folder, NEXT_KEY_FILE, AGAIN)?;
        let unfit = |what| IdentityError::Content { path: next_path.clone(), what, todo: AGAIN };
        let chain = files::certificates(&chain).map_err(unfit)?;
        let key = files::key(&next).map_err(unfit)?;
        match CertifiedKey::from_der(chain, key, &super::tls::provider()) {
            Ok(_) => files::rename(folder, NEXT_KEY_FILE, KEY_FILE),
            Err(_) => Ok(()),
        }
    }

    /// This filer.
    pub fn id(&self) -> FilerId {
        self.id
    }

    /// This filer's name, as its certificate has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The CloudFS it belongs to.
    pub fn cloudfs(&self) -> &str {
        &self.cloudfs
    }

    /// The serial number of its certificate.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// When its certificate ends, in seconds since the Unix epoch.
    pub fn not_after_s(&self) -> i64 {
        self.not_after_s
    }

    /// Whether it is the same filer's, by the same authority: one can take the other's place.
    pub(super) fn is_another_of(&self, other: &Self) -> bool {
        (self.id, &self.name, &self.ca) == (other.id, &other.name, &other.ca)
    }

    /// The certificates that this filer trusts: its authority's alone.
    pub(super) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).expect("the authority's certificate was checked when it was loaded");
        roots
    }

    /// The chain and key that it shows to peers.
    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

/// Checks that `ca` signed `leaf`, as of the second `at_s`.
fn signed_by(
    ca: &pki::CertificateDer<'_>,
    leaf: &pki::CertificateDer<'_>,
    between: &[pki::CertificateDer<'_>],
    at_s: i64,
) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone().into_owned()).map_err(|e| format!("{CA_CERTIFICATE_FILE} is no authority: {e}"))?;
    let at = pki::UnixTime::since_unix_epoch(std::time::Duration::from_secs(at_s.max(0) as u64));
    let algorithms = super::tls::provider().signature_verification_algorithms.all;
    let parsed = ParsedCertificate::try_from(leaf).map_err(|e| e.to_string())?;
    rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &roots, between, at, algorithms).map_err(|_| {
        format!("it was signed by {:?}, not by {CA_CERTIFICATE_FILE} ({:?})", names::issuer(leaf), names::subject(ca))
    })
}
