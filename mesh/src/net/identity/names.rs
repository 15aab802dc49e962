//! What a certificate says about its holder: a filer's id and name, or a CloudFS's id.

use crate::{
    FilerId,
    peers::{PeerName, serial_text},
};
use rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

/// What the authority's common name starts with; the CloudFS's id follows.
const CA_NAME_PREFIX: &str = "filermesh CloudFS ";
/// What the domain name of a filer in its certificate ends with; its id stands before.
const FILER_NAME_SUFFIX: &str = ".filer.mesh";
/// Longest id of a CloudFS, in characters: with the prefix it must fit a common name (64).
const CLOUDFS_ID_CHARS_MAX: usize = 40;
/// Longest name of a filer, in characters.
const FILER_NAME_CHARS_MAX: usize = 63;

fn is_word(text: &str, chars_max: usize) -> bool {
    (1..=chars_max).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Whether `id` can be the id of a CloudFS.
pub(super) fn is_cloudfs_id(id: &str) -> bool {
    is_word(id, CLOUDFS_ID_CHARS_MAX)
}

/// Whether `name` can be the name of a filer.
pub(super) fn is_filer_name(name: &str) -> bool {
    is_word(name, FILER_NAME_CHARS_MAX)
}

/// The authority's common name for `cloudfs`.
pub(super) fn ca_name(cloudfs: &str) -> String {
    format!("{CA_NAME_PREFIX}{cloudfs}")
}

/// The domain name of `id` in its certificate.
pub(super) fn dns_name(id: FilerId) -> String {
    format!("{:016x}{FILER_NAME_SUFFIX}", id.0)
}

/// The name under which `id` is dialled: the one in its certificate, whatever its address.
pub fn server_name(id: FilerId) -> ServerName<'static> {
    ServerName::try_from(dns_name(id)).expect("hexadecimal digits and a fixed suffix are a domain name")
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err("the certificate has bytes behind its end".into()),
        Err(e) => Err(format!("the certificate cannot be parsed: {e}")),
    }
}

fn common_name(name: &X509Name<'_>) -> Result<String, String> {
    let mut all = name.iter_common_name();
    match (all.next(), all.next()) {
        (Some(one), None) => one.as_str().map(str::to_owned).map_err(|e| format!("its common name is not text: {e}")),
        _ => Err("it must have exactly one common name".into()),
    }
}

/// The id of the CloudFS whose authority `ca` is.
pub fn cloudfs_of(ca: &CertificateDer<'_>) -> Result<String, String> {
    let parsed = parse(ca)?;
    if !parsed.is_ca() {
        return Err("it is not an authority's certificate".into());
    }
    let name = common_name(parsed.subject())?;
    match name.strip_prefix(CA_NAME_PREFIX) {
        Some(id) if is_cloudfs_id(id) => Ok(id.to_owned()),
        _ => Err(format!("{name:?} is not the authority of a CloudFS")),
    }
}

/// Who `certificate` says its holder is. Says nothing of whether it can be believed.
pub fn peer_name(certificate: &CertificateDer<'_>) -> Result<PeerName, String> {
    let parsed = parse(certificate)?;
    let name = common_name(parsed.subject())?;
    if !is_filer_name(&name) {
        return Err(format!("its common name {name:?} is not a filer's"));
    }
    let alternative = parsed.subject_alternative_name().map_err(|e| format!("its names cannot be read: {e}"))?;
    let dns = match alternative.as_ref().map(|a| a.value.general_names.as_slice()) {
        Some([GeneralName::DNSName(dns)]) => *dns,
        _ => return Err("it must have exactly one alternative name, a filer's id".into()),
    };
    let id = dns
        .strip_suffix(FILER_NAME_SUFFIX)
        .filter(|hex| hex.len() == 16 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
        .and_then(|hex| u64::from_str_radix(hex, 16).ok())
        .ok_or_else(|| format!("its alternative name {dns:?} is not a filer's id"))?;
    Ok(PeerName { id: FilerId(id), name })
}

/// First and last second of `certificate`, since the Unix epoch.
pub fn validity_s(certificate: &CertificateDer<'_>) -> Result<(i64, i64), String> {
    let parsed = parse(certificate)?;
    Ok((parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp()))
}

/// The serial number of `certificate`, as text.
pub fn serial(certificate: &CertificateDer<'_>) -> Result<String, String> {
    Ok(serial_text(parse(certificate)?.raw_serial()))
}

/// The public key of `certificate`, as it stands there (SubjectPublicKeyInfo in DER).
pub fn public_key(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, String> {
    Ok(parse(certificate)?.public_key().raw.to_vec())
}

/// The name of who signed `certificate`, for messages.
pub(in crate::net) fn issuer(certificate: &CertificateDer<'_>) -> String {
    parse(certificate).and_then(|c| common_name(c.issuer())).unwrap_or_else(|_| "nobody known".into())
}

/// The name of who `certificate` is for, for messages.
pub(in crate::net) fn subject(certificate: &CertificateDer<'_>) -> String {
    parse(certificate).and_then(|c| common_name(c.subject())).unwrap_or_else(|_| "nobody known".into())
}
