//! The relay in the hands of those who run it: its folder, its log, its health.

use std::process::{Command, Stdio};
use std::time::Duration;

use motet::Relay;
use motet_proto::message::ErrorCode;
use motet_proto::{Kind, Message};
use motet_tests::attack::{self, Peer};
use motet_tests::raw::{entry, pull, push};
use motet_tests::{RelayProcess, contents, device, program, sync, wait_until};
use serde_json::json;

fn health(url: &str) -> (u16, String) {
    ask(url, "healthz")
}

fn readiness(url: &str) -> (u16, String) {
    ask(url, "readyz")
}

fn ask(url: &str, what: &str) -> (u16, String) {
    let answer = reqwest::blocking::get(format!("{url}/{what}")).unwrap();
    (answer.status().as_u16(), answer.text().unwrap())
}

#[cfg(unix)]
#[test]
fn a_folder_has_one_relay_and_nobody_else_reads_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let mut relay = RelayProcess::start(&data, "127.0.0.1:0", &[]);
    push(&relay.url(), vec![entry("song", Kind::Changes, vec![1])]);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for file in std::fs::read_dir(&data).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    let second = Command::new(program("motet-relay"))
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(&data)
        .output()
        .unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another relay uses"), "{said}");
    // The lock goes with the process, however it ends.
    relay.kill();
    let relay = RelayProcess::start(&data, "127.0.0.1:0", &[]);
    assert_eq!(pull(&relay.url()).len(), 1);
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let mut child = Command::new(program("motet-relay"))
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(&data)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let url = RelayProcess::url_of(&mut child);
    drop(child.stderr.take());
    push(&url, vec![entry("song", Kind::Changes, vec![1])]);
    // The next write fails, and that is logged.
    let conn = rusqlite::Connection::open(data.join("relay.db")).unwrap();
    conn.execute_batch("CREATE TRIGGER t BEFORE INSERT ON entry BEGIN SELECT RAISE(ABORT, 'planted'); END")
        .unwrap();
    let large = |n| entry("song", Kind::Changes, vec![n; 300_000]);
    for n in 2..5 {
        let failed = std::panic::catch_unwind(|| push(&url, vec![large(n)]));
        assert!(failed.is_err(), "nothing is acknowledged");
    }
    conn.execute_batch("DROP TRIGGER t").unwrap();
    push(&url, vec![large(9)]);
    assert_eq!(pull(&url).len(), 2);
    assert_eq!(readiness(&url), (200, "ready\n".into()));
    _ = child.kill();
    _ = child.wait();
}

#[test]
fn readiness_tells_when_the_relay_cannot_write_and_health_does_not_ask() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let relay = RelayProcess::start(&data, "127.0.0.1:0", &[]);
    assert_eq!(readiness(&relay.url()), (200, "ready\n".into()));
    let conn = rusqlite::Connection::open(data.join("relay.db")).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    wait_until("not ready", Duration::from_secs(20), || readiness(&relay.url()).0 == 503);
    let asked = std::time::Instant::now();
    assert_eq!(health(&relay.url()), (200, "ok\n".into()));
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    conn.execute_batch("ROLLBACK").unwrap();
    wait_until("ready again", Duration::from_secs(20), || readiness(&relay.url()).0 == 200);
}

#[cfg(unix)]
fn hang_up(relay: &RelayProcess) {
    assert!(Command::new("kill").args(["-HUP", &relay.pid().to_string()]).status().unwrap().success());
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_come_and_go_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, "one -> a\ntwo -> a\n").unwrap();
    let relay = RelayProcess::start(
        &dir.path().join("relay"),
        "127.0.0.1:0",
        &["--tokens", tokens.to_str().unwrap()],
    );
    let address = relay.address().to_owned();
    let mut one = Peer::welcome(&address, Some("one"), 1).await;
    let mut two = Peer::welcome(&address, Some("two"), 2).await;
    assert!(Peer::connect(&address, Some("three")).await.is_err());

    // A file that makes no sense changes nothing, and SIGHUP does not end the relay.
    std::fs::write(&tokens, "one -> a\nnonsense\n").unwrap();
    hang_up(&relay);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(two.push(vec![attack::entry(1, 1, Kind::Changes, 10)]).await.is_ok());

    // Without a signal it is noticed as well.
    std::fs::write(&tokens, "one -> a\nthree -> a\n").unwrap();
    let gone = tokio::time::timeout(Duration::from_secs(5), two.receive()).await;
    let gone = gone.expect("a removed token closes its sessions within 5 s");
    assert!(
        matches!(&gone, Some(Message::Error(error)) if error.code == ErrorCode::Unauthorized),
        "{gone:?}"
    );
    Peer::welcome(&address, Some("three"), 3).await;
    assert!(Peer::connect(&address, Some("two")).await.is_err());
    assert!(one.push(vec![attack::entry(1, 2, Kind::Changes, 10)]).await.is_ok());

    // The last one out.
    std::fs::write(&tokens, "# nobody\n").unwrap();
    hang_up(&relay);
    let gone = tokio::time::timeout(Duration::from_secs(5), one.receive()).await.unwrap();
    assert!(
        matches!(&gone, Some(Message::Error(error)) if error.code == ErrorCode::Unauthorized),
        "{gone:?}"
    );
    assert!(Peer::connect(&address, Some("three")).await.is_err());
}

