//! Several relays over one Postgres and one NATS, all of them real and killed at will: no position skips, and nothing is lost.
#![cfg(target_os = "linux")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use motet::{Place, Relay, Replica, SyncState};
use motet_proto::message::Outcome;
use motet_proto::session::ReadOutcome;
use motet_proto::{DeviceId, DocumentId, Entry, EntryId, Kind, Position, SpaceId};
use motet_relay::config::Limits;
use motet_relay::directory::Directory;
use motet_relay::store::postgres::PostgresStore;
use motet_relay::store::{LogId, LogStore, StoreError};
use motet_tests::proxy::{Faults, Proxy};
use motet_tests::random::{Random, runs, seed};
use motet_tests::servers::{Nats, Postgres};
use motet_tests::{Admin, Cli, RelayProcess, contents, device, program, wait_until};
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

/// A relay over a database.
struct Node {
    process: RelayProcess,
    folder: std::path::PathBuf,
    args: Vec<String>,
}

impl Node {
    fn start(dir: &Path, name: &str, store: &str, nats: Option<&Nats>) -> Self {
        let mut args = vec!["--store".to_owned(), store.to_owned()];
        args.extend(nats.iter().flat_map(|nats| ["--nats".to_owned(), nats.url()]));
        let folder = dir.join(name);
        let process = RelayProcess::start(&folder, "127.0.0.1:0", &texts(&args));
        Self { process, folder, args }
    }

    fn restart(&mut self) {
        self.process.kill();
        let address = self.process.address().to_owned();
        self.process = RelayProcess::start(&self.folder, &address, &texts(&self.args));
    }

    fn signal(&self, signal: &str) {
        assert!(
            Command::new("kill").args([signal, &self.process.pid().to_string()]).status().unwrap().success()
        );
    }
}

