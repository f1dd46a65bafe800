//! Ordinary calls mean what they say: what was given shows, here, in the document read anew, and on every other device.

use motet::{Collection, FieldKind, Replica, Schema, json};
use serde_json::Value;

/// A device on which `songs` has a field of each kind.
fn singer(dir: &std::path::Path, name: &str) -> (Replica, Collection<Value>) {
    let replica = Replica::builder(dir.join(format!("{name}.db"))).device_name(name).open().unwrap();
    let schema = Schema::new()
        .text("songs", "lyrics")
        .field("songs", "plays", FieldKind::Counter)
        .field("songs", "verses", FieldKind::List)
        .field("songs", "tags", FieldKind::Set);
    replica.apply_schema(&schema).unwrap();
    let songs = replica.documents("songs");
    (replica, songs)
}

/// What a document shows here and when it is read anew, which must be the same.
fn shown(replica: &Replica, id: &str) -> Value {
    let songs = replica.documents("songs");
    let shown = songs.get(id).unwrap().unwrap();
    let mut anew = songs.at(id, &shown.version).unwrap();
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
    let (replica, songs) = singer(dir.path(), "a");
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
    assert!(replica.conflicts("songs", &id).unwrap().is_empty());
}

#[test]
fn a_record_that_is_written_again_leaves_alone_what_others_wrote_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let (replica, songs) = singer(dir.path(), "a");
    let id = songs.insert(&json!({ "title": "t", "lyrics": "one\ntwo\n" })).unwrap();
    let mut mine = songs.get(&id).unwrap().unwrap();
    mine["title"] = "mine".into();
    songs.update(&mut mine).unwrap();
    songs.splice_text(&id, "lyrics", 0, 0, "zero\n").unwrap();
    songs.set(&id, &json!({ "key": "C" })).unwrap();
    mine["lyrics"] = "one\ntwo\nthree\n".into();
    songs.update(&mut mine).unwrap();
    let right = json!({ "title": "mine", "lyrics": "zero\none\ntwo\nthree\n", "key": "C" });
    assert_eq!(shown(&replica, &id), right);
}

#[tokio::test]
async fn a_record_is_written_again_by_async_code_and_in_transactions() {
    let dir = tempfile::tempdir().unwrap();
    let (replica, songs) = singer(dir.path(), "a");
    let id = songs.insert(&json!({ "plays": 1, "verses": ["a"] })).unwrap();
    let mut song = songs.get(&id).unwrap().unwrap();
    song["plays"] = 2.into();
    let mut song = songs.update_async(&song).await.unwrap();
    song["verses"] = json!(["a", "b"]);
    replica
        .transaction(move |tx| {
            tx.update("songs", &mut song)?;
            song["plays"] = 3.into();
            tx.update("songs", &mut song)
        })
        .unwrap();
    assert_eq!(shown(&replica, &id), json!({ "plays": 3, "verses": ["a", "b"] }));
}
