//! Tests of the state machine. [`Bench`] is a CloudFS in memory that is spoken to through the door, as records.

use super::*;
use crate::ids::{CloudId, Epoch, Md5, SegmentId};
use futures::executor::block_on;
use mesh::{
    FilerId,
    consensus::api::StateMachine,
    kv::{Durability, Kv, MemoryKv, STATE, Txn},
};
use std::sync::Arc;

mod door;
mod extents;
mod leaving;
mod model;
mod orphans;
mod rename;
mod segments;
mod table;
mod time;
mod tree;

pub(super) const AMS: FilerId = FilerId(0xa);
pub(super) const NYC: FilerId = FilerId(0xb);

pub(super) struct Bench {
    pub kv: MemoryKv,
    pub filer: FilerId,
    pub wall_ns: u64,
    machine: CloudFs,
}

impl Bench {
    /// An empty table.
    pub fn bare() -> Self {
        Self::bare_within(Limits::default())
    }

    fn bare_within(limits: Limits) -> Self {
        let machine = CloudFs::new(Arc::new(|| {}), limits);
        Self { kv: MemoryKv::default(), filer: AMS, wall_ns: 1_000, machine }
    }

    /// A CloudFS whose preferred cloud is `a`.
    pub fn new() -> Self {
        Self::within(Limits::default())
    }

    /// The same, with other limits of an operation.
    pub fn within(limits: Limits) -> Self {
        let mut bench = Self::bare_within(limits);
        bench.ok(OpBody::Format { cloudfs: 7, preferred: CloudId::A });
        bench
    }

    /// Applies an operation through the door, 10 ns after the one before, and keeps what it changed.
    pub fn apply_unchecked(&mut self, body: OpBody) -> Result<Answer, OpError> {
        self.wall_ns += 10;
        let is_trip = matches!(body, OpBody::Trip { .. });
        let op = encode_op(&Op { filer: self.filer, wall_ns: self.wall_ns, body });
        let mut txn = Txn::new(&self.kv, STATE);
        let bytes = self.machine.apply(&mut txn, self.filer, &op).expect("memory does not fail");
        let answer = decode_answer(&bytes).expect("an answer is readable");
        let batch = txn.into_batch();
        assert!(answer.is_ok() || batch.is_empty() || is_trip, "a refused operation changed {batch:?}");
        block_on(self.kv.write(batch, Durability::Buffered)).expect("memory does not fail");
        answer
    }

    /// The same, and checks the whole state.
    pub fn apply(&mut self, body: OpBody) -> Result<Answer, OpError> {
        let shown = format!("{body:?}");
        let answer = self.apply_unchecked(body);
        if let Err(why) = check_invariants(&self.kv) {
            panic!("after {shown} -> {answer:?}: {why}");
        }
        answer
    }

    /// Applies what must not be refused.
    pub fn ok(&mut self, body: OpBody) -> Answer {
        let shown = format!("{body:?}");
        self.apply(body).unwrap_or_else(|error| panic!("{shown}: {error}"))
    }

    /// Applies what must be refused.
    pub fn err(&mut self, body: OpBody) -> OpError {
        let shown = format!("{body:?}");
        self.apply(body).map(|answer| panic!("{shown}: {answer:?}")).expect_err("answers panic")
    }

    pub fn file(&mut self, dir: Handle, name: &str) -> Handle {
        handle(self.ok(create(dir, name)))
    }

    pub fn dir(&mut self, dir: Handle, name: &str) -> Handle {
        handle(self.ok(mkdir(dir, name)))
    }

    pub fn attr(&self, handle: Handle) -> Attr {
        read::node(&self.kv, handle).expect("memory does not fail").expect("the object is there")
    }

    pub fn exists(&self, handle: Handle) -> bool {
        read::node(&self.kv, handle).expect("memory does not fail").is_some()
    }

    pub fn names(&self, dir: Handle) -> Vec<String> {
        let entries = read::readdir(&self.kv, dir.ino, 0, 1_000).expect("memory does not fail");
        entries.into_iter().map(|entry| String::from_utf8(entry.name).expect("test names are text")).collect()
    }

    pub fn segment(&self, id: SegmentId) -> Option<Segment> {
        read::segment(&self.kv, id).expect("memory does not fail")
    }

