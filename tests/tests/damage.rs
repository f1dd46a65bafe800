//! Files that were damaged on purpose, row by row and page by page: no lie, nothing bad is sent, and whatever still exists anywhere
//! comes back.

use std::path::Path;

use motet::{ProblemKind, Relay, Replica};
use motet_relay::Config;
use motet_relay::auth::Auth;
use motet_tests::random::{Random, seed};
use motet_tests::{TestRelay, contents, copy_folder, device, sync};
use rusqlite::Connection;
use serde_json::json;

fn file(dir: &Path, name: &str) -> Connection {
    Connection::open(dir.join(format!("{name}.db"))).unwrap()
}

/// A relay that hands out what it has and takes nothing: what a device would send is sealed and waits.
fn full_relay(data: &Path) -> TestRelay {
    let mut config = Config::new(data);
    config.terms.limits.reserve_bytes = u64::MAX / 2;
    TestRelay::start_as(config)
}

fn try_to_sync(replica: &Replica, url: &str) {
    replica.connect(Relay::new(url)).unwrap();
    assert!(replica.sync_now().is_err());
    replica.disconnect();
}

/// What a device that comes new to a relay shows. It meets nothing that it cannot read.
fn fresh(dir: &Path, name: &str, url: &str) -> Vec<(String, String, serde_json::Value)> {
    let replica = device(dir, name);
    sync(&replica, url);
    assert_eq!(replica.quarantined(10).unwrap(), []);
    assert_eq!(replica.verify().unwrap().problems, []);
    shown(&replica)
}

fn shown(replica: &Replica) -> Vec<(String, String, serde_json::Value)> {
    contents(replica).into_iter().map(|(collection, id, _, value)| (collection, id, value)).collect()
}

const LAST_CHANGE: &str =
    "(SELECT MAX(c.id) FROM change c JOIN document d ON d.id = c.id >> 24 WHERE d.name = '7')";

/// Fifty songs that came as saved documents, and edits on top of them.
fn songs(dir: &Path, url: &str) -> (Replica, Replica) {
    let (a, b) = (device(dir, "a"), device(dir, "b"));
    for n in 0..50 {
        let lyrics = format!("Hiʻilawe {n}\n").repeat(60);
        b.documents("pieces").upsert(&n.to_string(), &json!({ "title": n, "lyrics": lyrics })).unwrap();
    }
    sync(&b, url);
    sync(&a, url);
    for n in 0..50 {
        a.documents("pieces").patch(&n.to_string(), &json!({ "note": format!("ʻekahi {n}") })).unwrap();
        a.documents("pieces").patch(&n.to_string(), &json!({ "place": n })).unwrap();
    }
    (a, b)
}

#[test]
fn a_damaged_change_takes_nothing_with_it_but_what_builds_on_it() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = songs(dir.path(), &relay.url());
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    let before = shown(&a);
    drop(a);
    let damage = format!("UPDATE change SET bytes = zeroblob(length(bytes)) WHERE id = {LAST_CHANGE}");
    assert_eq!(file(dir.path(), "a").execute(&damage, []).unwrap(), 1);
    let a = device(dir.path(), "a");
    let found = a.verify().unwrap().problems;
    assert_eq!(
        found.iter().map(|p| (p.id.as_deref(), p.kind)).collect::<Vec<_>>(),
        [(Some("7"), ProblemKind::Changes)]
    );
    let report = a.repair().unwrap();
    assert_eq!((report.fetched_again, report.left), (1, vec![]));
    // The song is there without its last change, and whole again after a sync; also a new relay gets all of it.
    let song = a.documents("pieces").get("7").unwrap().unwrap();
    assert_eq!((song["note"].clone(), song.value.get("place")), (json!("ʻekahi 7"), None));
    sync(&a, &relay.url());
    assert_eq!(shown(&a), before);
    let other = TestRelay::start(&dir.path().join("other"));
    sync(&a, &other.url());
    assert_eq!((a.status().pending, fresh(dir.path(), "c", &other.url())), (0, before));
}

