//! Who is where: told to those who are connected, and never stored.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use motet::{Peer, Place, Relay, Replica, Schema};
use motet_proto::message::{Hello, Message, Ping, Pull};
use motet_proto::presence::Presence;
use motet_proto::{DeviceId, SpaceId, frame, limits};
use motet_tests::{TestRelay, device, program, sync, wait_until};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message as WsMessage;

const SOON: Duration = Duration::from_secs(10);

fn peers(replica: &Replica) -> Vec<Peer> {
    replica.peers().unwrap()
}

fn is_at(replica: &Replica, cursor: Option<usize>) -> bool {
    matches!(&peers(replica)[..], [peer] if peer.place.cursor == cursor)
}

#[test]
fn a_cursor_is_seen_moves_with_the_text_and_goes_with_its_device() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let [a, b] = ["a", "b"].map(|name| device(dir.path(), name));
    let songs = a.documents("pieces");
    songs.upsert("song", &json!({ "lyrics": "Ka pō nani\n" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    [&a, &b].into_iter().for_each(|replica| replica.connect(Relay::new(&relay.url())).unwrap());

    let mut watch = b.watch_peers();
    a.set_presence(Some(&Place::document("pieces", "song").cursor("lyrics", 3))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(SOON, watch.changed()).await }).expect("b is told");
    assert!(is_at(&b, Some(3)), "{:?}", peers(&b));
    let seen = &peers(&b)[0];
    assert_eq!((seen.device, seen.device_name.as_str()), (a.device_id(), "a"));
    assert_eq!((seen.place.id.as_str(), seen.place.field.as_deref()), ("song", Some("lyrics")));
    assert!(peers(&a).is_empty(), "nobody is its own peer");

    // What b types before the cursor moves it, at once and without a word from a.
    b.documents("pieces").document("song").splice_text("lyrics", 0, 0, "ʻAe, ").unwrap();
    assert!(is_at(&b, Some(8)), "{:?}", peers(&b));
    // The end of a text is a place as well.
    a.set_presence(Some(&Place::document("pieces", "song").cursor("lyrics", usize::MAX))).unwrap();
    wait_until("the cursor is at the end", SOON, || {
        let text = b.documents("pieces").get("song").unwrap().unwrap()["lyrics"].clone();
        is_at(&b, Some(text.as_str().unwrap().chars().count()))
    });

    // Who comes later hears of it, also of a document that has not arrived there.
    let c = device(dir.path(), "c");
    c.connect(Relay::new(&relay.url())).unwrap();
    wait_until("c sees a", SOON, || peers(&c).len() == 1);

    a.set_presence(None).unwrap();
    wait_until("a is nowhere", SOON, || peers(&b).is_empty() && peers(&c).is_empty());
    a.set_presence(Some(&Place::document("pieces", "song"))).unwrap();
    wait_until("a is back", SOON, || is_at(&b, None));
    a.disconnect();
    wait_until("a is gone", SOON, || peers(&b).is_empty() && peers(&c).is_empty());
    a.connect(Relay::new(&relay.url())).unwrap();
    wait_until("a comes back by itself", SOON, || peers(&b).len() == 1);
    b.disconnect();
    wait_until("who is not connected knows nobody", SOON, || peers(&b).is_empty());
}

#[test]
fn many_moves_end_at_the_last_and_nothing_is_told_of_what_stays_here() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let [a, b] = ["a", "b"].map(|name| device(dir.path(), name));
    a.apply_schema(&Schema::new().local("drafts")).unwrap();
    a.documents("pieces").upsert("song", &json!({ "lyrics": "x".repeat(500) })).unwrap();
    [&a, &b].into_iter().for_each(|replica| replica.connect(Relay::new(&relay.url())).unwrap());
    a.sync_now().unwrap();
    b.sync_now().unwrap();
    let before = (a.sync_now().unwrap(), b.sync_now().unwrap());
    for at in 0..400 {
        a.set_presence(Some(&Place::document("pieces", "song").cursor("lyrics", at))).unwrap();
    }
    wait_until("the last place is seen", SOON, || is_at(&b, Some(399)));
    let after = b.sync_now().unwrap();
    assert!(after.bytes_down < before.1.bytes_down + 40 * 300, "{after:?}");

    a.documents("drafts").upsert("secret", &json!({ "words": "mine" })).unwrap();
    a.set_presence(Some(&Place::document("drafts", "secret"))).unwrap();
    wait_until("a is nowhere that b may know", SOON, || peers(&b).is_empty());
    let error = a.set_presence(Some(&Place::document(&"x".repeat(600), "y"))).unwrap_err();
    assert_eq!(error.code(), "write-bad-name");
}

