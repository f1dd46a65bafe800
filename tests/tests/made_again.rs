//! Documents that several devices know to be deleted, and make again without knowledge of each other.

use std::collections::BTreeSet;

use motet::Replica;
use motet_tests::random::{Random, seed};
use motet_tests::{TestRelay, singer, sync};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Who deleted the song before it was made again.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Deleted {
    /// One device, and all had heard of that.
    ForAll,
    /// Each for itself, without knowledge of the others.
    ByEach,
}

/// Devices and what passes changes between them.
struct Devices {
    all: Vec<Replica>,
    relay: TestRelay,
    _dir: TempDir,
}

impl Devices {
    /// All know the song `1`, which held `dead`, and that it is deleted.
    fn with(count: usize, dead: &Value, deleted: Deleted) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let all: Vec<_> = (0..count).map(|n| singer(dir.path(), &n.to_string())).collect();
        all[0].documents("songs").upsert("1", dead).unwrap();
        if deleted == Deleted::ForAll {
            all[0].documents("songs").delete("1").unwrap();
        }
        all.iter().for_each(|device| _ = sync(device, &relay.url()));
        if deleted == Deleted::ByEach {
            all.iter().for_each(|device| device.documents("songs").delete("1").unwrap());
        }
        Self { all, relay, _dir: dir }
    }

    /// What all show once each has heard of the others.
    fn meet(&self, what: &str) -> Value {
        for device in self.all.iter().chain(&self.all).chain(&self.all) {
            sync(device, &self.relay.url());
        }
        let mut shown: Vec<Value> = Vec::new();
        for device in &self.all {
            assert_eq!(device.verify().unwrap().problems, [], "{what}");
            shown.push(device.documents("songs").get("1").unwrap().unwrap().value);
        }
        assert!(shown.iter().all(|other| *other == shown[0]), "{what}: {shown:#?}");
        shown.swap_remove(0)
    }

    /// What lost, by the journals of all: a device that receives everything at once may lack a settled row (`docs/schema.md`).
    fn losers(&self) -> Vec<Value> {
        let journal = |device: &Replica| device.documents("songs").document("1").conflicts().unwrap();
        self.all.iter().flat_map(journal).map(|row| row.loser).collect()
    }
}

fn again(deleted: Deleted, dead: &Value, made: [&Value; 2]) -> Value {
    let two = Devices::with(2, dead, deleted);
    for (device, made) in two.all.iter().zip(made) {
        device.documents("songs").upsert("1", made).unwrap();
    }
    two.meet(&format!("{deleted:?}, {dead}: {made:?}"))
}

#[test]
fn what_only_one_of_two_kept_of_a_deleted_document_stays() {
    [Deleted::ForAll, Deleted::ByEach].into_iter().for_each(check_what_one_kept);
}

fn check_what_one_kept(deleted: Deleted) {
    let again = |dead: &Value, made: [&Value; 2]| again(deleted, dead, made);
    let words = |value: &Value, field: &str| -> BTreeSet<String> {
        value[field].as_str().unwrap().split_whitespace().map(str::to_owned).collect()
    };
    let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();

    let shown = again(
        &json!({ "lyrics": "milk bread salt" }),
        [&json!({ "lyrics": "milk" }), &json!({ "lyrics": "bread" })],
    );
    assert_eq!(words(&shown, "lyrics"), set(&["milk", "bread"]), "{shown}");
    let shown = again(
        &json!({ "lyrics": "milk bread salt" }),
        [&json!({ "lyrics": "milk bread salt" }), &json!({ "title": "other" })],
    );
    assert_eq!(shown, json!({ "id": "1", "lyrics": "milk bread salt", "title": "other" }));
    let shown =
        again(&json!({ "tags": ["a", "b", "c"] }), [&json!({ "tags": ["a"] }), &json!({ "tags": ["b"] })]);
    assert_eq!(shown["tags"], json!(["a", "b"]));
    let shown = again(
        &json!({ "verses": ["a", "b", "c", "d"] }),
        [&json!({ "verses": ["a", "c"] }), &json!({ "verses": ["b", "d"] })],
    );
    let verses: Vec<&str> = shown["verses"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(verses == ["a", "c", "b", "d"] || verses == ["b", "d", "a", "c"], "{verses:?}");
    let shown = again(
        &json!({ "place": { "x": 1, "y": 2 } }),
        [&json!({ "place": { "x": 1 } }), &json!({ "place": { "y": 2 } })],
    );
    assert_eq!(shown["place"], json!({ "x": 1, "y": 2 }));
    let shown =
        again(&json!({ "title": "t", "key": "G" }), [&json!({ "title": "t" }), &json!({ "key": "G" })]);
    assert_eq!(shown, json!({ "id": "1", "title": "t", "key": "G" }));
}

/// One of them brings it back as it was.
#[test]
fn what_one_of_two_restored_stays_beside_what_the_other_made() {
    let dead = json!({
        "lyrics": "milk bread", "tags": ["a", "b"], "verses": ["v", "w"], "place": { "x": 1 }, "title": "t",
    });
    let two = Devices::with(2, &dead, Deleted::ForAll);
    two.all[0].documents("songs").document("1").restore().unwrap();
    two.all[1].documents("songs").upsert("1", &json!({ "lyrics": "salt", "tags": ["c"] })).unwrap();
    let shown = two.meet("restored");
    for word in ["milk", "bread", "salt"] {
        assert!(shown["lyrics"].as_str().unwrap().contains(word), "{shown}");
    }
    assert_eq!(shown["tags"], json!(["a", "b", "c"]));
    assert_eq!(
        (&shown["verses"], &shown["place"], &shown["title"]),
        (&dead["verses"], &dead["place"], &dead["title"])
    );
}

const WORDS: [&str; 7] = ["kai", "laʻi", "pō", "🌊", "ua", "é", "aloha"];

fn some(random: &mut Random, most: u64) -> Vec<&'static str> {
    let mut words: Vec<&str> = WORDS.iter().copied().filter(|_| random.below(2) == 0).collect();
    words.truncate(random.below(most + 1) as usize);
    if random.below(3) == 0 {
        words.reverse();
    }
    words
}

