//! Damage of what nobody else has: words that only show, SQLite's log beside the file, names of which two columns are damaged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use motet::{FieldKind, Relay, Replica, Schema};
use motet_tests::random::{Random, runs, seed};
use motet_tests::{TestRelay, contents, device, is_in_files, sync};
use rusqlite::Connection;
use serde_json::{Value, json};

fn schema() -> Schema {
    Schema::new()
        .text("songs", "lyrics")
        .field("songs", "plays", FieldKind::Counter)
        .field("songs", "tags", FieldKind::Set)
        .field("songs", "note", FieldKind::Local)
}

fn open(path: &Path) -> Replica {
    let a = Replica::builder(path).device_name("a").open().unwrap();
    a.apply_schema(&schema()).unwrap();
    a
}

fn song(a: &Replica, id: &str) -> Value {
    a.documents("songs").get(id).unwrap().map_or(Value::Null, |song| song.value.clone())
}

/// Runs SQL on a file that nobody has open.
fn execute(path: &Path, sql: &str) {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(&format!("PRAGMA foreign_keys = OFF; {sql}")).unwrap();
}

fn repaired(path: &Path) -> Replica {
    let a = open(path);
    assert_ne!(a.verify().unwrap().problems, []);
    assert_eq!(a.repair().unwrap().left, []);
    assert_eq!(a.verify().unwrap().problems, []);
    a
}

/// A song with a field of each kind, which was written in several edits.
fn write(a: &Replica, id: &str) {
    let lyrics = "Kūmaka ka ʻikena iā Hiʻilawe\n".repeat(3);
    let new = json!({ "title": "Hiʻilawe", "lyrics": lyrics, "plays": 2, "note": "kūloko", "tags": ["oli"] });
    a.documents("songs").upsert(id, &new).unwrap();
    a.documents("songs").patch(id, &json!({ "of": { "place": 1, "left": true } })).unwrap();
    let lyrics = format!("{lyrics}Ka papa lohi mai aʻo Maukele\n");
    a.documents("songs").patch(id, &json!({ "lyrics": lyrics, "of": { "place": 2 } })).unwrap();
}

#[test]
fn what_only_shows_and_was_never_sent_is_written_anew() {
    for lost in [
        "DELETE FROM change; DELETE FROM snapshot",
        "DELETE FROM change WHERE id & 0xffffff > 1; DELETE FROM snapshot",
        "DELETE FROM change WHERE id & 0xffffff = 2; DELETE FROM snapshot",
        "UPDATE change SET bytes = zeroblob(60); UPDATE snapshot SET bytes = zeroblob(60)",
    ] {
        println!("{lost}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let a = open(&path);
        ["1", "2"].iter().for_each(|id| write(&a, id));
        write(&a, "purged");
        a.documents("songs").upsert("purged", &json!({ "title": "kuahiwi" })).unwrap();
        motet_tests::purge_song(&a, "purged");
        write(&a, "gone");
        a.documents("songs").delete("gone").unwrap();
        let before = songs(&a);
        drop(a);
        execute(&path, lost);
        let a = repaired(&path);
        assert_eq!(songs(&a), before);
        assert_eq!(song(&a, "gone"), Value::Null);
        // Work goes on, and all of it but what stays here gets to others.
        a.documents("songs").patch("1", &json!({ "later": true })).unwrap();
        let relay = TestRelay::start(&dir.path().join("relay"));
        sync(&a, &relay.url());
        let b = device(dir.path(), "b");
        sync(&b, &relay.url());
        let mut all = song(&a, "1");
        all.as_object_mut().unwrap().remove("note");
        assert_eq!(song(&b, "1"), all);
        assert!(!is_in_files(dir.path(), "b", "kūloko".as_bytes()));
        assert!(!is_in_files(dir.path(), "a", b"kuahiwi"));
    }
}

/// What a relay has may be newer than what shows here: it is fetched, and nothing is written over it.
#[test]
fn what_was_sent_is_fetched_and_what_was_not_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (path, b) = (dir.path().join("a.db"), device(dir.path(), "b"));
    b.apply_schema(&schema()).unwrap();
    let a = open(&path);
    ["1", "2"].iter().for_each(|id| write(&a, id));
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    b.documents("songs").patch("1", &json!({ "title": "hou", "lyrics": "ʻē aʻe" })).unwrap();
    b.documents("songs").patch("2", &json!({ "title": "hou" })).unwrap();
    sync(&b, &relay.url());
    a.documents("songs").patch("2", &json!({ "place": 7 })).unwrap();
    a.counts().unwrap();
    drop(a);
    execute(
        &path,
        "DELETE FROM change WHERE id >> 24 = 1; DELETE FROM snapshot WHERE document = 1;
         DELETE FROM change WHERE id = (SELECT MAX(id) FROM change)",
    );
    let a = repaired(&path);
    assert_eq!(song(&a, "2")["place"], 7);
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    let without_note = |id| {
        let mut all = song(&a, id);
        all.as_object_mut().unwrap().remove("note");
        all
    };
    assert_eq!(without_note("1"), song(&b, "1"));
    assert_eq!(without_note("2"), song(&b, "2"));
    assert_eq!(
        (song(&b, "1")["title"].clone(), song(&b, "1")["lyrics"].clone()),
        (json!("hou"), json!("ʻē aʻe"))
    );
    assert_eq!((song(&b, "2")["title"].clone(), song(&b, "2")["place"].clone()), (json!("hou"), json!(7)));
    assert_eq!(song(&a, "1")["note"], "kūloko");
}

