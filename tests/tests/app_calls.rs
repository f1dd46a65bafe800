//! What the app has the sync task call: it may hang, block, panic or give nonsense, and syncing goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use motet::{Relay, Replica, SyncError, SyncState};
use motet_tests::{Cli, TestRelay, contents, device, wait_until};
use serde_json::json;

fn relay(dir: &std::path::Path) -> TestRelay {
    TestRelay::start_for(&dir.join("relay"), "good -> keola\nt0ken-of-keola -> keola\n")
}

/// A provider that does `first` the first time and gives the token from then on.
fn provider<F>(url: &str, first: impl Fn() -> F + Send + Sync + 'static) -> Relay
where
    F: Future<Output = Result<String, String>> + Send + 'static,
{
    let calls = AtomicUsize::new(0);
    Relay::new(url).token_provider(move |_| {
        let first = (calls.fetch_add(1, Ordering::Relaxed) == 0).then(&first);
        async move {
            match first {
                Some(first) => first.await,
                None => Ok("good".into()),
            }
        }
    })
}

/// What a provider does the first time, a relay with it, and what the status says then.
type Case = (&'static str, fn(&str) -> Relay, &'static str, SyncState);

/// A first call that fails: the reason is told within the limit, and the next one is made without anybody asking for it.
fn fails_once_and_is_asked_again(name: &str, relay: impl Fn(&str) -> Relay, words: &str, state: SyncState) {
    let dir = tempfile::tempdir().unwrap();
    let server = self::relay(dir.path());
    let a = device(dir.path(), "a");
    a.documents("pieces").insert(&json!({ "lyrics": "x" })).unwrap();
    let begun = Instant::now();
    a.connect(relay(&server.url())).unwrap();
    wait_until(name, Duration::from_secs(15), || a.status().state == state);
    let error = a.status().last_error.unwrap();
    assert!(error.message.contains(words), "{name}: {}", error.message);
    // What was wrong is over a moment after all is sent.
    let is_over = |status: motet::Status| status.state == SyncState::Synced && status.last_error.is_none();
    wait_until(name, Duration::from_secs(20), || is_over(a.status()));
    assert!(begun.elapsed() < Duration::from_secs(30), "{name}");
    assert_eq!((a.status().pending, a.status().last_error), (0, None), "{name}");
}

#[test]
fn a_provider_of_tokens_that_hangs_blocks_or_panics_once_is_asked_again() {
    let cases: [Case; 6] = [
        ("hangs", |url| provider(url, std::future::pending), "did not answer", SyncState::Offline),
        (
            "blocks for good",
            |url| {
                provider(url, || async {
                    std::thread::sleep(Duration::from_secs(600));
                    Ok(String::new())
                })
            },
            "did not answer",
            SyncState::Offline,
        ),
        (
            "panics when it is polled",
            |url| provider(url, || async { panic!("the keychain is gone") }),
            "the keychain is gone",
            SyncState::AuthNeeded,
        ),
        (
            "panics when it is called",
            |url| {
                let called = AtomicBool::new(false);
                Relay::new(url).token_provider(move |_| {
                    assert!(called.swap(true, Ordering::Relaxed), "no keychain yet");
                    async { Ok("good".into()) }
                })
            },
            "no keychain yet",
            SyncState::AuthNeeded,
        ),
        (
            "gives nonsense",
            |url| provider(url, || async { Ok("go od\n".into()) }),
            "visible ASCII",
            SyncState::AuthNeeded,
        ),
        ("gives nothing", |url| provider(url, || async { Ok(" \n".into()) }), "empty", SyncState::AuthNeeded),
    ];
    std::thread::scope(|scope| {
        for (name, relay, words, state) in cases {
            scope.spawn(move || fails_once_and_is_asked_again(name, relay, words, state));
        }
    });
}

#[test]
fn a_token_is_trimmed_and_one_that_cannot_be_sent_is_refused_where_it_enters() {
    let dir = tempfile::tempdir().unwrap();
    let relay = relay(dir.path());
    let a = device(dir.path(), "a");
    for token in ["good\n", " good\r\n", "good"] {
        a.connect(Relay::new(&relay.url()).token(token)).unwrap();
        a.sync_now().unwrap();
        a.connect(provider(&relay.url(), move || async move { Ok(token.into()) })).unwrap();
        a.sync_now().unwrap();
    }
    a.disconnect();
    for token in ["", "\n", "two words", "geheim-ö", "a\nb", "a\u{200b}b", "a\0b"] {
        let relay = Relay::new(&relay.url()).token(token);
        assert!(matches!(relay.check(), Err(SyncError::BadToken { .. })), "{token:?}");
        let error = a.connect(relay).unwrap_err();
        assert!(matches!(error, SyncError::BadToken { .. }) && !error.is_retryable(), "{token:?}: {error}");
        assert!(token.trim().is_empty() || !error.to_string().contains(token), "no token in {error}");
    }
    let cli = Cli::new(dir.path(), "c");
    let refused = cli.run(&["init", "--device", "c", "--relay", &relay.url(), "--token", "two words"]);
    assert_eq!(refused.status.code(), Some(2));
    cli.ok(&["init", "--device", "c", "--relay", &relay.url(), "--token", "good\n"]);
    cli.ok(&["sync"]);
}

/// The clock is the app's, and each transaction asks it.
#[test]
fn a_clock_that_panics_takes_one_write_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let is_broken = broken.clone();
    let clock = move || {
        assert!(!is_broken.load(Ordering::Relaxed), "the clock has stopped");
        1_700_000_000_000
    };
    let a = Replica::builder(dir.path().join("a.db")).clock(clock).open().unwrap();
    let beside = device(dir.path(), "a");
    a.documents("pieces").upsert("1", &json!({ "n": 1 })).unwrap();
    broken.store(true, Ordering::Relaxed);
    let put = AssertUnwindSafe(|| a.documents("pieces").upsert("1", &json!({ "n": 2 })).is_err());
    assert!(catch_unwind(put).unwrap_or(true));
    // Others are not kept out, and it goes on itself when its clock does.
    beside.documents("pieces").upsert("2", &json!({ "n": 3 })).unwrap();
    broken.store(false, Ordering::Relaxed);
    a.documents("pieces").upsert("1", &json!({ "m": 4 })).unwrap();
    assert_eq!(contents(&a), contents(&beside));
    assert_eq!(a.documents("pieces").get("1").unwrap().unwrap().value, json!({ "id": "1", "n": 1, "m": 4 }));
    assert_eq!(a.verify().unwrap().problems, []);
}

