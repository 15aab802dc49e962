//! Names are what the answers say: there is an order of all operations of a directory tree, each between its call and its
//! answer, in which every answer is right.
//!
//! Why it matters: a rename that was answered and is not there, a name that two clients both made, a removed file that comes
//! back: each is lost work. An operation without an answer may have happened or not, or may yet.
//!
//! The check keeps every state in which the tree can be (there are few), each with the operations under way that it has
//! counted in already; an answer throws out those that contradict it. None left: no order explains what clients saw.

use std::collections::{BTreeMap, BTreeSet};
use storage::cloudfs::Handle;

/// A node of the small tree: the number of the operation that made it; 0 is its root.
pub type Node = u32;
/// A name, by number.
pub type Name = u8;

/// An operation on names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameOp {
    Create { dir: Node, name: Name },
    MakeDir { dir: Node, name: Name },
    Remove { dir: Node, name: Name },
    RemoveDir { dir: Node, name: Name },
    Rename { from: (Node, Name), to: (Node, Name) },
    Link { node: Node, dir: Node, name: Name },
    Lookup { dir: Node, name: Name },
    List { dir: Node },
}

/// Why an operation changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    Stale,
    NoEntry,
    Exists,
    NotEmpty,
    /// A directory would lie in itself.
    Invalid,
}

/// An answer, as the client had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Done,
    /// The object's handle, and how many names it has.
    Object(Handle, u32),
    Names(BTreeMap<Name, Handle>),
    Refused(Refusal),
}

/// An answer, as the model has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Done,
    Object(Node, u32),
    Names(BTreeMap<Name, Node>),
    Refused(Refusal),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Tree {
    entries: BTreeMap<(Node, Name), Node>,
    /// Links of files; directories have none here.
    nodes: BTreeMap<Node, Option<u32>>,
}

/// One state in which the tree can be, and the operations under way that it has counted in, with their answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Possible {
    tree: Tree,
    counted: BTreeMap<u32, Answer>,
}

/// The check of one tree.
pub struct Names {
    possible: BTreeSet<Possible>,
    /// Operations called and not answered; those without an answer stay.
    open: BTreeMap<u32, NameOp>,
    unknown: BTreeSet<u32>,
    handles: BTreeMap<Node, Handle>,
    next: u32,
}

impl Tree {
    fn is_dir(&self, node: Node) -> bool {
        node == 0 || self.nodes.get(&node) == Some(&None)
    }

    fn links(&self, node: Node) -> u32 {
        self.nodes.get(&node).copied().flatten().unwrap_or(0)
    }

    fn is_empty(&self, dir: Node) -> bool {
        self.entries.range((dir, 0)..=(dir, Name::MAX)).next().is_none()
    }

    /// Whether a directory is another one, or lies in it.
    fn lies_in(&self, mut dir: Node, above: Node) -> bool {
        while dir != above {
            match self.entries.iter().find(|(_, node)| **node == dir) {
                Some(((parent, _), _)) => dir = *parent,
                None => return false,
            }
        }
        true
    }

    fn unlink(&mut self, node: Node) {
        let links = self.links(node).saturating_sub(1);
        if links == 0 {
            self.nodes.remove(&node)
        } else {
            self.nodes.insert(node, Some(links))
        };
    }

    /// Carries out an operation whose number is `number`.
    fn apply(&mut self, number: u32, op: NameOp) -> Answer {
        match self.carry_out(number, op) {
            Ok(answer) => answer,
            Err(refusal) => Answer::Refused(refusal),
        }
    }

    fn dir(&self, dir: Node) -> Result<(), Refusal> {
        if self.is_dir(dir) { Ok(()) } else { Err(Refusal::Stale) }
    }

    fn find(&self, dir: Node, name: Name) -> Result<Node, Refusal> {
        self.dir(dir)?;
        self.entries.get(&(dir, name)).copied().ok_or(Refusal::NoEntry)
    }

