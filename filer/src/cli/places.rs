//! Settings from the command line: `--cloud-a s3://..` and `--set key=value`, merged into the settings of a new site.

use super::CliError;
use crate::config::{Config, Problem, SiteDir, holds_secret};
use toml::{Table, Value};

/// The `[clouds.primary]` or `[clouds.secondary]` that `spec` names.
///
/// `dir:PATH?..`, `s3://BUCKET/PREFIX?..`, `azure://ACCOUNT/CONTAINER/PREFIX?..`, `gs://BUCKET/PREFIX?..`; behind the `?`
/// further settings of the section, such as `region=eu-west-1&access_key_id_env=ID`. None of them may be a secret.
pub(super) fn cloud(spec: &str, name: &str) -> Result<Table, CliError> {
    let wrong = |why: &str| {
        CliError::Usage(format!(
            "the cloud \"{spec}\" {why}; write dir:PATH, s3://BUCKET, azure://ACCOUNT/CONTAINER or gs://BUCKET, \
             with more settings behind a ?, such as s3://files?region=eu-west-1&machine_role=true"
        ))
    };
    let mut table = Table::from_iter([("name".to_string(), Value::from(name))]);
    if let Some(place) = spec.strip_prefix("dir:") {
        let (path, query) = place.split_once('?').unwrap_or((place, ""));
        let path = std::path::absolute(path).map_err(|_| wrong("has no path"))?;
        table.insert("kind".into(), "directory".into());
        table.insert("path".into(), path.to_string_lossy().into_owned().into());
        add(&mut table, query, &wrong)?;
        return Ok(table);
    }
    // Before anything of it is repeated.
    let (scheme, rest) = spec.split_once("://").unwrap_or(("", spec));
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    if let Some(part) = connection_string(spec).or_else(|| secret_part(rest)) {
        let from = match scheme {
            "azure" => "access_key_env=NAME (or sas_env=NAME)",
            "gs" | "gcs" => "service_account_path=FILE",
            _ => "access_key_id_env=NAME&secret_access_key_env=NAME",
        };
        return Err(CliError::Usage(format!(
            "--cloud-{name} holds a secret, {part}, and a command line can be read by everybody on this machine; credentials \
             belong into environment variables, or files (.._file=FILE), that the settings name: write {from} behind the ?"
        )));
    }
    let (kind, names): (_, &[&str]) = match scheme {
        "s3" => ("s3", &["bucket"]),
        "azure" => ("azure", &["account", "container"]),
        "gs" | "gcs" => ("gcs", &["bucket"]),
        "" => return Err(wrong("has no kind")),
        _ => return Err(wrong("is of no known kind")),
    };
    table.insert("kind".into(), kind.into());
    let mut parts = place.trim_end_matches('/').splitn(names.len() + 1, '/');
    for name in names {
        let part = parts.next().filter(|part| !part.is_empty()).ok_or_else(|| wrong(&format!("names no {name}")))?;
        table.insert(name.to_string(), part.into());
    }
    if let Some(prefix) = parts.next() {
        table.insert("prefix".into(), prefix.into());
    }
    add(&mut table, query, &wrong)?;
    Ok(table)
}

/// Adds the settings behind the `?`.
fn add(table: &mut Table, query: &str, wrong: &dyn Fn(&str) -> CliError) -> Result<(), CliError> {
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| wrong(&format!("has \"{pair}\" without =")))?;
        let value = unescaped(value).ok_or_else(|| wrong(&format!("has a broken %-escape in \"{key}\"")))?;
        table.insert(key.into(), value.parse::<bool>().map_or(Value::from(value.clone()), Value::from));
    }
    Ok(())
}

/// That a cloud is named by what Azure's portal gives to be copied, if it is, in words that do not show its key.
fn connection_string(spec: &str) -> Option<String> {
    let spec = spec.to_ascii_lowercase();
    let is_one = ["accountkey=", "sharedaccesssignature="].iter().any(|part| spec.contains(part));
    is_one.then(|| "a connection string".to_string())
}

