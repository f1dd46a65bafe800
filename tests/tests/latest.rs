//! Among concurrent values the latest shows, and of a delete and an edit the later one where that is declared.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use motet::{DeletePolicy, Field, FieldKind, Replica, Schema, json};
use motet_tests::{TestRelay, sync};
use serde_json::Value;

/// A moment in 2026, in milliseconds.
const T0: i64 = 1_790_000_000_000;

struct Device {
    replica: Replica,
    clock: Arc<AtomicI64>,
}

impl Device {
    fn new(dir: &std::path::Path, name: &str) -> Self {
        let clock = Arc::new(AtomicI64::new(T0));
        let now = clock.clone();
        let replica = Replica::builder(dir.join(format!("{name}.db")))
            .device_name(name)
            .clock(move || now.load(Ordering::SeqCst))
            .open()
            .unwrap();
        let schema = Schema::new()
            .text("songs", "lyrics")
            .field("songs", "status", Field::rank(["draft", "learned", "done"]))
            .field("songs", "key", FieldKind::Ask)
            .delete("songs", DeletePolicy::Latest);
        replica.apply_schema(&schema).unwrap();
        Self { replica, clock }
    }

    /// Writes fields of document 1 at a time.
    fn put(&self, at: i64, fields: Value) {
        self.clock.store(at, Ordering::SeqCst);
        self.replica.documents("songs").upsert("1", &fields).unwrap();
    }

    fn delete(&self, at: i64) {
        self.clock.store(at, Ordering::SeqCst);
        self.replica.documents("songs").delete("1").unwrap();
    }

    fn get(&self) -> Option<Value> {
        Some(self.replica.documents("songs").get("1").unwrap()?.value)
    }
}

fn pair() -> (tempfile::TempDir, TestRelay, Device, Device) {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (Device::new(dir.path(), "a"), Device::new(dir.path(), "b"));
    a.put(T0, json!({ "title": "t", "lyrics": "one\n" }));
    sync(&a.replica, &relay.url());
    sync(&b.replica, &relay.url());
    (dir, relay, a, b)
}

fn sync_all(relay: &TestRelay, devices: &[&Device]) {
    for device in devices.iter().chain(devices) {
        sync(&device.replica, &relay.url());
    }
}

#[test]
fn the_later_of_two_concurrent_values_shows_whoever_made_it() {
    for round in 0..10 {
        let (_dir, relay, a, b) = pair();
        // One millisecond decides, in either direction, and however many edits stand before.
        let (first, second) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        for n in 0..round {
            first.put(T0 + 1, json!({ "title": format!("draft {n}") }));
        }
        first.put(T0 + 500, json!({ "title": "earlier" }));
        second.put(T0 + 501, json!({ "title": "later" }));
        sync_all(&relay, &[&a, &b]);
        for device in [&a, &b] {
            assert_eq!(device.get().unwrap()["title"], "later");
            let [conflict] = &device.replica.documents("songs").document("1").conflicts().unwrap()[..] else {
                panic!()
            };
            assert_eq!((&conflict.winner, &conflict.loser), (&json!("later"), &json!("earlier")));
            let (winner, loser) = if round % 2 == 0 { ("b", "a") } else { ("a", "b") };
            assert_eq!(conflict.winner_device_name.as_deref(), Some(winner));
            assert_eq!(conflict.device_name.as_deref(), Some(loser));
            assert_eq!((conflict.winner_time, conflict.time), (Some(T0 + 501), T0 + 500));
        }
    }
}

#[test]
fn causality_comes_first_and_a_clock_that_is_ahead_loses_its_advantage_once_seen() {
    let (_dir, relay, a, b) = pair();
    // A clock a year ahead wins once.
    a.put(T0 + 31_536_000_000, json!({ "title": "from the future" }));
    b.put(T0 + 5, json!({ "title": "from today" }));
    sync_all(&relay, &[&a, &b]);
    assert_eq!(b.get().unwrap()["title"], "from the future");
    // What was written after it was seen is later, whatever the clock says.
    b.put(T0 + 10, json!({ "title": "seen" }));
    sync_all(&relay, &[&a, &b]);
    assert_eq!(a.get().unwrap()["title"], "seen");
    a.put(T0 + 20, json!({ "title": "a" }));
    b.put(T0 + 21, json!({ "title": "b once" }));
    b.put(T0 + 22, json!({ "title": "b twice" }));
    sync_all(&relay, &[&a, &b]);
    assert_eq!(a.get().unwrap()["title"], "b twice");
    assert_eq!(b.get().unwrap()["title"], "b twice");
}

