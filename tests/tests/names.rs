//! A field that two apps make at the same time under an old and a new name is one field.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use motet::{Field, FieldKind, Replica, Schema, WriteError};
use motet_tests::{TestRelay, declared, sync};
use serde_json::{Value, json};

fn shown(replica: &Replica) -> Value {
    let mut value = replica.documents("songs").get("1").unwrap().unwrap().value.clone();
    value.as_object_mut().unwrap().remove("id");
    value
}

/// An app that declares `old`, one that declares `new` with the alias `old`, and another of these.
struct Apps {
    old: Replica,
    new: Replica,
    third: Replica,
    relay: TestRelay,
    _dir: tempfile::TempDir,
}

impl Apps {
    fn start(field: &Field) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let older = Schema::new().field("songs", "old", field.clone());
        let newer = Schema::new().field("songs", "new", field.clone().alias("old"));
        let (old, new) = (declared(dir.path(), "old", &older), declared(dir.path(), "new", &newer));
        let third = declared(dir.path(), "third", &newer);
        Self { old, new, third, relay, _dir: dir }
    }

    /// Both apps write a value at the same time; then all devices know all. Returns what the newer ones show.
    fn both(&self, old: &Value, new: &Value) -> Value {
        self.old.documents("songs").upsert("1", &json!({ "old": old })).unwrap();
        // The later one, on clocks of milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(5));
        self.new.documents("songs").upsert("1", &json!({ "new": new })).unwrap();
        self.settle()
    }

    fn settle(&self) -> Value {
        for _ in 0..2 {
            for replica in [&self.old, &self.new, &self.third] {
                sync(replica, &self.relay.url());
            }
        }
        for replica in [&self.old, &self.new, &self.third] {
            assert_eq!(replica.verify().unwrap().problems, []);
        }
        let value = shown(&self.new);
        assert_eq!(value, shown(&self.third));
        assert_eq!(value.as_object().unwrap().keys().collect::<Vec<_>>(), ["new"]);
        value["new"].clone()
    }

    fn open_conflicts(&self) -> usize {
        let of = |replica: &Replica| {
            replica
                .documents("songs")
                .document("1")
                .conflicts()
                .unwrap()
                .into_iter()
                .filter(|c| !c.settled)
                .count()
        };
        assert_eq!(of(&self.new), of(&self.third));
        of(&self.new)
    }
}

#[test]
fn of_a_text_the_words_of_both_are_there_and_both_apps_go_on_with_them() {
    let apps = Apps::start(&Field::text());
    let words = apps.both(&json!("chorus\nfrom the old app\n"), &json!("chorus\nfrom the new app\n"));
    let lines: Vec<&str> = words.as_str().unwrap().lines().collect();
    assert_eq!(lines.len(), 3, "{words}");
    assert!(["chorus", "from the old app", "from the new app"].iter().all(|line| lines.contains(line)));
    assert_eq!(apps.open_conflicts(), 0);
    // The next writes, of two devices at the same time, fold it once, and the older app sees all.
    for (replica, line) in [(&apps.new, "by new\n"), (&apps.third, "by third\n")] {
        let end = words.as_str().unwrap().chars().count();
        replica.documents("songs").document("1").splice_text("new", end, 0, line).unwrap();
    }
    let folded = apps.settle();
    let mut lines: Vec<String> = folded.as_str().unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    let expected = ["by new", "by third", "chorus", "from the new app", "from the old app"];
    assert_eq!(lines, expected);
    assert_eq!(shown(&apps.old)["old"], folded);
    // And it merges with what the older app writes.
    apps.old.documents("songs").document("1").splice_text("old", 0, 0, "zero\n").unwrap();
    apps.new
        .documents("songs")
        .patch("1", &json!({ "new": format!("{}end\n", folded.as_str().unwrap()) }))
        .unwrap();
    assert_eq!(apps.settle(), json!(format!("zero\n{}end\n", folded.as_str().unwrap())));
}

