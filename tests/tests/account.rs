//! Whose the data is: a replica belongs to one account, knows its log wherever that is, and lets go of what is safe elsewhere.

use std::path::{Path, PathBuf};
use std::time::Duration;

use motet::{
    AccountError, FieldKind, Relay, Replica, Schema, SignOut, SyncError, SyncState, Transport, json,
};
use motet_tests::{Admin, Cli, RelayProcess, TestRelay, contents, copy_folder, device, sync, wait_until};
use serde_json::Value;

/// A relay on which `token-a` and `also-a` are account a, and `token-b` is account b.
fn relay(data: &Path) -> TestRelay {
    TestRelay::start_for(data, "token-a -> a\nalso-a -> a\ntoken-b -> b\n")
}

fn sync_as(replica: &Replica, relay: &TestRelay, token: &str) -> Result<motet::SyncSummary, SyncError> {
    replica.connect(Relay::new(&relay.url()).token(token)).unwrap();
    let done = replica.sync_now();
    replica.disconnect();
    done
}

fn titles(replica: &Replica) -> Vec<String> {
    let songs = replica.documents("songs").list().unwrap();
    songs.iter().map(|song: &motet::Record<Value>| song["title"].as_str().unwrap().to_owned()).collect()
}

/// Whether a word stands in the database or in one of the files beside it.
fn holds(db: &Path, word: &str) -> bool {
    let files: Vec<PathBuf> =
        ["", "-wal", "-shm"].iter().map(|end| format!("{}{end}", db.display()).into()).collect();
    let found = |file: &PathBuf| {
        std::fs::read(file).is_ok_and(|bytes| bytes.windows(word.len()).any(|part| part == word.as_bytes()))
    };
    files.iter().any(found)
}

#[test]
fn a_replica_belongs_to_the_first_account_that_it_meets() {
    let dir = tempfile::tempdir().unwrap();
    let relay = relay(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    a.documents("songs").upsert("1", &json!({ "title": "Pua Ana" })).unwrap();
    assert_eq!(a.account().unwrap(), None);
    sync_as(&a, &relay, "token-a").unwrap();
    let account = a.account().unwrap().unwrap();
    // Another token of the same account is the same account.
    a.documents("songs").upsert("2", &json!({ "title": "Hanohano" })).unwrap();
    assert_eq!(sync_as(&a, &relay, "also-a").unwrap().sent, 1);

    a.documents("songs").upsert("3", &json!({ "title": "only for a" })).unwrap();
    let other = device(dir.path(), "other");
    other.documents("songs").upsert("b1", &json!({ "title": "only for b" })).unwrap();
    sync_as(&other, &relay, "token-b").unwrap();
    let refused = sync_as(&a, &relay, "token-b").unwrap_err();
    assert!(matches!(refused, SyncError::OtherAccount { bound, .. } if bound == account), "{refused}");
    assert_eq!((refused.code(), refused.is_retryable()), ("sync-other-account", false));
    let status = a.status();
    assert_eq!((status.state, status.pending), (SyncState::Error, 1));
    assert_eq!(status.last_error.unwrap().code, "sync-other-account");
    // Nothing went either way, and the right account goes on.
    assert_eq!(titles(&a), ["Pua Ana", "Hanohano", "only for a"]);
    sync_as(&other, &relay, "token-b").unwrap();
    assert_eq!(titles(&other), ["only for b"]);
    assert_eq!(sync_as(&a, &relay, "token-a").unwrap().sent, 1);
    assert_eq!(a.status().last_error, None);

    // On purpose it moves.
    a.release_account().unwrap();
    assert_eq!(sync_as(&a, &relay, "token-b").unwrap().sent, 3);
    assert_ne!(a.account().unwrap().unwrap(), account);
    sync_as(&other, &relay, "token-b").unwrap();
    assert_eq!(contents(&other), contents(&a));
    assert_eq!(titles(&other).len(), 4);
}

#[test]
fn a_relay_at_another_address_is_the_same_one() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    let first = relay(&data);
    let songs: Vec<Value> =
        (0..500).map(|n| json!({ "id": format!("{n}"), "title": format!("mele {n}") })).collect();
    a.transaction(move |tx| tx.documents("songs").upsert_many(&songs)).unwrap();
    sync_as(&a, &first, "token-a").unwrap();
    sync_as(&b, &first, "token-a").unwrap();
    drop(first);
    b.documents("songs").patch("1", &json!({ "title": "changed meanwhile" })).unwrap();

    // The same data behind another port.
    let second = relay(&data);
    a.documents("songs").patch("2", &json!({ "title": "mele hou" })).unwrap();
    let summary = sync_as(&a, &second, "token-a").unwrap();
    assert_eq!((summary.sent, summary.received), (1, 0), "{summary:?}");
    assert_eq!(a.sql("SELECT id FROM remote").unwrap().rows.len(), 1);
    assert_eq!(sync_as(&b, &second, "token-a").unwrap().sent, 1);
    assert_eq!(sync_as(&a, &second, "token-a").unwrap().received, 1);
    assert_eq!(contents(&a), contents(&b));
    drop(second);

    // Rolled back behind a third: that is noticed, and what it lacks is sent.
    let backup = dir.path().join("backup");
    copy_folder(&data, &backup);
    let third = relay(&data);
    a.documents("songs").patch("3", &json!({ "title": "after the backup" })).unwrap();
    sync_as(&a, &third, "token-a").unwrap();
    drop(third);
    let fourth = relay(&backup);
    let summary = sync_as(&a, &fourth, "token-a").unwrap();
    assert!((1..10).contains(&summary.sent), "{summary:?}");
    sync_as(&b, &fourth, "token-a").unwrap();
    assert_eq!(contents(&a), contents(&b));

    // Another relay, which has nothing, is given everything.
    let empty = relay(&dir.path().join("empty"));
    assert_eq!(sync_as(&a, &empty, "token-a").unwrap().sent, 500);
    // And back at the first one nothing is sent twice.
    assert_eq!(sync_as(&a, &fourth, "token-a").unwrap().sent, 0);
    assert_eq!(a.sql("SELECT id FROM remote").unwrap().rows.len(), 2);
    assert_eq!([a.verify().unwrap().problems, b.verify().unwrap().problems], [[], []]);
}

