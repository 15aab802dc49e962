//! ONC RPC (RFC 5531): the head of a call, and replies.

use super::auth::{self, Credentials};
use super::decode::{Decoder, Malformed};
use bytes::Bytes;
use nfs3_types::nfs3::{self, nfsstat3};
use nfs3_types::rpc::{RPC_VERSION_2, accept_stat_data, auth_stat, fragment_header, msg_type, rejected_reply};
use nfs3_types::rpc::{accepted_reply, msg_body, opaque_auth, reply_body, rpc_msg};
use nfs3_types::xdr_codec::Pack;

/// Record mark, xid, message type, reply state, empty verifier, accept state: all before a result.
const HEAD_BYTES: usize = 4 + 4 + 4 + 4 + 8 + 4;

/// A call, its arguments not yet read.
#[derive(Debug)]
pub struct Call {
    pub xid: u32,
    pub program: u32,
    pub version: u32,
    pub procedure: u32,
    pub credentials: Credentials,
    pub arguments: Decoder,
    /// Length of its record, in bytes.
    pub bytes: usize,
    /// The record it came in.
    record: Bytes,
}

/// What a record turned out to be.
#[derive(Debug)]
pub enum Message {
    Call(Call),
    /// A call that is refused before its arguments are looked at.
    Refused(Reply),
}

impl Call {
    /// Reads the head of a record. An error means that no reply is possible: this is not a call.
    pub fn read(record: Bytes) -> Result<Message, Malformed> {
        let mut decoder = Decoder::new(record.clone());
        let xid = decoder.u32()?;
        if decoder.u32()? != msg_type::CALL as u32 {
            return Err(Malformed);
        }
        if decoder.u32()? != RPC_VERSION_2 {
            let refusal = rejected_reply::rpc_mismatch(RPC_VERSION_2, RPC_VERSION_2);
            return Ok(Message::Refused(Reply::denied(xid, refusal)));
        }
        let (program, version, procedure) = (decoder.u32()?, decoder.u32()?, decoder.u32()?);
        Ok(match auth::credentials(&mut decoder)? {
            Err(why) => Message::Refused(Reply::auth_error(xid, why)),
            Ok(credentials) => {
                let bytes = record.len();
                Message::Call(Call { xid, program, version, procedure, credentials, arguments: decoder, bytes, record })
            }
        })
    }

    /// The xid of a long record that begins like this, if it can be a WRITE: no other call is long.
    pub fn xid_of_write(head: &Bytes) -> Option<u32> {
        let mut head = Decoder::new(head.clone());
        let xid = head.u32().ok()?;
        let write = [
            msg_type::CALL as u32,
            RPC_VERSION_2,
            nfs3::PROGRAM,
            nfs3::VERSION,
            nfs3::NFS_PROGRAM::NFSPROC3_WRITE as u32,
        ];
        write.into_iter().all(|word| head.u32() == Ok(word)).then_some(xid)
    }

    /// A checksum of the whole call, the same for each repetition of it by a client.
    pub fn checksum(&self) -> u64 {
        let mut checksum = Checksum::default();
        checksum.add(&self.record);
        checksum.finish()
    }
}

/// The checksum of a call in the making: quick enough for every WRITE.
#[derive(Default)]
pub struct Checksum {
    crc: u32,
    bytes: u32,
}

impl Checksum {
    /// Adds the next bytes of the call's record.
    pub fn add(&mut self, bytes: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.bytes = self.bytes.wrapping_add(bytes.len() as u32);
    }

    /// The checksum of what was added.
    pub fn finish(&self) -> u64 {
        u64::from(self.bytes) << 32 | u64::from(self.crc)
    }
}

/// A result in the making: what follows the head of a reply.
#[derive(Debug)]
pub struct Body {
    pub status: nfsstat3,
    /// Begins with room for the head.
    bytes: Vec<u8>,
    /// Opaque data at the very end, unpadded; not copied.
    data: Bytes,
}

fn put(bytes: &mut Vec<u8>, value: &impl Pack) {
    value.pack(bytes).expect("a Vec takes any write, and no value is as long as 4 GiB");
}

