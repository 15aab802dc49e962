//! What the commands write: lines for people, files.

use anyhow::Context;
use std::{
    fmt::Arguments,
    fs::{File, OpenOptions},
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
    std::process::exit(crate::NOT_RUN.into());
}

/// As `println!`, which panics where nobody reads.
macro_rules! say {
    ($($text:tt)*) => { $crate::commands::output::line(format_args!($($text)*)) };
}
pub(crate) use say;

/// Whether a file can be written, before the work whose result it is to hold. It stays as it is, or away.
///
/// # Errors
/// Says why not.
pub fn can_write(path: &Path) -> anyhow::Result<()> {
    let try_one = || match OpenOptions::new().append(true).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => match File::create_new(path) {
            Ok(_) => std::fs::remove_file(path),
            // A link to what is not there yet.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        },
        opened => opened.map(drop),
    };
    // A pipe is opened once, by who writes to it.
    let is_special = path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir());
    if is_special { Ok(()) } else { try_one().with_context(|| super::cannot("write", path)) }
}

/// Writes a whole file.
///
/// # Errors
/// Says which, and why not.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| super::cannot("write", path))
}
