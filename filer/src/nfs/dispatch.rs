//! From a call to its reply.

use super::admission::Kind;
use super::decode::Malformed;
use super::exports::{Export, Exports};
use super::handle::{Sealer, SecretSource, Unsealed, WireHandle};
use super::mount::Mounts;
use super::replay::{CallKey, Claim, Replays};
use super::rpc::{Body, Call, Reply};
use super::settings::NfsSettings;
use super::stats::{Counters, PROCEDURES, count};
use crate::fs::{Caller, FileSystem, FsError};
use nfs3_types::nfs3::{self, LINK3resfail, NFS_PROGRAM, RENAME3resfail, nfs_fh3, nfsstat3, post_op_attr, wcc_data};
use nfs3_types::xdr_codec::Void;
use nfs3_types::{mount, portmap};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use storage::cloudfs::Handle;
use tokio::time::Instant;
use tracing::Instrument;

/// Clients whose refusal was told in the log, at most; then refusals are counted alone.
const REFUSALS_TOLD_MAX: usize = 1024;

/// All that calls need.
pub struct Service {
    pub fs: Arc<dyn FileSystem>,
    pub exports: Exports,
    pub settings: NfsSettings,
    pub cloudfs: u64,
    pub sealer: Sealer,
    pub counters: Arc<Counters>,
    pub mounts: Mounts,
    /// Where NFS and MOUNT answer, for the port mapper.
    pub port: u16,
    replays: Replays,
    /// Of WRITEs, which are many: they take no room from the others.
    write_replays: Replays,
    requests: AtomicU64,
    refusals_told: Mutex<BTreeSet<(IpAddr, u64)>>,
}

/// A call and where it came from.
pub struct Request {
    pub call: Call,
    pub client: IpAddr,
}

/// A file that a call may use, and in whose name.
pub struct Place<'a> {
    pub export: &'a Export,
    pub caller: Caller,
    pub file: Handle,
}

impl Service {
    pub fn new(
        settings: NfsSettings,
        exports: Exports,
        (cloudfs, secret): (u64, SecretSource),
        fs: Arc<dyn FileSystem>,
        counters: Arc<Counters>,
        port: u16,
    ) -> Self {
        let age_max = Duration::from_millis(settings.replay_ms_max);
        let replays = || Replays::new(settings.replay_entries_max, settings.replay_bytes_max, age_max);
        Self {
            fs,
            exports,
            cloudfs,
            sealer: Sealer::new(cloudfs, secret),
            counters,
            port,
            mounts: Mounts::new(settings.mounts_max),
            replays: replays(),
            write_replays: replays(),
            settings,
            requests: AtomicU64::new(1),
            refusals_told: Mutex::default(),
        }
    }

    /// The reply to a call; none where a newer repetition of the call gets it.
    pub async fn reply(&self, request: &Request) -> Option<Reply> {
        let call = &request.call;
        let reply = match (call.program, call.version) {
            (nfs3::PROGRAM, nfs3::VERSION) => self.nfs_reply(request).await,
            (mount::PROGRAM, mount::VERSION) => {
                count(&self.counters.mount_calls);
                self.mount(request, call.arguments.clone()).await
            }
            (portmap::PROGRAM, portmap::VERSION) => {
                count(&self.counters.portmap_calls);
                self.portmap(request, call.arguments.clone())
            }
            (nfs3::PROGRAM, _) => return Some(self.refused(Reply::program_mismatch(call.xid, nfs3::VERSION))),
            (mount::PROGRAM, _) => return Some(self.refused(Reply::program_mismatch(call.xid, mount::VERSION))),
            (portmap::PROGRAM, _) => return Some(self.refused(Reply::program_mismatch(call.xid, portmap::VERSION))),
            _ => return Some(self.refused(Reply::program_unavailable(call.xid))),
        };
        match reply {
            Ok(Answer::Body(body)) => Some(body.into_reply(call.xid)),
            Ok(Answer::Reply(reply)) => Some(reply),
            Ok(Answer::NoReply) => None,
            Ok(Answer::NoProcedure) => Some(self.refused(Reply::procedure_unavailable(call.xid))),
            Err(Malformed) => Some(self.refused(Reply::garbage_arguments(call.xid))),
        }
    }

    /// The reply to a call that there is no room for: it is not run, and its client asks again later. An error where it is
    /// at work already, as an earlier repetition of itself: see [`Service::awaited`].
    pub fn turned_away(&self, request: &Request) -> Result<Reply, CallKey> {
        let call = &request.call;
        match NFS_PROGRAM::try_from(call.procedure) {
            Ok(procedure) if (call.program, call.version) == (nfs3::PROGRAM, nfs3::VERSION) => {
                self.turned_away_by(request.key(), procedure)
            }
            _ => Ok(self.refused(Reply::system_error(call.xid))),
        }
    }

