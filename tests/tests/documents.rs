//! One device: what an app writes is what it reads, and what it does not name stays.

use std::time::Duration;

use motet::{Replica, Schema, WriteError, json};
use motet_tests::{device, wait_until};
use serde::{Deserialize, Serialize};
use serde_json::json as value;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Piece {
    title: String,
    lyrics: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    author: Option<String>,
}

#[test]
fn values_of_all_kinds_come_back_exactly_also_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let all = value!({
        "null": null, "true": true, "int": -42, "large": 18_446_744_073_709_551_615_u64, "float": 1.5, "tiny": 5e-324,
        "text": "Aloha ʻoe — 👩‍🎤 e\u{301} \u{0} \"quoted\"", "lyrics": "Haʻaheo ka ua\ni nā pali\n", "empty": "",
        "list": [1, "zwei", null, [true, { "deep": [] }]], "map": { "a": { "b": "c" }, "leer": {} },
        "Schlüssel mit Ümläuten/und~Zeichen": "ja"
    });
    let id = {
        let replica = device(dir.path(), "a");
        replica.documents("pieces").insert(&all).unwrap()
    };
    let replica = device(dir.path(), "a");
    let mut expected = all;
    expected["id"] = id.clone().into();
    assert_eq!(replica.documents("pieces").get(&id).unwrap().unwrap().value, expected);
    assert_eq!(replica.documents("pieces").list().unwrap().len(), 1);
    assert!(replica.documents("pieces").get("another").unwrap().is_none());
    assert!(replica.documents("elsewhere").get(&id).unwrap().is_none());
}

#[test]
fn a_typed_update_leaves_unknown_fields_alone_and_removes_what_became_none() {
    let dir = tempfile::tempdir().unwrap();
    let replica = device(dir.path(), "a");
    let newer = value!({ "title": "t", "lyrics": "l", "author": "x", "tempo": 96, "tags": ["a"] });
    let id = replica.documents("pieces").insert(&newer).unwrap();
    let pieces = replica.collection::<Piece>("pieces");
    let mut piece = pieces.get(&id).unwrap().unwrap();
    piece.title = "Kaulana nā pua".into();
    piece.author = None;
    pieces.update(&mut piece).unwrap();
    let now = replica.documents("pieces").get(&id).unwrap().unwrap().value;
    assert_eq!(
        now,
        value!({ "id": id, "title": "Kaulana nā pua", "lyrics": "l", "tempo": 96, "tags": ["a"] })
    );
}

#[test]
fn an_update_based_on_an_older_version_merges_and_reverts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let replica = device(dir.path(), "a");
    let pieces = replica.collection::<Piece>("pieces");
    let id = pieces
        .insert(&Piece { title: "t".into(), lyrics: "one\ntwo\nthree\n".into(), author: None })
        .unwrap();
    let mut mine = pieces.get(&id).unwrap().unwrap();
    let mut theirs = pieces.get(&id).unwrap().unwrap();
    theirs.lyrics = "one!\ntwo\nthree\n".into();
    theirs.author = Some("them".into());
    pieces.update(&mut theirs).unwrap();
    mine.lyrics = "one\ntwo\nthree!\n".into();
    pieces.update(&mut mine).unwrap();
    let now = pieces.get(&id).unwrap().unwrap();
    assert_eq!(now.lyrics, "one!\ntwo\nthree!\n");
    assert_eq!(now.author.as_deref(), Some("them"));
}

#[test]
fn only_what_changed_becomes_ops() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let long = "E hoʻi ke aloha i ka pō laʻi\n".repeat(500);
    let replica = device(dir.path(), "a");
    let pieces = replica.documents("pieces");
    let id = pieces.insert(&value!({ "title": "t", "lyrics": long, "flag": false })).unwrap();
    pieces.upsert(&id, &value!({ "title": "t", "lyrics": long, "flag": true })).unwrap();
    pieces.upsert(&id, &value!({ "title": "t", "lyrics": long, "flag": true })).unwrap();
    pieces.upsert(&id, &value!({ "lyrics": long.replacen("aloha", "alohā", 1) })).unwrap();
    let ops: Vec<usize> = changes(&path).iter().map(|change| change.len()).collect();
    let text_ops = long.chars().count() + 1;
    assert_eq!(ops, [text_ops, 2, 1, 2], "text, two registers, one register, one character replaced");
}

