//! What an app calls about syncing.

use std::time::Duration;

use crate::api::replica::Replica;
use crate::api::watch::StatusWatch;
use crate::error::{ReadError, SyncError, WriteError};
use crate::limits;
use crate::store::{Durability, Op, PendingRow, StatusRow};
use crate::sync::{self, Relay, SyncHandle, SyncSummary};
use crate::types::{
    Conditions, DocumentState, DocumentStatus, LastError, PendingDocument, Status, SyncPolicy, Version,
};

/// Traffic of one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct DayTraffic {
    /// When the day began (UTC), in milliseconds since 1970.
    pub start: i64,
    /// Bytes sent.
    pub up: u64,
    /// Bytes received.
    pub down: u64,
}

impl Replica {
    /// Names the relay without connecting: from now on the status speaks of it, and writes wait for it. One that this
    /// replica meets for the first time is owed everything.
    ///
    /// # Errors
    /// [`SyncError::BadUrl`], or [`SyncError::Storage`].
    pub fn use_relay(&self, relay: &Relay) -> Result<(), SyncError> {
        sync::use_relay(self.database(), relay)
    }

    /// Connects to a relay and stays connected, coming back after every interruption, until [`disconnect`] or the
    /// last clone of the replica is gone. Returns at once; [`status`](Self::status) tells how it goes. A relay that
    /// this replica meets for the first time is sent everything. A second call, with another relay or another token, takes the place of the first.
    ///
    /// [`disconnect`]: Self::disconnect
    ///
    /// # Errors
    /// [`SyncError::BadUrl`], or [`SyncError::Storage`]. That the relay cannot be reached is a status, no error.
    pub fn connect(&self, relay: Relay) -> Result<(), SyncError> {
        let handle = SyncHandle::start(self.database().clone(), relay)?;
        *self.sync() = Some(handle);
        Ok(())
    }

    /// Ends the connection. Writes are kept and wait for the next one.
    pub fn disconnect(&self) {
        // Taken out first: ending the task must not hold the lock.
        let handle = self.sync().take();
        drop(handle);
    }

    /// Runs a full round now, whatever back-off is under way: everything pending is sent, everything the relay has
    /// is merged. Gives up after [`ROUND_TIMEOUT`](crate::limits::ROUND_TIMEOUT), unless the relay is heard and only slow.
    ///
    /// # Errors
    /// [`SyncError`]; what was done until then stays done, the rest stays pending.
    pub fn sync_now(&self) -> Result<SyncSummary, SyncError> {
        pollster::block_on(self.sync_now_async())
    }

    /// Compares everything with the relay: reads its log from the start, takes in what is missing here, and sends every document whose
    /// heads the log does not hold. Positions tell at each session whether the log is the one that was read; this tells whether the two
    /// sides really hold the same, and repairs what differs. It costs a full download; a connected replica runs it by itself once in a
    /// while, see [`SyncPolicy::compare_every`]. The summary says what was repaired: new and updated documents here, and `sent`. Ends with the replica
    /// connected.
    ///
    /// # Errors
    /// As [`sync_now`](Self::sync_now). If it is interrupted, the next session goes on with it.
    pub fn compare_with_relay(&self, relay: Relay) -> Result<SyncSummary, SyncError> {
        self.begin_to_compare(relay)?;
        self.sync_now()
    }

    /// [`compare_with_relay`](Self::compare_with_relay) for async code. What has to be written down first is written when the future is
    /// polled for the first time.
    pub fn compare_with_relay_async(
        &self,
        relay: Relay,
    ) -> impl Future<Output = Result<SyncSummary, SyncError>> + Send + use<> {
        let replica = self.clone();
        async move {
            replica.begin_to_compare(relay)?;
            replica.sync_now_async().await
        }
    }

    /// [`sync_now`](Self::sync_now) for async code.
    pub fn sync_now_async(&self) -> impl Future<Output = Result<SyncSummary, SyncError>> + Send + use<> {
        let round = { self.sync().as_ref().map(SyncHandle::request_round) };
        async move {
            match round {
                Some(round) => round.await,
                None => Err(SyncError::NotConnected),
            }
        }
    }

    /// Sets when a connected replica syncs by itself, durably; at first it does so live. Other processes that have the file open follow
    /// it with their next write at the latest.
    ///
    /// # Errors
    /// [`WriteError::Policy`] if it cannot be followed, such as a round every 0 s; else [`WriteError::Storage`]. The old policy stays then.
    pub fn set_sync_policy(&self, policy: SyncPolicy) -> Result<(), WriteError> {
        policy.check()?;
        self.run(move |tx, core| Ok(core.set_sync_policy(tx, policy)?))
    }

    /// When a connected replica syncs by itself.
    pub fn sync_policy(&self) -> SyncPolicy {
        self.database().shared.policy.borrow().0
    }

    /// Tells what the system says about network and battery.
    pub fn set_conditions(&self, conditions: Conditions) {
        let policy = &self.database().shared.policy;
        policy.send_if_modified(|(_, known)| std::mem::replace(known, conditions) != conditions);
    }

    /// The app is in the foreground again, or the network is back: a pause between attempts ends, and a connection that died
    /// meanwhile is noticed. Returns at once; does nothing if the replica is not connected.
    pub fn on_foreground(&self) {
        if let Some(sync) = &*self.sync() {
            sync.nudge();
        }
    }

