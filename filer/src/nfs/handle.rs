//! File handles as clients keep them.
//!
//! A handle is the same at every filer of the CloudFS and after every restart: it names the CloudFS, the inode with its
//! generation, and the export it was reached by. It carries no secret: as everywhere in NFSv3 with AUTH_SYS, a hostile
//! client of an export may make up handles of files outside that export's directory; permissions still hold for them.

use nfs3_types::nfs3::nfs_fh3;
use nfs3_types::xdr_codec::Opaque;
use storage::cloudfs::Handle;

/// Longest handle of the protocol, in bytes (RFC 1813, 2.4).
pub const FILE_HANDLE_BYTES_MAX: usize = 64;
/// Length of our handles, in bytes.
pub const FILE_HANDLE_BYTES: usize = 1 + 8 + 8 + 4 + 4;
const VERSION: u8 = 1;

/// A file, reached by an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireHandle {
    pub cloudfs: u64,
    pub file: Handle,
    /// [`Export::id`](super::Export::id).
    pub export: u32,
}

impl WireHandle {
    /// The handle's bytes.
    pub fn encode(self) -> nfs_fh3 {
        let mut bytes = Vec::with_capacity(FILE_HANDLE_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.cloudfs.to_be_bytes());
        bytes.extend_from_slice(&self.file.ino.to_be_bytes());
        bytes.extend_from_slice(&self.file.generation.to_be_bytes());
        bytes.extend_from_slice(&self.export.to_be_bytes());
        nfs_fh3 { data: Opaque::owned(bytes) }
    }

    /// The handle that these bytes are; `None` for what was never one of ours.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; FILE_HANDLE_BYTES] = bytes.try_into().ok()?;
        let (version, bytes) = bytes.split_first()?;
        if *version != VERSION {
            return None;
        }
        let (cloudfs, bytes) = bytes.split_first_chunk()?;
        let (ino, bytes) = bytes.split_first_chunk()?;
        let (generation, bytes) = bytes.split_first_chunk()?;
        let (export, _) = bytes.split_first_chunk()?;
        Some(Self {
            cloudfs: u64::from_be_bytes(*cloudfs),
            file: Handle { ino: u64::from_be_bytes(*ino), generation: u32::from_be_bytes(*generation) },
            export: u32::from_be_bytes(*export),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_nothing_else_is() {
        let handle = WireHandle { cloudfs: 7, file: Handle { ino: u64::MAX - 1, generation: 3 }, export: 0xdead_beef };
        let bytes = handle.encode().data.to_vec();
        assert!(bytes.len() <= FILE_HANDLE_BYTES_MAX);
        assert_eq!(WireHandle::decode(&bytes), Some(handle));
        assert_eq!(WireHandle::decode(&bytes[1..]), None);
        assert_eq!(WireHandle::decode(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(WireHandle::decode(&[&[VERSION + 1], &bytes[1..]].concat()), None);
        assert_eq!(WireHandle::decode(&[]), None);
    }
}
