//! A site's directory: everything that a filer keeps, and what each file is.
//!
//! ```text
//! filer.toml      the settings (0600: they may hold credentials)
//! site.toml       who this site is: ids, name, the peers it knew when it was made
//! served          made when its filer first had its tables: from then on they must be there
//! identity/       ca.pem  filer.pem  filer.key (0600)  filer.csr  filer.key.next (0600, during a renewal)
//! authority/      ca.pem  ca.key (0600)  issued/        at the first site alone
//! data/           staging, cache, replica
//! clouds/         two directories, where the settings name no other clouds
//! ```
//!
//! Owns: where files are and the form of `site.toml`. Does not own: making them (`cli::init`), keys (`mesh::net`).

use super::{Config, ConfigError};
use mesh::{FilerId, peers::Member};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
};

/// The settings, in a site's directory.
pub const CONFIG_FILE: &str = "filer.toml";
/// Who the site is, in its directory.
pub const SITE_FILE: &str = "site.toml";
/// Version of the form of `site.toml`.
pub const SITE_VERSION: u32 = 1;
/// Says that the site's filer has had its tables, in its directory.
const SERVED_FILE: &str = "served";

/// A site's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteDir {
    root: PathBuf,
}

/// What `site.toml` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteFile {
    /// Version of the form.
    pub version: u32,
    /// The site's name, as its certificate has it.
    pub name: String,
    /// The CloudFS's id: never 0.
    #[serde(with = "hexadecimal")]
    pub cloudfs: u64,
    /// This filer's id: never 0, at most 32 bits.
    #[serde(with = "filer_id")]
    pub filer: FilerId,
    /// Whether this site made the CloudFS: its filer starts the replicated log, and its authority signs.
    pub first: bool,
    /// The peers that were known when the site was made: where a new filer asks to be let in.
    #[serde(default)]
    pub peers: Vec<SitePeer>,
}

/// A filer, and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SitePeer {
    #[serde(with = "filer_id")]
    pub id: FilerId,
    pub name: String,
    /// `host:port` of its mesh door.
    pub address: String,
}

impl SiteFile {
    /// What the file of a new site says.
    pub fn new(name: &str, cloudfs: u64, filer: FilerId, first: bool, peers: Vec<SitePeer>) -> Self {
        Self { version: SITE_VERSION, name: name.into(), cloudfs, filer, first, peers }
    }

    /// The CloudFS's id as certificates have it.
    pub fn cloudfs_text(&self) -> String {
        cloudfs_text(self.cloudfs)
    }

    /// The known peers, as the mesh takes them.
    pub fn members(&self) -> BTreeMap<FilerId, Member> {
        let member = |peer: &SitePeer| (peer.id, Member { name: peer.name.clone(), address: peer.address.clone() });
        self.peers.iter().map(member).collect()
    }
}

/// A CloudFS's id as certificates have it: 16 hexadecimal digits.
pub fn cloudfs_text(cloudfs: u64) -> String {
    format!("{cloudfs:016x}")
}

/// Why a site's directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// Nothing was made there yet.
    #[error("{} is no site's directory: it has no {SITE_FILE}; name the one that is meant with --dir, or make one with: filer init NAME --dir {}", dir.display(), dir.display())]
    Missing { dir: PathBuf },
    /// A file cannot be read or written.
    #[error("{} cannot be {done}", path.display())]
    File { path: PathBuf, done: &'static str, source: std::io::Error },
    /// A file is not what it should be.
    #[error("{}: {what}", path.display())]
    Content { path: PathBuf, what: String },
    /// The settings are refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl SiteDir {
    /// The directory `root`, which need not exist yet.
    pub fn new(root: &Path) -> std::io::Result<Self> {
        Ok(Self { root: std::path::absolute(root)? })
    }

    /// The directory itself; absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `filer.toml`.
    pub fn config_path(&self) -> PathBuf {
        self.root.join(CONFIG_FILE)
    }

    /// `site.toml`.
    pub fn site_path(&self) -> PathBuf {
        self.root.join(SITE_FILE)
    }

    /// The folder for `mesh::net::Identity::load`.
    pub fn identity(&self) -> PathBuf {
        self.root.join("identity")
    }

    /// The folder for `mesh::net::MeshCa::load`; at the first site alone.
    pub fn authority(&self) -> PathBuf {
        self.root.join("authority")
    }

    /// Whether the site's filer has had its tables.
    pub fn has_served(&self) -> bool {
        self.root.join(SERVED_FILE).exists()
    }

    /// Notes durably that the site's filer has its tables. From then on empty ones are not its own: with them it would
    /// use the names of its old segments again, vote anew where it has voted, or make a second CloudFS.
    pub fn note_served(&self) -> Result<(), SiteError> {
        if self.has_served() {
            return Ok(());
        }
        write_new(&self.root.join(SERVED_FILE), "This site's filer has kept data. Its tables must be there.\n", 0o600)?;
        let synced = std::fs::File::open(&self.root).and_then(|root| root.sync_all());
        synced.map_err(|source| SiteError::File { path: self.root.clone(), done: "synced", source })
    }

    /// Reads `filer.toml`.
    pub fn config(&self) -> Result<Config, SiteError> {
        Ok(Config::load(&self.config_path())?)
    }

    /// The filer's admin socket, and what is to be said of the settings that name it: see [`Config::admin_socket`].
    pub fn admin_socket(&self) -> Result<(PathBuf, Option<String>), SiteError> {
        Ok(Config::admin_socket(&self.config_path())?)
    }

    /// Reads `site.toml`.
    pub fn site(&self) -> Result<SiteFile, SiteError> {
        let path = self.site_path();
        let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => SiteError::Missing { dir: self.root.clone() },
            _ => SiteError::File { path: path.clone(), done: "read", source },
        })?;
        let unfit = |what: String| SiteError::Content { path: path.clone(), what };
        // Looked at first: what a newer program has written may not even be known by name.
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| unfit(e.to_string().trim_end().into()))?;
        match table.get("version").and_then(toml::Value::as_integer) {
            Some(version) if version == i64::from(SITE_VERSION) => {}
            Some(version) => {
                return Err(unfit(format!("it has version {version}, and this program reads {SITE_VERSION}")));
            }
            None => return Err(unfit("it has no version; restore the file from a copy".into())),
        }
        let site: SiteFile = toml::from_str(&text).map_err(|e| unfit(e.to_string().trim_end().to_string()))?;
        if site.filer.0 == 0 || site.cloudfs == 0 {
            return Err(SiteError::Content { path, what: "an id is 0; restore the file from a copy".into() });
        }
        Ok(site)
    }
}

