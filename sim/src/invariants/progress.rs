//! Progress: once the world is mended, clients finish, nothing is missed or staged any more, both clouds are healthy, the preferred
//! one is active, and all filers agree, within a bounded virtual time.
//!
//! Why it matters: a file system that is right and answers nobody is of no use, and one that waits for what never comes looks the
//! same as one that is slow.

use std::{future::Future, time::Duration};
use tokio::time::timeout;

/// How long anything may take once the world is mended: what is dead is kept for minutes before it is swept, and a cloud is
/// probed, resynced and watched before it is active again.
pub const WELL_MAX: Duration = Duration::from_secs(1800);

/// Waits for something that must come about.
pub async fn comes_about<T>(what: &str, wait: impl Future<Output = T>) -> Result<T, String> {
    timeout(WELL_MAX, wait).await.map_err(|_| format!("it never came about that {what}"))
}
