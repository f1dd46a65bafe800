//! The HTTP interface of the relay is as `docs/openapi.json` says, route by route, and Schemathesis finds no request that is answered otherwise.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use motet_proto::DeviceId;
use motet_proto::device_key::DeviceKey;
use motet_proto::limits as proto;
use motet_relay::config::{Limits, Terms};
use motet_relay::limits;
use motet_tests::console::Site;
use motet_tests::openapi::{FILE, description, operations, routes_of_the_source};
use motet_tests::web::{Answer, Web};
use motet_tests::{RelayProcess, program, random, wait_until};
use reqwest::blocking::{Client, Response};
use serde_json::Value;

/// Every method that clients send to relays and others.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"];

/// Limits that no test reaches which is about something else.
fn patient() -> Terms {
    let limits = Limits { wrong_tokens: 1_000_000, frames_per_second: 1_000_000, ..Limits::default() };
    Terms { limits, ..Terms::default() }
}

fn now() -> u64 {
    UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// A relay with all that it can serve over HTTP, and the address of its metrics.
fn relay_with_metrics(dir: &std::path::Path) -> (RelayProcess, String) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let metrics = format!("127.0.0.1:{port}");
    let relay = RelayProcess::start(dir, "127.0.0.1:0", &["--console", "--metrics", &metrics]);
    wait_until("the metrics are served", Duration::from_secs(20), || TcpStream::connect(&*metrics).is_ok());
    (relay, format!("http://{metrics}"))
}

fn ask(method: &str, url: &str) -> Response {
    Client::new().request(method.parse().unwrap(), url).send().unwrap()
}

#[test]
fn every_route_of_the_relay_is_described_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, metrics) = relay_with_metrics(&dir.path().join("relay"));
    let described = operations();
    let paths: BTreeSet<String> = described.iter().map(|(_, path)| path.clone()).collect();
    assert_eq!(routes_of_the_source(), paths);
    for path in &paths {
        // What stands in braces is a name.
        let filled = path.replace(['{', '}'], "");
        let base = if path == "/metrics" { metrics.clone() } else { relay.url() };
        let methods: BTreeSet<&str> =
            described.iter().filter(|(_, of)| of == path).map(|(method, _)| method.as_str()).collect();
        for method in METHODS {
            // `HEAD` is answered like `GET`.
            let is_described = methods.contains(if method == "HEAD" { "GET" } else { method });
            let answer = ask(method, &format!("{base}{filled}"));
            assert_eq!(answer.status() != 405, is_described, "{method} {path}: {}", answer.status());
            if is_described {
                continue;
            }
            let allowed = answer.headers()["allow"].to_str().unwrap().split(',').map(str::trim);
            let allowed: BTreeSet<&str> = allowed.filter(|method| *method != "HEAD").collect();
            assert_eq!(allowed, methods, "{path}");
        }
        for beside in [format!("{filled}/"), format!("{filled}/x/x/x/x")] {
            assert_eq!(ask("GET", &format!("{base}{beside}")).status(), 404, "{beside}");
        }
    }
    for path in ["/", "/v1", "/v1/", "/v2/sync", "/metrics", "/openapi.json"] {
        let answer = ask("GET", &format!("{}{path}", relay.url()));
        assert_eq!(answer.status(), 404, "{path}");
    }
}

