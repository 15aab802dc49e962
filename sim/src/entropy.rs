//! What the process calls random: a function of the thread's seed.
//!
//! The standard library seeds its hash maps from the system's `getrandom`. This file gives the process one of its own under
//! that name, so that nothing in a run depends on anything but its seed. Nothing here is fit for keys.

use std::{cell::Cell, ffi::c_void};

thread_local!(static STATE: Cell<u64> = const { Cell::new(0) });

/// Makes this thread's random numbers those of a seed. A run has a thread of its own, so that no draw before it counts.
pub fn seed_thread(seed: u64) {
    STATE.set(seed);
}

/// The next number (SplitMix64).
fn next() -> u64 {
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Takes the place of the C library's function of this name (getrandom(2)).
///
/// # Safety
/// `buffer` must be valid for writes of `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, len: usize, _flags: u32) -> isize {
    // SAFETY: the caller gives a buffer of `len` bytes, as the C library's function wants it.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), len) };
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&next().to_le_bytes()[..chunk.len()]);
    }
    len as isize
}
