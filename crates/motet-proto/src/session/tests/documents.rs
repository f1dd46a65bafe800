//! One document out of turn.

use super::*;

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
