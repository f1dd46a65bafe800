//! Devices and a relay: what arrives, what merges, what a user is told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use motet::{DocumentState, Relay, Replica, SyncError, SyncState, SyncSummary, Transport};
use motet_relay::auth::Auth;
use motet_tests::proxy::{Faults, Proxy};
use motet_tests::random::Random;
use motet_tests::{TestRelay, contents, device, sync, wait_until};
use serde_json::{Value, json};

fn lyrics(replica: &Replica, id: &str) -> String {
    replica.documents("pieces").get(id).unwrap().unwrap()["lyrics"].as_str().unwrap().to_owned()
}

fn tokens(dir: &std::path::Path, text: &str) -> Auth {
    let path = dir.join("tokens");
    std::fs::write(&path, text).unwrap();
    Auth::from_file(&path).unwrap()
}

#[test]
fn a_fresh_device_gets_everything_and_states_tell_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    assert_eq!(a.status().state, SyncState::LocalOnly);
    let id = a.documents("pieces").insert(&json!({ "title": "Hoʻi", "lyrics": "E hoʻi\n" })).unwrap();
    assert_eq!(
        a.documents("pieces").document(&id).status().unwrap().unwrap().state,
        DocumentState::LocalOnly
    );
    let summary = sync(&a, &relay.url());
    assert_eq!((summary.sent, summary.received), (1, 0));
    assert_eq!(a.status().state, SyncState::Paused);
    let status = a.documents("pieces").document(&id).status().unwrap().unwrap();
    assert_eq!((status.state, status.pending_changes), (DocumentState::Synced, 0));
    assert!(status.last_synced_at.is_some());

    let b = device(dir.path(), "b");
    let summary = sync(&b, &relay.url());
    assert_eq!(summary.collections["pieces"].new, 1);
    assert_eq!(contents(&a), contents(&b));

    a.documents("pieces").patch(&id, &json!({ "title": "x" })).unwrap();
    let made = a.documents("pieces").insert(&json!({ "title": "new" })).unwrap();
    assert_eq!(
        a.documents("pieces").document(&id).status().unwrap().unwrap().state,
        DocumentState::PendingUpdate
    );
    assert_eq!(
        a.documents("pieces").document(&made).status().unwrap().unwrap().state,
        DocumentState::PendingCreate
    );
    a.documents("pieces").delete(&id).unwrap();
    assert_eq!(
        a.documents("pieces").document(&id).status().unwrap().unwrap().state,
        DocumentState::PendingDelete
    );
    assert_eq!((a.status().state, a.status().pending), (SyncState::Pending, 2));
    let pending: Vec<_> = a.pending_documents(10).unwrap().into_iter().map(|p| (p.id, p.state)).collect();
    assert_eq!(pending, [(id.clone(), DocumentState::PendingDelete), (made, DocumentState::PendingCreate)]);
    drop(a);
    let a = device(dir.path(), "a");
    assert_eq!((a.status().state, a.status().pending), (SyncState::Pending, 2), "it survives a restart");
    assert!(a.status().last_synced_at.is_some());
    sync(&a, &relay.url());
    let summary = sync(&b, &relay.url());
    assert_eq!((summary.collections["pieces"].deleted, summary.collections["pieces"].new), (1, 1));
    assert_eq!(contents(&a), contents(&b));
}

