//! The authority of a CloudFS, and the requests that it signs.

use super::{CA_CERTIFICATE_FILE, CA_KEY_FILE, IdentityError, KEY_FILE, REQUEST_FILE, files, names};
use crate::{FilerId, clock::Clock};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use std::{path::Path, time::Duration};

/// How long an authority lives, in days.
const CA_DAYS: u32 = 20 * 365;
/// Longest life of a filer's certificate, in days.
const FILER_DAYS_MAX: u32 = 10 * 365;
/// How far a certificate's start lies before its signing, so that a slow clock elsewhere does not refuse it, in seconds.
const CLOCK_SLACK_S: u64 = 3_600;
/// Largest signing request that is read, in bytes.
const REQUEST_BYTES_MAX: usize = 16 << 10;

/// The authority that signs the certificates of one CloudFS's filers.
pub struct MeshCa {
    cloudfs: String,
    cert_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a filer that is to join makes: a key that stays with it, and the request that travels.
pub struct SigningRequest {
    /// Secret: stays at the filer, as `filer.key`.
    pub key_pem: String,
    /// To be signed by [`MeshCa::sign`].
    pub csr_pem: String,
}

impl SigningRequest {
    /// A new key and the request of a certificate for it, under the filer's `name`.
    pub fn create(name: &str) -> Result<Self, IdentityError> {
        Self::with(name, KeyPair::generate().map_err(crypto("making a key"))?)
    }

    /// A request for another certificate of the key in `key_pem`, as of a filer that renews its own.
    pub fn of_key(name: &str, key_pem: &str) -> Result<Self, IdentityError> {
        Self::with(name, KeyPair::from_pem(key_pem).map_err(crypto("reading the filer's key"))?)
    }

    fn with(name: &str, key: KeyPair) -> Result<Self, IdentityError> {
        if !names::is_filer_name(name) {
            return Err(IdentityError::Name { name: name.into() });
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let request = params.serialize_request(&key).map_err(crypto("making a signing request"))?;
        let csr_pem = request.pem().map_err(crypto("writing a signing request"))?;
        Ok(Self { key_pem: key.serialize_pem(), csr_pem })
    }

    /// Writes `filer.key` (mode 0600) and `filer.csr` into `folder`.
    pub fn save(&self, folder: &Path) -> Result<(), IdentityError> {
        files::write(folder, KEY_FILE, &self.key_pem, true)?;
        files::write(folder, REQUEST_FILE, &self.csr_pem, false).map(drop)
    }
}

impl MeshCa {
    /// A new authority for the CloudFS `cloudfs`.
    pub fn create(cloudfs: &str, clock: &dyn Clock) -> Result<Self, IdentityError> {
        if !names::is_cloudfs_id(cloudfs) {
            return Err(IdentityError::CloudFs { id: cloudfs.into() });
        }
        let key = KeyPair::generate().map_err(crypto("making a key"))?;
        let mut params = valid_for(CA_DAYS, clock);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, names::ca_name(cloudfs));
        let cert_pem = params.self_signed(&key).map_err(crypto("signing the authority's certificate"))?.pem();
        let key_pem = key.serialize_pem();
        Ok(Self { cloudfs: cloudfs.into(), cert_pem, key_pem, issuer: Issuer::new(params, key) })
    }

    /// Reads `ca.pem` and `ca.key` from `folder`.
    pub fn load(folder: &Path) -> Result<Self, IdentityError> {
        const TODO: &str = "Give the folder in which the CloudFS's authority was made, or restore it from a copy";
        let (cert_path, cert_pem) = files::read(folder, CA_CERTIFICATE_FILE, TODO)?;
        let (key_path, key_pem) = files::read(folder, CA_KEY_FILE, TODO)?;
        files::warn_if_others_can_read(&key_path);
        let cert_unfit = |what| IdentityError::Content { path: cert_path.clone(), what, todo: TODO };
        let key_unfit = |what| IdentityError::Content { path: key_path.clone(), what, todo: TODO };
        let der = files::certificate(&cert_pem).map_err(cert_unfit)?;
        let cloudfs = names::cloudfs_of(&der).map_err(cert_unfit)?;
        let secret = files::key(&key_pem).map_err(key_unfit)?;
        rustls::sign::CertifiedKey::from_der(vec![der.clone()], secret, &crate::net::tls::provider())
            .map_err(|e| key_unfit(format!("it is not the key of {CA_CERTIFICATE_FILE}: {e}")))?;
        let key = KeyPair::from_pem(&key_pem).map_err(|e| key_unfit(e.to_string()))?;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| cert_unfit(e.to_string()))?;
        Ok(Self { cloudfs, cert_pem, key_pem, issuer })
    }

