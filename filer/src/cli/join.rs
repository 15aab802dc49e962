//! Letting a new site in: a request there, a signature here, and what comes back.
//!
//! ```text
//! new site                              first site
//! init --join  ── NAME.csr ──────────▶  sign
//! init --certificate  ◀── NAME.pem ──   (certificate, authority, ids, peers, clouds without secrets)
//! ```
//!
//! The new site's key never leaves it. A name belongs to one filer for ever (`issued`). The same request may be signed
//! again, when its answer was lost or could not be written; a request of another key for a name that is taken is
//! refused, unless it is said to be a renewal. A removed filer's name stays its own, and nothing is signed under it.

use super::{
    CliError, Dir,
    bundle::Bundle,
    first_site,
    init::{self, Init, VALID_DAYS, random_filer_id, read_given, read_text},
    issued::{Issued, IssuedCertificate},
    places, say, site_dir,
};
use crate::{
    admin::{AdminClient, Status},
    config::{
        Config, SiteDir, SiteError, SiteFile, SitePeer, asks_for_credentials,
        site_dir::{check_name, make_dir, write_new, write_over},
    },
    site::SystemClock,
};
use clap::Args;
use mesh::{
    FilerId,
    net::{Identity, IdentityError, MeshCa, SigningRequest, identity},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

/// Longest time to ask the first site's filer for its peers, in milliseconds.
const ASK_MS_MAX: u64 = 2_000;

pub(super) const SIGN_HELP: &str = "\
Examples:
  filer sign fra.csr --dir /var/lib/filer                    makes fra.pem beside fra.csr
  filer sign fra.csr --dir /var/lib/filer -o /tmp/fra.pem
  filer sign fra-renewal.csr --renew --dir /var/lib/filer    another certificate for a filer that has one

The answer holds the certificate, the CloudFS's id, the addresses of its filers and the settings of its
clouds. It holds no secret: credentials are given to the new site by other means. If signing fails, or the answer is
lost, sign the same request again.

Exit codes:
  0  done
  1  failed
  2  wrong usage or settings
  3  refused: the name is taken, also by a filer that was removed; the key's certificate was revoked; or the answer's
     file exists (with --renew an earlier answer for the same filer is written over)";

/// `filer sign`.
#[derive(Args, Debug)]
pub struct Sign {
    /// The request that filer init --join made
    #[arg(value_name = "NAME.csr")]
    pub request: PathBuf,
    #[command(flatten)]
    pub dir: Dir,
    /// The request is a renewal: the name is that of a filer, which gets another certificate
    #[arg(long)]
    pub renew: bool,
    /// The answer; without it, the request's name with .pem instead of .csr
    #[arg(short, long, value_name = "NAME.pem")]
    pub output: Option<PathBuf>,
    /// How long the certificate is valid, in days
    #[arg(long, value_name = "DAYS", default_value_t = VALID_DAYS)]
    pub days: u32,
}

/// `filer init --join`: a key and a request.
pub(super) fn request(name: &str, dir: &SiteDir, out: &mut dyn Write) -> Result<(), CliError> {
    let csr = dir.root().join(format!("{name}.csr"));
    init::unused(dir, &[dir.identity(), csr.clone()])?;
    let request = SigningRequest::create(name)?;
    make_dir(dir.root())?;
    make_dir(&dir.identity())?;
    request.save(&dir.identity())?;
    write_new(&csr, &request.csr_pem, 0o644)?;
    let root = dir.root().display();
    say(
        out,
        &format!(
            "The key of {name} is made in {}; it stays there. Two steps are left:\n\
             \n\
             \x20 1. Take {} to the CloudFS's first site, and there:\n\
             \x20      filer sign {name}.csr --dir DIR\n\
             \x20 2. Bring the answer, {name}.pem, back here, and:\n\
             \x20      filer init {name} --dir {root} --certificate {name}.pem --listen IP:PORT --advertise HOST:PORT",
            dir.identity().display(),
            csr.display(),
        ),
    )
}

/// `filer sign`.
pub(super) fn sign(sign: Sign, out: &mut dyn Write) -> Result<(), CliError> {
    let dir = site_dir(&sign.dir.dir)?;
    let site = first_site(&dir, "requests are signed")?;
    let config = dir.config()?;
    let authority = MeshCa::load(&dir.authority())?;
    let csr = read_given(&sign.request)?;

    // The name is in the request, and the request is believed once the authority has read it.
    let probe = authority.sign(&csr, FilerId(1), 1, &SystemClock)?;
    let name = name_of(&probe)?;
    check_name(&name).map_err(CliError::Refused)?;
    let answer = sign.output.clone().unwrap_or_else(|| sign.request.with_extension("pem"));
    let replaces = sign.renew && is_earlier_answer(&answer, &name, &site);
    if !replaces && answer.symlink_metadata().is_ok() {
        let what =
            format!("{} exists already, and nothing is overwritten; move it away, or choose -o", answer.display());
        return Err(CliError::Refused(what));
    }
    let found = Issued::find(&dir, &name)?;
    let first = found.is_none();
    let status = status_of(&config);
    let mut issued = match found {
        Some(issued) => {
            is_not_removed(&issued, status.as_ref())?;
            may_have_another(issued, &IssuedCertificate::of(&probe)?.key, &sign)?
        }
        None if sign.renew => {
            let what = format!("no filer {name} of this CloudFS has a certificate to renew; sign without --renew");
            return Err(CliError::Refused(what));
        }
        None => {
            let taken: Vec<FilerId> = Issued::all(&dir)?.iter().map(Issued::filer).collect();
            Issued::new(&name, random_filer_id(&taken)?)
        }
    };
    let filer = issued.filer();
    let certificate = authority.sign(&csr, filer, sign.days, &SystemClock)?;
    issued.certificates.push(IssuedCertificate::of(&certificate)?);
    let joined = status.iter().flat_map(|status| &status.peers).any(|peer| peer.id == filer.to_string());
    let peers = peers_of(&site, &config, status);
    let bundle = Bundle::new(
        (&name, filer, site.cloudfs_text()),
        (certificate, authority.certificate_pem().into()),
        peers,
        &config.clouds,
    );
    // The record first: no certificate leaves that could not be revoked.
    issued.write(&dir, first)?;
    let write = if replaces { write_over } else { write_new };
    write(&answer, &bundle.to_text(), 0o644)?;
    let (days, path) = (sign.days, answer.display());
    let file = Path::new(answer.file_name().unwrap_or_default()).display();
    let renew = format!("  filer renew --dir DIR --certificate {file}");
    let init = format!("  filer init {name} --dir DIR --certificate {file} --listen IP:PORT --advertise HOST:PORT");
    let another = format!("{name} (filer {filer}) has another certificate, for {days} days. Take {path} to its site");
    let text = if sign.renew || joined {
        format!("{another}, and there:\n{renew}")
    } else if first {
        format!("{name} may join as filer {filer}, for {days} days. Take {path} to its site, and there:\n{init}")
    } else {
        // A request that is repeated looks as one that renews with the same key.
        format!("{another}. If that is made already, there:\n{renew}\nIf it is still to join:\n{init}")
    };
    say(out, &text)
}

/// Whether an earlier answer for this filer lies there. It may be written over by that of a renewal: its request has been
/// carried through, or given up, since.
fn is_earlier_answer(path: &Path, name: &str, site: &SiteFile) -> bool {
    let is_file = path.symlink_metadata().is_ok_and(|found| found.is_file());
    let bundle = || Bundle::read(&read_text(path)?, path);
    is_file && bundle().is_ok_and(|bundle| bundle.name == name && bundle.cloudfs == site.cloudfs_text())
}

fn name_of(certificate: &str) -> Result<String, CliError> {
    let refused = |what: String| CliError::Identity(IdentityError::Request { what });
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|e| refused(e.to_string()))?;
    identity::peer_name(&der).map(|peer| peer.name).map_err(refused)
}

