//! Reads give what was written: after an open, everything that was closed before it at any site; of what is being written
//! meanwhile, either the old or the new, and nothing else. What was acknowledged as durable survives every crash.
//!
//! Why it matters: it is what a file system is for.
//!
//! A file has one writer at a time, and any number of readers.

use crate::world::settings::{EXTENTS_PER_OP_MAX, FRAME_BYTES_MAX};
use std::{collections::BTreeSet, ops::Range, sync::Arc};

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
    /// Where pieces of it may have begun or ended on record then: those of writes, in frames, and what was cut off too.
    borders: Arc<BTreeSet<usize>>,
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
    borders: Arc<BTreeSet<usize>>,
    from: usize,
}

impl Change {
    /// The frames of a write, as places in the file: staging cuts its data from its beginning on, whatever they are
    /// compressed to.
    fn frames(&self) -> impl Iterator<Item = Range<usize>> {
        let (at, end) = match self {
            Self::Write { at, data } => (*at, *at + data.len()),
            Self::Cut { bytes } => (*bytes, *bytes),
        };
        (at..end).step_by(FRAME_BYTES_MAX).map(move |at| at..end.min(at + FRAME_BYTES_MAX))
    }

    /// How long a file of `bytes` is after it.
    fn length_after(&self, bytes: usize) -> usize {
        match self {
            Self::Write { at, data } => bytes.max(at + data.len()),
            Self::Cut { bytes } => *bytes,
        }
    }

    /// Where its pieces on record begin and end.
    fn borders(&self) -> impl Iterator<Item = usize> {
        let first = match self {
            Self::Write { at, .. } => *at,
            Self::Cut { bytes } => *bytes,
        };
        std::iter::once(first).chain(self.frames().map(|frame| frame.end))
    }
}

