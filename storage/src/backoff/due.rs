//! What is due when: pieces by their times and in their own order, so that neither the next deadline nor what has come due
//! is searched for among all that wait. An outage leaves many of them.

use std::collections::{BTreeMap, BTreeSet};

/// Times, in milliseconds, of those keys that have one.
#[derive(Debug)]
pub struct Due<K> {
    times: BTreeMap<K, u64>,
    order: BTreeSet<(u64, K)>,
}

impl<K> Default for Due<K> {
    fn default() -> Self {
        Self { times: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Copy + Ord> Due<K> {
    /// Gives a key a time in place of the one that it had; or none.
    pub fn set(&mut self, key: K, at_ms: Option<u64>) {
        let before_ms = self.times.get(&key).copied();
        if before_ms == at_ms {
            return;
        }
        if let Some(before_ms) = before_ms {
            self.order.remove(&(before_ms, key));
        }
        match at_ms {
            Some(at_ms) => {
                self.times.insert(key, at_ms);
                self.order.insert((at_ms, key));
            }
            None => drop(self.times.remove(&key)),
        }
    }

    /// The earliest time.
    pub fn first_ms(&self) -> Option<u64> {
        self.order.first().map(|(at_ms, _)| *at_ms)
    }

    /// The key with the earliest time; the lowest of several.
    pub fn earliest(&self) -> Option<K> {
        self.order.first().map(|(_, key)| *key)
    }

    /// The lowest key.
    pub fn lowest(&self) -> Option<K> {
        self.times.first_key_value().map(|(key, _)| *key)
    }

    /// Keys that are due by `now_ms`, with their times, the earliest first.
    pub fn until(&self, now_ms: u64) -> impl Iterator<Item = (K, u64)> + '_ {
        self.order.iter().take_while(move |(at_ms, _)| *at_ms <= now_ms).map(|(at_ms, key)| (*key, *at_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever was set, and set again: it answers as a search among all would.
        #[test]
        fn it_answers_as_a_search_would(sets in prop::collection::vec((0u8..8, prop::option::of(0u64..6)), 0..64)) {
            let (mut due, mut model) = (Due::default(), BTreeMap::new());
            for (key, at_ms) in sets {
                due.set(key, at_ms);
                match at_ms {
                    Some(at_ms) => drop(model.insert(key, at_ms)),
                    None => drop(model.remove(&key)),
                }
                let by_time = |now_ms: u64| {
                    let mut due: Vec<(u8, u64)> = model.iter().map(|(key, at_ms)| (*key, *at_ms)).collect();
                    due.retain(|(_, at_ms)| *at_ms <= now_ms);
                    due.sort_by_key(|(key, at_ms)| (*at_ms, *key));
                    due
                };
                prop_assert_eq!(due.first_ms(), model.values().min().copied());
                prop_assert_eq!(due.earliest(), by_time(u64::MAX).first().map(|(key, _)| *key));
                prop_assert_eq!(due.lowest(), model.keys().next().copied());
                for now_ms in 0..7 {
                    prop_assert_eq!(due.until(now_ms).collect::<Vec<_>>(), by_time(now_ms));
                }
            }
        }
    }
}
