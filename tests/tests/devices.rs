//! Devices that sign in to accounts of a relay: with a sign-in key, once; from then on with a key of their own.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use motet::secrets::{SecretError, SecretFiles, SecretStore};
use motet::{Relay, Replica, SignInError, SyncError, SyncState, Transport};
use motet_proto::device_key::DeviceKey;
use motet_relay::Config;
use motet_relay::directory::{Directory, DirectoryError, Members};
use motet_tests::random::{Random, seed};
use motet_tests::{Admin, Cli, RelayProcess, TestRelay, contents, device, program, wait_until};
use serde_json::{Value, json};

const NAME: &str = "device-key";

/// Secrets in memory, which a test can look at.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<HashMap<String, String>>>);

impl SecretStore for Memory {
    fn get(&self, name: &str) -> Result<Option<String>, SecretError> {
        Ok(self.0.lock().unwrap().get(name).cloned())
    }

    fn set(&self, name: &str, secret: &str) -> Result<(), SecretError> {
        self.0.lock().unwrap().insert(name.to_owned(), secret.to_owned());
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), SecretError> {
        self.0.lock().unwrap().remove(name);
        Ok(())
    }
}

/// A relay in this process over the accounts of its folder.
fn start(data: &Path) -> (TestRelay, Arc<Directory>) {
    let directory = Arc::new(Directory::open(data).unwrap());
    let auth = Arc::new(Members::new(directory.clone(), None));
    (TestRelay::start_as(Config { auth, ..Config::new(data) }), directory)
}

fn signed_in(relay: &TestRelay, secrets: &Memory) -> Relay {
    Relay::new(&relay.url()).device_key_in(secrets.clone(), NAME)
}

#[test]
fn an_operator_and_two_devices_from_nothing_to_synced() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin(dir.path().join("relay"));
    assert!(admin.fails(&["account", "list"]).contains("account add"));
    assert!(!admin.0.exists(), "whoever has mistaken the folder gets none made");
    admin.ok(&["account", "add", "ʻohana Kealoha"]);
    assert!(admin.fails(&["account", "add", "ʻohana Kealoha"]).contains("already"));
    assert!(admin.fails(&["account", "add", " keola"]).contains("is no name"));
    assert!(admin.fails(&["key", "create", "--account", "keola"]).contains("no account \"keola\""));
    let relay = RelayProcess::start(&admin.0, "127.0.0.1:0", &[]);
    // While the relay runs.
    let key = admin.ok(&["key", "create", "--account", "ʻohana Kealoha", "--expires", "1h", "--reusable"]);
    assert!(key.starts_with("motet-key-"), "{key}");
    let devices = ["phone", "tablet"].map(|name| {
        let cli = Cli::init(dir.path(), name, &relay.url());
        assert_eq!(cli.run(&["sync"]).status.code(), Some(4));
        let told: Value =
            serde_json::from_str(&cli.ok_with(&["login", "--key-file", "-", "--json"], &key)).unwrap();
        assert_eq!((&told["account"], &told["relay"]), (&json!("ʻohana Kealoha"), &json!(relay.url())));
        cli
    });
    devices[0].ok_with(&["put", "songs", "--id", "1"], r#"{"title": "Hiʻilawe"}"#);
    devices[0].ok(&["sync"]);
    devices[1].ok(&["sync"]);
    assert_eq!(devices[1].json(&["get", "songs", "1", "--json"])["title"], "Hiʻilawe");
    // What the operator sees: no secrets.
    let listed = admin.lines(&["device", "list", "--json"]);
    let names: Vec<&str> = listed.iter().map(|device| device["name"].as_str().unwrap()).collect();
    assert_eq!((listed.len(), names.contains(&"phone") && names.contains(&"tablet")), (2, true));
    assert_eq!(admin.lines(&["key", "list", "--json"])[0]["used"], 2);
    assert!(!admin.ok(&["key", "list"]).contains(&key));
    for file in std::fs::read_dir(&admin.0).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(key.len()).any(|window| window == key.as_bytes()), "the key stands in a file");
    }
    // One device is lost.
    let id = devices[0].json(&["status", "--json"])["device_id"].as_str().unwrap().to_owned();
    admin.ok(&["device", "rename", &id[..8], "lost phone"]);
    assert!(admin.ok(&["device", "revoke", &id[..8]]).starts_with("lost phone of ʻohana Kealoha"));
    assert!(admin.fails(&["device", "revoke", &id[..8]]).contains("no device"));
    wait_until("the relay has taken it up", Duration::from_secs(5), || {
        devices[0].run(&["sync"]).status.code() == Some(4)
    });
    let said = String::from_utf8(devices[0].run(&["sync"]).stderr).unwrap();
    assert!(
        said.contains("this device was signed out of its account") && said.contains("motet login"),
        "{said}"
    );
    devices[1].ok(&["sync"]);
    // It is found again, and has something that was not sent.
    devices[0].ok_with(&["put", "songs", "--id", "2"], r#"{"title": "Hoʻi"}"#);
    devices[0].ok_with(&["login", "--key-file", "-"], &key);
    devices[0].ok(&["sync"]);
    devices[1].ok(&["sync"]);
    assert_eq!(devices[1].json(&["get", "songs", "2", "--json"])["title"], "Hoʻi");
    let key_id = admin.lines(&["key", "list", "--json"])[0]["id"].as_str().unwrap().to_owned();
    admin.ok(&["key", "revoke", &key_id]);
    let refused = devices[1].run_with(&["login", "--key-file", "-"], &key);
    assert_eq!(refused.status.code(), Some(4), "{}", String::from_utf8_lossy(&refused.stderr));
    // What it had is not lost by that.
    devices[1].ok(&["sync"]);
    assert!(admin.fails(&["account", "remove", "ʻohana Kealoha"]).contains("--sign-out"));
    assert!(
        admin.ok(&["account", "remove", "ʻohana Kealoha", "--sign-out"]).contains("2 device(s) signed out")
    );
    wait_until("they are signed out", Duration::from_secs(5), || {
        devices[1].run(&["sync"]).status.code() == Some(4)
    });
}

