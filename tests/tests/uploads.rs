//! What cannot be sent holds up nothing else: other documents go out, and everything comes in.

use std::time::{Duration, Instant};

use motet::{DocumentState, Relay, Replica, SyncError, SyncState, Transport};
use motet_relay::config::{Limits, Terms};
use motet_tests::random::Random;
use motet_tests::web::{Answer, Web};
use motet_tests::{TestRelay, contents, device, sync, wait_until};
use serde_json::json;

const MIB: usize = 1 << 20;

/// What does not compress.
fn noise(random: &mut Random, bytes: usize) -> String {
    (0..bytes / 3).map(|_| char::from_u32(0x4e00 + random.below(20_000) as u32).unwrap()).collect()
}

fn put(replica: &Replica, id: &str, value: &str) {
    replica.documents("pieces").upsert(id, &json!({ "title": value })).unwrap();
}

fn title(replica: &Replica, id: &str) -> Option<String> {
    let record = replica.documents("pieces").get(id).unwrap()?;
    Some(record.value["title"].as_str().unwrap().to_owned())
}

#[test]
fn where_only_small_messages_get_through_one_that_is_too_large_holds_no_other() {
    let seed = motet_tests::random::seed();
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let limit = MIB;
    let web = Web::start(Some(relay.address()), move |request| match request {
        request if request.is_upgrade() => Answer::page("400 Bad Request"),
        request if request.body > limit => Answer::page("413 Request Entity Too Large"),
        _ => Answer::Pass,
    });
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    // Before, beside and after the large one: some that fit together, some that fit alone.
    let sizes = [100, 700_000, 2_000_000, 100, 900_000, 400_000, 400_000, 400_000, 1_500_000, 50];
    for (n, size) in sizes.into_iter().enumerate() {
        put(&a, &format!("{n}"), &noise(&mut random, size));
    }
    a.connect(Relay::new(&web.url())).unwrap();
    let begun = Instant::now();
    let summary = a.sync_now().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "seed {seed}: {:?}", begun.elapsed());
    assert_eq!((summary.sent, summary.rejected), (8, 2), "seed {seed}");
    assert_eq!(a.status().pending, 2);
    for id in ["2", "8"] {
        let status = a.documents("pieces").document(id).status().unwrap().unwrap();
        let error = status.error.unwrap();
        assert_eq!(status.state, DocumentState::Error);
        assert!(error.message.contains("413") && !error.message.contains('<'), "{}", error.message);
    }
    let large = || web.requests().iter().filter(|request| request.body > limit).count();
    let (sent, bytes) = (large(), web.requests().iter().map(|request| request.body).sum::<usize>());
    assert!(bytes < 16 * MIB, "seed {seed}: {sent} that were too large, {bytes} bytes in all");
    // Nothing that was too large is sent again and again.
    for n in 0..3 {
        put(&a, "0", &format!("again {n}"));
        a.sync_now().unwrap();
    }
    assert_eq!(large(), sent, "seed {seed}");
    sync(&b, &relay.url());
    assert_eq!((contents(&b).len(), title(&b, "0").unwrap()), (8, "again 2".into()), "seed {seed}");

    // Where it fits it goes out by itself.
    a.connect(Relay::new(&relay.url())).unwrap();
    wait_until("all sent", Duration::from_secs(20), || a.status().pending == 0);
    sync(&b, &relay.url());
    assert_eq!(contents(&a), contents(&b), "seed {seed}");
    assert_eq!(a.documents("pieces").document("2").status().unwrap().unwrap().state, DocumentState::Synced);
}

fn relay_with(dir: &std::path::Path, documents: u64) -> TestRelay {
    let limits = Limits { documents_per_account: documents, ..Limits::default() };
    let terms = Terms { limits, ..Terms::default() };
    TestRelay::start_as(motet_relay::Config { terms, ..motet_relay::Config::new(dir.join("relay")) })
}

#[test]
fn a_push_that_is_not_taken_ends_nothing_else() {
    for transport in [Transport::WebSocket, Transport::Post] {
        let dir = tempfile::tempdir().unwrap();
        let relay = relay_with(dir.path(), 3);
        let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
        (0..3).for_each(|n| put(&b, &format!("{n}"), "first"));
        sync(&b, &relay.url());
        put(&a, "one too many", "mine");
        a.connect(Relay::new(&relay.url()).transport(transport)).unwrap();
        let begun = Instant::now();
        let error = a.sync_now().unwrap_err();
        assert!(matches!(error, SyncError::Full { .. }) && error.is_retryable(), "{error}");
        assert!(error.to_string().contains("uploads wait"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!(contents(&a).len(), 4, "whoever is told so has everything else");

        // It stays connected, hears of what others do, and says what waits.
        put(&b, "0", "second");
        sync(&b, &relay.url());
        let patience = if transport == Transport::Post { 15 } else { 3 };
        wait_until("received", Duration::from_secs(patience), || title(&a, "0").unwrap() == "second");
        wait_until("says what waits", Duration::from_secs(2), || {
            let status = a.status();
            status.state == SyncState::Pending && status.pending == 1
        });
        assert_eq!(a.status().last_error.unwrap().code, "sync-relay-full");
        let document = a.documents("pieces").document("one too many").sync();
        assert!(matches!(document, Err(SyncError::Full { .. })), "{document:?}");
        a.disconnect();

        drop(relay);
        let relay = relay_with(dir.path(), 9);
        sync(&a, &relay.url());
        sync(&b, &relay.url());
        assert_eq!(contents(&a), contents(&b));
        assert_eq!((a.status().pending, a.status().last_error), (0, None));
    }
}

#[test]
fn a_fresh_device_downloads_from_a_relay_that_fails_at_every_write() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    let songs: Vec<_> = (0..3_000).map(|n| json!({ "id": format!("{n}"), "title": "ʻĀina" })).collect();
    a.transaction(move |tx| tx.documents("pieces").upsert_many(&songs)).unwrap();
    sync(&a, &relay.url());
    let conn = rusqlite::Connection::open(dir.path().join("relay/relay.db")).unwrap();
    conn.execute_batch("CREATE TRIGGER t BEFORE INSERT ON entry BEGIN SELECT RAISE(ABORT, 'planted'); END")
        .unwrap();
    put(&b, "mine", "not sent yet");
    b.connect(Relay::new(&relay.url())).unwrap();
    wait_until("downloaded", Duration::from_secs(30), || contents(&b).len() == 3_001);
    let error = b.sync_now().unwrap_err();
    assert!(matches!(error, SyncError::Relay { .. }) && error.is_retryable(), "{error}");
    assert_eq!(b.status().last_error.unwrap().message, error.to_string());
    conn.execute_batch("DROP TRIGGER t").unwrap();
    wait_until("sent by itself", Duration::from_secs(60), || b.status().state == SyncState::Synced);
    sync(&a, &relay.url());
    assert_eq!(contents(&a), contents(&b));
}
