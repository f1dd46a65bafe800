//! When and what a device syncs, as its user wants it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use motet::{Conditions, DocumentState, Relay, Replica, SyncMode, SyncPolicy, SyncState};
use motet_tests::{TestRelay, contents, device, sync, wait_until};
use serde_json::json;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_device_syncs_when_its_policy_says_and_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    let put = |id: &str| _ = a.documents("pieces").upsert(id, &json!({ "lyrics": id })).unwrap();
    let waits = || {
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!((a.status().pending, a.status().state), (1, SyncState::Pending));
    };
    let sent = || wait_until("it is sent", SOON, || a.status().pending == 0);

    a.set_sync_policy(SyncPolicy { mode: SyncMode::Manual, ..SyncPolicy::default() }).unwrap();
    put("manual");
    a.connect(Relay::new(&relay.url())).unwrap();
    waits();
    assert_eq!(a.sync_now().unwrap().sent, 1);
    put("background");
    waits();
    a.on_background(SOON).unwrap();
    assert_eq!(a.status().pending, 0);
    put("foreground");
    waits();
    a.on_foreground();
    sent();
    put("one");
    assert_eq!(a.documents("pieces").document("one").sync().unwrap().unwrap().state, DocumentState::Synced);

    a.set_sync_policy(SyncPolicy {
        mode: SyncMode::Every(Duration::from_millis(700)),
        ..SyncPolicy::default()
    })
    .unwrap();
    for id in ["first", "second"] {
        put(id);
        sent();
    }
    // Live, but not for money; live again as soon as the system says so.
    a.set_conditions(Conditions { metered: true, low_power: false });
    a.set_sync_policy(SyncPolicy { unmetered_only: true, ..SyncPolicy::default() }).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    put("dear");
    waits();
    a.set_conditions(Conditions::default());
    sent();
    put("live");
    sent();
    sync(&b, &relay.url());
    assert_eq!(contents(&a), contents(&b));
}

#[test]
fn a_deadline_in_the_background_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let a = device(dir.path(), "a");
    a.documents("pieces").upsert("1", &json!({ "lyrics": "kept" })).unwrap();
    // Takes connections and never answers.
    a.connect(Relay::new(&format!("http://{}", listener.local_addr().unwrap()))).unwrap();
    let begun = std::time::Instant::now();
    let error = a.on_background(Duration::from_millis(400)).unwrap_err();
    assert_eq!(error.code(), "sync-timeout");
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(a.status().pending, 1);
}

#[test]
fn nothing_of_an_excluded_collection_leaves_the_device_until_it_is_included() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    a.documents("health").upsert("sent", &json!({ "note": "public-4711" })).unwrap();
    sync(&a, &relay.url());
    a.documents("health").patch("sent", &json!({ "note": "s3cr3t-hou" })).unwrap();
    a.set_collection_sync("health", false).unwrap();
    a.documents("health").upsert("new", &json!({ "note": "s3cr3t-hou" })).unwrap();
    a.documents("pieces").upsert("1", &json!({ "lyrics": "words" })).unwrap();
    assert_eq!((a.unsynced_collections().unwrap(), a.status().pending), (vec!["health".to_owned()], 1));
    assert_eq!(
        a.documents("health").document("new").status().unwrap().unwrap().state,
        DocumentState::LocalOnly
    );
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    assert_eq!(b.documents("health").get("sent").unwrap().unwrap()["note"], "public-4711");
    assert_eq!(contents(&b).len(), 2);
    for file in std::fs::read_dir(dir.path().join("relay")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"s3cr3t"));
    }
    // What others write still arrives; and it is kept over a restart.
    b.documents("health").upsert("from b", &json!({ "note": "hello" })).unwrap();
    sync(&b, &relay.url());
    drop(a);
    let a = device(dir.path(), "a");
    sync(&a, &relay.url());
    assert_eq!(a.documents("health").list().unwrap().len(), 3);
    assert_eq!(b.documents("health").list().unwrap().len(), 2);

    a.set_collection_sync("health", true).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    assert_eq!(contents(&a), contents(&b));
    assert_eq!(b.documents("health").get("sent").unwrap().unwrap()["note"], "s3cr3t-hou");
}

#[test]
fn traffic_is_counted_by_days_and_syncs_by_collection() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    assert!(a.traffic(30).unwrap().is_empty());
    a.documents("pieces").upsert("1", &json!({ "lyrics": "words\n".repeat(100) })).unwrap();
    assert_eq!(a.last_synced_at("pieces").unwrap(), None);
    let summary = sync(&a, &relay.url());
    wait_until("it is counted", SOON, || !a.traffic(30).unwrap().is_empty());
    let days = a.traffic(30).unwrap();
    assert!(days[0].up >= summary.bytes_up && days[0].down >= summary.bytes_down, "{days:?} {summary:?}");
    assert_eq!(days[0].start % 86_400_000, 0);
    assert!(a.last_synced_at("pieces").unwrap().is_some());
    assert_eq!(a.last_synced_at("other").unwrap(), None);
}

#[test]
fn a_policy_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let policy = SyncPolicy {
        mode: SyncMode::Every(Duration::from_secs(900)),
        unmetered_only: true,
        rests_in_low_power: true,
        compare_every: None,
    };
    assert_eq!(device(dir.path(), "a").sync_policy(), SyncPolicy::default());
    device(dir.path(), "a").set_sync_policy(policy).unwrap();
    let (a, beside) = (device(dir.path(), "a"), device(dir.path(), "a"));
    assert_eq!(a.sync_policy(), policy);
    // Who has the file open as well hears of it at the latest with the next write.
    a.set_sync_policy(SyncPolicy::default()).unwrap();
    beside.documents("pieces").upsert("1", &json!({ "title": "x" })).unwrap();
    assert_eq!(beside.sync_policy(), SyncPolicy::default());
}

