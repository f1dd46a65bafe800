//! Over `POST` the relay stops taking messages once its answer is large: what it has not answered is asked again.

use std::time::Duration;

use motet::{Relay, Transport};
use motet_tests::random::{Random, runs, seed};
use motet_tests::{TestRelay, contents, device, sync};
use serde_json::json;

/// Text that does not compress much.
fn noise(random: &mut Random, kib: usize) -> String {
    (0..kib << 10).map(|_| char::from(b' ' + random.below(90) as u8)).collect()
}

#[test]
fn what_a_large_answer_leaves_unanswered_is_asked_again() {
    let seed = seed();
    for round in 0..runs(4) {
        let mut random = Random(seed.wrapping_add(round as u64));
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
        a.connect(Relay::new(&relay.url()).transport(Transport::Post)).unwrap();
        a.sync_now().unwrap();
        for step in 0..3 {
            let what = format!("seed {seed}, round {round}, step {step}");
            for n in 0..1 + random.below(3) {
                let kib = [3 << 10, 1 << 10, 600][random.below(3) as usize];
                b.documents("pieces")
                    .upsert(&format!("{step} {n}"), &json!({ "noise": noise(&mut random, kib) }))
                    .unwrap();
            }
            sync(&b, &relay.url());
            std::thread::scope(|scope| {
                for thread in 0..3 {
                    let (a, random) = (&a, Random(random.below(u64::MAX)));
                    scope.spawn(move || {
                        let mut random = random;
                        for made in 0..1 + random.below(4) {
                            let id = format!("a {step} {thread} {made}");
                            a.documents("pieces")
                                .upsert(&id, &json!({ "noise": noise(&mut random, 1) }))
                                .unwrap();
                            std::thread::sleep(Duration::from_millis(random.below(40)));
                        }
                    });
                }
            });
            let summary = a.sync_now();
            assert!(summary.is_ok(), "{what}: {summary:?}");
        }
        a.sync_now().unwrap();
        sync(&b, &relay.url());
        assert_eq!(contents(&a), contents(&b), "seed {seed}, round {round}");
    }
}

/// Documents that are asked for alone, more at once than one answer holds.
#[test]
fn documents_that_are_fetched_together_all_come() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    let mut random = Random(7);
    for n in 0..6 {
        b.documents("pieces")
            .upsert(&n.to_string(), &json!({ "noise": noise(&mut random, 1 << 10) }))
            .unwrap();
    }
    sync(&b, &relay.url());
    a.connect(Relay::new(&relay.url()).transport(Transport::Post)).unwrap();
    std::thread::scope(|scope| {
        for n in 0..6 {
            let a = &a;
            scope.spawn(move || a.documents("pieces").document(&n.to_string()).fetch().unwrap());
        }
    });
    a.sync_now().unwrap();
    assert_eq!(contents(&a), contents(&b));
}