#[test]
fn open_sessions_of_a_device_that_is_signed_out_end_within_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin(dir.path().join("relay"));
    admin.ok(&["account", "add", "keola"]);
    let key = admin.ok(&["key", "create", "--account", "keola", "--reusable"]);
    let relay = RelayProcess::start(&admin.0, "127.0.0.1:0", &[]);
    let devices = ["a", "b", "post"].map(|name| {
        let (replica, secrets) = (device(dir.path(), name), Memory::default());
        replica.sign_in(&Relay::new(&relay.url()), &key, &secrets, NAME).unwrap();
        let transport = if name == "post" { Transport::Post } else { Transport::WebSocket };
        let relay = Relay::new(&relay.url()).transport(transport).device_key_in(secrets, NAME);
        replica.connect(relay).unwrap();
        replica
    });
    let [a, b, post] = &devices;
    for replica in &devices {
        wait_until("synced", Duration::from_secs(10), || replica.status().state == SyncState::Synced);
    }
    for replica in [a, post] {
        admin.ok(&["device", "revoke", &replica.device_id().to_string()]);
    }
    for replica in [a, post] {
        wait_until("it is signed out", Duration::from_secs(5), || {
            _ = replica.sync_now();
            replica.status().state == SyncState::AuthNeeded
        });
        replica.documents("pieces").insert(&json!({ "title": "nowhere else" })).unwrap();
        assert_eq!(replica.status().pending, 1, "what it had not sent stays on it");
    }
    b.documents("pieces").insert(&json!({ "title": "here" })).unwrap();
    b.sync_now().unwrap();
    assert_eq!(contents(b).len(), 1);
}

#[test]
fn a_sign_in_key_is_good_for_one_device_and_for_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, directory) = start(&dir.path().join("relay"));
    directory.add_account("keola").unwrap();
    let at = Relay::new(&relay.url());
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    let (of_a, of_b) = (Memory::default(), Memory::default());
    let once = directory.create_key("keola", None, false).unwrap();
    assert_eq!(a.sign_in(&at, &once, &of_a, NAME).unwrap().account, "keola");
    let refused = b.sign_in(&at, &once, &of_b, NAME).unwrap_err();
    assert!(
        matches!(&refused, SignInError::KeyRefused { reason } if reason.contains("good for one")),
        "{refused}"
    );
    assert_eq!(of_b.get(NAME).unwrap(), None, "nothing is left of it");
    // The answer was lost: the same device again, with what it had kept.
    assert_eq!(a.sign_in(&at, &once, &of_a, NAME).unwrap().account, "keola");
    assert_eq!(directory.keys().unwrap()[0].used, 1);
    let short = directory.create_key("keola", Some(Duration::from_millis(1)), true).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    let refused = b.sign_in(&at, &short, &of_b, NAME).unwrap_err();
    assert!(refused.to_string().contains("expired"), "{refused}");
    for bad in ["", "  ", "motet-key-unknown", "ʻaʻole", &"k".repeat(5_000)] {
        let refused = b.sign_in(&at, bad, &of_b, NAME).unwrap_err();
        assert!(
            matches!(refused, SignInError::KeyRefused { .. } | SignInError::BadKey),
            "{bad:?}: {refused}"
        );
    }
    // What it was signed in as before stays.
    let before = of_a.get(NAME).unwrap();
    assert!(a.sign_in(&at, "motet-key-unknown", &of_a, NAME).is_err());
    assert_eq!(of_a.get(NAME).unwrap(), before);
    a.connect(signed_in(&relay, &of_a)).unwrap();
    a.sync_now().unwrap();
    // A relay without accounts says so.
    let open = TestRelay::start(&dir.path().join("open"));
    let refused = b.sign_in(&Relay::new(&open.url()), &once, &of_b, NAME).unwrap_err();
    assert!(matches!(&refused, SignInError::NotOffered { .. }), "{refused:?}");
    let offline = b.sign_in(&Relay::new("http://127.0.0.1:1"), &once, &of_b, NAME).unwrap_err();
    assert!(matches!(&offline, SignInError::Relay(SyncError::Offline { .. })) && offline.is_retryable());
    let readable = b.sign_in(&Relay::new("http://relay.example.org"), &once, &of_b, NAME).unwrap_err();
    assert!(matches!(readable, SignInError::Relay(SyncError::BadUrl { .. })), "{readable}");
}

