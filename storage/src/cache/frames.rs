//! Decoded frames in memory, least recently used first out.

use crate::ids::SegmentId;
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Mutex};

/// What a frame takes in memory beside its data, in bytes: frames may be as small as a byte.
const FRAME_COST_BYTES: u64 = 256;

/// A frame's place: its segment, and where it begins in it.
type Place = (SegmentId, u32);

fn cost(data: &Bytes) -> u64 {
    data.len() as u64 + FRAME_COST_BYTES
}

#[derive(Default)]
struct State {
    frames: BTreeMap<Place, (Bytes, u64)>,
    by_use: BTreeMap<u64, Place>,
    bytes: u64,
    clock: u64,
}

/// The memory level of the cache.
pub struct FrameCache {
    bytes_max: u64,
    state: Mutex<State>,
}

impl FrameCache {
    /// An empty cache of at most `bytes_max` bytes in memory.
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max, state: Mutex::default() }
    }

    /// The frame's data, if it is here.
    pub fn get(&self, segment: SegmentId, frame_at: u32) -> Option<Bytes> {
        let mut guard = self.state.lock().expect("no holder of the frame cache panics");
        let state = &mut *guard;
        let (data, used) = state.frames.get_mut(&(segment, frame_at))?;
        state.clock += 1;
        state.by_use.remove(used);
        *used = state.clock;
        state.by_use.insert(state.clock, (segment, frame_at));
        Some(data.clone())
    }

    /// Whether the frame is here; looking does not count as a use.
    pub fn has(&self, segment: SegmentId, frame_at: u32) -> bool {
        self.state.lock().expect("no holder of the frame cache panics").frames.contains_key(&(segment, frame_at))
    }

    /// Keeps a frame's data.
    pub fn insert(&self, segment: SegmentId, frame_at: u32, data: Bytes) {
        if cost(&data) > self.bytes_max {
            return;
        }
        let mut guard = self.state.lock().expect("no holder of the frame cache panics");
        let state = &mut *guard;
        state.clock += 1;
        state.bytes += cost(&data);
        if let Some((old, used)) = state.frames.insert((segment, frame_at), (data, state.clock)) {
            state.bytes -= cost(&old);
            state.by_use.remove(&used);
        }
        state.by_use.insert(state.clock, (segment, frame_at));
        while state.bytes > self.bytes_max {
            let Some((_, place)) = state.by_use.pop_first() else {
                break;
            };
            if let Some((old, _)) = state.frames.remove(&place) {
                state.bytes -= cost(&old);
            }
        }
    }

    /// Bytes held, with what holding them costs.
    pub fn bytes(&self) -> u64 {
        self.state.lock().expect("no holder of the frame cache panics").bytes
    }
}
