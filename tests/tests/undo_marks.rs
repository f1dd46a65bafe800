//! Undo beside others: a device takes back only what it has written itself, whatever others write in the same fields meanwhile.

use motet::Replica;
use motet_tests::random::{Random, runs, seed};
use motet_tests::{TestRelay, singer, sync};
use serde_json::{Value as Json, json};

/// Two devices write in the same fields of the same documents, undo and redo their own, and sync now and then. In the end there is
/// exactly what each of them has not taken back. The model is a list of marks.
#[test]
fn beside_others_a_device_takes_back_only_its_own() {
    let seed = seed();
    for script in 0..runs(25) {
        let mut random = Random(seed.wrapping_add(script));
        let dir = tempfile::tempdir().unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        let devices = ["a", "b"].map(|name| singer(dir.path(), name));
        let base: String = (0..6).map(|n| format!("base {n}\n")).collect();
        for id in ["1", "2"] {
            let song =
                json!({ "lyrics": base, "plays": 100, "tags": ["base"], "verses": ["base"], "meta": {} });
            devices[0].documents("songs").upsert(id, &song).unwrap();
        }
        devices.iter().for_each(|device| _ = sync(device, &relay.url()));
        let mut sides = [Side::default(), Side::default()];
        let mut log = Vec::new();
        for turn in 0..30 {
            let by = random.below(2) as usize;
            let (device, side) = (&devices[by], &mut sides[by]);
            match random.below(9) {
                0..4 => {
                    let marks: Vec<_> = (0..=random.below(2))
                        .map(|n| {
                            Mark::new(
                                format!("{}{turn}{}", ["a", "b"][by], ["x", "y"][n as usize]),
                                &mut random,
                            )
                        })
                        .collect();
                    log.push(format!("{by} writes {marks:?}"));
                    write_marks(device, &marks, by == 0, &mut random);
                    side.done.push(marks);
                    side.undone.clear();
                }
                4 | 5 => {
                    // What comes before was made by the first device alone.
                    if let Some(marks) = side.done.pop() {
                        log.push(format!("{by} undoes {marks:?}"));
                        device.undo().unwrap().unwrap();
                        side.undone.push(marks);
                    }
                }
                6 => {
                    log.push(format!("{by} redoes"));
                    let redone = device.redo().unwrap();
                    assert_eq!(redone.is_some(), !side.undone.is_empty(), "script {script}: {log:#?}");
                    side.done.extend(side.undone.pop());
                }
                _ => {
                    log.push(format!("{by} syncs"));
                    sync(device, &relay.url());
                }
            }
        }
        for by in [0, 1, 0, 1, 0] {
            sync(&devices[by], &relay.url());
        }
        let marks: Vec<&Mark> = sides.iter().flat_map(|side| side.done.iter().flatten()).collect();
        for id in ["1", "2"] {
            let there = value(&devices[0], id);
            assert_eq!(value(&devices[1], id), there, "script {script}: {log:#?}");
            let mine = || marks.iter().filter(|mark| mark.id == id);
            let mut lines: Vec<_> = there["lyrics"].as_str().unwrap().lines().map(str::to_owned).collect();
            let in_order: Vec<_> = lines.iter().filter(|line| line.starts_with("base")).cloned().collect();
            let expected: Vec<_> = (0..6).map(|n| format!("base {n}")).collect();
            assert_eq!(in_order, expected, "script {script}: {log:#?}");
            lines.retain(|line| !line.starts_with("base"));
            lines.sort();
            let mut expected: Vec<_> = mine().map(|mark| mark.name.clone()).collect();
            expected.sort();
            assert_eq!(lines, expected, "script {script}, document {id}: {log:#?}");
            let sum: i64 = mine().map(|mark| mark.plays).sum();
            assert_eq!(there["plays"], 100 + sum, "script {script}, document {id}: {log:#?}");
            expected.push("base".into());
            expected.sort();
            for field in ["tags", "verses"] {
                let mut elements: Vec<_> =
                    there[field].as_array().unwrap().iter().map(|e| e.as_str().unwrap().to_owned()).collect();
                elements.sort();
                assert_eq!(elements, expected, "script {script}, {field} of {id}: {log:#?}");
            }
            let names = there["meta"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            expected.retain(|name| name != "base");
            assert_eq!(names, expected, "script {script}, meta of {id}: {log:#?}");
        }
        for device in &devices {
            assert!(device.verify().unwrap().problems.is_empty(), "script {script}: {log:#?}");
        }
    }
}

fn value(replica: &Replica, id: &str) -> Json {
    replica.documents("songs").get(id).unwrap().unwrap().value
}

/// What a device has written and not taken back, and what it has taken back and may do again; by transaction.
#[derive(Default)]
struct Side {
    done: Vec<Vec<Mark>>,
    undone: Vec<Vec<Mark>>,
}

/// Something that is told from everything else: a line, an element, a key, and a number.
#[derive(Clone, Debug)]
struct Mark {
    id: &'static str,
    name: String,
    plays: i64,
}

impl Mark {
    fn new(name: String, random: &mut Random) -> Self {
        Self { id: ["1", "2"][random.below(2) as usize], name, plays: random.below(9) as i64 - 4 }
    }
}

/// Writes marks in one transaction. `whole`: by new values of whole fields, else by edits.
fn write_marks(device: &Replica, marks: &[Mark], whole: bool, random: &mut Random) {
    let (marks, at) = (marks.to_vec(), random.below(8) as usize);
    device
        .transaction(move |tx| {
            for Mark { id, name, plays } in &marks {
                let song = tx.collection::<Json>("songs").get(id)?.unwrap().value.clone();
                let lyrics = song["lyrics"].as_str().unwrap();
                let start: usize =
                    lyrics.split_inclusive('\n').take(at).map(|line| line.chars().count()).sum();
                let mut lines: Vec<_> = lyrics.lines().collect();
                lines.insert(at.min(lines.len()), name);
                let mut verses = song["verses"].as_array().unwrap().clone();
                verses.insert(at.min(verses.len()), json!(name));
                let meta = json!({ name.clone(): at });
                tx.documents("songs").patch(id, &json!({ "verses": verses, "meta": meta }))?;
                if whole {
                    let mut tags = song["tags"].as_array().unwrap().clone();
                    tags.push(json!(name));
                    let plays = song["plays"].as_i64().unwrap() + plays;
                    let lyrics = lines.join("\n") + "\n";
                    tx.documents("songs")
                        .patch(id, &json!({ "lyrics": lyrics, "plays": plays, "tags": tags }))?;
                } else {
                    tx.documents("songs").splice_text(id, "lyrics", start, 0, &format!("{name}\n"))?;
                    tx.documents("songs").increment(id, "plays", *plays)?;
                    tx.documents("songs").add_to_set(id, "tags", &[json!(name)])?;
                }
            }
            Ok(())
        })
        .unwrap();
}
