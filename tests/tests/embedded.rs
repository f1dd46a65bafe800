//! A relay in the process of its devices, and connectors of the app: no port, no HTTP, and every fault that a connector may have.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, future, sink, stream};
use motet::{Connector, FrameChannel, Relay, Replica, SyncError, SyncState, WriteError, json};
use motet_proto::message::{Ping, Welcome};
use motet_proto::{Message, frame};
use motet_relay::auth::Auth;
use motet_relay::{Config, ConnectError, Embedded};
use motet_tests::random::{Random, runs, seed};
use motet_tests::{contents, singer, wait_until};

type Connecting = Pin<Box<dyn Future<Output = Result<FrameChannel, SyncError>> + Send>>;

/// Connects to an embedded relay, if there is one at the time.
#[derive(Clone)]
struct InProcess {
    relay: Arc<Mutex<Option<Arc<Embedded>>>>,
    /// Each connection is cut after so many frames, in either direction; 0: never.
    cut_after: Arc<AtomicU64>,
}

impl InProcess {
    fn start(config: Config) -> Self {
        let this = Self { relay: Arc::default(), cut_after: Arc::default() };
        this.open(config);
        this
    }

    fn open(&self, config: Config) {
        *self.relay.lock().unwrap() = Some(Arc::new(Embedded::start(config).unwrap()));
    }

