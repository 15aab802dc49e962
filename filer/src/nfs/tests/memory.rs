//! A tree in memory: the smallest thing that behaves as [`FileSystem`] says.

use crate::fs::*;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use storage::cloudfs::{Attr, Handle, NewNode, NodeKind, ROOT, SetTime};
use tokio::sync::{Notify, Semaphore};

struct Node {
    attr: Attr,
    content: Vec<u8>,
    /// Name to (cookie, ino).
    names: BTreeMap<Vec<u8>, (u64, u64)>,
}

struct Tree {
    nodes: BTreeMap<u64, Node>,
    ino_next: u64,
    cookie_next: u64,
    now_ns: u64,
}

/// The tree, with handles for tests.
pub struct Memory {
    tree: Mutex<Tree>,
    pub verifier: AtomicU64,
    /// Every call answers [`FsError::Later`].
    pub later: AtomicBool,
    /// Removes wait for a permit each, while true.
    pub hold_removes: AtomicBool,
    pub removes_held: Notify,
    pub let_removes_go: Semaphore,
    /// Removes that ran.
    pub removes: AtomicU64,
    pub reads: Hold,
    pub writes: Hold,
}

/// Where calls of one kind wait for a permit each, while it is on.
pub struct Hold {
    pub on: AtomicBool,
    pub held: Notify,
    pub go: Semaphore,
}

impl Hold {
    fn new() -> Self {
        Self { on: AtomicBool::new(false), held: Notify::new(), go: Semaphore::new(0) }
    }

    async fn pass(&self) {
        if self.on.load(Ordering::SeqCst) {
            self.held.notify_one();
            self.go.acquire().await.expect("never closed").forget();
        }
    }
}

fn denied(attr: &Attr, caller: &Caller, wanted: u32) -> bool {
    let shift = if caller.uid == attr.uid {
        6
    } else if caller.gid == attr.gid || caller.groups.contains(&attr.gid) {
        3
    } else {
        0
    };
    caller.uid != 0 && (attr.mode >> shift) & wanted != wanted
}

/// Largest file of this tree, in bytes.
const CONTENT_BYTES_MAX: u64 = 64 << 20;

fn check_size(bytes: Option<u64>) -> Result<(), FsError> {
    if bytes > Some(CONTENT_BYTES_MAX) { Err(FsError::TooLarge) } else { Ok(()) }
}

const R: u32 = 4;
const W: u32 = 2;
const X: u32 = 1;

fn before(attr: &Attr) -> Before {
    Before { bytes: attr.bytes, mtime_ns: attr.mtime_ns, ctime_ns: attr.ctime_ns }
}

impl Memory {
    /// An empty root directory that everyone may change.
    pub fn new() -> Self {
        let attr = Attr {
            handle: ROOT,
            kind: NodeKind::Directory { parent: ROOT.ino },
            mode: 0o777,
            nlink: 2,
            uid: 0,
            gid: 0,
            bytes: 0,
            atime_ns: 1,
            mtime_ns: 1,
            ctime_ns: 1,
            create_verifier: None,
        };
        let root = Node { attr, content: Vec::new(), names: BTreeMap::new() };
        let nodes = BTreeMap::from([(ROOT.ino, root)]);
        Self {
            tree: Mutex::new(Tree { nodes, ino_next: 2, cookie_next: 3, now_ns: 1_000_000_007 }),
            verifier: AtomicU64::new(0x1122_3344_5566_7788),
            later: AtomicBool::new(false),
            hold_removes: AtomicBool::new(false),
            removes_held: Notify::new(),
            let_removes_go: Semaphore::new(0),
            removes: AtomicU64::new(0),
            reads: Hold::new(),
            writes: Hold::new(),
        }
    }