    /// The app goes to the background and may run for `deadline` more: sends and receives what it can in that time. What is not
    /// done then is kept and goes on later.
    ///
    /// # Errors
    /// As [`sync_now`](Self::sync_now), or [`SyncError::Timeout`] at the deadline.
    pub fn on_background(&self, deadline: Duration) -> Result<SyncSummary, SyncError> {
        let round = { self.sync().as_ref().map(|sync| sync.request_round_within(deadline)) };
        round.map_or(Err(SyncError::NotConnected), pollster::block_on)
    }

    fn begin_to_compare(&self, relay: Relay) -> Result<(), SyncError> {
        self.disconnect();
        self.use_relay(&relay)?;
        let marked = self.database().writer.run(Durability::Full, |tx, core| core.schedule_full_compare(tx));
        marked.map_err(SyncError::Storage)?;
        self.connect(relay)
    }

    /// Stops or resumes sending a collection, durably. While it is off, nothing of the collection leaves this device, also not what
    /// was written before and not yet sent; what other devices send still arrives. When it is on again, the relay gets what it lacks.
    ///
    /// # Errors
    /// [`WriteError`] if it cannot be kept.
    pub fn set_collection_sync(&self, collection: &str, on: bool) -> Result<(), WriteError> {
        let collection = collection.to_owned();
        self.run(move |tx, core| Ok(core.set_collection_sync(tx, &collection, on)?))
    }

    /// Stops sending a collection, durably, and has the relay forget what it holds of it. Devices keep their copies; what another
    /// device that still syncs the collection changes later, it sends again as a whole. The documents are pending until the
    /// relay has confirmed. [`set_collection_sync`](Self::set_collection_sync) switches the collection on again, with everything.
    ///
    /// # Errors
    /// [`WriteError`] if it cannot be kept.
    pub fn erase_remote(&self, collection: &str) -> Result<(), WriteError> {
        let collection = collection.to_owned();
        self.run(move |tx, core| Ok(core.erase_remote(tx, &collection)?))
    }

    /// Collections that are not sent at present because of [`set_collection_sync`](Self::set_collection_sync).
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn unsynced_collections(&self) -> Result<Vec<String>, ReadError> {
        Ok(self.read(|tx| tx.excluded())?)
    }

    /// When the remote last confirmed that it holds a document of the collection, in milliseconds since 1970.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn last_synced_at(&self, collection: &str) -> Result<Option<i64>, ReadError> {
        Ok(self.read(|tx| tx.last_synced_at(collection))?)
    }

    /// Bytes sent and received on the last `days` days on which there were any, the latest first. Counted on the socket, before TLS.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn traffic(&self, days: usize) -> Result<Vec<DayTraffic>, ReadError> {
        let day = |(day, up, down)| DayTraffic { start: day * limits::DAY_MS, up, down };
        Ok(self.read(|tx| tx.traffic(days))?.into_iter().map(day).collect())
    }

    /// How syncing stands. Where another process, or another replica of this file, syncs it: as it was half a second ago
    /// ([`FOREIGN_WRITE_POLL`](crate::limits::FOREIGN_WRITE_POLL)), if this is asked again and again; after a longer pause the first answer may be older.
    pub fn status(&self) -> Status {
        let (status, is_news) = self.database().shared.board.ask();
        if is_news {
            self.database().writer.watch_file();
        }
        status
    }

    /// How syncing stands, whenever it changes.
    pub fn watch_status(&self) -> StatusWatch {
        let status = self.database().shared.board.watch();
        self.database().writer.watch_file();
        StatusWatch::new(status)
    }

    /// Documents with changes that the remote does not hold yet, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`ReadError`] if the file cannot be read.
    pub fn pending_documents(&self, limit: usize) -> Result<Vec<PendingDocument>, ReadError> {
        let rows = self.read(|tx| tx.pending_documents(limit))?;
        let document =
            |(collection, id, op, since)| PendingDocument { collection, id, state: pending_state(op), since };
        Ok(rows.into_iter().map(document).collect())
    }
}

pub(super) fn document_status(row: StatusRow, local_only: bool) -> DocumentStatus {
    let pending = row.pending.as_ref();
    let error: Option<LastError> =
        pending.and_then(|p| p.error.as_deref()).and_then(|json| serde_json::from_str(json).ok());
    let damaged = |(message, at)| LastError { code: "storage-damaged".into(), message, at };
    let error = error.or(row.damage.map(damaged));
    let state = match pending {
        _ if error.is_some() => DocumentState::Error,
        Some(PendingRow { op, .. }) => pending_state(*op),
        None if row.conflicts > 0 => DocumentState::Conflict,
        None if local_only || row.is_erased => DocumentState::LocalOnly,
        None => DocumentState::Synced,
    };
    DocumentStatus {
        state,
        last_synced_at: row.last_synced_at.filter(|_| !row.is_erased),
        pending_changes: pending.map_or(0, |p| p.changes),
        pending_since: pending.map(|p| p.since),
        updated_at: row.updated_at,
        conflicts: row.conflicts as u64,
        heads: Version(row.heads),
        deleted: row.deleted,
        error,
    }
}

pub(super) fn read_error(error: ReadError) -> SyncError {
    match error {
        ReadError::Storage(error) => SyncError::Storage(error),
        other => SyncError::Read(other),
    }
}

fn pending_state(op: Op) -> DocumentState {
    match op {
        Op::Create => DocumentState::PendingCreate,
        Op::Update => DocumentState::PendingUpdate,
        Op::Delete => DocumentState::PendingDelete,
        Op::Erase => DocumentState::PendingErase,
    }
}
