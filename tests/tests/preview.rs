//! Many documents at once: shown as they came, merged afterwards, and nothing built on what was only claimed.

use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{Automerge, ObjType, ROOT};
use motet::{FieldKind, Relay, Schema};
use motet_proto::payload::{Payload, Preview};
use motet_proto::{DeviceId, DocumentId, Entry, Kind, SpaceId, envelope};
use motet_tests::raw::{entry, pull, push};
use motet_tests::{TestRelay, contents, device, sync, wait_until};
use serde_json::{Value, json};

fn song(n: usize) -> Value {
    let lyrics = format!("Kaulana nā pua aʻo Hawaiʻi {n}\nKūpaʻa ma hope o ka ʻāina\n").repeat(1 + n % 12);
    json!({ "title": format!("Mele {n}"), "lyrics": lyrics, "sung": n, "mood": "secret" })
}

#[test]
fn a_fresh_device_ends_with_what_the_others_have_whatever_came_as_what() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    a.apply_schema(&Schema::new().field("pieces", "mood", FieldKind::Local)).unwrap();
    let pieces = a.documents("pieces");
    let songs = (0..1_500).map(|n| (n.to_string(), song(n))).collect::<Vec<_>>();
    a.transaction(move |tx| {
        songs.iter().try_for_each(|(id, song)| tx.documents("pieces").upsert(id, song).map(|_| ()))
    })
    .unwrap();
    // Some are edited or deleted before they are sent, some after: those come in later pages.
    let edit = |range: std::ops::Range<usize>| {
        range
            .for_each(|n| _ = pieces.document(&n.to_string()).splice_text("lyrics", 0, 7, "Famous").unwrap());
    };
    edit(0..50);
    (50..60).for_each(|n| pieces.delete(&n.to_string()).unwrap());
    sync(&a, &relay.url());
    edit(40..50);
    edit(60..1_400);
    (1_400..1_410).for_each(|n| pieces.delete(&n.to_string()).unwrap());
    sync(&a, &relay.url());

    let b = device(dir.path(), "b");
    let summary = sync(&b, &relay.url());
    assert_eq!(summary.quarantined, 0);
    assert_eq!(b.counts().unwrap().documents, 1_480);
    let shared = |all: Vec<(String, String, String, Value)>| -> Vec<_> {
        let without = |mut value: Value| {
            value.as_object_mut().unwrap().remove("mood");
            value
        };
        all.into_iter().map(|(c, id, version, value)| (c, id, version, without(value))).collect()
    };
    assert_eq!(contents(&b), shared(contents(&a)));
    assert!(b.verify().unwrap().problems.is_empty());
    assert_eq!(b.documents("pieces").search("kūpaʻa", 2_000).unwrap().len(), 1_480);

    // What was shown is a document like any other.
    b.documents("pieces").document("1450").splice_text("lyrics", 0, 0, "1. ").unwrap();
    sync(&b, &relay.url());
    sync(&a, &relay.url());
    assert_eq!(contents(&b), shared(contents(&a)));
}

#[test]
fn documents_can_be_edited_as_soon_as_they_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    let songs = (0..2_000).map(|n| (n.to_string(), song(n))).collect::<Vec<_>>();
    a.transaction(move |tx| {
        songs.iter().try_for_each(|(id, song)| tx.documents("pieces").upsert(id, song).map(|_| ()))
    })
    .unwrap();
    sync(&a, &relay.url());
    let b = device(dir.path(), "b");
    b.connect(Relay::new(&relay.url())).unwrap();
    let pieces = b.documents("pieces");
    for n in (0..2_000).step_by(37) {
        let id = n.to_string();
        wait_until("it is shown", Duration::from_secs(20), || pieces.get(&id).unwrap().is_some());
        pieces.document(&id).splice_text("lyrics", 0, 0, "ʻae, ").unwrap();
    }
    b.sync_now().unwrap();
    sync(&a, &relay.url());
    assert_eq!(contents(&a), contents(&b));
    let edited = pieces.get("37").unwrap().unwrap();
    assert!(edited["lyrics"].as_str().unwrap().starts_with("ʻae, Kaulana"));
    assert!(b.verify().unwrap().problems.is_empty());
}

