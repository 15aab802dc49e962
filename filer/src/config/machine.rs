//! What the settings need of the machine that serves with them, and of its site: credentials, files, directories, a name.
//!
//! Of a setting that is refused for itself nothing of this is said.

use super::{CloudEntry, Config, form::Notes};
use crate::admin::check_token_file;
use std::io::ErrorKind;
use storage::clouds::{self, OpenError};

/// Notes all that is not there. `site`: the name that the certificate has, where there is one. `has_served`: see
/// [`Config::load_to_serve`].
pub(super) fn check(config: &Config, site: Option<&str>, has_served: bool, notes: &mut Notes) {
    if let Some(site) = site
        && notes.has("name")
        && !notes.is_unread("name")
        && config.name != site
    {
        let what = format!(
            "is \"{}\", and the site's certificate is for \"{site}\"; a site cannot be renamed: write name = \"{site}\"",
            config.name
        );
        notes.problem("name", what);
    }
    cloud("clouds.primary", &config.clouds.primary, has_served, notes);
    cloud("clouds.secondary", &config.clouds.secondary, has_served, notes);
    if let (Some(_), Some(path)) = (config.admin.listen, &config.admin.token_file)
        && let Err(what) = check_token_file(path)
    {
        notes.problem("admin.token_file", format!("{}: {what}", path.display()));
    }
}

fn cloud(section: &str, entry: &CloudEntry, has_served: bool, notes: &mut Notes) {
    let kind = format!("{section}.kind");
    if !notes.has(&kind) || notes.is_unread(&kind) {
        // Where it is to be is not known then, and the default is nothing that the file says.
        return;
    }
    let of_section = format!("{section}.");
    let refused: Vec<String> = notes
        .problems
        .iter()
        .map(|problem| problem.setting.clone())
        .filter(|setting| setting == section || setting.starts_with(&of_section))
        .collect();
    let look = if refused.is_empty() { clouds::check } else { clouds::missing };
    let found = look(&entry.settings, &entry.name);
    for error in found.into_iter().filter(|error| !(has_served && is_away(error))) {
        let setting = match error.setting() {
            Some(key) => format!("{section}.{key}"),
            None => section.to_string(),
        };
        if !refused.iter().any(|refused| are_one(refused, &setting)) {
            notes.problem(&setting, said(&error));
        }
    }
}

/// Whether the cloud is a directory that is not there.
fn is_away(error: &OpenError) -> bool {
    matches!(error, OpenError::Path { name: "path", source, .. } if source.kind() == ErrorKind::NotFound)
}

/// Whether two settings are one, or forms of one, such as `access_key` and `access_key_env`.
fn are_one(one: &str, other: &str) -> bool {
    let name = |setting: &str| {
        let ends = ["_env", "_file"].iter().find_map(|end| setting.strip_suffix(*end));
        ends.unwrap_or(setting).to_string()
    };
    name(one) == name(other)
}

/// What is wrong, and what to do, behind the setting's name.
fn said(error: &OpenError) -> String {
    match error {
        OpenError::Secret { name, why } if name.ends_with("_env") => {
            format!("gives nothing: {why}; set it for filer serve, and for filer check-config too")
        }
        OpenError::Secret { name, why } if name.ends_with("_file") => {
            format!("gives nothing: {why}; write what it is to give into it, for the filer's user to read")
        }
        OpenError::Secret { why, .. } | OpenError::Setting { why, .. } => format!("cannot be used: {why}"),
        OpenError::Path { path, source, .. } => format!("names {}, which cannot be used: {source}", path.display()),
        OpenError::Client { source, .. } => format!("cannot be used: {source}"),
    }
}
