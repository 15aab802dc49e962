//! Random operations, applied to the state machine and to a model of plain maps and byte vectors: both must answer
//! alike, show the same tree and the same bytes, and after every step all invariants hold.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A file, directory or link of the model.
#[derive(Clone, Debug)]
enum Node {
    File { bytes: Vec<u8>, links: u32 },
    Directory { names: BTreeMap<String, u64>, parent: u64 },
    Symlink { links: u32 },
}

/// The tree as it should be.
struct Model(BTreeMap<u64, Node>);

/// How an operation ends, without the texts.
type Outcome = Result<(), &'static str>;

fn kind_of(error: &OpError) -> &'static str {
    match error {
        OpError::Stale => "stale",
        OpError::NoEntry => "no entry",
        OpError::Exists => "exists",
        OpError::NotDirectory => "not a directory",
        OpError::IsDirectory => "is a directory",
        OpError::NotEmpty => "not empty",
        OpError::Invalid(_) => "invalid",
        _ => "other",
    }
}

impl Model {
    fn new() -> Self {
        Self(BTreeMap::from([(ROOT.ino, Node::Directory { names: BTreeMap::new(), parent: ROOT.ino })]))
    }

    fn names(&mut self, dir: u64) -> Result<&mut BTreeMap<String, u64>, &'static str> {
        match self.0.get_mut(&dir).ok_or("stale")? {
            Node::Directory { names, .. } => Ok(names),
            _ => Err("not a directory"),
        }
    }

    fn is_directory(&self, ino: u64) -> bool {
        matches!(self.0[&ino], Node::Directory { .. })
    }

    fn is_full(&self, ino: u64) -> bool {
        matches!(&self.0[&ino], Node::Directory { names, .. } if !names.is_empty())
    }

    fn add(&mut self, dir: u64, name: &str) -> Outcome {
        if self.names(dir)?.contains_key(name) { Err("exists") } else { Ok(()) }
    }

    fn unlink(&mut self, ino: u64) {
        let (Node::File { links, .. } | Node::Symlink { links }) = self.0.get_mut(&ino).expect("it has a name") else {
            self.0.remove(&ino);
            return;
        };
        *links -= 1;
        if *links == 0 {
            self.0.remove(&ino);
        }
    }

    fn link(&mut self, file: u64, dir: u64, name: &str) -> Outcome {
        self.names(dir)?;
        if matches!(self.0.get(&file).ok_or("stale")?, Node::Directory { .. }) {
            return Err("is a directory");
        }
        self.add(dir, name)?;
        let (Node::File { links, .. } | Node::Symlink { links }) = self.0.get_mut(&file).expect("just seen") else {
            return Err("is a directory");
        };
        *links += 1;
        self.names(dir)?.insert(name.into(), file);
        Ok(())
    }

    fn remove(&mut self, dir: u64, name: &str, wants_directory: bool) -> Outcome {
        let ino = *self.names(dir)?.get(name).ok_or("no entry")?;
        match (wants_directory, self.is_directory(ino)) {
            (true, false) => return Err("not a directory"),
            (false, true) => return Err("is a directory"),
            _ if self.is_full(ino) => return Err("not empty"),
            _ => {}
        }
        self.names(dir)?.remove(name);
        self.unlink(ino);
        Ok(())
    }

    fn lies_in(&self, mut at: u64, above: u64) -> bool {
        loop {
            match &self.0[&at] {
                _ if at == above => return true,
                Node::Directory { parent, .. } if *parent != at => at = *parent,
                _ => return false,
            }
        }
    }

    fn rename(&mut self, from_dir: u64, from: &str, to_dir: u64, to: &str) -> Outcome {
        self.names(from_dir)?;
        self.names(to_dir)?;
        let moved = *self.names(from_dir)?.get(from).ok_or("no entry")?;
        let replaced = self.names(to_dir)?.get(to).copied();
        if replaced == Some(moved) {
            return Ok(());
        }
        let is_directory = self.is_directory(moved);
        if is_directory && self.lies_in(to_dir, moved) {
            return Err("invalid");
        }
        if let Some(target) = replaced {
            match (is_directory, self.is_directory(target)) {
                (true, false) => return Err("not a directory"),
                (false, true) => return Err("is a directory"),
                _ if self.is_full(target) => return Err("not empty"),
                _ => self.unlink(target),
            }
        }
        self.names(from_dir)?.remove(from);
        self.names(to_dir)?.insert(to.into(), moved);
        if let Some(Node::Directory { parent, .. }) = self.0.get_mut(&moved) {
            *parent = to_dir;
        }
        Ok(())
    }

    fn resize(&mut self, file: u64, to: usize) -> Outcome {
        match self.0.get_mut(&file).ok_or("stale")? {
            Node::File { bytes, .. } => {
                bytes.resize(to, 0);
                Ok(())
            }
            Node::Directory { .. } => Err("is a directory"),
            Node::Symlink { .. } => Err("invalid"),
        }
    }

    fn write(&mut self, file: u64, extents: &[Extent]) -> Outcome {
        let Some(Node::File { bytes, .. }) = self.0.get_mut(&file) else {
            return Err("stale");
        };
        extents.iter().for_each(|extent| fill(bytes, extent));
        Ok(())
    }
}

