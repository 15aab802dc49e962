use super::*;
use crate::disk::MemoryDisk;
use futures::future::join_all;
use mesh::FilerId;
use proptest::prelude::*;

fn segment(number: u64) -> SegmentId {
    SegmentId { filer: FilerId(0xf1), number }
}

/// The bytes of a segment: each tells where it is.
fn content(segment: SegmentId, at: u64, len: usize) -> Bytes {
    (at..at + len as u64).map(|at| (at.wrapping_mul(31) ^ segment.number.wrapping_mul(101)) as u8).collect()
}

/// A disk whose operations let others run before and after they happen.
#[derive(Clone)]
struct SlowDisk(MemoryDisk);

#[async_trait::async_trait]
impl Disk for SlowDisk {
    async fn write(&self, file: &str, offset: u64, parts: Vec<Bytes>) -> Result<(), DiskError> {
        turns().await;
        let done = self.0.write(file, offset, parts).await;
        turns().await;
        done
    }

    async fn sync(&self, file: &str) -> Result<(), DiskError> {
        self.0.sync(file).await
    }

    async fn read(&self, file: &str, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        turns().await;
        self.0.read(file, offset, len).await
    }

    async fn truncate(&self, file: &str, bytes: u64) -> Result<(), DiskError> {
        self.0.truncate(file, bytes).await
    }

    async fn rename(&self, file: &str, to: &str) -> Result<(), DiskError> {
        turns().await;
        let done = self.0.rename(file, to).await;
        turns().await;
        done
    }

    async fn remove(&self, file: &str) -> Result<(), DiskError> {
        turns().await;
        let done = self.0.remove(file).await;
        turns().await;
        done
    }

    async fn list(&self) -> Result<Vec<DiskFile>, DiskError> {
        self.0.list().await
    }
}

/// A disk that may refuse to change names.
#[derive(Clone, Default)]
struct StubbornDisk {
    inner: MemoryDisk,
    refuses: Arc<std::sync::atomic::AtomicBool>,
}

