//! Backups of a relay, made while it runs and restored later: devices that live go on, and nothing that they had is lost.

use std::path::Path;
use std::time::Duration;

use motet::secrets::SecretFiles;
use motet::{Relay, Replica, SyncError, SyncState};
use motet_relay::directory::Directory;
use motet_tests::{Admin, RelayProcess, contents, device, relay_file::at_rest, wait_until};
use serde_json::json;

const NAME: &str = "device-key";

struct Place {
    dir: tempfile::TempDir,
    admin: Admin,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let admin = Admin(dir.path().join("relay"));
        Self { dir, admin }
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Always at the same address, so that devices find it again.
    fn start(&self, port: u16) -> RelayProcess {
        RelayProcess::start(&self.admin.0, &format!("127.0.0.1:{port}"), &[])
    }

    fn device(&self, name: &str, key: &str, url: &str) -> Replica {
        let replica = device(self.dir.path(), name);
        replica.sign_in(&Relay::new(url), key, &SecretFiles::beside(replica.path()), NAME).unwrap();
        connect(&replica, url);
        replica
    }
}

fn connect(replica: &Replica, url: &str) {
    let secrets = SecretFiles::beside(replica.path());
    replica.connect(Relay::new(url).device_key_in(secrets, NAME)).unwrap();
}

fn write(replica: &Replica, from: usize, to: usize) {
    for n in from..to {
        let song =
            json!({ "title": format!("mele {n}"), "lyrics": "Kūmaka ka ʻikena iā Hiʻilawe\n".repeat(20) });
        replica.documents("pieces").upsert(&n.to_string(), &song).unwrap();
    }
}

fn port(relay: &RelayProcess) -> u16 {
    relay.address().rsplit(':').next().unwrap().parse().unwrap()
}

