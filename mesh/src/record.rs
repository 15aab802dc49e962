//! The form of every record that is stored or sent: one byte of format version, then bincode.
//!
//! A reader refuses a newer version by name instead of guessing, and never allocates more than its caller's limit.

use serde::{Serialize, de::DeserializeOwned};
use std::cell::Cell;

/// Largest record, in bytes, that [`decode`] reads; bulk data travels beside records, not in them.
pub const RECORD_BYTES_MAX: usize = 16 << 20;

/// Why a record was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordError {
    /// No bytes at all.
    #[error("the record is empty")]
    Empty,
    /// Written by a newer program.
    #[error(
        "the record has format version {found}, and this program reads up to {known}: it was written by a newer filer"
    )]
    Newer { found: u8, known: u8 },
    /// Not what the format says.
    #[error("the record is malformed: {0}")]
    Malformed(String),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<RECORD_BYTES_MAX>()
}

/// Longest buffer that a thread keeps for its next record, in bytes.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

thread_local! {
    /// Where a record grows until its length is known.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The record of `value` in format `version`.
pub fn encode<T: Serialize + ?Sized>(version: u8, value: &T) -> Vec<u8> {
    // Taken, since a value may hold records that are made meanwhile.
    let mut scratch = SCRATCH.take();
    scratch.clear();
    scratch.push(version);
    bincode::serde::encode_into_std_write(value, &mut scratch, bincode::config::standard())
        .expect("writing plain data to memory cannot fail");
    if scratch.capacity() > SCRATCH_BYTES_MAX {
        return scratch;
    }
    let record = scratch.as_slice().to_vec();
    SCRATCH.set(scratch);
    record
}

/// Reads a record of at most version `known`. All bytes must belong to it.
pub fn decode<T: DeserializeOwned>(known: u8, bytes: &[u8]) -> Result<T, RecordError> {
    let (&found, body) = bytes.split_first().ok_or(RecordError::Empty)?;
    if found > known || found == 0 {
        return Err(RecordError::Newer { found, known });
    }
    let (value, used) =
        bincode::serde::decode_from_slice(body, config()).map_err(|e| RecordError::Malformed(e.to_string()))?;
    if used != body.len() {
        return Err(RecordError::Malformed(format!("{} bytes behind its end", body.len() - used)));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_foreign_ones_are_refused() {
        let bytes = encode(2, &(7u64, "ams".to_string()));
        assert_eq!(decode::<(u64, String)>(2, &bytes), Ok((7, "ams".into())));
        assert_eq!(decode::<(u64, String)>(1, &bytes), Err(RecordError::Newer { found: 2, known: 1 }));
        assert_eq!(decode::<u64>(1, &[]), Err(RecordError::Empty));
        assert!(matches!(decode::<u64>(2, &bytes), Err(RecordError::Malformed(_))));
        let huge = encode(1, &u64::MAX);
        assert!(matches!(decode::<Vec<u8>>(1, &huge), Err(RecordError::Malformed(_))), "a length beyond the limit");
    }
}
