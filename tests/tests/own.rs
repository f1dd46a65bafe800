//! What a device has sent itself is not received: however pushes and reads meet at the relay, it counts nothing of its own.

use std::time::Duration;

use motet::{Relay, Replica, Transport};
use motet_tests::random::Random;
use motet_tests::{TestRelay, contents, device, wait_until};
use serde_json::json;

const TRANSPORTS: [Transport; 2] = [Transport::WebSocket, Transport::Post];

fn connect(replica: &Replica, relay: &TestRelay, transport: Transport) {
    replica.connect(Relay::new(&relay.url()).transport(transport)).unwrap();
}

#[test]
fn a_device_that_writes_alone_receives_nothing() {
    for transport in TRANSPORTS {
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let a = device(dir.path(), "a");
        for round in 0..40 {
            a.documents("pieces").insert(&json!({ "title": round })).unwrap();
            connect(&a, &relay, transport);
            let summary = a.sync_now().unwrap();
            assert_eq!((summary.sent, summary.received), (1, 0), "{transport:?}, round {round}");
            assert!(summary.collections.is_empty(), "{transport:?}, round {round}: {summary:?}");
            a.disconnect();
        }
    }
}

/// One device writes and asks for rounds from several threads, another one only listens.
#[test]
fn of_many_small_pushes_and_reads_at_once_none_comes_back() {
    for transport in TRANSPORTS {
        for seed in 0..6 {
            let dir = tempfile::tempdir().unwrap();
            let relay = TestRelay::start(&dir.path().join("relay"));
            let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
            [&a, &b].into_iter().for_each(|device| connect(device, &relay, transport));
            std::thread::scope(|scope| {
                for thread in 0..3 {
                    let a = &a;
                    scope.spawn(move || write_and_ask(a, &mut Random(seed * 3 + thread), transport));
                }
            });
            let (a, b) = (a.sync_now().unwrap(), b.sync_now().unwrap());
            assert_eq!((a.received, a.collections.len()), (0, 0), "{transport:?}, seed {seed}: {a:?}");
            let new = b.collections["pieces"].new;
            assert_eq!((new, b.received), (120, 120), "{transport:?}, seed {seed}: {b:?}");
        }
    }
}

fn write_and_ask(device: &Replica, random: &mut Random, transport: Transport) {
    for made in 0..40 {
        device.documents("pieces").insert(&json!({ "title": made })).unwrap();
        match random.below(4) {
            0 => {
                let summary = device.sync_now().unwrap();
                assert_eq!(summary.received, 0, "{transport:?}: {summary:?}");
                assert!(summary.collections.is_empty(), "{transport:?}: {summary:?}");
            }
            1 => std::thread::sleep(Duration::from_millis(random.below(4))),
            _ => {}
        }
    }
}

/// Two devices write and ask for rounds as they like: what is new on one is what the other has made.
#[test]
fn of_two_that_write_each_has_new_what_the_other_has_made() {
    for transport in TRANSPORTS {
        for seed in 0..3 {
            let dir = tempfile::tempdir().unwrap();
            let relay = TestRelay::start(&dir.path().join("relay"));
            let devices = ["a", "b"].map(|name| device(dir.path(), name));
            devices.iter().for_each(|device| connect(device, &relay, transport));
            let mut new = std::thread::scope(|scope| {
                let threads = [0, 1].map(|n| {
                    let device = &devices[n];
                    scope.spawn(move || new_while_writing(device, &mut Random(seed * 2 + n as u64)))
                });
                threads.map(|thread| thread.join().unwrap())
            });
            wait_until("everything everywhere", Duration::from_secs(30), || {
                devices.iter().zip(&mut new).for_each(|(device, new)| *new += new_in_round(device));
                devices.iter().all(|device| contents(device).len() == 120)
            });
            devices.iter().zip(&mut new).for_each(|(device, new)| *new += new_in_round(device));
            assert_eq!(new, [60, 60], "{transport:?}, seed {seed}");
        }
    }
}

fn new_while_writing(device: &Replica, random: &mut Random) -> u64 {
    let mut new = 0;
    for made in 0..60 {
        device.documents("pieces").insert(&json!({ "title": made })).unwrap();
        match random.below(4) {
            0 => new += new_in_round(device),
            1 => std::thread::sleep(Duration::from_millis(random.below(4))),
            _ => {}
        }
    }
    new
}

fn new_in_round(device: &Replica) -> u64 {
    device.sync_now().unwrap().collections.get("pieces").map_or(0, |counts| counts.new)
}
