//! Two replicas on one file: each goes on from what the other has written, whatever it holds in memory.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use motet::{DocumentState, Field, FieldKind, Query, Relay, Replica, Schema, field};
use motet_tests::random::{Random, seed};
use motet_tests::{TestRelay, sync, wait_until};
use serde_json::{Value as Json, json};

/// Of what the documents are.
const NOTES: &str = "notes";

fn open(file: &Path, schema: &Schema) -> Replica {
    let replica = Replica::builder(file).device_name("beside").open().unwrap();
    replica.apply_schema(schema).unwrap();
    replica
}

/// What is declared of a number may change while both hold documents.
fn declared(way: u64) -> Schema {
    let kinds = [FieldKind::Register, FieldKind::Ask, FieldKind::Local];
    let text = Field::text().max_len(100_000_000);
    Schema::new().field(NOTES, "text", text).field(NOTES, "kind", kinds[way as usize].clone())
}

/// A document as it has to be.
#[derive(Default)]
struct Wanted {
    text: String,
    kind: Option<u64>,
    is_deleted: bool,
    is_purged: bool,
}

impl Wanted {
    fn shown(&self, id: &str) -> Option<Json> {
        let mut shown = json!({ "id": id, "text": self.text });
        if let Some(kind) = self.kind {
            shown["kind"] = kind.into();
        }
        (!self.is_deleted && !self.is_purged).then_some(shown)
    }
}

fn words(random: &mut Random, count: u64) -> String {
    let words = ["kai ", "laʻi ", "pō ", "🌊", "ua\n", "é"];
    (0..count).map(|_| words[random.below(words.len() as u64) as usize]).collect()
}

fn splice(replica: &Replica, id: &str, wanted: &mut Wanted, random: &mut Random) {
    let length = wanted.text.chars().count() as u64;
    let at = random.below(length + 1);
    let delete = random.below((length - at).min(5) + 1);
    let count = 1 + random.below(4);
    let insert = words(random, count);
    replica.documents(NOTES).document(id).splice_text("text", at as usize, delete as usize, &insert).unwrap();
    let before: String = wanted.text.chars().take(at as usize).collect();
    let after: String = wanted.text.chars().skip((at + delete) as usize).collect();
    wanted.text = before + &insert + &after;
}

#[test]
fn each_goes_on_from_what_the_other_has_written() {
    let seed = seed();
    for round in 0..3 {
        let mut random = Random(seed.wrapping_add(round));
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let file = dir.path().join("a.db");
        let mut beside = [open(&file, &declared(0)), open(&file, &declared(0))];
        let far = open(&dir.path().join("far.db"), &declared(0));
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut way = 0;
        for step in 0..250 {
            let what = format!("seed {seed}, round {round}, step {step}");
            let side = random.below(2) as usize;
            let replica = &beside[side];
            if wanted.len() < 4 || random.below(30) == 0 {
                let count = if random.below(6) == 0 { 12_000 } else { 20 };
                let text = words(&mut random, count);
                replica.documents(NOTES).upsert(&wanted.len().to_string(), &json!({ "text": text })).unwrap();
                wanted.push(Wanted { text, ..Wanted::default() });
                continue;
            }
            let n = random.below(wanted.len() as u64) as usize;
            let (id, document) = (n.to_string(), &mut wanted[n]);
            let notes = replica.documents(NOTES);
            let is_live = document.shown(&id).is_some();
            match random.below(24) {
                0..=9 if is_live => splice(replica, &id, document, &mut random),
                10 if is_live => {
                    document.text.push_str(&words(&mut random, 3));
                    notes.patch(&id, &json!({ "text": document.text })).unwrap();
                }
                11 | 12 if is_live => {
                    document.kind = Some(random.below(9));
                    notes.patch(&id, &json!({ "kind": document.kind })).unwrap();
                }
                13 if is_live => {
                    notes.delete(&id).unwrap();
                    document.is_deleted = true;
                }
                13..=15 if document.is_deleted && !document.is_purged => {
                    notes.document(&id).restore().unwrap();
                    document.is_deleted = false;
                }
                16 if document.is_deleted && !document.is_purged => {
                    replica.transaction(move |tx| tx.documents(NOTES).purge(&id)).unwrap();
                    document.is_purged = true;
                }
                17 => {
                    way = random.below(3);
                    replica.apply_schema(&declared(way)).unwrap();
                }
                18 => _ = replica.repair().unwrap(),
                19 => std::thread::sleep(Duration::from_millis(60)),
                20 if is_live => {
                    // Another device edits, and one of the two takes it in.
                    [replica, &far].iter().for_each(|replica| _ = sync(replica, &relay.url()));
                    splice(&far, &id, document, &mut random);
                    [&far, replica].iter().for_each(|replica| _ = sync(replica, &relay.url()));
                }
                21 if is_live => {
                    let message = "a write that fails takes nothing with it";
                    let failed = replica.transaction(move |tx| {
                        tx.documents(NOTES).splice_text(&id, "text", 0, 0, "lost")?;
                        Err::<(), _>(motet::WriteError::Rejected(message.into()))
                    });
                    assert!(failed.is_err(), "{what}");
                }
                22 if random.below(3) == 0 => {
                    beside[side] = open(&file, &declared(way));
                }
                _ => {
                    let shown = notes.get(&id).unwrap().map(|record| record.value);
                    assert_eq!(shown, document.shown(&id), "{what}, document {id}");
                }
            }
        }
        for replica in &beside {
            for (n, document) in wanted.iter().enumerate() {
                let id = n.to_string();
                let shown = replica.documents(NOTES).get(&id).unwrap().map(|record| record.value);
                assert_eq!(shown, document.shown(&id), "seed {seed}, round {round}, document {n}");
            }
        }
        assert_eq!(beside[0].verify().unwrap().problems, [], "seed {seed}, round {round}");
    }
}

