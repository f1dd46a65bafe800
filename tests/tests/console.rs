//! The console of the relay over a real socket: each page and what can be done there, who may, and what every answer says.

use std::time::{Duration, Instant};

use motet_proto::DeviceId;
use motet_proto::device_key::DeviceKey;
use motet_relay::Config;
use motet_relay::config::{Limits, Terms};
use motet_relay::directory::Directory;
use motet_tests::console::{Answer, Browser, Site};
use motet_tests::{Admin, RelayProcess, TestRelay, wait_until};
use reqwest::blocking::Client;
use serde_json::Value;

const OHANA: &str = "ʻohana Kēhau";

/// Limits that no test reaches which is about something else.
fn patient() -> Terms {
    Terms { limits: Limits { wrong_tokens: 1_000_000, ..Limits::default() }, ..Terms::default() }
}

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

fn id(number: u8) -> String {
    DeviceId([number; 16]).to_string()
}

/// A link that a device asks for, as the part behind `/console/link/`.
fn link_of_device(site: &Site, key: &DeviceKey) -> String {
    let url = format!("{}/v1/console-links", site.relay.url());
    let answer = Client::new().post(url).bearer_auth(key.token(now())).send().unwrap();
    assert_eq!(answer.status(), 201);
    let told: Value = serde_json::from_str(&answer.text().unwrap()).unwrap();
    assert_eq!(told["expires_in"], 600);
    told["path"].as_str().unwrap().strip_prefix("/console/link/").unwrap().to_owned()
}

#[test]
fn the_holder_of_an_account_looks_after_its_devices_and_identities() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(&dir.path().join("relay"), &[OHANA, "leilani"], patient(), |console| console);
    site.device(OHANA, "هاتف 🎵", 1);
    site.device(OHANA, "<script>alert(1)</script>", 2);
    site.device("leilani", "hers", 3);
    site.directory.link_identity("https://id.example.org", "4711", OHANA).unwrap();
    let browser = site.signed_in(Some(OHANA));
    browser.get("").shows(&[
        "2 signed in",
        "16.0 GiB",
        "Live sessions",
        "ʻohana Kēhau",
        "aria-current=\"page\"",
    ]);
    let page = browser.get("devices");
    page.shows(&[
        "<bdi dir=\"auto\">هاتف 🎵</bdi>",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "not connected",
        "scope=\"row\"",
        "<time datetime=\"20",
        "test 1",
    ]);
    assert!(!page.text.contains("hers"));
    browser.get(&format!("devices/{}", id(2))).shows(&["value=\"&lt;script&gt;", "Sign out"]);
    browser.get(&format!("devices/{}", id(3))).refuses(404, "This account has none of that kind.");
    browser.get("devices/nonsense").refuses(404, "This account has none of that kind.");

    let renamed = browser.post(&format!("devices/{}/name", id(2)), &[("name", "Papa hōkeo & co")]);
    assert_eq!(
        (renamed.status, renamed.location()),
        (303, format!("../../devices/{}?done=device-renamed", id(2)))
    );
    let shown = browser.get(&format!("devices/{}?done=device-renamed", id(2)));
    shown.shows(&["Papa hōkeo &amp; co", "The device has its new name."]);
    let refused = browser.post(&format!("devices/{}/name", id(2)), &[("name", " ")]);
    refused.refuses(400, "is no name: it has 1 to 64 characters");
    assert_eq!(browser.post(&format!("devices/{}/sign-out", id(2)), &[]).status, 303);
    let left = browser.get("devices?done=device-signed-out");
    left.shows(&["The device is signed out."]);
    assert!(!left.text.contains("Papa"));
    browser
        .post(&format!("devices/{}/sign-out", id(2)), &[])
        .refuses(404, "This account has none of that kind.");
    browser.get("devices?done=made-up");

    browser.get("identities").shows(&["https://id.example.org", "4711", "never", "Unlink"]);
    let subject = [("issuer", "https://id.example.org"), ("subject", "4711")];
    assert_eq!(
        browser.post("identities/unlink", &subject).location(),
        "../identities?done=identity-unlinked"
    );
    browser.get("identities").shows(&["No identity is linked."]);
    browser.post("identities/unlink", &subject).refuses(404, "This account has none of that kind.");

    let gone = browser.post("sign-out", &[]);
    assert_eq!((gone.status, &*gone.location()), (303, "./"));
    browser.get("").refuses(401, "motet-relay console link");
}

