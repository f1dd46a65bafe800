//! When appends are written: at once if the disk is quick and nobody waits, otherwise grouped, so that whatever waits goes into
//! one transaction and one fsync.

use std::collections::VecDeque;
use std::future::ready;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use motet_proto::session::AppendOutcome;
use motet_proto::{Entry, Kind};
use tokio::sync::oneshot;

use super::logs::Logs;
use super::queue::{Done, Next, Push, Queue, Task};
use crate::config::Limits;
use crate::limits;
use crate::store::{Appended, LogId, StoreError};

/// Handle to the logs and to the writer thread. Dropping it waits for queued pushes.
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    logs: Mutex<(Logs, Pace)>,
    queue: Queue,
    /// Pushes and tasks that were handed to the thread and are not done. As long as there are any, nothing is written before them.
    waiting: AtomicUsize,
    closed: AtomicBool,
}

/// How long the last transaction took, and when it ended.
struct Pace {
    took: Duration,
    ended: Instant,
}

/// Something that the thread has in hand. However it is put down, also by a panic, it is not waited for any more.
struct InHand<'s>(&'s Shared);

impl Writer {
    pub(super) fn spawn(logs: Logs) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared {
            logs: Mutex::new((logs, Pace { took: Duration::MAX, ended: Instant::now() })),
            queue: Queue::default(),
            waiting: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        });
        let served = shared.clone();
        let thread = std::thread::Builder::new()
            .name("relay-writer".into())
            .spawn(move || served.serve())
            .map_err(|e| StoreError::Failed(e.to_string()))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Writes a push, or queues it at once, so that the order of calls is the order of appends.
    pub(super) fn append(
        &self,
        log: LogId,
        entries: Vec<Entry>,
    ) -> BoxFuture<'static, Result<Appended, StoreError>> {
        let bytes = entries.iter().map(Entry::size).sum();
        let is_small = bytes <= limits::WRITTEN_AT_ONCE_BYTES
            && entries.len() <= limits::SMALL_ENTRIES
            && entries.iter().all(|entry| matches!(entry.kind, Kind::Changes | Kind::Other(_)));
        if is_small
            && let Some(mut turn) = self.shared.take_turn()
            && turn.0.try_begin()
        {
            return ready(timed(&mut turn, |logs| logs.finish(log, entries))).boxed();
        }
        let (reply, answer) = oneshot::channel();
        self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        let push = Push { log, entries: VecDeque::from(entries), bytes, done: Done::default(), reply };
        if let Err(error) = self.shared.queue.push(push) {
            self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
            return ready(Err(error)).boxed();
        }
        self.answer(answer)
    }

    pub(super) fn sweep(&self, before: i64) -> BoxFuture<'static, Result<usize, StoreError>> {
        let (reply, answer) = oneshot::channel();
        self.task(Task::Sweep(before, reply));
        self.answer(answer)
    }

    pub(super) fn remove(&self, log: LogId) -> BoxFuture<'static, Result<bool, StoreError>> {
        let (reply, answer) = oneshot::channel();
        self.task(Task::Remove(log, reply));
        self.answer(answer)
    }

    /// Resolves when the writer has come to it and could have written.
    pub(super) fn probe(&self) -> BoxFuture<'static, Result<(), StoreError>> {
        let (reply, answer) = oneshot::channel();
        self.task(Task::Probe(reply));
        self.answer(answer)
    }

    pub(super) fn set_limits(&self, limits: &Limits) {
        self.shared.lock().0.limits = limits.clone();
    }

    /// Pushes that wait, and their bytes.
    pub(super) fn queued(&self) -> (u64, u64) {
        self.shared.queue.waiting()
    }

    fn task(&self, task: Task) {
        self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        self.shared.queue.task(task);
    }

    /// A reply that was dropped means that the thread gave up what it had in hand.
    fn answer<T: Send + 'static>(
        &self,
        answer: oneshot::Receiver<Result<T, StoreError>>,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let shared = self.shared.clone();
        let given_up = move |_| match shared.closed.load(Ordering::Acquire) {
            true => StoreError::Closed,
            false => StoreError::Failed("the writer was interrupted".into()),
        };
        answer.map(move |answer| answer.unwrap_or_else(|e| Err(given_up(e)))).boxed()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.queue.close();
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

    /// Serves until the queue is closed and empty. A panic costs what was in hand, whose senders are told, and nothing else.
    fn serve(&self) {
        while catch_unwind(AssertUnwindSafe(|| self.serve_queue())).is_err() {
            tracing::error!("the writer panicked and goes on; what it had in hand was not written");
            std::thread::sleep(limits::WRITER_REVIVED_AFTER);
        }
    }

    fn serve_queue(&self) {
        // What is left of work that is larger than a step is done when nobody waits, and one step of it after each group.
        let mut patience = Some(Duration::ZERO);
        loop {
            let next = self.queue.next(patience);
            let is_idle = matches!(next, Next::Nothing);
            match next {
                Next::Group(group) => self.append(group),
                Next::Task(task) => self.carry_out(task),
                Next::Nothing => {}
                Next::Closed => return,
            }
            // If it fails, that is logged, and it is tried again with the next push.
            let is_work_left = timed(&mut self.lock(), Logs::work_off).unwrap_or(false);
            if is_work_left {
                patience = Some(Duration::ZERO);
                continue;
            }
            let logs = &mut self.lock().0;
            patience = if is_idle { logs.shrink() } else { logs.shrinks_in() };
            logs.empty_log();
        }
    }

    fn carry_out(&self, task: Task) {
        let _in_hand = InHand(self);
        match task {
            Task::Sweep(before, reply) => _ = reply.send(self.lock().0.sweep(before)),
            Task::Remove(log, reply) => _ = reply.send(self.lock().0.remove(&log)),
            Task::Probe(reply) => _ = reply.send(self.lock().0.probe()),
            #[cfg(test)]
            Task::Panic => panic!("planted"),
        }
    }

    /// Appends the steps of a group in one transaction.
    fn append(&self, group: Vec<(Push, Vec<Entry>)>) {
        let _in_hand: Vec<_> = group.iter().map(|_| InHand(self)).collect();
        let (pushes, work): (Vec<_>, Vec<_>) = group
            .into_iter()
            .map(|(push, step)| {
                let log = push.log.clone();
                (push, (log, step))
            })
            .unzip();
        match timed(&mut self.lock(), |logs| logs.append(work)) {
            Ok(appended) => {
                pushes.into_iter().zip(appended).for_each(|(push, step)| self.take_step(push, step));
            }
            Err(error) => {
                for Push { done, reply, .. } in pushes {
                    // What earlier steps have stored is there to stay: the others hear of it.
                    _ = reply.send(match done.appended {
                        Some(_) => Ok(done.into_appended(Some(error.clone()))),
                        None => Err(error.clone()),
                    });
                }
            }
        }
    }

    /// A step of a push is durable: it is answered if it was the last one, and waits for its next turn otherwise.
    fn take_step(&self, mut push: Push, step: Appended) {
        let failed = step.failed;
        let Done { outcomes, appended, fresh } = &mut push.done;
        outcomes.extend(step.outcome.outcomes);
        fresh.extend(step.fresh);
        if let Some((first, last)) = step.outcome.appended {
            *appended = Some((appended.map_or(first, |(first, _)| first), last));
        }
        if push.entries.is_empty() || failed.is_some() {
            _ = push.reply.send(Ok(push.done.into_appended(failed)));
        } else {
            self.waiting.fetch_add(1, Ordering::AcqRel);
            self.queue.put_back(push);
        }
    }

    fn lock(&self) -> MutexGuard<'_, (Logs, Pace)> {
        // A panic in the middle of a transaction leaves one open, which the next one takes back.
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Done {
    fn into_appended(self, failed: Option<StoreError>) -> Appended {
        let outcome = AppendOutcome { outcomes: self.outcomes, appended: self.appended };
        Appended { outcome, fresh: self.fresh, failed }
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

fn timed<T>((logs, pace): &mut (Logs, Pace), work: impl FnOnce(&mut Logs) -> T) -> T {
    let begun = Instant::now();
    let done = work(logs);
    let ended = Instant::now();
    *pace = Pace { took: ended - begun, ended };
    done
}

#[cfg(test)]
mod tests {
    use motet_proto::{DeviceId, DocumentId, SpaceId};
    use rusqlite::Connection;

    use super::*;
    use crate::store::sqlite;

    #[test]
    fn a_panic_costs_what_was_in_hand_and_nothing_else() {
        let mut conn = Connection::open_in_memory().unwrap();
        sqlite::migrate(&mut conn, None).unwrap();
        let writer = Writer::spawn(Logs::new(conn, Arc::default(), Arc::default()).unwrap()).unwrap();
        let push = |n: u8| {
            let log = LogId { account: "a".into(), space: SpaceId::DEFAULT };
            let (document, device) = (DocumentId([n; 16]), DeviceId([1; 16]));
            let entry = Entry::new(log.space, document, device, Kind::Changes, 0, vec![n; 100_000]);
            writer.append(log, vec![entry])
        };
        // It may be written already, or be what the panic finds in hand.
        let appended = push(1);
        writer.task(Task::Panic);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            _ = appended.await;
            assert_eq!(push(2).await.unwrap().outcome.outcomes.len(), 1);
            writer.probe().await.unwrap();
        });
        // An answer is there a moment before its work is let go of.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while writer.shared.waiting.load(Ordering::Acquire) > 0 {
            assert!(std::time::Instant::now() < end);
            std::thread::yield_now();
        }
    }
}
