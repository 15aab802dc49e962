//! `filer init`: a site's directory.

use super::{
    CliError, address, chain,
    issued::{Issued, IssuedCertificate},
    join, places, say, site_dir,
};
use crate::{
    config::{
        CloudEntry, Config, SiteDir, SiteError, SiteFile,
        site_dir::{check_name, make_dir, write_new},
    },
    site::{SystemClock, unavailable_to_all},
};
use clap::Args;
use mesh::{
    FilerId,
    net::{MeshCa, SigningRequest, identity},
};
use std::{
    io::{Read, Write},
    net::SocketAddr,
    path::PathBuf,
};
use storage::clouds::CloudSettings;

/// How long certificates are valid where nothing else is said, in days.
pub(super) const VALID_DAYS: u32 = 1_825;

pub(super) const HELP: &str = "\
Examples:
  The first site of a new CloudFS, with two directories as its clouds, to try it:
    filer init ams --dir /var/lib/filer

  With real clouds; credentials come from environment variables:
    filer init ams --dir /var/lib/filer --listen 0.0.0.0:7400 --advertise ams.example.org:7400 \\
      --cloud-a 's3://files?region=eu-west-1&access_key_id_env=S3_ID&secret_access_key_env=S3_KEY' \\
      --cloud-b 'azure://account/files?access_key_env=AZURE_KEY'

  A site that joins. Its key never leaves it:
    filer init fra --dir /var/lib/filer --join                       at the new site: makes fra.csr
    filer sign fra.csr --dir /var/lib/filer                          at the first site: makes fra.pem
    filer init fra --dir /var/lib/filer --certificate fra.pem \\
      --listen 0.0.0.0:7400 --advertise fra.example.org:7400         at the new site

Exit codes:
  0  done
  1  failed
  2  wrong usage or settings; nothing was written
  3  refused: the site exists, or the certificate is not for it";

