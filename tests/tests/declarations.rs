//! Declarations that change: what stays on the device and does not any more, what is owed then, and fields that are renamed.

use std::path::Path;

use motet::{DocumentState, Field, FieldKind, Replica, Schema, WriteError};
use motet_tests::{TestRelay, contents, declared, sync};
use serde_json::{Value, json};

fn shared(collection: &str) -> Schema {
    let mut schema = Schema::new();
    schema.collections.entry(collection.to_owned()).or_default().local = Some(false);
    schema
}

/// Every device sends and receives until nothing is left to do, and all show the same.
fn settle(replicas: &[&Replica], relay: &TestRelay) {
    for _ in 0..2 {
        replicas.iter().for_each(|replica| _ = sync(replica, &relay.url()));
    }
    for replica in replicas {
        assert_eq!(contents(replica), contents(replicas[0]));
        assert_eq!(replica.status().pending, 0);
        assert_eq!(replica.verify().unwrap().problems, []);
        assert!(replica.quarantined(10).unwrap().is_empty());
    }
}

fn purge(replica: &Replica, collection: &str, id: &str) {
    let (collection, id) = (collection.to_owned(), id.to_owned());
    replica.transaction(move |tx| tx.documents(&collection).purge(&id)).unwrap();
}

fn value(replica: &Replica, collection: &str, id: &str) -> Value {
    replica.documents(collection).get(id).unwrap().map_or(Value::Null, |record| record.value.clone())
}

#[test]
fn documents_of_a_collection_that_is_not_local_any_more_are_owed_whole() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) =
        (declared(dir.path(), "a", &Schema::new().local("diary")), declared(dir.path(), "b", &Schema::new()));
    let diary = a.documents("diary");
    diary.upsert("1", &json!({ "title": "Kahi", "meta": { "mood": "leʻa", "page": 1 } })).unwrap();
    diary.patch("1", &json!({ "meta": { "page": 2 } })).unwrap();
    diary.upsert("gone", &json!({ "title": "gone" })).unwrap();
    diary.delete("gone").unwrap();
    diary.upsert("empty", &json!({})).unwrap();
    sync(&a, &relay.url());
    let whole = json!({ "id": "1", "title": "Kahi", "meta": { "mood": "leʻa", "page": 2 } });
    assert_eq!(value(&a, "diary", "1"), whole);
    a.apply_schema(&shared("diary")).unwrap();
    assert_eq!(
        a.documents("diary").document("1").status().unwrap().unwrap().state,
        DocumentState::PendingCreate
    );
    assert_eq!(a.status().pending, 2);
    settle(&[&a, &b], &relay);
    assert_eq!(value(&b, "diary", "1"), whole);
    assert_eq!(value(&b, "diary", "empty"), json!({ "id": "empty" }));
    // And an edit is an edit.
    diary.patch("1", &json!({ "title": "Lua" })).unwrap();
    settle(&[&a, &b], &relay);
    assert_eq!(value(&b, "diary", "1")["meta"], whole["meta"]);
}

#[test]
fn what_was_written_while_a_collection_was_local_follows_as_an_edit_of_what_it_was_written_on() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let text = Schema::new().text("diary", "words");
    let (a, b) = (declared(dir.path(), "a", &text), declared(dir.path(), "b", &text));
    let diary = a.documents("diary");
    for id in ["edited", "deleted", "restored", "unsent", "purged", "left"] {
        diary.upsert(id, &json!({ "words": "one\n", "mood": "leʻa", "page": 1 })).unwrap();
    }
    settle(&[&a, &b], &relay);
    diary.patch("unsent", &json!({ "page": 7 })).unwrap();
    a.apply_schema(&Schema::new().local("diary")).unwrap();
    assert_eq!(a.status().pending, 0);
    diary.patch("edited", &json!({ "words": "one\ntwo here\n" })).unwrap();
    let mut record = diary.get("edited").unwrap().unwrap();
    record.value.as_object_mut().unwrap().remove("mood");
    diary.update(&mut record).unwrap();
    for id in ["deleted", "restored"] {
        diary.patch(id, &json!({ "words": "s3cr3t" })).unwrap();
    }
    for id in ["deleted", "restored", "purged"] {
        diary.delete(id).unwrap();
    }
    purge(&a, "diary", "purged");
    // Meanwhile.
    b.documents("diary").patch("edited", &json!({ "words": "zero there\none\n", "page": 2 })).unwrap();
    sync(&b, &relay.url());
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    assert_eq!(value(&b, "diary", "unsent")["page"], 1);
    assert_eq!(value(&b, "diary", "edited")["mood"], "leʻa");
    assert_eq!(value(&a, "diary", "edited")["page"], 2);

    a.apply_schema(&shared("diary")).unwrap();
    settle(&[&a, &b], &relay);
    let edited = json!({ "id": "edited", "words": "zero there\none\ntwo here\n", "page": 2 });
    assert_eq!(value(&b, "diary", "edited"), edited);
    assert_eq!(value(&b, "diary", "unsent")["page"], 7);
    assert_eq!(value(&b, "diary", "left")["page"], 1);
    for gone in ["deleted", "restored", "purged"] {
        assert_eq!(value(&b, "diary", gone), Value::Null);
    }
    // What was written in a document before it was deleted here comes with it when it is restored, here or elsewhere, and not before.
    let seen = |id| b.documents("diary").document(id).history(10).unwrap().len();
    assert_eq!((seen("deleted"), seen("restored")), (2, 2));
    diary.document("restored").restore().unwrap();
    b.documents("diary").document("deleted").restore().unwrap();
    settle(&[&b, &a], &relay);
    for id in ["deleted", "restored"] {
        assert_eq!(value(&b, "diary", id)["words"], "s3cr3t");
    }
}

