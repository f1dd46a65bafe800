//! One document out of turn: opened while thousands are under way, sent before the rest of the outbox, or looked at because its
//! entries may be worth one snapshot. It moves no position: what is read here comes again in its turn, and is known then.

use std::collections::VecDeque;
use std::time::Duration;

use super::{ClientEffect, ClientSession, EndReason, OutboxItem};
use crate::entry::Entry;
use crate::ids::DocumentId;
use crate::limits;
use crate::message::{Fetch, Fetched, Listed, Message};

/// Row of an entry that stands in no outbox: nothing is lost if it does not arrive.
pub const NO_ROW: i64 = 0;

/// What is under way for single documents.
#[derive(Debug, Default)]
pub(super) struct Documents {
    wanted: Vec<Wanted>,
    /// Entries that have arrived; with the token if these are all.
    arrived: VecDeque<(Vec<Entry>, Option<u64>)>,
}

#[derive(Debug)]
struct Wanted {
    token: u64,
    document: DocumentId,
    /// Otherwise only which entries there are.
    whole: bool,
    /// The question that is under way.
    fetch: Option<u32>,
    after: u64,
    listed: Vec<Listed>,
    /// Everything has arrived; and is applied.
    complete: bool,
    applied: bool,
    /// What goes out before anything else that is loaded, and the pushes that must be answered.
    sending: Sending,
    pushes: Vec<u32>,
    /// Something of that was rejected.
    rejected: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Sending {
    Nothing,
    /// The rows of the document after this one. They are loaded only when they can go out: until then they may be dropped.
    RowsAfter(i64),
    Loading,
    Aside(Box<Entry>),
}

impl Documents {
    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.arrived.is_empty()
    }

    /// A question is under way.
    pub(super) fn is_asked(&self) -> bool {
        self.wanted.iter().any(|wanted| wanted.fetch.is_some())
    }

    /// Answers that are not handed out to be applied.
    pub(super) fn unapplied(&self) -> usize {
        self.arrived.len()
    }

    pub(super) fn take_arrived(&mut self, entries: &mut Vec<Entry>, complete: &mut Vec<u64>) {
        for (mut arrived, token) in self.arrived.drain(..) {
            entries.append(&mut arrived);
            complete.extend(token);
        }
    }

    /// The relay does not take something of a push.
    pub(super) fn note_rejected(&mut self, push: u32) {
        self.wanted
            .iter_mut()
            .filter(|wanted| wanted.pushes.contains(&push))
            .for_each(|wanted| wanted.rejected = true);
    }

    pub(super) fn note_applied(&mut self, tokens: &[u64]) {
        self.wanted
            .iter_mut()
            .filter(|wanted| tokens.contains(&wanted.token))
            .for_each(|wanted| wanted.applied = true);
    }
}

impl ClientSession {
    /// Sends the rows of a document before everything else, and reads what the log holds of it; answered by
    /// [`ClientEffect::DocumentDone`] unless the session ends first. The rows are loaded once more in their turn, unless they are
    /// settled by then.
    pub fn sync_document(&mut self, token: u64, document: DocumentId, now: Duration) {
        let wanted = Wanted::new(token, document, true);
        self.documents.wanted.push(Wanted { sending: Sending::RowsAfter(NO_ROW), ..wanted });
        self.pump(now);
    }

    /// Reads what the log holds of a document; answered by [`ClientEffect::DocumentDone`] unless the session ends first.
    pub fn fetch_document(&mut self, token: u64, document: DocumentId, now: Duration) {
        self.documents.wanted.push(Wanted::new(token, document, true));
        self.pump(now);
    }

    /// Asks which entries the log holds of a document; answered by [`ClientEffect::Listed`] unless the session ends first.
    pub fn list_document(&mut self, token: u64, document: DocumentId, now: Duration) {
        self.documents.wanted.push(Wanted::new(token, document, false));
        self.pump(now);
    }

    /// Sends an entry that stands in no outbox; answered by [`ClientEffect::DocumentDone`] unless the session ends first.
    pub fn push_unqueued(&mut self, token: u64, entry: Entry, now: Duration) {
        let wanted = Wanted::new(token, entry.document, false);
        let sending = Sending::Aside(Box::new(entry));
        self.documents.wanted.push(Wanted { complete: true, applied: true, sending, ..wanted });
        self.pump(now);
    }

