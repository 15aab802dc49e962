//! Filers that are removed for good: nothing that was acknowledged goes with them, unless they are lost already.

use super::{clouds::Call, files::noise, world::World};
use crate::{
    filer::{Filer, RemovalError},
    fs::FsError,
};
use mesh::FilerId;
use std::time::Duration;
use storage::cloudfs::ROOT;
use tokio::time::{Instant, sleep};

/// How long a removal may take.
const REMOVE_MAX: Duration = Duration::from_secs(15);
/// The filer of site 2.
const LEAVER: FilerId = FilerId(3);

/// Takes the filer of site 2 out.
async fn remove(filer: Filer) -> Result<(), RemovalError> {
    filer.remove_filer(LEAVER, REMOVE_MAX).await
}

fn refuse_puts(world: &World, refuse: bool) {
    world.clouds.iter().for_each(|cloud| cloud.refuse(Call::Put, refuse));
}

#[test]
fn a_filer_that_is_being_removed_acknowledges_nothing_that_is_lost_with_it() {
    // What was agreed on without the filer that removes it.
    World::run(3, async |world| {
        refuse_puts(world, true);
        world.cut_off(0);
        let data = noise(1, 5000);
        let file = world.site(2).client().store("a", data.clone()).await;
        let removal = world.site(0).begin(remove);
        sleep(Duration::from_secs(1)).await;
        world.network.heal();
        let refused = removal.await.expect("the site keeps its power");
        assert!(matches!(refused, Err(RemovalError::Alone { segments: 1, bytes: 5000, .. })), "{refused:?}");
        // It goes on as before, until its data is elsewhere.
        world.site(2).client().write(file, 5000, noise(2, 100)).await;
        world.site(2).client().commit(file).await;
        refuse_puts(world, false);
        world.settled().await;
        world.site(0).call(remove).await.expect("it holds nothing alone");
        world.crash(2).await;
        let whole = [data, noise(2, 100)].concat();
        for site in 0..2 {
            assert_eq!(world.site(site).client().read_all(file).await, Ok(whole.clone().into()), "site {site}");
        }
    });
    // What is agreed on at the same time.
    for delay_ms in 0..30 {
        World::run(3, async |world| {
            refuse_puts(world, true);
            let (file, data) = (world.site(2).client().create("a").await, noise(1, 5000));
            world.site(2).client().write(file, 0, data.clone()).await;
            let removal = world.site(0).begin(remove);
            sleep(Duration::from_millis(delay_ms)).await;
            let acknowledged = world.site(2).client().try_commit(file).await;
            let removed = removal.await.expect("the site keeps its power");
            match (&removed, &acknowledged) {
                (Ok(()), Err(FsError::Later(_))) => return,
                (Err(RemovalError::Alone { .. }), Ok(())) => {}
                // The mark came first, and what nobody was told of is not lost.
                (Err(RemovalError::Alone { .. }), Err(FsError::Later(_))) => world.site(2).client().commit(file).await,
                other => panic!("after {delay_ms} ms: {other:?}"),
            }
            assert_eq!(world.site(1).client().read_all(file).await, Ok(data));
        });
    }
}

#[test]
fn what_only_a_removed_filer_had_is_an_error_and_no_wait() {
    World::run(3, async |world| {
        refuse_puts(world, true);
        let file = world.site(2).client().store("a", noise(1, 5000)).await;
        world.crash(2).await;
        let read = world.site(0).client().read_all(file).await;
        assert!(matches!(read, Err(FsError::Later(_))), "it may come back: {read:?}");
        let removal = async |filer: Filer| filer.consensus.remove_member(LEAVER, REMOVE_MAX).await;
        world.site(0).call(removal).await.expect("a majority agrees");
        for site in 0..2 {
            let start = Instant::now();
            let read = world.site(site).client().read_all(file).await;
            assert!(matches!(&read, Err(FsError::Io(why)) if why.contains("removed")), "site {site}: {read:?}");
            assert!(start.elapsed() < Duration::from_secs(1), "site {site}: {:?}", start.elapsed());
        }
        world.site(0).client().remove(ROOT, "a").await.expect("what is lost can be removed");
    });
}
