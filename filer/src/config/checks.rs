//! What settings must be to each other.

use super::{Config, clouds::CloudEntry, form::Notes, sections::Reads};
use std::{
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};
use storage::clouds::CloudSettings;

/// Longest path of a Unix socket, in bytes, with room for the name under which it is made.
const SOCKET_PATH_BYTES_MAX: usize = 95;

/// Notes every contradiction.
pub(super) fn check(config: &Config, notes: &mut Notes) {
    clouds(config, notes);
    listeners(config, notes);
    exports(config, notes);
    admin(config, notes);
    orders(config, notes);
    deletes(config, notes);
}

/// Where a cloud's objects end up, as far as one failure or one deletion reaches.
fn store(entry: &CloudEntry) -> Option<String> {
    let host = |endpoint: &Option<String>, default: &str| {
        endpoint.as_deref().unwrap_or(default).trim_end_matches('/').to_ascii_lowercase()
    };
    match &entry.settings {
        CloudSettings::S3(s3) => Some(format!("{} {}", host(&s3.endpoint, "s3"), s3.bucket)),
        CloudSettings::Azure(azure) => {
            Some(format!("{} {} {}", host(&azure.endpoint, "azure"), azure.account, azure.container))
        }
        CloudSettings::Gcs(gcs) => Some(format!("{} {}", host(&gcs.endpoint, "gcs"), gcs.bucket)),
        CloudSettings::Directory(_) => None,
    }
}

/// Where a path leads: links and `..` are followed as far as it exists.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    for part in path.ancestors() {
        let (Ok(mut real), Ok(rest)) = (part.canonicalize(), path.strip_prefix(part)) else { continue };
        for name in rest.components() {
            match name {
                Component::ParentDir => drop(real.pop()),
                name => real.push(name),
            }
        }
        return real;
    }
    path
}

/// Whether two directories are one, or one lies in the other; by whatever names.
fn overlap(a: &Path, b: &Path) -> bool {
    let (a, b) = (real(a), real(b));
    let inode = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
    // One directory that is mounted twice has two real names.
    a.starts_with(&b) || b.starts_with(&a) || (inode(&a).is_some() && inode(&a) == inode(&b))
}

fn clouds(config: &Config, notes: &mut Notes) {
    let (primary, secondary) = (&config.clouds.primary, &config.clouds.secondary);
    if notes.line_of("clouds.primary").is_none() || notes.line_of("clouds.secondary").is_none() {
        return;
    }
    if !primary.name.is_empty() && primary.name == secondary.name {
        let what = format!("\"{}\" is the name of clouds.primary too; give each cloud a name of its own", primary.name);
        notes.problem("clouds.secondary.name", what);
    }
    for (setting, name, other, letter) in [
        ("clouds.primary.name", &primary.name, "secondary", "b"),
        ("clouds.secondary.name", &secondary.name, "primary", "a"),
    ] {
        if name == letter {
            let what = format!("\"{name}\" is how commands and logs call the {other} cloud; choose another name");
            notes.problem(setting, what);
        }
    }
    let same = match (&primary.settings, &secondary.settings) {
        (CloudSettings::Directory(a), CloudSettings::Directory(b)) => overlap(&a.path, &b.path),
        _ => primary.kind_of() == secondary.kind_of() && store(primary) == store(secondary),
    };
    let key = match &secondary.settings {
        CloudSettings::Directory(_) => "path",
        CloudSettings::Azure(_) => "container",
        CloudSettings::S3(_) | CloudSettings::Gcs(_) => "bucket",
    };
    let line = notes.line_of(&format!("clouds.secondary.{key}"));
    let filled = line.is_some() && line != notes.line_of("clouds.secondary");
    if same && filled {
        let first = notes.line_of(&format!("clouds.primary.{key}")).map_or(String::new(), |n| format!(" (line {n})"));
        let what =
            format!("is the same place as clouds.primary{first}: one failure would take both; name another {key}");
        notes.problem(&format!("clouds.secondary.{key}"), what);
    }
    for (key, entry) in [("primary", primary), ("secondary", secondary)] {
        if let CloudSettings::Directory(directory) = &entry.settings
            && overlap(&directory.path, &config.data_dir)
        {
            let what = "and data_dir lie one within the other; give the cloud a directory of its own";
            notes.problem(&format!("clouds.{key}.path"), what);
        }
    }
}