#[test]
fn a_typed_update_of_one_field_of_a_long_document_is_one_op() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Piece {
        title: String,
        lyrics: String,
        plays: u32,
    }
    let dir = tempfile::tempdir().unwrap();
    let replica = device(dir.path(), "a");
    let pieces = replica.collection::<Piece>("pieces");
    let lyrics = "Pā mai ka makani o uka i ka pō laʻi\n".repeat(1_300);
    assert!(lyrics.len() > 50_000);
    let id = pieces.insert(&Piece { title: "t".into(), lyrics, plays: 0 }).unwrap();
    let mut piece = pieces.get(&id).unwrap().unwrap();
    piece.plays = 1;
    pieces.update(&mut piece).unwrap();
    let all = changes(&dir.path().join("a.db"));
    assert_eq!(all.last().unwrap().len(), 1);
}

/// A set comes out of each instance in another order, and a default may be another one each time: only what the app changes is written.
#[test]
fn an_update_compares_with_the_value_that_was_read() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Tagged {
        title: String,
        tags: std::collections::HashSet<u32>,
        #[serde(default = "random")]
        seed: u64,
    }
    fn random() -> u64 {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(0)
    }
    let dir = tempfile::tempdir().unwrap();
    let replica = device(dir.path(), "a");
    let tags: Vec<u32> = (0..100).collect();
    let id = replica.documents("pieces").insert(&value!({ "title": "a", "tags": tags })).unwrap();
    let pieces = replica.collection::<Tagged>("pieces");
    let mut piece = pieces.get(&id).unwrap().unwrap();
    piece.title = "b".into();
    pieces.update(&mut piece).unwrap();
    replica
        .transaction({
            let id = id.clone();
            move |tx| {
                let mut piece = tx.collection::<Tagged>("pieces").get(&id)?.unwrap();
                piece.title = "c".into();
                tx.collection("pieces").update(&mut piece).map(drop)
            }
        })
        .unwrap();
    let shown = replica.documents("pieces").get(&id).unwrap().unwrap();
    assert_eq!(shown["tags"], value!(tags));
    assert_eq!((shown.get("seed"), &shown["title"]), (None, &value!("c")));
}

#[test]
fn text_is_spliced_by_character() {
    let dir = tempfile::tempdir().unwrap();
    let replica = device(dir.path(), "a");
    let pieces = replica.documents("pieces");
    let id = pieces.insert(&value!({ "lyrics": "ʻāina 👩‍🎤", "title": "t" })).unwrap();
    pieces.document(&id).splice_text("lyrics", 0, 2, "Ā").unwrap();
    pieces.document(&id).splice_text("notes", 0, 0, "a declared text begins empty").unwrap();
    let now = pieces.get(&id).unwrap().unwrap();
    assert_eq!(
        (now["lyrics"].as_str(), now["notes"].as_str()),
        (Some("Āina 👩‍🎤"), Some("a declared text begins empty"))
    );
    for (field, at, delete) in
        [("lyrics", 0, 100), ("lyrics", usize::MAX, 1), ("title", 0, 0), ("none", 0, 0)]
    {
        let error = pieces.document(&id).splice_text(field, at, delete, "x").unwrap_err();
        assert!(matches!(error, WriteError::BadValue { .. }), "{error}");
        assert!(error.to_string().contains(field), "{error}");
    }
    assert_eq!(pieces.get(&id).unwrap().unwrap().version, now.version, "a refused splice changes nothing");
}

#[test]
fn deleting_and_making_anew() {
    let dir = tempfile::tempdir().unwrap();
    let replica = device(dir.path(), "a");
    let pieces = replica.documents("pieces");
    let id =
        pieces.insert(&value!({ "id": "x", "title": "old", "lyrics": "old words", "extra": 1 })).unwrap();
    pieces.delete(&id).unwrap();
    assert!(pieces.get(&id).unwrap().is_none());
    assert!(pieces.list().unwrap().is_empty());
    assert!(matches!(pieces.delete(&id), Err(WriteError::NotFound { .. })));
    assert!(matches!(pieces.patch(&id, &value!({ "a": 1 })), Err(WriteError::NotFound { .. })));
    pieces.insert(&value!({ "id": "x", "title": "new", "lyrics": "new words" })).unwrap();
    let now = pieces.get("x").unwrap().unwrap().value;
    assert_eq!(now, value!({ "id": "x", "title": "new", "lyrics": "new words" }));
}

