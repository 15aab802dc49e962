//! What settings must be to each other.

use super::{Config, clouds::CloudEntry, form::Notes, sections::Reads};
use std::{
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
};
use storage::clouds::CloudSettings;

/// The server of all buckets of AWS.
const AWS: &str = "s3.amazonaws.com";
/// That of AWS for the government of the US, whose buckets and accounts have nothing to do with the others.
const AWS_GOV: &str = "s3.us-gov";
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

/// Where a cloud's objects end up, as far as one failure or one deletion reaches: a server, and a bucket of it.
fn store(entry: &CloudEntry) -> Option<(String, String)> {
    match &entry.settings {
        CloudSettings::S3(s3) => {
            let own = if s3.region.starts_with("us-gov-") { AWS_GOV } else { AWS };
            Some((server(&s3.endpoint, own), s3.bucket.clone()))
        }
        CloudSettings::Azure(azure) => {
            let own = format!("{}.blob.core.windows.net", azure.account);
            Some((server(&azure.endpoint, &own), format!("{}/{}", azure.account, azure.container)))
        }
        CloudSettings::Gcs(gcs) => Some((server(&gcs.endpoint, "storage.googleapis.com"), gcs.bucket.clone())),
        CloudSettings::Directory(_) => None,
    }
}

/// The server behind an endpoint, or `own` without one.
fn server(endpoint: &Option<String>, own: &str) -> String {
    let Some(endpoint) = endpoint else { return own.into() };
    let endpoint = endpoint.to_ascii_lowercase();
    let address = endpoint.split_once("://").map_or(endpoint.as_str(), |(_, address)| address).trim_end_matches('/');
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    let host = [":443", ":80"].iter().find_map(|port| host.strip_suffix(*port)).unwrap_or(host);
    // One name is one bucket at all of its addresses.
    let is_s3 = |label: &str| label == "s3" || label.starts_with("s3-");
    let is_gov = |label: &str| label.starts_with("us-gov-") || (label.starts_with("s3-") && label.contains("-us-gov-"));
    if host.ends_with(".amazonaws.com") && host.split('.').any(is_s3) {
        return if host.split('.').any(is_gov) { AWS_GOV.into() } else { AWS.into() };
    }
    if path.is_empty() { host.into() } else { format!("{host}/{path}") }
}

