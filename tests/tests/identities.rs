//! Devices that sign in with identity tokens of other services.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use motet::secrets::{SecretError, SecretStore};
use motet::{Relay, Replica, SignInError, SpaceError};
use motet_proto::device_key::{DeviceKey, PublicKey};
use motet_relay::config::Settings;
use motet_relay::identity::{Identities, Identity, IdentityError};
use motet_relay::oidc::Issuers;
use motet_tests::issuer::{SigningKey, TestIssuer, claims, pem};
use motet_tests::{Admin, Cli, RelayProcess, contents, device};
use serde_json::{Value, json};

const NAME: &str = "device-key";

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

/// A configuration with one issuer.
fn config(folder: &Path, issuer: &str, algorithm: &str, more: &str) -> String {
    let path = folder.join("relay.toml");
    let text = format!(
        "[[issuer]]\nname = \"songs\"\nurl = \"{issuer}\"\naudience = [\"motet-app\", \"another-app\"]\nalgorithm = \"{algorithm}\"\n{more}\n"
    );
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn issuers(folder: &Path, issuer: &str, algorithm: &str, more: &str) -> Issuers {
    let path = config(folder, issuer, algorithm, more);
    Issuers::new(Settings::from_file(path.as_ref()).unwrap().issuers).unwrap()
}

/// Signs a device in as somebody.
fn sign_in(
    replica: &Replica,
    relay: &str,
    secrets: &Memory,
    key: &SigningKey,
    claims: &Value,
) -> Result<String, SignInError> {
    let relay = Relay::new(relay);
    let mut claims = claims.clone();
    claims["nonce"] = replica.sign_in_nonce(&relay, secrets, NAME).unwrap().into();
    replica.sign_in(&relay, &key.sign(&claims), secrets, NAME).map(|signed_in| signed_in.account)
}

#[test]
fn people_of_another_service_sign_in_and_their_devices_share_what_they_write() {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::new("1", Algorithm::RS256);
    let issuer = TestIssuer::start(std::slice::from_ref(&key));
    let config = config(dir.path(), issuer.url(), "RS256", "new_accounts = true");
    let admin = Admin(dir.path().join("relay"));
    let relay = RelayProcess::start(&admin.0, "127.0.0.1:0", &["--config", &config]);
    let methods = Relay::new(&relay.url()).sign_in_methods().unwrap();
    assert!(methods.keys && methods.issuers[0].requires_nonce);
    assert_eq!((&*methods.issuers[0].name, &*methods.issuers[0].url), ("songs", issuer.url()));
    let devices = ["phone", "tablet"].map(|name| (device(dir.path(), name), Memory::default()));
    let who = claims(issuer.url(), "1234", "");
    let accounts = devices
        .each_ref()
        .map(|(replica, secrets)| sign_in(replica, &relay.url(), secrets, &key, &who).unwrap());
    assert!(accounts[0].starts_with("songs-") && accounts[0] == accounts[1], "{accounts:?}");
    let at = |secrets: &Memory| Relay::new(&relay.url()).device_key_in(secrets.clone(), NAME);
    let sync = |(replica, secrets): &(Replica, Memory)| {
        replica.connect(at(secrets)).unwrap();
        replica.sync_now().unwrap();
        replica.disconnect();
    };
    devices[0].0.documents("songs").upsert("1", &json!({ "title": "Hiʻilawe" })).unwrap();
    devices.iter().chain(&devices).for_each(sync);
    assert_eq!(contents(&devices[1].0)[0].3["title"], "Hiʻilawe");
    let listed = &admin.lines(&["identity", "list", "--json"])[0];
    assert_eq!((&listed["subject"], &listed["shown"]), (&json!("1234"), &json!("1234@example.org")));
    // Somebody else has an account of their own, and the same token again is no way in for another device.
    let (other, secrets) = (device(dir.path(), "other"), Memory::default());
    let account = sign_in(&other, &relay.url(), &secrets, &key, &claims(issuer.url(), "5678", "")).unwrap();
    assert_ne!(account, accounts[0]);
    let nonce = other.sign_in_nonce(&Relay::new(&relay.url()), &secrets, NAME).unwrap();
    let stolen = key.sign(&claims(issuer.url(), "1234", &nonce));
    let thief = device(dir.path(), "thief");
    let refused = thief.sign_in(&Relay::new(&relay.url()), &stolen, &Memory::default(), NAME).unwrap_err();
    assert!(refused.to_string().contains("another device"), "{refused}");
    // Who is no longer linked signs no further device in, and gets no other account; those that are there stay.
    admin.ok(&["identity", "unlink", "--issuer", issuer.url(), "1234"]);
    let (third, secrets) = (device(dir.path(), "third"), Memory::default());
    let refused = sign_in(&third, &relay.url(), &secrets, &key, &who).unwrap_err();
    assert!(
        matches!(&refused, SignInError::KeyRefused { reason } if reason.contains("1234 of songs")),
        "{refused}"
    );
    sync(&devices[0]);
    // The operator links it to another account, beside a sign-in key.
    admin.ok(&["account", "add", "keola"]);
    admin.ok(&["identity", "link", "--account", "keola", "--issuer", issuer.url(), "1234"]);
    assert!(
        admin
            .fails(&["identity", "link", "--account", &account, "--issuer", issuer.url(), "1234"])
            .contains("keola")
    );
    assert_eq!(sign_in(&third, &relay.url(), &secrets, &key, &who).unwrap(), "keola");
    // A device that has documents of an account does not sign in to another one.
    let refused = sign_in(&devices[0].0, &relay.url(), &Memory::default(), &key, &who).unwrap_err();
    assert!(matches!(refused, SignInError::OtherAccount { .. }), "{refused}");
    // What is refused leaves nothing behind.
    let accounts = || admin.lines(&["account", "list", "--json"]).len();
    let (before, at_relay) = (accounts(), Relay::new(&relay.url()));
    let nonce = third.link_nonce(&at_relay, &secrets, NAME).unwrap();
    let somebody = key.sign(&claims(issuer.url(), "9999", &nonce));
    let refused = third.sign_in(&at_relay, &somebody, &secrets, NAME).unwrap_err();
    assert!(matches!(refused, SignInError::KeyRefused { .. }), "{refused}");
    assert_eq!(accounts(), before);
    // Whose account was removed does not come back by signing in once more.
    admin.ok(&["account", "remove", "keola", "--sign-out"]);
    admin.ok(&["account", "remove", &account, "--sign-out"]);
    for subject in ["1234", "5678"] {
        let fresh = device(dir.path(), &format!("fresh {subject}"));
        let who = claims(issuer.url(), subject, "");
        let refused = sign_in(&fresh, &relay.url(), &Memory::default(), &key, &who).unwrap_err();
        assert!(refused.to_string().contains("has no account"), "{refused}");
    }
    let listed = admin.lines(&["identity", "list", "--json"]);
    assert!(listed.len() == 2 && listed.iter().all(|identity| identity["account"].is_null()), "{listed:?}");
}

fn verify(issuers: &Issuers, token: &str, key: &PublicKey) -> Result<Identity, IdentityError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(issuers.verify(token, key))
}