/// Whatever it is, an answer says that a relay gives it, and lets no page of another site read it.
#[test]
fn every_answer_has_the_headers_of_a_relay() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, _) = relay_with_metrics(&dir.path().join("relay"));
    let paths = operations().into_iter().map(|(_, path)| path.replace(['{', '}'], ""));
    for path in paths.chain(["/".into(), "/console/".into()]) {
        for method in METHODS {
            let request = Client::new().request(method.parse().unwrap(), format!("{}{path}", relay.url()));
            let request = request.header("origin", "https://elsewhere.example");
            let answer = request.header("access-control-request-method", "POST").send().unwrap();
            for name in ["motet-relay", "x-request-id"] {
                assert!(answer.headers().contains_key(name), "{method} {path}: {name}");
            }
            assert_eq!(answer.headers()["x-content-type-options"], "nosniff", "{method} {path}");
            // Any page can open a WebSocket to this machine, and a relay without accounts knows nobody by a token.
            if (method, &*path) == ("GET", "/v1/sync") {
                assert_eq!(answer.status(), 403);
            }
            let mut names = answer.headers().keys();
            assert!(!names.any(|name| name.as_str().starts_with("access-control")), "{method} {path}");
        }
    }
}

/// What the description refers to is there, and what is there is referred to.
#[test]
fn the_description_is_whole() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        if let Some(Value::String(to)) = value.get("$ref") {
            found.insert(to.clone());
        }
        let children: Vec<&Value> = match value {
            Value::Object(members) => members.values().collect(),
            Value::Array(items) => items.iter().collect(),
            _ => Vec::new(),
        };
        children.into_iter().for_each(|child| references(child, found));
    }
    let description = description();
    let mut found = BTreeSet::new();
    references(&description, &mut found);
    let mut there = BTreeSet::new();
    for (kind, named) in description["components"].as_object().unwrap() {
        if kind != "securitySchemes" {
            there.extend(named.as_object().unwrap().keys().map(|name| format!("#/components/{kind}/{name}")));
        }
    }
    assert_eq!(found, there);
    let ids = |method: &str, path: &str| {
        let operation = &description["paths"][path][method.to_lowercase()];
        operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path} has no id")).to_owned()
    };
    let operations = operations();
    let names: BTreeSet<String> = operations.iter().map(|(method, path)| ids(method, path)).collect();
    assert_eq!(names.len(), operations.len());
}

#[test]
fn limits_are_described_as_the_relay_has_them() {
    let description = description();
    let schema = |path: &str| {
        let found = description["components"]["schemas"].pointer(path);
        found.unwrap_or_else(|| panic!("no {path}")).as_u64().unwrap()
    };
    let expires = "/Invitation/properties/expires_in";
    for (path, limit) in [
        ("/Registration/properties/credential/maxLength", proto::CREDENTIAL_BYTES as u64),
        ("/Shown/maxLength", proto::DEVICE_NAME_BYTES as u64),
        ("/Devices/properties/devices/maxItems", limits::DEVICES_PER_ACCOUNT as u64),
        (&format!("{expires}/maximum"), limits::INVITE_LONGEST.as_secs()),
        (&format!("{expires}/default"), limits::INVITE_LIFETIME.as_secs()),
    ] {
        assert_eq!(schema(path), limit, "{path}");
    }
    let text = description.to_string();
    for words in [
        format!("more than {} KiB, unless", limits::JSON_BYTES >> 10),
        format!("At most {} KiB.", proto::REGISTRATION_BYTES >> 10),
        format!("A body of at most {} MiB", limits::POST_BYTES >> 20),
        format!("It brings {},000 bytes a second", limits::BODY_BYTES_PER_SECOND / 1_000),
        format!("owns one of this name, or {}", limits::SHARED_SPACES_PER_ACCOUNT),
        format!("409: {} codes are good", limits::INVITES_PER_SPACE),
        format!("has more than {} KiB", limits::REQUEST_HEAD_BYTES >> 10),
    ] {
        assert!(text.contains(&words), "{words}");
    }
}

