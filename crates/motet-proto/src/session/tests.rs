//! Two devices and a relay in memory: enough to see the conversation, without any IO.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::entry::{Entry, Kind};
use crate::ids::{AccountId, DeviceId, DocumentId, LogName, SpaceId};
use crate::limits;
use crate::message::{ErrorCode, Fetch, Fetched, Hello, Listed, Message, Outcome, Ping};
use crate::position::Position;

/// The relay's side of a device that stays connected and has read an empty log.
fn live_session() -> RelaySession {
    let mut relay = RelaySession::new(1, String::new());
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        device: DeviceId([1; 16]),
        space: SpaceId::DEFAULT,
        agent: String::new(),
        account: None,
        log: None,
    };
    relay.handle_message(Message::Hello(hello));
    relay.handle_opened(Opened::default());
    relay.handle_message(Message::Pull(crate::message::Pull { id: 1, after: None, live: true }));
    relay.handle_read(nothing());
    while relay.poll_effect().is_some() {}
    relay
}

fn nothing() -> ReadOutcome {
    ReadOutcome::Page { entries: Vec::new(), position: Position::start(SpaceId::DEFAULT), head: 0 }
}

/// Found by the simulation: such a session asked the log for more without end.
#[test]
fn a_session_that_was_too_slow_reads_the_log_once_and_is_quiet() {
    let mut relay = live_session();
    relay.handle_lagged();
    assert!(matches!(relay.poll_effect(), Some(RelayEffect::Read { after: Some(_) })));
    relay.handle_read(nothing());
    assert!(matches!(relay.poll_effect(), Some(RelayEffect::Send(Message::Page(_)))));
    assert_eq!(relay.poll_effect(), None);
}

/// A read may find what the same session has just pushed, before the answer to the push tells where it stands.
#[test]
fn what_is_being_pushed_is_not_read_back() {
    let mut relay = live_session();
    let entry = |text: &[u8]| {
        let document = DocumentId([0; 16]);
        Entry::new(SpaceId::DEFAULT, document, DeviceId([1; 16]), Kind::Changes, 0, text.to_vec())
    };
    let (own, other) = (entry(b"own"), entry(b"of another"));
    relay.handle_message(Message::Push(crate::message::Push { id: 2, entries: vec![own.clone()] }));
    let start = Position::start(SpaceId::DEFAULT);
    relay.handle_message(Message::Pull(crate::message::Pull { id: 3, after: Some(start), live: true }));
    while relay.poll_effect().is_some() {}
    let position = start.next(own.id).next(other.id);
    relay.handle_read(ReadOutcome::Page { entries: vec![(1, own), (2, other.clone())], position, head: 2 });
    let sent = relay.poll_effect();
    let Some(RelayEffect::Send(Message::Page(page))) = &sent else { panic!("{sent:?}") };
    assert_eq!((&page.entries[..], page.position), (&[other][..], position));
}

/// Over `POST` a pull knows nothing of the push before it.
#[test]
fn what_a_device_has_pushed_comes_back_and_is_not_received() {
    for live in [true, false] {
        let mut session = reading_device(live);
        let outcomes = vec![Outcome::Stored(2)];
        let receipt = crate::message::Receipt { id: 2, outcomes, position: None, after: 0 };
        session.handle_message(Message::Receipt(receipt), NOW);
        while session.poll_effect().is_some() {}
        let entry = |payload| {
            let document = DocumentId::derive(SpaceId::DEFAULT, "c", "n");
            Entry::new(SpaceId::DEFAULT, document, DeviceId([1; 16]), Kind::Changes, 0, payload)
        };
        let Message::Page(mut page) = page(if live { None } else { Some(3) }, 0, 2) else { unreachable!() };
        let other = entry(vec![2]);
        page.entries = vec![other.clone(), entry(vec![1])];
        session.handle_message(Message::Page(page), NOW);
        let effects: Vec<_> = std::iter::from_fn(|| session.poll_effect()).collect();
        assert!(
            matches!(&effects[..], [ClientEffect::Apply { entries, receipts, position: Some(at), .. }]
                if *entries == [other] && receipts.len() == 1 && at.seq == 2),
            "{effects:?}"
        );
    }
}

