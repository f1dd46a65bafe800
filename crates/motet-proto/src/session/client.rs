//! The device's side of a session.

mod applying;
mod documents;
mod effects;
mod rounds;

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use crate::ids::{DeviceId, EntryId, SpaceId};
use crate::limits;
use crate::message::{ErrorCode, Hello, Message, Page, Ping, Pull, Push, Welcome};
use crate::planted::{Bug, is_planted};
use crate::position::Position;
use crate::presence::Presence;
use applying::{Applying, Held, Inbound};
use documents::Documents;
pub use documents::NO_ROW;
pub use effects::{ClientEffect, EndReason, OutboxBatch, OutboxItem, StoredReceipt};
use rounds::Round;

/// The device's side of one connection to one space. See the [module](super) for the conversation.
#[derive(Debug)]
pub struct ClientSession {
    state: State,
    live: bool,
    /// Read up to here, though perhaps not applied yet.
    position: Option<Position>,
    /// The last position that was handed out to be kept: it never goes back.
    handed_out: Option<Position>,
    resetting: bool,
    /// The reset waits until what was read before is applied.
    reset_due: bool,
    /// The log is the one that was written before, or nothing was. Until that is known nothing is sent: a lost log
    /// must not get the end of a history whose beginning it lacks.
    confirmed: bool,
    /// The log was lost and is being read from the start; what it lacks is queued when that is done.
    reseeding: bool,

    pull: Option<u32>,
    /// Where the last pull began.
    pulled_after: Option<Position>,
    want_pull: bool,
    /// There is more of the log than what has arrived.
    behind: bool,
    next_id: u32,
    /// Pulls from a known position to the end, begun and applied.
    pulls_begun: u64,
    pulls_applied: u64,

    last_row: i64,
    loading: bool,
    want_load: bool,
    /// Nothing is sent for the time being: the relay has just said that it takes no more.
    holds: bool,
    loads_begun: u64,
    in_flight: VecDeque<Sent>,
    documents: Documents,

    inbox: VecDeque<Inbound>,
    /// The entries that were received last: a page that was asked for and one that comes by itself may cross, and bring the same.
    recent: VecDeque<EntryId>,
    /// Answers to pushes that are not settled yet. They are only together with a position that lies behind what was pushed: then,
    /// whatever log is found later, either it holds that or it refuses the position.
    held: Vec<Held>,
    /// Sequence number up to which a position is kept or handed out.
    reached: u64,
    /// How often the relay has refused a position in this session.
    resets: u32,
    applying: VecDeque<Applying>,

    rounds: Vec<Round>,
    /// Where this device is.
    presence: Option<Presence>,
    effects: VecDeque<ClientEffect>,

    /// Over how long devices are to come back, as the relay has named it.
    window_ms: Option<u32>,
    last_heard: Duration,
    awaiting_since: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Greeting,
    Ready,
    Ended,
}

/// A push that is not settled yet.
#[derive(Debug)]
struct Sent {
    push: u32,
    rows: Vec<i64>,
    /// What the log may bring back before it is settled.
    ids: Vec<EntryId>,
}

