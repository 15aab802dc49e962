//! What a site's disk has damaged in its staging: a frame may be lost where it lies there, and nowhere else.

use std::{collections::BTreeMap, ops::Range};
use storage::{ids::SegmentId, staging::staging_file};

/// The damaged places of each file, in bytes. What was mended meanwhile is among them.
#[derive(Default)]
pub struct Damage(BTreeMap<String, Vec<Range<u64>>>);

impl Damage {
    /// Bytes of a file of staging are not what they were.
    pub fn note(&mut self, file: &str, bytes: Range<u64>) {
        self.0.entry(file.into()).or_default().push(bytes);
    }

    /// Whether nothing is damaged.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether any of these bytes of a segment was damaged.
    pub fn touches(&self, segment: SegmentId, bytes: &Range<u64>) -> bool {
        let places = self.0.get(&staging_file(segment));
        places.is_some_and(|places| places.iter().any(|bad| bad.start < bytes.end && bytes.start < bad.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::FilerId;

    #[test]
    fn a_frame_is_touched_where_it_overlaps_a_damaged_place() {
        let [segment, other] = [1, 2].map(|number| SegmentId { filer: FilerId(1), number });
        let mut damage = Damage::default();
        assert!(damage.is_empty());
        damage.note(&staging_file(segment), 4096..8192);
        let touched = |bytes| damage.touches(segment, &bytes);
        assert!(touched(0..4097) && touched(5000..5001) && touched(8191..9000) && touched(0..9000));
        assert!(!touched(0..4096) && !touched(8192..9000) && !damage.touches(other, &(0..9000)));
    }
}