    fn tree(&self) -> Result<MutexGuard<'_, Tree>, FsError> {
        if self.later.load(Ordering::SeqCst) {
            return Err(FsError::Later("no majority".into()));
        }
        let mut tree = self.tree.lock().expect("no test panics inside");
        tree.now_ns += 1;
        Ok(tree)
    }

    /// A directory made by root.
    pub fn add_directory(&self, dir: Handle, name: &str, mode: u32) -> Handle {
        let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
        let root = Caller { uid: 0, gid: 0, groups: Vec::new(), client: None };
        let kind = NodeKind::Directory { parent: dir.ino };
        let mut tree = self.tree().expect("not later");
        tree.add(&root, dir, name.as_bytes(), kind, &set).expect("a new name").attr.handle
    }

    /// A file's attributes and content, for checks behind the server's back.
    pub fn content(&self, name: &str) -> Option<(Attr, Vec<u8>)> {
        let tree = self.tree().expect("not later");
        let (_, ino) = tree.nodes[&ROOT.ino].names.get(name.as_bytes())?;
        let node = &tree.nodes[ino];
        Some((node.attr.clone(), node.content.clone()))
    }
}

impl Tree {
    fn node(&mut self, handle: Handle) -> Result<&mut Node, FsError> {
        let node = self.nodes.get_mut(&handle.ino).ok_or(FsError::Stale)?;
        if node.attr.handle == handle { Ok(node) } else { Err(FsError::Stale) }
    }

    fn dir(&mut self, caller: &Caller, handle: Handle, wanted: u32) -> Result<&mut Node, FsError> {
        let node = self.node(handle)?;
        if !matches!(node.attr.kind, NodeKind::Directory { .. }) {
            return Err(FsError::NotDirectory);
        }
        if denied(&node.attr, caller, wanted) { Err(FsError::Access) } else { Ok(node) }
    }

    fn touch(&mut self, ino: u64) -> Attr {
        let now_ns = self.now_ns;
        let attr = &mut self.nodes.get_mut(&ino).expect("held by the caller").attr;
        (attr.mtime_ns, attr.ctime_ns) = (now_ns, now_ns);
        attr.clone()
    }

    fn find(&mut self, caller: &Caller, dir: Handle, name: &[u8]) -> Result<Attr, FsError> {
        let node = self.dir(caller, dir, X)?;
        let ino = match (name, &node.attr.kind) {
            (b".", _) => dir.ino,
            (b"..", NodeKind::Directory { parent }) => *parent,
            _ => node.names.get(name).ok_or(FsError::NoEntry)?.1,
        };
        Ok(self.nodes[&ino].attr.clone())
    }

    fn insert(&mut self, dir: Handle, name: &[u8], ino: u64) -> Result<Changed, FsError> {
        let cookie = self.cookie_next;
        self.cookie_next += 1;
        let node = self.node(dir)?;
        let before = before(&node.attr);
        node.names.insert(name.to_vec(), (cookie, ino));
        Ok(Changed { before: Some(before), after: Some(self.touch(dir.ino)) })
    }

    fn add(
        &mut self,
        caller: &Caller,
        dir: Handle,
        name: &[u8],
        kind: NodeKind,
        set: &SetAttr,
    ) -> Result<Made, FsError> {
        if self.dir(caller, dir, W | X)?.names.contains_key(name) {
            return Err(FsError::Exists);
        }
        let ino = self.ino_next;
        self.ino_next += 1;
        let target_bytes = if let NodeKind::Symlink { target } = &kind { target.len() as u64 } else { 0 };
        let directory = matches!(kind, NodeKind::Directory { .. });
        let attr = Attr {
            handle: Handle { ino, generation: 1 },
            kind,
            mode: 0o644,
            nlink: if directory { 2 } else { 1 },
            uid: caller.uid,
            gid: caller.gid,
            bytes: target_bytes,
            atime_ns: self.now_ns,
            mtime_ns: self.now_ns,
            ctime_ns: self.now_ns,
            create_verifier: None,
        };
        self.nodes.insert(ino, Node { attr, content: Vec::new(), names: BTreeMap::new() });
        self.set(ino, set);
        let directory = self.insert(dir, name, ino)?;
        Ok(Made { attr: self.nodes[&ino].attr.clone(), directory })
    }

