//! What a filer is told by its operator: `filer.toml`.
//!
//! The file is read strictly: a key that nobody knows is refused, a length of time or a size without its unit is
//! refused, and every problem is listed with its line and what to do, not only the first; of a file that is no TOML as a
//! whole, the first place where it breaks. The same description of the settings writes the commented file of `filer init`, so that
//! the two cannot drift apart.
//!
//! Owns: the settings, their defaults, limits and what they must be to each other; a site's directory. Does not own:
//! what is done with them.

#![expect(clippy::disallowed_methods, reason = "settings and a site's directory are real files")]

mod broken;
mod buckets;
mod checks;
mod clouds;
mod form;
mod kinds;
mod machine;
mod nfs;
mod sections;
pub(crate) mod site_dir;
#[cfg(test)]
mod tests;
mod written;

pub use clouds::{CloudEntry, CloudsSettings};
pub(crate) use clouds::{asks_for_credentials, holds_secret};
pub use kinds::{show_bytes, show_ms};
pub use nfs::NfsSettings;
pub use sections::{
    AdminSettings, CacheSettings, ConsistencySettings, Failback, HealthSettings, LogFormat, LogSettings, MeshSettings,
    MetricsSettings, Reads, SegmentSettings, StagingSettings, WithoutMajority,
};
pub use site_dir::{CONFIG_FILE, SITE_FILE, SiteDir, SiteError, SiteFile, SitePeer};

use form::{Form, Notes};
use kinds::{FilePath, Such, Text};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    path::{Path, PathBuf},
};
use toml::de::DeTable;

/// Largest settings file, in bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Everything that a filer is told. Paths are absolute, or relative to the current directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// This site's name, as its certificate has it.
    pub name: String,
    /// Where the filer keeps its state: staging, cache, replica.
    pub data_dir: PathBuf,
    pub mesh: MeshSettings,
    pub clouds: CloudsSettings,
    pub health: HealthSettings,
    pub segments: SegmentSettings,
    pub staging: StagingSettings,
    pub cache: CacheSettings,
    pub consistency: ConsistencySettings,
    pub nfs: NfsSettings,
    pub admin: AdminSettings,
    pub metrics: MetricsSettings,
    pub log: LogSettings,
}

/// One thing that is wrong with a settings file, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1; `None` where the whole file is meant.
    pub line: Option<usize>,
    /// Such as `segments.seal_after`; empty for a problem of the file's syntax.
    pub setting: String,
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.setting.is_empty() {
            write!(f, "{} ", self.setting)?;
        }
        f.write_str(&self.what)
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// The file is refused.
    #[error("{}", listed(path, problems))]
    Problems { path: PathBuf, problems: Vec<Problem> },
}

/// The text of the settings file at `path`, and that path from the root.
fn text_of(path: &Path) -> Result<(PathBuf, String), ConfigError> {
    use std::io::Read;
    let read = || -> std::io::Result<(PathBuf, Vec<u8>)> {
        let path = std::path::absolute(path)?;
        let mut bytes = vec![];
        std::fs::File::open(&path)?.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > CONFIG_BYTES_MAX {
            return Err(std::io::Error::other(format!("it is larger than {CONFIG_BYTES_MAX} bytes")));
        }
        Ok((path, bytes))
    };
    let (path, bytes) = read().map_err(|source| ConfigError::Read { path: path.into(), source })?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok((path, text)),
        Err(other) => {
            let before = &other.as_bytes()[..other.utf8_error().valid_up_to()];
            let line = Some(1 + before.iter().filter(|byte| **byte == b'\n').count());
            let what = "is no text in UTF-8 here; write it in UTF-8".into();
            Err(ConfigError::Problems { path, problems: vec![Problem { line, setting: String::new(), what }] })
        }
    }
}

/// Where relative paths in the settings file at `path` start.
fn folder_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_path_buf()
}

/// Whether a line of a settings file seems to set the admin socket, in whatever section it ended up.
fn names_a_socket(text: &str) -> bool {
    text.lines().map(str::trim_start).any(|line| !line.starts_with('#') && line.contains("socket"))
}

/// How many problems there are, in words.
fn counted(problems: &[Problem]) -> String {
    match problems.len() {
        1 => "1 problem".into(),
        n => format!("{n} problems"),
    }
}

fn listed(path: &Path, problems: &[Problem]) -> String {
    let count = counted(problems);
    let lines: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    format!("{} has {count}:{lines}", path.display())
}

impl Default for Config {
    fn default() -> Self {
        Self::first("filer", Path::new(""))
    }
}

impl Config {
    /// The settings of a filer alone: the defaults, with two directories below `base` as its clouds.
    pub fn first(name: &str, base: &Path) -> Self {
        let admin = AdminSettings::default();
        Self {
            name: name.into(),
            data_dir: base.join("data"),
            mesh: MeshSettings::default(),
            clouds: CloudsSettings::directories(base),
            health: HealthSettings::default(),
            segments: SegmentSettings::default(),
            staging: StagingSettings::default(),
            cache: CacheSettings::default(),
            consistency: ConsistencySettings::default(),
            nfs: NfsSettings::default(),
            admin: AdminSettings { socket: base.join(&admin.socket), ..admin },
            metrics: MetricsSettings::default(),
            log: LogSettings::default(),
        }
    }

