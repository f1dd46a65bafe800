//! What a device takes from others that mean harm: whoever holds a token of the account, or runs the relay.

use std::process::{Command, Stdio};
use std::time::Duration;

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, Change, ObjType, ROOT, ScalarValue};
use motet_proto::message::Outcome;
use motet_proto::payload::Payload;
use motet_proto::{Entry, Kind, SpaceId, envelope};
use motet_tests::raw::{self, bomb, entry, push};
use motet_tests::{Cli, TestRelay, contents, device, program, sync};
use serde_json::json;

/// Peak memory of this process, in MB.
fn peak_mb() -> u64 {
    peak_mb_of("self")
}

fn peak_mb_of(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or_default() / 1_024
}

#[test]
fn a_few_bytes_that_open_to_millions_of_operations_are_set_aside_unread() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let [a, b] = ["a", "b"].map(|name| device(dir.path(), name));
    a.documents("pieces").upsert("before", &json!({ "title": "mua" })).unwrap();
    sync(&a, &relay.url());
    let counts = [1_000_000, 50_000_000, 1 << 40, 1 << 62];
    let entries = counts.iter().enumerate().map(|(n, count)| {
        let bytes = bomb(*count);
        assert!(bytes.len() < 130);
        entry(&format!("bomb{n}"), Kind::Changes, bytes)
    });
    assert!(
        push(&relay.url(), entries.collect()).iter().all(|outcome| matches!(outcome, Outcome::Stored(_)))
    );
    a.documents("pieces").upsert("after", &json!({ "title": "ma hope" })).unwrap();
    sync(&a, &relay.url());
    let before = peak_mb();
    sync(&b, &relay.url());
    assert!(peak_mb() < before + 200, "{before} MB became {} MB", peak_mb());
    let ids: Vec<_> = contents(&b).into_iter().map(|(_, id, ..)| id).collect();
    assert_eq!(ids, ["after", "before"]);
    let aside = b.quarantined(10).unwrap();
    assert_eq!(aside.len(), counts.len());
    assert!(aside.iter().all(|item| item.reason.contains("operations")), "{:?}", aside[0].reason);
    // The position has moved: they do not come again.
    assert_eq!(sync(&b, &relay.url()).received, 0);
}

#[test]
fn many_changes_that_each_open_to_much_fill_no_document() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let b = Cli::init(dir.path(), "b", &relay.url());
    // Each of another device, so that all are changes of one document.
    let actors = (1..=40_u8).map(|actor| {
        let mut bytes = bomb(130_000);
        *bytes.iter_mut().skip(12).find(|byte| **byte == 7).unwrap() = actor;
        raw::checked(bytes)
    });
    let entries: Vec<_> = actors.map(|bytes| entry("one", Kind::Changes, bytes)).collect();
    push(&relay.url(), entries);
    let (is_done, said, peak) = watched(&mut b.command(&["sync"]));
    assert!(is_done && peak < 1_500, "{peak} MB, {said}");
    let b = device(dir.path(), "b");
    let aside = b.quarantined(100).unwrap();
    assert!(aside.len() >= 30, "{}", aside.len());
    assert!(b.verify().unwrap().problems.is_empty());
}

/// A change of a stranger that puts a text of one letter: a few hundred bytes, once they are packed.
fn long_text(letters: usize) -> Vec<u8> {
    let mut am = Automerge::new();
    let mut tx = am.transaction();
    let text = tx.put_object(ROOT, "lyrics", ObjType::Text).unwrap();
    tx.splice_text(&text, 0, 0, &"a".repeat(letters)).unwrap();
    tx.put(ROOT, "title", "by a stranger").unwrap();
    tx.commit_with(CommitOptions::default().with_time(1));
    am.save_after(&[])
}

/// Runs a command to its end; returns whether it succeeded, what it said, and the most memory that it had, in MB.
fn watched(command: &mut Command) -> (bool, String, u64) {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        peak = peak.max(peak_mb_of(&child.id().to_string()));
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    (output.status.success(), said.concat(), peak)
}

#[test]
fn a_page_that_opens_to_much_is_taken_in_slice_by_slice() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let names: Vec<_> = (0..24).map(|n| format!("{n:02}")).collect();
    let text = long_text(500_000);
    let entries: Vec<_> = names.iter().map(|name| entry(name, Kind::Changes, text.clone())).collect();
    assert!(entries.iter().map(|entry| entry.payload.len()).sum::<usize>() < 100_000);
    push(&relay.url(), entries);
    let b = Cli::init(dir.path(), "b", &relay.url());
    let (is_done, said, peak) = watched(&mut b.command(&["sync"]));
    assert!(is_done, "{said}");
    // All at once they would take 24 times 45 MB.
    assert!(peak < 800, "{peak} MB");
    assert_eq!(b.json(&["list", "pieces", "--json"]).as_array().unwrap().len(), names.len());
}

