//! Undo of what others did as well, or wrote apart from it.

use motet::{Adoption, BadRows, Collection, Field, FieldKind, Replica, Schema, json};
use motet_tests::{TestRelay, singer, sync};
use serde_json::Value;

struct Space {
    dir: tempfile::TempDir,
    relay: TestRelay,
    devices: Vec<Replica>,
}

impl Space {
    fn new(names: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let devices = names.iter().map(|name| singer(dir.path(), name)).collect();
        Self { dir, relay, devices }
    }

    fn of(base: &Value, names: &[&str]) -> Self {
        let space = Self::new(names);
        space.songs(0).upsert("1", base).unwrap();
        space.meet();
        space
    }

    fn songs(&self, device: usize) -> Collection<Value> {
        self.devices[device].documents("songs")
    }

    /// A write at a time of its own.
    fn set(&self, device: usize, value: &Value) {
        std::thread::sleep(std::time::Duration::from_millis(5));
        self.songs(device).patch("1", value).unwrap();
    }

    fn meet(&self) -> Value {
        for _ in 0..3 {
            self.devices.iter().for_each(|device| _ = sync(device, &self.relay.url()));
        }
        let shown: Vec<Value> = (0..self.devices.len()).map(|n| self.shown(n)).collect();
        assert!(shown.windows(2).all(|two| two[0] == two[1]), "{shown:?}");
        shown[0].clone()
    }

    fn shown(&self, device: usize) -> Value {
        let mut value = self.songs(device).get("1").unwrap().map_or(Value::Null, |record| record.value);
        value.as_object_mut().map(|fields| fields.remove("id"));
        value
    }

    fn undo(&self, device: usize) -> Value {
        self.devices[device].undo().unwrap();
        self.meet()
    }
}

const THREE: [&str; 3] = ["a", "b", "c"];

/// The same rows are taken up on two devices. An import or a change log tells that both did, so it stays there; adopted rows go
/// back on both, once.
#[test]
fn what_two_took_up_alike_never_goes_back_twice() {
    for (way, at_once) in [("adopt", false), ("adopt", true), ("import", false), ("change log", false)] {
        let space = Space::new(&["a", "b"]);
        let take_up = |device: usize, plays: i64, lyrics: &str, day: u32| {
            let row = json!({ "id": "1", "plays": plays, "lyrics": lyrics, "updated_at": format!("2036-01-{day:02}T00:00:00Z") });
            let replica = &space.devices[device];
            match way {
                "adopt" => _ = replica.adopt("songs", vec![row], &Adoption::default()).unwrap(),
                "import" => {
                    let line = format!("{row}\n");
                    _ = replica
                        .import_jsonl(Some("songs"), line.as_bytes(), BadRows::Report, |_| {})
                        .unwrap();
                }
                _ => {
                    let changes = json!({ "songs": [{ "op": "upsert", "id": "1", "data": row }] });
                    let log = json!({ "device_id": "x", "sync_version": 1, "timestamp": 1, "changes": changes, "config": [] });
                    _ = replica.import_change_log(&log).unwrap();
                }
            }
        };
        for (plays, lyrics, day) in [(5, "one\n", 1), (8, "one\ntwo\n", 2)] {
            take_up(0, plays, lyrics, day);
            take_up(1, plays, lyrics, day);
            space.meet();
        }
        let left = if way == "adopt" { (json!(5), json!("one\n")) } else { (json!(8), json!("one\ntwo\n")) };
        let fields = |shown: &Value| (shown["plays"].clone(), shown["lyrics"].clone());
        if at_once {
            space.devices.iter().for_each(|device| _ = device.undo().unwrap());
            assert_eq!(fields(&space.meet()), left, "{way}, undone on both at once");
        } else {
            assert_eq!(fields(&space.undo(0)), left, "{way}, undone on one of them");
            assert_eq!(fields(&space.undo(1)), left, "{way}, undone on both");
        }
    }
}

