//! What a device takes from pages and receipts, in whatever order they come, and what it takes for settled.

use super::*;

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

/// Found by the simulation: a relay that was reading by itself when it was asked brought a full page, and the same again as the answer. The session
/// ended over it.
#[test]
fn a_page_that_was_asked_for_may_bring_what_has_come_by_itself() {
    let mut session = reading_device(true);
    session.request_round(1, NOW);
    session.handle_message(page(None, 0, 4), NOW);
    let Message::Page(answer) = page(Some(3), 0, 4) else { unreachable!() };
    session.handle_message(Message::Page(crate::message::Page { more: true, ..answer }), NOW);
    let mut is_asked_again = false;
    while let Some(effect) = session.poll_effect() {
        match effect {
            ClientEffect::Apply { .. } => session.handle_applied(false, NOW),
            ClientEffect::Send(Message::Pull(pull)) => {
                is_asked_again |= pull.id > 3 && pull.after.is_some_and(|after| after.seq == 4);
            }
            ClientEffect::End(reason) => panic!("{reason}"),
            _ => {}
        }
    }
    assert!(is_asked_again);
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
