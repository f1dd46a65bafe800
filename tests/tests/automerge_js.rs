//! Documents go out to programs that use Automerge's package for JavaScript, and come back from them.

use std::path::{Path, PathBuf};
use std::process::Command;

use motet::{Field, FieldKind, Replica, Schema, WriteError, json};
use motet_tests::{TestRelay, contents, sync};
use serde_json::Value;

/// The version that documents are exchanged with.
const PACKAGE: &str = "@automerge/automerge@3.5.0";

/// A folder in which Node finds the package; `None` where it cannot be installed.
fn node() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("js");
    std::fs::create_dir_all(&folder).unwrap();
    for script in ["edit.mjs", "make.mjs"] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("js").join(script);
        std::fs::copy(source, folder.join(script)).unwrap();
    }
    if folder.join("node_modules/@automerge/automerge/package.json").exists() {
        return Some(folder);
    }
    let install = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--no-save", "--prefix"])
        .arg(&folder)
        .arg(PACKAGE)
        .output();
    match install {
        Ok(output) if output.status.success() => Some(folder),
        Ok(output) => {
            eprintln!("SKIPPED: npm cannot install {PACKAGE}: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            eprintln!("SKIPPED: there is no npm: {error}");
            None
        }
    }
}

fn run(folder: &Path, script: &str, arguments: &[&Path]) -> String {
    let output = Command::new("node").current_dir(folder).arg(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn open(path: &Path) -> Replica {
    let replica = Replica::open(path).unwrap();
    let schema = Schema::new()
        .field("songs", "lyrics", Field::text())
        .field("songs", "tags", FieldKind::Set)
        .field("songs", "plays", FieldKind::Counter)
        .field("songs", "note", FieldKind::Local);
    replica.apply_schema(&schema).unwrap();
    replica
}

#[test]
fn another_program_edits_a_document_and_everybody_gets_it() {
    let Some(node) = node() else { return };
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (open(&dir.path().join("a.db")), open(&dir.path().join("b.db")));
    let songs = a.documents("songs");
    songs
        .upsert("1", &json!({ "title": "Aloha ʻOe", "lyrics": "Haʻaheo ka ua\n", "note": "kūloko" }))
        .unwrap();
    songs.patch("1", &json!({ "tags": ["mele"], "tempo": 80 })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());

    let (out, back) = (dir.path().join("out.automerge"), dir.path().join("back.automerge"));
    std::fs::write(&out, songs.document("1").export_automerge().unwrap()).unwrap();
    // Meanwhile others go on.
    b.documents("songs").patch("1", &json!({ "title": "Aloha ʻOe (1878)" })).unwrap();
    b.documents("songs").document("1").splice_text("lyrics", 0, 0, "1. ").unwrap();
    songs.document("1").splice_text("lyrics", 14, 0, "i nā pali\n").unwrap();
    let shown: Value = serde_json::from_str(&run(&node, "edit.mjs", &[&out, &back])).unwrap();
    assert_eq!(shown["lyrics"], "ʻŌlelo mua\nHaʻaheo ka ua\n");
    assert!(shown.get("note").is_none());

    let saved = std::fs::read(&back).unwrap();
    let version = songs.document("1").import_automerge(&saved).unwrap();
    // Again changes nothing.
    assert_eq!(songs.document("1").import_automerge(&saved).unwrap(), version);
    for _ in 0..2 {
        sync(&a, &relay.url());
        sync(&b, &relay.url());
    }
    let song = b.documents("songs").get("1").unwrap().unwrap().value;
    for words in ["ʻŌlelo mua\n", "1. ", "Haʻaheo ka ua", "i nā pali\n"] {
        assert_eq!(song["lyrics"].as_str().unwrap().matches(words).count(), 1, "{song}");
    }
    assert_eq!(
        (&song["title"], &song["tempo"], &song["last"]),
        (&json!("Aloha ʻOe (1878)"), &json!(96), &json!(true))
    );
    assert_eq!(song["added"], json!({ "by": "another program", "words": ["kai", "pō"] }));
    assert_eq!(song["tags"], json!(["hula", "mele"]));
    let shared = |replica| {
        let mut all = contents(replica);
        all.iter_mut().for_each(|(_, _, _, value)| _ = value.as_object_mut().unwrap().remove("note"));
        all
    };
    assert_eq!(shared(&a), shared(&b));
    assert_eq!(songs.get("1").unwrap().unwrap()["note"], "kūloko");
    assert_eq!((a.verify().unwrap().problems, b.verify().unwrap().problems), (vec![], vec![]));
    // An undo takes back what this device has done.
    assert!(a.undo().unwrap().is_some());
    let song = songs.get("1").unwrap().unwrap();
    assert_eq!(song["tempo"], 96);
    assert!(!song["lyrics"].as_str().unwrap().contains("i nā pali"));
}

#[test]
fn a_document_made_elsewhere_is_taken() {
    let Some(node) = node() else { return };
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let (a, b) = (open(&dir.path().join("a.db")), open(&dir.path().join("b.db")));
    let saved = |kind: &str| {
        let path = dir.path().join(kind);
        run(&node, "make.mjs", &[&path, Path::new(kind)]);
        std::fs::read(path).unwrap()
    };
    let plain = saved("plain");
    let songs = a.documents("songs");
    songs.document("new").import_automerge(&plain).unwrap();
    songs.upsert("here", &json!({ "lyrics": "Ua hiki mai\n", "composer": "Liliʻu" })).unwrap();
    songs.document("here").import_automerge(&plain).unwrap();
    // What JSON does not have shows as a number and as numbers.
    for (kind, field, shown) in [("date", "made", json!(0)), ("bytes", "cover", json!([1, 2, 3]))] {
        songs.document(kind).import_automerge(&saved(kind)).unwrap();
        assert_eq!(songs.get(kind).unwrap().unwrap()[field], shown);
    }
    let new = songs.get("new").unwrap().unwrap().value;
    assert_eq!(new["lyrics"], "E hoʻi ke aloha\n".repeat(100));
    assert_eq!(
        (&new["title"], &new["plays"], &new["verses"][0]["text"]),
        (&json!("Ka Pō"), &json!(3), &json!("kai"))
    );
    let here = songs.get("here").unwrap().unwrap().value;
    assert!(here["lyrics"].as_str().unwrap().contains("Ua hiki mai\n"), "{here}");
    assert_eq!(here["lyrics"].as_str().unwrap().matches("E hoʻi").count(), 100);
    assert_eq!((&here["title"], &here["composer"]), (&json!("Ka Pō"), &json!("Liliʻu")));
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    assert_eq!(contents(&a), contents(&b));
    // It is a document like others from now on.
    b.documents("songs").document("new").splice_text("lyrics", 0, 2, "Ua ").unwrap();
    sync(&b, &relay.url());
    sync(&a, &relay.url());
    assert!(songs.get("new").unwrap().unwrap()["lyrics"].as_str().unwrap().starts_with("Ua hoʻi"));
    assert_eq!(a.verify().unwrap().problems, []);
}

#[test]
fn what_is_no_document_or_stays_here_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(&dir.path().join("a.db"));
    a.apply_schema(&Schema::new().local("diary")).unwrap();
    let (songs, diary) = (a.documents("songs"), a.documents("diary"));
    songs.upsert("1", &json!({ "title": "Ka Pō", "lyrics": "Aia i laʻi\n".repeat(50) })).unwrap();
    diary.upsert("1", &json!({ "words": "kūloko" })).unwrap();
    let saved = songs.document("1").export_automerge().unwrap();
    let song = songs.get("1").unwrap().unwrap().value;
    let refused = |saved: &[u8]| match songs.document("1").import_automerge(saved) {
        Err(WriteError::Automerge { reason }) => assert!(!reason.is_empty()),
        other => panic!("{other:?}"),
    };
    refused(b"");
    refused(b"{}");
    for at in (0..saved.len()).step_by(7) {
        let mut damaged = saved.clone();
        damaged[at] ^= 0x11;
        refused(&damaged);
        refused(&saved[..at]);
    }
    assert!(matches!(diary.document("1").import_automerge(&saved), Err(WriteError::BadValue { .. })));
    assert!(matches!(diary.document("1").export_automerge(), Err(WriteError::BadValue { .. })));
    assert!(matches!(songs.document("2").export_automerge(), Err(WriteError::NotFound { .. })));
    assert!(matches!(songs.document("\n").import_automerge(&saved), Err(WriteError::BadName { .. })));
    songs.delete("1").unwrap();
    // In the trash it stays there: nobody has brought it back.
    songs.document("1").import_automerge(&saved).unwrap();
    assert!(songs.get("1").unwrap().is_none());
    songs.document("1").restore().unwrap();
    assert_eq!(songs.get("1").unwrap().unwrap().value, song);
    songs.delete("1").unwrap();
    songs.purge_trash(i64::MAX).unwrap();
    assert!(matches!(songs.document("1").import_automerge(&saved), Err(WriteError::Purged { .. })));
    assert_eq!(a.verify().unwrap().problems, []);
}

#[test]
fn the_command_line_hands_documents_on_and_takes_them_back() {
    let dir = tempfile::tempdir().unwrap();
    let motet = |name: &str, arguments: &[&str]| {
        let database = dir.path().join(name);
        let output = Command::new(motet_tests::program("motet"))
            .current_dir(dir.path())
            .arg("--db")
            .arg(database)
            .args(arguments)
            .output()
            .unwrap();
        let both = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&both).into_owned())
    };
    std::fs::write(dir.path().join("song.json"), r#"{ "title": "Ka Pō" }"#).unwrap();
    for name in ["a.db", "b.db"] {
        assert_eq!(motet(name, &["init", "--device", name]).0, 0);
    }
    assert_eq!(motet("a.db", &["put", "songs", "--id", "1", "song.json"]).0, 0);
    assert_eq!(motet("a.db", &["automerge", "export", "songs", "1", "1.automerge"]).0, 0);
    let (code, said) = motet("b.db", &["automerge", "import", "songs", "1", "1.automerge"]);
    assert_eq!((code, said.contains("merged into songs/1")), (0, true), "{said}");
    assert!(motet("b.db", &["get", "songs", "1"]).1.contains("Ka Pō"));
    let (code, said) = motet("a.db", &["automerge", "export", "songs", "2", "2.automerge"]);
    assert_eq!((code, said.contains("songs/2")), (5, true), "{said}");
    let (code, said) = motet("b.db", &["automerge", "import", "songs", "1", "song.json"]);
    assert_eq!((code, said.contains("no Automerge chunk")), (1, true), "{said}");
    let (code, said) = motet("a.db", &["automerge", "export", "songs", "1", "missing/1.automerge"]);
    assert_eq!((code, said.contains("missing/1.automerge")), (1, true), "{said}");
}
