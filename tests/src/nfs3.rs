//! An NFSv3 client of our own: many calls at once over several connections, and a clock on every one of them.
//!
//! It behaves as a kernel's client does where that matters: a call that the server answers with JUKEBOX is asked again, a
//! call without an answer is sent again with the same number over a new connection, unstable writes are kept until a
//! COMMIT with the same verifier has covered them. Unlike `nfs_client` (the tools of libnfs) it can keep a file open across
//! failures and tell how long its longest call took.
//!
//! ```text
//! Nfs3 (a mount) ── files: whole files in pieces, paths, trees
//!        └───────── lanes: connections; a call goes to the next one and is matched by its number
//! ```
//!
//! Owns: calls, retries, pieces, the longest stall. Does not own: what a test does with files.

mod files;
mod lane;
mod procedures;

pub use files::Entry;
pub use nfs3_types::nfs3::{ftype3, nfs_fh3, nfsstat3, sattr3, stable_how};

use lane::{Lane, LaneError, Program};
use nfs3_types::{
    nfs3::fattr3,
    xdr_codec::{Pack, Unpack},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout_at};

/// A file's handle.
pub type Fh = nfs_fh3;
/// A file's attributes.
pub type Attr = fattr3;

/// Data of one READ or WRITE, in bytes.
pub const PIECE_BYTES: usize = 1 << 20;

/// Shortest and longest pause before a call is made again, in milliseconds.
const AGAIN_MS: (u64, u64) = (20, 500);

/// How to mount.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of NFS and MOUNT.
    pub server: SocketAddr,
    pub export: String,
    pub uid: u32,
    pub gid: u32,
    pub connections: usize,
    /// Pieces of one file that are read or written at the same time.
    pub pieces_in_flight_max: usize,
    /// How long one attempt waits for its answer before it is sent again.
    pub attempt_within: Duration,
    /// How long a call goes on, attempts and pauses together.
    pub call_within: Duration,
}

impl Options {
    /// As user 1000 at `/`, over four connections.
    pub fn new(server: SocketAddr) -> Self {
        Self {
            server,
            export: "/".into(),
            uid: 1000,
            gid: 1000,
            connections: 4,
            pieces_in_flight_max: 16,
            attempt_within: Duration::from_secs(60),
            call_within: Duration::from_secs(180),
        }
    }
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum Nfs3Error {
    /// The server says so.
    #[error("{attempted}: {status}")]
    Status { attempted: String, status: nfsstat3 },
    /// The server does not let us mount.
    #[error("mounting {export}: {why}")]
    Mount { export: String, why: String },
    /// Neither a result nor a refusal within the deadline.
    #[error("{attempted}: no result within {after_ms} ms; the last answer was: {last}")]
    TimedOut { attempted: String, after_ms: u64, last: String },
    /// The server speaks otherwise than NFS wants it.
    #[error("{attempted}: {what}")]
    Protocol { attempted: String, what: String },
    /// The data of a file on this machine.
    #[error("{attempted}")]
    Local { attempted: String, source: std::io::Error },
}

impl Nfs3Error {
    /// What the server said, where it said something.
    pub fn status(&self) -> Option<nfsstat3> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether there is no such file (any more).
    pub fn is_missing(&self) -> bool {
        matches!(self.status(), Some(nfsstat3::NFS3ERR_NOENT | nfsstat3::NFS3ERR_STALE))
    }
}

/// The call that took longest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    pub ms: u64,
    /// Its procedure, such as `WRITE`.
    pub procedure: &'static str,
    /// How often it was asked again.
    pub retries: u64,
}

/// Counters since the mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    pub calls: u64,
    /// Attempts beyond the first.
    pub retries: u64,
    /// Of data.
    pub read_bytes: u64,
    pub written_bytes: u64,
}

#[derive(Default)]
struct Counted {
    calls: AtomicU64,
    retries: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
}

struct Shared {
    options: Options,
    lanes: Vec<Lane>,
    turn: AtomicUsize,
    counted: Counted,
    longest: Mutex<Stall>,
    root: Fh,
}

