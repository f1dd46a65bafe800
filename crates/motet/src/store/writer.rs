//! One connection, one transaction for all that waits.
//!
//! Writes stand in a queue. Whoever holds the connection takes all that waits into one transaction and one fsync:
//! a caller that blocks anyway and finds the connection free, or the writer thread. Without a caller's own turn each
//! small write would pay for waking two threads, which costs more than the write.

mod job;
mod worker;

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use motet_proto::SpaceId;
use rusqlite::Connection;
use tokio::sync::oneshot;

pub(crate) use job::Ticket;
use job::{Job, Task, catching_up};
use worker::Worker;

use super::busy::Turn;
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

/// What is kept beside the connection between transactions. It sees every transaction and every write begin and end, so
/// that memory never holds what disk lacks.
pub(crate) trait Engine: Send + 'static {
    /// What a write says beforehand of what it will need.
    type Ahead: Send + 'static;
    /// Whether that takes long: it is [prepared](Self::prepare) then, and the write has a transaction of its own. `tx` is no transaction
    /// yet: each of its reads sees the file as it is at that time.
    fn is_long(&mut self, tx: Tx<'_>, ahead: &Self::Ahead, foreign: bool) -> bool;
    /// Does, before the transaction, what can be done there, so that other processes write meanwhile. They may make it void.
    fn prepare(&mut self, tx: Tx<'_>, ahead: Self::Ahead, foreign: bool);
    /// A transaction begins; `foreign` if another process has written since the last one.
    fn begin(&mut self, tx: Tx<'_>, foreign: bool) -> Result<()>;
    /// All writes have run; the transaction is about to be committed.
    fn before_commit(&mut self, tx: Tx<'_>) -> Result<()>;
    /// One write of the transaction ended; if not `ok`, its rows are rolled back.
    fn end_write(&mut self, ok: bool);
    /// The transaction ended; if not `committed`, all its rows are rolled back.
    fn end(&mut self, committed: bool);
    /// How long work may wait that no caller waits for, if there is any.
    fn lag(&self) -> Option<Duration>;
    /// What that work needs beforehand.
    fn stale_ahead() -> Self::Ahead;
    /// Does that work.
    fn catch_up(&mut self, tx: Tx<'_>) -> Result<()>;
}

/// The way to the connection that writes. Dropping it waits for queued writes to finish.
pub(crate) struct Writer<E: Engine> {
    shared: Arc<Shared<E>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared<E> {
    queue: Mutex<Queue<E>>,
    /// Rung when the writer thread has something to do.
    work: Condvar,
    /// Rung when the queue has room again.
    room: Condvar,
    worker: Mutex<Worker<E>>,
    /// When the writer thread does the work that no caller waits for, if there is any.
    due: Mutex<Option<Instant>>,
    /// When a transaction ended last, of any process as far as is known, or somebody began to listen.
    written_at: Mutex<Instant>,
    /// Somebody wants to hear of commits, also of those of other processes.
    is_heard: Box<dyn Fn() -> bool + Send + Sync>,
}

struct Queue<E> {
    jobs: VecDeque<Box<dyn Job<E>>>,
    /// Callers that wait for room.
    waiting: usize,
    closed: bool,
}

thread_local! {
    /// This thread is running a transaction: a write of its own would wait for itself.
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// This thread is running a transaction until it is dropped, also by a panic.
struct Running;

impl Running {
    fn mark() -> Self {
        RUNNING.set(true);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(false);
    }
}

impl<E: Engine> Writer<E> {
    /// `is_heard` tells whether somebody listens for commits: only then the file is watched for those of other processes.
    pub(crate) fn spawn(
        (conn, space): (Connection, SpaceId),
        engine: E,
        is_heard: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::new((conn, space), engine, is_heard));
        let served = shared.clone();
        let thread = std::thread::Builder::new()
            .name("motet-writer".into())
            .spawn(move || served.serve())
            .map_err(|e| StorageError::Io(e.to_string()))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// A writer without a thread: each write runs where it is handed over, unless a simulation polls its sync task; then it waits for
    /// [`run_waiting`](Self::run_waiting), or for a write of the app. What nobody waits for is done by [`catch_up`](Self::catch_up).
    pub(crate) fn unattended(conn: (Connection, SpaceId), engine: E) -> Self {
        Self { shared: Arc::new(Shared::new(conn, engine, || false)), thread: None }
    }

    /// Does what no caller waits for.
    #[cfg(feature = "simulation")]
    pub(crate) fn catch_up(&self) -> Result<()> {
        self.run(Durability::Normal, |tx, engine| engine.catch_up(tx))
    }

    /// One transaction for what waits.
    #[cfg(feature = "simulation")]
    pub(crate) fn run_waiting(&self) {
        let mut worker = self.shared.worker.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.run_group(&mut worker);
    }

    /// Whether writes wait.
    #[cfg(feature = "simulation")]
    pub(crate) fn has_waiting(&self) -> bool {
        !self.shared.lock_queue().jobs.is_empty()
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
        self.submit_prepared(durability, None, write)
    }

    /// [`submit`](Self::submit), of a write that says what it will need.
    pub(crate) fn submit_prepared<T, F>(
        &self,
        durability: Durability,
        ahead: Option<E::Ahead>,
        write: impl FnOnce(Tx<'_>, &mut E) -> std::result::Result<T, F> + Send + 'static,
    ) -> Ticket<T, F>
    where
        T: Send + 'static,
        F: From<StorageError> + Send + 'static,
    {
        let ticket = self.enqueue(durability, ahead, write, false);
        self.signal();
        ticket
    }

    /// [`submit`](Self::submit), but before all that waits.
    pub(crate) fn submit_first<T, F>(
        &self,
        durability: Durability,
        write: impl FnOnce(Tx<'_>, &mut E) -> std::result::Result<T, F> + Send + 'static,
    ) -> Ticket<T, F>
    where
        T: Send + 'static,
        F: From<StorageError> + Send + 'static,
    {
        let ticket = self.enqueue(durability, None, write, true);
        self.signal();
        ticket
    }

    /// Nobody writes and nothing waits: a write that is [run](Self::run) now waits for nobody.
    pub(crate) fn is_free(&self) -> bool {
        self.shared.lock_queue().jobs.is_empty()
            && !matches!(self.shared.worker.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Runs a write and returns when its transaction is committed; on this thread if the connection is free.
    pub(crate) fn run<T, F>(
        &self,
        durability: Durability,
        write: impl FnOnce(Tx<'_>, &mut E) -> std::result::Result<T, F> + Send + 'static,
    ) -> std::result::Result<T, F>
    where
        T: Send + 'static,
        F: From<StorageError> + Send + 'static,
    {
        self.run_prepared(durability, None, write)
    }

    /// [`run`](Self::run), of a write that says what it will need.
    pub(crate) fn run_prepared<T, F>(
        &self,
        durability: Durability,
        ahead: Option<E::Ahead>,
        write: impl FnOnce(Tx<'_>, &mut E) -> std::result::Result<T, F> + Send + 'static,
    ) -> std::result::Result<T, F>
    where
        T: Send + 'static,
        F: From<StorageError> + Send + 'static,
    {
        let ticket = self.enqueue(durability, ahead, write, false);
        let free = match self.shared.worker.try_lock() {
            Ok(mut worker) => {
                self.shared.run_group(&mut worker);
                true
            }
            Err(TryLockError::Poisoned(worker)) => {
                self.shared.run_group(&mut worker.into_inner());
                true
            }
            Err(TryLockError::WouldBlock) => false,
        };
        // Whoever held the connection may have looked into the queue before this write was in it; and the group may
        // have been full before this write, or others have queued meanwhile.
        if !free || !self.shared.lock_queue().jobs.is_empty() {
            self.do_rest();
        }
        ticket.wait()
    }

    /// Runs a write on this thread, after all that was handed over before it, and returns when its transaction is committed. The write may
    /// borrow from the caller.
    pub(crate) fn run_here<T, F>(
        &self,
        durability: Durability,
        write: impl FnOnce(Tx<'_>, &mut E) -> std::result::Result<T, F> + Send,
    ) -> std::result::Result<T, F>
    where
        T: Send,
        F: From<StorageError> + Send,
    {
        if RUNNING.get() {
            return Err(nested().into());
        }
        let (sender, reply) = oneshot::channel();
        let job = Task { durability, ahead: None, write: Some(write), outcome: None, reply: Some(sender) };
        let mut worker = self.shared.worker.lock().unwrap_or_else(PoisonError::into_inner);
        let mut earlier = self.shared.lock_queue().jobs.len();
        while earlier > 0 {
            earlier = earlier.saturating_sub(self.shared.run_group(&mut worker).max(1));
        }
        self.shared.commit(&mut worker, vec![Box::new(job)]);
        drop(worker);
        if !self.shared.lock_queue().jobs.is_empty() {
            self.do_rest();
        }
        Ticket { reply }.wait()
    }

    /// Reads what the file would be after `write`, on this thread; nothing of that is kept. For a disk that takes no more.
    pub(crate) fn peek<T>(
        &self,
        write: impl FnOnce(Tx<'_>, &mut E) -> Result<()>,
        read: impl FnOnce(Tx<'_>) -> Result<T>,
    ) -> Result<T> {
        if RUNNING.get() {
            return Err(nested());
        }
        let mut worker = self.shared.worker.lock().unwrap_or_else(PoisonError::into_inner);
        let running = Running::mark();
        let outcome = worker.peek(write, read);
        worker.engine.end(false);
        drop(running);
        outcome
    }

    /// Somebody listens for commits from now on.
    pub(crate) fn watch_file(&self) {
        self.shared.note_written();
        self.shared.work.notify_one();
    }

    /// Something waits: the thread does it, or, where there is none, this one.
    fn signal(&self) {
        match &self.thread {
            Some(_) => self.shared.work.notify_one(),
            #[cfg(feature = "simulation")]
            None if crate::platform::simulated::is_deferring() => {}
            None => self.do_rest(),
        }
    }

    /// Something waits that this thread has not done: the writer thread does it, or, where there is none, this one.
    fn do_rest(&self) {
        if self.thread.is_some() {
            return self.shared.work.notify_one();
        }
        let mut worker = self.shared.worker.lock().unwrap_or_else(PoisonError::into_inner);
        while self.shared.run_group(&mut worker) > 0 {}
    }

    fn enqueue<T, F>(
        &self,
        durability: Durability,
        ahead: Option<E::Ahead>,
        write: impl FnOnce(Tx<'_>, &mut E) -> std::result::Result<T, F> + Send + 'static,
        first: bool,
    ) -> Ticket<T, F>
    where
        T: Send + 'static,
        F: From<StorageError> + Send + 'static,
    {
        let (sender, reply) = oneshot::channel();
        if RUNNING.get() {
            _ = sender.send(Err(nested().into()));
            return Ticket { reply };
        }
        let job = Task { durability, ahead, write: Some(write), outcome: None, reply: Some(sender) };
        let mut queue = self.shared.lock_queue();
        while queue.jobs.len() >= limits::QUEUED_WRITES {
            self.shared.work.notify_one();
            queue.waiting += 1;
            queue = self.shared.room.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.waiting -= 1;
        }
        match first {
            true => queue.jobs.push_front(Box::new(job)),
            false => queue.jobs.push_back(Box::new(job)),
        }
        Ticket { reply }
    }
}

/// What a write is told that is made inside of another.
fn nested() -> StorageError {
    StorageError::Io("a transaction must not call the replica that it belongs to".into())
}

impl<E: Engine> Drop for Writer<E> {
    fn drop(&mut self) {
        self.shared.lock_queue().closed = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            _ = thread.join();
        }
    }
}

impl<E: Engine> Shared<E> {
    fn new(
        (conn, space): (Connection, SpaceId),
        engine: E,
        is_heard: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        let due = Mutex::new(engine.lag().map(|lag| Instant::now() + lag));
        let worker = Worker {
            conn,
            space,
            engine,
            synchronous: Durability::Full,
            data_version: None,
            turn: Turn::default(),
        };
        Self {
            queue: Mutex::new(Queue { jobs: VecDeque::new(), waiting: 0, closed: false }),
            work: Condvar::new(),
            room: Condvar::new(),
            worker: Mutex::new(worker),
            due,
            written_at: Mutex::new(Instant::now()),
            is_heard: Box::new(is_heard),
        }
    }

    /// The writer thread: runs what waits until the writer is dropped and nothing waits any more.
    fn serve(&self) {
        loop {
            let mut queue = self.lock_queue();
            while queue.jobs.is_empty() && !queue.closed {
                let due = *self.lock_due();
                let poll = if (self.is_heard)() { self.file_poll() } else { Duration::MAX };
                let until_due =
                    due.map_or(Duration::MAX, |due| due.saturating_duration_since(Instant::now()));
                let (woken, wait) = self
                    .work
                    .wait_timeout(queue, until_due.min(poll))
                    .unwrap_or_else(PoisonError::into_inner);
                queue = woken;
                let is_due = || self.lock_due().is_some_and(|due| due <= Instant::now());
                if wait.timed_out() && queue.jobs.is_empty() && (is_due() || self.is_foreign()) {
                    *self.lock_due() = None;
                    queue.jobs.push_back(catching_up());
                }
            }
            let last = queue.jobs.is_empty();
            if last && self.lock_due().is_some() {
                queue.jobs.push_back(catching_up());
            }
            drop(queue);
            let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
            // Its writes were rolled back, and whoever waits for them is told that they have not happened; the next ones are written.
            if catch_unwind(AssertUnwindSafe(|| self.run_group(&mut worker))).is_err() {
                tracing::error!("a transaction panicked");
            }
            drop(worker);
            if last {
                return;
            }
        }
    }

    /// One transaction for what waits. Jobs leave the queue only under the worker's lock, so their order is kept. Returns how many left it.
    fn run_group(&self, worker: &mut Worker<E>) -> usize {
        let mut group: Vec<_> = {
            let mut queue = self.lock_queue();
            let count = queue.jobs.len().min(limits::GROUP_WRITES);
            if queue.waiting > 0 {
                self.room.notify_all();
            }
            queue.jobs.drain(..count).collect()
        };
        if group.is_empty() {
            return 0;
        }
        let running = Running::mark();
        let rest = worker.prepare(&mut group);
        drop(running);
        if !rest.is_empty() {
            let mut queue = self.lock_queue();
            rest.into_iter().rev().for_each(|job| queue.jobs.push_front(job));
            self.work.notify_one();
        }
        let count = group.len();
        self.commit(worker, group);
        count
    }

    /// One transaction for these writes.
    fn commit(&self, worker: &mut Worker<E>, mut group: Vec<Box<dyn Job<E> + '_>>) {
        let running = Running::mark();
        let outcome = worker.transaction(&mut group);
        worker.engine.end(outcome.is_ok());
        drop(running);
        self.note_written();
        self.set_due(worker.engine.lag());
        let error = outcome.err();
        group.into_iter().for_each(|job| job.reply(error.as_ref()));
    }

    fn note_written(&self) {
        *self.written_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long until it is looked again whether another process has written.
    fn file_poll(&self) -> Duration {
        let written_at = *self.written_at.lock().unwrap_or_else(PoisonError::into_inner);
        match written_at.elapsed() < limits::FOREIGN_WRITE_RECENT {
            true => limits::FOREIGN_WRITE_POLL,
            false => limits::FOREIGN_WRITE_POLL_AT_REST,
        }
    }

    /// Another process has written since the last transaction. Not known while one is running: it will see for itself.
    fn is_foreign(&self) -> bool {
        let Ok(worker) = self.worker.try_lock() else { return false };
        worker.data_version().is_ok_and(|version| worker.data_version != Some(version))
    }

    /// Work that nobody waits for may wait for `lag`, and for no longer than it may already.
    fn set_due(&self, lag: Option<Duration>) {
        let mut due = self.lock_due();
        let wanted = lag.map(|lag| Instant::now() + lag);
        let is_sooner = wanted.is_some_and(|wanted| due.is_none_or(|due| wanted < due));
        if wanted.is_none() || is_sooner {
            *due = wanted;
        }
        if is_sooner {
            // The thread sleeps for longer until it is told.
            self.work.notify_one();
        }
    }

    fn lock_due(&self) -> MutexGuard<'_, Option<Instant>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_queue(&self) -> MutexGuard<'_, Queue<E>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