/// The drill: a backup of some time ago, the disk lost since then, devices that never stopped.
#[test]
fn a_backup_is_restored_and_devices_that_live_go_on_without_signing_in() {
    let place = Place::new();
    place.admin.ok(&["account", "add", "keola"]);
    let key = place.admin.ok(&["key", "create", "--account", "keola", "--reusable", "--expires", "never"]);
    let mut relay = place.start(0);
    let (port, url) = (port(&relay), relay.url());
    let (a, b, lost) =
        (place.device("a", &key, &url), place.device("b", &key, &url), place.device("lost", &key, &url));
    write(&a, 0, 20);
    for replica in [&a, &b, &lost] {
        replica.sync_now().unwrap();
    }
    purge_song_of(&a, "3");
    a.sync_now().unwrap();
    // While it runs, and while somebody writes.
    let writes = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&a, 20, 60));
        let told = place.admin.ok(&["backup", &place.at("backup")]);
        writer.join().unwrap();
        told
    });
    assert!(writes.contains(" 0 problems"), "{writes}");
    // What happens after it.
    a.sync_now().unwrap();
    b.sync_now().unwrap();
    write(&b, 60, 70);
    b.documents("pieces").delete("5").unwrap();
    b.sync_now().unwrap();
    place.admin.ok(&["device", "revoke", &lost.device_id().to_string()]);
    wait_until("it is signed out", Duration::from_secs(6), || lost.status().state == SyncState::AuthNeeded);
    a.documents("pieces").patch("1", &json!({ "title": "not sent yet" })).unwrap();
    assert!(
        place.admin.fails(&["restore", &place.at("backup")]).contains("another relay"),
        "not while it runs"
    );
    relay.terminate();
    std::fs::remove_file(place.admin.0.join("relay.db")).unwrap();
    let told = place.admin.ok(&["restore", &place.at("backup")]);
    assert!(!told.contains("the accounts are those of the backup"), "those that are there are newer: {told}");
    let relay = place.start(port);
    assert_eq!(relay.url(), url);
    for replica in [&a, &b, &a] {
        wait_until("it is back", Duration::from_secs(20), || replica.sync_now().is_ok());
    }
    // All that either device has is there again, and what was purged or deleted is not.
    let c_key = place.admin.ok(&["key", "create", "--account", "keola"]);
    let c = place.device("c", &c_key, &url);
    c.sync_now().unwrap();
    b.sync_now().unwrap();
    assert_eq!(contents(&a), contents(&c));
    assert_eq!(contents(&b), contents(&c));
    let pieces = c.documents("pieces");
    assert_eq!(pieces.get("1").unwrap().unwrap()["title"], "not sent yet");
    assert!(
        pieces.get("69").unwrap().is_some()
            && pieces.get("5").unwrap().is_none()
            && pieces.get("3").unwrap().is_none()
    );
    assert!(lost.sync_now().is_err(), "what was signed out stays so");
    // Now the whole disk is lost: also the accounts are those of the backup, and nobody knows who has used the sign-in keys since.
    drop(relay);
    let id = place.admin.ok(&["space", "create", "ka hui", "--owner", "keola"]);
    let band = Replica::builder(place.dir.path().join("band.db")).space(id.parse().unwrap()).open().unwrap();
    let relay = place.start(port);
    let key = place.admin.ok(&["key", "create", "--account", "keola", "--reusable"]);
    let secrets = || SecretFiles::beside(band.path());
    band.sign_in(&Relay::new(&url), &key, &secrets(), NAME).unwrap();
    connect(&band, &url);
    band.documents("songs").upsert("1", &json!({ "title": "Hiʻilawe" })).unwrap();
    band.sync_now().unwrap();
    drop(relay);
    std::fs::remove_dir_all(&place.admin.0).unwrap();
    let told = place.admin.ok(&["restore", &place.at("backup")]);
    assert!(
        told.contains("the accounts are those of the backup") && told.contains("1 sign-in key(s)"),
        "{told}"
    );
    let _relay = place.start(port);
    wait_until("it is back", Duration::from_secs(20), || a.sync_now().is_ok());
    let refused = device(place.dir.path(), "d");
    let of_refused = SecretFiles::beside(refused.path());
    assert!(
        refused.sign_in(&Relay::new(&url), &key, &of_refused, NAME).is_err(),
        "the old sign-in key is void"
    );
    // A shared space that this relay has lost is nobody's own: its members do not go on each alone.
    let new = place.admin.ok(&["key", "create", "--account", "keola"]);
    band.sign_in(&Relay::new(&url), &new, &secrets(), NAME).unwrap();
    assert!(matches!(band.sync_now(), Err(SyncError::Forbidden { .. })));
}

fn purge_song_of(replica: &Replica, id: &str) {
    replica.documents("pieces").delete(id).unwrap();
    assert!(replica.documents("pieces").purge_trash(i64::MAX).unwrap() > 0);
}

