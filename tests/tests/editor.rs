//! Typing: what belongs to one moment is one change, and nothing of it is lost.

use std::time::Duration;

use motet::{Field, FieldKind, Replica, Schema};
use motet_tests::{TestRelay, contents, device, sync, wait_until};
use serde_json::{Value, json};

fn lyrics(replica: &Replica) -> String {
    replica.documents("pieces").get("song").unwrap().unwrap()["lyrics"].as_str().unwrap().to_owned()
}

fn revisions(replica: &Replica) -> usize {
    replica.documents("pieces").document("song").history(100).unwrap().len()
}

#[test]
fn keystrokes_of_one_moment_are_one_change() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    a.documents("pieces").upsert("song", &json!({ "lyrics": "" })).unwrap();
    assert!(a.documents("pieces").edit("no such song").unwrap().is_none());
    let mut editor = a.documents("pieces").edit("song").unwrap().unwrap();
    let before = revisions(&a);
    let mut typed = String::new();
    for key in "Kaulana nā pua aʻo Hawaiʻi, kūpaʻa ma hope o ka ʻāina".chars() {
        typed.push(key);
        editor["lyrics"] = typed.clone().into();
        editor.save_soon().unwrap();
    }
    assert!(!editor.is_saved());
    wait_until("a pause", Duration::from_secs(10), || editor.is_saved());
    assert_eq!((lyrics(&a), revisions(&a)), (typed.clone(), before + 1));

    // Typed on, and saved at once; and what is only typed is saved when the editor closes.
    typed.push_str("\nHiki mai");
    editor["lyrics"] = typed.clone().into();
    editor.save().unwrap();
    assert_eq!((lyrics(&a), revisions(&a)), (typed.clone(), before + 2));
    editor.save().unwrap();
    assert_eq!(revisions(&a), before + 2, "nothing new is no change");
    typed.push_str(" ka ʻelele");
    editor["lyrics"] = typed.clone().into();
    editor.save_soon().unwrap();
    drop(editor);
    assert_eq!((lyrics(&a), revisions(&a)), (typed, before + 3));
}

