//! Changes whose outcome is not known: no answer before it is.

use super::{
    files::noise,
    world::{World, settings},
};
use crate::{
    filer::{Settings, Steps, tests::client::user},
    fs::{CreateHow, FileSystem, FsError, SetAttr},
};
use mesh::FilerId;
use std::time::Duration;
use storage::cloudfs::{ROOT, read};
use tokio::{sync::oneshot, time::sleep};

/// A site that follows, and the one that leads.
pub fn follower_and_leader(world: &World) -> (usize, usize) {
    let leader = world.site(0).filer().consensus.status().leader.expect("somebody leads");
    let at =
        |wanted: &dyn Fn(FilerId) -> bool| world.sites.iter().position(|site| wanted(site.id)).expect("it is there");
    (at(&|id| id != leader), at(&|id| id == leader))
}

fn is_there(world: &World, site: usize, name: &str) -> bool {
    read::lookup(&world.site(site).kv, ROOT.ino, name.as_bytes()).expect("memory does not fail").is_some()
}

/// A removal that goes on while the test does other things.
fn begin_removal(world: &World, site: usize, name: &str) -> oneshot::Receiver<Result<(), FsError>> {
    let name = name.to_owned();
    let remove =
        async move |filer: crate::filer::Filer| filer.vfs.remove(&user(1000), ROOT, name.as_bytes()).await.map(drop);
    world.site(site).begin(remove)
}

/// A client that was told to ask later would remove the new file: its second REMOVE is a new call.
#[test]
fn a_removal_whose_outcome_is_unknown_is_not_answered_and_takes_no_successor() {
    World::run(3, async |world| {
        world.site(0).client().store("a", noise(1, 100)).await;
        world.settled().await;
        let (here, there) = follower_and_leader(world);
        assert!(world.site(here).client().lookup(ROOT, "a").await.is_ok());
        // The proposal arrives and is applied, but the word of it does not come back.
        world.network.deafen(world.site(here).id);
        let mut removal = begin_removal(world, here, "a");
        world.until("it is removed", |world| !is_there(world, there, "a")).await;
        let new = world.site(there).client().store("a", noise(2, 100)).await;
        sleep(Duration::from_secs(300)).await;
        assert_eq!(removal.try_recv(), Err(oneshot::error::TryRecvError::Empty), "no answer before the outcome");
        let undecided = world.site(here).filer().door.undecided();
        assert!(undecided.operations == 1 && undecided.oldest_ms > Some(250_000), "{undecided:?}");
        world.network.heal();
        assert_eq!(removal.await.expect("it ends"), Ok(()));
        assert_eq!(world.site(here).filer().door.undecided().operations, 0);
        assert_eq!(world.site(there).client().lookup(ROOT, "a").await.map(|attr| attr.handle), Ok(new));
        assert_eq!(world.site(there).client().read_all(new).await, Ok(noise(2, 100)));
    });
}

#[test]
fn a_creation_that_was_cut_off_is_answered_as_its_own_when_the_link_is_back() {
    World::run(3, async |world| {
        let (here, there) = follower_and_leader(world);
        assert!(world.site(here).client().getattr(ROOT).await.is_ok());
        world.network.deafen(world.site(here).id);
        let create = async move |filer: crate::filer::Filer| {
            filer
                .vfs
                .create(&user(1000), ROOT, b"mine", SetAttr::default(), CreateHow::Guarded)
                .await
                .map(|made| made.attr)
        };
        let created = world.site(here).begin(create);
        world.until("it is created", |world| is_there(world, there, "mine")).await;
        world.cut_off(here);
        sleep(Duration::from_secs(600)).await;
        world.network.heal();
        let made = created.await.expect("it ends").expect("its own file is no other's");
        assert_eq!(world.site(there).client().lookup(ROOT, "mine").await.map(|attr| attr.handle), Ok(made.handle));
    });
}

#[test]
fn without_a_majority_a_change_is_refused_before_it_is_proposed() {
    World::run(3, async |world| {
        let (here, there) = follower_and_leader(world);
        world.site(here).client().store("a", noise(1, 100)).await;
        world.cut_off(here);
        sleep(Duration::from_secs(10)).await;
        let refused = world.site(here).client().remove(ROOT, "a").await;
        assert!(matches!(refused, Err(FsError::Later(_))), "{refused:?}");
        assert_eq!(world.site(here).filer().door.undecided().operations, 0);
        world.network.heal();
        world.site(here).client().store("b", noise(2, 100)).await;
        world.settled().await;
        assert!(is_there(world, there, "a"), "nobody was told that it is gone");
    });
}

#[test]
fn changes_without_an_outcome_have_a_bound() {
    let steps = Steps { changes_in_flight_max: 4, ..settings().steps };
    World::run_with(3, Settings { steps, ..settings() }, async |world| {
        let (here, there) = follower_and_leader(world);
        for name in ["a", "b", "c", "d", "e"] {
            world.site(here).client().create(name).await;
        }
        world.network.deafen(world.site(here).id);
        let removals: Vec<_> = ["a", "b", "c", "d"].map(|name| begin_removal(world, here, name)).into();
        world.until("they wait", |world| world.site(here).filer().door.undecided().operations == 4).await;
        let refused = world.site(here).client().remove(ROOT, "e").await;
        assert!(matches!(refused, Err(FsError::Later(_))), "{refused:?}");
        world.network.heal();
        for removal in removals {
            assert_eq!(removal.await.expect("it ends"), Ok(()));
        }
        assert!(is_there(world, there, "e"), "what was refused was not done");
        world.site(here).client().remove(ROOT, "e").await.expect("there is room again");
    });
}
