//! Scene 7: an error that nobody has seen before, at every call that a cloud gets. It is retried, shown, and nothing that
//! it hit is ever skipped.

use super::{
    clouds::{Call, SILENT_MS, Trouble},
    files::noise,
    world::{World, settings},
};
use crate::{
    actors::{health::Views, resync::Deletes},
    filer::{Filer, Settings},
};
use std::{sync::atomic::Ordering::Relaxed, time::Duration};
use storage::{
    backoff::Backoff,
    cloudfs::{CloudState, Copy, Limits, ROOT, Totals, read},
    ids::{CloudId, SegmentId},
    resync,
};
use tokio::time::{Instant, sleep};

const TEAPOT: &str = "418 I'm a teapot";

async fn shown(world: &World, site: usize) -> [(u64, Option<String>); 2] {
    let views = world.site(site).call(async |filer: Filer| filer.actors.health.send(Views).await).await;
    views.expect("it runs").map(|cloud| (cloud.failures_total, cloud.last_failure))
}

fn says_teapot(last: &Option<String>) -> bool {
    last.as_ref().is_some_and(|last| last.contains(TEAPOT))
}

fn quick_sweep() -> Settings {
    let attempt_backoff = Backoff { ms_min: 1_000, ms_max: 5_000 };
    let sweep = resync::sweep::Settings { grace_ms: 1_000, attempt_backoff, ..settings().sweep };
    Settings { sweep, ..settings() }
}

#[test]
fn the_mirror_tries_a_put_again_until_it_has_its_receipt() {
    for cloud in 0..2 {
        World::run(2, async |world| {
            world.clouds[cloud].answer(Call::Put, Some(TEAPOT));
            let file = world.site(0).client().store("a", noise(1, 5000)).await;
            sleep(Duration::from_secs(30)).await;
            let (failures, last) = shown(world, 0).await[cloud].clone();
            assert!(failures >= 20 && says_teapot(&last), "{failures} failures, the last {last:?}");
            assert!(world.site(0).filer().staging.status().bytes >= 5000, "nothing is released");
            world.clouds[cloud].answer(Call::Put, None);
            world.settled().await;
            assert_eq!(world.clouds[0].objects(), world.clouds[1].objects());
            assert_eq!(world.clouds[0].objects().len(), 1);
            assert_eq!(world.site(1).client().read_all(file).await, Ok(noise(1, 5000)));
            assert_eq!(world.site(0).roles().expect("they are known").epoch.0, 1);
        });
    }
}

#[test]
fn a_read_is_taken_from_the_other_cloud_and_the_first_is_asked_on() {
    World::run(2, async |world| {
        let file = world.site(0).client().store("a", noise(1, 50_000)).await;
        world.settled().await;
        world.clouds[0].answer(Call::Get, Some(TEAPOT));
        assert_eq!(world.site(1).client().read_all(file).await, Ok(noise(1, 50_000)));
        assert!(world.site(1).filer().reader.stats.fallback_reads.load(Relaxed) > 0);
        sleep(Duration::from_secs(30)).await;
        let (failures, last) = shown(world, 1).await[0].clone();
        assert!(failures >= 20 && says_teapot(&last), "{failures} failures, the last {last:?}");
        world.clouds[0].answer(Call::Get, None);
        sleep(Duration::from_secs(10)).await;
        let reads: u64 = world.clouds[0].attempts(Call::Get).values().sum();
        sleep(Duration::from_secs(600)).await;
        assert_eq!(world.clouds[0].attempts(Call::Get).values().sum::<u64>(), reads, "it answers: it is left alone");
        assert_eq!(world.site(0).roles().expect("they are known").epoch.0, 1);
    });
}

