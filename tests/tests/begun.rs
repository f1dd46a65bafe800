//! A text that several devices begin apart is one text: every word of it is there once, whatever is written in it before all have met.

use std::collections::{BTreeMap, BTreeSet};

use motet::{Collection, Replica, json};
use motet_tests::random::Random;
use motet_tests::{TestRelay, singer, sync};
use serde_json::Value;

/// Three devices, each two of which share a relay that the third does not know.
struct Ring {
    _dir: tempfile::TempDir,
    relays: Vec<TestRelay>,
    devices: Vec<Replica>,
}

impl Ring {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let relays = (0..3).map(|n| TestRelay::start(&dir.path().join(format!("relay{n}")))).collect();
        let devices = ["a", "b", "c"].map(|name| singer(dir.path(), name)).into();
        Self { _dir: dir, relays, devices }
    }

    /// Lets two devices hear of each other.
    fn meet(&self, one: usize, other: usize) {
        let relay = self.relays[3 - one - other].url();
        for device in [one, other, one] {
            sync(&self.devices[device], &relay);
        }
    }

    fn meet_all(&self) {
        for _ in 0..3 {
            [(0, 1), (1, 2), (2, 0)].into_iter().for_each(|(one, other)| self.meet(one, other));
        }
    }
}

fn songs(replica: &Replica) -> Collection<Value> {
    replica.documents("songs")
}

fn lyrics(replica: &Replica, id: &str) -> String {
    let record = songs(replica).get(id).unwrap();
    record.and_then(|record| record.value["lyrics"].as_str().map(str::to_owned)).unwrap_or_default()
}

/// A word that no other number has, and that shares little with any.
fn word(number: usize) -> String {
    let syllables = ["ka", "le", "mi", "no", "pu", "wa", "he", "ʻi"];
    (0..4).map(|place| syllables[(number >> (3 * place)) % 8]).collect()
}

/// What there is before the text is begun.
#[derive(Clone, Copy, Debug)]
enum Before {
    /// No document.
    Nothing,
    /// A document without the field.
    Document,
    /// A null that all know.
    Null,
    /// A text that all know was removed.
    Removed,
    /// A document that all know was deleted.
    Deleted,
}

impl Before {
    fn make(self, ring: &Ring, id: &str) {
        let songs = songs(&ring.devices[0]);
        match self {
            Self::Nothing => return,
            Self::Document => _ = songs.put(id, &json!({ "title": "t" })).unwrap(),
            Self::Null => _ = songs.put(id, &json!({ "lyrics": null })).unwrap(),
            Self::Removed => {
                songs.put(id, &json!({ "title": "t", "lyrics": "gone" })).unwrap();
                let mut record = songs.get(id).unwrap().unwrap();
                record.as_object_mut().unwrap().remove("lyrics");
                songs.update(&mut record).unwrap();
            }
            Self::Deleted => {
                songs.put(id, &json!({ "title": "t", "lyrics": "gone" })).unwrap();
                songs.delete(id).unwrap();
            }
        }
        ring.meet_all();
    }
}

struct Play<'a> {
    ring: &'a Ring,
    id: String,
    random: Random,
    words: usize,
    taken: BTreeSet<String>,
    log: Vec<String>,
}