/// Refuses a name whose filer was removed, as far as this site's filer was there to tell.
fn is_not_removed(issued: &Issued, status: Option<&Status>) -> Result<(), CliError> {
    let (name, filer) = (&issued.name, issued.filer().to_string());
    if status.is_none_or(|status| !status.removed_filers.contains(&filer)) {
        return Ok(());
    }
    Err(CliError::Refused(format!(
        "the name {name} was used by filer {filer}, which was removed, and cannot be used again; choose another name for the new site: filer init OTHER-NAME --dir DIR --join"
    )))
}

/// The record of a name that has one, if a request of this key may be signed.
fn may_have_another(issued: Issued, key: &str, sign: &Sign) -> Result<Issued, CliError> {
    let mut of_key = issued.certificates.iter().filter(|certificate| certificate.key == key).peekable();
    let (name, known) = (&issued.name, of_key.peek().is_some());
    if of_key.any(|certificate| certificate.revoked) {
        return Err(CliError::Refused(format!(
            "a certificate of this key of {name} was revoked; make a new key there: filer renew --new-key"
        )));
    }
    if !known && !sign.renew {
        return Err(CliError::Refused(format!(
            "a filer {name} of this CloudFS has a certificate already, of another key than the request {}; if this is its renewal, add --renew; otherwise choose another name for the new site (filer init OTHER-NAME --dir DIR --join), also where that filer was removed",
            sign.request.display()
        )));
    }
    Ok(issued)
}

/// What this site's filer says, if it runs.
fn status_of(config: &Config) -> Option<Status> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let client = AdminClient::new(&config.admin.socket);
    let asking = async { tokio::time::timeout(Duration::from_millis(ASK_MS_MAX), client.status()).await };
    runtime.block_on(asking).ok()?.ok()
}