#[test]
fn a_field_that_is_not_local_any_more_is_taken_over_as_what_it_is_declared_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let values: [(FieldKind, Value); 6] = [
        (FieldKind::Register, json!({ "a": { "b": [1, null] } })),
        (FieldKind::Text, json!("ka pō\n")),
        (FieldKind::Counter, json!(5)),
        (FieldKind::Set, json!(["hula", 7])),
        (FieldKind::List, json!(["ʻekahi", "ʻekahi"])),
        (FieldKind::Ask, json!("which")),
    ];
    let names = ["register", "text", "counter", "set", "list", "ask"];
    let declare = |kinds: &[(FieldKind, Value)]| {
        names
            .iter()
            .zip(kinds)
            .fold(Schema::new(), |schema, (name, (kind, _))| schema.field("songs", name, kind.clone()))
    };
    let local = names.iter().fold(Schema::new(), |s, name| s.field("songs", name, FieldKind::Local));
    let (a, b) = (declared(dir.path(), "a", &local), declared(dir.path(), "b", &declare(&values)));
    let fields: serde_json::Map<_, _> =
        names.iter().zip(&values).map(|(name, (_, value))| ((*name).to_owned(), value.clone())).collect();
    let songs = a.documents("songs");
    songs.upsert("1", &Value::Object(fields.clone())).unwrap();
    songs.upsert("trash", &json!({ "text": "s3cr3t", "title": "t" })).unwrap();
    songs.delete("trash").unwrap();
    settle(&[&b, &a][..1], &relay);
    sync(&a, &relay.url());
    a.apply_schema(&declare(&values)).unwrap();
    a.apply_schema(&declare(&values)).unwrap();
    songs.patch("1", &json!({ "title": "Hoʻi" })).unwrap();
    let mut expected = fields;
    expected.insert("id".into(), json!("1"));
    expected.insert("title".into(), json!("Hoʻi"));
    assert_eq!(value(&a, "songs", "1"), Value::Object(expected.clone()));
    settle(&[&a, &b], &relay);
    assert_eq!(value(&b, "songs", "1"), Value::Object(expected));
    songs.document("1").increment("counter", 1).unwrap();
    b.documents("songs").document("1").increment("counter", 1).unwrap();
    songs.document("1").splice_text("text", 0, 0, "a").unwrap();
    settle(&[&a, &b], &relay);
    assert_eq!(value(&b, "songs", "1")["counter"], 7);
    assert_eq!(value(&b, "songs", "1")["text"], "aka pō\n");
}

#[test]
fn a_field_that_became_local_is_the_devices_own() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (declared(dir.path(), "a", &Schema::new()), declared(dir.path(), "b", &Schema::new()));
    let songs = a.documents("songs");
    for id in ["1", "2"] {
        songs.upsert(id, &json!({ "title": "Hoʻi", "note": { "where": "kīpuka", "page": 1 } })).unwrap();
    }
    settle(&[&a, &b], &relay);
    let found = || a.documents("songs").search("kīpuka", 10).unwrap().len();
    songs.upsert("3", &json!({ "note": "kīpuka" })).unwrap();
    assert_eq!(found(), 3);
    a.apply_schema(&Schema::new().field("songs", "note", FieldKind::Local)).unwrap();
    assert_eq!(found(), 0, "it leaves the index");
    let mut one = songs.get("1").unwrap().unwrap();
    one.value.as_object_mut().unwrap().remove("note");
    songs.update(&mut one).unwrap();
    let mut two = songs.get("2").unwrap().unwrap();
    two.value["note"].as_object_mut().unwrap().remove("where");
    songs.update(&mut two).unwrap();
    songs.patch("2", &json!({ "note": { "more": "s3cr3t" } })).unwrap();
    for _ in 0..2 {
        for replica in [&a, &b] {
            sync(replica, &relay.url());
        }
    }
    let (shown_a, shown_b) = (|id| value(&a, "songs", id), |id| value(&b, "songs", id));
    assert_eq!(shown_a("1"), json!({ "id": "1", "title": "Hoʻi" }));
    assert_eq!(shown_a("2")["note"], json!({ "page": 1, "more": "s3cr3t" }));
    for id in ["1", "2"] {
        assert_eq!(shown_b(id)["note"], json!({ "where": "kīpuka", "page": 1 }));
    }
    // A version of the document has no local field, and going back to it leaves this device's alone.
    let version = songs.get("2").unwrap().unwrap().version;
    songs.patch("2", &json!({ "title": "x" })).unwrap();
    songs.document("2").restore_version(&version).unwrap();
    assert_eq!(shown_a("2")["note"], json!({ "page": 1, "more": "s3cr3t" }));
    // It survives being opened again, and is shared when it is declared so; what was only removed here is there again.
    drop(songs);
    a.apply_schema(&Schema::new().field("songs", "note", Field::register())).unwrap();
    settle(&[&a, &b], &relay);
    assert_eq!(value(&b, "songs", "1")["note"], json!({ "where": "kīpuka", "page": 1 }));
    assert_eq!(value(&b, "songs", "2")["note"]["more"], "s3cr3t");
}

