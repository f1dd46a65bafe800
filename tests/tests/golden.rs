//! Version skew: databases as this release writes them, kept for later ones. A later version must open them, show the same, and send
//! what they have not sent. The frames of the wire are pinned in `motet-proto`.
//!
//! `MOTET_BLESS=1` writes them anew, which is right only as long as the release that they stand for is not out.

use std::path::{Path, PathBuf};

use motet::{FieldKind, Replica, Schema};
use motet_tests::{TestRelay, contents, sync};
use serde_json::{Value, json};

/// The release that the files are of.
const RELEASE: &str = "0.1";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(RELEASE).join(name)
}

fn unpack(name: &str, to: &Path) {
    let packed = std::fs::read(golden(name)).unwrap();
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::write(to, zstd::decode_all(&packed[..]).unwrap()).unwrap();
}

#[test]
fn files_of_this_release_are_opened_shown_and_synced() {
    if std::env::var("MOTET_BLESS").is_ok() {
        bless();
    }
    let dir = tempfile::tempdir().unwrap();
    unpack("device.db.zst", &dir.path().join("device.db"));
    unpack("relay.db.zst", &dir.path().join("relay/relay.db"));
    let expected: Value = serde_json::from_slice(&std::fs::read(golden("shown.json")).unwrap()).unwrap();

    let replica = Replica::open(dir.path().join("device.db")).unwrap();
    assert_eq!(shown(&replica), expected);
    assert!(replica.verify().unwrap().problems.is_empty(), "{:?}", replica.verify());
    assert!(replica.counts().unwrap().conflicts > 0);
    assert_eq!(replica.documents("songs").search("elele", 5).unwrap().len(), 1);
    assert_eq!(replica.documents("songs").trash().unwrap().len(), 1);
    let pending = replica.status().pending;
    assert!(pending > 0, "it was made with something to send");

    let relay = TestRelay::start(&dir.path().join("relay"));
    // The address is another one than then: for the device it is a new remote, which has most of it already.
    sync(&replica, &relay.url());
    assert_eq!(replica.status().pending, 0);
    let other = Replica::open(dir.path().join("other.db")).unwrap();
    other.apply_schema(&schema()).unwrap();
    sync(&other, &relay.url());
    // What stays on a device is on no other.
    assert!(shared(&other) == shared(&replica), "they differ");
    let songs = replica.documents("songs");
    songs.document("one").splice_text("lyrics", 0, 0, "ʻAe. ").unwrap();
    assert!(songs.get("one").unwrap().unwrap()["lyrics"].as_str().unwrap().starts_with("ʻAe. "));
}

fn shown(replica: &Replica) -> Value {
    let all = contents(replica);
    all.into_iter().map(|(collection, id, version, value)| json!([collection, id, version, value])).collect()
}

fn shared(replica: &Replica) -> Vec<(String, String, String, Value)> {
    let all = contents(replica).into_iter();
    all.filter_map(|(collection, id, version, value)| {
        let value = replica.shared_fields(&collection, value).unwrap()?;
        Some((collection, id, version, value))
    })
    .collect()
}

fn schema() -> Schema {
    Schema::new()
        .text("songs", "lyrics")
        .field("songs", "plays", FieldKind::Counter)
        .field("songs", "tags", FieldKind::Set)
        .field("songs", "chords", FieldKind::List)
        .field("songs", "level", FieldKind::Rank(vec!["new".into(), "known".into()]))
        .field("songs", "key", FieldKind::Ask)
        .field("songs", "scroll", FieldKind::Local)
        .search("songs", ["title", "lyrics"])
        .index("songs", ["title"])
}

fn bless() {
    let dir = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(&dir.path().join("relay"));
    let open = |name: &str| {
        let replica = Replica::builder(dir.path().join(name)).device_name(name).open().unwrap();
        replica.apply_schema(&schema()).unwrap();
        replica
    };
    let (a, b) = (open("device.db"), open("b.db"));
    let songs = a.documents("songs");
    let song = json!({
        "title": "Ka Pō Nani", "lyrics": "Ka pō nani\nHiki mai ka ʻelele\n", "plays": 3, "tags": ["mele", "pō"],
        "chords": ["F", "C7"], "level": "new", "key": "F", "scroll": 12, "deep": { "a": [1, 2.5, null, true] },
    });
    songs.upsert("one", &song).unwrap();
    songs.upsert("two", &json!({ "title": "Lua", "lyrics": "Ua maʻemaʻe\n".repeat(60) })).unwrap();
    songs.upsert("gone", &json!({ "title": "Gone" })).unwrap();
    sync(&a, &relay.url());
    sync(&b, &relay.url());
    b.documents("songs").patch("one", &json!({ "key": "G", "title": "Ka Pō" })).unwrap();
    b.documents("songs").document("one").splice_text("lyrics", 0, 0, "E ").unwrap();
    songs.patch("one", &json!({ "key": "C", "title": "Nani" })).unwrap();
    songs.document("one").increment("plays", 2).unwrap();
    songs.delete("gone").unwrap();
    sync(&b, &relay.url());
    sync(&a, &relay.url());
    songs.upsert("pending", &json!({ "title": "Not sent" })).unwrap();
    songs.patch("two", &json!({ "level": "known" })).unwrap();
    std::fs::create_dir_all(golden("")).unwrap();
    a.disconnect();
    let text = serde_json::to_string_pretty(&shown(&a)).unwrap();
    std::fs::write(golden("shown.json"), text + "\n").unwrap();
    drop((a, songs, b, relay));
    for (name, path) in [("device.db.zst", "device.db"), ("relay.db.zst", "relay/relay.db")] {
        let path = dir.path().join(path);
        // The last connection is closed: everything is in the one file.
        assert!(!path.with_extension("db-wal").exists());
        let packed = zstd::encode_all(&std::fs::read(path).unwrap()[..], 19).unwrap();
        std::fs::write(golden(name), packed).unwrap();
    }
}
