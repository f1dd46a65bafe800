//! Deleted documents: back from the trash, gone for good, and back whole when somebody knew nothing of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use motet::{Adoption, Field, FieldKind, Replica, Resolution, Schema, WriteError};
use motet_tests::{TestRelay, contents, device, singer, sync};
use serde_json::json;

#[test]
fn the_trash_gives_a_document_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    let pieces = a.documents("pieces");
    let piece = json!({ "id": "1", "title": "Aloha ʻOe", "lyrics": "Haʻaheo ka ua\n" });
    pieces.upsert("1", &piece).unwrap();
    assert!(matches!(pieces.document("1").restore(), Err(WriteError::NotFound { .. })));
    pieces.delete("1").unwrap();
    let trash = pieces.trash().unwrap();
    assert_eq!((trash.len(), &trash[0].fields["title"]), (1, &json!("Aloha ʻOe")));
    pieces.document("1").restore().unwrap();
    assert_eq!(pieces.get("1").unwrap().unwrap().value, piece);
    assert!(pieces.trash().unwrap().is_empty());
}

#[test]
fn a_purge_leaves_nothing_and_reaches_every_device() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    a.documents("pieces").upsert("1", &json!({ "lyrics": "to be forgotten" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    a.documents("pieces").delete("1").unwrap();
    assert_eq!(a.documents("pieces").purge_trash(i64::MAX).unwrap(), 1);
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    for (name, replica) in [("a", &a), ("b", &b)] {
        assert!(replica.documents("pieces").get("1").unwrap().is_none());
        assert!(replica.documents("pieces").trash().unwrap().is_empty());
        assert!(matches!(
            replica.documents("pieces").document("1").restore(),
            Err(WriteError::NotFound { .. })
        ));
        assert_eq!(changes(dir.path(), name), 0);
    }
    // Its id is used up: what is written under it on one device would meet the old document on another.
    for replica in [&a, &b] {
        let refused = replica.documents("pieces").upsert("1", &json!({ "lyrics": "anew" })).unwrap_err();
        assert!(matches!(refused, WriteError::Purged { .. }), "{refused}");
    }
    // A new declaration shows the collection anew, and still not this.
    a.apply_schema(&Schema::new().field("pieces", "status", Field::rank(["draft", "done"]))).unwrap();
    assert!(a.documents("pieces").list().unwrap().is_empty());
    assert!(a.documents("pieces").trash().unwrap().is_empty());
}

#[test]
fn an_edit_that_did_not_know_of_a_purge_brings_the_whole_document_back() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b, c) = (device(dir.path(), "a"), device(dir.path(), "b"), device(dir.path(), "c"));
    let piece = json!({ "title": "Hiʻilawe", "lyrics": "Kūmaka ka ʻikena\n" });
    a.documents("pieces").upsert("1", &piece).unwrap();
    for replica in [&a, &b, &c] {
        sync(replica, &relay.url());
    }
    a.documents("pieces").delete("1").unwrap();
    a.documents("pieces").purge_trash(i64::MAX).unwrap();
    // B is away, and its edit arrives as a fragment before B has heard of the purge.
    b.documents("pieces").document("1").splice_text("lyrics", 0, 0, "Hoʻi ").unwrap();
    for replica in [&a, &c, &b] {
        sync(replica, &relay.url());
    }
    // Nobody shows half a document.
    for replica in [&a, &c] {
        sync(replica, &relay.url());
        let shown = replica.documents("pieces").get("1").unwrap();
        assert!(shown.is_none_or(|piece| piece["title"] == "Hiʻilawe"));
    }
    for replica in [&b, &a, &c, &b] {
        sync(replica, &relay.url());
    }
    for replica in [&a, &b, &c] {
        let shown = replica.documents("pieces").get("1").unwrap().unwrap();
        assert_eq!(
            shown.value,
            json!({ "id": "1", "title": "Hiʻilawe", "lyrics": "Hoʻi Kūmaka ka ʻikena\n" })
        );
        assert_eq!(replica.counts().unwrap().quarantined, 0);
    }
    // All of it is really there: it can be loaded, edited and synced on.
    drop(a);
    let a = Replica::open(dir.path().join("a.db")).unwrap();
    a.documents("pieces").document("1").splice_text("lyrics", 0, 0, "E ").unwrap();
    sync(&a, &relay.url());
    sync(&c, &relay.url());
    assert!(
        c.documents("pieces").get("1").unwrap().unwrap()["lyrics"].as_str().unwrap().starts_with("E Hoʻi")
    );
}

