//! `cargo bench`: what Motet costs over the bare parts that it is made of, measured in one run.
//!
//! - local commit, durable: one character of a song replaced, against the same edit in bare Automerge plus a bare
//!   SQLite insert of the change's bytes, on disk and on tmpfs, wall and CPU;
//! - merge: changes of many songs received from a relay, against bare Automerge applying the same changes.
//!
//! Rounds of both sides take turns; medians are printed. `MOTET_BENCH_DATA=FILE.jsonl` takes real songs.

use std::path::{Path, PathBuf};
use std::time::Instant;

use automerge::transaction::Transactable;
use automerge::{Automerge, Change, ObjId, ObjType, ROOT};
use motet::{Relay, Replica, Schema};
use motet_benches::{cpu_s, median, opened_chunk};
use serde_json::{Value, json};

const ROUNDS: usize = 9;
const EDITS: usize = 400;
const MERGED_SONGS: usize = 300;
const MERGED_EDITS: usize = 30;

fn main() {
    let song = song();
    println!(
        "a song of {} bytes; {ROUNDS} rounds of {EDITS} edits, medians",
        song["lyrics"].as_str().unwrap().len()
    );
    let disk = tempfile::tempdir().unwrap();
    local_commit("disk", disk.path(), &song);
    match tempfile::tempdir_in("/dev/shm") {
        Ok(tmpfs) => local_commit("tmpfs", tmpfs.path(), &song),
        Err(error) => println!("tmpfs: skipped, {error}"),
    }
    merge(disk.path(), &song);
}

fn local_commit(place: &str, folder: &Path, song: &Value) {
    let replica = Replica::open(folder.join("motet.db")).unwrap();
    replica.apply_schema(&Schema::new().text("songs", "lyrics").text("songs", "notes")).unwrap();
    let songs = replica.documents("songs");
    let id = songs.insert(song).unwrap();
    let mut bare = Bare::new(&folder.join("bare.db"), song);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(timed(|| (0..EDITS).for_each(|i| bare.edit(i))));
        ours.push(timed(|| {
            (0..EDITS).for_each(|i| _ = songs.document(&id).splice_text("lyrics", i, 1, "x").unwrap())
        }));
    }
    let per_edit = |rounds: &[(f64, f64)], pick: fn(&(f64, f64)) -> f64| {
        median(rounds.iter().map(pick).collect()) * 1e6 / EDITS as f64
    };
    for (what, pick) in [("wall", (|r| r.0) as fn(&(f64, f64)) -> f64), ("CPU", |r| r.1)] {
        let (ours, theirs) = (per_edit(&ours, pick), per_edit(&theirs, pick));
        println!(
            "local commit, {place:<6} {what:<5} motet {ours:>8.1} us   bare {theirs:>8.1} us   {:>5.2}x",
            ours / theirs
        );
    }
}

/// The bare parts: one loaded Automerge document, one SQLite table with the durability that Motet has.
struct Bare {
    document: Automerge,
    lyrics: ObjId,
    conn: rusqlite::Connection,
}

impl Bare {
    fn new(path: &Path, song: &Value) -> Self {
        let conn = rusqlite::Connection::open(path).unwrap();
        conn.pragma_update(None, "journal_mode", "WAL").unwrap();
        conn.pragma_update(None, "synchronous", "FULL").unwrap();
        conn.execute_batch("CREATE TABLE change (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL)").unwrap();
        let (document, lyrics) = bare_document(song);
        Self { document, lyrics, conn }
    }

    fn edit(&mut self, at: usize) {
        let mut tx = self.document.transaction();
        tx.splice_text(&self.lyrics, at, 1, "x").unwrap();
        tx.commit();
        let change = self.document.get_last_local_change().unwrap();
        let mut insert = self.conn.prepare_cached("INSERT INTO change (bytes) VALUES (?)").unwrap();
        insert.execute([change.raw_bytes()]).unwrap();
    }
}

