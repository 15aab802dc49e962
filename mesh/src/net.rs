//! The real mesh: peers that reach each other over QUIC and know each other by certificate.
//!
//! Every filer holds a certificate of its CloudFS's own authority ([`MeshCa`]); the certificate *is* the identity, so
//! no password and no address decides who a peer is. Between two filers stands one QUIC connection, dialled by either
//! side and kept alive; a call is one stream on it.
//!
//! ```text
//! call ──▶ quic ──▶ roster (who is reachable, by which connection) ──▶ session ──▶ frame ──▶ stream
//!           │         ▲                     ▲
//!           │         └── dial (back-off) ──┤
//!           └─ accept ── tls ── hello ──────┘──▶ serve (handlers, their bounds and deadlines)
//! ```
//!
//! Owns: identity files, TLS, sessions, framing, limits and counters of the mesh. Does not own: who the members are
//! (they are agreed on in the CloudFS), nor what a call means.

mod dial;
mod frame;
mod hello;
pub mod identity;
mod quic;
mod roster;
mod serve;
mod session;
mod settings;
mod stats;
#[cfg(test)]
mod tests;
pub mod tls;

pub use identity::{Identity, IdentityError, MeshCa, SigningRequest};
pub use quic::{QuicMesh, StartError};
pub use session::PeerCertificate;
pub use settings::{MeshSettings, SettingsError};
pub use stats::{MeshStats, RefusedCertificates};
