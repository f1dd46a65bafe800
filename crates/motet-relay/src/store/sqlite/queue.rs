//! What waits to be written: a queue for each account, and turns among them.
//!
//! Nobody waits for more than one step of somebody else: what is large goes in bounded steps, and between two of them everybody who
//! has something small to write has a turn. An account that sends much fills its own queue and is told so; the others notice nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use motet_proto::message::Outcome;
use motet_proto::{Entry, Kind, Position};
use tokio::sync::oneshot;

use crate::limits;
use crate::store::{Appended, LogId, StoreError, may_wait};

/// A push that waits, and how far it is.
pub(super) struct Push {
    pub(super) log: LogId,
    pub(super) entries: VecDeque<Entry>,
    pub(super) bytes: usize,
    pub(super) done: Done,
    pub(super) reply: oneshot::Sender<Result<Appended, StoreError>>,
}

/// What the steps of a push have done so far.
#[derive(Default)]
pub(super) struct Done {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) appended: Option<(u64, Position)>,
    pub(super) fresh: Vec<Entry>,
}

/// Other things to do for the writer.
pub(super) enum Task {
    /// Removes what was superseded before a time.
    Sweep(i64, oneshot::Sender<Result<usize, StoreError>>),
    /// Takes a part out of a log.
    Remove(LogId, oneshot::Sender<Result<bool, StoreError>>),
    /// Shows that the writer is alive and the file can be written to.
    Probe(oneshot::Sender<Result<(), StoreError>>),
    #[cfg(test)]
    Panic,
}

/// What is next.
pub(super) enum Next {
    /// Steps of pushes, for one transaction: each with the entries that it takes in.
    Group(Vec<(Push, Vec<Entry>)>),
    Task(Task),
    /// Nobody waits.
    Nothing,
    Closed,
}

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    accounts: HashMap<String, Waiting>,
    /// The accounts that wait, in the order of their turns.
    turns: VecDeque<String>,
    tasks: VecDeque<Task>,
    /// Bytes of all pushes that wait.
    bytes: usize,
    /// The last group was of small steps although somebody waits with a large one.
    large_is_due: bool,
    /// The last thing that was handed out was a task. The next one goes after whoever waits with a push.
    task_was_last: bool,
    closed: bool,
}

#[derive(Default)]
struct Waiting {
    pushes: VecDeque<Push>,
    bytes: usize,
}

impl Queue {
    /// Queues a push, unless the queue of its account is full.
    pub(super) fn push(&self, push: Push) -> Result<(), StoreError> {
        let mut state = self.lock();
        let State { accounts, turns, bytes, .. } = &mut *state;
        let queued = accounts.get(&push.log.account).map_or(0, |waiting| waiting.bytes);
        if !may_wait(push.bytes, queued, *bytes) {
            return Err(StoreError::Busy);
        }
        *bytes += push.bytes;
        let account = push.log.account.clone();
        let waiting = accounts.entry(account.clone()).or_default();
        waiting.bytes += push.bytes;
        if waiting.pushes.is_empty() {
            turns.push_back(account);
        }
        waiting.pushes.push_back(push);
        self.wake.notify_one();
        Ok(())
    }

    /// Puts a push back whose next step has to wait for its turn.
    pub(super) fn put_back(&self, push: Push) {
        let mut state = self.lock();
        let account = push.log.account.clone();
        let waiting = state.accounts.entry(account.clone()).or_default();
        let was_empty = waiting.pushes.is_empty();
        waiting.bytes += push.bytes;
        let bytes = push.bytes;
        waiting.pushes.push_front(push);
        state.bytes += bytes;
        if was_empty {
            state.turns.push_back(account);
        }
    }

    pub(super) fn task(&self, task: Task) {
        self.lock().tasks.push_back(task);
        self.wake.notify_one();
    }

    /// Pushes that wait, and their bytes.
    pub(super) fn waiting(&self) -> (u64, u64) {
        let state = self.lock();
        let pushes: usize = state.accounts.values().map(|waiting| waiting.pushes.len()).sum();
        (pushes as u64, state.bytes as u64)
    }

