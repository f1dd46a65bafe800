//! What somebody with an account, or without one, may try.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use motet_benches::attack::{Peer, entry, hello, nested};
use motet_proto::message::{Message, Pull};
use motet_proto::presence::Presence;
use motet_proto::{DeviceId, EntryId, Kind, SpaceId, limits};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

type Done = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One attack.
pub(crate) struct Attack {
    /// What `--only` calls it.
    pub(crate) name: &'static str,
    /// What is done.
    pub(crate) what: &'static str,
    /// Fills the log of the attacker's account beforehand.
    pub(crate) prepare: Option<fn(String) -> Done>,
    /// Attacks until it is time to stop.
    pub(crate) run: fn(String, Instant) -> Done,
}

/// Entries of the document that is erased.
const ERASED_ENTRIES: u64 = 200_000;

/// All attacks.
pub(crate) const ALL: &[Attack] = &[
    Attack {
        name: "nothing",
        what: "none",
        prepare: None,
        run: |_, stop| Box::pin(async move { tokio::time::sleep(left(stop)).await }),
    },
    Attack {
        name: "superseded",
        what: "snapshots that supersede one entry 1,000 times, or 1,024 that are not there",
        prepare: None,
        run: |address, stop| crowd(2, stop, move |n| Box::pin(superseding(address.clone(), n, stop))),
    },
    Attack {
        name: "erase",
        what: "a document of 200,000 entries is erased",
        prepare: Some(|address| Box::pin(fill(address))),
        run: |address, stop| Box::pin(erase(address, stop)),
    },
    Attack {
        name: "frames",
        what: "50 sessions send frames of 300 bytes that open to 9 MB",
        prepare: None,
        run: |address, stop| crowd(50, stop, move |n| Box::pin(opening(address.clone(), n, stop))),
    },
    Attack {
        name: "pushes",
        what: "6 sessions push 8 MiB each, again and again",
        prepare: None,
        run: |address, stop| crowd(6, stop, move |n| Box::pin(pushing(address.clone(), n, stop))),
    },
    Attack {
        name: "bodies",
        what: "30 bodies of 8 MiB that never end",
        prepare: None,
        run: |address, stop| crowd(30, stop, move |_| Box::pin(endless_body(address.clone(), stop))),
    },
    Attack {
        name: "sessions",
        what: "one account opens sessions without end",
        prepare: None,
        run: |address, stop| crowd(16, stop, move |n| Box::pin(sessions(address.clone(), n, stop))),
    },
    Attack {
        name: "half-open",
        what: "1,100 connections that say nothing",
        prepare: None,
        run: |address, stop| crowd(1_100, stop, move |_| Box::pin(half_open(address.clone(), stop))),
    },
    Attack {
        name: "tokens",
        what: "wrong tokens over 64 connections",
        prepare: None,
        run: |address, stop| crowd(64, stop, move |n| Box::pin(guessing(address.clone(), n, stop))),
    },
    Attack {
        name: "presence",
        what: "50 devices of one account tell their place without pause",
        prepare: None,
        run: |address, stop| crowd(50, stop, move |n| Box::pin(moving(address.clone(), n, stop))),
    },
    Attack {
        name: "spaces",
        what: "new spaces without end",
        prepare: None,
        run: |address, stop| crowd(8, stop, move |n| Box::pin(spaces(address.clone(), n, stop))),
    },
    Attack {
        name: "reads",
        what: "32 devices read a large log again and again",
        prepare: Some(|address| Box::pin(fill_large(address))),
        run: |address, stop| crowd(32, stop, move |n| Box::pin(reading(address.clone(), n, stop))),
    },
    Attack {
        name: "readers",
        what: "64 devices ask for a large log and do not read it",
        prepare: Some(|address| Box::pin(fill_large(address))),
        run: |address, stop| crowd(64, stop, move |n| Box::pin(stuck_reader(address.clone(), n, stop))),
    },
];

fn left(stop: Instant) -> Duration {
    stop.saturating_duration_since(Instant::now())
}

fn is_over(stop: Instant) -> bool {
    Instant::now() >= stop
}

/// So many at once, each ended when it is time.
fn crowd(size: u64, stop: Instant, one: impl Fn(u64) -> Done + Send + 'static) -> Done {
    Box::pin(async move {
        let all: Vec<_> = (0..size).map(|n| tokio::spawn(one(n))).collect();
        tokio::time::sleep(left(stop)).await;
        all.iter().for_each(tokio::task::JoinHandle::abort);
    })
}

/// A session of the attacker; `None` if it is refused.
async fn session(address: &str, device: u64, space: SpaceId) -> Option<Peer> {
    let mut peer = Peer::connect(address, Some("bad")).await.ok()?;
    peer.send(&hello(device_id(device), space)).await;
    matches!(peer.receive().await?, Message::Welcome(_)).then_some(peer)
}

fn device_id(n: u64) -> DeviceId {
    let mut id = [1; 16];
    id[..8].copy_from_slice(&n.to_le_bytes());
    DeviceId(id)
}

