//! A space that several accounts share, as an authorizer of the program that runs the relay decides: who reads, who writes, who has documents
//! erased, and from when on.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use motet::{Relay, Replica, SpaceId, SyncError, SyncState, Transport, json};
use motet_proto::message::{ErrorCode, Hello, Pull};
use motet_proto::{DeviceId, Message, frame};
use motet_relay::Config;
use motet_relay::access::{Access, AccessError, Authorizer};
use motet_relay::auth::{Auth, Principal};
use motet_tests::{TestRelay, wait_until};
use serde_json::Value;
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(60);

/// The band is keola's, the others are members of it. Everybody has spaces of their own beside.
struct Band {
    members: Mutex<HashMap<String, Access>>,
    changes: watch::Sender<()>,
    trouble: AtomicU8,
    /// How long it takes to answer, in milliseconds.
    delay: AtomicU64,
}

impl Band {
    fn new() -> Arc<Self> {
        let members = Mutex::new(HashMap::from([("keola".to_owned(), Access::full("keola"))]));
        Arc::new(Self {
            members,
            changes: watch::Sender::new(()),
            trouble: AtomicU8::new(0),
            delay: AtomicU64::new(5),
        })
    }

    fn admit(&self, account: &str, may_write: bool, may_erase: bool) {
        let access = Access { owner: "keola".into(), may_write, may_erase };
        self.members.lock().unwrap().insert(account.into(), access);
        self.changes.send_replace(());
    }

    fn remove(&self, account: &str) {
        self.members.lock().unwrap().remove(account);
        self.changes.send_replace(());
    }
}

impl Authorizer for Band {
    fn authorize<'a>(
        &'a self,
        who: &'a Principal,
        space: SpaceId,
    ) -> BoxFuture<'a, Result<Access, AccessError>> {
        async move {
            match self.trouble.load(Ordering::Relaxed) {
                0 => {}
                1 => return Err(AccessError::Unavailable),
                2 => std::future::pending::<()>().await,
                _ => panic!("the authorizer of the test"),
            }
            if space == SpaceId::DEFAULT {
                return Ok(Access::full(&who.account));
            }
            let access = self.members.lock().unwrap().get(&who.account).cloned();
            tokio::time::sleep(Duration::from_millis(self.delay.load(Ordering::Relaxed))).await;
            access.filter(|_| space == band()).ok_or(AccessError::Forbidden)
        }
        .boxed()
    }

    fn changes(&self) -> Option<watch::Receiver<()>> {
        Some(self.changes.subscribe())
    }
}

fn band() -> SpaceId {
    SpaceId::named("band")
}

fn start(dir: &Path, access: &Arc<Band>) -> TestRelay {
    let tokens = dir.join("tokens");
    std::fs::write(&tokens, "t-keola -> keola\nt-leilani -> leilani\nt-nalani -> nalani\n").unwrap();
    let auth = Arc::new(Auth::from_file(&tokens).unwrap());
    TestRelay::start_as(Config { auth, access: access.clone(), ..Config::in_memory() })
}

/// A device of an account, on the band unless another space is named.
fn device(dir: &Path, account: &str) -> Replica {
    let file = dir.join(format!("{account}.db"));
    Replica::builder(file).device_name(account).space(band()).open().unwrap()
}

fn connect(replica: &Replica, relay: &TestRelay) {
    let token = format!("t-{}", replica.device_name());
    replica.connect(Relay::new(&relay.url()).token(&token)).unwrap();
}

fn title(replica: &Replica, id: &str) -> Option<String> {
    let song: Option<motet::Record<Value>> = replica.documents("songs").get(id).unwrap();
    Some(song?["title"].as_str()?.to_owned())
}

fn put(replica: &Replica, id: &str, title: &str) {
    replica.documents("songs").upsert(id, &json!({ "title": title })).unwrap();
}

