//! What happens on the way from written to recorded: what clients are shown, what is refused, whose bits go.

use super::{
    files::noise,
    outcomes::follower_and_leader,
    world::{World, settings},
};
use crate::{
    filer::{Filer, Settings, tests::client::user},
    fs::{Before, Changed, CreateHow, FileSystem, FsError, SetAttr, Stable, Written},
    vfs,
};
use bytes::Bytes;
use storage::{
    cloudfs::{Attr, Handle, OpBody, ROOT, read},
    ids::{Epoch, Md5},
};

fn before(attr: &Attr) -> Option<Before> {
    Some(Before { bytes: attr.bytes, mtime_ns: attr.mtime_ns, ctime_ns: attr.ctime_ns })
}

async fn write(world: &World, site: usize, uid: u32, file: Handle, at: u64, data: Bytes, stable: Stable) -> Written {
    let write = async move |filer: Filer| filer.vfs.write(&user(uid), file, at, data, stable).await;
    world.site(site).call(write).await.expect("a write")
}

async fn commit(world: &World, site: usize, file: Handle) -> Result<Changed, FsError> {
    world.site(site).call(async move |filer: Filer| filer.vfs.commit(&user(1000), file).await).await
}

#[test]
fn who_has_no_privileges_takes_the_set_id_bits_of_what_he_writes() {
    World::run(2, async |world| {
        let set = SetAttr { mode: Some(0o6777), ..SetAttr::default() };
        let file = world.site(0).user(10).create_with(ROOT, "tool", set.clone(), CreateHow::Guarded).await;
        let file = file.expect("a new file").handle;
        let mode = async |site: usize| world.site(site).client().getattr(file).await.expect("it is there").mode;
        assert_eq!(mode(1).await, 0o6777);
        write(world, 0, 0, file, 0, noise(1, 100), Stable::FileSync).await;
        assert_eq!(mode(1).await, 0o6777, "root may");
        write(world, 0, 20, file, 0, noise(2, 100), Stable::Unstable).await;
        assert_eq!(
            (mode(0).await, mode(1).await),
            (0o777, 0o6777),
            "where it can be read, and not before it is on record"
        );
        commit(world, 0, file).await.expect("a commit");
        assert_eq!(mode(1).await, 0o777);
        world.site(1).user(10).setattr(file, set.clone()).await.expect("the owner may");
        assert_eq!(mode(0).await, 0o6777);
        world.site(1).user(20).truncate(file, 5).await.expect("a cut");
        assert_eq!(mode(0).await, 0o777);
        world.site(1).user(10).setattr(file, set.clone()).await.expect("the owner may");
        let cut = SetAttr { bytes: Some(0), ..SetAttr::default() };
        world.site(0).user(20).create_with(ROOT, "tool", cut, CreateHow::Unchecked).await.expect("an open that cuts");
        assert_eq!(mode(0).await, 0o777);
        world.site(1).user(10).setattr(file, set).await.expect("the owner may");
        let give = SetAttr { gid: Some(10), ..SetAttr::default() };
        world.site(0).user(10).setattr(file, give).await.expect("to its own group");
        assert_eq!(mode(1).await, 0o777);
    });
}

#[test]
fn a_writer_alone_hears_how_the_file_was_before_and_a_second_one_shows() {
    World::run(2, async |world| {
        let file = world.site(0).client().store("a", noise(1, 100)).await;
        let mut known = world.site(0).client().getattr(file).await.expect("it is there");
        for stable in [Stable::Unstable, Stable::FileSync, Stable::Unstable, Stable::Unstable] {
            let written = write(world, 0, 1000, file, 50, noise(2, 100), stable).await;
            assert_eq!(written.change.before, before(&known), "{stable:?}");
            let after = written.change.after.expect("it is there");
            assert!(after.ctime_ns > known.ctime_ns && after.mtime_ns > known.mtime_ns, "every change can be seen");
            known = after;
        }
        let committed = commit(world, 0, file).await.expect("a commit");
        assert_eq!(committed.before, before(&known));
        known = committed.after.expect("it is there");
        // Another client of this site, and one of another site: what the first knew is no longer so.
        write(world, 0, 1000, world.site(0).client().create("b").await, 0, noise(3, 10), Stable::Unstable).await;
        write(world, 0, 0, file, 0, noise(3, 10), Stable::Unstable).await;
        let written = write(world, 0, 1000, file, 0, noise(4, 10), Stable::Unstable).await;
        assert_ne!(written.change.before, before(&known));
        known = written.change.after.expect("it is there");
        commit(world, 0, file).await.expect("a commit");
        write(world, 1, 1000, file, 0, noise(5, 10), Stable::FileSync).await;
        world.site(0).client().getattr(file).await.expect("it is there");
        let written = write(world, 0, 1000, file, 0, noise(6, 10), Stable::FileSync).await;
        assert_ne!(written.change.before, before(&known));
    });
}

