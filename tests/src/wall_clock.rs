//! A filer's wall clock, moved by the test: what an operator or a broken time server does to a real one.
//!
//! libfaketime (Debian package `faketime`) stands between the filer and the system's clock and reads from a file how far
//! to move it. Time that only runs forwards (timers, deadlines) is left alone, as a real jump leaves it alone.

use crate::sites::Site;
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where Debian puts its libraries, by machine.
const LIBRARIES: &str = "/usr/lib";

/// The library for programs with threads.
const PROGRAM: &str = "faketime/libfaketimeMT.so.1";

/// One site's wall clock.
pub struct WallClock {
    offset: PathBuf,
}

/// Finds the installed library.
fn locate() -> Result<PathBuf> {
    let folders = fs::read_dir(LIBRARIES).with_context(|| format!("reading {LIBRARIES}"))?;
    let mut found = folders.filter_map(|folder| Some(folder.ok()?.path().join(PROGRAM)));
    found.find(|library| library.is_file()).with_context(|| {
        format!("libfaketime is not installed ({LIBRARIES}/*/{PROGRAM} is missing): `make test` installs it")
    })
}

impl WallClock {
    /// Gives a site a wall clock that can be moved, from its filer's next start on. It is kept in `folder`.
    pub fn of(site: &mut Site, folder: &Path) -> Result<Self> {
        let offset = folder.join(format!("{}.clock", site.name()));
        let clock = Self { offset };
        clock.move_by(0)?;
        let (library, offset) = (locate()?.display().to_string(), clock.offset.display().to_string());
        let settings = [
            ("LD_PRELOAD", &*library),
            ("FAKETIME_TIMESTAMP_FILE", &*offset),
            // The file is read each time that the clock is.
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ];
        for (name, value) in settings {
            site.set_env(name, value);
        }
        Ok(clock)
    }

    /// Moves it to so many seconds beside the system's.
    pub fn move_by(&self, seconds: i64) -> Result<()> {
        // In one step: the filer reads it at any moment.
        let next = self.offset.with_extension("next");
        let attempted = || format!("writing {}", self.offset.display());
        fs::write(&next, format!("{seconds:+}s\n")).with_context(attempted)?;
        fs::rename(&next, &self.offset).with_context(attempted)
    }
}
