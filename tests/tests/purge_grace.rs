//! What another device has purged stays in the trash for a time, and can be brought back from there on all devices.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use motet::{DeletePolicy, FieldKind, Relay, Replica, Schema, WriteError};
use motet_tests::random::{Random, runs, seed};
use motet_tests::{TestRelay, contents, is_in_files, purge_song, sync, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

const WEEK: Duration = Duration::from_hours(7 * 24);

fn schema(policy: DeletePolicy) -> Schema {
    let schema = Schema::new().text("songs", "lyrics").field("songs", "plays", FieldKind::Counter);
    schema.field("songs", "verses", FieldKind::List).delete("songs", policy)
}

fn open(dir: &Path, name: &str, grace: Duration) -> Replica {
    Replica::builder(dir.join(format!("{name}.db"))).device_name(name).purge_grace(grace).open().unwrap()
}

fn lyrics(replica: &Replica, id: &str) -> Option<Value> {
    replica.documents("songs").get(id).unwrap().map(|record| record.value["lyrics"].clone())
}

/// Two devices that know the song `1`, which the first has purged, and the other has heard of that.
struct Purged {
    first: Replica,
    other: Replica,
    policy: DeletePolicy,
    relay: TestRelay,
    dir: TempDir,
}

impl Purged {
    fn with(policy: DeletePolicy) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let [first, other] = ["first", "other"].map(|name| open(dir.path(), name, WEEK));
        for device in [&first, &other] {
            device.apply_schema(&schema(policy)).unwrap();
        }
        let song = json!({ "lyrics": "E hoʻi", "plays": 3, "verses": ["a", "b"] });
        first.documents("songs").upsert("1", &song).unwrap();
        first.documents("songs").upsert("2", &json!({ "lyrics": "stays" })).unwrap();
        sync(&first, &relay.url());
        sync(&other, &relay.url());
        purge_song(&first, "1");
        let purged = Self { first, other, policy, relay, dir };
        purged.sync();
        purged
    }

    fn sync(&self) {
        for device in [&self.first, &self.other, &self.first, &self.other] {
            sync(device, &self.relay.url());
        }
    }

    /// A third device. All three know the song `3`.
    fn third(&self) -> Replica {
        let third = open(self.dir.path(), "third", WEEK);
        third.apply_schema(&schema(self.policy)).unwrap();
        self.other.documents("songs").upsert("3", &json!({ "lyrics": "one" })).unwrap();
        self.sync();
        sync(&third, &self.relay.url());
        third
    }

    /// All have the same, also one that comes new, and nothing is wrong with it.
    fn check(&self) {
        self.sync();
        let folder = tempfile::tempdir().unwrap();
        let fresh = open(folder.path(), "fresh", WEEK);
        fresh.apply_schema(&schema(self.policy)).unwrap();
        sync(&fresh, &self.relay.url());
        for device in [&self.first, &self.other, &fresh] {
            assert_eq!(device.verify().unwrap().problems, []);
            assert_eq!(contents(device), contents(&self.first));
            assert_eq!(device.status().pending, 0);
        }
    }
}

const POLICIES: [DeletePolicy; 3] = [DeletePolicy::EditWins, DeletePolicy::Wins, DeletePolicy::Latest];

#[test]
fn who_has_not_purged_finds_the_document_in_the_trash_and_restores_it_everywhere() {
    for policy in POLICIES {
        let purged = Purged::with(policy);
        let songs = purged.other.documents("songs");
        assert!(purged.first.documents("songs").trash().unwrap().is_empty());
        assert_eq!(lyrics(&purged.other, "1"), None);
        let trash = songs.trash().unwrap();
        assert_eq!(trash.len(), 1);
        assert_eq!(trash[0].fields["lyrics"], "E hoʻi");
        let leaves_at = trash[0].leaves_at.unwrap();
        assert_eq!([&purged.first, &purged.other].map(|d| d.counts().unwrap().leaving), [0, 1]);
        assert!((leaves_at - trash[0].deleted_at).unsigned_abs() >= WEEK.as_millis() as u64 - 60_000);
        purged.check();
        songs.document("1").restore().unwrap();
        assert!(purged.other.status().pending > 0);
        purged.check();
        for device in [&purged.first, &purged.other] {
            let song = device.documents("songs").get("1").unwrap().unwrap().value;
            assert_eq!(
                song,
                json!({ "id": "1", "lyrics": "E hoʻi", "plays": 3, "verses": ["a", "b"] }),
                "{policy:?}"
            );
        }
        // It is a document like any other: deleted, it is in the trash, and does not go by itself.
        songs.delete("1").unwrap();
        assert_eq!(songs.trash().unwrap()[0].leaves_at, None);
        purged.check();
    }
}

