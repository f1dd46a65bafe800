//! Calls that wait, for async code.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;

use tokio::sync::oneshot;

use super::replica::Replica;

/// A call on a thread of its own ([`Replica::spawn_blocking`]). Await it, or look now and then whether it has returned; dropping it does not end it.
#[must_use = "without looking, nobody learns what the call returned"]
pub struct PendingCall<R>(oneshot::Receiver<thread::Result<R>>);

impl Replica {
    /// Runs a call that waits for the disk or the network on a thread of its own: the async form of whatever has none by its name, such as
    /// a backup, a search, an undo, an import, `verify`, or several calls in a row. The call begins at once. A loop without an executor looks with
    /// [`try_take`](PendingCall::try_take). If no thread can be started, the call runs on this one.
    ///
    /// ```
    /// # async fn example(replica: motet::Replica) -> Result<(), Box<dyn std::error::Error>> {
    /// replica.spawn_blocking(|replica| replica.backup("backup.db")).await?;
    /// let songs = replica.spawn_blocking(|replica| replica.documents("songs").list()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// Whoever awaits or takes the outcome panics if the call does.
    pub fn spawn_blocking<R: Send + 'static, F: FnOnce(&Replica) -> R + Send + 'static>(
        &self,
        call: F,
    ) -> PendingCall<R> {
        let replica = self.clone();
        let (reply, outcome) = oneshot::channel();
        let run = move || {
            // Before the reply: who has waited for it may drop the last replica, and expects the file to be let go.
            let outcome = catch_unwind(AssertUnwindSafe(|| call(&replica)));
            drop(replica);
            _ = reply.send(outcome);
        };
        // The thread takes the call out, unless there is none.
        let run = std::sync::Arc::new(std::sync::Mutex::new(Some(run)));
        let theirs = run.clone();
        let take = |run: &std::sync::Mutex<Option<_>>| run.lock().unwrap_or_else(|e| e.into_inner()).take();
        let started = thread::Builder::new().name("motet-call".into()).spawn(move || {
            if let Some(run) = take(&theirs) {
                run();
            }
        });
        if started.is_err()
            && let Some(run) = take(&run)
        {
            run();
        }
        PendingCall(outcome)
    }
}

impl<R> PendingCall<R> {
    /// The outcome, without waiting: `None` until the call has returned, and once it was taken. For a loop that must not wait.
    ///
    /// ```
    /// # fn example(replica: motet::Replica) {
    /// let mut found = replica.spawn_blocking(|replica| replica.documents("songs").search("aloha", 20));
    /// // In a later turn of the loop:
    /// if let Some(found) = found.try_take() {
    ///     println!("{found:?}");
    /// }
    /// # }
    /// ```
    ///
    /// # Panics
    /// If the call did.
    pub fn try_take(&mut self) -> Option<R> {
        self.0.try_recv().ok().map(returned)
    }
}

impl<R> Future for PendingCall<R> {
    type Output = R;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<R> {
        // Whoever has taken the outcome waits for nothing.
        if self.0.is_terminated() {
            return Poll::Pending;
        }
        match Pin::new(&mut self.0).poll(cx) {
            Poll::Ready(Ok(outcome)) => Poll::Ready(returned(outcome)),
            // The thread replies in any case, unless the process ends.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl<R> fmt::Debug for PendingCall<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingCall").finish_non_exhaustive()
    }
}

fn returned<R>(outcome: thread::Result<R>) -> R {
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}
