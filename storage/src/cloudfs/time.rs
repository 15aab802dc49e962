//! The time of operations: agreed by all filers, never running backwards, and not led astray by one clock.
//!
//! An operation brings its proposer's wall clock. It is applied at that time, unless an earlier one was later (then right
//! behind that one), or the clock is ahead of everybody else's: no filer brings the CloudFS further than
//! [`AHEAD_NS_MAX`] ahead of what another filer has shown. So that others have shown something, every filer shows its
//! clock every now and then ([`OpBody::Clock`](super::OpBody::Clock)).
//!
//! ```text
//!   filer 1:      10:00    10:01               2031: as 10:06      ...  its clock is put right: 10:08
//!   filer 2:          10:00    10:01   10:02              10:06      10:07         10:09
//! ```
//!
//! Whose word counts against a clock that is ahead:
//! - another filer's; the only filer of a CloudFS is believed, as nobody else knows better;
//! - not one that is itself further than [`BEHIND_NS_MAX`] behind the time agreed already: it would stop the time;
//! - not one that has said nothing for [`SILENT_MS_MAX`] in which others did, measured by clocks that do not jump: it is
//!   down, or no member any more.
//!
//! Of two filers whose clocks part little by little nobody can tell which one is right: the time is the later one's, up to
//! [`AHEAD_NS_MAX`] ahead of the other.
//!
//! Where every clock is further than [`BEHIND_NS_MAX`] behind the time, as behind the only filer's that was years ahead and was
//! put right, the time goes on half as fast as clocks that do not jump: by half of what the first of the filers says has passed
//! since it last showed its clock. Otherwise nothing that waits for a time would ever come about; and as fast as they, clocks
//! that are right would never come near enough to have their say again.
//!
//! What all clocks agree on is believed at once: after an outage of all filers, a filer's first operations may carry a
//! time of before it, until a second filer has shown its clock.

use super::keys::Counters;
use mesh::FilerId;
use serde::{Deserialize, Serialize};

/// How far ahead of other filers' clocks one filer brings the time, in nanoseconds.
pub const AHEAD_NS_MAX: u64 = 300_000_000_000;
/// A clock that is further behind the agreed time has no say in it, in nanoseconds. More than the time is ever ahead of
/// it by another's word, so that a clock that is right does not lose its say by that word.
pub const BEHIND_NS_MAX: u64 = 2 * AHEAD_NS_MAX;
/// A filer that is silent for longer than this has no say in the time, in milliseconds.
pub const SILENT_MS_MAX: u64 = 240_000;
/// The longest silence that one word of another filer proves, in milliseconds: it may have been away for longer.
const SILENCE_STEP_MS_MAX: u64 = 60_000;
const NS_PER_MS: u64 = 1_000_000;
/// How many filers' clocks are remembered: the ones heard from last.
const HEARD_MAX: usize = 8;

/// What a filer's clock showed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Heard {
    pub filer: FilerId,
    pub wall_ns: u64,
    /// How long others have shown their clocks since, in milliseconds of their clocks that do not jump.
    pub silent_ms: u64,
}

impl Counters {
    /// The time of an operation by `filer`, whose clock shows `wall_ns`: later than every operation before, so that a
    /// changed ctime always differs.
    pub fn time_of(&self, filer: FilerId, wall_ns: u64) -> u64 {
        let in_step = |heard: &&Heard| heard.wall_ns.saturating_add(BEHIND_NS_MAX) >= self.newest_ns;
        let others = self.clocks.iter().filter(|heard| heard.filer != filer).filter(in_step);
        let latest = others.map(|heard| heard.wall_ns).max();
        let believed_ns = latest.map_or(wall_ns, |latest| wall_ns.min(latest.saturating_add(AHEAD_NS_MAX)));
        believed_ns.max(self.newest_ns.saturating_add(1))
    }

    /// Remembers what a filer's clock shows.
    pub fn hear(&mut self, filer: FilerId, wall_ns: u64) {
        self.clocks.retain(|heard| heard.filer != filer);
        if self.clocks.len() >= HEARD_MAX {
            self.clocks.remove(0);
        }
        self.clocks.push(Heard { filer, wall_ns, silent_ms: 0 });
    }

    /// The time when a filer shows its clock after `since_ms`, which would be `now_ns` by what its clock shows.
    pub fn goes_on(&self, filer: FilerId, now_ns: u64, since_ms: u64) -> u64 {
        let behind = |heard: &Heard| heard.wall_ns.saturating_add(BEHIND_NS_MAX) < now_ns;
        let first = self.clocks.iter().map(|heard| heard.filer).min();
        if first == Some(filer) && self.clocks.iter().all(behind) {
            now_ns.saturating_add(since_ms.min(SILENCE_STEP_MS_MAX) * NS_PER_MS / 2)
        } else {
            now_ns
        }
    }

    /// A filer has shown its clock after `since_ms`: the others were silent for as long, as far as it knows.
    pub fn wait(&mut self, filer: FilerId, since_ms: u64) {
        for heard in self.clocks.iter_mut().filter(|heard| heard.filer != filer) {
            heard.silent_ms = heard.silent_ms.saturating_add(since_ms.min(SILENCE_STEP_MS_MAX));
        }
        self.clocks.retain(|heard| heard.silent_ms <= SILENT_MS_MAX);
    }
}