#[test]
fn nothing_else_is_made_of_a_purged_document_while_it_can_be_restored() {
    let purged = Purged::with(DeletePolicy::EditWins);
    let songs = purged.other.documents("songs");
    let refused = songs.upsert("1", &json!({ "lyrics": "again" })).unwrap_err();
    assert!(matches!(refused, WriteError::Purged { .. }), "{refused}");
    assert!(matches!(songs.patch("1", &json!({ "plays": 1 })), Err(WriteError::NotFound { .. })));
    assert_eq!(songs.trash().unwrap().len(), 1);
    // Who purges it as well does not wait.
    assert_eq!(songs.purge_trash(i64::MAX).unwrap(), 1);
    assert!(songs.trash().unwrap().is_empty());
    assert!(matches!(songs.document("1").restore(), Err(WriteError::NotFound { .. })));
    purged.check();
}

#[test]
fn a_restore_point_from_before_brings_it_back_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let [first, other] = ["first", "other"].map(|name| open(dir.path(), name, WEEK));
    first.documents("songs").upsert("1", &json!({ "lyrics": "E hoʻi" })).unwrap();
    sync(&first, &relay.url());
    sync(&other, &relay.url());
    other.create_restore_point("before").unwrap();
    purge_song(&first, "1");
    sync(&first, &relay.url());
    sync(&other, &relay.url());
    let restored = other.restore_point("before", None).unwrap();
    assert_eq!((restored.changed, restored.purged.len()), (1, 0));
    sync(&other, &relay.url());
    sync(&first, &relay.url());
    assert_eq!(lyrics(&first, "1"), Some(json!("E hoʻi")));
    assert_eq!(contents(&first), contents(&other));
}

#[test]
fn an_edit_that_did_not_know_of_the_purge_keeps_the_document() {
    let purged = Purged::with(DeletePolicy::EditWins);
    let third = purged.third();
    third.documents("songs").patch("3", &json!({ "lyrics": "one two" })).unwrap();
    purge_song(&purged.first, "3");
    purged.sync();
    assert!(purged.other.documents("songs").trash().unwrap().iter().any(|gone| gone.id == "3"));
    sync(&third, &purged.relay.url());
    purged.check();
    sync(&third, &purged.relay.url());
    for device in [&purged.first, &purged.other, &third] {
        assert_eq!(lyrics(device, "3"), Some(json!("one two")));
        assert!(device.documents("songs").trash().unwrap().iter().all(|gone| gone.id != "3"));
    }
}

/// A device whose clock is ahead of the machine's by as many milliseconds.
fn open_ahead(dir: &Path, name: &str, ahead: &Arc<AtomicI64>) -> Replica {
    let ahead = ahead.clone();
    let clock = move || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_millis() as i64 + ahead.load(Ordering::Relaxed)
    };
    Replica::builder(dir.join(format!("{name}.db"))).device_name(name).clock(clock).open().unwrap()
}

#[test]
fn when_its_time_is_over_it_goes_and_leaves_no_word() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let day = 86_400_000;
    // Its clock is late at first.
    let ahead = Arc::new(AtomicI64::new(-10 * day));
    let open_other = || open_ahead(dir.path(), "other", &ahead);
    let (first, other) = (open(dir.path(), "first", WEEK), open_other());
    first.documents("songs").upsert("1", &json!({ "title": "zzsecretzz" })).unwrap();
    first.documents("songs").upsert("2", &json!({ "title": "stays" })).unwrap();
    sync(&first, &relay.url());
    sync(&other, &relay.url());
    purge_song(&first, "1");
    sync(&first, &relay.url());
    sync(&other, &relay.url());
    assert_eq!(other.documents("songs").trash().unwrap().len(), 1);
    drop(other);
    ahead.store(-4 * day, Ordering::Relaxed);
    let other = open_other();
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(other.documents("songs").trash().unwrap().len(), 1, "six days are no week");
    assert!(is_in_files(dir.path(), "other.db", b"zzsecretzz"));
    drop(other);
    ahead.store(0, Ordering::Relaxed);
    let other = open_other();
    wait_until("it goes", Duration::from_secs(20), || other.documents("songs").trash().unwrap().is_empty());
    wait_until("its words", Duration::from_secs(20), || !is_in_files(dir.path(), "other.db", b"zzsecretzz"));
    assert!(matches!(other.documents("songs").document("1").restore(), Err(WriteError::NotFound { .. })));
    for device in [&first, &other] {
        sync(device, &relay.url());
        assert_eq!(device.verify().unwrap().problems, []);
        assert_eq!(device.documents("songs").list().unwrap().len(), 1);
    }
}

