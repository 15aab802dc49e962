//! What an answer's headers say about the MD5 of an object.
//!
//! Pure functions over headers and listings; the protocols differ in which header can be believed.

use crate::ids::Md5;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderMap;
use std::collections::BTreeMap;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    S3,
    Azure,
    Gcs,
}

/// The MD5 as the Content-MD5 header has it.
pub(super) fn content_md5(md5: Md5) -> String {
    BASE64_STANDARD.encode(md5.0)
}

/// The MD5 that the answer to a put or a head tells, if it tells one.
pub(super) fn answered_md5(protocol: Protocol, headers: &HeaderMap) -> Option<Md5> {
    match protocol {
        Protocol::S3 => (!is_encrypted_by_key(headers)).then(|| tag_md5(text(headers, "etag")?)).flatten(),
        Protocol::Azure => from_base64(text(headers, "content-md5")?),
        Protocol::Gcs => google_md5(headers).or_else(|| tag_md5(text(headers, "etag")?)),
    }
}

/// Whether S3 says that it encrypted with KMS or a customer's key. The ETag then looks like an MD5 and is none.
pub(super) fn is_encrypted_by_key(headers: &HeaderMap) -> bool {
    text(headers, "x-amz-server-side-encryption").is_some_and(|by| by.starts_with("aws:"))
        || headers.contains_key("x-amz-server-side-encryption-customer-algorithm")
}

/// The MD5 an ETag is, if it looks like one: 32 hexadecimal digits, quoted or not, not weak, not of several parts.
pub(super) fn tag_md5(tag: &str) -> Option<Md5> {
    Md5::from_hex(tag.trim().trim_matches('"'))
}

/// The MD5s of an Azure listing, by name. Names that need more than the five entities of XML are left out.
pub(super) fn azure_listed_md5s(xml: &str) -> BTreeMap<String, Md5> {
    let mut found = BTreeMap::new();
    for blob in xml.split("<Blob>").skip(1) {
        let blob = blob.split("</Blob>").next().unwrap_or_default();
        let name = element(blob, "Name").and_then(unescape);
        let md5 = element(blob, "Content-MD5").and_then(from_base64);
        if let (Some(name), Some(md5)) = (name, md5) {
            found.insert(name, md5);
        }
    }
    found
}

/// The text of the first `<name>` in `xml`.
pub(super) fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text)
}

fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, entity)) = rest.split_once('&') {
        let (entity, after) = entity.split_once(';')?;
        plain.push_str(before);
        plain.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => return None,
        });
        rest = after;
    }
    plain.push_str(rest);
    Some(plain)
}

fn google_md5(headers: &HeaderMap) -> Option<Md5> {
    headers
        .get_all("x-goog-hash")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|hash| from_base64(hash.trim().strip_prefix("md5=")?))
}

fn from_base64(text: &str) -> Option<Md5> {
    BASE64_STANDARD.decode(text.trim()).ok()?.try_into().ok().map(Md5)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn each_protocol_tells_its_md5_in_its_own_header() {
        let md5 = Md5::of(b"hello");
        let (tag, base64) = (format!("\"{md5}\""), content_md5(md5));
        assert_eq!(base64, "XUFAKrxLKna5cZ2REBfFkg==");
        assert_eq!(answered_md5(Protocol::S3, &headers(&[("etag", &tag)])), Some(md5));
        assert_eq!(answered_md5(Protocol::Azure, &headers(&[("etag", &tag)])), None);
        assert_eq!(answered_md5(Protocol::Azure, &headers(&[("content-md5", &base64)])), Some(md5));
        let hash = format!("crc32c=AAAAAA==,md5={base64}");
        assert_eq!(answered_md5(Protocol::Gcs, &headers(&[("etag", "\"opaque\""), ("x-goog-hash", &hash)])), Some(md5));
        let apart = headers(&[("x-goog-hash", "crc32c=AAAAAA=="), ("x-goog-hash", &format!("md5={base64}"))]);
        assert_eq!(answered_md5(Protocol::Gcs, &apart), Some(md5));
        assert_eq!(answered_md5(Protocol::Gcs, &headers(&[("etag", &tag)])), Some(md5));
    }

    #[test]
    fn tags_that_are_no_md5_prove_nothing() {
        let md5 = Md5::of(b"hello");
        let tag = format!("\"{md5}\"");
        for (name, value) in [
            ("x-amz-server-side-encryption", "aws:kms"),
            ("x-amz-server-side-encryption", "aws:kms:dsse"),
            ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ] {
            assert_eq!(answered_md5(Protocol::S3, &headers(&[("etag", &tag), (name, value)])), None);
        }
        let sse_s3 = headers(&[("etag", &tag), ("x-amz-server-side-encryption", "AES256")]);
        assert_eq!(answered_md5(Protocol::S3, &sse_s3), Some(md5));
        assert_eq!(tag_md5(&format!("W/{tag}")), None);
        assert_eq!(tag_md5(&format!("\"{md5}-2\"")), None);
        assert_eq!(tag_md5("\"0x8DC1234\""), None);
    }

    #[test]
    fn azure_listings_tell_md5s_by_name() {
        let md5 = Md5::of(b"hello");
        let xml = format!(
            "<Blobs><Blob><Name>a&amp;b</Name><Properties><Content-MD5>{}</Content-MD5></Properties></Blob>\
             <Blob><Name>none</Name><Properties><Content-MD5/></Properties></Blob></Blobs>",
            content_md5(md5)
        );
        assert_eq!(azure_listed_md5s(&xml), BTreeMap::from([("a&b".to_owned(), md5)]));
    }
}