/// A hostile device whose previews say one thing and whose documents another, or are none.
#[test]
fn a_preview_that_lies_is_put_right_and_what_is_no_document_goes() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let a = device(dir.path(), "a");
    a.documents("pieces").insert(&json!({ "id": "good", "lyrics": "words" })).unwrap();
    sync(&a, &relay.url());
    let schema = Payload::decode(
        &envelope::open(0, &pull(&relay.url())[0].payload).unwrap(),
        SpaceId::DEFAULT,
        DocumentId::derive(SpaceId::DEFAULT, "pieces", "good"),
    );
    let schema = schema.unwrap().preview.unwrap().schema;

    let mut plain = Automerge::new();
    let mut tx = plain.transaction();
    tx.put(ROOT, "title", "true").unwrap();
    tx.commit();
    let mut deep = Automerge::new();
    let mut tx = deep.transaction();
    let mut inner = ROOT;
    (0..5_000).for_each(|_| inner = tx.put_object(&inner, "a", ObjType::Map).unwrap());
    tx.commit();
    let heads = |am: &Automerge| am.get_heads().iter().map(|head| head.0).collect::<Vec<_>>();
    let snapshot = |am: &Automerge| Kind::Snapshot { heads: heads(am), supersedes: Vec::new() };
    let entries: Vec<Entry> = (0..60)
        .map(|n| {
            let (kind, body) = match n % 6 {
                0 => (Kind::Changes, plain.save_after(&[])),
                1 => (snapshot(&plain), plain.save_nocompress()),
                2 => (Kind::Changes, deep.save_after(&[])),
                3 => (snapshot(&deep), plain.save_nocompress()),
                4 => (snapshot(&deep), deep.save_nocompress()),
                _ => (Kind::Changes, vec![1, 2, 3]),
            };
            let name = n.to_string();
            let preview = Some(Preview { json: r#"{"title":"a lie"}"#.into(), schema });
            let (collection, device_name) = ("pieces".into(), "hostile".into());
            let payload = Payload { collection, name, device_name, preview, body };
            let document = DocumentId::derive(SpaceId::DEFAULT, "pieces", &n.to_string());
            let sealed = envelope::seal_plain(&payload.encode());
            Entry::new(SpaceId::DEFAULT, document, DeviceId([9; 16]), kind, 0, sealed)
        })
        .collect();
    push(&relay.url(), entries);

    let b = device(dir.path(), "b");
    let summary = sync(&b, &relay.url());
    let shown = contents(&b);
    assert_eq!(shown.len(), 21);
    assert!(shown.iter().all(|(_, id, _, value)| id == "good" || value["title"] == "true"), "{shown:?}");
    assert_eq!((summary.quarantined, b.counts().unwrap().quarantined), (40, 40));
    assert!(b.verify().unwrap().problems.is_empty());
    sync(&a, &relay.url());
    assert_eq!(contents(&a), shown);

    let items = b.quarantined(100).unwrap();
    assert!(items.iter().all(|item| !item.reason.is_empty() && item.bytes > Some(0)), "{items:?}");
    b.retry_quarantined().unwrap();
    let again = sync(&b, &relay.url());
    // All of it is set aside again, and each stands there once.
    assert_eq!((again.quarantined, b.counts().unwrap().quarantined), (0, 40));
    assert_eq!(b.quarantined(100).unwrap().len(), 40);
    assert_eq!(contents(&b), shown);
}

/// A log that was lost and filled again holds what was edited late before what was made early.
#[test]
fn an_edit_that_lies_before_its_document_in_the_log_waits_for_it_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let mut am = Automerge::new();
    let mut tx = am.transaction();
    tx.put(ROOT, "title", "first").unwrap();
    tx.commit();
    let made = am.save_after(&[]);
    let heads = am.get_heads();
    let mut tx = am.transaction();
    tx.put(ROOT, "title", "second").unwrap();
    tx.commit();
    let edit = am.save_after(&heads);
    let whole =
        Kind::Snapshot { heads: am.get_heads().iter().map(|head| head.0).collect(), supersedes: Vec::new() };
    let entries: Vec<Entry> = (0..40)
        .flat_map(|n| {
            let (a, b) = (format!("snapshot {n}"), format!("changes {n}"));
            [
                entry(&a, Kind::Changes, edit.clone()),
                entry(&b, Kind::Changes, edit.clone()),
                entry(&a, whole.clone(), am.save_nocompress()),
                entry(&b, Kind::Changes, made.clone()),
            ]
        })
        .collect();
    push(&relay.url(), entries);
    let b = device(dir.path(), "b");
    assert_eq!(sync(&b, &relay.url()).quarantined, 0);
    assert_eq!(b.counts().unwrap().quarantined, 0);
    let shown = contents(&b);
    assert_eq!(shown.len(), 80);
    assert!(shown.iter().all(|(.., value)| value["title"] == "second"));
}