/// Writes a new file, never over an existing one.
pub(crate) fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), SiteError> {
    use std::os::unix::fs::OpenOptionsExt;
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| SiteError::File { path: path.into(), done: "written", source })
}

/// Writes a file as a whole, over the one before: a reader finds the old one or the new one, after a crash too.
pub(crate) fn write_over(path: &Path, text: &str, mode: u32) -> Result<(), SiteError> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let aside = path.with_file_name(name);
    remove(&aside)?;
    write_new(&aside, text, mode)?;
    rename(&aside, path)
}

/// Gives a file another name in its directory, durably; what had that name before is gone.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), SiteError> {
    // The parent of a path of one word is empty, and no directory.
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let sync = || std::fs::File::open(folder)?.sync_all();
    let renamed = std::fs::rename(from, to).and_then(|()| sync());
    renamed.map_err(|source| SiteError::File { path: to.into(), done: "written", source })
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), SiteError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(SiteError::File { path: path.into(), done: "removed", source })
        }
        _ => Ok(()),
    }
}

/// Makes a directory that its owner alone can enter, with those around it.
pub(crate) fn make_dir(path: &Path) -> Result<(), SiteError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| SiteError::File { path: path.into(), done: "made", source })
}

/// Whether `name` can name a filer: what certificates take, and good as the beginning of a file's name.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let fits = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && name.as_bytes()[0].is_ascii_alphanumeric();
    if fits {
        return Ok(());
    }
    Err(format!(
        "\"{name}\" cannot name a filer; use 1 to 63 letters, digits, '.', '_' and '-', beginning with a letter or digit"
    ))
}

mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(id: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::cloudfs_text(*id))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        u64::from_str_radix(&text, 16).map_err(|_| D::Error::custom(format!("\"{text}\" is not 16 hexadecimal digits")))
    }
}

mod filer_id {
    use mesh::FilerId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(id: &FilerId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<FilerId, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(|_| D::Error::custom(format!("\"{text}\" is not a filer's id")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_file_reads_back_and_a_foreign_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let site_dir = SiteDir::new(dir.path()).unwrap();
        assert!(matches!(site_dir.site(), Err(SiteError::Missing { .. })));
        let peer = SitePeer { id: FilerId(0xbeef), name: "ams".into(), address: "ams.example.org:7400".into() };
        let site = SiteFile::new("fra", u64::MAX, FilerId(7), false, vec![peer]);
        write_new(&site_dir.site_path(), &toml::to_string(&site).unwrap(), 0o600).unwrap();
        assert_eq!(site_dir.site().unwrap(), site);
        assert_eq!(site.members()[&FilerId(0xbeef)].name, "ams");
        assert!(write_new(&site_dir.site_path(), "", 0o600).is_err(), "nothing is overwritten");
        let newer = toml::to_string(&site).unwrap().replace("version = 1", "version = 2\nnovelty = true");
        for wrong in ["name = 7", "version = 1\nname = 7", &newer] {
            std::fs::write(site_dir.site_path(), wrong).unwrap();
            assert!(matches!(site_dir.site(), Err(SiteError::Content { .. })), "{wrong}");
        }
        assert!(site_dir.site().unwrap_err().to_string().contains("it has version 2"));
    }

    #[test]
    fn names_fit_certificates_and_files() {
        for name in ["ams", "ams-1.example", "9"] {
            assert_eq!(check_name(name), Ok(()));
        }
        for name in ["", "-x", ".hidden", "a/b", "a b", "ä", &"x".repeat(64)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
