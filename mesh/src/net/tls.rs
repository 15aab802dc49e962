//! Who may open a session: mutual TLS 1.3 under the CloudFS's own authority.
//!
//! Both sides show their certificate, and each checks the other's: signed by our authority, in its time, naming a
//! filer, of a filer that was not removed, not revoked itself, and (when we dial) of the filer that was dialled. Each
//! connection gets its own small configuration, so that a refusal can be told with the address it came from and kept
//! for the caller.
//! Sessions are never resumed: a resumed one would skip these checks, and a removed filer would stay.
//!
//! Owns: the checks, their log lines and counts. Does not own: what happens to sessions that stand already.

use super::{
    identity::{self, Identity, PeerName, server_name},
    stats::{Counts, Refusal},
};
use crate::FilerId;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::SingleCertAndKey,
};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use tokio::time::Instant;

/// What both sides must want to speak.
pub const ALPN: &[u8] = b"filermesh/1";

/// A refusal that is made again and again is told so often: a removed filer that still runs dials every few seconds.
const REFUSAL_TOLD_EVERY: Duration = Duration::from_secs(600);
/// Refusals that are remembered for that.
const REFUSALS_KNOWN_MAX: usize = 256;

/// The cryptography in use: ring, named here so that no global default is needed.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())).clone()
}

/// Makes the TLS configuration of each connection.
pub(super) struct Tls {
    /// As of the last renewal.
    identity: Mutex<Arc<Identity>>,
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    removed: Mutex<BTreeSet<FilerId>>,
    /// Serial numbers.
    revoked: Mutex<BTreeSet<String>>,
    refusals: Mutex<Refusals>,
    counts: Arc<Counts>,
}

/// Who was refused lately, why, and when that was told.
#[derive(Default)]
struct Refusals(BTreeMap<(String, Refusal), Instant>);

impl Refusals {
    /// Whether a refusal is to be told: one that is made again and again is told now and then.
    fn is_news(&mut self, now: Instant, who: &str, why: Refusal) -> bool {
        self.0.retain(|_, told| now.duration_since(*told) < REFUSAL_TOLD_EVERY);
        if self.0.len() >= REFUSALS_KNOWN_MAX {
            // Of more at one time some are told again.
            self.0.clear();
        }
        match self.0.entry((who.into(), why)) {
            Entry::Vacant(place) => {
                place.insert(now);
                true
            }
            Entry::Occupied(_) => false,
        }
    }
}

/// Why the peer of one connection was refused, if it was.
#[derive(Default)]
pub(super) struct Verdict(OnceLock<String>);