#[test]
fn spaces_are_made_shared_handed_over_and_left() {
    let dir = tempfile::tempdir().unwrap();
    let site =
        Site::start(&dir.path().join("relay"), &["keola", "leilani", "noa"], patient(), |console| console);
    let [keola, leilani, noa] = ["keola", "leilani", "noa"].map(|account| site.signed_in(Some(account)));
    keola.get("spaces").shows(&["You share no space."]);
    let made = keola.post("spaces", &[("name", "ka hui ʻōpio 🌺")]);
    assert_eq!(made.status, 303);
    let space = made.location().split(['?', '/']).nth(1).unwrap().to_owned();
    let at = |page: &str| format!("spaces/{space}{page}");
    keola.get(&at("?done=space-made")).shows(&[
        "The space is made.",
        "<bdi dir=\"auto\">ka hui ʻōpio 🌺</bdi>",
        "owner",
    ]);
    keola.get("spaces").shows(&["ka hui ʻōpio 🌺", &at("")]);
    keola.post("spaces", &[("name", "ka hui ʻōpio 🌺")]).refuses(409, "already");
    keola.post("spaces", &[("name", "")]).refuses(400, "is no name");

    // Codes are shown once, as chosen.
    let invite = |role: &str, seconds: &str, more: &[(&str, &str)]| {
        keola.post(&at("/invite"), &[&[("role", role), ("expires_in", seconds)], more].concat())
    };
    invite("owner", "3600", &[]).refuses(400, "Who is invited reads, or writes as well.");
    invite("king", "3600", &[]).refuses(400, "Role: it is");
    invite("reader", "0", &[]).refuses(400, "good for 1 to 2592000 seconds");
    invite("reader", "99999999", &[]).refuses(400, "good for 1 to 2592000 seconds");
    invite("reader", "soon", &[]).refuses(400, "number of seconds");
    let page = invite("reader", "3600", &[("reusable", "yes")]);
    page.shows(&["any number of accounts", "may join as reader", "motet-join-", "It is shown this once"]);
    let code = page.text.split("motet-join-").nth(1).unwrap().split('<').next().unwrap();
    let code = format!("motet-join-{code}");
    assert!(!keola.get(&at("")).text.contains(&code));
    for joining in [&leilani, &noa] {
        assert_eq!(joining.post("spaces/join", &[("code", &code)]).status, 303);
    }
    noa.post("spaces/join", &[("code", "motet-join-guessed")]).refuses(404, "not valid any more");
    leilani.get(&at("")).shows(&["reader", "Leave this space"]);
    let page = leilani.get(&at(""));
    assert!(!page.text.contains("Delete this space") && !page.text.contains("Remove"));

    // Members, and what only the owner may.
    keola.get(&at("")).shows(&["leilani", "noa", "Let write", "Entries received"]);
    // That is asked for once more, on a page of its own.
    keola
        .post(&at("/members/role"), &[("account", "leilani"), ("role", "owner")])
        .refuses(400, "A member reads");
    let changed = keola.post(&at("/members/role"), &[("account", "leilani"), ("role", "writer")]);
    assert_eq!(changed.location(), format!("../../../spaces/{space}?done=role-changed"));
    leilani
        .post(&at("/members/role"), &[("account", "noa"), ("role", "writer")])
        .refuses(403, "Only the owner");
    leilani.post(&at("/name"), &[("name", "mine")]).refuses(403, "Only the owner of the space may do that.");
    leilani.post(&at("/delete"), &[]).refuses(403, "Only the owner");
    leilani.get(&at("/delete")).refuses(403, "Only the owner");
    keola
        .post(&at("/members/role"), &[("account", "nobody"), ("role", "writer")])
        .refuses(409, "is no member of it");
    assert_eq!(keola.post(&at("/members/remove"), &[("account", "noa")]).status, 303);
    noa.get(&at("")).refuses(404, "There is no such space, or this account is no member of it.");
    assert_eq!(keola.post(&at("/invites/revoke"), &[]).status, 303);
    noa.post("spaces/join", &[("code", &code)]).refuses(404, "not valid any more");
    assert_eq!(keola.post(&at("/name"), &[("name", "Hui hou")]).status, 303);
    keola.get(&at("")).shows(&["Hui hou"]);

    // It changes hands, is left and deleted, each time after a question.
    keola.post(&at("/leave"), &[]).refuses(409, "The owner cannot leave");
    keola.get(&at("/transfer")).shows(&["<option value=\"leilani\"", "Give away"]);
    assert_eq!(keola.post(&at("/transfer"), &[("account", "leilani")]).status, 303);
    keola.get(&at("?done=space-transferred")).shows(&["writer", "The space has its new owner."]);
    keola.get(&at("/leave")).shows(&["Leave <bdi dir=\"auto\">Hui hou</bdi>"]);
    assert_eq!(keola.post(&at("/leave"), &[]).location(), "../../spaces?done=space-left");
    leilani.get(&at("/transfer")).shows(&["There is no other member."]);
    leilani.get(&at("/delete")).shows(&["This cannot be undone.", "Delete <bdi"]);
    assert!(leilani.get("spaces").text.contains("Hui hou"), "a question changes nothing");
    assert_eq!(leilani.post(&at("/delete"), &[]).location(), "../../spaces?done=space-deleted");
    leilani.get("spaces").shows(&["You share no space."]);
    assert!(site.directory.spaces().unwrap().is_empty());
}

