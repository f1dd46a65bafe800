//! Carries out what the state machine of a session asks for.

use futures_util::future::FutureExt;
use motet_proto::message::{ErrorCode, Fetch, Outcome, Rejection};
use motet_proto::session::RelayEffect;
use motet_proto::{Entry, Message, SpaceId, frame};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::{Done, NotStored, Running, beside_others, name_of};
use crate::access::{self, Access, AccessError};
use crate::limits;
use crate::outgoing::Held;
use crate::store::{Appended, LogId, StoreError};

impl Running {
    pub(super) fn carry_out(&mut self) {
        while let Some(effect) = self.session.poll_effect() {
            match effect {
                RelayEffect::Send(message) => self.encode(&message),
                RelayEffect::Open { space } => {
                    if !self.introduce(space) {
                        continue;
                    }
                    self.space = Some(space);
                    self.ask_for_access();
                }
                RelayEffect::Append { push, entries } => {
                    let Some(log) = self.log.clone() else { continue };
                    self.append(log, push, entries);
                }
                RelayEffect::Read { after } => {
                    let Some(log) = self.log.clone() else { continue };
                    let (relay, room) = (self.relay.clone(), self.room());
                    let read = async move {
                        let (held, _turn) = room.await;
                        Done::Read(held, relay.store.read(&log, after).await)
                    };
                    self.under_way.push(read.boxed());
                }
                RelayEffect::ReadDocument(fetch) => {
                    let Some(log) = self.log.clone() else { continue };
                    let (relay, room) = (self.relay.clone(), self.room());
                    let read = async move {
                        let Fetch { document, after, whole, .. } = fetch;
                        let (held, _turn) = room.await;
                        let page = relay.store.read_document(&log, document, after, whole).await;
                        Done::Document(held, fetch, page)
                    };
                    self.under_way.push(read.boxed());
                }
                RelayEffect::Presence(presence) => {
                    self.place = Some(presence).filter(|presence| !presence.sealed.is_empty());
                    self.tell_when_due();
                }
                RelayEffect::Close => self.closing = true,
            }
        }
        if self.is_socket {
            self.held = None;
        }
    }

    /// Finds out what the account may do with the space that the session is about. One question at a time: what changes meanwhile is asked
    /// for when that is answered, so that changes which come faster than answers keep nobody in, and nobody out.
    pub(super) fn ask_for_access(&mut self) {
        let Some(space) = self.space else { return };
        if self.access.is_asked {
            self.access.is_stale = true;
            return;
        }
        (self.access.is_asked, self.access.is_stale, self.access.ask_at) = (true, false, None);
        let (authorizer, who) = (self.relay.access.clone(), self.admitted.who.clone());
        let mut found = access::authorize(authorizer, who, space).boxed();
        match (&mut found).now_or_never() {
            Some(found) => self.take_access(found),
            None => self.under_way.push(found.map(Done::Access).boxed()),
        }
    }

    /// The account may read the space, or not. A session that is open goes on with what it may do now.
    pub(super) fn take_access(&mut self, found: Result<Access, AccessError>) {
        let Some(space) = self.space else { return };
        self.access.is_asked = false;
        match (found, &self.log) {
            (Ok(access), None) => {
                self.access.unknown_since = None;
                self.open(space, access);
            }
            (Ok(access), Some(log)) if *log == access.log(space) => {
                (self.access.found, self.access.unknown_since) = (Some(access), None);
            }
            (Ok(_), Some(_)) => {
                self.session.handle_failure(ErrorCode::Other, "the space has another log now; connect again");
            }
            (Err(error @ AccessError::Forbidden), _) => {
                self.session.handle_failure(ErrorCode::Forbidden, &error.to_string());
            }
            (Err(error @ AccessError::Unavailable), log) => {
                let now = Instant::now();
                let since = *self.access.unknown_since.get_or_insert(now);
                if log.is_none() || !self.is_socket || now - since >= limits::ACCESS_UNKNOWN {
                    return self.session.handle_failure(ErrorCode::Busy, &error.to_string());
                }
                self.access.ask_at = Some(now + limits::ACCESS_ASKED_AGAIN);
            }
        }
        if self.access.is_stale {
            self.ask_for_access();
        }
    }

    fn open(&mut self, space: SpaceId, access: Access) {
        let log = access.log(space);
        // Before the head is read, so that nothing falls between.
        let (hub, present) = self.relay.hub.subscribe(&log);
        self.hub = Some(hub);
        present.iter().for_each(|presence| self.session.handle_presence(presence));
        (self.log, self.access.found) = (Some(log.clone()), Some(access));
        let relay = self.relay.clone();
        self.under_way.push(async move { Done::Opened(relay.store.head(&log).await) }.boxed());
    }

