//! Values in a device's file that no version of the library writes, in any column of any table: the file opens or is written anew, a
//! repair leaves nothing, everything that an app can call works again, and nothing of what is in documents is lost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use motet::{FieldKind, ProblemKind, Relay, Replica, Schema, SyncError};
use motet_proto::Kind;
use motet_relay::Config;
use motet_relay::auth::Auth;
use motet_tests::random::{Random, runs, seed};
use motet_tests::{TestRelay, contents, copy_folder, purge_song, raw, sync};
use rusqlite::Connection;
use serde_json::{Value, json};

/// Values as SQL has them, for whatever type a column has.
const ODD: &[&str] = &[
    "NULL",
    "0",
    "1",
    "-1",
    "3",
    "3000000000",
    "9223372036854775807",
    "-9223372036854775807",
    "1.5",
    "''",
    "'ʻodd'",
    "'null'",
    "'{\"a\":1}'",
    "CAST(x'ff27' AS TEXT)",
    "x''",
    "x'ff00'",
    "zeroblob(16)",
    "zeroblob(32)",
];

/// Songs with an edit that is nowhere else.
const UNSENT: &[&str] = &["a2", "a4", "new"];

fn schema() -> Schema {
    Schema::new()
        .text("songs", "lyrics")
        .field("songs", "plays", FieldKind::Counter)
        .field("songs", "tags", FieldKind::Set)
        .field("songs", "note", FieldKind::Local)
        .index("songs", ["title"])
        .local("diary")
        .local_ids("config", ["api_key"])
}

/// A file in which every table has rows, as far as an app can make them, and the relay that it syncs with.
fn make(dir: &Path, data: &Path) -> u16 {
    let relay = TestRelay::start(data);
    let (a, b) = (open(dir, "a"), open(dir, "b"));
    a.set_collection_sync("drafts", false).unwrap();
    for n in 0..5 {
        let song = json!({ "title": n, "lyrics": format!("Hiʻilawe {n}\n").repeat(60), "plays": 1, "tags": ["oli"] });
        b.documents("songs").upsert(&format!("b{n}"), &song).unwrap();
        a.documents("songs")
            .upsert(&format!("a{n}"), &json!({ "title": n, "note": "ʻaʻole", "plays": 2 }))
            .unwrap();
        a.documents("drafts").upsert(&n.to_string(), &json!({ "title": n })).unwrap();
        a.documents("old").upsert(&n.to_string(), &json!({ "title": n })).unwrap();
    }
    a.documents("diary").upsert("1", &json!({ "words": "naʻu wale nō" })).unwrap();
    a.documents("config").upsert("api_key", &json!({ "value": "hūnā" })).unwrap();
    a.documents("config").upsert("model", &json!({ "value": "m" })).unwrap();
    for replica in [&b, &a, &b] {
        sync(replica, &relay.url());
    }
    // Conflicts, deletes and purges on both sides.
    for (n, replica) in [&a, &b].into_iter().enumerate() {
        replica.documents("songs").patch("b0", &json!({ "title": format!("inoa {n}") })).unwrap();
        replica.documents("songs").patch("a0", &json!({ "title": { "of": n } })).unwrap();
        let gone = format!("{}1", ["a", "b"][n]);
        purge_song(replica, &gone);
    }
    a.documents("songs").delete("b2").unwrap();
    for replica in [&b, &a, &b, &a] {
        sync(replica, &relay.url());
    }
    a.erase_remote("old").unwrap();
    a.create_restore_point("ma mua").unwrap();
    a.documents("songs").patch("a3", &json!({ "title": "hana hou" })).unwrap();
    a.undo().unwrap();
    a.set_setting("theme", Some("pō")).unwrap();
    for n in 0..70 {
        a.documents("songs").patch("a3", &json!({ "place": n })).unwrap();
    }
    raw::push(&relay.url(), vec![raw::entry("none", Kind::Changes, b"no changes".to_vec())]);
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    assert_eq!(a.quarantined(10).unwrap().len(), 1);
    let port = relay.address().port();
    drop(relay);
    // Some edits are sealed and not sent, and one is not even sealed.
    let mut config = Config::new(data);
    config.terms.limits.reserve_bytes = u64::MAX / 2;
    let full = TestRelay::start_as(config);
    a.documents("songs").patch("a2", &json!({ "sealed": true })).unwrap();
    a.documents("songs").upsert("new", &json!({ "title": "hou" })).unwrap();
    a.connect(Relay::new(&full.url())).unwrap();
    assert!(a.sync_now().is_err());
    a.disconnect();
    a.documents("songs").patch("a4", &json!({ "open": true })).unwrap();
    a.counts().unwrap();
    port
}

