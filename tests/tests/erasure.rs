//! An account looks at what the relay has of it, takes it with it, and leaves: what was done to it is noted, and once it is erased nothing of it is there any
//! more, also not by way of an old backup.

use std::path::Path;
use std::time::Duration;

use motet_proto::DeviceId;
use motet_proto::device_key::DeviceKey;
use motet_relay::directory::Directory;
use motet_tests::{Admin, Cli, RelayProcess, is_in_files, wait_until};
use reqwest::blocking::Client;
use serde_json::{Value, json};

/// A relay with accounts, each of which has a device with songs.
struct Service {
    admin: Admin,
    relay: RelayProcess,
    folder: tempfile::TempDir,
}

impl Service {
    fn start(accounts: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let admin = Admin(folder.path().join("relay"));
        for account in accounts {
            admin.ok(&["account", "add", account]);
        }
        let relay = RelayProcess::start(&admin.0, "127.0.0.1:0", &[]);
        Self { admin, relay, folder }
    }

    /// A device of an account, signed in.
    fn device(&self, account: &str, name: &str) -> Cli {
        let cli = Cli::init(self.folder.path(), name, &self.relay.url());
        self.sign_in(account, &cli);
        cli
    }

    fn sign_in(&self, account: &str, cli: &Cli) {
        let key = self.admin.ok(&["key", "create", "--account", account]);
        cli.ok_with(&["login", "--key-file", "-"], &key);
    }

    /// What `audit` says of an account: who has done what.
    fn audit(&self, account: &str) -> Vec<(String, String)> {
        let text = |record: &Value, field: &str| record[field].as_str().unwrap().to_owned();
        let records = self.admin.lines(&["audit", "--account", account, "--json"]);
        records.iter().map(|record| (text(record, "action"), text(record, "actor"))).collect()
    }
}

/// Asks as a device that was registered with a key of its own.
struct Asking {
    url: String,
    key: DeviceKey,
    client: Client,
}

impl Asking {
    fn sign_in(service: &Service, account: &str, number: u8) -> Self {
        let key = DeviceKey::new([number; 32]);
        let code = service.admin.ok(&["key", "create", "--account", account]);
        let asking = Self { url: service.relay.url(), key, client: Client::new() };
        let device = DeviceId([number; 16]);
        let registration = json!({
            "credential": code, "device": device.to_string(), "key": asking.key.public().to_string(),
            "signature": asking.key.registration(device, &code), "name": "asks", "platform": "linux", "version": "1",
        });
        let answer = asking.ask("POST", "/v1/devices", Some(registration));
        assert!(answer.0 < 300, "{answer:?}");
        asking
    }

    fn ask(&self, method: &str, route: &str, body: Option<Value>) -> (u16, Value) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let request = self.client.request(method.parse().unwrap(), format!("{}{route}", self.url));
        let request = request.bearer_auth(self.key.token(now));
        let request = match body {
            Some(body) => request.body(body.to_string()),
            None => request,
        };
        let answer = request.send().unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().unwrap());
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
}

