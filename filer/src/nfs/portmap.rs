//! The port mapper, version 2 (RFC 1833): where NFS and MOUNT are. It maps nothing for others.

use super::decode::{Decoder, Malformed};
use super::dispatch::{Answer, Request, Service};
use super::rpc::Body;
use nfs3_types::portmap::{self, IPPROTO_TCP, PMAP_PROG, mapping};
use nfs3_types::xdr_codec::{List, Void};
use nfs3_types::{mount, nfs3};

/// What is served, all of it over TCP on one port.
const SERVED: [(u32, u32); 3] =
    [(portmap::PROGRAM, portmap::VERSION), (nfs3::PROGRAM, nfs3::VERSION), (mount::PROGRAM, mount::VERSION)];

impl Service {
    pub fn portmap(&self, request: &Request, mut arguments: Decoder) -> Result<Answer, Malformed> {
        let Ok(procedure) = PMAP_PROG::try_from(request.call.procedure) else {
            return Ok(Answer::NoProcedure);
        };
        let port = u32::from(self.port);
        Ok(Answer::Body(match procedure {
            PMAP_PROG::PMAPPROC_NULL => Body::plain(&Void),
            PMAP_PROG::PMAPPROC_GETPORT => {
                let (program, version) = (arguments.u32()?, arguments.u32()?);
                let (protocol, _port) = (arguments.u32()?, arguments.u32()?);
                let served = SERVED.contains(&(program, version)) && protocol == IPPROTO_TCP;
                Body::plain(&if served { port } else { 0 })
            }
            PMAP_PROG::PMAPPROC_DUMP => {
                let mapping = |(prog, vers)| mapping { prog, vers, prot: IPPROTO_TCP, port };
                Body::plain(&List(SERVED.map(mapping).to_vec()))
            }
            // Nobody may register anything here.
            PMAP_PROG::PMAPPROC_SET | PMAP_PROG::PMAPPROC_UNSET => Body::plain(&false),
            PMAP_PROG::PMAPPROC_CALLIT => return Ok(Answer::NoProcedure),
        }))
    }
}
