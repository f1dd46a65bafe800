//! Logs that do not only grow: many entries become one snapshot, and what nobody wants at the relay leaves it.

use std::path::Path;
use std::time::Duration;

use motet::{DocumentState, Relay, Replica, SyncState};
use motet_tests::{TestRelay, contents, device, sync, wait_until};
use serde_json::json;

/// Entries that the relay still has whole.
fn entries(relay: &Path) -> u64 {
    let conn = rusqlite::Connection::open(relay.join("relay.db")).unwrap();
    let sql = "SELECT COUNT(*) FROM entry WHERE length(kind) > 0";
    conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().unsigned_abs()
}

/// Writes lines to a song and has each acknowledged, so that each is an entry.
fn sing(replica: &Replica, id: &str, lines: std::ops::Range<usize>) {
    for line in lines {
        replica
            .documents("pieces")
            .document(id)
            .splice_text("lyrics", 0, 0, &format!("ʻAuʻa ʻia {line}\n"))
            .unwrap();
        replica.sync_now().unwrap();
    }
}

fn compact_soon(replica: &Replica, data: &Path, id: &str, left: u64) {
    assert!(replica.documents("pieces").document(id).compact().unwrap(), "there is much to save");
    wait_until("superseded entries leave", Duration::from_secs(20), || entries(data) <= left);
}

#[test]
fn many_entries_become_one_snapshot_and_everybody_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let relay = TestRelay::start_forgetful(&data);
    let (a, b, away) = (device(dir.path(), "a"), device(dir.path(), "b"), device(dir.path(), "away"));
    let id = a.documents("pieces").insert(&json!({ "title": "ʻAuʻa ʻia", "lyrics": "" })).unwrap();
    let other = a.documents("pieces").insert(&json!({ "title": "other" })).unwrap();
    a.connect(Relay::new(&relay.url())).unwrap();
    sing(&a, &id, 0..20);
    sync(&away, &relay.url());
    away.documents("pieces").document(&id).splice_text("lyrics", 0, 0, "from afar\n").unwrap();
    sing(&a, &id, 20..60);
    b.connect(Relay::new(&relay.url())).unwrap();
    b.sync_now().unwrap();
    assert!(entries(&data) > 55);

    compact_soon(&a, &data, &id, 2);
    assert!(!a.documents("pieces").document(&id).compact().unwrap(), "there is nothing left to save");
    assert!(!a.documents("pieces").document(&other).compact().unwrap());
    assert_eq!((a.status().state, a.status().pending), (SyncState::Synced, 0), "nobody is told of a debt");

    // Who was connected, who was in the middle of it with an edit of their own, and who is new.
    b.documents("pieces").patch(&id, &json!({ "by": "b" })).unwrap();
    b.sync_now().unwrap();
    sync(&away, &relay.url());
    let c = device(dir.path(), "c");
    sync(&c, &relay.url());
    for replica in [&a, &b] {
        replica.sync_now().unwrap();
        assert_eq!(contents(replica), contents(&c));
    }
    assert_eq!(contents(&away), contents(&c));
    let song = c.documents("pieces").get(&id).unwrap().unwrap();
    let lyrics = song["lyrics"].as_str().unwrap();
    assert!((0..60).all(|line| lyrics.contains(&format!("ʻAuʻa ʻia {line}\n"))), "{lyrics}");
    assert!(lyrics.contains("from afar") && song["by"] == "b");
    assert!(c.documents("pieces").document(&id).history(1_000).unwrap().len() >= 60, "with its history");
    // The log is still the one that everybody knows.
    assert_eq!(a.sync_now().unwrap().received, 0);
    for replica in [&a, &b, &c, &away] {
        assert!(replica.verify().unwrap().problems.is_empty());
        assert!(replica.quarantined(10).unwrap().is_empty());
    }
}

