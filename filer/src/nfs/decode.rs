//! Reading XDR (RFC 4506) from a client's record.
//!
//! Nothing is allocated by a length that the client names: opaque data is a slice of the record, and a length that
//! reaches beyond the record is an error. The types are those of `nfs3_types`; its own readers allocate first and check
//! after, so they are not used for what clients send.

use super::handle::FILE_HANDLE_BYTES_MAX;
use crate::fs::SetAttr;
use bytes::{Buf, Bytes};
use storage::cloudfs::{SetTime, Times};

/// The arguments are not what the procedure takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed arguments")]
pub struct Malformed;

/// A place in a record, moving forward.
#[derive(Clone, Debug)]
pub struct Decoder {
    rest: Bytes,
}

/// What is left of nanoseconds in a second that is not one.
const NS_PER_S: u64 = 1_000_000_000;

impl Decoder {
    pub fn new(record: Bytes) -> Self {
        Self { rest: record }
    }

    /// What was not read.
    pub fn rest(&self) -> &Bytes {
        &self.rest
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.rest.try_get_u32().map_err(|_| Malformed)
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.rest.try_get_u64().map_err(|_| Malformed)
    }

    pub fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    /// Variable-length opaque data or a string: a slice of the record.
    pub fn opaque(&mut self) -> Result<Bytes, Malformed> {
        let len = self.u32()? as usize;
        let padded = len.checked_next_multiple_of(4).ok_or(Malformed)?;
        if padded > self.rest.len() {
            return Err(Malformed);
        }
        let data = self.rest.slice(..len);
        self.rest.advance(padded);
        Ok(data)
    }

    /// A file handle: at most [`FILE_HANDLE_BYTES_MAX`].
    pub fn handle(&mut self) -> Result<Bytes, Malformed> {
        let handle = self.opaque()?;
        if handle.len() > FILE_HANDLE_BYTES_MAX { Err(Malformed) } else { Ok(handle) }
    }

    /// A directory's handle and a name in it.
    pub fn place(&mut self) -> Result<(Bytes, Bytes), Malformed> {
        Ok((self.handle()?, self.opaque()?))
    }

    /// A time, in nanoseconds since the Unix epoch.
    pub fn time_ns(&mut self) -> Result<u64, Malformed> {
        let (seconds, ns) = (u64::from(self.u32()?), u64::from(self.u32()?));
        if ns >= NS_PER_S { Err(Malformed) } else { Ok(seconds * NS_PER_S + ns) }
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Malformed>) -> Result<Option<T>, Malformed> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    fn set_time(&mut self) -> Result<SetTime, Malformed> {
        match self.u32()? {
            0 => Ok(SetTime::Keep),
            1 => Ok(SetTime::Now),
            2 => Ok(SetTime::To { ns: self.time_ns()? }),
            _ => Err(Malformed),
        }
    }

    /// Attributes to set (`sattr3`).
    pub fn set_attr(&mut self) -> Result<SetAttr, Malformed> {
        Ok(SetAttr {
            mode: self.option(Self::u32)?.map(|mode| mode & 0o7777),
            uid: self.option(Self::u32)?,
            gid: self.option(Self::u32)?,
            bytes: self.option(Self::u64)?,
            times: Times { atime: self.set_time()?, mtime: self.set_time()? },
        })
    }

    /// The ctime a SETATTR is guarded by.
    pub fn guard_ns(&mut self) -> Result<Option<u64>, Malformed> {
        self.option(Self::time_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_beyond_the_record_is_an_error_and_allocates_nothing() {
        for len in [5u32, 0x7fff_ffff, u32::MAX - 2, u32::MAX] {
            let mut record = len.to_be_bytes().to_vec();
            record.extend_from_slice(b"1234");
            assert_eq!(Decoder::new(record.into()).opaque(), Err(Malformed));
        }
    }

    #[test]
    fn opaque_data_is_a_slice_and_its_padding_is_skipped() {
        let record = Bytes::from_static(b"\0\0\0\x03abc\0\0\0\0\x01");
        let mut decoder = Decoder::new(record.clone());
        let data = decoder.opaque().expect("complete");
        assert_eq!(data.as_ptr(), record[4..].as_ptr());
        assert_eq!((&data[..], decoder.bool()), (&b"abc"[..], Ok(true)));
        assert_eq!(decoder.u32(), Err(Malformed));
    }

    #[test]
    fn a_time_has_less_than_a_second_of_nanoseconds() {
        let time = |ns: u32| {
            let mut record = 7u32.to_be_bytes().to_vec();
            record.extend_from_slice(&ns.to_be_bytes());
            Decoder::new(record.into()).time_ns()
        };
        assert_eq!(time(5), Ok(7_000_000_005));
        assert_eq!(time(1_000_000_000), Err(Malformed));
    }
}