#[test]
fn a_purge_while_a_collection_is_switched_off_is_owed_until_it_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (declared(dir.path(), "a", &Schema::new()), declared(dir.path(), "b", &Schema::new()));
    let songs = a.documents("songs");
    for id in ["quiet", "edited", "sent later"] {
        songs.upsert(id, &json!({ "title": "Hoʻi", "page": 1 })).unwrap();
    }
    settle(&[&a, &b], &relay);
    // Purged before, and switched off before it was sent.
    songs.delete("sent later").unwrap();
    purge(&a, "songs", "sent later");
    a.set_collection_sync("songs", false).unwrap();
    for id in ["quiet", "edited"] {
        songs.delete(id).unwrap();
        purge(&a, "songs", id);
    }
    b.documents("songs").patch("edited", &json!({ "page": 2 })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    sync(&a, &relay.url());
    assert!(a.quarantined(10).unwrap().is_empty());
    drop(a);
    let a = declared(dir.path(), "a", &Schema::new());
    a.set_collection_sync("songs", true).unwrap();
    assert!(a.status().pending > 0);
    settle(&[&a, &b], &relay);
    for id in ["quiet", "sent later"] {
        assert_eq!(value(&b, "songs", id), Value::Null);
        assert!(b.documents("songs").trash().unwrap().is_empty());
    }
    // An edit that the purge had not seen brings the document back, everywhere.
    assert_eq!(value(&a, "songs", "edited")["page"], 2);
    // Once it is sent, nothing of it is left.
    let conn = rusqlite::Connection::open(dir.path().join("a.db")).unwrap();
    let left: i64 = conn
        .query_row(
            "SELECT COUNT(*) FROM change c JOIN document d ON d.id = c.id >> 24 WHERE d.name = 'quiet'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(left, 0);
}

#[test]
fn a_field_has_its_newest_name_on_every_device() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let named = |name: &str, older: &[&str]| {
        let field = older.iter().fold(Field::register().min_len(2), |field, older| field.alias(older));
        Schema::new().field("songs", name, field)
    };
    let a = declared(dir.path(), "a", &named("a", &[]));
    let songs = a.documents("songs");
    songs.upsert("1", &json!({ "a": "first" })).unwrap();
    a.apply_schema(&named("b", &["a"])).unwrap();
    songs.upsert("2", &json!({ "b": "second" })).unwrap();
    a.apply_schema(&named("c", &["b", "a"])).unwrap();
    songs.upsert("3", &json!({ "c": "third" })).unwrap();
    let fresh = declared(dir.path(), "fresh", &named("c", &["b", "a"]));
    settle(&[&a, &fresh], &relay);
    for (id, value) in [("1", "first"), ("2", "second"), ("3", "third")] {
        assert_eq!(self::value(&fresh, "songs", id), json!({ "id": id, "c": value }));
    }
    // A write under an older name is a write of the field, with its rules.
    for older in ["a", "b"] {
        let refused = songs.patch("1", &json!({ older: "x" })).unwrap_err();
        assert_eq!(refused.to_string(), "songs: c has length 1, at least 2 is asked for");
        songs.patch("1", &json!({ older: format!("by {older}") })).unwrap();
        settle(&[&a, &fresh], &relay);
        assert_eq!(self::value(&fresh, "songs", "1"), json!({ "id": "1", "c": format!("by {older}") }));
    }
    let both = songs.patch("1", &json!({ "a": "one", "c": "two" })).unwrap_err();
    assert!(both.to_string().contains("\"c\" is given twice"), "{both}");
    // It is called what it was called before.
    for replica in [&a, &fresh] {
        replica.apply_schema(&named("a", &["c", "b"])).unwrap();
    }
    settle(&[&a, &fresh], &relay);
    assert_eq!(self::value(&a, "songs", "3"), json!({ "id": "3", "a": "third" }));
}

