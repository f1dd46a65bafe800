//! Pages of a device's file that are damaged while all others are intact: what stands in a page that is intact is kept, whatever page led to
//! it, and nothing comes back that was deleted. There is no relay: what is lost here is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use motet::{FieldKind, Replica, Schema};
use motet_tests::empty_log;
use motet_tests::random::{Random, runs, seed};
use rusqlite::Connection;
use serde_json::{Value, json};

const PAGE: usize = 4096;

/// A word that was in what is purged, and nowhere else.
const PURGED: &str = "kuahiwikapu";

fn schema() -> Schema {
    Schema::new()
        .text("songs", "lyrics")
        .field("songs", "plays", FieldKind::Counter)
        .field("songs", "note", FieldKind::Local)
        .index("songs", ["title"])
        .local("diary")
}

fn open(path: &Path) -> Replica {
    let open = || Replica::builder(path).device_name("a").open();
    let opened = open().or_else(|error| {
        println!("  not opened: {error}");
        Replica::salvage(path).and_then(|_| open())
    });
    let a = opened.unwrap();
    a.apply_schema(&schema()).unwrap();
    a
}

/// What every document shows, by collection and id.
type Shown = BTreeMap<(String, String), Value>;

fn shown(a: &Replica) -> Shown {
    let mut all = Shown::new();
    for collection in ["songs", "diary"] {
        for document in a.documents(collection).list().unwrap() {
            all.insert((collection.into(), document.id.clone()), document.value.clone());
        }
    }
    all
}

/// A file in which the tables have pages below others. Nothing of it was ever sent.
fn make(path: &Path, songs: u64) -> Shown {
    let a = open(path);
    for n in 0..songs {
        let lyrics = format!("Hiʻilawe {n}, kūmaka ka ʻikena\n").repeat((n % 29) as usize * 9);
        let song = json!({ "title": n, "lyrics": lyrics, "note": format!("kūloko {n}"), "plays": 1 });
        a.documents("songs").upsert(&n.to_string(), &song).unwrap();
        a.documents("diary").upsert(&n.to_string(), &json!({ "words": format!("naʻu {n}") })).unwrap();
        let gone = json!({ "title": PURGED, "lyrics": format!("{PURGED}\n").repeat(40) });
        a.documents("songs").upsert(&format!("gone {n}"), &gone).unwrap();
        for place in 0..3 {
            a.documents("songs").patch(&n.to_string(), &json!({ "place": place })).unwrap();
        }
    }
    for n in 0..songs {
        a.documents("songs").delete(&format!("gone {n}")).unwrap();
    }
    assert!(a.documents("songs").purge_trash(i64::MAX).unwrap() > 0);
    for n in 0..songs / 2 {
        a.documents("songs").upsert(&format!("trash {n}"), &json!({ "title": n })).unwrap();
        a.documents("songs").delete(&format!("trash {n}")).unwrap();
    }
    a.counts().unwrap();
    let all = shown(&a);
    drop(a);
    let conn = Connection::open(path).unwrap();
    empty_log(&conn);
    all
}

/// A page of the file, and what it belongs to.
#[derive(Clone, Debug)]
struct Place {
    table: String,
    page: usize,
    kind: String,
    path: String,
}

fn places(path: &Path) -> Vec<Place> {
    let conn = Connection::open(path).unwrap();
    let mut statement = conn.prepare("SELECT name, pageno, pagetype, path FROM dbstat").unwrap();
    let rows = statement.query_map([], |row| {
        let page = row.get::<_, i64>(1)? as usize;
        Ok(Place { table: row.get(0)?, page, kind: row.get(2)?, path: row.get(3)? })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// The row ids in a leaf of a table.
fn rowids(bytes: &[u8], page: usize) -> Vec<i64> {
    let page = &bytes[(page - 1) * PAGE..page * PAGE];
    let short = |at: usize| usize::from(page[at]) << 8 | usize::from(page[at + 1]);
    let varint = |at: &mut usize| {
        let mut number = 0i64;
        loop {
            let byte = page[*at];
            *at += 1;
            number = number << 7 | i64::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                return number;
            }
        }
    };
    let mut found = Vec::new();
    for n in 0..short(3) {
        let mut at = short(8 + 2 * n);
        varint(&mut at);
        found.push(varint(&mut at));
    }
    found
}

/// Documents of which something stands in a page that is damaged.
fn hit(bytes: &[u8], all: &[Place], place: &Place) -> BTreeSet<i64> {
    let leaf = match &*place.kind {
        "leaf" => place,
        "overflow" => {
            let path = place.path.split('+').next().unwrap();
            let is_leaf = |other: &&Place| other.table == place.table && other.path == path_of_leaf(path);
            all.iter().find(is_leaf).unwrap()
        }
        _ => return BTreeSet::new(),
    };
    let rows = || rowids(bytes, leaf.page);
    match &*place.table {
        "change" => rows().into_iter().map(|id| id >> 24).collect(),
        "document" | "snapshot" | "projection" | "local_field" => rows().into_iter().collect(),
        _ => BTreeSet::new(),
    }
}

/// The path of the page in which a row begins, of the path of that row.
fn path_of_leaf(row: &str) -> String {
    row.rsplit_once('/').map_or(String::new(), |(leaf, _)| format!("{leaf}/"))
}

fn names(path: &Path) -> BTreeMap<i64, (String, String)> {
    let conn = Connection::open(path).unwrap();
    let mut statement = conn.prepare("SELECT id, collection, name FROM document").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))));
    rows.unwrap().map(Result::unwrap).collect()
}

