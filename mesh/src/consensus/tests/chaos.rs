use super::mesh::*;
use crate::{
    FilerId,
    clock::{Random, SeededRandom},
    consensus::{ProposeError, Settings, Spawning},
    kv::{Batch, Durability, Kv, KvError, KvRead, MemoryKv, Pair, Range, Table},
};
use bytes::Bytes;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};
use tokio::{
    task::LocalSet,
    time::{Instant, sleep},
};

/// What clients were told, by counter: each answer once.
#[derive(Default)]
struct Told {
    answers: RefCell<BTreeMap<String, Vec<u64>>>,
    attempts: RefCell<BTreeMap<String, u64>>,
    ends: Cell<bool>,
}

/// Counts up through whichever replica runs at `place`, asking again until it is answered or the replica ends.
async fn client(filers: Rc<RefCell<Vec<Rc<Filer>>>>, place: usize, number: u64, told: Rc<Told>) {
    let mut round = number;
    while !told.ends.get() {
        let filer = filers.borrow()[place].clone();
        let name = format!("counter {}", round % 4);
        round += 1;
        *told.attempts.borrow_mut().entry(name.clone()).or_default() += 1;
        let ticket = filer.consensus.ticket();
        loop {
            match filer.consensus.propose_as(&ticket, name.clone().into_bytes(), 2 * SECOND).await {
                Ok(answer) => {
                    let count = u64::from_be_bytes(answer.try_into().expect("counters are 8 bytes"));
                    told.answers.borrow_mut().entry(name.clone()).or_default().push(count);
                    break;
                }
                Err(ProposeError::NoMajority { .. }) => continue,
                Err(ProposeError::Stopped(_)) => break sleep(SECOND / 10).await,
                Err(error) => panic!("filer {}: {error}", filer.id),
            }
        }
        sleep(Duration::from_millis(40)).await;
    }
}

/// Tables that lose in a power cut whatever was written behind the last synced batch. A sync takes 2 ms.
#[derive(Default)]
struct Fragile {
    now: MemoryKv,
    journal: Mutex<Journal>,
}

#[derive(Default)]
struct Journal {
    batches: Vec<Batch>,
    /// How many of them are on the disk.
    synced: usize,
}

impl Fragile {
    /// What the disk holds after a power cut.
    async fn after_power_cut(&self) -> Arc<Fragile> {
        let mut batches = std::mem::take(&mut *self.journal.lock().expect("no test holds it"));
        batches.batches.truncate(batches.synced);
        let after = Fragile::default();
        for batch in &batches.batches {
            after.now.write(batch.clone(), Durability::Synced).await.expect("memory does not fail");
        }
        *after.journal.lock().expect("no test holds it") = batches;
        Arc::new(after)
    }
}

impl KvRead for Fragile {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.now.get(table, key)
    }

    fn scan(&self, table: Table, range: Range<'_>, limit: usize, backwards: bool) -> Result<Vec<Pair>, KvError> {
        self.now.scan(table, range, limit, backwards)
    }
}

#[async_trait::async_trait]
impl Kv for Fragile {
    async fn write(&self, batch: Batch, durability: Durability) -> Result<(), KvError> {
        self.now.write(batch.clone(), durability).await?;
        let written = {
            let mut journal = self.journal.lock().expect("no test holds it");
            journal.batches.push(batch);
            journal.batches.len()
        };
        if durability == Durability::Synced {
            sleep(Duration::from_millis(2)).await;
            let mut journal = self.journal.lock().expect("no test holds it");
            journal.synced = journal.synced.max(written.min(journal.batches.len()));
        }
        Ok(())
    }

    fn view(&self) -> Arc<dyn KvRead> {
        self.now.view()
    }
}

async fn power_up(mesh: &Mesh, id: u64, tables: Arc<Fragile>) -> Rc<Filer> {
    let settings =
        Settings { snapshot_every_entries: 50, log_entries_kept: 10, spawning: Spawning::Local, ..settings() };
    Rc::new(start_on(mesh, id, tables.now.clone(), tables, settings, Counters::default()).await)
}

