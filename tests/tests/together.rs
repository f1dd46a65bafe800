//! Two people write at the same time: nothing is lost silently, and nothing is there twice.

use motet::{Collection, Replica, Resolution, Schema, json};
use motet_tests::{TestRelay, singer, sync};
use serde_json::Value;

/// Two devices, and a third that only reads, which know the same document.
struct Pair {
    _dir: tempfile::TempDir,
    relay: TestRelay,
    a: Replica,
    b: Replica,
    reader: Replica,
}

impl Pair {
    fn new(base: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let [a, b, reader] = ["a", "b", "reader"].map(|name| singer(dir.path(), name));
        a.documents("songs").upsert("1", base).unwrap();
        for replica in [&a, &b, &reader] {
            sync(replica, &relay.url());
        }
        Self { _dir: dir, relay, a, b, reader }
    }

    /// Lets both hear of each other, and checks that all devices show the same, with the journal that goes with it. The reader hears
    /// of both in one round, after one of them has.
    fn meet(&self) -> Value {
        for replica in [&self.a, &self.b, &self.a, &self.reader, &self.b] {
            sync(replica, &self.relay.url());
        }
        let shown = shown(&self.a);
        assert_eq!(shown, self::shown(&self.b));
        assert_eq!(shown, self::shown(&self.reader));
        shown
    }

    fn losers(&self, path: &str) -> Vec<Value> {
        let losers = |replica: &Replica| -> Vec<Value> {
            let rows = replica.documents("songs").document("1").conflicts().unwrap();
            rows.into_iter().filter(|row| row.path == path).map(|row| row.loser).collect()
        };
        assert_eq!(losers(&self.a), losers(&self.b));
        losers(&self.a)
    }
}

fn songs(replica: &Replica) -> Collection<Value> {
    replica.documents("songs")
}

fn shown(replica: &Replica) -> Value {
    let record = songs(replica).get("1").unwrap().unwrap();
    let mut anew = songs(replica).document("1").at(&record.version).unwrap();
    anew["id"] = "1".into();
    assert_eq!(anew, record.value, "the projection differs from the document");
    assert_eq!(replica.verify().unwrap().problems, []);
    let mut value = record.value;
    value.as_object_mut().unwrap().remove("id");
    value
}

fn base() -> Value {
    json!({ "title": "t", "lyrics": "one\ntwo\n", "plays": 5, "verses": ["a", "b"], "tags": ["x"], "meta": { "key": "C" } })
}

/// What each kind of field gets written inside of it.
fn write_inside(replica: &Replica, field: &str) {
    let songs = songs(replica);
    match field {
        "lyrics" => _ = songs.document("1").splice_text("lyrics", 8, 0, "three\n").unwrap(),
        "plays" => _ = songs.document("1").increment("plays", 2).unwrap(),
        "verses" => _ = songs.upsert("1", &json!({ "verses": ["a", "b", "c"] })).unwrap(),
        "tags" => {
            replica.transaction(|tx| tx.documents("songs").add_to_set("1", "tags", &[json!("y")])).unwrap();
        }
        "meta" => _ = songs.upsert("1", &json!({ "meta": { "tempo": 90 } })).unwrap(),
        _ => unreachable!(),
    }
}

