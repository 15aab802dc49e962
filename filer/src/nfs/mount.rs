//! MOUNT v3 (RFC 1813, appendix I): from a path to its first handle.

use super::decode::{Decoder, Malformed};
use super::dispatch::{Answer, Request, Service};
use super::rpc::Body;
use super::status::mount_status_of;
use crate::fs::Caller;
use nfs3_types::mount::{
    MNTPATHLEN, MOUNT_PROGRAM, dirpath, export_node, fhandle3, mountbody, mountres3, mountres3_ok, mountstat3, name,
};
use nfs3_types::rpc::auth_flavor;
use nfs3_types::xdr_codec::{List, Opaque, Void};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use storage::cloudfs::NodeKind;

/// Who mounted what, as clients said. For people alone.
pub struct Mounts {
    known: Mutex<BTreeSet<(IpAddr, Vec<u8>)>>,
    mounts_max: usize,
}

impl Mounts {
    pub fn new(mounts_max: usize) -> Self {
        Self { known: Mutex::default(), mounts_max }
    }

    fn known(&self) -> MutexGuard<'_, BTreeSet<(IpAddr, Vec<u8>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    pub async fn mount(&self, request: &Request, mut arguments: Decoder) -> Result<Answer, Malformed> {
        let Ok(procedure) = MOUNT_PROGRAM::try_from(request.call.procedure) else {
            return Ok(Answer::NoProcedure);
        };
        Ok(Answer::Body(match procedure {
            MOUNT_PROGRAM::MOUNTPROC3_NULL => Body::plain(&Void),
            MOUNT_PROGRAM::MOUNTPROC3_MNT => {
                let path = arguments.opaque()?;
                match self.mnt(request, &path).await {
                    Ok(handle) => {
                        let auth_flavors = vec![auth_flavor::AUTH_UNIX as u32];
                        Body::plain(&mountres3::Ok(mountres3_ok { fhandle: fhandle3(handle), auth_flavors }))
                    }
                    Err(status) => Body::plain(&mountres3::Err(status)),
                }
            }
            MOUNT_PROGRAM::MOUNTPROC3_DUMP => Body::plain(&List(self.dump())),
            MOUNT_PROGRAM::MOUNTPROC3_UMNT => {
                let path = arguments.opaque()?;
                self.mounts.known().remove(&(request.client, path.to_vec()));
                Body::plain(&Void)
            }
            MOUNT_PROGRAM::MOUNTPROC3_UMNTALL => {
                self.mounts.known().retain(|(client, _)| *client != request.client);
                Body::plain(&Void)
            }
            MOUNT_PROGRAM::MOUNTPROC3_EXPORT => Body::plain(&List(self.exports_for(request.client))),
        }))
    }

    /// The handle of an exported directory, or of one below it.
    async fn mnt(&self, request: &Request, path: &[u8]) -> Result<Opaque<'static>, mountstat3> {
        if path.len() > MNTPATHLEN {
            return Err(mountstat3::MNT3ERR_NAMETOOLONG);
        }
        let (export, names) = self.exports.find(path).ok_or(mountstat3::MNT3ERR_NOENT)?;
        if !export.admits(request.client) {
            self.tell_refusal(request.client, export);
            return Err(mountstat3::MNT3ERR_ACCES);
        }
        let dir = self.walk(names.into_iter()).await.map_err(|error| mount_status_of(&error))?;
        let root = Caller { uid: 0, gid: 0, groups: Vec::new(), client: None };
        let attr = self.fs.getattr(&root, dir).await.map_err(|error| mount_status_of(&error))?;
        if !matches!(attr.kind, NodeKind::Directory { .. }) {
            return Err(mountstat3::MNT3ERR_NOTDIR);
        }
        // MOUNT has no word for "later"; clients try a server fault again.
        let handle = self.first_handle(export, dir).ok_or(mountstat3::MNT3ERR_SERVERFAULT)?;
        let mut known = self.mounts.known();
        if known.len() < self.mounts.mounts_max {
            known.insert((request.client, path.to_vec()));
        }
        tracing::info!(client = %request.client, path = %path.escape_ascii(), "mounted");
        Ok(handle.data)
    }

    fn dump(&self) -> Vec<mountbody<'static, 'static>> {
        let known = self.mounts.known();
        let mount = |(client, path): &(IpAddr, Vec<u8>)| mountbody {
            ml_hostname: name(Opaque::owned(client.to_string().into_bytes())),
            ml_directory: dirpath(Opaque::owned(path.clone())),
        };
        known.iter().map(mount).collect()
    }

    /// The exports that this client may use, with their networks.
    fn exports_for(&self, client: IpAddr) -> Vec<export_node<'_, 'static>> {
        let usable = self.exports.iter().filter(|export| export.admits(client));
        let network = |network: &super::Network| name(Opaque::owned(network.to_string().into_bytes()));
        let node = |export: &'_ super::Export| export_node {
            ex_dir: dirpath(Opaque::owned(export.path.clone().into_bytes())),
            ex_groups: List(export.networks.iter().map(network).collect()),
        };
        usable.map(node).collect()
    }
}
