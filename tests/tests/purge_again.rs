//! A purge reaches a relay again that has lost it: one that was wiped, restored from an older copy, exchanged, or told to forget.

use std::path::Path;
use std::time::Duration;

use motet::{DeletePolicy, FieldKind, Relay, Replica, Schema, SignOut};
use motet_tests::random::{Random, runs, seed};
use motet_tests::{TestRelay, contents, copy_folder, is_in_files, purge_song, sync, wait_until};
use serde_json::json;

const POLICIES: [DeletePolicy; 3] = [DeletePolicy::EditWins, DeletePolicy::Wins, DeletePolicy::Latest];
const WEEK: Duration = Duration::from_hours(7 * 24);

fn open(dir: &Path, name: &str, policy: DeletePolicy, grace: Duration) -> Replica {
    let path = dir.join(format!("{name}.db"));
    let replica = Replica::builder(path).device_name(name).purge_grace(grace).open().unwrap();
    let schema = Schema::new().text("songs", "lyrics").field("songs", "plays", FieldKind::Counter);
    let schema = schema.field("songs", "tags", FieldKind::Set);
    replica.apply_schema(&schema.delete("songs", policy)).unwrap();
    replica
}

fn shows(replica: &Replica, id: &str) -> bool {
    replica.documents("songs").get(id).unwrap().is_some()
}

/// How a relay comes to have lost what it was told of last.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Wiped,
    Restored,
    Other,
    Erased,
}

/// Two devices that know the song `1`. One purges it, and the other has not heard of that when the relay loses it.
fn lost(policy: DeletePolicy, grace: Duration, loss: Loss, first: usize) {
    let at = format!("{policy:?}, {grace:?}, {loss:?}, {first} first");
    let dir = tempfile::tempdir().unwrap();
    let (data, copy) = (dir.path().join("relay"), dir.path().join("copy"));
    let mut relay = TestRelay::start(&data);
    let devices = ["purger", "other"].map(|name| open(dir.path(), name, policy, grace));
    let [purger, other] = &devices;
    for id in ["1", "2"] {
        purger.documents("songs").upsert(id, &json!({ "lyrics": "zzsecretzz", "plays": 3 })).unwrap();
    }
    devices.iter().for_each(|device| _ = sync(device, &relay.url()));
    if let Loss::Restored = loss {
        drop(relay);
        copy_folder(&data, &copy);
        relay = TestRelay::start(&data);
    }
    purge_song(purger, "1");
    sync(purger, &relay.url());
    if let Loss::Erased = loss {
        purger.erase_remote("songs").unwrap();
        sync(purger, &relay.url());
        purger.set_collection_sync("songs", true).unwrap();
    } else {
        drop(relay);
        if !matches!(loss, Loss::Other) {
            std::fs::remove_dir_all(&data).unwrap();
        }
        if let Loss::Restored = loss {
            copy_folder(&copy, &data);
        }
        let folder = if let Loss::Other = loss { dir.path().join("other-relay") } else { data };
        relay = TestRelay::start(&folder);
    }
    for turn in 0..4 {
        sync(&devices[(first + turn) % 2], &relay.url());
    }
    if let Loss::Erased = loss {
        // Who has not heard of the purge sends its document when there is something to send.
        other.documents("songs").document("2").increment("plays", 1).unwrap();
        let brings = other.compare_with_relay(Relay::new(&relay.url()));
        brings.unwrap();
    }
    for turn in 0..4 {
        sync(&devices[(first + turn) % 2], &relay.url());
    }
    let fresh = open(dir.path(), "fresh", policy, grace);
    sync(&fresh, &relay.url());
    for device in [purger, &fresh] {
        assert!(!shows(device, "1"), "{at}");
        assert!(shows(device, "2"), "{at}");
        assert_eq!(device.status().pending, 0, "{at}");
        assert_eq!(device.counts().unwrap().quarantined, 0, "{at}");
        assert_eq!(device.verify().unwrap().problems, [], "{at}");
    }
    if !matches!(loss, Loss::Erased) {
        assert_eq!(contents(other), contents(purger), "{at}");
    }
    // It holds no word of it, and has nothing that is unsent.
    assert!(purger.sign_out(SignOut::Wipe).is_ok(), "{at}");
}