#[test]
fn a_payload_that_opens_to_very_much_more_is_set_aside_unopened() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let [a, b] = ["a", "b"].map(|name| device(dir.path(), name));
    let mut dense = entry("dense", Kind::Changes, bomb(1));
    let mut packed = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
    packed.insert(0, 1);
    assert!(packed.len() < 10_000);
    dense = Entry::new(SpaceId::DEFAULT, dense.document, dense.device, dense.kind, dense.suite, packed);
    push(&relay.url(), vec![dense]);
    // What a device itself makes is taken, however well it compresses.
    let words = "hō".repeat(800_000);
    a.documents("pieces").upsert("long", &json!({ "lyrics": words, "title": "mea hou" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    assert_eq!(contents(&a), contents(&b));
    let aside = b.quarantined(10).unwrap();
    assert_eq!(aside.len(), 1);
    assert!(aside[0].reason.contains("256 times"), "{}", aside[0].reason);
}

#[test]
fn what_ends_the_process_is_set_aside_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    a.documents("pieces").upsert("before", &json!({ "title": "mua" })).unwrap();
    sync(&a, &relay.url());
    push(&relay.url(), vec![entry("huge", Kind::Changes, long_text(3_000_000))]);
    a.documents("pieces").upsert("after", &json!({ "title": "ma hope" })).unwrap();
    sync(&a, &relay.url());
    let b = Cli::init(dir.path(), "b", &relay.url());
    for attempt in ["first", "second"] {
        let (is_done, said) = sync_with_little_memory(&b);
        assert!(!is_done && said.contains("memory"), "{attempt}: {said}");
    }
    let (is_done, said) = sync_with_little_memory(&b);
    assert!(is_done, "{said}");
    let ids: Vec<_> = contents(&device(dir.path(), "b")).into_iter().map(|(_, id, ..)| id).collect();
    assert_eq!(ids, ["after", "before"]);
    let aside = device(dir.path(), "b").quarantined(10).unwrap();
    assert_eq!(aside.len(), 1);
    assert!(aside[0].reason.contains("ended 2 times"), "{}", aside[0].reason);
    // Where there is room for it, it can be tried again.
    let b = device(dir.path(), "b");
    b.retry_quarantined().unwrap();
    sync(&b, &relay.url());
    assert_eq!(b.documents("pieces").get("huge").unwrap().unwrap()["title"], "by a stranger");
    assert!(b.quarantined(10).unwrap().is_empty());
}

/// A change of a stranger that makes a list of nulls: about a hundred bytes, and 40 MB of memory.
fn list_of_nulls(actor: u8) -> Vec<u8> {
    let mut am = Automerge::new().with_actor(ActorId::from([actor; 16]));
    let mut tx = am.transaction();
    let list = tx.put_object(ROOT, format!("list {actor}"), ObjType::List).unwrap();
    let nulls = vec![ScalarValue::Null; 100_000];
    tx.splice(&list, 0, 0, nulls).unwrap();
    tx.commit_with(CommitOptions::default().with_time(1));
    am.save_after(&[])
}

/// What a device with little memory says to `sync`; whether it ended as it should.
fn sync_with_little_memory(device: &Cli) -> (bool, String) {
    let line =
        format!("ulimit -v 250000; exec {} --db {} sync", program("motet").display(), device.db().display());
    let mut command = Command::new("sh");
    command.arg("-c").arg(line).env("MALLOC_ARENA_MAX", "1").env_remove("MOTET_DB");
    let (is_done, said, _) = watched(&mut command);
    (is_done, said)
}

/// Each is small and is merged; all of them in memory at once would end the process.
#[test]
fn many_small_entries_that_take_much_memory_are_taken_in_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    let nulls = list_of_nulls(1);
    assert!(nulls.len() < 200, "{}", nulls.len());
    push(&relay.url(), (0..12).map(|n| entry(&n.to_string(), Kind::Changes, nulls.clone())).collect());
    a.documents("pieces").upsert("last", &json!({ "title": "ma hope" })).unwrap();
    sync(&a, &relay.url());
    let b = Cli::init(dir.path(), "b", &relay.url());
    let (is_done, said) = sync_with_little_memory(&b);
    assert!(is_done, "{said}");
    assert_eq!(b.json(&["list", "pieces", "--json"]).as_array().unwrap().len(), 13);
}

