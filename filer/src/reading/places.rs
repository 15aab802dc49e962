//! Which frames one request can read together.

use storage::{cloudfs::Extent, ids::SegmentId};

/// Frames of one segment that lie one behind the other, each `(at, len)` in its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub segment: SegmentId,
    /// Never empty.
    pub frames: Vec<(u32, u32)>,
}

/// The frames of `extents`, put together into runs of at most `bytes_max` (or one frame).
pub fn runs(extents: &[Extent], bytes_max: u32) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for extent in extents {
        let frame = (extent.frame_at, extent.frame_len);
        if let Some(run) = runs.last_mut().filter(|run| run.segment == extent.segment) {
            let (first, last) = (run.frames[0], run.frames[run.frames.len() - 1]);
            if last == frame {
                continue;
            }
            if last.0 + last.1 == frame.0 && frame.0 + frame.1 - first.0 <= bytes_max {
                run.frames.push(frame);
                continue;
            }
        }
        runs.push(Run { segment: extent.segment, frames: vec![frame] });
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::FilerId;

    #[test]
    fn neighbours_are_read_together_up_to_the_limit() {
        let segment = SegmentId { filer: FilerId(1), number: 1 };
        let extent = |frame_at: u32, skip: u32| Extent { offset: 0, len: 1, segment, frame_at, frame_len: 100, skip };
        let found = runs(&[extent(0, 0), extent(0, 50), extent(100, 0), extent(200, 0), extent(500, 0)], 250);
        let frames: Vec<_> =
            found.iter().map(|run| run.frames.iter().map(|frame| frame.0).collect::<Vec<_>>()).collect();
        assert_eq!(frames, [vec![0, 100], vec![200], vec![500]]);
    }
}
