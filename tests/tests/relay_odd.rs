//! A relay in whose file single rows are not what they were, or a part of it is gone: what a running relay does with it, what `verify` says,
//! and what is there after `repair`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use motet::{Relay, Replica, SyncError};
use motet_proto::{EntryId, Kind};
use motet_relay::auth::Auth;
use motet_relay::store::sqlite::{SqliteStore, care};
use motet_relay::store::{LogStore, StoreError};
use motet_tests::raw::{entry, pull, push};
use motet_tests::relay_file::{at_rest, fill, pieces};
use motet_tests::{RelayProcess, TestRelay, contents, device, program, sync, wait_until};
use rusqlite::Connection;
use serde_json::json;

/// A folder with a relay that was filled by two devices, and does not run.
struct Filled {
    dir: tempfile::TempDir,
    data: PathBuf,
    port: u16,
}

impl Filled {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = fill(dir.path());
        let data = dir.path().join("relay");
        at_rest(&data);
        Self { dir, data, port }
    }

    fn execute(&self, sql: &str) {
        Connection::open(self.data.join("relay.db")).unwrap().execute_batch(sql).unwrap();
    }

    fn start(&self) -> TestRelay {
        TestRelay::start_with(&self.data, Auth::Local, self.port)
    }

    fn device(&self, name: &str) -> Replica {
        device(self.dir.path(), name)
    }

    /// What `verify` says, which must have this in it; afterwards it is repaired, and `verify` finds nothing.
    fn repair(&self, says: &str) -> String {
        let problems = care::verify(&self.data).unwrap().problems.join("\n");
        assert!(problems.contains(says), "{problems}");
        assert!(care::repair(&self.data).unwrap().put_aside.is_some());
        assert_eq!(care::verify(&self.data).unwrap().problems, Vec::<String>::new());
        problems
    }

    fn run(&self, what: &[&str]) -> Output {
        let mut command = Command::new(program("motet-relay"));
        command.args(["--listen", "127.0.0.1:0", "--data"]).arg(&self.data).args(what).output().unwrap()
    }
}

fn health(url: &str) -> (u16, String) {
    let answer = reqwest::blocking::get(format!("{url}/healthz")).unwrap();
    (answer.status().as_u16(), answer.text().unwrap())
}

fn ids(url: &str) -> Vec<EntryId> {
    pull(url).into_iter().map(|entry| entry.id).collect()
}

