//! Spaces that accounts share among themselves: made, joined with codes, left, handed over.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use motet::secrets::SecretFiles;
use motet::{Relay, Replica, SpaceError, SpaceRole, Spaces};
use motet_relay::Config;
use motet_relay::directory::{Directory, Members};
use motet_tests::{Admin, Cli, RelayProcess, TestRelay, contents, device, wait_until};
use serde_json::json;

const NAME: &str = "device-key";

/// A relay with accounts, each of which has a device that is signed in.
struct Band {
    relay: TestRelay,
    directory: Arc<Directory>,
    relays: HashMap<&'static str, Relay>,
}

impl Band {
    fn start(folder: &Path, accounts: &[&'static str]) -> Self {
        let data = folder.join("relay");
        let directory = Arc::new(Directory::open(&data).unwrap());
        let members = Arc::new(Members::new(directory.clone(), None));
        let config = Config { auth: members.clone(), access: members, ..Config::new(&data) };
        let relay = TestRelay::start_as(config);
        let sign_in = |account: &&'static str| {
            directory.add_account(account).unwrap();
            let key = directory.create_key(account, None, true).unwrap();
            let replica = device(folder, account);
            let secrets = || SecretFiles::beside(replica.path());
            let at = Relay::new(&relay.url());
            replica.sign_in(&at, &key, &secrets(), NAME).unwrap();
            (*account, at.device_key_in(secrets(), NAME))
        };
        let relays = accounts.iter().map(sign_in).collect();
        Self { relay, directory, relays }
    }

    fn of(&self, account: &str) -> Spaces {
        self.relays[account].spaces()
    }
}

/// A device with a file for a space of its own account or of others.
fn member(folder: &Path, name: &str, space: motet::SpaceId) -> Replica {
    Replica::builder(folder.join(format!("{name}.db"))).device_name(name).space(space).open().unwrap()
}

#[test]
fn two_people_share_a_space_without_an_operator() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin(dir.path().join("relay"));
    for account in ["keola", "leilani"] {
        admin.ok(&["account", "add", account]);
    }
    let relay = RelayProcess::start(&admin.0, "127.0.0.1:0", &[]);
    let [keola, leilani] = ["keola", "leilani"].map(|account| {
        let cli = Cli::init(dir.path(), account, &relay.url());
        let key = admin.ok(&["key", "create", "--account", account, "--reusable"]);
        cli.ok_with(&["login", "--key-file", "-"], &key);
        (cli, key)
    });
    let made = keola.0.json(&["space", "create", "Nā Kamalei", "--json"]);
    assert_eq!((&made["name"], &made["role"]), (&json!("Nā Kamalei"), &json!("owner")));
    let code = keola.0.ok(&["space", "invite", "Nā Kamalei"]);
    assert!(code.starts_with("motet-join-"), "{code}");
    // Looking does not use it up.
    for _ in 0..3 {
        let shown = leilani.0.json(&["space", "show", &code, "--json"]);
        assert_eq!((&shown["owner"], &shown["role"]), (&json!("keola"), &json!("writer")));
    }
    assert_eq!(leilani.0.json(&["spaces", "--json"]), json!([]));
    let joined = leilani.0.json(&["space", "join", &code, "--json"]);
    assert_eq!(joined["id"], made["id"]);
    // An answer that was lost: the same again.
    leilani.0.ok(&["space", "join", &code]);
    assert!(leilani.0.ok(&["spaces"]).contains("Nā Kamalei  of keola, as writer"));
    assert_eq!(keola.0.ok(&["space", "members", "Nā Kamalei"]).trim(), "owner  keola\nwriter  leilani");
    let id = made["id"].as_str().unwrap();
    let bands = [(&keola.1, "keola-band"), (&leilani.1, "leilani-band")].map(|(key, name)| {
        let cli = Cli::new(dir.path(), name);
        cli.ok(&["init", "--device", name, "--relay", &relay.url(), "--space-id", id]);
        cli.ok_with(&["login", "--key-file", "-"], key);
        cli
    });
    bands[0].ok_with(&["put", "songs", "--id", "1"], r#"{"title": "Pua Mana"}"#);
    bands[0].ok(&["sync"]);
    bands[1].ok(&["sync"]);
    assert_eq!(bands[1].json(&["get", "songs", "1", "--json"])["title"], "Pua Mana");
    // Handed over: what is there stays, and the one before goes on as a writer.
    keola.0.ok(&["space", "role", id, "leilani", "owner"]);
    assert!(keola.0.ok(&["spaces"]).contains("of leilani, as writer"));
    bands[1].ok_with(&["set", "songs", "1", "key=C"], "");
    for band in bands.iter().chain(&bands) {
        band.ok(&["sync"]);
    }
    assert_eq!(bands[0].json(&["get", "songs", "1", "--json"])["key"], "C");
    let said = String::from_utf8(keola.0.run(&["space", "rename", id, "Mine"]).stderr).unwrap();
    assert!(said.contains("only the owner"), "{said}");
    leilani.0.ok(&["space", "rename", id, "Pua Melia"]);
    keola.0.ok(&["space", "leave", "Pua Melia"]);
    assert_eq!(keola.0.json(&["spaces", "--json"]), json!([]));
    assert_eq!(keola.0.run(&["space", "members", id]).status.code(), Some(5));
    assert_eq!(
        keola.0.run(&["space", "join", &code]).status.code(),
        Some(5),
        "codes of the owner before are gone"
    );
    wait_until("it is closed to the one that has left", Duration::from_secs(5), || {
        !bands[0].run(&["sync"]).status.success()
    });
    assert_eq!(bands[0].json(&["get", "songs", "1", "--json"])["title"], "Pua Mana", "what is here stays");
    let said = String::from_utf8(leilani.0.run(&["space", "leave", id]).stderr).unwrap();
    assert!(said.contains("the owner cannot leave"), "{said}");
    leilani.0.ok(&["space", "delete", id]);
    assert_eq!(leilani.0.json(&["spaces", "--json"]), json!([]));
}

