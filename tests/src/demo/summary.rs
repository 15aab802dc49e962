//! What the demo measured, and what it proved.

use super::{
    proofs::Proof,
    screen::{Screen, bytes, time},
    watch::Repaired,
};
use crate::nfs3::Stall;
use std::time::Duration;

/// The end of the story.
pub struct Summary {
    /// Copied in, at the start.
    pub files: usize,
    pub bytes: u64,
    /// At the end.
    pub files_at_end: usize,
    pub bytes_at_end: u64,
    /// Bytes that clients wrote and read, in all.
    pub written_bytes: u64,
    pub read_bytes: u64,
    /// Changes made while the cloud was away and came back.
    pub changes: u64,
    pub kill_to_trip: Duration,
    pub trip_to_last: Duration,
    /// The last filer on the new epoch.
    pub last_filer: String,
    /// Since the cloud was killed, and where.
    pub longest: (String, Stall),
    pub repaired: Repaired,
    pub resync: Duration,
    pub failback: Duration,
    pub segments: usize,
    pub proofs: Vec<Proof>,
    pub took: Duration,
}

impl Summary {
    /// Whether every proof passed.
    pub fn is_good(&self) -> bool {
        self.proofs.iter().all(|proof| proof.result.is_ok())
    }

    /// Prints it.
    pub fn show(&self, screen: &Screen) {
        let (site, longest) = &self.longest;
        let retries =
            if longest.retries > 0 { format!(", asked again {} times", longest.retries) } else { String::new() };
        let rows = [
            ("copied in at ams", format!("{} files, {}", self.files, bytes(self.bytes))),
            ("at the end", format!("{} files, {}", self.files_at_end, bytes(self.bytes_at_end))),
            ("clients wrote and read", format!("{} and {}", bytes(self.written_bytes), bytes(self.read_bytes))),
            ("changes during the failure", self.changes.to_string()),
            ("kill of the cloud to trip", time(self.kill_to_trip)),
            ("trip to last filer on epoch", format!("{} ({})", time(self.trip_to_last), self.last_filer)),
            (
                "longest client stall",
                format!("{} ({} at {site}{retries})", time(Duration::from_millis(longest.ms)), longest.procedure),
            ),
            ("resync", format!("{} rows, {} in {}", self.repaired.rows, bytes(self.repaired.bytes), time(self.resync))),
            ("cloud's return to failback", time(self.failback)),
            ("segments in each cloud", self.segments.to_string()),
            ("the whole demo", time(self.took)),
        ];
        screen.print("\nSUMMARY");
        for (name, value) in rows {
            screen.print(&format!("  {name:<29}{value}"));
        }
        screen.print("\nPROOFS");
        for proof in &self.proofs {
            match &proof.result {
                Ok(how) => screen.print(&format!("  PASSED  {}: {how}", proof.what)),
                Err(error) => screen.print(&format!("  FAILED  {}: {error:#}", proof.what)),
            }
        }
        let failed = self.proofs.iter().filter(|proof| proof.result.is_err()).count();
        let end = match failed {
            0 => "\nPASSED: every proof holds".to_string(),
            n => format!("\nFAILED: {n} of {} proofs do not hold", self.proofs.len()),
        };
        screen.print(&end);
    }
}