#[test]
fn two_fields_that_older_declarations_make_one_are_refused_and_nothing_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    let stored = Schema::new().field("songs", "b", Field::register().alias("c")).field(
        "songs",
        "d",
        Field::register().alias("a"),
    );
    let a = declared(dir.path(), "a", &stored);
    a.documents("songs").upsert("1", &json!({ "c": 1, "a": 2 })).unwrap();
    let cycle = Schema::new()
        .field("albums", "title", Field::text())
        .field("songs", "a", Field::register().alias("b"))
        .field("songs", "c", Field::register().alias("d"));
    let refused = a.apply_schema(&cycle).unwrap_err();
    assert!(matches!(refused, WriteError::Schema(_)), "{refused}");
    let message = refused.to_string();
    assert!(message.contains("songs.a") && message.contains("\"c\""), "{message}");
    assert_eq!(value(&a, "songs", "1"), json!({ "id": "1", "b": 1, "d": 2 }));
    a.documents("songs").patch("1", &json!({ "b": 3 })).unwrap();
    assert_eq!(value(&a, "songs", "1"), json!({ "id": "1", "b": 3, "d": 2 }));
}

#[test]
fn a_local_field_keeps_its_value_when_it_is_renamed() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = declared(dir.path(), "a", &Schema::new().field("songs", "key", FieldKind::Local));
    let b = declared(dir.path(), "b", &Schema::new());
    let songs = a.documents("songs");
    songs.upsert("1", &json!({ "key": "s3cr3t", "title": "t" })).unwrap();
    let renamed = Field::from(FieldKind::Local).alias("key");
    a.apply_schema(&Schema::new().field("songs", "secret", renamed)).unwrap();
    assert_eq!(value(&a, "songs", "1")["secret"], "s3cr3t");
    songs.patch("1", &json!({ "key": "s3cr3t too" })).unwrap();
    assert_eq!(value(&a, "songs", "1"), json!({ "id": "1", "secret": "s3cr3t too", "title": "t" }));
    for replica in [&a, &b] {
        sync(replica, &relay.url());
    }
    assert_eq!(value(&b, "songs", "1"), json!({ "id": "1", "title": "t" }));
    a.apply_schema(&Schema::new().field("songs", "open", Field::text().alias("secret"))).unwrap();
    for replica in [&a, &b] {
        sync(replica, &relay.url());
    }
    assert_eq!(value(&b, "songs", "1"), json!({ "id": "1", "open": "s3cr3t too", "title": "t" }));
}

#[test]
fn rules_hold_at_every_entrance() {
    let dir = tempfile::tempdir().unwrap();
    let schema = Schema::new()
        .field("songs", "plays", Field::from(FieldKind::Counter).min(0.0).max(10.0).alias("count"))
        .field("songs", "words", Field::text().max_len(5).min_len(2).alias("lyrics"))
        .field("songs", "tags", Field::from(FieldKind::Set).max_len(2).alias("labels"));
    let a = declared(dir.path(), "a", &Schema::new());
    let songs = a.documents("songs");
    songs.upsert("over", &json!({ "plays": 20, "words": "too many words", "tags": [1, 2, 3, 4] })).unwrap();
    a.apply_schema(&schema).unwrap();
    songs.upsert("1", &json!({ "plays": 8, "words": "pō", "tags": ["a", "b", "a"] })).unwrap();
    let add = |id: &str, field: &str, add: &[Value], remove: &[Value]| {
        let (id, field, add, remove) = (id.to_owned(), field.to_owned(), add.to_vec(), remove.to_vec());
        a.transaction(move |tx| {
            tx.documents("songs").add_to_set(&id, &field, &add)?;
            tx.documents("songs").remove_from_set(&id, &field, &remove)
        })
    };
    for field in ["plays", "count"] {
        for (by, rule) in [(3, "is above 10"), (1_000, "is above 10"), (-9, "is below 0")] {
            let refused = songs.document("1").increment(field, by).unwrap_err();
            assert_eq!(refused.to_string(), format!("songs: plays {rule}"));
        }
        let refused = songs.document("1").increment(field, i64::MAX).unwrap_err();
        assert!(matches!(refused, WriteError::Rule { .. }), "{refused}");
    }
    for field in ["words", "lyrics"] {
        let refused = songs.document("1").splice_text(field, 0, 0, "ʻāā ʻ").unwrap_err();
        assert_eq!(refused.to_string(), "songs: words has length 7, at most 5 is allowed");
        let refused = songs.document("1").splice_text(field, 0, 1, "").unwrap_err();
        assert_eq!(refused.to_string(), "songs: words has length 1, at least 2 is asked for");
    }
    for field in ["tags", "labels"] {
        let refused = add("1", field, &[json!("c")], &[]).unwrap_err();
        assert_eq!(refused.to_string(), "songs: tags has length 3, at most 2 is allowed");
        add("1", field, &[json!("a"), json!("b")], &[]).unwrap();
    }
    songs.document("1").increment("count", 2).unwrap();
    songs.document("1").splice_text("lyrics", 2, 0, "ʻo").unwrap();
    let shown = json!({ "id": "1", "plays": 10, "words": "pōʻo", "tags": ["a", "b"] });
    assert_eq!(value(&a, "songs", "1"), shown);
    // What is beyond a rule already may come nearer.
    songs.document("over").increment("plays", -5).unwrap();
    songs.document("over").splice_text("words", 0, 4, "").unwrap();
    add("over", "tags", &[], &[json!(1)]).unwrap();
    for refused in [
        songs.document("over").increment("plays", 1).unwrap_err(),
        songs.document("over").increment("plays", -16).unwrap_err(),
        songs.document("over").splice_text("words", 0, 0, "a").unwrap_err(),
        add("over", "tags", &[json!(9)], &[]).unwrap_err(),
    ] {
        assert!(matches!(refused, WriteError::Rule { .. }), "{refused}");
    }
    assert_eq!(
        value(&a, "songs", "over"),
        json!({ "id": "over", "plays": 15, "words": "many words", "tags": [2, 3, 4] })
    );
}