impl ClientSession {
    /// Starts a session on an open connection and sends the greeting. `position` is what the device has applied;
    /// `reseeding` that an earlier session has reset it and did not come to the end of the log; `live` asks for
    /// entries as they commit.
    pub fn new(
        device: DeviceId,
        space: SpaceId,
        agent: String,
        position: Option<Position>,
        reseeding: bool,
        live: bool,
        now: Duration,
    ) -> Self {
        let hello = Hello {
            version_min: limits::VERSION_MIN,
            version_max: limits::VERSION_MAX,
            device,
            space,
            agent,
            account: None,
            log: None,
        };
        Self {
            state: State::Greeting,
            live,
            position,
            handed_out: None,
            resetting: false,
            reset_due: false,
            confirmed: position.is_none() && !reseeding,
            reseeding,
            pull: None,
            pulled_after: None,
            want_pull: true,
            behind: false,
            next_id: 1,
            pulls_begun: 0,
            pulls_applied: 0,
            last_row: 0,
            loading: false,
            want_load: true,
            holds: false,
            loads_begun: 0,
            in_flight: VecDeque::new(),
            documents: Documents::default(),
            inbox: VecDeque::new(),
            recent: VecDeque::new(),
            held: Vec::new(),
            reached: position.map_or(0, |position| position.seq),
            resets: 0,
            applying: VecDeque::new(),
            rounds: Vec::new(),
            presence: None,
            effects: VecDeque::from([ClientEffect::Send(Message::Hello(hello))]),
            window_ms: None,
            last_heard: now,
            awaiting_since: Some(now),
        }
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<ClientEffect> {
        self.effects.pop_front()
    }

    /// Sends nothing until [`release_pushes`](Self::release_pushes); what the relay has is received all the same.
    pub fn hold_pushes(&mut self) {
        self.holds = true;
    }

    /// Sends again what waits.
    pub fn release_pushes(&mut self, now: Duration) {
        if std::mem::take(&mut self.holds) {
            self.load_again();
            self.pump(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match self.state {
            State::Ended => None,
            _ => Some(match self.awaiting_since {
                Some(since) => since.max(self.last_heard) + limits::SILENCE,
                None => self.last_heard + limits::PING_AFTER,
            }),
        }
    }

    /// After the session, a device that comes back waits for a random part of this time; `None` if the relay has not named it.
    pub fn window(&self) -> Option<Duration> {
        self.window_ms.map(|ms| Duration::from_millis(ms.into()))
    }

    /// True while more input would only pile up: the driver then leaves it in the socket.
    pub fn is_saturated(&self) -> bool {
        self.inbox.len() + self.documents.unapplied() >= limits::UNAPPLIED_PAGES
    }

    /// True when nothing is under way: everything known is pulled, pushed and applied.
    pub fn is_idle(&self) -> bool {
        self.state == State::Ready
            && self.pull.is_none()
            && !self.want_pull
            && !self.reseeding
            && (!self.want_load || self.holds)
            && !self.loading
            && self.in_flight.is_empty()
            && self.inbox.is_empty()
            && self.held.is_empty()
            && self.applying.is_empty()
            && self.documents.is_empty()
    }

    /// The outbox row after which the next load begins, while nothing but a new row is waited for.
    pub fn waits_after(&self) -> Option<i64> {
        (self.is_idle() && self.confirmed && !self.holds).then_some(self.last_row)
    }

    /// The outbox has a new row.
    pub fn handle_outbox_changed(&mut self, now: Duration) {
        self.want_load = true;
        self.pump(now);
    }

    /// Where this device is, for the others; told as soon as there is somebody to tell it to. Nothing answers it.
    pub fn set_presence(&mut self, presence: Presence) {
        self.presence = Some(presence);
        self.tell_presence();
    }

    /// Answer to [`ClientEffect::LoadOutbox`].
    pub fn handle_outbox(&mut self, batch: OutboxBatch, now: Duration) {
        self.loading = false;
        if self.holds && !batch.items.is_empty() {
            // They are loaded again when they may be sent.
            self.want_load = true;
            return self.pump(now);
        }
        if let Some(last) = batch.items.last() {
            self.last_row = last.row;
            self.push(batch.items, now);
        }
        if batch.more {
            self.want_load = true;
        } else {
            let (barrier, begun) = (self.next_id, self.loads_begun);
            for round in self.rounds.iter_mut().filter(|r| r.push_barrier.is_none() && r.needs_load <= begun)
            {
                round.push_barrier = Some(barrier);
            }
        }
        self.settle_rounds();
        self.pump(now);
    }

    /// A message arrived.
    pub fn handle_message(&mut self, message: Message, now: Duration) {
        if self.state == State::Ended {
            return;
        }
        self.last_heard = now;
        match message {
            Message::Welcome(welcome) if self.state == State::Greeting => {
                if (limits::VERSION_MIN..=limits::VERSION_MAX).contains(&welcome.version) {
                    self.state = State::Ready;
                    self.window_ms = welcome.window_ms;
                    let Welcome { account, log, time_ms, .. } = welcome;
                    // Before anything else is said: the answer may be that this is the wrong account.
                    self.effects.push_back(ClientEffect::Welcomed { account, log, time_ms });
                    self.tell_presence();
                } else {
                    self.end(EndReason::Version(format!("it chose version {}", welcome.version)));
                }
            }
            Message::Ping(ping) => self.effects.push_back(ClientEffect::Send(Message::Pong(ping))),
            Message::Pong(_) => {}
            Message::Error(error) if error.code == ErrorCode::Version => {
                self.end(EndReason::Version(error.message))
            }
            Message::Error(error) => {
                self.window_ms = error.window_ms.or(self.window_ms);
                self.end(EndReason::Relay { code: error.code, message: error.message });
            }
            _ if self.state == State::Greeting => self.end(EndReason::Protocol("no welcome")),
            Message::Presence(presence) => self.effects.push_back(ClientEffect::Presence(presence)),
            Message::Page(page) => self.handle_page(page),
            Message::Receipt(receipt) => self.handle_receipt(receipt),
            Message::NotTaken(not_taken) => self.handle_not_taken(not_taken),
            Message::Fetched(fetched) => self.handle_fetched(fetched),
            Message::Refused(refused) if self.pull == Some(refused.id) && self.position.is_some() => {
                self.pull = None;
                self.resets += 1;
                if self.resets > limits::RESETS_OF_A_SESSION {
                    return self.end(EndReason::Protocol("it refuses its own positions"));
                }
                if is_planted(Bug::RefusedIsJustForgotten) {
                    (self.position, self.handed_out, self.want_pull) = (None, None, true);
                    return self.pump(now);
                }
                self.resetting = true;
                self.reset_due = true;
            }
            Message::Refused(_) => self.end(EndReason::Protocol("refused what was not asked")),
            Message::Hello(_)
            | Message::Welcome(_)
            | Message::Push(_)
            | Message::Pull(_)
            | Message::Fetch(_) => {
                self.end(EndReason::Protocol("a message that only a device sends, or a second welcome"));
            }
        }
        self.pump(now);
    }

    /// The position was forgotten on disk; reading starts over.
    pub fn handle_position_reset(&mut self, now: Duration) {
        self.resetting = false;
        self.confirmed = false;
        self.reseeding = true;
        self.position = None;
        self.recent.clear();
        self.handed_out = None;
        self.reached = 0;
        self.want_pull = true;
        self.pump(now);
    }

    /// What the log lacks is queued.
    pub fn handle_reseeded(&mut self, now: Duration) {
        self.reseeding = false;
        self.confirmed = true;
        self.load_again();
        self.pump(now);
    }

    /// The apply is durable. `wrote`: it has put something into the outbox, which open rounds wait for as well.
    pub fn handle_applied(&mut self, wrote: bool, now: Duration) {
        if wrote {
            self.load_again();
        }
        let Some(done) = self.applying.pop_front() else { return };
        if let Some(pull) = done.pull_finished {
            self.pulls_applied = pull;
            if self.reseeding {
                self.effects.push_back(ClientEffect::Reseed);
            }
        }
        self.in_flight.retain(|sent| !done.pushes.contains(&sent.push));
        self.documents.note_applied(&done.documents);
        self.settle_rounds();
        self.pump(now);
    }

    /// Bytes moved, or the driver itself was not reading: the relay need not be asked whether it is there.
    pub fn handle_progress(&mut self, now: Duration) {
        self.last_heard = now;
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return;
        }
        match self.awaiting_since {
            Some(_) => self.end(EndReason::Silence),
            None => self.send(Message::Ping(Ping { nonce: now.as_millis() as u64 }), now),
        }
    }

    fn handle_page(&mut self, mut page: Page) {
        page.more &= !is_planted(Bug::PageIsTheLast);
        let finishes_pull = match page.id {
            None => None,
            id if id == self.pull => {
                self.pull = None;
                self.behind = page.more;
                self.want_pull |= page.more;
                (!page.more).then_some(self.pulls_begun)
            }
            Some(_) => return self.end(EndReason::Protocol("a page for no pull")),
        };
        if page.after > self.position.map_or(0, |position| position.seq) {
            return self.end(EndReason::Protocol("it left out a part of the log"));
        }
        // A page that came by itself may have brought the same before one that was asked for: that one goes on from where it was asked from.
        let began = if page.id.is_some() { self.pulled_after } else { self.position };
        if page.more && began.is_some_and(|began| page.position.seq <= began.seq) {
            return self.end(EndReason::Protocol("it says that there is more, and does not go on"));
        }
        self.confirmed |= !self.reseeding;
        if self.position.is_some_and(|position| page.after < position.seq) {
            let known: HashSet<_> = self.recent.iter().copied().collect();
            page.entries.retain(|entry| !known.contains(&entry.id));
        }
        let last = page.entries.len().saturating_sub(limits::RECENT_ENTRIES);
        self.recent.extend(page.entries[last..].iter().map(|entry| entry.id));
        let over = self.recent.len().saturating_sub(limits::RECENT_ENTRIES);
        self.recent.drain(..over);
        self.position = Some(page.position);
        self.inbox.push_back(Inbound { page, finishes_pull });
    }

    /// Starts whatever can be started.
    fn pump(&mut self, now: Duration) {
        if self.state != State::Ready {
            return;
        }
        if self.want_pull && self.pull.is_none() && !self.resetting && !self.is_saturated() {
            self.begin_pull(now);
        }
        self.begin_documents(now);
        if self.want_load
            && !self.holds
            && !self.loading
            && (self.confirmed || is_planted(Bug::SendsToAnUnknownLog))
            && self.in_flight.len() < limits::PUSH_WINDOW_BATCHES
        {
            self.want_load = false;
            self.loading = true;
            self.loads_begun += 1;
            self.effects.push_back(ClientEffect::LoadOutbox { after_row: self.last_row });
        }
        if self.applying.len() < limits::APPLIES_UNDER_WAY && self.has_something_to_apply() {
            self.begin_apply();
        }
        if self.reset_due && self.applying.is_empty() && self.inbox.is_empty() {
            self.reset_due = false;
            self.effects.push_back(ClientEffect::ResetPosition);
        }
        self.settle_documents();
        let due = self.pull.is_some()
            || self.documents.is_asked()
            || self.in_flight.iter().any(|sent| !self.is_answered(sent.push));
        self.awaiting_since = if due { self.awaiting_since.or(Some(now)) } else { None };
    }

    fn begin_pull(&mut self, now: Duration) {
        self.want_pull = false;
        self.pulls_begun += 1;
        let id = self.take_id();
        self.pull = Some(id);
        self.pulled_after = self.position;
        self.send(Message::Pull(Pull { id, after: self.position, live: self.live }), now);
    }

    /// Sends rows as one push. Returns its number.
    fn push(&mut self, items: Vec<OutboxItem>, now: Duration) -> u32 {
        let id = self.take_id();
        let ids = items.iter().map(|item| item.entry.id).collect();
        let (rows, entries) = items.into_iter().map(|item| (item.row, item.entry)).unzip();
        self.in_flight.push_back(Sent { push: id, rows, ids });
        self.send(Message::Push(Push { id, entries }), now);
        id
    }

    fn tell_presence(&mut self) {
        if self.live
            && self.state == State::Ready
            && let Some(presence) = self.presence.take()
        {
            self.effects.push_back(ClientEffect::Send(Message::Presence(presence)));
        }
    }

    fn is_answered(&self, push: u32) -> bool {
        self.applying.iter().any(|applying| applying.pushes.contains(&push))
            || self.held.iter().any(|held| held.push == push)
    }

    fn send(&mut self, message: Message, now: Duration) {
        self.awaiting_since.get_or_insert(now);
        self.effects.push_back(ClientEffect::Send(message));
    }

    fn take_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn end(&mut self, reason: EndReason) {
        if self.state != State::Ended {
            self.state = State::Ended;
            self.effects.push_back(ClientEffect::End(reason));
        }
    }
}
