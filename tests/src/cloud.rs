//! A cloud to test with: a small, correct and fast S3 server, and faults to order.
//!
//! It keeps objects in memory or as files, tells their MD5 as ETag, checks Content-MD5 and signatures, and counts what
//! it is asked. Tests switch on faults while it runs: in the same process by [`TestCloud::faults`], in another one
//! through its admin port (see [`CloudProcess`] and [`RemoteCloud`]).
//!
//! ```text
//! client -> server -> door (journal, faults) -> protocol (S3) -> objects (memory or files)
//! test   -> TestCloud, or admin port -> faults, journal, objects
//! ```
//!
//! Owns: starting and stopping. Does not own: being asked for twice (no multipart, no versions, no access lists).

mod admin;
mod child;
mod door;
mod faults;
mod journal;
mod objects;
mod protocol;
mod remote;
mod server;
#[cfg(test)]
mod tests;

pub use child::CloudProcess;
pub use faults::{Active, Effect, Fault, Faults, Keys, On, Operation};
pub use journal::{Counters, Entry, Journal, Outcome};
pub use objects::{Facts, Home, Objects, ObjectsError, hex};
pub use remote::{Held, RemoteCloud};

use anyhow::{Context, Result};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use server::Server;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Requests the log remembers.
pub const LOG_ENTRIES_MAX: usize = 100_000;

/// How a test cloud is started.
#[derive(Clone, Debug)]
pub struct Options {
    pub home: Home,
    /// Port 0: a free one.
    pub listen: SocketAddr,
    /// Where faults are ordered over HTTP, if anywhere.
    pub admin: Option<SocketAddr>,
    pub access_key: String,
    pub secret_key: String,
    /// Created if missing.
    pub buckets: Vec<String>,
    /// Requests the log remembers.
    pub log_entries_max: usize,
    /// Switched on before the first request, in this order.
    pub faults: Vec<Fault>,
}

impl Options {
    /// A cloud in memory with one bucket, on a free port.
    pub fn memory(bucket: impl Into<String>) -> Self {
        Self {
            home: Home::Memory,
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            admin: None,
            access_key: "test-access-key".into(),
            secret_key: "test-secret-key".into(),
            buckets: vec![bucket.into()],
            log_entries_max: LOG_ENTRIES_MAX,
            faults: vec![],
        }
    }

    /// A cloud that keeps its objects below `folder`.
    pub fn directory(folder: impl Into<PathBuf>, bucket: impl Into<String>) -> Self {
        Self { home: Home::Directory(folder.into()), ..Self::memory(bucket) }
    }

    /// At this address, such as the one it had before.
    pub fn listen(self, listen: SocketAddr) -> Self {
        Self { listen, ..self }
    }

    /// With an admin port (0: a free one).
    pub fn admin(self, admin: SocketAddr) -> Self {
        Self { admin: Some(admin), ..self }
    }
}

/// What the admin port and the handle share.
struct Shared {
    faults: Arc<Faults>,
    journal: Arc<Journal>,
    objects: Arc<Objects>,
}

/// A running cloud. Dropped, it is gone at once, with every connection; see [`TestCloud::stop`] for the gentle way.
pub struct TestCloud {
    shared: Arc<Shared>,
    options: Options,
    server: Server,
    admin: Option<Server>,
    _later: Later,
}

/// Ends stores and losses yet to happen, with the cloud.
struct Later(Arc<door::Door>);

impl Drop for Later {
    fn drop(&mut self) {
        self.0.forget_later();
    }
}

impl TestCloud {
    /// Starts it on the runtime of the caller.
    pub async fn start(options: Options) -> Result<Self> {
        let objects = Objects::open(options.home.clone()).with_context(|| format!("opening {:?}", options.home))?;
        for bucket in &options.buckets {
            objects.create_bucket(bucket).with_context(|| format!("creating bucket {bucket}"))?;
        }
        let faults = Arc::new(Faults::default());
        for fault in &options.faults {
            faults.add(fault.clone());
        }
        let shared = Arc::new(Shared {
            faults,
            journal: Arc::new(Journal::new(options.log_entries_max)),
            objects: Arc::new(objects),
        });
        let mut service = S3ServiceBuilder::new(protocol::Protocol { objects: shared.objects.clone() });
        service.set_auth(SimpleAuth::from_single(options.access_key.clone(), options.secret_key.clone()));
        let door = Arc::new(door::Door {
            s3: service.build(),
            faults: shared.faults.clone(),
            journal: shared.journal.clone(),
            objects: shared.objects.clone(),
            later: Mutex::new(JoinSet::new()),
        });
        let listener = listen(options.listen).await?;
        let admin = match options.admin {
            Some(at) => Some(admin::serve(listen(at).await?, shared.clone())?),
            None => None,
        };
        let server = Server::start(listener, door.clone())?;
        Ok(Self { shared, options, server, admin, _later: Later(door) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// Where faults are ordered.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Server::addr)
    }

    /// The endpoint for S3 clients, which must put the bucket in the path.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// What it was started with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The first bucket.
    pub fn bucket(&self) -> &str {
        self.options.buckets.first().map_or("", String::as_str)
    }

    /// The faults to switch on and off.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// What was asked of it.
    pub fn journal(&self) -> &Journal {
        &self.shared.journal
    }

    /// What it holds, looked at from behind: this is neither counted nor met by faults.
    pub fn objects(&self) -> &Objects {
        &self.shared.objects
    }

    /// Answers what is under way for up to two seconds, then is gone. The port can be taken again at once.
    pub async fn stop(self) {
        self.server.stop().await;
        if let Some(admin) = self.admin {
            admin.stop().await;
        }
    }
}

async fn listen(at: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(at).await.with_context(|| format!("listening on {at}"))
}
