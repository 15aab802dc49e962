//! The secret of the CloudFS: what its doors seal their handles with, so that nobody can make one up.
//!
//! It is drawn once, at random, and kept in the replicated state: the same at every filer, and there after every
//! restart. It is never shown: its debug form says nothing of it.

use super::{
    applying::{Applying, Stop},
    keys,
    ops::Answer,
    read::{self, StateRead},
};
use mesh::{clock::Random, kv::KvError};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Length of the secret, in bytes.
pub const SECRET_BYTES: usize = 32;

/// What the filers of a CloudFS know and nobody else does.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorSecret([u8; SECRET_BYTES]);

impl fmt::Debug for DoorSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DoorSecret(..)")
    }
}

impl DoorSecret {
    /// The secret of these bytes.
    pub const fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    /// A new secret. It is as good as the generator.
    pub fn draw(random: &dyn Random) -> Self {
        let mut bytes = [0; SECRET_BYTES];
        bytes.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&random.next_u64().to_le_bytes()));
        Self(bytes)
    }

    /// Its bytes, for those who seal with it.
    pub fn bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }
}

/// The CloudFS's secret; `None` before one was drawn.
pub fn door_secret<R: StateRead + ?Sized>(kv: &R) -> Result<Option<DoorSecret>, KvError> {
    read::row(kv, &keys::door_secret())
}

impl Applying<'_, '_> {
    /// Keeps the secret, if there is none yet: the first one stays.
    pub fn keep_secret(&mut self, drawn: DoorSecret) -> Result<Answer, Stop> {
        if door_secret(self)?.is_none() {
            self.put(keys::door_secret(), &drawn);
        }
        Ok(Answer::Done)
    }
}