/// RFC 8725, and what else could let somebody in who should not be.
#[test]
fn what_is_wrong_with_a_token_is_said_and_nobody_is_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let (key, other) = (SigningKey::new("1", Algorithm::RS256), SigningKey::new("1", Algorithm::RS256));
    let ec = SigningKey::new("2", Algorithm::ES256);
    let issuer = TestIssuer::start(&[key.clone(), ec.clone()]);
    let issuers = issuers(dir.path(), issuer.url(), "RS256", "");
    let device = DeviceKey::new([7; 32]).public();
    let good = claims(issuer.url(), "1234", &device.nonce());
    let found = verify(&issuers, &key.sign(&good), &device).unwrap();
    assert_eq!((&*found.issuer, &*found.subject, found.may_be_new), (issuer.url(), "1234", false));
    let with = |claim: &str, value: Value| {
        let mut claims = good.clone();
        match value {
            Value::Null => _ = claims.as_object_mut().unwrap().remove(claim),
            value => claims[claim] = value,
        }
        claims
    };
    let now = good["iat"].as_u64().unwrap();
    for claims in [
        with("exp", json!(now - 30)),
        with("nbf", json!(now + 30)),
        with("aud", json!(["another-app"])),
        with("azp", json!("another-app")),
        with("iat", Value::Null),
        with("email", json!("\u{202e}x\ny")),
    ] {
        verify(&issuers, &key.sign(&claims), &device).unwrap();
    }
    for (claims, reason) in [
        (with("iss", json!("https://accounts.example.org")), "`iss`"),
        (with("iss", json!(format!("{}/", issuer.url()))), "`iss`"),
        (with("iss", Value::Null), "`iss`"),
        (with("aud", json!("somebody")), "`aud`"),
        (with("aud", json!([])), "`aud`"),
        (with("aud", Value::Null), "claim"),
        (with("aud", json!(["motet-app", "somebody"])), "`azp`"),
        (with("azp", json!("somebody")), "`azp`"),
        (with("exp", json!(now - 3_600)), "`exp`"),
        (with("exp", Value::Null), "`exp`"),
        (with("exp", json!("tomorrow")), "`exp`"),
        (with("nbf", json!(now + 3_600)), "`nbf`"),
        (with("iat", json!(now + 3_600)), "`iat`"),
        (with("sub", Value::Null), "claim"),
        (with("sub", json!("")), "`sub`"),
        (with("sub", json!("x".repeat(256))), "`sub`"),
        (with("sub", json!("a\nb")), "`sub`"),
        (with("nonce", Value::Null), "`nonce`"),
        (with("nonce", json!(DeviceKey::new([8; 32]).public().nonce())), "`nonce`"),
    ] {
        let refused = verify(&issuers, &key.sign(&claims), &device).unwrap_err().to_string();
        assert!(refused.contains(reason), "{claims}: {refused}");
        assert!(!refused.contains("1234"), "it says what stands in the token: {refused}");
    }
    let kid = Some("1".to_owned());
    let public = serde_json::to_vec(&key.public()).unwrap();
    let shared = |secret: &[u8]| {
        let header = Header { kid: kid.clone(), ..Header::new(Algorithm::HS256) };
        encode(&header, &good, &EncodingKey::from_secret(secret)).unwrap()
    };
    let parts: Vec<String> = key.sign(&good).split('.').map(str::to_owned).collect();
    let encoded = |value: Value| {
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string())
    };
    let headed = |header: Value| format!("{}.{}.{}", encoded(header), parts[1], parts[2]);
    let alg = |algorithm| Header { kid: kid.clone(), ..Header::new(algorithm) };
    let typed = Header { typ: Some("at+jwt".into()), ..alg(Algorithm::RS256) };
    for (token, reason) in [
        (other.sign(&good), "signature"),
        (shared(&public), "`alg`"),
        (shared(b""), "`alg`"),
        (key.sign_as(alg(Algorithm::RS384), &good), "`alg`"),
        (ec.sign(&good), "`alg`"),
        (headed(json!({ "alg": "none", "kid": "1" })), "`alg`"),
        (format!("{}.{}.", encoded(json!({ "alg": "none" })), parts[1]), "`alg`"),
        (headed(json!({ "alg": "RS256", "kid": "1", "crit": ["exp"] })), "`crit`"),
        (headed(json!({ "alg": "RS256", "kid": "1", "b64": false, "crit": ["b64"] })), "`crit`"),
        (key.sign_as(typed, &good), "`typ`"),
        (headed(json!({ "alg": "RS256", "kid": "other" })), "`kid`"),
        (headed(json!({ "alg": "RS256", "kid": "1", "jku": "http://127.0.0.1:1/" })), "signature"),
        (format!("{}.{}.{}", parts[0], encoded(with("sub", json!("5678"))), parts[2]), "signature"),
        (format!("{}.{}", parts[0], parts[1]), "JSON Web Token"),
        (format!("{}.{}.{}.{}", parts[0], parts[1], parts[2], parts[2]), ""),
        ("eyJ.eyJ.".into(), "JSON Web Token"),
        (String::new(), "JSON Web Token"),
        (key.sign(&with("extra", json!("x".repeat(9_000)))), "too long"),
    ] {
        let refused = verify(&issuers, &token, &device).unwrap_err().to_string();
        assert!(refused.contains(reason), "{token}: {refused}");
    }
}

