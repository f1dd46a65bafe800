//! One device with many songs: import, opening, lists, search, live queries, memory; and an edit in a long document.
//!
//! Import and long edits are compared with bare Automerge and SQLite in the same run. Reads run in a process of their own, so that
//! its memory is that of an app that has just been started.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use automerge::transaction::Transactable;
use automerge::{Automerge, ObjType, ROOT};
use clap::Parser;
use motet::{Query, Replica, Schema, field};
use motet_benches::{median, peak_rss_mb, songs};
use serde_json::{Value, json};

/// Songs that the import is compared with bare Automerge for.
const COMPARED: usize = 10_000;

/// Documents per transaction, as `motet import` writes them.
const BATCH: usize = 250;

/// Full-text queries: rare words, common words, several words, the beginning of one.
const SEARCHES: [&str; 8] =
    ["love", "the", "aloha", "of the sea", "night love", "lov*", "hoi", "\"my heart\""];

/// How fast a device with many songs is.
#[derive(Parser)]
struct Args {
    /// Number of songs
    #[arg(long, default_value_t = 100_000)]
    documents: usize,
    /// JSONL file of songs; repeated with changes if it holds fewer. Without it songs are made up
    #[arg(long)]
    data: Option<PathBuf>,
    /// Folder for the database; without it a new one in the system's place for such
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Measure reads on a database that is there
    #[arg(long, hide = true)]
    read: Option<PathBuf>,
}

fn main() {
    let args = Args::parse();
    if let Some(path) = &args.read {
        return read(path);
    }
    let temporary = tempfile::tempdir().unwrap();
    let folder = args.folder.clone().unwrap_or_else(|| temporary.path().to_owned());
    long_document(&folder);
    let path = folder.join("library.db");
    import(&folder, &path, &args);
    let this = std::env::current_exe().unwrap();
    let status = std::process::Command::new(this).arg("--read").arg(&path).status().unwrap();
    assert!(status.success());
}

fn schema() -> Schema {
    Schema::new().text("songs", "lyrics").text("songs", "notes").index("songs", ["language", "title"])
}

fn import(folder: &Path, path: &Path, args: &Args) {
    let file = folder.join("songs.jsonl");
    songs::write(&file, args.data.as_deref(), args.documents);
    let text = std::fs::read_to_string(&file).unwrap();
    let songs: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    drop(text);
    let compared = &songs[..songs.len().min(COMPARED)];
    let begun = Instant::now();
    let saved: usize = compared.iter().map(|song| bare(song).len()).sum();
    let bare_s = begun.elapsed().as_secs_f64();
    let replica = Replica::open(path).unwrap();
    replica.apply_schema(&schema()).unwrap();
    let begun = Instant::now();
    insert(&replica, compared);
    let ours_s = begun.elapsed().as_secs_f64();
    println!(
        "import of {} songs: motet {ours_s:.2} s, durable   bare Automerge, made and saved ({:.1} MB): {bare_s:.2} s   {:.2}x",
        compared.len(),
        saved as f64 / 1e6,
        ours_s / bare_s
    );
    insert(&replica, &songs[compared.len()..]);
    let begun = Instant::now();
    replica.documents("songs").search("aloha", 1).unwrap();
    println!("{} songs; words indexed after {:.1} s", songs.len(), begun.elapsed().as_secs_f64());
}

fn insert(replica: &Replica, songs: &[Value]) {
    for batch in songs.chunks(BATCH) {
        let batch = batch.to_vec();
        replica.transaction(move |tx| tx.documents("songs").upsert_many(&batch)).unwrap();
    }
}

/// A song as a document of bare Automerge, saved.
fn bare(song: &Value) -> Vec<u8> {
    let mut document = Automerge::new();
    let mut tx = document.transaction();
    for (key, value) in song.as_object().unwrap() {
        match value.as_str() {
            Some(text) if key == "lyrics" || key == "notes" => {
                let object = tx.put_object(ROOT, key, ObjType::Text).unwrap();
                tx.splice_text(&object, 0, 0, text).unwrap();
            }
            Some(text) => tx.put(ROOT, key, text).unwrap(),
            None => {}
        }
    }
    tx.commit();
    document.save()
}