#[test]
fn concurrent_edits_of_different_lines_both_survive() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    let id =
        a.documents("pieces").insert(&json!({ "title": "t", "lyrics": "ʻekahi\nʻelua\nʻekolu\n" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    for (replica, old, new, title) in
        [(&a, "ʻekahi", "ʻekahi ✓", "from a"), (&b, "ʻekolu", "ʻekolu 👩‍🎤", "from b")]
    {
        let mut piece = replica.documents("pieces").get(&id).unwrap().unwrap();
        piece["lyrics"] = piece["lyrics"].as_str().unwrap().replace(old, new).into();
        piece["title"] = title.into();
        replica.documents("pieces").update(&mut piece).unwrap();
    }
    let mut conflicts = 0;
    for replica in [&a, &b, &a] {
        conflicts +=
            sync(replica, &relay.url()).collections.get("pieces").map_or(0, |counts| counts.conflicts);
    }
    assert_eq!(lyrics(&a, &id), "ʻekahi ✓\nʻelua\nʻekolu 👩‍🎤\n");
    assert_eq!(contents(&a), contents(&b));
    assert_eq!(conflicts, 2, "each device finds the title's loser once");
    let title = a.documents("pieces").get(&id).unwrap().unwrap()["title"].clone();
    for replica in [&a, &b] {
        let journal = replica.documents("pieces").document(&id).conflicts().unwrap();
        assert_eq!(journal.len(), 1);
        let loser = if title == "from a" { ("from b", "b") } else { ("from a", "a") };
        assert_eq!(
            (journal[0].loser.as_str(), journal[0].device_name.as_deref()),
            (Some(loser.0), Some(loser.1))
        );
        assert_eq!((journal[0].path.as_str(), journal[0].settled), ("/title", false));
        let state = replica.documents("pieces").document(&id).status().unwrap().unwrap().state;
        assert_eq!(state, DocumentState::Conflict);
    }
    a.documents("pieces").patch(&id, &json!({ "title": "settled" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    assert!(
        b.documents("pieces").document(&id).conflicts().unwrap()[0].settled,
        "the journal keeps what was settled"
    );
    assert_eq!(b.documents("pieces").document(&id).status().unwrap().unwrap().state, DocumentState::Synced);
}

#[test]
fn the_same_document_made_twice_is_one_and_no_words_are_lost() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    let equal = json!({ "id": "equal", "title": "t", "lyrics": "same words\n", "meta": { "k": 1 } });
    for replica in [&a, &b] {
        replica.documents("pieces").insert(&equal).unwrap();
    }
    a.documents("pieces")
        .insert(&json!({ "id": "x", "lyrics": "common\nfrom a\nend\n", "meta": { "a": 1 } }))
        .unwrap();
    b.documents("pieces")
        .insert(&json!({ "id": "x", "lyrics": "common\nfrom b\nend\n", "meta": { "b": 2 } }))
        .unwrap();
    let round = || [&a, &b, &a].into_iter().for_each(|replica| _ = sync(replica, &relay.url()));
    round();
    assert_eq!(contents(&a), contents(&b));
    assert_eq!(lyrics(&a, "equal"), "same words\n", "equal text once");
    assert!(a.documents("pieces").document("equal").conflicts().unwrap().is_empty());
    let both = lyrics(&a, "x");
    let mut lines: Vec<_> = both.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["common", "end", "from a", "from b"]);
    assert_eq!(a.documents("pieces").get("x").unwrap().unwrap()["meta"], json!({ "a": 1, "b": 2 }));
    assert_eq!(
        a.documents("pieces").document("x").conflicts().unwrap().len(),
        1,
        "and it stands in the journal"
    );

    // Both go on editing what they see, at the same time.
    for (replica, word) in [(&a, "ʻae from a\n"), (&b, "ʻaʻole from b\n")] {
        let mut piece = replica.documents("pieces").get("x").unwrap().unwrap();
        piece["lyrics"] = format!("{}{word}", piece["lyrics"].as_str().unwrap()).into();
        replica.documents("pieces").update(&mut piece).unwrap();
    }
    round();
    assert_eq!(contents(&a), contents(&b));
    let mut lines: Vec<_> = lyrics(&a, "x").lines().map(str::to_owned).collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["common", "end", "from a", "from b", "ʻae from a", "ʻaʻole from b"],
        "and nothing twice"
    );
}

#[test]
fn a_delete_loses_to_an_edit_it_had_not_seen_and_wins_over_what_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    for id in ["edited", "left", "both"] {
        a.documents("pieces").insert(&json!({ "id": id, "lyrics": "words" })).unwrap();
    }
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    for id in ["edited", "left", "both"] {
        a.documents("pieces").delete(id).unwrap();
    }
    b.documents("pieces").document("edited").splice_text("lyrics", 0, 0, "more ").unwrap();
    b.documents("pieces").delete("both").unwrap();
    for replica in [&b, &a, &b] {
        sync(replica, &relay.url());
    }
    assert_eq!(contents(&a), contents(&b));
    let ids: Vec<_> = a.documents("pieces").list().unwrap().into_iter().map(|r| r.id).collect();
    assert_eq!(ids, ["edited"]);
    assert_eq!(lyrics(&a, "edited"), "more words");
}

#[test]
fn a_device_without_the_schema_edits_a_received_text_by_character() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    let b = Replica::builder(dir.path().join("plain.db")).device_name("plain").open().unwrap();
    let id = a.documents("pieces").insert(&json!({ "lyrics": "one two three\n" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    a.documents("pieces").upsert(&id, &json!({ "lyrics": "ONE two three\n" })).unwrap();
    b.documents("pieces").upsert(&id, &json!({ "lyrics": "one two THREE\n" })).unwrap();
    for replica in [&a, &b, &a] {
        sync(replica, &relay.url());
    }
    assert_eq!(lyrics(&a, &id), "ONE two THREE\n");
    assert_eq!(contents(&a), contents(&b));
}

#[test]
fn a_register_that_both_turn_into_a_text_keeps_both_edits() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let open = |name: &str| Replica::builder(dir.path().join(name)).device_name(name).open().unwrap();
    let (a, b) = (open("a.db"), open("b.db"));
    let id = a.documents("pieces").insert(&json!({ "lyrics": "one two three\n" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    for replica in [&a, &b] {
        replica.apply_schema(&motet::Schema::new().text("pieces", "lyrics")).unwrap();
    }
    a.documents("pieces").upsert(&id, &json!({ "lyrics": "ONE two three\n" })).unwrap();
    b.documents("pieces").upsert(&id, &json!({ "lyrics": "one two THREE\n" })).unwrap();
    for replica in [&a, &b, &a] {
        sync(replica, &relay.url());
    }
    assert_eq!(contents(&a), contents(&b));
    assert!(lyrics(&a, &id).contains("ONE") && lyrics(&a, &id).contains("THREE"), "{}", lyrics(&a, &id));
}

#[test]
fn offline_says_so_quickly_keeps_everything_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (url, port) = (relay.url(), relay.address().port());
    drop(relay);
    let a = device(dir.path(), "a");
    let id = a.documents("pieces").insert(&json!({ "lyrics": "offline" })).unwrap();
    a.connect(Relay::new(&url)).unwrap();
    let begun = Instant::now();
    let error = a.sync_now().unwrap_err();
    assert!(matches!(error, SyncError::Offline { .. }) && error.is_retryable(), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    wait_until("offline", Duration::from_secs(2), || a.status().state == SyncState::Offline);
    assert_eq!(a.status().last_error.unwrap().code, "sync-offline");
    let _relay = TestRelay::start_with(&dir.path().join("relay"), Auth::Local, port);
    a.sync_now().unwrap();
    assert_eq!(a.documents("pieces").document(&id).status().unwrap().unwrap().state, DocumentState::Synced);
    assert_eq!(a.status().last_error, None);
}

#[test]
fn accounts_are_apart_and_bad_tokens_keep_the_queue() {
    let dir = tempfile::tempdir().unwrap();
    let auth = tokens(dir.path(), "token-k -> keola\ntoken-l -> leilani\n");
    let relay = TestRelay::start_with(&dir.path().join("relay"), auth, 0);
    let (keola, leilani) = (device(dir.path(), "keola"), device(dir.path(), "leilani"));
    let id = keola.documents("pieces").insert(&json!({ "id": "same", "lyrics": "keola's words" })).unwrap();
    for relay in [Relay::new(&relay.url()), Relay::new(&relay.url()).token("wrong")] {
        keola.connect(relay).unwrap();
        let error = keola.sync_now().unwrap_err();
        assert!(matches!(error, SyncError::AuthNeeded { .. }) && !error.is_retryable(), "{error}");
        wait_until("auth needed", Duration::from_secs(2), || keola.status().state == SyncState::AuthNeeded);
        assert_eq!(keola.status().pending, 1);
    }
    keola.connect(Relay::new(&relay.url()).token("token-k")).unwrap();
    keola.sync_now().unwrap();
    leilani.connect(Relay::new(&relay.url()).token("token-l")).unwrap();
    leilani.sync_now().unwrap();
    assert!(leilani.documents("pieces").list().unwrap().is_empty());
    leilani.documents("pieces").insert(&json!({ "id": "same", "lyrics": "leilani's words" })).unwrap();
    leilani.sync_now().unwrap();
    keola.sync_now().unwrap();
    assert_eq!(lyrics(&keola, &id), "keola's words");
}

/// First sign-in with documents, then on purpose another account, then back: one file is one person's library, and takes it along.
#[test]
fn an_account_switch_loses_nothing_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let auth = tokens(dir.path(), "token-k -> keola\ntoken-l -> leilani\n");
    let relay = TestRelay::start_with(&dir.path().join("relay"), auth, 0);
    let [phone, tablet, laptop] = ["phone", "tablet", "laptop"].map(|name| device(dir.path(), name));
    let sync_as = |device: &motet::Replica, token: &str| {
        device.connect(Relay::new(&relay.url()).token(token)).unwrap();
        device.sync_now().unwrap();
        device.disconnect();
    };
    for n in 0..40 {
        phone
            .documents("pieces")
            .upsert(&format!("song{n}"), &json!({ "lyrics": format!("Ka pō {n}\n") }))
            .unwrap();
    }
    sync_as(&phone, "token-k");
    sync_as(&tablet, "token-k");
    laptop.documents("pieces").upsert("hers", &json!({ "lyrics": "Leilani's\n" })).unwrap();
    sync_as(&laptop, "token-l");

    phone.documents("pieces").document("song1").splice_text("lyrics", 0, 0, "ʻAe, ").unwrap();
    phone.release_account().unwrap();
    sync_as(&phone, "token-l");
    sync_as(&laptop, "token-l");
    assert_eq!(contents(&phone), contents(&laptop));
    assert_eq!(contents(&phone).len(), 41);
    assert_eq!(lyrics(&laptop, "song1"), "ʻAe, Ka pō 1\n");
    // Of what is Leilani's the other account learns nothing as long as nobody brings it there.
    sync_as(&tablet, "token-k");
    assert_eq!(contents(&tablet).len(), 40);
    assert_eq!(lyrics(&tablet, "song1"), "Ka pō 1\n");

    phone.documents("pieces").document("song2").splice_text("lyrics", 0, 0, "E ").unwrap();
    phone.release_account().unwrap();
    for _ in 0..2 {
        sync_as(&phone, "token-k");
        sync_as(&tablet, "token-k");
    }
    assert_eq!(contents(&phone), contents(&tablet));
    assert_eq!(lyrics(&tablet, "song1"), "ʻAe, Ka pō 1\n");
    assert_eq!(lyrics(&tablet, "song2"), "E Ka pō 2\n");
    assert_eq!((phone.status().pending, tablet.counts().unwrap().quarantined), (0, 0));
}

#[test]
fn a_refused_token_is_refreshed_through_the_provider() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start_with(&dir.path().join("relay"), tokens(dir.path(), "fresh -> keola\n"), 0);
    let a = device(dir.path(), "a");
    a.documents("pieces").insert(&json!({ "lyrics": "x" })).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let provider = Relay::new(&relay.url()).token_provider(move |request| {
        count.fetch_add(1, Ordering::Relaxed);
        async move { Ok(if request.rejected { "fresh" } else { "expired" }.to_owned()) }
    });
    a.connect(provider).unwrap();
    assert_eq!(a.sync_now().unwrap().sent, 1);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    let failing =
        Relay::new(&relay.url()).token_provider(|_| async { Err("the refresh token is gone".to_owned()) });
    a.connect(failing).unwrap();
    assert!(a.sync_now().unwrap_err().to_string().contains("the refresh token is gone"));
}

#[test]
fn post_carries_the_same_messages() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start_with(&dir.path().join("relay"), tokens(dir.path(), "t -> keola\n"), 0);
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    for i in 0..1_500 {
        let value = json!({ "id": format!("{i}"), "lyrics": format!("ka pō {i}\n") });
        drop(a.transaction_async(move |tx| tx.documents("pieces").insert(&value)));
    }
    for replica in [&a, &b] {
        replica.connect(Relay::new(&relay.url()).token("t").transport(Transport::Post)).unwrap();
        replica.sync_now().unwrap();
    }
    assert_eq!(contents(&a), contents(&b));
    assert_eq!(b.documents("pieces").list().unwrap().len(), 1_500);
    b.connect(Relay::new(&relay.url()).transport(Transport::Post)).unwrap();
    assert!(matches!(b.sync_now().unwrap_err(), SyncError::AuthNeeded { .. }));
}

#[test]
fn a_wiped_relay_is_filled_again_by_whoever_comes() {
    let dir = tempfile::tempdir().unwrap();
    let first = TestRelay::start(&dir.path().join("relay"));
    let port = first.address().port();
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    for i in 0..20 {
        a.documents("pieces").insert(&json!({ "id": format!("a{i}"), "lyrics": "from a" })).unwrap();
        b.documents("pieces").insert(&json!({ "id": format!("b{i}"), "lyrics": "from b" })).unwrap();
    }
    let url = first.url();
    [&a, &b, &a].into_iter().for_each(|replica| _ = sync(replica, &url));
    drop(first);
    std::fs::remove_dir_all(dir.path().join("relay")).unwrap();
    let _second = TestRelay::start_with(&dir.path().join("relay"), Auth::Local, port);
    // One device alone brings everything back: its own words and those of the others.
    sync(&a, &url);
    let c = device(dir.path(), "c");
    sync(&c, &url);
    assert_eq!(c.documents("pieces").list().unwrap().len(), 40);
    b.documents("pieces").patch("b0", &json!({ "title": "later" })).unwrap();
    let summary = sync(&b, &url);
    // The edit itself, and the edited document once more as a whole.
    assert!(summary.sent <= 2, "b finds that the log holds its documents: {summary:?}");
    sync(&a, &url);
    sync(&c, &url);
    assert_eq!(contents(&a), contents(&b));
    assert_eq!(contents(&a), contents(&c));
}

/// Damage that no position can tell of: rows that are gone here, and an entry that is gone from the middle of the log.
#[test]
fn a_comparison_finds_and_repairs_what_either_side_has_lost() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let relay = TestRelay::start(&data);
    let port = relay.address().port();
    let a = device(dir.path(), "a");
    for n in 0..50 {
        a.documents("pieces")
            .upsert(&format!("song{n}"), &json!({ "lyrics": format!("Ka pō {n}\n") }))
            .unwrap();
    }
    sync(&a, &relay.url());
    let whole = contents(&a);
    drop((relay, a));
    let damage = |path: &std::path::Path, sql: &str| {
        let conn = rusqlite::Connection::open(path).unwrap();
        conn.pragma_update(None, "foreign_keys", false).unwrap();
        conn.execute_batch(sql).unwrap();
    };
    damage(
        &data.join("relay.db"),
        "DELETE FROM entry_of WHERE seq = 7; DELETE FROM entry WHERE id & 0xffffffffff = 7;",
    );
    damage(
        &dir.path().join("a.db"),
        "CREATE TEMP TABLE gone AS SELECT id FROM document WHERE name = 'song33';
         DELETE FROM projection WHERE document IN (SELECT id FROM gone);
         DELETE FROM change WHERE id >> 24 IN (SELECT id FROM gone);
         DELETE FROM document WHERE id IN (SELECT id FROM gone);",
    );
    let relay = TestRelay::start_with(&data, motet_relay::auth::Auth::Local, port);
    let a = device(dir.path(), "a");
    assert_eq!(sync(&a, &relay.url()).sent, 0);
    assert_eq!(contents(&a).len(), 49, "positions tell nothing of it");

    let summary = a.compare_with_relay(Relay::new(&relay.url())).unwrap();
    assert_eq!((summary.sent, summary.collections["pieces"].new), (1, 1), "{summary:?}");
    assert_eq!(contents(&a), whole);
    let again = a.compare_with_relay(Relay::new(&relay.url())).unwrap();
    assert_eq!((again.sent, again.collections.values().map(|counts| counts.new).sum::<u64>()), (0, 0));
    let b = device(dir.path(), "b");
    sync(&b, &relay.url());
    assert_eq!(contents(&b), whole);
}

/// What others build on and this device has lost is asked for when the next change comes.
#[test]
fn what_a_change_depends_on_and_is_not_here_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    a.documents("pieces").upsert("song", &json!({ "title": "t", "lyrics": "Ka pō\n" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    drop(a);
    let conn = rusqlite::Connection::open(dir.path().join("a.db")).unwrap();
    conn.pragma_update(None, "foreign_keys", false).unwrap();
    conn.execute_batch(
        "DELETE FROM projection; DELETE FROM change; DELETE FROM snapshot; DELETE FROM unindexed; DELETE FROM document;",
    )
    .unwrap();
    drop(conn);
    let a = device(dir.path(), "a");
    assert_eq!(sync(&a, &relay.url()).received, 0, "the position tells nothing of it");
    b.documents("pieces").patch("song", &json!({ "by": "b" })).unwrap();
    sync(&b, &relay.url());
    a.connect(Relay::new(&relay.url())).unwrap();
    wait_until("all of it is here", Duration::from_secs(10), || contents(&a) == contents(&b));
    wait_until("nothing waits", Duration::from_secs(10), || a.quarantined(10).unwrap().is_empty());
}

#[test]
fn a_relay_restored_from_a_backup_takes_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("relay");
    let first = TestRelay::start(&data);
    let (url, port) = (first.url(), first.address().port());
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    a.documents("pieces").insert(&json!({ "id": "x", "lyrics": "old\n" })).unwrap();
    sync(&a, &url);
    sync(&b, &url);
    drop(first);
    std::fs::copy(data.join("relay.db"), dir.path().join("backup")).unwrap();
    let second = TestRelay::start_with(&data, Auth::Local, port);
    a.documents("pieces").upsert("x", &json!({ "lyrics": "old\nnewer\n" })).unwrap();
    sync(&a, &url);
    drop(second);
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::create_dir(&data).unwrap();
    std::fs::copy(dir.path().join("backup"), data.join("relay.db")).unwrap();
    let _third = TestRelay::start_with(&data, Auth::Local, port);
    b.documents("pieces").upsert("x", &json!({ "lyrics": "older\nold\n" })).unwrap();
    [&b, &a, &b, &a].into_iter().for_each(|replica| _ = sync(replica, &url));
    assert_eq!(lyrics(&a, "x"), "older\nold\nnewer\n");
    assert_eq!(contents(&a), contents(&b));
}

#[test]
fn a_long_document_goes_out_as_a_snapshot_and_comes_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "b"));
    let id = a.documents("pieces").insert(&json!({ "lyrics": "", "title": "t" })).unwrap();
    let writes: Vec<_> = (0..600)
        .map(|i| a.documents("pieces").document(&id).splice_text_async("lyrics", i, 0, "ā"))
        .collect();
    writes.into_iter().for_each(|write| _ = write.durable().unwrap());
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    b.documents("pieces").document(&id).splice_text("lyrics", 600, 0, "!").unwrap();
    sync(&b, &relay.url());
    drop(a);
    let a = device(dir.path(), "a");
    sync(&a, &relay.url());
    assert_eq!(lyrics(&a, &id), "ā".repeat(600) + "!");
    assert_eq!(contents(&a), contents(&b));
    // A relay that b meets for the first time gets the received snapshot and what came after.
    let other = TestRelay::start(&dir.path().join("other"));
    sync(&b, &other.url());
    let c = device(dir.path(), "c");
    sync(&c, &other.url());
    assert_eq!(contents(&c), contents(&b));
}