/// Keys are asked for when they are needed, and by nobody who makes tokens up.
#[test]
fn keys_rotate_and_an_outage_of_a_day_keeps_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let [old, new, made_up] = ["old", "new", "made up"].map(|id| SigningKey::new(id, Algorithm::ES256));
    let issuer = TestIssuer::start(std::slice::from_ref(&old));
    let issuers = issuers(dir.path(), issuer.url(), "ES256", "");
    let device = DeviceKey::new([7; 32]).public();
    let claims = claims(issuer.url(), "1234", &device.nonce());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(keys_rotate(&issuer, &issuers, &[old, new, made_up], &claims));
}

async fn keys_rotate(
    issuer: &TestIssuer,
    issuers: &Issuers,
    [old, new, made_up]: &[SigningKey; 3],
    claims: &Value,
) {
    let device = DeviceKey::new([7; 32]).public();
    let verify = async |key: &SigningKey| issuers.verify(&key.sign(claims), &device).await;
    let later = async |seconds| {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
    };
    // Nobody is let in as long as no keys are known, and the issuer is not asked for each.
    issuer.set_down(true);
    for _ in 0..50 {
        assert!(matches!(verify(old).await, Err(IdentityError::Unavailable(_))));
    }
    issuer.set_down(false);
    later(6).await;
    verify(old).await.unwrap();
    for n in 0..1_000 {
        let header = Header { kid: Some(n.to_string()), ..Header::new(Algorithm::ES256) };
        issuers.verify(&made_up.sign_as(header, claims), &device).await.unwrap_err();
    }
    assert_eq!(issuer.asked(), 1);
    // A new key counts from its first token on, or half a minute after somebody has made one up.
    issuer.rotate(&[old.clone(), new.clone()]);
    later(31).await;
    verify(new).await.unwrap();
    assert_eq!(issuer.asked(), 2);
    // One that was taken back is good for as long as keys are kept, and no longer.
    issuer.rotate(std::slice::from_ref(new));
    verify(old).await.unwrap();
    later(301).await;
    verify(old).await.unwrap_err();
    assert_eq!(issuer.asked(), 3);
    issuer.set_down(true);
    later(20 * 3_600).await;
    verify(new).await.unwrap();
    later(5 * 3_600).await;
    assert!(matches!(verify(new).await, Err(IdentityError::Unavailable(_))));
    issuer.set_down(false);
    later(31).await;
    verify(new).await.unwrap();
}

