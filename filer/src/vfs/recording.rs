//! The one way in which written data gets on record.
//!
//! ```text
//! note -> pending -- gate alone --> recording -- synced --> operations in order, each applied once -> on record
//! ```
//!
//! A caller may go away, or get no answer, at any of these steps: who comes next goes on where it stopped. Operations
//! that were proposed are asked for again and never proposed anew, since between their first application and a second
//! one another site may have written to the same place. For the same reason each operation's extents leave the layer
//! with its answer: from then on another site's data may lie over them.
//!
//! While this filer is being removed nothing gets on record: clients are told to ask later, and what they wrote waits in the
//! layer, should the filer stay after all.
//!
//! What the state machine refuses for good (it would be refused every time) leaves the layer too, is logged, and counted
//! as refused: whoever waits for it is told of an error, and the write verifier changes, so that clients which hold the
//! data until their COMMIT write it again.

use super::{
    Vfs,
    unrecorded::{Begun, Unrecorded},
};
use crate::{
    door::{DoorError, Once},
    fs::FsError,
};
use std::{
    collections::{BTreeSet, VecDeque},
    ops::Range,
    sync::Arc,
};
use storage::{
    cloudfs::{Answer, Extent, Handle, OpBody, OpError, is_leaving},
    ids::SegmentId,
};

/// One operation of a recording.
pub struct Step {
    once: Once,
    /// What of the recording layer it is about.
    range: Range<u64>,
}

/// What a recording did to the attributes on record.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The ctimes before its first operation and after its last.
    span_ns: Option<(u64, u64)>,
    /// Whether somebody else changed the file in between.
    broken: bool,
    /// The last note that may be part of it.
    newest_note: u64,
}

impl Recorded {
    fn add(&mut self, before_ns: u64, after_ns: u64) {
        let from_ns = match self.span_ns {
            None => before_ns,
            Some((from_ns, to_ns)) => {
                self.broken |= to_ns != before_ns;
                from_ns
            }
        };
        self.span_ns = Some((from_ns, after_ns));
    }

    /// Whether, from the ctime `from_ns` on record to `to_ns`, nobody but this recording changed the file, and nothing
    /// noted after `note` is part of it. (A changed ctime always differs.)
    pub fn is_all_between(&self, from_ns: u64, to_ns: u64, note: u64) -> bool {
        !self.broken && self.newest_note <= note && self.span_ns.unwrap_or((from_ns, from_ns)) == (from_ns, to_ns)
    }
}

/// The extents of an operation as those of two, which together write the same; `None` for what has no parts.
fn in_parts(extents: &[Extent]) -> Option<[Vec<Extent>; 2]> {
    match extents {
        [] => None,
        [one] => {
            let middle = one.offset + u64::from(one.len / 2);
            Some([vec![one.clipped(0..middle)?], vec![one.clipped(middle..u64::MAX)?]])
        }
        several => {
            let (first, second) = several.split_at(several.len() / 2);
            Some([first.to_vec(), second.to_vec()])
        }
    }
}

/// Where an operation's extents lie.
fn range_of(extents: &[Extent]) -> Option<Range<u64>> {
    Some(extents.first()?.offset..extents.last()?.end())
}

impl Vfs {
    /// Makes everything written to the file before durable in staging, and puts it on record: other sites see it.
    pub(super) async fn record(&self, file: Handle) -> Result<Recorded, FsError> {
        let Some(unrecorded) = self.unrecorded.get(file) else {
            return Ok(Recorded::default());
        };
        let refusals = unrecorded.refusals();
        self.record_all(file, &unrecorded, refusals).await
    }

    /// As [`Vfs::record`]. An error when something was refused since there were `refusals`.
    pub(super) async fn record_all(
        &self,
        file: Handle,
        unrecorded: &Arc<Unrecorded>,
        refusals: u64,
    ) -> Result<Recorded, FsError> {
        let recorded = self.record_in_turn(file, unrecorded).await;
        self.unrecorded.forget(file, unrecorded);
        let recorded = recorded?;
        if unrecorded.refusals() != refusals {
            return Err(FsError::Io("the CloudFS refused some of what was written".into()));
        }
        Ok(recorded)
    }

