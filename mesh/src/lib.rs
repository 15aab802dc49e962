//! What filers say to each other and agree on: identity, sessions, consensus.
//!
//! Owns: filer ids, the wire and disk record format, the traits through which a filer reaches its peers, its clock,
//! its randomness and its tables, and the replicated log. Does not own: what the log's operations mean (`storage`).
//!
//! The core is pure. Real QUIC and TLS stand behind the feature `net`.

pub mod clock;
pub mod consensus;
pub mod ids;
pub mod kv;
#[cfg(feature = "net")]
pub mod net;
pub mod peers;
pub mod record;
pub mod words;

pub use ids::FilerId;
