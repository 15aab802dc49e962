//! Names of what is stored.

use mesh::FilerId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One of the two clouds of a CloudFS, by its place in the configuration. The place says nothing of today's role.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CloudId {
    A,
    B,
}

impl CloudId {
    /// Both, in order.
    pub const BOTH: [CloudId; 2] = [CloudId::A, CloudId::B];

    /// The other one.
    pub fn other(self) -> CloudId {
        match self {
            CloudId::A => CloudId::B,
            CloudId::B => CloudId::A,
        }
    }

    /// 0 or 1.
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for CloudId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CloudId::A => "a",
            CloudId::B => "b",
        })
    }
}

impl fmt::Debug for CloudId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number of the agreement on the clouds' roles and states. Every change of either raises it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A segment's name: the filer that packed it, and a number that filer never uses twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentId {
    pub filer: FilerId,
    /// Boot count of the filer in the upper 32 bits, a counter in the lower.
    pub number: u64,
}

impl SegmentId {
    /// 16 bytes that sort as ids do.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.filer.0.to_be_bytes());
        bytes[8..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    /// The id of [`SegmentId::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 16] = bytes.try_into().ok()?;
        let (filer, number) = bytes.split_at(8);
        Some(Self {
            filer: FilerId(u64::from_be_bytes(filer.try_into().ok()?)),
            number: u64::from_be_bytes(number.try_into().ok()?),
        })
    }

    /// The name of its object in a cloud, below the CloudFS's prefix.
    pub fn key(self) -> String {
        format!("segments/{:016x}/{:016x}", self.filer.0, self.number)
    }

    /// The segment whose object has this name.
    pub fn from_key(key: &str) -> Option<Self> {
        let (filer, number) = key.strip_prefix("segments/")?.split_once('/')?;
        let digits = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let parse = |text: &str| digits(text).then(|| u64::from_str_radix(text, 16).ok()).flatten();
        Some(Self { filer: FilerId(parse(filer)?), number: parse(number)? })
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:x}.{:x}", self.filer, self.number >> 32, self.number & 0xffff_ffff)
    }
}

impl fmt::Debug for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An MD5 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Md5(pub [u8; 16]);

impl Md5 {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        use md5::Digest;
        Self(md5::Md5::digest(bytes).into())
    }

    /// The digest that 32 hexadecimal digits name.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut digest = [0; 16];
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(digest))
    }
}

impl fmt::Display for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