#[test]
fn an_account_is_erased_when_its_time_has_come_and_not_before() {
    let service = Service::start(&["keola", "leilani"]);
    let (keola, leilani) = (service.device("keola", "keola"), service.device("leilani", "leilani"));
    for (cli, word) in [(&keola, "waiʻaleʻale"), (&leilani, "hanalei")] {
        cli.ok_with(
            &["put", "songs", "--id", "1"],
            &json!({ "title": word, "lyrics": word.repeat(50) }).to_string(),
        );
        cli.ok(&["sync"]);
    }
    let asking = Asking::sign_in(&service, "keola", 7);
    let (status, account) = asking.ask("GET", "/v1/account", None);
    assert_eq!((status, &account["account"], &account["erase_at"]), (200, &json!("keola"), &Value::Null));
    assert!(account["limits"]["stored_bytes"].as_u64().unwrap() > 0);
    // Too soon for a device that somebody may have found, and too late.
    for (after, code) in [(json!(0), 400), (json!(3_600), 400), (json!(40 * 86_400), 400), (json!("1d"), 400)]
    {
        assert_eq!(asking.ask("POST", "/v1/account/erasure", Some(json!({ "after": after }))).0, code);
    }
    assert_eq!(asking.ask("DELETE", "/v1/account/erasure", None).0, 409);
    // A whole number, as other programs write it.
    assert_eq!(asking.ask("POST", "/v1/account/erasure", Some(json!({ "after": 241_070.0 }))).0, 200);
    let (status, asked) = asking.ask("POST", "/v1/account/erasure", Some(json!({})));
    assert_eq!(status, 200);
    assert_eq!(asking.ask("GET", "/v1/account", None).1["erase_at"], asked["erase_at"]);
    keola.ok(&["sync"]);
    assert_eq!(asking.ask("DELETE", "/v1/account/erasure", None), (204, json!("")));
    // The same through the command line of a device.
    let shown = keola.json(&["account", "show", "--json"]);
    assert_eq!((&shown["account"], &shown["erase_at"]), (&json!("keola"), &Value::Null));
    assert!(keola.ok(&["account", "erase", "--days", "3"]).contains("motet account keep"));
    assert!(keola.ok(&["account", "show"]).contains("it is erased"));
    keola.ok(&["account", "keep"]);
    assert!(!keola.run(&["account", "keep"]).status.success());
    let acts = keola.json(&["account", "audit", "--json"]);
    let [first, second] = [&acts[0], &acts[1]];
    assert_eq!((&first["action"], &second["action"]), (&json!("erasure-cancelled"), &json!("erasure-asked")));
    let before = second["number"].to_string();
    let older = keola.json(&["account", "audit", "--before", &before, "--json"]);
    assert_eq!(older[0], acts[2]);
    for none in ["first", "-1", "+1", "9223372036854775808"] {
        assert_eq!(asking.ask("GET", &format!("/v1/audit/{none}"), None).0, 400, "{none}");
    }
    asking.ask("POST", "/v1/account/erasure", Some(json!({})));
    asking.ask("DELETE", "/v1/account/erasure", None);
    let acts = service.audit("keola");
    let of_device = ("erasure-cancelled".to_owned(), "07".repeat(16));
    assert_eq!(acts[0], of_device);
    assert_eq!(acts[1].0, "erasure-asked");
    // The operator need not wait.
    service.admin.ok(&["account", "erase", "keola", "--now"]);
    let is_left = || is_in_files(&service.admin.0, "relay.db", b"keola");
    wait_until("nothing is left of it", Duration::from_secs(60), || !is_left());
    assert!(!keola.run(&["sync"]).status.success());
    assert_eq!(keola.json(&["get", "songs", "1", "--json"])["title"], "waiʻaleʻale");
    assert_eq!(asking.ask("GET", "/v1/account", None).0, 401);
    assert_eq!(service.audit("keola"), []);
    let all = service.admin.lines(&["audit", "--json"]);
    assert!(!all.iter().any(|record| record.to_string().contains("keola")), "{all:?}");
    assert!(all.iter().any(|record| record["action"] == "account-erased" && record["account"] == ""));
    wait_until("its name is in no file", Duration::from_secs(60), || {
        !is_in_files(&service.admin.0, "accounts.db", b"keola")
    });
    // Who is somebody else notices nothing.
    leilani.ok_with(&["set", "songs", "1", "key=C"], "");
    leilani.ok(&["sync"]);
    // And whoever it was may begin anew: the device goes on with what it has.
    wait_until("the name is free", Duration::from_secs(60), || {
        service.admin.run(&["account", "add", "keola"]).status.success()
    });
    service.sign_in("keola", &keola);
    keola.ok(&["sync"]);
    let other = service.device("keola", "keola-2");
    other.ok(&["sync"]);
    assert_eq!(other.json(&["get", "songs", "1", "--json"])["title"], "waiʻaleʻale");
}