#[test]
fn the_operator_sees_accounts_activity_and_refusals() {
    let dir = tempfile::tempdir().unwrap();
    let every = Duration::from_millis(50);
    let site = Site::start(&dir.path().join("relay"), &[OHANA, "a/b?c=d&e"], patient(), |console| {
        console.sampled_every(every)
    });
    let key = site.device(OHANA, "phone", 1);
    site.directory.create_space("ka hui", OHANA).unwrap();
    let replica = motet_tests::device(dir.path(), "secret-name-of-a-file");
    let secrets = motet::secrets::SecretFiles::beside(replica.path());
    let sign_in_key = site.directory.create_key(OHANA, None, false).unwrap();
    replica.sign_in(&motet::Relay::new(&site.relay.url()), &sign_in_key, &secrets, "device").unwrap();
    replica.connect(motet::Relay::new(&site.relay.url()).device_key_in(secrets, "device")).unwrap();
    replica.documents("secret-songs").insert(&serde_json::json!({ "title": "secret words" })).unwrap();
    replica.sync_now().unwrap();

    let browser = site.signed_in(None);
    browser.get("").shows(&[
        "Operator",
        ">ready<",
        "less than a minute",
        env!("CARGO_PKG_VERSION"),
        "Free on the disk",
    ]);
    browser.get("accounts").shows(&[OHANA, "account?name=a%2Fb%3Fc%3Dd%26e", "Shared spaces", "never"]);
    browser.get("account?name=a%2Fb%3Fc%3Dd%26e").shows(&["a/b?c=d&amp;e", "There is none."]);
    browser.get("account?name=%CA%BBohana+K%C4%93hau").shows(&[
        "phone",
        "connected",
        "ka hui",
        "of 16.0 GiB",
    ]);
    browser.get("account?name=%3Cb%3E").refuses(404, "&lt;b&gt;");
    browser.get("accounts?after=%EF%BF%BF").shows(&["There is none.", "From the first"]);
    wait_until("there are samples", Duration::from_secs(10), || {
        browser.get("activity").text.contains("<svg viewBox=\"0 0 400 200\"")
    });
    let page = browser.get("activity?span=24h");
    page.shows(&[
        "Live sessions",
        "entries a second",
        "p99",
        "role=\"img\"",
        "The same numbers",
        "aria-current=\"true\"",
    ]);

    // Wrong secrets are shown by address and reason, and not as themselves.
    site.browser().get("link/motet-console-guessed").refuses(404, "good once");
    let url = format!("{}/v1/spaces", site.relay.url());
    Client::new().get(url).bearer_auth("wrong-secret-token").send().unwrap();
    let page = browser.get("refusals");
    page.shows(&["127.0.0.1", "console-link-invalid", "token-invalid"]);
    for page in ["", "accounts", "account?name=%CA%BBohana+K%C4%93hau", "activity", "refusals"] {
        let text = browser.get(page).text;
        for private in ["guessed", "wrong-secret", "secret-songs", "secret words", &key.public().to_string()]
        {
            assert!(!text.contains(private), "{private} is in {page}");
        }
    }
}