/// Whether two listeners of one protocol cannot both be bound.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let everywhere =
        |one: SocketAddr, other: SocketAddr| one.ip().is_unspecified() && (one.is_ipv6() || other.is_ipv4());
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || everywhere(a, b) || everywhere(b, a))
}

fn listeners(config: &Config, notes: &mut Notes) {
    // The mesh is UDP and cannot be in the way of these.
    let tcp = [
        ("nfs.listen", config.nfs.listen),
        ("nfs.portmap_listen", config.nfs.portmap_listen),
        ("admin.listen", config.admin.listen),
        ("metrics.listen", config.metrics.listen),
    ];
    for (at, (setting, address)) in tcp.iter().enumerate() {
        for (other, taken) in &tcp[..at] {
            if let (Some(address), Some(taken)) = (address, taken)
                && collide(*address, *taken)
            {
                let what = format!("\"{address}\" collides with {other} = \"{taken}\"; choose another port");
                notes.problem(setting, what);
            }
        }
    }
}

fn exports(config: &Config, notes: &mut Notes) {
    let exports = &config.nfs.exports;
    for (at, export) in exports.iter().enumerate() {
        if let Some(first) = exports[..at].iter().position(|earlier| earlier.path == export.path) {
            let line =
                notes.line_of(&format!("nfs.exports.{first}.path")).map_or(String::new(), |n| format!(" in line {n}"));
            let what = format!("\"{}\" is exported already{line}; keep one of them", export.path);
            notes.problem(&format!("nfs.exports.{at}.path"), what);
        }
        let setting = format!("nfs.exports.{at}.networks");
        if set(notes, &setting) {
            if export.networks.is_empty() && !notes.problems.iter().any(|problem| problem.setting == setting) {
                notes.problem(&setting, "is empty, so that nobody could mount; name the clients' networks");
            }
        } else if let Some(listen) = config.nfs.listen
            && !listen.ip().is_loopback()
        {
            let what = format!(
                "is missing: nfs.listen = \"{listen}\" is open to other machines; add such as networks = [\"10.1.0.0/16\"]"
            );
            notes.problem(&setting, what);
        }
    }
}

fn admin(config: &Config, notes: &mut Notes) {
    let admin = &config.admin;
    let bytes = admin.socket.as_os_str().len();
    if bytes > SOCKET_PATH_BYTES_MAX {
        let what = format!(
            "is a path of {bytes} bytes ({}), and the system takes {SOCKET_PATH_BYTES_MAX} here; choose a shorter one, such as \"/run/filer.sock\"",
            admin.socket.display()
        );
        notes.problem("admin.socket", what);
    }
    let Some(listen) = admin.listen else { return };
    if !listen.ip().is_loopback() {
        let what = format!("\"{listen}\" is no loopback address; use 127.0.0.1 or [::1]");
        notes.problem("admin.listen", what);
    }
    if admin.token_file.is_none() {
        notes.problem("admin.token_file", "is missing: admin.listen needs it; add token_file, or set listen = \"off\"");
    }
}