#[test]
fn members_read_and_write_and_readers_only_read() {
    let dir = tempfile::tempdir().unwrap();
    let access = Band::new();
    access.admit("leilani", true, true);
    access.admit("nalani", false, false);
    let relay = start(dir.path(), &access);
    let [keola, leilani, nalani] = ["keola", "leilani", "nalani"].map(|name| device(dir.path(), name));
    for replica in [&keola, &leilani, &nalani] {
        connect(replica, &relay);
    }
    put(&keola, "1", "Pua Ana");
    put(&leilani, "2", "Hanohano");
    for replica in [&keola, &leilani, &keola, &nalani] {
        replica.sync_now().unwrap();
    }
    for replica in [&keola, &leilani, &nalani] {
        assert_eq!(
            (title(replica, "1").as_deref(), title(replica, "2").as_deref()),
            (Some("Pua Ana"), Some("Hanohano"))
        );
    }
    // Each is an account of its own all the same.
    assert_ne!(keola.account().unwrap(), leilani.account().unwrap());

    // What a reader writes waits, and what others write goes on arriving.
    put(&nalani, "3", "Hiʻilawe");
    let refused = nalani.sync_now().unwrap_err();
    assert!(matches!(&refused, SyncError::Forbidden { reason } if reason.contains("may read")), "{refused}");
    assert_eq!((refused.code(), refused.is_retryable()), ("sync-forbidden", false));
    put(&keola, "1", "Pua Ana e");
    wait_until("an edit of others", PATIENCE, || title(&nalani, "1").as_deref() == Some("Pua Ana e"));
    let status = nalani.status();
    assert_eq!(status.pending, 1);
    assert_eq!(status.last_error.unwrap().code, "sync-forbidden");
    assert_eq!(title(&keola, "3"), None);

    // From the moment it may, it is sent.
    access.admit("nalani", true, false);
    wait_until("she may write", PATIENCE, || nalani.sync_now().is_ok());
    wait_until("what had waited", PATIENCE, || title(&keola, "3").as_deref() == Some("Hiʻilawe"));
    assert_eq!((nalani.status().state, nalani.status().pending), (SyncState::Synced, 0));
}

#[test]
fn who_is_removed_is_disconnected_and_keeps_what_was_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    let access = Band::new();
    access.admit("leilani", true, true);
    let relay = start(dir.path(), &access);
    let [keola, leilani, stranger] = ["keola", "leilani", "nalani"].map(|name| device(dir.path(), name));
    for replica in [&keola, &leilani] {
        connect(replica, &relay);
        replica.sync_now().unwrap();
    }
    put(&keola, "1", "Pua Ana");
    wait_until("the song", PATIENCE, || title(&leilani, "1").is_some());
    access.remove("leilani");
    wait_until("she is told", Duration::from_secs(5), || {
        leilani.status().last_error.is_some_and(|error| error.code == "sync-forbidden")
    });
    put(&leilani, "2", "Hanohano");
    let refused = leilani.sync_now().unwrap_err();
    assert!(matches!(refused, SyncError::Forbidden { .. }), "{refused}");
    put(&keola, "3", "Hiʻilawe");
    keola.sync_now().unwrap();
    assert_eq!((title(&leilani, "3"), title(&keola, "2")), (None, None));
    assert_eq!((leilani.status().pending, title(&leilani, "2").as_deref()), (1, Some("Hanohano")));

    // A space that is not there and one of others are answered alike.
    connect(&stranger, &relay);
    let of_others = stranger.sync_now().unwrap_err().to_string();
    let none =
        Replica::builder(dir.path().join("none.db")).device_name("nalani").space(SpaceId::named("none"));
    let none = none.open().unwrap();
    connect(&none, &relay);
    assert_eq!(none.sync_now().unwrap_err().to_string(), of_others);
    assert_eq!(of_others, refused.to_string());

    // She comes back.
    access.admit("leilani", true, true);
    leilani.sync_now().unwrap();
    keola.sync_now().unwrap();
    assert_eq!(title(&keola, "2").as_deref(), Some("Hanohano"));
    assert_eq!(title(&leilani, "3").as_deref(), Some("Hiʻilawe"));
}