/// A list of numbers has a byte for each, and is packed to nothing.
#[test]
fn a_small_entry_with_very_many_elements_stops_no_device_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    let mut am = Automerge::new().with_actor(ActorId::from([7; 16]));
    let mut tx = am.transaction();
    let list = tx.put_object(ROOT, "list", ObjType::List).unwrap();
    tx.splice(&list, 0, 0, vec![ScalarValue::Int(1); 600_000]).unwrap();
    tx.commit_with(CommitOptions::default().with_time(1));
    let many = am.get_changes(&[]).remove(0).raw_bytes().to_vec();
    assert!(many.len() > 500_000 && many.len() < 1 << 20, "{}", many.len());
    push(&relay.url(), vec![entry("many", Kind::Changes, many)]);
    a.documents("pieces").upsert("last", &json!({ "title": "ma hope" })).unwrap();
    sync(&a, &relay.url());
    let b = Cli::init(dir.path(), "b", &relay.url());
    let attempts: Vec<_> = (0..3).map(|_| sync_with_little_memory(&b)).collect();
    assert!(attempts[2].0, "{attempts:#?}");
    assert!(device(dir.path(), "b").documents("pieces").get("last").unwrap().is_some());
}

/// Together they are one document that is too large for the device: it ends a few times at most, and the rest is synced.
#[test]
fn small_entries_that_fill_a_document_stop_no_device_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    push(&relay.url(), (1..=7).map(|actor| entry("one", Kind::Changes, list_of_nulls(actor))).collect());
    a.documents("pieces").upsert("last", &json!({ "title": "ma hope" })).unwrap();
    // Where there is memory for it, all of it is merged.
    sync(&a, &relay.url());
    let b = Cli::init(dir.path(), "b", &relay.url());
    let attempts: Vec<_> = (0..4).map(|_| sync_with_little_memory(&b)).collect();
    assert!(attempts[3].0, "{attempts:#?}");
    let b = device(dir.path(), "b");
    assert!(b.documents("pieces").get("last").unwrap().is_some());
    b.retry_quarantined().unwrap();
    sync(&b, &relay.url());
    assert_eq!(contents(&b), contents(&a));
    assert!(b.quarantined(10).unwrap().is_empty());
}

