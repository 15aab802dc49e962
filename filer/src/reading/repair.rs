//! What happens to a piece that the active cloud did not give: it is asked again, and what it lacks is put there again.
//!
//! A copy is wrong when the whole of it is read twice with the same wrong MD5. What differs each time is damaged on its way, and
//! the copy may be right: to put it again would risk it, as a cloud that damages reads may damage what it is given.
//!
//! Whether a copy belongs there is the word of `actors::resync`. Its put is no proof that reads are right from then on, so
//! each is followed by a wait like any failure, and there are a few of them at most.

use super::{Reader, Run};
use crate::{
    actors::{
        connector::AttemptError,
        resync::{NotPut, PutAgain, still_needed},
    },
    cloud_names::called,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, MutexGuard, atomic::Ordering::Relaxed},
    time::Duration,
};
use storage::{
    cloud::CloudError,
    cloudfs::Object,
    ids::{CloudId, SegmentId},
};
use tokio::time::Instant;

impl Reader {
    fn suspects(&self) -> MutexGuard<'_, BTreeSet<(CloudId, SegmentId)>> {
        self.suspects.lock().expect("no holder of the suspects panics")
    }

    /// Whether a cloud is being asked for a piece that it did not give.
    pub(super) fn is_suspect(&self, cloud: CloudId, segment: SegmentId) -> bool {
        self.suspects().contains(&(cloud, segment))
    }

    /// Goes on asking the active cloud for a piece that was read from the standby, until it answers, or trips. A copy that
    /// is missing or wrong there is put again.
    pub(super) fn suspect(self: &Arc<Self>, cloud: CloudId, run: &Run, object: &Object) {
        let suspect = (cloud, run.segment);
        {
            let mut suspects = self.suspects();
            if suspects.len() >= self.settings.suspects_max || !suspects.insert(suspect) {
                return;
            }
        }
        let (this, object) = (self.clone(), *object);
        let run = Run { frames: vec![run.frames[0]], ..run.clone() };
        tokio::spawn(async move {
            this.ask_again(cloud, &run, &object).await;
            this.suspects().remove(&suspect);
        });
    }

    async fn ask_again(&self, cloud: CloudId, run: &Run, object: &Object) {
        let (segment, start) = (run.segment, Instant::now());
        let (mut failures, mut repairs) = (0u32, 0u32);
        let mut last_wrong = None;
        while start.elapsed() < Duration::from_millis(self.settings.suspect_ms_max) {
            match self.parts.connectors[cloud.index()].send(self.get_frames(run, object)).await {
                Ok(Err(AttemptError::Failed { source, .. })) => {
                    // The cloud is there, its copy is not (or is wrong): the other one has it.
                    let lacks = match source {
                        CloudError::NotFound { .. } => true,
                        CloudError::Corrupt { expected, got, .. } if expected == object.md5.to_string() => {
                            last_wrong.replace(got.clone()) == Some(got)
                        }
                        _ => false,
                    };
                    if lacks && repairs < self.settings.repairs_max {
                        match self.parts.resync.send(PutAgain { cloud, segment }).await {
                            Ok(Ok(())) => {
                                repairs += 1;
                                self.stats.repaired.fetch_add(1, Relaxed);
                                tracing::warn!(%segment, cloud = %called(cloud), "the cloud's copy was missing or damaged and is put again");
                            }
                            Ok(Err(NotPut::Gone)) | Err(_) => return,
                            Ok(Err(why)) => {
                                tracing::info!(%segment, cloud = %called(cloud), %why, "a copy is not put again yet")
                            }
                        }
                    } else if matches!(still_needed(&*self.parts.kv, segment), Ok(None)) {
                        return;
                    }
                }
                Ok(Err(AttemptError::Crowded(_))) => {}
                // It answers (if only that what is on record has lost the frame), or has tripped, or this filer is stopping.
                Ok(
                    Ok(_) | Err(AttemptError::Lost { .. } | AttemptError::Damaged { .. } | AttemptError::NotTried(_)),
                )
                | Err(_) => return,
            }
            failures = failures.saturating_add(1);
            let wait_ms = self.settings.attempt_backoff.wait_ms(failures, &*self.parts.random);
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
        tracing::warn!(%segment, cloud = %called(cloud), failures, repairs, "the cloud still does not give a piece that the other one has");
    }
}