/// A minute of cuts and power cuts, then peace; what the filers agree on in the end, after how many calls, and how
/// often a snapshot was needed.
async fn bad_minute(seed: u64) -> (Vec<Pair>, u64, u64) {
    let random = SeededRandom::new(seed);
    let mesh = Mesh::default();
    let mut disks: Vec<Arc<Fragile>> = (0..3).map(|_| Arc::default()).collect();
    let filers = Rc::new(RefCell::new(Vec::new()));
    for (place, disk) in disks.iter().enumerate() {
        let filer = power_up(&mesh, place as u64 + 1, disk.clone()).await;
        filers.borrow_mut().push(filer);
    }
    let first = filers.borrow()[0].clone();
    first.consensus.bootstrap(member(1)).await.expect("the tables are empty");
    for id in 2..=3 {
        first.consensus.add_member(FilerId(id), member(id), MINUTE).await.expect("all can be reached");
    }
    let told = Rc::new(Told::default());
    let clients: Vec<_> =
        (0..9u64).map(|n| tokio::task::spawn_local(client(filers.clone(), n as usize % 3, n, told.clone()))).collect();
    let began = Instant::now();
    while began.elapsed() < MINUTE {
        let place = random.next_u64() as usize % 3;
        let power_cuts = match random.next_u64() % 8 {
            0 | 1 => {
                mesh.cut(place as u64 + 1);
                0..0
            }
            2 => {
                mesh.deafen(place as u64 + 1);
                0..0
            }
            3 | 4 => {
                mesh.heal();
                0..0
            }
            5 | 6 => place..place + 1,
            _ => 0..3,
        };
        for place in power_cuts {
            let old = filers.borrow()[place].clone();
            disks[place] = disks[place].after_power_cut().await;
            old.consensus.shutdown().await;
            let again = power_up(&mesh, place as u64 + 1, disks[place].clone()).await;
            filers.borrow_mut()[place] = again;
        }
        sleep(Duration::from_millis(random.next_u64() % 3_000)).await;
    }
    mesh.heal();
    sleep(10 * SECOND).await;
    told.ends.set(true);
    for client in clients {
        client.await.expect("no client panics");
    }
    let filers = filers.borrow().clone();
    let all: Vec<&Filer> = filers.iter().map(|filer| &**filer).collect();
    agree(&all).await;
    for (name, answers) in told.answers.borrow().iter() {
        let mut unique = answers.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), answers.len(), "two operations on {name} had the same answer");
        let most = told.attempts.borrow()[name];
        let count = filers[0].local(name);
        assert!(count >= unique.len() as u64 && count <= most, "{name}: {} <= {count} <= {most}", unique.len());
    }
    let snapshots = filers.iter().map(|filer| filer.machine.snapshots.load(Ordering::SeqCst)).sum();
    (filers[0].state(), mesh.calls(), snapshots)
}

fn run(seed: u64) -> (Vec<Pair>, u64, u64) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime without I/O");
    LocalSet::new().block_on(&runtime, bad_minute(seed))
}

#[test]
fn through_cuts_and_power_cuts_every_operation_counts_once() {
    let snapshots: u64 = (0..4).map(|seed| run(seed).2).sum();
    assert!(snapshots > 0, "nobody was away long enough to need a snapshot");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run(77), run(77));
}

#[test]
fn a_local_set_takes_its_filer_with_it() {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().expect("a runtime without I/O");
    let kv = MemoryKv::default();
    let settings = Settings { spawning: Spawning::Local, ..settings() };
    let mesh = Mesh::default();
    let (first, seen) = LocalSet::new().block_on(&runtime, async {
        let filer = start(&mesh, 1, kv.clone(), settings.clone()).await;
        filer.consensus.bootstrap(member(1)).await.expect("the tables are empty");
        assert_eq!(filer.count("x").await, 1);
        let seen = filer.consensus.status().applied;
        (filer, seen)
    });
    // The first one was not shut down: its tasks are gone with their set.
    LocalSet::new().block_on(&runtime, async {
        let filer = start(&mesh, 1, kv.clone(), settings).await;
        assert_eq!(filer.count("x").await, 2);
        assert_eq!(first.consensus.status().applied, seen);
    });
}
