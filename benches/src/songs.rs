//! Songs to measure with.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

/// Writes `count` songs: those of `data`, repeated with a new id and a changed line, or made-up ones.
pub fn write(to: &Path, data: Option<&Path>, count: usize) {
    let given: Vec<Value> = match data {
        Some(path) => {
            let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            text.lines()
                .filter(|line| !line.trim().is_empty())
                .map(|l| serde_json::from_str(l).unwrap())
                .collect()
        }
        None => (0..200).map(made_up).collect(),
    };
    let mut out = String::new();
    for i in 0..count {
        let mut song = given[i % given.len()].clone();
        let round = i / given.len();
        if round > 0 {
            let id = song["id"].as_str().unwrap_or("song").to_owned();
            song["id"] = format!("{id}-{round}").into();
            let lyrics = song["lyrics"].as_str().unwrap_or_default();
            let (first, rest) = lyrics.split_once('\n').unwrap_or((lyrics, ""));
            song["lyrics"] = format!("{first} ({round})\n{rest}").into();
        }
        writeln!(out, "{song}").unwrap();
    }
    std::fs::write(to, out).unwrap();
}

/// Lines of made-up words, at least `bytes` of them.
pub fn prose(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 2_000);
    for n in 0.. {
        if text.len() >= bytes {
            break;
        }
        text.push_str(made_up(n)["lyrics"].as_str().unwrap_or_default());
    }
    text
}

/// A song of about 1.2 kB from a small stock of words, the same on every run.
fn made_up(n: usize) -> Value {
    const WORDS: [&str; 24] = [
        "aloha", "ke", "kai", "i", "ka", "pō", "laʻi", "mai", "nā", "pua", "o", "uka", "hoʻi", "kāua",
        "lani", "mākou", "ʻala", "onaona", "hau", "makani", "wai", "lehua", "mele", "love",
    ];
    let mut state = n as u64 * 2_654_435_761 + 1;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        WORDS[(state >> 33) as usize % WORDS.len()]
    };
    let lyrics: String =
        (0..40).map(|_| (0..6).map(|_| word()).collect::<Vec<_>>().join(" ") + "\n").collect();
    let title = (0..3).map(|_| word()).collect::<Vec<_>>().join(" ");
    json!({ "id": format!("song-{n:05}"), "title": title, "author": "", "language": "haw", "category": "mele",
            "lyrics": lyrics, "notes": "" })
}
