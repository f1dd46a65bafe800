//! Two devices and a relay in memory: enough to see the conversation, without any IO.

mod documents;
mod positions;
mod relay;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::entry::{Entry, Kind};
use crate::ids::{AccountId, DeviceId, DocumentId, LogName, SpaceId};
use crate::limits;
use crate::message::{ErrorCode, Fetch, Fetched, Hello, Listed, Message, Outcome, Ping};
use crate::position::Position;

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
