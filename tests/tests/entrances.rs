//! Every way into a replica judges alike: what one takes in, all take in, and every other device shows; what one refuses, all refuse,
//! and say which document and field it was.

use std::path::Path;

use motet::{Adoption, BadRows, FieldKind, Replica, Schema, WriteError};
use motet_tests::random::Random;
use motet_tests::{TestRelay, contents, is_in_files, sync};
use serde_json::{Map, Value, json};

trait Pick {
    fn index(&mut self, n: usize) -> usize;
}

impl Pick for Random {
    fn index(&mut self, n: usize) -> usize {
        self.below(n as u64) as usize
    }
}

fn open(dir: &Path, name: &str) -> Replica {
    let replica = Replica::builder(dir.join(format!("{name}.db"))).device_name(name).open().unwrap();
    replica.apply_schema(&schema()).unwrap();
    replica
}

fn schema() -> Schema {
    Schema::new()
        .text("songs", "lyrics")
        .field("songs", "plays", FieldKind::Counter)
        .field("songs", "verses", FieldKind::List)
        .field("songs", "tags", FieldKind::Set)
        .field("songs", "secret", FieldKind::Local)
}

fn song(replica: &Replica, id: &str) -> Option<Value> {
    replica.documents("songs").get(id).unwrap().map(|record| record.value)
}

fn clean(replica: &Replica) {
    assert_eq!(replica.verify().unwrap().problems, []);
    assert!(replica.quarantined(10).unwrap().is_empty());
}

fn legacy(path: &Path, sql: &str) -> rusqlite::Connection {
    let conn = rusqlite::Connection::open(path).unwrap();
    conn.execute_batch(sql).unwrap();
    conn
}

#[test]
fn rows_that_cannot_be_taken_up_are_named_and_the_others_go_in() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    let old = dir.path().join("legacy.db");
    let conn = legacy(
        &old,
        "CREATE TABLE songs (id, title, bpm REAL, plays, deleted_at);
         INSERT INTO songs VALUES (1, 'one', 90.5, 3, NULL), (2, 'two', 9e999, 3, NULL), (3, CAST(x'ff41' AS TEXT), 1, 3, ''),
           (1, 'again', 1, 3, NULL), (NULL, 'nameless', 1, 3, 0), (6, 'six', 1, 'many', 0), (7, 'seven', 1, 3, 0), (8, 'gone', 1, 3, 5),
           (9, 'nine', -9e999, 3, 1), ('1', 'text', 1, 3, NULL), ('a' || char(10) || 'b', 'control', 1, 3, NULL);",
    );
    let summary = a.adopt_sqlite(&old, "songs", "songs", &Adoption::default()).unwrap();
    assert_eq!((summary.new, summary.passed_over, summary.refused), (2, 2, 7));
    let said: Vec<String> = summary.refusals.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "row 2: field \"bpm\": inf is no number that JSON has (songs/2)",
            "row 3: field \"title\": its text is not UTF-8 from byte 1 on (songs/3)",
            "row 4: it has the same id as row 1 (songs/1)",
            "row 5: it has no \"id\"",
            "row 6: field \"plays\" is not a whole number from -9007199254740991 to 9007199254740991 (songs/6)",
            "row 10: it has the same id as row 1 (songs/1)",
            "row 11: \"a\\nb\" cannot be used as a name: it must have 1 to 512 bytes and no control characters (songs/a\u{fffd}b)",
        ]
    );
    let fields: Vec<_> = summary.refusals.iter().map(|refusal| refusal.field.as_deref()).collect();
    assert_eq!(fields, [Some("bpm"), Some("title"), None, Some("id"), Some("plays"), None, None]);
    assert_eq!(song(&a, "1").unwrap(), json!({ "id": "1", "title": "one", "bpm": 90.5, "plays": 3 }));
    assert_eq!(song(&a, "7").unwrap()["title"], "seven", "deleted_at 0 is not deleted");

    let strict = Adoption { bad_rows: BadRows::RefuseAll, ..Adoption::default() };
    let Err(WriteError::Refused { count, refusals }) = a.adopt_sqlite(&old, "songs", "strict", &strict)
    else {
        panic!("strict takes all or nothing");
    };
    assert_eq!((count, refusals.len()), (6, 6), "a rule that is not declared there is not broken");
    assert!(a.documents("strict").list().unwrap().is_empty());
    conn.execute_batch(
        "DELETE FROM songs WHERE id IS NULL OR id NOT IN (1, 6, 7) OR title = 'again' OR typeof(id) = 'text'",
    )
    .unwrap();
    let refused = a.adopt_sqlite(&old, "songs", "songs", &strict).unwrap_err();
    assert!(
        refused.to_string().contains("row 2: field \"plays\" is not a whole number from -9007199254740991 to 9007199254740991 (songs/6)"),
        "{refused}"
    );
    clean(&a);
}

