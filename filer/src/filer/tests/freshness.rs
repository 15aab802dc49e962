//! How new what clients see is, where settings allow less than the newest.

use super::{
    files::noise,
    outcomes::follower_and_leader,
    world::{World, settings},
};
use crate::{
    filer::{Settings, Steps, tests::client::user},
    fs::{FileSystem, FsError},
    vfs::{self, WithoutMajority},
};
use mesh::kv::{Batch, Durability, Kv, KvError, KvRead, Pair, Range, Table};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use storage::cloudfs::ROOT;
use tokio::time::{Instant, sleep};

fn read_only() -> Settings {
    let vfs = vfs::Settings { without_majority: WithoutMajority::ReadOnly, ..settings().vfs };
    // So long that a look which waited for it would be noticed.
    Settings { vfs, steps: Steps { operation_ms_max: 600_000, ..settings().steps }, ..settings() }
}

#[test]
fn read_only_without_a_majority_answers_at_once_and_says_that_it_may_be_old() {
    World::run_with(3, read_only(), async |world| {
        let file = world.site(0).client().store("a", noise(1, 100)).await;
        world.settled().await;
        let (here, there) = follower_and_leader(world);
        world.site(here).client().getattr(file).await.expect("it is there");
        assert!(!world.site(here).filer().vfs.freshness().may_be_old);
        world.cut_off(here);
        let begun = Instant::now();
        assert_eq!(world.site(here).client().lookup(ROOT, "a").await.map(|attr| attr.handle), Ok(file));
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?} until it knew", begun.elapsed());
        let begun = Instant::now();
        for _ in 0..100 {
            world.site(here).client().getattr(file).await.expect("what is here is served");
        }
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?} for 100 looks", begun.elapsed());
        let freshness = world.site(here).filer().vfs.freshness();
        assert!(freshness.may_be_old && freshness.old_answers >= 100 && freshness.confirmed_ms_ago.is_some());
        world.site(there).client().remove(ROOT, "a").await.expect("a removal");
        world.network.heal();
        world.site(here).filer().consensus.majority_found().await;
        assert_eq!(world.site(here).client().lookup(ROOT, "a").await, Err(FsError::NoEntry));
        assert!(!world.site(here).filer().vfs.freshness().may_be_old);
    });
}

/// Its leader sounds alive, but the two are cut off from the others, who go on.
#[test]
fn stale_reads_are_not_older_than_they_state_however_alive_the_leader_sounds() {
    let vfs = vfs::Settings { stale_ms_max: Some(2_000), ..settings().vfs };
    World::run_with(5, Settings { vfs, ..settings() }, async |world| {
        world.site(0).client().store("old", noise(1, 100)).await;
        world.settled().await;
        let (here, leader) = follower_and_leader(world);
        world.site(here).client().lookup(ROOT, "old").await.expect("it is there");
        let others: Vec<_> = (0..5).filter(|site| ![here, leader].contains(site)).collect();
        for other in &others {
            for cut in [here, leader] {
                world.network.cut(world.site(*other).id, world.site(cut).id);
            }
        }
        let elsewhere = others[0];
        world
            .until("the others have a leader", |world| {
                let known = world.site(elsewhere).filer().consensus.status().leader;
                known.is_some_and(|leader| others.iter().any(|other| world.site(*other).id == leader))
            })
            .await;
        world.site(elsewhere).client().rename((ROOT, "old"), (ROOT, "new")).await.expect("most are there");
        sleep(Duration::from_secs(3)).await;
        let look = world.site(here).client().lookup(ROOT, "old").await;
        assert!(matches!(look, Err(FsError::Later(_))), "{look:?} is of more than 2 s ago");
        world.network.heal();
        world.site(here).filer().consensus.majority_found().await;
        assert_eq!(world.site(here).client().lookup(ROOT, "old").await, Err(FsError::NoEntry));
    });
}