fn carry_out(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { at, data } => {
            content.resize(change.length_after(content.len()), 0);
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
        let mut borders = BTreeSet::clone(&self.borders);
        for change in &self.changes[self.closed_upto..] {
            // What a write covers is taken off the record.
            change.frames().for_each(|frame| borders.retain(|at| *at <= frame.start || *at >= frame.end));
            borders.extend(change.borders());
        }
        self.borders = Arc::new(borders);
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
        Opened { base: self.closed.clone(), borders: self.borders.clone(), from: self.closed_upto }
    }

    /// Checks what the writer itself reads.
    pub fn check_own(&self, at: usize, got: &[u8], asked: usize) -> Result<(), String> {
        let end = (at + asked).min(self.now.len());
        let expected = self.now.get(at.min(end)..end).unwrap_or_default();
        if got == expected { Ok(()) } else { Err(difference(at, got, expected)) }
    }

    /// Checks what a reader that opened the file before has read of it: `bytes` was its length then or later.
    pub fn check(&self, opened: &Opened, at: usize, got: &[u8]) -> Result<(), String> {
        // Most reads give what the file held at the open.
        if opened.base.get(at..at + got.len()) == Some(got) {
            return Ok(());
        }
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

    /// Checks that the file may have ended where a reader was given nothing more, after it opened the file: it was no longer
    /// then, before or after a change.
    pub fn check_end(&self, opened: &Opened, place: usize) -> Result<(), String> {
        let mut length = opened.base.len();
        let mut shortest = length;
        for change in self.changes[opened.from..].iter().chain(&self.again) {
            length = change.length_after(length);
            shortest = shortest.min(length);
        }
        if shortest <= place {
            Ok(())
        } else {
            Err(format!("it ended at byte {place}, and has been {shortest} or longer"))
        }
    }

    /// Checks a length that a reader was told after it opened the file: that before or after a change, or one that its file
    /// has on record in between, while a write grows it piece by piece.
    pub fn check_length(&self, opened: &Opened, bytes: usize) -> Result<(), String> {
        let changes = || self.changes[opened.from..].iter().chain(&self.again);
        let mut length = opened.base.len();
        let (mut lengths, mut grows_over) = (vec![length], false);
        for change in changes() {
            let before = length;
            length = change.length_after(before);
            lengths.push(length);
            grows_over |= (before..length).contains(&bytes);
        }
        if lengths.contains(&bytes) || grows_over && is_end_of_a_piece(&opened.borders, changes, bytes) {
            return Ok(());
        }
        Err(format!("it is {bytes} bytes long, and may be {lengths:?}, or what pieces of a write make in between"))
    }
}

/// Whether a piece that gets on record at once may end there. Pieces are what later changes leave of a write's frames. One
/// that lies over more extents than an operation may take away comes in halves, and those in halves again.
fn is_end_of_a_piece<'a, Changes: Iterator<Item = &'a Change>>(
    on_record: &BTreeSet<usize>,
    changes: impl Fn() -> Changes,
    place: usize,
) -> bool {
    let borders: BTreeSet<usize> = changes().flat_map(Change::borders).collect();
    let all: BTreeSet<usize> = on_record.union(&borders).copied().collect();
    let mut frames = changes().flat_map(Change::frames).filter(|frame| frame.start < place && place <= frame.end);
    frames.any(|frame| {
        let starts = || borders.range(frame.start..place);
        let mut ends = borders.range(place..=frame.end);
        ends.any(|end| *end == place || starts().any(|start| is_half(&all, *start..*end, place)))
    })
}

/// Whether a piece comes in halves, or halves of these, of which one ends at `place`.
fn is_half(borders: &BTreeSet<usize>, mut piece: Range<usize>, place: usize) -> bool {
    loop {
        // One more than there are borders inside; and a half that a crash has left.
        let extents_max = borders.range(piece.start + 1..piece.end).count() + 2;
        if extents_max <= EXTENTS_PER_OP_MAX {
            return false;
        }
        let middle = piece.start + piece.len() / 2;
        match place.cmp(&middle) {
            std::cmp::Ordering::Equal => return true,
            std::cmp::Ordering::Less => piece.end = middle,
            std::cmp::Ordering::Greater => piece.start = middle,
        }
    }
}

fn difference(at: usize, got: &[u8], expected: &[u8]) -> String {
    let first = got.iter().zip(expected).position(|(a, b)| a != b);
    match first {
        Some(first) => format!("byte {} is {}, and {} was written", at + first, got[first], expected[first]),
        None => format!("{} bytes from byte {at} on, and {} were written", got.len(), expected.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths that a reader may be told which opened the file before its changes, and after what `closed` does.
    fn lengths(closed: impl Fn(&mut FileHistory), change: impl Fn(&mut FileHistory)) -> Vec<usize> {
        let mut history = FileHistory::default();
        closed(&mut history);
        history.close();
        let opened = history.open();
        change(&mut history);
        (0..60_000).filter(|bytes| history.check_length(&opened, *bytes).is_ok()).collect()
    }

    #[test]
    fn a_file_grows_frame_by_frame() {
        let grown = lengths(|file| file.write(0, vec![1; 1_000]), |file| file.write(500, vec![2; 20_000]));
        assert_eq!(grown, [1_000, 8_692, 16_884, 20_500]);
        // Nothing is seen of what a frame covers, and nothing of a hole.
        let grown = lengths(|file| file.write(0, vec![1; 9_000]), |file| file.write(500, vec![2; 9_000]));
        assert_eq!(grown, [9_000, 9_500]);
        let grown = lengths(|file| file.write(0, vec![1; 1_000]), |file| file.write(2_000, vec![2; 100]));
        assert_eq!(grown, [1_000, 2_100]);
    }

    #[test]
    fn a_file_ends_nowhere_but_where_it_ended_once() {
        let mut history = FileHistory::default();
        history.write(0, vec![1; 1_000]);
        history.close();
        let opened = history.open();
        assert!(history.check_end(&opened, 0).is_err() && history.check_end(&opened, 999).is_err());
        assert_eq!(history.check_end(&opened, 1_000), Ok(()));
        history.cut(300);
        history.write(300, vec![2; 2_000]);
        assert!(history.check_end(&opened, 299).is_err());
        assert_eq!(history.check_end(&opened, 300), Ok(()));
    }

    #[test]
    fn a_later_change_cuts_the_frames_of_those_before() {
        let grown = lengths(
            |_| {},
            |file| {
                file.write(0, vec![1; 8_000]);
                file.write(3_000, vec![2; 1_000]);
                file.cut(5_000);
            },
        );
        assert_eq!(grown, [0, 3_000, 4_000, 5_000, 8_000]);
    }

    #[test]
    fn what_lies_over_many_extents_grows_by_halves() {
        let many = |count| move |file: &mut FileHistory| (0..count).for_each(|at| file.write(10 * at, vec![1; 10]));
        let over = |file: &mut FileHistory| file.write(0, vec![2; 8_000]);
        assert_eq!(lengths(many(6), over), [60, 8_000]);
        // The half that has them all is halved until it has few.
        assert_eq!(lengths(many(9), over), [90, 125, 250, 500, 1_000, 2_000, 4_000, 8_000]);
        // Covered once, they are none any more.
        let covered = |file: &mut FileHistory| {
            many(9)(file);
            file.write(0, vec![3; 90]);
        };
        assert_eq!(lengths(covered, over), [90, 8_000]);
    }
}
