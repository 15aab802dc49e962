//! `filer revoke`: certificates that no filer takes any more, though they have not ended.

use super::{CliError, Dir, issued::Issued, say, site_dir};
use crate::admin::AdminClient;
use clap::Args;
use std::io::Write;

pub(super) const HELP: &str = "\
Examples:
  filer revoke fra --dir /var/lib/filer                  all certificates of fra, whether or not it has joined
  filer revoke fra --dir /var/lib/filer --but-newest     those before its last renewal

Runs at the first site, whose authority knows what it has signed, while its filer runs: every filer refuses these
certificates from then on, new ones and after every restart. A member whose every certificate is revoked stays a member
that nobody hears: sign a new one for it (filer renew --new-key), or take it out (filer peers remove).

Exit codes:
  0  done
  1  failed
  2  wrong usage or settings, or nothing was ever signed under the name
  3  refused
  4  no filer answers
  5  most filers cannot be reached: try again later";

/// `filer revoke`.
#[derive(Args, Debug)]
pub struct Revoke {
    /// The filer's name
    pub name: String,
    #[command(flatten)]
    pub dir: Dir,
    /// Keeps the newest certificate
    #[arg(long)]
    pub but_newest: bool,
}

pub(super) async fn run(revoke: Revoke, out: &mut dyn Write) -> Result<(), CliError> {
    let Revoke { name, dir, but_newest } = revoke;
    let dir = site_dir(&dir.dir)?;
    let site = dir.site()?;
    if !site.first {
        let what =
            format!("{} has no authority: certificates are revoked at the CloudFS's first site", dir.root().display());
        return Err(CliError::Refused(what));
    }
    let unknown = || CliError::Usage(format!("no certificate was ever signed for a filer {name}"));
    let mut issued = Issued::find(&dir, &name)?.ok_or_else(unknown)?;
    if name == site.name && !but_newest {
        return Err(CliError::Refused(format!(
            "{name} is this site: without a certificate it could not tell the others. Renew it, then: filer revoke {name} --but-newest"
        )));
    }
    let filer = issued.filer();
    let client = AdminClient::new(&dir.config()?.admin.socket);
    let count = issued.certificates.len() - usize::from(but_newest && !issued.certificates.is_empty());
    let mut serials = vec![];
    // Those on record as revoked too: the record is here, and the list of the mesh may have been restored from elsewhere.
    for at in 0..count {
        let serial = issued.certificates[at].serial.clone();
        client.revoke(filer, &name, &serial).await?;
        issued.certificates[at].revoked = true;
        issued.write(&dir, false)?;
        serials.push(serial);
    }
    match serials.len() {
        0 => say(out, &format!("{name} has no certificate to be revoked")),
        _ => say(out, &format!("revoked at every filer: certificates {} of {name} ({filer})", serials.join(", "))),
    }
}
