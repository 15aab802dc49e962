//! `filer revoke`: certificates that no filer takes any more, though they have not ended.
//!
//! It is not undone, so it is refused where it takes more than its operator may know: the majority, or a filer that was
//! to go on with its newest certificate and does not serve with it yet. A flag for each says that it is meant.

use super::{CliError, Dir, chain, client_of, first_site, issued::Issued, say, site_dir};
use crate::admin::{AdminClient, Status, status::Peer};
use clap::Args;
use mesh::FilerId;
use std::io::Write;

pub(super) const HELP: &str = "\
Examples:
  filer revoke fra --dir /var/lib/filer                  all certificates of fra, whether or not it has joined
  filer revoke fra --dir /var/lib/filer --but-newest     those before its last renewal

Runs at the first site, whose authority knows what it has signed, while its filer runs: every filer refuses these
certificates from then on, new ones and after every restart. A member whose every certificate is revoked stays a member
that nobody hears, and counts for the majority: take it out (filer peers remove), better before than after, or sign a new
one for it (filer renew --new-key).

Exit codes:
  0  done
  1  failed
  2  wrong usage or settings, or nothing was ever signed under the name
  3  refused: it would take the majority (--lose-majority), or the certificate that the filer serves with (--cut-off)
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
    /// Also if the filer does not serve with its newest certificate: it is cut off until it does
    #[arg(long, requires = "but_newest")]
    pub cut_off: bool,
    /// Also if most filers are not reached without this one: nothing can be decided then, and no write be acknowledged
    #[arg(long)]
    pub lose_majority: bool,
}

pub(super) async fn run(revoke: Revoke, out: &mut dyn Write) -> Result<(), CliError> {
    let (name, but_newest) = (&revoke.name, revoke.but_newest);
    let dir = site_dir(&revoke.dir.dir)?;
    let site = first_site(&dir, "certificates are revoked")?;
    let unknown = || CliError::Usage(format!("no certificate was ever signed for a filer {name}"));
    let mut issued = Issued::find(&dir, name)?.ok_or_else(unknown)?;
    if *name == site.name && !but_newest {
        return Err(CliError::Refused(format!(
            "{name} is this site: without a certificate it could not tell the others. Renew it, then: filer revoke {name} --but-newest"
        )));
    }
    let filer = issued.filer();
    let count = issued.certificates.len() - usize::from(but_newest && !issued.certificates.is_empty());
    if count == 0 {
        return say(out, &format!("{name} has no certificate to be revoked"));
    }
    let client = client_of(&dir)?;
    // Those on record as revoked too: the record is here, and the list of the mesh may have been restored from elsewhere.
    let serials: Vec<String> = issued.certificates[..count].iter().map(|known| known.serial.clone()).collect();
    may_be_revoked(&revoke, filer, &serials, &client).await?;
    for (at, serial) in serials.iter().enumerate() {
        client.revoke(filer, name, serial).await?;
        issued.certificates[at].revoked = true;
        issued.write(&dir, false)?;
    }
    say(out, &format!("revoked at every filer: certificates {} of {name} ({filer})", serials.join(", ")))
}

/// Refuses what takes more than these certificates, by what this site's filer sees, unless it is said to be meant.
async fn may_be_revoked(
    revoke: &Revoke,
    filer: FilerId,
    serials: &[String],
    client: &AdminClient,
) -> Result<(), CliError> {
    let (name, status, id) = (&revoke.name, client.status().await?, filer.to_string());
    if !status.peers.iter().any(|peer| peer.id == id) {
        // It has not joined, or was taken out: nobody counts on it. One that is merely not reached may be back any moment.
        return Ok(());
    }
    if revoke.but_newest {
        let why = match client.certificate_of(filer).await {
            Ok(serial) if !serials.contains(&serial) => return Ok(()),
            Ok(serial) => format!("{name} still serves with the certificate {serial}, which is one of those"),
            Err(error) => format!("{name} does not say with which certificate it serves ({})", chain(&error)),
        };
        if !revoke.cut_off {
            return Err(CliError::Refused(format!(
                "{why}. At its site, put the newest one in place (filer renew --certificate) and ask again; --cut-off revokes them all the same, and its peers refuse it until then"
            )));
        }
    }
    match without(&status, &id) {
        Some((left, voters)) if !revoke.lose_majority => Err(CliError::Refused(format!(
            "without {name} this site reaches {left} of {voters} filers that vote, which is no majority: nothing could be decided, and no write be acknowledged. Take it out first (filer peers remove {name}), start the filers that are not reached (filer peers), or renew its certificate and revoke the ones before (--but-newest); --lose-majority revokes them all the same"
        ))),
        _ => Ok(()),
    }
}

/// How many filers that vote are reached without this one, and how many there are, where those are no majority.
fn without(status: &Status, id: &str) -> Option<(usize, usize)> {
    let voters: Vec<&Peer> = status.peers.iter().filter(|peer| peer.voter).collect();
    let left = voters.iter().filter(|peer| peer.connected && peer.id != id).count();
    (voters.iter().any(|peer| peer.id == id) && 2 * left <= voters.len()).then_some((left, voters.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filer_takes_the_majority_along_if_too_few_others_are_reached() {
        // Of filers 1 to n, those that are reached.
        let status = |n: usize, reached: &[usize]| Status {
            peers: (1..=n)
                .map(|id| Peer { id: id.to_string(), voter: true, connected: reached.contains(&id), ..Peer::default() })
                .collect(),
            ..Status::default()
        };
        for (n, reached, taken) in [
            (2, &[1, 2][..], Some((1, 2))),
            (2, &[1], Some((1, 2))),
            (3, &[1, 2, 3], None),
            (3, &[1, 2], Some((1, 3))),
            (3, &[1, 3], None),
            (3, &[1], Some((1, 3))),
            (4, &[1, 2, 3, 4], None),
            (4, &[1, 2, 3], Some((2, 4))),
            (5, &[1, 2, 3, 4], None),
        ] {
            assert_eq!(without(&status(n, reached), "2"), taken, "{reached:?} of {n}");
        }
        let mut joining = status(2, &[1, 2]);
        joining.peers[1].voter = false;
        assert_eq!(without(&joining, "2"), None, "it does not vote yet");
    }
}