/// A page that was asked for and one that comes by itself may cross: what stands in both is received once.
#[test]
fn of_pages_that_cross_each_entry_is_received_once() {
    for asked_first in [true, false] {
        let mut session = reading_device(true);
        session.request_round(7, NOW);
        let pull = std::iter::from_fn(|| session.poll_effect()).find_map(|effect| match effect {
            ClientEffect::Send(Message::Pull(pull)) => Some(pull.id),
            _ => None,
        });
        let other = Entry::new(
            SpaceId::DEFAULT,
            DocumentId::derive(SpaceId::DEFAULT, "c", "other"),
            DeviceId([2; 16]),
            Kind::Changes,
            0,
            vec![2],
        );
        let ids = if asked_first { [pull, None] } else { [None, pull] };
        let mut received = Vec::new();
        for id in ids {
            let Message::Page(mut page) = page(id, 0, 1) else { unreachable!() };
            page.entries = vec![other.clone()];
            session.handle_message(Message::Page(page), NOW);
            while let Some(effect) = session.poll_effect() {
                if let ClientEffect::Apply { entries, .. } = effect {
                    received.extend(entries);
                    session.handle_applied(false, NOW);
                }
            }
        }
        assert_eq!(received, [other]);
    }
}

/// What was committed and cannot be read any more ends the session, so that nobody reads for ever.
#[test]
fn a_log_that_lacks_what_was_committed_ends_the_session() {
    let mut session = live_session();
    let run =
        CommittedRun { origin: 9, first: 1, position: Position { seq: 3, tag: [3; 16] }, entries: None };
    session.handle_committed(&run);
    let reads = |session: &mut RelaySession| {
        std::iter::from_fn(|| session.poll_effect())
            .filter(|effect| matches!(effect, RelayEffect::Read { .. }))
            .count()
    };
    assert_eq!(reads(&mut session), 1);
    session.handle_read(nothing());
    let effects: Vec<_> = std::iter::from_fn(|| session.poll_effect()).collect();
    let is_damaged = |effect: &RelayEffect| matches!(effect, RelayEffect::Send(Message::Error(error)) if error.code == ErrorCode::Damaged);
    assert!(effects.iter().any(is_damaged), "{effects:?}");
    assert_eq!(reads(&mut session), 0);
}

/// Who went away while a session was too slow for the news does not stay for ever.
#[test]
fn a_session_that_was_too_slow_hears_who_is_where_now() {
    use crate::presence::Presence;
    let at = |n: u8, sealed: &[u8]| Presence { device: DeviceId([n; 16]), suite: 0, sealed: sealed.to_vec() };
    let mut relay = live_session();
    for presence in [at(2, b"here"), at(3, b"there"), at(4, b"gone"), at(4, b"")] {
        relay.handle_presence(&presence);
    }
    while relay.poll_effect().is_some() {}
    let everybody = [at(1, b"itself"), at(3, b"elsewhere"), at(5, b"new")];
    relay.handle_everybody(everybody.iter());
    let told: Vec<_> = std::iter::from_fn(|| relay.poll_effect()).collect();
    let expected = [at(2, b""), at(3, b"elsewhere"), at(5, b"new")];
    assert_eq!(told, expected.map(|presence| RelayEffect::Send(Message::Presence(presence))));
}

const NOW: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Log {
    entries: Vec<(Position, Entry)>,
}

impl Log {
    fn head(&self) -> Position {
        self.entries.last().map_or(Position::start(SpaceId::DEFAULT), |(position, _)| *position)
    }

    fn append(&mut self, entries: Vec<Entry>) -> (AppendOutcome, Vec<Entry>) {
        let (mut outcomes, mut fresh) = (Vec::new(), Vec::new());
        let before = self.head();
        for entry in entries {
            if let Some((position, _)) = self.entries.iter().find(|(_, e)| e.id == entry.id) {
                outcomes.push(Outcome::Stored(position.seq));
                continue;
            }
            let position = self.head().next(entry.id);
            outcomes.push(Outcome::Stored(position.seq));
            fresh.push(entry.clone());
            self.entries.push((position, entry));
        }
        let appended = (!fresh.is_empty()).then(|| (before.seq + 1, self.head()));
        (AppendOutcome { outcomes, appended }, fresh)
    }

