//! How long to wait before trying again: doubling, with jitter, up to a limit.

pub mod due;
pub mod turns;

use mesh::clock::Random;

/// Bounds of a wait, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub ms_min: u64,
    pub ms_max: u64,
}

impl Backoff {
    /// The wait after `failures` failures in a row (at least one): between half of and the whole of the doubled wait, and
    /// never none.
    pub fn wait_ms(&self, failures: u32, random: &dyn Random) -> u64 {
        let doubled =
            self.ms_min.max(1).saturating_mul(1 << failures.saturating_sub(1).min(30)).min(self.ms_max.max(1));
        doubled - random.next_u64() % (doubled / 2 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::clock::SeededRandom;
    use proptest::prelude::*;

    #[test]
    fn waits_double_up_to_the_limit() {
        let (backoff, random) = (Backoff { ms_min: 10, ms_max: 1000 }, SeededRandom::new(1));
        for (failures, most) in [(1, 10), (2, 20), (5, 160), (8, 1000), (u32::MAX, 1000)] {
            for _ in 0..50 {
                let wait = backoff.wait_ms(failures, &random);
                assert!((most / 2..=most).contains(&wait), "{failures} failures: {wait} ms");
            }
        }
    }

    struct Drawn(u64);

    impl Random for Drawn {
        fn next_u64(&self) -> u64 {
            self.0
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the settings and the draw: no wait is zero, none exceeds the limit or the doubled wait, none is
        /// shorter than half of that.
        #[test]
        fn waits_keep_their_bounds(ms_min in 0..=u64::MAX >> 20, ms_max: u64, failures: u32, drawn: u64) {
            let wait = Backoff { ms_min, ms_max }.wait_ms(failures, &Drawn(drawn));
            let doublings = failures.saturating_sub(1).min(30);
            let most = (u128::from(ms_min.max(1)) << doublings).min(u128::from(ms_max.max(1)));
            prop_assert!(wait >= 1);
            prop_assert!(u128::from(wait) <= most);
            prop_assert!(u128::from(wait) * 2 >= most);
        }
    }
}
