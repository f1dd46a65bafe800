//! Two devices change one list or text, meet, and each takes its own step back.

use motet::{FieldKind, Replica, Schema};
use motet_tests::{TestRelay, sync};
use serde_json::{Value as Json, json};

struct Pair {
    _dir: tempfile::TempDir,
    relay: TestRelay,
    devices: [Replica; 2],
}

impl Pair {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let devices = ["a", "b"].map(|name| {
            let replica =
                Replica::builder(dir.path().join(format!("{name}.db"))).device_name(name).open().unwrap();
            let schema = Schema::new().text("songs", "text").field("songs", "list", FieldKind::List);
            replica.apply_schema(&schema).unwrap();
            replica
        });
        Self { _dir: dir, relay, devices }
    }

    /// Until nobody has anything to tell; then both show the same.
    fn meet(&self) {
        while self
            .devices
            .iter()
            .map(|device| sync(device, &self.relay.url()))
            .any(|s| s.sent + s.received > 0)
        {}
    }

    fn set(&self, device: usize, id: &str, value: &Json) {
        let field = if value.is_array() { "list" } else { "text" };
        self.devices[device].documents("songs").patch(id, &json!({ field: value })).unwrap();
    }

    fn shown(&self, id: &str, like: &Json) -> Json {
        let field = if like.is_array() { "list" } else { "text" };
        let [a, b] = self
            .devices
            .each_ref()
            .map(|device| device.documents("songs").get(id).unwrap().unwrap().value[field].clone());
        assert_eq!(a, b, "{id}");
        a
    }
}

/// What shows once the first device has taken its step back, and once the second has as well.
fn taken_back(base: &Json, sides: [&Json; 2]) -> [Json; 2] {
    let pair = Pair::new();
    pair.devices[0].documents("songs").upsert("1", &json!({})).unwrap();
    pair.set(0, "1", base);
    pair.meet();
    pair.set(0, "1", sides[0]);
    pair.set(1, "1", sides[1]);
    pair.meet();
    let met = pair.shown("1", base);
    let after = [0, 1].map(|device| {
        pair.devices[device].undo().unwrap().unwrap();
        pair.meet();
        pair.shown("1", base)
    });
    for device in [1, 0] {
        pair.devices[device].redo().unwrap().unwrap();
        pair.meet();
    }
    let words = |value: &Json| {
        let text = value.to_string();
        let mut words: Vec<_> = text
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect();
        words.sort();
        words
    };
    assert_eq!(words(&pair.shown("1", base)), words(&met), "redone, {base} {sides:?}");
    pair.devices.iter().for_each(|device| assert!(device.verify().unwrap().problems.is_empty()));
    after
}

#[test]
fn an_item_that_one_moved_and_the_other_wrote_in_is_there_once() {
    let milk = |done: bool, text: &str| json!({ "done": done, "text": text });
    let song = |id: u8, title: &str| json!({ "id": id, "title": title });
    for (base, a, b) in [
        (json!(["a", "b", "c"]), json!(["c", "a", "b"]), json!(["a", "b", "c", "d"])),
        (json!(["a", "b", "c"]), json!(["b", "a", "c"]), json!(["a", "c", "b"])),
        (json!([1, 2, 3]), json!([1.5, 2, 3]), json!([1, 2, 3, 4])),
        (json!([milk(false, "milk")]), json!([milk(true, "milk")]), json!([milk(false, "milk 2l")])),
        (
            json!([song(1, "m"), song(2, "n")]),
            json!([song(2, "n"), song(1, "m")]),
            json!([song(1, "M"), song(2, "N")]),
        ),
        (
            json!([milk(false, "a"), milk(false, "b")]),
            json!([milk(false, "b"), milk(false, "a")]),
            json!([milk(true, "a"), milk(true, "b")]),
        ),
        (json!(["a", "b", "c", "d"]), json!(["d", "c", "b", "a"]), json!(["a", "c"])),
        (json!(["a", "b", "c", "d"]), json!(["a", "d"]), json!(["a", "b", "x", "c", "d"])),
    ] {
        assert_eq!(taken_back(&base, [&a, &b]), [b.clone(), base.clone()], "{base} {a} {b}");
    }
}

#[test]
fn what_both_replaced_comes_back_once() {
    for (base, a, b) in [
        (json!(["a"]), json!(["b"]), json!(["c"])),
        (
            json!(["echo", "foxtrot", "golf"]),
            json!(["echo", "lima", "golf"]),
            json!(["echo", "mike", "golf"]),
        ),
        (json!("echo foxtrot golf"), json!("echo lima golf"), json!("echo mike golf")),
        (json!("echo\nfoxtrot\ngolf\n"), json!("echo\nlima\ngolf\n"), json!("echo\nmike\ngolf\n")),
        (json!("hello world\n"), json!("goodbye moon\n"), json!("greetings stars\n")),
    ] {
        assert_eq!(taken_back(&base, [&a, &b])[1], base, "{base} {a} {b}");
        assert_eq!(taken_back(&base, [&b, &a])[1], base, "{base} {b} {a}");
    }
}

/// Words that only one side took out come back in their place, also where the other took out what stood beside them.
#[test]
fn what_comes_back_does_not_run_together_with_what_others_left() {
    for (base, a, b, expected) in [
        ("one two three", "one three", "one two", "one two"),
        ("one two three four", "one three four", "one two XX", "one two XX"),
        ("the quick brown fox\n", "the quick red fox\n", "the slow brown dog\n", "the slow brown dog\n"),
        ("kappa\ntheta\nzeta\nlambda", "kappa\ntheta\nlambda", "kappa\nzeta\nYEB", "kappa\nzeta\nYEB"),
    ] {
        let [once, twice] = taken_back(&json!(base), [&json!(a), &json!(b)]);
        assert_eq!((once, twice), (json!(expected), json!(base)), "{base:?} {a:?} {b:?}");
    }
}

#[test]
fn who_emptied_a_counter_takes_nothing_back_from_what_others_counted() {
    let pair = Pair::new();
    for device in &pair.devices {
        device.apply_schema(&Schema::new().field("songs", "n", FieldKind::Counter)).unwrap();
    }
    for (id, is_removed) in [("1", false), ("2", true)] {
        let [a, b] = pair.devices.each_ref().map(|device| device.documents("songs"));
        a.upsert(id, &json!({ "n": 5 })).unwrap();
        pair.meet();
        match is_removed {
            false => _ = a.patch(id, &json!({ "n": null })).unwrap(),
            true => {
                let mut song = a.get(id).unwrap().unwrap();
                song.value = json!({ "id": id });
                a.update(&mut song).unwrap();
            }
        }
        b.patch(id, &json!({ "n": 9 })).unwrap();
        pair.meet();
        assert_eq!(a.get(id).unwrap().unwrap().value["n"], 9);
        pair.devices[0].undo().unwrap().unwrap();
        pair.meet();
        assert_eq!(b.get(id).unwrap().unwrap().value["n"], 9);
    }
}