/// `filer init`.
#[derive(Args, Debug)]
pub struct Init {
    /// The site's name: letters, digits, '.', '_' and '-'
    pub name: String,
    /// The site's directory, to be made
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Asks to join a CloudFS: makes a key and a request to be signed
    #[arg(long, conflicts_with_all = ["certificate", "cloud_a", "cloud_b", "listen", "advertise", "nfs", "metrics", "set"])]
    pub join: bool,
    /// Joins a CloudFS with what filer sign made
    #[arg(long, value_name = "NAME.pem", conflicts_with_all = ["cloud_a", "cloud_b"])]
    pub certificate: Option<PathBuf>,
    /// The primary cloud: dir:PATH, s3://BUCKET?.., azure://ACCOUNT/CONTAINER?.. or gs://BUCKET?..
    #[arg(long, value_name = "CLOUD", requires = "cloud_b")]
    pub cloud_a: Option<String>,
    /// The secondary cloud, of another provider
    #[arg(long, value_name = "CLOUD", requires = "cloud_a")]
    pub cloud_b: Option<String>,
    /// Where peers' sessions are accepted
    #[arg(long, value_name = "IP:PORT", value_parser = address)]
    pub listen: Option<SocketAddr>,
    /// Under which host:port peers reach this site
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Where NFS is served, or off
    #[arg(long, value_name = "IP:PORT")]
    pub nfs: Option<String>,
    /// Where metrics are served, or off
    #[arg(long, value_name = "IP:PORT")]
    pub metrics: Option<String>,
    /// Any other setting of filer.toml but a secret, such as segments.seal_after="1 s"; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

pub(super) fn run(init: Init, out: &mut dyn Write) -> Result<(), CliError> {
    check_name(&init.name).map_err(CliError::Usage)?;
    let dir = site_dir(&init.dir)?;
    match (&init.certificate, init.join) {
        (Some(bundle), _) => join::accept(&init, bundle, &dir, out),
        (None, true) => join::request(&init.name, &dir, out),
        (None, false) => first(&init, &dir, out),
    }
}

/// The first site of a new CloudFS.
fn first(init: &Init, dir: &SiteDir, out: &mut dyn Write) -> Result<(), CliError> {
    let mut table = places::table_of(&Config::first(&init.name, dir.root()), dir);
    for (key, spec, name) in [("clouds.primary", &init.cloud_a, "a"), ("clouds.secondary", &init.cloud_b, "b")] {
        if let Some(spec) = spec {
            places::put(&mut table, key, places::cloud(spec, name)?.into())?;
        }
    }
    let (config, problems) = from_flags(init, table, dir)?;
    places::refuse(&problems)?;
    unused(dir, &[dir.identity(), dir.authority(), config.data_dir.clone()])?;

    let cloudfs = random_number()?;
    let site = SiteFile::new(&init.name, cloudfs, random_filer_id(&[])?, true, vec![]);
    make_dir(dir.root())?;
    let authority = MeshCa::create(&site.cloudfs_text(), &SystemClock)?;
    make_dir(&dir.authority())?;
    authority.save(&dir.authority())?;
    let request = SigningRequest::create(&site.name)?;
    make_dir(&dir.identity())?;
    request.save(&dir.identity())?;
    let certificate = authority.sign(&request.csr_pem, site.filer, VALID_DAYS, &SystemClock)?;
    let mut issued = Issued::new(&site.name, site.filer);
    issued.certificates.push(IssuedCertificate::of(&certificate)?);
    issued.write(dir, true)?;
    finish(dir, &site, &config, &certificate, authority.certificate_pem())?;

    let root = dir.root().display();
    say(
        out,
        &format!(
            "The first site of a new CloudFS is made in {root}.\n\
             \n\
             \x20 filer     {} ({})\n\
             \x20 CloudFS   {}\n\
             \x20 clouds    {}\n\
             \x20           {}\n\
             \n\
             Look at the settings in {}, then: filer serve --dir {root}\n\
             Keep a copy of {} in a safe place: new sites cannot be let in without it.{}",
            site.name,
            site.filer,
            site.cloudfs_text(),
            place(&config.clouds.primary),
            place(&config.clouds.secondary),
            dir.config_path().display(),
            dir.authority().display(),
            still_taken(&config),
        ),
    )
}

/// What is to be said behind all else where other programs have this site's ports, as another filer on this host does.
pub(super) fn still_taken(config: &Config) -> String {
    match &unavailable_to_all(config)[..] {
        [] => String::new(),
        taken => format!("\n\nAs this host is now, the site cannot serve on it:\n  {}", taken.join("\n  ")),
    }
}

fn place(entry: &CloudEntry) -> String {
    format!("{} ({}: {})", entry.name, entry.kind(), entry.settings.place())
}

/// The settings in `table` with those of the command line, and what is wrong with them.
pub(super) fn from_flags(
    init: &Init,
    mut table: toml::Table,
    dir: &SiteDir,
) -> Result<(Config, Vec<crate::config::Problem>), CliError> {
    let listen = init.listen.map(|listen| listen.to_string());
    let flags = [
        ("mesh.listen", &listen),
        ("mesh.advertise", &init.advertise),
        ("nfs.listen", &init.nfs),
        ("metrics.listen", &init.metrics),
    ];
    for (path, value) in flags {
        if let Some(value) = value {
            places::put(&mut table, path, value.as_str().into())?;
        }
    }
    // Before any is put, so that two of them in one command line are told of.
    for pair in &init.set {
        places::make_way(&mut table, pair);
    }
    for pair in &init.set {
        places::set(&mut table, pair)?;
    }
    let (config, mut problems) = Config::of_table(&table, &dir.config_path());
    if config.name != init.name {
        problems.push(crate::config::Problem {
            line: None,
            setting: "name".into(),
            what: format!("is \"{}\" by --set, and \"{}\" before; a site has one name", config.name, init.name),
        });
    }
    Ok((config, problems))
}

/// Refuses a directory that is a site already, in whole or in part.
pub(super) fn unused(dir: &SiteDir, more: &[PathBuf]) -> Result<(), CliError> {
    let files = [dir.config_path(), dir.site_path()];
    match files.iter().chain(more).find(|path| path.symlink_metadata().is_ok()) {
        None => Ok(()),
        Some(path) => Err(CliError::Refused(format!(
            "{} exists already, and nothing is overwritten: the settings of a site that is made are changed in its filer.toml; another site needs another --dir",
            path.display()
        ))),
    }
}

/// Writes what every site has: certificates, directories, settings, and at last `site.toml`.
pub(super) fn finish(
    dir: &SiteDir,
    site: &SiteFile,
    config: &Config,
    certificate: &str,
    ca: &str,
) -> Result<(), CliError> {
    write_new(&dir.identity().join(identity::CERTIFICATE_FILE), certificate, 0o644)?;
    write_new(&dir.identity().join(identity::CA_CERTIFICATE_FILE), ca, 0o644)?;
    make_dir(&config.data_dir)?;
    for entry in [&config.clouds.primary, &config.clouds.secondary] {
        if let CloudSettings::Directory(directory) = &entry.settings {
            make_dir(&directory.path)?;
        }
    }
    write_new(&dir.config_path(), &config.to_toml(dir.root()), 0o600)?;
    let text = toml::to_string(site).expect("plain data has a TOML form");
    let head = "# Who this site is. Made by filer init; not to be edited.\n";
    write_new(&dir.site_path(), &format!("{head}{text}"), 0o600)?;
    Ok(())
}

/// A random number that is not 0.
pub(super) fn random_number() -> Result<u64, CliError> {
    loop {
        let mut bytes = [0; 8];
        let read = std::fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
        read.map_err(|source| CliError::System { what: "drawing a random number from /dev/urandom".into(), source })?;
        if u64::from_ne_bytes(bytes) != 0 {
            return Ok(u64::from_ne_bytes(bytes));
        }
    }
}

/// A random id that is none of `taken`: not 0, and of 32 bits.
pub(super) fn random_filer_id(taken: &[FilerId]) -> Result<FilerId, CliError> {
    loop {
        let id = FilerId(random_number()? >> 32);
        if id.0 != 0 && !taken.contains(&id) {
            return Ok(id);
        }
    }
}

/// The text of a small file.
pub(super) fn read_text(path: &std::path::Path) -> Result<String, CliError> {
    const BYTES_MAX: u64 = 1 << 20;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text));
    read.map_err(|source| SiteError::File { path: path.into(), done: "read", source })?;
    Ok(text)
}

/// The text of a small file that the command line names. One that cannot be read is named wrongly.
pub(super) fn read_given(path: &std::path::Path) -> Result<String, CliError> {
    read_text(path).map_err(|error| CliError::Usage(chain(&error)))
}
