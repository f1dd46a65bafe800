//! Whatever answers in the place of a relay: the reason is told at once, and in the words of what it is.

use std::time::{Duration, Instant};

use motet::{Relay, SyncError, SyncState, Transport};
use motet_tests::web::{Answer, Web};
use motet_tests::{Cli, TestRelay, contents, device, sync, wait_until};
use serde_json::json;

/// A round with a server that answers everything alike: what the caller is told, and how long it took.
fn told(transport: Transport, answer: impl Fn() -> Answer + Send + Sync + 'static) -> (SyncError, SyncState) {
    let dir = tempfile::tempdir().unwrap();
    let web = Web::start(None, move |_| answer());
    let a = device(dir.path(), "a");
    a.documents("pieces").insert(&json!({ "lyrics": "kept" })).unwrap();
    a.connect(Relay::new(&web.url()).transport(transport)).unwrap();
    let begun = Instant::now();
    let error = a.sync_now().unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}: {error}", begun.elapsed());
    a.disconnect();
    let status = a.status();
    let last = status.last_error.unwrap();
    assert_eq!((last.code.as_str(), last.message), (error.code(), error.to_string()), "one reason for all");
    assert_eq!(status.pending, 1);
    let message = error.to_string();
    assert!(!message.contains('<') && message.len() < 400, "{message}");
    (error, status.state)
}

#[test]
fn what_is_no_relay_says_so_at_once_and_a_portal_is_offline() {
    let elsewhere = "http://portal.example.net/login?from=x";
    for transport in [Transport::Auto, Transport::Post, Transport::WebSocket] {
        for (status, words) in
            [("404 Not Found", "404"), ("405 Method Not Allowed", "405"), ("410 Gone", "410")]
        {
            let (error, state) = told(transport, move || Answer::page(status));
            assert!(matches!(error, SyncError::NoRelay { .. }) && !error.is_retryable(), "{status}: {error}");
            assert!(error.to_string().contains(words), "{error}");
            assert!(error.to_string().contains("/v1/sync"), "{error}");
            assert_eq!(state, SyncState::Error);
        }
        for status in [
            "200 OK",
            "401 Unauthorized",
            "403 Forbidden",
            "407 Proxy Authentication Required",
            "429 Too Many Requests",
            "500 Internal Server Error",
            "502 Bad Gateway",
            "503 Service Unavailable",
            "504 Gateway Timeout",
            "511 Network Authentication Required",
        ] {
            let (error, state) = told(transport, move || Answer::page(status));
            assert!(matches!(error, SyncError::Offline { .. }) && error.is_retryable(), "{status}: {error}");
            assert!(error.to_string().contains(&status[..3]), "{status}: {error}");
            assert_eq!(state, SyncState::Offline);
        }
        for status in ["302 Found", "303 See Other", "307 Temporary Redirect"] {
            let (error, state) = told(transport, move || Answer::redirect(status, elsewhere));
            assert!(matches!(error, SyncError::Offline { .. }), "{status}: {error}");
            assert!(error.to_string().contains("portal.example.net/login"), "{error}");
            assert_eq!(state, SyncState::Offline);
        }
        for status in ["301 Moved Permanently", "308 Permanent Redirect"] {
            let (error, _) =
                told(transport, move || Answer::redirect(status, "https://sync.example.net/v1/sync"));
            assert!(matches!(error, SyncError::NoRelay { .. }), "{status}: {error}");
            assert!(error.to_string().contains("https://sync.example.net/v1/sync"), "{error}");
        }
    }
}

#[test]
fn a_wrong_path_of_a_relay_and_a_token_that_it_refuses_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, "good -> keola\n").unwrap();
    let auth = motet_relay::auth::Auth::from_file(&tokens).unwrap();
    let relay = TestRelay::start_with(&dir.path().join("relay"), auth, 0);
    for transport in [Transport::Auto, Transport::Post] {
        let a = device(dir.path(), "a");
        a.connect(Relay::new(&format!("{}/wrong", relay.url())).token("good").transport(transport)).unwrap();
        let error = a.sync_now().unwrap_err();
        assert!(
            matches!(error, SyncError::NoRelay { .. }) && error.to_string().contains("/wrong/v1/sync"),
            "{error}"
        );
        a.connect(Relay::new(&relay.url()).token("bad").transport(transport)).unwrap();
        let error = a.sync_now().unwrap_err();
        assert!(matches!(error, SyncError::AuthNeeded { .. }), "{error}");
        assert_eq!(a.status().state, SyncState::AuthNeeded);
    }
}