/// A device with what was sent and what was not, in collections and fields of every kind.
fn mixed(dir: &Path, relay: &TestRelay) -> Replica {
    let a = device(dir, "a");
    let schema =
        Schema::new().local("drafts").field("songs", "note", FieldKind::Local).text("songs", "lyrics");
    a.apply_schema(&schema).unwrap();
    a.documents("songs").upsert("1", &json!({ "title": "Pua", "lyrics": "makuahine" })).unwrap();
    a.documents("songs").upsert("2", &json!({ "title": "Ua", "note": "kahakai" })).unwrap();
    a.documents("drafts").upsert("1", &json!({ "title": "mahina" })).unwrap();
    sync_as(&a, relay, "token-a").unwrap();
    a
}

#[test]
fn signing_out_keeps_or_wipes_and_loses_nothing_silently() {
    let dir = tempfile::tempdir().unwrap();
    let relay = relay(&dir.path().join("relay"));
    let a = mixed(dir.path(), &relay);
    let account = a.account().unwrap();
    a.sign_out(SignOut::Keep).unwrap();
    assert_eq!(a.status().state, SyncState::LocalOnly);
    assert_eq!((titles(&a).len(), a.account().unwrap()), (2, account));
    assert!(matches!(sync_as(&a, &relay, "token-b"), Err(SyncError::OtherAccount { .. })));
    assert_eq!(sync_as(&a, &relay, "token-a").unwrap().sent, 0);

    a.documents("songs").patch("1", &json!({ "title": "unsent" })).unwrap();
    let before = contents(&a);
    assert!(matches!(a.sign_out(SignOut::Wipe), Err(AccountError::Unsent { documents: 1 })));
    assert!(matches!(a.clear_local(), Err(AccountError::Unsent { documents: 1 })));
    assert_eq!((contents(&a), a.account().unwrap()), (before, account));
    sync_as(&a, &relay, "token-a").unwrap();

    let mut live = a.documents("songs").live(motet::Query::new()).unwrap();
    assert_eq!(live.results().len(), 2);
    let removed = a.sign_out(SignOut::Wipe).unwrap();
    assert_eq!((removed.documents, removed.kept), (2, 1));
    assert_eq!(live.wait().unwrap().len(), 0);
    assert_eq!((titles(&a).len(), a.account().unwrap()), (0, None));
    assert_eq!(a.documents("drafts").list().unwrap().len(), 1);
    assert_eq!(a.documents("songs").search("makuahine", 10).unwrap().len(), 0);
    assert!(!holds(a.path(), "makuahine") && !holds(a.path(), "kahakai") && holds(a.path(), "mahina"));
    assert_eq!(a.undo().unwrap(), None);
    assert_eq!(a.verify().unwrap().problems, []);
    assert_eq!(a.status().last_synced_at, None);

    // Somebody else signs in, and gets their own.
    sync_as(&a, &relay, "token-b").unwrap();
    assert_eq!(titles(&a).len(), 0);
    a.documents("songs").upsert("1", &json!({ "title": "of b" })).unwrap();
    sync_as(&a, &relay, "token-b").unwrap();
    let b = device(dir.path(), "b");
    sync_as(&b, &relay, "token-b").unwrap();
    assert_eq!(titles(&b), ["of b"]);

    a.documents("songs").upsert("2", &json!({ "title": "never sent" })).unwrap();
    let removed = a.sign_out(SignOut::WipeUnsent).unwrap();
    assert_eq!((removed.documents, removed.kept), (3, 0));
    assert!(!holds(a.path(), "never sent") && !holds(a.path(), "mahina"));
    assert_eq!(a.verify().unwrap().problems, []);
}