/// What stands in a frame at a position: every byte tells where it is from.
fn content(extent: &Extent, at: u32) -> u8 {
    let text = format!("{} {} {}", extent.segment, extent.frame_at, extent.skip + at);
    Md5::of(text.as_bytes()).0[0]
}

/// Lays an extent's bytes over a file's.
fn fill(bytes: &mut Vec<u8>, extent: &Extent) {
    let (start, end) = (extent.offset as usize, extent.end() as usize);
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    for (at, byte) in bytes[start..end].iter_mut().enumerate() {
        *byte = content(extent, at as u32);
    }
}

/// A step, with numbers that stand for objects which may exist by then, or may be gone.
#[derive(Clone, Debug)]
enum Step {
    Create(usize, usize),
    MakeDir(usize, usize),
    Symlink(usize, usize),
    Link(usize, usize, usize),
    Remove(usize, usize),
    RemoveDir(usize, usize),
    Rename(usize, usize, usize, usize),
    Resize(usize, u8),
    Write(usize, Vec<(u8, u8, u8, u8)>),
    Reap(usize),
    Stored(u8, [bool; 2]),
    Abandon(u8),
    Deleted(u8, [bool; 2]),
    Trip(bool),
    Reached(bool, bool),
    StartResync(bool),
    Repaired(bool, u8, bool),
    Kept(bool, u8),
    FinishResync(bool),
    Activate(bool),
    OtherFiler(bool),
}

const NAMES: [&str; 3] = ["a", "b", "c"];
const SEGMENTS: u8 = 12;
/// Few enough that most files have more.
const LIMITS: Limits = Limits { extents_per_op_max: 3, cuts_pending_max: 2 };

fn step() -> impl Strategy<Value = Step> {
    let (node, name, seg) = (0..8usize, 0..NAMES.len(), 0..SEGMENTS);
    let pieces = prop::collection::vec((0..40u8, 1..24u8, 0..SEGMENTS, 0..9u8), 0..4);
    prop_oneof![
        4 => (node.clone(), name.clone()).prop_map(|(d, n)| Step::Create(d, n)),
        5 => (node.clone(), name.clone()).prop_map(|(d, n)| Step::MakeDir(d, n)),
        1 => (node.clone(), name.clone()).prop_map(|(d, n)| Step::Symlink(d, n)),
        2 => (node.clone(), node.clone(), name.clone()).prop_map(|(f, d, n)| Step::Link(f, d, n)),
        2 => (node.clone(), name.clone()).prop_map(|(d, n)| Step::Remove(d, n)),
        1 => (node.clone(), name.clone()).prop_map(|(d, n)| Step::RemoveDir(d, n)),
        6 => (node.clone(), name.clone(), node.clone(), name).prop_map(|(d, n, e, m)| Step::Rename(d, n, e, m)),
        4 => (node.clone(), 0..64u8).prop_map(|(f, to)| Step::Resize(f, to)),
        8 => (node.clone(), pieces).prop_map(|(f, pieces)| Step::Write(f, pieces)),
        3 => node.prop_map(Step::Reap),
        3 => (seg.clone(), any::<[bool; 2]>()).prop_map(|(s, copies)| Step::Stored(s, copies)),
        1 => seg.clone().prop_map(Step::Abandon),
        2 => (seg.clone(), any::<[bool; 2]>()).prop_map(|(s, done)| Step::Deleted(s, done)),
        1 => any::<bool>().prop_map(Step::Trip),
        1 => (any::<bool>(), prop::bool::weighted(0.9)).prop_map(|(c, reached)| Step::Reached(c, reached)),
        1 => any::<bool>().prop_map(Step::StartResync),
        2 => (any::<bool>(), seg.clone(), any::<bool>()).prop_map(|(c, s, put)| Step::Repaired(c, s, put)),
        2 => (any::<bool>(), seg).prop_map(|(c, s)| Step::Kept(c, s)),
        1 => any::<bool>().prop_map(Step::FinishResync),
        1 => any::<bool>().prop_map(Step::Activate),
        1 => any::<bool>().prop_map(Step::OtherFiler),
    ]
}

fn cloud(b: bool) -> CloudId {
    if b { CloudId::B } else { CloudId::A }
}