#[cfg(unix)]
#[test]
fn a_full_relay_reads_and_erases_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let config = dir.path().join("relay.toml");
    let reserve =
        |bytes: u64| std::fs::write(&config, format!("[limits]\nreserve_bytes = {bytes}\n")).unwrap();
    reserve(0);
    let args = ["--config", config.to_str().unwrap()];
    let mut relay = RelayProcess::start(&data, "127.0.0.1:0", &args);
    let a = device(dir.path(), "a");
    a.documents("pieces").insert(&json!({ "id": "one", "lyrics": "x" })).unwrap();
    sync(&a, &relay.url());

    // There is never so much room: the relay starts all the same.
    relay.kill();
    reserve(1 << 60);
    let relay = RelayProcess::start(&data, relay.address(), &args);
    assert_eq!(health(&relay.url()), (200, "ok, read-only: the disk is full\n".into()));
    assert_eq!(readiness(&relay.url()).0, 503);
    let b = device(dir.path(), "b");
    sync(&b, &relay.url());
    assert_eq!(contents(&a), contents(&b), "what is there can be read");
    a.documents("pieces").insert(&json!({ "id": "two", "lyrics": "y" })).unwrap();
    a.connect(Relay::new(&relay.url())).unwrap();
    wait_until("told", Duration::from_secs(20), || {
        a.status().last_error.is_some_and(|error| error.message.contains("the relay is full"))
    });
    // Who asks is told at once.
    let asked = std::time::Instant::now();
    let refused = a.sync_now().unwrap_err();
    assert_eq!(refused.code(), "sync-relay-full", "{refused}");
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    let pending = a.pending_documents(10).unwrap();
    assert_eq!(pending.len(), 1, "the device keeps everything: {pending:?}");
    assert_eq!(push(&relay.url(), vec![entry("other", Kind::Erased, Vec::new())]).len(), 1);

    reserve(0);
    hang_up(&relay);
    wait_until("synced", Duration::from_secs(20), || a.sync_now().is_ok());
    sync(&b, &relay.url());
    assert_eq!(contents(&a), contents(&b));
}

#[test]
fn a_device_downloads_everything_from_a_relay_that_takes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let mut relay = RelayProcess::start(&data, "127.0.0.1:0", &[]);
    let a = device(dir.path(), "a");
    let songs = (0..6_000).map(|n| json!({ "id": format!("{n:04}"), "lyrics": format!("mele {n} {n}") }));
    let songs: Vec<_> = songs.collect();
    a.transaction(move |tx| tx.documents("pieces").upsert_many(&songs)).unwrap();
    sync(&a, &relay.url());
    relay.kill();
    let config = dir.path().join("relay.toml");
    std::fs::write(&config, format!("[limits]\nreserve_bytes = {}\n", 1_u64 << 60)).unwrap();
    let relay = RelayProcess::start(&data, relay.address(), &["--config", config.to_str().unwrap()]);
    let b = device(dir.path(), "b");
    b.documents("pieces").insert(&json!({ "id": "mine", "lyrics": "not sent yet" })).unwrap();
    b.connect(Relay::new(&relay.url())).unwrap();
    wait_until("downloaded", Duration::from_secs(60), || contents(&b).len() == 6_001);
    wait_until("told", Duration::from_secs(20), || {
        b.status().last_error.is_some_and(|error| error.code == "sync-relay-full")
    });
    assert_eq!(b.status().pending, 1);
    // Connected, with nothing under way: it neither asks again and again, nor says that all is safe.
    wait_until("at rest", Duration::from_secs(20), || b.status().state == motet::SyncState::Pending);
}

/// With a disk that is really full; only where a small one can be mounted.
#[cfg(target_os = "linux")]
#[test]
fn a_relay_starts_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let Some(_mounted) = motet_tests::mount_small(&disk, "24m") else { return };
    let config = dir.path().join("relay.toml");
    std::fs::write(&config, "[limits]\nreserve_bytes = 6000000\n").unwrap();
    let args = ["--config", config.to_str().unwrap()];
    let data = disk.join("relay");
    let mut relay = RelayProcess::start(&data, "127.0.0.1:0", &args);
    push(&relay.url(), vec![entry("song", Kind::Changes, vec![1; 100_000])]);
    let fill = || {
        let mut file = std::fs::File::create(disk.join("filler")).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 4_096]).is_ok() {}
    };
    std::thread::sleep(Duration::from_millis(1_500));
    fill();
    wait_until("noticed", Duration::from_secs(10), || health(&relay.url()).1.contains("read-only"));
    assert!(
        std::panic::catch_unwind(|| push(&relay.url(), vec![entry("song", Kind::Changes, vec![2])])).is_err()
    );
    relay.kill();
    fill();
    let relay = RelayProcess::start(&data, "127.0.0.1:0", &args);
    assert_eq!(pull(&relay.url()).len(), 1);
    std::fs::remove_file(disk.join("filler")).unwrap();
    wait_until("recovered", Duration::from_secs(10), || health(&relay.url()).1 == "ok\n");
    push(&relay.url(), vec![entry("song", Kind::Changes, vec![3])]);
    assert_eq!(pull(&relay.url()).len(), 2);
}
