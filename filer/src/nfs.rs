//! The NFS door: NFSv3, MOUNT v3 and the port mapper of one CloudFS on one TCP port (RFC 1813, RFC 5531, RFC 1833).
//!
//! A connection is a stream of records; a record is one call. Calls of a connection run at the same time, up to a
//! bound, and are answered in the order in which they finish. Every call carries a handle, and the handle names the
//! export it came by: network and squash rules of that export are checked at each call, so there is no state of a
//! mount that could be lost, or be wrong, after a restart or at another filer.
//!
//! Owns: records, RPC, credentials, exports, wire handles, the cache of replies to repeated calls, and the mapping of
//! NFS procedures to [`FileSystem`](crate::fs::FileSystem). Does not own: permissions, data, attributes, durability
//! (behind the trait), nor who may reach the port.
//!
//! ```text
//!  listener -> connection -> record -> admission -> rpc + auth -> exports + handle -> attr | data | names | dirs -> FileSystem
//!                  ^                                     |                                     |
//!                  +------------- writer <---------------+------------- replay <---------------+
//! ```

mod admission;
mod attr;
mod auth;
mod data;
mod decode;
mod dirs;
mod dispatch;
pub mod exports;
mod handle;
mod mount;
mod names;
mod portmap;
mod record;
mod replay;
mod rpc;
mod server;
pub mod settings;
pub mod stats;
mod status;
#[cfg(test)]
mod tests;

pub use exports::{Export, Network, Squash};
pub use handle::SecretSource;
pub use server::{NfsServer, StartError};
pub use settings::NfsSettings;
pub use stats::{Counters, NfsStats};
