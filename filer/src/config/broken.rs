//! What is said of a file that is no TOML: where it breaks first.
//!
//! What lies behind that place may be read in another sense than it was written in, so nothing more is said.

use super::{Problem, clouds::holds_secret, form::Notes};
use toml::de::Error;

/// The longest excerpt, in characters.
const EXCERPT_CHARS_MAX: usize = 32;

/// The first of the faults in `text`.
pub(super) fn first(faults: &[Error], text: &str, notes: &Notes) -> Option<Problem> {
    let fault = faults.iter().min_by_key(|fault| fault.span().map_or(usize::MAX, |span| span.start))?;
    let line = fault.span().map(|span| notes.line_at(span.start));
    let excerpt = excerpt(line.and_then(|line| text.lines().nth(line - 1)).unwrap_or_default());
    let shown = if excerpt.is_empty() { String::new() } else { format!(" ({excerpt})") };
    let what = format!("is no valid TOML here{shown}: {}", fault.message().replace('\n', ", "));
    Some(Problem { line, setting: String::new(), what })
}

/// The beginning of a line, to be shown. It ends behind the name of a secret: what follows may be the secret.
fn excerpt(line: &str) -> String {
    let line = line.trim();
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let secret = line.split(|c: char| !is_of_a_name(c)).find(|word| holds_secret(word));
    let end = secret.and_then(|word| line.find(word).map(|at| at + word.len()));
    let shown = &line[..end.unwrap_or(line.len())];
    let cut: String = shown.chars().take(EXCERPT_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if cut.len() < line.len() { format!("{} ..", cut.trim_end()) } else { cut }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_short_and_shows_no_secret() {
        for (line, shown) in [
            ("", ""),
            ("  bytes_max = 8 MiB", "bytes_max = 8 MiB"),
            ("secret_access_key = hush", "secret_access_key .."),
            ("primary = { kind = s3, sas = hush }", "primary = { kind = s3, sas .."),
            ("access_key: hush", "access_key .."),
            ("access_key_file = /etc/azure", "access_key_file = /etc/azure"),
            ("\u{1b}[2J x", " [2J x"),
            ("abcdefghijklmnopqrstuvwxyz0123456789", "abcdefghijklmnopqrstuvwxyz012345 .."),
        ] {
            assert_eq!(excerpt(line), shown);
        }
    }
}
