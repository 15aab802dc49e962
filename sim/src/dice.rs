//! Draws from a seed: every part of a run has a generator of its own, so that one more draw in one part moves no other.

use mesh::clock::{Random, SeededRandom};

/// A generator that a seed and a name determine.
pub struct Dice(SeededRandom);

/// A 64-bit FNV-1a hash, which goes on from `hash`.
pub fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Where [`fnv`] begins.
pub const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

impl Dice {
    /// The generator of the part `name` of the run `seed`.
    pub fn of(seed: u64, name: &str) -> Self {
        Self(SeededRandom::new(fnv(fnv(FNV_START, &seed.to_le_bytes()), name.as_bytes())))
    }

    /// Any number.
    pub fn next(&self) -> u64 {
        self.0.next_u64()
    }

    /// A number from 0 to `bound - 1`; 0 when `bound` is 0.
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// A number from `from` to `to`, both included.
    pub fn between(&self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// True so many times out of a thousand.
    pub fn per_mille(&self, times: u64) -> bool {
        times > 0 && self.below(1000) < times
    }

    /// One of these.
    pub fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// Between nothing and five times `mean`, small values more often than large ones.
    pub fn around(&self, mean: u64) -> u64 {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        ((-(1.0 - unit).ln()).min(5.0) * mean as f64) as u64
    }
}