/// What an account sees of its devices, and does with them, without an operator.
#[test]
fn an_account_looks_after_its_own_devices() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin(dir.path().join("relay"));
    admin.ok(&["account", "add", "keola"]);
    let mut relay = RelayProcess::start(&admin.0, "127.0.0.1:0", &[]);
    let [phone, tablet] = ["phone", "tablet"].map(|name| {
        let cli = Cli::init(dir.path(), name, &relay.url());
        cli.ok_with(&["login", "--key-file", "-"], &admin.ok(&["key", "create", "--account", "keola"]));
        cli
    });
    let found = phone.json(&["device", "list", "--json"]);
    assert_eq!((&found["account"], found["devices"].as_array().unwrap().len()), (&json!("keola"), 2));
    let own: Vec<_> =
        found["devices"].as_array().unwrap().iter().filter(|device| device["is_this_one"] == true).collect();
    assert_eq!((own.len(), &own[0]["name"]), (1, &json!("phone")));
    let lost = tablet.json(&["status", "--json"])["device_id"].as_str().unwrap().to_owned();
    phone.ok(&["device", "rename", &lost[..8], "lost tablet"]);
    assert!(phone.ok(&["device", "list"]).contains("lost tablet"));
    assert_eq!(phone.run(&["device", "sign-out", "ffffffff"]).status.code(), Some(5));
    phone.ok(&["device", "sign-out", &lost[..8]]);
    wait_until("it is signed out", Duration::from_secs(5), || tablet.run(&["sync"]).status.code() == Some(4));
    assert_eq!(tablet.run(&["device", "list"]).status.code(), Some(4));
    assert!(phone.ok(&["identity", "list"]).contains("sign-in keys alone"));
    // What its operator sees of it: written down when the relay stops, at the latest.
    phone.ok_with(&["put", "songs", "--id", "1"], r#"{"title": "Hiʻilawe"}"#);
    phone.ok(&["sync"]);
    relay.terminate();
    let listed = &admin.lines(&["account", "list", "--json"])[0];
    assert_eq!((&listed["documents"], &listed["devices"]), (&json!(1), &json!(1)));
    assert!(listed["stored_bytes"].as_u64().unwrap() > 50, "{listed}");
}

/// Members that are removed, or may only read from now on, are stopped within seconds; what they have not sent stays.
#[test]
fn a_member_that_is_removed_is_out_within_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let band = Band::start(dir.path(), &["keola", "leilani"]);
    let space = band.of("keola").create("band").unwrap();
    let code = band.of("keola").invite(space.id, SpaceRole::Writer, None, true).unwrap().code;
    band.of("leilani").join(&code).unwrap();
    let replica = member(dir.path(), "tablet", space.id);
    let key = band.directory.create_key("leilani", None, true).unwrap();
    let secrets = || SecretFiles::beside(replica.path());
    let at = Relay::new(&band.relay.url());
    replica.sign_in(&at, &key, &secrets(), NAME).unwrap();
    replica.connect(at.device_key_in(secrets(), NAME)).unwrap();
    replica.documents("songs").upsert("1", &json!({ "title": "Sent" })).unwrap();
    wait_until("it is sent", Duration::from_secs(10), || replica.status().pending == 0);
    band.of("keola").set_role(space.id, "leilani", SpaceRole::Reader).unwrap();
    wait_until("it may only read", Duration::from_secs(5), || {
        replica
            .documents("songs")
            .upsert("2", &json!({ "title": "Not sent", "n": Instant::now().elapsed().as_nanos() as u64 }))
            .unwrap();
        std::thread::sleep(Duration::from_millis(200));
        replica.status().pending > 0
    });
    band.of("keola").remove(space.id, "leilani").unwrap();
    wait_until("it is out", Duration::from_secs(5), || {
        replica.status().last_error.is_some_and(|error| error.code == "sync-forbidden")
    });
    assert_eq!(contents(&replica)[1].3["title"], "Not sent");
    assert!(replica.status().pending > 0);
    // A code of before does not bring it back; another one does.
    assert!(matches!(band.of("leilani").join(&code), Err(SpaceError::NotThere { .. })));
    let code = band.of("keola").invite(space.id, SpaceRole::Writer, None, true).unwrap().code;
    band.of("leilani").join(&code).unwrap();
    wait_until("what was not sent is", Duration::from_secs(10), || {
        _ = replica.sync_now();
        replica.status().pending == 0
    });
}

