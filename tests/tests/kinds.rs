//! A field that is declared to be something else: every kind, and every value without a declaration, becomes every other kind at its next
//! write, on every device, whoever writes at the same time.

use std::collections::BTreeSet;
use std::path::Path;

use motet::{Field, FieldKind, Replica, Schema, WriteError};
use motet_tests::{TestRelay, contents, device, sync};
use serde_json::{Value, json};

const RANKS: [&str; 3] = ["draft", "learned", "performed"];

/// What a field is at first: a name, how it is declared, and what it holds (nothing: it is not there).
fn befores() -> Vec<(&'static str, Option<Field>, Option<Value>)> {
    vec![
        ("missing", None, None),
        ("null", None, Some(Value::Null)),
        ("string", None, Some(json!("learned"))),
        ("number", None, Some(json!(5))),
        ("fraction", None, Some(json!(1.5))),
        ("boolean", None, Some(json!(true))),
        ("array", None, Some(json!(["a", "b"]))),
        ("mixed", None, Some(json!(["a", ["b"], { "c": null }]))),
        ("object", None, Some(json!({ "x": 1 }))),
        ("text", Some(Field::text()), Some(json!("learned"))),
        ("empty", Some(Field::text()), Some(json!(""))),
        ("counter", Some(FieldKind::Counter.into()), Some(json!(5))),
        ("set", Some(FieldKind::Set.into()), Some(json!(["a", "b"]))),
        ("list", Some(FieldKind::List.into()), Some(json!(["a", "b"]))),
        ("rank", Some(Field::rank(RANKS)), Some(json!("learned"))),
        ("ask", Some(FieldKind::Ask.into()), Some(json!({ "x": 1 }))),
        ("local", Some(FieldKind::Local.into()), Some(json!("learned"))),
    ]
}

/// What it becomes: a name, how it is declared, and what two devices write.
fn afters() -> Vec<(&'static str, Field, [Value; 2])> {
    vec![
        ("register", Field::register(), [json!(1), json!(2)]),
        ("text", Field::text(), [json!("kahi"), json!("lua")]),
        ("counter", FieldKind::Counter.into(), [json!(7), json!(9)]),
        ("set", FieldKind::Set.into(), [json!(["a", "c"]), json!(["a", "d"])]),
        ("list", FieldKind::List.into(), [json!(["a", "c"]), json!(["a", "d"])]),
        ("rank", Field::rank(RANKS), [json!("draft"), json!("performed")]),
        ("ask", FieldKind::Ask.into(), [json!("which"), json!(["of", "these"])]),
        ("local", FieldKind::Local.into(), [json!("mine"), json!("yours")]),
    ]
}

fn open(dir: &Path, name: &str) -> Replica {
    Replica::builder(dir.join(format!("{name}.db"))).device_name(name).open().unwrap()
}

fn field(replica: &Replica, collection: &str, id: &str) -> Option<Value> {
    replica.documents(collection).get(id).unwrap().unwrap().value.get("f").cloned()
}

fn set(replica: &Replica, collection: &str, id: &str, value: &Value) {
    let written = replica.documents(collection).patch(id, &json!({ "f": value }));
    written.unwrap_or_else(|error| panic!("{collection}/{id}: {value}: {error}"));
    assert_eq!(field(replica, collection, id).as_ref(), Some(value), "{collection}/{id} where it is written");
}

/// What two devices must show that have written at the same time.
fn check_both(name: &str, before: Option<&Value>, kind: &str, shown: &Value, replica: &Replica, of: &str) {
    let open = replica
        .documents(of)
        .document("both")
        .conflicts()
        .unwrap()
        .into_iter()
        .filter(|c| !c.settled)
        .count();
    let count = |item: &str| shown.as_array().unwrap().iter().filter(|i| *i == item).count();
    match kind {
        "counter" => {
            let start = before.and_then(Value::as_i64).unwrap_or_default();
            assert_eq!(*shown, json!(16 - start), "{of}");
        }
        "set" => {
            let set: BTreeSet<&str> = shown.as_array().unwrap().iter().map(|e| e.as_str().unwrap()).collect();
            assert_eq!(set, BTreeSet::from(["a", "c", "d"]), "{of}");
        }
        "list" => assert_eq!((count("c"), count("d"), count("b")), (1, 1, 0), "{of}: {shown}"),
        "rank" => assert_eq!((shown, open), (&json!("performed"), 0), "{of}"),
        "ask" => {
            assert_eq!(open, 1, "{of}");
            let refused = replica.documents(of).patch("both", &json!({ "f": "a third" })).unwrap_err();
            assert!(matches!(refused, WriteError::Contested { .. }), "{of}: {refused}");
        }
        "text" if !matches!(name, "string" | "text" | "rank" | "local") => {
            let shown = shown.as_str().unwrap();
            assert!(shown.contains("kahi") && shown.contains("lua"), "{of}: {shown}");
        }
        "register" if matches!(name, "missing" | "string" | "number" | "fraction" | "boolean" | "rank") => {
            assert_eq!(open, 1, "{of}: the loser stands in the journal");
        }
        _ => {}
    }
}