    /// Reads the file at `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let (path, text) = text_of(path)?;
        Self::parse(&text, &path)
    }

    /// Reads the file at `path`, with which a filer is to serve on this machine: whatever it needs must be there too.
    /// `site`: the name that its certificate has, where there is one. `has_served`: a directory that is away now is a cloud that
    /// is out, and no mistake in the settings.
    pub fn load_to_serve(path: &Path, site: Option<&str>, has_served: bool) -> Result<Self, ConfigError> {
        let (path, text) = text_of(path)?;
        let (config, mut notes) = Self::read(&text, &path);
        if !notes.broken {
            machine::check(&config, site, has_served, &mut notes);
        }
        config.unless_refused(notes, &path)
    }

    /// The admin socket that the file at `path` names, for who needs nothing else of it: a filer that runs is asked by it
    /// whatever is wrong with other settings by now. If anything is, that is said too, in one line. The default is not asked
    /// where the file may well have named another one: that nobody answers there would be taken for a filer that is down.
    pub fn admin_socket(path: &Path) -> Result<(PathBuf, Option<String>), ConfigError> {
        let (path, text) = text_of(path)?;
        let (config, notes) = Self::read(&text, &path);
        let is_unread = ["admin", "admin.socket"].iter().any(|setting| notes.is_unread(setting));
        let is_lost = !notes.has("admin.socket") && (text.trim().is_empty() || names_a_socket(&text));
        let (socket, problems) = (config.admin.socket, notes.into_problems());
        if problems.is_empty() {
            return Ok((socket, None));
        }
        if is_unread || is_lost || problems.iter().any(|problem| problem.setting == "admin.socket") {
            return Err(ConfigError::Problems { path, problems });
        }
        let warning = format!(
            "{} has {}, which filer check-config lists; the filer is asked at {} all the same",
            path.display(),
            counted(&problems),
            socket.display()
        );
        Ok((socket, Some(warning)))
    }

    /// Reads the settings in `text`, which stands in the file at `path`: relative paths start in its directory.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let (config, notes) = Self::read(text, path);
        config.unless_refused(notes, path)
    }

    /// The settings in `table`, which are to stand in the file at `path`, as far as they can be read, and what is wrong with
    /// them. There is no file yet, so nothing has a line.
    pub(crate) fn of_table(table: &toml::Table, path: &Path) -> (Self, Vec<Problem>) {
        let mut notes = Notes::of_no_file(folder_of(path));
        let config = Self::filled(&table.to_string(), &mut notes);
        (config, notes.into_problems())
    }

    /// The settings in `text` as far as they can be read, and what is wrong with them.
    fn read(text: &str, path: &Path) -> (Self, Notes) {
        let base = folder_of(path);
        match broken::readable(text) {
            Ok(readable) => {
                let mut notes = Notes::new(&readable.text, base);
                (notes.faults, notes.problems) = (readable.faults, readable.repeats);
                let config = Self::filled(&readable.text, &mut notes);
                (config, notes)
            }
            Err(first) => {
                let mut notes = Notes::new(text, base);
                let config = Self::filled(text, &mut notes);
                (notes.broken, notes.problems) = (true, vec![first]);
                (config, notes)
            }
        }
    }

    fn filled(text: &str, notes: &mut Notes) -> Self {
        let (document, _) = DeTable::parse_recoverable(text);
        let mut config = Self::first("", &notes.base);
        Form::read(document.get_ref(), notes, |form| config.form(form));
        checks::check(&config, notes);
        config
    }

    fn unless_refused(self, notes: Notes, path: &Path) -> Result<Self, ConfigError> {
        match notes.into_problems() {
            problems if problems.is_empty() => Ok(self),
            problems => Err(ConfigError::Problems { path: path.into(), problems }),
        }
    }

    /// The commented settings file of a new filer `name`: every setting stands there, with its default.
    pub fn example(name: &str) -> String {
        let base = Path::new("/");
        Self::first(name, base).to_toml(base)
    }

    /// These settings as a commented file in the directory `base`: what differs from the defaults is set, the rest
    /// stands in comments.
    pub fn to_toml(&self, base: &Path) -> String {
        written::written(self, base)
    }

    fn form(&mut self, form: &mut Form<'_, '_>) {
        let doc = "This site's name, as its certificate has it.";
        form.need("name", doc, Such(Text(site_dir::check_name), "\"ams\""), &mut self.name);
        let doc = "Where the filer keeps its state: staging, cache and its replica of the CloudFS.";
        form.set("data_dir", doc, FilePath, &mut self.data_dir);
        form.section("mesh", "How this filer and its peers talk and agree.", |form| self.mesh.form(form));
        self.clouds_form(form);
        form.section("health", "When a cloud has failed, and when it is back.", |form| self.health.form(form));
        let doc = "The pieces in which data goes to the clouds.";
        form.section("segments", doc, |form| self.segments.form(form));
        form.section("staging", "What is not yet in the clouds.", |form| self.staging.form(form));
        form.section("cache", "What was read from the clouds.", |form| self.cache.form(form));
        form.section("consistency", "How fresh what clients see must be.", |form| self.consistency.form(form));
        form.section("nfs", "The door for NFS clients.", |form| self.nfs.form(form));
        form.section("admin", "The door for the operator.", |form| self.admin.form(form));
        form.section("metrics", "The door for monitoring.", |form| self.metrics.form(form));
        form.section("log", "To the standard error output.", |form| self.log.form(form));
    }

    fn clouds_form(&mut self, form: &mut Form<'_, '_>) {
        form.section("clouds", "", |form| self.clouds.form(form));
    }
}
