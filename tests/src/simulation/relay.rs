//! The relay: its sessions and its store, with what is under way between them laid open.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::LazyLock;

use motet::simulation::hostile::changes_in;
use motet_proto::message::{ErrorCode, Fetch};
use motet_proto::session::{CommittedRun, Opened, ReadOutcome, RelayEffect, RelaySession};
use motet_proto::{
    AccountId, Entry, EntryId, Kind, LogName, Message, Position, RelayId, SpaceId, message::Outcome,
};
use motet_relay::store::sqlite::SqliteStore;
use motet_relay::store::{LogId, LogStore, StoreError};
use tokio::runtime::Runtime;

use super::disk::Disk;
use super::vfs::Mount;

/// The store has threads of its own; each call is waited for, so that there is one order of things.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap());

/// Entries that are handed round with a run; larger runs are read from the log.
const RUN_ENTRIES: usize = 3;

pub(crate) struct SimRelay {
    pub(super) disk: Disk,
    mount: Mount,
    open: Option<SqliteStore>,
    sessions: BTreeMap<u64, Served>,
    next: u64,
    /// How often it was started: data that is made at a start is called by that.
    starts: u128,
    /// What devices were told is durable.
    pub(super) acknowledged: BTreeMap<String, BTreeSet<EntryId>>,
    /// What the snapshots that were ever sent supersede.
    supersedes: BTreeMap<EntryId, Vec<EntryId>>,
    /// The changes in the entries that were ever sent; `None` if it cannot be read.
    changes: BTreeMap<EntryId, Option<BTreeSet<[u8; 32]>>>,
    /// A snapshot superseded what it does not hold.
    pub(super) false_claim: Option<String>,
}

struct Served {
    account: String,
    session: RelaySession,
    /// Work for the store: appends keep their order, the read goes its own way.
    appends: VecDeque<(u32, Vec<Entry>)>,
    read: Option<Option<Position>>,
    documents: VecDeque<Fetch>,
    runs: VecDeque<CommittedRun>,
    outgoing: VecDeque<Message>,
    closed: bool,
}

impl SimRelay {
    pub(super) fn new(mount: String) -> Self {
        let mut relay = Self::on(mount, Disk::default());
        relay.start().unwrap();
        relay
    }