#[test]
fn who_has_purged_tells_a_relay_again_that_has_lost_it() {
    for policy in POLICIES {
        for (grace, first) in [(WEEK, 0), (Duration::ZERO, 1)] {
            for loss in [Loss::Wiped, Loss::Restored, Loss::Other, Loss::Erased] {
                lost(policy, grace, loss, first);
            }
        }
    }
}

/// An edit that has not seen the purge brings the document back where edits win, also by way of a relay that has lost everything.
#[test]
fn an_edit_that_has_not_seen_the_purge_counts_as_before() {
    for policy in POLICIES {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let [purger, other] = ["purger", "other"].map(|name| open(dir.path(), name, policy, WEEK));
        purger.documents("songs").upsert("1", &json!({ "lyrics": "one" })).unwrap();
        sync(&purger, &relay.url());
        sync(&other, &relay.url());
        purge_song(&purger, "1");
        sync(&purger, &relay.url());
        std::thread::sleep(Duration::from_millis(5));
        other.documents("songs").patch("1", &json!({ "lyrics": "one more" })).unwrap();
        let new = TestRelay::start(&dir.path().join("new"));
        for device in [&purger, &other, &purger, &other, &purger] {
            sync(device, &new.url());
        }
        let is_back = policy != DeletePolicy::Wins;
        assert_eq!([&purger, &other].map(|device| shows(device, "1")), [is_back; 2], "{policy:?}");
        assert_eq!(contents(&purger), contents(&other), "{policy:?}");
        for device in [&purger, &other] {
            assert_eq!(device.verify().unwrap().problems, []);
            assert_eq!((device.status().pending, device.counts().unwrap().quarantined), (0, 0), "{policy:?}");
        }
    }
}

/// What is kept of a purge for that has no words.
#[test]
fn no_word_is_kept_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let purger = open(dir.path(), "purger", DeletePolicy::EditWins, WEEK);
    purger.documents("songs").upsert("1", &json!({ "lyrics": "zzsecretzz" })).unwrap();
    sync(&purger, &relay.url());
    purge_song(&purger, "1");
    sync(&purger, &relay.url());
    wait_until("the words are gone", Duration::from_secs(20), || {
        !is_in_files(dir.path(), "purger", b"zzsecretzz")
    });
}

/// Random lives of some songs on three devices, with a relay that is wiped now and then: in the end all have the same.
#[test]
fn purges_and_wiped_relays_in_any_order() {
    let seed = seed();
    for run in 0..runs(12) {
        let mut random = Random(seed.wrapping_add(run));
        let policy = POLICIES[random.below(3) as usize];
        let dir = tempfile::tempdir().unwrap();
        let mut relay = TestRelay::start(&dir.path().join("relay-0"));
        let devices: Vec<_> = (0..3)
            .map(|n| {
                let grace = if random.below(2) == 0 { WEEK } else { Duration::ZERO };
                open(dir.path(), &format!("d{n}"), policy, grace)
            })
            .collect();
        let mut log = Vec::new();
        for turn in 0..24 {
            let (by, id) = (random.below(3) as usize, random.below(2).to_string());
            let songs = devices[by].documents("songs");
            let step = match random.below(12) {
                0..3 => {
                    // Where another device has purged it the id is used up for a time.
                    _ = songs.upsert(&id, &json!({ "lyrics": format!("w{turn}") }));
                    "puts"
                }
                3 | 4 if songs.get(&id).unwrap().is_some() => {
                    // What only the purger knows and the relay loses is nowhere: of that no purge can be told.
                    (0..6).for_each(|n| _ = sync(&devices[n % 3], &relay.url()));
                    if songs.get(&id).unwrap().is_none() {
                        continue;
                    }
                    purge_song(&devices[by], &id);
                    "purges"
                }
                5 if songs.get(&id).unwrap().is_some() => {
                    songs.patch(&id, &json!({ "title": format!("t{turn}") })).unwrap();
                    "edits"
                }
                6 => {
                    relay = TestRelay::start(&dir.path().join(format!("relay-{}", turn + 1)));
                    "exchanges the relay"
                }
                _ => {
                    sync(&devices[by], &relay.url());
                    "syncs"
                }
            };
            log.push(format!("{by} {step} {id}"));
        }
        for _ in 0..4 {
            devices.iter().for_each(|device| _ = sync(device, &relay.url()));
        }
        for device in &devices {
            assert_eq!(contents(device), contents(&devices[0]), "run {run}, {policy:?}: {log:#?}");
            assert_eq!(device.status().pending, 0, "run {run}, {policy:?}: {log:#?}");
            assert_eq!(device.verify().unwrap().problems, [], "run {run}: {log:#?}");
        }
    }
}