    /// No more comes; what waits is still handed out.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    /// What is next. Waits for it so long, or for ever.
    pub(super) fn next(&self, within: Option<Duration>) -> Next {
        let until = within.map(|within| Instant::now() + within);
        let mut state = self.lock();
        loop {
            let is_pushed = !state.turns.is_empty();
            if !(state.task_was_last && is_pushed)
                && let Some(task) = state.tasks.pop_front()
            {
                state.task_was_last = true;
                return Next::Task(task);
            }
            if is_pushed {
                state.task_was_last = false;
                return Next::Group(state.take_group());
            }
            if state.closed {
                return Next::Closed;
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            state = match left {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return Next::Nothing,
                Some(left) => self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Small steps of all who have one, or, every other time, the large one of whose turn it is.
    fn take_group(&mut self) -> Vec<(Push, Vec<Entry>)> {
        let mut group = Vec::new();
        let (mut entries, mut bytes, mut passed) = (0, 0, 0);
        if !std::mem::take(&mut self.large_is_due) {
            while passed < self.turns.len() && group.len() < limits::GROUP_PUSHES {
                let Some(account) = self.turns.pop_front() else { break };
                let front = self.accounts.get(&account).and_then(|waiting| waiting.pushes.front());
                let size = front.filter(|push| push.is_small()).map(|push| (push.entries.len(), push.bytes));
                match size {
                    Some((more, size))
                        if entries + more <= limits::GROUP_ENTRIES && bytes + size <= limits::GROUP_BYTES =>
                    {
                        (entries, bytes, passed) = (entries + more, bytes + size, 0);
                        group.extend(self.take_step(account));
                    }
                    _ => {
                        self.turns.push_back(account);
                        passed += 1;
                    }
                }
            }
            if !group.is_empty() {
                self.large_is_due = self.turns.iter().any(|account| self.is_large(account));
                return group;
            }
        }
        let place = self.turns.iter().position(|account| self.is_large(account)).unwrap_or(0);
        if let Some(account) = self.turns.remove(place) {
            group.extend(self.take_step(account));
        }
        group
    }

    fn is_large(&self, account: &str) -> bool {
        let front = self.accounts.get(account).and_then(|waiting| waiting.pushes.front());
        front.is_some_and(|push| !push.is_small())
    }

    /// The first push of an account, and the entries of its next step. The account goes to the end of the turns.
    fn take_step(&mut self, account: String) -> Option<(Push, Vec<Entry>)> {
        let waiting = self.accounts.get_mut(&account)?;
        let mut push = waiting.pushes.pop_front()?;
        waiting.bytes -= push.bytes;
        self.bytes -= push.bytes;
        if waiting.pushes.is_empty() {
            self.accounts.remove(&account);
        } else {
            self.turns.push_back(account);
        }
        let (mut step, mut bytes, mut named) = (Vec::new(), 0, 0);
        while step.len() < limits::STEP_ENTRIES
            && let Some(entry) = push.entries.pop_front()
        {
            bytes += entry.size();
            named += names(&entry);
            if !step.is_empty() && (bytes > limits::STEP_BYTES || named > limits::STEP_NAMED) {
                push.entries.push_front(entry);
                break;
            }
            step.push(entry);
        }
        push.bytes = push.entries.iter().map(Entry::size).sum();
        Some((push, step))
    }
}

impl Push {
    fn is_small(&self) -> bool {
        self.bytes <= limits::SMALL_BYTES
            && self.entries.len() <= limits::SMALL_ENTRIES
            && self.entries.iter().map(names).sum::<usize>() <= limits::SMALL_ENTRIES
    }
}

/// Entries that an entry names, each of which has to be looked for.
fn names(entry: &Entry) -> usize {
    match &entry.kind {
        Kind::Snapshot { supersedes, .. } => supersedes.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use motet_proto::{DeviceId, DocumentId, SpaceId};

    use super::*;

    /// A sweep asks for its next step as soon as one is done.
    #[test]
    fn a_task_that_follows_another_keeps_no_push_waiting() {
        let queue = Queue::default();
        let task = || {
            let (reply, _answer) = oneshot::channel();
            queue.task(Task::Sweep(0, reply));
        };
        let push = |n: u8| {
            let log = LogId { account: n.to_string(), space: SpaceId::DEFAULT };
            let (document, device) = (DocumentId([n; 16]), DeviceId([n; 16]));
            let entry = Entry::new(log.space, document, device, Kind::Changes, 0, vec![n; 10]);
            let (reply, _answer) = oneshot::channel();
            let bytes = entry.size();
            queue.push(Push { log, entries: [entry].into(), bytes, done: Done::default(), reply }).unwrap();
        };
        task();
        push(1);
        assert!(matches!(queue.next(None), Next::Task(_)));
        task();
        assert!(matches!(queue.next(None), Next::Group(group) if group.len() == 1));
        task();
        push(2);
        assert!(matches!(queue.next(None), Next::Task(_)));
        assert!(matches!(queue.next(None), Next::Group(group) if group.len() == 1));
        assert!(matches!(queue.next(None), Next::Task(_)));
        assert!(matches!(queue.next(Some(Duration::ZERO)), Next::Nothing));
    }
}
