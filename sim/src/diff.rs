//! Where two traces part: the first line that differs, with what both have before it.

use std::{collections::VecDeque, io::BufRead};

/// Equal lines shown before the difference.
const BEFORE: usize = 5;
/// Lines shown of each trace from the difference on.
const AFTER: usize = 5;

/// Where two traces part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parting {
    /// Number of the first line that differs, from 1.
    pub line: u64,
    pub before: Vec<String>,
    pub a: Vec<String>,
    pub b: Vec<String>,
}

/// Compares two traces; `None`: they are the same.
///
/// # Errors
/// When one of them cannot be read.
pub fn parting(a: impl BufRead, b: impl BufRead) -> std::io::Result<Option<Parting>> {
    let (mut a, mut b) = (a.lines(), b.lines());
    let mut before = VecDeque::new();
    let mut line = 1;
    loop {
        match (a.next().transpose()?, b.next().transpose()?) {
            (None, None) => return Ok(None),
            (left, right) if left != right => {
                let rest = |first: Option<String>, more: &mut dyn Iterator<Item = std::io::Result<String>>| {
                    first.into_iter().map(Ok).chain(more.take(AFTER - 1)).collect::<std::io::Result<Vec<_>>>()
                };
                let (a, b) = (rest(left, &mut a)?, rest(right, &mut b)?);
                return Ok(Some(Parting { line, before: before.into(), a, b }));
            }
            (left, _) => {
                if before.len() == BEFORE {
                    before.pop_front();
                }
                before.extend(left);
            }
        }
        line += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(a: &str, b: &str) -> Option<Parting> {
        parting(a.as_bytes(), b.as_bytes()).expect("memory can be read")
    }

    #[test]
    fn equal_traces_do_not_part() {
        assert_eq!(compare("", ""), None);
        assert_eq!(compare("a\nb\n", "a\nb\n"), None);
    }

    #[test]
    fn the_first_difference_is_found() {
        let parting = compare("1\n2\n3\n4\n5\n6\n7\nx\n", "1\n2\n3\n4\n5\n6\n7\ny\nz\n").expect("they part");
        assert_eq!((parting.line, parting.before.join("")), (8, "34567".into()));
        assert_eq!((parting.a, parting.b), (vec!["x".to_string()], vec!["y".to_string(), "z".to_string()]));
    }

    #[test]
    fn a_trace_that_ends_first_parts_there() {
        let parting = compare("1\n", "1\n2\n").expect("they part");
        assert_eq!((parting.line, parting.a.len(), parting.b), (2, 0, vec!["2".to_string()]));
    }
}
