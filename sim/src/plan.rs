//! What is to happen in a run: drawn from its seed before it begins, and kept as a file where somebody wants it.
//!
//! A plan says everything that a run depends on, so that it can be made smaller by hand or by `sim shrink`, and run again.

mod check;
mod draw;
mod scenes;

pub use draw::{SKEW_MS_MAX, SMALL_JUMP_MS_MAX};
pub use scenes::{Faults, SCENES, Scene};

use crate::world::clouds::Trouble;
use serde::{Deserialize, Serialize};

/// Version of the format of a plan in a file.
pub const PLAN_VERSION: u32 = 1;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum What {
    /// Calls of one filer to another do not arrive.
    OneWayCut {
        from: u64,
        to: u64,
    },
    /// These filers and the others do not reach each other.
    Partition {
        side: Vec<u64>,
    },
    /// One filer comes and goes.
    Flapping {
        filer: u64,
        every_ms: u64,
    },
    /// Every way to and from a filer is slow.
    SlowLink {
        filer: u64,
        delay_ms: u64,
        bytes_per_s: u64,
    },
    /// Every way loses and repeats.
    Lossy {
        lost_per_mille: u64,
        twice_per_mille: u64,
        jitter_ms: u64,
    },
    /// Cloud 0 or 1 is in trouble.
    Cloud {
        cloud: usize,
        trouble: Trouble,
    },
    /// Both clouds are out; the second one so much later, and back so much earlier (or later, where it is negative).
    BothOut {
        second: usize,
        later_ms: u64,
        back_earlier_ms: i64,
    },
    /// A cloud loses an object that it has given a receipt for.
    LoseObject {
        cloud: usize,
    },
    /// A filer loses power; at one of its effects, where that is said, and once more in its recovery.
    Crash {
        filer: u64,
        down_ms: u64,
        at_effect: Option<u64>,
        again_after: Option<u64>,
    },
    /// A filer loses power in the middle of a sync of a file, the one that comes so many from then.
    CrashAtSync {
        filer: u64,
        down_ms: u64,
        syncs: u64,
    },
    /// The filer that leads loses power.
    CrashLeader {
        down_ms: u64,
    },
    /// A filer is lost for ever, with its disk. An operator removes what only it had, then the filer.
    Lose {
        filer: u64,
    },
    /// A filer is added.
    Add,
    /// A filer's disk takes long to sync.
    SlowSync {
        filer: u64,
        ms: u64,
    },
    /// A filer's disk takes only so many bytes more.
    FullDisk {
        filer: u64,
        left_bytes: u64,
    },
    /// Bits flip in the cached copies that a filer has on disk.
    FlipCache {
        filer: u64,
        bits: u64,
    },
    /// Bits flip in what a filer has staged. What only its disk has may be lost by that; it never becomes other data.
    FlipStaging {
        filer: u64,
        bits: u64,
    },
    /// Sectors of the cached copies that a filer has on disk cannot be read any more.
    UnreadableCache {
        filer: u64,
        sectors: u64,
    },
    /// Sectors of what a filer has staged cannot be read any more. What lies there may be lost, and nothing else.
    UnreadableStaging {
        filer: u64,
        sectors: u64,
    },
    /// A filer's clock jumps, and is right again at the end.
    ClockOff {
        filer: u64,
        ms: i64,
    },
    /// An operator wants the other cloud active, or the preferred one.
    Failover {
        filer: u64,
    },
    Failback {
        filer: u64,
    },
}

impl What {
    /// By how much it lasts longer than its fault's time, in milliseconds.
    pub fn longer_ms(&self) -> u64 {
        match self {
            Self::BothOut { later_ms, back_earlier_ms, .. } => later_ms + back_earlier_ms.unsigned_abs(),
            _ => 0,
        }
    }

