//! The replicated log: every change of the CloudFS enters here, and is applied in one order at every filer.
//!
//! A filer proposes an operation; the leader that the filers elect puts it into its log and sends it to the others;
//! when a majority has it on disk, every filer applies it to its own tables. What is acknowledged is never lost while
//! a majority of the disks lives, and no two filers disagree about the order.
//!
//! ```text
//!  propose -> tickets -> leader? -- no --> forward --(peers)--> leader's service
//!                          | yes                                      |
//!                          v                                          v
//!                       engine (openraft): elects, replicates, commits
//!                       |                |                  |
//!                     log -> LOG   machine -> STATE    network -> peers
//! ```
//!
//! Owns: tables LOG and STATE, the records `consensus/...` of META, the consensus channel between filers, and the list
//! of members. Does not own: what operations mean ([`api::StateMachine`]), or how peers are reached
//! ([`Peers`](crate::peers::Peers)). The engine, openraft, does not show outside of this module.

pub mod api;
mod barrier;
mod dedup;
mod engine;
mod forward;
mod heartbeat;
mod log;
mod machine;
mod majority;
mod members;
mod network;
mod propose;
mod replica;
mod revoked;
mod runtime;
mod service;
mod settings;
mod shared;
mod snapshot;
mod standing;
mod wire;

pub use api::{ConsensusStatus, MembershipError, ProposeError, StartError, StateMachine};
pub use dedup::{removed, removed_key};
pub use propose::Ticket;
pub use replica::{Changes, Consensus};
pub use revoked::{Revoked, RevokedList};
pub use runtime::Spawning;
pub use settings::Settings;

#[cfg(test)]
mod tests;