/// A column that is meant to be left out must not come over because of a typing error.
#[test]
fn a_column_that_a_table_does_not_have_is_named_and_nothing_is_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    let old = dir.path().join("legacy.db");
    legacy(
        &old,
        "CREATE TABLE songs (key TEXT PRIMARY KEY, title, secret, changed, gone);
         INSERT INTO songs VALUES ('1', 'one', 'private', '2025-01-03', NULL), ('2', 'two', 'private', '2025-01-03', 1);",
    );
    let usual = Adoption::default();
    for (adoption, named) in [
        (
            Adoption { exclude: vec!["title".into(), "secrte".into()], ..usual.clone() },
            "\"secret\" was probably meant",
        ),
        (Adoption { updated_at: "Changed".into(), ..usual.clone() }, "\"changed\""),
        (
            Adoption { deleted_at: "removed".into(), ..usual.clone() },
            "no column \"removed\"; it has key, title, secret, changed, gone",
        ),
        (Adoption { references: vec!["parent".into()], ..usual.clone() }, "no column \"parent\""),
        (Adoption { id: "uuid".into(), ..usual.clone() }, "no column \"uuid\""),
    ] {
        let refused = a.adopt_sqlite(&old, "songs", "songs", &adoption).unwrap_err();
        assert!(refused.to_string().contains(named), "{refused}");
    }
    assert_eq!(a.counts().unwrap().documents, 0);
    let right = Adoption {
        exclude: vec!["secret".into()],
        updated_at: "changed".into(),
        deleted_at: "gone".into(),
        ..usual
    };
    let summary = a.adopt_sqlite(&old, "songs", "songs", &right).unwrap();
    assert_eq!((summary.new, summary.passed_over), (1, 1));
    assert!(!is_in_files(dir.path(), "a.db", b"private"));
}

#[test]
fn keys_of_several_columns_and_blobs_become_ids() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    let old = dir.path().join("legacy.db");
    legacy(
        &old,
        "CREATE TABLE parts (band TEXT, part INTEGER, cover BLOB, title TEXT, PRIMARY KEY (band, part)) WITHOUT ROWID;
         INSERT INTO parts VALUES ('a/b', 1, x'00ff', 'one'), ('a', 1, zeroblob(2000000), 'two'), ('a~', 2, NULL, 'three');
         CREATE TABLE uuids (key BLOB PRIMARY KEY, parent BLOB, title TEXT);
         INSERT INTO uuids VALUES (x'0123abcd', x'ff00', 'one');
         CREATE TABLE other (uuid TEXT PRIMARY KEY, id INTEGER);
         INSERT INTO other VALUES ('u', 5);",
    );
    let summary = a.adopt_sqlite(&old, "parts", "parts", &Adoption::default()).unwrap();
    assert_eq!((summary.new, summary.refused, summary.left_out), (3, 0, 1));
    assert_eq!(
        summary.omissions[0].to_string(),
        "row 1: field \"cover\" is left out: a BLOB of 2000000 bytes, at most 65536 are taken up (parts/a/1)"
    );
    let ids: Vec<String> = a.documents("parts").list().unwrap().into_iter().map(|record| record.id).collect();
    assert_eq!(ids, ["a/1", "a~0/2", "a~1b/1"]);
    let part = a.documents("parts").get("a~1b/1").unwrap().unwrap().value;
    let expected =
        json!({ "id": "a~1b/1", "band": "a/b", "part": 1, "cover": { "base64": "AP8=" }, "title": "one" });
    assert_eq!(part, expected);

    let references =
        Adoption { prefix: "x-".into(), references: vec!["parent".into()], ..Adoption::default() };
    a.adopt_sqlite(&old, "uuids", "uuids", &references).unwrap();
    let row = a.documents("uuids").get("x-0123abcd").unwrap().unwrap().value;
    assert_eq!(row, json!({ "id": "x-0123abcd", "parent": "x-ff00", "title": "one" }));

    // A column `id` that is not the key would be hidden by the document's id.
    let refused = a.adopt_sqlite(&old, "other", "other", &Adoption::default()).unwrap_err();
    assert!(refused.to_string().contains("field \"id\""), "{refused}");
    let by_id = Adoption { id: "id".into(), ..Adoption::default() };
    a.adopt_sqlite(&old, "other", "other", &by_id).unwrap();
    assert_eq!(a.documents("other").get("5").unwrap().unwrap()["uuid"], "u");
    let strict = Adoption { bad_rows: BadRows::RefuseAll, ..Adoption::default() };
    assert!(a.adopt_sqlite(&old, "parts", "strict", &strict).is_err(), "what is left out is lost");
    let without = Adoption { exclude: vec!["cover".into()], ..strict };
    assert_eq!(a.adopt_sqlite(&old, "parts", "strict", &without).unwrap().new, 3);
    clean(&a);
}