#[test]
fn a_link_is_good_once_for_ten_minutes_and_to_look_at_it_does_not_use_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let site = Site::start(&data, &["keola"], patient(), |console| console);
    let link = site.directory.create_console_link(Some("keola"), None).unwrap();
    let page = format!("link/{link}");
    let browser = site.browser();
    for _ in 0..3 {
        browser.get(&page).shows(&["Sign in as <bdi dir=\"auto\">keola</bdi>", "12 hours"]);
    }
    assert!(browser.cookie.borrow().is_none());
    browser.ask("HEAD", &page, &[]);
    browser.post(&page, &[]);
    let cookie = browser.cookie.borrow().clone().unwrap();
    assert!(cookie.starts_with("motet-console="), "{cookie}");
    browser.get("").shows(&["keola"]);
    for again in [browser.get(&page), site.browser().post(&page, &[]), site.browser().get(&page)] {
        again.refuses(404, "This link is not valid any more, or never was");
    }
    // Of two at the same time one is let in.
    let link = format!("link/{}", site.directory.create_console_link(None, None).unwrap());
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let post = || site.browser().post(&link, &[]).status;
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(post)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 303).count(), 1, "{statuses:?}");
    // Of another time.
    let late = site.directory.create_console_link(None, None).unwrap();
    let conn = rusqlite::Connection::open(data.join("accounts.db")).unwrap();
    conn.execute("UPDATE console_link SET expires_at = expires_at - 600000", []).unwrap();
    site.browser().get(&format!("link/{late}")).refuses(404, "not valid any more");
    site.browser().post(&format!("link/{late}"), &[]).refuses(404, "not valid any more");
    // Nothing that was shown stands in a file.
    let link = site.directory.create_console_link(None, None).unwrap();
    for secret in [&*link, cookie.split('=').nth(1).unwrap()] {
        assert!(!motet_tests::is_in_files(&data, "", secret.as_bytes()));
    }
    // There are not any number of them.
    let first = site.directory.create_console_link(Some("keola"), None).unwrap();
    for _ in 0..motet_relay::limits::CONSOLE_LINKS {
        site.directory.create_console_link(Some("keola"), None).unwrap();
    }
    site.browser().get(&format!("link/{first}")).refuses(404, "not valid any more");
    site.browser().get(&format!("link/{link}")).shows(&["the operator of this relay"]);
}

