//! How many rounds succeed on a bad way to the relay: 300 ms there and back, every fifth connection reset or stalled.
//!
//! `cargo run --release -p motet-tests --bin lossy` runs 16 devices with 25 rounds each, half of them over `POST` with a
//! connection per exchange. A round is one `sync_now` after one edit.

use std::time::{Duration, Instant};

use motet::{Relay, Transport};
use motet_tests::proxy::{Faults, Proxy};
use motet_tests::random::seed;
use motet_tests::{TestRelay, contents, device, sync};
use serde_json::json;

const DEVICES: usize = 16;
const ROUNDS: usize = 25;

fn main() {
    let seed = seed();
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let faults =
        Faults { latency: Duration::from_millis(150), resets: 100, stalls: 100, ..Faults::default() };
    let outcomes: Vec<(Transport, Vec<Option<Duration>>, u64)> = std::thread::scope(|scope| {
        let devices: Vec<_> = (0..DEVICES)
            .map(|n| {
                let transport = if n % 2 == 0 { Transport::WebSocket } else { Transport::Post };
                let proxy = Proxy::start(relay.address(), faults, seed.wrapping_add(n as u64));
                let replica = device(dir.path(), &format!("d{n}"));
                scope.spawn(move || {
                    let rounds = (0..ROUNDS).map(|round| {
                        let song = json!({ "title": format!("Mele {round} of {n}") });
                        replica.documents("pieces").upsert(&format!("{n}-{round}"), &song).unwrap();
                        // Each round on a connection of its own, as an app in the background has it.
                        replica.connect(Relay::new(&proxy.url()).transport(transport)).unwrap();
                        let begun = Instant::now();
                        let outcome = replica.sync_now().is_ok().then(|| begun.elapsed());
                        replica.disconnect();
                        outcome
                    });
                    (transport, rounds.collect(), proxy.broken())
                })
            })
            .collect();
        devices.into_iter().map(|device| device.join().unwrap()).collect()
    });
    for transport in [Transport::WebSocket, Transport::Post] {
        let mine = || outcomes.iter().filter(|(t, ..)| *t == transport);
        let rounds: Vec<_> = mine().flat_map(|(_, rounds, _)| rounds).collect();
        let mut times: Vec<_> = rounds.iter().filter_map(|round| **round).collect();
        times.sort_unstable();
        println!(
            "{transport:?}: {} of {} rounds succeeded, {} connections broken; median {:.1} s, longest {:.1} s",
            times.len(),
            rounds.len(),
            mine().map(|(.., broken)| broken).sum::<u64>(),
            times[times.len() / 2].as_secs_f64(),
            times[times.len() - 1].as_secs_f64()
        );
    }
    let devices: Vec<_> = (0..DEVICES).map(|n| device(dir.path(), &format!("d{n}"))).collect();
    devices.iter().chain(&devices).for_each(|replica| _ = sync(replica, &relay.url()));
    let all = contents(&devices[0]);
    let same = devices.iter().all(|replica| contents(replica) == all);
    println!("in the end: {} of {} documents everywhere, the same: {same}", all.len(), DEVICES * ROUNDS);
    assert!(same && all.len() == DEVICES * ROUNDS);
}