fn contains(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|part| part == word.as_bytes())
}

fn repair(path: &Path) -> (Replica, motet::RepairReport) {
    let a = open(path);
    let report = a.repair().unwrap();
    assert_eq!(report.left, []);
    (a, report)
}

/// Compares what is shown with what was, but for some documents.
fn assert_kept(now: &Shown, before: &Shown, lost: &BTreeSet<(String, String)>) {
    for (name, value) in before {
        let found = now.get(name);
        assert!(lost.contains(name) || found == Some(value), "{name:?}: {found:?}, it was {value:?}");
    }
    for name in now.keys() {
        assert!(before.contains_key(name) || lost.contains(name), "{name:?} is there again");
    }
}

#[test]
fn what_is_below_the_first_page_of_a_table_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let sound = dir.path().join("sound.db");
    let before = make(&sound, 60);
    let all = places(&sound);
    for table in ["change", "document", "snapshot", "projection", "local_field"] {
        for fill in [0, 0xa5] {
            println!("{table}: {fill}");
            let root = all.iter().find(|place| place.table == table && place.path == "/").unwrap();
            assert_eq!(root.kind, "internal", "{table}");
            let path = dir.path().join(format!("{table} {fill}?#%.db"));
            let mut bytes = std::fs::read(&sound).unwrap();
            bytes[(root.page - 1) * PAGE..root.page * PAGE].fill(fill);
            std::fs::write(&path, &bytes).unwrap();
            let (a, report) = repair(&path);
            assert_eq!(shown(&a), before);
            assert_eq!(a.verify().unwrap().problems, []);
            // The damaged file is kept, if it was not kept when it was opened.
            let kept = dir.path().join(format!("{table} {fill}?#%.damaged.db"));
            if let Some(aside) = report.put_aside {
                assert_eq!(aside, kept);
            }
            let root = |bytes: &[u8]| bytes[(root.page - 1) * PAGE..root.page * PAGE].to_vec();
            assert_eq!(root(&std::fs::read(&kept).unwrap()), vec![fill; PAGE]);
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
            }
            drop(a);
            assert!(!contains(&std::fs::read(&path).unwrap(), PURGED));
        }
    }
    let left = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("partial")).collect();
    assert_eq!(left, Vec::<std::ffi::OsString>::new());
}

#[test]
fn whatever_page_is_damaged_what_stands_in_the_others_is_kept() {
    let mut random = Random(seed());
    let dir = tempfile::tempdir().unwrap();
    let sound = dir.path().join("sound.db");
    let before = make(&sound, 60);
    let (all, names) = (places(&sound), names(&sound));
    let bytes = std::fs::read(&sound).unwrap();
    let is_table = |place: &&Place| place.page > 1 && place.table != "sqlite_schema";
    let usable: Vec<&Place> = all.iter().filter(is_table).collect();
    let above: Vec<&Place> = usable.iter().copied().filter(|place| place.kind == "internal").collect();
    for round in 0..runs(10) {
        let mut pick = |places: &[&Place]| places[random.below(places.len() as u64) as usize].clone();
        let (place, other) = (pick(if round % 2 == 0 { &above } else { &usable }), pick(&usable));
        let how = ["zeroed", "noise", "swapped"][random.below(3) as usize];
        let mut damaged = bytes.clone();
        let mut lost = BTreeSet::new();
        match how {
            "swapped" => {
                println!("round {round}: {place:?} and {other:?} are swapped");
                (0..PAGE).for_each(|byte| {
                    damaged.swap((place.page - 1) * PAGE + byte, (other.page - 1) * PAGE + byte);
                });
                // A row that goes on in a page goes on in another then.
                for place in [&place, &other].into_iter().filter(|place| place.kind == "overflow") {
                    lost.extend(hit(&bytes, &all, place));
                }
            }
            _ => {
                println!("round {round}: {place:?}, {how}");
                let page = &mut damaged[(place.page - 1) * PAGE..place.page * PAGE];
                page.iter_mut()
                    .for_each(|byte| *byte = if how == "zeroed" { 0 } else { random.below(256) as u8 });
                lost.extend(hit(&bytes, &all, &place));
            }
        }
        let lost = lost.iter().filter_map(|id| names.get(id).cloned()).collect();
        let path = dir.path().join(format!("{round}.db"));
        std::fs::write(&path, &damaged).unwrap();
        let (a, _) = repair(&path);
        assert_kept(&shown(&a), &before, &lost);
        assert_eq!(a.verify().unwrap().problems, []);
        drop(a);
        assert!(!contains(&std::fs::read(&path).unwrap(), PURGED) || !lost.is_empty());
        for file in [&path, &dir.path().join(format!("{round}.damaged.db"))] {
            _ = std::fs::remove_file(file);
        }
    }
}