#[test]
fn a_sign_in_ends_with_the_device_that_made_the_link_and_with_the_account() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(&dir.path().join("relay"), &["keola", "leilani"], patient(), |console| console);
    let [phone, tablet] = [("phone", 1), ("tablet", 2)].map(|(name, n)| site.device("keola", name, n));
    let (by_phone, by_tablet, by_operator) = (site.browser(), site.browser(), site.signed_in(Some("keola")));
    by_phone.sign_in(&link_of_device(&site, &phone));
    by_tablet.sign_in(&link_of_device(&site, &tablet));
    let unused = link_of_device(&site, &tablet);
    // One signs the other out, and itself.
    assert_eq!(by_phone.post(&format!("devices/{}/sign-out", id(2)), &[]).status, 303);
    by_tablet.get("devices").refuses(401, "You are not signed in any more");
    site.browser().get(&format!("link/{unused}")).refuses(404, "not valid any more");
    let url = format!("{}/v1/console-links", site.relay.url());
    let answer = Client::new().post(&url).bearer_auth(tablet.token(now())).send().unwrap();
    assert_eq!(
        (answer.status().as_u16(), Client::new().post(&url).send().unwrap().status().as_u16()),
        (401, 401)
    );
    assert_eq!(by_phone.post(&format!("devices/{}/sign-out", id(1)), &[]).status, 303);
    by_phone.get("").refuses(401, "You are not signed in any more");
    by_operator.get("devices").shows(&["No device is signed in."]);
    // An account of the same name is another one.
    let link = site.directory.create_console_link(Some("keola"), None).unwrap();
    site.directory.remove_account("keola").unwrap();
    site.browser().get(&format!("link/{link}")).refuses(404, "not valid any more");
    std::thread::sleep(Duration::from_millis(2));
    site.directory.add_account("keola").unwrap();
    by_operator.get("").refuses(401, "You are not signed in any more");
    site.signed_in(Some("leilani")).get("").shows(&["leilani"]);
    assert!(site.directory.create_console_link(Some("nobody"), None).is_err());
}

/// Method, page, and the fields of its form.
type Route = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// Requests of the console: method, page, form. `D` and `S` stand for the device and the space of keola.
const ROUTES: [Route; 34] = [
    ("GET", "", &[]),
    ("GET", "devices", &[]),
    ("GET", "devices/D", &[]),
    ("POST", "devices/D/name", &[("name", "changed")]),
    ("POST", "devices/D/sign-out", &[]),
    ("GET", "identities", &[]),
    ("POST", "identities/unlink", &[("issuer", "https://id.example.org"), ("subject", "4711")]),
    ("GET", "spaces", &[]),
    ("POST", "spaces", &[("name", "another")]),
    ("POST", "spaces/join", &[("code", "motet-join-guessed")]),
    ("GET", "spaces/S", &[]),
    ("POST", "spaces/S/name", &[("name", "changed")]),
    ("GET", "spaces/S/delete", &[]),
    ("POST", "spaces/S/delete", &[]),
    ("GET", "spaces/S/leave", &[]),
    ("POST", "spaces/S/leave", &[]),
    ("GET", "spaces/S/transfer", &[]),
    ("POST", "spaces/S/transfer", &[("account", "noa")]),
    ("POST", "spaces/S/invite", &[("role", "reader"), ("expires_in", "3600")]),
    ("POST", "spaces/S/invites/revoke", &[]),
    ("POST", "spaces/S/members/role", &[("account", "noa"), ("role", "writer")]),
    ("POST", "spaces/S/members/remove", &[("account", "noa")]),
    ("GET", "accounts", &[]),
    ("GET", "accounts?after=a", &[]),
    ("GET", "account?name=keola", &[]),
    ("GET", "activity", &[]),
    ("GET", "activity?span=24h", &[]),
    ("GET", "refusals", &[]),
    ("GET", "audit", &[]),
    ("POST", "sign-out", &[]),
    ("GET", "nothing", &[]),
    ("GET", "devices/D/", &[]),
    ("GET", "/", &[]),
    ("GET", "spaces/S/nothing", &[]),
];

