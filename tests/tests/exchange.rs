//! In and out: rows of another database, change logs; and looking after the file.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use motet::{Adoption, BadRows, FieldKind, ProblemKind, Replica, Schema, WriteError};
use motet_tests::{TestRelay, device, sync};
use serde_json::json;

fn legacy(path: &std::path::Path, title: &str, updated_at: &str) {
    let conn = rusqlite::Connection::open(path).unwrap();
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS songs (id INTEGER PRIMARY KEY, title TEXT, lyrics TEXT, genre_id INTEGER, bpm REAL,
           api_key TEXT, created_at TEXT, updated_at TEXT, deleted_at TEXT);
         DELETE FROM songs;",
    )
    .unwrap();
    let sql =
        "INSERT INTO songs VALUES (1, ?1, 'Kūmaka ka ʻikena\n', 4, 90.5, 's3cr3t', '2024-05-01', ?2, NULL),
               (2, 'gone', '', 4, 1, '', '2024-05-01', ?2, '2025-01-01')";
    conn.execute(sql, [title, updated_at]).unwrap();
}

/// A row that does not say when it was written fills a document that is not there, and is named where one differs from it.
#[test]
fn a_row_without_a_time_changes_no_document_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let replica = device(dir.path(), "a");
    replica.apply_schema(&Schema::new().text("songs", "lyrics")).unwrap();
    let adopt = |rows: serde_json::Value, bad_rows| {
        let adoption = Adoption { bad_rows, ..Adoption::default() };
        replica.adopt("songs", rows.as_array().unwrap().clone(), &adoption).unwrap()
    };
    let title = |id: &str| replica.documents("songs").get(id).unwrap().unwrap()["title"].clone();
    for (n, time) in [None, Some(json!(null)), Some(json!("")), Some(json!(" "))].into_iter().enumerate() {
        let row = |title: &str| {
            let mut row = json!({ "id": n, "title": title, "lyrics": "E hoʻi\n", "key": null });
            if let Some(time) = &time {
                row["updated_at"] = time.clone();
            }
            json!([row])
        };
        let id = n.to_string();
        assert_eq!(adopt(row("Hoʻi"), BadRows::Report).new, 1);
        assert_eq!(adopt(row("Hoʻi"), BadRows::Report).unchanged, 1);
        for bad_rows in [BadRows::Report, BadRows::RefuseAll] {
            let summary = adopt(row("E hoʻi"), bad_rows);
            assert_eq!((summary.undated, summary.unchanged, summary.updated, summary.refused), (1, 0, 0, 0));
            let named = summary.undated_rows[0].to_string();
            assert!(named.starts_with("row 1: it has no \"updated_at\""), "{named}");
            assert!(named.contains("\"title\"") && named.ends_with(&format!("(songs/{n})")), "{named}");
        }
        assert_eq!(title(&id), "Hoʻi");
        // A row with a time is newer than one without.
        let dated = json!([{ "id": n, "title": "later", "updated_at": "2025-02-01T00:00:00Z" }]);
        assert_eq!((adopt(dated, BadRows::Report).updated, title(&id)), (1, json!("later")));
    }
    // Times count to the millisecond.
    let at = |time: &str, title: &str| {
        let row = json!([{ "id": "x", "title": title, "updated_at": time }]);
        adopt(row, BadRows::Report)
    };
    assert_eq!(at("2025-01-03T10:00:00.500Z", "a").new, 1);
    assert_eq!(at("2025-01-03T10:00:00.499Z", "b").unchanged, 1);
    assert_eq!((at("2025-01-03T10:00:00.501Z", "c").updated, title("x")), (1, json!("c")));
    // Deleted documents stay so.
    replica.documents("songs").delete("0").unwrap();
    assert_eq!(adopt(json!([{ "id": 0, "title": "again" }]), BadRows::Report).passed_over, 1);
}

