//! Time and randomness, as effects.
//!
//! Monotonic time is `tokio::time::Instant`, which the simulator pauses and steers; wall time and random numbers come
//! through these two traits. Nothing in the product reads the system clock or a global generator anywhere else.

use std::sync::Mutex;

/// The wall clock: for time stamps that people and files see, never for deadlines.
pub trait Clock: Send + Sync + 'static {
    /// Nanoseconds since the Unix epoch.
    fn wall_ns(&self) -> u64;
}

/// A source of random numbers: jitter, ids, sampling, and the secret of a CloudFS's doors. A real site's is seeded by the
/// operating system with as many bits as a key has.
pub trait Random: Send + Sync + 'static {
    /// A uniformly drawn number.
    fn next_u64(&self) -> u64;
}

/// A generator that a seed determines.
pub struct SeededRandom(Mutex<rand::rngs::StdRng>);

impl SeededRandom {
    /// The generator that `seed` determines.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(rand::SeedableRng::seed_from_u64(seed)))
    }

    /// The generator that these bytes determine: as hard to foretell as they are.
    pub fn from_bytes(seed: [u8; 32]) -> Self {
        Self(Mutex::new(rand::SeedableRng::from_seed(seed)))
    }
}

impl Random for SeededRandom {
    fn next_u64(&self) -> u64 {
        rand::Rng::next_u64(&mut *self.0.lock().expect("no draw panics"))
    }
}