    fn read(&self, after: Option<Position>, page: usize) -> ReadOutcome {
        let after = after.unwrap_or(Position::start(SpaceId::DEFAULT));
        let known =
            after.seq == 0 || self.entries.get(after.seq as usize - 1).is_some_and(|(p, _)| *p == after);
        if !known {
            return ReadOutcome::Refused;
        }
        let slice: Vec<_> = self.entries.iter().skip(after.seq as usize).take(page).collect();
        ReadOutcome::Page {
            position: slice.last().map_or(after, |(position, _)| *position),
            entries: slice.into_iter().map(|(p, e)| (p.seq, e.clone())).collect(),
            head: self.head().seq,
        }
    }

    fn read_document(&self, fetch: Fetch, page: usize) -> DocumentPage {
        let is_it = |(position, entry): &&(Position, Entry)| {
            entry.document == fetch.document && position.seq > fetch.after
        };
        let mut found: Vec<_> = self.entries.iter().filter(is_it).collect();
        let more = found.len() > page;
        found.truncate(page);
        let last = found.last().map_or(fetch.after, |(position, _)| position.seq);
        let listed = |(position, entry): &&(Position, Entry)| Listed {
            seq: position.seq,
            id: entry.id,
            bytes: entry.payload.len() as u64,
        };
        match fetch.whole {
            true => {
                let entries = found.into_iter().map(|(_, entry)| entry.clone()).collect();
                DocumentPage { entries, last, more, listed: Vec::new() }
            }
            false => {
                DocumentPage { listed: found.iter().map(listed).collect(), last, more, entries: Vec::new() }
            }
        }
    }
}

struct Device {
    session: ClientSession,
    outbox: VecDeque<OutboxItem>,
    held: Vec<Entry>,
    received: usize,
    position: Option<Position>,
    rounds: Vec<u64>,
    done: Vec<u64>,
    listed: Vec<(u64, Vec<Listed>)>,
    ended: Option<EndReason>,
    resets: usize,
    next_row: i64,
}

impl Device {
    fn new(n: u8, position: Option<Position>) -> Self {
        let device = DeviceId([n; 16]);
        Self {
            session: ClientSession::new(device, SpaceId::DEFAULT, "test".into(), position, false, true, NOW),
            outbox: VecDeque::new(),
            held: Vec::new(),
            received: 0,
            position,
            rounds: Vec::new(),
            done: Vec::new(),
            listed: Vec::new(),
            ended: None,
            resets: 0,
            next_row: 1,
        }
    }

    fn write(&mut self, text: &str) {
        let entry = Entry::new(
            SpaceId::DEFAULT,
            DocumentId([0; 16]),
            DeviceId([9; 16]),
            Kind::Changes,
            0,
            text.into(),
        );
        self.held.push(entry.clone());
        self.outbox.push_back(OutboxItem { row: self.next_row, entry });
        self.next_row += 1;
        self.session.handle_outbox_changed(NOW);
    }
}

struct World {
    log: Log,
    page: usize,
    devices: Vec<(Device, RelaySession)>,
}

impl World {
    fn new(devices: Vec<Device>) -> Self {
        let devices =
            devices.into_iter().enumerate().map(|(i, d)| (d, RelaySession::new(i as u64, "relay".into())));
        Self { log: Log::default(), page: 2, devices: devices.collect() }
    }

    /// Runs until nobody has anything to do.
    fn run(&mut self) {
        for _ in 0..10_000 {
            let mut quiet = true;
            for i in 0..self.devices.len() {
                quiet &= !self.step_device(i) & !self.step_relay(i);
            }
            if quiet {
                return;
            }
        }
        panic!("the sessions never become quiet");
    }

