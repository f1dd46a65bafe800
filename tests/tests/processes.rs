//! Several processes and long reads: who really syncs, and how large files become.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use motet::{Relay, SyncState};
use motet_proto::message::{ErrorCode, Message};
use motet_tests::attack::Peer;
use motet_tests::{Cli, RelayProcess, TestRelay, contents, device, sync, wait_until};
use serde_json::json;

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

/// A process that is frozen keeps its locks and its connections.
#[cfg(unix)]
#[test]
fn a_process_that_is_frozen_stops_no_other_from_syncing() {
    let dir = tempfile::tempdir().unwrap();
    let relay = RelayProcess::start(&dir.path().join("relay"), "127.0.0.1:0", &[]);
    let cli = Cli::init(dir.path(), "a", &relay.url());
    let mut holder = cli.command(&["watch"]).stdout(Stdio::null()).spawn().unwrap();
    wait_until("the first has synced", Duration::from_secs(10), || {
        cli.json(&["status", "--json"])["last_synced_at"].is_i64()
    });
    let a = device(dir.path(), "a");
    a.connect(Relay::new(&relay.url())).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    signal(holder.id(), "-STOP");
    a.documents("pieces").insert(&json!({ "id": "x", "lyrics": "x" })).unwrap();
    assert_eq!(a.status().state, SyncState::Pending);
    let begun = Instant::now();
    wait_until("the second syncs", Duration::from_secs(25), || a.status().state == SyncState::Synced);
    assert!(begun.elapsed() > Duration::from_secs(3), "it waits a little for the first");
    // It goes on as long as that lasts, and leaves it to the first when that runs again.
    let b = device(dir.path(), "b");
    b.documents("pieces").insert(&json!({ "id": "y", "lyrics": "y" })).unwrap();
    sync(&b, &relay.url());
    wait_until("live", Duration::from_secs(5), || contents(&a).len() == 2);
    signal(holder.id(), "-CONT");
    b.documents("pieces").insert(&json!({ "id": "z", "lyrics": "z" })).unwrap();
    sync(&b, &relay.url());
    wait_until("received by one of them", Duration::from_secs(10), || contents(&a).len() == 3);
    holder.kill().unwrap();
    holder.wait().unwrap();
}

fn size(path: &std::path::Path, suffix: &str) -> u64 {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    std::fs::metadata(name).map_or(0, |file| file.len())
}

#[test]
fn a_write_ahead_log_that_a_long_read_has_made_large_is_short_again_soon() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let relay = TestRelay::start(&data);
    let a = device(dir.path(), "a");
    let (file, relay_file) = (dir.path().join("a.db"), data.join("relay.db"));
    a.connect(Relay::new(&relay.url())).unwrap();
    a.documents("pieces").upsert("0", &json!({ "title": "first" })).unwrap();
    a.sync_now().unwrap();
    // Somebody reads both files for a while, as another program does.
    let readers = [&file, &relay_file].map(|path| {
        let conn = rusqlite::Connection::open(path).unwrap();
        conn.execute_batch("BEGIN").unwrap();
        let _: i64 = conn.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
        conn
    });
    let mut random = motet_tests::random::Random(7);
    for n in 0..40 {
        let words: String =
            (0..200_000).map(|_| char::from_u32(0x4e00 + random.below(20_000) as u32).unwrap()).collect();
        a.documents("pieces").upsert(&format!("{n}"), &json!({ "title": words })).unwrap();
    }
    a.sync_now().unwrap();
    let large = (size(&file, "-wal"), size(&relay_file, "-wal"));
    assert!(large.0 > 9 << 20 && large.1 > 9 << 20, "{large:?}");
    drop(readers);
    // The relay looks by itself, the device when it has synced again.
    a.documents("pieces").upsert("0", &json!({ "title": "last" })).unwrap();
    a.sync_now().unwrap();
    wait_until("short", Duration::from_secs(10), || {
        size(&file, "-wal") <= 8 << 20 && size(&relay_file, "-wal") <= 8 << 20
    });
    assert_eq!(a.verify().unwrap().problems.len(), 0);
}

