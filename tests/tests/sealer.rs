//! A sealer of the app: what leaves a device can be read by those who have the key, and by nobody else.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use motet::envelope::{self, About, OpenError, Plain, SUITES_OF_APPS, SealError};
use motet::{Place, Relay, Replica, Schema, Sealer, SyncError, SyncState, json};
use motet_proto::Kind;
use motet_tests::raw::{self, push};
use motet_tests::{TestRelay, contents, sync, wait_until};

/// A keystream of BLAKE3 and a MAC over all that a payload is about: enough to tell who has the key. Not for apps: equal payloads are sealed alike.
#[derive(Clone)]
struct Keyed {
    key: [u8; 32],
    /// Sealing fails as long as it is set.
    fails: Arc<AtomicBool>,
}

impl Keyed {
    fn new(key: u8) -> Self {
        Self { key: [key; 32], fails: Arc::default() }
    }

    fn stream(&self, mac: &[u8], bytes: &mut [u8]) {
        let mut stream = vec![0; bytes.len()];
        blake3::Hasher::new_keyed(&self.key).update(mac).finalize_xof().fill(&mut stream);
        bytes.iter_mut().zip(stream).for_each(|(byte, key)| *byte ^= key);
    }

    fn mac(&self, about: About, plain: &[u8]) -> [u8; 32] {
        let mut mac = blake3::Hasher::new_keyed(&self.key);
        mac.update(&about.space.0).update(&about.document.map_or([0; 16], |document| document.0));
        *mac.update(plain).finalize().as_bytes()
    }
}

impl Sealer for Keyed {
    fn suite(&self) -> u8 {
        SUITES_OF_APPS
    }

    fn seal(&self, about: About, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(SealError("the key is locked away".into()));
        }
        let mut packed = envelope::seal_plain(plain);
        let mac = self.mac(about, &packed);
        self.stream(&mac, &mut packed);
        Ok([&mac[..], &packed].concat())
    }

    fn open(&self, about: About, suite: u8, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let refused = |reason: &str| OpenError::Sealed(reason.to_owned());
        let (mac, packed) = sealed
            .split_at_checked(32)
            .filter(|_| suite == SUITES_OF_APPS)
            .ok_or_else(|| refused("it is not sealed with a key"))?;
        let mut packed = packed.to_vec();
        self.stream(mac, &mut packed);
        match self.mac(about, &packed) == mac {
            true => envelope::open(envelope::SUITE_PLAIN, &packed),
            false => Err(refused("it was sealed with another key")),
        }
    }
}

fn device(dir: &Path, name: &str, sealer: impl Sealer) -> Replica {
    let replica =
        Replica::builder(dir.join(format!("{name}.db"))).device_name(name).sealer(sealer).open().unwrap();
    replica.apply_schema(&Schema::new().text("songs", "lyrics")).unwrap();
    replica
}

fn song(n: usize) -> serde_json::Value {
    let lyrics = format!("E hoʻi ke aloha i ka pō {n}\n").repeat(30);
    json!({ "id": n.to_string(), "title": format!("Mele huna {n}"), "lyrics": lyrics })
}

#[test]
fn only_who_has_the_key_reads_what_others_send() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a", Keyed::new(1)), device(dir.path(), "b", Keyed::new(1)));
    for n in 0..60 {
        a.documents("songs").insert(&song(n)).unwrap();
    }
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    b.documents("songs").document("7").splice_text("lyrics", 0, 0, "Kai nui\n").unwrap();
    b.documents("songs").delete("8").unwrap();
    sync(&b, &relay.url());
    sync(&a, &relay.url());
    assert!(contents(&a) == contents(&b));
    assert_eq!(contents(&a).len(), 59);

    // All of it is sealed, whatever it is; the words are in nothing that the relay has.
    let log = raw::pull(&relay.url());
    assert!(log.iter().all(|entry| entry.suite == SUITES_OF_APPS));
    for entry in &log {
        assert!(envelope::open(envelope::SUITE_PLAIN, &entry.payload).is_err());
    }
    // Of two entries that somebody has put in each other's place neither is taken.
    let mut moved = log[0].clone();
    moved.document = log[1].document;
    moved.id = moved.compute_id(motet_proto::SpaceId::DEFAULT);
    push(&relay.url(), vec![moved, raw::entry("plain", Kind::Changes, vec![1])]);
    sync(&a, &relay.url());
    let reasons: Vec<_> = a.quarantined(1_000).unwrap().into_iter().map(|item| item.reason).collect();
    assert!(reasons.iter().any(|reason| reason.contains("another key")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("not sealed with a key")), "{reasons:?}");
    assert_eq!(contents(&a).len(), 59);

    // Without the key nothing shows, and nothing is lost: with it all is there.
    for (name, sealer) in [("c", Box::new(Plain) as Box<dyn Sealer>), ("d", Box::new(Keyed::new(2)))] {
        let other = device(dir.path(), name, Boxed(sealer));
        sync(&other, &relay.url());
        assert!(contents(&other).is_empty(), "{name}");
        assert!(other.quarantined(1_000).unwrap().len() >= 59, "{name}");
        drop(other);
        let other = device(dir.path(), name, Keyed::new(1));
        other.connect(Relay::new(&relay.url())).unwrap();
        other.retry_quarantined().unwrap();
        other.sync_now().unwrap();
        assert!(contents(&other) == contents(&a), "{name}");
    }
}

