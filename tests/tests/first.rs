//! One document before all others, on ways where all others take long.

use std::time::Duration;

use motet::{Relay, SyncState, Transport};
use motet_tests::proxy::{Faults, Proxy};
use motet_tests::{TestRelay, contents, device, sync, wait_until};
use serde_json::json;

const SONGS: usize = 3_000;

fn name(n: usize) -> String {
    format!("song{n}")
}

/// Words that hardly compress.
fn words(n: usize) -> String {
    (0..40).map(|i| format!("{:x} ", (n as u64 * 41 + i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect()
}

fn slow(relay: &TestRelay) -> Proxy {
    Proxy::start(relay.address(), Faults { bytes_per_second: 200_000, ..Faults::default() }, 1)
}

#[test]
fn a_document_is_opened_while_thousands_are_on_their_way() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    a.transaction(|tx| {
        (0..SONGS).try_for_each(|n| {
            tx.documents("pieces").upsert(&name(n), &json!({ "lyrics": words(n) })).map(drop)
        })
    })
    .unwrap();
    sync(&a, &relay.url());
    for transport in [Transport::WebSocket, Transport::Post] {
        let way = slow(&relay);
        let b = device(dir.path(), &format!("b{transport:?}"));
        assert!(b.documents("pieces").document(&name(1)).fetch().is_err(), "it is not connected");
        b.connect(Relay::new(&way.url()).transport(transport)).unwrap();
        wait_until("the download has begun", Duration::from_secs(20), || {
            matches!(b.status().state, SyncState::Syncing { total: 1.., .. })
        });
        let last =
            b.documents("pieces").document(&name(SONGS - 1)).fetch().unwrap().expect("the relay has it");
        assert_eq!(last["lyrics"], words(SONGS - 1));
        assert!(b.documents("pieces").list().unwrap().len() < SONGS, "the others are still on their way");
        // It can be worked on at once.
        b.documents("pieces").patch(&name(SONGS - 1), &json!({ "by": "b" })).unwrap();
        assert!(b.documents("pieces").document("no such song").fetch().unwrap().is_none());
        b.sync_now().unwrap();
        assert_eq!(b.documents("pieces").list().unwrap().len(), SONGS);
        sync(&a, &relay.url());
        assert_eq!(contents(&a), contents(&b));
        b.disconnect();
    }
}

#[test]
fn a_document_is_sent_before_thousands_that_wait() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    a.documents("pieces").upsert("urgent", &json!({ "lyrics": "before\n" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    b.transaction(|tx| {
        (0..SONGS).try_for_each(|n| {
            tx.documents("pieces").upsert(&name(n), &json!({ "lyrics": words(n) })).map(drop)
        })
    })
    .unwrap();
    b.documents("pieces").document("urgent").splice_text("lyrics", 7, 0, "from b\n").unwrap();
    a.documents("pieces").document("urgent").splice_text("lyrics", 0, 0, "from a\n").unwrap();
    sync(&a, &relay.url());
    let way = slow(&relay);
    b.connect(Relay::new(&way.url())).unwrap();
    b.documents("pieces").document("urgent").sync().unwrap().expect("it is there");
    assert!(b.status().pending > 1_000, "most others wait");
    assert_eq!(b.documents("pieces").get("urgent").unwrap().unwrap()["lyrics"], "from a\nbefore\nfrom b\n");
    a.connect(Relay::new(&relay.url())).unwrap();
    a.documents("pieces").document("urgent").sync().unwrap().unwrap();
    assert_eq!(a.documents("pieces").get("urgent").unwrap().unwrap()["lyrics"], "from a\nbefore\nfrom b\n");
    b.sync_now().unwrap();
    a.sync_now().unwrap();
    assert_eq!(contents(&a), contents(&b));
    assert_eq!(b.status().pending, 0);
}
