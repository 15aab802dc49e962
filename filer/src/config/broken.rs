//! What is said of a file that is no TOML, and what can be read of it all the same.
//!
//! A fault within one setting's value, such as a text without quotes, leaves everything else as it was meant; so does a name
//! that stands twice. Each of them is told, and the rest is read. Of any other fault the first one is told and nothing more:
//! what lies behind it may be read in another sense than it was written in.

use super::Problem;
use std::{borrow::Cow, collections::BTreeSet};
use toml::de::{DeTable, Error};

/// The longest name that is shown, in bytes.
const EXCERPT_BYTES_MAX: usize = 32;

/// What can be read of a file.
pub(super) struct Readable<'t> {
    /// Its text, with a value that no setting takes in place of each that is no TOML.
    pub text: Cow<'t, str>,
    /// Those values, and sections that are lists elsewhere, or the other way round. Of their lines nothing else is to be said.
    pub faults: Vec<Problem>,
    /// All other names that stand twice.
    pub repeats: Vec<Problem>,
}

/// What can be read of `text`, or the first fault.
pub(super) fn readable(text: &str) -> Result<Readable<'_>, Problem> {
    let (repeats, mut others) = faults_of(text);
    if others.is_empty() {
        let (faults, repeats) = repeated(&repeats, text);
        return Ok(Readable { text: text.into(), faults, repeats });
    }
    others.sort_by_key(|fault| fault.span().map_or(usize::MAX, |span| span.start));
    let mut faults: Vec<Problem> = others.iter().map(|fault| problem(fault, text)).collect();
    faults.dedup_by_key(|fault| fault.line);
    if let Some(mended) = mended(text, faults.iter().map(|fault| fault.line).collect()) {
        let (repeats, others) = faults_of(&mended);
        if others.is_empty() {
            for fault in &mut faults {
                fault.what.push_str("; a text, or a number with its unit, stands in quotes");
            }
            let (mixed, repeats) = repeated(&repeats, &mended);
            faults.extend(mixed);
            return Ok(Readable { text: mended.into(), faults, repeats });
        }
    }
    Err(faults.swap_remove(0))
}

/// Names that stand twice, and all other faults.
fn faults_of(text: &str) -> (Vec<Error>, Vec<Error>) {
    let (_, found) = DeTable::parse_recoverable(text);
    found.into_iter().partition(|fault| fault.message() == "duplicate key")
}

/// The text with a date, which no setting takes, for the value of each of these lines; nothing if one of them sets none.
fn mended(text: &str, lines: BTreeSet<Option<usize>>) -> Option<String> {
    let mut mended = String::with_capacity(text.len());
    for (at, line) in text.split_inclusive('\n').enumerate() {
        if lines.contains(&Some(at + 1)) {
            let (name, _) = line.split_once('=')?;
            mended.push_str(name);
            mended.push_str("= 1970-01-01\n");
        } else {
            mended.push_str(line);
        }
    }
    Some(mended)
}

/// The line, counted from 1, in which a fault begins.
fn line_of(fault: &Error, text: &str) -> Option<usize> {
    let start = fault.span()?.start.min(text.len());
    Some(1 + text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count())
}

fn problem(fault: &Error, text: &str) -> Problem {
    let line = line_of(fault, text);
    let excerpt = excerpt(line.and_then(|line| text.lines().nth(line - 1)).unwrap_or_default());
    let shown = if excerpt.is_empty() { String::new() } else { format!(" ({excerpt})") };
    let what = format!("is no valid TOML here{shown}: {}", fault.message().replace('\n', ", "));
    Problem { line, setting: String::new(), what }
}

/// What is said of names that stand twice: of those that are once a section and once a list of sections, and of the others.
fn repeated(found: &[Error], text: &str) -> (Vec<Problem>, Vec<Problem>) {
    let told = found.iter().map(|fault| repeat(fault, text));
    let (mixed, others): (Vec<_>, Vec<_>) = told.partition(|(is_mixed, _)| *is_mixed);
    let problems = |told: Vec<(bool, Problem)>| told.into_iter().map(|(_, problem)| problem).collect();
    (problems(mixed), problems(others))
}

/// What is said of a name that stands twice, at the second place; and whether it is once a section and once a list.
fn repeat(fault: &Error, text: &str) -> (bool, Problem) {
    let mut is_mixed = false;
    let (lines, line): (Vec<&str>, _) = (text.lines().collect(), line_of(fault, text));
    let at = line.map_or(0, |line| line - 1).min(lines.len());
    let origin = |first: Option<usize>| first.map_or(String::new(), |first| format!(" (line {})", first + 1));
    let what = match lines.get(at).copied().and_then(head_of) {
        Some(head) => {
            let mut heads = (0..at).filter_map(|line| Some((line, head_of(lines[line])?)));
            // Lists of sections repeat their heads rightly.
            let first = heads.find(|(_, earlier)| bare(earlier) == bare(head) && !(is_list(earlier) && is_list(head)));
            is_mixed = first.is_some_and(|(_, earlier)| is_list(earlier) != is_list(head));
            let origin = origin(first.map(|(line, _)| line));
            let shown = Some(excerpt(head)).filter(|head| !head.is_empty()).unwrap_or("this section".into());
            if is_mixed {
                format!(
                    "{shown} stands in this file already in other brackets{origin}; write all of them alike, with [[ ]] where there may be several"
                )
            } else {
                format!("{shown} stands in this file already{origin}; put all of its settings below one of them")
            }
        }
        None => {
            let name = fault.span().and_then(|span| text.get(span)).unwrap_or_default();
            let origin = origin(earlier(&lines, at, name));
            let shown = if is_shown(name) { name } else { "this name" };
            format!("{shown} stands in this section already{origin}; keep one of them")
        }
    };
    (is_mixed, Problem { line, setting: String::new(), what })
}