#[test]
fn a_device_gets_what_a_bad_row_held_when_it_is_repaired() {
    for odd in ["suite = 'text'", "suite = 300", "suite = -1", "suite = 9", "kind = 7", "document = 'none'"] {
        let filled = Filled::new();
        let a = filled.device("a");
        // A change, so that nothing of it is lost with its kind.
        let row = format!("(SELECT MAX(id) FROM entry WHERE kind = x'{}')", hex(&Kind::Changes.to_bytes()));
        filled.execute(&format!("UPDATE entry SET {odd}, received_at = 'never' WHERE id = {row}"));
        let relay = filled.start();
        let c = filled.device("c");
        sync(&c, &relay.url());
        let own = pieces(&a).len();
        assert!(pieces(&c).len() + 1 >= own, "all but one document at most");
        let (code, said) = health(&relay.url());
        assert!(code == 200 && (odd == "suite = 9" || said.contains("damaged")), "{said}");
        drop((c, relay));
        filled.repair("table entry, column received_at: 1 values");
        // Without the devices that have it.
        let relay = filled.start();
        let c = filled.device("c");
        for _ in 0..2 {
            sync(&c, &relay.url());
        }
        assert_eq!(pieces(&c), pieces(&a), "{odd}");
        assert_eq!(c.quarantined(10).unwrap(), []);
        assert_eq!(health(&relay.url()), (200, "ok\n".into()));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_account_is_not_refused_because_of_a_damaged_count() {
    for (odd, is_refused) in [
        ("bytes = -7", false),
        ("bytes = 'many'", false),
        ("documents = x'00'", false),
        ("bytes = 1 << 60", true),
        ("documents = 1 << 60", true),
    ] {
        let filled = Filled::new();
        filled.execute(&format!("UPDATE usage SET {odd}"));
        let before = filled.data.with_extension("before");
        motet_tests::copy_folder(&filled.data, &before);
        let relay = TestRelay::start(&before);
        let one = || entry("new", Kind::Changes, vec![1]);
        let url = relay.url();
        let pushed = std::panic::catch_unwind(|| push(&url, vec![one()]));
        assert_eq!(pushed.is_err(), is_refused, "{odd}");
        drop(relay);
        filled.repair("table usage");
        let relay = filled.start();
        push(&relay.url(), vec![one()]);
    }
}

#[test]
fn a_folder_that_is_just_being_given_up_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let held = SqliteStore::open(folder.path()).unwrap();
    // While it is held for long, whoever wants it is told.
    assert!(matches!(SqliteStore::open(folder.path()), Err(StoreError::InUse(_))));
    let path = folder.path().to_owned();
    std::thread::scope(|scope| {
        let waits = scope.spawn(move || SqliteStore::open(&path).map(drop));
        // A program that is being started holds what the process that starts it holds, until it runs.
        std::thread::sleep(Duration::from_millis(100));
        drop(held);
        waits.join().unwrap().unwrap();
    });
}

#[test]
fn a_relay_without_its_id_says_so_and_gets_one() {
    for odd in ["DELETE FROM relay", "UPDATE relay SET id = 'text'", "UPDATE relay SET id = x'00'"] {
        let filled = Filled::new();
        filled.execute(odd);
        let said = String::from_utf8(filled.run(&[]).stderr).unwrap();
        assert!(said.contains("table relay") && said.contains("repair"), "{said}");
        filled.repair("table relay");
        let relay = filled.start();
        assert!(pull(&relay.url()).len() > 60);
    }
    // Of two the first is kept, so that devices know their logs.
    let filled = Filled::new();
    let id = |filled: &Filled| SqliteStore::open(&filled.data).unwrap().id();
    let before = id(&filled);
    filled.execute("INSERT INTO relay VALUES (randomblob(16)), ('text')");
    assert_eq!(id(&filled), before);
    filled.repair("table relay has 3 rows, 2 with an id");
    assert_eq!(id(&filled), before);
}

#[test]
fn a_relay_without_one_of_its_tables_does_not_start_and_is_repaired() {
    let dropped = ["space", "entry", "entry_of", "superseded", "erasing", "superseding", "usage", "relay"];
    // A view can be read, and takes nothing.
    let views = ["usage", "superseded"].map(|table| (table, true));
    for (table, is_view) in dropped.map(|table| (table, false)).into_iter().chain(views) {
        let filled = Filled::new();
        let (a, b) = (filled.device("a"), filled.device("b"));
        filled.execute(&match is_view {
            true => {
                format!("ALTER TABLE {table} RENAME TO other; CREATE VIEW {table} AS SELECT * FROM other")
            }
            false => format!("PRAGMA foreign_keys = OFF; DROP TABLE {table}"),
        });
        let started = filled.run(&[]);
        let error = String::from_utf8(started.stderr).unwrap();
        assert!(!started.status.success() && error.contains(&format!("table {table}")), "{table}: {error}");

        if ["space", "entry"].contains(&table) {
            assert!(care::repair(&filled.data).is_err());
            std::fs::remove_dir_all(&filled.data).unwrap();
        } else {
            filled.repair("");
        }
        let relay = filled.start();
        let fresh = filled.device("fresh");
        for replica in [&a, &b, &a, &b, &fresh] {
            sync(replica, &relay.url());
        }
        assert!(pieces(&a).len() > 10);
        assert_eq!(pieces(&fresh), pieces(&a), "{table}");
    }
}

#[test]
fn a_log_whose_row_is_damaged_is_found_again() {
    for odd in [
        "UPDATE space SET id = 7",
        "UPDATE space SET id = -7",
        "UPDATE space SET id = (1 << 24) + 1",
        "UPDATE space SET account = CAST(account AS BLOB)",
        "UPDATE space SET account = CAST(x'ff00' AS TEXT)",
        "UPDATE space SET uuid = 'text'",
        "UPDATE space SET uuid = randomblob(16)",
        "DELETE FROM space",
    ] {
        let filled = Filled::new();
        let before = ids(&filled.start().url());
        filled.execute(odd);
        if odd.contains("SET id") || odd.starts_with("DELETE") {
            // New devices would be served an empty log.
            let error = String::from_utf8(filled.run(&[]).stderr).unwrap();
            assert!(error.contains("table space has no row"), "{odd}: {error}");
        }
        filled.repair("table space");
        let relay = filled.start();
        assert_eq!(ids(&relay.url()), before, "{odd}");
    }
}

#[test]
fn a_log_that_can_be_of_two_accounts_goes_to_neither() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let conn = {
        let relay = TestRelay::start_for(&data, "one -> first\ntwo -> second\n");
        for (token, text) in [("one", "ʻekahi"), ("two", "ʻelua")] {
            let a = device(dir.path(), token);
            a.documents("pieces").upsert("song", &json!({ "lyrics": text })).unwrap();
            a.connect(Relay::new(&relay.url()).token(token)).unwrap();
            a.sync_now().unwrap();
        }
        Connection::open(data.join("relay.db")).unwrap()
    };
    conn.execute_batch("DELETE FROM space; DELETE FROM usage WHERE account = 'first'").unwrap();
    conn.execute_batch("INSERT INTO space (id, account, uuid) VALUES (9, 'first', zeroblob(16))").unwrap();
    drop(conn);
    let problems = care::repair(&data).unwrap().problems.join("\n");
    assert!(problems.contains("several accounts can have them"), "{problems}");
    let conn = Connection::open(data.join("relay.db")).unwrap();
    assert_eq!(conn.query_row("SELECT COUNT(*) FROM entry", [], |row| row.get(0)), Ok(0));
}

