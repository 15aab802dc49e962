//! What is exported, to whom, and as whom.

use super::auth::Credentials;
use crate::fs::Caller;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address range, such as `10.1.0.0/16`, `fd00::/8` or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// A text that is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a network such as 10.1.0.0/16")]
pub struct NotNetwork {
    text: String,
}

impl Network {
    /// All clients.
    pub const EVERYONE: [Network; 2] = [
        Network { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix_bits: 0 },
        Network { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), prefix_bits: 0 },
    ];

    /// Whether the address lies in it. IPv4 addresses that came over an IPv6 socket count as IPv4.
    pub fn contains(&self, client: IpAddr) -> bool {
        let shares = |a: u128, b: u128, bits: u8| (a ^ b).checked_shr(u32::from(bits)).unwrap_or(0) == 0;
        match (self.address, client.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(client)) => {
                shares(own.to_bits().into(), client.to_bits().into(), 32 - self.prefix_bits)
            }
            (IpAddr::V6(own), IpAddr::V6(client)) => shares(own.to_bits(), client.to_bits(), 128 - self.prefix_bits),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NotNetwork;

    fn from_str(text: &str) -> Result<Self, NotNetwork> {
        let wrong = || NotNetwork { text: text.to_owned() };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| wrong())?,
            None => bits_max,
        };
        if prefix_bits > bits_max { Err(wrong()) } else { Ok(Self { address, prefix_bits }) }
    }
}

impl TryFrom<String> for Network {
    type Error = NotNetwork;

    fn try_from(text: String) -> Result<Self, NotNetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

/// Whose calls are made in the anonymous user's name. Calls without credentials always are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Squash {
    /// Those of uid 0; gid 0 and the group 0 become the anonymous group.
    #[default]
    Root,
    All,
    None,
}

/// A directory that clients may mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// From the root of the CloudFS, such as `/projects`.
    pub path: String,
    /// Who may use it; nobody when empty.
    pub networks: Vec<Network>,
    #[serde(default)]
    pub squash: Squash,
    #[serde(default = "nobody")]
    pub anonymous_uid: u32,
    #[serde(default = "nobody")]
    pub anonymous_gid: u32,
    #[serde(default)]
    pub read_only: bool,
}

/// The user and group `nobody` of most systems.
const NOBODY: u32 = 65_534;

fn nobody() -> u32 {
    NOBODY
}

impl Export {
    /// An export to everyone, writable, root squashed.
    pub fn new(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            networks: Network::EVERYONE.to_vec(),
            squash: Squash::Root,
            anonymous_uid: NOBODY,
            anonymous_gid: NOBODY,
            read_only: false,
        }
    }

    /// A number made of its path, the same at every filer (the first 64 bits of SHA-256 over the path's names): no two
    /// paths share one, at whichever filers they are exported.
    pub fn id(&self) -> u64 {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        for name in self.names() {
            hash.update(b"/");
            hash.update(name);
        }
        let hash = hash.finish();
        let (first, _) = hash.as_ref().split_first_chunk().expect("it has 32 bytes");
        u64::from_be_bytes(*first)
    }

    /// The names on the way from the root.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        names_of(self.path.as_bytes())
    }

    /// Whether the whole tree is exported.
    pub fn is_root(&self) -> bool {
        self.names().next().is_none()
    }

    /// Whether this client may use it.
    pub fn admits(&self, client: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(client))
    }

    /// In whose name a call is made.
    pub fn caller(&self, credentials: &Credentials, client: IpAddr) -> Caller {
        let anonymous =
            || Caller { uid: self.anonymous_uid, gid: self.anonymous_gid, groups: Vec::new(), client: Some(client) };
        let Credentials::Sys { uid, gid, groups } = credentials else {
            return anonymous();
        };
        let group = |gid: u32| if gid == 0 { self.anonymous_gid } else { gid };
        match self.squash {
            Squash::All => anonymous(),
            Squash::None => Caller { uid: *uid, gid: *gid, groups: groups.clone(), client: Some(client) },
            Squash::Root => Caller {
                uid: if *uid == 0 { self.anonymous_uid } else { *uid },
                gid: group(*gid),
                groups: groups.iter().map(|gid| group(*gid)).collect(),
                client: Some(client),
            },
        }
    }
}

fn names_of(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

/// Why exports cannot be served together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadExport {
    #[error("the export {path:?} is not a path from the root without `.` and `..`")]
    Path { path: String },
    #[error("the exports {path:?} and {other:?} share a number: rename or remove one")]
    SameId { path: String, other: String },
}

/// All exports, by id.
#[derive(Debug)]
pub struct Exports {
    by_id: BTreeMap<u64, Export>,
}

