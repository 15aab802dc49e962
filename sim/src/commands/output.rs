//! What the commands write: lines for people, files.

use anyhow::Context;
use std::{
    fmt::Arguments,
    fs::OpenOptions,
    io::{ErrorKind, Write},
    path::Path,
};

/// Exit code of a program that writes where nobody reads any more, as behind `head`: that of SIGPIPE.
const NOBODY_READS: i32 = 141;

/// Says a line; ends the program where that cannot be.
pub fn line(text: Arguments<'_>) {
    let Err(error) = writeln!(std::io::stdout(), "{text}") else {
        return;
    };
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(NOBODY_READS);
    }
    eprintln!("Error: cannot write to standard output: {error}");
    std::process::exit(1);
}

/// As `println!`, which panics where nobody reads.
macro_rules! say {
    ($($text:tt)*) => { $crate::commands::output::line(format_args!($($text)*)) };
}
pub(crate) use say;

/// Whether a file can be written, before the work whose result it is to hold. What it holds stays.
///
/// # Errors
/// Says why not.
pub fn can_write(path: &Path) -> anyhow::Result<()> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.map(drop).with_context(|| super::cannot("write", path))
}

/// Writes a whole file.
///
/// # Errors
/// Says which, and why not.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| super::cannot("write", path))
}