/// The cloud that is back answers with it to what the resync asks of it, then the other one does to the reads of it.
#[test]
fn the_resync_skips_no_row_and_ends_when_the_error_does() {
    for (cloud, call) in [(0, Call::Put), (1, Call::Get), (0, Call::Delete)] {
        World::run_with(2, quick_sweep(), async |world| {
            world.site(0).client().store("gone", noise(1, 5000)).await;
            world.settled().await;
            world.clouds[0].set_down(true);
            let new = world.site(0).client().store("new", noise(2, 5000)).await;
            world.until("cloud a has failed", |world| state(world) == CloudState::Failed).await;
            world.site(0).client().remove(ROOT, "gone").await.expect("a removal");
            world.settled().await;
            sleep(Duration::from_secs(10)).await;
            let missed = || read::missed(&world.site(0).kv, CloudId::A, None, 100).expect("memory does not fail");
            assert_eq!(missed().len(), 2, "a put and a delete");
            // The source must be read: nothing of it is at hand.
            let segment = *missed().iter().find(|miss| miss.kind == storage::cloudfs::MissKind::Put).expect("a put");
            world.site(0).filer().disk_cache.drop_segment(segment.segment).await;
            world.clouds[cloud].answer(call, Some(TEAPOT));
            world.clouds[0].set_down(false);
            world.until("it is resynced", |world| state(world) == CloudState::Resyncing || missed().len() == 1).await;
            sleep(Duration::from_secs(45)).await;
            assert_eq!(missed().len(), 1, "the other row is done, and this one is not skipped");
            let (failures, last) = shown(world, 0).await[cloud].clone();
            assert!(failures >= 5 && says_teapot(&last), "{failures} failures of {call:?}, the last {last:?}");
            assert_eq!(state(world), CloudState::Resyncing, "not healthy while anything is missed");
            world.clouds[cloud].answer(call, None);
            world.healthy().await;
            world.settled().await;
            assert_eq!(world.clouds[0].objects(), world.clouds[1].objects());
            assert_eq!(world.clouds[0].objects().len(), 1);
            assert_eq!(world.site(1).client().read_all(new).await, Ok(noise(2, 5000)));
        });
    }
}

fn state(world: &World) -> CloudState {
    world.site(0).roles().expect("they are known").cloud(CloudId::A).state
}

fn totals(world: &World) -> Totals {
    read::totals(&world.site(0).kv).expect("memory does not fail")
}

/// Stores a file in a segment of its own.
async fn store(world: &World, name: &str, number: u64) {
    world.site(0).client().store(name, noise(number, 3000)).await;
    world.settled().await;
}

async fn remove(world: &World, name: &str) {
    world.site(0).client().remove(ROOT, name).await.expect("a removal");
}