    async fn record_in_turn(&self, file: Handle, unrecorded: &Unrecorded) -> Result<Recorded, FsError> {
        let mut steps = unrecorded.turn.lock().await;
        let mut recorded = Recorded::default();
        // What an earlier caller left behind.
        self.carry_out(file, unrecorded, &mut steps, &mut recorded).await?;
        let Begun { extents, mtime_ns, clears_set_id, newest_note } = {
            let _gate = unrecorded.gate.write().await;
            unrecorded.begin()
        };
        recorded.newest_note = newest_note;
        let segments: BTreeSet<SegmentId> = extents.iter().map(|extent| extent.segment).collect();
        for segment in segments {
            self.staging.sync(segment).await?;
        }
        steps.extend(extents.chunks(self.settings.extents_max).filter_map(|extents| {
            let range = range_of(extents)?;
            let body = OpBody::Write { file, extents: extents.to_vec(), mtime_ns, clears_set_id };
            Some(Step { once: self.once(body), range })
        }));
        self.carry_out(file, unrecorded, &mut steps, &mut recorded).await?;
        Ok(recorded)
    }

    /// A recording's operation, to be proposed.
    fn once(&self, body: OpBody) -> Once {
        let not_before_ns = match &body {
            // A ctime on record that clients had seen before it would hide the change from them.
            OpBody::Write { mtime_ns, .. } => mtime_ns.saturating_add(1),
            _ => 0,
        };
        self.door.once(body, not_before_ns)
    }

    /// An error while this filer is being removed.
    pub(super) fn check_stays(&self) -> Result<(), FsError> {
        let me = self.door.me();
        if is_leaving(&*self.kv, me)? { Err(OpError::Leaving(me).into()) } else { Ok(()) }
    }

    /// Puts two operations in the place of the first one, of which nothing was applied; `false` when it has no parts.
    fn split(&self, steps: &mut VecDeque<Step>) -> bool {
        let Some(OpBody::Write { file, extents, mtime_ns, clears_set_id }) = steps.front().map(|step| step.once.body())
        else {
            return false;
        };
        let Some(parts) = in_parts(&extents) else {
            return false;
        };
        steps.pop_front();
        for extents in parts.into_iter().rev() {
            let Some(range) = range_of(&extents) else {
                continue;
            };
            let body = OpBody::Write { file, extents, mtime_ns, clears_set_id };
            steps.push_front(Step { once: self.once(body), range });
        }
        true
    }

    /// Carries out the operations of a recording, in order.
    async fn carry_out(
        &self,
        file: Handle,
        unrecorded: &Unrecorded,
        steps: &mut VecDeque<Step>,
        recorded: &mut Recorded,
    ) -> Result<(), FsError> {
        while let Some(Step { once, range }) = steps.front() {
            let range = range.clone();
            if !once.was_proposed() {
                // It would be refused, again and again.
                self.check_stays()?;
            }
            let answer = self.door.ask(once).await;
            match answer {
                Ok(answer) => {
                    match answer {
                        Answer::Node { before: Some(before), after, .. } => {
                            recorded.add(before.ctime_ns, after.ctime_ns);
                        }
                        _ => recorded.broken = true,
                    }
                    unrecorded.settle(range, false);
                }
                Err(DoorError::Refused(OpError::Stale)) => {
                    steps.clear();
                    unrecorded.give_up();
                    return Err(FsError::Stale);
                }
                Err(DoorError::Refused(OpError::TooManyExtents { .. })) if self.split(steps) => continue,
                Err(DoorError::Refused(error @ OpError::Leaving(_))) => {
                    // Nothing of it was applied, and that answer stays its answer: another one takes its place.
                    if let Some(step) = steps.front_mut() {
                        step.once = self.once(step.once.body());
                    }
                    return Err(error.into());
                }
                Err(error @ (DoorError::Refused(_) | DoorError::Unreadable(_))) => {
                    let Range { start, end } = range;
                    tracing::error!(
                        ino = file.ino, start, end, %error,
                        "written data was refused for good and is dropped; clients that have not committed it write it again"
                    );
                    self.change_verifier();
                    unrecorded.settle(range, true);
                }
                Err(error) => return Err(error.into()),
            }
            steps.pop_front();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_all_between_when_it_follows_on_without_a_gap() {
        let mut recorded = Recorded::default();
        assert!(recorded.is_all_between(5, 5, 0), "nothing was recorded, and nothing changed");
        assert!(!recorded.is_all_between(5, 6, 0), "somebody else's change");
        recorded.newest_note = 3;
        recorded.add(5, 7);
        recorded.add(7, 9);
        assert!(recorded.is_all_between(5, 9, 3));
        assert!(!recorded.is_all_between(4, 9, 3) && !recorded.is_all_between(5, 10, 3));
        assert!(!recorded.is_all_between(5, 9, 2), "another's note went along");
        recorded.add(10, 12);
        assert!(!recorded.is_all_between(5, 12, 3), "somebody came in between");
    }
}
