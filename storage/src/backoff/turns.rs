//! Whose turn it is to try a piece of data at one cloud.
//!
//! A piece that works is tried by a few at once. From its first failure on it is tried by one at a time, with a growing
//! wait in between, however many want it; only a client's read goes beside another attempt that is no read, since
//! the copy of a whole segment over a thin link may take minutes. So failures in a row are spread over time, and their count says for how long
//! the cloud did not give that piece, not how many asked in one moment. Who reads shares the failure of another's read
//! (it joins) instead of waiting for a turn of its own, so that readers look elsewhere soon; all others wait.
//!
//! Owns: when which attempt at a piece begins. Does not own: the attempts (`filer::actors::connector`), nor the counts
//! that trip a cloud (`health`).
//!
//! ```text
//!          failed               its wait is over
//! works ----------> waits ---------------------> tried by one
//!   ^                 ^                             |     |
//!   |                 '---------- failed -----------'     |
//!   '-------------------------- succeeded ----------------'
//! ```

use super::{Backoff, due::Due};
use crate::ids::SegmentId;
use mesh::clock::Random;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Limits of the attempts at one cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Attempts at one time at a piece that works.
    pub attempts_per_piece_max: usize,
    /// Waits between two attempts at a piece that fails.
    pub attempt_backoff: Backoff,
    /// Who may wait at the same time; beyond it nobody else is let in.
    pub waiting_max: usize,
    /// Failing pieces that are remembered; beyond it the least failed one that nobody wants is forgotten.
    pub pieces_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            attempts_per_piece_max: 4,
            attempt_backoff: Backoff { ms_min: 20, ms_max: 1000 },
            waiting_max: 4096,
            pieces_max: 4096,
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Somebody wants to try a piece. `ask` is a number never used before. `joins`: it shares the failure of another that
    /// joins, too.
    Asked { ask: u64, piece: SegmentId, joins: bool },
    /// An attempt that was begun has ended.
    Ended { ask: u64, failed: bool },
    /// The deadline passed.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Begin this attempt.
    Begin { ask: u64 },
    /// Answer this one with the failure of the attempt `with`, which ended just now.
    Join { ask: u64, with: u64 },
    /// Too many wait: let it not wait.
    Refuse { ask: u64 },
}

#[derive(Debug, Default)]
struct Piece {
    /// In a row.
    failures: u32,
    /// Not to be tried before.
    at_ms: u64,
    under_way: usize,
    /// Those of them that join.
    joining: usize,
    /// In the order asked, and whether each joins.
    waiting: VecDeque<(u64, bool)>,
}

impl Piece {
    fn is_wanted(&self) -> bool {
        self.under_way > 0 || !self.waiting.is_empty()
    }

    /// Which of those who wait is the next to begin, if there is room for it.
    fn next(&self, attempts_max: usize) -> Option<usize> {
        match self.failures {
            0 => (self.under_way < attempts_max && !self.waiting.is_empty()).then_some(0),
            _ if self.under_way == 0 => (!self.waiting.is_empty()).then_some(0),
            _ if self.under_way == 1 && self.joining == 0 => self.waiting.iter().position(|(_, joins)| *joins),
            _ => None,
        }
    }
}

/// The machine.
#[derive(Debug)]
pub struct Turns {
    settings: Settings,
    /// Those that are wanted, and those that fail.
    pieces: BTreeMap<SegmentId, Piece>,
    /// Those that have somebody to begin, and when.
    due: Due<SegmentId>,
    /// What is under way: its piece, and whether it joins.
    under_way: BTreeMap<u64, (SegmentId, bool)>,
    waiting: usize,
}

impl Turns {
    /// Nobody waits, nothing has failed.
    pub fn new(settings: Settings) -> Self {
        let (pieces, due, under_way, waiting) = Default::default();
        Self { settings, pieces, due, under_way, waiting }
    }

    /// Failures in a row of a piece.
    pub fn failures_of(&self, piece: SegmentId) -> u32 {
        self.pieces.get(&piece).map_or(0, |piece| piece.failures)
    }

