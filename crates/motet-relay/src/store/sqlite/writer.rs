//! When appends are written: at once if the disk is quick and nobody waits, otherwise grouped, so that whatever waits goes into
//! one transaction and one fsync.

use std::future::ready;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use motet_proto::{Entry, Kind};
use tokio::sync::oneshot;

use super::logs::Logs;
use crate::limits;
use crate::store::{Appended, LogId, StoreError};

/// Handle to the logs and to the writer thread. Dropping it waits for queued pushes.
pub(super) struct Writer {
    shared: Arc<Shared>,
    queue: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    logs: Mutex<(Logs, Pace)>,
    /// Jobs that were handed to the thread and are not done. As long as there are any, nothing is written before them.
    waiting: AtomicUsize,
    /// Bytes of entries in those.
    queued: AtomicUsize,
}

enum Job {
    Push(Push),
    /// Removes what was superseded before a time.
    Sweep(i64, oneshot::Sender<Result<usize, StoreError>>),
}

struct Push {
    bytes: usize,
    log: LogId,
    entries: Vec<Entry>,
    reply: oneshot::Sender<Result<Appended, StoreError>>,
}

/// How long the last transaction took, and when it ended.
struct Pace {
    took: Duration,
    ended: Instant,
}

impl Writer {
    pub(super) fn spawn(logs: Logs) -> Result<Self, StoreError> {
        let (queue, jobs) = channel();
        let shared = Arc::new(Shared {
            logs: Mutex::new((logs, Pace { took: Duration::MAX, ended: Instant::now() })),
            waiting: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
        });
        let served = shared.clone();
        let thread = std::thread::Builder::new()
            .name("relay-writer".into())
            .spawn(move || served.serve(&jobs))
            .map_err(|e| StoreError::Failed(e.to_string()))?;
        Ok(Self { shared, queue: Some(queue), thread: Some(thread) })
    }

    /// Writes a push, or queues it at once, so that the order of calls is the order of appends.
    pub(super) fn append(
        &self,
        log: LogId,
        entries: Vec<Entry>,
    ) -> BoxFuture<'static, Result<Appended, StoreError>> {
        let bytes = entries.iter().map(Entry::size).sum();
        let is_small = bytes <= limits::WRITTEN_AT_ONCE_BYTES
            && entries.iter().all(|entry| matches!(entry.kind, Kind::Changes | Kind::Other(_)));
        if is_small
            && let Some(mut turn) = self.shared.take_turn()
            && turn.0.begin_now()
        {
            return ready(timed(&mut turn, |logs| logs.finish(log, entries))).boxed();
        }
        let (reply, answer) = oneshot::channel();
        if self.shared.queued.fetch_add(bytes, Ordering::Relaxed) > limits::QUEUED_BYTES {
            self.shared.queued.fetch_sub(bytes, Ordering::Relaxed);
            return ready(Err(StoreError::Busy)).boxed();
        }
        self.queue(Job::Push(Push { bytes, log, entries, reply }));
        answer.map(|answer| answer.unwrap_or(Err(StoreError::Closed))).boxed()
    }

    pub(super) fn sweep(&self, before: i64) -> BoxFuture<'static, Result<usize, StoreError>> {
        let (reply, answer) = oneshot::channel();
        self.queue(Job::Sweep(before, reply));
        answer.map(|answer| answer.unwrap_or(Err(StoreError::Closed))).boxed()
    }

    fn queue(&self, job: Job) {
        self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        // If the thread is gone the reply is dropped, and the answer says so.
        _ = self.queue.as_ref().map(|queue| queue.send(job));
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

impl Shared {
    /// The logs, if a small push may be written on the caller's thread, which then waits for the disk: handing it to the writer and back
    /// takes longer than a quick disk does. Not if somebody waits already, and not if pushes come so close together that they had
    /// better share an fsync.
    fn take_turn(&self) -> Option<MutexGuard<'_, (Logs, Pace)>> {
        if self.waiting.load(Ordering::Acquire) > 0 {
            return None;
        }
        let logs = self.logs.try_lock().ok()?;
        let Pace { took, ended } = logs.1;
        (took <= limits::WRITTEN_AT_ONCE && ended.elapsed() >= took).then_some(logs)
    }

    fn serve(&self, jobs: &Receiver<Job>) {
        let mut next = jobs.recv().ok();
        while let Some(job) = next.take() {
            match job {
                Job::Push(push) => next = self.append(push, jobs),
                Job::Sweep(before, reply) => {
                    let swept = self.lock().0.sweep(before);
                    self.waiting.fetch_sub(1, Ordering::AcqRel);
                    _ = reply.send(swept);
                }
            }
            if next.is_none() {
                next = jobs.recv().ok();
            }
        }
    }

    /// Appends a push and those that wait behind it. Returns the job that is next if it is another one.
    fn append(&self, first: Push, jobs: &Receiver<Job>) -> Option<Job> {
        let mut next = None;
        let mut bytes = first.bytes;
        let mut group = vec![first];
        while group.len() < limits::GROUP_PUSHES && bytes < limits::GROUP_BYTES {
            match jobs.try_recv() {
                Ok(Job::Push(push)) => {
                    bytes += push.bytes;
                    group.push(push);
                }
                Ok(job) => {
                    next = Some(job);
                    break;
                }
                Err(_) => break,
            }
        }
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
        let count = group.len();
        let (work, replies): (Vec<_>, Vec<_>) =
            group.into_iter().map(|push| ((push.log, push.entries), push.reply)).unzip();
        let appended = timed(&mut self.lock(), |logs| logs.append(work));
        self.waiting.fetch_sub(count, Ordering::AcqRel);
        match appended {
            Ok(appended) => {
                replies.into_iter().zip(appended).for_each(|(reply, done)| _ = reply.send(Ok(done)));
            }
            Err(error) => replies.into_iter().for_each(|reply| _ = reply.send(Err(error.clone()))),
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, (Logs, Pace)> {
        // A panic in the middle of a transaction leaves one open, which the next one takes back.
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn timed<T>((logs, pace): &mut (Logs, Pace), work: impl FnOnce(&mut Logs) -> T) -> T {
    let begun = Instant::now();
    let done = work(logs);
    let ended = Instant::now();
    *pace = Pace { took: ended - begun, ended };
    done
}