/// What Schemathesis has found, and what it does not ask.
#[test]
fn what_http_allows_is_answered_as_described() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(&dir.path().join("relay"), &["keola"], patient(), |console| console);
    let key = site.device("keola", "phone", 1);
    let asked = |method: &str, path: &str, body: &str, is_signed_in: bool| {
        let url = format!("{}{path}", site.relay.url());
        let request = Client::new().request(method.parse().unwrap(), url).body(body.to_owned());
        let request = if is_signed_in { request.bearer_auth(key.token(now())) } else { request };
        let answer = request.send().unwrap();
        (answer.status().as_u16(), answer.text().unwrap())
    };
    // A path that is no text: who asks is known first.
    for path in ["/v1/invites/%ff", "/v1/devices/%ff", "/v1/spaces/%ff", "/v1/spaces/x/members/%ff"] {
        for (method, body) in [("GET", ""), ("DELETE", ""), ("PATCH", "{}"), ("PUT", "{}"), ("POST", "")] {
            let (status, _) = asked(method, path, body, false);
            assert!([401, 405].contains(&status), "{method} {path}: {status}");
            let (signed_in, _) = asked(method, path, body, true);
            assert_eq!(signed_in, if status == 401 { 404 } else { 405 }, "{method} {path}");
        }
    }
    // A number is whole however it is written, and an id has no signs.
    let space: Value =
        serde_json::from_str(&asked("POST", "/v1/spaces", "{\"name\": \"band\"}", true).1).unwrap();
    let space = format!("/v1/spaces/{}", space["id"].as_str().unwrap());
    for (seconds, status) in [
        ("60", 201),
        ("60.0", 201),
        ("6e1", 201),
        ("null", 201),
        ("60.5", 400),
        ("-1", 400),
        ("-1.0", 400),
        ("0.0", 400),
        ("1e300", 400),
        ("\"60\"", 400),
        ("2592001.0", 400),
    ] {
        let body = format!("{{\"role\": \"reader\", \"expires_in\": {seconds}}}");
        let (found, said) = asked("POST", &format!("{space}/invites"), &body, true);
        assert_eq!(found, status, "{seconds}: {said}");
    }
    assert_eq!(asked("DELETE", &format!("/v1/spaces/{}", "+a".repeat(16)), "", true).0, 404);
    // A body without a frame is no greeting.
    assert_eq!(
        asked("POST", "/v1/sync", "", true),
        (400, "the body is empty: it begins with a greeting".into())
    );
    assert_eq!(asked("POST", "/v1/sync", "no frame", true).0, 200);
}

/// The one route that no tool for OpenAPI asks: without any of its headers it is no upgrade.
#[test]
fn the_upgrade_needs_the_headers_that_are_described() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(&dir.path().join("relay"), &["keola"], patient(), |console| console);
    let token = site.device("keola", "phone", 1).token(now());
    let described = &description()["components"]["parameters"];
    let headers: Vec<(String, String)> = ["Connection", "Upgrade", "WebSocketVersion", "WebSocketKey"]
        .map(|name| {
            let value = described[name]["schema"]["const"].as_str().unwrap_or("dGhlIHNhbXBsZSBub25jZQ==");
            (described[name]["name"].as_str().unwrap().to_owned(), value.to_owned())
        })
        .into();
    let status = |method: &str, without: Option<&str>, token: &str| {
        let mut stream = TcpStream::connect(site.relay.address()).unwrap();
        let sent = headers.iter().filter(|(name, _)| Some(name.as_str()) != without);
        let sent: String = sent.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!(
            "{method} /v1/sync HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer {token}\r\n{sent}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8_lossy(&answer["HTTP/1.1 ".len()..]).into_owned()
    };
    assert_eq!(status("GET", None, &token), "101");
    for (name, _) in &headers {
        assert_eq!(status("GET", Some(name), &token), "400", "without {name}");
        assert_eq!(status("GET", Some(name), "motet1.x"), "401", "without {name}");
    }
    assert_eq!(status("HEAD", None, &token), "400");
}

