//! What is put is what its MD5 says.
//!
//! Why it matters: a cloud that looks refuses it, and is retried and suspected for its filer's mistake; one that does not would
//! keep a body under the MD5 of another one. The cloud's look is the last line, not the first.

use mesh::FilerId;
use storage::ids::{CloudId, Md5};

/// Checks a put: the MD5 that its filer says, and that of the body which came with it.
pub fn right_put(filer: FilerId, cloud: CloudId, key: &str, expected: Md5, got: Md5) -> Result<(), String> {
    if expected == got {
        return Ok(());
    }
    Err(format!("filer {filer} has put {key} into cloud {cloud} with the MD5 {expected}, and its body has {got}"))
}