#[test]
fn a_transaction_is_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let replica = device(dir.path(), "a");
    let kept = replica.documents("tasks").insert(&value!({ "title": "before" })).unwrap();
    let refused: Result<(), _> = replica.transaction({
        let kept = kept.clone();
        move |tx| {
            tx.documents("tasks").insert(&json!({ "title": "one" }))?;
            tx.documents("tasks").patch(&kept, &json!({ "title": "changed" }))?;
            assert_eq!(
                tx.documents("tasks").get(&kept)?.unwrap()["title"],
                "changed",
                "it sees its own writes"
            );
            Err(WriteError::Rejected("no".into()))
        }
    });
    assert_eq!(refused.unwrap_err().to_string(), "no");
    let panicked: Result<(), _> = replica.transaction(|tx| {
        tx.documents("tasks").insert(&json!({ "title": "two" }))?;
        panic!("an app's own bug");
    });
    assert!(panicked.is_err());
    let titles: Vec<_> =
        replica.documents("tasks").list().unwrap().iter().map(|r| r["title"].clone()).collect();
    assert_eq!(titles, ["before"]);
    replica.documents("tasks").patch(&kept, &value!({ "title": "still writable" })).unwrap();
}

#[test]
fn many_threads_write_one_document_and_many() {
    let dir = tempfile::tempdir().unwrap();
    let replica = device(dir.path(), "a");
    let id = replica.documents("pieces").insert(&value!({ "lyrics": "" })).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (replica, id) = (replica.clone(), id.clone());
            scope.spawn(move || {
                for i in 0..25 {
                    replica.documents("pieces").document(&id).splice_text("lyrics", 0, 0, "x").unwrap();
                    replica.documents("tasks").insert(&value!({ "thread": thread, "i": i })).unwrap();
                }
            });
        }
    });
    assert_eq!(replica.documents("pieces").get(&id).unwrap().unwrap()["lyrics"], "x".repeat(100));
    assert_eq!(replica.documents("tasks").list().unwrap().len(), 100);
}

#[test]
fn handles_are_waited_on_later() {
    let dir = tempfile::tempdir().unwrap();
    let replica = device(dir.path(), "a");
    let pieces = replica.documents("pieces");
    let id = pieces.insert(&value!({ "lyrics": "" })).unwrap();
    let writes: Vec<_> =
        (0..200).map(|i| pieces.document(&id).splice_text_async("lyrics", i, 0, "a")).collect();
    for write in writes {
        write.durable().unwrap();
    }
    assert_eq!(pieces.get(&id).unwrap().unwrap()["lyrics"], "a".repeat(200));
}

#[test]
fn a_second_handle_on_the_file_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (device(dir.path(), "a"), device(dir.path(), "a"));
    let id = a.documents("pieces").insert(&value!({ "lyrics": "one\n" })).unwrap();
    b.documents("pieces").document(&id).splice_text("lyrics", 0, 0, "zero\n").unwrap();
    a.documents("pieces").document(&id).splice_text("lyrics", 9, 0, "two\n").unwrap();
    b.documents("pieces").document(&id).splice_text("lyrics", 13, 0, "three\n").unwrap();
    assert_eq!(a.documents("pieces").get(&id).unwrap().unwrap()["lyrics"], "zero\none\ntwo\nthree\n");
    assert_eq!(a.device_id(), b.device_id());
}

