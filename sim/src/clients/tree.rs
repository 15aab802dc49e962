//! Clients' work on names: a small directory tree that all of them change at once.
//!
//! An operation without an answer may have happened or not; when a tree has had a few of those, clients go on in a new one.

use super::{caller, make_dir};
use crate::{
    dice::Dice,
    invariants::names::{Name, NameOp, Names, Node, Refusal, Seen},
    world::World,
};
use filer::{
    filer::Filer,
    fs::{CreateHow, FileSystem, FsError, SetAttr},
};
use mesh::FilerId;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};
use storage::cloudfs::{Attr, Handle, NewNode, NodeKind};
use tokio::time::sleep;

/// Operations without an answer after which a tree is left alone.
const UNANSWERED_MAX: usize = 3;
/// Time between two attempts to look at what must be there.
const AGAIN: Duration = Duration::from_millis(300);
/// Operations at one time: each multiplies what is possible.
const AT_ONCE_MAX: u32 = 4;
/// Names of files, and of directories.
const FILE_NAMES: u64 = 5;
const DIR_NAMES: [Name; 2] = [100, 101];

struct Tree {
    root: Handle,
    names: RefCell<Names>,
    under_way: Cell<u32>,
}

/// The tree that clients share now, and those before it.
pub struct SharedTree {
    all: RefCell<Vec<Rc<Tree>>>,
    number: Cell<u32>,
    replacing: Cell<bool>,
}

fn tree(root: Handle) -> Rc<Tree> {
    Rc::new(Tree { root, names: RefCell::default(), under_way: Cell::new(0) })
}

fn text(name: Name) -> Vec<u8> {
    format!("n{name}").into_bytes()
}

fn number(text: &[u8]) -> Option<Name> {
    std::str::from_utf8(text).ok()?.strip_prefix('n')?.parse().ok()
}

impl SharedTree {
    pub fn new(root: Handle) -> Self {
        Self { all: RefCell::new(vec![tree(root)]), number: Cell::new(0), replacing: Cell::new(false) }
    }

    fn now(&self) -> Rc<Tree> {
        self.all.borrow().last().expect("there is one from the beginning on").clone()
    }

    /// After healing: at a site each tree is what the answers of before say.
    pub async fn audit(&self, world: &Rc<World>, site: FilerId) {
        let all = self.all.borrow().clone();
        for tree in all {
            tree.audit(world, site).await;
        }
    }

    /// One operation of a client.
    pub async fn step(&self, world: &Rc<World>, site: FilerId, dice: &Dice) {
        let now = self.now();
        if now.names.borrow().unanswered_count() >= UNANSWERED_MAX {
            if !self.replacing.replace(true) {
                let _replacing = Replacing(&self.replacing);
                self.number.set(self.number.get() + 1);
                let name = format!("tree-{}", self.number.get());
                match make_dir(world, site, name).await {
                    Ok(root) => self.all.borrow_mut().push(tree(root)),
                    Err(error) => world.watch.violate("names are what the answers say", format!("a new tree: {error}")),
                }
            }
            return;
        }
        if now.under_way.get() >= AT_ONCE_MAX {
            return;
        }
        let _under_way = UnderWay::begin(&now);
        now.step(world, site, dice).await;
    }
}

impl Tree {
    /// Draws an operation that the client can ask for, as far as it knows.
    fn draw(&self, dice: &Dice) -> NameOp {
        let names = self.names.borrow();
        let mut dirs: Vec<Node> =
            names.believed_dirs().into_iter().filter(|dir| names.handle(*dir).is_some()).collect();
        dirs.push(0);
        let file = || dice.below(FILE_NAMES) as Name;
        let place = || (*dice.pick(&dirs), file());
        let known: Vec<Node> = names.belief().into_values().filter(|node| !dirs.contains(node)).collect();
        let (dir, name) = place();
        match dice.below(16) {
            0..=3 => NameOp::Create { dir, name },
            4 | 5 => NameOp::Remove { dir, name },
            6 | 7 => NameOp::Rename { from: (dir, name), to: place() },
            8 if known.iter().any(|node| names.handle(*node).is_some()) => {
                let known: Vec<Node> = known.into_iter().filter(|node| names.handle(*node).is_some()).collect();
                NameOp::Link { node: *dice.pick(&known), dir, name }
            }
            9 => NameOp::MakeDir { dir, name: *dice.pick(&DIR_NAMES) },
            10 => NameOp::RemoveDir { dir, name: *dice.pick(&DIR_NAMES) },
            11 => {
                NameOp::Rename { from: (dir, *dice.pick(&DIR_NAMES)), to: (*dice.pick(&dirs), *dice.pick(&DIR_NAMES)) }
            }
            12 => NameOp::List { dir },
            _ => NameOp::Lookup { dir, name },
        }
    }

    fn handle(&self, node: Node) -> Handle {
        if node == 0 { self.root } else { self.names.borrow().handle(node).unwrap_or(self.root) }
    }

    async fn step(&self, world: &Rc<World>, site: FilerId, dice: &Dice) {
        let op = self.draw(dice);
        self.ask(world, site, op).await;
    }

    /// Looks at all of it.
    async fn audit(&self, world: &Rc<World>, site: FilerId) {
        let mut looks: Vec<NameOp> = {
            let names = self.names.borrow();
            let known = names.believed_dirs().into_iter().filter(|dir| names.handle(*dir).is_some());
            let lists = known.chain([0]).map(|dir| NameOp::List { dir });
            let believed = names.belief().into_keys().filter(|(dir, _)| *dir == 0 || names.handle(*dir).is_some());
            lists.chain(believed.map(|(dir, name)| NameOp::Lookup { dir, name })).collect()
        };
        while let Some(op) = looks.pop() {
            while !self.ask(world, site, op).await && !world.watch.is_violated() {
                sleep(AGAIN).await;
            }
            world.coverage.hit("names verified");
        }
    }