#[test]
fn a_purged_document_stays_purged_when_the_log_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    a.documents("pieces").upsert("1", &json!({ "lyrics": "gone" })).unwrap();
    sync(&a, &relay.url());
    a.documents("pieces").delete("1").unwrap();
    a.documents("pieces").purge_trash(i64::MAX).unwrap();
    sync(&a, &relay.url());
    a.disconnect();
    drop(a);
    let conn = rusqlite::Connection::open(dir.path().join("a.db")).unwrap();
    conn.execute("UPDATE remote SET position = NULL", []).unwrap();
    drop(conn);
    let a = Replica::open(dir.path().join("a.db")).unwrap();
    sync(&a, &relay.url());
    assert!(a.documents("pieces").get("1").unwrap().is_none());
    assert!(a.documents("pieces").trash().unwrap().is_empty());
    assert_eq!(changes(dir.path(), "a"), 0);
    assert_eq!(a.counts().unwrap().quarantined, 0);
}

/// Nobody else has what was purged before the first sync, so nobody can send the whole of it: another device's document of the same
/// name waited for that for ever.
#[test]
fn a_purge_before_the_first_sync_does_not_stand_in_the_way_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    a.documents("pieces").upsert("1", &json!({ "title": "gone" })).unwrap();
    a.documents("pieces").delete("1").unwrap();
    a.documents("pieces").purge_trash(i64::MAX).unwrap();
    assert_eq!(changes(dir.path(), "a"), 0);
    let refused = a.documents("pieces").upsert("1", &json!({ "title": "anew" })).unwrap_err();
    assert!(matches!(refused, WriteError::Purged { .. }), "{refused}");
    let piece = json!({ "id": "1", "title": "Hiʻilawe" });
    b.documents("pieces").upsert("1", &piece).unwrap();
    for replica in [&a, &b, &a, &b] {
        sync(replica, &relay.url());
    }
    for replica in [&a, &b] {
        assert_eq!(replica.documents("pieces").get("1").unwrap().unwrap().value, piece);
        assert_eq!(replica.counts().unwrap().quarantined, 0);
    }
    a.documents("pieces").patch("1", &json!({ "title": "ʻElua" })).unwrap();
    for replica in [&a, &b] {
        sync(replica, &relay.url());
    }
    assert_eq!(b.documents("pieces").get("1").unwrap().unwrap()["title"], "ʻElua");
}

#[test]
fn a_round_that_meets_a_purge_sends_the_whole_document() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    a.documents("pieces").upsert("1", &json!({ "title": "Aloha ʻOe" })).unwrap();
    sync(&a, &relay.url());
    a.documents("pieces").delete("1").unwrap();
    a.documents("pieces").purge_trash(i64::MAX).unwrap();
    b.documents("pieces").upsert("1", &json!({ "title": "Hiʻilawe" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    assert_eq!(b.status().pending, 0);
    sync(&a, &relay.url());
    assert_eq!(a.documents("pieces").get("1").unwrap().unwrap()["title"], "Hiʻilawe");
}

fn changes(dir: &std::path::Path, name: &str) -> i64 {
    let conn = rusqlite::Connection::open(dir.join(format!("{name}.db"))).unwrap();
    conn.query_row("SELECT COUNT(*) FROM change", [], |row| row.get(0)).unwrap()
}

/// A delete has no operations, and Automerge did not see it when the same actor wrote on an older version: the document could not be
/// loaded any more.
#[test]
fn an_edit_of_what_was_read_before_a_delete_and_a_restore_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    let songs = a.documents("pieces");
    songs.upsert("song", &json!({ "title": "t", "lyrics": "one\n" })).unwrap();
    let mut read = songs.get("song").unwrap().unwrap();
    songs.delete("song").unwrap();
    songs.document("song").restore().unwrap();
    read["lyrics"] = "one\ntwo\n".into();
    songs.update(&mut read).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    drop((songs, a));
    let a = device(dir.path(), "a");
    for replica in [&a, &b] {
        assert_eq!(replica.verify().unwrap().problems, []);
        assert_eq!(replica.documents("pieces").get("song").unwrap().unwrap()["lyrics"], "one\ntwo\n");
    }
    assert_eq!(contents(&a), contents(&b));
}

#[test]
fn a_document_of_which_each_deleted_its_own_is_gone_though_the_lists_were_brought_together() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let [a, b] = ["a", "b"].map(|name| device(dir.path(), name));
    for device in [&a, &b] {
        device.apply_schema(&Schema::new().field("pieces", "parts", motet::FieldKind::List)).unwrap();
    }
    a.documents("pieces").upsert("1", &json!({ "parts": [{ "id": "y" }] })).unwrap();
    b.documents("pieces").upsert("1", &json!({ "parts": [{ "id": "y", "n": 0 }] })).unwrap();
    sync(&b, &relay.url());
    a.documents("pieces").delete("1").unwrap();
    assert!(b.undo().unwrap().is_some());
    // Whoever meets first brings both lists together: nobody's edit.
    for device in [&a, &b, &a, &b] {
        sync(device, &relay.url());
    }
    for device in [&a, &b] {
        assert!(device.documents("pieces").get("1").unwrap().is_none());
        assert_eq!(device.documents("pieces").trash().unwrap().len(), 1);
    }
}