/// Of a collection that is switched off nothing is told, whoever switches it off, and also after reconnecting.
#[test]
fn what_is_switched_off_is_not_told_until_it_is_on_again() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let [a, b] = ["a", "b"].map(|name| device(dir.path(), name));
    a.documents("pieces").upsert("song", &json!({ "lyrics": "Ka pō nani\n" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    [&a, &b].into_iter().for_each(|replica| replica.connect(Relay::new(&relay.url())).unwrap());
    let nobody = |when: &str| wait_until(when, SOON, || peers(&b).is_empty());
    let somebody = |when: &str| wait_until(when, SOON, || is_at(&b, Some(3)));
    let still_nobody = || {
        a.sync_now().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(peers(&b), []);
    };
    a.set_presence(Some(&Place::document("pieces", "song").cursor("lyrics", 3))).unwrap();
    somebody("b sees a");

    a.set_collection_sync("pieces", false).unwrap();
    nobody("it is switched off");
    a.disconnect();
    a.connect(Relay::new(&relay.url())).unwrap();
    still_nobody();
    // Told while it is off, it is told when it is on.
    a.set_presence(Some(&Place::document("pieces", "song").cursor("lyrics", 3))).unwrap();
    still_nobody();
    a.set_collection_sync("pieces", true).unwrap();
    somebody("it is on again");

    // Another process has the file open.
    let beside = device(dir.path(), "a");
    beside.set_collection_sync("pieces", false).unwrap();
    nobody("another process has switched it off");
    beside.set_collection_sync("pieces", true).unwrap();
    somebody("another process has switched it on");

    a.apply_schema(&Schema::new().local("pieces")).unwrap();
    nobody("it stays on the device from now on");
    a.disconnect();
    a.connect(Relay::new(&relay.url())).unwrap();
    still_nobody();
}

/// Neither the name of a field that stays on the device nor a place in it is told.
#[test]
fn a_field_that_stays_here_is_not_told() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let [a, b] = ["a", "b"].map(|name| device(dir.path(), name));
    let local = motet::Field::from(motet::FieldKind::Local);
    a.apply_schema(&Schema::new().field("pieces", "secret", local.alias("hidden"))).unwrap();
    a.documents("pieces").upsert("song", &json!({ "lyrics": "words", "secret": "mine" })).unwrap();
    [&a, &b].into_iter().for_each(|replica| replica.connect(Relay::new(&relay.url())).unwrap());
    for field in ["secret", "hidden"] {
        a.set_presence(Some(&Place::document("pieces", "song").cursor("lyrics", 1))).unwrap();
        wait_until("b sees the field", SOON, || peers(&b).iter().any(|peer| peer.place.field.is_some()));
        a.set_presence(Some(&Place::document("pieces", "song").cursor(field, 1))).unwrap();
        wait_until("b sees no field", SOON, || peers(&b).iter().any(|peer| peer.place.field.is_none()));
    }
    // Declared later, it is taken back.
    a.set_presence(Some(&Place::document("pieces", "song").cursor("lyrics", 1))).unwrap();
    wait_until("b sees the field", SOON, || peers(&b).iter().any(|peer| peer.place.field.is_some()));
    a.apply_schema(&Schema::new().field("pieces", "lyrics", motet::FieldKind::Local)).unwrap();
    wait_until("b sees no field", SOON, || peers(&b).iter().any(|peer| peer.place.field.is_none()));
}

/// A device that says nothing any more, though its connection stands, is gone for the others; one that is only idle is not.
#[test]
fn a_frozen_device_is_gone_for_others_and_back_when_it_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start_impatient(&dir.path().join("relay"), Duration::from_secs(2));
    let [a, b] = ["a", "b"].map(|name| device(dir.path(), name));
    [&a, &b].into_iter().for_each(|replica| replica.connect(Relay::new(&relay.url())).unwrap());
    a.set_presence(Some(&Place::document("pieces", "song"))).unwrap();
    let seen = |names: &[&str]| {
        let peers = peers(&b);
        let mut known: Vec<_> = peers.iter().map(|peer| peer.device_name.as_str()).collect();
        known.sort_unstable();
        known == names
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut frozen = RawDevice::open(&relay, 7).await;
        frozen.tell("song").await;
        wait_until("both are seen", SOON, || seen(&["a", "song"]));
        // Nobody reads from the socket, and so nobody answers.
        wait_until("the frozen one is gone", SOON, || seen(&["a"]));
        frozen.send(&Message::Pong(Ping { nonce: 0 })).await;
        wait_until("it is back", SOON, || seen(&["a", "song"]));
        wait_until("and gone again", SOON, || seen(&["a"]));
        // The other is idle as well, and answers when it is asked.
        frozen.send(&Message::Presence(Presence::new(DeviceId([7; 16]), None))).await;
        frozen.send(&Message::Pong(Ping { nonce: 0 })).await;
        std::thread::sleep(Duration::from_secs(3));
        wait_until("who is nowhere is not back", SOON, || seen(&["a"]));
    });
}