    pub fn roles(&self) -> Roles {
        read::roles(&self.kv).expect("memory does not fail").expect("the CloudFS is formatted")
    }

    pub fn totals(&self) -> Totals {
        read::totals(&self.kv).expect("memory does not fail")
    }

    /// Inodes of which something is still to be reaped.
    pub fn orphans(&self) -> Vec<u64> {
        read::orphans(&self.kv, 0, 1_000).expect("memory does not fail")
    }

    /// Reaps all that is cut off; how many steps that took.
    pub fn reap_all(&mut self) -> usize {
        let mut steps = 0;
        while let Some(&ino) = self.orphans().first() {
            self.ok(OpBody::Reap { ino });
            steps += 1;
        }
        steps
    }

    pub fn missed(&self, cloud: CloudId) -> Vec<Miss> {
        read::missed(&self.kv, cloud, None, 1_000).expect("memory does not fail")
    }

    pub fn decisions(&self) -> Vec<Decision> {
        read::decisions(&self.kv, 1_000).expect("memory does not fail")
    }

    /// Trips the standby cloud b.
    pub fn fail_standby(&mut self) {
        self.ok(trip(CloudId::B, self.roles().epoch));
    }
}

pub(super) fn handle(answer: Answer) -> Handle {
    match answer {
        Answer::Node { after, .. } => after.handle,
        other => panic!("no object in {other:?}"),
    }
}

pub(super) fn create(dir: Handle, name: &str) -> OpBody {
    create_as(dir, name, OnExisting::Refuse, None)
}

pub(super) fn create_as(dir: Handle, name: &str, existing: OnExisting, bytes: Option<u64>) -> OpBody {
    let (name, times) = (name.into(), Times::default());
    OpBody::Create { dir, name, mode: 0o644, uid: 5, gid: 6, times, bytes, existing, clears_set_id: false }
}

pub(super) fn make(dir: Handle, name: &str, node: NewNode) -> OpBody {
    OpBody::Make { dir, name: name.into(), node, mode: 0o755, uid: 5, gid: 6, times: Times::default() }
}

pub(super) fn mkdir(dir: Handle, name: &str) -> OpBody {
    make(dir, name, NewNode::Directory)
}

pub(super) fn remove(dir: Handle, name: &str) -> OpBody {
    OpBody::Remove { dir, name: name.into() }
}

pub(super) fn rmdir(dir: Handle, name: &str) -> OpBody {
    OpBody::RemoveDir { dir, name: name.into() }
}

pub(super) fn link(file: Handle, dir: Handle, name: &str) -> OpBody {
    OpBody::Link { file, dir, name: name.into() }
}

pub(super) fn rename(from_dir: Handle, from: &str, to_dir: Handle, to: &str) -> OpBody {
    OpBody::Rename { from_dir, from_name: from.into(), to_dir, to_name: to.into() }
}

pub(super) fn resize(file: Handle, bytes: u64) -> OpBody {
    let change = AttrChange { bytes: Some(bytes), ..AttrChange::default() };
    OpBody::SetAttr { file, change, guard_ctime_ns: None }
}

pub(super) fn write(file: Handle, extents: &[Extent]) -> OpBody {
    OpBody::Write { file, extents: extents.to_vec(), mtime_ns: 0, clears_set_id: false }
}

/// A segment of the first filer.
pub(super) fn seg(number: u64) -> SegmentId {
    SegmentId { filer: AMS, number }
}

/// An extent at the start of a frame of 1,000 bytes.
pub(super) fn extent(offset: u64, len: u32, segment: SegmentId) -> Extent {
    Extent { offset, len, segment, frame_at: 0, frame_len: 1_000, skip: 0 }
}

pub(super) fn md5_of(id: SegmentId) -> Md5 {
    Md5::of(&id.to_bytes())
}

pub(super) fn stored(segment: SegmentId, copies: [bool; 2], epoch: Epoch) -> OpBody {
    OpBody::Stored { segment, bytes: 1_000, md5: md5_of(segment), copies, epoch }
}

pub(super) fn trip(cloud: CloudId, epoch: Epoch) -> OpBody {
    let why = "160 failures on one piece".into();
    OpBody::Trip { cloud, epoch, why, ballots: Vec::new(), voters: 2, policy: TripPolicy::Any }
}