#[test]
fn nobody_can_take_the_place_of_what_every_device_makes() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let [a, b, c] = ["a", "b", "c"].map(|name| device(dir.path(), name));
    a.documents("pieces").upsert("1", &json!({ "lyrics": "E hoʻi ke aloha", "title": "mele" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    // The actor of the text, and a change of it with a smaller hash.
    let page = raw::pull(&relay.url());
    let payload = Payload::decode(
        &envelope::open(page[0].suite, &page[0].payload).unwrap(),
        SpaceId::DEFAULT,
        page[0].document,
    );
    let mut am = Automerge::new();
    am.load_incremental(&payload.unwrap().body).unwrap();
    let text = am.get_changes(&[]).into_iter().find(|change| change.deps().is_empty()).unwrap();
    let forged = (0..).map(|n| {
        let mut am = Automerge::new().with_actor(text.actor_id().clone());
        let mut tx = am.transaction();
        tx.put(ROOT, "lyrics", format!("forged {n}")).unwrap();
        tx.commit_with(CommitOptions::default().with_time(0));
        am.get_changes(&[]).remove(0)
    });
    let forged = forged.into_iter().find(|change| change.hash() < text.hash()).unwrap();
    push(&relay.url(), vec![entry("1", Kind::Changes, forged.raw_bytes().to_vec())]);
    // `c` sees both for the first time.
    for replica in [&a, &b, &c, &a, &b, &c] {
        sync(replica, &relay.url());
        assert_eq!(replica.documents("pieces").get("1").unwrap().unwrap()["lyrics"], "E hoʻi ke aloha");
    }
    b.documents("pieces").patch("1", &json!({ "lyrics": "E hoʻi ke aloha i ke kai" })).unwrap();
    for replica in [&b, &a, &c] {
        sync(replica, &relay.url());
        let song = replica.documents("pieces").get("1").unwrap().unwrap();
        assert_eq!(song["lyrics"], "E hoʻi ke aloha i ke kai");
        assert!(replica.verify().unwrap().problems.is_empty());
    }
}

#[test]
fn a_chain_of_changes_in_reverse_order_is_merged_as_fast_as_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let mut am = Automerge::new();
    for n in 0..6_000 {
        let mut tx = am.transaction();
        tx.put(ROOT, "title", n).unwrap();
        tx.commit_with(CommitOptions::default().with_time(n));
    }
    let changes = am.get_changes(&[]);
    let bytes = |changes: &mut dyn Iterator<Item = &Change>| {
        changes.flat_map(|change| change.raw_bytes().to_vec()).collect::<Vec<u8>>()
    };
    let [forwards, backwards] = [bytes(&mut changes.iter()), bytes(&mut changes.iter().rev())];
    push(&relay.url(), vec![entry("1", Kind::Changes, backwards), entry("2", Kind::Changes, forwards)]);
    let a = device(dir.path(), "a");
    sync(&a, &relay.url());
    for id in ["1", "2"] {
        assert_eq!(a.documents("pieces").get(id).unwrap().unwrap()["title"], 5_999);
    }
}

/// A change of a stranger that writes a title and has a message.
fn edit(message: &str) -> Vec<u8> {
    let mut am = Automerge::new();
    let mut tx = am.transaction();
    tx.put(ROOT, "title", "by a stranger").unwrap();
    tx.commit_with(CommitOptions::default().with_message(message).with_time(1));
    am.save_after(&[])
}

#[test]
fn an_edit_deletes_nothing_whatever_its_message_says() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let [a, b] = ["a", "b"].map(|name| device(dir.path(), name));
    for (n, message) in
        ["motet:purge", "motet:delete", "motet:adopt", "motet:taken-up", "motet:else"].iter().enumerate()
    {
        let id = n.to_string();
        a.documents("pieces").upsert(&id, &json!({ "lyrics": "E hoʻi ke aloha" })).unwrap();
        sync(&a, &relay.url());
        push(&relay.url(), vec![entry(&id, Kind::Changes, edit(message))]);
        for replica in [&a, &b] {
            sync(replica, &relay.url());
            let song = replica.documents("pieces").get(&id).unwrap().unwrap();
            assert_eq!(song["lyrics"], "E hoʻi ke aloha", "{message}");
            assert_eq!(song["title"], "by a stranger", "{message}");
            assert!(replica.documents("pieces").trash().unwrap().is_empty(), "{message}");
        }
    }
}

#[test]
fn an_app_cannot_give_its_changes_the_messages_of_the_library() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    for message in ["motet:purge", "motet:delete", "motet:", &"long ".repeat(1_000)] {
        let message = message.to_owned();
        let refused = a.transaction(move |tx| {
            tx.set_message(&message)?;
            tx.documents("pieces").upsert("1", &json!({ "title": "x" }))
        });
        assert!(refused.unwrap_err().to_string().contains("message"));
    }
    assert!(a.documents("pieces").get("1").unwrap().is_none());
}

#[test]
fn a_long_text_is_deleted_by_few_operations() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let [a, b] = ["a", "b"].map(|name| device(dir.path(), name));
    let text = "E hoʻi ke aloha i ke kai\n".repeat(12_000);
    a.documents("pieces").upsert("1", &json!({ "lyrics": format!("mua {text}ma hope") })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    a.documents("pieces").document("1").splice_text("lyrics", 4, text.chars().count(), "").unwrap();
    // The same text at once on both: one of the two is taken out again.
    let pasted = "Aloha kakahiaka kākou\n".repeat(9_000);
    for replica in [&a, &b] {
        let mut record = replica.documents("pieces").get("1").unwrap().unwrap();
        record["notes"] = pasted.clone().into();
        replica.documents("pieces").update(&mut record).unwrap();
    }
    for replica in [&a, &b, &a, &b] {
        sync(replica, &relay.url());
    }
    for replica in [&a, &b] {
        let song = replica.documents("pieces").get("1").unwrap().unwrap();
        assert_eq!(song["lyrics"], "mua ma hope");
        assert!(song["notes"] == pasted.as_str());
        assert!(replica.quarantined(10).unwrap().is_empty());
    }
}

#[test]
fn no_field_has_the_name_of_a_mark() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    let refused = a.documents("pieces").upsert("1", &json!({ "\u{1}overlap:text:abc": "x" })).unwrap_err();
    assert!(refused.to_string().contains("overlap"), "{refused}");
    assert!(a.documents("pieces").get("1").unwrap().is_none());
}
