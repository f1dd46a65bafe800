//! The relay in the hands of those who run it: its folder, its log, its health.

use std::process::{Command, Stdio};
use std::time::Duration;

use motet_proto::Kind;
use motet_tests::raw::{entry, pull, push};
use motet_tests::{RelayProcess, program, wait_until};

fn health(url: &str) -> (u16, String) {
    let answer = reqwest::blocking::get(format!("{url}/healthz")).unwrap();
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
    assert_eq!(health(&url), (200, "ok\n".into()));
    _ = child.kill();
    _ = child.wait();
}

#[test]
fn health_tells_when_the_relay_cannot_write() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let relay = RelayProcess::start(&data, "127.0.0.1:0", &[]);
    assert_eq!(health(&relay.url()), (200, "ok\n".into()));
    let conn = rusqlite::Connection::open(data.join("relay.db")).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    wait_until("ill", Duration::from_secs(20), || health(&relay.url()).0 == 503);
    conn.execute_batch("ROLLBACK").unwrap();
    wait_until("well again", Duration::from_secs(20), || health(&relay.url()).0 == 200);
}