#[test]
fn what_was_never_sent_or_is_switched_off_is_not_wiped_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let relay = relay(&dir.path().join("relay"));
    let alone = device(dir.path(), "alone");
    alone.documents("songs").upsert("1", &json!({ "title": "t" })).unwrap();
    assert!(matches!(alone.sign_out(SignOut::Wipe), Err(AccountError::Unsent { documents: 1 })));
    assert!(matches!(alone.clear_local(), Err(AccountError::Unsent { documents: 1 })));

    let a = mixed(dir.path(), &relay);
    a.set_collection_sync("songs", false).unwrap();
    a.documents("songs").patch("1", &json!({ "title": "while it is off" })).unwrap();
    assert!(matches!(a.sign_out(SignOut::Wipe), Err(AccountError::Unsent { documents: 2 })));
    let cleared = a.clear_local().unwrap();
    assert_eq!((cleared.documents, cleared.kept), (0, 3));
}

#[test]
fn what_is_cleared_comes_back_from_the_relay() {
    let dir = tempfile::tempdir().unwrap();
    let relay = relay(&dir.path().join("relay"));
    let a = mixed(dir.path(), &relay);
    let b = device(dir.path(), "b");
    sync_as(&b, &relay, "token-a").unwrap();
    a.create_restore_point("point").unwrap();
    let before = contents(&a);
    // Another process has the file open, and is connected.
    let beside = Replica::open(a.path()).unwrap();
    beside.connect(Relay::new(&relay.url()).token("token-a")).unwrap();
    beside.sync_now().unwrap();

    let cleared = a.clear_local().unwrap();
    assert_eq!((cleared.documents, cleared.kept), (1, 2));
    // The other process may have fetched the cleared one again already.
    assert!(titles(&a).contains(&"Ua".to_owned()));
    // A point that names documents which are not here would delete them when they come back.
    assert!(a.restore_points().unwrap().is_empty());
    // Words written before it comes back are one document with it.
    a.documents("songs").upsert("1", &json!({ "year": 1900 })).unwrap();
    b.documents("songs").upsert("4", &json!({ "title": "from b" })).unwrap();
    sync_as(&b, &relay, "token-a").unwrap();
    wait_until("all is back", Duration::from_secs(20), || titles_if_all(&a) == 3);
    drop(beside);
    sync_as(&a, &relay, "token-a").unwrap();
    let one = a.documents("songs").get("1").unwrap().unwrap().value;
    assert_eq!(one, json!({ "title": "Pua", "lyrics": "makuahine", "year": 1900, "id": "1" }));
    let mut expected = before;
    expected.retain(|(_, name, ..)| name != "1");
    for document in expected {
        assert!(contents(&a).contains(&document), "{document:?}");
    }
    sync_as(&b, &relay, "token-a").unwrap();
    assert_eq!(b.documents("songs").get("1").unwrap().unwrap()["year"], 1900);
    assert_eq!([a.verify().unwrap().problems, b.verify().unwrap().problems], [[], []]);
}

