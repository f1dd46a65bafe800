//! The least that a merge can cost: bare Automerge loads each document, applies its changes in one call and reads what it shows; bare SQLite
//! writes the same rows. Everything in one process, nothing sent, nothing checked.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use automerge::{Automerge, Change};
use motet_benches::opened_chunk;
use rusqlite::{Connection, params};

/// A document as it was, saved, and the changes that come in, as bytes.
pub(crate) struct Work {
    saved: Vec<u8>,
    changes: Vec<Vec<u8>>,
}

/// Times of the floor, in seconds.
#[derive(Debug, Default)]
pub(crate) struct Floor {
    /// Automerge applies the changes to documents that are loaded, and parsed changes: nothing else.
    pub(crate) apply_s: f64,
    /// Documents are loaded, changes parsed and applied, read and written, on one core.
    pub(crate) one_core_s: f64,
    /// The same, but for SQLite on all cores.
    pub(crate) all_cores_s: f64,
    pub(crate) changes: usize,
    pub(crate) bytes: usize,
}

/// What the files of two devices hold of the same documents: the changes that `later` has and `before` lacks.
pub(crate) fn work(before: &Path, later: &Path) -> Vec<Work> {
    let (mut before, later) = (stored(before), stored(later));
    let work = later.into_iter().filter_map(|(name, (saved, changes))| {
        let (old, rows) = before.remove(&name)?;
        let document = loaded(&old, &rows);
        let full = loaded(&saved, &changes);
        let changes = document.get_changes_added(&full);
        let changes = changes.iter().map(|change| change.raw_bytes().to_vec()).collect();
        Some(Work { saved: document.save_nocompress(), changes })
    });
    work.collect()
}

/// Measures it, writing to a file in `folder`; the medians of `runs`.
pub(crate) fn floor(work: &[Work], folder: &Path, runs: usize) -> Floor {
    let median = |mut measure: Box<dyn FnMut(usize) -> f64 + '_>| {
        motet_benches::median((0..runs.max(1)).map(&mut measure).collect())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let whole = |cores: usize| {
        move |run: usize| {
            let conn = open(&folder.join(format!("floor-{cores}-{run}.db")), work);
            let begun = Instant::now();
            let merged = on_cores(work, cores);
            write(&conn, work, &merged);
            begun.elapsed().as_secs_f64()
        }
    };
    Floor {
        apply_s: median(Box::new(|_| apply(work))),
        one_core_s: median(Box::new(whole(1))),
        all_cores_s: median(Box::new(whole(cores))),
        changes: work.iter().map(|work| work.changes.len()).sum(),
        bytes: work.iter().flat_map(|work| &work.changes).map(Vec::len).sum(),
    }
}

fn apply(work: &[Work]) -> f64 {
    let mut documents: Vec<(Automerge, Vec<Change>)> = work
        .iter()
        .map(|work| {
            (Automerge::load(&work.saved).unwrap(), work.changes.iter().map(|bytes| parsed(bytes)).collect())
        })
        .collect();
    let begun = Instant::now();
    for (document, changes) in &mut documents {
        document.apply_changes(std::mem::take(changes)).unwrap();
    }
    begun.elapsed().as_secs_f64()
}

fn on_cores(work: &[Work], cores: usize) -> Vec<String> {
    let part = work.len().div_ceil(cores).max(1);
    std::thread::scope(|scope| {
        let running: Vec<_> = work
            .chunks(part)
            .map(|part| scope.spawn(move || part.iter().map(merge).collect::<Vec<_>>()))
            .collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn merge(work: &Work) -> String {
    let mut document = Automerge::load(&work.saved).unwrap();
    document.apply_changes(work.changes.iter().map(|bytes| parsed(bytes)).collect::<Vec<_>>()).unwrap();
    serde_json::to_string(&automerge::AutoSerde::from(&document)).unwrap()
}

fn open(path: &Path, work: &[Work]) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.pragma_update(None, "journal_mode", "WAL").unwrap();
    conn.pragma_update(None, "synchronous", "FULL").unwrap();
    conn.execute_batch(
        "CREATE TABLE change (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
         CREATE TABLE projection (document INTEGER PRIMARY KEY, heads BLOB, json TEXT);",
    )
    .unwrap();
    for document in 0..work.len() {
        conn.execute("INSERT INTO projection VALUES (?, x'', '{}')", [document as i64]).unwrap();
    }
    conn
}

fn write(conn: &Connection, work: &[Work], merged: &[String]) {
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    {
        let mut insert = conn.prepare("INSERT INTO change (id, bytes) VALUES (?, ?)").unwrap();
        let mut update =
            conn.prepare("UPDATE projection SET json = ?, heads = ? WHERE document = ?").unwrap();
        for (document, (work, json)) in work.iter().zip(merged).enumerate() {
            for (n, bytes) in work.changes.iter().enumerate() {
                insert.execute(params![((document << 24) | n) as i64, bytes]).unwrap();
            }
            update.execute(params![json, &[0_u8; 32][..], document as i64]).unwrap();
        }
    }
    conn.execute_batch("COMMIT").unwrap();
}

fn parsed(bytes: &[u8]) -> Change {
    Change::try_from(bytes).unwrap()
}

fn loaded(saved: &[u8], changes: &[Vec<u8>]) -> Automerge {
    let mut document = if saved.is_empty() { Automerge::new() } else { Automerge::load(saved).unwrap() };
    document.apply_changes(changes.iter().map(|bytes| parsed(bytes)).collect::<Vec<_>>()).unwrap();
    document
}

/// By name: the saved form of each document, or nothing, and the changes in rows.
fn stored(path: &Path) -> BTreeMap<String, (Vec<u8>, Vec<Vec<u8>>)> {
    let conn = Connection::open(path).unwrap();
    let mut documents = BTreeMap::new();
    let mut select = conn.prepare("SELECT id, name FROM document").unwrap();
    let names = select.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))).unwrap();
    for (id, name) in names.map(Result::unwrap) {
        let read = |sql: &str| -> Vec<Vec<u8>> {
            let mut select = conn.prepare_cached(sql).unwrap();
            let rows = select.query_map([id], |row| row.get::<_, Vec<u8>>(0)).unwrap();
            rows.map(|bytes| opened_chunk(id, bytes.unwrap())).collect()
        };
        let saved = read("SELECT bytes FROM snapshot WHERE document = ?").pop().unwrap_or_default();
        let changes =
            read("SELECT bytes FROM change WHERE id BETWEEN ?1 << 24 AND ?1 << 24 | 0xffffff ORDER BY id");
        documents.insert(name, (saved, changes));
    }
    documents
}
