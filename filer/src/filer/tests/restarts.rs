//! Power cuts: whatever was acknowledged is there when the filer is back.

use super::{
    client::user,
    clouds::Call,
    files::noise,
    world::{World, settings},
};
use crate::{
    filer::Settings,
    fs::{CreateHow, FileSystem, SetAttr, Stable},
};
use bytes::Bytes;
use mesh::clock::{Random, SeededRandom};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed, time::Duration};
use storage::{
    cloudfs::{Handle, ROOT},
    disk::Disk,
};
use tokio::time::sleep;

#[test]
fn a_filer_that_loses_power_in_the_middle_has_what_it_acknowledged() {
    for cut_ms in [0u64, 1, 3, 7, 20, 60, 200, 700, 1100, 1500] {
        let staging = settings().staging.with_segments(6000);
        World::run_with(1, Settings { staging, ..settings() }, async |world| {
            let file = world.site(0).client().create("a").await;
            let (noted, mut committed) = tokio::sync::mpsc::unbounded_channel();
            drop(world.site(0).begin(async move |filer| {
                for round in 0u64.. {
                    let data = noise(round, 1000);
                    filer.vfs.write(&user(1000), file, round * 1000, data, Stable::Unstable).await.expect("a write");
                    if round % 4 == 3 {
                        filer.vfs.commit(&user(1000), file).await.expect("a commit");
                        let _ = noted.send(round);
                    }
                    sleep(Duration::from_millis(round % 5)).await;
                }
            }));
            sleep(Duration::from_millis(cut_ms)).await;
            let verifier = world.site(0).filer().vfs.write_verifier();
            world.restart(0).await;
            assert_ne!(world.site(0).filer().vfs.write_verifier(), verifier, "clients send again what was unstable");
            let mut last = None;
            while let Ok(round) = committed.try_recv() {
                last = Some(round);
            }
            for round in (0..=last.unwrap_or(0)).filter(|_| last.is_some()) {
                let read = world.site(0).client().read(file, round * 1000, 1000).await;
                assert_eq!(read, Ok(noise(round, 1000)), "round {round} of {last:?}, cut after {cut_ms} ms");
            }
            world.settled().await;
            assert_eq!(world.clouds[0].objects(), world.clouds[1].objects());
        });
    }
}

/// A power cut takes from a filer's tables what was not synced, though its clients were told of it. Here the tables miss
/// what was written while the filer was down, which is no different.
#[test]
fn the_first_calls_after_a_start_see_what_was_acknowledged_before_it() {
    World::run(3, async |world| {
        let file = world.site(0).client().store("a", noise(1, 3000)).await;
        world.settled().await;
        world.crash(1).await;
        world.site(0).client().write(file, 1000, noise(2, 1000)).await;
        world.site(0).client().commit(file).await;
        world.start(1).await;
        let read = world.site(1).client().read(file, 1000, 1000).await;
        assert_eq!(read, Ok(noise(2, 1000)), "by a client that has the file open still");
        world.crash(1).await;
        let new = world.site(0).client().store("b", noise(3, 10)).await;
        world.start(1).await;
        assert_eq!(world.site(1).client().try_commit(new).await, Ok(()));
    });
}

#[test]
fn recovered_segments_are_put_or_adopted_and_the_cache_lasts() {
    World::run(1, async |world| {
        let file = world.site(0).client().store("a", noise(1, 100_000)).await;
        world.settled().await;
        let puts = world.clouds[0].attempts(Call::Put);
        world.restart(0).await;
        world.settled().await;
        assert_eq!(world.clouds[0].attempts(Call::Put), puts, "what is on record as stored is not put again");
        world.until("it is in the cache", |world| world.site(0).filer().disk_cache.bytes() > 100_000).await;
        assert_eq!(world.site(0).client().read_all(file).await, Ok(noise(1, 100_000)));
        assert!(world.clouds[0].attempts(Call::Get).is_empty());
        world.clouds.iter().for_each(|cloud| cloud.refuse(Call::Put, true));
        let file = world.site(0).client().store("b", noise(2, 10_000)).await;
        world.restart(0).await;
        assert_eq!(world.site(0).client().read_all(file).await, Ok(noise(2, 10_000)), "from staging");
        world.clouds.iter().for_each(|cloud| cloud.refuse(Call::Put, false));
        world.settled().await;
        assert_eq!(world.site(0).client().read_all(file).await, Ok(noise(2, 10_000)));
    });
}