    /// Encodes a message; what was read for it is held until it is sent.
    pub(super) fn encode(&mut self, message: &Message) {
        let frame = encode(message);
        let metrics = &self.relay.metrics;
        metrics.note_sent(entries_of(message).len(), frame.len());
        match message {
            Message::Error(error) => metrics.note_error_sent(name_of(error.code)),
            Message::NotTaken(not_taken) => metrics.note_error_sent(name_of(not_taken.code)),
            _ => {}
        }
        let is_read = self.is_socket && matches!(message, Message::Page(_) | Message::Fetched(_));
        let mut held = if is_read { self.held.take() } else { None };
        held.iter_mut().for_each(|held| held.shrink(frame.len()));
        self.frames.push((frame, held));
    }

    /// Waits for room for what is read, and then for a turn. A `POST` has room for all of its answer: it must not wait for itself.
    pub(super) fn room(
        &self,
    ) -> impl Future<Output = (Option<Held>, Option<OwnedSemaphorePermit>)> + Send + use<> {
        let (relay, account) = (self.relay.clone(), self.admitted.request.account.clone());
        let bytes = match self.is_socket {
            true => Some(limits::READ_BYTES),
            false => self.held.is_none().then_some(limits::POST_ANSWER_BYTES + limits::READ_BYTES),
        };
        async move {
            let mut held = None;
            if let Some(bytes) = bytes {
                held = Some(relay.outgoing.reserve(account.outgoing.clone(), bytes, || relay.limits()).await);
            }
            // It is never closed.
            (held, account.reads.clone().acquire_owned().await.ok())
        }
    }

    /// The session is about a space, and counts from now on. False if the account has too many.
    pub(super) fn introduce(&mut self, space: SpaceId) -> bool {
        let Some(device) = self.device.filter(|_| self.is_socket) else { return true };
        let limits = self.relay.limits();
        self.replaced = self.admitted.request.introduce(device, space, self.id, &limits);
        if self.replaced.is_none() {
            let message = format!("this account has {} sessions open already", limits.sessions_per_account);
            self.session.handle_failure(ErrorCode::Limit, &message);
        }
        self.replaced.is_some()
    }

    /// Appends and tells the other sessions. What cannot be done at once is done in a task of its own: what is durable is announced
    /// even if the connection that brought it is gone by then.
    pub(super) fn append(&mut self, log: LogId, push: u32, mut entries: Vec<Entry>) {
        let Some(access) = self.access.found.as_ref().filter(|access| access.may_write) else {
            let message = "this account may read this space, and not write to it";
            return self.session.handle_not_appended(push, None, ErrorCode::Forbidden, message);
        };
        let forbidden: Vec<bool> = entries.iter().map(|entry| !access.allows(entry)).collect();
        entries.retain(|entry| access.allows(entry));
        let (relay, id, received) = (self.relay.clone(), self.id, Instant::now());
        let mut append = relay.store.append(log.clone(), entries);
        let tell = move |appended: Result<Appended, StoreError>| {
            let appended = appended?;
            let (mut outcome, failed) = (appended.outcome.clone(), appended.failed.clone());
            if failed.is_none() {
                relay.metrics.note_push(received.elapsed());
            }
            relay.hub.publish(&log, id, appended);
            for (n, _) in forbidden.iter().enumerate().filter(|(_, forbidden)| **forbidden) {
                let message = "this account may not have documents erased from this space";
                let rejected = Outcome::Rejected(Rejection::Forbidden, message.into());
                outcome.outcomes.insert(n.min(outcome.outcomes.len()), rejected);
            }
            match failed {
                None => Ok(outcome),
                Some(error) => Err(NotStored { error, appended: outcome.appended }),
            }
        };
        if let Some(appended) = (&mut append).now_or_never() {
            self.others_first = true;
            return self.take_done(Done::Appended(push, tell(appended)));
        }
        let task = tokio::spawn(async move { tell(append.await) });
        let failed = |e: tokio::task::JoinError| Err(StoreError::Failed(e.to_string()).into());
        let done = task.map(move |outcome| Done::Appended(push, outcome.unwrap_or_else(failed)));
        self.under_way.push(done.boxed());
    }
}

/// Encodes a message. Only those with entries are large.
fn encode(message: &Message) -> Vec<u8> {
    beside_others(entries_of(message).iter().map(Entry::size).sum(), || frame::encode(message))
}

fn entries_of(message: &Message) -> &[Entry] {
    match message {
        Message::Page(page) => &page.entries,
        Message::Fetched(fetched) => &fetched.entries,
        _ => &[],
    }
}
