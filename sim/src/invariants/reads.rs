//! Reads give what was written: after an open, everything that was closed before it at any site; of what is being written
//! meanwhile, either the old or the new, and nothing else. What was acknowledged as durable survives every crash.
//!
//! Why it matters: it is what a file system is for.
//!
//! A file has one writer at a time, and any number of readers.

use std::sync::Arc;

/// A change of a file's content.
#[derive(Clone, Debug)]
enum Change {
    Write { at: usize, data: Vec<u8> },
    Cut { bytes: usize },
}

/// Everything that was done to one file.
#[derive(Default)]
pub struct FileHistory {
    /// What it held when it was closed last.
    closed: Arc<Vec<u8>>,
    /// How many changes that is.
    closed_upto: usize,
    changes: Vec<Change>,
    /// Changes that were asked for again since the last close.
    again: Vec<Change>,
    /// What its writer sees, if its site did not crash since the last close.
    now: Vec<u8>,
}

/// A reader's open: what it must see at least.
pub struct Opened {
    base: Arc<Vec<u8>>,
    from: usize,
}

fn carry_out(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { at, data } => {
            content.resize(content.len().max(at + data.len()), 0);
            content[*at..at + data.len()].copy_from_slice(data);
        }
        Change::Cut { bytes } => content.resize(*bytes, 0),
    }
}

impl FileHistory {
    fn change(&mut self, change: Change) {
        carry_out(&mut self.now, &change);
        self.changes.push(change);
    }

    /// The writer asks to write.
    pub fn write(&mut self, at: usize, data: Vec<u8>) {
        self.change(Change::Write { at, data });
    }

    /// The writer asks to cut or extend the file.
    pub fn cut(&mut self, bytes: usize) {
        self.change(Change::Cut { bytes });
    }

    /// The writer asks again to write what its filer may have lost: readers may see it either way meanwhile.
    pub fn write_again(&mut self, at: usize, data: Vec<u8>) {
        self.again.push(Change::Write { at, data });
    }

    /// The same for a cut.
    pub fn cut_again(&mut self, bytes: usize) {
        self.again.push(Change::Cut { bytes });
    }

    /// Everything that the writer asked for is durable and visible everywhere.
    pub fn close(&mut self) {
        self.closed = Arc::new(self.now.clone());
        // A reader that opened before may have seen them.
        let again = std::mem::take(&mut self.again);
        self.changes.extend(again);
        self.closed_upto = self.changes.len();
    }

    /// How long the writer's file is.
    pub fn bytes(&self) -> usize {
        self.now.len()
    }

    /// What is not closed yet, to be asked for again after a crash: writes as `(at, data)`, cuts as `Err(bytes)`.
    pub fn unclosed(&self) -> Vec<Result<(usize, Vec<u8>), usize>> {
        let unclosed = self.changes[self.closed_upto..].iter();
        unclosed
            .map(|change| match change {
                Change::Write { at, data } => Ok((*at, data.clone())),
                Change::Cut { bytes } => Err(*bytes),
            })
            .collect()
    }

    /// A reader opens the file now.
    pub fn open(&self) -> Opened {
        Opened { base: self.closed.clone(), from: self.closed_upto }
    }

    /// Checks what the writer itself reads.
    pub fn check_own(&self, at: usize, got: &[u8], asked: usize) -> Result<(), String> {
        let end = (at + asked).min(self.now.len());
        let expected = self.now.get(at.min(end)..end).unwrap_or_default();
        if got == expected { Ok(()) } else { Err(difference(at, got, expected)) }
    }

    /// Checks what a reader that opened the file before has read of it: `bytes` was its length then or later.
    pub fn check(&self, opened: &Opened, at: usize, got: &[u8]) -> Result<(), String> {
        let mut contents = vec![opened.base.to_vec()];
        for change in self.changes[opened.from..].iter().chain(&self.again) {
            let mut next = contents[contents.len() - 1].clone();
            carry_out(&mut next, change);
            contents.push(next);
        }
        for (place, byte) in got.iter().enumerate() {
            let place = at + place;
            // What a longer or shorter state does not have reads as zero at most.
            let may_be = |content: &Vec<u8>| content.get(place).copied().unwrap_or(0) == *byte;
            if !contents.iter().any(may_be) {
                return Err(format!("byte {place} is {byte}, and in none of {} states", contents.len()));
            }
        }
        Ok(())
    }

    /// Checks a length that a reader was told after it opened the file. A write over many extents gets on record in parts,
    /// so that its file may be seen while it grows.
    pub fn check_length(&self, opened: &Opened, bytes: usize) -> Result<(), String> {
        let mut content = opened.base.to_vec();
        let mut lengths = vec![content.len()..=content.len()];
        for change in self.changes[opened.from..].iter().chain(&self.again) {
            let before = content.len();
            carry_out(&mut content, change);
            let from = if matches!(change, Change::Write { .. }) { before } else { content.len() };
            lengths.push(from..=content.len());
        }
        if lengths.iter().any(|may_be| may_be.contains(&bytes)) {
            return Ok(());
        }
        Err(format!("it is {bytes} bytes long, and may be {lengths:?}"))
    }
}

fn difference(at: usize, got: &[u8], expected: &[u8]) -> String {
    let first = got.iter().zip(expected).position(|(a, b)| a != b);
    match first {
        Some(first) => format!("byte {} is {}, and {} was written", at + first, got[first], expected[first]),
        None => format!("{} bytes from byte {at} on, and {} were written", got.len(), expected.len()),
    }
}