#[test]
fn what_others_write_meanwhile_is_merged_and_never_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    a.documents("pieces").upsert("song", &json!({ "title": "t", "lyrics": "one\ntwo\n" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    let mut editor = a.documents("pieces").edit("song").unwrap().unwrap();
    for (round, words) in ["ʻekahi", "ʻelua", "ʻekolu"].into_iter().enumerate() {
        let theirs = format!("from b {round}\n");
        b.documents("pieces").document("song").splice_text("lyrics", 0, 0, &theirs).unwrap();
        b.documents("pieces").patch("song", &json!({ "title": theirs })).unwrap();
        sync(&b, &relay.url());
        sync(&a, &relay.url());
        // The editor goes on from what it shows; it has not seen what came.
        let shown = editor["lyrics"].as_str().unwrap().to_owned();
        editor["lyrics"] = format!("{shown}{words}\n").into();
        editor.save().unwrap();
        let both = lyrics(&a);
        assert!(both.contains(words) && both.contains(&theirs), "{both}");
    }
    let expected = "from b 2\nfrom b 1\nfrom b 0\none\ntwo\nʻekahi\nʻelua\nʻekolu\n";
    assert_eq!(lyrics(&a), expected);
    assert_eq!(a.documents("pieces").get("song").unwrap().unwrap()["title"], "from b 2\n");
    assert!(editor.refresh().unwrap());
    assert_eq!(editor["lyrics"], expected);
    drop(editor);
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    assert_eq!(contents(&a), contents(&b));
}

#[test]
fn a_document_that_is_deleted_under_the_editor_is_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    a.documents("pieces").upsert("song", &json!({ "lyrics": "one\n" })).unwrap();
    let mut editor = a.documents("pieces").edit("song").unwrap().unwrap();
    a.documents("pieces").delete("song").unwrap();
    editor["lyrics"] = "one\ntwo\n".into();
    assert_eq!(editor.save().unwrap_err().code(), "write-not-found");
    assert!(!editor.is_saved(), "what was typed is still here");
    a.documents("pieces").document("song").restore().unwrap();
    editor.save().unwrap();
    assert_eq!(lyrics(&a), "one\ntwo\n");
}

/// A song that a and b have, both connected to nothing at present.
fn shared(dir: &std::path::Path, relay: &TestRelay) -> (Replica, Replica) {
    let (a, b) = (device(dir, "a"), device(dir, "b"));
    let rules = Schema::new()
        .field("pieces", "title", Field::register().min_len(2))
        .field("pieces", "plays", FieldKind::Counter)
        .field("pieces", "status", FieldKind::Ask);
    [&a, &b].into_iter().for_each(|replica| replica.apply_schema(&rules).unwrap());
    let song = json!({ "title": "Aloha", "lyrics": "one\n", "notes": "", "plays": 0 });
    a.documents("pieces").upsert("song", &song).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    (a, b)
}

fn show(replica: &Replica) -> Value {
    replica.documents("pieces").get("song").unwrap().unwrap().value
}

/// What another device deletes had not seen what is typed here: the document is back with the words, however they are saved.
#[test]
fn words_that_were_typed_when_a_delete_arrived_are_kept() {
    for how in ["save", "refresh", "close", "drop", "pause"] {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let (a, b) = shared(dir.path(), &relay);
        let mut editor = a.documents("pieces").edit("song").unwrap().unwrap();
        editor["lyrics"] = "one\ntwo\n".into();
        b.documents("pieces").delete("song").unwrap();
        sync(&b, &relay.url());
        sync(&a, &relay.url());
        assert!(a.documents("pieces").get("song").unwrap().is_none(), "{how}");
        match how {
            "save" => editor.save().unwrap(),
            "refresh" => assert!(editor.refresh().unwrap(), "it is back"),
            "close" => editor.close().unwrap(),
            "drop" => drop(editor),
            _ => {
                editor.save_soon().unwrap();
                wait_until("a pause", Duration::from_secs(10), || editor.is_saved());
            }
        }
        sync(&a, &relay.url());
        sync(&b, &relay.url());
        assert_eq!(lyrics(&a), "one\ntwo\n", "{how}");
        assert_eq!(contents(&a), contents(&b), "{how}");
    }
}

#[test]
fn a_refresh_of_a_deleted_document_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = shared(dir.path(), &relay);
    let mut editor = a.documents("pieces").edit("song").unwrap().unwrap();
    b.documents("pieces").delete("song").unwrap();
    sync(&b, &relay.url());
    sync(&a, &relay.url());
    // Nothing was typed: nothing comes back, and nothing is wrong.
    assert!(!editor.refresh().unwrap());
    assert!(!editor.refresh().unwrap());
    assert_eq!(editor["lyrics"], "one\n", "the value stays");
    editor.save().unwrap();
    editor.close().unwrap();
    assert!(a.documents("pieces").get("song").unwrap().is_none());
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    assert!(b.documents("pieces").get("song").unwrap().is_none());

    // Whoever deletes it here has seen what was typed: it stays deleted, and the words are handed back.
    a.documents("pieces").document("song").restore().unwrap();
    let mut editor = a.documents("pieces").edit("song").unwrap().unwrap();
    editor["lyrics"] = "one\nhere\n".into();
    editor.save_soon().unwrap();
    a.documents("pieces").delete("song").unwrap();
    assert!(!editor.refresh().unwrap());
    assert_eq!(editor["lyrics"], "one\nhere\n");
    let unsaved = editor.close().unwrap_err();
    assert_eq!((unsaved.code(), unsaved.fields.len()), ("write-not-found", 1));
    assert_eq!(unsaved.fields[0].name, "lyrics");
    assert_eq!(unsaved.fields[0].value, Some(json!("one\nhere\n")));
    assert!(a.documents("pieces").get("song").unwrap().is_none());
    // As is dropping the editor.
    a.documents("pieces").document("song").restore().unwrap();
    let mut editor = a.documents("pieces").edit("song").unwrap().unwrap();
    editor["lyrics"] = "not wanted".into();
    editor.save_soon().unwrap();
    a.documents("pieces").delete("song").unwrap();
    drop(editor);
    assert!(a.documents("pieces").get("song").unwrap().is_none());
}