#[test]
fn what_was_local_of_a_document_is_there_when_another_device_brings_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (declared(dir.path(), "a", &Schema::new()), declared(dir.path(), "b", &Schema::new()));
    let diary = a.documents("diary");
    diary.upsert("1", &json!({ "title": "Kahi", "page": 1 })).unwrap();
    settle(&[&a, &b], &relay);
    a.apply_schema(&Schema::new().local("diary")).unwrap();
    diary.patch("1", &json!({ "title": "Lua" })).unwrap();
    diary.delete("1").unwrap();
    a.apply_schema(&shared("diary")).unwrap();
    b.documents("diary").patch("1", &json!({ "page": 2 })).unwrap();
    settle(&[&b, &a], &relay);
    assert_eq!(value(&b, "diary", "1"), json!({ "id": "1", "title": "Lua", "page": 2 }));
}

#[test]
fn what_could_not_be_shared_one_day_is_not_kept_either() {
    let dir = tempfile::tempdir().unwrap();
    let a = declared(dir.path(), "a", &Schema::new().local("diary"));
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    for bad in [json!({ "": 1 }), json!({ "f": { "": 1 } }), json!({ "f": deep })] {
        assert!(matches!(a.documents("diary").upsert("1", &bad), Err(WriteError::BadValue { .. })));
    }
    assert!(a.documents("diary").list().unwrap().is_empty());
}

#[test]
fn a_document_in_the_trash_follows_declarations_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let a = declared(dir.path(), "a", &Schema::new());
    let diary = a.documents("diary");
    diary.upsert("1", &json!({ "title": "Kahi" })).unwrap();
    a.apply_schema(&Schema::new().local("diary")).unwrap();
    diary.patch("1", &json!({ "title": "Lua" })).unwrap();
    diary.delete("1").unwrap();
    let renamed = Schema::new().field("diary", "name", Field::register().alias("title"));
    for schema in [shared("diary"), renamed, Schema::new().local("diary")] {
        a.apply_schema(&schema).unwrap();
        assert_eq!(a.verify().unwrap().problems, []);
    }
    diary.document("1").restore().unwrap();
    assert_eq!(value(&a, "diary", "1"), json!({ "id": "1", "name": "Lua" }));
}

/// A field that is local, or whose collection is, and is not any more.
fn local_and_shared() -> [(Schema, Schema); 2] {
    let kinds = || Schema::new().text("songs", "t").field("songs", "c", FieldKind::Counter);
    let fields = Schema::new().field("songs", "t", FieldKind::Local).field("songs", "c", FieldKind::Local);
    [(Schema::new().local("songs"), shared("songs")), (fields, kinds())]
}

fn two(dir: &Path) -> (TestRelay, Replica, Replica) {
    let kinds = Schema::new().text("songs", "t").field("songs", "c", FieldKind::Counter);
    (TestRelay::start(&dir.join("relay")), declared(dir, "a", &kinds), declared(dir, "b", &kinds))
}

#[test]
fn a_record_of_before_its_collection_was_local_is_an_edit_of_what_it_was() {
    for (local, shared) in local_and_shared() {
        let dir = tempfile::tempdir().unwrap();
        let (relay, a, b) = two(dir.path());
        let songs = a.documents("songs");
        songs.upsert("1", &json!({ "t": "one\n", "c": 1 })).unwrap();
        settle(&[&a, &b], &relay);
        let mut record = songs.get("1").unwrap().unwrap();
        a.apply_schema(&local).unwrap();
        b.documents("songs").document("1").splice_text("t", 0, 0, "BEE\n").unwrap();
        b.documents("songs").document("1").increment("c", 10).unwrap();
        [&b, &a].iter().for_each(|replica| _ = sync(replica, &relay.url()));
        record.value["t"] = json!("one\nʻAE\n");
        record.value["c"] = json!(2);
        songs.update(&mut record).unwrap();
        a.apply_schema(&shared).unwrap();
        settle(&[&a, &b], &relay);
        let expected = json!({ "id": "1", "t": "BEE\none\nʻAE\n", "c": 12 });
        assert_eq!(value(&b, "songs", "1"), expected);
    }
}