#[test]
fn two_damaged_columns_of_a_row_do_not_rename_a_document() {
    for damage in [
        "collection = 'sxngs', key = zeroblob(16)",
        "name = '1x', key = zeroblob(16)",
        "collection = 'sxngs', name = '1x'",
        "collection = 'sxngs', name = '1x', key = zeroblob(16)",
    ] {
        println!("{damage}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let a = open(&path);
        ["1", "2"].iter().for_each(|id| write(&a, id));
        let before = contents(&a);
        drop(a);
        execute(&path, &format!("UPDATE document SET {damage} WHERE id = 1"));
        assert_eq!(contents(&repaired(&path)), before);
    }
}

/// Songs by id, with what they show.
fn songs(a: &Replica) -> BTreeMap<String, Value> {
    let all = a.documents("songs").list().unwrap();
    all.iter().map(|song| (song.id.clone(), song.value.clone())).collect()
}

struct Logged {
    replica: Replica,
    path: PathBuf,
    before: BTreeMap<String, Value>,
    after: BTreeMap<String, Value>,
}

/// A file with songs in it, and edits of them that stand in SQLite's log alone.
fn logged(dir: &Path) -> Logged {
    let path = dir.join("a.db");
    let a = open(&path);
    (0..30).for_each(|n| write(&a, &n.to_string()));
    let before = songs(&a);
    drop(a);
    let conn = Connection::open(&path).unwrap();
    motet_tests::empty_log(&conn);
    drop(conn);
    let replica = open(&path);
    for n in 0..30 {
        replica.documents("songs").patch(&n.to_string(), &json!({ "title": format!("hou {n}") })).unwrap();
    }
    let after = songs(&replica);
    Logged { replica, path, before, after }
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

const FRAME: usize = 4096 + 24;

/// Damages SQLite's log in one of several ways.
fn damage_log(log: &Path, random: &mut Random) {
    let mut bytes = std::fs::read(log).unwrap();
    let frames = (bytes.len() - 32) / FRAME;
    let frame = 32 + random.below(frames as u64) as usize * FRAME;
    let way = random.below(6);
    println!("  way {way}, frame {} of {frames}", frame / FRAME);
    match way {
        0 => bytes.fill(0),
        1 => bytes[..32].fill(0),
        2 => bytes.truncate(frame + 100),
        3 => bytes.truncate(32),
        4 => bytes[frame..frame + FRAME].fill(0xa5),
        _ => bytes[frame + 24 + 2000] ^= 0xff,
    }
    // In place, as others have it open.
    use std::io::Write;
    let mut file = std::fs::File::options().write(true).open(log).unwrap();
    file.write_all(&bytes).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
}

/// Each song shows what it did before or after its last edit.
fn assert_one_of(found: &BTreeMap<String, Value>, logged: &Logged) {
    assert_eq!(found.keys().collect::<Vec<_>>(), logged.before.keys().collect::<Vec<_>>());
    for (id, song) in found {
        assert!(*song == logged.before[id] || *song == logged.after[id], "{id}: {song}");
    }
}

#[test]
fn a_damaged_log_takes_nothing_with_it_that_stands_in_the_file() {
    let mut random = Random(seed());
    for round in 0..runs(8) {
        println!("round {round}");
        let dir = tempfile::tempdir().unwrap();
        let logged = logged(dir.path());
        let dead = dir.path().join("dead.db");
        for end in ["", "-wal"] {
            std::fs::copy(with(&logged.path, end), with(&dead, end)).unwrap();
        }
        // While it is open.
        damage_log(&with(&logged.path, "-wal"), &mut random);
        println!("  {:?}", logged.replica.verify().map(|report| report.problems.len()));
        let mut path = logged.path.clone();
        match logged.replica.repair() {
            Ok(report) => assert_eq!(report.left, []),
            Err(error) => {
                // Nothing can be written to it: what there was is kept.
                println!("  {error}");
                path = dir.path().join("a.damaged.db");
                assert!(error.to_string().contains(&*path.display().to_string()));
            }
        }
        // What had it open is gone, and somebody opens it anew.
        let Logged { replica, before, after, .. } = logged;
        drop(replica);
        if path.ends_with("a.damaged.db") {
            Replica::salvage(&path).unwrap();
        }
        let a = open(&path);
        assert_eq!(a.repair().unwrap().left, []);
        let logged = Logged { replica: a, path, before, after };
        assert_one_of(&songs(&logged.replica), &logged);
        // After a kill.
        damage_log(&with(&dead, "-wal"), &mut random);
        Replica::salvage(&dead).unwrap();
        let a = open(&dead);
        assert_eq!(a.repair().unwrap().left, []);
        assert_one_of(&songs(&a), &logged);
        assert_eq!(a.verify().unwrap().problems, []);
        a.documents("songs").patch("1", &json!({ "later": true })).unwrap();
        drop(a);
        assert_eq!(song(&open(&dead), "1")["later"], true);
    }
}

/// SQLite reads a log up to the first frame that is damaged; the ones behind it are intact.
#[test]
fn what_stands_behind_a_damaged_frame_of_the_log_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let logged = logged(dir.path());
    let dead = dir.path().join("dead.db");
    for end in ["", "-wal"] {
        std::fs::copy(with(&logged.path, end), with(&dead, end)).unwrap();
    }
    let mut log = std::fs::read(with(&dead, "-wal")).unwrap();
    log[32 + 24 + 2000] ^= 0xff;
    std::fs::write(with(&dead, "-wal"), &log).unwrap();
    let kept = Replica::salvage(&dead).unwrap().unwrap();
    assert_eq!(std::fs::read(with(&kept, "-wal")).unwrap(), log);
    let a = open(&dead);
    assert_eq!(a.repair().unwrap().left, []);
    assert_eq!(songs(&a), logged.after);
    // A wipe takes what was kept with it.
    a.connect(Relay::new("http://127.0.0.1:9")).unwrap();
    a.sign_out(motet::SignOut::WipeUnsent).unwrap();
    assert!(!kept.exists() && !with(&kept, "-wal").exists());
}