/// A round every 0 s would never rest, and one in a million years is none.
#[test]
fn a_policy_that_cannot_be_followed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    let every = |pause| SyncPolicy { mode: SyncMode::Every(pause), ..SyncPolicy::default() };
    let comparing = |pause| SyncPolicy { compare_every: Some(pause), ..SyncPolicy::default() };
    let kept = every(Duration::from_secs(60));
    a.set_sync_policy(kept).unwrap();
    for (policy, field) in [
        (every(Duration::ZERO), "mode"),
        (every(Duration::from_millis(1)), "mode"),
        (every(Duration::MAX), "mode"),
        (comparing(Duration::ZERO), "compare_every"),
        (comparing(Duration::from_millis(1)), "compare_every"),
        (comparing(Duration::MAX), "compare_every"),
    ] {
        let error = a.set_sync_policy(policy).unwrap_err();
        assert_eq!(error.code(), "write-bad-policy");
        assert!(error.to_string().contains(field), "{error}");
        assert_eq!(a.sync_policy(), kept, "the policy before stays");
        // Read from wherever an app keeps it.
        let json = serde_json::to_string(&policy).unwrap();
        let error = serde_json::from_str::<SyncPolicy>(&json).unwrap_err();
        assert!(error.to_string().contains(field), "{error}");
    }
    let json = serde_json::to_string(&kept).unwrap();
    assert_eq!(serde_json::from_str::<SyncPolicy>(&json).unwrap(), kept);
    assert_eq!(serde_json::from_str::<SyncPolicy>("{}").unwrap(), SyncPolicy::default());

    // In a file that somebody else has written: the file opens, and the replica does not race.
    drop(a);
    let conn = rusqlite::Connection::open(dir.path().join("a.db")).unwrap();
    let bad = serde_json::to_string(&every(Duration::ZERO)).unwrap();
    let rows = conn.execute("UPDATE meta SET value = ? WHERE value LIKE '%compare_every%'", [bad]).unwrap();
    assert_eq!(rows, 1);
    drop(conn);
    let a = device(dir.path(), "a");
    assert_eq!(a.sync_policy(), SyncPolicy::default());
}

/// What is pending is counted anew when a collection is switched off, whatever else is in the same transaction.
#[test]
fn what_is_pending_is_right_after_a_group_of_writes_of_which_one_fails() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    sync(&a, &relay.url());
    for n in 0..3 {
        a.documents("health").upsert(&n.to_string(), &json!({ "note": "private" })).unwrap();
    }
    a.documents("pieces").upsert("1", &json!({ "lyrics": "words" })).unwrap();
    assert_eq!(a.status().pending, 4);
    let (begun, holds) = std::sync::mpsc::channel();
    let slow = a.transaction_async(move |_| {
        begun.send(()).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        Ok(())
    });
    holds.recv().unwrap();
    // Both wait for the connection, and share a transaction.
    let switch = std::thread::spawn({
        let a = a.clone();
        move || a.set_collection_sync("health", false).unwrap()
    });
    std::thread::sleep(Duration::from_millis(100));
    let missing = a.documents("pieces").patch_async("no such piece", &json!({ "title": "x" }));
    slow.durable().unwrap();
    switch.join().unwrap();
    missing.durable().unwrap_err();
    assert_eq!(a.status().pending, 1);
}

/// What a position cannot tell of is found by itself, in time, and not for money.
#[test]
fn everything_is_compared_now_and_then() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let day = 86_400_000;
    let clock = Arc::new(AtomicI64::new(1_800_000_000_000));
    let at = {
        let clock = clock.clone();
        move || clock.load(Ordering::Relaxed)
    };
    let open = || Replica::builder(dir.path().join("a.db")).clock(at.clone()).open().unwrap();
    let relay = TestRelay::start(&data);
    let a = open();
    for n in 0..20 {
        a.documents("pieces").upsert(&format!("song{n}"), &json!({ "lyrics": "Ka pō\n" })).unwrap();
    }
    sync(&a, &relay.url());
    let port = relay.address().port();
    drop((relay, a));
    let conn = rusqlite::Connection::open(data.join("relay.db")).unwrap();
    conn.execute_batch("DELETE FROM entry_of WHERE seq = 7; DELETE FROM entry WHERE id & 0xffffffffff = 7")
        .unwrap();
    drop(conn);
    let relay = TestRelay::start_with(&data, motet_relay::auth::Auth::Local, port);
    let a = open();
    clock.fetch_add(29 * day, Ordering::Relaxed);
    assert_eq!(sync(&a, &relay.url()).sent, 0);
    clock.fetch_add(2 * day, Ordering::Relaxed);
    a.set_conditions(Conditions { metered: true, low_power: false });
    assert_eq!(sync(&a, &relay.url()).sent, 0);
    a.set_conditions(Conditions::default());
    assert_eq!(sync(&a, &relay.url()).sent, 1);
    assert_eq!(sync(&a, &relay.url()).received, 0, "once");
    let b = device(dir.path(), "b");
    sync(&b, &relay.url());
    assert_eq!(contents(&a), contents(&b));
}