/// A session that is opened again as long as it takes.
async fn patient(address: &str, device: u64) -> Peer {
    loop {
        match session(address, device, SpaceId::DEFAULT).await {
            Some(peer) => return peer,
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn superseding(address: String, n: u64, stop: Instant) {
    let mut number = n << 32;
    while !is_over(stop) {
        let mut peer = patient(&address, n).await;
        for round in 0_u32.. {
            let id = |i: u32| EntryId([&i.to_be_bytes()[..], &[n as u8; 28]].concat().try_into().unwrap());
            let supersedes: Vec<EntryId> = match round % 2 {
                0 => vec![id(0); 1_000],
                _ => (0..limits::SNAPSHOT_SUPERSEDES as u32).map(id).collect(),
            };
            let entries = (0..20)
                .map(|_| {
                    number += 1;
                    let kind = Kind::Snapshot { heads: vec![[1; 32]], supersedes: supersedes.clone() };
                    entry(n, number, kind, 50)
                })
                .collect();
            if peer.push(entries).await.is_err() || is_over(stop) {
                break;
            }
        }
    }
}

async fn fill(address: String) {
    let mut peer = patient(&address, 0).await;
    for push in 0..ERASED_ENTRIES / 1_000 {
        let entries = (0..1_000).map(|n| entry(1, push * 1_000 + n, Kind::Changes, 20)).collect();
        peer.push(entries).await.unwrap();
    }
}

async fn erase(address: String, stop: Instant) {
    let mut peer = patient(&address, 0).await;
    peer.push(vec![entry(1, 0, Kind::Erased, 8)]).await.unwrap();
    tokio::time::sleep(left(stop)).await;
}

async fn opening(address: String, n: u64, stop: Instant) {
    while !is_over(stop) {
        let mut peer = patient(&address, n).await;
        // A push or a ping; either ends the session.
        peer.send_bytes(nested(if n.is_multiple_of(2) { 3 } else { 8 })).await;
        while peer.receive().await.is_some() {}
    }
}

async fn pushing(address: String, n: u64, stop: Instant) {
    let big = entry(n, n, Kind::Changes, limits::ENTRY_PAYLOAD_BYTES);
    let mut number = 0_u64;
    while !is_over(stop) {
        let mut peer = patient(&address, n).await;
        loop {
            number += 1;
            let mut entry = big.clone();
            entry.payload[..8].copy_from_slice(&number.to_le_bytes());
            entry.id = entry.compute_id(SpaceId::DEFAULT);
            if peer.push(vec![entry]).await.is_err() || is_over(stop) {
                break;
            }
        }
    }
}

async fn endless_body(address: String, stop: Instant) {
    while !is_over(stop) {
        let Ok(mut stream) = TcpStream::connect(&address).await else { continue };
        let head = "POST /v1/sync HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer bad\r\nContent-Length: 30000000\r\n\r\n";
        _ = stream.write_all(head.as_bytes()).await;
        _ = stream.write_all(&(8_u32 << 20).to_be_bytes()).await;
        for _ in 0..112 {
            if stream.write_all(&[0; 65_536]).await.is_err() {
                break;
            }
        }
        while stream.write_all(&[0]).await.is_ok() && !is_over(stop) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn sessions(address: String, n: u64, stop: Instant) {
    let mut open = Vec::new();
    for device in (n * 1_000_000).. {
        if is_over(stop) {
            return;
        }
        match session(&address, device, SpaceId::DEFAULT).await {
            Some(peer) if open.len() < 600 => open.push(peer),
            _ => {}
        }
    }
}

async fn half_open(address: String, stop: Instant) {
    while !is_over(stop) {
        let Ok(stream) = TcpStream::connect(&address).await else { continue };
        _ = stream.readable().await;
        drop(stream);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn guessing(address: String, n: u64, stop: Instant) {
    for guess in 0.. {
        if is_over(stop) {
            return;
        }
        _ = Peer::connect(&address, Some(&format!("guess-{n}-{guess}"))).await;
    }
}

async fn moving(address: String, n: u64, stop: Instant) {
    while !is_over(stop) {
        let mut peer = patient(&address, n).await;
        peer.send(&Message::Pull(Pull { id: 1, after: None, live: true })).await;
        for place in 0..10_000_u64 {
            let sealed = [n.to_le_bytes(), place.to_le_bytes()].concat();
            peer.send(&Message::Presence(Presence { device: device_id(n), suite: 0, sealed })).await;
            if is_over(stop) {
                return;
            }
        }
    }
}

async fn spaces(address: String, n: u64, stop: Instant) {
    for number in 0_u64.. {
        if is_over(stop) {
            return;
        }
        let space = SpaceId([n.to_be_bytes(), number.to_be_bytes()].concat().try_into().unwrap());
        let Some(mut peer) = session(&address, n, space).await else { continue };
        let mut entry = entry(1, number, Kind::Changes, 20);
        entry.id = entry.compute_id(space);
        _ = peer.push(vec![entry]).await;
    }
}

async fn fill_large(address: String) {
    let mut peer = patient(&address, 0).await;
    for n in 0..16 {
        peer.push(vec![entry(n, n, Kind::Changes, 4 << 20)]).await.unwrap();
    }
}

async fn reading(address: String, n: u64, stop: Instant) {
    let mut peer = patient(&address, n).await;
    while !is_over(stop) {
        peer.send(&Message::Pull(Pull { id: 1, after: None, live: false })).await;
        if peer.receive().await.is_none() {
            peer = patient(&address, n).await;
        }
    }
}

async fn stuck_reader(address: String, n: u64, stop: Instant) {
    while !is_over(stop) {
        let mut peer = patient(&address, 100 + n).await;
        peer.send(&Message::Pull(Pull { id: 1, after: None, live: false })).await;
        // It reads nothing until the relay has had enough of it.
        tokio::time::sleep(left(stop)).await;
    }
}
