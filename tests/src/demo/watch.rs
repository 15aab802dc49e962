//! Looks at all filers through their admin doors, all the time: tells decisions and epochs as they come, and keeps what
//! the summary needs.

use super::screen::{Screen, bytes};
use crate::sites::Site;
use anyhow::{Result, bail};
use filer::admin::{
    AdminClient, Status,
    status::{Cloud, DecisionRow},
};
use mesh::words::counted;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{sleep, timeout_at},
};

/// Pause between two looks at a filer.
const LOOK_EVERY: Duration = Duration::from_millis(40);

/// Longer lines of a decision go on in the next one.
const LINE_BYTES_MAX: usize = 100;

/// A decision on the clouds, with its moment on this machine's clock.
#[derive(Clone, Debug)]
pub struct Decided {
    pub row: DecisionRow,
    pub at: Instant,
}

/// What a resync copied, as its filers told it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    pub rows: u64,
    pub bytes: u64,
}

#[derive(Default)]
struct Seen {
    latest: BTreeMap<String, Status>,
    /// When each filer was first seen on an epoch.
    epochs: BTreeMap<u64, BTreeMap<String, Instant>>,
    decisions: Vec<Decided>,
    told: BTreeSet<(u64, String, String)>,
    /// By filer and cloud.
    repaired: BTreeMap<(String, String), Repaired>,
}

struct Shared {
    screen: Screen,
    names: Vec<String>,
    seen: Mutex<Seen>,
    news: Notify,
}

/// The lookout. Dropped, it stops.
pub struct Watch {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Watch {
    /// Watches these sites, and tells the timeline.
    pub fn start(sites: &[Site], screen: &Screen) -> Self {
        let names = sites.iter().map(|site| site.name().to_string()).collect();
        let (seen, news) = Default::default();
        let shared = Arc::new(Shared { screen: screen.clone(), names, seen, news });
        let mut tasks = JoinSet::new();
        for site in sites {
            tasks.spawn(look(shared.clone(), site.name().to_string(), site.admin()));
        }
        Self { shared, _tasks: tasks }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.seen()
    }

    /// The last status of every filer, in the order of the sites; those that never answered are missing.
    pub fn latest(&self) -> Vec<Status> {
        let seen = self.seen();
        self.shared.names.iter().filter_map(|name| seen.latest.get(name).cloned()).collect()
    }

    /// Waits until all filers' statuses are as `wanted` says, and gives them. `progress` sees each step.
    pub async fn until(
        &self,
        what: &str,
        within: Duration,
        wanted: impl Fn(&Status) -> bool,
        mut progress: impl FnMut(&[Status]),
    ) -> Result<Vec<Status>> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let news = self.shared.news.notified();
            let latest = self.latest();
            progress(&latest);
            if latest.len() == self.shared.names.len() && latest.iter().all(&wanted) {
                return Ok(latest);
            }
            if timeout_at(deadline, news).await.is_err() {
                let missing: Vec<String> = latest.iter().filter(|status| !wanted(status)).map(brief).collect();
                bail!("not within {} s: {what}. Not so at:\n{}", within.as_secs(), missing.join("\n"));
            }
        }
    }

    /// Decisions since the watch began, the oldest first.
    pub fn decisions(&self) -> Vec<Decided> {
        self.seen().decisions.clone()
    }

    /// When the last of all filers was first seen on this epoch or a later one.
    pub fn last_on(&self, epoch: u64) -> Option<(String, Instant)> {
        let seen = self.seen();
        let mut last: Option<(String, Instant)> = None;
        for name in &self.shared.names {
            let first = seen.epochs.range(epoch..).filter_map(|(_, at)| at.get(name)).min()?;
            if last.as_ref().is_none_or(|(_, at)| first > at) {
                last = Some((name.clone(), *first));
            }
        }
        last
    }

    /// What the filers copied back to a cloud.
    pub fn repaired(&self, cloud: &str) -> Repaired {
        let seen = self.seen();
        let of = seen.repaired.iter().filter(|((_, name), _)| name == cloud).map(|(_, repaired)| repaired);
        of.fold(Repaired::default(), |sum, one| Repaired { rows: sum.rows + one.rows, bytes: sum.bytes + one.bytes })
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no holder of what was seen panics")
    }

    fn note(&self, name: &str, status: Status) {
        let now = Instant::now();
        let mut seen = self.seen();
        for row in status.decisions.iter().rev() {
            if seen.told.insert((row.epoch, row.text.clone(), row.filer.clone())) {
                let at = now.checked_sub(Duration::from_millis(row.ms_ago)).unwrap_or(now);
                seen.decisions.push(Decided { row: row.clone(), at });
                self.tell(row);
            }
        }
        let known = seen.epochs.entry(status.epoch).or_default();
        if !known.contains_key(name) {
            known.insert(name.into(), now);
            if status.epoch > 1 {
                self.screen.say(format!("  {name} is on epoch {}: {} is active", status.epoch, status.active));
            }
        }
        for cloud in &status.clouds {
            if let Some(resync) = cloud.resync {
                let repaired = seen.repaired.entry((name.into(), cloud.name.clone())).or_default();
                repaired.rows = repaired.rows.max(resync.rows_done);
                repaired.bytes = repaired.bytes.max(resync.bytes_done);
            }
        }
        seen.latest.insert(name.into(), status);
        drop(seen);
        self.news.notify_waiters();
    }

    fn tell(&self, row: &DecisionRow) {
        let word = if row.carried { format!("EPOCH {}", row.epoch) } else { "REFUSED".into() };
        self.screen.say(wrapped(&format!("{word} (proposed by {}): {}", row.filer, row.text)));
        for ballot in &row.ballots {
            self.screen.say(format!("  ballot of {ballot}"));
        }
    }
}

async fn look(shared: Arc<Shared>, name: String, admin: AdminClient) {
    loop {
        match admin.status().await {
            Ok(status) => shared.note(&name, status),
            Err(error) => tracing::debug!(%name, %error, "no status"),
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The text in lines, the further ones indented.
fn wrapped(text: &str) -> String {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ') {
        if !line.is_empty() && line.len() + word.len() > LINE_BYTES_MAX {
            lines.push(std::mem::replace(&mut line, "   ".into()));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines.join("\n")
}

/// A filer's state in one line.
pub fn brief(status: &Status) -> String {
    let clouds: Vec<String> = status.clouds.iter().map(cloud_words).collect();
    let (staging, log) = (&status.staging, if status.has_majority { "" } else { ", WITHOUT A MAJORITY" });
    format!(
        "  {}: epoch {}; {}; staging {} in {}{log}",
        status.filer.name,
        status.epoch,
        clouds.join("; "),
        bytes(staging.bytes),
        counted(staging.segments, "segment")
    )
}

/// A cloud's state in a few words.
pub fn cloud_words(cloud: &Cloud) -> String {
    let (state, role) = (format!("{:?}", cloud.state).to_lowercase(), format!("{:?}", cloud.role).to_lowercase());
    let missed = cloud.missed_puts + cloud.missed_deletes;
    let missed = if missed > 0 { format!(", {} missed", counted(missed, "change")) } else { String::new() };
    format!("{} {state} ({role}{missed})", cloud.name)
}
