//! A site: serves the CloudFS to local clients and keeps it in two clouds.
//!
//! [`filer::Filer`] is a whole filer over the traits of `mesh` and `storage`; the simulator runs it as it is. What needs
//! real sockets, disks and clouds stands behind the feature `serve`.

pub mod actors;
#[cfg(feature = "serve")]
pub mod admin;
#[cfg(feature = "serve")]
pub mod cli;
pub mod cloud_names;
#[cfg(feature = "serve")]
pub mod config;
pub mod door;
pub mod filer;
pub mod fs;
#[cfg(feature = "serve")]
pub mod nfs;
pub mod reading;
pub mod roles;
#[cfg(feature = "serve")]
pub mod site;
pub mod vfs;
pub mod wire;
