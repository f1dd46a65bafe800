//! Calls that wait, for async code.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

use tokio::sync::oneshot;

use super::replica::Replica;

impl Replica {
    /// Runs a call that waits for the disk or the network on a thread of its own: the async form of whatever has none by its name, such as
    /// a backup, an import, `verify`, or several calls in a row. The call begins at once. Dropping the future does not end it. If no
    /// thread can be started, the call runs on this one.
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
    /// The future panics if the call does.
    pub fn spawn_blocking<R: Send + 'static, F: FnOnce(&Replica) -> R + Send + 'static>(
        &self,
        call: F,
    ) -> impl Future<Output = R> + Send + use<R, F> {
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
        async move {
            match outcome.await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(panic)) => resume_unwind(panic),
                // The thread replies in any case, unless the process ends.
                Err(_) => std::future::pending().await,
            }
        }
    }
}
