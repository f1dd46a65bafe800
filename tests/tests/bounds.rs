//! What one account, device or address may take of a relay, and that the others have the rest.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::SinkExt;
use motet_proto::message::{ErrorCode, Outcome, Pull};
use motet_proto::presence::Presence;
use motet_proto::{DeviceId, Kind, Message, SpaceId};
use motet_relay::Config;
use motet_relay::auth::Auth;
use motet_relay::config::{Limits, Terms};
use motet_tests::attack::{Peer, entry, hello, neighbour};
use motet_tests::{RelayProcess, TestRelay};
use tokio_tungstenite::tungstenite::{Error as WsError, Message as WsMessage};

async fn relay(dir: &Path, limits: Limits) -> (TestRelay, String) {
    let file = dir.join("tokens");
    std::fs::write(&file, "bad -> attacker\ngood -> neighbour\n").unwrap();
    let auth = std::sync::Arc::new(Auth::from_file(&file).unwrap());
    let terms = Terms { limits, ..Terms::default() };
    let config = Config { auth, terms, ..Config::new(dir.join("relay")) };
    let relay = tokio::task::spawn_blocking(move || TestRelay::start_as(config)).await.unwrap();
    let address = relay.address().to_string();
    (relay, address)
}

/// The relay's last words to a peer, or why it does not take a push.
async fn end(peer: &mut Peer) -> Option<ErrorCode> {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(20), peer.receive()).await.unwrap()?;
        match message {
            Message::Error(error) => return Some(error.code),
            Message::NotTaken(not_taken) => return Some(not_taken.code),
            _ => {}
        }
    }
}

