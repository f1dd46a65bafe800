//! A device's process: it edits now and then, reads what others write, and syncs by itself, until it is told to rest.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use motet::{Collection, FieldKind, Relay, Replica, Schema, WriteError};
use serde_json::{Value, json};

use crate::random::Random;

const COLLECTION: &str = "songs";

/// Documents that all devices write in.
const DOCUMENTS: u64 = 40;

/// Lines of a song, of which each edit writes one anew: songs do not grow, their histories do.
const LINES: usize = 24;

const WORDS: [&str; 8] = ["aloha", "ke", "kai", "I ka pō", "ʻohu", "laʻi", "mele", "ʻuʻuku"];

/// Longest time until everything is sent and received at the end.
const REST: Duration = Duration::from_secs(240);

/// `pause`: time between two edits, on average, in milliseconds.
pub(crate) fn run(db: &Path, name: &str, url: &str, pause: u64) {
    let replica = Replica::builder(db).device_name(name).open().unwrap();
    let schema = Schema::new()
        .text(COLLECTION, "lyrics")
        .field(COLLECTION, "plays", FieldKind::Counter)
        .field(COLLECTION, "tags", FieldKind::Set)
        .field(COLLECTION, "verses", FieldKind::List);
    replica.apply_schema(&schema).unwrap();
    replica.connect(Relay::new(url)).unwrap();
    let (said, commands) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if said.send(line.unwrap()).is_err() {
                break;
            }
        }
    });
    let mut random = Random::of(name);
    // Edits until it is told to stop; then it does what it is told.
    loop {
        let wait = Duration::from_millis(random.below(2 * pause + 1));
        match commands.recv_timeout(wait) {
            Ok(_) => break,
            Err(RecvTimeoutError::Timeout) => edit(&replica, &mut random),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
    println!("{}", Value::Null);
    commands.iter().for_each(|_| println!("{}", rest(&replica)));
}

/// One edit of a person, and what an app reads to show it.
fn edit(replica: &Replica, random: &mut Random) {
    let songs = replica.documents(COLLECTION);
    let id = format!("song-{}", random.below(DOCUMENTS));
    let word = WORDS[random.below(WORDS.len() as u64) as usize];
    let number = random.below(10);
    let done = match random.below(20) {
        0..8 => write_line(&songs, &id, &format!("{word} {}", random.below(1_000)), random),
        8..11 => songs.document(&id).increment("plays", 1).map(drop),
        11..13 => write_tag(&songs, &id, &json!(format!("tag {number}"))),
        13..15 => songs.patch(&id, &json!({ "title": format!("{word} {number}") })).map(drop),
        15..17 => write_verse(&songs, &id, number, random),
        17 => replica.undo().map(drop),
        18 => songs.delete(&id).map(drop),
        _ => songs.document(&id).restore().map(drop),
    };
    match done {
        Ok(()) => {}
        Err(WriteError::NotFound { .. }) => make(&songs, &id),
        Err(error) => panic!("{id}: {error}"),
    }
    songs.list().unwrap();
    songs.search(word, 20).unwrap();
    replica.status();
}

fn make(songs: &Collection<Value>, id: &str) {
    let lines: Vec<String> = (0..LINES).map(|n| format!("line {n}")).collect();
    let song = json!({ "title": "mele", "lyrics": lines.join("\n"), "plays": 0, "tags": [], "verses": [] });
    songs.upsert(id, &song).unwrap();
}

/// One line is another one; of lines that several devices have put in, the first stay.
fn write_line(
    songs: &Collection<Value>,
    id: &str,
    line: &str,
    random: &mut Random,
) -> Result<(), WriteError> {
    let Some(song) = songs.get(id).unwrap() else { return songs.patch(id, &json!({})).map(drop) };
    let lyrics = song["lyrics"].as_str().unwrap_or_default().to_owned();
    let mut lines: Vec<&str> = lyrics.lines().take(LINES).collect();
    if lines.is_empty() {
        lines.push("");
    }
    let at = random.below(lines.len() as u64) as usize;
    lines[at] = line;
    songs.patch(id, &json!({ "lyrics": lines.join("\n") })).map(drop)
}

/// A tag is put in, or taken out.
fn write_tag(songs: &Collection<Value>, id: &str, tag: &Value) -> Result<(), WriteError> {
    let Some(song) = songs.get(id).unwrap() else { return songs.patch(id, &json!({})).map(drop) };
    let mut tags = song["tags"].as_array().cloned().unwrap_or_default();
    match tags.iter().position(|other| other == tag) {
        None => tags.push(tag.clone()),
        Some(at) => _ = tags.remove(at),
    }
    songs.patch(id, &json!({ "tags": tags })).map(drop)
}

/// A verse is put in, ticked or taken out.
fn write_verse(
    songs: &Collection<Value>,
    id: &str,
    number: u64,
    random: &mut Random,
) -> Result<(), WriteError> {
    let Some(song) = songs.get(id).unwrap() else { return songs.patch(id, &json!({})).map(drop) };
    let mut verses = song["verses"].as_array().cloned().unwrap_or_default();
    match verses.iter().position(|verse| verse["id"] == number) {
        None => verses.push(json!({ "id": number, "done": false })),
        Some(at) if random.below(3) == 0 => _ = verses.remove(at),
        Some(at) => verses[at]["done"] = json!(random.below(2) == 0),
    }
    songs.patch(id, &json!({ "verses": verses })).map(drop)
}

/// Sends and receives all there is; then says what it shows, what it still owes, and what `verify` finds.
fn rest(replica: &Replica) -> Value {
    let begun = Instant::now();
    let mut error = None;
    while begun.elapsed() < REST {
        match replica.sync_now() {
            Ok(_) => break,
            Err(failed) => error = Some(failed.to_string()),
        }
    }
    let songs = replica.documents(COLLECTION);
    let mut shown = BTreeMap::new();
    songs
        .for_each(|record| {
            shown.insert(record.id, format!("{} {}", record.version, record.value));
        })
        .unwrap();
    let mut hash = blake3::Hasher::new();
    shown.iter().for_each(|(id, value)| _ = hash.update(format!("{id} {value}\n").as_bytes()));
    json!({
        "hash": hash.finalize().to_string(),
        "documents": shown.len(),
        "pending": replica.status().pending,
        "quarantined": replica.counts().unwrap().quarantined,
        "problems": replica.verify().unwrap().problems.len(),
        "error": error,
    })
}