    fn step_device(&mut self, i: usize) -> bool {
        let (device, relay) = &mut self.devices[i];
        let Some(effect) = device.session.poll_effect() else {
            return false;
        };
        match effect {
            ClientEffect::Send(message) => relay.handle_message(message),
            ClientEffect::LoadOutbox { after_row } => {
                let items: Vec<_> =
                    device.outbox.iter().filter(|i| i.row > after_row).take(2).cloned().collect();
                let last = items.last().map_or(after_row, |i| i.row);
                let more = device.outbox.iter().any(|i| i.row > last);
                device.session.handle_outbox(OutboxBatch { items, more }, NOW);
            }
            ClientEffect::LoadDocument { token, after_row, .. } => {
                let rows = device.outbox.iter().filter(|i| i.row > after_row).take(1).cloned().collect();
                device.session.handle_document_rows(token, rows, NOW);
            }
            ClientEffect::Apply { entries, receipts, position, .. } => {
                device.received += entries.len();
                entries.into_iter().for_each(|e| {
                    if !device.held.contains(&e) {
                        device.held.push(e)
                    }
                });
                device.outbox.retain(|item| !receipts.iter().any(|r| r.row == item.row && r.result.is_ok()));
                device.position = position.or(device.position);
                device.session.handle_applied(false, NOW);
            }
            ClientEffect::ResetPosition => {
                device.resets += 1;
                device.session.handle_position_reset(NOW);
            }
            ClientEffect::Reseed => {
                for entry in &device.held {
                    device.outbox.push_back(OutboxItem { row: device.next_row, entry: entry.clone() });
                    device.next_row += 1;
                }
                device.session.handle_reseeded(NOW);
            }
            ClientEffect::RoundDone { round } => device.rounds.push(round),
            ClientEffect::DocumentDone { token, .. } => device.done.push(token),
            ClientEffect::Listed { token, listed } => device.listed.push((token, listed)),
            ClientEffect::Welcomed { .. } | ClientEffect::Presence(_) | ClientEffect::NotTaken { .. } => {}
            ClientEffect::End(reason) => device.ended = Some(reason),
        }
        true
    }

    fn step_relay(&mut self, i: usize) -> bool {
        let Some(effect) = self.devices[i].1.poll_effect() else {
            return false;
        };
        match effect {
            RelayEffect::Send(message) => self.devices[i].0.session.handle_message(message, NOW),
            RelayEffect::Open { .. } => {
                self.devices[i].1.handle_opened(Opened { head: self.log.head().seq, ..Opened::default() })
            }
            RelayEffect::Append { push, entries } => {
                let (outcome, fresh) = self.log.append(entries);
                if let Some((first, position)) = outcome.appended {
                    let run =
                        CommittedRun { origin: i as u64, first, position, entries: Some(Arc::new(fresh)) };
                    self.devices.iter_mut().for_each(|(_, relay)| relay.handle_committed(&run));
                }
                self.devices[i].1.handle_appended(push, outcome);
            }
            RelayEffect::Read { after } => {
                let outcome = self.log.read(after, self.page);
                self.devices[i].1.handle_read(outcome);
            }
            RelayEffect::ReadDocument(fetch) => {
                let page = self.log.read_document(fetch, self.page);
                self.devices[i].1.handle_document(fetch, page);
            }
            RelayEffect::Presence(_) | RelayEffect::Close => {}
        }
        true
    }

    fn device(&mut self, i: usize) -> &mut Device {
        &mut self.devices[i].0
    }
}

#[test]
fn both_devices_end_with_everything_and_nothing_comes_back() {
    let mut world = World::new(vec![Device::new(1, None), Device::new(2, None)]);
    for i in 0..5 {
        world.device(0).write(&format!("a{i}"));
        world.device(1).write(&format!("b{i}"));
    }
    world.run();
    world.device(0).write("live");
    world.device(0).session.request_round(7, NOW);
    world.run();
    let head = world.log.head();
    for (i, foreign) in [(0, 5), (1, 6)] {
        let device = world.device(i);
        assert_eq!((device.held.len(), device.outbox.len()), (11, 0));
        assert_eq!(device.received, foreign, "own entries are not sent back");
        assert_eq!(device.position, Some(head));
        assert!(device.session.is_idle());
        assert_eq!(device.ended, None);
    }
    assert_eq!(world.device(0).rounds, [7]);
}

#[test]
fn an_unchanged_space_costs_one_round_trip() {
    let mut world = World::new(vec![Device::new(1, None)]);
    (0..9).for_each(|i| world.device(0).write(&format!("{i}")));
    world.run();
    world.device(0).session.request_round(1, NOW);
    let mut sent = 0;
    while let Some(effect) = world.device(0).session.poll_effect() {
        match effect {
            ClientEffect::Send(message) => {
                sent += 1;
                world.devices[0].1.handle_message(message);
            }
            ClientEffect::LoadOutbox { .. } => {
                world.device(0).session.handle_outbox(OutboxBatch::default(), NOW)
            }
            _ => {}
        }
    }
    assert_eq!(sent, 1);
    world.run();
    assert_eq!(world.device(0).rounds, [1]);
}

