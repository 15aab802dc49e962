use super::*;
use crate::{
    FilerId,
    clock::SeededRandom,
    consensus::{engine::Command, runtime::Spawning},
    kv::{Batch, Durability, MemoryKv},
};
use openraft::{entry::RaftEntry, storage::IOFlushed, testing::log_id};
use std::sync::atomic::{AtomicU64, Ordering};

/// Tables that count synced batches, and are slow.
struct Slow {
    kv: MemoryKv,
    synced: AtomicU64,
}

impl KvRead for Slow {
    fn get(&self, table: crate::kv::Table, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.kv.get(table, key)
    }

    fn scan(
        &self,
        table: crate::kv::Table,
        range: Range<'_>,
        limit: usize,
        backwards: bool,
    ) -> Result<Vec<crate::kv::Pair>, KvError> {
        self.kv.scan(table, range, limit, backwards)
    }
}

#[async_trait::async_trait]
impl Kv for Slow {
    async fn write(&self, batch: Batch, durability: Durability) -> Result<(), KvError> {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        self.synced.fetch_add((durability == Durability::Synced).into(), Ordering::SeqCst);
        self.kv.write(batch, durability).await
    }

    fn view(&self) -> Arc<dyn KvRead> {
        self.kv.view()
    }
}

fn entry(term: u64, index: u64) -> Entry {
    Entry::new_normal(log_id::<Types>(term, FilerId(1), index), Command::Remove(FilerId(index)))
}

fn open(kv: Arc<Slow>, settings: &Settings) -> LogStore {
    let env = Env::new(Arc::new(SeededRandom::new(1)), Spawning::Runtime);
    LogStore::open(kv, settings, &env).expect("memory does not fail")
}

fn slow() -> Arc<Slow> {
    Arc::new(Slow { kv: MemoryKv::default(), synced: AtomicU64::new(0) })
}

async fn indices(log: &mut LogStore, range: impl RangeBounds<u64> + Clone + Debug + Send) -> Vec<(u64, u64)> {
    let entries = log.try_get_log_entries(range).await.expect("memory does not fail");
    entries.iter().map(|entry| (entry.log_id.committed_leader_id().term, entry.log_id.index())).collect()
}