impl Play<'_> {
    fn new_word(&mut self) -> String {
        self.words += 1;
        // Far apart, so that neighbours differ in each syllable.
        word(self.words * 1_171 % 4_096)
    }

    fn begin(&mut self, device: usize) {
        let lines = 1 + self.random.below(3);
        let mut text = String::new();
        for _ in 0..lines {
            let words: Vec<_> = (0..1 + self.random.below(3)).map(|_| self.new_word()).collect();
            text += &format!("{}\n", words.join(" "));
        }
        self.log.push(format!("{device} begins {text:?}"));
        songs(&self.ring.devices[device]).put(&self.id, &json!({ "lyrics": text })).unwrap();
    }

    fn edit(&mut self, device: usize) {
        let replica = &self.ring.devices[device];
        let text = lyrics(replica, &self.id);
        let ends: Vec<usize> =
            text.chars().enumerate().filter(|(_, c)| c.is_whitespace()).map(|(at, _)| at).collect();
        if ends.is_empty() {
            return self.begin(device);
        }
        let nth = self.random.below(ends.len() as u64) as usize;
        let (at, delete, insert) = match self.random.below(4) {
            0 => {
                let start = text.chars().take(ends[nth]).collect::<Vec<_>>();
                let start = start.iter().rposition(|c| c.is_whitespace()).map_or(0, |at| at + 1);
                let word: String = text.chars().skip(start).take(ends[nth] - start).collect();
                self.taken.insert(word);
                (start, ends[nth] - start, String::new())
            }
            1 => (ends[nth], 0, format!("\n{}", self.new_word())),
            _ => (ends[nth], 0, format!(" {}", self.new_word())),
        };
        self.log.push(format!("{device} at {at}, -{delete}, +{insert:?} in {text:?}"));
        songs(replica).splice_text(&self.id, "lyrics", at, delete, &insert).unwrap();
    }

    fn counts(text: &str) -> BTreeMap<&str, usize> {
        text.split_whitespace().fold(BTreeMap::new(), |mut counts, word| {
            *counts.entry(word).or_default() += 1;
            counts
        })
    }

    /// Plays a script; what is wrong at its end.
    fn play(&mut self, before: Before) -> Result<(), String> {
        before.make(self.ring, &self.id);
        for device in 0..3 {
            self.begin(device);
        }
        for _ in 0..2 + self.random.below(8) {
            let device = self.random.below(3) as usize;
            match self.random.below(2) {
                0 => {
                    let other = (device + 1) % 3;
                    self.log.push(format!("{device} meets {other}"));
                    self.ring.meet(device, other);
                }
                _ => self.edit(device),
            }
        }
        self.ring.meet_all();
        let texts: Vec<String> = self.ring.devices.iter().map(|device| lyrics(device, &self.id)).collect();
        let log = || format!("{}\n{texts:#?}", self.log.join("\n"));
        if texts.iter().any(|text| *text != texts[0]) {
            return Err(format!("devices differ\n{}", log()));
        }
        let counts = Self::counts(&texts[0]);
        if let Some((word, count)) = counts.iter().find(|(_, count)| **count > 1) {
            return Err(format!("{word} is there {count} times\n{}", log()));
        }
        for number in 1..=self.words {
            let word = word(number * 1_171 % 4_096);
            if !counts.contains_key(&word[..]) && !self.taken.contains(&word) {
                return Err(format!("{word} is missing\n{}", log()));
            }
        }
        if let Some(word) = self.taken.iter().find(|word| counts.contains_key(&word[..])) {
            return Err(format!("{word} was taken out and is there\n{}", log()));
        }
        Ok(())
    }
}

/// Plays scripts and says which failed.
fn play(before: Before) {
    let number = |name: &str, default| std::env::var(name).ok().map_or(default, |n| n.parse().unwrap());
    let (first, seeds) = (number("MOTET_SEED", 1), number("MOTET_SEEDS", 8));
    let ring = Ring::new();
    let mut failed = Vec::new();
    for seed in first..first + seeds {
        let (id, random) = (seed.to_string(), Random(seed));
        let mut play = Play { ring: &ring, id, random, words: 0, taken: BTreeSet::new(), log: Vec::new() };
        if let Err(error) = play.play(before) {
            failed.push(format!("MOTET_SEED={seed}: {error}"));
        }
    }
    assert!(failed.is_empty(), "{} of {seeds}\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn every_word_of_a_document_that_three_devices_begin_is_there_once() {
    play(Before::Nothing);
}

#[test]
fn every_word_of_a_field_that_three_devices_begin_is_there_once() {
    play(Before::Document);
}

#[test]
fn every_word_of_a_text_that_three_devices_begin_over_null_is_there_once() {
    play(Before::Null);
}

#[test]
fn every_word_of_a_text_that_three_devices_begin_after_it_was_removed_is_there_once() {
    play(Before::Removed);
}

#[test]
fn every_word_of_a_document_that_three_devices_begin_after_it_was_deleted_is_there_once() {
    play(Before::Deleted);
}