/// Every request by everybody who may not make it.
#[test]
fn who_may_see_and_do_what_is_the_same_on_every_page() {
    let dir = tempfile::tempdir().unwrap();
    let site =
        Site::start(&dir.path().join("relay"), &["keola", "leilani", "noa"], patient(), |console| console);
    let brief = Site::start(&dir.path().join("brief"), &["keola"], patient(), |console| {
        console.session_lifetime(Duration::from_millis(1))
    });
    site.device("keola", "phone", 1);
    site.directory.link_identity("https://id.example.org", "4711", "keola").unwrap();
    let space = site.directory.create_space("ka hui", "keola").unwrap().to_string();
    site.directory.put_member(&space, "noa", motet_relay::access::Role::Reader).unwrap();
    let state = || {
        let devices: Vec<_> = site.directory.devices(Some("keola")).unwrap();
        (devices, site.directory.identities().unwrap(), site.directory.spaces().unwrap())
    };
    let before = state();
    let owner = site.signed_in(Some("keola"));
    let (leilani, operator, gone) =
        (site.signed_in(Some("leilani")), site.signed_in(None), site.signed_in(Some("keola")));
    let cookie = gone.cookie.borrow().clone();
    gone.post("sign-out", &[]);
    let link = brief.directory.create_console_link(Some("keola"), None).unwrap();
    let over = brief.browser();
    assert_eq!(over.post(&format!("link/{link}"), &[]).status, 303);
    let (expired, url) = (over.cookie.borrow().clone(), site.relay.url());
    let with = |cookie: &Option<String>, headers: &[(&'static str, &str)]| {
        let browser = Browser::new(&url).saying(headers);
        *browser.cookie.borrow_mut() = cookie.clone();
        *browser.token.borrow_mut() = owner.token.borrow().clone();
        browser
    };
    let own = owner.cookie.borrow().clone();
    for (method, page, fields) in ROUTES {
        let page = page.replace('D', &id(1)).replace('S', &space);
        let (is_post, is_there) = (method == "POST", !page.ends_with('/') && !page.ends_with("nothing"));
        let is_operators =
            ["accounts", "account?", "activity", "refusals"].iter().any(|of| page.starts_with(of));
        let is_both = ["", "sign-out", "audit"].contains(&&*page);
        let ask = |browser: &Browser, token: &str| {
            let fields = [&[("token", token)], fields].concat();
            browser.ask(method, &page, &fields)
        };
        let check = |who: &str, answer: Answer, expected: u16| {
            let expected = if is_there { expected } else { 404 };
            assert_eq!(answer.status, expected, "{who}: {method} {page}: {}", answer.text);
        };
        let token = owner.token.borrow().clone();
        let same = [("origin", &*url)];
        check("nobody", ask(&with(&None, &same), &token), 401);
        check("signed out", ask(&with(&cookie, &same), &token), 401);
        let made_up = Some("motet-console=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned());
        check("made up", ask(&with(&made_up, &same), &token), 401);
        let late = Browser::new(&brief.relay.url());
        *late.cookie.borrow_mut() = expired.clone();
        check("expired", ask(&late, &over.token.borrow()), 401);
        if is_post {
            for (who, headers) in [
                ("foreign origin", &[("origin", "https://evil.example")][..]),
                ("foreign port", &[("origin", "http://127.0.0.1:1")]),
                ("no origin", &[("origin", "null")]),
                ("nothing said", &[]),
                ("cross-site", &[("origin", &url), ("sec-fetch-site", "cross-site")]),
                ("same-site", &[("origin", "null"), ("sec-fetch-site", "same-site")]),
            ] {
                check(who, ask(&with(&own, headers), &token), 403);
            }
            for wrong in ["", "AAAA", &leilani.token.borrow(), &operator.token.borrow()] {
                check("wrong token", ask(&with(&own, &same), wrong), 403);
            }
        }
        if !is_both {
            let token = operator.token.borrow().clone();
            check("operator", ask(&operator, &token), if is_operators { 200 } else { 403 });
        }
        // Another account has pages of its own, and nothing of this one.
        let token = leilani.token.borrow().clone();
        let is_own = ["", "devices", "identities", "spaces", "audit"].contains(&&*page);
        let expected = match (is_operators, is_own, is_post) {
            (true, ..) => 403,
            (_, true, false) => 200,
            (_, true, true) => 303,
            _ => 404,
        };
        if page != "sign-out" {
            let answer = ask(&leilani, &token);
            assert!(!answer.text.contains("keola") && !answer.text.contains("phone"), "{}", answer.text);
            check("another account", answer, expected);
        }
    }
    let mut after = state();
    after.2.retain(|space| space.owner != "leilani");
    assert_eq!(before, after, "nobody has changed anything");
    owner.get("").shows(&["keola"]);
    operator.get("").shows(&["ready"]);
}

#[test]
fn only_get_and_post_are_taken_and_every_answer_has_the_same_headers() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(&dir.path().join("relay"), &["keola"], patient(), |console| console);
    let browser = site.signed_in(Some("keola"));
    // The headers are looked at by the browser of these tests, in each answer.
    let head = browser.ask("HEAD", "devices", &[]);
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "POST"] {
        let answer = browser.ask(method, "devices", &[]);
        assert_eq!((answer.status, answer.headers["allow"].to_str().unwrap()), (405, "GET"), "{method}");
    }
    assert_eq!(browser.ask("GET", "sign-out", &[]).headers["allow"], "POST");
    assert_eq!(browser.ask("PUT", "spaces", &[]).headers["allow"], "GET, POST");
    browser.get("nothing").refuses(404, "There is no such page.");
    let style = site.browser().get("style.css");
    assert_eq!(
        (style.status, &style.headers["content-type"]),
        (200, &"text/css; charset=utf-8".parse().unwrap())
    );
    assert_eq!(site.browser().get("icon.svg").headers["content-type"], "image/svg+xml");
    // Below whatever a proxy has put it.
    let bare = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let bare = Answer::read(bare.get(format!("{}/console", site.relay.url())).send().unwrap());
    assert_eq!((bare.status, &*bare.location()), (308, "console/"));
    let page = browser.get(&format!("spaces/{}", site.directory.create_space("x", "keola").unwrap()));
    let mut parts = page.text.split(['"']);
    let foreign = parts.find(|part| part.starts_with('/') || part.contains("://"));
    assert_eq!(foreign, None, "it is not relative");
    page.shows(&["href=\"../style.css\"", "href=\"../devices\"", "action=\"../sign-out\""]);
    // What is no form, and what is too much of one.
    let send = |kind: &str, body: String| {
        let request = Client::new().post(format!("{}/console/spaces", site.relay.url()));
        let request = request.header("origin", site.relay.url()).header("content-type", kind);
        let request = request.header("cookie", browser.cookie.borrow().clone().unwrap());
        Answer::read(request.body(body).send().unwrap()).status
    };
    assert_eq!(send("application/json", "{}".into()), 415);
    assert_eq!(send("application/x-www-form-urlencoded", format!("name={}", "x".repeat(20_000))), 413);
    assert_eq!(send("application/x-www-form-urlencoded", "%ff%fe=&&&;=%".into()), 403);
}

