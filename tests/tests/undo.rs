//! Undo and redo: alone a device goes back version by version, beside others it takes back only its own.

use motet::{FieldKind, Replica, Schema, UndoScope, Undone, UndoneEffect, WriteError};
use motet_tests::random::{Random, runs, seed};
use motet_tests::{Cli, TestRelay, sync};
use serde_json::{Value as Json, json};

fn schema() -> Schema {
    Schema::new()
        .text("songs", "lyrics")
        .field("songs", "plays", FieldKind::Counter)
        .field("songs", "tags", FieldKind::Set)
        .field("songs", "verses", FieldKind::List)
        .field("songs", "status", motet::Field::rank(["draft", "learned", "performed"]))
        .field("songs", "key", FieldKind::Ask)
        .field("songs", "note", FieldKind::Local)
}

fn open(dir: &std::path::Path, name: &str) -> Replica {
    let replica = Replica::builder(dir.join(format!("{name}.db"))).device_name(name).open().unwrap();
    replica.apply_schema(&schema()).unwrap();
    replica
}

fn value(replica: &Replica, id: &str) -> Option<Json> {
    let record = replica.documents("songs").get(id).unwrap()?;
    let mut value = record.value.clone();
    value.as_object_mut().unwrap().remove("id");
    Some(value)
}

/// Writes each value of a field in a transaction of its own, then goes back and forth over all of them.
fn there_and_back(field: &str, values: &[Json]) {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    a.documents("songs").upsert("1", &json!({ field: values[0] })).unwrap();
    for value in &values[1..] {
        a.documents("songs").patch("1", &json!({ field: value })).unwrap();
    }
    for _ in 0..2 {
        for expected in values.iter().rev().skip(1) {
            assert!(a.undo().unwrap().is_some());
            assert_eq!(value(&a, "1").unwrap()[field], *expected, "undo in {field} of {values:?}");
        }
        assert!(a.undo().unwrap().is_some());
        assert_eq!(value(&a, "1"), None);
        assert!(a.undo().unwrap().is_none());
        for expected in values {
            assert!(a.redo().unwrap().is_some());
            assert_eq!(value(&a, "1").unwrap()[field], *expected, "redo in {field} of {values:?}");
        }
        assert!(a.redo().unwrap().is_none());
    }
    assert!(a.verify().unwrap().problems.is_empty());
}

#[test]
fn writes_on_older_versions_go_back_one_by_one() {
    let cases = [
        ["verse\n", "verse\nA\nB\n", "verse\nB\nA\n"],
        ["word", "", "words"],
        ["hello world", "goodbye moon", "greetings stars"],
        ["1. a\n2. b", "1. x\n2. a\n3. b", "1. a\n2. y\n3. b"],
    ];
    for [old, ours, theirs] in cases {
        let dir = tempfile::tempdir().unwrap();
        let a = open(dir.path(), "a");
        let songs = a.documents("songs");
        songs.upsert("1", &json!({ "lyrics": old })).unwrap();
        let [mut one, mut two] = [(); 2].map(|()| songs.get("1").unwrap().unwrap());
        let mut versions = vec![value(&a, "1").unwrap()];
        for n in 0..2 {
            for (record, text) in [(&mut one, ours), (&mut two, theirs)] {
                record["lyrics"] = format!("{text}{}", " hou".repeat(n)).into();
                songs.update(record).unwrap();
                versions.push(value(&a, "1").unwrap());
            }
        }
        for version in versions.iter().rev().skip(1) {
            a.undo().unwrap().unwrap();
            assert_eq!(value(&a, "1").unwrap(), *version, "{old:?} {ours:?} {theirs:?}");
        }
        for version in &versions[1..] {
            a.redo().unwrap().unwrap();
            assert_eq!(value(&a, "1").unwrap(), *version, "redo {old:?} {ours:?} {theirs:?}");
        }
    }
}

#[test]
fn texts_go_back_version_by_version() {
    there_and_back("lyrics", &[json!("one"), json!("two"), json!("six")]);
    let dog = ["The", "The cat", "The dog", "The dog sat", "The dog ran"];
    there_and_back("lyrics", &dog.map(Json::from));
    there_and_back("lyrics", &["ʻekahi\n", "", "ʻelua 👩‍🎤\n", "e\u{301}\r\n", "é\n"].map(Json::from));
}

