//! The server through real sockets: a raw RPC client, and libnfs's own tools.

mod admission;
mod client;
mod directories;
mod exports;
mod libnfs;
mod memory;
mod procedures;
mod repeats;
mod rpc;