fn read(path: &Path) {
    let ms = |since: Instant| since.elapsed().as_secs_f64() * 1e3;
    let opens = (0..9).map(|_| {
        let begun = Instant::now();
        let replica = Replica::open(path).unwrap();
        assert!(replica.documents("songs").get("none").unwrap().is_none());
        ms(begun)
    });
    println!("open                                    {:>8.2} ms", median(opens.collect()));
    let replica = Replica::open(path).unwrap();
    let songs = replica.documents("songs");
    let first = songs.find(&Query::new().limit(1)).unwrap().remove(0);
    let language = first["language"].clone();
    let page = Query::new().filter(field("language").eq(language.clone())).order_by("title").limit(50);
    let lists = (0..25).map(|_| {
        let begun = Instant::now();
        assert!(!songs.find(&page).unwrap().is_empty());
        ms(begun)
    });
    println!("first page of a filtered, ordered list  {:>8.2} ms", median(lists.collect()));
    let mut searches = Vec::new();
    for words in SEARCHES {
        let times = (0..9).map(|_| {
            let begun = Instant::now();
            songs.search(words, 20).unwrap();
            ms(begun)
        });
        searches.push(median(times.collect()));
        let found = songs.search(words, 20).unwrap().len();
        println!("  {words:<36}  {:>8.2} ms  {found} shown", searches.last().unwrap());
    }
    println!("full-text query, median of the set      {:>8.2} ms", median(searches));
    let mut live = songs.live(page).unwrap();
    let woken = (0..25).map(|n| {
        let id = live.results()[0].id.clone();
        songs.patch(&id, &json!({ "sung": n })).unwrap();
        let begun = Instant::now();
        live.wait().unwrap();
        ms(begun)
    });
    println!("live query woken by a commit            {:>8.2} ms", median(woken.collect()));
    println!("memory of this process, peak            {:>8.1} MB", peak_rss_mb(std::process::id()).unwrap());
}

/// One field set in a document with a text of 50 kB, against the same in bare Automerge and a bare SQLite insert.
fn long_document(folder: &Path) {
    let lyrics = "Pā mai ka makani o uka i ka pō laʻi\n".repeat(1_250);
    let replica = Replica::open(folder.join("long.db")).unwrap();
    replica.apply_schema(&schema()).unwrap();
    let songs = replica.documents("songs");
    let id = songs.insert(&json!({ "title": "t", "lyrics": lyrics, "n": 0 })).unwrap();
    let conn = rusqlite::Connection::open(folder.join("bare.db")).unwrap();
    conn.pragma_update(None, "journal_mode", "WAL").unwrap();
    conn.pragma_update(None, "synchronous", "FULL").unwrap();
    conn.execute_batch("CREATE TABLE change (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL)").unwrap();
    let mut document = Automerge::new();
    let mut tx = document.transaction();
    let text = tx.put_object(ROOT, "lyrics", ObjType::Text).unwrap();
    tx.splice_text(&text, 0, 0, &lyrics).unwrap();
    tx.commit();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..9 {
        theirs.push(timed(|n| {
            let mut tx = document.transaction();
            tx.put(ROOT, "n", i64::from(round * 1_000 + n)).unwrap();
            tx.commit();
            let change = document.get_last_local_change().unwrap();
            let mut insert = conn.prepare_cached("INSERT INTO change (bytes) VALUES (?)").unwrap();
            insert.execute([change.raw_bytes()]).unwrap();
        }));
        ours.push(timed(|n| _ = songs.patch(&id, &json!({ "n": round * 1_000 + n })).unwrap()));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "one field of a document of {} kB: motet {ours:.1} us   bare {theirs:.1} us   {:.2}x",
        lyrics.len() / 1_000,
        ours / theirs
    );
}

/// Microseconds per call.
fn timed(mut call: impl FnMut(i32)) -> f64 {
    const CALLS: i32 = 200;
    let begun = Instant::now();
    (0..CALLS).for_each(&mut call);
    begun.elapsed().div_f64(f64::from(CALLS)).max(Duration::from_nanos(1)).as_secs_f64() * 1e6
}