/// Where a delete wins, the words are in the deleted document.
#[test]
fn where_a_delete_wins_the_words_are_there_when_it_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = shared(dir.path(), &relay);
    let wins = Schema::new().delete("pieces", motet::DeletePolicy::Wins);
    [&a, &b].into_iter().for_each(|replica| replica.apply_schema(&wins).unwrap());
    let mut editor = a.documents("pieces").edit("song").unwrap().unwrap();
    editor["lyrics"] = "one\ntwo\n".into();
    b.documents("pieces").delete("song").unwrap();
    sync(&b, &relay.url());
    sync(&a, &relay.url());
    assert!(!editor.refresh().unwrap());
    editor.close().unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    for replica in [&a, &b] {
        assert!(replica.documents("pieces").get("song").unwrap().is_none());
    }
    b.documents("pieces").document("song").restore().unwrap();
    assert_eq!(lyrics(&b), "one\ntwo\n");
}

#[test]
fn what_was_typed_in_a_document_that_was_purged_is_handed_back() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = shared(dir.path(), &relay);
    let mut editor = a.documents("pieces").edit("song").unwrap().unwrap();
    editor["lyrics"] = "one\ntwo\n".into();
    b.documents("pieces").delete("song").unwrap();
    b.documents("pieces").purge_trash(i64::MAX).unwrap();
    sync(&b, &relay.url());
    sync(&a, &relay.url());
    assert!(!editor.refresh().unwrap());
    let unsaved = editor.close().unwrap_err();
    assert_eq!((unsaved.code(), &unsaved.fields[0].value), ("write-purged", &Some(json!("one\ntwo\n"))));
}

#[test]
fn a_field_that_breaks_a_rule_holds_no_other_back() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = shared(dir.path(), &relay);
    let mut editor = a.documents("pieces").edit("song").unwrap().unwrap();
    let named = |editor: &motet::Editor<Value>| {
        editor.unsaved().iter().map(|field| field.name.clone()).collect::<Vec<_>>()
    };
    editor["title"] = "".into();
    editor["lyrics"] = "one\ntwo\n".into();
    let error = editor.save().unwrap_err();
    assert!(error.code() == "write-rule" && error.to_string().contains("title"), "{error}");
    assert_eq!((lyrics(&a).as_str(), &show(&a)["title"]), ("one\ntwo\n", &json!("Aloha")));
    assert_eq!((named(&editor), editor.is_saved()), (vec!["title".to_owned()], false));
    assert_eq!(editor.unsaved()[0].value, Some(json!("")));

    // Typed on: also what is saved by itself waits for no other.
    editor["title"] = "E".into();
    editor["lyrics"] = "one\ntwo\nthree\n".into();
    editor.save_soon().unwrap();
    wait_until("a pause", Duration::from_secs(10), || lyrics(&a).contains("three"));
    // What is saved by itself comes back with the next call, however long the machine has taken for it.
    let mut told = None;
    wait_until("it is told", Duration::from_secs(10), || {
        told = editor.save_soon().err().map(|error| error.code());
        told.is_some()
    });
    assert_eq!(told, Some("write-rule"));

    // What others write comes in, and does not take the title that is typed.
    b.documents("pieces").document("song").splice_text("lyrics", 0, 0, "zero\n").unwrap();
    b.documents("pieces").patch("song", &json!({ "notes": "from b" })).unwrap();
    sync(&b, &relay.url());
    sync(&a, &relay.url());
    assert!(editor.refresh().unwrap());
    assert_eq!(editor["lyrics"], "zero\none\ntwo\nthree\n");
    assert_eq!((&editor["title"], &editor["notes"]), (&json!("E"), &json!("from b")));
    assert_eq!(named(&editor), ["title"]);
    editor["title"] = "E hoʻi".into();
    editor["plays"] = 2.into();
    editor.save().unwrap();
    assert!(editor.is_saved() && editor.unsaved().is_empty());
    assert_eq!((&show(&a)["title"], &show(&a)["plays"]), (&json!("E hoʻi"), &json!(2)));

    // Several at once, of several reasons; a field that was removed; and what is left at the end is handed back.
    editor["title"] = "x".into();
    editor["plays"] = "many".into();
    editor.as_object_mut().unwrap().remove("notes");
    let unsaved = editor.close().unwrap_err();
    let fields: Vec<_> = unsaved.fields.iter().map(|f| (f.name.as_str(), f.value.clone().unwrap())).collect();
    assert!(unsaved.to_string().contains("plays") && unsaved.to_string().contains("title"), "{unsaved}");
    assert_eq!(fields.len(), 2);
    assert!(fields.contains(&("title", json!("x"))) && fields.contains(&("plays", json!("many"))));
    assert_eq!(
        show(&a),
        json!({
            "id": "song", "title": "E hoʻi", "lyrics": "zero\none\ntwo\nthree\n", "plays": 2
        })
    );
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    assert_eq!(contents(&a), contents(&b));
}