impl Exports {
    pub fn new(exports: Vec<Export>) -> Result<Self, BadExport> {
        let mut by_id: BTreeMap<u64, Export> = BTreeMap::new();
        for export in exports {
            let relative = !export.path.starts_with('/');
            if relative || export.names().any(|name| name == b"." || name == b"..") {
                return Err(BadExport::Path { path: export.path });
            }
            if let Some(other) = by_id.get(&export.id()) {
                return Err(BadExport::SameId { path: export.path, other: other.path.clone() });
            }
            by_id.insert(export.id(), export);
        }
        Ok(Self { by_id })
    }

    pub fn get(&self, id: u64) -> Option<&Export> {
        self.by_id.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Export> {
        self.by_id.values()
    }

    /// The innermost export that this directory is, or lies in; and the names from the root to the directory.
    pub fn find<'a>(&self, path: &'a [u8]) -> Option<(&Export, Vec<&'a [u8]>)> {
        let names: Vec<&[u8]> = names_of(path).collect();
        // libnfs says nothing where it means the root.
        let absolute = path.is_empty() || path.starts_with(b"/");
        if !absolute || names.iter().any(|name| *name == b"." || *name == b"..") {
            return None;
        }
        let holds = |export: &Export| {
            let mut rest = names.iter();
            export.names().all(|name| rest.next().is_some_and(|own| *own == name))
        };
        let export = self.iter().filter(|export| holds(export)).max_by_key(|export| export.names().count())?;
        Some((export, names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().expect("a network")
    }

    #[test]
    fn networks_hold_their_addresses() {
        let holds = |net: &str, address: &str| network(net).contains(address.parse().expect("an address"));
        assert!(holds("10.1.0.0/16", "10.1.255.3") && !holds("10.1.0.0/16", "10.2.0.1"));
        assert!(holds("10.1.2.3", "10.1.2.3") && !holds("10.1.2.3", "10.1.2.2"));
        assert!(holds("0.0.0.0/0", "203.0.113.9") && !holds("0.0.0.0/0", "fd00::1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.9.9.9"));
        assert!(holds("fd00::/8", "fdff::1") && !holds("fd00::/8", "fe80::1") && holds("::/0", "fe80::1"));
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0/8", "host"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
        assert_eq!(network("fd00::/8").to_string(), "fd00::/8");
    }

    #[test]
    fn root_is_squashed_unless_told_otherwise() {
        let client: IpAddr = "10.0.0.1".parse().expect("an address");
        let root = Credentials::Sys { uid: 0, gid: 0, groups: vec![0, 7] };
        let user = Credentials::Sys { uid: 5, gid: 6, groups: vec![7] };
        let mut export = Export::new("/");
        let caller = |export: &Export, credentials: &Credentials| {
            let caller = export.caller(credentials, client);
            (caller.uid, caller.gid, caller.groups)
        };
        assert_eq!(caller(&export, &root), (NOBODY, NOBODY, vec![NOBODY, 7]));
        assert_eq!(caller(&export, &user), (5, 6, vec![7]));
        export.squash = Squash::None;
        assert_eq!(caller(&export, &root), (0, 0, vec![0, 7]));
        assert_eq!(caller(&export, &Credentials::Anonymous), (NOBODY, NOBODY, vec![]));
        export.squash = Squash::All;
        export.anonymous_uid = 1;
        assert_eq!(caller(&export, &user), (1, NOBODY, vec![]));
    }

    #[test]
    fn the_innermost_export_is_found() {
        let exports = Exports::new(vec![Export::new("/a"), Export::new("/a/b"), Export::new("/c")]).expect("good");
        let found =
            |path: &str| exports.find(path.as_bytes()).map(|(export, names)| (export.path.clone(), names.len()));
        assert_eq!(found("/a"), Some(("/a".into(), 1)));
        assert_eq!(found("/a/b/c/"), Some(("/a/b".into(), 3)));
        assert_eq!(found("//a///x"), Some(("/a".into(), 2)));
        for none in ["/", "/ab", "/a/../c", "a", "", "/d", "/a/."] {
            assert_eq!(found(none), None, "{none}");
        }
        let root = Exports::new(vec![Export::new("/")]).expect("good");
        assert!(root.find(b"").is_some() && root.find(b"/a").is_some() && root.find(b"a").is_none());
    }

    #[test]
    fn exports_that_cannot_be_served_are_refused() {
        for path in ["", "a", "/a/../b", "/."] {
            let refused = Exports::new(vec![Export::new(path)]);
            assert!(matches!(refused, Err(BadExport::Path { .. })), "{path}");
        }
        let twice = Exports::new(vec![Export::new("/a"), Export::new("/a/")]);
        assert!(matches!(twice, Err(BadExport::SameId { .. })));
    }
}
