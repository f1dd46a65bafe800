//! The relay's side of a session.

mod effects;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Duration;

pub use self::effects::{AppendOutcome, CommittedRun, DocumentPage, Opened, ReadOutcome, RelayEffect};
use crate::entry::{Entry, Kind};
use crate::ids::{AccountId, DeviceId, EntryId, LogName};
use crate::limits;
use crate::message::{
    ErrorCode, ErrorMessage, Fetch, Fetched, Message, NotTaken, Page, Ping, Pull, Push, Receipt, Refused,
    Welcome,
};
use crate::planted::{Bug, is_planted};
use crate::position::Position;
use crate::presence::Presence;

/// The relay's side of one connection. See the [module](super) for the conversation.
#[derive(Debug)]
pub struct RelaySession {
    id: u64,
    agent: String,
    state: State,
    /// The protocol version that both sides speak.
    version: u16,
    /// Which account and log the device means.
    meant_account: Option<AccountId>,
    meant_log: Option<LogName>,
    /// The device holds everything up to here, or has been sent it; `None` before the first pull.
    cursor: Option<Position>,
    live: bool,
    /// Last sequence number of the log as far as this session knows.
    head: u64,
    /// Runs were dropped: there may be more than it knows.
    lagged: bool,
    /// Sequence numbers of entries that this session pushed and that lie after the cursor, as ranges.
    own: VecDeque<(u64, u64)>,
    /// What this session pushes and is not answered yet: a read may find it before its place is known here.
    pushed: Vec<(u32, Vec<EntryId>)>,
    reading: Option<Reading>,
    waiting_pull: Option<Pull>,
    device: Option<DeviceId>,
    /// Where others are, until the device listens; and of whom it was told that they are somewhere.
    present: BTreeMap<DeviceId, Presence>,
    told: BTreeSet<DeviceId>,
    fetches: usize,
    /// Over how long its devices are to come back.
    window: Option<Duration>,
    effects: VecDeque<RelayEffect>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Greeting,
    Opening,
    Ready,
    Ended,
}

#[derive(Debug)]
struct Reading {
    /// The pull that is answered; `None` for a live reader that had fallen behind.
    pull: Option<Pull>,
    /// Sequence number after which it reads.
    after: u64,
    /// What was known to be in the log when it began.
    head: u64,
}

impl RelaySession {
    /// Starts a session on an open, authenticated connection. `id` tells the sessions of one relay apart, `agent`
    /// names the relay's software.
    pub fn new(id: u64, agent: String) -> Self {
        Self {
            id,
            agent,
            state: State::Greeting,
            version: limits::VERSION_MAX,
            meant_account: None,
            meant_log: None,
            cursor: None,
            live: false,
            head: 0,
            lagged: false,
            own: VecDeque::new(),
            pushed: Vec::new(),
            reading: None,
            waiting_pull: None,
            device: None,
            present: BTreeMap::new(),
            told: BTreeSet::new(),
            fetches: 0,
            window: None,
            effects: VecDeque::new(),
        }
    }

    /// Names the time over which devices are to come back if their connections are lost.
    pub fn set_window(&mut self, window: Duration) {
        self.window = Some(window);
    }