/// A key is good for one relay: another one that is shown its tokens could use them there.
#[test]
fn what_was_kept_for_one_relay_is_not_shown_to_another() {
    let dir = tempfile::tempdir().unwrap();
    let (first, of_first) = start(&dir.path().join("first"));
    let (second, of_second) = start(&dir.path().join("second"));
    let (a, secrets) = (device(dir.path(), "a"), Memory::default());
    let keys = [&of_first, &of_second].map(|directory| {
        directory.add_account("keola").unwrap();
        directory.create_key("keola", None, false).unwrap()
    });
    a.sign_in(&Relay::new(&first.url()), &keys[0], &secrets, NAME).unwrap();
    a.connect(Relay::new(&second.url()).device_key_in(secrets.clone(), NAME)).unwrap();
    let refused = a.sync_now().unwrap_err();
    assert!(
        matches!(&refused, SyncError::AuthNeeded { reason } if reason.contains(&first.url())),
        "{refused}"
    );
    let kept = |text: Option<String>| -> Value { serde_json::from_str(&text.unwrap()).unwrap() };
    let before = kept(secrets.get(NAME).unwrap());
    a.sign_in(&Relay::new(&second.url()), &keys[1], &secrets, NAME).unwrap();
    assert_ne!(kept(secrets.get(NAME).unwrap())["key"], before["key"], "another key for another relay");
    a.sync_now().unwrap();
}

/// The id that a device speaks with is the one that it has proven.
#[test]
fn a_copy_of_a_device_has_to_sign_in_as_a_device_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, directory) = start(&dir.path().join("relay"));
    directory.add_account("keola").unwrap();
    let key = directory.create_key("keola", None, true).unwrap();
    let secrets = Memory::default();
    let a = device(dir.path(), "a");
    a.sign_in(&Relay::new(&relay.url()), &key, &secrets, NAME).unwrap();
    a.documents("pieces").insert(&json!({ "title": "Hoʻi" })).unwrap();
    a.connect(signed_in(&relay, &secrets)).unwrap();
    a.sync_now().unwrap();
    drop(a);
    std::fs::copy(dir.path().join("a.db"), dir.path().join("copy.db")).unwrap();
    let (a, copy) = (device(dir.path(), "a"), device(dir.path(), "copy"));
    assert_ne!(a.device_id(), copy.device_id());
    for transport in [Transport::WebSocket, Transport::Post] {
        copy.connect(signed_in(&relay, &secrets).transport(transport)).unwrap();
        let refused = copy.sync_now().unwrap_err();
        assert!(
            matches!(&refused, SyncError::AuthNeeded { reason } if reason.contains("sign in anew")),
            "{refused}"
        );
    }
    let of_copy = Memory::default();
    copy.sign_in(&Relay::new(&relay.url()), &key, &of_copy, NAME).unwrap();
    copy.documents("pieces").insert(&json!({ "title": "hou" })).unwrap();
    copy.connect(signed_in(&relay, &of_copy)).unwrap();
    copy.sync_now().unwrap();
    a.connect(signed_in(&relay, &secrets)).unwrap();
    a.sync_now().unwrap();
    assert_eq!(contents(&a), contents(&copy));
    assert_eq!(directory.devices(Some("keola")).unwrap().len(), 2);
    assert!(matches!(directory.devices(Some("leilani")), Err(DirectoryError::NoAccount(_))));
}

fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// The clock of the device is an hour off: the relay says what time it is, and the next token is good. Over `POST`, where each request has a
/// token, one that has expired meanwhile is replaced.
#[test]
fn a_clock_that_is_wrong_and_a_token_that_expires_do_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, directory) = start(&dir.path().join("relay"));
    directory.add_account("keola").unwrap();
    let key = directory.create_key("keola", None, true).unwrap();
    for (n, (off, transport)) in
        [(3_600, Transport::WebSocket), (-3_600, Transport::Post), (86_400, Transport::Auto)]
            .into_iter()
            .enumerate()
    {
        let (a, secrets) = (device(dir.path(), &format!("a{n}")), Memory::default());
        a.sign_in(&Relay::new(&relay.url()), &key, &secrets, NAME).unwrap();
        let kept: Value = serde_json::from_str(&secrets.get(NAME).unwrap().unwrap()).unwrap();
        let signer = DeviceKey::from_secret(kept["key"].as_str().unwrap()).unwrap();
        // The same as the library does, by a clock that is wrong.
        let (ahead, asked) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
        let (offset, count) = (ahead.clone(), asked.clone());
        let provider = move |request: motet::TokenRequest| {
            let here = now_s() + off;
            count.fetch_add(1, Ordering::Relaxed);
            if let Some(time) = request.relay_time {
                offset.store(time / 1_000 - here, Ordering::Relaxed);
            }
            let token = signer.token((here + offset.load(Ordering::Relaxed)) as u64);
            async move { Ok(token) }
        };
        a.documents("pieces").insert(&json!({ "title": "Hoʻi" })).unwrap();
        a.connect(Relay::new(&relay.url()).transport(transport).token_provider(provider)).unwrap();
        a.sync_now().unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2, "once as it was wrong, once as the relay said");
        if transport == Transport::Post {
            // As if the token of this connection were old by now.
            ahead.store(0, Ordering::Relaxed);
            a.documents("pieces").insert(&json!({ "title": "hou" })).unwrap();
            a.sync_now().unwrap();
        }
        assert_eq!(a.status().pending, 0);
    }
    // Without that there is no way in.
    let (a, secrets) = (device(dir.path(), "stubborn"), Memory::default());
    a.sign_in(&Relay::new(&relay.url()), &key, &secrets, NAME).unwrap();
    let kept: Value = serde_json::from_str(&secrets.get(NAME).unwrap().unwrap()).unwrap();
    let signer = DeviceKey::from_secret(kept["key"].as_str().unwrap()).unwrap();
    let old = signer.token((now_s() - 600) as u64);
    a.connect(Relay::new(&relay.url()).token(&old)).unwrap();
    let refused = a.sync_now().unwrap_err();
    assert!(matches!(&refused, SyncError::AuthNeeded { reason } if reason.contains("clock")), "{refused}");
}

/// Whatever comes in the place of a registration, nobody is registered, and nothing breaks.
#[test]
fn what_is_no_registration_registers_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, directory) = start(&dir.path().join("relay"));
    directory.add_account("keola").unwrap();
    let key = directory.create_key("keola", None, true).unwrap();
    let client = reqwest::blocking::Client::new();
    let post = |body: Vec<u8>| {
        let answer = client.post(format!("{}/v1/devices", relay.url())).body(body).send().unwrap();
        (answer.status().as_u16(), answer.text().unwrap())
    };
    let signer = DeviceKey::new([9; 32]);
    let id = motet_proto::DeviceId([4; 16]);
    let good = json!({
        "credential": key, "device": id.to_string(), "key": signer.public().to_string(),
        "signature": signer.registration(id, &key), "name": "a", "platform": "linux", "version": "1",
    });
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body.to_string().into_bytes()
    };
    let another = DeviceKey::new([8; 32]);
    for (what, body) in [
        ("no registration", b"".to_vec()),
        ("no registration", b"\xff\xfe".to_vec()),
        ("no registration", b"[]".to_vec()),
        ("no registration", with("device", Value::Null)),
        ("device", with("device", json!("abc"))),
        ("key", with("key", json!("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"))),
        ("signature", with("signature", json!(another.registration(id, &key)))),
        ("signature", with("key", json!(another.public().to_string()))),
        ("signature", with("credential", json!("another"))),
        ("name", with("name", json!("a\nb"))),
        ("platform", with("platform", json!("x".repeat(1_000)))),
    ] {
        let (status, said) = post(body);
        assert_eq!((status, said.contains(what)), (400, true), "{what}: {said}");
    }
    assert_eq!(post(vec![b'x'; 100_000]).0, 413);
    let mut random = Random(seed());
    for _ in 0..60 {
        let mut body = good.to_string().into_bytes();
        for _ in 0..=random.below(3) {
            let at = random.below(body.len() as u64) as usize;
            body[at] = random.below(256) as u8;
        }
        // A name may be another one; nothing else is taken.
        let (status, said) = post(body);
        assert!([200, 400, 401, 429].contains(&status), "{status}: {said}");
    }
    let status = client.put(format!("{}/v1/devices", relay.url())).send().unwrap().status();
    assert_eq!(status, 405);
    assert!(directory.devices(None).unwrap().iter().all(|device| device.id == id));
    assert!(directory.accounts().unwrap()[0].devices <= 1);
}