#[test]
fn fields_of_every_kind_go_back_version_by_version() {
    there_and_back("verses", &[json!(["a"]), json!(["a", "b"]), json!(["a", "b", "c"])]);
    there_and_back("verses", &[json!([]), json!([1, 1]), json!([{ "a": 1 }, 1]), json!([[2], null, 1])]);
    there_and_back("plays", &[json!(1), json!(5), json!(2), json!(-7), json!(0)]);
    there_and_back("tags", &[json!(["x"]), json!(["x", "y"]), json!(["y"]), json!([]), json!([1, true])]);
    there_and_back("status", &[json!("draft"), json!("performed"), json!("learned")]);
    there_and_back("key", &[json!("C"), json!("D"), json!({ "of": "G" }), json!(null)]);
    let objects = [json!({ "a": { "b": 1, "c": 2 } }), json!({ "a": { "c": 3 } }), json!({ "d": [1] })];
    for pair in objects.windows(2) {
        // A patch merges into an object: what it lacks stays.
        let dir = tempfile::tempdir().unwrap();
        let a = open(dir.path(), "a");
        a.documents("songs").upsert("1", &json!({ "meta": pair[0] })).unwrap();
        let first = value(&a, "1");
        a.documents("songs").patch("1", &json!({ "meta": pair[1] })).unwrap();
        let second = value(&a, "1");
        a.undo().unwrap().unwrap();
        assert_eq!(value(&a, "1"), first);
        a.redo().unwrap().unwrap();
        assert_eq!(value(&a, "1"), second);
    }
}

#[test]
fn a_new_edit_drops_what_could_be_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    let songs = a.documents("songs");
    for title in ["one", "two", "three"] {
        songs.upsert("1", &json!({ "title": title })).unwrap();
    }
    a.undo().unwrap().unwrap();
    a.undo().unwrap().unwrap();
    a.redo().unwrap().unwrap();
    songs.upsert("1", &json!({ "title": "four" })).unwrap();
    assert!(a.redo().unwrap().is_none());
    for title in ["two", "one"] {
        a.undo().unwrap().unwrap();
        assert_eq!(value(&a, "1").unwrap()["title"], title);
    }
    for title in ["two", "four"] {
        a.redo().unwrap().unwrap();
        assert_eq!(value(&a, "1").unwrap()["title"], title);
    }
    assert!(a.redo().unwrap().is_none());
}

#[test]
fn a_transaction_that_deletes_and_makes_anew_is_taken_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    a.documents("songs").upsert("1", &json!({ "title": "t0", "lyrics": "one\n", "tags": ["x"] })).unwrap();
    let before = value(&a, "1");
    a.transaction(|tx| {
        tx.documents("songs").upsert("1", &json!({ "title": "t1" }))?;
        tx.documents("songs").delete("1")?;
        tx.documents("songs").upsert("1", &json!({ "lyrics": "two\n" }))?;
        tx.documents("songs").upsert("2", &json!({ "title": "new" }))?;
        tx.documents("songs").delete("2")
    })
    .unwrap();
    let after = value(&a, "1");
    assert_eq!(after, Some(json!({ "lyrics": "two\n" })));
    a.undo().unwrap().unwrap();
    assert_eq!(value(&a, "1"), before);
    assert_eq!(value(&a, "2"), None);
    a.redo().unwrap().unwrap();
    assert_eq!(value(&a, "1"), after);
    // And the other way about: deleted before, and deleted after.
    a.documents("songs").delete("1").unwrap();
    a.transaction(|tx| {
        tx.documents("songs").upsert("1", &json!({ "title": "again" }))?;
        tx.documents("songs").delete("1")
    })
    .unwrap();
    a.undo().unwrap().unwrap();
    assert_eq!(a.documents("songs").trash().unwrap()[0].fields, json!({ "lyrics": "two\n" }));
    a.undo().unwrap().unwrap();
    assert_eq!(value(&a, "1"), after);
}

#[test]
fn an_undo_says_what_it_took_back() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    a.documents("songs").upsert("1", &json!({ "title": "t", "key": "C" })).unwrap();
    a.transaction(|tx| {
        tx.set_message("for the concert")?;
        tx.documents("songs").patch("1", &json!({ "title": "T", "lyrics": "one\n" }))?;
        tx.documents("lists").upsert("l", &json!({ "songs": ["1"] }))
    })
    .unwrap();
    let told = |undone: Undone| -> Vec<(String, String, UndoneEffect, String)> {
        let documents = undone.documents.into_iter();
        documents.map(|d| (d.collection, d.id, d.effect, d.fields.join(","))).collect()
    };
    let row = |collection: &str, id: &str, effect, fields: &str| {
        (collection.to_owned(), id.to_owned(), effect, fields.to_owned())
    };
    let undone = a.undo().unwrap().unwrap();
    assert_eq!((undone.message.as_deref(), undone.label.as_deref()), (Some("for the concert"), None));
    assert!(undone.at > 1_700_000_000_000);
    let expected = [
        row("songs", "1", UndoneEffect::Updated, "lyrics,title"),
        row("lists", "l", UndoneEffect::Deleted, "songs"),
    ];
    assert_eq!(told(undone), expected);
    let redone = a.redo().unwrap().unwrap();
    assert_eq!(redone.message.as_deref(), Some("for the concert"));
    let expected = [
        row("songs", "1", UndoneEffect::Updated, "lyrics,title"),
        row("lists", "l", UndoneEffect::Restored, "songs"),
    ];
    assert_eq!(told(redone), expected);
}

