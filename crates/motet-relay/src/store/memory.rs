//! Logs in memory: for tests of apps, and the second store by which the first is compared. Nothing is kept when it is dropped.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::{BoxFuture, FutureExt, ready};
use motet_proto::message::{Listed, Outcome, Rejection};
use motet_proto::planted::batch;
use motet_proto::session::{AppendOutcome, DocumentPage, ReadOutcome};
use motet_proto::{DocumentId, Entry, EntryId, Kind, Position, RelayId, SpaceId, limits as proto};

use super::{Appended, Counts, LogId, LogStore, StoreError, rejected};
use crate::config::Limits;
use crate::limits;

/// A store whose logs are gone when it is dropped. Shared, several relays can serve it.
pub struct MemoryStore {
    id: RelayId,
    data: Mutex<Data>,
}

#[derive(Default)]
struct Data {
    limits: Limits,
    logs: HashMap<LogId, Log>,
    /// What accounts have. Documents are counted when they first come, and do not count down.
    accounts: HashMap<String, Counts>,
}

struct Log {
    start: Position,
    /// Of each sequence number, from 1 on, also where the entry has left.
    positions: Vec<Position>,
    entries: BTreeMap<u64, Stored>,
    /// Sequence numbers of the entries of each document.
    documents: HashMap<DocumentId, BTreeSet<u64>>,
}

struct Stored {
    entry: Entry,
    received_at: i64,
    superseded_at: Option<i64>,
}

impl MemoryStore {
    /// A store without logs, and with an identity of its own.
    pub fn new() -> Self {
        // Keys that are random in each process, and different each time.
        let random = |n: u64| RandomState::new().hash_one(n).to_be_bytes();
        let id = RelayId(std::array::from_fn(|i| random(i as u64)[i % 8]));
        Self { id, data: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Data> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").field("logs", &self.lock().logs.len()).finish_non_exhaustive()
    }
}

impl LogStore for MemoryStore {
    fn id(&self) -> RelayId {
        self.id
    }

    fn head<'a>(&'a self, log: &'a LogId) -> BoxFuture<'a, Result<u64, StoreError>> {
        let head = self.lock().logs.get(log).map_or(0, |log| log.head().seq);
        ready(Ok(head)).boxed()
    }

    fn append(&self, log: LogId, entries: Vec<Entry>) -> BoxFuture<'static, Result<Appended, StoreError>> {
        ready(Ok(self.lock().append(log, entries))).boxed()
    }

    fn read<'a>(
        &'a self,
        log: &'a LogId,
        after: Option<Position>,
    ) -> BoxFuture<'a, Result<ReadOutcome, StoreError>> {
        let start = Position::start(log.space);
        let after = after.unwrap_or(start);
        let outcome = match self.lock().logs.get(log) {
            Some(log) => log.read(after),
            None if after == start => ReadOutcome::Page { entries: Vec::new(), position: start, head: 0 },
            None => ReadOutcome::Refused,
        };
        ready(Ok(outcome)).boxed()
    }

    fn read_document<'a>(
        &'a self,
        log: &'a LogId,
        document: DocumentId,
        after: u64,
        whole: bool,
    ) -> BoxFuture<'a, Result<DocumentPage, StoreError>> {
        let nothing = DocumentPage { last: after, ..DocumentPage::default() };
        let page = self.lock().logs.get(log).map_or(nothing, |log| log.read_document(document, after, whole));
        ready(Ok(page)).boxed()
    }

    fn sweep(&self, before: i64) -> BoxFuture<'static, Result<usize, StoreError>> {
        ready(Ok(self.lock().sweep(before))).boxed()
    }

    fn logs_of<'a>(&'a self, account: &'a str) -> BoxFuture<'a, Result<Vec<SpaceId>, StoreError>> {
        let data = self.lock();
        let own = data.logs.keys().filter(|log| log.account == account).map(|log| log.space);
        ready(Ok(own.collect())).boxed()
    }

    fn remove(&self, log: LogId) -> BoxFuture<'static, Result<bool, StoreError>> {
        self.lock().remove(&log);
        ready(Ok(false)).boxed()
    }

    fn probe(&self) -> BoxFuture<'static, Result<(), StoreError>> {
        ready(Ok(())).boxed()
    }

    fn set_limits(&self, limits: &Limits) {
        self.lock().limits = limits.clone();
    }
}

