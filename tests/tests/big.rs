//! Big values: how they travel, what they are loaded from, that writing one holds nobody up, and how much is too much.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use motet::{Adoption, BadRows, Field, Replica, Schema, UndoScope, WriteError};
use motet_proto::Kind;
use motet_tests::{TestRelay, device, raw, sync};
use serde_json::{Map, Value, json};

/// Lines that are all different, at least `bytes` of them.
fn lines(word: &str, bytes: usize) -> String {
    let mut text = String::new();
    for n in 0.. {
        if text.len() >= bytes {
            break;
        }
        text += &format!("{word} {n} ua like nō a like\n");
    }
    text
}

fn snapshots(db: &Path) -> i64 {
    let conn = rusqlite::Connection::open(db).unwrap();
    conn.query_row("SELECT COUNT(*) FROM snapshot", [], |row| row.get(0)).unwrap()
}

#[test]
fn what_is_larger_than_half_an_entry_goes_out_as_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    let words = lines("kahi", 5 << 20);
    a.documents("scans").upsert("1", &json!({ "words": words })).unwrap();
    sync(&a, &relay.url());
    let entries = raw::pull(&relay.url());
    assert_eq!(entries.len(), 1);
    assert!(matches!(entries[0].kind, Kind::Snapshot { .. }));
    sync(&b, &relay.url());
    assert_eq!(b.documents("scans").get("1").unwrap().unwrap()["words"], words.as_str());
    b.documents("scans").patch("1", &json!({ "title": "ʻekahi" })).unwrap();
    sync(&b, &relay.url());
    sync(&a, &relay.url());
    assert_eq!(a.documents("scans").get("1").unwrap().unwrap()["title"], "ʻekahi");
    assert!(a.verify().unwrap().problems.is_empty() && b.verify().unwrap().problems.is_empty());
}

#[test]
fn a_big_document_that_arrives_as_changes_is_kept_as_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    let text = lines("lua", 150_000);
    a.documents("pieces").upsert("1", &json!({ "lyrics": "" })).unwrap();
    sync(&a, &relay.url());
    a.documents("pieces").patch("1", &json!({ "lyrics": text })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    assert_eq!(b.documents("pieces").get("1").unwrap().unwrap()["lyrics"], text.as_str());
    drop(b);
    assert_eq!(snapshots(&dir.path().join("b.db")), 1);
    let b = device(dir.path(), "b");
    b.documents("pieces").patch("1", &json!({ "title": "ʻelua" })).unwrap();
    sync(&b, &relay.url());
    sync(&a, &relay.url());
    assert_eq!(a.documents("pieces").get("1").unwrap().unwrap()["title"], "ʻelua");
    assert!(a.verify().unwrap().problems.is_empty() && b.verify().unwrap().problems.is_empty());
}

#[test]
fn others_write_while_a_big_text_is_composed() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    let other = Replica::open(dir.path().join("a.db")).unwrap();
    let done = AtomicBool::new(false);
    let (mut here, mut there) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            a.documents("pieces").upsert("big", &json!({ "lyrics": lines("kolu", 500_000) })).unwrap();
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            a.documents("log").upsert("here", &json!({ "n": here })).unwrap();
            other.documents("log").upsert("there", &json!({ "n": there })).unwrap();
            assert!(other.documents("log").get("there").unwrap().is_some());
            (here, there) = (here + 1, there + 1);
        }
    });
    // Whoever waits for the whole write has written once, or twice.
    assert!(here > 3, "{here}");
    assert!(a.verify().unwrap().problems.is_empty());
}

#[test]
fn what_was_composed_on_an_older_state_is_composed_again() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    let other = Replica::open(dir.path().join("a.db")).unwrap();
    let text = |n: i32| lines(&format!("haʻi {n}"), 66_000);
    a.documents("pieces").upsert("1", &json!({ "lyrics": text(0), "plays": 0 })).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=2 {
                a.documents("pieces").patch("1", &json!({ "lyrics": text(n) })).unwrap();
            }
        });
        for n in 1..=12 {
            let writer = if n % 2 == 0 { &a } else { &other };
            writer.documents("pieces").patch("1", &json!({ "plays": n })).unwrap();
        }
    });
    for replica in [&a, &other] {
        let shown = replica.documents("pieces").get("1").unwrap().unwrap();
        assert_eq!((&shown["lyrics"], &shown["plays"]), (&text(2).into(), &json!(12)));
        assert_eq!(replica.documents("pieces").document("1").conflicts().unwrap().len(), 0);
    }
    assert!(a.verify().unwrap().problems.is_empty());
}