#[test]
fn what_is_no_backup_replaces_nothing() {
    let place = Place::new();
    assert!(place.admin.fails(&["backup", &place.at("backup")]).contains("holds no relay"));
    assert!(!Path::new(&place.at("backup")).exists());
    let mut relay = place.start(0);
    let a = device(place.dir.path(), "a");
    a.connect(Relay::new(&relay.url())).unwrap();
    write(&a, 0, 5);
    a.sync_now().unwrap();
    place.admin.ok(&["backup", &place.at("backup")]);
    assert!(place.admin.fails(&["backup", &place.at("backup")]).contains("is not empty"));
    relay.terminate();
    at_rest(&place.admin.0);
    let before = std::fs::read(place.admin.0.join("relay.db")).unwrap();
    std::fs::create_dir(place.at("empty")).unwrap();
    assert!(place.admin.fails(&["restore", &place.at("empty")]).contains("holds no backup"));
    // A backup on a medium that has lost bytes.
    let copy = Path::new(&place.at("backup")).join("relay.db");
    let sound = std::fs::read(&copy).unwrap();
    for damage in 0..3 {
        let mut bytes = sound.clone();
        match damage {
            0 => bytes.truncate(sound.len() / 2),
            1 => bytes.iter_mut().skip(4096).step_by(7).for_each(|byte| *byte ^= 0x55),
            _ => bytes.fill(0),
        }
        std::fs::write(&copy, bytes).unwrap();
        place.admin.fails(&["restore", &place.at("backup")]);
        assert_eq!(std::fs::read(place.admin.0.join("relay.db")).unwrap(), before, "{damage}");
        let mut left: Vec<_> =
            std::fs::read_dir(&place.admin.0).unwrap().map(|file| file.unwrap().file_name()).collect();
        left.retain(|name| {
            name.to_str().is_some_and(|name| name.contains("repaired") || name.contains("restored"))
        });
        assert!(left.is_empty(), "{left:?}");
    }
    // Into a folder that is new: another machine.
    std::fs::write(&copy, &sound).unwrap();
    let other = Place { admin: Admin(place.dir.path().join("other")), dir: tempfile::tempdir().unwrap() };
    let told = other.admin.ok(&["restore", &place.at("backup")]);
    assert!(told.starts_with("restored 1 logs, 5 entries"), "{told}");
    let relay = other.start(0);
    let b = device(place.dir.path(), "b");
    b.connect(Relay::new(&relay.url())).unwrap();
    b.sync_now().unwrap();
    assert_eq!(contents(&a), contents(&b));
    // What was replaced is kept, once.
    drop(relay);
    let told = other.admin.ok(&["restore", &place.at("backup")]);
    assert!(told.contains("relay.replaced.db"), "{told}");
    assert!(Directory::open_existing(&other.admin.0).unwrap().is_none());
    // And what was put aside is never written over: it may be the only copy.
    let kept = std::fs::read(other.admin.0.join("relay.replaced.db")).unwrap();
    let told = other.admin.ok(&["restore", &place.at("backup")]);
    assert!(told.contains("relay.replaced-2.db"), "{told}");
    assert_eq!(std::fs::read(other.admin.0.join("relay.replaced.db")).unwrap(), kept);
}

/// The moment in which one restores: the accounts are damaged as well.
#[test]
fn accounts_that_are_damaged_are_told_and_restored() {
    let place = Place::new();
    place.admin.ok(&["account", "add", "keola"]);
    let mut relay = place.start(0);
    place.admin.ok(&["backup", &place.at("backup")]);
    relay.terminate();
    let accounts = place.admin.0.join("accounts.db");
    let sound = std::fs::read(&accounts).unwrap();
    for bytes in [vec![], sound[..sound.len() / 2].to_vec(), vec![0x55; 8_192]] {
        for beside in ["accounts.db-wal", "accounts.db-shm"] {
            _ = std::fs::remove_file(place.admin.0.join(beside));
        }
        std::fs::write(&accounts, &bytes).unwrap();
        let verified = String::from_utf8(place.admin.run(&["verify"]).stdout).unwrap();
        assert!(verified.contains("accounts.db"), "{verified}");
        let told = place.admin.ok(&["restore", &place.at("backup")]);
        assert!(told.contains("the accounts are those of the backup"), "{told}");
        assert!(place.admin.ok(&["account", "list"]).contains("keola"));
        assert!(place.admin.ok(&["verify"]).contains(" 0 problems"));
    }
}

/// A relay that was killed leaves a log beside its file. It is of that file, whether that is still there or not.
#[test]
fn what_a_killed_relay_has_left_beside_its_file_is_not_taken_for_the_backups() {
    let place = Place::new();
    let mut relay = place.start(0);
    let a = device(place.dir.path(), "a");
    a.connect(Relay::new(&relay.url())).unwrap();
    write(&a, 0, 50);
    a.sync_now().unwrap();
    place.admin.ok(&["backup", &place.at("backup")]);
    write(&a, 50, 200);
    a.sync_now().unwrap();
    a.disconnect();
    relay.kill();
    assert!(std::fs::metadata(place.admin.0.join("relay.db-wal")).unwrap().len() > 0);
    std::fs::remove_file(place.admin.0.join("relay.db")).unwrap();
    assert!(place.admin.ok(&["restore", &place.at("backup")]).starts_with("restored 1 logs, 50 entries"));
    let verified = place.admin.ok(&["verify"]);
    assert!(verified.contains("1 logs, 50 entries, 0 problems"), "{verified}");
}
