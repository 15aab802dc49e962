//! The greeting: what both sides say first on a new connection, and how each judges the other's.
//!
//! ```text
//! "FMSH" | lowest version | highest version | length of the rest | the rest (a record)     numbers: 2 bytes, little endian
//! ```
//!
//! What stands before the record never changes, so that a filer of any age can be told in words which versions it
//! lacks. The certificate has proved who the peer is; the greeting must not contradict it.

use super::identity::PeerName;
use crate::{FilerId, record};
use quinn::{RecvStream, SendStream};
use serde::{Deserialize, Serialize};
use std::{fmt, ops::RangeInclusive};

/// The protocol versions that this program speaks.
pub const VERSIONS: RangeInclusive<u16> = 1..=1;

const MAGIC: &[u8; 4] = b"FMSH";
const RECORD_VERSION: u8 = 1;
/// Largest record of a greeting, in bytes.
const RECORD_BYTES_MAX: usize = 1 << 10;

/// Who a filer says it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speaker {
    pub cloudfs: String,
    pub filer: FilerId,
    pub name: String,
    /// Drawn at every start of the process: tells a restarted peer from a second connection of the same one.
    pub boot: u64,
}

/// A greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub versions: RangeInclusive<u16>,
    /// `None` where only a newer program can read it.
    pub speaker: Option<Speaker>,
}

/// What was agreed on with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The highest version that both speak.
    pub version: u8,
    pub boot: u64,
}

struct Versions<'a>(&'a RangeInclusive<u16>);

impl fmt::Display for Versions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (min, max) if min == max => write!(f, "version {min}"),
            (min, max) => write!(f, "versions {min} to {max}"),
        }
    }
}

impl Hello {
    fn encode(&self) -> Vec<u8> {
        let record = self.speaker.as_ref().map(|s| record::encode(RECORD_VERSION, s)).unwrap_or_default();
        let mut wire = MAGIC.to_vec();
        for number in [*self.versions.start(), *self.versions.end(), record.len() as u16] {
            wire.extend(number.to_le_bytes());
        }
        wire.extend(record);
        wire
    }

    /// Says it, and ends the stream.
    pub async fn write(&self, send: &mut SendStream) -> Result<(), quinn::WriteError> {
        send.write_all(&self.encode()).await?;
        // The peer may have stopped the stream meanwhile; the connection will tell.
        let _ = send.finish();
        Ok(())
    }

    /// Hears the peer's.
    pub async fn read(recv: &mut RecvStream) -> Result<Self, super::frame::FrameError> {
        use super::frame::FrameError;
        let mut start = [0; 10];
        recv.read_exact(&mut start).await?;
        let number = |at: usize| u16::from_le_bytes([start[at], start[at + 1]]);
        if &start[..4] != MAGIC {
            return Err(FrameError::Malformed("it is not a greeting".into()));
        }
        let bytes = usize::from(number(8));
        if bytes > RECORD_BYTES_MAX {
            return Err(FrameError::TooLarge { part: "greeting", bytes, bytes_max: RECORD_BYTES_MAX });
        }
        let mut buffer = [0; RECORD_BYTES_MAX];
        recv.read_exact(&mut buffer[..bytes]).await?;
        let speaker = match record::decode(RECORD_VERSION, &buffer[..bytes]) {
            Ok(speaker) => Some(speaker),
            Err(record::RecordError::Newer { .. }) => None,
            Err(e) => return Err(FrameError::Malformed(format!("greeting: {e}"))),
        };
        Ok(Self { versions: number(4)..=number(6), speaker })
    }

    /// What this side (`self`) makes of the greeting of the peer whose certificate says `peer`; or why it is refused,
    /// in words that both sides' operators can use.
    pub fn judge(&self, theirs: &Hello, peer: &PeerName) -> Result<Agreed, String> {
        let me = self.speaker.as_ref().expect("this filer's own greeting is complete");
        let version = *self.versions.end().min(theirs.versions.end());
        if version < *self.versions.start() || version < *theirs.versions.start() {
            let older = if theirs.versions.end() < self.versions.start() { &peer.name } else { &me.name };
            return Err(format!(
                "filer {} ({}) speaks protocol {}, and filer {} ({}) speaks {}: upgrade {older}",
                peer.id,
                peer.name,
                Versions(&theirs.versions),
                me.filer,
                me.name,
                Versions(&self.versions),
            ));
        }
        let Some(speaker) = &theirs.speaker else {
            return Err(format!("filer {} ({}) greeted in a newer form: upgrade {}", peer.id, peer.name, me.name));
        };
        if speaker.cloudfs != me.cloudfs {
            return Err(format!(
                "filer {} ({}) belongs to CloudFS {:?}, and filer {} ({}) to {:?}",
                peer.id, peer.name, speaker.cloudfs, me.filer, me.name, me.cloudfs
            ));
        }
        if (speaker.filer, &speaker.name) != (peer.id, &peer.name) {
            return Err(format!(
                "a filer that calls itself {} ({:?}) has the certificate of {} ({})",
                speaker.filer, speaker.name, peer.id, peer.name
            ));
        }
        if speaker.filer == me.filer {
            return Err(format!(
                "filer {} ({}) met its own id: an address leads back to itself, or its identity was copied",
                me.filer, me.name
            ));
        }
        // Versions above 255 would need a new frame format, and with it a new form of this agreement.
        let version = u8::try_from(version).map_err(|_| format!("protocol version {version} is not known here"))?;
        Ok(Agreed { version, boot: speaker.boot })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(id: u64, versions: RangeInclusive<u16>) -> Hello {
        let name = format!("site{id}");
        Hello { versions, speaker: Some(Speaker { cloudfs: "prod".into(), filer: FilerId(id), name, boot: id * 10 }) }
    }

    fn peer(id: u64) -> PeerName {
        PeerName { id: FilerId(id), name: format!("site{id}") }
    }

    #[test]
    fn the_highest_common_version_is_agreed_on() {
        let agreed = hello(1, 1..=3).judge(&hello(2, 2..=5), &peer(2));
        assert_eq!(agreed, Ok(Agreed { version: 3, boot: 20 }));
    }

    #[test]
    fn strangers_are_refused_in_words() {
        let said = hello(1, 1..=1).judge(&hello(2, 2..=3), &peer(2)).expect_err("newer");
        assert!(said.contains("speaks protocol versions 2 to 3") && said.ends_with("upgrade site1"), "{said}");
        let said = hello(1, 2..=2).judge(&hello(2, 1..=1), &peer(2)).expect_err("older");
        assert!(said.ends_with("upgrade site2"), "{said}");
        let said = hello(1, 1..=1).judge(&hello(2, 1..=1), &peer(3)).expect_err("another's certificate");
        assert!(said.contains("has the certificate of 00000003"), "{said}");
        let said = hello(1, 1..=1).judge(&hello(1, 1..=1), &peer(1)).expect_err("itself");
        assert!(said.contains("its own id"), "{said}");
        let mut other = hello(2, 1..=1);
        other.speaker.as_mut().expect("complete").cloudfs = "test".into();
        let said = hello(1, 1..=1).judge(&other, &peer(2)).expect_err("another CloudFS");
        assert!(said.contains("\"test\""), "{said}");
        let mut newer = hello(2, 1..=9);
        newer.speaker = None;
        assert!(hello(1, 1..=1).judge(&newer, &peer(2)).is_err());
        let empty = Hello { versions: RangeInclusive::new(5, 1), speaker: None };
        assert!(hello(1, 1..=1).judge(&empty, &peer(2)).is_err());
    }
}
