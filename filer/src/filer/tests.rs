//! Whole filers in one process, in milliseconds: what a client was told holds, whatever fails.

mod client;
mod clouds;
mod damage;
mod files;
mod model;
mod network;
mod outages;
mod panics;
mod power;
mod restarts;
mod world;
