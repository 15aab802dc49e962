//! Whole filers in one process, in milliseconds: what a client was told holds, whatever fails.

mod client;
mod clouds;
mod damage;
mod files;
mod freshness;
mod looks;
mod memory;
mod model;
mod network;
mod outages;
mod outcomes;
mod panics;
mod power;
mod recording;
mod removal;
mod restarts;
mod standing;
mod unforeseen;
mod world;