#[test]
fn a_relay_has_no_console_unless_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start_as(Config::new(dir.path().join("relay")));
    for page in ["console", "console/", "console/style.css"] {
        assert_eq!(reqwest::blocking::get(format!("{}/{page}", relay.url())).unwrap().status(), 404);
    }
    let asked = Client::new().post(format!("{}/v1/console-links", relay.url())).send().unwrap();
    assert_eq!(asked.status(), 404);
}

#[test]
fn cookies_are_bound_to_tls_where_there_is_some() {
    let dir = tempfile::tempdir().unwrap();
    let terms = Terms { proxies: vec!["127.0.0.1".parse().unwrap()], ..patient() };
    let site = Site::start(&dir.path().join("relay"), &["keola"], terms, |console| console);
    let said = |proto: &str| {
        let link = site.directory.create_console_link(Some("keola"), None).unwrap();
        let request = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let request = request.post(format!("{}/console/link/{link}", site.relay.url()));
        let request = request.header("content-type", "application/x-www-form-urlencoded").body("token=");
        let request = request.header("origin", "null").header("sec-fetch-site", "same-origin");
        let answer = Answer::read(request.header("x-forwarded-proto", proto).send().unwrap());
        assert_eq!(answer.status, 303, "{}", answer.text);
        answer.headers["set-cookie"].to_str().unwrap().to_owned()
    };
    let cookie = said("https");
    assert!(cookie.starts_with("__Host-motet-console=") && cookie.ends_with("; Secure"), "{cookie}");
    assert!(cookie.contains("; Path=/; HttpOnly; SameSite=Strict; Max-Age=43200"), "{cookie}");
    let cookie = said("https, http");
    assert!(cookie.starts_with("motet-console=") && !cookie.contains("Secure"), "{cookie}");
}