#[test]
fn attributes_before_a_commit_are_left_out_when_others_changed_the_file_meanwhile() {
    World::run(3, async |world| {
        let file = world.site(0).client().store("a", noise(1, 100)).await;
        let (here, there) = follower_and_leader(world);
        write(world, here, 1000, file, 0, noise(2, 100), Stable::Unstable).await;
        world.network.deafen(world.site(here).id);
        let committing = world.site(here).begin(async move |filer: Filer| {
            loop {
                match filer.vfs.commit(&user(1000), file).await {
                    Err(FsError::Later(_)) => {}
                    committed => return committed,
                }
            }
        });
        let recorded_here = |world: &World| {
            let extents = read::extents(&world.site(there).kv, file.ino, 0..100).expect("memory does not fail");
            extents.iter().all(|extent| extent.segment.filer == world.site(here).id)
        };
        world.until("it is on record", recorded_here).await;
        write(world, there, 1000, file, 0, noise(3, 50), Stable::FileSync).await;
        world.until("the other's write is here", |world| !recorded_here_at(world, here, file)).await;
        world.network.heal();
        let committed = committing.await.expect("it ends").expect("a commit");
        assert_eq!(committed.before, None, "a client would take the other's change for its own");
        assert!(committed.after.is_some());
    });
}

fn recorded_here_at(world: &World, site: usize, file: Handle) -> bool {
    let extents = read::extents(&world.site(site).kv, file.ino, 0..100).expect("memory does not fail");
    extents.iter().all(|extent| extent.segment.filer == world.site(site).id)
}

#[test]
fn what_is_on_record_is_not_shown_over_newer_data_of_another_site() {
    let vfs = vfs::Settings { extents_max: 1, ..settings().vfs };
    World::run_with(3, Settings { vfs, ..settings() }, async |world| {
        let file = world.site(0).client().create("a").await;
        let (here, there) = follower_and_leader(world);
        for piece in 0..100 {
            write(world, here, 1000, file, piece * 100, noise(piece, 50), Stable::Unstable).await;
        }
        assert_eq!(world.site(here).filer().vfs.unrecorded_extents(), 100);
        let committing = world.site(here).begin(async move |filer: Filer| filer.vfs.commit(&user(1000), file).await);
        let some = |world: &World| world.site(here).filer().vfs.unrecorded_extents() < 100;
        world.until("some of it is on record", some).await;
        // The rest has no answers any more, but what happens elsewhere comes in.
        world.network.deafen(world.site(here).id);
        assert!(world.site(here).filer().vfs.unrecorded_extents() > 0);
        write(world, there, 1000, file, 0, noise(777, 50), Stable::FileSync).await;
        world
            .until("the other's write is here", |world| {
                let extents = read::extents(&world.site(here).kv, file.ino, 0..50).expect("memory does not fail");
                extents.iter().all(|extent| extent.segment.filer == world.site(there).id)
            })
            .await;
        assert_eq!(world.site(here).client().read(file, 0, 50).await, Ok(noise(777, 50)));
        world.network.heal();
        let _ = committing.await.expect("it ends");
        commit(world, here, file).await.expect("a commit");
        assert_eq!(world.site(there).client().read(file, 9_900, 50).await, Ok(noise(99, 50)));
        assert_eq!(world.site(here).client().read(file, 0, 50).await, Ok(noise(777, 50)));
    });
}

#[test]
fn what_is_refused_for_good_is_told_dropped_and_written_again_by_clients_that_hold_it() {
    World::run(1, async |world| {
        let file = world.site(0).client().create("a").await;
        let first = write(world, 0, 1000, file, 0, noise(1, 100), Stable::Unstable).await;
        // Its segment dies before the data is on record.
        let die = async |filer: Filer| {
            let (segment, _) = filer.staging.unreleased()[0];
            let epoch = filer.roles.get().map_or(Epoch(0), |roles| roles.epoch);
            let stored = OpBody::Stored { segment, bytes: 1, md5: Md5([7; 16]), copies: [true; 2], epoch };
            filer.door.propose(stored).await.map(drop)
        };
        world.site(0).call(die).await.expect("it is stored");
        assert!(matches!(commit(world, 0, file).await, Err(FsError::Io(_))));
        assert_eq!(world.site(0).filer().vfs.unrecorded_extents(), 0, "it is not proposed for ever");
        let verifier = world.site(0).filer().vfs.write_verifier();
        assert_ne!(verifier, first.verifier, "other clients learn of it by the verifier");
        assert_eq!(commit(world, 0, file).await.map(drop), Ok(()));
        // The segment is closed by now; a client that held the data writes it anew.
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let again = write(world, 0, 1000, file, 0, noise(1, 100), Stable::Unstable).await;
        assert_eq!(again.verifier, verifier);
        commit(world, 0, file).await.expect("a commit");
        assert_eq!(world.site(0).client().read_all(file).await, Ok(noise(1, 100)));
    });
}