fn song(random: &mut Random) -> Value {
    let mut song = json!({});
    if random.below(3) > 0 {
        let gap = if random.below(2) == 0 { "\n" } else { " " };
        song["lyrics"] = some(random, 5).join(gap).into();
    }
    if random.below(3) > 0 {
        song["tags"] = some(random, 4).into();
    }
    if random.below(3) > 0 {
        song["verses"] = some(random, 5).into();
    }
    if random.below(3) > 0 {
        song["plays"] = random.below(3).into();
    }
    for field in ["title", "key"] {
        if random.below(3) > 0 {
            song[field] = random.below(3).into();
        }
    }
    if random.below(3) > 0 {
        song["place"] = json!({ "in": {} });
        for word in some(random, 3) {
            song["place"][word] = random.below(2).into();
            song["place"]["in"][word] = random.below(2).into();
        }
    }
    song
}

/// Whether a value is one of these, or a part of one.
fn is_among(value: &Value, losers: &[Value]) -> bool {
    losers.iter().any(|loser| {
        loser == value
            || loser
                .as_object()
                .is_some_and(|fields| is_among(value, &fields.values().cloned().collect::<Vec<_>>()))
    })
}

/// Whether what one wrote is in what shows, or, if it is a plain value, in the journal.
fn is_kept(written: &Value, shown: &Value, losers: &[Value]) -> bool {
    match (written, shown) {
        (Value::Object(written), Value::Object(shown)) => written
            .iter()
            .all(|(name, written)| is_kept(written, shown.get(name).unwrap_or(&Value::Null), losers)),
        // A known exception (`docs/schema.md`): a text without words may be no field.
        (Value::String(written), Value::Null) if written.is_empty() => true,
        (Value::Array(written), Value::Array(shown)) => written.iter().all(|item| shown.contains(item)),
        (Value::String(written), Value::String(shown)) => {
            written.split_whitespace().all(|word| shown.split_whitespace().any(|other| other == word))
        }
        _ => written == shown || is_among(written, losers),
    }
}

/// Two make it again with an object, and a third has written over the deleted one: of the objects that the two made, what does not show is in
/// the journal.
#[test]
fn an_object_that_two_made_beside_what_a_third_deleted_is_kept() {
    let dead = json!({ "verses": ["🌊", "kai"] });
    for round in 0..6 {
        let devices = Devices::with(3, &dead, Deleted::ByEach);
        let songs = |n: usize| devices.all[(n + round) % 3].documents("songs");
        songs(0).upsert("1", &json!({ "place": { "pō": 0 }, "verses": ["é"] })).unwrap();
        songs(1).upsert("1", &json!({ "place": { "pō": 1 }, "verses": ["kai", "laʻi", "ua"] })).unwrap();
        songs(2).document("1").restore().unwrap();
        songs(2).upsert("1", &json!({ "place": {} })).unwrap();
        songs(2).delete("1").unwrap();
        let (shown, losers) = (devices.meet("an object"), devices.losers());
        for made in [0, 1] {
            assert!(is_kept(&json!({ "place": { "pō": made } }), &shown, &losers), "{shown} {losers:?}");
        }
    }
}

