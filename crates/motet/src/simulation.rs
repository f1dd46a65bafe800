//! The sync task of a replica, taken apart into single steps, for a simulation that decides itself what happens when.
//!
//! What is done to the store is what the driver in `sync` does, by the same functions; only sockets, timers and threads
//! are missing. For the project's own tests: nothing here is stable.

pub mod hostile;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use motet_proto::session::{ClientEffect, ClientSession, StoredReceipt};
use motet_proto::{DocumentId, Entry, Message, Position, SpaceId};

use crate::api::Replica;
use crate::engine::Database;
use crate::engine::{Admission, Incoming, Opening, is_known, load_ahead, merge_all, prepare};
use crate::platform;
use crate::store::{Durability, StorageError};

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
pub struct Session {
    database: Arc<Database>,
    connection: u64,
    remote: i64,
    session: ClientSession,
    /// The outbox is to be read after this row.
    loading: Option<i64>,
    applying: VecDeque<Applying>,
    /// Documents may be shown that are not merged.
    unmerged: bool,
    almost_done: Vec<u64>,
    outgoing: VecDeque<Message>,
    /// Documents that are to be compacted, by their tokens.
    compacting: HashMap<u64, DocumentId>,
    next_token: u64,
    asked: HashSet<DocumentId>,
    done: Vec<u64>,
    ended: Option<String>,
}

/// A batch on its way into the store.
enum Applying {
    Arrived(Vec<Entry>, Vec<StoredReceipt>, Option<Position>),
    Prepared(Incoming, Vec<StoredReceipt>, Option<Position>),
}

impl Session {
    /// Begins a session with the relay at `url`.
    ///
    /// # Errors
    /// As the disk has them.
    pub fn begin(replica: &Replica, url: &str, live: bool, now: Duration) -> Result<Self, StorageError> {
        let database = replica.database().clone();
        let (url, at) = (url.to_owned(), database.shared.now_ms());
        let (remote, (position, reseeding)) = database.writer.run(Durability::Full, move |tx, core| {
            let remote = core.use_remote(tx, &url, at)?;
            Ok::<_, StorageError>((remote, core.begin_session(tx, remote, None)?))
        })?;
        let (device, agent) = (database.shared.device, "motet/simulated".to_owned());
        let session = ClientSession::new(device, SpaceId::DEFAULT, agent, position, reseeding, live, now);
        let mut begun = Self {
            connection: database.shared.send_slot.begin(),
            database,
            remote,
            session,
            loading: None,
            applying: VecDeque::new(),
            unmerged: true,
            almost_done: Vec::new(),
            outgoing: VecDeque::new(),
            compacting: HashMap::new(),
            next_token: 1,
            asked: HashSet::new(),
            done: Vec::new(),
            ended: None,
        };
        begun.carry_out(now)?;
        Ok(begun)
    }

    /// Asks for a full round.
    ///
    /// # Errors
    /// As the disk has them; the session is to be dropped then.
    pub fn request_round(&mut self, round: u64, now: Duration) -> Result<(), StorageError> {
        self.session.request_round(round, now);
        self.carry_out(now)
    }

    /// Syncs one document of `pieces` out of turn.
    ///
    /// # Errors
    /// As the disk has them; the session is to be dropped then.
    pub fn sync_document(&mut self, id: &str, now: Duration) -> Result<(), StorageError> {
        let document = DocumentId::derive(SpaceId::DEFAULT, "pieces", id);
        let token = self.take_token();
        self.session.sync_document(token, document, now);
        self.carry_out(now)
    }

    /// Compacts one document of `pieces`, if that is worth it.
    ///
    /// # Errors
    /// As the disk has them; the session is to be dropped then.
    pub fn compact(&mut self, id: &str, now: Duration) -> Result<(), StorageError> {
        let document = DocumentId::derive(SpaceId::DEFAULT, "pieces", id);
        let token = self.take_token();
        self.compacting.insert(token, document);
        self.session.list_document(token, document, now);
        self.carry_out(now)
    }

