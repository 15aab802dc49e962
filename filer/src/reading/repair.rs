//! What happens to a piece that the active cloud did not give: it is asked again, and what it lacks is put there again.

use super::{Reader, Run};
use crate::actors::connector::{AttemptError, GetFrames, GetObject, Put};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use storage::{
    cloud::CloudError,
    cloudfs::{Copy, Object, read},
    ids::{CloudId, SegmentId},
};

impl Reader {
    /// Goes on asking the active cloud for a piece that was read from the standby, until it answers, or trips. A copy that
    /// is missing or wrong there is put again.
    pub(super) fn suspect(self: &Arc<Self>, cloud: CloudId, run: &Run, object: &Object) {
        let suspect = (cloud, run.segment);
        {
            let mut suspects = self.suspects.lock().expect("no holder of the suspects panics");
            if suspects.len() >= self.settings.suspects_max || !suspects.insert(suspect) {
                return;
            }
        }
        let (this, frames) = (self.clone(), vec![run.frames[0]]);
        let Object { bytes, md5, .. } = *object;
        tokio::spawn(async move {
            let (connector, mut failures) = (&this.parts.connectors[cloud.index()], 0u32);
            while let Ok(Err(AttemptError::Failed { source, .. })) =
                connector.send(GetFrames { segment: suspect.1, frames: frames.clone(), bytes, md5 }).await
            {
                failures = failures.saturating_add(1);
                let row = read::segment(&*this.parts.kv, suspect.1).ok().flatten();
                let Some(object) = row.filter(|row| row.dead_since_ns.is_none()).and_then(|row| row.object) else {
                    break;
                };
                // The cloud is there, its copy is not (or is wrong): the other one has it.
                let lacks = matches!(source, CloudError::NotFound { .. } | CloudError::Corrupt { .. });
                if lacks && this.repair(cloud, suspect.1, &object).await {
                    continue;
                }
                let wait_ms = this.settings.attempt_backoff.wait_ms(failures, &*this.parts.random);
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            }
            this.suspects.lock().expect("no holder of the suspects panics").remove(&suspect);
        });
    }

    /// Puts an object again into a cloud that has lost or damaged it; tells whether the cloud gave its receipt.
    async fn repair(&self, cloud: CloudId, segment: SegmentId, object: &Object) -> bool {
        let Object { bytes, md5, copies } = *object;
        let (to, from) = (&self.parts.connectors[cloud.index()], &self.parts.connectors[cloud.other().index()]);
        if copies != [Copy::Stored; 2] {
            return false;
        }
        let Ok(Ok(body)) = from.send(GetObject { segment, bytes, md5 }).await else {
            return false;
        };
        match to.send(Put { segment, body, md5 }).await {
            Ok(Ok(_)) => {
                self.stats.repaired.fetch_add(1, Relaxed);
                tracing::warn!(%segment, %cloud, "the cloud's copy was missing or damaged and is put again");
                true
            }
            _ => false,
        }
    }
}