/// What of a cloud's place and settings (`rest`: behind the `://`) is a secret, in words that do not show it.
fn secret_part(rest: &str) -> Option<String> {
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let host = |place: &str| place.split('/').next().unwrap_or_default().to_owned();
    // A password may hold a slash or a question mark itself.
    if host(place).contains('@') || (host(place).contains(':') && rest.contains('@')) {
        return Some("user:password@ before its place".into());
    }
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if holds_secret(key) {
            return Some(format!("{key}=.. behind the ?"));
        }
        let url = unescaped(value)?;
        let (_, place) = url.split_once("://")?;
        host(place).contains('@').then(|| format!("user:password@ in {key}"))
    })
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = vec![];
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok()
}

/// Puts `value` at `path`, such as `segments.seal_after`.
pub(super) fn put(table: &mut Table, path: &str, value: Value) -> Result<(), CliError> {
    let (mut table, mut rest) = (table, path);
    while let Some((section, inner)) = rest.split_once('.') {
        let found = table.entry(section).or_insert_with(|| Table::new().into());
        let Value::Table(inside) = found else {
            return Err(CliError::Usage(format!("--set {path}: {section} is a setting and no section")));
        };
        (table, rest) = (inside, inner);
    }
    table.insert(rest.into(), value);
    Ok(())
}

/// Takes out what a `key=value` of the command line replaces under other names: where a credential of a cloud is, is said by one
/// of `X`, `X_env` and `X_file`. Azure takes one of two credentials.
pub(super) fn make_way(table: &mut Table, pair: &str) {
    let path = pair.split_once('=').map_or(pair, |(path, _)| path).trim();
    let of_cloud = path.strip_prefix("clouds.").and_then(|rest| rest.split_once('.'));
    let Some((cloud, key)) = of_cloud else { return };
    let credential = ["_env", "_file"].iter().find_map(|end| key.strip_suffix(*end)).unwrap_or(key);
    let replaced: &[&str] = match credential {
        "access_key_id" => &["access_key_id"],
        "secret_access_key" => &["secret_access_key"],
        "access_key" | "sas" => &["access_key", "sas"],
        _ => return,
    };
    let section = table.get_mut("clouds").and_then(|clouds| clouds.get_mut(cloud)).and_then(Value::as_table_mut);
    let Some(section) = section else { return };
    for name in replaced {
        for end in ["", "_env", "_file"] {
            section.remove(&format!("{name}{end}"));
        }
    }
}

/// Puts a `key=value` of the command line. What is no TOML value is a text, so that `1 s` needs no quotes. It may not be a
/// secret.
pub(super) fn set(table: &mut Table, pair: &str) -> Result<(), CliError> {
    let (path, text) = pair.split_once('=').ok_or_else(|| {
        CliError::Usage(format!("--set {pair} has no =; write such as --set segments.seal_after=\"1 s\""))
    })?;
    let path = path.trim();
    let parsed = format!("value = {text}").parse::<Table>().ok().and_then(|mut parsed| parsed.remove("value"));
    let value = parsed.unwrap_or_else(|| text.into());
    if let Some(secret) = secret_setting(path, &value) {
        return Err(CliError::Usage(format!(
            "--set gives {secret}, which is a secret, and a command line can be read by everybody on this machine; name an \
             environment variable (.._env=NAME) or a file (.._file=FILE) that holds it instead, or write it into the settings \
             of the site when they are made"
        )));
    }
    put(table, path, value)
}

/// The setting in what is put at `path` that is a secret itself.
fn secret_setting(path: &str, value: &Value) -> Option<String> {
    if holds_secret(path.rsplit('.').next().unwrap_or(path)) {
        return Some(path.into());
    }
    match value {
        Value::Table(table) => table.iter().find_map(|(key, value)| secret_setting(&format!("{path}.{key}"), value)),
        Value::Array(items) => items.iter().find_map(|item| secret_setting(path, item)),
        _ => None,
    }
}

/// Refuses settings with problems. They are in no file yet.
pub(super) fn refuse(problems: &[Problem]) -> Result<(), CliError> {
    let count = match problems.len() {
        0 => return Ok(()),
        1 => "1 problem".to_string(),
        n => format!("{n} problems"),
    };
    let lines: String = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    Err(CliError::Usage(format!("the settings of the new site have {count}, and nothing was written:{lines}")))
}

/// The settings as a table to merge into.
pub(super) fn table_of(config: &Config, dir: &SiteDir) -> Table {
    config.to_toml(dir.root()).parse().expect("what is written reads back")
}