#[test]
fn a_wiped_log_is_noticed_and_filled_again() {
    let mut world = World::new(vec![Device::new(1, None)]);
    (0..5).for_each(|i| world.device(0).write(&format!("{i}")));
    world.run();
    let (held, position) = (world.device(0).held.clone(), world.device(0).position);
    let mut device = Device::new(1, position);
    device.held = held;
    let mut world = World::new(vec![device]);
    world.device(0).session.request_round(1, NOW);
    world.run();
    assert_eq!(world.device(0).rounds, [1]);
    assert_eq!(world.device(0).resets, 1);
    assert_eq!(world.log.entries.len(), 5);
    let head = world.log.head();
    assert_eq!(world.device(0).position, Some(head));
}

#[test]
fn versions_without_overlap_are_refused_clearly() {
    let mut relay = RelaySession::new(0, "relay".into());
    relay.handle_message(Message::Hello(Hello {
        version_min: 90,
        version_max: 99,
        device: DeviceId([1; 16]),
        space: SpaceId::DEFAULT,
        agent: String::new(),
        account: None,
        log: None,
    }));
    let Some(RelayEffect::Send(message)) = relay.poll_effect() else { panic!("no answer") };
    assert_eq!(relay.poll_effect(), Some(RelayEffect::Close));
    let mut client =
        ClientSession::new(DeviceId([1; 16]), SpaceId::DEFAULT, String::new(), None, false, true, NOW);
    client.handle_message(message, NOW);
    let end = std::iter::from_fn(|| client.poll_effect()).last();
    let Some(ClientEffect::End(reason @ EndReason::Version(_))) = end else { panic!("{end:?}") };
    assert!(reason.to_string().contains("update the older one"), "{reason}");
}

#[test]
fn silence_is_probed_and_then_given_up() {
    let mut world = World::new(vec![Device::new(1, None)]);
    world.run();
    let session = &mut world.device(0).session;
    let due = session.poll_timeout().unwrap();
    assert_eq!(due, NOW + limits::PING_AFTER);
    session.handle_timeout(due);
    assert!(matches!(session.poll_effect(), Some(ClientEffect::Send(Message::Ping(Ping { .. })))));
    let due = session.poll_timeout().unwrap();
    session.handle_timeout(due);
    assert_eq!(session.poll_effect(), Some(ClientEffect::End(EndReason::Silence)));
    assert_eq!(session.poll_timeout(), None);
}

#[test]
fn unexpected_messages_end_the_session_and_say_so() {
    let mut relay = RelaySession::new(0, "relay".into());
    relay.handle_message(Message::Push(crate::message::Push { id: 1, entries: vec![] }));
    assert!(matches!(relay.poll_effect(), Some(RelayEffect::Send(Message::Error(_)))));
    assert_eq!(relay.poll_effect(), Some(RelayEffect::Close));
}

/// Nothing is said to a log before the device knows whose it is.
#[test]
fn the_welcome_comes_first_with_account_and_log() {
    let mut relay = RelaySession::new(0, "relay".into());
    let (account, log) = (Some(AccountId::derive("a")), Some(LogName([7; 16])));
    relay.handle_message(Message::Hello(Hello {
        version_min: 1,
        version_max: 9,
        device: DeviceId([1; 16]),
        space: SpaceId::DEFAULT,
        agent: String::new(),
        account: None,
        log: None,
    }));
    assert!(matches!(relay.poll_effect(), Some(RelayEffect::Open { .. })));
    relay.handle_opened(Opened { head: 3, account, log, time_ms: Some(5) });
    let Some(RelayEffect::Send(Message::Welcome(welcome))) = relay.poll_effect() else { panic!() };
    assert_eq!((welcome.version, welcome.head), (1, 3));
    let mut session =
        ClientSession::new(DeviceId([1; 16]), SpaceId::DEFAULT, String::new(), None, false, true, NOW);
    session.request_round(1, NOW);
    assert!(matches!(session.poll_effect(), Some(ClientEffect::Send(Message::Hello(_)))));
    assert_eq!(session.poll_effect(), None);
    session.handle_message(Message::Welcome(welcome), NOW);
    assert_eq!(session.poll_effect(), Some(ClientEffect::Welcomed { account, log, time_ms: Some(5) }));
    assert!(session.poll_effect().is_some());
}