#[tokio::test(start_paused = true)]
async fn appends_are_seen_at_once_and_synced_together() {
    let kv = slow();
    let mut log = open(kv.clone(), &Settings::default());
    for index in 0..100 {
        log.append([entry(1, index)], IOFlushed::noop()).await.expect("the writer runs");
        assert_eq!(indices(&mut log, index..=index).await, [(1, index)]);
    }
    log.save_vote(&Vote::new(3, FilerId(1))).await.expect("memory does not fail");
    assert!(kv.synced.load(Ordering::SeqCst) <= 2, "{:?} batches for 101 writes", kv.synced);
    assert_eq!(log.read_vote().await.expect("memory does not fail"), Some(Vote::new(3, FilerId(1))));
    let mut again = open(kv, &Settings::default());
    assert_eq!(again.read_vote().await.expect("memory does not fail"), Some(Vote::new(3, FilerId(1))));
    assert_eq!(indices(&mut again, 90..).await.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn truncation_and_purge_hold_over_memory_and_table() {
    let kv = slow();
    let tiny = Settings { log_cache_bytes_max: 300, append_bytes_max: 400, ..Settings::default() };
    let mut log = open(kv.clone(), &tiny);
    log.append((0..100).map(|n| entry(1, n)), IOFlushed::noop()).await.expect("the writer runs");
    log.save_vote(&Vote::new(2, FilerId(1))).await.expect("memory does not fail");
    assert_eq!(indices(&mut log, ..).await.len(), 100, "most of them come from the table");
    log.truncate_after(Some(log_id::<Types>(1, FilerId(1), 59))).await.expect("memory does not fail");
    log.append([entry(2, 60), entry(2, 61)], IOFlushed::noop()).await.expect("the writer runs");
    assert_eq!(indices(&mut log, 59..).await, [(1, 59), (2, 60), (2, 61)]);
    log.purge(log_id::<Types>(1, FilerId(1), 19)).await.expect("memory does not fail");
    assert_eq!(indices(&mut log, ..).await.len(), 42);
    let mut reader = log.get_log_reader().await;
    let some = reader.limited_get_log_entries(0, 62).await.expect("memory does not fail");
    assert!(!some.is_empty() && some.len() < 42 && some[0].log_id.index() == 20);
    let mut again = open(kv, &tiny);
    let state = again.get_log_state().await.expect("memory does not fail");
    assert_eq!(state.last_purged_log_id, Some(log_id::<Types>(1, FilerId(1), 19)));
    assert_eq!(state.last_log_id, Some(log_id::<Types>(2, FilerId(1), 61)));
    assert_eq!(indices(&mut again, 58..).await, [(1, 58), (1, 59), (2, 60), (2, 61)]);
}

#[test]
fn the_stored_form_of_an_entry_and_a_vote_is_fixed() {
    let request = crate::consensus::engine::Request { filer: FilerId(7), session: 2, number: 9, done_below: 8 };
    let op = Entry::new_normal(log_id::<Types>(3, FilerId(1), 5), Command::Op(request, Bytes::from_static(b"op")));
    assert_eq!(record::encode(VERSION, &op), [1, 3, 1, 5, 1, 0, 7, 2, 9, 8, 2, b'o', b'p']);
    assert_eq!(record::encode(VERSION, &Vote::new_committed(3, FilerId(1))), [1, 3, 1, 1]);
}

/// The entries of a stream, up to its first error.
async fn streamed(log: &mut LogStore, range: std::ops::Range<u64>) -> (Vec<u64>, Option<String>) {
    let mut reader = log.get_log_reader().await;
    let mut entries = std::pin::pin!(reader.entries_stream(range).await);
    let mut found = Vec::new();
    while let Some(entry) = futures::StreamExt::next(&mut entries).await {
        match entry {
            Ok(entry) => found.push(entry.log_id.index()),
            Err(error) => return (found, Some(error.to_string())),
        }
    }
    (found, None)
}

#[tokio::test(start_paused = true)]
async fn whoever_applies_is_told_of_every_entry_that_is_not_there() {
    let missing = |index: u64| Some(format!("entry {index} is missing in the log"));
    let kv = slow();
    let tiny = Settings { log_cache_bytes_max: 300, append_bytes_max: 400, ..Settings::default() };
    let mut log = open(kv.clone(), &tiny);
    log.append((0..100).map(|n| entry(1, n)), IOFlushed::noop()).await.expect("the writer runs");
    log.save_vote(&Vote::new(1, FilerId(1))).await.expect("memory does not fail");
    assert_eq!(streamed(&mut log, 0..100).await, ((0..100).collect(), None));
    assert_eq!(streamed(&mut log, 90..110).await, ((90..100).collect(), missing(100)), "behind the end");
    log.purge(log_id::<Types>(1, FilerId(1), 9)).await.expect("memory does not fail");
    assert_eq!(streamed(&mut log, 5..20).await, (vec![], missing(5)), "purged");
    assert_eq!(streamed(&mut log, 5..8).await, (vec![], missing(5)), "purged altogether");
    let mut hole = Batch::default();
    hole.delete(LOG, key(50));
    kv.write(hole, Durability::Synced).await.expect("memory does not fail");
    let (found, error) = streamed(&mut log, 10..100).await;
    assert!(found.len() <= 40, "{found:?}");
    assert_eq!((found.clone(), error), ((10..10 + found.len() as u64).collect(), missing(50)), "lost");
    assert_eq!(streamed(&mut log, 50..60).await, (vec![], missing(50)));
    let mut again = open(kv, &tiny);
    let read = again.try_get_log_entries(10..100).await;
    assert_eq!(read.err().map(|error| error.to_string()), missing(50));
}