/// A mount. A clone is another handle to it.
#[derive(Clone)]
pub struct Nfs3 {
    shared: Arc<Shared>,
}

impl Nfs3 {
    /// Mounts the export; waits for the server up to `call_within`.
    pub async fn mount(options: Options) -> Result<Self, Nfs3Error> {
        let lanes = (0..options.connections.max(1)).map(|_| Lane::new(&options)).collect();
        let (turn, counted, longest) = Default::default();
        let mut shared = Shared { options, lanes, turn, counted, longest, root: Fh::default() };
        shared.root = procedures::mount(&shared).await?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The export's directory.
    pub fn root(&self) -> Fh {
        self.shared.root.clone()
    }

    /// What it was mounted with.
    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// The call that took longest since the mount, or since this was last asked.
    pub fn take_longest(&self) -> Stall {
        std::mem::take(&mut *self.shared.longest.lock().expect("no holder of the longest stall panics"))
    }

    /// Counters.
    pub fn calls(&self) -> Calls {
        let counted = &self.shared.counted;
        Calls {
            calls: counted.calls.load(Relaxed),
            retries: counted.retries.load(Relaxed),
            read_bytes: counted.read_bytes.load(Relaxed),
            written_bytes: counted.written_bytes.load(Relaxed),
        }
    }
}

/// What an attempt came to.
enum Attempt<T> {
    Done(T),
    /// The server asks for patience.
    Later(String),
}

impl Shared {
    /// Makes a call until it has a result other than "later". `judge` reads the answer.
    async fn call<T: Unpack, R>(
        &self,
        program: Program,
        (procedure, name): (u32, &'static str),
        arguments: &impl Pack,
        judge: impl Fn(T) -> Result<Attempt<R>, Nfs3Error>,
    ) -> Result<R, Nfs3Error> {
        let protocol = |what: String| Nfs3Error::Protocol { attempted: name.into(), what };
        let mut packed = Vec::with_capacity(arguments.packed_size());
        arguments.pack(&mut packed).map_err(|e| protocol(e.to_string()))?;
        let start = Instant::now();
        let deadline = start + self.options.call_within;
        let (mut xid, mut retries, mut pause_ms) = (lane::xid_next(), 0, AGAIN_MS.0);
        let result = loop {
            let lane = &self.lanes[self.turn.fetch_add(1, Relaxed) % self.lanes.len()];
            let attempt_by = deadline.min(Instant::now() + self.options.attempt_within);
            let answer = timeout_at(attempt_by, lane.ask(xid, program, procedure, &packed)).await;
            let last = match answer {
                Ok(Ok(bytes)) => {
                    let read = T::unpack(&mut &bytes[..]).map_err(|e| protocol(format!("a malformed answer: {e}")));
                    match read.and_then(|(value, _)| judge(value)) {
                        Ok(Attempt::Done(done)) => break Ok(done),
                        Ok(Attempt::Later(why)) => {
                            // It was answered: asked again it is another call.
                            xid = lane::xid_next();
                            why
                        }
                        Err(error) => break Err(error),
                    }
                }
                Ok(Err(LaneError::Refused(what))) => break Err(protocol(what)),
                Ok(Err(LaneError::Broken(why))) => why,
                Err(_) => {
                    lane.hang_up();
                    "none".into()
                }
            };
            if Instant::now() >= deadline {
                let after_ms = start.elapsed().as_millis() as u64;
                break Err(Nfs3Error::TimedOut { attempted: name.into(), after_ms, last });
            }
            retries += 1;
            sleep(Duration::from_millis(pause_ms)).await;
            pause_ms = (2 * pause_ms).min(AGAIN_MS.1);
        };
        self.counted.calls.fetch_add(1, Relaxed);
        self.counted.retries.fetch_add(retries, Relaxed);
        let ms = start.elapsed().as_millis() as u64;
        let mut longest = self.longest.lock().expect("no holder of the longest stall panics");
        if ms > longest.ms {
            *longest = Stall { ms, procedure: name, retries };
        }
        result
    }
}