/// Both machines side by side.
struct Pair {
    bench: Bench,
    model: Model,
    /// Every object that ever was.
    handles: Vec<Handle>,
}

impl Pair {
    fn handle(&self, number: usize) -> Handle {
        self.handles[number % self.handles.len()]
    }

    /// Makes an object in both.
    fn make(&mut self, dir: Handle, name: &str, body: OpBody, node: Node) {
        let expected = self.model.add(dir.ino, name);
        let got = self.bench.apply(body);
        assert_eq!(got.as_ref().map(|_| ()).map_err(kind_of), expected);
        if let Ok(answer) = got {
            let made = handle(answer);
            assert!(!self.handles.contains(&made), "numbers are never used twice");
            self.handles.push(made);
            self.model.0.insert(made.ino, node);
            self.model.names(dir.ino).expect("just seen").insert(name.into(), made.ino);
        }
    }

    /// Whether a write may refer to these segments.
    fn writable(&self, extents: &[Extent]) -> bool {
        extents.iter().all(|extent| match self.bench.segment(extent.segment) {
            Some(segment) => segment.object.is_none() && segment.dead_since_ns.is_none(),
            None => {
                let missed = CloudId::BOTH.map(|cloud| read::miss(&self.bench.kv, cloud, extent.segment));
                extent.segment.filer == self.bench.filer && missed.iter().all(|row| matches!(row, Ok(None)))
            }
        })
    }

    fn step(&mut self, step: Step) {
        let epoch = self.bench.roles().epoch;
        let segment = |number: u8| SegmentId { filer: if number % 3 == 2 { NYC } else { AMS }, number: number.into() };
        let (body, expected) = match step {
            Step::Create(dir, name) => {
                let (dir, name) = (self.handle(dir), NAMES[name]);
                return self.make(dir, name, create(dir, name), Node::File { bytes: vec![], links: 1 });
            }
            Step::MakeDir(dir, name) => {
                let (dir, name) = (self.handle(dir), NAMES[name]);
                let node = Node::Directory { names: BTreeMap::new(), parent: dir.ino };
                return self.make(dir, name, mkdir(dir, name), node);
            }
            Step::Symlink(dir, name) => {
                let (dir, name) = (self.handle(dir), NAMES[name]);
                let body = make(dir, name, NewNode::Symlink { target: b"t".to_vec() });
                return self.make(dir, name, body, Node::Symlink { links: 1 });
            }
            Step::Link(file, dir, name) => {
                let (file, dir, name) = (self.handle(file), self.handle(dir), NAMES[name]);
                (link(file, dir, name), Some(self.model.link(file.ino, dir.ino, name)))
            }
            Step::Remove(dir, name) => {
                let (dir, name) = (self.handle(dir), NAMES[name]);
                (remove(dir, name), Some(self.model.remove(dir.ino, name, false)))
            }
            Step::RemoveDir(dir, name) => {
                let (dir, name) = (self.handle(dir), NAMES[name]);
                (rmdir(dir, name), Some(self.model.remove(dir.ino, name, true)))
            }
            Step::Rename(from_dir, from, to_dir, to) => {
                let (from_dir, from, to_dir, to) = (self.handle(from_dir), NAMES[from], self.handle(to_dir), NAMES[to]);
                (rename(from_dir, from, to_dir, to), Some(self.model.rename(from_dir.ino, from, to_dir.ino, to)))
            }
            Step::Resize(file, to) => {
                let file = self.handle(file);
                (resize(file, to.into()), Some(self.model.resize(file.ino, to.into())))
            }
            Step::Write(file, pieces) => {
                let file = self.handle(file);
                let piece = |&(offset, len, number, skip): &(u8, u8, u8, u8)| Extent {
                    frame_at: u32::from(skip % 2) * 1_000,
                    skip: skip.into(),
                    ..extent(offset.into(), len.into(), segment(number))
                };
                let extents: Vec<Extent> = pieces.iter().map(piece).collect();
                let is_file = matches!(self.model.0.get(&file.ino), Some(Node::File { .. }));
                let expected = match self.writable(&extents) || !is_file {
                    true => self.model.write(file.ino, &extents),
                    false => Err("invalid"),
                };
                (write(file, &extents), Some(expected))
            }
            Step::Reap(file) => (OpBody::Reap { ino: self.handle(file).ino }, Some(Ok(()))),
            Step::Stored(number, copies) => (stored(segment(number), copies, epoch), None),
            Step::Abandon(number) => (OpBody::Abandon { segment: segment(number) }, None),
            Step::Deleted(number, done) => (OpBody::Deleted { segment: segment(number), done, epoch }, None),
            Step::Trip(b) => (trip(cloud(b), epoch), None),
            Step::Reached(b, reached) => (OpBody::Reached { cloud: cloud(b), epoch, reached }, None),
            Step::StartResync(b) => (OpBody::StartResync { cloud: cloud(b), epoch, live: vec![] }, None),
            Step::Repaired(b, number, put) => {
                let kind = if put { MissKind::Put } else { MissKind::Delete };
                (OpBody::Repaired { cloud: cloud(b), segment: segment(number), kind, epoch }, None)
            }
            Step::Kept(b, number) => (OpBody::Kept { cloud: cloud(b), segment: segment(number), epoch }, None),
            Step::FinishResync(b) => (OpBody::FinishResync { cloud: cloud(b), epoch }, None),
            Step::Activate(b) => (OpBody::Activate { to: cloud(b), epoch, by: "operator".into() }, None),
            Step::OtherFiler(other) => {
                self.bench.filer = if other { NYC } else { AMS };
                return;
            }
        };
        let shown = format!("{body:?}");
        let got = self.carry_out(body);
        if let Some(expected) = expected {
            assert_eq!(got.as_ref().map(|_| ()).map_err(kind_of), expected, "{shown}");
        }
    }

