//! How many instructions a device executes to merge what was written while it was away. Time is too noisy on shared machines to tell that
//! something has become slower by a tenth; counts of instructions differ by a few thousandths between runs.

use std::path::Path;
use std::process::Command;

use motet::Replica;
use motet_tests::{Cli, TestRelay, contents, program, singer, sync};
use serde_json::json;

/// More than this share of what is written down is a regression. What it became is written down in its place once that is understood.
const TOLERANCE: f64 = 1.1;

/// What other devices have written meanwhile.
struct Shape {
    name: &'static str,
    /// Measured with the profile of the tests, by this suite.
    instructions_per_change: u64,
    songs: usize,
    /// Edits of each song, by each of two devices.
    edits: usize,
}

const SHAPES: [Shape; 2] = [
    Shape { name: "many documents", instructions_per_change: 1_363_000, songs: 40, edits: 4 },
    Shape { name: "one text", instructions_per_change: 255_000, songs: 1, edits: 300 },
];

#[test]
fn merging_takes_no_more_instructions_than_it_did() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("SKIPPED: there is no valgrind");
        return;
    }
    let mut slower = Vec::new();
    for shape in SHAPES {
        let (changes, instructions) = measure(&shape);
        let (now, before) = (instructions / changes, shape.instructions_per_change);
        println!("{}: {now} instructions for each of {changes} changes, {before} written down", shape.name);
        if now as f64 > before as f64 * TOLERANCE {
            slower.push(format!("{}: {now} instructions for a change, {before} before", shape.name));
        }
    }
    assert!(slower.is_empty(), "{slower:?}");
}

/// How many changes arrive, and how many instructions more a sync takes that merges them than one that finds nothing.
fn measure(shape: &Shape) -> (u64, u64) {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let [a, b, away] = ["a", "b", "away"].map(|name| singer(dir.path(), name));
    let lyrics = "Kūmaka ka ʻikena iā Hiʻilawe\nKa papa lohi mai aʻo Maukele\n".repeat(8);
    for n in 0..shape.songs {
        a.documents("songs")
            .upsert(&n.to_string(), &json!({ "title": "Hiʻilawe", "lyrics": lyrics }))
            .unwrap();
    }
    for device in [&a, &b, &away] {
        sync(device, &relay.url());
    }
    drop(away);
    for (device, at) in [(&a, 5), (&b, 250)] {
        write(device, shape, at);
    }
    for device in [&a, &b, &a] {
        sync(device, &relay.url());
    }
    let cli = Cli::init(dir.path(), "away", &relay.url());
    let with_merge = counted_sync(cli.db());
    let without = counted_sync(cli.db());
    assert_eq!(contents(&singer(dir.path(), "away")), contents(&a), "{}", shape.name);
    ((2 * shape.songs * shape.edits) as u64, with_merge - without)
}

/// Each edit is a change: letters of a text one after another, now and then a field.
fn write(device: &Replica, shape: &Shape, at: usize) {
    for n in 0..shape.songs {
        let song = device.documents("songs").document(&n.to_string());
        for edit in 0..shape.edits {
            match edit % 4 {
                3 => {
                    _ = device
                        .documents("songs")
                        .patch(&n.to_string(), &json!({ (format!("f{at}")): edit }))
                        .unwrap()
                }
                _ => _ = song.splice_text("lyrics", at + edit, 0, "ʻ").unwrap(),
            }
        }
    }
}

/// Instructions of the whole program.
fn counted_sync(db: &Path) -> u64 {
    let mut command = Command::new("valgrind");
    command.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
    command.arg(program("motet")).arg("--db").arg(db).arg("sync");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let line = said.lines().find(|line| line.contains("refs:")).unwrap_or_else(|| panic!("no count: {said}"));
    let digits: String = line.rsplit("refs:").next().unwrap().chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}