    fn set(&mut self, ino: u64, set: &SetAttr) {
        let now_ns = self.now_ns;
        let time = |wanted: SetTime, old: u64| match wanted {
            SetTime::Keep => old,
            SetTime::Now => now_ns,
            SetTime::To { ns } => ns,
        };
        let node = self.nodes.get_mut(&ino).expect("held by the caller");
        let attr = &mut node.attr;
        attr.mode = set.mode.unwrap_or(attr.mode);
        attr.uid = set.uid.unwrap_or(attr.uid);
        attr.gid = set.gid.unwrap_or(attr.gid);
        attr.atime_ns = time(set.times.atime, attr.atime_ns);
        attr.mtime_ns = time(set.times.mtime, attr.mtime_ns);
        if let Some(bytes) = set.bytes {
            node.content.resize(usize::try_from(bytes).expect("tests use short files"), 0);
            attr.bytes = bytes;
        }
        attr.ctime_ns = now_ns;
    }

    fn unlink(&mut self, caller: &Caller, dir: Handle, name: &[u8], directory: bool) -> Result<Changed, FsError> {
        let victim = self.find(caller, dir, name)?;
        match (matches!(victim.kind, NodeKind::Directory { .. }), directory) {
            (true, false) => return Err(FsError::IsDirectory),
            (false, true) => return Err(FsError::NotDirectory),
            _ => {}
        }
        if !self.nodes[&victim.handle.ino].names.is_empty() {
            return Err(FsError::NotEmpty);
        }
        let node = self.dir(caller, dir, W | X)?;
        let before = before(&node.attr);
        node.names.remove(name);
        let left = self.node(victim.handle)?;
        left.attr.nlink -= 1;
        if left.attr.nlink == 0 || directory {
            self.nodes.remove(&victim.handle.ino);
        }
        Ok(Changed { before: Some(before), after: Some(self.touch(dir.ino)) })
    }
}

#[async_trait::async_trait]
impl FileSystem for Memory {
    fn root(&self) -> Handle {
        ROOT
    }

    fn write_verifier(&self) -> u64 {
        self.verifier.load(Ordering::SeqCst)
    }

    async fn getattr(&self, _caller: &Caller, file: Handle) -> Result<Attr, FsError> {
        Ok(self.tree()?.node(file)?.attr.clone())
    }

    async fn setattr(
        &self,
        caller: &Caller,
        file: Handle,
        set: SetAttr,
        guard_ctime_ns: Option<u64>,
    ) -> Result<Changed, FsError> {
        check_size(set.bytes)?;
        let mut tree = self.tree()?;
        let attr = tree.node(file)?.attr.clone();
        if guard_ctime_ns.is_some_and(|guard| guard != attr.ctime_ns) {
            return Err(FsError::NotSync);
        }
        if caller.uid != 0 && caller.uid != attr.uid {
            return Err(FsError::NotOwner);
        }
        tree.set(file.ino, &set);
        Ok(Changed { before: Some(before(&attr)), after: Some(tree.nodes[&file.ino].attr.clone()) })
    }

    async fn lookup(&self, caller: &Caller, dir: Handle, name: &[u8]) -> Result<Attr, FsError> {
        self.tree()?.find(caller, dir, name)
    }

    async fn access(&self, caller: &Caller, file: Handle, wanted: u32) -> Result<(u32, Attr), FsError> {
        let attr = self.tree()?.node(file)?.attr.clone();
        let mut granted = 0;
        for (bits, right) in [
            (access::READ, R),
            (access::MODIFY | access::EXTEND | access::DELETE, W),
            (access::EXECUTE | access::LOOKUP, X),
        ] {
            granted |= if denied(&attr, caller, right) { 0 } else { bits };
        }
        Ok((granted & wanted, attr))
    }

    async fn readlink(&self, _caller: &Caller, file: Handle) -> Result<(Bytes, Attr), FsError> {
        let attr = self.tree()?.node(file)?.attr.clone();
        match &attr.kind {
            NodeKind::Symlink { target } => Ok((target.clone().into(), attr)),
            _ => Err(FsError::Invalid("not a symbolic link".into())),
        }
    }