/// Where the section of a line sets `name` as this line does: the first such line before it.
fn earlier(lines: &[&str], at: usize, name: &str) -> Option<usize> {
    let sets = |line: usize| {
        lines.get(line)?.trim_start().strip_prefix(name).filter(|rest| rest.trim_start().starts_with('='))
    };
    let head = |line: usize| lines[..line].iter().rposition(|line| head_of(line).is_some());
    // A section that stands twice itself is one; each `[[..]]` is another one.
    let own = head(at);
    let is_own = |line: usize| match (head(line), own) {
        (Some(head), Some(own)) => {
            head == own || (head_of(lines[head]) == head_of(lines[own]) && !lines[own].trim_start().starts_with("[["))
        }
        (head, own) => head == own,
    };
    sets(at)?;
    (0..at).find(|&line| sets(line).is_some() && is_own(line))
}

/// The head of a section, such as `[mesh]`, if this line is one.
fn head_of(line: &str) -> Option<&str> {
    let line = line.split('#').next()?.trim();
    (line.starts_with('[') && line.ends_with(']')).then_some(line)
}

/// Whether a head is one of a list of sections, such as `[[nfs.exports]]`.
fn is_list(head: &str) -> bool {
    head.starts_with("[[")
}

/// The name in a head.
fn bare(head: &str) -> &str {
    head.trim_matches(['[', ']', ' ', '\t'])
}

/// Whether a name can be shown: anything that looks otherwise than names of settings do may be a secret.
fn is_shown(name: &str) -> bool {
    let is_of_a_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    (1..=EXCERPT_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_of_a_name)
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

    /// What is told of a text: each line of it, and its beginning.
    fn told(text: &str) -> Vec<(usize, String)> {
        let told = match readable(text) {
            Ok(Readable { text: read, faults, repeats }) => {
                assert_eq!(read.lines().count(), text.lines().count(), "lines keep their numbers");
                [faults, repeats].concat()
            }
            Err(first) => vec![first],
        };
        told.into_iter().map(|problem| (problem.line.unwrap(), problem.what)).collect()
    }

    #[test]
    fn every_value_without_quotes_is_told_and_the_rest_is_read() {
        let text = "name = ams\n[segments]\nbytes_max = 8 MiB # the default\nseal_after = \"1 s\"\n[nfs]\nlisten = 0.0.0.0:2049\n";
        let found = told(text);
        assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 3, 6], "{found:?}");
        for ((_, what), name) in found.iter().zip(["name", "bytes_max", "listen"]) {
            assert!(what.starts_with(&format!("is no valid TOML here ({name} ..): ")), "{what}");
            assert!(what.ends_with("; a text, or a number with its unit, stands in quotes"), "{what}");
        }
        let Ok(Readable { text: read, .. }) = readable(text) else { panic!("it can be read") };
        assert!(read.contains("\nbytes_max = 1970-01-01\n") && read.contains("\nseal_after = \"1 s\"\n"), "{read}");
    }

    /// What a fault may have swallowed, or cut off, is not judged.
    #[test]
    fn of_a_fault_that_reaches_further_nothing_else_is_told() {
        for (text, line) in [
            ("name = \"ams\"\n[health\nfailures_to_trip = many\n", 2),
            ("networks = [\n  10.0.0.0/8,\n]\nname = ams\n", 2),
            ("name\nbytes_max = 8 MiB\n", 1),
        ] {
            let found = told(text);
            assert!(found.len() == 1 && found[0].0 == line, "{text}: {found:?}");
        }
    }

    #[test]
    fn a_section_that_is_a_list_elsewhere_is_told_with_both_lines_and_nothing_else_is_said_of_it() {
        let advice = "write all of them alike, with [[ ]] where there may be several";
        for (text, head, line, first) in [
            ("[[nfs.exports]]\n[[nfs.exports]]\n[ nfs.exports ]\n", "[ nfs.exports ]", 3, 1),
            ("[nfs.exports]\npath = \"/a\"\n[[nfs.exports]]\n", "[[nfs.exports]]", 3, 1),
            ("[[mesh]]\n[nfs]\nlisten = off\n[mesh] # one\n", "[mesh]", 4, 1),
        ] {
            let said = format!("{head} stands in this file already in other brackets (line {first}); {advice}");
            let Ok(Readable { faults, repeats, .. }) = readable(text) else { panic!("{text} can be read") };
            assert!(faults.iter().any(|fault| fault.line == Some(line) && fault.what == said), "{faults:?}");
            assert!(repeats.is_empty(), "{repeats:?}");
        }
    }

    #[test]
    fn a_name_that_stands_twice_is_told_with_both_lines() {
        let text = "name = \"ams\"\nname = \"fra\"\n[segments]\nbytes_max = \"1 MiB\"\n[[nfs.exports]]\npath = \"/a\"\n\
            [[nfs.exports]]\npath = \"/b\"\npath = \"/c\"\n[segments] # again\nbytes_max = \"2 MiB\"\nhUsh1 = 1\nhUsh1 = 2\n";
        assert_eq!(
            told(text),
            [
                (2, "name stands in this section already (line 1); keep one of them".to_string()),
                (9, "path stands in this section already (line 8); keep one of them".to_string()),
                (
                    10,
                    "[segments] stands in this file already (line 3); put all of its settings below one of them"
                        .to_string()
                ),
                (11, "bytes_max stands in this section already (line 4); keep one of them".to_string()),
                (13, "this name stands in this section already (line 12); keep one of them".to_string()),
            ]
        );
    }
}