#[test]
fn a_record_of_while_its_collection_was_local_is_an_edit_of_what_it_showed() {
    for (local, shared) in local_and_shared() {
        for is_beside in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (relay, a, b) = two(dir.path());
            let songs = a.documents("songs");
            songs.upsert("1", &json!({ "t": "one\n", "c": 1 })).unwrap();
            settle(&[&a, &b], &relay);
            a.apply_schema(&local).unwrap();
            songs.patch("1", &json!({ "t": "one\ntwo\n", "c": 5 })).unwrap();
            if is_beside {
                b.documents("songs").document("1").splice_text("t", 0, 0, "BEE\n").unwrap();
                b.documents("songs").document("1").increment("c", 10).unwrap();
                [&b, &a].iter().for_each(|replica| _ = sync(replica, &relay.url()));
            }
            let mut record = songs.get("1").unwrap().unwrap();
            let mut editor = songs.edit("1").unwrap().unwrap();
            a.apply_schema(&shared).unwrap();
            record.value["t"] = json!("one\ntwo three\n");
            record.value["c"] = json!(6);
            songs.update(&mut record).unwrap();
            record.value["c"] = json!(7);
            songs.update(&mut record).unwrap();
            editor["t"] = json!("zero\none\ntwo\n");
            editor.save().unwrap();
            editor["t"] = json!("zero\none\ntwo\nfour\n");
            editor.close().unwrap();
            settle(&[&a, &b], &relay);
            let now = value(&b, "songs", "1");
            let lines = now["t"].as_str().unwrap().lines().collect::<std::collections::BTreeSet<_>>();
            let (bee, plays) = if is_beside { (vec!["BEE"], 17) } else { (vec![], 7) };
            let expected = ["four", "one", "two three", "zero"].into_iter().chain(bee).collect();
            assert_eq!(
                (lines, now["t"].as_str().unwrap().lines().count()),
                (expected, 4 + usize::from(is_beside))
            );
            assert_eq!(now["c"], plays);
        }
    }
}

#[test]
fn in_a_local_collection_two_who_read_the_same_merge() {
    let dir = tempfile::tempdir().unwrap();
    let kinds = Schema::new()
        .text("songs", "t")
        .field("songs", "c", FieldKind::Counter)
        .field("songs", "s", FieldKind::Set)
        .field("songs", "l", FieldKind::List)
        .local("songs");
    let a = declared(dir.path(), "a", &kinds);
    let songs = a.documents("songs");
    songs.upsert("1", &json!({ "t": "one\n", "c": 5, "s": ["a"], "l": ["a"], "n": 1 })).unwrap();
    let mut records = [songs.get("1").unwrap().unwrap(), songs.get("1").unwrap().unwrap()];
    let mut editor = songs.edit("1").unwrap().unwrap();
    records[0].value =
        json!({ "id": "1", "t": "zero\none\n", "c": 6, "s": ["a", "b"], "l": ["a", "b"], "n": 2 });
    records[1].value = json!({ "id": "1", "t": "one\ntwo\n", "c": 7, "s": ["c"], "l": ["c", "a"], "n": 1 });
    records.iter_mut().for_each(|record| _ = songs.update(record).unwrap());
    editor["t"] = json!("one!\n");
    editor.close().unwrap();
    let merged =
        json!({ "id": "1", "t": "zero\none!\ntwo\n", "c": 8, "s": ["b", "c"], "l": ["c", "a", "b"], "n": 2 });
    assert_eq!(value(&a, "songs", "1"), merged);
}

#[test]
fn a_contested_field_that_was_local_is_chosen_here() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let ask = Schema::new().field("songs", "k", FieldKind::Ask);
    let (a, b) = (declared(dir.path(), "a", &ask), declared(dir.path(), "b", &ask));
    a.documents("songs").upsert("1", &json!({ "k": "0" })).unwrap();
    settle(&[&a, &b], &relay);
    b.documents("songs").patch("1", &json!({ "k": "b" })).unwrap();
    a.documents("songs").patch("1", &json!({ "k": "a" })).unwrap();
    settle(&[&a, &b], &relay);
    assert_eq!(a.documents("songs").document("1").conflicts().unwrap().len(), 1);
    a.apply_schema(&Schema::new().field("songs", "k", FieldKind::Local)).unwrap();
    // What stays here is in no conflict.
    let open = |replica: &Replica| {
        let conflicts = replica.documents("songs").document("1").conflicts().unwrap();
        conflicts.iter().filter(|conflict| !conflict.settled).count()
    };
    assert_eq!((open(&a), a.counts().unwrap().conflicts, open(&b)), (0, 0, 1));
    a.apply_schema(&ask).unwrap();
    assert_eq!((open(&a), a.counts().unwrap().conflicts), (1, 1));
    a.apply_schema(&Schema::new().field("songs", "k", FieldKind::Local)).unwrap();
    a.documents("songs").patch("1", &json!({ "k": "here" })).unwrap();
    a.apply_schema(&ask).unwrap();
    settle(&[&a, &b], &relay);
    assert_eq!((value(&a, "songs", "1"), open(&b)), (json!({ "id": "1", "k": "here" }), 0));
    assert_eq!(value(&a, "songs", "1"), value(&b, "songs", "1"));
}

