//! The trace of a run: every effect, fault and answer in its order, hashed; and, where wanted, written out.
//!
//! Two runs are the same if their hashes are.

use crate::dice::{FNV_START, fnv};
use std::{
    collections::VecDeque,
    fmt::Write as _,
    io::Write,
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::time::Instant;

/// Lines kept to be shown when a run fails.
const LAST_LINES_KEPT: usize = 60;

struct Inner {
    hash: u64,
    lines: u64,
    last: VecDeque<String>,
    out: Option<Box<dyn Write + Send>>,
    line: String,
}

/// A run's trace. A clone is another handle.
#[derive(Clone)]
pub struct Trace {
    start: Instant,
    inner: Arc<Mutex<Inner>>,
}

/// Virtual milliseconds as minutes, seconds and milliseconds.
pub fn moment(ms: u64) -> String {
    Moment(ms).to_string()
}

struct Moment(u64);

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(ms) = self;
        write!(f, "{:02}:{:02}.{:03}", ms / 60_000, ms / 1000 % 60, ms % 1000)
    }
}

impl Trace {
    /// A trace that begins now, and is written to `out` as well.
    pub fn new(out: Option<Box<dyn Write + Send>>) -> Self {
        let inner = Inner { hash: FNV_START, lines: 0, last: VecDeque::new(), out, line: String::new() };
        Self { start: Instant::now(), inner: Arc::new(Mutex::new(inner)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no writer of the trace panics")
    }

    /// Virtual milliseconds since the run began.
    pub fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// Adds a line: `who` did or met `what`.
    pub fn note(&self, who: impl std::fmt::Display, what: std::fmt::Arguments<'_>) {
        let now_ms = self.now_ms();
        let mut inner = self.lock();
        let mut line = std::mem::take(&mut inner.line);
        line.clear();
        let _ = write!(line, "{} {who} {what}", Moment(now_ms));
        inner.hash = fnv(inner.hash, line.as_bytes());
        inner.keep(line);
    }

    /// The hash of all lines so far, and how many they are.
    pub fn hash(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.hash, inner.lines)
    }

    /// The last lines.
    pub fn last(&self) -> Vec<String> {
        self.lock().last.iter().cloned().collect()
    }

    /// Writes out what is not written yet.
    pub fn flush(&self) -> std::io::Result<()> {
        self.lock().out.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Inner {
    fn keep(&mut self, line: String) {
        self.lines += 1;
        if let Some(out) = &mut self.out {
            // A trace that cannot be written is noticed by the flush at the end.
            let _ = writeln!(out, "{line}");
        }
        if self.last.len() == LAST_LINES_KEPT {
            self.line = self.last.pop_front().unwrap_or_default();
        }
        self.last.push_back(line);
    }
}
