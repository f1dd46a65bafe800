//! Typing: what belongs to one moment is one change, and nothing of it is lost.

use std::time::Duration;

use motet::Replica;
use motet_tests::{TestRelay, contents, device, sync, wait_until};
use serde_json::json;

fn lyrics(replica: &Replica) -> String {
    replica.documents("pieces").get("song").unwrap().unwrap()["lyrics"].as_str().unwrap().to_owned()
}

fn revisions(replica: &Replica) -> usize {
    replica.documents("pieces").history("song", 100).unwrap().len()
}

#[test]
fn keystrokes_of_one_moment_are_one_change() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    a.documents("pieces").put("song", &json!({ "lyrics": "" })).unwrap();
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
    a.documents("pieces").put("song", &json!({ "title": "t", "lyrics": "one\ntwo\n" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    let mut editor = a.documents("pieces").edit("song").unwrap().unwrap();
    for (round, words) in ["ʻekahi", "ʻelua", "ʻekolu"].into_iter().enumerate() {
        let theirs = format!("from b {round}\n");
        b.documents("pieces").splice_text("song", "lyrics", 0, 0, &theirs).unwrap();
        b.documents("pieces").set("song", &json!({ "title": theirs })).unwrap();
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
    a.documents("pieces").put("song", &json!({ "lyrics": "one\n" })).unwrap();
    let mut editor = a.documents("pieces").edit("song").unwrap().unwrap();
    a.documents("pieces").delete("song").unwrap();
    editor["lyrics"] = "one\ntwo\n".into();
    assert_eq!(editor.save().unwrap_err().code(), "write-not-found");
    assert!(!editor.is_saved(), "what was typed is still here");
    a.documents("pieces").restore("song").unwrap();
    editor.save().unwrap();
    assert_eq!(lyrics(&a), "one\ntwo\n");
}