    fn stop(&self) {
        let mut relay = self.relay.lock().unwrap().take().unwrap();
        // A device that connects just now has it as well.
        let relay = loop {
            match Arc::try_unwrap(relay) {
                Ok(relay) => break relay,
                Err(shared) => relay = shared,
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        relay.close();
    }
}

impl Connector for InProcess {
    fn connect(&self, token: Option<String>) -> Connecting {
        let this = self.clone();
        Box::pin(async move {
            let offline = |reason: &str| SyncError::Offline { reason: reason.into(), retry_after: None };
            let relay = this.relay.lock().unwrap().clone().ok_or_else(|| offline("there is no relay"))?;
            let (outgoing, incoming) = match relay.connect(token.as_deref()).await {
                Ok(halves) => halves,
                Err(ConnectError::Unauthorized(reason)) => return Err(SyncError::AuthNeeded { reason }),
                Err(error) => return Err(offline(&error.to_string())),
            };
            let cut_after = this.cut_after.load(Ordering::Relaxed);
            let frames = Arc::new(AtomicU64::new(0));
            let passes = move || cut_after == 0 || frames.fetch_add(1, Ordering::Relaxed) < cut_after;
            let incoming = incoming.take_while(move |_| future::ready(passes())).map(Ok);
            Ok(FrameChannel::new(outgoing, incoming))
        })
    }
}

fn connect(replica: &Replica, relay: &InProcess) {
    replica.connect(Relay::through("in process", relay.clone())).unwrap();
}

fn wait_for_state(replica: &Replica, state: SyncState) {
    wait_until(&format!("{state}"), Duration::from_secs(60), || replica.status().state == state);
}

#[test]
fn devices_of_one_process_sync_without_a_port() {
    let dir = tempfile::tempdir().unwrap();
    let relay = InProcess::start(Config::new(dir.path().join("relay")));
    let (a, b) = (singer(dir.path(), "a"), singer(dir.path(), "b"));
    let songs = a.documents("songs");
    for n in 0..500 {
        let lyrics = "Haʻaheo ka ua i nā pali\n".repeat(40);
        songs
            .insert(&json!({ "id": n.to_string(), "title": format!("Mele {n}"), "lyrics": lyrics }))
            .unwrap();
    }
    connect(&a, &relay);
    a.sync_now().unwrap();
    connect(&b, &relay);
    b.sync_now().unwrap();
    assert_eq!(contents(&a), contents(&b));
    // What one writes reaches the other without being asked for.
    b.documents("songs").patch("7", &json!({ "title": "Hoʻi mai" })).unwrap();
    let title = || songs.get("7").unwrap().unwrap()["title"].clone();
    wait_until("the title of b", Duration::from_secs(20), || title() == json!("Hoʻi mai"));
    // The relay goes, and comes back with the same data.
    relay.stop();
    wait_for_state(&a, SyncState::Offline);
    songs.patch("8", &json!({ "title": "Written meanwhile" })).unwrap();
    assert!(a.status().pending > 0);
    relay.open(Config::new(dir.path().join("relay")));
    let sent = a.sync_now().unwrap();
    assert_eq!(sent.sent, 1);
    b.sync_now().unwrap();
    assert_eq!(contents(&a), contents(&b));
    wait_until("all is sent", Duration::from_secs(60), || {
        let status = a.status();
        status.state == SyncState::Synced && status.pending == 0
    });
}

#[test]
fn tokens_tell_accounts_apart_and_a_refused_one_is_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, "secret -> keola\nother -> leilani\n").unwrap();
    let config =
        Config { auth: Arc::new(Auth::from_file(&tokens).unwrap()), ..Config::new(dir.path().join("relay")) };
    let relay = InProcess::start(config);
    let (a, b, other) = (singer(dir.path(), "a"), singer(dir.path(), "b"), singer(dir.path(), "other"));
    a.documents("songs").insert(&json!({ "title": "Mine" })).unwrap();
    let through = |token: Option<&str>| {
        let through = Relay::through("in process", relay.clone());
        token.map_or(through.clone(), |token| through.token(token))
    };
    for bad in [None, Some("none")] {
        a.connect(through(bad)).unwrap();
        assert!(matches!(a.sync_now(), Err(SyncError::AuthNeeded { .. })), "{bad:?}");
        wait_for_state(&a, SyncState::AuthNeeded);
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    a.connect(through(None).token_provider(move |request| {
        counted.fetch_add(1, Ordering::Relaxed);
        let token = if request.rejected { "secret" } else { "worn-out" };
        async move { Ok(token.to_owned()) }
    }))
    .unwrap();
    a.sync_now().unwrap();
    assert!(asked.load(Ordering::Relaxed) >= 2);
    for (replica, token, sees) in [(&b, "secret", 1), (&other, "other", 0)] {
        replica.connect(through(Some(token))).unwrap();
        replica.sync_now().unwrap();
        assert_eq!(contents(replica).len(), sees);
    }
}

/// A name, and what a connector with that fault does.
type Fault = (&'static str, fn() -> Connecting);

/// What a connector may do wrong.
struct Faulty(fn() -> Connecting);

impl Connector for Faulty {
    fn connect(&self, _token: Option<String>) -> Connecting {
        (self.0)()
    }
}

#[test]
fn no_connector_stops_the_replica_or_loses_its_words() {
    let faults: [Fault; 8] = [
        ("refuses", || {
            Box::pin(async { Err(SyncError::Offline { reason: "no".into(), retry_after: None }) })
        }),
        ("is no relay", || Box::pin(async { Err(SyncError::NoRelay { reason: "a printer".into() }) })),
        ("never connects", || Box::pin(future::pending())),
        ("panics", || panic!("a fault of the app")),
        ("ends at once", || Box::pin(async { Ok(FrameChannel::new(sink::drain(), stream::empty())) })),
        ("says nothing", || Box::pin(async { Ok(FrameChannel::new(sink::drain(), stream::pending())) })),
        ("sends what is no frame", || {
            let noise = stream::repeat_with(|| Ok(vec![7; 1_000]));
            Box::pin(async { Ok(FrameChannel::new(sink::drain(), noise)) })
        }),
        ("sends too much", || {
            let much = stream::repeat_with(|| Ok(vec![0; motet_proto::limits::FRAME_BYTES + 1]));
            let fails = sink::unfold((), |(), _: Vec<u8>| future::ready(Err(io::Error::other("broken"))));
            Box::pin(async { Ok(FrameChannel::new(fails, much)) })
        }),
    ];
    let dir = tempfile::tempdir().unwrap();
    let relay = InProcess::start(Config::new(dir.path().join("relay")));
    let replica = singer(dir.path(), "a");
    for (name, fault) in faults {
        replica.documents("songs").insert(&json!({ "id": name, "title": name })).unwrap();
        replica.connect(Relay::through("in process", Faulty(fault))).unwrap();
        let begun = Instant::now();
        let error = replica.on_background(Duration::from_secs(3)).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(10), "{name}: {error}");
        assert!(!error.to_string().is_empty());
        let status = replica.status();
        assert!(status.pending > 0 && status.state != SyncState::Synced, "{name}: {status:?}");
        replica.disconnect();
    }
    assert!(matches!(replica.connect(Relay::through(" ", relay.clone())), Err(SyncError::BadUrl { .. })));
    connect(&replica, &relay);
    assert_eq!(replica.sync_now().unwrap().sent, 8);
    let fresh = singer(dir.path(), "fresh");
    connect(&fresh, &relay);
    fresh.sync_now().unwrap();
    assert_eq!(contents(&fresh), contents(&replica));
}

#[test]
fn connections_that_are_cut_again_and_again_lose_nothing() {
    let mut random = Random(seed());
    for _ in 0..runs(6) {
        let dir = tempfile::tempdir().unwrap();
        let relay = InProcess::start(Config::new(dir.path().join("relay")));
        let devices = ["a", "b"].map(|name| singer(dir.path(), name));
        let mut written = 0;
        for _ in 0..6 {
            relay.cut_after.store(1 + random.below(12), Ordering::Relaxed);
            for replica in &devices {
                for _ in 0..random.below(30) {
                    let id = random.below(20).to_string();
                    let line = format!("line {written}\n");
                    let songs = replica.documents("songs");
                    // A replica that is connected may receive the document at any moment.
                    match songs.insert(&json!({ "id": id, "lyrics": "" })) {
                        Ok(_) | Err(WriteError::Exists { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                    songs.document(&id).splice_text("lyrics", 0, 0, &line).unwrap();
                    written += 1;
                }
                connect(replica, &relay);
                _ = replica.on_background(Duration::from_millis(500));
                if random.below(2) == 0 {
                    replica.disconnect();
                }
            }
        }
        relay.cut_after.store(0, Ordering::Relaxed);
        for replica in devices.iter().chain(&devices) {
            connect(replica, &relay);
            replica.sync_now().unwrap();
        }
        assert_eq!(contents(&devices[0]), contents(&devices[1]));
        let all: String =
            contents(&devices[0]).iter().map(|(.., value)| value["lyrics"].to_string()).collect();
        for n in 0..written {
            assert_eq!(all.matches(&format!("line {n}\\n")).count(), 1, "line {n}");
        }
        for replica in &devices {
            assert_eq!(replica.verify().unwrap().problems, []);
            assert_eq!(replica.status().pending, 0);
        }
    }
}

/// A relay that only says that it is there, without end, brings no round on.
#[test]
fn signs_of_life_alone_keep_nobody_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let replica = singer(dir.path(), "a");
    replica.documents("songs").insert(&json!({ "title": "Hiʻilawe" })).unwrap();
    let alive = Faulty(|| {
        let welcome = Message::Welcome(Welcome { version: 1, ..Welcome::default() });
        let first = stream::once(future::ready(Ok(frame::encode(&welcome))));
        let then = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            Some((Ok(frame::encode(&Message::Pong(Ping { nonce: 1 }))), ()))
        });
        Box::pin(async { Ok(FrameChannel::new(sink::drain(), first.chain(then))) })
    });
    replica.connect(Relay::through("in process", alive)).unwrap();
    let begun = Instant::now();
    let error = replica.sync_now().unwrap_err();
    assert!(begun.elapsed() < motet::limits::ROUND_TIMEOUT + Duration::from_secs(15), "{error}");
    assert_eq!(replica.status().pending, 1);
}

/// An app's test may start one anywhere, and hears why it does not start.
#[test]
fn a_relay_that_does_not_start_says_why_also_to_async_code() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let relay = Embedded::start(Config::new(&data)).unwrap();
        let error = Embedded::start(Config::new(&data)).unwrap_err();
        assert!(error.to_string().contains("another relay"), "{error}");
        let (mut outgoing, mut incoming) = relay.connect(None).await.unwrap();
        let large = vec![0; motet_proto::limits::FRAME_BYTES + 1];
        assert!(futures_util::SinkExt::send(&mut outgoing, large).await.is_err());
        relay.close();
        while incoming.next().await.is_some() {}
        assert!(incoming.next().await.is_none());
        Embedded::start(Config::new(&data)).unwrap().close();
    });
}

/// A provider that has a fresh token each time, and none of them good, is asked twice, and not without end.
#[test]
fn a_provider_of_tokens_that_are_all_refused_is_asked_twice() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, "secret -> keola\n").unwrap();
    let config =
        Config { auth: Arc::new(Auth::from_file(&tokens).unwrap()), ..Config::new(dir.path().join("relay")) };
    let (relay, a) = (InProcess::start(config), singer(dir.path(), "a"));
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let through = Relay::through("in process", relay).token_provider(move |_| {
        let number = counted.fetch_add(1, Ordering::Relaxed);
        async move { Ok(format!("fresh-{number}")) }
    });
    a.connect(through).unwrap();
    assert!(matches!(a.sync_now(), Err(SyncError::AuthNeeded { .. })));
    wait_for_state(&a, SyncState::AuthNeeded);
    assert!(asked.load(Ordering::Relaxed) <= 6, "{asked:?}");
}
