//! Documents of many changes at a device that joins late: it keeps them in their saved form alone.

use std::path::Path;

use motet::Replica;
use motet_tests::{TestRelay, contents, copy_folder, singer, sync};
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

const EDITS: usize = 400;

/// A relay with a long song and short ones that `a` has written, and the file of `b`, which has joined late.
struct Late {
    dir: TempDir,
    relay: TestRelay,
    a: Replica,
    b: Replica,
    /// The relay's folder as it was before the last edits.
    earlier: std::path::PathBuf,
}

impl Late {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let a = singer(dir.path(), "a");
        let lyrics = "Kūmaka ka ʻikena iā Hiʻilawe\n".repeat(20);
        a.documents("songs").upsert("long", &json!({ "title": "Hiʻilawe", "lyrics": lyrics })).unwrap();
        a.documents("songs").upsert("short", &json!({ "lyrics": "pōkole" })).unwrap();
        sync(&a, &relay.url());
        type_at(&a, 0, EDITS / 2);
        sync(&a, &relay.url());
        let earlier = dir.path().join("earlier");
        copy_folder(&dir.path().join("relay"), &earlier);
        type_at(&a, 100, EDITS / 2);
        sync(&a, &relay.url());
        let b = singer(dir.path(), "b");
        sync(&b, &relay.url());
        Self { dir, relay, a, b, earlier }
    }

    /// Runs SQL on the file of `b`, which nobody has open, and opens it again.
    fn damaged(&mut self, sql: &str) {
        let path = self.dir.path().join("b.db");
        self.b = singer(self.dir.path(), "elsewhere");
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(&format!("PRAGMA foreign_keys = OFF; {sql}")).unwrap();
        drop(conn);
        self.b = singer(self.dir.path(), "b");
    }

    /// A relay that has nothing, in the place of the one before.
    fn lose(&mut self, name: &str) {
        self.relay = TestRelay::start(&self.dir.path().join(name));
    }

    fn fresh(&self, name: &str) -> Replica {
        let fresh = singer(self.dir.path(), name);
        sync(&fresh, &self.relay.url());
        assert_eq!(fresh.quarantined(10).unwrap(), []);
        fresh
    }
}

fn type_at(device: &Replica, at: usize, edits: usize) {
    let edit = move |tx: &mut motet::Transaction<'_>| {
        (0..edits)
            .try_for_each(|n| tx.documents("songs").splice_text("long", "lyrics", at + n, 0, "ʻ").map(|_| ()))
    };
    device.transaction(edit).unwrap();
}

fn song(device: &Replica, id: &str) -> Value {
    device.documents("songs").get(id).unwrap().map_or(Value::Null, |song| song.value.clone())
}