#[test]
fn the_status_stream_tells_what_happens() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    let mut stream = a.watch_status();
    let seen: Arc<Mutex<Vec<SyncState>>> = Arc::default();
    let states = seen.clone();
    let watcher = std::thread::spawn(move || {
        while let Some(status) = stream.wait() {
            states.lock().unwrap().push(status.state);
        }
    });
    a.documents("pieces").insert(&json!({ "lyrics": "x" })).unwrap();
    sync(&a, &relay.url());
    drop(a);
    watcher.join().unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.iter().any(|state| matches!(state, SyncState::Syncing { .. })), "{seen:?}");
    assert_eq!(seen.last(), Some(&SyncState::Paused), "it has let go: {seen:?}");
}

/// An app shows its user when it last synced: with a session open, that is now.
#[test]
fn while_nothing_happens_the_time_of_the_last_sync_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    a.documents("pieces").insert(&json!({ "title": "Hoʻi" })).unwrap();
    a.connect(Relay::new(&relay.url())).unwrap();
    a.sync_now().unwrap();
    wait_until("it is idle", Duration::from_secs(5), || a.status().state == SyncState::Synced);
    let idle_since = a.status().last_synced_at.unwrap() + 1_000;
    let limit = motet_proto::limits::PING_AFTER + Duration::from_secs(10);
    wait_until("the relay was heard", limit, || a.status().last_synced_at.unwrap() > idle_since);
    assert_eq!((a.status().state, a.status().last_error), (SyncState::Synced, None));
    // It does not while there is none.
    drop(relay);
    wait_until("it is gone", Duration::from_secs(20), || a.status().state == SyncState::Offline);
    let gone_since = a.status().last_synced_at;
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(a.status().last_synced_at, gone_since);
}

