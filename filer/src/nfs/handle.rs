//! File handles as clients keep them, sealed so that nobody can make one up.
//!
//! A handle is the same at every filer of the CloudFS and after every restart. It names the CloudFS, the inode with its
//! generation, and the export by which it was reached, and ends with a seal over all of that. Clients under AUTH_SYS
//! may send whatever they like; the seal says that a filer of this CloudFS gave out this very handle, to a client of
//! that export, on a way that began at the export's directory.
//!
//! ```text
//! version | CloudFS | inode | generation | export | seal           all numbers big-endian
//!    1    |    8    |   8   |     4      |   8    |  16   bytes
//! ```
//!
//! The seal is the first half of HMAC-SHA256 under the secret of the CloudFS's doors, which is in the replicated state.
//! What a handle was given out for, it stays good for: a file or directory that is renamed out of the export's directory
//! is still reached by who has its handle, as by who has it open, and so is what lies below it. No `..` leads from there
//! to anything else. (Files have no directory on record that a call could be judged by: they may have several names.)

use nfs3_types::nfs3::nfs_fh3;
use nfs3_types::xdr_codec::Opaque;
use ring::hmac;
use std::sync::{Arc, OnceLock};
use storage::cloudfs::{DoorSecret, Handle};
use subtle::ConstantTimeEq;

/// Longest handle of the protocol, in bytes (RFC 1813, 2.4).
pub const FILE_HANDLE_BYTES_MAX: usize = 64;
/// Length of our handles, in bytes.
pub const FILE_HANDLE_BYTES: usize = BODY_BYTES + SEAL_BYTES;
const BODY_BYTES: usize = 1 + 8 + 8 + 4 + 8;
const SEAL_BYTES: usize = 16;
const VERSION: u8 = 2;
/// What is sealed begins with this, so that a seal is good for nothing else.
const PURPOSE: &[u8] = b"filermesh NFS handle";

/// A file, reached by an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireHandle {
    pub file: Handle,
    /// [`Export::id`](super::Export::id).
    pub export: u64,
}

/// Gives the secret of the CloudFS's doors, once it is known.
pub type SecretSource = Arc<dyn Fn() -> Option<DoorSecret> + Send + Sync>;

/// Why bytes are no handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsealed {
    /// They are none that this CloudFS gave out.
    Forged,
    /// It cannot be told yet: the CloudFS's secret is not known here.
    NoSecret,
}

/// Seals and opens the handles of one CloudFS.
pub struct Sealer {
    cloudfs: u64,
    source: SecretSource,
    key: OnceLock<hmac::Key>,
}

impl Sealer {
    pub fn new(cloudfs: u64, source: SecretSource) -> Self {
        Self { cloudfs, source, key: OnceLock::new() }
    }

    fn key(&self) -> Option<&hmac::Key> {
        if self.key.get().is_none() {
            let secret = (self.source)()?;
            // The secret never changes, so whoever comes first is right.
            let _ = self.key.set(hmac::Key::new(hmac::HMAC_SHA256, secret.bytes()));
        }
        self.key.get()
    }

    fn seal_of(&self, key: &hmac::Key, body: &[u8]) -> [u8; SEAL_BYTES] {
        let mut context = hmac::Context::with_key(key);
        context.update(PURPOSE);
        context.update(body);
        let mut seal = [0; SEAL_BYTES];
        seal.copy_from_slice(&context.sign().as_ref()[..SEAL_BYTES]);
        seal
    }

    /// The handle's bytes; `None` while the secret is not known.
    pub fn seal(&self, handle: WireHandle) -> Option<nfs_fh3> {
        let key = self.key()?;
        let mut bytes = Vec::with_capacity(FILE_HANDLE_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.cloudfs.to_be_bytes());
        bytes.extend_from_slice(&handle.file.ino.to_be_bytes());
        bytes.extend_from_slice(&handle.file.generation.to_be_bytes());
        bytes.extend_from_slice(&handle.export.to_be_bytes());
        let seal = self.seal_of(key, &bytes);
        bytes.extend_from_slice(&seal);
        Some(nfs_fh3 { data: Opaque::owned(bytes) })
    }