#[test]
fn where_deletes_win_nothing_of_a_purged_document_is_set_aside_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let [a, b] = ["a", "b"].map(|name| device(dir.path(), name));
    for device in [&a, &b] {
        device.apply_schema(&Schema::new().delete("pieces", motet::DeletePolicy::Wins)).unwrap();
    }
    a.documents("pieces").upsert("1", &json!({})).unwrap();
    a.documents("pieces").delete("1").unwrap();
    sync(&a, &relay.url());
    b.documents("pieces").upsert("1", &json!({ "lyrics": "written without knowing" })).unwrap();
    a.documents("pieces").purge_trash(i64::MAX).unwrap();
    for device in [&b, &a, &b, &a] {
        sync(device, &relay.url());
    }
    for device in [&a, &b] {
        assert!(device.documents("pieces").get("1").unwrap().is_none());
        assert_eq!(device.quarantined(10).unwrap().len(), 0);
        assert!(device.verify().unwrap().problems.is_empty());
    }
}

#[test]
fn where_the_latest_wins_an_edit_older_than_the_purge_is_not_set_aside_for_ever() {
    for order in ["edit, delete, purge", "delete, edit, purge", "delete, purge, edit"] {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let [a, b] = ["a", "b"].map(|name| device(dir.path(), name));
        for device in [&a, &b] {
            device.apply_schema(&Schema::new().delete("pieces", motet::DeletePolicy::Latest)).unwrap();
        }
        a.documents("pieces").upsert("1", &json!({})).unwrap();
        [&a, &b].iter().for_each(|device| _ = sync(device, &relay.url()));
        for act in order.split(", ") {
            match act {
                "edit" => _ = b.documents("pieces").upsert("1", &json!({ "lyrics": "not knowing" })).unwrap(),
                "delete" => a.documents("pieces").delete("1").unwrap(),
                _ => _ = a.documents("pieces").purge_trash(i64::MAX).unwrap(),
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        for device in [&a, &b, &a, &b, &a] {
            sync(device, &relay.url());
        }
        for device in [&a, &b] {
            let is_there = device.documents("pieces").get("1").unwrap().is_some();
            assert_eq!(is_there, order.ends_with("edit"), "{order}");
            let aside = device.quarantined(10).unwrap();
            assert!(aside.is_empty(), "{order}, on {}: {aside:?}", device.device_name());
            assert!(device.verify().unwrap().problems.is_empty(), "{order}");
        }
    }
}

/// What was deleted without knowing of a purge brings nothing back by itself, and belongs to the document if somebody else does.
#[test]
fn a_fragment_that_brings_nothing_back_waits_in_silence() {
    for policy in [motet::DeletePolicy::EditWins, motet::DeletePolicy::Latest] {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let devices = ["a", "b", "c"].map(|name| device(dir.path(), name));
        let [a, b, c] = &devices;
        for device in &devices {
            device.apply_schema(&Schema::new().delete("pieces", policy)).unwrap();
        }
        a.documents("pieces").upsert("1", &json!({ "title": "one" })).unwrap();
        devices.iter().for_each(|device| _ = sync(device, &relay.url()));
        b.documents("pieces").patch("1", &json!({ "key": "F" })).unwrap();
        b.documents("pieces").delete("1").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
        a.documents("pieces").delete("1").unwrap();
        a.documents("pieces").purge_trash(i64::MAX).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
        c.documents("pieces").patch("1", &json!({ "title": "two" })).unwrap();
        [a, b, a].iter().for_each(|device| _ = sync(device, &relay.url()));
        for device in [a, b] {
            assert!(device.documents("pieces").get("1").unwrap().is_none());
            assert_eq!(device.counts().unwrap().quarantined, 0);
        }
        [c, a, b, c, a].iter().for_each(|device| _ = sync(device, &relay.url()));
        for device in &devices {
            let piece = device.documents("pieces").get("1").unwrap().unwrap().value;
            assert_eq!(piece, json!({ "id": "1", "title": "two", "key": "F" }), "{policy:?}");
            assert_eq!(device.counts().unwrap().quarantined, 0);
            assert_eq!(device.verify().unwrap().problems, []);
        }
    }
}

/// Who deleted the document before the purge of another reached it has it purged as well, and needs the whole of what an edit brings back.
#[test]
fn an_edit_beside_a_delete_brings_back_what_was_purged_and_revived_before() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    a.documents("songs").upsert("1", &json!({ "title": "ʻUlupalakua" })).unwrap();
    sync(&b, &relay.url());
    b.documents("songs").upsert("1", &json!({ "key": "F" })).unwrap();
    b.documents("songs").delete("1").unwrap();
    sync(&a, &relay.url());
    b.documents("songs").purge_trash(i64::MAX).unwrap();
    sync(&b, &relay.url());
    a.documents("songs").delete("1").unwrap();
    b.documents("songs").patch("1", &json!({ "tempo": null })).unwrap();
    for replica in [&a, &b, &a, &b] {
        sync(replica, &relay.url());
    }
    for replica in [&a, &b] {
        let song = replica.documents("songs").get("1").unwrap().unwrap().value;
        assert_eq!((&song["title"], song.get("tempo")), (&json!("ʻUlupalakua"), Some(&json!(null))));
        assert_eq!(replica.counts().unwrap().quarantined, 0);
        assert_eq!(replica.verify().unwrap().problems, []);
    }
}

#[test]
fn what_another_device_deleted_under_the_id_of_a_purged_document_is_in_the_trash() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    b.documents("songs").upsert("1", &json!({ "title": "one" })).unwrap();
    b.documents("songs").delete("1").unwrap();
    b.documents("songs").purge_trash(i64::MAX).unwrap();
    a.documents("songs").upsert("1", &json!({ "title": "two" })).unwrap();
    a.documents("songs").delete("1").unwrap();
    for replica in [&a, &b, &a] {
        sync(replica, &relay.url());
    }
    for replica in [&a, &b] {
        assert_eq!(replica.verify().unwrap().problems, []);
        assert_eq!(replica.documents("songs").trash().unwrap()[0].fields["title"], "two");
    }
}