/// A process that the system has stopped holds its connections open, and its kernel takes what is sent to it.
#[cfg(unix)]
#[test]
fn a_stopped_process_is_gone_for_others_until_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start_impatient(&dir.path().join("relay"), Duration::from_secs(2));
    let (b, polling) = (device(dir.path(), "b"), device(dir.path(), "polling"));
    b.connect(Relay::new(&relay.url())).unwrap();
    polling.connect(Relay::new(&relay.url()).transport(motet::Transport::Post)).unwrap();
    // Who polls tells nothing and hears nothing: it would be gone and back with every exchange.
    polling.set_presence(Some(&Place::document("pieces", "song"))).unwrap();
    let child = std::process::Command::new(program("motet-present-child"))
        .arg(dir.path().join("child.db"))
        .arg(relay.url())
        .spawn()
        .unwrap();
    let child = Killed(child);
    let names = || peers(&b).into_iter().map(|peer| peer.device_name).collect::<Vec<_>>();
    for _ in 0..2 {
        wait_until("the child is seen", SOON, || names() == ["child"]);
        child.signal("-STOP");
        wait_until("the stopped one is gone", SOON, || names().is_empty());
        polling.sync_now().unwrap();
        assert_eq!(peers(&polling), []);
        child.signal("-CONT");
    }
    wait_until("it is back", SOON, || names() == ["child"]);
    drop(child);
    wait_until("the killed one is gone", SOON, || names().is_empty());
}

/// A process that does not outlive its test.
#[cfg(unix)]
struct Killed(std::process::Child);

#[cfg(unix)]
impl Killed {
    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

#[cfg(unix)]
impl Drop for Killed {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// The session that a device has left behind ends later than its next one begins.
#[test]
fn an_old_session_that_ends_does_not_send_a_newer_one_away() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let b = device(dir.path(), "b");
    b.connect(Relay::new(&relay.url())).unwrap();
    let names = || {
        let mut names: Vec<_> = peers(&b).into_iter().map(|peer| peer.device_name).collect();
        names.sort_unstable();
        names
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut old = RawDevice::open(&relay, 7).await;
        old.tell("old").await;
        wait_until("the first session is seen", SOON, || names() == ["old"]);
        let mut new = RawDevice::open(&relay, 7).await;
        new.tell("new").await;
        wait_until("the second is seen", SOON, || names() == ["new"]);
        // What the old one has still to say is not news.
        old.tell("late").await;
        old.close().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut other = RawDevice::open(&relay, 8).await;
        other.tell("other").await;
        wait_until("another is seen, and the newer session still", SOON, || names() == ["new", "other"]);
        // An older one is left if the newer one ends.
        let mut newest = RawDevice::open(&relay, 7).await;
        newest.tell("newest").await;
        wait_until("the newest is seen", SOON, || names() == ["newest", "other"]);
        newest.close().await;
        wait_until("the one before is left", SOON, || names() == ["new", "other"]);
        new.close().await;
        wait_until("all of them are gone", SOON, || names() == ["other"]);
    });
}

/// A device on a bare socket.
struct RawDevice {
    socket: tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>,
    device: DeviceId,
}

impl RawDevice {
    async fn open(relay: &TestRelay, n: u8) -> Self {
        let url = format!("{}/v1/sync", relay.url().replace("http", "ws"));
        let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let device = DeviceId([n; 16]);
        let mut raw = Self { socket, device };
        let hello = Hello {
            version_min: limits::VERSION_MIN,
            version_max: limits::VERSION_MAX,
            device,
            space: SpaceId::DEFAULT,
            agent: "test".into(),
            account: None,
            log: None,
        };
        let pull = Pull { id: 1, after: None, live: true };
        for message in [Message::Hello(hello), Message::Pull(pull)] {
            raw.send(&message).await;
            // The welcome, and the first page: places are told after that.
            assert!(matches!(raw.socket.next().await, Some(Ok(WsMessage::Binary(_)))));
        }
        raw
    }

    async fn send(&mut self, message: &Message) {
        self.socket.send(WsMessage::Binary(frame::encode(message).into())).await.unwrap();
    }

    /// Says that it is somewhere, as a device of this name.
    async fn tell(&mut self, name: &str) {
        let (collection, name) = ("pieces".to_owned(), name.to_owned());
        let place = motet_proto::presence::Place {
            device_name: name.clone(),
            collection,
            name,
            field: None,
            cursor: None,
        };
        self.send(&Message::Presence(Presence::new(self.device, Some(&place)))).await;
    }

    async fn close(mut self) {
        self.socket.close(None).await.unwrap();
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}

/// A device that tells where it is without end does not flood the others; what it says last in time is heard.
#[test]
fn a_device_that_never_stops_telling_floods_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut loud, mut quiet) = (RawDevice::open(&relay, 1).await, RawDevice::open(&relay, 2).await);
        for n in 0..2_000_u32 {
            let sealed = n.to_be_bytes().to_vec();
            loud.send(&Message::Presence(Presence { device: DeviceId([1; 16]), suite: 0, sealed })).await;
        }
        let mut heard = 0_u32;
        let next =
            async |quiet: &mut _| tokio::time::timeout(Duration::from_secs(2), StreamExt::next(quiet)).await;
        while let Ok(Some(Ok(WsMessage::Binary(bytes)))) = next(&mut quiet.socket).await {
            heard += u32::from(matches!(frame::decode(&bytes), Ok(Message::Presence(_))));
        }
        // However long the machine took for it, by far not all.
        assert!((1..1_000).contains(&heard), "{heard}");
    });
}
