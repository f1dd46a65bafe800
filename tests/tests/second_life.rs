//! Deleted documents whose devices meet while they are in the trash, and what an undo does to a document that was made again.

use motet::{DeletePolicy, FieldKind, Replica, Schema};
use motet_tests::{TestRelay, declared, sync};
use serde_json::{Value, json};
use tempfile::TempDir;

const POLICIES: [DeletePolicy; 3] = [DeletePolicy::EditWins, DeletePolicy::Wins, DeletePolicy::Latest];

/// Devices that have one song, `1`.
struct Devices {
    all: Vec<Replica>,
    relay: TestRelay,
    _dir: TempDir,
}

impl Devices {
    fn new(count: usize, policy: DeletePolicy) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let schema = Schema::new()
            .text("songs", "lyrics")
            .field("songs", "plays", FieldKind::Counter)
            .field("songs", "verses", FieldKind::List)
            .field("songs", "tags", FieldKind::Set)
            .delete("songs", policy);
        let all = (0..count).map(|n| declared(dir.path(), &n.to_string(), &schema)).collect();
        Self { all, relay, _dir: dir }
    }

    fn put(&self, device: usize, song: &Value) {
        self.all[device].documents("songs").upsert("1", song).unwrap();
    }

    fn set(&self, device: usize, fields: &Value) {
        self.all[device].documents("songs").patch("1", fields).unwrap();
    }

    fn delete(&self, device: usize) {
        self.all[device].documents("songs").delete("1").unwrap();
    }

    fn restore(&self, device: usize) {
        self.all[device].documents("songs").document("1").restore().unwrap();
    }

    fn undo(&self, device: usize) {
        _ = self.all[device].undo().unwrap();
    }

    /// What all show once each has heard of the others.
    fn meet(&self) -> Value {
        for _ in 0..3 {
            self.all.iter().for_each(|device| _ = sync(device, &self.relay.url()));
        }
        let shown = |device: &Replica| {
            assert_eq!(device.verify().unwrap().problems, []);
            device.documents("songs").get("1").unwrap().map_or(Value::Null, |song| song.value)
        };
        let first = shown(&self.all[0]);
        self.all.iter().for_each(|device| assert_eq!(shown(device), first));
        first
    }

    fn open_rows(&self) -> usize {
        let rows = self.all[0].documents("songs").document("1").conflicts().unwrap();
        rows.iter().filter(|row| !row.settled).count()
    }
}

/// Two write in a song, in different ways, and delete it; it comes back from the trash. And, for comparison, nobody deletes it.
fn brought_back(
    base: &Value,
    written: [&Value; 2],
    is_deleted: bool,
    policy: DeletePolicy,
) -> (Value, usize) {
    let two = Devices::new(2, policy);
    two.put(0, base);
    two.meet();
    for (device, song) in written.into_iter().enumerate() {
        two.set(device, song);
        if is_deleted {
            two.delete(device);
        }
    }
    two.meet();
    if is_deleted {
        two.restore(0);
    }
    (two.meet(), two.open_rows())
}

#[test]
fn what_comes_out_of_the_trash_has_merged_as_if_it_had_never_been_there() {
    let item = |id: &str, word: &str| json!({ "id": id, "w": word });
    let cases = [
        (
            json!({ "lyrics": "one two three" }),
            [json!({ "lyrics": "one apple three" }), json!({ "lyrics": "one river three" })],
        ),
        (json!({ "lyrics": "one" }), [json!({ "lyrics": "one same" }), json!({ "lyrics": "one same" })]),
        (
            json!({ "lyrics": "one\ntwo\n" }),
            [json!({ "lyrics": "zero\none\ntwo\n" }), json!({ "lyrics": "one\ntwo\nthree\n" })],
        ),
        (
            json!({ "verses": [item("a", "1")] }),
            [
                json!({ "verses": [item("a", "1"), item("b", "2")] }),
                json!({ "verses": [item("a", "1"), item("b", "2")] }),
            ],
        ),
        (
            json!({ "verses": [item("a", "1")] }),
            [json!({ "verses": [] }), json!({ "verses": [item("a", "edit")] })],
        ),
        (
            json!({ "verses": ["d", "c", "b"] }),
            [json!({ "verses": ["b", "c", "d"] }), json!({ "verses": ["b", "c", "d"] })],
        ),
        (json!({ "plays": 3 }), [json!({ "plays": 5 }), json!({ "plays": 4 })]),
        (json!({ "tags": ["a", "b"] }), [json!({ "tags": ["a"] }), json!({ "tags": ["a", "b", "c"] })]),
    ];
    for (base, [a, b]) in &cases {
        for policy in POLICIES {
            let [dead, live] = [true, false].map(|deleted| brought_back(base, [a, b], deleted, policy));
            assert_eq!(dead.1, live.1, "{policy:?}: {a} beside {b}: {dead:?}, and {live:?}");
            // Which of two words comes first may differ from run to run.
            let words = |song: &Value| {
                let mut words: Vec<String> =
                    song.to_string().split([' ', ',', '\\']).map(str::to_owned).collect();
                words.sort();
                words
            };
            let is_text = base.get("lyrics").is_some();
            let is_like =
                if is_text { words(&dead.0).len() == words(&live.0).len() } else { dead.0 == live.0 };
            assert!(is_like, "{policy:?}: {a} beside {b}: {dead:?}, and {live:?}");
        }
    }
}

