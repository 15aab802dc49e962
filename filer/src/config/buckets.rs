//! What buckets, containers and accounts can be called.
//!
//! An address, a path or a text with a space in place of a name is a slip that the first put would find, of a filer that
//! serves already. Each provider has rules of its own. A server of somebody's own that speaks S3 takes more than AWS does
//! (upper case, underscores, a single letter), so of its names only those are refused that can be none anywhere.

use std::net::Ipv4Addr;

/// Longest name anywhere, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Refuses what can name no bucket anywhere.
pub(super) fn bucket(text: &str) -> Result<(), String> {
    alone(text, "bucket")
}

/// Refuses what cannot name a container of Azure, nor of what stands in for it.
pub(super) fn container(text: &str) -> Result<(), String> {
    const RULES: Rules = Rules {
        of: "a container",
        bytes_max: 63,
        marks: b"-",
        words: "3 to 63 lower-case letters, digits and single '-', beginning and ending with a letter or digit",
        allows: |name| !name.contains("--"),
    };
    alone(text, "container").and_then(|()| RULES.check(text))
}

/// Refuses what can name no storage account anywhere.
pub(super) fn account(text: &str) -> Result<(), String> {
    alone(text, "account")
}

/// Refuses what cannot name a bucket of AWS.
pub(super) fn bucket_of_aws(name: &str) -> Result<(), String> {
    const RULES: Rules = Rules {
        of: "a bucket of AWS",
        bytes_max: 63,
        marks: b"-.",
        words: "3 to 63 lower-case letters, digits, '-' and single '.', beginning and ending with a letter or digit (for a bucket of another store that speaks S3, add its endpoint)",
        allows: |name| !name.contains("..") && name.parse::<Ipv4Addr>().is_err(),
    };
    RULES.check(name)
}

/// Refuses what cannot name a bucket of AWS in us-east-1, in the path of an address: those from before March 2018 were named
/// more freely there, and keep their names.
pub(super) fn bucket_of_aws_or_old(name: &str) -> Result<(), String> {
    let is_of_a_name = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if (3..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_of_a_name) {
        return Ok(());
    }
    bucket_of_aws(name)
}

/// Refuses what cannot name a bucket of Google.
pub(super) fn bucket_of_google(name: &str) -> Result<(), String> {
    const RULES: Rules = Rules {
        of: "a bucket of Google",
        bytes_max: 222,
        marks: b"-_.",
        words: "3 to 63 lower-case letters, digits, '-' and '_', beginning and ending with a letter or digit; or several such parts with '.' between them",
        allows: |name| name.split('.').all(|part| (1..=63).contains(&part.len())) && name.parse::<Ipv4Addr>().is_err(),
    };
    RULES.check(name)
}

/// Refuses what cannot name a storage account of Azure itself.
pub(super) fn account_of_azure(name: &str) -> Result<(), String> {
    const RULES: Rules = Rules {
        of: "a storage account of Azure",
        bytes_max: 24,
        marks: b"",
        words: "3 to 24 lower-case letters and digits",
        allows: |_| true,
    };
    RULES.check(name)
}

/// What a provider says of its names.
struct Rules {
    /// What is named.
    of: &'static str,
    bytes_max: usize,
    /// What a name may have within it beside lower-case letters and digits.
    marks: &'static [u8],
    /// All rules, to be told.
    words: &'static str,
    /// Rules that none of the others says.
    allows: fn(&str) -> bool,
}

impl Rules {
    fn check(&self, name: &str) -> Result<(), String> {
        if self.fit(name) {
            return Ok(());
        }
        let Self { of, words, .. } = self;
        let lower = name.to_ascii_lowercase();
        let meant = if self.fit(&lower) { format!(", such as {lower:?}") } else { String::new() };
        Err(format!("{name:?} cannot name {of}; use {words}{meant}"))
    }

    fn fit(&self, name: &str) -> bool {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        (3..=self.bytes_max).contains(&name.len())
            && name.bytes().all(|b| is_plain(b) || self.marks.contains(&b))
            && name.bytes().next().is_some_and(is_plain)
            && name.bytes().next_back().is_some_and(is_plain)
            && (self.allows)(name)
    }
}

