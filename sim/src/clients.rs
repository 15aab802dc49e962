//! What clients do, all at once and at every site: files are written, cut, closed and read; names are made, moved, removed.
//!
//! A client behaves as an NFS client does: it asks again when it is told to come later; when its filer has started anew it
//! sends again what was not closed. Each answer is held against what may be (`invariants`).

mod files;
mod tree;

use crate::{dice::Dice, invariants::FileHistory, run::nothing_panicked, world::World};
use bytes::Bytes;
use filer::{
    filer::Filer,
    fs::{Caller, CreateHow, FileSystem, FsError, SetAttr},
};
use mesh::FilerId;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    rc::Rc,
    time::Duration,
};
use storage::cloudfs::{Handle, NewNode, ROOT, read};
use tokio::time::sleep;
use tree::SharedTree;

/// Names that a directory has at most here.
const NAMES_MAX: usize = 1_000;
/// Files of each client.
const FILES: usize = 3;

/// The user that all clients are.
pub fn caller() -> Caller {
    Caller { uid: 1000, gid: 1000, groups: Vec::new(), client: None }
}

/// A file and what was done to it.
pub struct File {
    pub handle: Handle,
    pub dir: Handle,
    /// It has a new one now and then.
    pub name: RefCell<String>,
    /// Whose client has it open for writing, or had it last.
    pub writer: Cell<FilerId>,
    /// It is open for writing: so it stays for ever when that client is lost with its site.
    pub is_open: Cell<bool>,
    /// Whose clients have written to it.
    sites: RefCell<BTreeSet<FilerId>>,
    pub history: RefCell<FileHistory>,
    /// Its name is removed: by its client, or by an operator, since a part of it is lost with its filer.
    pub removed: Cell<bool>,
}

/// What all clients share.
pub struct Shared {
    /// Of all clients.
    files: RefCell<Vec<Rc<File>>>,
    tree: SharedTree,
}

/// One client.
struct Client {
    world: Rc<World>,
    shared: Rc<Shared>,
    site: FilerId,
    dice: Dice,
    own: RefCell<Vec<Rc<File>>>,
}