#[test]
fn rank_and_ask_are_as_they_are_and_what_a_rank_has_settled_is_no_open_conflict() {
    let (_dir, relay, a, b) = pair();
    a.put(T0 + 10, json!({ "status": "done", "key": "C" }));
    b.put(T0 + 20, json!({ "status": "learned", "key": "G" }));
    sync_all(&relay, &[&a, &b]);
    for device in [&a, &b] {
        assert_eq!(device.get().unwrap()["status"], "done");
        let conflicts = device.replica.documents("songs").document("1").conflicts().unwrap();
        let settled = |path: &str| conflicts.iter().find(|c| c.path == path).unwrap().settled;
        assert!(settled("/status"));
        assert!(!settled("/key"));
        assert_eq!(device.replica.counts().unwrap().conflicts, 1);
    }
    // Asked for: the write is refused until somebody has decided.
    let songs = a.replica.documents("songs");
    songs.patch("1", &json!({ "key": "D" })).unwrap_err();
    songs.document("1").resolve("/key", motet::Resolution::Shown).unwrap();
    sync_all(&relay, &[&a, &b]);
    assert_eq!(b.get().unwrap()["key"], "G");
    assert_eq!(b.replica.counts().unwrap().conflicts, 0);
}

#[test]
fn a_delete_wins_over_older_edits_and_loses_to_newer_ones() {
    for (edit, delete, lives) in [(10, 20, false), (20, 10, true), (10, 10, true)] {
        let (_dir, relay, a, b) = pair();
        a.put(T0 + edit, json!({ "lyrics": "one\ntwo\n" }));
        b.delete(T0 + delete);
        sync_all(&relay, &[&a, &b]);
        for device in [&a, &b] {
            assert_eq!(device.get().is_some(), lives, "edit at {edit}, delete at {delete}");
        }
        if lives {
            assert_eq!(b.get().unwrap()["lyrics"], "one\ntwo\n");
        } else {
            // It can be brought back, with the words of both.
            b.replica.documents("songs").document("1").restore().unwrap();
            sync_all(&relay, &[&a, &b]);
            assert_eq!(a.get().unwrap()["lyrics"], "one\ntwo\n");
        }
    }
}

#[test]
fn a_document_that_is_made_again_after_a_delete_lives() {
    let (_dir, relay, a, b) = pair();
    a.delete(T0 + 50);
    a.put(T0 + 60, json!({ "title": "anew" }));
    b.put(T0 + 10, json!({ "key": "C" }));
    sync_all(&relay, &[&a, &b]);
    for device in [&a, &b] {
        assert_eq!(device.get().unwrap()["title"], "anew");
    }
}

#[test]
fn of_two_arrays_or_objects_that_are_imported_the_later_shows_with_its_writer() {
    let bases = [json!([1]), json!({ "k": [1] }), json!({ "k": 1 })];
    for (n, base) in bases.iter().enumerate() {
        for [ours, theirs] in [
            [json!(["A"]), json!(["B"])],
            [json!("A"), json!("B")],
            [json!({ "k": "A" }), json!({ "k": "B" })],
        ] {
            let (_dir, relay, a, b) = pair();
            let import = |device: &Device, at: i64, value: &Value| {
                device.clock.store(at, Ordering::SeqCst);
                let row = json!({ "id": "1", "parts": value });
                let put =
                    |tx: &mut motet::Transaction<'_>| tx.documents("songs").upsert_many(&[row]).map(drop);
                device.replica.transaction(put).unwrap();
            };
            import(&a, T0 + 1, base);
            sync_all(&relay, &[&a, &b]);
            // Who is earlier changes from case to case.
            let (first, second) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
            import(first, T0 + 1_000, &ours);
            import(second, T0 + 2_000, &theirs);
            sync_all(&relay, &[&a, &b]);
            for device in [&a, &b] {
                let mut right = theirs.clone();
                if let (Value::Object(base), Value::Object(right)) = (base, &mut right) {
                    base.iter().for_each(|(k, v)| _ = right.entry(k.clone()).or_insert_with(|| v.clone()));
                }
                assert_eq!(device.get().unwrap()["parts"], right, "{base}: {ours}, then {theirs}");
                for conflict in device.replica.documents("songs").document("1").conflicts().unwrap() {
                    assert!(conflict.device.is_some() && conflict.winner_device.is_some(), "{conflict:?}");
                    assert!(Some(conflict.time) < conflict.winner_time);
                }
            }
        }
    }
}