#[test]
fn what_was_local_before_others_wrote_it_merges_with_them() {
    // The document was made with it; or both were, on two devices.
    for is_collection in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let kinds = || {
            let schema = Schema::new().text("songs", "t").field("songs", "c", FieldKind::Counter);
            schema.field("songs", "l", FieldKind::List)
        };
        let local = match is_collection {
            true => kinds().local("songs"),
            false => {
                ["t", "c", "l"].iter().fold(Schema::new(), |s, name| s.field("songs", name, FieldKind::Local))
            }
        };
        let relay = TestRelay::start(&dir.path().join("relay"));
        let (a, b) = (declared(dir.path(), "a", &local), declared(dir.path(), "b", &kinds()));
        a.documents("songs").upsert("1", &json!({ "t": "mine\n", "c": 5, "l": ["mine"], "x": 1 })).unwrap();
        [&a, &b].iter().for_each(|replica| _ = sync(replica, &relay.url()));
        b.documents("songs").upsert("1", &json!({ "t": "theirs\n", "c": 100, "l": ["theirs"] })).unwrap();
        [&b, &a].iter().for_each(|replica| _ = sync(replica, &relay.url()));
        let mine = json!({ "id": "1", "t": "mine\n", "c": 5, "l": ["mine"], "x": 1 });
        assert_eq!(value(&a, "songs", "1"), mine);
        a.apply_schema(&match is_collection {
            true => shared("songs"),
            false => kinds(),
        })
        .unwrap();
        settle(&[&a, &b], &relay);
        let song = value(&b, "songs", "1");
        let mut lines: Vec<_> = song["t"].as_str().unwrap().lines().collect();
        lines.sort_unstable();
        assert_eq!(
            (lines, &song["c"], &song["x"]),
            (vec!["mine", "theirs"], &json!(105), &json!(1)),
            "{is_collection}"
        );
        assert_eq!(song["l"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn more_than_one_change_may_hold_was_local() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let names = ["t", "u", "v"];
    let local =
        names.iter().fold(Schema::new(), |schema, name| schema.field("songs", name, FieldKind::Local));
    let plain =
        names.iter().fold(Schema::new(), |schema, name| schema.field("songs", name, Field::register()));
    let (a, b) = (declared(dir.path(), "a", &local), declared(dir.path(), "b", &plain));
    for name in names {
        a.documents("songs").upsert("1", &json!({ name: name.repeat(4_000_000) })).unwrap();
    }
    a.apply_schema(&plain).unwrap();
    settle(&[&a, &b], &relay);
    assert!(names.iter().all(|name| value(&b, "songs", "1")[name] == name.repeat(4_000_000)));
}

#[test]
fn indexes_and_search_follow_a_rename() {
    let dir = tempfile::tempdir().unwrap();
    let lists = Schema::new().search("songs", ["old", "meta.place"]).index("songs", ["old", "meta.n"]);
    let a = declared(dir.path(), "a", &lists);
    let songs = a.documents("songs");
    let found = |words: &str| songs.search(words, 10).unwrap().len();
    songs.upsert("1", &json!({ "old": "hula mele", "meta": { "place": "Hilo", "n": 1 } })).unwrap();
    assert_eq!((found("hula"), found("hilo")), (1, 1));
    a.apply_schema(&Schema::new().field("songs", "new", Field::register().alias("old"))).unwrap();
    a.apply_schema(&Schema::new().field("songs", "data", Field::register().alias("meta"))).unwrap();
    songs.upsert("2", &json!({ "new": "hula kahiko", "data": { "place": "Hilo" } })).unwrap();
    assert_eq!((found("hula"), found("hilo")), (2, 2));
    let dotted = Schema::new().search("songs", ["a\\.b", "data.places"]).index("songs", ["a\\.b"]);
    a.apply_schema(&dotted).unwrap();
    a.apply_schema(&Schema::new().field("songs", "c.d", Field::register().alias("a.b"))).unwrap();
    songs.upsert("3", &json!({ "c.d": "hula", "data": { "places": { "first": "Kona" } } })).unwrap();
    assert_eq!((found("hula"), found("kona"), found("hilo")), (1, 1, 0));
    // An app that still names the older one means the same field.
    a.apply_schema(&Schema::new().search("songs", ["old"])).unwrap();
    assert_eq!((found("hula"), found("hilo")), (2, 0));
    assert_eq!(a.verify().unwrap().problems, []);
}

/// What is open when its field becomes local is open nowhere then, in whatever order a device hears of it.
#[test]
fn a_conflict_of_a_field_that_becomes_local_is_settled_on_every_device() {
    for (one, other) in
        [(json!({}), json!("")), (json!(1), json!(2)), (json!(""), json!({})), (json!([]), json!({}))]
    {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let devices = ["a", "b", "c"].map(|name| declared(dir.path(), name, &Schema::new()));
        let [a, b, _] = &devices;
        a.documents("pieces").upsert("1", &json!({ "f": one })).unwrap();
        b.documents("pieces").upsert("1", &json!({ "f": other })).unwrap();
        sync(a, &relay.url());
        sync(b, &relay.url());
        let local = Schema::new().field("pieces", "f", FieldKind::Local);
        devices.iter().for_each(|device| device.apply_schema(&local).unwrap());
        for round in 0..2 {
            for device in &devices {
                sync(device, &relay.url());
                let rows = device.documents("pieces").document("1").conflicts().unwrap();
                assert!(rows.iter().all(|row| row.settled), "{one} {other}, round {round}: {rows:?}");
            }
        }
    }
}

/// A collection of settings: some keys are shared, others stay on the device.
#[test]
fn some_documents_of_a_collection_stay_here() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let settings = "[collections.config]\nlocal_ids = [\"api_key\", \"password*\", \"ʻike*\"]\n";
    let [a, b] = ["a", "b"].map(|name| declared(dir.path(), name, &Schema::from_toml(settings).unwrap()));
    let config = a.documents("config");
    let secrets = ["api_key", "password", "password_of_mail", "ʻike huna"];
    for id in secrets {
        config.upsert(id, &json!({ "value": format!("s3cr3t {id}") })).unwrap();
        config.patch(id, &json!({ "value": format!("s3cr3t {id} hou") })).unwrap();
        assert_eq!(
            a.documents("config").document(id).status().unwrap().unwrap().state,
            DocumentState::LocalOnly
        );
    }
    for id in ["ai_model", "api_keys", "api"] {
        config.upsert(id, &json!({ "value": format!("shared {id}") })).unwrap();
    }
    config.delete("password").unwrap();
    // What another device has under such a name stays there as well.
    b.documents("config").upsert("api_key", &json!({ "value": "s3cr3t of b" })).unwrap();
    for replica in [&a, &b, &a] {
        sync(replica, &relay.url());
    }
    let ids = |replica: &Replica| -> Vec<String> {
        replica.documents("config").list().unwrap().into_iter().map(|record| record.id).collect()
    };
    assert_eq!(ids(&b), ["ai_model", "api", "api_key", "api_keys"]);
    let value = |replica: &Replica, id: &str| {
        replica.documents("config").get(id).unwrap().map(|record| record["value"].clone())
    };
    assert_eq!(value(&b, "api_key"), Some(json!("s3cr3t of b")));
    assert_eq!(value(&a, "api_key"), Some(json!("s3cr3t api_key hou")));
    // Nothing of them is in what leaves the device.
    let mut left = vec![a.export_change_log(0).unwrap().to_string().into_bytes()];
    a.export_all(|line| left.push(line.to_string().into_bytes())).unwrap();
    a.backup(dir.path().join("backup.db")).unwrap();
    left.push(std::fs::read(dir.path().join("backup.db")).unwrap());
    for file in std::fs::read_dir(dir.path().join("relay")).unwrap() {
        left.push(std::fs::read(file.unwrap().path()).unwrap());
    }
    assert!(left.iter().all(|bytes| !bytes.windows(6).any(|window| window == b"s3cr3t")));
    let backup = Replica::open(dir.path().join("backup.db")).unwrap();
    assert_eq!(ids(&backup), ["ai_model", "api", "api_keys"]);
    // One that is not named any more is shared from then on, by whoever has it: both values meet.
    let fewer = Schema::new().local_ids("config", ["password*", "ʻike*"]);
    [&a, &b].iter().for_each(|replica| replica.apply_schema(&fewer).unwrap());
    for replica in [&a, &b, &a, &b] {
        sync(replica, &relay.url());
    }
    assert_eq!(value(&a, "api_key"), value(&b, "api_key"));
    assert_eq!(a.documents("config").document("api_key").conflicts().unwrap().len(), 1);
    assert_eq!((value(&b, "password_of_mail"), a.status().pending), (None, 0));
    for wrong in ["", "*", "a*b", "**"] {
        let error = a.apply_schema(&Schema::new().local_ids("config", [wrong])).unwrap_err();
        assert!(error.to_string().contains("local_ids"), "{error}");
    }
}