/// A call that is repeated until it has an answer: what came before may have been carried out too.
pub async fn insist<T: 'static>(
    world: &World,
    site: FilerId,
    call: impl AsyncFn(Filer) -> Result<T, FsError> + Clone + 'static,
) -> Result<T, FsError> {
    let _wait = world.waits(site);
    loop {
        let again = call.clone();
        match world.call(site, async move |filer| again(filer).await).await {
            Ok(Err(FsError::Later(_))) | Err(_) => world.coverage.hit("unknown outcomes"),
            Ok(Err(FsError::NoSpace(_))) => world.coverage.hit("writes without room"),
            Ok(answer) => return answer,
        }
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

/// Makes the files of a site's clients.
async fn make_files(world: &World, site: FilerId) -> Result<Vec<Rc<File>>, FsError> {
    let mut files = Vec::new();
    let dir = make_dir(world, site, format!("site-{}", site.0)).await?;
    for number in 0..world.plan.clients_per_site as usize * FILES {
        files.push(make_file(world, site, dir, format!("file-{number}")).await?);
    }
    Ok(files)
}

/// Makes a file, or finds the one of this name.
async fn make_file(world: &World, site: FilerId, dir: Handle, name: String) -> Result<Rc<File>, FsError> {
    let called = name.clone();
    let made = insist(world, site, async move |filer: Filer| {
        filer.vfs.create(&caller(), dir, called.as_bytes(), SetAttr::default(), CreateHow::Unchecked).await
    });
    let handle = made.await?.attr.handle;
    let (history, removed, is_open) = Default::default();
    let (writer, sites) = (Cell::new(site), RefCell::new(BTreeSet::from([site])));
    Ok(Rc::new(File { handle, dir, name: RefCell::new(name), writer, is_open, sites, history, removed }))
}

/// Makes every client's files, while nothing goes wrong yet.
pub async fn prepare(world: &Rc<World>) -> Result<Rc<Shared>, String> {
    let told = |e: FsError| format!("before anything went wrong: {e}");
    let mut files = Vec::new();
    for site in world.ids() {
        files.extend(make_files(world, site).await.map_err(told)?);
    }
    let tree = SharedTree::new(make_dir(world, FilerId(1), "tree-0".into()).await.map_err(told)?);
    Ok(Rc::new(Shared { files: RefCell::new(files), tree }))
}

/// All clients of a site; those of one that was added make their files first.
async fn work_at(world: &Rc<World>, shared: &Rc<Shared>, site: FilerId) {
    let mut own: Vec<_> = shared.files().into_iter().filter(|file| file.writer.get() == site).collect();
    if own.is_empty() {
        own = match make_files(world, site).await {
            Ok(files) => files,
            Err(error) => return world.watch.violate("progress", format!("files at filer {site}: {error}")),
        };
        shared.files.borrow_mut().extend(own.iter().cloned());
    }
    let client = |(number, own): (usize, &[Rc<File>])| Client {
        world: world.clone(),
        shared: shared.clone(),
        site,
        dice: Dice::of(world.plan.seed, &format!("client {number} at {site}")),
        own: RefCell::new(own.to_vec()),
    };
    let clients: Vec<Client> = own.chunks(FILES).enumerate().map(client).collect();
    futures::future::join_all(clients.iter().map(Client::work)).await;
}

impl Shared {
    /// All files that there are by now.
    pub fn files(&self) -> Vec<Rc<File>> {
        self.files.borrow().clone()
    }

    /// After healing: at a site all names are what the answers of before say.
    pub async fn audit_names(&self, world: &Rc<World>, site: FilerId) {
        self.tree.audit(world, site).await;
    }
}

/// Lets all clients work until the world is healed, those of sites that are added meanwhile too; returns when each has
/// finished and closed what it had open. With a lost site go its clients.
pub async fn work(world: &Rc<World>, shared: &Rc<Shared>) {
    let (mut tasks, mut known) = (Vec::new(), BTreeSet::new());
    while !world.healed.get() {
        for site in world.ids() {
            if !known.insert(site) {
                continue;
            }
            let (world, shared) = (world.clone(), shared.clone());
            tasks.push(tokio::task::spawn_local(async move {
                tokio::select! {
                    biased;
                    () = world.lost(site) => {}
                    () = work_at(&world, &shared, site) => {}
                }
            }));
        }
        sleep(Duration::from_millis(500)).await;
    }
    for task in tasks {
        // One that panicked was seen to.
        let _ = task.await;
        nothing_panicked(world);
    }
}

impl Client {
    async fn work(&self) {
        let mut operations = 0;
        while !self.world.healed.get() && self.world.plan.operations_max.is_none_or(|max| operations < max) {
            self.step().await;
            operations += 1;
            sleep(Duration::from_millis(self.dice.around(self.world.plan.think_ms))).await;
        }
    }

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

/// The name that a handle has in a directory.
pub async fn name_of(filer: &Filer, dir: Handle, handle: Handle) -> Result<Option<Vec<u8>>, FsError> {
    let page = filer.vfs.readdir(&caller(), dir, 0, NAMES_MAX, true).await?;
    let is_it = |entry: &filer::fs::DirEntry| entry.attr.as_ref().is_some_and(|attr| attr.handle == handle);
    Ok(page.entries.into_iter().find(is_it).map(|entry| entry.name.to_vec()))
}

/// After healing: every site reads every file as it was closed. Of a client that is lost with its site, what it had not
/// closed may be there or not.
pub async fn audit(world: &Rc<World>, shared: &Shared) -> Result<(), String> {
    for site in world.ids() {
        for file in shared.files().iter().filter(|file| !file.removed.get()) {
            let handle = file.handle;
            let read = insist(world, site, async move |filer: Filer| read_all(&filer, handle, 64 << 10).await).await;
            let (_, got) = match read {
                Err(FsError::Io(_)) if file.may_fail_at_rest(world) => continue,
                read => read.map_err(|e| format!("inode {} at filer {site}: {e}", handle.ino))?,
            };
            let checked = file.check_at_rest(&got);
            checked.map_err(|why| format!("inode {} at filer {site}, after healing: {why}", handle.ino))?;
            world.coverage.hit("reads verified");
            world.coverage.add("bytes verified", got.len() as u64);
            file.check_name(world, site).await?;
        }
    }
    Ok(())
}

impl File {
    /// Checks all of its content when nobody writes to it any more.
    pub fn check_at_rest(&self, got: &[u8]) -> Result<(), String> {
        let history = self.history.borrow();
        if !self.is_open.get() {
            return history.check_own(0, got, got.len().max(history.bytes()));
        }
        let opened = history.open();
        history.check_length(&opened, got.len())?;
        history.check(&opened, 0, got)
    }

    /// Whether an error is what a client may get: it is removed, or a part of it is lost with its filer, or by its filer's disk.
    pub fn excuses(&self, world: &World, error: &FsError) -> bool {
        let may_lack = |site: &FilerId| world.has_bad_disk(*site) || world.is_mourning() && world.is_lost(*site);
        self.removed.get() || matches!(error, FsError::Io(_)) && self.sites.borrow().iter().any(may_lack)
    }

    /// Checks that it is found by its name. Of a client that is lost while it gives it a new one, either is right.
    async fn check_name(&self, world: &World, site: FilerId) -> Result<(), String> {
        let (dir, handle, name) = (self.dir, self.handle, self.name.borrow().clone());
        if self.is_open.get() {
            let named = insist(world, site, async move |filer: Filer| name_of(&filer, dir, handle).await).await;
            return match named {
                Ok(Some(_)) => Ok(()),
                other => Err(format!("inode {} has no name at filer {site}: {other:?}", handle.ino)),
            };
        }
        let called = name.clone();
        let found =
            insist(world, site, async move |filer: Filer| filer.vfs.lookup(&caller(), dir, called.as_bytes()).await);
        world.coverage.hit("names verified");
        match found.await {
            Ok(found) if found.handle == self.handle => Ok(()),
            found => Err(format!("inode {} is to be {name} at filer {site}, and there is {found:?}", self.handle.ino)),
        }
    }

    /// The same when nobody writes to it any more, and all is well: a part of what it consists of now is lost.
    fn may_fail_at_rest(&self, world: &World) -> bool {
        let extents = read::extents(&world.newest_tables(), self.handle.ino, 0..u64::MAX).unwrap_or_default();
        extents.iter().any(|extent| world.may_be_lost(extent))
    }
}
