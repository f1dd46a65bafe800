//! How a relay is run and watched: its settings, its log, its metrics, TLS with certificates from files.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use motet::{Relay, Transport};
use motet_relay::tls::{Tls, TlsFiles};
use motet_tests::{Cli, device, program, wait_until};
use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};

/// A relay as a process, with its log in a file.
struct Served {
    child: Child,
    url: String,
    /// Where the metrics are, if there are any.
    metrics: String,
    log: PathBuf,
}

impl Served {
    /// Starts a relay on free ports. `set`: its environment. With metrics it says two lines.
    fn start(dir: &Path, args: &[&str], set: &[(&str, &str)]) -> Self {
        let log = dir.join("relay.log");
        let mut command = Command::new(program("motet-relay"));
        command.args(args).env_remove("RUST_LOG").envs(set.iter().copied());
        let stderr = std::fs::File::create(&log).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next = || {
            let line = lines.next().map(Result::unwrap);
            line.unwrap_or_else(|| panic!("the relay has ended: {}", std::fs::read_to_string(&log).unwrap()))
        };
        let first = next();
        let address = first.split(" on ").nth(1).and_then(|rest| rest.split(',').next());
        let url = address.unwrap_or_else(|| panic!("the relay said {first:?}")).to_owned();
        let has_metrics =
            args.contains(&"--metrics") || set.iter().any(|(name, _)| name.ends_with("METRICS"));
        let metrics = if has_metrics { next()["metrics on ".len()..].to_owned() } else { String::new() };
        Self { child, url, metrics, log }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn wait_for_log(&self, text: &str) {
        wait_until(text, Duration::from_secs(10), || self.log().contains(text));
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn get(url: &str) -> Response {
    reqwest::blocking::get(url).unwrap()
}

/// What stands behind the name of a number, with its labels.
fn number(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

fn as_str(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn metrics_count_what_devices_do_and_name_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, "secret-token -> kealoha\n").unwrap();
    let data = dir.path().join("relay");
    let args = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--data", as_str(&data)];
    let relay = Served::start(dir.path(), &[&args[..], &["--tokens", as_str(&tokens)]].concat(), &[]);
    let a = device(dir.path(), "a");
    let id = a.documents("pieces").insert(&json!({ "lyrics": "E hoʻi mai" })).unwrap();
    for transport in [Transport::WebSocket, Transport::Post] {
        a.connect(Relay::new(&relay.url).token("secret-token").transport(transport)).unwrap();
        a.sync_now().unwrap();
        a.documents("pieces").patch(&id, &json!({ "notes": "slowly" })).unwrap();
        a.sync_now().unwrap();
        a.disconnect();
    }
    assert_eq!(get(&format!("{}/v1/sync", relay.url)).status(), 401);
    let nonsense = Client::new().post(format!("{}/v1/sync", relay.url)).bearer_auth("secret-token");
    assert!(nonsense.body("this is no frame").send().unwrap().status().is_success());
    // What the store says is looked at every second.
    wait_until("the size of the store is known", Duration::from_secs(5), || {
        number(&get(&relay.metrics).text().unwrap(), "motet_relay_stored_bytes")
            .is_some_and(|bytes| bytes > 0.0)
    });
    let answer = get(&relay.metrics);
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let text = answer.text().unwrap();
    let at_least = |name: &str, least: f64| {
        let found = number(&text, name).unwrap_or_else(|| panic!("{name} is missing in\n{text}"));
        assert!(found >= least, "{name} {found}");
    };
    for (name, least) in [
        ("motet_relay_rounds_total{way=\"websocket\"}", 1.0),
        ("motet_relay_rounds_total{way=\"post\"}", 1.0),
        ("motet_relay_refusals_total{reason=\"sessions\"}", 0.0),
        ("motet_relay_errors_sent_total{code=\"protocol\"}", 1.0),
        ("motet_relay_sign_in_refusals_total{reason=\"no-token\"}", 1.0),
        ("motet_relay_entries_received_total", 2.0),
        ("motet_relay_bytes_received_total", 100.0),
        ("motet_relay_bytes_sent_total", 100.0),
        ("motet_relay_push_seconds_count", 2.0),
        ("motet_relay_disk_free_bytes", 1.0),
        ("motet_relay_sessions_open", 0.0),
        ("process_start_time_seconds", 1_700_000_000.0),
    ] {
        at_least(name, least);
    }
    assert_eq!(number(&text, "motet_relay_disk_full"), Some(0.0));
    assert_eq!(number(&text, "motet_relay_damaged"), Some(0.0));
    assert!(text.contains(&format!("motet_relay_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))));
    for private in ["kealoha", "secret", &id, &a.device_id().to_string(), "pieces", "127.0.0.1"] {
        assert!(!text.contains(private), "{private} is in\n{text}");
    }
    // Each address has its own things.
    assert_eq!(get(&format!("{}/metrics", relay.url)).status(), 404);
    assert_eq!(get(&relay.metrics.replace("/metrics", "/v1/sync")).status(), 404);

    // The dashboard asks for numbers that there are.
    let dashboard = std::fs::read_to_string("../deploy/grafana.json").unwrap();
    let names = dashboard.split("motet_relay_").skip(1).map(|rest| {
        let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
        format!("motet_relay_{name}")
    });
    let mut asked = 0;
    for name in names {
        let is_there = [&*name, name.trim_end_matches("_bucket")]
            .iter()
            .any(|name| text.contains(&format!("# TYPE {name} ")));
        assert!(is_there, "{name} is not in\n{text}");
        asked += 1;
    }
    assert!(asked > 10);
}

#[test]
fn settings_come_from_the_environment_and_json_lines_name_requests() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        as_str(&path).to_owned()
    };
    let (tokens, config) = (file("tokens", "secret-token -> kealoha\n"), file("relay.toml", ""));
    let data = dir.path().join("relay");
    let relay = Served::start(
        dir.path(),
        &[],
        &[
            ("MOTET_RELAY_LISTEN", "127.0.0.1:0"),
            ("MOTET_RELAY_DATA", as_str(&data)),
            ("MOTET_RELAY_TOKENS", &tokens),
            ("MOTET_RELAY_CONFIG", &config),
            ("MOTET_RELAY_RETENTION", "7"),
            ("MOTET_RELAY_METRICS", "127.0.0.1:0"),
            ("MOTET_RELAY_LOG", "json"),
        ],
    );
    assert!(get(&relay.metrics).status().is_success());
    let ask = |id: &str, token: &str| {
        let request = Client::new().get(format!("{}/v1/spaces", relay.url)).bearer_auth(token);
        let answer = request.header("x-request-id", id).send().unwrap();
        let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        (answer.status().as_u16(), id)
    };
    assert_eq!(ask("mine", "secret-token").0, 200);
    assert!(data.join("relay.db").exists());
    let (status, own) = ask("mine", "wrong-token");
    assert_eq!((status, own.len()), (401, 16), "who is no proxy names no request");
    // Now it is one.
    file("relay.toml", "proxies = ['127.0.0.1']\n");
    relay.signal("-HUP");
    relay.wait_for_log("taken up anew");
    assert_eq!(ask("req-7", "wrong-token"), (401, "req-7".into()));
    assert_ne!(ask("no id\"", "wrong-token").1, "no id\"");

    // A session is named as well.
    let a = device(dir.path(), "a");
    a.documents("pieces").insert(&json!({ "lyrics": "E hoʻi mai" })).unwrap();
    a.connect(Relay::new(&relay.url).token("secret-token")).unwrap();
    a.sync_now().unwrap();
    let log = relay.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["level"].is_string() && line["timestamp"].is_string()));
    let refused: Vec<&Value> =
        lines.iter().filter(|line| line["message"] == "a sign-in was refused").collect();
    assert_eq!(refused.len(), 3, "{log}");
    assert_eq!(refused[0]["reason"], "token-invalid");
    assert_eq!(refused[0]["address"], "127.0.0.1");
    assert_eq!(refused[0]["span"]["request"], json!(own));
    assert_eq!(refused[1]["span"]["request"], "req-7");
    for private in ["secret", "wrong-token", "hoʻi"] {
        assert!(!log.contains(private), "{private} is in\n{log}");
    }
}

#[test]
fn sessions_of_a_log_have_the_id_of_their_request() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let args = ["--listen", "127.0.0.1:0", "--log", "json", "--data", as_str(&data)];
    let log = [("RUST_LOG", "motet_relay=debug")];
    let relay = Served::start(dir.path(), &args, &log);
    let a = device(dir.path(), "a");
    a.connect(Relay::new(&relay.url)).unwrap();
    a.sync_now().unwrap();
    relay.wait_for_log("\"hello\"");
    let lines: Vec<Value> = relay.log().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let hello = lines.iter().find(|line| line["message"] == "hello").unwrap();
    assert_eq!(hello["span"]["name"], "session");
    assert_eq!(hello["span"]["session"], hello["session"]);
    assert_eq!(hello["span"]["request"].as_str().unwrap().len(), 16);
}

#[test]
fn a_relay_that_stops_is_not_ready() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let relay = Served::start(dir.path(), &["--listen", "127.0.0.1:0", "--data", as_str(&data)], &[]);
    assert_eq!(get(&format!("{}/readyz", relay.url)).text().unwrap(), "ready\n");
    // It is found out each second; then the writer waits for the file, and whoever asks waits for the writer.
    std::thread::sleep(Duration::from_millis(1_100));
    let conn = rusqlite::Connection::open(data.join("relay.db")).unwrap();
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    let url = format!("{}/readyz", relay.url);
    let asked = std::thread::spawn(move || get(&url));
    std::thread::sleep(Duration::from_millis(500));
    assert!(get(&format!("{}/healthz", relay.url)).status().is_success());
    relay.signal("-TERM");
    let answer = asked.join().unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().unwrap()), (503, "the relay is stopping\n".into()));
    conn.execute_batch("ROLLBACK").unwrap();
}