    /// Answer to [`ClientEffect::LoadDocument`]: the next of its rows, none if there are no more.
    pub fn handle_document_rows(&mut self, token: u64, rows: Vec<OutboxItem>, now: Duration) {
        let Some(at) = self.documents.wanted.iter().position(|wanted| wanted.token == token) else { return };
        match rows.last() {
            None => self.documents.wanted[at].sending = Sending::Nothing,
            Some(last) => {
                self.documents.wanted[at].sending = Sending::RowsAfter(last.row);
                let id = self.push(rows, now);
                self.documents.wanted[at].pushes.push(id);
            }
        }
        self.pump(now);
    }

    /// Asks and sends as far as there is room.
    pub(super) fn begin_documents(&mut self, now: Duration) {
        for at in 0..self.documents.wanted.len() {
            if !self.confirmed || self.in_flight.len() >= limits::PUSH_WINDOW_BATCHES {
                break;
            }
            let wanted = &mut self.documents.wanted[at];
            match std::mem::replace(&mut wanted.sending, Sending::Nothing) {
                Sending::RowsAfter(after_row) => {
                    wanted.sending = Sending::Loading;
                    let Wanted { token, document, .. } = *wanted;
                    self.effects.push_back(ClientEffect::LoadDocument { token, document, after_row });
                }
                Sending::Aside(entry) => {
                    let id = self.push(vec![OutboxItem { row: NO_ROW, entry: *entry }], now);
                    self.documents.wanted[at].pushes.push(id);
                }
                other => wanted.sending = other,
            }
        }
        let is_asked = |wanted: &&Wanted| wanted.fetch.is_some();
        let room = limits::FETCHES_IN_FLIGHT - self.documents.wanted.iter().filter(is_asked).count();
        let waiting: Vec<usize> = (0..self.documents.wanted.len())
            .filter(|at| {
                let wanted = &self.documents.wanted[*at];
                wanted.fetch.is_none() && !wanted.complete
            })
            .take(room)
            .collect();
        for at in waiting {
            let id = self.take_id();
            let wanted = &mut self.documents.wanted[at];
            wanted.fetch = Some(id);
            let Wanted { document, after, whole, .. } = *wanted;
            self.send(Message::Fetch(Fetch { id, document, after, whole }), now);
        }
    }

    pub(super) fn handle_fetched(&mut self, fetched: Fetched) {
        let asked = self.documents.wanted.iter().position(|wanted| wanted.fetch == Some(fetched.id));
        let Some(at) = asked else {
            return self.end(EndReason::Protocol("a document that was not asked for"));
        };
        let wanted = &mut self.documents.wanted[at];
        let fits = fetched.entries.iter().all(|entry| entry.document == wanted.document)
            && (if wanted.whole { fetched.listed.is_empty() } else { fetched.entries.is_empty() })
            && (!fetched.more || fetched.last > wanted.after);
        if !fits {
            return self.end(EndReason::Protocol("a document that does not fit the question"));
        }
        wanted.fetch = None;
        wanted.after = fetched.last;
        wanted.listed.extend(fetched.listed);
        wanted.complete = !fetched.more || wanted.listed.len() >= limits::SNAPSHOT_SUPERSEDES;
        if wanted.whole {
            let token = wanted.complete.then_some(wanted.token);
            self.documents.arrived.push_back((fetched.entries, token));
        } else if wanted.complete {
            let Wanted { token, mut listed, .. } = self.documents.wanted.remove(at);
            listed.truncate(limits::SNAPSHOT_SUPERSEDES);
            // Of a log that is not known to be the one that was read, nothing is concluded.
            listed.retain(|_| self.confirmed && !self.resetting);
            self.effects.push_back(ClientEffect::Listed { token, listed });
        }
    }

    pub(super) fn settle_documents(&mut self) {
        // A receipt is settled when the log is read up to it; while that takes long, the answer is enough.
        let is_answered = |push: &u32| {
            (self.behind && self.is_answered(*push))
                || !self.in_flight.iter().any(|under_way| under_way.push == *push)
        };
        let is_done = |wanted: &&Wanted| {
            wanted.applied && wanted.sending == Sending::Nothing && wanted.pushes.iter().all(is_answered)
        };
        let done: Vec<_> =
            self.documents.wanted.iter().filter(is_done).map(|done| (done.token, !done.rejected)).collect();
        self.documents.wanted.retain(|wanted| done.iter().all(|(token, _)| *token != wanted.token));
        let tell = |(token, taken)| ClientEffect::DocumentDone { token, taken };
        self.effects.extend(done.into_iter().map(tell));
    }
}

impl Wanted {
    fn new(token: u64, document: DocumentId, whole: bool) -> Self {
        Self {
            token,
            document,
            whole,
            fetch: None,
            after: 0,
            listed: Vec::new(),
            complete: false,
            applied: false,
            sending: Sending::Nothing,
            pushes: Vec::new(),
            rejected: false,
        }
    }
}