fn merge(folder: &Path, song: &Value) {
    let a = Replica::open(folder.join("a.db")).unwrap();
    a.apply_schema(&Schema::new().text("songs", "lyrics").text("songs", "notes")).unwrap();
    let relay = relay(&folder.join("relay"));
    let sync = |replica: &Replica| {
        replica.connect(Relay::new(&relay)).unwrap();
        replica.sync_now().unwrap()
    };
    let song = song.clone();
    a.transaction(move |tx| {
        for n in 0..MERGED_SONGS {
            let mut song = song.clone();
            song["id"] = format!("{n}").into();
            tx.documents("songs").insert(&song)?;
        }
        Ok(())
    })
    .unwrap();
    // Device B has the songs and is away while A edits them.
    let b_path = folder.join("b.db");
    let b = Replica::open(&b_path).unwrap();
    sync(&a);
    sync(&b);
    b.disconnect();
    drop(b);
    for edit in 0..MERGED_EDITS {
        a.transaction(move |tx| {
            (0..MERGED_SONGS).try_for_each(|n| {
                tx.documents("songs").splice_text(&format!("{n}"), "lyrics", edit, 0, "x").map(|_| ())
            })
        })
        .unwrap();
    }
    sync(&a);
    let (before, received) = stored(&folder.join("a.db"));
    let bare = timed(|| {
        for (n, changes) in received.iter().enumerate() {
            let mut document = before[n].clone();
            document.apply_changes(changes.iter().cloned()).unwrap();
            assert_eq!(document.get_heads().len(), 1);
        }
    });
    let b = Replica::open(&b_path).unwrap();
    let ours = timed(|| assert!(sync(&b).received > 0));
    let count = received.iter().map(Vec::len).sum::<usize>() as f64;
    println!(
        "merge, {count} changes of {MERGED_SONGS} songs: motet {:.0}/s, received, loaded, merged, stored   bare apply {:.0}/s   {:.2}x",
        count / ours.0,
        count / bare.0,
        ours.0 / bare.0
    );
}

/// What A stored: each song as it was first sent, and the changes that came later.
fn stored(path: &Path) -> (Vec<Automerge>, Vec<Vec<Change>>) {
    let conn = rusqlite::Connection::open(path).unwrap();
    let mut select = conn.prepare("SELECT id >> 24, bytes FROM change ORDER BY id").unwrap();
    let rows = select.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))).unwrap();
    let mut songs: std::collections::BTreeMap<i64, Vec<Change>> = Default::default();
    for row in rows {
        let (song, bytes) = row.unwrap();
        let bytes = opened_chunk(song, bytes);
        songs.entry(song).or_default().push(Change::try_from(&bytes[..]).unwrap());
    }
    songs
        .into_values()
        .map(|mut changes| {
            let later = changes.split_off(changes.len() - MERGED_EDITS);
            let mut document = Automerge::new();
            document.apply_changes(changes).unwrap();
            (document, later)
        })
        .unzip()
}

fn bare_document(song: &Value) -> (Automerge, ObjId) {
    let mut document = Automerge::new();
    let mut tx = document.transaction();
    let lyrics = tx.put_object(ROOT, "lyrics", ObjType::Text).unwrap();
    tx.splice_text(&lyrics, 0, 0, song["lyrics"].as_str().unwrap()).unwrap();
    for (key, value) in song.as_object().unwrap() {
        if let (true, Some(text)) = (key != "lyrics", value.as_str()) {
            tx.put(ROOT, key, text).unwrap();
        }
    }
    tx.commit();
    (document, lyrics)
}

fn relay(data: &Path) -> String {
    let (tell, told) = std::sync::mpsc::channel();
    let config = motet_relay::Config::new(data);
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(format!("http://{}", listener.local_addr().unwrap())).unwrap();
            motet_relay::run(listener, config, std::future::pending()).await.unwrap();
        });
    });
    told.recv().unwrap()
}

/// A song of about 1.2 kB: the first such in the data, or a made-up one.
fn song() -> Value {
    let made_up = || json!({ "id": "song", "title": "Ka Makani", "lyrics": "Pā mai ka makani o uka i ka pō laʻi\n".repeat(32), "notes": "" });
    let Some(path) = std::env::var_os("MOTET_BENCH_DATA").map(PathBuf::from) else { return made_up() };
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|song| song["lyrics"].as_str().is_some_and(|lyrics| (1_000..1_500).contains(&lyrics.len())))
        .unwrap_or_else(made_up)
}

/// Wall and CPU seconds.
fn timed(work: impl FnOnce()) -> (f64, f64) {
    let (begun, cpu) = (Instant::now(), cpu_s());
    work();
    (begun.elapsed().as_secs_f64(), cpu_s() - cpu)
}