    /// Writes `ca.pem` and `ca.key` (mode 0600) into `folder`, where neither may exist yet.
    pub fn save(&self, folder: &Path) -> Result<(), IdentityError> {
        files::write(folder, CA_KEY_FILE, &self.key_pem, true)?;
        files::write(folder, CA_CERTIFICATE_FILE, &self.cert_pem, false).map(drop)
    }

    /// The CloudFS whose authority this is.
    pub fn cloudfs(&self) -> &str {
        &self.cloudfs
    }

    /// The authority's certificate, which every filer gets as `ca.pem`.
    pub fn certificate_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The certificate (PEM) that makes the request's sender the filer `id`, under the name that it asked for, from
    /// an hour ago until `valid_days` from now. Its serial number is drawn at random.
    ///
    /// Nothing but the name and the public key is taken from the request: no right that it asks for is granted.
    pub fn sign(
        &self,
        csr_pem: &str,
        id: FilerId,
        valid_days: u32,
        clock: &dyn Clock,
    ) -> Result<String, IdentityError> {
        let refused = |what: String| IdentityError::Request { what };
        if !(1..=FILER_DAYS_MAX).contains(&valid_days) {
            return Err(IdentityError::Validity { days: valid_days, days_max: FILER_DAYS_MAX });
        }
        if csr_pem.len() > REQUEST_BYTES_MAX {
            return Err(refused(format!("it is larger than {REQUEST_BYTES_MAX} bytes")));
        }
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(|e| refused(e.to_string()))?;
        let name = match request.params.distinguished_name.get(&DnType::CommonName) {
            Some(rcgen::DnValue::Utf8String(name)) if names::is_filer_name(name) => name.clone(),
            Some(rcgen::DnValue::PrintableString(name)) if names::is_filer_name(name.as_str()) => name.as_str().into(),
            other => return Err(refused(format!("its name {other:?} cannot be a filer's"))),
        };
        let dns = names::dns_name(id).try_into().expect("hexadecimal digits and a fixed suffix are ASCII");
        request.params = valid_for(valid_days, clock);
        request.params.serial_number = Some(serial_number()?);
        request.params.is_ca = IsCa::ExplicitNoCa;
        request.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        request.params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        request.params.subject_alt_names = vec![SanType::DnsName(dns)];
        request.params.use_authority_key_identifier_extension = true;
        request.params.distinguished_name.push(DnType::CommonName, name);
        Ok(request.signed_by(&self.issuer).map_err(crypto("signing a certificate"))?.pem())
    }
}

/// A number that no other certificate has: 128 bits, of which the first make it positive and of full length.
fn serial_number() -> Result<SerialNumber, IdentityError> {
    let mut bytes = [0; 16];
    let drawn = crate::net::tls::provider().secure_random.fill(&mut bytes);
    drawn.map_err(|_| IdentityError::Crypto { doing: "drawing a serial number", what: "no random numbers".into() })?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// An empty certificate that ends `days` from now.
fn valid_for(days: u32, clock: &dyn Clock) -> CertificateParams {
    let now_s = clock.wall_ns() / 1_000_000_000;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = epoch + Duration::from_secs(now_s.saturating_sub(CLOCK_SLACK_S));
    params.not_after = epoch + Duration::from_secs(now_s + u64::from(days) * 86_400);
    params
}

fn crypto(doing: &'static str) -> impl Fn(rcgen::Error) -> IdentityError {
    move |e| IdentityError::Crypto { doing, what: e.to_string() }
}