fn titles_if_all(replica: &Replica) -> usize {
    let songs = replica.documents("songs").list().unwrap();
    songs.iter().filter(|song| song["title"].is_string()).count()
}

#[test]
fn the_command_line_signs_out() {
    let dir = tempfile::tempdir().unwrap();
    let relay = relay(&dir.path().join("relay"));
    let cli = Cli::new(dir.path(), "a");
    let tokens = [dir.path().join("a.txt"), dir.path().join("b.txt")];
    std::fs::write(&tokens[0], "token-a").unwrap();
    std::fs::write(&tokens[1], "token-b").unwrap();
    let sign_in = |token: &Path| {
        let args =
            ["init", "--device", "a", "--relay", &relay.url(), "--token-file", token.to_str().unwrap()];
        cli.ok(&args);
    };
    sign_in(&tokens[0]);
    cli.ok_with(&["put", "songs", "--id", "1"], r#"{"title":"Pua"}"#);
    cli.ok(&["sync"]);
    let account = cli.json(&["status", "--json"])["account"].clone();
    assert!(account.is_string());
    sign_in(&tokens[1]);
    let refused = cli.run(&["sync"]);
    assert_eq!(refused.status.code(), Some(4));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("another account") && said.contains("motet sign-out"), "{said}");

    cli.ok_with(&["put", "songs", "--id", "2"], r#"{"title":"Ua"}"#);
    let refused = cli.run(&["sign-out", "--wipe"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("1 document"));
    assert!(Path::new(&format!("{}-token", cli.db().display())).exists(), "nobody was signed out");
    assert!(cli.ok(&["sign-out"]).contains("stays"));
    assert!(!Path::new(&format!("{}-token", cli.db().display())).exists());
    assert_eq!(cli.run(&["sync"]).status.code(), Some(4));
    sign_in(&tokens[0]);
    cli.ok(&["sync"]);
    assert!(cli.ok(&["clear-local"]).contains("2 documents removed"));
    cli.ok(&["sync"]);
    assert_eq!(cli.ok(&["export", "songs"]).lines().count(), 2);
    let signed_out = cli.command(&["sign-out", "--wipe"]).env("MOTET_TOKEN", "token-a").output().unwrap();
    assert!(String::from_utf8_lossy(&signed_out.stdout).contains("2 documents removed"));
    assert!(String::from_utf8_lossy(&signed_out.stderr).contains("MOTET_TOKEN is still set"));
    sign_in(&tokens[1]);
    cli.ok(&["sync"]);
    assert_eq!(cli.run(&["export", "songs"]).status.code(), Some(5));
}

/// Two processes have the file open, and one of them is connected when the other signs out.
#[test]
fn a_connection_of_another_process_ends_with_the_user() {
    let dir = tempfile::tempdir().unwrap();
    let relay = relay(&dir.path().join("relay"));
    let a = mixed(dir.path(), &relay);
    let connected = || {
        let other = Replica::open(a.path()).unwrap();
        other.connect(Relay::new(&relay.url()).token("token-a")).unwrap();
        other.sync_now().unwrap();
        other
    };
    let third = device(dir.path(), "third");
    for how in [SignOut::Wipe, SignOut::Keep, SignOut::WipeUnsent] {
        let other = connected();
        a.sign_out(how).unwrap();
        a.documents("songs").upsert("secret", &json!({ "title": "of nobody" })).unwrap();
        third.documents("songs").upsert("news", &json!({ "title": format!("{how:?}") })).unwrap();
        sync_as(&third, &relay, "token-a").unwrap();
        assert!(matches!(other.sync_now(), Err(SyncError::AuthNeeded { .. })), "{how:?}");
        std::thread::sleep(Duration::from_millis(1_500));
        assert_eq!(other.status().state, SyncState::LocalOnly, "{how:?}");
        let news = a.documents("songs").get("news").unwrap();
        assert!(news.is_none_or(|news| news["title"] != format!("{how:?}")), "{how:?}");
        // Somebody else signs in, and what they write is theirs alone.
        if how != SignOut::Keep {
            sync_as(&a, &relay, "token-b").unwrap();
            a.documents("songs").upsert("secret", &json!({ "title": "of b" })).unwrap();
            sync_as(&a, &relay, "token-b").unwrap();
            assert!(matches!(other.sync_now(), Err(SyncError::AuthNeeded { .. })));
            sync_as(&third, &relay, "token-a").unwrap();
            assert!(third.documents("songs").get("secret").unwrap().is_none(), "{how:?}");
            a.sign_out(SignOut::Wipe).unwrap();
        } else {
            a.documents("songs").delete("secret").unwrap();
            a.documents("songs").purge_trash(i64::MAX).unwrap();
        }
        sync_as(&a, &relay, "token-a").unwrap();
    }
    // What another process has cleared comes back by itself, also if nothing else happens.
    let other = connected();
    a.clear_local().unwrap();
    wait_until("all is back", Duration::from_secs(10), || titles(&other).len() >= 3);
    other.sync_now().unwrap();
    assert_eq!(a.verify().unwrap().problems, []);
}

#[test]
fn what_the_relay_was_told_to_forget_or_may_have_lost_is_not_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let first = relay(&data);
    let a = device(dir.path(), "a");
    let b = device(dir.path(), "b");
    a.documents("songs").upsert("1", &json!({ "title": "Pua" })).unwrap();
    for replica in [&a, &b] {
        sync_as(replica, &first, "token-a").unwrap();
    }
    b.erase_remote("songs").unwrap();
    sync_as(&b, &first, "token-a").unwrap();
    sync_as(&a, &first, "token-a").unwrap();
    assert_eq!((a.clear_local().unwrap().documents, titles(&a).len()), (0, 1));
    assert!(matches!(a.sign_out(SignOut::Wipe), Err(AccountError::Unsent { documents: 1 })));

    // A relay that lost something, and of which that is not found out to the end.
    a.documents("notes").upsert("1", &json!({ "title": "Ua" })).unwrap();
    sync_as(&a, &first, "token-a").unwrap();
    let conn = rusqlite::Connection::open(a.path()).unwrap();
    conn.execute("UPDATE remote SET reseed = 1", []).unwrap();
    assert!(matches!(a.clear_local(), Err(AccountError::Unsent { .. })));
    sync_as(&a, &first, "token-a").unwrap();
    assert_eq!(a.clear_local().unwrap().documents, 1);
}

#[test]
fn everything_goes_also_what_became_local_or_was_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    let relay = relay(&dir.path().join("relay"));
    let a = mixed(dir.path(), &relay);
    a.apply_schema(&Schema::new().local("songs")).unwrap();
    a.documents("songs").patch("1", &json!({ "title": "kuahiwi" })).unwrap();
    let removed = a.sign_out(SignOut::Wipe).unwrap();
    assert_eq!((removed.documents, removed.kept), (2, 1));
    assert!(!holds(a.path(), "makuahine") && !holds(a.path(), "kuahiwi"));

    a.documents("other").upsert("1", &json!({ "title": "haumana" })).unwrap();
    sync_as(&a, &relay, "token-a").unwrap();
    a.set_collection_sync("other", false).unwrap();
    a.sign_out(SignOut::WipeUnsent).unwrap();
    assert!(a.unsynced_collections().unwrap().is_empty());
    assert!(!holds(a.path(), "haumana") && !holds(a.path(), "mahina"));
    assert_eq!(a.verify().unwrap().problems, []);
}