#[test]
fn another_process_writing_beside_a_connected_one_is_sent_too() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let connected = device(dir.path(), "a");
    connected.connect(Relay::new(&relay.url())).unwrap();
    connected.sync_now().unwrap();
    let beside = device(dir.path(), "a");
    let id = beside.documents("pieces").insert(&json!({ "lyrics": "beside" })).unwrap();
    wait_until("it is sent", Duration::from_secs(5), || {
        beside.documents("pieces").document(&id).status().unwrap().unwrap().state == DocumentState::Synced
    });
}

#[test]
fn of_two_processes_one_stays_connected_and_the_other_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let way = Proxy::start(relay.address(), Faults::default(), 1);
    let (app, widget) = (device(dir.path(), "a"), device(dir.path(), "a"));
    app.connect(Relay::new(&way.url())).unwrap();
    app.sync_now().unwrap();
    widget.connect(Relay::new(&way.url())).unwrap();
    // What the app has sent as well.
    let id = widget.documents("pieces").insert(&json!({ "lyrics": "by the widget\n" })).unwrap();
    let is_synced = |replica: &Replica| {
        replica.documents("pieces").document(&id).status().unwrap().unwrap().state == DocumentState::Synced
    };
    wait_until("the app sends it", Duration::from_secs(10), || is_synced(&app) && is_synced(&widget));
    assert_eq!(way.connections(), 1, "the widget leaves it to the app");
    // What is asked for is done all the same, and ends.
    widget.sync_now().unwrap();
    wait_until("the widget is done", Duration::from_secs(10), || widget.status().state == SyncState::Synced);
    assert_eq!(way.connections(), 2);

    drop(app);
    let b = device(dir.path(), "b");
    sync(&b, &relay.url());
    b.documents("pieces").patch(&id, &json!({ "by": "b" })).unwrap();
    sync(&b, &relay.url());
    wait_until("the widget takes over", Duration::from_secs(20), || {
        widget.documents("pieces").get(&id).unwrap().unwrap()["by"] == "b"
    });
}