fn space(n: u8) -> SpaceId {
    SpaceId([n; 16])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_has_so_many_sessions_and_a_device_replaces_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { sessions_per_account: 3, ..Limits::default() };
    let (_relay, address) = relay(dir.path(), limits).await;
    let mut first = Peer::welcome(&address, Some("bad"), 1).await;
    let _second = Peer::welcome(&address, Some("bad"), 1).await;
    let mut other = Peer::welcome(&address, Some("bad"), 2).await;
    let (_, refused) = Peer::open(&address, Some("bad"), 3, SpaceId::DEFAULT).await;
    assert!(matches!(&refused, Message::Error(error) if error.code == ErrorCode::Limit), "{refused:?}");
    // A device that has lost its connection without a word is not one too many.
    let _third = Peer::welcome(&address, Some("bad"), 1).await;
    assert_eq!(end(&mut first).await, Some(ErrorCode::Replaced));
    Peer::welcome(&address, Some("good"), 1).await;
    assert!(other.push(vec![entry(1, 1, Kind::Changes, 10)]).await.is_ok());
    drop(other);
    let begun = Instant::now();
    loop {
        let (_peer, answer) = Peer::open(&address, Some("bad"), 3, SpaceId::DEFAULT).await;
        if matches!(answer, Message::Welcome(_)) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "who has gone is not counted: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_has_so_many_spaces_documents_and_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        spaces_per_account: 2,
        documents_per_account: 5,
        bytes_per_account: 1 << 20,
        sessions_per_device: 9,
        ..Limits::default()
    };
    let (_relay, address) = relay(dir.path(), limits.clone()).await;
    let push = async |n: u8, kind: Kind, document: u64, bytes: usize| {
        let (mut peer, _) = Peer::open(&address, Some("bad"), 1, space(n)).await;
        let mut entry = entry(document, n.into(), kind, bytes);
        entry.id = entry.compute_id(space(n));
        peer.push(vec![entry]).await.map_err(|error| error.unwrap().code)
    };
    for n in 1..=2 {
        assert!(push(n, Kind::Changes, 1, 10).await.is_ok());
    }
    assert_eq!(push(3, Kind::Changes, 1, 10).await, Err(ErrorCode::Limit));
    assert!(push(2, Kind::Changes, 1, 11).await.is_ok(), "those that are there go on");

    for document in 2..=4 {
        assert!(push(1, Kind::Changes, document, 10).await.is_ok());
    }
    assert_eq!(push(1, Kind::Changes, 9, 10).await, Err(ErrorCode::Limit));
    assert!(push(1, Kind::Changes, 4, 600_000).await.is_ok());
    assert_eq!(push(1, Kind::Changes, 4, 600_001).await, Err(ErrorCode::Full));
    let mut good = Peer::welcome(&address, Some("good"), 1).await;
    assert!(good.push(vec![entry(1, 1, Kind::Changes, 600_000)]).await.is_ok(), "of others it is no matter");
    // What is erased is free again.
    assert!(push(1, Kind::Erased, 4, 10).await.is_ok());
    assert!(push(1, Kind::Changes, 4, 600_001).await.is_ok());

    // And it is known after a restart.
    drop((good, _relay));
    let (_relay, address) = relay(dir.path(), limits).await;
    let (mut peer, _) = Peer::open(&address, Some("bad"), 1, space(1)).await;
    let mut more = entry(4, 7, Kind::Changes, 600_002);
    more.id = more.compute_id(space(1));
    assert_eq!(peer.push(vec![more]).await.unwrap_err().unwrap().code, ErrorCode::Full);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_breaks_a_limit_harms_nobody_who_waits_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { documents_per_account: 3, ..Limits::default() };
    let (_relay, address) = relay(dir.path(), limits).await;
    let mut bad = Peer::welcome(&address, Some("bad"), 1).await;
    let mut good = Peer::welcome(&address, Some("good"), 1).await;
    // Large ones go to the writer's thread.
    bad.start_push((0..9).map(|n| entry(n, n, Kind::Changes, 30_000)).collect()).await;
    let receipt = good.push((0..3).map(|n| entry(n, n, Kind::Changes, 30_000)).collect()).await.unwrap();
    assert_eq!(receipt.outcomes, [1, 2, 3].map(Outcome::Stored));
    assert_eq!(end(&mut bad).await, Some(ErrorCode::Limit));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_is_sent_away_and_keeps_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { half_open: 50, ..Limits::default() };
    let (_relay, address) = relay(dir.path(), limits).await;
    let healthy = async || {
        let get = reqwest::Client::new().get(format!("http://{address}/healthz")).send();
        let answer = tokio::time::timeout(Duration::from_secs(3), get).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
    };
    let silent: Vec<_> = (0..300).map(|_| TcpStream::connect(&address).unwrap()).collect();
    healthy().await;
    // Half a greeting, kept alive by pings, and a request that dribbles, keep nothing open for longer either.
    let begun = Instant::now();
    let mut mute = Peer::connect(&address, Some("bad")).await.unwrap();
    let mut dribbling = TcpStream::connect(&address).unwrap();
    dribbling.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    let dribbled = tokio::task::spawn_blocking(move || {
        while dribbling.write_all(b"x: y\r\n").is_ok() && begun.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(500));
        }
        begun.elapsed()
    });
    let pinged = async {
        loop {
            let ping = mute.socket.send(WsMessage::Ping("x".into())).await;
            let ended = tokio::time::timeout(Duration::from_millis(500), mute.receive()).await;
            if ping.is_err() || matches!(ended, Ok(None | Some(Message::Error(_)))) {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < Duration::from_secs(30));
        }
    };
    let pinged = pinged.await;
    let dribbled = dribbled.await.unwrap();
    assert!(pinged < Duration::from_secs(20), "without a greeting it lasted {pinged:?}");
    assert!(dribbled < Duration::from_secs(20), "without a whole request it lasted {dribbled:?}");
    healthy().await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_never_end_are_bounded_and_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { incomplete_bytes_per_account: 8 << 20, ..Limits::default() };
    let (_relay, address) = relay(dir.path(), limits).await;
    let begun = Instant::now();
    let attackers: Vec<_> = (0..20)
        .map(|_| {
            let address = address.clone();
            tokio::task::spawn_blocking(move || {
                let mut stream = TcpStream::connect(&address).unwrap();
                let head = "POST /v1/sync HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer bad\r\n";
                write!(stream, "{head}Content-Length: 30000000\r\n\r\n").unwrap();
                // The length of a frame of 8 MiB, and most of it.
                let mut sent = 0;
                stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
                if stream.write_all(&(8_u32 << 20).to_be_bytes()).is_ok() {
                    while sent < 7 << 20 && stream.write_all(&[0; 65_536]).is_ok() {
                        sent += 65_536;
                    }
                }
                stream.set_read_timeout(Some(Duration::from_secs(25))).unwrap();
                let mut answer = [0; 64];
                let read = stream.read(&mut answer).unwrap_or(0);
                (sent, String::from_utf8_lossy(&answer[..read]).into_owned())
            })
        })
        .collect();
    let during = neighbour(&address, Some("good"), 9, Duration::from_secs(2)).await;
    assert_eq!(during.refused, 0);
    let mut whole = 0;
    for attacker in attackers {
        let (sent, answer) = attacker.await.unwrap();
        whole += usize::from(answer.contains("408"));
        assert!(!answer.contains("200"), "{sent} bytes, {answer}");
    }
    assert!(whole <= 2, "{whole} of them were waited for");
    assert!(begun.elapsed() < Duration::from_secs(24), "given up after {:?}", begun.elapsed());
    let mut bad = Peer::welcome(&address, Some("bad"), 1).await;
    assert!(bad.push(vec![entry(1, 1, Kind::Changes, 4 << 20)]).await.is_ok(), "what was under way is over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_tokens_are_answered_slowly_and_right_ones_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (_relay, address) = relay(dir.path(), Limits::default()).await;
    let begun = Instant::now();
    let guesses: Vec<_> = (0..20)
        .map(|n| {
            let address = address.clone();
            tokio::spawn(async move {
                let mut late = 0;
                for guess in 0..5 {
                    let token = format!("guess-{n}-{guess}");
                    let sent = Instant::now();
                    let Err(WsError::Http(answer)) = Peer::connect(&address, Some(&token)).await else {
                        panic!("it was let in")
                    };
                    assert!(matches!(answer.status().as_u16(), 401 | 429));
                    late += usize::from(sent.elapsed() >= Duration::from_millis(900));
                }
                late
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let sent = Instant::now();
    Peer::welcome(&address, Some("good"), 1).await;
    assert!(sent.elapsed() < Duration::from_millis(900), "{:?}", sent.elapsed());
    let mut late = 0;
    for guess in guesses {
        late += guess.await.unwrap();
    }
    assert!(late >= 85, "only {late} of 100 guesses had to wait, {:?} in all", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_moves_all_the_time_disturbs_nobody_and_the_last_place_counts() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { places_per_second: 100, ..Limits::default() };
    let (_relay, address) = relay(dir.path(), limits).await;
    let mut watching = Peer::welcome(&address, Some("bad"), 99).await;
    watching.send(&Message::Pull(Pull { id: 1, after: None, live: true })).await;
    let crowd: Vec<_> = (0..10_u8)
        .map(|n| {
            let address = address.clone();
            tokio::spawn(async move {
                let mut peer = Peer::welcome(&address, Some("bad"), n).await;
                for place in 0..200_u8 {
                    let presence = Presence { device: DeviceId([n; 16]), suite: 0, sealed: vec![n, place] };
                    peer.send(&Message::Presence(presence)).await;
                }
                tokio::time::sleep(Duration::from_secs(6)).await;
            })
        })
        .collect();
    let during = neighbour(&address, Some("good"), 9, Duration::from_secs(1)).await;
    assert_eq!(during.refused, 0);
    let mut last = std::collections::BTreeMap::new();
    let mut told = 0;
    let begun = Instant::now();
    while last.values().filter(|place| **place == 199).count() < 10 {
        let left = Duration::from_secs(10).saturating_sub(begun.elapsed());
        let Ok(Some(message)) = tokio::time::timeout(left, watching.receive()).await else {
            panic!("the last places did not come: {last:?}")
        };
        if let Message::Presence(presence) = message {
            told += 1;
            if let [n, place] = presence.sealed[..] {
                last.insert(n, place);
            }
        }
    }
    assert!(told < 500, "{told} places were handed round");
    for one in crowd {
        one.abort();
    }
}

/// Ten thousand sessions at rest are to take no more than 150 MB: 15 kB each.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_at_rest_costs_little() {
    const SESSIONS: u16 = 1_600;
    let dir = tempfile::tempdir().unwrap();
    let tokens: String = (0..SESSIONS).map(|n| format!("token-{n} -> account-{n}\n")).collect();
    let file = dir.path().join("tokens");
    std::fs::write(&file, tokens).unwrap();
    let relay =
        RelayProcess::start(&dir.path().join("relay"), "127.0.0.1:0", &["--tokens", file.to_str().unwrap()]);
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", relay.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    };
    let open = async |from: u16, to: u16| {
        let mut peers = Vec::new();
        for n in from..to {
            let mut peer = Peer::connect(relay.address(), Some(&format!("token-{n}"))).await.unwrap();
            peer.send(&hello(DeviceId([1; 16]), SpaceId::DEFAULT)).await;
            assert!(matches!(peer.receive().await, Some(Message::Welcome(_))));
            peers.push(peer);
        }
        peers
    };
    let _first = open(0, 600).await;
    let before = memory();
    let _all = open(600, SESSIONS).await;
    let each = memory().saturating_sub(before) / u64::from(SESSIONS - 600);
    println!("a session at rest takes {each} bytes");
    // 12 kB on a machine of its own; threads that take turns spread it over more of the allocator's areas.
    assert!(each < 20_000, "a session takes {each} bytes");
}

/// Devices that ask for pages and do not read them hold up their own account, for as long as they are connected, and nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_for_devices_that_do_not_take_it_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { outgoing_bytes_per_account: 24 << 20, ..Limits::default() };
    let (_relay, address) = relay(dir.path(), limits).await;
    for token in ["bad", "good"] {
        let mut peer = Peer::welcome(&address, Some(token), 1).await;
        for n in 0..4 {
            peer.push(vec![entry(n, n, Kind::Changes, 7 << 20)]).await.unwrap();
        }
    }
    let pull = Message::Pull(Pull { id: 1, after: None, live: false });
    let page = async |peer: &mut Peer, patience: u64| {
        let next = tokio::time::timeout(Duration::from_secs(patience), peer.receive()).await;
        matches!(next, Ok(Some(Message::Page(_))))
    };
    let mut stuck = Vec::new();
    for device in 10..18 {
        let mut peer = Peer::welcome(&address, Some("bad"), device).await;
        for _ in 0..4 {
            peer.send(&pull).await;
        }
        stuck.push(peer);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut waiting = Peer::welcome(&address, Some("bad"), 2).await;
    waiting.send(&pull).await;
    assert!(!page(&mut waiting, 2).await, "its account has enough on its way out");
    let mut neighbour = Peer::welcome(&address, Some("good"), 2).await;
    neighbour.send(&pull).await;
    assert!(page(&mut neighbour, 10).await, "another one reads at once");
    drop(stuck);
    assert!(page(&mut waiting, 20).await, "who has gone holds nothing");
}
