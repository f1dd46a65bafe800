//! A relay whose file is damaged: it says so at once, other logs go on, and after a repair the devices bring back what is missing.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use motet::SyncError;
use motet_proto::{EntryId, SpaceId};
use motet_relay::auth::Auth;
use motet_relay::store::sqlite::care;
use motet_tests::random::{Random, seed};
use motet_tests::raw::pull;
use motet_tests::relay_file::{self, Hit, at_rest, fill, pieces};
use motet_tests::{TestRelay, device, program, sync};
use rusqlite::Connection;
use serde_json::json;

/// Bytes of a page of the relay's file.
const PAGE: usize = 4096;

fn restart(data: &Path, port: u16) -> TestRelay {
    TestRelay::start_with(data, Auth::Local, port)
}

#[test]
fn a_sound_relay_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let port = fill(dir.path());
    let found = care::verify(&data).unwrap();
    assert_eq!((found.logs, &found.problems), (1, &vec![]));
    assert!(found.entries >= 80, "{found:?}");
    assert_eq!(care::repair(&data).unwrap().put_aside, None);
    let _relay = restart(&data, port);
    // Not while it runs.
    assert_eq!(care::verify(&data).unwrap_err().code(), "store-in-use");
}

#[test]
fn a_damaged_page_is_an_error_and_no_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let port = fill(dir.path());
    let path = data.join("relay.db");
    let conn = Connection::open(&path).unwrap();
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let sql = "SELECT pageno FROM dbstat WHERE name = 'entry' AND pagetype = 'leaf' ORDER BY pageno";
    let page: Option<i64> = conn.query_row(sql, [], |row| row.get(0)).ok();
    drop(conn);
    let mut bytes = std::fs::read(&path).unwrap();
    match page {
        Some(page) => bytes[(page as usize - 1) * 4096..page as usize * 4096].fill(0),
        // SQLite was built without that table: everything but the tables' definitions.
        None => bytes[12 * 4096..].chunks_mut(4096).step_by(2).for_each(|page| page.fill(0)),
    }
    std::fs::write(&path, bytes).unwrap();
    let relay = restart(&data, port);
    let c = device(dir.path(), "c");
    let begun = std::time::Instant::now();
    c.connect(motet::Relay::new(&relay.url())).unwrap();
    let error = c.sync_now().unwrap_err();
    assert!(matches!(error, SyncError::Damaged { .. }), "{error}");
    assert!(begun.elapsed().as_secs() < 10);
    assert_eq!(c.status().last_error.unwrap().code, "sync-relay-damaged");
    drop((c, relay));
    // The program says so, and repairs it.
    let run = |what: &str| {
        let mut command = std::process::Command::new(program("motet-relay"));
        command.arg("--data").arg(&data).arg(what).output().unwrap()
    };
    assert!(!run("verify").status.success());
    let repaired = run("repair");
    assert!(repaired.status.success(), "{}", String::from_utf8_lossy(&repaired.stderr));
    assert!(run("verify").status.success());
    assert!(data.join("relay.damaged.db").exists());
}

#[test]
fn a_relay_that_is_too_damaged_to_take_anything_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let port = fill(dir.path());
    let path = data.join("relay.db");
    let conn = Connection::open(&path).unwrap();
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    // Reading goes by the position alone, writing by the table of documents as well.
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'entry_of'";
    let mut statement = conn.prepare(sql).unwrap();
    let pages = statement.query_map([], |row| row.get::<_, i64>(0)).unwrap();
    let pages: Vec<_> = pages.map(|page| page.unwrap() as usize).collect();
    drop(statement);
    drop(conn);
    assert!(!pages.is_empty());
    let mut bytes = std::fs::read(&path).unwrap();
    pages.iter().for_each(|page| bytes[(page - 1) * 4096..page * 4096].fill(0));
    std::fs::write(&path, bytes).unwrap();
    let relay = restart(&data, port);
    let c = device(dir.path(), "c");
    c.documents("pieces").upsert("new", &json!({ "title": "ʻUlupalakua" })).unwrap();
    c.connect(motet::Relay::new(&relay.url())).unwrap();
    let error = c.sync_now().unwrap_err();
    assert!(matches!(error, SyncError::Damaged { .. }), "{error}");
    assert_eq!(c.status().last_error.unwrap().code, "sync-relay-damaged");
    assert_eq!(c.status().pending, 1);
    // What can be read has come.
    assert!(c.documents("pieces").get("5").unwrap().is_some());
}

/// Damages the file of a relay at random. Returns which value it was, if it was one.
fn damage(path: &Path, bytes: &[u8], random: &mut Random) -> Option<Hit> {
    let mut damaged = bytes.to_vec();
    let pages = bytes.len() / PAGE;
    let page = 1 + random.below(pages as u64 - 1) as usize;
    match random.below(8) {
        0 => {
            println!("  page {page} of {pages} is zeroed");
            damaged[page * PAGE..(page + 1) * PAGE].fill(0);
        }
        1 => {
            let at = PAGE + random.below((bytes.len() - PAGE) as u64) as usize;
            println!("  byte {at} is changed");
            damaged[at] ^= 1 + random.below(255) as u8;
        }
        2 => {
            println!("  noise in page {page} of {pages}");
            damaged[page * PAGE..(page + 1) * PAGE]
                .iter_mut()
                .for_each(|byte| *byte = random.below(256) as u8);
        }
        3 => {
            let len = PAGE + random.below((bytes.len() - PAGE) as u64) as usize;
            println!("  cut off after {len} of {} bytes", bytes.len());
            damaged.truncate(len);
        }
        _ => {
            std::fs::write(path, bytes).unwrap();
            let conn = Connection::open(path).unwrap();
            let hit = (0..50).find_map(|_| relay_file::damage(&conn, random)).unwrap();
            println!("  {hit:?}");
            return Some(hit);
        }
    }
    std::fs::write(path, &damaged).unwrap();
    None
}

