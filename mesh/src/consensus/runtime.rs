//! The ground the engine runs on: tokio, with every draw of a random number steered by the filer.
//!
//! The engine starts tasks and draws numbers through functions without a `self`, so what belongs to one filer (its
//! generator, how its tasks are started, which of them are alive) travels with the tasks: an [`Env`] is a task-local
//! value that every task started below it inherits. With [`Spawning::Local`] all tasks live in the `LocalSet` that
//! started the filer, and end with it.
//!
//! Owns: the tasks of one replica. Does not own: threads, the tokio runtime itself.

mod channels;
mod watch;

use crate::clock::Random;
use openraft::AsyncRuntime;
use openraft::async_runtime::{MpscReceiver, TryRecvError, instant::Instant as EngineInstant};
use std::{
    convert::Infallible,
    future::Future,
    ops::{Add, AddAssign, Sub, SubAssign},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::task::{AbortHandle, JoinError, JoinHandle};

pub(super) use watch::{Watcher, WatcherSender, channel as watch_channel};

tokio::task_local! {
    static ENV: Env;
}

/// How the tasks of a replica are started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spawning {
    /// With `tokio::spawn`: on any thread of the runtime.
    #[default]
    Runtime,
    /// With `tokio::task::spawn_local`: in the `LocalSet` that called `Consensus::start`, and ending with it.
    Local,
}

/// What belongs to one replica and is inherited by its tasks. A clone is another handle to the same.
#[derive(Clone)]
pub(super) struct Env {
    random: Arc<dyn Random>,
    spawning: Spawning,
    tasks: Arc<Mutex<Tasks>>,
}

/// The tasks that may be alive.
#[derive(Default)]
struct Tasks {
    handles: Vec<AbortHandle>,
    /// Length at which the ended ones are forgotten.
    sweep_at: usize,
    closed: bool,
}

impl Env {
    pub(super) fn new(random: Arc<dyn Random>, spawning: Spawning) -> Self {
        Self { random, spawning, tasks: Arc::default() }
    }

    /// A uniformly drawn number.
    pub(super) fn draw(&self) -> u64 {
        self.random.next_u64()
    }

    /// Runs `future` with this environment.
    pub(super) async fn scope<F: Future>(&self, future: F) -> F::Output {
        ENV.scope(self.clone(), future).await
    }

    /// Runs `function` with this environment.
    pub(super) fn enter<R>(&self, function: impl FnOnce() -> R) -> R {
        ENV.sync_scope(self.clone(), function)
    }

    /// Starts a task of this replica.
    pub(super) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let scoped = ENV.scope(self.clone(), future);
        let handle = match self.spawning {
            Spawning::Runtime => tokio::spawn(scoped),
            Spawning::Local => tokio::task::spawn_local(scoped),
        };
        let mut tasks = self.tasks.lock().expect("no task list access panics");
        if tasks.closed {
            handle.abort();
            return handle;
        }
        if tasks.handles.len() >= tasks.sweep_at {
            tasks.handles.retain(|task| !task.is_finished());
            tasks.sweep_at = (tasks.handles.len() * 2).max(64);
        }
        tasks.handles.push(handle.abort_handle());
        handle
    }

    /// Ends every task of this replica, and every one that would still be started.
    pub(super) fn abort_all(&self) {
        let mut tasks = self.tasks.lock().expect("no task list access panics");
        tasks.closed = true;
        tasks.handles.drain(..).for_each(|task| task.abort());
    }

    /// The environment of the running task.
    fn current() -> Self {
        ENV.with(Clone::clone)
    }
}

/// The engine's runtime.
#[derive(Debug)]
pub struct Tokio;

impl AsyncRuntime for Tokio {
    type JoinError = JoinError;
    type JoinHandle<T: Send + 'static> = JoinHandle<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = Moment;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + Send> = tokio::time::Timeout<T>;
    type ThreadLocalRng = Generator;
    type Mpsc = channels::TokioMpsc;
    type Watch = watch::FairWatch;
    type Oneshot = channels::TokioOneshot;
    type Mutex<T: Send + 'static> = channels::TokioMutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        Env::current().spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        tokio::time::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        tokio::time::sleep_until(deadline.0)
    }

    fn timeout<R, F: Future<Output = R> + Send>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        tokio::time::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        tokio::time::timeout_at(deadline.0, future)
    }

    /// What there is, for a message that was received to have others join it. Everybody who is ready has one turn before
    /// there is nothing, whatever the deadline: so the operations of many clients go into the log together, and one alone
    /// waits for no time.
    async fn mpsc_recv_deadline<T: Send>(
        receiver: &mut channels::Receiver<T>,
        _deadline: Self::Instant,
    ) -> Result<T, TryRecvError> {
        match receiver.try_recv() {
            Err(TryRecvError::Empty) if receiver.begin_gathering() => {
                tokio::task::yield_now().await;
                receiver.try_recv()
            }
            received => received,
        }
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        join_error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Generator(Env::current())
    }

    fn new(_threads: usize) -> Self {
        Self
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime without I/O needs nothing of the system").block_on(future)
    }
}

/// The engine's generator: the filer's own.
pub struct Generator(Env);

impl rand::TryRng for Generator {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.0.draw() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.draw())
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        for chunk in dst.chunks_mut(8) {
            chunk.copy_from_slice(&self.0.draw().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// A moment of tokio's clock, which tests and the simulator pause and steer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub(super) tokio::time::Instant);

impl EngineInstant for Moment {
    fn now() -> Self {
        Self(tokio::time::Instant::now())
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, duration: Duration) {
        self.0 += duration;
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0 - duration)
    }
}

impl Sub<Moment> for Moment {
    type Output = Duration;

    fn sub(self, earlier: Moment) -> Duration {
        self.0 - earlier.0
    }
}

impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, duration: Duration) {
        self.0 -= duration;
    }
}