/// A message whose end can be understood in two ways could bring another one past a proxy.
#[test]
fn a_request_has_one_end() {
    let dir = tempfile::tempdir().unwrap();
    let (relay, _) = relay_with_metrics(&dir.path().join("relay"));
    let hidden = "GET /healthz HTTP/1.1\r\nHost: relay\r\n\r\n";
    for (headers, body) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Content-Length: 5\r\nContent-Length: 46\r\n", "12345"),
        ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
    ] {
        let mut stream = TcpStream::connect(relay.address()).unwrap();
        let request = format!("POST /v1/devices HTTP/1.1\r\nHost: relay\r\n{headers}\r\n{body}{hidden}");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // The end may be a reset, as not all was read.
        _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{headers}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{headers}: {answer}");
    }
}

/// Where Schemathesis is, if `cargo xtask test` could install it.
fn schemathesis() -> Option<PathBuf> {
    // target/debug/motet-relay -> target/schemathesis
    let relay = program("motet-relay");
    let found = relay.parent()?.parent()?.join("schemathesis/bin/schemathesis");
    found.is_file().then_some(found)
}

/// Signs in the device of this number.
fn sign_in(site: &Site, number: u64) -> DeviceKey {
    let number = number.to_be_bytes();
    let key = DeviceKey::new(std::array::from_fn(|at| number[at % 8]));
    site.sign_in("keola", "phone", &key, DeviceId(std::array::from_fn(|at| number[at % 8])));
    key
}

/// Gives a token of a device that is signed in to whoever asks: each request may have signed out the one before.
fn tokens(site: Arc<Site>) -> Web {
    let signed_in = Mutex::new((1, sign_in(&site, 1)));
    let devices = format!("{}/v1/devices", site.relay.url());
    Web::start(None, move |_| {
        let mut signed_in = signed_in.lock().unwrap();
        let (number, key) = &*signed_in;
        let answer = Client::new().get(&devices).bearer_auth(key.token(now())).send().unwrap();
        if answer.status() == 401 {
            let next = number + 1;
            *signed_in = (next, sign_in(&site, next));
        }
        Answer::Say("200 OK", Vec::new(), signed_in.1.token(now()))
    })
}

#[test]
fn schemathesis_finds_nothing() {
    let Some(schemathesis) = schemathesis() else {
        return eprintln!("SKIPPED: there is no Schemathesis here; `cargo xtask test` installs it if it can");
    };
    let dir = tempfile::tempdir().unwrap();
    let site = Arc::new(Site::start(&dir.path().join("relay"), &["keola"], patient(), |console| console));
    let tokens = tokens(site.clone());
    let (_relay, metrics) = relay_with_metrics(&dir.path().join("measured"));
    let here = std::env::current_dir().unwrap();
    let seed = std::env::var("MOTET_SEED").unwrap_or_else(|_| "1".into());
    let examples = random::runs(30_u64).to_string();
    // Where there is one operation alone, none leads to another.
    for (url, which, phases) in [
        (site.relay.url(), "--exclude-path", "examples,coverage,fuzzing,stateful"),
        (metrics, "--include-path", "coverage,fuzzing"),
    ] {
        let mut command = Command::new(&schemathesis);
        command.arg("--config-file").arg(here.join("schemathesis/schemathesis.toml"));
        command.arg("run").arg(here.join(FILE)).args(["--url", &url, which, "/metrics", "--phases", phases]);
        command.args(["--checks", "all", "--seed", &seed, "--max-examples", &examples, "--no-color"]);
        command.args(["--generation-database", "none", "--continue-on-failure"]);
        // Nothing is written beside the sources, and nothing goes through a proxy.
        command.current_dir(dir.path()).env("PYTHONDONTWRITEBYTECODE", "1").env("NO_PROXY", "127.0.0.1");
        command.env("SCHEMATHESIS_HOOKS", here.join("schemathesis/hooks.py"));
        command.env("MOTET_TEST_TOKENS", tokens.url());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        println!("{}", said.lines().filter(|line| line.contains("generated")).collect::<String>().trim());
    }
    // They were asked as somebody who may speak.
    assert!(tokens.requests().len() > operations().len());
}