#[test]
fn a_relay_that_another_process_names_is_written_for_too() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    // Opened before there was a remote; its first write comes after.
    let early = device(dir.path(), "a");
    drop(early);
    let early = Replica::open(dir.path().join("a.db")).unwrap();
    let beside = Replica::open(dir.path().join("a.db")).unwrap();
    beside.use_relay(&Relay::new(&relay.url())).unwrap();
    early.documents("pieces").insert(&json!({ "id": "x", "lyrics": "words\n" })).unwrap();
    assert_eq!(
        beside.documents("pieces").document("x").status().unwrap().unwrap().state,
        DocumentState::PendingCreate
    );
    sync(&beside, &relay.url());
    early.documents("pieces").document("x").splice_text("lyrics", 0, 0, "more ").unwrap();
    sync(&early, &relay.url());
    let b = device(dir.path(), "b");
    sync(&b, &relay.url());
    assert_eq!(lyrics(&b, "x"), "more words\n");
    assert_eq!(b.counts().unwrap().quarantined, 0);
}

#[test]
fn a_lost_log_does_not_get_the_end_of_a_history_without_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let first = TestRelay::start(&dir.path().join("relay"));
    let (url, port) = (first.url(), first.address().port());
    let b = device(dir.path(), "b");
    b.documents("pieces").insert(&json!({ "id": "x", "lyrics": "beginning\n" })).unwrap();
    sync(&b, &url);
    drop(first);
    b.documents("pieces").document("x").splice_text("lyrics", 0, 0, "end, ").unwrap();
    std::fs::remove_dir_all(dir.path().join("relay")).unwrap();
    let _second = TestRelay::start_with(&dir.path().join("relay"), Auth::Local, port);
    sync(&b, &url);
    let c = device(dir.path(), "c");
    sync(&c, &url);
    assert_eq!(lyrics(&c, "x"), "end, beginning\n");
    assert_eq!(c.counts().unwrap().quarantined, 0);
}

