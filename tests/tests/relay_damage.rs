//! A relay whose file is damaged: it says so at once, other logs go on, and after a repair the devices bring back what is missing.

use std::path::Path;

use motet::SyncError;
use motet_relay::auth::Auth;
use motet_relay::store::sqlite::care;
use motet_tests::random::{Random, seed};
use motet_tests::{TestRelay, contents, device, program, sync};
use rusqlite::Connection;
use serde_json::json;

/// A relay with documents of two devices, some of which were changed and some superseded.
fn fill(dir: &Path) -> u16 {
    let relay = TestRelay::start(&dir.join("relay"));
    let (a, b) = (device(dir, "a"), device(dir, "b"));
    for n in 0..60 {
        let who = if n % 2 == 0 { &a } else { &b };
        let lyrics = format!("Hiʻilawe {n}, kūmaka ka ʻikena\n").repeat(n % 17);
        who.documents("pieces").put(&n.to_string(), &json!({ "title": n, "lyrics": lyrics })).unwrap();
    }
    for replica in [&b, &a] {
        sync(replica, &relay.url());
    }
    for n in 0..20 {
        a.documents("pieces").set(&n.to_string(), &json!({ "place": n })).unwrap();
        sync(&a, &relay.url());
    }
    a.documents("pieces").delete("3").unwrap();
    a.erase_remote("private").unwrap();
    for replica in [&a, &b, &a] {
        sync(replica, &relay.url());
    }
    assert_eq!(contents(&a), contents(&b));
    relay.address().port()
}

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
    c.documents("pieces").put("new", &json!({ "title": "ʻUlupalakua" })).unwrap();
    c.connect(motet::Relay::new(&relay.url())).unwrap();
    let error = c.sync_now().unwrap_err();
    assert!(matches!(error, SyncError::Damaged { .. }), "{error}");
    assert_eq!(c.status().last_error.unwrap().code, "sync-relay-damaged");
    assert_eq!(c.status().pending, 1);
    // What can be read has come.
    assert!(c.documents("pieces").get("5").unwrap().is_some());
}

#[test]
fn whatever_is_damaged_devices_bring_back_what_is_missing() {
    let mut random = Random(seed());
    let dir = tempfile::tempdir().unwrap();
    let port = fill(dir.path());
    let data = dir.path().join("relay");
    let conn = Connection::open(data.join("relay.db")).unwrap();
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(conn);
    let bytes = std::fs::read(data.join("relay.db")).unwrap();
    let pages = bytes.len() / 4096;
    let rounds = motet_tests::random::runs(16);
    for round in 0..rounds {
        let now = dir.path().join(format!("{round}"));
        std::fs::create_dir_all(now.join("relay")).unwrap();
        for name in ["a.db", "b.db"] {
            std::fs::copy(dir.path().join(name), now.join(name)).unwrap();
        }
        let mut damaged = bytes.clone();
        match random.below(3) {
            0 => {
                let page = 1 + random.below(pages as u64 - 1) as usize;
                println!("round {round}: page {page} of {pages} is zeroed");
                damaged[page * 4096..(page + 1) * 4096].fill(0);
            }
            1 => {
                let at = 4096 + random.below(bytes.len() as u64 - 4096) as usize;
                println!("round {round}: byte {at} is changed");
                damaged[at] ^= 1 + random.below(255) as u8;
            }
            _ => {
                let page = 1 + random.below(pages as u64 - 1) as usize;
                println!("round {round}: noise in page {page} of {pages}");
                damaged[page * 4096..(page + 1) * 4096]
                    .iter_mut()
                    .for_each(|byte| *byte = random.below(256) as u8);
            }
        }
        std::fs::write(now.join("relay/relay.db"), &damaged).unwrap();
        let Ok(report) = care::repair(&now.join("relay")) else {
            // Where the tables are is not known any more; nothing was touched, and a relay that is wiped is filled by the devices.
            assert_eq!(std::fs::read(now.join("relay/relay.db")).unwrap(), damaged);
            continue;
        };
        println!("  {:?}", report.problems.iter().take(3).collect::<Vec<_>>());
        assert_eq!(care::verify(&now.join("relay")).unwrap().problems, Vec::<String>::new());
        let relay = restart(&now.join("relay"), port);
        let (a, b) = (device(&now, "a"), device(&now, "b"));
        a.documents("pieces").set("50", &json!({ "later": true })).unwrap();
        for replica in [&b, &a, &b] {
            sync(replica, &relay.url());
        }
        let c = device(&now, "c");
        sync(&c, &relay.url());
        assert_eq!(c.quarantined(10).unwrap(), []);
        for replica in [&b, &c] {
            assert_eq!(contents(replica), contents(&a));
            assert_eq!(replica.status().pending, 0);
        }
        drop((a, b, c, relay));
        std::fs::remove_dir_all(&now).unwrap();
    }
}