#[test]
fn who_may_not_erase_still_deletes() {
    let dir = tempfile::tempdir().unwrap();
    let access = Band::new();
    access.admit("leilani", true, false);
    let relay = start(dir.path(), &access);
    let [keola, leilani] = ["keola", "leilani"].map(|name| device(dir.path(), name));
    put(&keola, "1", "Pua Ana");
    put(&keola, "2", "Hanohano");
    for replica in [&keola, &leilani] {
        connect(replica, &relay);
        replica.sync_now().unwrap();
    }
    // Of what goes together only the erasures are refused.
    leilani.erase_remote("songs").unwrap();
    leilani.documents("notes").upsert("1", &json!({ "title": "Kept" })).unwrap();
    let summary = leilani.sync_now().unwrap();
    assert_eq!(summary.rejected, 2, "{summary:?}");
    let fresh =
        Replica::builder(dir.path().join("fresh.db")).device_name("keola").space(band()).open().unwrap();
    connect(&fresh, &relay);
    fresh.sync_now().unwrap();
    assert_eq!(
        (title(&fresh, "1").as_deref(), title(&fresh, "2").as_deref()),
        (Some("Pua Ana"), Some("Hanohano"))
    );
    assert!(fresh.documents("notes").get("1").unwrap().is_some_and(|_: motet::Record<Value>| true));

    // When she may, it is done with her next session.
    access.admit("leilani", true, true);
    leilani.disconnect();
    connect(&leilani, &relay);
    leilani.sync_now().unwrap();
    assert_eq!((leilani.status().state, leilani.status().pending), (SyncState::Synced, 0));
    let later =
        Replica::builder(dir.path().join("later.db")).device_name("keola").space(band()).open().unwrap();
    connect(&later, &relay);
    later.sync_now().unwrap();
    assert_eq!((title(&later, "1"), title(&later, "2")), (None, None));
}

fn is_told(replica: &Replica) -> bool {
    replica.status().last_error.is_some_and(|error| error.code == "sync-forbidden")
}

#[test]
fn who_is_removed_while_nobody_can_say_so_goes_as_soon_as_somebody_can() {
    let dir = tempfile::tempdir().unwrap();
    for trouble in [1, 3] {
        let access = Band::new();
        access.admit("leilani", true, true);
        let relay = start(dir.path(), &access);
        let leilani = device(dir.path(), "leilani");
        connect(&leilani, &relay);
        leilani.sync_now().unwrap();
        access.trouble.store(trouble, Ordering::Relaxed);
        access.remove("leilani");
        std::thread::sleep(Duration::from_millis(200));
        access.trouble.store(0, Ordering::Relaxed);
        wait_until("she is told", Duration::from_secs(10), || is_told(&leilani));
        leilani.disconnect();
    }
}

/// Changes may come faster than answers: somebody else joins or leaves all the time.
#[test]
fn changes_without_end_keep_nobody_in_and_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let access = Band::new();
    access.admit("leilani", true, true);
    let relay = start(dir.path(), &access);
    let [keola, leilani] = ["keola", "leilani"].map(|name| device(dir.path(), name));
    connect(&leilani, &relay);
    leilani.sync_now().unwrap();
    access.delay.store(200, Ordering::Relaxed);
    let is_over = Arc::new(AtomicBool::new(false));
    let (theirs, band) = (is_over.clone(), access.clone());
    let others = std::thread::spawn(move || {
        while !theirs.load(Ordering::Relaxed) {
            band.changes.send_replace(());
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    access.remove("leilani");
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until("she is told", Duration::from_secs(10), || is_told(&leilani));
        connect(&keola, &relay);
        keola.sync_now().unwrap();
    }));
    is_over.store(true, Ordering::Relaxed);
    others.join().unwrap();
    told.unwrap();
}

#[test]
fn a_space_that_gets_another_owner_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let access = Band::new();
    access.admit("leilani", true, true);
    let relay = start(dir.path(), &access);
    let [keola, leilani] = ["keola", "leilani"].map(|name| device(dir.path(), name));
    put(&keola, "1", "Pua Ana");
    for replica in [&keola, &leilani] {
        connect(replica, &relay);
        replica.sync_now().unwrap();
    }
    let of_leilani = Access::full("leilani");
    access.members.lock().unwrap().values_mut().for_each(|access| *access = of_leilani.clone());
    access.changes.send_replace(());
    put(&keola, "2", "Hanohano");
    wait_until("an edit after that", Duration::from_secs(30), || title(&leilani, "2").is_some());
    assert_eq!(title(&leilani, "1").as_deref(), Some("Pua Ana"));
    wait_until("all is well", PATIENCE, || keola.status().state == SyncState::Synced);
}