#[test]
fn a_relay_address_that_is_none_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    for url in ["", "relay.example.org", "ftp://x", "http://", "https://u:p@x"] {
        let error = a.connect(Relay::new(url)).unwrap_err();
        assert!(matches!(&error, SyncError::BadUrl { .. }), "{error}");
    }
    assert!(matches!(a.sync_now(), Err(SyncError::NotConnected)));
    assert_eq!(a.status().state, SyncState::LocalOnly);
    let nothing: Vec<(String, String, String, Value)> = Vec::new();
    assert_eq!(contents(&a), nothing);
}

/// A document that comes in many pieces is one document, whatever pages they come in.
#[test]
fn a_summary_counts_documents_and_not_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let [a, b, c] = ["a", "b", "c"].map(|name| device(dir.path(), name));
    // Three pages of half a megabyte, each with a part of every document.
    let mut random = Random(7);
    let mut noise =
        move || -> String { (0..4_000).map(|_| format!("{:016x}", random.below(u64::MAX))).collect() };
    for n in 0..15 {
        for id in ["stays", "goes"] {
            a.documents("pieces").upsert(id, &json!({ format!("part{n}"): noise() })).unwrap();
        }
        sync(&a, &relay.url());
    }
    let counts = |summary: &SyncSummary| {
        let counts = &summary.collections["pieces"];
        (counts.new, counts.updated, counts.deleted)
    };
    assert_eq!(counts(&sync(&b, &relay.url())), (2, 0, 0));
    for n in 0..15 {
        for id in ["stays", "goes"] {
            a.documents("pieces").upsert(id, &json!({ format!("part{n}"): noise() })).unwrap();
        }
        sync(&a, &relay.url());
    }
    a.documents("pieces").delete("goes").unwrap();
    sync(&a, &relay.url());
    assert_eq!(counts(&sync(&b, &relay.url())), (0, 1, 1));
    assert_eq!(counts(&sync(&c, &relay.url())), (1, 0, 0), "what came and went is not worth a word");
}