impl Data {
    fn append(&mut self, id: LogId, entries: Vec<Entry>) -> Appended {
        if let Err(limit) = self.create(&id) {
            return Appended::refused(limit);
        }
        let Self { limits, logs, accounts } = self;
        let log = logs.entry(id.clone()).or_insert_with(|| Log::new(Position::start(id.space)));
        let usage = accounts.entry(id.account.clone()).or_default();
        let (first, now, mut freed) = (log.head().seq + 1, now(), 0);
        let (mut outcomes, mut fresh, mut failed) = (Vec::with_capacity(entries.len()), Vec::new(), None);
        for entry in entries {
            if let Err(error) = entry.check(id.space) {
                outcomes.push(rejected(&error));
                continue;
            }
            if let Some(known) = log.find(entry.document, &entry.id) {
                outcomes.push(Outcome::Stored(known));
                continue;
            }
            if log.is_outdated(&entry) {
                let why = "nothing of what it supersedes is in the log any more".into();
                outcomes.push(Outcome::Rejected(Rejection::Outdated, why));
                continue;
            }
            let is_new = !log.documents.contains_key(&entry.document);
            if let Err(limit) = usage.check(&entry, is_new, limits) {
                failed = Some(limit);
                break;
            }
            usage.bytes += entry.size() as u64;
            usage.documents += u64::from(is_new);
            outcomes.push(Outcome::Stored(log.head().seq + 1));
            fresh.push(entry.clone());
            freed += log.add(entry, now);
        }
        // What leaves makes room for the next push.
        usage.bytes = usage.bytes.saturating_sub(freed);
        let appended = (!fresh.is_empty()).then_some((first, log.head()));
        Appended { outcome: AppendOutcome { outcomes, appended }, fresh, failed }
    }

    /// Whether a log is there, or may be.
    fn create(&self, id: &LogId) -> Result<(), StoreError> {
        if self.logs.contains_key(id) {
            return Ok(());
        }
        if self.logs.len() as u64 >= self.limits.spaces {
            return Err(StoreError::Limit("the relay has as many spaces as it may have".into()));
        }
        let own = self.logs.keys().filter(|log| log.account == id.account).count();
        match own as u64 >= self.limits.spaces_per_account {
            true => Err(StoreError::Limit(format!("this account has {own} spaces, and may have no more"))),
            false => Ok(()),
        }
    }

    fn remove(&mut self, id: &LogId) {
        let Some(log) = self.logs.remove(id) else { return };
        let bytes: u64 = log.entries.values().map(|stored| stored.entry.size() as u64).sum();
        if let Some(usage) = self.accounts.get_mut(&id.account) {
            usage.bytes = usage.bytes.saturating_sub(bytes);
            usage.documents = usage.documents.saturating_sub(log.documents.len() as u64);
        }
        if !self.logs.keys().any(|log| log.account == id.account) {
            self.accounts.remove(&id.account);
        }
    }

    fn sweep(&mut self, before: i64) -> usize {
        let mut swept = 0;
        for (id, log) in &mut self.logs {
            let due = |(seq, stored): (&u64, &Stored)| {
                let is_due =
                    stored.superseded_at.is_some_and(|at| at < before) && stored.received_at < before;
                is_due.then_some(*seq)
            };
            let due: Vec<_> =
                log.entries.iter().filter_map(due).take(limits::SWEPT_ENTRIES - swept).collect();
            swept += due.len();
            let freed: u64 = due.into_iter().map(|seq| log.remove(seq)).sum();
            if let Some(usage) = self.accounts.get_mut(&id.account) {
                usage.bytes = usage.bytes.saturating_sub(freed);
            }
        }
        swept
    }
}

impl Log {
    fn new(start: Position) -> Self {
        Self { start, positions: Vec::new(), entries: BTreeMap::new(), documents: HashMap::new() }
    }