/// A file that is read again makes nobody wait for an issuer that is down.
#[test]
fn keys_that_are_known_outlast_a_configuration_that_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::new("1", Algorithm::ES256);
    let issuer = TestIssuer::start(std::slice::from_ref(&key));
    let config = config(dir.path(), issuer.url(), "ES256", "new_accounts = true");
    let relay = RelayProcess::start(&dir.path().join("relay"), "127.0.0.1:0", &["--config", &config]);
    let enter = |name: &str| {
        sign_in(
            &device(dir.path(), name),
            &relay.url(),
            &Memory::default(),
            &key,
            &claims(issuer.url(), name, ""),
        )
    };
    enter("a").unwrap();
    issuer.set_down(true);
    let text = std::fs::read_to_string(&config).unwrap();
    for text in [format!("[limits]\nsessions = 7\n{text}"), format!("nonsense\n{text}"), text] {
        std::fs::write(&config, text).unwrap();
        let killed = std::process::Command::new("kill").args(["-HUP", &relay.pid().to_string()]).status();
        assert!(killed.unwrap().success());
        std::thread::sleep(Duration::from_millis(300));
        enter(&format!("b{}", std::fs::read_dir(dir.path()).unwrap().count())).unwrap();
    }
    assert_eq!(issuer.asked(), 1);
}