/// Two devices begin a field alike over null, after a removal, or a counter over nothing.
#[test]
fn what_two_began_alike_is_left_by_an_undo_of_one() {
    let begun = json!({ "plays": 5, "verses": ["a"], "tags": ["x"], "lyrics": "one\n" });
    let nulls = json!({ "plays": null, "verses": null, "tags": null, "lyrics": null });
    let mut failed = Vec::new();
    for (name, base, removed) in [
        ("nothing", json!({ "t": 1 }), false),
        ("null", nulls, false),
        ("removed", json!({ "plays": 4, "verses": ["v"], "tags": ["q"], "lyrics": "zero\n" }), true),
    ] {
        let space = Space::of(&base, &["a", "b"]);
        if removed {
            let mut song = space.songs(0).get("1").unwrap().unwrap();
            song.value = json!({ "id": "1" });
            space.songs(0).update(&mut song).unwrap();
            space.meet();
        }
        space.set(0, &begun);
        space.set(1, &begun);
        space.meet();
        let once = space.undo(0);
        for (field, value) in begun.as_object().unwrap() {
            if once[field] != *value {
                failed.push(format!("over {name}: undo on one: {field} is {}", once[field]));
            }
        }
        let twice = space.undo(1);
        if twice["plays"].as_i64().is_some_and(|plays| plays < 0) {
            failed.push(format!("over {name}: undone on both: plays is {}", twice["plays"]));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// One nulls an object in which another has written, and takes the null back: the other's word shows.
#[test]
fn an_undo_of_null_shows_what_others_wrote_inside() {
    for with in [json!(null), json!("plain")] {
        let space = Space::of(&json!({ "meta": { "k": 1 } }), &["a", "b"]);
        space.set(0, &json!({ "meta": { "k": 1, "a": "ʻaʻaliʻi" } }));
        space.set(1, &json!({ "meta": with }));
        assert_eq!(space.meet(), json!({ "meta": with }));
        assert_eq!(space.undo(1), json!({ "meta": { "k": 1, "a": "ʻaʻaliʻi" } }));
    }
}

/// One nulls fields while another, who does not know them, begins them: an undo of the null brings back what it took out.
#[test]
fn an_undo_of_null_brings_back_what_it_took_out() {
    let space = Space::of(&json!({ "t": 1 }), &THREE);
    space.set(
        1,
        &json!({ "lyrics": "ʻekahi\n", "verses": ["v"], "plays": 50, "tags": ["x"], "meta": { "b": 1 } }),
    );
    sync(&space.devices[1], &space.relay.url());
    sync(&space.devices[2], &space.relay.url());
    space.set(2, &json!({ "lyrics": null, "verses": null, "plays": null, "tags": null, "meta": null }));
    space.set(
        0,
        &json!({ "lyrics": "ʻelua\n", "verses": ["w"], "plays": 3, "tags": ["y"], "meta": { "a": 1 } }),
    );
    space.meet();
    let back = space.undo(2);
    assert_eq!(
        back,
        json!({ "t": 1, "lyrics": "ʻekahi\nʻelua\n", "verses": ["w", "v"], "plays": 53, "tags": ["x", "y"], "meta": { "a": 1, "b": 1 } })
    );
}

/// Two devices begin an object over null, or over a number: each takes its field back.
#[test]
fn a_field_of_an_object_begun_over_null_goes_back() {
    for base in [json!(null), json!(3)] {
        let space = Space::of(&json!({ "meta": base }), &["a", "b"]);
        space.set(0, &json!({ "meta": { "a": 1 } }));
        space.set(1, &json!({ "meta": { "b": 1 } }));
        space.meet();
        assert_eq!(space.undo(0)["meta"], json!({ "b": 1 }));
    }
}

/// Of two concurrent values of a register the one that shows goes back to the other, which its undo has chosen then.
#[test]
fn a_register_goes_back_to_what_another_wrote() {
    for (base, one, two) in [
        (json!({ "title": "t" }), json!({ "title": "one" }), json!({ "title": "two" })),
        (json!({ "m": { "x": "t" } }), json!({ "m": { "x": "one" } }), json!({ "m": { "x": "two" } })),
        (json!({ "a": [0] }), json!({ "a": [1] }), json!({ "a": [2] })),
    ] {
        let space = Space::of(&base, &["a", "b"]);
        space.set(0, &one);
        space.set(1, &two);
        assert_eq!(space.meet(), two);
        assert_eq!(space.undo(1), one);
        assert_eq!(space.undo(0), one);
    }
}

/// A set that both changed alike, by imports of the same row: an undo on one leaves the element, which the other put in as well.
#[test]
fn what_both_put_into_a_set_stays() {
    let space = Space::of(&json!({ "tags": ["x"] }), &["a", "b"]);
    for device in &space.devices {
        let line = "{\"id\":\"1\",\"tags\":[\"x\",\"y\"]}\n";
        device.import_jsonl(Some("songs"), line.as_bytes(), BadRows::Report, |_| {}).unwrap();
    }
    space.meet();
    assert_eq!(space.undo(1), json!({ "tags": ["x", "y"] }));
}

/// One takes a field out and takes that back before it hears that another has written in it: it is the field that the other wrote in.
#[test]
fn a_field_that_was_taken_out_comes_back_as_what_it_was() {
    let base = json!({ "plays": 100, "verses": ["v"], "tags": ["x"], "lyrics": "one\n", "meta": { "a": 1 } });
    let edited = json!({ "plays": 102, "verses": ["v", "w"], "tags": ["x", "y"], "lyrics": "one\ntwo\n", "meta": { "a": 1, "b": 2 } });
    let nulls = json!({ "plays": null, "verses": null, "tags": null, "lyrics": null, "meta": null });
    for with in [None, Some(&nulls)] {
        for edit_first in [true, false] {
            for again in [1, 2] {
                let space = Space::of(&base, &["a", "b"]);
                let take_out = |songs: &Collection<Value>| match with {
                    Some(nulls) => _ = songs.patch("1", nulls).unwrap(),
                    None => {
                        let mut song = songs.get("1").unwrap().unwrap();
                        song.value = json!({ "id": "1" });
                        songs.update(&mut song).unwrap();
                    }
                };
                if edit_first {
                    space.set(0, &edited);
                }
                for _ in 0..again {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    take_out(&space.songs(1));
                    space.devices[1].undo().unwrap();
                    assert_eq!(space.shown(1), base);
                    if again == 2 {
                        space.devices[1].redo().unwrap();
                        space.devices[1].undo().unwrap();
                        assert_eq!(space.shown(1), base);
                    }
                }
                if !edit_first {
                    space.set(0, &edited);
                }
                // The others write on in it as well.
                space.devices[1].documents("songs").document("1").increment("plays", 10).unwrap();
                let mut expected = edited.clone();
                expected["plays"] = json!(112);
                assert_eq!(space.meet(), expected, "{with:?}, edit first: {edit_first}, {again} times");
                let open: Vec<_> = space.devices[0].documents("songs").document("1").conflicts().unwrap();
                assert!(open.iter().all(|row| row.settled), "{open:?}");
                let late = singer(space.dir.path(), "late");
                sync(&late, &space.relay.url());
                let mut value = late.documents("songs").get("1").unwrap().unwrap().value;
                value.as_object_mut().unwrap().remove("id");
                assert_eq!(value, expected, "a new device");
            }
        }
    }
}

/// A word that somebody put in and another corrected stays whole when it is taken back.
#[test]
fn a_corrected_word_stays_whole() {
    for (base, put_in, corrected) in [
        ("one three", "one recieve three", "one receive three"),
        ("one\ntwo", "one\nrecieve\ntwo", "one\nreceive\ntwo"),
        ("one three", "one musician three", "one musicians three"),
        ("one three", "one hoi three", "one hoʻi three"),
    ] {
        let space = Space::of(&json!({ "lyrics": base }), &["a", "b"]);
        space.set(0, &json!({ "lyrics": put_in }));
        space.meet();
        space.set(1, &json!({ "lyrics": corrected }));
        space.meet();
        assert_eq!(space.undo(0)["lyrics"], corrected);
        space.devices[0].redo().unwrap();
        assert_eq!(space.meet()["lyrics"], corrected);
    }
}

/// What a document was before it was deleted does not come back by an undo of what made it again.
#[test]
fn an_undo_of_a_second_making_keeps_what_others_wrote_and_nothing_of_the_first() {
    let first = json!({ "tags": ["old"], "title": "old", "lyrics": "old\n", "plays": 7, "same": 1 });
    let second = json!({ "tags": ["new"], "title": "new", "lyrics": "new\n", "plays": 9, "same": 1 });
    for is_undone in [true, false] {
        let space = Space::new(&["a", "b"]);
        space.songs(0).upsert("1", &first).unwrap();
        match is_undone {
            true => _ = space.devices[0].undo().unwrap(),
            false => space.songs(0).delete("1").unwrap(),
        }
        space.songs(0).upsert("1", &second).unwrap();
        space.meet();
        space.set(1, &json!({ "note": 1 }));
        space.meet();
        let left = space.undo(0);
        assert_eq!(left["note"], 1);
        assert!(!left.to_string().contains("old") && !left.to_string().contains("new"), "{left}");
        assert!(left.get("plays").is_none_or(|plays| *plays == 0), "{left}");
    }
}

/// A conflict that is to be asked about, of a field under two names, does not keep the rest of a step from being taken back.
#[test]
fn a_contested_field_under_two_names_holds_up_no_undo() {
    let space = Space::of(&json!({ "o": 1 }), &["a", "b"]);
    let older = Schema::new().field("songs", "key", FieldKind::Ask);
    let newer = Schema::new().field("songs", "key2", Field::from(FieldKind::Ask).alias("key"));
    space.devices[0].apply_schema(&older).unwrap();
    space.devices[1].apply_schema(&newer).unwrap();
    space.set(0, &json!({ "key": "D" }));
    space.set(1, &json!({ "key2": "E", "lyrics": "one\n" }));
    for _ in 0..3 {
        space.devices.iter().for_each(|device| _ = sync(device, &space.relay.url()));
    }
    let undone = space.devices[1].undo().unwrap().unwrap();
    assert_eq!(undone.documents[0].fields, ["lyrics"]);
    assert!(
        space.devices[1].documents("songs").document("1").conflicts().unwrap().iter().any(|row| !row.settled)
    );
}

/// Each counts the same, and takes back its own count, however the other took back his.
#[test]
fn each_takes_back_its_own_count() {
    for by_undo in [true, false] {
        let space = Space::of(&json!({ "plays": 0 }), &["a", "b"]);
        for device in [0, 1] {
            space.songs(device).document("1").increment("plays", 1).unwrap();
        }
        assert_eq!(space.meet()["plays"], 2);
        match by_undo {
            true => _ = space.devices[0].undo().unwrap(),
            false => _ = space.songs(0).document("1").increment("plays", -1).unwrap(),
        }
        assert_eq!(space.meet()["plays"], 1);
        space.devices[1].undo().unwrap();
        assert_eq!(space.meet()["plays"], 0, "by undo: {by_undo}");
        space.devices[1].redo().unwrap();
        assert_eq!(space.meet()["plays"], 1, "by undo: {by_undo}");
    }
}

#[test]
fn an_undo_of_a_replacement_leaves_the_same_word_of_another_behind_it() {
    let space = Space::of(&json!({ "lyrics": "milk 1" }), &["a", "b"]);
    space.set(0, &json!({ "lyrics": "milk 2" }));
    space.set(1, &json!({ "lyrics": "milk 1, bread 2" }));
    assert_eq!(space.meet()["lyrics"], "milk 2, bread 2");
    space.devices[0].undo().unwrap();
    assert_eq!(space.meet()["lyrics"], "milk 1, bread 2");
}
