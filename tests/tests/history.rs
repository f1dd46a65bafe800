//! What was, and going back to it: versions, undo, restore points.

use motet::{Replica, RevisionKind, UndoneEffect, Version, WriteError};
use motet_tests::{TestRelay, singer, sync};
use serde_json::json;

#[test]
fn the_history_tells_who_did_what_and_every_version_can_be_seen_and_restored() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (singer(dir.path(), "Keola"), singer(dir.path(), "Leilani"));
    let songs = a.documents("songs");
    songs.upsert("1", &json!({ "title": "Hiʻilawe", "lyrics": "Kūmaka ka ʻikena\n" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    b.transaction(|tx| {
        tx.set_message("second verse")?;
        tx.documents("songs").splice_text("1", "lyrics", 17, 0, "Ka papa lohi mai\n")?;
        tx.documents("songs").patch("1", &json!({ "key": "F" }))
    })
    .unwrap();
    sync(&b, &relay.url());
    sync(&a, &relay.url());
    songs.delete("1").unwrap();
    songs.document("1").restore().unwrap();
    songs.patch("1", &json!({ "title": null })).unwrap();

    let history = songs.document("1").history(50).unwrap();
    let told: Vec<_> = history
        .iter()
        .map(|step| {
            (step.kind, step.device_name.as_deref().unwrap(), step.fields.join(","), step.message.as_deref())
        })
        .collect();
    let verse = Some("second verse");
    assert_eq!(
        told,
        [
            (RevisionKind::Updated, "Keola", "title".into(), None),
            (RevisionKind::Restored, "Keola", String::new(), None),
            (RevisionKind::Deleted, "Keola", String::new(), None),
            (RevisionKind::Updated, "Leilani", "key".into(), verse),
            (RevisionKind::Updated, "Leilani", "lyrics".into(), verse),
            (RevisionKind::Created, "Keola", "lyrics,title".into(), None),
        ]
    );
    assert!(history.iter().all(|step| step.time > 1_700_000_000_000));
    assert_eq!(songs.document("1").history(2).unwrap(), history[..2]);
    let first = &history[5].version;
    assert_eq!(
        songs.document("1").at(first).unwrap(),
        json!({ "title": "Hiʻilawe", "lyrics": "Kūmaka ka ʻikena\n" })
    );
    let diff = songs.document("1").diff(first, &history[3].version).unwrap();
    let fields: Vec<_> = diff.iter().map(|diff| diff.field.as_str()).collect();
    assert_eq!(fields, ["key", "lyrics"]);
    assert_eq!((&diff[0].before, &diff[0].after), (&None, &Some(json!("F"))));

    songs.document("1").restore_version(first).unwrap();
    let now = json!({ "id": "1", "title": "Hiʻilawe", "lyrics": "Kūmaka ka ʻikena\n" });
    assert_eq!(songs.get("1").unwrap().unwrap().value, now);
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    assert_eq!(b.documents("songs").get("1").unwrap().unwrap().value, now);
    let nowhere: Version = "00".repeat(32).parse().unwrap();
    assert!(matches!(songs.document("1").at(&nowhere), Err(WriteError::UnknownVersion { .. })));
    assert!(matches!(songs.document("2").history(1), Err(WriteError::NotFound { .. })));
}

#[test]
fn undo_takes_back_what_this_device_did_and_nothing_that_others_did_since() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (singer(dir.path(), "a"), singer(dir.path(), "b"));
    let songs = a.documents("songs");
    let song = json!({ "title": "t0", "key": "C", "lyrics": "one\ntwo\n", "plays": 5, "tags": ["x"],
        "verses": [1, 2], "meta": { "tempo": 90, "bars": 4 } });
    songs.upsert("1", &song).unwrap();
    songs.upsert("2", &json!({ "title": "other" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    let before = songs.get("1").unwrap().unwrap().value;
    a.transaction(|tx| {
        tx.documents("songs").patch(
            "1",
            &json!({ "title": "t1", "key": "D", "lyrics": "one\nmine\ntwo\n", "plays": 8,
            "tags": ["x", "y"], "verses": [1, 9, 2], "meta": { "tempo": 60, "bars": 8 }, "new": true }),
        )?;
        tx.documents("songs").delete("2")?;
        Ok(())
    })
    .unwrap();
    let after = songs.get("1").unwrap().unwrap().value;
    assert!(a.undo().unwrap().is_some());
    assert_eq!(songs.get("1").unwrap().unwrap().value, before);
    assert!(songs.get("2").unwrap().is_some());
    assert!(a.redo().unwrap().is_some());
    assert_eq!(songs.get("1").unwrap().unwrap().value, after);
    assert!(songs.get("2").unwrap().is_none());
    assert!(a.redo().unwrap().is_none());
    // Another device builds on it; then it is taken back.
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    b.documents("songs")
        .patch(
            "1",
            &json!({ "key": "G", "lyrics": "one\nmine\ntwo\ntheirs\n", "plays": 10, "tags": ["x", "y", "z"],
            "verses": [1, 9, 2, 3], "meta": { "bars": 16 } }),
        )
        .unwrap();
    sync(&b, &relay.url());
    sync(&a, &relay.url());
    assert!(a.undo().unwrap().is_some());
    let expected = json!({ "id": "1", "title": "t0", "key": "G", "lyrics": "one\ntwo\ntheirs\n", "plays": 7,
        "tags": ["x", "z"], "verses": [1, 2, 3], "meta": { "tempo": 90, "bars": 16 } });
    assert_eq!(songs.get("1").unwrap().unwrap().value, expected);
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    assert_eq!(b.documents("songs").get("1").unwrap().unwrap().value, expected);
    // It reaches back over a restart, down to the creation; what others wrote is not this device's to undo.
    drop(a);
    let a = singer(dir.path(), "a");
    let songs = a.documents("songs");
    assert!(a.undo().unwrap().is_some());
    let undone = a.undo().unwrap().unwrap();
    assert_eq!(undone.documents[0].effect, UndoneEffect::Kept);
    assert!(songs.get("2").unwrap().is_none());
    let theirs = json!({ "id": "1", "key": "G", "lyrics": "theirs\n", "plays": 2, "tags": ["z"], "verses": [3],
        "meta": { "bars": 16 } });
    assert_eq!(songs.get("1").unwrap().unwrap().value, theirs);
    assert!(a.undo().unwrap().is_none());
    assert!(a.redo().unwrap().is_some());
    assert_eq!(songs.get("1").unwrap().unwrap().value, expected);
    // A new write ends the redos.
    songs.patch("1", &json!({ "title": "t2" })).unwrap();
    assert!(a.redo().unwrap().is_none());
}

#[test]
fn undo_leaves_in_the_trash_what_somebody_deleted_since() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (singer(dir.path(), "a"), singer(dir.path(), "b"));
    a.documents("songs").upsert("1", &json!({ "title": "t0" })).unwrap();
    a.documents("songs").patch("1", &json!({ "title": "t1" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    b.documents("songs").delete("1").unwrap();
    sync(&b, &relay.url());
    sync(&a, &relay.url());
    assert!(a.undo().unwrap().is_some());
    assert!(a.documents("songs").get("1").unwrap().is_none());
}

/// A device that is new, or whose documents were cleared, has a point that knows of nothing.
#[test]
fn what_others_had_made_before_a_restore_point_stays_when_it_arrives_later() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let [a, b] = ["a", "b"].map(|name| singer(dir.path(), name));
    let pause = || std::thread::sleep(std::time::Duration::from_millis(5));
    for id in ["1", "2"] {
        a.documents("songs").upsert(id, &json!({ "title": id, "lyrics": "mua" })).unwrap();
    }
    a.documents("songs").delete("2").unwrap();
    b.documents("songs").upsert("own", &json!({ "title": "mine" })).unwrap();
    pause();
    sync(&a, &relay.url());
    b.create_restore_point("new").unwrap();
    pause();
    a.documents("songs").upsert("later", &json!({ "title": "later" })).unwrap();
    a.documents("songs").document("2").restore().unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    b.documents("songs").upsert("wrong", &json!({ "title": "wrong" })).unwrap();
    b.documents("songs").patch("own", &json!({ "title": "not mine" })).unwrap();
    let restored = b.restore_point("new", None).unwrap();
    // `own` is as it was; what was made since, here and elsewhere, is in the trash.
    assert_eq!(restored.changed, 3);
    let ids = |replica: &Replica| -> Vec<String> {
        replica.documents("songs").list().unwrap().iter().map(|song| song.id.clone()).collect()
    };
    assert_eq!(ids(&b), ["1", "2", "own"]);
    assert_eq!(b.documents("songs").get("own").unwrap().unwrap().value["title"], "mine");
    b.clear_local().unwrap_err();
    sync(&b, &relay.url());
    b.clear_local().unwrap();
    b.create_restore_point("cleared").unwrap();
    pause();
    sync(&b, &relay.url());
    assert_eq!(b.restore_point("cleared", None).unwrap().changed, 0);
    assert_eq!(ids(&b), ["1", "2", "own"]);
    sync(&a, &relay.url());
    assert_eq!(ids(&a), ["1", "2", "own"]);
}

#[test]
fn a_restore_point_brings_all_documents_back_or_one() {
    let dir = tempfile::tempdir().unwrap();
    let a = singer(dir.path(), "a");
    let songs = a.documents("songs");
    for id in ["1", "2", "3"] {
        songs.upsert(id, &json!({ "title": id, "lyrics": "ʻekahi\n" })).unwrap();
    }
    a.create_restore_point("before the concert").unwrap();
    songs.patch("1", &json!({ "title": "changed" })).unwrap();
    songs.document("2").splice_text("lyrics", 0, 0, "changed ").unwrap();
    songs.delete("3").unwrap();
    songs.upsert("4", &json!({ "title": "new" })).unwrap();
    assert_eq!(a.restore_points().unwrap()[0].name, "before the concert");
    assert_eq!(a.restore_point("before the concert", Some(("songs", "1"))).unwrap().changed, 1);
    assert_eq!(songs.get("1").unwrap().unwrap()["title"], "1");
    assert_eq!(songs.get("2").unwrap().unwrap()["lyrics"], "changed ʻekahi\n");
    a.restore_point("before the concert", None).unwrap();
    let titles: Vec<_> = songs.list().unwrap().iter().map(|song| song["title"].clone()).collect();
    assert_eq!(titles, ["1", "2", "3"]);
    assert_eq!(songs.get("2").unwrap().unwrap()["lyrics"], "ʻekahi\n");
    assert_eq!(songs.trash().unwrap().len(), 1);
    assert!(matches!(a.restore_point("never", None), Err(WriteError::NoRestorePoint { .. })));
    // There is nothing more to bring back; and what was purged is named.
    assert_eq!(a.restore_point("before the concert", None).unwrap().changed, 0);
    let nothing = a.restore_point("before the concert", Some(("songs", "never"))).unwrap();
    assert_eq!((nothing.changed, nothing.purged), (0, vec![]));
    songs.delete("1").unwrap();
    songs.purge_trash(i64::MAX).unwrap();
    let restored = a.restore_point("before the concert", None).unwrap();
    assert_eq!((restored.changed, restored.purged), (0, vec![("songs".into(), "1".into())]));
    assert!(a.remove_restore_point("before the concert").unwrap());
    assert!(!a.remove_restore_point("before the concert").unwrap());
}

#[test]
fn a_version_that_was_deleted_is_restored_as_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let a = singer(dir.path(), "a");
    let songs = a.documents("songs");
    songs.upsert("1", &json!({ "title": "t", "lyrics": "one\n" })).unwrap();
    songs.delete("1").unwrap();
    let deleted = songs.document("1").history(1).unwrap().remove(0).version;
    songs.document("1").restore().unwrap();
    assert!(songs.get("1").unwrap().is_some());
    songs.document("1").restore_version(&deleted).unwrap();
    assert!(songs.get("1").unwrap().is_none());
    // Once more changes nothing.
    let now = songs.document("1").history(9).unwrap().len();
    songs.document("1").restore_version(&deleted).unwrap();
    assert_eq!(songs.document("1").history(9).unwrap().len(), now);
    assert_eq!(songs.trash().unwrap().len(), 1);
}

/// A field that begins as a text, counter, list or set is named by the revision that began it, on every device.
#[test]
fn a_revision_names_the_fields_that_it_began() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (singer(dir.path(), "a"), singer(dir.path(), "b"));
    let songs = a.documents("songs");
    songs.upsert("1", &json!({ "title": "t" })).unwrap();
    let steps = [
        json!({ "lyrics": "ʻekahi\n" }),
        json!({ "plays": 2 }),
        json!({ "verses": ["v"] }),
        json!({ "tags": ["x"] }),
        json!({ "meta": { "a": 1 } }),
        json!({ "lyrics": "ʻekahi\nʻelua\n", "title": "u" }),
    ];
    for step in &steps {
        songs.patch("1", step).unwrap();
    }
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    for device in [&a, &b] {
        let mut told: Vec<_> = device.documents("songs").document("1").history(50).unwrap();
        told.reverse();
        assert_eq!(told.len(), 1 + steps.len());
        for (told, step) in told[1..].iter().zip(&steps) {
            let fields: Vec<&String> = step.as_object().unwrap().keys().collect();
            assert_eq!(told.fields.iter().collect::<Vec<_>>(), fields);
        }
    }
}