    fn window_ms(&self) -> Option<u32> {
        self.window.map(|window| u32::try_from(window.as_millis()).unwrap_or(u32::MAX))
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<RelayEffect> {
        self.effects.pop_front()
    }

    /// True while the session has enough to do: the driver then leaves input in the socket.
    pub fn is_saturated(&self) -> bool {
        self.pushed.len() >= limits::PUSHES_IN_FLIGHT
            || self.fetches >= limits::FETCHES_IN_FLIGHT
            || self.waiting_pull.is_some()
    }

    /// A message arrived.
    pub fn handle_message(&mut self, message: Message) {
        match (self.state, message) {
            (State::Ended, _) | (_, Message::Pong(_)) => {}
            (_, Message::Ping(ping)) => self.send(Message::Pong(ping)),
            (State::Greeting, Message::Hello(hello)) => {
                let newest = hello.version_max.min(limits::VERSION_MAX);
                if newest < hello.version_min.max(limits::VERSION_MIN) {
                    let message = format!(
                        "this relay speaks versions {} to {}, the device {} to {}; update the older one",
                        limits::VERSION_MIN,
                        limits::VERSION_MAX,
                        hello.version_min,
                        hello.version_max
                    );
                    return self.fail(ErrorCode::Version, message);
                }
                self.state = State::Opening;
                self.version = newest;
                (self.meant_account, self.meant_log) = (hello.account, hello.log);
                self.device = Some(hello.device);
                self.effects.push_back(RelayEffect::Open { space: hello.space });
            }
            (State::Ready, Message::Push(push)) => self.handle_push(push),
            (State::Ready, Message::Pull(pull)) => {
                if self.waiting_pull.is_some() {
                    return self
                        .fail(ErrorCode::Protocol, "a second pull before the first was answered".into());
                }
                self.waiting_pull = Some(pull);
                self.pump();
            }
            (State::Ready, Message::Fetch(fetch)) => {
                self.fetches += 1;
                self.effects.push_back(RelayEffect::ReadDocument(fetch));
            }
            (State::Ready, Message::Presence(presence)) => match self.device {
                Some(device) if presence.is_small() => {
                    self.effects.push_back(RelayEffect::Presence(Presence { device, ..presence }));
                }
                _ => self.fail(ErrorCode::Protocol, "a place that is too large".into()),
            },
            // The peer's last words; there is nobody left to answer.
            (_, Message::Error(_)) => {
                self.state = State::Ended;
                self.effects.push_back(RelayEffect::Close);
            }
            _ => self.fail(ErrorCode::Protocol, "a message that is not expected here".into()),
        }
    }

    /// Bytes arrived that are no message.
    pub fn handle_bad_frame(&mut self, reason: String) {
        self.fail(ErrorCode::Protocol, reason);
    }

    /// Answer to [`RelayEffect::Open`].
    pub fn handle_opened(&mut self, opened: Opened) {
        if self.state == State::Opening {
            let Opened { head, account, log, time_ms } = opened;
            let is_other_account =
                account.is_some() && self.meant_account.is_some() && self.meant_account != account;
            if is_other_account || self.meant_log.is_some() && self.meant_log != log {
                let message = "another account or another log is here than the device means".into();
                return self.fail(ErrorCode::Other, message);
            }
            self.state = State::Ready;
            self.head = self.head.max(head);
            self.send(Message::Welcome(Welcome {
                version: self.version,
                head,
                agent: self.agent.clone(),
                window_ms: self.window_ms(),
                account,
                log,
                time_ms,
            }));
        }
    }

    /// Answer to [`RelayEffect::Append`].
    pub fn handle_appended(&mut self, push: u32, outcome: AppendOutcome) {
        self.take_answered(push);
        let (mut position, after) = (None, self.cursor.map_or(0, |cursor| cursor.seq));
        if let Some((first, last)) = outcome.appended {
            self.head = self.head.max(last.seq);
            let contiguous = self.reading.is_none()
                && self
                    .cursor
                    .is_some_and(|cursor| cursor.seq + 1 == first || is_planted(Bug::ReceiptSkipsOthers));
            if contiguous {
                self.cursor = Some(last);
                position = Some(last);
            } else {
                self.remember_own(first, last.seq);
            }
        }
        self.send(Message::Receipt(Receipt { id: push, outcomes: outcome.outcomes, position, after }));
        self.pump();
    }

    /// Answer to [`RelayEffect::Append`]: not all of it was stored, and the device is told that nothing was. `appended` is what was stored
    /// all the same, first and last.
    pub fn handle_not_appended(
        &mut self,
        push: u32,
        appended: Option<(u64, Position)>,
        code: ErrorCode,
        message: &str,
    ) {
        self.take_answered(push);
        if self.state == State::Ready {
            let message = message.to_owned();
            self.send(Message::NotTaken(NotTaken { id: push, code, message }));
        }
        // It is read like what others have stored: the device has no receipt for it.
        self.head = self.head.max(appended.map_or(0, |(_, last)| last.seq));
        self.pump();
    }

    /// Answer to [`RelayEffect::Read`].
    pub fn handle_read(&mut self, outcome: ReadOutcome) {
        let Some(reading) = self.reading.take() else {
            return;
        };
        match outcome {
            ReadOutcome::Page { position, .. }
                if reading.pull.is_none() && position.seq <= reading.after && position.seq < reading.head =>
            {
                // What was committed is not found any more. Read again and again, it would never be.
                self.fail(ErrorCode::Damaged, "entries that were stored cannot be found in the log".into());
            }
            ReadOutcome::Page { entries, position, head } => {
                self.head = self.head.max(head);
                let after = reading.after;
                self.cursor = Some(position);
                let more = position.seq < head;
                if let Some(pull) = &reading.pull {
                    self.live = pull.live && !more;
                }
                let own = &self.own;
                let pushed: HashSet<EntryId> = self.pushed.iter().flat_map(|(_, ids)| ids).copied().collect();
                let is_pushed = |entry: &Entry| entry.kind != Kind::Erased && pushed.contains(&entry.id);
                let is_before = |seq: u64| own.back().is_some_and(|(_, last)| seq <= *last);
                let foreign = |seq: u64| match is_planted(Bug::OwnEntriesTooWide) {
                    true => !is_before(seq),
                    false => !own.iter().any(|(first, last)| (*first..=*last).contains(&seq)),
                };
                let entries = entries.into_iter().filter(|(seq, entry)| foreign(*seq) && !is_pushed(entry));
                let entries = entries.map(|(_, entry)| entry).collect();
                self.forget_own(position.seq);
                let id = reading.pull.map(|pull| pull.id);
                let head = self.head;
                self.send(Message::Page(Page { id, entries, position, more, head, after }));
                if self.live {
                    let present = std::mem::take(&mut self.present);
                    present.into_values().for_each(|presence| self.tell_presence(presence));
                }
            }
            ReadOutcome::Refused => match reading.pull {
                Some(pull) => self.send(Message::Refused(Refused { id: pull.id })),
                // The log was replaced under a live reader: the next session sorts it out.
                None => self.fail(ErrorCode::Internal, "the log has changed; connect again".into()),
            },
        }
        self.pump();
    }

    /// Answer to [`RelayEffect::ReadDocument`].
    pub fn handle_document(&mut self, fetch: Fetch, page: DocumentPage) {
        self.fetches = self.fetches.saturating_sub(1);
        let DocumentPage { entries, listed, last, more } = page;
        if self.state == State::Ready {
            self.send(Message::Fetched(Fetched { id: fetch.id, entries, listed, last, more }));
        }
    }

    /// Some session committed entries to this log.
    pub fn handle_committed(&mut self, run: &CommittedRun) {
        if run.origin == self.id {
            return;
        }
        self.head = self.head.max(run.position.seq);
        let next = self.cursor.filter(|cursor| cursor.seq + 1 == run.first);
        // A run of another log would fit by its number: that one was lost, and has grown as far again. The store refuses the cursor then.
        let chained =
            |entries: &[Entry]| next.map(|at| entries.iter().fold(at, |at, entry| at.next(entry.id)));
        let is_of_another_log = run
            .entries
            .as_ref()
            .is_some_and(|entries| chained(entries).is_some_and(|position| position != run.position));
        self.lagged |= is_of_another_log;
        let idle = self.live && self.reading.is_none() && self.waiting_pull.is_none();
        if let Some(entries) = &run.entries
            && next.is_some()
            && !is_of_another_log
            && idle
        {
            let after = self.cursor.map_or(0, |cursor| cursor.seq);
            self.cursor = Some(run.position);
            let page = Page {
                id: None,
                entries: entries.to_vec(),
                position: run.position,
                more: false,
                head: self.head,
                after,
            };
            self.send(Message::Page(page));
        }
        self.pump();
    }

    /// Another device of the log tells where it is. Only who stays connected hears of it.
    pub fn handle_presence(&mut self, presence: &Presence) {
        if self.state == State::Ended || Some(presence.device) == self.device {
            return;
        }
        if self.live {
            return self.tell_presence(presence.clone());
        }
        if presence.sealed.is_empty() {
            self.present.remove(&presence.device);
        } else if self.present.len() < limits::PRESENT_DEVICES || self.present.contains_key(&presence.device)
        {
            self.present.insert(presence.device, presence.clone());
        }
    }

    /// The hub dropped news of who is where: this is everybody who is somewhere now.
    pub fn handle_everybody<'p>(&mut self, everybody: impl Iterator<Item = &'p Presence>) {
        let everybody: BTreeMap<DeviceId, &Presence> = everybody.map(|p| (p.device, p)).collect();
        let known = self.told.iter().chain(self.present.keys());
        let gone: Vec<_> = known.filter(|device| !everybody.contains_key(device)).copied().collect();
        gone.into_iter().for_each(|device| self.handle_presence(&Presence::new(device, None)));
        everybody.into_values().for_each(|presence| self.handle_presence(presence));
    }

