//! What of a file can be read, where its medium has lost a part of it.

use super::{Disk, DiskError};
use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// What a disk loses at once, in bytes: no smaller piece is looked for.
pub const SECTOR_BYTES: usize = 4096;

/// The beginning of a file, as far as it can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readable {
    /// With zeroes in place of what cannot be read.
    pub bytes: Bytes,
    /// Where that is, in order.
    pub lost: Vec<Range<usize>>,
}

impl Readable {
    /// Reads up to `len` bytes of a file. It fails when the file cannot be used at all.
    pub async fn read(disk: &dyn Disk, file: &str, len: usize) -> Result<Self, DiskError> {
        match disk.read(file, 0, len).await {
            Err(DiskError::Unreadable { .. }) => {}
            read => return Ok(Self { bytes: read?, lost: Vec::new() }),
        }
        let (mut bytes, mut lost) = (BytesMut::zeroed(len), Vec::<Range<usize>>::new());
        let whole = 0..len;
        let (mut end, mut todo) = (len, vec![whole]);
        while let Some(range) = todo.pop() {
            match disk.read(file, range.start as u64, range.len()).await {
                Ok(read) => {
                    bytes[range.start..range.start + read.len()].copy_from_slice(&read);
                    if read.len() < range.len() {
                        end = end.min(range.start + read.len());
                    }
                }
                Err(DiskError::Unreadable { .. }) if range.len() > SECTOR_BYTES => {
                    let middle = range.start + (range.len() / 2).next_multiple_of(SECTOR_BYTES);
                    todo.extend([middle..range.end, range.start..middle]);
                }
                Err(DiskError::Unreadable { .. }) => match lost.last_mut() {
                    Some(last) if last.end == range.start => last.end = range.end,
                    _ => lost.push(range),
                },
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(end);
        Ok(Self { bytes: bytes.freeze(), lost })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[tokio::test]
    async fn all_is_read_but_the_sectors_that_cannot_be() {
        let disk = MemoryDisk::new();
        let whole: Bytes = (0..50_000u32).map(|at| (at / 7) as u8 | 1).collect();
        disk.write("a", 0, vec![whole.clone()]).await.expect("there is room");
        for (bad, lost) in [
            (vec![], vec![]),
            (vec![0], vec![(0, 4096)]),
            (vec![5_000, 20_000], vec![(4096, 8192), (16_384, 20_480)]),
            (vec![8191, 8192], vec![(4096, 12_288)]),
            (vec![49_999], vec![(49_152, 50_000)]),
        ] {
            let disk = disk.clone();
            disk.make_readable();
            bad.iter().for_each(|at| assert!(disk.make_unreadable("a", *at)));
            let read = Readable::read(&disk, "a", 50_000).await.expect("the rest can be read");
            let lost: Vec<_> = lost.into_iter().map(|(from, to)| from..to).collect();
            let mut expected = whole.to_vec();
            lost.iter().cloned().for_each(|range: Range<usize>| expected[range].fill(0));
            assert_eq!((read.lost, read.bytes), (lost, Bytes::from(expected)), "{bad:?}");
        }
        assert!(matches!(Readable::read(&disk, "none", 9).await, Err(DiskError::NotFound { .. })));
    }

    /// A file that is shorter than it was listed ends where it ends.
    #[tokio::test]
    async fn a_file_that_ends_early_is_read_to_its_end() {
        let disk = MemoryDisk::new();
        disk.write("a", 0, vec![Bytes::from(vec![1; 10_000])]).await.expect("there is room");
        assert!(disk.make_unreadable("a", 100));
        let read = Readable::read(&disk, "a", 100_000).await.expect("the rest can be read");
        assert_eq!((read.bytes.len(), read.lost.len(), &read.lost[0]), (10_000, 1, &(0..4096)));
    }
}
