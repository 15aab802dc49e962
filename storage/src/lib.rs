//! What is kept: segments, clouds, receipts, health, the missed-write log, staging, and the CloudFS state machine.
//!
//! The core is pure. Real object stores, RocksDB and disks stand behind the feature `io`.

pub mod backoff;
pub mod cache;
pub mod cloud;
pub mod cloudfs;
#[cfg(feature = "io")]
pub mod clouds;
pub mod disk;
#[cfg(feature = "io")]
pub mod files;
pub mod grace;
pub mod health;
pub mod ids;
pub mod mirror;
pub mod resync;
#[cfg(feature = "io")]
pub mod rocks;
pub mod segment;
pub mod staging;
#[cfg(test)]
mod state_table;