/// Who asks and goes away before the issuer has answered leaves the others with an answer.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_goes_away_keeps_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::new("1", Algorithm::ES256);
    let start = || TestIssuer::start(std::slice::from_ref(&key));
    let issuer = tokio::task::block_in_place(start);
    issuer.set_delay(Duration::from_millis(100));
    let issuers = issuers(dir.path(), issuer.url(), "ES256", "");
    let device = DeviceKey::new([7; 32]).public();
    let token = key.sign(&claims(issuer.url(), "1234", &device.nonce()));
    for _ in 0..3 {
        let asked = issuers.verify(&token, &device);
        tokio::time::timeout(Duration::from_millis(20), asked).await.unwrap_err();
    }
    issuers.verify(&token, &device).await.unwrap();
    assert_eq!(issuer.asked(), 1);
}

/// The backend of an app signs tokens with a key of its own, and does not know the device.
#[test]
fn a_backend_signs_with_a_key_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::new("1", Algorithm::EdDSA);
    std::fs::write(dir.path().join("keys.json"), json!({ "keys": [key.public()] }).to_string()).unwrap();
    let url = "https://backend.example.org";
    let config = config(
        dir.path(),
        url,
        "EdDSA",
        "key_file = \"keys.json\"\nnonce = \"optional\"\nnew_accounts = true",
    );
    let admin = Admin(dir.path().join("relay"));
    let checked = |config: &str| admin.run(&["config", "check", "--config", config]);
    assert!(checked(&config).status.success());
    let relay = RelayProcess::start(&admin.0, "127.0.0.1:0", &["--config", &config]);
    let cli = Cli::init(dir.path(), "phone", &relay.url());
    let mut claims = claims(url, "user 7", "");
    claims.as_object_mut().unwrap().remove("nonce");
    let told = cli.ok_with(&["login", "--identity-token-file", "-", "--json"], &key.sign(&claims));
    let told: Value = serde_json::from_str(&told).unwrap();
    assert!(told["account"].as_str().unwrap().starts_with("songs-"), "{told}");
    cli.ok(&["sync"]);
    // What is wrong with the file is said, with the line.
    let bad = |text: &str| {
        let path = dir.path().join("bad.toml");
        std::fs::write(&path, text).unwrap();
        let output = checked(path.to_str().unwrap());
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let said = bad("proxies = []\n[limits]\nsesions = 7\n");
    assert!(said.contains("bad.toml, line 3") && said.contains("sesions"), "{said}");
    let issuer = "[[issuer]]\nname = \"songs\"\nurl = \"https://x\"\naudience = [\"a\"]\nalgorithm = \"RS256\"\nkey_file = \"keys.json\"\n";
    let said = bad(issuer);
    assert!(said.contains("songs") && said.contains("keys.json") && said.contains("RS256"), "{said}");
    // The right kind of key on another curve.
    let other = SigningKey::new("1", Algorithm::ES256);
    std::fs::write(dir.path().join("keys.json"), json!({ "keys": [other.public()] }).to_string()).unwrap();
    let ec = issuer.replace("RS256", "ES256");
    std::fs::write(dir.path().join("bad.toml"), &ec).unwrap();
    assert!(checked(dir.path().join("bad.toml").to_str().unwrap()).status.success());
    assert!(bad(&ec.replace("ES256", "ES384")).contains("ES384"));
    assert!(bad(&issuer.replace("https://x", "")).contains("url"));
    std::fs::write(dir.path().join("key.pem"), pem("PUBLIC KEY", b"nonsense")).unwrap();
    let said = bad(&issuer.replace("keys.json", "key.pem"));
    assert!(said.contains("key.pem"), "{said}");
    assert!(bad(&issuer.replace("keys.json", "nowhere")).contains("nowhere"));
}