/// A purge that lost to an edit does not count for a later delete: a device that meets all of it at once has it in the trash, as the others
/// have, and what is restored there comes back everywhere.
#[test]
fn a_purge_that_has_lost_does_not_come_back_with_a_later_delete() {
    for policy in [motet::DeletePolicy::EditWins, motet::DeletePolicy::Latest] {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let devices = ["a", "b", "c", "d"].map(|name| device(dir.path(), name));
        let [a, b, c, d] = &devices;
        for device in &devices {
            device.apply_schema(&Schema::new().delete("pieces", policy)).unwrap();
        }
        a.documents("pieces").upsert("1", &json!({ "title": "one" })).unwrap();
        [a, b, c].iter().for_each(|device| _ = sync(device, &relay.url()));
        a.documents("pieces").delete("1").unwrap();
        a.documents("pieces").purge_trash(i64::MAX).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
        b.documents("pieces").patch("1", &json!({ "key": "F" })).unwrap();
        // One deletes it after it came back, one without knowing that it was ever purged.
        [a, b, a, b].iter().for_each(|device| _ = sync(device, &relay.url()));
        b.documents("pieces").delete("1").unwrap();
        [b, a, c, d, a].iter().for_each(|device| _ = sync(device, &relay.url()));
        for (name, device) in ["a", "b", "c", "d"].iter().zip(&devices) {
            let trash = device.documents("pieces").trash().unwrap();
            assert_eq!(trash.len(), 1, "{name}, {policy:?}");
            assert_eq!(trash[0].fields["key"], "F");
            assert_eq!(device.counts().unwrap().quarantined, 0);
            assert_eq!(device.verify().unwrap().problems, []);
        }
        b.documents("pieces").document("1").restore().unwrap();
        [b, a, c, d].iter().for_each(|device| _ = sync(device, &relay.url()));
        for device in &devices {
            let piece = device.documents("pieces").get("1").unwrap().unwrap().value;
            assert_eq!(piece, json!({ "id": "1", "title": "one", "key": "F" }), "{policy:?}");
            assert_eq!(device.counts().unwrap().quarantined, 0);
        }
    }
}

