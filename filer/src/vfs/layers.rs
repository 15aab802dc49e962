//! The extents of a file that are written and not yet on record, over those that are.

use std::{collections::BTreeMap, ops::Range};
use storage::cloudfs::Extent;

/// Extents that do not overlap, by offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layer(BTreeMap<u64, Extent>);

impl Layer {
    /// Adds an extent over what is there.
    pub fn insert(&mut self, extent: Extent) {
        self.cut(extent.offset..extent.end());
        self.0.insert(extent.offset, extent);
    }

    /// Takes away what lies within `range`.
    pub fn cut(&mut self, range: Range<u64>) {
        let Range { start, end } = range;
        let first = self.0.range(..start).next_back().filter(|(_, e)| e.end() > start).map_or(start, |(at, _)| *at);
        let covered: Vec<u64> = self.0.range(first..end).map(|(at, _)| *at).collect();
        for at in covered {
            let old = self.0.remove(&at).expect("it was found just now");
            for rest in [old.clipped(0..start), old.clipped(end..u64::MAX)].into_iter().flatten() {
                self.0.insert(rest.offset, rest);
            }
        }
    }

    /// Adds all of `over` over what is there.
    pub fn cover(&mut self, over: &Layer) {
        for extent in over.0.values() {
            self.insert(*extent);
        }
    }

    /// The extents within `range`, clipped to it, in order.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = Extent> + '_ {
        let first = self.0.range(..range.start).next_back().map_or(range.start, |(at, _)| *at);
        self.0.range(first..range.end.max(first)).filter_map(move |(_, extent)| extent.clipped(range.clone()))
    }

    /// All extents, in order.
    pub fn extents(&self) -> impl Iterator<Item = &Extent> {
        self.0.values()
    }

    /// The first byte behind the last extent; 0 when there is none.
    pub fn end(&self) -> u64 {
        self.0.values().next_back().map_or(0, Extent::end)
    }

    /// How many extents there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::FilerId;
    use proptest::prelude::*;
    use storage::ids::SegmentId;

    fn extent(offset: u64, len: u32, number: u64) -> Extent {
        let segment = SegmentId { filer: FilerId(1), number };
        Extent { offset, len, segment, frame_at: 0, frame_len: 0, skip: 0 }
    }

    proptest! {
        /// Every byte is the newest write's, at the right place in its frame, and what was cut is gone.
        #[test]
        fn the_newest_write_is_read(
            writes in prop::collection::vec((0u64..64, 1u32..24), 1..24),
            cut in (0u64..90, 0u64..30),
            from in 0u64..90,
            len in 0u64..90,
        ) {
            let (mut layer, mut model) = (Layer::default(), vec![None; 100]);
            for (number, (offset, len)) in writes.into_iter().enumerate() {
                layer.insert(extent(offset, len, number as u64));
                for at in 0..len {
                    model[(offset + u64::from(at)) as usize] = Some((number as u64, at));
                }
            }
            layer.cut(cut.0..cut.0 + cut.1);
            (cut.0..cut.0 + cut.1).filter(|at| *at < 100).for_each(|at| model[at as usize] = None);
            let mut read = vec![None; 100];
            for piece in layer.within(from..from + len) {
                for at in 0..piece.len {
                    read[(piece.offset + u64::from(at)) as usize] = Some((piece.segment.number, piece.skip + at));
                }
            }
            for at in 0..100u64 {
                let expected = if (from..from + len).contains(&at) { model[at as usize] } else { None };
                prop_assert_eq!(read[at as usize], expected);
            }
        }
    }
}
