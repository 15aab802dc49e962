//! A raw RPC client, and a server to talk to.

#![expect(clippy::disallowed_methods, reason = "a real client, at a real door")]

use super::memory::Memory;
use crate::nfs::{Export, NfsServer, NfsSettings, SecretSource};
use nfs3_types::mount::{self, dirpath, mountres3};
use nfs3_types::nfs3::{self, diropargs3, filename3, nfs_fh3};
use nfs3_types::rpc::{
    accept_stat_data, auth_unix, call_body, fragment_header, msg_body, opaque_auth, rejected_reply, reply_body, rpc_msg,
};
use nfs3_types::xdr_codec::{Opaque, Pack, Unpack};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use storage::cloudfs::DoorSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const CLOUDFS: u64 = 0xc10d_f500_0000_0001;

/// A CloudFS whose doors seal with this byte.
pub fn sealed(secret: u8) -> SecretSource {
    Arc::new(move || Some(DoorSecret::new([secret; 32])))
}

/// A server over an empty tree.
pub struct Site {
    pub memory: Arc<Memory>,
    pub server: NfsServer,
}

impl Site {
    /// `/`, root not squashed.
    pub async fn open() -> Self {
        Self::with(NfsSettings::default(), vec![unsquashed("/")]).await
    }

    pub async fn with(settings: NfsSettings, exports: Vec<Export>) -> Self {
        let memory = Arc::new(Memory::new());
        let server = start(settings, exports, memory.clone()).await;
        Self { memory, server }
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.server.local_addr()).await
    }
}

pub async fn start(settings: NfsSettings, exports: Vec<Export>, memory: Arc<Memory>) -> NfsServer {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    NfsServer::start(settings, exports, (CLOUDFS, sealed(7)), memory, listen).await.expect("a free port")
}

pub fn unsquashed(path: &str) -> Export {
    Export { squash: crate::nfs::Squash::None, ..Export::new(path) }
}

/// How a call was refused by RPC.
#[derive(Debug)]
pub enum Refused {
    Accepted(accept_stat_data),
    Denied(rejected_reply),
    /// The connection was closed.
    Closed,
}

pub struct Client {
    stream: TcpStream,
    pub credentials: opaque_auth<'static>,
}

/// Xids differ among all clients of a process, as they do among mounts of a real client.
static XID: AtomicU32 = AtomicU32::new(1);

pub fn xid_next() -> u32 {
    XID.fetch_add(1, Ordering::SeqCst)
}

pub fn user(uid: u32, gids: Vec<u32>) -> opaque_auth<'static> {
    opaque_auth::auth_unix(&auth_unix { uid, gid: uid, gids, ..auth_unix::default() })
}

pub fn packed(value: &impl Pack) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.pack(&mut bytes).expect("a Vec takes any write");
    bytes
}

pub fn unpacked<T: Unpack>(bytes: &[u8]) -> T {
    let mut rest = bytes;
    let (value, len) = T::unpack(&mut rest).expect("a well-formed answer");
    assert_eq!((len, rest.len()), (bytes.len(), 0), "the answer is read to its end");
    value
}

/// A record in one fragment.
pub fn record(data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).expect("short");
    [&fragment_header::new(len, true).into_xdr_buf(), data].concat()
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream, credentials: user(0, vec![]) }
    }

    pub fn call(&self, xid: u32, program: (u32, u32), procedure: u32, arguments: &impl Pack) -> Vec<u8> {
        let cred = self.credentials.borrow();
        let (prog, vers) = program;
        let body = call_body { rpcvers: 2, prog, vers, proc: procedure, cred, verf: opaque_auth::default() };
        let head = packed(&rpc_msg { xid, body: msg_body::CALL(body) });
        [head, packed(arguments)].concat()
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the server reads");
    }

    /// Sends, even to a server that may have closed the connection already.
    pub async fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next reply: its xid and result.
    pub async fn receive(&mut self) -> (u32, Result<Vec<u8>, Refused>) {
        let mut mark = [0; 4];
        if self.stream.read_exact(&mut mark).await.is_err() {
            return (0, Err(Refused::Closed));
        }
        let mark = fragment_header::from(mark);
        assert!(mark.eof(), "replies come in one fragment");
        let mut data = vec![0; mark.fragment_length() as usize];
        self.stream.read_exact(&mut data).await.expect("a whole reply");
        let mut rest = &data[..];
        let (message, _) = rpc_msg::unpack(&mut rest).expect("an RPC reply");
        let result = match message.body {
            msg_body::REPLY(reply_body::MSG_ACCEPTED(accepted)) => match accepted.reply_data {
                accept_stat_data::SUCCESS => Ok(rest.to_vec()),
                other => Err(Refused::Accepted(other)),
            },
            msg_body::REPLY(reply_body::MSG_DENIED(denied)) => Err(Refused::Denied(denied)),
            msg_body::CALL(_) => panic!("a call from the server"),
        };
        (message.xid, result)
    }

    pub async fn ask(
        &mut self,
        program: (u32, u32),
        procedure: u32,
        arguments: &impl Pack,
    ) -> Result<Vec<u8>, Refused> {
        let xid = xid_next();
        let call = self.call(xid, program, procedure, arguments);
        self.send(&record(&call)).await;
        let (answered, result) = self.receive().await;
        assert!(answered == xid || matches!(result, Err(Refused::Closed)));
        result
    }

    /// An NFS call that RPC accepts.
    pub async fn nfs<T: Unpack>(&mut self, procedure: nfs3::NFS_PROGRAM, arguments: &impl Pack) -> T {
        let result = self.ask((nfs3::PROGRAM, nfs3::VERSION), procedure as u32, arguments).await;
        unpacked(&result.expect("accepted"))
    }

    pub async fn mount(&mut self, path: &str) -> Result<nfs_fh3, mount::mountstat3> {
        let path = dirpath(Opaque::borrowed(path.as_bytes()));
        let result = self.ask((mount::PROGRAM, mount::VERSION), 1, &path).await;
        match unpacked(&result.expect("accepted")) {
            mountres3::Ok(ok) => Ok(nfs_fh3 { data: ok.fhandle.0 }),
            mountres3::Err(status) => Err(status),
        }
    }
}

pub fn at<'a>(dir: &nfs_fh3, name: &'a str) -> diropargs3<'a> {
    diropargs3 { dir: dir.clone(), name: filename3(Opaque::borrowed(name.as_bytes())) }
}