#[test]
fn an_object_that_is_later_than_a_plain_value_shows_and_has_its_writer() {
    let befores = [json!({}), json!({ "meta": null }), json!({ "meta": "old" }), json!({ "meta": [1] })];
    for before in befores {
        for (ours, theirs) in [
            (json!("plain"), json!({ "tempo": 120 })),
            (json!(5), json!({})),
            (json!(null), json!({ "a": { "b": 1 } })),
        ] {
            if before.get("meta") == Some(&ours) {
                continue;
            }
            let (_dir, relay, a, b) = pair();
            a.put(T0 + 1, before.clone());
            sync_all(&relay, &[&a, &b]);
            a.put(T0 + 1_000, json!({ "meta": ours }));
            b.put(T0 + 3_000, json!({ "meta": theirs }));
            sync_all(&relay, &[&a, &b]);
            for device in [&a, &b] {
                assert_eq!(device.get().unwrap()["meta"], theirs, "{before}: {ours}, then {theirs}");
                let [conflict] = &device.replica.documents("songs").document("1").conflicts().unwrap()[..]
                else {
                    panic!("{before}")
                };
                assert_eq!((&conflict.loser, conflict.device_name.as_deref()), (&ours, Some("a")));
                assert_eq!(conflict.winner_device_name.as_deref(), Some("b"));
                assert_eq!(conflict.winner_time, Some(T0 + 3_000));
            }
            // And the other way round.
            a.put(T0 + 5_000, json!({ "meta": { "later": true } }));
            b.put(T0 + 7_000, json!({ "meta": "latest" }));
            sync_all(&relay, &[&a, &b]);
            assert_eq!(a.get().unwrap()["meta"], "latest");
            assert_eq!(b.get().unwrap()["meta"], "latest");
        }
    }
}

#[test]
fn a_later_write_settles_what_devices_with_other_declarations_wrote_at_once() {
    let cases = [
        (FieldKind::Set, [json!(["x"]), json!(["y"]), json!(["z"])]),
        (FieldKind::List, [json!(["x"]), json!(["y"]), json!(["z", "y"])]),
        (FieldKind::Text, [json!("x"), json!(7), json!("z")]),
    ];
    for (kind, [first, second, later]) in cases {
        for declares in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let relay = TestRelay::start(&dir.path().join("relay"));
            let (a, b) = (motet_tests::device(dir.path(), "a"), motet_tests::device(dir.path(), "b"));
            a.apply_schema(&Schema::new().field("tasks", "f", kind.clone())).unwrap();
            a.documents("tasks").upsert("1", &json!({ "title": "hana" })).unwrap();
            [&a, &b].iter().for_each(|replica| _ = sync(replica, &relay.url()));
            a.documents("tasks").patch("1", &json!({ "f": first })).unwrap();
            b.documents("tasks").patch("1", &json!({ "f": second })).unwrap();
            let meet = || [&a, &b, &a].iter().for_each(|replica| _ = sync(replica, &relay.url()));
            let open = |replica: &Replica| {
                let rows = replica.documents("tasks").document("1").conflicts().unwrap();
                rows.iter().filter(|row| !row.settled).count()
            };
            meet();
            assert_eq!((open(&a), open(&b)), (1, 1), "{kind:?}");
            let writer = if declares { &a } else { &b };
            writer.documents("tasks").patch("1", &json!({ "f": later })).unwrap();
            meet();
            for replica in [&a, &b] {
                assert_eq!(replica.documents("tasks").get("1").unwrap().unwrap()["f"], later, "{kind:?}");
                assert_eq!(open(replica), 0, "{kind:?}, written by {declares}");
            }
        }
    }
}

