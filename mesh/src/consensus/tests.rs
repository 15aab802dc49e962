//! Whole replicas over an in-process network, on paused time.

mod chaos;
mod majority;
mod members;
mod mesh;
mod proposals;
mod recovery;
mod standing;
