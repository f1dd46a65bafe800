//! The relay as a program: start and stop, health, and what it does with bad input.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use motet_proto::message::{ErrorCode, Hello, Outcome, Pull, Push, Rejection};
use motet_proto::{DeviceId, DocumentId, Entry, Kind, Message, SpaceId, frame};
use motet_tests::raw::{entry, pull, push};
use motet_tests::{RelayProcess, TestRelay, contents, device, program, sync, wait_until};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message as WsMessage;

fn healthy(address: &str) -> bool {
    reqwest::blocking::get(format!("http://{address}/healthz")).is_ok_and(|answer| answer.status() == 200)
}

#[test]
fn it_is_healthy_soon_also_after_a_kill_and_stops_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("made").join("anew");
    let mut relay = RelayProcess::start(&data, "127.0.0.1:0", &[]);
    let address = relay.address().to_owned();
    wait_until("healthy", Duration::from_secs(10), || healthy(&address));
    let a = device(dir.path(), "a");
    a.documents("pieces").insert(&json!({ "lyrics": "x" })).unwrap();
    sync(&a, &relay.url());
    relay.kill();
    let mut relay = RelayProcess::start(&data, &address, &[]);
    wait_until("healthy again on the same port", Duration::from_secs(10), || healthy(&address));
    let b = device(dir.path(), "b");
    sync(&b, &relay.url());
    assert_eq!(contents(&a), contents(&b));
    b.connect(motet::Relay::new(&relay.url())).unwrap();
    b.sync_now().unwrap();
    let (took, status) = relay.terminate();
    assert!(took < Duration::from_secs(10) && status.success(), "{took:?} {status}");
}

#[test]
fn without_tokens_only_this_machine_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        Command::new(program("motet-relay"))
            .args(args)
            .arg("--data")
            .arg(dir.path().join("d"))
            .output()
            .unwrap()
    };
    let open = run(&["--listen", "0.0.0.0:0"]);
    assert!(!open.status.success());
    assert!(String::from_utf8_lossy(&open.stderr).contains("--tokens"));
    let missing = run(&["--listen", "127.0.0.1:0", "--tokens", "/nowhere/tokens"]);
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nowhere/tokens"));
}

#[test]
fn without_tokens_no_web_page_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(dir.path());
    let url = format!("{}/v1/sync", relay.url());
    let client = reqwest::blocking::Client::new();
    let post = client.post(&url).header("Origin", "https://example.org").body("x").send().unwrap();
    assert_eq!(post.status(), 403);
    let upgrade = client
        .get(&url)
        .header("Origin", "https://example.org")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==");
    assert_eq!(upgrade.send().unwrap().status(), 403);
}

#[test]
fn http_garbage_is_answered_and_survived() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(dir.path());
    let address = relay.address().to_string();
    let mut noise: Vec<Vec<u8>> = vec![
        b"\x00\x01\x02\xff\xfe garbage".to_vec(),
        b"GET /v1/sync HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"POST /v1/sync HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nx".to_vec(),
        vec![b'A'; 100_000],
    ];
    noise.extend((0..50_u64).map(|seed| random_bytes(seed, 300)));
    for bytes in noise {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        _ = stream.write_all(&bytes);
        _ = stream.read(&mut [0; 100]);
    }
    let client = reqwest::blocking::Client::new();
    for seed in 1..200_u64 {
        let body = random_bytes(seed, seed as usize);
        let answer = client.post(format!("http://{address}/v1/sync")).body(body).send().unwrap();
        assert_eq!(answer.status(), 200, "a frame that is none is answered by an error frame");
    }
    assert!(healthy(&address));
}

#[tokio::test]
async fn frames_that_break_the_protocol_end_the_session_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(dir.path());
    let hello = || frame::encode(&Message::Hello(hello(1, 1)));
    let cases: Vec<(Vec<Vec<u8>>, ErrorCode)> = vec![
        (vec![vec![]], ErrorCode::Protocol),
        (vec![vec![99, 0, 1]], ErrorCode::Protocol),
        (vec![frame::encode(&Message::Pull(Pull { id: 1, after: None, live: false }))], ErrorCode::Protocol),
        (vec![frame::encode(&Message::Hello(self::hello(7, 9)))], ErrorCode::Version),
        (vec![hello(), hello()], ErrorCode::Protocol),
        (vec![hello(), random_bytes(1, 1_000)], ErrorCode::Protocol),
    ];
    for (frames, expected) in cases {
        let (mut socket, _) =
            tokio_tungstenite::connect_async(format!("ws://{}/v1/sync", relay.address())).await.unwrap();
        for frame in frames {
            socket.send(WsMessage::Binary(frame.into())).await.unwrap();
        }
        let mut last = None;
        while let Some(Ok(WsMessage::Binary(bytes))) = socket.next().await {
            last = Some(frame::decode(&bytes).unwrap());
        }
        let Some(Message::Error(error)) = last else { panic!("{last:?}") };
        assert_eq!(error.code, expected, "{}", error.message);
    }
}