    /// The filers that it names.
    pub fn filers(&self) -> Vec<u64> {
        match self {
            Self::OneWayCut { from, to } => vec![*from, *to],
            Self::Partition { side } => side.clone(),
            Self::Flapping { filer, .. }
            | Self::SlowLink { filer, .. }
            | Self::Crash { filer, .. }
            | Self::CrashAtSync { filer, .. }
            | Self::Lose { filer }
            | Self::SlowSync { filer, .. }
            | Self::FullDisk { filer, .. }
            | Self::FlipCache { filer, .. }
            | Self::FlipStaging { filer, .. }
            | Self::UnreadableCache { filer, .. }
            | Self::UnreadableStaging { filer, .. }
            | Self::ClockOff { filer, .. }
            | Self::Failover { filer }
            | Self::Failback { filer }
            | Self::Cloud { trouble: Trouble::CutFrom { filer }, .. } => vec![*filer],
            _ => Vec::new(),
        }
    }
}

/// Something that goes wrong, when and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Virtual milliseconds since clients began.
    pub at_ms: u64,
    pub for_ms: u64,
    pub what: What,
    /// Waits from then on until a cloud is resynced, and so many milliseconds longer; it does not happen where none is before
    /// the faults end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_resync_ms: Option<u64>,
}

fn one() -> u32 {
    1
}

/// How late a put may arrive at most, in milliseconds, where nothing is said.
pub const PUT_ARRIVES_MS: u64 = 60_000;

fn put_arrives_ms() -> u64 {
    PUT_ARRIVES_MS
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub version: u32,
    pub seed: u64,
    pub scene: String,
    pub filers: u64,
    pub clients_per_site: u64,
    /// How long faults happen; then the world heals.
    pub storm_ms: u64,
    /// Mean time between two operations of a client.
    pub think_ms: u64,
    /// Operations after which a client rests; none: it works until the world is healed.
    pub operations_max: Option<u64>,
    /// Consecutive failures that trip a cloud.
    pub failures_to_trip: u32,
    /// How many times as rarely as usual a leader tells the others that it lives, and the run is looked at: makes long runs of
    /// little work quick.
    #[serde(default = "one")]
    pub rarely: u32,
    /// How long a client goes on reading a file that it has closed, in milliseconds. It keeps the file open, and looks at no
    /// attributes first: so a read of it may be its filer's first call after a start.
    #[serde(default)]
    pub read_back_ms: u64,
    /// How late a put may arrive at most, in milliseconds: what is dead is kept twice as long.
    #[serde(default = "put_arrives_ms")]
    pub put_arrives_ms: u64,
    /// The longest that a client may wait for an answer, in milliseconds, where the plan's faults leave its filer all that it
    /// needs; none: nothing is promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_ms_max: Option<u64>,
    /// How far each site's clock is ahead of the right time, in milliseconds; right where none is given.
    pub skews_ms: Vec<i64>,
    pub faults: Vec<Fault>,
}

impl Plan {
    /// Reads a plan from its file's text.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plan: Self = serde_json::from_str(text).map_err(|e| format!("it is no plan: {e}"))?;
        plan.check()?;
        Ok(plan)
    }

    /// The plan as its file's text.
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a plan has only what JSON has");
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_its_file() {
        for scene in SCENES {
            let plan = Plan::draw(7, scene.name, (3, 7), 2);
            assert_eq!(Plan::parse(&plan.text()), Ok(plan));
        }
    }

    #[test]
    fn a_file_that_is_no_plan_is_refused_with_a_reason() {
        let plan = Plan::draw(7, "mixed", (3, 7), 2);
        let newer = plan.text().replace("\"version\": 1", "\"version\": 2");
        assert!(Plan::parse(&newer).is_err_and(|why| why.contains("version 2")));
        let unknown = plan.text().replace("\"filers\"", "\"filters\"");
        assert!(Plan::parse(&unknown).is_err_and(|why| why.contains("filters")));
        let misspelt = plan.text().replace("\"for_ms\"", "\"for_msec\"");
        assert!(Plan::parse(&misspelt).is_err_and(|why| why.contains("for_msec")));
    }
}