#[test]
fn nothing_leaves_because_of_a_damaged_row_beside_it() {
    let filled = Filled::new();
    // What is rightly marked may leave.
    let live = "SELECT id FROM entry WHERE kind <> x'' AND id NOT IN (SELECT entry FROM superseded)";
    let count = || {
        let conn = Connection::open(filled.data.join("relay.db")).unwrap();
        conn.query_row(&format!("SELECT COUNT(*) FROM ({live})"), [], |row| row.get::<_, i64>(0)).unwrap()
    };
    filled.execute("DELETE FROM erasing");
    let before = count();
    filled.execute(&format!(
        "INSERT OR IGNORE INTO superseded SELECT 1, id FROM ({live});
         INSERT OR IGNORE INTO erasing SELECT MAX(id), (SELECT document FROM entry WHERE id IN ({live}) LIMIT 1) FROM entry;
         INSERT OR IGNORE INTO superseding VALUES (77, 'text');
         UPDATE superseding SET done = 'text';
         INSERT INTO entry_of SELECT id >> 40, document, x'0011223344556677', id + 1 & 0xffffffffff, 0 FROM entry
           WHERE kind <> x'' AND id < (SELECT MAX(id) FROM entry);"
    ));
    let sweep = || {
        let store = SqliteStore::open(&filled.data).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { while store.sweep(1_000).await.unwrap() > 0 {} });
    };
    sweep();
    let conn = Connection::open(filled.data.join("relay.db")).unwrap();
    let all = conn.query_row("SELECT COUNT(*) FROM entry WHERE kind <> x''", [], |row| row.get::<_, i64>(0));
    assert!(all.unwrap() >= before);
    drop(conn);
    filled.repair("rows of table entry_of name no entry");
}

