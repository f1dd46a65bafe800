//! A sealer of the app: what leaves a device can be read by those who have the key, and by nobody else.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use motet::envelope::{self, About, OpenError, Plain, SUITES_OF_APPS, SealError};
use motet::{Place, Relay, Replica, Schema, Sealer, SyncState, json};
use motet_proto::{DocumentId, Kind, SpaceId};
use motet_tests::raw::{self, push};
use motet_tests::{TestRelay, contents, sync, wait_until};

const SOON: Duration = Duration::from_secs(30);

/// A keystream of BLAKE3 and a MAC over all that a payload is about: enough to tell who has the key. Not for apps: equal payloads are sealed alike.
#[derive(Clone)]
struct Keyed {
    key: [u8; 32],
}

impl Keyed {
    fn new(key: u8) -> Self {
        Self { key: [key; 32] }
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
        // It may begin like what is plain, by chance.
        let opened = envelope::open(envelope::SUITE_PLAIN, &entry.payload).unwrap_or_default();
        for bytes in [&opened, &entry.payload] {
            assert!(!bytes.windows(4).any(|window| window == b"huna"));
        }
    }
    // Of two entries that somebody has put in each other's place neither is taken.
    let mut moved = log[0].clone();
    moved.document = log[1].document;
    moved.id = moved.compute_id(SpaceId::DEFAULT);
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

/// A sealer without its key, until it is there.
#[derive(Clone)]
struct Locked {
    keyed: Keyed,
    is_open: Arc<AtomicBool>,
}

impl Sealer for Locked {
    fn suite(&self) -> u8 {
        self.keyed.suite()
    }

    fn seal(&self, about: About, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        self.keyed.seal(about, plain)
    }

