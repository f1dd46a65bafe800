//! Copies of a database: made by a backup, by hand, restored over a newer one.

use motet::Replica;
use motet_tests::{TestRelay, contents, device, sync};
use serde_json::json;

#[test]
fn a_copy_is_a_device_of_its_own_and_all_edits_of_both_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    let put = |replica: &Replica, id: &str, lyrics: &str| {
        replica.documents("pieces").upsert(id, &json!({ "lyrics": lyrics })).unwrap();
    };
    put(&a, "sent", "one\ntwo\n");
    sync(&a, &relay.url());
    put(&a, "pending", "not sent yet\n");
    a.documents("pieces").document("sent").splice_text("lyrics", 0, 0, "zero\n").unwrap();
    a.backup(dir.path().join("copy.db")).unwrap();
    let before = a.device_id();
    drop(a);
    std::fs::copy(dir.path().join("a.db"), dir.path().join("by hand.db")).unwrap();

    let (a, copy, by_hand) =
        (device(dir.path(), "a"), device(dir.path(), "copy"), device(dir.path(), "by hand"));
    assert_eq!(a.device_id(), before);
    let mut ids = [a.device_id(), copy.device_id(), by_hand.device_id()];
    ids.sort();
    assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
    // All three go on from the same pending edits.
    for (n, replica) in [&a, &copy, &by_hand].into_iter().enumerate() {
        replica.documents("pieces").document("sent").splice_text("lyrics", 0, 0, &format!("{n}\n")).unwrap();
        put(replica, &format!("new {n}"), "words\n");
    }
    for replica in [&a, &copy, &by_hand, &a, &copy, &by_hand] {
        assert_eq!(sync(replica, &relay.url()).quarantined, 0);
    }
    assert_eq!(contents(&a), contents(&copy));
    assert_eq!(contents(&a), contents(&by_hand));
    assert_eq!(contents(&a).len(), 5);
    let lyrics = a.documents("pieces").get("sent").unwrap().unwrap()["lyrics"].as_str().unwrap().to_owned();
    assert!((0..3).all(|n| lyrics.contains(&format!("{n}\n"))), "{lyrics}");
    assert_eq!(lyrics.matches("zero\n").count(), 1);
    // Once it is a device, it stays that device.
    let id = copy.device_id();
    drop(copy);
    assert_eq!(device(dir.path(), "copy").device_id(), id);
}

#[test]
fn a_device_restored_from_an_old_backup_gets_everything_back_and_takes_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    let pieces = a.documents("pieces");
    pieces.upsert("1", &json!({ "lyrics": "old\n", "title": "old" })).unwrap();
    a.backup(dir.path().join("backup.db")).unwrap();
    sync(&a, &relay.url());
    pieces.patch("1", &json!({ "title": "new" })).unwrap();
    pieces.upsert("2", &json!({ "lyrics": "made later\n" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    let before = contents(&b);
    drop((a, pieces));
    for suffix in ["-wal", "-shm"] {
        _ = std::fs::remove_file(dir.path().join(format!("a.db{suffix}")));
    }
    std::fs::rename(dir.path().join("backup.db"), dir.path().join("a.db")).unwrap();
    let a = device(dir.path(), "a");
    assert_eq!(contents(&a).len(), 1);
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    assert_eq!(contents(&a), before);
    assert_eq!(contents(&b), before);
}