#[test]
fn a_damaged_change_is_never_sent() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = songs(dir.path(), &relay.url());
    drop(a);
    let damage = format!(
        "UPDATE change SET bytes = substr(bytes, 1, 60) || x'ff' || substr(bytes, 62) WHERE id = {LAST_CHANGE}"
    );
    assert_eq!(file(dir.path(), "a").execute(&damage, []).unwrap(), 1);
    let a = device(dir.path(), "a");
    a.connect(Relay::new(&relay.url())).unwrap();
    a.sync_now().unwrap();
    assert_eq!(a.status().pending, 1);
    let status = a.documents("pieces").document("7").status().unwrap().unwrap();
    assert_eq!(status.error.unwrap().code, "storage-damaged");
    // Also not by a comparison.
    a.disconnect();
    a.compare_with_relay(Relay::new(&relay.url())).unwrap();
    sync(&b, &relay.url());
    assert_eq!(b.quarantined(10).unwrap(), []);
    let c = fresh(dir.path(), "c", &relay.url());
    assert_eq!(c.len(), 50);
    assert_ne!(a.verify().unwrap().problems, []);
    let report = a.repair().unwrap();
    assert_eq!((report.fetched_again, report.left), (1, vec![]));
    sync(&a, &relay.url());
    assert_eq!(a.status().pending, 0);
    // Its last change was nowhere else; all the rest is with everybody.
    sync(&b, &relay.url());
    assert_eq!(shown(&a), shown(&b));
    assert_eq!(b.documents("pieces").get("7").unwrap().unwrap()["note"], "ʻekahi 7");
}

#[test]
fn a_damaged_change_under_a_saved_document_is_written_anew_when_it_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    let lyrics = "Kūmaka ka ʻikena iā Hiʻilawe\n".repeat(40);
    a.documents("pieces").upsert("1", &json!({ "title": "Hiʻilawe", "lyrics": lyrics })).unwrap();
    let before = shown(&a);
    drop(a);
    let conn = file(dir.path(), "a");
    conn.execute("UPDATE change SET bytes = x'00'", []).unwrap();
    drop(conn);
    let a = device(dir.path(), "a");
    assert_eq!(a.verify().unwrap().problems[0].kind, ProblemKind::Changes);
    sync(&a, &relay.url());
    assert_eq!((a.status().pending, a.verify().unwrap().problems), (0, vec![]));
    assert_eq!(fresh(dir.path(), "b", &relay.url()), before);
}

#[test]
fn a_damaged_sealed_entry_is_sealed_again() {
    for column in ["sealed", "entry", "kind"] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("relay");
        let relay = full_relay(&data);
        let a = device(dir.path(), "a");
        for n in 0..3 {
            a.documents("pieces").upsert(&n.to_string(), &json!({ "title": "Hiʻilawe", "n": n })).unwrap();
        }
        try_to_sync(&a, &relay.url());
        a.documents("pieces").patch("1", &json!({ "later": true })).unwrap();
        let before = shown(&a);
        let port = relay.address().port();
        drop((a, relay));
        let conn = file(dir.path(), "a");
        let damage = format!(
            "UPDATE outbox SET {column} = x'2a' || substr({column}, 2) WHERE entry IS NOT NULL
             AND document = (SELECT id FROM document WHERE name = '1')"
        );
        assert_eq!(conn.execute(&damage, []).unwrap(), 1);
        drop(conn);
        let a = device(dir.path(), "a");
        let found = a.verify().unwrap().problems;
        assert_eq!(
            found.iter().map(|p| p.kind).collect::<Vec<_>>(),
            [ProblemKind::Outbox],
            "{column}: {found:?}"
        );
        let relay = TestRelay::start_with(&data, Auth::Local, port);
        let other = dir.path().join("copy.db");
        a.backup(&other).unwrap();
        // By the next sync, or by a repair before it.
        let copy = Replica::open(&other).unwrap();
        assert_eq!(copy.repair().unwrap().left, []);
        sync(&a, &relay.url());
        assert_eq!((a.status().pending, a.verify().unwrap().problems), (0, vec![]));
        assert_eq!(fresh(dir.path(), "b", &relay.url()), before);
        sync(&copy, &relay.url());
        assert_eq!((copy.status().pending, shown(&copy)), (0, before));
    }
}