#[test]
fn an_undo_is_limited_to_a_document_a_collection_or_a_label() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    let title = |id: &str| value(&a, id).map(|song| song["title"].clone());
    a.transaction(|tx| {
        tx.documents("songs").upsert("1", &json!({ "title": "one" }))?;
        tx.documents("songs").upsert("2", &json!({ "title": "two" }))?;
        tx.documents("tasks").upsert("t", &json!({ "title": "task" }))
    })
    .unwrap();
    a.documents("songs").patch("1", &json!({ "title": "ONE" })).unwrap();
    a.documents("songs").patch("2", &json!({ "title": "TWO" })).unwrap();
    let log = |text: &'static str| {
        a.transaction(move |tx| {
            tx.set_label("log")?;
            tx.documents("log").upsert(text, &json!({ "text": text }))
        })
        .unwrap();
    };
    log("first");
    log("second");
    // A document.
    let (one, two) = (UndoScope::document("songs", "1"), UndoScope::document("songs", "2"));
    assert!(a.undo_within(&one).unwrap().is_some());
    assert_eq!((title("1"), title("2")), (Some(json!("one")), Some(json!("TWO"))));
    assert!(a.undo_within(&one).unwrap().is_some());
    assert_eq!((title("1"), title("2")), (None, Some(json!("TWO"))));
    assert!(a.undo_within(&one).unwrap().is_none());
    // A log entry is not what an undo takes back; what is left of a transaction is.
    assert!(a.undo().unwrap().is_some());
    assert_eq!(title("2"), Some(json!("two")));
    let undone = a.undo().unwrap().unwrap();
    assert_eq!(undone.documents.len(), 2);
    assert!(a.undo().unwrap().is_none());
    assert_eq!(a.documents("log").list().unwrap().len(), 2);
    // What was undone within a scope is done again within it.
    assert!(a.redo_within(&two).unwrap().is_some());
    assert_eq!((title("1"), title("2")), (None, Some(json!("two"))));
    a.documents("songs").patch("2", &json!({ "title": "2" })).unwrap();
    assert!(a.redo_within(&two).unwrap().is_none());
    assert!(a.redo().unwrap().is_none());
    assert!(a.redo_within(&one).unwrap().is_some());
    assert!(a.redo_within(&one).unwrap().is_some());
    assert_eq!(title("1"), Some(json!("ONE")));
    // A collection, a label.
    assert!(a.redo_within(&UndoScope::collection("tasks")).unwrap().is_some());
    assert!(a.documents("tasks").get("t").unwrap().is_some());
    let labelled = UndoScope::default().labelled("log");
    let undone = a.undo_within(&labelled).unwrap().unwrap();
    assert_eq!((undone.label.as_deref(), &*undone.documents[0].id), (Some("log"), "second"));
    assert!(a.undo_within(&UndoScope::collection("songs").labelled("log")).unwrap().is_none());
    assert!(a.redo_within(&labelled).unwrap().is_some());
    let too_long = a.transaction(|tx| tx.set_label(&"x".repeat(257)));
    assert!(matches!(too_long, Err(WriteError::BadValue { .. })));
}

#[test]
fn what_another_label_wrote_meanwhile_stays() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    a.documents("songs").upsert("1", &json!({ "lyrics": "one\n", "plays": 1 })).unwrap();
    a.documents("songs").patch("1", &json!({ "lyrics": "one\ntwo\n", "plays": 3 })).unwrap();
    a.transaction(|tx| {
        tx.set_label("import")?;
        tx.documents("songs")
            .patch("1", &json!({ "lyrics": "zero\none\ntwo\n", "plays": 13, "by": "import" }))
    })
    .unwrap();
    a.undo().unwrap().unwrap();
    let left = json!({ "lyrics": "zero\none\n", "plays": 11, "by": "import" });
    assert_eq!(value(&a, "1"), Some(left));
    let undone = a.undo().unwrap().unwrap();
    assert_eq!(undone.documents[0].effect, UndoneEffect::Kept);
    assert_eq!(value(&a, "1"), Some(json!({ "lyrics": "zero\n", "plays": 10, "by": "import" })));
    a.redo().unwrap().unwrap();
    a.redo().unwrap().unwrap();
    let all = json!({ "lyrics": "zero\none\ntwo\n", "plays": 13, "by": "import" });
    assert_eq!(value(&a, "1"), Some(all));
}