    fn open(&self, about: About, suite: u8, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        match self.is_open.load(Ordering::Relaxed) {
            true => self.keyed.open(about, suite, sealed),
            false => Err(OpenError::Sealed("the key is locked away".into())),
        }
    }
}

/// Whoever is connected need not connect anew, and whoever asks for a round gets one that has read everything.
#[test]
fn what_is_tried_again_is_read_by_the_session_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a", Keyed::new(1));
    for n in 0..20 {
        a.documents("songs").insert(&song(n)).unwrap();
    }
    a.connect(Relay::new(&relay.url())).unwrap();
    a.sync_now().unwrap();
    let locked = Locked { keyed: Keyed::new(1), is_open: Arc::default() };
    let b = device(dir.path(), "b", locked.clone());
    b.connect(Relay::new(&relay.url())).unwrap();
    b.sync_now().unwrap();
    assert!(contents(&b).is_empty());
    locked.is_open.store(true, Ordering::Relaxed);
    b.retry_quarantined().unwrap();
    wait_until("what was set aside is there", SOON, || contents(&b) == contents(&a));
    assert!(b.quarantined(10).unwrap().is_empty());
    // With a session that has just begun, and with one that is under way.
    for n in 20..40 {
        locked.is_open.store(false, Ordering::Relaxed);
        a.documents("songs").insert(&song(n)).unwrap();
        a.sync_now().unwrap();
        b.sync_now().unwrap();
        assert_eq!(contents(&b).len(), n);
        if n % 2 == 0 {
            b.disconnect();
            b.connect(Relay::new(&relay.url())).unwrap();
        }
        std::thread::sleep(Duration::from_millis(n as u64 % 7));
        locked.is_open.store(true, Ordering::Relaxed);
        b.retry_quarantined().unwrap();
        b.sync_now().unwrap();
        assert!(contents(&b) == contents(&a), "{n}");
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

/// What is wrong with a sealer for one document.
#[derive(Clone)]
struct Faulty {
    keyed: Keyed,
    document: DocumentId,
    /// 0: nothing, 1: it fails, 2: it panics, 3: it makes too much, 4: it makes nothing, 5: its suite is a reserved one.
    fault: Arc<AtomicUsize>,
    /// What it opens as well.
    opens: bool,
}

impl Faulty {
    fn new(name: &str) -> Self {
        let document = DocumentId::derive(SpaceId::DEFAULT, "songs", name);
        Self { keyed: Keyed::new(1), document, fault: Arc::default(), opens: true }
    }

    fn set(&self, fault: usize) {
        self.fault.store(fault, Ordering::Relaxed);
    }
}

impl Sealer for Faulty {
    fn suite(&self) -> u8 {
        if self.fault.load(Ordering::Relaxed) == 5 { 7 } else { SUITES_OF_APPS }
    }

    fn seal(&self, about: About, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let holds = about.document == Some(self.document);
        match self.fault.load(Ordering::Relaxed) {
            1 if holds => Err(SealError("the key is locked away".into())),
            2 if holds => panic!("a sealer that panics"),
            3 if holds => Ok([plain, &[0; 2 * envelope::SEALER_BYTES]].concat()),
            4 if holds => Ok(Vec::new()),
            _ => self.keyed.seal(about, plain),
        }
    }

    fn open(&self, about: About, suite: u8, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        assert!(self.opens, "a sealer that panics");
        self.keyed.open(about, suite, sealed)
    }

    fn opened_len(&self, suite: u8, sealed: &[u8]) -> usize {
        assert!(self.opens, "a sealer that panics");
        envelope::opened_len(suite, sealed)
    }
}

/// Whatever a sealer does over one document: edits are kept, the others are sent, everything is received, and the one says why it waits.
#[test]
fn what_cannot_be_sealed_waits_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let sealer = Faulty::new("1");
    let (a, b) = (device(dir.path(), "a", sealer.clone()), device(dir.path(), "b", Keyed::new(1)));
    let (songs, others) = (a.documents("songs"), b.documents("songs"));
    a.connect(Relay::new(&relay.url())).unwrap();
    a.sync_now().unwrap();
    for (n, reason) in [(1, "locked away"), (2, "panicked"), (3, "makes"), (4, "makes"), (5, "suite 7")] {
        sealer.set(n);
        // While the connection is idle, by waiting and by async calls, of one document and of several.
        songs.upsert("1", &song(1)).unwrap();
        songs.document("1").splice_text_async("lyrics", 0, 0, "Aia ").durable().unwrap();
        songs.upsert("10", &song(10 * n)).unwrap();
        others.upsert("b", &json!({ "title": format!("b {n}") })).unwrap();
        sync(&b, &relay.url());
        let title = |id: &str| songs.get(id).unwrap().map(|song| song["title"].clone());
        wait_until("what b has sent", SOON, || title("b") == Some(json!(format!("b {n}"))));
        _ = a.sync_now();
        let status = songs.document("1").status().unwrap().unwrap();
        let error = status.error.clone().unwrap_or_else(|| panic!("{n}: {status:?}"));
        assert!(error.code == "storage-sealer" && error.message.contains(reason), "{n}: {error:?}");
        assert!(a.status().pending > 0);
        if n < 5 {
            wait_until("the other document", SOON, || {
                sync(&b, &relay.url());
                others.get("10").unwrap().is_some_and(|song| song["title"] == format!("Mele huna {}", 10 * n))
            });
        }
        sealer.set(0);
        a.sync_now().unwrap();
        let status = a.status();
        assert_eq!((status.state, status.pending), (SyncState::Synced, 0), "{n}");
        sync(&b, &relay.url());
        assert!(contents(&a) == contents(&b), "{n}");
        // It writes on as before.
        songs.document("1").splice_text_async("lyrics", 0, 0, "E ").durable().unwrap();
        a.sync_now().unwrap();
    }
}

/// One that panics over what it opens harms nothing but that.
#[test]
fn what_a_sealer_panics_over_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let faulty = Faulty { opens: false, ..Faulty::new("none") };
    let (a, b) = (device(dir.path(), "a", Keyed::new(1)), device(dir.path(), "b", faulty));
    a.documents("songs").insert(&song(1)).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    let reasons: Vec<_> = b.quarantined(1_000).unwrap().into_iter().map(|item| item.reason).collect();
    assert!(reasons.len() == 1 && reasons[0].contains("panicked"), "{reasons:?}");
    b.documents("songs").insert(&song(2)).unwrap();
    sync(&b, &relay.url());
    sync(&a, &relay.url());
    assert_eq!(contents(&a).len(), 2);
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

/// Another program on the file of an app that seals, the command line for one, sends nothing of it in plain.
#[test]
fn what_an_app_seals_nobody_else_sends_in_plain() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let app = device(dir.path(), "app", Keyed::new(1));
    app.documents("songs").upsert("1", &song(1)).unwrap();
    sync(&app, &relay.url());
    app.documents("songs").upsert("1", &song(2)).unwrap();
    drop(app);
    let other = Replica::open(dir.path().join("app.db")).unwrap();
    let refused = other.connect(Relay::new(&relay.url()));
    assert!(matches!(refused, Err(motet::SyncError::NotSealed)), "{refused:?}");
    drop(other);
    let cli = motet_tests::Cli::new(dir.path(), "app");
    let said = cli.run(&["init", "--device", "shell", "--relay", &relay.url()]);
    let synced = cli.run(&["sync"]);
    assert!(!synced.status.success());
    assert!(
        String::from_utf8_lossy(&[said.stderr, synced.stderr].concat()).contains("encrypts what it sends")
    );
    assert!(raw::pull(&relay.url()).iter().all(|entry| entry.suite == SUITES_OF_APPS));
    // What is here is read as ever, and the app goes on.
    assert_eq!(cli.json(&["--json", "list", "songs"]).as_array().unwrap().len(), 1);
    let app = device(dir.path(), "app", Keyed::new(1));
    sync(&app, &relay.url());
    let second = device(dir.path(), "second", Keyed::new(1));
    sync(&second, &relay.url());
    assert_eq!(contents(&second), contents(&app));
}
