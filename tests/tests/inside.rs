//! What two people write in one field of an object, or of a list's item, that a third replaces or removes as a whole.

use motet::{Replica, json};
use motet_tests::{TestRelay, singer, sync};
use serde_json::Value;

/// How the third takes the whole away.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Taken {
    NullFirst,
    NullLast,
    Plain,
    Removed,
    MadeAgain,
}

fn take_away(replica: &Replica, field: &str, how: Taken) {
    let songs = replica.documents("songs");
    match how {
        Taken::NullFirst | Taken::NullLast => _ = songs.patch("1", &json!({ field: null })).unwrap(),
        Taken::Plain => _ = songs.patch("1", &json!({ field: "plain" })).unwrap(),
        Taken::Removed => {
            let mut song = songs.get("1").unwrap().unwrap();
            song.value.as_object_mut().unwrap().remove(field);
            songs.update(&mut song).unwrap();
        }
        Taken::MadeAgain => {
            songs.delete("1").unwrap();
            songs.upsert("1", &json!({ "z": 1 })).unwrap();
        }
    }
}

/// Two write, a third takes away; they meet in this order, three times. What one of the two wrote and does not show stands in the journal of
/// each device, with who wrote it.
fn both_words_are_somewhere(base: Option<&Value>, [one, two]: [&Value; 2], how: Taken, order: [usize; 3]) {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let devices = ["a", "b", "c"].map(|name| singer(dir.path(), name));
    let songs = devices.each_ref().map(|device| device.documents("songs"));
    songs[0].upsert("1", base.unwrap_or(&json!({ "title": "t" }))).unwrap();
    devices.iter().for_each(|device| _ = sync(device, &relay.url()));
    let field = one.as_object().unwrap().keys().next().unwrap();
    let pause = || std::thread::sleep(std::time::Duration::from_millis(3));
    if how == Taken::NullFirst {
        take_away(&devices[2], field, how);
        pause();
    }
    songs[0].patch("1", one).unwrap();
    pause();
    songs[1].patch("1", two).unwrap();
    if how != Taken::NullFirst {
        pause();
        take_away(&devices[2], field, how);
    }
    for _ in 0..3 {
        order.iter().for_each(|device| _ = sync(&devices[*device], &relay.url()));
    }
    let shown = songs.each_ref().map(|songs| songs.get("1").unwrap().unwrap().value);
    assert!(shown.iter().all(|other| *other == shown[0]), "{shown:?}");
    for (device, song) in devices.iter().zip(&shown) {
        let rows = device.documents("songs").document("1").conflicts().unwrap();
        for word in ["ʻaʻaliʻi", "pūkiawe"] {
            let stands = rows.iter().any(|row| row.loser.to_string().contains(word));
            let is_there = stands || song.to_string().contains(word);
            assert!(is_there, "{base:?} {how:?} {order:?}: {word} is gone; {song} {rows:?}");
        }
        assert_eq!(device.verify().unwrap().problems, []);
    }
}

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

#[test]
fn the_loser_of_two_inside_of_what_a_third_takes_away_is_in_the_journal() {
    let object = |x: &str| json!({ "meta": { "x": x } });
    let item = |x: &str| json!({ "verses": [{ "id": 1, "t": x }] });
    let (one, two) = ("ʻaʻaliʻi", "pūkiawe");
    for how in [Taken::NullFirst, Taken::NullLast, Taken::Plain, Taken::Removed, Taken::MadeAgain] {
        for order in ORDERS {
            both_words_are_somewhere(Some(&object("old")), [&object(one), &object(two)], how, order);
            if how != Taken::Plain {
                both_words_are_somewhere(Some(&item("old")), [&item(one), &item(two)], how, order);
            }
        }
    }
}

#[test]
fn the_loser_of_two_who_begin_an_object_beside_a_null_is_in_the_journal() {
    let object = |x: &str| json!({ "meta": { "x": x } });
    for how in [Taken::NullFirst, Taken::NullLast, Taken::Plain] {
        for order in ORDERS {
            both_words_are_somewhere(None, [&object("ʻaʻaliʻi"), &object("pūkiawe")], how, order);
        }
    }
}

/// One takes an object away and makes it again, earlier; another, who has heard nothing of it, writes a field of it, is heard, and comes back to the
/// same value. The later value shows, on the two and on a device that joins.
#[test]
fn what_was_written_again_counts_from_then() {
    for values in [vec!["of", "zz", "of"], vec!["of", "gw", "of"], vec!["of", "zz"]] {
        // Which of equal changes comes first is up to the devices' ids.
        for _ in 0..6 {
            let dir = tempfile::tempdir().unwrap();
            let relay = TestRelay::start(&dir.path().join("relay"));
            let devices = ["a", "b"].map(|name| singer(dir.path(), name));
            let [a, b] = devices.each_ref().map(|device| device.documents("songs"));
            let pause = || std::thread::sleep(std::time::Duration::from_millis(3));
            a.upsert("1", &json!({ "meta": { "c": "gw" } })).unwrap();
            devices.iter().for_each(|device| _ = sync(device, &relay.url()));
            a.patch("1", &json!({ "meta": null })).unwrap();
            a.patch("1", &json!({ "meta": { "c": "gw" } })).unwrap();
            for (n, value) in values.iter().enumerate() {
                pause();
                b.patch("1", &json!({ "meta": { "c": value } })).unwrap();
                if n == 0 {
                    sync(&devices[1], &relay.url());
                }
            }
            for _ in 0..3 {
                devices.iter().for_each(|device| _ = sync(device, &relay.url()));
            }
            let late = singer(dir.path(), "late");
            sync(&late, &relay.url());
            let expected = json!({ "id": "1", "meta": { "c": values.last().unwrap() } });
            for device in devices.iter().chain([&late]) {
                let shown = device.documents("songs").get("1").unwrap().unwrap().value;
                assert_eq!(shown, expected, "{values:?} on {}", device.device_name());
            }
        }
    }
}
