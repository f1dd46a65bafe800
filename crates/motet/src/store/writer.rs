//! One thread, one connection, one transaction for all that waits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{Result, StorageError, Tx};
use crate::limits;

/// When a write counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// On disk (fsync) before it returns.
    Full,
    /// In the write-ahead log, perhaps not on disk: for what can be received again.
    Normal,
}

/// What the writer thread keeps between transactions. It sees every transaction and every write begin and end, so
/// that memory never holds what disk lacks.
pub(crate) trait Engine: Send + 'static {
    /// A transaction begins; `foreign` if another process has written since the last one.
    fn begin(&mut self, tx: Tx<'_>, foreign: bool) -> Result<()>;
    /// One write of the transaction ended; if not `ok`, its rows are rolled back.
    fn end_write(&mut self, ok: bool);
    /// The transaction ended; if not `committed`, all its rows are rolled back.
    fn end(&mut self, committed: bool);
}

/// Handle to the writer thread. Dropping it waits for queued writes to finish.
pub(crate) struct Writer<E> {
    queue: Option<SyncSender<Box<dyn Job<E>>>>,
    thread: Option<JoinHandle<()>>,
}

/// The outcome of a write that was handed over: wait for it, or await it.
pub(crate) struct Ticket<T, F> {
    reply: oneshot::Receiver<std::result::Result<T, F>>,
}

impl<E: Engine> Writer<E> {
    pub(crate) fn spawn(conn: Connection, engine: E) -> Result<Self> {
        let (queue, jobs) = sync_channel(limits::QUEUED_WRITES);
        let thread = std::thread::Builder::new()
            .name("motet-writer".into())
            .spawn(move || run(conn, engine, jobs))
            .map_err(|e| StorageError::Io(e.to_string()))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Hands a write over. It runs in the next transaction, alone or with others; the ticket resolves when that
    /// transaction is committed. A write that fails or panics takes only its own rows back.
    pub(crate) fn submit<T, F>(
        &self,
        durability: Durability,
        write: impl FnOnce(Tx<'_>, &mut E) -> std::result::Result<T, F> + Send + 'static,
    ) -> Ticket<T, F>
    where
        T: Send + 'static,
        F: From<StorageError> + Send + 'static,
    {
        let (sender, reply) = oneshot::channel();
        let job = Task { durability, write: Some(write), outcome: None, reply: Some(sender) };
        if let Some(queue) = &self.queue {
            // A closed queue drops the job and with it the sender: the ticket then reports `Closed`.
            _ = queue.send(Box::new(job));
        }
        Ticket { reply }
    }
}

impl<E> Drop for Writer<E> {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            _ = thread.join();
        }
    }
}

impl<T, F: From<StorageError>> Ticket<T, F> {
    /// Waits on the calling thread, which may also be inside an async runtime.
    pub(crate) fn wait(self) -> std::result::Result<T, F> {
        pollster::block_on(self)
    }
}

impl<T, F: From<StorageError>> Future for Ticket<T, F> {
    type Output = std::result::Result<T, F>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.reply)
            .poll(cx)
            .map(|reply| reply.unwrap_or_else(|_| Err(StorageError::Closed.into())))
    }
}

trait Job<E>: Send {
    fn durability(&self) -> Durability;
    /// Runs the write; false if its rows must be rolled back.
    fn run(&mut self, tx: Tx<'_>, engine: &mut E) -> bool;
    fn reply(self: Box<Self>, commit: Option<&StorageError>);
}

struct Task<W, T, F> {
    durability: Durability,
    write: Option<W>,
    outcome: Option<std::result::Result<T, F>>,
    reply: Option<oneshot::Sender<std::result::Result<T, F>>>,
}

impl<E, W, T, F> Job<E> for Task<W, T, F>
where
    W: FnOnce(Tx<'_>, &mut E) -> std::result::Result<T, F> + Send,
    T: Send,
    F: From<StorageError> + Send,
{
    fn durability(&self) -> Durability {
        self.durability
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

fn run<E: Engine>(conn: Connection, mut engine: E, jobs: Receiver<Box<dyn Job<E>>>) {
    let mut state = Connected { conn, synchronous: Durability::Full, data_version: None };
    while let Ok(first) = jobs.recv() {
        let mut group = vec![first];
        while group.len() < limits::GROUP_WRITES
            && let Ok(next) = jobs.try_recv()
        {
            group.push(next);
        }
        let outcome = state.transaction(&mut group, &mut engine);
        engine.end(outcome.is_ok());
        let error = outcome.err();
        group.into_iter().for_each(|job| job.reply(error.as_ref()));
    }
}

struct Connected {
    conn: Connection,
    synchronous: Durability,
    data_version: Option<i64>,
}

impl Connected {
    fn transaction<E: Engine>(&mut self, group: &mut [Box<dyn Job<E>>], engine: &mut E) -> Result<()> {
        let full = group.iter().any(|job| job.durability() == Durability::Full);
        self.set_synchronous(if full { Durability::Full } else { Durability::Normal })?;
        self.execute("BEGIN IMMEDIATE")?;
        let outcome = self
            .run_all(group, engine)
            .and_then(|keep| self.execute(if keep { "COMMIT" } else { "ROLLBACK" }));
        if outcome.is_err() && !self.conn.is_autocommit() {
            // The error that led here is what the callers are told.
            _ = self.execute("ROLLBACK");
        }
        outcome
    }

    /// Runs the writes; false if there is nothing to commit.
    fn run_all<E: Engine>(&mut self, group: &mut [Box<dyn Job<E>>], engine: &mut E) -> Result<bool> {
        let version = self.data_version()?;
        let foreign = self.data_version.replace(version).is_some_and(|before| before != version);
        let tx = Tx { conn: &self.conn };
        engine.begin(tx, foreign)?;
        if let [job] = group {
            // Alone, the transaction is its own savepoint.
            let ok = job.run(tx, engine);
            engine.end_write(ok);
            return Ok(ok);
        }
        for job in group {
            self.execute("SAVEPOINT job")?;
            let ok = job.run(tx, engine);
            if !ok {
                self.execute("ROLLBACK TO job")?;
            }
            self.execute("RELEASE job")?;
            engine.end_write(ok);
        }
        Ok(true)
    }

    /// Changes when another connection has written; read inside the transaction, so that nothing slips in between.
    fn data_version(&self) -> Result<i64> {
        Ok(self.conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
    }

    fn set_synchronous(&mut self, wanted: Durability) -> Result<()> {
        if self.synchronous != wanted {
            let value = if wanted == Durability::Full { "FULL" } else { "NORMAL" };
            self.conn.pragma_update(None, "synchronous", value)?;
            self.synchronous = wanted;
        }
        Ok(())
    }

    fn execute(&self, sql: &str) -> Result<()> {
        self.conn.prepare_cached(sql)?.execute([])?;
        Ok(())
    }
}
