//! The corpora of the fuzz targets, and what a seed makes of them. `MOTET_BLESS=1` writes the beginnings of the corpora anew;
//! `cargo fuzz run apply` (in `fuzz/`) goes on from there.

use std::path::{Path, PathBuf};

use motet::Replica;
use motet::simulation::Session;
use motet_proto::payload::Payload;
use motet_proto::{Kind, Message, envelope, frame};
use motet_tests::fuzz::TARGETS;
use motet_tests::random::{Random, seed};
use serde_json::json;

/// Inputs that are made of a corpus in one run of the test, for each target.
const INPUTS: usize = 10_000;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

#[test]
fn foreign_bytes_do_no_harm() {
    let seed = seed();
    std::panic::set_hook(Box::new(|panic| {
        // Merging catches panics of its own; only those of a failed check are worth a word.
        if panic.location().is_some_and(|at| at.file().contains("motet") || at.file().contains("tests/")) {
            eprintln!("{panic}");
        }
    }));
    for (name, target) in TARGETS {
        let files = std::fs::read_dir(corpus(name)).unwrap();
        let mut inputs: Vec<Vec<u8>> =
            files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{name} has no corpus");
        inputs.iter().for_each(|input| target(input));
        let mut random = Random(seed);
        for _ in 0..motet_tests::random::runs(INPUTS) {
            let mut input = inputs[random.below(inputs.len() as u64) as usize].clone();
            (0..1 + random.below(4)).for_each(|_| spoil(&mut input, &inputs, &mut random));
            let kept = input.clone();
            if std::panic::catch_unwind(|| target(&input)).is_err() {
                let hex: String = kept.iter().map(|byte| format!("{byte:02x}")).collect();
                panic!("seed {seed}: {name} does not take {hex}");
            }
        }
    }
}

fn spoil(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() as u64 + 1) as usize;
    match random.below(6) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = [0, 1, 127, 128, 255][random.below(5) as usize],
        2 => input.truncate(at),
        3 => input.insert(at, random.below(256) as u8),
        4 => {
            let other = &others[random.below(others.len() as u64) as usize];
            let from = random.below(other.len() as u64 + 1) as usize;
            let to = from + random.below((other.len() - from) as u64 + 1) as usize;
            input.splice(at..at, other[from..to].iter().copied());
        }
        _ => {
            let end = at + random.below((input.len() - at) as u64 + 1) as usize;
            input.drain(at..end);
        }
    }
}

/// Writes what real devices and relays say into the corpora.
#[test]
fn corpora_begin_with_what_is_really_said() {
    if std::env::var("MOTET_BLESS").is_err() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::open(dir.path().join("a.db")).unwrap();
    replica.apply_schema(&motet::Schema::new().text("pieces", "lyrics")).unwrap();
    let songs = replica.documents("pieces");
    songs.upsert("fuzz", &json!({ "title": "Ka Pō Nani", "lyrics": "Ka pō nani\n", "plays": 1 })).unwrap();
    songs.document("fuzz").splice_text("lyrics", 0, 0, "ʻae ").unwrap();
    songs.patch("fuzz", &json!({ "tags": ["mele", "pō"], "deep": { "a": [1, 2.5, null, true] } })).unwrap();
    songs.upsert("long", &json!({ "lyrics": "Hiki mai ka ʻelele o ka loko ʻino\n".repeat(30) })).unwrap();
    songs.delete("long").unwrap();
    songs
        .upsert(
            "whole",
            &json!({ "title": "Hiki mai", "lyrics": "Hiki mai ka ʻelele o ka loko ʻino\n".repeat(40) }),
        )
        .unwrap();
    let write = |target: &str, name: &str, bytes: &[u8]| {
        std::fs::create_dir_all(corpus(target)).unwrap();
        std::fs::write(corpus(target).join(name), bytes).unwrap();
    };
    for (n, message) in pushed(&replica).into_iter().enumerate() {
        write("frame", &format!("sent-{n}"), &frame::encode(&message));
        let Message::Push(push) = message else { continue };
        for (n, entry) in push.entries.into_iter().enumerate() {
            write("entry", &format!("sealed-{n}"), &entry.payload);
            write("entry", &format!("kind-{n}"), &entry.kind.to_bytes());
            let opened = envelope::open(entry.suite, &entry.payload).unwrap();
            write("entry", &format!("payload-{n}"), &opened);
            let body = Payload::decode(&opened, motet_proto::SpaceId::DEFAULT, entry.document).unwrap().body;
            match entry.kind {
                Kind::Changes => {
                    write("headers", &format!("changes-{n}"), &body);
                    write("apply", if n == 0 { "base" } else { "other" }, &body);
                }
                Kind::Snapshot { heads, .. } => {
                    write("headers", &format!("snapshot-{n}"), &body);
                    let heads = [&[heads.len() as u8][..], &heads.concat(), &body].concat();
                    write("snapshot", &format!("saved-{n}"), &heads);
                }
                Kind::Erased | Kind::Other(_) => panic!("nothing of the kind is sent here"),
            }
        }
    }
    for (n, line) in include_str!("../../crates/motet-proto/src/frame/golden.txt").lines().enumerate() {
        let bytes: Vec<u8> =
            (0..line.len() / 2).map(|i| u8::from_str_radix(&line[2 * i..2 * i + 2], 16).unwrap()).collect();
        write("frame", &format!("golden-{n}"), &bytes);
    }
    let log = replica.export_change_log(0).unwrap();
    write("import", "log", &serde_json::to_vec(&log).unwrap());
    let rows =
        json!([{ "id": 7, "title": "Aloha ʻOe", "updated_at": "2025-01-03T10:00:00.25Z", "n": 1e300 }]);
    write("import", "rows", &serde_json::to_vec(&rows).unwrap());
}

/// What a device sends to an empty relay.
fn pushed(replica: &Replica) -> Vec<Message> {
    let now = std::time::Duration::from_secs(1);
    let mut session = Session::begin(replica, "simulated", true, now).unwrap();
    let welcome = motet_proto::message::Welcome { version: 1, agent: "relay".into(), ..Default::default() };
    session.take(Message::Welcome(welcome), now);
    while session.work(0, now) {}
    std::iter::from_fn(|| session.poll_message()).collect()
}
