//! Two different changes of one actor with one number: every device ends with the same one, and no words are lost.

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, Change, ROOT};
use motet::Replica;
use motet_proto::Kind;
use motet_tests::raw::{entry, push};
use motet_tests::{TestRelay, contents, device, sync};
use serde_json::json;

/// A song, and two ways to go on with it as the same actor, the one with the smaller hash first.
struct Collision {
    song: Vec<u8>,
    winner: Vec<u8>,
    loser: Vec<u8>,
    /// Built on the loser.
    more: Vec<u8>,
}

fn put(am: &mut Automerge, field: &str, value: &str) -> Vec<u8> {
    let before = am.get_heads();
    am.transact_with::<_, _, (), _>(
        |_| CommitOptions::default().with_time(0),
        |tx| {
            tx.put(ROOT, field, value).unwrap();
            Ok(())
        },
    )
    .unwrap();
    am.save_after(&before)
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Change::from_bytes(bytes.to_vec()).unwrap().hash().0
}

fn collision() -> Collision {
    let mut am = Automerge::new().with_actor(ActorId::from([1; 16]));
    let song = put(&mut am, "title", "Collision");
    let (mut left, mut right) = (am.clone(), am.clone());
    left.set_actor(ActorId::from([1; 16]));
    right.set_actor(ActorId::from([1; 16]));
    let (a, b) = (put(&mut left, "left", "left"), put(&mut right, "right", "right"));
    assert_ne!(hash(&a), hash(&b));
    if hash(&a) < hash(&b) {
        Collision { song, winner: a, loser: b, more: put(&mut right, "more", "more") }
    } else {
        Collision { song, winner: b, loser: a, more: put(&mut left, "more", "more") }
    }
}

#[test]
fn the_same_twin_wins_in_whatever_order_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let Collision { song, winner, loser, more } = collision();
    let orders = [
        vec![&song, &winner, &loser, &more],
        vec![&song, &loser, &more, &winner],
        vec![&song, &loser, &winner, &more],
        vec![&more, &loser, &winner, &song],
    ];
    let mut ends = Vec::new();
    for (n, order) in orders.into_iter().enumerate() {
        // All at once, and one after the other.
        for apart in [false, true] {
            let relay = TestRelay::start(&dir.path().join(format!("relay {n} {apart}")));
            let a = device(dir.path(), &format!("a{n}{apart}"));
            for bytes in &order {
                push(&relay.url(), vec![entry("collision", Kind::Changes, bytes.to_vec())]);
                if apart {
                    sync(&a, &relay.url());
                }
            }
            sync(&a, &relay.url());
            // A device that reads the whole log at once, and what each then has to say to the others.
            let b = device(dir.path(), &format!("b{n}{apart}"));
            for replica in [&b, &a, &b] {
                sync(replica, &relay.url());
            }
            assert_eq!(contents(&a), contents(&b), "order {n}, apart: {apart}");
            for replica in [&a, &b] {
                assert!(replica.verify().unwrap().problems.is_empty());
                assert!(replica.quarantined(10).unwrap().len() >= 2, "what lost is set aside");
                assert_eq!(replica.status().pending, 0);
            }
            ends.push(contents(&a));
            let reopened = device(dir.path(), &format!("a{n}{apart}"));
            assert_eq!(contents(&reopened), ends[0]);
        }
    }
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:#?}");
    let song = &ends[0][0].3;
    assert!(song["title"] == "Collision" && song.get("more").is_none(), "{song}");
}