    /// The handle that these bytes are.
    pub fn open(&self, bytes: &[u8]) -> Result<WireHandle, Unsealed> {
        let (cloudfs, handle, body, seal) = read(bytes).ok_or(Unsealed::Forged)?;
        if cloudfs != self.cloudfs {
            return Err(Unsealed::Forged);
        }
        let key = self.key().ok_or(Unsealed::NoSecret)?;
        // The comparison takes the same time wherever the two differ.
        if bool::from(self.seal_of(key, body).ct_eq(seal)) { Ok(handle) } else { Err(Unsealed::Forged) }
    }
}

/// The parts of a handle: the CloudFS, what is named, the sealed bytes, and the seal.
fn read(bytes: &[u8]) -> Option<(u64, WireHandle, &[u8], &[u8; SEAL_BYTES])> {
    if bytes.len() != FILE_HANDLE_BYTES {
        return None;
    }
    let (body, seal) = bytes.split_last_chunk()?;
    let (version, rest) = body.split_first()?;
    if *version != VERSION {
        return None;
    }
    let (cloudfs, rest) = rest.split_first_chunk()?;
    let (ino, rest) = rest.split_first_chunk()?;
    let (generation, rest) = rest.split_first_chunk()?;
    let (export, _) = rest.split_first_chunk()?;
    let file = Handle { ino: u64::from_be_bytes(*ino), generation: u32::from_be_bytes(*generation) };
    let handle = WireHandle { file, export: u64::from_be_bytes(*export) };
    Some((u64::from_be_bytes(*cloudfs), handle, body, seal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn sealer(cloudfs: u64, secret: u8) -> Sealer {
        Sealer::new(cloudfs, Arc::new(move || Some(DoorSecret::new([secret; 32]))))
    }

    const HANDLE: WireHandle =
        WireHandle { file: Handle { ino: u64::MAX - 1, generation: 3 }, export: 0xdead_beef_0000_0001 };

    #[test]
    fn every_filer_of_the_cloudfs_opens_a_handle_and_no_other() {
        let bytes = sealer(7, 1).seal(HANDLE).expect("the secret is known").data.to_vec();
        assert!(bytes.len() == FILE_HANDLE_BYTES && bytes.len() <= FILE_HANDLE_BYTES_MAX);
        assert_eq!(sealer(7, 1).open(&bytes), Ok(HANDLE));
        assert_eq!(sealer(8, 1).open(&bytes), Err(Unsealed::Forged), "another CloudFS");
        assert_eq!(sealer(7, 2).open(&bytes), Err(Unsealed::Forged), "another secret");
    }

    #[test]
    fn a_handle_with_any_bit_changed_is_forged() {
        let ours = sealer(7, 1);
        let bytes = ours.seal(HANDLE).expect("the secret is known").data.to_vec();
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ours.open(&forged), Err(Unsealed::Forged), "bit {bit}");
        }
        for wrong in [&bytes[1..], &bytes[..BODY_BYTES], &[&bytes[..], &[0]].concat()[..], &[], &[0; 64]] {
            assert_eq!(ours.open(wrong), Err(Unsealed::Forged), "{} bytes", wrong.len());
        }
    }

    #[test]
    fn without_the_secret_nothing_is_sealed_or_opened_and_with_it_all_is() {
        let told = Arc::new(Mutex::new(None));
        let source = told.clone();
        let late = Sealer::new(7, Arc::new(move || source.lock().expect("no panic").clone()));
        let bytes = sealer(7, 1).seal(HANDLE).expect("the secret is known").data.to_vec();
        assert!(late.seal(HANDLE).is_none());
        assert_eq!(late.open(&bytes), Err(Unsealed::NoSecret));
        assert_eq!(late.open(&bytes[1..]), Err(Unsealed::Forged));
        *told.lock().expect("no panic") = Some(DoorSecret::new([1; 32]));
        assert_eq!(late.open(&bytes), Ok(HANDLE));
    }
}