#[test]
fn receipts_may_come_in_any_order() {
    let mut device = Device::new(1, None);
    let session = &mut device.session;
    let mut pushed = Vec::new();
    let mut settled = Vec::new();
    let welcome =
        Message::Welcome(crate::message::Welcome { version: 1, agent: "test".into(), ..Default::default() });
    session.handle_message(welcome, NOW);
    let position = |seq| Position { seq, ..Position::start(SpaceId::DEFAULT) };
    let mut kept = None;
    for round in 0..2 {
        while let Some(effect) = session.poll_effect() {
            match effect {
                ClientEffect::LoadOutbox { after_row } if after_row < 3 => {
                    let row = after_row + 1;
                    let entry = Entry::new(
                        SpaceId::DEFAULT,
                        DocumentId([0; 16]),
                        DeviceId([9; 16]),
                        Kind::Changes,
                        0,
                        vec![row as u8],
                    );
                    session.handle_outbox(
                        OutboxBatch { items: vec![OutboxItem { row, entry }], more: row < 3 },
                        NOW,
                    );
                }
                ClientEffect::Send(Message::Push(push)) => pushed.push(push.id),
                ClientEffect::Apply { receipts, position, .. } => {
                    settled.extend(receipts.into_iter().map(|receipt| receipt.row));
                    kept = position.or(kept);
                    session.handle_applied(false, NOW);
                }
                ClientEffect::End(reason) => panic!("{reason}"),
                _ => {}
            }
        }
        if round == 0 {
            for (n, id) in pushed.iter().enumerate().rev() {
                let seq = n as u64 + 1;
                let position = Some(position(seq));
                let outcomes = vec![Outcome::Stored(seq)];
                session.handle_message(
                    Message::Receipt(crate::message::Receipt { id: *id, outcomes, position, after: 0 }),
                    NOW,
                );
            }
        }
    }
    settled.sort_unstable();
    assert_eq!((settled, kept), (vec![1, 2, 3], Some(position(3))));
}

/// A device that is greeted and reads; its second push is answered before it has read what others wrote in between.
fn reading_device(live: bool) -> ClientSession {
    let mut session =
        ClientSession::new(DeviceId([1; 16]), SpaceId::DEFAULT, String::new(), None, false, live, NOW);
    let welcome = crate::message::Welcome { version: 1, ..Default::default() };
    session.handle_message(Message::Welcome(welcome), NOW);
    let page = crate::message::Page {
        id: Some(1),
        entries: Vec::new(),
        position: Position::start(SpaceId::DEFAULT),
        more: false,
        head: 0,
        after: 0,
    };
    session.handle_message(Message::Page(page), NOW);
    let entry = Entry::new(
        SpaceId::DEFAULT,
        DocumentId::derive(SpaceId::DEFAULT, "c", "n"),
        DeviceId([1; 16]),
        Kind::Changes,
        0,
        vec![1],
    );
    session.handle_outbox(OutboxBatch { items: vec![OutboxItem { row: 1, entry }], more: false }, NOW);
    while let Some(effect) = session.poll_effect() {
        if matches!(effect, ClientEffect::Apply { .. }) {
            session.handle_applied(false, NOW);
        }
    }
    session
}

fn page(id: Option<u32>, after: u64, seq: u64) -> Message {
    Message::Page(crate::message::Page {
        id,
        entries: Vec::new(),
        position: Position { seq, tag: [seq as u8; 16] },
        more: false,
        head: seq,
        after,
    })
}

/// Found by the simulation: a log that was rolled back to between the two was not noticed, and the push was lost.
#[test]
fn a_push_is_settled_only_with_a_position_behind_it() {
    for live in [true, false] {
        let mut session = reading_device(live);
        let outcomes = vec![Outcome::Stored(2)];
        let receipt = crate::message::Receipt { id: 2, outcomes, position: None, after: 0 };
        session.handle_message(Message::Receipt(receipt), NOW);
        let effects: Vec<_> = std::iter::from_fn(|| session.poll_effect()).collect();
        assert!(!effects.iter().any(|effect| matches!(effect, ClientEffect::Apply { .. })), "{effects:?}");
        let asked = effects.iter().any(|effect| matches!(effect, ClientEffect::Send(Message::Pull(_))));
        assert_eq!(asked, !live, "a live session is told by itself");
        assert!(!session.is_idle());
        session.handle_message(page(if live { None } else { Some(3) }, 0, 2), NOW);
        let effects: Vec<_> = std::iter::from_fn(|| session.poll_effect()).collect();
        assert!(
            matches!(&effects[..], [ClientEffect::Apply { receipts, position: Some(at), .. }]
                if receipts.len() == 1 && at.seq == 2),
            "{effects:?}"
        );
    }
}