#[test]
fn every_kind_becomes_every_other() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (open(dir.path(), "a"), open(dir.path(), "b"));
    let pairs: Vec<_> = befores()
        .into_iter()
        .flat_map(|from| afters().into_iter().map(move |to| (from.clone(), to)))
        .collect();
    let name = |from: &str, to: &str| format!("{from} to {to}");
    let mut first = Schema::new();
    for ((from, declared, _), (to, ..)) in &pairs {
        if let Some(declared) = declared {
            first = first.field(&name(from, to), "f", declared.clone());
        }
    }
    a.apply_schema(&first).unwrap();
    for ((from, _, before), (to, ..)) in &pairs {
        let fields = before.as_ref().map_or(json!({ "g": 0 }), |value| json!({ "f": value, "g": 0 }));
        let of = name(from, to);
        a.transaction(move |tx| {
            ["one", "both", "same", "left"]
                .iter()
                .try_for_each(|id| tx.documents(&of).upsert(id, &fields).map(drop))
        })
        .unwrap();
    }
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    let then = pairs
        .iter()
        .fold(Schema::new(), |s, ((from, ..), (to, kind, _))| s.field(&name(from, to), "f", kind.clone()));
    for replica in [&a, &b] {
        replica.apply_schema(&then).unwrap();
    }
    // What was local has gone into its document.
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    for ((from, _, before), (to, _, [one, other])) in &pairs {
        let of = name(from, to);
        assert_eq!(field(&a, &of, "left"), *before, "{of}: a declaration alone changes nothing");
        set(&a, &of, "one", one);
        set(&a, &of, "same", one);
        set(&b, &of, "same", one);
        set(&a, &of, "both", one);
        set(&b, &of, "both", other);
    }
    for _ in 0..2 {
        sync(&a, &relay.url());
        sync(&b, &relay.url());
    }
    let fresh = open(dir.path(), "fresh");
    fresh.apply_schema(&then).unwrap();
    sync(&fresh, &relay.url());
    for replica in [&a, &b, &fresh] {
        assert_eq!(replica.verify().unwrap().problems, []);
    }
    for ((from, _, before), (to, _, [one, _])) in &pairs {
        let of = name(from, to);
        if *to == "local" {
            assert_eq!(field(&a, &of, "both"), Some(json!("mine")), "{of}");
            assert_eq!(field(&b, &of, "both"), Some(json!("yours")), "{of}");
            continue;
        }
        for replica in [&a, &b, &fresh] {
            // From a number on a counter counts what each adds.
            let start = before.as_ref().and_then(Value::as_i64).filter(|_| *to == "counter");
            let same = start.map_or(one.clone(), |start| json!(14 - start));
            for (id, expected) in [("one", one), ("same", &same)] {
                let shown = field(replica, &of, id).unwrap();
                match *to {
                    // What is a counter is edited as one where it is declared as nothing more.
                    "register" if *from == "counter" => {}
                    // How often an item is there that two add alike is a question of lists alone.
                    "list" => expected.as_array().unwrap().iter().for_each(|item| {
                        assert!(shown.as_array().unwrap().contains(item), "{of}/{id}: {shown}");
                    }),
                    _ => assert_eq!(shown, *expected, "{of}/{id}"),
                }
                assert!(
                    replica.documents(&of).document(id).conflicts().unwrap().iter().all(|c| c.settled),
                    "{of}/{id}"
                );
            }
            let both = field(replica, &of, "both").unwrap();
            assert_eq!(Some(&both), field(&a, &of, "both").as_ref(), "{of}: all devices agree");
            check_both(from, before.as_ref(), to, &both, replica, &of);
        }
    }
    let shared = |replica: &Replica| -> Vec<_> {
        contents(replica).into_iter().filter(|(collection, ..)| !collection.ends_with("local")).collect()
    };
    assert_eq!(shared(&a), shared(&b));
    assert_eq!(shared(&a), shared(&fresh));
}