const WRITTEN: [(&str, &str); 5] = [
    ("lyrics", r#""one\ntwo\nthree\n""#),
    ("plays", "7"),
    ("verses", r#"["a","b","c"]"#),
    ("tags", r#"["x","y"]"#),
    ("meta", r#"{"key":"C","tempo":90}"#),
];

#[test]
fn what_is_written_inside_a_field_that_another_device_nulls_survives_or_is_in_the_journal() {
    for (field, written) in WRITTEN {
        for inside_first in [true, false] {
            let pair = Pair::new(&base());
            let (one, other) = if inside_first { (&pair.a, &pair.b) } else { (&pair.b, &pair.a) };
            write_inside(one, field);
            songs(other).upsert("1", &json!({ field: null })).unwrap();
            let written: Value = serde_json::from_str(written).unwrap();
            let shown = pair.meet();
            if shown[field] != written {
                assert_eq!(shown[field], Value::Null, "{field}");
                assert_eq!(pair.losers(&format!("/{field}")), std::slice::from_ref(&written), "{field}");
                let rows = pair.b.documents("songs").document("1").conflicts().unwrap();
                let row = rows.iter().find(|row| row.loser == written).unwrap();
                let devices = [row.device.clone(), row.winner_device.clone()].map(Option::unwrap);
                assert_eq!(devices, [one, other].map(|replica| replica.device_id().to_string()), "{field}");
                songs(&pair.b)
                    .document("1")
                    .resolve(&row.path, Resolution::Loser(row.loser_id.clone()))
                    .unwrap();
                assert_eq!(pair.meet()[field], written, "{field} restored");
            } else if let Some(row) = pair.b.documents("songs").document("1").conflicts().unwrap().first() {
                // Of a counter nobody knows who counted last.
                let devices = [row.winner_device.clone(), row.device.clone()];
                let ids = [one, other].map(|replica| Some(replica.device_id().to_string()));
                assert!(devices == ids || field == "plays", "{field}: {row:?}");
            }
        }
    }
}

#[test]
fn what_is_written_inside_a_field_that_another_device_removes_survives() {
    for (field, written) in WRITTEN {
        let pair = Pair::new(&base());
        write_inside(&pair.a, field);
        let mut record = songs(&pair.b).get("1").unwrap().unwrap();
        record.as_object_mut().unwrap().remove(field);
        songs(&pair.b).update(&mut record).unwrap();
        let written: Value = serde_json::from_str(written).unwrap();
        assert_eq!(pair.meet()[field], written, "{field}");
    }
}

#[test]
fn what_nobody_wrote_in_goes_when_it_is_removed() {
    for (field, _) in WRITTEN {
        let pair = Pair::new(&base());
        songs(&pair.a).upsert("1", &json!({ "title": "other" })).unwrap();
        let mut record = songs(&pair.b).get("1").unwrap().unwrap();
        record.as_object_mut().unwrap().remove(field);
        songs(&pair.b).update(&mut record).unwrap();
        let shown = pair.meet();
        assert_eq!(shown.get(field), None, "{field}");
        assert_eq!(shown["title"], "other");
    }
}

#[test]
fn words_survive_that_a_document_is_deleted_and_made_again() {
    for (field, written) in WRITTEN {
        let pair = Pair::new(&base());
        write_inside(&pair.a, field);
        songs(&pair.b).delete("1").unwrap();
        songs(&pair.b).upsert("1", &json!({ "title": "again" })).unwrap();
        let written: Value = serde_json::from_str(written).unwrap();
        let shown = pair.meet();
        assert_eq!((&shown["title"], &shown[field]), (&json!("again"), &written));
    }
}

#[test]
fn an_item_is_ticked_moved_and_edited_once() {
    let list = json!([{ "t": "milk", "done": false }, { "t": "bread", "done": false }, { "t": "salt", "done": false }]);
    let pair = Pair::new(&json!({ "verses": list }));
    // The same item is ticked by both, and a field of another is edited by each.
    let mut ours = list.clone();
    ours[0]["done"] = true.into();
    ours[1]["done"] = true.into();
    let mut theirs = list.clone();
    theirs[0]["done"] = true.into();
    theirs[1]["t"] = "rye bread".into();
    songs(&pair.a).upsert("1", &json!({ "verses": ours })).unwrap();
    songs(&pair.b).upsert("1", &json!({ "verses": theirs })).unwrap();
    let right = json!([{ "t": "milk", "done": true }, { "t": "rye bread", "done": true }, { "t": "salt", "done": false }]);
    assert_eq!(pair.meet()["verses"], right);
}

/// Base, what each of both writes, and what both then show.
fn alike() -> Vec<[Value; 4]> {
    vec![
        // Both sort.
        [
            json!(["d", "c", "b", "a"]),
            json!(["a", "b", "c", "d"]),
            json!(["a", "b", "c", "d"]),
            json!(["a", "b", "c", "d"]),
        ],
        // Both move one item to the front.
        [json!(["a", "b", "c"]), json!(["c", "a", "b"]), json!(["c", "a", "b"]), json!(["c", "a", "b"])],
        // Both append the same.
        [json!(["a"]), json!(["a", "b"]), json!(["a", "b"]), json!(["a", "b"])],
        [json!([]), json!(["a", "b"]), json!(["a", "b"]), json!(["a", "b"])],
        [json!(null), json!(["a", "b"]), json!(["a", "b"]), json!(["a", "b"])],
        // Both append, and one of them more.
        [json!(["a"]), json!(["a", "b", "c"]), json!(["a", "b"]), json!(["a", "b", "c"])],
        // One moves what the other takes out.
        [json!(["a", "b", "c"]), json!(["c", "a", "b"]), json!(["a", "b"]), json!(["a", "b"])],
        // The same twice by one person is meant.
        [json!(["a"]), json!(["a", "a"]), json!(["a"]), json!(["a", "a"])],
        // With ids: one moves, the other edits.
        [
            json!([{ "id": 1, "t": "a" }, { "id": 2, "t": "b" }]),
            json!([{ "id": 2, "t": "b" }, { "id": 1, "t": "a" }]),
            json!([{ "id": 1, "t": "a" }, { "id": 2, "t": "b!" }]),
            json!([{ "id": 2, "t": "b!" }, { "id": 1, "t": "a" }]),
        ],
        // With ids: one deletes, the other edits.
        [
            json!([{ "id": 1, "t": "a" }, { "id": 2, "t": "b" }, { "id": 3, "t": "c" }]),
            json!([{ "id": 1, "t": "a" }, { "id": 3, "t": "c" }]),
            json!([{ "id": 1, "t": "a" }, { "id": 2, "t": "b!" }, { "id": 3, "t": "c" }]),
            json!([{ "id": 1, "t": "a" }, { "id": 2, "t": "b!" }, { "id": 3, "t": "c" }]),
        ],
        // With ids: both add one of the same id, with different fields.
        [
            json!([{ "id": 1 }]),
            json!([{ "id": 1 }, { "id": 2, "t": "b" }]),
            json!([{ "id": 1 }, { "id": 2, "n": 1 }]),
            json!([{ "id": 1 }, { "id": 2, "t": "b", "n": 1 }]),
        ],
    ]
}

#[test]
fn lists_hold_what_both_did_once() {
    for [base, ours, theirs, right] in alike() {
        let pair = Pair::new(&json!({ "verses": base }));
        songs(&pair.a).upsert("1", &json!({ "verses": ours })).unwrap();
        songs(&pair.b).upsert("1", &json!({ "verses": theirs })).unwrap();
        assert_eq!(pair.meet()["verses"], right, "{base}: {ours} and {theirs}");
        // And it stays so.
        songs(&pair.a).upsert("1", &json!({ "title": "later" })).unwrap();
        assert_eq!(pair.meet()["verses"], right);
    }
}

#[test]
fn both_begin_a_list_offline_with_near_equal_content() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (singer(dir.path(), "a"), singer(dir.path(), "b"));
    songs(&a).upsert("1", &json!({ "verses": ["a", "b", "c"] })).unwrap();
    songs(&b).upsert("1", &json!({ "verses": ["a", "b", "d"] })).unwrap();
    for replica in [&a, &b, &a] {
        sync(replica, &relay.url());
    }
    assert_eq!(shown(&a), shown(&b));
    let mut verses: Vec<String> = serde_json::from_value(shown(&a)["verses"].clone()).unwrap();
    verses.sort();
    assert_eq!(verses, ["a", "b", "c", "d"]);
}

#[test]
fn of_two_values_of_one_field_of_an_item_one_shows_and_the_other_is_in_the_journal() {
    let list = json!([{ "id": "x", "t": "a" }]);
    let pair = Pair::new(&json!({ "verses": list }));
    songs(&pair.a).upsert("1", &json!({ "verses": [{ "id": "x", "t": "ours" }] })).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(5));
    songs(&pair.b).upsert("1", &json!({ "verses": [{ "id": "x", "t": "theirs" }] })).unwrap();
    assert_eq!(pair.meet()["verses"], json!([{ "id": "x", "t": "theirs" }]));
    assert_eq!(pair.losers("/verses/0/t"), [json!("ours")]);
}

#[test]
fn a_list_may_keep_duplicates() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (singer(dir.path(), "a"), singer(dir.path(), "b"));
    for replica in [&a, &b] {
        let schema = "[collections.songs.fields]\nverses = { kind = \"list\", keep_duplicates = true }";
        replica.apply_schema(&Schema::from_toml(schema).unwrap()).unwrap();
    }
    songs(&a).upsert("1", &json!({ "verses": ["a", "z"] })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    // Both append the same, and both move one item.
    songs(&a).upsert("1", &json!({ "verses": ["z", "a", "b"] })).unwrap();
    songs(&b).upsert("1", &json!({ "verses": ["z", "a", "b"] })).unwrap();
    for replica in [&a, &b, &a] {
        sync(replica, &relay.url());
    }
    assert_eq!(shown(&a)["verses"], json!(["z", "a", "b", "b"]));
    assert_eq!(shown(&b), shown(&a));
    let error =
        Schema::from_toml("[collections.songs.fields]\nx = { kind = \"text\", keep_duplicates = true }");
    let error = error.unwrap_err().to_string();
    assert!(error.contains("keep_duplicates") && error.contains("list"), "{error}");
}

#[test]
fn a_list_begun_on_a_version_that_had_none_joins_the_one_that_others_began() {
    let pair = Pair::new(&json!({ "title": "t" }));
    let mut stale = pair.a.documents("songs").get("1").unwrap().unwrap();
    pair.b.documents("songs").patch("1", &json!({ "verses": [], "plays": 2 })).unwrap();
    pair.meet();
    stale.value["verses"] = json!(["mine"]);
    stale.value["plays"] = json!(1);
    pair.a.documents("songs").update(&mut stale).unwrap();
    assert_eq!(pair.a.documents("songs").document("1").conflicts().unwrap(), []);
    pair.b.documents("songs").patch("1", &json!({ "verses": ["theirs"] })).unwrap();
    let met = pair.meet();
    let mut verses = met["verses"].as_array().unwrap().clone();
    verses.sort_by_key(ToString::to_string);
    assert_eq!((verses, &met["plays"]), (vec![json!("mine"), json!("theirs")], &json!(3)));
}

/// Two devices begin a counter, list, set or text over the same value, whatever else each of them has written before.
#[test]
fn what_both_begin_over_one_value_is_one() {
    let plain = [
        (json!({ "plays": null, "verses": null, "tags": null, "lyrics": null }), 0),
        (json!({ "plays": 1.5, "verses": true, "tags": 7, "lyrics": 2 }), 0),
        (json!({ "plays": 5, "verses": [], "tags": ["x"], "lyrics": "one\n" }), 5),
        (json!({ "plays": null, "verses": ["v"], "tags": {}, "lyrics": "" }), 0),
    ];
    let written = [
        json!({ "plays": 7, "verses": ["v", "a", "b"], "tags": ["x", "a"], "lyrics": "one\ntwo\n" }),
        json!({ "plays": 9, "verses": ["v", "a", "c"], "tags": ["x", "b"], "lyrics": "zero\none\n" }),
    ];
    for (base, count) in &plain {
        for at_once in [true, false] {
            for before in [[0, 0], [1, 0], [0, 2], [2, 1]] {
                let dir = tempfile::tempdir().unwrap();
                let relay = TestRelay::start(&dir.path().join("relay"));
                let undeclared = |name: &str| {
                    Replica::builder(dir.path().join(format!("{name}.db"))).device_name(name).open().unwrap()
                };
                let (a, b) = (undeclared("a"), undeclared("b"));
                songs(&a).upsert("1", base).unwrap();
                sync(&a, &relay.url());
                sync(&b, &relay.url());
                drop((a, b));
                let (a, b) = (singer(dir.path(), "a"), singer(dir.path(), "b"));
                for (side, replica) in [&a, &b].into_iter().enumerate() {
                    for n in 0..before[side] {
                        songs(replica).patch("1", &json!({ format!("other{side}{n}"): n })).unwrap();
                    }
                    match at_once {
                        true => _ = songs(replica).patch("1", &written[side]).unwrap(),
                        false => {
                            for (field, value) in written[side].as_object().unwrap() {
                                songs(replica).patch("1", &json!({ field: value })).unwrap();
                            }
                        }
                    }
                }
                for replica in [&a, &b, &a, &b] {
                    sync(replica, &relay.url());
                }
                let told = format!("{base} at once: {at_once} before: {before:?}");
                let (one, other) = (shown(&a), shown(&b));
                assert_eq!(one, other, "{told}");
                assert_eq!(one["plays"], 7 + 9 - count, "{told}");
                assert_eq!(sorted(&one["verses"]), json!(["a", "b", "c", "v"]), "{told}: {one}");
                assert_eq!(sorted(&one["tags"]), json!(["a", "b", "x"]), "{told}: {one}");
                for line in ["zero", "one", "two"] {
                    let lyrics = one["lyrics"].as_str().unwrap();
                    assert_eq!(lyrics.matches(line).count(), 1, "{told}: {lyrics:?}");
                }
                let open = a
                    .documents("songs")
                    .document("1")
                    .conflicts()
                    .unwrap()
                    .into_iter()
                    .filter(|row| !row.settled);
                let open: Vec<_> = open.filter(|row| row.path != "/lyrics").collect();
                assert!(open.is_empty(), "{told}: {open:?}");
                assert_eq!([a.verify().unwrap().problems, b.verify().unwrap().problems], [[], []]);
            }
        }
    }
}

fn sorted(list: &Value) -> Value {
    let mut items: Vec<String> =
        list.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect();
    items.sort_unstable();
    json!(items)
}

/// Two devices write inside of a field that a third one nulls, removes or makes again, and they meet in every order.
#[test]
fn what_two_write_inside_of_a_field_that_a_third_replaces_comes_back_as_one() {
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    for order in orders {
        for how in ["null", "remove", "again"] {
            let dir = tempfile::tempdir().unwrap();
            let relay = TestRelay::start(&dir.path().join("relay"));
            let devices = ["a", "b", "c", "reader"].map(|name| singer(dir.path(), name));
            let base = json!({
                "plays": 1, "verses": ["v"], "tags": ["t"], "lyrics": "one\n", "meta": { "key": "C" }, "title": "Pua",
            });
            songs(&devices[0]).upsert("1", &base).unwrap();
            devices.iter().for_each(|device| _ = sync(device, &relay.url()));
            let inside = [
                json!({ "plays": 42, "verses": ["a", "v"], "tags": ["t", "a"], "lyrics": "zero\none\n", "meta": { "key": "C", "a": 1 } }),
                json!({ "plays": 7, "verses": ["v", "c"], "tags": ["t", "c"], "lyrics": "one\ntwo\n", "meta": { "key": "C", "c": 2 } }),
            ];
            let fields: Vec<String> = inside[0].as_object().unwrap().keys().cloned().collect();
            for (device, value) in [&devices[0], &devices[2]].into_iter().zip(&inside) {
                songs(device).patch("1", value).unwrap();
            }
            let b = songs(&devices[1]);
            match how {
                "null" => {
                    let nulls: serde_json::Map<_, _> =
                        fields.iter().map(|field| (field.clone(), Value::Null)).collect();
                    b.patch("1", &Value::Object(nulls)).unwrap();
                }
                "remove" => {
                    let mut song = b.get("1").unwrap().unwrap();
                    fields.iter().for_each(|field| _ = song.value.as_object_mut().unwrap().remove(field));
                    b.update(&mut song).unwrap();
                }
                _ => {
                    b.delete("1").unwrap();
                    b.upsert("1", &json!({ "title": "Pua" })).unwrap();
                }
            }
            for _ in 0..3 {
                order.iter().for_each(|device| _ = sync(&devices[*device], &relay.url()));
            }
            sync(&devices[3], &relay.url());
            devices.iter().for_each(|device| _ = sync(device, &relay.url()));
            let told = format!("{how}, {order:?}");
            let shows = shown(&devices[0]);
            for device in &devices {
                assert_eq!(shown(device), shows, "{told}");
                assert_eq!(device.verify().unwrap().problems, [], "{told}");
            }
            let conflicts = devices[3].documents("songs").document("1").conflicts().unwrap();
            // Where something else shows, one row has all that was written inside.
            let value_of = |field: &str| {
                if !shows[field].is_null() {
                    return shows[field].clone();
                }
                let of = |row: &&motet::Conflict| row.path == format!("/{field}") && !row.settled;
                let rows: Vec<_> = conflicts.iter().filter(of).collect();
                assert_eq!(rows.len(), 1, "{told}: {field}: {rows:?}");
                rows[0].loser.clone()
            };
            assert_eq!(value_of("plays"), 48, "{told}: {shows}");
            assert_eq!(sorted(&value_of("verses")), json!(["a", "c", "v"]), "{told}: {shows}");
            assert_eq!(sorted(&value_of("tags")), json!(["a", "c", "t"]), "{told}: {shows}");
            assert_eq!(value_of("lyrics"), "zero\none\ntwo\n", "{told}: {shows}");
            assert_eq!(value_of("meta"), json!({ "key": "C", "a": 1, "c": 2 }), "{told}: {shows}");
        }
    }
}

/// What was begun twice is folded by the next write: once, whoever writes next, on whichever version, and whatever else was written.
#[test]
fn what_was_begun_twice_is_folded_once() {
    for base in [None, Some(json!({ "lyrics": null })), Some(json!({ "lyrics": "" }))] {
        for case in 0..6 {
            let dir = tempfile::tempdir().unwrap();
            let relay = TestRelay::start(&dir.path().join("relay"));
            let (a, b) = (singer(dir.path(), "a"), singer(dir.path(), "b"));
            if let Some(base) = &base {
                songs(&a).upsert("1", base).unwrap();
                sync(&a, &relay.url());
                sync(&b, &relay.url());
            }
            songs(&a).upsert("1", &json!({ "lyrics": "one\n" })).unwrap();
            songs(&b).upsert("1", &json!({ "lyrics": "two\n" })).unwrap();
            for replica in [&a, &b, &a] {
                sync(replica, &relay.url());
            }
            let begun = shown(&a)["lyrics"].as_str().unwrap().to_owned();
            let change = |replica: &Replica, lyrics: &str| {
                let mut song = songs(replica).get("1").unwrap().unwrap();
                song["lyrics"] = json!(lyrics);
                songs(replica).update(&mut song).unwrap();
            };
            let (before, behind) = (format!("new\n{begun}"), format!("{begun}end\n"));
            let mut read = songs(&b).get("1").unwrap().unwrap();
            read["lyrics"] = json!(behind);
            match case {
                // One device, on an older version.
                0 => {
                    change(&b, &before);
                    songs(&b).update(&mut read).unwrap();
                }
                // Something else was written since.
                1 => {
                    change(&a, &before);
                    songs(&b).patch("1", &json!({ "o": 1 })).unwrap();
                    songs(&b).update(&mut read).unwrap();
                }
                2 => {
                    change(&a, &before);
                    songs(&b).patch("1", &json!({ "o": 1 })).unwrap();
                    change(&b, &behind);
                }
                3 => {
                    songs(&a).patch("1", &json!({ "p": 1 })).unwrap();
                    change(&a, &before);
                    songs(&b).patch("1", &json!({ "o": 1 })).unwrap();
                    change(&b, &behind);
                }
                4 => {
                    change(&a, &before);
                    sync(&a, &relay.url());
                    sync(&b, &relay.url());
                    songs(&b).update(&mut read).unwrap();
                }
                _ => {
                    let mut stale = songs(&a).get("1").unwrap().unwrap();
                    stale["lyrics"] = json!(before);
                    for replica in [&a, &b] {
                        songs(replica).patch("1", &json!({ "o": 1 })).unwrap();
                    }
                    songs(&a).update(&mut stale).unwrap();
                    songs(&b).update(&mut read).unwrap();
                }
            }
            for replica in [&a, &b, &a, &b] {
                sync(replica, &relay.url());
            }
            let told = format!("{base:?}, case {case}");
            assert_eq!(shown(&a)["lyrics"], json!(format!("new\n{begun}end\n")), "{told}");
            assert_eq!(shown(&b), shown(&a), "{told}");
            assert_eq!([a.verify().unwrap().problems, b.verify().unwrap().problems], [[], []]);
        }
    }
}

/// A field, or the document, is removed and everybody knows; then two devices begin it again.
#[test]
fn what_is_gone_begins_again_as_one() {
    let old = json!({ "plays": 8, "verses": ["old"], "tags": ["t"], "lyrics": "old\n" });
    for how in ["remove", "null", "delete", "delete and put"] {
        for same in [true, false] {
            let pair = Pair::new(&old);
            let first = songs(&pair.a);
            match how {
                "remove" => {
                    let mut song = first.get("1").unwrap().unwrap();
                    song.value = json!({ "id": "1" });
                    first.update(&mut song).unwrap();
                }
                "null" => {
                    let nulls = json!({ "plays": null, "verses": null, "tags": null, "lyrics": null });
                    first.patch("1", &nulls).unwrap();
                }
                _ => first.delete("1").unwrap(),
            }
            for replica in [&pair.a, &pair.b] {
                sync(replica, &pair.relay.url());
            }
            let begun = [
                json!({ "plays": 1, "verses": ["c"], "tags": ["x"], "lyrics": "new\n" }),
                json!({ "plays": 2, "verses": ["d"], "tags": ["y"], "lyrics": "new\nand\n" }),
            ];
            for (side, replica) in [&pair.a, &pair.b].into_iter().enumerate() {
                let begun = &begun[if same { 0 } else { side }];
                if how == "delete and put" {
                    songs(replica).upsert("1", &json!({ "z": 1 })).unwrap();
                }
                songs(replica).upsert("1", begun).unwrap();
            }
            let told = format!("{how}, the same: {same}");
            let shows = pair.meet();
            let (plays, verses, tags) = match same {
                true => (1, json!(["c"]), json!(["x"])),
                false => (3, json!(["c", "d"]), json!(["x", "y"])),
            };
            assert_eq!(shows["plays"], plays, "{told}: {shows}");
            assert_eq!(sorted(&shows["verses"]), verses, "{told}: {shows}");
            assert_eq!(sorted(&shows["tags"]), tags, "{told}: {shows}");
            assert_eq!(shows["lyrics"].as_str().unwrap().matches("new").count(), 1, "{told}: {shows}");
            for replica in [&pair.a, &pair.b] {
                songs(replica).document("1").increment("plays", 1).unwrap();
            }
            assert_eq!(pair.meet()["plays"], plays + 2, "{told}");
            assert_eq!([pair.a.verify().unwrap().problems, pair.b.verify().unwrap().problems], [[], []]);
        }
    }
}
