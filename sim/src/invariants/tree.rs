//! The tree is a tree: every inode but the root's lies where its names say, link counts, live bytes and misses add up, and no
//! row is left of what is gone.
//!
//! Why it matters: a directory that holds itself is never deleted, a link too few deletes a file that has a name, and live bytes
//! that run low let the only copy of a file be swept.

use mesh::kv::MemoryKv;
use storage::cloudfs::check_invariants;

/// Checks one replica.
pub fn tree_is_a_tree(tables: &MemoryKv) -> Result<(), String> {
    check_invariants(tables)
}