    /// As [`Service::turned_away`], for a WRITE that was not read, but for its checksum.
    pub fn write_turned_away(&self, client: IpAddr, xid: u32, checksum: u64) -> Result<Reply, CallKey> {
        const WRITE: NFS_PROGRAM = NFS_PROGRAM::NFSPROC3_WRITE;
        self.turned_away_by(CallKey { client, xid, procedure: WRITE as u32, checksum }, WRITE)
    }

    fn turned_away_by(&self, key: CallKey, procedure: NFS_PROGRAM) -> Result<Reply, CallKey> {
        let reply = later(procedure, key.xid);
        match self.replays_of(procedure) {
            Some(replays) => replays.turn_away(key, reply.head).map(Reply::whole).ok_or(key),
            None => Ok(reply),
        }
    }

    /// The reply to a call that was turned away while it was at work, once there is one; none where a newer repetition gets
    /// it. It takes no room meanwhile.
    pub async fn awaited(&self, key: CallKey) -> Option<Reply> {
        let procedure = NFS_PROGRAM::try_from(key.procedure).ok()?;
        count(&self.counters.repeated_calls);
        match self.replays_of(procedure)?.claim(key).await {
            Claim::Replaced => None,
            Claim::Repeated(reply) => Some(Reply::whole(reply)),
            // It ended without a reply; this one has no room to be run.
            Claim::First(ticket) => {
                let reply = later(procedure, key.xid);
                ticket.answer(reply.head.clone());
                Some(reply)
            }
        }
    }

    fn refused(&self, reply: Reply) -> Reply {
        count(&self.counters.refused_calls);
        reply
    }

    async fn nfs_reply(&self, request: &Request) -> Result<Answer, Malformed> {
        let call = &request.call;
        let Ok(procedure) = NFS_PROGRAM::try_from(call.procedure) else {
            return Ok(Answer::NoProcedure);
        };
        let (begun, number) = (Instant::now(), self.requests.fetch_add(1, Ordering::Relaxed));
        let name = PROCEDURES[procedure as usize];
        let client = request.client;
        let span = tracing::info_span!("nfs", request = number, procedure = name, %client, xid = call.xid);
        async {
            let (status, answer) = match self.replays_of(procedure) {
                Some(replays) => self.once(replays, request, procedure).await?,
                None => {
                    let body = self.nfs(request, procedure).await?;
                    (Some(body.status), Answer::Body(body))
                }
            };
            let took = begun.elapsed();
            tracing::debug!(?status, ?took, "answered");
            if let Some(status) = status {
                self.counters.finished(procedure as usize, status, took);
            }
            Ok(answer)
        }
        .instrument(span)
        .await
    }

    /// The answers kept for repetitions of a call, where a second run would answer otherwise or undo what came in between.
    fn replays_of(&self, procedure: NFS_PROGRAM) -> Option<&Replays> {
        match procedure {
            NFS_PROGRAM::NFSPROC3_WRITE => Some(&self.write_replays),
            procedure if is_change(procedure) => Some(&self.replays),
            _ => None,
        }
    }

    /// Runs a call that must not run twice. No status: it did run before.
    async fn once(
        &self,
        replays: &Replays,
        request: &Request,
        procedure: NFS_PROGRAM,
    ) -> Result<(Option<nfsstat3>, Answer), Malformed> {
        match replays.claim(request.key()).await {
            Claim::Replaced => {
                count(&self.counters.repeated_calls);
                Ok((None, Answer::NoReply))
            }
            Claim::Repeated(reply) => {
                count(&self.counters.repeated_calls);
                Ok((None, Answer::Reply(Reply::whole(reply))))
            }
            Claim::First(ticket) => {
                let body = self.nfs(request, procedure).await?;
                let status = body.status;
                let reply = body.into_reply(request.call.xid);
                // Whatever it is: a client told to ask later does so with a new xid, and this call must not run then.
                ticket.answer(reply.head.clone());
                Ok((Some(status), Answer::Reply(reply)))
            }
        }
    }

