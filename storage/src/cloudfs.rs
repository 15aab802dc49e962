//! The CloudFS state machine: what all filers agree on.
//!
//! Owns: inodes, names, extents, segments and where their copies are, cloud roles, states and epoch, the missed-write
//! log, and the rules by which operations change them. Does not own: the log that orders operations (`mesh`), the data
//! itself, and any decision that needs a clock or a network.

mod applying;
mod clouds;
mod extents;
mod invariants;
mod keys;
mod leaving;
mod machine;
mod misses;
pub mod ops;
mod orphans;
pub mod read;
mod rename;
mod secret;
mod segments;
#[cfg(test)]
mod tests;
pub mod time;
mod tree;
pub mod types;

pub use invariants::check_invariants;
pub use leaving::{is_leaving, leaving};
pub use machine::{ANSWER_VERSION, CloudFs, RolesHook, apply_op, decode_answer, decode_op, encode_op};
pub use ops::{Answer, AttrChange, BY_OPERATOR, OnExisting, Op, OpBody, OpError};
pub use secret::{DoorSecret, SECRET_BYTES, door_secret};
pub use types::*;
