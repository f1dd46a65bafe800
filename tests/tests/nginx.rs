//! A real nginx in front of a relay, with the configuration that `deploy/nginx.conf` proposes.
#![cfg(target_os = "linux")]

use std::net::{IpAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use motet::{Relay, Transport};
use motet_tests::{contents, device, program, wait_until};
use serde_json::json;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Starts nginx on a free port of this machine, as one process; `None` if there is none, which `cargo xtask test` says.
fn nginx(dir: &Path, relay: &str) -> Option<(Running, u16)> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let proposed = std::fs::read_to_string("../deploy/nginx.conf").unwrap();
    // Only where it listens, where the relay is, and the certificate are others.
    let mut site = String::new();
    let (mut listens, mut servers) = (0, 0);
    for line in proposed.lines() {
        match line.trim() {
            "listen 443 ssl;" => {
                listens += 1;
                site.push_str(&format!("listen 127.0.0.1:{port};"));
            }
            "server 127.0.0.1:8787;" => {
                servers += 1;
                site.push_str(&format!("server {relay};"));
            }
            "listen [::]:443 ssl;" => {}
            line if line.starts_with("ssl_certificate") => {}
            line => site.push_str(line),
        }
        site.push('\n');
    }
    assert_eq!((listens, servers), (1, 1));
    let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {0}/{name};\n", dir.display()))
        .concat();
    let config = dir.join("nginx.conf");
    let text = format!(
        "daemon off;\nmaster_process off;\npid {0}/nginx.pid;\nerror_log {0}/nginx.log;\nevents {{}}\nhttp {{\n{folders}access_log off;\n{site}}}\n",
        dir.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-e").arg(dir.join("nginx.log")).arg("-p").arg(dir).arg("-c").arg(&config);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().ok()?;
    wait_until("nginx listens", Duration::from_secs(10), || {
        let ended = child.try_wait().unwrap();
        let log = || std::fs::read_to_string(dir.join("nginx.log")).unwrap_or_default();
        assert!(ended.is_none(), "nginx has ended: {}", log());
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    Some((Running(child), port))
}

#[test]
fn devices_sync_through_nginx_below_a_path_and_their_addresses_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let tokens = file("tokens", "good -> kealoha\n");
    let config = file("relay.toml", "proxies = ['127.0.0.1']\n[limits]\nwrong_tokens = 2\n");
    let log = dir.path().join("relay.log");
    let mut relay = Command::new(program("motet-relay"));
    relay.args(["--listen", "127.0.0.1:0", "--log", "json", "--data"]).arg(dir.path().join("relay"));
    relay.arg("--tokens").arg(&tokens).arg("--config").arg(&config).env_remove("RUST_LOG");
    let stderr = std::fs::File::create(&log).unwrap();
    let mut relay = Running(relay.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap());
    let url = motet_tests::RelayProcess::url_of(&mut relay.0);
    let Some((_nginx, port)) = nginx(dir.path(), &url["http://".len()..]) else {
        eprintln!("SKIPPED: there is no nginx here");
        return;
    };
    let url = format!("http://127.0.0.1:{port}/motet");

    let devices = [("a", Transport::WebSocket), ("b", Transport::Post)].map(|(name, transport)| {
        let replica = device(dir.path(), name);
        replica.connect(Relay::new(&url).token("good").transport(transport)).unwrap();
        replica
    });
    let [a, b] = &devices;
    a.documents("pieces").insert(&json!({ "id": "1", "lyrics": "E hoʻi mai" })).unwrap();
    a.sync_now().unwrap();
    // Larger than nginx lets through if it is told nothing.
    b.documents("pieces").insert(&json!({ "id": "2", "scan": noise(1_800_000) })).unwrap();
    b.sync_now().unwrap();
    a.sync_now().unwrap();
    assert_eq!(contents(a).len(), 2);
    assert_eq!(contents(a), contents(b));
    // A session that stays hears of it at once.
    b.documents("pieces").insert(&json!({ "id": "3", "lyrics": "Aloha" })).unwrap();
    b.sync_now().unwrap();
    wait_until("told over the WebSocket", Duration::from_secs(5), || contents(a).len() == 3);

    // Wrong tokens count for the address that nginx names, whatever the device says of itself.
    let ask = |from: &str| {
        let from: IpAddr = from.parse().unwrap();
        let client = reqwest::blocking::Client::builder().local_address(from).build().unwrap();
        let request = client.get(format!("{url}/v1/spaces")).bearer_auth("wrong");
        request.header("x-forwarded-for", "127.0.0.9").send().unwrap()
    };
    for _ in 0..3 {
        assert_eq!(ask("127.0.0.2").status(), 401);
    }
    let answer = ask("127.0.0.3");
    assert_eq!(answer.status(), 401);
    let log = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |message: &str, address: &str| {
        let is_so = |line: &&serde_json::Value| line["message"] == message && line["address"] == address;
        lines.iter().filter(is_so).count()
    };
    assert_eq!(told("a sign-in was refused", "127.0.0.2"), 2, "{log}");
    assert_eq!(told("an address comes with wrong tokens again and again", "127.0.0.2"), 1, "{log}");
    assert_eq!(told("a sign-in was refused", "127.0.0.3"), 1, "{log}");
    assert!(!log.contains("127.0.0.9"), "{log}");
    // The id of the request is the one that nginx has given it.
    let id = answer.headers()["x-request-id"].to_str().unwrap();
    assert_eq!(id.len(), 32);
    assert!(lines.iter().any(|line| line["span"]["request"] == id), "{id} is not in\n{log}");
}

/// Text that does not get smaller.
fn noise(bytes: usize) -> String {
    let mut random = motet_tests::random::Random(7);
    (0..bytes).map(|_| char::from(b'!' + random.below(90) as u8)).collect()
}