/// A purged document that is received once more, because the log is read anew, is not held either.
#[test]
fn what_comes_after_a_purged_document_was_read_again_is_stored_whole() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, c) = (device(dir.path(), "a"), device(dir.path(), "c"));
    a.documents("songs").upsert("1", &json!({ "title": "one" })).unwrap();
    a.documents("songs").delete("1").unwrap();
    c.documents("songs").upsert("1", &json!({ "title": "two" })).unwrap();
    sync(&a, &relay.url());
    a.documents("songs").purge_trash(i64::MAX).unwrap();
    sync(&a, &relay.url());
    a.disconnect();
    let conn = rusqlite::Connection::open(dir.path().join("a.db")).unwrap();
    conn.execute("UPDATE remote SET position = NULL", []).unwrap();
    drop(conn);
    for replica in [&a, &c, &a, &c] {
        sync(replica, &relay.url());
        assert_eq!(replica.verify().unwrap().problems, []);
    }
    for replica in [&a, &c] {
        assert_eq!(replica.documents("songs").get("1").unwrap().unwrap().value["title"], "two");
    }
}

/// Found by the oracle (39000889): what every device makes alike was all that such a write made, and nobody's.
#[test]
fn a_write_that_only_begins_a_field_is_an_edit_that_a_delete_had_not_seen() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    for replica in [&a, &b] {
        let schema = Schema::new()
            .text("songs", "lyrics")
            .field("songs", "plays", FieldKind::Counter)
            .field("songs", "tags", FieldKind::Set)
            .field("songs", "verses", FieldKind::List);
        replica.apply_schema(&schema).unwrap();
    }
    let fields = ["lyrics", "plays", "tags", "verses"];
    for field in fields {
        a.documents("songs").upsert(field, &json!({ "title": "Pua" })).unwrap();
    }
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    for field in fields {
        a.documents("songs").delete(field).unwrap();
    }
    let songs = b.documents("songs");
    songs.document("lyrics").splice_text("lyrics", 0, 0, "").unwrap();
    songs.document("plays").increment("plays", 0).unwrap();
    b.transaction(|tx| tx.documents("songs").add_to_set("tags", "tags", &[])).unwrap();
    songs.patch("verses", &json!({ "verses": [] })).unwrap();
    for replica in [&a, &b, &a] {
        sync(replica, &relay.url());
    }
    for field in fields {
        assert!(a.documents("songs").get(field).unwrap().is_some(), "{field}");
    }
    assert_eq!(contents(&a), contents(&b));
}

