//! Bad ways to the relay: whatever happens to the bytes, rounds succeed in the end and nothing is lost.

use std::time::{Duration, Instant};

use motet::{Relay, Replica, Transport};
use motet_tests::proxy::{Faults, Proxy};
use motet_tests::random::{Random, seed};
use motet_tests::{TestRelay, contents, device, sync, wait_until};
use serde_json::json;

/// Runs rounds with an edit each, and tells how many succeeded.
fn rounds(replica: &Replica, relay: Relay, rounds: usize) -> usize {
    replica.connect(relay).unwrap();
    let name = replica.device_name().to_owned();
    let done = (0..rounds)
        .filter(|round| {
            let words = "Kaulana nā pua aʻo Hawaiʻi\n".repeat(20);
            let song = json!({ "lyrics": words, "by": name });
            replica.documents("pieces").upsert(&format!("{name}-{round}"), &song).unwrap();
            replica.sync_now().is_ok()
        })
        .count();
    replica.disconnect();
    done
}

#[test]
fn connections_that_break_and_stall_fail_no_round_and_lose_nothing() {
    let seed = seed();
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let faults = Faults { latency: Duration::from_millis(15), resets: 170, stalls: 30, ..Faults::default() };
    let succeeded: usize = std::thread::scope(|scope| {
        let devices: Vec<_> = [Transport::WebSocket, Transport::Post, Transport::Auto, Transport::Post]
            .into_iter()
            .enumerate()
            .map(|(n, transport)| {
                let proxy = Proxy::start(relay.address(), faults, seed.wrapping_add(n as u64));
                let replica = device(dir.path(), &format!("d{n}"));
                scope.spawn(move || rounds(&replica, Relay::new(&proxy.url()).transport(transport), 4))
            })
            .collect();
        devices.into_iter().map(|device| device.join().unwrap()).sum()
    });
    assert!(succeeded >= 15, "seed {seed}: {succeeded} of 16 rounds");
    let devices: Vec<_> = (0..4).map(|n| device(dir.path(), &format!("d{n}"))).collect();
    devices.iter().chain(&devices).for_each(|replica| _ = sync(replica, &relay.url()));
    let all = contents(&devices[0]);
    assert_eq!(all.len(), 16, "seed {seed}");
    assert!(devices.iter().all(|replica| contents(replica) == all), "seed {seed}");
}

#[test]
fn flipped_bits_are_noticed_and_nothing_of_them_is_kept() {
    let seed = seed();
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let faults = Faults { flips: 100, ..Faults::default() };
    let a = device(dir.path(), "a");
    let proxy = Proxy::start(relay.address(), faults, seed);
    rounds(&a, Relay::new(&proxy.url()), 10);
    drop(proxy);
    sync(&a, &relay.url());
    assert_eq!((a.status().pending, a.counts().unwrap().quarantined), (0, 0), "seed {seed}");
    let b = device(dir.path(), "b");
    sync(&b, &relay.url());
    assert_eq!(contents(&a), contents(&b), "seed {seed}");
    assert_eq!(contents(&b).len(), 10, "seed {seed}");
}

#[test]
fn a_slow_connection_is_not_a_silent_one() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let faults = Faults { bytes_per_second: 8_000, ..Faults::default() };
    for transport in [Transport::WebSocket, Transport::Post] {
        let proxy = Proxy::start(relay.address(), faults, 1);
        let replica = device(dir.path(), &format!("{transport:?}"));
        // What does not compress: more than fits into the time that a silent relay is given.
        let mut random = Random(1);
        let noise: String =
            (0..40_000).map(|_| char::from_u32(0x4e00 + random.below(20_000) as u32).unwrap()).collect();
        replica.documents("noise").upsert(&format!("{transport:?}"), &json!({ "noise": noise })).unwrap();
        let begun = Instant::now();
        replica.connect(Relay::new(&proxy.url()).transport(transport)).unwrap();
        wait_until("all is sent", Duration::from_secs(60), || replica.status().pending == 0);
        assert!(begun.elapsed() > Duration::from_secs(6), "the proxy must have been slow");
        assert_eq!(replica.status().last_error, None);
    }
}