struct Boxed(Box<dyn Sealer>);

impl Sealer for Boxed {
    fn suite(&self) -> u8 {
        self.0.suite()
    }

    fn seal(&self, about: About, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        self.0.seal(about, plain)
    }

    fn open(&self, about: About, suite: u8, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        self.0.open(about, suite, sealed)
    }
}

#[test]
fn what_cannot_be_sealed_waits_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let sealer = Keyed::new(1);
    let a = device(dir.path(), "a", sealer.clone());
    sealer.fails.store(true, Ordering::Relaxed);
    a.documents("songs").insert(&song(1)).unwrap();
    a.connect(Relay::new(&relay.url())).unwrap();
    let error = a.sync_now().unwrap_err();
    assert!(matches!(&error, SyncError::Storage(inner) if inner.code() == "storage-sealer"), "{error}");
    assert!(error.is_retryable() && error.to_string().contains("locked away"), "{error}");
    assert_eq!(a.status().pending, 1);
    assert!(raw::pull(&relay.url()).is_empty());
    sealer.fails.store(false, Ordering::Relaxed);
    a.sync_now().unwrap();
    assert_eq!((a.status().state, a.status().pending), (SyncState::Synced, 0));
    assert_eq!(raw::pull(&relay.url()).len(), 1);
}

/// One that panics over what it opens, or makes too much of what it seals, harms nothing but that.
#[test]
fn a_faulty_sealer_ends_nothing() {
    struct Faulty;
    impl Sealer for Faulty {
        fn suite(&self) -> u8 {
            SUITES_OF_APPS
        }

        fn seal(&self, _: About, plain: &[u8]) -> Result<Vec<u8>, SealError> {
            Ok([plain, &[0; 2 * envelope::SEALER_BYTES]].concat())
        }

        fn open(&self, _: About, _: u8, _: &[u8]) -> Result<Vec<u8>, OpenError> {
            panic!("a sealer that panics")
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a", Keyed::new(1)), device(dir.path(), "b", Faulty));
    a.documents("songs").insert(&song(1)).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    let reasons: Vec<_> = b.quarantined(1_000).unwrap().into_iter().map(|item| item.reason).collect();
    assert!(reasons.len() == 1 && reasons[0].contains("panicked"), "{reasons:?}");
    b.documents("songs").insert(&song(2)).unwrap();
    b.connect(Relay::new(&relay.url())).unwrap();
    let error = b.sync_now().unwrap_err();
    assert!(error.to_string().contains("more than it may"), "{error}");
    assert_eq!(b.documents("songs").list().unwrap().len(), 1);
}

#[test]
fn where_a_device_is_is_sealed_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let devices: Vec<_> = [("a", 1), ("b", 1), ("c", 2)]
        .map(|(name, key)| {
            let device = device(dir.path(), name, Keyed::new(key));
            device.connect(Relay::new(&relay.url())).unwrap();
            device.sync_now().unwrap();
            device
        })
        .into();
    devices[0].set_presence(Some(&Place::document("songs", "1"))).unwrap();
    wait_until("the place of a", Duration::from_secs(30), || !devices[1].peers().unwrap().is_empty());
    assert!(devices[2].peers().unwrap().is_empty());
}
