//! Editors against a plain model: random typing in several editors of one document, with writes of others, refreshes, syncs and
//! deletes in between.
//!
//! The model knows no versions and no merges. Every line, list item and increment that anybody writes is unlike all others, so the
//! model only counts: what was written is there once, what was taken out is not there. (How texts merge that lose words as well is shown in `overlap.rs`.)

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use motet::{Editor, Field, FieldKind, Replica, Schema, json};
use motet_tests::random::{Random, seed};
use motet_tests::{TestRelay, contents, device, sync, wait_until};
use serde_json::Value;

/// Scripts, unless `MOTET_SCRIPTS` says otherwise.
const SCRIPTS: u64 = 20;
const STEPS: u64 = 30;

/// What the document must hold in the end.
#[derive(Default, Debug)]
struct Model {
    lines: BTreeSet<String>,
    items: BTreeSet<String>,
    plays: i64,
    written: u64,
}

/// Somebody who types: an editor, and what is not in the document yet.
struct Typist {
    at: usize,
    editor: Option<Editor<Value>>,
}

struct World<'w> {
    random: Random,
    model: Model,
    devices: Vec<Replica>,
    typists: Vec<Typist>,
    relay: &'w TestRelay,
    script: Vec<String>,
}

#[test]
fn what_is_typed_is_there_once() {
    let seed = seed();
    let relay_dir = tempfile::tempdir().unwrap();
    for n in 0..motet_tests::random::count("MOTET_SCRIPTS", SCRIPTS) {
        let relay = TestRelay::start(&relay_dir.path().join(n.to_string()));
        let dir = tempfile::tempdir().unwrap();
        let mut world = World::new(dir.path(), &relay, Random(seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let run = std::panic::AssertUnwindSafe(|| {
            (0..STEPS).for_each(|_| world.step());
            world.finish();
        });
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed}, script {n}:\n{}\n{:#?}", world.script.join("\n"), world.model);
            std::panic::resume_unwind(panic);
        }
    }
}

impl<'w> World<'w> {
    fn new(dir: &Path, relay: &'w TestRelay, random: Random) -> Self {
        let schema = Schema::new()
            .field("pieces", "title", Field::register().min_len(2))
            .field("pieces", "items", FieldKind::List)
            .field("pieces", "plays", FieldKind::Counter);
        let devices = ["a", "b"].map(|name| {
            let replica = device(dir, name);
            replica.apply_schema(&schema).unwrap();
            replica
        });
        let first = json!({ "title": "title", "lyrics": "", "items": [], "plays": 0 });
        devices[0].documents("pieces").upsert("song", &first).unwrap();
        devices.iter().for_each(|replica| _ = sync(replica, &relay.url()));
        // Two editors on one device, and one on the other.
        let typists = [0, 0, 1].map(|at| Typist { at, editor: None }).into();
        let (model, script) = (Model::default(), Vec::new());
        Self { random, model, devices: devices.into(), typists, relay, script }
    }

    fn step(&mut self) {
        let who = self.random.below(self.typists.len() as u64) as usize;
        let at = self.typists[who].at;
        let choice = self.random.below(20);
        self.script.push(format!("typist {who} on {at}: {choice}"));
        match choice {
            0..=8 => self.type_something(who),
            9 | 10 => self.save(who),
            11 | 12 => self.refresh(who),
            13 => self.close(who),
            14 | 15 => self.write_beside(at),
            16 => self.update_twice(at),
            17 | 18 => _ = sync(&self.devices[at], &self.relay.url()),
            _ => self.delete(at),
        }
    }

    /// The editor of a typist, opened if need be; `None` if the document is deleted there.
    fn open(&mut self, who: usize) -> Option<&mut Editor<Value>> {
        let typist = &mut self.typists[who];
        if typist.editor.is_none() {
            typist.editor = self.devices[typist.at].documents("pieces").edit("song").unwrap();
        }
        typist.editor.as_mut()
    }

    fn type_something(&mut self, who: usize) {
        let (what, place, token) = (self.random.below(6), self.random.below(1_000), self.token());
        let fails = self.random.below(4) == 0;
        let now = self.random.below(3) == 0;
        let Some(editor) = self.open(who) else { return };
        let changed = change(editor, what, place, &token, fails);
        // A title that is too short is told sooner or later; that is all that may be.
        let told = if now { editor.save() } else { editor.save_soon() };
        if let Err(error) = told {
            assert_eq!(error.code(), "write-rule");
            assert!(error.to_string().contains("title"), "{error}");
        }
        self.note(changed);
    }

    fn save(&mut self, who: usize) {
        let Some(editor) = self.open(who) else { return };
        let broken = editor["title"].as_str().unwrap().len() < 2;
        assert_eq!(editor.save().is_err(), broken);
        assert_eq!(editor.is_saved(), !broken);
        assert_eq!(
            editor.unsaved().iter().map(|f| f.name.as_str()).collect::<Vec<_>>(),
            match broken {
                true => vec!["title"],
                false => vec![],
            }
        );
    }

    /// What is shown after a refresh is the document, but for what cannot be saved.
    fn refresh(&mut self, who: usize) {
        let Some(editor) = self.open(who) else { return };
        let title = editor["title"].clone();
        let is_there = editor.refresh().unwrap();
        let mut shown = Value::clone(editor);
        let at = self.typists[who].at;
        let document = self.devices[at].documents("pieces").get("song").unwrap();
        assert_eq!(document.is_some(), is_there);
        let Some(document) = document else { return };
        if title.as_str().unwrap().len() < 2 {
            assert_eq!(shown["title"], title);
            shown["title"] = document["title"].clone();
        }
        assert_eq!(shown, document.value);
    }

    fn close(&mut self, who: usize) {
        let Some(editor) = self.typists[who].editor.take() else { return };
        let broken = editor["title"].as_str().unwrap().len() < 2;
        if self.random.below(2) == 0 {
            return drop(editor);
        }
        match editor.close() {
            Ok(()) => assert!(!broken),
            Err(unsaved) => {
                assert!(broken && unsaved.fields.len() == 1, "{unsaved}");
                assert_eq!(unsaved.fields[0].name, "title");
            }
        }
    }

    /// The app writes as well, without an editor.
    fn write_beside(&mut self, at: usize) {
        let token = self.token();
        let songs = self.devices[at].documents("pieces");
        if songs.get("song").unwrap().is_none() {
            return;
        }
        let changed = match self.random.below(3) {
            0 => {
                songs.document("song").splice_text("lyrics", 0, 0, &format!("{token}\n")).unwrap();
                Changed::Line(token)
            }
            1 => {
                songs.document("song").increment("plays", 3).unwrap();
                Changed::Plays(3)
            }
            _ => {
                songs.patch("song", &json!({ "title": token })).unwrap();
                Changed::Nothing
            }
        };
        self.note(changed);
    }

    /// A record that is written, changed and written again continues from what was written.
    fn update_twice(&mut self, at: usize) {
        let songs = self.devices[at].documents("pieces");
        let Some(mut record) = songs.get("song").unwrap() else { return };
        for _ in 0..2 {
            let (what, place, token) = (self.random.below(6), self.random.below(1_000), self.token());
            let changed = change(&mut record.value, what, place, &token, false);
            songs.update(&mut record).unwrap();
            self.note(changed);
        }
    }

    /// Another device has it deleted; it has seen all that is saved, and no word that is not.
    fn delete(&mut self, at: usize) {
        // The model does not know which lines the delete takes: first all that is typed is saved everywhere.
        for who in 0..self.typists.len() {
            if let Some(editor) = &mut self.typists[who].editor {
                _ = editor.refresh().unwrap();
            }
        }
        self.sync_all();
        let songs = self.devices[at].documents("pieces");
        if songs.get("song").unwrap().is_none() {
            return;
        }
        let Some(who) = self.typists.iter().position(|typist| typist.at != at && typist.editor.is_some())
        else {
            return;
        };
        songs.delete("song").unwrap();
        self.sync_all();
        let there = self.typists[who].at;
        assert!(self.devices[there].documents("pieces").get("song").unwrap().is_none());
        // Typed after the delete has arrived, and not knowing of it.
        let (place, token) = (self.random.below(1_000), self.token());
        let editor = self.typists[who].editor.as_mut().unwrap();
        let changed = change(editor, 0, place, &token, false);
        editor.save().ok();
        self.note(changed);
        assert!(self.devices[there].documents("pieces").get("song").unwrap().is_some(), "it is back");
        self.sync_all();
    }

    /// Until nobody has anything to tell: who merges two texts may write what they have in common, and the others have to hear of it.
    fn sync_all(&self) {
        for _ in 0..6 {
            let moved = |replica| {
                let summary = sync(replica, &self.relay.url());
                summary.sent + summary.received
            };
            if self.devices.iter().map(moved).sum::<u64>() == 0 {
                return;
            }
        }
        panic!("the devices never come to an end");
    }

    fn finish(&mut self) {
        for who in 0..self.typists.len() {
            self.close(who);
        }
        self.sync_all();
        assert_eq!(contents(&self.devices[0]), contents(&self.devices[1]));
        wait_until("nothing is pending", Duration::from_secs(10), || self.devices[0].status().pending == 0);
        let song = self.devices[0].documents("pieces").get("song").unwrap().unwrap();
        let lines: Vec<&str> = song["lyrics"].as_str().unwrap().lines().collect();
        let items: Vec<&str> =
            song["items"].as_array().unwrap().iter().map(|i| i.as_str().unwrap()).collect();
        let set = |of: &[&str]| of.iter().map(|token| (*token).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(
            (set(&lines), lines.len()),
            (self.model.lines.clone(), self.model.lines.len()),
            "{lines:?}"
        );
        assert_eq!(
            (set(&items), items.len()),
            (self.model.items.clone(), self.model.items.len()),
            "{items:?}"
        );
        assert_eq!(song["plays"], self.model.plays);
        for replica in &self.devices {
            let report = replica.verify().unwrap();
            assert!(report.problems.is_empty(), "{report:?}");
        }
    }

    /// A word unlike all others, also in its letters.
    fn token(&mut self) -> String {
        self.model.written += 1;
        let letters = ["ka", "pō", "nani", "hoʻi", "mai", "e", "ʻāina", "wai"];
        let word = |n: u64| letters[(n % letters.len() as u64) as usize];
        let random = self.random.below(1 << 20);
        format!("{}{:05x}{}{}", word(random), random, word(random >> 3), self.model.written)
    }

    fn note(&mut self, changed: Changed) {
        let Model { lines, items, plays, .. } = &mut self.model;
        match changed {
            Changed::Nothing => {}
            Changed::Line(line) => _ = lines.insert(line),
            Changed::Item(item) => _ = items.insert(item),
            Changed::NoItem(item) => _ = items.remove(&item),
            Changed::Plays(by) => *plays += by,
        }
    }
}

enum Changed {
    Nothing,
    Line(String),
    Item(String),
    NoItem(String),
    Plays(i64),
}

/// Changes a value as somebody does who sees it.
fn change(value: &mut Value, what: u64, place: u64, token: &str, fails: bool) -> Changed {
    let place = |length: usize| (place % (length as u64 + 1)) as usize;
    match what {
        0 | 1 => {
            let mut lines: Vec<String> =
                value["lyrics"].as_str().unwrap().lines().map(str::to_owned).collect();
            lines.insert(place(lines.len()), token.to_owned());
            value["lyrics"] = lines.iter().map(|line| format!("{line}\n")).collect::<String>().into();
            Changed::Line(token.to_owned())
        }
        2 => {
            let items = value["items"].as_array_mut().unwrap();
            let at = place(items.len());
            items.insert(at, token.into());
            Changed::Item(token.to_owned())
        }
        3 => {
            let items = value["items"].as_array_mut().unwrap();
            match items.is_empty() {
                true => Changed::Nothing,
                false => {
                    let at = place(items.len() - 1);
                    Changed::NoItem(items.remove(at).as_str().unwrap().to_owned())
                }
            }
        }
        4 => {
            value["plays"] = (value["plays"].as_i64().unwrap() + 2).into();
            Changed::Plays(2)
        }
        _ => {
            value["title"] = if fails { "x" } else { token }.into();
            Changed::Nothing
        }
    }
}
