//! The console in a real browser, Chromium: it reads in light and dark and on a narrow screen, works with the keyboard alone, and breaks no policy
//! of its own. `MOTET_SCREENSHOTS=FOLDER` keeps what it looks like.
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use motet_relay::config::Terms;
use motet_tests::console::Site;
use motet_tests::wait_until;
use reqwest::blocking::Client;
use serde_json::{Value, json};

const OHANA: &str = "ʻohana Kēhau";

/// Chromium, driven by the WebDriver protocol.
struct Chromium {
    driver: Child,
    client: Client,
    session: String,
}

impl Chromium {
    /// Starts one; `None` if there is none here, which `cargo xtask test` says.
    fn start(profile: &Path) -> Option<Self> {
        let mut driver = Command::new("chromedriver");
        driver.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = driver.spawn().ok()?;
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            Some(line.split("successfully on port ").nth(1)?.trim_end_matches('.').to_owned())
        });
        // What it says further is nobody's.
        std::thread::spawn(move || lines.for_each(drop));
        let client = Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
        let args = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en"];
        let args = args.map(str::to_owned).into_iter();
        let args: Vec<_> = args.chain([format!("--user-data-dir={}", profile.display())]).collect();
        let asked = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": args }, "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let url = format!("http://127.0.0.1:{}/session", port.expect("the driver says its port"));
        let made = client.post(&url).body(asked.to_string()).send().unwrap().text().unwrap();
        let made: Value = serde_json::from_str(&made).unwrap();
        let id = made["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("{made}"));
        Some(Self { driver, client, session: format!("{url}/{id}") })
    }

    fn post(&self, command: &str, body: &Value) -> Value {
        let answer = self.client.post(format!("{}/{command}", self.session)).body(body.to_string()).send();
        let answer: Value = serde_json::from_str(&answer.unwrap().text().unwrap()).unwrap();
        assert!(answer["value"]["error"].is_null(), "{command}: {answer}");
        answer["value"].clone()
    }

    fn open(&self, url: &str) {
        self.post("url", &json!({ "url": url }));
    }

    /// What a piece of script says of the page; the page itself has none.
    fn look(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({ "script": format!("return {script}"), "args": [] }))
    }

    /// How wide its window is, and which scheme of colours its user prefers.
    fn be(&self, width: u32, height: u32, scheme: &str) {
        let command = |cmd: &str, params: Value| {
            self.post("goog/cdp/execute", &json!({ "cmd": cmd, "params": params }));
        };
        command(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 }),
        );
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        command("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    fn press(&self, keys: &str) {
        let keys = keys.chars().flat_map(|key| {
            [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
        });
        let keys: Vec<Value> = keys.collect();
        self.post("actions", &json!({ "actions": [{ "type": "key", "id": "keys", "actions": keys }] }));
    }

    /// Goes on with the Tab key until something with this text has the focus, of which that can be seen.
    fn tab_to(&self, text: &str) {
        for _ in 0..80 {
            self.press("\u{e004}");
            // What can be moved sideways has the focus as well, with all that it holds.
            let focused = self.look(
                "(e => [e.matches('a, button') ? e.innerText : e.name || '', getComputedStyle(e).outlineStyle])(document.activeElement)",
            );
            assert_ne!(focused[1], "none", "the focus is not seen on {focused}");
            if focused[0].as_str().unwrap().contains(text) {
                return;
            }
        }
        panic!("the Tab key does not come to {text:?}");
    }

    fn heading(&self) -> String {
        self.look("document.querySelector('h1').innerText").as_str().unwrap().to_owned()
    }

    fn screenshot(&self, name: &str) {
        let Some(folder) = std::env::var_os("MOTET_SCREENSHOTS") else { return };
        let params = json!({ "captureBeyondViewport": true });
        let shot =
            self.post("goog/cdp/execute", &json!({ "cmd": "Page.captureScreenshot", "params": params }));
        let png = base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        std::fs::write(Path::new(&folder).join(format!("{name}.png")), png).unwrap();
    }

    /// What the browser has complained of.
    fn complaints(&self) -> Vec<Value> {
        let log = self.post("se/log", &json!({ "type": "browser" }));
        log.as_array().cloned().unwrap_or_default()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        _ = self.client.delete(&self.session).send();
        _ = self.driver.kill();
        _ = self.driver.wait();
    }
}

/// A relay with something to show.
fn site(data: &Path) -> Site {
    let every = Duration::from_millis(100);
    let accounts = [OHANA, "leilani", "نورة", "noa 🌺"];
    let site = Site::start(data, &accounts, Terms::default(), |console| console.sampled_every(every));
    for (number, name) in
        ["Kēhau's phone", "هاتف المكتب", "iPad 🎵", "<script>alert(1)</script>"].iter().enumerate()
    {
        site.device(OHANA, name, number as u8 + 1);
    }
    site.directory.link_identity("https://accounts.google.com", "110169484474386276334", OHANA).unwrap();
    let space = site.directory.create_space("ka hui mele o Hāna", OHANA).unwrap().to_string();
    for (account, role) in
        [("leilani", motet_relay::access::Role::Writer), ("نورة", motet_relay::access::Role::Reader)]
    {
        site.directory.put_member(&space, account, role).unwrap();
    }
    site.directory.create_space("جوقة 🎶", OHANA).unwrap();
    site
}