/// The ids of all entries that are sound in a file, with their rows: what does not need a relay to be read.
fn sound(path: &Path) -> HashMap<EntryId, i64> {
    let conn = Connection::open(path).unwrap();
    let mut statement = conn.prepare("SELECT entry, id FROM entry WHERE kind <> x''").unwrap();
    let rows = statement.query_map([], |row| Ok((EntryId(row.get(0)?), row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// What a device gets that has nothing.
fn served(url: &str) -> HashSet<EntryId> {
    let entries = pull(url);
    let sound = entries.iter().filter(|entry| entry.check(SpaceId::DEFAULT).is_ok());
    sound.map(|entry| entry.id).collect()
}

/// What of a file must still be served after the damage of a value: everything but the entry that was hit, and that as well if what was
/// hit follows from the rest, or is no part of what it says.
fn must_be_served(before: &HashMap<EntryId, i64>, hit: &Hit, is_repaired: bool) -> HashSet<EntryId> {
    let follows = ["received_at", "tag", "entry", "suite", "device", "document"];
    let is_intact = |row: i64| {
        let is_hit = hit.table == "entry" && hit.row == Some(row);
        let follows = hit.column.as_ref().is_some_and(|column| follows.contains(&&column[..]));
        !is_hit || is_repaired && follows
    };
    before.iter().filter(|(_, row)| is_intact(**row)).map(|(id, _)| *id).collect()
}

/// Whether a relay knows no more whose the log is. Then it has another one for the account, and devices fill that.
fn is_of_nobody(hit: &Hit) -> bool {
    hit.table == "space"
}

#[test]
fn whatever_is_damaged_devices_bring_back_what_is_missing() {
    let mut random = Random(seed());
    let dir = tempfile::tempdir().unwrap();
    let port = fill(dir.path());
    let bytes = at_rest(&dir.path().join("relay"));
    let before = sound(&dir.path().join("relay/relay.db"));
    let rounds = motet_tests::random::runs(24);
    for round in 0..rounds {
        println!("round {round}");
        let now = dir.path().join(format!("{round}"));
        let (data, path) = (now.join("relay"), now.join("relay/relay.db"));
        std::fs::create_dir_all(&data).unwrap();
        for name in ["a.db", "b.db"] {
            std::fs::copy(dir.path().join(name), now.join(name)).unwrap();
        }
        let hit = damage(&path, &bytes, &mut random);
        if let Some(hit) = hit.as_ref().filter(|hit| !is_of_nobody(hit) && hit.table != "relay") {
            // One bad value keeps nobody from the rest, even before it is repaired.
            let other = now.join("running");
            motet_tests::copy_folder(&data, &other);
            let relay = restart(&other, 0);
            assert_eq!(&must_be_served(&before, hit, false) - &served(&relay.url()), HashSet::new());
            drop(relay);
        }
        let damaged = std::fs::read(&path).unwrap();
        let Ok(report) = care::repair(&data) else {
            // Where the tables are is not known any more; nothing was touched, and a relay that is wiped is filled by the devices.
            assert!(hit.is_none());
            assert_eq!(std::fs::read(&path).unwrap(), damaged);
            continue;
        };
        println!("  {:?}", report.problems.iter().take(3).collect::<Vec<_>>());
        assert_eq!(care::verify(&data).unwrap().problems, Vec::<String>::new());
        let relay = restart(&data, port);
        if let Some(hit) = &hit {
            let missing = &must_be_served(&before, hit, true) - &served(&relay.url());
            assert!(missing.is_empty() || is_renamed(hit), "{missing:?}");
        }
        bring_back(&now, &relay);
        drop(relay);
        std::fs::remove_dir_all(&now).unwrap();
    }
}

/// The log has the name of another account now, and nothing tells that it is wrong.
fn is_renamed(hit: &Hit) -> bool {
    hit.table == "space" && hit.column.as_deref() == Some("account")
}

/// Devices that have synced with the relay before, and one that has not, have the same in the end.
fn bring_back(now: &Path, relay: &TestRelay) {
    let (a, b) = (device(now, "a"), device(now, "b"));
    a.documents("pieces").patch("50", &json!({ "later": true })).unwrap();
    for replica in [&b, &a, &b] {
        sync(replica, &relay.url());
    }
    let c = device(now, "c");
    sync(&c, &relay.url());
    assert_eq!(c.quarantined(10).unwrap(), []);
    for replica in [&b, &c] {
        assert_eq!(pieces(replica), pieces(&a));
        assert_eq!(replica.status().pending, 0);
    }
}
