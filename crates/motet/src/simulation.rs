//! The sync task of a replica, taken apart into single steps, for a simulation that decides itself what happens when.
//!
//! The task is that of `sync`; only sockets, other threads and the machine's clock are missing. For the project's own tests: nothing here is stable.

pub mod hostile;

use std::time::Duration;

use motet_proto::{DocumentId, Message, SpaceId};

use crate::api::Replica;
use crate::error::SyncError;
use crate::platform;
use crate::store::StorageError;
use crate::sync::DocumentTask;
use crate::sync::stepped::Stepped;

/// From now on this thread draws its randomness from `seed`, and replicas that it opens do nothing on their own.
pub fn begin(seed: u64) {
    platform::simulated::set(Some(seed));
}

/// This thread is on the real machine again.
pub fn end() {
    platform::simulated::set(None);
}

/// Does what a replica leaves for later: brings projections and the full-text index up to date.
///
/// # Errors
/// As the disk has them.
pub fn catch_up(replica: &Replica) -> Result<(), StorageError> {
    replica.database().writer.catch_up()
}

/// One session of a replica with a relay.
pub struct Session(Stepped);

impl Session {
    /// Begins a session with the relay of a name.
    ///
    /// # Errors
    /// As the disk has them.
    pub fn begin(replica: &Replica, relay: &str, live: bool, now: Duration) -> Result<Self, SyncError> {
        Stepped::begin(replica.database(), relay, live, now).map(Self)
    }

    /// Asks for a full round.
    pub fn request_round(&mut self, round: u64, now: Duration) {
        self.0.request_round(round, now);
    }

    /// Syncs one document of `pieces` out of turn.
    pub fn sync_document(&mut self, id: &str, now: Duration) {
        self.request(id, DocumentTask::Sync, now);
    }

    /// Compacts one document of `pieces`, if that is worth it.
    pub fn compact(&mut self, id: &str, now: Duration) {
        self.request(id, DocumentTask::Compact, now);
    }

    fn request(&mut self, id: &str, task: DocumentTask, now: Duration) {
        let document = DocumentId::derive(SpaceId::DEFAULT, "pieces", id);
        self.0.request_document(document, task, now);
    }

    /// A message has arrived. It is lost if the session [is saturated](Self::is_saturated).
    pub fn take(&mut self, message: Message, now: Duration) {
        self.0.take(message, now);
    }

    /// The connection breaks.
    pub fn lose(&mut self, now: Duration) {
        self.0.lose(now);
    }

    /// Time has passed, or the app has written.
    pub fn pass_time(&mut self, now: Duration) {
        self.0.poll(now);
    }

    /// Does one of the things that wait for the disk or for another thread; `choice` says which. False if there is none.
    pub fn work(&mut self, choice: u64, now: Duration) -> bool {
        self.0.work(choice, now)
    }

    /// The next message to send.
    pub fn poll_message(&mut self) -> Option<Message> {
        self.0.poll_message()
    }

    /// A round that is complete.
    pub fn poll_done(&mut self) -> Option<u64> {
        self.0.poll_done()
    }

    /// Why the session is over, if it is.
    pub fn ended(&self) -> Option<&str> {
        self.0.ended()
    }

    /// It takes no more messages for now.
    pub fn is_saturated(&self) -> bool {
        self.0.is_saturated()
    }

    /// Nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.0.is_idle()
    }
}
