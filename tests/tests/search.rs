//! Full-text search: in many scripts, among very many documents, in a file of an older version.

use motet::{FieldKind, Replica, Schema};
use motet_tests::random::{Random, runs, seed};
use serde_json::{Value, json};

/// Ids of what is found among documents that hold one text each.
fn found(texts: &[&str], typed: &str) -> Vec<usize> {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::open(dir.path().join("a.db")).unwrap();
    replica.apply_schema(&Schema::new().text("t", "text")).unwrap();
    for (n, text) in texts.iter().enumerate() {
        replica.documents("t").upsert(&n.to_string(), &json!({ "text": text })).unwrap();
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
    songs.upsert("1", &song).unwrap();
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
        replica.transaction(move |tx| tx.documents("songs").upsert_many(&batch).map(drop)).unwrap();
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
    songs.upsert("1", &json!({ "lyrics": words(1_000) })).unwrap();
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
    replica.documents("songs").upsert("1", &json!({ "title": "Łódź", "year": 1 })).unwrap();
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

/// Words of a document, by numbers; of some there are many, of most few.
fn numbers(random: &mut Random) -> Vec<u64> {
    let count = [0, 3, 500, 60_000, 200_000][random.below(5) as usize];
    let vocabulary = [10, 3_000, 1_000_000][random.below(3) as usize];
    (0..count).map(|_| random.below(vocabulary)).collect()
}

fn text(numbers: &[u64]) -> String {
    numbers.iter().map(|n| format!("w{n} ")).collect()
}

/// Some of the words of a document, side by side, apart, or by their beginning; and whether a document is found by them.
fn question(random: &mut Random, of: &[u64]) -> (String, impl Fn(&[u64]) -> bool) {
    let at = random.below(of.len().max(1) as u64) as usize;
    let count = (1 + random.below(6) as usize).min(of.len() - at.min(of.len()));
    let side_by_side = of[at.min(of.len())..][..count].to_vec();
    let apart: Vec<u64> = (0..random.below(4)).map(|_| random.below(1_000_000)).collect();
    let apart: Vec<u64> =
        apart.iter().filter_map(|n| of.get(*n as usize % of.len().max(1))).copied().collect();
    let beginning = random.below(100);
    let typed = format!("\"{}\" {} w{beginning}*", text(&side_by_side), text(&apart));
    let is_found = move |words: &[u64]| {
        let begins = |n: &u64| n.to_string().starts_with(&beginning.to_string());
        let phrase =
            side_by_side.is_empty() || words.windows(side_by_side.len()).any(|some| some == side_by_side);
        phrase && apart.iter().all(|n| words.contains(n)) && words.iter().any(begins)
    };
    (typed, is_found)
}

#[test]
fn documents_of_any_size_are_found_by_all_their_words_and_no_others() {
    let seed = seed();
    for run in 0..runs(4) {
        let mut random = Random(seed + run);
        let dir = tempfile::tempdir().unwrap();
        let replica = Replica::open(dir.path().join("a.db")).unwrap();
        let documents = replica.documents("t");
        let mut all: Vec<Option<Vec<u64>>> = vec![None; 4];
        for _ in 0..5 {
            let changed = random.below(4) as usize;
            let words = numbers(&mut random);
            // In the middle of the index, that another version goes into it.
            for part in [&words[..words.len() / 2], &words] {
                let mut value = json!({ "text": text(part) });
                if random.below(3) == 0 {
                    value =
                        json!({ "text": part.iter().map(|n| format!("w{n}")).collect::<Vec<_>>().join(" ") });
                }
                documents.upsert(&changed.to_string(), &value).unwrap();
                if random.below(2) == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(random.below(150)));
                }
            }
            all[changed] = Some(words);
            if random.below(4) == 0 {
                let gone = random.below(4) as usize;
                if all[gone].take().is_some() {
                    documents.delete(&gone.to_string()).unwrap();
                }
            }
            for asked in all.iter().flatten() {
                let (typed, is_found) = question(&mut random, asked);
                let hits = documents.search(&typed, 100).unwrap();
                let mut found: Vec<usize> = hits.iter().map(|hit| hit.record.id.parse().unwrap()).collect();
                found.sort_unstable();
                let has = |n: &usize| all[*n].as_ref().is_some_and(|words| is_found(words));
                assert_eq!(found, (0..4).filter(has).collect::<Vec<_>>(), "{typed}");
            }
        }
    }
}

#[test]
fn what_a_large_document_says_is_found_wherever_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::open(dir.path().join("a.db")).unwrap();
    let documents = replica.documents("t");
    // Every two characters that stand side by side are a word of their own, and each tag is a value of its own.
    let han: String =
        (0..150_000_u64).filter_map(|n| char::from_u32(0x4e00 + ((n * n / 7 + n) % 20_000) as u32)).collect();
    let tags: Vec<String> = (0..40_000).map(|n| format!("tag{n}")).collect();
    documents
        .upsert("1", &json!({ "title": "Beginning", "text": han, "tags": tags, "end": "the last words" }))
        .unwrap();
    let characters: Vec<char> = han.chars().collect();
    for at in (0..characters.len() - 100).step_by(9_973) {
        let phrase: String = characters[at..at + 100].iter().collect();
        assert_eq!(documents.search(&phrase, 5).unwrap().len(), 1, "{at}");
        assert_eq!(documents.search(&format!("{phrase} beginning last tag{}", at / 4), 5).unwrap().len(), 1);
        assert_eq!(documents.search(&format!("{phrase} begins"), 5).unwrap().len(), 0);
    }
    // Its words are in rows of which each was written while others could write.
    let conn = rusqlite::Connection::open(dir.path().join("a.db")).unwrap();
    let table: String = conn
        .query_row("SELECT name FROM sqlite_schema WHERE name GLOB 'search:*_docsize'", [], |row| row.get(0))
        .unwrap();
    let rows = |_| {
        conn.query_row(&format!("SELECT COUNT(*) FROM \"{table}\""), [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert!(rows(()) > 5, "{}", rows(()));
    documents.upsert("1", &json!({ "title": "Short", "text": null, "tags": [], "end": "" })).unwrap();
    assert_eq!(documents.search("beginning", 5).unwrap().len(), 0);
    assert_eq!(documents.search("short", 5).unwrap().len(), 1);
    assert_eq!(rows(()), 1);
}
