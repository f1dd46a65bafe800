//! Documents that come in as Automerge saves them, beside what devices send: purges, undo, and how much there may be.

use std::path::Path;

use automerge::transaction::Transactable;
use automerge::{Automerge, ObjType, ROOT};
use motet::{Replica, Schema, WriteError};
use motet_tests::{TestRelay, contents, purge_song, sync};
use serde_json::json;

fn open(dir: &Path, name: &str) -> Replica {
    let replica = Replica::builder(dir.join(format!("{name}.db"))).device_name(name).open().unwrap();
    replica.apply_schema(&Schema::new().text("songs", "lyrics")).unwrap();
    replica
}

/// Three devices that know the song `1`. The first has purged it, the second has heard of that, the third has not.
fn purged(dir: &Path, relay: &TestRelay) -> [Replica; 3] {
    let devices = ["a", "b", "c"].map(|name| open(dir, name));
    devices[0].documents("songs").upsert("1", &json!({ "lyrics": "hello\n" })).unwrap();
    devices.iter().for_each(|device| _ = sync(device, &relay.url()));
    purge_song(&devices[0], "1");
    sync(&devices[0], &relay.url());
    sync(&devices[1], &relay.url());
    devices
}

fn settle(devices: &[Replica], relay: &TestRelay) {
    for _ in 0..3 {
        devices.iter().for_each(|device| _ = sync(device, &relay.url()));
    }
    for device in devices {
        assert_eq!(contents(device), contents(&devices[0]), "{}", device.device_name());
        assert_eq!(device.quarantined(10).unwrap(), [], "{}", device.device_name());
        assert_eq!(device.status().pending, 0, "{}", device.device_name());
        assert_eq!(device.verify().unwrap().problems, [], "{}", device.device_name());
    }
}

#[test]
fn a_purge_does_not_come_in_by_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let devices = purged(dir.path(), &relay);
    let [_, b, c] = &devices;
    let saved = b.documents("songs").document("1").export_automerge().unwrap();
    let song = c.documents("songs").document("1");
    assert!(matches!(song.import_automerge(&saved), Err(WriteError::Purged { .. })));
    assert_eq!(song.get().unwrap().unwrap()["lyrics"], "hello\n");
    assert_eq!(c.verify().unwrap().problems, []);
    c.documents("songs").patch("1", &json!({ "lyrics": "hello you\n" })).unwrap();
    settle(&devices, &relay);
    // The edit had not seen the purge, and brings the song back, whole.
    assert_eq!(devices[0].documents("songs").get("1").unwrap().unwrap()["lyrics"], "hello you\n");
}

#[test]
fn an_edit_that_has_not_seen_the_purge_in_a_file_brings_the_document_back_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let devices = purged(dir.path(), &relay);
    let [_, b, c] = &devices;
    c.documents("songs").patch("1", &json!({ "lyrics": "hello you\n" })).unwrap();
    let saved = b.documents("songs").document("1").export_automerge().unwrap();
    c.documents("songs").document("1").import_automerge(&saved).unwrap();
    settle(&devices, &relay);
    assert_eq!(devices[0].documents("songs").get("1").unwrap().unwrap()["lyrics"], "hello you\n");

    // And the other way round: whoever has it in the trash has to restore it first, or to wait for the edit.
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let devices = purged(dir.path(), &relay);
    let [_, b, c] = &devices;
    c.documents("songs").patch("1", &json!({ "lyrics": "hello you\n" })).unwrap();
    let saved = c.documents("songs").document("1").export_automerge().unwrap();
    let song = b.documents("songs").document("1");
    assert!(matches!(song.import_automerge(&saved), Err(WriteError::Purged { .. })));
    song.restore().unwrap();
    song.import_automerge(&saved).unwrap();
    assert_eq!(song.get().unwrap().unwrap()["lyrics"], "hello you\n");
    settle(&devices, &relay);
    assert_eq!(devices[0].documents("songs").get("1").unwrap().unwrap()["lyrics"], "hello you\n");
}

#[test]
fn an_undo_passes_over_what_came_in() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let devices = ["a", "b"].map(|name| open(dir.path(), name));
    let [a, b] = &devices;
    a.documents("songs").upsert("1", &json!({ "lyrics": "one\n" })).unwrap();
    settle(&devices, &relay);
    a.documents("songs").document("1").splice_text("lyrics", 4, 0, "words of a\n").unwrap();
    b.documents("songs").patch("1", &json!({ "title": "of b" })).unwrap();
    let saved = a.documents("songs").document("1").export_automerge().unwrap();
    b.documents("songs").document("1").import_automerge(&saved).unwrap();
    b.undo().unwrap().unwrap();
    settle(&devices, &relay);
    let song = a.documents("songs").get("1").unwrap().unwrap();
    assert_eq!((&song["lyrics"], song.get("title")), (&json!("one\nwords of a\n"), None));
}

#[test]
fn what_an_app_could_not_write_does_not_come_in() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    let refused = |am: &mut Automerge| {
        let error = a.documents("songs").document("1").import_automerge(&am.save()).unwrap_err();
        assert!(matches!(error, WriteError::Automerge { .. }), "{error}");
        assert_eq!(a.documents("songs").get("1").unwrap().map(|song| song.value), None);
        error.to_string()
    };
    let mut am = Automerge::new();
    let mut tx = am.transaction();
    let list = tx.put_object(ROOT, "many", ObjType::List).unwrap();
    tx.splice(&list, 0, 0, (0..100_001).map(|n| automerge::hydrate::Value::from(n % 2))).unwrap();
    tx.commit();
    assert!(refused(&mut am).contains("100001 elements"));
    let mut am = Automerge::new();
    let mut tx = am.transaction();
    let text = tx.put_object(ROOT, "lyrics", ObjType::Text).unwrap();
    tx.splice_text(&text, 0, 0, &"la".repeat(500_000)).unwrap();
    tx.commit();
    assert!(am.save().len() < 10_000);
    assert!(refused(&mut am).contains("1000000 operations"));
}