#[test]
fn counters_add_up_and_sets_and_lists_and_objects_unite() {
    let cases = [
        (Field::from(FieldKind::Counter), json!(5), json!(3), json!(8), json!(10)),
        (
            FieldKind::Set.into(),
            json!(["a", "b"]),
            json!(["b", "c"]),
            json!(["a", "b", "c"]),
            json!(["c", "d"]),
        ),
        (
            FieldKind::List.into(),
            json!(["a", "b"]),
            json!(["b", "c"]),
            json!(["a", "b", "c"]),
            json!(["c", "d"]),
        ),
        (
            Field::register(),
            json!({ "x": 1, "y": 1 }),
            json!({ "z": 3 }),
            json!({ "x": 1, "y": 1, "z": 3 }),
            json!({ "x": 1, "y": 1, "z": 4 }),
        ),
    ];
    for (field, old, new, expected, next) in cases {
        let apps = Apps::start(&field);
        assert_eq!(apps.both(&old, &new), expected, "{field:?}");
        assert_eq!(apps.open_conflicts(), 0);
        apps.third.documents("songs").patch("1", &json!({ "new": next })).unwrap();
        assert_eq!(apps.settle(), next, "{field:?}");
        assert_eq!(shown(&apps.old)["old"], next, "the older app sees it");
    }
    let apps = Apps::start(&FieldKind::Counter.into());
    apps.both(&json!(5), &json!(3));
    apps.old.documents("songs").document("1").increment("old", 1).unwrap();
    apps.new.documents("songs").document("1").increment("new", 10).unwrap();
    apps.third.documents("songs").document("1").increment("old", 100).unwrap();
    assert_eq!(apps.settle(), 119);
}

#[test]
fn an_empty_array_of_ones_own_is_a_value() {
    // What is replaced as a whole is not emptied when names are folded, it goes.
    let apps = Apps::start(&Field::register());
    assert_eq!(apps.both(&json!(false), &json!([])), json!([]));
    assert_eq!(apps.open_conflicts(), 1);
    let apps = Apps::start(&Field::register());
    assert_eq!(apps.both(&json!(["a", "b"]), &json!("later")), "later");
    apps.third.documents("songs").patch("1", &json!({ "new": ["c"] })).unwrap();
    assert_eq!(apps.settle(), json!(["c"]));
    assert_eq!(apps.open_conflicts(), 0);
    apps.third.documents("songs").patch("1", &json!({ "new": [] })).unwrap();
    assert_eq!(apps.settle(), json!([]));
    assert_eq!(shown(&apps.old)["old"], json!([]));
}

#[test]
fn of_plain_values_the_later_wins_and_the_loser_stands_in_the_journal() {
    let apps = Apps::start(&Field::register());
    assert_eq!(apps.both(&json!("earlier"), &json!("later")), "later");
    assert_eq!(apps.open_conflicts(), 1);
    let conflict = apps.new.documents("songs").document("1").conflicts().unwrap().remove(0);
    assert_eq!(
        (&*conflict.path, &conflict.winner, &conflict.loser),
        ("/new", &json!("later"), &json!("earlier"))
    );
    assert_eq!(conflict.device_name.as_deref(), Some("old"));
    apps.third
        .documents("songs")
        .document("1")
        .resolve("/new", motet::Resolution::Loser(conflict.loser_id))
        .unwrap();
    assert_eq!(apps.settle(), "earlier");
    assert_eq!(apps.open_conflicts(), 0);
    // Who writes without knowing the new name, but after its value, is later and in no conflict.
    let apps = Apps::start(&Field::register());
    apps.new.documents("songs").upsert("1", &json!({ "new": "first" })).unwrap();
    apps.settle();
    apps.old.documents("songs").patch("1", &json!({ "old": "second" })).unwrap();
    assert_eq!(apps.settle(), "second");
    assert_eq!(apps.open_conflicts(), 0);
}

/// Only what merges takes the other in: a list or an object that showed hid a number that another app had written.
#[test]
fn of_values_that_do_not_merge_the_loser_stands_in_the_journal_whatever_shows() {
    for (old, new) in [
        (json!(1.5), json!(["a"])),
        (json!(["b"]), json!(["a"])),
        (json!("words"), json!({ "x": 1 })),
        (json!({ "x": 1 }), json!(1.5)),
        (json!(["a"]), json!({ "x": 1 })),
        (json!({ "x": 1 }), json!(["a"])),
    ] {
        let apps = Apps::start(&Field::register());
        assert_eq!(apps.both(&old, &new), new, "{old}");
        assert_eq!(apps.open_conflicts(), 1, "{old} and {new}");
        let conflict = apps.new.documents("songs").document("1").conflicts().unwrap().remove(0);
        assert_eq!((&*conflict.path, &conflict.loser), ("/new", &old), "{new}");
        let loser = motet::Resolution::Loser(conflict.loser_id);
        apps.third.documents("songs").document("1").resolve("/new", loser).unwrap();
        assert_eq!(apps.settle(), old, "{new}");
        assert_eq!(apps.open_conflicts(), 0, "{old} and {new}");
    }
}