#[test]
fn exit_code_state_and_message_of_the_command_agree() {
    let dir = tempfile::tempdir().unwrap();
    for (status, code, state) in
        [("404 Not Found", 1, "error"), ("511 Login", 3, "offline"), ("401 No", 3, "offline")]
    {
        let web = Web::start(None, move |_| Answer::page(status));
        let cli = Cli::init(dir.path(), "a", &web.url());
        let failed = cli.run(&["sync"]);
        let message = String::from_utf8(failed.stderr).unwrap();
        assert_eq!(failed.status.code(), Some(code), "{message}");
        assert!(message.contains(&status[..3]), "{message}");
        let shown = cli.json(&["status", "--json"]);
        assert_eq!(shown["state"], state, "{shown}");
        assert!(message.contains(shown["last_error"]["message"].as_str().unwrap()), "{shown}");
    }
}

#[test]
fn a_time_limit_tells_what_went_wrong_last() {
    let dir = tempfile::tempdir().unwrap();
    let web = Web::start(None, |_| Answer::Silence);
    let a = device(dir.path(), "a");
    a.connect(Relay::new(&web.url())).unwrap();
    let error = a.sync_now().unwrap_err();
    assert!(matches!(error, SyncError::Offline { .. }), "{error}");
    assert_eq!(a.status().last_error.unwrap().message, error.to_string());
}

/// A proxy that was restarted answers 502 for a while: the connection that comes after it is a WebSocket again.
#[test]
fn an_upgrade_that_failed_once_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let refused = std::sync::atomic::AtomicUsize::new(0);
    let web = Web::start(Some(relay.address()), move |request| {
        let first = request.is_upgrade() && refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        if first { Answer::page("400 Bad Request") } else { Answer::Pass }
    });
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    a.connect(Relay::new(&web.url())).unwrap();
    a.sync_now().unwrap();
    assert!(web.requests().iter().any(|request| request.method == "POST"), "it goes on over POST meanwhile");
    wait_until("upgraded", Duration::from_secs(30), || {
        web.requests().iter().filter(|request| request.is_upgrade()).count() > 1
    });
    std::thread::sleep(Duration::from_millis(500));
    b.documents("pieces").insert(&json!({ "id": "live", "lyrics": "x" })).unwrap();
    let begun = Instant::now();
    sync(&b, &relay.url());
    wait_until("told live", Duration::from_secs(3), || contents(&a).len() == 1);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[test]
fn an_address_is_taken_as_people_type_it_and_refused_by_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    for url in [
        format!("  Http://{}\n", relay.address()),
        format!("HTTP://{}/ ", relay.address()),
        format!("\u{a0}Ws://{}", relay.address()),
    ] {
        let a = device(dir.path(), "a");
        sync(&a, &url);
    }
    let a = device(dir.path(), "b");
    for (url, words) in [
        ("http:///x", "host"),
        ("https:////x/y", "host"),
        ("http://relay.example.org/?space=1", "?"),
        ("http://relay.example.org/#here", "#"),
        ("http://relay example.org", "host"),
        ("", "http://"),
    ] {
        let error = a.connect(Relay::new(url)).unwrap_err();
        assert!(
            matches!(&error, SyncError::BadUrl { .. }) && error.to_string().contains(words),
            "{url}: {error}"
        );
    }
    // TLS against a port that speaks none.
    let address = relay.address();
    a.connect(Relay::new(&format!("https://{address}"))).unwrap();
    let error = a.sync_now().unwrap_err().to_string();
    assert!(error.contains("TLS") && error.contains(&address.to_string()), "{error}");
}

/// Who answers that it is to be left alone for a time is left alone, by whatever name it gives the time; somebody who asks for a round is heard.
#[test]
fn a_device_comes_back_when_it_has_been_asked_to() {
    let dates = ["date: Fri, 27 Nov 2026 10:00:00 GMT", "retry-after: Fri, 27 Nov 2026 10:00:04 GMT"];
    for headers in [vec!["retry-after: 4"], dates.to_vec()] {
        let dir = tempfile::tempdir().unwrap();
        let headers: Vec<String> = headers.into_iter().map(str::to_owned).collect();
        let web = Web::start(None, move |_| Answer::Say("503 Busy", headers.clone(), "later".into()));
        let a = device(dir.path(), "a");
        a.connect(Relay::new(&web.url())).unwrap();
        wait_until("it comes back", Duration::from_secs(20), || web.requests().len() >= 2);
        let times: Vec<Duration> = web.requests().iter().map(|request| request.at).collect();
        assert!(times[1] - times[0] >= Duration::from_secs(4), "{times:?}");
        // A call that comes while the second request is under way gets the answer of that one; the next call asks again.
        wait_until("somebody who asks is heard", Duration::from_secs(20), || {
            let told = a.sync_now().unwrap_err();
            assert!(
                matches!(told, SyncError::Offline { retry_after: Some(time), .. } if time.as_secs() == 4),
                "{told}"
            );
            web.requests().len() >= 3
        });
        let times: Vec<Duration> = web.requests().iter().map(|request| request.at).collect();
        assert!(times[2] - times[1] < Duration::from_secs(4), "{times:?}");
    }
}