    fn take_token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// A message has arrived.
    ///
    /// # Errors
    /// As the disk has them; the session is to be dropped then.
    pub fn take(&mut self, message: Message, now: Duration) -> Result<(), StorageError> {
        self.session.handle_message(message, now);
        self.carry_out(now)
    }

    /// The app has written.
    ///
    /// # Errors
    /// As the disk has them; the session is to be dropped then.
    pub fn outbox_changed(&mut self, now: Duration) -> Result<(), StorageError> {
        self.session.handle_outbox_changed(now);
        self.carry_out(now)
    }

    /// Time has passed.
    ///
    /// # Errors
    /// As the disk has them; the session is to be dropped then.
    pub fn pass_time(&mut self, now: Duration) -> Result<(), StorageError> {
        self.session.handle_timeout(now);
        self.carry_out(now)
    }

    /// Does one of the things that are under way in the store; `choice` says which. False if there is none.
    ///
    /// # Errors
    /// As the disk has them; the session is to be dropped then.
    pub fn work(&mut self, choice: u64, now: Duration) -> Result<bool, StorageError> {
        let is_read = self.session.is_idle() || !self.almost_done.is_empty();
        let merges = self.unmerged && is_read && self.applying.is_empty();
        let mut choices = Vec::new();
        choices.extend(self.loading.map(|_| Work::Load));
        choices.extend(self.applying.front().map(|_| Work::Apply));
        choices.extend(
            self.applying.iter().any(|a| matches!(a, Applying::Arrived(..))).then_some(Work::Prepare),
        );
        choices.extend(merges.then_some(Work::Merge));
        if choices.is_empty() {
            return Ok(false);
        }
        match choices[(choice % choices.len() as u64) as usize] {
            Work::Load => self.load(now)?,
            Work::Prepare => self.prepare_next()?,
            Work::Apply => self.apply(now)?,
            Work::Merge => {
                self.unmerged = false;
                if merge_all(&self.database.readers, &self.database.writer, &|| {})?.wrote() {
                    self.almost_done.drain(..).for_each(|round| self.session.request_round(round, now));
                }
            }
        }
        self.carry_out(now)?;
        Ok(true)
    }

    /// The next message to send.
    pub fn poll_message(&mut self) -> Option<Message> {
        self.outgoing.pop_front()
    }

    /// A round that is complete.
    pub fn poll_done(&mut self) -> Option<u64> {
        self.done.pop()
    }

