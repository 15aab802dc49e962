//! Faults that a test switches on while the cloud runs.
//!
//! A fault says which requests it meets (operation, key), how many of them, and what happens to them. The first fault
//! in order of age that meets a request is the one that acts; one that has met its number of requests is healed.
//!
//! Owns: the table of faults and who meets them. Does not own: carrying them out (`door`).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Put,
    Get,
    Head,
    Delete,
    List,
    /// Everything else: buckets, multipart, and what is not understood.
    Other,
}

/// Which operations a fault meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    #[default]
    Any,
    Put,
    Get,
    Head,
    Delete,
    List,
}

impl On {
    fn meets(self, operation: Operation) -> bool {
        match self {
            Self::Any => true,
            Self::Put => operation == Operation::Put,
            Self::Get => operation == Operation::Get,
            Self::Head => operation == Operation::Head,
            Self::Delete => operation == Operation::Delete,
            Self::List => operation == Operation::List,
        }
    }
}

/// Which keys a fault meets. A listing's key is its prefix; a delete of many objects is met if one of them is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    #[default]
    All,
    Prefix(String),
    Exact(String),
    Contains(String),
}

impl Keys {
    /// Whether one of these keys is meant.
    pub fn meets(&self, keys: &[String]) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(prefix) => keys.iter().any(|key| key.starts_with(prefix)),
            Self::Exact(exact) => keys.contains(exact),
            Self::Contains(part) => keys.iter().any(|key| key.contains(part)),
        }
    }
}

/// What happens to a request that a fault meets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Effect {
    /// Nothing more than the fault's `delay_ms`.
    Slowly,
    /// This HTTP status, such as 500, 503 or 429. `happened`: the operation was carried out all the same.
    Status {
        status: u16,
        #[serde(default)]
        happened: bool,
    },
    /// 403, as after the credentials were revoked.
    Denied,
    /// The connection is reset. `happened`: after the operation was carried out.
    Reset {
        #[serde(default)]
        happened: bool,
    },
    /// No answer, and the operation does not happen.
    HangBefore,
    /// The operation happens, and the answer comes that much later or never.
    HangAfter {
        #[serde(default)]
        answer_after_ms: Option<u64>,
    },
    /// For puts: the body is taken, the answer is this status or none, and the object appears that much later.
    LatePut {
        store_after_ms: u64,
        /// None: no answer.
        #[serde(default)]
        status: Option<u16>,
    },
    /// ETags are the MD5 of something else (puts, gets, heads and lists).
    WrongEtag,
    /// ETags are no MD5 at all, as in a bucket with its own encryption keys.
    OpaqueEtag,
    /// The body of a get ends after this many bytes. `honest`: the length told is the shorter one; else the
    /// connection breaks.
    Truncate {
        keep_bytes: u64,
        #[serde(default)]
        honest: bool,
    },
    /// The body of a get has this bit turned over (counted from its first byte).
    FlipBit {
        #[serde(default)]
        bit: u64,
    },
    /// For puts: the receipt is given, then the object is gone, at once or that much later.
    Lose {
        #[serde(default)]
        after_ms: u64,
    },
    /// Bodies flow at this speed, in both directions.
    Slow { bytes_per_s: u64 },
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    #[serde(default)]
    pub on: On,
    #[serde(default)]
    pub keys: Keys,
    /// How many requests it meets before it is healed; none: until it is removed.
    #[serde(default)]
    pub times: Option<u64>,
    /// Time that passes first, in milliseconds.
    #[serde(default)]
    pub delay_ms: u64,
    pub effect: Effect,
}

impl Fault {
    /// A fault that meets these operations on every key, until it is removed.
    pub fn new(on: On, effect: Effect) -> Self {
        Self { on, keys: Keys::All, times: None, delay_ms: 0, effect }
    }

    /// On keys that begin with `prefix`.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { keys: Keys::Prefix(prefix.into()), ..self }
    }

    /// On this key.
    pub fn key(self, key: impl Into<String>) -> Self {
        Self { keys: Keys::Exact(key.into()), ..self }
    }

    /// On the first `times` requests.
    pub fn times(self, times: u64) -> Self {
        Self { times: Some(times), ..self }
    }

    /// After a while, in milliseconds.
    pub fn delay_ms(self, delay_ms: u64) -> Self {
        Self { delay_ms, ..self }
    }
}

/// A fault in the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    pub id: u64,
    pub fault: Fault,
    /// Requests it has met.
    pub met: u64,
}

/// The faults of one cloud.
#[derive(Debug, Default)]
pub struct Faults {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    active: BTreeMap<u64, Active>,
}

impl Faults {
    /// Switches a fault on; its id.
    pub fn add(&self, fault: Fault) -> u64 {
        let mut table = self.table();
        table.last += 1;
        let id = table.last;
        if fault.times != Some(0) {
            table.active.insert(id, Active { id, fault, met: 0 });
        }
        id
    }

    /// Switches one off; whether it was on.
    pub fn remove(&self, id: u64) -> bool {
        self.table().active.remove(&id).is_some()
    }

    /// Switches all off. Requests that already hang go on hanging.
    pub fn heal(&self) {
        self.table().active.clear();
    }

    /// Those that are on, oldest first.
    pub fn active(&self) -> Vec<Active> {
        self.table().active.values().cloned().collect()
    }

    /// The fault that meets this request, which is counted.
    pub(super) fn meet(&self, operation: Operation, keys: &[String]) -> Option<(u64, Fault)> {
        let mut table = self.table();
        let meets = |active: &&mut Active| active.fault.on.meets(operation) && active.fault.keys.meets(keys);
        let active = table.active.values_mut().find(meets)?;
        active.met += 1;
        let (id, fault) = (active.id, active.fault.clone());
        if fault.times.is_some_and(|times| active.met >= times) {
            table.active.remove(&id);
        }
        Some((id, fault))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_fault_that_meets_a_request_acts_until_its_number_is_reached() {
        let faults = Faults::default();
        let first = faults.add(Fault::new(On::Put, Effect::Denied).prefix("a/").times(2));
        let second = faults.add(Fault::new(On::Any, Effect::HangBefore));
        let met = |operation, key: &str| faults.meet(operation, &[key.to_string()]).map(|(id, _)| id);
        assert_eq!(met(Operation::Put, "a/1"), Some(first));
        assert_eq!(met(Operation::Get, "a/1"), Some(second));
        assert_eq!(met(Operation::Put, "b/1"), Some(second));
        assert_eq!(met(Operation::Put, "a/2"), Some(first));
        assert_eq!(met(Operation::Put, "a/3"), Some(second));
        assert_eq!(faults.active().len(), 1);
        faults.heal();
        assert_eq!(met(Operation::Put, "a/3"), None);
        assert!(!faults.remove(second));
    }

    #[test]
    fn a_fault_is_short_in_json() {
        let fault: Fault = serde_json::from_str(
            r#"{"on":"put","keys":{"prefix":"a/"},"times":3,"effect":{"kind":"status","status":503}}"#,
        )
        .unwrap();
        assert_eq!(fault, Fault::new(On::Put, Effect::Status { status: 503, happened: false }).prefix("a/").times(3));
        let all: Fault = serde_json::from_str(r#"{"effect":{"kind":"hang_before"}}"#).unwrap();
        assert_eq!(all, Fault::new(On::Any, Effect::HangBefore));
    }
}
