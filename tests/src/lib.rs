//! Real parts to test filermesh with, end to end: clouds with faults to order, other vendors' servers and clients, and
//! processes that are started, watched and killed.

pub mod azurite;
pub mod cloud;
pub mod demo;
pub mod http;
pub mod mesh_of_filers;
pub mod nfs3;
pub mod nfs_client;
pub mod process;
pub mod proof;
pub mod rclone;
pub mod sites;
pub mod wall_clock;
pub mod wires;
