//! Invariant D: a write that returned survives, whoever is killed and whenever.
//!
//! `MOTET_KILLS=10000 cargo test --release -p motet-tests --test crash` kills more often.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use motet_tests::random::{Random, seed};
use motet_tests::{RelayProcess, contents, device, program, sync};

/// Times that a process is killed in the middle of a sync, unless `MOTET_KILLS` says otherwise.
const KILLS: usize = 300;

#[test]
fn kills_of_device_and_relay_lose_nothing() {
    let kills = motet_tests::random::count("MOTET_KILLS", KILLS);
    let seed = seed();
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("a.db");
    let data = dir.path().join("relay");
    let mut relay = RelayProcess::start(&data, "127.0.0.1:0", &[]);
    let (address, url) = (relay.address().to_owned(), relay.url());
    let (mut made, mut edited) = (BTreeSet::new(), BTreeSet::new());
    // On a busy machine a process may be killed before it has written anything.
    let (mut round, most) = (0, 10 * kills);
    while round < kills || made.len() <= kills && round < most {
        let mut child = Command::new(program("motet-crash-child"))
            .arg(&db)
            .args([&url, &round.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::sleep(Duration::from_millis(10 + random.below(60)));
        if random.below(2) == 0 {
            relay.kill();
            std::thread::sleep(Duration::from_millis(random.below(10)));
            child.kill().unwrap();
            relay = RelayProcess::start(&data, &address, &[]);
        } else {
            child.kill().unwrap();
        }
        child.wait().unwrap();
        for line in lines {
            let line = line.unwrap();
            // The last line may have been cut off by the kill; its write had returned, but nobody was told.
            match line.split_once(' ') {
                Some(("made", id)) if id.starts_with(&format!("{round}-")) => _ = made.insert(id.to_owned()),
                Some(("edited", id)) => _ = edited.insert(id.to_owned()),
                _ => {}
            }
        }
        round += 1;
    }
    assert!(made.len() > kills, "the test must have written something: {}", made.len());

    let a = device(dir.path(), "a");
    sync(&a, &url);
    let b = device(dir.path(), "b");
    sync(&b, &url);
    let songs = b.documents("pieces");
    for id in &made {
        let song = songs.get(id).unwrap().unwrap_or_else(|| panic!("seed {seed}: {id} is lost"));
        let lyrics = song["lyrics"].as_str().unwrap();
        assert!(lyrics.ends_with(&format!("Ka pō {id}\n")), "seed {seed}: {id} holds {lyrics:?}");
        assert!(!edited.contains(id) || lyrics.starts_with("ʻae, "), "seed {seed}: the edit of {id} is lost");
    }
    assert_eq!(contents(&a), contents(&b), "seed {seed}");
    assert_eq!(a.status().pending, 0);
}
