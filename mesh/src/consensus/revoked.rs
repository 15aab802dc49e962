//! Certificates that are refused before their end: a list in the replicated state, so that every filer refuses them, a
//! new one too, and after every restart.
//!
//! A certificate is known by its serial number, which the authority draws for each. Whoever holds a revoked one may be
//! a member all the same: with another certificate it comes back.
//!
//! Rows are in table STATE, below the reserved first byte `0x00`: key `00 04` and the serial's text, value [`Revoked`].

use crate::{
    FilerId,
    kv::{KvError, KvRead, STATE, Txn, borrow_range, prefix_range},
    record,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Format version of the rows.
const VERSION: u8 = 1;
const REVOKED: [u8; 2] = [0, 4];
/// Longest serial number, in hexadecimal digits (RFC 5280, 4.1.2.2).
const SERIAL_DIGITS_MAX: usize = 40;
/// Longest name of a holder, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// A revoked certificate, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Its number, in hexadecimal digits as [`serial_text`](crate::peers::serial_text) writes them.
    pub serial: String,
    pub filer: FilerId,
    /// The filer's name, for people.
    pub name: String,
}

/// Revoked certificates by serial number.
pub type RevokedList = BTreeMap<String, Revoked>;

impl Revoked {
    /// What is wrong with it, if anything is.
    pub(super) fn fault(&self) -> Option<String> {
        let digits = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if self.serial.is_empty() || self.serial.len() > SERIAL_DIGITS_MAX || !digits(&self.serial) {
            return Some(format!("{:?} is no serial number of a certificate", self.serial));
        }
        (self.name.len() > NAME_BYTES_MAX).then(|| format!("the name {:?} is too long", self.name))
    }
}

/// Puts a certificate on the list. The first word on it stays.
pub fn keep(txn: &mut Txn<'_>, revoked: &Revoked) -> Result<(), KvError> {
    let key = [&REVOKED[..], revoked.serial.as_bytes()].concat();
    if txn.get(&key)?.is_none() {
        txn.put(key, record::encode(VERSION, revoked));
    }
    Ok(())
}

/// The list.
pub fn list(kv: &dyn KvRead) -> Result<RevokedList, KvError> {
    let rows = kv.scan(STATE, borrow_range(&prefix_range(&REVOKED)), usize::MAX, false)?;
    let read = |(_, row): (_, bytes::Bytes)| {
        let revoked: Revoked = record::decode(VERSION, &row).map_err(|error| KvError {
            attempted: "reading a revoked certificate in",
            table: STATE.0,
            why: error.to_string(),
        })?;
        Ok((revoked.serial.clone(), revoked))
    };
    rows.into_iter().map(read).collect()
}
