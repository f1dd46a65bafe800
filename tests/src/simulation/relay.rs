//! The relay: its sessions, with what is under way between them and their store laid open.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, ready};
use motet::simulation::hostile::changes_in;
use motet_proto::{Entry, EntryId, Kind, RelayId, SpaceId, message::Outcome};
use motet_relay::Config;
use motet_relay::auth::{AuthError, Authenticator, Credentials, Principal};
use motet_relay::simulation::{Stepped, Wire};
use motet_relay::store::sqlite::SqliteStore;
use motet_relay::store::{LogId, StoreError};

use super::disk::Disk;
use super::store::WaitingStore;
use super::vfs::Mount;

/// Calls of the store that are made before sessions hear of them, at most.
const MOST_AT_ONCE: u64 = 4;

pub(crate) struct SimRelay {
    pub(super) disk: Disk,
    mount: Mount,
    open: Option<Open>,
    sessions: BTreeMap<u64, Wire>,
    next: u64,
    now: Duration,
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

/// A relay that runs.
struct Open {
    /// First, as its tasks use the store.
    relay: Stepped,
    store: Arc<WaitingStore>,
}

/// A token is the name of its account.
struct Names;

impl Authenticator for Names {
    fn authenticate<'a>(
        &'a self,
        credentials: Credentials<'a>,
    ) -> BoxFuture<'a, Result<Principal, AuthError>> {
        let who = credentials.token.map(|token| Principal {
            account: token.into(),
            token: Some([0; 32]),
            device: None,
        });
        ready(who.ok_or(AuthError::Missing)).boxed()
    }

    fn is_valid<'a>(&'a self, _: &'a Principal) -> BoxFuture<'a, bool> {
        ready(true).boxed()
    }
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
        Self {
            disk,
            mount,
            open: None,
            sessions,
            next: 1,
            now: Duration::ZERO,
            starts: 0,
            acknowledged,
            supersedes,
            changes: BTreeMap::new(),
            false_claim: None,
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.mount.path("relay.db")
    }

    /// Opens the store; an error if the disk does not let it.
    pub(crate) fn start(&mut self) -> Result<(), StoreError> {
        self.mount.change(&self.disk);
        self.starts += 1;
        let fresh = RelayId(self.starts.to_be_bytes());
        let store = Arc::new(WaitingStore::new(SqliteStore::open_file(&self.path(), Some(fresh))?));
        let config = Config { auth: Arc::new(Names), ..Config::with_store(store.clone()) };
        let relay = Stepped::start(config, self.now).map_err(|e| StoreError::Failed(e.to_string()))?;
        self.open = Some(Open { relay, store });
        Ok(())
    }

    /// The process ends; its sessions are gone with it.
    pub(super) fn stop(&mut self) {
        self.sessions.clear();
        self.open = None;
    }

    pub(super) fn is_up(&self) -> bool {
        self.open.is_some() && !self.disk.is_dead()
    }

    /// A device has connected, authenticated as `account`.
    pub(crate) fn accept(&mut self, account: &str) -> u64 {
        let id = self.next;
        self.next += 1;
        let wire = self.open.as_ref().and_then(|open| open.relay.connect(Some(account)).ok());
        wire.into_iter().for_each(|wire| _ = self.sessions.insert(id, wire));
        id
    }

    /// The connection is gone. What was handed to the store is done all the same.
    pub(crate) fn drop_session(&mut self, id: u64) {
        self.sessions.remove(&id);
        self.turn();
    }

    pub(super) fn is_open(&self, id: u64) -> bool {
        self.sessions.get(&id).is_some_and(|wire| !wire.is_over())
    }

    /// Bytes have arrived.
    pub(crate) fn take(&mut self, id: u64, frame: &[u8]) {
        self.sessions.get(&id).into_iter().for_each(|wire| wire.send(frame.to_vec()));
        self.turn();
    }

    /// Time has passed.
    pub(crate) fn pass_time(&mut self, now: Duration) {
        self.now = now;
        self.turn();
    }

    /// True if the session takes no more for now.
    pub(crate) fn is_saturated(&self, id: u64) -> bool {
        self.sessions.get(&id).is_some_and(Wire::is_full)
    }

    /// The next frame for a device.
    pub(crate) fn poll_frame(&mut self, id: u64) -> Option<Vec<u8>> {
        let frame = self.sessions.get_mut(&id)?.receive()?;
        // There is room for another one.
        self.turn();
        Some(frame)
    }

    /// Something is under way for a session.
    pub(super) fn is_busy(&self, id: u64) -> bool {
        self.open.as_ref().is_some_and(|open| open.store.is_busy())
            || self.sessions.get(&id).is_some_and(Wire::is_busy)
    }

    /// Makes some of the calls of the store that wait; false if none does. Of several that were made at once, sessions hear too much at once; of
    /// some they hear only that there was something.
    pub(crate) fn work(&mut self, choice: u64) -> bool {
        let mut is_done = false;
        if (choice >> 12).is_multiple_of(8)
            && let Some(open) = self.open.as_ref().filter(|_| choice > u64::from(u8::MAX))
        {
            open.relay.lose_next();
        }
        for n in 0..=(choice >> 10) % MOST_AT_ONCE {
            is_done |= self.make_call(choice >> n);
        }
        self.turn();
        is_done
    }

    fn make_call(&mut self, choice: u64) -> bool {
        let Some(open) = &self.open else { return false };
        let (store, Some(call)) = (open.store.clone(), open.store.next(choice)) else { return false };
        let (account, entries) = (call.log.account.clone(), call.entries().map(<[Entry]>::to_vec));
        let entries = entries.unwrap_or_default();
        self.look_into(&entries);
        if let Some(appended) = store.make(call) {
            let stored = entries.iter().zip(&appended.outcome.outcomes);
            let stored = stored.filter(|(_, outcome)| matches!(outcome, Outcome::Stored(_)));
            let stored = stored.map(|(entry, _)| entry.id);
            self.acknowledged.entry(account).or_default().extend(stored);
        }
        true
    }

    /// The whole log of an account, in order.
    pub(super) fn log(&self, account: &str) -> Result<Vec<(u64, Entry)>, StoreError> {
        let log = LogId { account: account.to_owned(), space: SpaceId::DEFAULT };
        self.open.as_ref().ok_or(StoreError::Closed)?.store.log(&log)
    }

    /// What was superseded until now leaves.
    pub(super) fn sweep(&mut self) -> Result<usize, StoreError> {
        self.open.as_ref().ok_or(StoreError::Closed)?.store.sweep_all()
    }

    fn turn(&mut self) {
        let now = self.now;
        if let Some(open) = &mut self.open {
            open.relay.turn(now);
        }
    }

    /// Notes what is about to be appended, and whether a snapshot holds what it supersedes.
    fn look_into(&mut self, entries: &[Entry]) {
        for entry in entries {
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
}
