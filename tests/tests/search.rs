//! Full-text search: in many scripts, among very many documents, in a file of an older version.

use motet::{FieldKind, Replica, Schema};
use serde_json::{Value, json};

/// Ids of what is found among documents that hold one text each.
fn found(texts: &[&str], typed: &str) -> Vec<usize> {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::open(dir.path().join("a.db")).unwrap();
    replica.apply_schema(&Schema::new().text("t", "text")).unwrap();
    for (n, text) in texts.iter().enumerate() {
        replica.documents("t").put(&n.to_string(), &json!({ "text": text })).unwrap();
    }
    let hits = replica.documents("t").search(typed, 100).unwrap();
    let mut ids: Vec<usize> = hits.iter().map(|hit| hit.record.id.parse().unwrap()).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn words_inside_of_writing_without_spaces_are_found() {
    let japanese = ["今日はしりとりをしました", "りとをし", "尻取りの日"];
    assert_eq!(found(&japanese, "しりとり"), [0]);
    assert_eq!(found(&japanese, "をし"), [0, 1]);
    assert_eq!(found(&japanese, "日"), [0, 2]);
    assert_eq!(found(&japanese, "取り 日"), [2]);
    assert!(found(&japanese, "りしと").is_empty());
    let chinese = ["我喜欢玩游戏", "戏曲", "游泳"];
    assert_eq!(found(&chinese, "游戏"), [0]);
    assert_eq!(found(&chinese, "戏"), [0, 1]);
    assert_eq!(found(&chinese, "玩游戏"), [0]);
    assert_eq!(found(&chinese, "\"喜欢玩\" 我"), [0]);
    let thai = ["วันนี้ฉันกินข้าวแล้ว", "ข้าวผัด", "กิน\u{200b}ข้าว"];
    assert_eq!(found(&thai, "กินข้าว"), [0, 2]);
    assert_eq!(found(&thai, "ข้าว"), [0, 1, 2]);
    let korean = ["학교에서 공부했다", "고등학교", "교학", "한국어 \u{1112}\u{1161}\u{11a8}\u{1100}\u{116d}"];
    assert_eq!(found(&korean, "학교"), [0, 1, 3]);
    assert_eq!(found(&korean, "공부"), [0]);
    // Latin letters in the middle of a run.
    assert_eq!(found(&["新しいiPhoneを買った"], "iphone 買った"), [0]);
}

#[test]
fn letters_that_are_not_taken_apart_are_found_without_their_strokes() {
    for (text, typed) in [
        ("Łódź", "lodz"),
        ("Đường", "duong"),
        ("đi bộ", "di bo"),
        ("Ærøskøbing", "aeroskobing"),
        ("Þingvellir, Ísafjörður", "thingvellir isafjordur"),
        ("Straße", "strasse"),
        ("Iğdır", "igdir"),
        ("Ħamrun", "hamrun"),
        ("ﬁnal ﬂight", "final flight"),
        ("œuvre", "oeuvre"),
        ("ＡＢＣ１２", "abc12"),
        ("co\u{ad}op\u{ad}er\u{ad}ate", "cooperate"),
        ("Σοφός", "σοφοσ"),
        ("Hoʻi mai", "ho'i mai"),
    ] {
        assert_eq!(found(&[text], typed), [0], "{typed}");
        assert_eq!(found(&[typed], text), [0], "{text}");
    }
}

#[test]
fn vowel_signs_and_voicing_are_letters() {
    assert_eq!(found(&["काम", "कम"], "काम"), [0]);
    assert_eq!(found(&["काम", "कम"], "कम"), [1]);
    assert_eq!(found(&["ばし", "はし"], "はし"), [1]);
    assert_eq!(found(&["ไม้", "ไม่"], "ไม้"), [0]);
    // The points of Arabic and Hebrew are written or not.
    assert_eq!(found(&["مُحَمَّد", "שָׁלוֹם"], "محمد"), [0]);
    assert_eq!(found(&["مُحَمَّد", "שָׁלוֹם"], "שלום"), [1]);
}

#[test]
fn words_of_nested_objects_and_of_all_kinds_of_fields_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::open(dir.path().join("a.db")).unwrap();
    let songs = replica.documents("songs");
    let song = json!({ "title": "Hot", "by": "Dog", "meta": { "composer": { "name": "Liliʻuokalani" } },
        "verses": [{ "text": "Haʻaheo" }, ["nested arrays"]] });
    songs.put("1", &song).unwrap();
    for typed in ["liliuokalani", "haaheo", "nested", "hot dog"] {
        assert_eq!(songs.search(typed, 5).unwrap().len(), 1, "{typed}");
    }
    // A phrase does not reach from one field into another.
    assert!(songs.search("\"hot dog\"", 5).unwrap().is_empty());
    let hits = songs.search("liliʻuokalani", 5).unwrap();
    let snippet = hits[0].snippet.as_ref().unwrap();
    assert_eq!((snippet.field.as_str(), snippet.text.as_str()), ("meta.composer.name", "Liliʻuokalani"));
    // A search may be declared for a nested field, too.
    replica.apply_schema(&Schema::new().search("songs", ["meta.composer"])).unwrap();
    assert!(songs.search("haaheo", 5).unwrap().is_empty());
    replica.apply_schema(&Schema::new().search("songs", ["meta.composer.name"])).unwrap();
    assert_eq!(songs.search("liliuokalani", 5).unwrap().len(), 1);
    assert!(songs.search("haaheo", 5).unwrap().is_empty());
}