/// Two processes name the relay's new address, one of them before anybody knows which relay that is.
#[test]
fn two_processes_find_the_relay_at_its_new_address() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let a = device(dir.path(), "a");
    a.documents("songs").upsert("1", &json!({ "title": "Pua" })).unwrap();
    let old = relay(&data);
    sync_as(&a, &old, "token-a").unwrap();
    let elsewhere = relay(&dir.path().join("elsewhere"));
    let port = elsewhere.address().port();
    let url = elsewhere.url();
    drop((old, elsewhere));
    let other = Replica::open(a.path()).unwrap();
    other.connect(Relay::new(&url).token("token-a")).unwrap();
    let auth = motet_relay::auth::Auth::from_file(&data.with_extension("tokens")).unwrap();
    let moved = TestRelay::start_with(&data, auth, port);
    sync_as(&a, &moved, "token-a").unwrap();
    other.sync_now().unwrap();
    a.documents("songs").upsert("2", &json!({ "title": "Ua" })).unwrap();
    other.sync_now().unwrap();
    assert_eq!((other.status().pending, other.status().last_error), (0, None));
    assert_eq!(a.sql("SELECT id FROM remote").unwrap().rows.len(), 1);
}

/// Over `POST` each exchange is let in anew: a token that becomes another account's in between sends nothing there.
#[test]
fn a_token_that_changes_its_account_moves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    for transport in [Transport::Post, Transport::WebSocket] {
        std::fs::create_dir_all(&data).unwrap();
        let tokens = data.with_extension("txt");
        std::fs::write(&tokens, "token-a -> a\ntoken-b -> b\n").unwrap();
        let relay = RelayProcess::start(&data, "127.0.0.1:0", &["--tokens", tokens.to_str().unwrap()]);
        let a = device(dir.path(), &format!("a-{transport:?}"));
        let b = device(dir.path(), &format!("b-{transport:?}"));
        let as_b = Relay::new(&relay.url()).token("token-b");
        b.connect(as_b).unwrap();
        b.sync_now().unwrap();
        a.documents("songs").upsert("1", &json!({ "title": "of a" })).unwrap();
        a.connect(Relay::new(&relay.url()).token("token-a").transport(transport)).unwrap();
        a.sync_now().unwrap();
        std::fs::write(&tokens, "token-a -> b\ntoken-b -> b\n").unwrap();
        wait_until("the token is another account's", Duration::from_secs(20), || {
            a.documents("songs").upsert("2", &json!({ "title": "later" })).unwrap();
            matches!(a.sync_now(), Err(SyncError::OtherAccount { .. }))
        });
        b.sync_now().unwrap();
        assert_eq!(titles(&b), Vec::<String>::new(), "{transport:?}");
        drop(relay);
        std::fs::remove_dir_all(&data).unwrap();
    }
}