#[test]
fn json_is_adopted_with_a_byte_order_mark_and_without_losing_digits() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    let array = "\u{feff}[{\"id\":1,\"n\":18446744073709551615},{\"id\":2,\"n\":{\"m\":18446744073709551616}},{\"id\":3,\"t\":1,\"t\":2},7]";
    let summary = a.adopt_json(array.as_bytes(), "songs", &Adoption::default()).unwrap();
    assert_eq!((summary.new, summary.refused), (1, 3));
    assert_eq!(
        (summary.refusals[0].id.as_deref(), summary.refusals[0].field.as_deref()),
        (Some("2"), Some("n/m"))
    );
    assert_eq!(summary.refusals[0].place, "row 2");
    assert_eq!(song(&a, "1").unwrap()["n"], u64::MAX);
    let lines = "\u{feff}{\"id\":4}\n\n{\"id\":5,\"x\":[1,-9223372036854775809]}\nnonsense\n{\"id\":6,\"a\":\"\u{0}\"}\n";
    let summary = a.adopt_json(lines.as_bytes(), "songs", &Adoption::default()).unwrap();
    assert_eq!((summary.new, summary.refused), (1, 3), "{summary:?}");
    let places: Vec<_> = summary.refusals.iter().map(|refusal| refusal.place.as_str()).collect();
    assert_eq!(places, ["line 3", "line 4", "line 5"]);
    for bad in ["[1,", "[", "null"] {
        assert!(a.adopt_json(bad.as_bytes(), "songs", &Adoption::default()).is_err(), "{bad}");
    }
    clean(&a);
}

#[test]
fn an_empty_name_inside_and_a_deep_value_come_in_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    let deep = |levels| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    for (bad, reason) in [
        (json!({ "meta": { "": 1, "title": "t", "year": 1900 } }), "field \"meta\": a name in it is empty"),
        (json!({ "": 1 }), "field \"\": a name in it is empty"),
        (json!({ "x": deep(100) }), "field \"x\": it is nested too deep"),
    ] {
        let mut row = bad.clone();
        row["id"] = "1".into();
        let refused = |error: WriteError| {
            assert!(error.to_string().contains(reason) && error.to_string().contains("songs/1"), "{error}");
        };
        let songs = a.documents("songs");
        refused(songs.insert(&row).unwrap_err());
        refused(songs.upsert("1", &bad).unwrap_err());
        refused(a.adopt("songs", vec![row.clone()], &Adoption::default()).unwrap_err());
        let import = |bad_rows| a.import_jsonl(Some("songs"), row.to_string().as_bytes(), bad_rows, |_| ());
        refused(import(BadRows::Report).unwrap_err());
        refused(import(BadRows::RefuseAll).unwrap_err());
        refused(
            a.transaction({
                let row = row.clone();
                move |tx| tx.documents("songs").upsert_many(&[row])
            })
            .unwrap_err(),
        );
        let log = json!({ "changes": { "songs": [{ "op": "upsert", "id": 1, "data": bad }] } });
        refused(a.import_change_log(&log).unwrap_err());
        songs.upsert("1", &json!({ "title": "here" })).unwrap();
        refused(songs.patch("1", &bad).unwrap_err());
        songs.delete("1").unwrap();
    }
    // A name with many slashes is no nesting.
    let slashes = "/".repeat(200);
    a.documents("songs").upsert("2", &json!({ &slashes: { "a": { "b": 1 } }, "x": deep(64) })).unwrap();
    assert_eq!(song(&a, "2").unwrap()[&slashes], json!({ "a": { "b": 1 } }));
    clean(&a);
}

