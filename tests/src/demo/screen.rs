//! What the demo shows while it runs: a timeline, with bars on a terminal and as plain lines elsewhere.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{IsTerminal, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Without a terminal, a bar says this often how far it is.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// Width of a bar's label, in characters.
const LABEL_WIDTH: usize = 26;

/// The timeline. A clone is another handle.
#[derive(Clone)]
pub struct Screen {
    started: Instant,
    bars: Option<MultiProgress>,
}

/// What a bar counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    /// Things of this name.
    Things(&'static str),
}

impl Screen {
    /// On the standard output; bars when that is a terminal.
    pub fn new() -> Self {
        let bars = std::io::stdout().is_terminal();
        let bars = bars.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stdout_with_hz(10)));
        Self { started: Instant::now(), bars }
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// A line of the timeline.
    pub fn say(&self, text: impl AsRef<str>) {
        for line in text.as_ref().lines() {
            self.print(&format!("[{:6.1} s] {line}", self.seconds()));
        }
    }

    /// A line that begins a part of the story.
    pub fn part(&self, text: &str) {
        self.print("");
        let (bold, plain) = if self.bars.is_some() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        self.print(&format!("[{:6.1} s] {bold}{text}{plain}", self.seconds()));
    }

    /// A line without the time.
    pub fn print(&self, line: &str) {
        let shown = match &self.bars {
            Some(bars) => bars.println(line),
            None => {
                let mut out = std::io::stdout().lock();
                writeln!(out, "{line}").and_then(|()| out.flush())
            }
        };
        // Nobody is there any more to be told, such as behind `| head`.
        let _ = shown;
    }

    /// A bar that counts up to `total`.
    pub fn bar(&self, label: &str, unit: Unit, total: u64) -> Bar {
        let shown = self.bars.as_ref().map(|bars| {
            let counts = match unit {
                Unit::Bytes => "{bytes} of {total_bytes}, {binary_bytes_per_sec}".to_string(),
                Unit::Things(name) => format!("{{pos}} of {{len}} {name}"),
            };
            let form = format!("           {{prefix:{LABEL_WIDTH}}} [{{bar:30}}] {counts}");
            let style = ProgressStyle::with_template(&form).expect("this template is well-formed");
            let bar = ProgressBar::new(total).with_style(style.progress_chars("=> ")).with_prefix(label.to_string());
            bars.add(bar)
        });
        let (done, last) = (AtomicU64::new(0), Mutex::new(Instant::now()));
        let inner = Inner { screen: self.clone(), label: label.into(), unit, total: total.into(), done, last, shown };
        Bar { inner: Arc::new(inner) }
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

struct Inner {
    screen: Screen,
    label: String,
    unit: Unit,
    total: AtomicU64,
    done: AtomicU64,
    last: Mutex<Instant>,
    shown: Option<ProgressBar>,
}

/// A bar. A clone is another handle; the last one takes it from the screen.
#[derive(Clone)]
pub struct Bar {
    inner: Arc<Inner>,
}

impl Bar {
    /// Counts on.
    pub fn add(&self, n: u64) {
        let done = self.inner.done.fetch_add(n, Relaxed) + n;
        self.show(done);
    }

    /// Says how much of how much is done.
    pub fn set(&self, done: u64, total: u64) {
        self.inner.total.store(total, Relaxed);
        self.inner.done.store(done, Relaxed);
        if let Some(bar) = &self.inner.shown {
            bar.set_length(total);
        }
        self.show(done);
    }

    fn show(&self, done: u64) {
        let inner = &self.inner;
        if let Some(bar) = &inner.shown {
            bar.set_position(done);
            return;
        }
        let mut last = inner.last.lock().expect("no holder of a bar's clock panics");
        if last.elapsed() >= PLAIN_EVERY {
            *last = Instant::now();
            let total = inner.total.load(Relaxed);
            let text = match inner.unit {
                Unit::Bytes => format!("{} of {}", bytes(done), bytes(total)),
                Unit::Things(name) => format!("{done} of {total} {name}"),
            };
            inner.screen.say(format!("  {}: {text}", inner.label));
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let (Some(bar), Some(bars)) = (&self.shown, &self.screen.bars) {
            bar.finish_and_clear();
            bars.remove(bar);
        }
    }
}

/// A size for people.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A length of time for people.
pub fn time(took: Duration) -> String {
    let ms = took.as_millis();
    if ms < 1_000 { format!("{ms} ms") } else { format!("{:.1} s", took.as_secs_f64()) }
}

/// Bytes in a time, for people.
pub fn speed(n: u64, took: Duration) -> String {
    format!("{}/s", bytes((n as f64 / took.as_secs_f64().max(0.001)) as u64))
}
