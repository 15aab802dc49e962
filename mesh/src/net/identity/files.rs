//! The files of identities: PEM text, keys readable by their owner alone, nothing ever overwritten by accident.

use super::IdentityError;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

/// Largest identity file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Longest chain of certificates that is read.
const CHAIN_MAX: usize = 4;

/// Reads a small text file. `todo` is the advice for when that fails.
pub(super) fn read(folder: &Path, file: &str, todo: &'static str) -> Result<(PathBuf, String), IdentityError> {
    let path = folder.join(file);
    let mut text = String::new();
    let opened = fs::File::open(&path).and_then(|f| f.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    if let Err(source) = opened {
        return Err(IdentityError::Read { path, source, todo });
    }
    if text.len() as u64 > FILE_BYTES_MAX {
        let what = format!("it is larger than {FILE_BYTES_MAX} bytes");
        return Err(IdentityError::Content { path, what, todo });
    }
    Ok((path, text))
}

/// Writes a new file, for its owner alone (`secret`) or for all to read. An existing file stays as it is.
pub(super) fn write(folder: &Path, file: &str, text: &str, secret: bool) -> Result<PathBuf, IdentityError> {
    let path = folder.join(file);
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, if secret { 0o600 } else { 0o644 });
        let mut out = options.open(&path)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()
    };
    match write() {
        Ok(()) => Ok(path),
        Err(source) => {
            let todo = match source.kind() {
                std::io::ErrorKind::AlreadyExists => "It may be in use: move it away first, or choose another folder",
                _ => "Check that the folder can be written and the disk is not full",
            };
            Err(IdentityError::Write { path, source, todo })
        }
    }
}

/// Gives a file another name, durably; what had that name before is gone.
pub(super) fn rename(folder: &Path, from: &str, to: &str) -> Result<(), IdentityError> {
    let renamed = fs::rename(folder.join(from), folder.join(to)).and_then(|()| fs::File::open(folder)?.sync_all());
    let todo = "Check that the folder can be written, and try again";
    renamed.map_err(|source| IdentityError::Write { path: folder.join(to), source, todo })
}

/// The one certificate in `pem`.
pub(super) fn certificate(pem: &str) -> Result<CertificateDer<'static>, String> {
    let mut all = certificates(pem)?;
    match all.len() {
        1 => Ok(all.remove(0)),
        n => Err(format!("it has {n} certificates instead of one")),
    }
}

/// The certificates in `pem`, at least one.
pub(super) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .take(CHAIN_MAX + 1)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("it is not PEM: {e}"))?;
    match all.len() {
        0 => Err("it has no certificate in it".into()),
        n if n > CHAIN_MAX => Err(format!("it has more than {CHAIN_MAX} certificates")),
        _ => Ok(all),
    }
}

/// The private key in `pem`.
pub(super) fn key(pem: &str) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| format!("it has no private key in it: {e}"))
}

/// Says so when others than its owner can read a key.
pub(super) fn warn_if_others_can_read(path: &Path) {
    #[cfg(unix)]
    {
        let mode = fs::metadata(path).map(|m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()));
        if mode.is_ok_and(|mode| mode & 0o077 != 0) {
            tracing::warn!(file = %path.display(), "others than its owner can read this key: set its mode to 0600");
        }
    }
    #[cfg(not(unix))]
    let _ = path;
}