#[test]
fn big_writes_mean_what_small_ones_mean() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    let pieces = a.documents("pieces");
    let text = lines("lima", 66_000);
    assert!(matches!(pieces.patch("none", &json!({ "lyrics": text })), Err(WriteError::NotFound { .. })));
    assert!(pieces.get("none").unwrap().is_none());
    let id = pieces.insert(&json!({ "lyrics": text, "title": "ʻelima" })).unwrap();
    let mut record = pieces.get(&id).unwrap().unwrap();
    let old = lines("lima", 66_000);
    pieces.patch(&id, &json!({ "title": "six" })).unwrap();
    for word in ["ʻeono", "ʻehiku"] {
        record["lyrics"] = (old.clone() + word).into();
        pieces.update(&mut record).unwrap();
        let shown = pieces.get(&id).unwrap().unwrap();
        assert_eq!((&shown["lyrics"], &shown["title"]), (&record["lyrics"], &json!("six")));
    }
    pieces.delete(&id).unwrap();
    pieces.upsert(&id, &json!({ "lyrics": text })).unwrap();
    let shown = pieces.get(&id).unwrap().unwrap();
    assert_eq!(shown["lyrics"], text.as_str());
    assert_eq!(shown.get("title"), None);
    a.undo().unwrap();
    assert!(pieces.get(&id).unwrap().is_none());
    a.apply_schema(&Schema::new().field("pieces", "lyrics", Field::text().max_len(80_000))).unwrap();
    let longer = pieces.upsert("2", &json!({ "lyrics": lines("walu", 90_000) }));
    assert!(matches!(longer, Err(WriteError::Rule { ref field, .. }) if field == "lyrics"), "{longer:?}");
    assert!(a.verify().unwrap().problems.is_empty());
}

#[test]
fn too_many_fields_or_elements_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    a.apply_schema(&Schema::new().field(
        "pieces",
        "long",
        Field::from(motet::FieldKind::List).max_len(100_002),
    ))
    .unwrap();
    let pieces = a.documents("pieces");
    let object = |from: usize, count: usize| -> Map<String, Value> {
        (from..from + count).map(|n| (format!("f{n}"), json!(n))).collect()
    };
    let refused = |written: Result<_, WriteError>, what: &str| {
        let error = written.map(|_: motet::Version| ()).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    };
    pieces.upsert("1", &Value::Object(object(0, 9_999))).unwrap();
    refused(pieces.patch("1", &Value::Object(object(9_999, 2))), "10001 fields");
    pieces.patch("1", &Value::Object(object(9_999, 1))).unwrap();
    refused(
        pieces.upsert("2", &json!({ "inner": [object(0, 10_001)] })),
        "field \"inner\": an object has 10001",
    );
    let array = |count: usize| Value::Array(vec![json!(1); count]);
    refused(pieces.upsert("2", &json!({ "many": array(100_001) })), "field \"many\": an array has 100001");
    refused(
        pieces.upsert("2", &json!({ "in": { "many": array(100_001) } })),
        "field \"in\": an array has 100001",
    );
    assert!(pieces.get("2").unwrap().is_none());
    refused(pieces.upsert("2", &json!({ "long": array(100_003) })), "long");
}

