//! Accounts that mean harm to a relay, and a neighbour who should not notice. The measures are generous: other tests run beside these.

use std::path::Path;
use std::time::Duration;

use motet_proto::message::{Outcome, Pull, Rejection};
use motet_proto::{Entry, EntryId, Kind, Message, SpaceId, limits};
use motet_relay::auth::Auth;
use motet_relay::store::sqlite::SqliteStore;
use motet_tests::TestRelay;
use motet_tests::attack::{Latencies, Peer, entry, neighbour, nested};

/// Longest time that a neighbour may wait for a small push on a machine that runs other tests.
const PATIENCE: Duration = Duration::from_millis(400);

fn two_accounts(dir: &Path) -> Auth {
    let file = dir.join("tokens");
    std::fs::write(&file, "bad -> attacker\ngood -> neighbour\n").unwrap();
    Auth::from_file(&file).unwrap()
}

async fn relay(dir: &Path) -> (TestRelay, String) {
    let auth = two_accounts(dir);
    let data = dir.join("relay");
    let relay = tokio::task::spawn_blocking(move || TestRelay::start_with(&data, auth, 0)).await.unwrap();
    let address = relay.address().to_string();
    (relay, address)
}

fn snapshot(document: u64, number: u64, supersedes: Vec<EntryId>) -> Entry {
    entry(document, number, Kind::Snapshot { heads: vec![[1; 32]], supersedes }, 50)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_names_each_entry_once_and_not_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(dir.path()).await;
    let mut peer = Peer::welcome(&address, Some("bad"), 1).await;
    let change = entry(1, 1, Kind::Changes, 50);
    peer.push(vec![change.clone()]).await.unwrap();
    let forged = |supersedes: Vec<EntryId>| {
        let mut forged = snapshot(1, 2, Vec::new());
        forged.kind = Kind::Snapshot { heads: vec![[1; 32]], supersedes };
        forged.id = forged.compute_id(SpaceId::DEFAULT);
        forged
    };
    let numbered = |n: u32| EntryId([&n.to_be_bytes()[..], &[0; 28]].concat().try_into().unwrap());
    let many: Vec<_> = (0..=limits::SNAPSHOT_SUPERSEDES as u32).map(numbered).collect();
    let entries = vec![forged(vec![change.id; 1_000]), forged(many.clone()), forged(vec![change.id])];
    let outcomes = peer.push(entries).await.unwrap().outcomes;
    assert!(matches!(outcomes[0], Outcome::Rejected(Rejection::Malformed, _)), "{outcomes:?}");
    assert!(matches!(outcomes[1], Outcome::Rejected(Rejection::TooLarge, _)), "{outcomes:?}");
    assert!(matches!(outcomes[2], Outcome::Stored(2)), "{outcomes:?}");

    // Frames of a few kilobytes that open to millions of bytes of names that are nowhere.
    let attack = tokio::spawn({
        let address = address.clone();
        async move {
            let mut peer = Peer::welcome(&address, Some("bad"), 2).await;
            for push in 0..20 {
                let names = &many[..limits::SNAPSHOT_SUPERSEDES];
                let entries = (0..200).map(|n| snapshot(1, 1_000 * push + n, names.to_vec())).collect();
                let outcomes = peer.push(entries).await.unwrap().outcomes;
                assert!(outcomes.iter().all(|o| matches!(o, Outcome::Rejected(Rejection::Outdated, _))));
            }
        }
    });
    let during = neighbour(&address, Some("good"), 9, Duration::from_secs(2)).await;
    attack.await.unwrap();
    assert_eq!(during.refused, 0);
    assert!(during.share(0.9) < PATIENCE, "{:?} {:?}", during.share(0.5), during.share(0.9));
    let bytes = std::fs::metadata(dir.path().join("relay/relay.db")).unwrap().len();
    assert!(bytes < 2 << 20, "the log has grown to {bytes} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_snapshot_supersedes_all_that_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, address) = relay(dir.path()).await;
    let mut peer = Peer::welcome(&address, Some("bad"), 1).await;
    let changes: Vec<_> = (0..1_000).map(|n| entry(1, n, Kind::Changes, 20)).collect();
    let ids = changes.iter().map(|change| change.id).collect();
    peer.push(changes).await.unwrap();
    peer.push(vec![snapshot(1, 5_000, ids)]).await.unwrap();
    drop(peer);
    drop(relay);
    // Whatever was not marked when the relay stopped is marked by the next one.
    let store = SqliteStore::open(&dir.path().join("relay")).unwrap();
    let mut left = 0;
    loop {
        match motet_relay::store::LogStore::sweep(&store, i64::MAX).await.unwrap() {
            0 => break,
            swept => left += swept,
        }
    }
    assert!(left >= 1_000, "{left} entries have left");
    drop(store);
    let conn = rusqlite::Connection::open(dir.path().join("relay/relay.db")).unwrap();
    let kept: i64 = conn.query_row("SELECT COUNT(*) FROM entry WHERE kind <> x''", [], |r| r.get(0)).unwrap();
    assert_eq!(kept, 1);
}

/// What is erased is worked off in steps, and what was superseded is swept in steps: pushes of others go between them, also when one sweep
/// follows the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_holds_nobody_up() {
    const ENTRIES: u64 = 20_480;
    let dir = tempfile::tempdir().unwrap();
    let config = motet_relay::Config {
        retention: Duration::from_secs(1),
        auth: std::sync::Arc::new(two_accounts(dir.path())),
        ..motet_relay::Config::new(dir.path().join("relay"))
    };
    let relay = tokio::task::spawn_blocking(move || TestRelay::start_as(config)).await.unwrap();
    let address = relay.address().to_string();
    let mut peer = Peer::welcome(&address, Some("bad"), 1).await;
    let mut ids = Vec::new();
    for push in 0..ENTRIES / 1_024 {
        let entries: Vec<_> =
            (0..1_024).map(|n| entry(push % 2, push * 1_024 + n, Kind::Changes, 20)).collect();
        if push % 2 == 1 {
            ids.push(entries.iter().map(|entry| entry.id).collect::<Vec<_>>());
        }
        peer.push(entries).await.unwrap();
    }
    let watch = tokio::spawn({
        let address = address.clone();
        async move { neighbour(&address, Some("good"), 9, Duration::from_secs(4)).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    peer.push(vec![entry(0, 0, Kind::Erased, 8)]).await.unwrap();
    for (n, ids) in ids.into_iter().enumerate() {
        peer.push(vec![snapshot(1, 1_000_000 + n as u64, ids)]).await.unwrap();
    }
    let during = watch.await.unwrap();
    assert_eq!(during.refused, 0);
    assert!(during.share(0.98) < PATIENCE, "{:?} {:?}", during.share(0.5), during.share(0.98));
    assert!(during.times.len() > 40, "{} pushes in 4 s", during.times.len());
}

/// A frame of some hundred bytes that opens to 9 MB, in a message that has nothing to say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_frames_that_open_to_much_hold_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(dir.path()).await;
    // Eight attackers take this machine's cores as well: what else runs may take the rest for a moment, but not again and again.
    let mut slow = Vec::new();
    for _ in 0..3 {
        let during = beside_small_frames(&address).await;
        assert_eq!(during.refused, 0);
        if during.share(0.9) < PATIENCE {
            return;
        }
        slow.push((during.share(0.5), during.share(0.9)));
    }
    panic!("{slow:?}");
}

async fn beside_small_frames(address: &str) -> Latencies {
    let mut attacks = Vec::new();
    for device in 1..9 {
        let address = address.to_owned();
        attacks.push(tokio::spawn(async move {
            let end = tokio::time::Instant::now() + Duration::from_secs(2);
            let mut sent = 0;
            while tokio::time::Instant::now() < end {
                let mut peer = Peer::welcome(&address, Some("bad"), device).await;
                peer.send_bytes(nested([8, 3][sent % 2])).await;
                sent += 1;
                // It ends the session.
                while peer.receive().await.is_some() {}
            }
            sent
        }));
    }
    let during = neighbour(address, Some("good"), 9, Duration::from_secs(2)).await;
    for attack in attacks {
        assert!(attack.await.unwrap() > 0);
    }
    during
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erasing_much_holds_nobody_up_and_shows_at_once() {
    const ENTRIES: u64 = 30_720;
    let dir = tempfile::tempdir().unwrap();
    let (relay, address) = relay(dir.path()).await;
    let mut peer = Peer::welcome(&address, Some("bad"), 1).await;
    for push in 0..ENTRIES / 1_024 {
        let entries = (0..1_024).map(|n| entry(1, push * 1_024 + n, Kind::Changes, 20)).collect();
        peer.push(entries).await.unwrap();
    }
    let again = entry(1, 5, Kind::Changes, 20);
    let watch = tokio::spawn({
        let address = address.clone();
        async move { neighbour(&address, Some("good"), 9, Duration::from_secs(2)).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let erasure = entry(1, 0, Kind::Erased, 8);
    assert_eq!(peer.push(vec![erasure.clone()]).await.unwrap().outcomes, [Outcome::Stored(ENTRIES + 1)]);
    // It is erased as soon as that is known, and what comes after it is stored anew.
    let stale = snapshot(1, 77, vec![again.id]);
    let outcomes = peer.push(vec![stale, again.clone()]).await.unwrap().outcomes;
    assert!(matches!(outcomes[0], Outcome::Rejected(Rejection::Outdated, _)), "{outcomes:?}");
    assert_eq!(outcomes[1], Outcome::Stored(ENTRIES + 2));
    let mut entries = Vec::new();
    let mut after = None;
    loop {
        peer.send(&Message::Pull(Pull { id: 1, after, live: false })).await;
        let Some(Message::Page(page)) = peer.receive().await else { panic!("no page") };
        entries.extend(page.entries);
        after = Some(page.position);
        if !page.more {
            break;
        }
    }
    // Its own pushes are not sent back to a session, so another one looks too.
    assert!(entries.is_empty());
    drop(peer);
    let during = watch.await.unwrap();
    assert_eq!(during.refused, 0);
    assert!(during.share(0.98) < PATIENCE, "{:?} {:?}", during.share(0.5), during.share(0.98));
    drop(relay);

    let (relay, address) = self::relay(dir.path()).await;
    let mut peer = Peer::welcome(&address, Some("bad"), 2).await;
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        peer.send(&Message::Pull(Pull { id: 1, after, live: false })).await;
        let Some(Message::Page(page)) = peer.receive().await else { panic!("no page") };
        found.extend(page.entries);
        after = Some(page.position);
        if !page.more {
            break;
        }
    }
    assert_eq!(found, [erasure, again]);
    drop(relay);
    let store = SqliteStore::open(&dir.path().join("relay")).unwrap();
    while motet_relay::store::LogStore::sweep(&store, 0).await.unwrap() > 0 {}
    drop(store);
    let conn = rusqlite::Connection::open(dir.path().join("relay/relay.db")).unwrap();
    let sql = "SELECT COUNT(*) FROM entry WHERE kind <> x'' AND id < (1 << 41)";
    let kept: i64 = conn.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 2, "all the rest has left the file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_pushes_much_waits_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(dir.path()).await;
    let stop = std::time::Instant::now() + Duration::from_secs(3);
    let attackers: Vec<_> = (0..6)
        .map(|n: u64| {
            let address = address.clone();
            tokio::spawn(async move {
                let big = entry(n, n, Kind::Changes, limits::ENTRY_PAYLOAD_BYTES);
                let mut number = 0;
                while std::time::Instant::now() < stop {
                    let mut peer = Peer::welcome(&address, Some("bad"), n as u8).await;
                    loop {
                        number += 1;
                        let mut entry = big.clone();
                        entry.payload[..8].copy_from_slice(&u64::to_le_bytes(number));
                        entry.id = entry.compute_id(SpaceId::DEFAULT);
                        if peer.push(vec![entry]).await.is_err() || std::time::Instant::now() >= stop {
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    let during = neighbour(&address, Some("good"), 9, Duration::from_secs(3)).await;
    for attacker in attackers {
        attacker.await.unwrap();
    }
    assert_eq!(during.refused, 0, "the neighbour is never told that the relay is busy");
    assert!(during.share(0.5) < PATIENCE, "{:?} {:?}", during.share(0.5), during.share(0.9));
    println!(
        "neighbour p50 {:?}, p99 {:?}, {} pushes",
        during.share(0.5),
        during.share(0.99),
        during.times.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_reads_much_waits_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(dir.path()).await;
    for token in ["bad", "good"] {
        let mut peer = Peer::welcome(&address, Some(token), 99).await;
        peer.push((0..900).map(|n| entry(n, n, Kind::Changes, 500)).collect()).await.unwrap();
    }
    let stop = std::time::Instant::now() + Duration::from_secs(3);
    let pull = || Message::Pull(Pull { id: 1, after: None, live: false });
    let attackers: Vec<_> = (0..24_u8)
        .map(|n| {
            let address = address.clone();
            tokio::spawn(async move {
                let mut peer = Peer::welcome(&address, Some("bad"), n).await;
                while std::time::Instant::now() < stop {
                    peer.send(&pull()).await;
                    peer.receive().await.unwrap();
                }
            })
        })
        .collect();
    let mut reader = Peer::welcome(&address, Some("good"), 1).await;
    let mut longest = Duration::ZERO;
    while std::time::Instant::now() < stop {
        let asked = std::time::Instant::now();
        reader.send(&pull()).await;
        assert!(matches!(reader.receive().await, Some(Message::Page(_))));
        longest = longest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for attacker in attackers {
        attacker.await.unwrap();
    }
    assert!(longest < PATIENCE, "a neighbour waited {longest:?} for a page");
}