/// A bucket with a retention policy, or one whose delete permission was lost: what dies in an outage, and afterwards, is
/// kept by it, and must not keep it from being the CloudFS's second cloud.
#[test]
fn a_cloud_that_keeps_objects_by_a_policy_gets_healthy() {
    World::run_with(2, quick_sweep(), async |world| {
        let missed = |world: &World| {
            let roles = world.site(0).roles().expect("they are known");
            (roles.cloud(CloudId::A).missed_puts, roles.cloud(CloudId::A).missed_deletes)
        };
        for (number, name) in ["gone", "gone too", "gone later"].into_iter().enumerate() {
            store(world, name, number as u64).await;
        }
        world.clouds[0].trouble(Call::Delete, Some(Trouble::Denied));
        world.clouds[0].set_down(true);
        store(world, "new", 7).await;
        store(world, "brief", 8).await;
        assert_eq!(state(world), CloudState::Failed);
        remove(world, "gone").await;
        remove(world, "gone too").await;
        world.until("their deletes are on record", |world| missed(world) == (2, 2)).await;
        // It is back, and does not take the puts yet.
        world.clouds[0].answer(Call::Put, Some(TEAPOT));
        world.clouds[0].set_down(false);
        world.until("the deletes are settled", |world| missed(world) == (2, 0)).await;
        assert_eq!((state(world), totals(world).dead_segments), (CloudState::Resyncing, 2));
        // One that it has, and one that it has missed: neither makes a row that lasts.
        remove(world, "gone later").await;
        remove(world, "brief").await;
        sleep(Duration::from_secs(30)).await;
        assert_eq!((missed(world), totals(world).dead_segments), ((1, 0), 4));
        assert_eq!(state(world), CloudState::Resyncing, "the put of what is needed is missed");
        world.clouds[0].answer(Call::Put, None);
        world.healthy().await;
        world.settled().await;
        let epoch = world.site(0).roles().expect("they are known").epoch;
        let objects = world.clouds.each_ref().map(|cloud| cloud.objects().len());
        assert_eq!(objects, [4, 1], "what is kept, and what is needed");
        sleep(Duration::from_secs(1200)).await;
        assert_eq!(world.site(0).roles().expect("they are known").epoch, epoch, "it stays so");
        assert_eq!(totals(world).dead_segments, 4);
        let mut undeleted = Vec::new();
        for site in &world.sites {
            undeleted
                .push(site.call(async |filer: Filer| filer.actors.resync.send(Deletes).await).await.expect("it runs"));
        }
        let leaders: Vec<_> = undeleted.iter().filter(|undeleted| undeleted.segments > 0).collect();
        assert!(leaders.len() == 1 && leaders[0].segments == 4, "{undeleted:?}");
        assert!(leaders[0].why.as_ref().is_some_and(|why| why.contains("kept by a policy")), "{undeleted:?}");
        let most = world.clouds[0].attempts(Call::Delete).into_values().max().expect("it was tried");
        assert!(most < 60, "{most} attempts at one delete");
        // It may delete again.
        world.clouds[0].trouble(Call::Delete, None);
        world.until("what is dead is gone", |world| totals(world).dead_segments == 0).await;
        assert_eq!(world.clouds[0].objects(), world.clouds[1].objects());
        assert_eq!(world.clouds[0].objects().len(), 1);
    });
}

/// The end of a large file is taken away in steps, which wait for no cloud.
#[test]
fn deletes_that_hang_hold_up_no_reaping() {
    let operations = Limits { extents_per_op_max: 4, cuts_pending_max: 2 };
    World::run_with(2, Settings { operations, ..quick_sweep() }, async |world| {
        let file = world.site(0).client().create("large").await;
        for piece in 0..40 {
            world.site(0).client().write(file, 2_000 * piece, noise(piece, 1_000)).await;
        }
        world.site(0).client().commit(file).await;
        for (number, name) in ["gone", "gone too"].into_iter().enumerate() {
            store(world, name, number as u64).await;
        }
        world.clouds[0].trouble(Call::Delete, Some(Trouble::Silent));
        remove(world, "gone").await;
        remove(world, "gone too").await;
        world.until("a delete hangs", |world| !world.clouds[0].attempts(Call::Delete).is_empty()).await;
        let start = Instant::now();
        world.site(0).client().truncate(file, 0).await.expect("it is cut");
        assert_eq!(totals(world).orphans, 1, "it has too many extents for one step");
        world.until("they are all reaped", |world| totals(world).orphans == 0).await;
        assert!(start.elapsed() < Duration::from_millis(SILENT_MS / 2), "{:?}", start.elapsed());
        world.clouds[0].trouble(Call::Delete, None);
        world.until("what is dead is gone", |world| totals(world).dead_segments == 0).await;
    });
}