fn texts(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

fn connect(replica: &Replica, node: &Node) {
    replica.connect(Relay::new(&node.process.url())).unwrap();
    replica.sync_now().unwrap();
}

/// What is written at one relay is at once with a device of another one, and where devices are too; without NATS it takes a while.
#[test]
fn devices_of_two_relays_hear_of_each_other() {
    let Some((postgres, mut nats)) = Postgres::start().zip(Nats::start()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let url = postgres.database("motet");
    let nodes = ["one", "two"].map(|name| Node::start(dir.path(), name, &url, Some(&nats)));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    connect(&a, &nodes[0]);
    connect(&b, &nodes[1]);
    // They have found NATS once where the other device is has arrived, which is told again.
    a.set_presence(Some(&Place::document("pieces", "mele"))).unwrap();
    wait_until("the other device is seen", 2 * SOON, || !b.peers().unwrap().is_empty());
    let mut slowest = Duration::ZERO;
    for n in 0..20 {
        a.documents("pieces").upsert(&n.to_string(), &json!({ "title": "E hoʻi mai" })).unwrap();
        let begun = Instant::now();
        wait_until("it is there", SOON, || b.documents("pieces").get(&n.to_string()).unwrap().is_some());
        slowest = slowest.max(begun.elapsed());
    }
    // Long before the relay would have looked by itself.
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    nats.kill();
    a.documents("pieces").upsert("late", &json!({ "title": "ua hiki mai" })).unwrap();
    wait_until("it is there without NATS", 2 * SOON, || b.documents("pieces").get("late").unwrap().is_some());
    nats.start_again();
    wait_until("notices pass again", 2 * SOON, || {
        let id = a.documents("pieces").insert(&json!({ "title": "hou" })).unwrap();
        std::thread::sleep(Duration::from_secs(1));
        b.documents("pieces").get(&id).unwrap().is_some()
    });
    assert!(contents(&a) == contents(&b));
}

/// Devices write all the time, while relays are killed and stopped, NATS is away and the database crashes.
#[test]
fn whatever_falls_nothing_is_lost() {
    let Some((mut postgres, mut nats)) = Postgres::start().zip(Nats::start()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let url = postgres.database("motet");
    let mut nodes = ["one", "two", "three"].map(|name| Node::start(dir.path(), name, &url, Some(&nats)));
    let devices: Vec<_> = (0..4).map(|n| device(dir.path(), &n.to_string())).collect();
    devices[0].documents("pieces").insert(&json!({ "id": "shared" })).unwrap();
    for (n, device) in devices.iter().enumerate() {
        connect(device, &nodes[n % 3]);
    }
    let mut random = Random(seed());
    let mut written = 0;
    let mut write = |random: &mut Random| {
        for _ in 0..10 {
            written += 1;
            let of = &devices[random.below(4) as usize];
            of.documents("pieces").upsert(&written.to_string(), &json!({ "title": "mele" })).unwrap();
            let line = json!({ format!("line{written}"): "ʻO ka leo" });
            of.documents("pieces").patch("shared", &line).unwrap();
            std::thread::sleep(Duration::from_millis(random.below(40)));
        }
    };
    for step in 0..runs(6_u64).max(5) {
        match step % 5 {
            0 => nodes[random.below(3) as usize].restart(),
            1 => {
                let node = &nodes[random.below(3) as usize];
                node.signal("-STOP");
                write(&mut random);
                node.signal("-CONT");
            }
            2 => postgres.crash(),
            3 => nats.kill(),
            _ => nats.start_again(),
        }
        write(&mut random);
    }
    for (n, device) in devices.iter().enumerate() {
        wait_until("everything is sent", 2 * SOON, || {
            device.on_foreground();
            _ = device.sync_now();
            device.status().pending == 0
        });
        assert_eq!(device.pending_documents(1).unwrap().len(), 0, "device {n}");
    }
    for device in &devices {
        wait_until("everything is here", 2 * SOON, || {
            device.sync_now().is_ok() && contents(device) == contents(&devices[0])
        });
    }
    let all = contents(&devices[0]);
    assert_eq!(all.len(), written + 1);
    let shared = devices[0].documents("pieces").get("shared").unwrap().unwrap();
    assert_eq!(shared.value.as_object().unwrap().len(), written + 1, "{shared:?}");
}

/// What the program prints about accounts of a database.
fn admin(store: &str, args: &[&str]) -> String {
    let mut command = Command::new(program("motet-relay"));
    let output = command.args(["--store", store]).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A device signs in at one relay and goes on at another; one that is signed out, or loses a space, is out everywhere within seconds, also without NATS.
#[test]
fn accounts_are_those_of_all_relays() {
    let Some(postgres) = Postgres::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let url = postgres.database("motet");
    for name in ["keola", "ʻohana Kealoha"] {
        admin(&url, &["account", "add", name]);
    }
    let nodes = ["one", "two"].map(|name| Node::start(dir.path(), name, &url, None));
    let keys = ["keola", "ʻohana Kealoha"].map(|name| admin(&url, &["key", "create", "--account", name]));
    let [a, b] = [("a", 0), ("b", 1)].map(|(name, at)| {
        let cli = Cli::init(dir.path(), name, &nodes[at].process.url());
        cli.ok_with(&["login", "--key-file", "-"], &keys[at]);
        cli
    });
    // The same file at the other relay: the device is known there, and its log too.
    a.ok_with(&["put", "songs", "--id", "1"], r#"{"title": "Hiʻilawe"}"#);
    a.ok(&["sync"]);
    assert!(admin(&url, &["device", "list"]).contains("keola"));
    assert!(admin(&url, &["account", "list", "--json"]).contains("\"documents\":1"));
    let space = admin(&url, &["space", "create", "ka hui", "--owner", "keola"]);
    admin(&url, &["space", "add", &space, "ʻohana Kealoha", "--role", "writer"]);
    let [shared, other] = [("shared", 0), ("other", 1)].map(|(name, at)| {
        let cli = Cli::new(dir.path(), name);
        let url = nodes[at].process.url();
        cli.ok(&["init", "--device", name, "--relay", &url, "--space-id", &space]);
        let key =
            admin(&postgres.url("motet"), &["key", "create", "--account", ["keola", "ʻohana Kealoha"][at]]);
        cli.ok_with(&["login", "--key-file", "-"], &key);
        cli
    });
    shared.ok_with(&["put", "songs", "--id", "7"], r#"{"title": "Kaulana nā pua"}"#);
    wait_until("the space is known to both relays", SOON, || shared.run(&["sync"]).status.success());
    wait_until("what one member writes is there for the other", SOON, || {
        other.run(&["sync"]).status.success() && other.run(&["get", "songs", "7"]).status.success()
    });
    admin(&url, &["space", "remove", &space, "ʻohana Kealoha"]);
    wait_until("who was removed is out", SOON, || !other.run(&["sync"]).status.success());
    let id = b.json(&["status", "--json"])["device_id"].as_str().unwrap().to_owned();
    b.ok(&["sync"]);
    admin(&url, &["device", "revoke", &id]);
    wait_until("who was signed out is out", SOON, || b.run(&["sync"]).status.code() == Some(4));
}

/// A relay over a folder goes on over a database: its devices notice nothing.
#[test]
fn a_relay_that_has_moved_into_a_database_goes_on() {
    let Some(postgres) = Postgres::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (admin_of_folder, url) = (Admin(dir.path().join("relay")), postgres.database("motet"));
    admin_of_folder.ok(&["account", "add", "keola"]);
    let key = admin_of_folder.ok(&["key", "create", "--account", "keola", "--reusable"]);
    let mut relay = RelayProcess::start(&admin_of_folder.0, "127.0.0.1:0", &[]);
    let devices = ["a", "b"].map(|name| {
        let cli = Cli::init(dir.path(), name, &relay.url());
        cli.ok_with(&["login", "--key-file", "-"], &key);
        cli
    });
    for n in 0..30 {
        devices[0].ok_with(&["put", "songs", "--id", &n.to_string()], r#"{"title": "E hoʻi mai"}"#);
    }
    devices[0].ok(&["sync"]);
    devices[1].ok(&["sync"]);
    devices[1].ok(&["delete", "songs", "3"]);
    assert!(admin_of_folder.fails(&["migrate", "--store", &url]).contains("another relay uses"));
    let address = relay.address().to_owned();
    relay.terminate();
    let said = admin_of_folder.ok(&["migrate", "--store", &url]);
    assert!(said.starts_with("copied 1 logs, ") && said.contains("1 accounts"), "{said}");
    // What is in the folder still is served by mistake no more, and changed neither.
    for args in [
        &["migrate", "--store", &url][..],
        &["account", "list"],
        &["key", "create", "--account", "keola"],
        &["verify"],
    ] {
        assert!(admin_of_folder.fails(args).contains("has moved into"), "{args:?}");
    }
    let _relay = RelayProcess::start(&dir.path().join("empty"), &address, &["--store", &url]);
    // Neither signs in again, nor reads or sends what the log has.
    let summary = devices[0].json(&["sync", "--json"]);
    assert_eq!((&summary["sent"], &summary["received"]), (&json!(0), &json!(0)), "{summary}");
    devices[1].ok(&["sync"]);
    devices[0].ok(&["sync"]);
    assert!(!devices[0].run(&["get", "songs", "3"]).status.success());
    assert!(devices[0].run(&["get", "songs", "4"]).status.success());
}

fn log() -> LogId {
    LogId { account: "keola".into(), space: SpaceId::DEFAULT }
}

fn entry(random: &mut Random, n: u64) -> Entry {
    let payload = [&n.to_be_bytes()[..], &vec![7; random.below(200) as usize]].concat();
    let document = DocumentId([random.below(5) as u8; 16]);
    Entry::new(SpaceId::DEFAULT, document, DeviceId([1; 16]), Kind::Changes, 0, payload)
}

/// Relays append to one log at the same time, over connections that break at any moment, beside a transaction that somebody has left open. Whoever reads
/// meanwhile sees every number once and in order, and what was acknowledged is there once, under the number that was told.
#[test]
fn numbers_are_in_the_order_of_commits() {
    let Some(postgres) = Postgres::start() else { return };
    postgres.database("motet");
    let seed = seed();
    let faults = Faults {
        latency: Duration::from_millis(1),
        resets: 400,
        lost_answers: 400,
        breaks_within: 60_000,
        ..Faults::default()
    };
    let proxies: Vec<_> =
        (0..3).map(|n| Proxy::start(([127, 0, 0, 1], postgres.port()).into(), faults, seed ^ n)).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let whole = postgres.url("motet");
    let _idle =
        postgres.open_session("motet", "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT txid_current();");
    runtime.block_on(async {
        let reader = Arc::new(PostgresStore::open(&whole, 2, &Limits::default()).await.unwrap());
        let done = Arc::new(AtomicBool::new(false));
        let reading = tokio::spawn(follow(reader.clone(), done.clone()));
        let writers = proxies.iter().enumerate().map(|(n, proxy)| {
            let url = format!("postgres://postgres@127.0.0.1:{}/motet?sslmode=disable", proxy.port());
            tokio::spawn(async move { write(&url, Random(seed ^ 77 ^ n as u64), n as u64).await })
        });
        let mut acknowledged = BTreeMap::new();
        for written in writers.collect::<Vec<_>>() {
            acknowledged.extend(written.await.unwrap());
        }
        done.store(true, Ordering::Relaxed);
        let seen = reading.await.unwrap();
        for (id, seq) in &acknowledged {
            assert_eq!(seen.get(seq), Some(id), "number {seq}");
        }
        let all: BTreeSet<_> = seen.values().collect();
        assert_eq!(all.len(), seen.len(), "an entry is there twice");
        assert_eq!(*seen.keys().last().unwrap(), seen.len() as u64);
        println!("{} entries, {} acknowledged", seen.len(), acknowledged.len());
    });
    let broken: u64 = proxies.iter().map(Proxy::broken).sum();
    assert!(broken > 0, "no connection broke");
}

/// Appends until everything is acknowledged, as a device does that sends again what it has heard nothing of.
async fn write(url: &str, mut random: Random, writer: u64) -> BTreeMap<EntryId, u64> {
    let store = loop {
        match PostgresStore::open(url, 3, &Limits::default()).await {
            Ok(store) => break store,
            Err(error) => println!("opened again: {error}"),
        }
    };
    let (mut acknowledged, mut n) = (BTreeMap::new(), 0);
    while n < 120 {
        let batch: Vec<_> =
            (0..1 + random.below(4)).map(|at| entry(&mut random, (writer << 32) | (n + at))).collect();
        n += batch.len() as u64;
        loop {
            match store.append(log(), batch.clone()).await {
                Ok(appended) => {
                    assert!(appended.failed.is_none(), "{:?}", appended.failed);
                    for (entry, outcome) in batch.iter().zip(&appended.outcome.outcomes) {
                        let Outcome::Stored(seq) = outcome else { panic!("{outcome:?}") };
                        acknowledged.insert(entry.id, *seq);
                    }
                    break;
                }
                Err(StoreError::Busy) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    acknowledged
}

/// Reads what is new until there is nothing new any more.
async fn follow(store: Arc<PostgresStore>, done: Arc<AtomicBool>) -> BTreeMap<u64, EntryId> {
    let (mut position, mut seen) = (Position::start(SpaceId::DEFAULT), BTreeMap::new());
    loop {
        let is_last = done.load(Ordering::Relaxed);
        let ReadOutcome::Page { entries, position: next, head } =
            store.read(&log(), Some(position)).await.unwrap()
        else {
            panic!("the position is not good any more");
        };
        let mut reached = position;
        for (seq, entry) in entries {
            reached = reached.next(entry.id);
            assert_eq!(reached.seq, seq, "a number was passed over");
            seen.insert(seq, entry.id);
        }
        assert_eq!(reached, next, "the tags do not tell what was read");
        position = next;
        if is_last && position.seq == head {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Whoever has an answer appends again at once, as devices do: nothing is dropped between two groups.
#[test]
fn an_append_right_after_another_is_written() {
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database("motet");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(PostgresStore::open(&url, 4, &Limits::default()).await.unwrap());
        let writers = (0..4).map(|writer| {
            let (store, mut random) = (store.clone(), Random(writer));
            tokio::spawn(async move {
                for n in 0..250 {
                    let appended =
                        store.append(log(), vec![entry(&mut random, (writer << 32) | n)]).await.unwrap();
                    assert!(appended.failed.is_none());
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        assert_eq!(store.head(&log()).await.unwrap(), 1_000);
        assert_eq!(store.state().queued, (0, 0));
    });
}

#[test]
fn relays_that_start_at_the_same_time_have_the_same_tables() {
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database("motet");
    let starting = (0..4).map(|_| {
        let url = url.clone();
        std::thread::spawn(move || {
            Directory::connect(&url).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { PostgresStore::open(&url, 2, &Limits::default()).await.unwrap().id() })
        })
    });
    let ids: BTreeSet<_> =
        starting.collect::<Vec<_>>().into_iter().map(|start| start.join().unwrap()).collect();
    assert_eq!(ids.len(), 1);
}

/// A relay that is stopped while it holds a log keeps others from it for a moment only.
#[test]
fn somebody_who_holds_a_log_and_is_stopped_is_not_waited_for() {
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database("motet");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = PostgresStore::open(&url, 2, &Limits::default()).await.unwrap();
        let mut random = Random(1);
        store.append(log(), vec![entry(&mut random, 1)]).await.unwrap();
        // As a relay holds it in the middle of an erasure, with the settings that relays have.
        let sql =
            "SET idle_in_transaction_session_timeout = '1s'; BEGIN; SELECT 1 FROM log FOR NO KEY UPDATE;";
        let _held = postgres.open_session("motet", sql);
        let begun = Instant::now();
        let appended = store.append(log(), vec![entry(&mut random, 2)]).await.unwrap();
        assert!(appended.failed.is_none());
        assert!(begun.elapsed() < Duration::from_secs(5));
    });
}

/// While the database stands still the relay lives, says that it is not ready, and devices keep what they have; it goes on by itself.
#[test]
fn a_database_that_stands_still_is_waited_for() {
    let Some(postgres) = Postgres::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), "one", &postgres.database("motet"), None);
    let a = device(dir.path(), "a");
    connect(&a, &node);
    let status = |path: &str| {
        let client = reqwest::blocking::Client::builder().timeout(SOON).build().unwrap();
        client.get(format!("{}{path}", node.process.url())).send().unwrap().status().as_u16()
    };
    assert_eq!((status("/healthz"), status("/readyz")), (200, 200));
    postgres.freeze(true);
    a.documents("pieces").insert(&json!({ "title": "E hoʻi mai" })).unwrap();
    assert_eq!(status("/healthz"), 200);
    wait_until("it is not ready", SOON, || status("/readyz") == 503);
    assert_eq!(a.status().pending, 1);
    assert_ne!(a.status().state, SyncState::Synced);
    postgres.freeze(false);
    wait_until("it is ready again", SOON, || status("/readyz") == 200);
    a.on_foreground();
    wait_until("it is sent", SOON, || a.status().pending == 0);
}

/// The database is put back to what it was while relays and devices go on: what it has lost comes from the devices, though none of them connects anew.
#[test]
fn a_database_that_was_restored_gets_what_it_lacks() {
    let Some(postgres) = Postgres::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), "one", &postgres.database("motet"), None);
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    let write = |n: u32| a.documents("pieces").upsert(&n.to_string(), &json!({ "title": "mele" })).unwrap();
    (0..5).for_each(|n| drop(write(n)));
    connect(&a, &node);
    let keep = "CREATE TABLE kept_log AS TABLE log; CREATE TABLE kept_entry AS TABLE entry";
    postgres.query("motet", keep);
    (5..15).for_each(|n| drop(write(n)));
    a.sync_now().unwrap();
    assert_eq!(a.status().pending, 0);
    let restore = "BEGIN; LOCK TABLE log; TRUNCATE log, entry; INSERT INTO log SELECT * FROM kept_log;
                   INSERT INTO entry SELECT * FROM kept_entry; COMMIT";
    postgres.query("motet", restore);
    wait_until("what is missing is sent", 3 * SOON, || {
        postgres.query("motet", "SELECT COUNT(DISTINCT document) FROM entry").trim() == "15"
    });
    connect(&b, &node);
    assert!(contents(&a) == contents(&b));
}

/// Why a relay does not start names the database and no password.
#[test]
fn a_relay_without_its_database_says_so_and_tells_no_password() {
    let dir = tempfile::tempdir().unwrap();
    for (url, expected) in [
        ("postgres://relay:hunter2@127.0.0.1:1/motet", "127.0.0.1:1"),
        ("postgres://relay:hunter2@127.0.0.1:1/motet?sslmode=sometimes", "sslmode"),
        ("mysql://relay:hunter2@127.0.0.1/motet", "postgres://"),
    ] {
        let mut relay = Command::new(program("motet-relay"));
        relay.args(["--listen", "127.0.0.1:0", "--store", url, "--data"]).arg(dir.path().join("relay"));
        let output = relay.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(expected), "{url}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}
