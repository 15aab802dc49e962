//! What log lines call the clouds: by the names that their operator gave them, as every page does.
//!
//! The record and the machines know a cloud by its place alone (`a`, `b`): what is agreed must be the same at every filer, and
//! a name is each site's own setting. A log is its process's, and so are the names in it: they are told once, at the start
//! ([`tell`]), and a line asks here ([`called`]). Where none were told, as in the simulator, a cloud is called by its place.
//!
//! Owns: the names in log lines, and in errors on their way there. Does not own: what is on record.

use std::sync::OnceLock;
use storage::{cloud::CloudError, ids::CloudId};

static NAMES: OnceLock<[String; 2]> = OnceLock::new();

/// Has log lines call the clouds so from now on; by [`CloudId::index`]. A second call changes nothing.
pub fn tell(names: [String; 2]) {
    // Only names that were told already can be in the way.
    drop(NAMES.set(names));
}

/// What log lines call this cloud.
pub fn called(cloud: CloudId) -> &'static str {
    match (NAMES.get(), cloud) {
        (Some(names), cloud) => names[cloud.index()].as_str(),
        (None, CloudId::A) => "a",
        (None, CloudId::B) => "b",
    }
}

/// A text of the record, in which a cloud is its place (`cloud a has failed`), with these names.
pub fn named(text: &str, names: [&str; 2]) -> String {
    CloudId::BOTH.into_iter().fold(text.to_string(), |text, cloud| {
        text.replace(&format!("cloud {cloud} "), &format!("cloud {} ", names[cloud.index()]))
    })
}

/// The same, as log lines call the clouds.
pub fn in_words(text: &str) -> String {
    named(text, CloudId::BOTH.map(called))
}

/// What went wrong at a cloud, with its name in front; a cloud's client mostly says that itself.
pub fn at_cloud(cloud: CloudId, error: &CloudError) -> String {
    prefixed(called(cloud), &error.to_string())
}

fn prefixed(name: &str, error: &str) -> String {
    let prefix = format!("cloud {name}: ");
    if error.starts_with(&prefix) { error.into() } else { prefix + error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_record_get_the_names_of_the_clouds() {
        let names = ["aws", "azure"];
        let text = "cloud a has failed (160 consecutive failures); cloud b is active now";
        assert_eq!(named(text, names), "cloud aws has failed (160 consecutive failures); cloud azure is active now");
        assert_eq!(
            named("every live filer reaches cloud b again", names),
            "every live filer reaches cloud azure again"
        );
        assert_eq!(named("a cloud and another one", names), "a cloud and another one");
    }

    #[test]
    fn a_cloud_is_named_once_in_front_of_what_went_wrong() {
        assert_eq!(prefixed("aws", "no object segments/1/2"), "cloud aws: no object segments/1/2");
        assert_eq!(prefixed("aws", "cloud aws: put probes/1: reset"), "cloud aws: put probes/1: reset");
    }

    /// Nobody tells any in this process.
    #[test]
    fn without_names_a_cloud_is_called_by_its_place() {
        assert_eq!(CloudId::BOTH.map(called), ["a", "b"]);
        assert_eq!(in_words("cloud a is active already"), "cloud a is active already");
    }
}