    /// Asks for an operation, and holds its answer against what may be; whether it was answered.
    async fn ask(&self, world: &Rc<World>, site: FilerId, op: NameOp) -> bool {
        let at = |node: Node| self.handle(node);
        let call = match op {
            NameOp::Create { dir, name } => Call::Create(at(dir), text(name)),
            NameOp::MakeDir { dir, name } => Call::MakeDir(at(dir), text(name)),
            NameOp::Remove { dir, name } => Call::Remove(at(dir), text(name)),
            NameOp::RemoveDir { dir, name } => Call::RemoveDir(at(dir), text(name)),
            NameOp::Rename { from, to } => Call::Rename((at(from.0), text(from.1)), (at(to.0), text(to.1))),
            NameOp::Link { node, dir, name } => Call::Link(at(node), at(dir), text(name)),
            NameOp::Lookup { dir, name } => Call::Lookup(at(dir), text(name)),
            NameOp::List { dir } => Call::List(at(dir)),
        };
        let number = self.names.borrow_mut().call(op);
        let mut asked = Asked { tree: self, number, answered: false };
        world.trace.note(site, format_args!("names {number}: {op:?}"));
        let answer = world.call(site, async move |filer| call.make(filer).await).await;
        world.trace.note(site, format_args!("names {number}: {answer:?}"));
        let seen = match answer {
            Err(_) | Ok(Err(FsError::Later(_))) => {
                world.coverage.hit("unknown outcomes");
                return false;
            }
            Ok(Ok(seen)) => seen,
            Ok(Err(FsError::Stale)) => Seen::Refused(Refusal::Stale),
            Ok(Err(FsError::NoEntry)) => Seen::Refused(Refusal::NoEntry),
            Ok(Err(FsError::Exists)) => Seen::Refused(Refusal::Exists),
            Ok(Err(FsError::NotEmpty)) => Seen::Refused(Refusal::NotEmpty),
            Ok(Err(FsError::Invalid(_))) => Seen::Refused(Refusal::Invalid),
            Ok(Err(error)) => {
                world.watch.violate("names are what the answers say", format!("{op:?}: {error}"));
                return false;
            }
        };
        asked.answered = true;
        let answered = self.names.borrow_mut().answered(number, seen);
        if let Err(what) = answered {
            world.watch.violate("names are what the answers say", format!("at filer {site}: {what}"));
        }
        true
    }
}

/// A client makes a new tree for all.
struct Replacing<'a>(&'a Cell<bool>);

impl Drop for Replacing<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// One of the operations at one time.
struct UnderWay<'a>(&'a Tree);

impl<'a> UnderWay<'a> {
    fn begin(tree: &'a Tree) -> Self {
        tree.under_way.set(tree.under_way.get() + 1);
        Self(tree)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
    }
}

/// An operation that was asked for: its client may be lost before the answer.
struct Asked<'a> {
    tree: &'a Tree,
    number: u32,
    answered: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.tree.names.borrow_mut().unanswered(self.number);
        }
    }
}

/// An operation with its handles.
enum Call {
    Create(Handle, Vec<u8>),
    MakeDir(Handle, Vec<u8>),
    Remove(Handle, Vec<u8>),
    RemoveDir(Handle, Vec<u8>),
    Rename((Handle, Vec<u8>), (Handle, Vec<u8>)),
    Link(Handle, Handle, Vec<u8>),
    Lookup(Handle, Vec<u8>),
    List(Handle),
}

fn object(attr: &Attr) -> Seen {
    Seen::Object(attr.handle, if matches!(attr.kind, NodeKind::Directory { .. }) { 0 } else { attr.nlink })
}

impl Call {
    async fn make(self, filer: Filer) -> Result<Seen, FsError> {
        let (vfs, who) = (&filer.vfs, caller());
        Ok(match self {
            Self::Create(dir, name) => {
                object(&vfs.create(&who, dir, &name, SetAttr::default(), CreateHow::Guarded).await?.attr)
            }
            Self::MakeDir(dir, name) => {
                object(&vfs.make(&who, dir, &name, NewNode::Directory, SetAttr::default()).await?.attr)
            }
            Self::Remove(dir, name) => vfs.remove(&who, dir, &name).await.map(|_| Seen::Done)?,
            Self::RemoveDir(dir, name) => vfs.rmdir(&who, dir, &name).await.map(|_| Seen::Done)?,
            Self::Rename(from, to) => vfs.rename(&who, (from.0, &from.1), (to.0, &to.1)).await.map(|_| Seen::Done)?,
            Self::Link(file, dir, name) => object(&vfs.link(&who, file, dir, &name).await?.attr),
            Self::Lookup(dir, name) => object(&vfs.lookup(&who, dir, &name).await?),
            Self::List(dir) => {
                let page = vfs.readdir(&who, dir, 0, 1000, true).await?;
                let named = page.entries.iter().filter_map(|entry| Some((number(&entry.name)?, entry)));
                let handle = |entry: &filer::fs::DirEntry| entry.attr.as_ref().map(|attr| attr.handle);
                Seen::Names(named.filter_map(|(name, entry)| Some((name, handle(entry)?))).collect())
            }
        })
    }
}