#[test]
fn an_edit_shows_everywhere_though_its_projection_is_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let replica = device(dir.path(), "a");
    let pieces = replica.documents("pieces");
    let ids = ["1", "2"].map(|id| pieces.insert(&value!({ "id": id, "lyrics": "ʻekahi" })).unwrap());
    pieces.document(&ids[0]).splice_text("lyrics", 0, 0, "late ").unwrap();
    // What a crash at this moment would leave.
    for suffix in ["", "-wal"] {
        let name = |stem: &str| dir.path().join(format!("{stem}.db{suffix}"));
        std::fs::copy(name("a"), name("crashed")).unwrap();
    }
    let crashed = Replica::open(dir.path().join("crashed.db")).unwrap();
    assert_eq!(crashed.documents("pieces").get(&ids[0]).unwrap().unwrap()["lyrics"], "late ʻekahi");
    crashed.documents("pieces").document(&ids[0]).splice_text("lyrics", 0, 0, "too ").unwrap();
    assert_eq!(crashed.documents("pieces").get(&ids[0]).unwrap().unwrap()["lyrics"], "too late ʻekahi");
    // Whoever reads the file with plain SQL sees it as well, within moments.
    let conn = rusqlite::Connection::open(dir.path().join("a.db")).unwrap();
    let shown = || -> i64 {
        let sql = "SELECT COUNT(*) FROM projection WHERE json LIKE '%late%'";
        conn.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let begun = std::time::Instant::now();
    while shown() == 0 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "the projection never caught up");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // Two documents of one transaction never show one without the other.
    let both = ids.clone();
    replica
        .transaction(move |tx| {
            both.iter()
                .try_for_each(|id| tx.documents("pieces").splice_text(id, "lyrics", 0, 0, "both ").map(drop))
        })
        .unwrap();
    let sql = "SELECT COUNT(*) FROM projection WHERE json LIKE '%both%'";
    assert_eq!(conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap(), 2);
}

#[test]
fn a_schema_applied_late_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::open(dir.path().join("a.db")).unwrap();
    let songs = replica.documents("songs");
    let id = songs.insert(&value!({ "words": "one two" })).unwrap();
    replica.apply_schema(&Schema::new().text("songs", "words")).unwrap();
    assert_eq!(songs.get(&id).unwrap().unwrap()["words"], "one two");
    songs.document(&id).splice_text("words", 7, 0, " three").unwrap();
    assert_eq!(songs.get(&id).unwrap().unwrap()["words"], "one two three");
}

#[test]
fn a_register_that_becomes_a_text_by_a_whole_write_reads_as_written() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::open(dir.path().join("a.db")).unwrap();
    let songs = replica.documents("songs");
    for (id, old) in [("longer", "one two"), ("shorter", "one two three four"), ("null", "")] {
        songs.upsert(id, &value!({ "words": old, "title": "t" })).unwrap();
    }
    songs.upsert("null", &value!({ "words": null })).unwrap();
    replica.apply_schema(&Schema::new().text("songs", "words")).unwrap();
    for id in ["longer", "shorter", "null"] {
        songs.upsert(id, &value!({ "words": "one two three" })).unwrap();
        let shown = songs.get(id).unwrap().unwrap();
        assert_eq!(shown["words"], "one two three");
        // The document itself agrees with what is shown: a splice works on the same characters.
        songs.document(id).splice_text("words", 13, 0, "!").unwrap();
        let mut base = songs.get(id).unwrap().unwrap();
        songs.update(&mut base).unwrap();
        assert_eq!(songs.get(id).unwrap().unwrap()["words"], "one two three!");
    }
    drop((songs, replica));
    let replica = Replica::open(dir.path().join("a.db")).unwrap();
    for id in ["longer", "shorter", "null"] {
        // Loaded again from its changes, not from what was shown.
        replica.documents("songs").patch(id, &value!({ "meta": { "a": 1 } })).unwrap();
        replica.documents("songs").document(id).splice_text("words", 14, 0, "?").unwrap();
        assert_eq!(replica.documents("songs").get(id).unwrap().unwrap()["words"], "one two three!?");
    }
}

#[test]
fn a_transaction_that_calls_its_own_replica_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let replica = device(dir.path(), "a");
    let inner = replica.clone();
    let outcome = replica.transaction(move |tx| {
        tx.documents("tasks").insert(&json!({ "title": "outer" }))?;
        inner.documents("tasks").insert(&json!({ "title": "inner" }))
    });
    assert!(outcome.unwrap_err().to_string().contains("must not call"));
    assert!(replica.documents("tasks").list().unwrap().is_empty());
}