#[test]
fn two_devices_adopt_the_same_rows_without_duplicates_and_the_later_row_wins() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let open = |name: &str| {
        let replica =
            Replica::builder(dir.path().join(format!("{name}.db"))).device_name(name).open().unwrap();
        replica.apply_schema(&Schema::new().text("songs", "lyrics")).unwrap();
        replica
    };
    let (a, b) = (open("a"), open("b"));
    let adoption = Adoption {
        prefix: "home-".into(),
        references: vec!["genre_id".into()],
        exclude: vec!["api_key".into()],
        ..Adoption::default()
    };
    let old = dir.path().join("legacy.db");
    legacy(&old, "Hiʻilawe", "2025-01-03T10:00:00Z");
    let summary = a.adopt_sqlite(&old, "songs", "songs", &adoption).unwrap();
    assert_eq!((summary.new, summary.passed_over), (1, 1));
    b.adopt_sqlite(&old, "songs", "songs", &adoption).unwrap();
    assert_eq!(b.adopt_sqlite(&old, "songs", "songs", &adoption).unwrap().unchanged, 1);
    // An edit on one device is not fought by the adoption on the other.
    a.documents("songs").patch("home-1", &json!({ "title": "Hiʻilawe (hula)" })).unwrap();
    for replica in [&a, &b, &a] {
        sync(replica, &relay.url());
    }
    let song = json!({ "id": "home-1", "title": "Hiʻilawe (hula)", "lyrics": "Kūmaka ka ʻikena\n", "genre_id": "home-4",
        "bpm": 90.5, "created_at": "2024-05-01", "updated_at": "2025-01-03T10:00:00Z" });
    for replica in [&a, &b] {
        assert_eq!(replica.documents("songs").get("home-1").unwrap().unwrap().value, song);
        assert_eq!(replica.counts().unwrap().conflicts, 0);
    }
    // The old app went on meanwhile on two devices: the later row wins, the other stands in the journal.
    let (c, d) = (open("c"), open("d"));
    legacy(&old, "earlier", "2025-02-01 09:00:00");
    c.adopt_sqlite(&old, "songs", "later", &adoption).unwrap();
    legacy(&old, "later", "2025-02-01T10:00:00.5Z");
    d.adopt_sqlite(&old, "songs", "later", &adoption).unwrap();
    for replica in [&d, &c, &d] {
        sync(replica, &relay.url());
    }
    for replica in [&c, &d] {
        assert_eq!(replica.documents("later").get("home-1").unwrap().unwrap()["title"], "later");
        let conflicts = replica.documents("later").document("home-1").conflicts().unwrap();
        assert!(conflicts.iter().any(|c| c.path == "/title" && c.loser == "earlier"));
    }
    assert!(matches!(a.adopt_sqlite(&old, "nothing", "songs", &adoption), Err(WriteError::Storage(_))));
    let bad = a.adopt("songs", vec![json!({ "id": 1, "updated_at": "soon" })], &adoption).unwrap_err();
    assert!(bad.to_string().contains("row 1: \"updated_at\": \"soon\" is no time"), "{bad}");
}

#[test]
fn a_change_log_goes_out_and_in() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    a.apply_schema(&Schema::new().field("config", "secret", FieldKind::Local).local("keys")).unwrap();
    a.documents("pieces").upsert("1", &json!({ "title": "Hiʻilawe" })).unwrap();
    a.documents("pieces").upsert("2", &json!({ "title": "gone" })).unwrap();
    a.documents("pieces").delete("2").unwrap();
    a.documents("config").upsert("theme", &json!({ "value": "dark", "secret": "s3cr3t" })).unwrap();
    a.documents("keys").upsert("k", &json!({ "value": "s3cr3t" })).unwrap();
    let log = a.export_change_log(0).unwrap();
    assert_eq!(log["device_id"], a.device_id().to_string());
    assert_eq!(log["config"], json!([{ "key": "theme", "value": "dark" }]));
    assert_eq!(
        log["changes"]["pieces"],
        json!([{ "op": "upsert", "id": "1", "data": { "title": "Hiʻilawe" } }, { "op": "delete", "id": "2" }])
    );
    assert!(!log.to_string().contains("s3cr3t"));
    b.documents("pieces").upsert("2", &json!({ "title": "here" })).unwrap();
    let summary = b.import_change_log(&log).unwrap();
    assert_eq!((summary.upserted, summary.deleted, summary.missing), (2, 1, 0));
    assert_eq!(b.documents("pieces").get("1").unwrap().unwrap()["title"], "Hiʻilawe");
    assert_eq!(b.documents("config").get("theme").unwrap().unwrap()["value"], "dark");
    let cursor = log["cursor"].as_u64().unwrap();
    let nothing = a.export_change_log_after(cursor).unwrap();
    for error in
        [a.export_change_log_after(cursor + 1).unwrap_err(), a.changed_after(u64::MAX, 1).unwrap_err()]
    {
        assert_eq!((error.code(), error.is_retryable()), ("read-unknown-change", false), "{error}");
    }
    assert_eq!(nothing["changes"], json!({}));
    assert!(nothing["timestamp"].as_i64() >= log["timestamp"].as_i64(), "{nothing}");
    let bad = json!({ "changes": { "pieces": [{ "op": "merge", "id": 1 }] } });
    let error = b.import_change_log(&bad).unwrap_err();
    assert!(error.to_string().contains("entry 1 of pieces: unknown variant `merge`"), "{error}");
}

#[test]
fn a_change_log_holds_documents_of_config_that_are_more_than_a_value() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    let documents = [
        ("theme", json!({ "value": "dark", "note": "my precious words" })),
        ("none", json!({ "size": 5 })),
        ("null", json!({ "value": null })),
        ("empty", json!({})),
        ("plain", json!({ "value": [1, { "a": "b" }] })),
    ];
    for (id, document) in &documents {
        a.documents("config").upsert(id, document).unwrap();
    }
    b.documents("config").upsert("none", &json!({ "value": 7 })).unwrap();
    b.import_change_log(&a.export_change_log(0).unwrap()).unwrap();
    for (id, mut document) in documents {
        document["id"] = json!(id);
        if id == "none" {
            document["value"] = json!(7);
        }
        assert_eq!(*b.documents("config").get(id).unwrap().unwrap(), document, "{id}");
    }
}