    /// Asks the device whether it is there; whatever it sends is an answer. It should, within [`limits::SILENCE`].
    pub fn probe(&mut self, nonce: u64) {
        if self.state == State::Ready {
            self.send(Message::Ping(Ping { nonce }));
        }
    }

    /// The hub dropped runs that this session was too slow for: there is more in the log than it has heard of.
    pub fn handle_lagged(&mut self) {
        self.lagged = !is_planted(Bug::LagIsIgnored);
        self.pump();
    }

    /// The store failed, or the relay is stopping.
    pub fn handle_failure(&mut self, code: ErrorCode, message: &str) {
        self.fail(code, message.to_owned());
    }

    fn handle_push(&mut self, push: Push) {
        if push.entries.len() > limits::PUSH_BATCH_ENTRIES {
            return self.fail(ErrorCode::Protocol, format!("a push of {} entries", push.entries.len()));
        }
        self.pushed.push((push.id, push.entries.iter().map(|entry| entry.id).collect()));
        self.effects.push_back(RelayEffect::Append { push: push.id, entries: push.entries });
    }

    /// A push is answered; its entries are own from now on if they were appended by it.
    fn take_answered(&mut self, push: u32) {
        if let Some(at) = self.pushed.iter().position(|(id, _)| *id == push) {
            self.pushed.remove(at);
        }
    }

