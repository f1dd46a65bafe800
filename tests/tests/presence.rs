//! Who is where: told to those who are connected, and never stored.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use motet::{Peer, Place, Relay, Replica, Schema};
use motet_tests::{TestRelay, device, sync, wait_until};
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
    songs.put("song", &json!({ "lyrics": "Ka pō nani\n" })).unwrap();
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
    b.documents("pieces").splice_text("song", "lyrics", 0, 0, "ʻAe, ").unwrap();
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
    a.documents("pieces").put("song", &json!({ "lyrics": "x".repeat(500) })).unwrap();
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

    a.documents("drafts").put("secret", &json!({ "words": "mine" })).unwrap();
    a.set_presence(Some(&Place::document("drafts", "secret"))).unwrap();
    wait_until("a is nowhere that b may know", SOON, || peers(&b).is_empty());
    let error = a.set_presence(Some(&Place::document(&"x".repeat(600), "y"))).unwrap_err();
    assert_eq!(error.code(), "write-bad-name");
}

/// A device that tells where it is without end does not flood the others; what it says last in time is heard.
#[test]
fn a_device_that_never_stops_telling_floods_nobody() {
    use motet_proto::message::{Hello, Message, Pull};
    use motet_proto::presence::Presence;
    use motet_proto::{SpaceId, frame, limits};
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let open = async |n: u8| {
            let url = format!("{}/v1/sync", relay.url().replace("http", "ws"));
            let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
            let device = motet_proto::DeviceId([n; 16]);
            let hello = Hello {
                version_min: limits::VERSION_MIN,
                version_max: limits::VERSION_MAX,
                device,
                space: SpaceId::DEFAULT,
                agent: "test".into(),
            };
            let pull = Pull { id: 1, after: None, live: true };
            for message in [Message::Hello(hello), Message::Pull(pull)] {
                socket.send(WsMessage::Binary(frame::encode(&message).into())).await.unwrap();
                // The welcome, and the first page: places are told after that.
                assert!(matches!(socket.next().await, Some(Ok(WsMessage::Binary(_)))));
            }
            socket
        };
        let (mut loud, mut quiet) = (open(1).await, open(2).await);
        for n in 0..2_000_u32 {
            let place = Message::Presence(Presence {
                device: motet_proto::DeviceId([1; 16]),
                suite: 0,
                sealed: n.to_be_bytes().to_vec(),
            });
            loud.send(WsMessage::Binary(frame::encode(&place).into())).await.unwrap();
        }
        let mut heard = 0_u32;
        let next =
            async |quiet: &mut _| tokio::time::timeout(Duration::from_secs(2), StreamExt::next(quiet)).await;
        while let Ok(Some(Ok(WsMessage::Binary(bytes)))) = next(&mut quiet).await {
            heard += u32::from(matches!(frame::decode(&bytes), Ok(Message::Presence(_))));
        }
        // However long the machine took for it, by far not all.
        assert!((1..1_000).contains(&heard), "{heard}");
    });
}