#[test]
fn a_field_that_asks_asks_for_objects_too() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (open(dir.path(), "a"), open(dir.path(), "b"));
    for replica in [&a, &b] {
        replica.apply_schema(&Schema::new().field("songs", "f", FieldKind::Ask)).unwrap();
    }
    let songs = a.documents("songs");
    songs.upsert("1", &json!({ "f": { "key": "C", "capo": { "fret": 2, "why": "high" } } })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    // Written in part, the whole is one value.
    let mut record = songs.get("1").unwrap().unwrap();
    record.value["f"]["key"] = json!("D");
    record.value["f"]["capo"].as_object_mut().unwrap().remove("why");
    songs.update(&mut record).unwrap();
    let whole = json!({ "key": "D", "capo": { "fret": 2 } });
    assert_eq!(field(&a, "songs", "1"), Some(whole.clone()));
    b.documents("songs").patch("1", &json!({ "f": { "capo": { "fret": 3 } } })).unwrap();
    let other = json!({ "key": "C", "capo": { "fret": 3, "why": "high" } });
    for replica in [&a, &b, &a] {
        sync(replica, &relay.url());
    }
    for replica in [&a, &b] {
        let open: Vec<_> = replica
            .documents("songs")
            .document("1")
            .conflicts()
            .unwrap()
            .into_iter()
            .filter(|c| !c.settled)
            .collect();
        assert_eq!((open.len(), &*open[0].path), (1, "/f"));
        let mut values = [open[0].winner.clone(), open[0].loser.clone()];
        values.sort_by_key(ToString::to_string);
        let mut expected = [whole.clone(), other.clone()];
        expected.sort_by_key(ToString::to_string);
        assert_eq!(values, expected);
        assert_eq!(field(replica, "songs", "1"), Some(open[0].winner.clone()));
        let refused = replica.documents("songs").patch("1", &json!({ "f": { "key": "E" } })).unwrap_err();
        assert!(matches!(refused, WriteError::Contested { .. }), "{refused}");
    }
    songs.document("1").resolve("/f", motet::Resolution::Value(json!({ "key": "G" }))).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    for replica in [&a, &b] {
        assert!(replica.documents("songs").document("1").conflicts().unwrap().iter().all(|c| c.settled));
        assert_eq!(field(replica, "songs", "1").unwrap()["key"], "G");
    }
}

#[test]
fn what_a_declaration_shows_of_concurrent_values_is_shown_at_once() {
    for (first, then) in [(FieldKind::Register, FieldKind::List), (FieldKind::List, FieldKind::Register)] {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let [a, b] = ["a", "b"].map(|name| device(dir.path(), name));
        a.apply_schema(&Schema::new().field("songs", "f", first.clone())).unwrap();
        a.documents("songs").upsert("1", &json!({ "title": "Mele" })).unwrap();
        sync(&a, &relay.url());
        sync(&b, &relay.url());
        a.documents("songs").patch("1", &json!({ "f": ["k"] })).unwrap();
        b.documents("songs").patch("1", &json!({ "f": "reg" })).unwrap();
        [&a, &b, &a].iter().for_each(|replica| _ = sync(replica, &relay.url()));
        let fresh = device(dir.path(), "fresh");
        for replica in [&a, &fresh] {
            replica.apply_schema(&Schema::new().field("songs", "f", then.clone())).unwrap();
        }
        sync(&fresh, &relay.url());
        let shown =
            |replica: &motet::Replica| replica.documents("songs").get("1").unwrap().unwrap()["f"].clone();
        assert_eq!(shown(&a), shown(&fresh), "{first:?} to {then:?}");
        assert!(a.verify().unwrap().problems.is_empty());
    }
}
