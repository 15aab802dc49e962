//! Clouds and links that fail and come back: counting, failover, the missed-write log, resync, failback.

use super::{
    clouds::Call,
    files::noise,
    world::{World, settings},
};
use crate::{
    filer::Settings,
    fs::{FsError, Stable},
};
use std::{collections::BTreeSet, sync::atomic::Ordering::Relaxed, time::Duration};
use storage::{
    cloudfs::{CloudState, ROOT, read},
    ids::{CloudId, SegmentId},
    staging,
};
use tokio::time::sleep;

/// Checks that both clouds hold the same, and each alone all that is written.
async fn each_cloud_alone_has_everything(world: &mut World, files: &[(&str, u64, usize)]) {
    assert_eq!(world.clouds[0].objects(), world.clouds[1].objects());
    let last = world.sites.len() - 1;
    for missing in 0..2 {
        // A site without any copy of its own.
        world.crash(last).await;
        let files_on_disk = world.site(last).disk.clone();
        for file in storage::disk::Disk::list(&files_on_disk).await.expect("memory does not fail") {
            storage::disk::Disk::remove(&files_on_disk, &file.name).await.expect("memory does not fail");
        }
        world.start(last).await;
        world.until("it has caught up", |world| world.site(last).filer().consensus.status().leader.is_some()).await;
        world.clouds[missing].refuse(Call::Get, true);
        for (name, number, bytes) in files {
            let client = world.site(last).client();
            let file = client.lookup(ROOT, name).await.expect("it is there").handle;
            assert_eq!(client.read_all(file).await, Ok(noise(*number, *bytes)), "{name} without cloud {missing}");
        }
        world.clouds[missing].refuse(Call::Get, false);
        world.healthy().await;
    }
}

#[test]
fn the_active_cloud_fails_and_returns() {
    World::run(3, async |world| {
        let old = world.site(0).client().store("old", noise(1, 5000)).await;
        world.site(0).client().store("gone", noise(2, 5000)).await;
        world.settled().await;
        let before: BTreeSet<_> = world.clouds[0].objects().into_keys().collect();
        world.clouds[0].set_down(true);
        world.site(1).client().store("first", noise(3, 5000)).await;
        world.until("cloud b is active", |world| world.site(2).roles().is_some_and(|r| r.active == CloudId::B)).await;
        let first: Vec<_> = world.clouds[1].objects().into_keys().filter(|key| !before.contains(key)).collect();
        assert_eq!(first.len(), 1);
        assert_eq!(world.clouds[0].attempts(Call::Put).get(&first[0]), Some(&160), "no more, no fewer");
        // The outage goes on: make, write over, remove. No client notices.
        world.site(0).client().write(old, 1000, noise(4, 1000)).await;
        world.site(0).client().commit(old).await;
        world.site(2).client().remove(ROOT, "gone").await.expect("a removal");
        world.site(2).client().store("gone", noise(5, 700)).await;
        world.settled().await;
        let missing = world.clouds[1].objects().len() - world.clouds[0].objects().len();
        let roles = world.site(0).roles().expect("they are known");
        assert_eq!(roles.cloud(CloudId::A).missed_puts, missing as u64);
        assert!(missing >= 3);
        let reads = world.clouds[0].attempts(Call::Get);
        assert_eq!(world.site(0).client().read_all(old).await.map(|data| data.slice(1000..2000)), Ok(noise(4, 1000)));
        assert_eq!(world.clouds[0].attempts(Call::Get), reads, "a failed cloud is not asked");
        let puts = world.clouds[0].attempts(Call::Put);
        let tried = |key: &str| puts.get(key).copied().unwrap_or(0);
        assert!(world.clouds[1].objects().keys().all(|key| before.contains(key) || tried(key) <= 160));
        sleep(Duration::from_secs(600)).await;
        world.clouds[0].set_down(false);
        world.healthy().await;
        each_cloud_alone_has_everything(world, &[("first", 3, 5000), ("gone", 5, 700)]).await;
        let texts = read::decisions(&world.site(0).kv, 100).expect("memory does not fail");
        assert!(texts.iter().all(|decision| decision.carried));
    });
}

#[test]
fn failures_below_the_limit_or_on_two_pieces_move_nothing() {
    World::run(2, async |world| {
        world.clouds[0].refuse(Call::Put, true);
        world.site(0).client().store("a", noise(1, 1000)).await;
        world.site(1).client().store("b", noise(2, 1000)).await;
        world
            .until("many attempts were made", |world| world.clouds[0].attempts(Call::Put).values().any(|n| *n == 159))
            .await;
        world.clouds[0].refuse(Call::Put, false);
        world.settled().await;
        let roles = world.site(0).roles().expect("they are known");
        assert_eq!((roles.epoch.0, roles.active), (1, CloudId::A));
        assert!(world.clouds[0].attempts(Call::Put).values().all(|attempts| *attempts <= 160));
    });
}