    async fn read(&self, caller: &Caller, file: Handle, offset: u64, len: u32) -> Result<ReadData, FsError> {
        self.reads.pass().await;
        let mut tree = self.tree()?;
        let node = tree.node(file)?;
        if denied(&node.attr, caller, R) {
            return Err(FsError::Access);
        }
        if matches!(node.attr.kind, NodeKind::Directory { .. }) {
            return Err(FsError::IsDirectory);
        }
        let start = usize::try_from(offset).expect("64 bits").min(node.content.len());
        let end = start.saturating_add(len as usize).min(node.content.len());
        let data = Bytes::copy_from_slice(&node.content[start..end]);
        Ok(ReadData { data, end_of_file: end == node.content.len(), attr: node.attr.clone() })
    }

    async fn write(
        &self,
        caller: &Caller,
        file: Handle,
        offset: u64,
        data: Bytes,
        stable: Stable,
    ) -> Result<Written, FsError> {
        self.writes.pass().await;
        let mut tree = self.tree()?;
        let node = tree.node(file)?;
        if denied(&node.attr, caller, W) {
            return Err(FsError::Access);
        }
        check_size(Some(offset + data.len() as u64))?;
        let before = before(&node.attr);
        let start = usize::try_from(offset).expect("64 bits");
        let len = node.content.len().max(start + data.len());
        node.content.resize(len, 0);
        node.content[start..start + data.len()].copy_from_slice(&data);
        node.attr.bytes = len as u64;
        let change = Changed { before: Some(before), after: Some(tree.touch(file.ino)) };
        let bytes = u32::try_from(data.len()).expect("one record");
        Ok(Written { bytes, stable, change, verifier: self.write_verifier() })
    }

    async fn commit(&self, _caller: &Caller, file: Handle) -> Result<Changed, FsError> {
        let attr = self.tree()?.node(file)?.attr.clone();
        Ok(Changed { before: Some(before(&attr)), after: Some(attr) })
    }

    async fn create(
        &self,
        caller: &Caller,
        dir: Handle,
        name: &[u8],
        set: SetAttr,
        how: CreateHow,
    ) -> Result<Made, FsError> {
        check_size(set.bytes)?;
        let mut tree = self.tree()?;
        let directory = tree.dir(caller, dir, X)?.attr.clone();
        let unchanged = Changed { before: Some(before(&directory)), after: Some(directory) };
        match (tree.find(caller, dir, name), how) {
            (Err(FsError::NoEntry), how) => {
                let mut made = tree.add(caller, dir, name, NodeKind::File, &set)?;
                if let CreateHow::Exclusive { verifier } = how {
                    made.attr.create_verifier = Some(verifier);
                    tree.node(made.attr.handle)?.attr.create_verifier = Some(verifier);
                }
                Ok(made)
            }
            (Ok(attr), CreateHow::Unchecked) => {
                tree.set(attr.handle.ino, &SetAttr { bytes: set.bytes, ..SetAttr::default() });
                Ok(Made { attr: tree.node(attr.handle)?.attr.clone(), directory: unchanged })
            }
            (Ok(attr), CreateHow::Exclusive { verifier }) if attr.create_verifier == Some(verifier) => {
                Ok(Made { attr, directory: unchanged })
            }
            (Ok(_), _) => Err(FsError::Exists),
            (Err(error), _) => Err(error),
        }
    }

    async fn make(
        &self,
        caller: &Caller,
        dir: Handle,
        name: &[u8],
        node: NewNode,
        set: SetAttr,
    ) -> Result<Made, FsError> {
        let kind = match node {
            NewNode::Directory => NodeKind::Directory { parent: dir.ino },
            NewNode::Symlink { target } => NodeKind::Symlink { target },
            NewNode::Fifo => NodeKind::Fifo,
            NewNode::Socket => NodeKind::Socket,
            NewNode::BlockDevice { major, minor } => NodeKind::BlockDevice { major, minor },
            NewNode::CharacterDevice { major, minor } => NodeKind::CharacterDevice { major, minor },
        };
        check_size(set.bytes)?;
        self.tree()?.add(caller, dir, name, kind, &set)
    }