/// Listeners of each hear what the other has written, also of edits whose projection the other has not made yet.
#[test]
fn each_hears_of_what_the_other_has_written() {
    let seed = seed();
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.db");
    let both = [open(&file, &declared(0)), open(&file, &declared(0))];
    for n in 0..5 {
        let count = if n == 0 { 30_000 } else { 5 };
        let text = words(&mut random, count);
        both[0].documents(NOTES).upsert(&n.to_string(), &json!({ "text": text })).unwrap();
    }
    std::thread::sleep(Duration::from_millis(800));
    let mut heard = [both[0].events(), both[1].events()];
    for round in 0..12 {
        heard.iter_mut().for_each(|events| while events.try_next().is_some() {});
        let mut written = [BTreeSet::new(), BTreeSet::new()];
        for n in 0..1 + random.below(4) {
            let (side, id) = (random.below(2) as usize, random.below(5).to_string());
            let notes = both[side].documents(NOTES);
            match random.below(3) {
                // Another value each time: what is there already is not written again.
                0 => _ = notes.patch(&id, &json!({ "kind": 10 * round + n })).unwrap(),
                _ => _ = notes.document(&id).splice_text("text", 0, 0, "é ").unwrap(),
            }
            written[1 - side].insert(id);
            std::thread::sleep(Duration::from_millis(random.below(2) * random.below(120)));
        }
        let begun = Instant::now();
        let mut told = [BTreeSet::new(), BTreeSet::new()];
        while !written.iter().zip(&told).all(|(written, told)| written.is_subset(told)) {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "seed {seed}, round {round}: {written:?} was written elsewhere, heard was {told:?}"
            );
            for (events, told) in heard.iter_mut().zip(&mut told) {
                while let Some(Ok(event)) = events.try_next() {
                    told.insert(event.id);
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What one declares holds at once for what the other reads and hands on.
#[test]
fn what_the_other_declares_holds_here() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.db");
    let shared = Schema::new().field(NOTES, "text", Field::text()).field("log", "text", FieldKind::Register);
    let [here, other] = [open(&file, &shared), open(&file, &shared)];
    let relay = TestRelay::start(&dir.path().join("relay"));
    here.documents(NOTES).upsert("1", &json!({ "text": "open", "old": 5 })).unwrap();
    here.documents("log").upsert("1", &json!({ "text": "open" })).unwrap();
    sync(&here, &relay.url());
    let later = Schema::new()
        .field(NOTES, "word", FieldKind::Local)
        .field(NOTES, "newer", Field::register().alias("old").max(3.0))
        .local("log");
    other.apply_schema(&later).unwrap();
    other.documents(NOTES).patch("1", &json!({ "word": "secret" })).unwrap();
    other.documents("log").upsert("2", &json!({ "text": "secret" })).unwrap();

    let shown = here.documents(NOTES).get("1").unwrap().unwrap();
    assert_eq!(shown.value, json!({ "id": "1", "text": "open", "newer": 5, "word": "secret" }));
    assert_eq!(here.verify().unwrap().problems, []);
    assert_eq!(here.documents(NOTES).violations().unwrap().len(), 1);
    let rows = here.documents(NOTES).find(&Query::new().filter(field("old").eq(5)));
    assert!(rows.unwrap_err().to_string().contains("newer"));
    assert!(!here.export_change_log(0).unwrap().to_string().contains("secret"));
    assert_eq!(here.shared_collections().unwrap(), [NOTES]);
    here.export_all(|line| assert!(!line.to_string().contains("secret"), "{line}")).unwrap();
    let handed_on = here.shared_fields(NOTES, shown.value).unwrap();
    assert_eq!(handed_on, Some(json!({ "id": "1", "text": "open", "newer": 5 })));
    assert_eq!(here.shared_fields("log", json!({ "id": "2", "text": "secret" })).unwrap(), None);
    assert_eq!(
        here.documents("log").document("2").status().unwrap().unwrap().state,
        DocumentState::LocalOnly
    );
}

/// What was replaced before a field was shared is not handed on by whoever began to export while it was to stay here.
#[test]
fn an_export_is_one_view_of_documents_and_declarations() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.db");
    let local = Schema::new().field(NOTES, "word", FieldKind::Local).field("z", "word", FieldKind::Local);
    for all in [false, true] {
        let [here, other] = [open(&file, &local), open(&file, &local)];
        for id in ["1", "2"] {
            here.documents(NOTES).upsert(id, &json!({ "word": "secret" })).unwrap();
            here.documents("z").upsert(id, &json!({ "word": "secret" })).unwrap();
        }
        let shared = Schema::new().field(NOTES, "word", FieldKind::Register).field(
            "z",
            "newer",
            Field::register().alias("word"),
        );
        let mut lines: Vec<Json> = Vec::new();
        let each = |line: &Json| {
            if lines.is_empty() {
                for collection in [NOTES, "z"] {
                    other.documents(collection).patch("2", &json!({ "word": "open" })).unwrap();
                }
                other.apply_schema(&shared).unwrap();
            }
            lines.push(line.clone());
        };
        match all {
            true => here.export_all(each).unwrap(),
            false => here.export(NOTES, each).unwrap(),
        }
        let told = format!("{lines:?}");
        assert!(!told.contains("secret") && !told.contains("newer"), "{told}");
        assert_eq!(lines.len(), if all { 5 } else { 2 }, "{told}");
        assert_eq!(here.documents(NOTES).get("2").unwrap().unwrap()["word"], "open");
        // Once more from the start.
        drop((here, other));
        std::fs::remove_file(&file).unwrap();
    }
}

/// Writes that nobody waits for are made in their order, whatever has to be composed before them, and none is lost when the app closes.
#[test]
fn writes_that_nobody_waits_for_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.db");
    let replica = open(&file, &declared(0));
    let mut random = Random(1);
    let big = words(&mut random, 40_000);
    let notes = replica.documents(NOTES);
    let mut waiting = Vec::new();
    for n in 0..40 {
        let text = if n % 8 == 7 { format!("{n} {big}") } else { n.to_string() };
        waiting.push(notes.upsert_async("1", &json!({ "text": text, "kind": n })));
        waiting.push(notes.document("1").splice_text_async("text", 0, 0, "<"));
        if n == 20 {
            waiting.push(notes.document("1").splice_text_async("text", 1, 0, &big));
        }
    }
    drop((notes, replica));
    waiting.into_iter().for_each(|write| _ = write.durable().unwrap());
    let replica = open(&file, &declared(0));
    let shown = replica.documents(NOTES).get("1").unwrap().unwrap().value;
    assert_eq!(shown["kind"], 39);
    assert_eq!(shown["text"], format!("<39 {big}"));
    assert_eq!(replica.verify().unwrap().problems, []);
}

/// What arrives goes by what the other has declared: the names of fields, also of documents that are shown before they are merged.
#[test]
fn what_arrives_goes_by_what_the_other_declared() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let file = dir.path().join("a.db");
    let [here, other] = [open(&file, &Schema::new()), open(&file, &Schema::new())];
    here.connect(Relay::new(&relay.url())).unwrap();
    here.sync_now().unwrap();
    other.apply_schema(&Schema::new().field(NOTES, "newer", Field::register().alias("word"))).unwrap();
    let far = open(&dir.path().join("far.db"), &Schema::new());
    far.transaction(move |tx| {
        (0..1_000)
            .try_for_each(|n| tx.documents(NOTES).upsert(&n.to_string(), &json!({ "word": n })).map(drop))
    })
    .unwrap();
    sync(&far, &relay.url());
    let is_called_so = |replica: &Replica| {
        let all = replica.documents(NOTES).list().unwrap();
        assert!(all.iter().all(|record| record.value.get("word").is_none()), "{:?}", all.first());
        all.len() == 1_000
    };
    wait_until("all of them", Duration::from_secs(30), || is_called_so(&here) & is_called_so(&other));
}