#[test]
fn a_mark_alone_removes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    a.documents("pieces").upsert("1", &json!({ "title": "Hiʻilawe" })).unwrap();
    sync(&a, &relay.url());
    a.documents("pieces").patch("1", &json!({ "place": 3 })).unwrap();
    let before = shown(&a);
    drop(a);
    file(dir.path(), "a").execute("UPDATE projection SET purged = 1", []).unwrap();
    let a = device(dir.path(), "a");
    assert_eq!(a.verify().unwrap().problems[0].kind, ProblemKind::Projection);
    sync(&a, &relay.url());
    assert_eq!(shown(&a), before);
    assert_eq!(a.verify().unwrap().problems, []);
    // An edit clears nothing either.
    drop(a);
    file(dir.path(), "a").execute("UPDATE projection SET purged = 1", []).unwrap();
    let a = device(dir.path(), "a");
    a.documents("pieces").patch("1", &json!({ "place": 4 })).unwrap();
    assert_eq!(a.documents("pieces").get("1").unwrap().unwrap()["title"], "Hiʻilawe");
    sync(&a, &relay.url());
    assert_eq!(fresh(dir.path(), "b", &relay.url()), shown(&a));
}

/// How a value is damaged.
const WAYS: [&str; 6] = [
    "zeroblob(length(V))",
    "x''",
    "substr(V, 1, length(V) / 2)",
    "substr(V, 1, AT) || x'5a' || substr(V, AT + 2)",
    "V || x'00'",
    "CAST(V AS TEXT)",
];

/// What is damaged: a table, a column, and which of its rows.
const PLACES: [(&str, &str, &str); 16] = [
    ("change", "bytes", "1"),
    ("change", "bytes", "id & 0xffffff = 1"),
    ("change", "origin", "1"),
    ("snapshot", "bytes", "1"),
    ("snapshot", "bytes", "is_primary = 1"),
    ("snapshot", "upto", "1"),
    ("snapshot", "is_primary", "1"),
    ("projection", "heads", "1"),
    ("projection", "json", "1"),
    ("projection", "purged", "1"),
    ("projection", "deleted", "1"),
    ("projection", "name", "1"),
    ("document", "key", "1"),
    ("document", "name", "1"),
    ("outbox", "sealed", "entry IS NOT NULL"),
    ("outbox", "entry", "entry IS NOT NULL"),
];

/// Damages one value, or takes the row out. Returns the name of the document that it was about.
fn damage_row(conn: &Connection, random: &mut Random, what: (&str, &str, &str)) -> Option<String> {
    let (table, column, rows) = what;
    conn.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON").unwrap();
    let document = match table {
        "change" => "id >> 24",
        "document" => "id",
        _ => "document",
    };
    let sql = format!("SELECT rowid, {document} FROM {table} WHERE {rows}");
    let found = conn.prepare(&sql).unwrap();
    let mut found = found;
    let found: Vec<(i64, i64)> =
        found.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    let (row, document) = *found.get(random.below(found.len().max(1) as u64) as usize)?;
    let name =
        conn.query_row("SELECT name FROM document WHERE id = ?", [document], |row| row.get(0)).unwrap();
    let sql = format!("SELECT COALESCE(length({column}), 0) FROM {table} WHERE rowid = ?");
    let len: i64 = conn.query_row(&sql, [row], |row| row.get(0)).unwrap();
    let number = matches!(column, "origin" | "upto" | "is_primary" | "purged" | "deleted");
    let change = match random.below(WAYS.len() as u64 + 1) as usize {
        _ if number => {
            format!("UPDATE {table} SET {column} = (COALESCE({column}, 0) + 1) & 1 WHERE rowid = ?")
        }
        n if n < WAYS.len() => {
            let at = random.below(len.max(1) as u64);
            let way = WAYS[n].replace('V', column).replace("AT", &at.to_string());
            format!("UPDATE OR IGNORE {table} SET {column} = {way} WHERE rowid = ?")
        }
        _ => format!("DELETE FROM {table} WHERE rowid = ?"),
    };
    println!("  {name}: {change}");
    conn.execute(&change, [row]).unwrap();
    Some(name)
}