#[test]
fn what_stays_after_clearing_is_compared_with_the_relay() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let first = relay(&data);
    let a = mixed(dir.path(), &first);
    let cursor = a.latest_change().unwrap();
    a.clear_local().unwrap();
    assert_eq!(a.status().state, SyncState::Paused, "it is not known what there is");
    drop(first);
    // The relay turns out to be another one, which has nothing.
    std::fs::remove_dir_all(&data).unwrap();
    let wiped = relay(&data);
    sync_as(&a, &wiped, "token-a").unwrap();
    a.documents("songs").patch("2", &json!({ "title": "Ua nui" })).unwrap();
    sync_as(&a, &wiped, "token-a").unwrap();
    let b = device(dir.path(), "b");
    sync_as(&b, &wiped, "token-a").unwrap();
    assert_eq!(titles(&b), ["Ua nui"]);
    assert_eq!(b.quarantined(10).unwrap().len(), 0);
    // Who follows the feed hears of what came later.
    let told = a.changed_after(cursor, 100).unwrap();
    assert!(told.iter().any(|changed| changed.id == "2"), "{told:?}");
}

#[test]
fn a_wipe_leaves_no_word_also_in_what_was_restored_from_a_backup() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    for n in 0..300 {
        let lyrics = format!("kealamauloa{n} ").repeat(1 + n % 90);
        a.documents("songs").upsert(&format!("{n}"), &json!({ "title": "t", "lyrics": lyrics })).unwrap();
    }
    let backup = dir.path().join("backup.db");
    a.backup(&backup).unwrap();
    for path in [a.path().to_owned(), backup] {
        let replica = Replica::open(&path).unwrap();
        let before = std::fs::metadata(&path).unwrap().len();
        replica.sign_out(SignOut::WipeUnsent).unwrap();
        assert!(!holds(&path, "kealamauloa"), "{}", path.display());
        assert!(std::fs::metadata(&path).unwrap().len() < before / 2, "room is given back");
    }
}

