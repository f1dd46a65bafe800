//! One write that was handed over, and its outcome.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::{Durability, Engine};
use crate::store::{StorageError, Tx};

/// The outcome of a write that was handed over: wait for it, or await it.
pub(crate) struct Ticket<T, F> {
    pub(super) reply: oneshot::Receiver<std::result::Result<T, F>>,
}

/// A write that nobody waits for.
pub(super) fn catching_up<E: Engine>() -> Box<dyn Job<E>> {
    let write = |tx: Tx<'_>, engine: &mut E| engine.catch_up(tx);
    let ahead = Some(E::stale_ahead());
    Box::new(Task { durability: Durability::Normal, ahead, write: Some(write), outcome: None, reply: None })
}

impl<T, F: From<StorageError>> Ticket<T, F> {
    /// Waits on the calling thread, which may also be inside an async runtime.
    pub(crate) fn wait(self) -> std::result::Result<T, F> {
        pollster::block_on(self)
    }

    /// The outcome, if it is there and was not taken before.
    pub(crate) fn try_take(&mut self) -> Option<std::result::Result<T, F>> {
        if self.reply.is_terminated() {
            return None;
        }
        match self.reply.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(StorageError::Closed.into())),
        }
    }
}

impl<T, F: From<StorageError>> Future for Ticket<T, F> {
    type Output = std::result::Result<T, F>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The outcome was taken already: there is no other.
        if self.reply.is_terminated() {
            return Poll::Ready(Err(StorageError::Closed.into()));
        }
        Pin::new(&mut self.reply)
            .poll(cx)
            .map(|reply| reply.unwrap_or_else(|_| Err(StorageError::Closed.into())))
    }
}

/// What the writer knows of a write.
pub(super) trait Job<E: Engine>: Send {
    fn durability(&self) -> Durability;
    /// What it says of what it will need.
    fn ahead(&mut self) -> &mut Option<E::Ahead>;
    /// Runs the write; false if its rows must be rolled back.
    fn run(&mut self, tx: Tx<'_>, engine: &mut E) -> bool;
    fn reply(self: Box<Self>, commit: Option<&StorageError>);
}

pub(super) struct Task<A, W, T, F> {
    pub(super) durability: Durability,
    pub(super) ahead: Option<A>,
    pub(super) write: Option<W>,
    pub(super) outcome: Option<std::result::Result<T, F>>,
    pub(super) reply: Option<oneshot::Sender<std::result::Result<T, F>>>,
}

impl<E, W, T, F> Job<E> for Task<E::Ahead, W, T, F>
where
    E: Engine,
    W: FnOnce(Tx<'_>, &mut E) -> std::result::Result<T, F> + Send,
    T: Send,
    F: From<StorageError> + Send,
{
    fn durability(&self) -> Durability {
        self.durability
    }

    fn ahead(&mut self) -> &mut Option<E::Ahead> {
        &mut self.ahead
    }

    fn run(&mut self, tx: Tx<'_>, engine: &mut E) -> bool {
        let Some(write) = self.write.take() else { return false };
        let outcome = catch_unwind(AssertUnwindSafe(|| write(tx, engine))).unwrap_or_else(|_| {
            Err(StorageError::Io("the write panicked; nothing of it was kept".into()).into())
        });
        let ok = outcome.is_ok();
        self.outcome = Some(outcome);
        ok
    }

    fn reply(mut self: Box<Self>, commit: Option<&StorageError>) {
        let outcome = match (self.outcome.take(), commit) {
            (Some(Err(error)), _) => Err(error),
            (_, Some(error)) => Err(error.clone().into()),
            (Some(Ok(value)), None) => Ok(value),
            (None, None) => Err(StorageError::Closed.into()),
        };
        if let Some(reply) = self.reply.take() {
            _ = reply.send(outcome);
        }
    }
}
