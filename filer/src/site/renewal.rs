//! Whether the certificate of a site was renewed while its filer runs.
//!
//! Owns: when the files of the identity are read again, and taking what they say into use. Does not own: what is in them
//! (`mesh::net::identity`), nor who shows it to whom (`mesh::net`).

use mesh::net::{Identity, IdentityError, QuicMesh, identity};
use std::{os::unix::fs::MetadataExt, path::PathBuf};

/// What tells one state of a file from another: inode, length, and when it was written.
type Stamp = (u64, u64, i64, i64);

/// The identity of a running filer, as its files were when they were last looked at.
pub struct Renewal {
    folder: PathBuf,
    seen: [Option<Stamp>; 2],
}

impl Renewal {
    /// Looks at the files of this folder as they are now.
    pub fn of(folder: PathBuf) -> Self {
        let mut renewal = Self { folder, seen: [None; 2] };
        renewal.seen = renewal.stamps();
        renewal
    }

    /// What the files say, if they have changed since the last look.
    pub fn look(&mut self) -> Option<Result<Identity, IdentityError>> {
        let now = self.stamps();
        (std::mem::replace(&mut self.seen, now) != now).then(|| Identity::load(&self.folder))
    }

    /// Takes a renewed certificate into use, if there is one since the last look, and logs what came of it.
    pub fn take(&mut self, mesh: &QuicMesh) {
        let renewed = match self.look() {
            None => return,
            Some(Ok(identity)) if identity.serial() == mesh.identity().serial() => return,
            Some(Ok(identity)) => mesh.renew(identity),
            Some(Err(error)) => Err(error.to_string()),
        };
        match renewed {
            Ok(()) => {
                let serial = mesh.identity().serial().to_owned();
                tracing::info!(
                    serial,
                    "the renewed certificate is in use; sessions that stand keep the old one until they end"
                );
            }
            Err(why) => {
                tracing::error!(why, "the certificate has changed and cannot be used; the old one stays in use")
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the identity's files are real ones")]
    fn stamps(&self) -> [Option<Stamp>; 2] {
        [identity::CERTIFICATE_FILE, identity::KEY_FILE].map(|file| {
            let found = self.folder.join(file).metadata().ok()?;
            Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
        })
    }
}