#[test]
fn the_console_reads_in_light_and_dark_and_on_a_narrow_screen() {
    let dir = tempfile::tempdir().unwrap();
    let Some(chromium) = Chromium::start(&dir.path().join("profile")) else {
        eprintln!("SKIPPED: there is no chromedriver here");
        return;
    };
    let site = site(&dir.path().join("relay"));
    // Traffic for the plots.
    let replica = motet_tests::device(dir.path(), "writer");
    let secrets = motet::secrets::SecretFiles::beside(replica.path());
    let key = site.directory.create_key("leilani", None, false).unwrap();
    replica.sign_in(&motet::Relay::new(&site.relay.url()), &key, &secrets, "device").unwrap();
    replica.connect(motet::Relay::new(&site.relay.url()).device_key_in(secrets, "device")).unwrap();
    for n in 0..25 {
        replica.documents("songs").insert(&json!({ "title": format!("mele {n}") })).unwrap();
        replica.sync_now().unwrap();
        std::thread::sleep(Duration::from_millis(40 + 13 * (n % 5)));
    }
    let at = |page: &str| format!("{}/console/{page}", site.relay.url());
    let space =
        site.directory.spaces().unwrap().into_iter().find(|space| space.members.len() == 2).unwrap().id;
    for (who, account, pages) in [
        (
            "account",
            Some(OHANA),
            vec![
                String::new(),
                "devices".into(),
                format!("devices/{}", motet_proto::DeviceId([1; 16])),
                "identities".into(),
                "spaces".into(),
                format!("spaces/{space}"),
                format!("spaces/{space}/delete"),
                "nothing".into(),
            ],
        ),
        (
            "operator",
            None,
            ["", "accounts", "account?name=leilani", "activity", "refusals", "audit"]
                .map(str::to_owned)
                .into(),
        ),
    ] {
        let link = site.directory.create_console_link(account, None).unwrap();
        chromium.be(1100, 800, "light");
        chromium.open(&at(&format!("link/{link}")));
        chromium.screenshot(&format!("{who}-link"));
        chromium.press("\u{e004}\u{e004}\u{e007}");
        wait_until("signed in", Duration::from_secs(10), || chromium.heading() == "Overview");
        for (number, page) in pages.iter().enumerate() {
            for (size, width, scheme) in [
                ("wide", 1100, "light"),
                ("dark", 1100, "dark"),
                ("phone", 360, "light"),
                ("phone-dark", 360, "dark"),
            ] {
                chromium.be(width, 800, scheme);
                chromium.open(&at(page));
                chromium.screenshot(&format!("{who}-{number}-{size}"));
                let needs = chromium.look("document.documentElement.scrollWidth").as_u64().unwrap();
                assert!(needs <= u64::from(width), "{page} needs {needs} pixels of {width}");
                let levels = chromium
                    .look("[...document.querySelectorAll('h1, h2, h3')].map(h => h.tagName).join('')");
                let levels = levels.as_str().unwrap().to_owned();
                assert!(
                    levels.starts_with("H1") && !levels[2..].contains("H1") && !levels.contains("H3"),
                    "{page}: {levels}"
                );
                let unnamed = "[...document.querySelectorAll('input:not([type=hidden]), select')].filter(i => !i.labels.length).length";
                assert_eq!(chromium.look(unnamed), 0, "{page}: a field has no label");
                let marks = "['header', 'nav', 'main', 'footer'].every(mark => document.querySelector(mark))";
                assert_eq!(chromium.look(marks), true, "{page}");
            }
        }
    }
    // A page that is not there is one of these tests, and refusals of the policy would be complaints.
    let complaints = chromium.complaints();
    let is_expected =
        |complaint: &&Value| complaint["message"].as_str().unwrap().contains("/console/nothing");
    let others: Vec<_> = complaints.iter().filter(|complaint| !is_expected(complaint)).collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(chromium.look("document.cookie"), "", "no script sees the cookie");
}

#[test]
fn everything_can_be_done_with_the_keyboard_alone() {
    let dir = tempfile::tempdir().unwrap();
    let Some(chromium) = Chromium::start(&dir.path().join("profile")) else {
        eprintln!("SKIPPED: there is no chromedriver here");
        return;
    };
    let site = site(&dir.path().join("relay"));
    chromium.be(1100, 800, "light");
    let link = site.directory.create_console_link(Some(OHANA), None).unwrap();
    chromium.open(&format!("{}/console/link/{link}", site.relay.url()));
    let enter = |text: &str, heading: &str| {
        chromium.tab_to(text);
        chromium.press("\u{e007}");
        wait_until(heading, Duration::from_secs(10), || chromium.heading() == heading);
    };
    let says = |text: &str| {
        wait_until(text, Duration::from_secs(10), || {
            chromium.look("document.body.innerText").as_str().unwrap().contains(text)
        });
    };
    enter("Sign in as", "Overview");
    // The first thing that the Tab key comes to leads past the navigation.
    chromium.press("\u{e004}");
    assert_eq!(chromium.look("document.activeElement.className"), "skip");
    enter("Devices", "Devices");
    enter("Kēhau's phone", "Kēhau's phone");
    chromium.tab_to("name");
    chromium.press("\u{e010} mele");
    chromium.press("\u{e007}");
    says("The device has its new name.");
    says("Kēhau's phone mele");
    enter("Sign Kēhau's phone mele out", "Devices");
    says("The device is signed out.");
    enter("Spaces", "Spaces");
    chromium.tab_to("name");
    chromium.press("hui hou");
    chromium.press("\u{e007}");
    says("The space is made.");
    enter("Make a code", "Invitation");
    says("motet-join-");
    enter("Back to the space", "hui hou");
    enter("Delete this space", "Delete a space");
    enter("Delete hui hou", "Spaces");
    says("The space is shared with nobody any more.");
    enter("Sign out", "Not signed in");
    let names: Vec<_> = site.directory.spaces().unwrap().into_iter().map(|space| space.name).collect();
    assert!(!names.contains(&"hui hou".to_owned()) && names.len() == 2);
    assert_eq!(
        site.directory.devices(Some(OHANA)).unwrap().iter().filter(|d| d.revoked_at.is_none()).count(),
        3
    );
}