/// Refuses what is more than a name, or none, and says what to write instead. `of`: what is named.
fn alone(text: &str, of: &str) -> Result<(), String> {
    let is_foreign = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '\\' | '#');
    let bytes = text.len();
    if text.trim().is_empty() {
        return Err(format!("is empty; write the {of}'s name"));
    }
    // Connection strings, signed addresses and passwords before an address have these, and nothing of them is repeated.
    if text.contains(['@', '?', '=', ';', '&']) {
        return Err(format!(
            "holds more than a name, perhaps a key or a signature; credentials have settings of their own, write the {of}'s name alone"
        ));
    }
    if bytes > NAME_BYTES_MAX {
        return Err(format!("has {bytes} bytes, which no {of}'s name has; write the {of}'s name alone"));
    }
    if !text.contains(is_foreign) {
        return Ok(());
    }
    let (scheme, place) = text.trim().split_once("://").unwrap_or(("", text.trim()));
    if matches!(scheme, "http" | "https") {
        return Err(format!(
            "{text:?} is the address of a server; write the {of}'s name alone, and the server's address as endpoint"
        ));
    }
    let place = place.trim_matches('/');
    // An account comes first in the address of a container.
    let place = match place.split_once('/') {
        Some((_, behind)) if of == "container" && !scheme.is_empty() => behind,
        _ => place,
    };
    let (name, prefix) = place.split_once('/').unwrap_or((place, ""));
    let instead = match (name, prefix) {
        (name, _) if name.is_empty() || name.contains(is_foreign) => String::new(),
        (name, "") => format!(": {name:?}"),
        (name, prefix) => format!(": {name:?}, and prefix = {prefix:?}"),
    };
    let why = if text.contains('/') { "is more than a name" } else { "has a sign or a space that no name has" };
    Err(format!("{text:?} {why}; write the {of}'s name alone{instead}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_provider_has_its_rules() {
        let long = "a".repeat(64);
        let dotted = format!("{}.{}", "a".repeat(63), "b".repeat(63));
        type Rule = fn(&str) -> Result<(), String>;
        let table: [(Rule, &[&str], &[&str]); 4] = [
            (
                bucket_of_aws,
                &["abc", "example-files", "files.example.org", "1-2", &long[1..]],
                &["ab", "Files", "a_b_c", "-abc", "abc-", "a..b", "10.1.0.5", "bücket", "a:b", &long],
            ),
            (
                bucket_of_google,
                &["abc", "example_files", "files.example.org", &dotted],
                &["ab", "Files", "_abc", "a..b", "10.1.0.5", &long],
            ),
            (
                container,
                &["abc", "a-b-c", "123", &long[1..]],
                &["ab", "Files", "a--b", "-abc", "abc-", "a.b", "a_b", "$web", &long],
            ),
            (account_of_azure, &["acc", "examplefiles2"], &["ab", "Acc", "a-b-c", "acc.blob.core.windows.net", &long]),
        ];
        for (rule, good, bad) in table {
            for name in good {
                assert_eq!(rule(name), Ok(()), "{name}");
            }
            for name in bad {
                let said = rule(name).expect_err(name);
                assert!(said.contains("; use 3 to "), "{said}");
            }
        }
        assert!(bucket_of_aws("Files").unwrap_err().ends_with(", such as \"files\""));
        assert!(!bucket_of_aws("F").unwrap_err().contains("such as"));
    }

    #[test]
    fn old_buckets_of_aws_keep_their_names() {
        for name in ["abc", "My_Files", "a..b", &"X".repeat(255)] {
            assert_eq!(bucket_of_aws_or_old(name), Ok(()), "{name}");
        }
        for name in ["ab", "a:b", "bücket"] {
            assert_eq!(bucket_of_aws_or_old(name), bucket_of_aws(name));
            assert!(bucket_of_aws(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_server_of_ones_own_may_call_its_buckets_as_it_likes() {
        for name in ["b", "Files", "my_files", "a..b", "10.1.0.5", "ümlaut", "tenant:files", &"x".repeat(255)] {
            assert_eq!(bucket(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn what_is_no_name_is_told_with_what_to_write_instead() {
        let long = "x".repeat(256);
        for (text, said) in [
            ("", "is empty; write the bucket's name"),
            ("  ", "is empty; write the bucket's name"),
            ("s3://files", "\"s3://files\" is more than a name; write the bucket's name alone: \"files\""),
            (
                "gs://files/deep/er/",
                "\"gs://files/deep/er/\" is more than a name; write the bucket's name alone: \"files\", and prefix = \"deep/er\"",
            ),
            ("/files/", "\"/files/\" is more than a name; write the bucket's name alone: \"files\""),
            (" files", "\" files\" has a sign or a space that no name has; write the bucket's name alone: \"files\""),
            ("my files", "\"my files\" has a sign or a space that no name has; write the bucket's name alone"),
            ("files#1", "\"files#1\" has a sign or a space that no name has; write the bucket's name alone"),
            ("fi\u{7}les", "\"fi\\u{7}les\" has a sign or a space that no name has; write the bucket's name alone"),
            ("s3://", "\"s3://\" is more than a name; write the bucket's name alone"),
            (
                "https://files.s3.amazonaws.com/",
                "\"https://files.s3.amazonaws.com/\" is the address of a server; write the bucket's name alone, and the server's address as endpoint",
            ),
            (long.as_str(), "has 256 bytes, which no bucket's name has; write the bucket's name alone"),
        ] {
            assert_eq!(bucket(text), Err(said.into()), "{text}");
        }
        assert_eq!(
            container("azure://account/files"),
            Err("\"azure://account/files\" is more than a name; write the container's name alone: \"files\"".into())
        );
    }

    #[test]
    fn what_may_hold_a_key_or_a_signature_is_not_repeated() {
        type Rule = fn(&str) -> Result<(), String>;
        let rules: [(Rule, &str); 3] = [(bucket, "bucket"), (container, "container"), (account, "account")];
        for text in [
            "s3://id:hush@files",
            "files?x=hush",
            "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=hush==;EndpointSuffix=core.windows.net",
            "https://acc.blob.core.windows.net/files?sv=2024-11-04&sig=hush",
            "files?sv=2024-11-04&sig=hush",
            "acc;hush",
            "hush==",
        ] {
            for (rule, of) in rules {
                let said = format!(
                    "holds more than a name, perhaps a key or a signature; credentials have settings of their own, write the {of}'s name alone"
                );
                assert_eq!(rule(text), Err(said), "{text}");
            }
        }
    }
}