#[test]
fn a_connected_device_compacts_when_there_is_nothing_else_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let relay = TestRelay::start_forgetful(&data);
    let a = device(dir.path(), "a");
    let id = a.documents("pieces").insert(&json!({ "lyrics": "" })).unwrap();
    a.connect(Relay::new(&relay.url())).unwrap();
    sing(&a, &id, 0..70);
    wait_until("it compacts by itself", Duration::from_secs(90), || entries(&data) == 1);
    let b = device(dir.path(), "b");
    sync(&b, &relay.url());
    assert_eq!(contents(&a), contents(&b));
}

#[test]
fn what_is_set_aside_is_never_superseded() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let relay = TestRelay::start_forgetful(&data);
    let a = device(dir.path(), "a");
    let id = a.documents("pieces").insert(&json!({ "lyrics": "" })).unwrap();
    a.connect(Relay::new(&relay.url())).unwrap();
    sing(&a, &id, 0..20);
    let waiting = rusqlite::Connection::open(dir.path().join("a.db")).unwrap();
    waiting
        .execute_batch(
            "INSERT INTO quarantine (remote, document, hash, waits, reason, bytes, at)
             SELECT 1, key, randomblob(32), 1, 'a test', x'00', 0 FROM document",
        )
        .unwrap();
    assert!(!a.documents("pieces").document(&id).compact().unwrap());
    waiting.execute_batch("DELETE FROM quarantine").unwrap();
    assert!(a.documents("pieces").document(&id).compact().unwrap());
}

