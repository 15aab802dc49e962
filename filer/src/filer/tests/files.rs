//! One file system at every site: what a close made visible, and what is not visible before.

use super::{
    clouds::Call,
    world::{World, settings},
};
use crate::{
    filer::{Settings, tests::client::user},
    fs::{CreateHow, FileSystem, FsError, SetAttr, Stable},
};
use bytes::Bytes;
use std::{collections::BTreeSet, sync::atomic::Ordering::Relaxed, time::Duration};
use storage::{
    cloudfs::{Copy, Limits, ROOT, read},
    ids::SegmentId,
};
use tokio::time::sleep;

/// Bytes that do not compress and differ from one number to another.
pub fn noise(number: u64, len: usize) -> Bytes {
    let byte = |at: u64| {
        let mixed = ((number << 32) + at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56
    };
    (0..len as u64).map(|at| byte(at) as u8).collect()
}

#[test]
fn what_a_close_made_visible_is_read_at_every_other_site() {
    World::run(3, async |world| {
        let file = world.site(0).client().create("a").await;
        for round in 0..5u64 {
            let writer = world.site(round as usize % 3).client();
            writer.truncate(file, 0).await.expect("an open with O_TRUNC");
            writer.write(file, 0, noise(round, 20_000)).await;
            writer.commit(file).await;
            for site in &world.sites {
                assert_eq!(site.client().lookup(ROOT, "a").await.expect("it is there").handle, file);
                assert_eq!(site.client().read_all(file).await, Ok(noise(round, 20_000)));
            }
        }
    });
}

/// Found by the simulator (scene calm, seed 1): a site whose replica lags by a moment called a new directory's handle stale.
#[test]
fn a_handle_that_another_site_has_just_made_is_not_stale() {
    World::run(3, async |world| {
        for round in 0..5 {
            let maker = world.site(round % 3).client();
            let dir = maker.mkdir(ROOT, &format!("dir-{round}")).await.expect("a new directory");
            let other = world.site((round + 1) % 3).client();
            let made = other.create_with(dir, "a", SetAttr::default(), CreateHow::Guarded).await;
            let file = made.expect("its directory is there").handle;
            let third = world.site((round + 2) % 3).client();
            assert_eq!(third.write_as(file, 0, noise(1, 100), Stable::FileSync).await, Ok(()));
            assert_eq!(maker.read_all(file).await, Ok(noise(1, 100)));
            other.remove(dir, "a").await.expect("a removal");
            assert_eq!(third.getattr(file).await, Err(FsError::Stale), "gone is gone, for who opens it");
        }
    });
}

#[test]
fn unstable_data_is_seen_here_before_its_commit_and_elsewhere_when_its_segment_is_closed() {
    World::run(2, async |world| {
        let (here, there) = (world.site(0).client(), world.site(1).client());
        let file = here.create("a").await;
        here.write(file, 0, noise(1, 3000)).await;
        here.write(file, 1000, noise(2, 1000)).await;
        let mut expected = noise(1, 3000).to_vec();
        expected[1000..2000].copy_from_slice(&noise(2, 1000));
        assert_eq!(here.read_all(file).await.as_deref(), Ok(&expected[..]));
        assert_eq!(here.lookup(ROOT, "a").await.expect("it is there").bytes, 3000);
        assert_eq!(there.getattr(file).await.expect("it is there").bytes, 0);
        // No commit comes: the segment is closed a second after its first byte, and puts it on record.
        sleep(Duration::from_secs(2)).await;
        assert_eq!(there.read_all(file).await.as_deref(), Ok(&expected[..]));
    });
}

#[test]
fn what_is_in_no_cloud_yet_is_read_from_the_filer_that_wrote_it() {
    World::run(2, async |world| {
        world.clouds.iter().for_each(|cloud| cloud.refuse(Call::Put, true));
        let file = world.site(0).client().store("a", noise(1, 30_000)).await;
        assert_eq!(world.site(1).client().read_all(file).await, Ok(noise(1, 30_000)));
        assert!(world.site(1).filer().reader.stats.origin_reads.load(Relaxed) > 0);
        assert!(world.clouds.iter().all(|cloud| cloud.attempts(Call::Get).is_empty()), "no cloud was asked for it");
        world.clouds.iter().for_each(|cloud| cloud.refuse(Call::Put, false));
        world.settled().await;
    });
}

#[test]
fn a_released_segment_is_in_both_clouds_and_in_the_cache_of_its_filer() {
    World::run(2, async |world| {
        let file = world.site(0).client().store("a", noise(1, 200_000)).await;
        world.settled().await;
        let [a, b] = world.clouds.each_ref().map(|cloud| cloud.objects());
        assert_eq!(a, b);
        for key in a.keys() {
            let segment = SegmentId::from_key(key).expect("a segment's name");
            let row = read::segment(&world.site(0).kv, segment).expect("memory does not fail").expect("on record");
            assert_eq!(row.object.map(|object| object.copies), Some([Copy::Stored; 2]));
        }
        world.until("its filer has it in the cache", |world| world.site(0).filer().disk_cache.bytes() > 200_000).await;
        assert_eq!(world.site(0).client().read_all(file).await, Ok(noise(1, 200_000)));
        assert!(world.clouds[0].attempts(Call::Get).is_empty(), "its own filer needs no cloud");
        assert_eq!(world.site(1).client().read_all(file).await, Ok(noise(1, 200_000)));
        assert!(!world.clouds[0].attempts(Call::Get).is_empty());
        assert!(world.clouds[1].attempts(Call::Get).is_empty(), "reads use the active cloud alone");
        let (gets, again) = (world.clouds[0].attempts(Call::Get), world.site(1).client().read_all(file).await);
        assert_eq!((again, world.clouds[0].attempts(Call::Get)), (Ok(noise(1, 200_000)), gets), "cached by now");
    });
}

#[test]
fn many_readers_of_a_piece_share_one_fetch() {
    World::run(2, async |world| {
        let file = world.site(0).client().store("a", noise(1, 60_000)).await;
        world.settled().await;
        let readers: Vec<_> = (0..40u64)
            .map(|reader| {
                world.site(1).begin(async move |filer| {
                    // Some at the start, some inside of what is read ahead for others.
                    filer.vfs.read(&user(1000), file, (reader % 8) * 4000, 4000).await.map(|read| read.data)
                })
            })
            .collect();
        for (reader, read) in readers.into_iter().enumerate() {
            let at = (reader % 8) * 4000;
            assert_eq!(read.await.expect("it ends"), Ok(noise(1, 60_000).slice(at..at + 4000)));
        }
        let gets: u64 = world.clouds[0].attempts(Call::Get).values().sum();
        assert!(gets <= 8, "{gets} reads of the cloud for 40 readers of 4 frames");
    });
}

#[test]
fn a_reader_that_goes_away_takes_nobody_elses_fetch_along() {
    World::run(2, async |world| {
        let file = world.site(0).client().store("a", noise(1, 8000)).await;
        world.settled().await;
        let read = world
            .site(1)
            .call(async move |filer| {
                let impatient = tokio::task::spawn_local({
                    let vfs = filer.vfs.clone();
                    async move { vfs.read(&user(1000), file, 0, 8000).await }
                });
                sleep(Duration::from_millis(2)).await;
                let patient = filer.vfs.clone();
                let patient = tokio::task::spawn_local(async move { patient.read(&user(1000), file, 0, 8000).await });
                sleep(Duration::from_millis(1)).await;
                impatient.abort();
                patient.await.expect("it does not panic").map(|read| read.data)
            })
            .await;
        assert_eq!(read, Ok(noise(1, 8000)));
        assert_eq!(world.clouds[0].attempts(Call::Get).values().sum::<u64>(), 1);
    });
}

#[test]
fn names_move_and_go_while_data_is_not_on_record() {
    World::run(2, async |world| {
        let (here, there) = (world.site(0).client(), world.site(1).client());
        let (kept, gone) = (here.create("a").await, here.create("b").await);
        here.write(kept, 0, noise(1, 5000)).await;
        here.write(gone, 0, noise(2, 5000)).await;
        here.rename((ROOT, "a"), (ROOT, "c")).await.expect("a rename");
        there.remove(ROOT, "b").await.expect("a removal");
        assert_eq!(here.read_all(kept).await, Ok(noise(1, 5000)));
        here.commit(kept).await;
        assert_eq!(here.try_commit(gone).await, Err(FsError::Stale));
        assert_eq!(here.read(gone, 0, 10).await, Err(FsError::Stale));
        assert_eq!(here.write_as(gone, 0, noise(3, 10), Stable::Unstable).await, Err(FsError::Stale));
        assert_eq!(there.lookup(ROOT, "c").await.expect("it is there").handle, kept);
        assert_eq!(there.read_all(kept).await, Ok(noise(1, 5000)));
        // One file of a segment is gone before its data is on record: the other's is not held up.
        let (left, removed) = (here.create("left").await, here.create("removed").await);
        here.write(removed, 0, noise(4, 100)).await;
        here.write(left, 0, noise(5, 100)).await;
        here.remove(ROOT, "removed").await.expect("a removal");
        world.settled().await;
        assert_eq!(there.read_all(left).await, Ok(noise(5, 100)));
        // A rename onto a file with unrecorded data replaces it.
        let (new, old) = (here.create("new").await, here.create("old").await);
        here.write(old, 0, noise(6, 100)).await;
        here.write(new, 0, noise(7, 100)).await;
        here.rename((ROOT, "new"), (ROOT, "old")).await.expect("a rename");
        here.commit(new).await;
        assert_eq!(there.lookup(ROOT, "old").await.expect("it is there").handle, new);
        assert_eq!(there.read_all(new).await, Ok(noise(7, 100)));
        world.settled().await;
        assert_eq!(world.site(0).filer().vfs.unrecorded_extents(), 0);
    });
}

#[test]
fn commits_that_race_with_writes_lose_none() {
    let staging = settings().staging.with_segments(5000);
    World::run_with(2, Settings { staging, ..settings() }, async |world| {
        let file = world.site(0).client().create("a").await;
        let writers: Vec<_> = (0..8u64)
            .map(|writer| {
                world.site(0).begin(async move |filer| {
                    for round in 0..25u64 {
                        let (at, data) = ((round * 8 + writer) * 100, noise(round * 8 + writer, 100));
                        filer.vfs.write(&user(1000), file, at, data, Stable::Unstable).await.expect("a write");
                        if (round + writer) % 3 == 0 {
                            filer.vfs.commit(&user(1000), file).await.expect("a commit");
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.expect("it ends");
        }
        world.site(0).client().commit(file).await;
        let expected: Vec<u8> = (0..200).flat_map(|number| noise(number, 100)).collect();
        for site in &world.sites {
            assert_eq!(site.client().read_all(file).await.as_deref(), Ok(&expected[..]));
        }
    });
}

#[test]
fn who_may_not_does_not() {
    World::run(2, async |world| {
        let (owner, other, root) = (world.site(0).user(10), world.site(1).user(20), world.site(1).user(0));
        let dir = owner.mkdir(ROOT, "dir").await.expect("anybody may in the root");
        let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        let file = owner.create_with(dir, "secret", set.clone(), CreateHow::Guarded).await.expect("a file").handle;
        owner.write_as(file, 0, noise(1, 100), Stable::FileSync).await.expect("a write");
        assert_eq!(other.read(file, 0, 10).await, Err(FsError::Access));
        assert_eq!(other.write_as(file, 0, noise(2, 10), Stable::Unstable).await, Err(FsError::Access));
        assert_eq!(other.truncate(file, 0).await, Err(FsError::Access));
        assert_eq!(other.setattr(file, set).await, Err(FsError::NotOwner));
        assert_eq!(other.remove(dir, "secret").await, Err(FsError::Access));
        assert_eq!(other.rename((dir, "secret"), (ROOT, "mine")).await, Err(FsError::Access));
        assert_eq!(other.mkdir(dir, "mine").await, Err(FsError::Access));
        assert_eq!(root.read_all(file).await, Ok(noise(1, 100)));
        let cut = SetAttr { bytes: Some(0), ..SetAttr::default() };
        assert_eq!(other.create_with(dir, "secret", cut.clone(), CreateHow::Unchecked).await, Err(FsError::Access));
        // The root directory is sticky: who did not make a name there does not take it away, however new it is.
        let fresh = owner.create("fresh").await;
        owner.store("fresh", noise(3, 50)).await;
        assert_eq!(other.remove(ROOT, "fresh").await, Err(FsError::NotOwner));
        let newest = owner.create("newest").await;
        assert_eq!(other.rename((ROOT, "newest"), (ROOT, "taken")).await, Err(FsError::NotOwner));
        other.create("own").await;
        owner.store("target", noise(4, 50)).await;
        assert_eq!(other.rename((ROOT, "own"), (ROOT, "target")).await, Err(FsError::NotOwner));
        owner.store("cut", noise(5, 50)).await;
        assert_eq!(other.create_with(ROOT, "cut", cut, CreateHow::Unchecked).await, Err(FsError::Access));
        assert_eq!(owner.read_all(fresh).await, Ok(noise(3, 50)));
        assert_eq!(owner.lookup(ROOT, "newest").await.expect("it is there").handle, newest);
    });
}

#[test]
fn an_exclusive_create_is_repeated_at_any_site_and_won_once() {
    World::run(2, async |world| {
        let (here, there) = (world.site(0).client(), world.site(1).client());
        let exclusive = |verifier| CreateHow::Exclusive { verifier };
        let set = SetAttr::default;
        let made = here.create_with(ROOT, "a", set(), exclusive(7)).await.expect("a file");
        assert_eq!(there.create_with(ROOT, "a", set(), exclusive(7)).await.map(|attr| attr.handle), Ok(made.handle));
        assert_eq!(there.create_with(ROOT, "a", set(), exclusive(8)).await, Err(FsError::Exists));
        assert_eq!(there.create_with(ROOT, "a", set(), CreateHow::Guarded).await, Err(FsError::Exists));
        let again = there.create_with(ROOT, "a", set(), CreateHow::Unchecked).await.expect("it is used");
        assert_eq!(again.handle, made.handle);
        here.setattr(made.handle, SetAttr { mode: Some(0o600), ..set() }).await.expect("the owner may");
        assert_eq!(there.create_with(ROOT, "a", set(), exclusive(7)).await, Err(FsError::Exists));
        // Two sites at the same time: one of them wins.
        let racers: Vec<_> = [7u64, 8]
            .into_iter()
            .map(|verifier| {
                world.site(verifier as usize - 7).begin(async move |filer| {
                    let how = CreateHow::Exclusive { verifier };
                    filer.vfs.create(&user(1000), ROOT, b"raced", SetAttr::default(), how).await.is_ok()
                })
            })
            .collect();
        let mut won = 0;
        for racer in racers {
            won += u32::from(racer.await.expect("it ends"));
        }
        assert_eq!(won, 1);
    });
}

#[test]
fn a_directory_is_listed_page_by_page_while_it_changes() {
    World::run(2, async |world| {
        let (here, there) = (world.site(0).client(), world.site(1).client());
        let dir = here.mkdir(ROOT, "dir").await.expect("a directory");
        for number in 0..50 {
            here.create_with(dir, &format!("f{number}"), SetAttr::default(), CreateHow::Guarded).await.expect("a file");
        }
        let (mut seen, mut cookie, mut pages) = (BTreeSet::new(), 0, 0);
        loop {
            let (entries, end) = there.page(dir, cookie, 7).await.expect("a page");
            assert!(entries.len() <= 7 && (end || entries.len() == 7));
            for entry in entries {
                assert!(entry.cookie > cookie, "cookies rise");
                cookie = entry.cookie;
                assert_eq!(entry.attr.expect("asked for").handle.ino, entry.ino);
                assert!(seen.insert(entry.name), "no name comes twice");
            }
            pages += 1;
            if end {
                break;
            }
            // What was seen goes, what is ahead stays in its place, what is new comes at the end.
            if pages < 4 {
                here.remove(dir, &format!("f{pages}")).await.expect("a removal");
                let name = format!("n{pages}");
                here.create_with(dir, &name, SetAttr::default(), CreateHow::Guarded).await.expect("a file");
            }
        }
        let names: BTreeSet<Bytes> = (0..50).map(|number| format!("f{number}").into()).collect();
        assert!(seen.is_superset(&names));
        assert!(seen.contains(&b"."[..]) && seen.contains(&b".."[..]) && seen.contains(&b"n1"[..]));
        let (nothing, end) = there.page(dir, u64::MAX, 7).await.expect("a page");
        assert_eq!((nothing.len(), end), (0, true));
    });
}

#[test]
fn what_is_not_on_record_has_a_bound_and_waits_for_a_majority() {
    let mut small = settings();
    small.vfs.unrecorded_extents_max = 50;
    World::run_with(3, small, async |world| {
        let file = world.site(2).client().create("a").await;
        for piece in 0..200u64 {
            world.site(2).client().write(file, piece * 10, noise(piece, 5)).await;
            assert!(world.site(2).filer().vfs.unrecorded_extents() <= 50);
        }
        world.cut_off(2);
        let mut refused = None;
        for piece in 200..300u64 {
            let write = world.site(2).client().write_as(file, piece * 10, noise(piece, 5), Stable::Unstable).await;
            if let Err(error) = write {
                refused = Some(error);
                break;
            }
        }
        assert!(matches!(refused, Some(FsError::Later(_))), "{refused:?}");
        world.network.heal();
        world.site(2).client().commit(file).await;
        world.site(2).client().write(file, 5000, noise(1, 5)).await;
    });
}

#[test]
fn a_commit_without_an_answer_is_not_laid_over_a_later_write_of_another_site() {
    World::run(3, async |world| {
        let file = world.site(2).client().store("a", noise(1, 100)).await;
        let leader = world.site(0).filer().consensus.status().leader.expect("somebody leads");
        let here = world.sites.iter().position(|site| site.id != leader).expect("two follow");
        let there = world.sites.iter().position(|site| site.id == leader).expect("it leads");
        world.site(here).client().write(file, 0, noise(2, 100)).await;
        // The proposal arrives and is applied, but the word of it does not come back; then the client goes away.
        world.network.deafen(world.site(here).id);
        let commit = world.site(here).begin(async move |filer| {
            let caller = user(1000);
            let commit = tokio::time::timeout(Duration::from_secs(3), filer.vfs.commit(&caller, file));
            commit.await.is_ok_and(|commit| commit.is_ok())
        });
        world
            .until("the commit is visible", |world| {
                let extents = read::extents(&world.site(there).kv, file.ino, 0..100).expect("memory does not fail");
                extents.iter().all(|extent| extent.segment.filer == world.site(here).id)
            })
            .await;
        world.site(there).client().write(file, 0, noise(3, 100)).await;
        world.site(there).client().commit(file).await;
        commit.await.expect("it ends");
        world.network.heal();
        world.settled().await;
        for site in &world.sites {
            assert_eq!(site.client().read_all(file).await, Ok(noise(3, 100)), "filer {}", site.id);
        }
    });
}

#[test]
fn a_file_of_many_pieces_is_overwritten_cut_and_removed_in_operations_of_few() {
    let tight = Settings { operations: Limits { extents_per_op_max: 4, cuts_pending_max: 2 }, ..settings() };
    World::run_with(2, tight, async |world| {
        const EVERY: usize = 1_000;
        let (here, there) = (world.site(0).client(), world.site(1).client());
        let file = here.create("a").await;
        let scattered = async |from: usize, expected: &mut Vec<u8>| {
            for piece in from..from + 40 {
                let (at, data) = (piece * EVERY, noise(piece as u64, 100));
                expected.resize(expected.len().max(at + 100), 0);
                expected[at..at + 100].copy_from_slice(&data);
                here.write(file, at as u64, data).await;
            }
            here.commit(file).await;
        };
        let mut expected = Vec::new();
        scattered(0, &mut expected).await;
        // Written over by few large pieces.
        let large = noise(99, 20_500);
        there.write(file, 300, large.clone()).await;
        there.commit(file).await;
        expected[300..20_800].copy_from_slice(&large);
        assert_eq!(here.read_all(file).await, Ok(expected.clone().into()));
        // Cut off, extended, and written to behind that.
        there.truncate(file, 22_050).await.expect("a truncation");
        there.truncate(file, 60_000).await.expect("an extension");
        expected.truncate(22_050);
        expected.resize(60_000, 0);
        assert_eq!(here.read_all(file).await, Ok(expected.clone().into()));
        scattered(15, &mut expected).await;
        for site in [&here, &there] {
            assert_eq!(site.read_all(file).await, Ok(expected.clone().into()));
        }
        let totals = |world: &World| read::totals(&world.site(1).kv).expect("memory does not fail");
        world.until("everything cut off is reaped", |world| totals(world).orphans == 0).await;
        assert_eq!(there.read_all(file).await, Ok(expected.clone().into()));
        there.remove(ROOT, "a").await.expect("a removal");
        world
            .until("nothing is left of it", |world| {
                let totals = totals(world);
                (totals.live_bytes, totals.orphans, totals.segments) == (0, 0, 0)
            })
            .await;
    });
}
