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
//! - not one that has said nothing for [`SILENT_MS_MAX`]: it is down, or no member any more.
//!
//! How long that is, is counted by clocks that do not jump: each filer says how much has passed since it showed its clock
//! last, and what others have counted of that is not counted again. So it is never more than has passed, and less where filers
//! start again.
//!
//! Of two filers whose clocks part little by little nobody can tell which one is right: the time is the later one's, up to
//! [`AHEAD_NS_MAX`] ahead of the other. And where all clocks but one are further than [`BEHIND_NS_MAX`] behind the time, that one
//! makes it: right ones that are still so far behind what one wrong clock made of the time do not contradict a second one.
//!
//! Where every clock is that far behind, as behind the only filer's that was years ahead and was put right, the time goes on
//! half as fast as what is counted passes. Otherwise nothing that waits for a time would ever come about; and as fast as they,
//! clocks that are right would never come near enough to have their say again. Once one has come near, the time waits for it.
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
/// How much one word of a filer counts at most, in milliseconds: it may have been away for longer.
const COUNTED_MS_MAX: u64 = 60_000;
const NS_PER_MS: u64 = 1_000_000;
/// How many filers' clocks are remembered; others take the places of those that are silent. More than are ever lost at once:
/// of whoever is not remembered, nothing is counted.
const HEARD_MAX: usize = 64;
/// A clock that shows a later time is taken to show this one, in nanoseconds since the Unix epoch (in the year 2262): there
/// must be times behind it.
pub const LATEST_NS: u64 = i64::MAX as u64;

/// What a filer's clock showed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Heard {
    pub filer: FilerId,
    pub wall_ns: u64,
    /// How much time has been counted since it last said so by [`OpBody::Clock`](super::OpBody::Clock), in milliseconds; but no
    /// more than [`COUNTED_MS_MAX`] above what has been counted since its last word of any kind.
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

    /// Remembers what a filer's clock shows. Others may have counted already what its next [`OpBody::Clock`](super::OpBody::Clock)
    /// says has passed: of a newcomer, and of one that has shown none for long, that counts nothing.
    pub fn hear(&mut self, filer: FilerId, wall_ns: u64) {
        if let Some(known) = self.clocks.iter_mut().find(|heard| heard.filer == filer) {
            known.wall_ns = wall_ns;
            known.silent_ms = known.silent_ms.min(COUNTED_MS_MAX);
        } else if self.clocks.len() < HEARD_MAX {
            self.clocks.push(Heard { filer, wall_ns, silent_ms: COUNTED_MS_MAX });
        }
    }

    /// The time when a filer shows its clock `since_ms` after it last did, which is `now_ns` by what clocks show.
    pub fn goes_on(&mut self, filer: FilerId, now_ns: u64, since_ms: u64) -> u64 {
        let counted_ms = self.count(filer, since_ms);
        let behind = |heard: &Heard| heard.wall_ns.saturating_add(BEHIND_NS_MAX) < now_ns;
        if self.clocks.iter().all(behind) { now_ns.saturating_add(counted_ms * NS_PER_MS / 2) } else { now_ns }
    }

    /// Counts what nobody has counted yet of the time since a filer last showed its clock, in milliseconds, as the others'
    /// silence.
    fn count(&mut self, filer: FilerId, since_ms: u64) -> u64 {
        let Some(shown) = self.clocks.iter_mut().find(|heard| heard.filer == filer) else { return 0 };
        let counted_ms = since_ms.min(COUNTED_MS_MAX).saturating_sub(shown.silent_ms);
        for heard in &mut self.clocks {
            heard.silent_ms = if heard.filer == filer { 0 } else { heard.silent_ms.saturating_add(counted_ms) };
        }
        self.clocks.retain(|heard| heard.silent_ms <= SILENT_MS_MAX);
        counted_ms
    }
}