/// Somebody who may only read has written all the same: it is given up, and what the relay holds comes back.
#[test]
fn what_may_not_be_sent_can_be_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let alone = device(dir.path(), "alone");
    alone.documents("songs").upsert("1", &json!({ "title": "Only here" })).unwrap();
    // Nobody has the rest.
    assert!(matches!(alone.discard_unsent(), Err(AccountError::Unsent { documents: 1 })));
    assert_eq!(titles(&alone), ["Only here"]);
    let relay = TestRelay::start(&dir.path().join("relay"));
    let [a, b] = ["a", "b"].map(|name| device(dir.path(), name));
    a.documents("songs").upsert("1", &json!({ "title": "Pua Mana" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    b.documents("songs").upsert("1", &json!({ "title": "Mine" })).unwrap();
    b.documents("songs").upsert("2", &json!({ "title": "Mine too" })).unwrap();
    assert!(matches!(b.clear_local(), Err(AccountError::Unsent { documents: 2 })));
    assert_eq!(b.discard_unsent().unwrap().documents, 2);
    assert!(titles(&b).is_empty());
    sync(&b, &relay.url());
    sync(&a, &relay.url());
    for replica in [&a, &b] {
        assert_eq!(titles(replica), ["Pua Mana"]);
        assert_eq!(replica.status().pending, 0);
    }
}

/// What only the relay before has is not safe: the one that is used now never had it.
#[test]
fn nothing_is_cleared_that_only_another_relay_has() {
    let dir = tempfile::tempdir().unwrap();
    let relays = ["first", "second"].map(|name| TestRelay::start(&dir.path().join(name)));
    let a = device(dir.path(), "a");
    a.documents("songs").upsert("1", &json!({ "title": "Pua Mana" })).unwrap();
    sync(&a, &relays[0].url());
    a.use_relay(&Relay::new(&relays[1].url())).unwrap();
    assert!(matches!(a.clear_local(), Err(AccountError::Unsent { documents: 1 })));
    assert!(matches!(a.discard_unsent(), Err(AccountError::Unsent { documents: 1 })));
    assert_eq!(titles(&a), ["Pua Mana"]);
    sync(&a, &relays[1].url());
    assert_eq!(a.clear_local().unwrap().documents, 1);
    sync(&a, &relays[1].url());
    assert_eq!(titles(&a), ["Pua Mana"]);
}

/// A space that was taken away: what is here may be all that is left of it.
#[test]
fn nothing_is_cleared_of_a_space_that_may_not_be_read_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin(dir.path().join("relay"));
    admin.ok(&["account", "add", "keola"]);
    let id = admin.ok(&["space", "create", "band", "--owner", "keola"]).trim().to_owned();
    let relay = RelayProcess::start(&admin.0, "127.0.0.1:0", &[]);
    let cli = Cli::new(dir.path(), "band");
    cli.ok(&["init", "--device", "band", "--relay", &relay.url(), "--space-id", &id]);
    cli.ok_with(&["login", "--key-file", "-"], &admin.ok(&["key", "create", "--account", "keola"]));
    cli.ok_with(&["put", "songs", "--id", "1"], r#"{"title": "Pua Mana"}"#);
    cli.ok(&["sync"]);
    admin.ok(&["space", "delete", "band"]);
    wait_until("it is gone", Duration::from_secs(5), || !cli.run(&["sync"]).status.success());
    for args in [&["clear-local"][..], &["clear-local", "--unsent"]] {
        let refused = cli.run(args);
        assert_eq!(refused.status.code(), Some(1), "{args:?}");
    }
    assert_eq!(cli.json(&["get", "songs", "1", "--json"])["title"], "Pua Mana");
}