    fn free(&self, dir: Node, name: Name) -> Result<(), Refusal> {
        match self.find(dir, name) {
            Err(Refusal::NoEntry) => Ok(()),
            Ok(_) => Err(Refusal::Exists),
            Err(refusal) => Err(refusal),
        }
    }

    fn carry_out(&mut self, number: u32, op: NameOp) -> Result<Answer, Refusal> {
        match op {
            NameOp::Create { dir, name } => {
                self.free(dir, name)?;
                self.entries.insert((dir, name), number);
                self.nodes.insert(number, Some(1));
                Ok(Answer::Object(number, 1))
            }
            NameOp::MakeDir { dir, name } => {
                self.free(dir, name)?;
                self.entries.insert((dir, name), number);
                self.nodes.insert(number, None);
                Ok(Answer::Object(number, 0))
            }
            NameOp::Remove { dir, name } => {
                let node = self.find(dir, name)?;
                self.entries.remove(&(dir, name));
                self.unlink(node);
                Ok(Answer::Done)
            }
            NameOp::RemoveDir { dir, name } => {
                let node = self.find(dir, name)?;
                if !self.is_empty(node) {
                    return Err(Refusal::NotEmpty);
                }
                self.entries.remove(&(dir, name));
                self.nodes.remove(&node);
                Ok(Answer::Done)
            }
            NameOp::Rename { from, to } => {
                self.dir(from.0)?;
                self.dir(to.0)?;
                let node = self.find(from.0, from.1)?;
                let replaced = self.entries.get(&to).copied();
                if replaced == Some(node) {
                    // Two names of one file: nothing happens.
                    return Ok(Answer::Done);
                }
                if self.is_dir(node) && self.lies_in(to.0, node) {
                    return Err(Refusal::Invalid);
                }
                match replaced {
                    Some(other) if self.is_dir(other) && !self.is_empty(other) => return Err(Refusal::NotEmpty),
                    // Names of directories are none of files.
                    Some(other) if self.is_dir(other) => drop(self.nodes.remove(&other)),
                    Some(other) => self.unlink(other),
                    None => {}
                }
                self.entries.remove(&from);
                self.entries.insert(to, node);
                Ok(Answer::Done)
            }
            NameOp::Link { node, dir, name } => {
                if self.links(node) == 0 {
                    return Err(Refusal::Stale);
                }
                self.free(dir, name)?;
                self.entries.insert((dir, name), node);
                let links = self.links(node) + 1;
                self.nodes.insert(node, Some(links));
                Ok(Answer::Object(node, links))
            }
            NameOp::Lookup { dir, name } => {
                let node = self.find(dir, name)?;
                Ok(Answer::Object(node, self.links(node)))
            }
            NameOp::List { dir } => {
                self.dir(dir)?;
                let entries = self.entries.range((dir, 0)..=(dir, Name::MAX));
                Ok(Answer::Names(entries.map(|((_, name), node)| (*name, *node)).collect()))
            }
        }
    }
}

impl Default for Names {
    fn default() -> Self {
        let (open, unknown, handles) = Default::default();
        Self { possible: BTreeSet::from([Possible::default()]), open, unknown, handles, next: 1 }
    }
}

impl Names {
    /// An operation is called; gives its number.
    pub fn call(&mut self, op: NameOp) -> u32 {
        let number = self.next;
        self.next += 1;
        self.open.insert(number, op);
        number
    }

    /// It has no answer and never will: it may have happened, or not, or may yet.
    pub fn unanswered(&mut self, number: u32) {
        self.unknown.insert(number);
    }

    /// How many operations have no answer.
    pub fn unanswered_count(&self) -> usize {
        self.unknown.len()
    }

    /// The handle of a node, once it is known.
    pub fn handle(&self, node: Node) -> Option<Handle> {
        self.handles.get(&node).copied()
    }

    /// Entries of one of the possible states: what a client believes, which may be wrong.
    pub fn belief(&self) -> BTreeMap<(Node, Name), Node> {
        self.possible.first().map(|possible| possible.tree.entries.clone()).unwrap_or_default()
    }