/// Of three one restores the deleted song, writes in it and deletes it again: none of that stands in what the others made.
#[test]
fn what_a_third_wrote_and_deleted_is_not_in_what_two_made() {
    let dead = json!({
        "key": 0, "lyrics": "laʻi", "plays": 2, "tags": [], "verses": ["aloha", "é", "pō", "laʻi"],
        "place": { "in": { "kai": 1 }, "kai": 0 },
    });
    let made = [
        json!({
            "key": 1, "plays": 0, "tags": ["pō"], "title": 0, "verses": ["kai"],
            "place": { "in": { "kai": 1, "laʻi": 1 }, "kai": 1, "laʻi": 1 },
        }),
        json!({ "key": 2, "lyrics": "é ua pō", "title": 0 }),
        json!({ "lyrics": "aloha\né\nua\nlaʻi", "tags": ["ua"], "verses": ["🌊"] }),
    ];
    for round in 0..24 {
        let devices = Devices::with(3, &dead, Deleted::ForAll);
        let songs = |n: usize| devices.all[(n + round) % 3].documents("songs");
        songs(0).upsert("1", &made[0]).unwrap();
        songs(1).upsert("1", &made[1]).unwrap();
        songs(2).document("1").restore().unwrap();
        songs(2).upsert("1", &made[2]).unwrap();
        songs(2).delete("1").unwrap();
        let shown = devices.meet(&format!("round {round}"));
        assert_eq!((&shown["tags"], &shown["verses"]), (&json!(["pō"]), &json!(["kai"])), "{round}: {shown}");
    }
}

/// What two restored and edited is merged as if it had never been deleted.
#[test]
fn what_two_restored_and_edited_is_merged() {
    let two = Devices::with(2, &json!({ "lyrics": "one two three\nfour\n" }), Deleted::ForAll);
    for (device, words) in two.all.iter().zip(["one TWO three\nfour\n", "one two three\nFOUR\n"]) {
        device.documents("songs").document("1").restore().unwrap();
        device.documents("songs").patch("1", &json!({ "lyrics": words })).unwrap();
    }
    assert_eq!(two.meet("edited")["lyrics"], "one TWO three\nFOUR\n");
}

/// What a device does about the deleted song.
#[derive(Clone, Debug)]
enum ChangeAction {
    Put(Value),
    Restore,
    /// Restores it, writes this, and deletes it again.
    Over(Value),
    Nothing,
}

#[test]
fn everything_that_several_wrote_when_they_made_it_again_is_there() {
    let seed = seed();
    for round in 0..60 {
        let mut random = Random(seed.wrapping_add(round));
        let count = 2 + random.below(2) as usize;
        let deleted = if random.below(2) == 0 { Deleted::ForAll } else { Deleted::ByEach };
        let dead = song(&mut random);
        let mut deeds: Vec<ChangeAction> = (0..count)
            .map(|_| match random.below(7) {
                0 => ChangeAction::Restore,
                1 => ChangeAction::Nothing,
                2 => ChangeAction::Over(song(&mut random)),
                _ => ChangeAction::Put(song(&mut random)),
            })
            .collect();
        // Where somebody only restores it, what a third wrote and deleted is an edit of that.
        let is_made = deeds.iter().any(|deed| matches!(deed, ChangeAction::Put(_)));
        if !is_made {
            deeds[0] = ChangeAction::Restore;
        }
        if deeds.iter().any(|deed| matches!(deed, ChangeAction::Restore)) {
            deeds
                .iter_mut()
                .filter(|deed| matches!(deed, ChangeAction::Over(_)))
                .for_each(|deed| *deed = ChangeAction::Nothing);
        }
        let what = format!("seed {seed}, round {round}: {dead} was deleted ({deleted:?}), then {deeds:?}");
        let devices = Devices::with(count, &dead, deleted);
        for (device, deed) in devices.all.iter().zip(&deeds) {
            match deed {
                ChangeAction::Put(made) => _ = device.documents("songs").upsert("1", made).unwrap(),
                ChangeAction::Restore => _ = device.documents("songs").document("1").restore().unwrap(),
                ChangeAction::Over(written) => {
                    device.documents("songs").document("1").restore().unwrap();
                    device.documents("songs").upsert("1", written).unwrap();
                    device.documents("songs").delete("1").unwrap();
                }
                ChangeAction::Nothing => {}
            }
        }
        let made: Vec<Option<Value>> = deeds
            .into_iter()
            .filter_map(|deed| match deed {
                ChangeAction::Put(made) => Some(Some(made)),
                ChangeAction::Restore => Some(None),
                ChangeAction::Over(_) | ChangeAction::Nothing => None,
            })
            .collect();
        let shown = devices.meet(&what);
        let losers = devices.losers();
        for made in &made {
            let mut kept = made.as_ref().unwrap_or(&dead).clone();
            // Those that count from nothing count together; a plain value that was restored gives way to one that was written.
            let is_plain = |name: &str| {
                name == "plays" || made.is_none() && !["lyrics", "tags", "verses"].contains(&name)
            };
            kept.as_object_mut().unwrap().retain(|name, _| !is_plain(name));
            assert!(
                is_kept(&kept, &shown, &losers),
                "{what}: {kept} is to be in {shown}, beside it {losers:?}"
            );
        }
        let made: Vec<&Value> = made.iter().map(|made| made.as_ref().unwrap_or(&dead)).collect();
        // Nothing comes back that nobody has made.
        for (name, value) in shown.as_object().unwrap().iter().filter(|(name, _)| *name != "id") {
            let made: Vec<&Value> = made.iter().filter_map(|made| made.get(name)).collect();
            assert!(!made.is_empty(), "{what}: {shown}");
            let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
            let made: Vec<Value> = made.into_iter().flat_map(items).collect();
            assert!(items(value).iter().all(|item| made.contains(item)), "{what}: {shown}");
            let once: BTreeSet<String> = items(value).iter().map(Value::to_string).collect();
            assert_eq!(once.len(), items(value).len(), "{what}: {shown}");
        }
    }
}