/// All columns of all tables, without those of the full-text indexes.
fn columns(conn: &Connection) -> Vec<(String, String)> {
    let sql = "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c
               WHERE t.type = 'table' AND t.name NOT GLOB 'search:*' ORDER BY 1, 2";
    let mut statement = conn.prepare(sql).unwrap();
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    found.map(Result::unwrap).collect()
}

/// Puts something else into one column of one row. Says whether that could be written at all.
fn damage(conn: &Connection, (table, column): &(String, String), value: &str, random: &mut Random) -> bool {
    conn.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON").unwrap();
    let sql = "SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk";
    let mut statement = conn.prepare(sql).unwrap();
    let keys: Vec<String> =
        statement.query_map([table], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let key = if keys.is_empty() { "rowid".to_owned() } else { keys.join(", ") };
    let rows: u64 = conn
        .query_row(&format!("SELECT COUNT(*) FROM \"{table}\""), [], |row| row.get::<_, i64>(0))
        .unwrap() as u64;
    let (row, other) = (random.below(rows.max(1)), random.below(rows.max(1)));
    let way = random.below(12);
    let place = format!("({key}) = (SELECT {key} FROM \"{table}\" ORDER BY {key} LIMIT 1 OFFSET {row})");
    // What is declared, and what the user has chosen, stands nowhere else: another one that makes sense cannot be told from it.
    let is_choice = matches!(&**table, "collection" | "excluded");
    let mut odd = || ODD[random.below(ODD.len() as u64) as usize];
    if rows == 0 || way == 2 && !is_choice {
        let sql = "SELECT COUNT(*) FROM pragma_table_info(?)";
        let columns: i64 = conn.query_row(sql, [table], |row| row.get(0)).unwrap();
        let values = (0..columns).map(|_| odd()).collect::<Vec<_>>().join(", ");
        let sql = format!("INSERT OR IGNORE INTO \"{table}\" VALUES ({values})");
        println!("  {sql}");
        return conn.execute(&sql, []).is_ok_and(|rows| rows > 0);
    }
    let sql = match way {
        0 | 1 if is_choice => return false,
        0 => format!("DELETE FROM \"{table}\" WHERE {place}"),
        // What stands in another row.
        1 => format!(
            "UPDATE OR IGNORE \"{table}\" SET \"{column}\" = (SELECT \"{column}\" FROM \"{table}\" LIMIT 1 OFFSET {other})
             WHERE {place}"
        ),
        _ => format!("UPDATE OR IGNORE \"{table}\" SET \"{column}\" = {value} WHERE {place}"),
    };
    println!("  {sql} of {rows}");
    conn.execute(&sql, []).is_ok_and(|rows| rows > 0)
}

fn shown(replica: &Replica, collections: &[&str]) -> Vec<(String, String, Value)> {
    let all = contents(replica).into_iter();
    all.filter(|(collection, ..)| collections.contains(&&**collection))
        .map(|(collection, id, _, value)| (collection, id, value))
        .collect()
}

/// What an app may ask for. Nothing of it is hidden by one odd row.
fn read_all(a: &Replica) {
    a.counts().unwrap();
    a.status();
    a.collections().unwrap();
    a.restore_points().unwrap();
    a.quarantined(10).unwrap();
    a.traffic(10).unwrap();
    a.pending_documents(10).unwrap();
    a.unsynced_collections().unwrap();
    a.last_synced_at("songs").unwrap();
    a.account().unwrap();
    a.setting("theme").unwrap();
    a.changed_after(0, 100).unwrap();
    for (collection, id) in a.conflicted_documents(true).unwrap() {
        a.documents(&collection).document(&id).conflicts().unwrap();
    }
    for id in ["a0", "a3", "b0", "new"] {
        a.documents("songs").document(id).status().unwrap();
        a.documents("songs").document(id).history(10).unwrap();
    }
    a.documents("songs").trash().unwrap();
    a.documents("songs").search("hiilawe", 5).unwrap();
}

/// Opens a file as an app does, and writes it anew if that is needed for it.
fn open(dir: &Path, name: &str) -> Replica {
    let path = dir.join(format!("{name}.db"));
    let open = || Replica::builder(&path).device_name(name).open();
    let opened = open().or_else(|error| {
        println!("  not opened: {error}");
        assert!(error.to_string().contains("damaged"), "{error}");
        Replica::salvage(&path).and_then(|_| open())
    });
    let a = opened.unwrap();
    a.apply_schema(&schema()).unwrap();
    a
}

/// A document without what stays on the device.
fn without_local((collection, id, mut value): (String, String, Value)) -> (String, String, Value) {
    match &*collection {
        "diary" => value = Value::Null,
        "config" if id == "api_key" => value = Value::Null,
        _ => _ = value.as_object_mut().unwrap().remove("note"),
    }
    (collection, id, value)
}

struct Before {
    shared: Vec<(String, String, Value)>,
    own: Vec<(String, String, Value)>,
}

fn try_damage(dir: &Path, what: &(String, String), random: &mut Random, before: &Before, port: u16) {
    let value = ODD[random.below(ODD.len() as u64) as usize];
    let conn = Connection::open(dir.join("a.db")).unwrap();
    if !damage(&conn, what, value, random) {
        return;
    }
    drop(conn);
    let sync_first = random.below(2) == 0;
    let relay = TestRelay::start_with(&dir.join("relay"), Auth::Local, port);
    let a = open(dir, "a");
    println!("  {:?}", a.verify().unwrap().problems);
    if sync_first {
        let synced = a.connect(Relay::new(&relay.url())).and_then(|()| a.sync_now());
        if let Err(error) = synced {
            println!("  sync: {error}");
            assert!(matches!(error, SyncError::Storage(_)), "{error:?}");
        }
        a.disconnect();
    }
    let report = a.repair().unwrap();
    assert_eq!(report.left, [], "sync first: {sync_first}");
    // An app declares what it knows whenever it starts.
    drop(a);
    let a = open(dir, "a");
    sync(&a, &relay.url());
    sync(&a, &relay.url());
    assert_eq!((a.verify().unwrap().problems, a.status().pending), (vec![], 0));
    read_all(&a);
    // What was nowhere else may be lost, if that is what was hit.
    let is_certain = |(collection, id, value): (String, String, Value)| match &*what.0 {
        "change" | "snapshot" if collection != "songs" || UNSENT.contains(&&*id) => None,
        "local_field" => Some(without_local((collection, id, value))),
        _ => Some((collection, id, value)),
    };
    let certain = |documents: Vec<_>| documents.into_iter().filter_map(is_certain).collect::<Vec<_>>();
    assert_eq!(certain(shown(&a, &["songs"])), certain(before.shared.clone()), "sync first: {sync_first}");
    let own = shown(&a, &["config", "diary", "drafts", "old"]);
    assert_eq!(certain(own), certain(before.own.clone()), "sync first: {sync_first}");
    // Work goes on, here and elsewhere.
    a.documents("songs").patch("b0", &json!({ "later": true })).unwrap();
    a.undo().unwrap();
    a.redo().unwrap();
    sync(&a, &relay.url());
    let c = open(dir, "c");
    sync(&c, &relay.url());
    let shared = shown(&a, &["songs"]);
    let shared: Vec<_> = shared.into_iter().map(without_local).collect();
    assert_eq!(shown(&c, &["songs"]), shared);
    assert_eq!(shown(&c, &["config"]).len(), 1);
    assert_eq!(shown(&c, &["diary"]), []);
    if what.0 != "excluded" {
        assert_eq!(shown(&c, &["drafts"]), []);
    }
}

#[test]
fn whatever_a_row_holds_the_file_can_be_repaired_and_shows_what_it_did() {
    let mut random = Random(seed());
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let port = make(dir.path(), &data);
    let before = {
        let a = Replica::open(dir.path().join("a.db")).unwrap();
        let own = shown(&a, &["config", "diary", "drafts", "old"]);
        Before { shared: shown(&a, &["songs"]), own }
    };
    let columns = columns(&Connection::open(dir.path().join("a.db")).unwrap());
    let first = random.below(columns.len() as u64) as usize;
    let mut failed = Vec::new();
    for round in 0..runs(40) {
        let what = &columns[(first + round * 7) % columns.len()];
        println!("round {round}: {what:?}");
        let dir_now = dir.path().join(format!("{round}"));
        std::fs::create_dir(&dir_now).unwrap();
        copy_folder(&data, &dir_now.join("relay"));
        std::fs::copy(dir.path().join("a.db"), dir_now.join("a.db")).unwrap();
        let attempt = || try_damage(&dir_now, what, &mut random, &before, port);
        if catch_unwind(AssertUnwindSafe(attempt)).is_err() {
            failed.push((round, what));
        }
        // A thread of a replica that is closed may still make a file: it leaves with the whole folder.
        _ = std::fs::remove_dir_all(&dir_now);
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Found by MOTET_SEED=1796039267671315803.
#[test]
fn what_a_document_shows_is_no_utf_8() {
    for damage in ["CAST(x'ff27' AS TEXT)", "CAST(replace(CAST(json AS BLOB), x'74', x'ff') AS TEXT)"] {
        let dir = tempfile::tempdir().unwrap();
        let a = open(dir.path(), "a");
        for n in 0..2 {
            a.documents("diary").upsert(&format!("{n}"), &json!({ "title": n })).unwrap();
            a.documents("drafts").upsert(&format!("{n}"), &json!({ "title": n })).unwrap();
        }
        let before = contents(&a);
        drop(a);
        let conn = Connection::open(dir.path().join("a.db")).unwrap();
        assert_eq!(conn.execute(&format!("UPDATE projection SET json = {damage}"), []).unwrap(), 4);
        drop(conn);
        let a = open(dir.path(), "a");
        let problems = a.verify().unwrap().problems;
        let kinds: Vec<_> = problems.iter().map(|problem| problem.kind).collect();
        assert_eq!(kinds, [ProblemKind::Projection; 4], "{problems:?}");
        assert_eq!(a.repair().unwrap().left, []);
        assert_eq!(contents(&a), before);
    }
}

/// Found by MOTET_SEED=6.
#[test]
fn something_waits_to_be_sent_under_numbers_that_nothing_has() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = open(dir.path(), "a");
    a.documents("songs").upsert("1", &json!({ "title": "Hoʻi" })).unwrap();
    sync(&a, &relay.url());
    a.documents("songs").upsert("2", &json!({ "title": "Hoʻi hou" })).unwrap();
    drop(a);
    let conn = Connection::open(dir.path().join("a.db")).unwrap();
    conn.execute_batch(
        "PRAGMA foreign_keys = OFF;
         INSERT INTO outbox (id, remote, document, op, since, first_change)
         VALUES (-5, (SELECT id FROM remote), 700, 1, 0, 0), (-4, 9, 1, 1, 0, 0)",
    )
    .unwrap();
    drop(conn);
    let a = open(dir.path(), "a");
    assert_eq!(a.repair().unwrap().left, []);
    sync(&a, &relay.url());
    assert_eq!(a.status().pending, 0);
    let b = open(dir.path(), "b");
    sync(&b, &relay.url());
    assert_eq!(contents(&b), contents(&a));
}

/// Found by MOTET_SEED=11.
#[test]
fn what_waits_to_be_sent_stands_under_the_number_of_another_document() {
    for is_repaired in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let a = open(dir.path(), "a");
        for n in 0..3 {
            a.documents("songs").upsert(&n.to_string(), &json!({ "title": n })).unwrap();
        }
        sync(&a, &relay.url());
        a.documents("songs").patch("2", &json!({ "title": "Hoʻi hou" })).unwrap();
        a.counts().unwrap();
        drop(a);
        let conn = Connection::open(dir.path().join("a.db")).unwrap();
        assert_eq!(conn.execute("UPDATE outbox SET document = 1", []).unwrap(), 1);
        drop(conn);
        let a = open(dir.path(), "a");
        if is_repaired {
            assert_eq!(a.repair().unwrap().left, []);
        }
        sync(&a, &relay.url());
        assert_eq!((a.status().pending, a.verify().unwrap().problems), (0, vec![]));
        if is_repaired {
            let b = open(dir.path(), "b");
            sync(&b, &relay.url());
            assert_eq!(contents(&b), contents(&a));
        }
    }
}

/// The full-text index is made of the documents: damage of it is no reason to find nothing.
#[test]
fn a_damaged_full_text_index_is_made_anew() {
    for damage in [
        "UPDATE \"{}_config\" SET v = 99 WHERE k = 'version'",
        "DELETE FROM \"{}_config\"",
        "UPDATE \"{}_data\" SET block = x'00' WHERE id = 1",
        "UPDATE \"{}_data\" SET block = x'ffffffffff' WHERE id = 10",
        "DELETE FROM \"{}_data\"",
        "DELETE FROM \"{}_idx\"",
        "UPDATE \"{}_docsize\" SET sz = x''",
        "DROP TABLE \"{}_data\"",
        "DROP TABLE \"{}_config\"",
    ] {
        for how in ["search", "write", "repair"] {
            println!("{damage}, then {how}");
            let dir = tempfile::tempdir().unwrap();
            let a = open(dir.path(), "a");
            for n in 0..20 {
                a.documents("songs")
                    .upsert(&n.to_string(), &json!({ "title": format!("mele {n}") }))
                    .unwrap();
            }
            a.documents("diary").upsert("1", &json!({ "words": "naʻu" })).unwrap();
            assert_eq!(a.documents("songs").search("mele", 50).unwrap().len(), 20);
            assert_eq!(a.documents("diary").search("nau", 50).unwrap().len(), 1);
            drop(a);
            let conn = Connection::open(dir.path().join("a.db")).unwrap();
            let sql = "SELECT name FROM sqlite_schema WHERE sql LIKE 'CREATE VIRTUAL%'";
            let mut indexes = conn.prepare(sql).unwrap();
            let names = indexes.query_map([], |row| row.get(0)).unwrap();
            let names: Vec<String> = names.map(Result::unwrap).collect();
            drop(indexes);
            for name in names {
                conn.execute(&damage.replace("{}", &name), []).unwrap();
            }
            drop(conn);
            let a = open(dir.path(), "a");
            match how {
                "repair" => assert_eq!(a.repair().unwrap().left, []),
                "write" => {
                    a.documents("diary").delete("1").unwrap();
                    a.documents("songs").upsert("20", &json!({ "title": "mele hou" })).unwrap();
                    a.documents("songs").delete("20").unwrap();
                }
                _ => {}
            }
            assert_eq!(a.documents("songs").search("mele", 50).unwrap().len(), 20);
            assert_eq!(a.verify().unwrap().problems, []);
        }
    }
}

/// It may have said that something stays on the device, so nothing leaves before the app has said it again.
#[test]
fn what_was_declared_and_cannot_be_read_lets_nothing_leave() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = open(dir.path(), "a");
    a.documents("diary").upsert("1", &json!({ "words": "naʻu wale nō" })).unwrap();
    a.documents("songs").upsert("1", &json!({ "title": "Hoʻi", "note": "hūnā", "plays": 1 })).unwrap();
    drop(a);
    let conn = Connection::open(dir.path().join("a.db")).unwrap();
    conn.execute("UPDATE collection SET schema = CAST(x'7bff' AS TEXT)", []).unwrap();
    drop(conn);
    let without = || Replica::builder(dir.path().join("a.db")).device_name("a").open().unwrap();
    // Before a repair, and after it, by something that declares nothing.
    for is_repaired in [false, true] {
        let a = without();
        if is_repaired {
            let kinds: Vec<_> =
                a.verify().unwrap().problems.into_iter().map(|problem| problem.kind).collect();
            assert_eq!(kinds, [ProblemKind::Rows; 3]);
            assert_eq!(a.repair().unwrap().left, []);
        }
        a.documents("diary").upsert(&format!("more {is_repaired}"), &json!({ "words": "hou" })).unwrap();
        a.documents("songs").patch("1", &json!({ "place": is_repaired })).unwrap();
        sync(&a, &relay.url());
        assert_eq!(a.documents("diary").get("1").unwrap().unwrap()["words"], "naʻu wale nō");
        drop(a);
    }
    let b = open(dir.path(), "b");
    sync(&b, &relay.url());
    assert_eq!(contents(&b), []);
    // The app knows what stays.
    let a = open(dir.path(), "a");
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    let song = json!({ "id": "1", "title": "Hoʻi", "plays": 1, "place": true });
    assert_eq!(shown(&b, &["songs", "diary"]), [("songs".into(), "1".into(), song)]);
    assert_eq!(a.documents("songs").get("1").unwrap().unwrap()["note"], "hūnā");
    assert_eq!(a.documents("diary").list().unwrap().len(), 3);
}