    /// Whether a node is a directory in the state that is believed.
    pub fn believed_dirs(&self) -> Vec<Node> {
        let tree = self.possible.first().map(|possible| &possible.tree);
        let dirs = tree.into_iter().flat_map(|tree| tree.nodes.iter().filter(|(_, links)| links.is_none()));
        dirs.map(|(node, _)| *node).collect()
    }

    fn matches(&self, answer: &Answer, seen: &Seen) -> bool {
        let same = |node: &Node, handle: &Handle| match self.handles.get(node) {
            Some(known) => known == handle,
            // Nobody has seen it yet; no other node has this handle.
            None => !self.handles.values().any(|known| known == handle),
        };
        match (answer, seen) {
            (Answer::Done, Seen::Done) => true,
            (Answer::Refused(a), Seen::Refused(b)) => a == b,
            (Answer::Object(node, links), Seen::Object(handle, seen)) => {
                same(node, handle) && (*links == 0 || links == seen)
            }
            (Answer::Names(names), Seen::Names(seen)) => {
                names.len() == seen.len()
                    && names.iter().zip(seen).all(|((a, node), (b, handle))| a == b && same(node, handle))
            }
            _ => false,
        }
    }

    /// Every state that operations under way can lead to from `from` before `number` is counted in, and with it.
    fn lead_to(&self, from: &Possible, number: u32) -> BTreeSet<Possible> {
        let (mut ends, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let mut todo = vec![from.clone()];
        while let Some(possible) = todo.pop() {
            if possible.counted.contains_key(&number) {
                ends.insert(possible);
                continue;
            }
            for (other, op) in &self.open {
                if possible.counted.contains_key(other) {
                    continue;
                }
                let mut next = possible.clone();
                let answer = next.tree.apply(*other, *op);
                // Nobody will ever ask for this one's answer, so that it matters only when it changes something.
                if self.unknown.contains(other) && next.tree == possible.tree {
                    continue;
                }
                next.counted.insert(*other, answer);
                if seen.insert(next.clone()) {
                    todo.push(next);
                }
            }
        }
        ends
    }

    /// An operation is answered. The error tells what no order explains.
    pub fn answered(&mut self, number: u32, seen: Seen) -> Result<(), String> {
        let op = self.open[&number];
        let mut left = BTreeSet::new();
        let mut expected = BTreeSet::new();
        for possible in &self.possible {
            for mut end in self.lead_to(possible, number) {
                let Some(answer) = end.counted.remove(&number) else {
                    continue;
                };
                if self.matches(&answer, &seen) {
                    left.insert((end, answer));
                } else {
                    expected.insert(answer);
                }
            }
        }
        self.open.remove(&number);
        if left.is_empty() {
            return Err(format!("{op:?} was answered {seen:?}, and only {expected:?} can be"));
        }
        self.learn(&left, &seen);
        self.possible = left.into_iter().map(|(possible, _)| possible).collect();
        Ok(())
    }

    /// Notes which node a handle means, where all that is still possible says the same.
    fn learn(&mut self, left: &BTreeSet<(Possible, Answer)>, seen: &Seen) {
        let first = left.first().map(|(_, answer)| answer.clone());
        if !left.iter().all(|(_, answer)| Some(answer) == first.as_ref()) {
            return;
        }
        match (first, seen) {
            (Some(Answer::Object(node, _)), Seen::Object(handle, _)) => {
                self.handles.insert(node, *handle);
            }
            (Some(Answer::Names(names)), Seen::Names(seen)) => {
                self.handles.extend(names.into_iter().zip(seen.values()).map(|((_, node), handle)| (node, *handle)));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(ino: u64) -> Handle {
        Handle { ino, generation: 1 }
    }

    const A: NameOp = NameOp::Create { dir: 0, name: 1 };
    const LOOK: NameOp = NameOp::Lookup { dir: 0, name: 1 };

    #[test]
    fn what_was_answered_must_be_seen() {
        let mut names = Names::default();
        let create = names.call(A);
        names.answered(create, Seen::Object(handle(7), 1)).expect("a new file");
        let look = names.call(LOOK);
        assert!(names.answered(look, Seen::Refused(Refusal::NoEntry)).is_err(), "it was made");
    }

    #[test]
    fn two_clients_cannot_both_make_a_name() {
        let mut names = Names::default();
        let (first, second) = (names.call(A), names.call(A));
        names.answered(first, Seen::Object(handle(7), 1)).expect("a new file");
        assert!(names.answered(second, Seen::Object(handle(8), 1)).is_err());
    }

    #[test]
    fn what_has_no_answer_may_happen_at_any_time_and_once() {
        let mut names = Names::default();
        let create = names.call(A);
        names.unanswered(create);
        for (seen, right) in [
            (Seen::Refused(Refusal::NoEntry), true),
            (Seen::Object(handle(7), 1), true),
            (Seen::Object(handle(8), 1), false),
        ] {
            let look = names.call(LOOK);
            assert_eq!(names.answered(look, seen.clone()).is_ok(), right, "{seen:?}");
        }
    }

    #[test]
    fn a_refusal_may_be_older_than_what_was_answered_before_it() {
        let mut names = Names::default();
        let create = names.call(A);
        names.answered(create, Seen::Object(handle(7), 1)).expect("a new file");
        let again = names.call(A);
        let remove = names.call(NameOp::Remove { dir: 0, name: 1 });
        names.answered(remove, Seen::Done).expect("it is there");
        names.answered(again, Seen::Refused(Refusal::Exists)).expect("it was refused before the removal");
    }

    #[test]
    fn a_directory_moves_with_what_it_holds_and_not_into_itself() {
        let mut names = Names::default();
        let make = |dir, name| NameOp::MakeDir { dir, name };
        let rename = |from, to| NameOp::Rename { from, to };
        let mut number = 0;
        let mut answer = |op, seen| {
            number = names.call(op);
            names.answered(number, seen).map(|()| number)
        };
        let object = |ino| Seen::Object(handle(ino), 0);
        let outer = answer(make(0, 100), object(7)).expect("a new directory");
        let inner = answer(make(outer, 100), object(8)).expect("one in it");
        answer(rename((0, 100), (inner, 101)), Seen::Done).expect_err("it would lie in itself");
        let mut names = Names::default();
        let outer = names.call(make(0, 100));
        names.answered(outer, object(7)).expect("a new directory");
        let inner = names.call(make(outer, 100));
        names.answered(inner, object(8)).expect("one in it");
        let steps = [
            (rename((0, 100), (inner, 101)), Seen::Refused(Refusal::Invalid)),
            (rename((0, 100), (0, 101)), Seen::Done),
            (NameOp::List { dir: outer }, Seen::Names(BTreeMap::from([(100, handle(8))]))),
            (make(0, 100), object(9)),
            (rename((0, 100), (0, 101)), Seen::Refused(Refusal::NotEmpty)),
            (rename((outer, 100), (0, 100)), Seen::Done),
            (NameOp::Lookup { dir: 0, name: 100 }, object(8)),
        ];
        for (op, seen) in steps {
            let number = names.call(op);
            names.answered(number, seen).expect("so it is");
        }
    }

    #[test]
    fn a_rename_moves_a_name_at_once() {
        let mut names = Names::default();
        let create = names.call(A);
        names.answered(create, Seen::Object(handle(7), 1)).expect("a new file");
        let rename = names.call(NameOp::Rename { from: (0, 1), to: (0, 2) });
        let list = names.call(NameOp::List { dir: 0 });
        let both = BTreeMap::from([(1, handle(7)), (2, handle(7))]);
        assert!(names.answered(list, Seen::Names(both)).is_err(), "never under both names");
        let list = names.call(NameOp::List { dir: 0 });
        assert!(names.answered(rename, Seen::Done).is_err() || names.answered(list, Seen::Done).is_err());
    }
}
