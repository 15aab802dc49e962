//! The bytes of an open file: all of them written, whatever the kernel takes at a time, and read back.

use bytes::Bytes;
use rustix::io::Errno;
use std::{
    fs::File,
    io::{self, ErrorKind, IoSlice},
    os::unix::fs::FileExt,
};

/// Parts in one vectored write, as Linux allows.
const PARTS_MAX: usize = 1_024;

/// Writes all parts, however few bytes the kernel takes at a time.
pub(super) fn write_all(file: &File, mut offset: u64, parts: &[Bytes]) -> io::Result<()> {
    for parts in parts.chunks(PARTS_MAX) {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut left = slices.as_mut_slice();
        // Parts that are empty are stepped over, so that a write of nothing is not taken for a full disk.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match rustix::io::pwritev(file, left, offset) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(())
}

/// Reads up to `len` bytes; fewer only at the file's end.
pub(super) fn read_some(file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
    let there = file.metadata()?.len().saturating_sub(offset);
    let mut bytes = vec![0; len.min(usize::try_from(there).unwrap_or(usize::MAX))];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    bytes.truncate(filled);
    Ok(bytes.into())
}