    async fn remove(&self, caller: &Caller, dir: Handle, name: &[u8]) -> Result<Changed, FsError> {
        if self.hold_removes.load(Ordering::SeqCst) {
            self.removes_held.notify_one();
            self.let_removes_go.acquire().await.expect("never closed").forget();
        }
        self.removes.fetch_add(1, Ordering::SeqCst);
        self.tree()?.unlink(caller, dir, name, false)
    }

    async fn rmdir(&self, caller: &Caller, dir: Handle, name: &[u8]) -> Result<Changed, FsError> {
        self.tree()?.unlink(caller, dir, name, true)
    }

    async fn rename(
        &self,
        caller: &Caller,
        from: (Handle, &[u8]),
        to: (Handle, &[u8]),
    ) -> Result<(Changed, Changed), FsError> {
        let mut tree = self.tree()?;
        let moved = tree.find(caller, from.0, from.1)?;
        tree.dir(caller, to.0, W | X)?;
        let node = tree.dir(caller, from.0, W | X)?;
        let from_before = before(&node.attr);
        node.names.remove(from.1);
        let to_change = tree.insert(to.0, to.1, moved.handle.ino)?;
        if let NodeKind::Directory { parent } = &mut tree.node(moved.handle)?.attr.kind {
            *parent = to.0.ino;
        }
        let from_change = Changed { before: Some(from_before), after: Some(tree.touch(from.0.ino)) };
        Ok((from_change, to_change))
    }

    async fn link(&self, caller: &Caller, file: Handle, dir: Handle, name: &[u8]) -> Result<Made, FsError> {
        let mut tree = self.tree()?;
        if tree.dir(caller, dir, W | X)?.names.contains_key(name) {
            return Err(FsError::Exists);
        }
        let node = tree.node(file)?;
        if matches!(node.attr.kind, NodeKind::Directory { .. }) {
            return Err(FsError::NotOwner);
        }
        node.attr.nlink += 1;
        let attr = node.attr.clone();
        Ok(Made { attr, directory: tree.insert(dir, name, file.ino)? })
    }

    async fn readdir(
        &self,
        caller: &Caller,
        dir: Handle,
        cookie: u64,
        entries_max: usize,
        with_attributes: bool,
    ) -> Result<DirPage, FsError> {
        let mut tree = self.tree()?;
        let node = tree.dir(caller, dir, R)?;
        let attr = node.attr.clone();
        let NodeKind::Directory { parent } = attr.kind else { unreachable!("checked by dir") };
        let mut all = BTreeMap::from([(1, (b".".to_vec(), dir.ino)), (2, (b"..".to_vec(), parent))]);
        all.extend(node.names.iter().map(|(name, (cookie, ino))| (*cookie, (name.clone(), *ino))));
        if cookie > tree.cookie_next {
            return Err(FsError::BadCookie);
        }
        let mut rest = all.into_iter().skip_while(|(own, _)| *own <= cookie);
        let entries: Vec<DirEntry> = rest
            .by_ref()
            .take(entries_max)
            .map(|(cookie, (name, ino))| {
                let attr = with_attributes.then(|| tree.nodes[&ino].attr.clone());
                DirEntry { name: name.into(), cookie, ino, attr }
            })
            .collect();
        Ok(DirPage { end: rest.next().is_none(), entries, attr })
    }

    async fn room(&self, _caller: &Caller, file: Handle) -> Result<(Room, Attr), FsError> {
        let attr = self.tree()?.node(file)?.attr.clone();
        Ok((Room { bytes_total: 1 << 50, bytes_free: 1 << 49, files_total: 1 << 40, files_free: 1 << 39 }, attr))
    }
}