/// Many at a time with one key that is good for one: exactly one of them is in.
#[test]
fn of_many_devices_at_a_time_one_signs_in_with_a_key_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, directory) = start(&dir.path().join("relay"));
    directory.add_account("keola").unwrap();
    let key = directory.create_key("keola", None, false).unwrap();
    let replicas: Vec<Replica> = (0..8).map(|n| device(dir.path(), &n.to_string())).collect();
    let outcomes: Vec<Result<_, SignInError>> = std::thread::scope(|scope| {
        let sign_in = |replica: &Replica| {
            let (replica, at, key) = (replica.clone(), Relay::new(&relay.url()), key.clone());
            scope.spawn(move || replica.sign_in(&at, &key, &Memory::default(), NAME))
        };
        let threads: Vec<_> = replicas.iter().map(sign_in).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    assert_eq!(directory.accounts().unwrap()[0].devices, 1);
}

/// Programs that have a token and no key go on beside devices.
#[test]
fn tokens_of_a_file_are_good_beside_accounts_and_accounts_are_apart() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin(dir.path().join("relay"));
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, "backend -> keola\n").unwrap();
    admin.ok(&["account", "add", "keola"]);
    admin.ok(&["account", "add", "leilani"]);
    let relay = RelayProcess::start(&admin.0, "127.0.0.1:0", &["--tokens", tokens.to_str().unwrap()]);
    let backend = device(dir.path(), "backend");
    backend.documents("pieces").insert(&json!({ "title": "Hoʻi" })).unwrap();
    backend.connect(Relay::new(&relay.url()).token("backend")).unwrap();
    backend.sync_now().unwrap();
    let mut seen = Vec::new();
    for account in ["keola", "leilani"] {
        let key = admin.ok(&["key", "create", "--account", account]);
        let replica = device(dir.path(), account);
        let secrets = || SecretFiles::beside(replica.path());
        replica.sign_in(&Relay::new(&relay.url()), &key, &secrets(), NAME).unwrap();
        replica.connect(Relay::new(&relay.url()).device_key_in(secrets(), NAME)).unwrap();
        replica.sync_now().unwrap();
        seen.push(contents(&replica).len());
    }
    assert_eq!(seen, [1, 0]);
    backend.disconnect();
    backend.connect(Relay::new(&relay.url()).token("another")).unwrap();
    assert!(matches!(backend.sync_now(), Err(SyncError::AuthNeeded { .. })));
}

/// From the first account on a relay serves nobody else, also one that runs already.
#[test]
fn a_relay_that_is_given_its_first_account_closes_its_doors() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin(dir.path().join("relay"));
    let relay = RelayProcess::start(&admin.0, "127.0.0.1:0", &[]);
    let a = device(dir.path(), "a");
    a.connect(Relay::new(&relay.url())).unwrap();
    a.sync_now().unwrap();
    admin.ok(&["account", "add", "keola"]);
    wait_until("it is not served any more", Duration::from_secs(6), || {
        a.status().state == SyncState::AuthNeeded
    });
}

/// Files of other programs, of later versions, and damaged ones are named, and left as they are.
#[test]
fn a_file_that_holds_no_accounts_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("accounts.db");
    drop(Directory::open(dir.path()).unwrap());
    let conn = rusqlite::Connection::open(&file).unwrap();
    conn.pragma_update(None, "user_version", 5).unwrap();
    assert!(matches!(Directory::open(dir.path()), Err(DirectoryError::Newer { found: 5, .. })));
    conn.pragma_update(None, "application_id", 7).unwrap();
    assert!(matches!(Directory::open(dir.path()), Err(DirectoryError::Foreign(_))));
    drop(conn);
    for bytes in [&b""[..], b"no database at all, and long enough to be looked at as one", &[0xff; 4096]] {
        std::fs::write(&file, bytes).unwrap();
        let error = Directory::open_existing(dir.path()).unwrap_err();
        assert!(error.to_string().contains("accounts.db"), "{error}");
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
        let started = Command::new(program("motet-relay"))
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(dir.path())
            .output()
            .unwrap();
        assert!(!started.status.success(), "it does not start as one that serves everybody");
    }
}

