//! Settings as a commented file.

use super::{
    Config, SegmentSettings,
    form::{Entry, Form, Notes},
};
use std::{collections::BTreeMap, path::Path};

const HEAD: &str = "\
# The settings of a filer. A setting behind a # stands at its default: remove the # to change it. Where \"not set\" is
# written beside one, its value is an example.
# Relative paths start in this file's directory. A length of time or a size carries its unit, such as \"250 ms\" (ms, s,
# min, h, d) or \"8 MiB\" (B, KiB, MiB, GiB, TiB, kB, MB, GB, TB).
# Check the file with: filer check-config

";

/// `config` as a file in `base`.
pub(super) fn written(config: &Config, base: &Path) -> String {
    let mut defaults = Config::first("", base);
    // What is written is compared with what would be read if it were left out.
    defaults.mesh.advertise = config.mesh.listen.to_string();
    defaults.segments.seal_idle_alone_ms = SegmentSettings::idle_alone_ms(config.segments.seal_idle_ms);
    defaults.segments.seal_idle_bytes_min = SegmentSettings::worth_a_put(config.segments.bytes_max);
    defaults.segments.seal_ahead_bytes_min = SegmentSettings::worth_no_wait(config.segments.bytes_max);
    defaults.clouds = config.clouds.clone();
    for entry in [&mut defaults.clouds.primary, &mut defaults.clouds.secondary] {
        entry.forget();
    }
    let exports_are_default = config.nfs.exports == defaults.nfs.exports;
    defaults.nfs.exports = vec![super::nfs::local_export(); config.nfs.exports.len()];
    let defaults: BTreeMap<String, Option<String>> = entries(&defaults, base)
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Setting { path, text, .. } => Some((path, text)),
            Entry::Head { .. } => None,
        })
        .collect();

    let mut out = String::from(HEAD);
    let mut in_comments = false;
    for entry in entries(config, base) {
        match entry {
            Entry::Head { path, .. } if path == "clouds" => {}
            Entry::Head { path, doc, repeated } => {
                // The only export there is by default, shown so that it can be changed.
                in_comments = repeated && exports_are_default;
                out.push('\n');
                comment(&mut out, doc);
                let head = if repeated { format!("[[{path}]]") } else { format!("[{path}]") };
                out.push_str(&if in_comments { format!("#{head}\n") } else { format!("{head}\n") });
            }
            Entry::Setting { path, key, doc, text, needed, sample } => {
                comment(&mut out, doc);
                let default = defaults.get(&path).cloned().flatten();
                match text {
                    Some(text) if !in_comments && (needed || Some(&text) != default.as_ref()) => {
                        out.push_str(&format!("{key} = {text}\n"));
                    }
                    Some(text) => out.push_str(&format!("#{key} = {text}\n")),
                    None => out.push_str(&format!("# {key} = {sample} # not set\n")),
                }
            }
        }
    }
    out
}

fn entries(config: &Config, base: &Path) -> Vec<Entry> {
    let mut notes = Notes::of_no_file(base.to_path_buf());
    let mut config = config.clone();
    Form::write(&mut notes, |form| config.form(form));
    notes.entries
}

fn comment(out: &mut String, doc: &str) {
    for line in doc.lines() {
        out.push_str(&format!("# {line}\n"));
    }
}