impl Verdict {
    /// The refusal, in words.
    pub fn refused(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

impl Tls {
    pub fn new(identity: Identity, counts: Arc<Counts>) -> Result<Arc<Self>, String> {
        let roots = Arc::new(identity.roots());
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(|e| e.to_string())?;
        let (removed, revoked, refusals) = (Mutex::default(), Mutex::default(), Mutex::default());
        let identity = Mutex::new(Arc::new(identity));
        Ok(Arc::new(Self { identity, roots, clients, removed, revoked, refusals, counts }))
    }

    /// This filer.
    pub fn identity(&self) -> Arc<Identity> {
        self.identity.lock().expect("no holder panics").clone()
    }

    /// Shows another certificate of this filer from the next connection on.
    pub fn renew(&self, identity: Identity) -> Result<(), String> {
        let mut current = self.identity.lock().expect("no holder panics");
        if !identity.is_another_of(&current) {
            return Err(format!("it is of {identity:?}, and this is {current:?}, or it is of another authority"));
        }
        *current = Arc::new(identity);
        Ok(())
    }

    /// Replaces the set of filers that were removed from the CloudFS.
    pub fn set_removed(&self, removed: BTreeSet<FilerId>) {
        *self.removed.lock().expect("no holder panics") = removed;
    }

    /// Whether `id` was removed.
    pub fn is_removed(&self, id: FilerId) -> bool {
        self.removed.lock().expect("no holder panics").contains(&id)
    }

    /// Replaces the list of certificates, by serial number, that are refused before their end.
    pub fn set_revoked(&self, revoked: BTreeSet<String>) {
        *self.revoked.lock().expect("no holder panics") = revoked;
    }

    /// Whether the certificate with this serial number was revoked.
    pub fn is_revoked(&self, serial: &str) -> bool {
        self.revoked.lock().expect("no holder panics").contains(serial)
    }

    /// The configuration for one connection that comes from `from`.
    pub fn server(self: &Arc<Self>, from: SocketAddr) -> Result<(ServerConfig, Arc<Verdict>), Error> {
        let check = Arc::new(Check { tls: self.clone(), at: from, expected: None, verdict: Arc::default() });
        let verdict = check.verdict.clone();
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(check)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(self.identity().certified())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok((config, verdict))
    }

    /// The configuration for one connection to `expected` at `at`.
    pub fn client(self: &Arc<Self>, expected: FilerId, at: SocketAddr) -> Result<(ClientConfig, Arc<Verdict>), Error> {
        let check = Arc::new(Check { tls: self.clone(), at, expected: Some(expected), verdict: Arc::default() });
        let verdict = check.verdict.clone();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(check)
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(self.identity().certified())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok((config, verdict))
    }
}

/// The check of the one peer of one connection.
struct Check {
    tls: Arc<Tls>,
    at: SocketAddr,
    /// Who was dialled; `None` where the peer dialled us.
    expected: Option<FilerId>,
    verdict: Arc<Verdict>,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Check({} at {})", self.tls.identity().id(), self.at)
    }
}

impl Check {
    /// The checks that follow once the chain is known to be good.
    fn holder(&self, certificate: &CertificateDer<'_>) -> Result<PeerName, (Refusal, String, CertificateError)> {
        let peer = identity::peer_name(certificate)
            .map_err(|what| (Refusal::Malformed, what, CertificateError::BadEncoding))?;
        if self.tls.is_removed(peer.id) {
            let what = "this filer was removed from the CloudFS".to_owned();
            return Err((Refusal::Removed, what, CertificateError::ApplicationVerificationFailure));
        }
        let serial =
            identity::serial(certificate).map_err(|what| (Refusal::Malformed, what, CertificateError::BadEncoding))?;
        if self.tls.is_revoked(&serial) {
            let what = format!("it was revoked (serial number {serial}); have a new one signed for that filer");
            return Err((Refusal::Revoked, what, CertificateError::Revoked));
        }
        if let Some(expected) = self.expected.filter(|e| *e != peer.id) {
            let what = format!("filer {expected} was dialled and {} answered: check its address", peer.id);
            return Err((Refusal::OtherFiler, what, CertificateError::NotValidForName));
        }
        Ok(peer)
    }

    fn check(&self, certificate: &CertificateDer<'_>, chain: Result<(), Error>) -> Result<(), Error> {
        let refused = match chain {
            Ok(()) => self.holder(certificate).map(drop),
            Err(e) => {
                let (why, what) = self.explain(certificate, &e);
                return Err(self.refuse(certificate, why, what, e));
            }
        };
        refused.map_err(|(why, what, e)| self.refuse(certificate, why, what, Error::InvalidCertificate(e)))
    }

    fn explain(&self, certificate: &CertificateDer<'_>, e: &Error) -> (Refusal, String) {
        use CertificateError as C;
        match e {
            Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
                let (issuer, ours) = (identity::issuer(certificate), self.tls.identity());
                let ours = ours.cloudfs();
                (Refusal::Foreign, format!("it was signed by {issuer:?}, not by the authority of our CloudFS {ours:?}"))
            }
            Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
                (Refusal::Expired, format!("{e}; have a new one signed for that filer"))
            }
            Error::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. }) => {
                (Refusal::NotYetValid, format!("{e}; compare the clocks of the two filers"))
            }
            _ => (Refusal::Malformed, e.to_string()),
        }
    }

    fn refuse(&self, certificate: &CertificateDer<'_>, why: Refusal, what: String, e: Error) -> Error {
        self.tls.counts.refuse(why);
        let who = match identity::peer_name(certificate) {
            Ok(peer) => format!("{} ({})", peer.id, peer.name),
            Err(_) => format!("{:?}", identity::subject(certificate)),
        };
        let is_news = self.tls.refusals.lock().expect("no holder panics").is_news(Instant::now(), &who, why);
        if is_news {
            tracing::warn!(peer = %who, from = %self.at, why = ?why, detail = %what, "refused a peer's certificate");
        } else {
            tracing::debug!(peer = %who, from = %self.at, why = ?why, detail = %what, "refused a peer's certificate again");
        }
        // One handshake checks one certificate; were it two, the first refusal is the one to tell.
        let _ = self.verdict.0.set(format!("the certificate of {who} at {} was refused: {what}", self.at));
        e
    }
}