/// A band shares its songs: who may read, who may write, and what becomes of it when that changes.
#[test]
fn a_space_that_is_shared_is_found_read_and_written_as_its_owner_says() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin(dir.path().join("relay"));
    let relay = RelayProcess::start(&admin.0, "127.0.0.1:0", &[]);
    let accounts = ["keola", "leilani", "kimo", "nobody"];
    let cli = accounts.map(|account| {
        admin.ok(&["account", "add", account]);
        let cli = Cli::init(dir.path(), account, &relay.url());
        let key = admin.ok(&["key", "create", "--account", account, "--reusable"]);
        wait_until("the relay has taken it up", Duration::from_secs(6), || {
            cli.run_with(&["login", "--key-file", "-"], &key).status.success()
        });
        (cli, key)
    });
    let [(keola, _), (leilani, _), _, (nobody, _)] = &cli;
    assert_eq!(keola.json(&["spaces", "--json"]), json!([]));
    let id = admin.ok(&["space", "create", "ka hui", "--owner", "keola"]);
    assert!(admin.fails(&["space", "create", "ka hui", "--owner", "keola"]).contains("already"));
    assert!(admin.fails(&["space", "create", "x", "--owner", "unknown"]).contains("no account"));
    admin.ok(&["space", "add", "ka hui", "leilani", "--role", "reader"]);
    admin.ok(&["space", "add", &id[..6], "kimo"]);
    assert!(admin.fails(&["space", "add", "ka hui", "keola"]).contains("owns it"));
    assert!(admin.fails(&["space", "add", "another", "kimo"]).contains("no shared space"));
    let role = |cli: &Cli| cli.json(&["spaces", "--json"])[0]["role"].clone();
    wait_until("it is offered", Duration::from_secs(6), || role(leilani) == "reader");
    assert_eq!((role(keola), nobody.json(&["spaces", "--json"])), (json!("owner"), json!([])));
    // Each has a database for it, beside the own one.
    let of_band = |account: &str, key: &str| {
        let cli = Cli::new(dir.path(), &format!("band-{account}"));
        cli.ok(&["init", "--device", account, "--relay", &relay.url(), "--space-id", &id]);
        cli.ok_with(&["login", "--key-file", "-"], key);
        cli
    };
    let band: Vec<Cli> = cli.iter().zip(accounts).map(|((_, key), account)| of_band(account, key)).collect();
    let [owner, reader, writer, stranger] = &band[..] else { unreachable!() };
    owner.ok_with(&["put", "songs", "--id", "1"], r#"{"title": "Hiʻilawe"}"#);
    keola.ok_with(&["put", "songs", "--id", "own"], r#"{"title": "of keola alone"}"#);
    owner.ok(&["sync"]);
    keola.ok(&["sync"]);
    writer.ok(&["sync"]);
    writer.ok(&["set", "songs", "1", "key=C"]);
    writer.ok(&["sync"]);
    reader.ok(&["sync"]);
    let song = reader.json(&["get", "songs", "1", "--json"]);
    assert_eq!((&song["title"], &song["key"]), (&json!("Hiʻilawe"), &json!("C")));
    assert_ne!(reader.run(&["get", "songs", "own"]).status.code(), Some(0));
    // A stranger is told the same as of a space that there is not.
    let said = |cli: &Cli| String::from_utf8(cli.run(&["sync"]).stderr).unwrap();
    assert!(said(stranger).contains("no such space"), "{}", said(stranger));
    // Who reads may write for itself, and it waits.
    reader.ok(&["set", "songs", "1", "key=D"]);
    assert!(said(reader).contains("not allowed") || said(reader).contains("may not"), "{}", said(reader));
    assert_eq!(reader.json(&["status", "--json"])["pending"], 1);
    admin.ok(&["space", "add", "ka hui", "leilani", "--role", "writer"]);
    wait_until("leilani may write", Duration::from_secs(6), || reader.run(&["sync"]).status.success());
    owner.ok(&["sync"]);
    assert_eq!(owner.json(&["get", "songs", "1", "--json"])["key"], "D");
    // Who is out keeps what is there, and learns nothing more.
    admin.ok(&["space", "remove", "ka hui", "kimo"]);
    wait_until("kimo is out", Duration::from_secs(6), || !writer.run(&["sync"]).status.success());
    owner.ok(&["set", "songs", "1", "key=E"]);
    owner.ok(&["sync"]);
    writer.run(&["sync"]);
    assert_ne!(writer.json(&["get", "songs", "1", "--json"])["key"], "E");
    let listed = &admin.lines(&["space", "list", "--json"])[0];
    assert_eq!((&listed["owner"], &listed["members"]), (&json!("keola"), &json!({ "leilani": "writer" })));
    // A space that is gone is nobody's: nothing of it goes into an account's own logs.
    admin.ok(&["space", "delete", "ka hui"]);
    wait_until("it is gone", Duration::from_secs(6), || !owner.run(&["sync"]).status.success());
    assert!(said(owner).contains("no such space"), "{}", said(owner));
    assert_eq!(keola.json(&["spaces", "--json"]), json!([]));
    keola.ok(&["sync"]);
}

/// Another device signs in between, and its registration reads the accounts too: the open session ends all the same.
#[test]
fn a_device_that_signs_in_hides_no_other_that_was_signed_out() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin(dir.path().join("relay"));
    admin.ok(&["account", "add", "keola"]);
    let key = admin.ok(&["key", "create", "--account", "keola", "--reusable"]);
    let relay = RelayProcess::start(&admin.0, "127.0.0.1:0", &[]);
    let a = device(dir.path(), "a");
    let secrets = Memory::default();
    a.sign_in(&Relay::new(&relay.url()), &key, &secrets, NAME).unwrap();
    a.connect(Relay::new(&relay.url()).device_key_in(secrets, NAME)).unwrap();
    for round in 0..3 {
        wait_until("synced", Duration::from_secs(10), || a.status().state == SyncState::Synced);
        let revoked = admin.ok(&["device", "revoke", &a.device_id().to_string()]);
        assert!(revoked.contains("signed out"), "{revoked}");
        let b = device(dir.path(), &format!("b{round}"));
        b.sign_in(&Relay::new(&relay.url()), &key, &Memory::default(), NAME).unwrap();
        wait_until("it is signed out", Duration::from_secs(6), || a.status().state == SyncState::AuthNeeded);
        let secrets = Memory::default();
        a.sign_in(&Relay::new(&relay.url()), &key, &secrets, NAME).unwrap();
        a.connect(Relay::new(&relay.url()).device_key_in(secrets, NAME)).unwrap();
    }
}

