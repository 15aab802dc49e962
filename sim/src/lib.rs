//! The deterministic simulator: many whole filers in one process, on virtual time, from a seed.
//!
//! It runs the very actors and machines of production over a world of its own: network, clouds, disks, clocks and power.
//!
//! ```text
//! seed -> plan (which faults, when) -> world (filers over simulated effects) <- clients, faults
//!                                            |-> watch and invariants -> passed, or what is wrong and when
//!                                            '-> trace -> hash: the same seed gives the same run
//! ```
//!
//! Owns: the world's behaviour, what clients do, what must hold. Does not own: anything that a filer does.

pub mod clients;
pub mod coverage;
pub mod dice;
pub mod diff;
pub mod entropy;
pub mod faults;
pub mod invariants;
pub mod plan;
pub mod recording;
pub mod report;
pub mod run;
pub mod shrink;
pub mod trace;
pub mod world;