#[test]
fn fields_and_collections_that_stay_on_the_device_are_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    a.apply_schema(&Schema::new().local("secrets")).unwrap();
    a.documents("songs").upsert("1", &json!({ "title": "t0", "note": "n0" })).unwrap();
    a.documents("songs").patch("1", &json!({ "title": "t1", "note": "n1" })).unwrap();
    a.documents("songs").patch("1", &json!({ "note": "n2" })).unwrap();
    a.documents("secrets").upsert("s", &json!({ "pin": 1 })).unwrap();
    a.undo().unwrap().unwrap();
    assert_eq!(value(&a, "1"), Some(json!({ "title": "t0", "note": "n2" })));
    assert!(a.documents("secrets").get("s").unwrap().is_some());
    a.redo().unwrap().unwrap();
    assert_eq!(value(&a, "1"), Some(json!({ "title": "t1", "note": "n2" })));
    // What has been declared to stay since then does not leave by an undo.
    a.documents("songs").patch("1", &json!({ "title": "t2", "diary": "open" })).unwrap();
    a.documents("songs").patch("1", &json!({ "title": "t3", "diary": "secret" })).unwrap();
    a.apply_schema(&Schema::new().field("songs", "diary", FieldKind::Local)).unwrap();
    let undone = a.undo().unwrap().unwrap();
    assert_eq!(undone.documents[0].fields, ["title"]);
}

#[test]
fn a_purge_is_for_good_and_does_not_stand_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    a.documents("songs").upsert("1", &json!({ "title": "one" })).unwrap();
    a.transaction(|tx| {
        tx.documents("songs").upsert("2", &json!({ "title": "two" }))?;
        tx.documents("songs").patch("1", &json!({ "title": "ONE" }))
    })
    .unwrap();
    a.transaction(|tx| {
        tx.documents("songs").delete("2")?;
        tx.documents("songs").purge("2")
    })
    .unwrap();
    let undone = a.undo().unwrap().unwrap();
    assert_eq!(undone.documents.iter().map(|d| &*d.id).collect::<Vec<_>>(), ["1"]);
    assert_eq!(value(&a, "1"), Some(json!({ "title": "one" })));
    assert_eq!(value(&a, "2"), None);
}

#[test]
fn undo_goes_on_after_a_schema_was_declared_and_past_rules_that_came_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let a = Replica::open(&path).unwrap();
    let songs = a.documents("later");
    let states = [
        json!({ "text": "one", "count": 1, "list": ["a"], "title": "t" }),
        json!({ "text": "two words", "count": 5, "list": ["b", "a"], "title": "tt" }),
        json!({ "text": "six", "count": 2, "list": [], "title": "ttt" }),
    ];
    for state in &states {
        songs.upsert("1", state).unwrap();
    }
    let declared = Schema::new()
        .text("later", "text")
        .field("later", "count", FieldKind::Counter)
        .field("later", "list", FieldKind::List)
        .field("later", "title", motet::Field::register().min_len(3));
    a.apply_schema(&declared).unwrap();
    songs.patch("1", &json!({ "text": "six or seven", "count": 3 })).unwrap();
    let last = songs.get("1").unwrap().unwrap().value.clone();
    drop(songs);
    drop(a);
    let a = Replica::open(&path).unwrap();
    let songs = a.documents("later");
    let shown = || {
        let mut value = songs.get("1").unwrap().unwrap().value.clone();
        value.as_object_mut().unwrap().remove("id");
        value
    };
    for state in states.iter().rev() {
        assert!(a.undo().unwrap().is_some());
        assert_eq!(shown(), *state);
    }
    for state in &states[1..] {
        assert!(a.redo().unwrap().is_some());
        assert_eq!(shown(), *state);
    }
    assert!(a.redo().unwrap().is_some());
    assert_eq!(songs.get("1").unwrap().unwrap().value, last);
    assert_eq!(songs.violations().unwrap().len(), 0);
}