/// What is only for lists does not hide who was signed out: the file is locked by somebody, and it is read all the same.
#[test]
fn a_file_that_cannot_be_written_hides_nobody_who_was_signed_out() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin(dir.path().join("relay"));
    admin.ok(&["account", "add", "keola"]);
    let key = admin.ok(&["key", "create", "--account", "keola", "--reusable"]);
    let relay = RelayProcess::start(&admin.0, "127.0.0.1:0", &[]);
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    for replica in [&a, &b] {
        let secrets = Memory::default();
        replica.sign_in(&Relay::new(&relay.url()), &key, &secrets, NAME).unwrap();
        replica.connect(Relay::new(&relay.url()).device_key_in(secrets, NAME)).unwrap();
        wait_until("synced", Duration::from_secs(10), || replica.status().state == SyncState::Synced);
    }
    let conn = rusqlite::Connection::open(admin.0.join("accounts.db")).unwrap();
    // Both were last seen long ago, so that the relay has something to write about them.
    conn.execute("UPDATE device SET last_seen_at = 0, revoked_at = IIF(name = 'a', 1, NULL)", []).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    b.disconnect();
    wait_until("it is signed out", Duration::from_secs(20), || a.status().state == SyncState::AuthNeeded);
    conn.execute_batch("COMMIT").unwrap();
}

/// Names that a person takes for the same are one: however a letter is composed, and an ʻokina typed.
#[test]
fn two_accounts_never_look_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    directory.add_account("Kaʻōlino Kahakō").unwrap();
    for same in ["Kaʻōlino Kahakō", "Kaʻo\u{304}lino Kahako\u{304}", "ka'olino kahako", "KA‘OLINO  KAHAKO"]
    {
        let error = directory.add_account(same).unwrap_err();
        assert!(matches!(error, DirectoryError::AccountExists(_)), "{same:?}: {error}");
    }
    // As a file name on another system may have it.
    assert!(directory.create_key("Kaʻo\u{304}lino Kahako\u{304}", None, false).is_ok());
    for bad in ["", " a", "a ", "a\nb", "a\u{9b}b", "\u{200b}", "a\u{202e}b", &"x".repeat(65)] {
        assert!(matches!(directory.add_account(bad), Err(DirectoryError::BadName(_))), "{bad:?}");
    }
    directory.add_account("another").unwrap();
    assert_eq!(directory.accounts().unwrap().len(), 2);
}

/// Whatever goes wrong with another sign-in, the one that there was stays.
#[test]
fn a_sign_in_that_fails_leaves_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, directory) = start(&dir.path().join("relay"));
    for account in ["keola", "leilani"] {
        directory.add_account(account).unwrap();
    }
    let admin = |account: &str| directory.create_key(account, None, false).unwrap();
    let cli = Cli::init(dir.path(), "phone", &relay.url());
    cli.ok_with(&["login", "--key-file", "-"], &admin("keola"));
    cli.ok_with(&["put", "songs", "--id", "1"], r#"{"title": "Hiʻilawe"}"#);
    cli.ok(&["sync"]);
    assert!(cli.ok(&["status"]).contains("signed in as   keola"));
    // Nobody answers; a relay without accounts; a key that is none; a key of somebody else.
    let open = TestRelay::start(&dir.path().join("open"));
    let other = admin("leilani");
    for (args, key, code) in [
        (vec!["login", "--relay", "http://127.0.0.1:1", "--key-file", "-"], "motet-key-x", 3),
        (vec!["login", "--relay", &open.url(), "--key-file", "-"], "motet-key-x", 1),
        (vec!["login", "--key-file", "-"], "motet-key-x", 4),
        (vec!["login", "--key-file", "-"], &other, 4),
    ] {
        let output = cli.run_with(&args, key);
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        cli.ok(&["sync"]);
    }
    // The key of somebody else was not used up: it is good on a database of its own.
    let own = Cli::init(dir.path(), "own", &relay.url());
    own.ok_with(&["login", "--key-file", "-"], &other);
    own.ok(&["sync"]);
}

/// Who signs out on purpose is signed out at the relay as well, and told if that did not reach it.
#[test]
fn signing_out_reaches_the_relay() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, directory) = start(&dir.path().join("relay"));
    directory.add_account("keola").unwrap();
    let key = directory.create_key("keola", None, true).unwrap();
    let cli = Cli::init(dir.path(), "phone", &relay.url());
    cli.ok_with(&["login", "--key-file", "-"], &key);
    cli.ok(&["sync"]);
    cli.ok(&["sign-out"]);
    assert_eq!(directory.accounts().unwrap()[0].devices, 0);
    assert_eq!(cli.run(&["sync"]).status.code(), Some(4));
    cli.ok_with(&["login", "--key-file", "-"], &key);
    cli.ok(&["sync"]);
    drop(relay);
    let offline = cli.run(&["sign-out"]);
    let said = String::from_utf8(offline.stderr).unwrap();
    assert!(offline.status.success() && said.contains("does not know yet"), "{said}");
    assert_eq!(directory.accounts().unwrap()[0].devices, 1);
}