/// An account outlives a service: old and new side by side, linked by the account itself.
#[test]
fn an_account_is_linked_to_another_service_and_outlives_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let keys = ["a", "b"].map(|id| SigningKey::new(id, Algorithm::ES256));
    let issuers = keys.each_ref().map(|key| TestIssuer::start(std::slice::from_ref(key)));
    let path = dir.path().join("relay.toml");
    let table = |name: &str, issuer: &TestIssuer| {
        format!(
            "[[issuer]]\nname = \"{name}\"\nurl = \"{}\"\naudience = [\"motet-app\"]\nalgorithm = \"ES256\"\nnew_accounts = true\n",
            issuer.url()
        )
    };
    std::fs::write(&path, table("old", &issuers[0]) + &table("new", &issuers[1])).unwrap();
    let admin = Admin(dir.path().join("relay"));
    let relay = RelayProcess::start(&admin.0, "127.0.0.1:0", &["--config", path.to_str().unwrap()]);
    let (phone, secrets) = (device(dir.path(), "phone"), Memory::default());
    let who = claims(issuers[0].url(), "1234", "");
    let account = sign_in(&phone, &relay.url(), &secrets, &keys[0], &who).unwrap();
    let at = Relay::new(&relay.url()).device_key_in(secrets.clone(), NAME);
    let nonce = phone.link_nonce(&at, &secrets, NAME).unwrap();
    // A token that was made for another device, or is good for nothing, links nobody.
    let elsewhere = claims(issuers[1].url(), "abc", &DeviceKey::new([1; 32]).public().nonce());
    for bad in [keys[1].sign(&elsewhere), "eyJ.eyJ.x".into()] {
        let refused = at.account().link_identity(&bad).unwrap_err();
        assert!(matches!(refused, SpaceError::NotPossible { .. }), "{refused}");
    }
    at.account().link_identity(&keys[1].sign(&claims(issuers[1].url(), "abc", &nonce))).unwrap();
    assert_eq!(at.account().identities().unwrap().len(), 2);
    let (tablet, other) = (device(dir.path(), "tablet"), Memory::default());
    let who = claims(issuers[1].url(), "abc", "");
    assert_eq!(sign_in(&tablet, &relay.url(), &other, &keys[1], &who).unwrap(), account);
    at.account().unlink_identity(issuers[0].url(), "1234").unwrap();
    assert!(matches!(
        at.account().unlink_identity(issuers[0].url(), "1234"),
        Err(SpaceError::NotThere { .. })
    ));
    // Somebody else cannot take it.
    let (third, secrets) = (device(dir.path(), "third"), Memory::default());
    let who = claims(issuers[1].url(), "def", "");
    assert_ne!(sign_in(&third, &relay.url(), &secrets, &keys[1], &who).unwrap(), account);
    let theirs = Relay::new(&relay.url()).device_key_in(secrets.clone(), NAME);
    let nonce = third.link_nonce(&theirs, &secrets, NAME).unwrap();
    let refused =
        theirs.account().link_identity(&keys[1].sign(&claims(issuers[1].url(), "abc", &nonce))).unwrap_err();
    assert!(refused.to_string().contains("another account"), "{refused}");
}

/// A person opens a page of the service, and enters the code that the terminal shows.
#[test]
fn the_command_line_signs_in_by_a_code_that_is_entered_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::new("1", Algorithm::RS256);
    let issuer = TestIssuer::start(std::slice::from_ref(&key));
    let config = config(dir.path(), issuer.url(), "RS256", "new_accounts = true");
    let admin = Admin(dir.path().join("relay"));
    let relay = RelayProcess::start(&admin.0, "127.0.0.1:0", &["--config", &config]);
    let cli = Cli::init(dir.path(), "laptop", &relay.url());
    let said = String::from_utf8(cli.run(&["login", "--with", "nobody"]).stderr).unwrap();
    assert!(said.contains("it does of songs"), "{said}");
    // A sign-in key of somebody else would give them what is on this device.
    admin.ok(&["account", "add", "thief"]);
    let stolen = format!("evil: {}", admin.ok(&["key", "create", "--account", "thief"]).trim());
    for (code, who, status) in
        [("code-0", Err(()), 1), ("code-1", Ok(&*stolen), 1), ("code-2", Ok("1234"), 0)]
    {
        let mut login = cli.command(&["login", "--with", "songs", "--json"]);
        let mut login = login.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(login.stdout.take().unwrap()));
        let told: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(
            (&told["user_code"], &told["verification_uri"]),
            (&json!(code), &json!(format!("{}/enter", issuer.url())))
        );
        issuer.enter(code, who);
        let last: Option<String> = lines.next().map(Result::unwrap);
        assert_eq!(login.wait().unwrap().code(), Some(status), "{last:?}");
    }
    cli.ok(&["sync"]);
    assert_eq!(admin.lines(&["device", "list", "--json"]).len(), 1);
}