/// This site's filer, and those that it knows now.
fn peers_of(site: &SiteFile, config: &Config, status: Option<Status>) -> Vec<SitePeer> {
    let mut peers = vec![SitePeer { id: site.filer, name: site.name.clone(), address: config.mesh.advertise.clone() }];
    // Without an answer the new filer asks this one, which knows the others.
    for peer in status.map(|status| status.peers).unwrap_or_default() {
        if let Ok(id) = peer.id.parse::<FilerId>()
            && id != site.filer
            && !peer.address.is_empty()
        {
            peers.push(SitePeer { id, name: peer.name, address: peer.address });
        }
    }
    peers
}

/// `filer init --certificate`: the rest of the site.
pub(super) fn accept(init: &Init, path: &Path, dir: &SiteDir, out: &mut dyn Write) -> Result<(), CliError> {
    let bundle = Bundle::read(&read_given(path)?, path)?;
    let name = &init.name;
    let refused = |what: String| CliError::Refused(format!("{}: {what}", path.display()));
    if bundle.name != *name {
        return Err(refused(format!("it is for the filer {}, not {name}", bundle.name)));
    }
    let wrong_id = || refused("its ids are no hexadecimal numbers; sign the request again".into());
    let filer = bundle.filer.parse::<FilerId>().ok().filter(|id| id.0 != 0).ok_or_else(wrong_id)?;
    let cloudfs = u64::from_str_radix(&bundle.cloudfs, 16).ok().filter(|id| *id != 0).ok_or_else(wrong_id)?;
    if !dir.identity().join(identity::KEY_FILE).exists() {
        return Err(refused(format!(
            "the key of its request is not in {}; begin with: filer init {name} --dir {} --join",
            dir.identity().display(),
            dir.root().display()
        )));
    }
    let site = SiteFile::new(name, cloudfs, filer, false, bundle.peers.clone());
    let base = Config { clouds: bundle.clouds.clone(), ..Config::first(name, dir.root()) };
    let (config, problems) = init::from_flags(init, places::table_of(&base, dir), dir)?;
    // Credentials do not travel with the certificate: they are still to be given.
    let (credentials, others): (Vec<_>, Vec<_>) =
        problems.into_iter().partition(|problem| asks_for_credentials(&problem.setting));
    places::refuse(&others)?;
    let files = [identity::CERTIFICATE_FILE, identity::CA_CERTIFICATE_FILE].map(|file| dir.identity().join(file));
    init::unused(dir, &[&files[..], std::slice::from_ref(&config.data_dir)].concat())?;
    let key = dir.identity().join(identity::KEY_FILE);
    let other_key = format!(
        "its certificate is not for the key of this site, {}: it was signed for another request. Take {} to the first site, have it signed there (filer sign), and bring that answer",
        key.display(),
        dir.root().join(format!("{name}.csr")).display()
    );
    checked_identity(&bundle, &site, dir, &key, &other_key, &refused)?;
    init::finish(dir, &site, &config, &bundle.certificate, &bundle.ca)?;

    let root = dir.root().display();
    let mut text = format!("The site {name} is made in {root}: filer {filer} of the CloudFS {}.\n\n", bundle.cloudfs);
    if credentials.is_empty() {
        text += &format!("Look at the clouds' settings in {}, then:\n", dir.config_path().display());
    } else {
        text += &format!("Before it can serve, give it the clouds' credentials in {}:\n", dir.config_path().display());
        for problem in &credentials {
            text += &format!("  {problem}\n");
        }
    }
    let taken = init::still_taken(&config);
    say(out, &format!("{text}  filer check-config --dir {root}\n  filer serve --dir {root}{taken}"))
}

/// The identity of a site with this bundle and this key; checked, in a directory aside, to belong together. `other_key`:
/// what is said where they do not.
pub(super) fn checked_identity(
    bundle: &Bundle,
    site: &SiteFile,
    dir: &SiteDir,
    key: &Path,
    other_key: &str,
    refused: &dyn Fn(String) -> CliError,
) -> Result<Identity, CliError> {
    let aside = dir.root().join(".checking");
    let _ = std::fs::remove_dir_all(&aside);
    make_dir(&aside)?;
    let check = || -> Result<Identity, CliError> {
        write_new(&aside.join(identity::KEY_FILE), &read_text(key)?, 0o600)?;
        write_new(&aside.join(identity::CERTIFICATE_FILE), &bundle.certificate, 0o600)?;
        write_new(&aside.join(identity::CA_CERTIFICATE_FILE), &bundle.ca, 0o600)?;
        Identity::load(&aside).map_err(|e| match e {
            IdentityError::WrongKey { .. } => refused(other_key.into()),
            IdentityError::Content { what, .. } => refused(what),
            other => other.into(),
        })
    };
    let checked = check();
    std::fs::remove_dir_all(&aside).map_err(|source| SiteError::File { path: aside, done: "removed", source })?;
    let identity = checked?;
    if identity.id() != site.filer || identity.name() != site.name || identity.cloudfs() != site.cloudfs_text() {
        return Err(refused(format!("its certificate says {identity:?}, and the rest of it something else")));
    }
    Ok(identity)
}