/// The setting that says where in its store a cloud's objects are.
fn place_of(entry: &CloudEntry) -> &'static str {
    match entry.settings {
        CloudSettings::Directory(_) => "path",
        CloudSettings::Azure(_) => "container",
        CloudSettings::S3(_) | CloudSettings::Gcs(_) => "bucket",
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
    let [first, second] = ["clouds.primary.name", "clouds.secondary.name"];
    if given(notes, first) && given(notes, second) && primary.name == secondary.name {
        let (name, origin) = (&primary.name, notes.origin(first));
        let what = format!("\"{name}\" is the name of clouds.primary too{origin}; give each cloud a name of its own");
        notes.problem(second, what);
    }
    for (setting, name, other, letter) in
        [(first, &primary.name, "secondary", "b"), (second, &secondary.name, "primary", "a")]
    {
        if given(notes, setting) && name == letter {
            let what = format!("\"{name}\" is how commands and logs call the {other} cloud; choose another name");
            notes.problem(setting, what);
        }
    }
    let [first, second] =
        [format!("clouds.primary.{}", place_of(primary)), format!("clouds.secondary.{}", place_of(secondary))];
    let same = match (&primary.settings, &secondary.settings) {
        (CloudSettings::Directory(a), CloudSettings::Directory(b)) => overlap(&a.path, &b.path),
        _ => store(primary).is_some() && store(primary) == store(secondary),
    };
    if given(notes, &first) && given(notes, &second) && same {
        let what = format!(
            "is the same place as clouds.primary{}: one failure would take both; name another {}",
            notes.origin(&first),
            place_of(secondary)
        );
        notes.problem(&second, what);
    }
    for (key, entry) in [("primary", primary), ("secondary", secondary)] {
        let setting = format!("clouds.{key}.path");
        if let CloudSettings::Directory(directory) = &entry.settings
            && given(notes, &setting)
            && !notes.is_unread("data_dir")
            && overlap(&directory.path, &config.data_dir)
        {
            let origin = notes.origin("data_dir");
            let what = format!("and data_dir{origin} lie one within the other; give the cloud a directory of its own");
            notes.problem(&setting, what);
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
    for (at, &(setting, address)) in tcp.iter().enumerate() {
        for &(other, taken) in &tcp[..at] {
            if let (Some(address), Some(taken)) = (address, taken)
                && collide(address, taken)
                && !notes.is_unread(setting)
                && !notes.is_unread(other)
            {
                // The one that the file sets is to blame.
                let pair = [(setting, address), (other, taken)];
                let [(blamed, address), (other, taken)] =
                    if notes.has(setting) || !notes.has(other) { pair } else { [pair[1], pair[0]] };
                let origin = notes.origin(other);
                let what = format!("\"{address}\" collides with {other} = \"{taken}\"{origin}; choose another port");
                notes.problem(blamed, what);
            }
        }
    }
}

fn exports(config: &Config, notes: &mut Notes) {
    let exports = &config.nfs.exports;
    if notes.is_unread("nfs.exports") {
        return;
    }
    let open = config.nfs.listen.filter(|listen| !listen.ip().is_loopback());
    if let Some(listen) = open
        && !notes.has("nfs.exports")
    {
        let what = format!(
            "= \"{listen}\" is open to other machines, and nothing says which of them may come; add a section [[nfs.exports]] with path = \"/\" and such as networks = [\"10.1.0.0/16\"]"
        );
        notes.problem("nfs.listen", what);
        return;
    }
    for (at, export) in exports.iter().enumerate() {
        let setting = |at: usize, key: &str| format!("nfs.exports.{at}.{key}");
        let path = setting(at, "path");
        let is_same = |other: &usize| exports[*other].path == export.path && given(notes, &setting(*other, "path"));
        if given(notes, &path)
            && let Some(first) = (0..at).find(is_same)
        {
            let (path_there, line) = (&export.path, notes.origin(&setting(first, "path")));
            let what = format!("\"{path_there}\" is exported already{line}; keep one of them");
            notes.problem(&path, what);
        }
        let networks = setting(at, "networks");
        if notes.has(&networks) {
            if export.networks.is_empty() && !notes.is_unread(&networks) {
                notes.problem(&networks, "is empty, so that nobody could mount; name the clients' networks");
            }
        } else if let Some(listen) = open {
            let what = format!(
                "is missing: nfs.listen = \"{listen}\" is open to other machines; add such as networks = [\"10.1.0.0/16\"]"
            );
            notes.problem(&networks, what);
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
    let Some(listen) = admin.listen.filter(|_| !notes.is_unread("admin.listen")) else { return };
    if !listen.ip().is_loopback() {
        let what = format!("\"{listen}\" is no loopback address; use 127.0.0.1 or [::1]");
        notes.problem("admin.listen", what);
    }
    if admin.token_file.is_none() && !notes.is_unread("admin.token_file") {
        let what = "is missing: admin.listen needs it; add token_file, or set listen = \"off\"";
        notes.problem_beside("admin.listen", "admin.token_file", what);
    }
}

/// Pairs of which the first may not be larger than the second.
fn orders(config: &Config, notes: &mut Notes) {
    let (mesh, health, segments) = (&config.mesh, &config.health, &config.segments);
    let t = &mesh.transport;
    let times = [
        ("mesh.election_min", mesh.election_ms_min, "mesh.election_max", mesh.election_ms_max, 2),
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
        ("segments.seal_idle_alone", segments.seal_idle_alone_ms, "segments.seal_idle", segments.seal_idle_ms, 1),
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
        if little.saturating_mul(factor) > much && !notes.is_unread(small) && !notes.is_unread(large) {
            let times = if factor == 1 { String::new() } else { format!("{factor} times ") };
            // The one that the file sets is to blame.
            let blamed = if notes.has(small) || !notes.has(large) { small } else { large };
            let (little, much) = (show(little), show(much));
            let what = if blamed == small {
                let origin = notes.origin(large);
                format!("= \"{little}\" is too large: {times}it must fit in {large} = \"{much}\"{origin}")
            } else {
                let origin = notes.origin(small);
                format!("= \"{much}\" is too small: {times}{small} = \"{little}\"{origin} must fit in it")
            };
            notes.problem(blamed, what);
        }
    }
}

/// A delete must come behind every put and every reader of what it deletes.
fn deletes(config: &Config, notes: &mut Notes) {
    const GRACE: &str = "segments.delete_grace";
    let grace_ms = config.segments.delete_grace_ms;
    if notes.is_unread(GRACE) {
        return;
    }
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
        let causes = [format!("{why}.request_timeout"), format!("{why}.time_per_mib"), "segments.bytes_max".into()];
        let cause = causes.iter().find(|cause| notes.has(cause)).filter(|_| !notes.has(GRACE));
        notes.problem_beside(cause.map_or(GRACE, String::as_str), GRACE, what);
    }
    let stale_ms = config.consistency.stale_within_ms;
    if config.consistency.reads == Reads::Stale && grace_ms < stale_ms {
        let what = format!(
            "= \"{}\" is too short: readers may see a state as old as consistency.stale_within = \"{}\", and need the segments of it; set that or more",
            super::show_ms(grace_ms),
            super::show_ms(stale_ms)
        );
        let cause = if notes.has(GRACE) { GRACE } else { "consistency.stale_within" };
        notes.problem_beside(cause, GRACE, what);
    }
}

/// Whether the file has this setting, with a value that may be judged.
fn given(notes: &Notes, path: &str) -> bool {
    notes.has(path) && !notes.is_unread(path)
}