/// A certificate for this machine and its key, which nobody else has signed.
struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn new() -> Self {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    /// A client that trusts this certificate, and nothing else of this machine.
    fn client(&self) -> Client {
        let root = reqwest::Certificate::from_pem(self.certificate.as_bytes()).unwrap();
        Client::builder().tls_certs_only([root]).build().unwrap()
    }
}

#[test]
fn a_relay_speaks_tls_and_takes_up_another_certificate_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("certificate.pem"), dir.path().join("key.pem"));
    let put = |certificate_of: &Pair, key_of: &Pair| {
        std::fs::write(&certificate, &certificate_of.certificate).unwrap();
        std::fs::write(&key, &key_of.key).unwrap();
    };
    let (first, second) = (Pair::new(), Pair::new());
    put(&first, &first);
    let config = dir.path().join("relay.toml");
    std::fs::write(&config, "[limits]\nhalf_open = 5\n").unwrap();
    let data = dir.path().join("relay");
    let args = ["--listen", "127.0.0.1:0", "--data", as_str(&data), "--config", as_str(&config)];
    let tls = ["--tls-certificate", as_str(&certificate), "--tls-key", as_str(&key)];
    let relay = Served::start(dir.path(), &[&args[..], &tls[..]].concat(), &[]);
    assert!(relay.url.starts_with("https://"), "{}", relay.url);

    // Devices trust what their system trusts.
    let trusted = dir.path().join("trusted.pem");
    std::fs::write(&trusted, &first.certificate).unwrap();
    let devices = ["a", "b"].map(|name| Cli::init(dir.path(), name, &relay.url));
    let run = |cli: &Cli, args: &[&str]| {
        let output = cli.command(args).env("SSL_CERT_FILE", &trusted).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    devices[0].ok_with(&["put", "songs", "--id", "1"], r#"{"title": "Hiʻilawe"}"#);
    run(&devices[0], &["sync"]);
    run(&devices[1], &["sync"]);
    assert_eq!(devices[1].json(&["get", "songs", "1", "--json"])["title"], "Hiʻilawe");

    let health = format!("{}/healthz", relay.url);
    // The answer is read to its end, so that the connection can be used again.
    let is_served = |client: &Client| client.get(&health).send().and_then(Response::text).is_ok();
    assert!(is_served(&first.client()) && !is_served(&second.client()));
    assert!(reqwest::blocking::get(health.replace("https", "http")).is_err(), "nothing goes in plain");

    // Who never says hello keeps nobody out.
    let silent: Vec<_> =
        (0..20).map(|_| TcpStream::connect(&relay.url["https://".len()..]).unwrap()).collect();
    assert!(is_served(&first.client()));
    silent[0].set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!((&silent[0]).read(&mut [0; 8]).unwrap_or(0), 0, "the oldest goes");
    drop(silent);

    // What does not fit together changes nothing.
    put(&second, &first);
    relay.signal("-HUP");
    relay.wait_for_log("the TLS certificate stays as it was");
    assert!(relay.log().contains("is not that of the certificate in"), "{}", relay.log());
    assert!(is_served(&first.client()));
    let kept = first.client();
    assert!(is_served(&kept));
    put(&second, &second);
    relay.signal("-HUP");
    relay.wait_for_log("another TLS certificate was taken up");
    assert!(is_served(&second.client()) && !is_served(&first.client()));
    assert!(is_served(&kept), "a connection that was open stays");
}

#[test]
fn a_certificate_that_cannot_be_used_is_named_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (pair, other) = (Pair::new(), Pair::new());
    let good = file("good.pem", &pair.certificate);
    let key = file("good.key", &pair.key);
    let secret = pair.key.lines().nth(1).unwrap();
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let encrypted = pair.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let cases = [
        (dir.path().join("none.pem"), key.clone(), "cannot read {}/none.pem: "),
        (good.clone(), dir.path().join("none.key"), "cannot read {}/none.key: "),
        (key.clone(), key.clone(), "{}/good.key holds no certificate"),
        (good.clone(), good.clone(), "{}/good.pem holds no private key"),
        (file("garbage.pem", garbage), key.clone(), "the certificate in {}/garbage.pem cannot be used"),
        (good.clone(), file("locked.key", &encrypted), "the private key in {}/locked.key is encrypted"),
        (
            good.clone(),
            file("other.key", &other.key),
            "the private key in {}/other.key is not that of the certificate in {}/good.pem",
        ),
        (good.clone(), file("large.key", &"x".repeat(2 << 20)), "{}/large.key has more than 1048576 bytes"),
    ];
    for (certificate, key, said) in cases {
        let error = Tls::open(TlsFiles { certificate, key }).unwrap_err().to_string();
        let said = said.replace("{}", as_str(dir.path()));
        assert!(error.starts_with(&said), "{error:?} instead of {said:?}");
        assert!(!error.contains(secret));
    }
    assert!(Tls::open(TlsFiles { certificate: good.clone(), key }).is_ok());
    let start = |args: &[&str]| {
        let mut command = Command::new(program("motet-relay"));
        let output = command.args(["--listen", "127.0.0.1:0"]).args(args).current_dir(dir.path()).output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = start(&["--tls-certificate", "good.pem", "--tls-key", "other.key"]);
    assert!(code == Some(1) && said.contains("other.key is not that of the certificate"), "{said}");
    assert!(!dir.path().join("relay-data").exists(), "nothing was begun");
    let (code, said) = start(&["--tls-certificate", "good.pem"]);
    assert!(code == Some(2) && said.contains("--tls-key"), "{said}");
}
