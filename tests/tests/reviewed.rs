//! What reviews found: each of these was wrong once.

use motet::{Adoption, Field, FieldKind, Filter, Query, Replica, Resolution, Schema, WriteError};
use motet_tests::{TestRelay, device, sync};
use serde_json::json;

fn pair(dir: &std::path::Path) -> (Replica, Replica) {
    (device(dir, "a"), device(dir, "b"))
}

#[test]
fn resolving_sends_nothing_that_stays_and_puts_no_list_in_place_of_a_text() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = pair(dir.path());
    a.apply_schema(&Schema::new().field("pieces", "secret", FieldKind::Local)).unwrap();
    a.documents("pieces").upsert("1", &json!({ "lyrics": "one\n", "secret": "s3cr3t" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    let refused = a.documents("pieces").document("1").resolve("/secret", Resolution::Shown).unwrap_err();
    assert!(matches!(refused, WriteError::NoConflict { .. }));
    a.documents("pieces").patch("1", &json!({ "lyrics": "one!\n" })).unwrap();
    b.documents("pieces").patch("1", &json!({ "lyrics": "one?\n" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    let overlap = b.documents("pieces").document("1").conflicts().unwrap().remove(0);
    let refused = b
        .documents("pieces")
        .document("1")
        .resolve("/lyrics", Resolution::Loser(overlap.loser_id))
        .unwrap_err();
    assert!(matches!(refused, WriteError::NoConflict { .. }));
    assert!(b.documents("pieces").get("1").unwrap().unwrap()["lyrics"].is_string());
}

#[test]
fn undo_of_the_first_edit_of_an_adopted_row_keeps_the_row() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    a.adopt(
        "pieces",
        vec![json!({ "id": 1, "title": "t0", "lyrics": "x" }), json!({ "id": 2 })],
        &Adoption::default(),
    )
    .unwrap();
    a.documents("pieces").patch("1", &json!({ "title": "t1" })).unwrap();
    assert!(a.undo().unwrap().is_some());
    assert_eq!(a.documents("pieces").get("1").unwrap().unwrap()["title"], "t0");
    assert!(a.documents("pieces").get("2").unwrap().is_some());
}

#[test]
fn the_later_row_wins_also_if_the_rows_have_different_columns() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = pair(dir.path());
    let row = |title: &str, lyrics, at: &str| json!({ "id": 1, "aaa": 1, "title": title, "lyrics": lyrics, "updated_at": at });
    a.adopt("pieces", vec![row("old", json!(null), "2025-01-01")], &Adoption::default()).unwrap();
    b.adopt("pieces", vec![row("new", json!("words"), "2025-01-02")], &Adoption::default()).unwrap();
    for replica in [&a, &b, &a] {
        sync(replica, &relay.url());
    }
    for replica in [&a, &b] {
        let piece = replica.documents("pieces").get("1").unwrap().unwrap();
        assert_eq!((&piece["title"], &piece["updated_at"]), (&json!("new"), &json!("2025-01-02")));
    }
}

#[test]
fn a_long_tail_of_changes_can_be_verified() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    a.documents("pieces").upsert("1", &json!({ "lyrics": "" })).unwrap();
    for n in 0..300 {
        a.documents("pieces").document("1").splice_text("lyrics", n, 0, "x").unwrap();
    }
    assert!(a.verify().unwrap().problems.is_empty());
}

#[test]
fn collections_with_look_alike_names_are_searched_apart() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    for name in ["user", "user_data", "user_idx", "Songs", "songs"] {
        a.documents(name).upsert("1", &json!({ "text": format!("aloha {name}") })).unwrap();
    }
    for name in ["user", "user_data", "user_idx", "Songs", "songs"] {
        let found = a.documents(name).search("aloha", 10).unwrap();
        assert_eq!((found.len(), &found[0].record["text"]), (1, &json!(format!("aloha {name}"))));
    }
}

#[test]
fn a_collection_declared_local_late_sends_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = pair(dir.path());
    a.use_relay(&motet::Relay::new(&relay.url())).unwrap();
    a.documents("diary").upsert("1", &json!({ "text": "mine" })).unwrap();
    a.apply_schema(&Schema::new().local("diary")).unwrap();
    a.documents("diary").upsert("2", &json!({ "text": "mine too" })).unwrap();
    assert_eq!(a.status().pending, 0);
    sync(&a, &relay.url());
    let other = TestRelay::start(&dir.path().join("other"));
    sync(&a, &other.url());
    sync(&b, &relay.url());
    sync(&b, &other.url());
    assert!(b.documents("diary").list().unwrap().is_empty());
    // Deleting one and making another mixes nothing up.
    a.documents("diary").delete("1").unwrap();
    a.documents("diary").delete("2").unwrap();
    a.documents("pieces").upsert("3", &json!({ "title": "kept" })).unwrap();
    assert!(a.documents("diary").search("mine", 10).unwrap().is_empty());
    assert_eq!(a.documents("pieces").count(&Filter::All(Vec::new())).unwrap(), 1);
}

#[test]
fn rules_of_a_set_look_at_the_whole_set_and_what_shows_is_the_set() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    let tags = Field { kind: FieldKind::Set, min_len: Some(1), max_len: Some(3), ..Field::default() };
    a.apply_schema(&Schema::new().field("pieces", "tags", tags)).unwrap();
    a.documents("pieces").upsert("1", &json!({ "tags": ["b", "a", "a"] })).unwrap();
    assert_eq!(a.documents("pieces").get("1").unwrap().unwrap()["tags"], json!(["a", "b"]));
    let edit = |add: &[&str], take: &[&str]| {
        let (add, take): (Vec<_>, Vec<_>) =
            (add.iter().map(|e| json!(e)).collect(), take.iter().map(|e| json!(e)).collect());
        a.transaction(move |tx| {
            tx.documents("pieces").add_to_set("1", "tags", &add)?;
            tx.documents("pieces").remove_from_set("1", "tags", &take)
        })
    };
    edit(&["c"], &["b"]).unwrap();
    assert!(matches!(edit(&["d", "e"], &[]), Err(WriteError::Rule { .. })));
    assert!(matches!(edit(&[], &["a", "c"]), Err(WriteError::Rule { .. })));
    assert_eq!(a.documents("pieces").find(&Query::new()).unwrap()[0]["tags"], json!(["a", "c"]));
    assert!(a.verify().unwrap().problems.is_empty());
}