#[test]
fn a_rank_takes_the_highest_and_ask_asks() {
    let apps = Apps::start(&Field::rank(["draft", "done"]));
    assert_eq!(apps.both(&json!("done"), &json!("draft")), "done");
    assert_eq!(apps.open_conflicts(), 0);
    let apps = Apps::start(&FieldKind::Ask.into());
    apps.both(&json!("this"), &json!({ "or": "that" }));
    assert_eq!(apps.open_conflicts(), 1);
    let refused = apps.new.documents("songs").patch("1", &json!({ "new": "other" })).unwrap_err();
    assert!(matches!(refused, WriteError::Contested { .. }), "{refused}");
    apps.new
        .documents("songs")
        .document("1")
        .resolve("/new", motet::Resolution::Value(json!("other")))
        .unwrap();
    assert_eq!(apps.settle(), "other");
    assert_eq!(apps.open_conflicts(), 0);
}

#[test]
fn a_field_that_is_removed_is_gone_under_every_name() {
    let apps = Apps::start(&Field::text());
    apps.both(&json!("one"), &json!("two"));
    let songs = apps.new.documents("songs");
    let mut record = songs.get("1").unwrap().unwrap();
    record.value.as_object_mut().unwrap().remove("new");
    songs.update(&mut record).unwrap();
    for _ in 0..2 {
        for replica in [&apps.old, &apps.new, &apps.third] {
            sync(replica, &apps.relay.url());
            assert_eq!(replica.verify().unwrap().problems, []);
        }
    }
    for replica in [&apps.new, &apps.third] {
        assert_eq!(shown(replica), json!({}));
    }
}

#[test]
fn a_conflict_from_before_a_rename_is_settled_under_either_name() {
    for (path, kind) in [
        ("/newer", FieldKind::Register),
        ("/older", FieldKind::Register),
        ("/newer", FieldKind::Ask),
        ("/older", FieldKind::Ask),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let before = Schema::new().field("songs", "older", kind.clone());
        let (a, b) = (declared(dir.path(), "a", &before), declared(dir.path(), "b", &before));
        a.documents("songs").upsert("1", &json!({ "title": "Mele" })).unwrap();
        sync(&a, &relay.url());
        sync(&b, &relay.url());
        a.documents("songs").patch("1", &json!({ "older": "one" })).unwrap();
        b.documents("songs").patch("1", &json!({ "older": "two" })).unwrap();
        [&a, &b, &a].iter().for_each(|replica| _ = sync(replica, &relay.url()));
        a.apply_schema(&Schema::new().field("songs", "newer", Field::from(kind).alias("older"))).unwrap();
        a.documents("songs").document("1").resolve(path, motet::Resolution::Shown).unwrap();
        assert!(
            a.documents("songs").document("1").conflicts().unwrap().iter().all(|conflict| conflict.settled),
            "{path}"
        );
        a.documents("songs").patch("1", &json!({ "newer": "three" })).unwrap();
        assert_eq!(a.documents("songs").get("1").unwrap().unwrap()["newer"], "three");
    }
}