/// A relay that stops names the time over which devices are to come back, and closes its sessions one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_stops_sends_devices_away_in_steps_and_names_a_window() {
    const DEVICES: u8 = 200;
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("relay.toml");
    std::fs::write(&config, "[limits]\nsessions_per_account = 1000\n").unwrap();
    let args = ["--config", config.to_str().unwrap()];
    let mut relay = RelayProcess::start(&dir.path().join("relay"), "127.0.0.1:0", &args);
    let mut peers = Vec::new();
    for n in 0..DEVICES {
        let space = motet_proto::SpaceId::DEFAULT;
        let (peer, welcome) = Peer::open(relay.address(), None, n, space).await;
        let Message::Welcome(welcome) = welcome else { panic!("{welcome:?}") };
        assert!(welcome.window_ms.is_some_and(|window| (1_000..=30_000).contains(&window)), "{welcome:?}");
        peers.push(peer);
    }
    let begun = Instant::now();
    let ends = peers.into_iter().map(|mut peer| {
        tokio::spawn(async move {
            loop {
                match peer.receive().await {
                    Some(Message::Error(error)) => return Some((error, begun.elapsed())),
                    Some(_) => {}
                    None => return None,
                }
            }
        })
    });
    let ends: Vec<_> = ends.collect();
    let (took, status) = tokio::task::block_in_place(|| relay.terminate());
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
    let mut times = Vec::new();
    for end in ends {
        let (error, at) = end.await.unwrap().expect("every session is told why it ends");
        assert_eq!(error.code, ErrorCode::ShuttingDown);
        assert!(error.window_ms.is_some());
        times.push(at.as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let spread = times[times.len() - 1] - times[0];
    assert!(spread > 0.4, "{spread} s between the first and the last");
}

#[test]
fn whoever_disconnects_is_not_told_for_ever_that_all_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    a.connect(Relay::new(&relay.url())).unwrap();
    a.sync_now().unwrap();
    wait_until("synced", Duration::from_secs(5), || a.status().state == SyncState::Synced);
    a.disconnect();
    let status = a.status();
    assert_eq!(status.state, SyncState::Paused);
    assert!(status.last_synced_at.is_some());
    a.documents("pieces").insert(&json!({ "lyrics": "x" })).unwrap();
    assert_eq!(a.status().state, SyncState::Pending);
}

/// SQLite has no queue for those who wait to write.
#[test]
fn somebody_who_writes_without_pause_lets_others_write_too() {
    const WRITES: u64 = 20;
    let dir = tempfile::tempdir().unwrap();
    let [patient, one, two] = ["patient", "one", "two"].map(|who| (device(dir.path(), "a"), who));
    let (done, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _done = OnDrop(&done);
        for (busy, who) in [&one, &two] {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    busy.documents("pieces")
                        .upsert(who, &json!({ "n": written.load(Ordering::Relaxed) }))
                        .unwrap();
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let (patient, who) = &patient;
        for n in 0..WRITES {
            std::thread::sleep(Duration::from_millis(5));
            patient.documents("pieces").upsert(who, &json!({ "n": n })).unwrap();
        }
    });
    let each = written.into_inner() / WRITES;
    assert!(each < 5_000, "others wrote {each} times before each write");
}

/// Says so when it goes, also by a panic: whoever waits for it ends then.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One of two that have the file open syncs it. The other tells how that stands, whether it listens or only asks.
#[test]
fn whoever_does_not_sync_tells_how_it_stands_as_well() {
    for (is_down, listens) in [(false, false), (true, false), (true, true)] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("relay");
        let relay = TestRelay::start(&folder);
        let (port, url) = (relay.address().port(), relay.url());
        let [first, second] = [(); 2].map(|()| device(dir.path(), "a"));
        let is_synced = |replica: &motet::Replica| {
            let status = replica.status();
            status.state == SyncState::Synced && status.pending == 0 && status.last_error.is_none()
        };
        first.connect(Relay::new(&url)).unwrap();
        wait_until("the first is connected", Duration::from_secs(10), || is_synced(&first));
        second.connect(Relay::new(&url)).unwrap();
        wait_until("the second is", Duration::from_secs(10), || is_synced(&second));
        let watched = listens.then(|| second.watch_status());
        let mut relay = Some(relay);
        if is_down {
            relay = None;
            wait_until("it is down", Duration::from_secs(10), || first.status().state == SyncState::Offline);
        }
        second.documents("pieces").upsert("1", &json!({ "lyrics": "x" })).unwrap();
        if is_down {
            relay = Some(TestRelay::start_with(&folder, motet_relay::auth::Auth::Local, port));
        }
        wait_until("the first syncs", Duration::from_secs(40), || is_synced(&first));
        match watched {
            Some(mut watched) => wait_until("it is told", Duration::from_secs(10), || {
                let status = watched.current();
                status.state == SyncState::Synced && status.pending == 0
            }),
            None => wait_until("it answers so", Duration::from_secs(10), || is_synced(&second)),
        }
        drop(relay);
    }
}