#[test]
fn a_repair_finds_what_is_to_go() {
    for damage in ["DELETE FROM leaving", "UPDATE leaving SET at = 'soon'", "UPDATE leaving SET at = 0"] {
        let mut purged = Purged::with(DeletePolicy::EditWins);
        let path = purged.dir.path().join("other.db");
        rusqlite::Connection::open(&path).unwrap().execute(damage, []).unwrap();
        purged.other = open(purged.dir.path(), "other", WEEK);
        std::thread::sleep(Duration::from_millis(1_500));
        assert_eq!(purged.other.documents("songs").trash().unwrap().len(), 1, "{damage}");
        assert_eq!(purged.other.verify().unwrap().problems.len(), 1, "{damage}");
        purged.other.repair().unwrap();
        let songs = purged.other.documents("songs");
        assert!(songs.trash().unwrap()[0].leaves_at.is_some_and(|at| at > 1_000_000), "{damage}");
        songs.document("1").restore().unwrap();
        purged.check();
    }
}

/// A device hears at once that another one has restored what was purged, and what it did with it then.
#[test]
fn a_later_purge_has_its_own_time_and_a_delete_none() {
    for policy in POLICIES {
        for is_purged in [true, false] {
            let purged = Purged::with(policy);
            let third = purged.third();
            purge_song(&purged.first, "3");
            purged.sync();
            sync(&third, &purged.relay.url());
            let leaves_at = || {
                let trash = third.documents("songs").trash().unwrap();
                trash.iter().find(|gone| gone.id == "3").unwrap().leaves_at
            };
            let first = leaves_at().unwrap();
            let songs = purged.other.documents("songs");
            songs.document("3").restore().unwrap();
            songs.patch("3", &json!({ "lyrics": "one two" })).unwrap();
            match is_purged {
                true => purge_song(&purged.other, "3"),
                false => songs.delete("3").unwrap(),
            }
            std::thread::sleep(Duration::from_millis(5));
            purged.sync();
            sync(&third, &purged.relay.url());
            match is_purged {
                true => assert!(leaves_at().unwrap() > first, "{policy:?}"),
                false => {
                    assert_eq!(leaves_at(), None, "{policy:?}");
                    third.documents("songs").upsert("3", &json!({ "lyrics": "again" })).unwrap();
                }
            }
            sync(&third, &purged.relay.url());
            purged.check();
        }
    }
}