#[test]
fn a_standby_that_fails_changes_no_role_and_holds_nothing_up() {
    World::run(2, async |world| {
        world.clouds[1].set_down(true);
        world.site(0).client().store("a", noise(1, 1000)).await;
        world.settled().await;
        let roles = world.site(1).roles().expect("they are known");
        assert_eq!((roles.active, roles.cloud(CloudId::B).state), (CloudId::A, CloudState::Failed));
        assert_eq!(roles.cloud(CloudId::B).missed_puts, 1);
        world.clouds[1].set_down(false);
        world.healthy().await;
        each_cloud_alone_has_everything(world, &[("a", 1, 1000)]).await;
    });
}

fn both_clouds_fail_and_return(first_back: usize) {
    World::run(3, async |world| {
        let cached = world.site(0).client().store("cached", noise(1, 5000)).await;
        world.settled().await;
        world.clouds.iter().for_each(|cloud| cloud.set_down(true));
        let new = world.site(0).client().store("new", noise(2, 5000)).await;
        world
            .until("one is failed", |world| {
                let roles = world.site(1).roles().expect("they are known");
                CloudId::BOTH.into_iter().any(|cloud| roles.cloud(cloud).state == CloudState::Failed)
            })
            .await;
        sleep(Duration::from_secs(1200)).await;
        // An island: what is here is served, what is written stays.
        let later = world.site(1).client().store("later", noise(3, 5000)).await;
        assert_eq!(world.site(0).client().read_all(cached).await, Ok(noise(1, 5000)));
        for site in &world.sites {
            assert_eq!(site.client().read_all(new).await, Ok(noise(2, 5000)), "from its filer");
            assert_eq!(site.client().read_all(later).await, Ok(noise(3, 5000)), "from its filer");
        }
        assert!(world.site(0).filer().staging.status().bytes > 5000);
        world.clouds[first_back].set_down(false);
        sleep(Duration::from_secs(120)).await;
        world.clouds[1 - first_back].set_down(false);
        world.settled().await;
        world.healthy().await;
        let files = [("cached", 1, 5000), ("new", 2, 5000), ("later", 3, 5000)];
        each_cloud_alone_has_everything(world, &files).await;
    });
}

#[test]
fn both_clouds_fail_and_the_preferred_one_returns_first() {
    both_clouds_fail_and_return(0);
}

#[test]
fn both_clouds_fail_and_the_other_one_returns_first() {
    both_clouds_fail_and_return(1);
}

#[test]
fn a_flipped_bit_or_a_lost_object_is_noticed_counted_and_repaired() {
    World::run(2, async |world| {
        let file = world.site(0).client().store("a", noise(1, 3000)).await;
        world.settled().await;
        let keys: Vec<_> = world.clouds[0].objects().into_keys().collect();
        world.clouds[0].damage(&keys[0]);
        assert_eq!(world.site(1).client().read_all(file).await, Ok(noise(1, 3000)));
        let stats = &world.site(1).filer().reader.stats;
        assert!(stats.fallback_reads.load(Relaxed) > 0);
        assert!(!world.clouds[1].attempts(Call::Get).is_empty(), "from the standby");
        let repaired =
            |wanted| move |world: &World| world.site(1).filer().reader.stats.repaired.load(Relaxed) == wanted;
        world.until("the object is put again", repaired(1)).await;
        // The next reader of the active cloud gets it right at once.
        let segment = SegmentId::from_key(&keys[0]).expect("a segment's name");
        world.site(0).filer().disk_cache.drop_segment(segment).await;
        let fallbacks = || world.site(0).filer().reader.stats.fallback_reads.load(Relaxed);
        assert_eq!((world.site(0).client().read_all(file).await, fallbacks()), (Ok(noise(1, 3000)), 0));
        let other = world.site(0).client().store("b", noise(2, 3000)).await;
        world.settled().await;
        let lost = world.clouds[0].objects().into_keys().find(|key| !keys.contains(key)).expect("a new object");
        world.clouds[0].lose(&lost);
        assert_eq!(world.site(1).client().read_all(other).await, Ok(noise(2, 3000)));
        world.until("the object is put again", repaired(2)).await;
        assert_eq!(world.clouds[0].objects(), world.clouds[1].objects());
        sleep(Duration::from_secs(300)).await;
        assert_eq!(world.site(0).roles().expect("they are known").epoch.0, 1, "one bad object moves no CloudFS");
    });
}