#[test]
fn a_relay_forgets_a_collection_and_devices_keep_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let relay = TestRelay::start(&data);
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    let note = |n: usize| format!("note{n}");
    for n in 0..30 {
        a.documents("private").upsert(&note(n), &json!({ "notes": format!("kept {n}") })).unwrap();
    }
    a.documents("pieces").upsert("song", &json!({ "title": "for everybody" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    assert_eq!(entries(&data), 31);

    a.erase_remote("private").unwrap();
    assert_eq!(a.status().pending, 30);
    let status =
        |replica: &Replica| replica.documents("private").document(&note(3)).status().unwrap().unwrap();
    assert_eq!(status(&a).state, DocumentState::PendingErase);
    sync(&a, &relay.url());
    assert_eq!(status(&a).state, DocumentState::LocalOnly);
    assert_eq!((status(&a).last_synced_at, a.status().pending), (None, 0));
    let conn = rusqlite::Connection::open(data.join("relay.db")).unwrap();
    let bytes: i64 = conn.query_row("SELECT SUM(length(payload)) FROM entry", [], |row| row.get(0)).unwrap();
    assert!(bytes < 30 * 60 + 300, "what is left are the erasures and a song: {bytes} bytes");
    a.documents("private").upsert(&note(99), &json!({ "notes": "stays" })).unwrap();
    assert_eq!(sync(&a, &relay.url()).sent, 0, "it is switched off");

    // Nobody loses anything, and a new device learns nothing.
    let before = contents(&b);
    sync(&b, &relay.url());
    assert_eq!(contents(&b), before);
    // On the other device as well it is not on the relay any more.
    assert_eq!((status(&b).state, status(&b).last_synced_at), (DocumentState::LocalOnly, None));
    let c = device(dir.path(), "c");
    sync(&c, &relay.url());
    assert_eq!(c.documents("private").list().unwrap().len(), 0);
    assert!(c.quarantined(10).unwrap().is_empty());

    // Who still syncs it sends the whole of what is edited.
    b.documents("private").patch(&note(3), &json!({ "by": "b" })).unwrap();
    assert_eq!(status(&b).state, DocumentState::PendingUpdate);
    sync(&b, &relay.url());
    sync(&c, &relay.url());
    assert_eq!(c.documents("private").get(&note(3)).unwrap().unwrap()["notes"], "kept 3");
    // And switched on again everything is there, once.
    a.set_collection_sync("private", true).unwrap();
    for replica in [&a, &b, &c, &a] {
        sync(replica, &relay.url());
    }
    assert_eq!(contents(&a).len(), 32);
    assert_eq!(contents(&a), contents(&c));
    assert_eq!(contents(&a), contents(&b));
}

/// Who erased and sent again had not seen what another device had written last.
#[test]
fn what_an_erasure_took_and_its_owner_had_not_seen_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    a.documents("private").upsert("note", &json!({ "notes": "kept" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    b.documents("private").patch("note", &json!({ "by": "b" })).unwrap();
    a.erase_remote("private").unwrap();
    a.set_collection_sync("private", true).unwrap();
    a.erase_remote("private").unwrap();
    // Both have written to the log before either has read what the other has.
    b.connect(Relay::new(&relay.url())).unwrap();
    b.sync_now().unwrap();
    b.disconnect();
    sync(&a, &relay.url());
    a.set_collection_sync("private", true).unwrap();
    for replica in [&a, &b, &a, &b] {
        sync(replica, &relay.url());
    }
    assert_eq!(contents(&a), contents(&b));
    let c = device(dir.path(), "c");
    sync(&c, &relay.url());
    assert_eq!(contents(&c), contents(&b));
    assert_eq!(c.documents("private").get("note").unwrap().unwrap()["by"], "b");
}

/// Nothing may bring a collection that is switched off to the relay, also not that its document was purged elsewhere.
#[test]
fn a_purge_from_elsewhere_sends_nothing_of_a_collection_that_is_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    a.documents("private").upsert("note", &json!({ "notes": "kept" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    a.set_collection_sync("private", false).unwrap();
    a.documents("private").patch("note", &json!({ "secret": "never sent" })).unwrap();
    b.documents("private").delete("note").unwrap();
    b.documents("private").purge_trash(i64::MAX).unwrap();
    sync(&b, &relay.url());
    assert_eq!(sync(&a, &relay.url()).sent, 0);
    assert_eq!(a.documents("private").get("note").unwrap().unwrap()["secret"], "never sent");
    assert_eq!(sync(&a, &relay.url()).sent, 0);
}

#[test]
fn an_erasure_that_was_not_sent_yet_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    a.documents("private").upsert("note", &json!({ "notes": "kept" })).unwrap();
    sync(&a, &relay.url());
    a.erase_remote("private").unwrap();
    a.set_collection_sync("private", true).unwrap();
    sync(&a, &relay.url());
    let b = device(dir.path(), "b");
    sync(&b, &relay.url());
    assert_eq!(contents(&a), contents(&b));
}

/// A document whose changes lie under a snapshot, and which has grown beyond one entry since.
#[test]
fn a_document_larger_than_an_entry_reaches_a_second_relay_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    // Not compressible.
    let mut state = 7_u64;
    let mut noise = |bytes: usize| -> String {
        let next = |state: &mut u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b' ' + (*state >> 33) as u8 % 90)
        };
        (0..bytes).map(|_| next(&mut state)).collect()
    };
    a.documents("studio").upsert("take", &json!({ "wave0": noise(3 << 20) })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    for n in 1..5 {
        let mut wave = serde_json::Map::new();
        wave.insert(format!("wave{n}"), noise(3 << 20).into());
        a.documents("studio").patch("take", &wave).unwrap();
        sync(&a, &relay.url());
    }
    sync(&b, &relay.url());
    let second = TestRelay::start(&dir.path().join("second"));
    sync(&b, &second.url());
    assert_eq!((b.status().state, b.status().pending), (SyncState::Paused, 0));
    let c = device(dir.path(), "c");
    sync(&c, &second.url());
    assert_eq!(contents(&a), contents(&c));
    assert!(c.quarantined(10).unwrap().is_empty());

    // Asked for alone, it is there when all of it is.
    let third = TestRelay::start(&dir.path().join("third"));
    b.connect(Relay::new(&third.url())).unwrap();
    let status = b.documents("studio").document("take").sync().unwrap().unwrap();
    assert_eq!((status.state, status.pending_changes), (DocumentState::Synced, 0));
    b.disconnect();
    let d = device(dir.path(), "d");
    sync(&d, &third.url());
    assert_eq!(contents(&a), contents(&d));
}