    async fn nfs(&self, request: &Request, procedure: NFS_PROGRAM) -> Result<Body, Malformed> {
        let arguments = request.call.arguments.clone();
        match procedure {
            NFS_PROGRAM::NFSPROC3_NULL => Ok(Body::plain(&Void)),
            NFS_PROGRAM::NFSPROC3_GETATTR => self.getattr(request, arguments).await,
            NFS_PROGRAM::NFSPROC3_SETATTR => self.setattr(request, arguments).await,
            NFS_PROGRAM::NFSPROC3_LOOKUP => self.lookup(request, arguments).await,
            NFS_PROGRAM::NFSPROC3_ACCESS => self.access(request, arguments).await,
            NFS_PROGRAM::NFSPROC3_READLINK => self.readlink(request, arguments).await,
            NFS_PROGRAM::NFSPROC3_READ => self.read(request, arguments).await,
            NFS_PROGRAM::NFSPROC3_WRITE => self.write(request, arguments).await,
            NFS_PROGRAM::NFSPROC3_CREATE => self.create(request, arguments).await,
            NFS_PROGRAM::NFSPROC3_MKDIR => self.mkdir(request, arguments).await,
            NFS_PROGRAM::NFSPROC3_SYMLINK => self.symlink(request, arguments).await,
            NFS_PROGRAM::NFSPROC3_MKNOD => self.mknod(request, arguments).await,
            NFS_PROGRAM::NFSPROC3_REMOVE => self.remove(request, arguments).await,
            NFS_PROGRAM::NFSPROC3_RMDIR => self.rmdir(request, arguments).await,
            NFS_PROGRAM::NFSPROC3_RENAME => self.rename(request, arguments).await,
            NFS_PROGRAM::NFSPROC3_LINK => self.link(request, arguments).await,
            NFS_PROGRAM::NFSPROC3_READDIR => self.readdir(request, arguments).await,
            NFS_PROGRAM::NFSPROC3_READDIRPLUS => self.readdirplus(request, arguments).await,
            NFS_PROGRAM::NFSPROC3_FSSTAT => self.fsstat(request, arguments).await,
            NFS_PROGRAM::NFSPROC3_FSINFO => self.fsinfo(request, arguments).await,
            NFS_PROGRAM::NFSPROC3_PATHCONF => self.pathconf(request, arguments).await,
            NFS_PROGRAM::NFSPROC3_COMMIT => self.commit(request, arguments).await,
        }
    }

    /// The file of a handle, if the caller's client may use the export it was reached by.
    pub fn place(&self, request: &Request, handle: &[u8]) -> Result<Place<'_>, nfsstat3> {
        let handle = match self.sealer.open(handle) {
            Ok(handle) => handle,
            // A filer that has just begun to join; clients ask again.
            Err(Unsealed::NoSecret) => return Err(nfsstat3::NFS3ERR_JUKEBOX),
            Err(Unsealed::Forged) => {
                count(&self.counters.bad_handles);
                tracing::debug!(client = %request.client, "refused: a handle that this CloudFS never gave out");
                return Err(nfsstat3::NFS3ERR_BADHANDLE);
            }
        };
        let export = self.exports.get(handle.export).ok_or(nfsstat3::NFS3ERR_STALE)?;
        if !export.admits(request.client) {
            self.tell_refusal(request.client, export);
            return Err(nfsstat3::NFS3ERR_ACCES);
        }
        let caller = export.caller(&request.call.credentials, request.client);
        Ok(Place { export, caller, file: handle.file })
    }

    /// As [`Service::place`], for a call that changes something.
    pub fn place_to_change(&self, request: &Request, handle: &[u8]) -> Result<Place<'_>, nfsstat3> {
        let place = self.place(request, handle)?;
        if place.export.read_only { Err(nfsstat3::NFS3ERR_ROFS) } else { Ok(place) }
    }

    /// Counts a refused client, and warns of it once.
    pub fn tell_refusal(&self, client: IpAddr, export: &Export) {
        count(&self.counters.refused_clients);
        let mut told = self.refusals_told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < REFUSALS_TOLD_MAX && told.insert((client, export.id())) {
            tracing::warn!(%client, export = export.path, "refused: the export is not for this client's network");
        }
    }

    /// The handle by which a client of this export reaches the file; `None` while the CloudFS's secret is not known.
    pub fn first_handle(&self, export: &Export, file: Handle) -> Option<nfs_fh3> {
        self.sealer.seal(WireHandle { file, export: export.id() })
    }

    /// The same for a call that brought a good handle itself.
    pub fn handle(&self, export: &Export, file: Handle) -> nfs_fh3 {
        self.first_handle(export, file).expect("a handle was opened with the secret, which stays")
    }

    /// The directory at the end of these names, from the root, as nobody's rights would limit it.
    pub async fn walk(&self, names: impl Iterator<Item = &[u8]> + Send) -> Result<Handle, FsError> {
        let root = Caller { uid: 0, gid: 0, groups: Vec::new(), client: None };
        let mut at = self.fs.root();
        for name in names {
            at = self.fs.lookup(&root, at, name).await?.handle;
        }
        Ok(at)
    }
}