#[test]
fn an_empty_text_that_was_begun_at_the_same_time_hides_no_words() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    // Which of two texts is the first depends on the names.
    let names: Vec<(String, String)> = (0..12).map(|n| (format!("old{n}"), format!("new{n}"))).collect();
    let older = names.iter().fold(Schema::new(), |schema, (old, _)| schema.text("songs", old));
    let newer = names
        .iter()
        .fold(Schema::new(), |schema, (old, new)| schema.field("songs", new, Field::text().alias(old)));
    let (a, b) = (declared(dir.path(), "a", &older), declared(dir.path(), "b", &older));
    let c = declared(dir.path(), "c", &newer);
    a.documents("songs").upsert("1", &json!({ "x": 1 })).unwrap();
    [&a, &b, &c].iter().for_each(|replica| _ = sync(replica, &relay.url()));
    for (old, new) in &names {
        a.documents("songs").upsert("1", &json!({ old: "one" })).unwrap();
        b.documents("songs").upsert("1", &json!({ old: "" })).unwrap();
        c.documents("songs").upsert("1", &json!({ new: "two" })).unwrap();
    }
    [&a, &b, &c, &a, &b, &c].iter().for_each(|replica| _ = sync(replica, &relay.url()));
    for (_, new) in &names {
        let text = shown(&c)[new].as_str().unwrap().to_owned();
        assert!(text.contains("one") && text.contains("two"), "{new}: {text:?}");
    }
}

/// Folding the names of a field empties the list under one of them: nobody has written that.
#[test]
fn what_folding_names_empties_does_not_come_back_empty() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let now = Arc::new(AtomicI64::new(1_700_000_000_000));
    let [a, b] = ["a", "b"].map(|name| {
        let now = now.clone();
        let clock = move || now.fetch_add(1_500, Ordering::Relaxed);
        Replica::builder(dir.path().join(name)).device_name(name).clock(clock).open().unwrap()
    });
    b.documents("pieces").upsert("1", &json!({ "type": 1.5 })).unwrap();
    let renamed = Schema::new().field("pieces", "form", Field::register().alias("type"));
    [&a, &b].iter().for_each(|device| device.apply_schema(&renamed).unwrap());
    a.documents("pieces").upsert("1", &json!({ "form": ["mele"] })).unwrap();
    sync(&a, &relay.url());
    // Over the list, and not knowing of what the other does next.
    a.documents("pieces").patch("1", &json!({ "form": 2.5 })).unwrap();
    sync(&b, &relay.url());
    b.documents("pieces").patch("1", &json!({ "form": "" })).unwrap();
    for device in [&a, &b, &a] {
        sync(device, &relay.url());
    }
    for device in [&a, &b] {
        assert_eq!(device.documents("pieces").get("1").unwrap().unwrap()["form"], "");
    }
}

#[test]
fn a_deleted_document_that_is_made_anew_under_an_older_name_has_what_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let device = declared(dir.path(), "a", &Schema::new());
    let songs = device.documents("songs");
    songs.upsert("1", &json!({ "old": { "b": 0 } })).unwrap();
    device.apply_schema(&Schema::new().field("songs", "new", Field::register().alias("old"))).unwrap();
    songs.delete("1").unwrap();
    songs.upsert("1", &json!({ "old": { "c": 1 } })).unwrap();
    assert_eq!(shown(&device), json!({ "new": { "c": 1 } }));
}

/// Values under an older and a newer name are folded by the next write: once, on whichever version it is made.
#[test]
fn names_are_folded_once_on_whichever_version() {
    for case in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let [a, b, c] = ["a", "b", "c"].map(|name| {
            let replica =
                Replica::builder(dir.path().join(format!("{name}.db"))).device_name(name).open().unwrap();
            let field = Field::from(FieldKind::Counter);
            let (name, field) = if name == "a" { ("plays", field) } else { ("p", field.alias("plays")) };
            replica.apply_schema(&Schema::new().field("songs", name, field)).unwrap();
            replica
        });
        a.documents("songs").upsert("1", &json!({ "plays": 2 })).unwrap();
        b.documents("songs").upsert("1", &json!({ "p": 3 })).unwrap();
        let everywhere = || {
            for replica in [&a, &b, &c, &a, &b] {
                sync(replica, &relay.url());
            }
        };
        everywhere();
        let songs = b.documents("songs");
        let mut read = songs.get("1").unwrap().unwrap();
        assert_eq!(read["p"], 5);
        match case {
            0 => {
                songs.patch("1", &json!({ "p": 7 })).unwrap();
                read["p"] = json!(15);
                songs.update(&mut read).unwrap();
            }
            1 => {
                songs.patch("1", &json!({ "o": 1 })).unwrap();
                read["p"] = json!(7);
                songs.update(&mut read).unwrap();
                c.documents("songs").patch("1", &json!({ "p": 15 })).unwrap();
            }
            2 => {
                songs.patch("1", &json!({ "o": 1 })).unwrap();
                songs.patch("1", &json!({ "p": 7 })).unwrap();
                c.documents("songs").patch("1", &json!({ "p": 15 })).unwrap();
            }
            _ => {
                songs.patch("1", &json!({ "p": 7 })).unwrap();
                c.documents("songs").patch("1", &json!({ "p": 15 })).unwrap();
            }
        }
        everywhere();
        let shown = |replica: &Replica| replica.documents("songs").get("1").unwrap().unwrap().value;
        assert_eq!((&shown(&b)["p"], &shown(&c)["p"]), (&json!(17), &json!(17)), "case {case}");
        assert_eq!(shown(&a)["plays"], 17, "case {case}: {}", shown(&a));
        assert_eq!(
            shown(&a).get("p").and_then(serde_json::Value::as_i64).unwrap_or_default(),
            0,
            "case {case}"
        );
        a.documents("songs").document("1").increment("plays", 1).unwrap();
        everywhere();
        assert_eq!((&shown(&b)["p"], &shown(&a)["plays"]), (&json!(18), &json!(18)), "case {case}");
    }
}