impl ClientCertVerifier for Check {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Without hints a foreign filer shows its certificate too, and can be told why it is refused.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = self.tls.clients.verify_client_cert(end_entity, intermediates, now).map(drop);
        self.check(end_entity, chain).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls.clients.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls.clients.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.tls.clients.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Check {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = provider().signature_verification_algorithms.all;
        let chain = ParsedCertificate::try_from(end_entity).and_then(|parsed| {
            let (roots, between) = (&self.tls.roots, intermediates);
            rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, roots, between, now, algorithms)
        });
        // The name that was dialled is a function of the id, which `holder` compares.
        self.check(end_entity, chain).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls.clients.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.tls.clients.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.tls.clients.supported_verify_schemes()
    }
}

/// The name to dial `id` under, as text.
pub(super) fn dialled_name(id: FilerId) -> String {
    server_name(id).to_str().into_owned()
}

/// What QUIC adds to the number of a TLS alert (RFC 9001, 4.8).
const ALERT_BASE: u64 = 0x100;
/// The alert `access_denied`: a good certificate, whose holder is not let in. Peers say so to a removed filer alone.
const ALERT_ACCESS_DENIED: u64 = 49;

/// Whether this error code says that the peer holds us for removed from the CloudFS.
pub(super) fn says_removed(code: u64) -> bool {
    code == ALERT_BASE + ALERT_ACCESS_DENIED
}

/// What a TLS alert from a peer means for us, where it is about our certificate. Alerts: RFC 8446, 6.2.
pub(super) fn explain_alert(code: u64) -> Option<&'static str> {
    match code.checked_sub(ALERT_BASE)? {
        42 => Some("the peer refused this filer's certificate: it is not a filer's, or not that of who it dialled"),
        44 => Some("the peer refused this filer's certificate: it was revoked; have a new one signed"),
        45 => Some(
            "the peer refused this filer's certificate: it has expired, or a clock is wrong; have a new one signed",
        ),
        ALERT_ACCESS_DENIED => {
            Some("the peer refused this filer's certificate: this filer was removed from the CloudFS")
        }
        48 | 51 => Some("the peer refused this filer's certificate: it belongs to another CloudFS"),
        116 => Some("the peer refused this filer: it showed no certificate"),
        120 => Some("the peer does not speak the filermesh protocol"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_is_made_again_and_again_is_told_now_and_then() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let mut is_news = |after: Duration, who: &str, why| refusals.is_news(start + after, who, why);
        assert!(is_news(Duration::ZERO, "nyc", Refusal::Removed));
        assert!(!is_news(Duration::from_secs(2), "nyc", Refusal::Removed));
        assert!(is_news(Duration::from_secs(2), "nyc", Refusal::Revoked), "for another reason");
        assert!(is_news(Duration::from_secs(2), "sgp", Refusal::Removed), "somebody else");
        assert!(is_news(REFUSAL_TOLD_EVERY, "nyc", Refusal::Removed));
        for stranger in 0..2 * REFUSALS_KNOWN_MAX {
            assert!(is_news(REFUSAL_TOLD_EVERY, &format!("stranger {stranger}"), Refusal::Foreign));
        }
        assert!(refusals.0.len() <= REFUSALS_KNOWN_MAX);
    }
}
