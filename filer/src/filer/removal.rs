//! How a filer is taken out for good, without taking anything along that its clients were told is safe.
//!
//! ```text
//! its writes end (Leave) --> does it alone hold data? --no--> it is removed
//!                                        '--yes--> its writes go on (Stay); refused
//! ```
//!
//! Every step can be asked for again, at any filer, whoever began: one that dies on the way leaves a filer that takes no
//! writes, which is shown, and that the next removal takes out or has stay.

use super::Filer;
use crate::door::DoorError;
use mesh::{
    FilerId,
    consensus::MembershipError,
    kv::{KvError, KvRead},
    words::counted,
};
use std::time::Duration;
use storage::{
    cloudfs::{OpBody, OpError, is_leaving, read},
    ids::SegmentId,
};

/// Segments looked at in one step.
const PAGE_ROWS: usize = 1000;

/// Why a filer was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// It goes on as before.
    #[error("filer {filer} alone holds {} of files (in {}) that no cloud has yet", counted(*bytes, "byte"), counted(*segments, "segment"))]
    Alone { filer: FilerId, segments: u64, bytes: u64 },
    /// The members are as they were, and it goes on as before.
    #[error(transparent)]
    Refused(MembershipError),
    /// Its writes have not ended, or the outcome is not known: it may take no more of them.
    #[error("the writes of filer {filer} were not ended")]
    Ending { filer: FilerId, source: DoorError },
    /// Likewise, of the removal itself.
    #[error("filer {filer} takes no more writes, and was not removed")]
    Unfinished { filer: FilerId, source: MembershipError },
    /// It is not to be removed, and could not be told so.
    #[error("filer {filer} takes no more writes, and was not told to go on")]
    Halted { filer: FilerId, source: DoorError },
    #[error(transparent)]
    Table(#[from] KvError),
}

/// What a filer alone holds.
struct HeldAlone {
    first: SegmentId,
    segments: u64,
    bytes: u64,
}

impl HeldAlone {
    /// What `filer` alone holds, if anything.
    fn look(kv: &dyn KvRead, filer: FilerId) -> Result<Option<Self>, KvError> {
        let mut found: Option<Self> = None;
        let mut after = SegmentId { filer, number: 0 };
        loop {
            let rows = read::segments(kv, Some(after), PAGE_ROWS)?;
            let own = rows.iter().take_while(|(id, _)| id.filer == filer);
            for (id, row) in own.filter(|(_, row)| row.is_held_alone()) {
                let held = found.get_or_insert(Self { first: *id, segments: 0, bytes: 0 });
                held.segments += 1;
                held.bytes += row.live_bytes;
            }
            match rows.last() {
                Some((last, _)) if last.filer == filer && rows.len() == PAGE_ROWS => after = *last,
                _ => return Ok(found),
            }
        }
    }
}

impl Filer {
    /// Takes another filer out of the CloudFS, unless it alone holds data. `within`: how long the change of the members
    /// may take.
    pub async fn remove_filer(&self, filer: FilerId, within: Duration) -> Result<(), RemovalError> {
        self.end_writes(filer).await?;
        match self.consensus.remove_member(filer, within).await {
            Ok(()) => Ok(()),
            // It may yet be removed, so it must not go on.
            Err(source @ MembershipError::Propose(_)) => Err(RemovalError::Unfinished { filer, source }),
            Err(refused) => {
                self.keep_filer(filer).await.map_err(|source| RemovalError::Halted { filer, source })?;
                Err(RemovalError::Refused(refused))
            }
        }
    }

    /// Lets a filer go on whose removal was begun, and is asked for by nobody any more.
    pub async fn keep_filer(&self, filer: FilerId) -> Result<(), DoorError> {
        self.door.propose(OpBody::Stay { leaver: filer, alone_with: None }).await.map(drop)
    }

    /// Ends the writes of a filer that holds nothing alone.
    async fn end_writes(&self, filer: FilerId) -> Result<(), RemovalError> {
        let ending = |source| RemovalError::Ending { filer, source };
        loop {
            self.door.propose(OpBody::Leave { leaver: filer }).await.map_err(ending)?;
            // From here on these tables have all that was acknowledged before.
            self.door.barrier().await.map_err(ending)?;
            let view = self.world.kv.view();
            // Somebody else has found something, and had it stay.
            if !is_leaving(&*view, filer)? {
                continue;
            }
            let Some(HeldAlone { first, segments, bytes }) = HeldAlone::look(&*view, filer)? else {
                return Ok(());
            };
            match self.door.propose(OpBody::Stay { leaver: filer, alone_with: Some(first) }).await {
                Ok(_) => return Err(RemovalError::Alone { filer, segments, bytes }),
                // It is in the clouds by now, or nothing refers to it any more: what is left?
                Err(DoorError::Refused(OpError::NoSegment(_))) => {}
                Err(source) => return Err(RemovalError::Halted { filer, source }),
            }
        }
    }
}