#[test]
fn a_document_under_two_numbers_becomes_one() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    for number in [2, 7000] {
        let a = open(dir.path(), &format!("a{number}"));
        for n in 0..3 {
            a.documents("songs")
                .upsert(&format!("{number}-{n}"), &json!({ "title": n, "note": "hūnā" }))
                .unwrap();
            a.documents("songs").patch(&format!("{number}-{n}"), &json!({ "place": n })).unwrap();
        }
        let before = shown(&a, &["songs"]);
        drop(a);
        let conn = Connection::open(dir.path().join(format!("a{number}.db"))).unwrap();
        conn.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        // What had the number is under another one, and, of the second, nothing is left of what had that.
        conn.execute("DELETE FROM document WHERE id = ?", [number]).unwrap();
        conn.execute("UPDATE document SET id = ? WHERE id = 1", [number]).unwrap();
        drop(conn);
        let a = open(dir.path(), &format!("a{number}"));
        assert!(!a.verify().unwrap().problems.is_empty());
        assert_eq!(a.repair().unwrap().left, []);
        assert_eq!(shown(&a, &["songs"]), before);
        sync(&a, &relay.url());
        let b = open(dir.path(), &format!("b{number}"));
        sync(&b, &relay.url());
        assert_eq!(b.documents("songs").list().unwrap().len(), if number == 2 { 3 } else { 6 });
    }
}

