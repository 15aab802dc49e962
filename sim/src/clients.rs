//! What clients do, all at once and at every site: files are written, cut, closed and read; names are made, moved, removed.
//!
//! A client behaves as an NFS client does: it asks again when it is told to come later; when its filer has started anew it
//! sends again what was not closed. Each answer is held against what may be (`invariants`).

mod files;
mod tree;

use crate::{dice::Dice, invariants::FileHistory, world::World};
use bytes::Bytes;
use filer::{
    filer::Filer,
    fs::{Caller, CreateHow, FileSystem, FsError, SetAttr},
};
use mesh::FilerId;
use std::{cell::RefCell, rc::Rc, time::Duration};
use storage::cloudfs::{Handle, NewNode, ROOT};
use tokio::time::sleep;
use tree::SharedTree;

/// Files of each client.
const FILES: usize = 3;

/// The user that all clients are.
pub fn caller() -> Caller {
    Caller { uid: 1000, gid: 1000, groups: Vec::new(), client: None }
}

/// A file and what was done to it.
pub struct File {
    pub handle: Handle,
    pub history: RefCell<FileHistory>,
}

/// What all clients share.
pub struct Shared {
    /// Of all clients.
    pub files: Vec<Rc<File>>,
    tree: SharedTree,
}

/// One client.
struct Client {
    world: Rc<World>,
    shared: Rc<Shared>,
    site: FilerId,
    dice: Dice,
    own: Vec<Rc<File>>,
}

/// A call that is repeated until it has an answer: what came before may have been carried out too.
pub async fn insist<T: 'static>(
    world: &World,
    site: FilerId,
    call: impl AsyncFn(Filer) -> Result<T, FsError> + Clone + 'static,
) -> Result<T, FsError> {
    loop {
        let again = call.clone();
        match world.call(site, async move |filer| again(filer).await).await {
            Ok(Err(FsError::Later(_))) | Err(_) => {}
            Ok(answer) => return answer,
        }
        world.coverage.hit("unknown outcomes");
        if world.watch.is_violated() {
            std::future::pending::<()>().await;
        }
        sleep(Duration::from_millis(300)).await;
    }
}

/// Makes a directory below the root, or finds it.
async fn make_dir(world: &World, site: FilerId, name: String) -> Result<Handle, FsError> {
    insist(world, site, async move |filer: Filer| {
        let set = SetAttr { mode: Some(0o755), ..SetAttr::default() };
        match filer.vfs.make(&caller(), ROOT, name.as_bytes(), NewNode::Directory, set).await {
            Err(FsError::Exists) => Ok(filer.vfs.lookup(&caller(), ROOT, name.as_bytes()).await?.handle),
            made => Ok(made?.attr.handle),
        }
    })
    .await
}

/// Makes every client's files, while nothing goes wrong yet.
pub async fn prepare(world: &Rc<World>) -> Result<Rc<Shared>, String> {
    let told = |e: FsError| format!("before anything went wrong: {e}");
    let mut files = Vec::new();
    for site in world.ids() {
        let dir = make_dir(world, site, format!("site-{}", site.0)).await.map_err(told)?;
        for number in 0..world.plan.clients_per_site as usize * FILES {
            let name = format!("file-{number}");
            let made = insist(world, site, async move |filer: Filer| {
                filer.vfs.create(&caller(), dir, name.as_bytes(), SetAttr::default(), CreateHow::Unchecked).await
            });
            let handle = made.await.map_err(told)?.attr.handle;
            files.push(Rc::new(File { handle, history: RefCell::default() }));
        }
    }
    let tree = SharedTree::new(make_dir(world, FilerId(1), "tree-0".into()).await.map_err(told)?);
    Ok(Rc::new(Shared { files, tree }))
}

/// Lets all clients work until the world is healed; returns when each has finished and closed what it had open.
pub async fn work(world: &Rc<World>, shared: &Rc<Shared>) {
    let mut tasks = Vec::new();
    let mut own = shared.files.chunks(FILES);
    for site in world.ids() {
        for number in 0..world.plan.clients_per_site {
            let client = Client {
                world: world.clone(),
                shared: shared.clone(),
                site,
                dice: Dice::of(world.plan.seed, &format!("client {number} at {site}")),
                own: own.next().map(<[_]>::to_vec).unwrap_or_default(),
            };
            tasks.push(tokio::task::spawn_local(async move {
                while !client.world.healed.get() {
                    client.step().await;
                    sleep(Duration::from_millis(client.dice.around(client.world.plan.think_ms))).await;
                }
            }));
        }
    }
    for task in tasks {
        if let Err(error) = task.await
            && error.is_panic()
        {
            world.watch.violate("nothing panics", "a client's task panicked".into());
        }
    }
}

impl Client {
    async fn step(&self) {
        self.world.coverage.hit("operations");
        match self.dice.below(10) {
            0..=3 => self.write_session().await,
            4..=6 => self.read_somebodys().await,
            _ => self.shared.tree.step(&self.world, self.site, &self.dice).await,
        }
    }

    fn wrong(&self, what: String) {
        self.world.watch.violate("reads give what was written", format!("a client at filer {}: {what}", self.site));
    }
}

/// Reads a whole file as a new open does: attributes first.
pub async fn read_all(filer: &Filer, file: Handle, pieces: u32) -> Result<(usize, Bytes), FsError> {
    let bytes = filer.vfs.getattr(&caller(), file).await?.bytes;
    let mut whole = Vec::new();
    while (whole.len() as u64) < bytes {
        let read = filer.vfs.read(&caller(), file, whole.len() as u64, pieces).await?;
        whole.extend_from_slice(&read.data);
        if read.data.is_empty() {
            break;
        }
    }
    Ok((bytes as usize, whole.into()))
}

/// After healing: every site reads every file as it was closed.
pub async fn audit(world: &Rc<World>, shared: &Shared) -> Result<(), String> {
    for site in world.ids() {
        for file in &shared.files {
            let handle = file.handle;
            let read = insist(world, site, async move |filer: Filer| read_all(&filer, handle, 64 << 10).await).await;
            let (_, got) = read.map_err(|e| format!("inode {} at filer {site}: {e}", handle.ino))?;
            let history = file.history.borrow();
            let asked = got.len().max(history.bytes());
            let checked = history.check_own(0, &got, asked);
            checked.map_err(|why| format!("inode {} at filer {site}, after healing: {why}", handle.ino))?;
            world.coverage.hit("reads verified");
            world.coverage.add("bytes verified", got.len() as u64);
        }
    }
    Ok(())
}