    /// A relay that is not started yet.
    pub(crate) fn on(mount: String, disk: Disk) -> Self {
        let mount = Mount::new(&mount, &disk);
        let (sessions, acknowledged, supersedes) = Default::default();
        let changes = BTreeMap::new();
        let next = 1;
        Self {
            disk,
            mount,
            open: None,
            sessions,
            next,
            starts: 0,
            acknowledged,
            supersedes,
            changes,
            false_claim: None,
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.mount.path("relay.db")
    }

    /// Opens the store; false if the disk does not let it.
    pub(crate) fn start(&mut self) -> Result<(), StoreError> {
        self.mount.change(&self.disk);
        self.starts += 1;
        let fresh = RelayId(self.starts.to_be_bytes());
        self.open = Some(SqliteStore::open_file(&self.path(), Some(fresh))?);
        Ok(())
    }

    /// The process ends; its sessions are gone with it.
    pub(super) fn stop(&mut self) {
        self.open = None;
        self.sessions.clear();
    }

    pub(super) fn is_up(&self) -> bool {
        self.open.is_some() && !self.disk.is_dead()
    }

    /// A device has connected, authenticated as `account`.
    pub(crate) fn accept(&mut self, account: &str) -> u64 {
        let id = self.next;
        self.next += 1;
        let served = Served {
            account: account.to_owned(),
            session: RelaySession::new(id, "simulated".into()),
            appends: VecDeque::new(),
            read: None,
            documents: VecDeque::new(),
            runs: VecDeque::new(),
            outgoing: VecDeque::new(),
            closed: false,
        };
        self.sessions.insert(id, served);
        id
    }

    /// The connection is gone. What was handed to the store is done all the same.
    pub(crate) fn drop_session(&mut self, id: u64) {
        while self.sessions.get(&id).is_some_and(|served| !served.appends.is_empty()) && self.is_up() {
            self.append(id);
        }
        self.sessions.remove(&id);
    }

    pub(super) fn is_open(&self, id: u64) -> bool {
        self.sessions.get(&id).is_some_and(|served| !served.closed || !served.outgoing.is_empty())
    }

    /// Bytes have arrived.
    pub(crate) fn take(&mut self, id: u64, frame: &[u8]) {
        let Some(served) = self.sessions.get_mut(&id).filter(|served| !served.closed) else { return };
        match motet_proto::frame::decode(frame) {
            Ok(message) => served.session.handle_message(message),
            Err(error) => served.session.handle_bad_frame(error.to_string()),
        }
        self.carry_out(id);
    }

    /// True if the session takes no more for now.
    pub(crate) fn is_saturated(&self, id: u64) -> bool {
        self.sessions.get(&id).is_some_and(|served| served.session.is_saturated())
    }

    /// The next message for a device.
    pub(crate) fn poll_message(&mut self, id: u64) -> Option<Message> {
        self.sessions.get_mut(&id)?.outgoing.pop_front()
    }

    pub(super) fn is_busy(&self, id: u64) -> bool {
        self.sessions.get(&id).is_some_and(|served| {
            !served.appends.is_empty()
                || served.read.is_some()
                || !served.documents.is_empty()
                || !served.runs.is_empty()
        })
    }

    /// Does one of the things that wait; false if nothing does. `lag`: the session was too slow for the hub.
    pub(crate) fn work(&mut self, id: u64, choice: u64, lag: bool) -> bool {
        let Some(served) = self.sessions.get_mut(&id) else { return false };
        let mut choices = Vec::new();
        choices.extend((!served.appends.is_empty()).then_some(0));
        choices.extend(served.read.is_some().then_some(1));
        choices.extend((!served.runs.is_empty()).then_some(2));
        choices.extend((!served.documents.is_empty()).then_some(3));
        if choices.is_empty() {
            return false;
        }
        match choices[(choice % choices.len() as u64) as usize] {
            0 => self.append(id),
            1 => self.read(id),
            3 => self.read_document(id),
            _ if lag => {
                served.runs.clear();
                served.session.handle_lagged();
            }
            _ => {
                if let Some(run) = served.runs.pop_front() {
                    served.session.handle_committed(&run);
                }
            }
        }
        self.carry_out(id);
        true
    }

    /// The whole log of an account, in order.
    pub(super) fn log(&self, account: &str) -> Result<Vec<(u64, Entry)>, StoreError> {
        let Some(store) = &self.open else { return Err(StoreError::Closed) };
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let log = log_id(account);
            let ReadOutcome::Page { entries, position, head } = RUNTIME.block_on(store.read(&log, after))?
            else {
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
    pub(super) fn sweep(&mut self) -> Result<usize, StoreError> {
        match &self.open {
            Some(store) => RUNTIME.block_on(store.sweep(i64::MAX)),
            None => Err(StoreError::Closed),
        }
    }

    /// What may have left the log because a snapshot that is in it, or has left likewise, supersedes it.
    pub(super) fn may_have_left(&self, log: &[(u64, Entry)]) -> BTreeSet<EntryId> {
        let mut left = BTreeSet::new();
        let mut open: Vec<EntryId> = log.iter().map(|(_, entry)| entry.id).collect();
        while let Some(id) = open.pop() {
            let superseded = self.supersedes.get(&id).into_iter().flatten();
            open.extend(superseded.filter(|id| left.insert(**id)));
        }
        left
    }

    fn append(&mut self, id: u64) {
        let Some(served) = self.sessions.get_mut(&id) else { return };
        let (Some(store), Some((push, entries))) = (&self.open, served.appends.pop_front()) else {
            return;
        };
        let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
        for entry in &entries {
            let read = |entry: &Entry| changes_in(entry).map(BTreeSet::from_iter);
            self.changes.entry(entry.id).or_insert_with(|| read(entry));
            if let Kind::Snapshot { supersedes, .. } = &entry.kind {
                self.supersedes.insert(entry.id, supersedes.clone());
                let held = self.changes[&entry.id].clone().unwrap_or_default();
                let is_held = |id: &&EntryId| match self.changes.get(id) {
                    Some(Some(changes)) => changes.is_subset(&held),
                    _ => false,
                };
                if let Some(id) = supersedes.iter().find(|id| !is_held(id)) {
                    self.false_claim = Some(format!("a snapshot supersedes {id}, and does not hold it"));
                }
            }
        }
        let account = served.account.clone();
        let appended = match RUNTIME.block_on(store.append(log_id(&account), entries)) {
            Ok(appended) => appended,
            // As a relay does; every second time as one whose session ends with it.
            Err(error) if push.is_multiple_of(2) => {
                return served.session.handle_failure(ErrorCode::Internal, &error.to_string());
            }
            Err(error) => {
                let (code, message) = (ErrorCode::Internal, error.to_string());
                return served.session.handle_not_appended(push, None, code, &message);
            }
        };
        let stored = ids.iter().zip(&appended.outcome.outcomes);
        let stored = stored.filter(|(_, outcome)| matches!(outcome, Outcome::Stored(_))).map(|(id, _)| *id);
        self.acknowledged.entry(account.clone()).or_default().extend(stored);
        if let Some((first, position)) = appended.outcome.appended {
            let entries = (appended.fresh.len() <= RUN_ENTRIES).then(|| appended.fresh.into());
            let run = CommittedRun { origin: id, first, position, entries };
            let others = self.sessions.values_mut().filter(|other| other.account == account);
            others.for_each(|other| other.runs.push_back(run.clone()));
        }
        if let Some(served) = self.sessions.get_mut(&id) {
            served.session.handle_appended(push, appended.outcome);
        }
    }

    fn read(&mut self, id: u64) {
        let Some(served) = self.sessions.get_mut(&id) else { return };
        let (Some(store), Some(after)) = (&self.open, served.read.take()) else { return };
        match RUNTIME.block_on(store.read(&log_id(&served.account), after)) {
            Ok(outcome) => served.session.handle_read(outcome),
            Err(error) => served.session.handle_failure(ErrorCode::Internal, &error.to_string()),
        }
    }

    fn read_document(&mut self, id: u64) {
        let Some(served) = self.sessions.get_mut(&id) else { return };
        let (Some(store), Some(fetch)) = (&self.open, served.documents.pop_front()) else { return };
        let log = log_id(&served.account);
        match RUNTIME.block_on(store.read_document(&log, fetch.document, fetch.after, fetch.whole)) {
            Ok(page) => served.session.handle_document(fetch, page),
            Err(error) => served.session.handle_failure(ErrorCode::Internal, &error.to_string()),
        }
    }

    fn carry_out(&mut self, id: u64) {
        let (Some(served), Some(store)) = (self.sessions.get_mut(&id), &self.open) else { return };
        while let Some(effect) = served.session.poll_effect() {
            match effect {
                RelayEffect::Send(message) => served.outgoing.push_back(message),
                RelayEffect::Open { .. } => match RUNTIME.block_on(store.head(&log_id(&served.account))) {
                    Ok(head) => {
                        let account = AccountId::derive(&served.account);
                        let log = LogName::derive(store.id(), &served.account, SpaceId::DEFAULT);
                        let (account, log) = (Some(account), Some(log));
                        served.session.handle_opened(Opened { head, account, log, time_ms: None });
                    }
                    Err(error) => served.session.handle_failure(ErrorCode::Internal, &error.to_string()),
                },
                RelayEffect::Append { push, entries } => served.appends.push_back((push, entries)),
                RelayEffect::Read { after } => served.read = Some(after),
                RelayEffect::ReadDocument(fetch) => served.documents.push_back(fetch),
                // Nothing of it is stored or promised.
                RelayEffect::Presence(_) => {}
                RelayEffect::Close => served.closed = true,
            }
        }
    }
}

fn log_id(account: &str) -> LogId {
    LogId { account: account.to_owned(), space: SpaceId::DEFAULT }
}