/// Fills the first page of a table with zeros.
fn zero_root(path: &Path, table: &str) {
    let conn = Connection::open(path).unwrap();
    motet_tests::empty_log(&conn);
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?";
    let page: i64 = conn.query_row(sql, [table], |row| row.get(0)).unwrap();
    drop(conn);
    let mut bytes = std::fs::read(path).unwrap();
    bytes[(page as usize - 1) * 4096..page as usize * 4096].fill(0);
    std::fs::write(path, bytes).unwrap();
}

/// Opens a file by something that declares nothing, and writes it anew if that is needed for it.
fn open_undeclared(path: &Path) -> Replica {
    let open = || Replica::builder(path).device_name("a").open();
    open().or_else(|_| Replica::salvage(path).and_then(|_| open())).unwrap()
}

/// Which collections are switched off, what is declared, whose the data is: what cannot be read of it is not taken for absent.
#[test]
fn what_restricts_and_is_damaged_lets_nothing_leave() {
    let damages = [
        ("excluded", Some("UPDATE excluded SET collection = CAST(x'6472ff667473' AS TEXT)")),
        ("excluded", None),
        ("collection", Some("UPDATE collection SET name = CAST(x'6469ff7279' AS TEXT) WHERE name = 'diary'")),
        (
            "collection",
            Some("UPDATE collection SET name = CAST(x'6469ff7279' AS TEXT) WHERE name = 'config'"),
        ),
        ("collection", Some("UPDATE collection SET name = CAST(x'6469ff7279' AS TEXT) WHERE name = 'songs'")),
        ("collection", None),
        ("meta", Some("UPDATE meta SET value = CAST(x'ff41' AS TEXT) WHERE key = 'account'")),
        ("meta", Some("UPDATE meta SET value = 'zz' WHERE key = 'account'")),
        ("meta", Some("UPDATE meta SET value = '' WHERE key = 'account'")),
        ("meta", None),
    ];
    for (table, damage) in damages {
        println!("{table}: {damage:?}");
        let dir = tempfile::tempdir().unwrap();
        let tokens = "t-hana -> hana\nt-kai -> kai\n";
        let relay = TestRelay::start_for(&dir.path().join("relay"), tokens);
        let connect = |replica: &Replica, token: &str| {
            replica.connect(Relay::new(&relay.url()).token(token)).unwrap();
            let synced = replica.sync_now();
            replica.disconnect();
            synced
        };
        let a = open(dir.path(), "a");
        a.set_collection_sync("drafts", false).unwrap();
        a.documents("drafts").upsert("1", &json!({ "words": "kūloko" })).unwrap();
        a.documents("diary").upsert("1", &json!({ "words": "kūloko" })).unwrap();
        a.documents("config").upsert("api_key", &json!({ "value": "kūloko" })).unwrap();
        a.documents("songs").upsert("1", &json!({ "title": "Hoʻi", "note": "kūloko" })).unwrap();
        connect(&a, "t-hana").unwrap();
        drop(a);
        let path = dir.path().join("a.db");
        match damage {
            Some(sql) => {
                Connection::open(&path).unwrap().execute(sql, []).unwrap();
            }
            None => zero_root(&path, table),
        }
        let a = open_undeclared(&path);
        assert_eq!(a.repair().unwrap().left, []);
        a.documents("drafts").patch("1", &json!({ "more": "kūloko" })).unwrap();
        a.documents("diary").patch("1", &json!({ "more": "kūloko" })).unwrap();
        a.documents("config").patch("api_key", &json!({ "more": "kūloko" })).unwrap();
        a.documents("songs").patch("1", &json!({ "note": "kūloko hou" })).unwrap();
        // Another account gets nothing, and the own one is known again by its log.
        if table == "meta" {
            let error = connect(&a, "t-kai").unwrap_err();
            assert!(error.to_string().contains("account"), "{error}");
        }
        connect(&a, "t-hana").unwrap();
        connect(&a, "t-kai").unwrap_err();
        let b = Replica::open(dir.path().join("b.db")).unwrap();
        connect(&b, "t-hana").unwrap();
        let all = shown(&b, &["songs", "drafts", "diary", "config"]);
        assert_eq!(all, [("songs".into(), "1".into(), json!({ "id": "1", "title": "Hoʻi" }))]);
        let c = Replica::open(dir.path().join("c.db")).unwrap();
        connect(&c, "t-kai").unwrap();
        assert_eq!(contents(&c), []);
    }
}