fn rows(path: &Path, sql: &str) -> i64 {
    Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn it_is_kept_in_its_saved_form_and_edited_like_others() {
    let late = Late::new();
    let path = late.dir.path().join("b.db");
    assert_eq!(rows(&path, "SELECT COUNT(*) FROM snapshot WHERE is_primary = 1 AND upto > 0"), 1);
    assert!(rows(&path, "SELECT COUNT(*) FROM change") < 10, "a row for each change");
    assert_eq!(contents(&late.b), contents(&late.a));
    let history =
        |device: &Replica| device.documents("songs").document("long").history(10_000).unwrap().len();
    assert_eq!(history(&late.b), history(&late.a));
    for (device, at) in [(&late.a, 300), (&late.b, 40)] {
        device.documents("songs").document("long").splice_text("lyrics", at, 2, "aʻo").unwrap();
    }
    for device in [&late.b, &late.a, &late.b] {
        sync(device, &late.relay.url());
    }
    assert_eq!(contents(&late.b), contents(&late.a));
    assert_eq!(contents(&late.fresh("c")), contents(&late.a));
    assert_eq!(late.b.verify().unwrap().problems, []);
}

/// Whatever a relay has lost of it comes from the device that has it in its saved form.
#[test]
fn a_relay_that_has_lost_it_gets_it_again() {
    for edits_after in [false, true] {
        let mut late = Late::new();
        let whole = song(&late.b, "long");
        late.lose("empty");
        if edits_after {
            late.b.documents("songs").patch("long", &json!({ "title": "hou" })).unwrap();
        }
        sync(&late.b, &late.relay.url());
        let found = song(&late.fresh("c"), "long");
        assert_eq!(found["lyrics"], whole["lyrics"], "edits after: {edits_after}");

        // Set back to an earlier state: the same log, and shorter.
        let late = Late::new();
        let (whole, earlier) = (song(&late.b, "long"), late.earlier.clone());
        let relay = TestRelay::start(&earlier);
        if edits_after {
            late.b.documents("songs").patch("long", &json!({ "title": "hou" })).unwrap();
        }
        sync(&late.b, &relay.url());
        let c = singer(late.dir.path(), "c");
        sync(&c, &relay.url());
        assert_eq!(c.quarantined(10).unwrap(), []);
        assert_eq!(song(&c, "long")["lyrics"], whole["lyrics"], "edits after: {edits_after}");
    }
}

/// A mark that the saved form is the only source, of which nothing is known.
#[test]
fn a_mark_that_says_nothing_is_found_and_mended() {
    for mark in ["7", "2", "0", "-1", "'x'"] {
        let mut late = Late::new();
        let whole = song(&late.b, "long");
        late.damaged(&format!("UPDATE snapshot SET is_primary = {mark} WHERE is_primary = 1"));
        assert_ne!(late.b.verify().unwrap().problems, [], "{mark}");
        assert_eq!(late.b.repair().unwrap().left, [], "{mark}");
        assert_eq!(late.b.verify().unwrap().problems, [], "{mark}");
        late.lose("empty");
        sync(&late.b, &late.relay.url());
        assert_eq!(song(&late.fresh("c"), "long"), whole, "{mark}");
    }
}

/// One document whose rows are damaged holds up no other.
#[test]
fn others_arrive_beside_a_document_whose_rows_are_damaged() {
    for damage in [
        "DELETE FROM projection WHERE document = (SELECT id FROM document WHERE name = 'long')",
        "UPDATE snapshot SET upto = (document << 24) + 0xffffff WHERE is_primary = 1",
    ] {
        let mut late = Late::new();
        late.damaged(damage);
        late.lose("empty");
        late.a.documents("songs").patch("long", &json!({ "title": "hou" })).unwrap();
        late.a.documents("songs").upsert("other", &json!({ "title": "ʻē aʻe" })).unwrap();
        sync(&late.a, &late.relay.url());
        sync(&late.b, &late.relay.url());
        assert_eq!(song(&late.b, "other")["title"], "ʻē aʻe", "{damage}");
        assert_ne!(late.b.verify().unwrap().problems, [], "{damage}");
        late.b.repair().unwrap();
        sync(&late.b, &late.relay.url());
        assert_eq!(contents(&late.b), contents(&late.a), "{damage}");
        assert_eq!(late.b.verify().unwrap().problems, [], "{damage}");
    }
}

/// A row that says of no version what it is of is no reason not to send what is there.
#[test]
fn a_relay_that_has_lost_it_gets_it_although_its_version_is_gone() {
    for id in ["long", "short"] {
        let mut late = Late::new();
        let whole = song(&late.b, id);
        late.damaged(&format!(
            "UPDATE projection SET heads = x'' WHERE document = (SELECT id FROM document WHERE name = '{id}')"
        ));
        late.lose("empty");
        sync(&late.b, &late.relay.url());
        assert_eq!(song(&late.fresh("c"), id), whole, "{id}");
        assert_eq!(song(&late.b, id), whole, "{id}");
        assert_eq!(late.b.repair().unwrap().left, [], "{id}");
        assert_eq!(late.b.verify().unwrap().problems, [], "{id}");
    }
}

/// Nothing is left of a document but its row: it comes again from the relay, and is no empty document until then.
#[test]
fn what_is_gone_but_for_its_row_comes_again() {
    for id in ["long", "short"] {
        let mut late = Late::new();
        let whole = song(&late.b, id);
        let of = format!("(SELECT id FROM document WHERE name = '{id}')");
        late.damaged(&format!(
            "DELETE FROM projection WHERE document = {of}; DELETE FROM snapshot WHERE document = {of};
             DELETE FROM change WHERE id >> 24 = {of}"
        ));
        assert_ne!(late.b.verify().unwrap().problems, [], "{id}");
        assert_eq!(late.b.repair().unwrap().left, [], "{id}");
        assert_eq!(song(&late.b, id), Value::Null, "{id}");
        sync(&late.b, &late.relay.url());
        assert_eq!(song(&late.b, id), whole, "{id}");
        assert_eq!(late.b.verify().unwrap().problems, [], "{id}");
    }
}

/// The relay has lost the document, and the device can only show it: what shows is not dropped.
#[test]
fn what_only_shows_and_no_relay_has_is_written_anew() {
    let mut late = Late::new();
    let shown = song(&late.b, "long");
    late.damaged("DELETE FROM snapshot WHERE is_primary = 1");
    late.lose("empty");
    sync(&late.b, &late.relay.url());
    assert_eq!(late.b.repair().unwrap().left, []);
    assert_eq!(song(&late.b, "long"), shown);
    sync(&late.b, &late.relay.url());
    assert_eq!(song(&late.fresh("c"), "long"), shown);
    assert_eq!(late.b.verify().unwrap().problems, []);
}

/// Whatever is lost of a document, and whichever remote has none of it: it is not said to be synced, what it showed is not dropped, or the file is
/// put aside; and others arrive.
#[test]
fn what_is_lost_of_a_document_is_neither_sent_as_whole_nor_dropped_without_a_trace() {
    let of = "(SELECT id FROM document WHERE name = 'short')";
    let first = format!("DELETE FROM change WHERE id = (SELECT MIN(id) FROM change WHERE id >> 24 = {of})");
    let last = format!("DELETE FROM change WHERE id = (SELECT MAX(id) FROM change WHERE id >> 24 = {of})");
    let all = format!("DELETE FROM change WHERE id >> 24 = {of}; DELETE FROM snapshot WHERE document = {of}");
    let version = format!("UPDATE projection SET heads = x'' WHERE document = {of}");
    let [last_unknown, all_unknown] = [&last, &all].map(|lost| format!("{lost}; {version}"));
    for damage in [&first, &last, &all, &last_unknown, &all_unknown] {
        for is_wiped in [true, false] {
            let mut late = Late::new();
            for n in 0..3 {
                late.b.documents("songs").patch("short", &json!({ "n": n })).unwrap();
            }
            sync(&late.b, &late.relay.url());
            if !is_wiped {
                // An edit that no remote has.
                late.b.documents("songs").patch("short", &json!({ "title": "hou" })).unwrap();
            }
            late.b.documents("songs").upsert("other", &json!({ "n": 1 })).unwrap();
            let shown = song(&late.b, "short");
            late.damaged(damage);
            if is_wiped {
                late.lose("empty");
            }
            sync(&late.b, &late.relay.url());
            let pending = late.b.pending_documents(10).unwrap();
            // The relay has what an edit builds on.
            let is_sent = !is_wiped && damage == &first;
            assert_ne!(pending.iter().any(|pending| pending.id == "short"), is_sent, "{damage}");
            assert_eq!(song(&late.fresh("c"), "other")["n"], 1, "{damage}");
            let repaired = late.b.repair().unwrap();
            assert_eq!(repaired.left, [], "{damage}");
            sync(&late.b, &late.relay.url());
            let is_kept = song(&late.b, "short") == shown;
            let is_aside = repaired.put_aside.is_some_and(|aside| aside.exists());
            // What the relay has is not written a second time; an edit that it lacks stands in the file beside.
            assert!(is_kept || !is_wiped && is_aside, "{damage}, wiped: {is_wiped}");
            assert_eq!(
                song(&late.fresh("d"), "short"),
                song(&late.b, "short"),
                "{damage}, wiped: {is_wiped}"
            );
        }
        // The relay is not reached: what is dropped stands in a file beside.
        let mut late = Late::new();
        late.damaged(damage);
        let repaired = late.b.repair().unwrap();
        let aside = repaired.put_aside.filter(|aside| aside.exists());
        assert_eq!(aside.is_some(), repaired.fetched_again > 0, "{damage}");
    }
}

/// Of several edits that wait one is lost: the others wait with it, until a repair, and no state says that they were sent.
#[test]
fn an_edit_that_is_lost_among_others_that_wait_is_told() {
    for lost in 0..3 {
        let mut late = Late::new();
        sync(&late.b, &late.relay.url());
        for n in 0..3 {
            late.b.documents("songs").patch("short", &json!({ (format!("n{n}")): n })).unwrap();
        }
        late.damaged(&format!(
            "DELETE FROM change WHERE id = (SELECT first_change + {lost} FROM outbox WHERE entry IS NULL)"
        ));
        sync(&late.b, &late.relay.url());
        let status = late.b.documents("songs").document("short").status().unwrap().unwrap();
        assert_eq!(status.state, motet::DocumentState::Error, "{lost}");
        assert_eq!(status.error.unwrap().code, "storage-damaged", "{lost}");
        assert_ne!(late.b.verify().unwrap().problems, [], "{lost}");
        let repaired = late.b.repair().unwrap();
        assert!(repaired.put_aside.is_some_and(|aside| aside.exists()), "{lost}");
        late.b.documents("songs").patch("short", &json!({ "title": "hou" })).unwrap();
        sync(&late.b, &late.relay.url());
        sync(&late.a, &late.relay.url());
        assert_eq!(song(&late.a, "short"), song(&late.b, "short"), "{lost}");
        assert_eq!(late.b.verify().unwrap().problems, [], "{lost}");
    }
}

/// An edit that waited for something that was lost is sent once another device has brought that, whatever became of the relay.
#[test]
fn what_a_repair_has_set_aside_is_sent_when_it_is_applied_again() {
    for is_wiped in [true, false] {
        let mut late = Late::new();
        for n in 0..3 {
            late.b.documents("songs").patch("short", &json!({ (format!("n{n}")): n })).unwrap();
            sync(&late.b, &late.relay.url());
        }
        sync(&late.a, &late.relay.url());
        late.b.documents("songs").patch("short", &json!({ "title": "hou" })).unwrap();
        late.damaged(
            "DELETE FROM change WHERE id = (SELECT MAX(id) - 2 FROM change WHERE id >> 24 = (SELECT id FROM document WHERE name = 'short'))",
        );
        late.b.repair().unwrap();
        if is_wiped {
            late.lose("empty");
        }
        for device in [&late.b, &late.a, &late.b, &late.a] {
            sync(device, &late.relay.url());
        }
        let shown = song(&late.b, "short");
        assert_eq!((&shown["title"], &shown["n2"]), (&json!("hou"), &json!(2)), "wiped: {is_wiped}");
        assert_eq!(song(&late.a, "short"), shown, "wiped: {is_wiped}");
        assert_eq!(song(&late.fresh("c"), "short"), shown, "wiped: {is_wiped}");
        assert_eq!(late.b.quarantined(10).unwrap(), [], "wiped: {is_wiped}");
    }
}

/// What arrives of a document whose rows are damaged cannot be applied: its state says so until the file is repaired.
#[test]
fn a_document_that_takes_nothing_up_for_damage_is_not_synced() {
    let of = "(SELECT id FROM document WHERE name = 'short')";
    for damage in [
        format!("UPDATE projection SET heads = x'' WHERE document = {of}"),
        format!("DELETE FROM change WHERE id = (SELECT MAX(id) FROM change WHERE id >> 24 = {of})"),
        format!(
            "UPDATE change SET bytes = x'00ff' WHERE id = (SELECT MIN(id) FROM change WHERE id >> 24 = {of})"
        ),
    ] {
        let mut late = Late::new();
        late.damaged(&damage);
        late.a.documents("songs").patch("short", &json!({ "title": "hou" })).unwrap();
        sync(&late.a, &late.relay.url());
        sync(&late.b, &late.relay.url());
        let status =
            |device: &Replica| device.documents("songs").document("short").status().unwrap().unwrap();
        let told = status(&late.b);
        assert_eq!(told.state, motet::DocumentState::Error, "{damage}");
        assert_eq!(told.error.unwrap().code, "storage-damaged", "{damage}");
        assert_eq!(late.b.repair().unwrap().left, [], "{damage}");
        sync(&late.b, &late.relay.url());
        assert_eq!(status(&late.b).state, motet::DocumentState::Synced, "{damage}");
        assert_eq!(contents(&late.b), contents(&late.a), "{damage}");
        assert_eq!(late.b.quarantined(10).unwrap(), [], "{damage}");
    }
}

/// A change that waits for another one may be on one device alone once the relay is another one: it is sent when it is applied.
#[test]
fn what_waits_while_a_relay_is_lost_is_sent_when_it_is_applied() {
    for is_b_first in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("relay");
        let relay = TestRelay::start(&data);
        let [a, b, c] = ["a", "b", "c"].map(|name| singer(dir.path(), name));
        let patch = |field: &str| a.documents("songs").patch("s", &json!({ field: 1 })).unwrap();
        a.documents("songs").upsert("s", &json!({ "title": "mele" })).unwrap();
        sync(&a, &relay.url());
        patch("early");
        sync(&a, &relay.url());
        sync(&b, &relay.url());
        patch("late");
        sync(&a, &relay.url());
        drop(relay);
        let conn = Connection::open(data.join("relay.db")).unwrap();
        conn.execute_batch(
            "DELETE FROM entry WHERE id = (SELECT id FROM entry ORDER BY id LIMIT 1 OFFSET 1)",
        )
        .unwrap();
        drop(conn);
        let relay = TestRelay::start(&data);
        sync(&c, &relay.url());
        assert_eq!(c.quarantined(10).unwrap().len(), 1);
        drop((relay, a));
        let relay = TestRelay::start(&dir.path().join("empty"));
        let order = if is_b_first { [&b, &c, &b, &c] } else { [&c, &b, &c, &b] };
        for device in order {
            sync(device, &relay.url());
        }
        let fresh = singer(dir.path(), "fresh");
        sync(&fresh, &relay.url());
        for device in [&b, &c, &fresh] {
            let song = song(device, "s");
            assert_eq!((&song["early"], &song["late"]), (&json!(1), &json!(1)), "b first: {is_b_first}");
            assert_eq!(device.quarantined(10).unwrap(), []);
        }
    }
}