/// Every kind of row, damaged in every way: what anybody still has comes back, and nobody ever gets anything that cannot be read.
#[test]
fn whatever_row_is_damaged_nothing_spreads_and_what_exists_comes_back() {
    let mut random = Random(seed());
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let relay = TestRelay::start(&data);
    let b = device(dir.path(), "b");
    for n in 0..6 {
        let lyrics = format!("Hiʻilawe {n}\n").repeat(60);
        b.documents("pieces").upsert(&format!("b{n}"), &json!({ "title": n, "lyrics": lyrics })).unwrap();
    }
    sync(&b, &relay.url());
    let a = device(dir.path(), "a");
    sync(&a, &relay.url());
    for n in 0..6 {
        a.documents("pieces").upsert(&format!("a{n}"), &json!({ "title": n })).unwrap();
        for id in [format!("a{n}"), format!("b{n}")] {
            for place in 0..3 {
                a.documents("pieces").patch(&id, &json!({ "place": place })).unwrap();
            }
        }
    }
    sync(&a, &relay.url());
    let held = shown(&a);
    drop(relay);
    // Some edits are sealed and not sent, and some not even sealed.
    let relay = full_relay(&data);
    for id in ["a1", "b1", "new"] {
        a.documents("pieces").upsert(id, &json!({ "sealed": true })).unwrap();
    }
    try_to_sync(&a, &relay.url());
    let sealed = shown(&a);
    for id in ["a2", "b2"] {
        a.documents("pieces").patch(id, &json!({ "open": true })).unwrap();
    }
    let all = shown(&a);
    let port = relay.address().port();
    drop((a, b, relay));
    let rounds = motet_tests::random::runs(2 * PLACES.len());
    for round in 0..rounds {
        let dir_now = dir.path().join(format!("{round}"));
        std::fs::create_dir(&dir_now).unwrap();
        copy_folder(&data, &dir_now.join("relay"));
        std::fs::copy(dir.path().join("a.db"), dir_now.join("a.db")).unwrap();
        let what = PLACES[round % PLACES.len()];
        println!("round {round}: {what:?}");
        let conn = file(&dir_now, "a");
        let hit = damage_row(&conn, &mut random, what);
        drop(conn);
        let relay = TestRelay::start_with(&dir_now.join("relay"), Auth::Local, port);
        let a = device(&dir_now, "a");
        let said = a.verify().unwrap().problems;
        println!("  {said:?}");
        let sync_first = random.below(2) == 0;
        if sync_first {
            a.connect(Relay::new(&relay.url())).unwrap();
            _ = a.sync_now();
            a.disconnect();
            fresh(&dir_now, "early", &relay.url());
        }
        let report = a.repair().unwrap();
        assert_eq!(report.left, [], "sync first: {sync_first}");
        sync(&a, &relay.url());
        sync(&a, &relay.url());
        assert_eq!(a.verify().unwrap().problems, []);
        assert_eq!(a.status().pending, 0);
        let now = shown(&a);
        assert_eq!(fresh(&dir_now, "late", &relay.url()), now);
        for (collection, id, value) in &all {
            let found = now.iter().find(|(c, i, _)| c == collection && i == id).map(|(.., value)| value);
            // What was only in one place may be lost, if that is what was hit.
            let older = [&held, &sealed].map(|older| {
                older.iter().find(|(c, i, _)| c == collection && i == id).map(|(.., value)| value)
            });
            let was_hit = hit.as_deref() == Some(id);
            let only_copy = matches!(what.0, "change" | "document")
                && !sealed.iter().any(|s| s.1 == *id && s.2 == *value);
            let is_fine = found == Some(value)
                || (was_hit && (only_copy || what.0 == "document") && older.contains(&found));
            assert!(is_fine, "{id}: {found:?}, it was {value:?}; sync first: {sync_first}");
        }
        drop((a, relay));
        std::fs::remove_dir_all(&dir_now).unwrap();
    }
}