    /// Applies an operation as a filer does: in parts, or again after the reaping, where the state machine says so.
    fn carry_out(&mut self, body: OpBody) -> Result<Answer, OpError> {
        match (self.bench.apply(body.clone()), body) {
            (Err(OpError::TooManyExtents { .. }), OpBody::Write { file, extents, .. }) => {
                let (first, second) = match &extents[..] {
                    [one] => {
                        let middle = one.offset + u64::from(one.len / 2);
                        let part = |range| vec![one.clipped(range).expect("one byte is never too much")];
                        (part(0..middle), part(middle..u64::MAX))
                    }
                    several => (several[..several.len() / 2].to_vec(), several[several.len() / 2..].to_vec()),
                };
                self.carry_out(write(file, &first))?;
                self.carry_out(write(file, &second))
            }
            (Err(OpError::Reaping { .. }), body) => {
                let OpBody::SetAttr { file, .. } = body else { panic!("{body:?} waits for the reaping") };
                self.bench.ok(OpBody::Reap { ino: file.ino });
                self.carry_out(body)
            }
            (answer, _) => answer,
        }
    }

    /// With everything reaped, nothing counts but what files show.
    fn finish(&mut self) {
        self.bench.reap_all();
        self.compare();
        let attrs = read::files(&self.bench.kv, 0, 1_000).expect("memory");
        let extents = attrs.iter().flat_map(|attr| {
            read::extents(&self.bench.kv, attr.handle.ino, 0..u64::MAX).expect("memory does not fail")
        });
        let bytes: u64 = extents.map(|extent| u64::from(extent.len)).sum();
        assert_eq!(self.bench.totals().live_bytes, bytes);
    }

    /// Both show the same tree and the same bytes.
    fn compare(&self) {
        let kv = &self.bench.kv;
        let attrs = read::files(kv, 0, 1_000).expect("memory");
        let inos: Vec<u64> = attrs.iter().map(|attr| attr.handle.ino).collect();
        assert_eq!(inos, self.model.0.keys().copied().collect::<Vec<_>>());
        for attr in attrs {
            let ino = attr.handle.ino;
            match &self.model.0[&ino] {
                Node::Directory { names, parent } => {
                    let listed = read::readdir(kv, ino, 0, 1_000).expect("memory");
                    let listed: BTreeMap<String, u64> = listed
                        .into_iter()
                        .map(|entry| (String::from_utf8(entry.name).expect("text"), entry.ino))
                        .collect();
                    assert_eq!(&listed, names);
                    assert_eq!(attr.kind, NodeKind::Directory { parent: *parent });
                }
                Node::Symlink { links } => assert_eq!(attr.nlink, *links),
                Node::File { bytes, links } => {
                    assert_eq!((attr.nlink, attr.bytes), (*links, bytes.len() as u64));
                    let whole = self.read(ino, 0, bytes.len());
                    assert_eq!(&whole, bytes);
                    let (from, to) = (bytes.len() / 3, bytes.len() * 2 / 3);
                    assert_eq!(self.read(ino, from, to), bytes[from..to], "a part");
                }
            }
        }
    }

    fn read(&self, ino: u64, from: usize, to: usize) -> Vec<u8> {
        let mut bytes = vec![0; to];
        let extents = read::extents(&self.bench.kv, ino, from as u64..to as u64).expect("memory");
        extents.iter().for_each(|extent| fill(&mut bytes, extent));
        bytes.split_off(from)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_do_what_the_model_does(steps in prop::collection::vec(step(), 1..120)) {
        let mut pair = Pair { bench: Bench::within(LIMITS), model: Model::new(), handles: vec![ROOT] };
        for step in steps {
            pair.step(step);
            pair.compare();
        }
        pair.finish();
    }
}