    fn head(&self) -> Position {
        self.positions.last().copied().unwrap_or(self.start)
    }

    /// Sequence number of an entry that is in the log.
    fn find(&self, document: DocumentId, id: &EntryId) -> Option<u64> {
        let of = self.documents.get(&document)?;
        of.iter().copied().find(|seq| self.entries.get(seq).is_some_and(|stored| stored.entry.id == *id))
    }

    /// Whether an entry is a snapshot of which everything that it supersedes has left.
    fn is_outdated(&self, entry: &Entry) -> bool {
        let Kind::Snapshot { supersedes, .. } = &entry.kind else { return false };
        !supersedes.is_empty() && supersedes.iter().all(|id| self.find(entry.document, id).is_none())
    }

    /// Adds an entry that is checked. Returns the bytes that leave because of it.
    fn add(&mut self, entry: Entry, now: i64) -> u64 {
        let position = self.head().next(entry.id);
        let mut freed = 0;
        match &entry.kind {
            Kind::Snapshot { supersedes, .. } => {
                for id in supersedes {
                    let Some(old) = self.find(entry.document, id) else { continue };
                    if let Some(old) = self.entries.get_mut(&old) {
                        old.superseded_at.get_or_insert(now);
                    }
                }
            }
            Kind::Erased => {
                let before = self.documents.get(&entry.document).cloned().unwrap_or_default();
                freed = before.into_iter().map(|seq| self.remove(seq)).sum();
            }
            Kind::Changes | Kind::Other(_) => {}
        }
        self.documents.entry(entry.document).or_default().insert(position.seq);
        self.entries.insert(position.seq, Stored { entry, received_at: now, superseded_at: None });
        self.positions.push(position);
        freed
    }

    /// Takes an entry out; positions stay. Returns its bytes.
    fn remove(&mut self, seq: u64) -> u64 {
        let Some(stored) = self.entries.remove(&seq) else { return 0 };
        if let Some(of) = self.documents.get_mut(&stored.entry.document) {
            of.remove(&seq);
            if of.is_empty() {
                self.documents.remove(&stored.entry.document);
            }
        }
        stored.entry.size() as u64
    }

    fn read(&self, after: Position) -> ReadOutcome {
        let at = |seq: u64| match seq {
            0 => Some(self.start),
            _ => self.positions.get(usize::try_from(seq).ok()? - 1).copied(),
        };
        if at(after.seq) != Some(after) {
            return ReadOutcome::Refused;
        }
        let head = self.head().seq;
        let last = head.min(after.seq + limits::PAGE_ROWS as u64);
        let (mut entries, mut seq, mut bytes) = (Vec::new(), after.seq, 0);
        while seq < last && bytes < proto::PAGE_BYTES && entries.len() < batch(proto::PAGE_ENTRIES) {
            seq += 1;
            if let Some(stored) = self.entries.get(&seq) {
                bytes += stored.entry.size();
                entries.push((seq, stored.entry.clone()));
            }
        }
        ReadOutcome::Page { entries, position: at(seq).unwrap_or(after), head }
    }

    fn read_document(&self, document: DocumentId, after: u64, whole: bool) -> DocumentPage {
        let mut page = DocumentPage { last: after, ..DocumentPage::default() };
        let Some(from) = after.checked_add(1) else { return page };
        let of = self.documents.get(&document).into_iter().flat_map(|of| of.range(from..));
        let stored = of.filter_map(|seq| Some((*seq, self.entries.get(seq)?)));
        let most = batch(proto::PAGE_ENTRIES);
        let (mut bytes, mut count) = (0, 0);
        for (seq, Stored { entry, .. }) in stored.filter(|(_, stored)| stored.superseded_at.is_none()) {
            if bytes >= proto::PAGE_BYTES || count == most {
                page.more = true;
                break;
            }
            (page.last, count) = (seq, count + 1);
            match whole {
                true => {
                    bytes += entry.size();
                    page.entries.push(entry.clone());
                }
                false => {
                    page.listed.push(Listed { seq, id: entry.id, bytes: entry.payload.len() as u64 });
                }
            }
        }
        page
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64)
}