#[test]
fn undo_reaches_back_over_a_snapshot_and_a_copy_has_nothing_to_undo() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    a.documents("songs").upsert("1", &json!({ "lyrics": "0" })).unwrap();
    for n in 1..280 {
        a.documents("songs").patch("1", &json!({ "lyrics": n.to_string() })).unwrap();
    }
    drop(a);
    let a = open(dir.path(), "a");
    for n in (260..279).rev() {
        assert!(a.undo().unwrap().is_some());
        assert_eq!(value(&a, "1"), Some(json!({ "lyrics": n.to_string() })));
    }
    a.backup(dir.path().join("backup.db")).unwrap();
    drop(a);
    std::fs::copy(dir.path().join("a.db"), dir.path().join("copy.db")).unwrap();
    for name in ["backup", "copy"] {
        let copy = open(dir.path(), name);
        assert!(copy.undo().unwrap().is_none() && copy.redo().unwrap().is_none());
        assert_eq!(value(&copy, "1"), Some(json!({ "lyrics": "260" })));
        copy.documents("songs").patch("1", &json!({ "lyrics": "copied" })).unwrap();
        assert!(copy.undo().unwrap().is_some());
        assert_eq!(value(&copy, "1"), Some(json!({ "lyrics": "260" })));
    }
}

#[test]
fn what_the_library_writes_by_itself_is_not_undone() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (open(dir.path(), "a"), open(dir.path(), "b"));
    a.documents("songs").upsert("1", &json!({ "lyrics": "one\n" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    // Both write the same: whoever merges takes the second copy out.
    for device in [&a, &b] {
        device.documents("songs").patch("1", &json!({ "lyrics": "one\nthe same line\n" })).unwrap();
    }
    for device in [&a, &b, &a] {
        sync(device, &relay.url());
    }
    assert_eq!(value(&a, "1"), Some(json!({ "lyrics": "one\nthe same line\n" })));
    // A field that does not stay on the device any more is written into the document.
    a.documents("songs").patch("1", &json!({ "note": "n" })).unwrap();
    a.apply_schema(&Schema::new().field("songs", "note", FieldKind::Register)).unwrap();
    // The line is the other device's as well.
    let undone = a.undo().unwrap().unwrap();
    assert_eq!(undone.documents[0].effect, UndoneEffect::Unchanged);
    assert_eq!(value(&a, "1"), Some(json!({ "lyrics": "one\nthe same line\n", "note": "n" })));
}

#[test]
fn a_document_that_others_have_written_in_stays_when_its_making_is_undone() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (open(dir.path(), "a"), open(dir.path(), "b"));
    let made = json!({ "title": "t", "lyrics": "mine\n", "plays": 3, "tags": ["x"], "verses": [1] });
    for id in ["1", "2", "3"] {
        a.documents("songs").upsert(id, &made).unwrap();
    }
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    let theirs = b.documents("songs");
    theirs.document("1").splice_text("lyrics", 0, 0, "theirs\n").unwrap();
    theirs.document("1").increment("plays", 4).unwrap();
    // Added again, so that it is theirs as well.
    b.transaction(|tx| tx.documents("songs").add_to_set("1", "tags", &[json!("x"), json!("y")])).unwrap();
    // Written and taken back: nothing of it is there any more.
    theirs.patch("2", &json!({ "title": "theirs" })).unwrap();
    b.undo().unwrap().unwrap();
    theirs.patch("2", &json!({ "plays": 3 })).unwrap();
    theirs.delete("3").unwrap();
    sync(&b, &relay.url());
    sync(&a, &relay.url());
    let effects: Vec<_> = (0..3).map(|_| a.undo().unwrap().unwrap().documents[0].clone()).collect();
    assert_eq!((&*effects[0].id, effects[0].effect), ("3", UndoneEffect::Unchanged));
    assert_eq!(&*effects[1].id, "2");
    assert_eq!((&*effects[2].id, effects[2].effect), ("1", UndoneEffect::Kept));
    assert_eq!(effects[2].fields, ["lyrics", "plays", "title", "verses"]);
    let left = json!({ "lyrics": "theirs\n", "plays": 4, "tags": ["x", "y"] });
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    for device in [&a, &b] {
        assert_eq!(value(device, "1"), Some(left.clone()));
        assert_eq!(value(device, "3"), None);
    }
    assert_eq!(value(&a, "2"), value(&b, "2"));
    a.redo().unwrap().unwrap();
    let all =
        json!({ "title": "t", "lyrics": "theirs\nmine\n", "plays": 7, "tags": ["x", "y"], "verses": [1] });
    assert_eq!(value(&a, "1"), Some(all));
    assert_eq!(a.redo().unwrap().unwrap().documents[0].id, "2");
}

#[test]
fn a_field_that_others_have_written_since_stays_also_with_an_equal_value() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (open(dir.path(), "a"), open(dir.path(), "b"));
    a.documents("songs").upsert("1", &json!({ "title": "t0", "by": "x", "tags": [] })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    let change = json!({ "title": "t1", "by": "y", "tags": ["live"] });
    a.documents("songs").patch("1", &change).unwrap();
    b.documents("songs").patch("1", &json!({ "title": "t1", "tags": ["live"] })).unwrap();
    for device in [&a, &b, &a] {
        sync(device, &relay.url());
    }
    a.undo().unwrap().unwrap();
    assert_eq!(value(&a, "1"), Some(json!({ "title": "t1", "by": "x", "tags": ["live"] })));
}

#[test]
fn a_document_made_on_two_devices_keeps_what_both_made_alike() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (open(dir.path(), "a"), open(dir.path(), "b"));
    let made = json!({ "title": "t", "lyrics": "one\n" });
    a.documents("songs").upsert("1", &made).unwrap();
    b.documents("songs").upsert("1", &made).unwrap();
    for device in [&a, &b, &a] {
        sync(device, &relay.url());
    }
    assert_eq!(a.undo().unwrap().unwrap().documents[0].effect, UndoneEffect::Kept);
    for device in [&a, &b] {
        sync(device, &relay.url());
        assert_eq!(value(device, "1"), Some(made.clone()));
    }
}