/// A device that has never had a document hears of it and of its purge at once, and owes it to another relay: the whole of it, or nothing.
#[test]
fn what_is_purged_when_it_arrives_is_whole_until_another_relay_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let relays = ["r0", "r1"].map(|name| TestRelay::start(&dir.path().join(name)));
    let [first, second] = [&relays[0], &relays[1]].map(TestRelay::url);
    let [d0, d1, d2, d3] =
        ["d0", "d1", "d2", "d3"].map(|name| open(dir.path(), name, DeletePolicy::EditWins, WEEK));
    sync(&d3, &second);
    d2.documents("songs").upsert("1", &json!({ "plays": 1, "lyrics": "Hoʻi\n", "tags": ["oli"] })).unwrap();
    sync(&d2, &first);
    sync(&d1, &first);
    sync(&d2, &second);
    sync(&d0, &second);
    for (replica, id) in [(&d0, "2"), (&d0, "3"), (&d1, "4")] {
        replica.documents("other").upsert(id, &json!({ "title": "Pua Ana" })).unwrap();
    }
    d1.documents("songs").delete("1").unwrap();
    d2.documents("songs").delete("1").unwrap();
    assert_eq!(d1.documents("songs").purge_trash(i64::MAX).unwrap(), 1);
    for replica in [&d0, &d1, &d2, &d3] {
        sync(replica, &first);
    }
    assert_eq!((d3.verify().unwrap().problems, d3.quarantined(10).unwrap()), (vec![], vec![]));
    sync(&d3, &second);
    sync(&d3, &first);
    assert_eq!((d3.verify().unwrap().problems, d3.quarantined(10).unwrap()), (vec![], vec![]));
    for replica in [&d0, &d1, &d2, &d3] {
        sync(replica, &first);
        assert!(!shows(replica, "1"));
    }
}

/// What is purged before there is a relay has no version and no content: it is sound, and stays away.
#[test]
fn what_is_purged_before_there_is_a_relay_is_sound_and_stays_away() {
    for restored in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let a = open(dir.path(), "a", DeletePolicy::EditWins, WEEK);
        a.documents("songs").upsert("1", &json!({ "lyrics": "Aia i laʻi" })).unwrap();
        if restored {
            a.documents("songs").delete("1").unwrap();
            a.documents("songs").document("1").restore().unwrap();
        }
        purge_song(&a, "1");
        for _ in 0..2 {
            assert_eq!(a.verify().unwrap().problems, []);
            assert_eq!(a.repair().unwrap().problems, []);
            assert!(!shows(&a, "1"));
            sync(&a, &relay.url());
        }
        let b = open(dir.path(), "b", DeletePolicy::EditWins, WEEK);
        sync(&b, &relay.url());
        assert_eq!(contents(&b), []);
        assert_eq!((a.verify().unwrap().problems, b.verify().unwrap().problems), (vec![], vec![]));
    }
}

