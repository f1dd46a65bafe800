//! What has left the logs is given back to the disk, while the relay runs and others write.

use std::path::Path;
use std::time::{Duration, Instant};

use motet_proto::message::Outcome;
use motet_proto::{Entry, EntryId, Kind};
use motet_relay::store::sqlite::{SqliteStore, care};
use motet_tests::raw::{entry, pull, push};
use motet_tests::{TestRelay, wait_until};
use rusqlite::Connection;

const MIB: u64 = 1 << 20;

fn bytes(data: &Path, name: &str) -> u64 {
    std::fs::metadata(data.join(name)).map_or(0, |file| file.len())
}

/// What compresses to nothing and is different each time.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = motet_tests::random::Random(seed);
    (0..bytes / 4).flat_map(|_| (random.below(1 << 31) as u32).to_le_bytes()).collect()
}

fn is_stored(outcomes: &[Outcome]) -> bool {
    outcomes.iter().all(|outcome| matches!(outcome, Outcome::Stored(_)))
}

/// Pushes `big` MiB of one document, and small entries of another one between them.
fn fill(url: &str, big: u64) -> Vec<EntryId> {
    let mut kept = Vec::new();
    for n in 0..big {
        let small = entry("kept", Kind::Changes, noise(1_000 + n, 200));
        kept.push(small.id);
        let large = entry("big", Kind::Changes, noise(n, MIB as usize));
        assert!(is_stored(&push(url, vec![large, small])), "{n}");
    }
    kept
}

fn ids(entries: Vec<Entry>) -> Vec<EntryId> {
    entries.into_iter().filter(|entry| entry.kind == Kind::Changes).map(|entry| entry.id).collect()
}

#[test]
fn what_was_erased_is_given_back_to_the_disk_while_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let relay = TestRelay::start(&data);
    let mut kept = fill(&relay.url(), 64);
    assert!(bytes(&data, "relay.db") + bytes(&data, "relay.db-wal") > 64 * MIB);
    assert!(is_stored(&push(&relay.url(), vec![entry("big", Kind::Erased, Vec::new())])));
    let (mut longest, mut n) = (Duration::ZERO, 0);
    wait_until("the file is small", Duration::from_secs(60), || {
        n += 1;
        let small = entry("kept", Kind::Changes, noise(2_000 + n, 200));
        kept.push(small.id);
        let begun = Instant::now();
        assert!(is_stored(&push(&relay.url(), vec![small])));
        longest = longest.max(begun.elapsed());
        bytes(&data, "relay.db") < 6 * MIB
    });
    println!("{n} pushes meanwhile, the longest took {longest:?}");
    // The machine may be busy; a file that is written anew as a whole would take longer.
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    wait_until("the log is small", Duration::from_secs(60), || bytes(&data, "relay.db-wal") < 2 * MIB);
    assert_eq!(ids(pull(&relay.url())), kept);
    drop(relay);
    assert_eq!(care::verify(&data).unwrap().problems, Vec::<String>::new());
    let relay = TestRelay::start(&data);
    assert_eq!(ids(pull(&relay.url())), kept);
    // Nothing of it is left in the file.
    assert!(!motet_tests::is_in_files(&data, "relay.db", &noise(3, 64)));
}

/// A relay that ends in the middle of it goes on when it starts.
#[test]
fn a_relay_that_is_stopped_meanwhile_goes_on_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let mut relay = motet_tests::RelayProcess::start(&data, "127.0.0.1:0", &[]);
    let kept = fill(&relay.url(), 32);
    assert!(is_stored(&push(&relay.url(), vec![entry("big", Kind::Erased, Vec::new())])));
    std::thread::sleep(Duration::from_millis(100));
    relay.kill();
    let relay = TestRelay::start(&data);
    wait_until("the file is small", Duration::from_secs(60), || bytes(&data, "relay.db") < 6 * MIB);
    assert_eq!(ids(pull(&relay.url())), kept);
    drop(relay);
    assert_eq!(care::verify(&data).unwrap().problems, Vec::<String>::new());
}

/// A file of an earlier version cannot become smaller; a repair makes it one that can.
#[test]
fn a_repair_makes_a_sound_old_file_one_that_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let relay = TestRelay::start(&data);
    let kept = fill(&relay.url(), 16);
    drop(relay);
    let mode = |to: Option<&str>| -> i64 {
        let conn = Connection::open(data.join("relay.db")).unwrap();
        if let Some(to) = to {
            conn.execute_batch(&format!("PRAGMA auto_vacuum = {to}; VACUUM")).unwrap();
        }
        conn.query_row("PRAGMA auto_vacuum", [], |row| row.get(0)).unwrap()
    };
    assert_eq!((mode(None), mode(Some("NONE"))), (2, 0));
    let relay = TestRelay::start(&data);
    assert!(is_stored(&push(&relay.url(), vec![entry("big", Kind::Erased, Vec::new())])));
    wait_until("it has left", Duration::from_secs(30), || bytes(&data, "relay.db-wal") == 0);
    drop(relay);
    assert!(bytes(&data, "relay.db") > 16 * MIB);
    let report = care::repair(&data).unwrap();
    let (before, after) = report.compacted.unwrap();
    assert!(before > 16 * MIB && after < MIB && report.put_aside.is_none(), "{report:?}");
    assert_eq!((mode(None), bytes(&data, "relay.db")), (2, after));
    assert_eq!(care::verify(&data).unwrap().problems, Vec::<String>::new());
    assert_eq!(care::repair(&data).unwrap().compacted, None, "once");
    drop(SqliteStore::open(&data).unwrap());
    let relay = TestRelay::start(&data);
    assert_eq!(ids(pull(&relay.url())), kept);
}