/// A restore point that lacks documents would remove them.
#[test]
fn a_damaged_restore_point_removes_nothing() {
    for damage in [None, Some("UPDATE restore_point_document SET heads = x'00' WHERE document = 2")] {
        let dir = tempfile::tempdir().unwrap();
        let a = open(dir.path(), "a");
        for n in 0..3 {
            a.documents("songs").upsert(&n.to_string(), &json!({ "title": n })).unwrap();
        }
        a.create_restore_point("ma mua").unwrap();
        let before = shown(&a, &["songs"]);
        drop(a);
        let path = dir.path().join("a.db");
        match damage {
            Some(sql) => assert_eq!(Connection::open(&path).unwrap().execute(sql, []).unwrap(), 1),
            None => zero_root(&path, "restore_point_document"),
        }
        let a = open_undeclared(&path);
        assert_eq!(a.repair().unwrap().left, []);
        assert!(a.restore_point("ma mua", None).is_err());
        assert_eq!(shown(&a, &["songs"]), before);
    }
}

/// What was purged before there was a relay does not come back without its words when its projection is lost.
#[test]
fn what_was_purged_stays_away_without_its_projection() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), "a");
    for id in ["1", "2"] {
        a.documents("songs").upsert(id, &json!({ "lyrics": "Hiʻilawe" })).unwrap();
    }
    purge_song(&a, "1");
    drop(a);
    let conn = Connection::open(dir.path().join("a.db")).unwrap();
    assert_eq!(conn.execute("DELETE FROM projection WHERE name = '1'", []).unwrap(), 1);
    drop(conn);
    let a = open(dir.path(), "a");
    assert_ne!(a.verify().unwrap().problems, []);
    assert_eq!(a.repair().unwrap().left, []);
    assert!(a.documents("songs").get("1").unwrap().is_none());
    assert_eq!(a.documents("songs").get("2").unwrap().unwrap()["lyrics"], "Hiʻilawe");
    assert_eq!((a.counts().unwrap().documents, a.documents("songs").trash().unwrap().len()), (1, 0));
    assert_eq!(a.verify().unwrap().problems, []);
}