    /// When to call again with [`Input::Tick`].
    pub fn deadline_ms(&self) -> Option<u64> {
        self.due.first_ms()
    }

    fn attempts_max(&self) -> usize {
        self.settings.attempts_per_piece_max.max(1)
    }

    /// Forgets everything: whoever waits or tries is to be told so by the caller.
    pub fn clear(&mut self) {
        (self.pieces, self.due, self.under_way, self.waiting) = Default::default();
    }

    /// Takes an input, gives what to do.
    pub fn handle(&mut self, now_ms: u64, random: &dyn Random, input: Input) -> Vec<Output> {
        let mut outputs = Vec::new();
        match input {
            Input::Asked { ask, .. } if self.waiting >= self.settings.waiting_max => {
                outputs.push(Output::Refuse { ask });
            }
            Input::Asked { ask, piece, joins } => {
                self.pieces.entry(piece).or_default().waiting.push_back((ask, joins));
                self.waiting += 1;
                self.begin(now_ms, piece, &mut outputs);
            }
            Input::Ended { ask, failed } => {
                if let Some((piece, joins)) = self.under_way.remove(&ask) {
                    self.ended(now_ms, random, piece, failed, (ask, joins), &mut outputs);
                    self.begin(now_ms, piece, &mut outputs);
                    self.forget(piece);
                }
            }
            Input::Tick => {
                let due: BTreeSet<SegmentId> = self.due.until(now_ms).map(|(piece, _)| piece).collect();
                for piece in due {
                    self.begin(now_ms, piece, &mut outputs);
                }
            }
        }
        outputs
    }

    fn ended(
        &mut self,
        now_ms: u64,
        random: &dyn Random,
        id: SegmentId,
        failed: bool,
        (ask, joins): (u64, bool),
        outputs: &mut Vec<Output>,
    ) {
        let piece = self.pieces.get_mut(&id).expect("what is under way keeps its piece");
        piece.under_way -= 1;
        piece.joining -= usize::from(joins);
        if !failed {
            (piece.failures, piece.at_ms) = (0, 0);
            return;
        }
        piece.failures = piece.failures.saturating_add(1);
        piece.at_ms = now_ms + self.settings.attempt_backoff.wait_ms(piece.failures, random);
        if joins {
            let (join, wait): (VecDeque<_>, VecDeque<_>) = piece.waiting.drain(..).partition(|(_, joins)| *joins);
            piece.waiting = wait;
            self.waiting -= join.len();
            outputs.extend(join.into_iter().map(|(waiter, _)| Output::Join { ask: waiter, with: ask }));
        }
    }

    /// Begins what a piece has room for now, and notes when it may begin more: to be called whenever a piece has changed.
    fn begin(&mut self, now_ms: u64, id: SegmentId, outputs: &mut Vec<Output>) {
        let attempts_max = self.attempts_max();
        let Some(piece) = self.pieces.get_mut(&id) else {
            return self.due.set(id, None);
        };
        let mut next = piece.next(attempts_max);
        while let Some((ask, joins)) = next.filter(|_| now_ms >= piece.at_ms).and_then(|at| piece.waiting.remove(at)) {
            piece.under_way += 1;
            piece.joining += usize::from(joins);
            self.waiting -= 1;
            self.under_way.insert(ask, (id, joins));
            outputs.push(Output::Begin { ask });
            next = piece.next(attempts_max);
        }
        self.due.set(id, next.map(|_| piece.at_ms));
    }

    /// Drops what need not be remembered.
    fn forget(&mut self, id: SegmentId) {
        if self.pieces.get(&id).is_some_and(|piece| piece.failures == 0 && !piece.is_wanted()) {
            self.pieces.remove(&id);
        }
        if self.pieces.len() > self.settings.pieces_max {
            let idle = self.pieces.iter().filter(|(_, piece)| !piece.is_wanted());
            if let Some(least) = idle.min_by_key(|(_, piece)| piece.failures).map(|(id, _)| *id) {
                self.pieces.remove(&least);
            }
        }
    }
}

#[cfg(test)]
mod tests;
