//! Progress: once the world is mended, clients finish, nothing is missed or staged any more, both clouds are healthy, the preferred
//! one is active, and all filers agree, within a bounded virtual time. Where a plan's faults leave a filer all that it needs, its
//! clients are answered in time before that, too.
//!
//! Why it matters: a file system that is right and answers nobody is of no use, and one that waits for what never comes looks the
//! same as one that is slow.

use crate::{recording::Stall, trace::moment};
use std::{future::Future, time::Duration};
use tokio::time::timeout;

/// How long anything may take once the world is mended: what is dead is kept for minutes before it is swept, and a cloud is
/// probed, resynced and watched before it is active again.
pub const WELL_MAX: Duration = Duration::from_secs(1800);

/// Waits for something that must come about.
pub async fn comes_about<T>(what: &str, wait: impl Future<Output = T>) -> Result<T, String> {
    timeout(WELL_MAX, wait).await.map_err(|_| format!("it never came about that {what}"))
}

/// Whether nobody has waited longer than the plan promises.
pub fn answered_in_time(longest: Option<Stall>, ms_max: Option<u64>) -> Result<(), String> {
    let (Some(Stall { site, from_ms, to_ms }), Some(ms_max)) = (longest, ms_max) else { return Ok(()) };
    match to_ms - from_ms {
        waited_ms if waited_ms <= ms_max => Ok(()),
        waited_ms => Err(format!(
            "a client at filer {site} has waited {waited_ms} ms for an answer, since {}; {ms_max} ms were promised",
            moment(from_ms)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::FilerId;

    #[test]
    fn a_wait_is_too_long_where_a_plan_promises_less() {
        let wait = Some(Stall { site: FilerId(2), from_ms: 500, to_ms: 3_500 });
        assert_eq!(answered_in_time(wait, Some(3_000)), Ok(()));
        assert_eq!(answered_in_time(wait, None), Ok(()));
        assert_eq!(answered_in_time(None, Some(1)), Ok(()));
        assert!(
            answered_in_time(wait, Some(2_999))
                .is_err_and(|why| why.contains(" has waited 3000 ms for an answer, since 00:00.500;"))
        );
    }
}
