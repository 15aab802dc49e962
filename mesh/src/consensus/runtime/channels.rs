//! Tokio's channels and mutex under the engine's names.

use openraft::async_runtime::{
    Mpsc, MpscReceiver, MpscSender, MpscWeakSender, Mutex, Oneshot, OneshotSender, SendError, TryRecvError,
};
use tokio::sync::{mpsc, oneshot};

/// Bounded queues.
pub struct TokioMpsc;

pub struct Sender<T>(mpsc::Sender<T>);
pub struct Receiver<T> {
    inner: mpsc::Receiver<T>,
    /// Whether others have had their turn since a message was waited for.
    gathered: bool,
}
pub struct WeakSender<T>(mpsc::WeakSender<T>);

impl Mpsc for TokioMpsc {
    type Sender<T: Send> = Sender<T>;
    type Receiver<T: Send> = Receiver<T>;
    type WeakSender<T: Send> = WeakSender<T>;

    fn channel<T: Send>(buffer: usize) -> (Sender<T>, Receiver<T>) {
        let (tx, rx) = mpsc::channel(buffer);
        (Sender(tx), Receiver { inner: rx, gathered: false })
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for WeakSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Send> MpscSender<TokioMpsc, T> for Sender<T> {
    async fn send(&self, msg: T) -> Result<(), SendError<T>> {
        self.0.send(msg).await.map_err(|e| SendError(e.0))
    }

    fn downgrade(&self) -> WeakSender<T> {
        WeakSender(self.0.downgrade())
    }
}

impl<T> Receiver<T> {
    /// Whether others are to have their turn before there is nothing more: once for each wait.
    pub fn begin_gathering(&mut self) -> bool {
        !std::mem::replace(&mut self.gathered, true)
    }
}

impl<T: Send> MpscReceiver<T> for Receiver<T> {
    async fn recv(&mut self) -> Option<T> {
        self.gathered = false;
        self.inner.recv().await
    }

    fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.inner.try_recv().map_err(|e| match e {
            mpsc::error::TryRecvError::Empty => TryRecvError::Empty,
            mpsc::error::TryRecvError::Disconnected => TryRecvError::Disconnected,
        })
    }
}

impl<T: Send> MpscWeakSender<TokioMpsc, T> for WeakSender<T> {
    fn upgrade(&self) -> Option<Sender<T>> {
        self.0.upgrade().map(Sender)
    }
}

/// Channels for one value.
pub struct TokioOneshot;

pub struct OnceSender<T>(oneshot::Sender<T>);

impl Oneshot for TokioOneshot {
    type Sender<T: Send> = OnceSender<T>;
    type Receiver<T: Send> = oneshot::Receiver<T>;
    type ReceiverError = oneshot::error::RecvError;

    fn channel<T: Send>() -> (OnceSender<T>, oneshot::Receiver<T>) {
        let (tx, rx) = oneshot::channel();
        (OnceSender(tx), rx)
    }
}

impl<T: Send> OneshotSender<T> for OnceSender<T> {
    fn send(self, t: T) -> Result<(), T> {
        self.0.send(t)
    }
}

/// A mutex that is waited for.
pub struct TokioMutex<T>(tokio::sync::Mutex<T>);

impl<T: Send + 'static> Mutex<T> for TokioMutex<T> {
    type Guard<'a> = tokio::sync::MutexGuard<'a, T>;

    fn new(value: T) -> Self {
        Self(tokio::sync::Mutex::new(value))
    }

    async fn lock(&self) -> Self::Guard<'_> {
        self.0.lock().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::runtime::{Moment, Tokio};
    use openraft::{AsyncRuntime, async_runtime::instant::Instant};

    #[tokio::test]
    async fn whoever_is_ready_joins_a_message_once() {
        let (sender, mut receiver) = TokioMpsc::channel(8);
        let send_soon = |number: u64| {
            let sender = sender.clone();
            tokio::spawn(async move { sender.send(number).await.is_ok() })
        };
        assert!(sender.send(1).await.is_ok());
        let second = send_soon(2);
        assert_eq!(receiver.recv().await, Some(1));
        assert!(matches!(Tokio::mpsc_recv_deadline(&mut receiver, Moment::now()).await, Ok(2)), "it has its turn");
        let third = send_soon(3);
        let next = Tokio::mpsc_recv_deadline(&mut receiver, Moment::now()).await;
        assert!(matches!(next, Err(TryRecvError::Empty)), "there is one turn for each wait");
        assert_eq!(receiver.recv().await, Some(3));
        assert!(second.await.is_ok_and(|sent| sent) && third.await.is_ok_and(|sent| sent));
    }
}