/// One has purged a document, a second edits it unaware of that, and a third restores it; whoever hears of what first, all have the
/// restored document with the edit in it.
#[test]
fn who_purged_has_the_edit_and_the_rest_whichever_comes_first() {
    let first_seed = seed();
    let mut orders = vec!["EbaRc".to_owned()];
    orders.extend((0..runs(4_u64)).map(|run| {
        let mut random = Random(first_seed.wrapping_add(run));
        let mut left: Vec<char> = "EbaRc".chars().collect();
        let mut draw = || left.remove(random.below(left.len() as u64) as usize);
        (0..5).map(|_| draw()).collect()
    }));
    for (policy, order) in
        POLICIES.into_iter().flat_map(|policy| orders.iter().map(move |order| (policy, order)))
    {
        let purged = Purged::with(policy);
        let editor = purged.third();
        purge_song(&purged.first, "3");
        for device in [&purged.first, &purged.other] {
            sync(device, &purged.relay.url());
        }
        let edit = || editor.documents("songs").patch("3", &json!({ "lyrics": "one two" })).map(|_| ());
        let (mut is_edited, mut is_restored) = (false, false);
        for step in order.chars() {
            match step {
                // Where deletes win, it may have heard of the purge before.
                'E' => is_edited = edit().is_ok(),
                'R' => is_restored = purged.other.documents("songs").document("3").restore().is_ok(),
                'a' => _ = sync(&purged.first, &purged.relay.url()),
                'b' => _ = sync(&editor, &purged.relay.url()),
                _ => _ = sync(&purged.other, &purged.relay.url()),
            }
        }
        sync(&editor, &purged.relay.url());
        purged.check();
        sync(&editor, &purged.relay.url());
        let expected = match (is_edited, is_restored) {
            (true, _) => Some(json!("one two")),
            (false, true) => Some(json!("one")),
            (false, false) => None,
        };
        for device in [&purged.first, &purged.other, &editor] {
            assert_eq!(lyrics(device, "3"), expected, "seed {first_seed}: {policy:?} {order}");
        }
    }
}

/// A clock that is ahead by a month, which a relay has told, takes nothing.
#[test]
fn a_clock_that_runs_ahead_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let ahead = Arc::new(AtomicI64::new(0));
    let open_other = || open_ahead(dir.path(), "other", &ahead);
    let (first, other) = (open(dir.path(), "first", WEEK), open_other());
    first.documents("songs").upsert("1", &json!({ "title": "here" })).unwrap();
    sync(&first, &relay.url());
    sync(&other, &relay.url());
    purge_song(&first, "1");
    sync(&first, &relay.url());
    sync(&other, &relay.url());
    drop(other);
    ahead.store(30 * 86_400_000, Ordering::Relaxed);
    let other = open_other();
    sync(&other, &relay.url());
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(other.documents("songs").trash().unwrap().len(), 1);
}

/// Three devices, one without a time of grace, that write, delete, purge and restore in any order: all show the same in the end, and
/// what was restored last, known to all, is there.
#[test]
fn whatever_is_purged_and_restored_all_end_alike() {
    let first_seed = seed();
    for run in 0..runs(12_u64) {
        let seed = first_seed.wrapping_add(run);
        let mut random = Random(seed);
        let policy = POLICIES[random.below(3) as usize];
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let devices: Vec<Replica> = [WEEK, WEEK, Duration::ZERO]
            .iter()
            .zip(["a", "b", "c"])
            .map(|(grace, name)| open(dir.path(), name, *grace))
            .collect();
        devices.iter().for_each(|device| device.apply_schema(&schema(policy)).unwrap());
        let mut told = Vec::new();
        for step in 0..40_u64 {
            let at = random.below(3) as usize;
            let songs = devices[at].documents("songs");
            let id = random.below(3).to_string();
            let act = random.below(8);
            told.push((at, act, id.clone()));
            let text = |step: u64| json!({ "lyrics": format!("w{step}"), "verses": [format!("v{step}")] });
            match act {
                0 => _ = songs.upsert(&id, &text(step)),
                1 => _ = songs.patch(&id, &json!({ "plays": step })),
                2 => _ = songs.delete(&id),
                3 => _ = songs.delete(&id).and_then(|()| songs.purge_trash(i64::MAX).map(|_| ())),
                4 => _ = songs.document(&id).restore(),
                5 => _ = devices[at].undo(),
                _ => _ = sync(&devices[at], &relay.url()),
            }
        }
        for _ in 0..3 {
            devices.iter().for_each(|device| _ = sync(device, &relay.url()));
        }
        let fresh = open(dir.path(), "fresh", WEEK);
        fresh.apply_schema(&schema(policy)).unwrap();
        sync(&fresh, &relay.url());
        for device in devices.iter().chain([&fresh]) {
            assert_eq!(device.verify().unwrap().problems, [], "seed {seed}: {policy:?} {told:?}");
            assert_eq!(contents(device), contents(&devices[0]), "seed {seed}: {policy:?} {told:?}");
            assert_eq!(device.status().pending, 0, "seed {seed}");
        }
        // Brought back by one that has what it held, once all are up to date.
        let [a, b, c] = &devices[..] else { unreachable!() };
        a.documents("songs").upsert("4", &json!({ "lyrics": "kept" })).unwrap();
        [a, b, c, a].iter().for_each(|device| _ = sync(device, &relay.url()));
        purge_song(c, "4");
        [c, a, b].iter().for_each(|device| _ = sync(device, &relay.url()));
        a.documents("songs").document("4").restore().unwrap();
        [a, b, c, a].iter().for_each(|device| _ = sync(device, &relay.url()));
        for device in &devices {
            assert_eq!(lyrics(device, "4"), Some(json!("kept")), "seed {seed}");
        }
    }
}