#[test]
fn bad_values_and_names_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let replica = device(dir.path(), "a");
    let pieces = replica.documents("pieces");
    for bad in [value!(1), value!([1]), value!("x"), value!(null), value!({ "id": [] }), value!({ "": 1 })] {
        assert!(matches!(pieces.insert(&bad), Err(WriteError::BadValue { .. })), "{bad}");
    }
    let mut deep = value!(1);
    for _ in 0..100 {
        deep = value!({ "a": deep });
    }
    assert!(pieces.insert(&deep).unwrap_err().to_string().contains("nested"));
    let long = "x".repeat(513);
    for name in ["", "a\nb", &long] {
        assert!(matches!(pieces.upsert(name, &value!({})), Err(WriteError::BadName { .. })));
        assert!(matches!(replica.documents(name).upsert("x", &value!({})), Err(WriteError::BadName { .. })));
    }
    let huge = value!({ "lyrics": "x".repeat(9 << 20) });
    assert!(matches!(pieces.insert(&huge), Err(WriteError::TooLarge { .. })));
    assert!(pieces.list().unwrap().is_empty());
}

#[test]
fn a_backup_of_a_live_replica_is_whole_and_never_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    let replica = device(dir.path(), "a");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                replica.documents("pieces").insert(&value!({ "lyrics": "words" })).unwrap();
            }
        });
        wait_until("some documents", Duration::from_secs(10), || {
            replica.documents("pieces").list().unwrap().len() > 20
        });
        replica.backup(dir.path().join("copy.db")).unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(replica.backup(dir.path().join("copy.db")).is_err());
    let copy = device(dir.path(), "copy");
    assert!(copy.documents("pieces").list().unwrap().len() >= 20);
    copy.documents("pieces").insert(&value!({ "lyrics": "writable" })).unwrap();
}

#[test]
fn events_tell_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let replica = device(dir.path(), "a");
    let mut events = replica.events();
    let id = replica.documents("pieces").insert(&value!({ "title": "t" })).unwrap();
    replica.documents("pieces").delete(&id).unwrap();
    let kinds: Vec<_> = std::iter::from_fn(|| events.try_next())
        .map(Result::unwrap)
        .map(|e| (e.id, e.kind, e.remote))
        .collect();
    assert_eq!(
        kinds,
        [(id.clone(), motet::ChangeKind::Created, false), (id, motet::ChangeKind::Deleted, false)]
    );
}

/// The changes in a database file, oldest first.
fn changes(path: &std::path::Path) -> Vec<automerge::Change> {
    let conn = rusqlite::Connection::open(path).unwrap();
    motet_tests::raw::changes(&conn)
        .into_iter()
        .map(|chunk| automerge::Change::try_from(&chunk[..]).unwrap())
        .collect()
}

/// `insert` makes a document, and changes none: not in a transaction either. One in the trash is made anew.
#[test]
fn what_exists_is_not_inserted() {
    let dir = tempfile::tempdir().unwrap();
    let a = device(dir.path(), "a");
    let pieces = a.documents("pieces");
    pieces.insert(&value!({ "id": "1", "lyrics": "old\n", "title": "old" })).unwrap();
    let again = value!({ "id": "1", "lyrics": "new\n" });
    for _ in 0..2 {
        let error = pieces.insert(&again).unwrap_err();
        assert!(matches!(error, WriteError::Exists { .. }) && error.code() == "write-exists", "{error}");
        let error = a.transaction(|tx| tx.documents("pieces").insert(&again)).unwrap_err();
        assert!(matches!(error, WriteError::Exists { .. }), "{error}");
        let large = value!({ "id": "1", "lyrics": "long\n".repeat(100_000) });
        assert!(matches!(pieces.insert(&large), Err(WriteError::Exists { .. })));
        assert_eq!(pieces.get("1").unwrap().unwrap()["lyrics"], "old\n");
    }
    pieces.delete("1").unwrap();
    pieces.insert(&again).unwrap();
    assert_eq!(pieces.get("1").unwrap().unwrap().value, again);
    assert!(matches!(pieces.insert(&again), Err(WriteError::Exists { .. })));
}