/// Where a relay tells no accounts apart, none was lost.
#[test]
fn what_is_lost_is_no_account_where_there_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = open(dir.path(), "a");
    a.documents("songs").upsert("1", &json!({ "lyrics": "Hiʻilawe" })).unwrap();
    sync(&a, &relay.url());
    assert_eq!(a.account().unwrap(), None);
    drop(a);
    let conn = Connection::open(dir.path().join("a.db")).unwrap();
    let damage =
        "UPDATE meta SET key = zeroblob(32) WHERE key = (SELECT key FROM meta ORDER BY key DESC LIMIT 1)";
    assert_eq!(conn.execute(damage, []).unwrap(), 1);
    drop(conn);
    let a = open(dir.path(), "a");
    assert_eq!(a.repair().unwrap().left, []);
    sync(&a, &relay.url());
    assert_eq!(a.account().unwrap(), None);
}

/// Marks and numbers beside a document hide nothing of it.
#[test]
fn numbers_and_marks_that_are_wrong_hide_nothing() {
    for damage in [
        "UPDATE projection SET purged = 1 WHERE collection = 'diary'",
        "UPDATE projection SET purged = 1, deleted = 1 WHERE collection = 'diary'",
        "UPDATE projection SET deleted = 1 WHERE collection = 'diary'",
        "UPDATE local_field SET json = '{'",
        "UPDATE local_field SET json = '[]'",
        "UPDATE snapshot SET upto = upto + 1",
        "UPDATE snapshot SET upto = upto + 1000",
        "UPDATE snapshot SET upto = 0",
    ] {
        println!("{damage}");
        let dir = tempfile::tempdir().unwrap();
        let a = open(dir.path(), "a");
        a.documents("diary").upsert("1", &json!({ "words": "kūloko" })).unwrap();
        let lyrics = "Kūmaka ka ʻikena iā Hiʻilawe\n".repeat(40);
        a.documents("songs").upsert("1", &json!({ "lyrics": lyrics, "note": "kūloko" })).unwrap();
        for n in 0..3 {
            a.documents("songs").patch("1", &json!({ "place": n })).unwrap();
        }
        let before = contents(&a);
        drop(a);
        let conn = Connection::open(dir.path().join("a.db")).unwrap();
        assert!(conn.execute(damage, []).unwrap() > 0);
        drop(conn);
        let a = open(dir.path(), "a");
        let is_harmless = damage.ends_with("= 0");
        assert_eq!(a.verify().unwrap().problems.is_empty(), is_harmless);
        assert_eq!(a.repair().unwrap().left, []);
        assert_eq!(contents(&a), before);
        a.documents("songs").patch("1", &json!({ "place": 7 })).unwrap();
        drop(a);
        let a = open(dir.path(), "a");
        assert_eq!(a.documents("songs").get("1").unwrap().unwrap()["place"], 7);
        assert_eq!(a.verify().unwrap().problems, []);
    }
}