/// The sync task asks it as well.
#[test]
fn a_sync_task_that_dies_is_told_of_and_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let broken = Arc::new(AtomicBool::new(false));
    let is_broken = broken.clone();
    let clock = move || {
        let is_sync = std::thread::current().name() == Some("motet-sync");
        assert!(!(is_sync && is_broken.swap(false, Ordering::Relaxed)), "the clock has stopped");
        1_700_000_000_000
    };
    let a = Replica::builder(dir.path().join("a.db")).device_name("a").clock(clock).open().unwrap();
    a.connect(Relay::new(&relay.url())).unwrap();
    a.sync_now().unwrap();
    a.documents("pieces").insert(&json!({ "lyrics": "x" })).unwrap();
    // Else it may die over that, and whoever asks after it has begun anew is told nothing.
    wait_until("sent", Duration::from_secs(10), || a.status().state == SyncState::Synced);
    broken.store(true, Ordering::Relaxed);
    // Whoever waits is told, whatever the round had come to.
    let error = a.sync_now().unwrap_err();
    assert!(
        matches!(&error, SyncError::Internal { reason } if reason.contains("the clock has stopped")),
        "{error}"
    );
    assert!(error.is_retryable());
    // It begins anew after a random time, which may be none.
    let status = a.status();
    let is_told = status.last_error.is_some_and(|error| error.code == "sync-internal");
    assert!(is_told && status.state == SyncState::Error || status.state != SyncState::Error);
    wait_until("synced by itself", Duration::from_secs(20), || a.status().state == SyncState::Synced);
    a.documents("pieces").insert(&json!({ "lyrics": "y" })).unwrap();
    a.sync_now().unwrap();
    assert_eq!((a.status().pending, a.status().last_error), (0, None));
}