#[test]
fn stale_reads_within_their_age_ask_nobody() {
    let vfs = vfs::Settings { stale_ms_max: Some(60_000), ..settings().vfs };
    World::run_with(3, Settings { vfs, ..settings() }, async |world| {
        let file = world.site(0).client().store("a", noise(1, 100)).await;
        let (here, _) = follower_and_leader(world);
        world.site(here).client().lookup(ROOT, "a").await.expect("it is there");
        world.cut_off(here);
        sleep(Duration::from_secs(30)).await;
        assert_eq!(world.site(here).client().getattr(file).await.map(|attr| attr.handle), Ok(file));
        sleep(Duration::from_secs(31)).await;
        assert!(matches!(world.site(here).client().getattr(file).await, Err(FsError::Later(_))));
    });
}

/// Tables that change after so many reads.
struct Changing {
    before: Arc<dyn KvRead>,
    after: Arc<dyn Kv>,
    reads_left: AtomicUsize,
}

impl Changing {
    fn now(&self) -> &dyn KvRead {
        let left = self.reads_left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        if left.is_ok() { &*self.before } else { &*self.after }
    }
}

impl KvRead for Changing {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<bytes::Bytes>, KvError> {
        self.now().get(table, key)
    }

    fn scan(&self, table: Table, range: Range<'_>, limit: usize, backwards: bool) -> Result<Vec<Pair>, KvError> {
        self.now().scan(table, range, limit, backwards)
    }
}

#[async_trait::async_trait]
impl Kv for Changing {
    async fn write(&self, batch: Batch, durability: Durability) -> Result<(), KvError> {
        self.after.write(batch, durability).await
    }

    fn view(&self) -> Arc<dyn KvRead> {
        self.after.view()
    }
}

#[test]
fn a_name_that_changes_between_two_looks_is_found_or_not_there_but_never_stale() {
    World::run(1, async |world| {
        let client = world.site(0).client();
        let (dir, other) =
            (client.mkdir(ROOT, "dir").await.expect("new"), client.mkdir(ROOT, "other").await.expect("new"));
        let (gone, replaced) = (client.create("gone").await, client.create("replaced").await);
        let moved = client.mkdir(dir, "moved").await.expect("new");
        let new = client.create("new").await;
        let before = world.site(0).filer().world.kv.view();
        client.remove(ROOT, "gone").await.expect("a removal");
        client.rename((ROOT, "new"), (ROOT, "replaced")).await.expect("a rename");
        client.rename((dir, "moved"), (other, "moved")).await.expect("a rename");
        let rmdir = async |filer: crate::filer::Filer| filer.vfs.rmdir(&user(1000), ROOT, b"dir").await.map(drop);
        world.site(0).call(rmdir).await.expect("it is empty");
        for reads in 0..12 {
            let before = before.clone();
            let looks = async move |filer: crate::filer::Filer| {
                let look = async |dir, name: &'static str| {
                    let (before, after) = (before.clone(), filer.world.kv.clone());
                    let kv = Arc::new(Changing { before, after, reads_left: reads.into() });
                    let (staging, reader) = (filer.staging.clone(), filer.reader.clone());
                    let vfs = vfs::Vfs::new(filer.door.clone(), kv, staging, reader, vfs::Settings::default(), 1);
                    vfs.lookup(&user(1000), dir, name.as_bytes()).await.map(|attr| attr.handle)
                };
                [look(ROOT, "gone").await, look(ROOT, "replaced").await, look(moved, "..").await]
            };
            let [a, b, c] = world.site(0).call(looks).await;
            assert!([Ok(gone), Err(FsError::NoEntry)].contains(&a), "{a:?} after {reads} reads");
            assert!([Ok(replaced), Ok(new)].contains(&b), "{b:?} after {reads} reads");
            assert!([Ok(dir), Ok(other)].contains(&c), "{c:?} after {reads} reads");
        }
        let stale = world.site(0).client().lookup(dir, "moved").await;
        assert_eq!(stale, Err(FsError::Stale), "a directory that is gone is");
    });
}
