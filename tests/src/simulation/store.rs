//! The store of a relay, each of whose calls waits until the simulation makes it.

use std::collections::VecDeque;
use std::sync::{LazyLock, Mutex};

use futures_util::future::{BoxFuture, FutureExt};
use motet_proto::session::{DocumentPage, ReadOutcome};
use motet_proto::{DocumentId, Entry, Position, RelayId, SpaceId};
use motet_relay::config::Limits;
use motet_relay::store::sqlite::SqliteStore;
use motet_relay::store::{Appended, LogId, LogStore, StoreError};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// The store has threads of its own; each call is waited for, so that there is one order of things.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap());

/// A call that waits.
pub(super) struct Call {
    pub(super) log: LogId,
    what: What,
}

enum What {
    Head(Reply<u64>),
    Append(Vec<Entry>, Reply<Appended>),
    Read(Option<Position>, Reply<ReadOutcome>),
    Document(DocumentId, u64, bool, Reply<DocumentPage>),
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A store on a disk of the simulation.
pub(super) struct WaitingStore {
    store: SqliteStore,
    calls: Mutex<VecDeque<Call>>,
}

impl WaitingStore {
    pub(super) fn new(store: SqliteStore) -> Self {
        Self { store, calls: Mutex::default() }
    }

    /// One of the calls that wait. Appends to one log keep their order.
    pub(super) fn next(&self, choice: u64) -> Option<Call> {
        let mut calls = self.calls.lock().unwrap();
        let at = choice.checked_rem(calls.len() as u64)? as usize;
        let chosen = &calls[at];
        let earlier = |call: &Call| call.log == chosen.log && call.entries().is_some();
        let at = match chosen.entries() {
            Some(_) => calls.iter().position(earlier).unwrap_or(at),
            None => at,
        };
        calls.remove(at)
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.calls.lock().unwrap().is_empty()
    }

    /// Makes a call. Returns what it appended.
    pub(super) fn make(&self, Call { log, what }: Call) -> Option<Appended> {
        match what {
            What::Head(reply) => _ = reply.send(now(self.store.head(&log))),
            What::Read(after, reply) => _ = reply.send(now(self.store.read(&log, after))),
            What::Document(document, after, whole, reply) => {
                _ = reply.send(now(self.store.read_document(&log, document, after, whole)));
            }
            What::Append(entries, reply) => {
                let appended = now(self.store.append(log, entries));
                let copy = appended.as_ref().ok().map(|appended| Appended {
                    outcome: appended.outcome.clone(),
                    fresh: Vec::new(),
                    failed: appended.failed.clone(),
                });
                _ = reply.send(appended);
                return copy;
            }
        }
        None
    }

    /// The whole log, in order.
    pub(super) fn log(&self, log: &LogId) -> Result<Vec<(u64, Entry)>, StoreError> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let ReadOutcome::Page { entries, position, head } = now(self.store.read(log, after))? else {
                return Err(StoreError::Unusable("its own position is refused".into()));
            };
            all.extend(entries);
            if position.seq >= head {
                return Ok(all);
            }
            after = Some(position);
        }
    }

    /// What was superseded until now leaves.
    pub(super) fn sweep_all(&self) -> Result<usize, StoreError> {
        now(self.store.sweep(i64::MAX))
    }

    fn wait<T: Send + 'static>(
        &self,
        log: LogId,
        what: impl FnOnce(Reply<T>) -> What,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let (reply, answer) = oneshot::channel();
        self.calls.lock().unwrap().push_back(Call { log, what: what(reply) });
        answer.map(|answer| answer.unwrap_or(Err(StoreError::Closed))).boxed()
    }
}

impl Call {
    /// What it appends, if it does.
    pub(super) fn entries(&self) -> Option<&[Entry]> {
        match &self.what {
            What::Append(entries, _) => Some(entries),
            _ => None,
        }
    }
}

impl LogStore for WaitingStore {
    fn id(&self) -> RelayId {
        self.store.id()
    }

    fn head<'a>(&'a self, log: &'a LogId) -> BoxFuture<'a, Result<u64, StoreError>> {
        self.wait(log.clone(), What::Head)
    }

    fn append(&self, log: LogId, entries: Vec<Entry>) -> BoxFuture<'static, Result<Appended, StoreError>> {
        self.wait(log, |reply| What::Append(entries, reply))
    }

    fn read<'a>(
        &'a self,
        log: &'a LogId,
        after: Option<Position>,
    ) -> BoxFuture<'a, Result<ReadOutcome, StoreError>> {
        self.wait(log.clone(), |reply| What::Read(after, reply))
    }

    fn read_document<'a>(
        &'a self,
        log: &'a LogId,
        document: DocumentId,
        after: u64,
        whole: bool,
    ) -> BoxFuture<'a, Result<DocumentPage, StoreError>> {
        self.wait(log.clone(), |reply| What::Document(document, after, whole, reply))
    }

    fn sweep(&self, before: i64) -> BoxFuture<'static, Result<usize, StoreError>> {
        self.store.sweep(before)
    }

    fn logs_of<'a>(&'a self, account: &'a str) -> BoxFuture<'a, Result<Vec<SpaceId>, StoreError>> {
        self.store.logs_of(account)
    }

    fn remove(&self, log: LogId) -> BoxFuture<'static, Result<bool, StoreError>> {
        self.store.remove(log)
    }

    fn probe(&self) -> BoxFuture<'static, Result<(), StoreError>> {
        self.store.probe()
    }

    fn set_limits(&self, limits: &Limits) {
        self.store.set_limits(limits);
    }
}

fn now<T>(call: impl Future<Output = T>) -> T {
    RUNTIME.block_on(call)
}