#[test]
fn a_token_is_kept_out_of_the_database_and_off_plain_ways() {
    let dir = tempfile::tempdir().unwrap();
    let relay = relay(dir.path());
    let given = dir.path().join("given");
    std::fs::write(&given, "t0ken-of-keola\n").unwrap();
    let cli = Cli::new(dir.path(), "d");
    let init = ["init", "--device", "d", "--relay", &relay.url()];
    cli.ok(&[&init[..], &["--token-file", given.to_str().unwrap()]].concat());
    cli.ok(&["sync"]);
    cli.ok_with(&[&init[..], &["--token-file", "-"]].concat(), "t0ken-of-keola");
    cli.ok(&["sync"]);
    let warned = cli.run(&[&init[..], &["--token", "t0ken-of-keola"]].concat());
    assert!(String::from_utf8_lossy(&warned.stderr).contains("--token-file"), "{warned:?}");
    // In no file but the one beside the database, which only its owner reads.
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("d.db") {
            let holds = std::fs::read(&path).unwrap().windows(14).any(|bytes| bytes == b"t0ken-of-keola");
            assert_eq!(holds, name == "d.db-token", "{name}");
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(dir.path().join("d.db-token")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    // The environment goes before it, for every command.
    let output = cli.command(&["sync"]).env("MOTET_TOKEN", "bad").output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    // Another relay is not shown it.
    cli.ok(&["init", "--device", "d", "--relay", "http://127.0.0.1:9"]);
    assert!(!dir.path().join("d.db-token").exists());

    for url in ["http://relay.example.org", "ws://192.168.1.5:8787", "http://[2001:db8::1]/"] {
        let error = Relay::new(url).token("good").check().unwrap_err();
        assert!(matches!(&error, SyncError::BadUrl { .. }) && error.to_string().contains("https"), "{error}");
        Relay::new(url).check().unwrap();
    }
    for url in ["https://relay.example.org", "http://localhost:1", "http://127.1.2.3", "ws://[::1]:8787/x"] {
        Relay::new(url).token("good").check().unwrap();
    }
}

#[test]
fn calls_that_wait_run_beside_async_code() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    let to = dir.path().join("backup.db");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let id = a.documents("pieces").insert_async(&json!({ "lyrics": "x" })).await.unwrap();
        let copy = to.clone();
        a.spawn_blocking(move |replica| replica.backup(&copy)).await.unwrap();
        // It goes on when nobody waits for it, and the file is let go of when it is done.
        drop(a.spawn_blocking(move |replica| replica.documents("pieces").delete(&id).unwrap()));
        let panics = a.spawn_blocking(|_| -> () { panic!("a fault of the app") });
        assert!(tokio::spawn(panics).await.unwrap_err().is_panic());
    });
    wait_until("deleted", Duration::from_secs(10), || contents(&a).is_empty());
    assert_eq!(contents(&Replica::open(&to).unwrap()).len(), 1);
    // A loop looks in passing, and finds the outcome once.
    let mut call = a.spawn_blocking(|replica| replica.counts().unwrap().documents);
    let mut outcome = None;
    wait_until("counted", Duration::from_secs(10), || {
        outcome = outcome.or(call.try_take());
        outcome.is_some()
    });
    assert_eq!((outcome, call.try_take()), (Some(0), None));
    // Whoever awaits it all the same waits, and nothing breaks.
    assert!(futures_util::FutureExt::now_or_never(call).is_none());
}

#[test]
fn the_outcome_of_a_write_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    let mut write = a.documents("pieces").insert_async(&json!({ "lyrics": "x" }));
    let mut outcome = None;
    wait_until("written", Duration::from_secs(10), || {
        outcome = outcome.take().or_else(|| write.try_durable());
        outcome.is_some()
    });
    assert!(outcome.unwrap().is_ok());
    assert!(write.try_durable().is_none());
    assert!(write.durable().is_err());
    let mut refused = a.documents("pieces").insert_async(&json!(5));
    wait_until("refused", Duration::from_secs(10), || {
        refused.try_durable().is_some_and(|outcome| outcome.is_err())
    });
}
