//! Words that are to be gone are in no file any more: not in free pages, not in SQLite's log, not in the full-text index, not in a copy.

use std::time::Duration;

use motet::{FieldKind, Replica, Schema};
use motet_tests::{TestRelay, contents, device, is_in_files, sync, wait_until};
use serde_json::json;

/// Text that is not compressed away, with a word that is nowhere else.
fn lyrics(word: &str, lines: u64) -> String {
    let mut state = 7_u64;
    let mut line = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{word} {:016x}\n", state)
    };
    (0..lines).map(|_| line()).collect()
}

#[test]
fn a_purge_leaves_no_word_on_any_device() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    for n in 0..60 {
        let text = lyrics(if n % 3 == 0 { "zzsecretzz" } else { "hiilawe" }, 1 + n % 40);
        a.documents("pieces").upsert(&n.to_string(), &json!({ "title": n, "lyrics": text })).unwrap();
        a.documents("pieces").document(&n.to_string()).splice_text("lyrics", 0, 0, "E ").unwrap();
    }
    for replica in [&a, &b] {
        sync(replica, &relay.url());
        assert!(!replica.documents("pieces").search("zzsecretzz", 3).unwrap().is_empty());
        replica.documents("pieces").search("hiilawe", 3).unwrap();
    }
    b.documents("pieces").document("3").splice_text("lyrics", 0, 0, "zzsecretzz once more ").unwrap();
    for replica in [&b, &a] {
        sync(replica, &relay.url());
    }
    for n in (0..60).step_by(3) {
        a.documents("pieces").delete(&n.to_string()).unwrap();
    }
    assert_eq!(a.documents("pieces").purge_trash(i64::MAX).unwrap(), 20);
    for replica in [&a, &b] {
        sync(replica, &relay.url());
    }
    for (name, replica) in [("a.db", &a), ("b.db", &b)] {
        wait_until(name, Duration::from_secs(20), || !is_in_files(dir.path(), name, b"zzsecretzz"));
        assert!(is_in_files(dir.path(), name, b"hiilawe"));
        assert!(replica.documents("pieces").search("zzsecretzz", 3).unwrap().is_empty());
        assert!(!replica.documents("pieces").search("hiilawe", 3).unwrap().is_empty());
        assert_eq!(replica.verify().unwrap().problems, []);
    }
    assert_eq!(contents(&a), contents(&b));
}

#[test]
fn what_was_erased_is_in_no_file_of_the_relay() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let relay = TestRelay::start(&data);
    let a = device(dir.path(), "a");
    for n in 0..40 {
        // One change, so that it is not compressed with others.
        let values = json!({ "title": format!("zzsecretzz{n}") });
        a.documents("private").upsert(&n.to_string(), &values).unwrap();
        a.documents("pieces").upsert(&n.to_string(), &json!({ "title": format!("hiilawe{n}") })).unwrap();
    }
    sync(&a, &relay.url());
    assert!(is_in_files(&data, "relay.db", b"zzsecretzz"));
    a.erase_remote("private").unwrap();
    sync(&a, &relay.url());
    wait_until("the relay", Duration::from_secs(20), || !is_in_files(&data, "relay.db", b"zzsecretzz"));
    assert!(is_in_files(&data, "relay.db", b"hiilawe"));
    let b = device(dir.path(), "b");
    sync(&b, &relay.url());
    assert_eq!(b.documents("pieces").list().unwrap().len(), 40);
}

#[test]
fn a_backup_holds_nothing_that_stays_here_and_a_failed_one_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    a.apply_schema(&Schema::new().field("accounts", "key", FieldKind::Local).local("keys")).unwrap();
    for n in 0..50 {
        let id = n.to_string();
        a.documents("accounts").upsert(&id, &json!({ "name": n, "key": lyrics("zzsecretzz", 20) })).unwrap();
        a.documents("keys").upsert(&id, &json!({ "value": lyrics("zzsecretzz", 30) })).unwrap();
    }
    // No row is left of what stays here.
    for n in 0..50 {
        let id = n.to_string();
        a.documents("keys").delete(&id).unwrap();
        a.documents("accounts").patch(&id, &json!({ "key": null })).unwrap();
    }
    a.documents("accounts").patch("1", &json!({ "key": "zzsecretzz" })).unwrap();
    let all: Vec<_> =
        a.documents("accounts").list().unwrap().iter().map(|record| record.id.clone()).collect();
    let copy = dir.path().join("copy.db");
    // Two at once: one of them makes the file, and nobody sees half of it.
    let done: Vec<bool> = std::thread::scope(|scope| {
        let backups: Vec<_> = (0..4).map(|_| scope.spawn(|| a.backup(&copy).is_ok())).collect();
        backups.into_iter().map(|backup| backup.join().unwrap()).collect()
    });
    assert_eq!(done.iter().filter(|done| **done).count(), 1);
    assert!(!is_in_files(dir.path(), "copy.db", b"zzsecretzz"));
    assert!(a.backup(dir.path().join("nowhere").join("copy.db")).is_err());
    let files: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(!files.iter().any(|name| name.to_string_lossy().contains("partial")), "{files:?}");
    let copy = Replica::open(&copy).unwrap();
    assert_eq!(copy.verify().unwrap().problems, []);
    let copied: Vec<_> =
        copy.documents("accounts").list().unwrap().iter().map(|record| record.id.clone()).collect();
    assert_eq!(copied, all);
    assert!(copy.documents("accounts").get("1").unwrap().unwrap().value.get("key").is_none());
}

/// What a relay holds of a purged document is erased there after a time of grace, by whichever device is connected then.
#[test]
fn a_purge_erases_at_the_relay_when_its_time_has_come() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let relay = TestRelay::start(&data);
    // The relay's clock counts as well: this one is behind by the time of grace first, and right then.
    let past = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let now = Arc::new(AtomicI64::new(past - 31 * 86_400_000));
    let clock = now.clone();
    let path = dir.path().join("a.db");
    let a =
        Replica::builder(path).device_name("a").clock(move || clock.load(Ordering::Relaxed)).open().unwrap();
    let b = device(dir.path(), "b");
    for id in ["1", "2"] {
        a.documents("pieces").upsert(id, &json!({ "title": format!("zzsecretzz{id}") })).unwrap();
    }
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    a.documents("pieces").delete("1").unwrap();
    a.documents("pieces").purge_trash(i64::MAX).unwrap();
    a.connect(motet::Relay::new(&relay.url())).unwrap();
    a.sync_now().unwrap();
    // Not yet: others are to read of the purge.
    assert!(!a.documents("pieces").document("1").compact().unwrap());
    assert!(is_in_files(&data, "relay.db", b"zzsecretzz1"));
    sync(&b, &relay.url());
    assert!(b.documents("pieces").get("1").unwrap().is_none());
    now.fetch_add(31 * 86_400_000, Ordering::Relaxed);
    assert!(a.documents("pieces").document("1").compact().unwrap());
    wait_until("the relay", Duration::from_secs(20), || !is_in_files(&data, "relay.db", b"zzsecretzz1"));
    assert!(is_in_files(&data, "relay.db", b"zzsecretzz2"));
    assert!(!a.documents("pieces").document("1").compact().unwrap(), "there is nothing more to erase");
    a.disconnect();
    let c = device(dir.path(), "c");
    for replica in [&a, &b, &c] {
        sync(replica, &relay.url());
        assert!(replica.documents("pieces").get("1").unwrap().is_none());
        assert_eq!((replica.status().pending, replica.quarantined(10).unwrap().len()), (0, 0));
        assert_eq!(replica.documents("pieces").list().unwrap().len(), 1);
    }
}
