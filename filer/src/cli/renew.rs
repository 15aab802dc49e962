//! `filer renew`: another certificate for a site that has one, before it ends or when its key must be replaced.
//!
//! ```text
//! the site                                first site
//! renew [--new-key] ── NAME-renewal.csr ─▶ sign --renew
//! renew --certificate ◀─ NAME-renewal.pem ─
//! ```
//!
//! The certificate in use stays good until its end, or until it is revoked. A new key waits as `filer.key.next` until
//! its certificate is in place.

use super::{
    CliError, Dir,
    bundle::Bundle,
    client_of,
    init::{read_given, read_text},
    join::checked_identity,
    say, site_dir,
};
use crate::{
    admin::ClientError,
    config::{
        SiteDir, SiteFile,
        site_dir::{remove, rename, write_new, write_over},
    },
};
use clap::Args;
use mesh::net::{Identity, SigningRequest, identity};
use std::{
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

pub(super) const HELP: &str = "\
Examples:
  filer renew --dir /var/lib/filer                                   at the site: makes fra-renewal.csr
  filer renew --dir /var/lib/filer --new-key                         the same, with a new key
  filer sign fra-renewal.csr --renew --dir /var/lib/filer            at the first site: makes fra-renewal.pem
  filer renew --dir /var/lib/filer --certificate fra-renewal.pem     at the site: puts it in place

The filer serves on meanwhile, and the last step is done when it has taken the new certificate into use, without a restart.
The old one stays valid until its end; if it, or its key, may have fallen into other hands: filer revoke fra --but-newest, at
the first site.

Exit codes:
  0  done
  1  failed
  2  wrong usage or settings
  3  refused: a request is under way, or the certificate is not for this site
  4  the certificate is in place, and the filer gave no answer";

/// `filer renew`.
#[derive(Args, Debug)]
pub struct Renew {
    #[command(flatten)]
    pub dir: Dir,
    /// Asks for a certificate of a new key
    #[arg(long, conflicts_with = "certificate")]
    pub new_key: bool,
    /// Puts in place what filer sign --renew made
    #[arg(long, value_name = "NAME-renewal.pem")]
    pub certificate: Option<PathBuf>,
}

pub(super) fn run(renew: Renew, out: &mut dyn Write) -> Result<(), CliError> {
    let dir = site_dir(&renew.dir.dir)?;
    let site = dir.site()?;
    Identity::settle(&dir.identity())?;
    match renew.certificate {
        Some(path) => put_in_place(&path, &dir, &site, out),
        None => request(renew.new_key, &dir, &site, out),
    }
}

fn request_path(dir: &SiteDir, site: &SiteFile) -> PathBuf {
    dir.root().join(format!("{}-renewal.csr", site.name))
}

fn request(new_key: bool, dir: &SiteDir, site: &SiteFile, out: &mut dyn Write) -> Result<(), CliError> {
    let (csr, name, root) = (request_path(dir, site), &site.name, dir.root().display());
    if csr.symlink_metadata().is_ok() {
        return Err(CliError::Refused(format!(
            "{} exists already: have it signed, or remove it to begin anew",
            csr.display()
        )));
    }
    let next = dir.identity().join(identity::NEXT_KEY_FILE);
    let request = if new_key {
        let request = SigningRequest::create(name)?;
        // Of an earlier request that was given up: no certificate of it is in place.
        remove(&next)?;
        write_new(&next, &request.key_pem, 0o600)?;
        request
    } else {
        SigningRequest::of_key(name, &read_text(&dir.identity().join(identity::KEY_FILE))?)?
    };
    write_new(&csr, &request.csr_pem, 0o644)?;
    let text = format!(
        "Two steps are left:\n\
         \n\
         \x20 1. Take {} to the CloudFS's first site, and there:\n\
         \x20      filer sign {name}-renewal.csr --renew --dir DIR\n\
         \x20 2. Bring the answer, {name}-renewal.pem, back here, and:\n\
         \x20      filer renew --dir {root} --certificate {name}-renewal.pem",
        csr.display(),
    );
    say(out, &text)
}

fn put_in_place(path: &Path, dir: &SiteDir, site: &SiteFile, out: &mut dyn Write) -> Result<(), CliError> {
    let bundle = Bundle::read(&read_given(path)?, path)?;
    let folder = dir.identity();
    let refused = |what: String| CliError::Refused(format!("{}: {what}", path.display()));
    if read_text(&folder.join(identity::CA_CERTIFICATE_FILE))?.trim() != bundle.ca.trim() {
        return Err(refused("it is of another authority than this site's certificate".into()));
    }
    let [key, next] = [identity::KEY_FILE, identity::NEXT_KEY_FILE].map(|file| folder.join(file));
    let other_key = other_key(dir, site, &key, &next);
    let (identity, with_new_key) = match checked_identity(&bundle, site, dir, &next, &other_key, &refused) {
        Ok(identity) => (identity, true),
        Err(_) => (checked_identity(&bundle, site, dir, &key, &other_key, &refused)?, false),
    };
    // Read between the two, the certificate finds its key as the next one.
    write_over(&folder.join(identity::CERTIFICATE_FILE), &bundle.certificate, 0o644)?;
    if with_new_key {
        rename(&next, &key)?;
    }
    remove(&request_path(dir, site))?;
    let key = if with_new_key { ", with its new key," } else { "" };
    let used = used_from_now_on(dir, identity.serial());
    // Nothing else says that no filer runs: a socket that may not be used, or is not this filer's, says nothing.
    let idle = matches!(
        &used,
        Err(CliError::Client(ClientError::Unreachable { source, .. }))
            if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
    );
    let how = match &used {
        Ok(()) => "The filer serves with it from now on.",
        Err(_) if idle => "No filer of this site runs; the next one takes it into use.",
        Err(_) => "The filer does not say that it uses it: look at its log before the old one is revoked.",
    };
    let (name, serial) = (&site.name, identity.serial());
    say(out, &format!("The new certificate of {name} (serial number {serial}){key} is in place. {how}"))?;
    if idle { Ok(()) } else { used }
}

/// What is said where a certificate is for none of the site's keys.
fn other_key(dir: &SiteDir, site: &SiteFile, key: &Path, next: &Path) -> String {
    let (root, csr) = (dir.root().display(), request_path(dir, site));
    let keys = match next.exists() {
        true => {
            format!("neither for the key of this site, {}, nor for its next one, {}", key.display(), next.display())
        }
        false => format!("not for the key of this site, {}", key.display()),
    };
    let todo = match csr.exists() {
        true => format!("Take {} to the first site", csr.display()),
        false => format!("Make a request anew (filer renew --dir {root}), take it to the first site"),
    };
    format!(
        "its certificate is {keys}: it was signed for another request. {todo}, have it signed there (filer sign --renew), and bring that answer"
    )
}

/// Has this site's filer, if it runs, take the certificate into use, and waits until it has.
fn used_from_now_on(dir: &SiteDir, serial: &str) -> Result<(), CliError> {
    let client = client_of(dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| CliError::System { what: "starting".into(), source })?;
    runtime.block_on(client.use_certificate(serial))?;
    Ok(())
}
