//! Crafted changes: whatever a device takes or refuses of them, all devices show the same in the end, in whatever order they came.

use automerge::{Change, ExpandedChange};
use motet::Replica;
use motet_proto::Kind;
use motet_tests::raw::push;
use motet_tests::{TestRelay, attack, contents, singer, sync};
use serde_json::{Value, json};

fn actor(n: u32) -> String {
    format!("{n:032x}")
}

/// A change by actor `n`, its first, with operations that are numbered from `start` on.
fn change(n: u32, start: u64, deps: &[&Change], ops: Value) -> Change {
    change_at(n, 1, (start, 5 + i64::from(n)), deps, ops)
}

fn change_at(n: u32, seq: u64, (start, time): (u64, i64), deps: &[&Change], ops: Value) -> Change {
    let deps: Vec<_> = deps.iter().map(|dep| dep.hash().to_string()).collect();
    let change = json!({
        "actor": actor(n), "seq": seq, "startOp": start, "time": time, "message": null, "deps": deps, "ops": ops,
    });
    Change::from(serde_json::from_value::<ExpandedChange>(change).unwrap())
}

fn set(key: &str, value: &str, pred: &[String]) -> Value {
    json!({ "action": "set", "obj": "_root", "key": key, "value": value, "pred": pred })
}

/// Objects, each in the one before it, the first of them put by `first`.
fn nested(n: u32, start: u64, levels: u64, first: Value) -> Value {
    let inner = (start..start + levels - 1).map(
        |at| json!({ "action": "makeMap", "obj": format!("{at}@{}", actor(n)), "key": "a", "pred": [] }),
    );
    std::iter::once(first).chain(inner).collect()
}

fn send(url: &str, changes: &[&Change]) {
    let bytes = changes.iter().flat_map(|change| change.raw_bytes().to_vec()).collect();
    push(url, vec![attack::stranger("songs", "1", Kind::Changes, bytes)]);
}

fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(count - 1);
    let insert = |order: &Vec<usize>, at: usize| [&order[..at], &[count - 1], &order[at..]].concat();
    shorter.iter().flat_map(|order| (0..count).map(move |at| insert(order, at))).collect()
}

/// One device hears of each change alone, in every order, another of all at once. Then both write, and a third comes.
fn all_show_the_same(changes: &[Change]) {
    for order in orders(changes.len()) {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let [one, all] = ["one", "all"].map(|name| singer(dir.path(), name));
        for at in &order {
            send(&relay.url(), &[&changes[*at]]);
            sync(&one, &relay.url());
        }
        sync(&all, &relay.url());
        let write = |device: &Replica, words: &str| {
            device.documents("songs").patch("1", &json!({ "artist": words })).unwrap();
            device.documents("songs").patch("1", &json!({ "verses": [words], "title": words })).unwrap();
        };
        let has = |device: &Replica| device.documents("songs").get("1").unwrap().is_some();
        if has(&one) && has(&all) {
            write(&one, "words of one");
            sync(&one, &relay.url());
            sync(&all, &relay.url());
            write(&all, "words of all");
        }
        for device in [&all, &one, &all, &one] {
            sync(device, &relay.url());
        }
        let fresh = singer(dir.path(), "fresh");
        sync(&fresh, &relay.url());
        for device in [&one, &fresh] {
            assert_eq!(contents(device), contents(&all), "order {order:?}");
            assert_eq!(device.verify().unwrap().problems, []);
            assert_eq!(device.status().pending, 0);
        }
        // The old versions can be read as well.
        for version in all.documents("songs").document("1").history(100).unwrap() {
            all.documents("songs").document("1").at(&version.version).unwrap();
        }
    }
}

#[test]
fn operations_on_what_their_change_does_not_build_on() {
    let title = change(1, 1, &[], json!([set("title", "Y", &[])]));
    let over = change(100, 2, &[], json!([set("title", "X", &[format!("1@{}", actor(1))])]));
    all_show_the_same(&[over, title]);
    let map = json!({ "action": "makeMap", "obj": "_root", "key": "free", "pred": [] });
    let map = change(1, 1, &[], json!([map]));
    let inside =
        json!({ "action": "set", "obj": format!("1@{}", actor(1)), "key": "in", "value": "X", "pred": [] });
    let inside = change(100, 2, &[], json!([inside, set("title", "also", &[])]));
    all_show_the_same(&[inside, map]);
    let list = format!("1@{}", actor(1));
    let insert = |behind: &str, value: &str| json!({ "action": "set", "obj": list, "elemId": behind, "insert": true, "value": value, "pred": [] });
    let begin = json!({ "action": "makeList", "obj": "_root", "key": "free", "pred": [] });
    let first = change(1, 1, &[], json!([begin, insert("_head", "q")]));
    let second = change(100, 3, &[&first], json!([insert(&format!("2@{}", actor(1)), "r")]));
    let third = change(101, 4, &[&first], json!([insert(&format!("3@{}", actor(100)), "s")]));
    all_show_the_same(&[third, second, first]);
}

#[test]
fn what_is_nested_too_deep_beside_or_below_something_else() {
    let list = format!("1@{}", actor(1));
    let element = format!("2@{}", actor(1));
    let begin = json!({ "action": "makeList", "obj": "_root", "key": "verses", "pred": [] });
    let insert =
        json!({ "action": "set", "obj": list, "elemId": "_head", "insert": true, "value": "q", "pred": [] });
    let first = change(1, 1, &[], json!([begin, insert]));
    let over = json!({ "action": "makeMap", "obj": list, "elemId": element, "pred": [element] });
    let deep = change(2, 3, &[&first], nested(2, 3, 88, over));
    let other = json!([{ "action": "set", "obj": list, "elemId": element, "value": "w", "pred": [element] }]);
    let other = change(3, 3, &[&first], other);
    all_show_the_same(&[first, deep, other]);
    // Written over by who made it: whoever hears of both has nothing that is deep.
    for levels in [66, 3_000] {
        let free = json!({ "action": "makeMap", "obj": "_root", "key": "free", "pred": [] });
        let deep = change(1, 1, &[], nested(1, 1, levels, free));
        let over = set("free", "flat", &[format!("1@{}", actor(1))]);
        let flat = change_at(1, 2, (levels + 1, 7), &[&deep], json!([over]));
        all_show_the_same(&[deep, flat]);
    }
}

#[test]
fn numbers_that_leave_no_room_for_those_of_others() {
    let title = change(1, 1, &[], json!([set("title", "Y", &[])]));
    for start in [1 << 21, 1 << 31, (1 << 32) - 9, (1 << 32) - 2] {
        let far = change(2, start, &[], json!([set("far", "x", &[])]));
        all_show_the_same(&[title.clone(), far]);
    }
    // The latest that a change may have: who writes next writes no later one.
    let last = 1 << 53;
    for time in [i64::MIN, last - 1, last, last + 1, i64::MAX] {
        let never = change_at(2, 1, (1, time), &[], json!([set("never", "x", &[])]));
        all_show_the_same(&[title.clone(), never]);
    }
}
