//! A mesh of replicas in one process: calls are function calls that take a millisecond, and links can be cut.

use crate::{
    FilerId,
    clock::SeededRandom,
    consensus::{Consensus, ConsensusStatus, Settings, StateMachine},
    kv::{Kv, KvError, KvRead, MemoryKv, Pair, STATE, Txn, borrow_range, prefix_range},
    peers::{CallError, Channel, Member, Message, PeerName, PeerStatus, Peers, Service},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Arc, Mutex, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);

/// Counters by name: an operation is a name, its answer how often it was applied.
#[derive(Default)]
pub struct Counters {
    pub applied: AtomicU64,
    pub snapshots: AtomicU64,
    /// An operation that the tables fail on.
    pub poison: Option<Vec<u8>>,
}

impl StateMachine for Counters {
    fn apply(&self, txn: &mut Txn<'_>, _: FilerId, op: &[u8]) -> Result<Vec<u8>, KvError> {
        if self.poison.as_deref() == Some(op) {
            return Err(KvError { attempted: "reading", table: STATE.0, why: "the disk is gone".into() });
        }
        let key = [&[1u8], op].concat();
        let count = txn.get(&key)?.map_or(0, |v| u64::from_be_bytes(v[..8].try_into().expect("counters are 8 bytes")));
        txn.put(key, (count + 1).to_be_bytes().to_vec());
        Ok((count + 1).to_be_bytes().to_vec())
    }