/// Pages of the database that are zeroed, full of noise, swapped or cut off: what can be read is kept, and the rest comes from the relay.
#[test]
fn whatever_page_is_damaged_the_rest_is_kept_and_what_is_lost_comes_again() {
    let mut random = Random(seed());
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let relay = TestRelay::start(&data);
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    for n in 0..120 {
        let who = if n % 2 == 0 { &a } else { &b };
        let lyrics = format!("Hiʻilawe {n}, kūmaka ka ʻikena\n").repeat(n % 13);
        who.documents("pieces").upsert(&n.to_string(), &json!({ "title": n, "lyrics": lyrics })).unwrap();
    }
    a.apply_schema(&motet::Schema::new().index("pieces", ["title"])).unwrap();
    for replica in [&b, &a] {
        sync(replica, &relay.url());
    }
    assert!(!a.documents("pieces").search("kumaka", 5).unwrap().is_empty());
    a.documents("pieces").delete("9").unwrap();
    sync(&a, &relay.url());
    let held = shown(&a);
    for n in 0..10 {
        a.documents("pieces").patch(&n.to_string(), &json!({ "later": true })).ok();
    }
    let all = shown(&a);
    let port = relay.address().port();
    drop((a, b, relay));
    let bytes = std::fs::read(dir.path().join("a.db")).unwrap();
    let pages = bytes.len() / 4096;
    let rounds = motet_tests::random::runs(24);
    let mut kept = 0;
    for round in 0..rounds {
        let dir_now = dir.path().join(format!("{round}"));
        std::fs::create_dir(&dir_now).unwrap();
        copy_folder(&data, &dir_now.join("relay"));
        let (mut damaged, page) = (bytes.clone(), 1 + random.below(pages as u64 - 1) as usize);
        let how = ["zeroed", "noise", "cut off", "swapped"][random.below(4) as usize];
        match how {
            "cut off" => {
                let cut = 1 + random.below(4096 * 3) as usize;
                println!("round {round}: {cut} bytes are cut off");
                damaged.truncate(bytes.len() - cut);
            }
            "swapped" => {
                let other = 1 + random.below(pages as u64 - 1) as usize;
                println!("round {round}: pages {} and {} of {pages} are swapped", page + 1, other + 1);
                (0..4096).for_each(|byte| damaged.swap(page * 4096 + byte, other * 4096 + byte));
            }
            _ => {
                println!("round {round}: page {} of {pages}, {how}", page + 1);
                damaged[page * 4096..(page + 1) * 4096]
                    .iter_mut()
                    .for_each(|byte| *byte = if how == "zeroed" { 0 } else { random.below(256) as u8 });
            }
        }
        std::fs::write(dir_now.join("a.db"), &damaged).unwrap();
        let open = || {
            let path = dir_now.join("a.db");
            Replica::builder(path).device_name("a").open()
        };
        let opened = open().or_else(|error| {
            println!("  {error}");
            Replica::salvage(dir_now.join("a.db")).and_then(|_| open())
        });
        let Ok(a) = opened else {
            // Where the tables are is not known any more: nothing is touched.
            assert_ne!(how, "cut off");
            assert_eq!(std::fs::read(dir_now.join("a.db")).unwrap(), damaged);
            continue;
        };
        kept += 1;
        let report = a.repair().unwrap();
        println!("  {} problems, written anew: {}", report.problems.len(), report.written_anew);
        assert_eq!(report.left, []);
        a.apply_schema(&motet::Schema::new().text("pieces", "lyrics").text("pieces", "notes")).unwrap();
        let relay = TestRelay::start_with(&dir_now.join("relay"), Auth::Local, port);
        a.connect(motet::Relay::new(&relay.url())).unwrap();
        let first = a.sync_now();
        a.disconnect();
        let a = match first {
            // Free pages are read only when they are needed: then it shows, and the file is written anew.
            Err(motet::SyncError::Storage(motet::StorageError::Damaged(reason))) => {
                println!("  {reason}");
                drop(a);
                Replica::salvage(dir_now.join("a.db")).unwrap();
                open().unwrap()
            }
            first => {
                first.unwrap();
                a
            }
        };
        sync(&a, &relay.url());
        sync(&a, &relay.url());
        // What was in a list of free pages shows when some of them have been used.
        let later = a.verify().unwrap().problems;
        if !later.is_empty() {
            println!("  {later:?}");
            assert!(later.iter().all(|problem| problem.kind == motet::ProblemKind::File));
            assert_eq!(a.repair().unwrap().left, []);
            sync(&a, &relay.url());
        }
        assert_eq!((a.verify().unwrap().problems, a.status().pending), (vec![], 0));
        let now = shown(&a);
        assert_eq!(fresh(&dir_now, "late", &relay.url()), now);
        assert_eq!(now.len(), held.len());
        for (found, was) in now.iter().zip(all.iter().zip(&held)) {
            assert!(found == was.0 || found == was.1, "{found:?}, it was {was:?}");
        }
        assert!(!a.documents("pieces").search("kumaka", 5).unwrap().is_empty());
        drop((a, relay));
        std::fs::remove_dir_all(&dir_now).unwrap();
    }
    assert!(kept * 4 > rounds * 3, "{kept} of {rounds}");
}
