//! Ordinary calls mean what they say: what was given shows, here, in the document read anew, and on every other device.

use motet::{Collection, FieldKind, Replica, Schema, json};
use motet_tests::{TestRelay, singer, sync};
use serde_json::Value;

/// A device, and its songs.
fn songs_of(dir: &std::path::Path, name: &str) -> (Replica, Collection<Value>) {
    let replica = singer(dir, name);
    let songs = replica.documents("songs");
    (replica, songs)
}

/// What a document shows here and when it is read anew, which must be the same.
fn shown(replica: &Replica, id: &str) -> Value {
    let songs = replica.documents("songs");
    let shown = songs.get(id).unwrap().unwrap();
    let mut anew = songs.document(id).at(&shown.version).unwrap();
    anew["id"] = id.into();
    assert_eq!(anew, shown.value, "the projection differs from the document");
    assert_eq!(replica.verify().unwrap().problems, []);
    let mut value = shown.value;
    value.as_object_mut().unwrap().remove("id");
    value
}

#[test]
fn a_record_is_written_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let (replica, songs) = songs_of(dir.path(), "a");
    let first = json!({ "title": "Hoʻi", "lyrics": "E hoʻi\n", "plays": 1, "verses": ["a"], "tags": ["x"] });
    let id = songs.insert(&first).unwrap();
    let mut song = songs.get(&id).unwrap().unwrap();
    song["lyrics"] = "E hoʻi\nI ka pō laʻi\n".into();
    song["plays"] = 2.into();
    song["verses"] = json!(["a", "b"]);
    song["tags"] = json!(["x", "y"]);
    song["title"] = "E hoʻi".into();
    songs.update(&mut song).unwrap();
    songs.update(&mut song).unwrap();
    song["plays"] = 3.into();
    song["title"] = "E hoʻi ē".into();
    songs.update(&mut song).unwrap();
    let right = json!({
        "title": "E hoʻi ē", "lyrics": "E hoʻi\nI ka pō laʻi\n", "plays": 3, "verses": ["a", "b"], "tags": ["x", "y"]
    });
    assert_eq!(shown(&replica, &id), right);
    assert!(replica.documents("songs").document(&id).conflicts().unwrap().is_empty());
}

#[test]
fn a_record_that_is_written_again_leaves_alone_what_others_wrote_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let (replica, songs) = songs_of(dir.path(), "a");
    let id = songs.insert(&json!({ "title": "t", "lyrics": "one\ntwo\n" })).unwrap();
    let mut mine = songs.get(&id).unwrap().unwrap();
    mine["title"] = "mine".into();
    songs.update(&mut mine).unwrap();
    songs.document(&id).splice_text("lyrics", 0, 0, "zero\n").unwrap();
    songs.patch(&id, &json!({ "key": "C" })).unwrap();
    mine["lyrics"] = "one\ntwo\nthree\n".into();
    songs.update(&mut mine).unwrap();
    let right = json!({ "title": "mine", "lyrics": "zero\none\ntwo\nthree\n", "key": "C" });
    assert_eq!(shown(&replica, &id), right);
}

#[tokio::test]
async fn a_record_is_written_again_by_async_code_and_in_transactions() {
    let dir = tempfile::tempdir().unwrap();
    let (replica, songs) = songs_of(dir.path(), "a");
    let id = songs.insert(&json!({ "plays": 1, "verses": ["a"] })).unwrap();
    let mut song = songs.get(&id).unwrap().unwrap();
    song["plays"] = 2.into();
    let mut song = songs.update_async(&song).await.unwrap();
    song["verses"] = json!(["a", "b"]);
    replica
        .transaction(move |tx| {
            tx.documents("songs").update(&mut song)?;
            song["plays"] = 3.into();
            tx.documents("songs").update(&mut song)
        })
        .unwrap();
    assert_eq!(shown(&replica, &id), json!({ "plays": 3, "verses": ["a", "b"] }));
}

/// What a field that is declared later may have held before.
fn other_values() -> Vec<Value> {
    let odd = r#"[null, "seven", "", 2.5, true, ["x", 1], {"a": {"b": 1}}, 5, -1e300]"#;
    serde_json::from_str(odd).unwrap()
}

#[test]
fn a_counter_list_set_or_text_is_written_over_any_other_value() {
    for old in other_values() {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let a = Replica::builder(dir.path().join("a.db")).device_name("a").open().unwrap();
        let fields = json!({ "plays": old, "verses": old, "tags": old, "lyrics": old });
        a.documents("songs").upsert("1", &fields).unwrap();
        drop(a);
        let (a, songs) = songs_of(dir.path(), "a");
        let (b, _) = songs_of(dir.path(), "b");
        sync(&a, &relay.url());
        sync(&b, &relay.url());
        let new = json!({ "plays": 3, "verses": ["a", "b"], "tags": ["x", "y"], "lyrics": "E hoʻi\n" });
        songs.upsert("1", &new).unwrap();
        assert_eq!(shown(&a, "1"), new, "over {old}");
        sync(&a, &relay.url());
        sync(&b, &relay.url());
        assert_eq!(shown(&b, "1"), new, "over {old}, on another device");
        let later = json!({ "plays": 4, "verses": ["a", "b", "c"], "tags": ["x"], "lyrics": "E hoʻi ē\n" });
        songs.upsert("1", &later).unwrap();
        assert_eq!(shown(&a, "1"), later);
        assert!(a.documents("songs").document("1").conflicts().unwrap().is_empty());
    }
}