#[test]
fn the_command_line_undoes_within_a_scope_and_says_what() {
    let dir = tempfile::tempdir().unwrap();
    let cli = Cli::init(dir.path(), "a", "http://x");
    cli.ok_with(&["put", "songs", "--id", "1"], r#"{"title":"one"}"#);
    cli.ok(&["set", "songs", "1", "title=two"]);
    cli.ok_with(&["put", "tasks", "--id", "t"], r#"{"title":"task"}"#);
    {
        let a = Replica::open(dir.path().join("a.db")).unwrap();
        a.transaction(|tx| {
            tx.set_label("log")?;
            tx.set_message("a line")?;
            tx.documents("log").upsert("l", &json!({ "text": "x" }))
        })
        .unwrap();
    }
    let undone = cli.json(&["undo", "songs", "1", "--json"]);
    assert_eq!((&undone["undone"], &undone["message"]), (&json!(true), &Json::Null));
    let document = json!([{ "collection": "songs", "id": "1", "effect": "updated", "fields": ["title"] }]);
    assert_eq!(undone["documents"], document);
    let told = cli.ok(&["undo"]);
    assert!(told.contains("✓ undone") && told.contains("tasks/t deleted: title"), "{told}");
    let told = cli.ok(&["undo", "--label", "log"]);
    assert!(told.contains("“a line” [log]") && told.contains("log/l deleted: text"), "{told}");
    assert_eq!(cli.json(&["undo", "--label", "log", "--json"]), json!({ "undone": false }));
    let told = cli.ok(&["redo", "tasks"]);
    assert!(told.contains("✓ redone") && told.contains("tasks/t brought back: title"), "{told}");
    assert_eq!(cli.ok(&["redo", "tasks"]).trim(), "nothing to be redone");
    assert_eq!(cli.run(&["redo", "other"]).status.code(), Some(5));
}

/// Edits of every kind, undos and redos, in this program and another, the file closed and opened: whatever is undone, all documents
/// are what they were before. The model is what was shown at that time.
#[test]
fn alone_a_device_goes_back_and_forth_exactly() {
    let seed = seed();
    for script in 0..runs(40) {
        let mut random = Random(seed.wrapping_add(script));
        let dir = tempfile::tempdir().unwrap();
        let mut a = open(dir.path(), "a");
        let mut states = vec![shown(&a)];
        let (mut at, mut log) = (0, Vec::new());
        for _ in 0..40 {
            match random.below(10) {
                0..5 => {
                    let other = (random.below(6) == 0).then(|| open(dir.path(), "a"));
                    let before = versions(&a);
                    log.push(edit(other.as_ref().unwrap_or(&a), &mut random));
                    // What changed nothing is no step.
                    if versions(&a) != before {
                        states.truncate(at + 1);
                        states.push(shown(&a));
                        at += 1;
                    }
                }
                5..8 => {
                    log.push("undo".into());
                    assert_eq!(a.undo().unwrap().is_some(), at > 0, "script {script}: {log:#?}");
                    at = at.saturating_sub(1);
                }
                8 => {
                    log.push("redo".into());
                    let is_last = at + 1 == states.len();
                    assert_eq!(a.redo().unwrap().is_none(), is_last, "script {script}: {log:#?}");
                    at = states.len().min(at + 2) - 1;
                }
                _ => {
                    drop(a);
                    a = open(dir.path(), "a");
                }
            }
            let (live, trash) = (&states[at].0, &states[at].1);
            let now = shown(&a);
            assert_eq!(now.0, *live, "script {script}: {log:#?}");
            // What had not been made yet is in the trash as well now.
            for gone in trash {
                assert!(now.1.contains(gone), "script {script}: {gone:?} of {:?}: {log:#?}", now.1);
            }
        }
        assert!(a.verify().unwrap().problems.is_empty(), "script {script}: {log:#?}");
    }
}

const IDS: [&str; 3] = ["1", "2", "3"];
const COLLECTIONS: [&str; 2] = ["songs", "plain"];

type Shown = Vec<(String, String, Json)>;

/// What is there, and what is in the trash.
fn shown(replica: &Replica) -> (Shown, Shown) {
    let (mut live, mut trash) = (Shown::new(), Shown::new());
    for name in COLLECTIONS {
        let documents = replica.documents(name);
        live.extend(documents.list().unwrap().iter().map(|r| (name.into(), r.id.clone(), r.value.clone())));
        trash.extend(documents.trash().unwrap().into_iter().map(|t| (name.into(), t.id, t.fields)));
    }
    (live, trash)
}

fn versions(replica: &Replica) -> Vec<Option<String>> {
    let status = |name: &&str, id: &&str| {
        replica.documents(name).document(id).status().unwrap().map(|status| format!("{:?}", status.heads))
    };
    COLLECTIONS.iter().flat_map(|name| IDS.iter().map(move |id| status(name, id))).collect()
}

/// A transaction of one to three random writes. Returns what it was.
fn edit(replica: &Replica, random: &mut Random) -> String {
    let mut log = String::new();
    let writes: Vec<_> = (0..=random.below(3)).map(|_| Write::any(random)).collect();
    for write in &writes {
        log.push_str(&format!("{write:?}; "));
    }
    replica
        .transaction(move |tx| {
            for Write { collection, id, what } in writes {
                let is_there = tx.collection::<Json>(collection).get(id)?.is_some();
                // What cannot be done is left out.
                _ = match what {
                    What::Put(value) => tx.documents(collection).upsert(id, &value).map(drop),
                    What::Set(value) if is_there => tx.documents(collection).patch(id, &value).map(drop),
                    What::Replace(value) if is_there => {
                        let mut record = tx.collection::<Json>(collection).get(id)?.unwrap();
                        record.value = value;
                        tx.documents(collection).update(&mut record).map(drop)
                    }
                    What::Splice(at, delete, insert) if is_there => {
                        let text =
                            tx.collection::<Json>(collection).get(id)?.unwrap().value["lyrics"].clone();
                        let len = text.as_str().map_or(0, |text| text.chars().count());
                        let at = at.min(len);
                        let delete = delete.min(len - at);
                        tx.documents(collection).splice_text(id, "lyrics", at, delete, &insert).map(drop)
                    }
                    What::Increment(by) if is_there => {
                        tx.documents(collection).increment(id, "plays", by).map(drop)
                    }
                    What::Add(element) if is_there => {
                        tx.documents(collection).add_to_set(id, "tags", &[element]).map(drop)
                    }
                    What::Remove(element) if is_there => {
                        tx.documents(collection).remove_from_set(id, "tags", &[element]).map(drop)
                    }
                    What::Delete if is_there => tx.documents(collection).delete(id),
                    What::Restore if !is_there => tx.documents(collection).restore(id).map(drop),
                    _ => Ok(()),
                };
            }
            Ok(())
        })
        .unwrap();
    log
}

#[derive(Debug)]
struct Write {
    collection: &'static str,
    id: &'static str,
    what: What,
}

#[derive(Debug)]
enum What {
    Put(Json),
    Set(Json),
    Replace(Json),
    Splice(usize, usize, String),
    Increment(i64),
    Add(Json),
    Remove(Json),
    Delete,
    Restore,
}

impl Write {
    fn any(random: &mut Random) -> Self {
        let collection = COLLECTIONS[random.below(4) as usize / 3];
        let id = IDS[random.below(3) as usize];
        let what = match random.below(12) {
            0 | 1 => What::Put(fields(random)),
            2 | 3 => What::Set(fields(random)),
            4 | 5 => What::Replace(fields(random)),
            6 | 7 => What::Splice(random.below(12) as usize, random.below(5) as usize, words(random)),
            8 => What::Increment(random.below(9) as i64 - 4),
            9 if random.below(2) == 0 => What::Add(element(random)),
            9 => What::Remove(element(random)),
            10 => What::Delete,
            _ => What::Restore,
        };
        Self { collection, id, what }
    }
}

fn fields(random: &mut Random) -> Json {
    let mut fields = serde_json::Map::new();
    for _ in 0..=random.below(3) {
        let (name, value) = match random.below(9) {
            0 | 1 => ("lyrics", words(random).into()),
            2 => ("plays", (random.below(20) as i64 - 5).into()),
            3 => ("tags", sorted((0..random.below(4)).map(|_| element(random)).collect())),
            4 => ("verses", (0..random.below(5)).map(|_| any(random, 1)).collect()),
            5 => ("status", ["draft", "learned", "performed"][random.below(3) as usize].into()),
            6 => ("key", any(random, 0)),
            _ => (["title", "meta"][random.below(2) as usize], any(random, 2)),
        };
        // Now and then a value of another kind, or null.
        let value = match random.below(8) {
            0 => Json::Null,
            1 if name != "status" => any(random, 1),
            _ => value,
        };
        fields.insert(name.into(), value);
    }
    Json::Object(fields)
}

fn sorted(mut elements: Vec<Json>) -> Json {
    elements.sort_by_key(Json::to_string);
    elements.dedup();
    elements.into()
}

fn element(random: &mut Random) -> Json {
    [json!("x"), json!("ʻy"), json!(1), json!(true), json!("")][random.below(5) as usize].clone()
}

fn any(random: &mut Random, depth: u32) -> Json {
    match random.below(if depth == 0 { 6 } else { 9 }) {
        0 => Json::Null,
        1 => (random.below(2) == 0).into(),
        2 => (random.below(5) as i64 - 2).into(),
        3 => 1.5.into(),
        4 | 5 => words(random).into(),
        6 => (0..random.below(3)).map(|_| any(random, depth - 1)).collect(),
        _ => {
            let names = ["a", "b", "ʻokina"];
            let some = (0..random.below(3))
                .map(|_| (names[random.below(3) as usize].into(), any(random, depth - 1)));
            Json::Object(some.collect())
        }
    }
}

fn words(random: &mut Random) -> String {
    let words =
        ["", "one", "two ", "The dog sat\n", "ʻekahi\r\n", "e\u{301}", "👩‍🎤", " ", "aloha aloha\n", "\n"];
    (0..random.below(4)).map(|_| words[random.below(words.len() as u64) as usize]).collect()
}

/// A transaction that leaves its document as it was is a step as well, and what came before it is taken back all the same.
#[test]
fn steps_without_an_effect_hold_up_no_undo() {
    let tag = || json!("x");
    type Idle = fn(&mut motet::Transaction<'_>) -> Result<(), WriteError>;
    let idle: [(&str, Idle); 4] = [
        ("an element that is there", |tx| {
            tx.documents("songs").add_to_set("1", "tags", &[json!("x")]).map(drop)
        }),
        ("by 0", |tx| tx.documents("songs").increment("1", "plays", 0).map(drop)),
        ("there and back", |tx| {
            tx.documents("songs").patch("1", &json!({ "title": "9" }))?;
            tx.documents("songs").patch("1", &json!({ "title": "second" })).map(drop)
        }),
        ("deleted and restored", |tx| {
            tx.documents("songs").delete("1")?;
            tx.documents("songs").restore("1").map(drop)
        }),
    ];
    for (name, idle) in idle {
        let dir = tempfile::tempdir().unwrap();
        let a = open(dir.path(), "a");
        let songs = a.documents("songs");
        let mut states = vec![None];
        let state = || value(&a, "1");
        songs.upsert("1", &json!({ "title": "first" })).unwrap();
        states.push(state());
        songs.delete("1").unwrap();
        states.push(state());
        songs.upsert("1", &json!({ "title": "second", "tags": [tag()], "plays": 1 })).unwrap();
        states.push(state());
        a.transaction(idle).unwrap();
        states.push(state());
        songs.patch("1", &json!({ "title": "later" })).unwrap();
        for (n, before) in states.iter().enumerate().rev() {
            a.undo().unwrap();
            assert_eq!(state().as_ref(), before.as_ref(), "{name}: back to {n}");
        }
        for (n, after) in states.iter().enumerate().skip(1) {
            a.redo().unwrap();
            assert_eq!(state().as_ref(), after.as_ref(), "{name}: again to {n}");
        }
    }
}
