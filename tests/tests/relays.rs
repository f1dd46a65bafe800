//! Seams of the relay with two users each: several relays over one store that tell each other what happens, logs in memory, and an authenticator
//! of the program that runs the relay.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use motet::{Place, Relay, Replica, SyncError, SyncState, json};
use motet_examples::InProcess;
use motet_relay::Config;
use motet_relay::auth::{AuthError, Authenticator, Credentials, Principal};
use motet_relay::config::Terms;
use motet_relay::notifier::Channel;
use motet_relay::store::LogStore;
use motet_relay::store::memory::MemoryStore;
use motet_tests::{TestRelay, contents, singer, wait_until};
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(60);

fn through(relay: &InProcess, name: &str) -> Relay {
    Relay::through(name, relay.clone())
}

fn title(replica: &Replica, id: &str) -> Option<String> {
    let song = replica.documents("songs").get(id).unwrap()?;
    Some(song["title"].as_str()?.to_owned())
}

#[test]
fn devices_of_several_relays_over_one_store_hear_of_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn LogStore> = Arc::new(MemoryStore::new());
    let channel = Channel::new();
    let relays: Vec<_> = (0..3)
        .map(|_| {
            let config = Config::with_store(store.clone());
            InProcess::start(Config { notifier: channel.join(), ..config }).unwrap()
        })
        .collect();
    let devices: Vec<_> = ["a", "b", "c"].map(|name| singer(dir.path(), name)).into();
    for (n, (device, relay)) in devices.iter().zip(&relays).enumerate() {
        device.connect(through(relay, &format!("relay {n}"))).unwrap();
        device.sync_now().unwrap();
    }
    let [a, b, c] = &devices[..] else { unreachable!() };
    // What one commits reaches the others without being asked for, whichever relay it was sent to.
    for (n, device) in devices.iter().enumerate() {
        let id = n.to_string();
        device.documents("songs").insert(&json!({ "id": id, "title": format!("Mele {n}") })).unwrap();
        for other in &devices {
            wait_until("the song", PATIENCE, || title(other, &id).is_some());
        }
    }
    // So does where a device is, and that it is nowhere.
    a.set_presence(Some(&Place::document("songs", "1"))).unwrap();
    let seen =
        |device: &Replica| device.peers().unwrap().into_iter().map(|peer| peer.place.id).collect::<Vec<_>>();
    for other in [b, c] {
        wait_until("the place of a", PATIENCE, || seen(other) == ["1"]);
    }
    // It goes on to another relay: there is one log, nothing is sent again, and it is where it was.
    a.disconnect();
    wait_until("a is nowhere", PATIENCE, || seen(b).is_empty() && seen(c).is_empty());
    a.connect(through(&relays[1], "relay 1")).unwrap();
    let summary = a.sync_now().unwrap();
    assert_eq!(summary.sent, 0, "{summary}");
    for other in [b, c] {
        wait_until("the place of a again", PATIENCE, || seen(other) == ["1"]);
    }
    a.set_presence(None).unwrap();
    for other in [b, c] {
        wait_until("a is nowhere", PATIENCE, || seen(other).is_empty());
    }
    for device in &devices {
        device.sync_now().unwrap();
    }
    assert!(contents(a) == contents(b) && contents(b) == contents(c));
}

#[test]
fn a_relay_in_memory_is_another_one_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (singer(dir.path(), "a"), singer(dir.path(), "b"));
    a.documents("songs").insert(&json!({ "id": "1", "title": "Hoʻi" })).unwrap();
    // Nothing is lost with it: whoever has it sends it to the next.
    for _ in 0..3 {
        let relay = InProcess::start(Config::in_memory()).unwrap();
        for device in [&a, &b] {
            device.connect(through(&relay, "in memory")).unwrap();
            device.sync_now().unwrap();
        }
        assert_eq!(title(&b, "1").as_deref(), Some("Hoʻi"));
        let status = a.status();
        assert_eq!((status.state, status.pending), (SyncState::Synced, 0));
        for device in [&a, &b] {
            device.disconnect();
        }
    }
}

/// Accounts that another service knows, and which may be slow or away.
#[derive(Default)]
struct Service {
    accounts: Mutex<HashMap<String, String>>,
    is_away: AtomicBool,
    hangs: AtomicBool,
}

impl Authenticator for Service {
    fn authenticate<'a>(
        &'a self,
        credentials: Credentials<'a>,
    ) -> BoxFuture<'a, Result<Principal, AuthError>> {
        async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if self.hangs.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            if self.is_away.load(Ordering::Relaxed) {
                return Err(AuthError::Unavailable);
            }
            let token = credentials.token.ok_or(AuthError::Missing)?;
            let accounts = self.accounts.lock().unwrap();
            accounts.get(token).map(|account| Principal::new(account, token)).ok_or(AuthError::Invalid)
        }
        .boxed()
    }

    fn is_valid<'a>(&'a self, who: &'a Principal) -> BoxFuture<'a, bool> {
        let accounts = self.accounts.lock().unwrap();
        let valid = accounts.iter().any(|(token, account)| Principal::new(account, token) == *who);
        std::future::ready(valid).boxed()
    }
}

#[test]
fn a_service_of_the_program_says_who_speaks() {
    let dir = tempfile::tempdir().unwrap();
    let service = Arc::new(Service::default());
    service
        .accounts
        .lock()
        .unwrap()
        .extend([("one".into(), "keola".into()), ("two".into(), "leilani".into())]);
    let (told, changes) =
        watch::channel::<(Arc<dyn Authenticator>, Terms)>((service.clone(), Terms::default()));
    let config = Config { auth: service.clone(), changes: Some(changes), ..Config::in_memory() };
    let relay = TestRelay::start_as(config);
    let (a, b) = (singer(dir.path(), "a"), singer(dir.path(), "b"));
    a.documents("songs").insert(&json!({ "id": "1", "title": "Mine" })).unwrap();
    let with = |token: &str| Relay::new(&relay.url()).token(token);
    a.connect(with("one")).unwrap();
    b.connect(with("two")).unwrap();
    a.sync_now().unwrap();
    b.sync_now().unwrap();
    assert_eq!(title(&b, "1"), None, "it is another account");
    // Who is not let in any more hears of it at once, and the other stays.
    service.accounts.lock().unwrap().remove("one");
    told.send((service.clone(), Terms::default())).unwrap();
    wait_until("a has to sign in", PATIENCE, || a.status().state == SyncState::AuthNeeded);
    assert_eq!(b.status().state, SyncState::Synced);
    // A service that is away, or does not answer, is no reason to sign in again.
    service.accounts.lock().unwrap().insert("one".into(), "keola".into());
    for trouble in [&service.is_away, &service.hangs] {
        trouble.store(true, Ordering::Relaxed);
        a.disconnect();
        a.connect(with("one")).unwrap();
        let error = a.sync_now().unwrap_err();
        assert!(
            matches!(&error, SyncError::Offline { reason, .. } if reason.contains("try again")),
            "{error}"
        );
        trouble.store(false, Ordering::Relaxed);
    }
    a.disconnect();
    a.connect(with("one")).unwrap();
    a.sync_now().unwrap();
    assert_eq!(a.status().state, SyncState::Synced);
}
