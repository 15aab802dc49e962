//! A page of the objects in a directory, in order of their whole keys.

use super::files::{INCOMING, Inner, Trouble};
use crate::cloud::{Listed, Page};
use std::{fs, io::ErrorKind, path::Path};

const PAGE_OBJECTS_MAX: usize = 1_000;

impl Inner {
    /// The first objects below `prefix` behind `after`.
    pub fn page(&self, prefix: &str, after: Option<&str>) -> Result<Page, Trouble> {
        let walk = Walk { prefix, after };
        let mut objects = Vec::new();
        self.list(&self.root, "", &walk, &mut objects)?;
        let more = objects.len() > PAGE_OBJECTS_MAX;
        objects.truncate(PAGE_OBJECTS_MAX);
        Ok(Page { objects, more })
    }

    /// Collects one object more than a page holds from the directory `at`, whose keys begin with `above`.
    fn list(&self, at: &Path, above: &str, walk: &Walk<'_>, found: &mut Vec<Listed>) -> Result<(), Trouble> {
        let entries = match fs::read_dir(at) {
            Err(err) if err.kind() == ErrorKind::NotFound && at != self.root => return Ok(()),
            entries => entries?,
        };
        // Whole keys are in order when a directory sorts as its name with the slash.
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let (Ok(name), Ok(kind)) = (entry.file_name().into_string(), entry.file_type()) else { continue };
            if kind.is_dir() && (!above.is_empty() || name != INCOMING) {
                names.push((format!("{above}{name}/"), entry.path(), true));
            } else if kind.is_file() {
                names.push((format!("{above}{name}"), entry.path(), false));
            }
        }
        names.sort();
        for (key, path, is_directory) in names {
            if found.len() > PAGE_OBJECTS_MAX {
                break;
            }
            if is_directory {
                if walk.enters(&key) {
                    self.list(&path, &key, walk, found)?;
                }
            } else if walk.takes(&key) {
                // One that was deleted a moment ago is not listed.
                if let Ok(file) = fs::symlink_metadata(&path) {
                    found.push(Listed { key, bytes: file.len(), md5: None });
                }
            }
        }
        Ok(())
    }
}

/// What a listing wants.
struct Walk<'a> {
    prefix: &'a str,
    after: Option<&'a str>,
}

impl Walk<'_> {
    fn takes(&self, key: &str) -> bool {
        key.starts_with(self.prefix) && self.after.is_none_or(|after| key > after)
    }

    /// Whether keys that begin with `above` may be wanted.
    fn enters(&self, above: &str) -> bool {
        let in_prefix = above.starts_with(self.prefix) || self.prefix.starts_with(above);
        in_prefix && self.after.is_none_or(|after| above > after || after.starts_with(above))
    }
}