/// One makes the song again, one restores it, and a third edits what it held.
#[test]
fn an_edit_stays_where_others_restore_and_make_again() {
    let old = json!({ "verses": [{ "id": 1, "t": "old" }], "lyrics": "one two three\n" });
    let new = json!({ "verses": [{ "id": 1, "t": "new" }], "lyrics": "one four three\n", "id": "1" });
    for round in 0..6 {
        let three = Devices::new(3, DeletePolicy::EditWins);
        three.put(0, &old);
        three.meet();
        three.delete(0);
        if round % 2 == 0 {
            // The third knows of neither.
            three.put(0, &json!({}));
            three.delete(2);
            three.set(1, &new);
            three.restore(2);
        } else {
            // Two restore it, one of them edits.
            three.meet();
            three.restore(0);
            three.restore(1);
            three.set(0, &new);
            three.put(2, &json!({}));
        }
        assert_eq!(three.meet(), new, "round {round}");
        assert_eq!(three.meet(), new, "round {round}");
    }
}

/// Who makes it again writes into the text that was there, a second leaves it out, and a third restores it: both texts are there.
#[test]
fn what_one_restores_stays_beside_what_two_have_made_again() {
    let three = Devices::new(3, DeletePolicy::EditWins);
    three.put(0, &json!({ "lyrics": "pō é", "verses": ["v"] }));
    three.delete(0);
    three.meet();
    three.put(0, &json!({ "lyrics": "kai", "verses": ["w"] }));
    three.put(1, &json!({ "title": "t" }));
    three.restore(2);
    let shown = three.meet();
    let text = shown["lyrics"].as_str().unwrap();
    assert!(["pō", "é", "kai"].iter().all(|word| text.contains(word)), "{shown}");
    assert_eq!(shown["verses"].as_array().unwrap().len(), 2, "{shown}");
}

#[test]
fn each_takes_back_what_it_has_put_into_a_document_that_both_made() {
    let made = [
        json!({ "lyrics": "apple\n", "plays": 3, "tags": ["a"], "verses": ["av"] }),
        json!({ "lyrics": "river\n", "plays": 4, "tags": ["b"], "verses": ["bv"] }),
    ];
    // Who made what was deleted before that, if anybody did.
    for dead in [None, Some(0), Some(1)] {
        for who in [0, 1] {
            let two = Devices::new(2, DeletePolicy::EditWins);
            if let Some(by) = dead {
                two.put(by, &json!({ "title": "old" }));
                two.meet();
                two.delete(by);
                two.meet();
            }
            (0..2).for_each(|device| two.put(device, &made[device]));
            two.meet();
            two.undo(who);
            let shown = two.meet();
            for field in ["lyrics", "plays", "tags", "verses"] {
                assert_eq!(shown[field], made[1 - who][field], "{dead:?}, {who} takes {field} back: {shown}");
            }
        }
    }
}