#[test]
fn a_page_that_leaves_something_out_ends_the_session() {
    let mut session = reading_device(true);
    session.handle_message(page(None, 1, 2), NOW);
    let effects: Vec<_> = std::iter::from_fn(|| session.poll_effect()).collect();
    assert!(matches!(&effects[..], [ClientEffect::End(EndReason::Protocol(_))]), "{effects:?}");
}

#[test]
fn a_relay_that_leads_nowhere_is_left() {
    let more = |id, seq| {
        let Message::Page(page) = page(Some(id), 0, seq) else { unreachable!() };
        Message::Page(crate::message::Page { more: true, ..page })
    };
    let ended = |session: &mut ClientSession| {
        std::iter::from_fn(|| session.poll_effect())
            .any(|effect| matches!(effect, ClientEffect::End(EndReason::Protocol(_))))
    };
    // The same page again and again.
    let mut session = reading_device(true);
    session.request_round(1, NOW);
    for (id, is_ended) in [(3, false), (4, true)] {
        session.handle_message(more(id, 1), NOW);
        session.handle_applied(false, NOW);
        assert_eq!(ended(&mut session), is_ended, "{id}");
    }
    // Positions of its own, refused again and again.
    let mut session = reading_device(false);
    session.request_round(1, NOW);
    let mut id = 3;
    for n in 1..=3 {
        session.handle_message(Message::Refused(crate::message::Refused { id }), NOW);
        if n == 3 {
            return assert!(ended(&mut session));
        }
        assert!(!ended(&mut session), "{n}");
        session.handle_position_reset(NOW);
        session.handle_message(page(Some(id + 1), 0, n), NOW);
        while let Some(effect) = session.poll_effect() {
            match effect {
                ClientEffect::Apply { .. } => session.handle_applied(false, NOW),
                ClientEffect::Reseed => session.handle_reseeded(NOW),
                _ => {}
            }
        }
        session.request_round(n + 1, NOW);
        id += 2;
    }
}

#[test]
fn a_receipt_that_no_position_reaches_is_applied_not_at_all_and_not_for_ever() {
    let mut session = reading_device(true);
    let position = Some(Position { seq: 1, tag: [1; 16] });
    let receipt = crate::message::Receipt { id: 2, outcomes: vec![Outcome::Stored(9)], position, after: 0 };
    session.handle_message(Message::Receipt(receipt), NOW);
    let mut applies = 0;
    while let Some(effect) = session.poll_effect() {
        if let ClientEffect::Apply { receipts, .. } = effect {
            assert!(receipts.is_empty());
            applies += 1;
            assert!(applies < 3, "it goes on for ever");
            session.handle_applied(false, NOW);
        }
    }
}

#[test]
fn one_document_is_sent_and_fetched_before_the_rest() {
    let mut world = World::new(vec![Device::new(1, None), Device::new(2, None)]);
    world.run();
    for n in 0..5 {
        world.device(0).write(&format!("words {n}"));
    }
    world.run();
    let mut late = Device::new(3, None);
    late.write("unsent");
    late.write("nor this");
    late.session.sync_document(7, DocumentId([0; 16]), NOW);
    late.session.list_document(8, DocumentId([0; 16]), NOW);
    late.session.push_unqueued(9, late.held[0].clone(), NOW);
    late.session.request_round(1, NOW);
    world.devices.push((late, RelaySession::new(2, "relay".into())));
    world.run();
    let late = world.device(2);
    assert_eq!((&late.ended, &late.rounds), (&None, &vec![1]));
    assert_eq!((late.done.contains(&7), late.done.contains(&9), late.held.len()), (true, true, 7));
    let (token, listed) = &late.listed[0];
    assert!(*token == 8 && listed.len() >= 5 && listed.is_sorted_by_key(|entry| entry.seq), "{listed:?}");
    assert!(late.session.is_idle());
    assert_eq!(world.log.entries.len(), 7, "the rows that went out twice are there once");
}