#[test]
fn a_space_that_somebody_else_owns_by_now_stays() {
    let service = Service::start(&["keola", "leilani"]);
    let (keola, leilani) = (service.device("keola", "keola"), service.device("leilani", "leilani"));
    let spaces = ["Given", "Kept"].map(|name| {
        let made = keola.json(&["space", "create", name, "--json"]);
        let code = keola.ok(&["space", "invite", name]);
        leilani.ok(&["space", "join", &code]);
        made["id"].as_str().unwrap().to_owned()
    });
    let bands = spaces.each_ref().map(|id| {
        let cli = Cli::new(service.folder.path(), &format!("band-{id}"));
        cli.ok(&["init", "--device", "band", "--relay", &service.relay.url(), "--space-id", id]);
        service.sign_in("leilani", &cli);
        cli.ok_with(&["put", "songs", "--id", "1"], r#"{"title": "Pua Mana"}"#);
        cli.ok(&["sync"]);
        cli
    });
    keola.ok(&["space", "role", &spaces[0], "leilani", "owner"]);
    // One that is of keola by now, and whose log counts for who has made it.
    let back = leilani.json(&["space", "create", "Back", "--json"])["id"].as_str().unwrap().to_owned();
    keola.ok(&["space", "join", &leilani.ok(&["space", "invite", "Back"])]);
    let cli = Cli::new(service.folder.path(), "back");
    cli.ok(&["init", "--device", "back", "--relay", &service.relay.url(), "--space-id", &back]);
    service.sign_in("leilani", &cli);
    cli.ok_with(&["put", "songs", "--id", "1"], r#"{"title": "Pua Mana"}"#);
    cli.ok(&["sync"]);
    leilani.ok(&["space", "role", &back, "keola", "owner"]);
    let logs = |to: &str| {
        let to = service.folder.path().join(to);
        service.admin.ok(&["account", "export", "leilani", to.to_str().unwrap()])
    };
    assert!(logs("before").contains("1 logs"));
    let acts = service.audit("leilani");
    assert!(acts.iter().any(|(action, _)| action == "owner-changed"));
    assert!(acts.iter().any(|(action, _)| action == "invite-used"));
    service.admin.ok(&["account", "erase", "keola", "--now"]);
    wait_until("it is erased", Duration::from_secs(60), || {
        service.admin.lines(&["audit", "--json"]).iter().any(|record| record["action"] == "logs-erased")
    });
    assert!(logs("after").contains("0 logs"));
    bands[0].ok_with(&["set", "songs", "1", "key=C"], "");
    bands[0].ok(&["sync"]);
    let another = Cli::new(service.folder.path(), "another");
    another.ok(&["init", "--device", "another", "--relay", &service.relay.url(), "--space-id", &spaces[0]]);
    service.sign_in("leilani", &another);
    another.ok(&["sync"]);
    assert_eq!(another.json(&["get", "songs", "1", "--json"])["key"], "C");
    assert!(!bands[1].run(&["sync"]).status.success(), "it has ended with its owner");
}

#[test]
fn a_backup_does_not_bring_back_what_was_erased_since() {
    let mut service = Service::start(&["keola", "leilani"]);
    let devices = ["keola", "leilani"].map(|account| {
        let cli = service.device(account, account);
        cli.ok_with(&["put", "songs", "--id", "1"], r#"{"title": "Pua Mana"}"#);
        cli.ok(&["sync"]);
        cli
    });
    let backup = service.folder.path().join("backup");
    service.admin.ok(&["backup", backup.to_str().unwrap()]);
    service.admin.ok(&["account", "erase", "keola", "--now"]);
    let is_done = |service: &Service| {
        let acts = service.admin.lines(&["audit", "--json"]);
        acts.iter().any(|record| record["action"] == "logs-erased")
    };
    wait_until("it is erased", Duration::from_secs(60), || is_done(&service));
    for with in [&["--accounts"][..], &[]] {
        service.relay.terminate();
        let restore = [&["restore", backup.to_str().unwrap()], with].concat();
        let said = service.admin.ok(&restore);
        assert!(said.contains("1 of these logs"), "{said}");
        service.relay = RelayProcess::start(&service.admin.0, service.relay.address(), &[]);
        wait_until("it is erased again", Duration::from_secs(60), || {
            let accounts = service.admin.lines(&["account", "list", "--json"]);
            accounts.len() == 1 && !is_in_files(&service.admin.0, "relay.db", b"keola")
        });
        assert!(!devices[0].run(&["sync"]).status.success());
        devices[1].ok(&["sync"]);
    }
}

#[test]
fn an_account_is_exported_with_all_that_the_relay_has_of_it() {
    let service = Service::start(&["Nā Kealoha", "leilani"]);
    let cli = service.device("Nā Kealoha", "phone");
    for n in 0..30 {
        cli.ok_with(
            &["put", "songs", "--id", &n.to_string()],
            &json!({ "title": format!("Song {n}") }).to_string(),
        );
    }
    cli.ok(&["sync"]);
    cli.ok(&["space", "create", "Choir"]);
    let to = service.folder.path().join("export");
    // Another form of the same letters, as a keyboard may give them.
    let said = service.admin.ok(&["account", "export", "Na\u{304} Kealoha", to.to_str().unwrap()]);
    assert!(said.contains("1 logs"), "{said}");
    let account: Value = serde_json::from_slice(&std::fs::read(to.join("account.json")).unwrap()).unwrap();
    assert_eq!(account["account"], "Nā Kealoha");
    assert_eq!(account["spaces"][0]["name"], "Choir");
    assert_eq!(account["devices"].as_array().unwrap().len(), 1);
    let actions: Vec<_> =
        account["audit"].as_array().unwrap().iter().map(|record| &record["action"]).collect();
    assert_eq!(actions, ["space-created", "device-signed-in", "key-created", "account-added"]);
    assert!(entries(&to).len() >= 30);
    let again = service.admin.fails(&["account", "export", "Na\u{304} Kealoha", to.to_str().unwrap()]);
    assert!(again.contains("not empty"), "{again}");
    let nobody = service.folder.path().join("nobody");
    assert!(
        service.admin.fails(&["account", "export", "nobody", nobody.to_str().unwrap()]).contains("nobody")
    );
    assert!(!nobody.exists());
}

/// Two relays over one database erase together, and what comes later under the same name stays.
#[cfg(target_os = "linux")]
#[test]
fn relays_over_one_database_erase_an_account_once() {
    let Some(postgres) = motet_tests::servers::Postgres::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let url = postgres.database("motet");
    let admin = Admin(dir.path().join("none"));
    let ok = |args: &[&str]| admin.ok(&[&["--store", &*url], args].concat());
    ok(&["account", "add", "keola"]);
    let relays = ["one", "two"]
        .map(|name| RelayProcess::start(&dir.path().join(name), "127.0.0.1:0", &["--store", &url]));
    let signed_in = |name: &str, relay: &RelayProcess| {
        let cli = Cli::init(dir.path(), name, &relay.url());
        cli.ok_with(&["login", "--key-file", "-"], &ok(&["key", "create", "--account", "keola"]));
        cli
    };
    let devices = [signed_in("one", &relays[0]), signed_in("two", &relays[1])];
    devices[0].ok_with(&["put", "songs", "--id", "1"], r#"{"title": "Pua Mana"}"#);
    for _ in 0..2 {
        devices.iter().for_each(|device| drop(device.ok(&["sync"])));
    }
    ok(&["account", "erase", "keola", "--now"]);
    let is_done = || ok(&["audit", "--json"]).contains("logs-erased");
    wait_until("it is erased", Duration::from_secs(60), is_done);
    for device in &devices {
        assert!(!device.run(&["sync"]).status.success());
    }
    assert_eq!(ok(&["account", "list"]), "none");
    ok(&["account", "add", "keola"]);
    devices[0].ok_with(&["login", "--key-file", "-"], &ok(&["key", "create", "--account", "keola"]));
    devices[0].ok(&["sync"]);
    // Longer than until the relays look for the next time.
    std::thread::sleep(motet_relay::limits::ERASURES_LOOKED_AT_EVERY + Duration::from_secs(2));
    let third = signed_in("third", &relays[1]);
    third.ok(&["sync"]);
    assert_eq!(third.json(&["get", "songs", "1", "--json"])["title"], "Pua Mana");
    let erased = ok(&["audit", "--json"]).lines().filter(|line| line.contains("logs-erased")).count();
    assert_eq!(erased, 1);
    let to = dir.path().join("export");
    assert!(ok(&["account", "export", "keola", to.to_str().unwrap()]).contains("1 logs"));
    assert!(!entries(&to).is_empty());
}

/// The entries of an export.
fn entries(folder: &Path) -> Vec<Value> {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let logs = files.filter(|file| file.extension().is_some_and(|end| end == "jsonl"));
    let text: Vec<_> = logs.map(|file| std::fs::read_to_string(file).unwrap()).collect();
    text.iter().flat_map(|text| text.lines()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn accounts_of_the_format_before_are_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(folder.path()).unwrap();
    directory.add_account("keola").unwrap();
    drop(directory);
    let conn = rusqlite::Connection::open(folder.path().join("accounts.db")).unwrap();
    conn.execute_batch(
        "DROP TABLE audit; DROP TABLE erasure; DROP TABLE erasing_space; ALTER TABLE account DROP COLUMN erase_at; PRAGMA user_version = 3;",
    )
    .unwrap();
    drop(conn);
    let directory = Directory::open(folder.path()).unwrap();
    assert_eq!(directory.accounts().unwrap()[0].erase_at, None);
    directory.erase_account("keola", Duration::from_secs(100)).unwrap();
    assert_eq!(directory.audit(None, None, 9).unwrap().len(), 1);
    directory.keep_account("keola").unwrap();
    assert!(directory.keep_account("keola").is_err());
}