#[test]
fn a_change_log_reports_what_it_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    let log = "\u{feff}{\"changes\":{\"songs\":[
        {\"op\":\"upsert\",\"id\":\"1\",\"data\":{\"title\":\"one\"}},
        {\"op\":\"upsert\",\"id\":\"2\",\"data\":{\"plays\":\"many\"}},
        {\"op\":\"upsert\",\"id\":\"3\",\"data\":{\"n\":99999999999999999999}},
        {\"op\":\"merge\",\"id\":\"4\"},
        {\"op\":\"delete\",\"id\":\"none\"}]},
        \"config\":[{\"key\":\"theme\",\"value\":\"dark\"},{\"key\":\"n\",\"value\":99999999999999999999}]}";
    let strict = a.import_change_log_text(log.as_bytes(), BadRows::RefuseAll).unwrap_err();
    assert!(strict.to_string().contains("entry 3 of songs"), "{strict}");
    assert!(a.collections().unwrap().is_empty());
    let summary = a.import_change_log_text(log.as_bytes(), BadRows::Report).unwrap();
    assert_eq!((summary.upserted, summary.missing, summary.refused), (2, 1, 4));
    let named: Vec<_> = summary.refusals.iter().map(|r| (r.place.as_str(), r.field.as_deref())).collect();
    let expected = [
        ("entry 3 of songs", Some("n")),
        ("entry 4 of songs", None),
        ("entry 2 of config", Some("value")),
        ("entry 2 of songs", Some("plays")),
    ];
    assert_eq!(named, expected);
    for bad in [
        "[]",
        "{\"changes\":[]}",
        "{\"changes\":{\"songs\":{}}}",
        "{\"config\":{}}",
        "{\"changes\":{\"a\":[],\"a\":[]}}",
    ] {
        assert!(a.import_change_log_text(bad.as_bytes(), BadRows::Report).is_err(), "{bad}");
    }
    clean(&a);
}

/// Two devices take up the same newer row, each for itself.
/// How a device takes up a row.
type Way<'a> = &'a dyn Fn(&Replica, i64, &str);

#[test]
fn the_same_newer_row_counts_once() {
    let row = |n: i64, updated_at: &str| {
        json!({ "id": "1", "title": format!("title {n}"), "plays": n, "lyrics": format!("one\n{}", "more words\n".repeat(n as usize)),
            "verses": (0..n).collect::<Vec<_>>(), "tags": ["a", n], "meta": { "n": n }, "updated_at": updated_at })
    };
    let adopt = |replica: &Replica, n: i64, updated_at: &str| {
        _ = replica.adopt("songs", vec![row(n, updated_at)], &Adoption::default()).unwrap();
    };
    let import = |replica: &Replica, n: i64, updated_at: &str| {
        let line = row(n, updated_at).to_string();
        _ = replica.import_jsonl(Some("songs"), line.as_bytes(), BadRows::Report, |_| ()).unwrap();
    };
    let ways: [(&str, Way<'_>); 2] = [("adopt", &adopt), ("import", &import)];
    for (way, take) in ways {
        for start in ["taken up on both", "synced", "put and synced"] {
            let dir = tempfile::tempdir().unwrap();
            let relay = TestRelay::start(&dir.path().join("relay"));
            let (a, b) = (open(dir.path(), "a"), open(dir.path(), "b"));
            // Documents of which the device itself is older than the rows.
            let (first, second, third) =
                ("2025-01-01 10:00:00", "2096-01-01 10:00:00", "2097-01-01 10:00:00.5");
            match start {
                "put and synced" => _ = a.documents("songs").upsert("1", &row(5, first)).unwrap(),
                _ => take(&a, 5, first),
            }
            match start {
                "taken up on both" => take(&b, 5, first),
                _ => [&a, &b].into_iter().for_each(|replica| _ = sync(replica, &relay.url())),
            }
            let twice = |n: i64, updated_at: &str| {
                [&a, &b].into_iter().for_each(|replica| take(replica, n, updated_at));
                [&a, &b].into_iter().for_each(|replica| {
                    assert_eq!(song(replica, "1").unwrap(), row(n, updated_at), "{way}, {start}");
                });
            };
            twice(8, second);
            // Once more before they hear of each other, and one has written to another field.
            a.documents("songs").patch("1", &json!({ "note": "mine" })).unwrap();
            twice_with_note(&a, &b, &row(9, third), |replica| take(replica, 9, third), way, start);
            for replica in [&a, &b, &a] {
                sync(replica, &relay.url());
            }
            let mut expected = row(9, third);
            expected["note"] = "mine".into();
            for replica in [&a, &b] {
                assert_eq!(song(replica, "1").unwrap(), expected, "{way}, {start}");
                clean(replica);
            }
        }
    }
}

fn twice_with_note(a: &Replica, b: &Replica, row: &Value, take: impl Fn(&Replica), way: &str, start: &str) {
    take(a);
    take(b);
    assert_eq!(song(b, "1").unwrap(), *row, "{way}, {start}");
    let mut with_note = row.clone();
    with_note["note"] = "mine".into();
    assert_eq!(song(a, "1").unwrap(), with_note, "{way}, {start}");
}

#[test]
fn history_tells_who_imported_and_what_a_newer_row_changed() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    let songs = a.documents("songs");
    songs.upsert("1", &json!({ "title": "t", "plays": 5, "lyrics": "one\n" })).unwrap();
    let line = json!({ "id": "1", "plays": 8, "lyrics": "one\ntwo\n" }).to_string();
    a.import_jsonl(Some("songs"), line.as_bytes(), BadRows::Report, |_| ()).unwrap();
    let steps = songs.document("1").history(10).unwrap();
    let told: Vec<_> = steps.iter().map(|step| (step.device_name.as_deref(), step.fields.clone())).collect();
    let all = vec!["lyrics".to_owned(), "plays".into(), "title".into()];
    assert_eq!(told, [(Some("a"), all[..2].to_vec()), (Some("a"), all)]);
    assert_eq!(songs.document("1").at(&steps[1].version).unwrap()["plays"], 5);
    _ = a.undo().unwrap();
    assert_eq!(song(&a, "1").unwrap(), json!({ "id": "1", "title": "t", "plays": 5, "lyrics": "one\n" }));

    let row = |n: i64, at: &str| json!({ "id": "2", "title": n, "plays": n, "updated_at": at });
    a.adopt("songs", vec![row(1, "2025-01-01")], &Adoption::default()).unwrap();
    a.adopt("songs", vec![row(2, "2025-02-01")], &Adoption::default()).unwrap();
    let steps = songs.document("2").history(10).unwrap();
    let fields = ["plays".to_owned(), "title".into(), "updated_at".into()];
    assert_eq!(
        steps.iter().map(|step| step.fields.clone()).collect::<Vec<_>>(),
        [fields.to_vec(), fields.to_vec()]
    );
    let mut first = row(1, "2025-01-01");
    first.as_object_mut().unwrap().remove("id");
    assert_eq!(serde_json::to_value(songs.document("2").at(&steps[1].version).unwrap()).unwrap(), first);
    clean(&a);
}

/// A whole replica goes out and into a new one: all documents, all values.
#[test]
fn an_export_of_everything_imports_as_the_same() {
    let seed = motet_tests::random::seed();
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    a.apply_schema(&Schema::new().local("private").field(
        "events",
        "status",
        motet::Field::rank(["draft", "done"]),
    ))
    .unwrap();
    let mut model = Map::new();
    for n in 0..200 {
        let collection = ["songs", "events", "Songs", "zähler"][random.index(4)];
        let id = format!("{n}/ʻ\u{202e} {}", random.index(1 << 30));
        let mut fields = Map::new();
        for _ in 0..random.index(6) {
            let name =
                ["title", "x~/y.z", "motet:collection", "document", "n", "meta", "ʻŌ"][random.index(7)];
            fields.insert(name.into(), any_value(&mut random, 3));
        }
        if collection == "songs" {
            fields.insert("lyrics".into(), "Āina\r\n\u{0}\u{feff}👩‍🎤\n".into());
            fields.insert("plays".into(), json!((1_i64 << 40) + random.index(3) as i64));
            fields.insert("verses".into(), json!([1, { "a": [] }, "x"]));
            fields.insert("tags".into(), json!(["a", true, 1]));
        }
        a.documents(collection).upsert(&id, &Value::Object(fields.clone())).unwrap();
        let key = format!("{collection} {id}");
        fields.insert("id".into(), id.into());
        model.insert(key, Value::Object(fields));
    }
    a.documents("songs").upsert("gone", &json!({ "title": "gone" })).unwrap();
    a.documents("songs").delete("gone").unwrap();
    a.documents("private").upsert("p", &json!({ "word": "s3cr3t" })).unwrap();
    let mut lines = String::new();
    a.export_all(|line| lines += &format!("{line}\n")).unwrap();
    assert!(!lines.contains("s3cr3t"));
    for bad_rows in [BadRows::Report, BadRows::RefuseAll] {
        let name = format!("{bad_rows:?}");
        let b = Replica::builder(dir.path().join(name)).device_name("b").open().unwrap();
        let summary = b.import_jsonl(None, lines.as_bytes(), bad_rows, |_| ()).unwrap();
        assert_eq!((summary.imported, summary.refused), (model.len() as u64, 0));
        let shown = |replica: &Replica| -> Map<String, Value> {
            let all = contents(replica).into_iter().filter(|(collection, ..)| collection != "private");
            all.map(|(collection, id, _, value)| (format!("{collection} {id}"), value)).collect()
        };
        let sorted = |mut all: Map<String, Value>| {
            all.values_mut().filter_map(|v| v.get_mut("tags")?.as_array_mut()).for_each(|tags| {
                tags.sort_by_key(ToString::to_string);
            });
            all
        };
        assert_eq!(sorted(shown(&b)), sorted(model.clone()));
        assert_eq!(shown(&b), shown(&a));
        b.documents("songs").upsert("kinds", &json!({ "plays": 1 })).unwrap();
        assert!(
            b.documents("songs").upsert("kinds", &json!({ "plays": "x" })).is_err(),
            "the schema came along"
        );
        clean(&b);
    }
}

fn any_value(random: &mut Random, levels: usize) -> Value {
    let scalars = [
        json!(null),
        json!(true),
        json!(i64::MIN),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(0.1),
        json!(-0.0),
        json!(5.0),
        json!(1e300),
        json!(f64::MIN_POSITIVE),
        json!(9007199254740993_i64),
        json!(""),
        json!("\u{0}\u{7f}\u{fffd}\"\\"),
        json!("Hoʻi e\u{301}"),
    ];
    match random.index(if levels == 0 { 8 } else { 10 }) {
        8 => (0..random.index(4)).map(|_| any_value(random, levels - 1)).collect(),
        9 => {
            let names = ["a", "b/c", "~", "0", "set", "\u{feff}"];
            let fields = (0..random.index(4)).map(|n| (names[n].to_owned(), any_value(random, levels - 1)));
            Value::Object(fields.collect())
        }
        _ => scalars[random.index(scalars.len())].clone(),
    }
}

#[test]
fn lines_of_an_export_name_their_collection_unmistakably() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    let import =
        |collection, text: &str| a.import_jsonl(collection, text.as_bytes(), BadRows::Report, |_| ());
    let wrapped = json!({ "motet:collection": "events", "document": { "id": "e", "n": 1 } }).to_string();
    assert!(
        import(Some("songs"), &wrapped).unwrap_err().to_string().contains("of the collection \"events\"")
    );
    assert!(
        import(None, "{\"id\":\"x\"}").unwrap_err().to_string().contains("line 1: it names no collection")
    );
    assert_eq!(import(Some("events"), &wrapped).unwrap().imported, 1);
    let plain = json!({ "id": "p", "motet:collection": "c", "document": {} }).to_string();
    assert_eq!(import(Some("songs"), &plain).unwrap().imported, 1);
    assert_eq!(song(&a, "p").unwrap()["motet:collection"], "c");
    for odd in [
        "{\"motet:collection\":1,\"document\":{}}",
        "{\"motet:collection\":\"c\",\"document\":[]}",
        "{\"motet:schema\":[]}",
    ] {
        assert!(import(None, odd).is_err(), "{odd}");
    }
    let summary =
        import(None, &format!("{wrapped}\n\u{feff}{wrapped}\n{{\"motet:schema\":{{\"collection\":1}}}}\n"))
            .unwrap();
    assert_eq!((summary.imported, summary.refused), (2, 1));
}

#[test]
fn refusals_are_counted_and_a_bounded_number_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    let lines: String = (0..700)
        .map(|n| if n % 2 == 0 { format!("{{\"id\":\"{n}\"}}\n") } else { "{\"id\":[]}\n".to_owned() })
        .collect();
    let mut written = 0;
    let summary = a.import_jsonl(Some("songs"), lines.as_bytes(), BadRows::Report, |n| written += n).unwrap();
    assert_eq!((summary.imported, summary.refused, written), (350, 350, 350));
    assert_eq!(summary.refusals.len(), motet::limits::LISTED_REFUSALS);
    assert_eq!(a.documents("songs").list().unwrap().len(), 350);
}

#[test]
fn resolving_what_is_no_conflict_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    let songs = a.documents("songs");
    songs.upsert("1", &json!({ "title": "t", "meta": { "a": 1 }, "plays": 1 })).unwrap();
    let version = songs.get("1").unwrap().unwrap().version;
    for path in ["/title", "/none", "/meta/a", "/meta/b", "/plays", "/secret", "title", "/", ""] {
        for resolution in [
            motet::Resolution::Shown,
            motet::Resolution::Value(json!("x")),
            motet::Resolution::Loser("1@a".into()),
        ] {
            let error = songs.document("1").resolve(path, resolution).unwrap_err();
            assert!(matches!(error, WriteError::NoConflict { .. }), "{path}: {error}");
        }
    }
    assert_eq!(songs.get("1").unwrap().unwrap().version, version);
}

/// Odd and hostile rows through every entrance: refused with document and field, or shown here and on another device alike.
#[test]
fn odd_rows_are_refused_by_name_or_shown_alike_on_every_device() {
    let seed = motet_tests::random::seed();
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (open(dir.path(), "a"), open(dir.path(), "b"));
    let mut taken = 0;
    for step in 0..400 {
        let row = odd_row(&mut random);
        let text = odd_text(&mut random, &row);
        let adoption = Adoption::default();
        let outcome = match random.index(7) {
            0 => a.documents("songs").insert(&row).map(|_| (0, Vec::new())),
            1 => {
                let id = row["id"].as_str().unwrap_or("odd").to_owned();
                a.documents("songs").upsert(&id, &row).map(|_| (0, Vec::new()))
            }
            2 => a.adopt("songs", vec![row.clone()], &adoption).map(|s| (s.refused, s.refusals)),
            3 => a.adopt_json(text.as_bytes(), "songs", &adoption).map(|s| (s.refused, s.refusals)),
            4 => {
                let import = a.import_jsonl(Some("songs"), text.as_bytes(), BadRows::Report, |_| ());
                import.map(|s| (s.refused, s.refusals))
            }
            5 => {
                let id = row["id"].to_string();
                let log = format!(
                    "\u{feff}{{\"changes\":{{\"songs\":[{{\"op\":\"upsert\",\"id\":{id},\"data\":{}}}]}}}}",
                    text.trim_start_matches('\u{feff}').trim()
                );
                a.import_change_log_text(log.as_bytes(), BadRows::Report).map(|s| (s.refused, s.refusals))
            }
            _ => {
                let rows = vec![row.clone(), odd_row(&mut random)];
                a.transaction(move |tx| tx.documents("songs").upsert_many(&rows)).map(|_| (0, Vec::new()))
            }
        };
        match outcome {
            Ok((refused, refusals)) => {
                assert_eq!(refused, refusals.len() as u64);
                taken += 1;
            }
            Err(WriteError::Storage(error)) => panic!("{error} (step {step}: {row})"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        if step % 100 == 99 {
            for replica in [&a, &b, &a] {
                sync(replica, &relay.url());
            }
            let shared = |replica: &Replica| -> Vec<_> {
                let all = contents(replica).into_iter();
                all.map(|(_, id, version, value)| {
                    (id, version, replica.shared_fields("songs", value).unwrap())
                })
                .collect()
            };
            assert!(shared(&a) == shared(&b), "step {step}: {:#?}\n{:#?}", shared(&a), shared(&b));
            [&a, &b].into_iter().for_each(clean);
        }
    }
    assert!(taken > 40, "{taken} of 400 were taken in");
}

fn odd_row(random: &mut Random) -> Value {
    let ids = [
        json!("1"),
        json!("2"),
        json!(1),
        json!(2),
        json!(1.5),
        json!(-0.0),
        json!(""),
        json!(null),
        json!([1]),
        json!({ "a": 1 }),
        json!("a\nb"),
        json!("x".repeat(600)),
        json!("ʻŌ/~"),
        json!(true),
    ];
    let deep = |levels: usize| {
        (0..levels)
            .fold(json!("x"), |inner, n| if n % 2 == 0 { json!({ "k": inner }) } else { json!([inner]) })
    };
    let mut row = json!({ "id": ids[random.index(ids.len())] });
    for _ in 0..random.index(5) {
        let name = match random.index(12) {
            0 => String::new(),
            1 => "n".repeat(3_000),
            2 => "a\u{0}\n\u{7}b".into(),
            3 => "/".repeat(90),
            4 => "motet:schema".into(),
            n => ["title", "lyrics", "plays", "verses", "tags", "secret", "meta", "updated_at"][n % 8].into(),
        };
        row[name] = match random.index(14) {
            0 => deep(30 + random.index(60)),
            1 => json!({ "": any_value(random, 1), "b": 1 }),
            2 => json!([{ "a": { "": "set" } }]),
            3 => json!({ "": "set", "title": true }),
            4 => json!("x".repeat(5_000)),
            5 => json!([[1], ["a"], 1, 1]),
            6 => json!(u64::MAX),
            7 => json!("2025-01-01"),
            8 => json!(random.index(100)),
            9 => json!(["a", "b", "a"]),
            10 => json!("words\nof a song\n"),
            _ => any_value(random, 3),
        };
    }
    row
}

/// The row as JSON that somebody else has written.
fn odd_text(random: &mut Random, row: &Value) -> String {
    let text = row.to_string();
    let inner = text.trim_start_matches('{');
    match random.index(8) {
        0 => format!("\u{feff}{text}"),
        1 => format!("{{\"n\":123456789012345678901234567890,{inner}"),
        2 => format!("{{\"twice\":1,\"twice\":2,{inner}"),
        3 => format!("{text}\r\n\r\n"),
        4 => text[..text.len() - 1].into(),
        5 => text.replace("\"x\"", "NaN"),
        _ => text,
    }
}

/// Other devices take no change of such a time.
#[test]
fn a_row_of_a_time_that_no_clock_shows_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (open(dir.path(), "a"), open(dir.path(), "b"));
    a.documents("songs").upsert("1", &json!({ "title": "Pua" })).unwrap();
    let row = |at: Value| json!({ "id": "1", "title": "Lei", "updated_at": at });
    for at in [json!(u64::MAX), json!(i64::MIN), json!(1e300)] {
        let error = a.adopt("songs", vec![row(at.clone())], &Adoption::default()).unwrap_err();
        let WriteError::Refused { refusals, .. } = error else { panic!("{error}") };
        assert_eq!(refusals[0].field.as_deref(), Some("updated_at"));
        assert!(refusals[0].reason.contains("is no time"), "{}", refusals[0].reason);
    }
    assert_eq!(a.documents("songs").get("1").unwrap().unwrap()["title"], json!("Pua"));
    let last = row(json!(1_i64 << 53));
    assert_eq!(a.adopt("songs", vec![last], &Adoption::default()).unwrap().updated, 1);
    a.documents("songs").patch("1", &json!({ "title": "Lei pua" })).unwrap();
    [&a, &b, &a].into_iter().for_each(|replica| drop(sync(replica, &relay.url())));
    assert_eq!(contents(&a), contents(&b));
    [&a, &b].into_iter().for_each(clean);
}

/// JSON has no such numbers, and serde writes null in their place.
#[test]
fn a_number_that_is_not_finite_is_refused_by_name_and_erases_nothing() {
    #[derive(Clone, serde::Serialize, serde::Deserialize)]
    struct Song {
        title: String,
        length: Option<f64>,
    }
    let dir = tempfile::tempdir().unwrap();
    let replica = motet_tests::device(dir.path(), "a");
    let songs = replica.collection::<Song>("songs");
    let song = |length| Song { title: "Pua".into(), length: Some(length) };
    songs.upsert("1", &song(2.5)).unwrap();
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut record = songs.get("1").unwrap().unwrap();
        record.value.length = Some(bad);
        let refused = [
            songs.insert(&song(bad)).err(),
            songs.upsert("1", &song(bad)).err(),
            songs.patch("1", &song(bad)).err(),
            songs.update(&mut record).err(),
            replica.transaction(move |tx| tx.collection("songs").upsert("1", &song(bad))).err(),
            replica.transaction(move |tx| tx.collection("songs").upsert_many(&[song(bad)])).err(),
        ];
        for error in refused {
            let Some(motet::WriteError::BadValue { field, reason }) = error else { panic!("{error:?}") };
            assert_eq!(field.as_deref(), Some("length"));
            assert!(reason.contains("not finite"), "{reason}");
        }
        let mut editor = songs.edit("1").unwrap().unwrap();
        editor.length = Some(bad);
        assert!(editor.save().is_err());
        editor.length = Some(2.5);
        editor.save().unwrap();
    }
    assert_eq!(songs.list().unwrap().len(), 1);
    assert_eq!(songs.get("1").unwrap().unwrap().length, Some(2.5));
}