/// What is here only to be restored goes to no remote that has nothing of it, and all of it goes there once it is restored.
#[test]
fn what_another_device_has_purged_is_not_sent_to_a_new_relay() {
    for policy in POLICIES {
        let purged = Purged::with(policy);
        let third = open(purged.dir.path(), "third", WEEK);
        third.apply_schema(&schema(policy)).unwrap();
        third.documents("songs").upsert("2", &json!({ "lyrics": "stays" })).unwrap();
        let folder = purged.dir.path().join("new");
        let new = TestRelay::start(&folder);
        let other = &purged.other;
        for _ in 0..2 {
            sync(other, &new.url());
            sync(&third, &new.url());
        }
        let is_there = || is_in_files(&folder, "", "E hoʻi".as_bytes());
        assert!(!is_there());
        assert_eq!(other.status().pending, 0);
        // Everything is compared, and it is still not sent.
        other.compare_with_relay(Relay::new(&new.url())).unwrap();
        assert!(!is_there());
        other.documents("songs").document("1").restore().unwrap();
        sync(other, &new.url());
        sync(&third, &new.url());
        assert!(is_there());
        assert_eq!(contents(&third), contents(other), "{policy:?}");
        assert_eq!(lyrics(&third, "1"), Some(json!("E hoʻi")));
        for device in [other, &third] {
            assert_eq!(device.verify().unwrap().problems, []);
        }
    }
}

/// Who has not heard of a purge brings the document to a new relay: who has heard of it tells it there.
#[test]
fn a_purge_follows_the_document_to_a_new_relay() {
    for policy in POLICIES {
        let purged = Purged::with(policy);
        let third = purged.third();
        purge_song(&purged.first, "3");
        sync(&purged.first, &purged.relay.url());
        sync(&purged.other, &purged.relay.url());
        assert_eq!(lyrics(&third, "3"), Some(json!("one")));
        let new = TestRelay::start(&purged.dir.path().join("new"));
        sync(&purged.other, &new.url());
        sync(&third, &new.url());
        for _ in 0..2 {
            sync(&purged.other, &new.url());
            sync(&third, &new.url());
        }
        assert_eq!(lyrics(&third, "3"), None, "{policy:?}");
        assert_eq!(contents(&third), contents(&purged.other), "{policy:?}");
        assert_eq!([&purged.other, &third].map(|device| device.status().pending), [0, 0]);
        // When the time is over nothing is left to send, and nothing is wrong.
        for device in [&purged.other, &third] {
            assert_eq!(device.verify().unwrap().problems, []);
        }
    }
}

/// The 30 days after which the relay's copy goes are over only when they are by the relay's time as well.
#[test]
fn a_clock_that_is_ahead_takes_no_purge_away_from_those_that_have_not_read_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let day = 24 * 60 * 60 * 1000;
    let ahead = Arc::new(AtomicI64::new(0));
    let (first, other) = (open_ahead(dir.path(), "first", &ahead), open(dir.path(), "other", WEEK));
    first.documents("songs").upsert("1", &json!({ "title": "here" })).unwrap();
    sync(&first, &relay.url());
    sync(&other, &relay.url());
    purge_song(&first, "1");
    sync(&first, &relay.url());
    ahead.store(31 * day, Ordering::Relaxed);
    first.connect(Relay::new(&relay.url())).unwrap();
    first.sync_now().unwrap();
    assert!(!first.documents("songs").document("1").compact().unwrap());
    first.disconnect();
    ahead.store(0, Ordering::Relaxed);
    for device in [&other, &first] {
        sync(device, &relay.url());
        assert!(device.documents("songs").get("1").unwrap().is_none());
    }
    assert_eq!(other.documents("songs").trash().unwrap().len(), 1);
}