/// Who deletes a row that it adopted has not seen what another device adopted under the same id, if that is another row.
#[test]
fn a_delete_of_an_adopted_row_takes_no_other_row_with_it() {
    let rows = [
        (json!({ "id": "1", "lyrics": "kai" }), json!({ "id": "1", "lyrics": "ua" }), "lyrics"),
        (
            json!({ "id": "1", "title": "t", "lyrics": "kai" }),
            json!({ "id": "1", "title": "t", "lyrics": "ua" }),
            "lyrics",
        ),
        (json!({ "id": "1", "tags": ["kai"] }), json!({ "id": "1", "tags": ["ua"] }), "tags"),
        (
            json!({ "id": "1", "title": "t", "plays": 3 }),
            json!({ "id": "1", "title": "t", "plays": 4 }),
            "plays",
        ),
        (json!({ "id": "1", "verses": ["kai"] }), json!({ "id": "1", "verses": ["kai", "ua"] }), "verses"),
    ];
    for (mine, theirs, field) in rows {
        for is_undo in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let relay = TestRelay::start(&dir.path().join("relay"));
            let [a, b] = ["a", "b"].map(|name| singer(dir.path(), name));
            for (replica, row) in [(&a, &mine), (&b, &theirs)] {
                let rows = json!([row]).to_string();
                replica.adopt_json(rows.as_bytes(), "songs", &Adoption::default()).unwrap();
            }
            match is_undo {
                true => _ = b.undo().unwrap().unwrap(),
                false => b.documents("songs").delete("1").unwrap(),
            }
            for replica in [&a, &b, &a] {
                sync(replica, &relay.url());
            }
            let shown = a.documents("songs").get("1").unwrap().map(|record| record.value[field].to_string());
            // What shows holds at least what the other device has adopted.
            let held = shown.unwrap_or_else(|| panic!("{theirs} took {mine} with it"));
            assert!(field == "plays" || held.contains("kai"), "{mine} {theirs}: {held}");
            assert_eq!(contents(&a), contents(&b));
        }
    }
    // The same row is one: who deletes it has seen it.
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let [a, b] = ["a", "b"].map(|name| singer(dir.path(), name));
    for replica in [&a, &b] {
        let rows = json!([{ "id": "1", "title": "t", "lyrics": "kai" }]).to_string();
        replica.adopt_json(rows.as_bytes(), "songs", &Adoption::default()).unwrap();
    }
    b.documents("songs").delete("1").unwrap();
    for replica in [&a, &b, &a] {
        sync(replica, &relay.url());
    }
    assert!(a.documents("songs").get("1").unwrap().is_none());
}

/// A device whose clock is set wrong keeps what was deleted a moment ago, if a relay has told it the time.
#[test]
fn a_clock_far_ahead_purges_nothing_that_was_deleted_a_moment_ago() {
    const DAY_MS: i64 = 86_400_000;
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let ahead_ms = Arc::new(AtomicI64::new(0));
    let now = {
        let ahead_ms = ahead_ms.clone();
        move || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            now.as_millis() as i64 + ahead_ms.load(Ordering::Relaxed)
        }
    };
    let open = |name: &str| Replica::builder(dir.path().join(name)).clock(now.clone()).open().unwrap();
    let (synced, alone) = (open("synced.db"), open("alone.db"));
    for (replica, syncs) in [(&synced, true), (&alone, false)] {
        let pieces = replica.documents("pieces");
        pieces.upsert("1", &json!({ "title": "Pua ʻAʻaliʻi" })).unwrap();
        if syncs {
            sync(replica, &relay.url());
        }
        pieces.delete("1").unwrap();
        ahead_ms.store(365 * DAY_MS, Ordering::Relaxed);
        let purged = pieces.purge_trash(now() - 30 * DAY_MS).unwrap();
        assert_eq!(purged, usize::from(!syncs), "there is nothing but its own clock where no relay was met");
        if syncs {
            // Also while a relay is met under that clock, and what was deleted by it.
            sync(replica, &relay.url());
            assert_eq!(pieces.purge_trash(now() - 30 * DAY_MS).unwrap(), 0);
            assert_eq!(pieces.purge_trash(now() + 1).unwrap(), 1, "all of it is all of it");
        }
        ahead_ms.store(0, Ordering::Relaxed);
    }
}