/// One of two takes back, or deletes, what it has made again before it has heard of the other.
#[test]
fn what_one_has_taken_back_does_not_come_back_with_the_document_of_the_other() {
    let seed = seed();
    for round in 0..40 {
        let mut random = Random(seed.wrapping_add(round));
        let [dead, gone, made] = [(); 3].map(|()| song(&mut random));
        let deleted = if random.below(2) == 0 { Deleted::ForAll } else { Deleted::ByEach };
        let how = ["undone", "deleted", "undone and deleted"][random.below(3) as usize];
        let is_restored = random.below(2) == 0;
        let what = format!(
            "seed {seed}, round {round}: {dead} was deleted ({deleted:?}), {gone} was made (restored: {is_restored}) and {how}, {made} was made"
        );
        let two = Devices::with(2, &dead, deleted);
        let (first, second) = match random.below(2) {
            0 => (&two.all[0], &two.all[1]),
            _ => (&two.all[1], &two.all[0]),
        };
        if is_restored {
            first.documents("songs").document("1").restore().unwrap();
        }
        first.documents("songs").upsert("1", &gone).unwrap();
        if how != "deleted" {
            first.undo().unwrap().unwrap();
            if is_restored {
                first.undo().unwrap().unwrap();
            }
        }
        if how != "undone" {
            _ = first.documents("songs").delete("1");
        }
        second.documents("songs").upsert("1", &made).unwrap();
        let mut shown = two.meet(&what);
        shown.as_object_mut().unwrap().remove("id");
        let mut made = made;
        for song in [&mut shown, &mut made] {
            if let Some(tags) = song.get_mut("tags").and_then(Value::as_array_mut) {
                tags.sort_by_key(Value::to_string);
            }
        }
        assert_eq!(shown, made, "{what}");
    }
}

#[test]
fn what_two_made_again_stays_beside_the_delete_of_a_third() {
    let devices = Devices::with(3, &json!({ "lyrics": "old" }), Deleted::ByEach);
    devices.all[0].documents("songs").upsert("1", &json!({ "lyrics": "A", "key": "G" })).unwrap();
    devices.all[2].documents("songs").upsert("1", &json!({ "tempo": "C" })).unwrap();
    assert_eq!(devices.meet("three"), json!({ "id": "1", "lyrics": "A", "key": "G", "tempo": "C" }));
}

/// One makes it again and takes that back; the other writes in what both had.
#[test]
fn what_one_has_taken_back_is_no_edit_of_what_the_other_has() {
    let old = json!({ "lyrics": "old words", "tags": ["o"], "verses": ["ov"], "title": "old", "place": { "x": 1 } });
    let new = json!({ "lyrics": "new", "tags": ["n"], "verses": ["nv"], "key": "nk", "place": { "y": 2 } });
    for is_undone in [false, true] {
        let two = Devices::with(2, &json!({}), Deleted::ForAll);
        let [a, b] = &two.all[..] else { unreachable!() };
        a.documents("songs").upsert("1", &old).unwrap();
        [a, b].into_iter().for_each(|device| _ = sync(device, &two.relay.url()));
        b.documents("songs").delete("1").unwrap();
        b.documents("songs").upsert("1", &new).unwrap();
        match is_undone {
            true => _ = b.undo().unwrap(),
            false => b.documents("songs").delete("1").unwrap(),
        }
        a.documents("songs").patch("1", &json!({ "tempo": "A" })).unwrap();
        let shown = two.meet(&format!("undone {is_undone}"));
        let mut whole = old.clone();
        (whole["id"], whole["tempo"]) = ("1".into(), "A".into());
        assert_eq!(shown, whole, "undone {is_undone}");
        for device in [a, b] {
            assert!(
                device.documents("songs").document("1").conflicts().unwrap().iter().all(|row| row.settled),
                "undone {is_undone}"
            );
        }
    }
}
