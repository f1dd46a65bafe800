//! Rows of one document under another, whole and readable: nothing of them is shown, merged or sent there, before a repair and after it.

use std::collections::BTreeMap;
use std::path::Path;

use motet::{Replica, Schema};
use motet_tests::random::{Random, runs, seed};
use motet_tests::{TestRelay, contents, sync};
use rusqlite::Connection;
use serde_json::json;

const COLLECTIONS: [&str; 2] = ["songs", "diary"];

fn open(path: &Path) -> Replica {
    let replica = Replica::open(path).unwrap();
    replica.apply_schema(&Schema::new().text("songs", "lyrics").text("diary", "lyrics")).unwrap();
    replica.set_collection_sync("diary", false).unwrap();
    replica
}

/// Each document has its own word in everything that it holds.
fn word(collection: &str, id: &str) -> String {
    format!("ʻŌlelo-{collection}-{id}.")
}

fn shown(replica: &Replica) -> BTreeMap<(String, String), String> {
    let mut all = BTreeMap::new();
    for collection in COLLECTIONS {
        for record in replica.documents(collection).list().unwrap() {
            all.insert((collection.to_owned(), record.id.clone()), record.value.to_string());
        }
    }
    all
}

fn assert_apart(all: &BTreeMap<(String, String), String>) {
    for ((collection, id), text) in all {
        let others = all.keys().filter(|key| (&key.0, &key.1) != (collection, id));
        for (of, other) in others {
            assert!(
                !text.contains(&word(of, other)),
                "{collection}/{id} shows what is of {of}/{other}: {text}"
            );
        }
    }
}

fn write(replica: &Replica, random: &mut Random) {
    for collection in COLLECTIONS {
        for n in 0..4 {
            let id = n.to_string();
            let word = word(collection, &id);
            let lines = if n == 0 { 1 } else { 40 };
            let value = json!({ "id": id, "lyrics": format!("{word}\n").repeat(lines), "title": word });
            replica.documents(collection).insert(&value).unwrap();
            for edit in 0..1 + random.below(5) {
                let title = json!({ "title": format!("{word} {edit}") });
                replica.documents(collection).patch(&id, &title).unwrap();
            }
        }
    }
    replica.counts().unwrap();
}

/// Puts a row of one document under another. Says what was done.
fn move_rows(conn: &Connection, random: &mut Random) -> String {
    let count: i64 = conn.query_row("SELECT COUNT(*) FROM document", [], |row| row.get(0)).unwrap();
    let any = |most: usize, random: &mut Random| random.below(most as u64) as i64;
    let from = 1 + any(count as usize, random);
    let to = 1 + (from + any(count as usize - 1, random)) % count;
    let pick = |document: i64, random: &mut Random| -> i64 {
        let sql = "SELECT id FROM change WHERE id >> 24 = ? ORDER BY id";
        let ids: Vec<i64> = conn
            .prepare(sql)
            .unwrap()
            .query_map([document], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        ids[any(ids.len(), random) as usize]
    };
    let (row, place) = (pick(from, random), pick(to, random));
    let sql = match random.below(6) {
        0 => format!("UPDATE change SET bytes = (SELECT bytes FROM change WHERE id = {row}) WHERE id = {place}"),
        1 => format!(
            "CREATE TEMP TABLE moved AS SELECT id, bytes FROM change WHERE id IN ({row}, {place});
             UPDATE change SET bytes = (SELECT bytes FROM moved WHERE id <> change.id) WHERE id IN ({row}, {place}) AND {row} <> {place};
             DROP TABLE moved"
        ),
        2 => format!(
            "INSERT INTO change SELECT (SELECT MAX(id) + 1 FROM change WHERE id >> 24 = {to}), bytes, origin FROM change WHERE id = {row};
             UPDATE projection SET changes = changes + {} WHERE document = {to}",
            random.below(2)
        ),
        3 => format!("UPDATE OR REPLACE change SET id = {place} WHERE id = {row}"),
        4 => format!("UPDATE OR REPLACE snapshot SET document = {to} WHERE document = {from}"),
        _ => format!(
            "UPDATE snapshot SET bytes = COALESCE((SELECT bytes FROM snapshot WHERE document = {from}), bytes) WHERE document = {to}"
        ),
    };
    conn.execute_batch(&sql).unwrap();
    sql
}

/// Every change and saved document, and where it stands.
fn stored(conn: &Connection) -> Vec<(i64, Vec<u8>)> {
    let sql = "SELECT id, bytes FROM change UNION ALL SELECT -document, bytes FROM snapshot ORDER BY 1";
    let mut select = conn.prepare(sql).unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn rows_of_another_document_are_never_merged() {
    let mut random = Random(seed());
    for _ in 0..runs(60) {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let path = dir.path().join("a.db");
        let a = open(&path);
        write(&a, &mut random);
        sync(&a, &relay.url());
        let before = shown(&a);
        let id = random.below(4).to_string();
        if random.below(2) == 0 {
            let fresh = format!("{} hou\n", word("songs", &id));
            a.documents("songs").document(&id).splice_text("lyrics", 0, 0, &fresh).unwrap();
        }
        drop(a);
        let conn = Connection::open(&path).unwrap();
        if random.below(2) == 0 {
            conn.execute_batch("INSERT OR IGNORE INTO behind (document, at) SELECT id, 1 FROM document")
                .unwrap();
        }
        let rows = stored(&conn);
        let done: Vec<_> = (0..1 + random.below(3)).map(|_| move_rows(&conn, &mut random)).collect();
        let is_changed = stored(&conn) != rows;
        drop(conn);
        let a = open(&path);
        assert_eq!(is_changed, !a.verify().unwrap().problems.is_empty(), "{done:#?}");
        assert_apart(&shown(&a));
        if random.below(2) == 0 {
            // Whether it is repaired at once or only later, nothing spreads.
            _ = a.connect(motet::Relay::new(&relay.url()));
            _ = a.sync_now();
            a.disconnect();
        }
        a.repair().unwrap();
        assert_eq!(a.verify().unwrap().problems, [], "{done:#?}");
        assert_apart(&shown(&a));
        sync(&a, &relay.url());
        let now = shown(&a);
        assert_apart(&now);
        for (key, text) in before.iter().filter(|(key, _)| key.0 == "songs") {
            // An edit that no relay had may be lost with its row.
            let hou = format!("{} hou\\n", word(&key.0, &key.1));
            let found = now.get(key).map(|text| text.replace(&hou, ""));
            assert_eq!(found, Some(text.replace(&hou, "")), "{key:?} {done:#?}");
        }
        let fresh = open(&dir.path().join("fresh.db"));
        sync(&fresh, &relay.url());
        assert_apart(&shown(&fresh));
        let songs = |replica: &Replica| -> Vec<_> {
            contents(replica).into_iter().filter(|(collection, ..)| collection == "songs").collect()
        };
        assert_eq!(songs(&fresh), songs(&a), "{done:#?}");
    }
}
