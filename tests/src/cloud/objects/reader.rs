//! Reading a body, or a part of it.

use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A body ready to be read; it stays readable when the object is deleted or replaced meanwhile.
pub(in super::super) enum Reader {
    Memory(Bytes),
    File(Arc<File>),
}

impl Reader {
    /// The bytes of `from..from + len`, fewer where the file ends early. Blocks for files.
    pub(in super::super) fn read(&self, from: u64, len: usize) -> io::Result<Bytes> {
        match self {
            Self::Memory(body) => {
                let from = usize::try_from(from).unwrap_or(usize::MAX).min(body.len());
                Ok(body.slice(from..from.saturating_add(len).min(body.len())))
            }
            Self::File(file) => {
                let mut buffer = vec![0; len];
                let mut done = 0;
                while done < len {
                    match file.read_at(&mut buffer[done..], from + done as u64) {
                        Ok(0) => break,
                        Ok(more) => done += more,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                buffer.truncate(done);
                Ok(buffer.into())
            }
        }
    }
}