/// What a program made of a call.
pub enum Answer {
    Body(Body),
    Reply(Reply),
    NoReply,
    NoProcedure,
}

impl Request {
    fn key(&self) -> CallKey {
        let call = &self.call;
        CallKey { client: self.client, xid: call.xid, procedure: call.procedure, checksum: call.checksum() }
    }
}

/// NFS3ERR_JUKEBOX, in the form that a procedure's failures have, for a call that was not run.
fn later(procedure: NFS_PROGRAM, xid: u32) -> Reply {
    const LATER: nfsstat3 = nfsstat3::NFS3ERR_JUKEBOX;
    let body = match procedure {
        NFS_PROGRAM::NFSPROC3_NULL => Body::plain(&Void),
        NFS_PROGRAM::NFSPROC3_GETATTR => Body::failed(LATER, &Void),
        NFS_PROGRAM::NFSPROC3_RENAME => Body::failed(LATER, &RENAME3resfail::default()),
        NFS_PROGRAM::NFSPROC3_LINK => {
            let file_attributes = post_op_attr::None;
            Body::failed(LATER, &LINK3resfail { file_attributes, linkdir_wcc: wcc_data::default() })
        }
        NFS_PROGRAM::NFSPROC3_WRITE | NFS_PROGRAM::NFSPROC3_COMMIT => Body::failed(LATER, &wcc_data::default()),
        procedure if is_change(procedure) => Body::failed(LATER, &wcc_data::default()),
        _ => Body::failed(LATER, &post_op_attr::None),
    };
    body.into_reply(xid)
}

/// Whether it changes names or attributes.
fn is_change(procedure: NFS_PROGRAM) -> bool {
    matches!(
        procedure,
        NFS_PROGRAM::NFSPROC3_SETATTR
            | NFS_PROGRAM::NFSPROC3_CREATE
            | NFS_PROGRAM::NFSPROC3_MKDIR
            | NFS_PROGRAM::NFSPROC3_SYMLINK
            | NFS_PROGRAM::NFSPROC3_MKNOD
            | NFS_PROGRAM::NFSPROC3_REMOVE
            | NFS_PROGRAM::NFSPROC3_RMDIR
            | NFS_PROGRAM::NFSPROC3_RENAME
            | NFS_PROGRAM::NFSPROC3_LINK
    )
}

/// Room for a reply that carries neither data nor entries, in bytes.
pub const SHORT_REPLY_BYTES: u64 = 1024;

impl Call {
    /// What the call asks for.
    pub fn kind(&self) -> Kind {
        match NFS_PROGRAM::try_from(self.procedure) {
            Ok(procedure) if self.program == nfs3::PROGRAM => match procedure {
                NFS_PROGRAM::NFSPROC3_READ | NFS_PROGRAM::NFSPROC3_READDIR | NFS_PROGRAM::NFSPROC3_READDIRPLUS => {
                    Kind::Read
                }
                NFS_PROGRAM::NFSPROC3_WRITE | NFS_PROGRAM::NFSPROC3_COMMIT => Kind::Write,
                procedure if is_change(procedure) => Kind::Change,
                _ => Kind::Look,
            },
            _ => Kind::Look,
        }
    }

    /// How long the reply may get, in bytes, roughly.
    pub fn reply_bytes_max(&self, settings: &NfsSettings) -> u64 {
        let count = || -> Result<u32, Malformed> {
            let mut arguments = self.arguments.clone();
            let (_handle, _place) = (arguments.handle()?, arguments.u64()?);
            match NFS_PROGRAM::try_from(self.procedure) {
                Ok(NFS_PROGRAM::NFSPROC3_READ) => Ok(arguments.u32()?.min(settings.read_bytes_max)),
                Ok(NFS_PROGRAM::NFSPROC3_READDIR | NFS_PROGRAM::NFSPROC3_READDIRPLUS) => {
                    Ok(settings.directory_bytes_max.min(settings.directory_bytes_preferred * 2))
                }
                _ => Ok(0),
            }
        };
        let nfs = self.program == nfs3::PROGRAM;
        SHORT_REPLY_BYTES + u64::from(if nfs { count().unwrap_or(0) } else { 0 })
    }
}