#[test]
fn two_devices_that_write_the_same_over_null_have_written_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, songs) = songs_of(dir.path(), "a");
    let (b, on_b) = songs_of(dir.path(), "b");
    songs.upsert("1", &json!({ "plays": null, "verses": null, "lyrics": null })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    let new = json!({ "plays": 3, "verses": ["a", "b"], "lyrics": "one\n" });
    songs.upsert("1", &new).unwrap();
    on_b.upsert("1", &new).unwrap();
    for replica in [&a, &b, &a] {
        sync(replica, &relay.url());
    }
    assert_eq!(shown(&a, "1"), new);
    assert_eq!(shown(&b, "1"), new);
    assert!(a.documents("songs").document("1").conflicts().unwrap().is_empty());
}

#[test]
fn typing_into_a_text_that_holds_null_begins_it() {
    let dir = tempfile::tempdir().unwrap();
    let (replica, songs) = songs_of(dir.path(), "a");
    songs.upsert("1", &json!({ "lyrics": null })).unwrap();
    songs.document("1").splice_text("lyrics", 0, 0, "Aloha").unwrap();
    songs.document("1").splice_text("lyrics", 5, 0, " ʻoe").unwrap();
    assert_eq!(shown(&replica, "1"), json!({ "lyrics": "Aloha ʻoe" }));
    let error = songs.document("1").splice_text("title", 0, 0, "x").unwrap_err();
    assert!(error.to_string().contains("title"), "{error}");
}

#[test]
fn counters_stay_within_their_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, songs) = songs_of(dir.path(), "a");
    let (b, on_b) = songs_of(dir.path(), "b");
    let max = motet::limits::COUNTER_MAX;
    songs.upsert("1", &json!({ "plays": 0 })).unwrap();
    for beyond in [max + 1, -max - 1, i64::MAX, i64::MIN, 6_000_000_000_000_000_000] {
        let error = songs.upsert("1", &json!({ "plays": beyond })).unwrap_err();
        assert!(error.to_string().contains("plays"), "{error}");
        songs.upsert("2", &json!({ "plays": beyond })).unwrap_err();
        songs.document("1").increment("plays", beyond).unwrap_err();
        assert_eq!(shown(&a, "1"), json!({ "plays": 0 }));
    }
    songs.upsert("1", &json!({ "plays": max })).unwrap();
    songs.upsert("1", &json!({ "plays": -max })).unwrap();
    songs.document("1").increment("plays", -1).unwrap_err();
    songs.upsert("1", &json!({ "plays": 0 })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    // Each is within the bounds, both together are not.
    songs.document("1").increment("plays", max).unwrap();
    on_b.document("1").increment("plays", max).unwrap();
    for replica in [&a, &b, &a] {
        sync(replica, &relay.url());
    }
    assert_eq!(shown(&a, "1"), json!({ "plays": max }));
    assert_eq!(shown(&b, "1"), json!({ "plays": max }));
    // It counts on from what is shown.
    songs.document("1").increment("plays", -1).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    assert_eq!(shown(&b, "1"), json!({ "plays": max - 1 }));
    on_b.upsert("1", &json!({ "plays": 7 })).unwrap();
    assert_eq!(shown(&b, "1"), json!({ "plays": 7 }));
}

#[test]
fn a_deleted_document_that_is_put_again_has_the_named_fields_only() {
    let dir = tempfile::tempdir().unwrap();
    let (replica, songs) = songs_of(dir.path(), "a");
    songs
        .upsert("1", &json!({ "meta": { "key": "C", "tempo": 90 }, "verses": ["a"], "title": "t" }))
        .unwrap();
    songs.delete("1").unwrap();
    songs.upsert("1", &json!({ "meta": { "key": "C" } })).unwrap();
    assert_eq!(shown(&replica, "1"), json!({ "meta": { "key": "C" } }));
}

#[test]
fn a_value_that_stayed_here_is_shared_whatever_it_is() {
    for value in [json!(1.5), json!(9_007_199_254_740_992_i64), json!("seven"), json!(7)] {
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::open(dir.path().join("a.db")).unwrap();
        replica.apply_schema(&Schema::new().field("songs", "plays", FieldKind::Local)).unwrap();
        replica.documents("songs").upsert("1", &json!({ "plays": value })).unwrap();
        replica.apply_schema(&Schema::new().field("songs", "plays", FieldKind::Counter)).unwrap();
        assert_eq!(shown(&replica, "1"), json!({ "plays": value }));
        replica.documents("songs").upsert("1", &json!({ "plays": 3 })).unwrap();
        assert_eq!(shown(&replica, "1"), json!({ "plays": 3 }));
    }
}