/// Two make one document; one of them, who has not heard of the other, deletes it and makes it again, while the other, who has heard of both,
/// writes on: the words of the other stay.
#[test]
fn what_another_wrote_of_a_document_stays_when_it_is_made_again() {
    for edits in 0..3 {
        for first in [0, 1] {
            for anew in [json!({ "o": 1 }), json!({ "lyrics": "a1\n" })] {
                let dir = tempfile::tempdir().unwrap();
                let relay = TestRelay::start(&dir.path().join("relay"));
                let devices = ["a", "b"].map(|name| device(dir.path(), name));
                let [a, b] = devices.each_ref().map(|device| device.documents("pieces"));
                a.upsert("1", &json!({ "lyrics": "a1\n" })).unwrap();
                sync(&devices[0], &relay.url());
                b.upsert("1", &json!({ "lyrics": "b1\n" })).unwrap();
                sync(&devices[1], &relay.url());
                a.delete("1").unwrap();
                for word in ["z1\n", "q1\n"].into_iter().take(edits) {
                    let lyrics = b.get("1").unwrap().unwrap()["lyrics"].as_str().unwrap().to_owned();
                    b.patch("1", &json!({ "lyrics": format!("{word}{lyrics}") })).unwrap();
                }
                a.upsert("1", &anew).unwrap();
                for _ in 0..3 {
                    sync(&devices[first], &relay.url());
                    sync(&devices[1 - first], &relay.url());
                }
                let shown = a.get("1").unwrap().unwrap().value;
                assert_eq!(b.get("1").unwrap().unwrap().value, shown);
                let lyrics = shown["lyrics"].as_str().unwrap_or_default();
                for word in ["b1", "z1", "q1"].into_iter().take(1 + edits) {
                    assert!(lyrics.contains(word), "{edits} edits, {first} first, anew {anew}: {shown}");
                }
            }
        }
    }
}

/// What cannot be resolved is not counted as something to be resolved; the journal keeps it.
#[test]
fn a_conflict_of_a_document_in_the_trash_is_open_again_when_that_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let [a, b] = ["a", "b"].map(|name| singer(dir.path(), name));
    a.documents("songs").upsert("1", &json!({ "title": "one" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    for (device, title) in [(&a, "two"), (&b, "three")] {
        device.documents("songs").patch("1", &json!({ "title": title })).unwrap();
    }
    let meet = || [&a, &b, &a].into_iter().for_each(|device| _ = sync(device, &relay.url()));
    meet();
    let open = |device: &Replica| {
        let counted = device.counts().unwrap().conflicts;
        assert_eq!(device.conflicted_documents(false).unwrap().len() as u64, counted);
        counted
    };
    assert_eq!([&a, &b].map(open), [1, 1]);
    a.documents("songs").delete("1").unwrap();
    meet();
    assert_eq!([&a, &b].map(open), [0, 0]);
    assert_eq!(b.conflicted_documents(true).unwrap().len(), 1);
    b.documents("songs").document("1").restore().unwrap();
    meet();
    assert_eq!([&a, &b].map(open), [1, 1]);
    a.documents("songs").document("1").resolve("/title", Resolution::Shown).unwrap();
    meet();
    assert_eq!([&a, &b].map(open), [0, 0]);
}

/// A time that no calendar knows is no reason to stop.
#[test]
fn any_time_that_a_clock_says_is_written_and_read() {
    for told in [i64::MIN, -1, 0, i64::MAX / 2, i64::MAX] {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let open = |name: &str| {
            Replica::builder(dir.path().join(name)).device_name(name).clock(move || told).open().unwrap()
        };
        let (a, b) = (open("a.db"), open("b.db"));
        for title in ["one", "two"] {
            a.documents("songs").upsert("1", &json!({ "title": title })).unwrap();
        }
        sync(&a, &relay.url());
        sync(&b, &relay.url());
        b.documents("songs").patch("1", &json!({ "title": "three" })).unwrap();
        b.documents("songs").upsert("2", &json!({ "title": "gone" })).unwrap();
        b.documents("songs").delete("2").unwrap();
        b.documents("songs").purge_trash(i64::MAX).unwrap();
        sync(&b, &relay.url());
        sync(&a, &relay.url());
        for device in [&a, &b] {
            assert_eq!(
                device.documents("songs").get("1").unwrap().unwrap().value["title"],
                "three",
                "{told}"
            );
            assert_eq!(device.verify().unwrap().problems, [], "{told}");
            assert_eq!(device.status().pending, 0, "{told}");
        }
        a.undo().unwrap();
    }
}