#[test]
fn guessed_links_are_answered_as_late_as_wrong_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let terms = Terms { limits: Limits { wrong_tokens: 2, ..Limits::default() }, ..Terms::default() };
    let site = Site::start(&dir.path().join("relay"), &["keola"], terms, |console| console);
    let browser = site.browser();
    let took = |page: &str| {
        let begun = Instant::now();
        browser.get(page).refuses(404, "not valid any more");
        begun.elapsed()
    };
    assert!(took("link/a") < Duration::from_secs(1) && took("link/b") < Duration::from_secs(1));
    assert!(took("link/c") >= Duration::from_secs(1));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let guess = || site.browser().get("link/d").status;
        let threads: Vec<_> = (0..40).map(|_| scope.spawn(guess)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(statuses.contains(&429) && statuses.contains(&404), "{statuses:?}");
    // Who has a good one does not wait.
    let begun = Instant::now();
    site.signed_in(Some("keola")).get("").shows(&["keola"]);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn the_program_makes_links_while_the_relay_runs() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin(dir.path().join("relay"));
    assert!(admin.fails(&["console", "link", "--operator"]).contains("account add"));
    admin.ok(&["account", "add", OHANA]);
    let config = dir.path().join("relay.toml");
    std::fs::write(&config, "console = true\n").unwrap();
    let relay = RelayProcess::start(&admin.0, "127.0.0.1:0", &["--config", config.to_str().unwrap()]);
    for (who, shown) in [(&["--operator"][..], "Operator"), (&["--account", OHANA], OHANA)] {
        let link = admin.ok(&[&["console", "link", "--url", &relay.url()], who].concat());
        let secret = link.strip_prefix(&format!("{}/console/link/", relay.url())).unwrap();
        let browser = Browser::new(&relay.url());
        browser.sign_in(secret);
        browser.get("").shows(&[shown]);
    }
    // A device makes one for its account.
    let phone = motet_tests::Cli::init(dir.path(), "phone", &relay.url());
    let refused = String::from_utf8(phone.run(&["console"]).stderr).unwrap();
    assert!(!refused.is_empty());
    phone.ok_with(&["login", "--key-file", "-"], &admin.ok(&["key", "create", "--account", OHANA]));
    let link = phone.ok(&["console"]);
    let browser = Browser::new(&relay.url());
    browser.sign_in(link.trim().strip_prefix(&format!("{}/console/link/", relay.url())).unwrap());
    browser.get("devices").shows(&["phone"]);
    assert_eq!(phone.json(&["console", "--json"])["expires_in"], 600);
    assert!(admin.fails(&["console", "link", "--account", "nobody"]).contains("no account \"nobody\""));
    assert!(admin.fails(&["console", "link"]).contains("--account"));
    drop(relay);
    let relay = RelayProcess::start(&admin.0, "127.0.0.1:0", &["--console"]);
    let browser = Browser::new(&relay.url());
    browser.get("").refuses(401, "You are not signed in.");
    drop(relay);
    let relay = RelayProcess::start(&admin.0, "127.0.0.1:0", &[]);
    assert_eq!(reqwest::blocking::get(format!("{}/console/", relay.url())).unwrap().status(), 404);
    // Links of a backup may have been used since.
    let link = admin.ok(&["console", "link", "--operator"]);
    let copy = dir.path().join("copy");
    admin.ok(&["backup", copy.to_str().unwrap()]);
    drop(relay);
    admin.ok(&["restore", copy.to_str().unwrap(), "--accounts"]);
    let directory = Directory::open(&admin.0).unwrap();
    assert_eq!(directory.console_link(link.rsplit('/').next().unwrap()).unwrap(), None);
}
