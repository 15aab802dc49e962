//! Connections: accepted, served, reset when a fault wants it, and ended with the server.

use super::door::{Door, Line};
use anyhow::{Context, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// How long requests under way may take once the server is told to stop.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// Pause after a failed accept (such as too many open files), so that it does not spin.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// A task that serves one port. Dropped, it ends at once with all its connections.
pub(super) struct Server {
    addr: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    abort: AbortHandle,
}

impl Server {
    /// Serves the door on this port.
    pub(super) fn start(listener: TcpListener, door: Arc<Door>) -> Result<Self> {
        Self::run(listener, |listener, stop| accept(listener, door, stop))
    }

    /// Runs `serve` until it ends by itself after `stop` has turned true.
    pub(super) fn run<F: Future<Output = ()> + Send + 'static>(
        listener: TcpListener,
        serve: impl FnOnce(TcpListener, watch::Receiver<bool>) -> F,
    ) -> Result<Self> {
        let addr = listener.local_addr().context("asking for the port")?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(serve(listener, stopped));
        let abort = task.abort_handle();
        Ok(Self { addr, stop, task, abort })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) async fn stop(mut self) {
        self.stop.send_replace(true);
        if timeout(STOP_WITHIN, &mut self.task).await.is_err() {
            self.task.abort();
            // An aborted task ends at its next await; its port is free behind that.
            let _aborted = (&mut self.task).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// Returns when the server is told to stop, or is gone.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _gone = stop.wait_for(|stop| *stop).await;
}

async fn accept(listener: TcpListener, door: Arc<Door>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, door.clone(), stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    sleep(ACCEPT_AGAIN_AFTER).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve(stream: TcpStream, door: Arc<Door>, mut stop: watch::Receiver<bool>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection ended before it began");
        return;
    }
    let line = Arc::new(Line::default());
    let on_line = line.clone();
    let service = service_fn(move |request| door.clone().answer(request, on_line.clone()));
    let mut connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            () = line.reset.notified() => {
                let stream = connection.into_parts().io.into_inner();
                // Closing without lingering is what sends a reset.
                if let Err(error) = stream.set_zero_linger() {
                    tracing::warn!(%error, "a connection is closed instead of reset");
                }
                return;
            }
            () = stopped(&mut stop), if !stopping => {
                stopping = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
        }
    }
}