    /// Why the session is over, if it is.
    pub fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// When [`pass_time`](Self::pass_time) is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.session.poll_timeout()
    }

    /// More messages would only pile up.
    pub fn is_saturated(&self) -> bool {
        self.session.is_saturated()
    }

    /// Nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.session.is_idle() && !self.unmerged && self.applying.is_empty() && self.loading.is_none()
    }

    fn load(&mut self, now: Duration) -> Result<(), StorageError> {
        let (remote, after) = (self.remote, self.loading.take().unwrap_or_default());
        if let Some(batch) = self.database.shared.send_slot.take(remote, after) {
            self.session.handle_outbox(batch, now);
            return Ok(());
        }
        let load = self
            .database
            .writer
            .run(Durability::Normal, move |tx, core| core.next_batch(tx, remote, after, usize::MAX));
        self.session.handle_outbox(load?, now);
        Ok(())
    }

    fn prepare_next(&mut self) -> Result<(), StorageError> {
        for applying in &mut self.applying {
            let Applying::Arrived(entries, receipts, position) = applying else { continue };
            let keys: Vec<_> = entries.iter().map(|entry| entry.document).collect();
            let known = self.database.readers.read(|tx| tx.known_documents(&keys))?;
            let schemas = self.database.shared.schemas();
            let incoming = prepare(
                std::mem::take(entries),
                Opening { schemas: &schemas, sealer: &*self.database.shared.sealer, is_noted: true },
                |key| !known.contains(&key),
                |key| load_ahead(&self.database.readers, &schemas, key),
            );
            *applying = Applying::Prepared(incoming, std::mem::take(receipts), *position);
            return Ok(());
        }
        Ok(())
    }

    fn apply(&mut self, now: Duration) -> Result<(), StorageError> {
        let remote = self.remote;
        let (incoming, receipts, position) = match self.applying.pop_front() {
            // A few are merged in the transaction at once.
            Some(Applying::Arrived(entries, receipts, position)) => {
                let (schemas, sealer) = (self.database.shared.schemas(), &*self.database.shared.sealer);
                let how = Opening { schemas: &schemas, sealer, is_noted: true };
                (prepare(entries, how, |_| false, |_| None), receipts, position)
            }
            Some(Applying::Prepared(incoming, receipts, position)) => (incoming, receipts, position),
            None => return Ok(()),
        };
        let received = self.database.writer.run(Durability::Normal, move |tx, core| {
            core.receive(tx, remote, incoming, &receipts, position.into())
        })?;
        self.unmerged |= received.unmerged;
        for document in &received.waiting {
            if self.asked.insert(*document) {
                let token = self.take_token();
                self.session.fetch_document(token, *document, now);
            }
        }
        self.session.handle_applied(received.wrote(), now);
        Ok(())
    }

    fn carry_out(&mut self, now: Duration) -> Result<(), StorageError> {
        let remote = self.remote;
        while let Some(effect) = self.session.poll_effect() {
            match effect {
                ClientEffect::Welcomed { account, log, .. } => {
                    let admission =
                        match self.database.readers.read(|tx| is_known(tx, remote, account, log))? {
                            true => Admission::Known,
                            false => self.database.writer.run(Durability::Full, move |tx, core| {
                                core.admit(tx, remote, account, log)
                            })?,
                        };
                    if admission != Admission::Known {
                        self.ended = Some(format!("not let in: {admission:?}"));
                        return Ok(());
                    }
                }
                ClientEffect::Send(message) => self.outgoing.push_back(message),
                ClientEffect::LoadOutbox { after_row } => self.loading = Some(after_row),
                ClientEffect::LoadDocument { token, document, after_row } => {
                    let rows = self.database.writer.run(Durability::Normal, move |tx, core| {
                        core.batch_of(tx, remote, document, after_row)
                    })?;
                    self.session.handle_document_rows(token, rows, now);
                }
                ClientEffect::Apply { entries, receipts, position, .. } => {
                    self.applying.push_back(Applying::Arrived(entries, receipts, position));
                }
                ClientEffect::ResetPosition => {
                    self.database
                        .writer
                        .run(Durability::Full, move |tx, core| core.reset_position(tx, remote))?;
                    self.session.handle_position_reset(now);
                }
                ClientEffect::Reseed => {
                    self.database
                        .writer
                        .run(Durability::Full, move |tx, core| core.finish_reseed(tx, remote))?;
                    self.session.handle_reseeded(now);
                }
                ClientEffect::Listed { token, listed } => {
                    let document = self.compacting.remove(&token);
                    let compacted = document.map_or(Ok(None), |document| {
                        self.database.writer.run(Durability::Normal, move |tx, core| {
                            core.compact(tx, remote, document, &listed)
                        })
                    });
                    if let Some(snapshot) = compacted? {
                        self.session.push_unqueued(token, snapshot, now);
                    }
                }
                ClientEffect::NotTaken { .. } => self.session.release_pushes(now),
                ClientEffect::DocumentDone { .. } | ClientEffect::Presence(_) => {}
                ClientEffect::RoundDone { round } => self.almost_done.push(round),
                ClientEffect::End(reason) => self.ended = Some(reason.to_string()),
            }
        }
        if !self.unmerged {
            self.done.append(&mut self.almost_done);
        }
        self.database.shared.send_slot.expect(self.connection, remote, self.session.waits_after());
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.database.shared.send_slot.end(self.connection);
    }
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Load,
    Prepare,
    Apply,
    Merge,
}