#[tokio::test]
async fn entries_are_checked_stored_once_and_given_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(dir.path());
    let (mut socket, _) =
        tokio_tungstenite::connect_async(format!("ws://{}/v1/sync", relay.address())).await.unwrap();
    let mut ask = async |message: Message| {
        socket.send(WsMessage::Binary(frame::encode(&message).into())).await.unwrap();
        loop {
            if let WsMessage::Binary(bytes) = socket.next().await.unwrap().unwrap() {
                return frame::decode(&bytes).unwrap();
            }
        }
    };
    assert!(matches!(ask(Message::Hello(hello(1, 1))).await, Message::Welcome(_)));
    let entry = |n: u8| {
        let device = DeviceId([1; 16]);
        Entry::new(SpaceId::DEFAULT, DocumentId([n; 16]), device, Kind::Changes, 0, vec![n; 100])
    };
    let mut lying = entry(3);
    lying.payload[0] ^= 1;
    let Message::Receipt(receipt) =
        ask(Message::Push(Push { id: 1, entries: vec![entry(1), lying, entry(2), entry(1)] })).await
    else {
        panic!("no receipt")
    };
    assert_eq!(receipt.outcomes[0], Outcome::Stored(1));
    assert!(matches!(receipt.outcomes[1], Outcome::Rejected(Rejection::WrongId, _)));
    assert_eq!(receipt.outcomes[2..], [Outcome::Stored(2), Outcome::Stored(1)]);
    drop(socket);

    let mut body = Vec::new();
    for message in [Message::Hello(hello(1, 1)), Message::Pull(Pull { id: 1, after: None, live: false })] {
        frame::write_delimited(&message, &mut body);
    }
    let url = format!("{}/v1/sync", relay.url());
    let answer = reqwest::Client::new().post(url).body(body).send().await.unwrap().bytes().await.unwrap();
    let mut rest = &answer[..];
    let welcome = frame::decode(frame::split_delimited(&mut rest).unwrap().unwrap()).unwrap();
    assert!(matches!(welcome, Message::Welcome(welcome) if welcome.head == 2));
    let page = frame::decode(frame::split_delimited(&mut rest).unwrap().unwrap()).unwrap();
    let Message::Page(page) = page else { panic!("{page:?}") };
    assert_eq!((page.entries, page.more), (vec![entry(1), entry(2)], false));
}

/// A device has asked what there is of a document, somebody has it erased, and only then its snapshot arrives.
#[test]
fn a_snapshot_does_not_bring_back_what_was_erased() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(dir.path());
    let url = relay.url();
    let snapshot = |supersedes: Vec<_>| {
        entry("song", Kind::Snapshot { heads: vec![[1; 32]], supersedes }, b"all of it".to_vec())
    };
    let changes: Vec<_> = (0..3).map(|n| entry("song", Kind::Changes, vec![n])).collect();
    let ids: Vec<_> = changes.iter().map(|entry| entry.id).collect();
    push(&url, changes);
    assert_eq!(push(&url, vec![entry("song", Kind::Erased, Vec::new())]), [Outcome::Stored(4)]);
    let outcome = push(&url, vec![snapshot(ids.clone())]).remove(0);
    assert!(matches!(&outcome, Outcome::Rejected(Rejection::Outdated, _)), "{outcome:?}");
    assert_eq!(pull(&url).len(), 1, "nothing but the erasure is there");

    // What is sent anew is superseded as ever, and a snapshot that arrives twice is known.
    let again = entry("song", Kind::Changes, vec![9]);
    let late = snapshot(vec![ids[0], again.id]);
    assert_eq!(push(&url, vec![again]), [Outcome::Stored(5)]);
    assert_eq!(push(&url, vec![late.clone()]), [Outcome::Stored(6)]);
    assert_eq!(push(&url, vec![late]), [Outcome::Stored(6)]);
}