    fn pump(&mut self) {
        if self.state != State::Ready || self.reading.is_some() {
            return;
        }
        let behind = self.live
            && self.cursor.is_some_and(|cursor| self.lagged || cursor.seq < self.head)
            && !is_planted(Bug::FallenBehindIsForgotten);
        let (after, pull) = match self.waiting_pull.take() {
            Some(pull) => (pull.after, Some(pull)),
            None if behind => (self.cursor, None),
            None => return,
        };
        // The read sees everything that was committed before it began.
        self.lagged = false;
        let (after_seq, head) = (after.map_or(0, |after| after.seq), self.head);
        self.reading = Some(Reading { pull, after: after_seq, head });
        self.effects.push_back(RelayEffect::Read { after });
    }

    fn remember_own(&mut self, first: u64, last: u64) {
        match self.own.back_mut() {
            Some(range) if range.1 + 1 == first => range.1 = last,
            _ => self.own.push_back((first, last)),
        }
        if self.own.len() > limits::OWN_RANGES {
            self.own.pop_front();
        }
    }

    fn forget_own(&mut self, upto: u64) {
        while self.own.front().is_some_and(|(_, last)| *last <= upto) {
            self.own.pop_front();
        }
    }

    fn tell_presence(&mut self, presence: Presence) {
        match presence.sealed.is_empty() {
            true => _ = self.told.remove(&presence.device),
            false => _ = self.told.insert(presence.device),
        }
        self.send(Message::Presence(presence));
    }

    fn send(&mut self, message: Message) {
        self.effects.push_back(RelayEffect::Send(message));
    }

    fn fail(&mut self, code: ErrorCode, message: String) {
        if self.state != State::Ended {
            self.state = State::Ended;
            let window_ms = self.window_ms();
            self.send(Message::Error(ErrorMessage { code, message, window_ms }));
            self.effects.push_back(RelayEffect::Close);
        }
    }
}