/// A cloud whose credentials have lost the permission to delete is whole. It neither trips nor flaps, and what is dead is
/// deleted when it can be.
#[test]
fn deletes_that_are_refused_trip_nothing_and_are_made_good() {
    World::run_with(2, quick_sweep(), async |world| {
        world.clouds[0].answer(Call::Delete, Some(TEAPOT));
        for number in 0..5 {
            world.site(0).client().store(&format!("gone-{number}"), noise(number, 3000)).await;
            world.settled().await;
        }
        for number in 0..5 {
            world.site(0).client().remove(ROOT, &format!("gone-{number}")).await.expect("a removal");
        }
        let file = world.site(0).client().store("a", noise(9, 3000)).await;
        sleep(Duration::from_secs(1200)).await;
        assert_eq!(world.site(0).roles().expect("they are known").epoch.0, 1, "nothing has moved");
        let most = world.clouds[0].attempts(Call::Delete).into_values().max().expect("it was tried");
        assert!((160..1000).contains(&most), "{most} attempts at one delete");
        assert!(says_teapot(&shown(world, 0).await[0].1));
        assert_eq!(world.clouds[0].objects().len(), 6);
        world.clouds[0].answer(Call::Delete, None);
        world.until("what is dead is gone", |world| world.clouds.iter().all(|cloud| cloud.objects().len() == 1)).await;
        assert_eq!(world.site(1).client().read_all(file).await, Ok(noise(9, 3000)));
    });
}

/// A filer that was cut off does not know that a segment has been deleted, reads it from the cloud that still has it, and
/// must not put it again into the one that has not.
#[test]
fn what_was_deleted_meanwhile_is_not_repaired() {
    World::run_with(3, quick_sweep(), async |world| {
        let file = world.site(0).client().store("a", noise(1, 3000)).await;
        world.settled().await;
        let key = world.clouds[0].objects().into_keys().next().expect("its segment");
        assert!(world.site(2).client().getattr(file).await.is_ok());
        world.cut_off(2);
        world.clouds[1].answer(Call::Delete, Some(TEAPOT));
        world.site(0).client().remove(ROOT, "a").await.expect("a removal");
        world.until("one cloud has deleted it", |world| world.clouds[0].objects().is_empty()).await;
        let puts = world.clouds[0].attempts(Call::Put).get(&key).copied();
        assert_eq!(world.site(2).client().read(file, 0, 3000).await, Ok(noise(1, 3000)), "it serves what it knows");
        sleep(Duration::from_secs(120)).await;
        assert_eq!(world.clouds[0].attempts(Call::Put).get(&key).copied(), puts, "and puts nothing back");
        world.network.heal();
        world.clouds[1].answer(Call::Delete, None);
        world.until("it is gone everywhere", |world| world.clouds.iter().all(|cloud| cloud.objects().is_empty())).await;
        world.settled().await;
    });
}

/// Each repair gets a receipt, and the next read is as wrong as the last.
#[test]
fn a_copy_that_stays_wrong_is_put_a_few_times_and_not_in_a_loop() {
    World::run(2, async |world| {
        let file = world.site(0).client().store("a", noise(1, 3000)).await;
        world.settled().await;
        let key = world.clouds[0].objects().into_keys().next().expect("its segment");
        world.clouds[0].damage_for_good(&key);
        let puts = world.clouds[0].attempts(Call::Put)[&key];
        assert_eq!(world.site(1).client().read_all(file).await, Ok(noise(1, 3000)));
        sleep(Duration::from_secs(60)).await;
        assert_eq!(world.clouds[0].attempts(Call::Put)[&key] - puts, 3);
        let gets = world.clouds[0].attempts(Call::Get)[&key];
        // Each attempt reads the frame, and then the whole object to tell who is wrong.
        assert!((120..300).contains(&gets), "{gets} reads in a minute");
        // A cloud that gives wrong data for so long has failed like any other.
        world.until("it has failed", |world| state(world) == CloudState::Failed).await;
        let segment = SegmentId::from_key(&key).expect("a segment's name");
        let row = read::segment(&world.site(0).kv, segment).expect("memory does not fail").expect("it is on record");
        assert_eq!(row.object.expect("it is released").copies, [Copy::Stored; 2]);
        world.clouds[0].heal(&key);
        world.healthy().await;
    });
}