/// What lost may be part of a whole document that a new device has never merged before.
#[test]
fn a_new_device_takes_a_snapshot_that_holds_the_loser() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let Collision { song, winner, loser, .. } = collision();
    let mut am = Automerge::new();
    am.load_incremental(&song).unwrap();
    am.load_incremental(&loser).unwrap();
    let heads = am.get_heads().iter().map(|head| head.0).collect();
    let whole = Kind::Snapshot { heads, supersedes: Vec::new() };
    let others = (0..20).map(|n| entry(&format!("other{n}"), Kind::Changes, song.clone()));
    let both = [entry("song", whole, am.save_nocompress()), entry("song", Kind::Changes, winner)];
    push(&relay.url(), others.chain(both).collect());
    let a = device(dir.path(), "a");
    sync(&a, &relay.url());
    drop(a);
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    assert!(a.verify().unwrap().problems.is_empty());
    a.documents("pieces").patch("song", &json!({ "by": "a" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    assert_eq!(contents(&a), contents(&b));
    assert_eq!(b.documents("pieces").get("song").unwrap().unwrap()["by"], "a");
}

/// The process was copied with its memory: the other one has gone on as the same actor, and its change wins.
#[test]
fn who_wrote_the_twin_that_lost_writes_its_values_anew() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    a.documents("pieces")
        .upsert("song", &json!({ "title": "t", "lyrics": "one\ntwo\n", "sung": 1 }))
        .unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    a.documents("pieces").document("song").splice_text("lyrics", 4, 0, "written by a\n").unwrap();
    a.documents("pieces").patch("song", &json!({ "sung": 2 })).unwrap();
    let stored = changes(dir.path().join("a.db").as_path());
    let lost = stored.iter().find(|change| hash_of(change) == hash_of(&stored[stored.len() - 2])).unwrap();
    let other = collision_of(&stored, lost);
    push(&relay.url(), vec![entry("song", Kind::Changes, other)]);
    // Before a has sent its own, and after.
    for replica in [&a, &b, &a, &b] {
        sync(replica, &relay.url());
    }
    assert_eq!(contents(&a), contents(&b));
    let c = device(dir.path(), "c");
    sync(&c, &relay.url());
    assert_eq!(contents(&a), contents(&c));
    let song = c.documents("pieces").get("song").unwrap().unwrap();
    assert_eq!(song["lyrics"], "one\nwritten by a\ntwo\n");
    assert_eq!((&song["sung"], &song["other"]), (&json!(2), &json!("a stranger")));
    assert!(a.quarantined(10).unwrap().iter().any(|item| item.reason.contains("actor and number")));
    edits_go_on(&[&a, &b, &c], &relay.url());
}

fn edits_go_on(replicas: &[&Replica], url: &str) {
    for (n, replica) in replicas.iter().enumerate() {
        replica.documents("pieces").document("song").splice_text("lyrics", 0, 0, &format!("{n}\n")).unwrap();
    }
    replicas.iter().chain(replicas).for_each(|replica| _ = sync(replica, url));
    let first = contents(replicas[0]);
    assert!(replicas.iter().all(|replica| contents(replica) == first));
    let lyrics = first[0].3["lyrics"].as_str().unwrap();
    assert!((0..replicas.len()).all(|n| lyrics.contains(&format!("{n}\n"))), "{lyrics}");
}

fn changes(db: &std::path::Path) -> Vec<Change> {
    let conn = rusqlite::Connection::open(db).unwrap();
    motet_tests::raw::changes(&conn).into_iter().map(|chunk| Change::from_bytes(chunk).unwrap()).collect()
}

fn hash_of(change: &Change) -> [u8; 32] {
    change.hash().0
}

/// Another change with the actor and number of `lost`, made until it has the smaller hash.
fn collision_of(all: &[Change], lost: &Change) -> Vec<u8> {
    let mut base = Automerge::new();
    let before: Vec<_> = all.iter().take_while(|change| change.hash() != lost.hash()).cloned().collect();
    base.apply_changes(before).unwrap();
    assert_eq!(base.get_heads(), lost.deps(), "it follows what is there");
    for n in 0..1_000 {
        let mut am = base.clone();
        am.set_actor(lost.actor_id().clone());
        let options = || CommitOptions::default().with_message(format!("try {n}")).with_time(0);
        am.transact_with::<_, _, (), _>(
            |_| options(),
            |tx| {
                tx.put(ROOT, "other", "a stranger").unwrap();
                Ok(())
            },
        )
        .unwrap();
        let bytes = am.save_after(lost.deps());
        let change = Change::from_bytes(bytes.clone()).unwrap();
        assert_eq!((change.actor_id(), change.seq()), (lost.actor_id(), lost.seq()));
        if change.hash() < lost.hash() {
            return bytes;
        }
    }
    panic!("no smaller hash was found");
}
