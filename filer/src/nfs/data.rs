//! File data: READ, WRITE, COMMIT and READLINK.

use super::decode::{Decoder, Malformed};
use super::dispatch::{Request, Service};
use super::rpc::Body;
use crate::fs::{FsError, Stable};
use bytes::Bytes;
use nfs3_types::nfs3::{COMMIT3resok, WRITE3resok, post_op_attr, stable_how, wcc_data, writeverf3};
use nfs3_types::xdr_codec::XdrCodec;
use std::sync::atomic::Ordering;

/// `READ3resok` up to its data.
#[derive(Debug, XdrCodec)]
struct ReadHead {
    file_attributes: post_op_attr,
    count: u32,
    eof: bool,
}

fn stable_of(wire: u32) -> Result<Stable, Malformed> {
    match wire {
        0 => Ok(Stable::Unstable),
        1 => Ok(Stable::DataSync),
        2 => Ok(Stable::FileSync),
        _ => Err(Malformed),
    }
}

fn committed_of(stable: Stable) -> stable_how {
    match stable {
        Stable::Unstable => stable_how::UNSTABLE,
        Stable::DataSync => stable_how::DATA_SYNC,
        Stable::FileSync => stable_how::FILE_SYNC,
    }
}

impl Service {
    pub async fn readlink(&self, request: &Request, mut arguments: Decoder) -> Result<Body, Malformed> {
        let file = match self.place(request, &arguments.handle()?) {
            Ok(file) => file,
            Err(status) => return Ok(Body::failed(status, &post_op_attr::None)),
        };
        Ok(match self.fs.readlink(&file.caller, file.file).await {
            Ok((target, attr)) => Body::ok(&self.post_op(&attr)).with_data(target),
            Err(error) => self.failed_at(&file, &error).await,
        })
    }

    pub async fn read(&self, request: &Request, mut arguments: Decoder) -> Result<Body, Malformed> {
        let (handle, offset, count) = (arguments.handle()?, arguments.u64()?, arguments.u32()?);
        let file = match self.place(request, &handle) {
            Ok(file) => file,
            Err(status) => return Ok(Body::failed(status, &post_op_attr::None)),
        };
        let len = count.min(self.settings.read_bytes_max);
        let read = match self.fs.read(&file.caller, file.file, offset, len).await {
            Ok(read) if read.data.len() > len as usize => Err(FsError::Io("more data than asked for".into())),
            read => read,
        };
        Ok(match read {
            Ok(read) => {
                self.counters.read_bytes.fetch_add(read.data.len() as u64, Ordering::Relaxed);
                let count = u32::try_from(read.data.len()).expect("no longer than asked for");
                let head = ReadHead { file_attributes: self.post_op(&read.attr), count, eof: read.end_of_file };
                Body::ok(&head).with_data(read.data)
            }
            Err(error) => self.failed_at(&file, &error).await,
        })
    }

    pub async fn write(&self, request: &Request, mut arguments: Decoder) -> Result<Body, Malformed> {
        let (handle, offset, count) = (arguments.handle()?, arguments.u64()?, arguments.u32()?);
        let stable = stable_of(arguments.u32()?)?;
        // A slice of the record: it goes down to staging as it is.
        let mut data: Bytes = arguments.opaque()?;
        let file = match self.place_to_change(request, &handle) {
            Ok(file) => file,
            Err(status) => return Ok(Body::failed(status, &wcc_data::default())),
        };
        let written = if data.len() != count as usize {
            Err(FsError::Invalid("a count that is not the data's length".into()))
        } else if offset.checked_add(u64::from(count)).is_none() {
            Err(FsError::TooLarge)
        } else {
            data.truncate(self.settings.write_bytes_max as usize);
            self.fs.write(&file.caller, file.file, offset, data, stable).await
        };
        Ok(match written {
            Ok(written) => {
                self.counters.written_bytes.fetch_add(u64::from(written.bytes), Ordering::Relaxed);
                Body::ok(&WRITE3resok {
                    file_wcc: self.wcc(&written.change),
                    count: written.bytes,
                    committed: committed_of(written.stable),
                    verf: writeverf3(written.verifier.to_be_bytes()),
                })
            }
            Err(error) => self.change_failed_at(&file, &error).await,
        })
    }

    pub async fn commit(&self, request: &Request, mut arguments: Decoder) -> Result<Body, Malformed> {
        let (handle, _offset, _count) = (arguments.handle()?, arguments.u64()?, arguments.u32()?);
        // On a read-only export nothing was written by this client: there is nothing to refuse.
        let file = match self.place(request, &handle) {
            Ok(file) => file,
            Err(status) => return Ok(Body::failed(status, &wcc_data::default())),
        };
        Ok(match self.fs.commit(&file.caller, file.file).await {
            Ok(changed) => {
                let verf = writeverf3(self.fs.write_verifier().to_be_bytes());
                Body::ok(&COMMIT3resok { file_wcc: self.wcc(&changed), verf })
            }
            Err(error) => self.change_failed_at(&file, &error).await,
        })
    }
}