/// A body of a `POST` may arrive slowly: whoever is removed meanwhile does nothing more with it.
#[test]
fn a_post_that_was_begun_before_ends_with_the_right_to_it() {
    use std::io::{Read, Write};
    let dir = tempfile::tempdir().unwrap();
    let access = Band::new();
    access.admit("leilani", true, true);
    let relay = start(dir.path(), &access);
    let framed = |message: &Message| {
        let frame = frame::encode(message);
        [&(frame.len() as u32).to_be_bytes()[..], &frame].concat()
    };
    let hello = framed(&Message::Hello(Hello {
        version_min: 1,
        version_max: 1,
        device: DeviceId([7; 16]),
        space: band(),
        agent: "test".into(),
        account: None,
        log: None,
    }));
    let pull = framed(&Message::Pull(Pull { id: 1, after: None, live: false }));
    let url = relay.url();
    let address = url.strip_prefix("http://").unwrap();
    let answer = |is_removed: bool| {
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        let length = hello.len() + pull.len();
        // An older HTTP, so that the answer is not in chunks.
        let head = format!(
            "POST /v1/sync HTTP/1.0\r\nHost: relay\r\nAuthorization: Bearer t-leilani\r\nContent-Length: {length}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).unwrap();
        socket.write_all(&hello).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        if is_removed {
            access.remove("leilani");
        }
        socket.write_all(&pull).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let at = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        let mut rest = &answer[at..];
        let mut messages = Vec::new();
        while let Ok(Some(frame)) = frame::split_delimited(&mut rest) {
            messages.push(frame::decode(frame).unwrap());
        }
        messages
    };
    let messages = answer(false);
    assert!(matches!(&messages[..], [Message::Welcome(_), Message::Page(_)]), "{messages:?}");
    let messages = answer(true);
    let [Message::Welcome(_), Message::Error(error)] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(error.code, ErrorCode::Forbidden);
}

#[test]
fn an_authorizer_in_trouble_refuses_nobody_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let access = Band::new();
    let relay = start(dir.path(), &access);
    let keola = device(dir.path(), "keola");
    put(&keola, "1", "Pua Ana");
    connect(&keola, &relay);
    keola.sync_now().unwrap();
    for trouble in 1..=3 {
        access.trouble.store(trouble, Ordering::Relaxed);
        // Who is there stays.
        access.changes.send_replace(());
        put(&keola, "1", &format!("Pua Ana {trouble}"));
        keola.sync_now().unwrap();
        if trouble != 1 {
            continue;
        }
        // Who comes is asked to come again.
        keola.disconnect();
        connect(&keola, &relay);
        let error = keola.sync_now().unwrap_err();
        assert!(!matches!(error, SyncError::Forbidden { .. }) && error.is_retryable(), "{error}");
        access.trouble.store(0, Ordering::Relaxed);
        keola.disconnect();
        connect(&keola, &relay);
        keola.sync_now().unwrap();
    }
}

#[test]
fn it_is_the_same_over_post() {
    let dir = tempfile::tempdir().unwrap();
    let access = Band::new();
    access.admit("nalani", false, false);
    let relay = start(dir.path(), &access);
    let [keola, nalani, leilani] = ["keola", "nalani", "leilani"].map(|name| device(dir.path(), name));
    let over_post = |replica: &Replica| {
        let token = format!("t-{}", replica.device_name());
        let relay = Relay::new(&relay.url()).token(&token).transport(Transport::Post);
        replica.connect(relay).unwrap();
        replica.sync_now()
    };
    put(&keola, "1", "Pua Ana");
    over_post(&keola).unwrap();
    over_post(&nalani).unwrap();
    assert_eq!(title(&nalani, "1").as_deref(), Some("Pua Ana"));
    put(&nalani, "1", "Pua Ana e");
    let refused = nalani.sync_now().unwrap_err();
    assert!(matches!(refused, SyncError::Forbidden { .. }), "{refused}");
    let refused = over_post(&leilani).unwrap_err();
    assert!(matches!(refused, SyncError::Forbidden { .. }), "{refused}");
    access.admit("nalani", true, true);
    nalani.sync_now().unwrap();
    keola.sync_now().unwrap();
    assert_eq!(title(&keola, "1").as_deref(), Some("Pua Ana e"));
}