#[test]
fn change_logs_one_after_the_other_leave_nothing_out() {
    let dir = tempfile::tempdir().unwrap();
    // A clock that stands still, and one that is set back.
    let time = Arc::new(AtomicI64::new(1_700_000_000_000));
    let told = time.clone();
    let a =
        Replica::builder(dir.path().join("a.db")).clock(move || told.load(Ordering::Relaxed)).open().unwrap();
    let real = device(dir.path(), "real");
    let (mut since, mut cursor) = (0, 0);
    for n in 0..60 {
        let id = format!("{n}");
        for replica in [&a, &real] {
            replica.documents("pieces").upsert(&id, &json!({ "title": id })).unwrap();
        }
        let log = real.export_change_log(since).unwrap();
        let told = log["changes"]["pieces"].as_array().unwrap();
        assert!(told.iter().any(|entry| entry["id"] == id.as_str()), "{id} is not in {log}");
        since = log["timestamp"].as_i64().unwrap();
        let log = a.export_change_log_after(cursor).unwrap();
        let entry = json!({ "op": "upsert", "id": id, "data": { "title": id } });
        assert_eq!(log["changes"], json!({ "pieces": [entry] }));
        cursor = log["cursor"].as_u64().unwrap();
        assert_eq!(cursor, a.latest_change().unwrap());
        if n == 30 {
            time.fetch_sub(3_600_000, Ordering::Relaxed);
        }
    }
    // At a clock that stands still everything of this moment comes again.
    let since = a.export_change_log(0).unwrap()["timestamp"].as_i64().unwrap();
    a.documents("pieces").upsert("last", &json!({ "title": "last" })).unwrap();
    assert!(a.export_change_log(since).unwrap().to_string().contains("last"));
}

#[test]
fn damage_is_found_named_and_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    let pieces = a.documents("pieces");
    for id in ["1", "2", "3"] {
        pieces.upsert(id, &json!({ "title": id, "lyrics": "ʻekahi\n" })).unwrap();
        pieces.document(id).splice_text("lyrics", 0, 0, "ʻelua\n").unwrap();
    }
    sync(&a, &relay.url());
    let clean = a.verify().unwrap();
    assert_eq!((clean.documents, clean.problems.len()), (3, 0));
    drop((pieces, a));
    let conn = rusqlite::Connection::open(dir.path().join("a.db")).unwrap();
    conn.execute("UPDATE projection SET json = '{\"title\":\"lie\"}' WHERE name = '1'", []).unwrap();
    let damage =
        "UPDATE change SET bytes = x'00' || substr(bytes, 2) WHERE id = (SELECT MAX(c.id) FROM change c
                  JOIN document d ON d.id = c.id >> 24 WHERE d.name = '2')";
    conn.execute(damage, []).unwrap();
    drop(conn);
    let a = Replica::open(dir.path().join("a.db")).unwrap();
    let found: Vec<_> =
        a.verify().unwrap().problems.into_iter().map(|problem| (problem.id.unwrap(), problem.kind)).collect();
    assert_eq!(found, [("1".into(), ProblemKind::Projection), ("2".into(), ProblemKind::Changes)]);
    let report = a.repair().unwrap();
    assert_eq!((report.problems.len(), report.fetched_again), (2, 1));
    assert!(a.verify().unwrap().problems.is_empty());
    assert_eq!(a.documents("pieces").get("1").unwrap().unwrap()["title"], "1");
    sync(&a, &relay.url());
    assert_eq!(a.documents("pieces").get("2").unwrap().unwrap()["lyrics"], "ʻelua\nʻekahi\n");
    assert!(a.verify().unwrap().problems.is_empty());
    assert_eq!(a.documents("pieces").search("elua", 10).unwrap().len(), 3);
}

#[test]
fn a_change_log_that_two_devices_take_up_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let relay = motet_tests::TestRelay::start(&dir.path().join("relay"));
    let devices = ["a", "b"].map(|name| motet_tests::device(dir.path(), name));
    let plays = |replica: &motet::Replica| {
        replica.documents("songs").get("1").unwrap().unwrap().value["plays"].clone()
    };
    for device in &devices {
        device
            .apply_schema(&motet::Schema::new().field("songs", "plays", motet::FieldKind::Counter))
            .unwrap();
    }
    for count in [5, 8, 3] {
        let log = serde_json::json!({
            "changes": { "songs": [{ "op": "upsert", "id": "1", "data": { "plays": count } }] }
        });
        for device in &devices {
            device.import_change_log_text(log.to_string().as_bytes(), motet::BadRows::RefuseAll).unwrap();
        }
        for device in devices.iter().chain(&devices) {
            motet_tests::sync(device, &relay.url());
        }
        assert_eq!(devices.each_ref().map(plays), [count, count]);
    }
}