impl StubbornDisk {
    fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, std::sync::atomic::Ordering::Relaxed);
    }

    fn may(&self, file: &str) -> Result<(), DiskError> {
        match self.refuses.load(std::sync::atomic::Ordering::Relaxed) {
            true => {
                Err(DiskError::Failed { attempted: "changing", file: file.into(), why: "read-only for now".into() })
            }
            false => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl Disk for StubbornDisk {
    async fn write(&self, file: &str, offset: u64, parts: Vec<Bytes>) -> Result<(), DiskError> {
        self.inner.write(file, offset, parts).await
    }

    async fn sync(&self, file: &str) -> Result<(), DiskError> {
        self.inner.sync(file).await
    }

    async fn read(&self, file: &str, offset: u64, len: usize) -> Result<Bytes, DiskError> {
        self.inner.read(file, offset, len).await
    }

    async fn truncate(&self, file: &str, bytes: u64) -> Result<(), DiskError> {
        self.inner.truncate(file, bytes).await
    }

    async fn rename(&self, file: &str, to: &str) -> Result<(), DiskError> {
        self.may(file)?;
        self.inner.rename(file, to).await
    }

    async fn remove(&self, file: &str) -> Result<(), DiskError> {
        self.may(file)?;
        self.inner.remove(file).await
    }

    async fn list(&self) -> Result<Vec<DiskFile>, DiskError> {
        self.inner.list().await
    }
}

/// A different number of turns each time, but the same in each run.
async fn turns() {
    thread_local!(static DRAWN: std::cell::Cell<u32> = const { std::cell::Cell::new(1) });
    let drawn = DRAWN.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    DRAWN.set(drawn);
    for _ in 0..drawn >> 29 {
        tokio::task::yield_now().await;
    }
}

async fn open(disk: &MemoryDisk, disk_bytes_max: u64) -> DiskCache {
    let settings = Settings { disk_bytes_max, ..Settings::default() };
    DiskCache::open(Arc::new(disk.clone()), &settings).await.expect("memory does not fail")
}

async fn keep(cache: &DiskCache, number: u64, at: u64, len: usize) {
    cache.keep(segment(number), at, content(segment(number), at, len)).await;
}

async fn has(cache: &DiskCache, number: u64, at: u64, len: usize) -> bool {
    let read = cache.read(segment(number), at, len).await;
    assert!(read.is_none() || read.as_ref() == Some(&content(segment(number), at, len)), "wrong bytes");
    read.is_some()
}

async fn adopt(disk: &dyn Disk, cache: &DiskCache, number: u64, len: usize) {
    let file = format!("{number}.seg");
    disk.write(&file, 0, vec![content(segment(number), 0, len)]).await.expect("there is room");
    cache.adopt(segment(number), &file, len as u64).await;
}

/// What is on disk is what is accounted for, and within the bound.
async fn check(disk: &MemoryDisk, cache: &DiskCache) {
    let files: Vec<_> = disk.list().await.expect("memory does not fail").into_iter().map(|file| file.name).collect();
    let state = cache.lock();
    let mut kept: Vec<_> = state.segments.values().map(|kept| kept.file.clone()).collect();
    kept.sort();
    assert_eq!(files, kept);
    assert_eq!(state.bytes, state.segments.values().map(|kept| kept.bytes).sum::<u64>());
    assert_eq!(state.by_use.len(), state.segments.len());
    assert!(state.by_use.iter().all(|(used, segment)| state.segments[segment].used == *used));
    assert!(state.segments.values().all(|kept| kept.writing == 0 && kept.bytes > 0));
    assert!(state.bytes <= cache.bytes_max);
}

#[tokio::test]
async fn the_least_recently_used_goes_first() {
    let disk = MemoryDisk::new();
    let cache = open(&disk, 300).await;
    for number in 1..=3 {
        keep(&cache, number, 0, 100).await;
    }
    assert!(has(&cache, 1, 0, 100).await);
    keep(&cache, 4, 0, 100).await;
    assert!(has(&cache, 1, 50, 50).await && !has(&cache, 2, 0, 1).await && has(&cache, 3, 0, 1).await);
    adopt(&disk, &cache, 5, 200).await;
    assert!(has(&cache, 5, 0, 200).await && has(&cache, 3, 99, 1).await && !has(&cache, 1, 0, 1).await);
    check(&disk, &cache).await;
    adopt(&disk, &cache, 6, 301).await;
    assert!(!has(&cache, 6, 0, 1).await, "too large");
    keep(&cache, 7, 0, 301).await;
    assert!(!has(&cache, 7, 0, 1).await, "too large");
    check(&disk, &cache).await;
}

#[tokio::test]
async fn a_whole_segment_takes_the_place_of_its_parts() {
    let disk = MemoryDisk::new();
    let cache = open(&disk, 1000).await;
    keep(&cache, 1, 100, 50).await;
    keep(&cache, 1, 300, 50).await;
    assert_eq!(cache.bytes(), 100);
    assert!(!has(&cache, 1, 100, 51).await && !has(&cache, 1, 99, 1).await);
    adopt(&disk, &cache, 1, 400).await;
    assert_eq!(cache.bytes(), 400);
    assert!(has(&cache, 1, 0, 400).await && !has(&cache, 1, 0, 401).await);
    keep(&cache, 1, 0, 10).await;
    check(&disk, &cache).await;
    cache.drop_segment(segment(1)).await;
    assert!(!has(&cache, 1, 0, 1).await);
    check(&disk, &cache).await;
}

#[tokio::test]
async fn whole_segments_last_over_a_restart_and_parts_do_not() {
    let disk = MemoryDisk::new();
    let cache = open(&disk, 1000).await;
    adopt(&disk, &cache, 1, 400).await;
    adopt(&disk, &cache, 2, 400).await;
    keep(&cache, 3, 0, 100).await;
    for foreign in ["notes.part", "notes.cache", "00000000000000f1-0000000000000009.seg"] {
        disk.write(foreign, 0, vec![Bytes::from_static(b"mine")]).await.expect("there is room");
    }
    let cache = open(&disk, 1000).await;
    assert_eq!(cache.bytes(), 800);
    assert!(has(&cache, 1, 0, 400).await && has(&cache, 2, 0, 400).await && !has(&cache, 3, 0, 100).await);
    let cache = open(&disk, 500).await;
    assert_eq!(cache.bytes(), 400, "a lower bound holds at once");
    assert_eq!(disk.list().await.expect("memory does not fail").len(), 4, "what is not the cache's stays");
    for foreign in ["notes.part", "notes.cache", "00000000000000f1-0000000000000009.seg"] {
        disk.remove(foreign).await.expect("memory does not fail");
    }
    keep(&cache, 2, 0, 100).await;
    check(&disk, &cache).await;
}

#[tokio::test]
async fn failing_to_keep_loses_nothing_and_leaves_nothing() {
    let disk = MemoryDisk::new();
    let cache = open(&disk, 1000).await;
    keep(&cache, 1, 0, 100).await;
    disk.set_bytes_max(Some(100));
    keep(&cache, 1, 100, 100).await;
    keep(&cache, 2, 0, 100).await;
    assert!(has(&cache, 1, 0, 100).await && !has(&cache, 1, 100, 1).await && !has(&cache, 2, 0, 1).await);
    cache.keep(segment(1), u64::MAX - 3, Bytes::from_static(b"too far")).await;
    assert!(cache.read(segment(1), u64::MAX, usize::MAX).await.is_none());
    check(&disk, &cache).await;
}

#[tokio::test]
async fn a_keep_that_is_given_up_pins_nothing() {
    let disk = MemoryDisk::new();
    let slow: Arc<dyn Disk> = Arc::new(SlowDisk(disk.clone()));
    let cache = DiskCache::open(slow, &Settings { disk_bytes_max: 200, ..Settings::default() }).await.expect("empty");
    for number in 0..20 {
        let keeping = keep(&cache, number, 0, 100);
        tokio::pin!(keeping);
        let _ = futures::poll!(&mut keeping);
    }
    assert!(cache.lock().segments.values().all(|kept| kept.writing == 0));
    for number in 100..120 {
        keep(&cache, number, 0, 100).await;
    }
    assert_eq!(cache.bytes(), 200);
    assert!(has(&cache, 119, 0, 100).await);
}

#[tokio::test]
async fn what_cannot_be_removed_now_is_removed_later() {
    let disk = StubbornDisk::default();
    let settings = Settings { disk_bytes_max: 300, ..Settings::default() };
    let cache = DiskCache::open(Arc::new(disk.clone()), &settings).await.expect("it is empty");
    adopt(&disk, &cache, 1, 200).await;
    disk.refuse(true);
    // Released, too large to keep, evicted, dropped: nobody knows these files any more.
    adopt(&disk, &cache, 2, 100).await;
    adopt(&disk, &cache, 3, 400).await;
    keep(&cache, 4, 0, 250).await;
    cache.drop_segment(segment(4)).await;
    assert_eq!(disk.list().await.expect("memory does not fail").len(), 4);
    disk.refuse(false);
    keep(&cache, 5, 0, 100).await;
    check(&disk.inner, &cache).await;
    assert!(has(&cache, 5, 0, 100).await);
}

#[tokio::test]
async fn a_cache_gives_way_as_far_as_it_must_and_keeps_nothing_meanwhile() {
    let disk = MemoryDisk::new();
    let slow: Arc<dyn Disk> = Arc::new(SlowDisk(disk.clone()));
    let cache = DiskCache::open(slow, &Settings { disk_bytes_max: 10_000, ..Settings::default() }).await;
    let cache = cache.expect("it is empty");
    for number in 0..10 {
        keep(&cache, number, 0, 100).await;
    }
    let ((), freed) = tokio::join!(keep(&cache, 20, 0, 100), cache.give_way(250));
    assert_eq!(freed, 300);
    assert!(has(&cache, 3, 0, 100).await && !has(&cache, 2, 0, 100).await, "the oldest went");
    // While the only copy is being written it is waited for.
    cache.give_way(u64::MAX).await;
    assert_eq!(cache.bytes(), 0);
    let ((), freed) = tokio::join!(keep(&cache, 21, 0, 100), cache.give_way(1));
    assert_eq!((freed, cache.bytes()), (100, 0));
    assert_eq!(cache.give_way(1).await, 0, "nothing is left");
    let (freed, ()) = tokio::join!(cache.give_way(1), keep(&cache, 22, 0, 100));
    assert_eq!(freed, 0);
    check(&disk, &cache).await;
}

#[derive(Clone, Debug)]
enum Action {
    Keep { number: u64, at: u64, len: usize },
    Adopt { number: u64 },
    Read { number: u64, at: u64, len: usize },
    Drop { number: u64 },
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0u64..4, 0u64..150, 1usize..50).prop_map(|(number, at, len)| Action::Keep { number, at, len }),
        2 => (0u64..4).prop_map(|number| Action::Adopt { number }),
        3 => (0u64..4, 0u64..150, 1usize..50).prop_map(|(number, at, len)| Action::Read { number, at, len }),
        2 => (0u64..4).prop_map(|number| Action::Drop { number }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1024, ..ProptestConfig::default() })]

    /// However keeps, adoptions, drops, evictions and reads run through each other: no read is wrong, no file is left
    /// behind, and none that is accounted for is missing.
    #[test]
    fn what_runs_at_the_same_time_leaves_the_cache_right(
        rounds in prop::collection::vec(prop::collection::vec(action(), 1..12), 1..6),
        bytes_max in prop_oneof![Just(250u64), Just(600), Just(10_000)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let disk = MemoryDisk::new();
            let slow = SlowDisk(disk.clone());
            let settings = Settings { disk_bytes_max: bytes_max, ..Settings::default() };
            let cache = DiskCache::open(Arc::new(slow.clone()), &settings).await.expect("it is empty");
            let (cache, slow, files) = (&cache, &slow, &std::cell::Cell::new(0));
            for round in rounds {
                let actions = round.into_iter().map(|action| async move {
                    match action {
                        Action::Keep { number, at, len } => keep(cache, number, at, len).await,
                        Action::Adopt { number } => {
                            files.set(files.get() + 1);
                            let file = format!("{}.seg", files.get());
                            slow.write(&file, 0, vec![content(segment(number), 0, 200)]).await.expect("there is room");
                            cache.adopt(segment(number), &file, 200).await;
                        }
                        Action::Read { number, at, len } => drop(has(cache, number, at, len).await),
                        Action::Drop { number } => cache.drop_segment(segment(number)).await,
                    }
                });
                join_all(actions).await;
                check(&disk, cache).await;
            }
        });
    }

    #[test]
    fn ranges_merge_as_sets_of_bytes_do(added in prop::collection::vec((0u64..80, 1u64..20), 1..20)) {
        let (mut ranges, mut model) = (BTreeMap::new(), [false; 100]);
        for (at, len) in added {
            let new = (at..at + len).filter(|at| !model[*at as usize]).count() as u64;
            prop_assert_eq!(insert_range(&mut ranges, at, at + len), new);
            model[at as usize..(at + len) as usize].fill(true);
            for from in 0..100u64 {
                for to in from + 1..=100 {
                    prop_assert_eq!(covers(&ranges, from, to), (from..to).all(|at| model[at as usize]));
                }
            }
            let ends: Vec<_> = ranges.iter().collect();
            prop_assert!(ends.windows(2).all(|pair| pair[0].1 < pair[1].0), "touching ranges are one");
        }
    }

    /// The frames in memory are the newest used ones that fit.
    #[test]
    fn frames_are_kept_by_their_last_use(uses in prop::collection::vec((0u32..12, 1usize..400, any::<bool>()), 1..60)) {
        let (cache, mut model) = (FrameCache::new(2000), Vec::<(u32, usize)>::new());
        for (at, len, look) in uses {
            let known = model.iter().position(|(known, _)| *known == at);
            if look {
                let found = cache.get(segment(1), at);
                prop_assert_eq!(found.map(|data| data.len()), known.map(|known| model[known].1));
                if let Some(known) = known {
                    let used = model.remove(known);
                    model.push(used);
                }
            } else {
                cache.insert(segment(1), at, Bytes::from(vec![0; len]));
                if let Some(known) = known {
                    model.remove(known);
                }
                model.push((at, len));
                while model.iter().map(|(_, len)| len + 256).sum::<usize>() > 2000 {
                    model.remove(0);
                }
            }
            prop_assert_eq!(cache.bytes(), model.iter().map(|(_, len)| *len as u64 + 256).sum::<u64>());
        }
    }
}
