//! A relay with the console, and a browser as far as forms and cookies go.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use motet_proto::DeviceId;
use motet_proto::device_key::DeviceKey;
use motet_relay::Config;
use motet_relay::config::Terms;
use motet_relay::console::Console;
use motet_relay::directory::{Directory, Members};
use reqwest::blocking::{Client, Response};
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use serde_json::json;
use tokio::sync::watch;

use crate::TestRelay;

/// What every answer of the console says.
pub const HEADERS: [(&str, &str); 4] = [
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("referrer-policy", "same-origin"),
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-store"),
];

/// A relay in this process with the console over the accounts of its folder.
pub struct Site {
    /// The relay.
    pub relay: TestRelay,
    /// Its accounts.
    pub directory: Arc<Directory>,
}

/// One browser: it keeps its cookie, and sends the token of the last form that it has seen.
pub struct Browser {
    client: Client,
    url: String,
    /// What it sends along.
    pub cookie: RefCell<Option<String>>,
    /// What it says of itself, beside the cookie.
    pub headers: Vec<(&'static str, String)>,
    /// Of the last form.
    pub token: RefCell<String>,
}

/// An answer of the console.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The page.
    pub text: String,
}

impl Site {
    /// Starts one with these accounts.
    pub fn start(data: &Path, accounts: &[&str], terms: Terms, set: impl FnOnce(Console) -> Console) -> Self {
        let directory = Arc::new(Directory::open(data).unwrap());
        accounts.iter().for_each(|account| directory.add_account(account).unwrap());
        let members = Arc::new(Members::new(directory.clone(), None));
        let console = set(Console::new(watch::channel(Some(directory.clone())).1));
        let relay = TestRelay::start_as(Config {
            auth: members.clone(),
            access: members,
            terms,
            console: Some(console),
            ..Config::new(data)
        });
        Self { relay, directory }
    }

    /// A browser that nobody has signed in.
    pub fn browser(&self) -> Browser {
        Browser::new(&self.relay.url())
    }

    /// A browser in which an account, or the operator, is signed in.
    pub fn signed_in(&self, account: Option<&str>) -> Browser {
        let browser = self.browser();
        browser.sign_in(&self.directory.create_console_link(account, None).unwrap());
        browser
    }

    /// Signs a device in to an account, and returns its key.
    pub fn device(&self, account: &str, name: &str, number: u8) -> DeviceKey {
        let key = DeviceKey::new([number; 32]);
        self.sign_in(account, name, &key, DeviceId([number; 16]));
        key
    }

    /// Signs in the device that has this key.
    pub fn sign_in(&self, account: &str, name: &str, key: &DeviceKey, device: DeviceId) {
        let sign_in_key = self.directory.create_key(account, None, false).unwrap();
        let body = json!({
            "credential": sign_in_key, "device": device.to_string(), "key": key.public().to_string(),
            "signature": key.registration(device, &sign_in_key), "name": name, "platform": "linux", "version": "test 1",
        });
        let url = format!("{}/v1/devices", self.relay.url());
        assert_eq!(Client::new().post(url).body(body.to_string()).send().unwrap().status(), 200);
    }
}

impl Browser {
    /// One that looks at the relay at this address.
    pub fn new(url: &str) -> Self {
        let client = Client::builder().redirect(Policy::none()).build().unwrap();
        let origin = vec![("origin", url.to_owned())];
        Self {
            client,
            url: url.to_owned(),
            cookie: RefCell::default(),
            headers: origin,
            token: RefCell::default(),
        }
    }

    /// Opens a page.
    pub fn get(&self, page: &str) -> Answer {
        self.ask("GET", page, &[])
    }

    /// Sends a form, with the token that it has.
    pub fn post(&self, page: &str, fields: &[(&str, &str)]) -> Answer {
        let token = self.token.borrow().clone();
        self.ask("POST", page, &[&[("token", &*token)], fields].concat())
    }

    /// Uses a link.
    pub fn sign_in(&self, link: &str) {
        let page = self.get(&format!("link/{link}"));
        assert_eq!(page.status, 200, "{}", page.text);
        let answer = self.post(&format!("link/{link}"), &[]);
        assert_eq!((answer.status, &*answer.location()), (303, "../"), "{}", answer.text);
        // The token of its forms.
        self.get("");
    }

    /// The same address as somebody else says it.
    pub fn saying(mut self, headers: &[(&'static str, &str)]) -> Self {
        self.headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self
    }

    /// Sends any request.
    pub fn ask(&self, method: &str, page: &str, fields: &[(&str, &str)]) -> Answer {
        let url = format!("{}/console/{page}", self.url);
        let mut request = self.client.request(method.parse().unwrap(), url);
        if method == "POST" {
            let encoded = fields.iter().map(|(name, value)| format!("{name}={}", percent(value)));
            let body = encoded.collect::<Vec<_>>().join("&");
            request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
            request =
                self.headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        }
        if let Some(cookie) = &*self.cookie.borrow() {
            request = request.header("cookie", format!("theme=dark; {cookie}"));
        }
        let answer = Answer::read(request.send().unwrap());
        for cookie in answer.headers.get_all("set-cookie") {
            let (pair, rest) = cookie.to_str().unwrap().split_once(';').unwrap();
            assert!(rest.contains("; HttpOnly") && rest.contains("; SameSite=Strict"), "{rest}");
            *self.cookie.borrow_mut() = (!rest.contains("Max-Age=0")).then(|| pair.to_owned());
        }
        if let Some(token) = answer.text.split("name=\"token\" value=\"").nth(1) {
            *self.token.borrow_mut() = token.split('"').next().unwrap().to_owned();
        }
        answer
    }
}

impl Answer {
    /// Reads one, and looks at what holds of all of them.
    pub fn read(answer: Response) -> Self {
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().unwrap();
        for (name, value) in HEADERS {
            assert_eq!(headers.get(name).unwrap_or_else(|| panic!("{name}: {text}")), value);
        }
        for word in ["<script", " style=", " onclick", "javascript:", "http://www.w3.org/1999/xhtml"] {
            assert!(!text.contains(word), "{word}: {text}");
        }
        Self { status, headers, text }
    }

    /// Where it leads.
    pub fn location(&self) -> String {
        self.headers.get("location").map_or("", |to| to.to_str().unwrap()).to_owned()
    }

    /// That a page is shown, in which this stands.
    #[track_caller]
    pub fn shows(&self, words: &[&str]) -> &Self {
        assert_eq!(self.status, 200, "{}", self.text);
        for word in words {
            assert!(self.text.contains(word), "{word} is not in\n{}", self.text);
        }
        self
    }

    /// That it was refused, with this reason.
    #[track_caller]
    pub fn refuses(&self, status: u16, reason: &str) -> &Self {
        assert_eq!(self.status, status, "{}", self.text);
        assert!(self.text.contains(reason), "{reason} is not in\n{}", self.text);
        self
    }
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