impl Body {
    /// A result without a status of its own.
    pub fn plain(value: &impl Pack) -> Self {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + 4 + value.packed_size());
        bytes.resize(HEAD_BYTES, 0);
        put(&mut bytes, value);
        Self { status: nfsstat3::NFS3_OK, bytes, data: Bytes::new() }
    }

    /// An NFS result.
    pub fn ok(value: &impl Pack) -> Self {
        Self::with_status(nfsstat3::NFS3_OK, value)
    }

    /// An NFS error and what it carries.
    pub fn failed(status: nfsstat3, value: &impl Pack) -> Self {
        Self::with_status(status, value)
    }

    fn with_status(status: nfsstat3, value: &impl Pack) -> Self {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + 8 + value.packed_size());
        bytes.resize(HEAD_BYTES, 0);
        put(&mut bytes, &status);
        put(&mut bytes, value);
        Self { status, bytes, data: Bytes::new() }
    }

    /// Ends with opaque data.
    pub fn with_data(mut self, data: Bytes) -> Self {
        let len = u32::try_from(data.len()).expect("an answer is bounded by the transfer sizes");
        put(&mut self.bytes, &len);
        self.data = data;
        self
    }

    /// The reply to the call of this xid.
    pub fn into_reply(self, xid: u32) -> Reply {
        let mut bytes = self.bytes;
        let padding = self.data.len().next_multiple_of(4) - self.data.len();
        let record = bytes.len() - 4 + self.data.len() + padding;
        bytes[..4].copy_from_slice(&mark(record));
        bytes[4..8].copy_from_slice(&xid.to_be_bytes());
        bytes[8..12].copy_from_slice(&(msg_type::REPLY as u32).to_be_bytes());
        // Accepted, empty verifier, success: all zeros.
        const ZEROS: [u8; 3] = [0; 3];
        Reply { head: bytes.into(), data: self.data, padding: Bytes::from_static(&ZEROS[..padding]) }
    }
}

fn mark(record_bytes: usize) -> [u8; 4] {
    let len = u32::try_from(record_bytes).expect("an answer is bounded by the transfer sizes");
    fragment_header::new(len, true).into_xdr_buf()
}

/// A whole record for a client, its mark included.
#[derive(Clone, Debug)]
pub struct Reply {
    pub head: Bytes,
    pub data: Bytes,
    pub padding: Bytes,
}

impl Reply {
    fn message(xid: u32, body: reply_body<'_>) -> Self {
        let message = rpc_msg { xid, body: msg_body::REPLY(body) };
        let mut bytes = mark(message.packed_size()).to_vec();
        put(&mut bytes, &message);
        Self::whole(bytes.into())
    }

    /// A reply kept from before.
    pub fn whole(head: Bytes) -> Self {
        Self { head, data: Bytes::new(), padding: Bytes::new() }
    }

    fn accepted(xid: u32, reply_data: accept_stat_data) -> Self {
        Self::message(xid, reply_body::MSG_ACCEPTED(accepted_reply { verf: opaque_auth::default(), reply_data }))
    }

    fn denied(xid: u32, why: rejected_reply) -> Self {
        Self::message(xid, reply_body::MSG_DENIED(why))
    }

    fn auth_error(xid: u32, why: auth_stat) -> Self {
        Self::denied(xid, rejected_reply::auth_error(why))
    }

    pub fn program_unavailable(xid: u32) -> Self {
        Self::accepted(xid, accept_stat_data::PROG_UNAVAIL)
    }

    /// The one version there is.
    pub fn program_mismatch(xid: u32, version: u32) -> Self {
        Self::accepted(xid, accept_stat_data::PROG_MISMATCH { low: version, high: version })
    }

    pub fn procedure_unavailable(xid: u32) -> Self {
        Self::accepted(xid, accept_stat_data::PROC_UNAVAIL)
    }

    /// The server cannot run the call now.
    pub fn system_error(xid: u32) -> Self {
        Self::accepted(xid, accept_stat_data::SYSTEM_ERR)
    }

    pub fn garbage_arguments(xid: u32) -> Self {
        Self::accepted(xid, accept_stat_data::GARBAGE_ARGS)
    }
}