/// One that is lost is signed out wherever it has signed in.
#[test]
fn a_device_of_two_accounts_is_signed_out_of_both() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, directory) = start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    for account in ["keola", "leilani", "kimo"] {
        directory.add_account(account).unwrap();
        let key = directory.create_key(account, None, false).unwrap();
        a.sign_in(&Relay::new(&relay.url()), &key, &Memory::default(), NAME).unwrap();
    }
    let id = a.device_id().to_string();
    assert!(matches!(directory.revoke_device("", None), Err(DirectoryError::NoDevice(_))));
    assert_eq!(directory.rename_device(&id[..4], None, "lost").unwrap().len(), 3);
    assert_eq!(directory.revoke_device(&id, Some("kimo")).unwrap().len(), 1);
    assert_eq!(directory.revoke_device(&id[..2], None).unwrap().len(), 2);
    assert!(directory.accounts().unwrap().iter().all(|account| account.devices == 0));
    let first = directory.devices(None).unwrap().remove(0);
    assert!(first.revoked_at.is_some() && first.name == "lost");
}

/// An operator who puts another file there means that one.
#[test]
fn accounts_that_are_put_in_the_place_of_others_count() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin(dir.path().join("relay"));
    admin.ok(&["account", "add", "keola"]);
    let key = admin.ok(&["key", "create", "--account", "keola"]);
    let relay = RelayProcess::start(&admin.0, "127.0.0.1:0", &[]);
    let cli = Cli::init(dir.path(), "phone", &relay.url());
    cli.ok_with(&["login", "--key-file", "-"], &key);
    cli.ok(&["sync"]);
    let elsewhere = Admin(dir.path().join("elsewhere"));
    elsewhere.ok(&["account", "add", "keola"]);
    let key = elsewhere.ok(&["key", "create", "--account", "keola"]);
    std::fs::rename(elsewhere.0.join("accounts.db"), admin.0.join("accounts.db")).unwrap();
    for beside in ["accounts.db-wal", "accounts.db-shm"] {
        _ = std::fs::remove_file(admin.0.join(beside));
    }
    wait_until("the device is not known any more", Duration::from_secs(6), || {
        cli.run(&["sync"]).status.code() == Some(4)
    });
    cli.ok_with(&["login", "--key-file", "-"], &key);
    cli.ok(&["sync"]);
    // Without any, who was let in is let in, and nobody else.
    std::fs::remove_file(admin.0.join("accounts.db")).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    cli.ok(&["sync"]);
    let stranger = Cli::init(dir.path(), "stranger", &relay.url());
    assert_eq!(stranger.run(&["sync"]).status.code(), Some(4));
}

/// A relay that serves its whole machine must not serve whoever a proxy speaks for.
#[test]
fn an_open_relay_serves_nobody_behind_a_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let client = reqwest::blocking::Client::new();
    for (name, status) in [("x-forwarded-for", 403), ("forwarded", 403), ("x-real-ip", 403), ("x-other", 200)]
    {
        let answer =
            client.get(format!("{}/v1/spaces", relay.url())).header(name, "203.0.113.7").send().unwrap();
        assert_eq!(answer.status().as_u16(), status, "{name}");
    }
}

/// Several read the file at a time: whoever read it before a device was signed out must not have the last word.
#[test]
fn a_device_stays_signed_out_whoever_reads_the_accounts_meanwhile() {
    const DEVICES: u32 = 3_000;
    let dir = tempfile::tempdir().unwrap();
    let directory = Arc::new(Directory::open(dir.path()).unwrap());
    directory.add_account("keola").unwrap();
    let mut conn = rusqlite::Connection::open(dir.path().join("accounts.db")).unwrap();
    let tx = conn.transaction().unwrap();
    let key = |n: u32| -> [u8; 32] { std::array::from_fn(|at| n.to_be_bytes()[at % 4]) };
    let id = |n: u32| -> [u8; 16] { std::array::from_fn(|at| n.to_be_bytes()[at % 4]) };
    for n in 1..=DEVICES {
        let sql = "INSERT INTO device VALUES (?, 'keola', ?, 'a', 'linux', '1', 0, 0, NULL)";
        tx.execute(sql, rusqlite::params![key(n), id(n)]).unwrap();
    }
    tx.commit().unwrap();
    directory.refresh().unwrap();
    let members = Members::new(directory.clone(), None);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    std::thread::scope(|scope| {
        let sign_out = |from: u32| {
            let directory = directory.clone();
            scope.spawn(move || {
                for n in from..from + 15 {
                    directory.revoke_device(&motet_proto::DeviceId(id(n)).to_string(), None).unwrap();
                }
            })
        };
        [1, 101, 201, 301].map(sign_out).into_iter().for_each(|thread| thread.join().unwrap());
    });
    for n in [1, 101, 201, 301].into_iter().flat_map(|from| from..from + 15) {
        let who = motet_relay::auth::Principal {
            account: "keola".into(),
            token: Some(key(n)),
            device: Some(motet_proto::DeviceId(id(n))),
        };
        let is_let_in = runtime.block_on(motet_relay::auth::Authenticator::is_valid(&members, &who));
        assert!(!is_let_in, "device {n} was signed out, and is let in");
    }
}