/// Puts many documents at once.
fn fill(replica: &Replica, documents: Vec<Value>) {
    for batch in documents.chunks(500) {
        let batch = batch.to_vec();
        replica.transaction(move |tx| tx.put_many("songs", &batch).map(drop)).unwrap();
    }
}

#[test]
fn the_best_match_is_found_among_thousands() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::open(dir.path().join("a.db")).unwrap();
    replica.apply_schema(&Schema::new().text("songs", "lyrics")).unwrap();
    let songs = replica.documents("songs");
    let words = "ke kai i ka po lai mai na pua o uka hoi kaua lani makou ala onaona hau makani wai lehua";
    let lyrics = |n: usize| format!("{words} {n} aloha {n} {words} {n}");
    let mut documents: Vec<Value> = (0..2_000)
        .map(|n| json!({ "id": format!("{n:05}"), "title": format!("Aloha {n} of many"), "lyrics": lyrics(n) }))
        .collect();
    documents.push(json!({ "id": "exact", "title": "Aloha", "lyrics": lyrics(2_000) }));
    fill(&replica, documents);
    assert_eq!(songs.search("aloha", 1).unwrap()[0].record.id, "exact");
    assert_eq!(songs.search("alohā*", 5_000).unwrap().len(), 2_001);

    // Also where it stands in nearly every text, and one text is about nothing else.
    let mut documents: Vec<Value> = (0..4_500)
        .map(|n| json!({ "id": format!("b{n}"), "title": format!("t{n}"), "lyrics": lyrics(n) }))
        .collect();
    documents.push(
        json!({ "id": "much", "title": "tm", "lyrics": format!("{} {words} {words}", "mele ".repeat(9)) }),
    );
    documents.push(json!({ "id": "words", "title": "ke kai uka lani", "lyrics": lyrics(1) }));
    fill(&replica, documents);
    assert_eq!(songs.search("mele", 1).unwrap()[0].record.id, "much");
    assert_eq!(songs.search("lani uka", 1).unwrap()[0].record.id, "words");
    assert_eq!(songs.search("Ke Kai Uka Lani", 1).unwrap()[0].record.id, "words");
    let scores: Vec<f64> = songs.search("aloha", 3_000).unwrap().iter().map(|hit| hit.score).collect();
    assert!(scores.len() == 3_000 && scores.windows(2).all(|pair| pair[0] >= pair[1]));
    // Nothing is left out of what is asked for.
    assert_eq!(songs.search("lehua", u64::MAX).unwrap().len(), 6_503);
}

#[test]
fn every_word_of_a_query_counts() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::open(dir.path().join("a.db")).unwrap();
    let songs = replica.documents("songs");
    let words = |n: usize| (0..n).map(|n| format!("w{n}")).collect::<Vec<_>>().join(" ");
    songs.put("1", &json!({ "lyrics": words(1_000) })).unwrap();
    assert_eq!(songs.search(&words(1_000), 5).unwrap().len(), 1);
    assert!(songs.search(&format!("{} missing", words(30)), 5).unwrap().is_empty());
    assert!(songs.search(&format!("\"{} missing\"", words(30)), 5).unwrap().is_empty());
    assert_eq!(songs.search(&format!("\"{}\"", words(1_000)), 5).unwrap().len(), 1);
    let error = songs.search(&words(5_000), 5).unwrap_err();
    assert_eq!(error.code(), "query-invalid");
    assert!(error.to_string().contains("5000 words"), "{error}");
}

#[test]
fn a_file_whose_words_were_folded_otherwise_is_indexed_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let replica = Replica::open(&path).unwrap();
    replica
        .apply_schema(&Schema::new().field("songs", "year", FieldKind::Register).index("songs", ["a.b"]))
        .unwrap();
    replica.documents("songs").put("1", &json!({ "title": "Łódź", "year": 1 })).unwrap();
    assert_eq!(replica.documents("songs").search("lodz", 5).unwrap().len(), 1);
    drop(replica);
    // As the version before has left it.
    let conn = rusqlite::Connection::open(&path).unwrap();
    let sql = "SELECT name FROM sqlite_schema WHERE sql LIKE 'CREATE VIRTUAL%' AND name GLOB 'search:*'";
    let table: String = conn.query_row(sql, [], |row| row.get(0)).unwrap();
    conn.execute_batch(&format!(
        "DELETE FROM meta WHERE key = 'finding'; DROP TABLE \"{table}\";
         CREATE VIRTUAL TABLE \"{table}\" USING fts5 (short, long, content = '', contentless_delete = 1,
           tokenize = \"unicode61 remove_diacritics 2\");
         INSERT INTO \"{table}\" (rowid, short) VALUES (1, 'łodz');"
    ))
    .unwrap();
    drop(conn);
    let replica = Replica::open(&path).unwrap();
    assert_eq!(replica.documents("songs").search("lodz", 5).unwrap().len(), 1);
    assert_eq!(replica.sql("SELECT year FROM collection_songs").unwrap().rows, [[json!(1)]]);
}