/// A code for one is good for one, also if several come at a time; and limits are told.
#[test]
fn of_many_accounts_at_a_time_one_joins_with_a_code_for_one() {
    const ACCOUNTS: [&str; 6] = ["a0", "a1", "a2", "a3", "a4", "a5"];
    let dir = tempfile::tempdir().unwrap();
    let band = Band::start(dir.path(), &ACCOUNTS);
    let space = band.of("a0").create("band").unwrap();
    let code =
        band.of("a0").invite(space.id, SpaceRole::Reader, Some(Duration::from_secs(60)), false).unwrap();
    let joined = std::thread::scope(|scope| {
        let join = |account: &&str| {
            let (spaces, code) = (band.of(account), code.code.clone());
            scope.spawn(move || spaces.join(&code).is_ok())
        };
        let threads: Vec<_> = ACCOUNTS[1..].iter().map(join).collect();
        threads
            .into_iter()
            .filter(|_| true)
            .map(|thread| thread.join().unwrap())
            .filter(|joined| *joined)
            .count()
    });
    assert_eq!((joined, band.of("a0").members(space.id).unwrap().len()), (1, 2));
    assert!(matches!(band.of("a5").create("  "), Err(SpaceError::NotPossible { .. })));
    assert!(matches!(band.of("a0").create("band"), Err(SpaceError::NotPossible { .. })));
    // One that has expired, and one of a space that is gone.
    let short =
        band.of("a0").invite(space.id, SpaceRole::Reader, Some(Duration::from_secs(1)), true).unwrap();
    std::thread::sleep(Duration::from_millis(1_100));
    assert!(matches!(band.of("a1").invitation(&short.code), Err(SpaceError::NotThere { .. })));
    let code = band.of("a0").invite(space.id, SpaceRole::Reader, None, true).unwrap();
    band.of("a0").revoke_invites(space.id).unwrap();
    assert!(matches!(band.of("a1").join(&code.code), Err(SpaceError::NotThere { .. })));
    // Who has left before it was removed does not come back either.
    let code = band.of("a0").invite(space.id, SpaceRole::Reader, None, true).unwrap().code;
    band.of("a5").join(&code).unwrap();
    band.of("a5").leave(space.id).unwrap();
    assert!(matches!(band.of("a0").remove(space.id, "a5"), Err(SpaceError::NotPossible { .. })));
    assert!(matches!(band.of("a5").join(&code), Err(SpaceError::NotThere { .. })));
    for unseen in ["\u{3164}", "\u{2800}", "\u{e0041}", "a\nb"] {
        assert!(matches!(band.of("a0").create(unseen), Err(SpaceError::NotPossible { .. })), "{unseen:?}");
    }
    // A member that may write already does not lose that to a code for readers.
    let [writer, reader] = [SpaceRole::Writer, SpaceRole::Reader]
        .map(|role| band.of("a0").invite(space.id, role, None, true).unwrap().code);
    assert_eq!(band.of("a1").join(&writer).unwrap().role, SpaceRole::Writer);
    assert_eq!(band.of("a1").join(&reader).unwrap().role, SpaceRole::Writer);
    for _ in 1..100 {
        if band.of("a0").invite(space.id, SpaceRole::Reader, None, true).is_err() {
            return;
        }
    }
    panic!("there is no limit of invitations");
}

/// Accounts of before shared spaces could change hands, as the first version has left them.
#[test]
fn accounts_of_the_first_version_are_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    directory.add_account("keola").unwrap();
    let id = directory.create_space("band", "keola").unwrap();
    drop(directory);
    let file = dir.path().join("accounts.db");
    let conn = rusqlite::Connection::open(&file).unwrap();
    conn.execute_batch(
        "DROP TABLE audit; DROP TABLE erasure; DROP TABLE erasing_space; ALTER TABLE account DROP COLUMN erase_at; DROP TABLE console_link; DROP TABLE identity; DROP TABLE invite; ALTER TABLE shared_space DROP COLUMN log_of; ALTER TABLE shared_space ADD COLUMN removed_at INTEGER; PRAGMA user_version = 1",
    )
    .unwrap();
    drop(conn);
    let directory = Directory::open(dir.path()).unwrap();
    assert_eq!(directory.spaces().unwrap()[0].id, id);
    let log_of: String = rusqlite::Connection::open(&file)
        .unwrap()
        .query_row("SELECT log_of FROM shared_space", [], |row| row.get(0))
        .unwrap();
    assert_eq!(log_of, "keola");
    assert!(directory.identities().unwrap().is_empty());
}