/// Until it is known which log this is, rows may be dropped, because somebody switches their collection off.
#[test]
fn rows_of_one_document_are_loaded_when_they_can_be_sent() {
    let device = DeviceId([1; 16]);
    let mut session = ClientSession::new(device, SpaceId::DEFAULT, "device".into(), None, true, true, NOW);
    let welcome = crate::message::Welcome { version: 1, agent: "relay".into(), ..Default::default() };
    session.handle_message(Message::Welcome(welcome), NOW);
    session.sync_document(1, DocumentId([0; 16]), NOW);
    let loads = |session: &mut ClientSession| {
        let effects = std::iter::from_fn(|| session.poll_effect());
        effects.filter(|effect| matches!(effect, ClientEffect::LoadDocument { .. })).count()
    };
    assert_eq!(loads(&mut session), 0);
    session.handle_reseeded(NOW);
    assert_eq!(loads(&mut session), 1);
}

#[test]
fn answers_that_do_not_fit_the_question_end_the_session() {
    let other =
        Entry::new(SpaceId::DEFAULT, DocumentId([5; 16]), DeviceId([9; 16]), Kind::Changes, 0, vec![1]);
    let fetched = |id, entries, last, more| Fetched { id, entries, listed: Vec::new(), last, more };
    let bad: [&dyn Fn(u32) -> Fetched; 4] = [
        &|id| fetched(id + 90, vec![], 0, false),
        &|id| fetched(id, vec![other.clone()], 1, false),
        // Would be asked for again and again.
        &|id| fetched(id, vec![], 0, true),
        &|id| Fetched { listed: vec![], entries: vec![other.clone()], ..fetched(id, vec![], 3, false) },
    ];
    for bad in bad {
        let mut world = World::new(vec![Device::new(1, None)]);
        world.run();
        let session = &mut world.device(0).session;
        session.fetch_document(1, DocumentId([0; 16]), NOW);
        let Some(ClientEffect::Send(Message::Fetch(fetch))) = session.poll_effect() else {
            panic!("no fetch")
        };
        session.handle_message(Message::Fetched(bad(fetch.id)), NOW);
        let mut effects = std::iter::from_fn(|| session.poll_effect());
        assert!(effects.any(|effect| matches!(effect, ClientEffect::End(EndReason::Protocol(_)))));
    }
}

/// A push that was not taken is answered alone: the rows wait, the log is read on, and whoever waits for a round decides what with.
#[test]
fn a_push_that_is_not_taken_waits_and_ends_nothing() {
    use crate::message::{ErrorCode, NotTaken};
    let not_taken = |id| {
        let message = "full".to_owned();
        Message::NotTaken(NotTaken { id, code: ErrorCode::Full, message })
    };
    let effects =
        |session: &mut ClientSession| -> Vec<_> { std::iter::from_fn(|| session.poll_effect()).collect() };
    // A device that has read the log, and has sent row 1 as push 2.
    let mut session = reading_device(true);
    effects(&mut session);
    session.request_round(1, NOW);
    assert!(effects(&mut session).contains(&ClientEffect::LoadOutbox { after_row: 1 }));
    session.handle_outbox(OutboxBatch::default(), NOW);
    session.handle_message(not_taken(2), NOW);
    let told = effects(&mut session);
    assert!(
        told.iter().any(|e| matches!(e, ClientEffect::NotTaken { code: ErrorCode::Full, .. })),
        "{told:?}"
    );
    assert!(
        !told.iter().any(|e| matches!(e, ClientEffect::LoadOutbox { .. } | ClientEffect::End(_))),
        "{told:?}"
    );
    // The log is read all the same, and the round ends without what waits only if it is told to.
    session.handle_message(page(Some(3), 0, 1), NOW);
    session.handle_applied(false, NOW);
    let read = effects(&mut session);
    assert!(!read.iter().any(|e| matches!(e, ClientEffect::RoundDone { .. })), "{read:?}");
    session.settle_without_pushes(NOW);
    assert!(effects(&mut session).contains(&ClientEffect::RoundDone { round: 1 }));
    assert!(session.is_idle());
    assert_eq!(session.waits_after(), None, "nothing is handed over meanwhile");
    // Released, the same row is loaded again; a round that was not given up waits for it.
    session.release_pushes(NOW);
    assert!(effects(&mut session).contains(&ClientEffect::LoadOutbox { after_row: 0 }));
    // What answers no push ends it.
    session.handle_message(not_taken(77), NOW);
    assert!(matches!(effects(&mut session).last(), Some(ClientEffect::End(EndReason::Protocol(_)))));
}
