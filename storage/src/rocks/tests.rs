#![expect(clippy::disallowed_methods, reason = "real tables, looked at from outside")]

use super::*;
use mesh::kv::{MemoryKv, borrow_range, prefix_range};
use proptest::prelude::*;
use std::{collections::BTreeMap, fs, path::PathBuf};

fn open(dir: &Path) -> Arc<RocksKv> {
    RocksKv::open(dir, &RocksSettings::default()).expect("open")
}

fn batch(pairs: &[(&str, &str)]) -> Batch {
    let mut batch = Batch::default();
    pairs.iter().for_each(|(key, value)| batch.put(STATE, *key, *value));
    batch
}

fn keys(pairs: Vec<Pair>) -> Vec<String> {
    pairs.into_iter().map(|(key, _)| String::from_utf8_lossy(&key).into_owned()).collect()
}

/// Every file of a directory with its bytes.
fn image(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[tokio::test]
async fn prefixes_are_scanned_in_order_from_either_end() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path());
    kv.write(batch(&[("b2", ""), ("a", ""), ("b1", ""), ("b", ""), ("c", "")]), Durability::Buffered).await.unwrap();
    kv.write(Batch(vec![Change::Put { table: META, key: b"b9".into(), value: vec![] }]), Durability::Buffered)
        .await
        .unwrap();
    let range = prefix_range(b"b");
    let range = borrow_range(&range);
    assert_eq!(keys(kv.scan(STATE, range, 9, false).unwrap()), ["b", "b1", "b2"]);
    assert_eq!(keys(kv.scan(STATE, range, 2, true).unwrap()), ["b2", "b1"]);
    let range = (Bound::Excluded(&b"b"[..]), Bound::Included(&b"b2"[..]));
    assert_eq!(keys(kv.scan(STATE, range, 9, false).unwrap()), ["b1", "b2"]);
    let inverted = (Bound::Included(&b"c"[..]), Bound::Excluded(&b"a"[..]));
    assert_eq!(keys(kv.scan(STATE, inverted, 9, false).unwrap()), [""; 0]);
}

#[tokio::test]
async fn what_was_written_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path());
    kv.write(batch(&[("a", "1"), ("b", "2"), ("c", "3")]), Durability::Buffered).await.unwrap();
    let mut change = Batch::default();
    change.delete_range(STATE, "a", "b");
    change.delete_range(STATE, "z", "a");
    change.delete(STATE, "c");
    kv.write(change, Durability::Synced).await.unwrap();
    drop(kv);
    let kv = open(dir.path());
    assert_eq!(keys(kv.scan(STATE, (Bound::Unbounded, Bound::Unbounded), 9, false).unwrap()), ["b"]);
    assert_eq!(kv.get(STATE, b"b").unwrap().unwrap(), "2");
    assert_eq!(kv.get(LOG, b"b").unwrap(), None);
}

#[tokio::test]
async fn writes_that_wait_together_share_one_sync_and_keep_their_order() {
    const WRITES: u64 = 1_000;
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path());
    let writes = (0..WRITES).map(|i| {
        let durability = if i % 2 == 0 { Durability::Synced } else { Durability::Buffered };
        kv.write(batch(&[("last", &i.to_string()), (&format!("{i:06}"), "")]), durability)
    });
    for written in futures::future::join_all(writes).await {
        written.unwrap();
    }
    assert_eq!(kv.get(STATE, b"last").unwrap().unwrap(), (WRITES - 1).to_string());
    assert!(kv.groups() < WRITES / 2, "{} groups for {WRITES} writes", kv.groups());
}

/// The state's writes come between the log's, and whoever waits for them need not wait for the log's next sync.
#[tokio::test]
async fn what_need_not_be_synced_waits_for_no_sync_that_comes_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path());
    let writer = || {
        let (db, groups, swaps) = (kv.db.clone(), kv.groups.clone(), kv.swaps.clone());
        Writer { db, groups, swaps, swaps_ahead: 0, failed: None }
    };
    let writes = [Buffered, Buffered, Synced, Buffered, Synced, Buffered];
    let write = |(number, durability): (usize, Durability)| {
        let (done, answer) = oneshot::channel();
        (Waiting { batch: batch(&[("last", &number.to_string())]), durability, done }, answer)
    };
    let last = || kv.get(STATE, b"last").unwrap().unwrap();
    let mut waiting = writes.into_iter().enumerate().map(write).map(|(waiting, _)| waiting);
    let mut grouped = writer();
    let (group, next) = grouped.gather(waiting.next().unwrap(), || waiting.next());
    assert_eq!((group.writes.len(), group.synced), (2, false));
    grouped.write(group.changes, group.synced).unwrap();
    assert_eq!(last(), "1");
    let (group, next) = grouped.gather(next.unwrap(), || waiting.next());
    assert_eq!((group.writes.len(), group.synced, next.is_none()), (4, true, true), "one sync for all that wait");
    grouped.write(group.changes, group.synced).unwrap();
    assert_eq!(last(), "5");

    // Those that wait when the queue is closed are written, and answered.
    let (queue, waiting) = mpsc::channel(writes.len());
    let answers = writes.into_iter().enumerate().map(|(number, durability)| {
        let (waiting, answer) = write((number + 10, durability));
        assert!(queue.try_send(waiting).is_ok());
        answer
    });
    let answers: Vec<_> = answers.collect();
    drop(queue);
    let groups = kv.groups();
    tokio::task::spawn_blocking({
        let writer = writer();
        move || writer.run(waiting)
    })
    .await
    .unwrap();
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    assert_eq!((last(), kv.groups() - groups), ("15".into(), 2));
}

