//! The ways in which a cloud misbehaves.

use serde::{Deserialize, Serialize};

/// A way in which a cloud misbehaves, while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Trouble {
    /// Nothing answers.
    Outage,
    /// One site's calls do not get through.
    CutFrom { filer: u64 },
    /// The credentials are not accepted.
    Denied,
    /// Every answer takes so long.
    Slow { ms: u64 },
    /// So many calls out of a thousand get 500.
    Errors { per_mille: u64 },
    /// 503, slow down.
    Throttled { per_mille: u64 },
    /// So many get an answer that no one has foreseen; the call may have been carried out.
    Unforeseen { per_mille: u64 },
    /// The connection is reset, before or after the call was carried out.
    Resets { per_mille: u64 },
    /// No answer comes; the put happened.
    TimeoutsHappened { per_mille: u64 },
    /// No answer comes; the put did not happen.
    TimeoutsLost { per_mille: u64 },
    /// No answer comes; the put happens up to so much later.
    Late { per_mille: u64, ms: u64 },
    /// Every call for one object in `one_in` fails, always the same ones.
    Shard { one_in: u64 },
    /// The answer of a put has a wrong MD5, and half of these objects are kept with a flipped bit.
    WrongMd5 { per_mille: u64 },
    /// A read ends too early.
    Truncated { per_mille: u64 },
    /// A read has a flipped bit.
    Flipped { per_mille: u64 },
}

impl Trouble {
    /// The trouble in words for people.
    pub fn told(self) -> String {
        let share = |what: &str, per_mille: u64| format!("{what}: {per_mille} calls in 1000");
        match self {
            Self::Outage => "outage".into(),
            Self::CutFrom { filer } => format!("filer {filer} cannot reach it"),
            Self::Denied => "the credentials are refused".into(),
            Self::Slow { ms } => format!("brown-out: answers take up to {ms} ms"),
            Self::Errors { per_mille } => share("500, internal error", per_mille),
            Self::Throttled { per_mille } => share("503, slow down", per_mille),
            Self::Unforeseen { per_mille } => share("418, an answer that no one has foreseen", per_mille),
            Self::Resets { per_mille } => share("connections reset", per_mille),
            Self::TimeoutsHappened { per_mille } => share("no answer, but it happened", per_mille),
            Self::TimeoutsLost { per_mille } => share("no answer", per_mille),
            Self::Late { per_mille, ms } => format!("{per_mille} puts in 1000 happen up to {ms} ms late"),
            Self::Shard { one_in } => format!("every call for one object in {one_in} fails"),
            Self::WrongMd5 { per_mille } => share("wrong MD5s", per_mille),
            Self::Truncated { per_mille } => share("reads cut short", per_mille),
            Self::Flipped { per_mille } => share("a bit flipped in a read", per_mille),
        }
    }
}