/// A purge of what is nowhere any more waits without being counted: nobody can do anything about it.
#[test]
fn a_purge_of_what_the_relay_has_lost_troubles_nobody() {
    for policy in POLICIES {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("r0"));
        let [purger, other, third] = ["d0", "d1", "d2"].map(|name| open(dir.path(), name, policy, WEEK));
        for words in ["one", "one two"] {
            purger.documents("songs").upsert("1", &json!({ "lyrics": words })).unwrap();
        }
        purge_song(&purger, "1");
        sync(&purger, &relay.url());
        other.documents("songs").upsert("1", &json!({ "lyrics": "own" })).unwrap();
        drop(relay);
        let relay = TestRelay::start(&dir.path().join("r1"));
        for _ in 0..4 {
            [&purger, &other, &third].iter().for_each(|device| _ = sync(device, &relay.url()));
        }
        let fresh = open(dir.path(), "fresh", policy, WEEK);
        sync(&fresh, &relay.url());
        for device in [&purger, &other, &third, &fresh] {
            let at = format!("{policy:?}, {}", device.device_name());
            assert_eq!(device.counts().unwrap().quarantined, 0, "{at}: {:?}", device.quarantined(10));
            assert_eq!((device.status().pending, device.verify().unwrap().problems), (0, vec![]), "{at}");
        }
        assert_eq!(contents(&fresh), contents(&other), "{policy:?}");
        assert_eq!(contents(&fresh)[0].3["lyrics"], "own", "{policy:?}");
    }
}

/// Random lives of two songs on three devices, which sync with two relays in turn: edits, deletes, restorations and purges between syncs with either relay.
#[test]
fn purges_come_by_either_relay() {
    let seed = seed();
    for run in 0..runs(12) {
        let mut random = Random(seed.wrapping_add(run));
        let policy = POLICIES[random.below(3) as usize];
        let dir = tempfile::tempdir().unwrap();
        let relays = ["r0", "r1"].map(|name| TestRelay::start(&dir.path().join(name)));
        let grace = if random.below(2) == 0 { WEEK } else { Duration::ZERO };
        let devices: Vec<_> = (0..3).map(|n| open(dir.path(), &format!("d{n}"), policy, grace)).collect();
        let mut log = Vec::new();
        for turn in 0..20 {
            let (by, id) = (random.below(3) as usize, random.below(2).to_string());
            let songs = devices[by].documents("songs");
            let shown = songs.get(&id).unwrap().is_some();
            let step = match random.below(12) {
                // Where another device has purged it the id is used up for a time.
                0 | 1 if songs.upsert(&id, &json!({ "lyrics": format!("w{turn}") })).is_ok() => "puts",
                2 | 3 if shown => {
                    purge_song(&devices[by], &id);
                    "purges"
                }
                4 | 5 if shown => {
                    songs.patch(&id, &json!({ "title": format!("t{turn}") })).unwrap();
                    "edits"
                }
                6 if shown => {
                    songs.delete(&id).unwrap();
                    "deletes"
                }
                7 if songs.document(&id).restore().is_ok() => "restores",
                n => {
                    let at = n as usize % 2;
                    sync(&devices[by], &relays[at].url());
                    ["syncs with 0", "syncs with 1"][at]
                }
            };
            log.push(format!("{by} {step} {id}"));
        }
        for turn in 0..8 {
            devices.iter().for_each(|device| _ = sync(device, &relays[turn % 2].url()));
        }
        for device in &devices {
            let at = format!(
                "seed {}, {policy:?}, {grace:?}, {}: {log:#?}",
                seed.wrapping_add(run),
                device.device_name()
            );
            assert_eq!(contents(device), contents(&devices[0]), "{at}");
            assert_eq!(device.status().pending, 0, "{at}");
            assert_eq!(device.quarantined(10).unwrap(), [], "{at}");
            assert_eq!(device.verify().unwrap().problems, [], "{at}");
        }
    }
}
