//! What a relay reads for a device, and tells it of.

use super::*;

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

/// A log that was lost under a live session and has grown as far again: what follows by its number is not what follows.
#[test]
fn what_is_committed_to_another_log_is_not_taken_for_the_next() {
    let mut session = live_session();
    let entry = |n: u8| {
        Entry::new(SpaceId::DEFAULT, DocumentId([n; 16]), DeviceId([2; 16]), Kind::Changes, 0, vec![n])
    };
    let run = |before: Position, entry: &Entry| CommittedRun {
        origin: 9,
        first: before.seq + 1,
        position: before.next(entry.id),
        entries: Some(Arc::new(vec![entry.clone()])),
    };
    let start = Position::start(SpaceId::DEFAULT);
    session.handle_committed(&run(start, &entry(1)));
    assert!(
        matches!(session.poll_effect(), Some(RelayEffect::Send(Message::Page(page))) if page.entries.len() == 1)
    );
    // The second of another log.
    session.handle_committed(&run(start.next(entry(7).id), &entry(2)));
    let after = start.next(entry(1).id);
    assert_eq!(session.poll_effect(), Some(RelayEffect::Read { after: Some(after) }));
    session.handle_read(ReadOutcome::Refused);
    let effects: Vec<_> = std::iter::from_fn(|| session.poll_effect()).collect();
    assert!(effects.contains(&RelayEffect::Close), "{effects:?}");
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