#[tokio::test]
async fn a_view_stands_still_and_outlives_its_tables() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path());
    kv.write(batch(&[("a", "old"), ("b", "old")]), Durability::Buffered).await.unwrap();
    let view = kv.view();
    let mut change = batch(&[("a", "new"), ("c", "new")]);
    change.delete(STATE, "b");
    kv.write(change, Durability::Buffered).await.unwrap();
    assert_eq!(kv.get(STATE, b"a").unwrap().unwrap(), "new");
    drop(kv);
    assert_eq!(view.get(STATE, b"a").unwrap().unwrap(), "old");
    assert_eq!(keys(view.scan(STATE, (Bound::Unbounded, Bound::Unbounded), 9, true).unwrap()), ["b", "a"]);
}

#[tokio::test]
async fn an_arrived_state_takes_the_place_of_the_other_at_once_and_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path());
    let all = (Bound::Unbounded, Bound::Unbounded);
    kv.write(batch(&[("old", "1")]), Durability::Buffered).await.unwrap();
    for round in ["first", "second", "third"] {
        let mut arrived = Batch::default();
        arrived.put(ARRIVING, round, "2");
        kv.write(arrived, Durability::Buffered).await.unwrap();
        let (view, before) = (kv.view(), keys(kv.scan(STATE, all, 9, false).unwrap()));
        let mut swap = Batch::default();
        swap.swap_state();
        swap.put(META, "applied", round);
        swap.put(STATE, "with it", "3");
        kv.write(swap, Durability::Synced).await.unwrap();
        assert_eq!(keys(kv.scan(STATE, all, 9, false).unwrap()), [round, "with it"]);
        let mut clear = Batch::default();
        clear.delete_range(ARRIVING, "", "zzz");
        kv.write(clear, Durability::Buffered).await.unwrap();
        assert_eq!(keys(kv.scan(ARRIVING, all, 9, false).unwrap()), [""; 0]);
        assert_eq!(keys(view.scan(STATE, all, 9, false).unwrap()), before, "a view stands still");
    }
    drop(kv);
    let kv = open(dir.path());
    assert_eq!(keys(kv.scan(STATE, all, 9, false).unwrap()), ["third", "with it"]);
    assert_eq!(kv.get(META, b"applied").unwrap().unwrap(), "third");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_reader_sees_a_cleared_state() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path());
    kv.write(batch(&[("key", "0")]), Durability::Buffered).await.unwrap();
    let (reader, done) = (kv.clone(), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let stop = done.clone();
    let reading = std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            assert!(reader.get(STATE, b"key").unwrap().is_some());
            assert_eq!(reader.scan(STATE, (Bound::Unbounded, Bound::Unbounded), 9, false).unwrap().len(), 1);
            assert!(reader.view().get(STATE, b"key").unwrap().is_some());
        }
    });
    for round in 0..200 {
        let mut swap = Batch::default();
        swap.put(ARRIVING, "key", round.to_string());
        swap.swap_state();
        kv.write(swap, Durability::Buffered).await.unwrap();
        let mut clear = Batch::default();
        clear.delete_range(ARRIVING, "", "zzz");
        kv.write(clear, Durability::Buffered).await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    reading.join().expect("every read found the state");
}

#[tokio::test]
async fn a_write_of_nothing_can_still_sync() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path());
    kv.write(Batch::default(), Durability::Buffered).await.unwrap();
    kv.write(Batch::default(), Durability::Synced).await.unwrap();
}