#[test]
fn a_file_that_was_cut_off_is_told_and_mended() {
    let filled = Filled::new();
    let path = filled.data.join("relay.db");
    let bytes = at_rest(&filled.data);
    let cut = &bytes[..bytes.len() * 2 / 3 + 100];
    std::fs::write(&path, cut).unwrap();
    let verified = filled.run(&["verify"]);
    let said = String::from_utf8(verified.stdout).unwrap();
    let what = format!("relay.db was cut off: {} of {} bytes", cut.len(), bytes.len());
    assert!(!verified.status.success() && said.contains(&what), "{said}");
    assert_eq!(std::fs::read(&path).unwrap(), cut, "it is only looked at");
    filled.repair("was cut off");
    let relay = filled.start();
    assert!(!pull(&relay.url()).is_empty());
    let (a, b, c) = (filled.device("a"), filled.device("b"), filled.device("c"));
    for replica in [&a, &b, &c] {
        sync(replica, &relay.url());
    }
    assert_eq!(pieces(&c), pieces(&a));
    // A header that names what no disk has is damaged itself.
    drop(relay);
    let mut bytes = at_rest(&filled.data);
    bytes[28..32].copy_from_slice(&[0x7f; 4]);
    std::fs::write(&path, &bytes).unwrap();
    let error = care::repair(&filled.data).unwrap_err().to_string();
    assert!(error.contains("its header names"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_file_of_which_nothing_can_be_read_is_left_as_it_is() {
    let filled = Filled::new();
    let path = filled.data.join("relay.db");
    let sound = at_rest(&filled.data);
    for what in ["first page", "list of tables"] {
        let mut bytes = sound.clone();
        match what {
            "first page" => bytes[..4096].fill(0),
            _ => bytes[100..4096].fill(0),
        }
        std::fs::write(&path, &bytes).unwrap();
        for command in [&["verify"][..], &["repair"], &[]] {
            let done = filled.run(command);
            let said = String::from_utf8(done.stderr).unwrap();
            assert!(!done.status.success(), "{command:?}");
            assert!(command.is_empty() || said.contains(what) && said.contains("move it away"), "{said}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "{command:?}");
        }
    }
}

/// Overwrites pages of a file that somebody has open.
fn spoil(path: &Path, from: usize) {
    use std::io::{Seek, SeekFrom, Write};
    let len = std::fs::metadata(path).unwrap().len() as usize;
    let mut file = std::fs::File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start((from * 4096) as u64)).unwrap();
    file.write_all(&vec![0; len.saturating_sub(from * 4096)]).unwrap();
}

/// The first page from which on everything may be damaged, so that the first entry can be read and not all of them can. Which that is depends on
/// how the pushes were cut into transactions.
fn behind_the_first_entry(data: &Path) -> usize {
    let copy = data.with_extension("copy");
    let is_it = |from: &usize| {
        std::fs::copy(data.join("relay.db"), &copy).unwrap();
        spoil(&copy, *from);
        let conn = Connection::open(&copy).unwrap();
        let read = |sql| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
        read("SELECT length(payload) FROM entry ORDER BY id LIMIT 1").is_ok()
            && read("SELECT SUM(length(payload)) FROM entry").is_err()
    };
    (12..200).find(is_it).unwrap()
}

#[test]
fn a_relay_whose_file_goes_bad_while_it_runs_answers_and_tells() {
    let filled = Filled::new();
    let relay = RelayProcess::start(&filled.data, "127.0.0.1:0", &[]);
    // Before anybody has read: what SQLite has in memory stays sound.
    assert_eq!(health(&relay.url()).1, "ok\n");
    spoil(&filled.data.join("relay.db"), behind_the_first_entry(&filled.data));
    let c = filled.device("c");
    c.documents("pieces").upsert("new", &json!({ "title": "ʻUlupalakua" })).unwrap();
    c.connect(Relay::new(&relay.url())).unwrap();
    let begun = std::time::Instant::now();
    let error = c.sync_now().unwrap_err();
    assert!(matches!(error, SyncError::Damaged { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10), "nobody hangs");
    wait_until("what stands before the damage has arrived", Duration::from_secs(10), || pieces(&c).len() > 1);
    assert!(!pull(&relay.url()).is_empty(), "what stands before the damage is served");
    wait_until("it is told", Duration::from_secs(10), || health(&relay.url()).1.contains("damaged"));
    drop((c, relay));
    assert!(care::repair(&filled.data).unwrap().put_aside.is_some());
    let relay = filled.start();
    let (a, b, c) = (filled.device("a"), filled.device("b"), filled.device("c"));
    for replica in [&a, &b, &c, &a, &b, &c] {
        sync(replica, &relay.url());
    }
    assert_eq!(pieces(&c), pieces(&a));
    assert!(a.documents("pieces").get("new").unwrap().is_some());
}

#[test]
fn a_write_ahead_log_that_was_cut_off_costs_nothing_that_devices_have() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    let mut relay = RelayProcess::start(&data, "127.0.0.1:0", &[]);
    let address = relay.address().to_owned();
    for n in 0..40 {
        a.documents("pieces").upsert(&n.to_string(), &json!({ "title": n })).unwrap();
        sync(&a, &relay.url());
    }
    sync(&b, &relay.url());
    relay.kill();
    let wal = data.join("relay.db-wal");
    let bytes = std::fs::read(&wal).unwrap();
    std::fs::write(&wal, &bytes[..bytes.len() * 3 / 4 + 11]).unwrap();
    assert_eq!(care::verify(&data).unwrap().problems, Vec::<String>::new(), "it is an earlier state");
    let relay = RelayProcess::start(&data, &address, &[]);
    let c = device(dir.path(), "c");
    for replica in [&b, &a, &c] {
        sync(replica, &relay.url());
    }
    assert_eq!(contents(&c), contents(&a));
}