#[test]
fn a_set_beside_an_object_takes_none_of_its_names_and_every_choice_settles() {
    let resolutions = [
        motet::Resolution::Shown,
        motet::Resolution::Value(json!(["z"])),
        motet::Resolution::Value(json!({ "q": 2 })),
    ];
    for (n, resolution) in resolutions.into_iter().enumerate() {
        for (kind, first) in [(FieldKind::Set, json!(["x", "y"])), (FieldKind::Register, json!({ "a": 1 }))] {
            let dir = tempfile::tempdir().unwrap();
            let relay = TestRelay::start(&dir.path().join("relay"));
            let (a, b) = (motet_tests::device(dir.path(), "a"), motet_tests::device(dir.path(), "b"));
            a.apply_schema(&Schema::new().field("tasks", "f", kind.clone())).unwrap();
            a.documents("tasks").upsert("1", &json!({ "title": "hana" })).unwrap();
            let meet = || [&a, &b, &a, &b].iter().for_each(|replica| _ = sync(replica, &relay.url()));
            meet();
            a.documents("tasks").patch("1", &json!({ "f": first })).unwrap();
            let second = if kind == FieldKind::Set { json!({ "k": 1 }) } else { json!("text") };
            b.documents("tasks").patch("1", &json!({ "f": second })).unwrap();
            meet();
            let shown =
                |replica: &Replica| replica.documents("tasks").get("1").unwrap().unwrap()["f"].clone();
            assert!(shown(&a) == first || shown(&a) == second, "{}", shown(&a));
            if n == 2 && kind == FieldKind::Set {
                continue;
            }
            let chosen = match &resolution {
                motet::Resolution::Value(value) => value.clone(),
                _ => shown(&a),
            };
            a.documents("tasks").document("1").resolve("/f", resolution.clone()).unwrap();
            meet();
            for replica in [&a, &b] {
                assert_eq!(shown(replica), chosen, "{kind:?} {n}");
                let rows = replica.documents("tasks").document("1").conflicts().unwrap();
                assert!(rows.iter().all(|row| row.settled), "{kind:?} {n}: {rows:?}");
            }
        }
    }
}

#[test]
fn an_object_that_shows_still_shows_when_its_last_field_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let [a, b] = ["a", "b"].map(|name| Device::new(dir.path(), name));
    b.put(T0, json!({ "place": null }));
    sync(&b.replica, &relay.url());
    a.put(T0 + 1_000, json!({ "place": { "at": [] } }));
    sync(&a.replica, &relay.url());
    let songs = a.replica.documents("songs");
    let mut song = songs.get("1").unwrap().unwrap();
    assert_eq!(song.value["place"], json!({ "at": [] }));
    song.value["place"] = json!({});
    songs.update(&mut song).unwrap();
    sync(&a.replica, &relay.url());
    sync(&b.replica, &relay.url());
    for device in [&a, &b] {
        assert_eq!(device.replica.documents("songs").get("1").unwrap().unwrap().value["place"], json!({}));
    }
}

#[test]
fn a_rank_that_is_declared_late_settles_what_was_open() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (motet_tests::device(dir.path(), "a"), motet_tests::device(dir.path(), "b"));
    a.documents("tasks").upsert("1", &json!({ "status": "done" })).unwrap();
    b.documents("tasks").upsert("1", &json!({ "status": "draft" })).unwrap();
    [&a, &b, &a].iter().for_each(|replica| _ = sync(replica, &relay.url()));
    let open = |replica: &Replica| {
        let rows = replica.documents("tasks").document("1").conflicts().unwrap();
        rows.iter().filter(|row| !row.settled).count()
    };
    assert_eq!((open(&a), a.counts().unwrap().conflicts), (1, 1));
    a.apply_schema(&Schema::new().field("tasks", "status", Field::rank(["draft", "done"]))).unwrap();
    assert_eq!(a.documents("tasks").get("1").unwrap().unwrap()["status"], "done");
    assert_eq!((open(&a), a.counts().unwrap().conflicts), (0, 0));
    assert!(a.documents("tasks").document("1").conflicts().unwrap().iter().any(|row| row.loser == "draft"));
    // On a device that has not declared it, it is open.
    assert_eq!(open(&b), 1);
}