/// A cloud that damages what it sends may damage what it is given: a right copy must not be put again. (Found by a seed.)
#[test]
fn a_copy_whose_reads_are_damaged_on_their_way_is_not_put_again() {
    World::run(2, async |world| {
        let file = world.site(0).client().store("a", noise(1, 3000)).await;
        world.settled().await;
        let key = world.clouds[0].objects().into_keys().next().expect("its segment");
        world.clouds[0].damage_on_the_way(&key, 40);
        let puts = world.clouds[0].attempts(Call::Put).get(&key).copied();
        assert_eq!(world.site(1).client().read_all(file).await, Ok(noise(1, 3000)));
        let stats = &world.site(1).filer().reader.stats;
        assert!(stats.fallback_reads.load(Relaxed) > 0);
        sleep(Duration::from_secs(300)).await;
        assert!(world.clouds[0].attempts(Call::Get)[&key] > 40, "it is asked until it is right");
        assert_eq!(world.clouds[0].attempts(Call::Put).get(&key).copied(), puts);
        assert_eq!(stats.repaired.load(Relaxed), 0);
    });
}

#[test]
fn what_only_a_dead_filer_has_comes_later_and_is_right_when_it_is_back() {
    World::run(3, async |world| {
        world.clouds.iter().for_each(|cloud| cloud.refuse(Call::Put, true));
        let file = world.site(0).client().store("a", noise(1, 3000)).await;
        world.crash(0).await;
        let read = world.site(1).client().read_all(file).await;
        assert!(matches!(read, Err(FsError::Later(_))), "{read:?}");
        world.start(0).await;
        assert_eq!(world.site(1).client().read_all(file).await, Ok(noise(1, 3000)));
        world.clouds.iter().for_each(|cloud| cloud.refuse(Call::Put, false));
        world.settled().await;
        each_cloud_alone_has_everything(world, &[("a", 1, 3000)]).await;
    });
}

#[test]
fn a_full_staging_makes_writers_wait_and_loses_nothing() {
    let staging = staging::Settings { bytes_max: 100_000, ..settings().staging };
    World::run_with(2, Settings { staging, ..settings() }, async |world| {
        world.clouds.iter().for_each(|cloud| cloud.set_down(true));
        let file = world.site(0).client().create("a").await;
        let mut stored = 0;
        let refused = loop {
            let data = noise(stored, 10_000);
            let write = world.site(0).client().write_as(file, stored * 10_000, data, Stable::FileSync).await;
            match write {
                Ok(()) => stored += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, FsError::Later(_)), "{refused:?}");
        assert!((8..10).contains(&stored), "{stored} pieces fit");
        assert!(world.site(0).filer().staging.status().bytes < 110_000);
        world.clouds.iter().for_each(|cloud| cloud.set_down(false));
        world
            .site(0)
            .client()
            .write_as(file, stored * 10_000, noise(stored, 10_000), Stable::FileSync)
            .await
            .expect("room");
        world.healthy().await;
        world.settled().await;
        for piece in 0..=stored {
            let read = world.site(1).client().read(file, piece * 10_000, 10_000).await;
            assert_eq!(read, Ok(noise(piece, 10_000)));
        }
    });
}

#[test]
fn a_filer_that_is_cut_off_moves_nothing_and_catches_up() {
    World::run(3, async |world| {
        let known = world.site(2).client().store("known", noise(1, 3000)).await;
        world.settled().await;
        let file = world.site(2).client().create("a").await;
        world.cut_off(2);
        world.clouds[0].set_down(true);
        world.site(2).client().write(file, 0, noise(2, 3000)).await;
        assert!(matches!(world.site(2).client().try_commit(file).await, Err(FsError::Later(_))));
        // Its own word is not enough; the others have nothing to complain of, as they do nothing.
        sleep(Duration::from_secs(600)).await;
        assert_eq!(world.site(0).roles().expect("they are known").epoch.0, 1);
        assert_eq!(world.site(2).client().read(known, 0, 3000).await, Ok(noise(1, 3000)), "what it has it serves");
        assert_eq!(world.site(2).client().read(file, 0, 3000).await, Ok(noise(2, 3000)));
        world.clouds[0].set_down(false);
        world.network.heal();
        world.site(2).client().commit(file).await;
        assert_eq!(world.site(0).client().read_all(file).await, Ok(noise(2, 3000)));
        world.settled().await;
        world.healthy().await;
        each_cloud_alone_has_everything(world, &[("known", 1, 3000), ("a", 2, 3000)]).await;
    });
}