#[test]
fn a_bad_entry_is_set_aside_and_blocks_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    a.documents("pieces").insert(&json!({ "id": "before", "lyrics": "x" })).unwrap();
    sync(&a, &relay.url());
    let id = DocumentId([1; 16]);
    let device_id = DeviceId([1; 16]);
    let entries = (0..30_u64)
        .map(|seed| {
            let kind = match seed % 3 {
                0 => Kind::Changes,
                1 => Kind::Snapshot { heads: vec![[0; 32]], supersedes: Vec::new() },
                // [9, {}]: of a later version.
                _ => Kind::Other(vec![0x82, 0x09, 0xa0]),
            };
            Entry::new(SpaceId::DEFAULT, id, device_id, kind, (seed / 3 % 3) as u8, random_bytes(seed, 200))
        })
        .collect();
    push(&relay.url(), entries);
    a.documents("pieces").insert(&json!({ "id": "after", "lyrics": "y" })).unwrap();
    sync(&a, &relay.url());
    let b = device(dir.path(), "b");
    let summary = sync(&b, &relay.url());
    assert_eq!(summary.quarantined, 30);
    assert_eq!(b.counts().unwrap().quarantined, 30);
    assert_eq!(contents(&a), contents(&b));
    assert_eq!(contents(&b).len(), 2);
}

/// Well-formed entries of a hostile device: values nested thousands deep, snapshots that could inflate, changes whose
/// dependencies never come.
#[test]
fn hostile_documents_are_set_aside_and_the_rest_goes_on() {
    use automerge::transaction::Transactable;
    use automerge::{Automerge, ObjType, ROOT};
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let mut deep = Automerge::new();
    let mut tx = deep.transaction();
    let mut inner = ROOT;
    for _ in 0..5_000 {
        inner = tx.put_object(&inner, "a", ObjType::Map).unwrap();
    }
    tx.commit();
    let heads = |am: &Automerge| am.get_heads().iter().map(|head| head.0).collect::<Vec<_>>();
    let mut inflating = Automerge::new();
    let mut tx = inflating.transaction();
    tx.put(ROOT, "title", "a".repeat(100_000)).unwrap();
    tx.commit();
    let mut orphan = inflating.clone();
    let mut tx = orphan.transaction();
    tx.put(ROOT, "title", "later").unwrap();
    tx.commit();
    let snapshot = |am: &Automerge| Kind::Snapshot { heads: heads(am), supersedes: Vec::new() };
    let entries = vec![
        entry("deep changes", Kind::Changes, deep.save_after(&[])),
        entry("deep snapshot", snapshot(&deep), deep.save_nocompress()),
        entry("inflating", snapshot(&inflating), inflating.save()),
        entry("orphan", Kind::Changes, orphan.save_after(&inflating.get_heads())),
        entry("wrong heads", snapshot(&deep), inflating.save_nocompress()),
        entry("not automerge", Kind::Changes, vec![1, 2, 3]),
    ];
    let count = entries.len() as u64;
    push(&relay.url(), entries);
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    a.documents("pieces").insert(&json!({ "id": "good", "lyrics": "words" })).unwrap();
    for replica in [&a, &b] {
        sync(replica, &relay.url());
        assert_eq!(replica.counts().unwrap().quarantined, count);
        assert_eq!(contents(replica).len(), 1);
    }
    assert_eq!(contents(&a), contents(&b));
}

/// A relay that answers nonsense: the device says so, keeps everything and stays usable.
#[test]
fn a_device_survives_a_relay_that_speaks_nonsense() {
    let dir = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (seed, stream) in (0..).zip(listener.incoming()) {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut buffer = [0; 4_096];
                let read = stream.read(&mut buffer).unwrap_or(0);
                let request = String::from_utf8_lossy(&buffer[..read]).into_owned();
                let key = request.lines().find_map(|line| {
                    line.to_lowercase().starts_with("sec-websocket-key").then(|| line[19..].trim().to_owned())
                });
                if let Some(key) = key {
                    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
                    _ = write!(
                        stream,
                        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
                    );
                }
                // A well-formed WebSocket message whose content is noise.
                let noise = random_bytes(seed, 100);
                _ = stream.write_all(&[&[0x82, 100], &noise[..]].concat());
                _ = stream.read(&mut buffer);
            });
        }
    });
    let a = device(dir.path(), "a");
    a.documents("pieces").insert(&json!({ "id": "x", "lyrics": "words" })).unwrap();
    a.connect(motet::Relay::new(&url)).unwrap();
    let begun = Instant::now();
    let error = a.sync_now().unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(31), "{error}");
    assert_eq!(a.status().pending, 1);
    a.documents("pieces").document("x").splice_text("lyrics", 0, 0, "more ").unwrap();
    drop(a);
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    sync(&a, &relay.url());
    let b = device(dir.path(), "b");
    sync(&b, &relay.url());
    assert_eq!(contents(&a), contents(&b));
}

fn hello(version_min: u16, version_max: u16) -> Hello {
    Hello {
        version_min,
        version_max,
        device: DeviceId([9; 16]),
        space: SpaceId::DEFAULT,
        agent: "test".into(),
        account: None,
        log: None,
    }
}

fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}
