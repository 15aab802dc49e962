//! The door: operations come in as records, are applied, and answer as records.
//!
//! Every filer applies the same operations in the same order, so an operation's outcome depends on the state and on
//! the operation alone. A refusal is an answer like any other.

use super::{
    applying::{Applying, Stop},
    keys::{self, Counters},
    ops::{Answer, OP_VERSION, Op, OpBody, OpError},
    read,
    time::LATEST_NS,
    tree::Owner,
    types::*,
};
use mesh::{
    FilerId,
    consensus::api::StateMachine,
    kv::{KvError, Txn},
    record::{self, RecordError},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Newest format version of an answer's record.
pub const ANSWER_VERSION: u8 = 3;
/// Format version of an answer that is no refusal.
const DONE_VERSION: u8 = 2;
/// Cookies 0, 1 and 2 stand for the start of a listing, `.` and `..`.
const COOKIE_FIRST: u64 = 3;

/// Called when other roles may be visible in the state than before.
pub type RolesHook = Arc<dyn Fn() + Send + Sync>;

/// The CloudFS as the log's state machine.
pub struct CloudFs {
    roles_changed: RolesHook,
    /// Whether an operation has written the roles, and they are not visible yet.
    has_new_roles: AtomicBool,
    limits: Limits,
}

impl CloudFs {
    /// A state machine that tells `roles_changed`. Every filer of a CloudFS has the same `limits`.
    pub fn new(roles_changed: RolesHook, limits: Limits) -> Self {
        Self { roles_changed, has_new_roles: AtomicBool::new(false), limits }
    }
}

impl StateMachine for CloudFs {
    fn apply(&self, txn: &mut Txn<'_>, from: FilerId, op: &[u8]) -> Result<Vec<u8>, KvError> {
        let outcome = match decode_op(op) {
            // Whose segments, ballots and words these are depends on the proposer.
            Ok(op) if op.filer != from => {
                Err(OpError::Refused(format!("filer {from} proposed it in the name of filer {}", op.filer)))
            }
            Ok(op) => apply_op(txn, &op, self.limits)?,
            // A newer filer knows what it means: going on without it would part this replica from the others.
            Err(error @ RecordError::Newer { .. }) => {
                let why = format!("an operation in the log: {error}; update this filer");
                return Err(KvError { attempted: "applying to", table: mesh::kv::STATE.0, why });
            }
            Err(error) => Err(OpError::Unreadable(error.to_string())),
        };
        if txn.changes(&keys::roles()) {
            self.has_new_roles.store(true, Ordering::Relaxed);
        }
        Ok(record::encode(outcome.as_ref().map_or_else(OpError::version, |_| DONE_VERSION), &outcome))
    }

    fn applied(&self, _index: u64, snapshot: bool) {
        if self.has_new_roles.swap(false, Ordering::Relaxed) || snapshot {
            (self.roles_changed)();
        }
    }
}

/// An operation as its record in the log.
pub fn encode_op(op: &Op) -> Vec<u8> {
    record::encode(op.body.version(), op)
}

/// Reads an operation's record.
pub fn decode_op(bytes: &[u8]) -> Result<Op, RecordError> {
    record::decode(OP_VERSION, bytes)
}

/// Reads what [`CloudFs`] answered.
pub fn decode_answer(bytes: &[u8]) -> Result<Result<Answer, OpError>, RecordError> {
    record::decode(ANSWER_VERSION, bytes)
}

/// Applies one operation. A refused one leaves no change behind, but for a refused trip, which stays on record as a
/// decision.
pub fn apply_op(txn: &mut Txn<'_>, op: &Op, limits: Limits) -> Result<Result<Answer, OpError>, KvError> {
    let known = read::counters(txn)?;
    let wall_ns = op.wall_ns.min(LATEST_NS);
    let mut counters = match (known, &op.body) {
        (None, OpBody::Format { cloudfs, .. }) => Counters {
            cloudfs: *cloudfs,
            next_ino: ROOT.ino + 1,
            next_cookie: COOKIE_FIRST,
            next_decision: 0,
            next_cut: 0,
            newest_ns: wall_ns,
            clocks: Vec::new(),
            totals: Totals { inodes: 1, ..Totals::default() },
        },
        (Some(_), OpBody::Format { .. }) => return Ok(Err(OpError::Format("already formatted".into()))),
        (None, _) => return Ok(Err(OpError::Format("not formatted".into()))),
        (Some(counters), _) => counters,
    };
    let now_ns = counters.time_of(op.filer, wall_ns);
    counters.hear(op.filer, wall_ns);
    let mut applying = Applying { txn, filer: op.filer, now_ns, limits, counters };
    match dispatch(&mut applying, op.body.clone()) {
        Ok(answer) => {
            applying.finish();
            Ok(Ok(answer))
        }
        Err(Stop::Recorded(error)) => {
            applying.finish();
            Ok(Err(error))
        }
        Err(Stop::Refused(error)) => Ok(Err(error)),
        Err(Stop::Broken(error)) => Err(error),
    }
}

fn dispatch(state: &mut Applying<'_, '_>, body: OpBody) -> Result<Answer, Stop> {
    match body {
        OpBody::Create { dir, name, mode, uid, gid, times, bytes, existing, clears_set_id } => {
            state.create(dir, &name, Owner { mode, uid, gid, times }, bytes, (existing, clears_set_id))
        }
        OpBody::Make { dir, name, node, mode, uid, gid, times } => {
            state.make(dir, &name, node, Owner { mode, uid, gid, times })
        }
        OpBody::SetAttr { file, change, guard_ctime_ns } => state.set_attr(file, change, guard_ctime_ns),
        OpBody::Write { file, extents, mtime_ns, clears_set_id } => state.write(file, extents, mtime_ns, clears_set_id),
        OpBody::Link { file, dir, name } => state.link(file, dir, &name),
        OpBody::Remove { dir, name } => state.remove(dir, &name),
        OpBody::RemoveDir { dir, name } => state.remove_dir(dir, &name),
        OpBody::Rename { from_dir, from_name, to_dir, to_name } => state.rename(from_dir, &from_name, to_dir, &to_name),
        OpBody::Reap { ino } => state.reap(ino),
        OpBody::Stored { segment, bytes, md5, copies, epoch } => state.stored(segment, bytes, md5, copies, epoch),
        OpBody::Abandon { segment } => state.abandon(segment),
        OpBody::Bury { segment } => state.bury(segment),
        OpBody::Deleted { segment, done, epoch } => state.deleted(segment, done, epoch),
        OpBody::Format { preferred, .. } => state.format(preferred),
        OpBody::Clock { since_ms } => {
            state.now_ns = state.counters.goes_on(state.filer, state.now_ns, since_ms);
            Ok(Answer::Done)
        }
        OpBody::Trip { cloud, epoch, why, ballots, voters, policy } => {
            let majority_of = (policy == TripPolicy::Majority).then_some(voters);
            state.trip(cloud, epoch, why, ballots, majority_of)
        }
        OpBody::Reached { cloud, epoch, reached } => state.reached(cloud, epoch, reached),
        OpBody::StartResync { cloud, epoch, live } => state.start_resync(cloud, epoch, &live),
        OpBody::Repaired { cloud, segment, kind, epoch } => state.repaired(cloud, segment, kind, epoch),
        OpBody::Kept { cloud, segment, epoch } => state.kept(cloud, segment, epoch),
        OpBody::FinishResync { cloud, epoch } => state.finish_resync(cloud, epoch),
        OpBody::Activate { to, epoch, by } => state.activate(to, epoch, by),
        OpBody::KeepSecret { secret } => state.keep_secret(secret),
        OpBody::Leave { leaver } => state.leave(leaver),
        OpBody::Stay { leaver, alone_with } => state.stay(leaver, alone_with),
    }
}
