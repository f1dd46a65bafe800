//! What has left the log of a relay, and what only looks like it: `verify` tells one from the other, and what was lost comes again from
//! the devices.

use std::path::{Path, PathBuf};

use motet_relay::auth::Auth;
use motet_relay::store::LogStore;
use motet_relay::store::sqlite::{SqliteStore, care};
use motet_tests::random::Random;
use motet_tests::relay_file::{at_rest, fill, pieces};
use motet_tests::{TestRelay, device, singer, sync};
use rusqlite::Connection;
use serde_json::json;

/// How an entry is made to look as if it had left; `?1` is its row.
const WAYS: [&str; 7] = [
    "UPDATE entry SET document = x'', device = x'', kind = x'', suite = 0, payload = x'' WHERE id = ?1",
    "UPDATE entry SET document = x'', device = x'', kind = x'', payload = x'' WHERE id = ?1",
    // It names one behind it that has nothing to do with it.
    "UPDATE entry SET document = x'', device = x'', kind = x'', payload = x'',
       suite = (SELECT MAX(id) & 0xffffffffff FROM entry WHERE kind = x'820080') WHERE id = ?1",
    "UPDATE entry SET kind = x'', payload = x'' WHERE id = ?1",
    "UPDATE entry SET payload = x'' WHERE id = ?1",
    "DELETE FROM entry WHERE id = ?1",
    // As what has left without a reason that is known; it is still listed.
    "UPDATE entry SET document = x'', device = x'', kind = x'', suite = -1, payload = x'' WHERE id = ?1",
];

fn open(data: &Path) -> Connection {
    Connection::open(data.join("relay.db")).unwrap()
}

fn problems(data: &Path) -> Vec<String> {
    care::verify(data).unwrap().problems
}

/// Makes one entry look as if it had left, wherever it is looked up.
fn take_out(data: &Path, way: &str, random: &mut Random) -> i64 {
    let conn = open(data);
    let sql = "SELECT id FROM entry WHERE kind = x'820080' AND id < (SELECT MAX(id) FROM entry WHERE kind = x'820080')";
    let rows: Vec<i64> =
        conn.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let row = rows[random.below(rows.len() as u64) as usize];
    if !way.contains("suite = -1") {
        conn.execute("DELETE FROM entry_of WHERE (space << 40) + seq = ?1", [row]).unwrap();
    }
    conn.execute("DELETE FROM superseded WHERE entry = ?1", [row]).unwrap();
    assert_eq!(conn.execute(way, [row]).unwrap(), 1);
    row
}

#[test]
fn what_only_looks_as_if_it_had_left_is_found_told_and_sent_again() {
    for (way, seed) in WAYS.into_iter().zip(0..) {
        let dir = tempfile::tempdir().unwrap();
        let port = fill(dir.path());
        let data = dir.path().join("relay");
        at_rest(&data);
        assert_eq!(problems(&data), Vec::<String>::new());
        let row = take_out(&data, way, &mut Random(seed));
        let found = problems(&data).join("\n");
        assert!(
            found.contains("are gone, and no erasure") || found.contains("is damaged behind"),
            "{way}: {found}"
        );
        let relay = TestRelay::start_with(&data, Auth::Local, port);
        sync(&device(dir.path(), "early"), &relay.url());
        if ![WAYS[2], WAYS[4], WAYS[6]].contains(&way) {
            let health = reqwest::blocking::get(format!("{}/healthz", relay.url())).unwrap().text().unwrap();
            assert!(health.contains("damaged"), "{way}, row {row}: {health}");
        }
        drop(relay);
        assert!(care::repair(&data).unwrap().put_aside.is_some());
        assert_eq!(problems(&data), Vec::<String>::new(), "{way}");
        let relay = TestRelay::start_with(&data, Auth::Local, port);
        let (a, b, c) = (device(dir.path(), "a"), device(dir.path(), "b"), device(dir.path(), "c"));
        for replica in [&a, &b, &c] {
            sync(replica, &relay.url());
        }
        assert_eq!(pieces(&c), pieces(&a), "{way}, row {row}");
        assert_eq!(pieces(&b), pieces(&a), "{way}, row {row}");
        drop(relay);
        assert_eq!(problems(&data), Vec::<String>::new(), "{way}");
    }
}

/// A relay from whose log much has left: by snapshots, of which some have left themselves, and by erasures, also twice.
fn much_has_left(dir: &Path, seed: u64) -> PathBuf {
    let data = dir.join("relay");
    let relay = TestRelay::start_forgetful(&data);
    let a = singer(dir, "a");
    let mut random = Random(seed);
    a.connect(motet::Relay::new(&relay.url())).unwrap();
    for n in 0..60 {
        let id = random.below(6).to_string();
        a.documents("songs").upsert(&id, &json!({ "title": n, "plays": n })).unwrap();
        a.sync_now().unwrap();
        match random.below(8) {
            0 => _ = a.documents("songs").document(&id).compact().unwrap(),
            1 => {
                a.documents("private").upsert(&id, &json!({ "title": n })).unwrap();
                a.sync_now().unwrap();
                a.erase_remote("private").unwrap();
                a.sync_now().unwrap();
            }
            _ => {}
        }
    }
    a.disconnect();
    drop(relay);
    let store = SqliteStore::open(&data).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { while store.sweep(i64::MAX / 2).await.unwrap() > 0 {} });
    drop(store);
    data
}

fn left(data: &Path) -> i64 {
    open(data).query_row("SELECT COUNT(*) FROM entry WHERE kind = x''", [], |row| row.get(0)).unwrap()
}

#[test]
fn what_has_left_says_why_and_is_no_damage() {
    for seed in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let data = much_has_left(dir.path(), seed);
        assert!(left(&data) > 10, "seed {seed}: {}", left(&data));
        assert_eq!(problems(&data), Vec::<String>::new(), "seed {seed}");
        let unknown = "SELECT COUNT(*) FROM entry WHERE kind = x'' AND suite = -1";
        assert_eq!(open(&data).query_row(unknown, [], |row| row.get::<_, i64>(0)), Ok(0), "seed {seed}");
        // A file of the version before, in which what has left says nothing.
        open(&data)
            .execute_batch(
                "UPDATE entry SET suite = 0 WHERE kind = x'';
                 UPDATE entry_of SET superseded = 1 WHERE superseded > 0; PRAGMA user_version = 5",
            )
            .unwrap();
        drop(SqliteStore::open(&data).unwrap());
        assert_eq!(problems(&data), Vec::<String>::new(), "seed {seed}");
    }
}

/// What had left stays away, and is no damage afterwards either, if something else is repaired.
#[test]
fn a_repair_keeps_what_has_left_away() {
    for seed in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let data = much_has_left(dir.path(), seed);
        let row = take_out(&data, WAYS[seed as usize % 4], &mut Random(seed));
        assert_ne!(problems(&data), Vec::<String>::new(), "seed {seed}, row {row}");
        care::repair(&data).unwrap();
        assert_eq!(problems(&data), Vec::<String>::new(), "seed {seed}, row {row}");
        let relay = TestRelay::start_forgetful(&data);
        let (a, c) = (singer(dir.path(), "a"), singer(dir.path(), "c"));
        sync(&a, &relay.url());
        sync(&c, &relay.url());
        let songs = |replica: &motet::Replica| {
            let all = motet_tests::contents(replica);
            all.into_iter().filter(|(name, ..)| name == "songs").collect::<Vec<_>>()
        };
        assert_eq!(songs(&c), songs(&a), "seed {seed}, row {row}");
        assert_eq!(c.documents("private").list().unwrap().len(), 0, "what was erased stays erased");
    }
}