/// Pairs of which the first may not be larger than the second.
fn orders(config: &Config, notes: &mut Notes) {
    let (mesh, health, segments) = (&config.mesh, &config.health, &config.segments);
    let t = &mesh.transport;
    let times = [
        ("mesh.election_min", mesh.election_ms_min, "mesh.election_max", mesh.election_ms_max, 1),
        ("mesh.heartbeat", mesh.heartbeat_ms, "mesh.election_min", mesh.election_ms_min, 2),
        ("mesh.keep_alive", t.keep_alive_ms, "mesh.idle_max", t.idle_ms_max, 2),
        ("mesh.redial_min", t.redial_ms_min, "mesh.redial_max", t.redial_ms_max, 1),
        (
            "health.attempt_backoff_min",
            health.attempt_backoff_ms_min,
            "health.attempt_backoff_max",
            health.attempt_backoff_ms_max,
            1,
        ),
        (
            "health.probe_backoff_min",
            health.probe_backoff_ms_min,
            "health.probe_backoff_max",
            health.probe_backoff_ms_max,
            1,
        ),
    ];
    let sizes = [
        ("segments.frame_bytes_max", segments.frame_bytes_max, "segments.bytes_max", segments.bytes_max, 2),
        ("segments.seal_idle_bytes_min", segments.seal_idle_bytes_min, "segments.bytes_max", segments.bytes_max, 1),
        ("segments.seal_ahead_bytes_min", segments.seal_ahead_bytes_min, "segments.bytes_max", segments.bytes_max, 1),
        ("segments.bytes_max", segments.bytes_max, "staging.bytes_max", config.staging.bytes_max, 2),
        (
            "segments.frame_bytes_max",
            segments.frame_bytes_max,
            "cache.memory_bytes_max",
            config.cache.memory_bytes_max,
            1,
        ),
    ];
    let times = times.map(|pair| (pair, super::show_ms as fn(u64) -> String));
    let sizes = sizes.map(|pair| (pair, super::show_bytes as fn(u64) -> String));
    for ((small, little, large, much, factor), show) in times.into_iter().chain(sizes) {
        if little.saturating_mul(factor) > much {
            let times = if factor == 1 { String::new() } else { format!("{factor} times ") };
            // The one that the file sets is to blame.
            let blamed = if set(notes, small) || !set(notes, large) { small } else { large };
            let what = if blamed == small {
                format!("= \"{}\" is too large: {times}it must fit in {large} = \"{}\"", show(little), show(much))
            } else {
                format!("= \"{}\" is too small: {times}{small} = \"{}\" must fit in it", show(much), show(little))
            };
            notes.problem(blamed, what);
        }
    }
}

/// A delete must come behind every put and every reader of what it deletes.
fn deletes(config: &Config, notes: &mut Notes) {
    let grace_ms = config.segments.delete_grace_ms;
    // Puts that share their link may take longer, up to half of the grace period.
    let put_ms = |entry: &CloudEntry| {
        let longest = entry.settings.limits().deadline(config.segments.bytes_max);
        u64::try_from(longest.as_millis()).unwrap_or(u64::MAX)
    };
    let clouds = [("clouds.primary", &config.clouds.primary), ("clouds.secondary", &config.clouds.secondary)];
    let longest = clouds.map(|(name, entry)| (put_ms(entry), name)).into_iter().max().unwrap_or_default();
    // Copies begin in its first half, and the second half is for them to end in.
    let (least_ms, why) = (longest.0.saturating_mul(2), longest.1);
    if grace_ms < least_ms {
        let what = format!(
            "= \"{}\" is too short: one put to {why} may take \"{}\" (request_timeout, and time_per_mib for segments.bytes_max), and one that is begun in the first half must not arrive behind the delete; set \"{}\" or more",
            super::show_ms(grace_ms),
            super::show_ms(longest.0),
            super::show_ms(least_ms)
        );
        notes.problem("segments.delete_grace", what);
    }
    let stale_ms = config.consistency.stale_within_ms;
    if config.consistency.reads == Reads::Stale && grace_ms < stale_ms {
        let what = format!(
            "= \"{}\" is too short: readers may see a state as old as consistency.stale_within = \"{}\", and need the segments of it; set that or more",
            super::show_ms(grace_ms),
            super::show_ms(stale_ms)
        );
        notes.problem("segments.delete_grace", what);
    }
}

/// Whether the file sets this itself.
fn set(notes: &Notes, path: &str) -> bool {
    let section = path.rfind('.').map(|at| &path[..at]);
    notes.line_of(path).is_some_and(|line| section.and_then(|s| notes.line_of(s)) != Some(line))
}
