//! What is said of a file that is no TOML: where it breaks first.
//!
//! What lies behind that place may be read in another sense than it was written in, so nothing more is said.

use super::{Problem, form::Notes};
use toml::de::Error;

/// The longest name that is shown, in bytes.
const EXCERPT_BYTES_MAX: usize = 32;

/// The first of the faults in `text`.
pub(super) fn first(faults: &[Error], text: &str, notes: &Notes) -> Option<Problem> {
    let fault = faults.iter().min_by_key(|fault| fault.span().map_or(usize::MAX, |span| span.start))?;
    let line = fault.span().and_then(|span| notes.line_at(span.start));
    let excerpt = excerpt(line.and_then(|line| text.lines().nth(line - 1)).unwrap_or_default());
    let shown = if excerpt.is_empty() { String::new() } else { format!(" ({excerpt})") };
    let what = format!("is no valid TOML here{shown}: {}", fault.message().replace('\n', ", "));
    Some(Problem { line, setting: String::new(), what })
}

/// What of a line can be shown: the name of a setting or a section. Anything else may be a secret, or a part of one, and this
/// may go to a log.
fn excerpt(line: &str) -> String {
    let line = line.trim();
    let is_of_a_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-. []".contains(c);
    let end = line.find(|c: char| !is_of_a_name(c)).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let is_a_name = rest.starts_with(['=', ':']) || (rest.is_empty() && name.starts_with('['));
    match name.trim() {
        name if is_a_name && name.len() <= EXCERPT_BYTES_MAX => match rest {
            "" => name.to_string(),
            _ => format!("{name} .."),
        },
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_short_and_shows_no_secret() {
        for (line, shown) in [
            ("", ""),
            ("  bytes_max = 8 MiB", "bytes_max .."),
            ("secret_access_key = hush", "secret_access_key .."),
            ("access_key: hush", "access_key .."),
            ("endpoint = https://id:hush@host", "endpoint .."),
            ("[health", "[health"),
            ("[[nfs.exports]", "[[nfs.exports]"),
            ("FILER_S3_PW=hush", ""),
            ("wJalrXUtnFEMI/K7MDENG", ""),
            ("hush", ""),
            ("\u{1b}[2J x", ""),
            ("abcdefghijklmnopqrstuvwxyz0123456789 = 1", ""),
        ] {
            assert_eq!(excerpt(line), shown);
        }
    }
}