/// The journal is made of what documents say: what is missing in it, or too much, is found.
#[test]
fn a_journal_that_does_not_fit_its_document_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (open(dir.path(), "a"), open(dir.path(), "b"));
    a.documents("songs").upsert("1", &json!({ "title": "Hoʻi" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    for (n, replica) in [&a, &b].into_iter().enumerate() {
        replica.documents("songs").patch("1", &json!({ "title": n })).unwrap();
        sync(replica, &relay.url());
    }
    sync(&a, &relay.url());
    let known = a.documents("songs").document("1").conflicts().unwrap();
    assert_eq!((known.len(), a.counts().unwrap().conflicts), (1, 1));
    drop(a);
    for damage in [
        "DELETE FROM conflict",
        "UPDATE projection SET conflicts = 0",
        "UPDATE projection SET conflicts = 7",
        "INSERT INTO conflict (document, path, op, winner, loser, time, noticed_at) VALUES (1, '/nothing', 'zz', '1', '2', 0, 0)",
    ] {
        let conn = Connection::open(dir.path().join("a.db")).unwrap();
        assert!(conn.execute(damage, []).unwrap() > 0);
        drop(conn);
        let a = open(dir.path(), "a");
        assert_eq!(a.verify().unwrap().problems.len(), 1, "{damage}");
        assert_eq!(a.repair().unwrap().left, []);
        let open: Vec<_> = a
            .documents("songs")
            .document("1")
            .conflicts()
            .unwrap()
            .into_iter()
            .filter(|row| !row.settled)
            .collect();
        assert_eq!((open.len(), a.counts().unwrap().conflicts), (1, 1), "{damage}");
        assert_eq!((&open[0].path, &open[0].loser), (&known[0].path, &known[0].loser));
    }
}