/// Whoever clears up behind given-up writes waits for an empty one first.
#[tokio::test]
async fn a_write_that_is_waited_for_comes_behind_those_that_were_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path());
    for i in 0..500 {
        let key = format!("{i:06}");
        let mut given_up = Box::pin(kv.write(batch(&[(&key, "")]), Durability::Buffered));
        let _ = futures::poll!(given_up.as_mut());
        drop(given_up);
        kv.write(Batch::default(), Durability::Buffered).await.unwrap();
        assert!(kv.get(STATE, key.as_bytes()).unwrap().is_some(), "write {i}");
    }
}

#[tokio::test]
async fn unknown_tables_are_refused_before_they_reach_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path());
    let (unknown, mut change) = (Table("unknown"), Batch::default());
    change.put(unknown, "a", "1");
    assert_eq!(kv.write(change, Durability::Synced).await.unwrap_err().table, "unknown");
    assert!(kv.get(unknown, b"a").is_err());
    kv.write(batch(&[("a", "1")]), Durability::Synced).await.expect("others are not harmed");
}

#[tokio::test]
async fn a_second_opener_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _kv = open(dir.path());
    assert!(matches!(RocksKv::open(dir.path(), &RocksSettings::default()), Err(OpenError::Rocks { .. })));
}

#[tokio::test]
async fn a_newer_format_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let kv = open(dir.path());
    let newer = vec![Change::Put { table: META, key: b"format".into(), value: 7u32.to_be_bytes().into() }];
    kv.write(Batch(newer), Durability::Synced).await.unwrap();
    drop(kv);
    let before = image(dir.path());
    let refused = RocksKv::open(dir.path(), &RocksSettings::default()).err().expect("refused");
    assert!(matches!(refused, OpenError::Newer { found: 7, known: 1, .. }), "{refused}");
    assert!(before == image(dir.path()), "the directory was touched");
}

#[tokio::test]
async fn unknown_column_families_and_missing_formats_are_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    drop(DB::open_cf(&options, dir.path(), ["state", "meta", "log", "future"]).unwrap());
    let before = image(dir.path());
    let refused = RocksKv::open(dir.path(), &RocksSettings::default()).err().expect("refused");
    assert!(matches!(&refused, OpenError::UnknownTables { unknown, .. } if unknown[..] == ["future"]), "{refused}");
    assert!(before == image(dir.path()), "the directory was touched");

    let dir = tempfile::tempdir().unwrap();
    let db = DB::open_cf(&options, dir.path(), ["state"]).unwrap();
    db.put_cf(db.cf_handle("state").unwrap(), "a", "1").unwrap();
    drop(db);
    let refused = RocksKv::open(dir.path(), &RocksSettings::default()).err().expect("refused");
    assert!(matches!(refused, OpenError::NoFormat { .. }), "{refused}");
}

#[tokio::test]
async fn a_directory_whose_making_was_cut_short_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    drop(DB::open(&options, dir.path()).unwrap());
    let kv = open(dir.path());
    kv.write(batch(&[("a", "1")]), Durability::Synced).await.unwrap();
    drop(kv);
    assert!(open(dir.path()).get(STATE, b"a").unwrap().is_some());
}

fn any_change() -> impl Strategy<Value = Change> {
    let key = || proptest::collection::vec(0u8..3, 0..4);
    prop_oneof![
        4 => (key(), any::<u8>()).prop_map(|(key, value)| Change::Put { table: STATE, key, value: vec![value] }),
        2 => key().prop_map(|key| Change::Delete { table: STATE, key }),
        1 => Just(Change::SwapState),
        1 => (key(), key()).prop_map(|(from, to)| Change::DeleteRange { table: STATE, from, to }),
    ]
}

fn any_bound() -> impl Strategy<Value = Bound<Vec<u8>>> {
    let key = || proptest::collection::vec(0u8..3, 0..4);
    prop_oneof![key().prop_map(Bound::Included), key().prop_map(Bound::Excluded), Just(Bound::Unbounded)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn it_reads_as_tables_in_memory_do(
        batches in proptest::collection::vec(proptest::collection::vec(any_change(), 0..12), 1..6),
        scans in proptest::collection::vec((any_bound(), any_bound(), 0usize..6, any::<bool>()), 12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (kv, model) = (open(dir.path()), MemoryKv::default());
        futures::executor::block_on(async {
            for changes in batches {
                kv.write(Batch(changes.clone()), Durability::Buffered).await.unwrap();
                model.write(Batch(changes), Durability::Buffered).await.unwrap();
            }
        });
        for (from, to, limit, backwards) in scans {
            let range = (from, to);
            let range = borrow_range(&range);
            let expected = model.scan(STATE, range, limit, backwards).unwrap();
            prop_assert_eq!(kv.scan(STATE, range, limit, backwards).unwrap(), expected.clone());
            prop_assert_eq!(kv.view().scan(STATE, range, limit, backwards).unwrap(), expected);
        }
    }
}
