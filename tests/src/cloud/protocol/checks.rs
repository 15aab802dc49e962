//! What a client claims of a body and of a place in a listing, checked.

use super::super::objects::hex;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::Checksum as _;
use s3s::crypto::{Crc32, Crc32c, Crc64Nvme, Sha1, Sha256};
use s3s::dto::{Checksum, PutObjectInput};
use s3s::{S3Result, s3_error};

/// The checksums a put claims, computed again as its body comes in.
pub(super) struct Checks {
    md5: Option<Vec<u8>>,
    claimed: Checksum,
    hasher: ChecksumHasher,
}

impl Checks {
    pub(super) fn of(input: &PutObjectInput) -> S3Result<Self> {
        let md5 = match &input.content_md5 {
            Some(text) => match BASE64_STANDARD.decode(text) {
                Ok(md5) if md5.len() == 16 => Some(md5),
                _ => return Err(s3_error!(InvalidDigest)),
            },
            None => None,
        };
        let claimed = Checksum {
            checksum_crc32: input.checksum_crc32.clone(),
            checksum_crc32c: input.checksum_crc32c.clone(),
            checksum_crc64nvme: input.checksum_crc64nvme.clone(),
            checksum_sha1: input.checksum_sha1.clone(),
            checksum_sha256: input.checksum_sha256.clone(),
            ..Checksum::default()
        };
        let hasher = ChecksumHasher {
            crc32: claimed.checksum_crc32.as_ref().map(|_| Crc32::new()),
            crc32c: claimed.checksum_crc32c.as_ref().map(|_| Crc32c::new()),
            crc64nvme: claimed.checksum_crc64nvme.as_ref().map(|_| Crc64Nvme::new()),
            sha1: claimed.checksum_sha1.as_ref().map(|_| Sha1::new()),
            sha256: claimed.checksum_sha256.as_ref().map(|_| Sha256::new()),
        };
        Ok(Self { md5, claimed, hasher })
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Whether the body that came is the one that was claimed.
    pub(super) fn compare(self, md5: &[u8; 16]) -> S3Result<()> {
        if self.md5.is_some_and(|claimed| claimed != md5) {
            return Err(s3_error!(BadDigest, "Content-MD5 does not match: received {}", hex(md5)));
        }
        if self.hasher.finalize() != self.claimed {
            return Err(s3_error!(BadDigest, "a checksum of the body does not match"));
        }
        Ok(())
    }
}

/// The token by which a listing goes on behind `key`.
pub(super) fn token(key: &str) -> String {
    hex(key.as_bytes())
}

/// The key inside a token.
pub(super) fn token_key(token: &str) -> S3Result<String> {
    let bytes: Option<Vec<u8>> =
        (0..token.len()).step_by(2).map(|at| u8::from_str_radix(token.get(at..at + 2)?, 16).ok()).collect();
    let key = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    key.ok_or_else(|| s3_error!(InvalidArgument, "not a continuation token of this server"))
}