/// Another connection gets its writes in while a big text, or many rows, are being compared and made.
#[test]
fn others_write_while_rows_are_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let schema = Schema::new().text("pieces", "lyrics").text("logged", "lyrics");
    let [replica, beside] = [(); 2].map(|()| Replica::open(dir.path().join("a.db")).unwrap());
    [&replica, &beside].iter().for_each(|replica| replica.apply_schema(&schema).unwrap());
    let text = |bytes: usize, seed: usize| -> String {
        (0..bytes / 8)
            .map(|n| {
                format!("{:06}{}", (n * 7_919 + seed) % 1_000_000, if n % 8 == 7 { " \n" } else { "  " })
            })
            .collect()
    };
    let big = json!({ "id": "big", "lyrics": text(150_000, 1), "updated_at": "2025-01-03T10:00:00Z" });
    let other = json!({ "id": "other", "lyrics": text(150_000, 2) });
    let many: Vec<_> =
        (0..60).map(|n| json!({ "id": format!("{n}"), "lyrics": text(4_000, n), "updated_at": "2025-01-03T10:00:00Z" })).collect();
    type Way<'a> = (&'a str, Box<dyn Fn() + Sync + 'a>);
    let pieces = replica.documents("pieces");
    let (first, second) = (text(150_000, 3), text(150_000, 4));
    let ways: [Way<'_>; 9] = [
        (
            "a big text is put, and nobody waits for it",
            Box::new(|| {
                pieces.upsert_async("async", &json!({ "lyrics": first })).durable().unwrap();
            }),
        ),
        (
            "it is set anew",
            Box::new(|| {
                pieces.patch_async("async", &json!({ "lyrics": second })).durable().unwrap();
            }),
        ),
        (
            "much is put into it",
            Box::new(|| {
                pieces.document("async").splice_text("lyrics", 10, 100_000, &first).unwrap();
            }),
        ),
        (
            "a letter of it is typed after a start",
            Box::new(|| {
                let fresh = Replica::open(dir.path().join("a.db")).unwrap();
                fresh.documents("pieces").document("async").splice_text("lyrics", 0, 0, "x").unwrap();
            }),
        ),
        (
            "that is taken back, and done again, after a start",
            Box::new(|| {
                let fresh = Replica::open(dir.path().join("a.db")).unwrap();
                let scope = UndoScope::document("pieces", "async");
                assert!(fresh.undo_within(&scope).unwrap().is_some());
                assert!(fresh.redo_within(&scope).unwrap().is_some());
            }),
        ),
        (
            "a big row is adopted",
            Box::new(|| {
                assert_eq!(replica.adopt("pieces", vec![big.clone()], &Adoption::default()).unwrap().new, 1)
            }),
        ),
        (
            "a big line is imported",
            Box::new(|| {
                _ = replica
                    .import_jsonl(Some("pieces"), format!("{other}\n").as_bytes(), BadRows::Report, |_| {})
                    .unwrap()
            }),
        ),
        (
            "many rows are adopted",
            Box::new(|| {
                assert_eq!(replica.adopt("pieces", many.clone(), &Adoption::default()).unwrap().new, 60)
            }),
        ),
        (
            "a change log comes in",
            Box::new(|| {
                let log = json!({ "changes": { "logged": [{ "op": "upsert", "id": "1", "data": other }] } });
                assert_eq!(replica.import_change_log(&log).unwrap().upserted, 1);
            }),
        ),
    ];
    for (what, take_up) in &ways {
        let done = AtomicBool::new(false);
        let written = std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                let mut written = 0;
                while !done.load(Ordering::Relaxed) {
                    beside.documents("small").upsert("1", &json!({ "n": written })).unwrap();
                    written += 1;
                }
                written
            });
            let taken_up = catch_unwind(AssertUnwindSafe(take_up));
            done.store(true, Ordering::Relaxed);
            let written = writing.join().unwrap();
            taken_up.unwrap_or_else(|panic| resume_unwind(panic));
            written
        });
        assert!(written >= 5, "{what}: {written} writes got in");
    }
    assert_eq!(replica.documents("pieces").get("big").unwrap().unwrap()["lyrics"], big["lyrics"]);
    assert_eq!(replica.documents("pieces").list().unwrap().len(), 63);
    let spliced = format!("x{}{first}{}", &second[..10], &second[100_010..]);
    assert_eq!(beside.documents("pieces").get("async").unwrap().unwrap()["lyrics"], spliced.as_str());
    assert_eq!(replica.verify().unwrap().problems, []);
}
