//! Filers that come, and filers that are lost for ever.
//!
//! With a lost filer goes what only its disk had. An operator does what the product tells him to: removes the files that
//! are not whole any more, then the filer.

use crate::{
    clients::{Shared, caller, name_of},
    recording::Lane,
    world::World,
};
use filer::{
    filer::Filer,
    fs::{FileSystem, FsError},
};
use mesh::FilerId;
use std::{collections::BTreeSet, rc::Rc, time::Duration};
use storage::{cloudfs::read, ids::SegmentId};
use tokio::time::sleep;

/// Filers that a mesh has at most here.
const FILERS_MAX: usize = 7;
/// How long the removal of a filer is tried in one attempt.
const REMOVE_MAX: Duration = Duration::from_secs(30);
/// Time between two attempts of an operator.
const AGAIN: Duration = Duration::from_secs(2);

/// Whether there is room for another filer.
pub fn may_add(world: &World) -> bool {
    world.ids().len() < FILERS_MAX
}

/// Adds a filer.
pub fn add(world: &Rc<World>) {
    let id = world.add_site();
    world.coverage.hit("filers added");
    world.trace.note("FAULT", format_args!("filer {id} is added"));
    world.start(id);
}

/// Loses a filer with its disk; an operator removes it.
pub async fn lose(world: &Rc<World>, shared: &Shared, lost: FilerId) {
    world.coverage.hit("filers lost");
    world.lose(lost);
    while remove(world, shared, lost).await.is_none() {
        sleep(AGAIN).await;
    }
    world.removed(lost);
    world.recording.mark(Lane::Filer(lost), world.trace.now_ms(), "an operator has removed it".into());
}

/// Segments that only `lost` had, as a filer's tables tell.
fn only_copies(filer: &Filer, lost: FilerId) -> Option<BTreeSet<SegmentId>> {
    let rows = read::segments(&*filer.world.kv, None, usize::MAX).ok()?;
    let gone = rows.into_iter().filter(|(id, row)| id.filer == lost && row.is_held_alone());
    Some(gone.map(|(id, _)| id).collect())
}

/// One attempt of an operator, at any other filer; `None`: something is left to do.
async fn remove(world: &Rc<World>, shared: &Shared, lost: FilerId) -> Option<()> {
    let at = world.filers().first()?.who.me;
    let segments = world.call(at, async move |filer| only_copies(&filer, lost)).await.ok()??;
    for file in shared.files() {
        let ino = file.handle.ino;
        let segments = segments.clone();
        let torn = world.call(at, async move |filer| {
            let extents = read::extents(&*filer.world.kv.view(), ino, 0..u64::MAX).ok()?;
            Some(extents.iter().any(|extent| segments.contains(&extent.segment)))
        });
        if !torn.await.ok()?? {
            continue;
        }
        let (dir, handle) = (file.dir, file.handle);
        world.trace.note("FAULT", format_args!("an operator removes inode {ino}, of which a part is lost"));
        file.removed.set(true);
        let removed = world.call(at, async move |filer| match name_of(&filer, dir, handle).await? {
            Some(name) => filer.vfs.remove(&caller(), dir, &name).await.map(drop),
            None => Err(FsError::NoEntry),
        });
        match removed.await {
            Ok(Ok(()) | Err(FsError::NoEntry)) => world.coverage.hit("files lost with their filer"),
            _ => return None,
        }
    }
    let left = world.call(at, async move |filer| only_copies(&filer, lost)).await.ok()??;
    if !left.is_empty() {
        return None;
    }
    let removal = world.call(at, async move |filer| filer.remove_filer(lost, REMOVE_MAX).await).await;
    removal.ok()?.ok()
}