/// A text that breaks a rule while others write in it: typed to its end, both are in it.
#[test]
fn a_field_that_waited_is_merged_with_what_came_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = shared(dir.path(), &relay);
    let short = Schema::new().field("pieces", "lyrics", Field::text().max_len(40));
    [&a, &b].into_iter().for_each(|replica| replica.apply_schema(&short).unwrap());
    let mut editor = a.documents("pieces").edit("song").unwrap().unwrap();
    editor["lyrics"] = format!("one\n{}\n", "too long ".repeat(9)).into();
    editor.save().unwrap_err();
    for words in ["zero\n", "nil\n"] {
        b.documents("pieces").document("song").splice_text("lyrics", 0, 0, words).unwrap();
        sync(&b, &relay.url());
        sync(&a, &relay.url());
        assert!(editor.refresh().unwrap());
        assert!(editor["lyrics"].as_str().unwrap().contains("too long"), "what is typed stays as it is");
        sync(&b, &relay.url());
    }
    editor["lyrics"] = "one\ntwo\n".into();
    editor.save().unwrap();
    assert_eq!(lyrics(&a), "nil\nzero\none\ntwo\n");
    // And typed on, before and after the next refresh.
    editor["lyrics"] = "one\ntwo\nthree\n".into();
    editor.save().unwrap();
    assert_eq!(lyrics(&a), "nil\nzero\none\ntwo\nthree\n");
    assert!(editor.refresh().unwrap());
    assert_eq!(editor["lyrics"], "nil\nzero\none\ntwo\nthree\n");
    editor["lyrics"] = "nil\none\ntwo\nthree\n".into();
    editor.close().unwrap();
    assert_eq!(lyrics(&a), "nil\none\ntwo\nthree\n");
}

#[test]
fn a_field_that_others_contest_holds_no_other_back() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = shared(dir.path(), &relay);
    for (replica, status) in [(&a, "draft"), (&b, "done")] {
        replica.documents("pieces").patch("song", &json!({ "status": status })).unwrap();
    }
    [&a, &b, &a].into_iter().for_each(|replica| _ = sync(replica, &relay.url()));
    let mut editor = a.documents("pieces").edit("song").unwrap().unwrap();
    editor["status"] = "perhaps".into();
    editor["lyrics"] = "one\ntwo\n".into();
    assert_eq!(editor.save().unwrap_err().code(), "write-contested");
    assert_eq!(lyrics(&a), "one\ntwo\n");
    a.documents("pieces").document("song").resolve("/status", motet::Resolution::Shown).unwrap();
    assert!(editor.refresh().unwrap());
    assert_eq!(editor["status"], "perhaps");
    editor.save().unwrap_err();
    assert_eq!(editor.unsaved()[0].name, "status");
}