    fn applied(&self, index: u64, snapshot: bool) {
        self.applied.fetch_max(index, Ordering::SeqCst);
        self.snapshots.fetch_add(snapshot.into(), Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Wires {
    doors: BTreeMap<FilerId, Arc<dyn Service>>,
    /// Filers that nothing reaches and that reach nothing.
    cut: BTreeSet<FilerId>,
    /// Calls from these to the consensus channel are carried out, but their answers are lost.
    deaf: BTreeSet<FilerId>,
    calls: u64,
    /// How much longer than usual each way takes.
    slower: Duration,
}

/// The network.
#[derive(Clone, Default)]
pub struct Mesh {
    wires: Arc<Mutex<Wires>>,
}

/// A filer's end of it.
pub struct End {
    me: FilerId,
    mesh: Mesh,
    pub members: Mutex<BTreeMap<FilerId, Member>>,
}

impl Mesh {
    pub fn cut(&self, id: u64) {
        self.wires.lock().expect("no test holds it").cut.insert(FilerId(id));
    }

    pub fn heal(&self) {
        let mut wires = self.wires.lock().expect("no test holds it");
        wires.cut.clear();
        wires.deaf.clear();
    }

    pub fn deafen(&self, id: u64) {
        self.wires.lock().expect("no test holds it").deaf.insert(FilerId(id));
    }

    /// Every way takes so much longer than usual from now on.
    pub fn slow_down(&self, by: Duration) {
        self.wires.lock().expect("no test holds it").slower = by;
    }

    fn slower(&self) -> Duration {
        self.wires.lock().expect("no test holds it").slower
    }

    pub fn calls(&self) -> u64 {
        self.wires.lock().expect("no test holds it").calls
    }

    fn severed(&self, a: FilerId, b: FilerId) -> bool {
        let wires = self.wires.lock().expect("no test holds it");
        wires.cut.contains(&a) || wires.cut.contains(&b)
    }
}

#[async_trait::async_trait]
impl Peers for End {
    async fn call(&self, to: FilerId, _: Channel, call: Message, deadline: Duration) -> Result<Message, CallError> {
        if !self.members.lock().expect("no test holds it").contains_key(&to) {
            return Err(CallError::Unknown(to));
        }
        let door = {
            let mut wires = self.mesh.wires.lock().expect("no test holds it");
            wires.calls += 1;
            wires.doors.get(&to).cloned()
        };
        let timed_out = CallError::TimedOut { to, after_ms: deadline.as_millis() as u64 };
        let carried = async {
            sleep(Duration::from_millis(1) + self.mesh.slower()).await;
            let Some(door) = door.filter(|_| !self.mesh.severed(self.me, to)) else {
                sleep(deadline).await;
                return Err(timed_out.clone());
            };
            let answer = door.handle(&PeerName { id: self.me, name: member(self.me.0).name }, call).await;
            let deaf = self.mesh.wires.lock().expect("no test holds it").deaf.contains(&self.me);
            if deaf || self.mesh.severed(self.me, to) {
                sleep(deadline).await;
            }
            sleep(self.mesh.slower()).await;
            answer.map_err(|why| CallError::Refused { to, why })
        };
        timeout(deadline, carried).await.unwrap_or(Err(timed_out.clone()))
    }

    fn set_members(&self, members: BTreeMap<FilerId, Member>) {
        *self.members.lock().expect("no test holds it") = members;
    }

    fn status(&self) -> Vec<PeerStatus> {
        Vec::new()
    }
}

/// One replica and what it stands on.
pub struct Filer {
    pub id: FilerId,
    pub kv: MemoryKv,
    pub consensus: Consensus,
    pub machine: Arc<Counters>,
    pub end: Arc<End>,
}

pub fn member(id: u64) -> Member {
    Member { name: format!("site{id}"), address: format!("10.0.0.{id}:7000") }
}

pub fn settings() -> Settings {
    Settings { snapshot_chunk_bytes: 1_000, apply_rows_max: 10, ..Settings::default() }
}

pub async fn start_with(mesh: &Mesh, id: u64, kv: MemoryKv, settings: Settings, machine: Counters) -> Filer {
    let tables = Arc::new(kv.clone());
    start_on(mesh, id, kv, tables, settings, machine).await
}

/// As [`start_with`], on `tables` whose newest content `kv` shows.
pub async fn start_on(
    mesh: &Mesh,
    id: u64,
    kv: MemoryKv,
    tables: Arc<dyn Kv>,
    settings: Settings,
    machine: Counters,
) -> Filer {
    let id = FilerId(id);
    let machine = Arc::new(machine);
    let end = Arc::new(End { me: id, mesh: mesh.clone(), members: Mutex::default() });
    let random = Arc::new(SeededRandom::new(id.0));
    let started = Consensus::start(settings, id, tables, machine.clone(), end.clone(), random).await;
    let consensus = started.expect("the settings and tables are good");
    mesh.wires.lock().expect("no test holds it").doors.insert(id, consensus.handler());
    Filer { id, kv, consensus, machine, end }
}

pub async fn start(mesh: &Mesh, id: u64, kv: MemoryKv, settings: Settings) -> Filer {
    start_with(mesh, id, kv, settings, Counters::default()).await
}

/// Filers 1 to `count`, all of them members that vote.
pub async fn mesh_of(count: u64, settings: Settings) -> (Mesh, Vec<Filer>) {
    let mesh = Mesh::default();
    let mut filers = Vec::new();
    for id in 1..=count {
        filers.push(start(&mesh, id, MemoryKv::default(), settings.clone()).await);
    }
    let first = &filers[0].consensus;
    first.bootstrap(member(1)).await.expect("the tables are empty");
    for id in 2..=count {
        first.add_member(FilerId(id), member(id), MINUTE).await.expect("all can be reached");
    }
    (mesh, filers)
}

impl Filer {
    /// Counts `name` up, once.
    pub async fn count(&self, name: &str) -> u64 {
        let answer = self.consensus.propose(name.as_bytes().to_vec(), MINUTE).await.expect("a majority can be reached");
        u64::from_be_bytes(answer.try_into().expect("counters are 8 bytes"))
    }

    /// The counter as this filer's own tables show it.
    pub fn local(&self, name: &str) -> u64 {
        let key = [&[1u8], name.as_bytes()].concat();
        let value = self.kv.get(STATE, &key).expect("memory does not fail");
        value.map_or(0, |v| u64::from_be_bytes(v[..8].try_into().expect("counters are 8 bytes")))
    }

    /// Everything in its replicated state.
    pub fn state(&self) -> Vec<Pair> {
        self.kv.scan(STATE, (Bound::Unbounded, Bound::Unbounded), usize::MAX, false).expect("memory does not fail")
    }

    /// Rows of answers that may still be asked for.
    pub fn answers(&self) -> usize {
        let rows = self.kv.scan(STATE, borrow_range(&prefix_range(&[0, 2])), usize::MAX, false);
        rows.expect("memory does not fail").len()
    }

    /// Waits until the status is as wanted.
    pub async fn until(&self, wanted: impl Fn(&ConsensusStatus) -> bool) -> ConsensusStatus {
        let began = Instant::now();
        loop {
            let status = self.consensus.status();
            if wanted(&status) {
                return status;
            }
            assert!(began.elapsed() < 2 * MINUTE, "filer {} never got there: {status:?}", self.id);
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The filer that leads, of those given.
pub async fn leader<'a>(filers: &[&'a Filer]) -> &'a Filer {
    let began = Instant::now();
    loop {
        for filer in filers {
            let status = filer.consensus.status();
            if status.leader == Some(filer.id) {
                return filer;
            }
        }
        assert!(began.elapsed() < MINUTE, "nobody was elected");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until all have applied the same, and checks that they agree on all of it.
pub async fn agree(filers: &[&Filer]) {
    let index = filers[0].consensus.barrier(MINUTE).await.expect("a majority can be reached");
    for filer in filers {
        filer.until(|status| status.applied >= index).await;
    }
    for filer in &filers[1..] {
        assert_eq!(filer.state(), filers[0].state(), "filers {} and {}", filer.id, filers[0].id);
    }
}