#[test]
fn a_copy_that_the_disk_has_damaged_is_not_believed_and_harms_no_cloud() {
    World::run(1, async |world| {
        let file = world.site(0).client().store("a", noise(1, 5000)).await;
        world.settled().await;
        let objects = world.clouds[0].objects();
        world.crash(0).await;
        let disk = world.site(0).disk.clone();
        let kept = disk.list().await.expect("memory does not fail");
        assert_eq!(kept.len(), 1);
        assert!(kept[0].name.ends_with(".seg"), "its move to the cache did not last");
        disk.write(&kept[0].name, 2000, vec![Bytes::from_static(b"rotten")]).await.expect("there is room");
        disk.sync(&kept[0].name).await.expect("memory does not fail");
        world.start(0).await;
        world.settled().await;
        assert_eq!(world.clouds[0].objects(), objects);
        assert_eq!(world.site(0).client().read_all(file).await, Ok(noise(1, 5000)), "from the cloud");
        // The same in the cache: noticed at the read, and fetched again.
        let kept = disk.list().await.expect("memory does not fail").remove(0);
        disk.write(&kept.name, 500, vec![Bytes::from_static(b"rotten")]).await.expect("there is room");
        world.restart(0).await;
        assert_eq!(world.site(0).client().read_all(file).await, Ok(noise(1, 5000)));
        assert_eq!(world.site(0).filer().reader.stats.repaired.load(Relaxed), 0);
    });
}

/// The same filer with new tables (of a new CloudFS, at worst) uses no name of its old segments again.
#[test]
fn lost_tables_overwrite_no_object() {
    World::run(1, async |world| {
        world.site(0).client().store("a", noise(1, 5000)).await;
        world.settled().await;
        let before = world.clouds[0].objects();
        world.crash(0).await;
        (world.sites[0].kv, world.sites[0].disk) = Default::default();
        sleep(Duration::from_secs(2)).await;
        world.start(0).await;
        world.until("it serves", |world| world.site(0).roles().is_some()).await;
        world.site(0).client().store("b", noise(2, 5000)).await;
        world.settled().await;
        let after = world.clouds[0].objects();
        assert_eq!(after.len(), before.len() + 1);
        assert!(before.iter().all(|(key, body)| after.get(key) == Some(body)), "an old object was written over");
    });
}

/// Everything fails at random for a while, and clients write whole files; then all is healed.
async fn storm(world: &mut World, seed: u64) {
    let random = SeededRandom::new(seed);
    let below = |bound: u64| random.next_u64() % bound;
    let mut acknowledged: BTreeMap<String, (u64, usize)> = BTreeMap::new();
    let mut pending = Vec::new();
    let mut down = [false; 3];
    for step in 0..40u64 {
        let site = below(3) as usize;
        match below(12) {
            0 if !down[site] => {
                world.crash(site).await;
                down[site] = true;
            }
            1 | 2 if down[site] => {
                world.start(site).await;
                down[site] = false;
            }
            3 => world.clouds[below(2) as usize].set_down(true),
            4 => world.clouds[below(2) as usize].set_down(false),
            5 => world.cut_off(site),
            6 => world.network.heal(),
            _ if !down[site] => {
                let (name, bytes) = (format!("f{step}"), 1 + below(20_000) as usize);
                let own = name.clone();
                let stored = world.site(site).begin(async move |filer| {
                    let (vfs, caller, set) = (&filer.vfs, user(1000), SetAttr::default());
                    let made = vfs.create(&caller, ROOT, own.as_bytes(), set, CreateHow::Unchecked).await.ok()?;
                    let file: Handle = made.attr.handle;
                    vfs.write(&caller, file, 0, noise(step, bytes), Stable::Unstable).await.ok()?;
                    vfs.commit(&caller, file).await.ok()
                });
                pending.push((name, step, bytes, stored));
            }
            _ => {}
        }
        sleep(Duration::from_millis(below(4000))).await;
        pending.retain_mut(|(name, number, bytes, stored)| match stored.try_recv() {
            Ok(Some(_)) => {
                acknowledged.insert(name.clone(), (*number, *bytes));
                false
            }
            Err(tokio::sync::oneshot::error::TryRecvError::Empty) => true,
            Ok(None) | Err(_) => false,
        });
    }
    world.network.heal();
    world.clouds.iter().for_each(|cloud| cloud.set_down(false));
    for (site, down) in down.into_iter().enumerate() {
        if down {
            world.start(site).await;
        }
    }
    world.settled().await;
    world.healthy().await;
    world.settled().await;
    world.until("the clouds hold the same", |world| world.clouds[0].objects() == world.clouds[1].objects()).await;
    for (name, (number, bytes)) in &acknowledged {
        for site in &world.sites {
            let file = site.client().lookup(ROOT, name).await.expect("it was acknowledged").handle;
            assert_eq!(site.client().read_all(file).await, Ok(noise(*number, *bytes)), "{name} at {}", site.id);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_outlives_any_storm(seed in any::<u64>()) {
        World::run(3, async |world| storm(world, seed).await);
    }
}