/// Of a field of an object that stands under two names, one value shows, and the other is not lost.
#[test]
fn objects_under_two_names_lose_no_field_silently() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = motet_tests::device(dir.path(), "a");
    let b = motet_tests::device(dir.path(), "b");
    b.apply_schema(&Schema::new().field("songs", "new", Field::register().alias("old"))).unwrap();
    a.documents("songs").upsert("1", &json!({ "old": { "tempo": 2, "k": 1 } })).unwrap();
    b.documents("songs").upsert("1", &json!({ "new": { "tempo": 5 } })).unwrap();
    for replica in [&a, &b, &a, &b] {
        sync(replica, &relay.url());
    }
    let shown = b.documents("songs").get("1").unwrap().unwrap().value;
    assert_eq!(shown["new"]["k"], 1);
    let rows = b.documents("songs").document("1").conflicts().unwrap();
    let lost = if shown["new"]["tempo"] == 5 { 2 } else { 5 };
    assert!(rows.iter().any(|row| row.path == "/new" && row.loser["tempo"] == lost), "{rows:?}");
}

/// The objects that two apps begin under two names: the row says who wrote what, and when.
#[test]
fn a_row_about_two_names_has_a_writer_and_a_time() {
    let apps = Apps::start(&FieldKind::Register.into());
    let shown = apps.both(&json!({ "x": "two", "q": 1 }), &json!({ "x": "one", "p": 1 }));
    assert_eq!(shown, json!({ "x": "one", "p": 1, "q": 1 }));
    let rows = apps.new.documents("songs").document("1").conflicts().unwrap();
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(row.device_name.as_deref(), Some("old"));
    assert_eq!(row.winner_device_name.as_deref(), Some("new"));
    assert!(row.time > 0 && row.winner_time > Some(0), "{row:?}");
}

/// An older app, which does not know the newer name, writes a plain value under the older one, later than what is being written in the
/// object under the newer one: that stands in the journal. What it knew of is replaced.
#[test]
fn an_object_under_a_newer_name_is_not_hidden_without_a_row() {
    for is_known in [false, true] {
        for with in [json!(null), json!("plain")] {
            let apps = Apps::start(&FieldKind::Register.into());
            apps.new.documents("songs").upsert("1", &json!({ "new": { "k": 1 } })).unwrap();
            apps.settle();
            apps.new.documents("songs").patch("1", &json!({ "new": { "k": 1, "a": "ʻaʻaliʻi" } })).unwrap();
            if is_known {
                apps.settle();
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
            apps.old.documents("songs").patch("1", &json!({ "old": with })).unwrap();
            assert_eq!(apps.settle(), with);
            for device in [&apps.new, &apps.third] {
                let rows = device.documents("songs").document("1").conflicts().unwrap();
                let losers: Vec<_> = rows.iter().map(|row| row.loser.clone()).collect();
                let expected = if is_known { vec![] } else { vec![json!({ "k": 1, "a": "ʻaʻaliʻi" })] };
                assert_eq!(losers, expected, "{with}, known: {is_known}");
            }
        }
    }
}