#[test]
fn an_undo_takes_nothing_out_of_what_another_has_made_again_since() {
    let song = json!({
        "id": "1", "lyrics": "one two\n", "verses": ["v"], "place": { "x": "p" }, "tags": ["t"], "title": "n", "plays": 7,
    });
    for again in [song.clone(), json!({ "id": "1", "plays": 0, "lyrics": "one two\nthree\n" })] {
        let two = Devices::new(2, DeletePolicy::EditWins);
        two.put(0, &song);
        two.all[0].documents("songs").document("1").increment("plays", 5).unwrap();
        two.meet();
        two.delete(1);
        two.put(1, &again);
        two.meet();
        (0..3).for_each(|_| two.undo(0));
        assert_eq!(two.meet(), again);
        // Its own undo is as ever.
        two.undo(1);
        two.undo(1);
        let mut before = song.clone();
        before["plays"] = json!(12);
        assert_eq!(two.meet(), before);
    }
}

/// What each counted before it deleted the song is not taken back twice.
#[test]
fn counters_begin_again_whatever_each_has_counted_before() {
    for policy in POLICIES {
        for counted in [[0, 0], [0, 1], [2, 0], [3, -4]] {
            for is_heard in [false, true] {
                let two = Devices::new(2, policy);
                two.put(0, &json!({ "plays": 1_000 }));
                two.meet();
                for (device, by) in counted.into_iter().enumerate().filter(|(_, by)| *by != 0) {
                    two.all[device].documents("songs").document("1").increment("plays", by).unwrap();
                }
                if is_heard {
                    sync(&two.all[1], &two.relay.url());
                    sync(&two.all[0], &two.relay.url());
                }
                for (device, plays) in [(0, 3), (1, 5)] {
                    two.delete(device);
                    two.put(device, &json!({ "plays": plays }));
                }
                assert_eq!(two.meet()["plays"], 8, "{policy:?} {counted:?} {is_heard}");
                // A third life, in which they know of all that there was.
                two.delete(0);
                two.meet();
                two.put(0, &json!({ "plays": 3 }));
                two.put(1, &json!({ "plays": 4 }));
                assert_eq!(two.meet()["plays"], 7, "{policy:?} {counted:?} {is_heard}");
            }
        }
    }
}

/// More counts than are taken back one by one, which both know.
#[test]
fn a_counter_of_many_counts_begins_again() {
    let two = Devices::new(2, DeletePolicy::EditWins);
    two.put(0, &json!({ "plays": 1_000 }));
    for _ in 0..=motet::limits::ANEW_COUNTS {
        two.all[0].documents("songs").document("1").increment("plays", 1).unwrap();
    }
    two.meet();
    for (device, plays) in [(0, 3), (1, 5)] {
        two.delete(device);
        two.put(device, &json!({ "plays": plays }));
    }
    assert_eq!(two.meet()["plays"], 8);
}

/// What one restored or edited, and then deleted itself, is not in what another has made again.
#[test]
fn what_its_own_writer_deleted_does_not_come_back_with_what_another_made() {
    let old = json!({
        "lyrics": "oldwords\n", "tags": ["o"], "verses": ["ov"], "title": "old", "place": { "x": 1 }, "plays": 1_000, "parr": ["op"],
    });
    let new = json!({ "lyrics": "newwords\n", "parr": ["np"], "plays": 5 });
    for policy in [DeletePolicy::EditWins, DeletePolicy::Latest] {
        for how in ["delete", "undo", "purge", "edit", "edit before"] {
            let two = Devices::new(2, policy);
            two.put(0, &old);
            let edited = json!({
                "lyrics": "oldwords edited\n", "tags": ["o", "e"], "verses": ["ov", "ev"], "title": "edited", "plays": 1_010,
            });
            match how {
                "edit before" => {
                    two.meet();
                    two.set(1, &edited);
                    two.delete(1);
                    two.delete(0);
                    two.put(0, &new);
                }
                _ => {
                    two.delete(0);
                    two.meet();
                    two.restore(1);
                    if how == "edit" {
                        two.set(1, &edited);
                    }
                    if how == "undo" {
                        two.undo(1)
                    } else {
                        two.delete(1)
                    }
                    if how == "purge" {
                        two.all[1].documents("songs").purge_trash(i64::MAX).unwrap();
                    }
                    // The later, where the latest wins.
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    two.put(0, &new);
                }
            }
            let mut expected = new.clone();
            expected["id"] = "1".into();
            assert_eq!(two.meet(), expected, "{policy:?} {how}");
        }
    }
}
